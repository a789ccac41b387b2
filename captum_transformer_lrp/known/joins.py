"""One function of one tensor is one activation, however many operators it takes.

``0.5 * z * (1 + tanh(0.8 * (z + 0.045 * z ** 3)))`` is GELU, element by element, and
relevance passes it as it passes ``gelu(z)``: unchanged. Operator by operator the
constant 1 would absorb a share. So, where an operator joins tensors that are all
functions of one tensor of its shape, the identity rule of AttnLRP (arXiv 2402.05602,
Sec. 3.3.2) holds for the whole. That is the answer, where there is one, to arXiv
2510.18810, which notes that product rules depend on how a function is written.

What has no join (``x + 1``, a bias) is no activation and keeps the rules of its
operators, and so does what is linear: ``(x + 1) + x`` is ``2 x + 1``, of which the 1
absorbs its share.

A factor that a rule made a constant (``x.reciprocal()``, in CP-LRP ``x.exp()``) is a
function of ``x`` all the same, and so are the condition ``x > 0`` and the step
``sign(x)``: the tape keeps what made them (:attr:`~.tape.Tape.cuts`), so that
``exp(x) * (1 + exp(x)).reciprocal()`` is ``exp(x) / (1 + exp(x))``, and ``where(x > 0,
x, 0)`` a gate as ``relu(x)`` is. Without a join they are constants: ``1 / (1 +
exp(-x))`` passes nothing on, as no reciprocal does. A constant that is chosen, as in
``maximum(x, c)``, absorbs what is its own, where ``clamp(x, min=c)`` is one activation.
Elements that are taken apart and put together again (``stack([x[..., 0] ** 2, x[..., 1]
** 3], -1)``) are no function of ``x`` to the tape, as ``x ** tensor([2, 3])`` is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors, tensors_in
from ..core.call import Call
from ..core.gates import EXPONENTIALS, SUMS, Activation, Scaled, is_of_one
from ..core.gradients import RatioGradient
from ..core.rules.base import Rule
from ..core.rules.elementwise import Identity
from ..core.rules.linear import GatedProduct, PlainGradient, UniformProduct
from ..core.table import Operator, RuleTable
from ..core.tape import Made, Tape, alive, note

#: operators that may join functions of one tensor
JOINS = frozenset(
    """add sub subtract rsub mul multiply div divide true_divide where maximum minimum
    fmax fmin max min masked_fill setitem""".split()
)
#: with one operand that carries relevance: functions of it, element by element
ELEMENTWISE = JOINS.difference(["setitem", "max", "min"]) | frozenset(
    """neg negative abs absolute relu leaky_relu prelu rrelu clone contiguous to float
    double half bfloat16 type type_as nan_to_num positive pow square float_power exp
    exp2 expm1 rsqrt reciprocal tril triu""".split()
)
#: of these, the ones that hand on all relevance, but for constants that they choose
_CONSERVES = frozenset(
    """mul multiply div divide true_divide neg negative abs absolute relu leaky_relu
    prelu rrelu clone contiguous to float double half bfloat16 type type_as positive pow
    square float_power where masked_fill tril triu""".split()
)
_QUOTIENTS = frozenset("div divide true_divide".split())
_BY_CONDITION = frozenset("where masked_fill setitem".split())
BENDS = frozenset("maximum minimum fmax fmin max min".split())
_CHOOSES = BENDS | _BY_CONDITION
#: may add a constant to what they scale
_SHIFTS = frozenset("batch_norm instance_norm".split())
#: of one tensor, linear
_LINEAR = frozenset(
    """add sub subtract rsub mul multiply div divide true_divide neg negative clone
    contiguous to float double half bfloat16 type type_as positive where masked_fill
    tril triu""".split()
)
#: keep the order of the elements of one tensor, or select of it: of an unchanged shape
#: they return it as it was
RESHAPES = frozenset(
    """view view_as reshape reshape_as _unsafe_view flatten unflatten ravel squeeze
    expand expand_as broadcast_to contiguous clone alias atleast_1d atleast_2d
    atleast_3d getitem""".split()
)
#: kinds of operators whose output a rule may make a constant
CUTS = frozenset({"normalizer", "exponential", "power", "quotient", "step"})
#: comparisons of a tensor, and what is made of them
CONDITIONS = frozenset(
    """gt lt ge le greater less greater_equal less_equal logical_not bitwise_not
    __invert__ logical_and logical_or bitwise_and bitwise_or __and__ __or__""".split()
)
#: what is left on the tape where a linear function of one tensor hands on all relevance
FUNCTION = "function"
#: where a condition was made of a tensor, or a step
CONDITION = "condition"
#: where a rule made a function of a tensor a constant
CUT = "cut"
_CUT = (CUT, CONDITION)
_MAXIMUM_STEPS = 32


def _is_function(made: Made) -> bool:
    """Whether a tensor is a function of one other, element by element."""
    if made.operator is None or not is_of_one(made):
        return False
    if made.operator.name in ELEMENTWISE:
        return True
    return made.note is not None and (made.note in _CUT or _is_noted(made))


def _is_noted(made: Made) -> bool:
    return made.note == FUNCTION or isinstance(made.note, (Activation, Scaled))


def _is_whole(made: Made) -> bool:
    """Whether a tensor is a function that hands on all relevance."""
    assert made.operator is not None
    return _is_noted(made) and made.operator.name not in _SHIFTS


def _functions(made: Made) -> list[Made]:
    """Return a record, and those of the tensors of which it is a function."""
    found = [made]
    while _is_function(made) and len(found) < _MAXIMUM_STEPS:
        made = made.parents[0]
        found.append(made)
    return found


def _root(made: Made) -> Made:
    """Return what a tensor is a function of at last; itself, if of none."""
    way = []
    while made.root is None:
        if not _is_function(made):
            made.root = False  # and no cycle of records
            break
        way.append(made)
        made = made.parents[0]
    root = made.root or made
    assert isinstance(root, Made)
    for step in way:
        step.root = root
    return root


def common_source(parents: Sequence[Made]) -> Made | None:
    """Return the nearest tensor of which all operands of a join are functions."""
    first = parents[0]
    root = first.root or _root(first)
    alone = True
    for other in parents:
        if other is not first:
            alone = False
            if (other.root or _root(other)) is not root:
                return None  # the usual case
    if alone:
        return None
    others = [other for other in parents if other is not first]
    behind = [set(map(id, _functions(other))) for other in others]
    for made in _functions(first):
        if all(id(made) in known for known in behind):
            return made
    return None


def _apart(tape: Tape, args: tuple[Any, ...], made: Made) -> bool:
    """Whether a constant among arguments was made of another tensor than ``made``.

    So is the size in ``x * (x ** 2).mean().rsqrt()``.
    """
    root = made.root or _root(made)
    for value in args:
        if isinstance(value, Tensor) and not value.requires_grad:
            other = tape.of(value)
            if other is not None and (other.root or _root(other)) is not root:
                return True
    return False


def _way(made: Made, source: Made) -> Iterator[Made]:
    """Yield the records between a tensor and its source."""
    while made is not source:
        yield made
        made = made.parents[0]


def conserves(made: Made, source: Made) -> bool:
    """Whether the operators between a tensor and its source hand all relevance on."""
    for step in _way(made, source):
        assert step.operator is not None
        if step.note in _CUT:
            return False
        if not _is_whole(step) and step.operator.name not in _CONSERVES:
            return False
    return True


def is_linear(made: Made, source: Made) -> bool:
    """Whether a tensor is its source, scaled, shifted and masked by constants."""
    for step in _way(made, source):
        assert step.operator is not None
        if step.note in _CUT or isinstance(step.note, Activation):
            return False
        if not _is_noted(step) and step.operator.name not in _LINEAR:
            return False
        if len(step.parents) > 1 and step.operator.name not in SUMS:
            return False  # x * x
    return True


def _stays_away(made: Made, source: Made) -> bool:
    """Whether a function of a tensor is certainly not 0 where that is."""
    away = False
    for step in reversed(list(_way(made, source))):
        assert step.operator is not None
        if isinstance(step.note, Activation):
            away = away or step.note.at_zero != 0
        elif step.operator.name in EXPONENTIALS:
            away = True
        elif step.operator.name in SUMS:
            away = False
    return away


@dataclass(frozen=True, kw_only=True)
class OneFunction(Identity):
    """The identity rule for a function that several operators compute.

    The gradient is ``g f(x) / x``, and 0 where ``x`` is 0. Conserves, element by
    element, but where ``x`` is 0.
    """

    def __call__(self, call: Call) -> Any:
        """Rebuild the output, which ``call.function`` returns for any argument."""
        (x,) = call.args
        return RatioGradient.apply(x, call.function, torch.zeros_like(x))


@dataclass(frozen=True, eq=False)
class Joined:
    """A function of one tensor in the place of its last operator.

    Attributes as of :class:`~.table.Operator`.
    """

    name: str
    function: Callable[..., Any]
    rule: Rule
    kind: str = "activation"
    plain: bool = False
    plain_for_one: bool = False
    reshapes: bool = False
    stateful: None = None
    in_place: bool = False
    recomputes: bool = False
    cuts: bool = False
    special: None = None
    twin: None = None


class Joins:
    """Where functions of one tensor meet, under the rules of a table.

    Args:
        table (RuleTable): relevance passes its activations.
    """

    def __init__(self, table: RuleTable) -> None:
        rows = table.composite.rows
        self.rule = table.in_form(OneFunction(), "activation", "function")
        #: rules for sums and products absorb a little of it
        self.stabilises = not (
            isinstance(rows.get("product"), (UniformProduct, GatedProduct))
            and isinstance(rows.get("additive"), PlainGradient)
        )

    @classmethod
    def of(cls, table: RuleTable) -> Joins | None:
        """Return what finds them; None if no activation passes all relevance."""
        passes = type(table.composite.rows.get("activation")) is Identity
        return cls(table) if passes and not table.carries_both else None

    def describe(self, operator: Operator) -> None:
        """Say of an operator what it does to functions of one tensor.

        ``joins``: it may join them; ``bends``: of one and a constant it is no linear
        function; ``elementwise``: of one relevant argument it is a function of each
        element; ``cuts``: likewise, and a rule may make it a constant; ``compares``: it
        makes conditions.
        """
        name, kind = operator.name, operator.kind
        operator.joins = name in JOINS
        operator.bends = name in BENDS
        operator.elementwise = name in ELEMENTWISE or kind == "activation"
        operator.reshapes = name in RESHAPES
        operator.cuts = kind in CUTS and (operator.elementwise or kind == "step")
        operator.compares = name in CONDITIONS

    def joint(
        self,
        tape: Tape,
        operator: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parents: list[Made],
    ) -> Joint | None:
        """Return how to treat an operator at which functions of one tensor meet.

        It stays as it is, if what is computed is linear, or if its operands hand on all
        relevance as they are; or with constant factors; or it becomes a function of the
        tensor itself.

        Returns:
            Joint or None: None if nothing meets: the operands are no functions of one
            tensor of their shape.
        """
        if len(parents) > 1 and common_source(parents) is None:
            return None  # the usual case
        if tape.cuts and _apart(tape, args, parents[0]):
            return None
        return _joint(self, tape, operator, args, kwargs, parents)

    def constant(
        self,
        tape: Tape,
        operator: Operator,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Compute a constant, and note of which tensor it is a function."""
        made = (compared if operator.compares else hand_on)(
            tape, operator, args, kwargs
        )
        output = function(*args, **kwargs)
        if made is not None and output.__class__ is Tensor:
            if not args or output is not args[0] or operator.in_place:
                note(output, made)
        return output

    def cut(self, tape: Tape, operator: Any, parents: Sequence[Made]) -> Made:
        """Return the record of a function that a rule made a constant."""
        tape.cuts = True
        note = CONDITION if operator.kind == "step" else CUT
        return Made(operator, parents, tape, note)


