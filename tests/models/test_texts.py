"""One reader of texts: what each kind of source gives, and what is refused."""

from __future__ import annotations

import gzip

import pytest

from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.models import texts as module
from captum_transformer_lrp.models.texts import is_table, read_texts


def pairs(source, **options):
    return [(row.text, row.label) for row in read_texts(source, **options).rows]


@pytest.mark.parametrize(
    ("name", "written", "column", "texts"),
    [
        ("a.txt", "one\n\n  two  \n", None, ["one", "two"]),
        ("a", "\ufeffone", None, ["one"]),
        ("a.tsv", 'label\tSentence\n1\t"so" good\n0\t\n', None, ['"so" good']),
        ("a.csv", 'text,label\n"a, b",1\n\n"c\nd",0\n', None, ["a, b", "c\nd"]),
        ("a.csv", "text;label\nwell, it is;1\nno;0\n", None, ["well, it is", "no"]),
        ("a.csv", 'text;label\n"a; b";1\nc;0\n', None, ["a; b", "c"]),
        ("a.csv", "text,label\na; b; c,1\nd; e; f,0\n", None, ["a; b; c", "d; e; f"]),
        ("a.csv", "text\tlabel\na, b\t1\n", None, ["a, b"]),
        ("a.csv", "text,y\na,1,,\n", None, ["a"]),
        ("a.csv", "id,review\n1,fine\n", "review", ["fine"]),
        ("a.csv", "id,Review\n1,fine\n", "review", ["fine"]),
        ("a.tsv", "1\tgood film\n0\tbad film\n", "2", ["good film", "bad film"]),
        ("a.TSV", "1\t2\nx\ty\n", "2", ["2", "y"]),  # a number is a place
        ("a.jsonl", '{"text": "a"}\n\n{"text": "b\u2028c"}', None, ["a", "b\u2028c"]),
        ("a.jsonl", '{"text": "a", "q": "b"}', "q", ["b"]),
        ("a.tsv.gz", "text\nzipped\n", None, ["zipped"]),
    ],
)
def test_texts_from_files(tmp_path, name, written, column, texts):
    path = tmp_path / name
    raw = written.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    assert [text for text, _ in pairs(path, text_column=column)] == texts


def test_what_was_read_is_said(tmp_path):
    path = tmp_path / "reviews.csv"
    path.write_text("id,Text,label\n1,Warm.,positive\n2,Dull.,negative\n3,,positive\n")
    found = read_texts(str(path))
    assert [(r.number, r.text, r.label) for r in found.rows] == [
        (1, "Warm.", "positive"),
        (2, "Dull.", "negative"),
    ]
    assert found.said == (
        "reviews.csv: 2 texts of the column 'Text', with the labels of 'label'"
    )
    lines = tmp_path / "a.txt"
    lines.write_text("one\n")
    assert read_texts(lines).said == "a.txt: 1 text"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings_that_say_what_they_are(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nŚwietny film,1\n", encoding=encoding)
    assert pairs(path) == [("Świetny film", "1")]


@pytest.mark.parametrize(
    ("name", "written", "column", "message"),
    [
        ("a.txt", b" \n", None, "holds no text"),
        ("a.txt", b"\xff\xfe\x00", None, "is not a text file in UTF-8"),
        ("a.txt", "déjà".encode("latin-1"), None, "is not a text file in UTF-8; save"),
        ("a.gz", b"plain", None, "is not a text file"),
        ("a.txt", b"one", "text", "one text per line, so that it has no column 'text'"),
        ("a.json", b"[]", None, "expected .jsonl"),
        ("a.tsv", b"1\tgood\n", None, "columns are: 1, good. Name one with --text-col"),
        ("a.tsv", b"a\tb\n", "c", "names no column 'c'"),
        ("a.tsv", b"a\tb\nc\n", "b", r"a row .* has 1 columns, and column 2 is read"),
        ("a.csv", b"", None, "holds no text"),
        (
            "a.csv",
            b"text\nwell, yes\n",
            None,
            "2 columns, and the first row 1: .* quot",
        ),
        ("a.tsv", b"text\ty\na\t1\tb\n", None, "has 3 columns, and the first row 2"),
        ("a.jsonl", b"{}", None, "line 1 .* no text under 'text' or 'sentence'"),
        ("a.jsonl", b"[1]", None, r"line 1 .* is a list of 1 \(int\)"),
        ("a.jsonl", b'{"texts": "a"}', None, "Did you mean 'texts'"),
        ("a.jsonl", b'{"text": 3}', None, "line 1 .* has no text under"),
        ("a.jsonl", b'{"text": "a"}\n{', None, "line 2 .* is not JSON"),
    ],
)
def test_files_without_texts(tmp_path, name, written, column, message):
    (tmp_path / name).write_bytes(written)
    with pytest.raises(InputError, match=message):
        read_texts(tmp_path / name, text_column=column)


def test_a_small_file_does_not_take_all_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1 << 20)
    path = tmp_path / "bomb.txt.gz"
    path.write_bytes(gzip.compress(b"a" * (1 << 21)))
    assert path.stat().st_size < 1 << 12
    with pytest.raises(InputError, match="more than 1 MiB of text"):
        read_texts(path)


