"""The forms in which inputs come: a tensor, a tuple of tensors, or a mapping.

A mapping is what a tokenizer or a processor returns. It is passed by keyword, and what
is explained in it stands under a known key; the rest is constant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ._copied import copied

#: keys of a mapping that are explained when they are there, the first ones first
KNOWN_KEYS = (
    "input_ids",
    "inputs_embeds",
    "pixel_values",
    "pixel_values_videos",
    "flattened_patches",
    "input_features",
    "input_values",
    "visual_feats",
    "written_ids",  # what a decoder wrote before, of tasks
)

#: those of them that hold a sound, as a waveform or a spectrogram
SOUND_KEYS = ("input_features", "input_values")


def explained_in(inputs: Any) -> tuple[Tensor, ...]:
    """Return the tensors that are explained; of other forms, none."""
    if isinstance(inputs, Mapping):
        given: Any = [inputs.get(key) for key in KNOWN_KEYS]
    else:
        given = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    return tuple(tensor for tensor in given if isinstance(tensor, Tensor))


def examples_in(inputs: Any) -> int:
    """Return how many examples the inputs hold."""
    first = next(iter(explained_in(inputs)), None)
    if first is not None and first.is_nested:
        return int(first.size(0))
    return 1 if first is None or not first.dim() else int(first.shape[0])


def mask_in(inputs: Any) -> Tensor | None:
    """Return the attention mask that came with the inputs, if any."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    return mask if isinstance(mask, Tensor) else None


def map_inputs(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of the inputs, in their form."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, tuple):
        return tuple(map_inputs(x, function) for x in inputs)
    if isinstance(inputs, Mapping):
        return {k: map_inputs(x, function) for k, x in inputs.items()}
    return inputs


def call_with(
    function: Callable[..., Any], inputs: Any, further: tuple[Any, ...] = ()
) -> Any:
    """Call a model as a method calls it: what is not explained is handed on as copies.

    Args:
        function (Callable): the model.
        inputs (Tensor, tuple of Tensor, or Mapping): a mapping is passed by keyword.
        further (tuple, optional): positional arguments behind the inputs. Default: none
    """
    if isinstance(inputs, Mapping):
        rest = {k: v for k, v in inputs.items() if k not in KNOWN_KEYS}
        return function(**{**inputs, **copied(rest)})
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return function(*given, *copied(further))
