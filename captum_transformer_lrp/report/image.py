"""Heat maps over a picture, as plain pictures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .colors import HEAT_NEGATIVE, HEAT_POSITIVE, from_hex, scale_limit

if TYPE_CHECKING:
    from PIL.Image import Image

# The strongest colour still lets the picture shine through.
STRONGEST = 0.9
# What stands for the picture in a colour bar.
MIDDLE_GREY = (0.765, 0.765, 0.765)
# Of lines over a picture, which are no scores.
LINE = "#1b1b1b"


def heat(shares: np.ndarray, under: np.ndarray | Sequence[float]) -> np.ndarray:
    """Return the colours of scores over a picture: more cover for more relevance.

    Args:
        shares (np.ndarray): Scores as shares of the limit, in [-1, 1]; zero leaves the
            picture as it is, and 1 or -1 cover it by :data:`STRONGEST`.
        under (np.ndarray or Sequence[float]): The picture below, sRGB in [0, 1], shape
            ``(3,)`` or ``shares.shape + (3,)``.

    Returns:
        *np.ndarray* of shape ``shares.shape + (3,)``.
    """
    share = np.clip(shares, -1, 1)[..., None]
    ends = np.where(share >= 0, from_hex(HEAT_POSITIVE), from_hex(HEAT_NEGATIVE))
    cover = STRONGEST * np.abs(share)
    return np.asarray((1 - cover) * np.asarray(under) + cover * ends)


def enlarge(image: Image, *, least: int = 384) -> Image:
    """Enlarge a small picture by a whole factor, its pixels kept sharp.

    Args:
        image (PIL.Image.Image): The picture.
        least (int, optional): The longer side is at least this long afterwards.
            Default: 384
    """
    factor = max(1, math.ceil(least / max(image.size)))
    width, height = image.size
    return image.resize((factor * width, factor * height), resample=0)


def overlay(
    image: Image,
    scores: np.ndarray,
    *,
    limit: float | None = None,
    smooth: bool = False,
) -> Image:
    """Lay signed scores over a picture, orange for positive and blue for negative.

    The picture is turned to a pale grey, so that all colour is relevance.

    Args:
        image (PIL.Image.Image): The picture.
        scores (np.ndarray): Scores ``(rows, columns)`` of pixels, or of patches that
            divide the picture evenly.
        limit (float, optional): The magnitude of the strongest colour.
            Default: the largest magnitude among the scores
        smooth (bool, optional): Whether scores between the middles of patches are
            interpolated linearly; at the middles they are exact. Default: False

    Returns:
        *PIL.Image.Image* of the size of ``image``, or larger by a whole factor where
        the scores are finer.
    """
    import PIL.Image

    shares = np.asarray(scores, dtype=float) / (limit or scale_limit(scores))
    rows, columns = shares.shape
    width, height = max(image.width, columns), max(image.height, rows)
    grey = np.asarray(image.convert("L").resize((width, height)), dtype=float) / 255
    pale = np.repeat((0.56 + 0.42 * grey)[..., None], 3, axis=-1)
    if smooth:
        shown = _between(_between(shares, height, axis=0), width, axis=1)
    else:
        row = np.arange(height) * rows // height
        column = np.arange(width) * columns // width
        shown = shares[row][:, column]
    mixed = heat(shown, pale)
    return PIL.Image.fromarray((255 * mixed).round().astype(np.uint8))


def _between(values: np.ndarray, length: int, *, axis: int) -> np.ndarray:
    """Return values interpolated along an axis; beyond the middles of the ends theirs.

    Args:
        values (np.ndarray): One for each cell, shape ``(rows, columns)``.
        length (int): How many there are along the axis afterwards.
        axis (int): The axis.
    """
    count = values.shape[axis]
    place = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    low = np.minimum(place.astype(int), max(count - 2, 0))
    share = np.expand_dims(place - low, 1 - axis)
    after = np.take(values, np.minimum(low + 1, count - 1), axis)
    return np.asarray((1 - share) * np.take(values, low, axis) + share * after)


def loops_around(inside: np.ndarray) -> list[list[tuple[int, int]]]:
    """Return the corners ``(x, y)`` of the lines between a region and the rest.

    Each line is a closed loop along the edges of pixels, with the region to its right.

    Args:
        inside (np.ndarray): Booleans, shape ``(height, width)``.
    """
    padded = np.pad(np.asarray(inside, dtype=bool), 1)
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for axis, towards, start, end in (
        (0, -1, (0, 0), (1, 0)),  # what is above is outside: to the right
        (1, 1, (1, 0), (1, 1)),
        (0, 1, (1, 1), (0, 1)),
        (1, -1, (0, 1), (0, 0)),
    ):
        edges = padded & ~np.roll(padded, -towards, axis=axis)
        for y, x in (np.argwhere(edges) - 1).tolist():
            step = x + end[0], y + end[1]
            steps.setdefault((x + start[0], y + start[1]), []).append(step)
    loops = []
    while steps:
        first = place = next(iter(steps))
        loop: list[tuple[int, int]] = []
        while True:
            following = steps[place].pop()
            if not steps[place]:
                del steps[place]
            loop.append(place)
            place = following
            if place == first:
                break
        loops.append(_corners(loop))
    return loops


def _corners(loop: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the places of a closed loop where it turns."""
    return [
        here
        for before, here, after in zip(
            [loop[-1], *loop[:-1]], loop, [*loop[1:], loop[0]], strict=True
        )
        if not (before[0] == here[0] == after[0] or before[1] == here[1] == after[1])
    ]


def outlined(
    image: Image,
    size: tuple[int, int],
    loops: Sequence[Sequence[tuple[float, float]]],
) -> Image:
    """Draw closed lines on a picture, dark with a white edge.

    Args:
        image (PIL.Image.Image): The picture, which is left as it is.
        size (tuple of int): Width and height that the corners refer to.
        loops (sequence): The corners ``(x, y)`` of each line.
    """
    import PIL.ImageDraw

    if not loops:
        return image
    drawn = image.copy() if image.mode in ("RGB", "RGBA") else image.convert("RGB")
    draw = PIL.ImageDraw.Draw(drawn)
    width = max(2, round(max(drawn.size) / 96))
    white = 2 * width
    # Along the sides of the picture a line stands inside as a whole.
    far = drawn.width - 1 - white // 2, drawn.height - 1 - white // 2
    lines = [
        [
            tuple(
                min(max(place * side / given, white // 2), most)
                for place, side, given, most in zip(
                    corner, drawn.size, size, far, strict=True
                )
            )
            for corner in (*loop, *loop[:2])  # so that the corner is closed, too
        ]
        for loop in loops
    ]
    for color, thick in (("white", white), (LINE, width)):
        for line in lines:
            draw.line(line, fill=color, width=thick, joint="curve")
    return drawn


def transparent(shares: np.ndarray) -> Image:
    """Return scores as colours that cover what lies below by their magnitude.

    Args:
        shares (np.ndarray): Scores as shares of the limit, shape ``(rows, columns)``.
    """
    import PIL.Image

    clipped = np.clip(shares, -1, 1)[..., None]
    ends = np.where(clipped >= 0, from_hex(HEAT_POSITIVE), from_hex(HEAT_NEGATIVE))
    pixels = np.concatenate([ends, np.abs(clipped)], axis=-1)
    return PIL.Image.fromarray((255 * pixels).round().astype(np.uint8))


def png_bytes(image: Image) -> bytes:
    """Return the picture as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def data_uri(image: Image) -> str:
    """Return the picture as a ``data:`` address to be written into HTML."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()
