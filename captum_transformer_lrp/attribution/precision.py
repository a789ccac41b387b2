"""Runs a model in higher precision than its parameters have, without converting it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._nested import map_tensors
from ..core.installed import leave_mode
from ..core.operators import is_in_place, operator_name

#: ask for a dtype: what they would lower stays as it is
_CASTS = frozenset({"float", "half", "bfloat16", "type_as"})


class Raised(TorchFunctionMode):
    """Every operator computes in ``dtype`` where its arguments have fewer bits.

    Parameters are cast where an operator reads them, and freed again. What the model
    itself casts down (``x.float()``, ``x.to(w.dtype)``) stays in ``dtype``.

    Args:
        dtype (torch.dtype): a floating dtype, such as ``torch.float64``.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __exit__(self, *exception: Any) -> None:
        """Leave the stack of modes."""
        leave_mode(self)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        kwargs = kwargs or {}
        name = operator_name(func)
        if name.startswith(("attribute", "is_", "__")) or not args:
            return func(*args, **kwargs)
        if name in _CASTS and isinstance(args[0], Tensor):
            if self._is_lower(args[0]) or args[0].dtype == self.dtype:
                return self._raise(args[0])
        if name in ("to", "type") and isinstance(args[0], Tensor):
            args = tuple(self._raised_dtype(a) for a in args)
            kwargs = {k: self._raised_dtype(a) for k, a in kwargs.items()}
        if name == "softmax" and kwargs.get("dtype") is not None:
            kwargs = {**kwargs, "dtype": self.dtype}
        if is_in_place(name):  # the target stays what it is
            return func(
                args[0],
                *map_tensors(self._raise, args[1:]),
                **map_tensors(self._raise, kwargs),
            )
        return func(*map_tensors(self._raise, args), **map_tensors(self._raise, kwargs))

    def _is_lower(self, tensor: Tensor) -> bool:
        return (
            tensor.is_floating_point()
            and torch.finfo(tensor.dtype).bits < torch.finfo(self.dtype).bits
        )

    def _raise(self, tensor: Tensor) -> Tensor:
        if not self._is_lower(tensor):
            return tensor
        # a parameter is a constant here: its cast must not look like an input
        return (tensor.detach() if tensor.is_leaf else tensor).to(self.dtype)

    def _raised_dtype(self, value: Any) -> Any:
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return torch.promote_types(value, self.dtype)
        return value
