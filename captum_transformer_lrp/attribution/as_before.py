"""A thread is left as it was, whatever was interrupted on the way."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import Any

import torch

from .._torch import (
    DisableTorchFunction,
    is_torch_function_enabled,
    mode_stack,
    pop_mode,
    pop_saved_tensor_hooks,
    push_mode,
    saved_tensor_hooks,
    set_grad_enabled,
)
from ..core.installed import LOCK, engine_here, thread


class AsBefore:
    """Leaves this thread as it was, whatever was interrupted on the way.

    What runs inside takes back its own. This does it once more, and does nothing where
    there is nothing left: an interrupt that cuts off the one meets the other whole.
    """

    def __enter__(self) -> None:
        self._engine = engine_here()
        self._eager = getattr(thread, "eager", None)
        self._method = getattr(thread, "method", None)
        self._gradients = torch.is_grad_enabled()
        self._modes = mode_stack()
        self._hooks = saved_tensor_hooks(True)
        self._functions = is_torch_function_enabled()

    def __exit__(self, *exception: Any) -> None:
        kind, _, frames = (*exception, None, None, None)[:3]
        if kind is not None and not issubclass(kind, Exception):
            # a generator of torch's own that was cut off puts its mode back when it is
            # freed: now rather than later
            traceback.clear_frames(frames)
            with suppress(RuntimeError):  # not, or no longer, this thread's
                while True:  # taken, and cut off before the block that gives it back
                    LOCK.release()
        while (engine := engine_here()) is not None and engine is not self._engine:
            engine.leave()
        while (eager := getattr(thread, "eager", None)) not in (None, self._eager):
            eager.__exit__()
        while (hooks := saved_tensor_hooks(True)) and hooks != self._hooks:
            pop_saved_tensor_hooks()
        modes = mode_stack()
        if [id(m) for m in modes] != [id(m) for m in self._modes]:
            for _ in modes:
                pop_mode()
            for mode in self._modes:
                push_mode(mode)
        if self._functions:
            # left without having been entered, it goes back to how torch starts
            DisableTorchFunction().__exit__(None, None, None)
        set_grad_enabled(self._gradients)
        thread.method = self._method


__all__ = ["AsBefore"]
