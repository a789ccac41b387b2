"""Bars that unmodified Hugging Face classes must meet: conservation, checkpoints."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_transformer_lrp import CPLRP, AttnLRP
from captum_transformer_lrp.errors import ModelStateError
from tests.helpers import assert_same_state, relative, state_of

transformers = pytest.importorskip("transformers")


def llama(attention: str = "sdpa", **more: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        **more,
    )
    config._attn_implementation = attention
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


IDS = torch.tensor([[5, 9, 17, 33, 8, 2], [7, 6, 40, 21, 11, 3]])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_cp_lrp_sums_to_the_logit_without_biases(attention: str) -> None:
    """In a plain float64 model, whose RMSNorm modules round to float32 inside."""
    model = llama(attention)
    lrp = CPLRP(model)
    _, delta = lrp.attribute(IDS, target=(-1, 4), return_convergence_delta=True)
    assert delta.abs().max() < 1e-9
    embeddings = model.get_input_embeddings()(IDS).detach()
    mapping = {"inputs_embeds": embeddings}
    _, delta = lrp.attribute(mapping, target=(-1, 4), return_convergence_delta=True)
    assert delta.abs().max() < 1e-9

    def from_two(first: Tensor, second: Tensor) -> Tensor:
        return model(inputs_embeds=torch.cat([first, second], 1)).logits

    two = (embeddings[:, :2], embeddings[:, 2:])
    _, delta = CPLRP(from_two).attribute(
        two, target=(-1, 4), return_convergence_delta=True
    )
    assert delta.abs().max() < 1e-9


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_a_padded_batch_equals_the_single_texts(method: Any, attention: str) -> None:
    model = llama(attention)
    padded = torch.cat([IDS[:1], torch.tensor([[7, 6, 40, 2, 0, 0]])])
    batch = {"input_ids": padded, "attention_mask": (padded != 0).long()}
    target = [(-1, 4), (3, 4)]  # the last token of each text
    found, delta = method(model).attribute(
        batch, target=target, return_convergence_delta=True
    )
    assert (found[1, 4:] == 0).all()
    alone = method(model).attribute(padded[1:, :4], target=(-1, 4))
    assert relative(found[1:, :4], alone) < 1e-6
    if method is CPLRP:
        assert delta.abs().max() < 1e-9


def small(name: str) -> Any:
    torch.manual_seed(0)
    if name == "bert":
        config = transformers.BertConfig(
            vocab_size=50,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return transformers.BertForSequenceClassification(config).double()
    return llama(attention_dropout=0.0)


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_gradient_checkpointing(method: Any, name: str) -> None:
    """Without re-entry the same relevance, with re-entry a clear error."""
    model = small(name).train()
    target: Any = 1 if name == "bert" else (-1, 4)
    embeddings = {"inputs_embeds": model.get_input_embeddings()(IDS).detach()}
    expected = method(model).attribute(embeddings, target=target)
    by_token = method(model).attribute(IDS, target=target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.gradient_checkpointing_enable({"use_reentrant": False})
        before = state_of(model)
        assert relative(
            method(model).attribute(embeddings, target=target), expected
        ) < (1e-12)
        assert relative(method(model).attribute(IDS, target=target), by_token) < 1e-12
        assert_same_state(before, state_of(model))
        model.gradient_checkpointing_enable({"use_reentrant": True})
        with pytest.raises(ModelStateError, match="use_reentrant=True"):
            method(model).attribute(embeddings, target=target)
        model.eval()  # checkpoints are for training: nothing is recomputed now
        assert relative(method(model).attribute(IDS, target=target), by_token) < 1e-12


def test_compiled_models_run_eagerly() -> None:
    model = small("bert").eval()
    expected = AttnLRP(model).attribute(IDS, target=1)
    model.bert.encoder.layer[0] = torch.compile(model.bert.encoder.layer[0])
    assert relative(AttnLRP(model).attribute(IDS, target=1), expected) < 1e-12


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
@pytest.mark.parametrize("kind", ["dynamic", "of a graph", "static", "empty"])
def test_a_cache_is_what_came_before_and_stays_as_it_was(
    method: Any, kind: str
) -> None:
    model = llama()
    known, new = IDS[:1, :4], IDS[:1, 4:]
    if kind == "static":
        cache = transformers.StaticCache(config=model.config, max_cache_len=9)
    else:
        cache = transformers.DynamicCache(config=model.config)
    if kind != "empty":
        with torch.set_grad_enabled(kind == "of a graph"):
            model(known, past_key_values=cache, use_cache=True)
    before = model.get_input_embeddings()(known).detach()

    def after(x: Tensor) -> Tensor:
        whole = x if kind == "empty" else torch.cat([before, x], 1)
        return model(inputs_embeds=whole).logits

    embedded = model.get_input_embeddings()(new).detach()
    expected = method(after).attribute(embedded, target=(-1, 4)).sum(-1)
    for _ in range(2):
        batch = {"input_ids": new, "past_key_values": cache}
        assert relative(method(model).attribute(batch, (-1, 4)), expected) < 1e-9
    assert int(cache.get_seq_length()) == (0 if kind == "empty" else 4)
