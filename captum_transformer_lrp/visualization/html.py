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
from .colors import DARK, LIGHT, scale_limit, to_hex
from .image import MIDDLE_GREY, data_uri, enlarge, heat, overlay
from .numbers import ScoreFormat

if TYPE_CHECKING:
    from ..explanation import Explanation, ImageExplanation, TextExplanation

_TEMPLATES = Path(__file__).parent / "templates"
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
    page: str = (
        _environment()
        .get_template("report.html")
        .render(
            cards=[_card(e) for e in explanations],
            title=title or only,
            heading=title or (None if len(explanations) == 1 else only),
            lead=lead,
            scales=_scales(),
        )
    )
    return page


def render_fragment(explanation: Explanation) -> str:
    """Return one explanation as a piece of HTML with its own style, for notebooks.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    template = _environment().get_template("fragment.html")
    found: str = template.render(cards=[_card(explanation)], scales=_scales())
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
    shares = [float(s) for s in np.linspace(-1, 1, 13)]
    return {
        "light": LIGHT,
        "dark": DARK,
        "steps": [(LIGHT.hex(s), DARK.hex(s)) for s in shares],
        "heat": [to_hex(c) for c in heat(np.array(shares), MIDDLE_GREY)],
    }


def _card(explanation: Explanation) -> dict[str, Any]:
    """Return what the template shows of one explanation."""
    write = ScoreFormat(limit=explanation.limit)
    card = {
        "kind": explanation.kind,
        "question": explanation.question,
        "answer": explanation.answer,
        "facts": explanation.facts,
        "summary": explanation.summary,
        "notes": explanation.notes,
        "low": write(-explanation.limit),
        "high": write(explanation.limit),
        "target": explanation.target.name,
        "top": _bars(explanation.top_parts(_TOP if explanation.kind == "text" else 5)),
        "top_name": explanation.part.capitalize(),
        "top_title": f"{explanation.parts.capitalize()} that count most",
    }
    if explanation.kind == "text":
        return card | _text_parts(cast("TextExplanation", explanation), write)
    return card | _image_parts(cast("ImageExplanation", explanation), write)


def _text_parts(explanation: TextExplanation, write: ScoreFormat) -> dict[str, Any]:
    limit = explanation.limit
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
        "clipped": clipped,
    }


def _image_parts(explanation: ImageExplanation, write: ScoreFormat) -> dict[str, Any]:
    cells = explanation.cells
    height, width = explanation.scores.shape
    ((strongest, score),) = explanation.top_parts(1)
    large = enlarge(explanation.image)
    return {
        "picture": data_uri(large),
        "picture_alt": f"The picture as the model saw it, {width} by {height} pixels",
        "heat": data_uri(overlay(large, cells)),
        "heat_alt": (
            f"The same picture in grey; orange {explanation.parts} speak for "
            f"{explanation.target_name}, blue ones against it; strongest at "
            f"{strongest}, {write(score)}"
        ),
        "fine": data_uri(overlay(large, explanation.scores)),
        "fine_alt": "The same picture in grey with the relevance of each pixel",
        "part": explanation.unit,
        "grid": [[write(score) for score in row] for row in cells],
        "columns": cells.shape[1],
    }


def _bars(rows: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Return names and numbers with bars in per cent of half the width."""
    limit = scale_limit([score for _, score in rows])
    write = ScoreFormat(limit=limit)
    return [
        {
            "name": name,
            "score": write(score),
            "share": round(50 * abs(score) / limit, 2),
            "against": score < 0,
        }
        for name, score in rows
    ]
