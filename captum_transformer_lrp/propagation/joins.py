"""One function of one tensor is one activation, however many operators it takes.

``0.5 * z * (1 + tanh(0.8 * (z + 0.045 * z ** 3)))`` is GELU, element by element, and
relevance passes it as it passes ``gelu(z)``: unchanged. Operator by operator the
constant 1 would absorb a share. So, where an operator joins tensors that are all
functions of one tensor of its shape, the identity rule of AttnLRP (arXiv 2402.05602,
Sec. 3.3.2) holds for the whole. That is the answer, where there is one, to arXiv
2510.18810, which notes that product rules depend on how a function is written. What has
no join (``x + 1``, a bias) is no activation and keeps the rules of its operators.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .call import Call, map_tensors, tensors_in
from .gates import Activation
from .gradients import RatioGradient
from .rules import Identity, Rule
from .tape import Made, alive

#: operators that may join functions of one tensor
JOINS = frozenset(
    """add sub subtract rsub mul multiply div divide true_divide where maximum minimum
    fmax fmin""".split()
)
#: with one operand that carries relevance: functions of it, element by element
ELEMENTWISE = JOINS | frozenset(
    """neg negative abs absolute relu leaky_relu prelu rrelu clone contiguous to float
    double half bfloat16 type type_as masked_fill nan_to_num positive pow square
    float_power exp exp2 expm1 rsqrt reciprocal""".split()
)
#: of these, the ones that hand on all relevance
_CONSERVES = frozenset(
    """mul multiply div divide true_divide neg negative abs absolute relu leaky_relu
    prelu rrelu clone contiguous to float double half bfloat16 type type_as positive pow
    square float_power""".split()
)
#: what is left on the tape where a function of one tensor hands on all relevance
FUNCTION = "function"
_MAXIMUM_STEPS = 32


def _is_function(made: Made) -> bool:
    """Whether a tensor is a function of one other, element by element."""
    if len(made.parents) != 1 or made.operator is None:
        return False
    return _is_whole(made) or made.operator.name in ELEMENTWISE


def _is_whole(made: Made) -> bool:
    """Whether a tensor is a function that hands on all relevance."""
    return made.note == FUNCTION or isinstance(made.note, Activation)


def _functions(made: Made) -> list[Made]:
    """Return a record, and those of the tensors of which it is a function."""
    found = [made]
    while _is_function(made) and len(found) < _MAXIMUM_STEPS:
        made = made.parents[0]
        found.append(made)
    return found


def common_source(parents: Sequence[Made]) -> Made | None:
    """Return the nearest tensor of which all operands of a join are functions."""
    first, *others = parents
    if not any(map(_is_function, parents)) or all(other is first for other in others):
        return None  # the usual case: none is a function of another
    behind = [set(map(id, _functions(other))) for other in others]
    for made in _functions(first):
        if all(id(made) in known for known in behind):
            return made
    return None


def conserves(made: Made, source: Made) -> bool:
    """Whether the operators between a tensor and its source hand all relevance on."""
    while made is not source:
        assert made.operator is not None
        if not _is_whole(made) and made.operator.name not in _CONSERVES:
            return False
        made = made.parents[0]
    return True


@dataclass(frozen=True, kw_only=True)
class OneFunction(Identity):
    """The identity rule for a function that several operators compute.

    The gradient is ``g f(x) / x``, and 0 where ``x`` is 0. Conserves, element by
    element, but where ``x`` is 0.
    """

    def __call__(self, call: Call) -> Any:
        """Rebuild the output, which ``call.function`` returns for any argument."""
        (x,) = call.args
        call.note = Activation(0.0)
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
    stateful: bool = False
    in_place: bool = False
    inplace_position: None = None
    special: None = None
    twin: None = None

    def asked_in_place(self, args: Any, kwargs: Any) -> bool:
        """Whether it was called with ``inplace=True``: never."""
        return False


class Joins(Protocol):
    """What a table says of joins, see :class:`~.table.Table`."""

    one_function: Rule | None
    stabilises: bool


def join(
    table: Joins,
    operator: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parents: list[Made],
    source: Made,
) -> tuple[Any, tuple[Any, ...], dict[str, Any], int]:
    """Let an operator that joins functions of one tensor be one function of it.

    Returns:
        What to call instead, and how many of its arguments carry relevance: the
        same, if the operands hand on all relevance as they are; the same with
        constant factors; or a function of the tensor itself. 0, and the same, if
        they are no functions of a tensor of their shape.
    """
    operands = [t for t in tensors_in((args, kwargs)) if t.requires_grad]
    known, shape = source.source or (None, None)
    x = alive(known) if known is not None else None
    for made, operand in zip(parents, operands, strict=True):
        x, shape = (operand, operand.shape) if made is source else (x, shape)
    if any(t.shape != shape for t in operands):
        return operator, args, kwargs, 0
    keep = [conserves(made, source) for made in parents]
    if table.stabilises and x is not None:
        keep = [False]  # each operator on the way would absorb a little
    if all(keep) or (operator.kind == "quotient" and keep[0]):
        return operator, args, kwargs, len(keep)
    if operator.kind == "product" and any(keep):
        lasting = {id(t) for t, k in zip(operands, keep, strict=True) if k}

        def constant(tensor: Tensor) -> Tensor:
            keeps = id(tensor) in lasting or not tensor.requires_grad
            return tensor if keeps else tensor.detach()

        args, kwargs = map_tensors(constant, args), map_tensors(constant, kwargs)
        return operator, args, kwargs, sum(keep)
    if x is None:
        return operator, args, kwargs, 0
    args = map_tensors(Tensor.detach, args)
    kwargs = map_tensors(Tensor.detach, kwargs)
    rule = table.one_function
    assert rule is not None
    function = functools.partial(_whatever, operator.function, args, kwargs)
    return Joined(operator.name, function, rule), (x,), {}, 1


def _whatever(
    function: Callable[..., Any], args: Any, kwargs: dict[str, Any], x: Tensor
) -> Any:
    """Return what a function returns for its own arguments, in the dtype of ``x``."""
    output = function(*args, **kwargs)
    return output.to(x.dtype) if x.is_floating_point() else output
