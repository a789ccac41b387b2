"""Grids of scores in a figure, and lines between two rows of labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .blocks import Axis, Grid, Pairs, pool_largest
from .page import Page

# In inches.
_ROW, _LEAST_CELL, _WIDEST_CELL, _WIDEST_TURNED = 0.25, 0.16, 0.62, 0.42
_SPACING, _TURNED_SPACING = 0.125, 0.16  # of labels, at least
_LONGEST, _LONGEST_SMALL = 1.4, 0.8  # of a label
_TALLEST = 7.5  # of a grid whose columns are not cut into runs
_GAP, _MEANS_GAP = 0.16, 0.1
# In points.
_LABEL, _SMALL, _NUMBER, _CAPTION = 9.0, 7.0, 7.0, 8.5
_ANGLE = math.radians(60)  # of labels of columns
_FEW_ROWS = 40  # up to which columns are cut into runs
_PER_ROW = 4  # panels side by side
_MOST_CELLS = 4000  # beyond which cells are pixels
_PER_INCH = 100  # pixels, at most; of more cells the largest is shown
_MEAN = "mean"

LINES_WIDTH = 2.6  # inches between the tokens of pairs
_LINES_ROW, _LINES_TALLEST, _LINES_SPACING = 0.22, 18.0, 0.135


def draw_grid(page: Page, grid: Grid) -> None:
    """Draw a grid, or several beside each other, as large as the page has room."""
    if _has_runs(grid):
        _draw_runs(page, grid)
    else:
        _draw_panels(page, grid)
    page.y += 0.12


def grid_width(page: Page, grid: Grid) -> float:
    """Return how wide a grid is on that page, in inches, with its labels."""
    if _has_runs(grid):
        return _Runs(page, grid).width
    layout = _Panels(page, grid)
    count = min(layout.across, len(grid.panels))
    inner = count * layout.cell[0] * len(grid.columns) + (count - 1) * _GAP
    return layout.left + inner + layout.lean


def _has_runs(grid: Grid) -> bool:
    """Return whether columns are cut into runs, each row as high as its label."""
    few = len(grid.rows) <= _FEW_ROWS or grid.means is not None
    return few and len(grid.panels) == 1


# ------------------------------------------------------------------------------- runs


class _Runs:
    """Where the cells of a grid stand: as many columns side by side as have room."""

    def __init__(self, page: Page, grid: Grid) -> None:
        self.left = _label_width(page, grid.rows, _LABEL)
        self.means: float = _means_width(page, grid)
        room = page.room - self.left - self.means + 1e-6
        self.runs = list(grid.columns.runs(max(2, int(room / _LEAST_CELL))))
        most = max(run.stop - run.start for run in self.runs)
        widest = _label_width(page, grid.columns, _LABEL)
        self.cell = min(_WIDEST_CELL, room / most)
        self.turned = widest > self.cell
        lean = 0.0
        if self.turned:
            lean = _lean(page, grid.columns, _LABEL, _LONGEST)
            beyond = max(0.0, lean - self.means)
            self.cell = min(_WIDEST_TURNED, (room - beyond) / most)
        self.width: float = self.left + most * self.cell + max(self.means, lean)


def _means_width(page: Page, grid: Grid) -> float:
    """Return the room beside the cells for one number of each row, with its gap."""
    if grid.means is None:
        return 0.0
    written = [grid.scale.write(float(mean)) for mean in grid.means]
    widest = max(page.measure(text, size=_CAPTION) for text in written)
    return _MEANS_GAP + max(widest, page.measure(_MEAN, size=_LABEL))


def _draw_runs(page: Page, grid: Grid) -> None:
    layout = _Runs(page, grid)
    cell, x = layout.cell, page.margin + layout.left
    for number, run in enumerate(layout.runs):
        page.y += 0.2 * bool(number)
        turned = layout.turned
        _draw_columns(page, x, cell, grid.columns, run, _LABEL, turned=turned)
        _draw_rows(page, x, _ROW, grid.rows, _LABEL)
        if run.stop == len(grid.columns):
            _draw_means(page, x + (run.stop - run.start) * cell, grid, layout)
        _draw_cells(page, x, grid, grid.panels[0].values, (cell, _ROW), run)
        page.y += len(grid.rows) * _ROW


def _draw_means(page: Page, x: float, grid: Grid, layout: _Runs) -> None:
    """Write the mean of each row beside the cells, which end at ``x``."""
    if grid.means is None:
        return
    soft = page.theme.soft
    x += _MEANS_GAP
    if layout.turned:
        at = x + 0.35 * _LABEL / 72
        angle = math.degrees(_ANGLE)
        page.text(at, page.y - 0.06, _MEAN, size=_LABEL, color=soft, rotation=angle)
    else:
        middle = x + (layout.means - _MEANS_GAP) / 2
        page.text(middle, page.y - 0.06, _MEAN, size=_LABEL, color=soft, align="center")
    for row, mean in enumerate(grid.means):
        y = page.y + (row + 0.5) * _ROW + 0.36 * _CAPTION / 72
        written = grid.scale.write(float(mean))
        right = x + layout.means - _MEANS_GAP
        page.text(right, y, written, size=_CAPTION, color=soft, align="right")


# ------------------------------------------------------------------ one, and several


class _Panels:
    """Where panels stand: one as large as the page, or small ones beside each other."""

    def __init__(self, page: Page, grid: Grid) -> None:
        count, rows, columns = len(grid.panels), len(grid.rows), len(grid.columns)
        self.longest = _LONGEST if count == 1 else _LONGEST_SMALL
        self.left = _label_width(page, grid.rows, _SMALL, self.longest)
        self.lean: float = _lean(page, grid.columns, _SMALL, self.longest)
        self.across = 1 if count == 1 else 2 if count <= _PER_ROW else _PER_ROW
        room = page.room - self.left - self.lean - (self.across - 1) * _GAP
        room /= self.across
        width = min(0.3, room / columns)
        height = min(width, 2 * room / rows)
        if count == 1:
            height = min(0.3, _TALLEST / rows)
            if max(width, height) < 3 * min(width, height):
                width = height = min(width, height)
        self.cell = width, height


def _draw_panels(page: Page, grid: Grid) -> None:
    """Draw panels, with as many labels on the left and on top as have room."""
    layout = _Panels(page, grid)
    (width, height), longest = layout.cell, layout.longest
    columns, every = grid.columns, slice(0, len(grid.columns))
    for start in range(0, len(grid.panels), layout.across):
        top = page.y
        for number, panel in enumerate(grid.panels[start : start + layout.across]):
            page.y = top
            x = page.margin + layout.left + number * (width * len(columns) + _GAP)
            if not start:
                _draw_columns(page, x, width, columns, every, _SMALL, longest=longest)
            if not number:
                _draw_rows(page, x, height, grid.rows, _SMALL, longest=longest)
            _draw_cells(page, x, grid, panel.values, layout.cell, every)
            page.y += height * len(grid.rows)
            if len(grid.panels) > 1:
                page.y += 0.17
                most = max(width * len(columns), 0.5)
                name = page.shortened(panel.name, size=_CAPTION, longest=most)
                page.text(x, page.y, name, size=_CAPTION, color=page.theme.soft)
        page.y += 0.16 * (len(grid.panels) > 1)


# ------------------------------------------------------------------------------ cells


def _draw_cells(
    page: Page,
    x: float,
    grid: Grid,
    values: np.ndarray,
    cell: tuple[float, float],
    run: slice,
) -> None:
    """Fill cells from the page's ``y`` down; those with room have their number."""
    values = values[:, run]
    shares = values / grid.scale.limit
    if values.size > _MOST_CELLS:
        _draw_pixels(page, x, grid, shares, cell)
    else:
        colors = page.theme.rgb(shares, signed=grid.scale.diverging)
        page.cells(x, page.y, cell, colors)
        if cell[1] >= 0.15 and len(grid.panels) == 1:
            _draw_numbers(page, x, grid, values, cell)
    fixed = [i for i, is_fixed in enumerate(grid.fixed[run]) if is_fixed]
    if fixed:
        _draw_hatches(page, x, cell, len(values), fixed)


