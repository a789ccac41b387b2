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
Layout = Literal["batch-first", "sequence-first", "channels-first", "streams"]
Visit = Callable[[int, Tensor], "Tensor | None"]

#: how much of a change of the first state may reach the prediction around another state
TOLERATED = 0.01
#: a stack with less of the parameters of the largest one is not the model's main stack
_LARGE = 0.25
#: such as "encoder.layers.3" or "block3"
_NUMBERED = re.compile(r"(^|\.)[^.\d]*\d+$")


@dataclass(frozen=True)
class StatePlace:
    """One hidden state: what goes into, or comes out of, a call of a module.

    Attributes:
        name (str): of the module within the model.
        side (str): ``"input"`` (the first argument with tokens) or ``"output"`` (the
            first tensor with tokens).
        module (Module): the module.
        call (int): which call of the module in one forward pass, from 0.
        layout (str): how the module keeps it: ``"batch-first"`` is (batch, ..., width),
            ``"sequence-first"`` (tokens, batch, width), ``"channels-first"`` (batch,
            width, ...), ``"streams"`` (batch, tokens, several, width).
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
def visiting(places: Sequence[StatePlace], visit: Visit) -> Iterator[list[int]]:
    """Call ``visit`` with each hidden state of one forward pass in this block.

    Hooks stand on the modules while the block runs, and act in this thread only.

    Args:
        places (sequence of StatePlace): the states, all different.
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

    def before(self, module: nn.Module, args: Any, kwargs: Any = None) -> Any:
        """Visit the state that goes in; a new one replaces it wherever it is given.

        In another thread, while the hook is removed, torch may leave out ``kwargs``.
        """
        if kwargs is None or threading.get_ident() != self.thread:
            return None
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
        return None if new is None else _put_back(new, state, layout)


def arranged(state: Tensor, layout: Layout) -> Tensor:
    """Return a state with the batch first and the width last."""
    if layout == "sequence-first":
        return state.transpose(0, 1)
    if layout == "channels-first":
        return state.movedim(1, -1)
    return state.flatten(2) if layout == "streams" else state


def _put_back(new: Tensor, state: Tensor, layout: Layout) -> Tensor:
    """Return an arranged state as the module keeps it."""
    if layout == "sequence-first":
        return new.transpose(0, 1).contiguous()
    if layout == "channels-first":
        return new.movedim(-1, 1).contiguous()
    return new.reshape(state.shape) if layout == "streams" else new


def first_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the first argument of a call that can be tokens."""
    return next((x for x in (*args, *kwargs.values()) if _may_be_tokens(x)), None)


def first_output(output: Any) -> Tensor | None:
    """Return the first tensor that a module returned and that can be tokens."""
    return next((x for x in _entries(output) if _may_be_tokens(x)), None)


def _may_be_tokens(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.is_nested:
        return False
    return value.is_floating_point() and value.dim() >= 3


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
) -> tuple[StatePlace, ...]:
    """Find the hidden states of a transformer by running it, a few times and per state.

    Args:
        model (Module): the model, in evaluation mode.
        run (Callable): runs it on real inputs.
        examples (int): how many there are in the batch.

    Returns:
        *tuple of StatePlace*: the output of the token embedding, if it has one with as
        many tokens as the blocks; the input of each block; the output of the last.
        Where more than the first argument of a block comes from the block before
        (pooled queries), the outputs of blocks instead of their inputs.

    Raises:
        InputError: if no blocks are found, or what they pass on is not all that the
            rest of the model knows.
    """
    around: list[str] = []
    with torch.no_grad():
        calls, embedded = _record(model, run)
        for stack in _stacks(calls, examples):
            for sides in (stack.inputs(), stack.outputs()):
                first = stack.calls[0]
                places = _upright(sides, first.before, run)
                places = _as_streams(places, first.before, embedded)
                places = _with_embedding(places, first, embedded, run)
                share = share_around(places, run, _origin(model, places))
                if share <= TOLERATED:
                    return places
                around.append(f"{share:.0%} around {first.family}")
    name = type(model).__name__
    if around:
        raise InputError(
            f"what the blocks of {name} pass on is not all that the rest of the model "
            "knows: with a block's input held as it was, a change further below still "
            f"reaches the prediction ({around[0]}). Name the modules whose outputs are "
            "the hidden states: layers=[...]."
        )
    raise InputError(
        f"no blocks were found in {name}: no module with a number at the end of its "
        f"name takes tokens of shape ({examples}, tokens, width) and returns the same "
        f"shape{_hint(model)}. Name the modules whose outputs are the hidden states: "
        "layers=[...]."
    )


def _hint(model: nn.Module) -> str:
    """Return why blocks of torch's own encoder may not be found."""
    nested = [
        name
        for name, module in model.named_modules()
        if getattr(module, "enable_nested_tensor", False)
    ]
    return (
        f" ({nested[0]} packs padded batches into nested tensors; build it with "
        "enable_nested_tensor=False)"
        if nested
        else ""
    )


