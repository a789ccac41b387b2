"""One class for an input: of a text, of a choice, of labels that were never trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import targets
from ..errors import InputError
from ..models.loading import activation_of, config_names
from ..models.prediction import ClassScore, class_score
from .asking import Asked, Question, Task, chosen, on_device
from .reads import ReadText, pieces_of, read_text, without_padding
from .scoring import logits_of, of_function, value_of, wanted


class Classification(Task):
    """One class for one input: its logit is explained.

    What kind of input it is, its subclasses say.

    Attributes:
        alone (str): what the pipeline makes the probability of an only class with.
    """

    alone: ClassVar[str] = "sigmoid"

    @abstractmethod
    def read(
        self, pipe: Any, given: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """Return the inputs as a person reads them."""

    def activation(self, said: Any, config: Any) -> str:
        """Return what the pipeline makes probabilities with.

        Args:
            said (Any): its ``function_to_apply``; None for what the config says.
            config (Any): of the model.
        """
        if said is None and config.num_labels == 1:
            return "none" if config.problem_type == "regression" else self.alone
        if said is None:
            return activation_of(config)
        found = str(getattr(said, "value", said)).lower()
        return found if found in ("softmax", "sigmoid") else "none"

    def label_names(self, pipe: Any) -> tuple[str, ...] | None:
        """Return the classes; a regression has none."""
        config = pipe.model.config
        made = getattr(pipe, "_postprocess_params", {}).get("function_to_apply")
        if self.activation(made, config) == "none":
            return None
        return tuple(config_names(config))

    def label(self, asked: Asked, index: int) -> ClassScore | None:
        """Return the logit and probability of the true class."""
        config = asked.pipe.model.config
        logits = logits_of(asked.calls[-1].output)
        if index >= len(logits):
            return None
        activation = self.activation(asked.option("function_to_apply"), config)
        return class_score(config_names(config), logits, index, activation)

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why this class, or why those that were asked for."""
        pipe, given, calls = asked.pipe, asked.given, asked.calls
        call = calls[-1]
        logits = logits_of(call.output)
        names = config_names(pipe.model.config)
        said = asked.option("function_to_apply")
        activation = self.activation(said, pipe.model.config)
        best = int(logits.argmax(-1))
        predicted = class_score(names, logits, best, activation)
        inputs = call.row(0)
        reads = self.read(pipe, given, inputs)
        answer = asked.answer
        listed = answer if isinstance(answer, list) else [answer]
        if listed and isinstance(listed[0], list):  # of all classes
            (listed,) = listed
        labels = {str(one.get("label")): one for one in listed}
        for index, function, name in wanted(target, names, best):
            if index is None:
                yield of_function(asked, call, inputs, function, reads)
                continue
            yield Question(
                inputs=inputs,
                target=function,
                answer=class_score(names, logits, index, activation),
                prediction=predicted,
                reads=reads,
                output=labels.get(name),
            )


