"""Arguments that a model may change, handed to it as copies.

A cache that is handed in grows when the model runs, and a tensor may be written into.
What a method passes on is therefore a copy of what it was given: the caller's is left
as it was, and the next call starts from the same state.
"""

from __future__ import annotations

import copy
import types
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn

#: parts of the program, and what cannot be changed
_AS_THEY_ARE = (
    nn.Module,
    str,
    bytes,
    int,
    float,
    complex,
    type,
    type(None),
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.ModuleType,
)
#: id of an original -> its copy, and the original itself, which keeps the id taken
_Copies = dict[int, tuple[Any, Any]]


def copied(value: Any) -> Any:
    """Return a copy of what a model is called with, its tensors constants.

    Containers and objects are copied with all that they hold; what is one object in the
    original, such as a tensor of two layers, is one in the copy. Parameters are
    detached and share their memory: the weights of a model may be handed in, and torch
    lets no model write into them. Modules, functions, and what python cannot copy (a
    lock, a file) are handed on as they are.

    Args:
        value (Any): a tensor, a cache, or any other argument.
    """
    return _copied(value, {})


def _copied(value: Any, copies: _Copies) -> Any:
    if isinstance(value, _AS_THEY_ARE):
        return value
    if id(value) not in copies:
        if isinstance(value, tuple):
            twin = _tuple(value, copies)
        else:
            twin = _twin(value)
        copies[id(value)] = twin, value
        if twin is not value and not isinstance(value, (Tensor, tuple)):
            _copy_parts(twin, copies)
    return copies[id(value)][0]


def _tuple(value: tuple[Any, ...], copies: _Copies) -> tuple[Any, ...]:
    parts = [_copied(part, copies) for part in value]
    if all(new is old for new, old in zip(parts, value, strict=True)):
        return value
    if hasattr(value, "_fields"):
        return type(value)(*parts)
    return type(value)(parts)


def _twin(value: Any) -> Any:
    """Return a copy that still shares its parts with the original."""
    if isinstance(value, nn.Parameter):
        return value.detach()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return value.clone_state()
    try:
        return copy.copy(value)
    except Exception:
        return value


def _copy_parts(twin: Any, copies: _Copies) -> None:
    """Replace the items and attributes of a fresh copy by copies of them."""
    if isinstance(twin, (list, deque)):
        for place, part in enumerate(twin):
            twin[place] = _copied(part, copies)
    elif isinstance(twin, dict):
        for key, part in twin.items():  # beside what a class does when it is set
            dict.__setitem__(twin, key, _copied(part, copies))
    for name, part in _attributes(twin).items():
        own = _copied(part, copies)
        if own is not part:
            object.__setattr__(twin, name, own)


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, in its dictionary or in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found
