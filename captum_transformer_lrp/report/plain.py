"""Blocks as plain text, without any package: what ``str()`` of a result shows.

What blocks hold may come from anywhere, so no text is returned with control characters
in it: see :func:`one_line`, which every name and number passes through.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from .._visible import printed, shortened, visible
from .blocks import (
    Bars,
    Block,
    Cell,
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
    notes = [b for b in blocks if isinstance(b, Paragraph) and b.kind == "note"]
    kept = unfolded(blocks)
    parts = headed([(b, _plain(b, kept[i + 1 :])) for i, b in enumerate(kept)])
    lines: list[str] = []
    for number, (block, written) in enumerate(parts):
        if number and is_answer(block) and isinstance(parts[number - 1][0], Heading):
            lines[-1] += f" {written[0]}"
            written = written[1:]
        lines += written
    for note in notes:
        lines += printed(note.text).split("\n")
    if len(lines) > most:
        lines[most - 1 :] = [f"... and {len(lines) - most + 1} more"]
    return "\n".join(lines)


# ------------------------------------------------------- what terminals do alike


def one_line(text: str) -> str:
    """Return a name or a number in one line, without what a terminal would obey."""
    return visible(text).translate({10: "↵", 13: "␍", 9: "⇥"})


def follows(later: Iterable[Block], kind: type) -> bool:
    """Return whether a block of a kind comes later, and is not folded away."""
    return any(isinstance(b, kind) and not is_folded(b) for b in later)


def is_folded(block: Block) -> bool:
    """Return whether a block holds all numbers, folded away on a page."""
    return isinstance(block, Table) and block.folded


def is_answer(block: Block) -> bool:
    """Return whether a block is the sentence below a title."""
    return isinstance(block, Paragraph) and block.kind == "answer"


def headed(
    parts: Iterable[tuple[Block, list[_T]]],
) -> list[tuple[Block, list[_T]]]:
    """Leave out what is empty, and titles of parts with nothing left below them."""
    found = [part for part in parts if part[1]]
    below = [block for block, _ in found[1:]]
    return [
        part
        for part, after in zip_longest(found, below)
        if not _is_bare(part[0], after)
    ]


def title_of(block: Heading) -> str:
    """Return a title with its badge."""
    return f"{block.text} [{block.badge}]" if block.badge else block.text


def strongest_pairs(block: Pairs) -> list[tuple[str, float]]:
    """Return names and weights of the strongest lines."""
    lines = sorted(block.lines, key=lambda line: -abs(line[2]))[:STRONGEST]
    left, right = block.left.labels, block.right.labels
    return [
        (f"“{left[a]}” to “{right[b]}”", s * block.scale.limit) for a, b, s in lines
    ]


def table_of(chart: Chart) -> Table:
    """Return the values of a chart as a table, a row for each step."""
    return Table(
        title=chart.label,
        heads=(chart.steps.kind, *chart.names),
        rows=tuple(
            (label, *(f"{value:.3f}" for value in column))
            for label, column in zip(chart.steps.labels, chart.values.T, strict=True)
        ),
    )


def cell_text(cell: str | Cell) -> str:
    """Return a cell of a table in one line, a smaller number in brackets."""
    if isinstance(cell, str):
        return one_line(cell)
    return one_line(f"{cell.text} ({cell.small})" if cell.small else cell.text)


def names_of(block: Bars) -> list[str]:
    """Return the names of bars with the marks behind them."""
    marks = block.marks or ("",) * len(block.rows)
    return [
        one_line(f"{name} {mark}" if mark else name)
        for (name, _), mark in zip(block.rows, marks, strict=True)
    ]


def unfolded(blocks: Iterable[Block], *, words: bool = True) -> list[Block]:
    """Leave out folded tables, unless nothing else has numbers.

    Args:
        blocks (iterable of Block): From which they are left out.
        words (bool, optional): Whether words show their scores: where they are listed,
            or have colours. Default: True
    """
    blocks = list(blocks)
    kept = [block for block in blocks if not is_folded(block)]
    numbers = Grid | Pairs | Chart | Table | Bars | Pages
    told = any(isinstance(b, numbers) or (words and isinstance(b, Words)) for b in kept)
    return kept if told else blocks


# ------------------------------------------------------------------------- by block


def _is_bare(block: Block, after: Block | None) -> bool:
    if not isinstance(block, Heading) or block.level == 1 or block.badge:
        return False
    return after is None or isinstance(after, Heading)


def _plain(block: Block, later: Sequence[Block]) -> list[str]:
    """Return the lines of one block, none for some."""
    if isinstance(block, Words) and follows(later, Bars):
        return []
    if isinstance(block, Chart) and follows(later, Table):
        return []
    write = _PLAIN.get(type(block))
    return write(block) if write else []


def _plain_heading(block: Heading) -> list[str]:
    return [one_line(title_of(block))]


def _plain_paragraph(block: Paragraph) -> list[str]:
    return printed(block.text).split("\n") if block.kind == "answer" else []


def _scores(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return names and their numbers as lines, the numbers first."""
    return [f"{one_line(number):>10}  {one_line(name)}" for name, number in pairs]


