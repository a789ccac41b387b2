"""How much there is to read: lines of each room, and what one call runs through.

Prints the lines of the package's rooms with docstrings, then the files and functions of
the package that one ``AttnLRP.attribute`` runs through on a small Llama, once whatever
is made once has been made. Comprehensions count as part of their function.

    python benchmarks/reading.py
    python benchmarks/reading.py --functions     # name them
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import captum_transformer_lrp
from captum_transformer_lrp import AttnLRP

PACKAGE = Path(captum_transformer_lrp.__file__).parent


def lines() -> dict[str, int]:
    """Return the lines of each room, and of the files beside them together."""
    found: dict[str, int] = defaultdict(int)
    for path in PACKAGE.rglob("*.py"):
        room, *inside = path.relative_to(PACKAGE).parts
        name = f"{room}/" if inside else "files beside them"
        found[name] += len(path.read_text().splitlines())
    return dict(found)


def run_through() -> dict[str, set[str]]:
    """Return the functions that one call runs through, by file."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    method = AttnLRP(LlamaForCausalLM(config).eval())
    ids = torch.randint(0, 100, (1, 7))
    found: dict[str, set[str]] = defaultdict(set)

    def watch(frame: Any, event: str, argument: Any) -> None:
        path = Path(frame.f_code.co_filename)
        name = frame.f_code.co_name
        if event == "call" and PACKAGE in path.parents and not name.startswith("<"):
            place = f"{name}:{frame.f_code.co_firstlineno}"
            found[str(path.relative_to(PACKAGE))].add(place)

    method.attribute(ids, target=(-1, 3))
    sys.setprofile(watch)
    try:
        method.attribute(ids, target=(-1, 3))
    finally:
        sys.setprofile(None)
    return found


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--functions", action="store_true", help="name them")
    arguments = parser.parse_args()
    rooms = lines()
    for room, count in sorted(rooms.items(), key=lambda item: -item[1]):
        print(f"{room:20} {count:6}")
    print(f"{'all':20} {sum(rooms.values()):6}")
    found = run_through()
    functions = sum(map(len, found.values()))
    print(f"one attribute: {len(found)} files, {functions} functions")
    if arguments.functions:
        for path, names in sorted(found.items()):
            print(f"  {path}: {', '.join(sorted(names))}")


if __name__ == "__main__":
    main()
