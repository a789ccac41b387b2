"""Tiny random models of pictures for each task, with what prepares their inputs."""

import copy
import random
from typing import Any

import numpy as np
import PIL.Image
import torch
import transformers

from .tiny import labelled, word_pieces

t: Any = transformers  # whose configs take more than their signatures say
NAMES = ("cat", "dog", "ship")
_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
_DETR: dict[str, Any] = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 6,
    "init_std": 0.3,
    "init_xavier_std": 2.0,
}


def picture(width: int = 80, height: int = 60, seed: int = 0) -> PIL.Image.Image:
    """A picture of random squares on a gradient."""
    draw = random.Random(seed)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = np.linspace(0, 200, width)
    pixels[..., 2] = np.linspace(200, 0, height)[:, None]
    for _ in range(6):
        x, y = draw.randrange(width - 20), draw.randrange(height - 20)
        pixels[y : y + 20, x : x + 20] = [draw.randrange(256) for _ in range(3)]
    return PIL.Image.fromarray(pixels)


def resnet(**options: Any) -> Any:
    """A backbone of two stages."""
    return t.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[16, 24],
        depths=[1, 1],
        layer_type="basic",
        **options,
    )


def built(kind: Any, config: Any, seed: int = 0) -> Any:
    """A model in float64 whose batch norms are not the identity."""
    torch.manual_seed(seed)
    model = kind(config).double().eval()
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
    return model


def processor(kind: Any, size: int = 32, **options: Any) -> Any:
    """An image processor that makes small pictures."""
    return kind(size={"height": size, "width": size}, **options)


def classifier(*names: str, seed: int = 0, **options: Any) -> tuple[Any, Any]:
    """A ViT that tells classes."""
    config = t.ViTConfig(
        image_size=32, patch_size=8, **_SMALL, **labelled(*(names or NAMES)), **options
    )
    model = built(t.ViTForImageClassification, config, seed)
    return model, processor(t.ViTImageProcessor)


def swin_classifier() -> tuple[Any, Any]:
    """A Swin that tells classes."""
    config = t.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
        initializer_range=0.3,
        **labelled(*NAMES),
    )
    return built(t.SwinForImageClassification, config), processor(t.ViTImageProcessor)


def clip(seed: int = 0) -> tuple[Any, Any, Any]:
    """A CLIP, its image processor and its tokenizer."""
    tokenizer = word_pieces()
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "eos_token_id": tokenizer.sep_token_id,
        "projection_dim": 16,
        **_SMALL,
    }
    vision = {"image_size": 32, "patch_size": 8, "projection_dim": 16, **_SMALL}
    config = t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    model = built(t.CLIPModel, config, seed)
    crop = {"height": 32, "width": 32}
    prepare = t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    return model, prepare, tokenizer


def siglip(seed: int = 0) -> tuple[Any, Any, Any]:
    """A SigLIP, its image processor and its tokenizer, which gives no mask."""
    tokenizer = copy.deepcopy(word_pieces())
    tokenizer.model_input_names = ["input_ids"]
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **_SMALL}
    vision = {"image_size": 32, "patch_size": 8, **_SMALL}
    text["projection_size"] = 32
    config = t.SiglipConfig(text_config=text, vision_config=vision)
    model = built(t.SiglipModel, config, seed)
    return model, processor(t.SiglipImageProcessor), tokenizer


def segformer() -> tuple[Any, Any]:
    """A SegFormer that tells the class of each pixel."""
    config = t.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[16, 32],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[2, 4],
        mlp_ratios=[2, 2],
        decoder_hidden_size=32,
        initializer_range=0.3,
        **labelled(*NAMES),
    )
    model = built(t.SegformerForSemanticSegmentation, config)
    return model, processor(t.SegformerImageProcessor, 64, do_reduce_labels=False)


def dpt(kind: Any = t.DPTForDepthEstimation) -> tuple[Any, Any]:
    """A DPT that tells depths, or the class of each pixel."""
    config = t.DPTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=48,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 16, 16],
        fusion_hidden_size=16,
        initializer_range=0.1,
        use_auxiliary_head=False,
        **labelled(*NAMES),
    )
    return built(kind, config), processor(t.DPTImageProcessor)


def glpn() -> tuple[Any, Any]:
    """A GLPN that tells depths."""
    config = t.GLPNConfig(
        num_encoder_blocks=4,
        depths=[1, 1, 1, 1],
        sr_ratios=[4, 2, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 2, 2],
        mlp_ratios=[2, 2, 2, 2],
        decoder_hidden_size=16,
        initializer_range=0.3,
    )
    return built(t.GLPNForDepthEstimation, config), t.GLPNImageProcessor(
        size_divisor=32
    )


def detr(
    kind: Any = t.DetrForObjectDetection, config: Any = t.DetrConfig, seed: int = 0
) -> tuple[Any, Any]:
    """A DETR: an encoder of pictures, and a decoder of boxes or segments."""
    backbone, heads = resnet(), dict[str, int]()
    if kind is t.DetrForSegmentation:  # whose masks are made of four stages
        backbone = t.ResNetConfig(
            embedding_size=8,
            hidden_sizes=[8, 8, 16, 24],
            depths=[1, 1, 1, 1],
            layer_type="basic",
            out_features=["stage1", "stage2", "stage3", "stage4"],
        )
        heads = {"encoder_attention_heads": 8, "decoder_attention_heads": 8}
    made = config(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        **{**_DETR, **heads},
        **labelled(*NAMES),
    )
    prepare = t.DetrImageProcessor(size={"shortest_edge": 48, "longest_edge": 64})
    return built(kind, made, seed), prepare


