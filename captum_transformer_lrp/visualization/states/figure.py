"""What masks keep, as one figure: heat maps of texts and lines for groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...report.page import Page, in_inches
from .terminal import brief

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .groups import KeptTable
    from .maps import KeptMap

# In inches.
_LEAST_CELL, _WIDEST_CELL = 0.16, 0.62
_ROW = 0.25
_NUMBERS = 0.31  # cells of at least this width have their number
_MEAN = 0.42  # width of the column of means
_GAP = 0.1
_LONGEST = 1.25  # of a token's label
_TALLEST = 350  # of a page: 160 pixels per inch, and at most 65,535 of them
_ANGLE = 60  # of tokens, in degrees
_SLANT = 35  # of names of states
# In points.
_TOKEN, _STATE, _NUMBER, _LEGEND = 9.5, 9.0, 7.5, 8.5

# Okabe and Ito (2008): told apart with every form of colour blindness. Yellow is left
# out, which is too pale on white. Markers say the same once more.
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#1a1d21")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", ":")


def _line_color(page: Page, number: int) -> str:
    """Return the colour of a line; the last of them is the page's ink."""
    color = LINES[number % len(LINES)]
    return page.theme.ink if color == LINES[-1] else color


def draw_maps(
    maps: Sequence[KeptMap],
    table: KeptTable | None = None,
    *,
    heading: bool = True,
    theme: str = "light",
) -> Figure:
    """Return a matplotlib figure of maps below each other.

    The figure belongs to no pyplot state: it can be drawn in any thread.

    Args:
        maps (sequence of KeptMap): What to draw, in this order.
        table (KeptTable, optional): Drawn below them. Default: None
        heading (bool, optional): Whether words stand around the maps; without them the
            figure is as narrow as its widest map. Default: True
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

    Raises:
        UnknownNameError: There is no such theme.
        InputError: The maps are too many for one picture.
    """
    page = Page(theme=theme)
    if not heading:
        widest = max(_Panels(page, m).width for m in maps)
        width = max(widest, _legend_width(page)) + 0.2
        page = Page(width=width, margin=0.1, theme=theme)
    for number, one in enumerate(maps):
        if number:
            page.rule()
        _draw_map(page, one, heading=heading)
        if page.y > _TALLEST:
            raise InputError(
                f"a picture has room for {number} of these {len(maps)} maps; save "
                "fewer, or save them as .html or .json."
            )
    if table is not None:
        page.rule()
        _draw_table(page, table, heading=heading)
    return page.figure()


def draw_lines(
    table: KeptTable, *, heading: bool = True, theme: str = "light"
) -> Figure:
    """Return a matplotlib figure with a line for each group of tokens.

    Args:
        table (KeptTable): What to draw.
        heading (bool, optional): Whether the title and the number of texts stand above.
            Default: True
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

    Raises:
        UnknownNameError: There is no such theme.
    """
    page = Page(width=6.6, margin=0.3 if heading else 0.12, theme=theme)
    _draw_table(page, table, heading=heading)
    return page.figure()


# ------------------------------------------------------------------------------- maps


class _Panels:
    """Where the cells of a map stand: as many tokens side by side as there is room."""

    def __init__(self, page: Page, kept: KeptMap) -> None:
        labels = kept.names.labels
        self.left = max(page.measure(label, size=_STATE) for label in labels) + 0.1
        room = page.room - self.left - _GAP - _MEAN
        self.panels = list(kept.panels(int(room / _LEAST_CELL)))
        self.most = max(panel.stop - panel.start for panel in self.panels)
        self.tokens = [
            page.shortened(t, size=_TOKEN, longest=_LONGEST) for t in kept.tokens
        ]
        lengths = [page.measure(token, size=_TOKEN) for token in self.tokens]
        flat = max(*lengths, page.measure("mean", size=_TOKEN) - 0.1) + 0.1
        self.cell = min(_WIDEST_CELL, room / self.most)
        self.turned = flat > self.cell
        if self.turned:
            self.cell = min(self.cell, 0.4)
        self.heights = [
            self._header(max(lengths[panel] or [0.0])) for panel in self.panels
        ]
        # Turned labels lean out to the right.
        lean = self.heights[0] / math.tan(math.radians(_ANGLE)) if self.turned else 0
        self.width = self.left + self.most * self.cell + _GAP + max(_MEAN, lean)

    def _header(self, longest: float) -> float:
        """Return the height of the tokens above the cells, in inches."""
        if not self.turned:
            return 1.25 * _TOKEN / 72
        angle = math.radians(_ANGLE)
        longest = max(longest, 0.35)  # "mean"
        return longest * math.sin(angle) + _TOKEN / 72 * math.cos(angle)


