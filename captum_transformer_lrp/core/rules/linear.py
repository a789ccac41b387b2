"""Rules for sums, products and quotients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..._nested import map_tensors
from ..call import Call
from ..gates import Activation, gate_strength, is_sum_of, scaled
from ..gradients import scale_output_gradient
from ..plugins import plugins
from .base import DelegatingRule, Rule, relevant_tensors


@dataclass(frozen=True, kw_only=True)
class PlainGradient(Rule):
    """Torch's own gradient: LRP-0, exact for everything that is linear.

    For ``z = sum_i w_i x_i + b`` the relevance of ``x_i`` is ``w_i x_i R / z``; the
    bias absorbs ``b R / z``. Bach et al. (2015), Eq. 56 with epsilon 0. Conserves up
    to what the bias absorbs. For softmax it is the first-order Taylor rule of AttnLRP
    (arXiv 2402.05602, Prop. 3.1), which does not conserve.
    """

    def __call__(self, call: Call) -> Any:
        """Run the call as it is."""
        return call.run()


@dataclass(frozen=True, kw_only=True)
class UniformProduct(Rule):
    """Each of n relevant factors of a product receives 1/n of its relevance.

    AttnLRP (arXiv 2402.05602), Prop. 3.3 for matrix products (n = 2) and the rule for
    gated units. With one relevant factor the operator is linear and the gradient is
    torch's own; of one tensor whose n elements are multiplied (``x.prod()``) each
    receives 1/n. Shapes: those of the operator, broadcasting included. Conserves.

    Three factors that are multiplied two by two share by the order: of ``(c b) x`` the
    last receives 1/2, of ``c (b x)`` 1/4. The scans of state space models, which
    multiply in both orders, are one product (:class:`~.attention.UniformScan`).
    """

    def __call__(self, call: Call) -> Any:
        """Run the call and divide the gradient by the number of relevant factors."""
        output, share = call.run(), share_of_each(call)
        if share is None:
            count = len(relevant_tensors(call)) if call.kind == "product" else 1
            if count < 2:
                return output
            share = 1 / count
        return scale_output_gradient(output, share)


def share_of_each(call: Call) -> Tensor | float | None:
    """Return 1/n for a product of n elements of one tensor, None for other operators.

    Only factors that carry relevance count. The share has a shape that broadcasts to
    the output.
    """
    count = plugins.counts.get(call.operator)
    number = None if count is None else count(call)
    if number is None:
        return None
    return 1 / (number.clamp(min=1) if isinstance(number, Tensor) else max(number, 1))


_PAIRS = frozenset("mul multiply outer ger kron".split())


def multiplies_pairs(call: Call) -> bool:
    """Whether each element of a product is one product of elements: nothing is summed.

    So do ``a * b``, the outer product, and ``einsum("...,...->...", a, b)``.
    """
    asked = plugins.pairs.get(call.operator)
    return call.operator in _PAIRS if asked is None else bool(asked(call))


#: of a tensor and itself: its square, element by element
_SQUARES = frozenset(["mul", "multiply"])


@dataclass(frozen=True, kw_only=True)
class GatedProduct(Rule):
    """In ``gate * value`` the gate is a constant: the value receives everything.

    CP-LRP (Ali et al., arXiv 2202.07304) extended to gated linear units, as AttnLRP's
    baseline does. A gate is a factor that is a non-linear function of one tensor,
    element by element, however it is written and moved about
    (:func:`~..gates.gate_strength`). Where both factors are, the one that does not
    vanish at 0 (a sigmoid) is the gate. Without a gate, or with two equal ones, the
    factors share evenly (:class:`UniformProduct`). Conserves.

    A product that sums as well has no gate: ``a @ b``, though its inner dimension may
    be 1, and ``linalg.vecdot(a, b)``, which is ``(a * b).sum(-1)``, where the gate is
    seen. What is 0 at 0 is told by the activation alone: ``(1 + tanh(z)) / 2`` is as
    strong as ``tanh(z)``, not as ``sigmoid(2 * z)``, which it equals.
    """

    def __call__(self, call: Call) -> Any:
        """Run the call with the gate detached."""
        factors = relevant_tensors(call) if multiplies_pairs(call) else []
        if len(factors) == 2:
            first, second = map(call.made, factors)
            if call.operator in _SQUARES and first is second is not None:
                call.note = Activation(0.0)
            excess = gate_strength(first) - gate_strength(second)
            if excess:
                gate = factors[0 if excess > 0 else 1]
                return call.run_with(*call.replacing(Tensor.detach, only={id(gate)}))
        return UniformProduct()(call)


#: rules that are torch's own gradient where one argument carries relevance
PLAIN_FOR_ONE = (UniformProduct, GatedProduct)

#: where operators other than a division take what they divide by
_DENOMINATOR = {"linalg_solve": (0, "A"), "linalg_solve_triangular": (0, "A")}


@dataclass(frozen=True, kw_only=True)
class ConstantDenominator(Rule):
    """In ``numerator / denominator`` the denominator is a constant.

    The rule for normalisations written out by hand (AttnLRP, arXiv 2402.05602,
    Sec. 3.3.3). Conserves.

    Args:
        own_sum (str, optional): what happens to ``x / x.sum()``, weights made to sum to
            one, as a router of experts does with its softmax: ``"constant"``, or
            ``"gradient"`` for the Taylor rule that the softmax has, which does not
            conserve. Default: ``"constant"``
    """

    own_sum: Literal["constant", "gradient"] = "constant"

    def __call__(self, call: Call) -> Any:
        """Run the call with the denominator detached."""
        position, name = _DENOMINATOR.get(call.operator, (1, "other"))
        denominator = call.argument(position, name)
        if not isinstance(denominator, Tensor) or not denominator.requires_grad:
            return call.run()
        numerator = call.argument(0, "input")
        if self.own_sum == "gradient" and is_sum_of(
            call.made(denominator), call.made(numerator)
        ):
            return call.run()
        if position:
            call.note = scaled(call.made(numerator))
        if denominator is numerator and position:  # x / x: only once a constant
            return call.run_with(
                (call.args[0], denominator.detach(), *call.args[2:]), call.kwargs
            )
        args, kwargs = call.replacing(Tensor.detach, only={id(denominator)})
        return call.run_with(args, kwargs)


@dataclass(frozen=True, kw_only=True)
class HalfGradient(Rule):
    """Half of torch's gradient: conserves for functions of degree two (a variance)."""

    def __call__(self, call: Call) -> Any:
        """Run the call and halve the gradient at its output.

        ``var_mean`` returns the variance first and the mean, which is linear, second.
        """
        output = call.run()
        variance = output[0] if isinstance(output, tuple) else output
        scale_output_gradient(variance, 0.5)
        return output


@dataclass(frozen=True, kw_only=True)
class Detach(DelegatingRule):
    """The output is a constant: no relevance goes to the inputs.

    CP-LRP's rule for the softmax of attention (Ali et al., arXiv 2202.07304, Sec. 3.1),
    and the rule for reciprocals that normalise something else. Conserves when the
    output is multiplied with a factor that carries relevance on.
    """

    inside: ClassVar[Literal["gradient", "constant"]] = "constant"

    def __call__(self, call: Call) -> Any:
        """Return the bare value."""
        output = call.run() if call.module is None else call.value()
        if isinstance(output, Tensor):
            return output.detach()
        return map_tensors(Tensor.detach, output)
