"""Calls of known operators that are, by their arguments, another operator.

``div(x, y, rounding_mode="floor")`` is a step and no quotient, ``addmm(y, y, y)`` a
product with a sum behind it, and the grid of ``grid_sample`` says where, not how much.
For the operators in :data:`SPECIAL_CALLS` the engine asks here first. What is returned
was computed by operators that meet their own rules; ``NotImplemented`` says that the
call is the ordinary one, for which the operator has its rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors, tensors_in
from .._torch import opened
from ..core.call import carries_relevance
from .by_argument import einsum_indices

Arguments = tuple[Any, ...]
Keywords = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Special:
    """Calls of an operator that are, by their arguments, another operator.

    Attributes:
        run (Callable): takes the function of the operator, its arguments and its
            keyword arguments, and returns what it returns, computed by operators that
            meet their own rules; NotImplemented if the call is the ordinary one.
        asked (Callable): takes the arguments and keyword arguments; says quickly
            whether ``run`` is to be asked at all. Default: always
        unless_alone (bool): with one relevant argument, and a rule that is torch's own
            gradient then, all calls are ordinary. Default: False
        beside_gradient (bool): it may run where torch's own gradient is wanted too.
            Default: True
    """

    run: Callable[[Callable[..., Any], Arguments, Keywords], Any]
    asked: Callable[[Arguments, Keywords], bool] = lambda args, kwargs: True
    unless_alone: bool = False
    beside_gradient: bool = True


def constant_argument(
    position: int, name: str, function: Any, args: Arguments, kwargs: Keywords
) -> Any:
    """Detach the argument that says where values are read, not how much they are."""
    where: Any = args[position] if len(args) > position else kwargs.get(name)
    if not carries_relevance(where):
        return NotImplemented
    if len(args) > position:
        args = (*args[:position], where.detach(), *args[position + 1 :])
    else:
        kwargs = {**kwargs, name: where.detach()}
    return function(*args, **kwargs)


def _division(function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """A quotient that is rounded is a step: a constant."""
    if kwargs.get("rounding_mode") is None and len(args) < 3:
        return NotImplemented
    constant: Any = map_tensors(Tensor.detach, args)
    return function(*constant, **map_tensors(Tensor.detach, kwargs))


def _sign(function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """``sgn`` of a complex number is no step: it divides by the absolute value."""
    x = args[0] if args else kwargs["input"]
    if not x.is_complex():
        return NotImplemented
    size = x.abs()
    return x / torch.where(size == 0, 1, size)


def _bounded(function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """A bound that carries relevance takes it where it is what comes out."""
    name = getattr(function, "__name__", "")
    names = {"clamp_min": ("input", "min"), "clamp_max": ("input", "max")}.get(
        name.rstrip("_"), ("input", "min", "max")
    )
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    x: Any = given["input"] if "input" in given else given["self"]
    low, high = given.get("min"), given.get("max")
    if not (carries_relevance(low) or carries_relevance(high)):
        return NotImplemented
    if isinstance(low, Tensor):
        x = torch.maximum(x, low)
    if isinstance(high, Tensor):
        x = torch.minimum(x, high)
    return x


def _einsum(function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """``einsum("...,...->...", a, b)`` is ``a * b``."""
    factors, output = einsum_indices(args)
    operands = [t for t in tensors_in(args) if carries_relevance(t)]
    if len(factors) != 2 or len(operands) != 2 or factors[0] != factors[1]:
        return NotImplemented
    if len(set(output)) < len(output) or output != factors[0]:
        return NotImplemented
    return operands[0] * operands[1]


# ------------------------------------------------------------------------- addends


def _plus_product(
    product: Callable[[Tensor, Tensor], Tensor],
    names: tuple[str, str, str],
    function: Any,
    args: Arguments,
    kwargs: Keywords,
) -> Any:
    """``beta input + alpha (first second)`` as two operators if ``input`` is ours.

    The addend has its own share of a sum, whether or not it is a factor too. Torch's
    older spelling, ``addmm(beta, input, alpha, first, second)``, is written anew.
    """
    tensors = [a for a in args if isinstance(a, Tensor)]
    scales = [a for a in args if not isinstance(a, Tensor)]
    kwargs = dict(kwargs)
    if scales:
        if not isinstance(args[0], Tensor):
            kwargs["beta"] = scales.pop(0)
        if scales:
            kwargs["alpha"] = scales.pop(0)
    for name in names[len(tensors) :]:
        alias = "self" if name == "input" and "self" in kwargs else name
        tensors.append(kwargs.pop(alias))
    input, first, second = tensors
    if not carries_relevance(input):
        if len(args) == len(tensors) or not any(
            not isinstance(a, Tensor) for a in args
        ):
            return NotImplemented
        return function(input, first, second, **kwargs)
    beta, alpha = kwargs.get("beta", 1), kwargs.get("alpha", 1)
    made = product(first, second)
    made = made if alpha == 1 else made * alpha
    return made + (input if beta == 1 else input * beta)


def _sum_of_products(first: Tensor, second: Tensor) -> Tensor:
    return torch.bmm(first, second).sum(0)


def _bias_apart(position: int, function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """A bias that carries relevance has its own share of a sum."""
    bias: Any = args[position] if len(args) > position else kwargs.get("bias")
    if not carries_relevance(bias):
        return NotImplemented
    if len(args) > position:
        args = (*args[:position], None, *args[position + 1 :])
    kwargs = {k: v for k, v in kwargs.items() if k != "bias"}
    weight = args[1] if len(args) > 1 else kwargs["weight"]
    output = function(*args, **kwargs)
    channels_first = "conv" in getattr(function, "__name__", "") and "tbc" not in str(
        function.__name__
    )
    spatial = weight.dim() - 2 if channels_first else 0
    return output + (bias.reshape(-1, *([1] * spatial)) if spatial else bias)


# -------------------------------------------------------------------------- powers


def _power(function: Any, args: Arguments, kwargs: Keywords) -> Any:
    """Of exponents of any sign, each is treated as the number would be."""
    names = ("input", "exponent")
    given = dict(zip(names, args, strict=False))
    for key, value in kwargs.items():
        given["input" if key == "self" else key] = value
    base, exponent = given["input"], given["exponent"]
    if not isinstance(exponent, Tensor) or carries_relevance(exponent):
        return NotImplemented
    if exponent.is_complex() or not exponent.dim():
        return NotImplemented if exponent.dim() else torch.pow(base, exponent.item())
    positive = exponent > 0
    if bool(positive.all()) or not bool(positive.any()):
        return NotImplemented
    power = torch.pow(base, torch.where(positive, exponent, 1))
    constant = torch.pow(base, torch.where(positive, 0, exponent))
    return torch.where(positive, power, constant)


def inplace_argument(function: Callable[..., Any]) -> int | None:
    """Return the position of a python function's ``inplace`` argument, if any."""
    if not isinstance(function, FunctionType):
        return None
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    return names.index("inplace") if "inplace" in names else None


