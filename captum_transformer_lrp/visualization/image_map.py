"""Heat maps over images, for scores of pixels or patches of any attributor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..report.blocks import (
    Block,
    ColorScale,
    Heat,
    Legend,
    Pictures,
    largest,
    strongest_cells,
)
from ..report.colors import scale_limit
from .arrays import Features, reduce_features, to_array
from .picture import Picture
from .text import check_limit, check_signed

if TYPE_CHECKING:
    from PIL.Image import Image

Style = Literal["overlay", "smooth", "side-by-side", "contours", "heat"]
STYLES = ("overlay", "smooth", "side-by-side", "contours", "heat")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImagePicture(Picture):
    """Scores over an image.

    Made by :func:`draw_image`.

    Args:
        image (PIL.Image.Image): The image, as large as the model saw it.
        scores (np.ndarray): Of pixels or patches, shape ``(rows, columns)``.
        style (str): ``"overlay"``, ``"smooth"``, ``"side-by-side"``, ``"contours"`` or
            ``"heat"``.
        scale (ColorScale): Its colours.
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    image: Image = field(repr=False)
    scores: np.ndarray = field(repr=False)
    style: Style
    scale: ColorScale

    @property
    def of_pixels(self) -> bool:
        """Whether there is a score for each pixel."""
        return self.scores.shape == (self.image.height, self.image.width)

    @property
    def alt(self) -> str:
        """The picture in full words."""
        parts = "pixels" if self.of_pixels else "patches"
        rows, columns = self.scores.shape
        how = {
            "overlay": "in colours over the image, which is turned to grey",
            "smooth": "in colours over the image in grey, without steps between them",
            "side-by-side": "in colours over the image in grey, beside the image",
            "contours": "as contour lines over the image, which is turned to grey",
            "heat": "in colours",
        }[self.style]
        write = self.scale.write
        strongest = strongest_cells(self.scores, 3)
        top = "; ".join(f"{place} {write(score)}" for place, score in strongest)
        return (
            f"{self._heading}Scores of {rows} by {columns} {parts}, {how}. "
            f"Largest magnitudes: {top}. {self.scale.words}."
        )

    def _scores(self) -> Iterator[Block]:
        style: Literal["overlay", "smooth", "contours", "heat"] = "overlay"
        if self.style != "side-by-side":
            style = self.style
        beside = self.style == "side-by-side"
        caption = _CONTOURS if style == "contours" else ""
        if beside:
            caption = f"Score of each {'pixel' if self.of_pixels else 'patch'}"
        shown = Heat(
            image=self.image,
            scores=self.scores,
            scale=self.scale,
            style=style,
            caption=caption,
            alt=caption or self.alt,
        )
        plain = (Heat(image=self.image, caption="The image"),) if beside else ()
        yield Pictures(pictures=(*plain, shown), size="large")
        yield Legend(scale=self.scale)

    def _numbers(self) -> Iterator[Block]:
        yield largest(strongest_cells(self.scores, 10), self.scale, "Place")


_CONTOURS = (
    "Lines at 25, 50 and 75 % of the largest magnitude; orange above zero, blue and "
    "dashed below"
)


def draw_image(
    image: Any,
    scores: Any,
    *,
    style: Style = "overlay",
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    patch_grid: tuple[int, int] | None = None,
    title: str = "",
    unit: str = "attribution",
    features: Features = "sum",
    signed: bool | None = None,
    limit: float | None = None,
    outliers: float = 0.0,
) -> ImagePicture:
    """Draw scores over an image: orange above zero, blue below.

    Args:
        image (PIL.Image.Image, Tensor or np.ndarray): A tensor ``(channels, height,
            width)`` or ``(height, width)``, with a batch dimension of 1 or not; an
            array also with channels last, as Captum's own views take it. One channel is
            grey.
            Values are 0 to 1, or bytes, or normalised with ``mean`` and ``std``; others
            are stretched to 0 to 1, with a note.
        scores (Tensor, np.ndarray or list): Of pixels, ``(channels, height, width)`` or
            ``(height, width)``; of patches, ``(rows, columns)``, ``(channels, rows,
            columns)``, or of tokens with ``patch_grid``: ``(tokens,)`` or ``(tokens,
            features)``, where tokens before the patches (class token, registers) are
            left out. Each with a batch dimension of 1 in front or not. Channels and
            features become one number by the rule ``features``.
        style (str, optional): ``"overlay"`` over the image in grey, so that all colour
            is score; ``"smooth"``, the same, linear between the middles of patches;
            ``"side-by-side"`` with the image; ``"contours"``, lines at 25, 50 and 75 %
            of the limit; ``"heat"`` without the image. Default: ``"overlay"``
        mean (float or sequence of float, optional): What was subtracted from each
            channel when the image was normalised. Default: None, 0
        std (float or sequence of float, optional): By what it was then divided.
            Default: None, 1
        patch_grid (tuple of int, optional): Rows and columns of the patches, for scores
            of tokens. Default: None
        title (str, optional): What stands above. Default: none
        unit (str, optional): What the scores count. Default: ``"attribution"``
        features (str, optional): How channels and features become one number:
            ``"sum"``, ``"norm"`` or ``"mean"``. Default: ``"sum"``
        signed (bool, optional): Whether the colour scale has two sides.
            Default: None, whether a score lies below zero
        limit (float, optional): The magnitude of the strongest colour.
            Default: the largest
        outliers (float, optional): Without ``limit``, the per cent of scores of largest
            magnitude that may lie beyond the colour scale. Default: 0

    Returns:
        *ImagePicture*.

    Raises:
        InputError: Shapes do not belong together, a score is NaN or infinite, or an
            option is unknown.

    Examples::

        >>> scores = IntegratedGradients(model).attribute(pixels, target=8)
        >>> draw_image(pixels, scores, mean=mean, std=std).save("ship.png")

    The other way, scores of this package in Captum's own view::

        >>> from captum.attr import visualization as viz
        >>> scores = AttnLRP(model).attribute(pixels, target=8)
        >>> hwc = scores[0].permute(1, 2, 0).detach().numpy()
        >>> viz.visualize_image_attr(hwc, sign="all", use_pyplot=False)
    """
    if style not in STYLES:
        raise InputError(f"style={style!r}; expected one of {', '.join(STYLES)}.")
    if not 0 <= outliers < 100:
        raise InputError(f"outliers={outliers}; expected per cent, 0 to less than 100.")
    picture, notes = read_image(image, mean, std)
    values = read_scores(scores, (picture.height, picture.width), patch_grid, features)
    found = check_limit(limit)
    if found is None and outliers:
        found = float(np.percentile(np.abs(values), 100 - outliers)) or None
    found = found or scale_limit(values)
    beyond = int((np.abs(values) > found * (1 + 1e-9)).sum())
    if beyond:
        share = f"{beyond} of {values.size:,}"
        notes.append(f"{share} scores lie beyond the colour scale.")
    if not values.any():
        notes.append("All scores are zero.")
    return ImagePicture(
        image=picture,
        scores=values,
        style=style,
        scale=ColorScale(
            limit=found,
            signed=check_signed(values, signed),
            unit=unit,
            palette="paper" if style == "heat" else "picture",
        ),
        title=title,
        notes=tuple(notes),
    )


