"""A page of text, boxes and pictures, drawn with matplotlib and no global state."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .colors import find_theme

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Transform

WIDTH = 9.0  # inches
MARGIN = 0.45

# Tried in this order; those that are not installed are left out.
_FONTS = (
    "Inter",
    "Noto Sans",
    "DejaVu Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
)


class Page:
    """Collects text, boxes and pictures at inches from the top left corner.

    The height of the page depends on how its text wraps; so what is drawn is kept as
    functions of the figure and its height, until both are known.

    Args:
        width (float, optional): In inches. Default: 9
        margin (float, optional): In inches, on all sides. Default: 0.45
        theme (str, optional): Its colours, ``"light"`` or ``"dark"``.
            Default: ``"light"``

    Raises:
        UnknownNameError: There is no such theme.
    """

    def __init__(
        self, width: float = WIDTH, margin: float = MARGIN, *, theme: str = "light"
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.theme = find_theme(theme)
        self.width, self.margin = width, margin
        self.y = margin
        self._drawn: list[Callable[[Figure, float], object]] = []
        self.families = _families()
        self._widths: dict[tuple[str, float, str], float] = {}
        self._scratch = Figure(figsize=(width, 1.0), dpi=100)
        self._canvas = FigureCanvasAgg(self._scratch)

    @property
    def room(self) -> float:
        """The width between the margins, in inches."""
        return self.width - 2 * self.margin

    def figure(self) -> Figure:
        """Return the figure, as tall as what was collected."""
        from matplotlib.figure import Figure

        height = self.y + self.margin
        figure = Figure(figsize=(self.width, height), facecolor=self.theme.paper)
        for draw in self._drawn:
            draw(figure, height)
        return figure

    def measure(self, text: str, *, size: float, weight: str = "normal") -> float:
        """Return the width of text in inches."""
        known = self._widths.get((text, size, weight))
        if known is not None:
            return known
        drawn = self._scratch.text(
            0,
            0,
            text,
            size=size,
            weight=weight,
            family=self.families,
            parse_math=False,
        )
        width = drawn.get_window_extent(self._canvas.get_renderer()).width
        drawn.remove()
        self._widths[text, size, weight] = float(width) / 100
        return float(width) / 100

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 10,
        weight: str = "normal",
        color: str | None = None,
        align: str = "left",
        rotation: float = 0,
    ) -> None:
        """Put text with its baseline at ``y``, beginning or ending at ``x``.

        Text with a ``rotation``, in degrees counter-clockwise, turns about that point.
        Without a ``color`` it has that of the theme's ink.
        """
        ink = self.theme.ink if color is None else color
        self._drawn.append(
            lambda figure, height: figure.text(
                x / self.width,
                1 - y / height,
                text,
                size=size,
                weight=weight,
                color=ink,
                family=self.families,
                va="baseline",
                ha=align,
                rotation=rotation,
                rotation_mode="anchor",
                parse_math=False,
            )
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        color: str,
        rounding: float = 0.0,
    ) -> None:
        """Fill a box from its top left corner."""
        from matplotlib.patches import FancyBboxPatch

        style = f"round,pad=0,rounding_size={rounding}" if rounding else "square,pad=0"
        self.add(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle=style,
                facecolor=color,
                edgecolor="none",
                zorder=-1,
            )
        )

    def add(self, artist: Artist) -> None:
        """Draw an artist, placed by inches from the top left corner."""

        def draw(figure: Figure, height: float) -> None:
            artist.set_transform(_in_inches(figure))
            figure.add_artist(artist)

        self._drawn.append(draw)

    def axes(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: Callable[[Axes], object],
    ) -> None:
        """Draw on axes in a box from its top left corner."""
        self._drawn.append(
            lambda figure, page_height: fill(
                figure.add_axes(
                    (
                        x / self.width,
                        1 - (y + height) / page_height,
                        width / self.width,
                        height / page_height,
                    )
                )
            )
        )

    def picture(
        self, x: float, y: float, width: float, height: float, pixels: np.ndarray
    ) -> None:
        """Place pixels ``(rows, columns, 3)`` in a box from its top left corner."""

        def fill(axes: Axes) -> None:
            axes.imshow(pixels, interpolation="nearest", aspect="auto")
            axes.set_axis_off()

        self.axes(x, y, width, height, fill)

    def rule(self) -> None:
        """Draw a fine line between two explanations."""
        self.y += 0.2
        self.box(self.margin, self.y, self.room, 0.01, color=self.theme.line)
        self.y += 0.42

    def line(
        self,
        text: str,
        *,
        size: float = 10,
        weight: str = "normal",
        color: str | None = None,
    ) -> float:
        """Write text from the left margin, wrapped, and move below it.

        Lines break at spaces, and within words that are wider than the page. Returns
        the width of the last line, in inches.
        """
        room = self.room
        written = ""
        words = [
            part
            for word in text.split(" ")
            for part in self.broken(word, size=size, weight=weight, room=room)
        ]
        for word in words:
            longer = f"{written} {word}" if written else word
            if written and self.measure(longer, size=size, weight=weight) > room:
                self._write(written, size, weight, color)
                longer = word
            written = longer
        self._write(written, size, weight, color)
        return self.measure(written, size=size, weight=weight)

    def broken(
        self, word: str, *, size: float, weight: str = "normal", room: float
    ) -> list[str]:
        """Return a word in parts of which none is wider than ``room`` inches."""
        parts = []
        while len(word) > 1 and (
            (width := self.measure(word, size=size, weight=weight)) > room
        ):
            kept = max(1, int(len(word) * room / width))  # about; then by the letter
            while (
                kept > 1 and self.measure(word[:kept], size=size, weight=weight) > room
            ):
                kept -= 1
            parts.append(word[:kept])
            word = word[kept:]
        return [*parts, word]

    def shortened(self, text: str, *, size: float, longest: float) -> str:
        """Return text that is at most ``longest`` inches long, its end cut off."""
        length = self.measure(text, size=size)
        if length <= longest:
            return text
        kept = math.ceil(len(text) * longest / length)  # about; then by the letter
        while kept > 1 and self.measure(f"{text[:kept]}…", size=size) > longest:
            kept -= 1
        return f"{text[:kept]}…"

    def cells(
        self, x: float, y: float, cell: tuple[float, float], colors: np.ndarray
    ) -> None:
        """Fill a grid of cells, each ``(width, height)`` inches, from its top left.

        Args:
            x (float): Left end of the grid, in inches.
            y (float): Its top.
            cell (tuple of float): Width and height of a cell.
            colors (np.ndarray): sRGB in [0, 1], shape ``(rows, columns, 3)``.
        """
        from matplotlib.collections import PatchCollection
        from matplotlib.patches import Rectangle

        width, height = cell
        rows, columns, _ = colors.shape
        # Matplotlib does not count collections where it cuts off margins.
        self.box(x, y, columns * width, rows * height, color="none")
        self.add(
            PatchCollection(
                [
                    Rectangle((x + column * width, y + row * height), width, height)
                    for row in range(rows)
                    for column in range(columns)
                ],
                facecolors=colors.reshape(-1, 3),
                edgecolors=self.theme.line,
                linewidths=0.5,
                zorder=-1,
            )
        )

    def legend(
        self,
        low: str,
        high: str,
        colors: np.ndarray,
        *,
        unit: str = "",
        beside: str = "",
    ) -> None:
        """Draw a colour bar between its ends, then its unit, and move below it.

        Args:
            low (str): What stands before the bar.
            high (str): What stands behind it.
            colors (np.ndarray): sRGB in [0, 1] from the low end to the high one, shape
                ``(steps, 3)``.
            unit (str, optional): What the ends count. Default: ``""``
            beside (str, optional): Text at the right margin. Default: ``""``
        """
        x, baseline, soft = self.margin, self.y + 0.13, self.theme.soft
        self.text(x, baseline, low, size=8.5, color=soft)
        x += self.measure(low, size=8.5) + 0.1
        self.box(x - 0.005, self.y - 0.005, 1.61, 0.16, color=self.theme.line)
        self.picture(x, self.y, 1.6, 0.15, colors[None])
        x += 1.7
        self.text(x, baseline, high, size=8.5, color=soft)
        x += self.measure(high, size=8.5) + 0.2
        right = self.margin + self.room
        if beside:
            self.text(right, baseline, beside, size=8.5, color=soft, align="right")
            right -= self.measure(beside, size=8.5) + 0.2
        if unit and x + self.measure(unit, size=8.5) <= right:
            self.text(x, baseline, unit, size=8.5, color=soft)
            unit = ""
        self.y += 0.3
        if unit:
            self.line(unit, size=8.5, color=soft)

    def _write(self, text: str, size: float, weight: str, color: str | None) -> None:
        self.y += size / 72
        self.text(self.margin, self.y, text, size=size, weight=weight, color=color)
        self.y += 0.5 * size / 72


def _in_inches(figure: Figure) -> Transform:
    """Return the way from inches, counted from the top left corner, to the figure.

    It goes through the frame of the figure, not through its resolution, so that it
    still holds where only a part is drawn (``bbox_inches="tight"``, as in notebooks).
    """
    from matplotlib.transforms import Affine2D

    width, height = figure.get_size_inches()
    return Affine2D().scale(1 / width, -1 / height).translate(0, 1) + figure.transFigure


def write_figure(
    draw: Callable[[], Figure],
    kind: str = "png",
    *,
    dpi: int = 160,
    title: str = "",
    alt: str = "",
) -> bytes:
    """Return a figure as a file, with one warning for all characters without a font.

    Args:
        draw (Callable): Returns the figure; measuring its text warns already.
        kind (str, optional): ``"png"``, ``"pdf"`` or ``"svg"``. Default: ``"png"``
        dpi (int, optional): Pixels per inch. Default: 160
        title (str, optional): Written into the file's metadata. Default: ``""``
        alt (str, optional): The picture in words, written into the file's metadata:
            ``Description`` of a PNG or SVG, ``Subject`` of a PDF. Default: ``""``
    """
    buffer = io.BytesIO()
    missing = 0
    described = "Subject" if kind == "pdf" else "Description"
    metadata = {k: v for k, v in (("Title", title), (described, alt)) if v}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw().savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    for given in {(str(w.message), w.category): w for w in caught}.values():
        if re.fullmatch(r"Glyph .* missing from font.*", str(given.message)):
            missing += 1
        else:
            warnings.warn_explicit(
                given.message, given.category, given.filename, given.lineno
            )
    if missing:
        warnings.warn(
            f"no installed font has {missing} of the characters in this picture: they "
            "are drawn as boxes; install a font such as Noto, or save as .html",
            UserWarning,
            stacklevel=3,
        )
    return buffer.getvalue()


def _families() -> list[str]:
    """Return the installed fonts for many scripts, in the order of preference."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in installed]
