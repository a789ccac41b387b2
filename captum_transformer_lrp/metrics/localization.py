"""Does relevance land on the object? Scores of maps against masks of pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from .measurement import Measurement, doubles, jackknife
from .ranking import units_of
from .rationales import ranked_precision

if TYPE_CHECKING:
    from pandas import DataFrame


def pointing_game(attributions: Tensor, masks: Tensor) -> Measurement:
    """Return how often the highest score lies on the object (higher is better).

    Zhang et al., ECCV 2016, arXiv 1608.00507, without their tolerance of 15 pixels. Of
    several highest scores the first counts.

    Args:
        attributions (Tensor): ``(examples, rows, columns)``, with or without a channel.
        masks (Tensor): bool, ``(examples, height, width)``: the object. A map that is
            smaller than the mask counts as a hit where its highest cell holds any pixel
            of the object.

    Raises:
        InputError: if a mask is empty or the map does not divide it.
    """
    scores, masks = _checked(attributions, masks)
    rows, columns = scores.shape[1:]
    cells = masks.view(
        len(masks),
        rows,
        masks.shape[1] // rows,
        columns,
        masks.shape[2] // columns,
    )
    objects = cells.any(4).any(2).flatten(1)
    best = scores.flatten(1).argmax(1, keepdim=True)
    hits = objects.gather(1, best)[:, 0].double()
    return Measurement("pointing game", hits, "higher")


def relevance_mass(attributions: Tensor, masks: Tensor) -> Measurement:
    """Return the share of positive relevance on the object (higher is better).

    Relevance mass accuracy (Arras et al., Information Fusion 2022, arXiv 2003.07258);
    on mosaics with the tile of the class as the object, Focus (Arias-Duart et al.,
    2022, arXiv 2109.15035). Negative scores count as 0; a map without a positive score
    has a share of 0.

    Args:
        attributions (Tensor): ``(examples, rows, columns)``, with or without a channel.
        masks (Tensor): bool, ``(examples, height, width)``: the object. The relevance
            of a cell is spread evenly over its pixels.

    Raises:
        InputError: as for :func:`pointing_game`.
    """
    scores, masks = _checked(attributions, masks)
    wide = _nearest(scores.double().clamp_min(0), masks)
    inside = (wide * masks).sum((1, 2))
    total = wide.sum((1, 2))
    share = torch.where(total > 0, inside / total.clamp_min(1e-300), 0.0)
    return Measurement("relevance mass", share, "higher")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Scores of maps taken as segmentations, by Chefer, Gur and Wolf.

    Attributes:
        pixel_accuracy (Measurement): pixels on the right side of the threshold, over
            the data set.
        mean_iou (Measurement): intersection over union over the data set, mean of
            object and background.
        mean_average_precision (Measurement): average precision of each map, mean over
            the maps.
    """

    pixel_accuracy: Measurement
    mean_iou: Measurement
    mean_average_precision: Measurement

    def _all(self) -> tuple[Measurement, ...]:
        return self.pixel_accuracy, self.mean_iou, self.mean_average_precision

    def __str__(self) -> str:
        return "\n".join(map(str, self._all()))

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts, as JSON takes them."""
        return {
            "pixel_accuracy": self.pixel_accuracy.to_dict(),
            "mean_iou": self.mean_iou.to_dict(),
            "mean_average_precision": self.mean_average_precision.to_dict(),
        }

    def to_pandas(self) -> DataFrame:
        """Return a row per example with the three values."""
        first, *others = (m.to_pandas() for m in self._all())
        for other in others:
            first = first.merge(other, on="example")
        return first


def segmentation(
    attributions: Tensor,
    masks: Tensor,
    *,
    upsample: Literal["bilinear", "nearest"] = "bilinear",
) -> Segmentation:
    r"""Return pixel accuracy, mIoU and mAP of maps taken as segmentations.

    Chefer, Gur and Wolf, CVPR 2021, arXiv 2012.09838, Sec. 4.2, as their evaluation has
    it: a map is interpolated to the mask, scaled to [0, 1] by its own minimum and
    maximum, and pixels above its *mean* are the object. With the sums over all pixels
    of the data set, pixel accuracy is correct over all, and mIoU the mean of
    :math:`\sum \text{intersection} / \sum \text{union}` of background and object. mAP
    is the mean over maps of the average precision of the concatenated ``(1 - map,
    map)`` against ``(not mask, mask)``. Pixel accuracy and mIoU belong to the whole
    data set: their values per example are those of
    :func:`~captum_transformer_lrp.metrics.measurement.jackknife`.

    Args:
        attributions (Tensor): ``(examples, rows, columns)``, with or without a channel.
        masks (Tensor): bool, ``(examples, height, width)``.
        upsample (str, optional): how a smaller map becomes as large as the mask.
            Default: ``"bilinear"``

    Raises:
        InputError: as for :func:`pointing_game`.
    """
    scores, masks = _checked(attributions, masks)
    wide = scores.double()
    if upsample == "nearest":
        wide = _nearest(wide, masks)
    elif upsample == "bilinear":
        wide = torch.nn.functional.interpolate(
            wide[:, None], size=masks.shape[1:], mode="bilinear", align_corners=False
        )[:, 0]
    else:
        raise InputError(
            f"expected upsample= 'bilinear' or 'nearest', got {upsample!r}"
        )
    low, high = wide.amin((1, 2), keepdim=True), wide.amax((1, 2), keepdim=True)
    span = torch.where(high > low, high - low, 1.0)
    maps = (wide - low) / span
    objects = maps > maps.mean((1, 2), keepdim=True)
    correct = (objects == masks).sum((1, 2)).double()
    pixels = torch.full_like(correct, float(masks[0].numel()))
    inter, union = (
        torch.stack(
            [both(objects, masks).sum((1, 2)), both(~objects, ~masks).sum((1, 2))]
        ).double()
        for both in (torch.logical_and, torch.logical_or)
    )
    precisions = [
        ranked_precision(
            torch.cat([1 - m.flatten(), m.flatten()]),
            torch.cat([~k.flatten(), k.flatten()]),
        )
        for m, k in zip(maps, masks, strict=True)
    ]
    settings = {"threshold": "mean of the map", "upsampled": upsample}

    def pooled(name: str, score: Callable[[Tensor], Tensor]) -> Measurement:
        return _pooled(name, score, len(masks), settings)

    return Segmentation(
        pooled("pixel accuracy", lambda w: (w @ correct) / (w @ pixels)),
        pooled("mIoU", lambda w: ((w @ inter.T) / (w @ union.T)).mean(-1)),
        Measurement("mAP", doubles(precisions), "higher", settings),
    )


def _pooled(
    name: str,
    score: Callable[[Tensor], Tensor],
    examples: int,
    settings: dict[str, str],
) -> Measurement:
    """Return a score of the data set with its jackknife values.

    Args:
        name (str): of the score.
        score (Callable): takes weights of the examples, ``(..., examples)``.
        examples (int): how many there are.
        settings (dict): how it was measured.
    """
    every = torch.ones(examples, dtype=torch.float64)
    total = float(score(every))
    if examples == 1:
        return Measurement(name, doubles([total]), "higher", settings)
    without = score(torch.ones(examples, examples).double() - torch.eye(examples))
    return jackknife(total, without, name=name, better="higher", settings=settings)


def _nearest(scores: Tensor, masks: Tensor) -> Tensor:
    """Return scores as large as the masks, each cell repeated."""
    rows, columns = scores.shape[1:]
    tall = scores.repeat_interleave(masks.shape[1] // rows, 1)
    return tall.repeat_interleave(masks.shape[2] // columns, 2)


def _checked(attributions: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    scores = units_of(attributions).cpu()
    masks = masks.bool().cpu()
    if scores.dim() != 3 or masks.dim() != 3 or len(scores) != len(masks):
        raise InputError(
            "expected maps (examples, rows, columns) and masks (examples, height, "
            f"width), got {tuple(attributions.shape)} and {tuple(masks.shape)}"
        )
    if masks.shape[1] % scores.shape[1] or masks.shape[2] % scores.shape[2]:
        raise InputError(
            f"maps of {scores.shape[1]} x {scores.shape[2]} do not divide masks of "
            f"{masks.shape[1]} x {masks.shape[2]}"
        )
    empty = ~masks.flatten(1).any(1)
    if bool(empty.any()):
        raise InputError(
            f"the mask of example {int(empty.nonzero()[0])} is empty: leave such "
            "examples out, there is nothing to hit"
        )
    return scores, masks
