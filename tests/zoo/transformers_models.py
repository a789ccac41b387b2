"""One small random model for every entry of transformers' auto mappings.

:func:`entries` lists them by task; an entry is built offline, in float64, from its
configuration class alone.
"""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .overrides import CLASSES, OVERRIDES
from .shrinking import Sizes, shrunk
from .sweep import Built, Entry

#: group -> (name of the mapping, kind of inputs, field of the scores)
TASKS: dict[str, tuple[str, str, str | None]] = {
    "sequence classification": ("SEQUENCE_CLASSIFICATION", "text", None),
    "token classification": ("TOKEN_CLASSIFICATION", "text", None),
    "question answering": ("QUESTION_ANSWERING", "text", "start_logits"),
    "causal LM": ("CAUSAL_LM", "text", None),
    "masked LM": ("MASKED_LM", "text", None),
    "seq2seq LM": ("SEQ_TO_SEQ_CAUSAL_LM", "text", None),
    "image classification": ("IMAGE_CLASSIFICATION", "image", None),
    "zero-shot image classification": (
        "ZERO_SHOT_IMAGE_CLASSIFICATION",
        "image and text",
        "logits_per_image",
    ),
    "image-text to text": ("IMAGE_TEXT_TO_TEXT", "image in text", None),
    "audio classification": ("AUDIO_CLASSIFICATION", "audio", None),
    "CTC": ("CTC", "audio", None),
    "speech seq2seq": ("SPEECH_SEQ_2_SEQ", "audio", None),
    "time series": ("TIME_SERIES_PREDICTION", "series", None),
    "time series classification": ("TIME_SERIES_CLASSIFICATION", "series", None),
    "time series regression": ("TIME_SERIES_REGRESSION", "series", None),
}


def entries(sizes: Sizes | None = None) -> Iterator[Entry]:
    """Yield an entry for every class of every mapping of :data:`TASKS`."""
    from transformers.models.auto import modeling_auto

    sizes = Sizes() if sizes is None else sizes
    for group, (mapping, kind, field) in TASKS.items():
        names = getattr(modeling_auto, f"MODEL_FOR_{mapping}_MAPPING_NAMES")
        for family, classes in names.items():
            for name in (classes,) if isinstance(classes, str) else classes:
                table = {**OVERRIDES.get(family, {}), **CLASSES.get(name, {})}
                label = family if isinstance(classes, str) else f"{family} ({name})"
                yield Entry(
                    name=label,
                    group=group,
                    build=functools.partial(
                        build, family, name, table.get("!kind", kind), sizes
                    ),
                    output_field=table.get("!field", field),
                    fused=fused,
                )


def configuration(family: str, sizes: Sizes, name: str = "") -> Any:
    """Return the small configuration of a model type, for the class of a name."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    table = {**OVERRIDES.get(family, {}), **CLASSES.get(name, {})}
    config = shrunk(CONFIG_MAPPING[family](), sizes, table)
    for part in _configurations(config):
        part._attn_implementation = "eager"
        if hasattr(part, "_experts_implementation"):
            part._experts_implementation = "eager"
        for name in ("apply_spec_augment", "layerdrop", "use_cache"):
            if hasattr(part, name):
                setattr(part, name, type(getattr(part, name))(0))
        if getattr(part, "is_encoder_decoder", False):
            if getattr(part, "decoder_start_token_id", None) is None:
                part.decoder_start_token_id = getattr(part, "pad_token_id", None) or 0
    config.use_cache = False
    return config


def _configurations(config: Any) -> Iterator[Any]:
    yield config
    for value in list(vars(config).values()):
        if hasattr(value, "to_dict") and hasattr(value, "model_type"):
            yield from _configurations(value)


def build(family: str, name: str, kind: str, sizes: Sizes) -> Built:
    """Return model, inputs and target of one class."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        config = configuration(family, sizes, name)
        torch.manual_seed(sizes.seed)
        cls = getattr(transformers, name)
        asked = getattr(cls, "config_class", None) or type(config)
        config = next(
            (c for c in _configurations(config) if isinstance(c, asked)), config
        )
        model = (
            cls._from_config(config) if hasattr(cls, "_from_config") else cls(config)
        )
    model = with_random_weights(model, sizes.seed)
    inputs = INPUTS[kind](model, family, sizes)
    if isinstance(inputs, dict):
        inputs = {k: v for k, v in inputs.items() if v is not None}
    scores = OVERRIDES.get(family, {}).get("!scores")
    return model if scores is None else scores(model), inputs, None


