"""Any transformers configuration made small: by the names of its fields.

:func:`shrunk` goes through a configuration and its sub-configurations and gives every
field whose name says that it is a size a small value (:func:`small`); what a single
architecture needs beyond that stands in :mod:`.overrides`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large the models of one sweep are; the seed draws weights and inputs."""

    width: int = 32
    heads: int = 4
    layers: int = 2
    inner: int = 64
    vocabulary: int = 120
    tokens: int = 10
    pixels: int = 32
    samples: int = 2400
    frames: int = 32
    seed: int = 0

    @property
    def head(self) -> int:
        """Features of a head."""
        return self.width // self.heads


#: pattern of the whole name -> value, the first that matches wins; a name of one of
#: the :class:`Sizes` stands for it, None says that the field is left alone
NAMES: tuple[tuple[str, Any], ...] = (
    (
        r"tie_.*|use_.*|is_.*|initializer.*|.*_act|num_labels|.*kernel.*|.*stride.*",
        None,
    ),
    (r"(num_)?channels|num_frames|tubelet_size|in_chans|num_image_channels", None),
    (r"(in|out)_channels", None),
    (r"downsampl.*|upsampl.*|.*_factor|.*_rate|sampling_rate", None),
    (r"t2u_.*layers|speech_encoder_layers|num_adapter_layers", "layers"),
    (r"(max_)?(n_|num_)?(encoder_|decoder_|hidden_)*layers?", "layers"),
    (r"(text|vision|audio)_?layers|conf_num_hidden_layers|[lxr]_layers", "layers"),
    (r"n_layers?|depth|num_blocks|num_layers_per_stack|num_hidden_groups", "layers"),
    (r"max_window_layers|num_global_layers|num_self_attends_per_block", "layers"),
    (r"num_nextn_predict_layers|.*shared_layers", 0),
    (r".*kv_heads|.*key_value_heads|num_query_groups", 2),
    (r".*attention_heads|n_heads?|num_heads|attention_heads", "heads"),
    (r"linear_num_(key|value)_heads|linear_num_heads|index_n_heads", "heads"),
    (r"mamba_(n|num)_heads|mamba_heads|n_mamba_heads|heads_per_ngram", "heads"),
    (r".*head_dim|d_kv|d_head|dim_head|dim_kv|kv_channels|attention_head_size", "head"),
    (r"mamba_d_head|mamba_headdim|head_size|attention_head_dim", "head"),
    (r"rotary_dim", "head"),
    (r".*lora_rank|.*_rank|gated_norm_rank|mamba_dt_rank", "head"),
    (r".*(state_size|d_state)", 8),
    (r"d_rel|d_conv|mamba_d_conv", 4),
    (r"num_experts_per_tok(en)?|moe_k|moe_topk|top_?k|num_selected_experts", 2),
    (r".*num_experts|num_local_experts|n_routed_experts|expert_capacity", 4),
    (r"n_groups?|topk_group|num_expert_group|mamba_n_groups|zero_expert_num", 2),
    (r"o_groups", 2),
    (r"chunk_size|mamba_chunk_size|.*attention_chunk_size", 4),
    (r".*(sliding_window|window_size|local_attention|window_len|keep_window).*", 4),
    (r"sliding_window_pattern|_sliding_window_pattern", 2),
    (r"global_attn_every_n_layers", 2),
    (r"local_radius|global_block_size", 4),
    (r".*(intermediate|ffn|ff|inner).*(size|dim)|d_ff|dim_ff|dff|d_inner", "inner"),
    (r".*ffn_dim|mlp_dim|hidden_dim|ffn_hidden_size|feed_forward_size", "inner"),
    (r"ffn_hidden_size|intermediate_size_mlp|expert_ffn_hidden_size", "inner"),
    (r".*max_position_embeddings|n_positions|max_seq_len|max_sequence_length", 64),
    (r"(max_)?(source|target)_positions|n_ctx|context_length|max_length", 64),
    (r"original_max_position_embeddings|max_pos_emb|seq_length", 64),
    (r".*max_2d_position_embeddings", 64),
    (r"type_vocab_size", 4),
    (r".*vocab_size(_.*)?|vocab_size.*|padded_vocab.*", "vocabulary"),
    (r"codebook_size|num_codevectors_per_group|num_hash_buckets", 32),
    (r"image_size|img_size|input_size|crop_size", "pixels"),
    (r"mm_tokens_per_image|vision_soft_tokens_per_image", 4),
    (r"num_query_tokens|resampler_n_latents", 4),
    (r"resampler_depth", "layers"),
    (r"resampler_n_heads", "heads"),
    (r"patch_size", 8),
    (
        r".*(hidden|embed(ding)?|projection|pooler|proj|output|width)_?(size|dim)(_.*)?",
        "width",
    ),
    (
        r"d_model|n_embd|emb_dim|dim|d_latents|(lru_)?width|model_dim|embed_dims",
        "width",
    ),
    (r".*_(hidden_size|embed_dim|projection_dim|output_dim|input_dim)", "width"),
)
#: the same for lists of numbers, one per stage
_DEPTHS = re.compile(r".*(depths|blocks|layers|num_.*blocks|block_repeats)")
_HEADS = re.compile(r".*heads.*")
#: numbers of layers that something is done in: the last one is left
_PLACES = re.compile(r"fullatt_block_indexes|global_attn_indexes|deepstack.*_indexes")
_WIDTHS = re.compile(
    r".*(hidden_sizes?|widths?|embed_dims?|conv_dim|tdnn_dim|.*_channels|dims?"
    r"|channels|channel_size)"
)


