"""What a task is: how a model is asked, what it answered, and what that is read from.

A task is one small class: it runs the pipeline, and turns each of its answers into a
:class:`Question`, which says what the model was called with, which score of its output
is the answer's, and how the inputs read. Everything else (the methods, the results,
their pictures) is the same for all tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._visible import shortened
from ..errors import InputError, LRPError, TargetError, suggestion
from ..explanation import Explanation
from ..models.prediction import ClassScore, places_of
from .recording import ModelCall, recorded


class Read(ABC):
    """One input of a model as a person reads it: a text, a picture, a sound.

    Attributes:
        key (str): the argument of the model that holds it, such as ``input_ids``.
        name (str): what it is called, such as ``"question"``.
    """

    key: str
    name: str

    @abstractmethod
    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> Explanation:
        """Return its scores with what they belong to.

        Args:
            scores (Tensor): of the argument, ``(1, ...)``, in float64 on the CPU.
            said (Mapping): what all explanations say, as keyword arguments.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Why did the model answer this? One answer, and all that a method needs to say.

    Args:
        inputs (Mapping): what the model was called with, a batch of one.
        target (Callable): from the model's output to the score of the answer, ``(1,)``.
        answer (ClassScore): what is explained.
        reads (tuple of Read): the inputs as a person reads them.
        prediction (ClassScore, optional): what the model prefers. Default: the answer
        output (Any): the answer as the pipeline gave it. Default: None
        score (str): what the score is, such as ``"logit"``. Default: ``"logit"``
        notes (tuple of str): what a reader should know. Default: ()
        function (Callable, optional): what takes the inputs. Default: the model
    """

    inputs: Mapping[str, Any]
    target: Callable[[Any], Tensor]
    answer: ClassScore
    reads: tuple[Read, ...]
    prediction: ClassScore | None = None
    output: Any = None
    score: str = "logit"
    notes: tuple[str, ...] = ()
    function: Callable[..., Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, eq=False)
class Asked:
    """A pipeline that was asked once.

    Attributes:
        pipe (Any): the pipeline, or what stands for one (:class:`Assembled`).
        given (Mapping): what it was asked, by name; the first input of most pipelines
            is ``text`` or ``image``.
        answer (Any): what it answered.
        calls (list of ModelCall): how it called its model.
    """

    pipe: Any
    given: Mapping[str, Any]
    answer: Any
    calls: list[ModelCall]

    def option(self, name: str, default: Any = None) -> Any:
        """Return an option of the pipeline: of this call, or as it was made."""
        if self.given.get(name) is not None:
            return self.given[name]
        for kind in ("preprocess", "forward", "postprocess"):
            made = getattr(self.pipe, f"_{kind}_params", {})
            if made.get(name) is not None:
                return made[name]
        return default


class Task(ABC):
    """How a kind of model is asked and understood.

    Attributes:
        name (str): its name, that of ``transformers`` where it has one.
        about (str): what is explained, in a few words, for the list of tasks.
        takes (str): what it is called with, to begin a message.
        of_files (bool): whether a path is an input, rather than a file of texts.
        several (bool): whether an input has several answers, each explained.
        loads (str): the class of ``transformers`` that loads such a model by name,
            where there is no pipeline for it; ``""`` where there is one.
        prepares (tuple of str): what prepares its inputs then: the argument, and the
            class of ``transformers`` that loads it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    takes: ClassVar[str] = "a text"
    of_files: ClassVar[bool] = False
    several: ClassVar[bool] = False
    loads: ClassVar[str] = ""
    prepares: ClassVar[tuple[str, str]] = ("tokenizer", "AutoTokenizer")

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return what was given, by name.

        Args:
            text (Any): the first input, None where it was not given by its place.
            image (Any): what was given as ``image=``, or None.
            further (Mapping): further keyword arguments.

        Raises:
            InputError: there is nothing.
        """
        first = {"text": text, "image": image}
        found = {name: value for name, value in first.items() if value is not None}
        found |= further
        if not found:
            raise InputError(f"expected an input for the task {self.name!r}, got none")
        return found

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return the inputs of a list, each with its options; None for a single one."""
        for name in ("text", "image"):
            value = given.get(name)
            if isinstance(value, (list, tuple)) and not is_chat(value):
                return [{**given, name: one} for one in value]
        return None

    def label_names(self, pipe: Any) -> tuple[str, ...] | None:
        """Return the classes that labels of data are compared with; None for none."""
        return None

    def label(self, asked: Asked, index: int) -> ClassScore | None:
        """Return what the model says of the true class of an input.

        Args:
            asked (Asked): what was asked and answered.
            index (int): the class, as the model numbers it.
        """
        return None

    def are_several(self, target: Any) -> bool:
        """Whether a target of the user's is several, each explained."""
        return isinstance(target, (list, tuple))

    def ask(self, pipe: Any, given: Mapping[str, Any]) -> Asked:
        """Run a pipeline on one input.

        Args:
            pipe (Any): the pipeline.
            given (Mapping): the input and its options.
        """
        twin, calls = recorded(pipe)
        try:
            answer = self.run(twin, given)
        except (LRPError, Warning):
            raise
        except Exception as error:  # a pipeline raises what it likes
            if twin.model.entered and isinstance(error, RuntimeError):
                raise  # the model's own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"the task {self.name!r} takes {self.takes}, got "
                f"{_described(given)}: {shortened(reason, 300)}"
            ) from error
        if not calls:
            raise InputError(
                f"the pipeline answered without calling its model: {answer!r}"
            )
        return Asked(pipe, given, answer, calls)

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return what the pipeline answers; its model's calls are noted."""
        rest = dict(given)
        first = rest.pop("text") if "text" in rest else rest.pop("image")
        return pipe(first, **rest)

    def results(self, asked: Asked, target: Any, by: Any) -> list[Any]:
        """Return what explains the answers.

        Args:
            asked (Asked): what was asked and answered.
            target (Any): what the user wants to know of it; None for what the model
                answered.
            by (PipelineExplainer): what explains a question.
        """
        return [by.explain(question) for question in self.questions(asked, target)]

    @abstractmethod
    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield what is explained.

        Args:
            asked (Asked): what was asked and answered.
            target (Any): what the user wants to know of it; None for what the model
                answered.
        """


@dataclass(eq=False)
class Assembled:
    """A model with what prepares its inputs, for tasks that have no pipeline.

    Args:
        model (Module): the model.
        task (str): the name of the task.
        tokenizer, image_processor, feature_extractor, processor (Any, optional): as a
            pipeline has them. Default: None
    """

    model: Any = field(repr=False)
    task: str
    tokenizer: Any = field(default=None, repr=False)
    image_processor: Any = field(default=None, repr=False)
    feature_extractor: Any = field(default=None, repr=False)
    processor: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("tokenizer", "image_processor", "feature_extractor"):
            if getattr(self, name) is None:
                setattr(self, name, getattr(self.processor, name, None))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        found: torch.device = next(self.model.parameters()).device
        return found


def _described(given: Mapping[str, Any]) -> str:
    """Return what was given, for a message."""
    found = []
    for name, value in given.items():
        said = repr(value) if isinstance(value, (str, int, float)) else ""
        found.append(f"{name}={shortened(said, 60) or type(value).__name__}")
    return ", ".join(found)


def is_chat(given: Any) -> bool:
    """Whether a list is one conversation: messages with a role."""
    return bool(given) and isinstance(given[0], Mapping) and "role" in given[0]


def on_device(pipe: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a processor made, where and as precise as a pipeline's model is."""
    dtype = next(pipe.model.parameters()).dtype
    return {
        key: value.to(pipe.device, dtype if value.is_floating_point() else None)
        for key, value in batch.items()
        if isinstance(value, Tensor)
    }


def chosen(target: Any, names: Sequence[str], what: str) -> list[int] | None:
    """Return the places in a list that a target means: by index, name, or several.

    Args:
        target (int, str, sequence of them, or None): as a user wrote it.
        names (sequence of str): what there is to choose from.
        what (str): what they are, such as ``"label"``.

    Returns:
        The places; None for no target.

    Raises:
        TargetError: there is none such.
    """
    if target is None:
        return None
    several = target if isinstance(target, (list, tuple)) else [target]
    found = []
    for one in several:
        if isinstance(one, bool) or not isinstance(one, (int, str)):
            raise TargetError(
                f"expected target= to be a {what}'s name or number, got {one!r}"
            )
        if isinstance(one, int):
            if not 0 <= one < len(names):
                raise TargetError(
                    f"there are {what}s 0 to {len(names) - 1}, got target={one}"
                )
            found.append(one)
            continue
        matches = places_of(one, names)
        if not matches:
            raise TargetError(
                f"there is no {what} named {one!r}.{suggestion(one, names)}"
            )
        found += matches
    return found
