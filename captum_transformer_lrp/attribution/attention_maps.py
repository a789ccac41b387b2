"""The attention maps of one forward pass, with their gradients and relevance."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._torch import DisableTorchFunction
from ..core.composites import Composite
from ..core.engine import Engine
from ..core.tape import Made
from ..errors import AttentionError
from ..observers.maps import AttentionMap, AttentionMaps
from ..observers.observed import Observer
from ..observers.positions import Layout, Positions
from ..observers.streams import computed_from, number_of, streams_of
from .inputs import Inputs
from .single_pass import engine_scores, run_once


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention operator of the model and what went back through its map.

    Attributes:
        module (str): name of the module whose code ran.
        attention (Tensor): the map A, shape ``(examples, heads, queries, keys)``.
        gradient (Tensor): of the score at A, of the same shape; 0 where the score does
            not depend on it.
        relevance (Tensor or None): of A, of the same shape, if it was asked for.
        queries (int): the stream of tokens that ask, by the id of the leaf that it
            starts from; see :mod:`captum_transformer_lrp.observers.streams`.
        keys (int): the stream of tokens that answer.
        step (int): layers of one step do not depend on one another.
        used (bool): the score depends on this map.
        layout (Layout or None): where the tokens are attended to within windows, or
            merged between layers: which token each row of each window is. The maps then
            have the shape ``(examples * windows, heads, n, n)``.
    """

    module: str
    attention: Tensor
    gradient: Tensor
    relevance: Tensor | None
    queries: int
    keys: int
    step: int
    used: bool
    layout: Layout | None = None

    def __repr__(self) -> str:
        """Return where it is and how large: the tensors are attributes."""
        shape = "x".join(map(str, self.attention.shape))
        relevance = "" if self.relevance is None else ", with relevance"
        unused = "" if self.used else ", unused"
        return f"<AttentionLayer {self.module!r} {shape}{relevance}{unused}>"


@dataclass(frozen=True)
class Arrived:
    """What came to the ends of the graph, summed over the batch.

    Attributes:
        at_identifiers (float): relevance of integer inputs.
        at_numbers (float): of other inputs.
        at_maps (float): of maps that depend on no input.
    """

    at_identifiers: float
    at_numbers: float
    at_maps: float

    @property
    def total(self) -> float:
        """All together."""
        return self.at_identifiers + self.at_numbers + self.at_maps


@dataclass(frozen=True)
class Seen:
    """A model that ran once, its graph still there to go back through.

    Attributes:
        inputs (Inputs): what is explained.
        grids (dict): stream -> spatial shape before the first map.
        merges (list of Tensor): the token of the next stage that each token goes into;
            see :attr:`captum_transformer_lrp.observers.positions.Positions.stages`.
        go_back (Callable): takes a target, and returns the layers for it.
        go_on (Callable): takes a target, and goes on behind the maps, to the inputs;
            returns the layers, what started at the scores, and what arrived.
    """

    inputs: Inputs
    grids: dict[int, tuple[int, ...]]
    merges: list[Tensor]
    go_back: Callable[..., tuple[AttentionLayer, ...]]
    go_on: Callable[[Any], tuple[tuple[AttentionLayer, ...], Tensor, Arrived]]


