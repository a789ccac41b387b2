"""The report is safe, complete, self-contained and readable without colour."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest
from captum_transformer_lrp.visualization.html import render_fragment, render_report

from captum_transformer_lrp.models.prediction import ClassScore
from tests.visualization.samples import (
    BAD,
    image_explanation,
    image_weights,
    text_explanation,
    text_weights,
)

pytest.importorskip("jinja2")
ATTACK = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that tags are closed."""

    def __init__(self, page):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def named(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]


def test_nothing_from_outside_becomes_markup():
    evil = ClassScore(index=1, name=ATTACK, logit=1.0, probability=0.5)
    explanation = text_explanation(
        ATTACK, model=ATTACK, method=ATTACK, target=evil, notes=(ATTACK,)
    )
    picture = image_explanation(target=evil, model=ATTACK)
    page = Reader(render_report([explanation, picture], title=ATTACK, lead=ATTACK))
    assert len(page.named("script")) == 1  # the page's own
    assert len(page.named("img")) == 3
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert ATTACK in "".join(page.text)


def test_every_token_has_its_number_as_hover_and_in_the_table():
    explanation = text_explanation()
    page = Reader(render_report([explanation]))
    hover = [a["data-v"] for a in page.named("span") if "data-v" in a]
    assert hover == ["−1.000", "−0.600", "−0.200", "+0.200", "+0.600", "+1.000"]
    table = "".join(page.text).split("In the vocabulary")[1]
    for piece, number in zip(explanation.pieces, hover, strict=True):
        assert f"{piece.label}{piece.token}{number}" in table


def test_facts_stand_on_the_page():
    text = "".join(Reader(render_report([text_explanation(target=BAD)])).text)
    for fact in (
        "What speaks for “bad”?",
        "The model predicts good (92.4 %); explained is bad (7.6 %).",
        "AttnLRP",
        "tiny",
        "Sum of relevance",
        "−0.500",
        "in units of the logit",
    ):
        assert fact in text


def test_special_tokens_may_lie_beyond_the_scale():
    """[CLS] outweighs the words and must not take their colour away."""
    explanation = text_explanation(scores=[-50, 1, -2, 0, 0, 3])
    assert explanation.limit == 2
    assert "may lie beyond the scale" in render_report([explanation])
    assert "−50" in render_report([explanation])
    calm = text_explanation(scores=[0.5, 1, -2, 0, 0, 1])
    assert "may lie beyond the scale" not in render_report([calm])


def test_pictures_are_embedded_and_described():
    page = Reader(render_report([image_explanation()]))
    for image in page.named("img"):
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"]) > 20
    hover = [a["data-v"] for a in page.named("span") if "data-v" in a]
    assert len(hover) == 4
    assert "strongest at row 2, column 2" in page.named("img")[1]["alt"]


def test_weights_have_one_side_and_no_unit():
    html = render_report([text_weights(), image_weights()])
    page = Reader(html)
    body = html.split("</style>")[1]
    assert "against |" not in body and "Relevance" not in body and "blue" not in body
    assert "units of the logit" not in body and "Sum of" not in body
    assert "Words with the most weight" in body
    assert "Colour scale: from weight 0, neutral, to 0.500, orange" in body
    assert "the more orange a patch, the more weight it has" in body
    assert body.count('class="top weight"') == 2
    bars = [a["style"] for a in page.named("i")]
    assert bars[0] == "width:100.0%" and bars[1] == "width:50.0%"
    for name in ("words", "heat"):
        assert f'class="bar {name} weight"' in body
        assert f".bar.{name}.weight {{ background: linear-gradient(90deg" in html


def test_relevance_keeps_both_sides():
    body = render_report([text_explanation(), image_explanation()])
    for wording in ("against | for", "Relevance of each patch", "units of the logit"):
        assert wording in body
    assert body.count('class="top"') == 2 and 'class="bar words signed"' in body


def test_weights_of_patches_have_no_panel_of_pixels():
    page = Reader(render_report([image_weights()]))
    assert [a["alt"].split(";")[0] for a in page.named("img")] == [
        "The picture as the model saw it, 20 by 8 pixels",
        "The same picture in grey",
    ]
    assert "each pixel" not in "".join(page.text)
    hover = [a["data-v"] for a in page.named("span") if "data-v" in a]
    assert hover == [f"0.{i}00" for i in range(10)]
    (cells,) = [a for a in page.named("div") if a.get("class") == "cells"]
    assert cells["style"] == "grid-template-columns:repeat(5,1fr)"


def test_nothing_is_loaded_from_elsewhere():
    page = render_report([text_explanation(), image_explanation()])
    assert "http" not in page
    assert "@import" not in page and "url(" not in page


def test_light_and_dark():
    page = render_report([text_explanation()])
    assert "light-dark(" in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert 'id="theme"' in page


def test_right_to_left_text_and_many_scripts():
    words = "هذا فيلم رائع 中文 한국어 😀"
    page = Reader(render_report([text_explanation(words)]))
    (flow,) = [a for a in page.named("p") if a.get("class") == "text"]
    assert flow["dir"] == "rtl"
    assert all(word in "".join(page.text) for word in words.split())


def test_long_text():
    words = " ".join(f"w{i}" for i in range(510))
    page = Reader(render_report([text_explanation(words)]))
    assert sum("data-v" in a for a in page.named("span")) == 512


def test_single_token_and_no_relevance():
    page = render_report([text_explanation("good", scores=np.zeros(3))])
    assert "nan" not in page.lower().replace("explanation", "")
    assert "--l:#ffffff" in page


def test_fragment_is_no_page():
    fragment = render_fragment(text_explanation())
    Reader(fragment)
    assert "<html" not in fragment and "<script" not in fragment
    assert text_explanation()._repr_html_() == fragment


def test_several_explanations_share_a_page():
    page = render_report([text_explanation(), image_explanation()])
    assert page.count("<article>") == 2
    assert "<h1>Explanations</h1>" in page
