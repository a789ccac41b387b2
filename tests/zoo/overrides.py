"""What single architectures need beyond :mod:`.shrinking`, in one table.

Key: the model type. Fields are those of the configuration; ``a.b`` is field b of the
sub-configuration a. A function takes the :class:`~.shrinking.Sizes`. Names that begin
with ``!`` speak to the catalogue: ``!tokens`` is the length of the text, ``!scores``
makes of a model one that returns the scores to explain.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .shrinking import SPECIAL, Sizes, shrunk


def _boxes(sizes: Sizes) -> Tensor:
    """Return a box for every token of two texts, in [0, 50)."""
    generator = torch.Generator().manual_seed(sizes.seed)
    starts = torch.randint(0, 25, (2, sizes.tokens, 2), generator=generator)
    ends = starts + torch.randint(1, 25, (2, sizes.tokens, 2), generator=generator)
    return torch.cat([starts, ends], -1)


def _patches(sizes: Sizes, random: Any) -> dict[str, Tensor]:
    """Return two pictures as 4 x 4 patches of 8 x 8 pixels."""
    return {
        "pixel_values": random(2, 16, 3 * 8 * 8),
        "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
        "spatial_shapes": torch.tensor([[4, 4], [4, 4]]),
    }


class _Similarity(nn.Module):
    """VideoPrism's similarities: what it calls logits is their softmax over videos."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        """Return the similarity of every video with every text."""
        output = self.model(**inputs)
        similarity: Tensor = output.video_embeds @ output.text_embeds.T
        return similarity


def _separated(sizes: Sizes) -> Tensor:
    """Return two texts with three separators each, which Longformer counts."""
    generator = torch.Generator().manual_seed(sizes.seed)
    ids = torch.randint(6, 60, (2, 12), generator=generator)
    ids[:, [3, 4, -1]] = 2
    return ids


def _pictures(sizes: Sizes, random: Any) -> dict[str, Tensor]:
    """Return two sequences of one picture each."""
    return {"pixel_values": random(2, 1, 3, sizes.pixels, sizes.pixels)}


def _marked(sizes: Sizes) -> Tensor:
    """Return which four places of two texts a picture takes."""
    places = torch.zeros(2, sizes.tokens, dtype=torch.bool)
    places[:, 2:6] = True
    return places


def _seen(sizes: Sizes, places: int) -> Tensor:
    """Return two texts with places for a picture, of the small image token."""
    generator = torch.Generator().manual_seed(sizes.seed)
    ids = torch.randint(6, 90, (2, sizes.tokens), generator=generator)
    token = sizes.vocabulary - 1 - SPECIAL["image_token_id"]
    return torch.cat([ids[:, :2], torch.full((2, places), token), ids[:, 2:]], 1)


def _numbered_patches(random: Any) -> Tensor:
    """Return two pictures as 4 patches of 32 numbers, each after its place."""
    places = torch.tensor([[1.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0]])
    pixels = random(2, 4, 32)
    return torch.cat([places.to(pixels).expand(2, 4, 2), pixels], -1)


def _placed_patches(random: Any) -> dict[str, Tensor]:
    """Return two pictures as 6 x 6 patches of 8 x 8 pixels, and where each stands."""
    places = torch.cartesian_prod(torch.arange(6), torch.arange(6)).flip(-1)
    return {
        "pixel_values": random(2, 36, 3 * 8 * 8),
        "image_position_ids": places.expand(2, 36, 2).clone(),
    }


#: cut pictures into patches and lay these side by side
_SLICED = ("minicpm_ocr", "minicpmv4_6", "minicpmv4_7")


def _sliced(sizes: Sizes, random: Any) -> dict[str, Tensor]:
    """Return two pictures of 4 x 4 patches as those models take them."""
    return {
        "pixel_values": random(1, 3, 8, 8 * 32),
        "target_sizes": torch.tensor([[4, 4], [4, 4]]),
    }


def _waves(sizes: Sizes, random: Any) -> dict[str, Any]:
    """Return two sounds of four frames, whose latents are to go without noise."""
    return {
        "input_values": random(2, 1, 32),
        "padding_mask": torch.ones(2, 32, dtype=torch.bool),
        "sample": False,
    }


def _tokenizer(name: str) -> dict[str, Any]:
    """Return the fields of a tokenizer of sounds that takes 8 samples as a frame."""
    return {
        f"{name}.downsampling_ratios": [2, 4],
        f"{name}.depths": [1, 1, 1],
        f"{name}.num_filters": 8,
    }


