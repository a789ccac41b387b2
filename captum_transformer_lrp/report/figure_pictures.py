"""Pictures with scores over them in a figure: colours or lines of equal score."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .blocks import Heat, Pictures
from .colors import HEAT_NEGATIVE, HEAT_POSITIVE, Theme, from_hex
from .image import enlarge, heat, outlined, overlay
from .page import Page

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

LEVELS = (0.25, 0.5, 0.75)  # of contours, as shares of the limit
# In inches.
_SIDE, _WIDE, _TALLEST, _GAP = 3.9, 8.1, 7.0, 0.25
# In points.
_CAPTION, _NAME, _UNDER = 8.5, 9.5, 8.0


def draw_pictures(page: Page, pictures: Pictures) -> None:
    """Draw pictures beside each other, and further rows below."""
    if pictures.size == "large":
        _draw_large(page, pictures.pictures)
    else:
        _draw_equal(page, pictures.pictures, pictures.columns)


def pictures_width(pictures: Pictures) -> float:
    """Return how wide pictures are with their captions, in inches."""
    if pictures.size == "equal":
        return _WIDE
    width, _, across = _large(pictures.pictures)
    return _apart(width) + max(width, 1.3) if across == 2 else width


def contoured(heat: Heat) -> Image:
    """Return a picture in pale grey with lines of equal score, as pixels.

    Args:
        heat (Heat): The picture and its scores.
    """
    import PIL.Image
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image = _pale(enlarge(heat.image))
    factor = max(1.0, 640 / max(image.size))
    width, height = (max(1, round(factor * side)) for side in image.size)
    figure = Figure(figsize=(width / 120, height / 120), dpi=120)
    FigureCanvasAgg(figure)
    under = figure.add_axes((0, 0, 1, 1))
    under.imshow(np.asarray(image.resize((width, height))), aspect="auto")
    under.set_axis_off()
    _add_contours(figure.add_axes((0, 0, 1, 1)), heat.shares)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return PIL.Image.open(buffer).convert("RGB")


# ----------------------------------------------------------------------------- layout


def _draw_equal(page: Page, pictures: Sequence[Heat], across: int) -> None:
    """Draw pictures side by side, each as large as fits into a square."""
    gap = _GAP * min(1.0, 3 / across)
    side = (page.room - (across - 1) * gap) / across
    named = any(one.under for one in pictures)
    for start in range(0, len(pictures), across):
        row = pictures[start : start + across]
        sizes = [_fitted(one.image, side) for one in row]
        tallest = max(height for _, height in sizes)
        for number, (one, (width, height)) in enumerate(zip(row, sizes, strict=True)):
            x = page.margin + number * (side + gap)
            _draw_heat(page, one, x, width, height)
            _draw_caption(page, one, x, page.y + tallest, side, named=named)
        page.y += tallest + (0.62 if named else 0.42)


def _fitted(image: Image, side: float) -> tuple[float, float]:
    """Return width and height of a picture whose longer side is ``side`` inches."""
    scale = side / max(image.size)
    return scale * image.width, scale * image.height


def _draw_caption(
    page: Page, one: Heat, x: float, y: float, longest: float, *, named: bool
) -> None:
    """Write the caption of a picture that ends at ``y``, and what is under it."""
    soft = page.theme.soft
    size, color = (_NAME, page.theme.ink) if named else (_CAPTION, soft)
    caption = page.shortened(one.caption, size=size, longest=longest)
    if caption:
        page.text(x, y + 0.2, caption, size=size, color=color)
    if one.under:
        under = page.shortened(one.under, size=_UNDER, longest=longest)
        page.text(x, y + 0.37, under, size=_UNDER, color=soft)


def _large(pictures: Sequence[Heat]) -> tuple[float, float, int]:
    """Return width and height of large pictures, and how many stand in a row."""
    columns, rows = pictures[0].image.size
    ratio = columns / rows
    width = min(_WIDE if ratio >= 2 else _SIDE, _TALLEST * ratio)
    return width, width / ratio, 2 if len(pictures) > 1 and ratio < 2 else 1


def _apart(width: float) -> float:
    """Return how far apart two large pictures begin: at least as a caption is long."""
    return max(width, 0.75) + _GAP


def _draw_large(page: Page, pictures: Sequence[Heat]) -> None:
    """Draw one below the other, or two beside each other where they are not wide."""
    width, height, across = _large(pictures)
    for start in range(0, len(pictures), across):
        row = pictures[start : start + across]
        for number, one in enumerate(row):
            _draw_heat(page, one, page.margin + number * _apart(width), width, height)
        page.y += height
        if across == 1:
            _write_below(page, row[0])
            continue
        for number, one in enumerate(row):
            x = page.margin + number * _apart(width)
            last = page.margin + page.room - x
            longest = _apart(width) - 0.1 if number + 1 < len(row) else last
            _draw_caption(page, one, x, page.y, longest, named=False)
        below = 0.32 if any(one.caption for one in row) else 0.12
        page.y += below + 0.2 * any(one.under for one in row)


def _write_below(page: Page, one: Heat) -> None:
    """Write the caption of a picture that has the width of the page to itself."""
    page.y += 0.06
    for text, size in ((one.caption, _CAPTION), (one.under, _UNDER)):
        if text:
            page.line(text, size=size, color=page.theme.soft)
    page.y += 0.06


# ------------------------------------------------------------------------------ a heat


def _draw_heat(page: Page, one: Heat, x: float, width: float, height: float) -> None:
    """Draw a picture and its scores in a box whose top is the page's ``y``."""
    page.picture(x, page.y, width, height, _outlined(one, page.theme))
    if one.scores is None or one.style != "contours":
        return
    page.axes(x, page.y, width, height, lambda axes: _add_contours(axes, one.shares))


