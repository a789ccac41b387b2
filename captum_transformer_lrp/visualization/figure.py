"""Explanations as one figure, drawn with matplotlib's objects and no global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from ..report.image import MIDDLE_GREY, enlarge, heat, overlay
from ..report.page import Page, write_figure
from ..report.words_on_page import ScoredWord, draw_words, is_right_to_left

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..explanation import Explanation, ImageExplanation, TextExplanation


def render_figure(
    explanations: Sequence[Explanation],
    kind: str = "png",
    *,
    dpi: int = 160,
    theme: str = "light",
) -> bytes:
    """Return explanations below each other as a file.

    Characters that no installed font has are drawn as boxes, with one warning.

    Args:
        explanations (Sequence[Explanation]): What to draw, in this order.
        kind (str, optional): ``"png"``, ``"pdf"`` or ``"svg"``. Default: ``"png"``
        dpi (int, optional): Pixels per inch; the figure is 9 inches wide.
            Default: 160
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

    Raises:
        UnknownNameError: There is no such theme.
    """
    return write_figure(
        lambda: draw_figure(explanations, theme=theme),
        kind,
        dpi=dpi,
        title="; ".join(e.question for e in explanations),
        alt=" ".join(describe(e) for e in explanations),
    )


def describe(explanation: Explanation) -> str:
    """Return an explanation in words, for those who do not see its picture."""
    write = explanation.number_format(explanation.limit)
    top = ", ".join(f"{name} {write(s)}" for name, s in explanation.top_parts(3))
    found = f"{explanation.question} {explanation.answer}"
    if top:
        found += f" {explanation.top_title}: {top}."
    return found


def draw_figure(explanations: Sequence[Explanation], *, theme: str = "light") -> Figure:
    """Return a matplotlib figure of explanations below each other.

    The figure belongs to no pyplot state: it can be drawn in any thread.

    Args:
        explanations (Sequence[Explanation]): What to draw, in this order.
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

    Raises:
        UnknownNameError: There is no such theme.
    """
    page = Page(theme=theme)
    for number, explanation in enumerate(explanations):
        if number:
            page.rule()
        _draw(page, explanation)
    return page.figure()


def _draw(page: Page, explanation: Explanation) -> None:
    """Draw one explanation at the end of the page."""
    page.line(explanation.question, size=16, weight="bold")
    page.line(explanation.answer, color=page.theme.soft)
    page.y += 0.2
    if explanation.kind == "text":
        _draw_tokens(page, cast("TextExplanation", explanation))
    else:
        _draw_pictures(page, cast("ImageExplanation", explanation))
    _draw_legend(page, explanation)
    for note in explanation.notes:
        page.line(note, size=8.5, color=page.theme.soft)


def _draw_tokens(page: Page, explanation: TextExplanation) -> None:
    """Draw the text with each token on the colour of its score."""
    limit = explanation.limit
    words = [
        ScoredWord(
            label=piece.label,
            share=float(score) / limit,
            special=piece.special,
            space_before=piece.space_before,
        )
        for piece, score in zip(explanation.pieces, explanation.scores, strict=True)
    ]
    draw_words(page, words, right_to_left=is_right_to_left(explanation.text))


def _draw_pictures(page: Page, explanation: ImageExplanation) -> None:
    """Draw the picture, the scores of its patches and of its pixels, if there are."""
    gap = 0.25
    side = (page.room - 2 * gap) / 3
    columns, rows = explanation.image.size
    scale = min(side / columns, side / rows)
    large = enlarge(explanation.image)
    name = explanation.quantity.capitalize()
    pictures = [
        (large, "What the model saw"),
        (overlay(large, explanation.cells), f"{name} of each {explanation.unit}"),
    ]
    if explanation.has_pixels:
        fine = overlay(large, explanation.scores)
        pictures.append((fine, f"{name} of each pixel, own scale"))
    for number, (image, caption) in enumerate(pictures):
        x = page.margin + number * (side + gap)
        page.picture(x, page.y, columns * scale, rows * scale, np.asarray(image))
        page.text(
            x, page.y + rows * scale + 0.2, caption, size=8.5, color=page.theme.soft
        )
    page.y += rows * scale + 0.42


def _draw_legend(page: Page, explanation: Explanation) -> None:
    """Draw the colour bar with its ends, and the facts beside it."""
    low, high = explanation.scale_ends
    shares = np.linspace(explanation.scale_start, 1, 201)
    if explanation.kind == "text":
        colors = page.theme.scale.rgb(shares)
    else:
        colors = heat(shares, MIDDLE_GREY)
    facts = "    ".join(
        f"{name} {value}"
        for name, value in explanation.facts
        if name in ("Logit", "Sum of relevance", "Method")
    )
    page.legend(low, high, colors, beside=facts)
