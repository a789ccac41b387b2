"""The comparison that oracles and mutants share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .rules import as_array


def relative_error(found: Any, expected: Any) -> float:
    """``max |found - expected| / max |expected|``; NaN where either has one.

    Args:
        found (array-like or torch.Tensor): Any shape.
        expected (array-like or torch.Tensor): The same shape.

    Raises:
        ValueError: If the shapes differ, or if `expected` is zero everywhere
            (then nothing is compared).
    """
    a, b = as_array(found), as_array(expected)
    if a.shape != b.shape:
        raise ValueError(f"found has shape {a.shape}, expected has shape {b.shape}")
    scale = np.abs(b).max()
    if scale == 0.0:
        raise ValueError("the expected values are zero everywhere")
    return float(np.abs(a - b).max() / scale)


def assert_relevance(
    found: Any, expected: Any, *, tolerance: float, what: str = "relevance"
) -> None:
    """Raise AssertionError unless `relative_error` is at most `tolerance`.

    Args:
        found (array-like or torch.Tensor): Any shape.
        expected (array-like or torch.Tensor): The same shape.
        tolerance (float): The largest relative error that passes.
        what (str, optional): What is compared, for the message.
            Default: "relevance"
    """
    error = relative_error(found, expected)
    if not error <= tolerance:  # a NaN fails, too
        raise AssertionError(
            f"{what}: relative error {error:.3g} exceeds {tolerance:.3g}"
        )
