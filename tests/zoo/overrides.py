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

from .shrinking import Sizes


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
    "fun_asr_nano": {"adaptor_config.intermediate_size": lambda s: s.width // 4},
    "moonshine": {
        "encoder_num_key_value_heads": lambda s: s.heads,
        "decoder_num_key_value_heads": lambda s: s.heads,
    },
    "qwen3_asr": {"audio_config.n_window": 8},
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
        "vision_config.model_args": {"channel_multiplier": 0.1},
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
    "shieldgemma2": {"!kind": "image in text"},
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
    "bros": {"!inputs": lambda s, random: {"bbox": _boxes(s).double() / 50}},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2},
    "granite_speech": {"encoder_config.context_size": 8},
    "granite_speech_plus": {"encoder_config.context_size": 8},
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
    "granite_speech5_ctc": {"encoder_config.context_size": 8},
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
        "num_hidden_layers": 6,
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
