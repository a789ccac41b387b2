"""The pages say what is true: their code runs, their names exist, the site builds."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_transformer_lrp import methods, registry, rules, targets, tasks
from captum_transformer_lrp.attribution import BASELINES, METHODS
from captum_transformer_lrp.cli import main
from tests.models.tiny import byte_level_tokenizer

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
README = PROJECT / "README.md"

#: for patterns of whole blocks: ^ and $ are ends of lines, and a dot is any character
BLOCKS = re.MULTILINE | re.DOTALL
_BLOCK = re.compile(
    r"(?:^<!-- (?P<marker>not run|needs): (?P<what>[^\n]+) -->\n)?"
    r"^```python\n(?P<code>.*?)^```$",
    BLOCKS,
)


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    line: int
    code: str
    runs: bool
    needs: str | None = None

    @property
    def possible(self) -> bool:
        """Whether the module is there that the block needs."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def compiled(self, page: Path) -> Any:
        """The code, whose line numbers are those of the page."""
        code = "\n" * self.line + self.code
        return compile(code, str(page), "exec", dont_inherit=True)


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        line = text[: found.start("code")].count("\n")
        needs = found["what"] if found["marker"] == "needs" else None
        yield Block(line, found["code"], found["marker"] != "not run", needs)


def import_statements(code: str) -> str:
    tree = ast.parse(code)
    imports = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    return "\n".join(map(ast.unparse, imports))


def tiny_language_model() -> dict[str, Any]:
    """What the page takes from the hub, small."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=512,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return {
        "tokenizer": tokenizer,
        "model": transformers.GPT2LMHeadModel(config).eval(),
    }


#: what a page's code finds before its first line
GIVEN = {"language_models.md": tiny_language_model}

PAGES = [
    page
    for page in sorted(DOCS.glob("*.md"))
    if any(block.runs for block in blocks_of(page))
]


def test_pages_have_code():
    assert len(PAGES) >= 8


# transformers' own warning about what PEFT reads
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_of_page_runs(page, tmp_path, monkeypatch):
    for package in ("accelerate", "peft", "timm", "transformers"):
        if package in page.read_text():
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "rows", dict(registry.rows))
    monkeypatch.setattr(methods, "_rows", dict(methods._rows))
    torch.manual_seed(0)
    given = GIVEN.get(page.name, dict)
    namespace: dict[str, Any] = {"__name__": "page", **given()}
    for block in blocks_of(page):
        if block.runs and block.possible:
            exec(block.compiled(page), namespace)


def test_code_of_readme_runs_in_a_clean_interpreter(tmp_path):
    """As a newcomer would paste it: nothing is there but the package."""
    for package in ("rich", "transformers"):
        pytest.importorskip(package)
    blocks = [*blocks_of(README)]
    assert blocks and all(block.runs and block.needs is None for block in blocks)
    completed = subprocess.run(
        [sys.executable, "-c", "".join(b.code for b in blocks)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert completed.returncode == 0, completed.stderr
    assert "Why “positive”?" in completed.stdout
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_commands_of_readme_run(tmp_path, monkeypatch, capsys):
    for package in ("rich", "transformers"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", README.read_text(), BLOCKS))
    split = [shlex.split(line, comments=True) for line in lines.splitlines()]
    commands = [words for words in split if words]
    assert [c[1] for c in commands if c[0] == "make"] == ["demo", "test"]
    rules = (PROJECT / "Makefile").read_text()
    assert all(f"\n{c[1]}: " in rules for c in commands if c[0] == "make")
    ours = [c[1:] for c in commands if c[0] == "captum-transformer-lrp"]
    assert len(ours) + 2 == len(commands)
    for arguments in ours:
        assert main(arguments) == 0
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert "Wrote report.html" in capsys.readouterr().out


def test_readme_is_a_screen_and_a_half():
    assert len(README.read_text().split()) <= 620


def anchors_of(page: Path) -> set[str]:
    """What can stand behind `#` in a link to a page, as GitHub and Sphinx name it."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=BLOCKS)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in words}


def test_links_of_readme_and_pages_lead_somewhere():
    """Pages that are generated when the site is built are not followed."""
    missing, followed = [], 0
    for page in [*sorted(DOCS.glob("*.md")), README, PROJECT / "CONTRIBUTING.md"]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=BLOCKS)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            if ":" in path or path.startswith("api/"):
                continue
            target = (page.parent / path).resolve() if path else page
            followed += 1
            if not target.exists():
                missing.append((page.name, link))
            elif anchor and path != "contributing.md":  # which includes another page
                if anchor not in anchors_of(target):
                    missing.append((page.name, link))
    assert missing == []
    assert followed > 80


def run_section_of_contributing(heading: str) -> dict[str, Any]:
    """Run the code under a heading as a stranger would, then the tests in it."""
    page = PROJECT / "CONTRIBUTING.md"
    before, found, rest = page.read_text().partition(f"\n## {heading}\n")
    assert found, heading
    first = before.count("\n")
    last = first + rest.partition("\n## ")[0].count("\n") + 2
    blocks = [b for b in blocks_of(page) if first < b.line < last]
    assert blocks and all(block.runs for block in blocks)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(block.compiled(page), namespace)
    for name, value in [*namespace.items()]:
        if name.startswith("test_"):
            value()
    return namespace


