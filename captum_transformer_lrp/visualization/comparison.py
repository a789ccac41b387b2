"""Several explanations of one prediction side by side: page, figure and terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..report.colors import DARK, LIGHT
from ..report.image import MIDDLE_GREY, data_uri, enlarge, heat, overlay
from ..report.numbers import ScoreFormat
from ..report.page import Page
from ..report.words_on_page import ScoredWord, draw_words, is_right_to_left
from .html import render_cards, render_page, text_parts

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console

    from ..comparison import Comparison
    from ..explanation import Explanation, ImageExplanation, TextExplanation

_NOTHING = "–"

_MEANING = (
    "Colour has a scale of its own for each method, from its largest magnitude among "
    "the {parts} down; its ends are beside it."
)
_AGREEMENT = (
    "1 is the same order, 0 none, −1 the reverse. Signed methods are ranked by their "
    "scores; where one of the two has no sign, both by their magnitudes."
)
_TEXT_ONLY = " Tokens that the tokenizer added are left out."
_SUMS = (
    "Absorbed is what constants, above all biases, kept of the logit, and for methods "
    "that do not conserve what their rules changed. The conservation error is the part "
    "of the logit that neither arrived nor was kept by constants: next to 0 where the "
    "method conserves, and a check of the propagation there. The convergence delta of "
    "methods with a baseline is their sum less what it should be, the logit less that "
    "of the baseline."
)


def render_comparison(comparison: Comparison, *, title: str | None = None) -> str:
    """Return a page with all methods, their agreement and their sums.

    Args:
        comparison (Comparison): What to show.
        title (str, optional): Title of the page. Default: the question

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return render_page(
        [_card(comparison)],
        title=title or f"{comparison.question} {len(comparison.methods)} methods",
        heading=title,
    )


def render_comparison_fragment(comparison: Comparison) -> str:
    """Return the comparison as a piece of HTML for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return render_cards([_card(comparison)])


def describe_comparison(comparison: Comparison) -> str:
    """Return a comparison in words, for those who do not see its picture."""
    said = [
        f"{name}: {', '.join(part for part, _ in one.top_parts(3)) or 'nothing'}"
        for name, one in zip(comparison.methods, comparison.explanations, strict=True)
    ]
    first = comparison.explanations[0]
    return (
        f"{comparison.question} {first.answer} {first.parts.capitalize()} of largest "
        f"magnitude by method: {'; '.join(said)}."
    )


def agreement_rows(comparison: Comparison) -> list[list[tuple[float, str, str]]]:
    """Return, for each two methods, Spearman's rho and both measures as text."""
    rho, tau = comparison.agreement("spearman"), comparison.agreement("kendall")
    return [
        [
            (0.0, _NOTHING, "")
            if np.isnan(r)
            else (float(r), _short(float(r)), _short(float(t)))
            for r, t in zip(*rows, strict=True)
        ]
        for rows in zip(rho, tau, strict=True)
    ]


