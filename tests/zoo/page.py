"""The pages ``docs/zoo.md`` and ``third_party.md``, made from records of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_TOP = """# Every architecture, measured

Made by `python -m tests.zoo --page` from the records of a sweep; do not edit. Each
architecture is built small with random weights, in float64 on the CPU, and explained by
the unmodified engine. It passes if

* under CP-LRP the score equals the relevance at the inputs plus what additive constants
  absorbed, to 1e-6: `error` is what went where the trace saw no operator
  (`trace.unseen`), relative to the score, and `loss` what is neither relevance at the
  inputs nor what constants (biases, positions) put into the score
  (`trace.conservation_error`, the number of `check`);
* forward values and the model are unchanged, and traced equals untraced relevance;
* Gradient x Input equals autograd's gradient times the input;
* AttnLRP is finite, and equal between eager and fused attention;
* an example alone, in a batch, and padded has the same relevance, wherever the model's
  own score is the same; where that fails only because a chunked scan multiplies in
  another order within a chunk than across its border, the row names this limit.

Where a check could not be applied, the record says why (`docs/zoo.json`).
"""

_THIRD_PARTY = """# Libraries that know nothing of this one

Made by `python -m tests.zoo --third-party --page`; do not edit. Small random models of
other libraries, in float64 on the CPU, are explained by the unmodified engine and
checked as every [architecture of transformers and timm](zoo.md) is. None of these
libraries is a dependency. With
`pip install --no-deps -r tests/zoo/requirements-third-party.txt`, beside the extras
`transformers` and `timm`, one has what the table was made with, and torch as it is. The
models stand in `tests/zoo/third_party.py`, a line or a few each.

An entry is `refused` if the engine says, in an error of its own, why it gives no
number, and the table says so beforehand: what a model computes out of sight (a
derivative of its own, a detached part) cannot be explained by rules. A wrong number, an
error of torch itself, or a number where a refusal was owed are failures. "Not built"
does not run here at all.

| | version |
|---|---|
{versions}
"""


def third_party(
    records: Iterable[Mapping[str, Any]], versions: Mapping[str, str], folder: Path
) -> None:
    """Write ``third_party.md`` and its records, with the versions of the libraries."""
    rows = "\n".join(f"| {name} | {version} |" for name, version in versions.items())
    write(records, folder, "third_party", _THIRD_PARTY.format(versions=rows))


def page(records: Iterable[Mapping[str, Any]], top: str = _TOP) -> str:
    """Return the page in Markdown, with a column for refusals where there are any."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record)
    every = [record for found in groups.values() for record in found]
    shown = [s for s in _STATUSES if s != "refused" or _count(every, s)]
    lines = [top, f"| group | built | {' | '.join(shown)} |"]
    lines.append("|---" * (2 + len(shown)) + "|")
    for group, found in {**groups, "all": every}.items():
        counts = {status: _count(found, status) for status in shown}
        built = len(found) - counts["not built"]
        cells = [str(count) for count in counts.values()]
        if built:
            cells[0] += f" ({counts['passed'] / built:.1%})"
        lines.append(f"| {group} | {built} | {' | '.join(cells)} |")
    for group, found in groups.items():
        lines += ["", f"## {group}", "", _HEADER, "|---" * 7 + "|"]
        lines += [_row(record) for record in sorted(found, key=lambda r: r["name"])]
    return "\n".join(lines) + "\n"


_HEADER = (
    "| architecture | status | error | loss | rules of its modules | unknown "
    "| cause or limit |"
)


_STATUSES = ("passed", "refused", "failed", "not built")


def _count(records: Iterable[Mapping[str, Any]], status: str) -> int:
    return sum(record["status"] == status for record in records)


def _row(record: Mapping[str, Any]) -> str:
    cells = (
        record["name"],
        record["status"],
        _figure(record["conservation"]),
        _figure(record["loss"]),
        ", ".join(record["rules"]),
        ", ".join(record["unknown"]),
        "; ".join([record["cause"], *record.get("limits", ())]).removeprefix("; "),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def write(
    records: Iterable[Mapping[str, Any]],
    folder: Path,
    name: str = "zoo",
    top: str = _TOP,
) -> None:
    """Write ``zoo.md`` and ``zoo.json``, or those of another name, into a folder."""
    kept = [{k: v for k, v in r.items() if k != "where"} for r in records]
    kept.sort(key=lambda r: (r["group"], r["name"]))
    (folder / f"{name}.md").write_text(page(kept, top))
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=0) + "\n")
