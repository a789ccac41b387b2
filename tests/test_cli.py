"""The command line: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import captum_transformer_lrp
from captum_transformer_lrp.attribution import (
    BASELINES,
    METHODS,
    AttentionAttribution,
    methods,
)
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.models.pictures import draw_ship
from tests.models.tiny import save_text_classifier, save_timm_classifier

ATTENTION = [n for n, cls in METHODS.items() if issubclass(cls, AttentionAttribution)]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return str(save_text_classifier(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory):
    pytest.importorskip("timm")
    return str(save_timm_classifier(tmp_path_factory.mktemp("vit")))


def fails(capsys, *arguments):
    """Run the command, expect exit code 2 and one line on stderr; return the line."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n") and captured.err.count("\n") == 1
    assert captured.err.startswith("captum-transformer-lrp")
    return captured.err


def test_explain_a_text(capsys, text_folder, tmp_path):
    pytest.importorskip("rich")
    report = tmp_path / "report.json"
    arguments = ["explain", "--text", "A warm film", "--model", text_folder]
    assert main([*arguments, "--target", "good", "--output", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "“good”" in printed and "Words that count most" in printed
    assert "\x1b" not in printed  # not a terminal
    assert printed.endswith(f"Wrote {report}\n")
    assert json.loads(report.read_text("utf-8"))["target"]["name"] == "good"


def test_a_target_may_be_an_index(capsys, text_folder):
    pytest.importorskip("rich")
    model = ["--model", text_folder]
    assert main(["explain", "--text", "funny", "--target", "2", *model]) == 0
    assert "“good”" in capsys.readouterr().out


def test_texts_from_a_file(capsys, text_folder, tmp_path):
    pytest.importorskip("rich")
    (tmp_path / "texts").write_text("a warm film\n\n  dull  \n", encoding="utf-8")
    report = tmp_path / "a.json"
    texts = ["--text", f"@{tmp_path / 'texts'}", "--text", "@@you was funny"]
    model = ["--model", text_folder, "--output", str(report)]
    assert main(["explain", *texts, *model, "--top", "0"]) == 0
    found = json.loads(report.read_text("utf-8"))
    assert [e["text"] for e in found] == ["a warm film", "dull", "@you was funny"]
    assert "count most" not in capsys.readouterr().out


def test_texts_from_a_table(capsys, text_folder, tmp_path):
    pytest.importorskip("rich")
    table = tmp_path / "reviews.csv"
    table.write_text(
        "id,review,text,label\n1,x,a warm film,positive\n2,y,dull,negative\n"
    )
    report = tmp_path / "a.json"
    arguments = ["explain", "--text", f"@{table}", "--model", text_folder]
    assert main([*arguments, "--output", str(report)]) == 0
    found = json.loads(report.read_text("utf-8"))
    assert [e["text"] for e in found] == ["a warm film", "dull"]
    said = "reviews.csv: 2 texts of the column 'text', with the labels of 'label'"
    assert said in capsys.readouterr().err
    assert main([*arguments, "--text-column", "review", "--output", str(report)]) == 0
    assert [e["text"] for e in json.loads(report.read_text("utf-8"))] == ["x", "y"]
    capsys.readouterr()
    plain = ["explain", "--text", "a", "--text-column", "text"]
    assert "belongs to a table" in fails(capsys, *plain)


def test_explain_what_is_given_without_an_option(
    capsys, text_folder, image_folder, tmp_path
):
    pytest.importorskip("rich")
    report = tmp_path / "a.json"
    model = ["--model", text_folder, "--output", str(report)]
    lines = tmp_path / "texts.txt"
    lines.write_text("dull\n")
    assert main(["explain", "a warm film", str(lines), "@@you", *model]) == 0
    found = json.loads(report.read_text("utf-8"))
    assert [e["text"] for e in found] == ["a warm film", "dull", "@you"]
    assert main(["explain", "a" * 300 + " film", *model]) == 0
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("b.png", "a.PNG"):
        draw_ship(32).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    model = ["--model", image_folder, "--output", str(report)]
    for given in ([str(folder)], ["--image", str(folder)], [str(folder / "b.png")] * 2):
        assert main(["explain", *given, *model]) == 0
        assert len(json.loads(report.read_text("utf-8"))) == 2
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    nothing = fails(capsys, "explain", str(tmp_path / "empty"), *model)
    assert "holds no picture" in nothing
    (tmp_path / "a.png").mkdir()
    output = ["--output", str(tmp_path / "a.png")]
    assert "is a folder; expected a file" in fails(capsys, "explain", "a", *output)


@pytest.mark.parametrize("command", ["explain", "compare", "check"])
def test_the_built_in_models_have_a_name(capsys, tmp_path, command):
    pytest.importorskip("rich")
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    text = "A warm film."
    if command == "check":
        assert main(["check", "built-in", "--text", text]) == 0
        return
    assert main([command, "--text", text, "--model", "built-in"]) == 0
    draw_ship(32).save(tmp_path / "ship.png")
    picture = ["--image", str(tmp_path / "ship.png")]
    assert main([command, *picture, "--model", "built-in"]) == 0
    assert "ship" in capsys.readouterr().out


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert "examples:" in capsys.readouterr().out


def test_compare_reads_the_file_and_not_its_name(capsys, text_folder, tmp_path):
    pytest.importorskip("rich")
    file = tmp_path / "texts.txt"
    file.write_text("a warm film\n")
    methods = ["--methods", "attnlrp,saliency", "--model", text_folder]
    assert main(["compare", "--text", f"@{file}", *methods]) == 0
    assert "warm" in capsys.readouterr().out
    file.write_text("a warm film\ndull\n")
    assert main(["compare", "--text", f"@{file}", *methods]) == 2
    assert "explains one text, and" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["html", "png", "json", "safetensors", "parquet"])
def test_explain_a_picture(capsys, image_folder, tmp_path, suffix):
    pytest.importorskip("rich")
    pytest.importorskip("pyarrow" if suffix == "parquet" else "PIL")
    draw_ship(32).save(tmp_path / "ship.png")
    report = tmp_path / f"report.{suffix}"
    picture = ["--image", str(tmp_path / "ship.png"), "--method", "gradient-x-input"]
    output = ["--model", image_folder, "--output", str(report)]
    assert main(["explain", *picture, *output]) == 0
    assert report.stat().st_size > 1000
    assert "Patches that count most" in capsys.readouterr().out
    if suffix not in ("html", "png"):
        found = captum_transformer_lrp.load(report)
        assert (found.image.size, found.method) == ((16, 16), "Gradient x Input")


def test_the_command_goes_on_after_a_picture_that_fails(capsys, image_folder, tmp_path):
    pytest.importorskip("rich")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        draw_ship(32).save(folder / name)
    (folder / "b.png").write_text("no picture")
    report = tmp_path / "a.json"
    arguments = ["--model", image_folder, "--output", str(report)]
    assert main(["explain", str(folder), *arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out.endswith(f"Wrote {report}\n")
    assert len(captum_transformer_lrp.load(report)) == 2
    lines = captured.err.splitlines()
    assert lines[-1] == "captum-transformer-lrp: 1 of 3 inputs could not be explained"
    assert lines[-2].startswith("captum-transformer-lrp: error: input 2 (")
    assert "b.png' is not a picture" in lines[-2]
    (folder / "c.png").unlink()
    assert main(["explain", str(folder), *arguments]) == 1
    assert len(captum_transformer_lrp.load(report)) == 1  # a list of one


def test_the_command_says_where_nothing_could_be_explained(
    capsys, text_folder, tmp_path
):
    pytest.importorskip("rich")
    report = tmp_path / "a.json"
    texts = ["--text", "", "--text", " ", "--output", str(report)]
    assert main(["explain", *texts, "--model", text_folder]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("expected a text with words in it") == 2
    assert captured.err.endswith("2 of 2 inputs could not be explained\n")
    assert captured.out == "" and not report.exists()


def test_methods_lists_all(capsys):
    assert main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", *methods]
    assert [*methods][: len(METHODS) + len(BASELINES)] == [*METHODS, *BASELINES]
    about = [line[lines[0].index("what it is") :] for line in lines]
    assert all(len(words.split()) > 2 and "`" not in words for words in about)
    assert len(set(about)) == len(lines)
    told = dict(line.split(maxsplit=1) for line in lines)
    assert told["chefer"].split()[:5] == ["attention", "part", "no", "2.5", "attention"]
    assert told["cp-lrp"].split()[:5] == ["relevance", "element", "score", "1", "-"]


def test_rules_prints_the_table(capsys):
    assert main(["rules", "--method", "attnlrp"]) == 0
    one = capsys.readouterr().out
    assert "softmax" in one and "2402.05602" in one
    assert main(["rules"]) == 0
    every = capsys.readouterr().out
    assert one.strip() in every
    assert every.count("PassOn()\n") > 1 and every.count("arXiv 2012.09838") == 1
    named = [line for line in every.splitlines() if line.startswith("Methods: ")]
    listed = [name for line in named for name in line.split(": ")[1].split(", ")]
    assert sorted(listed) == sorted(set(methods) - set(BASELINES))
    assert main(["rules", "--method", "epsilon-plus"]) == 0
    assert "ZPlus(" in capsys.readouterr().out


@pytest.mark.parametrize("method", methods)
def test_explain_and_rules_take_the_same_names(capsys, text_folder, method):
    pytest.importorskip("rich")
    assert main(["rules", "--method", method]) == 0
    assert len(capsys.readouterr().out.splitlines()) > 1
    model = ["--model", text_folder, "--method", method]
    assert main(["explain", "--text", "A warm film", *model]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert methods[method].description.name in printed


@pytest.mark.parametrize("method", ATTENTION)
def test_rules_of_a_method_of_attention(capsys, method):
    assert main(["rules", "--method", method.upper()]) == 0
    printed = capsys.readouterr().out
    if method in ("chefer", "lrp-rollout", "partial-lrp"):
        assert "PositiveProduct" in printed and "2012.09838" in printed
    elif method == "attention-relevance":  # the gradient is that of AttnLRP's rules
        assert "UniformProduct" in printed and "2402.05602" in printed
    else:
        assert "no rules: attention maps and torch's own gradient" in printed
        assert "Input" not in printed


@pytest.mark.parametrize("method", ATTENTION)
def test_explain_by_attention_with_the_built_in_models(capsys, tmp_path, method):
    for package in ("rich", "jinja2", "transformers", "timm"):
        pytest.importorskip(package)
    draw_ship(32).save(tmp_path / "ship.png")
    for given in (["--text", "A warm film."], ["--image", str(tmp_path / "ship.png")]):
        report = tmp_path / "report.json"
        common = ["--method", method, "--output"]
        assert main(["explain", *given, *common, str(report)]) == 0
        printed = capsys.readouterr().out
        assert "with the most weight" in printed
        assert "against it" not in printed and "Sum of" not in printed
        found = json.loads(report.read_text("utf-8"))
        assert (found["measure"], found["relevance_sum"]) == ("attention", None)
    assert found["scores"] is None
    assert (len(found["patch_scores"]), len(found["patch_scores"][0])) == (8, 8)


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_reports_of_attention_with_the_built_in_models(tmp_path, suffix):
    for package in ("rich", "jinja2", "transformers", "timm"):
        pytest.importorskip(package)
    draw_ship(32).save(tmp_path / "ship.png")
    for given in (["--text", "A warm film."], ["--image", str(tmp_path / "ship.png")]):
        report = tmp_path / f"report.{suffix}"
        common = ["--method", "chefer", "--output", str(report)]
        assert main(["explain", *given, *common]) == 0
        assert report.stat().st_size > 1000


def test_a_model_without_attention(capsys, tmp_path):
    pytest.importorskip("rich")
    folder = save_convolutional_network(tmp_path / "net")
    draw_ship(32).save(tmp_path / "ship.png")
    picture = ["--image", str(tmp_path / "ship.png"), "--model", str(folder)]
    line = fails(capsys, "explain", *picture, "--method", "chefer")
    assert "the model has no attention map" in line and "AttnLRP explains any" in line
    assert main(["explain", *picture, "--method", "attnlrp"]) == 0


def save_convolutional_network(folder):
    """A timm network of convolutions, as a folder."""
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    folder.mkdir()
    model = timm.create_model("test_resnet", num_classes=3)
    save_file(model.state_dict(), folder / "model.safetensors")
    size = {"input_size": [3, 32, 32], "num_classes": 3}
    config = {"architecture": "test_resnet", "num_classes": 3, "pretrained_cfg": size}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explane"], "invalid choice: 'explane'. Did you mean 'explain'? (see"),
        (["nothing-like-it"], "(choose from 'explain', 'compare'"),
        (["explain", "--text", "a", "--modle", "b"], "--modle. Did you mean '--mo"),
        (["diffmask", "fti"], "Did you mean 'fit'? (see captum-transformer-lrp dif"),
        (["explain"], "expected a text, a file of texts or a picture, got none"),
        (["explain", "a", "--image", "b"], "texts or pictures, and was given both"),
        (["explain", "a", "--text-column", "text"], "belongs to a table of texts"),
        (["explain", "--text", "a", "--image", "b"], "not allowed with argument"),
        (["explain", "--text", "a", "--top", "-1"], "argument --top: expected 0 or"),
        (["explain", "--text", "a", "--top", "x"], "argument --top: invalid"),
        (["explain", "--text", "a", "--method", "atn"], "no method 'atn'"),
        (
            ["explain", "--text", "a", "--output", "a.gif"],
            "one of .html, .png, .pdf, .svg, .json, .safetensors, .parquet",
        ),
        (["explain", "--text", "a", "--output", "no/a.png"], "no folder 'no'"),
        (["explain", "--text", "@no-such-file"], "write '@@' for a text that starts"),
        (["explain", "--text", " "], "expected a text with words"),
        (["explain", "--text", "a", "--model", "./no"], "there is no such folder"),
        (
            ["rules", "--method", "cplrp"],
            "Did you mean 'cp-lrp'? All of them: print",
        ),
        (
            ["explain", "--text", "a", "--method", "gama"],
            "or the command 'methods'.",
        ),
    ],
)
def test_usage_errors(capsys, arguments, message):
    pytest.importorskip("rich")
    pytest.importorskip("transformers")
    assert message in fails(capsys, *arguments)


def test_wrong_class_and_picture(capsys, image_folder, tmp_path):
    pytest.importorskip("rich")
    draw_ship(32).save(tmp_path / "ship.png")
    picture = ["--image", str(tmp_path / "ship.png"), "--model", image_folder]
    assert "Did you mean 'ship'" in fails(
        capsys, "explain", *picture, "--target", "shp"
    )
    missing = ["--image", str(tmp_path / "no.png"), "--model", image_folder]
    assert "there is no picture" in fails(capsys, "explain", *missing)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    assert "holds no text" in fails(capsys, "explain", "--text", f"@{empty}")


@pytest.mark.filterwarnings("default:The text has:UserWarning")
def test_warnings_are_one_line_on_stderr(capsys, text_folder):
    pytest.importorskip("rich")
    text = "funny " * 100
    assert main(["explain", "--text", text, "--model", text_folder]) == 0
    error = capsys.readouterr().err
    assert error.startswith("captum-transformer-lrp: warning: The text has 102 tokens")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("environment", "option", "colored"),
    [
        ({}, [], True),
        ({"NO_COLOR": "1"}, [], False),
        ({"NO_COLOR": ""}, [], True),
        ({}, ["--no-color"], False),
    ],
)
def test_no_color(capsys, text_folder, monkeypatch, environment, option, colored):
    pytest.importorskip("rich")
    for name in ("NO_COLOR", "COLORTERM", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        {"FORCE_COLOR": "1", "COLORTERM": "truecolor"} | environment
    ).items():
        monkeypatch.setenv(name, value)
    arguments = ["explain", "--text", "funny", "--model", text_folder, *option]
    assert main(arguments) == 0
    assert ("\x1b[38;2" in capsys.readouterr().out) is colored


def test_demo_writes_one_report(capsys, tmp_path):
    for package in ("rich", "transformers", "timm"):
        pytest.importorskip(package)
    folder = tmp_path / "new" / "demo"
    assert main(["demo", "--output-dir", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "explanation.png",
        "explanations.json",
        "index.html",
        "ship.png",
    ]
    assert capsys.readouterr().out.splitlines()[-1].endswith(str(folder / "index.html"))
    found = json.loads((folder / "explanations.json").read_text("utf-8"))
    assert [e["kind"] for e in found] == ["text"] * 4 + ["image"]
    assert found[-1]["prediction"]["name"] == "ship"


def test_version(capsys):
    assert main(["--version"]) == 0
    expected = f"captum-transformer-lrp {captum_transformer_lrp.__version__}\n"
    assert capsys.readouterr().out == expected


def without_torch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command answers in an interpreter that has no torch."""
    program = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "captum", "transformers"):
            raise ModuleNotFoundError(f"waited for {{name}}")

sys.meta_path.insert(0, Blocked())
from captum_transformer_lrp.cli import main
sys.exit(main({[*arguments]}))
"""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "code", "answer"),
    [
        ("--help", 0, "explain a prediction"),
        ("--version", 0, captum_transformer_lrp.__version__),
        ("explain --help", 0, "what the command methods lists"),
        ("rules --help", 0, "only this one"),
        ("methods", 0, "attnlrp"),
        ("explane", 2, "Did you mean 'explain'?"),
        ("explain film --method attnlpr", 2, "Did you mean 'attnlrp'"),
        ("explain film --method attnlpr --output a.html", 2, "Did you mean 'attnlrp'"),
        ("compare --text film --methods attnlrp,salincy", 2, "Did you mean 'saliency'"),
        ("rules --method cplrp", 2, "Did you mean 'cp-lrp'"),
        ("insights built-in a.csv --methods CP-LRP gama", 2, "Did you mean 'gamma'"),
    ],
)
def test_what_needs_no_model_does_not_wait_for_torch(arguments, code, answer):
    completed = without_torch(*arguments.split())
    assert completed.returncode == code, completed.stderr
    assert answer in (completed.stderr if code else completed.stdout)
    assert "waited" not in completed.stderr


def test_what_explains_does_wait_for_torch():
    assert "waited for" in without_torch("explain", "film").stderr


def test_methods_lists_without_torch_what_the_registry_says():
    completed = without_torch("methods")
    assert completed.stdout == f"{methods}\n"


def test_module_can_be_run():
    completed = subprocess.run(
        [sys.executable, "-m", "captum_transformer_lrp", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert completed.returncode == 0
    assert "explain" in completed.stdout and completed.stderr == ""


# ------------------------------------------------------------------------------- tasks


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    """Folders with a tagger and a reader of answers."""
    pytest.importorskip("transformers")
    from transformers import BertForQuestionAnswering, BertForTokenClassification

    from .tasks.test_texts import TAGS
    from .tasks.tiny import bert, word_pieces

    folder = tmp_path_factory.mktemp("readers")
    tagger = bert(BertForTokenClassification, *TAGS, seed=7)
    for name, model in (("tagger", tagger), ("reader", bert(BertForQuestionAnswering))):
        model.float().save_pretrained(folder / name)
        word_pieces().save_pretrained(folder / name)
    return folder


def test_a_task_is_found_from_the_model(readers, tmp_path, capsys):
    page = tmp_path / "all.json"
    given = ["explain", "Sarah lives in Paris", "--model", str(readers / "tagger")]
    assert main([*given, "--output", str(page), "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "token-classification" in out
    assert "explanations are printed" in out
    kept = captum_transformer_lrp.load(page)
    assert {one.task for one in kept} == {"token-classification"}


def test_inputs_of_a_task(readers, tmp_path, capsys):
    context = tmp_path / "context.txt"
    context.write_text("Sarah lives in London")
    given = ["explain", "--model", str(readers / "reader")]
    asked = ["--task", "question-answering", "--with", "question=Who lives?"]
    assert main([*given, *asked, "--with", f"context=@{context}"]) == 0
    assert "[answer]" in capsys.readouterr().out
    assert main([*given, *asked, "--with", "top_k=2", "--with", "context=a dog"]) == 0
    assert capsys.readouterr().out.count("Task ") == 2
    for wrong, message in (
        (["--with", "question"], "expected --with NAME=VALUE, got 'question'"),
        (["--with", "context=@nowhere.txt"], "there is no file 'nowhere.txt'"),
        (["--with", "question=Who?"], "expected context= to be a text"),
        (["--task", "question-answer"], "Did you mean 'question-answering'"),
    ):
        assert main([*given, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_options_of_a_method_by_name(tmp_path, capsys):
    path = tmp_path / "found.json"
    given = ["explain", "A warm film.", "--method", "kernel-shap"]
    drawn = ["--option", "n_samples=20", "--option", "seed=3"]
    assert main([*given, *drawn, "--output", str(path)]) == 0
    notes = " ".join(json.loads(path.read_text())["notes"])
    assert "At most 20 sets of parts were left out, seed 3." in notes
    capsys.readouterr()
    for wrong, message in (
        ("n_sample=20", "which it does not take"),
        ("n_samples", "expected --option NAME=VALUE, got 'n_samples'"),
    ):
        assert main([*given, "--option", wrong]) == 2
        assert message in capsys.readouterr().err
