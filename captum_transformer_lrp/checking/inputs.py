"""Targets, neighbours and padding for whatever inputs a user has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._forms import examples_in, map_inputs, mask_in
from ..errors import OutputError

#: where a Hugging Face output keeps scores that are not called logits
_SCORE_FIELDS = (
    "logits",
    "start_logits",
    "prediction_logits",
    "logits_per_image",
    "prediction_outputs",
)


def field_of(output: Any, field: str | int | None) -> str | int | None:
    """Return the field of an output that holds scores."""
    if field is not None or isinstance(output, Tensor):
        return field
    if isinstance(output, Mapping):
        for name in _SCORE_FIELDS:
            if isinstance(output.get(name), Tensor):
                return name
    if isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        return None if hasattr(output, "_fields") else 0
    return None


def prediction(scores: Tensor, inputs: Any) -> Any:
    """Return the largest score of each example; of a sequence, at its last token."""
    if scores.dim() < 2:
        return None
    if not len(scores) or not scores[0].numel():
        raise OutputError(f"the model's scores have shape {tuple(scores.shape)}.")
    if scores.dim() == 2:
        return [int(i) for i in scores.argmax(-1)]
    if scores.dim() == 3:
        ends = [scores.shape[1] - 1] * len(scores)
        mask = mask_in(inputs)
        if mask is not None and mask.shape == scores.shape[:2]:
            ends = [int(m.nonzero().max()) if m.any() else 0 for m in mask]
        return [
            (end, int(s[end].argmax())) for end, s in zip(ends, scores, strict=True)
        ]
    return [
        tuple(int(i) for i in torch.unravel_index(s.argmax(), s.shape)) for s in scores
    ]


def kind_of_scores(scores: Tensor) -> str | None:
    """Return what to explain instead of probabilities or their logarithms."""
    if scores.dim() < 2 or scores.shape[-1] < 2:
        return None
    values = scores.detach().double()
    nearly = 1e-5 if torch.finfo(scores.dtype).bits > 16 else 1e-2
    if bool((values <= 0).all()):
        if bool(((values.exp().sum(-1) - 1).abs() < nearly).all()):
            return (
                "The model returns log-probabilities, log p = z - logsumexp(z), whose "
                "second part is made of all logits and no sum of shares: relevance of "
                "log-probabilities does not sum to them. Explain the logits z, without "
                "the log-softmax at the end."
            )
    elif bool((values >= 0).all()):
        if bool(((values.sum(-1) - 1).abs() < nearly).all()):
            return (
                "The model returns probabilities, and relevance does not sum to them. "
                "Explain the logits, without the softmax at the end."
            )
    return None


def from_the_start(target: Any, scores: Tensor) -> Any:
    """Return a target whose positions are counted from the start of the text."""
    if isinstance(target, list):
        return [from_the_start(t, scores) for t in target]
    if isinstance(target, tuple) and target and isinstance(target[0], int):
        first = target[0] + scores.shape[1] if target[0] < 0 else target[0]
        return (first, *target[1:])
    return target


def map_examples(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to what has one row for each example."""
    examples = examples_in(inputs)

    def apply(tensor: Tensor) -> Tensor:
        rows = tensor.dim() > 0 and tensor.shape[0] == examples
        return function(tensor) if rows else tensor

    return map_inputs(inputs, apply)


def other_example(example: Tensor) -> Tensor:
    """Return another example of the same shape: masks stay, values change."""
    if bool(((example == 0) | (example == 1)).all()):
        return example
    if example.is_floating_point():
        return -0.5 * example.flip(-1)
    return example.flip(-1)


def with_padding(inputs: Any, model: nn.Module) -> dict[str, Any] | None:
    """Return token ids and their mask with two places of padding on the right."""
    ids = inputs.get("input_ids") if isinstance(inputs, Mapping) else None
    mask = mask_in(inputs)
    if not isinstance(ids, Tensor) or mask is None:
        return None
    if ids.dim() != 2 or mask.shape != ids.shape:
        return None
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    fill = {"input_ids": pad if isinstance(pad, int) and pad >= 0 else 0}

    def longer(name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and value.shape == ids.shape:
            return nn.functional.pad(value, (0, 2), value=fill.get(name, 0))
        return value

    return {k: longer(k, v) for k, v in inputs.items()}
