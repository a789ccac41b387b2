"""What masks do to predictions: the model, its gates, and how outputs are compared."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .divergence import Divergence
from .gates import Gates
from .masked import MaskedModel, Original


@dataclass(frozen=True, eq=False)
class Effect:
    """What masks did to predictions.

    Attributes:
        divergence (Tensor): from the prediction without masks, in nats, shape
            ``(batch,)``.
        agreement (Tensor): of the two predictions, shape ``(batch,)``.
    """

    divergence: Tensor
    agreement: Tensor


@dataclass(frozen=True, eq=False)
class Masking:
    """A model under masks.

    Attributes:
        model (MaskedModel): frozen by the caller.
        gates (Gates): whose baselines replace tokens.
        divergence (Divergence): between outputs.
    """

    model: MaskedModel
    gates: Gates
    divergence: Divergence

    def effect(self, original: Original, layers: Tensor | int, z: Tensor) -> Effect:
        """Return what masks do to each example.

        Args:
            original (Original): the pass without masks.
            layers (Tensor or int): number of the state that is masked, one for each
                example, shape ``(batch,)``, or one for all.
            z (Tensor): 1 for tokens that stay, shape ``(batch, tokens)``.
        """
        if isinstance(layers, int):
            layers = torch.full((original.batch.examples,), layers, device=z.device)
        output = self.model.masked(
            original, self.gates, layers, lambda _, rows, __: z[rows]
        )
        compared = self.model.outputs(original.output, original, self.divergence)
        masked = self.model.outputs(output, original, self.divergence)
        return Effect(
            self.divergence(compared, masked, original.tokens),
            self.divergence.agreement(compared, masked, original.tokens),
        )
