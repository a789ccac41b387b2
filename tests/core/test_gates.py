"""What is a gate, and one function of one tensor, depends on the function alone.

Not on the operators that it is written in: each table lists ways to write something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import CPLRP, AttnLRP, EpsilonLRP, TransformerLRP, rules
from captum_transformer_lrp.core.composites import CP_LRP
from tests.helpers import relative

METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "AttnLRP": AttnLRP,
    "CP-LRP": CPLRP,
    "epsilon": EpsilonLRP,
}


class Net(nn.Module):
    """Two linear layers, a function of what they return, and a third one."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(6, 6, bias=False, dtype=torch.float64)
        self.b = nn.Linear(6, 6, bias=False, dtype=torch.float64)
        self.h = nn.Linear(6, 3, bias=False, dtype=torch.float64)
        self.function = function
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.h(self.function(self.a(x), self.b(x))).sum(1)
        return scores


def draw(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


X, C, KEEP = draw(2, 4, 6), draw(6, seed=2), torch.tensor([1, 0, 1, 1, 0, 1])


def assert_alike(
    method: Callable[[nn.Module], Any],
    one: Callable[[Tensor, Tensor], Tensor],
    other: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    with torch.no_grad():
        assert relative(Net(one)(X), Net(other)(X)) < 1e-12, "the functions differ"
    found: Tensor = method(Net(one)).attribute(X, target=1)
    expected = method(Net(other)).attribute(X, target=1)
    assert relative(found, expected) < 1e-9
    return found


def uniform(model: nn.Module) -> TransformerLRP:
    """CP-LRP without gates."""
    return TransformerLRP(model, CP_LRP.with_rules({"product": rules.UniformProduct()}))


# ----------------------------------------------------------------------------- gates


def write(z: Tensor, value: Any, index: Any = ...) -> Tensor:
    z = z.clone()
    z[index] = value
    return z


def written_part(z: Tensor) -> Tensor:
    z = functional.gelu(z)
    z[:, 0] *= 0.5
    z[:, 1:].mul_(C)
    return z


def in_batch_norm(z: Tensor) -> Tensor:
    z = z.transpose(1, 2)
    return functional.batch_norm(z, C, C**2 + 0.5, C, C).transpose(1, 2)


GELU = functional.gelu
#: functions of one tensor, element by element, that are not linear
GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": GELU,
    "relu": functional.relu,
    "relu by where": lambda z: torch.where(z > 0, z, 0.0),
    "relu by the other branch": lambda z: torch.where(0 >= z, torch.zeros(()), z),
    "relu by a condition": lambda z: z * (z > 0),
    "relu by a condition as a number": lambda z: (z >= 0).double() * z,
    "relu by not": lambda z: z * ~(z < 0),
    "relu by a mask": lambda z: z.masked_fill(z < 0, 0),
    "relu by a mask in place": lambda z: z.clone().masked_fill_(z.lt(0), 0),
    "relu by an index": lambda z: write(z, 0, z < 0),
    "relu by maximum": lambda z: torch.maximum(z, torch.zeros_like(z)),
    "relu by fmax": lambda z: torch.fmax(torch.zeros(()).double(), z),
    "relu by max": lambda z: torch.max(z, torch.zeros(())),
    "relu by min": lambda z: -torch.min(-z, other=torch.zeros(())),
    "relu by clamp": lambda z: z.clamp(min=0),
    "relu by a step": lambda z: z * torch.heaviside(z, torch.zeros(()).double()),
    "relu by a sign": lambda z: z * (z.sign() + 1) / 2,
    "hardtanh by conditions": lambda z: torch.where(
        (z > -1) & (z < 1), z, torch.where(z > 0, 1.0, -1.0)
    ),
    "relu by its parts": lambda z: (z + z.abs()) / 2,
    "leaky relu": lambda z: functional.leaky_relu(z, 0.1),
    "leaky relu by where": lambda z: torch.where(z > 0, z, 0.1 * z),
    "leaky relu by maximum": lambda z: torch.maximum(z, 0.1 * z),
    "absolute": torch.abs,
    "absolute by where": lambda z: torch.where(z > 0, z, -z),
    "absolute by its sign": lambda z: z * z.sign(),
    "square": torch.square,
    "square by power": lambda z: z**2,
    "square by product": lambda z: z * z,
    "square by einsum": lambda z: torch.einsum("...,...->...", z, z),
    "square by einsum of any": lambda z: torch.einsum("...,...", z, z),
    "cube": lambda z: z**3,
    "cube by product": lambda z: z * z * z,
    "exponents": lambda z: z ** torch.tensor([2, 3, 2, 2, 3, 3]),
    "powers in a stack": lambda z: torch.stack([z[..., 0] ** 2] * 6, -1),
    "silu": functional.silu,
    "silu by product": lambda z: z * torch.sigmoid(z),
    "silu by quotient": lambda z: z / (1 + torch.exp(-z)),
    "silu by reciprocal": lambda z: z * (1 + torch.exp(-z)).reciprocal(),
    "scaled and moved": lambda z: (2 * GELU(z) + C).flatten(1).view(2, 4, 6),
    "gathered": lambda z: GELU(z).gather(1, torch.zeros(2, 4, 6, dtype=torch.long)),
    "flipped": lambda z: GELU(z).flip(1).roll(1, 1),
    "padded": lambda z: functional.pad(GELU(z)[..., 1:], (1, 0)),
    "joined": lambda z: torch.cat([GELU(z[:, :2]), functional.silu(z[:, 2:])], 1),
    "copied into": lambda z: z.clone().copy_(GELU(z)),
    "written into": lambda z: write(z, GELU(z)),
    "written into by a slice": lambda z: write(z, GELU(z), slice(None)),
    "a part written into": written_part,
    "broadcast": lambda z: torch.broadcast_tensors(GELU(z), z)[0],
    "root mean square": lambda z: functional.rms_norm(GELU(z), (6,), C, 1e-3),
    "root mean square by rsqrt": lambda z: (
        GELU(z) * torch.rsqrt(GELU(z).pow(2).mean(-1, keepdim=True) + 1e-3)
    ),
    "root mean square by quotient": lambda z: (
        GELU(z) / (GELU(z).square().mean(-1, True) + 1e-3).sqrt()
    ),
    "norm": lambda z: functional.normalize(GELU(z), dim=-1),
    "norm by quotient": lambda z: GELU(z) / GELU(z).norm(dim=-1, keepdim=True),
    "norm by keyword": lambda z: torch.div(
        other=GELU(z).norm(dim=-1, keepdim=True), input=GELU(z)
    ),
    "divided": lambda z: GELU(z) / (1 + z.abs()).sum(-1, True),
    "batch norm": lambda z: in_batch_norm(GELU(z)),
    "a module": lambda z: nn.RMSNorm(6).double()(nn.GELU()(z)),
}


@pytest.mark.parametrize("gate", GATES)
def test_a_gate_is_a_constant_however_it_is_written(gate: str) -> None:
    function = GATES[gate]
    assert_alike(
        CPLRP,
        lambda a, b: function(a) * b,
        lambda a, b: function(a).detach() * b,
    )


#: what is linear, or mixes elements
NO_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "scaled": lambda z: 2 * z + C,
    "raised to 1": lambda z: z**1,
    "scaled twice": lambda z: z + 2 * z,
    "added to itself": lambda z: z + z,
    "masked": lambda z: torch.where(KEEP.bool(), z, 0.3 * z + 1),
    "masked by a factor": lambda z: z * KEEP,
    "an activation in places": lambda z: torch.where(KEEP.bool(), z, GELU(z)),
    "masked by a condition on two": lambda z: z * (z > z.flip(1)),
    "masked by a condition on another": lambda z: z * (C > 0),
    "written into": lambda z: write(z, 0.0, (slice(None), 0)),
    "half an activation": lambda z: torch.cat([GELU(z[:, :2]), z[:, 2:]], 1),
    "half an activation, written": lambda z: write(
        z, GELU(z[:, :2]), (slice(None), slice(2))
    ),
    "summed": lambda z: GELU(z).cumsum(1),
    "its rows by its columns": lambda z: torch.einsum(
        "bij,bji->bij", z[:, :, :4], z[:, :, :4]
    ).repeat(1, 1, 2)[..., :6],
    "an outer product with itself": lambda z: torch.stack(
        [torch.outer(r[0], r[0])[:4] for r in z]
    ),
    "accumulated": lambda z: torch.zeros_like(z).index_put(
        (torch.arange(2)[:, None], torch.tensor([[0, 1, 1, 3]])), GELU(z), True
    ),
    "layer norm": lambda z: functional.layer_norm(GELU(z), (6,)),
    "layer norm written out": lambda z: (
        (GELU(z) - GELU(z).mean(-1, True)) / GELU(z).std(-1, keepdim=True)
    ),
    "batch norm by the batch": lambda z: functional.batch_norm(
        GELU(z), None, None, training=True
    ),
}


