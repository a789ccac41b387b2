"""Operators without a rule: never silently wrong, and all named in one message."""

from __future__ import annotations

import warnings
from collections.abc import Container, Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction

from ..errors import (
    ModelStateError,
    UnknownNameError,
    UnknownOperatorError,
    UnknownOperatorWarning,
    suggestion,
)
from .call import tensors_in
from .composites import Composite
from .gradients import (
    AbsoluteLinear,
    LinearizedNorm,
    RatioGradient,
    ScaledGradients,
    SplitGradient,
)
from .operators import KINDS, is_pointwise
from .passes import Switch

CHOICES = ("raise", "warn", "gradient")

_OURS = (
    AbsoluteLinear,
    RatioGradient,
    LinearizedNorm,
    ScaledGradients,
    SplitGradient,
    Switch,
)
#: autograd functions of torch itself: those that only move tensors between devices, and
#: those behind an operator of torch.library, which the engine has seen
_KNOWN = ("torch.nn.parallel.", "torch._library.autograd")


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
        self.calls: dict[tuple[str, str], str] = {}
        self.activations: set[str] = set()
        self.functions: dict[str, None] = {}

    def met(self, name: str, path: str, args: Any, kwargs: Any) -> None:
        """Note a differentiable call without a rule."""
        shapes = ", ".join(
            f"{'x' if t.requires_grad else 'constant '}{tuple(t.shape)}"
            for t in tensors_in((args, kwargs))
        )
        self.calls.setdefault((name, path), shapes)
        relevant = {id(t) for t in tensors_in((args, kwargs)) if t.requires_grad}
        if len(relevant) == 1 and is_pointwise(name):
            self.activations.add(name)

    def met_function(self, name: str) -> None:
        """Note an autograd function, which no operator of the model shows."""
        self.functions.setdefault(name)

    def report(self) -> None:
        """Raise or warn about everything noted."""
        if (not self.calls and not self.functions) or self.choice == "gradient":
            return
        message = self._message()
        if self.choice == "warn":
            warnings.warn(message, UnknownOperatorWarning, stacklevel=6)
        else:
            raise UnknownOperatorError(message)

    def _message(self) -> str:
        lines = [
            f"{self.composite.name} has no rule for "
            f"{len(self.calls) + len(self.functions)} differentiable operator(s) of "
            "this model (x: carries relevance):"
        ]
        lines += [
            f"  {name}  in {path or '(no module)'}  with {shapes}"
            for (name, path), shapes in self.calls.items()
        ]
        lines += [
            f"  autograd function {name}, inside a module whose operators torch does "
            "not show"
            for name in self.functions
        ]
        names = dict.fromkeys(name for name, _ in self.calls)
        lines.append("Say what they are, once, and explain again:")
        lines.append("  from captum_transformer_lrp import registry, rules")
        lines += [
            f'  registry.register("{name}", "activation")  # or another kind, or a rule'
            if name in self.activations
            else f'  registry.register("{name}", rules.PlainGradient())  # its own '
            'gradient, right if it is linear; "product" if it multiplies what carries '
            "relevance, rules.Detach() if it is a constant, or another kind or rule"
            for name in names
        ]
        lines += [
            f'  registry.register("{name}", rules.PlainGradient())  # its own '
            "gradient; or give the module class that calls it a kind, if it is one "
            "function"
            for name in self.functions
        ]
        lines.append(
            f"Kinds: {', '.join(KINDS)}. Or pass unknown='gradient' to take torch's "
            "own gradient for them, or unknown='warn' to do so with a warning."
        )
        return "\n".join(lines)


def nodes_between(outputs: Iterable[Tensor], inputs: Iterable[Tensor]) -> set[Any]:
    """Return the nodes of the graph behind ``outputs`` and in front of ``inputs``."""
    ends = {x.grad_fn for x in inputs}
    pending = [y.grad_fn for y in outputs if y.grad_fn is not None]
    found: set[Any] = set()
    while pending:
        node = pending.pop()
        if node in found or node in ends:
            continue
        found.add(node)
        pending += [parent for parent, _ in node.next_functions if parent is not None]
    return found


def foreign_functions(
    output: Tensor, known: Container[Any] = frozenset()
) -> Iterator[str]:
    """Yield the names of autograd functions behind ``output`` that are not ours.

    ``torch.autograd.Function.apply``, compiled and C++ functions bring a backward pass
    of their own and never reach the engine; they are found in the graph.

    Args:
        output (Tensor): where to start.
        known (Container): nodes inside modules whose own gradient was asked for.

    Raises:
        ModelStateError: at a checkpoint that re-enters autograd.
    """
    root = output.grad_fn
    if root is None:
        return
    seen = {root}
    pending: list[Any] = [root]
    verdicts: dict[type, str | None] = {}
    while pending:
        node = pending.pop()
        cls = type(node)
        if cls not in verdicts:
            verdicts[cls] = _verdict(node)
        name = None if node in known else verdicts[cls]
        if name is not None:
            yield name
        for parent, _ in node.next_functions:
            if parent is not None and parent not in seen:
                seen.add(parent)
                pending.append(parent)


def _verdict(node: Any) -> str | None:
    """Return the name of a foreign function's node, None for a node of torch's."""
    if isinstance(node, BackwardCFunction):
        function = getattr(type(node), "_forward_cls", type(node))
        if function in _OURS or str(function.__module__).startswith(_KNOWN):
            return None
        if function.__name__ == "CheckpointFunction":
            raise ModelStateError(
                "part of the model is checkpointed with use_reentrant=True, which "
                "recomputes it where no rule can see it. Call model.eval() or "
                "model.gradient_checkpointing_disable(), or enable checkpointing with "
                'gradient_checkpointing_kwargs={"use_reentrant": False}.'
            )
        return f"{function.__module__}.{function.__qualname__}"
    if type(node).__name__ in ("CppFunction", "CppNode"):
        return str(node.name())
    return None