def small_list(name: str, values: Any, sizes: Sizes) -> Any:
    """Return small values for the stages of a model, or the values themselves."""
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if not values or not whole:
        return values
    new = list(values)
    if _PLACES.fullmatch(name):
        new = [sizes.layers - 1]
    elif _HEADS.fullmatch(name):
        new = [min(v, 2) for v in values]
    elif _DEPTHS.fullmatch(name):
        new = [min(v, 1) for v in values]
    elif _WIDTHS.fullmatch(name) and min(values) >= 16:
        least = min(values)
        new = [min(16 * max(v // least, 1), 4 * sizes.width) for v in values]
    return values if new == list(values) else type(values)(new)


_COMPILED = tuple((re.compile(pattern), value) for pattern, value in NAMES)
_TOKEN = re.compile(r".*(token_?id|token_index|_index|_pad_id|mask_id)s?$")


def small(name: str, value: Any, sizes: Sizes) -> Any:
    """Return the small value of a field, or the value itself."""
    if isinstance(value, (list, tuple)):
        return small_list(name, value, sizes)
    if isinstance(value, bool) or not isinstance(value, int) or value < 2:
        return value
    for pattern, to in _COMPILED:
        if pattern.fullmatch(name):
            if to is None:
                return value
            wanted = getattr(sizes, to) if isinstance(to, str) else to
            return min(value, wanted)
    return value


def shrunk(
    config: Any, sizes: Sizes, overrides: Mapping[str, Any], *, inside: bool = False
) -> Any:
    """Return a small configuration of the class of one, its sub-configurations too.

    Args:
        config (PretrainedConfig): with the values of its class.
        sizes (Sizes): how small.
        overrides (Mapping): field -> value; ``"text_config.hidden_size"`` means that of
            a sub-configuration. A value may be a function of the sizes.
        inside (bool, optional): whether it stands in another configuration, which may
            have given it values other than those of its class. Default: False
    """
    changed: dict[str, Any] = {}
    own = {k: v for k, v in overrides.items() if "." not in k and k[0] != "!"}
    for name, value in vars(config).items():
        if name.startswith("_") or name in own or name in overrides.get("!keep", ()):
            continue
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            inner = {
                key[len(name) + 1 :]: v
                for key, v in overrides.items()
                if key.startswith(name + ".")
            }
            changed[name] = shrunk(value, sizes, inner, inside=True)
            continue
        if _TOKEN.fullmatch(name):
            new = _token(name, value, sizes)
        else:
            new = small(name, value, sizes)
        if new is not value or (inside and _given(config, name, value)):
            changed[name] = new
    if getattr(config, "pad_token_id", 0) is None and hasattr(config, "vocab_size"):
        changed["pad_token_id"] = 1
    for name, value in own.items():
        changed[name] = value(sizes) if inspect.isfunction(value) else value
    if "kv_lora_rank" in vars(config) and "num_key_value_heads" not in own:
        changed["num_key_value_heads"] = changed.get("num_attention_heads")
    values = vars(config)
    if isinstance(values.get("qk_nope_head_dim"), int) and "qk_head_dim" in values:
        changed["qk_head_dim"] = 2 * sizes.head
        if values.get("head_dim") == values["qk_head_dim"]:
            changed["head_dim"] = 2 * sizes.head
    if values.get("head_dim", 0) is None and "head_dim" not in own:
        changed["head_dim"] = sizes.head
    if {"window_size", "patch_size", "spatial_merge_size"} <= set(values):  # pixels
        window = 2 * values["spatial_merge_size"] * changed["patch_size"]
        changed.setdefault("window_size", window)
        changed["window_size"] = max(changed["window_size"], window)
    kinds = set(_layer_types(config))
    for layers in (None, 3, 4, 5, 6, 8):
        if layers is not None:
            changed = {
                k: layers if k in _LAYER_FIELDS and k not in own else v
                for k, v in changed.items()
            }
        made = type(config)(**changed)
        if set(_layer_types(made)) >= kinds or "layer_types" in own:
            break
    return made


def _given(config: Any, name: str, value: Any) -> bool:
    """Whether a plain value is not that of the class: the outer configuration's.

    Such as the number of key-value heads of PaliGemma's text, or the name of a timm
    model.
    """
    default = getattr(type(config), name, None)
    plain = type(value) in (bool, int, float, str) and type(default) is type(value)
    return plain and value != default and name != "model_type"


_LAYER_FIELDS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")


def _layer_types(config: Any) -> list[str]:
    found = vars(config).get("layer_types")
    return list(found) if isinstance(found, (list, tuple)) else []


def _token(name: str, value: Any, sizes: Sizes) -> Any:
    """Return an identifier within the small vocabulary, another for every name."""
    if isinstance(value, (list, tuple)):
        if any(isinstance(v, int) and v >= sizes.vocabulary for v in value):
            return [_token(f"{name}{i}", v, sizes) for i, v in enumerate(value)]
        return value
    if value is None and re.fullmatch(r"(image|video)_token_(id|index)", name):
        value = sizes.vocabulary
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if value < sizes.vocabulary:
        return value
    return sizes.vocabulary - 1 - SPECIAL.setdefault(name, len(SPECIAL) % 24)


#: special tokens met so far -> place from the end of the vocabulary; texts keep clear
SPECIAL: dict[str, int] = {
    "pad_token_id": 0,
    "image_token_id": 1,
    "image_token_index": 1,
    "video_token_id": 2,
    "video_token_index": 2,
    "audio_token_id": 3,
    "audio_token_index": 3,
    "bos_token_id": 4,
    "eos_token_id": 5,
    "vision_start_token_id": 6,
    "vision_end_token_id": 7,
}