@pytest.mark.parametrize("case", NO_GATES)
def test_what_is_linear_or_mixes_elements_is_no_gate(case: str) -> None:
    net = Net(lambda a, b: NO_GATES[case](a) * b)
    expected = uniform(net).attribute(X, target=1)
    assert relative(CPLRP(net).attribute(X, target=1), expected) < 1e-12


def outer(a: Tensor, b: Tensor, product: Callable[..., Tensor]) -> Tensor:
    """Return the product of the gate and the values of each row, in some rows."""
    rows = [product(GELU(r[0]), s[0]).reshape(6, 6) for r, s in zip(a, b, strict=True)]
    return torch.stack(rows)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mul": lambda a, b: torch.mul(b, GELU(a)),
    "by keyword": lambda a, b: torch.mul(other=GELU(a), input=b),
    "in place": lambda a, b: b.clone().mul_(GELU(a)),
    "einsum": lambda a, b: torch.einsum("bij,bij->bij", GELU(a), b),
    "einsum of any": lambda a, b: torch.einsum("..., ... -> ...", b, GELU(a)),
    "einsum with constants": lambda a, b: (
        torch.einsum("bij,bij,j->bji", GELU(a), b, C).mT
    ),
    "einsum by lists": lambda a, b: torch.einsum(
        GELU(a), [0, 1, 2], b, [0, 1, 2], [0, 1, 2]
    ),
    "addcmul": lambda a, b: torch.addcmul(torch.zeros(()), GELU(a), b, value=2),
    "outer": lambda a, b: outer(a, b, torch.outer),
    "kron": lambda a, b: outer(a, b, torch.kron),
    "tensordot": lambda a, b: outer(a, b, lambda r, s: torch.tensordot(r, s, dims=0)),
    "addr": lambda a, b: outer(a, b, lambda r, s: torch.addr(torch.zeros(()), r, s)),
    "einsum of an outer product": lambda a, b: outer(
        a, b, lambda r, s: torch.einsum("i,j", r, s)
    ),
    "einsum of any, by lists": lambda a, b: torch.einsum(GELU(a), [...], b, [...]),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_that_sums_nothing_has_a_gate(product: str) -> None:
    function = PRODUCTS[product]
    assert_alike(CPLRP, function, lambda a, b: function(a.detach(), b))


