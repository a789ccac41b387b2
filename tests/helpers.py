"""Small models and measurements that several tests share."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
#: what other implementations return; see the page there
REFERENCES = Path(__file__).resolve().parent / "references"


def needs_shared(folder: str) -> Any:
    """Mark a test that reads a folder of ../shared, and skip it where there is none."""
    path = SHARED / folder
    return [
        pytest.mark.shared,
        pytest.mark.skipif(not path.exists(), reason=f"../shared/{folder} is absent"),
    ]


class Weighted(nn.Module):
    """Scores ``sum(weights * function(*inputs))``: hands out a chosen relevance."""

    def __init__(self, function: Callable[..., Tensor], weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = weights

    def forward(self, *inputs: Tensor) -> Tensor:
        output = self.function(*inputs)
        return (output * self.weights).flatten(1).sum(1)


class Block(nn.Module):
    """A pre-norm transformer block with attention written out, and a gated unit."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            self.qkv(self.norm(x))
            .view(batch, tokens, 3, self.heads, width // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        pattern = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.out((pattern @ v).transpose(1, 2).reshape(batch, tokens, width))
        return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Tiny(nn.Module):
    """Token classifier: embedding, blocks, mean pooling, head."""

    def __init__(self, blocks: int = 2, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, width)
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.1)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.head = nn.Linear(width, 3)

    def forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None
    ) -> Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.embedding(input_ids)
        x = self.dropout(inputs_embeds + self.position[:, : inputs_embeds.shape[1]])
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def tiny(seed: int = 0, **options: Any) -> Tiny:
    """Return a random ``Tiny`` in float64, in evaluation mode."""
    torch.manual_seed(seed)
    return Tiny(**options).double().eval()


def state_of(model: nn.Module) -> Any:
    """Return everything that an explanation must leave alone, for comparison."""
    return {
        "parameters": {k: v.clone() for k, v in model.state_dict().items()},
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "versions": [p._version for p in model.parameters()],
        "modes": [m.training for m in model.modules()],
        "attributes": [sorted(m.__dict__) for m in model.modules()],
        "forwards": [
            getattr(m.forward, "__func__", m.forward) for m in model.modules()
        ],
        "hooks": [
            [
                len(getattr(m, name))
                for name in (
                    "_forward_hooks",
                    "_forward_pre_hooks",
                    "_backward_hooks",
                    "_forward_hooks_with_kwargs",
                    "_forward_pre_hooks_with_kwargs",
                    "_forward_hooks_always_called",
                )
            ]
            for m in model.modules()
        ],
        "global hooks": {
            name: list(hooks)
            for name, hooks in vars(nn.modules.module).items()
            if name.startswith("_global_") and isinstance(hooks, dict)
        },
        "modes on the stack": torch.overrides._get_current_function_mode_stack(),
        "random": torch.get_rng_state(),
    }


def assert_same_state(before: Any, after: Any) -> None:
    """Raise AssertionError where two states differ."""
    for key in before:
        if key == "parameters":
            assert before[key].keys() == after[key].keys()
            for name, value in before[key].items():
                assert torch.equal(value, after[key][name]), name
        elif key == "random":
            assert torch.equal(before[key], after[key]), "the random state has changed"
        else:
            assert before[key] == after[key], key


def relative(found: Tensor, expected: Tensor) -> float:
    """Return ``max |found - expected| / max |expected|``."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def deep_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model."""
    return copy.deepcopy(model)


class Reader(nn.Module):
    """A small transformer on identifiers, which notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(40, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
        self.head = nn.Linear(16, 3)
        self.seen: list[Tensor] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        self.seen.append(input_ids.clone())
        hidden = None if attention_mask is None else attention_mask == 0
        x = self.block(self.embed(input_ids), src_key_padding_mask=hidden)
        return self.head(x[:, 0])


def reader() -> Reader:
    return Reader().double().eval()
