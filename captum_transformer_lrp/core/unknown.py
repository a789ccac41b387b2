"""Operators without a rule: never silently wrong, and all named in one message."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .._nested import tensors_in
from ..errors import (
    UnknownNameError,
    UnknownOperatorError,
    UnknownOperatorWarning,
    suggestion,
)
from .composites import Composite
from .operators import KINDS, is_pointwise
from .tape import Unseen

CHOICES = ("raise", "warn", "gradient")


class UnknownOperators:
    """Collects what had no rule during one forward pass.

    Args:
        choice (str): ``"raise"``, ``"warn"`` or ``"gradient"``.
        composite (Composite): the table, for the message.

    Raises:
        UnknownNameError: if ``choice`` is none of these.
    """

    def __init__(self, choice: str, composite: Composite) -> None:
        if choice not in CHOICES:
            raise UnknownNameError(
                f"unknown={choice!r}; expected one of {', '.join(map(repr, CHOICES))}."
                f"{suggestion(str(choice), CHOICES)}"
            )
        self.choice = choice
        self.composite = composite
        self.calls: list[_Unknown] = []
        self.activations: set[str] = set()
        self.transforms: dict[str, None] = {}  # of torch.func that ran

    @property
    def nodes(self) -> list[Any]:
        """The nodes of the graph that calls without a rule have made."""
        return [node for call in self.calls for node in call.nodes]

    def met(
        self, name: str, path: str, args: Any, kwargs: Any, nodes: Sequence[Any]
    ) -> None:
        """Note a differentiable call without a rule, and the nodes that it made."""
        shapes = ", ".join(
            f"{'x' if t.requires_grad else 'constant '}{tuple(t.shape)}"
            for t in tensors_in((args, kwargs))
        )
        self.calls.append(_Unknown(name, path, shapes, tuple(nodes)))
        relevant = {id(t) for t in tensors_in((args, kwargs)) if t.requires_grad}
        if len(relevant) == 1 and is_pointwise(name):
            self.activations.add(name)

    def report(self, unseen: Iterable[Unseen], on_the_way: set[Any]) -> None:
        """Raise or warn about what is on the way to the score.

        Args:
            unseen (iterable of Unseen): what ran unseen.
            on_the_way (set of Node): which of :attr:`nodes` are.
        """
        calls = {
            (call.name, call.path): call.shapes
            for call in reversed(self.calls)
            if not on_the_way.isdisjoint(call.nodes)
        }
        unseen = list(unseen)
        if (not calls and not unseen) or self.choice == "gradient":
            return
        message = "\n".join(
            [*self._without_rule(calls), *self._unseen(unseen), *self._choices()]
        )
        if self.choice == "warn":
            warnings.warn(message, UnknownOperatorWarning, stacklevel=6)
        else:
            raise UnknownOperatorError(message)

    def _without_rule(self, calls: dict[tuple[str, str], str]) -> list[str]:
        if not calls:
            return []
        lines = [
            f"{self.composite.name} has no rule for {len(calls)} differentiable "
            "operator(s) of this model (x: carries relevance):"
        ]
        lines += [
            f"  {name}  in {path or '(no module)'}  with {shapes}"
            for (name, path), shapes in calls.items()
        ]
        lines.append("Say what they are, once, and explain again:")
        lines.append("  from captum_transformer_lrp import registry, rules")
        lines += [
            f'  registry.register("{name}", "activation")  # or another kind, or a rule'
            if name in self.activations
            else f'  registry.register("{name}", rules.PlainGradient())  # its own '
            'gradient, right if it is linear; "product" if it multiplies what carries '
            "relevance, rules.Detach() if it is a constant, or another kind or rule"
            for name in dict.fromkeys(name for name, _ in calls)
        ]
        lines.append(f"Kinds: {', '.join(KINDS)}.")
        return lines

    def _unseen(self, found: list[Unseen]) -> list[str]:
        lines = []
        for unseen in found:
            where = unseen.module or "(no module)"
            names = ", ".join(unseen.names)
            if unseen.functions:
                lines.append(
                    f"On the way to the score autograd function {names} ran, in "
                    f"{where}, whose operators torch does not show. Say what it is, "
                    "once, and explain again:"
                )
                lines.append("  from captum_transformer_lrp import registry, rules")
                lines += [
                    f'  registry.register("{name}", rules.PlainGradient())  # its own '
                    "gradient, right if it is linear in what carries relevance; or "
                    "give the module class that calls it a kind, if it is one "
                    "function; or build the model without it, if it has such an option"
                    for name in unseen.names
                ]
            else:
                lines.append(
                    f"On the way to the score {names} ran in {where} where no rule "
                    f"could see it: {self._cause()}. Write it with plain operators in "
                    "the model's own thread"
                    f"{_INSTEAD if self.transforms else ''}, or give the module that "
                    "contains it a rule."
                )
        return lines

    def _cause(self) -> str:
        if self.transforms:
            names = [_TRANSFORMS.get(t, t) for t in self.transforms]
            return f"inside {' and '.join(names)}"
        return (
            "in another thread, under torch.no_grad(), in a scripted function, in a "
            "transform of torch.func, or in an operator that hides others"
        )

    def _choices(self) -> list[str]:
        return [
            "Or pass unknown='gradient' to take torch's own gradient for what has no "
            "rule, or unknown='warn' to do so with a warning."
        ]


@dataclass(frozen=True, eq=False)
class _Unknown:
    """One call of an operator without a rule."""

    name: str
    path: str
    shapes: str
    nodes: tuple[Any, ...]


_INSTEAD = " (a batch dimension instead of vmap)"
#: transforms of torch.func, by their names in torch
_TRANSFORMS = {
    "Vmap": "torch.vmap",
    "Grad": "torch.func.grad (or vjp)",
    "Jvp": "torch.func.jvp",
    "Functionalize": "torch.func.functionalize",
}
