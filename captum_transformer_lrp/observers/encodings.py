"""An observer by which positions carry relevance where they meet the tokens.

Positional LRP (PA-LRP, Bakish et al. 2025, arXiv 2506.02138): a transformer's input is
a set of pairs, token and position, and relevance that flows to the position is not a
constant's. The observer follows what is computed from positions, and where such a
tensor meets tokens hands the operator a leaf of the graph in its stead. The rules of
the method then share relevance with it as with any other operand:

* rotary: ``q * cos`` and ``rotate(q) * sin`` are products of two relevant factors, and
  the tables of cosines and sines receive half of each (under AttnLRP);
* absolute: ``x + p``: the position's part is its contribution to the sum;
* biases of attention scores (ALiBi, T5): ``q k + b``: the bias receives its
  contribution, which belongs to the position of the key that it raises or lowers. For
  ALiBi, the paper's authors published no code; this is the rule for sums.

What is computed from positions is told without names: what depends on ``arange``, on
the running count of a mask, on a table of integers that counts up, on a table of
numbers that the model keeps (a buffer), or, where it is added to every token, on a
parameter of more than one row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._nested import map_tensors, tensors_in
from .._torch import DisableTorchFunction
from ..core.table import Operator
from ..core.tape import Made
from ..errors import InputError
from ..known.behind import product_behind
from .observed import ObservedEngine, Observer, Run
from .streams import number_of, start_of

Encoding = Literal["rotary", "absolute", "bias"]


@dataclass(frozen=True, eq=False)
class PositionUse:
    """One place where positions met tokens.

    Attributes:
        module (str): name of the module whose code ran.
        encoding (str): ``"rotary"``, ``"absolute"`` or ``"bias"`` (of scores).
        table (int): number of the table (cosines, sines, embeddings), in order of
            first use; the same for queries and keys.
        leaf (Tensor): what stood for the table, ``(examples, ...)``.
        tokens (tuple of int): dimensions of the leaf that are tokens; none for one.
        stream (int): id of the leaf that the tokens come from, see
            :mod:`~.streams`.
    """

    module: str
    encoding: Encoding
    table: int
    leaf: Tensor
    tokens: tuple[int, ...]
    stream: int

    def relevance(self, gradient: Tensor | None, *, times_input: bool) -> Tensor:
        """Return the relevance of each position, shape ``(examples, tokens)``.

        Args:
            gradient (Tensor or None): at the leaf; dimensions may stand in front.
            times_input (bool): relevance is input times gradient.
        """
        leaf = self.leaf.detach()
        if gradient is None:
            gradient = torch.zeros_like(leaf)
        front = gradient.dim() - leaf.dim()
        value = leaf.conj() * gradient if times_input else gradient
        value = torch.where(gradient == 0, 0, value)  # at a mask's infinities
        value = value.real if value.is_complex() else value
        kept = {front, *(front + d for d in self.tokens)}
        summed = [d for d in range(front, value.dim()) if d not in kept]
        if summed:
            value = value.sum(summed)
        return value.reshape(*value.shape[: front + 1], -1)


@dataclass(frozen=True)
class _Origin:
    """Where a constant tensor comes from.

    Attributes:
        tensor (Tensor): the tensor itself, kept so that its id is not used again.
        table (int): id of the tensor before it was reshaped, moved or cast; what it was
            split into are tables of their own.
        keeps (object): what that id belongs to.
        counted (bool): it depends on positions; else it is a parameter's rows.
    """

    tensor: Tensor
    table: int
    keeps: Any
    counted: bool


class PositionEncodings(Observer):
    """Gives relevance to positions.

    Args:
        examples (int): the number of examples in the batch.
        positions (tuple of Tensor): integers that the model receives as positions.

    Attributes:
        uses (list of PositionUse): in order of execution.
    """

    def __init__(self, examples: int = 1, positions: tuple[Tensor, ...] = ()) -> None:
        self.examples = examples
        self.positions = positions

    def begin(self, engine: ObservedEngine) -> None:
        """Start with the positions that the model receives."""
        super().begin(engine)
        self._origins: dict[int, _Origin] = {}
        self._tables: dict[int, int] = {}
        self.uses: list[PositionUse] = []
        for tensor in self.positions:
            self._follow(tensor, tensor, counted=True)

    def model(self, root: nn.Module) -> None:
        """Follow the tables that a model keeps."""
        with DisableTorchFunction():
            for table in root.buffers():
                number = table.is_floating_point() or table.is_complex()
                if _rows(table) if number else _counts_up(table):
                    self._follow(table, table, counted=True)
            for table in root.parameters():
                if _rows(table):
                    self._follow(table, table, counted=False)

    def _follow(self, tensor: Tensor, table: Any, *, counted: bool) -> None:
        self._origins[id(tensor)] = _Origin(tensor, id(table), table, counted)

    def meet(
        self, operator: Operator, args: Any, kwargs: dict[str, Any], run: Run
    ) -> Any:
        """Put leaves in the place of positions, and follow what is made of them."""
        if operator.metadata:
            output = run(args, kwargs)
            if operator.name == "arange" and isinstance(output, Tensor):
                self._follow(output, output, counted=True)
            return output
        origins = [
            self._origins[id(t)]
            for t in tensors_in((args, kwargs))
            if id(t) in self._origins
        ]
        if origins and not self.engine.suspended and torch.is_grad_enabled():
            args, kwargs = self._meet(operator, args, kwargs)
        output = run(args, kwargs)
        if origins or operator.name == "cumsum":
            self._follow_output(operator, origins, args, output)
        return output

    def _follow_output(
        self, operator: Operator, origins: list[_Origin], args: Any, output: Any
    ) -> None:
        """Follow what was computed from positions alone."""
        moved = operator.kind == "structural"
        counts = operator.name == "cumsum" and _is_count(args)
        counted = counts or any(o.counted for o in origins)
        if not counted and not moved:  # a weight is a position only as it is
            return
        tensors = list(tensors_in(output))
        for tensor in tensors:
            if tensor.requires_grad and not tensor.is_leaf:
                continue
            if moved and len(origins) == len(tensors) == 1:
                origin = origins[0]
                self._origins[id(tensor)] = _Origin(
                    tensor, origin.table, origin.keeps, counted
                )
            else:
                self._follow(tensor, tensor, counted=counted)

    # --------------------------------------------------------------- where they meet

    def _meet(
        self, operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put a leaf in the place of positions that meet tokens."""
        place = _PLACES.get(operator.name)
        if place is None:
            return args, kwargs
        for constant, other in place(args, kwargs):
            origin = self._origins.get(id(constant))
            if (
                origin is None
                or not isinstance(other, Tensor)
                or not other.requires_grad
                or (constant.requires_grad and not constant.is_leaf)
                or not (constant.is_floating_point() or constant.is_complex())
            ):
                continue
            encoding = _encoding(operator, self.engine.tape.of(other), origin)
            if encoding is None:
                continue
            with DisableTorchFunction():
                alias = self._stand_in(encoding, constant, other, origin, operator)
            if alias is None:
                continue
            only = id(constant)

            def swap(tensor: Tensor, only: int = only, alias: Tensor = alias) -> Tensor:
                return alias if id(tensor) == only else tensor

            return map_tensors(swap, args), map_tensors(swap, kwargs)
        return args, kwargs

    def _stand_in(
        self,
        encoding: Encoding,
        constant: Tensor,
        other: Tensor,
        origin: _Origin,
        operator: Operator,
    ) -> Tensor | None:
        """Return an alias of a new leaf, one table for each example, and record it."""
        constant = constant.detach()
        if _is_mask(constant) if encoding == "bias" else _is_switch(constant):
            return None
        rank = other.dim()
        if constant.dim() > rank:
            return None
        aligned = constant.reshape(*[1] * (rank - constant.dim()), *constant.shape)
        examples = other.shape[0]
        merged = 1
        if examples != self.examples:
            if encoding != "bias" or examples % self.examples:
                if not origin.counted:
                    return None
                raise InputError(
                    f"{operator.name} in {self.engine.module_path()!r} joins positions "
                    f"of shape {tuple(constant.shape)} with tokens of shape "
                    f"{tuple(other.shape)}; which tokens are which is only known where "
                    f"the first dimension is the {self.examples} example(s). Explain "
                    "this model without positions, with AttnLRP."
                )
            merged = examples // self.examples
        if encoding == "bias":
            tokens: tuple[int, ...] = (rank - 1,) if aligned.shape[-1] > 1 else ()
        else:
            tokens = tuple(d for d in range(1, rank - 1) if aligned.shape[d] > 1)
            if not origin.counted and (not tokens or rank != 3):
                return None  # rows of a weight that are no positions
        each = aligned.expand(examples, *aligned.shape[1:])
        if merged > 1:
            each = each.reshape(self.examples, merged, *aligned.shape[1:])
            tokens = tuple(d + 1 for d in tokens)
        leaf = each.clone().requires_grad_()
        with torch.enable_grad():
            alias = leaf.clone()
            if merged > 1:
                alias = alias.reshape(examples, *aligned.shape[1:])
        self.engine.tape.start(leaf, alias)
        number = self._tables.setdefault(origin.table, len(self._tables))
        stream = self._stream(other, keys=encoding == "bias")
        self.uses.append(
            PositionUse(
                self.engine.module_path(), encoding, number, leaf, tokens, stream
            )
        )
        return alias

    def _stream(self, tensor: Tensor, *, keys: bool) -> int:
        """Return the id of the leaf that tokens (for scores, the keys) come from."""
        made = self.engine.tape.of(tensor)
        scores = product_behind(made) if keys else None
        if scores is not None:
            made = scores.parents[-1]
        if made is None:
            return 0
        starts = self.engine.tape.starts
        ours = frozenset(starts[id(use.leaf)] for use in self.uses)
        return number_of(self.engine.tape, start_of(made, without=ours))