def with_layouts(
    places: Sequence[StatePlace], run: Callable[[], Any], examples: int
) -> tuple[StatePlace, ...]:
    """Find out how modules that a user named keep their tokens, by running the model.

    Args:
        places (sequence of StatePlace): the states; their layouts are not looked at.
        run (Callable): runs the model on real inputs.
        examples (int): how many there are in the batch.

    Returns:
        *tuple of StatePlace*: the same with layouts; as they were where no state was
        met.
    """
    places = [dataclasses.replace(place, layout="batch-first") for place in places]
    shapes: dict[int, torch.Size] = {}

    def note(position: int, state: Tensor) -> None:
        shapes[position] = state.shape

    with torch.no_grad(), visiting(places, note):
        run()
    calls = {
        i: _Call(places[i].name, places[i].module, 0, shape, shape, 0)
        for i, shape in shapes.items()
    }
    stack = _Stack(list(calls.values()), examples)
    for i, call in calls.items():
        if call.takes_tokens(examples):
            place = dataclasses.replace(places[i], layout=stack.layout(call))
            with torch.no_grad():
                places[i] = _upright([place], call.before, run)[0]
    return tuple(places)


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

    @property
    def siblings(self) -> str:
        """The name of the list, or of the module, that holds the module."""
        return self.name.rpartition(".")[0]

    def takes_tokens(self, examples: int) -> bool:
        """Whether the batch is first before and after, or second in a sequence."""
        x, y = self.before, self.after
        if len(x) != len(y) or len(x) < 3:
            return False
        second = len(x) == 3 and x[1] == y[1] == examples
        return x[0] == y[0] == examples or second


def _record(
    model: nn.Module, run: Callable[[], Any]
) -> tuple[list[_Call], list[tuple[StatePlace, Tensor]]]:
    """Run the model; return the calls of numbered modules and of token embeddings."""
    thread = threading.get_ident()
    calls: list[_Call] = []
    embedded: list[tuple[StatePlace, Tensor]] = []
    counts: dict[nn.Module, int] = {}

    def record(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, *rest: Any) -> None:
            if threading.get_ident() != thread:
                return
            kwargs, output = rest
            number = counts.get(module, 0)
            counts[module] = number + 1
            x, y = first_argument(args, kwargs), first_output(output)
            if isinstance(module, nn.Embedding) and y is not None:
                embedded.append((StatePlace(name, "output", module, number), y))
            else:
                before, after = (torch.Size() if t is None else t.shape for t in (x, y))
                storage = 0 if x is None else x.data_ptr()
                calls.append(_Call(name, module, number, before, after, storage))

        return note

    handles = []
    try:
        for name, module in model.named_modules():
            if _may_be_block(name, module) or isinstance(module, nn.Embedding):
                handles.append(
                    module.register_forward_hook(record(name), with_kwargs=True)
                )
        run()
    finally:
        for handle in handles:
            handle.remove()
    return calls, embedded


