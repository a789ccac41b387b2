"""One call of an operator or of a module, as a rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from .._nested import map_tensors
from ..errors import LRPError, RuleError
from .tape import Made, Tape

#: what a rule raises that does not fit; torch steers checkpoints by other exceptions
_MISTAKES = (
    *(RuntimeError, TypeError, ValueError, LookupError, AttributeError),
    *(AssertionError, NameError, ArithmeticError),
)
_PASSED_ON = (LRPError, torch.OutOfMemoryError, CheckpointError)


def carries_relevance(value: Any) -> bool:
    """Whether a value is a tensor through which relevance flows.

    Within the engine every parameter and every foreign tensor is detached on entry, so
    ``requires_grad`` means exactly that.
    """
    return isinstance(value, Tensor) and value.requires_grad


class Seeing(Protocol):
    """What a call needs of the engine that made it."""

    passes: Any
    tape: Tape
    merged: list[Made]

    def reenter(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run python code so that the operators in it are seen one by one."""


def _misfit(rule: Any, operator: str, module: bool, error: Exception) -> RuleError:
    """Return the error of a rule that does not fit what it was given to."""
    thing = "module" if module else "operator"
    instead = "remove its row" if module else "none"
    return RuleError(
        f"{rule!r} was given to the {thing} {operator!r}, which it does not fit: "
        f"{type(error).__name__}: {error}. Give the {thing} another rule or a kind, or "
        f"{instead} so that it keeps that of the method."
    )


class Call:
    """What arrives at a rule: the operator or module, and its arguments.

    Attributes:
        operator (str): name of the operator, or the class name of the module.
        kind (str | None): its kind, see :data:`~.operators.KINDS`.
        function (Callable): what computes the unchanged output.
        args (tuple): positional arguments; parameters arrive detached.
        kwargs (dict): keyword arguments.
        module (Module | None): the module, when a module is treated as one operator.
        note (Any): what the rule leaves on the tape, beside the record of the output.
        rule (Any): what the call was given to; None before.
    """

    __slots__ = (
        "_engine",
        "_frozen",
        "_output",
        "args",
        "function",
        "kind",
        "kwargs",
        "module",
        "note",
        "operator",
        "rule",
    )

    def __init__(
        self,
        operator: str,
        kind: str | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        module: nn.Module | None = None,
        output: Any = None,
        engine: Seeing | None = None,
        frozen: bool = False,
    ) -> None:
        self.operator = operator
        self.kind = kind
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.module = module
        self._output = output
        self._engine = engine
        self._frozen = frozen  # the operators inside the module recorded nothing
        self.note: Any = None
        self.rule: Any = None

    def given_to(self, rule: Callable[[Call], Any]) -> Any:
        """Return what a rule makes of this call; NotImplemented if it makes nothing.

        Raises:
            RuleError: if the rule fails where the call by itself does not, or returns
                nothing: it does not fit.
        """
        self.rule = rule
        try:
            output = rule(self)
        except _PASSED_ON:
            raise
        except _MISTAKES as error:
            if self._fails():
                raise  # the model's own
            raise _misfit(
                rule, self.operator, self.module is not None, error
            ) from error
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
        if self._engine is None or not carries_relevance(tensor):
            return None
        return self._engine.tape.of(tensor)

    def run(self) -> Any:
        """Return the output with torch's own gradient.

        Raises:
            RuleError: of a module that ran without one, as the rule asked.
        """
        if self._frozen:
            raise RuleError(
                f'a rule with inside = "constant" asked {self.operator} for an output '
                "with torch's own gradient, which was not recorded. Take call.value(), "
                "or leave `inside` out."
            )
        if self.module is not None:
            return self._output
        return self.function(*self.args, **self.kwargs)

    def run_with(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the output for changed arguments, with torch's own gradient."""
        return self.function(*args, **kwargs)

    def value(self) -> Any:
        """Return the output without a gradient."""
        if self.module is not None:
            return map_tensors(Tensor.detach, self._output)
        args = map_tensors(Tensor.detach, self.args)
        return self.function(*args, **map_tensors(Tensor.detach, self.kwargs))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def replacing(
        self, function: Callable[[Tensor], Tensor], *, only: set[int] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with relevant tensors (of these ids) replaced."""

        def replace(tensor: Tensor) -> Tensor:
            if not tensor.requires_grad or (
                only is not None and id(tensor) not in only
            ):
                return tensor
            return function(tensor)

        return map_tensors(replace, self.args), map_tensors(replace, self.kwargs)

    def aliased(self) -> tuple[Call, list[Tensor]]:
        """Return this call with relevant arguments replaced by aliases, and these.

        The gradient at an alias is that of this call alone, even where one argument was
        computed from another. Of a module that has run already, the output stays that
        of the arguments it was given.
        """
        aliases: dict[int, Tensor] = {}

        def alias(tensor: Tensor) -> Tensor:
            if id(tensor) not in aliases:
                twin = tensor.view_as(tensor)
                if self._engine is not None:
                    self._engine.tape.same(twin, tensor)
                aliases[id(tensor)] = twin
            return aliases[id(tensor)]

        args, kwargs = self.replacing(alias)
        call = Call(
            self.operator,
            self.kind,
            self.function,
            args,
            kwargs,
            module=self.module,
            output=self._output,
            engine=self._engine,
            frozen=self._frozen,
        )
        call.rule = self.rule
        return call, list(aliases.values())

    def decompose(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run python code whose operators meet the rules of the method in turn."""
        assert self._engine is not None
        return self._engine.reenter(function, *args)

    def switch(
        self,
        output: Tensor,
        share: Callable[[Tensor], Sequence[Tensor | None]] | None,
        *operands: Tensor,
    ) -> Tensor:
        """Return ``output``, behind which relevance and gradient go two ways.

        For tables that carry relevance, see :mod:`..carried.passes`.

        Args:
            output (Tensor): with torch's own gradient, which is left alone.
            share (Callable or None): takes the relevance of ``output``, and returns
                that of each operand, or None for none; None lets nothing past.
            operands (Tensor): the inputs that receive relevance.
        """
        assert self._engine is not None

        given = self.rule, self.operator, self.module is not None  # no tensors

        def told(relevance: Tensor) -> Sequence[Tensor | None]:
            assert share is not None
            try:
                return share(relevance)
            except _PASSED_ON:
                raise
            except _MISTAKES as error:
                raise _misfit(*given, error) from error

        passing = None if share is None else told
        alias: Tensor = self._engine.passes.switch(output, passing, *operands)
        return alias

    def merged_with(self, path: list[Made]) -> None:
        """Say that this call is one operator with those of some records.

        Relevance does not pass between them: what they made has the output's.
        """
        assert self._engine is not None
        self._engine.merged = path

    def keep(self, tensor: Tensor) -> Any:
        """Return the values of a tensor for the way back, whatever is written later.

        For tables that carry relevance: they are ``keep(tensor).tensor``.
        """
        assert self._engine is not None
        return self._engine.passes.keep(tensor)
