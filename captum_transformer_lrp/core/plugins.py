"""What other rooms of the package add to the engine, without its knowing them.

The engine knows kinds of operators and their rules. What is known of particular
operators (how one is written by others, which calls are another operator), of integer
inputs, of functions that several operators compute, and how relevance itself is carried
back, are rooms of their own. Each puts what it knows into :data:`plugins` when it is
imported, and all are imported before the first table is made: what is computed does not
depend on what was imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: modules that plug themselves in, below the package
ROOMS = ("known", "carried")


@dataclass
class Plugins:
    """The places at which others plug in.

    Attributes:
        describe (Callable): takes an :class:`~.table.Operator` and its table, and says
            what is known of it beyond its kind.
        by_argument (dict): operator -> takes the rule of its kind, and what returns
            that of another kind; returns a rule that asks an argument which it is.
        counts (dict): operator -> takes a call, and returns how many elements of one
            tensor it multiplies into each of its output, or None.
        pairs (dict): operator -> takes a call, and says whether it multiplies elements
            with elements, and sums nothing.
        installed (list of WhileUsed): what is installed while an engine runs.
        refuse_module (Callable): raises for a module that cannot be explained.
        reads (Callable): returns what notes the tensors that a module reads.
        unknown (Callable): takes a choice and a composite, and returns what collects
            operators without a rule, and reports them.
        joins (Callable): takes a table, and returns what finds functions of one tensor,
            see :mod:`..known.joins`.
        identifiers (Callable): takes pairs of integer inputs and leaves, and the
            engine, and returns who follows them, see :mod:`..known.identifiers`.
        passes (Callable): returns what keeps relevance and gradient apart on the way
            back, see :mod:`..carried.passes`.
        relevance_form (Callable): returns a rule for tables that carry relevance, see
            :mod:`..carried.convert`.
        complete (bool): all rooms are plugged in.
    """

    describe: Any = None
    by_argument: dict[str, Callable[..., Any]] = field(default_factory=dict)
    counts: dict[str, Callable[..., Any]] = field(default_factory=dict)
    pairs: dict[str, Callable[..., Any]] = field(default_factory=dict)
    installed: list[Any] = field(default_factory=list)
    refuse_module: Any = None
    reads: Any = None
    unknown: Any = None
    joins: Any = None
    identifiers: Any = None
    passes: Any = None
    relevance_form: Any = None
    complete: bool = False

    def load(self) -> None:
        """Import the rooms that plug themselves in, once.

        Plugging in may be repeated. So one that was interrupted is done again, and two
        threads may both do it: neither goes on before all is there.
        """
        if not self.complete:
            for room in ROOMS:
                importlib.import_module(f"{__package__.rpartition('.')[0]}.{room}")
            self.complete = True


plugins = Plugins()
