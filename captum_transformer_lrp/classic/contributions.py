"""The classic rules: each input by what it contributes to the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._nested import map_tensors
from ..carried.past import PASSING
from ..core.call import Call
from ..core.gradients import scale_output_gradient
from ..core.rules.linear import UniformProduct
from .linear_map import (
    Bias,
    ContributionRule,
    is_sparse,
    operand_of,
    share_of_stabilized,
    stabilize,
)


def check_epsilon(rule: Any) -> None:
    """Raise ValueError for a stabiliser that would not stabilise."""
    if not rule.epsilon > 0:
        raise ValueError(
            f"{type(rule).__name__}(epsilon={rule.epsilon}): expected a positive "
            "stabiliser. For no stabiliser at all use PlainGradient()."
        )


def check_options(rule: Any) -> None:
    """Raise ValueError for a stabiliser or a way with the bias that makes no sense."""
    check_epsilon(rule)
    if rule.bias not in ("absorbs", "ignored"):
        raise ValueError(
            f"{type(rule).__name__}(bias={rule.bias!r}): expected 'absorbs' (the bias "
            "takes its share of the relevance) or 'ignored' (the inputs get it all)."
        )


@dataclass(frozen=True, kw_only=True)
class Epsilon(ContributionRule):
    """LRP-epsilon for a linear operator: ``R_i = w_i x_i R / (z + epsilon sign(z))``.

    Bach et al. (2015), Eq. 58. Shapes: any. The stabiliser and the bias absorb
    relevance, so the sum is not conserved exactly. Products of several relevant factors
    share the relevance evenly, as in :class:`UniformProduct`. Elementwise functions of
    degree one (relu, dropout) pass relevance on. Of complex numbers the sign is ``z /
    |z|``; where a mask made the output infinite, there is nothing to stabilise.

    Args:
        epsilon (float, optional): the stabiliser, in units of the output.
            Default: 1e-6
        bias (str, optional): ``"absorbs"``, or ``"ignored"``: the denominator is that
            of the inputs alone, and relevance is conserved up to the stabiliser.
            Default: ``"absorbs"``

    Raises:
        ValueError: if ``epsilon`` is not positive, or ``bias`` is neither of these.
    """

    epsilon: float = 1e-6
    bias: Bias = "absorbs"
    kinds: ClassVar[frozenset[str]] = frozenset({"product", "additive"})
    signed: ClassVar[bool] = False
    knows_complex: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self)

    def __repr__(self) -> str:
        bias = "" if self.bias == "absorbs" else f", bias={self.bias!r}"
        return f"Epsilon(epsilon={self.epsilon}{bias})"

    def __call__(self, call: Call) -> Any:
        """Run the call and scale the gradient at its output by ``z / s(z)``."""
        if is_sparse(call):
            return NotImplemented
        if call.operator in PASSING:
            return call.run()
        if operand_of(call) is not None and call.module is None:
            return super().__call__(call)

        def rescale(z: Tensor) -> Tensor:
            if not z.requires_grad:
                return z
            return scale_output_gradient(
                z, share_of_stabilized(z.detach(), self.epsilon)
            )

        return map_tensors(rescale, UniformProduct()(call))

    def factors(
        self, z: Tensor, plain: Tensor, size: Tensor, bias: Tensor, rounding: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return ``z / s(z)``."""
        if self.bias == "ignored":
            return z / stabilize(plain, self.epsilon), None
        return share_of_stabilized(z, self.epsilon), None


