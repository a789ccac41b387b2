"""Rules that carry relevance itself past one function, or stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.call import Call, carries_relevance
from ..core.rules.base import CarriedRule, relevant_tensors
from ..known.behind import ABSORBED

#: elementwise functions of degree one of one tensor: they pass relevance on
PASSING: frozenset[str] = frozenset(
    """
    neg negative relu leaky_relu prelu _prelu_kernel rrelu abs absolute dropout
    dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    native_dropout
""".split()
)


@dataclass(frozen=True, kw_only=True)
class PassOn(CarriedRule):
    """Relevance goes past the operator unchanged, to its first relevant input.

    The rule of Chefer et al. (CVPR 2021, arXiv 2012.09838; the code's ``RelProp``) for
    softmax, GELU, LayerNorm and dropout, and here for everything of one input that
    keeps its shape, such as a multiplication with constants. Where the input was
    broadcast, its copies are added up. Reciprocals (``1 / x``, ``x ** -n``) and
    functions that return less than they take stop it, as :class:`Absorb` does.
    """

    def __call__(self, call: Call) -> Any:
        """Run the call and lead relevance past it."""
        output = call.run()
        if isinstance(output, tuple):  # a value, then masks and indices
            return (self._past(call, output[0]), *output[1:])
        return self._past(call, output)

    def _past(self, call: Call, output: Tensor) -> Tensor:
        if not carries_relevance(output):
            return output
        x = relevant_tensors(call)[0]
        if output.numel() < x.numel() or _is_reciprocal(call):
            call.note = ABSORBED
            return call.switch(output, None)
        return call.switch(output, fit_to(x.shape), x)


@dataclass(frozen=True, kw_only=True)
class Absorb(CarriedRule):
    """The output is a constant for relevance: nothing goes to the inputs.

    For reciprocals and variances that normalise something else. The factor that they
    multiply receives all of the relevance.
    """

    def __call__(self, call: Call) -> Any:
        """Run the call and let no relevance past."""
        output = call.run()
        call.note = ABSORBED
        outputs = output if isinstance(output, tuple) else (output,)
        stopped = tuple(
            call.switch(t, None) if carries_relevance(t) else t for t in outputs
        )
        return stopped if isinstance(output, tuple) else stopped[0]


def _is_reciprocal(call: Call) -> bool:
    if call.kind == "quotient":
        return not carries_relevance(call.argument(0, "input"))
    if call.kind == "power" and call.operator != "square":
        exponent = call.argument(1, "exponent")
        if carries_relevance(exponent):
            return False  # an exponential
        return bool(torch.as_tensor(exponent).le(0).all())
    return False


def fit_to(shape: torch.Size) -> Any:
    """Add up the copies of an input of that shape."""

    def fit(relevance: Tensor) -> list[Tensor | None]:
        if relevance.shape == shape:
            return [relevance]
        if relevance.numel() == shape.numel():
            return [relevance.reshape(shape)]
        return [relevance.sum_to_size(shape)]

    return fit
