"""Rules whose relevance is no multiple of the input: for the layer that reads it."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._nested import tensors_in
from ..carried.convert import Converted
from ..carried.positive import PositiveProduct
from ..core.call import Call, carries_relevance
from ..core.operators import MOVES
from ..core.rules.base import CarriedRule, DelegatingRule, Rule
from ..core.rules.linear import UniformProduct
from ..core.tape import Made
from ..known.merging import Mergeable
from .contributions import check_epsilon, check_options
from .linear_map import Bias, LinearMap, LinearRule, operand_of, stabilize


class CarriedLinearRule(CarriedRule, LinearRule):
    """A linear rule whose relevance may be no multiple of the input."""

    def for_others(self, call: Call) -> Any:
        """Share evenly, in the form of this rule."""
        return Converted(rule=UniformProduct())(call)

    @abstractmethod
    def share(self, call: Call, mapped: LinearMap) -> Callable[[Tensor], Tensor]:
        """Return the function that takes the output's relevance to the input's."""

    def rebuild(self, call: Call, mapped: LinearMap) -> Tensor:
        """Return the output, past which relevance is led to the input."""
        return self._led_past(call, mapped, call.run())

    def _led_past(self, call: Call, mapped: LinearMap, output: Tensor) -> Tensor:
        share = torch.enable_grad()(self.share(call, mapped))
        output = call.switch(output, lambda relevance: [share(relevance)], mapped.x)

        def merge(call: Call, value: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
            return self._led_past(call, mapped.scaled(scale, shift), value)

        call.note = Mergeable(weakref.ref(mapped.x), merge, output.shape)
        return output


@dataclass(frozen=True, kw_only=True)
class Flat(CarriedLinearRule):
    """Relevance is spread evenly over everything that the output reads.

    ``R_i = sum_j 1 / (n_j + epsilon) R_j`` with the number ``n_j`` of inputs of output
    j, padding and biases not counted. Lapuschkin et al. 2019 (arXiv 1902.10178), for
    input layers. Shapes: any. Conserves up to the stabiliser.

    Args:
        epsilon (float, optional): the stabiliser, in numbers of inputs. Default: 1e-6

    Raises:
        ValueError: if ``epsilon`` is not positive.
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        """Check the stabiliser."""
        check_epsilon(self)

    def share(self, call: Call, mapped: LinearMap) -> Callable[[Tensor], Tensor]:
        """Share by ones in place of weights."""
        return _share_of_ones(mapped, torch.ones_like, None, self.epsilon)


@dataclass(frozen=True, kw_only=True)
class WSquare(CarriedLinearRule):
    """w^2: relevance by squared weights, ``R_i = sum_j w_ij^2 / (sum_i w_ij^2) R_j``.

    Montavon et al. 2017 (arXiv 1512.02479), Eq. 6, for input layers of real-valued
    inputs. Shapes: any. Conserves up to what the bias and the stabiliser absorb.

    Args:
        epsilon (float, optional): the stabiliser, in units of squared weights.
            Default: 1e-6
        bias (str, optional): ``"absorbs"`` (its square is in the sum, as in Zennit) or
            ``"ignored"``. Default: ``"absorbs"``

    Raises:
        ValueError: as for :class:`Epsilon`.
    """

    epsilon: float = 1e-6
    bias: Bias = "absorbs"

    def __post_init__(self) -> None:
        """Check the options."""
        check_options(self)

    def share(self, call: Call, mapped: LinearMap) -> Callable[[Tensor], Tensor]:
        """Share by squared weights."""
        bias = mapped.bias if self.bias == "absorbs" else None
        return _share_of_ones(mapped, torch.square, bias, self.epsilon)


def _share_of_ones(
    mapped: LinearMap,
    change: Callable[[Tensor], Tensor],
    bias: Tensor | None,
    epsilon: float,
) -> Callable[[Tensor], Tensor]:
    """Share by changed weights, whatever the input is."""
    shape, dtype, device = mapped.x.shape, mapped.x.dtype, mapped.x.device

    def share(relevance: Tensor) -> Tensor:
        ones = torch.ones(shape, dtype=dtype, device=device, requires_grad=True)
        weights = mapped.run(ones, change)
        total = weights.detach()
        if bias is not None:
            total = total + change(bias)
        s = relevance / stabilize(total, epsilon)
        (found,) = torch.autograd.grad(weights, ones, s)
        return found

    return share


_Z_PLUS = PositiveProduct()