def _codes(sizes: Sizes, rows: int = 8) -> Tensor:
    """Return two sounds of four codebooks each, or others, one codebook a row."""
    generator = torch.Generator().manual_seed(sizes.seed)
    return torch.randint(6, 90, (rows, sizes.tokens), generator=generator)


def _tower(name: str, sizes: Sizes, **fields: int) -> Any:
    """Return the small configuration of a class that a model leaves out by default."""
    import transformers

    return shrunk(getattr(transformers, name)(), sizes, fields)


def _prompts(sizes: Sizes) -> dict[str, Tensor]:
    """Return two prompts of four words for a querying transformer."""
    generator = torch.Generator().manual_seed(sizes.seed + 2)
    return {"qformer_input_ids": torch.randint(6, 90, (2, 4), generator=generator)}


_MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_d_head": lambda s: s.width // 4,
    "mamba_n_groups": 1,
}
_SWIN: dict[str, Any] = {
    "depths": [1, 1],
    "num_heads": [2, 2],
    "window_size": 2,
    "patch_size": 4,
}
_CROSS: dict[str, Any] = {
    "decoder.is_decoder": True,
    "decoder.add_cross_attention": True,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
#: sections of time, height and width for heads of 8 features
_MROPE = {**_ROPE, "mrope_section": [2, 1, 1]}
_GLM4V: dict[str, Any] = {"text_config.rope_parameters": _MROPE}
_ANYRES: dict[str, Any] = {  # a picture as itself and two tiles
    "image_grid_pinpoints": [[32, 64], [64, 32]],
    "!inputs": lambda s, random: {"pixel_values": random(2, 3, 3, 32, 32)},
}
_GRANITE_SPEECH: dict[str, Any] = {
    "encoder_config.context_size": 8,
    "encoder_config.hidden_dim": lambda s: s.width,
    "window_size": 15,  # three queries of five frames each
    "!places": 9,
    "!inputs": lambda s, random: {
        "input_features_mask": torch.ones(2, 9, dtype=torch.bool)
    },
}
_QFORMER: dict[str, Any] = {"!inputs": lambda s, random: _prompts(s)}

#: what holds for one class of a model type only
CLASSES: dict[str, dict[str, Any]] = {
    "ReformerModelWithLMHead": {"is_decoder": True},
    "Blip2ForImageTextRetrieval": {"image_token_index": None},
    "PatchTSMixerForRegression": {"!field": "regression_outputs"},
    "PatchTSTForRegression": {"!field": "regression_outputs"},
}
OVERRIDES: dict[str, dict[str, Any]] = {
    "align": {
        "projection_dim": 640,
        "vision_config.!keep": ("in_channels", "out_channels", "hidden_dim"),
    },
    "bit": {"num_groups": 4},
    "levit": {"image_size": 64, "patch_size": 16},
    "donut-swin": _SWIN,
    "swin": _SWIN,
    "canary": {"encoder_config.!keep": ("num_mel_bins",)},
    "fun_asr_nano": {
        "adaptor_config.intermediate_size": lambda s: s.width // 4,
        "!inputs": lambda s, random: {"input_features": random(2, s.frames, 7 * 80)},
    },
    "kyutai_speech_to_text": {
        "!kind": "text",
        "codec_config.upsample_groups": lambda s: s.width,
        "num_codebooks": 4,
        "!inputs": lambda s, random: {  # a word and four codes for every frame
            "input_ids": _codes(s, 2 * 5).unflatten(0, (2, 5)).mT.contiguous()
        },
    },
    "voxtral_realtime": {
        "!kind": "audio",
        "!inputs": lambda s, random: {"input_features": random(2, 128, 8 * s.tokens)},
    },
    "vibevoice": {
        **_tokenizer("audio_config"),
        **_tokenizer("semantic_model_config"),
        "!inputs": _waves,
    },
    "vibevoice_asr": {
        **_tokenizer("acoustic_tokenizer_encoder_config"),
        **_tokenizer("semantic_tokenizer_encoder_config"),
        "!places": 4,
        "!inputs": _waves,
    },
    "moonshine": {
        "encoder_num_key_value_heads": lambda s: s.heads,
        "decoder_num_key_value_heads": lambda s: s.heads,
    },
    "moonshine_streaming": {  # its class reads a field that its configuration lacks
        "num_key_value_heads": lambda s: s.heads,
        "encoder_config.num_key_value_heads": lambda s: s.heads,
    },
    "dia": {
        "!kind": "text",
        "!inputs": lambda s, random: {
            "decoder_input_ids": _codes(s, 18).unflatten(0, (2, 9)).mT.contiguous()
        },
    },
    "pop2piano": {
        "!inputs": lambda s, random: {
            "input_ids": None,
            "input_features": random(2, s.frames, s.width),
        }
    },
    "voxtral": {
        "audio_token_id": lambda s: s.vocabulary - 4,
        # a token for every two frames, laid side by side
        "audio_config.intermediate_size": lambda s: 2 * s.width,
    },
    "qwen3_asr": {  # it counts on 13 features of a window of 100 frames
        "audio_config.downsample_hidden_size": 8,
        "!inputs": lambda s, random: {
            "input_features": random(2, 128, 100),
            "input_features_mask": torch.ones(2, 100, dtype=torch.long),
        },
    },
    "speech-encoder-decoder": {
        **_CROSS,
        "!inputs": lambda s, random: {
            "input_features": None,
            "input_values": random(2, s.samples),
        },
    },
    "wav2vec2-bert": {"vocab_size": 32},
    "wav2vec2-conformer": {"vocab_size": 32},
    "efficientnet": {"hidden_dim": 2560},
    "encoder-decoder": _CROSS,
    "vision-encoder-decoder": _CROSS,
    "gemma3n": {
        "vision_config.hidden_size": 2048,
        "vision_config.model_args": {
            "channel_multiplier": 0.1,
            "msfa_output_resolution": 2,
        },
    },
    "pp_formulanet": {"!inputs": lambda s, random: {"input_ids": None}},
    "hgnet_v2": {
        "!keep": (
            "stem_channels",
            "stage_in_channels",
            "stage_mid_channels",
            "stage_out_channels",
            "hidden_sizes",
            "embedding_size",
            "depths",
        )
    },
    "imagegpt": {"!kind": "text"},
    "mobilevitv2": {"image_size": 64},
    "perceiver": {"num_cross_attention_heads": 1},
    "pp_lcnet": {"!field": "last_hidden_state"},
    "patchtsmixer": {"!field": "prediction_outputs"},
    "patchtst": {"!field": "prediction_logits"},
    "shieldgemma2": {
        "!kind": "image in text",
        "yes_token_index": 5,
        "no_token_index": 7,
    },
    "siglip2": {"!inputs": lambda s, random: _patches(s, random)},
    "textnet": {
        "image_size": lambda s: 2 * s.pixels,
        "hidden_sizes": (8, 8, 16, 16, 32),
        "stem_out_channels": 8,
    },
    "timesfm": {"!field": "mean_predictions"},
    "timesfm2_5": {"!field": "mean_predictions"},
    "videoprism": {
        "!field": None,
        "!scores": lambda model: _Similarity(model),
        "!inputs": lambda s, random: {
            "pixel_values": None,
            "pixel_values_videos": random(2, 16, 3, s.pixels, s.pixels),
        },
    },
    "bamba": {**_MAMBA2, "attn_layer_indices": [1]},
    "bros": {
        "hidden_size": lambda s: 2 * s.width,  # two features for a side of a box
        "!inputs": lambda s, random: {"bbox": _boxes(s).double() / 50},
    },
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "cohere_compass": {"text_config.rope_parameters": {"full_attention": _MROPE}},
    "cosmos3_edge": {
        "text_config.rope_parameters": _MROPE,
        "vision_config.num_patches": 16,
    },
    "aria": {"projector_patch_to_query_dict": {16: 4}},
    "blip-2": {"qformer_config.use_qformer_text_input": True},
    "instructblip": _QFORMER,
    "instructblipvideo": {
        "!inputs": lambda s, random: {**_pictures(s, random), **_prompts(s)}
    },
    "glm46v": _GLM4V,
    "glm4v": _GLM4V,
    "glm4v_moe": {
        "text_config.rope_parameters": {**_MROPE, "mrope_section": [1, 1, 0]},
    },
    "glm_ocr": _GLM4V,
    "glmga": _GLM4V,
    "hunyuan_vl": {"text_config.rope_parameters": _MROPE},
    "ernie4_5_vl_moe": {
        "text_config.rope_parameters": {**_ROPE, "mrope_section": [1, 1, 2]}
    },
    "idefics2": {"!inputs": _pictures},
    "idefics3": {"!inputs": _pictures},
    "smolvlm": {"!inputs": _pictures},
    "granite_docling": {
        "text_config.vocab_size": 120,
        "!inputs": lambda s, random: {
            "pixel_values": random(2, 1, 3, s.pixels, s.pixels),
            "pixel_attention_mask": torch.ones(2, 1, dtype=torch.bool),
        },
    },
    "lfm2_vl": {"!inputs": _patches},
    "fast_vlm": {"vision_config.hidden_size": 3072},
    "perception_lm": {
        "vision_config.architecture": "vit_pe_core_tiny_patch16_384",
        "vision_config.do_pooling": False,
        "vision_config.model_args": lambda s: {
            "embed_dim": s.width,
            "depth": s.layers,
            "num_heads": s.heads,
            "img_size": (s.pixels, s.pixels),
            "global_pool": "",
            "use_post_transformer_norm": False,
        },
        "!inputs": _pictures,
    },
    "pi0": {
        "max_action_dim": 8,
        "chunk_size": 4,
        "!inputs": lambda s, random: {
            **_pictures(s, random),
            "pixel_attention_mask": torch.ones(2, 1, dtype=torch.bool),
            "input_ids": _seen(s, 16),
            "state": random(2, 32),
            "noise": random(2, 4, 8),
            "timestep": torch.tensor([0.3, 0.6], dtype=torch.float64),
        },
    },
    "inkling_mm_model": {
        "!inputs": lambda s, random: {"pixel_values": random(8, 2, 8, 8, 3)}
    },
    "nemotron_h_omni": {
        "vision_config.video_temporal_patch_size": 2,
        "vision_config.dtype": "float64",  # what it casts pictures to
        "!places": 4,
        "!inputs": lambda s, random: {
            "pixel_values": random(32, 3 * 8 * 8),
            "image_grid_hw": torch.tensor([[4, 4]] * 2),
        },
    },
    "dots3_note": {
        "vision_config.mlp_layer_types": lambda s: (
            ["dense"] + ["sparse"] * (s.layers - 1)
        ),
        "vision_config.adapter_in_dim": lambda s: s.width,
        "vision_config.adapter_out_dim": lambda s: s.width,
        "audio_config.adapter_input_size": lambda s: s.width,
        "audio_config.adapter_out_dim": lambda s: s.width,
        "text_config.index_topk": 4,
        "text_config.swa_num_attention_heads": lambda s: s.heads,
        "text_config.swa_num_key_value_heads": lambda s: s.heads,
        "text_config.swa_q_lora_rank": lambda s: s.head,
        "text_config.swa_kv_lora_rank": lambda s: s.head,
        "text_config.swa_head_dim": lambda s: 2 * s.head,
        "text_config.swa_qk_nope_head_dim": lambda s: s.head,
        "text_config.swa_v_head_dim": lambda s: s.head,
    },
    "gemma4_unified": {
        "vision_config": lambda s: _tower(
            "Gemma4UnifiedVisionConfig",
            s,
            mm_embed_dim=s.width,
            output_proj_dims=s.width,
        ),
        "!inputs": lambda s, random: {
            "pixel_values": random(2, 4, 3 * 24 * 24),
            "image_position_ids": torch.tensor([[[0, 0], [1, 0], [0, 1], [1, 1]]] * 2),
        },
    },
    "chameleon": {
        "vq_config.base_channels": 32,
        "vq_config.resolution": 32,
        "vq_config.num_embeddings": 4,
        "vocabulary_map": {
            "<image>": 118,
            **{f"IMGIMG{letter}Z": 90 + i for i, letter in enumerate("ABCD")},
        },
    },
    "emu3": {
        "vq_config.base_channels": 32,
        "vq_config.hidden_size": 128,
        "vocabulary_map": {
            "<image>": 118,
            "<|extra_200|>": 89,
            **{f"<|visual token {i:06d}|>": 60 + i for i in range(32)},
        },
    },
    "unlimited_ocr": {"text_config.num_key_value_heads": lambda s: s.heads},
    "diffusion_gemma": {
        "text_config.num_experts": 4,
        "text_config.top_k_experts": 2,
        "text_config.moe_intermediate_size": lambda s: s.width,
        "canvas_length": lambda s: s.tokens,
        # without a canvas the model draws one at random in every forward pass
        "!inputs": lambda s, random: {
            **_placed_patches(random),
            "decoder_input_ids": _codes(s)[:2],
        },
    },
    "granite4_vision": {
        **_ANYRES,
        "downsample_rate": "1/2",
        "deepstack_layer_map": [[-1, 0]],
        "vision_config.hidden_size": 64,
        "spatial_target_layers": [0, 0, 1, 1],
        "vision_config.patch_size": 8,
    },
    **{name: {"!inputs": _sliced} for name in _SLICED},
    "inkling2": {
        "!inputs": lambda s, random: {
            "pixel_values": random(8, 16, 16, 3),
            "image_grid_thw": torch.tensor([[1, 2, 2], [1, 2, 2]]),
        }
    },
    "udop": {
        "!inputs": lambda s, random: {"bbox": _boxes(s).double() / 50},
    },
    "pix2struct": {
        "!inputs": lambda s, random: {
            "pixel_values": None,
            "flattened_patches": _numbered_patches(random),
        }
    },
    "musicgen": {"!inputs": lambda s, random: {"input_ids": _codes(s)}},
    "musicgen_melody": {"!inputs": lambda s, random: {"input_ids": _codes(s)}},
    "gemma4": {
        "vision_config": lambda s: _tower("Gemma4VisionConfig", s),
        "!inputs": lambda s, random: _placed_patches(random),
    },
    "idefics": {
        "!inputs": lambda s, random: {
            **_pictures(s, random),
            "image_attention_mask": torch.ones(2, s.tokens, 1, dtype=torch.long),
        }
    },
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8.0},
    "muse_glimmer": {
        "out_hidden_size": lambda s: 4 * s.width,
        "!inputs": lambda s, random: {"pixel_values": random(32, 384)},
    },
    "muse_spark": {
        "out_hidden_size": lambda s: 4 * s.width,
        "audio_config.!keep": ("num_hidden_layers", "patch_sizes", "depths"),
        "audio_config.hidden_sizes": (8, 16, 24, 32),
        "!inputs": lambda s, random: {"pixel_values": random(32, 384)},
    },
    "molmo2": {
        "adapter_config.vision_feature_layer": [1, 0],
        "adapter_config.text_hidden_size": lambda s: s.width,
        "vision_config.image_size": [32, 32],
        "vision_config.num_position_embeddings": 16,
        "image_patch_id": lambda s: s.vocabulary - 2,
        "!inputs": lambda s, random: {  # 4 tokens of 2 x 2 patches each
            "pixel_values": random(2, 16, 3 * 8 * 8),
            "image_token_pooling": torch.arange(32).view(8, 4),
            "image_grids": torch.tensor([[2, 2, 0, 0]] * 2),
        },
    },
    "mistral_large4": {"text_config.kv_source_layers": [0, 1]},
    "deepseek_vl_hybrid": {
        "high_res_vision_config.image_size": 128,
        "!inputs": lambda s, random: {"high_res_pixel_values": random(2, 3, 128, 128)},
    },
    "llama4": {"vision_config.intermediate_size": lambda s: 4 * s.width},
    "llava": {"!inputs": lambda s, random: {"image_sizes": None}},
    "llava_next": _ANYRES,
    "llava_next_video": _ANYRES,
    "llava_onevision": _ANYRES,
    "kosmos-2": {
        "latent_query_num": 4,
        "!inputs": lambda s, random: {"image_embeds_position_mask": _marked(s)},
    },
    "vipllava": {"vision_feature_layer": (-2, -1)},
    "video_llama_3": {
        "!inputs": lambda s, random: {"image_merge_sizes": torch.tensor([2, 2])}
    },
    "paddleocr_vl": {
        "text_config.rope_parameters": _MROPE,
        "!inputs": lambda s, random: {"pixel_values": random(32, 3, 8, 8)},
    },
    "kimi_k25": {"!inputs": lambda s, random: {"pixel_values": random(32, 3, 8, 8)}},
    "qwen2_vl": {"text_config.rope_parameters": _MROPE},
    "qwen2_5_vl": {"text_config.rope_parameters": _MROPE},
    "qwen2_5_omni_thinker": {"text_config.rope_parameters": _MROPE},
    "mllama": {
        "vision_config.max_num_tiles": 1,
        "vision_config.supported_aspect_ratios": [[1, 1]],
        "vision_config.intermediate_layers_indices": [0],
        "vision_config.vision_output_dim": lambda s: 2 * s.width,
        "text_config.cross_attention_layers": [1],
        "!inputs": lambda s, random: {
            "pixel_values": random(2, 1, 1, 3, s.pixels, s.pixels),
            "aspect_ratio_ids": torch.ones(2, 1, dtype=torch.long),
            "aspect_ratio_mask": torch.ones(2, 1, 1, dtype=torch.long),
        },
    },
    "step3p7": {"text_config.sliding_window": 4},
    "fuyu": {"!inputs": lambda s, random: {"pixel_values": random(2, 16, 3 * 8 * 8)}},
    "qwen4_exp": {
        "text_config.indexer_n_heads": 4,
        "text_config.indexer_kv_heads": 1,
        "text_config.indexer_head_dim": 8,
        "text_config.indexer_budget": 8,
        "text_config.indexer_compress_ratio": 2,
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "laguna": {"num_attention_heads_per_layer": lambda s: [s.heads] * s.layers},
    "deepseek_ocr2": {
        "text_config.num_experts_per_tok": 2,
        "text_config.mlp_layer_types": ["dense", "sparse"],
        "vision_config.sam_config.downsample_channels": [16, 32],
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
    },
    "granite_speech": _GRANITE_SPEECH,
    "granite_speech_plus": _GRANITE_SPEECH,
    "granitemoehybrid": _MAMBA2,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"qk_head_dim": lambda s: 2 * s.head},
    "lxmert": {
        "!field": "question_answering_score",
        "visual_feat_dim": 16,
        "!inputs": lambda s, random: {
            "visual_feats": random(2, 4, 16),
            "visual_pos": random(2, 4, 4),
        },
    },
    "mamba2": {
        "num_heads": 8,
        "head_dim": lambda s: s.width // 4,
        "n_groups": 1,
    },
    "neomme": {"head_dim": 16},
    "esm": {"vocab_size": 33, "pad_token_id": 1, "mask_token_id": 32},
    "esmc": {"num_key_value_heads": lambda s: s.heads},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "granite_speech5_ctc": {
        "encoder_config.context_size": 8,
        "encoder_config.num_key_value_heads": lambda s: s.heads,
        "!inputs": lambda s, random: {"input_features": random(2, s.frames, 4 * 80)},
    },
    "layoutlmv3": {"input_size": 32, "coordinate_size": 5, "shape_size": 6},
    "lilt": {"hidden_size": 48, "num_attention_heads": 4},
    "longformer": {
        "attention_window": [4, 4],
        "!inputs": lambda s, random: {"input_ids": _separated(s)},
    },
    "led": {"attention_window": [4, 4], "!tokens": 12},
    "big_bird": {"block_size": 2, "num_random_blocks": 2, "!tokens": 24},
    "bigbird_pegasus": {"block_size": 2, "num_random_blocks": 2, "!tokens": 24},
    "mobilebert": {
        "embedding_size": 16,
        "hidden_size": 32,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
        "intermediate_size": 24,
    },
    "mra": {"block_per_row": 2, "!tokens": 64},
    "nemotron": {"num_key_value_heads": 2},
    "nystromformer": {
        "num_landmarks": 2,
        "segment_means_seq_len": 8,
        "conv_kernel_size": 3,
        "!tokens": 8,
    },
    "reformer": {
        "axial_pos_shape": (4, 4),
        "axial_pos_embds_dim": (8, 24),
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "attn_layers": ["local", "lsh"],
        "num_buckets": 2,
        "hash_seed": 0,
        "!tokens": 16,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 4,
        # two hybrid layers at least: the second shares the weights of the first
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": lambda s: 2 * s.width,
        "attention_head_dim": lambda s: 2 * s.width // s.heads,
        "n_mamba_heads": 2,
        "mamba_dt_rank": 4,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid"],
        "hybrid_layer_ids": [2],
        "attention_hidden_size": lambda s: 2 * s.width,
        "attention_head_dim": lambda s: 2 * s.width // s.heads,
        "num_key_value_heads": lambda s: s.heads,
        "n_mamba_heads": 8,
        "mamba_headdim": lambda s: s.width // 4,
        "adapter_rank": 4,
    },
}
