"""The building blocks that change a gradient and leave the value alone.

Layer-wise relevance propagation in modified-gradient form keeps the output of every
operator and rebuilds its gradient so that autograd's gradient at an input ``x`` is
``R / x``, where ``R`` is the relevance of ``x``. Relevance is then ``x * gradient``,
at the price of one plain forward and backward pass. The functions below are the only
ones in the package that know how autograd is told so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._torch import saved_tensor_hooks
from ..errors import RuleError

HALF_PRECISION = (torch.float16, torch.bfloat16)


class ScaledGradients(torch.autograd.Function):
    """Aliases of several tensors, the gradient into each scaled by its own factor.

    One node for all of them, where a hook would take one for each tensor.
    """

    @staticmethod
    def forward(ctx: Any, factors: tuple[float, ...], *tensors: Tensor) -> Any:
        """Return the aliases."""
        ctx.set_materialize_grads(False)
        ctx.factors = factors
        return tuple(tensor.view_as(tensor) for tensor in tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Scale each gradient."""
        return None, *(
            None if gradient is None else gradient * factor
            for gradient, factor in zip(gradients, ctx.factors, strict=True)
        )


def scale_output_gradient(output: Tensor, factor: float | Tensor) -> Tensor:
    """Scale the gradient that ``output`` hands to the operator that made it.

    A hook on the tensor, not a node of the graph: later in-place changes of ``output``
    by the model stay legal, and the hook still sees the gradient before them. A view
    (einsum returns one) is copied: writes into it lead the gradient past its hook. A
    constant stays as it is.

    Raises:
        RuleError: if the output is no tensor.
    """
    if not isinstance(output, Tensor):
        raise RuleError(
            f"scale_output_gradient was given a {type(output).__name__}; expected a "
            "tensor. For each tensor in what a module returns write "
            "map_tensors(lambda t: scale_output_gradient(t, factor), call.run()), with "
            "map_tensors from captum_transformer_lrp.core.call."
        )
    if not output.requires_grad:
        return output
    if output._is_view():
        output = output.clone()
    output.register_hook(lambda g: None if g is None else g * factor)
    return output


class RatioGradient(torch.autograd.Function):
    """``f(x)`` whose gradient is ``g f(x) / x``: the identity rule for relevance.

    Only the ratio is saved, so the model may change ``x`` or ``f(x)`` in place. It is
    computed in float32 where x is of half precision.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, evaluate: Callable[[Tensor], Tensor], slope: float | Tensor
    ) -> Tensor:
        """Evaluate the function and save ``f(x) / x``, or ``slope`` where x is 0."""
        ctx.set_materialize_grads(False)
        output = evaluate(x)
        if x.dtype in HALF_PRECISION:
            wide = x.float()
            smallest = torch.finfo(x.dtype).eps
            ratio = _ratio(wide, evaluate(wide).float(), slope, smallest).to(x.dtype)
        else:
            ratio = _ratio(x, output, slope, torch.finfo(x.dtype).eps)
        ctx.save_for_backward(ratio)
        ctx.input_dtype = x.dtype
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        """Multiply the incoming gradient by the saved ratio."""
        if gradient is None:
            return None, None, None
        (ratio,) = ctx.saved_tensors
        return (gradient * ratio.conj()).to(ctx.input_dtype), None, None


def _ratio(x: Tensor, output: Tensor, slope: float | Tensor, smallest: float) -> Tensor:
    """``output / x`` with its limit at 0; an infinite slope means there is none."""
    if isinstance(slope, Tensor):
        ratio = torch.where(x == 0, slope.to(x.dtype), output / x)
        unbounded = slope.abs().isinf()
        return torch.where(unbounded, _bounded_ratio(x, output, smallest), ratio)
    if math.isinf(slope):  # f(0) != 0, or a vertical tangent
        return _bounded_ratio(x, output, smallest)
    ratio = output / x
    if ratio.is_complex():
        return torch.where(x == 0, slope, ratio)
    return ratio.nan_to_num_(nan=slope, posinf=math.inf, neginf=-math.inf)


def _bounded_ratio(x: Tensor, output: Tensor, smallest: float) -> Tensor:
    """``output / x``, the absolute value of ``x`` at least ``smallest``; 0 at 0."""
    if x.is_complex():
        away = torch.where(x.abs() < smallest, smallest, x)
    else:
        away = torch.where(x < 0, x.clamp(max=-smallest), x.clamp(min=smallest))
    return (output / away).masked_fill_(x == 0, 0)


def kept_here() -> AbstractContextManager[object]:
    """Keep what autograd saves for a derivative of our own from hooks around it.

    A checkpoint counts what its part of the model saves, and computes it again.
    """
    if saved_tensor_hooks(True) is None:
        return nullcontext()
    return torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)


def value_and_slope_at_zero(
    function: Callable[[Tensor], Tensor], like: Tensor
) -> tuple[Tensor, float | Tensor]:
    """Return ``f(0)`` and ``f'(0)`` by torch's own derivative; ``inf`` if f(0) != 0.

    Args:
        function (Callable): works element by element.
        like (Tensor): at zeros of which shape.
    """
    with torch.enable_grad(), kept_here():
        zero = torch.zeros_like(like, requires_grad=True)
        value = function(zero)
        if bool((value.detach() != 0).any()):
            return value.detach(), math.inf
        (slope,) = torch.autograd.grad(value.sum(), zero)
    return value.detach(), slope


@lru_cache(maxsize=512)
def numbers_at_zero(
    function: Callable[..., Tensor],
    args: tuple[Any, ...],
    kwargs: tuple[tuple[str, Any], ...],
) -> tuple[float, float]:
    """Return ``f(0)`` and ``f'(0)`` where further arguments are plain numbers."""
    value, slope = value_and_slope_at_zero(
        lambda x: function(x, *args, **dict(kwargs)),
        torch.zeros(1, dtype=torch.float64),
    )
    return float(value), float(slope)


class LinearizedNorm(torch.autograd.Function):
    """A normalisation whose scale is a constant: the mean stays linear.

    With ``y = (x - mean) * rstd * weight + bias`` the gradient is that of a linear
    function, ``rstd * (g weight - mean(g weight))``; without ``center`` (RMSNorm)
    the mean is not subtracted.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
        weight: Tensor | None,
        grouped: tuple[int, ...] | None,
        dims: tuple[int, ...],
        center: bool,
    ) -> Tensor:
        """Evaluate and keep the reciprocal standard deviation and the weight.

        ``grouped`` is the shape in which the statistics are taken over ``dims``.
        """
        ctx.set_materialize_grads(False)
        output, rstd = evaluate(x)
        ctx.save_for_backward(rstd, *(() if weight is None else (weight,)))
        ctx.grouped, ctx.dims, ctx.center = grouped, dims, center
        ctx.input_dtype = x.dtype
        # instance_norm returns a view, into which a model could not write afterwards
        return output.clone() if output._is_view() else output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient of the linear function that is left."""
        if gradient is None:
            return None, None, None, None, None, None
        rstd, *rest = ctx.saved_tensors
        shape = gradient.shape
        if rest:
            gradient = gradient * rest[0]
        if gradient.dtype in HALF_PRECISION:
            gradient = gradient.float()
        if ctx.grouped is not None:
            gradient = gradient.reshape(ctx.grouped)
        if ctx.center:
            gradient = gradient - gradient.mean(ctx.dims, keepdim=True)
        gradient = (gradient * rstd).reshape(shape).to(ctx.input_dtype)
        return gradient, None, None, None, None, None
