"""What a product multiplies: elements with elements, or sums of such products."""

from __future__ import annotations

from itertools import chain
from typing import Any

from ..call import Call

_PAIRS = frozenset("mul multiply outer ger kron".split())
#: how any number of further dimensions is written, in a string and in a list
_ELLIPSIS = (".", Ellipsis)


def multiplies_pairs(call: Call) -> bool:
    """Whether each element of a product is one product of elements: nothing is summed.

    So do ``a * b``, the outer product, and ``einsum("...,...->...", a, b)``.
    """
    if call.operator == "einsum":
        factors, output = einsum_indices(call.args)
        return set(chain(*factors)) <= set(output)
    if call.operator == "tensordot":
        return bool(call.argument(2, "dims", 2) == 0)
    return call.operator in _PAIRS


def einsum_indices(args: tuple[Any, ...]) -> tuple[list[list[Any]], list[Any]]:
    """Return the indices of the factors of an einsum and of its output.

    An ellipsis stands for itself. What appears twice is summed over, if no output is
    given.
    """
    output: list[Any] | None
    if isinstance(args[0], str):
        equation = args[0].replace(" ", "").replace("...", ".")
        inputs, arrow, outputs = equation.partition("->")
        factors = [list(index) for index in inputs.split(",")]
        output = list(outputs) if arrow else None
    else:
        factors = [list(index) for index in args[1::2]]
        output = list(args[-1]) if len(args) % 2 else None
    if output is None:
        given = list(chain(*factors))
        output = [
            i for i in dict.fromkeys(given) if i in _ELLIPSIS or given.count(i) < 2
        ]
    return factors, output
