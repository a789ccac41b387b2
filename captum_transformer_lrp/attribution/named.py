"""The methods by name: the one table that ``explain`` and all others ask.

A method is a class with a :class:`~captum_transformer_lrp.Description`, or a composite,
and a row in a table of ``attribution/__init__.py``, or from anywhere::

    from captum_transformer_lrp import Composite, methods

    methods.register("my-method", MyMethod)              # it has a description
    methods.register("my-lrp", Composite("My LRP", {**ATTN_LRP.rows, "gelu": ...}))
    methods.register("strange", make, Description(measure="magnitude", cost=2))

and ``explain(..., method="my-method")``, ``compare`` and the commands know the name.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from captum.attr import Attribution
from torch import nn

from .._listing import Listed, no_method, rows_of, table
from .._visible import printed
from ..core.composites import Composite
from ..description import Description, describe
from ..errors import DuplicateRuleError, InputError, OutputError
from ..report.blocks import Block, Heading, Table
from ..report.shown import Shown
from .calling import make_method
from .transformer_lrp import TransformerLRP

Maker: TypeAlias = "type[Attribution] | Callable[..., Attribution] | Composite"


@dataclass(frozen=True, eq=False)
class NamedMethod:
    """A row of the table.

    Args:
        name (str): how it is asked for.
        maker (type, Callable or Composite): what makes it.
        said (Description, optional): what was said of it beside what the maker says.
            Default: None
    """

    name: str
    maker: Maker
    said: Description | None = None

    @property
    def description(self) -> Description:
        """What its scores are, and what it needs."""
        if self.said is not None:
            return self.said
        if isinstance(self.maker, Composite):
            return replace(TransformerLRP.description, name=self.maker.name)
        return describe(self.maker)

    @property
    def composite(self) -> Composite | None:
        """The table of rules that it propagates with, None for none.

        It is that of an object for a model that does nothing; of a method that cannot
        be made for one, no table is known.
        """
        try:
            found = getattr(self.make(nn.Identity()), "composite", None)
        except Exception:  # whatever a stranger's method says to such a model
            return None
        return found if isinstance(found, Composite) else None

    @property
    def summary(self) -> str:
        """A line on what it is: of its docstring, or name and source of the table."""
        table = isinstance(self.maker, Composite)
        text = str(self.maker) if table else (self.maker.__doc__ or "").strip()
        return text.partition("\n")[0].replace("``", "")

    @property
    def listed(self) -> Listed:
        """Its line of the list."""
        about = self.description
        return Listed(
            summary=self.summary,
            scores=about.measure,
            of_each=about.grain,
            sums_to=about.conserves,
            cost=about.cost,
            needs=about.needs,
        )

    def parted(
        self, options: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the options that make the method, and those of its ``attribute``.

        So ``{"n_samples": 500}`` is understood wherever the method takes it; what both
        or neither take goes to ``attribute``, which says what is wrong.

        Args:
            options (Mapping): keyword arguments as a user gave them.
        """
        maker = TransformerLRP if isinstance(self.maker, Composite) else self.maker
        known = _keywords(maker) - _keywords(getattr(maker, "attribute", None))
        made = {key: value for key, value in options.items() if key in known}
        return made, {k: v for k, v in options.items() if k not in made}

    def make(
        self,
        forward_func: Callable[..., Any],
        options: Mapping[str, Any] | None = None,
        **known: Any,
    ) -> Attribution:
        """Return the method for a model.

        Args:
            forward_func (Callable): the model.
            options (Mapping, optional): further keyword arguments of what makes it.
                Default: None
            known (Any): what it may need: ``tokenizer``, ``baseline``. What its
                description does not name is left out.

        Raises:
            InputError: what makes it does not take what the description names.
            OutputError: what makes it made something else.
        """
        about, maker = self.description, self.maker
        given: dict[str, Any] = {
            key: value for key, value in known.items() if key in about.needs
        }
        given.update(options or {})
        if isinstance(maker, Composite):
            maker = functools.partial(TransformerLRP, composite=maker)
        given.update(about.options)
        try:
            inspect.signature(maker).bind(forward_func, **given)
        except TypeError as error:
            raise InputError(
                f"the method {self.name!r} is made with {', '.join(given) or 'a model'}"
                f", as its description says, but {error}"
            ) from error
        made = maker(forward_func, **given)
        if not isinstance(made, Attribution):
            raise OutputError(
                f"the method {self.name!r} was made as {made!r}; expected an object of "
                "a Captum Attribution class"
            )
        if self.said is not None:
            made.description = self.said
        return made


def _keywords(function: Any) -> frozenset[str]:
    """Return the names of keyword arguments, of a class those of its bases too."""
    found: set[str] = set()
    for one in function.__mro__ if isinstance(function, type) else [function]:
        if isinstance(function, type):
            if "__init__" not in vars(one):
                continue
            one = vars(one)["__init__"]
        if not callable(one):
            break
        parameters = inspect.signature(one).parameters.values()
        kinds = (
            inspect.Parameter.KEYWORD_ONLY,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
        )
        found |= {p.name for p in parameters if p.kind in kinds}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return frozenset(found - {"self", "forward_func", "model"})


class NamedMethods(Shown):
    """The methods by name, in the order in which they were registered."""

    def __init__(self) -> None:
        self._rows: dict[str, NamedMethod] = {}

    def register(
        self,
        name: str,
        maker: Maker,
        description: Description | None = None,
        *,
        replace: bool = False,
    ) -> None:
        """Give a method a name.

        Args:
            name (str): the name; its case does not matter.
            maker (type, Callable or Composite): a class of attributions, or a function,
                that takes the model (and what the description says that it needs); or
                a table of rules.
            description (Description, optional): what its scores are.
                Default: None, what the class or the table says of itself
            replace (bool, optional): replace a method of that name. Default: False

        Raises:
            DuplicateRuleError: if there is such a method and ``replace`` is False.
            InputError: if the name is none, or a function comes without a description.
            UnknownNameError: if it is a class that needs more than a model, or nothing
                that makes a method.
        """
        if not (isinstance(name, str) and re.fullmatch(r"[\w.+-]+", name)):
            raise InputError(f"expected a name such as 'my-method', got {name!r}")
        if name in self and not replace:
            raise DuplicateRuleError(
                f"there is a method {name!r} already. Pass replace=True to change it."
            )
        if isinstance(maker, type) or not callable(maker):
            if not isinstance(maker, Composite):
                make_method(maker, None)
        elif description is None:
            raise InputError(
                f"{maker!r} does not say what its scores are: pass a Description too"
            )
        self._rows[name.lower()] = NamedMethod(name.lower(), maker, description)

    def unregister(self, name: str) -> None:
        """Forget a method.

        Raises:
            UnknownNameError: There is none of that name.
        """
        del self._rows[self[name].name]

    def __getitem__(self, name: str) -> NamedMethod:
        """Return a row.

        Raises:
            UnknownNameError: There is none of that name.
        """
        if name not in self:
            raise no_method(name, self)
        return self._rows[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def listed(self) -> dict[str, Listed]:
        """Return a line for each method."""
        return {name: row.listed for name, row in self._rows.items()}

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: a table."""
        yield Heading(text="Methods by name")
        head, *rows = rows_of(self.listed())
        yield Table(heads=head, rows=tuple(rows), texts=len(head))

    @property
    def alt(self) -> str:
        """The names."""
        return f"Methods: {', '.join(self)}."

    def __repr__(self) -> str:
        """Print the table."""
        return printed(table(self.listed()))

    __str__ = __repr__
