"""Blocks as one figure, drawn with matplotlib's objects and no global state.

The renderer knows blocks and nothing else: not what an explanation is, nor a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from .blocks import (
    Bars,
    Block,
    Chart,
    Facts,
    Grid,
    Heading,
    Legend,
    Pages,
    Pairs,
    Paragraph,
    Pictures,
    Table,
    Words,
)
from .figure_chart import draw_bars, draw_chart, draw_table
from .figure_grid import draw_grid, draw_pairs, grid_width
from .figure_pictures import contoured, draw_pictures, pictures_width
from .page import MARGIN, WIDTH, Page
from .words_on_page import draw_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["contoured", "draw"]

_TALLEST = 350  # inches of a page: 160 pixels each, and at most 65,535 of them
_NARROW = 6.6  # inches, of a page with nothing but charts or pairs
_LEAST = 4.4  # inches, between the margins of a page with nothing but pictures
_SMALL = 8.5  # points
_BARE_MARGIN = 0.1


def draw(
    cards: Sequence[Sequence[Block]], *, theme: str = "light", bare: bool = False
) -> Figure:
    """Return a matplotlib figure of cards below each other.

    The figure belongs to no pyplot state: it can be drawn in any thread.

    Args:
        cards (sequence of sequences of Block): What to draw, in this order.
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``
        bare (bool, optional): Whether to leave out headings, paragraphs and facts; the
            figure is then as narrow as what is widest in it. Default: False

    Raises:
        UnknownNameError: There is no such theme.
        InputError: The cards are too many for one picture.
    """
    shown = [[block for block in card if _is_drawn(block, bare)] for card in cards]
    blocks = [block for card in shown for block in card]
    page = _bare_page(blocks, theme) if bare else _page(blocks, theme)
    for number, card in enumerate(shown):
        if number:
            page.rule()
        _draw_card(page, card, bare)
        if page.y > _TALLEST:
            raise InputError(_too_tall(number, len(cards)))
    return page.figure()


def _too_tall(number: int, count: int) -> str:
    room = f"room for {number} of these {count} results; save fewer, or save them"
    if not number:
        room = (
            "no room for this result; save it"
            if count == 1
            else (f"no room for the first of these {count} results; save them")
        )
    return f"a picture has {room} as .html or .json."


def _is_drawn(block: Block, bare: bool) -> bool:
    """Return whether a block is drawn at all."""
    match block:
        case Heading():
            return not bare
        case Paragraph():
            return not bare and block.kind in ("answer", "caption", "note")
        case Facts():
            return not bare and bool(_brief(block))
        case Table():
            return not block.folded and not block.repeats
        case Bars():
            return not block.repeats
    return True


# ------------------------------------------------------------------------------- page


def _page(blocks: Sequence[Block], theme: str) -> Page:
    """Return a page as wide as what is on it deserves."""
    content = [
        block
        for block in blocks
        if not isinstance(block, (Heading, Paragraph, Facts, Legend))
    ]
    if not content:
        return Page(theme=theme)
    if all(isinstance(x, Pictures) and x.size == "large" for x in content):
        widest = max(pictures_width(x) for x in content if isinstance(x, Pictures))
        return Page(width=max(widest, _LEAST) + 0.7, margin=0.35, theme=theme)
    if all(isinstance(x, Pairs) for x in content):
        return Page(width=_NARROW, theme=theme)
    if all(isinstance(x, Chart) for x in content):
        return Page(width=_NARROW, margin=0.3, theme=theme)
    return Page(theme=theme)


def _bare_page(blocks: Sequence[Block], theme: str) -> Page:
    """Return a page as narrow as the widest block."""
    wide = Page(theme=theme)
    widest = max((_width(wide, block) for block in blocks), default=1.0)
    width = widest + 2 * _BARE_MARGIN
    return Page(width=width, margin=_BARE_MARGIN, theme=theme)


def _width(page: Page, block: Block) -> float:
    """Return how wide a block is, in inches."""
    match block:
        case Grid():
            return grid_width(page, block)
        case Legend():
            return _legend_width(page, block)
        case Chart():
            return _NARROW - 2 * _BARE_MARGIN
        case Pairs():
            return _NARROW - 2 * MARGIN
        case Pictures():
            return pictures_width(block)
    return WIDTH - 2 * MARGIN


# ------------------------------------------------------------------------------ blocks


def _draw_card(page: Page, card: Sequence[Block], bare: bool) -> None:
    """Draw blocks below each other."""
    before: Block | None = None
    for number, block in enumerate(card):
        after = card[number + 1] if number + 1 < len(card) else None
        beside = _beside(page, before, block)
        if not beside:  # else it stands beside the one before already
            page.y += _gap(before, block)
            _draw_block(page, block, _beside(page, block, after), bare)
        before = block


def _draw_block(page: Page, block: Block, beside: str, bare: bool) -> None:
    """Draw one block at the end of the page.

    Args:
        page (Page): Where.
        block (Block): What.
        beside (str): What a legend has beside it.
        bare (bool): Whether words are left out.
    """
    soft = page.theme.soft
    match block:
        case Heading():
            _draw_heading(page, block)
        case Paragraph():
            size = 10 if block.kind == "answer" else _SMALL
            page.line(block.text, size=size, color=soft)
        case Facts():
            page.line(_brief(block), size=_SMALL, color=soft)
        case Words():
            _draw_text(page, block)
        case Legend(scale=scale):
            colors = scale.colors(page.theme)
            page.legend(*scale.ends, colors, unit=scale.unit, beside=beside)
        case Pictures():
            draw_pictures(page, block)
        case Grid():
            draw_grid(page, block)
            if not bare:
                axes = f"rows: {block.rows.name}; columns: {block.columns.name}"
                page.line(axes, size=_SMALL, color=soft)
                page.y += 0.08
        case Pairs():
            draw_pairs(page, block)
        case Chart():
            draw_chart(page, block)
        case Table():
            draw_table(page, block)
        case Bars():
            draw_bars(page, block)
        case Pages():
            _draw_pages(page, block, bare)


def _gap(before: Block | None, block: Block) -> float:
    """Return the room between two blocks, in inches."""
    match before, block:
        case None, _:
            return 0.0
        case Heading(level=1), Paragraph(kind="answer"):
            return 0.0
        case (Heading(level=1), _):
            return 0.1
        case Heading(level=2), _:
            return 0.04
        case Paragraph(kind="answer"), _:
            return 0.2
        case Legend(), Words() | Grid() | Pictures() | Pairs() | Chart():
            return 0.14
        case _, Heading(level=2):
            return 0.14
        case _, Table() | Bars():
            return 0.1
    return 0.0


def _draw_heading(page: Page, heading: Heading) -> None:
    """Write a title, and its badge where the title ends."""
    size = 10.5
    if heading.level == 1:
        size = 16 if page.width >= WIDTH else 14
    end = page.line(heading.text, size=size, weight="bold") + 0.12
    if not heading.badge:
        return
    soft = page.theme.soft
    if end + page.measure(heading.badge, size=_SMALL) > page.room:
        page.line(heading.badge, size=_SMALL, color=soft)
        return
    baseline = page.y - 0.5 * size / 72
    page.text(page.margin + end, baseline, heading.badge, size=_SMALL, color=soft)


def _draw_text(page: Page, block: Words) -> None:
    draw_words(page, block.words, block.scale, right_to_left=block.right_to_left)


def _brief(facts: Facts) -> str:
    """Return the facts that have room in a figure, in one line."""
    return "    ".join(f"{n} {value}" for n, value in facts.pairs if n in facts.brief)


def _legend_width(page: Page, legend: Legend) -> float:
    """Return how wide a legend is in one line, in inches."""
    words = [*legend.scale.ends, legend.scale.unit]
    return sum(page.measure(word, size=_SMALL) for word in words) + 2.1


def _beside(page: Page, legend: Block | None, facts: Block | None) -> str:
    """Return facts that follow a legend if they have room beside it, else ``""``."""
    if not isinstance(legend, Legend) or not isinstance(facts, Facts):
        return ""
    text = _brief(facts)
    room = page.room - _legend_width(page, legend) - 0.2
    return text if page.measure(text, size=_SMALL) <= room else ""


def _draw_pages(page: Page, block: Pages, bare: bool) -> None:
    """Draw the first pages below each other, each headed by its label."""
    for number, card in enumerate(_printed(block)):
        page.y += 0.15 * bool(number)
        _draw_card(page, [x for x in card if _is_drawn(x, bare)], bare)
    more = len(block.pages) - block.printed
    if more > 0 and not bare:
        page.line(f"and {more:,} more", size=_SMALL, color=page.theme.soft)


def _printed(block: Pages) -> Iterator[tuple[Block, ...]]:
    """Yield the first pages, each below its label or a title of its own."""
    labels, pages = block.labels[: block.printed], block.pages[: block.printed]
    for label, blocks in zip(labels, pages, strict=True):
        titled = bool(blocks) and isinstance(blocks[0], Heading)
        yield blocks if titled else (Heading(text=label.text, level=2), *blocks)