@dataclass(frozen=True, kw_only=True)
class ZBox(CarriedLinearRule):
    """z-box for the layer that reads the pixels, ``otherwise`` for all other layers.

    Montavon et al. 2017 (arXiv 1512.02479), Eq. 7, also known as z^B: with the lowest
    and highest value L and H, ``Z = W x - W+ L - W- H`` and ``R_in = x (S W) - L (S W+)
    - H (S W-)``, ``S = R / Z``. Which layer reads the pixels is seen in the graph: its
    input is the explained input. Biases cancel. Shapes: any. Conserves up to the
    stabiliser, inside the box.

    Args:
        otherwise (Rule, optional): for layers behind it; None to take the z-box
            wherever the rule stands. Default: PositiveProduct()
        epsilon (float, optional): the stabiliser, in units of the output.
            Default: 1e-9
        low (float or tuple of float, optional): the lowest value that an input may
            have, or one for each channel (dimension 1), in what the layer reads. None
            for the lowest value of each example, as in Chefer et al.'s "full" LRP.
            Default: None
        high (float or tuple of float, optional): the highest. Default: None

    Raises:
        ValueError: if ``epsilon`` is not positive, or ``low`` exceeds ``high``.
    """

    otherwise: Rule | None = _Z_PLUS
    epsilon: float = 1e-9
    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Check the options; a list of channels becomes a tuple."""
        for name in ("low", "high"):
            bound = getattr(self, name)
            if not (bound is None or isinstance(bound, (int, float))):
                object.__setattr__(self, name, tuple(float(b) for b in bound))
        check_epsilon(self)
        if self.low is not None and self.high is not None:
            if bool((torch.tensor(self.low) > torch.tensor(self.high)).any()):
                raise ValueError(
                    f"ZBox(low={self.low}, high={self.high}): expected low <= high, in "
                    "units of what the layer reads (after normalisation)."
                )

    def __repr__(self) -> str:
        bounds = "".join(
            f", {name}={getattr(self, name)}"
            for name in ("low", "high")
            if getattr(self, name) is not None
        )
        return f"ZBox(otherwise={self.otherwise!r}, epsilon={self.epsilon}{bounds})"

    def __call__(self, call: Call) -> Any:
        """Rebuild the output of the layer that reads the pixels."""
        if self.otherwise is not None:
            x = operand_of(call)
            if x is None or not reads_an_input(call.made(x)):
                return self.otherwise(call)
        return super().__call__(call)

    def share(self, call: Call, mapped: LinearMap) -> Callable[[Tensor], Tensor]:
        """Share by distance from the box.

        With the middle m and half the width d of the box, ``W+ L + W- H`` is ``W m -
        |W| d``.
        """
        kept = call.keep(mapped.x)

        def share(relevance: Tensor) -> Tensor:
            x: Tensor = kept.tensor
            low, high = _bound(self.low, x, x.amin), _bound(self.high, x, x.amax)
            inner = (x - (low + high) / 2).requires_grad_()
            width = ((high - low) / 2).expand_as(x).clone().requires_grad_()
            z = mapped.run(inner, torch.Tensor.detach) + mapped.run(width, torch.abs)
            s = relevance / stabilize(z.detach(), self.epsilon)
            at, around = torch.autograd.grad(z, (inner, width), s)
            return (inner * at + width * around).detach()

        return share


def _bound(
    given: float | tuple[float, ...] | None, x: Tensor, extreme: Callable[..., Tensor]
) -> Tensor:
    if given is None:
        return extreme(tuple(range(1, x.dim())), keepdim=True)
    bound = torch.tensor(given, dtype=x.dtype, device=x.device)
    return bound.reshape(1, -1, *([1] * (x.dim() - 2))) if bound.dim() else bound


@dataclass(frozen=True, kw_only=True)
class AtInput(DelegatingRule):
    """One rule for the layer that reads the explained input, another for all others.

    Which layer that is is seen in the graph: its input is the explained input, at most
    reshaped, padded, or shifted and scaled by constants, as a normalisation of pixels
    does. Several layers may read it. Embedded identifiers are no such input.

    Args:
        rule (Rule): at the input.
        otherwise (Rule): everywhere else.
    """

    rule: Rule
    otherwise: Rule
    kinds: ClassVar[frozenset[str]] = frozenset({"product"})

    def __call__(self, call: Call) -> Any:
        """Apply one of the rules."""
        tensors = tensors_in((call.args, call.kwargs))
        x = next((t for t in tensors if carries_relevance(t)), None)
        if x is not None and reads_an_input(call.made(x), shifted=True):
            return self.rule(call)
        return self.otherwise(call)


def reads_an_input(made: Made | None, *, shifted: bool = False) -> bool:
    """Whether a tensor is an explained input, at most copied or reshaped.

    Args:
        made (Made or None): its record.
        shifted (bool, optional): or shifted and scaled by constants. Default: False
    """
    passing = _MOVES | _SHIFTS if shifted else _MOVES
    while made is not None and made.operator is not None:
        if made.operator.name not in passing or len(made.parents) != 1:
            return False
        made = made.parents[0]
    return made is not None


_MOVES = MOVES | {"pad", "constant_pad_nd", "unfold"}
_SHIFTS = frozenset("add sub subtract rsub mul multiply div divide true_divide".split())
