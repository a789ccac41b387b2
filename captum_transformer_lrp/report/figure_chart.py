"""Charts, tables and bars in a figure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .blocks import Bars, Cell, Chart, Table, cell_of
from .colors import LINES
from .page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Markers say once more what colours say.
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":")
_SAMPLE, _LINE = 0.32, 0.21  # inches: of a line in the legend, and between two names
_SLANT = 35  # degrees, of labels below a chart
_LONGEST = 1.4  # inches, of these
# In points.
_TEXT, _TICK, _AXIS, _HEAD, _TITLE = 9.0, 8.5, 9.5, 8.0, 10.5

_PADDING = 0.22  # inches, between two columns of a table
_ROW, _COLORED_ROW = 0.2, 0.3  # inches
_LEAST_TEXT = 1.2  # inches, of a column of texts, if its texts are as long
_BARS, _BAR, _MOST_BARS = 3.2, 0.13, 15  # inches, inches, and rows


# ------------------------------------------------------------------------------ charts


def draw_chart(page: Page, chart: Chart) -> None:
    """Draw a line for each name; the names stand beside them.

    They are not written at the ends of the lines, where most lines meet near zero, but
    in the order of their means.
    """
    names = [page.shortened(n, size=_TEXT, longest=page.room / 3) for n in chart.names]
    right = max(page.measure(name, size=_TEXT) for name in names) + _SAMPLE + 0.3
    left, height = _left(page, chart), max(2.7, _LINE * len(names))
    width = page.room - left - right
    page.y += 0.05
    styles = [_line_style(page, number) for number in range(len(names))]
    order = np.argsort(-chart.values.mean(axis=1), kind="stable").tolist()
    x = page.margin + left + width + 0.15
    _draw_names(page, x, [(names[i], styles[i]) for i in order])

    def fill(axes: Axes) -> None:
        _set_up(axes, chart, page, width)
        for values, style in zip(chart.values, styles, strict=True):
            axes.plot(range(len(values)), values, clip_on=False, zorder=3, **style)

    page.axes(page.margin + left, page.y, width, height, fill)
    page.y += height + _below(page, chart)


def _line_style(page: Page, number: int) -> dict[str, Any]:
    color = LINES[number % len(LINES)]
    return {
        "color": page.theme.ink if color == LINES[-1] else color,
        "marker": _MARKERS[number % len(_MARKERS)],
        "linestyle": _DASHES[number // len(LINES) % len(_DASHES)],
        "linewidth": 1.8,
        "markersize": 5,
        "markeredgecolor": page.theme.paper,
        "markeredgewidth": 0.6,
    }


def _draw_names(
    page: Page, x: float, names: Sequence[tuple[str, dict[str, Any]]]
) -> None:
    """Write names below each other, each behind a piece of its line."""
    from matplotlib.lines import Line2D

    across = [x, x + _SAMPLE / 2, x + _SAMPLE]
    for place, (name, style) in enumerate(names):
        ys = [page.y + (place + 0.5) * _LINE] * 3
        page.text(x + _SAMPLE + 0.08, ys[0] + 0.36 * _TEXT / 72, name, size=_TEXT)
        page.add(Line2D(across, ys, markevery=[1], **style))


def _below(page: Page, chart: Chart) -> float:
    """Return the height of what stands below the axes, in inches."""
    if chart.steps.ticks:
        return 0.5
    longest = max(page.measure(word, size=_TICK) for word in _labels(page, chart))
    return 0.25 + longest * math.sin(math.radians(_SLANT))


def _left(page: Page, chart: Chart) -> float:
    """Return the room to the left of the axes, in inches."""
    if chart.steps.ticks:
        return 0.55
    first = page.measure(_labels(page, chart)[0], size=_TICK)
    return max(0.55, first * math.cos(math.radians(_SLANT)) - page.margin / 2)


def _labels(page: Page, chart: Chart) -> list[str]:
    """Return what stands below the axes, slanted where it is not short."""
    if chart.steps.ticks:
        return list(chart.steps.ticks)
    return [
        page.shortened(label, size=_TICK, longest=_LONGEST)
        for label in chart.steps.labels
    ]


def _set_up(axes: Axes, chart: Chart, page: Page, width: float) -> None:
    """Give axes their ends, their ticks and their words."""
    count, theme = len(chart.steps), page.theme
    words: dict[str, Any] = {
        "fontsize": _AXIS,
        "family": page.families,
        "color": theme.ink,
    }
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.15, count - 0.85)
    axes.set_facecolor("none")
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_ylabel(chart.label, **words)
    labels = _labels(page, chart)
    widest = max(page.measure(label, size=_TICK) for label in labels) + 0.06
    least = widest if chart.steps.ticks else 0.17
    shown = range(0, count, max(1, math.ceil(least * count / width)))
    axes.set_xticks(list(shown))
    if chart.steps.ticks:
        axes.set_xticklabels([labels[i] for i in shown])
        axes.set_xlabel(chart.steps.name, **words)
    else:
        axes.set_xticklabels([labels[i] for i in shown], rotation=_SLANT, ha="right")
    for spine in ("top", "right", "left"):
        axes.spines[spine].set_visible(False)
    axes.spines["bottom"].set_color(theme.soft)
    axes.grid(axis="y", color=theme.line, linewidth=0.8)
    axes.tick_params(colors=theme.ink, labelsize=_TICK, length=3, color=theme.soft)
    axes.tick_params(axis="y", length=0)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_fontfamily(page.families)
        text.set_parse_math(False)


# ------------------------------------------------------------------------------ tables


class _Columns:
    """How wide the columns of a table are, and which of them have colours."""

    def __init__(self, page: Page, table: Table) -> None:
        self.texts = table.texts
        self.colored = table.colored
        for self.small in (True, False):
            natural = [
                self._natural(page, table, i, self.small)
                for i in range(len(table.heads))
            ]
            least = sum(min(width, _LEAST_TEXT) for width in natural[: self.texts])
            if sum(natural[self.texts :]) + least <= page.room:
                break
        numbers = _shrunk(natural[self.texts :], page.room - least, self.colored)
        room = page.room - sum(numbers)
        self.widths = [*_cut(natural[: self.texts], room), *numbers]
        #: where they begin, from the left margin, in inches
        self.starts = [0.0, *itertools.accumulate(self.widths)]

    def _natural(self, page: Page, table: Table, number: int, small: bool) -> float:
        """Return the width of a column that cuts nothing off."""
        cells = [cell_of(row[number]) for row in table.rows]
        widths = [
            page.measure(cell.written if small else cell.text, size=_TEXT)
            for cell in cells
        ]
        head = page.measure(table.heads[number], size=_HEAD)
        # Heads of coloured columns, which are as wide as each other, are cut off.
        return max([min(head, 0.9) if self.colored[number] else head, *widths]) + (
            _PADDING
        )


def _shrunk(
    widths: Sequence[float], room: float, colored: Sequence[bool]
) -> list[float]:
    """Return the widths of columns of numbers, those with colours all alike."""
    shades = colored[len(colored) - len(widths) :]
    pairs = list(zip(widths, shades, strict=True))
    alike = max((width for width, is_colored in pairs if is_colored), default=0.0)
    found = [alike if is_colored else width for width, is_colored in pairs]
    factor = min(1.0, room / sum(found)) if found else 1.0
    return [factor * width for width in found]


def _cut(widths: Sequence[float], room: float) -> list[float]:
    """Return the widths of columns of texts, the widest cut until all have room."""
    found = list(widths)
    level = max(found, default=0.0)
    while sum(found) > room + 1e-9 and level > 0.3:
        level *= 0.95
        found = [min(width, level) for width in widths]
    return found


def draw_table(page: Page, table: Table) -> None:
    """Draw a table: texts on the left, numbers on the right of their columns."""
    if table.title:
        page.line(table.title, size=_TITLE, weight="bold")
    columns = _Columns(page, table)
    if any(table.heads):
        page.y += 0.18
        for number in range(len(table.heads)):
            head = Cell(text=table.heads[number])
            _write_cell(page, columns, number, page.y, head, _HEAD, page.theme.soft)
        page.y += 0.08
    height = _COLORED_ROW if any(columns.colored) else _ROW
    _color_cells(page, columns, table, height)
    ink = page.theme.ink
    for row in table.rows:
        baseline = page.y + height / 2 + 0.36 * _TEXT / 72
        for number, value in enumerate(row):
            _write_cell(page, columns, number, baseline, cell_of(value), _TEXT, ink)
        page.y += height
    page.y += 0.2


def _write_cell(
    page: Page,
    columns: _Columns,
    number: int,
    y: float,
    cell: Cell,
    size: float,
    color: str,
) -> None:
    """Write a text at the left, a number at the right, or in the middle of a colour."""
    x, width = page.margin + columns.starts[number], columns.widths[number]
    is_colored = columns.colored[number]
    longest = width - (0.06 if is_colored else 0.1)
    text = cell.written if columns.small else cell.text
    text = page.shortened(text, size=size, longest=longest)
    if not text:
        return
    if is_colored:
        page.text(x + width / 2, y, text, size=size, color=color, align="center")
    elif number < columns.texts:
        page.text(x, y, text, size=size, color=color)
    else:
        page.text(x + width, y, text, size=size, color=color, align="right")


def _color_cells(page: Page, columns: _Columns, table: Table, height: float) -> None:
    """Fill the cells of columns with colours, from the page's ``y``."""
    for number, is_colored in enumerate(columns.colored):
        if is_colored:
            shares = [[cell_of(row[number]).share or 0.0] for row in table.rows]
            colors = page.theme.rgb(np.array(shares), signed=table.scale.diverging)
            x = page.margin + columns.starts[number]
            page.cells(x, page.y, (columns.widths[number], height), colors)