def with_random_weights(model: nn.Module, seed: int) -> nn.Module:
    """Return the model with weights that leave nothing near zero, in float64."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.is_floating_point():
                continue
            values = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                fan = max(parameter[0].numel() if parameter.shape[0] else 1, 4)
                parameter.copy_(values / fan**0.5)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * values)
            else:
                parameter.copy_(0.2 * values)
    return model.double().eval()


@contextmanager
def _sdpa(model: Any) -> Iterator[None]:
    try:
        model.set_attn_implementation("sdpa")
        yield
    finally:
        model.set_attn_implementation("eager")


def fused(model: nn.Module) -> Any:
    """Return a context in which a model runs sdpa, or None if it cannot."""
    if not getattr(model, "_supports_sdpa", False):
        return None
    try:
        with _sdpa(model):
            pass
    except ValueError as error:  # a part of the model has no such attention
        if "does not support an attention implementation" not in str(error):
            raise
        return None
    return _sdpa(model)


# -------------------------------------------------------------------------- inputs


def random_ids(sizes: Sizes, vocabulary: int, tokens: int, examples: int = 2) -> Tensor:
    """Return identifiers clear of the special ones."""
    generator = torch.Generator().manual_seed(sizes.seed + 1)
    high = min(vocabulary, sizes.vocabulary) - 25
    low = min(6, max(high - 8, 0))
    return torch.randint(low, max(high, 8), (examples, tokens), generator=generator)


def _random(sizes: Sizes, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sizes.seed + 2)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def text(model: Any, family: str, sizes: Sizes) -> dict[str, Tensor]:
    """Identifiers, and those of the decoder where there is one."""
    config = model.config
    tokens = OVERRIDES.get(family, {}).get("!tokens", sizes.tokens)
    vocabulary = getattr(config.get_text_config(), "vocab_size", sizes.vocabulary)
    inputs = {"input_ids": random_ids(sizes, vocabulary, tokens)}
    eos = getattr(config, "eos_token_id", None)
    if config.is_encoder_decoder and isinstance(eos, int):
        inputs["input_ids"][:, -1] = eos
    if config.is_encoder_decoder and _takes(model, "decoder_input_ids"):
        if not type(model).__name__.endswith(("Classification", "QuestionAnswering")):
            inputs["decoder_input_ids"] = inputs["input_ids"].flip(1)[:, :5]
    more = _more(family, sizes)
    return {**inputs, **{k: v for k, v in more.items() if k not in _BESIDE_TEXT}}


def pixels_of(config: Any, sizes: Sizes) -> tuple[int, int, int]:
    """Return channels, height and width that a vision configuration names."""
    size = getattr(config, "image_size", None) or sizes.pixels
    if isinstance(size, dict):
        size = (size["height"], size["width"])
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = getattr(config, "num_channels", None)
    return (channels if isinstance(channels, int) else 3), height, width


def image(model: Any, family: str, sizes: Sizes) -> dict[str, Tensor]:
    """Pixels of the size that the configuration names."""
    config = getattr(model.config, "vision_config", None) or model.config
    pixels = _random(sizes, 2, *pixels_of(config, sizes))
    return {"pixel_values": pixels, **_more(family, sizes)}


def image_and_text(model: Any, family: str, sizes: Sizes) -> dict[str, Tensor]:
    """Pixels and texts side by side, as CLIP takes them."""
    config = getattr(model.config, "text_config", model.config)
    ids = random_ids(sizes, getattr(config, "vocab_size", 99), sizes.tokens)
    return {"input_ids": ids, **image(model, family, sizes)}


def image_in_text(model: Any, family: str, sizes: Sizes) -> dict[str, Tensor]:
    """A text with as many image tokens as the model makes features of a picture."""
    vision = _vision_inputs(model, family, sizes)
    return _with_places(model, family, sizes, vision, "image")


def audio_in_text(model: Any, family: str, sizes: Sizes) -> dict[str, Tensor]:
    """A text with as many audio tokens as the model makes features of a sound."""
    config = getattr(model.config, "audio_config", None)
    config = config or getattr(model.config, "encoder_config", model.config)
    sound = _sound(model, config, sizes)
    if _takes(model, "input_features_mask"):
        sound["input_features_mask"] = torch.ones(
            2,
            sound["input_features"].shape[
                -1 if sound["input_features"].shape[1] != sizes.frames else 1
            ],
            dtype=torch.bool,
        )
    sound |= _more(family, sizes)
    return _with_places(model, family, sizes, sound, "audio")


def _with_places(
    model: Any, family: str, sizes: Sizes, given: dict[str, Any], kind: str
) -> dict[str, Any]:
    """Put places for the features of ``given`` into a text, as many as there are."""
    config = model.config
    text_config = config.get_text_config()
    ids = random_ids(sizes, getattr(text_config, "vocab_size", 99), sizes.tokens)
    if config.is_encoder_decoder:
        given = {**given, "decoder_input_ids": ids.flip(1)[:, :5]}
    if not _takes(model, "input_ids"):
        return given
    token = next(
        (
            getattr(config, name)
            for name in (f"{kind}_token_id", f"{kind}_token_index", "video_token_index")
            if isinstance(getattr(config, name, None), int)
        ),
        None,
    )
    if token is not None:  # none by chance
        ids = torch.where(ids == token, (ids + 1).clamp(max=ids.max()), ids)
        ids = torch.where(ids == token, ids - 1, ids)
    places = OVERRIDES.get(family, {}).get("!places", 0 if token is None else 4)
    width = getattr(text_config, "hidden_size", 1)
    for _ in range(5):
        parts = [ids[:, :2], ids[:, 2:]]
        if places:
            parts.insert(1, torch.full((2, places), token))
        inputs = {"input_ids": torch.cat(parts, 1), **given}
        if not _takes(model, "input_ids"):
            del inputs["input_ids"]
            break
        if _takes(model, "mm_token_type_ids"):
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == token).long()
        if _takes(model, "token_type_ids") and family in _TYPED:
            inputs["token_type_ids"] = (inputs["input_ids"] == token).long()
        if not places:
            break
        try:
            with torch.no_grad():
                model(**inputs)
        except (ValueError, RuntimeError) as error:
            found = re.search(r"tokens: *(\d+).*features:? *(\d+)", str(error))
            if found is None and "same dtype" in str(error):
                break  # the check tries float32
            if found is None:
                raise
            wanted = int(found[2]) * places // max(int(found[1]), 1)
            if wanted == places:  # some count elements as features
                wanted = places // width
            if not wanted:
                raise
            places = wanted
        else:
            break
    return inputs


#: pictures and sounds, which a text alone goes without
_BESIDE_TEXT = frozenset(
    {
        "pixel_values",
        "image_position_ids",
        "input_features",
        "input_features_mask",
        "input_values",
        "padding_mask",
        "sample",
    }
)
#: tell image tokens from text by token types
_TYPED = frozenset({"gemma3", "paligemma", "shieldgemma2", "git"})


def _vision_inputs(model: Any, family: str, sizes: Sizes) -> dict[str, Any]:
    vision = getattr(model.config, "vision_config", None) or model.config
    channels, height, width = pixels_of(vision, sizes)
    given: dict[str, Any] = {}
    if _takes(model, "image_grid_thw"):
        patch = _first_of(vision, "patch_size")
        merge = _first_of(vision, "spatial_merge_size", "merge_size", default=2)
        merge = merge if isinstance(merge, int) else merge[0]
        time = _first_of(vision, "temporal_patch_size", default=1)
        side = 2 * merge
        features = channels * time * patch * patch
        given["pixel_values"] = _random(sizes, 2 * side * side, features)
        given["image_grid_thw"] = torch.tensor([[1, side, side]] * 2)
    else:
        given["pixel_values"] = _random(sizes, 2, channels, height, width)
    if _takes(model, "image_sizes"):
        given["image_sizes"] = torch.tensor([[height, width]] * 2)
    return {**given, **_more(family, sizes)}


def _more(family: str, sizes: Sizes) -> dict[str, Any]:
    more = OVERRIDES.get(family, {}).get("!inputs")
    return {} if more is None else more(sizes, functools.partial(_random, sizes))


def _first_of(config: Any, *names: str, default: Any = None) -> Any:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            return value
    return default


#: fields that say how many features a frame of sound has
_MEL = (
    "num_mel_bins",
    "feature_projection_input_dim",
    "input_feat_per_channel",
    "input_feat_size",
    "feature_size",
    "input_dim",
)


def _sound(model: Any, config: Any, sizes: Sizes) -> dict[str, Tensor]:
    """Samples, or frames by features in the order that the model takes."""
    name = model.main_input_name
    if not _takes(model, "input_features"):
        name = "input_values"
    if name == "input_values" or not _takes(model, "input_features"):
        bins = getattr(config, "num_mel_bins", None)
        if getattr(config, "max_length", None) and bins:  # a picture of a spectrum
            return {name: _random(sizes, 2, config.max_length, bins)}
        return {"input_values": _random(sizes, 2, sizes.samples)}
    bins = _first_of(config, *_MEL, default=80)
    positions = getattr(config, "max_source_positions", None)
    if type(config).__name__.startswith(("Whisper", "Voxtral", "Qwen3", "Canary")):
        return {"input_features": _random(sizes, 2, bins, 2 * (positions or 64))}
    return {"input_features": _random(sizes, 2, sizes.frames, bins)}


def audio(model: Any, family: str, sizes: Sizes) -> dict[str, Any]:
    """Sound, and the identifiers of the decoder where there is one."""
    if "input_ids" in inspect.signature(model.forward).parameters:
        return audio_in_text(model, family, sizes)
    config = model.config
    encoder = getattr(config, "encoder_config", config)
    inputs: dict[str, Any] = _sound(model, encoder, sizes)
    if config.is_encoder_decoder and _takes(model, "decoder_input_ids"):
        vocabulary = getattr(config.get_text_config(), "vocab_size", sizes.vocabulary)
        inputs["decoder_input_ids"] = random_ids(sizes, vocabulary, 5)
    return {**inputs, **_more(family, sizes)}


def series(model: Any, family: str, sizes: Sizes) -> Any:
    """A series of values."""
    config = model.config
    length = _first_of(config, "context_length", default=64)
    channels = _first_of(config, "num_input_channels")
    shape = (2, length) if channels is None else (2, length, channels)
    return _random(sizes, *shape)


def _takes(model: Any, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


INPUTS: dict[str, Callable[[Any, str, Sizes], Any]] = {
    "text": text,
    "image": image,
    "image and text": image_and_text,
    "image in text": image_in_text,
    "audio": audio,
    "series": series,
}
