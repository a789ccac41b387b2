"""Two ways back through one graph: the gradient, and relevance itself.

Rules in modified-gradient form replace torch's gradient. Some methods need both from
one forward pass: the true gradient at the attention maps and the relevance of the same
maps (Chefer et al., CVPR 2021), or relevance that is no multiple of the input (the
z-box). For them a rule leaves the operator as it is and puts a :class:`Switch` behind
it. On the way back the switch hands a gradient to the operator, and relevance past it,
straight to the operator's inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: relevance of the output -> relevance of each operand, None for none
Share = Callable[[Tensor], Sequence["Tensor | None"]]


@dataclass
class Passes:
    """What travels back through one graph at this moment; shared by its switches.

    Attributes:
        relevance (bool): relevance, else gradients.
    """

    relevance: bool = False


class Switch(torch.autograd.Function):
    """An alias of an operator's output, behind which the two ways part.

    The alias shares memory with the output and counts its versions alone, so that the
    engine can give it memory of its own before the model writes into it.
    """

    @staticmethod
    def forward(
        ctx: Any, passes: Passes, share: Share | None, output: Tensor, *operands: Tensor
    ) -> Tensor:
        """Return the alias."""
        ctx.set_materialize_grads(False)
        ctx.passes, ctx.share, ctx.operands = passes, share, len(operands)
        return output.data

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        """Hand a gradient to the operator, or relevance to its operands."""
        if incoming is None or not ctx.passes.relevance:
            return None, None, incoming, *([None] * ctx.operands)
        if ctx.share is None:
            return None, None, None
        with torch._C.DisableTorchFunction():  # a checkpoint goes back inside an engine
            return None, None, None, *ctx.share(incoming)

    @staticmethod
    def made(node: Any) -> bool:
        """Whether a node of the graph is a switch."""
        return getattr(type(node), "_forward_cls", None) is Switch

    @staticmethod
    def absorbs(tensor: Tensor) -> bool:
        """Whether a tensor is a constant for relevance, though not for the gradient."""
        node = tensor.grad_fn
        return Switch.made(node) and node.share is None  # type: ignore[union-attr]


def divide(relevance: Tensor, by: Tensor) -> Tensor:
    """Return ``relevance / by``, and 0 where ``by`` is 0."""
    return torch.where(by == 0, 0, relevance / by)
