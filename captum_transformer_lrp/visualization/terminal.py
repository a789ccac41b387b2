"""Explanations as text for a terminal, with or without colour."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import numpy as np

from ..models.packages import require
from ..report.colors import LIGHT, THEMES, scale_limit

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from ..explanation import Explanation, TextExplanation
    from .picture import ColorScale
    from .text import TextPicture

_LIGHT = THEMES["light"]
_BAR = 12  # columns on either side of zero


def render_text(
    explanation: Explanation, *, color: bool = False, top: int = 10, width: int = 88
) -> str:
    """Return an explanation as text.

    Args:
        explanation (Explanation): What to render.
        color (bool, optional): Whether to write ANSI colour codes. Default: False
        top (int, optional): How many words or patches to list. Default: 10
        width (int, optional): Columns of the terminal. Default: 88

    Raises:
        MissingPackageError: rich is not installed.
    """
    return rendered(
        lambda console: print_explanation(explanation, console, top=top),
        color=color,
        width=width,
    )


def rendered(draw: Callable[[Console], None], *, color: bool, width: int) -> str:
    """Return what a function prints on a rich console, as text.

    Raises:
        MissingPackageError: rich is not installed.
    """
    require("rich")
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=color,
        no_color=not color,
        color_system="truecolor" if color else None,
        legacy_windows=False,
    )
    draw(console)
    return buffer.getvalue().rstrip("\n")


def print_explanation(
    explanation: Explanation, console: Console, *, top: int = 10
) -> None:
    """Print an explanation on a rich console.

    Args:
        explanation (Explanation): What to print.
        console (Console): Where; it knows its colours and its width.
        top (int, optional): How many words or patches to list. Default: 10
    """
    from rich.text import Text

    console.print(Text(explanation.question, style="bold"), end="\n\n")
    if explanation.kind == "text":
        console.print(text_of(cast("TextExplanation", explanation)), end="\n\n")
    rows = explanation.top_parts(top)
    title = f"{explanation.top_title} ({len(rows)})"
    if console.color_system is not None:
        console.print(_legend(explanation), end="\n\n")
    if rows:
        console.print(Text(title, style="italic"))
        console.print(_table(explanation, rows))
        console.print()
    for name, value in explanation.facts:
        console.print(Text.assemble((f"{name:<17}", "dim"), value))
    for note in (explanation.summary, *explanation.notes):
        console.print(Text(note, style="dim italic"))


def text_of(explanation: TextExplanation) -> Text:
    """Return the text with each token on the colour of its score."""
    from rich.text import Text

    limit = explanation.limit
    text = Text()
    for piece, score in zip(explanation.pieces, explanation.scores, strict=True):
        if piece.space_before:
            text.append(" ")
        text.append(piece.label, style=_style(score / limit))
    return text


def _style(share: float) -> str:
    """Return ink and background for a share of the limit; near zero has neither."""
    if abs(share) < 0.02:
        return ""
    return f"{LIGHT.ink} on {LIGHT.hex(share)}"


def _legend(explanation: Explanation) -> RenderableType:
    """Return the colour bar with its ends."""
    from rich.text import Text

    low, high = explanation.scale_ends
    bar = Text(f"{low} ")
    for share in np.linspace(explanation.scale_start, 1, 25):
        bar.append(" ", style=f"on {LIGHT.hex(float(share))}")
    return bar.append(f" {high}")


def _table(explanation: Explanation, rows: list[tuple[str, float]]) -> Table:
    """Return names, bars from zero to either side that there is, and numbers."""
    from rich.table import Table
    from rich.text import Text

    limit = scale_limit([score for _, score in rows])
    write = explanation.number_format(limit)
    left_room = _BAR if explanation.signed else 0
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("name", overflow="fold", max_width=32)
    table.add_column("bar", no_wrap=True)
    table.add_column(explanation.quantity, justify="right", no_wrap=True)
    for name, score in rows:
        length = round(_BAR * abs(score) / limit)
        left, right = (length, 0) if score < 0 else (0, length)
        bar = Text.assemble(
            " " * (left_room - left),
            ("█" * left, LIGHT.negative),
            ("│", "dim"),
            ("█" * right, LIGHT.positive),
            " " * (_BAR - right),
        )
        table.add_row(Text(name), bar, write(score))
    return table


def print_texts(picture: TextPicture, console: Console) -> None:
    """Print texts on a rich console, each word on the colour of its score."""
    from rich.text import Text

    if picture.title:
        console.print(Text(picture.title, style="bold"), end="\n\n")
    for text in picture.texts:
        scale = text.scale
        if text.name:
            console.print(Text(text.name, style="italic"))
        line = Text()
        for word in text.words:
            share = word.score / scale.limit
            if word.space_before:
                line.append(" ")
            style = ""
            if abs(share) >= 0.02:
                style = f"{LIGHT.ink} on {LIGHT.hex(share)}"
            line.append(word.label, style=style)
        console.print(line, end="\n\n")
        if text is picture.texts[-1] or not picture.shared:
            console.print(scale_bar(scale), end="\n\n")
    for note in picture.notes:
        console.print(Text(note, style="dim italic"))


def scale_bar(scale: ColorScale) -> Text:
    """Return the colour bar of a scale with its ends and its unit."""
    from rich.text import Text

    low, high = scale.ends
    bar = Text(f"{low} ")
    for share in np.linspace(scale.start, 1, 25):
        ground = _LIGHT.ground(float(share), signed=scale.diverging)
        bar.append(" ", style=f"on {ground}")
    return bar.append(f" {high}   {scale.unit}")
