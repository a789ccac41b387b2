"""What a rule is."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..._nested import tensors_in
from ..call import Call


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One way to hand relevance from the output of a call to its inputs.

    A rule is called with a :class:`~captum_transformer_lrp.core.call.Call` and
    returns the unchanged output, rebuilt so that autograd's gradient at an input ``x``
    is ``R / x`` (relevance is then input times gradient). Nothing else is needed. Rules
    are frozen dataclasses that store plain numbers only: they print, compare and hash,
    and one instance may serve any number of models and threads.

    A rule that has nothing to say of an operator returns ``NotImplemented``, and the
    operator counts as one without a rule. One that fails where the operator does not is
    named in a :class:`~captum_transformer_lrp.errors.RuleError`.

    A rule that says ``R`` itself derives from :class:`CarriedRule`, one that passes
    relevance on element by element from :class:`ElementwiseRule`, and one that asks
    other rules, or hands on nothing, from :class:`DelegatingRule`.

    Attributes:
        kinds (frozenset of str): the kinds of operators that the rule takes, one by
            one, inside a module to which it is given; all others there meet the
            composite. Default: none, the rule takes the module as a whole
        inside (str): how operators inside a module behave that the rule takes as a
            whole: ``"gradient"`` (they keep torch's own gradient) or ``"constant"``
            (they only compute the value, and record nothing).
            Default: ``"gradient"``

    Raises:
        TypeError: where a subclass is written that sets what rules once had.
    """

    kinds: ClassVar[frozenset[str]] = frozenset()
    inside: ClassVar[Literal["gradient", "constant"]] = "gradient"

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse class variables that would no longer be read."""
        super().__init_subclass__(**options)
        for name, value in vars(cls).items():
            instead = _FORMER.get((name, value)) if isinstance(value, str) else None
            if instead is not None:
                raise TypeError(
                    f"the rule {cls.__name__} says {name} = {value!r}, which no longer "
                    f"has a meaning. {instead}"
                )

    @abstractmethod
    def __call__(self, call: Call) -> Any:
        """Return the output of ``call`` with its gradient rebuilt."""


#: class variables that rules once had -> what to write instead
_FORMER = {
    ("inside", "operators"): (
        'Name the kinds that it takes inside a module: kinds = frozenset({"product"}).'
    ),
    ("form", "elementwise"): "Derive from ElementwiseRule.",
    ("form", "relevance"): "Derive from CarriedRule.",
    ("form", "either"): "Derive from DelegatingRule.",
}


class CarriedRule(Rule):
    """A rule that says R itself, which may be no multiple of the input.

    It leaves the output as it is, and hands relevance past the operator with
    :meth:`Call.switch`. A table with such a row carries relevance, and rules of the
    form R / x in it are converted.
    """


class ElementwiseRule(Rule):
    """A rule of the form R / x that passes relevance on, element by element.

    Where relevance itself is carried it is led past the operator, also where the
    output is 0 and R / x knows nothing of it.
    """

    inside: ClassVar[Literal["gradient", "constant"]] = "constant"


class DelegatingRule(Rule):
    """A rule without a form of its own: it asks other rules, or hands on nothing.

    The rules among its fields are converted where relevance itself is carried.
    """


def relevant_tensors(call: Call) -> list[Tensor]:
    """Return the arguments that carry relevance, as often as they were given."""
    return [t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad]


def needs_relevance(rule: Any) -> bool:
    """Whether a rule, or one that it hands calls to, carries relevance itself."""
    return isinstance(rule, CarriedRule) or any(
        map(needs_relevance, parts_of(rule).values())
    )


def parts_of(rule: Any) -> dict[str, Rule]:
    """Return the rules among the fields of a rule."""
    if not dataclasses.is_dataclass(rule):
        return {}
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    return {name: part for name, part in values.items() if isinstance(part, Rule)}
