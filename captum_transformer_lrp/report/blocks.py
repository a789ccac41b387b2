"""What can be shown, as plain values: blocks.

Everything that shows itself (an explanation, a comparison, a grid of heads, a trace)
says what it is made of, as blocks below each other. Three renderers draw them, in a
terminal (:mod:`.terminal`), a page of HTML (:mod:`.html`) and a figure
(:mod:`.figure`); they know blocks and nothing else. So a new kind of result is one
function that returns blocks, and a new kind of block is one function for each renderer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from .colors import Theme
from .image import MIDDLE_GREY, heat, loops_around
from .numbers import ScoreFormat

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True)
class ColorScale:
    """From a score to a colour: where the scale ends, and what its numbers count.

    Args:
        limit (float): The magnitude of the strongest colour.
        signed (bool): Whether the scale runs to either side of zero.
        unit (str): What the numbers count, such as ``"relevance, in logits"``.
            Default: ``""``
        palette (str): ``"words"``, on which one ink is readable; ``"cells"``, which
            ends stronger from zero up and changes its ink; ``"picture"``, over a
            picture in grey; ``"paper"``, as strong, over the page. Default: ``"cells"``
        names (tuple of str): What is written beside the low end and the high one.
            Default: the numbers there
        meaning (str): The scale in words, for those who do not see the colours.
            Default: ``""``, made of the rest
    """

    limit: float
    signed: bool
    unit: str = ""
    palette: Literal["words", "cells", "picture", "paper"] = "cells"
    names: tuple[str, str] | None = None
    meaning: str = ""

    @property
    def diverging(self) -> bool:
        """Whether the colours are those of the diverging scale, or its half."""
        return self.signed or self.palette == "words"

    @property
    def write(self) -> ScoreFormat:
        """Write a score with the precision that the limit deserves."""
        return ScoreFormat(limit=self.limit, signed=self.signed)

    @property
    def start(self) -> float:
        """Where the scale starts, as a share of the limit: -1 or 0."""
        return -1.0 if self.signed else 0.0

    @property
    def ends(self) -> tuple[str, str]:
        """What stands beside the ends of the colour bar."""
        low, high = self.write(self.start * self.limit), self.write(self.limit)
        return self.names or (low, high)

    def colors(self, theme: Theme, steps: int = 201) -> np.ndarray:
        """Return the colours of the bar, sRGB in [0, 1], shape ``(steps, 3)``."""
        shares = np.linspace(self.start, 1, steps)
        if self.palette == "picture":
            return heat(shares, MIDDLE_GREY)
        if self.palette == "paper":
            return heat(shares, theme.rgb(np.zeros(1))[0])
        return theme.rgb(shares, signed=self.diverging)

    def share(self, score: float) -> float:
        """Return a score as a share of the limit, from -1 to 1."""
        return max(-1.0, min(1.0, float(score) / self.limit))

    def brief(self, value: float) -> str:
        """Return a score in few characters: two digits for the largest of the scale.

        Without the zero before the point: ``.07``, ``+1.4``, ``−12``.
        """
        magnitude = math.ceil(math.log10(self.limit)) - 1
        if not -4 <= magnitude <= 3:
            return self.write(value)
        decimals = max(0, 1 - magnitude)
        written = f"{value:.{decimals}f}"
        if abs(float(written)) >= 10 ** (magnitude + 1):  # one digit more than two
            written = f"{value:.{max(0, decimals - 1)}f}"
        if float(written) == 0:
            return "0"
        sign = "+" if self.signed and value > 0 else ""
        return sign + re.sub(r"^(-?)0\.", r"\1.", written).replace("-", "−")

    def exact(self, value: float) -> str:
        """Return a score with a digit more than :meth:`brief`."""
        return ScoreFormat(limit=self.limit * (1 - 1e-9), signed=self.signed)(value)

    @property
    def words(self) -> str:
        """The scale in words, for those who do not see the colours."""
        if self.meaning:
            return self.meaning
        low, high = self.ends
        start = f"{low}, blue, over 0, neutral" if self.signed else "0, neutral"
        unit = f"; {self.unit}" if self.unit else ""
        return f"Colour scale: from {start}, to {high}, orange{unit}"


# ------------------------------------------------------------------------------ words


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A title: of the whole, or of what follows.

    Args:
        text (str): The title.
        level (int): 1 for the whole, 2 for a part. Default: 1
        badge (str): A short mark beside it, such as ``"wrong"``. Default: ``""``
    """

    text: str
    level: Literal[1, 2] = 1
    badge: str = ""

    @property
    def written(self) -> str:
        """The title, with its badge in brackets."""
        return f"{self.text} [{self.badge}]" if self.badge else self.text


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Sentences.

    Args:
        text (str): The sentences.
        kind (str): ``"answer"``, below a title; ``"input"``, a text as it was given,
            shown where there is room; ``"meaning"``, what the numbers mean, left out of
            figures, which have a caption; ``"caption"``, which figures need, too;
            ``"note"``, what a reader should know. Default: ``"note"``
    """

    text: str
    kind: Literal["answer", "input", "meaning", "caption", "note"] = "note"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values.

    Args:
        pairs (tuple): Name and value of each.
        brief (tuple of str): The names that have room in a figure. Default: ()
    """

    pairs: tuple[tuple[str, str], ...]
    brief: tuple[str, ...] = ()


