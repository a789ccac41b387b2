"""Follows integer inputs to the embedding that reads them.

Identifiers have no gradient. Each integer input comes with a float leaf of ones of the
same shape. Reshaping, slicing or moving the identifiers does the same to the ones, and
where an embedding looks the identifiers up, its output is multiplied with them. The
gradient at the ones is then the relevance of each identifier, summed over the features
of all its embeddings. (Where gradients stand for relevance itself, ``ones - 1`` is
added instead, which sums the gradients.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .call import map_tensors, tensors_in
from .table import Operator

#: change dtype, device or nothing: the ones stay as they are
_CASTS = frozenset(
    """to type type_as long int short clone contiguous cuda cpu detach alias
    pin_memory requires_grad lift_fresh positive _to_copy data""".split()
)
#: keep the place of every identifier, with constants as further arguments
_ELEMENTWISE = frozenset(
    """add sub rsub mul remainder fmod floor_divide clamp clamp_min clamp_max clip where
    masked_fill __mod__ __floordiv__ minimum maximum abs""".split()
)
#: take indices after their source
_INDEXES = frozenset(
    "getitem index_select gather take take_along_dim repeat_interleave".split()
)
#: may put constants between identifiers
_MIXES = frozenset(
    """cat concat concatenate stack hstack vstack pad constant_pad_nd tril triu scatter
    index_fill index_copy masked_scatter slice_scatter select_scatter index_put
    """.split()
)


class Identifiers:
    """The integer tensors that are followed, each with its float ones.

    Args:
        pairs (sequence of (Tensor, Tensor)): identifiers and ones of the same shape.
        additive (bool): gradients stand for relevance itself.
    """

    def __init__(
        self, pairs: tuple[tuple[Tensor, Tensor], ...], *, additive: bool
    ) -> None:
        # the identifier tensors are kept, so that their ids are not used again
        self._ones = {id(ids): (ids, ones) for ids, ones in pairs}
        self.active = bool(pairs)
        self.additive = additive
        self.read = False
        self.mixed = False  # constants stand between identifiers
        self.dtype = torch.float32

    def of(self, value: Any) -> Tensor | None:
        """Return the ones of a tensor that is followed."""
        found = self._ones.get(id(value))
        return None if found is None else found[1]

    def meet(
        self,
        operator: Operator,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[bool, Any]:
        """Follow the identifiers through one call.

        Returns:
            Whether the call was done here, and its output.
        """
        followed = [t for t in tensors_in((args, kwargs)) if id(t) in self._ones]
        if not followed:
            return False, None
        name = operator.name
        if name in ("embedding", "getitem", "index_select", "embedding_bag"):
            table = args[1] if name == "embedding" and len(args) > 1 else args[0]
            table = kwargs.get("weight", table)
            if isinstance(table, Tensor) and table.is_floating_point():
                return True, self._look_up(operator, function, args, kwargs, followed)
        if name == "setitem" and isinstance(args[0], Tensor):
            target = args[0]
            before = self.of(target)
            output = function(*args, **kwargs)
            if not target.is_floating_point():
                moved = self._plain_ones(target) if before is None else before.clone()
                *index, value = args[1:]
                function(moved, *index, map_tensors(self._as_ones, value), **kwargs)
                self._follow(target, self._with_constants(moved))
            return True, output
        if operator.in_place:
            return False, None
        if name in _CASTS:
            output = function(*args, **kwargs)
            self._follow(output, self.of(followed[0]))
            return True, output
        if name in _ELEMENTWISE:
            output = function(*args, **kwargs)
            ones = self.of(followed[0])
            assert ones is not None
            if isinstance(output, Tensor) and output.shape == ones.shape:
                self._follow(output, ones)
            elif isinstance(output, Tensor):
                self._follow(output, ones.expand(output.shape))
            return True, output
        if operator.kind == "structural":
            output = function(*args, **kwargs)
            source = args[0] if args else None
            if not any(id(t) in self._ones for t in tensors_in(source)):
                # identifiers as the index of a table of integers: still one for one
                ones = self.of(followed[0])
                assert ones is not None
                if isinstance(output, Tensor) and output.shape == ones.shape:
                    self._follow(output, ones)
                return True, output
            if not all(
                isinstance(t, Tensor) and not t.is_floating_point()
                for t in tensors_in(output)
            ):
                return True, output
            if name in _INDEXES:  # what follows the source are indices: as they are
                moved = function(
                    map_tensors(self._as_ones, source), *args[1:], **kwargs
                )
            else:
                moved = function(
                    *map_tensors(self._as_ones, args),
                    **map_tensors(self._as_ones, kwargs),
                )
            for ids, ones in zip(tensors_in(output), tensors_in(moved), strict=True):
                if ones.requires_grad:
                    exact = name not in _MIXES
                    self._follow(ids, ones if exact else self._with_constants(ones))
            return True, output
        return False, None

    def _as_ones(self, tensor: Tensor) -> Tensor:
        """Return what stands for a tensor where the identifiers are moved about."""
        ones = self.of(tensor)
        if ones is not None:
            return ones
        if tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.uint8):
            return self._plain_ones(tensor)
        return tensor

    def _plain_ones(self, tensor: Tensor) -> Tensor:
        like = next(iter(self._ones.values()))[1]
        return torch.ones_like(tensor, dtype=like.dtype)

    def _with_constants(self, ones: Tensor) -> Tensor:
        """Return ones where constants were put between identifiers: they count 1."""
        self.mixed = True
        return ones - ones.detach() + 1

    def _follow(self, ids: Any, ones: Tensor | None) -> None:
        if isinstance(ids, Tensor) and ones is not None:
            self._ones[id(ids)] = (ids, ones.to(ids.device))

    def _look_up(
        self,
        operator: Operator,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        followed: list[Tensor],
    ) -> Any:
        args, kwargs = map_tensors(_constant, args), map_tensors(_constant, kwargs)
        output = function(*args, **kwargs)
        ones = self.of(followed[0])
        assert ones is not None
        if operator.name == "embedding_bag":
            raise NotImplementedError(
                "embedding_bag sums the embeddings of several identifiers, which are "
                "not told apart afterwards. Explain its output with a Layer class."
            )
        self.read = True
        self.dtype = torch.promote_types(self.dtype, output.dtype)
        trailing = output.dim() - ones.dim()
        ones = ones.reshape(*ones.shape, *([1] * trailing)).to(output.dtype)
        return output + (ones - 1) if self.additive else output * ones


def _constant(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.requires_grad else tensor
