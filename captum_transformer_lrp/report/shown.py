"""What can show itself: in a notebook, a terminal, a page, a figure, a file."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .._files import write
from .._visible import shortened
from ..errors import InputError
from .blocks import Block, Card
from .colors import find_theme
from .plain import plain
from .saving import SUFFIXES, check_suffix

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]

_MOST_SAID = 200  # characters at a prompt


class Shown(ABC):
    """A result that says what it is made of, and so shows itself everywhere.

    A subclass writes :meth:`blocks` and :attr:`alt`. In a notebook it then has a view
    with a picture beside it, for where HTML is not shown; ``str`` and ``print`` give
    its numbers as text, at most a screen of it; ``repr`` is a line or three.
    """

    #: what :meth:`save` writes, by suffix
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    #: suffix -> the method whose text it writes, where it is not a picture or a page
    _writers: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def blocks(self) -> Iterable[Block]:
        """Yield what is shown, from top to bottom."""

    @property
    @abstractmethod
    def alt(self) -> str:
        """The whole in full words, for those who do not see it.

        It is written into HTML and into the metadata of pictures.
        """

    def cards(self) -> tuple[Card, ...]:
        """Return the blocks in the cards that they stand on: one, for most results."""
        return (Card(blocks=tuple(self.blocks()), alt=self.alt),)

    def in_notebook(self) -> tuple[Card, ...]:
        """Return the cards that a notebook shows: all, where they are not many."""
        return self.cards()

    def to_html(self, *, title: str | None = None, lead: str | None = None) -> str:
        """Return a self-contained HTML page, readable in light and in dark.

        Args:
            title (str, optional): Heading of the page. Default: None, what it shows
            lead (str, optional): A paragraph below that heading. Default: None

        Raises:
            MissingPackageError: jinja2 is not installed.
        """
        from .html import to_page

        cards = self.cards()
        own = next((card.title for card in cards if card.title), "Attribution scores")
        return to_page(cards, title=title or own, heading=title, lead=lead)

    def to_text(self, *, color: bool = False, width: int = 88) -> str:
        """Return text for a terminal, which needs the package rich.

        Args:
            color (bool, optional): Whether to colour it with ANSI codes.
                Default: False
            width (int, optional): Columns of the terminal. Default: 88

        Raises:
            MissingPackageError: rich is not installed.
        """
        from .terminal import to_text

        return to_text([card.blocks for card in self.cards()], color=color, width=width)

    def plot(self, *, theme: Theme = "light", heading: bool = True) -> Figure:
        """Return a matplotlib figure, which pyplot does not know of.

        Args:
            theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``
            heading (bool, optional): Whether words stand around the picture. Without
                them it is as narrow as its content, for a paper whose caption says the
                same. Default: True

        Raises:
            UnknownNameError: There is no such theme.
        """
        from .figure import draw

        return draw(
            [card.blocks for card in self.cards()], theme=theme, bare=not heading
        )

    def to_png(
        self, *, theme: Theme = "light", heading: bool = True, dpi: int = 160
    ) -> bytes:
        """Return :meth:`plot` as PNG.

        Args:
            theme (str, optional): As for :meth:`plot`. Default: ``"light"``
            heading (bool, optional): As for :meth:`plot`. Default: True
            dpi (int, optional): Pixels per inch. Default: 160
        """
        return _file(self.cards(), "png", theme=theme, heading=heading, dpi=dpi)

    def save(self, path: str | Path, *, theme: Theme = "light", dpi: int = 160) -> Path:
        """Write it by the suffix of ``path``, one of :attr:`suffixes`.

        Args:
            path (str or Path): The file.
            theme (str, optional): ``"light"`` or ``"dark"`` of a picture; HTML has both
                and follows its reader. Default: ``"light"``
            dpi (int, optional): Pixels per inch of a PNG. Default: 160

        Returns:
            *Path*: The file that was written.

        Raises:
            UnknownNameError: The suffix or the theme is another one.
            MissingPackageError: jinja2, which writes HTML, is not installed.
        """
        suffix = check_suffix(path, self.suffixes)
        find_theme(theme)
        if suffix in self._writers:
            write(path, getattr(self, self._writers[suffix])().rstrip("\n") + "\n")
        elif suffix == ".html":
            write(path, self.to_html())
        else:
            write(path, _file(self.cards(), suffix[1:], theme=theme, dpi=dpi))
        return Path(path)

    def _repr_html_(self) -> str:
        from .html import to_fragment

        return to_fragment(self.in_notebook())

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, Any]:
        """Return HTML, and a picture and text for where HTML is not shown."""
        found: dict[str, Any] = {
            "text/html": self._repr_html_(),
            "text/plain": plain(self.blocks()),
        }
        # Of folded cards only the lines are seen; not if it is too tall.
        cards = [card for card in self.in_notebook() if not card.folded]
        with warnings.catch_warnings(), contextlib.suppress(InputError):
            warnings.simplefilter("ignore")  # characters without a font: HTML has them
            found["image/png"] = _file(cards, "png", dpi=96)
        return found

    def __repr__(self) -> str:
        """Return it in a line or three: what a prompt shows, and of each in a list."""
        return f"<{type(self).__name__}: {shortened(self.alt, _MOST_SAID)}>"

    def __str__(self) -> str:
        return plain(self.blocks())


class Together(Shown):
    """Several results below each other.

    Args:
        shown (sequence of Shown): In this order.
        title (str, optional): Heading of an HTML page. Default: None
        lead (str, optional): A paragraph below that heading. Default: None
    """

    def __init__(
        self,
        shown: Sequence[Shown],
        *,
        title: str | None = None,
        lead: str | None = None,
    ) -> None:
        self.shown, self.title, self.lead = shown, title, lead

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown of each."""
        for one in self.shown:
            yield from one.blocks()

    def cards(self) -> tuple[Card, ...]:
        """Return the cards of all."""
        return tuple(card for one in self.shown for card in one.cards())

    @property
    def alt(self) -> str:
        """Each in words."""
        return " ".join(one.alt for one in self.shown)

    def to_html(self, *, title: str | None = None, lead: str | None = None) -> str:
        """Return one page, under the title of all unless another is given."""
        return super().to_html(title=title or self.title, lead=lead or self.lead)


def _file(
    cards: Sequence[Card],
    kind: str,
    *,
    theme: Theme = "light",
    heading: bool = True,
    dpi: int,
) -> bytes:
    """Return cards as a picture in a file; characters without a font warn."""
    from .figure import draw
    from .page import write_figure

    return write_figure(
        lambda: draw([card.blocks for card in cards], theme=theme, bare=not heading),
        kind,
        dpi=dpi,
        title="; ".join(card.title for card in cards if card.title),
        alt=" ".join(card.alt for card in cards),
    )