class TextClassification(Classification):
    """The class of a text, or of two."""

    name = "text-classification"
    about = "the logit of a class of a text"
    takes = 'a text, or {"text": ..., "text_pair": ...}'

    def read(
        self, pipe: Any, given: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[ReadText, ...]:
        """Return the text, or both in one sequence."""
        text = given["text"]
        both = text if isinstance(text, Mapping) else {"text": text}
        texts = both.get("text"), both.get("text_pair")
        return (read_text(pipe, inputs, *texts),)


class ZeroShotClassification(Task):
    """A label that was never trained: the logit of "it follows" is explained.

    The model reads the text with a sentence about the label. Where labels exclude each
    other that of entailment is explained, else entailment less contradiction.
    """

    name = "zero-shot-classification"
    about = "the entailment logit of a label's sentence (less contradiction)"
    takes = "a text and candidate_labels=[...], a list of texts"

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why the best label, or why those that were asked for."""
        pipe, given, calls = asked.pipe, asked.given, asked.calls
        labels = list(asked.answer["labels"])
        chances = list(asked.answer["scores"])
        order = pipe._args_parser._parse_labels(asked.option("candidate_labels"))
        template = asked.option("hypothesis_template", "This example is {}.")
        alone = len(labels) == 1 or bool(asked.option("multi_label", False))
        entailment = pipe.entailment_id
        contradiction = -1 if entailment == 0 else 0
        function: Any = targets.Label(entailment)
        if alone:
            function = targets.Contrast(entailment, contradiction)
        said = {}
        for label, chance in zip(labels, chances, strict=True):
            call = calls[order.index(label)]
            said[label] = ClassScore(
                index=order.index(label),
                name=label,
                logit=float(value_of(function, pipe.model, call.output)),
                probability=float(chance),
            )
        for number in chosen(target, order, "label") or [order.index(labels[0])]:
            label = order[number]
            call = calls[number]
            read = read_text(pipe, call.inputs, given["text"], template.format(label))
            yield Question(
                inputs=call.row(0),
                target=function,
                answer=said[label],
                prediction=said[labels[0]],
                reads=(read,),
                output={"label": label, "score": said[label].probability},
                score="entailment less contradiction" if alone else "entailment logit",
            )


class MultipleChoice(Task):
    """The best of several endings: the logit of one is explained.

    Called with ``prompt=`` and ``choices=``. The model reads the prompt with each.
    """

    name = "multiple-choice"
    about = "the logit of a choice"
    takes = "prompt=..., a text, and choices=[...]"
    loads = "AutoModelForMultipleChoice"

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return prompt and choices."""
        return {"prompt": text, **further}

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the choices with their probabilities, best first."""
        prompt, choices = _choices(given)
        tokenizer = pipe.tokenizer
        batch = tokenizer(
            [prompt] * len(choices),
            list(choices),
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        with torch.no_grad():
            output = pipe.model(
                **on_device(pipe, {k: v[None] for k, v in batch.items()})
            )
        chances = logits_of(output).softmax(-1)
        order = chances.argsort(descending=True).tolist()
        return [{"label": choices[i], "score": float(chances[i])} for i in order]

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why this choice, or why those that were asked for."""
        pipe, given, calls = asked.pipe, asked.given, asked.calls
        prompt, choices = _choices(given)
        call = calls[0]
        logits = logits_of(call.output)
        best = int(logits.argmax())
        for index in chosen(target, choices, "choice") or [best]:
            flat = {k: v[0] for k, v in call.inputs.items()}
            rows = {k: v[index : index + 1] for k, v in flat.items()}
            ids, at = without_padding(rows)
            offset = index * flat["input_ids"].shape[1]
            yield Question(
                inputs=call.inputs,
                target=targets.Label(index),
                answer=class_score(choices, logits, index, "softmax"),
                prediction=class_score(choices, logits, best, "softmax"),
                reads=(
                    _ReadChoice(
                        text=f"{prompt} {choices[index]}",
                        pieces=pieces_of(pipe.tokenizer, ids, prompt, choices[index]),
                        at=[offset + i for i in at],
                    ),
                ),
                output=next(a for a in asked.answer if a["label"] == choices[index]),
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadChoice(ReadText):
    """One of the texts that stand beside each other, ``(1, choices, tokens)``."""

    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> Any:
        """Return the text with the scores of its tokens."""
        return super().explanation(scores.reshape(1, -1), said)


def _choices(given: Mapping[str, Any]) -> tuple[str, list[str]]:
    prompt, choices = given.get("prompt"), given.get("choices")
    if (
        not (isinstance(prompt, str) and prompt.strip())
        or not isinstance(choices, (list, tuple))
        or len(choices) < 2
    ):
        raise InputError(
            "expected a prompt and a list of at least two choices: "
            "explainer(prompt=..., choices=[...]), got "
            f"prompt={prompt!r} and choices={choices!r}"
        )
    return prompt, [str(choice) for choice in choices]
