"""What an explanation is: plain numbers with names, which print, draw and save."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from .errors import InputError, UnknownNameError
from .models.pieces import Piece
from .models.prediction import ClassScore
from .visualization.colors import scale_limit
from .visualization.numbers import ScoreFormat

if TYPE_CHECKING:
    from PIL.Image import Image

JSON_SCHEMA = "captum_transformer_lrp.explanation/1"


@dataclass(frozen=True, kw_only=True)
class Word:
    """A written word: its pieces and the sum of their scores."""

    text: str
    score: float
    special: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation(ABC):
    """Which parts of an input count for one class.

    What the scores are is said by ``measure``:

    - ``"relevance"``: signed and in units of the logit; positive speaks for the target,
      negative against it. Their sum stands beside the target's logit, since the methods
      differ in whether the two agree.
    - ``"attention"``: weights made of the model's attention. They have no unit, do not
      sum to the logit and do not speak against the target.

    Args:
        model (str): Name of the model.
        method (str): Name of the attribution method.
        prediction (ClassScore): The class with the highest logit.
        target (ClassScore): The class that is explained; often the prediction.
        scores (np.ndarray): In float64, one number per token ``(tokens,)``, per pixel
            ``(height, width)`` or per patch ``(rows, columns)``.
        notes (tuple[str, ...]): What a reader should know, such as a truncated text.
            Default: ()
        measure (str): What the scores are, ``"relevance"`` or ``"attention"``.
            Default: ``"relevance"``
        same_for_every_target (bool): Whether the method looks at attention alone, so
            that the scores explain no target. Default: False
    """

    kind: ClassVar[str]

    model: str
    method: str
    prediction: ClassScore
    target: ClassScore
    scores: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()
    measure: Literal["relevance", "attention"] = "relevance"
    same_for_every_target: bool = False

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
        """What one number is called: ``"relevance"`` or ``"weight"``."""
        return "relevance" if self.signed else "weight"

    @property
    def relevance_sum(self) -> float | None:
        """The sum of all scores, in units of the logit; None where they have none."""
        return float(self.scores.sum()) if self.signed else None

    @property
    def limit(self) -> float:
        """The score at the end of the colour scale: the largest magnitude."""
        return scale_limit(self.scores)

    def number_format(self, limit: float) -> ScoreFormat:
        """Return what writes scores up to ``limit``, with a sign if they have one."""
        return ScoreFormat(limit=limit, signed=self.signed)

    @property
    def scale_start(self) -> float:
        """Where the colour scale starts, as a share of :attr:`limit`: -1 or 0."""
        return -1.0 if self.signed else 0.0

    @property
    def scale_ends(self) -> tuple[str, str]:
        """What stands beside the ends of the colour scale."""
        write = self.number_format(self.limit)
        if self.signed:
            return f"against {write(-self.limit)}", f"{write(self.limit)} for"
        return "weight 0", write(self.limit)

    @property
    def target_name(self) -> str:
        """The target in words, such as ``“positive”``."""
        return f"“{self.target.name}”"

    @property
    def question(self) -> str:
        """The question that the explanation answers."""
        if self.same_for_every_target:
            return "What does the model attend to?"
        if not self.signed:
            return f"What does the model attend to for {self.target_name}?"
        if self.target.index == self.prediction.index:
            return f"Why {self.target_name}?"
        return f"What speaks for {self.target_name}?"

    @property
    def answer(self) -> str:
        """What the model predicts, in one sentence."""
        predicted = f"The model predicts {self.prediction}"
        if self.same_for_every_target or self.target.index == self.prediction.index:
            return predicted + "."
        return f"{predicted}; explained is {self.target}."

    @property
    def summary(self) -> str:
        """What the numbers mean, in plain words."""
        if not self.signed:
            source = f"the model's attention and what it does for {self.target_name}"
            silent = "what speaks against the target"
            if self.same_for_every_target:
                source = "the model's attention alone, the same for every target"
                silent = "whether for or against a target"
            return (
                f"Each number is the weight that the method gives a {self.unit}, from "
                f"{source}. It says how much the {self.unit} counts, not {silent}. It "
                "has no unit, and the weights do not sum to the logit."
            )
        return (
            f"Each number says how much a {self.unit} speaks for {self.target_name} "
            "(orange, above zero) or against it (blue, below zero), in units of the "
            "logit. Their sum may differ from the logit: biases and other constants "
            "keep a part of it, and some methods (AttnLRP in its softmax) do not "
            "conserve the sum."
        )

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
        ranked = "that count most" if self.signed else "with the most weight"
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
        if self.same_for_every_target:
            facts.append(("Explained", "no target: the attention alone"))
        else:
            facts += [("Explained", str(self.target)), ("Logit", write(self.logit))]
        if total is not None:
            facts.append(("Sum of relevance", write(total)))
        return *facts, ("Method", self.method), ("Model", self.model)

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
            "notes": list(self.notes),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the explanation as JSON, the same keys in every release of a schema.

        All explanations have ``schema`` (``"captum_transformer_lrp.explanation/1"``),
        ``kind`` (``"text"`` or ``"image"``), ``model``, ``method``, ``prediction`` and
        ``target`` (each ``index``, ``name``, ``logit``, ``probability`` or null),
        ``measure`` (``"relevance"`` or ``"attention"``, as :class:`Explanation` says),
        ``same_for_every_target``, ``relevance_sum`` (null for ``"attention"``) and
        ``notes``. A text adds ``text`` and ``tokens`` (each ``token``, ``text``,
        ``special``, ``space_before``, ``score``). An image adds ``height`` and
        ``width`` in pixels, ``scores`` (rows of pixels, or null where the method gives
        patches) and ``patch_scores`` (rows of the model's patches, or null where they
        are unknown).
        """
        return json.dumps(
            self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False
        )

    def to_html(self, *, title: str | None = None) -> str:
        """Return a self-contained HTML page, readable in light and in dark."""
        from .visualization.html import render_report

        return render_report([self], title=title)

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
        from .visualization.terminal import render_text

        return render_text(self, color=color, top=top, width=width)

    def save(self, path: str | Path) -> Path:
        """Write the explanation by the suffix of ``path``: .html, .json or .png.

        Returns:
            *Path*: The file that was written.

        Raises:
            UnknownNameError: The suffix is another one.
        """
        return save_explanations([self], path)

    def _repr_html_(self) -> str:
        from .visualization.html import render_fragment

        return render_fragment(self)

    def __str__(self) -> str:
        top = self.top_parts(10)
        write = self.number_format(scale_limit([score for _, score in top]))
        rows = [f"{write(score):>10}  {name}" for name, score in top]
        return "\n".join([f"{self.question} {self.answer}", *rows])


