"""Observers: what watches one run of a model, or takes part in it, beside the rules.

A trace, attention maps and the relevance of positions are observers; any number of them
watch one pass, each unaware of the others. Yours is a class with one method::

    class Shapes(Observer):
        def __init__(self):
            self.seen = []

        def apply(self, call, run):
            output = run(call.args, call.kwargs)
            self.seen += [(call.name, tuple(t.shape)) for t in relevant(output)]
            return output


    shapes = Shapes()
    AttnLRP(model, observers=[shapes]).attribute(x, target=1)

The relevance that comes back to an argument or an output of a call is heard there, by
``self.engine.hear(tensor, function)``.

:class:`ObservedEngine` is the engine of such a pass. The plain :class:`~.engine.Engine`
knows nothing of observers and pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._nested import map_tensors, tensors_in
from .._torch import DisableTorchFunction
from ..core.composites import Composite
from ..core.engine import Engine, running
from ..core.installed import MODULES
from ..core.rules.base import Rule
from ..core.rules.linear import PlainGradient
from ..core.table import Operator
from ..core.tape import Unlisted
from .taps import Taps

#: computes an output of arguments, under the rules
Run = Callable[[Any, dict[str, Any]], Any]

#: in place they change the shape or the graph, not the values
_RESHAPE = frozenset(
    "squeeze unsqueeze t transpose swapaxes swapdims as_strided detach".split()
)

#: in place they write values beside others that stay
WRITES = frozenset({"setitem", "copy"})


@dataclass(eq=False)
class Applied:
    """An operator that is applied, or a module that is treated as one.

    Attributes:
        operator (Operator or Unlisted): which; of a module its class name.
        rule (Rule or None): what takes its relevance; None where torch's own gradient
            is taken for an unknown operator.
        args (tuple): positional arguments; what carries relevance requires a gradient.
        kwargs (dict): keyword arguments.
        relevant (int): how many of them carry relevance.
        module (Module or None): the module, where one is treated as one operator. It
            has run already, and what an observer hands it changes its rule alone.
        note (Any): what the rule left for the tape, once it ran.
    """

    operator: Any
    rule: Rule | None
    args: Any
    kwargs: dict[str, Any]
    relevant: int
    module: nn.Module | None = None
    note: Any = None

    @property
    def name(self) -> str:
        """Name of the operator, or of the module's class."""
        return str(self.operator.name)

    @property
    def kind(self) -> str | None:
        """Kind of the operator; None for a module."""
        return None if self.module is not None else self.operator.kind

    def given(self, args: Any, kwargs: dict[str, Any]) -> Applied:
        """Return the same, applied to these arguments."""
        if args is self.args and kwargs is self.kwargs:
            return self
        return replace(self, args=args, kwargs=kwargs)

    @property
    def ran_by_itself(self) -> bool:
        """Whether it is a module through which torch's own gradient goes back."""
        return (
            self.module is not None
            and self.rule is not None
            and self.rule.inside == "gradient"
        )


def relevant(value: Any) -> list[Tensor]:
    """Return the tensors in nested containers through which relevance goes."""
    return [tensor for tensor in tensors_in(value) if tensor.requires_grad]


