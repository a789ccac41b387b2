"""The engine: sees every torch call of a model and lets the rules rebuild its gradient.

:class:`Engine` is a :class:`torch.overrides.TorchFunctionMode`. Inside it a model runs
as it always does; each operator is looked up in a :class:`~.table.Table` and its rule
returns the same output with a modified gradient. Nothing of the model is patched: the
mode lives on this thread's stack, and modules that are treated as one operator, or
whose outputs are wanted, are met through torch's global module hooks, which are
registered while an engine needs them and ignore all other threads.

What carries relevance is what requires a gradient: parameters and other foreign leaves
are detached wherever they enter an operator.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.autograd.graph import GradientEdge
from torch.overrides import TorchFunctionMode

from ..errors import ModelStateError
from .call import Call, map_tensors, tensors_in
from .composites import Composite
from .flex_attention import IN_PLACE
from .functions import Opened, acquire, release, wanted
from .identifiers import Identifiers
from .operators import transparent
from .passes import Passes
from .registry import Layers
from .rules import PlainGradient, Rule
from .table import Operator, table_for
from .taps import OutputTap, ParameterTap, Tap
from .unknown import UnknownOperators, foreign_functions, nodes_between

_thread = threading.local()


class Engine(TorchFunctionMode):
    """Runs a forward function under the rules of a composite, once.

    Args:
        composite (Composite): the table of rules.
        root (Module or None): the model, for module names; None if the forward function
            is no module, then the outermost module that runs.
        unknown (str): ``"raise"``, ``"warn"`` or ``"gradient"``.
        identifiers (sequence of (Tensor, Tensor)): integer inputs and the float leaf of
            ones, one per identifier, that collects their relevance.
        taps (sequence of Tap): places at which what passes is recorded.
        until (tuple of Tap and int, optional): what runs after that call of that tap is
            of no interest, and needs no rule. Default: None
    """

    #: whether every operator must go through :meth:`apply`, even the plain ones
    measures: ClassVar[bool] = False
    #: kinds of operators that go through :meth:`apply` without a relevant argument
    starts_at: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        composite: Composite,
        *,
        root: nn.Module | None = None,
        unknown: str | None = None,
        identifiers: tuple[tuple[Tensor, Tensor], ...] = (),
        taps: tuple[Tap, ...] = (),
        until: tuple[Tap, int] | None = None,
    ) -> None:
        super().__init__()
        self.table = table_for(composite)
        self.composite = composite = self.table.composite
        self.unknown = UnknownOperators(unknown or composite.unknown, composite)
        self.identifiers = Identifiers(
            identifiers, additive=composite.carries == "relevance"
        )
        self._follows = self.identifiers.active
        self.root = root
        self.passes = Passes()
        self.dropout_seen = False
        self.backward = False
        self._operators = self.table.operators
        self._switches = composite.carries == "relevance"
        self._taps = taps
        self._until = until
        self._readings = 0
        self._outputs: dict[int, list[OutputTap]] = {}
        self._parameters: dict[int, ParameterTap] = {}
        for tap in taps:
            if isinstance(tap, OutputTap):
                self._outputs.setdefault(id(tap.module), []).append(tap)
            if isinstance(tap, ParameterTap):
                self._parameters[tap.parameter.data_ptr()] = tap
        self._suspended = 0  # inside a module that keeps torch's own gradient
        self._scope: Rule | None = None  # takes the operators inside a module
        self._scopes: list[Rule | None] = []
        self._paused = 0  # while another engine runs inside this one
        self._outer: Engine | None = None
        self._names: dict[int, str] = {}
        self._module_rules: dict[int, Rule] = {}
        self._known_nodes: set[Any] = set()  # of modules that keep torch's gradient
        self._stack: list[tuple[Rule | None, bool]] = []
        self._handles: list[Any] = []
        self._hooked = False
        self._opens = False
        self._flexible = False
        self._indexed: set[nn.Module] = set()
        self.compiled = False
        self.merges = root is None  # what comes is not known
        self.merged_nodes: list[Any] = []
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
        self._outer = getattr(_thread, "engine", None)
        if self._outer is not None:
            self._outer._paused += 1
        _thread.engine = self
        try:
            self._hook_modules()
            if wanted(self.table.modules):
                acquire(_ask_to_open)
                self._opens = True
            IN_PLACE.acquire(_writes_out)
            self._flexible = True
            super().__enter__()  # type: ignore[no-untyped-call]
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *exception: Any) -> None:
        """Stop, and take back whatever was registered."""
        try:
            super().__exit__(*exception)  # type: ignore[no-untyped-call]
        finally:
            self._leave()

    def _leave(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if self._hooked:
            _release_global_hooks()
            self._hooked = False
        if self._opens:
            release()
            self._opens = False
        if self._flexible:
            IN_PLACE.release()
            self._flexible = False
        _thread.engine = self._outer
        if self._outer is not None:
            self._outer._paused -= 1
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
        if operator.metadata or self._paused or not _is_grad_enabled():
            return func(*args, **kwargs) if kwargs else func(*args)
        if self._parameters and operator.kind == "product":
            args = self._meet_parameters(args)
        if self._follows:
            handled, output = self.identifiers.meet(operator, func, args, kwargs or {})
            if handled:
                return self.started(operator, args, output)
        # the loop below runs for every operator of the model: count what carries
        # relevance, and see whether a parameter or another foreign leaf came along
        relevant, foreign = 0, False
        for value in args if not kwargs else (*args, *kwargs.values()):
            if isinstance(value, Tensor):
                if value.requires_grad:
                    if value.is_leaf:
                        foreign = True
                    else:
                        relevant += 1
            elif isinstance(value, (list, tuple)):
                count, found = _scan(value)
                relevant += count
                foreign |= found
        if foreign:
            args = tuple([_without_foreign_leaf(a) for a in args])
            if kwargs:
                kwargs = {k: _without_foreign_leaf(v) for k, v in kwargs.items()}
        if operator.multiplies and not self._recomputes:
            self._recomputes = _saved_tensor_hooks(True) is not None
        if self._switches and (
            operator.in_place or operator.asked_in_place(args, kwargs or {})
        ):
            self.passes.before_writing(args[0])
        if (
            (relevant == 0 and operator.kind not in self.starts_at)
            or self._suspended
            or (
                (operator.plain or (relevant == 1 and operator.plain_for_one))
                and not self.measures
                and self._scope is None
            )
        ):
            return func(*args, **kwargs) if kwargs else func(*args)
        return self.apply(operator, args, kwargs or {}, relevant)

    def apply(
        self,
        operator: Operator,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        relevant: int,
    ) -> Any:
        """Apply the rule of an operator, ``relevant`` of whose arguments are ours."""
        function = operator.function
        if operator.stateful:
            self._check_state(operator, args, kwargs)
        rule = self.rule_for(operator)
        if rule is None:
            return self._without_rule(operator, args, kwargs)
        if isinstance(rule, PlainGradient) or (relevant == 1 and rule.plain_for_one):
            return function(*args, **kwargs)
        if operator.in_place:
            return self._in_place(operator, args, kwargs, relevant)
        if operator.inplace_position and operator.asked_in_place(args, kwargs):
            assert operator.twin is not None
            return self.reenter(operator.twin, *args, **kwargs)
        call = Call(
            operator.name,
            operator.kind,
            function,
            args,
            kwargs,
            engine=self,
        )
        output = rule(call)
        return self._read_merged(output) if self.merged_nodes else output

    def rule_for(self, operator: Operator) -> Rule | None:
        """Return the rule of an operator here: the module's around it, or its own."""
        scope = self._scope
        if scope is None or operator.kind not in scope.kinds:
            return operator.rule
        return self.table.in_form(scope, operator.kind, operator.name)

    def started(self, operator: Operator, args: Any, output: Any) -> Any:
        """Relevance starts here: an embedding of explained identifiers was read."""
        return output

    def open(self, function: Any, args: Any, kwargs: Any) -> Any:
        """Run the forward of an autograd function in the open, if its row says so."""
        row = self.table.modules.get(f"{function.__module__}.{function.__qualname__}")
        closed = self._paused or self._suspended or self.backward
        if closed or not isinstance(row, Opened) or not torch.is_grad_enabled():
            return NotImplemented
        return row.run(function, args, kwargs)

    def reenter(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run python code so that the operators in it are seen one by one."""
        with _Again(self):
            return function(*args, **kwargs)

    def _in_place(
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
        outcome = self.apply(
            self.table.operator(function),
            (target.clone(), *args[1:]),
            kwargs,
            relevant,
        )
        return target.copy_(outcome)

    def _without_rule(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if operator.twin is not None:
            return self.reenter(operator.twin, *args, **kwargs)
        output = operator.function(*args, **kwargs)
        if any(t.requires_grad for t in tensors_in(output)):
            self.unknown.met(operator.name, self.module_path(), args, kwargs)
        return output

    def _check_state(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Notice randomness, refuse what would change the model."""
        call = Call(operator.name, operator.kind, operator.function, args, kwargs)
        if operator.name == "batch_norm":
            training = call.argument(5, "training", False)
            if training and call.argument(1, "running_mean") is not None:
                raise ModelStateError(batch_norm_message(self.module_path()))
        elif operator.name == "scaled_dot_product_attention":
            self.dropout_seen |= call.argument(4, "dropout_p", 0.0) > 0
        elif call.argument(2, "training", True) and call.argument(1, "p", 0.5) > 0:
            self.dropout_seen = True

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
            self._names.update(_names_of(root))
        name = self._names.get(id(found[0]), "")
        return name or type(found[0]).__name__

    def name_of(self, module: nn.Module) -> str:
        """Return the name of a module, or of its class."""
        names = {} if self.root is None else _names_of(self.root)
        return names.get(id(module)) or type(module).__name__

    def _index(self, root: nn.Module) -> None:
        """Find the modules that are treated as one operator, or cannot be explained."""
        places = {}
        if self.table.patterns:
            self._names.update(_names_of(root))
            places = {
                key: key.within(root)
                for key, _ in self.table.patterns
                if isinstance(key, Layers)
            }
        pending, seen = [root], {root}
        while pending:
            module = pending.pop()
            name = self._names.get(id(module), "")
            rule = self.table.for_module(module, name, places)
            if rule is not None:
                self._module_rules[id(module)] = rule
            elif type(module).__module__.startswith(_QUANTIZED):
                refuse_quantized(module, root)
            if isinstance(module, _SPECIAL):
                self.merges |= isinstance(module, nn.modules.batchnorm._BatchNorm)
                self._check_module(module, root)
            if getattr(module, "_compiled_call_impl", None) is not None:
                self.compiled = True
            for child in module._modules.values():
                if child is not None and child not in seen:
                    seen.add(child)
                    pending.append(child)

    def _check_module(self, module: nn.Module, root: nn.Module) -> None:
        name = _names_of(root).get(id(module)) or type(module).__name__
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelStateError(
                f"the module {name!r} is a TorchScript module, whose operators cannot "
                "be seen. Explain the python model that was scripted or traced."
            )
        if isinstance(module, OptimizedModule):
            self.compiled = True
        elif isinstance(module, nn.DataParallel):
            refuse_replicas(module)
        elif module.training and module.running_mean is not None:
            raise ModelStateError(batch_norm_message(name))

    def _hook_modules(self) -> None:
        for tap in self._taps:
            if tap.sees_inputs:
                self._handles.append(
                    tap.module.register_forward_pre_hook(
                        functools.partial(self._before, tap), with_kwargs=True
                    )
                )
        if self._module_rules or self._outputs or self.root is None:
            _acquire_global_hooks()
            self._hooked = True

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
        if rule.inside == "operators":
            self._scopes.append(self._scope)
            self._scope = rule
            return None
        if rule.inside == "gradient":
            self._suspended += 1
            if self.composite.converts:  # see Converted
                return map_tensors(_alias, args)
        else:
            torch._C._set_grad_enabled(False)
        if getattr(module, "inplace", False):  # it may overwrite what the rule needs
            return map_tensors(Tensor.clone, args)
        return None

    def leave_module(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """After a module ran: rebuild its output, and record it if it is wanted."""
        if not self._stack:
            return None
        rule, _ = self._stack.pop()
        changed = output
        if rule is not None:
            if rule.inside == "operators":
                self._scope = self._scopes.pop()
            elif rule.inside == "gradient":
                self._suspended -= 1
            else:
                torch._C._set_grad_enabled(True)
            if output is None:  # the module raised
                return None
            if rule.inside != "operators" and any(
                t.requires_grad for t in tensors_in((args, kwargs))
            ):
                changed = self.apply_to_module(rule, module, args, kwargs, output)
        for tap in self._outputs.get(id(module), ()):
            if output is not None:
                changed = tap.after(self, args, kwargs, changed)
                self._stop_after(tap)
        return None if changed is output else changed

    def apply_to_module(
        self, rule: Rule, module: nn.Module, args: Any, kwargs: Any, output: Any
    ) -> Any:
        """Let a rule rebuild what a module returned."""
        if rule.inside == "gradient":
            relevant = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
            self._known_nodes |= nodes_between(tensors_in(output), relevant)
        rule = self.table.in_form(rule, None, None)
        with torch._C.DisableTorchFunction():
            return rule(
                Call(
                    type(module).__name__,
                    None,
                    module.forward,
                    args,
                    kwargs,
                    module=module,
                    output=output,
                    engine=self,
                )
            )

    def _before(
        self, tap: Tap, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        if getattr(_thread, "engine", None) is not self:  # another thread runs it
            return None
        changed = tap.before(self, args, kwargs)
        self._stop_after(tap)
        return changed

    def _meet_parameters(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let a tap see the product in which its parameter is a factor.

        The parameter is known by its memory: a function written in python receives it
        detached.
        """
        for value in args[1:]:
            if isinstance(value, Tensor):
                tap = self._parameters.get(value.data_ptr())
                if tap is not None and value.shape == tap.parameter.shape:
                    args = tap.meet(self, args)
                    self._stop_after(tap)
        return args

    def _stop_after(self, tap: Tap) -> None:
        """Take torch's own gradient from here on, if what follows is of no interest.

        Not within a checkpoint, which is computed again and must meet the same rules.
        """
        if self._until is None or self._until[0] is not tap or self.backward:
            return
        if len(tap.readings) > self._until[1]:
            self._until = None
            if not self._recomputes and _saved_tensor_hooks(True) is None:
                self._suspended += 1

    def held_back(
        self,
        module: nn.Module,
        tensors: list[Tensor],
        received: list[Tensor],
        passed: list[Tensor],
    ) -> None:
        """Hear which gradients came to the tensors of a unit, and which passed it."""

    def next_order(self) -> int:
        """Number a reading of a tap."""
        self._readings += 1
        return self._readings

    def _read_merged(self, output: Tensor) -> Tensor:
        """Read the relevance of tensors at taps off behind what they are merged with.

        See :meth:`Call.merged_with`.
        """
        nodes, self.merged_nodes = self.merged_nodes, []
        if not any(tap.readings for tap in self._taps):
            return output
        read = output.clone()

        def swap(tensor: Tensor) -> Tensor:
            return read if tensor.grad_fn in nodes else tensor

        for tap in self._taps:
            tap.readings[:] = [
                replace(r, value=map_tensors(swap, r.value)) for r in tap.readings
            ]
        return read.clone()

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
        self.passes.relevance = self._switches if relevance is None else relevance
        options = {"allow_unused": True, "retain_graph": keep_graph}
        if batched:
            options["is_grads_batched"] = True
        try:
            with torch._C.DisableTorchFunction():
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
        if self.composite.converts and goes_back:
            return scores.detach()
        return torch.ones_like(scores)

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
        if self.composite.rows:
            for name in foreign_functions(output, self._known_nodes):
                if not isinstance(self.table.modules.get(name), PlainGradient):
                    self.unknown.met_function(name)
        self.unknown.report()


_is_grad_enabled = torch.is_grad_enabled
#: what a checkpoint without re-entry installs; asked wherever the model multiplies
_saved_tensor_hooks = torch._C._autograd._top_saved_tensors_default_hooks
_SPECIAL = (
    nn.modules.batchnorm._BatchNorm,
    nn.DataParallel,
    torch.jit.ScriptModule,
    OptimizedModule,
)


#: packages of modules that compute with quantised numbers, of which torch records
#: nothing to go back through
_QUANTIZED = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")


def refuse_quantized(module: nn.Module, root: nn.Module) -> None:
    """Raise ModelStateError for a quantised module without a rule.

    Left alone, what it returns would count as a constant.
    """
    if type(module).__name__.endswith("PackedParams"):  # holds weights, runs nothing
        return
    name = _names_of(root).get(id(module)) or "(the model itself)"
    cls = type(module)
    raise ModelStateError(
        f"the module {name!r} ({cls.__module__}.{cls.__qualname__}) computes with "
        "quantised numbers, through which torch records no gradient. Explain the model "
        "as it was before quantisation. Linear layers by quantize_dynamic(model, "
        "{torch.nn.Linear}) can be explained by every method but Gradient x Input."
    )


def _names_of(root: nn.Module) -> dict[int, str]:
    return {id(module): name for name, module in root.named_modules()}


def _listed(scores: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [scores] if isinstance(scores, Tensor) else scores


#: torch.autograd.grad, without handing itself to the engine as one operator
_grad = transparent(torch.autograd.grad) or torch.autograd.grad


def refuse_replicas(module: nn.DataParallel[Any]) -> None:
    """Raise ModelStateError for a model that would run on several devices.

    Its replicas run in threads of their own, which the engine does not see.
    """
    if len(module.device_ids) > 1:
        raise ModelStateError(
            f"the model is a DataParallel on {len(module.device_ids)} devices, whose "
            "replicas run where no rule can see them. Explain model.module on one "
            "device, a part of the batch at a time."
        )


def batch_norm_message(name: str) -> str:
    """Return the message for batch normalisation in training mode."""
    return (
        f"the batch normalisation {name!r} is in training mode: it would change its "
        "running statistics and mix the examples of the batch. Call model.eval() first."
    )


_PLAIN_TYPES = frozenset({int, float, bool, str, torch.dtype, torch.device})


def _without_foreign_leaf(value: Any) -> Any:
    if value is None or value.__class__ in _PLAIN_TYPES:
        return value
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad and value.is_leaf else value
    if isinstance(value, (list, tuple)) and value:
        return _without_foreign_leaves(value)
    return value


def _without_foreign_leaves(values: Any) -> Any:
    """Detach parameters and other leaves that are not ours; inputs are no leaves."""
    for value in values:
        if isinstance(value, Tensor):
            if value.requires_grad and value.is_leaf:
                break
        elif isinstance(value, (list, tuple)):
            break
    else:
        return values
    detached = [_without_foreign_leaf(value) for value in values]
    if hasattr(values, "_fields"):
        return type(values)(*detached)
    return type(values)(detached)


def _scan(values: Any) -> tuple[int, bool]:
    """Count the relevant tensors in a list, and say whether there is a foreign leaf."""
    relevant, foreign = 0, False
    for value in values:
        if isinstance(value, Tensor):
            if value.requires_grad:
                if value.is_leaf:
                    foreign = True
                else:
                    relevant += 1
        elif isinstance(value, (list, tuple)):
            count, found = _scan(value)
            relevant += count
            foreign |= found
    return relevant, foreign


def _alias(tensor: Tensor) -> Tensor:
    with torch._C.DisableTorchFunction():
        return tensor.view_as(tensor) if tensor.requires_grad else tensor


class _Again:
    """Puts the engine back on the mode stack, from inside its own handler."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __enter__(self) -> None:
        TorchFunctionMode.__enter__(self.engine)

    def __exit__(self, *exception: Any) -> None:
        TorchFunctionMode.__exit__(self.engine, *exception)


# ------------------------------------------------------------------ global module hooks

_lock = threading.Lock()
_users = 0
_global_handles: list[Any] = []
_hooks_with_kwargs: dict[int, bool] = getattr(
    nn.modules.module, "_global_forward_hooks_with_kwargs", {}
)


def _acquire_global_hooks() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _global_handles.extend(
                (
                    nn.modules.module.register_module_forward_pre_hook(_before_module),
                    nn.modules.module.register_module_forward_hook(
                        _after_module, with_kwargs=True, always_call=True
                    ),
                )
            )


def _release_global_hooks() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            while _global_handles:
                handle = _global_handles.pop()
                handle.remove()
                # torch forgets this entry when it removes a hook (seen in 2.8 to 2.15)
                _hooks_with_kwargs.pop(handle.id, None)


def _ask_to_open(function: Any, args: Any, kwargs: Any) -> Any:
    engine: Engine | None = getattr(_thread, "engine", None)
    return NotImplemented if engine is None else engine.open(function, args, kwargs)


def _writes_out() -> bool:
    """Whether flex attention is written out on this thread."""
    return getattr(_thread, "engine", None) is not None and torch.is_grad_enabled()


def _before_module(module: nn.Module, args: Any) -> Any:
    engine: Engine | None = getattr(_thread, "engine", None)
    return None if engine is None else engine.enter_module(module, args)


def _after_module(module: nn.Module, args: Any, *rest: Any) -> Any:
    # after an exception torch leaves the keyword arguments out, and output is None
    kwargs, output = rest if len(rest) == 2 else ({}, *rest)
    engine: Engine | None = getattr(_thread, "engine", None)
    if engine is None:
        return None
    return engine.leave_module(module, args, kwargs, output)


__all__ = ["Engine", "batch_norm_message", "refuse_quantized", "refuse_replicas"]