def _draw_map(page: Page, kept: KeptMap, *, heading: bool) -> None:
    if heading:
        page.line(kept.question, size=16, weight="bold")
        page.line(kept.answer, color=page.theme.soft)
        page.y += 0.12
    layout = _Panels(page, kept)
    for panel, height in zip(layout.panels, layout.heights, strict=True):
        page.y += height
        _draw_panel(page, kept, layout, panel)
        page.y += 0.2
    _draw_bar(page)
    if heading:
        facts = "    ".join(f"{name}: {value}" for name, value in kept.facts[1:])
        page.y += 0.03
        page.line(facts, size=_LEGEND, color=page.theme.soft)
        for note in kept.notes:
            page.line(note, size=_LEGEND, color=page.theme.soft)


def _draw_panel(page: Page, kept: KeptMap, layout: _Panels, panel: slice) -> None:
    """Draw the cells of some tokens with their labels; ``page.y`` is their top.

    The means, which are those of the whole text, stand beside the last of the panels.
    """
    x0 = page.margin + layout.left
    columns = range(panel.start, panel.stop)
    for number, column in enumerate(columns):
        x = x0 + (number + 0.5) * layout.cell
        color = page.theme.soft if kept.pieces[column].special else page.theme.ink
        _draw_token(page, layout, x, layout.tokens[column], color)
    baselines = [
        page.y + (row + 0.5) * _ROW + 0.36 * _STATE / 72
        for row in range(len(kept.states))
    ]
    for baseline, label in zip(baselines, kept.names.labels, strict=True):
        page.text(x0 - 0.08, baseline, label, size=_STATE, align="right")
    if panel.stop == len(kept.pieces):
        x = x0 + len(columns) * layout.cell + _GAP + _MEAN / 2
        _draw_token(page, layout, x, "mean", page.theme.soft)
        for baseline, mean in zip(baselines, kept.kept_fraction, strict=True):
            written = f"{mean:.2f}"
            page.text(
                x, baseline, written, size=8.5, color=page.theme.soft, align="center"
            )
    _draw_cells(page, kept, layout, panel, x0)
    page.y += len(kept.states) * _ROW


def _draw_token(page: Page, layout: _Panels, x: float, token: str, color: str) -> None:
    """Write a token above its column, whose middle is ``x``."""
    if layout.turned:
        x += 0.35 * _TOKEN / 72
        y, angle, align = page.y - 0.06, _ANGLE, "left"
    else:
        y, angle, align = page.y - 0.07, 0, "center"
    page.text(x, y, token, size=_TOKEN, color=color, align=align, rotation=angle)


def _draw_cells(
    page: Page, kept: KeptMap, layout: _Panels, panel: slice, x0: float
) -> None:
    """Fill the cells; those with room have their number, too."""
    top, cell, weight = page.y, layout.cell, page.theme.weight
    values = kept.kept[:, panel]
    page.cells(x0, top, (cell, _ROW), weight.rgb(values))
    if cell >= _NUMBERS:
        for (row, number), p in np.ndenumerate(values):
            page.text(
                x0 + (number + 0.5) * cell,
                top + (row + 0.5) * _ROW + 0.36 * _NUMBER / 72,
                brief(float(p)),
                size=_NUMBER,
                color=weight.ink(float(p)),
                align="center",
            )
    fixed = [
        (x0 + number * cell, top)
        for number, may_drop in enumerate(kept.free[panel])
        if not may_drop
    ]

    def artist(figure: Figure, page_height: float) -> None:
        from matplotlib.patches import Rectangle

        inches = in_inches(figure)
        place = inches
        for corner in fixed:  # what masks may not drop is hatched
            figure.add_artist(
                Rectangle(
                    corner,
                    cell,
                    len(values) * _ROW,
                    fill=False,
                    hatch="///",
                    edgecolor="#ffffff80",
                    linewidth=0,
                    transform=place,
                    zorder=-0.5,
                )
            )

    page.artists.append(artist)


_LOW, _HIGH, _UNIT = "0 dropped", "1 kept", "probability that the token is kept"


