"""Rules for functions of degree n of one tensor: the product of n of its elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...errors import RuleError
from ..call import Call, carries_relevance
from ..gradients import scale_output_gradient
from .base import Rule


@dataclass(frozen=True, kw_only=True)
class EvenFactors(Rule):
    """Each of the n elements that are multiplied receives 1/n of the relevance.

    What :class:`UniformProduct` does with n tensors (AttnLRP, arXiv 2402.05602, Prop.
    3.3), for ``x.prod()``, ``x.cumprod()`` and reductions by product: torch's gradient
    over the number of factors that carry relevance. Conserves, by Euler's theorem for
    functions of degree n. Shapes: those of the operator.
    """

    inside: ClassVar[Literal["constant", "gradient"]] = "gradient"

    def __call__(self, call: Call) -> Any:
        """Run the call and divide the gradient by the number of factors.

        Raises:
            RuleError: for an operator whose factors it cannot count.
        """
        count = _COUNTS.get(call.operator)
        if count is None or call.module is not None:
            raise RuleError(
                f"EvenFactors() was given to {call.operator!r}; it counts the factors "
                f"of {', '.join(_COUNTS)}. Give it PlainGradient(), or write out the "
                "product."
            )
        return scale_output_gradient(call.run(), count(call))


@dataclass(frozen=True, kw_only=True)
class ByReduction(Rule):
    """Scattered values that are summed, averaged, compared or multiplied.

    ``scatter_reduce``, ``index_reduce`` and ``segment_reduce`` take the name of what
    they do as an argument. Conserves as the two rules do.

    Args:
        sums (Rule): for sums, means and extrema.
        products (Rule): for products.
    """

    sums: Rule
    products: Rule
    inside: ClassVar[Literal["constant", "gradient"]] = "gradient"
    form: ClassVar[Literal["either"]] = "either"

    def __call__(self, call: Call) -> Any:
        """Apply one of the rules."""
        place = 1 if call.operator == "segment_reduce" else 4
        by_product = call.argument(place, "reduce") == "prod"
        return (self.products if by_product else self.sums)(call)


def _of_prod(call: Call) -> float:
    x, dim = call.argument(0, "input"), call.argument(1, "dim")
    if dim is None:
        return 1 / max(x.numel(), 1)
    dims = (dim,) if isinstance(dim, int) else dim
    return 1 / max(math.prod(x.shape[d] for d in dims), 1) if x.dim() else 1.0


def _of_cumprod(call: Call) -> Tensor | float:
    x, dim = call.argument(0, "input"), call.argument(1, "dim")
    if not x.dim():
        return 1.0
    shape = [1] * x.dim()
    shape[dim] = -1
    count = torch.arange(1, x.shape[dim] + 1, device=x.device)
    return (1 / count.to(x.real.dtype)).reshape(shape)


def _of_reduction(call: Call) -> Tensor:
    """Count what is multiplied into each element, by the sum of as many ones."""
    x, source = call.argument(0, "input"), call.argument(3, "src")
    source = call.kwargs.get("source", source)
    included = carries_relevance(x) and call.argument(5, "include_self", True)
    count = torch.full_like(x, float(included))
    if carries_relevance(source):
        index, dim = call.argument(2, "index"), call.argument(1, "dim")
        ones = torch.ones_like(source)
        if call.operator == "index_reduce":
            count = count.index_add(dim, index, ones)
        else:  # of a larger source, only what the index covers is read
            ones = ones[tuple(slice(n) for n in index.shape)]
            count = count.scatter_add(dim, index, ones)
    return 1 / count.clamp(min=1)


def _of_segments(call: Call) -> Tensor:
    ones = torch.ones_like(call.argument(0, "data"))
    kwargs = {k: v for k, v in call.kwargs.items() if k not in ("data", "reduce")}
    kwargs = {k: v for k, v in kwargs.items() if k != "initial"}
    return 1 / torch.segment_reduce(ones, "sum", **kwargs).clamp(min=1)


_COUNTS: dict[str, Callable[[Call], Any]] = {
    "prod": _of_prod,
    "cumprod": _of_cumprod,
    "scatter_reduce": _of_reduction,
    "index_reduce": _of_reduction,
    "segment_reduce": _of_segments,
}
