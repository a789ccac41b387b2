"""The tutorials: sound as they are stored, and they run from the first cell on."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat, which reads notebooks")

PROJECT = Path(__file__).resolve().parents[2]
TUTORIALS = PROJECT / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))
LARGEST = 400_000  # bytes of a notebook with its outputs
# What would say on which machine a notebook ran.
MACHINE = re.compile(r"(/(home|root|Users|tmp|work)/|site-packages|C:\\\\)")

if not NOTEBOOKS:
    pytest.skip("the tutorials are not installed", allow_module_level=True)


def by_name(path: Path) -> str:
    return path.stem


@pytest.fixture(params=NOTEBOOKS, ids=by_name)
def path(request) -> Path:
    return request.param


def code_of(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_cell_compiles(path):
    reason = "IPython, which knows lines that begin with %"
    transform = pytest.importorskip("IPython.core.inputtransformer2", reason=reason)
    manager = transform.TransformerManager()

    for number, cell in enumerate(code_of(nbformat.read(path, as_version=4))):
        source = manager.transform_cell(cell.source)
        compile(source, f"{path.name}, code cell {number}", "exec")


def test_notebook_is_listed(path):
    assert f"]({path.name})" in (TUTORIALS / "README.md").read_text()


def test_readme_lists_nothing_else():
    listed = re.findall(r"\]\((\w+\.ipynb)\)", (TUTORIALS / "README.md").read_text())
    assert listed == [path.name for path in NOTEBOOKS]


def test_stored_outputs_are_whole(path):
    """Every cell ran, in order, and left no error."""
    assert path.stat().st_size <= LARGEST
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert kinds, "the notebook is stored without outputs: run `make tutorials`"


def test_nothing_says_where_it_ran(path):
    assert MACHINE.findall(path.read_text()) == []


def runner():
    """The script of `make tutorials`, which stands outside the package."""
    script = PROJECT / "scripts" / "run_tutorials.py"
    spec = importlib.util.spec_from_file_location("run_tutorials", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_notebook_runs(path, tmp_path, monkeypatch):
    pytest.importorskip("nbclient", reason="nbclient, which runs notebooks")
    pytest.importorskip("ipykernel", reason="ipykernel, in which notebooks run")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.delenv("TUTORIAL_MODEL", raising=False)
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    notebook = runner().run(copy, timeout=800)
    assert all(cell.execution_count for cell in code_of(notebook))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cell_that_fails_fails_the_run(tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="nbclient, which runs notebooks")
    pytest.importorskip("ipykernel", reason="ipykernel, in which notebooks run")
    broken = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    nbformat.write(broken, tmp_path / "broken.ipynb")
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        runner().run(tmp_path / "broken.ipynb", timeout=200)