@contextmanager
def seen(
    forward_func: Callable[..., Any],
    inputs: Any,
    additional_forward_args: Any,
    *,
    composite: Composite,
    unknown: str | None,
    output_field: str | int | None,
    relevance: bool,
    dtype: torch.dtype | None,
    observers: Sequence[Observer] = (),
) -> Iterator[Seen]:
    """Run the model once; within the block, go back for any number of targets.

    Args:
        forward_func (Callable): the model or a function of it.
        inputs (Tensor, tuple of Tensor, or Mapping): what is explained.
        additional_forward_args (Any): passed on.
        composite (Composite): the rules of the relevance pass.
        unknown (str or None): what to do with operators without a rule.
        output_field (str, int or None): which field holds the scores.
        relevance (bool): go back a second time, with relevance.
        dtype (torch.dtype or None): compute in this dtype at least.
        observers (sequence of Observer, optional): who watches too. Default: nobody

    Raises:
        AttentionError: if the model has no attention map that can be used.
    """
    attention = AttentionMaps()
    with run_once(
        forward_func,
        inputs,
        additional_forward_args,
        composite=composite,
        unknown=unknown,
        observers=(attention, *observers),
        dtype=dtype,
    ) as (engine, prepared, output):
        if not attention.maps:
            raise AttentionError(
                "the model has no attention map: no softmax is multiplied with values "
                "that depend on the inputs. Methods of this family need attention; "
                "AttnLRP explains any model."
            )
        _check_examples(prepared)
        maps = [m.tensor for m in attention.maps]
        number = functools.partial(number_of, engine.tape)
        streams = [
            (number(queries), number(keys))
            for queries, keys in (streams_of(m.made) for m in attention.maps)
        ]
        grids = {number(start): shape for start, shape in attention.grids.items()}
        positions, layouts = _layouts(attention.maps, streams, prepared.examples)
        shapes = [
            _heads(m, prepared.examples if layout is None else None)
            for m, layout in zip(attention.maps, layouts, strict=True)
        ]
        _check_streams(attention.maps, streams)
        steps = _steps([m.made for m in attention.maps], streams)

        carries = engine.composite.carries == "relevance"

        def both_ways(
            target: Any, further: Sequence[Tensor] = (), *, last: bool = True
        ) -> tuple[tuple[AttentionLayer, ...], Tensor, Sequence[Tensor | None]]:
            scores = engine_scores(engine, prepared, output, target, output_field)
            tensors = [*maps, *further]
            once_more = relevance or bool(further and carries)
            gradients = carried = came = _or_nothing(
                engine,
                scores,
                tensors,
                relevance=False,
                keep_graph=once_more or not last,
            )
            if once_more:
                carried = came = _or_nothing(
                    engine, scores, tensors, relevance=True, keep_graph=not last
                )
            layers = []
            with DisableTorchFunction():
                for m, arrange, stream, step, layout, gradient, r in zip(
                    attention.maps,
                    shapes,
                    streams,
                    steps,
                    layouts,
                    gradients[: len(maps)],
                    carried[: len(maps)],
                    strict=True,
                ):
                    zero = torch.zeros_like(m.tensor, requires_grad=False)
                    layers.append(
                        AttentionLayer(
                            m.module,
                            arrange(m.tensor.detach()),
                            arrange(zero if gradient is None else gradient),
                            arrange(zero if r is None else r) if relevance else None,
                            stream[0],
                            stream[1],
                            step,
                            gradient is not None and bool(gradient.any()),
                            layout,
                        )
                    )
                scores = scores.detach()
            return tuple(layers), scores, came[len(maps) :]

        def go_back(target: Any, *, last: bool = True) -> tuple[AttentionLayer, ...]:
            return both_ways(target, last=last)[0]

        def go_on(target: Any) -> tuple[tuple[AttentionLayer, ...], Tensor, Arrived]:
            leaves = [leaf.leaf for leaf in prepared.leaves]
            layers, scores, came = both_ways(target, [*leaves, *attention.starts])
            with DisableTorchFunction():
                started = engine.seed(scores) if carries else scores
                return layers, started, _arrived(engine, prepared, attention, came)

        with DisableTorchFunction():
            merges = [] if positions is None else positions.stages
        # in the open: a checkpoint is computed again on the way back, under the rules
        yield Seen(prepared, grids, merges, go_back, go_on)


def _arrived(
    engine: Engine,
    prepared: Inputs,
    attention: AttentionMaps,
    came: Sequence[Tensor | None],
) -> Arrived:
    """Sum what came to the leaves of the inputs, then to those of constant maps."""
    times_input = engine.composite.carries != "relevance"
    sums = {True: 0.0, False: 0.0}
    for leaf, gradient in zip(prepared.leaves, came, strict=False):
        relevance = leaf.relevance(
            gradient, times_input=times_input, dtype=engine.identifiers.dtype
        )
        sums[leaf.is_identifier] += float(relevance.detach().double().sum())
    at_maps = 0.0
    for start, gradient in zip(
        attention.starts, came[len(prepared.leaves) :], strict=True
    ):
        if gradient is not None:
            value = start.detach() * gradient if times_input else gradient
            at_maps += float(value.double().sum())
    return Arrived(sums[True], sums[False], at_maps)


