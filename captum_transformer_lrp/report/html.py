"""Blocks as HTML: one self-contained page, or a piece of it for a notebook.

A page needs no network and no other files, and follows the reader's light or dark
setting; everything that colour says is also there as a number. All text that comes from
outside (the input, names of models, classes and tokens) is escaped by Jinja2. A piece
for a notebook brings its style along, which is stronger than the notebook's own. Where
a notebook takes it away (JupyterLab, of a file that is not trusted) what stands in
attributes stays: each word and cell has the colours of light, pictures and bars their
size, and what would be nonsense without style is ``hidden``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from .._packages import require
from . import blocks as b
from .colors import LINES, THEMES, to_hex
from .image import data_uri, enlarge, overlay, transparent

_TEMPLATES = Path(__file__).parent / "templates"
_LIGHT, _DARK = THEMES["light"], THEMES["dark"]

_STEPS = 13  # colours of a bar
_HOVER_CELLS = 1024  # with numbers under the mouse
_COLUMNS = 40  # of a grid, side by side
_TABLE_CELLS = 8000  # of a grid, beyond which it is pixels
_THINNED = 12  # labels on a small panel
_SMALL_PIXELS = 200  # cells along a side of a small panel; of more the largest is shown
_ROW, _ACROSS = 20, 320  # pixels, of lines between tokens
_WIDTH, _HEIGHT = 640, 240  # of a chart, without its margins


def to_page(
    cards: Sequence[b.Card],
    *,
    title: str,
    heading: str | None = None,
    lead: str | None = None,
) -> str:
    """Return a page with cards, one below the other.

    Args:
        cards (sequence of Card): What it shows.
        title (str): Title of the page.
        heading (str, optional): What stands above the cards. Default: None
        lead (str, optional): A paragraph below the heading. Default: None

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    environment = _environment()
    page: str = environment.get_template("report.html").render(
        items=[_card(card) for card in cards],
        title=title,
        heading=heading,
        lead=lead,
        style=_style(environment, "style.css"),
    )
    return page


def to_fragment(cards: Sequence[b.Card]) -> str:
    """Return cards as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    environment = _environment(inline=True)
    # The attribute, twice: stronger than a notebook's own rules for its output, and not
    # for a piece whose data-s a notebook took away with the rest of the style.
    style = _style(environment, "style.css", "notebook.css").replace(
        ".xlrp", ".xlrp[data-s][data-s]"
    )
    found: str = environment.get_template("fragment.html").render(
        items=[_card(card) for card in cards], style=style
    )
    return found


def _environment(*, inline: bool = False) -> Any:
    """Return what renders templates.

    Args:
        inline (bool, optional): Whether each word and cell has its colours of light by
            itself, and what needs the style sheet is hidden, for where style sheets
            are taken away. Default: False
    """
    return _compiling(require("jinja2"), inline)


@cache
def _compiling(jinja2: Any, inline: bool) -> Any:
    """Return the one environment of a kind, which compiles each template once."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["inline"] = inline
    return environment


def _style(environment: Any, *sheets: str) -> Any:
    """Return style sheets, marked as safe: nothing in them comes from outside."""
    style = "\n".join(
        environment.get_template(sheet).render(light=_LIGHT, dark=_DARK)
        for sheet in sheets
    )
    return require("jinja2").utils.markupsafe.Markup(style)


def _card(card: b.Card) -> dict[str, Any]:
    blocks = list(card.blocks)
    found: dict[str, Any] = {"folded": card.folded, "alt": card.alt}
    if card.folded:
        first = next(x for x in blocks if isinstance(x, b.Heading))
        found |= {"summary": first.text, "badge": first.badge}
        blocks.remove(first)
    return found | {"blocks": _all(blocks), "compact": card.compact}


def _all(blocks: Sequence[b.Block]) -> list[dict[str, Any]]:
    return [
        {"block": type(block).__name__, **_VIEWS[type(block)](block)}
        for block in blocks
    ]


def _colors(share: float, scale: b.ColorScale) -> tuple[str, ...]:
    """Return the ground of a score in light and in dark, and the ink on each."""
    signed = scale.diverging
    return (
        *(theme.ground(share, signed=signed) for theme in (_LIGHT, _DARK)),
        *(theme.ink_on(share, signed=signed) for theme in (_LIGHT, _DARK)),
    )


# ------------------------------------------------------------------------------- views


def _heading(block: b.Heading) -> dict[str, Any]:
    return {"text": block.text, "level": block.level, "badge": block.badge}


def _paragraph(block: b.Paragraph) -> dict[str, Any]:
    return {"text": block.text, "kind": block.kind}


def _facts(block: b.Facts) -> dict[str, Any]:
    return {"pairs": block.pairs}


def _words(block: b.Words) -> dict[str, Any]:
    return {
        "words": _labels(block.words, block.scale),
        "direction": "rtl" if block.right_to_left else "ltr",
    }


