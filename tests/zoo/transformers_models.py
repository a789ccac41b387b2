"""One small random model for every entry of transformers' auto mappings.

:func:`entries` lists them by task; an entry is built offline, in float64, from its
configuration class alone.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .overrides import OVERRIDES
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
                label = family if isinstance(classes, str) else f"{family} ({name})"
                yield Entry(
                    name=label,
                    group=group,
                    build=functools.partial(build, family, name, kind, sizes),
                    output_field=field,
                    fused=fused,
                )


def configuration(family: str, sizes: Sizes) -> Any:
    """Return the small configuration of a model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = shrunk(CONFIG_MAPPING[family](), sizes, OVERRIDES.get(family, {}))
    for part in _configurations(config):
        part._attn_implementation = "eager"
        if hasattr(part, "_experts_implementation"):
            part._experts_implementation = "eager"
        for name in ("apply_spec_augment", "layerdrop", "use_cache"):
            if hasattr(part, name):
                setattr(part, name, type(getattr(part, name))(0))
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
        config = configuration(family, sizes)
        torch.manual_seed(sizes.seed)
        cls = getattr(transformers, name)
        model = cls._from_config(config) if hasattr(cls, "_from_config") else cls(config)
    model = with_random_weights(model, sizes.seed)
    inputs = INPUTS[kind](model, family, sizes)
    return model, inputs, None


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
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation("eager")


def fused(model: nn.Module) -> Any:
    """Return a context in which a model runs sdpa, or None if it cannot."""
    if not getattr(model, "_supports_sdpa", False):
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
    if config.is_encoder_decoder and _takes(model, "decoder_input_ids"):
        if type(model).__name__.endswith(("Generation", "LMHeadModel")):
            inputs["decoder_input_ids"] = inputs["input_ids"].flip(1)[:, :5]
    return inputs


def image(model: Any, family: str, sizes: Sizes) -> dict[str, Tensor]:
    """Pixels of the size that the configuration names."""
    config = getattr(model.config, "vision_config", None) or model.config
    size = getattr(config, "image_size", None) or sizes.pixels
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    channels = getattr(config, "num_channels", None)
    channels = channels if isinstance(channels, int) else 3
    return {"pixel_values": _random(sizes, 2, channels, height, width)}


def _takes(model: Any, name: str) -> bool:
    return name in model.forward.__code__.co_varnames or name in str(
        __import__("inspect").signature(model.forward)
    )


INPUTS: dict[str, Callable[[Any, str, Sizes], dict[str, Any]]] = {
    "text": text,
    "image": image,
}
