"""Rules for fused attention and for scans, its linear form; kernels stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..._nested import map_tensors
from ...errors import RuleError
from ..call import Call, carries_relevance
from ..gradients import ScaledGradients, scale_output_gradient
from .base import Rule

_NAMES = ("query", "key", "value", "attn_mask")


def attention_operands(rule: Rule, call: Call) -> list[Any]:
    """Return query, key, value and mask of fused attention.

    Raises:
        RuleError: if the call is another operator.
    """
    if call.module is not None or call.kind not in ("attention", None):
        raise RuleError(
            f"{rule!r} was given to {call.operator!r}; expected an operator of the "
            "kind 'attention', such as 'scaled_dot_product_attention'. Attention that "
            "a module computes is seen operator by operator: give the module no rule."
        )
    return [call.argument(i, name) for i, name in enumerate(_NAMES)]


def _run(call: Call, operands: list[Any]) -> Any:
    kwargs = {k: v for k, v in call.kwargs.items() if k not in _NAMES}
    return call.run_with((*operands, *call.args[len(_NAMES) :]), kwargs)


@dataclass(frozen=True, kw_only=True)
class UniformAttention(Rule):
    """``softmax(q k^T) v`` as two even products and a Taylor-expanded softmax.

    What UniformProduct for both matrix products and PlainGradient for the softmax give
    in eager attention, in closed form: the gradients of query and key are scaled by 1/4
    and that of value by 1/2 (AttnLRP, arXiv 2402.05602, Prop. 3.1 and 3.3). Where only
    some of them carry relevance, the factors are those of the products that remain.
    Shapes: query ``(batch, heads, queries, features)``, key and value ``(batch,
    heads or groups, keys, features)``. Does not conserve.
    """

    def __call__(self, call: Call) -> Any:
        """Run the kernel with the gradients of its operands scaled."""
        query, key, value, mask = attention_operands(self, call)
        has_query, has_key = carries_relevance(query), carries_relevance(key)
        pattern = has_query or has_key or carries_relevance(mask)
        outer = 0.5 if pattern and carries_relevance(value) else 1.0
        inner = outer * (0.5 if has_query and has_key else 1.0)
        operands = [query, key, value, mask]
        factors = (inner, inner, outer, outer)
        if inner != 1:
            places = [i for i, t in enumerate(operands) if carries_relevance(t)]
            aliases = ScaledGradients.apply(
                tuple(factors[i] for i in places), *(operands[i] for i in places)
            )
            for i, alias in zip(places, aliases, strict=True):
                operands[i] = alias
        return _run(call, operands)


@dataclass(frozen=True, kw_only=True)
class ConstantPattern(Rule):
    """The attention pattern is a constant: value receives everything.

    CP-LRP (Ali et al., arXiv 2202.07304, Sec. 3.1): query, key and mask are detached.
    Shapes as in :class:`UniformAttention`. Conserves.
    """

    def __call__(self, call: Call) -> Any:
        """Run the kernel with everything but the value detached."""
        query, key, value, mask = attention_operands(self, call)
        if isinstance(mask, Tensor):
            mask = mask.detach()
        return _run(call, [query.detach(), key.detach(), value, mask])


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
