"""The PNG: drawn without pyplot, as tall as its text needs."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from PIL import Image

from captum_transformer_lrp.report.colors import THEMES, to_hex
from captum_transformer_lrp.report.figure import draw
from captum_transformer_lrp.report.shown import Together
from tests.visualization.samples import (
    image_explanation,
    image_weights,
    text_explanation,
    text_weights,
)


def draw_figure(shown, theme="light"):
    return draw([card.blocks for one in shown for card in one.cards()], theme=theme)


def size_of(png):
    return Image.open(io.BytesIO(png)).size


def test_pyplot_is_not_touched():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    text_explanation().to_png()
    assert pyplot.get_fignums() == before
    assert "matplotlib.pyplot" in sys.modules


@pytest.mark.parametrize(
    ("kind", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_kinds_of_files(kind, start, tmp_path):
    path = text_explanation().save(tmp_path / f"a.{kind}", theme="dark", dpi=40)
    written = path.read_bytes()
    assert written.startswith(start)
    if kind == "svg":
        assert "Words that count most" in written.decode()


@pytest.mark.parametrize("theme", THEMES)
def test_themes(theme):
    figure = draw_figure([text_explanation(), image_explanation()], theme=theme)
    inks = {text.get_color() for text in figure.texts}
    assert to_hex(figure.get_facecolor()[:3]) == THEMES[theme].paper
    assert inks == {THEMES[theme].ink, THEMES[theme].soft}


def test_height_grows_with_the_text():
    short = size_of(text_explanation().to_png())
    long = size_of(text_explanation("word " * 200).to_png())
    both = size_of(Together([text_explanation(), image_explanation()]).to_png())
    assert short[0] == long[0] == both[0] == 1440
    assert long[1] > 2 * short[1]
    assert both[1] > 2 * short[1]


def test_nothing_leaves_the_page():
    figure = draw_figure([text_explanation("unbelievably " * 40), image_explanation()])
    figure.canvas.draw()
    width, height = figure.canvas.get_width_height()
    for text in figure.texts:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= width, text.get_text()
        assert box.y0 >= 0 and box.y1 <= height, text.get_text()


def test_colours_of_tokens():
    figure = draw_figure([text_explanation("good bad", scores=[0, 1, -1, 0])])
    boxes: list[Any] = [*figure.patches, *figure.artists]
    fills = [box.get_facecolor() for box in boxes]
    assert any(r > b + 0.3 for r, _, b, _ in fills)
    assert any(b > r + 0.3 for r, _, b, _ in fills)


@pytest.mark.parametrize(("height", "width"), [(4, 40), (40, 4), (8, 8)])
def test_tall_and_wide_pictures(height, width):
    png = image_explanation(height, width, grid=(2, 2)).to_png()
    assert size_of(png)[1] < 2000


def test_weights_of_patches_have_no_panel_of_pixels():
    weights = image_weights()
    figure = draw_figure([weights])
    captions = [text.get_text() for text in figure.texts]
    assert "Weight of each patch" in captions
    assert not any("pixel" in c or "against" in c for c in captions)
    assert "Weight, smooth" in captions
    assert len(figure.axes) == 4  # three pictures and the colour bar
    signed = draw_figure([image_explanation()])
    assert len(signed.axes) == 5
    drawn = np.asarray(figure.axes[1].images[0].get_array()).astype(int)
    assert drawn.shape[1] / drawn.shape[0] == 20 / 8
    orange = (drawn[..., 0] - drawn[..., 2]).reshape(2, -1, 5, drawn.shape[1] // 5)
    grown = orange.mean((1, 3)).ravel()  # from patch to patch, row by row
    assert grown[0] == 0 and (np.diff(grown) > 0).all()


def test_the_legend_of_weights_has_one_side():
    bars = {}
    for sample in (text_weights(), text_explanation()):
        figure = draw_figure([sample])
        bar = np.asarray(figure.axes[-1].images[0].get_array())[0]
        bars[sample.measure] = bar[:, 0] - bar[:, 2]
        texts = " ".join(text.get_text() for text in figure.texts)
        assert ("weight 0" in texts) is (sample.measure == "attention")
        assert ("Sum of relevance" in texts) is (sample.measure == "relevance")
    assert bars["attention"].min() > -1e-9
    assert bars["relevance"].min() < -0.3


def test_dollar_signs_are_no_formulas():
    text_explanation("it cost $5 and $ 6_7^ more").to_png()


def test_missing_fonts_are_one_warning():
    with pytest.warns(UserWarning, match="no installed font has 2 of the characters"):
        text_explanation("\U0001315f \U00013160 again \U0001315f").to_png()


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.filterwarnings("ignore:matplotlib .* neither joins:UserWarning")
def test_right_to_left_text_starts_at_the_right():
    figure = draw_figure([text_explanation("שלום עולם")])
    places = {text.get_text(): text.get_position()[0] for text in figure.texts}
    assert places["שלום"] > places["עולם"] > 0.5
