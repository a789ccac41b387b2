"""What is saved comes back bit for bit, and what is damaged is refused by its name."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import io
import json
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import captum_transformer_lrp
from captum_transformer_lrp import keeping, load, records, save
from captum_transformer_lrp._packages import MissingPackageError
from captum_transformer_lrp.comparison import Comparison, Conservation
from captum_transformer_lrp.errors import InputError, UnknownNameError
from captum_transformer_lrp.explanation import (
    Explanation,
    ImageExplanation,
    save_explanations,
)
from captum_transformer_lrp.joint import JointExplanation
from captum_transformer_lrp.keeping import from_dict
from captum_transformer_lrp.language import LLMRelevance
from captum_transformer_lrp.models import Piece
from captum_transformer_lrp.models.prediction import ClassScore
from captum_transformer_lrp.records.rows import records_of, rows_of
from captum_transformer_lrp.report import saving
from captum_transformer_lrp.report.blocks import Outline
from tests.visualization.samples import (
    BAD,
    image_explanation,
    image_weights,
    text_explanation,
    text_weights,
)


def needs(package: str) -> Any:
    """Skip a test where a package is not installed."""
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed")


SUFFIXES = (
    ".json",
    pytest.param(".safetensors", marks=needs("safetensors")),
    pytest.param(".parquet", marks=needs("pyarrow")),
)
#: what explanations had not before they named the version that wrote them
ADDED = ("version", "about_sum", "next_token", "image")


def numbers(shape, seed=0):
    """Numbers that only float64 tells apart, a negative zero and the smallest one."""
    found = np.random.default_rng(seed).normal(size=shape)
    found.flat[0], found.flat[-1] = -0.0, 5e-324
    return found


def noisy_picture(mode="RGB", size=(8, 6)):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def words_of_a_tokenizer():
    return (
        Piece(token="[CLS]", text="[CLS]", special=True),
        Piece(token="Ġun", text="un", space_before=True, word=0),
        Piece(token="told", text="told", word=0),
        Piece(token="中", text="中", word=7),
    )


TOLD = words_of_a_tokenizer()
EXPLANATIONS: dict[str, Explanation] = {
    "text": text_explanation(scores=numbers(6), notes=("cut", "“off”\n"), target=BAD),
    "words": text_explanation(scores=numbers(4), pieces=TOLD),
    "tokens": text_explanation(scores=numbers(4), pieces=TOLD).by_token(),
    "labelled": text_explanation(label=BAD),
    "of a regression": text_explanation(
        label=ClassScore(index=0, name="stars", logit=4.5)
    ),
    "next token": text_explanation(
        next_token=True, prediction=ClassScore(index=50256, name=" Paris", logit=-0.0)
    ),
    "baseline": text_explanation(about_sum="They sum to 1.", convergence_delta=1e-300),
    "weights": text_weights(same_for_every_target=True),
    "magnitude": text_weights(measure="magnitude", text=""),
    "picture": image_explanation(6, 8, (2, 4), scores=numbers((6, 8))),
    "noisy": image_explanation(6, 8, None, image=noisy_picture()),
    "grey": image_explanation(6, 8, (6, 8), image=noisy_picture("L")),
    "palette": image_explanation(6, 8, None, image=noisy_picture("P")),
    "patches": image_weights(scores=numbers((2, 5))),
}


def generation(dtype=torch.float32, starts=0, seed=0):
    """A language model's result of 3 tokens after 4 columns."""
    draw = torch.Generator().manual_seed(seed)

    def tensor(*shape):
        return torch.randn(*shape, generator=draw).to(dtype)

    return LLMRelevance(
        token_attr=tensor(3, 4),
        seq_attr=tensor(4),
        input_tokens=["The", " Eiffel", " Ä", "\n"],
        output_tokens=["is", " in", " in"],
        scores=tensor(3),
        log_probs=-tensor(3).float().abs(),
        generated_attr=tensor(3, 3).tril(-1),
        start_attr=tensor(3, starts),
        skipped_attr=tensor(3),
    )


