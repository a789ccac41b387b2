"""What explanations of many inputs have in common, and how they are shown."""

from __future__ import annotations

import csv

import pytest

import captum_transformer_lrp as lrp
from captum_transformer_lrp import Explanations, TextExplanation
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.models.prediction import ClassScore
from tests.models.tiny import save_text_classifier
from tests.visualization.samples import BAD, GOOD, image_explanation, text_explanation

SURE = ClassScore(index=1, name="good", logit=9.0, probability=0.999)


def review(words="A warm film .", scores=None, **changes):
    return text_explanation(words, scores, **changes)


def test_accuracy_counts_only_what_has_a_label():
    found = Explanations(
        [review(label=GOOD), review(label=BAD), review(label=GOOD), review()]
    )
    assert found.accuracy == pytest.approx(2 / 3)
    assert len(found.labelled) == 3
    assert Explanations([review()]).accuracy is None
    facts = dict(found._facts())
    assert facts["Accuracy"] == "66.7 % (2 of 3)"
    assert facts["Without a verdict"] == "1"


def test_mistakes_come_first_and_the_most_confident_before_others():
    right, unsure = review(label=GOOD), review(label=BAD)
    sure, silent = review(label=BAD, prediction=SURE), review()
    found = Explanations([silent, right, unsure, sure])
    assert found.mistakes_first() == [sure, unsure, silent, right]


def test_words_are_summed_over_texts_and_divided_by_their_number():
    """Case does not matter; punctuation, added tokens, other targets are left out."""
    found = Explanations(
        [
            review("Warm film .", [9, 1.0, -0.5, 7, 9]),
            review("a warm warm", [9, 0.25, 2.0, 3.0, 9]),
            review("warm", [9, 100.0, 9], target=BAD),
        ]
    )
    assert found.words(1) == [("warm", 3.0, 3), ("film", -0.25, 1), ("a", 0.125, 1)]
    assert found.words(0) == [("warm", 100.0, 1)]
    assert found.words(7) == []


def test_words_of_several_methods_are_not_added_up():
    """Two methods on one text have two units: their sum would be no number."""
    found = Explanations([review(), review(method="Saliency", measure="magnitude")])
    with pytest.raises(
        InputError, match="AttnLRP of tiny, Saliency of tiny; expected o"
    ):
        found.words(1)
    other = Explanations([review(), review(model="large")])
    with pytest.raises(InputError, match="AttnLRP of large"):
        other.words(1)
    assert found[:1].words(1) and not found[:1].words(0)
    assert "Words that count most" not in str(found)
    said = "Words are not added up over AttnLRP of tiny, Saliency of tiny."
    assert said in str(found)
    alike = Explanations([review(), review()])
    assert "Words that count most for “good”, per text" in str(alike)


def test_the_same_explanation_twice_has_two_numbers():
    pytest.importorskip("jinja2")
    page = Explanations([review()] * 13).to_html()
    assert all(f">{i}. good" in page for i in range(1, 14))


def test_a_list_of_one_is_kept_as_a_list(tmp_path):
    found = Explanations([review()])
    kept = lrp.load(found.save(tmp_path / "a.json"))
    assert isinstance(kept, Explanations) and len(kept) == 1
    assert isinstance(lrp.load(found[0].save(tmp_path / "b.json")), TextExplanation)
    with pytest.raises(InputError, match="at least one explanation to save"):
        Explanations().save(tmp_path / "c.html")


def test_labels_of_a_regression_are_no_classes(tmp_path):
    """0 and 1 are ratings there, not the first class and one that is not there."""
    pytest.importorskip("transformers")
    model = save_text_classifier(tmp_path / "one", problem_type="regression")
    found = lrp.explain([("a good film", 0), ("a bad film", 1)], model=model)
    assert [one.label for one in found] == [None, None] and found.accuracy is None
    assert found.notes == (
        "The labels are left aside: the model predicts a number, no class.",
    )


def test_a_page_of_many_opens_with_what_they_have_in_common():
    pytest.importorskip("jinja2")
    rows = [review(f"film number {i}", label=GOOD) for i in range(20)]
    rows[5] = review("film number 5", label=BAD)
    page = Explanations(rows, said="reviews.csv: 20 texts").to_html()
    body = page.split("</style>")[1]
    assert body.count("<article") == 1 and body.count('<details class="card"') == 20
    assert "95.0 % (19 of 20)" in body and "reviews.csv: 20 texts." in body
    first = body.split('<details class="card">')[1]
    assert "6. good (92.4 %), true bad: film number 5" in first
    assert ">wrong<" in first and body.count(">wrong<") == 1
    assert "Words that count most for “good”" in body and "20 ×" in body


