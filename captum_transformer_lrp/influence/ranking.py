"""Training examples, ranked by what they did for a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .._packages import require
from .._visible import printed
from ..errors import InputError
from ..models.loading import ImageModel, TextModel
from ..report.blocks import Block, Heading, Heat, Paragraph, Pictures, Table
from ..report.shown import Shown
from .reading import OpenedExamples, collect, run

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False)
class InfluentialExample:
    """One training example and its score.

    Args:
        index (int): Its position among the training examples.
        example (Any): The text or picture, as it was given.
        label (str): Its label's name.
        score (float): Its influence; what it measures is said by the list it is in.
    """

    index: int
    example: Any
    label: str
    score: float


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class InfluentialExamples(Shown, Sequence[InfluentialExample]):
    """Training examples, the most important one first. Prints, and shows in notebooks.

    Args:
        title (str): What they are.
        question (str): What they are influential for.
        measure (str): What a score is.
        rows (tuple of InfluentialExample): The examples.
    """

    title: str
    question: str
    measure: str
    rows: tuple[InfluentialExample, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.rows[index]

    def __iter__(self) -> Iterator[InfluentialExample]:
        return iter(self.rows)

    @property
    def indices(self) -> list[int]:
        """Positions among the training examples."""
        return [row.index for row in self.rows]

    @property
    def scores(self) -> list[float]:
        """The scores, in the same order."""
        return [row.score for row in self.rows]

    @property
    def examples(self) -> list[Any]:
        """The texts or pictures, in the same order."""
        return [row.example for row in self.rows]

    @property
    def labels(self) -> list[str]:
        """The labels' names, in the same order."""
        return [row.label for row in self.rows]

    def to_pandas(self) -> pandas.DataFrame:
        """Return a table with the columns index, label, score and example.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        frame: pandas.DataFrame = require("pandas").DataFrame(
            {
                "index": self.indices,
                "label": self.labels,
                "score": self.scores,
                "example": self.examples,
            }
        )
        return frame

    def __repr__(self) -> str:
        return f"InfluentialExamples({self.title!r}, {len(self)} examples)"

    def __str__(self) -> str:
        width = max((len(row.label) for row in self.rows), default=0)
        lines = [
            f"{row.score:>+11.4g}  {row.label:<{width}}  {_shown(row)}"
            for row in self.rows
        ]
        lines = [self.title, self.question, *lines, f"({self.measure})"]
        return printed("\n".join(lines))

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: the examples with their scores."""
        yield Heading(text=self.title)
        yield Paragraph(text=self.question, kind="answer")
        pictures = [row for row in self.rows if hasattr(row.example, "thumbnail")]
        if pictures:
            yield Pictures(
                pictures=tuple(
                    Heat(
                        image=row.example,
                        caption=f"{row.score:+.4g}  {row.label}",
                        alt=f"{_shown(row)}, {row.label}",
                    )
                    for row in pictures
                )
            )
        yield Table(
            heads=("Training example", "Label", "Score"),
            rows=tuple(
                (_shown(row), row.label, f"{row.score:+.4g}") for row in self.rows
            ),
            texts=2,
            repeats=bool(pictures),
        )
        yield Paragraph(text=self.measure, kind="caption")

    @property
    def alt(self) -> str:
        """The strongest of them in words."""
        top = "; ".join(f"{_shown(r)} {r.score:+.4g}" for r in self.rows[:3])
        return f"{self.title}. {self.question} Strongest: {top}."


def _shown(row: InfluentialExample) -> str:
    """Return an example in one line."""
    if isinstance(row.example, str):
        return row.example
    return f"training example {row.index}"


