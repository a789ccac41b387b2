"""Places of a model where relevance is read off, or from which it starts.

A tap belongs to one run. It puts a copy of what passes its module into the graph, with
one consumer, the copy that it hands on: the gradient at the recorded tensor is that of
this place alone, whatever else reads the original or writes into it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .._nested import map_tensors, tensors_in
from .._torch import DisableTorchFunction
from ..core.installed import engine_here
from ..core.tape import Made, Tape
from ..errors import UnitError


@dataclass(frozen=True, eq=False)
class Reading:
    """What passed a tap in one call.

    Attributes:
        order (int): readings of one run are numbered as they were made.
        value (Any): the tensors in the structure in which they came; those that carry
            relevance are in the graph.
        context (Any): what else the tap has to say about the call. Default: None
    """

    order: int
    value: Any
    context: Any = None

    def tensors(self) -> list[Tensor]:
        """Return the tensors that carry relevance."""
        return [t for t in tensors_in(self.value) if t.requires_grad]


class Reads(Protocol):
    """What a tap needs of the engine that runs the model."""

    backward: bool
    tape: Tape

    @property
    def taps(self) -> Any:
        """The taps of the run."""

    def without_foreign(self, value: Any) -> Any:
        """Return a value in which only what carries relevance requires a gradient."""


class Tap:
    """Reads what goes into a module.

    Args:
        module (Module): the place.

    Attributes:
        readings (list of Reading): one for each call of the module.
    """

    #: whether arguments, or else the output, of the module are seen
    sees_inputs = True

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.readings: list[Reading] = []

    def before(self, engine: Reads, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return the arguments with which the module runs."""
        return self.record(engine, (args, kwargs))

    def record(self, engine: Reads, value: Any, context: Any = None) -> Any:
        """Record copies of the tensors that carry relevance, and return copies.

        Where nothing carries relevance yet, it starts here.
        """
        if engine.backward:  # a checkpoint computes a part of the model again
            return value
        # a module that is treated as one operator runs without gradients
        tape = engine.tape
        with DisableTorchFunction(), torch.enable_grad():
            value = map_tensors(engine.without_foreign, value)
            started = any(t.requires_grad for t in tensors_in(value))

            def start(tensor: Tensor) -> Tensor:
                if tensor.requires_grad:
                    copy: Tensor = tape.same(tensor.clone(), tensor)
                    return copy
                if started or not tensor.is_floating_point():
                    return tensor
                return tensor.detach().requires_grad_()

            value = map_tensors(start, value)
            self.readings.append(Reading(engine.taps.next_order(), value, context))

            def hand_on(tensor: Tensor) -> Tensor:
                if not tensor.requires_grad:
                    return tensor
                copy = tensor.clone()
                if tensor.is_leaf:
                    tape.start(tensor, copy)
                else:
                    tape.same(copy, tensor)
                return copy

            return map_tensors(hand_on, value)


