"""The rule of Chefer et al. for sums: each summand by its share of the example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..core.call import Call, carries_relevance
from ..core.gates import SUMS
from ..core.rules.base import CarriedRule
from ..errors import RuleError
from ..known.behind import is_product
from .passes import Kept, Share, divide
from .past import fit_to


@dataclass(frozen=True, kw_only=True)
class ProportionalSum(CarriedRule):
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

    def __call__(self, call: Call) -> Any:
        """Run the call; on the way back, share relevance between the summands.

        Raises:
            RuleError: if the operator is no sum of two.
        """
        output = call.run()
        if not carries_relevance(output):
            return output
        summands = [call.argument(0, "input"), call.argument(1, "other")]
        if call.module is None and call.operator not in SUMS:
            raise RuleError(
                f"{self!r} was given to {call.operator!r}; expected a sum of two: "
                f"{', '.join(sorted(SUMS))}. Give it PositiveSum(), or its own kind."
            )
        relevant = [t for t in summands if carries_relevance(t)]
        if len(relevant) == 1:
            (x,) = relevant
            other = summands[1] if summands[0] is x else summands[0]
            if not _takes_a_share(other) or is_product(call.made(x)):
                return call.switch(output, fit_to(x.shape), x)
        signs = [1.0, float(call.kwargs.get("alpha", 1))]
        if call.operator in ("sub", "subtract"):
            signs[1] = -signs[1]
        elif call.operator == "rsub":
            signs = [-signs[1], 1.0]
        parts = [call.keep(t) for t in summands]
        wanted = [carries_relevance(t) for t in summands]
        share = self._share(call.keep(output), parts, signs, wanted)
        return call.switch(output, share, *relevant)

    def _share(
        self, total: Kept, parts: list[Kept], signs: list[float], wanted: list[bool]
    ) -> Share:
        fits = [fit_to(part.tensor.shape) for part in parts]
        dims = tuple(range(1, total.tensor.dim()))

        def share(relevance: Tensor) -> list[Tensor | None]:
            s = divide(relevance, total.tensor)
            shares = [
                part.tensor * (s if sign == 1 else s * sign)
                for part, sign in zip(parts, signs, strict=True)
            ]
            if self.rescale:
                whole, *sums = (
                    t.sum(dims, keepdim=True) if dims else t
                    for t in (relevance, *shares)
                )
                sizes = sums[0].abs() + sums[1].abs()
                shares = [
                    r * divide(divide(own.abs(), sizes) * whole, own)
                    for r, own in zip(shares, sums, strict=True)
                ]
            return [
                fit(r)[0]
                for r, want, fit in zip(shares, wanted, fits, strict=True)
                if want
            ]

        return share


def _takes_a_share(constant: Any) -> bool:
    """Whether a constant summand is more than a number or a bias."""
    return (
        isinstance(constant, Tensor)
        and constant.dim() > 1
        and constant.numel() > 1
        and bool(constant.isfinite().all())  # else a mask
    )
