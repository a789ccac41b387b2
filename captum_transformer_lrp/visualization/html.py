"""Explanations as one self-contained HTML page: no network, no other files.

The page follows the reader's light or dark setting, and everything that colour says is
also there as a number. All text that comes from outside (the input, names of models,
classes and tokens) is escaped by Jinja2's autoescape.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..models.packages import require
from ..report.colors import (
    DARK,
    HEAT_NEGATIVE,
    HEAT_POSITIVE,
    KEPT_DARK,
    KEPT_LIGHT,
    LIGHT,
    THEMES,
    scale_limit,
    to_hex,
)
from ..report.image import MIDDLE_GREY, data_uri, enlarge, heat, overlay
from ..report.numbers import ScoreFormat
from ..report.words_on_page import is_right_to_left

if TYPE_CHECKING:
    from ..explanation import Explanation, ImageExplanation, TextExplanation

_TEMPLATES = Path(__file__).parent.parent / "report" / "templates"
_TOP = 10


def render_report(
    explanations: Sequence[Explanation],
    *,
    title: str | None = None,
    lead: str | None = None,
) -> str:
    """Return a page with all explanations, one below the other.

    Args:
        explanations (Sequence[Explanation]): What to show, in this order.
        title (str, optional): Heading of the page. Default: the question of the only
            explanation, else ``"Explanations"``
        lead (str, optional): A paragraph below the heading. Default: None

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    only = explanations[0].question if len(explanations) == 1 else "Explanations"
    return render_page(
        [_card(e) for e in explanations],
        title=title or only,
        heading=title or (None if len(explanations) == 1 else only),
        lead=lead,
    )


def render_fragment(explanation: Explanation) -> str:
    """Return one explanation as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    return render_cards([_card(explanation)])


def render_page(
    cards: Sequence[dict[str, Any]],
    *,
    title: str,
    heading: str | None,
    lead: str | None = None,
) -> str:
    """Return a page with cards, one below the other.

    Args:
        cards (Sequence[dict]): What a template shows of each; ``card["template"]`` is
            its file, by default that of explanations.
        title (str): Title of the page.
        heading (str, optional): What stands above the cards.
        lead (str, optional): A paragraph below the heading. Default: None

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    template = _environment().get_template("report.html")
    page: str = template.render(
        cards=cards, title=title, heading=heading, lead=lead, scales=_scales()
    )
    return page


def render_cards(cards: Sequence[dict[str, Any]]) -> str:
    """Return cards as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    template = _environment().get_template("fragment.html")
    found: str = template.render(cards=cards, scales=_scales())
    return found


def _environment() -> Any:
    jinja2 = require("jinja2")
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _scales() -> dict[str, Any]:
    """Return the colours that the style sheet needs, in light and in dark."""
    shares = {
        "signed": np.linspace(-1, 1, 13),
        "weight": np.linspace(0, 1, 7),
    }
    return {
        "light": LIGHT,
        "dark": DARK,
        "ends": (HEAT_NEGATIVE, HEAT_POSITIVE),
        "soft": tuple(theme.soft for theme in THEMES.values()),
        "line": tuple(theme.line for theme in THEMES.values()),
        "positive_line": tuple(theme.positive_line for theme in THEMES.values()),
        "negative_line": tuple(theme.negative_line for theme in THEMES.values()),
        "words": {
            name: [(LIGHT.hex(float(s)), DARK.hex(float(s))) for s in steps]
            for name, steps in shares.items()
        }
        | {
            "strong": [
                (KEPT_LIGHT.hex(float(s)), KEPT_DARK.hex(float(s)))
                for s in np.linspace(0, 1, 9)
            ]
        },
        "heat": {
            name: [to_hex(color) for color in heat(steps, MIDDLE_GREY)]
            for name, steps in shares.items()
        },
    }


def _card(explanation: Explanation) -> dict[str, Any]:
    """Return what the template shows of one explanation."""
    write = explanation.number_format(explanation.limit)
    low, high = explanation.scale_ends
    card = {
        "kind": explanation.kind,
        "question": explanation.question,
        "answer": explanation.answer,
        "facts": explanation.facts,
        "summary": explanation.summary,
        "notes": explanation.notes,
        "signed": explanation.signed,
        "quantity": explanation.quantity,
        "low": low,
        "high": high,
        "legend": _legend(explanation),
        "top": _bars(explanation, _TOP if explanation.kind == "text" else 5),
        "top_name": explanation.part.capitalize(),
        "top_title": explanation.top_title,
    }
    if explanation.kind == "text":
        return card | text_parts(cast("TextExplanation", explanation))
    return card | _image_parts(cast("ImageExplanation", explanation), write)


def _legend(explanation: Explanation) -> str:
    """Return the colour scale in words."""
    write = explanation.number_format(explanation.limit)
    limit = explanation.limit
    if not explanation.signed:
        name = explanation.quantity
        return f"Colour scale: from {name} 0, neutral, to {write(limit)}, orange"
    target = explanation.target.name
    return (
        f"Colour scale: from {write(-limit)}, against {target}, blue, over 0, neutral, "
        f"to {write(limit)}, for {target}, orange; in units of the logit"
    )


def text_parts(explanation: TextExplanation) -> dict[str, Any]:
    """Return what a template shows of a text: its tokens, and where it begins."""
    limit = explanation.limit
    write = explanation.number_format(limit)
    tokens = [
        {
            "label": piece.label,
            "piece": piece.token,
            "special": piece.special,
            "space": piece.space_before,
            "score": write(score),
            "light": LIGHT.hex(score / limit),
            "dark": DARK.hex(score / limit),
        }
        for piece, score in zip(explanation.pieces, explanation.scores, strict=True)
    ]
    clipped = bool((np.abs(explanation.scores) > limit).any())
    return {
        "tokens": tokens,
        "direction": "rtl" if is_right_to_left(explanation.text) else "ltr",
        "clipped": clipped,
    }


def _image_parts(explanation: ImageExplanation, write: ScoreFormat) -> dict[str, Any]:
    cells = explanation.cells
    width, height = explanation.image.size
    ((strongest, score),) = explanation.top_parts(1)
    large = enlarge(explanation.image)
    meaning = (
        f"orange {explanation.parts} speak for {explanation.target_name}, blue ones "
        "against it"
        if explanation.signed
        else f"the more orange a {explanation.unit}, the more weight it has"
    )
    return {
        "picture": data_uri(large),
        "picture_alt": f"The picture as the model saw it, {width} by {height} pixels",
        "heat": data_uri(overlay(large, cells)),
        "heat_alt": (
            f"The same picture in grey; {meaning}; strongest at {strongest}, "
            f"{write(score)}"
        ),
        "fine": data_uri(overlay(large, explanation.scores))
        if explanation.has_pixels
        else None,
        "fine_alt": f"The same picture in grey with the {explanation.quantity} of each "
        "pixel",
        "part": explanation.unit,
        "grid": [[write(score) for score in row] for row in cells],
        "columns": cells.shape[1],
    }


def _bars(explanation: Explanation, count: int) -> list[dict[str, Any]]:
    """Return names and numbers with bars in per cent of the width.

    Where scores have a sign, each side of zero has half the width.
    """
    rows = explanation.top_parts(count)
    limit = scale_limit([score for _, score in rows])
    write = explanation.number_format(limit)
    width = 50 if explanation.signed else 100
    return [
        {
            "name": name,
            "score": write(score),
            "share": round(width * abs(score) / limit, 2),
            "against": score < 0,
        }
        for name, score in rows
    ]
