"""Processor time of imports and of the command's answers, over that of ``captum.attr``.

Each program runs in a fresh interpreter, all of them in turn, so that whatever else the
machine does hits them alike; the ratio of medians is printed.

    python benchmarks/startup.py --repeats 9
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

CAPTUM = "import captum.attr"
_COMMAND = "from captum_transformer_lrp.cli import main; main({!r})"
PROGRAMS = {
    CAPTUM: CAPTUM,
    "import torch": "import torch",
    "import captum_transformer_lrp": "import captum_transformer_lrp",
    "... and AttnLRP": "from captum_transformer_lrp import AttnLRP",
    "... and every public name": "from captum_transformer_lrp import *",
    "the command, --help": _COMMAND.format(["--help"]),
    "the command, --version": _COMMAND.format(["--version"]),
    "the command, mistyped": _COMMAND.format(["explane"]),
    "the command, methods": _COMMAND.format(["methods"]),
    "the command, no such method": _COMMAND.format(["rules", "--method", "cplrp"]),
}


def seconds(program: str) -> float:
    """Return the processor time of a fresh interpreter that runs a program."""
    before = os.times()
    quiet = subprocess.DEVNULL
    subprocess.run([sys.executable, "-c", program], stdout=quiet, stderr=quiet)
    after = os.times()
    return (
        after.children_user
        + after.children_system
        - before.children_user
        - before.children_system
    )


def main(arguments: list[str] | None = None) -> None:
    """Print one line for each program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    times: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(options.repeats):
        for name, program in PROGRAMS.items():
            times[name].append(seconds(program))
    captum = statistics.median(times[CAPTUM])
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:32} {median:6.2f} s  {median / captum:5.2f} x captum.attr")


if __name__ == "__main__":
    main()