def _draw_pixels(
    page: Page, x: float, grid: Grid, shares: np.ndarray, cell: tuple[float, float]
) -> None:
    """Draw very many cells as a picture, pooled where they are finer than it."""
    height, width = cell[1] * len(shares), cell[0] * shares.shape[1]
    most = max(1, round(_PER_INCH * height)), max(1, round(_PER_INCH * width))
    pooled = pool_largest(shares, most)
    colors = page.theme.rgb(pooled, signed=grid.scale.diverging)
    frame = x - 0.01, page.y - 0.01, width + 0.02, height + 0.02
    page.box(*frame, color=page.theme.line)
    page.picture(x, page.y, width, height, colors)


def _draw_numbers(
    page: Page, x: float, grid: Grid, values: np.ndarray, cell: tuple[float, float]
) -> None:
    """Write the score of each cell, where the longest of them has room."""
    written = [[grid.scale.brief(float(v)) for v in row] for row in values]
    longest = max((text for row in written for text in row), key=len)
    if page.measure(longest, size=_NUMBER) + 0.06 > cell[0]:
        return
    for (row, column), value in np.ndenumerate(values):
        share = grid.scale.share(value)
        page.text(
            x + (column + 0.5) * cell[0],
            page.y + (row + 0.5) * cell[1] + 0.36 * _NUMBER / 72,
            written[row][column],
            size=_NUMBER,
            color=page.theme.ink_on(share, signed=grid.scale.diverging),
            align="center",
        )


