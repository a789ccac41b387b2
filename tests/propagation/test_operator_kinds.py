"""One function written two ways has one relevance, whatever torch calls its operators.

Each row spells a function by an operator of its own, then by operators that all have a
rule. Both stand between linear layers, and every method must give them the same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    TransformerLRP,
    errors,
)

Function = Callable[[Tensor, Tensor], Tensor]


def _composite(name: str) -> Callable[[Any], TransformerLRP]:
    return lambda model: TransformerLRP(model, composite=name)


METHODS: dict[str, Callable[[Any], Any]] = {
    "attnlrp": AttnLRP,
    "cp-lrp": CPLRP,
    "epsilon": EpsilonLRP,
    "gamma": _composite("gamma"),
    "alpha-beta": _composite("alpha-beta"),
    "chefer": CheferLRP,
}


class Net(nn.Module):
    """``h(f(a x, b x))`` on five rows of eight features."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.h = nn.Linear(8, 3)
        self.function = function
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.a(x), self.b(x))
        result: Tensor = self.h(y).mean(1)
        return result


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 8, 8, dtype=torch.float64, generator=generator)


def relative(found: Tensor, expected: Tensor) -> float:
    assert bool(found.isfinite().all())
    return float((found - expected).abs().max() / expected.abs().max())


def agree(
    spelled: Function, written: Function, method: str, tolerance: float = 1e-10
) -> None:
    """Both ways to write a function have one value and one relevance."""
    first, second, x = Net(spelled), Net(written), inputs()
    with torch.no_grad():
        assert relative(first(x), second(x)) < 1e-12
    explain = METHODS[method]
    try:
        expected = explain(second).attribute(x, target=1)
    except errors.LRPError:  # then this one is refused too, in as many words
        with pytest.raises(errors.LRPError):
            explain(first).attribute(x, target=1)
        return
    assert relative(explain(first).attribute(x, target=1), expected) < tolerance


CONSTANT = torch.linspace(-1.2, 1.5, 8, dtype=torch.float64)
MATRIX = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(8, 8).sin()
EXPONENTS = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0, 2.5, 3.0, 1.0], dtype=torch.float64)
SIGNED = torch.tensor([1.0, -1.0, 3.0, 0.0, 1.0, -2.0, 3.0, 1.0], dtype=torch.float64)
INDEX = torch.tensor([0, 2, 2, 1, 5, 0, 7, 5])
aten = torch.ops.aten


def _apart(x: Tensor, exponents: Tensor) -> Tensor:
    """Each feature to its own power."""
    parts = []
    for i, exponent in enumerate(exponents.tolist()):
        column = x[..., i]
        if exponent == 0:
            parts.append(torch.ones_like(column))
        elif exponent == 1:
            parts.append(column)
        else:
            parts.append(
                (column**exponent).detach() if exponent < 0 else column**exponent
            )
    return torch.stack(parts, -1)


def _in_place(name: str, *args: Any, **kwargs: Any) -> Function:
    def function(y: Tensor, z: Tensor) -> Tensor:
        y = y.clone()
        given = [z if a == "z" else a for a in args]
        return getattr(y, name)(*given, **kwargs)  # type: ignore[no-any-return]

    return function


#: a factor of gradient zero is a constant
STEPS: dict[str, tuple[Function, Function]] = {
    name: (lambda y, z, f=f: y * f(z), lambda y, z, f=f: y * f(z).detach())  # type: ignore[misc]
    for name, f in {
        "sign": torch.sign,
        "sgn": torch.sgn,
        "round": lambda z: torch.round(z * 4),
        "round to decimals": lambda z: torch.round(z, decimals=1),
        "floor": lambda z: (z * 3).floor(),
        "ceil": torch.ceil,
        "trunc": lambda z: torch.trunc(z * 5),
        "fix": lambda z: torch.fix(z * 5),
        "in place": lambda z: (z * 5).floor_(),
        "aten": lambda z: aten.round.default(z * 5),
        "divided and rounded": lambda z: torch.div(z, 0.1, rounding_mode="floor"),
        "truncated division": lambda z: torch.div(
            z, torch.tensor(0.1), rounding_mode="trunc"
        ),
        "divided in place": lambda z: (z * 2).div_(0.3, rounding_mode="trunc"),
        "compared": lambda z: (z > 0).to(z.dtype),
    }.items()
}