def _legend_width(page: Page) -> float:
    words = sum(page.measure(t, size=_LEGEND) for t in (_LOW, _HIGH, _UNIT))
    return words + 1.6 + 0.5


def _draw_bar(page: Page) -> None:
    """Draw the colour bar with its ends and its unit."""
    colors = page.theme.weight.rgb(np.linspace(0, 1, 201))
    page.legend(_LOW, _HIGH, colors, unit=_UNIT)


# ------------------------------------------------------------------------------ lines


def _draw_table(page: Page, table: KeptTable, *, heading: bool) -> None:
    """Draw a chart with a line for each group; their names stand beside it.

    The names are not written at the ends of the lines, where most lines meet near zero,
    but in the order of how much is kept in all.
    """
    if heading:
        page.line(table.title, size=14, weight="bold")
        page.line(table.scope, color=page.theme.soft, size=9.5)
        page.y += 0.12
    sample, line = 0.32, 0.21
    words = [
        f"{page.shortened(group, size=9, longest=page.room / 4)} ({count:,})"
        for group, count in zip(table.groups, table.counts, strict=True)
    ]
    right = max(page.measure(word, size=9) for word in words) + sample + 0.3
    left, height = 0.55, max(2.7, line * len(words))
    width = page.room - left - right
    has_ticks = bool(table.names.meaning)
    below = 0.5
    if not has_ticks:
        longest = max(page.measure(word, size=8.5) for word in table.names.labels)
        below = 0.25 + longest * math.sin(math.radians(_SLANT))
    top = page.y + 0.05
    styles: list[dict[str, Any]] = [
        {
            "color": _line_color(page, i),
            "marker": _MARKERS[i % len(_MARKERS)],
            "linestyle": _DASHES[i // len(LINES) % len(_DASHES)],
            "linewidth": 1.8,
            "markersize": 5,
            "markeredgecolor": page.theme.paper,
            "markeredgewidth": 0.6,
        }
        for i in range(len(words))
    ]
    order = np.argsort(-table.kept.mean(axis=1), kind="stable").tolist()
    x = page.margin + left + width + 0.15
    for place, i in enumerate(order):
        y = top + (place + 0.5) * line
        page.text(x + sample + 0.08, y + 0.36 * 9 / 72, words[i], size=9)

    def artist(figure: Figure, page_height: float) -> None:
        from matplotlib.lines import Line2D

        inches = in_inches(figure)
        for place, i in enumerate(order):
            y = top + (place + 0.5) * line
            figure.add_artist(
                Line2D(
                    [x, x + sample / 2, x + sample],
                    [y, y, y],
                    markevery=[1],
                    transform=inches,
                    **styles[i],
                )
            )
        axes = figure.add_axes(
            (
                (page.margin + left) / page.width,
                1 - (top + height) / page_height,
                width / page.width,
                height / page_height,
            )
        )
        _draw_axes(axes, table, page, has_ticks=has_ticks)
        for row, style in zip(table.kept, styles, strict=True):
            axes.plot(range(len(row)), row, clip_on=False, zorder=3, **style)

    page.artists.append(artist)
    page.y = top + height + below
    if has_ticks:
        page.line(table.names.meaning, size=_LEGEND, color=page.theme.soft)
    if heading:
        for note in table.notes:
            page.line(note, size=_LEGEND, color=page.theme.soft)


def _draw_axes(axes: Any, table: KeptTable, page: Page, *, has_ticks: bool) -> None:
    """Set up axes for the means of P(kept) at each hidden state."""
    count, families, theme = len(table.states), page.families, page.theme
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.15, count - 0.85)
    axes.set_facecolor("none")
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.set_xticks(range(count))
    if has_ticks:
        axes.set_xticklabels(table.names.ticks)
        axes.set_xlabel("hidden state", fontsize=9.5, family=families, color=theme.ink)
    else:
        axes.set_xticklabels(table.names.labels, rotation=_SLANT, ha="right")
    axes.set_ylabel("mean P(kept)", fontsize=9.5, family=families, color=theme.ink)
    for spine in ("top", "right", "left"):
        axes.spines[spine].set_visible(False)
    axes.spines["bottom"].set_color(theme.soft)
    axes.grid(axis="y", color=theme.line, linewidth=0.8)
    axes.tick_params(colors=theme.ink, labelsize=8.5, length=3, color=theme.soft)
    axes.tick_params(axis="y", length=0)
    for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        text.set_fontfamily(families)
