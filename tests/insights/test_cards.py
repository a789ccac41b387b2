"""A card shows the verdict, the probabilities and the true class, without panel."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from captum_transformer_lrp.insights.cards import render_example
from captum_transformer_lrp.insights.predictions import Prediction
from captum_transformer_lrp.models.prediction import ClassScore
from tests.report.reading import ATTACK, Reader
from tests.visualization.samples import text_explanation

pytest.importorskip("jinja2")

CLASSES = tuple(
    ClassScore(index=i, name=f"class {i}", logit=3.0 - i, probability=p)
    for i, p in enumerate((0.6, 0.2, 0.15, 0.04, 0.01))
)


def rows_of(page):
    """Return names, marks, numbers and lengths of the bars."""
    body = page.split("Probabilities")[1]
    return re.findall(
        r"<bdi>([^<]+)</bdi>(?:<small> ([^<]+)</small>)?.*?width:([\d.]+)%.*?"
        r'class="num">([^<]+)<',
        body,
    )


@pytest.mark.parametrize(
    ("label", "right", "verdict", "said"),
    [
        (0, True, "correct", "The model predicts class 0 (60.0 %). That is right."),
        (4, False, "wrong", "predicts class 0 (60.0 %). The true class is class 4 ("),
        (None, None, "", "The model predicts class 0 (60.0 %)."),
    ],
)
def test_verdict_probabilities_and_the_true_class(label, right, verdict, said):
    true = None if label is None else CLASSES[label]
    prediction = Prediction(top=CLASSES, label=true, right=right)
    html = render_example("Example 7", prediction, value="A film.")
    page = Reader(html)
    assert "Example 7" in page.written and said in page.written
    badges = [a["class"] for a in page.named("span") if "badge" in a.get("class", "")]
    assert badges == ([f"badge {verdict}"] if verdict else [])
    expected = [("class 0", "60.0 %"), ("class 1", "20.0 %"), ("class 2", "15.0 %")]
    if label == 4:  # listed although it is not among the likeliest
        expected.append(("class 4", "1.0 %"))
    rows = rows_of(html)
    assert [(name, number) for name, _, _, number in rows] == expected
    marked = [name for name, mark, _, _ in rows if mark]
    assert marked == ([] if label is None else [f"class {label}"])
    assert {mark for _, mark, _, _ in rows} <= {"", "true"}
    assert [float(w) for _, _, w, _ in rows][:3] == [60.0, 20.0, 15.0]
    (article,) = page.named("article")
    assert article["class"] == "compact"
    assert "A film." in page.written


def test_what_stands_where_there_is_no_prediction_or_no_class():
    waiting = Reader(render_example("Example 1", None, value="A film."))
    assert "A film." in waiting.written and "Probabilities" not in waiting.written
    failed = Prediction(top=(), failure="too long")
    written = Reader(render_example("Example 1", failed, value="A film.")).written
    assert "There is no prediction." in written and "too long" in written
    found = Prediction(top=CLASSES)
    html = render_example("Example 1", found, value="A film.", given_label="mediocre")
    assert "The label in the data, “mediocre”, is no class" in Reader(html).written
    one = render_example("Example 1", found, value="A film.", classes=0)
    assert "Probabilities" not in one


def test_an_explanation_stands_in_the_place_of_the_text():
    explanation = text_explanation()
    found = Prediction(top=CLASSES)
    page = Reader(render_example("1", found, value="given", explanation=explanation))
    numbers = [explanation.scale.write(word.score) for word in explanation.words]
    assert page.hovered() == numbers and "given" not in page.written
    (legend,) = page.named("div", role="img")
    assert legend["aria-label"] == explanation.scale.words


def test_pictures_are_small_and_described():
    large = Image.new("RGB", (2000, 1000), "teal")
    page = Reader(render_example("1", None, value=large))
    (image,) = page.named("img")
    assert image["alt"] == "The picture as it is"
    assert image["src"].startswith("data:image/png;base64,")
    assert large.size == (2000, 1000)  # the example itself stays as it is


def test_nothing_from_outside_becomes_markup():
    evil = ClassScore(index=0, name=ATTACK, logit=1.0, probability=0.7)
    other = ClassScore(index=1, name="b", logit=0.0, probability=0.3)
    found = Prediction(top=(evil, other), label=other, right=False)
    html = render_example(ATTACK, found, value=ATTACK, failure=ATTACK)
    page = Reader(html)
    assert not page.named("script") and not page.named("img")
    assert page.written.count(ATTACK) == 5
