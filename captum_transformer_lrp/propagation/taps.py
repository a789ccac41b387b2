"""Places of a model where relevance is read off, or from which it starts.

A tap belongs to one run. It puts a copy of what passes its module into the graph, with
one consumer, the copy that it hands on: the gradient at the recorded tensor is that of
this place alone, whatever else reads the original or writes into it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .._torch import DisableTorchFunction
from ..errors import UnitError
from .call import map_tensors, tensors_in
from .tape import Tape


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

    def next_order(self) -> int:
        """Number a reading."""

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
            self.readings.append(Reading(engine.next_order(), value, context))

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
