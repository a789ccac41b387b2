"""Where a model itself cuts off relevance: detached, without gradient, as integers.

No rule decides there, and nothing fails: what is behind such a place counts as a
constant, whose share of the score is absorbed. A branch that is frozen that way would
vanish without a word, so a trace lists these places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .._nested import tensors_in

_DETACHED = frozenset("detach data".split())
_COPIED = frozenset("tensor new_tensor".split())

#: return a number of Python's, which the model may compute with, or decide by
_READ = frozenset(
    """item tolist numpy equal allclose is_nonzero __bool__ __int__ __float__ __index__
    __complex__ __contains__ __array__""".split()
)


@dataclass(frozen=True)
class Cut:
    """A place at which a tensor that carried relevance went on without it.

    Attributes:
        module (str): name of the module whose code ran.
        operator (str): what was called, such as ``"detach"`` or ``"item"``.
        how (str): ``"detached"``, ``"under torch.no_grad"``, ``"turned into integers"``
            (comparisons and masks too), ``"read as a number"``, or ``"without a
            gradient in torch"``.
        calls (int): how often.
    """

    module: str
    operator: str
    how: str
    calls: int = 1

    def __str__(self) -> str:
        """Print the place in one line."""
        times = f", {self.calls} times" if self.calls > 1 else ""
        return (
            f"{self.module or '(the model itself)'}: {self.operator}, {self.how}{times}"
        )


def cut_by(name: str, output: Any, *, plain: bool) -> str | None:
    """Return how a call cut relevance off that it received, None if it did not.

    Args:
        name (str): of the operator; at least one argument carries relevance.
        output (Any): what it returned.
        plain (bool): no rule took the relevance: it has none, or torch's gradient.
    """
    if name in _DETACHED:  # in place, what is overwritten still requires a gradient
        return "detached"
    tensors = list(tensors_in(output))
    if any(t.requires_grad for t in tensors):
        return None
    if name in _READ:
        return "read as a number"
    shape_only = name.endswith("_like") or name.startswith("new_")
    if not tensors or (shape_only and name not in _COPIED):
        return None
    if not any(t.is_floating_point() or t.is_complex() for t in tensors):
        return "turned into integers"
    if not torch.is_grad_enabled():
        return "under torch.no_grad"
    if name in _COPIED:
        return "detached"
    return "without a gradient in torch" if plain else None