def _draw_hatches(
    page: Page, x: float, cell: tuple[float, float], rows: int, columns: Sequence[int]
) -> None:
    """Hatch columns whose cells could not be otherwise."""
    from matplotlib.patches import Rectangle

    width, height = cell
    for column in columns:
        page.add(
            Rectangle(
                (x + column * width, page.y),
                width,
                rows * height,
                fill=False,
                hatch="///",
                edgecolor=f"{page.theme.paper}80",
                linewidth=0,
                zorder=-0.5,
            )
        )


# ----------------------------------------------------------------------------- labels


def _label_width(
    page: Page, axis: Axis, size: float, longest: float = _LONGEST
) -> float:
    """Return the width of the widest label and the gap beside it, in inches."""
    # Measuring takes time: of very many labels, those of most bytes are measured.
    labels = sorted(set(axis.labels), key=lambda label: len(label.encode()))[-200:]
    widest = max(page.measure(label, size=size) for label in labels)
    return min(widest, longest) + 0.1


def _lean(page: Page, axis: Axis, size: float, longest: float) -> float:
    """Return how far turned labels reach beyond the right end of their columns."""
    widest = max(page.measure(label, size=size) for label in axis.labels[-5:])
    return min(widest, longest) * math.cos(_ANGLE)


def _step(spacing: float, least: float = _SPACING) -> int:
    """Return at which distance labels have room, in rows or columns."""
    return max(1, math.ceil(least / spacing - 1e-9))


