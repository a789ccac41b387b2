"""The hard concrete distribution: a gate between 0 and 1 that can be exactly 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: uniform noise is kept this far from 0 and 1, where its logit is infinite
NOISE_MARGIN = 1e-6


@dataclass(frozen=True, eq=False)
class HardConcrete:
    r"""A stretched and clipped binary concrete variable for each logit.

    With uniform noise ``u``: ``s = sigmoid((logits + logit(u)) / temperature)``, and
    ``z = clamp(low + (high - low) * s, 0, 1)`` (Louizos et al. 2018, arXiv 1712.01312,
    Eq. 10-11; De Cao et al. 2020, arXiv 2004.14992, Appendix B). All arithmetic is in
    at least float32.

    Args:
        logits (Tensor): any shape; large means kept.
        temperature (float): sharpness of the concrete part. Default: 0.2
        low (float): lower end of the stretch, below 0. Default: -0.2
        high (float): upper end, at least 1; at 1 a gate is never exactly 1, as in the
            paper's code. Default: 1.0

    Raises:
        ValueError: if temperature is not positive, ``low >= 0`` or ``high < 1``.
    """

    logits: Tensor
    temperature: float = 0.2
    low: float = -0.2
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}; expected more than 0.")
        if not (self.low < 0 and self.high >= 1):
            raise ValueError(
                f"low={self.low}, high={self.high}; expected low < 0 and high >= 1, so "
                "that gates can be exactly 0."
            )
        if self.logits.dtype in (torch.float16, torch.bfloat16):
            object.__setattr__(self, "logits", self.logits.float())

    def sample(self, uniform: Tensor | None = None) -> Tensor:
        """Return gates in [0, 1], differentiable in the logits.

        Args:
            uniform (Tensor, optional): noise in [0, 1] that broadcasts to the logits.
                Default: drawn from torch's generator
        """
        if uniform is None:
            uniform = torch.rand_like(self.logits)
        uniform = uniform.to(self.logits.dtype).clamp(NOISE_MARGIN, 1 - NOISE_MARGIN)
        concrete = torch.sigmoid((self.logits + uniform.logit()) / self.temperature)
        return (self.low + (self.high - self.low) * concrete).clamp(0, 1)

    def cdf(self, value: float) -> Tensor:
        """Return P(z <= value); steps at 0 and at 1."""
        if value < 0:
            return torch.zeros_like(self.logits)
        if value >= 1:
            return torch.ones_like(self.logits)
        return torch.sigmoid(self._threshold(value) - self.logits)

    def probability_zero(self) -> Tensor:
        """Return P(z = 0)."""
        return self.cdf(0)

    def probability_one(self) -> Tensor:
        """Return P(z = 1); 0 where ``high`` is 1."""
        if self.high == 1:
            return torch.zeros_like(self.logits)
        return torch.sigmoid(self.logits - self._threshold(1))

    def probability_nonzero(self) -> Tensor:
        """Return P(z != 0), the expected L0 norm of one gate."""
        return torch.sigmoid(self.logits - self._threshold(0))

    def log_probability_nonzero(self) -> Tensor:
        """Return log P(z != 0), in nats."""
        return F.logsigmoid(self.logits - self._threshold(0))

    def _threshold(self, value: float) -> float:
        """Return the logit at which a gate exceeds a value with probability 1/2."""
        return self.temperature * math.log((value - self.low) / (self.high - value))
