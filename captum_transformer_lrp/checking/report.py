"""What was checked and what was found, as it is printed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .._visible import printed
from ..errors import UnknownNameError
from ..observers.trace import Trace
from ..report.blocks import Block, Heading, Paragraph, Table
from ..report.shown import Shown

Outcome = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was measured.

    Attributes:
        name (str): what, in one or two words.
        outcome (str): ``"pass"``, ``"fail"`` or ``"not applicable"``.
        sentence (str): what was found, and what it means.
        measured (float or None): the error, relative. Default: None
        tolerance (float or None): what would still pass. Default: None
        details (tuple of str): one line for each module or operator concerned.
    """

    name: str
    outcome: Outcome
    sentence: str
    measured: float | None = None
    tolerance: float | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, repr=False)
class CheckReport(Shown):
    """What :func:`check` found; prints itself.

    Attributes:
        model (str): class of the model.
        dtype (str): its precision.
        measured_in (str): the precision of the measurements.
        checks (tuple of Check): in the order in which they were made.
        trace (Trace or None): what every operator received and passed on under
            CP-LRP, for a closer look. Default: None
    """

    model: str
    dtype: str
    measured_in: str
    checks: tuple[Check, ...]
    trace: Trace | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(c for c in self.checks if c.outcome == "fail")

    def __getitem__(self, name: str) -> Check:
        """Return the check of that name.

        Raises:
            UnknownNameError: if there is none.
        """
        for one in self.checks:
            if one.name == name:
                return one
        names = ", ".join(repr(c.name) for c in self.checks)
        raise UnknownNameError(f"there is no check {name!r}; this report has {names}.")

    def to_records(self) -> list[dict[str, Any]]:
        """Return the checks as dictionaries, for pandas or JSON."""
        return [asdict(one) for one in self.checks]

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: the verdict and a row for each check."""
        badge = "passed" if self.passed else "wrong"
        yield Heading(text=f"Do the rules hold for {self.model}?", badge=badge)
        yield Paragraph(
            text=f"{self.verdict} The model is in {self.dtype}, measured in "
            f"{self.measured_in}.",
            kind="answer",
        )
        yield Table(
            heads=("Check", "Outcome", "What was found", "Error", "Tolerated"),
            rows=tuple(
                (c.name, c.outcome, c.sentence, _size(c.measured), _size(c.tolerance))
                for c in self.checks
            ),
            texts=3,
        )
        for one in self.checks:
            for line in one.details:
                yield Paragraph(text=f"{one.name}: {line}")

    @property
    def alt(self) -> str:
        """The verdict."""
        return f"{self.model}: {self.verdict}"

    def __str__(self) -> str:
        """Print one line per check, and a verdict."""
        marks = {"pass": "pass", "fail": "FAIL", "not applicable": "n/a "}
        width = max(len(c.name) for c in self.checks)
        indent = " " * (8 + width)
        lines = [f"{self.model} in {self.dtype}, measured in {self.measured_in}"]
        for one in self.checks:
            start = f"  {marks[one.outcome]}  {one.name:{width}}  "
            lines += textwrap.wrap(
                one.sentence,
                88,
                initial_indent=start,
                subsequent_indent=indent + "  ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            lines += [f"{indent}    {line}" for line in one.details]
        lines.append(self.verdict)
        return printed("\n".join(lines))

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        if self.passed:
            return "Passed: the rules hold for this model."
        names = ", ".join(c.name for c in self.failed)
        return f"Failed: {names}. The lines above say where and what to write."


def _size(error: float | None) -> str:
    return "" if error is None else f"{error:.1e}"
