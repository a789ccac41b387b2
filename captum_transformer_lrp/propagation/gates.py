"""What is behind a tensor, read from the tape: a gate, a softmax, the sum of another.

Each question follows records back from a tensor, through operators of which only one
operand carries relevance and which do no more than the question allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .operators import MOVES
from .tape import Made

#: what a rule leaves on the tape where no relevance goes on behind its output
ABSORBED = "absorbed"


@dataclass(frozen=True)
class Activation:
    """What the rule of an activation leaves on the tape.

    Attributes:
        at_zero (float): the value of the function at 0; NaN if it is not 0 and unknown.
    """

    at_zero: float


#: reshape, cast, mask, scale or shift one tensor, and nothing else
_SCALES = MOVES | frozenset(
    """mul multiply div divide true_divide add sub subtract rsub neg negative where
    masked_fill dropout native_dropout""".split()
)
_PIECEWISE_LINEAR = frozenset("relu leaky_relu prelu rrelu".split())
_COPIES = frozenset(
    "clone contiguous view view_as reshape reshape_as flatten unflatten alias".split()
)
#: products of two matrices that both may carry relevance
MATRIX_PRODUCTS = frozenset("matmul bmm baddbmm mm addmm einsum linear".split())
SOFTMAX = frozenset("softmax _softmax special_softmax".split())
#: bound attention scores, as soft-capping does
_SQUASHES = frozenset("tanh sigmoid clamp clip clamp_min clamp_max".split())
_SUMS = frozenset("add sub subtract rsub".split())
_MAXIMUM_STEPS = 64


def _behind(made: Made | None, passing: frozenset[str]) -> Iterator[Made]:
    """Yield a record and those behind it, as long as the way back is a single one.

    The last is the first that is not ``passing``, or has several parents.
    """
    for _ in range(_MAXIMUM_STEPS):
        if made is None or made.operator is None:
            return
        yield made
        if made.operator.name not in passing or len(made.parents) != 1:
            return
        made = made.parents[0]


def gate_strength(made: Made | None) -> int:
    """Return 0 for no gate, 1 for an activation, 2 for one that is not 0 at 0.

    What reshapes, casts, masks, scales or shifts an activation is as much a gate as the
    activation itself: ``2 * sigmoid(g)[:, None]``.
    """
    for found in _behind(made, _SCALES):
        if isinstance(found.note, Activation):
            return 1 if found.note.at_zero == 0 else 2
        assert found.operator is not None
        if found.operator.name in _PIECEWISE_LINEAR:
            return 1
    return 0


def activation_behind(made: Made | None) -> Activation | None:
    """Return the activation whose values a tensor holds, at most moved about."""
    for found in _behind(made, MOVES):
        if isinstance(found.note, Activation):
            return found.note
    return None


def is_sum_of(total: Made | None, parts: Made | None) -> bool:
    """Whether a tensor is a sum over another one, up to reshaping and a constant."""
    if parts is None:
        return False
    for found in _behind(total, _SCALES):
        assert found.operator is not None
        if found.operator.name == "sum":
            return len(found.parents) == 1 and (
                _original(found.parents[0]) is _original(parts)
            )
    return False


def _original(made: Made) -> Made:
    """Return the record of the values themselves, behind copies of them."""
    *_, last = copies_of(made)
    return last


def copies_of(made: Made | None) -> Iterator[Made]:
    """Yield a record, and those behind it of which it is a copy, element by element."""
    if made is not None and made.operator is None:
        yield made
    yield from _behind(made, _COPIES)


def attention_behind(made: Made | None) -> bool:
    """Whether a tensor is an attention pattern: a softmax, at most mixed over heads.

    Followed back like a gate, and through one linear layer (talking heads).
    """
    mixed = False
    while made is not None:
        for found in _behind(made, _SCALES):
            last = found
            assert found.operator is not None
            if found.operator.name in SOFTMAX:
                return True
        if made.operator is None or mixed or last.operator is None:
            return False
        if last.operator.kind != "product" or len(last.parents) != 1:
            return False
        mixed, made = True, last.parents[0]
    return False


def product_behind(made: Made | None) -> Made | None:
    """Return the record of the product of two matrices that attention scores are.

    Followed back through what reshapes, scales, bounds, masks or biases them.
    """
    for _ in range(_MAXIMUM_STEPS):
        if made is None or made.operator is None or not made.parents:
            return None
        if made.operator.name in MATRIX_PRODUCTS and len(made.parents) > 1:
            return made
        if made.operator.name not in _SCALES | _SQUASHES:
            return None
        made = made.parents[0]
    return None


def is_product(made: Made | None) -> bool:
    """Whether a tensor is a product of two relevant factors, at most squashed."""
    for found in _behind(made, _SCALES | _SQUASHES):
        assert found.operator is not None
        if len(found.parents) > 1:
            return found.operator.name not in _SUMS
    return False


def is_absorbed(made: Made | None) -> bool:
    """Whether a tensor is a constant for relevance, though not for the gradient.

    No way leads back from it to an explained input but through a rule that absorbs.
    """
    pending = [] if made is None else [made]
    for _ in range(_MAXIMUM_STEPS):
        if not pending:
            return True
        found = pending.pop()
        if found.note == ABSORBED:
            continue
        if not found.parents:
            return False
        pending += found.parents
    return False
