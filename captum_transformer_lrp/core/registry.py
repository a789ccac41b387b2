"""The registry of layer rules: what every operator and module *is*.

The registry says of which kind an operator or a module class is (``"gelu"`` is an
``"activation"``), a :class:`~.composites.Composite` says what a method does with each
kind (AttnLRP: ``"activation"`` -> ``Identity()``). To teach the package something new,
register its kind, or a rule of its own::

    from captum_transformer_lrp import registry, rules

    registry.register("my_ops::gelu", "activation")               # an operator
    registry.register(MyActivation, "activation")                 # a module class
    registry.register("my_package.nn.MyGate", rules.Detach())     # without importing it
    registry.register(Predicate(lambda m: hasattr(m, "gate"), "gates"), rules.Detach())

    with registry.override({"softmax": rules.Detach()}):          # for a while
        AttnLRP(model).attribute(...)

Keys, from the most to the least specific: :class:`ModuleName` (a name pattern within
one model, for overrides and composites), :class:`~..classic.layers.Layers` (by depth,
likewise), :class:`Predicate`, a module class or its qualified name (subclasses inherit
it), an operator, a kind.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import nn

from ..errors import DuplicateRuleError, UnknownNameError, suggestion
from .operators import KINDS, OPERATORS
from .plugins import plugins
from .rules.base import Rule, needs_relevance


class ModulePattern(ABC):
    """A key that names modules of one model, by where they stand in it."""

    @abstractmethod
    def within(self, model: nn.Module) -> set[nn.Module]:
        """Return the modules of a model that are meant."""


@dataclass(frozen=True, kw_only=False)
class ModuleName(ModulePattern):
    """A pattern for module names within one model: ``"encoder.layer.*.output"``.

    Shell wildcards: ``*`` matches any characters, dots included; ``?`` one; ``[0-3]``
    a range.
    """

    pattern: str

    def within(self, model: nn.Module) -> set[nn.Module]:
        """Return the modules whose names match."""
        named = model.named_modules()
        return {m for name, m in named if fnmatch.fnmatchcase(name, self.pattern)}

    def __repr__(self) -> str:
        return f"ModuleName({self.pattern!r})"


@dataclass(frozen=True, kw_only=False)
class Predicate:
    """A question asked about each module before the model runs.

    Args:
        test (Callable): takes the module, answers yes or no.
        description (str): what it asks, for printing.
        of_class (Callable, optional): takes the module's class; where it says no, the
            module need not be asked. Default: None, all are
    """

    test: Callable[[nn.Module], bool]
    description: str
    of_class: Callable[[type[nn.Module]], bool] | None = None

    def __repr__(self) -> str:
        return f"Predicate({self.description!r})"


Key: TypeAlias = "str | type[nn.Module] | ModulePattern | Predicate"
Row: TypeAlias = "str | Rule"


def is_module_key(key: Key) -> bool:
    """Whether a key names modules rather than operators or kinds."""
    return not isinstance(key, str) or ("." in key and "::" not in key)


def key_name(key: Key) -> str:
    """Return the key as it is printed and compared: classes by qualified name."""
    if isinstance(key, type):
        return f"{key.__module__}.{key.__qualname__}"
    return key if isinstance(key, str) else repr(key)


@dataclass
class Registry:
    """What every operator and module class is: a kind, or a rule of its own.

    Args:
        rows (Mapping): initial rows, key -> kind or rule.

    Attributes:
        exact (set of str): names of module classes whose rows do not hold for
            subclasses that compute something else.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    predicates: dict[str, tuple[Predicate, Row]] = field(default_factory=dict)
    version: int = 0
    exact: set[str] = field(default_factory=set)

    def register(self, key: Key, row: Row, *, replace: bool = False) -> None:
        """Say of which kind an operator or a module class is, or give it a rule.

        Args:
            key (str, type or Predicate): an operator's name (``"gelu"``,
                ``"my_ops::gelu"``), a module class, its qualified name, or a predicate.
            row (str or Rule): a kind (see ``captum_transformer_lrp.core.KINDS``)
                or a rule, which every composite but Gradient x Input then applies.
            replace (bool, optional): replace an existing row. Default: False

        Raises:
            DuplicateRuleError: if the key has a row already and ``replace`` is False.
            UnknownNameError: if the row is a string that is no kind.
            TypeError: if the key or row is of another type, or a ModuleName or Layers,
                which belong to one model: give it to a composite or to ``override``.
        """
        check_row(key, row)
        if isinstance(key, ModulePattern):
            raise TypeError(
                f"{key!r} names modules of one model and cannot be registered for all. "
                f"Write composite.with_rules({{{key!r}: ...}}) or "
                f"registry.override({{{key!r}: ...}})."
            )
        name, known = key_name(key), self._beside(key)
        if name in known and not replace:
            old = known[name]
            raise DuplicateRuleError(
                f"{name!r} is registered already, as "
                f"{old[1] if isinstance(old, tuple) else old!r}. Pass replace=True to "
                "change it everywhere, or registry.override({...}) for a while."
            )
        self.add({key: row})

    def add(self, rows: Mapping[Any, Row]) -> None:
        """Put rows in, new or not: what rooms of this package know of themselves."""
        for key, row in rows.items():
            if isinstance(key, Predicate):
                self.predicates[key_name(key)] = (key, row)
            else:
                self.rows[key_name(key)] = row
        self.version += 1

    def unregister(self, key: Key) -> None:
        """Remove a row.

        Raises:
            UnknownNameError: if there is none of that key.
        """
        name, known = key_name(key), self._beside(key)
        if name not in known:
            raise UnknownNameError(
                f"{name!r} is not registered.{suggestion(name, known)}"
            )
        del known[name]
        self.version += 1

    @contextmanager
    def override(self, rows: Mapping[Any, Row]) -> Iterator[None]:
        """Lay rows over every composite within a ``with`` block, in this thread only.

        Args:
            rows (Mapping): key -> kind or rule; keys as in :meth:`register`, kinds,
                :class:`ModuleName` and ``Layers``.
        """
        for key, row in rows.items():
            check_row(key, row)
            check_key(key, self)
        token = _overrides.set((*_overrides.get(), *rows.items()))
        try:
            yield
        finally:
            _overrides.reset(token)

    def _beside(self, key: Key) -> dict[str, Any]:
        """Return the rows among which that of a key is, those of all rooms."""
        plugins.load()
        return self.predicates if isinstance(key, Predicate) else self.rows

    def carried(self) -> dict[Any, Row]:
        """Return the rows that only know relevance, which tables then carry."""
        rows: dict[Any, Row] = {**self.rows}
        rows.update(self.predicates.values())
        return {key: row for key, row in rows.items() if needs_relevance(row)}

    def __contains__(self, key: Key) -> bool:
        return key_name(key) in self._beside(key)

    def __repr__(self) -> str:
        """Print the kinds with their operators and modules, then single rules."""
        plugins.load()
        lines = []
        for kind, meaning in KINDS.items():
            names = sorted(name for name, row in self.rows.items() if row == kind)
            lines.append(f"{kind}: {meaning}\n    {', '.join(names)}")
        rules = {n: r for n, r in self.rows.items() if isinstance(r, Rule)}
        rules.update({n: r for n, (_, r) in self.predicates.items()})  # type: ignore[misc]
        lines += [f"{name}: {row!r}" for name, row in rules.items()]
        return "\n".join(lines)