def test_the_table_of_classes_counts_every_pair():
    found = Explanations(
        [review(label=GOOD), review(label=BAD), review(label=BAD, prediction=BAD)]
    )
    table = found._confusion()
    assert table is not None
    assert table.heads == ("True class", "predicted bad", "predicted good")
    counts = [[cell.text for cell in row[1:]] for row in table.rows]
    assert counts == [["1", "1"], ["0", "1"]]  # true bad, true good
    assert [cell.share for cell in table.rows[0][1:]] == [0.5, 0.5]


def test_a_few_without_labels_stand_open_below_each_other():
    pytest.importorskip("jinja2")
    page = Explanations([review(), image_explanation()]).to_html()
    assert page.count("<article") == 2 and "<details class" not in page


def test_it_is_a_list_that_shows_itself_in_a_line():
    one = review()
    found = Explanations([one], said="data from Python: 1 text")
    assert found == [one] and isinstance(found, list) and found[0] is one
    said = "1 explanation of data from Python: 1 text."
    assert repr(found) == f"<Explanations: {said}>"
    assert len(str(Explanations([review()] * 50)).splitlines()) <= 24
    assert str(Explanations()) == "0 explanations"
    assert "Mean confidence" not in str(found)  # facts are for a page
    many = Explanations([review(label=BAD), review(label=GOOD)])
    assert "Predictions by true class" in str(many)


def test_a_notebook_lists_the_first_of_many_and_says_so():
    pytest.importorskip("jinja2")
    found = Explanations([review(f"film number {i}") for i in range(60)])
    shown = found._repr_mimebundle_()
    assert shown["text/html"].count('<details class="card"') == 20
    assert "The first 20 of 60 are listed here" in shown["text/html"]
    assert found.to_html().count('<details class="card"') == 60
    assert "are listed here" not in found.to_html()
    assert shown["image/png"].startswith(b"\x89PNG")
    assert len(shown["text/plain"].splitlines()) <= 24


def test_the_table_has_a_row_for_each():
    pytest.importorskip("pandas")
    one = review("A warm film .", [0, 0.5, 2, -1, 0, 0], label=BAD)
    found = Explanations([one, image_explanation()]).to_pandas()
    assert found["input"].tolist() == ["A warm film .", "8 by 8 pixels"]
    assert found["right"].tolist() == [False, None]
    assert found["label"][0] == "bad" and found["label"].isna().tolist()[1]
    assert found["confidence"].tolist() == [0.924, 0.924]
    assert found["top"].tolist() == ["warm", "row 2, column 2"]
    assert found["relevance_sum"].tolist() == pytest.approx([1.5, 32])


def test_a_part_of_it_shows_itself_too():
    found = Explanations(
        [review(label=GOOD), review(label=BAD)], said="a", notes=("b",)
    )
    for part in (found[1:], found.mistakes_first()[:1]):
        assert isinstance(part, Explanations) and part == [found[1]]
        assert (part.said, part.notes, part.accuracy) == ("a", ("b",), 0.0)


def write_table(path):
    rows = [("I loved it", "positive"), ("I hated it", "positive")]
    rows.append(("Dull", "negative"))
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def test_labels_of_a_table_are_kept(tmp_path):
    """By name, without regard to case; what is no class of the model is said."""
    found = lrp.explain(write_table(tmp_path / "reviews.csv"))
    assert [one.label.name for one in found] == ["positive", "positive", "negative"]
    assert "with the labels of 'label'" in found.said
    for one in found:
        assert one.right is (one.label.index == one.prediction.index)
    other = lrp.explain([("I loved it", "joy"), ("Dull", None)])
    assert [one.label for one in other] == [None, None]
    assert "No class of the model is called 'joy'" in other.notes[0]
    assert lrp.explain(["I loved it"])[0].label is None


def test_the_command_reports_accuracy_and_writes_the_page(tmp_path, capsys):
    pytest.importorskip("rich")
    page = tmp_path / "report.html"
    table = write_table(tmp_path / "reviews.csv")
    assert main(["explain", str(table), "--show", "1", "--output", str(page)]) == 0
    said = capsys.readouterr().out
    assert "Accuracy" in said and "of 3)" in said
    assert "1 of 3 explanations are printed; see --show" in said
    assert "Predictions by true class" in page.read_text()
    assert main(["explain", str(table), "--label-column", "mood"]) == 2
    assert "mood" in capsys.readouterr().err
    assert main(["explain", "A warm film.", "--label-column", "mood"]) == 2
    assert "--label-column belongs to a table" in capsys.readouterr().err
