"""Attention methods on models that nothing in the package knows by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    AttentionGradCAM,
    AttentionRelevance,
    AttentionRollout,
    AttentionXGradient,
    CheferLRP,
    GenericAttention,
    LRPRollout,
    PartialLRP,
    RawAttention,
)
from captum_transformer_lrp.errors import AttentionError
from tests.helpers import assert_same_state, state_of
from tests.zoo.test_families import rebuilt

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

METHODS = (
    CheferLRP,
    GenericAttention,
    LRPRollout,
    PartialLRP,
    AttentionRollout,
    RawAttention,
    AttentionXGradient,
    AttentionRelevance,
    AttentionGradCAM,
)
TEXT: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 49,
}
IMAGE: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
IDS = torch.tensor([[5, 9, 17, 33, 8, 2, 49], [7, 6, 40, 21, 11, 3, 49]])
PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
DECODED = torch.tensor([[1, 4, 5], [1, 6, 7]])
GRID = (2, 1, 4, 4)


class Field(nn.Module):
    """Returns one field of a model's output."""

    def __init__(self, model: nn.Module, field: str) -> None:
        super().__init__()
        self.model, self.field = model, field

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.model(*args, **kwargs), self.field)


class Paired(nn.Module):
    """Scores the pairs of texts and images of a contrastive model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> Any:
        output = self.model(input_ids=input_ids, pixel_values=pixel_values)
        return output.logits_per_image.diagonal()


class Encoder(nn.Module):
    """Torch's own encoder; reads out the mean or the first token."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 3)
        self.mean = mean

    def forward(self, ids: Tensor) -> Any:
        hidden = self.encoder(self.embedding(ids))
        return self.head(hidden.mean(1) if self.mean else hidden[:, 0])


def hugging_face(cls: str, config: str, **settings: Any) -> Callable[[str], nn.Module]:
    def make(attention: str) -> Any:
        built = getattr(transformers, config)(**settings)
        built._attn_implementation = attention
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return getattr(transformers, cls)(built)
            except ValueError as error:
                if "does not support an attention implementation" not in str(error):
                    raise
                pytest.skip(f"{cls} has no {attention} attention in this transformers")

    return make


def runs_alone(model: nn.Module, inputs: Any) -> None:
    """Skip where a model itself fails, as CLIP in float64 in old transformers."""
    try:
        with torch.no_grad():
            model(**inputs) if isinstance(inputs, dict) else model(inputs)
    except RuntimeError as error:
        pytest.skip(f"the model itself fails: {error}")


def from_timm(name: str, **settings: Any) -> Callable[[str], nn.Module]:
    return lambda attention: timm.create_model(name, num_classes=3, **settings)


VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 2}
Case = tuple[Callable[[str], nn.Module], Any, Any, Any]
# model, inputs, target, shape of the maps
CASES: dict[str, Case] = {
    "BERT": (
        hugging_face("BertForSequenceClassification", "BertConfig", **TEXT),
        IDS,
        1,
        (2, 7),
    ),
    "RoBERTa": (
        hugging_face("RobertaForSequenceClassification", "RobertaConfig", **TEXT),
        IDS,
        1,
        (2, 7),
    ),
    "DistilBERT": (
        hugging_face(
            "DistilBertForSequenceClassification",
            "DistilBertConfig",
            vocab_size=50,
            dim=32,
            hidden_dim=48,
            n_layers=2,
            n_heads=4,
        ),
        IDS,
        1,
        (2, 7),
    ),
    "DeBERTa-v2": (
        hugging_face(
            "DebertaV2ForSequenceClassification",
            "DebertaV2Config",
            **TEXT,
            relative_attention=True,
            position_biased_input=False,
            pos_att_type=["p2c", "c2p"],
        ),
        IDS,
        1,
        (2, 7),
    ),
    "GPT-2": (
        hugging_face(
            "GPT2LMHeadModel",
            "GPT2Config",
            vocab_size=50,
            n_embd=32,
            n_layer=2,
            n_head=4,
            bos_token_id=1,
            eos_token_id=49,
        ),
        IDS,
        (-1, 4),
        (2, 7),
    ),
    "Llama": (
        hugging_face("LlamaForCausalLM", "LlamaConfig", **TEXT, num_key_value_heads=2),
        IDS,
        (-1, 4),
        (2, 7),
    ),
    "T5": (
        hugging_face(
            "T5ForConditionalGeneration",
            "T5Config",
            vocab_size=50,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
        ),
        {"input_ids": IDS, "decoder_input_ids": DECODED},
        (-1, 4),
        (2, 7),
    ),
    "ViT": (
        hugging_face("ViTForImageClassification", "ViTConfig", **IMAGE),
        PIXELS,
        1,
        GRID,
    ),
    "DeiT distilled": (
        hugging_face("DeiTForImageClassificationWithTeacher", "DeiTConfig", **IMAGE),
        PIXELS,
        1,
        GRID,
    ),
    "CLIP vision": (
        lambda attention: Field(
            hugging_face(
                "CLIPVisionModelWithProjection",
                "CLIPVisionConfig",
                **IMAGE,
                projection_dim=16,
            )(attention),
            "image_embeds",
        ),
        PIXELS,
        1,
        GRID,
    ),
    "CLIP text": (
        lambda attention: Field(
            hugging_face(
                "CLIPTextModelWithProjection",
                "CLIPTextConfig",
                **TEXT,
                projection_dim=16,
            )(attention),
            "text_embeds",
        ),
        IDS,
        1,
        (2, 7),
    ),
    "CLIP": (
        lambda attention: Paired(
            hugging_face(
                "CLIPModel",
                "CLIPConfig",
                text_config=TEXT,
                vision_config=IMAGE,
                projection_dim=16,
            )(attention)
        ),
        {"input_ids": IDS, "pixel_values": PIXELS},
        None,
        {"input_ids": (2, 7), "pixel_values": GRID},
    ),
    "LXMERT": (
        lambda attention: Field(
            hugging_face(
                "LxmertForQuestionAnswering",
                "LxmertConfig",
                vocab_size=50,
                hidden_size=24,
                num_attention_heads=3,
                intermediate_size=48,
                l_layers=2,
                x_layers=2,
                r_layers=1,
                visual_feat_dim=10,
                visual_pos_dim=4,
                num_qa_labels=4,
            )(attention),
            "question_answering_score",
        ),
        {
            "input_ids": IDS,
            "visual_feats": PIXELS.flatten()[:100].reshape(2, 5, 10),
            "visual_pos": PIXELS.flatten()[:40].reshape(2, 5, 4).abs(),
        },
        1,
        {"input_ids": (2, 7), "visual_feats": (2, 5)},
    ),
    "DETR": (
        hugging_face(
            "DetrForObjectDetection",
            "DetrConfig",
            use_timm_backbone=False,
            use_pretrained_backbone=False,
            backbone=None,
            backbone_config=transformers.ResNetConfig(
                embedding_size=8,
                hidden_sizes=[8, 16],
                depths=[1, 1],
                out_features=["stage2"],
                layer_type="basic",
            ),
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            num_queries=5,
        ),
        PIXELS,
        (2, 1),
        GRID,
    ),
    "timm vit": (from_timm("vit_tiny_patch16_224", **VIT), PIXELS, 1, GRID),
    "timm vit, mean": (
        from_timm("vit_tiny_patch16_224", **VIT, global_pool="avg", class_token=False),
        PIXELS,
        1,
        GRID,
    ),
    "timm vit, registers, pooled by attention": (
        from_timm("vit_tiny_patch16_224", **VIT, global_pool="map", reg_tokens=4),
        PIXELS,
        1,
        GRID,
    ),
    "timm deit distilled": (
        from_timm("deit_tiny_distilled_patch16_224", **VIT),
        PIXELS,
        1,
        GRID,
    ),
    "timm beit": (
        from_timm("beit_base_patch16_224", **VIT, embed_dim=32, num_heads=4),
        PIXELS,
        1,
        GRID,
    ),
    "timm swin": (
        from_timm(
            "swin_tiny_patch4_window7_224",
            img_size=32,
            patch_size=4,
            window_size=4,
            depths=(2, 2),
            embed_dim=16,
            num_heads=(2, 2),
        ),
        PIXELS,
        1,
        (2, 1, 8, 8),
    ),
    "timm swin, padded": (
        from_timm(
            "swin_tiny_patch4_window7_224",
            img_size=(24, 40),
            patch_size=4,
            window_size=4,
            depths=(2, 2),
            embed_dim=16,
            num_heads=(2, 2),
        ),
        torch.cat([PIXELS[..., :24, :], PIXELS[..., :24, :8]], -1),
        1,
        (2, 1, 6, 10),
    ),
    "Swin v2": (
        hugging_face(
            "Swinv2ForImageClassification",
            "Swinv2Config",
            image_size=32,
            patch_size=4,
            window_size=4,
            depths=[2, 2],
            embed_dim=16,
            num_heads=[2, 2],
        ),
        PIXELS,
        1,
        (2, 1, 8, 8),
    ),
    "timm cait": (from_timm("cait_xxs24_224", **VIT), PIXELS, 1, GRID),
    "timm eva": (
        from_timm("eva02_tiny_patch14_224", img_size=28, depth=2),
        PIXELS[..., :28, :28],
        1,
        (2, 1, 2, 2),
    ),
    "nn.TransformerEncoder, mean": (lambda attention: Encoder(True), IDS, 1, (2, 7)),
    "nn.TransformerEncoder": (lambda attention: Encoder(False), IDS, 1, (2, 7)),
}