@dataclass(frozen=True, kw_only=True)
class Gamma(ContributionRule):
    """Generalised LRP-gamma: contributions of the output's sign count for more.

    With the sums P and N of positive and negative contributions ``w_i x_i`` and ``z' =
    z + gamma (P + b+)`` for ``z > 0``, ``z + gamma (N + b-)`` for ``z < 0``: ``R_i =
    (c_i + gamma c_i+) R / s(z')``, or ``c_i-``. Montavon et al. (2019, Sec. 10.2.3),
    for inputs and outputs of any sign as Zennit's ``Gamma`` has it; at ``x >= 0`` and
    ``z > 0`` the original rule. One product more forward and back than a gradient.
    Shapes: any. Conserves up to what the bias and the stabiliser absorb.

    Args:
        gamma (float, optional): 0 is :class:`Epsilon`, infinity is :class:`ZPlus` for
            positive outputs. Default: 0.25
        epsilon (float, optional): the stabiliser, in units of the output.
            Default: 1e-6
        bias (str, optional): ``"absorbs"`` or ``"ignored"``. Default: ``"absorbs"``

    Raises:
        ValueError: if ``gamma`` is negative, and as for :class:`Epsilon`.
    """

    gamma: float = 0.25
    epsilon: float = 1e-6
    bias: Bias = "absorbs"

    def __post_init__(self) -> None:
        """Check the options."""
        if not self.gamma >= 0:
            raise ValueError(
                f"Gamma(gamma={self.gamma}): expected 0 or more, such as 0.25."
            )
        check_options(self)

    def factors(
        self, z: Tensor, plain: Tensor, size: Tensor, bias: Tensor, rounding: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return the factors of all and of signed contributions."""
        half, sign = self.gamma / 2, z.sign()
        changed = (plain * (1 + half)).addcmul_(size, sign, value=half)
        if self.bias == "absorbs":
            high = bias + self.gamma * bias.clamp(min=0)
            changed += torch.where(z > 0, high, bias + self.gamma * bias.clamp(max=0))
        share = z / stabilize(changed, self.epsilon)
        return share * (1 + half), share * (sign * half)


@dataclass(frozen=True, kw_only=True)
class AlphaBeta(ContributionRule):
    """LRP-alpha-beta: ``R_i = (alpha c_i+ / P - beta c_i- / N) R``.

    P and N are the sums of positive and negative contributions ``c_i = w_i x_i`` and of
    the bias of that sign. Bach et al. (2015), Eq. 60. One product more forward and back
    than a gradient. Shapes: any. Conserves where there are contributions of both signs,
    up to what the bias and the stabiliser absorb; a sign without contributions hands
    nothing on. In float32 P and N lose digits where one of them is far smaller than the
    other, for they are the sum and difference of ``W x`` and ``|W| |x|``.

    Args:
        alpha (float, optional): the weight of positive contributions. Default: 2.0
        beta (float, optional): that of negative ones, ``alpha - 1``. Default: 1.0
        epsilon (float, optional): the stabiliser, in units of the output.
            Default: 1e-6
        bias (str, optional): ``"absorbs"`` or ``"ignored"``. Default: ``"absorbs"``

    Raises:
        ValueError: unless ``alpha - beta = 1`` and neither is negative, and as for
            :class:`Epsilon`.
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 1e-6
    bias: Bias = "absorbs"

    def __post_init__(self) -> None:
        """Check the options."""
        if abs(self.alpha - self.beta - 1) > 1e-9 or self.beta < 0:
            raise ValueError(
                f"AlphaBeta(alpha={self.alpha}, beta={self.beta}): expected alpha - "
                "beta = 1 and beta >= 0, such as alpha=2, beta=1, so that relevance is "
                "conserved."
            )
        check_options(self)

    def factors(
        self, z: Tensor, plain: Tensor, size: Tensor, bias: Tensor, rounding: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return the factors of all and of signed contributions."""
        smallest = size * (16 * rounding)
        positive = self._share(z, size + plain, smallest, bias.clamp(min=0))
        positive.mul_(self.alpha / 2)
        if not self.beta:
            return positive, positive
        negative = self._share(z, size - plain, smallest, -bias.clamp(max=0))
        negative.mul_(self.beta / 2)
        return positive + negative, positive.sub_(negative)

    def _share(
        self, z: Tensor, twice: Tensor, smallest: Tensor, bias: Tensor
    ) -> Tensor:
        """Return ``z`` over the sum of one sign's contributions, 0 without any.

        Where there are none, ``twice`` is no 0 but what is left by rounding.
        """
        added = bias + self.epsilon if self.bias == "absorbs" else self.epsilon
        nothing = twice <= smallest
        return z.div(twice.mul_(0.5).add_(added)).masked_fill_(nothing, 0)


@dataclass(frozen=True, kw_only=True)
class ZPlus(ContributionRule):
    """z+: positive contributions alone, ``R_i = c_i+ R / P``; alpha 1, beta 0.

    Montavon et al. 2017 (arXiv 1512.02479), for inputs of any sign. With a bias, P
    includes its positive part. (:class:`PositiveProduct` is the variant of Chefer et
    al., which ignores the bias.)

    Args:
        epsilon (float, optional): the stabiliser, in units of the output.
            Default: 1e-6
        bias (str, optional): ``"absorbs"`` or ``"ignored"``. Default: ``"absorbs"``

    Raises:
        ValueError: as for :class:`Epsilon`.
    """

    epsilon: float = 1e-6
    bias: Bias = "absorbs"

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self)

    def factors(
        self, z: Tensor, plain: Tensor, size: Tensor, bias: Tensor, rounding: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return the factors of alpha 1, beta 0."""
        rule = AlphaBeta(alpha=1, beta=0, epsilon=self.epsilon, bias=self.bias)
        return rule.factors(z, plain, size, bias, rounding)