def _labels(words: Sequence[b.Word], scale: b.ColorScale) -> list[dict[str, Any]]:
    return [
        {
            "label": word.text,
            "special": word.special,
            "space": word.space_before,
            "score": scale.write(word.score),
            "colors": _colors(word.score / scale.limit, scale),
        }
        for word in words
    ]


def _legend(block: b.Legend) -> dict[str, Any]:
    scale = block.scale
    low, high = scale.ends
    light, dark = (
        [to_hex(color) for color in scale.colors(theme, _STEPS)]
        for theme in (_LIGHT, _DARK)
    )
    both = zip(light, dark, strict=True)
    steps = [x if x == y else f"light-dark({x},{y})" for x, y in both]
    return {
        "low": low,
        "high": high,
        "unit": scale.unit,
        "words": scale.words,
        "steps": ",".join(steps),
        "few": light[::2],
    }


def _pictures(block: b.Pictures) -> dict[str, Any]:
    return {
        "size": block.size,
        "across": block.across,
        "pictures": [_picture(one) for one in block.pictures],
    }


def _picture(one: b.Heat) -> dict[str, Any]:
    numbers: list[str] = []
    columns = 1
    named = one.style != "smooth" and one.scores is not None
    if named and one.scores is not None and one.scores.size <= _HOVER_CELLS:
        assert one.scale is not None
        numbers = [one.scale.write(float(score)) for score in one.scores.ravel()]
        columns = one.scores.shape[1]
    return {
        "source": data_uri(_pixels(one)),
        "alt": one.alt or one.caption,
        "caption": one.caption,
        "under": one.under,
        "ratio": round(one.image.width / one.image.height, 4),
        "smooth": one.style in ("contours", "smooth"),
        "numbers": numbers,
        "columns": columns,
    }


def _pixels(one: b.Heat) -> Any:
    """Return what is seen of a picture, as one of PIL's."""
    if one.scores is None:
        return enlarge(one.image.convert("RGB"))
    if one.style == "heat":
        return enlarge(transparent(one.shares))
    if one.style == "contours":
        from .figure import contoured

        return contoured(one)
    assert one.scale is not None
    large, smooth = enlarge(one.image), one.style == "smooth"
    return overlay(large, one.scores, limit=one.scale.limit, smooth=smooth)


def _grid(block: b.Grid) -> dict[str, Any]:
    several = len(block.panels) > 1
    cells = sum(panel.values.size for panel in block.panels)
    tables = cells <= _TABLE_CELLS and not several
    return {
        "rows": block.rows.name,
        "columns": block.columns.name,
        "small": several,
        "runs": list(_runs(block)) if tables else [],
        "matrices": []
        if tables
        else [_matrix(block, panel, thin=several) for panel in block.panels],
    }


def _runs(block: b.Grid) -> Iterator[dict[str, Any]]:
    """Yield the tables of a grid, each of as many columns as a page is wide."""
    (panel,) = block.panels
    rows, columns, scale = block.rows, block.columns, block.scale
    runs = list(columns.runs(_COLUMNS))
    fixed = block.fixed or (False,) * len(columns)
    for run in runs:
        caption = f"Rows: {rows.name}; columns: {columns.name}"
        if len(runs) > 1:
            caption += f", {run.start + 1} to {run.stop} of {len(columns)}"
        last = block.means is not None and run.stop == len(columns)
        yield {
            "caption": caption,
            "heads": [
                {"label": columns.labels[i], "special": columns.is_special(i)}
                for i in range(run.start, run.stop)
            ],
            "rows": [
                {
                    "label": label,
                    "special": rows.is_special(number),
                    "hint": rows.hints[number] if rows.hints else "",
                    "cells": [
                        _cell(float(values[i]), scale, fixed[i])
                        for i in range(run.start, run.stop)
                    ],
                }
                for number, (label, values) in enumerate(
                    zip(rows.labels, panel.values, strict=True)
                )
            ],
            "means": [scale.brief(float(mean)) for mean in block.means]
            if last and block.means is not None
            else [],
        }


def _cell(value: float, scale: b.ColorScale, fixed: bool) -> dict[str, Any]:
    return {
        "short": scale.brief(value),
        "exact": scale.exact(value),
        "colors": _colors(value / scale.limit, scale),
        "fixed": fixed,
    }


def _matrix(block: b.Grid, panel: b.Panel, *, thin: bool) -> dict[str, Any]:
    shares = panel.values / block.scale.limit
    if thin:
        shares = b.pool_largest(shares, (_SMALL_PIXELS, _SMALL_PIXELS))
    most = _THINNED if thin else None
    return {
        "name": panel.name,
        "picture": data_uri(enlarge(transparent(shares))),
        "row_labels": list(_spread(block.rows, most)),
        "column_labels": list(_spread(block.columns, most)),
        "width": len(block.columns),
        "height": len(block.rows),
    }


