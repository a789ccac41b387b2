"""Two ways back through one graph: the gradient, and relevance itself.

Rules in modified-gradient form replace torch's gradient. Some methods need both from
one forward pass: the true gradient at the attention maps and the relevance of the same
maps (Chefer et al., CVPR 2021), or relevance that is no multiple of the input (the
z-box). For them a rule leaves the operator as it is and puts a :class:`Switch` behind
it. On the way back the switch hands a gradient to the operator, and relevance past it,
straight to the operator's inputs.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._torch import DisableTorchFunction, function_class, is_wrapped
from ..core.call import MISTAKES, PASSED_ON, Call, misfit

#: layouts of tensors that have no memory place by place
SPARSE = frozenset(
    (
        torch.sparse_coo,
        torch.sparse_csr,
        torch.sparse_csc,
        torch.sparse_bsr,
        torch.sparse_bsc,
    )
)

#: relevance of the output -> relevance of each operand, None for none
Share = Callable[[Tensor], Sequence["Tensor | None"]]


class Kept:
    """Values that a share needs on the way back, as they were.

    Attributes:
        tensor (Tensor): without a gradient; memory is shared with the model's tensor
            until the model is about to write into it.
    """

    __slots__ = ("__weakref__", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


class Held:
    """A share, as long as relevance may still go back.

    Attributes:
        share (Callable or None): None lets nothing past.
    """

    __slots__ = ("__weakref__", "share")

    def __init__(self, share: Share | None) -> None:
        self.share = share


class Passes:
    """What travels back through one graph at this moment; shared by its switches.

    Attributes:
        relevance (bool): relevance, else gradients.
    """

    def __init__(self) -> None:
        self.relevance = False
        self._kept: dict[int, list[weakref.ref[Kept]]] = {}
        self._held: list[weakref.ref[Held]] = []

    def keep(self, tensor: Tensor) -> Kept:
        """Return the values of a tensor, safe from what the model writes into it."""
        if tensor.layout in SPARSE:  # clamped and compared on the way back
            return Kept(tensor.detach().to_dense())
        kept = Kept(tensor)
        place = tensor.untyped_storage().data_ptr()
        self._kept.setdefault(place, []).append(weakref.ref(kept))
        return kept

    def before_writing(self, target: Tensor) -> None:
        """Copy what is kept of the memory that the model is about to write into."""
        if is_wrapped(target):
            return  # inside vmap: it has no memory of its own, and is never kept
        if target.layout in SPARSE:
            return  # a dense copy of it is kept
        for reference in self._kept.pop(target.untyped_storage().data_ptr(), ()):
            kept = reference()
            if kept is not None:
                kept.tensor = kept.tensor.clone()

    def hold(self, share: Share | None) -> Held:
        """Return what holds a share until the run is over."""
        held = Held(share)
        self._held.append(weakref.ref(held))
        return held

    def switch(
        self, call: Call, output: Tensor, share: Share | None, *operands: Tensor
    ) -> Tensor:
        """Return an alias of an output, behind which the two ways part.

        Args:
            call (Call): what made the output.
            output (Tensor): with torch's own gradient, which is left alone.
            share (Callable or None): takes the relevance of ``output``, and returns
                that of each operand, or None for none; None lets nothing past.
            operands (Tensor): the inputs that receive relevance.
        """
        told_of = replace(call, args=(), kwargs={}, output=None, engine=None)
        told_of.rule = call.rule  # without tensors, for a message

        def told(relevance: Tensor) -> Sequence[Tensor | None]:
            assert share is not None
            try:
                return share(relevance)
            except PASSED_ON:
                raise
            except MISTAKES as error:
                raise misfit(told_of, error) from error

        passing = None if share is None else told
        alias: Tensor = Switch.apply(self, passing, output, *operands)
        return alias

    def close(self) -> None:
        """Forget all shares: nothing goes back any more.

        A share may reach tensors further on (through the engine, which knows the
        attention maps). Their graph holds the switch and this its share: a cycle that
        runs through autograd, where the garbage collector does not see it.
        """
        for reference in self._held:
            held = reference()
            if held is not None:
                held.share = None
        self._held.clear()


class Switch(torch.autograd.Function):
    """An alias of an operator's output, behind which the two ways part.

    The alias shares memory and its count of versions with the output, so that the model
    may write into it where torch would let it.
    """

    @staticmethod
    def forward(
        ctx: Any, passes: Passes, share: Share | None, output: Tensor, *operands: Tensor
    ) -> Tensor:
        """Return the alias."""
        ctx.set_materialize_grads(False)
        ctx.passes, ctx.held, ctx.operands = passes, passes.hold(share), len(operands)
        return output.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, incoming: Tensor | None) -> tuple[Tensor | None, ...]:
        """Hand a gradient to the operator, or relevance to its operands."""
        if incoming is None or not ctx.passes.relevance:
            return None, None, incoming, *([None] * ctx.operands)
        share = ctx.held.share
        if share is None:
            return None, None, None, *([None] * ctx.operands)
        with DisableTorchFunction():  # a checkpoint goes back inside an engine
            return None, None, None, *share(incoming)

    @staticmethod
    def made(node: Any) -> bool:
        """Whether a node of the graph is a switch."""
        return function_class(node) is Switch


def divide(relevance: Tensor, by: Tensor) -> Tensor:
    """Return ``relevance / by``, and 0 where ``by`` is 0."""
    return torch.where(by == 0, 0, relevance / by)
