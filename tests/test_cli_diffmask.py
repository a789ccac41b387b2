"""The commands ``diffmask fit`` and ``diffmask explain``, and what is behind them."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch

from captum_transformer_lrp.cli import main
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.masking import (
    TextMasks,
    read_groups,
    read_texts,
    text_batches,
)
from tests.models.tiny import save_language_model, save_text_classifier

pytest.importorskip("transformers")
pytest.importorskip("safetensors")

TEXTS = [
    "the film was warm and funny",
    "dull !",
    "never a great film , and never funny",
    "unbelievable",
    "the dull film was funny .",
    "a warm , great film",
] * 3


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    return save_text_classifier(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.txt"
    path.write_text("\n".join(TEXTS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def masks_folder(tmp_path_factory, model_folder, data):
    """Masks that the command has trained for a few steps."""
    folder = tmp_path_factory.mktemp("masks") / "new" / "masks"
    assert main(fit_arguments(model_folder, data, folder)) == 0
    return folder


def fit_arguments(model, data, output, *more):
    few = ["--steps", "4", "--batch-size", "8"]
    given = ["--model", model, "--data", data, "--output", output]
    return ["diffmask", "fit", *map(str, given), *few, *map(str, more)]


def explain_arguments(masks, *more):
    return ["diffmask", "explain", "--masks", str(masks), *map(str, more)]


def fails(capsys, arguments):
    """Run the command, expect exit code 2 and one line on stderr; return the line."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("captum-transformer-lrp")
    return lines[0]


# -------------------------------------------------------------------------------- fit


