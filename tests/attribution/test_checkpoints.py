"""Attention methods on models that compute parts of themselves again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from captum_transformer_lrp import (
    AttentionRelevance,
    AttentionRollout,
    CheferLRP,
    GenericAttention,
    PartialLRP,
    RawAttention,
)
from tests.helpers import Block, relative


class Checkpointed(nn.Module):
    """Two blocks of attention, each in a checkpoint if asked."""

    def __init__(self, *, checkpoints: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, 8)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 3)
        self.checkpoints = checkpoints
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            if self.checkpoints:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return self.head(x[:, 0])


@pytest.mark.parametrize(
    "method",
    [
        AttentionRelevance,
        AttentionRollout,
        CheferLRP,
        GenericAttention,
        PartialLRP,
        RawAttention,
    ],
)
def test_a_checkpoint_changes_no_map(method: Any) -> None:
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    found = method(Checkpointed(checkpoints=True)).attribute_targets(ids, [0, 2])
    expected = method(Checkpointed(checkpoints=False)).attribute_targets(ids, [0, 2])
    for one, other in zip(found, expected, strict=True):
        assert relative(one, other) < 1e-12
