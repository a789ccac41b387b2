"""What a product operator adds to the product, what it multiplies, and if it sums.

An addend that carries relevance has been taken apart before any rule sees the operator
(:mod:`..special_calls`): what is found here is a constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._nested import (
    tensors_in,
)
from ..call import (
    Call,
)

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


def relevant_factors(call: Call) -> list[Tensor]:
    """Return the factors that carry relevance, as often as they are multiplied."""
    return [t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad]


def multiplies_pairs(call: Call) -> bool:
    """Whether each element of a product is one product of elements: nothing is summed.

    So do ``a * b``, the outer product, and ``einsum("...,...->...", a, b)``.
    """
    if call.operator == "einsum":
        factors, output = einsum_indices(call.args)
        given = [index for indices in factors for index in set(indices)]
        if output is None:  # what appears twice is summed over
            named = [index for index in given if index not in ELLIPSIS]
            return len(set(named)) == len(named)
        return set(given) <= set(output)
    if call.operator == "tensordot":
        return bool(call.argument(2, "dims", 2) == 0)
    return call.operator in _PAIRS


#: how any number of further dimensions is written, in a string and in a list
ELLIPSIS = (".", Ellipsis)
_PAIRS = frozenset("mul multiply outer ger kron".split())


def einsum_indices(args: tuple[Any, ...]) -> tuple[list[list[Any]], list[Any] | None]:
    """Return the indices of the factors of an einsum and of its output, if given.

    An ellipsis stands for itself.
    """
    if not isinstance(args[0], str):
        factors = [list(index) for index in args[1::2]]
        return factors, list(args[-1]) if len(args) % 2 else None
    equation = args[0].replace(" ", "").replace("...", ".")
    inputs, arrow, output = equation.partition("->")
    return [list(i) for i in inputs.split(",")], list(output) if arrow else None
