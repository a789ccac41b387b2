"""What happened during the training of masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .._visible import printed
from ..report.blocks import Block, Heading, Paragraph, Table
from ..report.shown import Shown


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


#: what a report is made on, if nobody says
GIVEN = "the data that was given"
TRAINING = "data that the masks were trained on; pass validation= for other data"
VALIDATION = "the validation data"

_HEADS = (
    "state",
    "divergence",
    "95 %",
    "all masked",
    "kept",
    "agreement",
    "converged",
)


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """One :class:`StateReport` for each hidden state; prints as a table.

    Attributes:
        states (tuple of StateReport): in the order of the model.
        data (str): what it is made on, in words.
    """

    states: tuple[StateReport, ...]
    data: str = GIVEN

    @property
    def converged(self) -> bool:
        """Whether all states are within the margin."""
        return all(state.converged for state in self.states)

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dictionary for each state."""
        return [{**vars(s), "converged": s.converged} for s in self.states]

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: a row for each hidden state, and what it is made on."""
        yield Heading(text="What the masks cost, state by state")
        yield Paragraph(text=self.alt, kind="answer")
        yield Table(heads=_HEADS, rows=tuple(self._rows()))
        yield Paragraph(
            text="Divergence is in nats, mean and 95th percentile; with all tokens "
            "masked it is what the model loses at most. A state has converged where "
            "the mean is within the margin; of others the masks say nothing.",
            kind="meaning",
        )

    @property
    def alt(self) -> str:
        """How many states are within the margin, on how many examples of what."""
        if not self.states:
            return f"No state was measured, on {self.data}."
        good = sum(state.converged for state in self.states)
        first = self.states[0]
        return (
            f"{good} of {len(self.states)} states are within the margin of "
            f"{first.margin:.4f} nats, measured on {first.examples:,} examples of "
            f"{self.data}."
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for s in self.states:
            yield (
                s.state,
                f"{s.divergence:.4f}",
                f"{s.divergence_95:.4f}",
                f"{s.everything_masked:.4f}",
                f"{s.kept:.3f}",
                f"{s.agreement:.3f}",
                "yes" if s.converged else "no",
            )

    def __str__(self) -> str:
        return printed("\n".join([*table([_HEADS, *self._rows()]), self.alt]))


@dataclass(repr=False)
class History(Shown):
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

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: how the training ended, and the report."""
        yield Heading(text="Training of masks")
        yield Paragraph(text=f"{self._end}.", kind="answer")
        if self.report is not None:
            _, *blocks = self.report.blocks()
            yield from blocks

    @property
    def alt(self) -> str:
        """How the training ended, and the report in a sentence."""
        found = f"{self._end}."
        return found if self.report is None else f"{found} {self.report.alt}"

    @property
    def _end(self) -> str:
        head = f"{self.steps} steps ({self.stopped or 'not ended'})"
        if self.skipped:
            head += f", {self.skipped} skipped because the loss was not finite"
        return head

    def __str__(self) -> str:
        found = self._end if self.report is None else f"{self._end}\n{self.report}"
        return printed(found)


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
