"""From a model to one embedding per example: what is called, and how it is pooled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError, OutputError, UnknownNameError, suggestion

Pooling = Literal["mean", "cls", "last"] | Callable[[Any, Tensor | None], Tensor]

_POOLINGS = ("mean", "cls", "last")
#: what models of two towers call them
_TEXT, _IMAGE = "get_text_features", "get_image_features"
#: the fields of an output that hold one embedding for each example
_EMBEDDINGS = ("sentence_embedding", "text_embeds", "image_embeds", "embeddings")
#: how the parameter of a model is called that takes the mapping of a tokenizer whole
_FEATURES = ("features", "input", "inputs")


def checked_pooling(pooling: Pooling | None) -> Pooling | None:
    """Return a pooling.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if pooling is None or callable(pooling) or pooling in _POOLINGS:
        return pooling
    raise UnknownNameError(
        f"pooling={pooling!r}; expected one of {', '.join(map(repr, _POOLINGS))}, or a "
        "function of what the model returns and of its attention mask."
        f"{suggestion(str(pooling), _POOLINGS)}"
    )


class Embedding:
    """A model as a function that returns one embedding for each example.

    Args:
        model (Callable): see :class:`~.pair_lrp.PairLRP`.
        pooling (str or Callable, optional): what makes one embedding of the states of
            all tokens. Default: None, the model returns embeddings
        inputs (Any): what it will be called with, which says which tower is meant.

    Attributes:
        root (Module or None): whose names modules have.

    Raises:
        InputError: if the inputs do not say which tower is meant.
    """

    def __init__(
        self, model: Callable[..., Any], pooling: Pooling | None, inputs: Any
    ) -> None:
        self.root = model if isinstance(model, nn.Module) else None
        self.pooling = pooling
        self.call: Callable[..., Any] = model
        self.tower = hasattr(model, _TEXT) and hasattr(model, _IMAGE)
        if self.tower:
            self.call = getattr(model, _tower_of(model, inputs))
        elif isinstance(inputs, Mapping) and _takes_features(model, inputs):
            self.call = lambda **features: model(features)

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the embeddings, shape ``(examples, dimensions)``.

        Raises:
            OutputError: if what the model returns is no such tensor.
        """
        output = self.call(*args, **kwargs)
        mask = kwargs.get("attention_mask")
        found = self._of(output, mask if isinstance(mask, Tensor) else None)
        if not isinstance(found, Tensor) or found.dim() != 2:
            got = (
                f"a tensor of shape {tuple(found.shape)}"
                if isinstance(found, Tensor)
                else type(found).__name__
            )
            raise OutputError(
                f"the embedding is {got}; expected (examples, dimensions)."
            )
        if not found.is_floating_point():
            raise OutputError(
                f"the embedding is of dtype {found.dtype}; expected floating point."
            )
        return found

    def _of(self, output: Any, mask: Tensor | None) -> Any:
        if callable(self.pooling):
            return self.pooling(output, mask)
        states = output
        if not isinstance(output, Tensor):
            fields = dict(output.items()) if isinstance(output, Mapping) else {}
            embedded = [k for k in _EMBEDDINGS if isinstance(fields.get(k), Tensor)]
            if self.tower and isinstance(fields.get("pooler_output"), Tensor):
                embedded = ["pooler_output"]
            if embedded and self.pooling is None:
                return fields[embedded[0]]
            states = fields.get("last_hidden_state")
            if not isinstance(states, Tensor):
                names = [k for k, v in fields.items() if isinstance(v, Tensor)]
                raise OutputError(
                    f"the model returned {type(output).__name__} with the tensors "
                    f"{names}; expected an embedding, or 'last_hidden_state' to pool. "
                    "Say what the embedding is: pooling=lambda output, mask: ..."
                )
        if states.dim() == 2 and self.pooling is None:
            return states
        if states.dim() != 3:
            raise OutputError(
                f"the model returned a tensor of shape {tuple(states.shape)} and "
                f"pooling={self.pooling!r} was given; expected the states of tokens, "
                "(examples, tokens, dimensions), to pool, or embeddings, (examples, "
                "dimensions), and no pooling."
            )
        if self.pooling is None:
            raise OutputError(
                f"the model returned the states of tokens, shape "
                f"{tuple(states.shape)}, no embedding. Say what the embedding is: "
                "pooling='mean', 'cls' or 'last', as the model was trained, or a "
                "function of its output and attention mask."
            )
        return pooled(states, mask, self.pooling)


def pooled(states: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Return one embedding for each example, ``(examples, dimensions)``.

    Args:
        states (Tensor): of the tokens, ``(examples, tokens, dimensions)``.
        mask (Tensor or None): 1 for tokens and 0 for padding, ``(examples, tokens)``.
        pooling (str): ``"mean"`` over the tokens, ``"cls"``, the first token, or
            ``"last"``, the last one.
    """
    if mask is None or mask.shape != states.shape[:2]:
        if pooling == "mean":
            return states.mean(1)
        return states[:, 0 if pooling == "cls" else -1]
    rows = torch.arange(len(states), device=states.device)
    if pooling == "mean":
        weights = mask.to(states.dtype)[:, :, None]
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device)
    if pooling == "cls":
        return states[rows, (mask != 0).long().argmax(1)]
    return states[rows, (places * (mask != 0)).argmax(1)]


def _tower_of(model: Any, inputs: Any) -> str:
    """Return the method of the tower that the inputs are for."""
    if isinstance(inputs, Mapping):
        texts = isinstance(inputs.get("input_ids"), Tensor)
        images = isinstance(inputs.get("pixel_values"), Tensor)
    else:
        first = inputs[0] if isinstance(inputs, tuple) and inputs else inputs
        known = isinstance(first, Tensor)
        images = known and first.is_floating_point()
        texts = known and not images
    if texts == images:
        raise InputError(
            f"{type(model).__name__} has a tower for texts and one for pictures, and "
            f"one side of the pair has {'both' if texts else 'neither'}; expected "
            "'input_ids' or 'pixel_values' on each side: attribute({'input_ids': ...}, "
            "{'pixel_values': ...})."
        )
    return _TEXT if texts else _IMAGE


def _takes_features(model: Any, inputs: Mapping[str, Any]) -> bool:
    """Whether a model takes a mapping as its first argument, not by keyword.

    As those of the library Sentence Transformers do: ``forward(features)``.
    """
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    return (
        bool(parameters)
        and parameters[0].name in _FEATURES
        and parameters[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and not any(parameter.name in inputs for parameter in parameters)
    )


__all__ = ["Embedding", "Pooling", "checked_pooling", "pooled"]