PAIRS: dict[str, tuple[Function, Function]] = {
    "frac": (
        lambda y, z: torch.frac(y * 3),
        lambda y, z: y * 3 - (y * 3).detach().trunc(),
    ),
    "floor division": (
        lambda y, z: y + (z * 5).detach() // 1 * y,
        lambda y, z: y + (z * 5).detach().floor() * y,
    ),
    "remainder": (
        lambda y, z: y % 0.3,
        lambda y, z: y - torch.floor(y.detach() / 0.3) * 0.3,
    ),
    "fmod": (
        lambda y, z: torch.fmod(y, 0.3),
        lambda y, z: y - torch.trunc(y.detach() / 0.3) * 0.3,
    ),
    "copysign": (
        lambda y, z: torch.copysign(y, z),
        lambda y, z: y.abs() * z.detach().sign(),
    ),
    # ------------------------------------------------------------ addends
    "addcmul": (lambda y, z: torch.addcmul(y, y, z), lambda y, z: y + y * z),
    "addcmul of one": (lambda y, z: torch.addcmul(y, y, y), lambda y, z: y + y * y),
    "addcmul scaled": (
        lambda y, z: torch.addcmul(z, y, z, value=-0.5),
        lambda y, z: z + -0.5 * (y * z),
    ),
    "addcmul in place": (_in_place("addcmul_", "z", "z"), lambda y, z: y + z * z),
    "addcmul by name": (
        lambda y, z: torch.addcmul(input=y, tensor1=CONSTANT, tensor2=z),
        lambda y, z: y + z * CONSTANT,
    ),
    "addcdiv": (lambda y, z: torch.addcdiv(z, y, z), lambda y, z: z + y / z),
    "addcdiv by itself": (
        lambda y, z: torch.addcdiv(CONSTANT, y, y, value=2.0),
        lambda y, z: CONSTANT + 2.0 * (y / y),
    ),
    "addmm": (
        lambda y, z: torch.stack([torch.addmm(a, a, a) for a in y]),
        lambda y, z: torch.stack([a + a @ a for a in y]),
    ),
    "addmm scaled": (
        lambda y, z: torch.stack(
            [torch.addmm(a, a, b, beta=0.5, alpha=2) for a, b in zip(y, z, strict=True)]
        ),
        lambda y, z: torch.stack(
            [0.5 * a + 2 * (a @ b) for a, b in zip(y, z, strict=True)]
        ),
    ),
    "addmm of a constant": (
        lambda y, z: torch.stack([torch.addmm(MATRIX, MATRIX, a) for a in y]),
        lambda y, z: torch.stack([torch.addmm(MATRIX.clone(), MATRIX, a) for a in y]),
    ),
    "addmm, aten": (
        lambda y, z: torch.stack([aten.addmm(a, a, MATRIX) for a in y]),
        lambda y, z: torch.stack([a + a @ MATRIX for a in y]),
    ),
    "baddbmm": (
        lambda y, z: torch.baddbmm(y, y, z),
        lambda y, z: y + y @ z,
    ),
    "baddbmm in place": (_in_place("baddbmm_", "z", "z"), lambda y, z: y + z @ z),
    "addbmm": (
        lambda y, z: torch.addbmm(y[0], y, z, beta=2)[None],
        lambda y, z: (2 * y[0] + (y @ z).sum(0))[None],
    ),
    "addmv": (
        lambda y, z: torch.addmv(y[:, 0].mean(0), MATRIX, y[0, 0])[None, None],
        lambda y, z: (y[:, 0].mean(0) + MATRIX @ y[0, 0])[None, None],
    ),
    "addr": (
        lambda y, z: torch.addr(y[0], y[0, 0], z[0, 1], alpha=0.5)[None],
        lambda y, z: (y[0] + 0.5 * torch.outer(y[0, 0], z[0, 1]))[None],
    ),
    "a bias that is made": (
        lambda y, z: functional.linear(y, MATRIX, z[0, 0]),
        lambda y, z: y @ MATRIX.T + z[0, 0],
    ),
    "a bias of a convolution": (
        lambda y, z: functional.conv1d(y, MATRIX[..., None], z[0, :, 0]),
        lambda y, z: functional.conv1d(y, MATRIX[..., None]) + z[0, :, :1],
    ),
    "a bias by name": (
        lambda y, z: functional.linear(y, weight=MATRIX, bias=y[0, 0]),
        lambda y, z: y @ MATRIX.T + y[0, 0],
    ),
    # ------------------------------------------------------------ powers
    "a tensor of exponents": (
        lambda y, z: (y.abs() + 0.1) ** EXPONENTS,
        lambda y, z: _apart(y.abs() + 0.1, EXPONENTS),
    ),
    "exponents of any sign": (
        lambda y, z: torch.pow(y.abs() + 0.1, SIGNED),
        lambda y, z: _apart(y.abs() + 0.1, SIGNED),
    ),
    "exponents, broadcast": (
        lambda y, z: torch.pow(y.abs()[..., :1] + 0.1, EXPONENTS),
        lambda y, z: _apart((y.abs()[..., :1] + 0.1).expand_as(y), EXPONENTS),
    ),
    "exponents in place": (
        lambda y, z: (y.abs() + 0.1).pow_(EXPONENTS),
        lambda y, z: _apart(y.abs() + 0.1, EXPONENTS),
    ),
    "one exponent": (
        lambda y, z: (y.abs() + 0.1) ** torch.tensor([1.5]),
        lambda y, z: (y.abs() + 0.1) ** 1.5,
    ),
    "power of nought": (lambda y, z: z + y**0, lambda y, z: z + torch.ones_like(y)),
    "float_power": (lambda y, z: torch.float_power(y, 3), lambda y, z: y**3),
    "float_power squared": (lambda y, z: y.float_power(2), lambda y, z: y**2),
    "base of two": (lambda y, z: 2**y, lambda y, z: torch.exp2(y)),
    "torch.pow(2.0, x)": (lambda y, z: torch.pow(2.0, y), lambda y, z: torch.exp2(y)),
    "base of three": (
        lambda y, z: 3**y,
        lambda y, z: torch.exp(y * math.log(3)),
    ),
    "float_power of a number": (
        lambda y, z: torch.float_power(3.0, y),
        lambda y, z: torch.exp(y * math.log(3)),
    ),
    "constant bases": (
        lambda y, z: CONSTANT.abs() ** y,
        lambda y, z: torch.exp(y * CONSTANT.abs().log()),
    ),
    "aten.pow.Scalar": (
        lambda y, z: aten.pow.Scalar(2.0, y),
        lambda y, z: torch.exp2(y),
    ),
    "ldexp": (
        lambda y, z: torch.ldexp(y, torch.tensor(3)),
        lambda y, z: y * 8,
    ),
    # ------------------------------------------------------------ written out
    "cosine_similarity": (
        lambda y, z: functional.cosine_similarity(y[:, :, None], z[:, None], dim=-1),
        lambda y, z: (
            functional.normalize(y, dim=-1)[:, :, None]
            * functional.normalize(z, dim=-1)[:, None]
        ).sum(-1),
    ),
    "cdist": (
        lambda y, z: torch.cdist(y, z),
        lambda y, z: (y[:, :, None] - z[:, None]).norm(dim=-1),
    ),
    "cdist by one": (
        lambda y, z: torch.cdist(y, MATRIX, p=1),
        lambda y, z: (y[:, :, None] - MATRIX).abs().sum(-1),
    ),
    "pairwise_distance": (
        lambda y, z: y * functional.pairwise_distance(y, z)[..., None],
        lambda y, z: y * (y - z + 1e-6).norm(dim=-1, keepdim=True),
    ),
    "dist": (lambda y, z: y * torch.dist(y, z), lambda y, z: y * (y - z).norm()),
    "normalize": (
        lambda y, z: functional.normalize(y, dim=-1),
        lambda y, z: y / y.norm(dim=-1, keepdim=True).detach(),
    ),
    "renorm": (
        lambda y, z: torch.renorm(y, 2, 0, 1.0),
        lambda y, z: y * (1 / (y.detach().norm(dim=(1, 2), keepdim=True) + 1e-7)),
    ),
    "lerp": (lambda y, z: torch.lerp(y, z, 0.3), lambda y, z: 0.7 * y + 0.3 * z),
    "lerp by a tensor": (
        lambda y, z: y.lerp(z, CONSTANT),
        lambda y, z: (1 - CONSTANT) * y + CONSTANT * z,
    ),
    "lerp by what is explained": (
        lambda y, z: torch.lerp(y, z, weight=torch.sigmoid(y)),
        lambda y, z: (1 - torch.sigmoid(y)) * y + torch.sigmoid(y) * z,
    ),
    "lerp in place": (_in_place("lerp_", "z", 0.3), lambda y, z: 0.7 * y + 0.3 * z),
    "logaddexp": (
        lambda y, z: torch.logaddexp(y, z),
        lambda y, z: torch.stack([y, z]).logsumexp(0),
    ),
    "logaddexp2": (
        lambda y, z: torch.logaddexp2(y, z),
        lambda y, z: (
            torch.stack([y * math.log(2), z * math.log(2)]).logsumexp(0) / math.log(2)
        ),
    ),
    "complex": (
        lambda y, z: torch.view_as_real(torch.complex(y, z)).flatten(2)[..., ::2],
        lambda y, z: torch.stack([y, z], -1).flatten(2)[..., ::2],
    ),
    "aminmax": (
        lambda y, z: z + torch.aminmax(y, dim=-1, keepdim=True).max,
        lambda y, z: z + y.amax(-1, keepdim=True),
    ),
    "hypot": (
        lambda y, z: torch.hypot(y, z),
        lambda y, z: torch.stack([y, z]).norm(dim=0),
    ),
    "xlogy": (
        lambda y, z: torch.xlogy(y, z.abs() + 0.5),
        lambda y, z: y * (z.abs() + 0.5).log(),
    ),
    "clamp between tensors": (
        lambda y, z: torch.clamp(y, min=z),
        lambda y, z: torch.maximum(y, z),
    ),
    # ------------------------------------------------------------ products of elements
    "prod of two": (
        lambda y, z: torch.stack([y, z]).prod(0),
        lambda y, z: y * z,
    ),
    "prod of four": (
        lambda y, z: torch.stack([y, z, y, z], 2).prod(2),
        lambda y, z: torch.einsum("bij,bij,bij,bij->bij", y, z, y, z),
    ),
    "cumprod": (
        lambda y, z: torch.stack([y, z]).cumprod(0)[1],
        lambda y, z: y * z,
    ),
    "scatter by product": (
        lambda y, z: y.scatter_reduce(
            2, torch.arange(8).expand_as(z), z, reduce="prod"
        ),
        lambda y, z: y * z,
    ),
    "scatter by sum": (
        lambda y, z: y.scatter_reduce(2, INDEX.expand_as(z), z, "sum"),
        lambda y, z: y.scatter_add(2, INDEX.expand_as(z), z),
    ),
    "index by product": (
        lambda y, z: CONSTANT.expand_as(y).index_reduce(2, torch.arange(8), y, "prod"),
        lambda y, z: CONSTANT * y,
    ),
    "segments by product": (
        lambda y, z: torch.segment_reduce(
            torch.stack([y, z], 0).reshape(2, -1),
            "prod",
            lengths=torch.tensor([2]),
        ).reshape(y.shape),
        lambda y, z: y * z,
    ),
    # ------------------------------------------------------------ normalisations
    "native_layer_norm": (
        lambda y, z: torch.native_layer_norm(y, (8,), CONSTANT, None, 1e-5)[0],
        lambda y, z: functional.layer_norm(y, (8,), CONSTANT, None, 1e-5),
    ),
    "native_group_norm": (
        lambda y, z: torch.native_group_norm(y, CONSTANT, None, 2, 8, 8, 4, 1e-5)[0],
        lambda y, z: functional.group_norm(y, 4, CONSTANT, None, 1e-5),
    ),
    "native_batch_norm": (
        lambda y, z: torch.native_batch_norm(
            y, None, CONSTANT, CONSTANT, CONSTANT.abs(), False, 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(
            y, CONSTANT, CONSTANT.abs(), None, CONSTANT, False, 0.1, 1e-5
        ),
    ),
    "batch norm, aten": (
        lambda y, z: aten._native_batch_norm_legit_no_training(
            y, None, None, CONSTANT, CONSTANT.abs(), 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(y, CONSTANT, CONSTANT.abs(), eps=1e-5),
    ),
    "statistics of the batch, aten": (
        lambda y, z: aten._native_batch_norm_legit.no_stats(
            y, None, None, True, 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(y, None, None, training=True, eps=1e-5),
    ),
    "softmax, aten": (
        lambda y, z: aten._softmax(y, -1, False) @ z,
        lambda y, z: y.softmax(-1) @ z,
    ),
    "attention, aten": (
        lambda y, z: aten._scaled_dot_product_flash_attention_for_cpu(
            y[:, None], z[:, None], z[:, None], 0.0, True
        )[0][:, 0],
        lambda y, z: functional.scaled_dot_product_attention(
            y[:, None], z[:, None], z[:, None], is_causal=True
        )[:, 0],
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_a_constant(name: str, method: str) -> None:
    agree(*STEPS[name], method)


@pytest.mark.filterwarnings("ignore:index_reduce")  # torch calls it beta
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PAIRS)
def test_two_spellings_agree(name: str, method: str) -> None:
    agree(*PAIRS[name], method)