def test_code_of_contributing_on_rules_runs(capsys):
    namespace = run_section_of_contributing("Add a rule")
    assert "test_a_share_passes" in namespace
    assert "tensor(" in capsys.readouterr().out
    rule = namespace["Leaky"]
    assert rule.__mro__[1] is rules.Rule
    wrong = {"__call__": lambda self, call: rules.Identity()(call)}
    namespace["Leaky"] = type("Wrong", (rule,), wrong)
    with pytest.raises(AssertionError):
        namespace["test_a_share_passes"]()


def test_code_of_contributing_on_metrics_runs(capsys):
    namespace = run_section_of_contributing("Add a metric")
    assert "top share (units: 1): 0.750" in capsys.readouterr().out
    right = namespace["top_share"]
    namespace["top_share"] = lambda scores, k=1: right(scores.clamp(min=0), k)
    with pytest.raises(AssertionError):
        namespace["test_top_share"]()


def test_code_of_contributing_on_results_runs(capsys):
    pytest.importorskip("jinja2")
    pytest.importorskip("rich")
    namespace = run_section_of_contributing("Add a result that shows itself")
    assert "Agreement with AttnLRP" in capsys.readouterr().out
    made = namespace["Agreement"]
    namespace["found"] = made(reference="AttnLRP", correlations={"CP-LRP": 0.5})
    with pytest.raises(AssertionError):
        namespace["test_agreement"]()


def test_code_of_contributing_on_methods_runs(capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(methods, "_rows", dict(methods._rows))
    run_section_of_contributing("Add a method")
    assert [*methods][-2:] == ["squared", "cp-lrp-open-gates"]
    printed = capsys.readouterr().out
    assert "What is “positive” sensitive to?" in printed
    assert "Why “positive”?" in printed


def test_code_of_contributing_on_tasks_runs(capsys, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(tasks, "TASKS", dict(tasks.TASKS))
    namespace = run_section_of_contributing("Add a task")
    assert "Why “the margin”?" in capsys.readouterr().out
    right = namespace["Margin"].questions

    def of_one(self, asked, target):
        for question in right(self, asked, target):
            alone = targets.Label(asked.answer["best"])
            yield dataclasses.replace(question, target=alone)

    namespace["Margin"].questions = of_one
    with pytest.raises(AssertionError):
        namespace["test_margin"]()


def test_table_of_methods_says_what_the_methods_say():
    text = (DOCS / "methods.md").read_text()
    rows = re.findall(r"^\| `(\w+)`, `([\w-]+)` \|(.*)\|$", text, re.MULTILINE)
    assert [name for _, name, _ in rows] == list(METHODS)
    words = {"score": "yes, up to biases", "partly": "not in the softmax", "no": "no"}
    needs = {"attention": "attention", "tokenizer": "a mask or padding token"}
    for cls, name, cells in rows:
        said = methods[name].description
        *_, conserves, need, cost = (cell.strip() for cell in cells.split("|"))
        assert (METHODS[name].__name__, words[said.conserves]) == (cls, conserves)
        assert need == (needs[said.needs[0]] if said.needs else "–")
        assert cost.partition(";")[0] == f"{said.cost:g}"
    assert all(f"`{name}`" in text for name in BASELINES)


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.glob("*.md")), README], ids=lambda p: p.name
)
def test_code_that_is_not_run_compiles_and_its_imports_exist(page):
    for block in blocks_of(page):
        block.compiled(page)
        for package in ("timm", "transformers"):
            if package in block.code:
                pytest.importorskip(package)
        if block.possible:
            exec(import_statements(block.code), {})


def test_wrong_code_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n```python\nfrom captum_transformer_lrp import Nothing\n```\n"
    )
    (block,) = blocks_of(page)
    assert block.runs
    with pytest.raises(ImportError, match="Nothing"):
        if block.possible:
            exec(import_statements(block.code), {})


def test_every_named_file_exists():
    """`python benchmarks/x.py` and `pytest tests/x.py` in the pages can be called."""
    named = re.compile(r"`(?:python|pytest) ((?:benchmarks|tests|scripts)/[\w/.]+)")
    found = {
        (page.name, path)
        for page in DOCS.glob("*.md")
        for path in named.findall(page.read_text())
    }
    assert len(found) >= 5
    assert [(n, p) for n, p in sorted(found) if not (PROJECT / p).exists()] == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    for package in ("sphinx", "furo", "myst_nb"):
        pytest.importorskip(package)
    completed = subprocess.run(
        [
            sys.executable,
            *"-m sphinx -W --keep-going -q -d".split(),
            str(tmp_path / "trees"),
            str(DOCS),
            str(tmp_path / "html"),
        ],
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    fetched = re.compile(
        r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"(?:https?:)?//"
    )
    pages = sorted((tmp_path / "html").rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        assert not fetched.search(page.read_text()), page.name
