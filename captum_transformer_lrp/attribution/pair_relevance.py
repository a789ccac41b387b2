"""What the similarity of two inputs is made of: a matrix of pairs that shows itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from .. import records
from .._packages import require
from .._version import __version__
from ..models.pieces import Piece, token_labels, word_groups, word_text
from ..records.storable import Storable
from ..report.blocks import (
    Axis,
    Bars,
    Block,
    ColorScale,
    Facts,
    Grid,
    Heading,
    Heat,
    Legend,
    Pages,
    Pairs,
    Panel,
    Paragraph,
    Pictures,
    Table,
    Word,
    largest,
    strongest_places,
)
from ..report.colors import scale_limit

if TYPE_CHECKING:
    from pandas import DataFrame
    from PIL.Image import Image

JSON_SCHEMA = "captum_transformer_lrp.pairs/1"
#: what the last row and column are called
CONSTANTS = "constants"

Measure = Literal["cosine similarity", "dot product"]
Part = Literal["token", "word", "patch"]

_LISTED = 10  # pairs below a picture
_LINES_PER_PART = 3
_FAINTEST = 0.06  # share of the largest pair below which no line is drawn
_MOST_CELLS = 2_500  # of a matrix that is drawn
_MOST_PICTURES = 12  # side by side, a word each


@dataclass(frozen=True, eq=False)
class PairSide:
    """What the rows, or the columns, of the matrix are.

    Attributes:
        pieces (tuple of Piece): the parts, in their order: tokens as they are read, or
            patches row by row.
        grid (tuple of int or None): rows and columns of the patches of a picture; None
            for a text.
        image (PIL.Image.Image or None): the picture.
        part (str): what one part is: ``"token"``, ``"word"`` or ``"patch"``.
    """

    pieces: tuple[Piece, ...]
    grid: tuple[int, int] | None = None
    image: Image | None = field(default=None, repr=False)
    part: Part = "token"

    def __len__(self) -> int:
        return len(self.pieces)

    @property
    def labels(self) -> tuple[str, ...]:
        """The parts as they are written; a piece within a word starts with a hyphen."""
        return token_labels(self.pieces)

    @property
    def own(self) -> list[int]:
        """The numbers of the parts that no tokenizer added; of all, if it added all."""
        own = [i for i, piece in enumerate(self.pieces) if not piece.special]
        return own or [*range(len(self.pieces))]

    @property
    def parts(self) -> str:
        """What several parts are."""
        return "patches" if self.part == "patch" else f"{self.part}s"

    def name(self, label: str) -> str:
        """Return the label of a part as it is written in a sentence."""
        return label if self.part == "patch" else f"“{label}”"

    @property
    def text(self) -> str:
        """The text as a person reads it, without what a tokenizer added."""
        said = [self.pieces[i] for i in self.own]
        return "".join(" " * p.space_before + p.text for p in said).strip()

    @property
    def said(self) -> str:
        """It in words."""
        if self.part != "patch":
            return f"“{self.text}”"
        rows, columns = self.grid or (len(self), 1)
        return f"a picture of {rows} x {columns} patches"

    def axis(self, which: str) -> Axis:
        """Return the labels of one side of the matrix, constants at the end."""
        pieces, labels = self.pieces, self.labels
        return Axis(
            name=f"{self.part} of the {which}",
            labels=(*labels, CONSTANTS),
            special=(*(piece.special for piece in pieces), True),
        )

    def by_word(self) -> tuple[PairSide, list[list[int]]]:
        """Return the words, and which parts each is made of."""
        groups = word_groups(self.pieces) if self.grid is None else []
        if not groups:
            return self, [[i] for i in range(len(self.pieces))]
        pieces = []
        for group in groups:
            of = [self.pieces[i] for i in group]
            text = word_text(of)
            pieces.append(replace(of[0], token=text, text=text, word=None))
        return replace(self, pieces=tuple(pieces), part="word"), groups


@dataclass(frozen=True)
class Pair:
    """A part of one input together with one of the other.

    Attributes:
        a (str): the part of the first input.
        b (str): that of the second.
        score (float): what they add to the similarity together.
        row (int): of the matrix.
        column (int): of the matrix.
        standard_error (float or None): of the score, where it is an estimate.
    """

    a: str
    b: str
    score: float
    row: int
    column: int
    standard_error: float | None = None

    def __str__(self) -> str:
        return f"{self.a} and {self.b}"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PairRelevance(Storable):
    """How much each pair of parts adds to the similarity of two inputs.

    Made by :class:`~captum_transformer_lrp.attribution.PairLRP`. It shows two texts
    with lines between the pairs that count most, and all pairs as a matrix; beside a
    text, a picture for each word.

    Attributes:
        matrix (Tensor): in float64 and in units of the similarity, shape ``(parts of
            the first + 1, parts of the second + 1)``; the last row and column are
            constants. It sums to :attr:`similarity`.
        a (PairSide): the parts of the first input, its rows.
        b (PairSide): those of the second, its columns.
        similarity (float): what is explained.
        measure (str): which similarity, ``"cosine similarity"`` or ``"dot product"``.
        model (str): name of the model.
        method (str): name of the method, with its rules.
        standard_error (Tensor or None): of each number of the matrix, where it is an
            estimate from random directions, of the matrix's shape; sums over a whole
            row or column are exact. None where the matrix is exact.
        projections (int or None): how many random directions.
        over (str): how it was computed: ``"tokens"``, ``"dimensions"`` or
            ``"projections"``.
    """

    matrix: Tensor = field(repr=False)
    a: PairSide
    b: PairSide
    similarity: float
    measure: Measure
    model: str
    method: str
    standard_error: Tensor | None = None
    projections: int | None = None
    over: str = "tokens"

    # --------------------------------------------------------------------- the numbers

    @property
    def pairs(self) -> Tensor:
        """The matrix without constants."""
        return self.matrix[:-1, :-1]

    @property
    def constants(self) -> float:
        """The part of the similarity in which a constant of either side takes part."""
        return float(self.matrix.sum() - self.pairs.sum())

    @property
    def error(self) -> float | None:
        """Root mean square of the pairs' standard errors; None where it is exact."""
        if self.standard_error is None:
            return None
        return float(self.standard_error[:-1, :-1].square().mean().sqrt())

    def top_pairs(self, n: int = _LISTED, *, special: bool = False) -> list[Pair]:
        """Return the pairs of largest magnitude, the largest first; no constants.

        Args:
            n (int, optional): how many. Default: 10
            special (bool, optional): also those of tokens that the tokenizer added,
                such as ``[CLS]``. Default: False
        """
        rows = [*range(len(self.a))] if special else self.a.own
        columns = [*range(len(self.b))] if special else self.b.own
        left, right = self.a.labels, self.b.labels
        values = self.matrix.numpy()[np.ix_(rows, columns)]
        found = []
        for i, j in strongest_places(values, n):
            row, column = rows[i], columns[j]
            error = None
            if self.standard_error is not None:
                error = float(self.standard_error[row, column])
            score = float(self.matrix[row, column])
            found.append(Pair(left[row], right[column], score, row, column, error))
        return found

    def by_word(self) -> PairRelevance:
        """Return the relevance of pairs of words: that of their tokens added up.

        Standard errors are added up as those of independent numbers.
        """
        (a, rows), (b, columns) = self.a.by_word(), self.b.by_word()
        if len(a) == len(self.a) and len(b) == len(self.b):
            return self  # tokens are words

        def summed(matrix: Tensor) -> Tensor:
            joined = [*rows, [len(self.a)]], [*columns, [len(self.b)]]
            matrix = torch.stack([matrix[group].sum(0) for group in joined[0]])
            return torch.stack([matrix[:, group].sum(1) for group in joined[1]], 1)

        error = self.standard_error
        if error is not None:
            error = summed(error.square()).sqrt()
        return replace(self, matrix=summed(self.matrix), a=a, b=b, standard_error=error)

    def to_pandas(self) -> DataFrame:
        """Return the matrix as a table, which needs the package pandas.

        Returns:
            *pandas.DataFrame* with the parts of the first input as its index and those
            of the second as columns, ``"constants"`` last in both.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        frame: DataFrame = require("pandas").DataFrame(
            self.matrix.numpy(),
            index=[*self.a.labels, CONSTANTS],
            columns=[*self.b.labels, CONSTANTS],
        )
        return frame

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`save` keeps, as Python objects.

        ``schema`` is ``"captum_transformer_lrp.pairs/1"``, ``kind`` ``"pairs"``;
        ``version`` is that of this package. ``a`` and ``b`` have lists with a value for
        each part (``token``, ``text``, ``special``, ``space_before``, ``word``), what a
        ``part`` is, and of a picture the ``rows`` and ``columns`` of its patches, its
        ``height`` and ``width``, and the ``image``, PNG in base64. The other keys are
        the attributes of the class, tensors as lists.
        """
        error = self.standard_error
        return {
            "schema": JSON_SCHEMA,
            "version": __version__,
            "kind": "pairs",
            "model": self.model,
            "method": self.method,
            "measure": self.measure,
            "similarity": self.similarity,
            "projections": self.projections,
            "over": self.over,
            "matrix": self.matrix.tolist(),
            "standard_error": None if error is None else error.tolist(),
            "a": _record_of(self.a),
            "b": _record_of(self.b),
        }

    # ------------------------------------------------------------------ what is shown

    @property
    def scale(self) -> ColorScale:
        """The colours of pairs: the strongest is that of parts of the inputs."""
        own = self.matrix.numpy()[np.ix_(self.a.own, self.b.own)]
        unit = f"relevance, in units of the {self.measure}"
        return ColorScale(limit=scale_limit(own), signed=True, unit=unit)

    @property
    def _total(self) -> ColorScale:
        """How the similarity and its parts are written."""
        numbers = [self.similarity, float(self.pairs.sum()), self.constants]
        return replace(self.scale, limit=scale_limit(numbers))

    @property
    def answer(self) -> str:
        """The similarity, and what it is made of."""
        pairs = float(self.pairs.sum())
        write = self._total.write
        return (
            f"{self.measure.capitalize()} {write(self.similarity).lstrip('+')}: pairs "
            f"{write(pairs)}, constants {write(self.constants)}."
        )

    @property
    def alt(self) -> str:
        """The similarity and its strongest pairs in words."""
        words = self.by_word()
        write = words.scale.write
        top = "; ".join(
            f"{words._name(pair)} {write(pair.score)}" for pair in words.top_pairs(3)
        )
        return (
            f"What makes {self.a.said} and {self.b.said} alike. {self.answer} "
            f"Strongest pairs: {top}."
        )

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown, by words: lines or pictures, the matrix, the strongest.

        :meth:`by_word` says what a word is; the numbers of tokens are in the matrix.
        """
        yield Heading(text="What makes these two alike?")
        yield Paragraph(text=self.answer, kind="answer")
        words = self.by_word()
        yield from words._view()
        yield Facts(pairs=tuple(self._facts()), brief=("Method",))
        a, b = words.a.part, words.b.part
        parts = (
            f"a {a} of the first and a {b} of the second"
            if a == b
            else (f"a {a} and a {b}")
        )
        yield Paragraph(
            text=f"Each number says how much {parts} add together to the "
            f"{self.measure} (orange, above zero) or take from it (blue, below zero). "
            "With what constants of the model contribute, such as biases and position "
            "embeddings, all numbers sum to it.",
            kind="meaning",
        )
        if self.error is not None:
            yield Paragraph(
                text=f"Estimated from {self.projections} random directions: a pair is "
                f"off by {self.scale.exact(self.error).lstrip('+')} (root mean square "
                "of the standard errors). Sums over a whole row or column are exact.",
                kind="caption",
            )

    def _name(self, pair: Pair) -> str:
        return f"{self.a.name(pair.a)} and {self.b.name(pair.b)}"

    def _facts(self) -> Iterator[tuple[str, str]]:
        write = self._total.exact
        yield self.measure.capitalize(), write(self.similarity).lstrip("+")
        yield "Pairs", write(float(self.pairs.sum()))
        yield "Constants", write(self.constants)
        yield "Model", self.model
        yield "Method", self.method

    def _view(self) -> Iterator[Block]:
        a, b = self.a, self.b
        pictures = [side.image is not None and side.grid for side in (a, b)]
        if all(pictures):
            yield from self._two_pictures()
        elif pictures[0]:
            yield from self._picture_by_word(a, b, self.matrix[:-1, :-1].T.numpy())
        elif pictures[1]:
            yield from self._picture_by_word(b, a, self.matrix[:-1, :-1].numpy())
        else:
            yield from self._texts()
            if self.standard_error is None:  # lines are listed where none are drawn
                names = [(self._name(pair), pair.score) for pair in self.top_pairs()]
                yield largest(names, self.scale, "Pair")
                yield self._sums()
                return
        yield from self._strongest()
        yield self._sums()

    def _texts(self) -> Iterator[Block]:
        """Yield lines between the parts, and the matrix."""
        scale = self.scale
        rows, columns = self.a.axis("first"), self.b.axis("second")
        most = _LINES_PER_PART * max(len(self.a.own), len(self.b.own))
        lines = [
            (pair.row, pair.column, scale.share(pair.score))
            for pair in reversed(self.top_pairs(most))
        ]
        yield Pairs(
            lines=tuple(line for line in lines if abs(line[2]) >= _FAINTEST),
            left=_without_last(rows),
            right=_without_last(columns),
            scale=replace(scale, signed=False),
        )
        if self.matrix.numel() <= _MOST_CELLS:
            yield Heading(text="All pairs", level=2)
            panel = Panel(values=self.matrix.numpy())
            yield Grid(panels=(panel,), rows=rows, columns=columns, scale=scale)
            yield Legend(scale=scale)

    def _picture_by_word(
        self, picture: PairSide, text: PairSide, values: np.ndarray
    ) -> Iterator[Block]:
        """Yield the picture for the whole text, and for each of its words."""
        own = values[text.own]
        yield from _heats(picture, [own.sum(0)], [text.said])
        labels = [text.labels[i] for i in text.own]
        yield Heading(text=f"For each {text.part}", level=2)
        if len(labels) <= _MOST_PICTURES:
            yield from _heats(picture, own, [f"“{label}”" for label in labels])
            return
        limit = scale_limit(own)
        words = [
            Word(
                text=label,
                score=float(row.sum()),
                space_before=text.pieces[i].space_before,
            )
            for i, label, row in zip(text.own, labels, own, strict=True)
        ]
        yield Pages(
            labels=tuple(words),
            scale=ColorScale(
                limit=scale_limit([word.score for word in words]),
                signed=True,
                palette="words",
                unit=self.scale.unit,
            ),
            pages=tuple(
                tuple(_heats(picture, [row], [f"“{label}”"], limit))
                for label, row in zip(labels, own, strict=True)
            ),
            hint=f"Pick a {text.part}, by mouse or arrow key.",
            printed=4,
        )

    def _two_pictures(self) -> Iterator[Block]:
        """Yield both pictures with what each patch has in all pairs."""
        values = self.matrix[:-1, :-1].numpy()
        sums = values.sum(1), values.sum(0)
        limit = scale_limit(np.concatenate(sums))
        scale = ColorScale(
            limit=limit, signed=True, palette="picture", unit=self.scale.unit
        )
        found = []
        sides = (self.a, sums[0], "first"), (self.b, sums[1], "second")
        for side, scores, name in sides:
            assert side.image is not None and side.grid is not None
            found.append(
                Heat(
                    image=side.image,
                    scores=scores.reshape(side.grid),
                    scale=scale,
                    caption=f"The {name} picture",
                )
            )
        yield Pictures(pictures=tuple(found), across=2)
        yield Legend(scale=scale)

    def _strongest(self) -> Iterator[Block]:
        top = self.top_pairs()
        scale = self.scale
        rows = tuple((self._name(pair), pair.score) for pair in top)
        numbers: tuple[str, ...] = ()
        if self.standard_error is not None:
            write = replace(scale, signed=False).write
            numbers = tuple(
                f"{scale.write(pair.score)} ± {write(pair.standard_error or 0.0)}"
                for pair in top
            )
        yield Bars(
            title="Strongest pairs",
            head="Pair",
            rows=rows,
            scale=ColorScale(limit=scale.limit, signed=True, unit="Relevance"),
            numbers=numbers,
            repeats=True,
        )

    def _sums(self) -> Table:
        """Return the sums of rows and columns, which are exact."""
        write = self.scale.exact
        sides = (
            (self.a, "first", self.matrix.sum(1)),
            (self.b, "second", self.matrix.sum(0)),
        )
        return Table(
            title="What each has in all pairs",
            heads=("Part", "Of the", "Relevance"),
            rows=tuple(
                (label, which, write(float(score)))
                for side, which, scores in sides
                for label, score in zip(
                    (*side.labels, CONSTANTS), scores.tolist(), strict=True
                )
            ),
            texts=2,
            folded=True,
        )


def _without_last(axis: Axis) -> Axis:
    return replace(axis, labels=axis.labels[:-1], special=axis.special[:-1])


def _heats(
    side: PairSide,
    scores: Sequence[np.ndarray] | np.ndarray,
    captions: Sequence[str],
    limit: float | None = None,
) -> Iterator[Block]:
    """Yield a picture with the scores of its patches, several times on one scale."""
    assert side.image is not None and side.grid is not None
    scale = ColorScale(
        limit=scale_limit(np.stack([*scores])) if limit is None else limit,
        signed=True,
        palette="picture",
        unit="relevance",
    )
    found = [
        Heat(
            image=side.image,
            scores=one.reshape(side.grid),
            scale=scale,
            caption=caption,
            alt=f"The picture with what each patch adds with {caption}.",
        )
        for one, caption in zip(scores, captions, strict=True)
    ]
    many = len(found) > 1
    across = 4 if many else 0
    size: Literal["equal", "large"] = "equal" if many else "large"
    yield Pictures(pictures=tuple(found), size=size, across=across)
    yield Legend(scale=scale)


def _record_of(side: PairSide) -> dict[str, Any]:
    """Return what a file keeps of one side."""
    found: dict[str, Any] = {
        name: [getattr(piece, name) for piece in side.pieces]
        for name in ("token", "text", "special", "space_before", "word")
    }
    rows, columns = side.grid or (None, None)
    found |= {"part": side.part, "rows": rows, "columns": columns}
    width, height = (None, None) if side.image is None else side.image.size
    image = None if side.image is None else records.png_text(side.image)
    return found | {"height": height, "width": width, "image": image}


__all__ = ["CONSTANTS", "Pair", "PairRelevance", "PairSide"]