def comparison():
    traces = (Conservation(score=2.5, relevance=0.1, absorbed=0.2, error=1e-17), None)
    texts = (text_explanation(scores=numbers(6)), text_weights())
    return Comparison(explanations=texts, conservation=traces)


def comparison_of_pictures():
    maps = (image_explanation(8, 20, (2, 5)), image_weights(), image_weights())
    return Comparison(explanations=maps, conservation=(None,) * 3)


def assert_same(found: Any, expected: Any) -> None:
    """Two results are the same, numbers bit for bit."""
    assert type(found) is type(expected)
    if isinstance(expected, LLMRelevance):
        assert found.input_tokens == expected.input_tokens
        assert found.output_tokens == expected.output_tokens
        for name in records.GENERATION_TENSORS:
            a, b = getattr(found, name), getattr(expected, name)
            assert (a.dtype, a.shape) == (b.dtype, b.shape), name
            assert torch.equal(a, b), name
        assert vars(found).keys() == vars(expected).keys()
        return
    for field in dataclasses.fields(expected):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if field.name == "explanations":
            for one, other in zip(a, b, strict=True):
                assert_same(one, other)
        elif field.name == "scores":
            assert (a.dtype, a.shape) == (b.dtype, b.shape)
            assert a.tobytes() == b.tobytes()
            assert a.flags.writeable
        elif field.name == "image":
            assert (a.mode, a.size, a.tobytes()) == (b.mode, b.size, b.tobytes())
            assert a.convert("RGB").tobytes() == b.convert("RGB").tobytes()
        else:
            assert a == b, field.name


# -------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", EXPLANATIONS)
def test_an_explanation_comes_back(tmp_path, name, suffix):
    expected = EXPLANATIONS[name]
    path = expected.save(tmp_path / f"ä.{suffix}".replace("..", "."))
    found = load(path)
    assert_same(found, expected)
    assert found.to_dict() == expected.to_dict()
    assert found.to_html() == expected.to_html()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_other_results_come_back(tmp_path, suffix):
    for number, expected in enumerate(
        [
            comparison(),
            comparison_of_pictures(),
            generation(),
            generation(torch.float64, starts=2),
            generation(torch.bfloat16),
        ]
    ):
        path = expected.save(tmp_path / f"{number}{suffix.upper()}")
        found = load(str(path))
        assert_same(found, expected)
    rows = comparison_of_pictures()
    assert (rows.agreement() == load(tmp_path / f"1{suffix.upper()}").agreement()).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_lists_come_back_as_lists(tmp_path, suffix):
    many = list(EXPLANATIONS.values())
    found = load(save_explanations(many, tmp_path / f"a{suffix}"))
    assert len(found) == len(many)
    for one, expected in zip(found, many, strict=True):
        assert_same(one, expected)
    (one,) = load(save(many[:1], tmp_path / f"one{suffix}"))
    assert_same(one, many[0])
    comparisons = [comparison(), comparison(), comparison_of_pictures()]
    for results in (comparisons, [generation(seed=s) for s in range(3)]):
        found = load(save(iter(results), tmp_path / f"b{suffix}"))
        for one, expected in zip(found, results, strict=True):
            assert_same(one, expected)