def _spread(axis: b.Axis, most: int | None) -> Iterator[dict[str, Any]]:
    """Yield labels and where they stand, in per cent; at most ``most`` of them."""
    step = 1 if most is None else -(-len(axis) // most)
    for i in range(0, len(axis), step):
        yield {
            "label": axis.labels[i],
            "special": axis.is_special(i),
            "place": round(100 * (i + 0.5) / len(axis), 3),
        }


def _pairs(block: b.Pairs) -> dict[str, Any]:
    left, right, scale = block.left, block.right, block.scale
    return {
        "left": _tokens(left),
        "right": _tokens(right),
        "left_name": left.name,
        "right_name": right.name,
        "lines": [
            {
                "start": (start + 0.5) * _ROW,
                "end": (end + 0.5) * _ROW,
                "share": round(abs(share), 3),
                "width": round(0.8 + 2.6 * abs(share), 2),
                "against": share < 0,
                "name": f"{left.labels[start]} → {right.labels[end]}: "
                f"{scale.write(share * scale.limit)}",
            }
            for start, end, share in block.lines
        ],
        "height": max(len(left), len(right)) * _ROW,
        "row": _ROW,
        "across": _ACROSS,
        "unit": f"{scale.write(scale.limit)} {scale.unit}",
    }


def _tokens(axis: b.Axis) -> list[dict[str, Any]]:
    return [
        {"label": label, "special": axis.is_special(i)}
        for i, label in enumerate(axis.labels)
    ]


def _chart(block: b.Chart) -> dict[str, Any]:
    """Return lines and levels; of more lines than colours, none."""
    step = _WIDTH / max(1, len(block.steps) - 1)
    lines = [
        {
            "name": name,
            "color": LINES[number] if number < len(LINES) - 1 else "currentColor",
            "points": [
                (round(i * step, 1), round(_HEIGHT * (1 - float(value)), 1))
                for i, value in enumerate(values)
            ],
        }
        for number, (name, values) in enumerate(
            zip(block.names, block.values, strict=True)
        )
    ]
    ticks = block.steps.ticks or block.steps.labels
    return {
        "lines": lines if len(lines) <= len(LINES) else [],
        "ticks": [(round(i * step, 1), tick) for i, tick in enumerate(ticks)],
        "levels": [(round(_HEIGHT * (1 - y), 1), f"{y:.1f}") for y in (0, 0.5, 1)],
        "width": _WIDTH,
        "height": _HEIGHT,
        "alt": block.alt,
    }


def _table(block: b.Table) -> dict[str, Any]:
    return {
        "title": block.title,
        "heads": block.heads,
        "texts": block.texts,
        "folded": block.folded,
        "shaded": any(
            isinstance(cell, b.Cell) and cell.share is not None
            for row in block.rows
            for cell in row
        ),
        "rows": [
            [_table_cell(cell, block.scale) for cell in row] for row in block.rows
        ],
    }


def _table_cell(cell: str | b.Cell, scale: b.ColorScale) -> dict[str, Any]:
    if isinstance(cell, str):
        return {"text": cell, "small": "", "colors": ()}
    colors = () if cell.share is None else _colors(cell.share, scale)
    return {"text": cell.text, "small": cell.small, "colors": colors}


def _bars(block: b.Bars) -> dict[str, Any]:
    """Return names and numbers with bars in per cent of the width.

    Where scores have a sign, each side of zero has half the width.
    """
    scale = block.scale
    width = 50 if scale.signed else 100
    marks = block.marks or ("",) * len(block.rows)
    return {
        "title": block.title,
        "head": block.head,
        "unit": scale.unit,
        "signed": scale.signed,
        "rows": [
            {
                "name": name,
                "mark": mark,
                "score": written,
                "share": round(width * min(1.0, abs(score) / scale.limit), 2),
                "start": _start(score, scale, width),
                "color": _LIGHT.scale.hex(-1 if score < 0 else 1),
                "against": score < 0,
            }
            for (name, score), written, mark in zip(
                block.rows, block.written, marks, strict=True
            )
        ],
    }


def _start(score: float, scale: b.ColorScale, width: int) -> float:
    """Return where a bar starts, in per cent of the width."""
    share = min(1.0, max(-1.0, score / scale.limit))
    return round(width * (1 + min(0.0, share)), 2) if scale.signed else 0.0


def _pages(block: b.Pages) -> dict[str, Any]:
    return {
        "id": f"x{uuid4().hex[:12]}",
        "hint": block.hint,
        "words": _labels(block.labels, block.scale),
        "pages": [_all(page) for page in block.pages],
    }


_VIEWS: dict[type, Callable[[Any], dict[str, Any]]] = {
    b.Heading: _heading,
    b.Paragraph: _paragraph,
    b.Facts: _facts,
    b.Words: _words,
    b.Legend: _legend,
    b.Pictures: _pictures,
    b.Grid: _grid,
    b.Pairs: _pairs,
    b.Chart: _chart,
    b.Table: _table,
    b.Bars: _bars,
    b.Pages: _pages,
}
