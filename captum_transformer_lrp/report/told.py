"""Which of some blocks are told in text, by ``str`` or in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import zip_longest
from typing import TypeVar

from .._visible import visible
from .blocks import (
    Bars,
    Block,
    Chart,
    Grid,
    Heading,
    Pages,
    Pairs,
    Paragraph,
    Table,
    Words,
)

_T = TypeVar("_T")

STRONGEST = 10  # cells or pairs, where not all are listed


def one_line(text: str) -> str:
    """Return a name or a number in one line, without what a terminal would obey."""
    return visible(text).translate({10: "↵", 13: "␍", 9: "⇥"})


def is_answer(block: Block) -> bool:
    """Return whether a block is the sentence below a title."""
    return isinstance(block, Paragraph) and block.kind == "answer"


def told(
    blocks: Iterable[Block],
    write: Callable[[Block], Iterable[_T]],
    *,
    words: bool = True,
) -> list[tuple[Block, list[_T]]]:
    """Return the blocks that are told, each with what is written of it.

    Left out are folded tables, unless nothing else has numbers; a chart before a table,
    which lists its values; what is empty; and titles of parts with nothing below.

    Args:
        blocks (iterable of Block): What there is to tell.
        write (Callable): Returns what is written of one block.
        words (bool, optional): Whether words show their scores: where they are listed,
            or have colours. Default: True
    """
    blocks = list(blocks)
    kept = [block for block in blocks if not _is_folded(block)]
    numbers = Grid | Pairs | Chart | Table | Bars | Pages
    if not any(
        isinstance(b, numbers) or (words and isinstance(b, Words)) for b in kept
    ):
        kept = blocks
    found = []
    for number, block in enumerate(kept):
        later = kept[number + 1 :]
        if isinstance(block, Chart) and any(isinstance(b, Table) for b in later):
            continue
        if written := list(write(block)):
            found.append((block, written))
    after = [block for block, _ in found[1:]]
    return [
        part
        for part, below in zip_longest(found, after)
        if not _is_bare(part[0], below)
    ]


def _is_folded(block: Block) -> bool:
    return isinstance(block, Table) and block.folded


def _is_bare(block: Block, below: Block | None) -> bool:
    """Return whether a block is the title of a part, with nothing below it."""
    if not isinstance(block, Heading) or block.level == 1 or block.badge:
        return False
    return below is None or isinstance(below, Heading)
