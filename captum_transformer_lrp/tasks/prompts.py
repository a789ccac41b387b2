"""Masks of what a point or a box in a picture is on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from .. import targets
from ..errors import InputError
from ..models.prediction import ClassScore
from ..report.blocks import Outline
from .asking import Asked, Question, on_device
from .pictures import PICTURE, PictureTask, as_picture, picked, region_line
from .reads import read_picture
from .scoring import of_function, value_of

PROMPTS = ("input_points", "input_labels", "input_boxes")


class MaskGeneration(PictureTask):
    """The mask of what a prompt is on: the mean of its logits is explained.

    Called with a picture and ``input_points=`` or ``input_boxes=``, as the processor
    takes them. A model has several masks for a prompt; the one that it expects to be
    best is explained, or ``target=`` its number; ``target="iou"`` is the overlap that
    it expects. The prompt itself is a constant.
    """

    name = "mask-generation"
    about = "the mean logit inside the mask of a prompt"
    takes = f"{PICTURE} and input_points=[[[x, y]]] or input_boxes=[[[x, y, x, y]]]"
    loads = "AutoModelForMaskGeneration"
    prepares = ("processor", "AutoProcessor")

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the masks of each prompt, the best first."""
        if getattr(pipe, "processor", None) is None:
            raise InputError(
                "mask-generation needs processor=, which takes prompts: Explainer("
                'model, task="mask-generation", processor=processor)'
            )
        prompts = {name: given[name] for name in PROMPTS if name in given}
        if not prompts or len(prompts) + 1 != len(given):
            raise InputError(
                f"the task {self.name!r} takes {self.takes}, got {', '.join(given)}"
            )
        from transformers.image_utils import load_image

        image = load_image(as_picture(given["image"]))
        made = pipe.processor(images=image, return_tensors="pt", **prompts)
        batch = on_device(pipe, made)
        sizes = [
            batch.pop(name)
            for name in ("original_sizes", "reshaped_input_sizes")
            if name in batch
        ]
        with torch.no_grad():
            output = pipe.model(**batch)
        masks = pipe.processor.post_process_masks(output.pred_masks.cpu(), *sizes)[0]
        scores = output.iou_scores[0].cpu().double()
        answers = []
        for prompt in range(len(scores)):
            for number in scores[prompt].argsort(descending=True).tolist():
                pixels = masks[prompt, number].numpy().astype(np.uint8) * 255
                answers.append(
                    {
                        "score": float(scores[prompt, number]),
                        "mask": as_picture(pixels),
                        "label": f"mask {number}",
                        "prompt": prompt,
                    }
                )
        return answers

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why the best mask of each prompt, or why those that were asked for."""
        pipe, call = asked.pipe, asked.calls[0]
        inputs = call.row(0)
        seen = read_picture(pipe, inputs)
        masks = call.output["pred_masks"][0]
        for prompt in range(len(masks)):
            listed = [one for one in asked.answer if one["prompt"] == prompt]
            by_number = sorted(listed, key=lambda one: str(one["label"]))
            best = by_number.index(listed[0])
            several = target if isinstance(target, (list, tuple)) else [target]
            wanted = [best if one is None else one for one in several]
            for place, what in picked(wanted, by_number, "mask", ("iou",)):
                lines = self._prompts(inputs, prompt)
                if place is None:
                    reads = (replace(seen, outlines=tuple(lines)),)
                    yield of_function(asked, asked.calls[0], inputs, what, reads)
                    continue
                if what == "iou" and place != best:
                    continue
                function = targets.Prompted(place, prompt, "iou" if what else "mask")
                size = seen.image.height, seen.image.width
                large = torch.nn.functional.interpolate(
                    masks[prompt, place][None, None], size, mode="bilinear"
                )[0, 0]
                inside = (large > 0).cpu().numpy()
                entry = by_number[place]
                lines.append(region_line(str(entry["label"]), inside, seen.image))
                yield Question(
                    inputs=inputs,
                    target=function,
                    answer=ClassScore(
                        index=place,
                        name=str(entry["label"]),
                        logit=float(value_of(function, pipe.model, call.output)),
                    ),
                    reads=(replace(seen, outlines=tuple(lines)),),
                    output=entry,
                    score="expected overlap" if what else "mean mask logit",
                    notes=(
                        "The prompt is given: relevance is that of the picture alone.",
                    ),
                )

    def _prompts(self, inputs: Mapping[str, Any], prompt: int) -> list[Outline]:
        """Return small squares around points, and boxes, in pixels that were seen."""
        lines = []
        side = max(inputs["pixel_values"].shape[-2:]) / 100
        if (points := inputs.get("input_points")) is not None:
            for x, y in points[0, prompt].tolist():
                corners = x - side, y - side, x + side, y + side
                lines.append(Outline.of_box("prompt", *corners))
        if (boxes := inputs.get("input_boxes")) is not None:
            lines.append(Outline.of_box("prompt", *boxes[0, prompt].tolist()))
        return lines
