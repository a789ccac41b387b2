"""The engine: sees every torch call of a model and lets the rules rebuild its gradient.

:class:`Engine` is a :class:`torch.overrides.TorchFunctionMode`. Inside it a model runs
as it always does; each operator is looked up in a :class:`~.table.RuleTable`, and its
rule returns the same output with a modified gradient. Nothing of the model is patched:
the mode lives on this thread's stack, and modules that are treated as one operator, or
whose outputs are wanted, are met through torch's global module hooks, which are
registered while an engine needs them and ignore all other threads.

What carries relevance is what descends from the explained inputs, as the :mod:`~.tape`
remembers. Everything else that requires a gradient, parameters and what was computed
from them, is detached wherever it enters an operator, so that within a rule
``requires_grad`` means relevance.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn import Parameter
from torch.overrides import TorchFunctionMode

from .._nested import PLAIN_TYPES, map_tensors, tensors_in
from .._torch import (
    MOVING_FUNCTIONS,
    DisableTorchFunction,
    cached_parametrizations,
    count_of_modes,
    next_node_number,
    pop_mode,
    saved_tensor_hooks,
    set_grad_enabled,
    transform_level,
)
from ..errors import ModelStateError
from .call import Call
from .composites import Composite
from .gates import Scaled, activation_behind
from .installed import MODULES, engine_here, leave_mode, thread
from .operators import opened
from .plugins import plugins
from .registry import Layers
from .rules.base import Rule
from .rules.linear import PLAIN_FOR_ONE, PlainGradient
from .rules.reductions import FOLDED
from .table import Operator, table_for
from .tape import WRITE, Made, Tape, Unlisted, function_of, node_name, walk
from .tape import note as remember
from .unknown import UnknownOperators


class Engine(TorchFunctionMode):
    """Runs a forward function under the rules of a composite, once.

    Args:
        composite (Composite): the table of rules.
        root (Module or None): the model, for module names; None if the forward function
            is no module, then the outermost module that runs.
        unknown (str): ``"raise"``, ``"warn"`` or ``"gradient"``.
        identifiers (sequence of (Tensor, Tensor)): integer inputs and the float leaf of
            ones, one per identifier, that collects their relevance.
        taps (Taps, optional): places at which what passes is recorded, see
            :mod:`~captum_transformer_lrp.observers.taps`. Default: none
    """

    #: whether every operator must go through :meth:`apply`, even the plain ones
    measures: bool = False
    #: kinds of operators that go through :meth:`apply` without a relevant argument
    starts_at: frozenset[str] = frozenset()
    #: who watches, see :mod:`~captum_transformer_lrp.observers`
    observers: tuple[Any, ...] = ()

    def __init__(
        self,
        composite: Composite,
        *,
        root: nn.Module | None = None,
        unknown: str | None = None,
        identifiers: tuple[tuple[Tensor, Tensor], ...] = (),
        taps: Any = None,
    ) -> None:
        super().__init__()
        self.table = table_for(composite)
        self.composite = composite = self.table.composite
        self.unknown = UnknownOperators(unknown or composite.unknown, composite)
        self.tape = Tape()
        self._switches = composite.carries == "relevance"
        self.identifiers: Any = plugins.identifiers(identifiers, self)
        self._joins = self.table.joins
        self._follows = self.identifiers.active
        self.root = root
        for _, ones in identifiers:
            self.tape.start(ones, ones)
        self._nested = 0  # within operators that show those they are made of
        self._note: Any = None  # what the last rule left for the record
        self._outcome: Made | None = None  # of an operator in place, out of place
        #: keeps relevance and gradient apart on the way back, if both go there
        self.passes: Any = plugins.passes() if self._switches else None
        self.dropout_seen = False
        self.backward = False
        self.beginning: Beginning | None = None
        self._operators = self.table.operators
        self.taps = taps
        self._suspended = 0  # inside a module that keeps torch's own gradient
        self._scope: Rule | None = None  # takes the operators inside a module
        self._scopes: list[Rule | None] = []
        self._paused = False  # while another engine runs inside this one
        self._outer: Engine | None = None
        self._depth = 0  # of the stack of modes below this one
        self._gradients = True
        self._cached: frozenset[Any] = frozenset()
        self._names: dict[int, str] = {}
        self._module_rules: dict[int, Rule] = {}
        self._read: list[dict[int, tuple[Tensor, str]]] = []  # by modules
        self._stack: list[tuple[Rule | None, bool]] = []
        self._indexed: set[nn.Module] = set()
        self.merged: list[Made] = []
        self._recomputes = False
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
        self._outer = engine_here()
        self._depth = count_of_modes()
        self._gradients = torch.is_grad_enabled()
        self._cached = frozenset(cached_parametrizations())
        thread.engine = self  # from here on, leave() takes everything back
        try:
            if self._outer is not None:
                self._outer._paused = True
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
        if self not in _running():
            return
        while (inner := engine_here()) is not self:  # was interrupted
            inner.leave()
        while count_of_modes() > self._depth:
            pop_mode()
        if self.taps is not None:
            self.taps.unhook()
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
            self._outer._paused = False
        thread.engine = self._outer
        self._outer = None

    # ------------------------------------------------------------------ operators

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        operator = self._operators.get(func)
        if operator is None:
            operator = self.table.operator(func)
        if operator.inert and not (self._follows and operator.follows):
            return func(*args, **kwargs) if kwargs else func(*args)
        tape = self.tape
        if self._follows and operator.follows and not self._paused:
            handled, output = self.identifiers.meet(operator, func, args, kwargs or {})
            if handled:
                output = self.started(operator, args, output)
                for tensor in tensors_in(output):
                    self._record(operator, tape.started(tensor), tensor)
                return output
            if output is not None:  # what to run in its place
                return self.reenter(output)
        if operator.metadata or self._paused or not _is_grad_enabled():
            if operator.differentiates:
                self._refuse_differentiation(operator, args)
            if self._read and not operator.metadata:
                self._note_read(operator, args, kwargs or {})
            if operator.compares and not self._paused:
                return self._constant_of(operator, func, args, kwargs or {})
            return func(*args, **kwargs) if kwargs else func(*args)
        if self._suspended:  # torch's own gradient, without that of parameters
            if self._read:
                self._note_read(operator, args, kwargs or {})
            args, kwargs = map_tensors(_no_leaf, args), map_tensors(_no_leaf, kwargs)
            return func(*args, **kwargs) if kwargs else func(*args)
        if self.taps is not None and operator.multiplies:
            args = self.taps.meet(args)
        # the loop below runs for every operator of the model: collect the records of
        # what carries relevance, and replace what is foreign by constants
        parents: list[Made] = []
        constants: list[Any] | None = None
        carrier: Any = None
        cuts, remade = tape.cuts, False  # constants that a rule made of such tensors
        given = args if not kwargs else (*args, *kwargs.values())
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
                found = getattr(value, "_made", None)
                if (
                    found is not None
                    and (made := found[0]).tape is tape
                    and found[1] == value._version
                ):
                    parents.append(made)
                    carrier = value
                    continue
                made = None if value.is_leaf else tape.meet(value, self.module_path)
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
                self._in_transform()
                return func(*args, **kwargs) if kwargs else func(*args)
            if operator.in_place and args:  # the target stays the model's own
                constants[0] = args[0]
            if kwargs:
                kwargs = dict(zip(kwargs, constants[len(args) :], strict=True))
            args = tuple(constants[: len(args)])
        if operator.in_place and not args and kwargs:
            args, kwargs = _target_first(kwargs)
        if operator.multiplies and not self._recomputes:
            self._recomputes = saved_tensor_hooks(True) is not None
        if self._switches and (
            operator.in_place or operator.asked_in_place(args, kwargs or {})
        ):
            self.passes.before_writing(args[0] if args else (kwargs or {})["input"])
        if not parents and operator.kind not in self.starts_at:
            if operator.kind in _COMPUTES:
                self._in_transform()  # noted, for a message
            if remade and operator.elementwise:
                return self._constant_of(operator, func, args, kwargs or {})
            return func(*args, **kwargs) if kwargs else func(*args)
        if not self._nested:
            number = next_node_number()
            if number != tape.seen_to:
                tape.gaps.append((tape.seen_to, number))
        if operator.elementwise and len(parents) == 1 and parents[0].source is None:
            parents[0].source = weakref.ref(carrier), carrier.shape  # see joins
        if kwargs and kwargs.get("out") is not None:
            return self.reenter(_write_out, func, args, kwargs)
        note = found = None
        if operator.imitates:
            parents = parents[:1]
        relevant = len(parents)
        if operator.joins and (relevant > 1 or operator.bends or remade):
            found = self._joins.joint(tape, operator, args, kwargs or {}, parents)
            if found is not None and not operator.recomputes:
                operator, args, kwargs = found.operator, found.args, found.kwargs
                relevant, parents, note = found.relevant, found.parents, found.note
                func = operator.function
        if found is not None and operator.recomputes:
            output = self.in_place(operator, args, kwargs or {}, relevant)
        elif (
            (operator.plain or (operator.plain_for_one and relevant == 1))
            and not self.measures
            and self._scope is None
        ):
            output = func(*args, **kwargs) if kwargs else func(*args)
        else:
            output = self.apply(operator, args, kwargs or {}, relevant)
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
        elif not args or output is not args[0] or operator.asked_in_place(args, kwargs):
            if output.requires_grad:
                if operator.reshapes and args and _is_alias(operator, args, output):
                    made = parents[0]
                    if made.source is None:  # the alias may be gone sooner
                        made.source = weakref.ref(args[0]), output.shape
                else:
                    made = Made(operator, parents, tape, note)
                output._made = made, output._version  # type: ignore[attr-defined]
            elif operator.cuts and len(parents) == 1:
                remember(output, self._joins.cut(tape, operator, parents))
        tape.seen_to = next_node_number()
        return output

    def _record(
        self,
        operator: Any,
        parents: Sequence[Made],
        output: Any,
        args: tuple[Any, ...] = (),
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

    def _constant_of(
        self,
        operator: Operator,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Compute a constant, and note of which tensor it is a function."""
        made = self._joins.constant(self.tape, operator, args, kwargs)
        output = func(*args, **kwargs)
        if made is not None and output.__class__ is Tensor:
            if not args or output is not args[0] or operator.in_place:
                remember(output, made)
        return output

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

    def _in_transform(self) -> bool:
        """Whether a transform of torch.func runs, inside which no rule can work."""
        level = transform_level()
        if level is not None:
            self.unknown.transforms.setdefault(level.key().name)
        return level is not None

    def _refuse_differentiation(self, operator: Operator, args: Any) -> None:
        """Raise where the model differentiates itself.

        Raises:
            ModelStateError: its gradients would be those of the rules.
        """
        if self._paused or self.backward:
            return
        if not self.composite.rows and all(map(self.tape.of, tensors_in(args[:1]))):
            return  # torch's own gradients
        raise ModelStateError(
            f"torch.autograd.{operator.name} was called inside the forward pass, in "
            f"{self.module_path() or '(no module)'}: its result would be computed from "
            "the gradients of the rules instead of the model's own. Explain the part "
            "of the model that is differentiated (an energy instead of its forces), or "
            "use an attribution method that only calls the model, such as Occlusion."
        )

    def _note_read(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Note which relevant tensors are read in a module that is one operator."""
        for tensor in tensors_in((args, kwargs)):
            if tensor.requires_grad and not tensor.is_leaf:
                if self.tape.of(tensor) is not None:
                    self._read[-1].setdefault(id(tensor), (tensor, operator.name))

    def _check_read(
        self,
        module: nn.Module,
        read: dict[int, Any],
        args: Any,
        kwargs: Any,
        changed: Any = None,
    ) -> None:
        """Raise if a module that is one operator read what it was not given.

        Args:
            module (Module): the module.
            read (dict): the relevant tensors that operators inside it read.
            args (Any): what it was given.
            kwargs (Any): likewise.
            changed (Any, optional): what its rule made of its output; what that leads
                gradients to is accounted for. Default: None

        Raises:
            ModelStateError: the share of that tensor would go to the arguments.
        """
        given = {id(t) for t in tensors_in((args, kwargs))}
        left = [(t, name) for t, name in read.values() if id(t) not in given]
        if left and changed is not None:
            nodes = [t.grad_fn for t in tensors_in(changed) if t.requires_grad]
            if not nodes:
                return  # a constant, by its rule
            if not self._switches:  # past switches only arguments receive relevance
                stops = {t.grad_fn for t in tensors_in((args, kwargs))}
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
                f"the module {self.name_of(module)!r} is treated as one operator, "
                f"and inside it {operator} reads a tensor of shape "
                f"{tuple(tensor.shape)} that carries relevance and was not given "
                "to the module as an argument. Remove the module's rule, so that "
                "the operators inside it are seen, or pass the tensor as an "
                "argument."
            )

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

    def apply(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Apply the rule of an operator, ``relevant`` of whose arguments are ours."""
        function = operator.function
        if transform_level() is not None:
            self._in_transform()
            return function(*args, **kwargs)
        if operator.special is not None:
            other = self.special(operator, args, kwargs)
            if other is not NotImplemented:
                return other
        if operator.stateful is not None:
            operator.stateful(
                self, Call(operator.name, operator.kind, function, args, kwargs)
            )
        rule = self.rule_for(operator)
        if rule is None:
            return self._without_rule(operator, args, kwargs)
        alone = relevant == 1 and operator.name not in FOLDED
        if type(rule) is PlainGradient or (alone and type(rule) in PLAIN_FOR_ONE):
            return function(*args, **kwargs)
        if operator.in_place:
            return self.in_place(operator, args, kwargs, relevant)
        if operator.inplace_position and operator.asked_in_place(args, kwargs):
            assert operator.twin is not None
            return self.reenter(operator.twin, *args, **kwargs)
        if not self._recomputes:
            self._recomputes = saved_tensor_hooks(True) is not None
        call = Call(
            operator.name,
            operator.kind,
            function,
            args,
            kwargs,
            engine=self,
        )
        output = call.given_to(rule)
        if output is NotImplemented:  # for this call it is no rule
            return self._without_rule(operator, args, kwargs)
        self._note = call.note
        if self.merged:  # taps are read behind what their tensors are merged with
            path, self.merged = self.merged, []
            return output if self.taps is None else self.taps.behind(path, output)
        return output

    def special(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
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

    @property
    def sees(self) -> bool:
        """Whether operators meet their rules now."""
        closed = self._paused or self._suspended or self.backward
        return not closed and torch.is_grad_enabled()

    def takes(self, function: Callable[..., Any]) -> bool:
        """Whether python code is one operator here, with a rule of its own."""
        if self._paused or self._suspended or not torch.is_grad_enabled():
            return False
        operator = self.table.operator(function)
        return operator.rule is not None and not operator.plain

    def reenter(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run python code so that the operators in it are seen one by one."""
        with _Again(self):
            return function(*args, **kwargs)

    def in_place(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Compute out of place under the rule, then write the result back."""
        target = args[0]
        function = operator.out_of_place
        if function is None or not isinstance(target, Tensor):
            return self._without_rule(operator, args, kwargs)
        copied = self.tape.same(self.without_foreign(target).clone(), target)
        outcome = self.reenter(function, copied, *args[1:], **kwargs)
        self._outcome = self.tape.of(outcome)
        return self.write_back(target, outcome)

    def write_back(self, target: Tensor, outcome: Tensor) -> Tensor:
        """Write what an operator in place gave into its first argument."""
        if not outcome.requires_grad and not target._is_view():
            target.detach_()  # a constant, all over
        return target.copy_(outcome)

    def _without_rule(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run an operator that no rule takes, and note it for a message."""
        if operator.twin is not None:
            return self.reenter(operator.twin, *args, **kwargs)
        output = operator.function(*args, **kwargs)
        nodes = [t.grad_fn for t in tensors_in(output) if t.requires_grad]
        if nodes:
            self.unknown.met(operator.name, self.module_path(), args, kwargs, nodes)
        return output

    # -------------------------------------------------------------------- modules

    def module_path(self) -> str:
        """Return the name of the module whose code is running, by looking up the stack.

        Modules are found as ``self`` of the frames that called torch, so that no hook
        is needed for a message or a trace.
        """
        frame = sys._getframe(1)
        found: list[nn.Module] = []
        current: Any = frame
        while current is not None:
            code = current.f_code
            if code.co_argcount and code.co_varnames[0] == "self":
                owner = current.f_locals.get("self")
                if isinstance(owner, nn.Module) and (
                    not found or found[-1] is not owner
                ):
                    found.append(owner)
            current = current.f_back
        if not found:
            return ""
        if id(found[0]) not in self._names:
            root = found[-1] if self.root is None else self.root
            self._names.update(names_of(root))
        name = self._names.get(id(found[0]), "")
        return name or type(found[0]).__name__

    def name_of(self, module: nn.Module) -> str:
        """Return the name of a module, or of its class."""
        names = {} if self.root is None else names_of(self.root)
        return names.get(id(module)) or type(module).__name__

    def _index(self, root: nn.Module) -> None:
        """Find the modules that are treated as one operator, or cannot be explained."""
        places = {}
        if self.table.patterns:
            self._names.update(names_of(root))
            places = {
                key: key.within(root)
                for key, _ in self.table.patterns
                if isinstance(key, Layers)
            }
        pending, seen = [root], {root}
        ordinary = self.table.ordinary
        while pending:
            module = pending.pop()
            if type(module) not in ordinary:
                self._index_one(module, root, places)
            for child in module._modules.values():
                if child is not None and child not in seen:
                    seen.add(child)
                    pending.append(child)

    def _index_one(self, module: nn.Module, root: nn.Module, places: Any) -> None:
        name = self._names.get(id(module), "")
        rule = self.table.for_module(module, name, places)
        asked = plugins.refuse_module(module, root, rule)
        if rule is not None:
            self._module_rules[id(module)] = rule
        elif not asked and not self.table.asks_each(type(module)):
            self.table.ordinary.add(type(module))

    def _hook_modules(self) -> None:
        if self.taps is not None:
            self.taps.hook(self)
        if self._module_rules or self.taps is not None or self.root is None:
            MODULES.acquire(self)

    def enter_module(self, module: nn.Module, args: tuple[Any, ...]) -> Any:
        """Before a module runs: freeze its operators if it is treated as one."""
        if self.root is None and not self._stack and module not in self._indexed:
            self._indexed.add(module)
            self._index(module)
        rule = self._module_rules.get(id(module))
        if rule is None or self._suspended or not torch.is_grad_enabled():
            self._stack.append((None, True))
            return None
        self._stack.append((rule, torch.is_grad_enabled()))
        if rule.kinds:
            self._scopes.append(self._scope)
            self._scope = rule
            return None
        self._read.append({})
        if rule.inside == "gradient":
            self._suspended += 1
            if self._switches:  # see Converted
                return map_tensors(self._alias, args)
        else:
            set_grad_enabled(False)
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
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """After a module ran: rebuild its output, and record it if it is wanted."""
        if not self._stack:
            return None
        rule, _ = self._stack.pop()
        changed = output
        if rule is not None:
            if rule.kinds:
                self._scope = self._scopes.pop()
            else:
                read = self._read.pop()
                frozen = rule.inside == "constant"
                if frozen:
                    set_grad_enabled(True)
                else:
                    self._suspended -= 1
            if output is None:  # the module raised
                return None
            if not rule.kinds:
                if frozen:
                    self._check_read(module, read, args, kwargs)
                changed = self._apply_to_module(rule, module, args, kwargs, output)
                if read and not frozen:
                    self._check_read(module, read, args, kwargs, changed)
        if self.taps is not None and output is not None:
            changed = self.taps.after(module, args, kwargs, changed)
        return None if changed is output else changed

    def apply_to_module(
        self, rule: Rule, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        """Let a rule rebuild what a module returned."""
        frozen = rule.inside == "constant"
        rule = self.table.in_form(rule, None, None)
        call = Call(
            type(module).__name__,
            None,
            module.forward,
            args,
            kwargs,
            module=module,
            output=output,
            engine=self,
            frozen=frozen,
        )
        with DisableTorchFunction():
            changed = call.given_to(rule)
        self._note = call.note
        return changed

    def _apply_to_module(
        self, rule: Rule, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        """Let a rule rebuild what a module returned, if it was given relevance."""
        args = map_tensors(self.without_foreign, args)
        kwargs = map_tensors(self.without_foreign, kwargs)
        parents: list[Made] = []
        self._scan([*tensors_in((args, kwargs))], parents)
        if not parents:
            return output
        changed = self.apply_to_module(rule, module, args, kwargs, output)
        note, self._note = self._note, None
        self._record(Unlisted(type(module).__name__), parents, changed, note=note)
        return changed

    # ------------------------------------------------------------------ afterwards

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

        Args:
            scores (Tensor, GradientEdge or sequence of Tensor): one for each example,
                or where else to start.
            tensors (sequence of Tensor or GradientEdge): in the graph.
            relevance (bool, optional): what goes back past the switches: relevance, or
                torch's gradient. Default: what the composite carries
            keep_graph (bool, optional): go back through it again. Default: False
            seeds (Tensor or sequence of Tensor, optional): what starts at the scores,
                of their shape. Default: ones
            batched (bool, optional): the seeds are several, stacked in a dimension in
                front, which go back together; so are the gradients. Default: False

        Called inside the engine, and seen by it where the model hooks into what
        autograd saves: a checkpointed model computes parts of itself again on the way
        back, which must meet the same rules.
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
                    seeds = [self.seed(s, relevance) for s in _listed(scores)]
                if not self._recomputes:
                    return torch.autograd.grad(scores, tensors, seeds, **options)
            return _grad(scores, tensors, seeds, **options)
        finally:
            self.backward = False

    def seed(self, scores: Tensor, relevance: bool | None = None) -> Tensor:
        """Return what starts at scores: 1, or the scores where relevance goes back."""
        goes_back = self._switches if relevance is None else relevance
        start = self.beginning
        if self.composite.converts and goes_back:
            return scores.detach() if start is None else scores.detach() - start.at_zero
        if start is None or self._switches or scores.shape != start.shape:
            return torch.ones_like(scores)
        values = scores.detach()
        return torch.where(values == 0, 1.0, (values - start.at_zero) / values)

    def begins_at(self, output: Tensor, scores: Tensor) -> None:
        """Say what is explained: scores that were selected from an output.

        If the output is that of an activation that is not 0 at 0 (sigmoid, softplus),
        its value there is a constant of the score, and absorbs its share: ``R = f(z) -
        f(0)`` starts at the activation, so that the relevance of a probability has the
        signs of that of its logit. Within the network, where no score starts, the
        identity rule stays as it is.
        """
        found = activation_behind(self.tape.of(output))
        value = 0.0 if found is None else found.at_zero
        if value and math.isfinite(value):
            self.beginning = Beginning(value, scores.shape)

    def suspend(self) -> None:
        """Take torch's own gradient from here on: what follows is of no interest.

        Not within a checkpoint, which is computed again and must meet the same rules.
        """
        if not self._recomputes and saved_tensor_hooks(True) is None:
            self._suspended += 1

    @property
    def goes_back_once_more(self) -> bool:
        """Whether parts of the model are computed again on the way back."""
        return self._recomputes

    def check(self, output: Tensor) -> None:
        """Raise or warn if some operator on the way to ``output`` had no rule.

        Raises:
            UnknownOperatorError: with all of them, if ``unknown="raise"``.
            ModelStateError: if part of the model is checkpointed by re-entering
                autograd, which cannot be explained.
        """
        unseen = self.tape.unseen(output, self._may_be_unseen)
        if self.unknown.choice != "gradient":
            nodes = self.tape.nodes_on_the_way(output, self.unknown.nodes)
            self.unknown.report(unseen, nodes)

    def arrived(self, output: Any) -> Any:
        """Return what the model returned, noted where no operator seen had made it."""
        if not self._suspended:
            self.tape.close()
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    self.made(tensor)
        return output

    def _may_be_unseen(self, node: Any) -> bool:
        """Whether a node that no operator made needs no rule."""
        name = function_of(node)
        if name is None:  # torch makes views anew whose base was written into
            return node_name(node) == "AsStridedBackward"
        plugins.refuse_function(name)
        row = self.table.modules.get(name)
        return name.startswith(MOVING_FUNCTIONS) or isinstance(row, PlainGradient)


_is_grad_enabled = torch.is_grad_enabled
#: kinds of operators that compute something new
_COMPUTES = frozenset({"product", "activation", "normalization", "softmax"})
#: operators that return each of their arguments
_ONE_BY_ONE = frozenset(
    "broadcast_tensors meshgrid atleast_1d atleast_2d atleast_3d".split()
)


def names_of(root: nn.Module) -> dict[int, str]:
    """Return the names of modules within a model, by their ids."""
    return {id(module): name for name, module in root.named_modules()}


def _listed(scores: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [scores] if isinstance(scores, Tensor) else scores


#: torch.autograd.grad, without handing itself to the engine as one operator
_grad = opened(torch.autograd.grad) or torch.autograd.grad


def _write_out(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
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


def _no_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.is_leaf and tensor.requires_grad else tensor


@dataclass(frozen=True)
class Beginning:
    """The activation that made the scores.

    Attributes:
        at_zero (float): its value at 0, which no input contributes to.
        shape (torch.Size): of the scores.
    """

    at_zero: float
    shape: torch.Size

    @property
    def absorbed(self) -> float:
        """What is due to it, summed over the batch."""
        return self.at_zero * self.shape.numel()


def _overwrites_all(operator: Operator, args: tuple[Any, ...]) -> bool:
    """Whether a write in place leaves nothing of the first argument."""
    return operator.name == "copy" or (operator.name == "setitem" and _is_all(args[1]))


def _is_alias(operator: Operator, args: tuple[Any, ...], output: Tensor) -> bool:
    """Whether what may reshape a tensor, or select of it, returned it as it was."""
    if args[0].shape != output.shape:
        return False
    return operator.name != "getitem" or _is_all(args[1])


def _is_all(index: Any) -> bool:
    """Whether an index selects everything."""
    return index is Ellipsis or (isinstance(index, slice) and index == slice(None))


def _target_first(kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of an operator in place, its target by position."""
    rest = dict(kwargs)
    return tuple(rest.pop(name) for name in ("input", "self") if name in rest), rest


class _Again:
    """Puts the engine back on the mode stack, from inside its own handler."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __enter__(self) -> None:
        self.engine._nested += 1
        TorchFunctionMode.__enter__(self.engine)

    def __exit__(self, *exception: Any) -> None:
        leave_mode(self.engine)
        self.engine._nested -= 1


def _running() -> list[Engine]:
    """Return the engines that run on this thread, the innermost first."""
    engines, engine = [], engine_here()
    while engine is not None:
        engines.append(engine)
        engine = engine._outer
    return engines


__all__ = ["Engine", "names_of"]