def _plain_words(block: Words) -> list[str]:
    words, head = list(block.words), []
    if len(words) > _LISTED:
        head = [f"the {_LISTED} largest of {len(words)} words:"]
        words = sorted(words, key=lambda word: -abs(word.score))[:_LISTED]
    return head + _scores((w.text, block.scale.write(w.score)) for w in words)


def _plain_grid(block: Grid) -> list[str]:
    """Return all numbers where rows have short labels, else the strongest cells."""
    if len(block.panels) == 1 and block.rows.ticks:
        return _plain_table(_turned_table(block))
    count = f"{block.rows.count}; {block.columns.count}"
    if len(block.panels) > 1:
        count = f"{len(block.panels)} grids of {count}"
    unit = f"; {block.scale.unit}" if block.scale.unit else ""
    cells = block.strongest(STRONGEST)
    scores = _scores((name, block.scale.write(score)) for name, score in cells)
    return [one_line(f"{count}{unit}"), *scores]


def _turned_table(block: Grid) -> Table:
    """Return a grid as a table, a row for each column, below the means."""
    (panel,) = block.panels
    rows = [*zip(block.columns.labels, panel.values.T, strict=True)]
    if block.means is not None:
        rows = [("mean", block.means), *rows]
    return Table(
        heads=(block.columns.kind, *block.rows.ticks),
        rows=tuple(
            (label, *(block.scale.brief(float(value)) for value in values))
            for label, values in rows
        ),
    )


def _plain_pairs(block: Pairs) -> list[str]:
    pairs = strongest_pairs(block)
    return _scores((name, block.scale.write(score)) for name, score in pairs)


def _plain_bars(block: Bars) -> list[str]:
    """Return the numbers, below the title where no picture says what they are."""
    head = [one_line(block.title)] if block.title and not block.repeats else []
    return head + _scores(zip(names_of(block), block.written, strict=True))


def _plain_chart(block: Chart) -> list[str]:
    return _plain_table(table_of(block))


def _plain_table(block: Table) -> list[str]:
    """Return aligned columns, texts at their left end and numbers at their right."""
    if not block.rows:
        return []
    rows = [
        [shortened(cell_text(cell), _LONGEST) for cell in row] for row in block.rows
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


def _plain_pages(block: Pages) -> list[str]:
    """Return the labels of the first pages, with their scores."""
    labels = block.labels[: block.printed]
    lines = _scores((word.text, block.scale.write(word.score)) for word in labels)
    more = len(block.labels) - len(labels)
    return [*lines, f"and {more} more"] if more else lines


_PLAIN: dict[type, Callable[[Any], list[str]]] = {
    Heading: _plain_heading,
    Paragraph: _plain_paragraph,
    Words: _plain_words,
    Grid: _plain_grid,
    Pairs: _plain_pairs,
    Chart: _plain_chart,
    Table: _plain_table,
    Bars: _plain_bars,
    Pages: _plain_pages,
}
