"""What a rule is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ..call import Call


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """One way to hand relevance from the output of a call to its inputs.

    A rule is called with a :class:`~captum_transformer_lrp.propagation.call.Call` and
    returns the unchanged output, rebuilt so that autograd's gradient at an input ``x``
    is ``R / x`` (relevance is then input times gradient). Rules are frozen dataclasses
    that store plain numbers only: they print, compare and hash, and one instance may
    serve any number of models and threads.

    Attributes:
        inside (str): how the operators inside a module behave when the rule is given to
            a module as a whole: ``"constant"`` (they only compute the value) or
            ``"gradient"`` (they keep torch's own gradient). ``"operators"``: the rule
            is no rule for a module, it takes the operators of its :attr:`kinds` inside
            the module, one by one, and all others meet the composite.
        kinds (frozenset of str): the kinds of operators that it takes there.
        form (str): what flows back through the rule: ``"gradient"`` (R / x, as above),
            ``"elementwise"`` (the same, and relevance passes element by element),
            ``"relevance"`` (R itself, which it hands past the operator with
            :meth:`Call.switch`; it may be no multiple of the input), or ``"either"``.
        plain_for_one (bool): with a single relevant tensor among the arguments of an
            operator the rule is torch's own gradient, and need not be asked.
    """

    inside: ClassVar[Literal["constant", "gradient", "operators"]] = "constant"
    kinds: ClassVar[frozenset[str]] = frozenset({"product"})
    form: ClassVar[Literal["gradient", "elementwise", "relevance", "either"]] = (
        "gradient"
    )
    plain_for_one: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, call: Call) -> Any:
        """Return the output of ``call`` with its gradient rebuilt."""
