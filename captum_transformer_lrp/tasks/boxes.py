"""Things in a picture, each in its box."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import targets
from ..errors import InputError
from ..models.prediction import ClassScore
from ..report.blocks import Outline
from .asking import Asked, Question
from .pictures import PICTURE, PictureTask, picked
from .reads import ReadPicture, ReadText, read_picture, read_text
from .recording import ModelCall
from .scoring import of_function, value_of

SIDES = ("left", "top", "right", "bottom")


class ObjectDetection(PictureTask):
    """The things that a model finds, each explained.

    Of each the logit of its class, at the query that found it; with ``target="left"``,
    ``"top"``, ``"right"`` or ``"bottom"`` that side of its box, as a share of the
    picture's width or height.
    """

    name = "object-detection"
    about = "the class logit of a box, or one of its sides"
    several = True
    _threshold = 0.5

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why each box, or why those that were asked for."""
        found = self.places(asked)
        if len(found) != len(asked.answer):
            raise InputError(
                f"the pipeline found {len(asked.answer)} boxes, and its queries "
                f"{len(found)}"
            )
        for place, what in picked(target, asked.answer, "object", SIDES):
            if place is None:
                inputs = asked.calls[0].row(0)
                reads = self.reads(asked, 0, inputs, ())
                yield of_function(asked, asked.calls[0], inputs, what, reads)
                continue
            number, query, label = found[place]
            entry, call = asked.answer[place], asked.calls[number]
            inputs = call.row(0)
            line = _box_line(str(entry["label"]), call, query)
            side = what or None
            function = targets.Box(query, label, side)
            score = "logit"
            if side is not None:
                share = "width" if side in ("left", "right") else "height"
                score = f"{side} side, as a share of the {share}"
            queries = call.output["pred_boxes"].shape[1]
            yield Question(
                inputs=inputs,
                target=function,
                answer=ClassScore(
                    index=self.index(number, label),
                    name=str(entry["label"]),
                    logit=float(value_of(function, asked.pipe.model, call.output)),
                    probability=float(entry["score"]),
                ),
                reads=self.reads(asked, number, inputs, [line]),
                output=entry,
                score=score,
                notes=(f"Query {query} of the model's {queries} found it.",),
            )

    def places(self, asked: Asked) -> list[tuple[int, int, int]]:
        """Return of each box in the answer its call, query and class."""
        found = found_in(asked.pipe, asked.calls[0], self.threshold(asked))
        return [(0, query, label) for query, label, _ in found]

    def threshold(self, asked: Asked) -> float:
        """Return the probability from which a box is in the answer."""
        return float(asked.option("threshold", self._threshold))

    def index(self, call: int, label: int) -> int:
        """Return the number of the class."""
        return label

    def reads(
        self,
        asked: Asked,
        call: int,
        inputs: Mapping[str, Any],
        outlines: Sequence[Outline],
    ) -> tuple[ReadPicture | ReadText, ...]:
        """Return the inputs as a person reads them."""
        return (read_picture(asked.pipe, inputs, outlines=outlines),)


class ZeroShotObjectDetection(ObjectDetection):
    """Things of labels that were never trained, each with picture and label explained.

    The model is asked for each label by itself.
    """

    name = "zero-shot-object-detection"
    about = "the logit of a label at a box, or one of its sides"
    takes = f"{PICTURE} and candidate_labels=[...], a list of texts"
    _threshold = 0.1

    def places(self, asked: Asked) -> list[tuple[int, int, int]]:
        """Return of each box in the answer its call, query and class."""
        found = [
            (chance, number, query, label)
            for number, call in enumerate(asked.calls)
            for query, label, chance in found_in(
                asked.pipe, call, self.threshold(asked)
            )
        ]
        found.sort(key=lambda one: -one[0])
        top = asked.option("top_k")
        return [one[1:] for one in (found[:top] if top else found)]

    def index(self, call: int, label: int) -> int:
        """Return the number of the label: each has a call of its own."""
        return call

    def reads(
        self,
        asked: Asked,
        call: int,
        inputs: Mapping[str, Any],
        outlines: Sequence[Outline],
    ) -> tuple[ReadPicture | ReadText, ...]:
        """Return picture and label."""
        labels = asked.option("candidate_labels")
        labels = labels.split(",") if isinstance(labels, str) else list(labels)
        return (
            read_picture(asked.pipe, inputs, outlines=outlines),
            read_text(asked.pipe, inputs, labels[call], name="label"),
        )


def found_in(
    pipe: Any, call: ModelCall, threshold: float
) -> list[tuple[int, int, float]]:
    """Return query, class and probability of the boxes that a pipeline takes.

    Its processor runs once more, on boxes that hold the number of their query.
    """
    output = call.output
    boxes: Tensor | None = output.get("pred_boxes")
    if boxes is None:
        raise InputError(
            f"{type(pipe.model).__name__} predicts no boxes: expected pred_boxes in "
            f"its output, got {', '.join(output)}"
        )
    numbered = torch.zeros_like(boxes)
    numbered[..., 0] = torch.arange(boxes.shape[1])
    twin = type(output)(**output)
    twin["pred_boxes"] = numbered
    (found,) = pipe.image_processor.post_process_object_detection(
        twin, threshold=threshold, target_sizes=torch.tensor([[1, 1]])
    )
    queries = found["boxes"][:, 0].round().long().tolist()
    return list(
        zip(queries, found["labels"].tolist(), found["scores"].tolist(), strict=True)
    )


def _box_line(name: str, call: ModelCall, query: int) -> Outline:
    """Return the line around a box, in pixels of the picture as the model saw it.

    Boxes are shares of the picture without its padding.
    """
    mask = call.inputs.get("pixel_mask")
    height, width = call.inputs["pixel_values"].shape[-2:]
    if isinstance(mask, Tensor):
        height = int(mask[0].any(1).sum())
        width = int(mask[0].any(0).sum())
    x, y, across, down = call.output["pred_boxes"][0, query].tolist()
    return Outline.of_box(
        name,
        max(0.0, x - across / 2) * width,
        max(0.0, y - down / 2) * height,
        min(1.0, x + across / 2) * width,
        min(1.0, y + down / 2) * height,
    )
