"""A table of rows that shows itself: what a method does with each kind of operator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from .._visible import printed
from .blocks import Block, Heading, Paragraph, Table
from .shown import Shown


class ShownRows(Shown):
    """A table with a name, rows, and where they are from.

    Attributes:
        name (str): its heading.
        source (str): paper and equation; may be empty.
    """

    name: str
    source: str

    @abstractmethod
    def printed_rows(self) -> list[tuple[str, str]]:
        """Return the rows as they are printed: for what, and the rule."""

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: the table."""
        yield Heading(text=self.name)
        if self.source:
            yield Paragraph(text=self.source, kind="answer")
        rows = tuple(self.printed_rows())
        if rows:
            yield Table(heads=("Operator or kind", "Rule"), rows=rows, texts=2)
        else:
            yield Paragraph(text="No rows: torch's own gradient everywhere.")

    @property
    def alt(self) -> str:
        """What the table is."""
        return f"Rules of {self.name}."

    def __str__(self) -> str:
        """Print the table, one row a line."""
        rows = self.printed_rows()
        width = max((len(key) for key, _ in rows), default=0)
        lines = [f"{self.name}  ({self.source})" if self.source else self.name]
        lines += [f"  {key:{width}}  {rule}" for key, rule in rows]
        if not rows:
            lines.append("  (no rows: torch's own gradient everywhere)")
        return printed("\n".join(lines))