@pytest.mark.parametrize("suffix", SUFFIXES[:2])
def test_a_list_may_hold_several_kinds(tmp_path, suffix):
    mixed = [generation(), comparison(), text_explanation(), image_explanation()]
    found = load(save(mixed, tmp_path / f"a{suffix}"))
    for one, expected in zip(found, mixed, strict=True):
        assert_same(one, expected)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_any_text_comes_back(tmp_path, suffix):
    draw = random.Random(0)
    letters = [*map(chr, range(1, 0xD800)), *map(chr, range(0xE000, 0x110000, 7))]
    letters += list("\x00\u2028\u200d\ufeff\"\\'</script>.") * 2000

    def text():
        return "".join(draw.choices(letters, k=draw.randrange(12)))

    results = []
    for _ in range(100):
        count = draw.randrange(1, 6)
        pieces = tuple(
            Piece(
                token=text(),
                text=text(),
                special=draw.random() < 0.3,
                space_before=draw.random() < 0.5,
                word=draw.choice([None, draw.randrange(9)]),
            )
            for _ in range(count)
        )
        scores = [draw.choice((-1, 1)) * 10 ** draw.uniform(-300, 2) for _ in pieces]
        score = ClassScore(index=draw.randrange(1 << 40), name=text(), logit=scores[0])
        results.append(
            text_explanation(
                text=text(),
                pieces=pieces,
                scores=scores,
                target=score,
                notes=(text(),) * draw.randrange(3),
                about_sum=draw.choice([None, text()]),
                model=text(),
            )
        )
    found = load(save(results, tmp_path / f"a{suffix}"))
    for one, expected in zip(found, results, strict=True):
        assert_same(one, expected)


def test_files_are_merged_into_one_list(tmp_path):
    pytest.importorskip("safetensors")
    pytest.importorskip("pyarrow")
    names = list(EXPLANATIONS)
    one = EXPLANATIONS[names[0]].save(tmp_path / "a.json")
    two = save([EXPLANATIONS[n] for n in names[1:3]], tmp_path / "b.parquet")
    three = comparison().save(tmp_path / "c.safetensors")
    for found in (
        load(one, two, three),
        load([one, two, three]),
        load([one], two, three),
    ):
        assert [type(f).__name__ for f in found] == ["TextExplanation"] * 3 + [
            "Comparison"
        ]
        assert_same(found[2], EXPLANATIONS[names[2]])
    assert [type(f).__name__ for f in load(tmp_path.glob("a*"))] == ["TextExplanation"]
    assert_same(load(one), EXPLANATIONS[names[0]])


def test_a_picture_of_another_mode_comes_back_in_rgb(tmp_path):
    other = image_explanation(6, 8, None, image=noisy_picture("CMYK"))
    found = load(other.save(tmp_path / "a.json"))
    assert found.image.mode == "RGB"
    assert found.image.tobytes() == other.image.convert("RGB").tobytes()


# -------------------------------------------------------------------------- other tools


