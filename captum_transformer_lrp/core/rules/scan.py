"""Rules for scans, the recurrences of linear attention; the kernel is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..._nested import map_tensors
from ..call import Call, carries_relevance
from ..gradients import ScaledGradients, scale_output_gradient
from .base import Rule


@dataclass(frozen=True, kw_only=True)
class UniformScan(Rule):
    """A scan is one product: each of its n relevant factors receives 1/n.

    The gradients at the output are divided by n, those at the last state by the number
    of its own factors, so that a sequence in two calls has the relevance of one
    (AttnLRP, arXiv 2402.05602, Prop. 3.3). Exponents of the decays have the Taylor rule
    (Prop. 3.1) on top, as those of a softmax. Torch's own gradient is a property of the
    function: the relevance does not depend on how it is computed. Shapes and operands:
    :func:`~captum_transformer_lrp.known.scans.linear_scan`. Conserves up to the Taylor
    rule, where the output is of degree one in each factor (keys of a delta rule are
    not).
    """

    def __call__(self, call: Call) -> Any:
        """Run the scan and divide the gradients at what it returns."""
        run, factors, decays, state = call.args
        held = max(sum(map(carries_relevance, factors[:-1])), 1)
        count = max(sum(map(carries_relevance, factors)), 1)
        if carries_relevance(state):  # a product itself, of factors of earlier tokens
            held, count = len(factors) - 1, len(factors)
            (state,) = ScaledGradients.apply((float(held),), state)
        output, last = call.run_with((run, factors, decays, state), {})
        if carries_relevance(output):
            output = scale_output_gradient(output, 1 / count)
        if carries_relevance(last):
            last = scale_output_gradient(last, 1 / held)
        return output, last


@dataclass(frozen=True, kw_only=True)
class ConstantScan(Rule):
    """A scan mixes values by constant weights: they receive everything.

    CP-LRP's rule for attention (Ali et al., arXiv 2202.07304, Sec. 3.1), of which a
    scan is the linear form: queries, keys, step sizes and decays make the pattern, and
    are detached. A state is the value of the tokens before. Conserves.
    """

    def __call__(self, call: Call) -> Any:
        """Run the scan with everything but values and state detached."""
        run, (value, *others), decays, state = call.args
        others, decays = map_tensors(Tensor.detach, (others, decays))
        return call.run_with((run, (value, *others), decays, state), {})
