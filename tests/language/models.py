"""Tiny random language models in float64, and one that is not Hugging Face's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.helpers import Block

VOCABULARY = 40


class Plain(nn.Module):
    """A causal language model of token ids, with positions kept as a parameter."""

    def __init__(self, *, width: int = 8, checkpoints: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.position = nn.Parameter(torch.randn(1, 32, width))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.block = Block(width)
        self.head = nn.Linear(width, VOCABULARY)
        self.checkpoints = checkpoints
        self.calls = 0

    def attend(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x)[:, None].chunk(3, -1)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen[:, 0])
        return x + self.block.down(
            nn.functional.silu(self.block.gate(x)) * self.block.up(x)
        )

    def forward(self, ids: Tensor) -> Tensor:
        self.calls += 1
        x = self.embedding(ids) + self.position[:, : ids.shape[1]]
        if self.checkpoints:
            x = checkpoint(self.attend, x, use_reentrant=False)
        else:
            x = self.attend(x)
        return self.head(x)


def plain(seed: int = 0, **options: Any) -> Plain:
    torch.manual_seed(seed)
    return Plain(**options).double().eval()


SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "llama": (
        "Llama",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
    ),
    "gemma2": (
        "Gemma2",
        {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 4,
        },
    ),
    "bloom": ("Bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}),
    "t5": (
        "T5",
        {
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 24,
            "num_layers": 2,
            "num_heads": 2,
            "decoder_start_token_id": 0,
            "feed_forward_proj": "gated-gelu",
        },
    ),
    "bart": (
        "Bart",
        {
            "d_model": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "decoder_ffn_dim": 24,
            "max_position_embeddings": 64,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
            "init_std": 0.5,
        },
    ),
}
_HEADS = {
    "GPT2": "GPT2LMHeadModel",
    "T5": "T5ForConditionalGeneration",
    "Bart": "BartForConditionalGeneration",
}


def language_model(name: str, seed: int = 0, **options: Any) -> Any:
    """Return a tiny Hugging Face model with random weights, in float64."""
    transformers = pytest.importorskip("transformers")
    family, shape = SHAPES[name]
    config = getattr(transformers, f"{family}Config")(
        **{"vocab_size": VOCABULARY, "initializer_range": 0.5, "eos_token_id": 1}
        | {"bos_token_id": 0, "pad_token_id": 0}
        | shape
        | options
    )
    torch.manual_seed(seed)
    head = _HEADS.get(family, f"{family}ForCausalLM")
    return getattr(transformers, head)(config).double().eval()


def tokens(count: int, seed: int = 0) -> Tensor:
    """Return random token ids, none of them special."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCABULARY, (count,), generator=generator)