def test_a_table_is_read_by_pandas_and_written_again(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    many = list(EXPLANATIONS.values())
    frame = pandas.read_parquet(save(many, tmp_path / "a.parquet"))
    assert len(frame) == len(many)
    first = frame.iloc[0]
    assert list(first["tokens.score"]) == many[0].scores.tolist()
    assert list(first["tokens.text"]) == ["[CLS]", "A", "warm", "film", ".", "[SEP]"]
    assert frame["target.name"].tolist() == [one.target.name for one in many]
    texts = frame[frame["kind"] == "text"].assign(mine=1.5)
    long = texts.explode(["tokens.text", "tokens.score"])
    assert len(long) == sum(len(one.scores) for one in many if one.kind == "text")
    frame.assign(mine="x").iloc[::-1].to_parquet(tmp_path / "b.parquet")
    found = load(tmp_path / "b.parquet")
    for one, expected in zip(found, many[::-1], strict=True):
        assert_same(one, expected)


def test_safetensors_hold_the_scores_as_they_are(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    expected: Any = EXPLANATIONS["picture"]
    tensors = numpy.load_file(expected.save(tmp_path / "a.safetensors"))
    assert set(tensors) == {"0.scores", "0.patch_scores", "0.image"}
    assert tensors["0.scores"].tobytes() == expected.scores.tobytes()
    with Image.open(io.BytesIO(tensors["0.image"].tobytes())) as picture:
        assert picture.tobytes() == expected.image.tobytes()


def test_a_missing_package_is_said_before_the_work(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name, name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for check in (
        lambda: captum_transformer_lrp.explanation.check_suffix("a.parquet"),
        lambda: text_explanation().save(tmp_path / "a.parquet"),
    ):
        with pytest.raises(MissingPackageError, match=r"pyarrow.*lrp\[data\]"):
            check()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_written(tmp_path, suffix, value):
    scores = np.array([1.0, 0, 0, 0, 0, value])
    result = generation()
    result.token_attr[0, 0] = value
    score = ClassScore(index=0, name="a", logit=value)
    for one in (
        text_explanation(scores=scores),
        text_weights(scores=scores),
        text_explanation(target=score),
        image_explanation(8, 8, None, scores=np.full((8, 8), value)),
        result,
    ):
        with pytest.raises(InputError, match=r"'a\.\w+' cannot be written: "):
            one.save(tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_half_a_character_is_not_written(tmp_path, suffix):
    with pytest.raises(InputError, match=r"'a\.\w+' cannot be written: a text holds"):
        text_explanation(text="\ud800").save(tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_saved_together(tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(InputError, match="expected at least one result to save"):
        save([], tmp_path / "a.json")
    with pytest.raises(UnknownNameError, match=r"cannot save as 'a\.csv'"):
        save([comparison(), text_explanation()], tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"two files, or as \.json or \.safetensors"):
        save([generation(), text_explanation()], tmp_path / "a.parquet")
    with pytest.raises(UnknownNameError, match=r"cannot save as 'a\.txt'"):
        generation().save(tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_results_of_several_kinds_stand_on_one_page(tmp_path):
    pytest.importorskip("jinja2")
    given = [generation(), comparison(), text_explanation()]
    page = save(given, tmp_path / "a.html").read_text()
    assert page.count("<article") == 3
    assert "Rank agreement" in page and "Pick a token of the answer" in page
    assert save(comparison().explanations, tmp_path / "b.html").exists()


def refused(path) -> str:
    """The one sentence with which a file is refused; it starts with its name."""
    with pytest.raises(InputError) as raised:
        load(path)
    message = str(raised.value)
    assert message.startswith(f"{str(path)!r} cannot be loaded: "), message
    assert "\n" not in message and len(message) < 600, message
    assert re.search("cannot be loaded: .+, expected .+; .+", message), message
    return message


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_ends_early_is_refused(tmp_path, suffix):
    whole = save(list(EXPLANATIONS.values()), tmp_path / f"a{suffix}").read_bytes()
    path = tmp_path / f"b{suffix}"
    for length in (0, 1, 9, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        assert "damaged" in refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_changed_byte_changes_no_result(tmp_path, suffix):
    expected = text_weights(scores=numbers(6))  # no sum stands beside weights
    whole = expected.save(tmp_path / f"a{suffix}").read_bytes()
    number = whole.find(numbers(6)[2].tobytes())
    assert number > 0
    path = tmp_path / f"b{suffix}"
    draw = random.Random(0)
    places = [number, *(draw.randrange(len(whole)) for _ in range(150))]
    noticed = 0
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            assert_same(load(path), expected)  # it was a byte that says nothing
        except InputError:
            assert "damaged" in refused(path) or "name a file" in refused(path)
            noticed += 1
        assert noticed or place != number
    assert noticed > len(places) / 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".json":
        written = [b"{}", b"3", b'"text"', b"[[1]]", b'{"schema": "other/1"}', b"[3]"]
        written.append(b'{"schema": "captum_transformer_lrp.kept/1"}')
        written.append(b'{"schema": "captum_transformer_lrp.explanation/0"}')
    elif suffix == ".safetensors":
        numpy = pytest.importorskip("safetensors.numpy")
        written = [numpy.save({"weight": np.ones(3)})]
    else:
        pandas = pytest.importorskip("pandas")
        file = io.BytesIO()
        pandas.DataFrame({"text": ["a"], "label": [1]}).to_parquet(file)
        written = [file.getvalue()]
    for content in written:
        path.write_bytes(content)
        assert "name a file that save() of" in refused(path)


def test_other_names_are_refused(tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"cannot load .*page\.html': the suffix"
    ):
        load(text_explanation().save(tmp_path / "page.html"))
    assert "there is no such file" in refused(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    assert "there is no such file" in refused(tmp_path / "folder.json")
    good = text_explanation().save(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"none\.json' cannot be loaded"):
        load(good, tmp_path / "none.json")


def test_a_newer_version_is_named(tmp_path):
    path = tmp_path / "a.json"
    newer = {"schema": "captum_transformer_lrp.explanation/2", "version": "3.1"}
    path.write_text(json.dumps(text_explanation().to_dict() | newer))
    message = refused(path)
    assert "newer version" in message and "'3.1'" in message
    assert captum_transformer_lrp.__version__ in message
    path.write_text(json.dumps(text_explanation().to_dict() | {"a later key": 1}))
    assert_same(load(path), text_explanation())


#: key -> values that it cannot have
IMPOSSIBLE: dict[str, list[Any]] = {
    "kind": [3, "sound", None],
    "model": [3, None],
    "prediction": [[], {"index": 0}],
    "target": [{"index": -1, "name": "a", "logit": 0.0, "probability": None}],
    "measure": ["size", ["relevance"]],
    "same_for_every_target": [1, None],
    "relevance_sum": ["0", None, 10**400, 0.1],
    "convergence_delta": ["0", True],
    "notes": ["cut", [1]],
    "about_sum": [3],
    "text": [None],
    "next_token": [None, "no"],
    "tokens": [None, {}, [3], [{"token": "a"}], []],
}
IMPOSSIBLE_PICTURE: dict[str, list[Any]] = {
    "height": [9, -8, 8.0, "8", 1 << 40],
    "width": [16],
    "scores": [[[1.0]], [[1.0], [1.0, 2.0]], "scores", [["1"]], [[None] * 8] * 8],
    "patch_scores": [[[1.0]], [[0.0] * 9] * 9, [1.0]],
    "image": [
        None,
        "",
        "text",
        "AAAA",
        3,
        base64.b64encode(b"\x89PNG\r\n\x1a\n").decode(),
    ],
}


@pytest.mark.parametrize(
    ("kind", "key"),
    [("text", k) for k in IMPOSSIBLE] + [("image", k) for k in IMPOSSIBLE_PICTURE],
)
def test_impossible_values_are_refused(tmp_path, kind, key):
    whole = (text_explanation() if kind == "text" else image_explanation()).to_dict()
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole))
    load(path)
    values = IMPOSSIBLE[key] if kind == "text" else IMPOSSIBLE_PICTURE[key]
    for value in values:
        path.write_text(json.dumps(whole | {key: value}))
        refused(path)
        path.write_text(json.dumps([whole, whole | {key: value}]))
        assert "result 2: " in refused(path)


@pytest.mark.parametrize("name", ["text", "picture", "comparison", "generation"])
def test_no_key_may_be_lost(tmp_path, name):
    made = {"comparison": comparison, "generation": generation}
    whole = (made[name]() if name in made else EXPLANATIONS[name]).to_dict()
    derived = {"methods", "agreement"}
    # the first files do not have them
    later = {"score_name", "task", "marks", "outlines"}
    for key in whole.keys() - derived - later - {"version"}:
        path = tmp_path / "a.json"
        path.write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        refused(path)
    if name in EXPLANATIONS:
        path.write_text(json.dumps({k: v for k, v in whole.items() if k not in later}))
        assert load(path).to_dict() == whole


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_json_that_is_not_finite_is_refused(tmp_path, number):
    text = text_explanation().to_json().replace('"logit": 2.5', f'"logit": {number}')
    path = tmp_path / "a.json"
    path.write_text(text)
    assert "finite" in refused(path)
    path.write_bytes(b"[" * 100_000)
    assert "complete JSON" in refused(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "complete JSON" in refused(path)


def test_a_generation_must_fit_its_tokens(tmp_path):
    whole = generation().to_dict()
    path = tmp_path / "a.json"
    changes: dict[str, list[Any]] = {
        "input_tokens": [["a"], "abcd"],
        "output_tokens": [[]],
        "token_attr": [[[1.0]], [1.0], None],
        "generated_attr": [[[0.0]]],
        "start_attr": [[[]]],
        "skipped_attr": [[0.0], [0.0, 0.0, 0.1]],  # 0.1 is not of float32
        "dtypes": [{**whole["dtypes"], "scores": "int8"}, {}],
    }
    for key, values in changes.items():
        for value in values:
            path.write_text(json.dumps(whole | {key: value}))
            refused(path)


def test_a_comparison_must_be_of_one_input(tmp_path):
    whole = comparison().to_dict()
    path = tmp_path / "a.json"
    others = [whole["explanations"][0], text_explanation("Other.").to_dict()]
    changes: list[dict[str, Any]] = [
        {"explanations": others},
        {"explanations": []},
        {"explanations": [3, 4]},
        {"explanations": [whole, whole]},
        {"conservation": [None]},
        {"conservation": [None, 3]},
        {"conservation": [None, {"score": 1.0}]},
    ]
    for change in changes:
        path.write_text(json.dumps(whole | change))
        refused(path)


def test_a_picture_that_unpacks_to_more_is_refused(tmp_path):
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, format="PNG")
    bomb = base64.b64encode(file.getvalue()).decode()
    path = tmp_path / "a.json"
    path.write_text(json.dumps(image_explanation().to_dict() | {"image": bomb}))
    assert "4000 x 4000 pixels" in refused(path)
    file = io.BytesIO()
    noisy_picture(size=(8, 8)).save(file, format="JPEG")
    other = base64.b64encode(file.getvalue()).decode()
    path.write_text(json.dumps(image_explanation().to_dict() | {"image": other}))
    assert "a PNG in base64" in refused(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_too_large_is_refused(tmp_path, suffix, monkeypatch):
    many = [text_explanation(text="a" * 10_000)] * 300
    path = save(many, tmp_path / f"a{suffix}")
    limit = {".json": 10_000, ".safetensors": 10_000}.get(
        suffix, path.stat().st_size + 1000
    )
    monkeypatch.setattr(records.refusal, "MOST_BYTES", limit)
    assert "save the results into several files" in refused(path)
    monkeypatch.setattr(records.refusal, "MOST_BYTES", 1 << 31)
    assert len(load(path)) == 300


def test_a_header_that_safetensors_cannot_hold_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.setattr(records.tensors, "MOST_HEADER", 1000)
    with pytest.raises(InputError, match=r"header would hold more.*\.parquet"):
        save([text_explanation()] * 3, tmp_path / "a.safetensors")


def test_a_header_with_other_tensors_is_refused(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    header = json.dumps({"several": True, "rows": [text_explanation().to_dict()]})
    for name, values, rows in (
        ("7.tokens.score", np.zeros(6), header),
        ("x", np.zeros(6), header),
        ("0.tokens.score", np.zeros(6, dtype=np.float32), header),
        ("0.tokens.score", np.zeros(6), "[]"),
        ("0.tokens.score", np.zeros(6), '{"several": true, "rows": [1]}'),
        ("0.tokens.score", np.zeros(6), "{"),
    ):
        path = tmp_path / "a.safetensors"
        metadata = {"captum_transformer_lrp": rows, "sha256": "0"}
        path.write_bytes(numpy.save({name: values}, metadata))
        assert "damaged" in refused(path)


# --------------------------------------------------------------- files written before


def older(explanation):
    found = {k: v for k, v in explanation.to_dict().items() if k not in ADDED}
    for token in found.get("tokens", ()):
        del token["word"]
    return found


def test_texts_of_a_version_before_are_loaded(tmp_path):
    path = tmp_path / "a.json"
    expected = text_explanation(notes=("cut",), pieces=TOLD, scores=numbers(4))
    path.write_text(json.dumps(older(expected), indent=2))
    found = load(path)
    assert found.scores.tobytes() == expected.scores.tobytes()
    assert found.pieces == tuple(dataclasses.replace(p, word=None) for p in TOLD)
    assert (found.notes, found.about_sum, found.next_token) == (("cut",), None, False)
    both = comparison()
    written = both.to_dict() | {"explanations": [older(e) for e in both.explanations]}
    del written["version"]
    path.write_text(json.dumps(written))
    assert_same(load(path), both)


def test_pictures_of_a_version_before_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(older(image_explanation())))
    message = refused(path)
    assert "without the picture" in message and "explain the picture again" in message
    assert isinstance(from_dict(image_explanation().to_dict()), ImageExplanation)


def test_the_names_say_what_there_is():
    found = re.findall(r"``(\.\w+)``", keeping.save.__doc__)
    assert tuple(found) == (*records.SUFFIXES, *saving.SUFFIXES)


def joint():
    """A picture with a box, and the text that the model read beside it."""
    picture = dataclasses.replace(
        image_explanation(), outlines=(Outline.of_box("cat", 1, 2, 8.5, 7),)
    )
    return JointExplanation(
        parts_of={"picture": picture, "label": text_explanation("a cat")},
        model="clip",
        method="AttnLRP",
        prediction=BAD,
        target=BAD,
        convergence_delta=0.5,
        task="zero-shot-image-classification",
        score_name="logit",
    )


def test_several_inputs_at_once(tmp_path):
    whole = joint()
    kept = load(whole.save(tmp_path / "one.json"))
    assert isinstance(kept, JointExplanation)
    assert kept.to_dict() == whole.to_dict()
    assert list(kept) == ["picture", "label"]
    seen, drawn = kept["picture"], whole["picture"]
    assert isinstance(seen, ImageExplanation) and isinstance(drawn, ImageExplanation)
    assert seen.outlines == drawn.outlines != ()
    assert kept.relevance_sum == whole.relevance_sum
    record = whole.to_dict()
    for parts, message in (
        ([], "'parts' is empty"),
        ([1], "'parts[0]' is 1"),
        ([{"name": "a", "explanation": {}}], "'parts[0].explanation.kind' is missing"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            from_dict({**record, "parts": parts})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_outlines_of_a_picture(tmp_path, suffix):
    picture = joint()["picture"]
    assert isinstance(picture, ImageExplanation)
    kept = load(picture.save(tmp_path / f"one{suffix}"))
    assert kept.outlines == picture.outlines
    assert kept.to_dict() == picture.to_dict()


@pytest.mark.parametrize("path", ["5 5", "M5 5L", "M1 2 3Z", "Ma bZ"])
def test_outline_of_another_form(path):
    record = joint()["picture"].to_dict()
    record["outlines"][0]["path"] = path
    with pytest.raises(InputError, match=re.escape("'outlines[0].path' is")):
        from_dict(record)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_several_inputs_in_rows(tmp_path, suffix):
    """A row for the whole, and one for each input, among those of others."""
    whole, text = joint(), text_explanation("a dog")
    alone = load(whole.save(tmp_path / f"one{suffix}"))
    assert isinstance(alone, JointExplanation) and alone.to_dict() == whole.to_dict()
    several = [whole, text, whole]
    kept = load(save(several, tmp_path / f"all{suffix}"))
    assert [type(one) for one in kept] == [type(one) for one in several]
    assert [one.to_dict() for one in kept] == [one.to_dict() for one in several]


def test_an_input_of_no_explanation_is_refused():
    rows = [*rows_of([joint().to_dict()])]
    assert [row.get("part") for row in rows] == [None, "picture", "label"]
    with pytest.raises(InputError, match="'picture' is of no explanation"):
        records_of(rows[1:])
