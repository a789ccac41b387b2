"""Which tokens the rows of an attention map are, read from the graph.

Models that attend within windows pad, shift and cut the tokens into windows, attend,
undo all that, and merge tokens between stages. Their maps have shape ``(examples *
windows, heads, n, n)``. Here every row of a map gets a number, its slot, and the slots
go back through the graph as a gradient does: what moves values (a reshape, a shift, a
concatenation) moves the slots by its own derivative, what works on single elements or
mixes channels leaves them where they are, and what mixes tokens stops them. At the
output of the patch embedding, or at an earlier map, they then say which slot each token
went to; tokens in one slot were merged. Nothing is guessed: slots that disagree where
ways meet, or that are lost on the way, give no layout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._torch import DisableTorchFunction, node_number, node_outputs, saved
from ..carried.passes import Switch


@dataclass(frozen=True, eq=False)
class Layout:
    """The tokens of one attention map.

    Attributes:
        stage (int): how many times tokens were merged or dropped before.
        examples (int): in the batch.
        tokens (int): of one example at this stage, in the order of the grid.
        rows (Tensor): ``example * tokens + token`` of each row (and column) of each
            window, -1 for padding; shape ``(examples * windows, n)``. Every token is
            there exactly once.
    """

    stage: int
    examples: int
    tokens: int
    rows: Tensor

    def scatter(self, maps: Tensor) -> Tensor:
        """Return one matrix for each example: 0 between windows, without padding.

        Args:
            maps (Tensor): one matrix for each window, such as the mean over the heads;
                shape ``(examples * windows, n, n)``.

        Returns:
            Tensor: of shape ``(examples, tokens, tokens)``.
        """
        columns = (self.rows % self.tokens).where(self.rows >= 0, self.tokens)
        full = maps.new_zeros(self.examples * self.tokens + 1, self.tokens + 1)
        full[self._targets()[:, :, None], columns[:, None, :]] = maps
        return full[:-1, :-1].reshape(self.examples, self.tokens, self.tokens)

    def mix(self, maps: Tensor, relation: Tensor) -> Tensor:
        """Return ``scatter(maps) @ relation``, without the zeros.

        Args:
            maps (Tensor): shape ``(examples * windows, n, n)``.
            relation (Tensor): shape ``(examples, tokens, columns)``.

        Returns:
            Tensor: of the shape of ``relation``.
        """
        padded = torch.zeros_like(relation[0, :1])
        flat = torch.cat([relation.flatten(0, 1), padded])
        mixed = torch.zeros_like(flat)
        mixed[self._targets()] = maps @ flat[self._targets()]
        return mixed[:-1].reshape(relation.shape)

    def place(self, values: Tensor) -> Tensor:
        """Return values of the rows of each window as values of the tokens.

        Args:
            values (Tensor): shape ``(examples * windows, n)``.

        Returns:
            Tensor: of shape ``(examples, tokens)``.
        """
        placed = values.new_zeros(self.examples * self.tokens + 1)
        placed[self._targets()] = values
        return placed[:-1].reshape(self.examples, self.tokens)

    def _targets(self) -> Tensor:
        return self.rows.where(self.rows >= 0, self.examples * self.tokens)


def merge(relation: Tensor, stage: Tensor) -> Tensor:
    """Carry a relation to the next stage: a new token is the mean of its old ones.

    Args:
        relation (Tensor): shape ``(examples, old tokens, columns)``.
        stage (Tensor): the new token of each old one, -1 for none; shape ``(examples,
            old tokens)``. See :attr:`Positions.stages`.

    Returns:
        Tensor: of shape ``(examples, new tokens, columns)``.
    """
    count = int(stage.max()) + 1
    target = stage.where(stage >= 0, count)[:, :, None]
    total = relation.new_zeros(relation.shape[0], count + 1, relation.shape[2])
    total.scatter_add_(1, target.expand_as(relation), relation)
    old = total.new_zeros(*total.shape[:2], 1)
    old.scatter_add_(1, target, torch.ones_like(target, dtype=old.dtype))
    return (total / old)[:, :count]


class Positions:
    """The layouts of the attention maps of one forward pass.

    To be made after the forward pass and before a backward pass frees the graph, which
    is only read: nothing is recorded while the model runs.

    Args:
        maps (iterable of (Tensor, bool)): in order of execution, in the graph, of shape
            ``(..., heads, n, n)``, where what comes before the heads numbers the
            windows of all examples; and whether the last two are keys and queries.

    Attributes:
        grid (tuple of int): spatial shape of the tokens of stage 0; empty where no map
            has a layout.
        stages (list of Tensor): at ``s`` the token of stage ``s + 1`` that each token
            of stage ``s`` went into, -1 for none; shape ``(examples, tokens)``.
    """

    def __init__(self, maps: Iterable[tuple[Tensor, bool]]) -> None:
        self.grid: tuple[int, ...] = ()
        self.stages: list[Tensor] = []
        self._layouts: dict[int, tuple[Tensor, Layout]] = {}
        self._examples = 0
        self._sizes: list[int] = []  # tokens of one example, by stage
        self._numbers: list[tuple[int, Tensor]] = []  # by walk: stage, slot -> token
        known: _Known = {}
        with torch.no_grad(), DisableTorchFunction():
            for tensor, transposed in maps:
                walk = _Walk(tensor, dim=-1 if transposed else -2)
                layout = self._layout(walk) if walk.follow(known) else None
                number = -1 if layout is None else len(self._numbers) - 1
                known.update((n, (number, s)) for n, s in walk.visited.items())
                if layout is None:
                    continue
                walk = _Walk(tensor, dim=-2 if transposed else -1)
                keys = self._layout(walk) if walk.follow(known, number) else None
                if keys is not None and torch.equal(layout.rows, keys.rows):
                    self._layouts[id(tensor)] = (tensor, layout)

    def of(self, tensor: Tensor) -> Layout | None:
        """Return the layout of a map; None where it is not known for certain."""
        found = self._layouts.get(id(tensor))
        return None if found is None else found[1]

    def _layout(self, walk: _Walk) -> Layout | None:
        """Number the rows of a map; new tokens and stages are kept if all goes well."""
        if walk.reached:
            found = self._after(walk)
        else:
            found = None if self.grid else self._first(walk)
        if found is None:
            return None
        number = torch.where(walk.padding, -1, 0)
        number[found.slots] = found.tokens
        rows = number[1:].reshape(-1, walk.rows)
        example = (rows - 1).clamp(min=-1).div(found.size, rounding_mode="floor")
        mixed = (rows > 0) & (example != example.amax(1, keepdim=True))
        if not rows.all() or mixed.any():
            return None  # neither a token nor padding; or two examples in one window
        if found.grid:
            self.grid, self._examples = found.grid, found.examples
        if found.stage == len(self._sizes):
            self._sizes.append(found.size)
            if found.merged is not None:
                self.stages.append(found.merged)
        self._numbers.append((found.stage, number))
        return Layout(found.stage, found.examples, found.size, (rows - 1).clamp(min=-1))

    def _first(self, walk: _Walk) -> _Found | None:
        """Start the tokens at the last grid before a map."""
        for name, slots in walk.stopped:
            if name not in ("Convolution", "AccumulateGrad") or slots.dim() < 3:
                continue
            grid = _same(slots, 1)
            if grid is None and name == "AccumulateGrad":
                grid = _same(slots.movedim(-1, 1), 1)
            if grid is not None and grid.all() and _distinct(grid) == grid.numel() > 1:
                examples, shape = len(grid), tuple(grid.shape[2:])
                slots = grid.flatten().long()
                tokens = torch.arange(1, len(slots) + 1, device=slots.device)
                return _Found(0, examples, math.prod(shape), tokens, slots, grid=shape)
        return None

    def _after(self, walk: _Walk) -> _Found | None:
        """Relate a map to earlier ones."""
        stage, *others = {self._numbers[number][0] for number, _, _ in walk.reached}
        size, examples, pairs = self._sizes[stage], self._examples, []
        slot_of = torch.zeros(
            size * examples + 1, dtype=torch.long, device=walk.padding.device
        )
        for number, before, now in walk.reached:
            tokens = self._numbers[number][1][before.long()]
            walk.padding[now[tokens < 0].long()] = True
            there = (tokens > 0) & (now > 0)
            pairs.append((tokens[there], now[there].long()))
            slot_of[pairs[-1][0]] = pairs[-1][1]
        if others or any((slot_of[t] != s).any() for t, s in pairs):
            return None
        walk.padding[0] = False
        old = slot_of.nonzero()[:, 0]
        slots = slot_of[old]
        count = _distinct(slots)
        if count == len(old) == len(slot_of) - 1:
            return _Found(stage, examples, size, old, slots)
        # a new stage, its tokens in the order of the first old token of each
        first = torch.full_like(walk.padding, len(slot_of), dtype=torch.long)
        slots = first.scatter_reduce_(0, slots, old, "amin").argsort()[:count]
        new = torch.arange(1, count + 1, device=old.device)
        new_size, rest = divmod(count, examples)
        number_of = torch.zeros_like(first).index_put_((slots,), new)
        example = torch.arange(examples, device=old.device)[:, None]
        merged = number_of[slot_of[1:]].reshape(examples, size) - 1 - example * new_size
        merged = merged.where(slot_of[1:].reshape(merged.shape) > 0, -1)
        if rest or not count or (merged < -1).any() or (merged >= new_size).any():
            return None  # the examples differ
        if stage < len(self.stages) and not torch.equal(self.stages[stage], merged):
            return None
        return _Found(stage + 1, examples, new_size, new, slots, merged=merged)


class _Found(NamedTuple):
    """The tokens of a map, counted from 1 over all examples, and their slots."""

    stage: int
    examples: int
    size: int  # tokens of one example
    tokens: Tensor
    slots: Tensor
    merged: Tensor | None = None
    grid: tuple[int, ...] = ()


_Slots = dict[int, Tensor]  # at the outputs of a node, 0 where none came to
_Known = dict[Any, tuple[int, _Slots]]  # node -> walk that visited it, its slots there


class _Walk:
    """The way of the slots of one map back to known nodes, or to where they stop.

    Args:
        tensor (Tensor): the map.
        dim (int): of its rows, -2 or -1.
    """

    def __init__(self, tensor: Tensor, dim: int) -> None:
        self.tensor = tensor
        self.dim = dim
        self.rows = tensor.shape[dim]
        slots = math.prod((*tensor.shape[:-3], self.rows))
        self.padding = torch.zeros(slots + 1, dtype=torch.bool, device=tensor.device)
        self.visited: dict[Any, _Slots] = {}
        self.reached: list[tuple[int, Tensor, Tensor]] = []  # walk, its slots, ours
        self.stopped: list[tuple[str, Tensor]] = []  # name of a node, slots
        self._started = False  # there are known nodes

    def follow(self, known: _Known, rows: int = -1) -> bool:
        """Walk; return whether the slots agree wherever ways meet.

        Args:
            known (dict): nodes that earlier walks visited.
            rows (int): the walk of the rows of this map, if this is that of its
                columns, which only ends where the slots are the same.
        """
        shape = self.tensor.shape
        if len(shape) < 4 or shape[-1] != shape[-2] or len(self.padding) > _MAXIMUM:
            return False
        self._started = bool(known)
        slots = torch.ones_like(self.padding[1:], dtype=torch.float32).cumsum(0)
        slots = slots.reshape(*shape[:-3], 1, 1, self.rows)
        slots = slots.movedim(-1, self.dim).expand(shape)
        start: Any = self.tensor.grad_fn
        pending: dict[Any, _Slots] = {start: {self.tensor.output_nr: slots}}
        while pending:
            node = max(pending, key=_made)
            outputs = pending.pop(node)
            number, before = known.get(node, (0, {}))
            if number < 0:  # the layout of an earlier map is not known
                continue
            same = number == rows
            if all(_within(now, before.get(i), same) for i, now in outputs.items()):
                for i, now in outputs.items():
                    pair = _thin(before[i], now)
                    if pair is None:
                        return False
                    self.reached.append((number, *pair))
                continue
            self.visited[node] = outputs
            passed = False
            for (parent, place), moved in self._past(node, outputs):
                if parent is None or moved is None:
                    continue
                passed = True
                there = pending.setdefault(parent, {})
                met = _meet(there.get(place, moved), moved)
                if met is None or parent in self.visited:
                    return False
                there[place] = met
            if not passed and 0 in outputs:
                self.stopped.append((_name(node), outputs[0]))
        return True

    def _past(
        self, node: Any, outputs: _Slots
    ) -> Iterator[tuple[tuple[Any, int], Tensor | None]]:
        """Yield each parent of a node, and the slots that pass on to it."""
        name, parents = _name(node), node.next_functions
        if name in _MOVES:
            moved = node(*map(outputs.get, range(len(node_outputs(node)))))
            moved = moved if isinstance(moved, tuple) else (moved,)
            moved = tuple(None if m is None else _compact(m) for m in moved)
            if name == "ConstantPadNd":
                self.padding |= self._marked(outputs[0]) & ~self._marked(moved[0])
            yield from zip(parents, moved, strict=True)
        slots = outputs.get(0)
        if slots is None:
            return
        if Switch.made(node):
            yield next(parent for parent in parents if parent[0] is not None), slots
        elif name == "CopyBackwards":
            yield parents[-1], slots
        elif name in _ELEMENTWISE:
            for parent in parents:
                yield parent, slots if _shape(parent) == slots.shape else None
        elif name in _PRODUCTS:
            rows = _same(slots, -1)
            columns = None if parents[-1][0] is None else _same(slots, -2)
            for parent, factor in zip(parents[-2:], (rows, columns), strict=True):
                yield parent, _spread(factor, parent)
        elif name == "Linear":
            yield parents[0], _spread(_same(slots, -1), parents[0])
        elif name in ("Convolution", "AvgPool2D"):
            yield parents[0], _convolved(node, slots, merging=self._started)

    def _marked(self, slots: Tensor) -> Tensor:
        marked = torch.zeros_like(self.padding)
        marked[_narrow(slots).long()] = True
        marked[0] = False
        return marked


#: nodes whose derivative moves values and neither adds nor drops any but padding
_MOVES = frozenset(
    """View UnsafeView ReshapeAlias Unsqueeze Squeeze Transpose Permute T Slice Select
    Split UnsafeSplit SplitWithSizes Unbind Alias Roll Flip Rot90 Cat Stack
    ConstantPadNd PixelShuffle PixelUnshuffle""".split()
)
#: nodes that leave every element in its place, and in its row if they mix a row
_ELEMENTWISE = frozenset(
    """Clone ToCopy Expand NativeDropout Where MaskedFill Add Sub Rsub Mul Div Neg Pow
    Sqrt Exp Clamp ClampMin ClampMax Gelu Relu LeakyRelu PreluKernel Silu Mish Tanh
    Sigmoid Softplus Elu Hardswish Hardsigmoid Hardtanh Erf Softmax NativeLayerNorm
    NativeBatchNorm CudnnBatchNorm NativeGroupNorm FusedRmsNorm LinearizedNorm
    RatioGradient""".split()
)
_MAXIMUM = 2**24  # whole numbers in float32
_PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm")


def _name(node: Any) -> str:
    return type(node).__name__.rstrip("0123456789").removesuffix("Backward")


def _made(node: Any) -> int:
    """Return when a node was made; leaves, which torch numbers last, come first."""
    return -1 if _name(node) == "AccumulateGrad" else node_number(node)


def _shape(output: tuple[Any, int]) -> tuple[int, ...]:
    node, place = output
    return () if node is None else tuple(node_outputs(node)[place].shape)


def _compact(slots: Tensor) -> Tensor:
    """Return the slots without the memory for channels that hold the same."""
    few = _narrow(slots)
    for dim in (-1, 1):
        if few.dim() < 3 or few.shape[dim] == 1:
            break
        lowest, highest = few.amin(dim, keepdim=True), few.amax(dim, keepdim=True)
        if torch.equal(lowest, highest):
            return highest.expand_as(slots)
    return slots


def _same(slots: Tensor, dim: int) -> Tensor | None:
    """Return the slots without a dimension along which there are no two others."""
    if slots.stride(dim) == 0:
        return slots.narrow(dim, 0, 1)
    few = _narrow(slots)
    highest = few.amax(dim, keepdim=True)
    same = ((few == highest) | (few == 0)).all()
    return highest.expand_as(slots.narrow(dim, 0, 1)) if same else None


def _spread(slots: Tensor | None, output: tuple[Any, int]) -> Tensor | None:
    return None if slots is None or output[0] is None else slots.expand(_shape(output))


def _narrow(slots: Tensor) -> Tensor:
    for dim in range(slots.dim()):
        slots = slots.narrow(dim, 0, 1) if slots.stride(dim) == 0 else slots
    return slots


def _within(now: Tensor, before: Tensor | None, same: bool) -> bool:
    """Whether an earlier walk had slots wherever ours has, or the same ones."""
    if before is None:
        return False
    for dim in range(now.dim()):
        if now.stride(dim) == before.stride(dim) == 0:
            now, before = now.narrow(dim, 0, 1), before.narrow(dim, 0, 1)
    return not ((now > 0) & (before != now if same else before == 0)).any()


def _thin(before: Tensor, now: Tensor) -> tuple[Tensor, Tensor] | None:
    """Leave out what an earlier walk found equal; None if ours is not."""
    for dim in range(before.dim()):
        if before.stride(dim) == 0:
            same = _same(now, dim)
            if same is None:
                return None
            before, now = before.narrow(dim, 0, 1), same
    return before, now


def _meet(one: Tensor, other: Tensor) -> Tensor | None:
    """Return what two ways brought to one tensor; None if they disagree."""
    if one is other or torch.equal(one, other):
        return one
    disagree = (one != other) & (one > 0) & (other > 0)
    return None if disagree.any() else torch.maximum(one, other)


def _convolved(node: Any, slots: Tensor, *, merging: bool) -> Tensor | None:
    """Pass a convolution of single tokens or, if asked, one of patches side by side."""
    if _name(node) == "AvgPool2D":
        kernel, dilation = tuple(saved(node, "kernel_size")), 1
        stride, transposed = tuple(saved(node, "stride")) or kernel, False
    else:
        kernel, dilation = (
            tuple(saved(node, "weight").shape[2:]),
            max(saved(node, "dilation")),
        )
        stride, transposed = tuple(saved(node, "stride")), saved(node, "transposed")
    patches = _same(slots, 1)
    if patches is None or transposed or any(saved(node, "padding")) or stride != kernel:
        return None
    if max(kernel) > 1 and (dilation > 1 or not merging):
        return None
    for dim, size in enumerate(kernel, start=2):
        patches = patches.repeat_interleave(size, dim)
    shape = _shape(node.next_functions[0])
    beyond = [size - own for size, own in zip(shape, patches.shape, strict=True)][:1:-1]
    margins = [margin for size in beyond for margin in (0, size)]
    return torch.nn.functional.pad(patches, margins).expand(shape)


def _distinct(slots: Tensor) -> int:
    return len(slots.unique())