# ------------------------------------------------------------------------------ scores


@dataclass(frozen=True, kw_only=True)
class Word:
    """A word, or a token, with its score.

    Args:
        text (str): What is written.
        score (float): Its score.
        special (bool): Whether the tokenizer added it. Default: False
        space_before (bool): Whether white space stands before it. Default: True
        tokens (tuple of str): The entries of the vocabulary that it is made of.
            Default: ()
        mark (str): What it is pointed out as, such as ``"answer"``. Default: ``""``
    """

    text: str
    score: float
    special: bool = False
    space_before: bool = True
    tokens: tuple[str, ...] = ()
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class Words:
    """A text with each word on the colour of its score."""

    words: tuple[Word, ...]
    scale: ColorScale
    right_to_left: bool = False

    @property
    def marked(self) -> tuple[str, ...]:
        """For each word what is written behind it: its mark, where that ends."""
        following = [*(word.mark for word in self.words[1:]), ""]
        return tuple(
            word.mark if word.mark != after else ""
            for word, after in zip(self.words, following, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Legend:
    """The colours of a scale between its ends."""

    scale: ColorScale


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A line around a part of a picture, such as a box or a segment.

    Args:
        name (str): What it is around, such as ``"cat"``.
        path (str): The line in pixels of the picture, as in SVG: closed loops of the
            form ``"M0 0L8 0L8 5L0 5Z"``.

    Raises:
        ValueError: The path is of another form.
    """

    name: str
    path: str
    loops: list[list[tuple[float, float]]] = field(
        init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Read the corners of each closed loop, ``(x, y)``."""
        found = []
        for loop in filter(None, self.path.split("Z")):
            if not loop.startswith("M"):
                raise ValueError(f"expected M0 0L8 0Z, got {loop[:40]!r}")
            corners = [corner.split(" ") for corner in loop[1:].split("L")]
            found.append([(float(x), float(y)) for x, y in corners])
        object.__setattr__(self, "loops", found)

    @classmethod
    def of_box(
        cls, name: str, left: float, top: float, right: float, bottom: float
    ) -> Outline:
        """Return the line around a box, its sides in pixels."""
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return cls(name=name, path=_path([corners]))

    @classmethod
    def of_region(cls, name: str, inside: np.ndarray) -> Outline:
        """Return the line around a region, booleans ``(height, width)``."""
        return cls(name=name, path=_path(loops_around(inside)))


def _path(loops: Sequence[Sequence[tuple[float, float]]]) -> str:
    return "".join(
        "M" + "L".join(f"{round(x, 2):g} {round(y, 2):g}" for x, y in loop) + "Z"
        for loop in loops
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Heat:
    """A picture, with scores over it or not.

    Args:
        image (PIL.Image.Image): The picture.
        scores (np.ndarray, optional): Of pixels or patches, shape ``(rows, columns)``.
            Default: None, the picture as it is
        scale (ColorScale, optional): Of the scores.
        style (str): ``"overlay"`` over the picture in grey, ``"smooth"``, the same
            without steps between patches, ``"contours"``, lines of equal score, or
            ``"heat"`` without the picture. Default: ``"overlay"``
        caption (str): What stands below it. Default: ``""``
        under (str): A second, fainter line there. Default: ``""``
        alt (str): The picture in words. Default: ``""``, its caption
        outlines (tuple of Outline): What is pointed out by a line around it.
            Default: ()
    """

    image: Image = field(repr=False)
    scores: np.ndarray | None = field(default=None, repr=False)
    scale: ColorScale | None = None
    style: Literal["overlay", "smooth", "contours", "heat"] = "overlay"
    caption: str = ""
    under: str = ""
    alt: str = ""
    outlines: tuple[Outline, ...] = ()

    @property
    def shares(self) -> np.ndarray:
        """The scores as shares of the limit of their scale."""
        assert self.scores is not None and self.scale is not None
        return np.asarray(self.scores / self.scale.limit)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """Pictures beside each other, all of one size.

    Args:
        pictures (tuple of Heat): From left to right, row by row.
        size (str): ``"large"``, as large as there is room for, or ``"equal"``, several
            side by side. Default: ``"equal"``
        across (int): How many side by side, where that has a meaning.
            Default: 0, three; four of four
    """

    pictures: tuple[Heat, ...]
    size: Literal["large", "equal"] = "equal"
    across: int = 0

    @property
    def columns(self) -> int:
        """How many stand side by side."""
        return self.across or (4 if len(self.pictures) == 4 else 3)


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What stands along one side of a grid.

    Args:
        name (str): What the labels are, such as ``"token"``.
        labels (tuple of str): One for each row or column.
        special (tuple of bool): Which of them the tokenizer added; ``()`` for none.
        breaks (tuple of bool): Before which of them a line may break; ``()`` for all.
        ticks (tuple of str): Short labels, where there is little room; ``()`` for
            none.
        hints (tuple of str): What each is in full, where a page has it under the
            mouse; ``()`` for none.
    """

    name: str
    labels: tuple[str, ...]
    special: tuple[bool, ...] = ()
    breaks: tuple[bool, ...] = ()
    ticks: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kind(self) -> str:
        """The name without what follows a comma, such as ``"layer"``."""
        return self.name.partition(",")[0]

    @property
    def count(self) -> str:
        """How many there are, such as ``"12 layers"``."""
        head, of, rest = self.kind.partition(" of ")
        return f"{len(self)} {head}{'s' * (len(self) != 1)}{of}{rest}"

    def is_special(self, number: int) -> bool:
        """Return whether the tokenizer added this one."""
        return bool(self.special) and self.special[number]

    def place(self, number: int) -> str:
        """Return one of them in words, such as ``"layer 3"`` or ``"“film”"``."""
        label = self.labels[number]
        if self.special:
            return f"“{label}”"
        return f"{self.kind} {label}" if label.isdigit() else label

    def runs(self, most: int) -> Iterator[slice]:
        """Cut into runs of at most ``most``, before a word where possible."""
        start, count = 0, len(self)
        while start < count:
            left = count - start
            # Runs of about equal length, so that none is left with two.
            stop = start + -(-left // -(-left // most))
            if stop < count and self.breaks:
                inside = range(stop, start + most // 2, -1)
                stop = next((i for i in inside if self.breaks[i]), stop)
            yield slice(start, stop)
            start = stop


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One grid of scores, shape ``(rows, columns)``, with its name."""

    values: np.ndarray = field(repr=False)
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """Scores in rows and columns, one grid or several beside each other.

    Args:
        panels (tuple of Panel): The grids, all with the same rows and columns.
        rows (Axis): From top to bottom.
        columns (Axis): From left to right.
        scale (ColorScale): The colours of all panels.
        fixed (tuple of bool): Which columns could not be otherwise, and are hatched;
            ``()`` for none. Default: ()
        means (np.ndarray, optional): One number for each row of the only panel, written
            beside it. Default: None
    """

    panels: tuple[Panel, ...]
    rows: Axis
    columns: Axis
    scale: ColorScale
    fixed: tuple[bool, ...] = ()
    means: np.ndarray | None = field(default=None, repr=False)

    def strongest(self, count: int) -> list[tuple[str, float]]:
        """Return names and scores of the cells of largest magnitude."""
        values = np.stack([panel.values for panel in self.panels])
        found = []
        for p, r, c in strongest_places(values, count):
            place = f"{self.rows.place(r)}, {self.columns.place(c)}"
            if len(self.panels) > 1:
                place = f"{self.panels[p].name}, {place}"
            found.append((place, float(values[p, r, c])))
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Lines from each token on the left to tokens on the right.

    Args:
        lines (tuple): Left token, right token and share of the limit of each line, the
            faintest first.
        left (Axis): The tokens on the left.
        right (Axis): The tokens on the right.
        scale (ColorScale): The weight of the strongest line.
    """

    lines: tuple[tuple[int, int, float], ...] = field(repr=False)
    left: Axis
    right: Axis
    scale: ColorScale

    def strongest(self, count: int) -> list[tuple[str, float]]:
        """Return names and weights of the strongest lines."""
        lines = sorted(self.lines, key=lambda line: -abs(line[2]))[:count]
        left, right = self.left.labels, self.right.labels
        return [
            (f"“{left[a]}” to “{right[b]}”", share * self.scale.limit)
            for a, b, share in lines
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Chart:
    """A line for each of several groups, over steps from left to right.

    Args:
        names (tuple of str): Of the lines.
        values (np.ndarray): 0 to 1, shape ``(lines, steps)``.
        steps (Axis): What stands below.
        label (str): What the values are.
        alt (str): The chart in words.
    """

    names: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    steps: Axis
    label: str
    alt: str

    @property
    def table(self) -> Table:
        """The values as a table, a row for each step."""
        return Table(
            title=self.label,
            heads=(self.steps.kind, *self.names),
            rows=tuple(
                (label, *(f"{value:.3f}" for value in column))
                for label, column in zip(self.steps.labels, self.values.T, strict=True)
            ),
        )


# ----------------------------------------------------------------------------- numbers


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table with more than a text.

    Args:
        text (str): What is written.
        small (str): A smaller number behind it, in brackets. Default: ``""``
        share (float, optional): What colours its ground, -1 to 1.
            Default: None, nothing does
    """

    text: str
    small: str = ""
    share: float | None = None

    @property
    def written(self) -> str:
        """The text, with the smaller number in brackets."""
        return f"{self.text} ({self.small})" if self.small else self.text


def cell_of(value: str | Cell) -> Cell:
    """Return a cell of a table: itself, or one with that text."""
    return Cell(text=value) if isinstance(value, str) else value


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers.

    Args:
        title (str): What stands above it. Default: ``""``
        heads (tuple of str): Names of the columns.
        rows (tuple): One text or :class:`Cell` for each column.
        scale (ColorScale): The colours of shares. Default: from -1 to 1
        texts (int): How many columns from the left are texts; the others are numbers,
            at their right end. Default: 1
        folded (bool): Whether it holds all numbers, which a page folds away and figures
            and terminals leave out. Default: False
        repeats (bool): Whether it lists what a picture above it shows; figures leave it
            out. Default: False
    """

    title: str = ""
    heads: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    scale: ColorScale = ColorScale(limit=1.0, signed=True)
    texts: int = 1
    folded: bool = False
    repeats: bool = False

    @property
    def colored(self) -> list[bool]:
        """Which columns have cells with colours."""
        return [
            any(cell_of(row[i]).share is not None for row in self.rows)
            for i in range(len(self.heads))
        ]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Names with numbers, each with a bar from zero.

    Args:
        title (str): What stands above them. Default: ``""``
        head (str): What the names are, such as ``"Word"``. Default: ``""``
        rows (tuple): Name and score of each.
        scale (ColorScale): Where the bars end.
        numbers (tuple of str): The scores as they are written. Default: (), as the
            scale writes them
        repeats (bool): Whether it lists what a picture above it shows in colours;
            figures leave it out. Default: False
        marks (tuple of str): What stands behind each name; ``""`` for nothing.
            Default: ()
    """

    title: str = ""
    head: str = ""
    rows: tuple[tuple[str, float], ...]
    scale: ColorScale
    numbers: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    repeats: bool = False

    @property
    def names(self) -> list[str]:
        """The names, with the marks behind them."""
        marks = self.marks or ("",) * len(self.rows)
        return [
            f"{name} {mark}" if mark else name
            for (name, _), mark in zip(self.rows, marks, strict=True)
        ]

    @property
    def written(self) -> tuple[str, ...]:
        """The scores as text."""
        return self.numbers or tuple(self.scale.write(score) for _, score in self.rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pages:
    """A list from which a reader picks one, and what is shown for it.

    A page of HTML shows one at a time, chosen by mouse or key; elsewhere all stand
    below each other, at most ``printed`` of them.

    Args:
        labels (tuple of Word): What is picked from, written as a text.
        scale (ColorScale): The colours of the labels.
        pages (tuple): The blocks of each.
        hint (str): How to pick. Default: ``""``
        printed (int): How many are shown where there is no picking. Default: 8
    """

    labels: tuple[Word, ...]
    scale: ColorScale
    pages: tuple[tuple[Block, ...], ...]
    hint: str = ""
    printed: int = 8


Block = (
    Heading
    | Paragraph
    | Facts
    | Words
    | Legend
    | Pictures
    | Grid
    | Pairs
    | Chart
    | Table
    | Bars
    | Pages
)


def largest(pairs: Sequence[tuple[str, float]], scale: ColorScale, head: str) -> Table:
    """Return names and scores as the table that is folded below a heat map."""
    return Table(
        title="Largest magnitudes",
        heads=(head, "Score"),
        rows=tuple((name, scale.write(score)) for name, score in pairs),
        folded=True,
    )


def strongest_places(values: np.ndarray, count: int) -> list[tuple[int, ...]]:
    """Return the indices of the ``count`` largest magnitudes, the largest first."""
    order = np.argsort(-np.abs(values), axis=None, kind="stable")[:count]
    indices = np.stack(np.unravel_index(order, values.shape), axis=1)
    return [tuple(place) for place in indices.tolist()]


def strongest_cells(values: np.ndarray, count: int) -> list[tuple[str, float]]:
    """Return names and scores of the cells of largest magnitude in a picture."""
    return [
        (f"row {row + 1}, column {column + 1}", float(values[row, column]))
        for row, column in strongest_places(values, count)
    ]


def pool_largest(values: np.ndarray, most: tuple[int, int]) -> np.ndarray:
    """Return a grid of at most ``most`` rows and columns.

    Of the cells that share one, it has the value of largest magnitude: a single strong
    cell among many stays visible, which it would not in a picture that is shrunk.
    """
    for axis in (0, 1):
        count = values.shape[axis]
        if count <= most[axis]:
            continue
        starts = np.arange(most[axis]) * count // most[axis]
        high = np.maximum.reduceat(values, starts, axis=axis)
        low = np.minimum.reduceat(values, starts, axis=axis)
        values = np.where(high >= -low, high, low)
    return values


@dataclass(frozen=True, kw_only=True)
class Card:
    """Blocks that belong together: one result.

    Args:
        blocks (tuple of Block): From top to bottom.
        alt (str): The whole in words, for those who do not see it. Default: ``""``
        compact (bool): Whether it is one of many and smaller. Default: False
        folded (bool): Whether a page shows its first block, a heading, alone until one
            opens it. Default: False
    """

    blocks: tuple[Block, ...]
    alt: str = ""
    compact: bool = False
    folded: bool = False

    @property
    def title(self) -> str:
        """Its first heading, ``""`` for none."""
        found = (block.text for block in self.blocks if isinstance(block, Heading))
        return next(found, "")