#: matrix products sum
SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda a, b: GELU(a) @ b.mT @ b.detach(),
    "einsum": lambda a, b: torch.einsum("bij,bkj->bik", GELU(a), b) @ b.detach(),
    "einsum by lists": lambda a, b: (
        torch.einsum(GELU(a), [0, 1, 2], b, [0, 3, 2], [0, 1, 3]) @ b.detach()
    ),
    "einsum with a trace, its output not written": lambda a, b: torch.stack(
        [torch.einsum("ii,jk", GELU(r[:, :4]), s) for r, s in zip(a, b, strict=True)]
    ),
    "of one element": lambda a, b: (GELU(a)[..., None] @ b[..., None, :]).sum(-1),
}


@pytest.mark.parametrize("product", SUMS)
def test_a_product_that_sums_has_no_gate(product: str) -> None:
    net = Net(SUMS[product])
    expected = uniform(net).attribute(X, target=1)
    assert relative(CPLRP(net).attribute(X, target=1), expected) < 1e-12


#: what is not 0 at 0, and what is
STRONGER: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "sigmoid, tanh": (torch.sigmoid, torch.tanh),
    "sigmoid, silu written out": (torch.sigmoid, lambda z: z * torch.sigmoid(z)),
    "sigmoid, square": (torch.sigmoid, lambda z: z * z),
    "a sum with a sigmoid, elu": (
        lambda z: z + torch.sigmoid(z),
        lambda z: torch.where(z > 0, z, z.exp() - 1),
    ),
}


