"""What a method's scores mean, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from captum.attr import Attribution

from ..description import describe
from ..errors import ModelStateError
from .calling import is_built_on


def meaning_of(attributor: Attribution, module: Any) -> dict[str, Any]:
    """Return what a method and its scores are, as an explanation takes it."""
    about = describe(attributor)
    total: str | None = None
    if about.takes != "mapping" and not is_built_on(attributor, module):
        total = (
            f"{about.name} was given a function of its own: the numbers are in the "
            "units of what that function returns."
        )
    elif about.conserves == "difference":
        total = (
            "They should sum to the logit less that of the baseline; the convergence "
            "delta says by how much they do not."
        )
    elif about.conserves == "no":
        total = f"{about.name} does not ask that they sum to the logit."
    return {
        "method": about.name,
        "measure": about.measure,
        "same_for_every_target": about.same_for_every_target,
        "about_sum": total,
    }


def notes_on(
    attributor: Attribution, scores: np.ndarray, delta: float | None
) -> tuple[str, ...]:
    """Return what a reader of the scores of tokens or patches should know."""
    notes = getattr(attributor, "notes_on", None)
    return () if notes is None else tuple(notes(scores, delta))


def finite(scores: np.ndarray, attributor: Attribution) -> np.ndarray:
    """Return scores, none of which is NaN or infinite.

    Raises:
        ModelStateError: One is.
    """
    if not np.isfinite(scores).all():
        raise ModelStateError(
            f"{describe(attributor).name} returned NaN or infinite scores for "
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} inputs"
        )
    return scores
