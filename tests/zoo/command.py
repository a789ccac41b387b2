"""The command of the sweep: each model in a process of its own, with limits.

A crash, a hang or too much memory is a record like any other. Records go to a file of
JSON lines as they come, so that a sweep can be resumed and shards run side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from .page import third_party, write
from .shrinking import Sizes
from .sweep import Entry, Record, examine

PAGE = Path(__file__).resolve().parents[2] / "docs"
_GIBIBYTE = 1 << 30


def entries(sizes: Sizes, groups: str = "") -> Iterator[Entry]:
    """Yield all entries of all sources that are installed."""
    from . import transformers_models

    yield from transformers_models.entries(sizes)
    try:
        from . import timm_models
    except ImportError:
        return
    yield from timm_models.entries()


def entries_of_libraries(sizes: Sizes) -> Iterator[Entry]:
    """Yield all entries of other libraries that are installed."""
    from . import third_party as libraries

    yield from libraries.entries(sizes)


def _address_space() -> int:
    """Return how many bytes of addresses this process has taken, 0 if unknown."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return 0
    return int(pages.read_text().split()[0]) * resource.getpagesize()


def _worker(entry: Entry, seconds: float, memory: float, pipe: Any) -> None:
    torch.set_num_threads(1)
    limit = _address_space() + int(memory * _GIBIBYTE)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
    pipe.send(asdict(examine(entry)))
    pipe.close()


def _may_fork() -> bool:
    """Whether a process that parts from this one can go back through a graph."""
    process = os.fork()
    if process == 0:
        try:
            torch.ones((), requires_grad=True).backward()
            os._exit(0)
        except BaseException:  # whatever it is, nothing of it may reach the parent
            os._exit(1)
    return os.waitpid(process, 0)[1] == 0


def examine_apart(entry: Entry, *, seconds: float, memory: float) -> dict[str, Any]:
    """Examine an entry in a process of its own.

    Args:
        entry (Entry): what to examine.
        seconds (float): of processor time after which the process is ended, or four
            times as many by the clock.
        memory (float): GiB of address space that it may take beside what this process
            has taken already.

    Returns:
        dict: the record.

    Raises:
        RuntimeError: if this process cannot part any more.
    """
    if not _may_fork():
        raise RuntimeError(
            "autograd has started threads in this process (torch.export does), so that "
            "no part of it can go back through a graph. Run the sweep by itself: "
            "python -m tests.zoo, or pytest -m slow tests/zoo."
        )
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_worker, args=(entry, seconds, memory, theirs))
    start = time.perf_counter()
    process.start()
    theirs.close()
    found: dict[str, Any] | None = None
    cause = late = f"took longer than {seconds:.0f} s"
    if ours.poll(4 * seconds):
        try:
            found = ours.recv()
        except EOFError:
            process.join()
            ended = f"the process ended with code {process.exitcode}"
            cause = late if process.exitcode == -signal.SIGXCPU else ended
    process.kill()
    process.join()
    if found is None:
        spent = round(time.perf_counter() - start, 2)
        found = asdict(
            Record(name=entry.name, group=entry.group, cause=cause, seconds=spent)
        )
    return found


def warm_up() -> None:
    """Import what all models need once, before the processes part."""
    for name in ("transformers.modeling_utils", "transformers.modeling_layers"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    model = torch.nn.Linear(3, 2).double().eval()
    entry = Entry(
        name="linear",
        group="warm up",
        build=lambda: (model, torch.ones(2, 3, dtype=torch.float64), None),
    )
    examine(entry)


def chosen(
    all_entries: Iterable[Entry], only: str, shard: str, sample: int
) -> list[Entry]:
    """Return the entries of a pattern, a shard ``i/n``, or every n-th."""
    found = [e for e in all_entries if re.search(only, e.key)]
    index, count = (int(part) for part in shard.split("/"))
    return found[::sample][index - 1 :: count]


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep; return 1 if an architecture failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("--only", default="", help="regular expression: group/name")
    parser.add_argument("--shard", default="1/1", help="i/n: every n-th from the i-th")
    parser.add_argument("--sample", type=int, default=1, help="every n-th entry")
    parser.add_argument("--third-party", action="store_true", help="other libraries")
    parser.add_argument("--records", help="default: build/zoo/records.jsonl, or beside")
    parser.add_argument("--resume", action="store_true", help="leave out known records")
    parser.add_argument("--failed", action="store_true", help="again what failed")
    parser.add_argument("--seconds", type=float, default=60, help="limit per model")
    parser.add_argument("--memory", type=float, default=8, help="GiB per model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--page", action="store_true", help="write the page in docs only"
    )
    parser.add_argument("--here", action="store_true", help="in this process")
    options = parser.parse_args(arguments)
    folder = "third_party" if options.third_party else "zoo"
    path = Path(options.records or f"build/{folder}/records.jsonl")
    known = read(path)
    if options.page:
        for beside in sorted(path.parent.glob("*.jsonl")):
            known = {**read(beside), **known}
        if options.third_party:
            from .third_party import versions

            third_party(known.values(), versions(), PAGE)
        else:
            write(known.values(), PAGE)
        return 0
    warm_up()
    os.environ["HF_HUB_OFFLINE"] = "1"
    source = entries_of_libraries if options.third_party else entries
    wanted = chosen(
        source(Sizes(seed=options.seed)), options.only, options.shard, options.sample
    )
    failures = 0
    for entry in wanted:
        old = known.get(entry.key)
        if options.resume and old:
            continue
        if options.failed and (not old or old["status"] in ("passed", "refused")):
            continue
        if options.here:
            found = asdict(examine(entry))
        else:
            found = examine_apart(entry, seconds=options.seconds, memory=options.memory)
        failures += found["status"] == "failed"
        keep(found, path)
        print(
            f"{found['status']:9}  {entry.key:60}  {_figure(found)}  "
            f"{found['seconds']:.1f} s  {found['cause'][:140]}",
            flush=True,
        )
        if options.here and found["where"]:
            print(found["where"])
    return 1 if failures else 0


def _figure(found: dict[str, Any]) -> str:
    values = (found["conservation"], found["loss"])
    return " ".join("   -   " if v is None else f"{v:.1e}" for v in values)


def keep(found: dict[str, Any], path: Path) -> None:
    """Add a record to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(found) + "\n")


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records of a file, the last of each entry."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {f"{r['group']}/{r['name']}": r for r in lines}
