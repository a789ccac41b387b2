"""Follows integer inputs to the tables that they are looked up in.

Identifiers have no gradient. Beside each integer tensor that is made from them go its
counts: how many identifiers each element was made from (see :mod:`.counts`). Where a
table is looked up, its output is multiplied with the counts divided by their own
values: with ones. The gradient there is the relevance of the row, summed over its
features, and goes on to the identifiers that named the row, to each an equal share.
(Where gradients stand for relevance itself, ``ones - 1`` is added instead.)

A one-hot vector is a row of the identity, and is looked up where it becomes floating
point. Other identifiers are names, no numbers: where one becomes floating point, or is
looked up after an operator that is not known, the output is marked, and if relevance
ever arrives there, an error tells of it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors, tensors_in
from .._torch import DisableTorchFunction, transform_level
from ..core.call import Call
from ..core.engine import Engine
from ..core.table import Operator
from ..core.tape import Tape
from ..errors import InputError
from .counts import CASTS, READS, Counts, as_index, aside, indexed, source_of
from .decompositions import embedding_bag, embedding_bag_of_aten

#: operators through which identifiers are followed though no relevance goes there
FOLLOWED: frozenset[str] = frozenset(
    """
    __eq__ eq one_hot bool byte char tensor as_tensor new_tensor __deepcopy__
    bitwise_and bitwise_or bitwise_not bitwise_xor __and__ __or__ __xor__ __invert__
    __rand__ __ror__ __iand__ __ior__ bincount unique unique_consecutive searchsorted
    bucketize
