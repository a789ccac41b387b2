"""Explain what a pipeline answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from captum.attr import Attribution
from torch import Tensor, nn
from tqdm import tqdm

from .._packages import require
from ..attribution import InputAttribution, methods
from ..attribution.calling import attribute_inputs, make_method, moved_to
from ..attribution.meaning import finite, meaning_of, notes_on
from ..description import describe
from ..errors import InputError, LRPError, ModelStateError
from ..explanation import Explanation
from ..explanations import Explanations
from ..joint import JointExplanation
from ..models.loading import quiet
from ..models.special_tokens import baseline_id, placeholder_ids, special_ids
from . import is_pipeline, task_named
from .asking import Assembled, Question, Task
from .reads import ReadPicture, ReadText

#: what may be wrong with one input of many
OF_ONE = (InputError, ModelStateError, OSError, RuntimeError, IndexError)
Failed: TypeAlias = Callable[[int, Any, Exception], object]


def is_of_one(error: Exception) -> bool:
    """Whether an error of :data:`OF_ONE` says nothing of the other inputs.

    What this package raises otherwise, such as for an operator without a rule, does.
    """
    return isinstance(error, (InputError, ModelStateError)) or not isinstance(
        error, LRPError
    )


class PipelineExplainer:
    """Explains what a pipeline answers to its own inputs.

    Args:
        pipe (Any): a pipeline of ``transformers``, or :class:`Assembled`.
        method (str, Attribution or type): as for
            :class:`~captum_transformer_lrp.Explainer`.
        options (Mapping): further keyword arguments of ``attribute``.

    Raises:
        UnknownNameError: the pipeline's task is none that can be explained.
        ModelStateError: its model is in training mode.
    """

    def __init__(self, pipe: Any, method: Any, options: Mapping[str, Any]) -> None:
        self.pipe = pipe
        self.task: Task = task_named(pipe.task)
        self.method = method
        self.options = dict(options)

    def by(self, method: Any, options: Mapping[str, Any]) -> PipelineExplainer:
        """Return one by another method, of the same pipeline."""
        return PipelineExplainer(self.pipe, method, options)

    def __call__(
        self,
        text: Any,
        image: Any,
        target: Any,
        further: Mapping[str, Any],
        failed: Failed | None = None,
        progress: bool | None = None,
        labels: Sequence[int | None] = (),
    ) -> Any:
        """Return what explains the answers.

        Args:
            text (Any): the first input of the pipeline, None if not given.
            image (Any): what was given as ``image=``, None if not given.
            target (Any): what to explain; None for what the pipeline answers.
            further (Mapping): the pipeline's keyword arguments.
            failed (Callable, optional): told of each input of a list that cannot be
                explained, by its number from 1, which is left out. Default: None, the
                first error ends the list
            progress (bool, optional): whether to show a progress bar on stderr.
                Default: None, where a list has three inputs or more
            labels (sequence of int or None, optional): the true class of each input of
                a list, as the model numbers them. Default: (), they are not known

        Returns:
            An explanation; where the task has several answers for an input, or several
            targets are asked for, :class:`Explanations`; for a list of inputs one of
            these for each.
        """
        model = self.pipe.model
        if model.training:
            raise ModelStateError(
                f"{type(model).__name__} is in training mode, where dropout makes "
                "every explanation another one: call model.eval() first"
            )
        inputs = self.task.inputs(text, image, further)
        listed = self.task.one_by_one(inputs)
        if listed is None:
            return self._one(inputs, target)
        found = []
        hidden = len(listed) < 3 if progress is None else not progress
        shown = tqdm(listed, desc="explaining", disable=hidden, leave=False)
        for number, one in enumerate(shown, 1):
            try:
                label = labels[number - 1] if labels else None
                found.append(self._one(one, target, label))
            except OF_ONE as error:
                if failed is None or not is_of_one(error):
                    raise
                failed(number, next(iter(one.values())), error)
        alike = all(isinstance(one, Explanation) for one in found)
        return Explanations(found) if alike else found

    def _one(
        self, given: Mapping[str, Any], target: Any, label: int | None = None
    ) -> Any:
        asked = self.task.ask(self.pipe, given)
        several = self.task.several or self.task.are_several(target)
        found = self.task.results(asked, target, self)
        true = None if label is None else self.task.label(asked, label)
        if true is not None:
            found = [replace(one, label=true) for one in found]
        if several or len(found) != 1:
            alike = all(isinstance(one, Explanation) for one in found)
            if not found:
                nothing = f"There is nothing to explain: {self.task.name} found none"
                asked_for = "" if target is None else f" of {target!r}"
                return Explanations(notes=(f"{nothing}{asked_for}.",))
            return Explanations(found) if alike else found
        return found[0]

    def explain(self, question: Question) -> Explanation:
        """Return the explanation of one answer."""
        function = question.function or self.pipe.model
        tokenizer = getattr(self.pipe, "tokenizer", None)
        other = baseline_id(tokenizer)
        keep = (*special_ids(tokenizer), *placeholder_ids(self.pipe.model))
        seen = next((r for r in question.reads if isinstance(r, ReadPicture)), None)
        attributor, options = self._attributor(function, seen, keep)
        scores, delta = attribute_inputs(
            attributor,
            function,
            question.inputs,
            question.target,
            baseline=None if seen is None else seen.black,
            of_tokens=0.0 if other is None else other,
            keep=keep,
            patch_size=(16, 16) if seen is None else seen.patch_size,
            options=options,
        )
        said: dict[str, Any] = {
            "model": _name(self.pipe.model),
            "prediction": question.prediction or question.answer,
            "target": question.answer,
            "convergence_delta": delta,
            "score_name": question.score,
            "task": self.task.name,
            "output": question.output,
            **meaning_of(attributor, function),
        }
        said["notes"] = question.notes + _unread(question, scores)
        parts: dict[str, Explanation] = {}
        for read in question.reads:
            if read.key not in scores:
                raise InputError(
                    f"{describe(attributor).name} says nothing of {read.key}: it "
                    f"explained {', '.join(scores)}"
                )
            values = finite(scores[read.key].numpy(), attributor)
            of_text = isinstance(read, ReadText) and values.ndim == 2
            about = values[0] if of_text else values
            missed = delta if len(question.reads) == 1 else None
            notes = said["notes"] + notes_on(attributor, about, missed)
            parts[read.name] = read.explanation(
                torch.from_numpy(np.asarray(values)), {**said, "notes": notes}
            )
        if len(parts) == 1:
            return next(iter(parts.values()))
        whole = np.concatenate([values.numpy().ravel() for values in scores.values()])
        plain = notes_on(attributor, whole, None)
        said["notes"] += tuple(
            note for note in notes_on(attributor, whole, delta) if note not in plain
        )
        return JointExplanation(parts_of=parts, **said)

    def _attributor(
        self, function: Any, seen: ReadPicture | None, keep: tuple[int, ...]
    ) -> tuple[Attribution, dict[str, Any]]:
        """Return the method on a function, and the options of its ``attribute``."""
        if not isinstance(self.method, str):
            made = make_method(self.method, function)
            return moved_to(made, self.pipe.model, function), self.options
        row = methods[self.method]
        of_making, options = row.parted(self.options)
        tokenizer = getattr(self.pipe, "tokenizer", None)
        known: dict[str, Any] = {"tokenizer": tokenizer}
        if seen is not None:
            known["baseline"] = torch.zeros(()) if seen.black is None else seen.black
        made = row.make(function, of_making, **known)
        of_parts: Any = made
        if seen is not None and "patch_size" in describe(made).needs:
            if "patch_size" not in of_making:
                of_parts.patch_size = seen.patch_size
        if isinstance(made, InputAttribution) and "keep" not in of_making:
            made.keep = keep
        return made, options


def _unread(question: Question, scores: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return what was explained and is not shown, in words."""
    shown = {read.key for read in question.reads}
    return tuple(
        f"{key} has {float(values.sum()):+.3g} in all, which is not shown."
        for key, values in scores.items()
        if key not in shown
    )


