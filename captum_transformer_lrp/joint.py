"""An explanation of several inputs at once: a picture and a question about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from .errors import UnknownNameError, suggestion
from .explanation import Explanation, ImageExplanation
from .report.blocks import Block, ColorScale, Heading, Pictures, Table

__all__ = ["JointExplanation"]

#: pictures side by side, of several that are all there is
_ACROSS = 8


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class JointExplanation(Explanation):
    """The relevance or weight of all that a model read, on one scale.

    It is a mapping of the inputs' names to their explanations, ``joint["question"]``,
    which can be shown and saved by themselves.

    Args:
        parts_of (Mapping): The name of each input and its explanation, in order.
        scores (np.ndarray): All scores in a row; made of the parts.
    """

    kind: ClassVar[str] = "joint"
    _palette = "words"

    parts_of: Mapping[str, Explanation]
    scores: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        """Put all scores in a row."""
        rows = [part.scores.ravel() for part in self.parts_of.values()]
        object.__setattr__(self, "scores", np.concatenate(rows))

    def __getitem__(self, name: str) -> Explanation:
        """Return the explanation of one input, on its own scale.

        Raises:
            UnknownNameError: There is no such input.
        """
        if name not in self.parts_of:
            raise UnknownNameError(
                f"there is no input {name!r}.{suggestion(name, self.parts_of)}"
            )
        return self.parts_of[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts_of)

    def __len__(self) -> int:
        return len(self.parts_of)

    @property
    def shares(self) -> dict[str, float]:
        """What each input has of the relevance: the sum of its scores."""
        return {name: float(part.scores.sum()) for name, part in self.parts_of.items()}

    @property
    def limit(self) -> float:
        """The score at the end of the colour scale of all inputs."""
        return max(part.limit for part in self.parts_of.values())

    @property
    def unit(self) -> str:
        """What one number belongs to."""
        return " or ".join(dict.fromkeys(part.unit for part in self.parts_of.values()))

    @property
    def part(self) -> str:
        """What :meth:`top_parts` lists."""
        return "part"

    def map(self) -> Iterator[Block]:
        """Yield each input with its scores, below its name."""
        limit = self.limit
        pictures = self._pictures
        if pictures:
            yield from self._in_a_row(
                {n: replace(part, shown_limit=limit) for n, part in pictures.items()}
            )
            return
        for name, part in self.parts_of.items():
            yield Heading(text=f"{name.capitalize()}{self._total(part)}", level=2)
            yield from part.on_scale(limit).map()

    @property
    def _pictures(self) -> dict[str, ImageExplanation]:
        """The inputs, where they are all pictures."""
        found = {
            name: part
            for name, part in self.parts_of.items()
            if isinstance(part, ImageExplanation)
        }
        return found if len(found) == len(self) else {}

    def _scale(self, limit: float) -> ColorScale:
        found = super()._scale(limit)
        return replace(found, palette="picture") if self._pictures else found

    def _in_a_row(self, parts: Mapping[str, ImageExplanation]) -> Iterator[Block]:
        """Yield pictures side by side, such as the frames of a video, scores below."""
        listed = list(parts.items())
        across = -(-len(listed) // -(-len(listed) // _ACROSS))
        for start in range(0, len(listed), across):
            row = listed[start : start + across]
            seen = tuple(replace(part.seen, caption="", under="") for _, part in row)
            heats = tuple(part.heat(name + self._total(part)) for name, part in row)
            yield Pictures(pictures=seen, across=across)
            yield Pictures(pictures=heats, across=across)

    def _total(self, part: Explanation) -> str:
        """Return the sum of an input's scores in words, where it means something."""
        if not self.signed:
            return ""
        return f", {self.number_format(self.limit)(float(part.scores.sum()))} in all"

    def top_parts(self, count: int) -> list[tuple[str, float]]:
        """Return the parts of largest magnitude, of all inputs."""
        found = [
            (f"{name}: {what}", score)
            for name, part in self.parts_of.items()
            for what, score in part.top_parts(count)
        ]
        return sorted(found, key=lambda row: -abs(row[1]))[:count]

    def _numbers(self) -> Table:
        write = self.scale.write
        return Table(
            heads=("Input", "Part", self.quantity.capitalize()),
            rows=tuple((name, what, write(score)) for name, what, score in self._rows),
            texts=2,
            folded=True,
        )

    @property
    def _rows(self) -> list[tuple[str, str, float]]:
        """Input, name and score of all that :meth:`top_parts` would list."""
        return [
            (name, what, score)
            for name, part in self.parts_of.items()
            for what, score in part.top_parts(part.scores.size)
        ]

    def _columns(self) -> dict[str, Any]:
        names = ("input", "part", "score")
        return {name: [row[i] for row in self._rows] for i, name in enumerate(names)}

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        parts = [
            {"name": name, "explanation": part.to_dict()}
            for name, part in self.parts_of.items()
        ]
        return super().to_dict() | {"parts": parts}
