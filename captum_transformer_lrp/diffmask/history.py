"""What happened during the training of masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StateReport:
    """How one hidden state fares under its masks.

    Attributes:
        state (str): the hidden state.
        divergence (float): mean over the examples, in nats.
        divergence_95 (float): its 95th percentile.
        kept (float): mean probability that a token is kept.
        agreement (float): part of the examples with the same prediction.
        everything_masked (float): the divergence with all tokens replaced.
        margin (float): what the divergence may be.
        examples (int): how many were seen.
    """

    state: str
    divergence: float
    divergence_95: float
    kept: float
    agreement: float
    everything_masked: float
    margin: float
    examples: int

    @property
    def converged(self) -> bool:
        """Whether the mean divergence is within the margin."""
        return self.divergence <= self.margin


@dataclass(frozen=True)
class Report:
    """One :class:`StateReport` for each hidden state; prints as a table."""

    states: tuple[StateReport, ...]

    @property
    def converged(self) -> bool:
        """Whether all states are within the margin."""
        return all(state.converged for state in self.states)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dictionary for each state."""
        return [{**vars(s), "converged": s.converged} for s in self.states]

    def __str__(self) -> str:
        rows = [
            (
                "state",
                "divergence",
                "95 %",
                "all masked",
                "kept",
                "agreement",
                "converged",
            )
        ]
        rows += [
            (
                s.state,
                f"{s.divergence:.4f}",
                f"{s.divergence_95:.4f}",
                f"{s.everything_masked:.4f}",
                f"{s.kept:.3f}",
                f"{s.agreement:.3f}",
                "yes" if s.converged else "no",
            )
            for s in self.states
        ]
        lines = table(rows)
        if self.states:
            s = self.states[0]
            lines.append(f"margin {s.margin:.4f} nats, {s.examples} examples")
        return "\n".join(lines)


@dataclass
class History:
    """What was recorded while masks were trained.

    Attributes:
        records (list of dict): one for each state and recorded step: ``step``,
            ``state``, ``divergence`` (nats), ``kept``, ``multiplier``, ``agreement``;
            averages over the steps since the last record.
        steps (int): that were made.
        skipped (int): steps left out because the loss was not finite.
        stopped (str): why the training ended.
        report (Report or None): of the masks in the end.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    skipped: int = 0
    stopped: str = ""
    report: Report | None = None

    def of(self, state: str) -> list[dict[str, Any]]:
        """Return the records of one state, in order."""
        return [r for r in self.records if r["state"] == state]

    def __str__(self) -> str:
        head = f"{self.steps} steps ({self.stopped or 'not ended'})"
        if self.skipped:
            head += f", {self.skipped} skipped because the loss was not finite"
        return head if self.report is None else f"{head}\n{self.report}"


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the first column to the left, the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
