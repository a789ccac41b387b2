"""The page ``docs/zoo.md``, made from the records of a sweep."""

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


def page(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the page in Markdown."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["group"], []).append(record)
    lines = [_TOP, "| group | built | passed | failed | not built |", "|---" * 5 + "|"]
    counts = {g: _counts(found) for g, found in groups.items()}
    counts["all"] = tuple(sum(c[i] for c in counts.values()) for i in range(3))
    for group, (passed, failed, absent) in counts.items():
        share = f" ({passed / (passed + failed):.1%})" if passed + failed else ""
        lines.append(
            f"| {group} | {passed + failed} | {passed}{share} | {failed} | {absent} |"
        )
    for group, found in groups.items():
        lines += ["", f"## {group}", "", _HEADER, "|---" * 7 + "|"]
        lines += [_row(record) for record in sorted(found, key=lambda r: r["name"])]
    return "\n".join(lines) + "\n"


_HEADER = (
    "| architecture | status | error | loss | rules of its modules | unknown "
    "| cause or limit |"
)


def _counts(records: Iterable[Mapping[str, Any]]) -> tuple[int, ...]:
    found = [record["status"] for record in records]
    return tuple(found.count(s) for s in ("passed", "failed", "not built"))


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


def write(records: Iterable[Mapping[str, Any]], folder: Path) -> None:
    """Write ``zoo.md`` and ``zoo.json`` into a folder."""
    kept = [{k: v for k, v in r.items() if k != "where"} for r in records]
    kept.sort(key=lambda r: (r["group"], r["name"]))
    (folder / "zoo.md").write_text(page(kept))
    (folder / "zoo.json").write_text(json.dumps(kept, indent=0) + "\n")