""".split()
)
#: operators that write at an index, and the one that reads there
_WRITES = {
    "setitem": "getitem",
    "index_put": "getitem",
    "scatter": "gather",
    "scatter_add": "gather",
    "index_add": "index_select",
    "index_copy": "index_select",
}
_BAGS = ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
#: python's own spellings, without underscores
_SPELLED = {"mod": "remainder", "iand": "and", "ior": "or", "ixor": "xor"}
_SPELLED |= {"ilshift": "lshift", "irshift": "rshift"}
#: what the zeros of a one-hot vector count: they are their identifier's, but weigh
#: nothing beside a one
_LITTLE = 1e-30

#: whether a call was done, and its output; if not, what to run in its place, or None
Met = tuple[bool, Any]
_PASS: Met = (False, None)


class Identifiers(Counts):
    """The integer tensors that are followed, and what they look up.

    Args:
        pairs (sequence of (Tensor, Tensor)): identifiers and ones of the same shape.
        additive (bool): gradients stand for relevance itself.
        spreads (bool, optional): rules may give relevance to inputs of 0.
            Default: False
        tape (Tape, optional): tells what carries relevance. Default: none, everything
            that requires a gradient and is no leaf
    """

    def __init__(
        self,
        pairs: tuple[tuple[Tensor, Tensor], ...],
        *,
        additive: bool,
        spreads: bool = False,
        tape: Tape | None = None,
    ) -> None:
        super().__init__(pairs)
        self.active = bool(pairs)
        self.tape = tape
        self.additive = additive
        self.spreads = spreads
        self.read = False
        self.dtype = torch.float32
        self._constants: list[Tensor] = []

    @classmethod
    def under(
        cls, pairs: tuple[tuple[Tensor, Tensor], ...], engine: Engine
    ) -> Identifiers:
        """Return who follows identifiers under the rules of an engine."""
        composite = engine.composite
        additive = composite.carries == "relevance"
        return cls(
            pairs, additive=additive, spreads=composite.converts, tape=engine.tape
        )

    @property
    def mixed(self) -> bool:
        """Whether constants that stand between identifiers were looked up."""
        return any(bool(constant.any()) for constant in self._constants)

    def carries(self, tensor: Tensor) -> bool:
        """Whether relevance flows through a tensor, then no table of constants."""
        if not tensor.requires_grad or tensor.is_leaf or self.tape is None:
            return tensor.requires_grad and not tensor.is_leaf
        return (self.tape.of(tensor) or self.tape.meet(tensor, str)) is not None

    def meet(
        self,
        operator: Operator,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Met:
        """Follow the identifiers through one call.

        Returns:
            Whether the call was done here, and its output. If it was not done, either
            None, or what to run in its place so that the operators in it are met.
        """
        if not (self.follows(args) or (kwargs and self.follows(kwargs))):
            return _PASS
        name, in_place = operator.name, operator.in_place
        if name[:2] == name[-2:] == "__" and name not in CASTS:
            bare = name[2:-2]
            name = _SPELLED.get(bare, bare)
            in_place = name != bare and bare[0] == "i"
        call = Call(name, operator.kind, function, args, kwargs)
        if transform_level() is not None:
            return self._transformed(call)
        if name in ("eq", "one_hot"):
            return self._one_hot(call)
        if name in _BAGS:
            python = hasattr(function, "__code__")
            bag = embedding_bag if python else embedding_bag_of_aten
            return False, functools.partial(bag, *args, **kwargs)
        table, index = indexed(call)
        if (
            isinstance(table, Tensor)
            and table.is_floating_point()
            and self.follows(index)
        ):
            if name == "embedding" or name in READS:
                return self._look_up(call)
            if name in _WRITES:
                return self._write_at(call)
        if in_place:
            return self._in_place(call)
        output = function(*args, **kwargs)
        if any(t.is_floating_point() for t in tensors_in(output)):
            return self._as_numbers(call, output)
        self.take_over(call, output)
        return True, output

    def _transformed(self, call: Call) -> Met:
        """Lose identifiers inside vmap or another transform."""
        output = call.function(*call.args, **call.kwargs)
        for tensor in tensors_in(output):
            if tensor.is_floating_point():
                raise InputError(
                    f"identifiers are looked up or used as numbers (by "
                    f"{call.operator!r}) inside torch.vmap or another transform, where "
                    "they cannot be followed. Write the function for whole batches."
                )
            if tensor.dtype != torch.bool:
                self.lose(tensor, "vmap")
        return True, output

    # ------------------------------------------------------------- where they are read

    def _look_up(self, call: Call) -> Met:
        """Read a table of constants; its rows are the identifiers'."""
        table, index = indexed(call)
        if not torch.is_grad_enabled():
            return _PASS
        if self.follows(table) or not self._is_table(call.operator, table):
            return _PASS  # they say where, not what
        output = call.function(
            *map_tensors(Tensor.detach, call.args),
            **map_tensors(Tensor.detach, call.kwargs),
        )
        lost = self.lost(index)
        if lost:
            return True, self._refuse(
                output,
                f"identifiers are looked up after {lost!r}, an operator through which "
                "they cannot be followed. Write it by others, such as gather and "
                "where, or explain what is looked up with a Layer class.",
            )
        return True, self._start(output, self.of_index(call), table)

    def _is_table(self, operator: str, read: Tensor) -> bool:
        """Whether what is read is constants, rather than what relevance flows to."""
        return operator == "embedding" or not self.carries(read)

    @aside
    def _start(self, output: Tensor, counts: Tensor, table: Tensor) -> Tensor:
        """Return the rows of a table, from which relevance goes to the identifiers.

        Args:
            output (Tensor): the rows.
            counts (Tensor): how many identifiers named them; broadcast to ``output``.
            table (Tensor): what was read.
        """
        self.read = True
        self.dtype = torch.promote_types(self.dtype, output.dtype)
        constant = counts.detach() == 0
        self._constants.append(constant)
        counts = torch.where(constant, 1, counts)
        ones = (counts / counts.detach()).to(output.dtype)
        return output + (ones - 1) if self.additive else output * ones

    def _one_hot(self, call: Call) -> Met:
        """Follow one-hot vectors, also as comparisons with all integers of a range."""
        tensors = list(tensors_in((call.args, call.kwargs)))
        ids = next(t for t in tensors if self.follows(t))
        if ids.is_floating_point():
            return _PASS
        if call.operator == "eq":
            other = next((t for t in tensors if not self.follows(t)), None)
            if other is None or not _all_of_a_range(other, ids):
                return _PASS
        output = call.function(*call.args, **call.kwargs)
        with DisableTorchFunction(), torch.enable_grad():
            counts = self.of(ids)
            counts = counts.unsqueeze(-1) if call.operator == "one_hot" else counts
            weights = output.to(self.leaves[0].dtype) + _LITTLE
            self.follow(output, weights * counts, one_hot=True, lost=self.lost(ids))
        return True, output

    def _write_at(self, call: Call) -> Met:
        """Write numbers where identifiers say: a one-hot vector, made by hand.

        The numbers are looked up in a table that holds them everywhere.
        """
        name, function, args = call.operator, call.function, call.args
        target, index = indexed(call)
        position = 2 if name in ("setitem", "index_put") else 3
        words = ("src", "value", "values", "source")
        word = next((w for w in words if w in call.kwargs), "")
        value = call.argument(position, word)
        if not torch.is_grad_enabled() or (
            isinstance(value, Tensor) and (self.carries(value) or self.follows(value))
        ):
            return _PASS  # they say where, not what
        if self.spreads:
            raise InputError(
                f"{name} writes one-hot vectors beside zeros of the model's own, which "
                "a rule of this composite may give relevance to, and which are no "
                "identifier's. Write torch.nn.functional.one_hot(ids, classes), whose "
                "zeros are."
            )
        options = {k: v for k, v in call.kwargs.items() if k != word}

        def write() -> Any:
            several = isinstance(value, Tensor) and value.numel() > 1
            table = torch.full_like(target, 1 if several else float(value))
            if _WRITES[name] == "getitem":
                rows = table[as_index(index)]
            else:
                read = getattr(table, _WRITES[name])
                rows = read(call.argument(1, "dim"), index)
            rows = rows * value if several else rows
            before, after = args[:position], args[position + 1 :]
            if name != "scatter":
                return function(*before, rows, *after, **options)
            # of a number is another overload
            scatter: Any = Tensor.scatter_ if _writes(function) else torch.scatter
            return scatter(*before, *after, src=rows, **options)

        return False, write

    # ------------------------------------------------------------------- what is made

    def _in_place(self, call: Call) -> Met:
        """Follow what is written into a tensor."""
        target = call.args[0]
        if target.is_floating_point():
            if self._values(call):
                return False, self._cast_first(call)
            given = tensors_in((call.args[1:], call.kwargs))
            whole = any(not t.is_floating_point() and self.follows(t) for t in given)
            if not whole or self.carries(target) or not torch.is_grad_enabled():
                return _PASS  # marked already, or they say where, not what
            call.function(*call.args, **call.kwargs)
            return True, target.copy_(self._number(target.clone(), call.operator))
        before = self.before_writing(call)
        output = call.function(*call.args, **call.kwargs)
        self.after_writing(before, target)
        return True, output

    def _as_numbers(self, call: Call, output: Any) -> Met:
        """Follow identifiers that an operator turned into floating point."""
        given = list(tensors_in((call.args, call.kwargs)))
        whole = [t for t in given if not t.is_floating_point() and self.follows(t)]
        others = [t for t in given if t.is_floating_point() and not self.follows(t)]
        source = source_of(call)
        if call.operator in CASTS:
            if not self.follows(source):
                return _PASS  # the dtype of another
        elif (others or self.one_hot(whole)) and self._values(call):
            return False, self._cast_first(call)
        elif any(self.carries(t) for t in others):
            return _PASS
        if (
            call.operator in CASTS
            and whole
            and torch.is_grad_enabled()
            and self.one_hot(source)
            and not self.lost(source)
            and torch.equal(self._how_many(self.of(source)).round(), source)
        ):
            return True, self._start(output, self.of(source), source)
        self.take_over(call, output)
        if not whole or not torch.is_grad_enabled():
            return True, output  # marked already, or a constant
        name = self.lost(whole) or call.operator
        return True, map_tensors(lambda t: self._number(t, name), output)

    def _values(self, call: Call) -> list[Tensor]:
        """Return the identifiers that an operator takes as values, not as places."""
        _, index = indexed(call)
        places = {id(t) for t in tensors_in(index)}
        return [
            t
            for t in tensors_in((call.args, call.kwargs))
            if call.kind is not None
            and id(t) not in places
            and not t.is_floating_point()
            and t.dtype != torch.bool
            and self.follows(t)
        ]

    def _how_many(self, counts: Tensor) -> Tensor:
        return counts.detach()

    def _number(self, output: Tensor, operator: str) -> Tensor:
        if not output.is_floating_point():
            return output
        message = (
            "integers that no embedding of the model looked up are used as numbers (by "
            f"{operator!r}). An integer input is explained as token identifiers, which "
            "are names and no numbers: pass numbers as floating point, and a mask or "
            "positions as constants, by additional_forward_args or by another key of "
            "the mapping. One-hot vectors by torch.nn.functional.one_hot(ids, classes) "
            "can be explained."
        )
        if output.layout is not torch.strided:
            raise InputError(message)
        marked = self._refuse(output, message)
        if self.follows(output):
            self.follow(marked, self.of(output), lost=self.lost(output))
        return marked

    @aside
    def _refuse(self, output: Tensor, message: str) -> Tensor:
        """Return an output that raises an error where relevance arrives at it."""

        def refuse(_: Tensor) -> None:
            raise InputError(message)

        nothing = sum(leaf.sum().real.to(output) * 0 for leaf in self.leaves)
        marked = output + nothing
        marked.register_hook(refuse)
        return marked

    def _cast_first(self, call: Call) -> Callable[[], Any]:
        """Return the call, with identifiers cast to the dtype that they meet."""
        given = tensors_in((call.args, call.kwargs))
        dtypes = [t.dtype for t in given if t.is_floating_point()]
        dtype = dtypes[0] if dtypes else torch.get_default_dtype()

        values = {id(t) for t in self._values(call)}

        def cast(tensor: Tensor) -> Tensor:
            return tensor.to(dtype) if id(tensor) in values else tensor

        def run() -> Any:
            args, kwargs = map_tensors(cast, call.args), map_tensors(cast, call.kwargs)
            return call.function(*args, **kwargs)

        return run


def _all_of_a_range(numbers: Tensor, ids: Tensor) -> bool:
    """Whether each identifier is compared with all integers of a range."""
    count = numbers.numel()
    if count < 2 or numbers.is_floating_point() or numbers.dtype == torch.bool:
        return False
    shape = torch.broadcast_shapes(numbers.shape, ids.shape)
    if shape.numel() != count * ids.numel():
        return False
    return bool((numbers.flatten().diff() == 1).all())


def _writes(function: Any) -> bool:
    return str(getattr(function, "__name__", "")).split(".")[0].endswith("_")
