"""Linear operators with one relevant factor: what their rules have in common.

An operator such as ``conv2d(x, w, b)`` with a constant ``w`` is a linear function of
``x``, up to ``b``. The classic rules change its constants and share relevance by what
the changed function says. Positive and negative contributions need no function each:
with ``c_ij = w_ij x_i`` the positive ones sum to ``(W x + |W| |x|) / 2``, the negative
ones to ``(W x - |W| |x|) / 2``, so that one extra product gives both, and one more on
the way back.

What a rule makes of a linear operator knows how it is merged with a batch normalisation
behind it (:mod:`..known.merging`), which scales and shifts its outputs.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._nested import map_tensors, tensors_in
from ..carried.passes import SPARSE
from ..core.call import Call
from ..core.gradients import HALF_PRECISION
from ..core.rules.base import Rule, relevant_tensors
from ..core.rules.linear import UniformProduct
from ..errors import RuleError, UnknownOperatorError
from ..known.addends import addend_of, without_addend
from ..known.by_argument import COUNTS
from ..known.merging import Mergeable

#: what is done to every constant of an operator: its weights, and what scales them
Change = Callable[[Tensor], Tensor]
Bias = Literal["absorbs", "ignored"]

#: products of one element with one element: what comes out is what goes in, scaled
_ELEMENTWISE = frozenset({"mul", "multiply"})


class LinearMap:
    """An operator as a linear function of its relevant factor.

    Args:
        call (Call): the operator.
        x (Tensor): the factor that carries relevance, as the model passed it.

    Attributes:
        x (Tensor): the factor.
        bias (Tensor or None): what is added, in a shape that broadcasts to the output.
        scale (Tensor or None): what the output is multiplied with, see :meth:`scaled`.
    """

    def __init__(self, call: Call, x: Tensor) -> None:
        self.call = call
        self.x = x
        self.scale: Tensor | None = None
        self.bias = _broadcast_addend(call)

    def scaled(self, scale: Tensor, shift: Tensor) -> LinearMap:
        """Return the function followed by ``scale * output + shift``."""
        new = LinearMap(self.call, self.x)
        new.scale = scale if self.scale is None else self.scale * scale
        new.bias = shift if self.bias is None else self.bias * scale + shift
        return new

    def run(self, x: Tensor, change: Change) -> Tensor:
        """Return the function at ``x``, its constants changed, without the bias."""

        def fill(tensor: Tensor) -> Tensor:
            if tensor.requires_grad:
                return x
            return change(tensor) if tensor.is_floating_point() else tensor

        call = self.call
        kwargs = {**map_tensors(fill, call.kwargs)}
        if "alpha" in kwargs:
            kwargs["alpha"] = float(change(torch.tensor(float(kwargs["alpha"]))))
        args = map_tensors(fill, call.args)
        output: Tensor = call.run_with(*without_addend(call.operator, args, kwargs))
        return output if self.scale is None else output * change(self.scale)

    def size(self) -> Tensor:
        """Return ``|W| |x|``, the sum of the sizes of all contributions."""
        if self.call.operator == "linear" and self.scale is None:
            weight = self.call.argument(1, "weight")
            if self.x is not weight:
                size: Tensor = AbsoluteLinear.apply(self.x, weight)
                return size
        return self.run(self.x.abs(), torch.abs)


def _broadcast_addend(call: Call) -> Tensor | None:
    addend = addend_of(call)
    if not isinstance(addend, Tensor):
        return None
    if call.operator.startswith("conv") and call.operator != "conv_tbc":
        digits = call.operator[-2:-1]
        weight = call.argument(1, "weight")
        spatial = int(digits) if digits.isdigit() else weight.dim() - 2
        return addend.reshape(-1, *([1] * spatial))
    beta = call.kwargs.get("beta", 1)
    return addend if beta == 1 else addend * beta


def operand_of(call: Call) -> Tensor | None:
    """Return the one factor in which an operator is linear, or None."""
    if call.kind != "product" or call.operator in {*_ELEMENTWISE, *COUNTS}:
        return None
    factors = relevant_tensors(call)
    return factors[0] if len(factors) == 1 else None


def is_sparse(call: Call) -> bool:
    """Whether a sparse tensor carries relevance, whose contributions are not told."""
    return any(t.layout in SPARSE for t in tensors_in(call.args) if t.requires_grad)


class LinearRule(Rule):
    """A rule for linear operators, whatever they are called.

    Products of several relevant factors share evenly between them, products with
    constants element by element pass relevance on (:class:`UniformProduct` does both).
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"product"})
    #: whether complex contributions have a meaning: they have no positive part
    knows_complex: ClassVar[bool] = False

    def __call__(self, call: Call) -> Any:
        """Rebuild the output of a linear operator.

        Raises:
            RuleError: if the rule was given to a module as a whole.
            UnknownOperatorError: if it tells positive contributions from negative ones
                and meets complex numbers.
        """
        if call.module is not None:
            raise RuleError(
                f"{self!r} was given to {call.operator} as a whole; expected an "
                "operator that multiplies. Give it to an operator ('linear'), a kind "
                "('product'), or a module of your model by class or ModuleName."
            )
        x = operand_of(call)
        if is_sparse(call):
            return NotImplemented
        if x is not None:
            if x.is_complex() and not self.knows_complex:
                raise UnknownOperatorError(
                    f"{self!r} was given to {call.operator!r} with complex numbers, "
                    "which are neither positive nor negative; expected real ones. "
                    "Give the operator PlainGradient() or Epsilon()."
                )
            return self.rebuild(call, LinearMap(call, x))
        return self.for_others(call)

    @abstractmethod
    def rebuild(self, call: Call, mapped: LinearMap) -> Tensor:
        """Return the output of a linear operator."""

    def for_others(self, call: Call) -> Any:
        """Return the output of a product that is no linear operator."""
        return UniformProduct()(call)