def _may_be_block(name: str, module: nn.Module) -> bool:
    """Whether a module has a number, consists of others, and is no row of like ones."""
    parts = [type(x) for x in module.children() if any(True for _ in x.children())]
    row = isinstance(module, nn.Sequential) and len(set(parts)) < len(parts)
    return (
        bool(_NUMBERED.search(name))
        and any(True for _ in module.children())
        and not row
    )


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

    @property
    def keeps_shape(self) -> bool:
        """Whether most calls do, or half where the first of each stage may not."""
        stages = {call.siblings for call in self.calls}
        return 2 * len(self.keeping) + (len(stages) > 1) > len(self.calls)

    def inputs(self) -> tuple[StatePlace, ...]:
        """Return what goes into each block, and what comes out of the last."""
        inputs = [self._place(call, "input") for call in self.calls]
        return (*inputs, self._place(self.calls[-1], "output"))

    def outputs(self) -> tuple[StatePlace, ...]:
        """Return what goes into the first block, and what comes out of each."""
        outputs = [self._place(call, "output") for call in self.calls]
        return (self._place(self.calls[0], "input"), *outputs)

    def _place(self, call: _Call, side: Side) -> StatePlace:
        return StatePlace(call.name, side, call.module, call.number, self.layout(call))

    def layout(self, call: _Call) -> Layout:
        """Return how a call keeps its tokens, to judge by their shape."""
        if call.before[0] != self.examples:
            return "sequence-first"
        return "channels-first" if self._channels_first(call) else "batch-first"

    def _channels_first(self, call: _Call) -> bool:
        """Whether the width is the second dimension, to judge by parameters.

        They have its length, and seldom the number of tokens: those of the blocks of
        the same stage, and where these have both lengths, those of all blocks.
        """
        alike = [x for x in self.keeping if len(x.before) == len(call.before)]
        for blocks in ([x for x in alike if x.siblings == call.siblings], alike):
            last, second = (_parameters_as_long_as(i, blocks) for i in (-1, 1))
            if (last > 0) != (second > 0):
                return second > 0
        return second > last and len(call.before) > 3


def _parameters_as_long_as(dimension: int, blocks: Sequence[_Call]) -> int:
    """Return how many parameters of blocks are as long as a dimension of the tokens."""
    return sum(
        block.before[dimension] in parameter.shape[:2]
        for block in blocks
        for parameter in block.module.parameters()
    )


def _stacks(calls: Sequence[_Call], examples: int) -> list[_Stack]:
    """Return the stacks that hidden states may run through, the best first.

    These are the outermost ones of those that keep the shape of tokens and have a
    quarter of the parameters of the largest one of all, or more; those of tokens before
    those of maps, then the one that runs first.
    """
    families: dict[str, _Stack] = {}
    for call in calls:
        families.setdefault(call.family, _Stack([], examples)).calls.append(call)
    large = _LARGE * max((stack.size for stack in families.values()), default=0)
    good: dict[str, _Stack] = {}
    for family, stack in families.items():
        stack = _Stack([x for x in stack.calls if x.takes_tokens(examples)], examples)
        if stack.keeps_shape and stack.size >= large:
            good[family] = stack
    return sorted(
        (s for f, s in good.items() if not any(f.startswith(f"{g}.") for g in good)),
        key=lambda stack: len(stack.calls[0].before) > 3,
    )


def _as_streams(
    places: tuple[StatePlace, ...],
    first: torch.Size,
    embedded: Sequence[tuple[StatePlace, Tensor]],
) -> tuple[StatePlace, ...]:
    """Tell maps from tokens that are several vectors each: these are looked up."""
    looked_up = any(tensor.shape[:-1] == first[:2] for _, tensor in embedded)
    if len(first) != 4 or places[0].layout != "batch-first" or not looked_up:
        return places
    return tuple(dataclasses.replace(place, layout="streams") for place in places)


