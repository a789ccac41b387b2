"""What is behind a tensor beside a gate: an attention pattern, a product, a constant.

Questions of observers and of rules that carry relevance; how they follow the tape is
told in :mod:`~captum_transformer_lrp.core.gates`.
"""

from __future__ import annotations

from ..core.gates import MAXIMUM_STEPS, SCALES, SUMS, name_of, single_way
from ..core.tape import Made

#: products of two matrices that both may carry relevance
MATRIX_PRODUCTS = frozenset("matmul bmm baddbmm mm addmm einsum linear".split())
SOFTMAX = frozenset("softmax _softmax special_softmax".split())
#: bound attention scores, as soft-capping does
_SQUASHES = frozenset("tanh sigmoid clamp clip clamp_min clamp_max".split())
#: what a rule leaves on the tape where no relevance goes on behind its output
ABSORBED = "absorbed"


def attention_behind(made: Made | None) -> bool:
    """Whether a tensor is an attention pattern: a softmax, at most mixed over heads.

    Followed back like a gate, and through one linear layer (talking heads).
    """
    mixed = False
    while made is not None:
        for found in single_way(made, SCALES):
            last = found
            if name_of(found) in SOFTMAX:
                return True
        if mixed or last.operator is None or last.operator.kind != "product":
            return False
        if len(last.parents) != 1:
            return False
        mixed, made = True, last.parents[0]
    return False


def product_behind(made: Made | None) -> Made | None:
    """Return the record of the product of two matrices that attention scores are.

    Followed back through what reshapes, scales, bounds, masks or biases them.
    """
    for _ in range(MAXIMUM_STEPS):
        if made is None or not made.parents:
            return None
        if name_of(made) in MATRIX_PRODUCTS and len(made.parents) > 1:
            return made
        if name_of(made) not in SCALES | _SQUASHES:
            return None
        made = made.parents[0]
    return None


def is_product(made: Made | None) -> bool:
    """Whether a tensor is a product of two relevant factors, at most squashed."""
    for found in single_way(made, SCALES | _SQUASHES):
        if len(found.parents) > 1:
            return name_of(found) not in SUMS
    return False


def is_absorbed(made: Made | None) -> bool:
    """Whether a tensor is a constant for relevance, though not for the gradient.

    No way leads back from it to an explained input but through a rule that absorbs.
    """
    pending = [] if made is None else [made]
    for _ in range(MAXIMUM_STEPS):
        if not pending:
            return True
        found = pending.pop()
        if found.note == ABSORBED:
            continue
        if not found.parents:
            return False
        pending += found.parents
    return False
