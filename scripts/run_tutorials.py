"""Run the tutorials and store their outputs in place.

    python scripts/run_tutorials.py                    # all of them
    python scripts/run_tutorials.py tutorials/03*.ipynb
    TUTORIAL_MODEL=hub python scripts/run_tutorials.py --check

Every notebook runs in a fresh kernel, from its first cell to its last, and in its own
folder. What says when or where it ran is left out, so that a second run changes nothing
but the outputs. A cell that fails ends the run, and nothing is stored.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"


def run(path: Path, *, timeout: int = 600) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of a run.

    Args:
        path (Path): A notebook.
        timeout (int, optional): Seconds for each cell. Default: 600

    Raises:
        CellExecutionError: A cell failed.
        CellTimeoutError: A cell took longer.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_noise(output)]
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }
    return notebook


def is_noise(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a bar of progress, which is of no use to a reader."""
    return output.output_type == "stream" and output.name == "stderr"


def main() -> None:
    """Run the notebooks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    parser.add_argument(
        "--check", action="store_true", help="run, but store no outputs"
    )
    parser.add_argument(
        "--timeout", type=int, default=600, help="seconds for each cell (default: 600)"
    )
    arguments = parser.parse_args()
    model = os.environ.get("TUTORIAL_MODEL")
    if model and Path(model).is_dir():  # the notebooks run in another folder
        os.environ["TUTORIAL_MODEL"] = str(Path(model).resolve())
    paths = arguments.notebooks or sorted(TUTORIALS.glob("*.ipynb"))
    for path in paths:
        start = time.perf_counter()
        notebook = run(path.resolve(), timeout=arguments.timeout)
        if not arguments.check:
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