@pytest.mark.parametrize(
    "source",
    [
        ["one", " two "],
        ("one", "two"),
        (text for text in ("one", "", "two")),
        [("one", None), ["two", None]],
        [{"text": "one"}, {"text": "two"}],
        {"one": 1, "two": 2}.keys(),
    ],
)
def test_texts_from_python(source):
    assert pairs(source) == [("one", None), ("two", None)]


def test_labels_from_python():
    assert pairs([("a", 1), ("b", "good"), ("c", None)]) == [
        ("a", 1),
        ("b", "good"),
        ("c", None),
    ]
    rows = [{"q": "a", "y": 1}, {"q": "b", "y": 0}]
    assert pairs(rows, text_column="q", label_column="y") == [("a", 1), ("b", 0)]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (7, {}, "got int"),
        (b"text", {}, "got bytes"),
        ({"text": ["a"]}, {}, "got dict"),
        ([], {}, "data from Python holds no text"),
        (["a", 3], {}, "item 2 is of type int; expected a text"),
        ([("a", 1, 2)], {}, r"item 1 is a tuple of 3 \(str, int, int\)"),
        ([("a", True)], {}, "item 1 has the label True"),
        ([("a", 1.5)], {}, "item 1 has the label 1.5"),
        (["a"], {"text_column": "q"}, "column 'q' was named"),
        ([{"q": "a"}], {}, "item 1 has no text under"),
    ],
)
def test_what_is_no_source(source, options, message):
    with pytest.raises(InputError, match=message):
        read_texts(source, **options)


def test_data_frames():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"Text": ["Warm.", "Dull."], "label": [1, None]})
    assert is_table(frame) and not is_table(["Warm."])
    assert pairs(frame) == [("Warm.", 1), ("Dull.", None)]
    assert pairs(frame["Text"]) == [("Warm.", None), ("Dull.", None)]
    assert pairs(frame, text_column="text")[0] == ("Warm.", 1)
    with pytest.raises(InputError, match="has no column 'review'; its 2 columns are"):
        read_texts(frame, text_column="review")
    with pytest.raises(InputError, match="row 2 of the table is a tuple"):
        read_texts(pandas.DataFrame({"text": ["a", None]}))


def test_parquet(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    frame = pandas.DataFrame({"sentence": ["Warm.", "Dull."], "label": ["good", "bad"]})
    frame.to_parquet(path)
    assert pairs(path) == [("Warm.", "good"), ("Dull.", "bad")]
    assert "of the column 'sentence', with" in read_texts(path).said
    path.write_bytes(b"text")
    with pytest.raises(InputError, match="is not a Parquet file"):
        read_texts(path)
    with pytest.raises(InputError, match="there is no file"):
        read_texts(tmp_path / "b.parquet")


def test_data_sets_of_the_library_datasets():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["Warm.", "Dull."], "label": [1, 0]})
    assert pairs(data) == [("Warm.", 1), ("Dull.", 0)]
    splits = datasets.DatasetDict({"train": data})
    with pytest.raises(InputError, match="expected one of its splits: 'train'"):
        read_texts(splits)


def test_a_table_is_known_by_its_library_without_it():
    class Dataset:
        column_names = ("text", "label")

        def __getitem__(self, name):
            return {"text": ["a", "b"], "label": [1, 0]}[name]

    Dataset.__module__ = "datasets.arrow_dataset"
    assert pairs(Dataset()) == [("a", 1), ("b", 0)]
