"""What can show itself: in a notebook, a terminal, a page, a figure, a file."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .._files import write
from .._visible import shortened
from ..errors import InputError
from .blocks import Block, Card
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
        return render_page([self], title=title, lead=lead)

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
        return draw_file([self], "png", theme=theme, heading=heading, dpi=dpi)

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
        writer = self._writers.get(check_suffix(path, self.suffixes))
        if writer is None:
            return save([self], path, theme=theme, dpi=dpi)
        write(path, getattr(self, writer)().rstrip("\n") + "\n")
        return Path(path)

    def _repr_html_(self) -> str:
        return render_fragment([self])

    def _repr_mimebundle_(
        self, include: Any = None, exclude: Any = None
    ) -> dict[str, Any]:
        """Return HTML, and a picture and text for where HTML is not shown."""
        return mimebundle([self])

    def __repr__(self) -> str:
        """Return it in a line or three: what a prompt shows, and of each in a list."""
        return f"<{type(self).__name__}: {shortened(self.alt, _MOST_SAID)}>"

    def __str__(self) -> str:
        from .plain import plain

        return plain(self.blocks())


def render_page(
    shown: Sequence[Shown], *, title: str | None = None, lead: str | None = None
) -> str:
    """Return a page of HTML with several results, one below the other.

    Args:
        shown (sequence of Shown): What to show, in this order.
        title (str, optional): Heading of the page. Default: None, of one result what it
            shows, of several none
        lead (str, optional): A paragraph below the heading. Default: None

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    from .html import to_page

    cards = [card for one in shown for card in one.cards()]
    own = next((card.title for card in cards if card.title), "Attribution scores")
    return to_page(cards, title=title or own, heading=title, lead=lead)


def render_fragment(shown: Sequence[Shown]) -> str:
    """Return results as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    from .html import to_fragment

    return to_fragment([card for one in shown for card in one.in_notebook()])


def mimebundle(shown: Sequence[Shown]) -> dict[str, Any]:
    """Return results as a notebook takes them: HTML, a picture, text."""
    from .plain import plain

    found: dict[str, Any] = {
        "text/html": render_fragment(shown),
        "text/plain": "\n\n".join(plain(one.blocks()) for one in shown),
    }
    with warnings.catch_warnings(), contextlib.suppress(InputError):
        warnings.simplefilter("ignore")  # characters without a font: HTML has them
        cards = [card for one in shown for card in one.in_notebook()]
        # Of folded cards only the lines are seen; not if it is too tall.
        found["image/png"] = _drawn([c for c in cards if not c.folded], "png", dpi=96)
    return found


def draw_file(
    shown: Sequence[Shown],
    kind: str = "png",
    *,
    theme: Theme = "light",
    heading: bool = True,
    dpi: int = 160,
) -> bytes:
    """Return results below each other as a file; characters without a font warn.

    Args:
        shown (sequence of Shown): What to draw, in this order.
        kind (str, optional): ``"png"``, ``"pdf"`` or ``"svg"``. Default: ``"png"``
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``
        heading (bool, optional): As for :meth:`Shown.plot`. Default: True
        dpi (int, optional): Pixels per inch; figures are up to 9 inches wide.
            Default: 160

    Raises:
        UnknownNameError: There is no such theme.
    """
    cards = [card for one in shown for card in one.cards()]
    return _drawn(cards, kind, theme=theme, heading=heading, dpi=dpi)


def _drawn(
    cards: Sequence[Card],
    kind: str,
    *,
    theme: Theme = "light",
    heading: bool = True,
    dpi: int,
) -> bytes:
    from .figure import draw
    from .page import write_figure

    return write_figure(
        lambda: draw([card.blocks for card in cards], theme=theme, bare=not heading),
        kind,
        dpi=dpi,
        title="; ".join(card.title for card in cards if card.title),
        alt=" ".join(card.alt for card in cards),
    )


def save(
    shown: Sequence[Shown],
    path: str | Path,
    *,
    title: str | None = None,
    lead: str | None = None,
    theme: Theme = "light",
    dpi: int = 160,
) -> Path:
    """Write results into one file: .html, .png, .pdf or .svg.

    Args:
        shown (sequence of Shown): What to write, in this order.
        path (str or Path): The file.
        title (str, optional): Heading of an HTML page. Default: None
        lead (str, optional): A paragraph below that heading. Default: None
        theme (str, optional): ``"light"`` or ``"dark"`` of a picture.
            Default: ``"light"``
        dpi (int, optional): Pixels per inch of a PNG. Default: 160

    Returns:
        *Path*: The file that was written.

    Raises:
        InputError: There is nothing to save.
        UnknownNameError: The suffix or the theme is another one.
    """
    from .colors import find_theme

    path = Path(path)
    if not shown:
        raise InputError("expected at least one result to save, got none")
    suffix = check_suffix(path, SUFFIXES)
    find_theme(theme)
    if suffix == ".html":
        write(path, render_page(shown, title=title, lead=lead))
    else:
        write(path, draw_file(shown, suffix[1:], theme=theme, dpi=dpi))
    return path
