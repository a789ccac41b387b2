"""Several methods on one input: ranks, sums, and what is written of them."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest

from captum_transformer_lrp.attribution import CPLRP
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.comparison import DEFAULT_METHODS, Comparison, compare
from captum_transformer_lrp.errors import InputError, UnknownNameError
from captum_transformer_lrp.models import load_image_model, load_text_model
from captum_transformer_lrp.rank_agreement import kendall, ranks, spearman
from tests.models.tiny import save_text_classifier, save_timm_classifier
from tests.report.reading import Reader
from tests.test_explaining import picture

anything: Any = compare
TEXT = "the film was warm <script>, never dull!"
METHODS = ["attnlrp", "cp-lrp", "integrated-gradients", "saliency", "occlusion"]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return save_text_classifier(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def of_text(text_folder):
    source = load_text_model(text_folder)
    return source, compare(TEXT, methods=METHODS, model=source, target="good")


@pytest.fixture(scope="module")
def of_image(tmp_path_factory):
    pytest.importorskip("timm")
    source = load_image_model(save_timm_classifier(tmp_path_factory.mktemp("vit")))
    methods = ["attnlrp", "occlusion", "chefer"]
    return compare(image=picture(), methods=methods, model=source)


def slow_kendall(a, b):
    pairs = list(itertools.combinations(range(len(a)), 2))
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    size = sum(x != 0 for x, _ in signs) * sum(y != 0 for _, y in signs)
    return sum(x * y for x, y in signs) / size**0.5


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [3, 1000])
def test_rank_correlations(seed, levels):
    generator = np.random.default_rng(seed)
    a, b = generator.integers(0, levels, (2, 20)).astype(float)
    assert kendall(a, b) == pytest.approx(slow_kendall(a, b))
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_array_equal(ranks(a), stats.rankdata(a))
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)


def test_rank_correlations_by_hand():
    a = np.array([1.0, 2, 3, 4])
    for correlate in (spearman, kendall):
        assert correlate(a, a**3) == 1 and correlate(a, -a) == -1
        assert correlate(a, 0 * a) is None and correlate(a[:1], a[:1]) is None
    assert spearman(a, np.array([1.0, 2, 4, 3])) == pytest.approx(0.8)
    assert kendall(a, np.array([1.0, 2, 4, 3])) == pytest.approx(2 / 3)
    np.testing.assert_array_equal(ranks(np.array([5.0, 1, 5])), [2.5, 1, 2.5])


def test_agreement_of_methods(of_text):
    _, found = of_text
    own = [not piece.special for piece in found.explanations[0].pieces]
    scores = [one.scores[own] for one in found.explanations]
    for measure, correlate in (("spearman", spearman), ("kendall", kendall)):
        table = found.agreement(measure)
        assert table[0, 2] == table[2, 0] == correlate(scores[0], scores[2])
        assert table[0, 3] == correlate(np.abs(scores[0]), scores[3])  # no sign
        np.testing.assert_allclose(np.diag(table), 1)
    with pytest.raises(UnknownNameError, match="no rank agreement 'pearson'"):
        anything_of(found).agreement("pearson")


def test_a_prompt_shows_three_lines(of_text):
    _, found = of_text
    many = Comparison(
        explanations=found.explanations * 6, conservation=found.conservation * 6
    )
    assert repr(many).startswith("<Comparison: Why “")
    assert len(repr(many)) < 3 * 88


def anything_of(found) -> Any:
    return found


def test_conservation_is_that_of_the_trace(of_text):
    source, found = of_text
    lrp = CPLRP(source.module)
    encoded = source.tokenizer(TEXT, return_tensors="pt")
    trace = lrp.trace(encoded, target=2)
    own = found.conservation[1]
    assert own.absorbed == pytest.approx(trace.absorbed, abs=1e-5)
    assert own.score == pytest.approx(found.explanations[1].logit, abs=1e-5)
    assert own.relevance == pytest.approx(found.explanations[1].relevance_sum, abs=1e-5)
    assert own.error < 1e-5
    assert own.score == pytest.approx(own.relevance + own.absorbed, abs=1e-4)
    assert found.conservation[2:] == (None, None, None)
    # of means over several passes, what all of them say
    several = compare(
        TEXT, methods=["attnlrp", "owen-lrp", "erasure-lrp"], model=source
    )
    for one, explanation in zip(
        several.conservation, several.explanations, strict=True
    ):
        assert one is not None
        assert one.relevance == pytest.approx(explanation.relevance_sum, abs=1e-5)


def test_json_and_pandas(of_text, of_image):
    for found in (of_text[1], of_image):
        written = json.loads(found.to_json())
        assert written["methods"] == list(found.methods)
        assert written["agreement"]["spearman"][0][0] == 1
        assert len(written["explanations"]) == len(found.methods)
    pytest.importorskip("pandas")
    table = of_text[1].to_pandas()
    assert table["AttnLRP"].abs().max() == 1
    assert list(table["token"]) == [p.token for p in of_text[1].explanations[0].pieces]
    assert len(of_image.to_pandas(None)) == 16


@pytest.mark.parametrize("suffix", ["html", "png", "pdf", "svg", "json"])
def test_files(of_text, of_image, tmp_path, suffix):
    pytest.importorskip("jinja2")
    for found in (of_text[1], of_image):
        path = found.save(tmp_path / f"c.{suffix}")
        starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml", "json": b"{"}
        assert path.read_bytes().startswith(starts.get(suffix, b"<!doctype html>"))
    with pytest.raises(UnknownNameError, match=r"cannot save as 'a\.txt'"):
        of_image.save(tmp_path / "a.txt")


def test_page_terminal_and_figure(of_text, of_image):
    for package in ("jinja2", "rich"):
        pytest.importorskip(package)
    page = of_text[1].to_html()
    assert "<script>," not in page and "&lt;" in page
    for name in of_text[1].methods:
        assert f'<h3 class="part">{name}</h3>' in page
        assert name in of_text[1].to_text(width=120)
    assert "Rank agreement" in of_text[1]._repr_html_()
    assert of_image.to_html().count("data:image/png") == 4
    dark = of_image.plot(theme="dark")
    assert dark.get_facecolor() != of_image.plot().get_facecolor()


def test_terminals_and_str_name_the_largest_of_each_method(of_text, of_image):
    pytest.importorskip("rich")
    for found in (of_text[1], of_image):
        printed = " ".join(found.to_text(width=400).split())
        lines = str(found).splitlines()
        assert lines[0] == f"{found.question} {found.explanations[0].answer}"
        rows = zip(found.methods, found.explanations, lines[1:], strict=True)
        for name, one, line in rows:
            top = one.top_parts(5)
            scores = "; ".join(f"{part} {one.scale.write(s)}" for part, s in top)
            assert f"{name} {scores}" in printed
            assert line.split(None, 1)[0] == name.split(None, 1)[0]
            assert line.endswith(", ".join(part for part, _ in top))
        assert "Rank agreement" in printed and "What the scores sum to" in printed
        assert one.top_parts(1)[0][0] in found.alt


def test_the_page_has_every_number_of_every_method(of_text, of_image):
    pytest.importorskip("jinja2")
    for found in (of_text[1], of_image):
        page = Reader(found.to_html())
        rows = page.written.split("All numbers")[-1]
        for name, one, ranked in zip(
            found.methods, found.explanations, found.ranked, strict=True
        ):
            assert name in page.written
            values = one.scores if one.kind == "text" else ranked
            for value in values:
                assert one.scale.write(float(value)) in rows
        rho, tau = (found.agreement(m) for m in ("spearman", "kendall"))
        for r, t in zip(rho.ravel(), tau.ravel(), strict=True):
            both = f"{r:.2f} ({t:.2f})".replace("-0.00", "0.00").replace("-", "−")
            assert both in page.written
    heard = Reader(of_text[1].to_html()).hovered()
    expected = [
        one.scale.write(word.score)
        for one in of_text[1].explanations
        for word in one.words
    ]
    assert heard == expected


def test_one_token(text_folder):
    found = compare("funny", methods=["attnlrp", "saliency"], model=text_folder)
    assert np.isnan(found.agreement()).all()
    assert json.loads(found.to_json())["agreement"]["kendall"][0][0] is None
    pytest.importorskip("rich")
    assert "nan" not in found.to_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "a", "methods": "attnlrp"}, r"write methods=\['attnlrp'\]"),
        ({"text": "a", "methods": []}, "at least one method"),
        ({"text": "a", "methods": ["saliency", "Saliency"]}, "'saliency' twice"),
        ({}, "got neither"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        anything(**arguments)


def test_explanations_of_different_inputs(of_text):
    source, found = of_text
    other = compare("funny", methods=["saliency"], model=source, target="good")
    with pytest.raises(InputError, match="explains another input, model or target"):
        Comparison(
            explanations=(found.explanations[0], other.explanations[0]),
            conservation=(None, None),
        )


def test_the_command(capsys, text_folder, tmp_path):
    for package in ("rich", "jinja2"):
        pytest.importorskip(package)
    report = tmp_path / "c.html"
    arguments = ["compare", "--text", "A warm film", "--model", str(text_folder)]
    methods = ["--methods", "attnlrp, occlusion", "--output", str(report)]
    assert main([*arguments, *methods]) == 0
    printed = capsys.readouterr().out
    assert "Rank agreement" in printed and printed.endswith(f"Wrote {report}\n")
    assert "Occlusion" in report.read_text("utf-8")
    assert main([*arguments, "--methods", "attn"]) == 2
    assert "there is no method 'attn'" in capsys.readouterr().err


def test_the_help_names_the_default_methods(capsys):
    assert main(["compare", "--help"]) == 0
    printed = "".join(capsys.readouterr().out.split())
    assert f"default:{','.join(DEFAULT_METHODS)})" in printed
