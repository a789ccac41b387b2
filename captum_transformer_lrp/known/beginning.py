"""A score that is an activation, such as a probability: what it is worth at 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.engine import Engine
from ..core.gates import Activation, single_way
from ..core.operators import MOVES


@dataclass(frozen=True)
class Beginning:
    """The activation that made the scores.

    Where it is not 0 at 0 (sigmoid, softplus), its value there is a constant of the
    score, and absorbs its share: ``R = f(z) - f(0)`` starts at the activation, so that
    the relevance of a probability has the signs of that of its logit. Within the
    network, where no score starts, the identity rule stays as it is.

    Attributes:
        at_zero (float): its value at 0, which no input contributes to.
        shape (torch.Size): of the scores.
    """

    at_zero: float
    shape: torch.Size

    @classmethod
    def of(cls, engine: Engine, output: Tensor, scores: Tensor) -> Beginning | None:
        """Return that of scores that were selected from an output, if there is one."""
        for found in single_way(engine.tape.of(output), MOVES):
            if isinstance(found.note, Activation):
                value = found.note.at_zero
                return cls(value, scores.shape) if _absorbs(value) else None
        return None

    @property
    def absorbed(self) -> float:
        """What is due to it, summed over the batch."""
        return self.at_zero * self.shape.numel()


def _absorbs(at_zero: float) -> bool:
    return at_zero != 0 and math.isfinite(at_zero)
