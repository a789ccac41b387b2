"""What masks keep, as HTML: real tables whose cells are coloured, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...report.colors import KEPT_DARK, KEPT_LIGHT
from ..html import render_cards, render_page
from .figure import LINES
from .terminal import brief

if TYPE_CHECKING:
    from .groups import KeptTable
    from .maps import KeptMap

_COLUMNS = 40  # tokens side by side, as many as the page is wide
_WIDTH, _HEIGHT = 640, 240  # of the chart, without its margins


def render_maps(
    maps: Sequence[KeptMap],
    *,
    table: KeptTable | None = None,
    title: str | None = None,
    lead: str | None = None,
) -> str:
    """Return a self-contained page with maps, one below the other, and then a table.

    Args:
        maps (sequence of KeptMap): What to show, in this order.
        table (KeptTable, optional): Means over groups of tokens. Default: None
        title (str, optional): Heading of the page. Default: what the only map or the
            table shows, else ``"What the predictions need, layer by layer"``
        lead (str, optional): A paragraph below the heading. Default: None

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    only = "What the predictions need, layer by layer"
    alone = len(maps) + (table is not None) == 1
    if alone:
        only = maps[0].question if maps else table.title if table else only
    return render_page(
        _cards(maps, table),
        title=title or only,
        heading=title or (None if alone else only),
        lead=lead,
    )


def render_fragment(maps: Sequence[KeptMap], table: KeptTable | None = None) -> str:
    """Return maps and a table as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return render_cards(_cards(maps, table))


def _cards(maps: Sequence[KeptMap], table: KeptTable | None) -> list[dict[str, Any]]:
    cards = [_map_card(one) for one in maps]
    return cards if table is None else [*cards, _table_card(table)]


def _cell(probability: float) -> dict[str, str]:
    """Return the number of a cell, short and exact, and its colours."""
    return {
        "short": brief(probability),
        "exact": f"{probability:.4f}",
        "light": KEPT_LIGHT.hex(probability),
        "dark": KEPT_DARK.hex(probability),
        "light_ink": KEPT_LIGHT.ink(probability),
        "dark_ink": KEPT_DARK.ink(probability),
    }


def _legend() -> list[tuple[str, str]]:
    shares = np.linspace(0, 1, 9)
    return [(KEPT_LIGHT.hex(float(s)), KEPT_DARK.hex(float(s))) for s in shares]


def _map_card(kept: KeptMap) -> dict[str, Any]:
    """Return what the template shows of one map."""
    tokens = [
        {"label": label, "special": piece.special, "fixed": not may_drop}
        for label, piece, may_drop in zip(
            kept.tokens, kept.pieces, kept.free.tolist(), strict=True
        )
    ]
    panels = []
    slices = list(kept.panels(_COLUMNS))
    for panel in slices:
        rows = [
            {
                "label": label,
                "place": place,
                "cells": [
                    _cell(float(p)) | {"fixed": token["fixed"]}
                    for p, token in zip(row[panel], tokens[panel], strict=True)
                ],
                "mean": brief(float(mean)),
            }
            for label, place, row, mean in zip(
                kept.names.labels,
                kept.states,
                kept.kept,
                kept.kept_fraction,
                strict=True,
            )
        ]
        caption = "Hidden states from the first, on top, to the last"
        if len(slices) > 1:
            caption += f", tokens {panel.start + 1} to {panel.stop} of {len(tokens)}"
        panels.append(
            {
                "tokens": tokens[panel],
                "rows": rows,
                "caption": caption,
                "last": panel.stop == len(tokens),
            }
        )
    return {
        "template": "states.html",
        "title": kept.question,
        "answer": kept.answer,
        "text": kept.text,
        "alt": _alt(kept),
        "panels": panels,
        "legend": _legend(),
        "facts": kept.facts,
        "summary": kept.summary,
        "fixed": not kept.free.all(),
        "notes": kept.notes,
    }


def _alt(kept: KeptMap) -> str:
    """Return the map in words: how much is kept, and what longest."""
    first, last = (f"{float(kept.kept_fraction[i]):.0%}" for i in (0, -1))
    own = np.where(kept.free & [not p.special for p in kept.pieces])[0]
    found = (
        f"Heat map of {len(kept.states)} hidden states, from the first to the last, "
        f"and {len(kept.pieces)} tokens. {first} of the tokens are kept at the first "
        f"state and {last} at the last."
    )
    if len(own):
        sums = kept.kept[:, own].sum(axis=0)
        order = own[np.argsort(-sums, kind="stable")[:3]]
        found += f" Kept longest: {', '.join(kept.tokens[i] for i in order)}."
    return found


def _table_card(table: KeptTable) -> dict[str, Any]:
    """Return what the template shows of means over groups of tokens."""
    rows = [
        {
            "label": label,
            "place": place,
            "cells": [_cell(float(p)) | {"fixed": False} for p in column],
        }
        for label, place, column in zip(
            table.names.labels, table.states, table.kept.T, strict=True
        )
    ]
    heads = [
        {"label": g, "count": f"{n:,}"}
        for g, n in zip(table.groups, table.counts, strict=True)
    ]
    step = _WIDTH / max(1, len(table.states) - 1)
    lines = [
        {
            "name": group,
            "color": LINES[number] if number < len(LINES) - 1 else "currentColor",
            "points": [
                (round(i * step, 1), round(_HEIGHT * (1 - float(p)), 1))
                for i, p in enumerate(row)
            ],
        }
        for number, (group, row) in enumerate(
            zip(table.groups, table.kept, strict=True)
        )
    ]
    return {
        "template": "states_table.html",
        "title": table.title,
        "scope": table.scope,
        "notes": table.notes,
        "alt": f"Line chart of the mean probability that a token is kept, for "
        f"{len(table.states)} hidden states and {len(table.groups)} groups; all "
        "numbers stand in the table below",
        "heads": heads,
        "rows": rows,
        "lines": lines if len(lines) <= len(LINES) else [],
        "ticks": [
            (round(i * step, 1), tick) for i, tick in enumerate(table.names.ticks)
        ],
        "levels": [(round(_HEIGHT * (1 - y), 1), f"{y:.1f}") for y in (0, 0.5, 1)],
        "width": _WIDTH,
        "height": _HEIGHT,
        "meaning": table.names.meaning,
        "legend": _legend(),
    }
