"""From the attention maps of all layers to one map: plain tensor functions.

One algorithm serves all methods of the family. A method says what each layer
contributes (a matrix of queries x keys), and the layers are then composed.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..observers.positions import Layout, merge

Stream = TypeVar("Stream", bound=Hashable)
Relations = dict[tuple[Stream, Stream], Tensor]


@dataclass(frozen=True)
class Contribution:
    """What one attention operator adds.

    Attributes:
        queries (Hashable): the stream of tokens that ask.
        keys (Hashable): the stream of tokens that answer.
        matrix (Tensor): shape ``(examples, queries, keys)``, not negative; with a
            layout one matrix for each window.
        layout (Layout or None): the tokens of each window, within one stream.
    """

    queries: Hashable
    keys: Hashable
    matrix: Tensor
    layout: Layout | None = None

    def times(self, relation: Tensor, matrix: Tensor) -> Tensor:
        """Return ``matrix @ relation``, window by window where there are any."""
        if self.layout is None:
            return matrix @ relation
        return self.layout.mix(matrix, relation)


@dataclass(frozen=True)
class Merge:
    """Tokens of one stream become fewer tokens of the next.

    Attributes:
        new (Hashable): the stream from here on.
        old (Hashable): the stream that was merged.
        target (Tensor): the new token of each old one, -1 for none; shape ``(examples,
            old tokens)``.
    """

    new: Hashable
    old: Hashable
    target: Tensor


def compose(
    steps: Iterable[Sequence[Contribution | Merge]],
    *,
    normalize_rows: bool = False,
    normalize_relations: bool = True,
    accumulate: bool = True,
    like: Tensor | None = None,
) -> Relations[Hashable]:
    """Return how much each token of each stream draws on each token of each other.

    Within a stream ``s`` a layer ``A`` multiplies: ``R_st <- R_st + A R_st`` for all
    ``t``, from ``R_ss = I`` and ``R_st = 0``; this is attention rollout (Abnar and
    Zuidema 2020), transformer attribution (Chefer et al., CVPR 2021, Eq. 14) and rules
    5 and 6 of generic attention (Chefer et al., ICCV 2021). Between streams (queries of
    ``s``, keys of ``q``) rules 10 and 11: ``R_sq <- R_sq + N(R_ss)^T A N(R_qq)`` and
    ``R_ss <- R_ss + A R_qs``, with ``N(R) = (R - I) / rowsum + I`` (Eq. 8 and 9).

    Args:
        steps (iterable of sequences of Contribution or Merge): in order of execution;
            the contributions of one step are computed from the same relations, as the
            two directions of co-attention are. A new token draws on what its old ones
            draw on, on average.
        normalize_rows (bool, optional): divide the rows of ``I + A`` by their sums,
            within a stream. Default: False
        normalize_relations (bool, optional): apply ``N`` between streams, unless rows
            are normalised already. Default: True
        accumulate (bool, optional): multiply ``A`` with the relations of both streams
            between streams; if False, ``R_sq <- R_sq + A``. Default: True
        like (Tensor, optional): of the dtype and device wanted. Default: the first
            contribution

    Returns:
        dict: ``(s, q)`` to a tensor of shape ``(examples, tokens of s, tokens of q)``.
    """
    relations: Relations[Hashable] = {}
    steps = list(steps)
    matrices = [c.matrix for step in steps for c in step if isinstance(c, Contribution)]
    like = matrices[0] if like is None else like
    for step in steps:
        for c in step:
            if isinstance(c, Merge):
                _start(relations, c.old, like, c.target.shape)
            elif c.layout is not None:
                _start(
                    relations, c.keys, c.matrix, (c.layout.examples, c.layout.tokens)
                )
            else:
                examples, queries, keys = c.matrix.shape
                _start(relations, c.queries, c.matrix, (examples, queries))
                _start(relations, c.keys, c.matrix, (examples, keys))
        old = dict(relations)
        for c in step:
            if isinstance(c, Merge):
                for (row, column), relation in old.items():
                    if row == c.old:
                        relations[c.new, column] = merge(relation, c.target)
                _start(relations, c.new, like, relations[c.new, c.old].shape[:2])
                continue
            s, q, a = c.queries, c.keys, c.matrix
            if s == q:
                if normalize_rows:
                    a = a + _identity(a)
                    a = a / a.sum(-1, keepdim=True)
                for (row, column), relation in old.items():
                    if row == s:
                        moved = c.times(relation, a)
                        _add(
                            relations,
                            (s, column),
                            moved - relation if normalize_rows else moved,
                        )
                continue
            for (row, column), relation in old.items():
                if row == q and column != q:
                    _add(relations, (s, column), a @ relation)
            if accumulate:
                first, last = old[s, s], old[q, q]
                if normalize_relations and not normalize_rows:
                    first, last = _normalized(first), _normalized(last)
                a = first.transpose(-2, -1) @ (a @ last)
            _add(relations, (s, q), a)
    return relations


def _start(
    relations: Relations[Hashable],
    stream: Hashable,
    like: Tensor,
    shape: Sequence[int],
) -> None:
    """Let a stream of ``(examples, tokens)`` begin, each token with itself."""
    examples, tokens = shape
    known = relations.get((stream, stream))
    if known is None:
        identity = torch.eye(tokens, dtype=like.dtype, device=like.device)
        relations[stream, stream] = identity.expand(examples, -1, -1)
    elif known.shape[-1] != tokens:
        raise ValueError(
            f"one stream has {known.shape[-1]} tokens in one layer and {tokens} in "
            "another; expected as many in all layers."
        )


def _add(
    relations: Relations[Hashable], key: tuple[Hashable, Hashable], value: Tensor
) -> None:
    relations[key] = relations[key] + value if key in relations else value


def _identity(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _normalized(relation: Tensor) -> Tensor:
    """Return ``(R - I) / rowsum + I`` (ICCV 2021, Eq. 8 and 9); empty rows stay 0."""
    identity = _identity(relation)
    own = relation - identity
    sums = own.sum(-1, keepdim=True)
    return torch.where(sums == 0, 0, own / sums) + identity
