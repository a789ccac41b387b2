"""Many scores of one graph, taken back each by itself or in sums, several at a time.

A language model's scores share all their work up to the logits. What comes after the
input of the head (the head, a soft cap, a log-softmax) treats every position by itself,
so that one pass takes all scores back to there: the row of each position belongs to the
score that is read at it. From there every score goes back alone, or a weighted sum of
them as one, ``chunk_size`` of them stacked in a batch, which costs one set of larger
matrix products instead of many small ones, and bounds the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from .._torch import function_class
from ..core.engine import Engine
from ..core.gradients import RatioGradient
from ..errors import ModelStateError


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores to explain, and where they were read.

    Attributes:
        values (Tensor): in the graph, shape ``(examples, scores)``.
        logits (Tensor): in the graph, shape ``(examples, positions, vocabulary)``.
        positions (Tensor): the position that each score is read at, shape
            ``(examples, scores)``; different ones within an example.
        valid (Tensor): False where an example has fewer scores, of that shape.
    """

    values: Tensor
    logits: Tensor
    positions: Tensor
    valid: Tensor


class WayBack:
    """The way back from the scores of a graph, as often as asked for.

    Args:
        engine (Engine): that ran the model, still entered.
        scores (Scores): what is explained.
        tensors (sequence of Tensor): in the graph.
        chunk_size (int): how many go back at once; 1 makes a plain pass for each.
    """

    def __init__(
        self,
        engine: Engine,
        scores: Scores,
        tensors: Sequence[Tensor],
        *,
        chunk_size: int,
    ) -> None:
        self.engine, self.scores, self.tensors = engine, scores, tensors
        start = _in_front_of_the_head(engine, scores)
        self.start = start or _at_the_scores(engine, scores)
        alone = engine.recomputes or engine.composite.carries == "relevance"
        self.chunk_size = 1 if alone else chunk_size

    def each(self) -> Iterator[tuple[Tensor, ...]]:
        """Yield the modified gradients of every score, a chunk of scores at a time.

        The k-th scores of all examples go back together, since examples do not mix.
        Nothing can go back afterwards. As for :meth:`sums`.
        """
        examples, count = self.scores.values.shape
        alone = torch.eye(count, device=self.scores.values.device)
        yield from self.sums(alone[:, None].expand(count, examples, count))

    def sums(
        self, weights: Tensor, *, last: bool = True
    ) -> Iterator[tuple[Tensor, ...]]:
        """Yield the modified gradients of weighted sums of the scores, some at a time.

        Args:
            weights (Tensor): of each score in each sum, ``(sums, examples, scores)``.
            last (bool, optional): nothing goes back afterwards. Default: True

        Yields:
            tuple of Tensor: for each tensor the gradients, shape ``(chunk, *tensor)``;
            zeros where it is not connected.

        Raises:
            ModelStateError: if an operator of the model cannot go back in a batch.
        """
        for first in range(0, len(weights), self.chunk_size):
            chunk = weights[first : first + self.chunk_size]
            found = _go_back(
                self.engine,
                self.start,
                self.start.seeds(chunk),
                self.tensors,
                last=last and first + self.chunk_size >= len(weights),
            )
            yield tuple(
                tensor.detach().new_zeros(len(chunk), *tensor.shape)
                if gradient is None
                else gradient
                for gradient, tensor in zip(found, self.tensors, strict=True)
            )


