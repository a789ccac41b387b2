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
  own score is the same.

Where a check could not be applied, the record says why (`docs/zoo.json`).
"""

_THIRD_PARTY = """# Libraries that know nothing of this one

Made by `python -m tests.zoo --third-party --page` from the records of a sweep; do not
edit. Small models of other libraries with random weights, in float64 on the CPU, are
explained by the unmodified engine and go through every check of
[the architectures of transformers and timm](zoo.md). None of these libraries knows this
package.

{summary}

"Worst error" is the largest `error` or `loss` of a library: the part of a score that
went where the trace of CP-LRP saw no operator, or that is neither relevance at the
inputs nor put in by constants. Where it is above 1e-12, a model computes parts of
itself in float32, whatever its inputs are.

To measure all again, in about 20 minutes, beside the extras `transformers` and `timm`
(torch stays as it is):

```sh
pip install --no-deps -r tests/zoo/requirements-third-party.txt
python -m tests.zoo --third-party
python -m tests.zoo --third-party --page
```

The models stand in `tests/zoo/third_party.py`, a line or a few each.

## The libraries

| library | version | models | passed | refused | failed | not built | worst error |
|---|---|---|---|---|---|---|---|
{libraries}
"""

_REFUSALS = """
## What is refused, and why

A model is refused if CP-LRP or AttnLRP has no right number for it and says so in an
error of its own. `tests/zoo/third_party.py` names that error beforehand: any other one,
or a number in its place, is a failure. A method that does explain the model has passed
the checks that apply to it.

| model | why | error | explained by |
|---|---|---|---|
"""


def third_party(
    records: Iterable[Mapping[str, Any]], versions: Mapping[str, str], folder: Path
) -> None:
    """Write ``third_party.md`` and its records, with the versions of the libraries."""
    kept = _kept(records)
    (folder / "third_party.md").write_text(page_of_libraries(kept, versions))
    _write_records(kept, folder / "third_party.json")


def page_of_libraries(
    records: Iterable[Mapping[str, Any]], versions: Mapping[str, str]
) -> str:
    """Return the page of other libraries in Markdown."""
    groups = _grouped(records)
    every = [record for found in groups.values() for record in found]
    counts = {status: _count(every, status) for status in _STATUSES}
    built = len(every) - counts["not built"]
    summary = (
        f"Of {built} models of {len(groups)} libraries {counts['passed']} pass "
        f"({_percent(counts['passed'], built)}), {counts['refused']} are refused by "
        f"name, and {counts['failed'] or 'none'} failed."
    )
    rows = []
    for group, found in {**groups, "all": every}.items():
        cells = [_count(found, status) for status in _STATUSES]
        worst = max(
            (r[k] for r in found for k in ("conservation", "loss") if r[k] is not None),
            default=None,
        )
        version = versions.get(group, "")
        rows.append(_cells(group, version, len(found), *cells, _figure(worst)))
    text = _THIRD_PARTY.format(summary=summary, libraries="\n".join(rows))
    refused = [record for record in every if record["status"] == "refused"]
    if refused:
        text += _REFUSALS + "\n".join(map(_refusal, refused)) + "\n"
    return text + _sections(groups)


def _refusal(record: Mapping[str, Any]) -> str:
    return _cells(
        f"{record['group']}: {record['name']}",
        record["why"],
        record["cause"].partition(":")[0],
        ", ".join(record["explained_by"]),
    )


def page(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the page in Markdown."""
    groups = _grouped(records)
    every = [record for found in groups.values() for record in found]
    lines = [_TOP, "| group | built | passed | failed | not built |", "|---" * 5 + "|"]
    for group, found in {**groups, "all": every}.items():
        passed, _, failed, absent = (_count(found, s) for s in _STATUSES)
        built = len(found) - absent
        share = f"{passed} ({_percent(passed, built)})" if built else "0"
        lines.append(_cells(group, built, share, failed, absent))
    return "\n".join(lines) + "\n" + _sections(groups)


def _grouped(
    records: Iterable[Mapping[str, Any]],
) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record)
    return groups


def _sections(groups: Mapping[str, list[Mapping[str, Any]]]) -> str:
    """Return a table of every group."""
    lines = []
    for group, found in groups.items():
        lines += ["", f"## {group}", "", _HEADER, "|---" * 7 + "|"]
        lines += [_row(record) for record in sorted(found, key=lambda r: r["name"])]
    return "\n".join(lines) + "\n"


_HEADER = (
    "| architecture | status | error | loss | rules of its modules | unknown | cause |"
)


_STATUSES = ("passed", "refused", "failed", "not built")


def _count(records: Iterable[Mapping[str, Any]], status: str) -> int:
    return sum(record["status"] == status for record in records)


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0%"


def _row(record: Mapping[str, Any]) -> str:
    return _cells(
        record["name"],
        record["status"],
        _figure(record["conservation"]),
        _figure(record["loss"]),
        ", ".join(record["rules"]),
        ", ".join(record["unknown"]),
        record["cause"],
    )


def _cells(*cells: object) -> str:
    """Return a row of a table."""
    return "| " + " | ".join(str(c).replace("|", "\\|") for c in cells) + " |"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"


def _kept(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return records in order, without what only helps to mend."""
    kept = [{k: v for k, v in r.items() if k != "where"} for r in records]
    return sorted(kept, key=lambda r: (r["group"], r["name"]))


def _write_records(kept: list[dict[str, Any]], path: Path) -> None:
    path.write_text(json.dumps(kept, indent=0) + "\n")


def write(records: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write ``zoo.md`` and ``zoo.json`` into a folder."""
    kept = _kept(records)
    (folder / "zoo.md").write_text(page(kept))
    _write_records(kept, folder / "zoo.json")
