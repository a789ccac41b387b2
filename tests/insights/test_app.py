"""Predictions, order, filters, addresses and kept explanations, without a browser."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from captum_transformer_lrp import TextExplanation, explain, insights
from captum_transformer_lrp.errors import InputError, UnknownNameError
from captum_transformer_lrp.insights.cache import ExplanationCache
from captum_transformer_lrp.insights.view import View, ViewReader, select
from tests.helpers import assert_same_state, state_of

from .conftest import SCRIPT, TEXTS


def test_predictions_are_those_of_explain(app):
    found = [explain(text).prediction for text, _ in TEXTS]
    for place, expected in enumerate(found):
        best = app.predictions[place].best
        assert (best.index, best.name) == (expected.index, expected.name)
        assert best.logit == pytest.approx(expected.logit, abs=1e-4)
        assert best.probability == pytest.approx(expected.probability, abs=1e-4)


def test_verdicts(app):
    names = app.class_names
    for place, (_, label) in enumerate(TEXTS):
        found = app.predictions[place]
        true = {"0": 0, 1: 1}.get(label, names.index(label) if label in names else None)
        expected = None if true is None else found.best.index == true
        assert found.right is expected, TEXTS[place]
    (note,) = app.predictions.labels.notes
    assert "'mediocre'" in note
    assert app.summary().endswith("2 without a true class.")


def order(app, **changes):
    return select(View(method="attnlrp", **changes), app.data, app.predictions)


def test_wrong_ones_come_first_and_the_most_confident_of_them(app):
    rank = {False: 0, None: 1, True: 2}
    keys = [
        (rank[app.predictions[p].right], -app.predictions[p].confidence)
        for p in order(app)
    ]
    assert keys == sorted(keys) and keys[0][0] == 0 and keys[-1][0] == 2
    rank = {True: 0, None: 1, False: 2}
    keys = [
        (rank[app.predictions[p].right], -app.predictions[p].confidence)
        for p in order(app, sort="correct-first")
    ]
    assert keys == sorted(keys)
    sure = [app.predictions[p].confidence for p in order(app, sort="least-confident")]
    assert sure == sorted(sure) and len(sure) == len(TEXTS)
    assert order(app, sort="data") == list(range(len(TEXTS)))


def test_filters(app):
    right = {p: app.predictions[p].right for p in range(len(TEXTS))}
    for outcome, verdict in (("wrong", False), ("correct", True), ("unknown", None)):
        expected = {p for p, r in right.items() if r is verdict}
        assert expected and set(order(app, outcome=outcome)) == expected
    assert set(order(app, search="FUNNY")) == {0, 2}
    assert order(app, search="<script>") == [4]
    assert order(app, search="no such text") == []
    positive = app.class_names.index("positive")
    assert set(order(app, label=positive)) == {0, 3, 6}
    predicted = set(order(app, predicted=positive))
    assert predicted == {
        p for p in range(len(TEXTS)) if app.predictions[p].best.index == positive
    }


def test_examples_without_a_prediction_are_not_listed():
    pytest.importorskip("panel")
    pytest.importorskip("transformers")
    made = insights.App("built-in", ["A warm film.", "A dull film."])
    assert order(made) == [] and made.predictions.done == 0
    made.predictions.ensure(1)
    assert order(made) == [1]
    made.predictions.wait(100)
    assert len(order(made)) == 2 and made.predictions.finished


def test_a_picture_that_cannot_be_read_is_said_and_the_others_are_predicted(tmp_path):
    pytest.importorskip("panel")
    pytest.importorskip("timm")
    from captum_transformer_lrp.models.pictures import draw_ship

    (tmp_path / "ship").mkdir()
    draw_ship(64).save(tmp_path / "ship" / "1.png")
    (tmp_path / "ship" / "2.png").write_bytes(b"no picture")
    made = insights.App("built-in", tmp_path)
    made.predictions.wait(100)
    good, bad = made.predictions.ensure(0), made.predictions.ensure(1)
    assert good.best is not None and not good.failure
    assert bad.best is None and "'2.png' is not a picture" in bad.failure
    assert made.summary().endswith("1 could not be read.")
    with pytest.raises(InputError, match=r"2\.png"):
        made.explain(1, "attnlrp", "prediction")
    assert made.explain(0, "attnlrp", "prediction").kind == "image"


def test_explanations_are_those_of_explain(app):
    for target, index in (("prediction", None), ("0", 0), ("1", 1)):
        found = app.explain(3, "attnlrp", target)
        expected = explain(TEXTS[3][0], target=index)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)
        assert found.target.index == expected.target.index
    assert app.explain(3, "attnlrp", "label").target.name == "positive"
    with pytest.raises(InputError, match="has no true class"):
        app.explain(5, "attnlrp", "label")


def test_explanations_are_kept_and_the_oldest_given_up(app):
    kept = ExplanationCache(app.source, threading.RLock(), capacity=2)

    def get(number):
        return kept.get(f"film {number}", "gradient-x-input", 0, number=number)

    first, second = get(1), get(2)
    assert get(1) is first  # and is now the latest
    get(3)
    assert len(kept) == 2
    assert get(1) is first and get(2) is not second
    own = kept.get("film 1", "gradient-x-input", 0)
    assert own is not first and len(kept) == 2


def test_twenty_threads_get_one_explanation_and_leave_the_model_alone(app):
    before = state_of(app.source.module)
    kept = ExplanationCache(app.source, threading.RLock())
    found = []
    threads = [
        threading.Thread(
            target=lambda: found.append(kept.get("A film.", "attnlrp", 0, number=1))
        )
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and len({id(one) for one in found}) == 1
    assert_same_state(before, state_of(app.source.module))


READER = ViewReader(
    methods=("attnlrp", "chefer"), numbers=(1, 5, 17), class_names=("bad", "good")
)


@pytest.mark.parametrize(
    "view",
    [
        View(method="attnlrp"),
        View(method="chefer", example=17, target="1"),
        View(method="attnlrp", example=5, target="label"),
        View(
            method="chefer",
            outcome="wrong",
            label=0,
            predicted=1,
            search="50% & <b> ü?=#",
            sort="data",
            page=3,
            size=12,
        ),
    ],
)
def test_an_address_gives_back_its_view(view):
    assert READER.read(view.query()) == (view, ())


def test_the_address_of_an_example_is_readable():
    view = View(method="attnlrp", example=17, target="1")
    assert view.query() == "?example=17&method=attnlrp&target=1"
    assert READER.read("example=17&target=Good&utm_source=x")[0] == view


@pytest.mark.parametrize(
    "part",
    [
        "example=../../etc/passwd",
        "example=2",
        "example=-1",
        "example=1e3",
        "example=%D9%A1",
        "method=no-method",
        "target=7",
        "target=ugly",
        "label=2",
        "outcome=maybe",
        "sort=name",
        "page=0",
        "size=1000000",
        "size=99999999999999999999999",
    ],
)
def test_what_an_address_cannot_mean_is_said(part):
    view, problems = READER.read("?" + part)
    assert view == View(method="attnlrp")
    (problem,) = problems
    assert problem.startswith(f"The address asks for {part.split('=')[0]} “")


def test_methods_by_name():
    pytest.importorskip("panel")
    pytest.importorskip("transformers")
    made = insights.App("built-in", ["A film."], methods=["Chefer", "attnlrp"])
    assert made.methods == ("chefer", "attnlrp")
    with pytest.raises(UnknownNameError, match=r"no method .atnlrp..*.attnlrp."):
        insights.App("built-in", ["A film."], methods=["atnlrp"])
    with pytest.raises(InputError, match="list of names"):
        insights.App("built-in", ["A film."], methods="chefer")


def test_a_language_model_explains_its_next_token(tmp_path):
    pytest.importorskip("panel")
    pytest.importorskip("transformers")
    from tests.models.tiny import save_language_model

    made = insights.App(save_language_model(tmp_path), ["the movie", "was"])
    made.predictions.wait(100)
    assert made.is_language_model and made.unlabelled
    found = made.explain(0, "attnlrp", "prediction")
    best = made.predictions.ensure(0).best
    assert isinstance(found, TextExplanation) and found.next_token
    assert best is not None and found.prediction.index == best.index
    assert made.explain(0, "attnlrp", "5").target.index == 5
    view, problems = made.reader.read("?target=5")
    assert view.target == "5" and not problems


def test_cards_escape_what_comes_from_outside(app):
    from captum_transformer_lrp.insights.page import AppPage

    page = AppPage(app)
    card = page._explained_card(4, replace(page.view, target="prediction"))
    assert "<script" not in card and "&lt;" in card and "<b>more" not in card
    plain = page._card(4)
    assert "<script" not in plain and "&lt;script&gt;" in plain
    assert SCRIPT not in plain


def test_a_pipeline_brings_its_model_and_what_prepares_its_inputs(tmp_path):
    from PIL import Image
    from transformers import BertForSequenceClassification, BertForTokenClassification

    from tests.tasks.test_pictures import pipe_of as pipe_of_picture
    from tests.tasks.test_texts import TAGS, pipe_of
    from tests.tasks.tiny_pictures import classifier

    kind = "text-classification"
    pipe = pipe_of(
        kind, BertForSequenceClassification, "bad", "good", function_to_apply="sigmoid"
    )
    data = [("a warm film", "good"), ("a dog", "bad")]
    app = insights.App(pipe, data)
    app.predictions.wait()
    for place, (text, label) in enumerate(data):
        (said,) = pipe(text)
        best = app.predictions[place].best
        assert best.name == said["label"]
        assert best.probability == pytest.approx(said["score"], rel=1e-6)
        assert app.predictions[place].right is (best.name == label)
    pictures = pipe_of_picture("image-classification", classifier("cat", "dog", seed=1))
    seen = Image.new("RGB", (40, 50), (120, 90, 30))
    app = insights.App(pictures, [(seen, "cat")])
    app.predictions.wait()
    assert app.predictions[0].best.name == pictures(seen)[0]["label"]
    tagger = pipe_of("token-classification", BertForTokenClassification, *TAGS)
    for wrong, given, message in (
        (tagger, data, "the pipeline is for token-classification; expected one for te"),
        (pictures, data, "kind 'text', and the pipeline is for image-classification"),
    ):
        with pytest.raises(InputError, match=message):
            insights.App(wrong, given)
    with pytest.raises(InputError, match="the pipeline brings its own"):
        insights.App(pipe, data, tokenizer=pipe.tokenizer)