@dataclass(frozen=True, kw_only=True)
class _Start:
    """Where each score starts to go back alone.

    Attributes:
        place (Tensor or GradientEdge): in the graph.
        rows (Tensor): the gradient of all scores there, ``(examples, rows, ...)``.
        index (Tensor): the row of each score, ``(examples, scores)``.
        valid (Tensor): of that shape.
        shape (torch.Size): of the place.
    """

    place: Tensor | GradientEdge
    rows: Tensor
    index: Tensor
    valid: Tensor
    shape: torch.Size

    def seeds(self, weights: Tensor) -> Tensor:
        """Return the seeds of weighted sums of scores, shape ``(sums, *place)``.

        Args:
            weights (Tensor): ``(sums, examples, scores)``.
        """
        weights = torch.where(self.valid, weights, 0).to(self.rows.dtype)
        of_rows = self.rows.new_zeros(len(weights), *self.rows.shape[:2])
        of_rows.scatter_add_(2, self.index.expand(weights.shape), weights)
        seeds = self.rows * of_rows.reshape(
            *of_rows.shape, *[1] * (self.rows.dim() - 2)
        )
        return seeds.reshape(len(weights), *self.shape)


def _at_the_scores(engine: Engine, scores: Scores) -> _Start:
    count = scores.values.shape[1]
    each = torch.arange(count, device=scores.values.device)
    return _Start(
        place=scores.values,
        rows=engine.seed(scores.values),
        index=each.expand(scores.values.shape),
        valid=scores.valid,
        shape=scores.values.shape,
    )


def _in_front_of_the_head(engine: Engine, scores: Scores) -> _Start | None:
    """Take all scores back to the input of the head at once, where that is exact."""
    head = None if engine.recomputes else _head(scores.logits)
    if head is None:
        return None
    node, operand = head
    parent, number = node.next_functions[operand]
    place = GradientEdge(parent, number)
    found: list[Tensor] = []
    # what leaves the head, before any hook on its input, which the way on will meet
    handle = node.register_hook(lambda passed, _: found.append(passed[operand]))
    try:
        engine.gradients(scores.values, [place], keep_graph=True)
    finally:
        handle.remove()
    (gradient,) = found
    examples, positions = scores.logits.shape[:2]
    if gradient.shape[:-1].numel() != examples * positions:
        return None
    rows = gradient.reshape(examples, positions, -1)
    read = torch.zeros(examples, positions, dtype=torch.bool, device=rows.device)
    for example in range(examples):
        read[example, scores.positions[example][scores.valid[example]]] = True
    if bool(rows[~read].any()):  # the positions are mixed behind this product
        return None
    return _Start(
        place=place,
        rows=rows,
        index=scores.positions,
        valid=scores.valid,
        shape=gradient.shape,
    )


#: operators behind the head that keep every position to itself
_LOCAL = tuple(
    f"{name}Backward"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Slice", "Clone", "Alias", "ToCopy"),
        *("Mul", "Div", "Add", "Sub", "Neg", "Tanh"),
    )
)
#: the head: in which place its matrix product takes the hidden states
_HEADS = {"MmBackward": 0, "AddmmBackward": 1, "LinearBackward": 0}


def _head(logits: Tensor) -> tuple[Any, int] | None:
    """Return the last matrix product with constant weights, and its operand's place."""
    node: Any = logits.grad_fn
    while node is not None:
        name = type(node).__name__.rstrip("0123456789")
        relevant = [i for i, (n, _) in enumerate(node.next_functions) if n is not None]
        if len(relevant) != 1:
            return None
        if name in _HEADS:
            return (node, relevant[0]) if relevant[0] == _HEADS[name] else None
        if name not in _LOCAL and function_class(node) is not RatioGradient:
            return None
        node = node.next_functions[relevant[0]][0]
    return None


def _go_back(
    engine: Engine,
    start: _Start,
    seeds: Tensor,
    tensors: Sequence[Tensor],
    *,
    last: bool,
) -> Sequence[Tensor | None]:
    if len(seeds) == 1:
        found = engine.gradients(
            start.place, tensors, seeds=seeds[0], keep_graph=not last
        )
        return [None if g is None else g[None] for g in found]
    try:
        return engine.gradients(
            start.place, tensors, seeds=seeds, batched=True, keep_graph=not last
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ModelStateError(
            f"going back for {len(seeds)} tokens at once failed in an operator of this "
            f"model: {error}. Pass chunk_size=1, which goes back for one at a time."
        ) from error