@pytest.mark.filterwarnings("default:with all tokens replaced:UserWarning")
def test_fit_prints_a_report_and_writes_masks(capsys, model_folder, data, tmp_path):
    validation = tmp_path / "dev.txt"
    validation.write_text("a great film\ndull", encoding="utf-8")
    checkpoint = tmp_path / "checkpoint"
    more = ["--validation", validation, "--checkpoint", checkpoint]
    folder = tmp_path / "masks"
    arguments = fit_arguments(model_folder, data, folder, *more, "--margin", "0.02")
    assert main([*arguments, "--keep-special-tokens"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("4 steps")
    assert "bert.embeddings.word_embeddings (output)" in captured.out
    assert "within the margin of 0.0200 nats, measured on 2 examples" in captured.out
    assert "of the validation data." in captured.out
    assert captured.out.endswith(f"Wrote {folder}\n")
    assert "DiffMask" in captured.err  # the bar
    assert checkpoint.is_file()
    settings = json.loads((folder / "texts.json").read_text("utf-8"))
    assert settings["model"]["source"] == str(model_folder.resolve())
    assert (settings["texts"], settings["validation_texts"]) == (18, 2)
    assert len(settings["report"]) == 4
    masks = TextMasks.load(folder)
    # [PAD], [CLS] and [SEP], but not [UNK], which stands for words
    assert sorted(masks.mask.never_mask) == [0, 2, 3]
    (one,) = masks.maps(["dull"])
    assert one.always_kept == (True, False, True)
    assert (one.kept[:, [0, 2]] == 1).all() and one.margin == 0.02


def test_fit_is_reproducible_by_seed(model_folder, data, tmp_path, masks_folder):
    def weights(folder):
        from safetensors.torch import load_file

        return load_file(folder / "masks.safetensors")

    assert main(fit_arguments(model_folder, data, tmp_path / "again")) == 0
    other = fit_arguments(model_folder, data, tmp_path / "other", "--seed", "1")
    assert main(other) == 0
    first, again = weights(masks_folder), weights(tmp_path / "again")
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(
        torch.equal(first[k], v) for k, v in weights(tmp_path / "other").items()
    )


def test_input_mode(capsys, model_folder, data, tmp_path):
    folder = tmp_path / "masks"
    assert main(fit_arguments(model_folder, data, folder, "--mode", "input")) == 0
    (one,) = TextMasks.load(folder).maps(["a great film"])
    assert one.mode == "input"
    assert (np.diff(one.kept, axis=0) <= 1e-6).all()


def test_language_models(data, tmp_path):
    folder = save_language_model(tmp_path / "gpt")
    assert main(fit_arguments(folder, data, tmp_path / "masks")) == 0
    short, long = TextMasks.load(tmp_path / "masks").maps(["the", "the best movie"])
    assert short.next_token and short.kept.shape == (4, len(short.pieces))
    assert len(long.pieces) > len(short.pieces) and long.tokens[0] == "the"
    assert long.names.labels[0] == "embedding"


# ---------------------------------------------------------------------------- explain


def test_explain_prints_a_map(capsys, masks_folder):
    pytest.importorskip("rich")
    assert main(explain_arguments(masks_folder, "--text", "a warm film")) == 0
    printed = capsys.readouterr().out
    assert "Up to which layer does “" in printed
    assert "emb" in printed and "warm" in printed and "[CLS]" in printed
    assert str(masks_folder) in printed.replace("\n", "")
    assert "\x1b" not in printed  # not a terminal
    assert "by kind of token" not in printed  # there is one text only


@pytest.mark.parametrize("suffix", ["html", "png", "json"])
def test_explain_writes_maps(capsys, masks_folder, tmp_path, suffix):
    pytest.importorskip("rich")
    pytest.importorskip("jinja2")
    (tmp_path / "texts").write_text("a warm film\n\n@ dull film\n", encoding="utf-8")
    output = tmp_path / f"maps.{suffix}"
    more = ["--text", f"@{tmp_path / 'texts'}", "--output", output, "--show", "1"]
    assert main(explain_arguments(masks_folder, *more)) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 maps are printed; see --show" in printed
    assert printed.count("The model predicts") == 1
    assert "What is kept, by kind of token" in printed and "special tokens" in printed
    assert printed.endswith(f"Wrote {output}\n")
    if suffix == "json":
        found = json.loads(output.read_text("utf-8"))
        assert [m["text"] for m in found] == ["a warm film", "@ dull film"]
    elif suffix == "html":
        assert output.read_text("utf-8").count("<article") == 3


def test_explain_escapes_what_it_reads(masks_folder, tmp_path):
    pytest.importorskip("rich")
    pytest.importorskip("jinja2")
    output = tmp_path / "map.html"
    text = "<script>alert(1)</script> <img src=x onerror=alert(1)> film"
    assert (
        main(explain_arguments(masks_folder, "--text", text, "--output", output)) == 0
    )
    page = output.read_text("utf-8")
    assert page.count("<script>") == 1 and "<img" not in page
    assert "&lt;img src=x" in page


def test_groups_of_the_user_and_their_chart(capsys, masks_folder, tmp_path):
    pytest.importorskip("rich")
    groups = tmp_path / "part_of_speech.tsv"
    groups.write_text("film\tnoun\nwarm\tadjective\nDull\tadjective\n", "utf-8")
    groups.write_text(groups.read_text("utf-8").lower(), "utf-8")
    chart = tmp_path / "chart.csv"
    more = ["--text", "Dull, warm film", "--groups", groups, "--chart", chart]
    assert main(explain_arguments(masks_folder, *more)) == 0
    printed = capsys.readouterr().out
    assert "What is kept, by part of speech" in printed
    assert "3 tokens are in no group" in printed
    rows = chart.read_text("utf-8").splitlines()
    assert rows[1].startswith("adjective,0,embedding,") and rows[1].endswith(",2")
    assert printed.endswith(f"Wrote {chart}\n")


def test_maps_do_not_depend_on_the_batch(masks_folder):
    masks = TextMasks.load(masks_folder)
    together = masks.maps(TEXTS[:4])
    alone = masks.maps(TEXTS[:4], batch_size=1)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.kept, b.kept, atol=1e-5)
        assert a.prediction.index == b.prediction.index
        assert a.tokens == b.tokens and a.states == masks.mask.states


def test_states_beyond_the_margin_are_named(masks_folder):
    masks = TextMasks.load(masks_folder)
    for record in masks.data["report"]:
        record["converged"] = record["state"] != masks.mask.states[1]
    (one,) = masks.maps(["dull"])
    assert one.notes == (
        "At layer 1 input the masks cost more than the margin when they were trained: "
        "what is dropped there may be needed.",
    )
    for record in masks.data["report"]:
        record["converged"] = True
    assert masks.maps(["dull"])[0].notes == ()


def test_masks_of_diffmask_itself_need_the_name_of_the_model(
    capsys, masks_folder, model_folder, tmp_path
):
    pytest.importorskip("rich")
    folder = shutil.copytree(masks_folder, tmp_path / "masks")
    (folder / "texts.json").unlink()
    explain = explain_arguments(folder, "--text", "dull")
    assert "name it (--model, or model=)" in fails(capsys, explain)
    assert main([*explain, "--model", str(model_folder)]) == 0


def test_a_loaded_model_has_to_be_given_again(masks_folder, tmp_path):
    loaded = TextMasks.load(masks_folder)
    masks = TextMasks.load(masks_folder, loaded.source)
    masks.save(tmp_path / "masks")
    with pytest.raises(InputError, match="do not say which model"):
        TextMasks.load(tmp_path / "masks")
    with pytest.raises(InputError, match="device= belongs to a model loaded by name"):
        TextMasks.load(masks_folder, loaded.source, device="cpu")


# ----------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diffmask"], "the following arguments are required: command"),
        (["diffmask", "fit"], "required: --data, --output"),
        (["diffmask", "fit", "--data", "no.txt", "--output", "m"], "no file 'no.txt'"),
        (["diffmask", "fit", "--margin", "0"], "--margin: expected a number above 0"),
        (["diffmask", "fit", "--margin", "nan"], "--margin: expected a number above"),
        (["diffmask", "fit", "--steps", "0"], "argument --steps: expected 1 or more"),
        (["diffmask", "fit", "--mode", "both"], "invalid choice: 'both'"),
        (["diffmask", "explain", "--text", "a"], "required: --masks"),
        (explain_arguments("no", "--text", "a"), "there is no folder 'no' with masks"),
        (explain_arguments(".", "--text", "a", "--output", "a.gif"), ".pdf, .svg"),
        (explain_arguments(".", "--text", "a", "--chart", "a.gif"), ".csv, .png"),
        (explain_arguments(".", "--text", "a", "--chart", "no/a.png"), "folder 'no'"),
        (explain_arguments(".", "--text", "a", "--groups", "no"), "no file 'no'"),
    ],
)  # fmt: skip
def test_usage_errors(capsys, arguments, message):
    pytest.importorskip("rich")
    assert message in fails(capsys, arguments)


