"""What is behind a tensor, read from the tape: a gate, a softmax, the sum of another.

Each question follows records back from a tensor, through operators of which only one
operand carries relevance and which do no more than the question allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

from .operators import MOVES
from .tape import Made


@dataclass(frozen=True)
class Activation:
    """What is left on the tape where a tensor is a non-linear function of another.

    Element by element: by the rule of an activation or a power, or where several
    operators make one, see :mod:`..known.joins`.

    Attributes:
        at_zero (float): the value of the function at 0; NaN if it is not 0 and unknown.
    """

    at_zero: float


@dataclass(frozen=True)
class Scaled:
    """What a rule leaves on the tape where all but one tensor count as constants.

    Normalised by its root mean square, or divided by another, a tensor is what it was,
    times a constant. It becomes the one parent of the record.

    Attributes:
        what (Made): how the tensor came to be that was scaled.
    """

    what: Made


#: of one tensor, linear and element by element
_LINEAR = frozenset(
    """mul multiply div divide true_divide add sub subtract rsub neg negative dropout
    dropout1d dropout2d dropout3d native_dropout""".split()
)
#: reshape, cast, mask, scale or shift one tensor, and nothing else
SCALES = MOVES | _LINEAR | {"where", "masked_fill"}
_PIECEWISE_LINEAR = frozenset(
    "relu leaky_relu prelu _prelu_kernel rrelu abs absolute".split()
)
#: structural, unless they are asked to accumulate
_MAY_SUM = frozenset("index_put _index_put _unsafe_index_put put scatter".split())
_COPIES = frozenset(
    "clone contiguous view view_as reshape reshape_as flatten unflatten alias".split()
)
SUMS = frozenset("add sub subtract rsub".split())
EXPONENTIALS = frozenset("exp exp2 special_exp2".split())
_EXTREMES = frozenset("max amax".split())
MAXIMUM_STEPS = 64


def single_way(made: Made | None, passing: frozenset[str]) -> Iterator[Made]:
    """Yield a record and those behind it, as long as the way back is a single one.

    The last is the first that is not ``passing``, or has not one parent.
    """
    for _ in range(MAXIMUM_STEPS):
        if made is None:
            return
        yield made
        if name_of(made) not in passing or len(made.parents) != 1:
            return
        made = made.parents[0]


def name_of(made: Made) -> str:
    """Return the name of what made a tensor, empty where relevance starts."""
    return "" if made.operator is None else made.operator.name


def gate_strength(made: Made | None) -> int:
    """Return 0 for no gate, 1 for an activation, 2 for one that is not 0 at 0.

    A gate is a non-linear function of one tensor, element by element, however it is
    written: an activation, a power, a square. What moves, casts, masks, scales or
    shifts a gate is as much a gate as the function itself
    (``2 * sigmoid(g)[:, None]``), and so is what a norm divides by its size. Several
    gates put together are as strong as the weakest: ``cat([gelu(a), sigmoid(b)])``.
    """
    least, pending = 2, [made]
    for _ in range(MAXIMUM_STEPS):
        if not pending:
            return least
        found = pending.pop()
        if found is None or found.operator is None:
            return 0
        operator, parents = found.operator, found.parents
        if isinstance(found.note, Scaled):
            pending += parents
        elif isinstance(found.note, Activation):
            least = min(least, 1 if found.note.at_zero == 0 else 2)
        elif operator.name in _PIECEWISE_LINEAR:
            least = min(least, 1)
        elif not parents:
            return 0
        elif operator.kind == "structural" and operator.name not in _MAY_SUM:
            pending += parents
        elif operator.name in _LINEAR and is_of_one(found):
            pending.append(parents[0])
        else:
            return 0
    return 0


def scaled(what: Made | None) -> Scaled | None:
    """Return what is left on the tape; None if nothing is remembered."""
    return None if what is None else Scaled(what)


def is_of_one(made: Made) -> bool:
    """Whether all relevant operands are the same tensor, as in ``x * x``."""
    parents = made.parents
    return bool(parents) and parents.count(parents[0]) == len(parents)


def is_sum_of(total: Made | None, parts: Made | None) -> bool:
    """Whether a tensor is a sum over another one, up to reshaping and a constant.

    Or over the same exponentials, computed once more.
    """
    if parts is None:
        return False
    for found in single_way(total, SCALES):
        if name_of(found) == "sum" and len(found.parents) == 1:
            *_, summed = copies_of(found.parents[0])
            *_, part = copies_of(parts)
            return _same(summed, part, (EXPONENTIALS, SUMS, _EXTREMES))
    return False


def _same(one: Made, other: Made, repeated: tuple[frozenset[str], ...]) -> bool:
    """Whether two tensors hold the same, up to constants that were added.

    Operators of these names do, one behind the other, if their operands are the same:
    ``exp(a - a.amax(-1, True))``, computed twice.
    """
    if one is other or not repeated:
        return one is other
    name = name_of(one)
    return (
        name == name_of(other)
        and name in repeated[0]
        and len(one.parents) == len(other.parents)
        and all(map(_same, one.parents, other.parents, repeat(repeated[1:])))
    )


def copies_of(made: Made | None) -> Iterator[Made]:
    """Yield a record, and those behind it of which it is a copy, element by element."""
    return single_way(made, _COPIES)
