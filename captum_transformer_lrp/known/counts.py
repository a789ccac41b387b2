"""How many identifiers each element of an integer tensor was made from.

An input counts 1 everywhere, a constant 0. Where identifiers are moved, their counts
are moved by the same operator; where several are combined into one, as
``(a * 7 + b) % 50``, counts add up; what a constant replaces counts 0. Views need
nothing, because memory is followed, not tensors. Counts are differentiable: their
gradient says which identifiers an element was made from.

Comparisons and places (``ids == pad``, ``ids.argmax()``) are constants. What an
operator that is not known here returns is *lost*, which is no error as long as nothing
is looked up with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._nested import PLAIN_TYPES, map_tensors, tensors_in
from .._torch import DisableTorchFunction, is_wrapped, unwrapped
from ..core.call import Call


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: change dtype, device or nothing: each element keeps its place
CASTS = _names("""
    to type type_as long int short byte char bool float double half bfloat16 clone
    contiguous cuda cpu detach alias pin_memory lift_fresh lift_fresh_copy positive
    _to_copy requires_grad data tensor as_tensor new_tensor asarray __deepcopy__
""")
#: operators that read at an index, and the position of the index
READS = {
    "getitem": 1,
    "index": 1,
    "index_select": 2,
    "gather": 2,
    "take": 1,
    "take_along_dim": 1,
}
#: the position of what is no value, but says where
_INDEX_AT = {
    **READS,
    "setitem": 1,
    "index_put": 1,
    "scatter": 2,
    "scatter_add": 2,
    "scatter_reduce": 2,
    "index_add": 2,
    "index_copy": 2,
    "index_fill": 2,
    "repeat_interleave": 1,
    "_pack_padded_sequence": 1,
    "_pad_packed_sequence": 1,
}
_INDEX_WORDS = ("index", "indices", "repeats", "lengths", "batch_sizes")
#: structural by name, but what they return depends on the order of values
_BY_VALUE = _names("""
    max min amax amin topk sort msort kthvalue median mode maximum minimum fmax fmin
    cummax cummin nan_to_num
""")
#: sums of identifiers, under which their counts are summed
_SUMS: dict[str, Callable[..., Any]] = {
    "sum": torch.sum,
    "cumsum": torch.cumsum,
    "prod": torch.sum,
    "cumprod": torch.cumsum,
}
#: move or add what they are given, beside the structural ones
_MOVES = _names("index index_put scatter_add index_add pad_sequence")
#: return one of their arguments, element by element
_BOUNDS = _names(
    "clamp clip clamp_min clamp_max maximum minimum fmax fmin max min relu"
)
#: return 0 for a factor of 0, whatever the other
_FACTORS = _names("mul multiply bitwise_and and")
#: work element by element, though torch does not tag them as such
_ELEMENTWISE = _names("""
    floor_divide floordiv rfloordiv rmod rdiv rpow rsub subtract multiply negative
    absolute and or invert bucketize searchsorted
""")
#: work element by element, but choose
_NOT_ADDED = ("where", "masked_fill", "max", "min")
_MASK = torch.bool
#: are no part of the values
_OPTIONS = ("dtype", "out")

Result = TypeVar("Result")


def aside(function: Callable[..., Result]) -> Callable[..., Result]:
    """Run what is no part of the model: no mode may see it, and gradients are on."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Result:
        with DisableTorchFunction(), torch.enable_grad():
            return function(*args, **kwargs)

    return run


@dataclass(eq=False)
class _Followed:
    """Memory that holds what was made of identifiers.

    Attributes:
        memory (UntypedStorage): kept, so that its address is not used again.
        size (int): the bytes of an element.
        counts (Tensor): one for each element of the memory.
        one_hot (bool): the values are counts themselves, as those of one-hot vectors.
        lost (str): the operator after which it is not known what is whose.
    """

    memory: Any
    size: int
    counts: Tensor
    one_hot: bool
    lost: str


