"""Compiled code runs as it is written, where an engine has to see into it."""

from __future__ import annotations

from typing import Any

from .._torch import set_stance, stance
from ..core.installed import WhileUsed, engine_here, thread


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


__all__ = ["EAGER", "Eagerly"]