class Observer:
    """Base of what watches a pass; every method may be left as it is."""

    #: whether arguments arrive as aliases and outputs leave as copies, to which this
    #: call's relevance comes and no other
    hears: ClassVar[bool] = True
    #: kinds of operators that are shown though none of their arguments carries
    #: relevance, because it may start there
    starts_at: ClassVar[frozenset[str]] = frozenset()

    def begin(self, engine: ObservedEngine) -> None:
        """Hear that a pass begins; a method may make several.

        Args:
            engine (ObservedEngine): the engine that runs the model, from here on
                ``self.engine``.
        """
        self.engine = engine

    def model(self, root: nn.Module) -> None:
        """Hear which model runs, before it does."""

    def meet(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], run: Run
    ) -> Any:
        """Return the output of a torch call, whatever it computes with.

        All calls of the model come by here, those of constants too.

        Args:
            operator (Operator): what is called.
            args (tuple): as the model wrote them.
            kwargs (dict): likewise.
            run (Callable): runs the call, with these or other arguments.
        """
        return run(args, kwargs)

    def opens(self, operator: Operator) -> Callable[..., Any] | None:
        """Return python code that is run in the place of an operator, or None.

        Its operators are seen one by one.
        """
        return None

    def apply(self, call: Applied, run: Run) -> Any:
        """Return the output of an operator through which relevance goes.

        What works in place is shown as the operator out of place. Operators that a
        checkpoint computes again on the way back are not shown.

        Args:
            call (Applied): what is applied, and to what.
            run (Callable): applies its rule, to these or other arguments.
        """
        return run(call.args, call.kwargs)

    def started(self, operator: Operator, output: Tensor) -> Tensor:
        """Return what an embedding of explained identifiers gave."""
        return output

    def written(self, operator: Operator, target: Tensor, base: Tensor) -> None:
        """Hear that a view was written into, the rest of whose base is constant."""

    def held_back(
        self,
        module: nn.Module,
        tensors: list[Tensor],
        received: list[Tensor],
        passed: list[Tensor],
    ) -> None:
        """Hear which gradients came to the tensors of a unit, and which passed it."""


