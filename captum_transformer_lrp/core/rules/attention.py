"""Rules for fused scaled dot product attention; the kernel is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import RuleError
from ..call import Call, carries_relevance
from ..gradients import ScaledGradients
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
        """Run the kernel with the gradients of its operands scaled.

        Raises:
            RuleError: if the call is another operator.
        """
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
        """Run the kernel with everything but the value detached.

        Raises:
            RuleError: if the call is another operator.
        """
        query, key, value, mask = attention_operands(self, call)
        if isinstance(mask, Tensor):
            mask = mask.detach()
        return _run(call, [query.detach(), key.detach(), value, mask])
