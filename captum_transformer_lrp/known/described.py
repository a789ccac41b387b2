"""What is known of an operator beyond its kind, asked once for each table."""

from __future__ import annotations

from .._torch import opened
from ..core.table import Operator, RuleTable
from .decompositions import DECOMPOSITIONS, torch_decomposition
from .identifiers import FOLLOWED
from .refusals import STATEFUL, refuse_differentiation
from .special_calls import SPECIAL_CALLS, in_place_at, inplace_argument

#: operators that take the shape or dtype of their second argument, not its values
_IMITATES = frozenset("view_as reshape_as expand_as type_as to".split())


def describe(operator: Operator, table: RuleTable) -> None:
    """Say of an operator what was found out elsewhere."""
    name = operator.name
    operator.follows = not operator.metadata or name in FOLLOWED
    operator.stateful = STATEFUL.get(name)
    if name in ("grad", "backward"):
        operator.refused = refuse_differentiation
    special = SPECIAL_CALLS.get(name) if table.composite.rows else None
    if special and table.carries_both and not special.beside_gradient:
        special = None  # the gradient would not reach a grid: refused
    place = inplace_argument(operator.function)
    if special is None and place is not None:
        special = in_place_at(place)
    operator.special = special
    operator.imitates = name in _IMITATES
    if table.joins is not None:
        table.joins.describe(operator)
    operator.twin = DECOMPOSITIONS.get(name) or opened(operator.function)
    if operator.twin is None and operator.rule is None and not operator.metadata:
        operator.twin = torch_decomposition(name)