class ContributionRule(LinearRule):
    """A linear rule in the form R / x: relevance by signed contributions."""

    #: whether ``|W| |x|`` is needed
    signed: ClassVar[bool] = True

    @abstractmethod
    def factors(
        self, z: Tensor, plain: Tensor, size: Tensor, bias: Tensor, rounding: float
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the gradient is multiplied with, for ``W x`` and ``|W| |x|``.

        Args:
            z (Tensor): the output, at least in float32.
            plain (Tensor): ``W x``, the output without what was added.
            size (Tensor): ``|W| |x|``; zero for rules that are not signed.
            bias (Tensor): what was added.
            rounding (float): relative, of what these were computed in.
        """

    def rebuild(self, call: Call, mapped: LinearMap) -> Tensor:
        """Return the output, its gradient split in two."""
        size = mapped.size() if self.signed else None
        whole = call.run()
        operand = weakref.ref(mapped.x)
        return _split(self, call, whole, whole, size, mapped.bias, operand)


def _split(
    rule: ContributionRule,
    call: Call,
    value: Tensor,
    whole: Tensor,
    size: Tensor | None,
    bias: Tensor | None,
    operand: weakref.ref[Tensor],
) -> Tensor:
    with torch.no_grad():
        z = value.detach()
        z = z.float() if z.dtype in HALF_PRECISION else z
        nothing = z.new_zeros(())
        added = nothing if bias is None else bias.to(z.dtype)
        total = nothing if size is None else size.detach().to(z.dtype)
        plain = z if bias is None else z - added
        rounding = torch.finfo(value.dtype).eps
        factors = rule.factors(z, plain, total, added, rounding)
        if bias is not None:  # a mask may have made the output infinite
            hidden = z.isinf()
            factors = tuple(  # type: ignore[assignment]
                None if f is None else f.masked_fill(hidden, 0) for f in factors
            )
        first, second = (
            None if f is None else f.conj().to(value.dtype) for f in factors
        )
    output: Tensor = SplitGradient.apply(value.detach(), whole, size, first, second)

    def merge(call: Call, value: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        sized = None if size is None else size * scale.abs()
        moved = shift if bias is None else bias * scale + shift
        return _split(rule, call, value, whole * scale, sized, moved, operand)

    call.note = Mergeable(operand, merge, output.shape)
    return output


class AbsoluteLinear(torch.autograd.Function):
    """``|W| |x|``; the absolute weights are not kept, they are computed again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """Compute the product."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x.abs(), weight.abs())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradient at ``x``."""
        if gradient is None:
            return None, None
        x, weight = ctx.saved_tensors
        gradient = gradient.to(weight.dtype)  # under autocast it is not
        return (gradient @ weight.abs()).mul_(x.sign()), None


class SplitGradient(torch.autograd.Function):
    """A value whose gradient goes two ways, scaled on each by factors of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        first: Tensor,
        second: Tensor | None,
        first_factor: Tensor,
        second_factor: Tensor | None,
    ) -> Tensor:
        """Return ``value``, which may be ``first``, and keep the factors."""
        ctx.set_materialize_grads(False)
        ctx.both = second is not None and second_factor is not None
        ctx.save_for_backward(
            first_factor, *((second_factor,) if second_factor is not None else ())
        )
        return value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        """Scale the incoming gradient by both factors."""
        if gradient is None:
            return None, None, None, None, None
        first, *rest = ctx.saved_tensors
        second = gradient * rest[0] if ctx.both else None
        return None, gradient * first, second, None, None


def stabilize(x: Tensor, epsilon: float) -> Tensor:
    """Move ``x`` away from zero by ``epsilon``, keeping its sign (0 is positive).

    The sign of a complex number is its direction.
    """
    if x.is_complex():
        return torch.where(x == 0, epsilon, x + epsilon * x.sgn())
    return torch.where(x < 0, x - epsilon, x + epsilon)


def share_of_stabilized(z: Tensor, epsilon: float) -> Tensor:
    """Return ``z / stabilize(z, epsilon) = 1 / (1 + epsilon / |z|)``, a real number.

    0 where ``z`` is 0, and 1 where it is infinite, as under a mask of attention scores.
    Complex numbers are moved away from zero along their own direction.
    """
    return 1 / (1 + epsilon / z.abs())
