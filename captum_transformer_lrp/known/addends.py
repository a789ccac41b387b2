"""What a product operator adds to the product: a bias, or the first of ``addmm``.

An addend that carries relevance has been taken apart before any rule sees the operator
(:mod:`.special_calls`): what is found here is a constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.call import Call

#: operators whose named argument is added to the product, with its position
_ADDEND: dict[str, tuple[int, str]] = {
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv"), (0, "input")),
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


def without_addend(
    operator: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a product operator that then adds nothing.

    The addend is known by its place: the same tensor may be a factor too.
    """
    if operator not in _ADDEND:
        return args, kwargs
    position, name = _ADDEND[operator]
    by_name = position >= len(args)
    addend = kwargs.get(name) if by_name else args[position]
    if not isinstance(addend, Tensor):
        return args, kwargs
    # a bias may be left out, the first argument of addmm may not
    nothing = None if position else torch.zeros_like(addend)
    if by_name:
        return args, {**kwargs, name: nothing}
    return (*args[:position], nothing, *args[position + 1 :]), kwargs