def test_masks_of_another_model(capsys, masks_folder, tmp_path):
    pytest.importorskip("rich")
    other = save_text_classifier(tmp_path / "bert", hidden_size=8)
    capsys.readouterr()
    given = ["--text", "dull", "--model", other]
    line = fails(capsys, explain_arguments(masks_folder, *given))
    assert "are for another model" in line and "shape" in line


def test_a_folder_that_is_a_file(capsys, model_folder, data, tmp_path):
    (tmp_path / "file").write_text("")
    line = fails(capsys, fit_arguments(model_folder, data, tmp_path / "file"))
    assert "is a file; expected a folder" in line


def test_settings_that_cannot_be_read(masks_folder, tmp_path):
    folder = shutil.copytree(masks_folder, tmp_path / "masks")
    (folder / "texts.json").write_text("{")
    with pytest.raises(InputError, match="is not valid JSON"):
        TextMasks.load(folder)
    (folder / "texts.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="has format 99, and this version reads"):
        TextMasks.load(folder)


# ------------------------------------------------------------------------------- data


def test_texts_of_a_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,review\n1,fine\n2,\n")
    assert read_texts(path, "review") == ["fine"]


def test_groups_from_a_file(tmp_path):
    path = tmp_path / "groups.tsv"
    path.write_text("not\tnegation\n\ngood \t sentiment\n", encoding="utf-8")
    assert read_groups(path) == {"not": "negation", "good": "sentiment"}
    path.write_text("not negation\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line 1 .* expected a word, a tab"):
        read_groups(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no groups"):
        read_groups(path)


def test_batches_hold_each_text_once(masks_folder):
    source = TextMasks.load(masks_folder).source
    texts = [f"{'film ' * (i % 7 + 1)}{'a ' * (i // 7)}" for i in range(40)]
    batches = text_batches(source, texts, batch_size=8, seed=3)
    again = text_batches(source, texts, batch_size=8, seed=3)
    assert [len(b["input_ids"]) for b in batches] == [8] * 5
    for a, b in zip(batches, again, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    rows = [
        tuple(ids[mask.bool()].tolist())
        for b in batches
        for ids, mask in zip(b["input_ids"], b["attention_mask"], strict=True)
    ]
    expected = [tuple(ids) for ids in source.tokenizer(texts)["input_ids"]]
    assert sorted(rows) == sorted(expected)
    lengths = [b["input_ids"].shape[1] for b in batches]
    assert lengths != sorted(lengths)
    padding = sum(int((b["attention_mask"] == 0).sum()) for b in batches)
    assert padding < 0.15 * sum(map(len, expected))
    other = text_batches(source, texts, batch_size=8, seed=4)
    assert any(
        a["input_ids"].shape != b["input_ids"].shape
        or not torch.equal(a["input_ids"], b["input_ids"])
        for a, b in zip(batches, other, strict=True)
    )


def test_texts_that_are_too_long_are_one_warning(masks_folder):
    source = TextMasks.load(masks_folder).source
    long = "funny " * 100
    with pytest.warns(UserWarning, match="2 of 3 texts have more than the 64 tokens"):
        (batch,) = text_batches(source, [long, "dull", long])
    assert batch["input_ids"].shape == (3, 64)
    assert sorted(batch["attention_mask"].sum(1).tolist()) == [3, 64, 64]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ([], {}, "at least one text, got none"),
        ("dull", {}, "expected a list of texts, got one text"),
        (["dull", " "], {}, "texts with words in them, got ' '"),
        (["dull"], {"batch_size": 0}, "batch size of at least 1, got 0"),
    ],
)
def test_texts_that_cannot_be_batches(masks_folder, texts, options, message):
    source = TextMasks.load(masks_folder).source
    with pytest.raises(InputError, match=message):
        text_batches(source, texts, **options)


def test_a_classifier_without_padding_reads_one_text_at_a_time(masks_folder):
    source = TextMasks.load(masks_folder).source
    config: Any = source.module.config
    config.pad_token_id = None
    with pytest.raises(InputError, match="write --batch-size 1"):
        text_batches(source, ["dull", "funny"])
    assert len(text_batches(source, ["dull", "funny"], batch_size=1)) == 2
