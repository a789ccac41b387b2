"""Chefer et al.: equal to the official code's float64 outputs, key for key."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    AttentionGradCAM,
    AttentionRollout,
    CheferLRP,
    GenericAttention,
    LayerTransformerLRP,
    LRPRollout,
    PartialLRP,
    RawAttention,
    TransformerLRP,
)
from captum_transformer_lrp.attribution.aggregation import Contribution, compose
from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from tests.chefer import FULL_LRP, LRP_BASELINE
from tests.helpers import REFERENCES

FOLDER = REFERENCES / "chefer"
TOLERANCE = 1e-9


class BaselinePartialLRP(PartialLRP):
    composite = LRP_BASELINE


@cache
def arrays(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def reference(name: str, key: str) -> Tensor:
    found = arrays(name)
    exact = f"f64_eps0/{key}"  # the rest has no stabiliser to begin with
    return found[exact] if exact in found else found[f"f64/{key}"]


def load(name: str, model: nn.Module) -> nn.Module:
    from safetensors.torch import load_file

    weights = load_file(FOLDER / f"{name}.safetensors")
    model.load_state_dict(weights, strict=False)
    return model.double().eval()


def config(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return dict(read["config"])


@cache
def vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    settings = config("vit_a")
    settings["img_size"] = tuple(settings["img_size"])
    return load("vit_a", VisionTransformer(**settings))


@cache
def bert(attention: str) -> nn.Module:
    import transformers

    settings = transformers.BertConfig(**config("bert_a"))
    settings._attn_implementation = attention
    return load("bert_a", transformers.BertForSequenceClassification(settings))


@cache
def lxmert() -> nn.Module:
    import transformers

    settings = transformers.LxmertConfig(**config("lxmert_a"))
    return load("lxmert_a", transformers.LxmertForQuestionAnswering(settings))


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """Largest error over the largest value, of each example and target."""
    error = (found - expected).flatten(2).abs().amax(-1)
    assert (error <= TOLERANCE * expected.flatten(2).abs().amax(-1)).all(), error


METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "transformer_attribution": CheferLRP,
    "transformer_attribution_start1": lambda m: CheferLRP(m, start_layer=1),
    "transformer_attribution_last": lambda m: CheferLRP(m, start_layer=-1),
    "lrp_rollout": LRPRollout,
    "last_layer": PartialLRP,
    "last_layer_grad": lambda m: PartialLRP(m, times_gradient=True),
    "second_layer": lambda m: PartialLRP(m, layer=1),
    "second_layer_grad": lambda m: PartialLRP(m, layer=1, times_gradient=True),
    "orig_last_layer": BaselinePartialLRP,
    "last_layer_attn": RawAttention,
    "attn_last_layer": RawAttention,
    "rollout": AttentionRollout,
    "rollout_start1": lambda m: AttentionRollout(m, start_layer=1),
    "generic_attention": GenericAttention,
    "attn_gradcam_raw": AttentionGradCAM,
}
FULL = {"full": FULL_LRP, "orig_full": LRP_BASELINE}
#: what the layers hold; see test_layers
LAYERS = {"attn", "attn_grad", "attn_relevance", "Abar", "orig_attn_relevance"}
NO_METHOD = {
    "logits": "not an attribution",
    "attn_gradcam": "attn_gradcam_raw scaled to [0, 1], which loses the scale (NaN at "
    "maps of zeros); for BERT over the whole matrix, not the row",
}


@pytest.mark.parametrize("name", ["vit_a", "bert_a"])
def test_every_key_has_a_method_or_a_reason(name: str) -> None:
    keys = {key.split("/")[1] for key in arrays(name) if key.startswith("f64")}
    assert keys <= {*METHODS, *FULL, *LAYERS, *NO_METHOD}
    assert len(keys & {*METHODS, *FULL}) >= 8


@pytest.mark.parametrize("key", METHODS)
def test_vit(key: str) -> None:
    if key in ("transformer_attribution_last", "attn_last_layer"):
        key = {"attn_last_layer": "last_layer_attn"}.get(key, "last_layer_grad")
    found = METHODS[key](vit()).attribute_targets(
        arrays("vit_a")["inputs"].double(), list(arrays("vit_a")["targets"].T)
    )
    assert found[0].shape == (3, 1, 4, 4)
    assert_equal(torch.stack(found, 1).flatten(2), reference("vit_a", key))


@pytest.mark.parametrize("key", FULL)
def test_vit_to_the_pixels(key: str) -> None:
    lrp = TransformerLRP(vit(), FULL[key])
    images = arrays("vit_a")["inputs"].double()
    found = [lrp.attribute(images, target=t) for t in arrays("vit_a")["targets"].T]
    assert_equal(torch.stack(found, 1).sum(2), reference("vit_a", key))


def texts() -> dict[str, Tensor]:
    return {k: arrays("bert_a")[k] for k in ("input_ids", "attention_mask")}


BERT_KEYS = [
    key
    for key in METHODS
    if not key.startswith(("second", "last_layer_", "lrp_roll", "attn_grad"))
    and not key.endswith("start1")
]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("key", BERT_KEYS)
def test_bert(key: str, attention: str) -> None:
    """Also of padded texts, in one batch."""
    found = METHODS[key](bert(attention)).attribute_targets(
        texts(), list(arrays("bert_a")["targets"].T)
    )
    assert_equal(torch.stack(found, 1), reference("bert_a", key))


@pytest.mark.parametrize("key", FULL)
def test_bert_to_the_embeddings(key: str) -> None:
    composite = {"full": TRANSFORMER_ATTRIBUTION}.get(key, LRP_BASELINE)
    model: Any = bert("sdpa")
    lrp = LayerTransformerLRP(model, model.bert.embeddings, composite)
    found = torch.stack(
        [
            lrp.attribute(texts(), target=t).sum(-1)
            for t in arrays("bert_a")["targets"].T
        ],
        1,
    )
    found[..., 0] = 0  # as the official code does
    assert_equal(found, reference("bert_a", key))


@pytest.mark.parametrize("name", ["vit_a", "bert_a"])
def test_layers(name: str) -> None:
    model = vit() if name == "vit_a" else bert("sdpa")
    inputs: Any = arrays("vit_a")["inputs"].double() if name == "vit_a" else texts()
    for number, target in enumerate(arrays(name)["targets"].T):
        for method, prefix in ((CheferLRP, ""), (BaselinePartialLRP, "orig_")):
            layers = method(model).layers(inputs, target=target)
            relevance = torch.stack([layer.relevance for layer in layers], 1)
            key = f"{prefix}attn_relevance"
            assert_equal(relevance, reference(name, key)[:, number])
        layers = CheferLRP(model).layers(inputs, target=target)
        gradients = torch.stack([layer.gradient for layer in layers], 1)
        assert_equal(gradients, reference(name, "attn_grad")[:, number])
        maps = torch.stack([layer.attention for layer in layers], 1)
        assert_equal(maps, reference(name, "attn")[:, number])
        contributed = torch.stack(
            [CheferLRP(model).contribution(layer) for layer in layers], 1
        )
        assert_equal(contributed, reference(name, "Abar")[:, number])


LXMERT: dict[str, Any] = {
    "ours_nolrp_norm": GenericAttention,
    "ours_lrp_norm": CheferLRP,
    "transformer_attr": lambda m, **o: CheferLRP(m, between="last", **o),
}


@pytest.mark.parametrize("key", LXMERT)
def test_two_streams(key: str) -> None:
    saved = arrays("lxmert_a")
    inputs = {k: saved[k] for k in ("input_ids", "attention_mask")}
    inputs |= {k: saved[k].double() for k in ("visual_feats", "visual_pos")}
    method = LXMERT[key](lxmert(), output_field="question_answering_score")
    found = method.attribute_targets(inputs, [0, 1, 2, 3])
    for name, relation in (("input_ids", "R_t_t"), ("visual_feats", "R_t_i")):
        maps = torch.stack([each[name] for each in found], 1)
        assert_equal(maps, reference("lxmert_a", f"{key}/{relation}")[:, :, 0])


OPTIONS: dict[str, dict[str, Any]] = {
    "norm": {},
    "nonorm": {"normalize_relations": False},
    "noself10": {"accumulate": False},
}


@pytest.mark.parametrize("key", OPTIONS)
def test_encoder_and_decoder(key: str) -> None:
    saved = {k: v.double() for k, v in arrays("encdec_agg").items()}

    def step(queries: str, keys: str, name: str) -> list[Contribution]:
        matrix = (saved[f"{name}/A"] * saved[f"{name}/G"]).clamp(min=0).mean(0)
        return [Contribution(queries, keys, matrix[None])]

    steps = [step("i", "i", f"enc{n}") for n in range(2)]
    for n in range(3):
        steps += [step("q", "q", f"dec{n}_self"), step("q", "i", f"dec{n}_cross")]
    relations = compose(steps, **OPTIONS[key])
    for queries, keys in ("qi", "qq", "ii"):
        expected = saved[f"f64/{key}/R_{queries}_{keys}"]
        found = relations[queries, keys]
        assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
