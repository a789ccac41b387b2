"""A page is safe, complete, self-contained and readable without colour."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from captum_transformer_lrp.explanation import save_explanations
from captum_transformer_lrp.models import Piece
from captum_transformer_lrp.models.prediction import ClassScore
from captum_transformer_lrp.report import blocks as b
from captum_transformer_lrp.report.colors import THEMES
from captum_transformer_lrp.report.html import to_fragment, to_page
from captum_transformer_lrp.report.shown import Together
from tests.report.reading import ATTACK, Reader, style_of
from tests.visualization.samples import (
    BAD,
    image_explanation,
    image_weights,
    text_explanation,
    text_weights,
)

pytest.importorskip("jinja2")


def test_nothing_from_outside_becomes_markup():
    evil = ClassScore(index=1, name=ATTACK, logit=1.0, probability=0.5)
    explanation = text_explanation(
        ATTACK, model=ATTACK, method=ATTACK, target=evil, notes=(ATTACK,)
    )
    picture = image_explanation(target=evil, model=ATTACK)
    page = Reader(Together([explanation, picture]).to_html(title=ATTACK, lead=ATTACK))
    assert len(page.named("script")) == 1  # the page's own
    assert len(page.named("img")) == 4
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert ATTACK in page.written


def test_every_token_has_its_number_as_hover_and_in_the_table():
    explanation = text_explanation()
    page = Reader(explanation.to_html())
    hover = page.hovered()
    assert hover == ["−1.000", "−0.600", "−0.200", "+0.200", "+0.600", "+1.000"]
    table = page.written.split("In the vocabulary")[1]
    for piece, number in zip(explanation.pieces, hover, strict=True):
        assert f"{piece.label}{piece.token}{number}" in table


def test_words_have_the_sum_of_their_tokens_which_the_table_lists():
    pieces = (
        Piece(token="un", text="un"),
        Piece(token="##told", text="told"),
        Piece(token="joy", text="joy", space_before=True),
    )
    explanation = text_explanation(pieces=pieces, scores=[1.0, 0.5, -1.0])
    page = Reader(explanation.to_html())
    assert page.hovered() == ["+1.50", "−1.00"]
    table = page.written.split("In the vocabulary")[1]
    for row in ("unun+1.00", "##told+0.50", "joyjoy−1.00"):
        assert row in table
    by_token = Reader(explanation.by_token().to_html())
    assert by_token.hovered() == ["+1.00", "+0.50", "−1.00"]


def test_facts_stand_on_the_page():
    text = Reader(text_explanation(target=BAD).to_html()).written
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
    assert "may lie beyond the scale" in explanation.to_html()
    assert "−50" in explanation.to_html()
    calm = text_explanation(scores=[0.5, 1, -2, 0, 0, 1])
    assert "may lie beyond the scale" not in calm.to_html()


def test_pictures_are_embedded_and_described():
    page = Reader(image_explanation().to_html())
    for image in page.named("img"):
        assert image["src"].startswith("data:image/png;base64,")
        assert len(image["alt"]) > 20
    assert len(page.hovered()) == 4 + 64  # patches and pixels
    assert "strongest at row 2, column 2" in page.named("img")[1]["alt"]


def grounds_of_legends(page):
    """Return the colours of light of each colour bar, as red less blue."""
    found = []
    for attributes in page.named("span", **{"class": "bar"}):
        steps = re.findall(r"(?:light-dark\(|[,(])(#\w{6})", attributes["style"])
        steps = steps[::2] if "light-dark" in attributes["style"] else steps
        found.append([int(c[1:3], 16) - int(c[5:7], 16) for c in steps])
    return found


def test_weights_have_one_side_and_no_unit():
    html = Together([text_weights(), image_weights()]).to_html()
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
    legends = grounds_of_legends(page)
    assert len(legends) == 2 and all(len(steps) == 13 for steps in legends)
    for steps in legends:  # from neutral to orange
        assert steps == sorted(steps) and -1 <= steps[0] <= 0 and steps[-1] > 100


def test_relevance_keeps_both_sides():
    body = Together([text_explanation(), image_explanation()]).to_html()
    for wording in ("against | for", "Relevance of each patch", "units of the logit"):
        assert wording in body
    assert body.count('class="top"') == 2
    for steps in grounds_of_legends(Reader(body)):
        assert steps[0] < -80 and abs(steps[6]) <= 1 and steps[-1] > 80


def test_weights_of_patches_have_no_panel_of_pixels():
    page = Reader(image_weights().to_html())
    assert [a["alt"].split(";")[0] for a in page.named("img")] == [
        "The picture as the model saw it, 20 by 8 pixels",
        "The same picture in grey",
        "The same picture in grey",
    ]
    assert [a.get("class", "") for a in page.named("img")] == ["", "", "smooth"]
    assert "Weight, smooth" in page.written
    assert "each pixel" not in page.written
    assert page.hovered() == [f"0.{i}00" for i in range(10)]
    (cells,) = [a for a in page.named("div") if a.get("class") == "cells"]
    assert cells["style"] == "grid-template-columns:repeat(5,1fr)"


def test_nothing_is_loaded_from_elsewhere():
    page = Together([text_explanation(), image_explanation()]).to_html()
    assert "http" not in page
    assert "@import" not in page and "url(" not in page


def test_light_and_dark():
    page = text_explanation().to_html()
    assert "light-dark(" in page
    assert '<meta name="color-scheme" content="light dark">' in page
    assert 'id="theme"' in page


def test_right_to_left_text_and_many_scripts():
    words = "هذا فيلم رائع 中文 한국어 😀"
    page = Reader(text_explanation(words).to_html())
    (flow,) = [a for a in page.named("p") if a.get("class") == "text"]
    assert flow["dir"] == "rtl"
    assert all(word in page.written for word in words.split())


def test_long_text():
    words = " ".join(f"w{i}" for i in range(510))
    page = Reader(text_explanation(words).to_html())
    assert len(page.hovered()) == 512


def test_single_token_and_no_relevance():
    page = text_explanation("good", scores=np.zeros(3)).to_html()
    assert "nan" not in page.lower().replace("explanation", "")
    assert "--l:#ffffff" in page


def test_fragment_is_no_page():
    fragment = text_explanation()._repr_html_()
    Reader(fragment)
    assert "<html" not in fragment and "<script" not in fragment
    assert text_explanation()._repr_html_() == fragment


def test_several_explanations_share_a_page(tmp_path):
    both = [text_explanation(), image_explanation()]
    page = save_explanations(both, tmp_path / "both.html").read_text("utf-8")
    articles = Reader(page).named("article")
    assert [a["role"] for a in articles] == ["group", "group"]
    assert [a["aria-label"] for a in articles] == [one.alt for one in both]
    assert "<h1>Explanations</h1>" in page
    alone = both[0].to_html()
    assert "<h1>" not in alone and "<title>Why “good”?</title>" in alone


# ------------------------------------------------------------------------------ colours


def test_words_keep_their_colours_where_a_notebook_takes_styles_away():
    scores = [0.0, 1.0, -1.0, 0.25, 0.0, 0.0]
    explanation = text_explanation(scores=scores)
    page = Reader(explanation._repr_html_())
    words = [a for a in page.named("span") if "data-v" in a]
    assert len(words) == 6
    light, dark = THEMES["light"], THEMES["dark"]
    for attributes, score in zip(words, scores, strict=True):
        style = style_of(attributes)
        assert style["background-color"] == style["--l"] == light.ground(score)
        assert style["--d"] == dark.ground(score)
        assert style["color"] == light.ink


def grid(values, scale=None, **other):
    values = np.asarray(values, dtype=float)
    rows, columns = values.shape
    return b.Grid(
        panels=(b.Panel(values=values),),
        rows=b.Axis(name="layer", labels=tuple(map(str, range(rows)))),
        columns=b.Axis(name="head", labels=tuple(map(str, range(columns)))),
        scale=scale or b.ColorScale(limit=np.abs(values).max(), signed=True),
        **other,
    )


def cells_of(page):
    return [a for a in page.named("td") if a.get("class", "").startswith("p")]


@pytest.mark.parametrize("signed", [True, False])
def test_cells_keep_their_colours_where_a_notebook_takes_styles_away(signed):
    values = np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.1]])
    scale = b.ColorScale(limit=1.0, signed=signed)
    page = Reader(to_fragment([b.Card(blocks=(grid(values, scale),))]))
    light, dark = THEMES["light"], THEMES["dark"]
    assert len(cells_of(page)) == values.size
    for attributes, share in zip(cells_of(page), values.flat, strict=True):
        style = style_of(attributes)
        assert style["background-color"] == light.ground(share, signed=signed)
        assert style["color"] == light.ink_on(share, signed=signed)
        assert style["--d"] == dark.ground(share, signed=signed)
        assert style["--di"] == dark.ink_on(share, signed=signed)


def test_cells_of_tables_keep_their_colours():
    rows = (("a", b.Cell(text="0.5", share=0.5), b.Cell(text="−1", share=-1.0), "x"),)
    table = b.Table(heads=("", "b", "c", "d"), rows=rows)
    page = Reader(to_fragment([b.Card(blocks=(table,))]))
    shades = [style_of(a) for a in page.named("td", **{"class": "shade"})]
    light = THEMES["light"]
    assert [s["background-color"] for s in shades] == [
        light.ground(0.5),
        light.ground(-1.0),
    ]
    assert all(s["color"] == light.ink for s in shades)


# ------------------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    "score", [0.00996, 0.0996, 0.996, 1.0, 9.96, 9.97, 99.6, 996.0, 123456.0, 1e-7]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_numbers_in_cells_equal_the_scores_to_their_digits(score, sign):
    """The short one to two digits of the largest, that under the mouse to three."""
    values = sign * np.array([[score, score / 3, -score / 7]])
    html = to_fragment([b.Card(blocks=(grid(values),))])
    shown = re.findall(r'<td class="p"[^>]*title="([^"]+)">([^<]+)</td>', html)
    assert len(shown) == 3
    for numbers, value in zip(shown, values.flat, strict=True):
        for text, share in zip(numbers, (0.011, 0.11), strict=True):
            text = text.replace("−", "-")
            mantissa, _, power = text.partition("e")
            step = 10.0 ** (int(power or 0) - len(mantissa.partition(".")[2]))
            assert float(text) == pytest.approx(value, abs=0.501 * step)
            assert step <= share * score * 10


# -------------------------------------------------------------------------------- grids


def test_long_grids_are_cut_into_tables_with_the_means_in_the_last():
    shown = grid(np.full((2, 100), 0.5), means=np.array([0.25, 0.75]))
    page = Reader(to_page([b.Card(blocks=(shown,))], title="t"))
    captions = re.findall(r"columns: head, (\d+) to (\d+) of 100", page.written)
    assert captions == [("1", "34"), ("35", "67"), ("68", "100")]
    assert len(page.named("table")) == 3 and len(cells_of(page)) == 200
    assert len(page.named("td", **{"class": "mean"})) == 2
    assert len(page.named("th", scope="col")) == 101


def test_large_grids_are_pixels_with_all_their_labels():
    page = Reader(to_page([b.Card(blocks=(grid(np.eye(120)),))], title="t"))
    (image,) = page.named("img")
    assert image["src"].startswith("data:image/png;base64,") and image["alt"]
    assert page.written.count("119") == 2 and not page.named("table")


def test_fixed_columns_are_marked():
    shown = grid(np.eye(3), fixed=(False, True, False))
    page = Reader(to_page([b.Card(blocks=(shown,))], title="t"))
    assert len(page.named("td", **{"class": "p fixed"})) == 3


# ----------------------------------------------------------------------- all the blocks


def everything(text):
    """One block of each kind, with ``text`` wherever there is one."""
    axis = b.Axis(
        name=text, labels=(text, "b"), special=(True, False), hints=(text, text)
    )
    scale = b.ColorScale(
        limit=1.0, signed=True, unit=text, names=(text, text), meaning=text
    )
    values = np.array([[0.1, -0.2], [0.3, 0.4]])
    panel = b.Panel(values=values, name=text)
    word = b.Word(text=text, score=0.3, special=True, tokens=(text,))
    image = image_explanation().image
    heat = b.Heat(
        image=image, scores=values, scale=scale, caption=text, under=text, alt=text
    )
    rows = ((text, b.Cell(text=text, small=text, share=0.5), b.Cell(text=text)),)
    table = b.Table(title=text, heads=(text, text, text), rows=rows, texts=2)
    kinds = ("answer", "input", "meaning", "caption", "note")
    paragraphs = [b.Paragraph(text=text, kind=kind) for kind in kinds]
    bars = b.Bars(
        title=text, head=text, rows=((text, 0.5),), scale=scale, marks=(text,)
    )
    return (
        b.Heading(text=text),
        b.Heading(text=text, level=2),
        b.Heading(text=text, badge=text),
        *paragraphs,
        b.Facts(pairs=((text, text),)),
        b.Words(words=(word,), scale=scale),
        b.Legend(scale=scale),
        b.Pictures(pictures=(heat,)),
        b.Grid(panels=(panel,), rows=axis, columns=axis, scale=scale),
        b.Grid(panels=(panel, panel), rows=axis, columns=axis, scale=scale),
        b.Pairs(lines=((0, 1, 0.5),), left=axis, right=axis, scale=scale),
        b.Chart(names=(text, "b"), values=values, steps=axis, label=text, alt=text),
        table,
        b.Table(title=text, heads=table.heads, rows=rows, folded=True),
        bars,
        b.Pages(labels=(word,), scale=scale, pages=((table, bars),), hint=text),
    )


def test_every_block_escapes_what_comes_from_outside():
    blocks = everything(ATTACK)
    assert {type(block) for block in blocks} == set(b.Block.__args__)
    cards = [b.Card(blocks=blocks, alt=ATTACK)]
    page = Reader(to_page(cards, title=ATTACK, heading=ATTACK, lead=ATTACK))
    folded = Reader(to_page([replace(cards[0], folded=True)], title=ATTACK))
    fragment = Reader(to_fragment(cards))
    for found, scripts in ((page, 1), (folded, 1), (fragment, 0)):
        assert len(found.named("script")) == scripts
        assert not any("onerror" in attributes for _, attributes in found.tags)
        sources = [attributes["src"] for attributes in found.named("img")]
        assert len(sources) == 3 and all(s.startswith("data:") for s in sources)
        assert found.written.count(ATTACK) >= 35
    assert ATTACK not in to_fragment(cards)


def test_folded_cards_show_their_first_heading():
    seen = b.Heading(text="Seen", badge="wrong")
    card = b.Card(blocks=(seen, *everything("x")[3:]), folded=True)
    page = Reader(to_page([card], title="t"))
    assert page.named("details", **{"class": "card"})
    assert page.written.count("Seenwrong") == 1


def test_pages_are_picked_with_labels_of_their_own():
    labels = tuple(b.Word(text=f"w{i}", score=i / 3) for i in range(3))
    scale = b.ColorScale(limit=1.0, signed=False, palette="words")
    pages = tuple((b.Paragraph(text=f"page {i}"),) for i in range(3))
    shown = b.Pages(labels=labels, scale=scale, pages=pages)
    page = Reader(to_fragment([b.Card(blocks=(shown, shown))]))
    radios = page.named("input", type="radio")
    assert len({a["id"] for a in radios}) == 6 and len({a["name"] for a in radios}) == 2
    assert ["checked" in a for a in radios] == [True, False, False] * 2
    assert page.hovered("label") == ["0.00", "0.33", "0.67"] * 2
    assert all(f"page {i}" in page.written for i in range(3))