def named(attributions: Any) -> dict[str, Tensor]:
    return attributions if isinstance(attributions, dict) else {"": attributions}


def first_only(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {key: value[:1] for key, value in inputs.items()}
    return inputs[:1]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CASES)
def test_any_model(name: str, attention: str) -> None:
    make, inputs, target, shape = CASES[name]
    if attention == "sdpa" and name in ("DeBERTa-v2", "LXMERT", "DETR", "Swin v2"):
        pytest.skip("the model has no fused attention")
    model = rebuilt(make(attention), seed=0)
    runs_alone(model, inputs)
    before = state_of(model)
    for method in METHODS:
        found = named(method(model).attribute(inputs, target=target))
        alone = named(method(model).attribute(first_only(inputs), target=target))
        shapes = shape if isinstance(shape, dict) else {"": shape}
        assert {k: tuple(v.shape) for k, v in found.items()} == shapes
        for key, values in found.items():
            assert values.isfinite().all() and not values.requires_grad
            assert values.min() >= -1e-12
            error = (values[:1] - alone[key]).abs().max() / alone[key].abs().max()
            # a relevance pass divides by sums near 0, by chance of the weights: other
            # roundings of a batch's products come out 1e-11 apart (seed 1: 1e-14)
            exact = not method.needs_relevance or name in ("BERT", "ViT", "GPT-2")
            tolerance = 1e-12 if exact else 1e-10
            assert error <= tolerance or alone[key].abs().max() == 0, (method, error)
        informative = [v for v in found.values() if v.max() > v.min()]
        assert informative or method is AttentionGradCAM, method
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama", "T5"])
@pytest.mark.parametrize("method", METHODS)
def test_padding_changes_nothing(name: str, method: Any) -> None:
    """But the class token of BERT, which the authors set to the row's minimum."""
    make, inputs, _, _ = CASES[name]
    model = rebuilt(make("sdpa"), seed=0)
    ids = inputs["input_ids"] if isinstance(inputs, dict) else inputs
    target = 1 if name == "BERT" else (2, 4) if name == "T5" else (6, 4)
    more = {"decoder_input_ids": DECODED} if name == "T5" else {}
    padded = {
        "input_ids": torch.cat([ids, torch.zeros(2, 3, dtype=torch.long)], 1),
        "attention_mask": torch.tensor([[1] * 7 + [0] * 3] * 2),
        **more,
    }
    found = method(model).attribute(padded, target=target)
    alone = method(model).attribute({"input_ids": ids, **more}, target=target)
    assert (found[:, 7:] == 0).all()
    start = 1 if name == "BERT" and method is CheferLRP else 0
    error = (found[:, start:7] - alone[:, start:]).abs().max()
    assert error <= 1e-12 * alone.abs().max()
    if start:
        assert (found[:, 0] == 0).all()  # the least of a row with padding


@pytest.mark.parametrize("method", METHODS)
def test_fused_attention_equals_eager(method: Any) -> None:
    for name in ("BERT", "Llama", "ViT"):
        make, inputs, target, _ = CASES[name]
        eager, fused = (
            # in float64 also where the model rounds its softmax to float32
            method(rebuilt(make(attention), seed=0), dtype=torch.float64).attribute(
                inputs, target=target
            )
            for attention in ("eager", "sdpa")
        )
        assert (eager - fused).abs().max() <= 1e-10 * eager.abs().max()


def test_a_model_without_attention() -> None:
    model = timm.create_model("resnet10t", num_classes=3).double().eval()
    with pytest.raises(AttentionError) as caught:
        CheferLRP(model).attribute(PIXELS, target=1)
    assert str(caught.value) == (
        "the model has no attention map: no softmax is multiplied with values that "
        "depend on the inputs. Methods of this family need attention; AttnLRP explains "
        "any model."
    )
