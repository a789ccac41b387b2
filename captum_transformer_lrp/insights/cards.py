"""One example as HTML: what is predicted, what is true, and the map.

Everything that comes from outside is escaped by Jinja2, as in all our HTML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..explanation import Explanation, ImageExplanation, TextExplanation
from ..models.prediction import ClassScore, percent
from ..report.image import data_uri, enlarge, overlay
from ..visualization.html import render_cards, text_parts
from .predictions import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

_LONGEST_SIDE = 384  # of a picture without a map, in pixels


def render_example(
    title: str,
    prediction: Prediction | None,
    *,
    value: str | Image | None = None,
    explanation: Explanation | None = None,
    failure: str = "",
    given_label: str | int | None = None,
    classes: int = 3,
) -> str:
    """Return one example as a piece of HTML with its own style.

    Args:
        title (str): What it is called.
        prediction (Prediction, optional): What the model says; None if not yet known.
        value (str or PIL.Image.Image, optional): The example itself, shown where there
            is no explanation. Default: None
        explanation (Explanation, optional): The map. Default: None
        failure (str): Why there is no map. Default: ``""``
        given_label (str or int, optional): The label in the data, shown where it is no
            class of the model. Default: None
        classes (int, optional): How many of the likeliest classes are listed; 0 lists
            none. Default: 3

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    card: dict[str, Any] = {
        "template": "example.html",
        "title": title,
        "verdict": "",
        "answer": "",
        "failure": failure,
        "tokens": [],
        "plain": "",
        "picture": "",
        "heat": "",
        "legend": "",
        "classes": [],
    }
    if prediction is not None:
        card |= _said(prediction, given_label, classes)
    if explanation is not None:
        low, high = explanation.scale_ends
        card |= {
            "low": low,
            "high": high,
            "signed": explanation.signed,
            "legend": f"Colour scale: from {low}, blue or neutral, to {high}, orange",
        }
        card |= (
            text_parts(explanation)
            if isinstance(explanation, TextExplanation)
            else _picture_map(explanation)
        )
    elif isinstance(value, str):
        card["plain"] = value
    elif value is not None:
        small = value.copy()
        small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
        card |= {"picture": data_uri(small), "picture_alt": "The picture as it is"}
    return render_cards([card])


def _said(
    prediction: Prediction, given_label: str | int | None, classes: int
) -> dict[str, Any]:
    best, label = prediction.best, prediction.label
    if best is None:
        return {"failure": prediction.failure, "answer": "There is no prediction."}
    true = ""
    if label is not None:
        true = f" The true class is {label}." if label.index != best.index else ""
    elif given_label is not None:
        true = f" The label in the data, “{given_label}”, is no class of the model."
    right = " That is right." if prediction.right else ""
    rows = list(prediction.top[:classes])
    if classes and label is not None and label.index not in {c.index for c in rows}:
        rows.append(label)
    known = [c for c in rows if c.probability is not None]
    return {
        "verdict": {True: "correct", False: "wrong", None: ""}[prediction.right],
        "answer": f"The model predicts {best}.{right}{true}",
        "classes_title": "Probabilities",
        "classes": [_class_row(c, label) for c in known] if len(known) > 1 else [],
    }


def _class_row(score: ClassScore, label: ClassScore | None) -> dict[str, Any]:
    assert score.probability is not None
    return {
        "name": score.name,
        "mark": "true" if label is not None and label.index == score.index else "",
        "share": round(100 * score.probability, 2),
        "value": percent(score.probability),
    }


def _picture_map(explanation: Explanation) -> dict[str, Any]:
    assert isinstance(explanation, ImageExplanation)
    large = enlarge(explanation.image)
    ((place, score),) = explanation.top_parts(1)
    write = explanation.number_format(explanation.limit)
    return {
        "picture": data_uri(large),
        "picture_alt": "The picture as the model saw it",
        "heat": data_uri(overlay(large, explanation.cells)),
        "heat_alt": f"The same picture in grey with the {explanation.quantity} of each "
        f"{explanation.unit}; strongest at {place}, {write(score)}",
    }
