"""Pictures: what all their tasks share, their classes, and depth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import targets
from ..errors import InputError, TargetError
from ..models.prediction import ClassScore
from ..report.blocks import Outline
from .asking import Asked, Question, Task, chosen
from .classes import Classification
from .reads import ReadPicture, read_picture
from .scoring import spelled, value_of

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE = "a picture (a PIL image or an array, or the name or address of a file)"


class PictureTask(Task):
    """What a model says of a picture."""

    takes = PICTURE
    of_files = True

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what was given, the picture as ``image``."""
        if text is not None and image is not None:
            raise InputError(
                f"the task {self.name!r} takes {self.takes}; got text= and image="
            )
        found = super().inputs(None, text if image is None else image, further)
        return _with_options(found)

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return the pictures of a list, each with its options; None for one."""
        listed = super().one_by_one(given)
        return None if listed is None else [_with_options(one) for one in listed]

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return what the pipeline answers; its model's calls are noted."""
        rest = dict(given)
        return pipe(as_picture(rest.pop("image", None)), **rest)


def _with_options(given: dict[str, Any]) -> dict[str, Any]:
    """Return inputs whose picture may stand in a mapping with its options."""
    image = given.get("image")
    return {**given, **image} if isinstance(image, Mapping) else given


def as_picture(given: Any) -> Any:
    """Return a picture as pipelines take it: a path as text, pixels as a PIL image."""
    import PIL.Image

    if isinstance(given, Path):
        return str(given)
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        return PIL.Image.fromarray(given)
    return given


class ImageClassification(PictureTask, Classification):
    """The class of a picture."""

    name = "image-classification"
    about = "the logit of a class of a picture"

    def read(
        self, pipe: Any, given: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[ReadPicture, ...]:
        """Return the picture."""
        return (read_picture(pipe, inputs),)


class DepthEstimation(PictureTask):
    """How far things are: the mean depth of a region is explained.

    The region is the whole picture, or ``target=`` a :class:`~.targets.Mask` or
    :class:`~.targets.Pixel`. The unit is that of the model's own depth, or of its
    inverse.
    """

    name = "depth-estimation"
    about = "the mean depth over the picture or a region of it"

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why it is this far."""
        pipe, call = asked.pipe, asked.calls[0]
        inputs = call.row(0)
        depth: Tensor = call.output["predicted_depth"]
        seen = read_picture(pipe, inputs)
        whole = targets.Mask(torch.ones(tuple(depth.shape[-2:])))
        several = target if isinstance(target, (list, tuple)) else [target]
        for one in several:
            if one is not None and not callable(one):
                raise TargetError(
                    "expected target= to be targets.Mask(region), targets.Pixel(y, x) "
                    f"or another function of the output, got {one!r}"
                )
            function = whole if one is None else one
            name = "depth" if one is None else "depth of the region"
            if not isinstance(function, targets.Mask):
                name = spelled(function)
            score = float(value_of(function, pipe.model, call.output))
            lines = [] if one is None else _pointed(function, depth, seen.image)
            yield Question(
                inputs=inputs,
                target=function,
                answer=ClassScore(index=0, name=name, logit=score),
                reads=(replace(seen, outlines=tuple(lines)),),
                output=asked.answer,
                score="mean depth" if "depth" in name else "depth",
            )


def _pointed(target: Any, depth: Tensor, image: Image) -> list[Outline]:
    """Return what a target points at in a picture."""
    if isinstance(target, targets.Mask):
        region = np.asarray(torch.as_tensor(target.mask).cpu()) > 0
        return [region_line("region", region, image)]
    if isinstance(target, targets.Pixel):
        rows, columns = depth.shape[-2:]
        down, right = image.height / rows, image.width / columns
        left, top = target.x * right, target.y * down
        return [Outline.of_box("place", left, top, left + right, top + down)]
    return []


def region_line(name: str, inside: np.ndarray, image: Image) -> Outline:
    """Return the line around a region of the whole picture, on the one that was seen.

    Args:
        name (str): what it is called.
        inside (np.ndarray): booleans ``(rows, columns)``, of whichever size.
        image (PIL.Image.Image): the picture as the model saw it.
    """
    rows, columns = inside.shape
    down = (np.arange(image.height) + 0.5) * rows / image.height
    right = (np.arange(image.width) + 0.5) * columns / image.width
    return Outline.of_region(name, inside[down.astype(int)][:, right.astype(int)])


def picked(
    target: Any, answer: Sequence[Mapping[str, Any]], what: str, sides: Sequence[str]
) -> Iterator[tuple[int | None, Any]]:
    """Yield which entries of an answer a target means, and what of each.

    Args:
        target (Any): None for all; a place in the answer, a label, one of ``sides``, a
            function of the output, or several of these.
        answer (sequence of Mapping): the entries, which have a ``label``.
        what (str): what they are, such as ``"segment"``.
        sides (sequence of str): what can be asked of an entry beside its class.

    Yields:
        The place in the answer, None for a function; and one of ``sides``, ``""`` for
        the class, or the function.
    """
    labels = [str(one["label"]) for one in answer]
    several = target if isinstance(target, (list, tuple)) else [target]
    for one in several:
        if callable(one):
            yield None, one
            continue
        of_all = one is None or (one in sides and one not in labels)
        places = range(len(answer)) if of_all else chosen(one, labels, what) or ()
        for place in places:
            yield place, one if of_all and one is not None else ""
