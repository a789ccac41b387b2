"""The layer classes inside Captum's own wrapper for language models."""

from __future__ import annotations

from typing import Any

import pytest
from captum.attr import LLMGradientAttribution, TextTokenInput

from captum_transformer_lrp import (
    LayerAttnLRP,
    LayerCPLRP,
    LayerTransformerLRP,
    LLMTransformerLRP,
)
from tests.helpers import assert_same_state, relative, state_of
from tests.language.models import language_model
from tests.models.tiny import byte_level_tokenizer


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(
    ("layer_class", "options", "composite"),
    [
        (LayerAttnLRP, {}, "attnlrp"),
        (LayerCPLRP, {}, "cp-lrp"),
        (LayerTransformerLRP, {"composite": "epsilon"}, "epsilon"),
    ],
)
def test_stock_wrapper_equals_ours(
    name: str, layer_class: Any, options: Any, composite: str
) -> None:
    pytest.importorskip("transformers")
    tokenizer = byte_level_tokenizer()
    model = language_model(name, vocab_size=len(tokenizer))
    before = state_of(model)
    inp = TextTokenInput("the movie was the", tokenizer, skip_tokens=["Ġwas"])
    layer = layer_class(model, model.get_input_embeddings(), **options)
    stock = LLMGradientAttribution(layer, tokenizer).attribute(inp, " best movie")
    assert_same_state(before, state_of(model))
    ours = LLMTransformerLRP(
        model, tokenizer, composite, attr_target="log_prob"
    ).attribute(inp, " best movie")
    assert stock.token_attr.shape == (2, 3)
    assert relative(ours.token_attr, stock.token_attr) <= 1e-10
    assert relative(ours.seq_attr, stock.seq_attr) <= 1e-10
    assert ours.input_tokens == stock.input_tokens
    assert ours.output_tokens == stock.output_tokens


def test_stock_wrapper_at_a_block() -> None:
    pytest.importorskip("transformers")
    tokenizer = byte_level_tokenizer()
    model = language_model("gpt2", vocab_size=len(tokenizer))
    inp = TextTokenInput("the movie was", tokenizer)
    layer = LayerAttnLRP(model, model.transformer.h[0].mlp)
    result = LLMGradientAttribution(layer, tokenizer).attribute(inp, " best")
    assert result.token_attr.shape == (1, 3)
    assert result.token_attr.any()
