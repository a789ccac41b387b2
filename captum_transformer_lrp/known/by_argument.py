"""Operators of which an argument says what they do, or how many elements they multiply.

``2 ** x`` is an exponential and no power, ``x.scatter_reduce(0, i, y, "prod")`` a
product and no sum. Of one tensor whose n elements are multiplied each has a share of
1/n.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..core.call import Call, carries_relevance
from ..core.rules.base import DelegatingRule, Rule
from ..errors import UnknownOperatorError


@dataclass(frozen=True, kw_only=True)
class ByExponent(DelegatingRule):
    """``x ** n`` is a power and ``2 ** x`` an exponential: what carries relevance says.

    Conserves as the two rules do.

    Args:
        powers (Rule): where the base carries relevance.
        exponentials (Rule): where the exponent does.
    """

    powers: Rule
    exponentials: Rule

    def __call__(self, call: Call) -> Any:
        """Apply one of the rules.

        Raises:
            UnknownOperatorError: if base and exponent both carry relevance, a base is
                negative where the exponent does, or the exponent is complex.
        """
        exponent: Any = call.argument(1, "exponent")
        if isinstance(exponent, complex) or (
            isinstance(exponent, Tensor) and exponent.is_complex()
        ):
            raise _no_rule(
                call,
                "the exponent is a complex number",
                "Write it as exp(exponent * log(base)), or give",
            )
        if not carries_relevance(exponent):
            return self.powers(call)
        base: Any = call.argument(0, "input", call.kwargs.get("self"))
        if carries_relevance(base):
            raise _no_rule(
                call,
                "base and exponent both depend on the explained inputs",
                "Write it as exp(exponent * log(base)), in which they share as factors "
                "of a product, or give",
            )
        if bool((torch.as_tensor(base).real < 0).any()):
            raise _no_rule(
                call,
                "the exponent depends on the explained inputs and the base is negative",
                "Give",
            )
        return self.exponentials(call)


def _no_rule(call: Call, what: str, instead: str) -> UnknownOperatorError:
    return UnknownOperatorError(
        f"{call.operator}: {what}, for which no rule is known. {instead} the module "
        "around it a rule."
    )


@dataclass(frozen=True, kw_only=True)
class ByReduction(DelegatingRule):
    """Scattered values that are summed, averaged, compared or multiplied.

    ``scatter_reduce``, ``index_reduce`` and ``segment_reduce`` take the name of what
    they do as an argument. Conserves as the two rules do.

    Args:
        sums (Rule): for sums, means and extrema.
        products (Rule): for products.
    """

    sums: Rule
    products: Rule

    def __call__(self, call: Call) -> Any:
        """Apply one of the rules."""
        return (self.products if _multiplies(call) else self.sums)(call)


def _multiplies(call: Call) -> bool:
    place = 1 if call.operator == "segment_reduce" else 4
    return bool(call.argument(place, "reduce") == "prod")


# ---------------------------------------------- how many elements are multiplied


def _in_prod(call: Call) -> int:
    x, dim = call.argument(0, "input"), call.argument(1, "dim")
    if dim is None or not x.dim():
        count: int = x.numel()
        return count
    return math.prod(x.shape[d] for d in ((dim,) if isinstance(dim, int) else dim))


def _in_cumprod(call: Call) -> Tensor | int:
    x, dim = call.argument(0, "input"), call.argument(1, "dim")
    if not x.dim():
        return 1
    shape = [1] * x.dim()
    shape[dim] = -1
    count = torch.arange(1, x.shape[dim] + 1, device=x.device)
    return count.to(x.real.dtype).reshape(shape)


def _in_reduction(call: Call) -> Tensor | None:
    """Count what is multiplied into each element, by the sum of as many ones."""
    if not _multiplies(call):
        return None
    x = call.argument(0, "input")
    source = call.argument(3, "src", call.kwargs.get("source"))
    included = carries_relevance(x) and call.argument(5, "include_self", True)
    count = torch.full_like(x, float(included))
    if not carries_relevance(source):
        return count
    index, dim = call.argument(2, "index"), call.argument(1, "dim")
    ones = torch.ones_like(source)
    if call.operator == "index_reduce":
        return count.index_add(dim, index, ones)
    # of a larger source, only what the index covers is read
    return count.scatter_add(dim, index, ones[tuple(slice(n) for n in index.shape)])


#: the arguments that say which elements make one, and not what is done with them
_SEGMENTS = ("lengths", "indices", "offsets", "axis", "unsafe")


def _in_segments(call: Call) -> Tensor | None:
    if not _multiplies(call):
        return None
    ones = torch.ones_like(call.argument(0, "data"))
    where = {k: v for k, v in call.kwargs.items() if k in _SEGMENTS}
    return torch.segment_reduce(ones, "sum", **where)


#: operator -> takes a call, and returns how many elements of one tensor that carry
#: relevance are multiplied into each of the output; None if they are not multiplied
COUNTS: dict[str, Callable[[Call], Tensor | int | None]] = {
    "prod": _in_prod,
    "cumprod": _in_cumprod,
    "scatter_reduce": _in_reduction,
    "index_reduce": _in_reduction,
    "segment_reduce": _in_segments,
}

#: how any number of further dimensions is written, in a string and in a list
_ELLIPSIS = (".", Ellipsis)


def einsum_indices(args: tuple[Any, ...]) -> tuple[list[list[Any]], list[Any]]:
    """Return the indices of the factors of an einsum and of its output.

    An ellipsis stands for itself. What appears twice is summed over, if no output is
    given.
    """
    output: list[Any] | None
    if isinstance(args[0], str):
        equation = args[0].replace(" ", "").replace("...", ".")
        inputs, arrow, outputs = equation.partition("->")
        factors = [list(index) for index in inputs.split(",")]
        output = list(outputs) if arrow else None
    else:
        factors = [list(index) for index in args[1::2]]
        output = list(args[-1]) if len(args) % 2 else None
    if output is None:
        given = list(chain(*factors))
        output = [
            i for i in dict.fromkeys(given) if i in _ELLIPSIS or given.count(i) < 2
        ]
    return factors, output


def _in_einsum(call: Call) -> bool:
    factors, output = einsum_indices(call.args)
    return set(chain(*factors)) <= set(output)


def _in_tensordot(call: Call) -> bool:
    return bool(call.argument(2, "dims", 2) == 0)


#: operator -> takes a call, and says whether it multiplies elements with elements, and
#: sums nothing
PAIRS: dict[str, Callable[[Call], bool]] = {
    "einsum": _in_einsum,
    "tensordot": _in_tensordot,
}

#: operators that combine elements in the way that an argument names
_REDUCTIONS = ("scatter_reduce", "index_reduce", "segment_reduce")


def _by_exponent(rule: Rule, resolve: Callable[[str], Rule | None]) -> Rule:
    return ByExponent(powers=rule, exponentials=resolve("exponential") or rule)


def _by_reduction(rule: Rule, resolve: Callable[[str], Rule | None]) -> Rule:
    return ByReduction(sums=rule, products=resolve("product") or rule)


#: operator -> takes the rule of its kind, and what returns that of another kind;
#: returns the rule that asks the argument
BY_ARGUMENT: dict[str, Callable[[Rule, Callable[[str], Rule | None]], Rule]] = {
    "pow": _by_exponent,
    **dict.fromkeys(_REDUCTIONS, _by_reduction),
}
