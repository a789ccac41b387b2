"""Rules for functions of one tensor, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..._nested import tensors_in
from ...errors import RuleError, UnknownOperatorError
from ..call import Call
from ..gates import Activation, scaled
from ..gradients import RatioGradient, numbers_at_zero, value_and_slope_at_zero
from .base import ElementwiseRule, Rule, relevant_tensors


@dataclass(frozen=True, kw_only=True)
class Identity(ElementwiseRule):
    """Relevance passes an elementwise non-linearity unchanged: ``R_in = R_out``.

    The gradient is ``g f(x) / x``, with the limit ``f'(0)`` at ``x = 0``; where
    ``f(0) != 0`` (sigmoid, exp) no limit exists: ``|x|`` is bounded below by the
    machine epsilon of its dtype, and at 0 ``f(0)`` is a constant that absorbs all.
    AttnLRP (arXiv 2402.05602), Sec. 3.3.2. Shapes: input and output alike. Conserves,
    element by element, but where ``x`` is 0 and ``f(0)`` is not.
    """

    def __call__(self, call: Call) -> Any:
        """Rebuild the output of the function.

        Raises:
            UnknownOperatorError: if it is no function of one tensor, element by
                element: several carry relevance, or the output has another shape.
            RuleError: likewise, for a module.
        """
        slope: float | Tensor
        if call.module is not None:
            x, evaluate = _module_of_one(self, call)
            slope = _slope_of_module(call.module, x)
            call.note = _activation(slope)
            return RatioGradient.apply(x, evaluate, slope)
        given = list(tensors_in((call.args, call.kwargs)))
        relevant = [t for t in given if t.requires_grad]
        if len({id(t) for t in relevant}) != 1:
            raise UnknownOperatorError(_unfit(self, call, relevant, None))
        if len(given) == 1 and call.args and call.args[0] is given[0]:  # as usual
            (x, *further), kwargs = call.args, call.kwargs
            evaluate = _shaped(
                self, call, lambda t: call.function(t, *further, **kwargs)
            )
            at_zero, slope = numbers_at_zero(
                call.function, tuple(further), tuple(sorted(kwargs.items()))
            )
            call.note = Activation(at_zero)
        else:
            x = _copied_along(relevant[0], given)
            evaluate = _shaped(
                self, call, lambda t: call.run_with(*call.replacing(lambda _: t))
            )
            _, slope = value_and_slope_at_zero(evaluate, x)
            call.note = _activation(slope)
        return RatioGradient.apply(x, evaluate, slope)


def _activation(slope: float | Tensor) -> Activation:
    """Return what is left on the tape, where only the slope at 0 is known."""
    vanishes = isinstance(slope, Tensor) or math.isfinite(slope)
    return Activation(0.0 if vanishes else math.nan)


@dataclass(frozen=True, kw_only=True)
class ConstantFactor(ElementwiseRule):
    """A module that multiplies each element by a constant: ``R_in = R_out``.

    For RMSNorm modules, whose factor ``weight / rms`` counts as a constant (AttnLRP,
    arXiv 2402.05602, Prop. 3.4): the gradient is ``g y / x``, and 0 where ``x`` is 0.
    The same as what the operators inside give, but exact where they round to float32
    in a float64 model. Conserves, element by element.
    """

    def __call__(self, call: Call) -> Any:
        """Rebuild the output of the module.

        Raises:
            RuleError: if the call is no module with one tensor of one shape.
        """
        x, evaluate = _module_of_one(self, call)
        call.note = scaled(call.made(x))
        return RatioGradient.apply(x, evaluate, 0.0)


def _shaped(
    rule: Rule, call: Call, function: Callable[[Tensor], Any]
) -> Callable[[Tensor], Tensor]:
    """Return the function, which raises if its output has not its input's shape."""

    def evaluate(x: Tensor) -> Tensor:
        output = function(x)
        if not isinstance(output, Tensor) or output.shape != x.shape:
            raise UnknownOperatorError(_unfit(rule, call, [x], output))
        return output

    return evaluate


def _module_of_one(rule: Rule, call: Call) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return the relevant input of a module, and what it returned as a function."""
    relevant, output = relevant_tensors(call), call.value()
    if (
        len({id(t) for t in relevant}) != 1
        or not isinstance(output, Tensor)
        or output.shape != relevant[0].shape
    ):
        raise RuleError(_unfit(rule, call, relevant, output))
    return relevant[0], lambda x: output.to(x.dtype)


def _copied_along(x: Tensor, given: list[Tensor]) -> Tensor:
    """Return ``x`` in the shape that all tensors have together, if they have one."""
    try:
        shape = torch.broadcast_shapes(*(t.shape for t in given))
    except RuntimeError:
        return x
    return x if shape == x.shape else x.expand(shape)


def _unfit(rule: Rule, call: Call, relevant: list[Tensor], output: Any) -> str:
    """Return the message for what is no function of one tensor."""
    shapes = ", ".join(str(tuple(t.shape)) for t in relevant)
    out = [tuple(t.shape) for t in tensors_in(output)]
    returned = f" and returned {out}" if out else ""
    message = (
        f"{rule!r} was given to {call.operator}, which took relevant tensors of shapes "
        f"[{shapes}]{returned}. Expected a function of one tensor that keeps its "
        "shape. "
    )
    if call.module is None:
        return message + (
            "Give the operator another kind ('product' if it multiplies several, "
            "'additive' or 'structural' if it is linear), or a rule."
        )
    return message + (
        "Give it PlainGradient() or Detach(), or remove its row so that the operators "
        "inside it are seen."
    )


def _slope_of_module(module: nn.Module, x: Tensor) -> float | Tensor:
    if any(True for _ in chain(module.parameters(), module.buffers())):
        return value_and_slope_at_zero(module.forward, x)[1]
    probe = x.detach().reshape(-1)[:1]
    return float(value_and_slope_at_zero(module.forward, probe)[1])


@dataclass(frozen=True, kw_only=True)
class Power(ElementwiseRule):
    """Relevance passes ``x ** n`` unchanged for ``n > 0``; ``x ** -n`` is a constant.

    The identity rule with ``f(x) / x = x ** (n - 1)``, for one number or a tensor of
    exponents of one sign. Negative exponents appear where something is normalised, as
    :func:`torch.rsqrt` does; ``x ** 0`` is 1. Conserves for ``n > 0``.
    """

    def __call__(self, call: Call) -> Any:
        """Rebuild the power.

        Raises:
            RuleError: if the call is no power.
        """
        exponent = 2 if call.operator == "square" else call.argument(1, "exponent")
        if exponent is None or call.kind not in ("power", None):
            raise RuleError(
                f"{self!r} was given to {call.operator!r}, which has no exponent; "
                "expected 'pow' or 'square', or the kind 'power'."
            )
        if isinstance(exponent, Tensor):
            return Identity()(call) if bool((exponent > 0).all()) else call.value()
        if exponent <= 0:
            return call.value()
        if exponent == 1:
            return call.run()
        if exponent != 2:
            return Identity()(call)
        call.note = Activation(0.0)
        x = call.argument(0, "input", call.kwargs.get("self"))
        return torch.mul(x, x.detach())
