"""Explanations as one PNG, drawn with matplotlib's objects and no global state."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from .colors import LIGHT
from .image import MIDDLE_GREY, enlarge, heat, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..explanation import Explanation, ImageExplanation, TextExplanation

_WIDTH = 9.0  # inches
_MARGIN = 0.45
SOFT = "#5a626b"
LINE = "#e3e6e9"

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


def render_png(explanations: Sequence[Explanation], *, dpi: int = 160) -> bytes:
    """Return explanations below each other as PNG.

    Characters that no installed font has are drawn as boxes, with one warning.

    Args:
        explanations (Sequence[Explanation]): What to draw, in this order.
        dpi (int, optional): Pixels per inch; the figure is 9 inches wide.
            Default: 160
    """
    return write_figure(lambda: draw_figure(explanations), dpi=dpi)


def write_figure(
    draw: Callable[[], Figure], kind: str = "png", *, dpi: int = 160
) -> bytes:
    """Return a figure as a file, with one warning for all characters without a font.

    Args:
        draw (Callable): Returns the figure; measuring its text warns already.
        kind (str, optional): ``"png"``, ``"pdf"`` or ``"svg"``. Default: ``"png"``
        dpi (int, optional): Pixels per inch. Default: 160
    """
    buffer = io.BytesIO()
    missing = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        draw().savefig(buffer, format=kind, dpi=dpi)
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


def draw_figure(explanations: Sequence[Explanation]) -> Figure:
    """Return a matplotlib figure of explanations below each other.

    The figure belongs to no pyplot state: it can be drawn in any thread.
    """
    page = Page()
    for number, explanation in enumerate(explanations):
        if number:
            page.rule()
        _draw(page, explanation)
    return page.figure()


class Page:
    """Collects text, boxes and pictures at inches from the top left corner.

    The height of the page depends on how its text wraps; so each ``artist`` is kept as
    a function of the figure and its height, and drawn when both are known.

    Args:
        width (float, optional): In inches. Default: 9
        margin (float, optional): In inches, on all sides. Default: 0.45
    """

    def __init__(self, width: float = _WIDTH, margin: float = _MARGIN) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.margin = width, margin
        self.y = margin
        self.artists: list[Callable[[Figure, float], object]] = []
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
        figure = Figure(figsize=(self.width, height), facecolor=LIGHT.neutral)
        for artist in self.artists:
            artist(figure, height)
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
        color: str = LIGHT.ink,
        align: str = "left",
        rotation: float = 0,
    ) -> None:
        """Put text with its baseline at ``y``, beginning or ending at ``x``.

        Text with a ``rotation``, in degrees counter-clockwise, turns about that point.
        """
        self.artists.append(
            lambda figure, height: figure.text(
                x / self.width,
                1 - y / height,
                text,
                size=size,
                weight=weight,
                color=color,
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
        line: str = "none",
    ) -> None:
        """Fill a box from its top left corner."""
        from matplotlib.patches import FancyBboxPatch
        from matplotlib.transforms import Affine2D

        def artist(figure: Figure, page_height: float) -> None:
            inches = Affine2D().scale(1, -1).translate(0, page_height)
            style = (
                f"round,pad=0,rounding_size={rounding}" if rounding else "square,pad=0"
            )
            figure.add_artist(
                FancyBboxPatch(
                    (x, y),
                    width,
                    height,
                    boxstyle=style,
                    facecolor=color,
                    edgecolor=line,
                    linewidth=0.6,
                    zorder=-1,
                    transform=inches + figure.dpi_scale_trans,
                )
            )

        self.artists.append(artist)

    def picture(
        self, x: float, y: float, width: float, height: float, pixels: np.ndarray
    ) -> None:
        """Place pixels ``(rows, columns, 3)`` in a box from its top left corner."""

        def artist(figure: Figure, page_height: float) -> None:
            place = (
                x / self.width,
                1 - (y + height) / page_height,
                width / self.width,
                height / page_height,
            )
            axes = figure.add_axes(place)
            axes.imshow(pixels, interpolation="nearest", aspect="auto")
            axes.set_axis_off()

        self.artists.append(artist)

    def rule(self) -> None:
        """Draw a fine line between two explanations."""
        self.y += 0.2
        self.box(self.margin, self.y, self.room, 0.01, color=LINE)
        self.y += 0.42

    def line(
        self,
        text: str,
        *,
        size: float = 10,
        weight: str = "normal",
        color: str = LIGHT.ink,
    ) -> None:
        """Write text from the left margin, wrapped at spaces, and move below it."""
        room = self.room
        written = ""
        for word in text.split(" "):
            longer = f"{written} {word}" if written else word
            if written and self.measure(longer, size=size, weight=weight) > room:
                self._write(written, size, weight, color)
                longer = word
            written = longer
        self._write(written, size, weight, color)

    def _write(self, text: str, size: float, weight: str, color: str) -> None:
        self.y += size / 72
        self.text(self.margin, self.y, text, size=size, weight=weight, color=color)
        self.y += 0.5 * size / 72


def _draw(page: Page, explanation: Explanation) -> None:
    """Draw one explanation at the end of the page."""
    page.line(explanation.question, size=16, weight="bold")
    page.line(explanation.answer, color=SOFT)
    page.y += 0.2
    if explanation.kind == "text":
        _draw_tokens(page, cast("TextExplanation", explanation))
    else:
        _draw_pictures(page, cast("ImageExplanation", explanation))
    _draw_legend(page, explanation)
    for note in explanation.notes:
        page.line(note, size=8.5, color=SOFT)


def _draw_tokens(page: Page, explanation: TextExplanation) -> None:
    """Draw the text with each token on the colour of its score, wrapped at words.

    A text whose first letter is written from right to left runs from the right margin.
    """
    size, leading = 13.5, 0.4
    limit = explanation.limit
    right_to_left = _is_right_to_left(explanation.text)
    room = _WIDTH - 2 * _MARGIN
    space = page.measure("n n", size=size) - page.measure("nn", size=size)
    widths = [
        page.measure(p.label, size=9 if p.special else size) + 0.04
        for p in explanation.pieces
    ]
    x = 0.0
    for i, (piece, score) in enumerate(
        zip(explanation.pieces, explanation.scores, strict=True)
    ):
        if x and piece.space_before:
            x += space
        word = widths[i]  # up to the next place where the line may break
        for later in range(i + 1, len(widths)):
            if explanation.pieces[later].space_before or word > room / 3:
                break
            word += widths[later]
        may_break = piece.space_before or x + widths[i] > room
        if x and may_break and x + min(word, room) > room:
            x = 0.0
            page.y += leading
        left = _MARGIN + (room - x - widths[i] if right_to_left else x)
        color = LIGHT.hex(score / limit)
        page.box(left, page.y, widths[i], 0.29, color=color, rounding=0.04)
        page.text(
            left + 0.02,
            page.y + 0.21,
            piece.label,
            size=9 if piece.special else size,
            color=SOFT if piece.special and abs(score) < 0.3 * limit else LIGHT.ink,
        )
        x += widths[i]
    page.y += leading + 0.12


def _draw_pictures(page: Page, explanation: ImageExplanation) -> None:
    """Draw the picture, the scores of its patches and of its pixels, if there are."""
    gap = 0.25
    side = (_WIDTH - 2 * _MARGIN - 2 * gap) / 3
    columns, rows = explanation.image.size
    scale = min(side / columns, side / rows)
    large = enlarge(explanation.image)
    name = explanation.quantity.capitalize()
    pictures = [
        (large, "What the model saw"),
        (overlay(large, explanation.cells), f"{name} of each {explanation.unit}"),
    ]
    if explanation.has_pixels:
        fine = overlay(large, explanation.scores)
        pictures.append((fine, f"{name} of each pixel, own scale"))
    for number, (image, caption) in enumerate(pictures):
        x = _MARGIN + number * (side + gap)
        page.picture(x, page.y, columns * scale, rows * scale, np.asarray(image))
        page.text(x, page.y + rows * scale + 0.2, caption, size=8.5, color=SOFT)
    page.y += rows * scale + 0.42


def _draw_legend(page: Page, explanation: Explanation) -> None:
    """Draw the colour bar with its ends, and the facts beside it."""
    low, high = explanation.scale_ends
    shares = np.linspace(explanation.scale_start, 1, 201)
    if explanation.kind == "text":
        colors = LIGHT.rgb(shares)
    else:
        colors = heat(shares, MIDDLE_GREY)
    x = _MARGIN
    baseline = page.y + 0.13
    for text in (low, "", high):
        if text:
            page.text(x, baseline, text, size=8.5, color=SOFT)
            x += page.measure(text, size=8.5) + 0.1
        else:
            page.box(x - 0.005, page.y - 0.005, 1.61, 0.16, color=LINE)
            page.picture(x, page.y, 1.6, 0.15, colors[None])
            x += 1.7
    facts = "    ".join(
        f"{name} {value}"
        for name, value in explanation.facts
        if name in ("Logit", "Sum of relevance", "Method")
    )
    page.text(_WIDTH - _MARGIN, baseline, facts, size=8.5, color=SOFT, align="right")
    page.y += 0.3


def _is_right_to_left(text: str) -> bool:
    """Return whether the first strong letter is written from right to left."""
    for character in text:
        direction = unicodedata.bidirectional(character)
        if direction in ("R", "AL"):
            return True
        if direction == "L":
            return False
    return False


def _families() -> list[str]:
    """Return the installed fonts for many scripts, in the order of preference."""
    from matplotlib import font_manager

    installed = {entry.name for entry in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in installed]