class TrainingInfluence(ABC):
    """Scores of all training examples for any example; see the functions that make it.

    Attributes:
        examples (list): the training examples.
        labels (list of int): the indices of their classes.
        class_names (tuple of str): names of the classes.
    """

    #: what a score is, in one line
    measure: str

    def __init__(self, opened: OpenedExamples, examples: Sequence[Any]) -> None:
        self._reader = opened.reader
        self._module = opened.module
        self.examples = list(examples)
        self.labels: list[int] = opened.labels.tolist()

    @property
    def source(self) -> TextModel | ImageModel:
        """The user's model and what came with it."""
        return self._reader.source

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return self.source.class_names

    @abstractmethod
    def _scores(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        """Return ``(examples, training examples)``, high for what speaks for."""

    def scores(
        self,
        examples: Sequence[Any],
        targets: Sequence[int | str] | None = None,
    ) -> np.ndarray:
        """Return the score of every training example for every example.

        Args:
            examples (Sequence): Texts or pictures.
            targets (Sequence of int or str, optional): A class for each, by index or
                name. Default: None, what the model predicts

        Returns:
            *np.ndarray* of shape ``(examples, training examples)``.

        Raises:
            InputError: Not a sequence of what the model reads.
            TargetError: The model has no such class.
        """
        if isinstance(examples, (str, bytes)):
            raise InputError("expected a list of texts, got one text: put it in [...]")
        return self._scores(examples, self._targets(examples, targets)).numpy()

    def proponents(
        self, example: Any, k: int = 5, *, target: int | str | None = None
    ) -> InfluentialExamples:
        """Return the training examples that did most for a prediction.

        Args:
            example (str, PIL.Image.Image, Path or Tensor): What is predicted.
            k (int, optional): How many. Default: 5
            target (int or str, optional): The class, by index or name. Default: None,
                what the model predicts

        Raises:
            InputError: ``k`` is below 1, or the model does not read such an example.
            TargetError: The model has no such class.
        """
        return self._ranked("Proponents", example, k, target, sign=1)

    def opponents(
        self, example: Any, k: int = 5, *, target: int | str | None = None
    ) -> InfluentialExamples:
        """Return the training examples that did most against a prediction.

        Takes and raises what :meth:`proponents` does.
        """
        return self._ranked("Opponents", example, k, target, sign=-1)

    def _ranked(
        self, title: str, example: Any, k: int, target: int | str | None, *, sign: int
    ) -> InfluentialExamples:
        targets = self._targets([example], None if target is None else [target])
        (scores,) = self._scores([example], targets)
        name = self._class_name(int(targets))
        shown = f"“{example}”" if isinstance(example, str) else "the picture"
        asked = "predicted as" if target is None else "as"
        return self._top(
            scores,
            k,
            sign=sign,
            title=f"{title} in the training data",
            question=f"{shown}, {asked} “{name}”",
        )

    def _top(
        self, scores: Tensor, k: int | None, *, sign: int, title: str, question: str
    ) -> InfluentialExamples:
        if k is not None and k < 1:
            raise InputError(f"expected k of at least 1, got {k}")
        order = torch.argsort(-sign * scores, stable=True)[:k].tolist()
        return InfluentialExamples(
            title=title,
            question=question,
            measure=self.measure,
            rows=tuple(
                InfluentialExample(
                    index=i,
                    example=self.examples[i],
                    label=self._class_name(self.labels[i]),
                    score=float(scores[i]),
                )
                for i in order
            ),
        )

    def _targets(
        self, examples: Sequence[Any], targets: Sequence[int | str] | None
    ) -> Tensor:
        if targets is not None and len(targets) != len(examples):
            raise InputError(
                f"expected a target for each of the {len(examples)} examples, got "
                f"{len(targets)}"
            )
        logits = self._logits(examples)
        if targets is None:
            return logits.argmax(-1)
        return self._reader.indices_of(targets, logits.shape[-1])

    def _logits(self, examples: Sequence[Any]) -> Tensor:
        """Return the logits of the user's model, ``(examples, classes)``."""
        with torch.no_grad():
            return collect(
                lambda batch: run(self._module, batch),
                self._reader,
                self._module,
                examples,
            )

    def _class_name(self, index: int) -> str:
        names = self.class_names
        return names[index] if index < len(names) else f"class {index}"


class GradientInfluence(TrainingInfluence):
    """Influence by the gradients of the loss, which every example also has on itself.

    See the functions that make it.
    """

    @abstractmethod
    def _self_influence(self) -> Tensor:
        """Return the score of each training example for itself, ``(examples,)``."""

    def self_influence(self, k: int | None = None) -> InfluentialExamples:
        """Return the training examples that did most for their own prediction.

        The model learned them by heart rather than from others: rare ones, and those
        with a wrong label (Pruthi et al. 2020, arXiv:2002.08484, section 4.1).

        Args:
            k (int, optional): How many. Default: None, all

        Raises:
            InputError: ``k`` is below 1.
        """
        return self._top(
            self._self_influence(),
            k,
            sign=1,
            title="Training examples with the largest self-influence",
            question="rare or wrongly labelled ones stand first",
        )
