"""What holds for every method: the thread as it was, and relevance that is finite."""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._torch import DisableTorchFunction
from ..core.installed import thread
from ..errors import NotFiniteWarning
from .arguments import Taken
from .as_before import AsBefore

Method = TypeVar("Method", bound=Callable[..., Any])


def explains(method: Method) -> Method:
    """Decorate what explains, such as ``attribute``.

    Whatever a run installs is taken back (:class:`.AsBefore`), and relevance that is
    not finite is not returned without a word, a :class:`.NotFiniteWarning`: one, where
    a method asks another. Arguments that it does not take are answered with what to
    write instead (:mod:`.arguments`).
    """
    taken = Taken(method)

    @functools.wraps(method)
    def explained(self: Any, *args: Any, **kwargs: Any) -> Any:
        taken.check(self, args, kwargs)
        outer = getattr(thread, "method", None)
        with AsBefore():
            try:
                thread.method = outer or self
                found = method(self, *args, **kwargs)
            finally:
                thread.method = outer
            if outer is None:
                _warn_if_not_finite(self, found)
            return found

    return explained  # type: ignore[return-value]


def _warn_if_not_finite(method: Any, found: Any) -> None:
    wrong = total = 0
    with DisableTorchFunction():
        for tensor in _tensors_in(found):
            total += tensor.numel()
            tensor = tensor.detach()
            if not tensor.is_complex() and math.isfinite(tensor.sum()):
                continue  # quick, and may overflow
            finite = torch.isfinite(tensor)
            if not bool(finite.all()):
                wrong += int((~finite).sum())
    if wrong:
        warnings.warn(
            f"{type(method).__name__}: {wrong} of {total} values are not finite. An "
            "operator of the model has no finite gradient here (sqrt or log at 0 and "
            "below, even where torch.where drops it afterwards), or numbers are too "
            "large for the model's precision. Look at the `received` and `passed` of "
            "`trace(...)`, if the method has it, to find where it starts; compute in "
            "torch.float64; or keep such values away from the operator (x.clamp(min="
            "...) before it).",
            NotFiniteWarning,
            stacklevel=4,
        )


def _tensors_in(found: Any) -> Iterator[Tensor]:
    """Yield the floating tensors of what a method returned, whatever its form."""
    if isinstance(found, Tensor):
        if found.is_floating_point() or found.is_complex():
            yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _tensors_in(value)
    elif isinstance(found, (list, tuple)):
        for value in found:
            yield from _tensors_in(value)
    elif dataclasses.is_dataclass(found) and not isinstance(found, type):
        for field in dataclasses.fields(found):
            yield from _tensors_in(getattr(found, field.name))


__all__ = ["explains"]