def check_row(key: Key, row: Row) -> None:
    """Raise if ``key: row`` could not be a row of a table."""
    if not isinstance(key, (str, ModulePattern, Predicate)) and not (
        isinstance(key, type) and issubclass(key, nn.Module)
    ):
        raise TypeError(
            f"a rule was given for {key!r}; expected the name of an operator or kind, "
            "a torch.nn.Module class or its qualified name, Predicate(...), "
            "ModuleName(...) or Layers(...)."
        )
    if isinstance(row, str):
        if row not in KINDS:
            raise UnknownNameError(
                f"{row!r} is no kind of operator.{suggestion(row, KINDS)}"
            )
    elif not isinstance(row, Rule):
        hint = (
            f" Write {row.__name__}() with parentheses."
            if isinstance(row, type)
            else ""
        )
        raise TypeError(
            f"the rule for {key_name(key)!r} is {row!r}; expected a kind "
            f"({', '.join(KINDS)}) or an instance of captum_transformer_lrp.rules.Rule."
            f"{hint}"
        )
    else:
        try:
            hash(row)  # tables are looked up by their rows
        except TypeError as error:
            raise TypeError(
                f"the rule for {key_name(key)!r} is {row!r}, with {error}; expected a "
                "frozen dataclass of numbers, strings, tuples and other rules."
            ) from error


def check_key(key: Key, registry: Registry) -> None:
    """Raise if a plain name in a table is neither a kind nor a known operator."""
    if isinstance(key, str) and not is_module_key(key) and "::" not in key:
        known = key in KINDS or key in registry.rows or key in registry
        if not known:
            names = [*KINDS, *(n for n in registry.rows if not is_module_key(n))]
            near = suggestion(key, names)
            near = near if near.startswith(" Did") else ""
            raise UnknownNameError(
                f"{key!r} is neither a kind ({', '.join(KINDS)}) nor a registered "
                f"operator.{near} To teach the package a new operator, call "
                f"registry.register({key!r}, kind_or_rule)."
            )


_overrides: ContextVar[tuple[tuple[Key, Row], ...]] = ContextVar(
    "captum_transformer_lrp_overrides", default=()
)


def active_overrides() -> tuple[tuple[Key, Row], ...]:
    """Return the rows of the ``override`` blocks around this call, innermost last."""
    return _overrides.get()


def computing_class(cls: type[nn.Module]) -> type[nn.Module]:
    """Return the class that says what modules of ``cls`` compute: its ``forward``.

    A class is not known by its name, nor by what it inherits from, but by what it
    computes: a subclass with a ``forward`` of its own is another layer.
    """
    return next(c for c in cls.__mro__ if "forward" in vars(c))


#: the one registry, of what torch's operators are; other rooms of the package add what
#: they know when the first table is made, see :mod:`.plugins`
registry = Registry(
    {name: kind for kind, names in OPERATORS.items() for name in sorted(names)}
)
