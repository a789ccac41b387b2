"""Autograd functions, whose operators torch does not show: opened by their name.

``torch.autograd.Function.apply`` runs its ``forward`` where no mode sees it. Where the
registry gives a function the rule :class:`Opened`, the engine runs that ``forward`` in
the open, and each operator in it meets its own rule. That is right where ``forward``
is made of differentiable torch operators and ``backward`` only saves memory, and wrong
where ``backward`` is meant to be another gradient (a straight-through estimator): so a
function is opened only if a row says so.

While an engine runs, these functions have an ``apply`` of their own, which asks first
whether the function is to be opened; other threads see no difference.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import Function

from ..core.call import Call
from ..core.installed import WhileUsed, engine_here
from ..core.rules.base import Rule
from ..core.table import RuleTable
from ..errors import RuleError


@dataclass(frozen=True, kw_only=True)
class Opened(Rule):
    """An autograd function is the operators of its ``forward``.

    A row for the qualified name of a :class:`torch.autograd.Function`. Conserves if
    the rules of these operators do.

    Args:
        written (str, optional): the name of another way to write ``forward``
            (:data:`WRITTEN`), for one that torch cannot go back through: it works
            without gradients, or overwrites what they need. Default: ``""``
    """

    written: str = ""

    def __call__(self, call: Call) -> Any:
        """Refuse what is no autograd function.

        Raises:
            RuleError: always; functions do not come this way.
        """
        raise RuleError(
            f"{self!r} was given to {call.operator!r}; expected the qualified name of "
            "a torch.autograd.Function."
        )

    def run(self, function: type[Function], args: Any, kwargs: Any) -> Any:
        """Return what the function returns, its operators in the open."""
        if self.written:
            return WRITTEN[self.written](*args, **kwargs)
        forward: Callable[..., Any] = function.forward
        if function.setup_context != Function.setup_context:
            return forward(*args, **kwargs)
        return forward(_Context(), *args, **kwargs)


class _Context:
    """Takes what a ``forward`` keeps for a backward pass that is not needed."""

    needs_input_grad: tuple[bool, ...] = ()
    saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep nothing."""

    def save_for_forward(self, *tensors: Any) -> None:
        """Keep nothing."""

    def mark_dirty(self, *tensors: Any) -> None:
        """Operators in place are seen as such."""

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """What has no gradient shows none."""

    def set_materialize_grads(self, value: bool) -> None:
        """There is no backward pass."""


def _reversible(
    hidden_states: torch.Tensor,
    layers: Any,
    attention_mask: Any,
    num_hashes: Any,
    *rest: Any,
) -> torch.Tensor:
    """Run reversible layers: ``y1 = x1 + attention(x2)``, ``y2 = x2 + ff(y1)``.

    Kitaev, Kaiser, Levskaya (2020), arXiv 2001.04451, Eq. 8.
    """
    hidden, attended = torch.chunk(hidden_states, 2, dim=-1)
    length = rest[4] if len(rest) > 4 else None
    for layer in layers:
        found = layer.attention(
            hidden_states=hidden,
            head_mask=None,
            attention_mask=attention_mask,
            num_hashes=num_hashes,
            orig_sequence_length=length,
        )
        attended = attended + found.hidden_states
        hidden = hidden + layer.feed_forward(attended)
    return torch.cat([attended, hidden], dim=-1)


def _masked_softmax(x: torch.Tensor, mask: torch.Tensor, dim: int) -> torch.Tensor:
    """Return the softmax where the mask is set, and 0 elsewhere."""
    hidden = ~mask.to(torch.bool)
    lowest = torch.finfo(x.dtype).min
    return x.masked_fill(hidden, lowest).softmax(dim).masked_fill(hidden, 0.0)


WRITTEN: dict[str, Callable[..., torch.Tensor]] = {
    "masked softmax": _masked_softmax,
    "reversible layers": _reversible,
}

#: qualified name -> rule; of libraries that need not be installed
OPENED: dict[str, Opened] = {
    # masked softmax of DeBERTa's descendants, made to save memory
    "transformers.models.sew_d.modeling_sew_d.XSoftmax": Opened(
        written="masked softmax"
    ),
    # attention by the expected collisions of hashes; backward is an estimate
    "transformers.models.yoso.modeling_yoso.YosoCumulation": Opened(),
    # a square root whose derivative is bounded for training
    "transformers.models.recurrent_gemma.modeling_recurrent_gemma"
    ".SqrtBoundDerivative": Opened(),
    # reversible residual layers, computed again on the way back
    "transformers.models.reformer.modeling_reformer._ReversibleFunction": Opened(
        written="reversible layers"
    ),
    # puts sorted vectors back; its backward sorts the gradient
    "transformers.models.reformer.modeling_reformer.ReverseSort": Opened(),
}


class _OwnApply(WhileUsed):
    """An ``apply`` of the functions that are opened, which asks the thread's engine."""

    def __init__(self) -> None:
        super().__init__()
        #: class -> its own ``apply``, None where it has none
        self._usual: dict[type[Function], Any] = {}

    def install(self, engine: Any) -> None:
        """Let ``apply`` of functions that a table opens ask the engine first."""
        for function in to_open(_opened(engine.table)):
            if function not in self._usual:
                self._usual[function] = vars(function).get("apply")
            usual = self._usual[function]
            if vars(function).get("apply") is usual:
                type.__setattr__(function, "apply", _asking(function, usual))

    def remove(self) -> None:
        """Give the functions back what they had."""
        for function, usual in list(self._usual.items()):
            if vars(function).get("apply") is not usual:
                if usual is None:
                    del function.apply
                else:
                    type.__setattr__(function, "apply", usual)
            del self._usual[function]


def _asking(function: type[Function], usual: Any) -> Any:
    """Return an ``apply`` that asks the engine of the thread, then does as usual."""

    def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
        engine = engine_here()
        if engine is not None:
            row = engine.table.modules.get(f"{cls.__module__}.{cls.__qualname__}")
            if isinstance(row, Opened) and engine.sees and not engine.backward:
                return row.run(cls, args, kwargs)
        if usual is not None:
            return usual.__get__(None, cls)(*args, **kwargs)
        base: Any = super(function, cls)  # its class method, on the class at hand
        return base.apply(*args, **kwargs)

    return classmethod(apply)


APPLY = _OwnApply()


@functools.lru_cache(maxsize=64)
def _opened(table: RuleTable) -> list[str]:
    """Return the names of the autograd functions that a table opens."""
    return [name for name, row in table.modules.items() if isinstance(row, Opened)]


def to_open(opened: Iterable[str]) -> list[type[Function]]:
    """Return the autograd functions of these names, of those that are loaded."""
    names = {name for name in opened if _is_loaded(name)}
    if not names:
        return []
    pending, found = list(Function.__subclasses__()), []
    while pending:
        function = pending.pop()
        pending += function.__subclasses__()
        if f"{function.__module__}.{function.__qualname__}" in names:
            found.append(function)
    return found


def _is_loaded(name: str) -> bool:
    """Whether the module of a function may be loaded, by the function's full name."""
    owner = parent = name.rpartition(".")[0]
    while owner and owner not in sys.modules:
        owner = owner.rpartition(".")[0]
    # a package above the module may be there without it
    return owner == parent or (
        bool(owner) and not hasattr(sys.modules[owner], "__path__")
    )