def yolos(seed: int = 0) -> tuple[Any, Any]:
    """A YOLOS: an encoder with tokens for boxes."""
    config = t.YolosConfig(
        image_size=[48, 64],
        patch_size=16,
        num_detection_tokens=6,
        **_SMALL,
        **labelled(*NAMES),
    )
    prepare = t.YolosImageProcessor(size={"shortest_edge": 48, "longest_edge": 64})
    return built(t.YolosForObjectDetection, config, seed), prepare


def owl(kind: Any = t.OwlViTForObjectDetection, seed: int = 0) -> tuple[Any, Any, Any]:
    """An OWL, its image processor and its tokenizer."""
    tokenizer = word_pieces()
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, **_SMALL}
    vision = {"image_size": 32, "patch_size": 8, **_SMALL}
    made: Any = t.OwlViTConfig, t.OwlViTImageProcessor
    if kind is t.Owlv2ForObjectDetection:
        made = t.Owlv2Config, t.Owlv2ImageProcessor
    config = made[0](text_config=text, vision_config=vision, projection_dim=32)
    return built(kind, config, seed), processor(made[1]), tokenizer


def grounding_dino(seed: int = 0) -> tuple[Any, Any, Any]:
    """A Grounding DINO, its image processor and its tokenizer."""
    tokenizer = word_pieces()
    backbone = t.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 2, 2],
        window_size=4,
        initializer_range=0.3,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = {**_SMALL, "num_hidden_layers": 1, "vocab_size": len(tokenizer)}
    config = t.GroundingDinoConfig(
        use_timm_backbone=False,
        use_pretrained_backbone=False,
        backbone=None,
        backbone_config=backbone,
        text_config=t.BertConfig(**text),
        num_feature_levels=3,
        max_text_len=16,
        **{**_DETR, "encoder_layers": 1},
    )
    model = built(t.GroundingDinoForObjectDetection, config, seed)
    size = {"shortest_edge": 48, "longest_edge": 64}
    return model, t.GroundingDinoImageProcessor(size=size), tokenizer


def swin() -> Any:
    """The config of a backbone with four stages."""
    return t.SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1, 1, 1],
        num_heads=[2, 2, 2, 2],
        window_size=4,
        initializer_range=0.3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def mask2former(seed: int = 0) -> tuple[Any, Any]:
    """A Mask2Former of tiny parts."""
    config = t.Mask2FormerConfig(
        backbone_config=swin(),
        use_pretrained_backbone=False,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        dim_feedforward=48,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        num_queries=6,
        init_std=0.3,
        init_xavier_std=2.0,
        **labelled(*NAMES),
    )
    model = built(t.Mask2FormerForUniversalSegmentation, config, seed)
    return model, processor(t.Mask2FormerImageProcessor, 64)


def maskformer(seed: int = 0) -> tuple[Any, Any]:
    """A MaskFormer of tiny parts."""
    decoder = t.DetrConfig(
        use_timm_backbone=False, backbone=None, backbone_config=resnet(), **_DETR
    )
    config = t.MaskFormerConfig(
        backbone_config=swin(),
        decoder_config=decoder,
        use_pretrained_backbone=False,
        fpn_feature_size=32,
        mask_feature_size=32,
        init_std=0.3,
        init_xavier_std=2.0,
        **labelled(*NAMES),
    )
    model = built(t.MaskFormerForInstanceSegmentation, config, seed)
    return model, processor(t.MaskFormerImageProcessor, 64)


def sam(seed: int = 0) -> tuple[Any, Any]:
    """A SAM and its processor."""
    config = t.SamConfig(
        initializer_range=0.3,
        vision_config={
            **_SMALL,
            "image_size": 64,
            "patch_size": 16,
            "output_channels": 16,
            "window_size": 2,
            "global_attn_indexes": [1],
            "mlp_dim": 48,
            "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16,
            "image_size": 64,
            "patch_size": 16,
            "mask_input_channels": 8,
        },
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "iou_head_depth": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    prepare = t.SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
    )
    return built(t.SamModel, config, seed), t.SamProcessor(prepare)


def video_classifier(kind: str = "VideoMAE", seed: int = 0) -> tuple[Any, Any]:
    """A model of videos of four frames, and its image processor."""
    options: dict[str, Any] = {
        "image_size": 16,
        "patch_size": 8,
        "num_frames": 4,
        **_SMALL,
        **labelled(*NAMES),
    }
    if kind == "VideoMAE":
        config: Any = t.VideoMAEConfig(tubelet_size=2, **options)
        model = built(t.VideoMAEForVideoClassification, config, seed)
    else:
        config = t.TimesformerConfig(**options)
        model = built(t.TimesformerForVideoClassification, config, seed)
    crop = {"height": 16, "width": 16}
    prepare = t.VideoMAEImageProcessor(size={"shortest_edge": 16}, crop_size=crop)
    return model, prepare
