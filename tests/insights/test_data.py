"""What the examples are, and what is refused."""

from __future__ import annotations

import struct
import zlib

import pytest

from captum_transformer_lrp import insights
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.insights import read_data
from captum_transformer_lrp.insights.uploads import (
    MAX_BYTES,
    MAX_CHARACTERS,
    check_text,
    open_upload,
)
from captum_transformer_lrp.models.labels import Labels, match_labels

PIL = pytest.importorskip("PIL.Image")


def labels_of(data, names) -> Labels:
    given = [example.label for example in data.examples]
    return match_labels(given, names, folders=data.folder is not None)


def pairs(data):
    return [(e.number, e.value, e.label) for e in data.examples]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", 'label,text\n1,"Warm, funny"\n0,Dull\n', {}),
        ("a.csv", "Score,Body\n1,Warm\n0,Dull\n", ("body", "score")),
        ("a.tsv", "sentence\tlabel\nWarm\t1\nDull\t0\n", {}),
        ("a.tsv", "1\tWarm\n0\tDull\n", ("2", "1")),
        ("a.jsonl", '{"text":"Warm","label":"1"}\n\n{"text":"Dull","label":"0"}\n', {}),
    ],
)
def test_texts_and_labels_of_a_table(tmp_path, name, content, columns):
    path = tmp_path / name
    path.write_text(content)
    options = dict(zip(("text_column", "label_column"), columns, strict=False))
    (first, second) = pairs(read_data(path, **options))
    assert first[0] == 1 and first[1].startswith("Warm") and first[2] == "1"
    assert second == (2, "Dull", "0")


def test_lines_and_tables_without_labels(tmp_path):
    (tmp_path / "a.txt").write_text("Warm\n\n  Dull  \n")
    assert pairs(read_data(tmp_path / "a.txt")) == [
        (1, "Warm", None),
        (2, "Dull", None),
    ]
    (tmp_path / "a.csv").write_text("text,stars\nWarm,5\n")
    assert pairs(read_data(str(tmp_path / "a.csv"))) == [(1, "Warm", None)]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("a.csv", "x,y\n1,2\n", {}, "names no column 'text' or 'sentence'"),
        ("a.csv", "text,y\nWarm,2\n", {"label_column": "label"}, "--label-column"),
        ("a.csv", "text,label\nWarm\n", {}, "a row of .* has 1 columns"),
        ("a.csv", "text,label\nWell, 1,0\n", {}, "needs quotes around it"),
        ("a.csv", "text,y\nWarm,2\n", {"label_column": "2"}, "name both alike"),
        ("a.jsonl", "{\n", {}, "line 1 of .* is not JSON"),
        ("a.jsonl", '{"text":"a","label":[1]}\n', {}, r"has the label \[1\]"),
        ("a.json", "[]", {}, "expected .jsonl"),
        ("a.txt", " \n", {}, "holds no text"),
        ("a.txt", "Warm\n", {"text_column": "1"}, "one text per line"),
        ("a.txt", "Warm\n", {"limit": 0}, "limit of at least 1"),
        ("a.png", "Warm\n", {}, "is one picture"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, name, content, options, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_data(tmp_path / name, **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "got int"),
        ([], "at least one example"),
        ([("a", 1, 2)], r"a tuple of 3 \(str, int, int\)"),
        ([("a", True)], "label of item 1"),
        (["a", PIL.new("RGB", (2, 2))], "mixes texts and pictures"),
        (["a", " "], "item 2 of data= is an empty text"),
        ("nowhere.csv", "there is no file 'nowhere.csv'"),
    ],
)
def test_data_from_python_that_is_none(data, message):
    with pytest.raises(InputError, match=message):
        read_data(data)


def test_a_limit_takes_examples_from_everywhere_and_keeps_their_numbers():
    data = read_data([str(i) for i in range(10)], limit=4)
    assert [e.number for e in data.examples] == [1, 3, 6, 8]
    assert [e.value for e in data.examples] == ["0", "2", "5", "7"]
    assert data.total == 10 and "4 of 10 examples" in data.notes[0]


