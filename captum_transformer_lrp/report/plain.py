"""Blocks as plain text, without any package: what ``str()`` of a result shows.

What blocks hold may come from anywhere, so no text is returned with control characters
in it: every name and number passes through :func:`.told.one_line`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from .._visible import printed, shortened
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
    cell_of,
)
from .told import STRONGEST, is_answer, one_line, told

_LISTED = 40  # words of a text, where not all are listed
_LONGEST = 60  # characters of a cell in a table


def plain(blocks: Iterable[Block], *, most: int = 24) -> str:
    """Return blocks as short text without any package: what ``str()`` shows.

    The title with its answer, the numbers and the notes; further lines are counted.
    A folded table is left out unless nothing else has numbers.

    Args:
        blocks (iterable of Block): What to write.
        most (int, optional): How many lines to write at most. Default: 24
    """
    blocks = list(blocks)
    if any(map(_lists, blocks)):  # what the words show
        blocks = [block for block in blocks if not isinstance(block, Words)]
    lines: list[str] = []
    before: Block | None = None
    for block, written in told(blocks, _lines):
        if is_answer(block) and isinstance(before, Heading):
            lines[-1] += f" {written.pop(0)}"
        lines += written
        before = block
    for block in blocks:
        if isinstance(block, Paragraph) and block.kind == "note":
            lines += printed(block.text).split("\n")
    if len(lines) > most:
        lines[most - 1 :] = [f"... and {len(lines) - most + 1} more"]
    return "\n".join(lines)


def _lists(block: Block) -> bool:
    """Whether a block lists what counts most, so that words need not."""
    return isinstance(block, Bars) or (isinstance(block, Table) and not block.folded)


def _lines(block: Block) -> list[str]:
    """Return the lines of one block, none for some."""
    match block:
        case Heading():
            return [one_line(block.written)]
        case Paragraph(kind="answer"):
            return printed(block.text).split("\n")
        case Words():
            return _words(block)
        case Grid():
            return _grid(block)
        case Pairs(scale=scale):
            strongest = block.strongest(STRONGEST)
            return _scores((name, scale.write(weight)) for name, weight in strongest)
        case Chart():
            return _table(block.table)
        case Table():
            return _table(block)
        case Bars():  # below their title, where no picture says what they are
            head = [one_line(block.title)] if block.title and not block.repeats else []
            return head + _scores(zip(block.names, block.written, strict=True))
        case Pages(printed=most):
            labels = _scores((w.text, block.scale.write(w.score)) for w in block.labels)
            more = len(labels) - most
            return [*labels[:most], *([f"and {more} more"] if more > 0 else [])]
    return []


def _scores(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return names and their numbers as lines, the numbers first."""
    return [f"{one_line(number):>10}  {one_line(name)}" for name, number in pairs]


def _words(block: Words) -> list[str]:
    words, head = list(block.words), []
    if len(words) > _LISTED:
        head = [f"the {_LISTED} largest of {len(words)} words:"]
        words = sorted(words, key=lambda word: -abs(word.score))[:_LISTED]
    return head + _scores((w.text, block.scale.write(w.score)) for w in words)


def _grid(block: Grid) -> list[str]:
    """Return all numbers where rows have short labels, else the strongest cells."""
    if len(block.panels) == 1 and block.rows.ticks:
        return _table(_turned(block))
    count = f"{block.rows.count}; {block.columns.count}"
    if len(block.panels) > 1:
        count = f"{len(block.panels)} grids of {count}"
    unit = f"; {block.scale.unit}" if block.scale.unit else ""
    cells = block.strongest(STRONGEST)
    scores = _scores((name, block.scale.write(score)) for name, score in cells)
    return [one_line(f"{count}{unit}"), *scores]


def _turned(block: Grid) -> Table:
    """Return a grid as a table, a row for each column, below the means."""
    rows = [*zip(block.columns.labels, block.panels[0].values.T, strict=True)]
    if block.means is not None:
        rows = [("mean", block.means), *rows]
    return Table(
        heads=(block.columns.kind, *block.rows.ticks),
        rows=tuple(
            (label, *(block.scale.brief(float(value)) for value in values))
            for label, values in rows
        ),
    )


def _table(block: Table) -> list[str]:
    """Return aligned columns, texts at their left end and numbers at their right."""
    if not block.rows:
        return []
    rows = [
        [shortened(one_line(cell_of(cell).written), _LONGEST) for cell in row]
        for row in block.rows
    ]
    if any(block.heads):
        rows = [[one_line(head) for head in block.heads], *rows]
    widths = [max(map(_columns, column)) for column in zip(*rows, strict=True)]
    lines = [one_line(block.title)] if block.title else []
    for row in rows:
        cells = []
        for i, (text, width) in enumerate(zip(row, widths, strict=True)):
            space = " " * (width - _columns(text))
            cells.append(text + space if i < block.texts else space + text)
        lines.append("  ".join(cells).rstrip())
    return lines


def _columns(text: str) -> int:
    """Return about how many columns a text takes, without rich."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    marks = sum(unicodedata.category(letter) in ("Mn", "Me") for letter in text)
    return len(text) + wide - marks
