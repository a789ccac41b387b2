"""Architectures that the engine does not know by name, checked by conservation.

Tiny models with random weights in float64. Under CP-LRP the score must equal what
arrived at the inputs plus what constants (biases, positions) absorbed.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, GradientXInput
from tests.helpers import assert_same_state, relative, state_of

transformers = pytest.importorskip("transformers")
timm = pytest.importorskip("timm")

#: sizes under all the names that configurations give them
SMALL = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "d_ff"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size"), 48),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("head_dim", "d_kv"), 8),
    **dict.fromkeys(("image_size",), 32),
    **dict.fromkeys(("patch_size",), 8),
    **dict.fromkeys(("num_labels",), 3),
}
CLASSIFIERS: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "distilbert": {},
    "albert": {},
    "electra": {},
    "mpnet": {},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
    },
    "modernbert": {"global_attn_every_n_layers": 2, "pad_token_id": 1},
    "squeezebert": {},
    "xlnet": {"d_inner": 48},
}
DECODERS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 8},
    "opt": {"word_embed_proj_dim": 32},
    "bloom": {},
    "falcon": {},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 3},
    "qwen3": {"num_key_value_heads": 2},
    "gemma2": {"num_key_value_heads": 2, "query_pre_attn_scalar": 8},
    "phi3": {"num_key_value_heads": 2, "pad_token_id": 0},
    "olmo2": {"num_key_value_heads": 2},
    "cohere": {"num_key_value_heads": 2},
    "starcoder2": {"num_key_value_heads": 2},
    "mixtral": {"num_key_value_heads": 2, "num_local_experts": 3},
    "mamba": {"state_size": 4, "time_step_rank": 4},
}
VISION: dict[str, dict[str, Any]] = {
    "vit": {},
    "beit": {},
    "dinov2": {},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 2},
    "convnext": {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2},
}
TIMM: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "deit_tiny_distilled_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "vit_tiny_r_s16_p8_224": {"img_size": 32, "patch_size": 1, "depth": 2},
    "cait_xxs24_224": {"img_size": 32, "patch_size": 8, "depth": 2},
    "eva02_tiny_patch14_224": {"img_size": 28, "depth": 2},
    "xcit_nano_12_p8_224": {"img_size": 32, "depth": 2},
    "mixer_s32_224": {"img_size": 64},
    "poolformer_s12": {},
    "levit_128s": {},
    "mobilevit_xxs": {},
    "efficientformer_l1": {},
}
#: a few seconds each
LARGER = ("xcit", "poolformer", "levit", "mobilevit", "efficientformer", "mixer")


def rebuilt(model: nn.Module, seed: int) -> Any:
    """Return the model with weights that leave nothing near zero, in float64."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                fan = max(parameter[0].numel(), 4)
                parameter.copy_(values / fan**0.5)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * values)
            else:
                parameter.copy_(0.2 * values)
    return model.double().eval()


def hugging_face(kind: str, family: str, more: dict[str, Any], attention: str) -> Any:
    config = transformers.AutoConfig.for_model(family)
    known = config.to_dict()
    settings = {k: v for k, v in SMALL.items() if k in known and v is not None}
    config = transformers.AutoConfig.for_model(family, **{**settings, **more})
    config._attn_implementation = attention
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"
    auto = getattr(transformers, f"AutoModelFor{kind}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return rebuilt(auto.from_config(config), seed=0)


def supports(model: nn.Module, attention: str) -> bool:
    return attention == "eager" or bool(getattr(model, "_supports_sdpa", False))


def check(model: nn.Module, x: Tensor, target: Any, tolerance: float = 1e-6) -> None:
    """Conservation, the unchanged forward pass and model, and the empty table."""
    before = state_of(model)
    with torch.no_grad():
        output = model(x)
    output = getattr(output, "logits", output)
    scores = output[:, target[0], target[1]] if output.dim() == 3 else output[:, target]
    trace = CPLRP(model).trace(x, target=target)
    # some families compute parts of a float64 model in float32
    assert trace.score == pytest.approx(scores.sum().item(), rel=1e-6)
    assert trace.conservation_error < tolerance
    found, delta = CPLRP(model).attribute(
        x, target=target, return_convergence_delta=True
    )
    assert delta.sum().item() == pytest.approx(trace.absorbed, abs=1e-6)
    assert torch.isfinite(AttnLRP(model).attribute(x, target=target)).all()
    assert torch.isfinite(GradientXInput(model).attribute(x, target=target)).all()
    assert_same_state(before, state_of(model))
    assert found.any()


IDS = torch.tensor([[5, 9, 17, 33, 8, 2], [7, 6, 40, 21, 11, 2]])


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_text_classifiers(family: str) -> None:
    more = CLASSIFIERS[family]
    model = hugging_face("SequenceClassification", family, more, "eager")
    check(model, IDS, 1)
    together = torch.cat([IDS[:1], torch.tensor([[7, 6, 40, 2, 1, 1]])])
    padding = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    for method in (AttnLRP, CPLRP):
        lrp = method(model)
        batch = {"input_ids": together, "attention_mask": padding}
        found = lrp.attribute(batch, target=1)
        alone = {"input_ids": together[1:, :4], "attention_mask": padding[1:, :4]}
        if family != "xlnet":  # reads the last token, which is padding here
            assert relative(found[1:, :4], lrp.attribute(alone, target=1)) < 1e-6
        assert not found[1, 4:].any()
    if supports(model, "sdpa"):
        fused = hugging_face("SequenceClassification", family, more, "sdpa")
        expected = AttnLRP(model).attribute(IDS, target=1)
        assert relative(AttnLRP(fused).attribute(IDS, target=1), expected) < 1e-6


@pytest.mark.parametrize("family", DECODERS)
def test_decoders(family: str) -> None:
    more = DECODERS[family]
    model = hugging_face("CausalLM", family, more, "eager")
    check(model, IDS, (-1, 3))
    if supports(model, "sdpa") and family not in ("gemma2",):
        fused = hugging_face("CausalLM", family, more, "sdpa")
        expected = AttnLRP(model).attribute(IDS, target=(-1, 3))
        assert relative(AttnLRP(fused).attribute(IDS, target=(-1, 3)), expected) < 1e-5


@pytest.mark.parametrize("family", VISION)
def test_hugging_face_vision(family: str) -> None:
    model = hugging_face("ImageClassification", family, VISION[family], "eager")
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    check(model, pixels.double(), 1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n.startswith(LARGER) else [])
        for n in TIMM
    ],
)
def test_timm(name: str) -> None:
    options = TIMM[name]
    size = options.get("img_size", 64)
    size = 224 if name.startswith(("levit", "efficientformer")) else size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = rebuilt(
            timm.create_model(name, pretrained=False, num_classes=3, **options), seed=0
        )
    pixels = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    check(model, pixels.double(), 1)
