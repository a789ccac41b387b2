"""Rules for fused normalisation layers."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import RuleError
from ..call import Call, carries_relevance
from ..gates import copies_of, scaled
from ..gradients import LinearizedNorm
from ..tape import alive
from .base import Rule


@dataclass(frozen=True, kw_only=True)
class ConstantScale(Rule):
    """The standard deviation is a constant; the mean stays linear.

    For LayerNorm, GroupNorm and InstanceNorm ``y = (x - mean(x)) / std * w + b`` with
    ``std`` held fixed (Ali et al., arXiv 2202.07304, Sec. 3.2); for RMSNorm, which has
    no mean, the identity rule of AttnLRP (arXiv 2402.05602, Prop. 3.4). BatchNorm is
    linear in evaluation already; right behind a linear operator with a rule that weighs
    contributions (:class:`Epsilon`, :class:`Gamma`, ...) the two are one operator, as
    if it had been merged into the weights. Shapes: those of the operator. Conserves up
    to what the bias (and a running mean) absorbs.
    """

    def __call__(self, call: Call) -> Any:
        """Rebuild the normalisation as a linear function.

        Raises:
            RuleError: for an operator that is none of these.
        """
        x = call.argument(0, "input")
        if not carries_relevance(x):
            return call.run()
        norm = _NORMS.get(call.operator)
        if norm is None:
            raise RuleError(
                f"ConstantScale() was given to {call.operator!r}; it knows "
                f"{', '.join(_NORMS)}. Register the operators inside it instead."
            )
        weight, bias = _affine(call)
        if carries_relevance(weight) or carries_relevance(bias):
            return call.decompose(_affine_outside, call, weight, bias)
        if not _mixes(call):
            call.note = scaled(call.made(x))
        return norm(call, x, weight)


def _mixes(call: Call) -> bool:
    """Whether a mean of other elements is subtracted from each."""
    if call.operator in ("instance_norm", "batch_norm"):
        return bool(call.argument(5, *_BY_BATCH[call.operator]))
    return call.operator != "rms_norm"


#: the argument that asks for the statistics of the batch, and its default
_BY_BATCH = {
    "instance_norm": ("use_input_stats", True),
    "batch_norm": ("training", False),
}


def _affine(call: Call) -> tuple[Tensor | None, Tensor | None]:
    if call.operator in ("instance_norm", "batch_norm"):
        start = 3 if isinstance(call.function, types.FunctionType) else 1
        return (
            call.argument(start, "weight"),
            call.argument(start + 1, "bias"),
        )
    bias = None if call.operator == "rms_norm" else call.argument(3, "bias")
    return call.argument(2, "weight"), bias


def _affine_outside(call: Call, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Normalise first, then scale and shift by operators that meet their own rules."""
    x = call.argument(0, "input")
    size = call.argument(1, "normalized_shape")
    if call.operator not in ("layer_norm", "rms_norm"):
        raise RuleError(
            f"{call.operator} with a weight that depends on the explained inputs has "
            "no rule. Give the module around it PlainGradient()."
        )
    if call.operator == "layer_norm":
        eps = call.argument(4, "eps", 1e-5)
        output = functional.layer_norm(x, size, None, None, eps)
    else:
        output = functional.rms_norm(x, size, None, call.argument(3, "eps"))
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def _layer_norm(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
    dims = tuple(range(-len(call.argument(1, "normalized_shape")), 0))
    eps = call.argument(4, "eps", 1e-5)
    shape = call.argument(1, "normalized_shape")
    bias = call.argument(3, "bias")

    def evaluate(t: Tensor) -> tuple[Tensor, Tensor]:
        if torch.is_autocast_enabled(t.device.type):
            output = call.function(t, *call.args[1:], **_rest(call))
            return output, _reciprocal_std(t, dims, eps)
        output, _, rstd = torch.native_layer_norm(t, shape, weight, bias, eps)
        return output, rstd

    result: Tensor = LinearizedNorm.apply(x, evaluate, weight, None, dims, True)
    return result


def _rms_norm(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
    dims = tuple(range(-len(call.argument(1, "normalized_shape")), 0))
    eps = call.argument(3, "eps")

    def evaluate(t: Tensor) -> tuple[Tensor, Tensor]:
        wide = t.float() if t.dtype in (torch.float16, torch.bfloat16) else t
        tiny = torch.finfo(t.dtype).eps if eps is None else eps
        rstd = wide.square().mean(dims, keepdim=True).add_(tiny).rsqrt_()
        return call.function(t, *call.args[1:], **_rest(call)), rstd

    result: Tensor = LinearizedNorm.apply(x, evaluate, weight, None, dims, False)
    return result


def _group_norm(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
    groups = call.argument(1, "num_groups")
    return _channel_norm(call, x, weight, groups, call.argument(4, "eps", 1e-5))


def _instance_norm(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
    if not call.argument(5, "use_input_stats", True):
        output: Tensor = call.run()  # running statistics are constants already
        return output
    eps = call.argument(7, "eps", 1e-5)
    return _channel_norm(call, x, weight, x.shape[1], eps)


def _batch_norm(call: Call, x: Tensor, weight: Tensor | None) -> Tensor:
    """Batch normalisation, by its running statistics or those of the batch.

    Written out, because torch's own backward pass is wrong on the CPU for one example
    whose gradient arrives transposed (seen with torch 2.15).
    """
    eps = call.argument(7, "eps", 1e-5)
    of_batch = call.argument(5, "training", False)
    python = isinstance(call.function, types.FunctionType)
    running = call.argument(2 if python else 4, "running_var")
    dims = (0, *range(2, x.dim()))

    def evaluate(t: Tensor) -> tuple[Tensor, Tensor]:
        output = call.function(t, *call.args[1:], **_rest(call))
        if of_batch:
            return output, _reciprocal_std(t, dims, eps)
        return output, (running + eps).rsqrt().reshape(1, -1, *([1] * (x.dim() - 2)))

    if not of_batch:
        bias, mean = _affine(call)[1], call.argument(1 if python else 3, "running_mean")
        shape = (-1, *([1] * (x.dim() - 2)))
        scale = (running + eps).rsqrt() * (1 if weight is None else weight)
        shift = (0 if bias is None else bias) - mean * scale
        whole = merged(
            call, x, call.value(), scale.reshape(shape), shift.reshape(shape)
        )
        if whole is not None:
            return whole
    if weight is not None:
        weight = weight.reshape(-1, *([1] * (x.dim() - 2)))
    result: Tensor = LinearizedNorm.apply(x, evaluate, weight, None, dims, of_batch)
    return result


@dataclass(frozen=True, eq=False)
class Mergeable:
    """What a linear operator leaves on the tape: how it is merged, see :func:`merged`.

    Attributes:
        operand (weakref to Tensor): what it is linear in.
        merge (Callable): takes a call, its output, and the scale and shift.
        shape (torch.Size): of its output.
    """

    operand: weakref.ref[Tensor]
    merge: Callable[[Call, Tensor, Tensor, Tensor], Tensor]
    shape: torch.Size


def merged(
    call: Call, x: Tensor, value: Tensor, scale: Tensor, shift: Tensor
) -> Tensor | None:
    """Return ``value = scale * x + shift`` as if the operator behind ``x`` had made it.

    None if ``x`` is no output of a linear operator with a rule of this file.
    """
    path = []
    for made in copies_of(call.made(x)):
        path.append(made)
        linear = made.note
        if isinstance(linear, Mergeable) and linear.shape == x.shape:
            output = linear.merge(call, value, scale, shift)
            call.merged_with(path)
            return output
    return None


def operand_behind(call: Call) -> Tensor | None:
    """Return the operand of a linear operator, once its rule has run."""
    return alive(call.note.operand) if isinstance(call.note, Mergeable) else None


def _channel_norm(
    call: Call, x: Tensor, weight: Tensor | None, groups: int, eps: float
) -> Tensor:
    grouped = (x.shape[0], groups, -1)

    def evaluate(t: Tensor) -> tuple[Tensor, Tensor]:
        output = call.function(t, *call.args[1:], **_rest(call))
        return output, _reciprocal_std(t.reshape(grouped), (-1,), eps)

    if weight is not None:
        weight = weight.reshape(-1, *([1] * (x.dim() - 2)))
    result: Tensor = LinearizedNorm.apply(x, evaluate, weight, grouped, (-1,), True)
    return result


def _reciprocal_std(x: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    variance = wide.var(dims, unbiased=False, keepdim=True)
    return (variance + eps).rsqrt()


def _rest(call: Call) -> dict[str, Any]:
    return {k: v for k, v in call.kwargs.items() if k != "input"}


_NORMS = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "batch_norm": _batch_norm,
}