@pytest.mark.parametrize("case", STRONGER)
def test_what_is_not_0_at_0_is_the_gate(case: str) -> None:
    gate, value = STRONGER[case]
    assert_alike(
        CPLRP,
        lambda a, b: value(b) * gate(a),
        lambda a, b: value(b) * gate(a).detach(),
    )


# ------------------------------------------------------------------ one function


def mixed(z: Tensor) -> Tensor:
    return torch.where(KEEP.bool(), z, 0.3 * z + 1)


#: two ways to write one function
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "a constant twice": (lambda z: (z + C) + z, lambda z: 2 * z + C),
    "a constant alone": (lambda z: z + ((z + C) - z), lambda z: z + C),
    "in place": (lambda z: (z + C).add_(z), lambda z: 2 * z + C),
    "elu": (lambda z: torch.where(z > 0, z, z.exp() - 1), functional.elu),
    "elu by expm1": (
        lambda z: torch.where(z <= 0, torch.expm1(z), z),
        functional.elu,
    ),
    "a bound": (
        lambda z: torch.where(z < 1, z, 1),
        lambda z: z.minimum(torch.ones(())),
    ),
}


@pytest.mark.parametrize("method", ["AttnLRP", "CP-LRP"])
@pytest.mark.parametrize("case", FUNCTIONS)
def test_a_function_is_explained_alike_however_it_is_written(
    case: str, method: str
) -> None:
    one, other = FUNCTIONS[case]
    assert_alike(METHODS[method], lambda a, b: one(a), lambda a, b: other(a))


RECIPROCALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reciprocal": lambda z, d: z * d.reciprocal(),
    "power": lambda z, d: z * d**-1,
    "one by it": lambda z, d: (1 / d) * z,
    "roots": lambda z, d: z * d.rsqrt() * d.rsqrt(),
    "in place": lambda z, d: z.clone().mul_(d.reciprocal_()),
    "scaled": lambda z, d: z * (2 * d.reciprocal()) / 2,
}


#: numerator and denominator: a sigmoid, the derivative of softsign, and a shifted
#: tensor over its size
QUOTIENTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "sigmoid": (torch.exp, lambda z: 1 + torch.exp(z)),
    "exponential over size": (lambda z: torch.exp(-z.abs()), lambda z: 1 + z.abs()),
    "shifted over size": (lambda z: z + 1, lambda z: 2 + z.abs()),
}


@pytest.mark.parametrize("way", RECIPROCALS)
@pytest.mark.parametrize("quotient", QUOTIENTS)
def test_a_quotient_is_explained_as_by_a_reciprocal(quotient: str, way: str) -> None:
    divided, (numerator, denominator) = RECIPROCALS[way], QUOTIENTS[quotient]
    assert_alike(
        AttnLRP,
        lambda a, b: divided(numerator(a), denominator(a)),
        lambda a, b: numerator(a) / denominator(a),
    )