def _outlined(one: Heat, theme: Theme) -> np.ndarray:
    """Return the colours of a picture with its outlines."""
    import PIL.Image

    pixels = _pixels(one, theme)
    if not one.outlines:
        return pixels
    if pixels.dtype != np.uint8:
        pixels = (255 * pixels).round().astype(np.uint8)
    loops = [loop for outline in one.outlines for loop in outline.loops]
    image = PIL.Image.fromarray(pixels)
    return np.asarray(outlined(image, one.image.size, loops))


def _pixels(one: Heat, theme: Theme) -> np.ndarray:
    """Return the colours of a picture without its lines."""
    if one.scores is None or one.scale is None:
        return np.asarray(enlarge(one.image).convert("RGB"))
    if one.style == "heat":
        return heat(one.shares, from_hex(theme.paper))
    if one.style == "contours":
        return np.asarray(_pale(enlarge(one.image)))
    large, smooth = enlarge(one.image), one.style == "smooth"
    mixed = overlay(large, one.scores, limit=one.scale.limit, smooth=smooth)
    return np.asarray(mixed)


def _pale(image: Image) -> Image:
    """Return an image in pale grey, on which all colour is score."""
    return overlay(image, np.zeros((1, 1)))


def _add_contours(axes: Axes, shares: np.ndarray) -> None:
    """Draw lines of equal score on axes that the picture fills."""
    import matplotlib.patheffects

    rows, columns = shares.shape
    axes.set_axis_off()
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)
    axes.patch.set_alpha(0)
    if min(rows, columns) < 2:
        return
    # A cell's score is that of its middle; the edges of the picture repeat it.
    x = np.r_[0, np.arange(columns) + 0.5, columns]
    y = np.r_[0, np.arange(rows) + 0.5, rows]
    values = np.pad(shares, 1, mode="edge")
    casing = matplotlib.patheffects.withStroke(linewidth=2.8, foreground="white")
    for sign, color, dash in (
        (1, HEAT_POSITIVE, "solid"),
        (-1, HEAT_NEGATIVE, "dashed"),
    ):
        levels = [level for level in LEVELS if level < (sign * values).max()]
        if not levels:
            continue
        lines = axes.contour(
            x,
            y,
            sign * values,
            levels=levels,
            colors=[color],
            linewidths=[0.8 + 1.2 * level for level in levels],
            linestyles=dash,
        )
        lines.set_path_effects([casing])