class ObservedEngine(Engine):
    """Runs a forward function before the eyes of observers.

    The first observer is the outermost: what it makes of arguments is what the second
    sees, and what the second makes of an output is what the first sees.

    Args:
        composite (Composite): the table of rules.
        observers (sequence of Observer, optional): who watches. Default: nobody
        taps (Taps, optional): places at which what passes is recorded, see
            :mod:`.taps`. Default: none
        options (Any): as for :class:`~.engine.Engine`.
    """

    def __init__(
        self,
        composite: Composite,
        *,
        observers: Sequence[Observer] = (),
        taps: Taps | None = None,
        **options: Any,
    ) -> None:
        super().__init__(composite, **options)
        self.taps = taps
        self.observers = tuple(observers)
        self._applying = [o for o in observers if _overrides(o, "apply")]
        self._meeting = [o for o in observers if _overrides(o, "meet")]
        self._opening = [o for o in observers if _overrides(o, "opens")]
        self.measures = bool(self._applying or self._opening)
        self.starts_at = frozenset(k for o in observers for k in o.starts_at)
        for observer in self.observers:
            observer.begin(self)
            if self.root is not None:
                observer.model(self.root)

    @property
    def frozen(self) -> bool:
        """Whether a module runs whose operators are not seen: it counts as one."""
        return any(
            rule is not None and not rule.kinds and rule.inside == "constant"
            for rule, *_ in self._stack
        )

    @property
    def suspended(self) -> bool:
        """Whether a module runs that keeps torch's own gradient."""
        return bool(self._suspended)

    def _index(self, root: nn.Module) -> None:
        super()._index(root)
        for observer in self.observers:  # none yet, if the root is known
            observer.model(root)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        operator = self.table.operator(func)

        def run(args: Any, kwargs: dict[str, Any]) -> Any:
            if self.taps is not None and operator.multiplies and self.sees:
                args = self.taps.meet(args)
            return Engine.__torch_function__(self, func, types, args, kwargs)

        if not self._meeting or self.paused or self.backward:
            return run(args, kwargs or {})
        return _met(self._meeting, operator, args, kwargs or {}, run)

    def leave(self) -> None:
        """Take back whatever was installed, the taps' hooks too."""
        if self.taps is not None and self in running():
            self.taps.unhook()
        super().leave()

    def _hook_modules(self) -> None:
        if self.taps is not None:
            self.taps.hook(self)
            MODULES.acquire(self)
        super()._hook_modules()

    def leave_module(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """After a module ran: record what it returned, if that is wanted."""
        changed = super().leave_module(module, args, kwargs, output)
        if self.taps is None or output is None:
            return changed
        given = output if changed is None else changed
        read = self.taps.after(module, args, kwargs, given)
        return None if read is output else read

    def apply(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Apply the rule of an operator, and show it."""
        if not self.measures:
            return self._applied(operator, args, kwargs, relevant)
        code = self._opened(operator)
        if code is not None:
            return self.reenter(code, *args, **kwargs)
        other = self.special(operator, args, kwargs)
        if other is not NotImplemented:
            return other
        if not relevant:  # where it may start, in a checkpoint too
            starting = [o for o in self._applying if operator.kind in o.starts_at]
            return self._shown(
                starting,
                Applied(operator, None, args, kwargs, 0),
                lambda args, kwargs: operator.function(*args, **kwargs),
            )
        if self.backward or (operator.twin is not None and operator.rule is None):
            return self._applied(operator, args, kwargs, relevant)
        if operator.in_place:
            return self.in_place(operator, args, kwargs, relevant)

        def run(args: Any, kwargs: dict[str, Any]) -> Any:
            return self._applied(operator, args, kwargs, relevant)

        rule = self.rule_for(operator)
        call = Applied(operator, rule, args, kwargs, relevant)
        return self._shown(self._applying, call, run)

    def _applied(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Apply the rule; taps are read behind what their tensors are merged with."""
        output = super().apply(operator, args, kwargs, relevant)
        path, self.merged = self.merged, ()
        return self.taps.behind(path, output) if path and self.taps else output

    def in_place(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Run out of place, where it can be seen, then write the result back."""
        if not self.measures:
            return super().in_place(operator, args, kwargs, relevant)
        target, function = args[0], operator.out_of_place
        if operator.name in WRITES:
            outcome = self._write(operator, args, kwargs, relevant)
        elif isinstance(self.rule_for(operator), PlainGradient) and (
            function is None or operator.name in _RESHAPE
        ):  # moves values only
            return operator.function(*args, **kwargs)
        elif function is None:
            return super().in_place(operator, args, kwargs, relevant)
        else:
            outcome = self.computed(operator, args, kwargs)
        base = target._base if target._is_view() else None
        around = None if base is None or base.requires_grad else base
        self.write_back(target, outcome)
        if around is not None:
            for observer in self.observers:
                observer.written(operator, target, around)
        return target

    def _write(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Write values into a copy of the target, and return the copy."""

        def run(args: Any, kwargs: dict[str, Any]) -> Any:
            outcome = args[0].clone()
            self._applied(operator, (outcome, *args[1:]), kwargs, relevant)
            return outcome

        call = Applied(operator, self.rule_for(operator), args, kwargs, relevant)
        return self._shown([] if self.backward else self._applying, call, run)

    def apply_to_module(
        self, rule: Rule, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        """Let a rule rebuild what a module returned, and show it."""
        if self.backward or not self._applying:
            return super().apply_to_module(rule, module, args, kwargs, output)

        def run(args: Any, kwargs: dict[str, Any]) -> Any:
            return Engine.apply_to_module(self, rule, module, args, kwargs, output)

        number = len(relevant((args, kwargs)))
        name = Unlisted(type(module).__name__)
        call = Applied(name, rule, args, kwargs, number, module)
        with DisableTorchFunction():
            return self._shown(self._applying, call, run)

    def enter_module(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Hand aliases to a module that keeps torch's gradient, to be heard there."""
        changed = super().enter_module(module, args)
        rule = self._module_rules.get(id(module))
        if rule is None or rule.kinds or rule.inside != "gradient":
            return changed
        if self._suspended != 1 or not self._applying:
            return changed
        return map_tensors(self._alias, args if changed is None else changed)

    def started(self, operator: Operator, args: Any, output: Any) -> Any:
        """Relevance starts here: an embedding of explained identifiers was read."""
        if isinstance(output, Tensor) and output.requires_grad and not self.backward:
            for observer in reversed(self.observers):
                output = observer.started(operator, output)
        return output

    def _opened(self, operator: Operator) -> Callable[..., Any] | None:
        """Return what an observer wants to be run instead of an operator."""
        codes = (observer.opens(operator) for observer in self._opening)
        return next((code for code in codes if code is not None), None)

    def hear(
        self,
        tensor: Tensor,
        function: Callable[[Tensor], None],
        part: Tensor | None = None,
    ) -> None:
        """Call a function with the relevance of a tensor, when it comes back.

        Once for each way back of the table: where it carries relevance, gradients that
        a method takes beside it are not heard.

        Args:
            tensor (Tensor): in the graph.
            function (Callable): takes the relevance of each element, of the tensor's
                shape; not called if none comes.
            part (Tensor, optional): values, in the place of the tensor's own, of which
                the relevance is meant. Default: None
        """
        carries = self.composite.carries == "relevance"
        value = part
        if value is None and not carries:
            value = tensor.detach().clone()

        def come(gradient: Tensor | None) -> None:
            if gradient is None or (carries and not self.passes.relevance):
                return
            relevance = gradient.conj() if gradient.is_complex() else gradient.double()
            if value is not None:  # a masked -inf with no gradient has no relevance
                relevance = torch.where(gradient == 0, 0.0, relevance * value)
            function(relevance.real)

        tensor.register_hook(come)

    def _shown(self, observers: Sequence[Observer], call: Applied, apply: Run) -> Any:
        """Run a call before the eyes of observers."""
        if not any(observer.hears for observer in observers):
            return self._within(observers, call, apply)
        if not call.ran_by_itself:
            call.args, call.kwargs = self._aliases((call.args, call.kwargs))

        def run(args: Any, kwargs: dict[str, Any]) -> Any:
            return copied(call.given(args, kwargs), apply(args, kwargs))

        return self._within(observers, call, run)

    def _within(self, observers: Sequence[Observer], call: Applied, apply: Run) -> Any:
        """Run a call within the first observer, and this within the second."""
        if not observers:
            output = apply(call.args, call.kwargs)
            call.note = self._note
            return output
        first, *others = observers

        def run(args: Any, kwargs: dict[str, Any]) -> Any:
            inner = call.given(args, kwargs)
            output = self._within(others, inner, apply)
            call.note = inner.note
            return output

        output = first.apply(call, run)
        self._note = call.note
        return output

    def _aliases(self, value: Any) -> Any:
        """Return arguments with one alias for each tensor that carries relevance."""
        found: dict[int, Tensor] = {}

        def alias(tensor: Tensor) -> Tensor:
            if id(tensor) not in found:
                found[id(tensor)] = self._alias(tensor)
            return found[id(tensor)]

        return map_tensors(alias, value)


def copied(call: Applied, output: Any) -> Any:
    """Return the output of a call with copies of what carries relevance."""
    given = {id(tensor) for tensor in tensors_in((call.args, call.kwargs))}
    # what is written into a view, or into an argument that came back, reaches it
    views = call.kind == "structural" or id(output) in given

    def copy(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        keep = views and call.module is None and tensor._is_view()
        return tensor.view_as(tensor) if keep else tensor.clone()

    return map_tensors(copy, output)


def _met(
    observers: Sequence[Observer],
    operator: Operator,
    args: Any,
    kwargs: dict[str, Any],
    call: Run,
) -> Any:
    """Run a torch call within the first observer, and this within the second."""
    if not observers:
        return call(args, kwargs)
    first, *others = observers

    def run(args: Any, kwargs: dict[str, Any]) -> Any:
        return _met(others, operator, args, kwargs, call)

    return first.meet(operator, args, kwargs, run)


def _overrides(observer: Observer, method: str) -> bool:
    """Whether an observer has a method of its own."""
    return getattr(type(observer), method) is not getattr(Observer, method)


__all__ = ["Applied", "ObservedEngine", "Observer", "Run", "copied", "relevant"]
