"""What a run installs for a while, and how it is taken back wherever it is interrupted.

Five things are installed for the whole process, while some engine runs: hooks on all
modules (:data:`MODULES`), and what plugs itself in (:attr:`.Plugins.installed`): eager
running of compiled code, an ``apply`` of a few autograd functions, a question in front
of flex attention, and one in front of models' scans. All of them ask which engine runs
on the calling thread, and do nothing on a thread without one.

Ctrl-C may arrive between any two steps, those of taking back included. So every step
may be repeated, and whether something is installed is looked up where it is, not
counted. :mod:`..attribution.as_before` around the whole call repeats what an interrupt
has cut off.
"""

from __future__ import annotations

import threading
import weakref
from abc import ABC, abstractmethod
from typing import Any

from torch.nn.modules import module as modules

from .._torch import (
    after_modules,
    after_modules_options,
    before_modules,
    mode_stack,
    pop_mode,
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
LOCK = threading.RLock()


class WhileUsed(ABC):
    """Something that is installed for the process while at least one user needs it.

    Users are known by their identity and held weakly: taking one back twice is fine,
    and one that is gone needs nothing.
    """

    def __init__(self) -> None:
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()

    def acquire(self, user: Any) -> None:
        """Install it, for this user too."""
        with LOCK:
            self._users.add(user)
            self.install(user)

    def release(self, user: Any) -> None:
        """Take it back, if this was the last user; may be repeated."""
        with LOCK:
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
