"""One run's way back through units: where relevance starts, passes and is read off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors
from .._torch import DisableTorchFunction
from ..core.engine import Engine
from ..core.tape import walk
from ..errors import DisconnectedError, InputError, OutputError
from ..observers.taps import Tap
from .units import Readings, Selector, Unit


@dataclass(eq=False)
class Place:
    """A unit in one run.

    Attributes:
        unit (Unit): what is meant.
        selector (Selector or None): which of its parts.
        taps (tuple of Tap): what reads it.
        readings (list of Reading or None): what was read, once the model ran.
        relevance (list): for each reading, its structure with relevance.
    """

    unit: Unit
    selector: Selector | None = None
    taps: tuple[Tap, ...] = ()
    readings: Readings = field(default_factory=list)
    relevance: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the taps."""
        self.taps = self.unit.taps()

    @property
    def name(self) -> str:
        """How the place is called in messages."""
        return f"{type(self.unit).__name__} of {type(self.unit.module).__name__}"

    def until(self) -> tuple[Tap, int] | None:
        """Return after which call of which tap nothing matters, where it is known."""
        call = self.unit.call or 0
        return (self.taps[-1], call) if call >= 0 else None

    def find(self, engine: Engine) -> None:
        """Find what was read in the call that is meant.

        Raises:
            InputError: if there is none, or none that carries relevance.
        """
        self.readings = self.unit.readings(self.taps, engine.name_of)
        if not self.tensors():
            name = type(self.unit.module).__name__
            raise InputError(
                f"the layer {name} has no float tensor that depends on the inputs, so "
                "that no relevance passes it."
            )

    def tensors(self) -> list[Tensor]:
        """Return the tensors that carry relevance, of all readings."""
        return [t for r in self.readings if r is not None for t in r.tensors()]

    @property
    def order(self) -> int:
        """When it was read."""
        return max(r.order for r in self.readings if r is not None)

    def scores(self, examples: int) -> Tensor:
        """Return what relevance starts from, one value per example.

        Raises:
            InputError: if the selector does not fit.
            OutputError: if a value is not finite.
        """
        assert self.selector is not None
        found = self.unit.selected(self.selector, self.readings, examples)
        if found.dim() and found.shape[0] == examples:
            found = found.reshape(examples, -1).sum(1)
        else:  # not of single examples
            found = found.sum()
        if not all(map(math.isfinite, found.detach().reshape(-1).tolist())):
            raise OutputError(
                f"the selected neuron of {type(self.unit.module).__name__} is "
                f"{found.detach().tolist()}: NaN or infinite before anything is "
                "explained."
            )
        return found

    def arranged(self, examples: int) -> Any:
        """Return the relevance that was read off, as the unit arranges it."""
        return self.unit.arranged(self.relevance, self.readings, examples)


@dataclass(frozen=True, eq=False)
class Arriving:
    """Relevance on its way back.

    Attributes:
        tensors (list of Tensor): where it has arrived.
        seeds (list of Tensor or None): with what gradient; None for 1.
    """

    tensors: list[Tensor]
    seeds: list[Tensor] | None = None


def check_order(
    source: Place | None, gates: Sequence[Place], places: Sequence[Place]
) -> None:
    """Raise InputError where relevance is asked for above the place it comes from."""
    above = [*gates, *([] if source is None else [source])]
    pairs = [(place, other) for place in places for other in above]
    if source is not None:
        pairs += [(gate, source) for gate in gates]
    for place, other in pairs:
        if place.order > other.order:
            raise InputError(
                f"{place.name} runs after {other.name} in the forward pass, so that no "
                "relevance comes back from there to it. Choose a layer that runs "
                "earlier."
            )


def go_through(
    engine: Engine, scores: Tensor, gates: Sequence[Place], examples: int
) -> Arriving:
    """Go back to each gate in turn, the last one first, and keep what passes.

    Raises:
        DisconnectedError: if no relevance comes to a gate.
    """
    arriving = Arriving([scores])
    for gate in sorted(gates, key=lambda g: -g.order):
        assert gate.selector is not None
        tensors = gate.tensors()
        gradients = engine.gradients(
            arriving.tensors, tensors, seeds=arriving.seeds, keep_graph=True
        )
        arrived = {
            id(tensor): gradient
            for tensor, gradient in zip(tensors, gradients, strict=True)
            if gradient is not None
        }
        if not arrived:
            raise DisconnectedError(
                f"no relevance comes to {gate.name}: what is explained does not depend "
                f"on it through operators that {engine.composite.name} lets relevance "
                "pass, or not through all the units of `through`, one after the other."
            )
        # a layer may return more than what is used, such as its attention weights
        readings = [
            None
            if r is None
            else replace(r, value=[t for t in r.tensors() if id(t) in arrived])
            for r in gate.readings
        ]
        tensors = [t for r in readings if r is not None for t in r.value]
        with DisableTorchFunction():
            masks = gate.unit.masks(gate.selector, readings, examples)
            flat = [mask for of_reading in masks for mask in of_reading]
            received = [arrived[id(tensor)] for tensor in tensors]
            passed = [
                torch.where(mask == 0, 0, gradient * mask)
                for gradient, mask in zip(received, flat, strict=True)
            ]
        for observer in engine.observers:
            observer.held_back(gate.unit.module, tensors, received, passed)
        arriving = Arriving(tensors, passed)
    return arriving


def read_off(engine: Engine, arriving: Arriving, places: Sequence[Place]) -> bool:
    """Go back to places, and fill in their relevance; 0 where nothing arrives.

    Returns:
        bool: whether something arrives anywhere.
    """
    tensors = list({id(t): t for place in places for t in place.tensors()}.values())
    gradients = engine.gradients(arriving.tensors, tensors, seeds=arriving.seeds)
    times_value = engine.composite.carries != "relevance"
    relevance: dict[int, Tensor] = {}
    with DisableTorchFunction(), torch.no_grad():
        for tensor, gradient in zip(tensors, gradients, strict=True):
            if gradient is None:
                gradient = torch.zeros_like(tensor, requires_grad=False)
            value = tensor * gradient if times_value else gradient
            relevance[id(tensor)] = value.detach()
        for place in places:
            place.relevance = [
                None
                if reading is None
                else map_tensors(lambda t: relevance.get(id(t)), reading.value)
                for reading in place.readings
            ]
    return any(gradient is not None for gradient in gradients)


def leads_back_to(tensors: Sequence[Tensor], leaves: Sequence[Tensor]) -> bool:
    """Whether a way leads back from one of the tensors to one of the leaves."""
    wanted = {id(leaf) for leaf in leaves}
    return any(
        id(getattr(node, "variable", None)) in wanted
        for tensor in tensors
        for node in walk(tensor.grad_fn)
    )
