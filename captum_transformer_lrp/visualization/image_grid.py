"""Several images by several methods, in one picture on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    Table,
    strongest_cells,
)
from ..report.colors import scale_limit
from .arrays import Features
from .image_map import read_image, read_scores
from .picture import Picture
from .text import check_signed

if TYPE_CHECKING:
    from PIL.Image import Image

_UNIT = "share of the method's largest magnitude"


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageGrid(Picture):
    """Images below each other, each beside its scores by several methods.

    Made by :func:`draw_image_grid`.

    Args:
        images (tuple of PIL.Image.Image): As the model saw them.
        captions (tuple of str): What stands below each image.
        scores (Mapping): Name of the method -> shares of its largest magnitude over all
            images, one array ``(rows, columns)`` for each image.
        limits (Mapping): Name of the method -> that magnitude.
        scale (ColorScale): The colours of all.
        style (str): ``"overlay"`` or ``"smooth"``.
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    images: tuple[Image, ...] = field(repr=False)
    captions: tuple[str, ...]
    scores: Mapping[str, tuple[np.ndarray, ...]] = field(repr=False)
    limits: Mapping[str, float]
    scale: ColorScale
    style: Literal["overlay", "smooth"]

    @property
    def alt(self) -> str:
        """The picture in full words."""
        names = ", ".join(self.scores)
        return (
            f"{self._heading}{len(self.images)} images, each beside its scores by "
            f"{names}, in colours over the image in grey. {self.scale.words}."
        )

    def _scores(self) -> Iterator[Block]:
        pictures = []
        for number, (image, caption) in enumerate(
            zip(self.images, self.captions, strict=True)
        ):
            pictures.append(Heat(image=image, caption=caption, alt=caption or "image"))
            pictures += [
                Heat(
                    image=image,
                    scores=found[number],
                    scale=self.scale,
                    style=self.style,
                    caption=name,
                )
                for name, found in self.scores.items()
            ]
        yield Pictures(pictures=tuple(pictures), across=1 + len(self.scores))
        yield Legend(scale=self.scale)

    def _numbers(self) -> Iterator[Block]:
        rows = []
        for number, caption in enumerate(self.captions):
            for name, found in self.scores.items():
                ((place, share),) = strongest_cells(found[number], 1)
                write = ColorScale(
                    limit=self.limits[name], signed=self.scale.signed
                ).write
                score = write(share * self.limits[name])
                rows.append((caption or f"image {number + 1}", name, place, score))
        yield Table(
            title="Largest magnitudes, in the methods' own units",
            heads=("Image", "Method", "Place", "Score"),
            rows=tuple(rows),
            texts=3,
            folded=True,
        )


def draw_image_grid(
    images: Sequence[Any] | Tensor,
    scores: Mapping[str, Any],
    *,
    captions: Sequence[str] | None = None,
    style: Literal["overlay", "smooth"] = "overlay",
    mean: Sequence[float] | float | None = None,
    std: Sequence[float] | float | None = None,
    patch_grid: tuple[int, int] | None = None,
    title: str = "",
    features: Features = "sum",
    signed: bool | None = None,
) -> ImageGrid:
    """Draw images below each other, each beside its scores by several methods.

    All stand on one scale: each method's scores are divided by its largest magnitude
    over all images, so that a method's images compare with each other, and methods of
    different units with one another.

    Args:
        images (sequence): One entry for each image, as
            :func:`~captum_transformer_lrp.visualization.draw_image` takes it; a tensor
            ``(images, channels, height, width)`` too.
        scores (Mapping): Name of the method -> its scores, one entry for each image, as
            ``draw_image`` takes them; ``attribute`` of a batch returns such a tensor.
        captions (sequence of str, optional): What stands below each image, such as its
            class. Default: none
        style (str, optional): ``"overlay"``, or ``"smooth"`` without steps between
            patches. Default: ``"overlay"``
        mean (float or sequence of float, optional): As for ``draw_image``.
            Default: None, 0
        std (float or sequence of float, optional): As for ``draw_image``.
            Default: None, 1
        patch_grid (tuple of int, optional): As for ``draw_image``. Default: None
        title (str, optional): What stands above. Default: none
        features (str, optional): How channels and features become one number.
            Default: ``"sum"``
        signed (bool, optional): Whether the colour scale has two sides.
            Default: None, whether a score lies below zero

    Returns:
        *ImageGrid*, whose ``save("grid.pdf")`` writes it for a paper.

    Raises:
        InputError: There is no image or method, their numbers do not belong together,
            or what ``draw_image`` refuses of one.

    Examples::

        >>> methods = {"AttnLRP": AttnLRP(model), "Saliency": Saliency(model)}
        >>> scores = {n: m.attribute(pixels, target=8) for n, m in methods.items()}
        >>> draw_image_grid(pixels, scores, mean=mean, std=std).save("grid.pdf")
    """
    if style not in ("overlay", "smooth"):
        raise InputError(f"style={style!r}; expected overlay or smooth.")
    if not len(images) or not scores:
        raise InputError(
            f"got {len(images)} images and {len(scores)} methods; expected at least "
            "one of each."
        )
    counts = {f"scores of {name!r}": len(found) for name, found in scores.items()}
    if captions is not None:
        counts["captions"] = len(captions)
    for what, count in counts.items():
        if count != len(images):
            raise InputError(f"{count} {what} for {len(images)} images.")
    read = [read_image(image, mean, std) for image in images]
    arrays = {
        name: [
            read_scores(one, (image.height, image.width), patch_grid, features)
            for one, (image, _) in zip(found, read, strict=True)
        ]
        for name, found in scores.items()
    }
    every = np.concatenate([a.ravel() for found in arrays.values() for a in found])
    limits = {
        name: scale_limit(np.concatenate([a.ravel() for a in found]))
        for name, found in arrays.items()
    }
    return ImageGrid(
        images=tuple(image for image, _ in read),
        captions=tuple(captions or [""] * len(read)),
        scores={n: tuple(a / limits[n] for a in found) for n, found in arrays.items()},
        limits=limits,
        scale=ColorScale(
            limit=1.0, signed=check_signed(every, signed), unit=_UNIT, palette="picture"
        ),
        style=style,
        title=title,
        notes=tuple(dict.fromkeys(note for _, notes in read for note in notes)),
    )
