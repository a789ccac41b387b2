"""Explanations of many inputs: a list that knows what they have in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    SupportsIndex,
    TypeVar,
    overload,
)

from . import records
from ._packages import require
from ._visible import shortened
from .errors import InputError
from .explanation import (
    SUFFIXES,
    Explanation,
    ImageExplanation,
    TextExplanation,
    check_suffix,
)
from .joint import JointExplanation
from .models.prediction import percent
from .report.blocks import (
    Bars,
    Block,
    Card,
    Cell,
    ColorScale,
    Facts,
    Heading,
    Paragraph,
    Table,
)
from .report.colors import scale_limit
from .report.shown import Shown, Theme
from .sound import SoundExplanation

if TYPE_CHECKING:
    from pandas import DataFrame

E = TypeVar("E", bound=Explanation)

_UNFOLDED = 12  # explanations that a page shows open
_IN_NOTEBOOK = 20  # explanations that a notebook lists
_CLASSES = 12  # of a table of true and predicted classes, at most
_WORDS = 10  # that count most for a class
_LONGEST = 90  # characters of a text in a line


class Explanations(Shown, list[E], Generic[E]):
    """A list of explanations, which shows and saves itself.

    A page begins with what they have in common: how many predictions are right, where
    the data has labels, and which words count most for each class. Of more than twelve
    only a line is open of each, confident mistakes first.

    Args:
        explanations (iterable of Explanation): In the order of the data.
        said (str, optional): What they were read from, in words. Default: ``""``
        notes (tuple of str, optional): What a reader should know of all of them.
            Default: ()
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    def __init__(
        self,
        explanations: Iterable[E] = (),
        *,
        said: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(explanations)
        self.said = said
        self.notes = notes

    @overload
    def __getitem__(self, index: SupportsIndex) -> E: ...

    @overload
    def __getitem__(self, index: slice) -> Explanations[E]: ...

    def __getitem__(self, index: Any) -> Any:
        """Return one explanation, or for a slice a list that shows itself, too."""
        found: Any = super().__getitem__(index)
        return self._like(found) if isinstance(index, slice) else found

    def _like(self, explanations: Iterable[E]) -> Explanations[E]:
        return Explanations(explanations, said=self.said, notes=self.notes)

    @property
    def labelled(self) -> list[E]:
        """Those of which it is known whether the prediction is right."""
        return [one for one in self if one.right is not None]

    @property
    def accuracy(self) -> float | None:
        """The share of right predictions among :attr:`labelled`; None without any."""
        judged = self.labelled
        return (
            sum(one.right is True for one in judged) / len(judged) if judged else None
        )

    def mistakes_first(self) -> Explanations[E]:
        """Return wrong predictions first, the most confident ones before others.

        Behind them stands the rest in the order of the data.
        """
        return self._like(self[i] for i in self._order())

    def _order(self) -> list[int]:
        """Return places in the list, those of mistakes first."""

        def rank(i: int) -> tuple[bool, float]:
            wrong = self[i].right is False
            return not wrong, -(self[i].prediction.probability or 0.0) if wrong else i

        return sorted(range(len(self)), key=rank)

    def words(self, target: int) -> list[tuple[str, float, int]]:
        """Return the words that count most for a class, over all texts.

        What has neither letters nor digits, and what the tokenizer added, is no word.

        Args:
            target (int): Index of the class. Texts that were explained for another one
                do not count.

        Returns:
            *list* of the word in lower case, its score per text (the sum of its scores
            over all texts, divided by the number of texts) and how often it occurs,
            the largest magnitude first.

        Raises:
            InputError: The explanations are by several methods or of several models,
                whose scores cannot be added.
        """
        if len(self._made) > 1:
            raise InputError(
                f"these are explanations by {self._made_in_words}; expected one method "
                "and one model, whose scores have one unit. Take those of one: "
                f"Explanations(e for e in found if e.method == {self[0].method!r})"
            )
        sums: dict[str, float] = defaultdict(float)
        often: Counter[str] = Counter()
        texts = [
            one
            for one in self
            if isinstance(one, TextExplanation) and one.target.index == target
        ]
        for one in texts:
            for word in one.words:
                if not word.special and any(map(str.isalnum, word.text)):
                    sums[word.text.lower()] += word.score
                    often[word.text.lower()] += 1
        found = [(w, total / len(texts), often[w]) for w, total in sums.items()]
        return sorted(found, key=lambda row: -abs(row[1]))

    @property
    def _made(self) -> list[tuple[str, str]]:
        """Method and model of each, every pair once."""
        return [*dict.fromkeys((one.method, one.model) for one in self)]

    @property
    def _made_in_words(self) -> str:
        return ", ".join(f"{method} of {model}" for method, model in self._made)

    # ------------------------------------------------------------------ what is shown

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown of all of them together."""
        yield Heading(text=self._count)
        if self.said:
            yield Paragraph(text=f"{self.said}.", kind="answer")
        if not self:
            yield from (Paragraph(text=note) for note in self.notes)
            return
        yield Facts(pairs=tuple(self._facts()), brief=("Accuracy", "Method", "Model"))
        if table := self._confusion():
            yield table
        if len(self._made) == 1:
            yield from self._words_of_classes()
        else:
            text = f"Words are not added up over {self._made_in_words}."
            yield Paragraph(text=text)
        for note in self.notes:
            yield Paragraph(text=note)

    def cards(self, most: int | None = None) -> tuple[Card, ...]:
        """Return a card of what they have in common, and one for each.

        Without labels, and up to twelve, there is nothing to say of all together.

        Args:
            most (int, optional): How many there is room for. Default: None, all
        """
        many = len(self) > _UNFOLDED
        if self and not many and self.accuracy is None:
            return tuple(card for one in self for card in one.cards())
        listed = self._order()[:most]
        blocks = [*self.blocks()]
        if len(listed) < len(self):
            said = f"The first {len(listed)} of {len(self):,} are listed here; the page"
            blocks.append(Paragraph(text=f'{said} of save("report.html") has all.'))
        return (
            Card(blocks=tuple(blocks), alt=self.alt),
            *(self._card(self[i], i + 1, many) for i in listed),
        )

    def in_notebook(self) -> tuple[Card, ...]:
        """Return the cards that a notebook shows, of a long list the first."""
        return self.cards(_IN_NOTEBOOK)

    @property
    def alt(self) -> str:
        """How many there are, of what, and how many predictions are right."""
        found = f"{self._count}{f' of {self.said}' if self.said else ''}."
        if self.accuracy is not None:
            found += f" {percent(self.accuracy)} of the predictions are right."
        return found

    def save(self, path: str | Path, *, theme: Theme = "light", dpi: int = 160) -> Path:
        """Write them into one file by its suffix, as :meth:`Explanation.save`.

        What keeps them (.json, .safetensors, .parquet) comes back as a list, also of
        one.

        Args:
            path (str or Path): The file.
            theme (str, optional): As for one. Default: ``"light"``
            dpi (int, optional): As for one. Default: 160

        Returns:
            *Path*: The file that was written.

        Raises:
            InputError: There is none, or more than a picture has room for.
            UnknownNameError: The suffix or the theme is another one.
            MissingPackageError: The package that writes such files is not installed.
        """
        if not self:
            raise InputError("expected at least one explanation to save, got none")
        if check_suffix(path) in records.SUFFIXES:
            written = (one.to_dict() for one in self)
            return records.write(Path(path), written, several=True)
        return super().save(path, theme=theme, dpi=dpi)

    def to_pandas(self) -> DataFrame:
        """Return a table with a row for each, which needs the package pandas.

        Returns:
            *pandas.DataFrame* with ``input`` (the text, or how large the picture
            or long the sound is),
            ``label`` and ``right`` (missing where not known), ``prediction``,
            ``confidence`` (the probability of the prediction), ``target``, ``logit``
            of the target, ``relevance_sum`` (missing where scores have no sign), and
            ``top``, the word or place of largest magnitude.

        Raises:
            MissingPackageError: pandas is not installed.
        """
        rows = [
            {
                "input": _input(one),
                "label": None if one.label is None else one.label.name,
                "right": one.right,
                "prediction": one.prediction.name,
                "confidence": one.prediction.probability,
                "target": one.target.name,
                "logit": one.logit,
                "relevance_sum": one.relevance_sum,
                "top": next((name for name, _ in one.top_parts(1)), None),
            }
            for one in self
        ]
        found: DataFrame = require("pandas").DataFrame(rows)
        return found

    # -------------------------------------------------------------------------- parts

    @property
    def _count(self) -> str:
        return f"{len(self):,} explanation{'s' * (len(self) != 1)}"

    def _facts(self) -> Iterator[tuple[str, str]]:
        judged = self.labelled
        if self.accuracy is not None:
            right = round(self.accuracy * len(judged))
            share = f"{percent(self.accuracy)} ({right:,} of {len(judged):,})"
            yield "Accuracy", share
            if len(judged) < len(self):
                yield "Without a verdict", f"{len(self) - len(judged):,}"
        chances = [
            one.prediction.probability
            for one in self
            if one.prediction.probability is not None
        ]
        if chances:
            yield "Mean confidence", percent(sum(chances) / len(chances))
        predicted = Counter(one.prediction.name for one in self).most_common(3)
        most = ", ".join(f"{name} {count:,}" for name, count in predicted)
        yield "Predicted most", most
        for name in ("method", "model"):
            values = dict.fromkeys(getattr(one, name) for one in self)
            yield name.capitalize(), ", ".join(values)

    def _confusion(self) -> Table | None:
        """Return how often each true class got each prediction."""
        pairs = Counter(
            (one.label.name, one.prediction.name)
            for one in self.labelled
            if one.label is not None
        )
        names = sorted({name for pair in pairs for name in pair})
        if not pairs or len(names) > _CLASSES:
            return None
        rows: list[tuple[str | Cell, ...]] = []
        for true in names:
            total = sum(pairs[true, name] for name in names) or 1
            cells = (
                Cell(text=f"{pairs[true, name]:,}", share=pairs[true, name] / total)
                for name in names
            )
            rows.append((true, *cells))
        return Table(
            title="Predictions by true class",
            heads=("True class", *(f"predicted {name}" for name in names)),
            rows=tuple(rows),
            scale=ColorScale(limit=1.0, signed=False),
        )

    def _words_of_classes(self) -> Iterator[Block]:
        """Yield the words that count most for each of the classes explained most."""
        classes = Counter(
            (one.target.index, one.target.name)
            for one in self
            if isinstance(one, TextExplanation)
        )
        for (index, name), texts in classes.most_common(_CLASSES // 2):
            rows = self.words(index)[:_WORDS]
            if texts < 2 or not rows:
                continue
            signed = self[0].signed
            yield Bars(
                title=f"Words that count most for “{name}”, per text ({texts:,} texts)",
                head="Word",
                rows=tuple((word, score) for word, score, _ in rows),
                scale=ColorScale(
                    limit=scale_limit([score for _, score, _ in rows]),
                    signed=signed,
                    unit=self[0].quantity.capitalize(),
                ),
                marks=tuple(f"{often:,} ×" for *_, often in rows),
            )

    def _card(self, one: E, number: int, folded: bool) -> Card:
        """Return a card that begins with a line: number, input, prediction, verdict."""
        _, *blocks = one.blocks()
        badge = {True: "correct", False: "wrong", None: ""}[one.right]
        if folded:
            blocks = [block for block in blocks if not _is_said_once(block)]
        line = _line(one) if folded else one.question
        title = Heading(text=f"{number}. {line}", badge=badge)
        return Card(blocks=(title, *blocks), alt=one.alt, folded=folded)


def _is_said_once(block: Block) -> bool:
    """Return whether a block is too much to repeat for each of many."""
    if isinstance(block, Table):
        return block.folded
    return isinstance(block, Paragraph) and block.kind == "meaning"


def _line(one: Explanation) -> str:
    """Return what was explained and predicted in a line."""
    told = str(one.prediction)
    if one.right is False and one.label is not None:
        told += f", true {one.label.name}"
    what = "picture of " if isinstance(one, ImageExplanation) else ""
    return f"{told}: {what}{shortened(_input(one), _LONGEST)}"


def _input(one: Explanation) -> str:
    """Return what was explained, in words."""
    if isinstance(one, TextExplanation):
        return one.text
    if isinstance(one, ImageExplanation):
        return f"{one.image.width} by {one.image.height} pixels"
    if isinstance(one, SoundExplanation):
        return f"sound of {one.duration:.2f} s"
    assert isinstance(one, JointExplanation)
    return ", ".join(_input(part) for part in one.parts_of.values())
