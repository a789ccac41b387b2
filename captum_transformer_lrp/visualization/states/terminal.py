"""What masks keep of a text, as text for a terminal, with or without colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ...report.colors import KEPT_LIGHT
from ..terminal import rendered

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from .maps import KeptMap

_CELL = 5  # columns of the terminal for one state
_LABEL = 20  # at most, for the tokens


def brief(probability: float) -> str:
    """Return a probability in three characters: ``.07``, and ``1.0`` from .995 on."""
    return "1.0" if probability >= 0.995 else f"{probability:.2f}"[1:]


def render_text(kept: KeptMap, *, color: bool = False, width: int = 88) -> str:
    """Return a map as text.

    Args:
        kept (KeptMap): What to render.
        color (bool, optional): Whether to write ANSI colour codes. Default: False
        width (int, optional): Columns of the terminal. Default: 88

    Raises:
        MissingPackageError: rich is not installed.
    """
    return rendered(lambda console: print_map(kept, console), color=color, width=width)


def print_map(kept: KeptMap, console: Console) -> None:
    """Print a map on a rich console: tokens down, hidden states from left to right.

    Other than in a picture, since a terminal is narrow and texts are long. Where there
    are more states than fit, the rest follows below.

    Args:
        kept (KeptMap): What to print.
        console (Console): Where; it knows its colours and its width.
    """
    from rich.text import Text

    console.print(Text(kept.question, style="bold"))
    console.print(Text(kept.answer), end="\n\n")
    for line in _table(kept, console.width):
        console.print(line, no_wrap=True, overflow="crop", crop=True)
    console.print()
    if console.color_system is not None:
        console.print(_legend(), end="\n\n")
    names = kept.names
    facts = list(kept.facts)
    if names.meaning:
        facts.insert(1, ("Columns", names.meaning))
    else:
        ticks = zip(names.ticks, names.labels, strict=True)
        facts.insert(1, ("Columns", "; ".join(f"{t}: {label}" for t, label in ticks)))
    for name, value in facts:
        console.print(Text.assemble((f"{name:<12}", "dim"), value))
    for note in (kept.summary, *kept.notes):
        console.print(Text(note, style="dim italic"))


def _table(kept: KeptMap, width: int) -> Iterator[Text]:
    """Yield the lines of the heat map, in blocks of as many states as fit."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    tokens = kept.tokens
    longest = max(map(cell_len, tokens))
    label = min(longest, _LABEL, max(4, width - _CELL - 1))
    at_once = max(1, (width - label - 1) // _CELL)
    count = len(kept.states)
    for start in range(0, count, at_once):
        states = range(start, min(start + at_once, count))
        if start:
            yield Text()
        head = "".join(kept.names.ticks[i][:_CELL].center(_CELL) for i in states)
        yield Text(" " * (label + 1) + head.rstrip(), style="dim")
        for column, token in enumerate(tokens):
            line = Text(set_cell_size(_fitted(token, label), label + 1))
            if kept.pieces[column].special:
                line.stylize("dim")
            for i in states:
                p = float(kept.kept[i, column])
                line.append(brief(p).center(_CELL), style=_style(p))
            yield line
        line = Text(set_cell_size("mean"[:label], label + 1), style="italic")
        for i in states:
            line.append(brief(float(kept.kept_fraction[i])).center(_CELL))
        yield line


def _fitted(token: str, room: int) -> str:
    """Return a token in at most ``room`` columns, its end cut off."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(token) <= room:
        return token
    return set_cell_size(token, room - 1).rstrip() + "…"


def _style(probability: float) -> str:
    return f"{KEPT_LIGHT.ink(probability)} on {KEPT_LIGHT.hex(probability)}"


def _legend() -> Text:
    """Return the colour bar with its ends and its unit."""
    from rich.text import Text

    bar = Text("dropped 0 ")
    for share in np.linspace(0, 1, 25):
        bar.append(" ", style=f"on {KEPT_LIGHT.hex(float(share))}")
    return bar.append(" 1 kept   probability that the token is kept")


def plain_rows(kept: KeptMap) -> list[str]:
    """Return the numbers as lines, one for each token, without any package."""
    ticks = [tick[:4].rjust(4) for tick in kept.names.ticks]
    rows = [" ".join([*ticks, " token"])]
    for token, column in zip(kept.tokens, kept.kept.T, strict=True):
        cells = [brief(float(p)).rjust(4) for p in column]
        rows.append(" ".join([*cells, f" {token}"]))
    return rows
