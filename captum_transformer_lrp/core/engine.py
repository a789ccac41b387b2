"""The engine: sees every torch call of a model and lets the rules rebuild its gradient.

:class:`Engine` is a :class:`torch.overrides.TorchFunctionMode`. Inside it a model runs
as it always does; each operator is looked up in a :class:`~.table.RuleTable`, and its
rule returns the same output with a modified gradient. Nothing of the model is patched:
the mode lives on this thread's stack, and modules that are treated as one operator are
met through torch's global module hooks, which are registered while an engine needs them
and ignore all other threads.

What carries relevance is what descends from the explained inputs, as the :mod:`~.tape`
remembers. Everything else that requires a gradient, parameters and what was computed
from them, is detached wherever it enters an operator, so that within a rule
``requires_grad`` means relevance.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, is_grad_enabled, nn
from torch.autograd.graph import GradientEdge
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from .._nested import PLAIN_TYPES, map_tensors, tensors_in
from .._torch import (
    DisableTorchFunction,
    cached_parametrizations,
    count_of_modes,
    next_node_number,
    opened,
    pop_mode,
    saved_tensor_hooks,
    set_grad_enabled,
    transform_level,
)
from ..errors import ModelStateError
from .call import Args, Call, Function, Kwargs
from .composites import Composite
from .gates import Scaled
from .installed import MODULES, engine_here, leave_mode, thread
from .plugins import plugins
from .rules.base import Rule
from .table import Operator, is_plain, table_for
from .tape import WRITE, Made, Tape, Unlisted
from .tape import note as remember


class Engine(TorchFunctionMode):
    """Runs a forward function under the rules of a composite, once.

    Args:
        composite (Composite): the table of rules.
        root (Module or None): the model, for module names; None if the forward function
            is no module, then the outermost module that runs.
        unknown (str): ``"raise"``, ``"warn"`` or ``"gradient"``.
        identifiers (sequence of (Tensor, Tensor)): integer inputs and the float leaf of
            ones, one per identifier, that collects their relevance.

    Attributes:
        table (RuleTable): what is looked up.
        tape (Tape): what made each tensor that carries relevance.
        passes (Any): keeps relevance and gradient apart on the way back, if both go
            there; else None.
        recomputes (bool): parts of the model are computed again on the way back.
        backward (bool): relevance is on its way back.
        beginning (Any): the activation that made the scores, if it is not 0 at 0, see
            :mod:`..known.beginning`.
        paused (bool): another engine runs inside this one.
        dropout_seen (bool): the model drew random numbers.
    """

    #: whether every operator must go through :meth:`apply`, even the plain ones
    measures: bool = False
    #: kinds of operators that go through :meth:`apply` without a relevant argument
    starts_at: frozenset[str] = frozenset()
    #: who watches, see :mod:`~captum_transformer_lrp.observers`
    observers: tuple[Any, ...] = ()
    #: the records that the last call is one operator with
    merged: Sequence[Made] = ()

    def __init__(
        self,
        composite: Composite,
        *,
        root: nn.Module | None = None,
        unknown: str | None = None,
        identifiers: tuple[tuple[Tensor, Tensor], ...] = (),
    ) -> None:
        super().__init__()
        self.table = table_for(composite)
        self.composite = composite = self.table.composite
        self.root = root
        self.tape = Tape()
        self.unknown: Any = plugins.unknown(unknown or composite.unknown, composite)
        self.identifiers: Any = plugins.identifiers(identifiers, self)
        self._follows: bool = self.identifiers.active
        for _, ones in identifiers:
            self.tape.start(ones, ones)
        carries = composite.carries == "relevance"
        self.passes: Any = plugins.passes() if carries else None
        self.recomputes = self.backward = self.paused = self.dropout_seen = False
        self.beginning: Any = None
        self._nested = 0  # within operators that show those they are made of
        self._note: Any = None  # what the last rule left for the record
        self._outcome: Made | None = None  # of an operator in place, out of place
        # modules that are one operator: their rules by id, and those that run now
        self._module_rules: dict[int, Rule] = {}
        self._indexed: set[nn.Module] = set()
        self._names: dict[int, str] = {}
        self._stack: list[tuple[Rule | None, Rule | None, Any]] = []
        self._scope: Rule | None = None  # takes the operators inside a module
        self._read: Any = None  # what is read inside a module that is one operator
        self._suspended = 0  # inside a module that keeps torch's own gradient
        if root is not None:
            self._index(root)

    # ------------------------------------------------------------ enter and leave

    def __enter__(self) -> Engine:
        """Start to see this thread's torch calls.

        Raises:
            ModelStateError: under ``torch.inference_mode``, where nothing can be
                explained, because torch records no gradient there.
        """
        if torch.is_inference_mode_enabled():
            raise ModelStateError(
                "relevance cannot be propagated inside torch.inference_mode(), where "
                "torch records nothing to go back through. Leave the block, or wrap "
                "the call in `with torch.inference_mode(False):`. torch.no_grad() is "
                "fine."
            )
        self._outer: Engine | None = engine_here()
        self._depth = count_of_modes()
        self._gradients = is_grad_enabled()
        self._cached = frozenset(cached_parametrizations())
        thread.engine = self  # from here on, leave() takes everything back
        try:
            if self._outer is not None:
                self._outer.paused = True
            set_grad_enabled(True)
            self._hook_modules()
            for shared in plugins.installed:
                shared.acquire(self)
            super().__enter__()  # type: ignore[no-untyped-call]
        except BaseException:
            self.leave()
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop, and take back whatever was installed."""
        self.leave()

    def leave(self) -> None:
        """Take back whatever was installed; may be repeated, and interrupted.

        Does nothing on a thread on which this engine does not run.
        """
        if self not in running():
            return
        while (inner := engine_here()) is not self:  # was interrupted
            inner.leave()
        while count_of_modes() > self._depth:
            pop_mode()
        for shared in (MODULES, *plugins.installed):
            shared.release(self)
        # weights that were computed here come from detached parameters
        cached = cached_parametrizations()
        for key in set(cached) - self._cached:
            cached.pop(key, None)
        if self.passes is not None:
            self.passes.close()
        set_grad_enabled(self._gradients)
        if self._outer is not None:
            self._outer.paused = False
        thread.engine = self._outer
        self._outer = None

    @property
    def sees(self) -> bool:
        """Whether operators meet their rules now."""
        return not (self.paused or self._suspended) and is_grad_enabled()

    # ------------------------------------------------------------------ operators

    def __torch_function__(
        self, func: Function, types: Any, args: Args = (), kwargs: Kwargs | None = None
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        table, tape = self.table, self.tape
        operator = table.operators.get(func) or table.operator(func)
        follows = self._follows and operator.follows
        if operator.inert and not follows:
            return func(*args, **kwargs) if kwargs else func(*args)
        kwargs = kwargs or {}
        if follows and not self.paused:
            handled, output = self.identifiers.meet(operator, func, args, kwargs)
            if handled:
                output = self.started(operator, args, output)
                for tensor in tensors_in(output):
                    self._record(operator, tape.started(tensor), tensor)
                return output
            if output is not None:  # what to run in its place
                return self.reenter(output)
        if operator.metadata or self.paused or self._suspended or not is_grad_enabled():
            return self._run_closed(operator, func, args, kwargs)
        # the loop below runs for every operator of the model: collect the records of
        # what carries relevance, and replace what is foreign by constants
        parents: list[Made] = []
        constants: list[Any] | None = None
        carrier: Any = None
        cuts, remade = tape.cuts, False  # constants that a rule made of such tensors
        given = (*args, *kwargs.values()) if kwargs else args
        for place, value in enumerate(given):
            cls = value.__class__
            if cls in PLAIN_TYPES:
                continue
            if cls is Parameter and value.requires_grad and value.is_leaf:
                pass  # a constant, the usual case
            elif cls is Tensor or isinstance(value, Tensor):
                if not value.requires_grad:
                    if cuts and getattr(value, "_made", None) is not None:
                        remade = True
                    continue
                found: Any = getattr(value, "_made", None)
                made = None if found is None else found[0]
                if made is None or made.tape is not tape or found[1] != value._version:
                    made = self.made(value)
                if made is not None:
                    parents.append(made)
                    carrier = value
                    continue
            elif not isinstance(value, (list, tuple)) or not self._scan(value, parents):
                continue
            else:
                value = self.without_foreign(value)
            if constants is None:
                constants = list(given)
            constants[place] = value.detach() if isinstance(value, Tensor) else value
        if constants is not None:
            if transform_level() is not None:
                self.unknown.within_transform()
                return func(*args, **kwargs)
            if operator.in_place and args:  # the target stays the model's own
                constants[0] = args[0]
            if kwargs:
                kwargs = dict(zip(kwargs, constants[len(args) :], strict=True))
            args = tuple(constants[: len(args)])
        if operator.in_place and not args:  # its target by position
            target = "input" if "input" in kwargs else "self"
            args = tuple(v for k, v in kwargs.items() if k == target)
            kwargs = {k: v for k, v in kwargs.items() if k != target}
        if operator.multiplies and not self.recomputes:
            self.recomputes = saved_tensor_hooks(True) is not None
        if operator.in_place and args and self.passes is not None:
            self.passes.before_writing(args[0])
        if not parents and operator.kind not in self.starts_at:
            if operator.kind in _COMPUTES:
                self.unknown.within_transform()  # noted, for a message
            if remade and operator.elementwise:
                return table.joins.constant(tape, operator, func, args, kwargs)
            return func(*args, **kwargs) if kwargs else func(*args)
        if next_node_number() != tape.seen_to and not self._nested:
            tape.close()
        if operator.elementwise and len(parents) == 1 and parents[0].source is None:
            parents[0].source = weakref.ref(carrier), carrier.shape  # see joins
        if kwargs and kwargs.get("out") is not None:
            return self.reenter(_write_out, func, args, kwargs)
        note = found = None
        if operator.imitates:
            parents = parents[:1]
        relevant = len(parents)
        if operator.joins and (relevant > 1 or operator.bends or remade):
            found = table.joins.joint(tape, operator, args, kwargs, parents)
            if found is not None and not operator.recomputes:
                operator, args, kwargs = found.operator, found.args, found.kwargs
                relevant, parents, note = found.relevant, found.parents, found.note
                func = operator.function
        if found is not None and operator.recomputes:
            output = self.in_place(operator, args, kwargs, relevant)
        elif (
            (operator.plain or (operator.plain_for_one and relevant == 1))
            and not self.measures
            and self._scope is None
        ):
            output = func(*args, **kwargs) if kwargs else func(*args)
        else:
            output = self.apply(operator, args, kwargs, relevant)
            note, self._note = note or self._note, None
            if note.__class__ is Scaled:
                parents = [note.what]
            if output.__class__ is Tensor:
                known = tape.of(output)
                if known is not None and all(known is not made for made in parents):
                    tape.seen_to = next_node_number()  # by the operators it is made of
                    return output
        if output.__class__ is not Tensor or operator.in_place:
            self._record(operator, parents, output, args, note)
        elif not args or output is not args[0]:
            if output.requires_grad:
                if operator.reshapes and args and _is_alias(operator, args, output):
                    made = parents[0]
                    if made.source is None:  # the alias may be gone sooner
                        made.source = weakref.ref(args[0]), output.shape
                else:
                    made = Made(operator, parents, tape, note)
                output._made = made, output._version  # type: ignore[attr-defined]
            elif operator.cuts and len(parents) == 1:
                remember(output, table.joins.cut(tape, operator, parents))
        tape.seen_to = next_node_number()
        return output

    def _run_closed(
        self, operator: Operator, func: Function, args: Args, kwargs: Kwargs
    ) -> Any:
        """Run an operator that meets no rule.

        It is no operator of the model's function, or another engine, a module that is
        one operator or ``torch.no_grad()`` is around it.
        """
        if operator.refused is not None:
            operator.refused(self, operator, args)
        if self._read is not None and not operator.metadata:
            self._read.note(self, operator, (args, kwargs))
        if operator.metadata or self.paused or not is_grad_enabled():
            if operator.compares and not self.paused:
                joins = self.table.joins
                return joins.constant(self.tape, operator, func, args, kwargs)
        else:  # torch's own gradient, without that of parameters
            args, kwargs = map_tensors(_no_leaf, args), map_tensors(_no_leaf, kwargs)
        return func(*args, **kwargs)

    def _record(
        self,
        operator: Any,
        parents: Sequence[Made],
        output: Any,
        args: Args = (),
        note: Any = None,
    ) -> None:
        """Note on the tape how the tensors of an output, or a target, came to be."""
        if args and operator.in_place:
            if len(parents) > 1 and _overwrites_all(operator, args):
                parents = parents[1:]
            made = self._outcome or Made(operator, parents, self.tape, note)
            self._outcome = None
            known, base = getattr(args[0], "_made", None), args[0]._base
            remember(args[0], made)
            if base is not None:
                if known is not None and base.numel() != args[0].numel():
                    before = [known[0]] if known[0].tape is self.tape else []
                    made = Made(WRITE, [*before, made], self.tape)
                remember(base, made)
        else:  # of several outputs, each is another tensor
            found = [t for t in tensors_in(output) if t.requires_grad]
            if operator.name in _ONE_BY_ONE and len(found) == len(parents):
                given = [t for t in tensors_in(args) if t.requires_grad]
                for tensor, old, made in zip(found, given, parents, strict=True):
                    kept = tensor.shape == old.shape
                    remember(
                        tensor, made if kept else Made(operator, [made], made.tape)
                    )
                found = []
            for tensor in found:
                remember(tensor, Made(operator, parents, self.tape, note))
        self.tape.seen_to = next_node_number()

    def _scan(self, values: Any, parents: list[Made]) -> bool:
        """Collect the records of the tensors in a list; whether one is foreign."""
        foreign = False
        for value in values:
            if isinstance(value, Tensor):
                if value.requires_grad:
                    made = self.made(value)
                    if made is None:
                        foreign = True
                    else:
                        parents.append(made)
            elif isinstance(value, (list, tuple)):
                foreign |= self._scan(value, parents)
        return foreign

    def made(self, tensor: Tensor) -> Made | None:
        """Return the record of a tensor that requires a gradient; None if foreign."""
        if tensor.is_leaf:
            return None
        return self.tape.of(tensor) or self.tape.meet(tensor, self.module_path)

    def without_foreign(self, value: Any) -> Any:
        """Return a value in which only what carries relevance requires a gradient."""
        if value.__class__ in PLAIN_TYPES:
            return value
        if isinstance(value, Tensor):
            foreign = value.requires_grad and self.made(value) is None
            return value.detach() if foreign else value
        if isinstance(value, (list, tuple)) and value:
            return map_tensors(self.without_foreign, value)
        return value

    # ----------------------------------------------------------------------- rules

    def apply(
        self, operator: Operator, args: Args, kwargs: Kwargs, relevant: int
    ) -> Any:
        """Apply the rule of an operator, ``relevant`` of whose arguments are ours."""
        function = operator.function
        if transform_level() is not None:
            self.unknown.within_transform()
            return function(*args, **kwargs)
        if operator.special is not None:
            other = self.special(operator, args, kwargs)
            if other is not NotImplemented:
                return other
        call = Call(operator.name, operator.kind, function, args, kwargs, engine=self)
        if operator.stateful is not None:
            operator.stateful(self, call)
        rule = self.rule_for(operator)
        if rule is None:
            return self._without_rule(operator, args, kwargs)
        if is_plain(rule, operator.name, relevant):
            return function(*args, **kwargs)
        if operator.in_place:
            return self.in_place(operator, args, kwargs, relevant)
        if not self.recomputes:
            self.recomputes = saved_tensor_hooks(True) is not None
        output = call.given_to(rule)
        if output is NotImplemented:  # for this call it is no rule
            return self._without_rule(operator, args, kwargs)
        self._note = call.note
        return output

    def special(self, operator: Operator, args: Args, kwargs: Kwargs) -> Any:
        """Return the output of a call that is another operator, or NotImplemented."""
        special = operator.special
        if special is None or operator.in_place or not special.asked(args, kwargs):
            return NotImplemented  # what works in place is asked again out of place
        return self.reenter(special.run, operator.function, args, kwargs)

    def rule_for(self, operator: Operator) -> Rule | None:
        """Return the rule of an operator here: the module's around it, or its own."""
        scope = self._scope
        if scope is None or operator.kind not in scope.kinds:
            return operator.rule
        return self.table.in_form(scope, operator.kind, operator.name)

    def started(self, operator: Operator, args: Any, output: Any) -> Any:
        """Relevance starts here: an embedding of explained identifiers was read."""
        return output

    def reenter(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Run python code so that the operators in it are seen one by one."""
        self._nested += 1
        TorchFunctionMode.__enter__(self)  # back on the stack, from inside the handler
        try:
            return function(*args, **kwargs)
        finally:
            leave_mode(self)
            self._nested -= 1

    def in_place(
        self, operator: Operator, args: Args, kwargs: Kwargs, relevant: int
    ) -> Any:
        """Compute out of place under the rule, then write the result back."""
        target = args[0]
        if operator.out_of_place is None or not isinstance(target, Tensor):
            return self._without_rule(operator, args, kwargs)
        return self.write_back(target, self.computed(operator, args, kwargs))

    def computed(self, operator: Operator, args: Args, kwargs: Kwargs) -> Any:
        """Return what an operator in place gives, out of place and of a copy."""
        target = args[0]
        copied = self.tape.same(self.without_foreign(target).clone(), target)
        assert operator.out_of_place is not None
        outcome = self.reenter(operator.out_of_place, copied, *args[1:], **kwargs)
        self._outcome = self.tape.of(outcome)
        return outcome

    def write_back(self, target: Tensor, outcome: Tensor) -> Tensor:
        """Write what an operator in place gave into its first argument."""
        if not outcome.requires_grad and not target._is_view():
            target.detach_()  # a constant, all over
        return target.copy_(outcome)

    def _without_rule(self, operator: Operator, args: Args, kwargs: Kwargs) -> Any:
        """Run an operator that no rule takes, and note it for a message."""
        if operator.twin is not None:
            return self.reenter(operator.twin, *args, **kwargs)
        output = operator.function(*args, **kwargs)
        self.unknown.met(operator.name, self.module_path, args, kwargs, output)
        return output

    # -------------------------------------------------------------------- modules

    def module_path(self) -> str:
        """Return the name of the module whose code is running, by looking up the stack.

        Modules are found as ``self`` of the frames that called torch, so that no hook
        is needed for a message or a trace.
        """
        current: Any = sys._getframe(1)
        found: list[nn.Module] = []
        while current is not None:
            code = current.f_code
            if code.co_argcount and code.co_varnames[0] == "self":
                owner = current.f_locals.get("self")
                if isinstance(owner, nn.Module):
                    found.append(owner)
            current = current.f_back
        return self.name_of(found[0], found[-1]) if found else ""

    def name_of(self, module: nn.Module, outermost: nn.Module | None = None) -> str:
        """Return the name of a module, or of its class."""
        root = outermost if self.root is None else self.root
        if id(module) not in self._names and root is not None:
            self._names.update({id(m): name for name, m in root.named_modules()})
        return self._names.get(id(module)) or type(module).__name__

    def _index(self, root: nn.Module) -> None:
        """Find the modules that are treated as one operator, or cannot be explained."""
        self._module_rules.update(self.table.for_modules(root))

    def _hook_modules(self) -> None:
        if self._module_rules or self.root is None:
            MODULES.acquire(self)

    def enter_module(self, module: nn.Module, args: Args) -> Any:
        """Before a module runs: freeze its operators if it is treated as one."""
        if self.root is None and not self._stack and module not in self._indexed:
            self._indexed.add(module)
            self._index(module)
        rule = self._module_rules.get(id(module))
        if self._suspended or not is_grad_enabled():
            rule = None
        self._stack.append((rule, self._scope, self._read))
        if rule is None:
            return None
        if rule.kinds:
            self._scope = rule
            return None
        self._read = plugins.reads()
        if rule.inside == "constant":
            set_grad_enabled(False)
        else:
            self._suspended += 1
            if self.passes is not None:  # see Converted
                return map_tensors(self._alias, args)
        if getattr(module, "inplace", False):  # it may overwrite what the rule needs
            return map_tensors(Tensor.clone, args)
        return None

    def _alias(self, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        with DisableTorchFunction():
            alias: Tensor = self.tape.same(tensor.view_as(tensor), tensor)
            return alias

    def leave_module(
        self, module: nn.Module, args: Any, kwargs: Kwargs, output: Any
    ) -> Any:
        """After a module ran: rebuild what it returned, if it was given relevance."""
        if not self._stack:
            return None
        read = self._read
        rule, self._scope, self._read = self._stack.pop()
        if rule is None or rule.kinds:
            return None
        frozen = rule.inside == "constant"
        if frozen:
            set_grad_enabled(True)
        else:
            self._suspended -= 1
        if output is None:  # the module raised
            return None
        changed = output
        if frozen:
            read.check(self, module, (args, kwargs))
        own = map_tensors(self.without_foreign, args)
        further = map_tensors(self.without_foreign, kwargs)
        parents: list[Made] = []
        self._scan([*tensors_in((own, further))], parents)
        if parents:
            changed = self.apply_to_module(rule, module, own, further, output)
            note, self._note = self._note, None
            self._record(Unlisted(type(module).__name__), parents, changed, note=note)
        if not frozen:
            read.check(self, module, (args, kwargs), changed)
        return None if changed is output else changed

    def apply_to_module(
        self, rule: Rule, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        """Let a rule rebuild what a module returned."""
        call = Call(
            type(module).__name__,
            None,
            module.forward,
            args,
            kwargs,
            module=module,
            output=output,
            engine=self,
            frozen=rule.inside == "constant",
        )
        with DisableTorchFunction():
            changed = call.given_to(self.table.in_form(rule, None, None))
        self._note = call.note
        return changed

    # ------------------------------------------------------------------ afterwards

    def arrived(self, output: Any) -> Any:
        """Return what the model returned, noted where no operator seen had made it."""
        if not self._suspended:
            self.tape.close()
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    self.made(tensor)
        return output

    def suspend(self) -> None:
        """Take torch's own gradient from here on: what follows is of no interest.

        Not within a checkpoint, which is computed again and must meet the same rules.
        """
        if not self.recomputes and saved_tensor_hooks(True) is None:
            self._suspended += 1

    def check(self, output: Tensor) -> None:
        """Raise or warn if some operator on the way to ``output`` had no rule.

        Raises:
            UnknownOperatorError: with all of them, if ``unknown="raise"``.
            ModelStateError: if part of the model is checkpointed by re-entering
                autograd, which cannot be explained.
        """
        self.unknown.report(self, output)

    def seed(self, scores: Tensor, relevance: bool | None = None) -> Tensor:
        """Return what starts at scores: 1, or the scores where relevance goes back."""
        carries = self.passes is not None
        goes_back = carries if relevance is None else relevance
        start, values = self.beginning, scores.detach()
        if self.composite.converts and goes_back:
            return values if start is None else values - start.at_zero
        if start is None or carries or scores.shape != start.shape:
            return torch.ones_like(scores)
        return torch.where(values == 0, 1.0, (values - start.at_zero) / values)

    def gradients(
        self,
        scores: Tensor | GradientEdge | Sequence[Tensor],
        tensors: Sequence[Tensor] | Sequence[GradientEdge],
        *,
        seeds: Tensor | Sequence[Tensor] | None = None,
        relevance: bool | None = None,
        keep_graph: bool = False,
        batched: bool = False,
    ) -> tuple[Tensor | None, ...]:
        """Return the modified gradients of the sum of scores, None where unconnected.

        Called inside the engine, and seen by it where the model hooks into what
        autograd saves: a checkpointed model computes parts of itself again on the way
        back, which must meet the same rules.

        Args:
            scores (Tensor, GradientEdge or sequence of Tensor): one for each example,
                or where else to start.
            tensors (sequence of Tensor or GradientEdge): in the graph.
            relevance (bool, optional): what goes back past the switches: relevance, or
                torch's gradient. Default: what the composite carries
            keep_graph (bool, optional): go back through it again. Default: False
            seeds (Tensor or sequence of Tensor, optional): what starts at the scores,
                of their shape. Default: :meth:`seed`
            batched (bool, optional): the seeds are several, stacked in a dimension in
                front, which go back together; so are the gradients. Default: False
        """
        self.backward = True
        if self.passes is not None:
            self.passes.relevance = True if relevance is None else relevance
        options = {"allow_unused": True, "retain_graph": keep_graph}
        if batched:
            options["is_grads_batched"] = True
        try:
            with DisableTorchFunction():
                if seeds is None:
                    assert not isinstance(scores, GradientEdge)
                    listed = [scores] if isinstance(scores, Tensor) else scores
                    seeds = [self.seed(s, relevance) for s in listed]
                if not self.recomputes:
                    return torch.autograd.grad(scores, tensors, seeds, **options)
            return _grad(scores, tensors, seeds, **options)
        finally:
            self.backward = False


#: kinds of operators that compute something new
_COMPUTES = frozenset({"product", "activation", "normalization", "softmax"})
#: operators that return each of their arguments
_ONE_BY_ONE = frozenset(
    "broadcast_tensors meshgrid atleast_1d atleast_2d atleast_3d".split()
)
#: torch.autograd.grad, without handing itself to the engine as one operator
_grad = opened(torch.autograd.grad) or torch.autograd.grad


def running() -> list[Engine]:
    """Return the engines that run on this thread, the innermost first."""
    engines, engine = [], engine_here()
    while engine is not None:
        engines.append(engine)
        engine = engine._outer
    return engines


def _no_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.is_leaf and tensor.requires_grad else tensor


def _write_out(function: Function, args: Args, kwargs: Kwargs) -> Any:
    """Return what a function returns, written into the tensor that is given for it."""
    rest = dict(kwargs)
    out = rest.pop("out")
    if not isinstance(out, Tensor):
        raise ModelStateError(
            f"{function.__name__} was called with out={type(out).__name__}; expected "
            "one tensor. Take what the operator returns instead."
        )
    result = function(*args, **rest)
    if out.shape != result.shape:
        out.resize_(result.shape)
    return out.copy_(result)


def _overwrites_all(operator: Operator, args: Args) -> bool:
    """Whether a write in place leaves nothing of the first argument."""
    return operator.name == "copy" or (operator.name == "setitem" and _is_all(args[1]))


def _is_alias(operator: Operator, args: Args, output: Tensor) -> bool:
    """Whether what may reshape a tensor, or select of it, returned it as it was."""
    if args[0].shape != output.shape:
        return False
    return operator.name != "getitem" or _is_all(args[1])


def _is_all(index: Any) -> bool:
    """Whether an index selects everything."""
    return index is Ellipsis or (isinstance(index, slice) and index == slice(None))
