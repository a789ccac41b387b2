"""Terminal text: with colour, without, wide and narrow."""

from __future__ import annotations

import re

import pytest

from tests.visualization.samples import (
    BAD,
    image_explanation,
    image_weights,
    text_explanation,
    text_weights,
)

pytest.importorskip("rich")


def test_without_colour_there_are_no_codes():
    text = text_explanation().to_text()
    assert "\x1b" not in text
    assert "Why “good”?" in text
    assert "[CLS] A warm film .[SEP]" in text
    assert re.search(r"\.\s+│█+\s+\+0\.600", text)
    assert re.search(r"A\s+█+│\s+−0\.600", text)


def test_colours_are_those_of_the_scale():
    text = text_explanation(scores=[0, 1, -1, 0, 0, 0]).to_text(color=True)
    assert "48;2;247;164;86mA\x1b[0m" in text  # LIGHT.positive
    assert "48;2;127;180;234mwarm\x1b[0m" in text  # LIGHT.negative
    assert "film" in text and "mfilm" not in text  # zero has no colour


def test_numbers_of_the_report():
    text = text_explanation(target=BAD).to_text()
    assert "What speaks for “bad”?" in text
    for name, value in (("Logit", "−0.500"), ("Method", "AttnLRP"), ("Model", "tiny")):
        assert re.search(rf"{name}\s+{value}", text)


def test_pictures_list_their_patches():
    text = image_explanation().to_text(top=2)
    assert "Patches that count most\n" in text and text.count("row ") == 2
    assert re.search(r"row 2, column 2\s+│█+", text)
    unknown = image_explanation(grid=None).to_text(top=2)
    assert "Squares that count most\n" in unknown


@pytest.mark.parametrize("color", [False, True])
def test_weights_have_one_side_and_no_unit(color):
    for explanation in (text_weights(), image_weights()):
        text = explanation.to_text(color=color)
        assert "with the most weight" in text and "not sum to the logit" in text
        for signed in ("against 0", "−", "+0", "blue", "units of the", "Sum of"):
            assert signed not in text
    text = text_weights().to_text()
    assert re.search(r"^film {1,2}│█{12} +0\.500$", text, re.M)
    assert re.search(r"^warm {1,2}│█{6} +0\.250$", text, re.M)


def test_the_legend_of_weights_starts_at_zero():
    legend = text_weights().to_text(color=True).split("\n\n")[2]
    assert legend.startswith("weight 0 ") and legend.endswith(" 0.500")
    assert "48;2;255;255;255m" in legend  # neutral
    assert "48;2;127;180;234m" not in legend  # LIGHT.negative
    signed = text_explanation().to_text(color=True)
    assert "48;2;127;180;234m" in signed and "against −0.600" in signed


def test_top_zero_lists_nothing():
    assert "count most" not in text_explanation().to_text(top=0)


@pytest.mark.parametrize("width", [20, 40, 200])
def test_lines_fit_the_terminal(width):
    from rich.cells import cell_len

    text = text_explanation("中文 unbelievable " * 20).to_text(width=width)
    assert max(cell_len(line) for line in text.splitlines()) <= width


def test_markup_in_a_text_is_text():
    assert "[red]hi[/red]" in text_explanation("[red]hi[/red]").to_text()


def test_str_needs_no_rich(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "rich", None)
    assert str(text_explanation()).startswith("Why “good”? The model predicts good")
    with pytest.raises(ImportError, match=r"captum_transformer_lrp\[cli\]"):
        text_explanation().to_text()