def _check_examples(prepared: Inputs) -> None:
    """Raise AttentionError where texts and pictures are not as many.

    A map of three pictures beside one text would pass for one of three times as many
    heads.
    """
    sizes = {
        leaf.name: len(leaf.given)
        for leaf in prepared.leaves
        if leaf.given.dim() in ((2,) if leaf.is_identifier else (3, 4))
    }
    if len(set(sizes.values())) > 1:
        most = max(sizes.values())
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise AttentionError(
            f"the inputs do not have the same number of examples ({found}), so that "
            "maps of attention cannot be put to examples. Repeat what there is one of, "
            f"as in pixel_values.expand({most}, -1, -1, -1), and give each example its "
            f"own target: target=[0, ..., {most - 1}]. AttnLRP explains these inputs "
            "as they are."
        )


def _check_streams(maps: list[AttentionMap], streams: list[tuple[int, int]]) -> None:
    """Raise AttentionError where tokens become tokens of another sequence unseen.

    What a vision tower returns may be put between the words of a text. Which word's
    place a patch took is no attention, so that the maps before and behind cannot be
    composed, and those before alone would leave out what the text made of them.
    """
    attended = set(streams)
    firsts: dict[int, AttentionMap] = {}
    for m, (queries, _) in zip(maps, streams, strict=True):
        firsts.setdefault(queries, m)
    for stream, m in firsts.items():
        for other, first in firsts.items():
            if stream == other or (stream, other) in attended:
                continue
            if computed_from(m.made, first.made):
                raise AttentionError(
                    f"{m.module} attends to what {first.module} made of another input "
                    "(pictures put between words), and which token became which is not "
                    "in any attention map. Use AttnLRP for this model."
                )


def _or_nothing(
    engine: Engine, scores: Tensor, maps: list[Tensor], **options: Any
) -> tuple[Tensor | None, ...]:
    if not scores.requires_grad:
        return tuple(None for _ in maps)
    return engine.gradients(scores, maps, **options)


def _layouts(
    maps: list[AttentionMap], streams: list[tuple[int, int]], examples: int
) -> tuple[Positions | None, list[Layout | None]]:
    """Find the tokens of each map, where maps are windows or tokens are merged.

    Raises:
        AttentionError: if the tokens of a window are not known.
    """
    windows = [m for m in maps if not _covers_examples(m.tensor, examples)]
    sizes: dict[int, set[int]] = {}
    for m, (queries, keys) in zip(maps, streams, strict=True):
        if queries == keys:
            sizes.setdefault(queries, set()).add(m.tensor.shape[-1])
    if not windows and all(len(each) == 1 for each in sizes.values()):
        return None, [None] * len(maps)
    positions = Positions((m.tensor, m.transposed) for m in maps)
    layouts = [positions.of(m.tensor) for m in maps]
    if all(layout is not None for layout in layouts):
        return positions, layouts
    if windows:
        raise AttentionError(
            f"{windows[0].module} attends within windows: its attention map has shape "
            f"{tuple(windows[0].tensor.shape)} for {examples} example(s), and which "
            "tokens a window holds is not known. Use AttnLRP for this model."
        )
    return None, [None] * len(maps)


def _covers_examples(pattern: Tensor, examples: int) -> bool:
    """Whether the first dimension is the examples, or examples times heads."""
    whole = pattern.shape[0] == examples
    return whole or (pattern.dim() == 3 and pattern.shape[0] % examples == 0)


def _heads(m: AttentionMap, examples: int | None) -> Callable[[Tensor], Tensor]:
    """Return what arranges a map as (examples or windows, heads, queries, keys)."""
    shape = m.tensor.shape
    first = (-1, shape[-3]) if examples is None else (examples, -1)

    def arrange(tensor: Tensor) -> Tensor:
        tensor = tensor.reshape(*first, *shape[-2:])
        return tensor.transpose(-2, -1) if m.transposed else tensor

    return arrange


def _steps(maps: list[Made], streams: list[tuple[int, int]]) -> list[int]:
    """Number the maps so that the two directions of co-attention share a number."""
    steps: list[int] = []
    for i, (queries, keys) in enumerate(streams):
        together = (
            i > 0
            and queries != keys
            and streams[i - 1] == (keys, queries)
            and (i < 2 or steps[i - 2] != steps[i - 1])
            and not computed_from(maps[i], maps[i - 1])
        )
        steps.append(steps[-1] if together else i)
    return steps