def _with_embedding(
    places: tuple[StatePlace, ...],
    first: _Call,
    embedded: Sequence[tuple[StatePlace, Tensor]],
    run: Callable[[], Any],
) -> tuple[StatePlace, ...]:
    """Put the embedding of the tokens that go into the first block before the others.

    Where it is what goes into the first block, it takes that place. Of several lookups
    side by side that make up the width together, none is a state.
    """
    tokens, width = _tokens_and_width(first.before, places[0].layout)
    for place, tensor in embedded:
        alike = [t for _, t in embedded if t.shape == tensor.shape]
        if len(alike) > 1 and len(alike) * tensor.shape[-1] == width:
            continue
        for layout in ("batch-first", "sequence-first"):
            if _tokens_and_width(tensor.shape, layout)[0] == tokens:
                place = dataclasses.replace(place, layout=layout)
                (place,) = _upright([place], tensor.shape, run)
                storage = tensor.data_ptr(), tensor.numel()
                same = storage == (first.storage, first.before.numel())
                return (place, *places[same:])
    return places


def _tokens_and_width(shape: torch.Size, layout: Layout) -> tuple[torch.Size, int]:
    """Return (batch, tokens) and the width of a state."""
    *tokens, width = arranged(torch.empty(shape, device="meta"), layout).shape
    return torch.Size(tokens), width


def _upright(
    places: Sequence[StatePlace], first: torch.Size, run: Callable[[], Any]
) -> tuple[StatePlace, ...]:
    """Turn the layout, where as many tokens as examples hide that it is another.

    The batch is where a change of one example changes no other prediction.
    """
    places = tuple(places)
    hidden = len(first) == 3 and first[0] == first[1] > 1
    if not hidden or places[0].layout != "batch-first":
        return places
    turned = tuple(dataclasses.replace(x, layout="sequence-first") for x in places)
    separate = [_examples_are_separate(p[0], run) for p in (places, turned)]
    return turned if separate == [False, True] else places


def _examples_are_separate(place: StatePlace, run: Callable[[], Any]) -> bool:
    """Whether a change of the first example of a state changes no other prediction."""

    def change(_: int, state: Tensor) -> Tensor:
        return torch.cat([-state[:1], state[1:]])

    expected = torch.atleast_1d(_prediction(run()))
    with visiting([place], change):
        found = torch.atleast_1d(_prediction(run()))
    return torch.allclose(found[1:], expected[1:], rtol=1e-3, atol=1e-5)


def _origin(model: nn.Module, places: Sequence[StatePlace]) -> StatePlace:
    """Return what the states depend on: the embedding, or the input of the model."""
    if isinstance(places[0].module, nn.Embedding):
        return places[0]
    return StatePlace("", "input", model)


def share_around(
    places: Sequence[StatePlace], run: Callable[[], Any], origin: StatePlace
) -> float:
    """Return how much of a change of the origin reaches the prediction around a state.

    Args:
        places (sequence of StatePlace): states, each of which is held as it was, one
            after the other.
        run (Callable): runs the model.
        origin (StatePlace): what is changed; if it is not met, the first state.

    Returns:
        *float*: the change of the prediction with a state held, as a part of the change
        with none held: of the first state where it is more than :data:`TOLERATED`, else
        the largest. 0 where the prediction does not depend on the origin.
    """
    rest = [place for place in places if place != origin]
    states: dict[int, Tensor] = {}

    def keep(position: int, state: Tensor) -> None:
        states[position] = state.clone()

    with visiting([origin, *rest], keep):
        expected = _prediction(run())
    changed = 0 if 0 in states else 1

    def change_with(held: int | None) -> float:
        def visit(position: int, state: Tensor) -> Tensor | None:
            if position == held:
                return states[position].clone()
            return -state if position == changed else None

        with visiting([origin, *rest], visit):
            found = _prediction(run())
        if found.shape != expected.shape:
            return math.inf
        return float((found - expected).nan_to_num(0, 0, 0).abs().max())

    if any(i not in states for i in range(1, len(rest) + 1)):
        return math.inf
    free, largest = change_with(None), 0.0
    for held in range(changed + 1, len(rest) + 1):
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
