"""How much of an operator's output is made by constants alone.

A bias, a position embedding or a masked value takes part in the score without being an
input. What it contributes is what the operator returns where everything that carries
relevance is 0; the relevance of that part is rightly absorbed. What an operator absorbs
beyond it is lost, and says that its rule does not conserve.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors, tensors_in
from ..core.table import Operator

#: kinds whose operators are affine in all that carries relevance; the rules of the
#: others hand all relevance on, and nothing is due to constants
AFFINE = frozenset({"structural", "additive", "product", "normalization"})

#: operators that put plain numbers beside what carries relevance
_WITH_NUMBERS = frozenset(
    """add sub subtract rsub where masked_fill pad constant_pad_nd fill index_fill
    scatter nan_to_num""".split()
)

#: products that are 0 where what carries relevance is, whatever the constants are
_HOMOGENEOUS = frozenset("mul multiply matmul mm bmm mv einsum".split())

#: operators that choose between a tensor and a constant
_CHOOSING = frozenset({"maximum", "minimum", "fmax", "fmin", "max", "min"})


def constant_part(
    operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> list[Tensor] | None:
    """Return what constants make of an output, one tensor for each; None for nothing.

    Args:
        operator (Operator): what was called.
        args (tuple): its arguments; what carries relevance requires a gradient.
        kwargs (dict): its keyword arguments.
        output (Any): what it returned.
    """
    given = list(tensors_in((args, kwargs)))
    constants = [t for t in given if not t.requires_grad and _holds_values(t)]
    if operator.kind not in AFFINE or operator.name in _HOMOGENEOUS:
        return None
    if operator.name == "linear" and not output.is_nested:  # not to multiply zeros
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        if bias is None or not bias.requires_grad:
            return None if bias is None else [bias.expand_as(output)]
    if not constants and operator.name not in _WITH_NUMBERS:
        return None
    with torch.no_grad():
        if operator.name in _CHOOSING:
            (relevant,) = [t for t in given if t.requires_grad][:1]
            return [torch.where(output == relevant, 0, output)]

        alone = operator.function(
            *map_tensors(_zeroed, args), **map_tensors(_zeroed, kwargs)
        )
    return list(tensors_in(alone))


def written_by_constants(
    operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """Return what constants leave or write in the first argument of a write in place.

    Args:
        operator (Operator): what is called, such as ``__setitem__``.
        args (tuple): its arguments; what carries relevance requires a gradient.
        kwargs (dict): its keyword arguments.
    """
    with torch.no_grad():
        target = _zeroed(args[0]) if args[0].requires_grad else args[0].clone()
        operator.function(
            target, *map_tensors(_zeroed, args[1:]), **map_tensors(_zeroed, kwargs)
        )
    return target


def _zeroed(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.requires_grad else tensor


def _holds_values(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
