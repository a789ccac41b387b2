"""Rules that carry relevance through products and sums: z+, and halves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._nested import map_tensors
from ..core.call import Call
from ..core.rules.base import CarriedRule, relevant_tensors
from ..core.rules.linear import UniformProduct, share_of_each
from ..errors import RuleError
from ..known.addends import without_addend
from ..known.behind import is_absorbed
from .convert import Converted
from .passes import Kept, divide
from .past import fit_to


@dataclass(frozen=True, kw_only=True)
class PositiveProduct(CarriedRule):
    """z+ for what is linear, even halves for a product of two relevant factors.

    Chefer et al. (CVPR 2021, arXiv 2012.09838), Eq. 4 as their code has it: with
    ``Z = x+ W+ + x- W-``, the sum of all positive contributions, ``R_in = x+ (R/Z W+) +
    x- (R/Z W-)``, biases ignored. For ``A B`` with both factors relevant, ``S = R / (A
    B)``, ``R_A = A (S B^T) / 2`` and ``R_B = B (A^T S) / 2``. A multiplication element
    by element with constants passes relevance on. Conserves where ``Z > 0``, and
    ``A B != 0``.

    Z needs one product, not two: ``x+ W+ + x- W- = (x W + |x| |W|) / 2``.

    Args:
        joint (bool, optional): one denominator for both signs; if False, each sign has
            its own, as in the papers' "LRP" baselines, which hand on twice the
            relevance. Default: True
    """

    joint: bool = True

    def __call__(self, call: Call) -> Any:
        """Run the call; on the way back, share relevance by positive contributions."""
        if share_of_each(call) is not None:
            return Converted(rule=UniformProduct())(call)
        factors = relevant_tensors(call)
        if call.operator in _ELEMENTWISE:
            lasting = [t for t in factors if not is_absorbed(call.made(t))]
            if len(lasting) == 1:
                return call.switch(call.run(), fit_to(lasting[0].shape), lasting[0])
        output = call.run()
        if len(factors) > 1:
            return call.switch(output, _halves(call, factors), *factors)
        weight = call.argument(1, "weight")
        if self.joint and call.operator == "linear" and not weight.requires_grad:
            return call.switch(output, _linear(call, weight, output), *factors)
        share = _multilinear(call, factors[0], self.joint)
        return call.switch(output, share, *factors)


#: products of one element with one element
_ELEMENTWISE = frozenset({"mul", "multiply"})


@dataclass(frozen=True, kw_only=True)
class PositiveSum(CarriedRule):
    """z+ for sums, means and other functions that are linear with positive weights.

    ``R_i = w_i x_i+ R / sum(w x+)``. For ``mean`` this shares relevance by the positive
    values that were averaged.
    """

    def __call__(self, call: Call) -> Any:
        """Run the call; on the way back, share relevance by positive values."""
        output = call.run()
        relevant = relevant_tensors(call)
        if not isinstance(output, Tensor) or not output.requires_grad:
            return output
        if len(relevant) != 1 or output.is_complex() or relevant[0].is_complex():
            raise RuleError(
                f"PositiveSum() was given to {call.operator!r} with {len(relevant)} "
                "relevant inputs; it knows real functions of one. Give the operator a "
                "rule of its own."
            )
        share = _multilinear(call, relevant[0], True, weights=False)
        return call.switch(output, share, relevant[0])


def _positive(tensor: Tensor) -> Tensor:
    return tensor.clamp(min=0)


def _negative(tensor: Tensor) -> Tensor:
    return tensor.clamp(max=0)


def _ratio(relevance: Tensor, twice: Tensor, total: Tensor) -> Tensor:
    """Return ``relevance / twice``, and 0 where ``twice`` is 0 but for rounding.

    ``twice = x W + |x| |W|`` is twice the sum of the positive contributions. Where
    there are none, its two parts cancel up to the rounding of ``total = |x| |W|``.
    """
    smallest = total.mul(16 * torch.finfo(total.dtype).eps)
    return torch.where(twice <= smallest, 0, relevance / twice)


def _linear(call: Call, weight: Tensor, output: Tensor) -> Any:
    """z+ of ``functional.linear`` with a constant weight: three products."""
    bias = call.argument(2, "bias")
    kept, made = call.keep(call.argument(0, "input")), call.keep(output)

    def share(relevance: Tensor) -> list[Tensor | None]:
        x, output = kept.tensor, made.tensor
        size, strength = x.abs(), weight.abs()
        total = functional.linear(size, strength)
        z = output + total if bias is None else (output - bias).add_(total)
        s = _ratio(relevance, z, total)
        return [(s @ weight).mul_(x).addcmul_(s @ strength, size)]

    return share


@dataclass(frozen=True)
class _Held:
    """A tensor argument for the way back; ``factor`` counts the relevant ones."""

    kept: Kept
    factor: int | None


def _held(call: Call, factors: list[Tensor]) -> tuple[Any, Any]:
    """Return the arguments of a call without its addend, every tensor held."""
    places = {id(tensor): place for place, tensor in enumerate(factors)}

    def hold(tensor: Tensor) -> _Held:
        return _Held(call.keep(tensor), places.get(id(tensor)))

    args, kwargs = without_addend(call.operator, call.args, call.kwargs)
    return map_tensors(hold, args), map_tensors(hold, kwargs)


def _filled(value: Any, fill: Callable[[_Held], Tensor]) -> Any:
    """Return arguments in which what is held has become a tensor again."""
    if isinstance(value, _Held):
        return fill(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_filled(item, fill) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, fill) for key, item in value.items()}
    return value


def _multilinear(call: Call, x: Tensor, joint: bool, *, weights: bool = True) -> Any:
    """z+ of any function that is linear in ``x``, by torch's own derivative.

    With ``weights`` the constants that it takes are factors, else they are not.
    """
    args, kwargs = _held(call, [x])

    def graph(change: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Return a leaf for ``x`` and the output, every factor changed alike."""
        leaves = []

        def fill(held: _Held) -> Tensor:
            tensor = held.kept.tensor
            if held.factor is not None:
                leaves.append(change(tensor).clone().requires_grad_())
                return leaves[-1]
            factor = weights and tensor.is_floating_point()
            return change(tensor) if factor else tensor

        options = _filled(kwargs, fill)
        if change is Tensor.abs and options.get("alpha", 1) < 0:
            options["alpha"] = -options["alpha"]
        output = call.run_with(_filled(args, fill), options)
        return leaves[0], output

    def contribution(leaf: Tensor, z: Tensor, s: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(z, leaf, s)
        return leaf.detach() * gradient

    @torch.enable_grad()
    def share(relevance: Tensor) -> list[Tensor | None]:
        if joint:
            plain, strong = graph(Tensor.detach), graph(Tensor.abs)
            total = strong[1].detach()
            s = _ratio(relevance, plain[1].detach() + total, total)
            return [contribution(*plain, s) + contribution(*strong, s)]
        parts = []
        for sign in (_positive, _negative):
            leaf, z = graph(sign)
            parts.append(contribution(leaf, z, divide(relevance, z.detach())))
        return [parts[0] + parts[1]]

    return share


def _halves(call: Call, factors: list[Tensor]) -> Any:
    """An even part of the relevance to each factor, by torch's own derivative."""
    args, kwargs = _held(call, factors)

    @torch.enable_grad()
    def share(relevance: Tensor) -> list[Tensor | None]:
        leaves: dict[int, Tensor] = {}

        def fill(held: _Held) -> Tensor:
            if held.factor is None:
                return held.kept.tensor
            leaf = held.kept.tensor.clone().requires_grad_()
            return leaves.setdefault(held.factor, leaf)

        product = call.run_with(_filled(args, fill), _filled(kwargs, fill))
        s = divide(relevance, product.detach())
        ordered = [leaves[place] for place in sorted(leaves)]
        found = torch.autograd.grad(product, ordered, s)
        shares = {
            place: leaf.detach() * g / len(factors)
            for (place, leaf), g in zip(sorted(leaves.items()), found, strict=True)
        }
        return [shares.get(place) for place in range(len(factors))]

    return share
