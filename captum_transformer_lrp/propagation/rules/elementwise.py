"""Rules for functions of one tensor, element by element."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..call import Call, carries_relevance, tensors_in
from ..gates import Activation
from ..gradients import RatioGradient, kept_here, value_and_slope_at_zero
from .base import Rule


@dataclass(frozen=True, kw_only=True)
class Identity(Rule):
    """Relevance passes an elementwise non-linearity unchanged: ``R_in = R_out``.

    The gradient is ``g f(x) / x``, with the limit ``f'(0)`` at ``x = 0``; where
    ``f(0) != 0`` (sigmoid, exp) no limit exists and ``|x|`` is bounded below by the
    machine epsilon of its dtype. AttnLRP (arXiv 2402.05602), Sec. 3.3.2. Shapes: input
    and output alike. Conserves, element by element.
    """

    form: ClassVar[Literal["elementwise"]] = "elementwise"

    def __call__(self, call: Call) -> Any:
        """Rebuild the output of the function.

        Raises:
            TypeError: if a module given this rule is no function of one tensor.
        """
        x = call.argument(0, "input")
        if call.module is not None:
            return self._module(call)
        if not carries_relevance(x):  # clamp(constant, min=relevant): rare, exact
            return call.run()
        function = call.function
        if len(call.args) == 1 and not call.kwargs:
            at_zero, slope_there = value_and_slope_at_zero(function, (), {})
            call.note = Activation(at_zero)
            return RatioGradient.apply(x, function, slope_there)
        rest = call.args[1:]
        kwargs = {k: v for k, v in call.kwargs.items() if k != "input"}
        slope: float | Tensor
        if any(True for _ in tensors_in((rest, kwargs))):
            slope = _slope_elementwise(x, lambda t: function(t, *rest, **kwargs))
            call.note = _activation(slope)
        else:
            at_zero, slope = value_and_slope_at_zero(function, rest, kwargs)
            call.note = Activation(at_zero)
        return RatioGradient.apply(x, lambda t: function(t, *rest, **kwargs), slope)

    def _module(self, call: Call) -> Any:
        x, output = _one_tensor_in_and_out(self, call)
        assert call.module is not None
        slope = _slope_of_module(call.module, x)
        call.note = _activation(slope)
        return RatioGradient.apply(x, lambda t: output.to(t.dtype), slope)


def _activation(slope: float | Tensor) -> Activation:
    """Return what is left on the tape, where only the slope at 0 is known."""
    vanishes = isinstance(slope, Tensor) or math.isfinite(slope)
    return Activation(0.0 if vanishes else math.nan)


@dataclass(frozen=True, kw_only=True)
class ConstantFactor(Rule):
    """A module that multiplies each element by a constant: ``R_in = R_out``.

    For RMSNorm modules, whose factor ``weight / rms`` counts as a constant (AttnLRP,
    arXiv 2402.05602, Prop. 3.4): the gradient is ``g y / x``, and 0 where ``x`` is 0.
    The same as what the operators inside give, but exact where they round to float32
    in a float64 model. Conserves, element by element.
    """

    form: ClassVar[Literal["elementwise"]] = "elementwise"

    def __call__(self, call: Call) -> Any:
        """Rebuild the output of the module.

        Raises:
            TypeError: if the call is no module with one tensor of one shape.
        """
        x, output = _one_tensor_in_and_out(self, call)
        return RatioGradient.apply(x, lambda t: output.to(t.dtype), 0.0)


def _one_tensor_in_and_out(rule: Rule, call: Call) -> tuple[Tensor, Tensor]:
    """Return the relevant input and the output of a module that keeps its shape."""
    relevant = [t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad]
    output = call.value()
    if (
        len({id(t) for t in relevant}) != 1
        or not isinstance(output, Tensor)
        or output.shape != relevant[0].shape
    ):
        shapes = ", ".join(str(tuple(t.shape)) for t in relevant)
        out = [tuple(t.shape) for t in tensors_in(output)]
        raise TypeError(
            f"{rule!r} was given to {call.operator}, which took relevant tensors of "
            f"shapes [{shapes}] and returned {out}. Expected a function of one tensor "
            "that keeps its shape. Give it PlainGradient() or Detach(), or remove its "
            "row so that the operators inside it are seen."
        )
    return relevant[0], output


def _slope_elementwise(x: Tensor, function: Any) -> float | Tensor:
    """Return ``f'(0)`` per element, for functions with tensors as further arguments."""
    with torch.enable_grad(), kept_here():
        zero = torch.zeros_like(x, requires_grad=True)
        value = function(zero)
        if bool((value.detach() != 0).any()):
            return float("inf")
        (slope,) = torch.autograd.grad(value.sum(), zero)
    return slope


def _slope_of_module(module: nn.Module, x: Tensor) -> float | Tensor:
    if any(True for _ in module.parameters()) or any(True for _ in module.buffers()):
        return _slope_elementwise(x, module.forward)
    probe = x.detach().reshape(-1)[:1]
    slope = _slope_elementwise(probe, module.forward)
    return slope if isinstance(slope, float) else float(slope)


@dataclass(frozen=True, kw_only=True)
class Power(Rule):
    """Relevance passes ``x ** n`` unchanged for ``n > 0``; ``x ** -n`` is a constant.

    The identity rule with ``f(x) / x = x ** (n - 1)``; negative exponents appear where
    something is normalised, as :func:`torch.rsqrt` does. Conserves for ``n > 0``.
    """

    form: ClassVar[Literal["elementwise"]] = "elementwise"

    def __call__(self, call: Call) -> Any:
        """Rebuild the power.

        Raises:
            TypeError: if the exponent itself carries relevance.
        """
        x = call.argument(0, "input", call.kwargs.get("self"))
        if call.args[1:] == (2,) and carries_relevance(x):
            return torch.mul(x, x.detach())
        exponent = 2 if call.operator == "square" else call.argument(1, "exponent")
        if carries_relevance(exponent):
            raise TypeError(
                f"{call.operator}: the exponent depends on the explained inputs, for "
                "which no rule is known. Write it as exp(exponent * log(base)), or "
                "give the module around it a rule."
            )
        if not carries_relevance(x):
            return call.run()
        if isinstance(exponent, Tensor):
            if exponent.numel() != 1:
                return call.run()
            exponent = float(exponent)
        if exponent < 0:
            return call.value()
        if exponent == 2:
            return torch.mul(x, x.detach())
        return Identity()(call)