class OutputTap(Tap):
    """Reads what a module returns."""

    sees_inputs = False

    def after(
        self, engine: Reads, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Return what the module returns to its caller."""
        return self.record(engine, output)


class ParameterTap(Tap):
    """Reads the factor of a matrix product that meets a parameter of the module.

    For projections that no module runs: :class:`torch.nn.MultiheadAttention` hands the
    weights of its ``out_proj`` to a function.

    Args:
        module (Module): the module, whose arguments are kept as the context.
        parameter (Tensor): the weight.
        describe (Callable): takes the positional and keyword arguments of the module's
            call and returns the context of its reading.
    """

    def __init__(
        self,
        module: nn.Module,
        parameter: Tensor,
        describe: Callable[[Any, dict[str, Any]], Any],
    ) -> None:
        super().__init__(module)
        self.parameter = parameter
        self.describe = describe
        self._context: Any = None

    def before(self, engine: Reads, args: Any, kwargs: dict[str, Any]) -> Any:
        """Keep what the reading needs to know of the call."""
        self._context = self.describe(args, kwargs)
        return args, kwargs

    def meet(self, engine: Reads, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the arguments of the product, its first factor read off."""
        return (self.record(engine, args[0], self._context), *args[1:])


class SlotsTap(OutputTap):
    """Takes the output of a mixture of experts apart into one part for each slot.

    A module that receives the chosen experts and their weights, each of shape
    ``(tokens, slots)``, returns the weighted sum of what the experts of all slots say.
    It runs once more for each slot, alone, which together takes as long as the first
    time, and must add up to the same; the model still receives the first output.

    The value of a reading has the shape ``(tokens, slots, features)``, its context is
    the index of the experts.
    """

    def after(
        self, engine: Reads, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Return the output, in the graph the sum of its parts.

        Raises:
            UnitError: if the arguments do not name experts and weights, or the parts
                do not add up.
        """
        index, weights = self._routing(args, kwargs)
        if not isinstance(output, Tensor):
            raise UnitError(
                f"{type(self.module).__name__} returned a {type(output).__name__}; "
                "expected the tensor in which the experts are added up. Take "
                "units.Layer(expert) for modules that are experts."
            )

        def only(slot: int) -> Callable[[Tensor], Tensor]:
            return lambda t: t[:, slot : slot + 1] if t is index or t is weights else t

        parts = torch.stack(
            [
                self.module.forward(
                    *map_tensors(only(slot), args), **map_tensors(only(slot), kwargs)
                ).reshape(len(index), -1)
                for slot in range(index.shape[1])
            ],
            1,
        )
        with DisableTorchFunction():
            self._check(parts, output)
        read = self.record(engine, parts, index)
        with DisableTorchFunction():
            total = read.sum(1).reshape(output.shape)
            return engine.tape.same(output.detach() + (total - total.detach()), output)

    def _routing(self, args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Find the experts and their weights among the arguments."""
        tensors = [t for t in tensors_in((args, kwargs)) if t.dim() == 2]
        indices = [t for t in tensors if t.dtype in (torch.int64, torch.int32)]
        if len(indices) == 1:
            weights = [
                t
                for t in tensors
                if t.is_floating_point() and t.shape == indices[0].shape
            ]
            if len(weights) == 1:
                return indices[0], weights[0]
        shapes = ", ".join(
            f"{tuple(t.shape)} {str(t.dtype).removeprefix('torch.')}"
            for t in tensors_in((args, kwargs))
        )
        raise UnitError(
            f"{type(self.module).__name__} is called with {shapes or 'no tensor'}; "
            "expected one integer tensor (tokens, slots) of chosen experts and one of "
            "weights of the same shape. If each expert is a module, take "
            "units.Experts(list_of_experts) or units.Layer(expert)."
        )

    def _check(self, parts: Tensor, output: Tensor) -> None:
        if not output.numel():
            return
        whole = output.detach().reshape(len(parts), -1)
        found = parts.detach().sum(1)
        tolerance = 32 * torch.finfo(output.dtype).eps
        scale = parts.detach().abs().sum(1).amax().clamp(min=1e-30)
        error = float((found - whole).abs().max() / scale)
        if not error <= tolerance:
            raise UnitError(
                f"{type(self.module).__name__} is no sum over its experts: its slots, "
                f"run one by one, differ from its output by {error:.1e} of their sum. "
                "Take units.Layer(module)."
            )


class Taps:
    """The taps of one run.

    Args:
        taps (sequence of Tap): each at its place.
        until (tuple of Tap and int, optional): what runs after that call of that tap is
            of no interest, and needs no rule. Default: None
    """

    def __init__(
        self, taps: Sequence[Tap], until: tuple[Tap, int] | None = None
    ) -> None:
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

    def hook(self, engine: Any) -> None:
        """Wait at the modules whose arguments are read."""
        self._engine = engine  # which holds the taps: until it is left
        for tap in self._taps:
            if tap.sees_inputs:
                tap.module.register_forward_pre_hook(
                    functools.partial(self._before, tap), with_kwargs=True
                )

    def unhook(self) -> None:
        """Take the hooks back, known by what they call; may be repeated."""
        self._engine = None
        for tap in self._taps:
            hooks: Any = tap.module._forward_pre_hooks
            for number, hook in list(hooks.items()):
                if isinstance(hook, functools.partial):
                    if getattr(hook.func, "__self__", None) is self:
                        tap.module._forward_pre_hooks_with_kwargs.pop(number, None)
                        hooks.pop(number, None)

    def next_order(self) -> int:
        """Number a reading."""
        self._readings += 1
        return self._readings

    def _before(
        self, tap: Tap, module: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> Any:
        if engine_here() is not self._engine:  # another thread runs it
            return None
        changed = tap.before(self._engine, args, kwargs)
        self._stop_after(tap)
        return changed

    def after(
        self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any
    ) -> Any:
        """Return what a module returns to its caller."""
        for tap in self._outputs.get(id(module), ()):
            output = tap.after(self._engine, args, kwargs, output)
            self._stop_after(tap)
        return output

    def meet(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Let a tap see the product in which its parameter is a factor.

        The parameter is known by its memory: a function written in python receives it
        detached.
        """
        if self._parameters:
            for value in args[1:]:
                if isinstance(value, Tensor):
                    tap = self._parameters.get(value.data_ptr())
                    if tap is not None and value.shape == tap.parameter.shape:
                        args = tap.meet(self._engine, args)
                        self._stop_after(tap)
        return args

    def _stop_after(self, tap: Tap) -> None:
        if self._until is None or self._until[0] is not tap or self._engine.backward:
            return
        if len(tap.readings) > self._until[1]:
            self._until = None
            self._engine.suspend()

    def behind(self, path: Sequence[Made], output: Tensor) -> Tensor:
        """Read relevance off behind what the tensors at taps are merged with.

        Args:
            path (list of Made): the records that are one operator with the output.
            output (Tensor): of the last of them.

        See :meth:`.Call.merged_with`.
        """
        if not any(tap.readings for tap in self._taps):
            return output
        read = output.clone()

        def swap(tensor: Tensor) -> Tensor:
            return read if self._engine.tape.of(tensor) in path else tensor

        for tap in self._taps:
            tap.readings[:] = [
                replace(r, value=map_tensors(swap, r.value)) for r in tap.readings
            ]
        return read.clone()