def _rows(table: Tensor) -> bool:
    """Whether a tensor holds more than one row of numbers."""
    return sum(size > 1 for size in table.shape) > 1


def _counts_up(table: Tensor) -> bool:
    """Whether a table of integers is 0, 1, 2, ... along its last dimension."""
    if table.dtype not in (torch.int64, torch.int32) or table.dim() == 0:
        return False
    if table.shape[-1] < 2:
        return False
    return bool((table.diff(dim=-1) == 1).all())


def _is_count(args: tuple[Any, ...]) -> bool:
    """Whether a running sum counts something that carries no relevance."""
    return bool(args) and isinstance(args[0], Tensor) and not args[0].requires_grad


def _is_mask(bias: Tensor) -> bool:
    """Whether a bias only lets pass and blocks."""
    blocks = torch.finfo(bias.dtype).min / 4
    return not bool(((bias != 0) & (bias > blocks)).any())


def _is_switch(factor: Tensor) -> bool:
    """Whether a factor of several rows holds nothing but zeros and ones."""
    return _rows(factor) and bool(((factor == 0) | (factor == 1)).all())


def _pair(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    first = args[0] if args else kwargs.get("input")
    second = args[1] if len(args) > 1 else kwargs.get("other")
    return [(first, second), (second, first)]


def _addend(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    addend = args[0] if args else kwargs.get("input")
    key = args[2] if len(args) > 2 else kwargs.get("batch2")
    return [(addend, key)]


def _mask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Any, Any]]:
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    key = args[1] if len(args) > 1 else kwargs.get("key")
    return [(mask, key)]


Operands = Callable[[tuple[Any, ...], dict[str, Any]], list[tuple[Any, Any]]]

#: operators in which positions meet tokens: the constant and what it meets
_PLACES: dict[str, Operands] = {
    "mul": _pair,
    "multiply": _pair,
    "add": _pair,
    "sub": _pair,
    "subtract": _pair,
    "baddbmm": _addend,
    "scaled_dot_product_attention": _mask,
}


def _encoding(
    operator: Operator, other: Made | None, origin: _Origin
) -> Encoding | None:
    if operator.name in ("mul", "multiply"):
        return "rotary" if origin.counted else None
    if operator.name in ("baddbmm", "scaled_dot_product_attention"):
        return "bias"
    return "bias" if product_behind(other) is not None else "absolute"
