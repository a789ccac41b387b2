"""The composites: what each method does with each kind of operator, by name too."""

from __future__ import annotations

from .carried.composites import TRANSFORMER_ATTRIBUTION
from .classic.composites import (
    alpha_beta_lrp,
    captum_lrp,
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_lrp,
    epsilon_plus,
    epsilon_plus_flat,
    gamma_lrp,
)
from .core.composites import ATTN_LRP, CP_LRP, GRADIENT_X_INPUT, Composite
from .errors import UnknownNameError, suggestion

COMPOSITES: dict[str, Composite] = {
    "attnlrp": ATTN_LRP,
    "cp-lrp": CP_LRP,
    "epsilon": epsilon_lrp(),
    "gradient-x-input": GRADIENT_X_INPUT,
    "gamma": gamma_lrp(),
    "alpha-beta": alpha_beta_lrp(),
    "epsilon-plus": epsilon_plus(),
    "epsilon-plus-flat": epsilon_plus_flat(),
    "epsilon-alpha2-beta1": epsilon_alpha2_beta1(),
    "epsilon-alpha2-beta1-flat": epsilon_alpha2_beta1_flat(),
    "epsilon-gamma-box": epsilon_gamma_box(),
    "captum": captum_lrp(),
}


def composite_named(composite: str | Composite) -> Composite:
    """Return a composite given by name or as it is.

    Raises:
        UnknownNameError: if there is none of that name.
        TypeError: if it is neither a name nor a composite.
    """
    if isinstance(composite, Composite):
        return composite
    if not isinstance(composite, str):
        raise TypeError(
            f"composite={composite!r}; expected a Composite or one of the names "
            f"{', '.join(COMPOSITES)}."
        )
    if composite.lower() not in COMPOSITES:
        raise UnknownNameError(
            f"no composite is called {composite!r}.{suggestion(composite, COMPOSITES)}"
        )
    return COMPOSITES[composite.lower()]


__all__ = [
    "ATTN_LRP",
    "COMPOSITES",
    "CP_LRP",
    "GRADIENT_X_INPUT",
    "TRANSFORMER_ATTRIBUTION",
    "Composite",
    "alpha_beta_lrp",
    "captum_lrp",
    "composite_named",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_lrp",
    "epsilon_plus",
    "epsilon_plus_flat",
    "gamma_lrp",
]
