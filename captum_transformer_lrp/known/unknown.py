"""Operators without a rule, or unseen: never silently wrong, all named in one message.

The engine notes calls without a rule as they come. What ran where it could not see is
found afterwards, by one walk from the score back: nodes of autograd's graph that were
made in a gap between two operators that were seen, and tensors that none of them had
returned (:attr:`.Tape.gaps`, :attr:`.Tape.met`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._nested import tensors_in
from .._torch import MOVING_FUNCTIONS, function_class, node_number, transform_level
from ..core.composites import Composite
from ..core.engine import Engine
from ..core.operators import KINDS
from ..core.rules.linear import PlainGradient
from ..core.tape import Tape, walk
from ..errors import (
    UnknownNameError,
    UnknownOperatorError,
    UnknownOperatorWarning,
    suggestion,
)
from .refusals import refuse_function

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

    def within_transform(self) -> None:
        """Note a transform of torch.func, if one runs: inside it no rule can work."""
        level = transform_level()
        if level is not None:
            self.transforms.setdefault(level.key().name)

    def met(
        self, name: str, path: Callable[[], str], args: Any, kwargs: Any, output: Any
    ) -> None:
        """Note a call without a rule, the module's, and the nodes that it made."""
        nodes = [t.grad_fn for t in tensors_in(output) if t.requires_grad]
        if not nodes:
            return  # not differentiable
        shapes = ", ".join(
            f"{'x' if t.requires_grad else 'constant '}{tuple(t.shape)}"
            for t in tensors_in((args, kwargs))
        )
        self.calls.append(_Unknown(name, path(), shapes, tuple(nodes)))
        relevant = {id(t) for t in tensors_in((args, kwargs)) if t.requires_grad}
        if len(relevant) == 1 and is_pointwise(name):
            self.activations.add(name)

    def report(self, engine: Engine, output: Tensor) -> None:
        """Raise or warn about what is on the way to the score, and has no rule.

        Raises:
            UnknownOperatorError: with all of them, if the choice is ``"raise"``.
            ModelStateError: if part of the model is checkpointed by re-entering
                autograd, which cannot be explained.
        """
        unseen = unseen_behind(engine, output)
        if self.choice == "gradient":
            return
        noted = {node for call in self.calls for node in call.nodes}
        behind = {n for n in walk(output.grad_fn) if n in noted} if noted else set()
        calls = {
            (call.name, call.path): call.shapes
            for call in reversed(self.calls)
            if not behind.isdisjoint(call.nodes)
        }
        if not calls and not unseen:
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


# ----------------------------------------------------------------- what ran unseen


@dataclass(frozen=True, eq=False)
class Unseen:
    """Nodes of the graph that no operator that was seen had made.

    Attributes:
        names (tuple of str): of the nodes, or of autograd functions.
        module (str): whose code met the result first; empty if none did.
        functions (bool): all are autograd functions.
    """

    names: tuple[str, ...]
    module: str
    functions: bool


def unseen_behind(engine: Engine, output: Tensor) -> list[Unseen]:
    """Return what ran unseen on the way to an output."""
    tape = engine.tape
    if not tape.gaps and not tape.met:
        return []
    in_gap = _in_gap(tape)
    found: dict[Any, Unseen] = {}
    for node in walk(output.grad_fn):
        met = tape.met.get(node)
        if (met is None and not in_gap(node)) or _needs_no_rule(engine, node):
            continue
        module, written = met or ("", "")
        nodes = [node]
        if met is not None:  # all that is behind it
            nodes += [n for n in walk(node, in_gap) if n is not node]
        functions = not written and all(_function_of(n) is not None for n in nodes)
        names = dict.fromkeys(_function_of(n) or _name_of(n) for n in nodes)
        found[node] = Unseen((written,) if written else tuple(names), module, functions)
    return _without_repeats(found.values())


def _in_gap(tape: Tape) -> Callable[[Any], bool]:
    """Return what says whether a node was made between two operators seen."""

    def in_gap(node: Any) -> bool:
        number = node_number(node)
        return any(start <= number < end for start, end in tape.gaps)

    return in_gap


def _needs_no_rule(engine: Engine, node: Any) -> bool:
    """Whether a node that no operator made is right as it is."""
    name = _function_of(node)
    if name is None:  # torch makes views anew whose base was written into
        return _name_of(node) == "AsStridedBackward"
    refuse_function(name)
    row = engine.table.modules.get(name)
    return name.startswith(MOVING_FUNCTIONS) or isinstance(row, PlainGradient)


def _name_of(node: Any) -> str:
    """Return the name of a node of the graph, such as ``MulBackward``."""
    return type(node).__name__.rstrip("0123456789")


def _function_of(node: Any) -> str | None:
    """Return the qualified name of the autograd function that made a node, if any."""
    function = function_class(node)
    if function is not None:
        return f"{function.__module__}.{function.__qualname__}"
    if type(node).__name__ in ("CppFunction", "CppNode"):
        return str(node.name())
    return None


def _without_repeats(found: Iterable[Unseen]) -> list[Unseen]:
    """Leave out what another one names already."""
    kept: list[Unseen] = []
    names: set[str] = set()
    for unseen in sorted(found, key=lambda u: (not u.module, -len(u.names))):
        if not names.issuperset(unseen.names):
            names.update(unseen.names)
            kept.append(unseen)
    return kept


def is_pointwise(name: str) -> bool:
    """Whether torch says that an operator works element by element."""
    namespace, _, bare = name.rpartition("::")
    packets = getattr(torch.ops, namespace or "aten")
    # special functions are spelled twice, and tagged once
    for spelled in (bare, bare.removeprefix("special_")):
        packet = getattr(packets, spelled, None)
        overloads = () if packet is None else packet.overloads()
        if any(torch.Tag.pointwise in getattr(packet, o).tags for o in overloads):
            return True
    return False
