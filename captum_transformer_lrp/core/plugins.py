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
        twins (dict): operator -> python code that does the same by other operators.
        last_twin (Callable): takes the name of an operator without a rule, and returns
            such code or None.
        special (dict): operator -> what is asked before its rule, see :class:`Special`.
        installed (list of WhileUsed): what is installed while an engine runs.
        stateful (dict): operator -> what is asked before it runs, because it may draw
            random numbers or change a module; takes the engine and the call.
        refuse_module (Callable): raises for a module that cannot be explained; see
            :mod:`..known.refusals`.
        refuse_function (Callable): takes the name of an autograd function that ran
            unseen, and raises for one that cannot be explained whatever its row says.
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

    twins: dict[str, Callable[..., Any]] = field(default_factory=dict)
    last_twin: Callable[[str], Callable[..., Any] | None] = lambda name: None
    special: dict[str, Special] = field(default_factory=dict)
    installed: list[Any] = field(default_factory=list)
    stateful: dict[str, Callable[..., None]] = field(default_factory=dict)
    refuse_module: Any = None
    refuse_function: Any = None
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


@dataclass(frozen=True, kw_only=True)
class Special:
    """Calls of an operator that are, by their arguments, another operator.

    Attributes:
        run (Callable): takes the function of the operator, its arguments and its
            keyword arguments, and returns what it returns, computed by operators that
            meet their own rules; NotImplemented if the call is the ordinary one.
        asked (Callable): takes the arguments and keyword arguments; says quickly
            whether ``run`` is to be asked at all. Default: always
        unless_alone (bool): with one relevant argument, and a rule that is torch's own
            gradient then, all calls are ordinary. Default: False
        beside_gradient (bool): it may run where torch's own gradient is wanted too.
            Default: True
    """

    run: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
    asked: Callable[[tuple[Any, ...], dict[str, Any]], bool] = lambda args, kwargs: True
    unless_alone: bool = False
    beside_gradient: bool = True


plugins = Plugins()
