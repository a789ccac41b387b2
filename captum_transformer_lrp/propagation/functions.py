"""Autograd functions, whose operators torch does not show: opened by their name.

``torch.autograd.Function.apply`` runs its ``forward`` where no mode sees it. Where the
registry gives a function the rule :class:`Opened`, the engine runs that ``forward`` in
the open, and each operator in it meets its own rule. That is right where ``forward``
is made of differentiable torch operators and ``backward`` only saves memory, and wrong
where ``backward`` is meant to be another gradient (a straight-through estimator): so a
function is opened only if a row says so.

While an engine needs it, ``torch.autograd.Function.apply`` asks first whether the
function is to be opened; other threads, and all else, see no difference.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch.autograd import Function

from .call import Call
from .rules import Rule


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

    inside: ClassVar[Literal["constant", "gradient"]] = "gradient"
    form: ClassVar[Literal["either"]] = "either"
    written: str = ""

    def __call__(self, call: Call) -> Any:
        """Refuse what is no autograd function.

        Raises:
            TypeError: always; functions do not come this way.
        """
        raise TypeError(
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

_lock = threading.Lock()
_users = 0
_own: dict[str, Any] = {}  # what stood in the class itself, if anything


def wanted(rows: Mapping[str, Any]) -> bool:
    """Whether a library with a function to be opened is loaded."""
    return any(
        isinstance(row, Opened) and name.rpartition(".")[0] in sys.modules
        for name, row in rows.items()
    )


def acquire(ask: Callable[[type[Function], Any, Any], Any]) -> None:
    """Let ``Function.apply`` ask ``ask(function, args, kwargs)`` first.

    Args:
        ask (Callable): returns the output, or ``NotImplemented`` for the usual way.
    """
    global _users
    with _lock:
        _users += 1
        if _users > 1:
            return
        usual = next(
            c.__dict__["apply"] for c in Function.__mro__ if "apply" in vars(c)
        )
        _own.update({"apply": usual} if "apply" in vars(Function) else {})

        def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
            found = ask(cls, args, kwargs)
            if found is not NotImplemented:
                return found
            return usual.__get__(None, cls)(*args, **kwargs)

        Function.apply = classmethod(apply)


def release() -> None:
    """Give ``Function.apply`` back after the last engine."""
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            del Function.apply
            for name, usual in _own.items():
                setattr(Function, name, usual)
            _own.clear()