ALIASES: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda z: z.view(z.shape),
    "reshape": lambda z: z.reshape(2, 4, 6).flatten(0, -3),
    "expand": lambda z: z.expand(2, 4, 6),
    "all of it": lambda z: z[:],
    "an ellipsis": lambda z: z[...],
    "clone": torch.clone,
    "of several": lambda z: torch.broadcast_tensors(z, z[:, :1])[0],
    "at least": lambda z: torch.atleast_1d(z)[...],
}


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_tensor_itself(alias: str) -> None:
    function = ALIASES[alias]
    assert_alike(
        AttnLRP,
        lambda a, b: torch.exp(function(a)) / (1 + torch.exp(a)),
        lambda a, b: torch.sigmoid(a),
    )


ORDERS: dict[str, Callable[[Tensor], Tensor]] = {
    "index": lambda z: z[[1, 0]],
    "flip": lambda z: z.flip(0),
    "roll": lambda z: z.roll(1, 0),
    "expand": lambda z: z[:1].expand_as(z),
}


@pytest.mark.parametrize("order", ORDERS)
def test_another_order_is_another_tensor(order: str) -> None:
    move = ORDERS[order]
    assert_alike(
        AttnLRP,
        lambda a, b: torch.exp(move(a)) / (1 + torch.exp(a)),
        lambda a, b: torch.exp(move(a)) / (1 + torch.exp(a)).detach(),
    )


NORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalize": lambda z: functional.normalize(z, dim=-1),
    "norm": lambda z: z / z.norm(dim=-1, keepdim=True),
    "rsqrt": lambda z: z * z.square().sum(-1, keepdim=True).rsqrt(),
}


@pytest.mark.parametrize("method", ["AttnLRP", "CP-LRP"])
@pytest.mark.parametrize("name", NORMS)
def test_a_tensor_over_its_norm_is_a_function_of_it(name: str, method: str) -> None:
    """As it is if it is multiplied with the reciprocal of the norm."""
    norm = NORMS[name]
    assert_alike(
        METHODS[method],
        lambda a, b: a + (norm(a) + 1) * a.exp(),
        lambda a, b: a + (functional.rms_norm(a, (6,), eps=0.0) / 6**0.5 + 1) * a.exp(),
    )


#: two ways to write what is joined with the tensor that it is a function of
JOINED: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "in place by keyword": (
        lambda z: functional.silu(z.clone(), inplace=True),
        functional.silu,
    ),
    "relu in place by keyword": (
        lambda z: functional.relu(input=z.clone(), inplace=True),
        functional.relu,
    ),
    "a triangle": (torch.tril, lambda z: z * torch.ones(4, 6).tril()),
}


@pytest.mark.parametrize("method", ["AttnLRP", "CP-LRP"])
@pytest.mark.parametrize("case", JOINED)
def test_a_function_is_joined_however_it_is_written(case: str, method: str) -> None:
    one, other = JOINED[case]
    assert_alike(
        METHODS[method],
        lambda a, b: (a.abs() + 1) + one(a) * a.abs().sqrt(),
        lambda a, b: (a.abs() + 1) + other(a) * a.abs().sqrt(),
    )


MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "where": lambda z: torch.where(torch.ones(4, 6).tril().bool(), z, 0.0),
    "masked_fill": lambda z: z.masked_fill(torch.ones(4, 6).triu(1).bool(), 0),
    "tril": torch.tril,
}


