"""A module that is treated as one operator must have been given all that it reads.

Its rule sees arguments and output. Relevance of any other tensor that operators inside
read (an attribute, a closure) would go to the arguments, silently.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .._nested import tensors_in
from ..core.engine import Engine
from ..core.table import Operator
from ..core.tape import walk
from ..errors import ModelStateError


class ReadInside:
    """The relevant tensors that operators inside a module read."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Tensor, str]] = {}

    def note(self, engine: Engine, operator: Operator, given: Any) -> None:
        """Note what an operator reads."""
        for tensor in tensors_in(given):
            if tensor.requires_grad and not tensor.is_leaf:
                if engine.tape.of(tensor) is not None:
                    self._read.setdefault(id(tensor), (tensor, operator.name))

    def check(
        self, engine: Engine, module: nn.Module, given: Any, changed: Any = None
    ) -> None:
        """Raise if the module read what it was not given.

        Args:
            engine (Engine): that runs it.
            module (Module): the module.
            given (Any): its arguments.
            changed (Any, optional): what its rule made of its output; what that leads
                gradients to is accounted for. Default: None

        Raises:
            ModelStateError: the share of that tensor would go to the arguments.
        """
        known = {id(t) for t in tensors_in(given)}
        left = [(t, name) for t, name in self._read.values() if id(t) not in known]
        if left and changed is not None:
            nodes = [t.grad_fn for t in tensors_in(changed) if t.requires_grad]
            if not nodes:
                return  # a constant, by its rule
            if engine.passes is None:  # past switches only arguments receive relevance
                stops = {t.grad_fn for t in tensors_in(given)}
                found = {
                    edge
                    for start in nodes
                    for node in walk(start, lambda node: node not in stops)
                    for edge in node.next_functions
                }
                left = [
                    (t, n) for t, n in left if (t.grad_fn, t.output_nr) not in found
                ]
        for tensor, operator in left:
            raise ModelStateError(
                f"the module {engine.name_of(module)!r} is treated as one operator, "
                f"and inside it {operator} reads a tensor of shape "
                f"{tuple(tensor.shape)} that carries relevance and was not given "
                "to the module as an argument. Remove the module's rule, so that "
                "the operators inside it are seen, or pass the tensor as an "
                "argument."
            )
