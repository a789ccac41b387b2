"""Where the hidden states of a transformer are: its embedding and its blocks.

Nothing is known by the name of a model. It runs on real inputs, and blocks are modules
with a number at the end of their name that take tokens and return tokens of the same
shape. Of several stacks of blocks it is the outermost, of those that are about as large
(encoder and decoder, two towers) the one that runs first.

A hidden state has to be all that the rest of the model knows of what came before. This
is measured: with the state held as it was, the prediction must stay as it was when the
first state changes.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError

Side = Literal["input", "output"]
Layout = Literal["batch-first", "sequence-first", "channels-first"]
Visit = Callable[[int, Tensor], "Tensor | None"]

#: how much of a change of the first state may reach the prediction around another state
TOLERATED = 0.01
#: a stack with less of the parameters of the largest one is not the model's main stack
_LARGE = 0.25
#: such as "encoder.layers.3" or "block3"
_NUMBERED = re.compile(r"(^|\.)[^.\d]*\d+$")


@dataclass(frozen=True)
class Place:
    """One hidden state: what goes into, or comes out of, a call of a module.

    Attributes:
        name (str): of the module within the model.
        side (str): ``"input"`` (the first argument with tokens) or ``"output"`` (the
            first tensor with tokens).
        module (Module): the module.
        call (int): which call of the module in one forward pass, from 0.
        layout (str): how the module keeps it: ``"batch-first"`` is (batch, ..., width),
            ``"sequence-first"`` (tokens, batch, width), ``"channels-first"`` (batch,
            width, ...).
    """

    name: str
    side: Side
    module: nn.Module
    call: int = 0
    layout: Layout = "batch-first"

    def __str__(self) -> str:
        again = f", call {self.call + 1}" if self.call else ""
        return f"{self.name} ({self.side}{again})"


# ---------------------------------------------------------------------------- visits


@contextmanager
def visiting(places: Sequence[Place], visit: Visit) -> Iterator[list[int]]:
    """Call ``visit`` with each hidden state of one forward pass in this block.

    Hooks stand on the modules while the block runs, and act in this thread only.

    Args:
        places (sequence of Place): the states, all different.
        visit (Callable): takes the position in ``places`` and the state, with the batch
            first and the width last, and returns another state to go on with, or None.

    Yields:
        The positions that were met.
    """
    met: list[int] = []
    stops: dict[tuple[nn.Module, Side], _Stop] = {}
    for position, place in enumerate(places):
        stop = stops.setdefault(
            (place.module, place.side), _Stop(visit, met, threading.get_ident())
        )
        stop.calls[place.call] = position, place.layout
    handles = []
    try:
        for (module, side), stop in stops.items():
            handles.append(
                module.register_forward_pre_hook(stop.before, with_kwargs=True)
                if side == "input"
                else module.register_forward_hook(stop.after)
            )
        yield met
    finally:
        for handle in handles:
            handle.remove()


@dataclass(eq=False)
class _Stop:
    """The hooks of one module: counts its calls, and shows the wanted ones."""

    visit: Visit
    met: list[int]
    thread: int
    calls: dict[int, tuple[int, Layout]] = field(default_factory=dict)
    count: int = 0

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Visit the state that goes in; a new one replaces it wherever it is given."""
        old = first_argument(args, kwargs)
        new = self._new(old)
        if new is None:
            return None
        return (
            tuple(new if x is old else x for x in args),
            {key: new if x is old else x for key, x in kwargs.items()},
        )

    def after(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Visit the state that comes out."""
        old = first_output(output)
        new = self._new(old)
        return None if new is None else _replaced(output, old, new)

    def _new(self, state: Tensor | None) -> Tensor | None:
        if threading.get_ident() != self.thread:
            return None
        wanted = self.calls.get(self.count)
        self.count += 1
        if wanted is None or state is None:
            return None
        position, layout = wanted
        self.met.append(position)
        new = self.visit(position, arranged(state, layout))
        return None if new is None else _put_back(new, layout)


def arranged(state: Tensor, layout: Layout) -> Tensor:
    """Return a view of a state with the batch first and the width last."""
    if layout == "sequence-first":
        return state.transpose(0, 1)
    return state.movedim(1, -1) if layout == "channels-first" else state


def _put_back(state: Tensor, layout: Layout) -> Tensor:
    """Return an arranged state as the module keeps it."""
    if layout == "sequence-first":
        return state.transpose(0, 1).contiguous()
    return state.movedim(-1, 1).contiguous() if layout == "channels-first" else state


def first_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the first argument of a call that can be tokens."""
    return next((x for x in (*args, *kwargs.values()) if _may_be_tokens(x)), None)


def first_output(output: Any) -> Tensor | None:
    """Return the first tensor that a module returned and that can be tokens."""
    return next((x for x in _entries(output) if _may_be_tokens(x)), None)


def _may_be_tokens(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 3


def _entries(output: Any) -> Sequence[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return output if isinstance(output, (tuple, list)) else [output]


def _replaced(output: Any, old: Tensor | None, new: Tensor) -> Any:
    """Return what a module returned, with one tensor replaced."""
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        for key, value in output.items():
            if value is old:
                changed[key] = new
        return changed
    rest = [new if x is old else x for x in output]
    return type(output)._make(rest) if hasattr(output, "_make") else type(output)(rest)


# -------------------------------------------------------------------------- discovery


def find_hidden_states(
    model: nn.Module, run: Callable[[], Any], examples: int
) -> tuple[Place, ...]:
    """Find the hidden states of a transformer by running it, a few times and per state.

    Args:
        model (Module): the model, in evaluation mode.
        run (Callable): runs it on real inputs.
        examples (int): how many there are in the batch.

    Returns:
        *tuple of Place*: the output of the token embedding, if it has one with as many
        tokens as the blocks; the input of each block; the output of the last. Where
        more than the first argument of a block comes from the block before (pooled
        queries), the outputs of blocks instead of their inputs.

    Raises:
        InputError: if no blocks are found, or what they pass on is not all that the
            rest of the model knows.
    """
    around: dict[str, float] = {}
    with torch.no_grad():
        calls, embedded = _record(model, run)
        for stack in _stacks(calls, examples):
            for sides in (stack.inputs(), stack.outputs()):
                places = _upright(sides, stack, run)
                places = _with_embedding(places, stack.calls[0], embedded)
                share = share_around(places, run)
                if share <= TOLERATED:
                    return places
                around.setdefault(str(places[-1]), share)
    name = type(model).__name__
    if around:
        says = ", ".join(f"{x:.0%} at {place}" for place, x in around.items())
        raise InputError(
            f"what the blocks of {name} pass on is not all that the rest of the model "
            f"knows: a change of the first state reaches the prediction around the "
            f"others ({says}). Name the modules whose outputs are the hidden states: "
            "layers=[...]."
        )
    raise InputError(
        f"no blocks were found in {name}: no module with a number at the end of its "
        f"name takes tokens of shape ({examples}, tokens, width) and returns the same "
        "shape. Name the modules whose outputs are the hidden states: layers=[...]."
    )


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of a numbered module: what it took, and what it returned."""

    name: str
    module: nn.Module
    number: int
    before: torch.Size
    after: torch.Size
    storage: int

    @property
    def family(self) -> str:
        """The name without its numbers."""
        return re.sub(r"\d+", "*", self.name)

    def has_batch(self, examples: int) -> bool:
        """Whether the batch is first before and after, or second in a sequence."""
        x, y = self.before, self.after
        if len(x) != len(y):
            return False
        second = len(x) == 3 and x[1] == y[1] == examples
        return x[0] == y[0] == examples or second


def _record(
    model: nn.Module, run: Callable[[], Any]
) -> tuple[list[_Call], list[tuple[Place, Tensor]]]:
    """Run the model; return the calls of numbered modules and of token embeddings."""
    thread = threading.get_ident()
    calls: list[_Call] = []
    embedded: list[tuple[Place, Tensor]] = []
    counts: dict[nn.Module, int] = {}

    def record(name: str) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if threading.get_ident() != thread:
                return
            number = counts.get(module, 0)
            counts[module] = number + 1
            x, y = first_argument(args, kwargs), first_output(output)
            if isinstance(module, nn.Embedding) and y is not None:
                embedded.append((Place(name, "output", module, number), y))
            elif x is not None and y is not None:
                call = _Call(name, module, number, x.shape, y.shape, x.data_ptr())
                calls.append(call)

        return after

    handles = []
    try:
        for name, module in model.named_modules():
            block = _NUMBERED.search(name) and any(True for _ in module.children())
            if block or isinstance(module, nn.Embedding):
                handles.append(
                    module.register_forward_hook(record(name), with_kwargs=True)
                )
        run()
    finally:
        for handle in handles:
            handle.remove()
    return calls, embedded


@dataclass(frozen=True, eq=False)
class _Stack:
    """The calls of one family of modules, in the order in which they ended."""

    calls: list[_Call]
    examples: int

    @property
    def size(self) -> int:
        """How many parameters the modules have."""
        modules = {call.module for call in self.calls}
        return sum(p.numel() for m in modules for p in m.parameters())

    @property
    def keeping(self) -> list[_Call]:
        """The calls that return as many tokens of the same width as they take."""
        return [call for call in self.calls if call.before == call.after]

    def inputs(self) -> tuple[Place, ...]:
        """Return what goes into each block, and what comes out of the last."""
        inputs = [self._place(call, "input") for call in self.calls]
        return (*inputs, self._place(self.calls[-1], "output"))

    def outputs(self) -> tuple[Place, ...]:
        """Return what goes into the first block, and what comes out of each."""
        outputs = [self._place(call, "output") for call in self.calls]
        return (self._place(self.calls[0], "input"), *outputs)

    def _place(self, call: _Call, side: Side) -> Place:
        layout: Layout = "batch-first"
        if call.before[0] != self.examples:
            layout = "sequence-first"
        elif self._channels_first(len(call.before)):
            layout = "channels-first"
        return Place(call.name, side, call.module, call.number, layout)

    def _channels_first(self, dimensions: int) -> bool:
        """Whether the width is the second dimension, to judge by parameters.

        Biases, scales and normalisations have its length. By chance a number of tokens
        can be the length of some of them, so for (batch, tokens, width) one of the
        length of the last dimension is enough.
        """
        last = second = 0
        for call in self.keeping:
            if len(call.before) == dimensions:
                lengths = [len(p) for p in call.module.parameters() if p.dim() == 1]
                last += lengths.count(call.before[-1])
                second += lengths.count(call.before[1])
        return second > last if dimensions > 3 else second > 0 and last == 0


def _stacks(calls: Sequence[_Call], examples: int) -> list[_Stack]:
    """Return the stacks that hidden states may run through, the best first.

    Of outermost stacks with at least a quarter of the parameters of the largest one,
    those of tokens come before those of maps, then the one that runs first.
    """
    families: dict[str, _Stack] = {}
    for call in calls:
        if call.has_batch(examples):
            stack = families.setdefault(call.family, _Stack([], examples))
            stack.calls.append(call)
    good = {f: s for f, s in families.items() if 2 * len(s.keeping) > len(s.calls)}
    outermost = [
        stack
        for family, stack in good.items()
        if not any(family.startswith(f"{other}.") for other in good)
    ]
    large = _LARGE * max((stack.size for stack in outermost), default=0)
    return sorted(
        (stack for stack in outermost if stack.size >= large),
        key=lambda stack: len(stack.calls[0].before) > 3,
    )


def _upright(
    places: tuple[Place, ...], stack: _Stack, run: Callable[[], Any]
) -> tuple[Place, ...]:
    """Turn the layout, where as many tokens as examples hide that it is another.

    The batch is where a change of one example changes no other prediction.
    """
    shape = stack.calls[0].before
    if places[0].layout != "batch-first" or len(shape) != 3:
        return places
    if shape[1] != stack.examples or stack.examples == 1:
        return places
    turned = tuple(dataclasses.replace(x, layout="sequence-first") for x in places)
    separate = [_examples_are_separate(p[0], run) for p in (places, turned)]
    return turned if separate == [False, True] else places


def _examples_are_separate(place: Place, run: Callable[[], Any]) -> bool:
    """Whether a change of the first example of a state changes no other prediction."""

    def change(_: int, state: Tensor) -> Tensor:
        return torch.cat([-state[:1], state[1:]])

    expected = _prediction(run())
    with visiting([place], change):
        found = _prediction(run())
    return torch.equal(found[1:], expected[1:])


def _with_embedding(
    places: tuple[Place, ...], first: _Call, embedded: Sequence[tuple[Place, Tensor]]
) -> tuple[Place, ...]:
    """Put the embedding of the tokens that go into the first block before the others.

    Where it is what goes into the first block, it takes that place.
    """
    layout = places[0].layout
    rows = first.before[:-1]
    if layout == "channels-first":
        layout, rows = "batch-first", first.before[:1] + first.before[2:]
    for place, tensor in embedded:
        if tensor.shape[:-1] == rows:
            same = tensor.data_ptr() == first.storage
            return (dataclasses.replace(place, layout=layout), *places[same:])
    return places


def share_around(places: Sequence[Place], run: Callable[[], Any]) -> float:
    """Return how much of a change of the first state reaches the prediction around one.

    Args:
        places (sequence of Place): states; the first is changed, and each other one is
            held as it was, one after the other.
        run (Callable): runs the model.

    Returns:
        *float*: the change of the prediction with a state held, as a part of the change
        with none held: of the first state where it is more than :data:`TOLERATED`, else
        the largest. 0 where the prediction does not depend on the first state.
    """
    states: dict[int, Tensor] = {}

    def keep(position: int, state: Tensor) -> None:
        states[position] = state.clone()

    with visiting(places, keep):
        expected = _prediction(run())

    def change_with(held: int) -> float:
        def visit(position: int, state: Tensor) -> Tensor | None:
            if position == 0:
                return -state
            return states[held].clone() if position == held else None

        with visiting(places, visit):
            found = _prediction(run())
        if found.shape != expected.shape:
            return math.inf
        return float((found - expected).nan_to_num(0, 0, 0).abs().max())

    if len(states) < len(places):
        return math.inf
    free, largest = change_with(0), 0.0
    for held in range(1, len(places)):
        if free and largest <= TOLERATED:
            largest = max(largest, change_with(held) / free)
    return largest


def _prediction(output: Any) -> Tensor:
    """Return the first tensor of what a model returned."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if not isinstance(output, (tuple, list)):
        output = (getattr(output, "logits", torch.zeros(1)),)
    return next((x for x in map(_prediction, output) if x.numel()), torch.zeros(1))
