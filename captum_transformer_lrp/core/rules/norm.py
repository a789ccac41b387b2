"""Rules for fused normalisation layers."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import RuleError
from ..call import Call, carries_relevance
from ..gates import copies_of, scaled
from ..gradients import HALF_PRECISION, LinearizedNorm
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
        if call.operator not in _ARGUMENTS:
            raise RuleError(
                f"ConstantScale() was given to {call.operator!r}; it knows "
                f"{', '.join(_ARGUMENTS)}. Register the operators inside it instead."
            )
        given = _arguments(call)
        if carries_relevance(given["weight"]) or carries_relevance(given["bias"]):
            return call.decompose(_affine_outside, call.operator, given)
        own = given["training" if call.operator == "batch_norm" else "use_input_stats"]
        if not own or call.operator == "rms_norm":  # no other elements are mixed in
            call.note = scaled(call.made(x))
        if own:
            return _by_own_statistics(call, x, given)
        if call.operator == "instance_norm":
            return call.run()  # running statistics are constants already
        return _by_running_statistics(call, x, given)


#: the arguments of each normalisation, in order
_ARGUMENTS = {
    "layer_norm": "input normalized_shape weight bias eps",
    "rms_norm": "input normalized_shape weight eps",
    "group_norm": "input num_groups weight bias eps",
    "instance_norm": (
        "input running_mean running_var weight bias use_input_stats momentum eps"
    ),
    "batch_norm": "input running_mean running_var weight bias training momentum eps",
}


def _arguments(call: Call) -> dict[str, Any]:
    """Return the arguments of a normalisation by name."""
    names = _ARGUMENTS[call.operator].split()
    if "momentum" in names and not isinstance(call.function, types.FunctionType):
        names[1:5] = names[3:5] + names[1:3]  # below python's functions, torch's order
    return {
        "weight": None,
        "bias": None,
        "eps": None if call.operator == "rms_norm" else 1e-5,
        "use_input_stats": True,
        "training": False,
        **dict(zip(names, call.args, strict=False)),
        **call.kwargs,
    }


def _affine_outside(operator: str, given: dict[str, Any]) -> Tensor:
    """Normalise first, then scale and shift by operators that meet their own rules."""
    if operator not in ("layer_norm", "rms_norm"):
        raise RuleError(
            f"{operator} with a weight that depends on the explained inputs has "
            "no rule. Give the module around it PlainGradient()."
        )
    normalize = getattr(functional, operator)
    size, weight, bias = (given[n] for n in ("normalized_shape", "weight", "bias"))
    output: Tensor = normalize(given["input"], size, eps=given["eps"])
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def _by_own_statistics(call: Call, x: Tensor, given: dict[str, Any]) -> Tensor:
    """Normalise by the mean and size of elements of ``x``."""
    center, weight, eps = call.operator != "rms_norm", given["weight"], given["eps"]
    grouped: tuple[int, ...] | None = None  # the shape in which they are taken
    if "normalized_shape" in given:
        dims = tuple(range(-len(given["normalized_shape"]), 0))
    else:
        weight = _by_channel(weight, x)
        if call.operator == "batch_norm":
            dims = (0, *range(2, x.dim()))
        else:  # an instance is a group of one channel
            grouped, dims = (x.shape[0], given.get("num_groups", x.shape[1]), -1), (-1,)

    def evaluate(t: Tensor) -> tuple[Tensor, Tensor]:
        autocast = torch.is_autocast_enabled(t.device.type)
        if call.operator == "layer_norm" and not autocast:
            shape, bias = given["normalized_shape"], given["bias"]
            output, _, rstd = torch.native_layer_norm(t, shape, weight, bias, eps)
            return output, rstd
        wide = t.float() if t.dtype in HALF_PRECISION else t
        wide = wide if grouped is None else wide.reshape(grouped)
        if center:
            square = wide.var(dims, unbiased=False, keepdim=True)
        else:
            square = wide.square().mean(dims, keepdim=True)
        smallest = torch.finfo(t.dtype).eps if eps is None else eps
        return _evaluated(call, t), (square + smallest).rsqrt()

    result: Tensor = LinearizedNorm.apply(x, evaluate, weight, grouped, dims, center)
    return result


def _by_running_statistics(call: Call, x: Tensor, given: dict[str, Any]) -> Tensor:
    """Normalise each channel by constants.

    Written out, because torch's own backward pass is wrong on the CPU for one example
    whose gradient arrives transposed (seen with torch 2.15).
    """
    weight, bias, mean = (given[n] for n in ("weight", "bias", "running_mean"))
    rstd = (given["running_var"] + given["eps"]).rsqrt()
    scale = rstd if weight is None else rstd * weight
    shift = (0 if bias is None else bias) - mean * scale
    path = []
    for made in copies_of(call.made(x)):
        path.append(made)
        if hasattr(made.note, "merge"):  # see known/merging.py
            merged: Tensor | None = made.note.merge(
                call, x.shape, _by_channel(scale, x), _by_channel(shift, x)
            )
            if merged is not None:
                call.merged_with(path)
                return merged
    result: Tensor = LinearizedNorm.apply(
        x,
        lambda t: (_evaluated(call, t), _by_channel(rstd, x)),
        _by_channel(weight, x),
        None,
        (),
        False,
    )
    return result


def _by_channel(values: Tensor | None, x: Tensor) -> Tensor | None:
    """Return what each channel has, in a shape that broadcasts to ``x``."""
    return None if values is None else values.reshape(-1, *([1] * (x.dim() - 2)))


def _evaluated(call: Call, x: Tensor) -> Any:
    """Return the output for another input."""
    kwargs = {name: value for name, value in call.kwargs.items() if name != "input"}
    return call.function(x, *call.args[1:], **kwargs)