# ------------------------------------------------------------------------------- bars


def draw_bars(page: Page, bars: Bars) -> None:
    """Draw names with bars from zero, at most 15, and say how many more there are."""
    if bars.title:
        page.line(bars.title, size=_TITLE, weight="bold")
    page.y += 0.06
    rows, written = bars.rows[:_MOST_BARS], bars.written[:_MOST_BARS]
    marks = bars.marks[:_MOST_BARS] or ("",) * len(rows)
    names = [page.shortened(name, size=_TEXT, longest=2.2) for name, _ in rows]
    name_width = max(
        (
            page.measure(name, size=_TEXT) + _mark_width(page, mark)
            for name, mark in zip(names, marks, strict=True)
        ),
        default=0.0,
    )
    number_width = max((page.measure(n, size=_TEXT) for n in written), default=0.0)
    left = page.margin + name_width + 0.15
    room = page.margin + page.room - left - number_width - 0.15
    across = max(0.5, min(_BARS, room))
    for name, mark, (_, score), number in zip(names, marks, rows, written, strict=True):
        baseline = page.y + _ROW / 2 + 0.36 * _TEXT / 72
        page.text(page.margin, baseline, name, size=_TEXT)
        if mark:
            x = page.margin + page.measure(name, size=_TEXT) + 0.08
            page.text(x, baseline, mark, size=_HEAD, color=page.theme.soft)
        _draw_bar(page, left, across, bars.scale.share(score), bars.scale.signed)
        right = left + across + 0.15 + number_width
        page.text(right, baseline, number, size=_TEXT, align="right")
        page.y += _ROW
    more = len(bars.rows) - len(rows)
    if more:
        page.line(f"and {more:,} more", size=_TICK, color=page.theme.soft)
    page.y += 0.15


def _mark_width(page: Page, mark: str) -> float:
    return page.measure(mark, size=_HEAD) + 0.08 if mark else 0.0


def _draw_bar(page: Page, x: float, across: float, share: float, signed: bool) -> None:
    """Draw a bar from zero, which lies in the middle where there are two sides."""
    zero = x + across / 2 if signed else x
    length = abs(share) * (across / 2 if signed else across)
    top = page.y + (_ROW - _BAR) / 2
    scale = page.theme.scale
    color = scale.negative if share < 0 else scale.positive
    start = zero - length if share < 0 and signed else zero
    if length:
        page.box(start, top, length, _BAR, color=color)
    page.box(zero - 0.004, page.y, 0.008, _ROW, color=page.theme.line)
