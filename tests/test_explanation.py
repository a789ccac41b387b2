"""An explanation keeps its numbers through words, patches, JSON and files."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from captum_transformer_lrp.errors import InputError, UnknownNameError
from captum_transformer_lrp.explanation import pool, save_explanations
from captum_transformer_lrp.models import Piece
from captum_transformer_lrp.models.prediction import ClassScore, percent
from tests.visualization.samples import (
    BAD,
    GOOD,
    image_explanation,
    image_weights,
    text_explanation,
    text_weights,
)


def test_words_sum_their_pieces():
    pieces = (
        Piece(token="un", text="Un"),
        Piece(token="##likely", text="likely"),
        Piece(token=",", text=","),
        Piece(token="it", text="it", space_before=True),
    )
    words = text_explanation(pieces=pieces, scores=[1.0, 2.0, 0.25, -0.5]).words
    assert [(w.text, w.score) for w in words] == [
        ("Unlikely", 3.0),
        (",", 0.25),
        ("it", -0.5),
    ]


def test_top_words_leave_out_added_tokens():
    explanation = text_explanation(scores=[9, 0.1, -0.5, 0.3, 0, 8])
    assert explanation.top_parts(2) == [("warm", -0.5), ("film", 0.3)]


def test_sums():
    explanation = text_explanation(scores=[1, 2, 3, -1, 0, 0.5])
    assert explanation.relevance_sum == 5.5
    assert explanation.logit == 2.5
    assert explanation.scores.dtype == np.float64


@pytest.mark.parametrize(
    ("shape", "grid"), [((8, 8), (2, 4)), ((7, 10), (2, 3)), ((5, 5), (5, 5))]
)
def test_pooling_keeps_the_sum(shape, grid):
    scores = np.random.default_rng(0).normal(size=shape)
    pooled = pool(scores, grid)
    assert pooled.shape == grid
    assert pooled.sum() == pytest.approx(scores.sum())


def test_pooling_sums_each_patch():
    scores = np.arange(16.0).reshape(4, 4)
    np.testing.assert_array_equal(pool(scores, (2, 2)), [[10, 18], [42, 50]])
    with pytest.raises(ValueError, match="cannot pool 4 x 4 pixels to 5 x 1"):
        pool(scores, (5, 1))


@pytest.mark.parametrize(
    ("shape", "cells"), [((8, 8), (8, 8)), ((64, 32), (16, 8)), ((3, 224), (1, 16))]
)
def test_cells_where_patches_are_unknown(shape, cells):
    height, width = shape
    explanation = image_explanation(height, width, grid=None)
    assert explanation.cells.shape == cells
    assert explanation.patch_scores is None
    assert explanation.cells.sum() == pytest.approx(explanation.relevance_sum)


def test_a_prompt_shows_a_line_or_three_also_of_a_list():
    text = text_explanation("A warm film. " * 300)
    assert repr(text_explanation()) == (
        "<TextExplanation: Why “good”? The model predicts good (92.4 %). Words that "
        "count most: . +0.600, A −0.600, film +0.200.>"
    )
    assert repr(image_explanation()).startswith("<ImageExplanation: Why “good”?")
    assert len(repr([text] * 8)) < 24 * 88
    names = text_explanation(model="m" * 900, prediction=replace(GOOD, name="n" * 900))
    assert repr(names).endswith("n…>") and len(repr(names)) < 3 * 88


def test_json_of_a_text():
    explanation = text_explanation("Ein Film 中", notes=("cut",), target=BAD)
    found = json.loads(explanation.to_json())
    assert list(found) == [
        "schema",
        "kind",
        "model",
        "method",
        "prediction",
        "target",
        "measure",
        "same_for_every_target",
        "relevance_sum",
        "convergence_delta",
        "notes",
        "version",
        "about_sum",
        "label",
        "score_name",
        "task",
        "text",
        "tokens",
        "next_token",
        "joined",
        "marks",
    ]
    assert found["schema"] == "captum_transformer_lrp.explanation/1"
    assert found["kind"] == "text"
    assert found["target"] == {
        "index": 0,
        "name": "bad",
        "logit": -0.5,
        "probability": 0.076,
    }
    assert [t["score"] for t in found["tokens"]] == explanation.scores.tolist()
    assert found["tokens"][3] == {
        "token": "中",
        "text": "中",
        "special": False,
        "space_before": True,
        "score": 0.5,
        "word": None,
    }
    assert "中" in explanation.to_json()


def test_json_of_a_picture():
    explanation = image_explanation()
    found = json.loads(explanation.to_json())
    assert (found["kind"], found["height"], found["width"]) == ("image", 8, 8)
    np.testing.assert_array_equal(found["scores"], explanation.scores)
    np.testing.assert_array_equal(found["patch_scores"], explanation.patch_scores)
    assert json.loads(image_explanation(grid=None).to_json())["patch_scores"] is None


def test_json_says_what_weights_are():
    relevance = json.loads(text_explanation().to_json())
    assert relevance["measure"] == "relevance"
    assert relevance["relevance_sum"] == pytest.approx(0)
    found = json.loads(text_weights(same_for_every_target=True).to_json())
    assert (found["measure"], found["relevance_sum"]) == ("attention", None)
    assert found["same_for_every_target"] is True


def test_json_of_weights_of_patches():
    explanation = image_weights()
    found = json.loads(explanation.to_json())
    assert (found["height"], found["width"], found["scores"]) == (8, 20, None)
    np.testing.assert_array_equal(found["patch_scores"], explanation.scores)
    assert explanation.top_parts(1) == [("row 2, column 5", 0.9)]


def test_scores_of_neither_pixels_nor_patches():
    with pytest.raises(
        ValueError,
        match=r"scores of shape \(3, 3\) are neither 8 x 20 pixels nor patches, "
        r"patch_grid=\(2, 5\)",
    ):
        image_weights(scores=np.zeros((3, 3)))


def test_wording_of_weights():
    weights = text_weights()
    assert weights.question == "What does the model attend to for “good”?"
    assert "what it does for “good”" in weights.summary
    assert weights.scale.ends == ("weight 0", "0.500")
    assert [name for name, _ in weights.facts] == [
        "Prediction",
        "Explained",
        "Logit",
        "Method",
        "Model",
    ]
    assert "+" not in str(weights).split("?")[1]
    alone = text_weights(same_for_every_target=True, target=BAD)
    assert alone.question == "What does the model attend to?"
    assert alone.answer == "The model predicts good (92.4 %)."
    assert "the same for every target" in alone.summary
    facts = dict(alone.facts)
    assert "Logit" not in facts and facts["Explained"].startswith("no target")
    for explanation in (weights, alone, image_weights()):
        for wording in ("blue", "units of the logit", "above zero"):
            assert wording not in explanation.summary


@pytest.mark.parametrize("suffix", [".html", ".json", ".png", ".PNG"])
def test_save_by_suffix(tmp_path, suffix):
    if suffix == ".html":
        pytest.importorskip("jinja2")
    path = text_explanation().save(tmp_path / f"report{suffix}")
    start = path.read_bytes()[:9]
    kinds = {".html": b"<!doctype", ".json": b'{\n  "sche'}
    assert start == kinds.get(suffix, start[:0] + b"\x89PNG\r\n\x1a\n\x00")


def test_several_explanations_in_one_file(tmp_path):
    both = [text_explanation(), image_explanation()]
    found = json.loads(save_explanations(both, tmp_path / "a.json").read_text("utf-8"))
    assert [one["kind"] for one in found] == ["text", "image"]
    with Image.open(save_explanations(both, tmp_path / "a.png")) as picture:
        assert picture.width == 1440


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"one of \.html, \.png, \.pdf, \.svg, \.json"
    ):
        text_explanation().save(tmp_path / "report.docx")
    with pytest.raises(InputError, match="got none"):
        save_explanations([], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("probability", "written"),
    [
        (0.5, "50.0 %"),
        (0.9996, "> 99.9 %"),
        (1.0, "100.0 %"),
        (0.0001, "< 0.1 %"),
        (0.0, "0.0 %"),
    ],
)
def test_percent_is_never_rounded_to_certainty(probability, written):
    assert percent(probability) == written


def test_questions_and_answers():
    assert text_explanation().question == "Why “good”?"
    assert text_explanation().answer == "The model predicts good (92.4 %)."
    assert text_explanation(target=BAD).question == "What speaks for “bad”?"
    assert text_explanation(next_token=True).question == "Why the next token “good”?"
    regression = ClassScore(index=0, name="stars", logit=3.5)
    assert str(regression) == "stars (+3.500)"
