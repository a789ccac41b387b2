"""Blocks as text for a terminal, with or without colour, drawn with rich.

What blocks hold may come from anywhere, so no text reaches a terminal with control
characters in it: every one passes through :func:`one_line` or ``printed``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .._packages import require
from .._visible import printed
from .blocks import (
    Axis,
    Bars,
    Block,
    Cell,
    Chart,
    ColorScale,
    Facts,
    Grid,
    Heading,
    Legend,
    Pages,
    Pairs,
    Paragraph,
    Pictures,
    Table,
    Word,
    Words,
    largest,
)
from .colors import LIGHT, THEMES, to_hex
from .plain import (
    STRONGEST,
    cell_text,
    follows,
    headed,
    is_answer,
    names_of,
    one_line,
    strongest_pairs,
    table_of,
    title_of,
    unfolded,
)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_LIGHT = THEMES["light"]
_FAINT = 0.02  # share of the limit below which a word has no colour
_BAR = 12  # columns on either side of zero
_NAME = 32  # columns of a name beside a bar, at most
_LABEL = 20  # columns of a label beside a grid, at most
_HEAD = 8  # columns of a label above a grid, at most
_CELLS = 4000  # a larger grid is a list of its strongest cells
_GAP = 2  # columns between those of a table


def print_blocks(blocks: Iterable[Block], console: Console) -> None:
    """Print blocks on a rich console.

    Args:
        blocks (iterable of Block): What to print.
        console (Console): Where; it knows its colours and its width.
    """
    for part in _drawn(blocks, console):
        console.print(part)


def to_text(
    cards: Sequence[Sequence[Block]], *, color: bool = False, width: int = 88
) -> str:
    """Return cards as text, with a rule between them.

    Args:
        cards (sequence of sequences of Block): What to render.
        color (bool, optional): Whether to write ANSI colour codes. Default: False
        width (int, optional): Columns of the terminal. Default: 88

    Raises:
        MissingPackageError: rich is not installed.
    """
    require("rich")
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        no_color=not color,
        color_system="truecolor" if color else None,
        legacy_windows=False,
    )
    for number, card in enumerate(cards):
        if number:
            console.rule(style="dim")
        print_blocks(card, console)
    text = buffer.getvalue().rstrip("\n")
    if color:  # a space at the end of a line may have a ground
        return text
    return "\n".join(line.rstrip() for line in text.split("\n"))


# ------------------------------------------------------------------------------- texts


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(one_line(text), style=style)


def _cells(text: str) -> int:
    """Return how many columns a text takes in a terminal."""
    from rich.cells import cell_len

    return cell_len(text)


def _fitted(text: str, room: int) -> str:
    """Return a text in exactly ``room`` columns; where longer, its end is cut off."""
    from rich.cells import set_cell_size

    text = one_line(text)
    if _cells(text) > room:
        text = set_cell_size(text, room - 1).rstrip() + "…"
    return set_cell_size(text, room)


def _colored(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def _on(scale: ColorScale, share: float) -> str:
    """Return ink and ground of a share of the limit."""
    return _style(round(share, 2), signed=scale.diverging)


@cache
def _style(share: float, *, signed: bool) -> str:
    ground = _LIGHT.ground(share, signed=signed)
    return f"{_LIGHT.ink_on(share, signed=signed)} on {ground}"


def _word_style(word: Word, scale: ColorScale) -> str:
    share = max(-1.0, min(1.0, word.score / scale.limit))
    if abs(share) >= _FAINT:
        return _on(scale, share)
    return "dim" if word.special else ""


# ------------------------------------------------------------------- what stands where


def _drawn(blocks: Iterable[Block], console: Console) -> list[RenderableType]:
    """Return what is printed, with the empty lines between."""
    kept = unfolded(blocks, words=_colored(console))
    parts = headed([(b, _draw(b, kept[i + 1 :], console)) for i, b in enumerate(kept)])
    drawn: list[RenderableType] = []
    for number, (block, lines) in enumerate(parts):
        if number and _apart(parts[number - 1][0], block):
            drawn.append(_text(""))
        drawn += lines
    return drawn


def _apart(before: Block, after: Block) -> bool:
    """Return whether an empty line stands between two blocks."""
    if isinstance(before, Heading):
        return before.level == 1 and not is_answer(after)
    return not (_is_small(before) and _is_small(after))


def _is_small(block: Block) -> bool:
    """Return whether a block is of the small print at the end: facts and notes."""
    return isinstance(block, Facts | Paragraph) and not is_answer(block)


def _draw(
    block: Block, later: Sequence[Block], console: Console
) -> list[RenderableType]:
    """Return what is printed for one block, nothing for some."""
    if isinstance(block, Chart) and follows(later, Table):
        return []
    return list(_DRAW[type(block)](block, console))


# --------------------------------------------------------------------- words and facts


def _draw_heading(block: Heading, console: Console) -> Iterator[RenderableType]:
    yield _text(title_of(block), "bold" if block.level == 1 else "italic")


def _draw_paragraph(block: Paragraph, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    if block.kind != "input":
        style = "dim" if block.kind == "answer" else "dim italic"
        yield Text(printed(block.text), style=style)


def _draw_facts(block: Facts, console: Console) -> Iterator[RenderableType]:
    """Yield names and values, in two columns where there is room."""
    from rich.text import Text

    longest = max((_cells(one_line(name)) for name, _ in block.pairs), default=0)
    room = max(12, longest + 2)
    for name, value in block.pairs:
        if 2 * room > console.width:
            yield Text.assemble(_text(f"{name}  ", "dim"), _text(value))
            continue
        lines = _text(value).wrap(console, console.width - room)
        for number, line in enumerate(lines or [_text("")]):
            head = _fitted("" if number else name, room)
            yield Text.assemble(_text(head, "dim"), line)


def _draw_words(block: Words, console: Console) -> Iterator[RenderableType]:
    """Yield the text, in its logical order: terminals turn other directions round."""
    text = _text("")
    for number, word in enumerate(block.words):
        if number and word.space_before:
            text.append(" ")
        text.append(one_line(word.text), style=_word_style(word, block.scale))
    if block.words:
        yield text


def _draw_legend(block: Legend, console: Console) -> Iterator[RenderableType]:
    """Yield the colour bar with its ends and its unit; without colours the unit."""
    low, high = (one_line(end) for end in block.scale.ends)
    if not _colored(console):
        if block.scale.unit:
            yield _text(f"from {low} to {high}: {block.scale.unit}", "dim")
        return
    steps = min(25, max(5, console.width - _cells(low) - _cells(high) - 2))
    bar = _text(f"{low} ")
    for color in block.scale.colors(_LIGHT, steps):
        bar.append(" ", style=f"on {to_hex(color)}")
    unit = f"   {one_line(block.scale.unit)}" if block.scale.unit else ""
    yield bar.append(f" {high}{unit}")


def _draw_pictures(block: Pictures, console: Console) -> Iterator[RenderableType]:
    """Yield what stands below the pictures: a terminal shows no pixels."""
    said = [
        f"{one.caption} ({one.under})" if one.under else one.caption
        for one in block.pictures
        if one.caption
    ]
    if said:
        width, height = block.pictures[0].image.size
        many = len(block.pictures)
        what = "picture" if many == 1 else f"{many} pictures"
        yield _text(f"{what} of {width} by {height} pixels: {'; '.join(said)}", "dim")


# ------------------------------------------------------------------------------- grids


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """The cells of a grid as they are printed, with the means behind the last."""

    down: Axis
    across: Axis
    labels: tuple[str, ...]
    heads: tuple[str, ...]
    values: np.ndarray
    scale: ColorScale
    width: int

    @cached_property
    def written(self) -> list[list[str]]:
        """The numbers as text."""
        return [[self.scale.brief(float(v)) for v in row] for row in self.values]

    @cached_property
    def cell(self) -> int:
        """Columns of the terminal for a cell, one of them before the next."""
        number = max(_cells(text) for row in self.written for text in row)
        head = max(_cells(one_line(head)) for head in self.heads)
        return 1 + max(4, number, min(head, _HEAD))

    @cached_property
    def label(self) -> int:
        """Columns of the terminal for a label."""
        longest = max(_cells(one_line(label)) for label in self.labels)
        return min(longest, _LABEL, max(4, self.width - self.cell - 1))

    @property
    def at_once(self) -> int:
        """How many cells fit beside each other."""
        return max(1, (self.width - self.label - 1) // self.cell)

    def lines(self) -> Iterator[Text]:
        """Yield lines, in blocks of about as many columns, as many as fit."""
        count = len(self.heads)
        most = -(-count // -(-count // self.at_once))
        for start in range(0, count, most):
            if start:
                yield _text("")
            yield from self._block(range(start, min(start + most, count)))

    def _block(self, columns: range) -> Iterator[Text]:
        cell, written = self.cell, self.written
        heads = "".join(_right(self.heads[c], cell) for c in columns).rstrip()
        yield _text(" " * (self.label + 1) + heads, "dim")
        for r, label in enumerate(self.labels):
            line = _text(_fitted(label, self.label) + " ", "")
            if r < len(self.down) and self.down.is_special(r):
                line.stylize("dim")
            for c in columns:
                line.append(_right(written[r][c], cell), style=self._style(r, c))
            yield line

    def _style(self, row: int, column: int) -> str:
        """Return the colours of a cell; a mean has none."""
        if row == len(self.down) or column == len(self.across):
            return "italic"
        share = float(self.values[row, column]) / self.scale.limit
        return _on(self.scale, max(-1.0, min(1.0, share)))


def _right(text: str, room: int) -> str:
    """Return a text at the right end of a cell, with a space behind it."""
    text = one_line(text)
    if _cells(text) >= room:
        text = _fitted(text, room - 1).rstrip()
    return " " * (room - 1 - _cells(text)) + text + " "


def _draw_grid(block: Grid, console: Console) -> Iterator[RenderableType]:
    """Yield the cells of one grid, or the strongest of several or of a large one.

    Columns of the grid go down and rows across, since a terminal is narrow and texts
    are long. The grid stands upright where it has fewer columns than rows, or where its
    rows have no short labels and its columns fit. A line above says which it is.
    """
    size = sum(panel.values.size for panel in block.panels)
    if not size:
        return
    if len(block.panels) > 1 or size > _CELLS:
        yield from _strongest(block, console)
        return
    cells = _upright(block, console.width)
    fits = len(cells.heads) <= cells.at_once
    if len(block.columns) >= len(block.rows) and (block.rows.ticks or not fits):
        cells = _turned(block, console.width)
    yield _text(f"{cells.down.kind} down, {cells.across.kind} across", "dim")
    yield from cells.lines()


def _upright(grid: Grid, width: int) -> _Cells:
    """Return rows as lines, with a last column of means if there are any."""
    (panel,) = grid.panels
    values, heads = panel.values, grid.columns.ticks or grid.columns.labels
    if grid.means is not None:
        values = np.column_stack([values, grid.means])
        heads = (*heads, "mean")
    return _Cells(
        down=grid.rows,
        across=grid.columns,
        labels=grid.rows.labels,
        heads=heads,
        values=values,
        scale=grid.scale,
        width=width,
    )


def _turned(grid: Grid, width: int) -> _Cells:
    """Return columns as lines, with a last line of means if there are any."""
    (panel,) = grid.panels
    values, labels = panel.values.T, grid.columns.labels
    if grid.means is not None:
        values = np.vstack([values, grid.means])
        labels = (*labels, "mean")
    return _Cells(
        down=grid.columns,
        across=grid.rows,
        labels=labels,
        heads=grid.rows.ticks or grid.rows.labels,
        values=values,
        scale=grid.scale,
        width=width,
    )


def _strongest(block: Grid, console: Console) -> Iterator[RenderableType]:
    head = f"{block.rows.kind}, {block.columns.kind}"
    pairs = block.strongest(STRONGEST)
    return _draw_table(largest(pairs, block.scale, head), console)


def _draw_pairs(block: Pairs, console: Console) -> Iterator[RenderableType]:
    head = f"{block.left.kind} to {block.right.kind}"
    table = largest(strongest_pairs(block), block.scale, head)
    return _draw_table(table, console)


# ------------------------------------------------------------------------------ tables


def _draw_chart(block: Chart, console: Console) -> Iterator[RenderableType]:
    return _draw_table(table_of(block), console)


def _draw_table(block: Table, console: Console) -> Iterator[RenderableType]:
    """Yield a table; numbers that do not fit beside each other stand below."""
    if not block.rows:
        return
    if block.title:
        yield _text(block.title, "italic")
    widths, groups = _layout(block, console.width)
    for number, columns in enumerate(groups):
        if number:
            yield _text("")
        yield _part(block, columns, widths, console)


def _part(
    block: Table, columns: Sequence[int], widths: Sequence[int], console: Console
) -> RenderableType:
    """Return some columns of a table."""
    from rich.table import Table as RichTable

    table = RichTable(box=None, pad_edge=False, show_header=any(block.heads))
    for i in columns:
        table.add_column(
            _text(block.heads[i]),
            justify="left" if i < block.texts else "right",
            width=widths[i],
            overflow="fold",
        )
    for row in block.rows:
        table.add_row(*(_cell(row[i], block.scale, console) for i in columns))
    return table


def _cell(cell: str | Cell, scale: ColorScale, console: Console) -> Text:
    share = cell.share if isinstance(cell, Cell) else None
    if share is None or abs(share) < _FAINT or not _colored(console):
        return _text(cell_text(cell))
    return _text(cell_text(cell), _on(scale, share))


def _layout(block: Table, room: int) -> tuple[list[int], list[list[int]]]:
    """Return the width of each column, and which stand beside each other.

    Texts give way before numbers: they can be wrapped.
    """
    columns = range(len(block.heads))
    cells = [max(_cells(cell_text(row[i])) for row in block.rows) for i in columns]
    widths = [max(w, _cells(one_line(block.heads[i]))) for i, w in enumerate(cells)]
    if sum(widths) + _GAP * (len(widths) - 1) <= room:
        return widths, [list(columns)]
    texts, numbers = columns[: block.texts], columns[block.texts :]
    for i in numbers:
        head = max(map(_cells, one_line(block.heads[i]).split()), default=0)
        widths[i] = min(max(cells[i], min(head, 12)), room)
    beside = room - sum(widths[i] + _GAP for i in numbers)
    share = max(beside, room // 2) if numbers else room
    widths[: block.texts] = _narrowed(
        widths[: block.texts], share - _GAP * (len(texts) - 1)
    )
    left = room - sum(widths[i] + _GAP for i in texts)
    for i in numbers:
        widths[i] = min(widths[i], max(1, left))
    return widths, [[*texts, *g] for g in _groups(numbers, widths, left)]


def _narrowed(widths: Sequence[int], room: int) -> list[int]:
    """Return widths that sum to ``room`` at most, the widest made narrower."""
    cap = max(widths, default=1)
    while cap > 1 and sum(min(w, cap) for w in widths) > room:
        cap -= 1
    return [min(w, cap) for w in widths]


def _groups(
    numbers: Iterable[int], widths: Sequence[int], room: int
) -> list[list[int]]:
    """Cut columns into groups that fit into ``room``, the last with no gap behind."""
    groups: list[list[int]] = [[]]
    used = 0
    for i in numbers:
        if groups[-1] and used + widths[i] > room:
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += widths[i] + _GAP
    return groups


def _draw_bars(block: Bars, console: Console) -> Iterator[RenderableType]:
    """Yield names, bars from zero to either side that there is, and numbers."""
    from rich.table import Table as RichTable

    if not block.rows:
        return
    if block.title:
        yield _text(block.title, "italic")
    names, numbers = names_of(block), [one_line(text) for text in block.written]
    signed = block.scale.signed or any(score < 0 for _, score in block.rows)
    longest, number = max(map(_cells, names)), max(map(_cells, numbers))
    room = console.width - number - 2 * _GAP - 1
    side = min(_BAR, (room - min(longest, 10)) // (1 + signed))
    side = max(1, side)
    name = max(1, min(longest, _NAME, room - side * (1 + signed)))
    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column(width=name, overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", width=number, overflow="fold")
    for label, (_, score), text in zip(names, block.rows, numbers, strict=True):
        bar = _bar(score / block.scale.limit, side, signed=signed)
        table.add_row(_text(label), bar, _text(text))
    yield table


def _bar(share: float, side: int, *, signed: bool) -> Text:
    """Return a bar of at most ``side`` columns from zero to the left or right."""
    from rich.text import Text

    length = round(side * min(1.0, abs(share)))
    left, right = (length, 0) if share < 0 else (0, length)
    return Text.assemble(
        " " * (side - left if signed else 0),
        ("█" * left, LIGHT.negative),
        ("│", "dim"),
        ("█" * right, LIGHT.positive),
        " " * (side - right),
    )


def _draw_pages(block: Pages, console: Console) -> Iterator[RenderableType]:
    """Yield the first pages, each below its label or a title of its own."""
    shown = list(zip(block.labels, block.pages, strict=True))[: block.printed]
    for number, (label, page) in enumerate(shown):
        if number:
            yield _text("")
        if not (page and isinstance(page[0], Heading)):
            style = _word_style(label, block.scale) if _colored(console) else ""
            yield _text(label.text, f"italic {style}")
        yield from _drawn(page, console)
    more = len(block.pages) - len(shown)
    if more:
        yield _text("")
        yield _text(f"and {more} more", "dim")


_DRAW: dict[type, Callable[[Any, Console], Iterator[RenderableType]]] = {
    Heading: _draw_heading,
    Paragraph: _draw_paragraph,
    Facts: _draw_facts,
    Words: _draw_words,
    Legend: _draw_legend,
    Pictures: _draw_pictures,
    Grid: _draw_grid,
    Pairs: _draw_pairs,
    Chart: _draw_chart,
    Table: _draw_table,
    Bars: _draw_bars,
    Pages: _draw_pages,
}
