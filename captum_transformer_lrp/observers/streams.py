"""Which tokens ask and which answer in an attention map, read from the tape.

A model may hold several sequences of tokens: text and image, a decoder's queries and
the encoder's outputs. Each is a stream, named by the record that its residual stream
starts from. The first parent of every record leads there: of a sum the residual, of
``A V`` the map, of ``Q K^T`` the queries.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..core.tape import Made, Tape
from ..known.behind import MATRIX_PRODUCTS, SOFTMAX

#: left on the tape by a product whose last factor alone carries relevance
KEYS_ALONE = "keys alone"


def streams_of(pattern: Made) -> tuple[Made, Made]:
    """Return the streams of a map's queries and keys.

    Args:
        pattern (Made): the record of an attention map.

    Returns:
        tuple of Made: the records that the two streams start from; the same for
        self-attention, and where the map depends on no input. Learned queries that
        depend on no input are a stream of their own.
    """
    made, softmax = pattern, False
    while made.parents:
        assert made.operator is not None
        softmax |= made.operator.name in SOFTMAX
        if softmax and made.operator.name in MATRIX_PRODUCTS:
            if len(made.parents) > 1:
                return start_of(made.parents[-2]), start_of(made.parents[-1])
            if made.note == KEYS_ALONE:
                return pattern, start_of(made.parents[0])
        made = made.parents[0]
    return made, made


def start_of(made: Made, *, without: frozenset[Made] = frozenset()) -> Made:
    """Return where a stream starts: behind the first of all parents.

    Args:
        made (Made): where to go back from.
        without (frozenset of Made, optional): starts that do not count, if there is
            another. Default: none
    """
    found = made
    for found in behind(made):
        if not found.parents and found not in without:
            break
    return found


def computed_from(pattern: Made, other: Made) -> bool:
    """Whether one map was computed from another."""
    return any(made is other for made in behind(pattern) if made is not pattern)


def number_of(tape: Tape, start: Made) -> int:
    """Return the id of the leaf that a record starts at; one of its own if none."""
    found = (number for number, made in tape.starts.items() if made is start)
    return next(found, id(start))


def behind(made: Made) -> Iterator[Made]:
    """Yield a record and those behind it, each once, the first parents first."""
    pending, seen = [made], set[Made]()
    while pending:
        current = pending.pop()
        if current not in seen:
            seen.add(current)
            yield current
            pending += reversed(current.parents)