def sum_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Return sum, absorbed, conservation error and delta of each method as text."""
    first = comparison.explanations[0]
    rows = []
    for one, trace in zip(
        comparison.explanations, comparison.conservation, strict=True
    ):
        total = one.relevance_sum
        limit = max(abs(first.logit), abs(total or 0.0))
        write = ScoreFormat(limit=limit)
        delta = one.convergence_delta if trace is None else None
        rows.append(
            {
                "sum": _NOTHING if total is None else write(total),
                "absorbed": _NOTHING if trace is None else write(trace.absorbed),
                "error": _NOTHING if trace is None else f"{trace.error:.1e}",
                "delta": _NOTHING if delta is None else _delta(delta, write),
            }
        )
    return rows


def _delta(delta: float, write: ScoreFormat) -> str:
    """Return a delta as text; one that would be written as 0 by its power of ten."""
    written = write(delta)
    if delta and not any(digit in written for digit in "123456789"):
        return f"{delta:+.0e}".replace("-", "−")
    return written


def _short(value: float) -> str:
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _notes(comparison: Comparison) -> list[str]:
    """Return what a reader should know; what concerns a method begins with its name."""
    shared = set.intersection(*(set(one.notes) for one in comparison.explanations))
    notes = [n for n in comparison.explanations[0].notes if n in shared]
    of_methods: dict[str, list[str]] = {}
    for name, one in zip(comparison.methods, comparison.explanations, strict=True):
        for note in one.notes:
            if note not in shared:
                of_methods.setdefault(note, []).append(name)
    if len(comparison.explanations) == 1:
        return notes
    return notes + [f"{', '.join(n)}: {note}" for note, n in of_methods.items()]


# ------------------------------------------------------------------------------- page


def _card(comparison: Comparison) -> dict[str, Any]:
    """Return what the template shows."""
    first = comparison.explanations[0]
    is_text = first.kind == "text"
    sums = sum_rows(comparison)
    methods = [
        {
            "name": name,
            "signed": one.signed,
            "low": one.scale_ends[0],
            "high": one.scale_ends[1],
            "legend": f"Colour scale: {one.scale_ends[0]} to {one.scale_ends[1]}",
        }
        | numbers
        | (text_parts(cast("TextExplanation", one)) if is_text else _heat(name, one))
        for name, one, numbers in zip(
            comparison.methods, comparison.explanations, sums, strict=True
        )
    ]
    card: dict[str, Any] = {
        "template": "comparison.html",
        "kind": first.kind,
        "question": comparison.question,
        "answer": first.answer,
        "methods": methods,
        "meaning": _MEANING.format(
            parts="tokens of the text" if is_text else first.parts
        ),
        "agreement": _agreement_cells(comparison) if len(methods) > 1 else [],
        "about_agreement": _AGREEMENT + (_TEXT_ONLY if is_text else ""),
        "count": len(comparison.ranked[0]),
        "parts": "tokens" if is_text else first.parts,
        "part": "token" if is_text else first.unit,
        "logit": ScoreFormat(limit=abs(first.logit))(first.logit),
        "about_sums": _SUMS,
        "notes": _notes(comparison),
        "rows": _numbers(comparison),
    }
    if not is_text:
        image = cast("ImageExplanation", first).image
        card |= {
            "picture": data_uri(enlarge(image)),
            "picture_alt": "The picture as the model saw it, "
            f"{image.width} by {image.height} pixels",
        }
    return card


def _heat(name: str, explanation: Explanation) -> dict[str, Any]:
    image = cast("ImageExplanation", explanation)
    ((place, score),) = image.top_parts(1)
    write = image.number_format(image.limit)
    return {
        "heat": data_uri(overlay(enlarge(image.image), image.cells)),
        "alt": f"The picture in grey with the {image.quantity} by {name}; strongest at "
        f"{place}, {write(score)}",
    }


def _agreement_cells(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "cells": [
                {
                    "rho": rho,
                    "tau": f"({tau})" if tau else "",
                    "light": LIGHT.hex(value),
                    "dark": DARK.hex(value),
                    "light_ink": LIGHT.ink,
                    "dark_ink": DARK.ink,
                }
                for value, rho, tau in row
            ],
        }
        for name, row in zip(
            comparison.methods, agreement_rows(comparison), strict=True
        )
    ]


def _numbers(comparison: Comparison) -> list[dict[str, Any]]:
    """Return all numbers, one row per token or cell."""
    first = comparison.explanations[0]
    columns = []
    for one, ranked in zip(comparison.explanations, comparison.ranked, strict=True):
        write = one.number_format(one.limit)
        values = one.scores if one.kind == "text" else ranked
        columns.append([write(float(v)) for v in values])
    if first.kind == "text":
        names = [piece.label for piece in cast("TextExplanation", first).pieces]
    else:
        wide = min(
            cast("ImageExplanation", one).cells.shape[1]
            for one in comparison.explanations
        )
        names = [
            f"row {i // wide + 1}, column {i % wide + 1}"
            for i in range(len(columns[0]))
        ]
    return [
        {"name": name, "scores": scores}
        for name, *scores in zip(names, *columns, strict=True)
    ]


# ----------------------------------------------------------------------------- figure


def draw_comparison(comparison: Comparison, *, theme: str = "light") -> Figure:
    """Return a matplotlib figure of all methods, their agreement and their sums.

    The figure belongs to no pyplot state: it can be drawn in any thread.

    Args:
        comparison (Comparison): What to draw.
        theme (str, optional): ``"light"`` or ``"dark"``. Default: ``"light"``

    Raises:
        UnknownNameError: There is no such theme.
    """
    page = Page(theme=theme)
    first = comparison.explanations[0]
    page.line(comparison.question, size=16, weight="bold")
    page.line(first.answer, color=page.theme.soft)
    page.y += 0.2
    if first.kind == "text":
        for name, one in zip(comparison.methods, comparison.explanations, strict=True):
            _draw_text(page, name, cast("TextExplanation", one))
    else:
        _draw_images(page, comparison)
    if len(comparison.methods) > 1:
        _draw_agreement(page, comparison)
    _draw_sums(page, comparison)
    for note in _notes(comparison):
        page.line(note, size=8.5, color=page.theme.soft)
    return page.figure()


def _draw_text(page: Page, name: str, explanation: TextExplanation) -> None:
    page.line(name, size=10.5, weight="bold")
    page.y += 0.02
    limit = explanation.limit
    draw_words(
        page,
        [
            ScoredWord(
                label=piece.label,
                share=float(score) / limit,
                special=piece.special,
                space_before=piece.space_before,
            )
            for piece, score in zip(explanation.pieces, explanation.scores, strict=True)
        ],
        right_to_left=is_right_to_left(explanation.text),
    )
    page.y -= 0.06
    low, high = explanation.scale_ends
    shares = np.linspace(explanation.scale_start, 1, 201)
    page.legend(low, high, page.theme.scale.rgb(shares))
    page.y += 0.14


def _draw_images(page: Page, comparison: Comparison) -> None:
    """Draw the picture, then one heat map per method, three in a row."""
    images = [cast("ImageExplanation", one) for one in comparison.explanations]
    gap, across = 0.25, 3
    side = (page.room - (across - 1) * gap) / across
    columns, rows = images[0].image.size
    scale = min(side / columns, side / rows)
    large = enlarge(images[0].image)
    drawn = [(large, "What the model saw", "")]
    for name, one in zip(comparison.methods, images, strict=True):
        low, high = one.scale_ends
        drawn.append((overlay(large, one.cells), name, f"{low} … {high}"))
    for number, (image, name, ends) in enumerate(drawn):
        x = page.margin + (number % across) * (side + gap)
        if number and number % across == 0:
            page.y += rows * scale + 0.62
        page.picture(x, page.y, columns * scale, rows * scale, np.asarray(image))
        below = page.y + rows * scale
        page.text(
            x, below + 0.2, page.shortened(name, size=9.5, longest=side), size=9.5
        )
        page.text(x, below + 0.37, ends, size=8, color=page.theme.soft)
    page.y += rows * scale + 0.62
    shares = np.linspace(-1, 1, 201)
    page.legend("against", "for", heat(shares, MIDDLE_GREY), unit="each on its scale")


def _draw_agreement(page: Page, comparison: Comparison) -> None:
    """Draw the table of rank correlations."""
    theme = page.theme
    rows = agreement_rows(comparison)
    page.y += 0.1
    page.line("Rank agreement: Spearman's ρ (Kendall's τ)", size=10.5, weight="bold")
    label = min(2.0, max(page.measure(n, size=9) for n in comparison.methods) + 0.15)
    width = min(1.15, (page.room - label) / len(rows))
    page.y += 0.12
    for number, name in enumerate(comparison.methods):
        x = page.margin + label + (number + 0.5) * width
        shown = page.shortened(name, size=7.5, longest=width - 0.06)
        x -= page.measure(shown, size=7.5) / 2
        page.text(x, page.y + 0.06, shown, size=7.5, color=theme.soft)
    page.y += 0.14
    height = 0.3
    page.cells(
        page.margin + label,
        page.y,
        (width, height),
        theme.scale.rgb(np.array([[value for value, _, _ in row] for row in rows])),
    )
    for name, row in zip(comparison.methods, rows, strict=True):
        shown = page.shortened(name, size=9, longest=label - 0.1)
        page.text(page.margin, page.y + 0.2, shown, size=9)
        for number, (_, rho, tau) in enumerate(row):
            text = f"{rho} ({tau})" if tau and width > 0.85 else rho
            middle = page.margin + label + (number + 0.5) * width
            x = middle - page.measure(text, size=8.5) / 2
            page.text(x, page.y + 0.2, text, size=8.5)
        page.y += height
    page.y += 0.2


def _draw_sums(page: Page, comparison: Comparison) -> None:
    """Draw the table of sums."""
    theme = page.theme
    first = comparison.explanations[0]
    logit = ScoreFormat(limit=abs(first.logit))(first.logit)
    page.line(f"What the scores sum to; the logit is {logit}", size=10.5, weight="bold")
    heads = {
        "sum": "Sum",
        "absorbed": "Absorbed",
        "error": "Conservation error",
        "delta": "Convergence delta",
    }
    label = 2.6
    width = (page.room - label) / len(heads)
    page.y += 0.18
    for number, head in enumerate(heads.values()):
        x = page.margin + label + (number + 1) * width
        page.text(x, page.y, head, size=8, color=theme.soft, align="right")
    page.y += 0.06
    for name, row in zip(comparison.methods, sum_rows(comparison), strict=True):
        page.y += 0.2
        shown = page.shortened(name, size=9, longest=label)
        page.text(page.margin, page.y, shown, size=9)
        for number, key in enumerate(heads):
            x = page.margin + label + (number + 1) * width
            page.text(x, page.y, row[key], size=9, align="right")
    page.y += 0.25


# --------------------------------------------------------------------------- terminal


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print a comparison on a rich console.

    Args:
        comparison (Comparison): What to print.
        console (Console): Where; it knows its colours and its width.
    """
    from rich.table import Table
    from rich.text import Text

    from .terminal import text_of

    first = comparison.explanations[0]
    console.print(Text(comparison.question, style="bold"), end="\n")
    console.print(Text(first.answer, style="dim"), end="\n\n")
    for name, one in zip(comparison.methods, comparison.explanations, strict=True):
        console.print(Text(name, style="italic"))
        if one.kind == "text" and console.color_system is not None:
            console.print(text_of(cast("TextExplanation", one)))
        write = one.number_format(one.limit)
        top = ", ".join(f"{part} {write(score)}" for part, score in one.top_parts(5))
        console.print(Text(f"  {top or 'nothing'}", style="dim"), end="\n\n")
    if len(comparison.methods) > 1:
        table = Table(box=None, pad_edge=False, title_justify="left")
        table.title = "Rank agreement: Spearman's ρ (Kendall's τ)"
        table.add_column("")
        for name in comparison.methods:
            table.add_column(name, justify="right", overflow="fold")
        for name, row in zip(
            comparison.methods, agreement_rows(comparison), strict=True
        ):
            cells = [f"{rho} ({tau})" if tau else rho for _, rho, tau in row]
            table.add_row(name, *cells)
        console.print(table, end="\n\n")
    logit = ScoreFormat(limit=abs(first.logit))(first.logit)
    sums = Table(box=None, pad_edge=False, title_justify="left")
    sums.title = f"What the scores sum to; the logit is {logit}"
    for head in ("", "sum", "absorbed", "conservation error", "convergence delta"):
        sums.add_column(head, justify="right" if head else "left", overflow="fold")
    for name, numbers in zip(comparison.methods, sum_rows(comparison), strict=True):
        sums.add_row(
            name,
            numbers["sum"],
            numbers["absorbed"],
            numbers["error"],
            numbers["delta"],
        )
    console.print(sums, end="\n\n")
    for note in _notes(comparison):
        console.print(Text(note, style="dim italic"))