def _draw_columns(
    page: Page,
    x0: float,
    cell: float,
    axis: Axis,
    run: slice,
    size: float,
    *,
    longest: float = _LONGEST,
    turned: bool = True,
) -> None:
    """Write the labels of columns above a grid; ``page.y`` moves to its top."""
    least = _TURNED_SPACING if turned and cell < _LEAST_CELL else _SPACING
    chosen = range(run.start, run.stop, _step(cell, least))
    labels = [
        page.shortened(axis.labels[i], size=size, longest=longest) for i in chosen
    ]
    if turned:
        # At least as long as the head of a column of means.
        length = max(0.35, *(page.measure(label, size=size) for label in labels))
        page.y += length * math.sin(_ANGLE) + size / 72 * math.cos(_ANGLE) + 0.04
    else:
        page.y += 1.4 * size / 72
    for i, label in zip(chosen, labels, strict=True):
        page.text(
            x0 + (i - run.start + 0.5) * cell + 0.35 * size / 72 * turned,
            page.y - 0.06,
            label,
            size=size,
            color=page.theme.soft if axis.is_special(i) else page.theme.ink,
            align="left" if turned else "center",
            rotation=math.degrees(_ANGLE) * turned,
        )


def _draw_rows(
    page: Page,
    x0: float,
    cell: float,
    axis: Axis,
    size: float,
    *,
    longest: float = _LONGEST,
) -> None:
    """Write the labels of rows to the left of a grid, from the page's ``y`` down."""
    for i in range(0, len(axis), _step(cell)):
        label = page.shortened(axis.labels[i], size=size, longest=longest)
        y = page.y + (i + 0.5) * cell + 0.36 * size / 72
        color = page.theme.soft if axis.is_special(i) else page.theme.ink
        page.text(x0 - 0.08, y, label, size=size, color=color, align="right")


# ------------------------------------------------------------------------------ pairs


def draw_pairs(page: Page, pairs: Pairs) -> None:
    """Draw two columns of labels with lines between them."""
    most = max(len(pairs.left), len(pairs.right))
    row = min(_LINES_ROW, _LINES_TALLEST / most)
    # No wider than the page that pairs have to themselves.
    side = min((page.room - LINES_WIDTH) / 2, 1.6)
    x0 = page.margin + side
    x1 = x0 + LINES_WIDTH
    page.y += 0.12
    soft = page.theme.soft
    page.text(x0, page.y, pairs.left.name, size=_CAPTION, color=soft, align="right")
    page.text(x1, page.y, pairs.right.name, size=_CAPTION, color=soft)
    page.y += 0.1
    _draw_side(page, pairs.left, x0 - 0.08, row, side, "right")
    _draw_side(page, pairs.right, x1 + 0.08, row, side, "left")
    _draw_lines(page, pairs, (x0, x1), row)
    page.y += most * row + 0.12
    unit = f"strongest line: {pairs.scale.write(pairs.scale.limit)} {pairs.scale.unit}"
    page.line(unit.strip(), size=_CAPTION, color=soft)


def _draw_side(
    page: Page, axis: Axis, x: float, row: float, side: float, align: str
) -> None:
    """Write the labels of one side, as many as have room."""
    step = _step(row, _LINES_SPACING)
    size = min(_LABEL, 60 * row * step)
    for i in range(0, len(axis), step):
        label = page.shortened(axis.labels[i], size=size, longest=side - 0.1)
        y = page.y + (i + 0.5) * row + 0.36 * size / 72
        color = page.theme.soft if axis.is_special(i) else page.theme.ink
        page.text(x, y, label, size=size, color=color, align=align)


def _draw_lines(
    page: Page, pairs: Pairs, ends: tuple[float, float], row: float
) -> None:
    """Draw the lines, the stronger the wider and the less transparent."""
    colors = page.theme.positive_line, page.theme.negative_line
    (x0, x1), top = ends, page.y
    if not pairs.lines:
        return
    from matplotlib.collections import LineCollection

    strengths = [min(1.0, abs(share)) for *_, share in pairs.lines]
    page.add(
        LineCollection(
            [
                [(x0, top + (a + 0.5) * row), (x1, top + (b + 0.5) * row)]
                for a, b, _ in pairs.lines
            ],
            colors=[colors[share < 0] for *_, share in pairs.lines],
            alpha=strengths,
            linewidths=[0.6 + 1.9 * strength for strength in strengths],
            zorder=-1,
        )
    )