@dataclass(frozen=True, kw_only=True, eq=False)
class TextExplanation(Explanation):
    """The relevance or weight of each token of a text.

    Args:
        text (str): The text as it was given.
        pieces (tuple[Piece, ...]): The tokens that the model saw, in their order.
        next_token (bool): Whether the target is the next token of a language model.
            Default: False
    """

    kind: ClassVar[str] = "text"

    text: str
    pieces: tuple[Piece, ...] = field(repr=False)
    next_token: bool = False

    @property
    def tokens(self) -> tuple[str, ...]:
        """The readable tokens, ``(tokens,)``."""
        return tuple(piece.label for piece in self.pieces)

    @property
    def words(self) -> tuple[Word, ...]:
        """Tokens joined to written words, scores summed.

        Tokens that the tokenizer added are words of their own, marked ``special``.
        """
        groups: list[list[int]] = []
        for i, piece in enumerate(self.pieces):
            if i and piece.continues(self.pieces[i - 1]):
                groups[-1].append(i)
            else:
                groups.append([i])
        return tuple(
            Word(
                text="".join(self.pieces[i].text for i in group)
                if len(group) > 1
                else self.pieces[group[0]].label,
                score=float(self.scores[group].sum()),
                special=self.pieces[group[0]].special,
            )
            for group in groups
        )

    @property
    def limit(self) -> float:
        """The score at the end of the colour scale.

        The largest magnitude among the tokens of the text itself. The tokens that the
        tokenizer added may go beyond it: they often collect much relevance, and would
        leave the words without colour.
        """
        own = [not piece.special for piece in self.pieces]
        return scale_limit(self.scores[own] if any(own) else self.scores)

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
        return "word"

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
            }
            for piece, score in zip(self.pieces, self.scores, strict=True)
        ]
        return super().to_dict() | {"text": self.text, "tokens": tokens}


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageExplanation(Explanation):
    """The relevance or weight of each pixel or patch of a picture.

    Scores of pixels are summed over the colour channels. Scores are those of patches
    where their shape is not that of the picture.

    Args:
        image (PIL.Image.Image): The picture as the model saw it, resized and cropped.
        patch_grid (tuple[int, int], optional): Rows and columns of the model's patches,
            where known; where the scores are those of patches, their shape.
            Default: None

    Raises:
        ValueError: The scores are neither of the picture's pixels nor of its patches.
    """

    kind: ClassVar[str] = "image"

    image: Image = field(repr=False)
    patch_grid: tuple[int, int] | None = None

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

    def top_parts(self, count: int) -> list[tuple[str, float]]:
        """Return places and scores of the :attr:`cells` of largest magnitude."""
        cells = self.cells
        order = np.argsort(-np.abs(cells), axis=None, kind="stable")[:count]
        places = np.stack(np.unravel_index(order, cells.shape), axis=1)
        return [(f"row {r + 1}, column {c + 1}", float(cells[r, c])) for r, c in places]

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        patches = self.patch_scores
        return super().to_dict() | {
            "height": self.image.height,
            "width": self.image.width,
            "scores": self.scores.tolist() if self.has_pixels else None,
            "patch_scores": None if patches is None else patches.tolist(),
        }


def save_explanations(
    explanations: Sequence[Explanation],
    path: str | Path,
    *,
    title: str | None = None,
    lead: str | None = None,
) -> Path:
    """Write explanations into one file by its suffix: .html, .json or .png.

    JSON is one object for one explanation (:meth:`Explanation.to_json`) and an array of
    such objects for several.

    Args:
        explanations (Sequence[Explanation]): What to write, in this order.
        path (str or Path): The file.
        title (str, optional): Heading of an HTML page. Default: None
        lead (str, optional): A paragraph below that heading. Default: None

    Returns:
        *Path*: The file that was written.

    Raises:
        InputError: There is no explanation.
        UnknownNameError: The suffix is another one.
    """
    path = Path(path)
    if not explanations:
        raise InputError("expected at least one explanation to save, got none")
    suffix = check_suffix(path)
    if suffix == ".html":
        from .visualization.html import render_report

        page = render_report(explanations, title=title, lead=lead)
        path.write_text(page, encoding="utf-8")
    elif suffix == ".json":
        found = [e.to_dict() for e in explanations]
        written = found[0] if len(found) == 1 else found
        text = json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    else:
        from .visualization.figure import render_png

        path.write_bytes(render_png(explanations))
    return path


def check_suffix(path: str | Path) -> str:
    """Return the suffix of a file that explanations can be saved as, in lower case.

    Raises:
        UnknownNameError: The suffix is neither .html, .json nor .png.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".html", ".json", ".png"):
        raise UnknownNameError(
            f"cannot save as {Path(path).name!r}: the suffix chooses the format, "
            "one of .html, .json, .png"
        )
    return suffix


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