class Counts:
    """The tensors that were made of identifiers, with their counts.

    Args:
        pairs (sequence of (Tensor, Tensor)): identifiers and ones of the same shape.
    """

    def __init__(self, pairs: tuple[tuple[Tensor, Tensor], ...]) -> None:
        self._known: dict[int, _Followed] = {}
        self._dtypes: set[torch.dtype] = set()  # of what is followed
        self.leaves = [ones for _, ones in pairs]
        for ids, ones in pairs:
            self.follow(ids, ones)

    def follows(self, tensors: Any) -> bool:
        """Whether some of the tensors were made of identifiers."""
        if isinstance(tensors, Tensor):  # asked for every operator of a model
            return tensors.dtype in self._dtypes and self._found(tensors) is not None
        if isinstance(tensors, (list, tuple)):
            for value in tensors:
                if value.__class__ not in PLAIN_TYPES and self.follows(value):
                    return True
            return False
        return isinstance(tensors, dict) and any(map(self.follows, tensors.values()))

    def of(self, tensor: Tensor) -> Tensor:
        """Return the counts of a tensor, of its shape."""
        found = self._found(tensor)
        if found is None:
            return self.leaves[0].new_zeros(tensor.shape, device=tensor.device)
        return found.counts.as_strided(
            tensor.shape, tensor.stride(), tensor.storage_offset()
        )

    def one_hot(self, tensors: Any) -> bool:
        """Whether all that is followed among the tensors are one-hot vectors."""
        found = [self._found(tensor) for tensor in tensors_in(tensors)]
        return all(one is None or one.one_hot for one in found)

    def lost(self, tensors: Any) -> str:
        """Return the operator after which one of the tensors was lost, or ``""``."""
        for tensor in tensors_in(tensors):
            found = self._found(tensor)
            if found is not None and found.size != tensor.element_size():
                return "view"  # as another dtype
            if found is not None and found.lost:
                return found.lost
        return ""

    @aside
    def follow(
        self, tensor: Tensor, counts: Tensor, *, one_hot: bool = False, lost: str = ""
    ) -> None:
        """Keep the counts of a tensor, beside those of the memory around it."""
        if tensor.layout is not torch.strided:
            return
        memory, size = tensor.untyped_storage(), tensor.element_size()
        before = self._known.get(memory._cdata)
        if before is not None:
            around = before.counts.clone()
            one_hot, lost = one_hot and before.one_hot, lost or before.lost
        elif counts.requires_grad:
            around = counts.new_zeros(memory.nbytes() // size, device=tensor.device)
        else:
            return  # constants
        around.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(
            counts
        )
        self._known[memory._cdata] = _Followed(memory, size, around, one_hot, lost)
        self._dtypes.add(tensor.dtype)

    def lose(self, tensor: Tensor, operator: str) -> None:
        """Note that it is not known what of a tensor is whose."""
        tensor = _plain(tensor)
        one = self.leaves[0].sum().to(tensor.device)
        self.follow(tensor, one.expand(tensor.shape), lost=operator)

    @aside
    def take_over(self, call: Call, output: Any) -> None:
        """Follow what an operator returned."""
        new = [t for t in tensors_in(output) if not self.follows(t)]  # others are views
        if not new:
            return
        given = (call.args, call.kwargs)
        counts = self._through(call, output)
        one_hot = self.one_hot(given)
        if counts is None:
            lost = self.lost(given) or call.operator
            for tensor in new[:1] if call.operator in _BY_VALUE else new:
                if (
                    tensor.dtype != torch.bool
                ):  # a mask is a constant, and so are places
                    self.lose(tensor, lost)
            return
        for tensor, moved in zip(tensors_in(output), counts, strict=False):
            if tensor.dtype != torch.bool or one_hot:
                self.follow(tensor, moved, one_hot=one_hot)

    @aside
    def before_writing(self, call: Call) -> Call:
        """Return a call whose first argument is a copy of what will be written to."""
        target = call.args[0]
        copy = target.clone()
        self.follow(
            copy, self.of(target), one_hot=self.one_hot(target), lost=self.lost(target)
        )
        args = (copy, *call.args[1:])
        return Call(call.operator, call.kind, call.function, args, call.kwargs)

    @aside
    def after_writing(self, before: Call, target: Tensor) -> None:
        """Follow what was written into a tensor."""
        given = (before.args, before.kwargs)
        counts: list[Tensor] | None
        if before.kind != "structural" and before.operator not in _MOVES:
            counts = self._through(before, target)
        elif (
            self.lost(given)
            or self.follows(indexed(before)[1])
            or any(t.is_floating_point() for t in tensors_in(given))
            or self._chooses(before, target)
        ):
            counts = None
        else:

            def write(first: Tensor, *rest: Any, **options: Any) -> Tensor:
                first = first.clone()
                before.function(first, *rest, **options)
                return first

            counts = self._moved(before, write)
        if counts is None:
            self.lose(target, before.operator)
        else:
            self.follow(target, counts[0], one_hot=self.one_hot(given))

    @aside
    def of_index(self, call: Call) -> Tensor:
        """Return the counts of an index, of size 1 in dimensions without an index.

        They broadcast to what the operator reads.
        """
        table, index = indexed(call)
        name = call.operator
        if name in ("gather", "take", "take_along_dim"):
            return self.of(index)
        if name == "index_select":
            dim = call.argument(1, "dim") % table.dim()
            return self._beside((*[slice(None)] * dim, index.reshape(-1)), table.dim())
        return self._beside(as_index(index), table.dim())

    # ------------------------------------------------------------------- in private

    def _found(self, tensor: Tensor) -> _Followed | None:
        if tensor.dtype not in self._dtypes or tensor.layout is not torch.strided:
            return None
        return self._known.get(_plain(tensor).untyped_storage()._cdata)

    def _through(self, call: Call, output: Any) -> list[Tensor] | None:
        """Return the counts of an operator's outputs, None if it is not known how."""
        name, tensors = call.operator, list(tensors_in((call.args, call.kwargs)))
        if self.lost(tensors):
            return None
        table, index = indexed(call)
        if name in CASTS or name in ("sort", "topk"):
            source = source_of(call)
            if not isinstance(source, Tensor):
                return None
            if name in CASTS:
                return [self.of(source)]
            dim = call.argument(1 if name == "sort" else 2, "dim", -1)
            return [self.of(source).gather(dim, output[1])]
        if self.follows(index):
            if name not in READS:
                return None
            counts = self.of_index(call)
            if self.follows(table):
                counts = counts + self._moved(call, call.function)[0]
            return [counts.expand(output.shape)]
        if name in ("sign", "sgn"):  # a comparison with 0
            return []
        if name == "where" and len(call.args) + len(call.kwargs) == 1:  # nonzero
            return []
        several = len(tensors) > 1  # of one, max takes one of its elements
        if (name in ("max", "min") and several) or (
            name not in _NOT_ADDED and _is_elementwise(name)
        ):
            return [self._added(call, output)]
        if name in _SUMS:
            return self._moved(call, _SUMS[name])
        if self._chooses(call, output):
            return None
        if name in _MOVES or (call.kind == "structural" and name not in _BY_VALUE):
            return self._moved(call, call.function)
        if call.kind == "product" and not output.is_floating_point():
            return [self._multiplied(call)]
        return None

    def _chooses(self, call: Call, output: Any) -> bool:
        """Whether one-hot vectors are a mask that chooses between other values."""
        masks = [t for t in tensors_in((call.args, call.kwargs)) if t.dtype is _MASK]
        return self.follows(masks) and any(
            t.dtype is not _MASK for t in tensors_in(output)
        )

    def _moved(self, call: Call, function: Callable[..., Any]) -> list[Tensor]:
        """Move counts as an operator moves identifiers.

        It is affine in what it moves: without what it makes of zeros, no number that it
        puts between the identifiers counts.
        """

        def stand(tensor: Tensor) -> Tensor:
            mask = tensor.dtype == torch.bool and not self.follows(tensor)
            return tensor if mask else self.of(tensor)

        def nothing(tensor: Tensor) -> Tensor:
            stands = stand(tensor)
            return tensor if stands is tensor else torch.zeros_like(stands)

        place = _INDEX_AT.get(call.operator)

        def moved(change: Callable[[Tensor], Tensor]) -> list[Tensor]:
            args = [
                value if i == place else map_tensors(change, value)
                for i, value in enumerate(call.args)
            ]
            kwargs = {
                key: value if key in _INDEX_WORDS else map_tensors(change, value)
                for key, value in call.kwargs.items()
                if key not in _OPTIONS
            }
            return list(tensors_in(function(*args, **kwargs)))

        both = zip(moved(stand), moved(nothing), strict=True)
        return [counts - constants for counts, constants in both]

    def _added(self, call: Call, output: Tensor) -> Tensor:
        """Add the counts of what is combined element by element."""
        kwargs = {k: v for k, v in call.kwargs.items() if k not in _OPTIONS}
        total = self.leaves[0].new_zeros((), device=output.device)
        values = [*call.args, *kwargs.values()]
        for value in values:
            if self.follows(value):
                chosen = (output == value) if call.operator in _BOUNDS else 1
                total = total + self.of(value) * chosen
        if call.operator in _FACTORS:
            for value in values:
                if not self.follows(value):
                    total = total * (value != 0)
        return total.expand(output.shape)

    def _multiplied(self, call: Call) -> Tensor:
        """Add the counts of what meets in products, but not of factors 0."""
        followed = {id(t) for t in tensors_in(call.args) if self.follows(t)}
        total: Any = 0
        for one in followed:

            def factor(tensor: Tensor, one: int = one) -> Tensor:
                if id(tensor) == one:
                    return self.of(tensor)
                ones = torch.ones_like(tensor, dtype=self.leaves[0].dtype)
                return ones if id(tensor) in followed else ones * (tensor != 0)

            total = total + call.function(*map_tensors(factor, call.args))
        result: Tensor = total
        return result

    def _beside(self, index: tuple[Any, ...], dims: int) -> Tensor:
        """Return the counts of an index of a table with so many dimensions.

        A small table of counts is indexed as the table was, so that torch itself says
        where the dimensions of the index come to stand.
        """
        items: list[Any] = []
        for item in index:
            if isinstance(item, Tensor) and item.dtype == torch.bool and item.dim():
                items.extend(item.nonzero(as_tuple=True))
            else:
                items.append(item)
        given = [i for i in items if isinstance(i, Tensor)]
        shape = torch.broadcast_shapes(*[i.shape for i in given])
        counts = sum(self.of(i) for i in given if self.follows(i))
        assert isinstance(counts, Tensor)
        place = torch.arange(shape.numel(), device=counts.device).view(shape)
        sizes: list[int] = []
        new: list[Any] = []
        taken = sum(_takes_dimension(item) for item in items)
        for item in items:
            if isinstance(item, Tensor) and item.dim():
                first = shape.numel() not in sizes
                sizes.append(shape.numel() if first else 1)
                new.append(place if first else torch.zeros_like(place))
            elif item is Ellipsis:
                sizes.extend([1] * (dims - taken))
                new.append(item)
            elif _takes_dimension(item):
                sizes.append(1)
                new.append(slice(None) if isinstance(item, slice) else 0)
            else:
                new.append(item)  # a new dimension
        sizes.extend([1] * (dims - len(sizes)))
        read: Tensor = counts.expand(shape).reshape(sizes)[tuple(new)]
        return read


def indexed(call: Call) -> tuple[Any, Any]:
    """Return what an operator indexes, and the index; twice None if it does not."""
    if call.operator == "embedding":
        given = list(tensors_in((call.args, call.kwargs)))
        table = next((t for t in given if t.is_floating_point()), None)
        return table, next((t for t in given if not t.is_floating_point()), None)
    place = _INDEX_AT.get(call.operator)
    if place is None:
        return None, None
    word = next((w for w in _INDEX_WORDS if w in call.kwargs), "")
    return source_of(call), call.argument(place, word)


def source_of(call: Call) -> Any:
    """Return what an operator works on."""
    words = ("input", "self", "data", "tensor")
    word = next((w for w in words if w in call.kwargs), "")
    return call.argument(int(call.operator == "new_tensor"), word)


def as_index(index: Any) -> tuple[Any, ...]:
    """Return an index as python takes it; in aten's, None is a whole dimension."""
    if isinstance(index, list) and any(True for _ in tensors_in(index)):
        return tuple(slice(None) if i is None else i for i in index)
    return index if isinstance(index, tuple) else (index,)


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor inside the wrappers of vmap and other transforms."""
    while is_wrapped(tensor):
        tensor = unwrapped(tensor)
    return tensor


def _takes_dimension(item: Any) -> bool:
    """Whether an item of an index stands for a dimension of what is indexed."""
    if isinstance(item, bool) or (
        isinstance(item, Tensor) and item.dtype == torch.bool and not item.dim()
    ):
        return False
    return isinstance(item, (Tensor, slice, int))


@functools.cache
def _is_elementwise(name: str) -> bool:
    """Whether an operator works element by element, as torch says."""
    if name in _ELEMENTWISE:
        return True
    for spelled in (name, f"__{name}__", f"bitwise_{name}"):
        packet = getattr(torch.ops.aten, spelled, None)
        if packet is not None and any(
            torch.Tag.pointwise in getattr(packet, overload).tags
            for overload in packet.overloads()
        ):
            return True
    return False
