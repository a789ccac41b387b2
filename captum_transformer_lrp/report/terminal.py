"""Blocks as text for a terminal, with or without colour, drawn with rich.

What blocks hold may come from anywhere, so no text reaches a terminal with control
characters in it: every one passes through :func:`one_line` or ``printed``.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from .._packages import require
from .._visible import printed
from .blocks import (
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
    cell_of,
    largest,
)
from .colors import LIGHT, THEMES, to_hex
from .told import STRONGEST, is_answer, one_line, told

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_LIGHT = THEMES["light"]
_FAINT = 0.02  # share of the limit below which a word has no colour
_BAR = 12  # columns on either side of zero
_LABEL = 20  # columns of a label beside a grid, at most
_HEAD = 8  # columns of a label above a grid, at most
_CELLS = 4000  # a larger grid is a list of its strongest cells
_GAP = 2  # columns between those of a table
_WRAPPED = 12  # columns of a word in the head of numbers, at most


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


def _columns(text: str) -> int:
    """Return how many columns a text takes in a terminal."""
    from rich.cells import cell_len

    return cell_len(one_line(text))


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
    share = scale.share(word.score)
    if abs(share) >= _FAINT:
        return _on(scale, share)
    return "dim" if word.special else ""


# ------------------------------------------------------------------- what stands where


def _drawn(blocks: Iterable[Block], console: Console) -> list[RenderableType]:
    """Return what is printed, with the empty lines between."""
    drawn: list[RenderableType] = []
    before: Block | None = None
    for block, parts in told(
        blocks,
        lambda block: _DRAW[type(block)](block, console),
        words=_colored(console),
    ):
        if before is not None and _apart(before, block):
            drawn.append(_text(""))
        drawn += parts
        before = block
    return drawn


def _apart(before: Block, after: Block) -> bool:
    """Return whether an empty line stands between two blocks."""
    if isinstance(before, Heading):
        return before.level == 1 and not is_answer(after)
    return not (_is_small(before) and _is_small(after))


def _is_small(block: Block) -> bool:
    """Return whether a block is of the small print at the end: facts and notes."""
    return isinstance(block, Facts | Paragraph) and not is_answer(block)


# --------------------------------------------------------------------- words and facts


def _draw_heading(block: Heading, console: Console) -> Iterator[RenderableType]:
    yield _text(block.written, "bold" if block.level == 1 else "italic")


def _draw_paragraph(block: Paragraph, console: Console) -> Iterator[RenderableType]:
    from rich.text import Text

    if block.kind != "input":
        style = "dim" if block.kind == "answer" else "dim italic"
        yield Text(printed(block.text), style=style)


def _draw_facts(block: Facts, console: Console) -> Iterator[RenderableType]:
    """Yield names and values, in two columns."""
    from rich.table import Table as RichTable

    table = RichTable.grid(padding=(0, _GAP, 0, 0))
    table.add_column(style="dim", min_width=10, overflow="fold")
    table.add_column(overflow="fold")
    for name, value in block.pairs:
        table.add_row(_text(name), _text(value))
    if block.pairs:
        yield table


def _draw_words(block: Words, console: Console) -> Iterator[RenderableType]:
    """Yield the text, in its logical order: terminals turn other directions round."""
    text = _text("")
    for number, (word, mark) in enumerate(zip(block.words, block.marked, strict=True)):
        if number and word.space_before:
            text.append(" ")
        style = _word_style(word, block.scale)
        text.append(one_line(word.text), style=style)
        if mark:
            text.append(f" [{one_line(mark)}]", style="bold")
    if block.words:
        yield text


def _draw_legend(block: Legend, console: Console) -> Iterator[RenderableType]:
    """Yield the colour bar with its ends and its unit; without colours the unit."""
    low, high = (one_line(end) for end in block.scale.ends)
    if not _colored(console):
        if block.scale.unit:
            yield _text(f"from {low} to {high}: {block.scale.unit}", "dim")
        return
    steps = min(25, max(5, console.width - _columns(low) - _columns(high) - 2))
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


# ------------------------------------------------------------------- grids and tables


def _draw_grid(block: Grid, console: Console) -> Iterator[RenderableType]:
    """Yield the cells of one grid, or the strongest of several or of a large one.

    Columns of the grid go down and rows across, since a terminal is narrow and texts
    are long. The grid stands upright where it has fewer columns than rows, or where its
    rows have no short labels and its columns fit. A line above says which it is.
    """
    rows, columns = block.rows, block.columns
    size = sum(panel.values.size for panel in block.panels)
    if not size:
        return
    if len(block.panels) > 1 or size > _CELLS:
        strongest = block.strongest(STRONGEST)
        table = largest(strongest, block.scale, f"{rows.kind}, {columns.kind}")
        yield from _draw_table(table, console)
        return
    mean = () if block.means is None else ("mean",)
    labels, heads = rows.labels, (*(columns.ticks or columns.labels), *mean)
    cells = _cells(block)
    fits = sum(_widths(labels, heads, cells)) <= console.width
    down, across = rows, columns
    if len(columns) >= len(rows) and (rows.ticks or not fits):
        down, across = columns, rows
        labels, heads = (*columns.labels, *mean), rows.ticks or rows.labels
        cells = [list(line) for line in zip(*cells, strict=True)]
    yield _text(f"{down.kind} down, {across.kind} across", "dim")
    left, width = _widths(labels, heads, cells)[:2]
    lines = [
        [
            _label(label, left, special=i < len(down) and down.is_special(i)),
            *(_at_right(cell, width) for cell in line),
        ]
        for i, (label, line) in enumerate(zip(labels, cells, strict=True))
    ]
    top = [_text(""), *(_at_right(_text(head), width) for head in heads)]
    yield from _beside(top, lines, console, gap=0)


def _cells(block: Grid) -> list[list[Text]]:
    """Return the numbers of the only panel in their colours, each row with its mean."""
    scale = block.scale
    cells = [
        [_text(scale.brief(float(v)), _on(scale, scale.share(v))) for v in row]
        for row in block.panels[0].values
    ]
    if block.means is not None:
        for row, mean in zip(cells, block.means, strict=True):
            row.append(_text(scale.brief(float(mean)), "italic"))
    return cells


def _widths(
    labels: Sequence[str], heads: Sequence[str], cells: Sequence[Sequence[Text]]
) -> list[int]:
    """Return the width of labels and of each cell, with the space behind them."""
    number = max(cell.cell_len for line in cells for cell in line)
    head = min(_HEAD, max(map(_columns, heads)))
    label = min(_LABEL, max(map(_columns, labels)))
    return [1 + label, *[1 + max(4, number, head)] * len(heads)]


def _label(text: str, width: int, *, special: bool) -> Text:
    """Return a label at the left of its column, with a space behind it."""
    label = _text(text, "dim" if special else "")
    label.truncate(width - 1, overflow="ellipsis")
    return label.append(" ")


def _at_right(text: Text, width: int) -> Text:
    """Return a text at the right of its column, with a space behind it."""
    text.truncate(width - 1, overflow="ellipsis")
    text.align("right", width - 1)
    text.justify = "left"
    return text.append(" ")


def _draw_pairs(block: Pairs, console: Console) -> Iterator[RenderableType]:
    head = f"{block.left.kind} to {block.right.kind}"
    table = largest(block.strongest(STRONGEST), block.scale, head)
    return _draw_table(table, console)


def _draw_chart(block: Chart, console: Console) -> Iterator[RenderableType]:
    return _draw_table(block.table, console)


def _draw_table(block: Table, console: Console) -> Iterator[RenderableType]:
    """Yield a table below its title."""
    if not block.rows:
        return
    if block.title:
        yield _text(block.title, "italic")
    heads = [_text(head) for head in block.heads]
    rows = [
        [_cell(cell_of(x), block.scale, console) for x in row] for row in block.rows
    ]
    yield from _beside(heads, rows, console, texts=block.texts)


def _cell(cell: Cell, scale: ColorScale, console: Console) -> Text:
    if cell.share is None or abs(cell.share) < _FAINT or not _colored(console):
        return _text(cell.written)
    return _text(cell.written, _on(scale, cell.share))


def _beside(
    heads: Sequence[Text],
    rows: Sequence[Sequence[Text]],
    console: Console,
    *,
    texts: int = 1,
    gap: int = _GAP,
) -> Iterator[RenderableType]:
    """Yield columns beside each other; numbers that have no room stand below.

    Texts, which can be wrapped, give way before numbers, up to half of the room.
    """
    from rich.table import Table as RichTable

    room = console.width
    widths = [
        max(x.cell_len for x in column) for column in zip(heads, *rows, strict=True)
    ]
    numbers = range(texts, len(heads))
    left = room - min(sum(w + gap for w in widths[:texts]), room // 2)
    if sum(w + gap for w in widths) - gap > room:
        for i in numbers:  # their heads can be wrapped, too
            head = max(map(_columns, heads[i].plain.split()), default=0)
            number = max(row[i].cell_len for row in rows)
            widths[i] = min(left, max(number, min(head, _WRAPPED)))
    for group in _groups([widths[i] + gap for i in numbers], left + gap):
        if group.start:
            yield _text("")
        columns = [*range(texts), *numbers[group]]
        table = RichTable(
            box=None,
            padding=(0, gap, 0, 0),
            pad_edge=False,
            header_style="dim",
            show_header=any(head.plain for head in heads),
        )
        for i in columns:
            table.add_column(
                heads[i],
                justify="left" if i < texts else "right",
                width=None if i < texts else widths[i],
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(row[i] for i in columns))
        yield table


def _groups(widths: Sequence[int], room: int) -> list[slice]:
    """Cut columns into as few runs as fit into ``room``, about as wide as others."""
    found = _filled(widths, room)
    while room > max(widths, default=room):
        room -= 1
        if len(tighter := _filled(widths, room)) > len(found):
            break
        found = tighter
    return found


def _filled(widths: Sequence[int], room: int) -> list[slice]:
    """Cut columns into runs, each with as many as fit into ``room``."""
    starts, used = [0], 0
    for i, width in enumerate(widths):
        if i > starts[-1] and used + width > room:
            starts.append(i)
            used = 0
        used += width
    return [slice(*ends) for ends in itertools.pairwise([*starts, len(widths)])]


def _draw_bars(block: Bars, console: Console) -> Iterator[RenderableType]:
    """Yield names, bars from zero to either side that there is, and numbers."""
    from rich.table import Table as RichTable

    if not block.rows:
        return
    if block.title:
        yield _text(block.title, "italic")
    signed = block.scale.signed or any(score < 0 for _, score in block.rows)
    longest = max(map(_columns, block.names))
    room = console.width - max(map(_columns, block.written)) - 2 * _GAP - 1
    side = max(1, min(_BAR, (room - min(longest, 10)) // (1 + signed)))
    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True, overflow="fold")
    for name, (_, score), number in zip(
        block.names, block.rows, block.written, strict=True
    ):
        bar = _bar(block.scale.share(score), side, signed=signed)
        table.add_row(_text(name), bar, _text(number))
    yield table


def _bar(share: float, side: int, *, signed: bool) -> Text:
    """Return a bar of at most ``side`` columns from zero to the left or right."""
    from rich.text import Text

    length = round(side * abs(share))
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
