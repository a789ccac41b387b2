"""Elements of one tensor that are combined: multiplied, or as an argument says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..call import Call, carries_relevance
from .base import DelegatingRule, Rule


def share_of_each(call: Call) -> Tensor | float | None:
    """Return 1/n for a product of n elements of one tensor, None for other operators.

    Only factors that carry relevance count. The share has a shape that broadcasts to
    the output.
    """
    count = _COUNTS.get(call.operator)
    if count is None or not _by_product(call):
        return None
    number = count(call)
    return 1 / (number.clamp(min=1) if isinstance(number, Tensor) else max(number, 1))


#: operators that multiply elements of one tensor, whatever their arguments
FOLDED = frozenset({"prod", "cumprod"})


def _by_product(call: Call) -> bool:
    place = 1 if call.operator == "segment_reduce" else 4
    return call.operator in FOLDED or call.argument(place, "reduce") == "prod"


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
        return (self.products if _by_product(call) else self.sums)(call)


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


def _in_reduction(call: Call) -> Tensor:
    """Count what is multiplied into each element, by the sum of as many ones."""
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


def _in_segments(call: Call) -> Tensor:
    ones = torch.ones_like(call.argument(0, "data"))
    where = {k: v for k, v in call.kwargs.items() if k in _SEGMENTS}
    return torch.segment_reduce(ones, "sum", **where)


_COUNTS: dict[str, Callable[[Call], Any]] = {
    "prod": _in_prod,
    "cumprod": _in_cumprod,
    "scatter_reduce": _in_reduction,
    "index_reduce": _in_reduction,
    "segment_reduce": _in_segments,
}