@dataclass(frozen=True)
class Joint:
    """What to call where functions of one tensor meet, and what is noted of it.

    Attributes:
        operator (Operator or Joined): what to call.
        args (tuple): with these arguments.
        kwargs (dict): likewise.
        relevant (int): how many of them carry relevance.
        parents (list of Made): for the record of the output.
        note (Any): likewise.
    """

    operator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    relevant: int
    parents: list[Made]
    note: Any = None


def _joint(
    joins: Joins,
    tape: Tape,
    operator: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parents: list[Made],
) -> Joint | None:
    name = operator.name
    given = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor)]
    operands = [t for t in given if t.requires_grad]
    shape = operands[0].shape
    found = []
    for tensor in given:
        made = None
        if tape.cuts and not tensor.requires_grad:
            made = tape.of(tensor)
            if made is not None:
                found.append(made)
        if (made is not None or tensor.requires_grad) and tensor.shape != shape:
            return None  # of elements of another tensor
    conditions = [made for made in found if _is_condition(made)]
    cuts = [made for made in found if not _is_condition(made)]
    if name in _BY_CONDITION and not conditions:
        return None  # elements of different functions
    if name in BENDS and len(given) < 2:
        return None  # the largest of one tensor
    if name in BENDS and len(parents) == 1 and not found:
        return Joint(operator, args, kwargs, 1, parents, Activation(0.0))
    records = [*parents, *cuts]
    source = common_source([*records, *conditions])
    if source is None:
        return None
    x, known = _source_of(source, operands, parents)
    if known != shape:
        return None
    keep = [conserves(made, source) for made in parents]
    same = Joint(operator, args, kwargs, len(parents), [source])
    linear = all(is_linear(made, source) for made in records)
    if linear and not conditions and name in SUMS:
        return replace(same, note=FUNCTION) if all(keep) else same
    note = Activation(math.nan if _is_away(name, records, source) else 0.0)
    if len(records) == 1:  # and a condition
        return replace(same, note=note)
    if not (joins.stabilises and x is not None):  # else all would absorb a little
        if (all(keep) and not cuts) or (operator.kind == "quotient" and keep[0]):
            return replace(same, note=note)
        if operator.kind == "product" and any(keep):
            lasting = {id(t) for t, k in zip(operands, keep, strict=True) if k}

            def constant(tensor: Tensor) -> Tensor:
                keeps = id(tensor) in lasting or not tensor.requires_grad
                return tensor if keeps else tensor.detach()

            args, kwargs = map_tensors(constant, args), map_tensors(constant, kwargs)
            return Joint(operator, args, kwargs, sum(keep), [source], note)
    if x is None:
        return None
    args = map_tensors(Tensor.detach, args)
    kwargs = map_tensors(Tensor.detach, kwargs)
    function = functools.partial(_whatever, operator.function, args, kwargs)
    return Joint(Joined(name, function, joins.rule), (x,), {}, 1, [source], note)