@pytest.mark.parametrize("method", ["AttnLRP", "CP-LRP"])
@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_is_a_factor_of_0_and_1(mask: str, method: str) -> None:
    """Also where a function that is joined is not 0 at 0."""
    assert_alike(
        METHODS[method],
        lambda a, b: a * torch.sigmoid(MASKS[mask](a)),
        lambda a, b: a * torch.sigmoid(a * torch.ones(4, 6).tril()),
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("equation", ["...,...->...", "bij,bij->bij", "...,..."])
def test_an_einsum_that_multiplies_is_a_product(equation: str, method: str) -> None:
    """Also where a function that is joined is 0: the factor keeps all."""

    def factor(a: Tensor) -> Tensor:
        return torch.sigmoid(torch.where(KEEP.bool(), a.abs(), 0.0))

    assert_alike(
        METHODS[method],
        lambda a, b: torch.einsum(equation, a, factor(a)),
        lambda a, b: a * factor(a),
    )


def test_a_sigmoid_written_out_is_a_sigmoid() -> None:
    assert_alike(
        AttnLRP,
        lambda a, b: torch.exp(a) * (1 + torch.exp(a)).reciprocal(),
        lambda a, b: torch.sigmoid(a),
    )


def test_a_softmax_is_no_function_of_each_element() -> None:
    """Under CP-LRP it is a constant, and its divisor is one of all elements."""

    def written(a: Tensor, b: Tensor) -> Tensor:
        e = a.exp()
        return a - e / e.sum(-1, keepdim=True)

    assert_alike(CPLRP, written, lambda a, b: a - a.softmax(-1))


SOFTMAX: dict[str, Callable[[Tensor], Tensor]] = {
    "twice": lambda z: z.exp() / z.exp().sum(-1, keepdim=True),
    "shifted": lambda z: (
        (z - z.amax(-1, True)).exp() / (z - z.amax(-1, True)).exp().sum(-1, True)
    ),
    "shifted by a constant": lambda z: (z - 1).exp() / (z - 1).exp().sum(-1, True),
    "moved": lambda z: z.exp() / z.exp().contiguous().sum(-1).unsqueeze(-1),
}


@pytest.mark.parametrize("way", SOFTMAX)
def test_a_softmax_of_exponentials_computed_twice_is_a_softmax(way: str) -> None:
    function = SOFTMAX[way]
    assert_alike(AttnLRP, lambda a, b: function(a) * b, lambda a, b: a.softmax(-1) * b)


def test_a_quotient_by_another_sum_is_no_softmax() -> None:
    """The divisor is a constant, so that the exponentials keep all."""
    assert_alike(
        AttnLRP,
        lambda a, b: a.exp() / b.exp().sum(-1, True),
        lambda a, b: a.exp() / b.exp().sum(-1, True).detach(),
    )


# ------------------------------------------------------------------------------ zero


#: functions that are not 0 at 0
ZEROS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "cosine": torch.cos,
    "by keyword": lambda z: functional.softplus(input=z, beta=2),
    "two functions": lambda z: torch.sigmoid(z) + z.abs().add(1).sqrt(),
    "one function": lambda z: torch.where(z > 0, z + 1, z.exp()),
    "a sum with itself": lambda z: (z + 1) + 2 * z,
}

#: tensors that are exactly 0 where KEEP is, and others without these elements
EXACT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a mask": lambda a, b: torch.where(KEEP.bool(), a, 0.0),
    "a factor": lambda a, b: a * KEEP,
    "a difference": lambda a, b: a - torch.where(KEEP.bool(), b, a),
    "a difference of two": lambda a, b: (
        torch.where(KEEP.bool(), a, a + b) - (torch.where(KEEP.bool(), b, b + a))
    ),
}


@pytest.mark.parametrize("zero", EXACT)
@pytest.mark.parametrize("case", ZEROS)
def test_at_an_exact_0_the_value_is_a_constant(case: str, zero: str) -> None:
    """No input contributes to it: it is absorbed, and counted as such."""
    function, make = ZEROS[case], EXACT[zero]
    net = Net(lambda a, b: function(make(a, b)))
    apart = Net(lambda a, b: torch.where(KEEP.bool(), function(make(a, b)), C))
    expected = CPLRP(apart).attribute(X, target=1)
    trace = CPLRP(net).trace(X, target=1)
    assert relative(CPLRP(net).attribute(X, target=1), expected) < 1e-9
    assert trace.conservation_error < 1e-9
    with torch.no_grad():
        score = float(net(X)[:, 1].sum())
    assert score - trace.relevance == pytest.approx(trace.constant, rel=1e-9)
    _, error = CPLRP(net).attribute(X, target=1, return_conservation_error=True)
    assert float(error) < 1e-9
