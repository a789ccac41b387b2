"""Labels that were never trained, for a picture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from .. import targets
from ..errors import InputError, TargetError
from ..joint import JointExplanation
from ..models.prediction import ClassScore, class_score
from .asking import Asked, Question, chosen
from .pictures import PICTURE, PictureTask
from .reads import read_picture, read_text


class ZeroShotImageClassification(PictureTask):
    """The label that fits a picture: its logit is explained, as one pair.

    The pipeline calls its model with all labels and one picture; each label is
    explained with the picture alone, as the logit of the pair. A
    :class:`~.targets.Contrast` of two labels is the relevance of one pair less that of
    the other.
    """

    name = "zero-shot-image-classification"
    about = "the logit of a label for a picture"
    takes = f"{PICTURE} and candidate_labels=[...], a list of texts"

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the labels with their probabilities, best first."""
        labels = given.get("candidate_labels", ())
        if isinstance(labels, str) or ("candidate_labels" in given and not labels):
            raise InputError(  # of a text the pipeline would take the letters
                f"expected candidate_labels= to be a list of texts, got {labels!r}"
            )
        return super().run(pipe, given)

    def results(self, asked: Asked, target: Any, by: Any) -> list[Any]:
        """Return why the labels, or why one rather than another."""
        found: list[Any] = []
        for one in target if isinstance(target, (list, tuple)) else [target]:
            if not isinstance(one, targets.Contrast):
                found += super().results(asked, one, by)
                continue
            this, that = super().results(asked, [one.this, one.that], by)
            found.append(_rather(this, that))
        return found

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


def _rather(this: JointExplanation, that: JointExplanation) -> JointExplanation:
    """Return why one label fits rather than another: their difference."""
    if not this.signed:
        raise TargetError(
            f"{this.method} gives sizes, which have no difference: explain each label"
        )
    delta = None
    if this.convergence_delta is not None and that.convergence_delta is not None:
        delta = this.convergence_delta - that.convergence_delta
    said: dict[str, Any] = {
        "target": ClassScore(
            index=this.target.index,
            name=f"{this.target.name} rather than {that.target.name}",
            logit=this.logit - that.logit,
        ),
        "convergence_delta": delta,
        "output": None,
        "score_name": "difference of logits",
    }
    seen, other = this["picture"], that["label"]
    parts = {
        "picture": replace(seen, scores=seen.scores - that["picture"].scores, **said),
        "label": replace(this["label"], **said),
        "other label": replace(other, scores=-other.scores, **said),
    }
    return replace(this, parts_of=parts, **said)
