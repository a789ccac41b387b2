"""Heads and neurons of architectures that are known by the names of their layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, LayerCPLRP, units
from captum_transformer_lrp.attribution.single_pass import run_once
from captum_transformer_lrp.core.composites import GRADIENT_X_INPUT
from captum_transformer_lrp.observers.maps import AttentionMaps
from tests.helpers import relative
from tests.zoo.test_families import IDS, hugging_face

timm = pytest.importorskip("timm")

#: family -> attention layer and feed-forward layer of the last block
TEXT: dict[str, tuple[str, str, str]] = {
    "bert": (
        "SequenceClassification",
        "bert.encoder.layer.1.attention",
        "bert.encoder.layer.1",
    ),
    "distilbert": (
        "SequenceClassification",
        "distilbert.transformer.layer.1.attention",
        "distilbert.transformer.layer.1.ffn",
    ),
    "mpnet": (
        "SequenceClassification",
        "mpnet.encoder.layer.1.attention",
        "mpnet.encoder.layer.1",
    ),
    "modernbert": (
        "SequenceClassification",
        "model.layers.1.attn",
        "model.layers.1.mlp",
    ),
    "gpt2": ("CausalLM", "transformer.h.1.attn", "transformer.h.1.mlp"),
    "gpt_neox": ("CausalLM", "gpt_neox.layers.1.attention", "gpt_neox.layers.1.mlp"),
    "falcon": ("CausalLM", "transformer.h.1.self_attention", "transformer.h.1.mlp"),
    "opt": ("CausalLM", "model.decoder.layers.1.self_attn", "model.decoder.layers.1"),
    "qwen3": ("CausalLM", "model.layers.1.self_attn", "model.layers.1.mlp"),
    "phi3": ("CausalLM", "model.layers.1.self_attn", "model.layers.1.mlp"),
}
MORE: dict[str, dict[str, Any]] = {
    "modernbert": {"global_attn_every_n_layers": 2, "pad_token_id": 1},
    "opt": {"word_embed_proj_dim": 32},
    "phi3": {"num_key_value_heads": 2, "pad_token_id": 0},
    "qwen3": {"num_key_value_heads": 2},
}


def assert_slices_are_heads(model: nn.Module, heads: units.Heads, x: Tensor) -> None:
    """Each slice of the projection's input depends on one map of attention alone."""
    seen: list[Tensor] = []
    handle = heads.module.register_forward_pre_hook(
        lambda _, args: seen.append(args[0])
    )
    attention = AttentionMaps()
    try:
        with run_once(
            model,
            x,
            None,
            composite=GRADIENT_X_INPUT,
            unknown="gradient",
            observers=[attention],
        ):
            (pattern,) = [
                m.tensor
                for m in attention.maps
                if m.module
                and torch.autograd.grad(
                    seen[0].sum(), m.tensor, retain_graph=True, allow_unused=True
                )[0]
                is not None
            ][-1:]
            assert heads.heads is not None
            assert pattern.shape[-3] == heads.heads
            parts = seen[0].unflatten(-1, (heads.heads, -1))
            for head in range(heads.heads):
                (gradient,) = torch.autograd.grad(
                    parts[..., head, :].square().sum(), pattern, retain_graph=True
                )
                depends = gradient.abs().sum((0, 2, 3)) > 0
                assert depends.nonzero().flatten().tolist() == [head]
    finally:
        handle.remove()


@pytest.mark.parametrize("family", TEXT)
def test_heads_and_neurons_of_texts(family: str) -> None:
    kind, attention, feed_forward = TEXT[family]
    model = hugging_face(kind, family, MORE.get(family, {}), "eager")
    heads = units.Heads(model.get_submodule(attention))
    neurons = units.Neurons(model.get_submodule(feed_forward))
    assert_slices_are_heads(model, heads, IDS)
    target = 1 if kind == "SequenceClassification" else (-1, 3)
    by_head, by_neuron, values = LayerCPLRP(
        model, [heads, neurons, units.Layer(heads.module, inputs=True)]
    ).attribute(IDS, target=target)
    assert by_head.shape == (2, 6, 4)
    assert relative(by_head.sum(-1), values.sum(-1)) < 1e-10
    width = {"gpt2": 128}.get(family, 48)
    assert by_neuron.numel() == 2 * 6 * width and by_neuron.shape[-1] == width
    parts = [
        CPLRP(model, through={heads: i}).attribute(IDS, target=target) for i in range(4)
    ]
    every = CPLRP(model, through={heads: slice(None)}).attribute(IDS, target=target)
    assert relative(torch.stack(parts).sum(0), every) < 1e-5  # float32 inside some


def test_heads_and_neurons_of_images() -> None:
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=3, img_size=32, patch_size=8, depth=2
    )
    model.double().eval()
    pixels = torch.randn(1, 3, 32, 32).double()
    heads = units.Heads(model.blocks[1].attn)
    assert_slices_are_heads(model, heads, pixels)
    assert units.Neurons(model.blocks[1].mlp).module is model.blocks[1].mlp.fc2


def test_features_of_convolutions_come_first() -> None:
    """A projection written as a convolution has tokens, or a grid, last."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Flatten())
    net.double()
    x = torch.randn(2, 3, 2, 3).double()
    found, features = LayerCPLRP(
        net, [units.Heads(net[1], heads=2), units.Neurons(net[1])]
    ).attribute(x, target=5)
    plain = LayerCPLRP(net, net[0]).attribute(x, target=5)
    assert found.shape == (2, 2, 3, 2) and features.shape == (2, 2, 3, 8)
    assert relative(features, plain.movedim(1, -1)) < 1e-12
    assert relative(found[..., 0], plain[:, :4].sum(1)) < 1e-12
