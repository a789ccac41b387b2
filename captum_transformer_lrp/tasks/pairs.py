"""Labels that were never trained, for a picture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .. import targets
from .asking import Asked, Question, chosen
from .pictures import PICTURE, PictureTask
from .reads import read_picture, read_text
from .scoring import class_score


class ZeroShotImageClassification(PictureTask):
    """The label that fits a picture: its logit is explained, as one pair.

    The pipeline calls its model with all labels and one picture; each label is
    explained with the picture alone, as the logit of the pair.
    """

    name = "zero-shot-image-classification"
    about = "the logit of a label for a picture"
    takes = f"{PICTURE} and candidate_labels=[...], a list of texts"

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why the best label, or why those that were asked for."""
        pipe, call = asked.pipe, asked.calls[-1]
        labels = [str(label) for label in asked.option("candidate_labels")]
        template = asked.option("hypothesis_template", "This is a photo of {}.")
        logits = call.output["logits_per_image"][0].detach().cpu().double()
        of_each = "siglip" in pipe.model.config.model_type
        activation = "sigmoid" if of_each else "softmax"
        best = int(logits.argmax())
        answers = {one["label"]: one for one in asked.answer}
        for index in chosen(target, labels, "label") or [best]:
            inputs = {
                key: value[index : index + 1]
                if isinstance(value, Tensor)
                and key != "pixel_values"
                and len(value) == len(labels)
                else value
                for key, value in call.inputs.items()
            }
            text = read_text(pipe, inputs, template.format(labels[index]), name="label")
            notes: tuple[str, ...] = ()
            if "attention_mask" not in inputs and any(
                piece.token == pipe.tokenizer.pad_token for piece in text.pieces
            ):
                notes = (
                    "The model reads the padding of a label like its words, so that "
                    "padding has relevance, too.",
                )
            yield Question(
                inputs=inputs,
                target=targets.Similarity(),
                answer=class_score(labels, logits, index, activation),
                prediction=class_score(labels, logits, best, activation),
                reads=(read_picture(pipe, inputs), text),
                output=answers[labels[index]],
                notes=notes,
            )