@pytest.fixture
def pictures(tmp_path):
    """Two classes, and links to a picture outside and to a folder outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    PIL.new("RGB", (4, 4), "red").save(outside / "secret.png")
    root = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        PIL.new("RGB", (6, 4), "blue").save(root / name / "1.png")
    (root / "cat" / "notes.txt").write_text("no picture")
    (root / "cat" / ".hidden.png").write_text("no picture")
    (root / "cat" / "link.png").symlink_to(outside / "secret.png")
    (root / "more").symlink_to(outside)
    return root


def test_sub_folders_are_classes_and_links_out_are_left_out(pictures):
    data = read_data(pictures)
    assert data.kind == "image"
    assert [(e.name, e.label) for e in data.examples] == [
        ("cat/1.png", "cat"),
        ("dog/1.png", "dog"),
    ]
    assert data.notes[0].startswith("2 links were left out")
    picture = data.open(data.examples[0])
    assert isinstance(picture, PIL.Image) and picture.size == (6, 4)


def test_a_picture_that_becomes_a_link_is_refused(pictures):
    data = read_data(pictures)
    (pictures / "cat" / "1.png").unlink()
    (pictures / "cat" / "1.png").symlink_to(pictures.parent / "outside/secret.png")
    with pytest.raises(InputError, match="leads out of the folder"):
        data.open(data.examples[0])


def test_a_link_within_the_folder_is_shown(pictures):
    (pictures / "dog" / "2.png").symlink_to(pictures / "cat" / "1.png")
    names = [e.name for e in read_data(pictures).examples]
    assert names == ["cat/1.png", "dog/1.png", "dog/2.png"]


def test_a_folder_without_pictures(tmp_path):
    with pytest.raises(InputError, match="holds no picture"):
        read_data(tmp_path)


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("Cat", 0),
        ("guinea_pig", 1),
        ("Guinea-Pig", 1),
        ("2", 2),
        (2, 2),
        ("3", None),
        (3, None),
        (-1, None),
        ("wolf", None),
        (None, None),
    ],
)
def test_labels_are_names_or_numbers(label, index):
    found = labels_of(read_data([("a", label)]), ("Cat", "guinea pig", "dog"))
    assert found.indices == (index,)
    assert bool(found.notes) == (index is None and label is not None)


def test_names_that_are_digits_are_names():
    found = labels_of(read_data([("a", "1"), ("b", 1)]), ("1", "0"))
    assert found.indices == (0, 1)


@pytest.mark.parametrize("names", [(), ("LABEL_0", "LABEL_1")])
def test_folders_are_classes_in_order_where_no_class_has_their_name(pictures, names):
    found = labels_of(read_data(pictures), names)
    assert found.indices == (0, 1)
    assert found.notes == (
        "The folders are taken for the model's classes in alphabetical order: 'cat' is "
        "class 0.",
    )


def test_folders_are_no_classes_where_their_number_is_another(pictures):
    found = labels_of(read_data(pictures), ("a", "b", "c"))
    assert found.indices == (None, None)


def bomb(width, height):
    """A PNG of some bytes that says to be of this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)

    def chunk(kind, data):
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "choose a picture"),
        (b"GIF89a" + b"\0" * MAX_BYTES, "10.0 MiB; at most 10 MiB"),
        (b"<svg onload=alert(1)>", "no picture, or broken"),
        (b"\x89PNG\r\n\x1a\n", "no picture, or broken"),
        (bomb(10, 10)[:45], "no picture, or broken"),
        (bomb(8000, 8000), "8,000 x 8,000 pixels; at most 50 million"),
        (bomb(10_000, 10_000), "far more; at most 50 million"),  # Pillow warns
        (bomb(60_000, 60_000), "far more; at most 50 million"),  # Pillow refuses
    ],
    ids=["none", "large", "svg", "cut", "short", "wide", "bomb", "huge"],
)
def test_uploads_that_are_refused(content, message):
    with pytest.raises(InputError, match=message):
        open_upload(content)


def test_a_bomb_is_refused_where_warnings_are_only_printed():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match="10,000 x 10,000 pixels"):
            open_upload(bomb(10_000, 10_000))


def test_texts_of_ones_own():
    assert check_text("  warm ") == "warm"
    with pytest.raises(InputError, match="write a text"):
        check_text(" \n")
    with pytest.raises(InputError, match="at most 10,000"):
        check_text("a" * (MAX_CHARACTERS + 1))


def test_data_and_model_of_two_kinds():
    pytest.importorskip("panel", reason="panel, which the app is made with")
    pytest.importorskip("transformers")
    with pytest.raises(InputError, match="transform= does not belong to data of kind"):
        insights.App(None, ["a"], transform=print)
    with pytest.raises(InputError, match="tokenizer= belongs to a module"):
        insights.App("built-in", ["a"], tokenizer=print)
    with pytest.raises(InputError, match=r"nn\.Module or a TextModel, got int"):
        insights.App(7, ["a"])
