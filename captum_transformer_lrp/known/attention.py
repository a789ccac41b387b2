"""Fused attention, by the rules of the operators that it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.call import Call
from ..core.rules.attention import attention_operands
from ..core.rules.base import DelegatingRule
from .decompositions import scaled_dot_product_attention


@dataclass(frozen=True, kw_only=True)
class DecomposedAttention(DelegatingRule):
    """Fused attention as two matrix products and a softmax, each with its own rule.

    For methods whose rules for the two products and the softmax are no rule for the
    whole. The output equals the fused kernel's up to rounding, and memory grows with
    the square of the number of tokens.
    """

    def __call__(self, call: Call) -> Any:
        """Run the decomposition under the rules of the method.

        Raises:
            RuleError: if the call is another operator.
        """
        attention_operands(self, call)
        return call.decompose(
            lambda: scaled_dot_product_attention(*call.args, **call.kwargs)
        )
