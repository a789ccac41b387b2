"""One example as HTML: what is predicted, what is true, and the map.

Everything that comes from outside is escaped by Jinja2, as in all our HTML.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..explanation import Explanation
from ..models.prediction import ClassScore, percent
from ..report.blocks import (
    Bars,
    Block,
    Card,
    ColorScale,
    Heading,
    Heat,
    Legend,
    Paragraph,
    Pictures,
)
from ..report.html import to_fragment
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
    verdict, said = "", ""
    if prediction is not None:
        verdict = {True: "correct", False: "wrong", None: ""}[prediction.right]
        said = _said(prediction, given_label)
        if prediction.best is None:
            failure = prediction.failure
    blocks: list[Block] = [
        Heading(text=title, badge=verdict),
        Paragraph(text=said, kind="answer"),
    ]
    if failure:
        blocks.append(Paragraph(text=failure))
    if explanation is not None:
        blocks += [*explanation.map(), Legend(scale=explanation.scale)]
    elif value is not None:
        blocks.append(_as_it_is(value))
    if prediction is not None and prediction.best is not None and classes:
        blocks += _classes(prediction, classes)
    return to_fragment([Card(blocks=tuple(blocks), compact=True)])


def _said(prediction: Prediction, given_label: str | int | None) -> str:
    best, label = prediction.best, prediction.label
    if best is None:
        return "There is no prediction."
    right = " That is right." if prediction.right else ""
    true = ""
    if label is not None:
        true = f" The true class is {label}." if label.index != best.index else ""
    elif given_label is not None:
        true = f" The label in the data, “{given_label}”, is no class of the model."
    return f"The model predicts {best}.{right}{true}"


def _as_it_is(value: str | Image) -> Block:
    if isinstance(value, str):
        return Paragraph(text=value, kind="input")
    small = value.copy()
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return Pictures(pictures=(Heat(image=small, alt="The picture as it is"),))


def _classes(prediction: Prediction, count: int) -> Iterator[Block]:
    """Yield the likeliest classes and the true one, if there are several."""
    label = prediction.label
    rows = list(prediction.top[:count])
    if label is not None and label.index not in {c.index for c in rows}:
        rows.append(label)
    known = [(c, c.probability) for c in rows if c.probability is not None]
    if len(known) > 1:
        yield Bars(
            title="Probabilities",
            rows=tuple((c.name, p) for c, p in known),
            scale=ColorScale(limit=1.0, signed=False),
            numbers=tuple(percent(p) for _, p in known),
            marks=tuple(_mark(c, label) for c, _ in known),
        )


def _mark(score: ClassScore, label: ClassScore | None) -> str:
    return "true" if label is not None and label.index == score.index else ""
