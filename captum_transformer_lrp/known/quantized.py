"""Linear layers of int8 weights, whose operator torch cannot differentiate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .._nested import tensors_in
from ..core.call import Call
from ..core.rules.base import Rule
from ..errors import ModelStateError


@dataclass(frozen=True, kw_only=True)
class DequantizedLinear(Rule):
    """A linear layer with the gradient of its weights, read back as floats.

    ``torch.ao.quantization.quantize_dynamic`` rounds weights to int8 once and inputs at
    every call, and its operator has no backward pass. The output stays as it is; its
    gradient is that of ``x W^T + b`` with the weights as they were rounded, LRP-0 in
    every method. Conserves up to what the bias absorbs and the rounding of inputs
    changes, about one hundredth of the largest input. Shapes: those of
    :func:`torch.nn.functional.linear`.
    """

    inside: ClassVar[Literal["gradient", "constant"]] = "constant"

    def __call__(self, call: Call) -> Any:
        """Return the module's output with the gradient of its dequantised weights.

        Raises:
            ModelStateError: if the module gives no quantised weights of two dimensions.
        """
        relevant = [t for t in tensors_in((call.args, call.kwargs)) if t.requires_grad]
        weight = getattr(call.module, "weight", None)
        weight = weight() if callable(weight) else weight
        if not isinstance(weight, Tensor) or weight.dim() != 2 or len(relevant) != 1:
            raise ModelStateError(
                f"{call.operator} was taken for a linear layer with quantised weights, "
                "but it has none of two dimensions. Give its class another rule."
            )
        x, output = relevant[0], call.value()
        weight = weight.dequantize() if weight.is_quantized else weight
        linear = torch.nn.functional.linear(x, weight.to(x.dtype))
        linear.detach().copy_(output)  # torch needs no output on the way back
        return linear
