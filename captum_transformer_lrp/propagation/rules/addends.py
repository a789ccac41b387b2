"""What a product operator adds to the product, and what it multiplies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..call import Call, tensors_in

#: operators whose named argument is added to the product, with its position
_ADDEND: dict[str, tuple[int, str]] = {
    **dict.fromkeys(
        ("addmm", "baddbmm", "addbmm", "addmv", "addr", "addcmul", "addcdiv"),
        (0, "input"),
    ),
    **dict.fromkeys(("linear", "conv1d", "conv2d", "conv3d", "conv_tbc"), (2, "bias")),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"),
        (2, "bias"),
    ),
    "bilinear": (3, "bias"),
}


def addend_of(call: Call) -> Any:
    """Return what a product operator adds to the product: a bias, or None."""
    place = _ADDEND.get(call.operator)
    return None if place is None else call.argument(*place)


def without_addend(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a product operator that then adds nothing."""
    addend = addend_of(call)
    if not isinstance(addend, Tensor):
        return call.args, call.kwargs
    # a bias may be left out, the first argument of addmm may not
    nothing = None if _ADDEND[call.operator][0] else torch.zeros_like(addend)
    args = tuple(nothing if a is addend else a for a in call.args)
    kwargs = {k: nothing if a is addend else a for k, a in call.kwargs.items()}
    return args, kwargs


def relevant_factors(call: Call) -> tuple[list[Tensor], bool]:
    """Return the factors that carry relevance, and whether an addend does too."""
    relevant = [t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad]
    addend = addend_of(call)
    if addend is None:
        return relevant, False
    factors = [t for t in relevant if t is not addend]
    return factors, len(factors) < len(relevant)


def with_addend_outside(call: Call, addend: Tensor) -> Any:
    """Return the product plus its addend, as two operators."""
    args, kwargs = without_addend(call)
    beta = kwargs.pop("beta", 1)
    return call.run_with(args, kwargs) + (addend if beta == 1 else addend * beta)