def _source_of(
    source: Made, operands: list[Tensor], parents: list[Made]
) -> tuple[Tensor | None, torch.Size | None]:
    """Return the tensor of a record, None if it is gone, and its shape."""
    for made, operand in zip(parents, operands, strict=True):
        if made is source:
            return operand, operand.shape
    known, shape = source.source or (None, None)
    return (None if known is None else alive(known)), shape


def _is_away(name: str, records: list[Made], source: Made) -> bool:
    """Whether a function that is joined is certainly not 0 where its tensor is."""
    away = [_stays_away(made, source) for made in records]
    if name in ("sub", "subtract", "rsub"):
        return sum(away) == 1
    if name in SUMS or name in _CHOOSES:
        return any(away)
    return away[0] if name in _QUOTIENTS else all(away)


def _is_condition(made: Made) -> bool:
    """Whether a constant only says where a tensor is larger than another."""
    while made.note in _CUT:
        if made.note == CONDITION:
            return True
        made = made.parents[0]
    return False


def hand_on(
    tape: Tape, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Made | None:
    """Return the record of a function of constants that were made of a tensor.

    None if another tensor is an operand: it may be the sum of a softmax written out.
    """
    found = [(t, tape.of(t)) for t in tensors_in((args, kwargs))]
    records = [made for _, made in found if made is not None]
    if not records or any(made is None and t.numel() > 1 for t, made in found):
        return None
    source = _one(records)
    return None if source is None else Made(operator, [source], tape, CUT)


def compared(
    tape: Tape, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Made | None:
    """Return the record of a condition, None if it is not one of one tensor of ours."""
    found = map(tape.of, tensors_in((args, kwargs)))
    records = [made for made in found if made is not None]
    if not records:
        return None
    source = _one(records)
    tape.cuts = tape.cuts or source is not None
    return None if source is None else Made(operator, [source], tape, CONDITION)


def _one(records: list[Made]) -> Made | None:
    """Return the tensor of which all are functions, or which all of them are."""
    same = all(made is records[0] for made in records)
    return records[0] if same else common_source(records)


def _whatever(
    function: Callable[..., Any], args: Any, kwargs: dict[str, Any], x: Tensor
) -> Any:
    """Return what a function returns for its own arguments, in the dtype of ``x``."""
    output = function(*args, **kwargs)
    return output.to(x.dtype) if x.is_floating_point() else output
