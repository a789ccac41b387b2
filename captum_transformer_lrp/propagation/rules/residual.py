"""The rule of Chefer et al. for sums: each summand by its share of the example."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..call import Call, carries_relevance
from ..gates import is_product
from ..passes import divide
from .base import Rule
from .carried import fit_to


@dataclass(frozen=True, kw_only=True)
class ProportionalSum(Rule):
    """``a + b``: by contribution, then rescaled by each summand's share of the example.

    Chefer et al. (CVPR 2021, arXiv 2012.09838), Sec. 3.2 as their code has it: ``r_a =
    a R / (a + b)``, ``r_b`` alike, ``s`` their sums over one example; then ``r_a`` is
    multiplied by ``|s_a| / (|s_a| + |s_b|) * sum(R) / s_a``, so that a summand cannot
    receive more than there is. (The code sums over the whole batch, which it takes to
    be one example.)

    A constant summand of more than one dimension (a position embedding, a class token)
    takes its share. A bias, and what is added to attention scores (a mask, relative
    positions), takes nothing. Conserves where ``a + b != 0`` for two relevant summands.

    Args:
        rescale (bool, optional): if False, by contribution only, as in the papers'
            "LRP" baselines. Default: True
    """

    rescale: bool = True
    inside: ClassVar[Literal["constant", "gradient"]] = "gradient"

    def __call__(self, call: Call) -> Any:
        """Run the call; on the way back, share relevance between the summands."""
        output = call.run()
        if not carries_relevance(output):
            return output
        summands = [call.argument(0, "input"), call.argument(1, "other")]
        relevant = [t for t in summands if carries_relevance(t)]
        if len(relevant) == 1:
            (x,) = relevant
            other = summands[1] if summands[0] is x else summands[0]
            if not _takes_a_share(other) or is_product(x):
                return call.switch(output, fit_to(x.shape), x)
        signs = [1.0, float(call.kwargs.get("alpha", 1))]
        if call.operator in ("sub", "subtract"):
            signs[1] = -signs[1]
        elif call.operator == "rsub":
            signs = [-signs[1], 1.0]
        total = output.data
        parts = [
            (s * t.data if s != 1 else t.data).expand(total.shape)
            for s, t in zip(signs, summands, strict=True)
        ]
        wanted = [carries_relevance(t) for t in summands]
        fits = [fit_to(t.shape) for t in summands]
        return call.switch(output, self._share(total, parts, wanted, fits), *relevant)

    def _share(
        self,
        total: Tensor,
        parts: list[Tensor],
        wanted: list[bool],
        fits: list[Callable[..., Any]],
    ) -> Callable[[Tensor], list[Tensor | None]]:
        dims = tuple(range(1, total.dim()))

        def share(relevance: Tensor) -> list[Tensor | None]:
            s = divide(relevance, total)
            shares = [part * s for part in parts]
            if self.rescale:
                whole = relevance.sum(dims, keepdim=True)
                sums = [r.sum(dims, keepdim=True) for r in shares]
                sizes = sums[0].abs() + sums[1].abs()
                for r, own in zip(shares, sums, strict=True):
                    r.mul_(divide(divide(own.abs(), sizes) * whole, own))
            return [
                fit(r)[0]
                for r, want, fit in zip(shares, wanted, fits, strict=True)
                if want
            ]

        return share


def _takes_a_share(constant: Any) -> bool:
    """Whether a constant summand is more than a number or a bias."""
    return isinstance(constant, Tensor) and constant.dim() > 1 and constant.numel() > 1
