"""What a composite, the registry and the overrides say together, ready for look-up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .call import Function
from .composites import Composite
from .operators import METADATA, is_in_place, operator_name, out_of_place
from .plugins import plugins
from .registry import (
    Key,
    ModuleName,
    ModulePattern,
    Predicate,
    Row,
    active_overrides,
    computing_class,
    is_module_key,
    key_name,
    registry,
)
from .rules.base import Rule, needs_relevance
from .rules.linear import PLAIN_FOR_ONE, PlainGradient


class Operator:
    """How one torch callable is treated: looked up once, then read from a dictionary.

    Attributes:
        function (Callable): the callable.
        name (str): the operator that it spells, without the in-place underscore.
        kind (str | None): its kind.
        rule (Rule | None): the rule of the composite; None if it has none.
        metadata (bool): it carries no relevance whatever happens.
        inert (bool): likewise, and nothing is to be noted of it.
        plain (bool): its rule is torch's own gradient, whatever the arguments.
        plain_for_one (bool): it is so with one relevant argument.
        in_place (bool): it overwrites its first argument.
        multiplies (bool): it is of kind ``"product"``.
        recomputes (bool): it works in place, and its rule out of place.
        out_of_place (Callable | None): the operator that returns a new tensor instead.

    Other rooms say the rest (:attr:`.Plugins.describe`):

    Attributes:
        follows (bool): integer inputs may be followed through it.
        refused (Callable | None): asked before it is passed on; may raise.
        stateful (Callable | None): asked before it runs: it may draw random numbers or
            change a module.
        special (Any): asked before the rule whether this call is another operator.
        twin (Callable | None): python code that does the same by other operators.
        imitates (bool): of its second argument it takes the shape or dtype only.
        joins, bends, elementwise, reshapes, cuts, compares (bool): what it is to
            functions of one tensor, see :mod:`..known.joins`.
    """

    follows = True
    refused: Callable[..., None] | None = None
    stateful: Callable[..., None] | None = None
    special: Any = None
    twin: Function | None = None
    imitates = joins = bends = elementwise = reshapes = cuts = compares = False

    def __init__(self, function: Function, table: RuleTable) -> None:
        spelled = operator_name(function)
        self.function = function
        self.in_place = is_in_place(spelled)
        self.name = spelled[:-1] if spelled.endswith("_") else spelled
        if self.name.endswith("_") or spelled.endswith("__"):
            self.name = spelled
        self.metadata = self.name.startswith("attribute ") or not (
            METADATA.isdisjoint((self.name, spelled))
        )
        self.kind, rule = table.for_operator(self.name)
        self.rule = None if rule is None else table.in_form(rule, self.kind, self.name)
        self.multiplies = self.kind == "product"
        self.recomputes = self.in_place and self.name != "setitem"
        self.out_of_place = out_of_place(self.name) if self.in_place else None
        plugins.describe(self, table)
        self.inert = self.metadata and not (self.refused or self.compares)
        ordinary = self.special is None or self.special.unless_alone
        ordinary = ordinary and self.stateful is None
        self.plain = ordinary and is_plain(self.rule, self.name, 2)
        self.plain_for_one = ordinary and is_plain(self.rule, self.name, 1)


def is_plain(rule: Rule | None, operator: str, relevant: int) -> bool:
    """Whether a rule is torch's own gradient for so many relevant arguments."""
    if type(rule) is PlainGradient:  # a subclass is another rule
        return True
    alone = relevant == 1 and operator not in plugins.counts
    return alone and type(rule) in PLAIN_FOR_ONE


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
        self.operators: dict[Function, Operator] = {}
        self._classes: dict[type[nn.Module], Row | None] = {}
        self._ordinary: set[type[nn.Module]] = set()  # no row says anything of them
        self._possible: dict[type[nn.Module], list[tuple[Predicate, Row]]] = {}
        rows_of = [row for layer in self.layers for row in layer.items()]
        self.predicates = [(k, row) for k, row in rows_of if isinstance(k, Predicate)]
        self.patterns = [(k, row) for k, row in rows_of if isinstance(k, ModulePattern)]
        self.patterns.sort(key=lambda pattern: not isinstance(pattern[0], ModuleName))
        self.modules = {
            key_name(key): row
            for key, row in reversed(rows_of)
            if is_module_key(key) and not isinstance(key, (Predicate, ModulePattern))
        }
        self.joins = plugins.joins(self)
        if composite.rows:
            self.predicates += registry.predicates.values()
            self.modules = {
                **{n: r for n, r in registry.rows.items() if is_module_key(n)},
                **self.modules,
            }

    def operator(self, function: Function) -> Operator:
        """Return how a torch callable is treated."""
        found = self.operators.get(function)
        if found is None:
            found = self.operators[function] = Operator(function, self)
        return found

    def for_operator(self, name: str) -> tuple[str | None, Rule | None]:
        """Return the kind and the rule of an operator."""
        registered = registry.rows.get(name)
        kind = registered if isinstance(registered, str) else None
        for layer in self.layers:
            if name in layer:
                return kind, self._resolve(layer[name])
            if kind is not None and kind in layer:
                rule = self._resolve(layer[kind])
                by_argument = plugins.by_argument.get(name)
                if by_argument is not None and rule is not None:
                    rule = by_argument(rule, self._resolve)
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

    def for_modules(self, root: nn.Module) -> dict[int, Rule]:
        """Return the rules that are meant for modules of a model, by their ids.

        Raises:
            ModelStateError: for a module that cannot be explained.
        """
        found: dict[int, Rule] = {}
        places = [(key.within(root), row) for key, row in self.patterns]
        pending, seen = [root], {root}
        while pending:
            module = pending.pop()
            for inner in module._modules.values():
                if inner is not None and inner not in seen:
                    seen.add(inner)
                    pending.append(inner)
            cls = type(module)
            if cls in self._ordinary:
                continue
            row = next((row for place, row in places if module in place), None)
            row = self._for_module(module) if row is None else row
            rule = None if row is None else self._resolve(row)
            asked = plugins.refuse_module(module, root, rule)
            if rule is not None:
                found[id(module)] = rule
            elif not (asked or self.patterns or self._possible.get(cls)):
                self._ordinary.add(cls)
        return found

    def _for_module(self, module: nn.Module) -> Row | None:
        """Return the row of a module by a predicate, or by its class."""
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
                return row
        if cls not in self._classes:
            names = [f"{c.__module__}.{c.__qualname__}" for c in cls.__mro__]
            own = cls.__mro__.index(computing_class(cls))
            rows = (
                self.modules.get(name)
                for place, name in enumerate(names)
                # what a subclass computes anew may be another function
                if place <= own or name not in registry.exact
            )
            self._classes[cls] = next((row for row in rows if row is not None), None)
        return self._classes[cls]

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