def pipeline_for(model: Any, task: str | None, **parts: Any) -> Any:
    """Return a pipeline, or what stands for one where transformers has none.

    Args:
        model (Any): a pipeline, a loaded model, or a name.
        task (str or None): the name of the task; None takes the pipeline's.
        parts (Any): ``tokenizer``, ``image_processor``, ``feature_extractor`` and
            ``processor``, each None where it was not given; ``device``.

    Raises:
        InputError: arguments that do not belong together.
        UnknownNameError: there is no such task.
        MissingPackageError: transformers is not installed.
    """
    device = parts.pop("device", None)
    if device is not None and not isinstance(model, (str, Path)):
        raise InputError("device= belongs to a model loaded by name: move this one")
    given = {name: part for name, part in parts.items() if part is not None}
    if is_pipeline(model):
        if task is not None and task_named(task).name != task_named(model.task).name:
            raise InputError(
                f"the pipeline's task is {model.task!r}, got task={task!r}: leave it "
                "out"
            )
        if given:
            raise InputError(
                f"{next(iter(given))}= belongs to a model: the pipeline brings its own"
            )
        return model
    transformers = require("transformers")
    assert task is not None
    known = task_named(task)
    if known.loads:
        if isinstance(model, nn.Module):
            return Assembled(model=model, task=task, **given)
        load = getattr(transformers, known.loads).from_pretrained
        with quiet(str(model)):
            loaded = load(str(model), dtype=torch.float32)
        loaded = loaded.to(device or "cpu").eval()
        if not given:
            part, loader = known.prepares
            given = {part: getattr(transformers, loader).from_pretrained(str(model))}
        return Assembled(model=loaded, task=task, **given)
    loading: Any = nullcontext()
    if isinstance(model, nn.Module):
        device = next(model.parameters()).device
    else:
        model, loading = str(model), quiet(str(model))
        given = {"dtype": torch.float32, **given}
    with warnings.catch_warnings(), loading:
        warnings.simplefilter("ignore")
        return transformers.pipeline(
            known.name, model=model, device=device or "cpu", **given
        )


def _name(model: Any) -> str:
    given = getattr(getattr(model, "config", None), "_name_or_path", "")
    return str(given).rstrip("/").rpartition("/")[2] or type(model).__name__


__all__ = ["PipelineExplainer", "pipeline_for"]
