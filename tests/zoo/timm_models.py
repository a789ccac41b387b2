"""One small random model of every family (module of ``timm.models``) of timm.

:data:`SMALL` is the one table of variants and sizes; a family that timm adds later is
taken with its first variant at its own size, and shows up in the records.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from .shrinking import Sizes
from .sweep import Built, Entry

#: family -> variant (or the class, where variants cannot be made smaller), image size,
#: and what is smaller
SMALL: dict[str, tuple[str, int, dict[str, Any]]] = {
    "beit": (
        "beit_base_patch16_224",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 4},
    ),
    "byoanet": ("lambda_resnet26t", 64, {"img_size": 64}),
    "byobnet": ("test_byobnet", 64, {}),
    "cait": (
        "cait_xxs24_224",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48},
    ),
    "coat": (
        "CoaT",
        32,
        {
            "img_size": 32,
            "patch_size": 4,
            "embed_dims": (16, 32, 32, 32),
            "serial_depths": (1, 1, 1, 1),
            "parallel_depth": 1,
        },
    ),
    "convit": ("convit_tiny", 64, {"img_size": 64, "depth": 3, "local_up_to_layer": 2}),
    "convmixer": ("ConvMixer", 32, {"dim": 32, "depth": 2}),
    "convnext": ("test_convnext", 64, {}),
    "cpubone": ("cpubone_nano", 64, {}),
    "crossvit": ("crossvit_tiny_240", 48, {"img_size": 48, "img_scale": (1.0, 1.0)}),
    "csatv2": (
        "CSATv2",
        64,
        {
            "dims": (8, 16, 32, 32),
            "depths": (1, 1, 2, 2),
            "transformer_depths": (0, 0, 1, 1),
        },
    ),
    "cspnet": ("cs3darknet_focus_s", 64, {}),
    "cspnext": ("cspnext_tiny", 64, {}),
    "davit": (
        "davit_tiny",
        64,
        {"depths": (1, 1), "embed_dims": (32, 64), "num_heads": (2, 4)},
    ),
    "deepseek_vit": (
        "deepseek_vit_412m",
        56,
        {"img_size": 56, "depth": 2, "embed_dim": 64, "num_heads": 4},
    ),
    "deit": (
        "deit_tiny_distilled_patch16_224",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 2},
    ),
    "densenet": ("densenet121", 64, {"block_config": (2, 2, 2, 2)}),
    "dla": ("dla46x_c", 64, {}),
    "dpn": ("dpn48b", 64, {"k_sec": (1, 1, 1, 1)}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "efficientformer": (
        "EfficientFormer",
        224,
        {
            "img_size": 224,
            "depths": (1, 1, 1, 2),
            "embed_dims": (16, 16, 32, 64),
            "num_vit": 1,
        },
    ),
    "efficientformer_v2": ("efficientformerv2_s0", 64, {"img_size": 64}),
    "efficientnet": ("test_efficientnet", 64, {}),
    "efficientvim": ("efficientvim_m1", 64, {}),
    "efficientvit_mit": ("efficientvit_b0", 64, {}),
    "efficientvit_msra": ("efficientvit_m0", 64, {"img_size": 64}),
    "eva": ("eva02_tiny_patch14_224", 28, {"img_size": 28, "depth": 2}),
    "fasternet": ("fasternet_t0", 64, {}),
    "fastvit": ("fastvit_t8", 64, {}),
    "focalnet": ("FocalNet", 64, {"depths": (1, 1, 1, 1), "embed_dim": 24}),
    "gcvit": (
        "GlobalContextVit",
        64,
        {
            "img_size": 64,
            "window_size": (4, 4, 2, 2),
            "depths": (1, 1, 2, 1),
            "embed_dim": 16,
            "num_heads": (2, 2, 4, 4),
            "layer_scale": 1e-5,
        },
    ),
    "gemma4_vit": ("gemma4_vit_167m_enc", 96, {"depth": 2}),
    "ghostnet": ("ghostnet_050", 64, {}),
    "hardcorenas": ("hardcorenas_a", 64, {}),
    "hgnet": ("hgnetv2_b0", 64, {}),
    "hiera": (
        "hiera_tiny_224",
        64,
        {"img_size": (64, 64), "stages": (1, 1, 2, 1), "embed_dim": 32},
    ),
    "hieradet_sam2": (
        "HieraDet",
        64,
        {
            "stages": (1, 2, 3, 1),
            "embed_dim": 16,
            "global_att_blocks": (4,),
            "window_spec": (4, 2, 4, 2),
        },
    ),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "iformer": ("iformer_t", 64, {}),
    "inception_next": ("inception_next_atto", 64, {"depths": (1, 1, 1, 1)}),
    "inception_resnet_v2": ("inception_resnet_v2", 96, {}),
    "inception_v3": ("inception_v3", 96, {}),
    "inception_v4": ("inception_v4", 96, {}),
    "lcnetv2": ("lcnetv2_small", 64, {}),
    "levit": ("levit_128s", 64, {"img_size": 64}),
    "lowformer": ("lowformer_b0", 64, {}),
    "mambaout": ("test_mambaout", 64, {}),
    "maxxvit": ("test_maxvit", 64, {"img_size": 64}),
    "metaformer": ("poolformer_s12", 64, {}),
    "mlp_mixer": (
        "MlpMixer",
        32,
        {"img_size": 32, "patch_size": 8, "num_blocks": 2, "embed_dim": 32},
    ),
    "mobilenetv3": ("mobilenetv3_small_050", 64, {}),
    "mobilenetv5": ("mobilenetv5_base", 64, {"channel_multiplier": 0.125}),
    "mobilevit": ("mobilevit_xxs", 64, {}),
    "mvitv2": ("mvitv2_tiny", 64, {"img_size": 64}),
    "naflexvit": (
        "naflexvit_base_patch16_gap",
        64,
        {"depth": 2, "embed_dim": 48, "num_heads": 4},
    ),
    "nasnet": ("NASNetALarge", 96, {"stem_size": 24, "num_features": 384}),
    "nest": (
        "Nest",
        32,
        {
            "img_size": 32,
            "depths": (1, 1, 1),
            "embed_dims": (16, 32, 32),
            "num_heads": (2, 2, 4),
        },
    ),
    "nextvit": ("nextvit_small", 64, {"depths": (1, 1, 5, 1)}),
    "nfnet": ("test_nfnet", 64, {}),
    "pit": (
        "PoolingVisionTransformer",
        48,
        {"img_size": 48, "depth": (1, 1, 1), "base_dims": (8, 8, 8), "distilled": True},
    ),
    "pnasnet": ("pnasnet5large", 96, {}),
    "pvt_v2": ("pvt_v2_b0", 64, {"depths": (1, 1, 1, 1)}),
    "qwen3_vit": ("qwen3_vit_88m", 64, {"depth": 2, "embed_dim": 64, "num_heads": 4}),
    "rdnet": ("RDNet", 64, {"num_blocks_list": (1,) * 7, "growth_rates": (16,) * 7}),
    "regnet": ("regnety_002", 64, {}),
    "repghost": ("repghostnet_050", 64, {}),
    "repvit": ("repvit_m0_9", 64, {}),
    "res2net": ("res2net50_14w_8s", 64, {"layers": (1, 1, 1, 1)}),
    "resnest": ("resnest14d", 64, {}),
    "resnet": ("test_resnet", 64, {}),
    "resnetv2": (
        "ResNetV2",
        64,
        {"layers": (1, 1, 1, 1), "channels": (128, 128, 128, 128), "stem_chs": 32},
    ),
    "rexnet": ("rexnet_100", 64, {}),
    "selecsls": ("selecsls42", 64, {}),
    "senet": ("legacy_seresnet18", 64, {}),
    "sequencer": ("sequencer2d_s", 64, {"layers": (1, 1, 1, 1)}),
    "shvit": ("shvit_s1", 128, {}),
    "sknet": ("skresnet18", 64, {}),
    "starnet": ("starnet_s050", 64, {}),
    "swiftformer": ("swiftformer_xs", 64, {}),
    "swin_transformer": (
        "swin_tiny_patch4_window7_224",
        64,
        {
            "img_size": 64,
            "window_size": 4,
            "depths": (2, 2),
            "embed_dim": 24,
            "num_heads": (2, 4),
        },
    ),
    "swin_transformer_v2": (
        "swinv2_tiny_window8_256",
        64,
        {
            "img_size": 64,
            "window_size": 4,
            "depths": (2, 2),
            "embed_dim": 24,
            "num_heads": (2, 4),
        },
    ),
    "swin_transformer_v2_cr": (
        "swinv2_cr_tiny_ns_224",
        64,
        {
            "img_size": 64,
            "window_size": 4,
            "depths": (2, 2),
            "embed_dim": 24,
            "num_heads": (2, 4),
        },
    ),
    "tiny_vit": (
        "TinyVit",
        64,
        {
            "embed_dims": (16, 32, 32, 64),
            "depths": (1, 1, 2, 1),
            "num_heads": (2, 2, 2, 4),
            "window_sizes": (2, 2, 4, 2),
        },
    ),
    "tnt": ("tnt_s_legacy_patch16_224", 64, {"img_size": 64, "depth": 2}),
    "tresnet": ("tresnet_m", 64, {"layers": (1, 1, 1, 1)}),
    "twins": ("twins_pcpvt_small", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "vgg": ("VGG", 32, {"cfg": [16, "M", 32, "M", 32], "norm_layer": nn.BatchNorm2d}),
    "visformer": ("visformer_tiny", 64, {"img_size": 64, "depth": (2, 1, 1)}),
    "vision_transformer": (
        "vit_tiny_patch16_224",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 2},
    ),
    "vision_transformer_hybrid": (
        "vit_tiny_r_s16_p8_224",
        32,
        {"img_size": 32, "patch_size": 1, "depth": 2},
    ),
    "vision_transformer_relpos": (
        "vit_relpos_small_patch16_224",
        32,
        {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 4},
    ),
    "vision_transformer_sam": (
        "VisionTransformerSAM",
        64,
        {
            "img_size": 64,
            "depth": 2,
            "embed_dim": 32,
            "num_heads": 4,
            "use_rel_pos": True,
            "window_size": 3,
            "global_attn_indexes": (1,),
            "neck_chans": 32,
        },
    ),
    "vitamin": ("vitamin_small_224", 64, {"img_size": 64, "depth": 2}),
    "volo": (
        "VOLO",
        64,
        {
            "img_size": 64,
            "layers": (1, 1, 1, 1),
            "embed_dims": (24, 48, 48, 48),
            "num_heads": (2, 4, 4, 4),
            "use_aux_head": False,
        },
    ),
    "vovnet": ("vovnet39a", 64, {}),
    "xception": ("legacy_xception", 96, {}),
    "xception_aligned": ("xception41", 96, {}),
    "xcit": ("xcit_nano_12_p8_224", 32, {"img_size": 32, "depth": 2}),
}


def families() -> dict[str, list[str]]:
    """Return the variants of every family of the installed timm."""
    import timm

    found: dict[str, list[str]] = {}
    for name in timm.list_models():
        module = timm.models._registry._model_to_module[name]
        found.setdefault(module, []).append(name)
    return dict(sorted(found.items()))


def entries(sizes: Sizes | None = None) -> Iterator[Entry]:
    """Yield one entry for every family."""
    seed = 0 if sizes is None else sizes.seed
    for family, variants in families().items():
        name, size, options = SMALL.get(family, (variants[0], 0, {}))
        yield Entry(
            name=f"{family} ({name})",
            group="timm",
            build=functools.partial(build, family, name, size, options, seed),
            fused=fused,
        )


def build(
    family: str, name: str, size: int, options: dict[str, Any], seed: int
) -> Built:
    """Return a model with random weights and two pictures."""
    import timm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if timm.is_model(name):
            model = timm.create_model(name, num_classes=5, **options)
        else:
            cls = getattr(importlib.import_module(f"timm.models.{family}"), name)
            model = cls(num_classes=5, in_chans=3, **options)
    if not size:
        size = int(model.pretrained_cfg["input_size"][-1])
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(4, 3, size, size, generator=generator)
    model = randomised(model, pixels, generator).double()
    for module in with_a_switch(model):
        module.fused_attn = False  # type: ignore[assignment]
    return model, pixels[:2].double(), None


def randomised(
    model: nn.Module, pixels: torch.Tensor, generator: torch.Generator
) -> nn.Module:
    """Give a model random weights that leave nothing near zero, in evaluation mode.

    Batch normalisation gets the statistics of random pictures, so that deep networks
    neither explode nor die away, and then changes at random.
    """
    for name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        is_scale = parameter.dim() < 2 and not name.endswith("bias")
        with torch.no_grad():
            if is_scale or parameter.numel() == len(parameter):
                parameter.copy_(values.mul(0.2).add(1.0 if is_scale else 0.0))
            else:
                fan = max(parameter[0].numel(), 4)
                parameter.copy_(values / fan**0.5)
    norms = [
        m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    model.eval()
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum
        for buffer, low, high in (
            (norm.running_mean, 0.7, 1.3),
            (norm.running_var, 0.5, 1.5),
        ):
            assert buffer is not None
            buffer *= low + (high - low) * torch.rand(buffer.shape, generator=generator)
        assert norm.running_var is not None
        norm.running_var += 0.05
    return model


def with_a_switch(model: nn.Module) -> list[nn.Module]:
    """Return the modules that choose between fused and written-out attention."""
    return [
        m for m in model.modules() if isinstance(getattr(m, "fused_attn", None), bool)
    ]


def fused(model: nn.Module) -> AbstractContextManager[None] | None:
    """Return a context in which attention is fused, None if the model has none."""
    modules = with_a_switch(model)
    return _fused(modules) if modules else None


@contextmanager
def _fused(modules: list[nn.Module]) -> Iterator[None]:
    for module in modules:
        module.fused_attn = True  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in modules:
            module.fused_attn = False  # type: ignore[assignment]
