"""What an explanation is: plain numbers with names, which print, draw and save."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from . import records
from ._packages import require
from ._version import __version__
from .errors import InputError, UnknownNameError
from .models.pieces import Piece, word_groups
from .models.prediction import ClassScore
from .models.words import own_scores, scored_words
from .records.storable import Storable
from .report import saving
from .report.blocks import (
    Bars,
    Block,
    ColorScale,
    Facts,
    Heading,
    Heat,
    Legend,
    Outline,
    Paragraph,
    Pictures,
    Table,
    Word,
    Words,
    strongest_cells,
)
from .report.colors import scale_limit
from .report.numbers import ScoreFormat
from .report.shown import Shown, Theme, Together
from .report.words_on_page import is_right_to_left

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

Normalization = Literal["max", "l1"]

#: what explanations can be saved as
SUFFIXES = Storable.suffixes
JSON_SCHEMA = "captum_transformer_lrp.explanation/1"

_ABOUT_RELEVANCE = (
    "Their sum may differ from the logit: biases and other constants keep a part of "
    "it, and some methods (AttnLRP in its softmax) do not conserve the sum."
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation(Storable):
    """Which parts of an input count for one class.

    What the scores are is said by ``measure``:

    - ``"relevance"``: signed and in units of the logit; positive speaks for the target,
      negative against it. Their sum stands beside the target's logit, since the methods
      differ in whether the two agree.
    - ``"attention"``: weights made of the model's attention. They have no unit, do not
      sum to the logit and do not speak against the target.
    - ``"magnitude"``: sizes of gradients, in units of the logit per unit of the
      embedding or pixel: how much the logit would move, whatever the direction.

    Args:
        model (str): Name of the model.
        method (str): Name of the attribution method.
        prediction (ClassScore): The class with the highest logit.
        target (ClassScore): The class that is explained; often the prediction.
        scores (np.ndarray): In float64, one number per token ``(tokens,)``, per pixel
            ``(height, width)`` or per patch ``(rows, columns)``.
        notes (tuple[str, ...]): What a reader should know, such as a truncated text.
            Default: ()
        measure (str): What the scores are, ``"relevance"``, ``"attention"`` or
            ``"magnitude"``. Default: ``"relevance"``
        same_for_every_target (bool): Whether the method looks at attention alone, so
            that the scores explain no target. Default: False
        convergence_delta (float, optional): As the method's own
            ``return_convergence_delta`` gives it: for relevance propagation the logit
            less the sum of the scores, for the methods with a baseline the sum less
            what it should be (Captum's signs). Default: None, the method has none
        about_sum (str, optional): A sentence on what signed scores sum to.
            Default: None, what holds for relevance propagation
        label (ClassScore, optional): The true class, where the data says it.
            Default: None
        score_name (str, optional): What is explained, the unit of relevance.
            Default: ``"logit"``
        task (str, optional): The task, for an explanation of a pipeline's answer.
            Default: ``""``
        output (Any, optional): The answer as the pipeline gave it; it is not saved.
            Default: None
        shown_limit (float, optional): Where the colour scale ends, to show several on
            one scale; it is not saved. Default: None, by its own scores
    """

    kind: ClassVar[str]
    _palette: ClassVar[Literal["words", "picture"]]

    model: str
    method: str
    prediction: ClassScore
    target: ClassScore
    scores: np.ndarray
    notes: tuple[str, ...] = ()
    measure: Literal["relevance", "attention", "magnitude"] = "relevance"
    same_for_every_target: bool = False
    convergence_delta: float | None = None
    about_sum: str | None = None
    label: ClassScore | None = None
    score_name: str = "logit"
    task: str = ""
    output: Any = None
    shown_limit: float | None = None

    @property
    def right(self) -> bool | None:
        """Whether the prediction is the true class; None where that is not known."""
        if self.label is None or self.prediction.probability is None:
            return None
        return self.label.index == self.prediction.index

    @property
    def logit(self) -> float:
        """The model's score for the target, in logits."""
        return self.target.logit

    @property
    def signed(self) -> bool:
        """Whether scores below zero speak against the target."""
        return self.measure == "relevance"

    @property
    def quantity(self) -> str:
        """What one number is called: ``"relevance"``, ``"weight"`` or ``"size"``."""
        names = {"relevance": "relevance", "attention": "weight", "magnitude": "size"}
        return names[self.measure]

    @property
    def relevance_sum(self) -> float | None:
        """The sum of all scores, in units of the logit; None where they have none."""
        return float(self.scores.sum()) if self.signed else None

    @property
    @abstractmethod
    def limit(self) -> float:
        """The score at the end of the colour scale."""

    def number_format(self, limit: float) -> ScoreFormat:
        """Return what writes scores up to ``limit``, with a sign if they have one."""
        return ScoreFormat(limit=limit, signed=self.signed)

    @property
    def scale(self) -> ColorScale:
        """From a score to a colour: up to :attr:`limit`, its ends in words."""
        return self._scale(self.shown_limit or self.limit)

    def on_scale(self, limit: float) -> Explanation:
        """Return the same explanation, its colours on a scale up to a limit.

        Args:
            limit (float): The magnitude of the strongest colour.
        """
        return replace(self, shown_limit=limit)

    def _scale(self, limit: float) -> ColorScale:
        write = self.number_format(limit)
        low, high = f"{self.quantity} 0", write(limit)
        meaning = f"Colour scale: from {low}, neutral, to {high}, orange"
        if self.signed:
            meaning = (
                f"Colour scale: from {write(-limit)}, against {self.target.name}, "
                f"blue, over 0, neutral, to {high}, for {self.target.name}, orange; "
                f"in units of the {self.score_name}"
            )
            low, high = f"against {write(-limit)}", f"{high} for"
        return ColorScale(
            limit=limit,
            signed=self.signed,
            palette=self._palette,
            names=(low, high),
            meaning=meaning,
        )

    @property
    def target_name(self) -> str:
        """The target in words, such as ``“positive”``."""
        return f"“{self.target.name}”"

    @property
    def question(self) -> str:
        """The question that the explanation answers."""
        if self.same_for_every_target:
            return "What does the model attend to?"
        if self.measure == "magnitude":
            return f"What is {self.target_name} sensitive to?"
        if not self.signed:
            return f"What does the model attend to for {self.target_name}?"
        if self.target.index == self.prediction.index:
            return f"Why {self.target_name}?"
        return f"What speaks for {self.target_name}?"

    @property
    def answer(self) -> str:
        """What the model predicts, in one sentence."""
        predicted = f"The model predicts {self.prediction}"
        if self.right is False:
            predicted += f", and the true class is {self.label}"
        if self.same_for_every_target or self.target.index == self.prediction.index:
            return predicted + "."
        return f"{predicted}; explained is {self.target}."

    @property
    def summary(self) -> str:
        """What the numbers mean, in plain words."""
        if self.measure == "magnitude":
            return (
                f"Each number is the size of the gradient at a {self.part}: how fast "
                f"the {self.score_name} of {self.target_name} changes with what the "
                "model reads there, in whichever direction. It says neither for nor "
                f"against, and the numbers do not sum to the {self.score_name}."
            )
        if not self.signed:
            source = f"the model's attention and what it does for {self.target_name}"
            silent = "what speaks against the target"
            if self.same_for_every_target:
                source = "the model's attention alone, the same for every target"
                silent = "whether for or against a target"
            return (
                f"Each number is the weight that the method gives a {self.part}, from "
                f"{source}. It says how much the {self.part} counts, not {silent}. It "
                f"has no unit, and the weights do not sum to the {self.score_name}."
            )
        return (
            f"Each number says how much a {self.part} speaks for {self.target_name} "
            "(orange, above zero) or against it (blue, below zero), in units of the "
            f"{self.score_name}. {self._about_sum}"
        )

    @property
    def _about_sum(self) -> str:
        found = self.about_sum or _ABOUT_RELEVANCE
        return found.replace("the logit", f"the {self.score_name}")

    @property
    @abstractmethod
    def unit(self) -> str:
        """What one number belongs to, such as ``"token"``."""

    @property
    @abstractmethod
    def part(self) -> str:
        """What :meth:`top_parts` lists, such as ``"word"``."""

    @property
    def parts(self) -> str:
        """The plural of :attr:`part`."""
        return self.part + ("es" if self.part.endswith("ch") else "s")

    @property
    def top_title(self) -> str:
        """What stands above :meth:`top_parts`."""
        ranked = {
            "relevance": "that count most",
            "attention": "with the most weight",
            "magnitude": "with the largest gradients",
        }[self.measure]
        return f"{self.parts.capitalize()} {ranked}"

    @abstractmethod
    def top_parts(self, count: int) -> list[tuple[str, float]]:
        """Return names and scores of the parts of largest magnitude, largest first.

        Args:
            count (int): How many at most.
        """

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Names and values of what a reader should know beside the scores."""
        total = self.relevance_sum
        write = ScoreFormat(limit=max(abs(self.logit), abs(total or 0.0)))
        facts = [("Prediction", str(self.prediction))]
        if self.label is not None:
            facts.append(("True class", str(self.label)))
        if self.same_for_every_target:
            facts.append(("Explained", "no target: the attention alone"))
        else:
            facts.append(("Explained", str(self.target)))
            facts.append((self.score_name.capitalize(), write(self.logit)))
        if total is not None:
            facts.append((f"Sum of {self.quantity}", write(total)))
        if self.convergence_delta is not None and self.about_sum is not None:
            facts.append(("Convergence delta", write(self.convergence_delta)))
        if self.task:
            facts.append(("Task", self.task))
        return *facts, ("Method", self.method), ("Model", self.model)

    def normalized(self, how: Normalization = "max") -> np.ndarray:
        """Return the scores on a scale that can be compared between methods.

        Args:
            how (str, optional): ``"max"`` divides by the largest magnitude, so that
                scores lie in [-1, 1]; ``"l1"`` by the sum of magnitudes, so that
                magnitudes sum to 1. Neither changes a sign or an order, and neither
                divides by the sum of signed scores, which may be next to nothing.
                Scores that are all 0 stay 0. Default: ``"max"``

        Returns:
            *np.ndarray* of the shape of ``scores``.

        Raises:
            UnknownNameError: There is no such normalisation.
        """
        return normalize(self.scores, how)

    def to_pandas(self, normalization: Normalization | None = None) -> DataFrame:
        """Return a table of the scores, which needs the package pandas.

        Args:
            normalization (str, optional): Adds a column with
                :meth:`normalized` scores, named after it. Default: None

        Returns:
            *pandas.DataFrame*: Of a text one row per token with ``token``, ``text``,
            ``special``, ``word`` (the number of its word) and ``score``; of a picture
            one row per part with ``row``, ``column`` (of the patch, from 0; of the
            square where patches are unknown) and ``score``; of a sound one row per
            stretch with ``start`` and ``end`` in seconds and ``score``.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        pandas: Any = require("pandas")
        columns = self._columns()
        if normalization is not None:
            scores = np.asarray(columns["score"], dtype=float)
            columns[f"score_{normalization}"] = normalize(scores, normalization)
        table = pandas.DataFrame(columns)
        table.attrs.update(
            method=self.method, model=self.model, target=self.target.name
        )
        found: DataFrame = table
        return found

    @abstractmethod
    def _columns(self) -> dict[str, Any]:
        """Return the columns of :meth:`to_pandas`, the last one ``score``."""

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        return {
            "schema": JSON_SCHEMA,
            "kind": self.kind,
            "model": self.model,
            "method": self.method,
            "prediction": asdict(self.prediction),
            "target": asdict(self.target),
            "measure": self.measure,
            "same_for_every_target": self.same_for_every_target,
            "relevance_sum": self.relevance_sum,
            "convergence_delta": self.convergence_delta,
            "notes": list(self.notes),
            "version": __version__,
            "about_sum": self.about_sum,
            "label": None if self.label is None else asdict(self.label),
            "score_name": self.score_name,
            "task": self.task,
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the explanation as JSON, the same keys in every release of a schema.

        All explanations have ``schema`` (``"captum_transformer_lrp.explanation/1"``),
        ``kind`` (``"text"``, ``"image"``, ``"sound"`` or ``"joint"``), ``model``,
        ``method``, ``prediction`` and ``target`` (each ``index``, ``name``, ``logit``,
        ``probability`` or null),
        ``measure`` (``"relevance"``, ``"attention"`` or ``"magnitude"``, as
        :class:`Explanation` says), ``same_for_every_target``, ``relevance_sum`` (null
        where scores have no sign), ``convergence_delta`` (null where the method has
        none), ``notes``, ``version`` (of this package), ``about_sum`` (or null),
        ``label`` (as ``target``, or null), ``score_name`` and ``task``. A text adds
        ``text``, ``next_token``, ``joined`` (whether it is shown by words), ``marks``
        (each ``start``, ``end``, ``name``: tokens that are pointed out) and ``tokens``
        (each ``token``,
        ``text``, ``special``, ``space_before``, ``score``, and ``word``, the number of
        the tokenizer's word or null). An image adds ``height`` and ``width`` in pixels,
        ``scores`` (rows of pixels, or null where the method gives patches),
        ``patch_scores`` (rows of the model's patches, or null where they are unknown)
        ``image``, the picture as PNG in base64 (in RGB, if its mode is one that PNG
        does not keep), and ``outlines`` (each ``name`` and ``path``, a line around a
        part of the picture as in SVG). A sound adds ``scores`` and ``sound`` (one row
        of samples, or a row of bands for each frame of a ``spectrogram``),
        ``sampling_rate``, ``hop``, ``seconds``, ``behind``, ``spoken_from`` and
        ``spoken_to``. Several inputs at once (``"joint"``) add ``parts`` (each ``name``
        and ``explanation``).
        :func:`~captum_transformer_lrp.load` reads it again.
        """
        return json.dumps(
            self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False
        )

    def blocks(self, *, top: int = 10) -> Iterator[Block]:
        """Yield what is shown: the input with its scores, the largest, the facts.

        Args:
            top (int, optional): How many words or patches to list. Default: 10
        """
        yield Heading(text=self.question)
        yield Paragraph(text=self.answer, kind="answer")
        yield from self.map()
        yield Legend(scale=self.scale)
        if rows := self.top_parts(top):
            limit = scale_limit([score for _, score in rows])
            yield Bars(
                title=self.top_title,
                head=self.part.capitalize(),
                rows=tuple(rows),
                scale=ColorScale(
                    limit=limit, signed=self.signed, unit=self.quantity.capitalize()
                ),
                repeats=True,
            )
        brief = (self.score_name.capitalize(), "Sum of relevance", "Method")
        yield Facts(pairs=self.facts, brief=brief)
        yield Paragraph(text=self.summary, kind="meaning")
        for note in self.notes:
            yield Paragraph(text=note)
        yield self._numbers()

    @abstractmethod
    def map(self) -> Iterator[Block]:
        """Yield the input with its scores."""

    @abstractmethod
    def _numbers(self) -> Table:
        """Return all numbers."""

    @property
    def alt(self) -> str:
        """The explanation in words, for those who do not see its picture."""
        write = self.scale.write
        top = ", ".join(f"{name} {write(s)}" for name, s in self.top_parts(3))
        found = f"{self.question} {self.answer}"
        return f"{found} {self.top_title}: {top}." if top else found

    def to_text(self, *, color: bool = False, top: int = 10, width: int = 88) -> str:
        """Return text for a terminal, which needs the package rich.

        Args:
            color (bool, optional): Whether to colour it with ANSI codes.
                Default: False
            top (int, optional): How many words or patches to list. Default: 10
            width (int, optional): Columns of the terminal. Default: 88

        Raises:
            MissingPackageError: rich is not installed.
        """
        from .report.terminal import to_text

        return to_text([tuple(self.blocks(top=top))], color=color, width=width)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Tokens of a text that are pointed out, such as an answer or an entity.

    Args:
        start (int): The first token, from 0.
        end (int): Behind the last one.
        name (str): What they are, such as ``"PER"``.
    """

    start: int
    end: int
    name: str


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TextExplanation(Explanation):
    """The relevance or weight of each token of a text.

    Args:
        text (str): The text as it was given.
        pieces (tuple[Piece, ...]): The tokens that the model saw, in their order.
        next_token (bool): Whether the target is the next token of a language model.
            Default: False
        joined (bool): Whether tokens are joined to words, each with one colour and the
            sum of its tokens' scores, where the explanation is shown. Default: True
        marks (tuple[Mark, ...]): Tokens that are pointed out. Default: ()
    """

    kind: ClassVar[str] = "text"
    _palette = "words"

    text: str
    pieces: tuple[Piece, ...]
    next_token: bool = False
    joined: bool = True
    marks: tuple[Mark, ...] = ()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The readable tokens, ``(tokens,)``."""
        return tuple(piece.label for piece in self.pieces)

    @property
    def words(self) -> tuple[Word, ...]:
        """Tokens joined to the tokenizer's words, scores summed.

        Fast tokenizers say which tokens are one word (``word_ids()``); the tokens of
        others, and of those that take a text for one word, are joined by their letters.
        White space ends a word and is none of its own: its score goes to the word
        behind it. Tokens that the tokenizer added are words of their own, marked
        ``special``. Each token is a word where they are not ``joined``.
        """
        merge: Literal["sum", "none"] = "sum" if self.joined else "none"
        marks = {i: m.name for m in self.marks for i in range(m.start, m.end)}
        return scored_words(self.pieces, self.scores, merge, marks)

    def by_token(self) -> TextExplanation:
        """Return the same explanation, shown token by token instead of by words."""
        return replace(self, joined=False)

    @property
    def limit(self) -> float:
        """The score at the end of the colour scale.

        The largest magnitude among the words of the text itself. The tokens that the
        tokenizer added may go beyond it: they often collect much relevance, and would
        leave the words without colour.
        """
        return scale_limit(own_scores(self.words))

    @property
    def target_name(self) -> str:
        """The target in words, such as ``the next token “Paris”``."""
        name = super().target_name
        return f"the next token {name}" if self.next_token else name

    @property
    def unit(self) -> str:
        """What one number belongs to."""
        return "token"

    @property
    def part(self) -> str:
        """What :meth:`top_parts` lists."""
        return "word" if self.joined else "token"

    def map(self) -> Iterator[Block]:
        """Yield the text with its scores."""
        yield Words(
            words=self.words,
            scale=self.scale,
            right_to_left=is_right_to_left(self.text),
        )

    def _numbers(self) -> Table:
        write = self.scale.write
        return Table(
            heads=("#", "Token", "In the vocabulary", self.quantity.capitalize()),
            rows=tuple(
                (str(number), piece.label, piece.token, write(float(score)))
                for number, (piece, score) in enumerate(
                    zip(self.pieces, self.scores, strict=True), 1
                )
            ),
            texts=3,
            folded=True,
        )

    @property
    def summary(self) -> str:
        """What the numbers mean, in plain words."""
        found = super().summary
        words = self.words
        beyond = [w for w in words if w.special and abs(w.score) > self.limit]
        if not beyond:
            return found
        return (
            f"{found} The colours follow the words; an added token such as "
            f"{beyond[0].text} may lie beyond the scale."
        )

    def _columns(self) -> dict[str, Any]:
        groups = word_groups(self.pieces)
        numbers = [number for number, group in enumerate(groups) for _ in group]
        return {
            "token": [piece.token for piece in self.pieces],
            "text": [piece.text for piece in self.pieces],
            "special": [piece.special for piece in self.pieces],
            "word": numbers,
            "score": self.scores,
        }

    def top_parts(self, count: int) -> list[tuple[str, float]]:
        """Return the words of the text with the largest magnitudes, largest first."""
        own = [(word.text, word.score) for word in self.words if not word.special]
        return sorted(own, key=lambda word: -abs(word[1]))[:count]

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        tokens = [
            {
                "token": piece.token,
                "text": piece.text,
                "special": piece.special,
                "space_before": piece.space_before,
                "score": float(score),
                "word": piece.word,
            }
            for piece, score in zip(self.pieces, self.scores, strict=True)
        ]
        return super().to_dict() | {
            "text": self.text,
            "tokens": tokens,
            "next_token": self.next_token,
            "joined": self.joined,
            "marks": [asdict(mark) for mark in self.marks],
        }


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageExplanation(Explanation):
    """The relevance or weight of each pixel or patch of a picture.

    Scores of pixels are summed over the colour channels. Scores are those of patches
    where their shape is not that of the picture.

    Args:
        image (PIL.Image.Image): The picture as the model saw it, resized and cropped.
        patch_grid (tuple[int, int], optional): Rows and columns of the model's patches,
            where known; where the scores are those of patches, their shape.
            Default: None
        outlines (tuple[Outline, ...]): What is pointed out by a line around it, such as
            a box or a segment. Default: ()

    Raises:
        ValueError: The scores are neither of the picture's pixels nor of its patches.
    """

    kind: ClassVar[str] = "image"
    _palette = "picture"

    image: Image
    patch_grid: tuple[int, int] | None = None
    outlines: tuple[Outline, ...] = ()

    def __post_init__(self) -> None:
        """Check that the scores are those of pixels or patches."""
        shape = self.scores.shape
        if not self.has_pixels and shape != self.patch_grid:
            raise ValueError(
                f"scores of shape {shape} are neither {self.image.height} x "
                f"{self.image.width} pixels nor patches, patch_grid={self.patch_grid}"
            )

    @property
    def has_pixels(self) -> bool:
        """Whether there is a score for each pixel, not only for each patch."""
        return self.scores.shape == (self.image.height, self.image.width)

    @property
    def patch_scores(self) -> np.ndarray | None:
        """Scores summed over each patch, ``(rows, columns)``; None if unknown."""
        return None if self.patch_grid is None else pool(self.scores, self.patch_grid)

    @property
    def cells(self) -> np.ndarray:
        """Scores of the parts to show, ``(rows, columns)``.

        The model's patches; where they are unknown, squares of equal size with at most
        16 along the longer side.
        """
        if self.patch_scores is not None:
            return self.patch_scores
        height, width = self.scores.shape
        side = -(-max(height, width) // 16)
        return pool(self.scores, (max(1, height // side), max(1, width // side)))

    @property
    def limit(self) -> float:
        """The score at the end of the colour scale of :attr:`cells`."""
        return scale_limit(self.cells)

    @property
    def unit(self) -> str:
        """What one number belongs to."""
        return "square" if self.patch_grid is None else "patch"

    @property
    def part(self) -> str:
        """What :meth:`top_parts` lists."""
        return self.unit

    def map(self) -> Iterator[Block]:
        """Yield the picture, and its scores over it."""
        name = self.quantity.capitalize()
        found = [self.seen]
        found += [
            self.heat(f"{name} of each {self.unit}"),
            replace(
                self.heat(f"{name}, smooth"),
                style="smooth",
            ),
        ]
        if self.has_pixels:
            found.append(
                Heat(
                    image=self.image,
                    outlines=self.outlines,
                    scores=self.scores,
                    scale=self._scale(scale_limit(self.scores)),
                    caption="Of each pixel, own scale",
                    alt=f"The same picture in grey with the {self.quantity} of each "
                    "pixel",
                )
            )
        yield Pictures(pictures=tuple(found))

    @property
    def seen(self) -> Heat:
        """The picture without scores."""
        names = list(dict.fromkeys(outline.name for outline in self.outlines))
        told = f"outlined: {', '.join(names)}" if names else ""
        return Heat(
            image=self.image,
            outlines=self.outlines,
            caption="What the model saw",
            under=told,
            alt="The picture as the model saw it, "
            f"{self.image.width} by {self.image.height} pixels"
            + (f", {told}" if told else ""),
        )

    def heat(self, caption: str) -> Heat:
        """Return the picture in grey with the scores of its patches."""
        ((strongest, score),) = self.top_parts(1)
        meaning = (
            f"orange {self.parts} speak for {self.target_name}, blue ones against it"
            if self.signed
            else f"the more orange a {self.unit}, the more weight it has"
        )
        return Heat(
            image=self.image,
            scores=self.cells,
            scale=self.scale,
            outlines=self.outlines,
            caption=caption,
            alt=f"The same picture in grey; {meaning}; strongest at {strongest}, "
            f"{self.scale.write(score)}",
        )

    def _numbers(self) -> Table:
        cells = self.cells
        write = self.scale.write
        return Table(
            heads=("", *(str(i + 1) for i in range(cells.shape[1]))),
            rows=tuple(
                (str(number), *(write(float(score)) for score in row))
                for number, row in enumerate(cells, 1)
            ),
            folded=True,
        )

    def _columns(self) -> dict[str, Any]:
        row, column = np.indices(self.cells.shape)
        return {
            "row": row.ravel(),
            "column": column.ravel(),
            "score": self.cells.ravel(),
        }

    def top_parts(self, count: int) -> list[tuple[str, float]]:
        """Return places and scores of the :attr:`cells` of largest magnitude."""
        return strongest_cells(self.cells, count)

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        patches = self.patch_scores
        return super().to_dict() | {
            "height": self.image.height,
            "width": self.image.width,
            "scores": self.scores.tolist() if self.has_pixels else None,
            "patch_scores": None if patches is None else patches.tolist(),
            "image": records.png_text(self.image),
            "outlines": [{"name": one.name, "path": one.path} for one in self.outlines],
        }


def save_explanations(
    explanations: Sequence[Explanation],
    path: str | Path,
    *,
    title: str | None = None,
    lead: str | None = None,
    theme: Theme = "light",
    dpi: int = 160,
) -> Path:
    """Write explanations into one file, by its suffix as :meth:`Explanation.save`.

    JSON is one object for one explanation (:meth:`Explanation.to_json`) and an array of
    such objects for several. Parquet has one row for each, safetensors the scores of
    all as tensors.

    Args:
        explanations (Sequence[Explanation]): What to write, in this order.
        path (str or Path): The file.
        title (str, optional): Heading of an HTML page. Default: None
        lead (str, optional): A paragraph below that heading. Default: None
        theme (str, optional): ``"light"`` or ``"dark"`` of a picture.
            Default: ``"light"``
        dpi (int, optional): Pixels per inch of a PNG. Default: 160

    Returns:
        *Path*: The file that was written.

    Raises:
        InputError: There is no explanation, or one has scores that are not finite.
        UnknownNameError: The suffix is another one.
        MissingPackageError: The package that writes such files is not installed.
    """
    path = Path(path)
    if not explanations:
        raise InputError("expected at least one explanation to save, got none")
    if check_suffix(path) in records.SUFFIXES:
        written = (one.to_dict() for one in explanations)
        records.write(path, written, several=len(explanations) > 1)
        return path
    results: Sequence[Shown] = explanations
    if isinstance(explanations, Shown):  # a list that shows itself
        results = [explanations]
    elif title is None and len(explanations) > 1:
        title = "Explanations"
    return Together(results, title=title, lead=lead).save(path, theme=theme, dpi=dpi)


def check_suffix(path: str | Path) -> str:
    """Return the suffix of a file that explanations can be saved as, in lower case.

    Raises:
        UnknownNameError: The suffix is none of :data:`SUFFIXES`.
        MissingPackageError: The package that writes such files is not installed.
    """
    suffix = saving.check_suffix(path, SUFFIXES)
    records.check_package(suffix)
    return suffix


def normalize(scores: np.ndarray, how: Normalization) -> np.ndarray:
    """Return scores on a scale of their own, see :meth:`Explanation.normalized`.

    Raises:
        UnknownNameError: There is no such normalisation.
    """
    if how not in ("max", "l1"):
        raise UnknownNameError(
            f"there is no normalisation {how!r}: expected 'max', the largest magnitude "
            "is 1, or 'l1', the magnitudes sum to 1"
        )
    magnitudes = np.abs(scores)
    scale = float(magnitudes.max() if how == "max" else magnitudes.sum())
    return np.asarray(scores / scale if scale > 0 else np.zeros_like(scores))


def pool(scores: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Sum scores ``(height, width)`` over a grid of ``(rows, columns)`` cells.

    The sum of all scores is kept. Where a side is not a multiple of the grid, cells
    differ by one pixel.

    Raises:
        ValueError: The grid has more cells than pixels along a side.
    """
    height, width = scores.shape
    rows, columns = grid
    if not (0 < rows <= height and 0 < columns <= width):
        raise ValueError(f"cannot pool {height} x {width} pixels to {rows} x {columns}")
    top = np.arange(rows) * height // rows
    left = np.arange(columns) * width // columns
    pooled = np.add.reduceat(np.add.reduceat(scores, top, axis=0), left, axis=1)
    return np.asarray(pooled)