def read_image(
    image: Any,
    mean: Sequence[float] | float | None,
    std: Sequence[float] | float | None,
) -> tuple[Image, list[str]]:
    """Return the image in colours, and what had to be done to it."""
    import PIL.Image

    if isinstance(image, PIL.Image.Image):
        if mean is not None or std is not None:
            raise InputError("mean and std are for tensors; this image has colours.")
        return image.convert("RGB"), []
    bytes_given = (
        not image.is_floating_point()
        if isinstance(image, Tensor)
        else isinstance(image, np.ndarray) and image.dtype.kind in "ui"
    )
    array = to_array(image, "pixels")
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    last = array.ndim == 3 and array.shape[-1] in (1, 3)
    first = array.ndim == 3 and array.shape[0] in (1, 3)
    if last and not (first and isinstance(image, Tensor)):
        array = array.transpose(2, 0, 1)
    elif not first:
        raise InputError(
            f"the image has shape {shape}; expected (channels, height, width) with 1 "
            "or 3 channels, or (height, width), with a batch dimension of 1 or not. "
            "Take one image of a batch: images[i]."
        )
    if bytes_given and array.max() > 1:
        array = array / 255
    for name, given, turn in (
        ("std", std, np.multiply),
        ("mean", mean, np.add),
    ):
        if given is not None:
            each = np.atleast_1d(np.asarray(given, dtype=float))
            if each.shape not in ((1,), (len(array),)):
                raise InputError(
                    f"{name} has {each.size} numbers for {len(array)} channels."
                )
            array = turn(array, each[:, None, None])
    notes = []
    low, high = float(array.min()), float(array.max())
    if low < -0.01 or high > 1.01:
        array = (array - low) / (high - low)
        notes.append(
            f"Values of the image, {low:.3g} to {high:.3g}, were stretched to black "
            "and white; mean= and std= give it its own colours."
        )
    colors = np.broadcast_to(array, (3, *array.shape[1:])).transpose(1, 2, 0)
    pixels = (255 * np.clip(colors, 0, 1)).round().astype(np.uint8)
    return PIL.Image.fromarray(pixels), notes


def read_scores(
    scores: Any,
    size: tuple[int, int],
    patch_grid: tuple[int, int] | None,
    features: Features,
) -> np.ndarray:
    """Return scores of pixels or patches, shape ``(rows, columns)``."""
    array = to_array(scores)
    shape = array.shape
    if patch_grid is not None:
        patches = patch_grid[0] * patch_grid[1]
        if array.ndim > 1 and shape[0] == 1 and array.shape != patch_grid:
            array = array[0]
        if array.shape == patch_grid:
            return array
        if array.ndim == 2 and len(array) >= patches:
            array = reduce_features(array, features, axis=1)
        if array.ndim == 1 and len(array) >= patches:
            return array[-patches:].reshape(patch_grid)
        rows, columns = patch_grid
        raise InputError(
            f"scores have shape {shape}; expected at least {rows} x {columns} = "
            f"{patches} tokens, or these rows and columns."
        )
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim == 3:
        last = array.shape[:2] == size and array.shape[1:] != size
        array = reduce_features(array, features, axis=2 if last else 0)
    if array.ndim != 2:
        raise InputError(
            f"scores have shape {shape}; expected (channels, height, width) or (rows, "
            "columns), with a batch dimension of 1 or not. Scores of tokens need "
            "patch_grid=(rows, columns)."
        )
    return array
