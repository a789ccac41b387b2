"""Tensors in nested containers: finding them, and replacing them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

#: arguments in which there is no tensor
PLAIN_TYPES = frozenset(
    {int, float, bool, str, type(None), torch.dtype, torch.device, torch.Size}
)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested containers and dataclasses, in order.

    Of a packed sequence they are its data; the rest says how it is packed.
    """
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, PackedSequence):
        yield value.data
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name, None))


def map_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """Apply ``function`` to each tensor in nested containers and dataclasses.

    What contains nothing that changed is returned as it is; named tuples, dictionary
    types (Hugging Face's ``ModelOutput``), dataclasses and packed sequences, of which
    only the data is meant, keep their class.
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, PackedSequence):
        data = function(value.data)
        return value if data is value.data else value._replace(data=data)
    if isinstance(value, (list, tuple)):
        items = [map_tensors(function, item) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return type(value)(items)
    if isinstance(value, dict):
        pairs = {key: map_tensors(function, item) for key, item in value.items()}
        if all(pairs[key] is value[key] for key in pairs):
            return value
        return type(value)(**pairs) if type(value) is not dict else pairs
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: getattr(value, f.name, None) for f in fields(value)}
        parts = map_tensors(function, found)
        if parts is found:
            return value
        value = copy.copy(value)
        for name, part in parts.items():
            object.__setattr__(value, name, part)
    return value
