"""What the pictures of scores have in common: a title, notes, and ways to be seen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..report.blocks import Block, Heading, Paragraph
from ..report.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Picture(Shown):
    """Scores as a picture, in a notebook, a page of HTML, or a figure for a paper.

    Args:
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    title: str = ""
    notes: tuple[str, ...] = ()

    @abstractmethod
    def _scores(self) -> Iterator[Block]:
        """Yield what stands between the title and the notes."""

    @abstractmethod
    def _numbers(self) -> Iterator[Block]:
        """Yield the numbers below the notes."""

    def blocks(self) -> Iterator[Block]:
        """Yield the title, the scores, the notes and the numbers."""
        if self.title:
            yield Heading(text=self.title)
        yield from self._scores()
        for note in self.notes:
            yield Paragraph(text=note)
        yield from self._numbers()

    @property
    def _heading(self) -> str:
        """The title as a sentence before others, ``""`` for none."""
        if not self.title:
            return ""
        return f"{self.title} " if self.title[-1] in ".?!…" else f"{self.title}. "

    def figure(self, theme: Literal["light", "dark"] = "light") -> Figure:
        """Return a matplotlib figure: :meth:`plot`, under the name that it had first.

        Args:
            theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

        Raises:
            UnknownNameError: There is no such theme.
        """
        return self.plot(theme=theme)
