"""What all pictures of scores have in common: to draw, save, describe themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import write
from ..report.numbers import ScoreFormat
from ..report.saving import check_suffix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..report.colors import Theme
    from ..report.page import Page


@dataclass(frozen=True, kw_only=True)
class ColorScale:
    """From a score to a colour: where the scale ends, and what its numbers count.

    Args:
        limit (float): The magnitude of the strongest colour.
        signed (bool): Whether the scale runs to either side of zero.
        unit (str): What the numbers count, such as ``"relevance, in logits"``.
        pale (bool): Whether it ends early even from zero up, as that of words, which
            are read on it. Default: False
    """

    limit: float
    signed: bool
    unit: str
    pale: bool = False

    @property
    def diverging(self) -> bool:
        """Whether the colours are those of the diverging scale, or its half."""
        return self.signed or self.pale

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
        return self.write(self.start * self.limit), self.write(self.limit)

    def colors(self, theme: Theme) -> np.ndarray:
        """Return the colours of the bar, sRGB in [0, 1], shape ``(201, 3)``."""
        return theme.rgb(np.linspace(self.start, 1, 201), signed=self.diverging)

    @property
    def words(self) -> str:
        """The scale in words, for those who do not see the colours."""
        low, high = self.ends
        if self.signed:
            return (
                f"Colour scale: from {low}, blue, over 0, neutral, to {high}, orange; "
                f"{self.unit}"
            )
        return f"Colour scale: from 0, neutral, to {high}, orange; {self.unit}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture(ABC):
    """Scores as a picture, in a notebook, a page of HTML, or a figure for a paper.

    In a notebook it shows itself. ``str`` and ``print`` give the numbers as text.

    Args:
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    title: str = ""
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def alt(self) -> str:
        """The picture in full words, for those who do not see it.

        It is written into the HTML and into the metadata of the other files.
        """

    @property
    def _heading(self) -> str:
        """The title as a sentence before others, ``""`` for none."""
        if not self.title:
            return ""
        return f"{self.title} " if self.title[-1] in ".?!…" else f"{self.title}. "

    @abstractmethod
    def _page(self, theme: str) -> Page:
        """Return a page on which everything but the title and the notes is drawn."""

    @abstractmethod
    def _card(self) -> dict[str, Any]:
        """Return what the template of this kind of picture shows."""

    def figure(self, theme: str = "light") -> Figure:
        """Return a matplotlib figure, which pyplot does not know of.

        Args:
            theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

        Raises:
            UnknownNameError: There is no such theme.
        """
        page = self._page(theme)
        for note in self.notes:
            page.line(note, size=8.5, color=page.theme.soft)
        return page.figure()

    def to_html(self, *, title: str | None = None, lead: str | None = None) -> str:
        """Return a self-contained HTML page, readable in light and in dark.

        Args:
            title (str, optional): Heading of the page. Default: the picture's own
            lead (str, optional): A paragraph below that heading. Default: None

        Raises:
            MissingPackageError: jinja2 is not installed.
        """
        from .html import render_page

        own = self.title or "Attribution scores"
        return render_page(
            [self._whole_card()], title=title or own, heading=title, lead=lead
        )

    def _repr_html_(self) -> str:
        from .html import render_cards

        return render_cards([self._whole_card()])

    def _whole_card(self) -> dict[str, Any]:
        common = {"title": self.title, "alt": self.alt, "notes": self.notes}
        return common | self._card()

    def save(self, path: str | Path, *, theme: str = "light", dpi: int = 160) -> Path:
        """Write the picture by the suffix of ``path``: .html, .png, .pdf or .svg.

        Args:
            path (str or Path): The file.
            theme (str, optional): ``"light"`` or ``"dark"``; HTML has both and follows
                its reader. Default: ``"light"``
            dpi (int, optional): Pixels per inch of a PNG. Default: 160

        Returns:
            *Path*: The file that was written.

        Raises:
            UnknownNameError: The suffix or the theme is another one.
            MissingPackageError: jinja2, which writes HTML, is not installed.
        """
        from ..report.colors import find_theme
        from ..report.page import write_figure

        path = Path(path)
        suffix = check_suffix(path)
        find_theme(theme)
        if suffix == ".html":
            write(path, self.to_html())
        else:
            data = write_figure(
                lambda: self.figure(theme),
                suffix[1:],
                dpi=dpi,
                title=self.title,
                alt=self.alt,
            )
            write(path, data)
        return path
