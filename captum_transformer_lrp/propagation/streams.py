"""Which tokens ask and which answer in an attention map, read from the graph.

A model may hold several sequences of tokens: text and image, a decoder's queries and
the encoder's outputs. Each is a stream, named after the leaf of the graph that the
residual stream starts from. The first relevant parent of every node leads there: of a
sum the residual, of ``A V`` the map, of ``Q K^T`` the queries.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .passes import Switch


def streams_of(pattern: Tensor) -> tuple[int, int]:
    """Return the streams of a map's queries and keys.

    Args:
        pattern (Tensor): an attention map, in the graph.

    Returns:
        tuple of int: the ids of the leaf tensors that the two streams start from; equal
        for self-attention, and where the map depends on no input. Learned queries that
        depend on no input are a stream of their own.
    """
    node: Any = pattern.grad_fn
    softmax = False
    while True:
        parents = _relevant_parents(node)
        softmax |= type(node).__name__.startswith("SoftmaxBackward")
        if not parents:
            leaf = _leaf(node)
            return leaf, leaf
        if softmax and type(node).__name__.startswith(("Bmm", "Baddbmm")):
            if len(parents) > 1:
                return _start(parents[0]), _start(parents[1])
            if node.next_functions[-1][0] is not None:
                return id(pattern), _start(parents[0])
        node = parents[0]


def depends_on(pattern: Tensor, other: Tensor) -> bool:
    """Whether one map was computed from another."""
    wanted = other.grad_fn
    pending: list[Any] = [pattern.grad_fn]
    seen = set(pending)
    while pending:
        for parent, _ in pending.pop().next_functions:
            if parent is wanted or parent == wanted:
                return True
            if parent is not None and parent not in seen:
                seen.add(parent)
                pending.append(parent)
    return False


def _start(node: Any) -> int:
    while True:
        parents = _relevant_parents(node)
        if not parents:
            return _leaf(node)
        node = parents[0]


def _leaf(node: Any) -> int:
    return id(getattr(node, "variable", node))


def _relevant_parents(node: Any) -> list[Any]:
    """Return the parents that carry relevance; of a switch, the operator alone."""
    parents = [parent for parent, _ in node.next_functions if parent is not None]
    return parents[:1] if Switch.made(node) else parents
