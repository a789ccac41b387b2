"""What a composite, the registry and the overrides say together, ready for look-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from .composites import Composite
from .operators import (
    FOLLOWED,
    inplace_argument,
    is_in_place,
    is_metadata,
    opened,
    operator_name,
    out_of_place,
)
from .plugins import Special, plugins
from .registry import (
    Key,
    Layers,
    ModuleName,
    Predicate,
    Row,
    active_overrides,
    computing_class,
    is_module_key,
    key_name,
    registry,
)
from .rules.base import Rule, needs_relevance
from .rules.elementwise import ByExponent
from .rules.linear import PLAIN_FOR_ONE, PlainGradient
from .rules.reductions import FOLDED, ByReduction

#: operators that combine elements in the way that an argument names
REDUCTIONS = frozenset({"scatter_reduce", "index_reduce", "segment_reduce"})

#: operators that keep the order of the elements of one tensor, or select of it
RESHAPES = frozenset(
    """view view_as reshape reshape_as _unsafe_view flatten unflatten ravel squeeze
    expand expand_as broadcast_to contiguous clone alias atleast_1d atleast_2d
    atleast_3d getitem""".split()
)

#: operators that take the shape or dtype of their second argument, not its values
IMITATES = frozenset("view_as reshape_as expand_as type_as to".split())


class Operator:
    """How one torch callable is treated: looked up once, then read from a dictionary.

    Attributes:
        function (Callable): the callable.
        name (str): the operator that it spells, without the in-place underscore.
        kind (str | None): its kind.
        rule (Rule | None): the rule of the composite; None if it has none.
        stateful (Callable | None): asked before it runs: it may draw random numbers or
            change a module.
        metadata (bool): it carries no relevance whatever happens.
        inert (bool): likewise, and nothing is to be noted of it.
        follows (bool): identifiers may be followed through it.
        multiplies (bool): it is of kind ``"product"``.
        special (Special | None): asked before the rule whether this call is another
            operator.
        plain (bool): its rule is torch's own gradient, whatever the arguments.
        plain_for_one (bool): it is so with one relevant argument.
        in_place (bool): it overwrites its first argument.
        out_of_place (Callable | None): the operator that returns a new tensor instead.
        imitates (bool): of its second argument it takes the shape or dtype only.
        joins (bool): it may join functions of one tensor, see :mod:`..known.joins`, as
            are the next four; all False where that does not matter.
        bends (bool): of one tensor and a constant it is no linear function.
        elementwise (bool): of one relevant argument it is a function of each element.
        cuts (bool): likewise, and a rule may make it a constant.
        compares (bool): it makes conditions.
        recomputes (bool): it works in place, and its rule out of place.
        reshapes (bool): of an unchanged shape it returns the tensor as it was.
        inplace_position (int | None): where a python function takes ``inplace``.
        differentiates (bool): it asks autograd for gradients.
        twin (Callable | None): python code that does the same by other operators:
            a decomposition of ours, its transparent twin
            (:func:`.operators.opened`), or without a rule one of torch's.
    """

    __slots__ = (
        "bends",
        "compares",
        "cuts",
        "differentiates",
        "elementwise",
        "follows",
        "function",
        "imitates",
        "in_place",
        "inert",
        "inplace_position",
        "joins",
        "kind",
        "metadata",
        "multiplies",
        "name",
        "out_of_place",
        "plain",
        "plain_for_one",
        "recomputes",
        "reshapes",
        "rule",
        "special",
        "stateful",
        "twin",
    )

    def __init__(self, function: Callable[..., Any], table: RuleTable) -> None:
        spelled = operator_name(function)
        self.function = function
        self.in_place = is_in_place(spelled)
        self.name = spelled[:-1] if spelled.endswith("_") else spelled
        if self.name.endswith("_") or spelled.endswith("__"):
            self.name = spelled
        self.metadata = is_metadata(self.name) or is_metadata(spelled)
        self.follows = not self.metadata or self.name in FOLLOWED
        self.kind, rule = table.for_operator(self.name)
        self.rule = None if rule is None else table.in_form(rule, self.kind, self.name)
        self.imitates = self.name in IMITATES
        self.joins = self.bends = self.elementwise = self.cuts = self.compares = False
        if table.joins is not None:
            table.joins.describe(self)
        self.reshapes = self.name in RESHAPES
        self.recomputes = self.in_place and self.name != "setitem"
        self.differentiates = spelled in ("grad", "backward")
        self.inert = self.metadata and not (self.differentiates or self.compares)
        self.stateful = plugins.stateful.get(self.name)
        self.special: Special | None = None
        if table.composite.rows:
            self.special = plugins.special.get(self.name)
        if self.special and table.carries_both and not self.special.beside_gradient:
            self.special = None  # the gradient would not reach a grid: refused
        alone = self.special is None or self.special.unless_alone
        self.plain = (
            type(self.rule) is PlainGradient  # a subclass is another rule
            and self.stateful is None
            and alone
        )
        self.multiplies = self.kind == "product"
        self.plain_for_one = (
            type(self.rule) in PLAIN_FOR_ONE
            and self.stateful is None
            and self.name not in FOLDED
            and alone
        )
        self.out_of_place = out_of_place(self.name) if self.in_place else None
        self.inplace_position = inplace_argument(function)
        self.twin = plugins.twins.get(self.name) or opened(function)
        if self.twin is None and self.rule is None and not self.metadata:
            self.twin = plugins.last_twin(self.name)

    def asked_in_place(
        self, args: tuple[Any, ...], kwargs: dict[str, Any] | None
    ) -> bool:
        """Whether a python function was called with ``inplace=True``."""
        position = self.inplace_position
        if position is None:
            return False
        given = (kwargs or {}).get("inplace")
        return bool(given or args[position : position + 1] == (True,))


class RuleTable:
    """The rows in force, from the most to the least specific.

    Overrides (innermost first), the composite, the registry. A composite without rows
    knows neither kinds nor modules: everything keeps torch's own gradient.

    Attributes:
        composite (Composite): as given, or what it becomes under the overrides, if one
            of them only knows relevance.
        joins (Any): finds functions of one tensor, see :mod:`..known.joins`; None where
            relevance does not pass activations.
    """

    def __init__(self, composite: Composite) -> None:
        overrides = active_overrides()
        self.layers: list[dict[Key, Row]] = [
            *({key: row} for key, row in reversed(overrides)),
            dict(composite.rows),
        ]
        rows = dict(overrides)
        if composite.rows:
            rows = {**registry.carried(), **rows}
        if any(map(needs_relevance, rows.values())):
            composite = composite.with_rules(rows)
        self.composite = composite
        #: torch's gradient is wanted too, as that at attention maps
        self.carries_both = composite.carries == "relevance" and not composite.converts
        self._forms: dict[tuple[Rule, str | None, str | None], Rule] = {}
        self.operators: dict[Callable[..., Any], Operator] = {}
        self._classes: dict[type[nn.Module], Rule | None] = {}
        #: classes of modules that no row says anything of, see Engine._index
        self.ordinary: set[type[nn.Module]] = set()
        self._possible: dict[type[nn.Module], list[tuple[Predicate, Row]]] = {}
        self.predicates = [
            (key, row)
            for layer in self.layers
            for key, row in layer.items()
            if isinstance(key, Predicate)
        ]
        self.patterns = [
            (key, row)
            for layer in self.layers
            for key, row in layer.items()
            if isinstance(key, (ModuleName, Layers))
        ]
        self.patterns.sort(key=lambda pattern: isinstance(pattern[0], Layers))
        self.modules = {
            key_name(key): row
            for layer in reversed(self.layers)
            for key, row in layer.items()
            if is_module_key(key)
            and not isinstance(key, (Predicate, ModuleName, Layers))
        }
        self.joins = plugins.joins(self)
        if composite.rows:
            self.predicates += registry.predicates.values()
            self.modules = {
                **{n: r for n, r in registry.rows.items() if is_module_key(n)},
                **self.modules,
            }

    def operator(self, function: Callable[..., Any]) -> Operator:
        """Return how a torch callable is treated."""
        found = self.operators.get(function)
        if found is None:
            found = self.operators[function] = Operator(function, self)
        return found

    def for_operator(self, name: str) -> tuple[str | None, Rule | None]:
        """Return the kind and the rule of an operator."""
        registered = registry.kind_of(name)
        kind = registered if isinstance(registered, str) else None
        for layer in self.layers:
            if name in layer:
                return kind, self._resolve(layer[name])
            if kind is not None and kind in layer:
                rule = self._resolve(layer[kind])
                if name in REDUCTIONS and rule is not None:
                    products = self._resolve("product") or rule
                    rule = ByReduction(sums=rule, products=products)
                if name == "pow" and rule is not None:
                    exponentials = self._resolve("exponential") or rule
                    rule = ByExponent(powers=rule, exponentials=exponentials)
                return kind, rule
        if isinstance(registered, Rule) and self.composite.rows:
            return kind, registered
        if self.composite.unknown == "gradient" and not self.composite.rows:
            return kind, PlainGradient()
        return kind, None

    def in_form(self, rule: Rule, kind: str | None, operator: str | None) -> Rule:
        """Return a rule for what this table carries, see :mod:`..carried.convert`."""
        if self.composite.carries != "relevance":
            return rule
        key = (rule, kind, operator)
        if key not in self._forms:
            self._forms[key] = plugins.relevance_form(
                rule, kind, operator, beside_gradient=self.carries_both
            )
        return self._forms[key]

    def for_module(
        self, module: nn.Module, name: str, places: Mapping[Layers, set[nn.Module]]
    ) -> Rule | None:
        """Return the rule that is meant for a module, if there is one.

        Args:
            module (Module): part of the model.
            name (str): its name within the model.
            places (Mapping): the modules that each key of the table by depth means.
        """
        for pattern, row in self.patterns:
            if isinstance(pattern, Layers):
                if module in places[pattern]:
                    return self._resolve(row)
            elif pattern.matches(name):
                return self._resolve(row)
        cls = type(module)
        possible = self._possible.get(cls)
        if possible is None:
            possible = self._possible[cls] = [
                (predicate, row)
                for predicate, row in self.predicates
                if predicate.of_class is None or predicate.of_class(cls)
            ]
        for predicate, row in possible:
            if predicate.test(module):
                return self._resolve(row)
        if cls not in self._classes:
            names = [f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__]
            own = cls.__mro__.index(computing_class(cls))
            rows = (
                self.modules.get(name)
                for place, name in enumerate(names)
                # what a subclass computes anew may be another function
                if place <= own or name not in registry.exact
            )
            row_or_none = next((row for row in rows if row is not None), None)
            self._classes[cls] = (
                None if row_or_none is None else self._resolve(row_or_none)
            )
        return self._classes[cls]

    def asks_each(self, cls: type[nn.Module]) -> bool:
        """Whether some row may mean one module of a class and not another."""
        return bool(self.patterns or self._possible.get(cls))

    def _resolve(self, row: Row) -> Rule | None:
        """Return the rule of a row; a kind stands for this table's rule for it."""
        if isinstance(row, Rule):
            return row
        for layer in self.layers:
            if row in layer:
                return self._resolve(layer[row])
        return None


_tables: dict[tuple[Any, ...], RuleTable] = {}
_MAXIMUM_TABLES = 64


def table_for(composite: Composite) -> RuleTable:
    """Return the table for a composite under the present registry and overrides."""
    plugins.load()
    key = (composite, registry.version, active_overrides())
    found = _tables.get(key)
    if found is None:
        if len(_tables) >= _MAXIMUM_TABLES:
            _tables.clear()
        found = _tables[key] = RuleTable(composite)
    return found
