"""What a run installs for a while, and how it is taken back wherever it is interrupted.

Five things are installed for the whole process, while some engine runs: hooks on all
modules (:data:`MODULES`), eager running of compiled code (:data:`EAGER`), and what is
known of particular functions (:attr:`.Plugins.installed`): an ``apply`` of a few
autograd functions, a question in front of flex attention, and one in front of models'
scans. All of them ask which engine runs on the calling thread, and do nothing on a
thread without one.

Ctrl-C may arrive between any two steps, those of taking back included. So every step
may be repeated, and whether something is installed is looked up where it is, not
counted. :class:`AsBefore` around the whole call repeats what an interrupt has cut off.
"""

from __future__ import annotations

import threading
import traceback
import weakref
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

import torch
from torch.nn.modules import module as modules

from .._torch import (
    DisableTorchFunction,
    after_modules,
    after_modules_options,
    before_modules,
    is_torch_function_enabled,
    mode_stack,
    pop_mode,
    pop_saved_tensor_hooks,
    push_mode,
    saved_tensor_hooks,
    set_grad_enabled,
    set_stance,
    stance,
)

#: ``engine``, the innermost that runs on this thread; ``eager``, what else runs here
#: that has to see into compiled code; ``method``, the outermost that was asked
thread = threading.local()


def engine_here() -> Any:
    """Return the innermost engine that runs on this thread, or None."""
    return getattr(thread, "engine", None)


def leave_mode(mode: Any) -> None:
    """Take a mode off the stack, if it is on top.

    An interrupt within torch's own handling of modes may have left it off; torch would
    then raise an error of its own instead of the interrupt.
    """
    stack = mode_stack()
    if stack and stack[-1] is mode:
        pop_mode()


#: of all that is installed: taken by whoever installs or removes
_LOCK = threading.RLock()


class WhileUsed(ABC):
    """Something that is installed for the process while at least one user needs it.

    Users are known by their identity and held weakly: taking one back twice is fine,
    and one that is gone needs nothing.
    """

    def __init__(self) -> None:
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()

    def acquire(self, user: Any) -> None:
        """Install it, for this user too."""
        with _LOCK:
            self._users.add(user)
            self.install(user)

    def release(self, user: Any) -> None:
        """Take it back, if this was the last user; may be repeated."""
        with _LOCK:
            self._users.discard(user)
            if not len(self._users):
                self.remove()

    @abstractmethod
    def install(self, user: Any) -> None:
        """Install what is not there yet."""

    @abstractmethod
    def remove(self) -> None:
        """Take back all that is there."""


# ------------------------------------------------------------------------- module hooks


def _before_module(module: Any, args: Any) -> Any:
    engine = engine_here()
    return None if engine is None else engine.enter_module(module, args)


def _after_module(module: Any, args: Any, *rest: Any) -> Any:
    # after an exception torch leaves the keyword arguments out, and output is None
    kwargs, output = rest if len(rest) == 2 else ({}, *rest)
    engine = engine_here()
    if engine is None:
        return None
    return engine.leave_module(module, args, kwargs, output)


class _ModuleHooks(WhileUsed):
    """Torch's global module hooks, which lead to the engine of the thread."""

    def install(self, user: Any) -> None:
        """Register both hooks."""
        if _before_module not in before_modules.values():
            modules.register_module_forward_pre_hook(_before_module)
        if _after_module not in after_modules.values():
            modules.register_module_forward_hook(
                _after_module, with_kwargs=True, always_call=True
            )

    def remove(self) -> None:
        """Remove them, known by what they call."""
        hooks: Any
        for hooks, ours in (
            (before_modules, _before_module),
            (after_modules, _after_module),
        ):
            for number in [n for n, hook in list(hooks.items()) if hook is ours]:
                if ours is _after_module:
                    for options in after_modules_options:
                        options.pop(number, None)
                hooks.pop(number, None)


MODULES = _ModuleHooks()

# ------------------------------------------------------------------------ compiled code


class _EagerHere:
    """Torch's stance towards compiled code: eager where an engine runs, else as it was.

    ``torch.compiler.set_stance`` is for all threads at once; this one asks at each call
    of a compiled function on which thread it is.
    """

    def __init__(self, usual: Any) -> None:
        self.usual = usual

    @property
    def stance(self) -> Any:
        """Return the name of the stance, as torch asks for it."""
        if engine_here() is None and getattr(thread, "eager", None) is None:
            return self.usual.stance
        return "force_eager"

    def __getattr__(self, name: str) -> Any:
        if name == "usual":  # not there yet
            raise AttributeError(name)
        return getattr(self.usual, name)


class _Eager(WhileUsed):
    """Compiled code runs as it is written, on the threads that have to see into it."""

    def install(self, user: Any) -> None:
        """Put the stance in place, if anybody has loaded the compiler."""
        usual = stance()
        if usual is not None and not isinstance(usual, _EagerHere):
            set_stance(_EagerHere(usual))

    def remove(self) -> None:
        """Put back what was there."""
        ours = stance()
        if isinstance(ours, _EagerHere):
            set_stance(ours.usual)


EAGER = _Eager()


class Eagerly:
    """A context in which compiled code runs as it is written, on this thread alone."""

    def __enter__(self) -> None:
        self._outer = getattr(thread, "eager", None)
        thread.eager = self
        EAGER.acquire(self)

    def __exit__(self, *exception: Any) -> None:
        EAGER.release(self)
        thread.eager = self._outer


# --------------------------------------------------------------------------- interrupts


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
                    _LOCK.release()
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


__all__ = [
    "EAGER",
    "MODULES",
    "AsBefore",
    "Eagerly",
    "WhileUsed",
    "engine_here",
    "leave_mode",
    "thread",
]
