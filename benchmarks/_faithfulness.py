"""What the two faithfulness benchmarks share: cached results, tables, figures."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_transformer_lrp.metrics import Measurement

#: what the paired differences are taken against
REFERENCE = "IG-20"


@dataclass(frozen=True)
class Result:
    """One method on one set of examples.

    Args:
        method (str): its name in the table of methods.
        seconds (float): of processor time, per example, on one thread.
        measurements (dict): metric -> measurement.
        indices (dict): metric -> the examples it was measured on, where not all were.
        curves (dict): order -> mean score at each fraction.
    """

    method: str
    seconds: float
    measurements: dict[str, Measurement]
    indices: dict[str, list[int]]
    curves: dict[str, list[float]]

    def on(self, metric: str, examples: set[int]) -> Measurement:
        """Return a measurement on some of the examples."""
        measurement = self.measurements[metric]
        indices = self.indices.get(metric, list(range(measurement.n)))
        chosen = [place for place, i in enumerate(indices) if i in examples]
        return measurement.subset(torch.tensor(chosen))

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "seconds_per_example": self.seconds,
            "measurements": {k: m.to_dict() for k, m in self.measurements.items()},
            "indices": self.indices,
            "curves": self.curves,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        measurements = {
            key: Measurement(
                name=m["name"],
                values=torch.tensor(m["values"], dtype=torch.float64),
                better=m["better"],
                settings=m["settings"],
                unit=m["unit"],
            )
            for key, m in data["measurements"].items()
        }
        return cls(
            data["method"],
            data["seconds_per_example"],
            measurements,
            data["indices"],
            data["curves"],
        )


def cached(
    folder: Path,
    method: str,
    protocol: Mapping[str, Any],
    compute: Callable[[], Result],
    *,
    again: bool = False,
) -> Result:
    """Return the result of a method: the file of an earlier run, or a new one.

    A file counts if it was measured by the same protocol; what a method's *name* stands
    for is not checked: use `--again` after changing a method.
    """
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', method.lower()).strip('-')}.json"
    if path.is_file() and not again:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["protocol"] == dict(protocol) and data["method"] == method:
            return Result.from_dict(data)
    result = compute()
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"protocol": dict(protocol), **result.to_dict()})
    path.write_text(text, encoding="utf-8")
    return result


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that seconds can be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def table(
    results: Sequence[Result],
    columns: Sequence[str],
    examples: Sequence[int] | None = None,
    against: str = REFERENCE,
) -> str:
    """Return a Markdown table: mean ± standard error, and paired differences.

    Args:
        results (sequence of Result): one row each.
        columns (sequence of str): metrics; a `+` behind one adds the paired difference.
        examples (sequence of int, optional): only these. Default: None, all
        against (str, optional): the method that differences are to. Default: IG-20
    """
    reference = next((r for r in results if r.method == against), None)
    heads = ["method"]
    for column in columns:
        name = column.removesuffix("+")
        heads += [name, f"− {against}"] if column != name else [name]
    heads.append("s / example")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]

    def chosen(result: Result, metric: str) -> Measurement:
        if examples is None:
            return result.measurements[metric]
        return result.on(metric, set(examples))

    for result in results:
        cells = [result.method]
        for column in columns:
            name = column.removesuffix("+")
            found = chosen(result, name)
            cells.append(f"{found.mean:.3f} ± {found.standard_error:.3f}")
            if column == name:
                continue
            if reference is None or result is reference:
                cells.append("")
                continue
            gap = found.minus(chosen(reference, name))
            cells.append(f"{gap.mean:+.3f} ± {gap.standard_error:.3f}")
        cells.append(f"{result.seconds:.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def summary(results: Sequence[Result], number: int) -> list[dict[str, Any]]:
    """Return mean, standard error and paired difference of all metrics, for JSON.

    Args:
        results (sequence of Result): the methods.
        number (int): of examples; all of them and either half are summed up.
    """
    half = number // 2
    parts = {
        "all": range(number),
        "first half": range(half),
        "second half": range(half, number),
    }
    reference = next((r for r in results if r.method == REFERENCE), None)
    rows = []
    for result in results:
        row: dict[str, Any] = {"method": result.method, "seconds": result.seconds}
        for part, examples in parts.items():
            for metric in result.measurements:
                found = result.on(metric, set(examples))
                cell = {
                    "n": found.n,
                    "mean": found.mean,
                    "standard_error": found.standard_error,
                }
                if reference is not None and result is not reference:
                    gap = found.minus(reference.on(metric, set(examples)))
                    cell[f"minus {REFERENCE}"] = gap.mean
                    cell["its standard error"] = gap.standard_error
                row.setdefault(part, {})[metric] = cell
        rows.append(row)
    return rows


def save_summary(path: Path, about: Mapping[str, Any], rows: Any) -> None:
    """Write a summary and what it is about as JSON, four digits each."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, 4)
        if isinstance(value, Mapping):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, list):
            return [rounded(item) for item in value]
        return value

    path.parent.mkdir(parents=True, exist_ok=True)
    data = {**about, "methods": rounded(rows)}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def draw(
    results: Sequence[Result], panels: Mapping[str, str], path: Path, title: str
) -> None:
    """Save bars with standard errors, one panel a metric, best method on top.

    Args:
        results (sequence of Result): the methods.
        panels (Mapping): metric -> its axis label.
        path (Path): where to save the figure.
        title (str): what the figure says.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first = next(iter(panels))
    ordered = sorted(results, key=lambda r: r.measurements[first].mean)
    height = 0.9 + 0.27 * len(ordered)
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4 + 2.6 * len(panels), height), sharey=True
    )
    for axis, (metric, label) in zip(
        [axes] if len(panels) == 1 else axes, panels.items(), strict=True
    ):
        means = [r.measurements[metric].mean for r in ordered]
        errors = [r.measurements[metric].standard_error for r in ordered]
        ours = [bool(re.search("LRP|Relevance", r.method)) for r in ordered]
        colors = ["#0072B2" if own else "#9A9A9A" for own in ours]
        axis.barh(range(len(ordered)), means, xerr=errors, color=colors, height=0.72)
        axis.set_xlabel(label)
        axis.set_yticks(range(len(ordered)), [r.method for r in ordered])
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(0, color="black", linewidth=0.8)
    figure.suptitle(f"{title} (blue: relevance propagation)", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def add_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Add what both scripts take."""
    parser.add_argument("--methods", nargs="+", help="names; default: all")
    parser.add_argument(
        "--output", type=Path, default=Path(output), help="folder of results"
    )
    parser.add_argument(
        "--against",
        default=REFERENCE,
        help="the method that differences in the tables are to",
    )
    parser.add_argument(
        "--json", type=Path, help="where to save means and standard errors"
    )
    parser.add_argument("--figure", type=Path, help="where to save the figure")
    parser.add_argument(
        "--again", nargs="*", default=[], help="methods to measure once more"
    )


def chosen_methods(names: Sequence[str] | None, known: Mapping[str, Any]) -> list[str]:
    """Return the names that were asked for, and the reference.

    Raises:
        SystemExit: if a name is unknown.
    """
    chosen = list(known) if names is None else list(names)
    for name in chosen:
        if name not in known:
            raise SystemExit(f"no method {name!r}; there are: {', '.join(known)}")
    return chosen


def in_words(scores: Tensor, words: Sequence[int | None], number: int) -> Tensor:
    """Return the sum over the pieces of each word, `(number,)`.

    Args:
        scores (Tensor): per piece, `(pieces,)`.
        words (sequence of int or None): the word of each piece.
        number (int): how many words there are.
    """
    summed = torch.zeros(number, dtype=torch.float64)
    for score, word in zip(scores.double().tolist(), words, strict=False):
        if word is not None:
            summed[word] += score
    return summed