def in_place_at(position: int) -> Special:
    """Return what a python function is that takes ``inplace`` there.

    If it is true, the operator in place that it calls.
    """

    def asked(args: Arguments, kwargs: Keywords) -> bool:
        return bool(kwargs.get("inplace") or args[position : position + 1] == (True,))

    def run(function: Any, args: Arguments, kwargs: Keywords) -> Any:
        twin = opened(function)
        return NotImplemented if twin is None else twin(*args, **kwargs)

    return Special(run=run, asked=asked)


#: what the grid of these reads is linear in the values, not in the grid
GRIDS = frozenset(
    """grid_sample grid_sampler grid_sampler_2d grid_sampler_3d
    cudnn_grid_sampler""".split()
)
_CONVOLUTIONS = (
    "linear conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d "
    "conv_transpose3d convolution"
)
_BATCHED = ("input", "batch1", "batch2")


def _takes_tensor(args: Arguments, kwargs: Keywords) -> bool:
    return isinstance(kwargs.get("exponent", args[-1] if args else None), Tensor)


def _may_be_rounded(args: Arguments, kwargs: Keywords) -> bool:
    return len(args) > 2 or "rounding_mode" in kwargs


#: operator -> what is asked before the operator's rule
SPECIAL_CALLS: dict[str, Special] = {
    **dict.fromkeys(
        GRIDS,
        Special(run=partial(constant_argument, 1, "grid"), beside_gradient=False),
    ),
    **dict.fromkeys(("div", "divide"), Special(run=_division, asked=_may_be_rounded)),
    "sgn": Special(run=_sign),
    **dict.fromkeys(("clamp", "clip", "clamp_min", "clamp_max"), Special(run=_bounded)),
    **{
        name: Special(run=partial(_plus_product, product, names), unless_alone=True)
        for name, product, names in (
            ("addmm", torch.mm, ("input", "mat1", "mat2")),
            ("addmv", torch.mv, ("input", "mat", "vec")),
            ("baddbmm", torch.bmm, _BATCHED),
            ("addbmm", _sum_of_products, _BATCHED),
        )
    },
    **dict.fromkeys(
        _CONVOLUTIONS.split(), Special(run=partial(_bias_apart, 2), unless_alone=True)
    ),
    "bilinear": Special(run=partial(_bias_apart, 3), unless_alone=True),
    "pow": Special(run=_power, asked=_takes_tensor),
    "einsum": Special(run=_einsum, unless_alone=True),
}
