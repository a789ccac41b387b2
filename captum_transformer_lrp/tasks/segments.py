"""Segments of a picture: regions of a class, and single things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from .. import targets
from ..errors import InputError
from ..models.loading import config_names
from ..models.prediction import ClassScore
from .asking import Asked, Question
from .pictures import PictureTask, picked, region_line
from .reads import read_picture
from .recording import ModelCall
from .scoring import of_function, value_of


@dataclass(frozen=True)
class _Found:
    """What of the model's output an answer is."""

    function: targets.Target
    label: int
    score: str
    notes: tuple[str, ...] = ()


class ImageSegmentation(PictureTask):
    """The segments of a picture, each explained.

    Where the model tells a class for each pixel (semantic segmentation): the mean logit
    of the class over its region. Where its queries find one thing each (instances,
    panoptic segmentation): the query's class logit, or with ``target="mask"`` the mean
    logit of its mask where it is positive.
    """

    name = "image-segmentation"
    about = "a segment's mean logit, or the class logit of the query that found it"
    several = True

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why each segment, or why those that were asked for."""
        pipe, call = asked.pipe, asked.calls[0]
        inputs = call.row(0)
        seen = read_picture(pipe, inputs)
        by_query = _masks_of(call) is not None
        found = _by_query(asked) if by_query else _by_class(asked)
        sides = ("mask",) if by_query else ()
        for place, what in picked(target, asked.answer, "segment", sides):
            if place is None:
                yield of_function(asked, asked.calls[0], inputs, what, (seen,))
                continue
            entry, one = asked.answer[place], found[place]
            function, score = one.function, one.score
            if what == "mask" and isinstance(function, targets.Segment):
                function = targets.Segment(function.query, one.label, "mask")
                score = "mean mask logit"
            inside = np.asarray(entry["mask"]) > 0
            line = region_line(str(entry["label"]), inside, seen.image)
            yield Question(
                inputs=inputs,
                target=function,
                answer=ClassScore(
                    index=one.label,
                    name=str(entry["label"]),
                    logit=float(value_of(function, pipe.model, call.output)),
                    probability=entry["score"],
                ),
                reads=(replace(seen, outlines=(line,)),),
                output=entry,
                score=score,
                notes=one.notes,
            )


def _masks_of(call: ModelCall) -> Tensor | None:
    """Return the masks of the model's queries; None where it has no queries."""
    output = call.output
    found: Tensor | None = output.get("masks_queries_logits", output.get("pred_masks"))
    return found


def _by_class(asked: Asked) -> list[_Found]:
    names = config_names(asked.pipe.model.config)
    found = []
    for entry in asked.answer:
        label = names.index(entry["label"])
        region = np.asarray(entry["mask"]) > 0
        found.append(_Found(targets.Mask(region, label), label, "mean logit"))
    return found


def _by_query(asked: Asked) -> list[_Found]:
    """Return the queries that found the segments of an answer, which does not say them.

    The processor runs once more, on classes that are numbered through all queries, with
    the same probabilities: then a segment's class says its query, too.
    """
    if not asked.answer:
        return []
    pipe, call = asked.pipe, asked.calls[0]
    kinds = [k for k in ("panoptic", "instance") if _process(pipe, k) is not None]
    subtask = asked.option("subtask")
    kind = subtask if subtask is not None else next(iter(kinds), None)
    if kind not in kinds:
        raise InputError(
            f"a segment of subtask={kind!r} belongs to several queries of "
            f"{type(pipe.model).__name__}: ask for subtask="
            f"{' or '.join(map(repr, kinds)) or 'another model'}"
        )
    output = call.output
    key = "class_queries_logits" if "class_queries_logits" in output else "logits"
    logits = output[key][0]
    queries, classes = len(logits), logits.shape[-1] - 1
    numbered = logits.new_full((queries, queries * classes + 1), float("-inf"))
    for query in range(queries):
        start = query * classes
        numbered[query, start : start + classes] = logits[query, :-1]
    numbered[:, -1] = logits[:, -1]
    twin = type(output)(**output)
    twin[key] = numbered[None]
    options = {
        name: asked.option(name, default)
        for name, default in (
            ("threshold", 0.9),
            ("mask_threshold", 0.5),
            ("overlap_mask_area_threshold", 0.5),
        )
    }
    if kind == "panoptic":
        options["label_ids_to_fuse"] = set()  # as without, and without a warning
    process: Any = _process(pipe, kind)
    width, height = asked.answer[0]["mask"].size
    (again,) = process(twin, target_sizes=[(height, width)], **options)
    left = [
        (int(one["label_id"]), float(one["score"])) for one in again["segments_info"]
    ]
    names = config_names(pipe.model.config)
    found = []
    for entry in asked.answer:
        same = [
            one
            for one in left
            if names[one[0] % classes] == entry["label"]
            and abs(one[1] - float(entry["score"])) < 1e-5
        ]
        if not same:
            raise InputError(
                f"the query that found the segment {entry['label']!r} cannot be told"
            )
        left.remove(same[0])
        query, label = divmod(same[0][0], classes)
        note = f"Query {query} of the model's {queries} found it."
        target = targets.Segment(query, label)
        found.append(_Found(target, label, "class logit", (note,)))
    return found


def _process(pipe: Any, kind: str) -> Any:
    """Return what makes segments of the model's output; None where there is nothing."""
    return getattr(pipe.image_processor, f"post_process_{kind}_segmentation", None)
