"""One call of an operator or of a module, as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from .._nested import map_tensors
from ..errors import LRPError, RuleError
from .tape import Made

if TYPE_CHECKING:
    from .engine import Engine

Function: TypeAlias = Callable[..., Any]
Args: TypeAlias = tuple[Any, ...]
Kwargs: TypeAlias = dict[str, Any]

#: what a rule raises that does not fit; torch steers checkpoints by other exceptions
MISTAKES = (
    *(RuntimeError, TypeError, ValueError, LookupError, AttributeError),
    *(AssertionError, NameError, ArithmeticError),
)
PASSED_ON = (LRPError, torch.OutOfMemoryError, CheckpointError)


def carries_relevance(value: Any) -> bool:
    """Whether a value is a tensor through which relevance flows.

    Within the engine every parameter and every foreign tensor is detached on entry, so
    ``requires_grad`` means exactly that.
    """
    return isinstance(value, Tensor) and value.requires_grad


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """What arrives at a rule: the operator or module, and its arguments.

    Attributes:
        operator (str): name of the operator, or the class name of the module.
        kind (str | None): its kind, see :data:`~.operators.KINDS`.
        function (Callable): what computes the unchanged output.
        args (tuple): positional arguments; parameters arrive detached.
        kwargs (dict): keyword arguments.
        module (Module | None): the module, when a module is treated as one operator.
        output (Any): what the module returned.
        engine (Engine | None): that made the call.
        frozen (bool): the operators inside the module recorded nothing.
        note (Any): what the rule leaves on the tape, beside the record of the output.
        rule (Any): what the call was given to; None before.
    """

    operator: str
    kind: str | None
    function: Function
    args: Args
    kwargs: Kwargs
    module: nn.Module | None = field(default=None, kw_only=True)
    output: Any = field(default=None, kw_only=True)
    engine: Engine | None = field(default=None, kw_only=True)
    frozen: bool = field(default=False, kw_only=True)
    note: Any = field(default=None, init=False)
    rule: Any = field(default=None, init=False)

    def given_to(self, rule: Callable[[Call], Any]) -> Any:
        """Return what a rule makes of this call; NotImplemented if it makes nothing.

        Raises:
            RuleError: if the rule fails where the call by itself does not, or returns
                nothing: it does not fit.
        """
        self.rule = rule
        try:
            output = rule(self)
        except PASSED_ON:
            raise
        except MISTAKES as error:
            if self._fails():
                raise  # the model's own
            raise misfit(self, error) from error
        if output is None or (output is NotImplemented and self.module is not None):
            raise RuleError(
                f"{rule!r} returned {output} for {self.operator!r}; expected what the "
                "operator returns. End its __call__ with `return`."
            )
        return output

    def _fails(self) -> bool:
        """Whether the call fails by itself, in whatever way."""
        try:
            with torch.no_grad():
                self.value()
        except Exception:
            return True
        return False

    def made(self, tensor: Any) -> Made | None:
        """Return what made a tensor that carries relevance; None for a constant."""
        if self.engine is None or not carries_relevance(tensor):
            return None
        return self.engine.tape.of(tensor)

    def run(self) -> Any:
        """Return the output with torch's own gradient.

        Raises:
            RuleError: of a module that ran without one, as the rule asked.
        """
        if self.frozen:
            raise RuleError(
                f'a rule with inside = "constant" asked {self.operator} for an output '
                "with torch's own gradient, which was not recorded. Take call.value(), "
                "or leave `inside` out."
            )
        if self.module is not None:
            return self.output
        return self.function(*self.args, **self.kwargs)

    def run_with(self, args: Args, kwargs: Kwargs) -> Any:
        """Return the output for changed arguments, with torch's own gradient."""
        return self.function(*args, **kwargs)

    def value(self) -> Any:
        """Return the output without a gradient."""
        if self.module is not None:
            return map_tensors(Tensor.detach, self.output)
        args = map_tensors(Tensor.detach, self.args)
        return self.function(*args, **map_tensors(Tensor.detach, self.kwargs))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def replacing(
        self, function: Callable[[Tensor], Tensor], *, only: set[int] | None = None
    ) -> tuple[Args, Kwargs]:
        """Return the arguments with relevant tensors (of these ids) replaced."""

        def replaced(tensor: Tensor) -> Tensor:
            meant = tensor.requires_grad and (only is None or id(tensor) in only)
            return function(tensor) if meant else tensor

        return map_tensors(replaced, self.args), map_tensors(replaced, self.kwargs)

    def aliased(self) -> tuple[Call, list[Tensor]]:
        """Return this call with relevant arguments replaced by aliases, and these.

        The gradient at an alias is that of this call alone, even where one argument was
        computed from another. Of a module that has run already, the output stays that
        of the arguments it was given.
        """
        aliases: dict[int, Tensor] = {}

        def alias(tensor: Tensor) -> Tensor:
            if id(tensor) not in aliases:
                twin = aliases[id(tensor)] = tensor.view_as(tensor)
                if self.engine is not None:
                    self.engine.tape.same(twin, tensor)
            return aliases[id(tensor)]

        args, kwargs = self.replacing(alias)
        call = replace(self, args=args, kwargs=kwargs)
        call.rule = self.rule
        return call, list(aliases.values())

    def decompose(self, function: Function, *args: Any) -> Any:
        """Run python code whose operators meet the rules of the method in turn."""
        assert self.engine is not None
        return self.engine.reenter(function, *args)

    def switch(
        self,
        output: Tensor,
        share: Callable[[Tensor], Sequence[Tensor | None]] | None,
        *operands: Tensor,
    ) -> Tensor:
        """Return ``output``, behind which relevance and gradient go two ways.

        For tables that carry relevance, see :meth:`..carried.passes.Passes.switch`.
        """
        assert self.engine is not None
        switched: Tensor = self.engine.passes.switch(self, output, share, *operands)
        return switched

    def merged_with(self, path: Sequence[Made]) -> None:
        """Say that this call is one operator with those of some records.

        Relevance does not pass between them: what they made has the output's.
        """
        assert self.engine is not None
        self.engine.merged = path

    def keep(self, tensor: Tensor) -> Any:
        """Return the values of a tensor for the way back, whatever is written later.

        For tables that carry relevance: they are ``keep(tensor).tensor``.
        """
        assert self.engine is not None
        return self.engine.passes.keep(tensor)


def misfit(call: Call, error: Exception) -> RuleError:
    """Return the error of a rule that does not fit the call it was given to."""
    thing = "operator" if call.module is None else "module"
    instead = "none" if call.module is None else "remove its row"
    return RuleError(
        f"{call.rule!r} was given to the {thing} {call.operator!r}, which it does not "
        f"fit: {type(error).__name__}: {error}. Give the {thing} another rule or a "
        f"kind, or {instead} so that it keeps that of the method."
    )
