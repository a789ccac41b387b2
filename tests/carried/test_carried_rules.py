"""The rules that carry relevance itself, against loops; wrong oracles rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from captum_transformer_lrp import Composite, TransformerLRP, rules
from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from captum_transformer_lrp.core.engine import Engine
from captum_transformer_lrp.errors import RuleError
from tests.helpers import Weighted
from tests.oracles import carried as oracle
from tests.oracles.carried import CarriedRules
from tests.oracles.compare import relative_error

GENERATOR = torch.Generator().manual_seed(11)
TOLERANCE = 1e-10


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    """Make what a test draws independent of the tests before it."""
    GENERATOR.manual_seed(12)


#: the papers' "LRP" baselines: a denominator for each sign, no rescaled sums
SEPARATE = TRANSFORMER_ATTRIBUTION.with_rules(
    {
        "product": rules.PositiveProduct(joint=False),
        **dict.fromkeys(
            ("add", "sub", "subtract", "rsub"), rules.ProportionalSum(rescale=False)
        ),
    }
)
PIXELS = TRANSFORMER_ATTRIBUTION.with_rules(
    {"conv2d": rules.ZBox(), "linear": rules.ZBox()}
)


@dataclass(frozen=True)
class Case:
    """An operator, its inputs and what the oracle says of the relevance it gets.

    ``expected`` takes the oracle's rules, numpy inputs, and the output's relevance.
    """

    name: str
    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    expected: Callable[..., Any]
    composite: Composite = field(default=TRANSFORMER_ATTRIBUTION, repr=False)
    rule: str = ""  # every mutant of this rule must be rejected

    def __str__(self) -> str:
        return self.name


BATCH = 2
X = (BATCH, 3, 4)  # examples, tokens, features
W, B, V4, W4 = draw(5, 4), draw(5), draw(4), draw(4)
LEFT, POSITION, SCORE_BIAS = draw(3, 3), draw(1, 3, 4), draw(1, 3, 3)
K, K_BIAS, K_GROUPS = draw(4, 2, 2, 2), draw(4), draw(4, 1, 2, 2)
IMAGE = (BATCH, 2, 4, 4)
MASK = torch.tensor([[0.0, -torch.inf, -torch.inf], [0, 0, -torch.inf], [0, 0, 0]])


def of(tensor: Tensor, x: Tensor) -> Tensor:
    """A constant in the dtype of x."""
    return tensor.to(x.dtype)


def linear(x: Tensor, bias: Tensor | None = B) -> Tensor:
    return functional.linear(x, of(W, x), None if bias is None else of(bias, x))


def a(tensor: Tensor) -> Any:
    return tensor.numpy()


def factors_by_matmul(o: CarriedRules, x: Any, y: Any, relevance: Any) -> Any:
    return o.factors("bij,bjk->bik", x, y, relevance=relevance)


def linear_case(name: str, function: Any, **options: Any) -> Case:
    """A case of ``x W^T``, spelled somehow."""
    return Case(
        name,
        function,
        (draw(*X),),
        lambda o, x, r: o.linear(x, a(W), None, r),
        **options,
    )


def conv_case(
    name: str, kernel: Tensor, bias: Tensor | None = None, **options: Any
) -> Case:
    return Case(
        name,
        lambda x: functional.conv2d(
            x, of(kernel, x), None if bias is None else of(bias, x), **options
        ),
        (draw(*IMAGE),),
        lambda o, x, r: o.z_plus(oracle.conv2d_terms(x, a(kernel), **options), x, r),
    )


LINEAR = [
    linear_case("linear", lambda x: linear(x, None)),
    Case(
        "linear with bias",
        linear,
        (draw(*X),),
        lambda o, x, r: o.linear(x, a(W), a(B), r),
        rule="linear",
    ),
    Case(
        "linear with bias, separate",
        linear,
        (draw(*X),),
        lambda o, x, r: o.linear(x, a(W), a(B), r, joint=False),
        SEPARATE,
        rule="linear",
    ),
    Case(
        "linear of a matrix",
        linear,
        (draw(BATCH, 4),),
        lambda o, x, r: o.linear(x[:, None], a(W), a(B), r[:, None])[:, 0],
    ),
    linear_case("matmul with a constant", lambda x: x @ of(W, x).T),
    linear_case("bmm with constants", lambda x: x.bmm(of(W, x).T.expand(len(x), 4, 5))),
    linear_case(
        "matmul with an expanded constant", lambda x: torch.matmul(x, of(W, x).T[None])
    ),
    linear_case(
        "einsum with a constant", lambda x: torch.einsum("bti,oi->bto", x, of(W, x))
    ),
    linear_case(
        "einsum of a list", lambda x: torch.einsum("oi,...i->...o", [of(W, x), x])
    ),
    linear_case("tensordot", lambda x: torch.tensordot(x, of(W, x).T, dims=1)),
    Case(
        "matmul with a constant, separate",
        lambda x: x @ of(W, x).T,
        (draw(*X),),
        lambda o, x, r: o.linear(x, a(W), None, r, joint=False),
        SEPARATE,
    ),
    Case(
        "constant on the left",
        lambda x: of(LEFT, x) @ x,
        (draw(*X),),
        lambda o, x, r: o.z_plus(
            oracle.einsum_terms("ij,bjk->bik", a(LEFT), x, of=1), x, r
        ),
    ),
    Case(
        "matmul with a vector",
        lambda x: x @ of(V4, x),
        (draw(*X),),
        lambda o, x, r: o.z_plus(oracle.einsum_terms("bti,i->bt", x, a(V4)), x, r),
    ),
    Case(
        "einsum with two constants",
        lambda x: torch.einsum("bti,i,oi->bto", x, of(V4, x), of(W, x)),
        (draw(*X),),
        lambda o, x, r: o.z_plus(
            oracle.einsum_terms("bti,i,oi->bto", x, a(V4), a(W)), x, r
        ),
    ),
    Case(
        "addmm",
        lambda x: torch.addmm(of(B, x), x, of(W, x).T),
        (draw(BATCH, 4),),
        lambda o, x, r: o.z_plus(oracle.einsum_terms("ni,oi->no", x, a(W)), x, r),
    ),
    Case(
        "addmm, alpha and beta",
        lambda x: torch.addmm(of(B, x), x, of(W, x).T, beta=0.3, alpha=2.0),
        (draw(BATCH, 4),),
        lambda o, x, r: o.z_plus(oracle.einsum_terms("ni,oi->no", x, 2 * a(W)), x, r),
    ),
    Case(
        "conv1d",
        lambda x: functional.conv1d(x, of(K[:, :, 0], x), of(K_BIAS, x)),
        (draw(BATCH, 2, 5),),
        lambda o, x, r: o.z_plus(
            oracle.conv2d_terms(x[:, :, None], a(K[:, :, :1])),
            x[:, :, None],
            r[:, :, None],
        )[:, :, 0],
    ),
    conv_case("conv2d", K, K_BIAS),
    conv_case("conv2d, stride and padding", K, stride=2, padding=1),
    conv_case("conv2d, groups", K_GROUPS, K_BIAS, groups=2),
    Case(
        "conv2d, separate",
        lambda x: functional.conv2d(x, of(K, x), of(K_BIAS, x)),
        (draw(*IMAGE),),
        lambda o, x, r: o.z_plus(oracle.conv2d_terms(x, a(K)), x, r, joint=False),
        SEPARATE,
    ),
    Case(
        "multiplied with constants",
        lambda x: x * of(V4, x) * -3.0,
        (draw(*X),),
        lambda o, x, r: o.pass_on(x, r),
    ),
    Case(
        "multiplied with constants that are wider",
        lambda x: of(POSITION, x) * x,
        (draw(BATCH, 1, 4),),
        lambda o, x, r: o.pass_on(x, r),
    ),
    Case(
        "two layers",
        lambda x: linear(functional.gelu(x @ of(LEFT, x)[:2, :].T @ of(W[:2], x))),
        (draw(BATCH, 2, 3),),
        lambda o, x, r: _two_layers(o, x, r),
    ),
]

PRODUCTS = [
    Case(
        "matmul",
        lambda x, y: x @ y,
        (draw(*X), draw(BATCH, 4, 2)),
        factors_by_matmul,
        rule="factors",
    ),
    Case("bmm", torch.bmm, (draw(*X), draw(BATCH, 4, 2)), factors_by_matmul),
    Case(
        "matmul, heads share a factor",
        torch.matmul,
        (draw(BATCH, 2, 3, 4), draw(BATCH, 1, 4, 2)),
        lambda o, x, y, r: _second_expanded(
            *o.factors("bhij,bjk->bhik", x, y[:, 0], relevance=r)
        ),
    ),
    Case(
        "einsum",
        lambda x, y: torch.einsum("bqd,bkd->bqk", x, y),
        (draw(*X), draw(BATCH, 2, 4)),
        lambda o, x, y, r: o.factors("bqd,bkd->bqk", x, y, relevance=r),
    ),
    Case(
        "einsum of three",
        lambda x, y, z: torch.einsum("bqd,bkd,bk->bq", x, y, z),
        (draw(*X), draw(BATCH, 2, 4), draw(BATCH, 2)),
        lambda o, x, y, z, r: o.factors("bqd,bkd,bk->bq", x, y, z, relevance=r),
    ),
    Case(
        "mul",
        lambda x, y: x * y,
        (draw(*X), draw(*X)),
        lambda o, x, y, r: o.factors("bij,bij->bij", x, y, relevance=r),
    ),
    Case(
        "mul, broadcast",
        lambda x, y: torch.mul(x, other=y),
        (draw(*X), draw(BATCH, 1, 4)),
        lambda o, x, y, r: _second_expanded(
            *o.factors("bij,bj->bij", x, y[:, 0], relevance=r)
        ),
    ),
    Case(
        "x * x",
        lambda x: x * x,
        (draw(*X),),
        lambda o, x, r: sum(o.factors("bij,bij->bij", x, x, relevance=r)),
    ),
    Case(
        "x @ x.mT",
        lambda x: x @ x.mT,
        (draw(*X),),
        lambda o, x, r: sum(o.factors("bij,bkj->bik", x, x, relevance=r)),
    ),
    *(
        Case(name, function, (draw(*X),), lambda o, x, r: o.pass_on(x, r))
        for name, function in (
            (
                "rms norm, written out",
                lambda x: (
                    x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * of(W4, x)
                ),
            ),
            (
                "rms norm, factor first, x * x",
                lambda x: torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * x,
            ),
            (
                "rms norm, by a negative power",
                lambda x: x * ((x * x).mean(-1, keepdim=True) + 1e-6) ** -0.5,
            ),
            (
                "times reciprocal of a norm",
                lambda x: x * x.norm(dim=-1, keepdim=True).reciprocal(),
            ),
            (
                "times rsqrt of a variance",
                lambda x: x * (x.var(-1, keepdim=True) + 1e-6).rsqrt(),
            ),
        )
    ),
    Case(
        "baddbmm with a relevant addend",
        torch.baddbmm,
        (draw(BATCH, 3, 2), draw(*X), draw(BATCH, 4, 2)),
        lambda o, c, x, y, r: _product_and_addend(o, c, x, y, r),
    ),
    Case(
        "baddbmm with a relevant addend, alpha and beta",
        lambda c, x, y: torch.baddbmm(c, x, y, beta=0.5, alpha=-2.0),
        (draw(BATCH, 3, 2), draw(*X), draw(BATCH, 4, 2)),
        lambda o, c, x, y, r: _product_and_addend(o, c, x, y, r, 0.5, -2.0),
    ),
    Case(
        "addmm with a relevant addend",
        lambda c, x: torch.addmm(c, x, of(W, x).T),
        (draw(BATCH, 5), draw(BATCH, 4)),
        lambda o, c, x, r: _linear_and_addend(o, c, x, r),
    ),
]

TWO = (draw(*X), draw(*X))
SUMS = [
    Case(
        "add",
        lambda x, y: x + y,
        TWO,
        lambda o, x, y, r: o.residual(x, y, r),
        rule="residual",
    ),
    Case(
        "add, not rescaled",
        lambda x, y: x + y,
        TWO,
        lambda o, x, y, r: o.residual(x, y, r, rescale=False),
        SEPARATE,
        rule="residual",
    ),
    *(
        Case(
            f"{name}{', not rescaled' if composite is SEPARATE else ''}",
            function,
            TWO,
            # bound now, not when it is called
            lambda o, x, y, r, s=s, t=t, rescale=composite is not SEPARATE: o.residual(
                s * x, t * y, r, rescale=rescale
            ),
            composite,
        )
        for composite in (TRANSFORMER_ATTRIBUTION, SEPARATE)
        for name, function, s, t in (
            ("add, alpha", lambda x, y: torch.add(x, y, alpha=0.3), 1, 0.3),
            ("sub", lambda x, y: x - y, 1, -1),
            ("subtract", torch.subtract, 1, -1),
            ("sub, alpha", lambda x, y: x.sub(y, alpha=2.5), 1, -2.5),
            ("rsub", torch.rsub, -1, 1),
            ("rsub, alpha", lambda x, y: torch.rsub(x, y, alpha=2.5), -2.5, 1),
        )
    ),
    Case(
        "add, broadcast",
        lambda x, y: x + y,
        (draw(BATCH, 1, 4), draw(*X)),
        lambda o, x, y, r: o.residual(x, y, r),
    ),
    Case(
        "add, both broadcast",
        lambda x, y: x + y,
        (draw(BATCH, 1, 4), draw(BATCH, 3, 1)),
        lambda o, x, y, r: o.residual(x, y, r),
    ),
    Case(
        "x + x",
        lambda x: x + x,
        (draw(*X),),
        lambda o, x, r: sum(o.residual(x, x, r)),
    ),
    Case(
        "three summands",
        lambda x, y, z: x + y + z,
        (*TWO, draw(*X)),
        lambda o, x, y, z, r: _three_summands(o, x, y, z, r),
    ),
    *(
        Case(name, function, (draw(*X),), lambda o, x, r: o.pass_on(x, r))
        for name, function in (
            ("plus a number", lambda x: x + 2.5),
            ("plus a number of no dimension", lambda x: x + torch.tensor(2.5)),
            ("a number minus x", lambda x: 1.0 - x),
            ("x minus a number", lambda x: torch.sub(x, 1.0, alpha=2)),
            ("plus a bias", lambda x: x + of(V4, x)),
            ("minus a bias", lambda x: of(V4, x) - x),
        )
    ),
    Case(
        "plus a bias that is wider",
        lambda x: x + of(V4, x),
        (draw(BATCH, 3, 1),),
        lambda o, x, r: o.pass_on(x, r),
    ),
    Case(
        "plus a position embedding",
        lambda x: x + of(POSITION, x),
        (draw(*X),),
        lambda o, x, r: o.residual(x, a(POSITION), r)[0],
    ),
    Case(
        "a position embedding plus x",
        lambda x: torch.add(of(POSITION[0], x), x, alpha=1.5),
        (draw(*X),),
        lambda o, x, r: o.residual(a(POSITION), 1.5 * x, r)[1],
    ),
    Case(
        "minus a position embedding, not rescaled",
        lambda x: x - of(POSITION, x),
        (draw(*X),),
        lambda o, x, r: o.residual(x, -a(POSITION), r, rescale=False)[0],
        SEPARATE,
    ),
    Case(
        "attention scores and a mask",
        lambda q, k, v: ((q @ k.mT) / 2 + of(MASK, q)).softmax(-1) @ v,
        (draw(*X), draw(*X), draw(*X)),
        lambda o, q, k, v, r: _attention(o, q, k, v, r, mask=a(MASK)),
    ),
    Case(
        "attention scores and relative positions",
        lambda q, k, v: (q @ k.mT * 0.5 + of(SCORE_BIAS, q)).softmax(-1) @ v,
        (draw(*X), draw(*X), draw(*X)),
        lambda o, q, k, v, r: _attention(o, q, k, v, r, mask=a(SCORE_BIAS)),
    ),
    Case(
        "fused attention",
        lambda q, k, v: functional.scaled_dot_product_attention(
            q, k, v, attn_mask=of(SCORE_BIAS, q)
        ),
        (draw(*X), draw(*X), draw(*X)),
        lambda o, q, k, v, r: _attention(o, q, k, v, r, mask=a(SCORE_BIAS)),
    ),
]


def reduced(
    name: str, function: Any, terms: Callable[..., Any], *shape: int, **options: Any
) -> Case:
    """A case of a sum of positive weights."""
    return Case(
        name,
        function,
        (draw(*shape),),
        lambda o, x, r: o.z_plus(terms(x), x, r),
        **options,
    )


REDUCTIONS = [
    reduced("sum", lambda x: x.sum(1), lambda x: oracle.sum_terms(x, 1), *X),
    reduced(
        "sum of the last",
        lambda x: torch.sum(x, dim=-1),
        lambda x: oracle.sum_terms(x, -1),
        *X,
    ),
    Case(
        "sum, dimension kept",
        lambda x: x.sum(1, keepdim=True),
        (draw(*X),),
        lambda o, x, r: o.z_plus(oracle.sum_terms(x, 1), x, r[:, 0]),
    ),
    reduced(
        "sum over two dimensions",
        lambda x: x.sum((1, 2))[:, None],
        lambda x: [((n, 0), (n, t, i), 1.0) for n, t, i in np.ndindex(x.shape)],
        *X,
    ),
    reduced(
        "mean", lambda x: x.mean(1), lambda x: oracle.sum_terms(x, 1, mean=True), *X
    ),
    reduced("cumsum", lambda x: x.cumsum(1), lambda x: oracle.cumsum_terms(x, 1), *X),
    reduced(
        "avg_pool2d",
        lambda x: functional.avg_pool2d(x, 2),
        lambda x: oracle.average_pool_terms(x, 2),
        *IMAGE,
    ),
    reduced(
        "adaptive_avg_pool2d",
        lambda x: functional.adaptive_avg_pool2d(x, (2, 2)),
        lambda x: oracle.average_pool_terms(x, 2),
        *IMAGE,
    ),
    reduced(
        "avg_pool1d",
        lambda x: functional.avg_pool1d(x.flatten(1)[:, None], 12)[:, 0, 0:1],
        lambda x: [((n, 0), (n, t, i), 1 / 12) for n, t, i in np.ndindex(x.shape)],
        *X,
    ),
]

PASSES = [
    Case(name, function, (draw(*X),), lambda o, x, r: o.pass_on(x, r))
    for name, function in (
        ("softmax", lambda x: x.softmax(-1)),
        ("softmax, not the last dimension", lambda x: functional.softmax(x, dim=1)),
        ("log_softmax", lambda x: x.log_softmax(-1)),
        ("gelu", functional.gelu),
        ("relu", functional.relu),
        ("silu", functional.silu),
        ("tanh", torch.tanh),
        ("leaky_relu", functional.leaky_relu),
        ("clamp", lambda x: x.clamp(-0.5, 0.5)),
        ("exp", torch.exp),
        ("abs", torch.abs),
        ("negative", lambda x: -x),
        ("layer norm", lambda x: functional.layer_norm(x, (4,), of(V4, x), of(W4, x))),
        ("rms norm", lambda x: functional.rms_norm(x, (4,), of(V4, x), 1e-6)),
        ("group norm", lambda x: functional.group_norm(x, 1)),
        ("dropout", lambda x: functional.dropout(x, 0.5, training=False)),
        ("divided by a number", lambda x: x / -3.0),
        ("divided by constants", lambda x: torch.div(x, of(V4, x))),
        (
            "divided by its norm",
            lambda x: x / (x.norm(dim=-1, keepdim=True) + 1e-6),
        ),
        (
            "divided by a standard deviation",
            lambda x: x / (x.var(-1, keepdim=True) + 1e-6).sqrt(),
        ),
        ("normalize", lambda x: functional.normalize(x, dim=-1)),
        ("square", lambda x: x**2),
        ("cube", lambda x: x.pow(3)),
        ("torch.square", torch.square),
        ("power of a number", lambda x: 2.0**x),
        ("gelu, then softmax", lambda x: functional.gelu(x).softmax(-1)),
    )
] + [
    Case(
        "divided by wider constants",
        lambda x: x / of(POSITION, x),
        (draw(BATCH, 1, 4),),
        lambda o, x, r: o.pass_on(x, r),
    ),
    Case(
        "divided by another tensor",
        lambda x, y: x / (1 + y * y),
        (draw(*X), draw(*X)),
        lambda o, x, y, r: (o.pass_on(x, r), 0 * y),
    ),
]

PIXEL_LAYERS = [
    Case(
        "z-box",
        lambda x: functional.conv2d(x, of(K, x), of(K_BIAS, x)),
        (draw(*IMAGE),),
        lambda o, x, r: o.z_box(oracle.conv2d_terms(x, a(K)), x, r),
        PIXELS,
        rule="z_box",
    ),
    Case(
        "z-box, stride and padding",
        lambda x: functional.conv2d(x, of(K, x), stride=2, padding=1),
        (draw(*IMAGE),),
        lambda o, x, r: o.z_box(
            oracle.conv2d_terms(x, a(K), stride=2, padding=1), x, r
        ),
        PIXELS,
    ),
    Case(
        "z-box, groups",
        lambda x: functional.conv2d(x, of(K_GROUPS, x), groups=2),
        (draw(*IMAGE),),
        lambda o, x, r: o.z_box(oracle.conv2d_terms(x, a(K_GROUPS), groups=2), x, r),
        PIXELS,
    ),
    Case(
        "z-box, larger epsilon",
        lambda x: functional.conv2d(x, of(K, x)),
        (draw(*IMAGE),),
        lambda o, x, r: o.z_box(oracle.conv2d_terms(x, a(K)), x, r, epsilon=0.5),
        PIXELS.with_rules({"conv2d": rules.ZBox(epsilon=0.5)}),
    ),
    Case(
        "z-box of reshaped pixels",
        lambda x: linear(x.flatten(1).unflatten(1, (-1, 4)).transpose(1, 2).mT),
        (draw(*IMAGE),),
        lambda o, x, r: _z_box_of_rows(o, x, r),
        PIXELS,
    ),
    Case(
        "z+ behind the z-box",
        lambda x: functional.conv2d(
            functional.gelu(functional.conv2d(x, of(K, x))),
            of(K.transpose(0, 1), x),
            of(K_BIAS[:2], x),
        ),
        (draw(*IMAGE),),
        lambda o, x, r: _two_convolutions(o, x, r),
        PIXELS,
    ),
]

CASES = [*LINEAR, *PRODUCTS, *SUMS, *REDUCTIONS, *PASSES, *PIXEL_LAYERS]


def _two_layers(o: CarriedRules, x: Any, relevance: Any) -> Any:
    first, second = a(LEFT)[:2], a(W)[:2].T  # (out, in) both
    hidden = np.einsum("bti,oi->bto", x, first)
    before = np.einsum("bti,oi->bto", hidden, second)
    after = functional.gelu(torch.from_numpy(before)).numpy()
    found = o.pass_on(before, o.linear(after, a(W), a(B), relevance))
    return o.linear(x, first, None, o.linear(hidden, second, None, found))


def _second_expanded(of_x: Any, of_y: Any) -> Any:
    return of_x, of_y[:, None]


def _product_and_addend(
    o: CarriedRules,
    c: Any,
    x: Any,
    y: Any,
    relevance: Any,
    beta: float = 1.0,
    alpha: float = 1.0,
) -> Any:
    of_product, of_addend = o.residual(alpha * x @ y, beta * c, relevance)
    return of_addend, *factors_by_matmul(o, x, y, of_product)


def _linear_and_addend(o: CarriedRules, c: Any, x: Any, relevance: Any) -> Any:
    of_product, of_addend = o.residual(x @ a(W).T, c, relevance)
    return of_addend, o.linear(x[:, None], a(W), None, of_product[:, None])[:, 0]


def _three_summands(o: CarriedRules, x: Any, y: Any, z: Any, relevance: Any) -> Any:
    of_both, of_z = o.residual(x + y, z, relevance)
    return *o.residual(x, y, of_both), of_z


def _attention(
    o: CarriedRules, q: Any, k: Any, v: Any, relevance: Any, *, mask: Any
) -> Any:
    scores = q @ k.swapaxes(1, 2)
    pattern = torch.from_numpy(scores / 2 + mask).softmax(-1).numpy()
    of_pattern, of_v = o.factors("bqk,bkd->bqd", pattern, v, relevance=relevance)
    of_scores = o.pass_on(scores, of_pattern)
    return *o.factors("bqd,bkd->bqk", q, k, relevance=of_scores), of_v


def _z_box_of_rows(o: CarriedRules, x: Any, relevance: Any) -> Any:
    rows = x.reshape(len(x), -1, 4)
    terms = oracle.einsum_terms("bti,oi->bto", rows, a(W))
    return o.z_box(terms, rows, relevance).reshape(x.shape)


def _two_convolutions(o: CarriedRules, x: Any, relevance: Any) -> Any:
    hidden = functional.gelu(functional.conv2d(torch.from_numpy(x), K)).numpy()
    terms = oracle.conv2d_terms(hidden, a(K.transpose(0, 1)))
    found = o.pass_on(hidden, o.z_plus(terms, hidden, relevance))
    return o.z_box(oracle.conv2d_terms(x, a(K)), x, found)


# ------------------------------------------------------------------- how they are run


@dataclass(frozen=True)
class Outcome:
    """What one forward pass and two ways back give."""

    output: Tensor
    gradients: tuple[Tensor, ...]
    relevance: tuple[Tensor, ...]


def carried(
    function: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
    relevance: Tensor,
    composite: Composite = TRANSFORMER_ATTRIBUTION,
) -> Outcome:
    """Hand any relevance to the output, and the same as a gradient before that."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    passed = [leaf.clone() for leaf in leaves]
    with Engine(composite) as engine:
        for leaf, x in zip(leaves, passed, strict=True):
            engine.tape.start(leaf, x)
        output = engine.arrived(function(*passed))
        with torch._C.DisableTorchFunction():
            scores = (output * relevance).sum()
            engine.check(scores)
        gradients = engine.gradients(scores, leaves, relevance=False, keep_graph=True)
        found = engine.gradients(scores, leaves, relevance=True)
    return Outcome(output.detach(), _filled(gradients, inputs), _filled(found, inputs))


def _filled(
    found: tuple[Tensor | None, ...], inputs: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros_like(x) if g is None else g
        for g, x in zip(found, inputs, strict=True)
    )


def handed_out(case: Case) -> tuple[Tensor, Tensor]:
    """Return weights for ``Weighted`` and the relevance that it hands out.

    A product with constants passes relevance on, and the sum shares 1 by the positive
    among the weighted values.
    """
    output = case.function(*case.inputs)
    weights = draw(*output.shape)
    values = a((output * weights).flatten(1))
    shares = oracle.z_plus(oracle.sum_terms(values, 1), values, np.ones(len(values)))
    return weights, torch.from_numpy(shares).view_as(output)


def expected_of(case: Case, relevance: Tensor, o: CarriedRules) -> tuple[Any, ...]:
    found = case.expected(o, *map(a, case.inputs), a(relevance))
    return found if isinstance(found, tuple) else (found,)


def assert_agree(found: tuple[Tensor, ...], expected: tuple[Any, ...]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        if np.abs(theirs).max() == 0:
            assert not ours.any()
        else:
            assert relative_error(ours, theirs) < TOLERANCE


def assert_differ(found: tuple[Tensor, ...], wrong: tuple[Any, ...], name: str) -> None:
    errors = [
        relative_error(ours, theirs)
        for ours, theirs in zip(found, wrong, strict=True)
        if np.abs(theirs).max() > 0
    ]
    assert errors, name
    assert max(errors) > 1e-3, name


def plain(
    function: Callable[..., Tensor], inputs: tuple[Tensor, ...], weights: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the output and gradients of torch alone."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = function(*(leaf.clone() for leaf in leaves))
    found = torch.autograd.grad((output * weights).sum(), leaves, allow_unused=True)
    return output.detach(), _filled(found, inputs)


# ----------------------------------------------------------------------- the oracles


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_oracle(case: Case) -> None:
    """For a relevance of any sign, handed to the output directly."""
    relevance = draw(*case.function(*case.inputs).shape)
    found = carried(case.function, case.inputs, relevance, case.composite).relevance
    assert_agree(found, expected_of(case, relevance, CarriedRules()))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rejects_what_is_one_percent_wrong(case: Case) -> None:
    relevance = draw(*case.function(*case.inputs).shape)
    found = carried(case.function, case.inputs, relevance, case.composite).relevance
    right = expected_of(case, relevance, CarriedRules())
    rejected = 0
    for mutant in oracle.ONE_PERCENT:
        wrong = expected_of(case, relevance, CarriedRules().spoilt(mutant))
        if all(map(np.array_equal, wrong, right)):
            continue  # a rule, or an output of one, that the case does not use
        assert_differ(found, wrong, str(mutant))
        rejected += 1
    assert rejected, "the case uses no rule"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_oracle_as_an_attribution(case: Case) -> None:
    """For what a model hands out from the seed 1, through the public interface."""
    weights, relevance = handed_out(case)
    lrp = TransformerLRP(Weighted(case.function, weights), composite=case.composite)
    found = lrp.attribute(case.inputs)
    assert_agree(found, expected_of(case, relevance, CarriedRules()))


@pytest.mark.parametrize("case", [c for c in CASES if c.rule], ids=str)
def test_rejects_mutants(case: Case) -> None:
    """A wrong oracle must not agree with us, or agreement would mean nothing."""
    relevance = draw(*case.function(*case.inputs).shape)
    found = carried(case.function, case.inputs, relevance, case.composite).relevance
    for mutant in oracle.mutants_of(case.rule):
        wrong = expected_of(case, relevance, CarriedRules().spoilt(mutant))
        assert_differ(found, wrong, str(mutant))


# -------------------------------------------------------------------- for every rule


def _overwrite(x: Tensor, y: Tensor) -> Tensor:
    h = linear(x, None)
    h += linear(y)
    return h


def _overwrite_with_own(x: Tensor) -> Tensor:
    h = functional.linear(x, of(W[:4], x))
    h += functional.linear(h, of(W[1:], x), of(B[1:], x))
    return h


def _overwrite_product(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    h = x @ y.mT
    h += z
    return h


def _subtract_in_place(x: Tensor, y: Tensor) -> Tensor:
    h = linear(x, None)
    return h.sub_(linear(y), alpha=0.5)


def _relu_in_place(x: Tensor) -> Tensor:
    h = linear(x)
    h.relu_()
    return h


def _scale_in_place(x: Tensor) -> Tensor:
    h = x @ of(W, x).T
    h *= 0.5
    h /= of(B, x)
    return h


def _write_slice_of_copy(x: Tensor, y: Tensor) -> Tensor:
    h = linear(x).clone()
    h[:, 0] += y[:, 0]
    return h


def _linear_and_sum(o: CarriedRules, x: Any, y: Any, relevance: Any) -> Any:
    of_x, of_y = o.residual(x @ a(W).T, y @ a(W).T + a(B), relevance)
    return o.linear(x, a(W), None, of_x), o.linear(y, a(W), a(B), of_y)


def _linear_and_half(o: CarriedRules, x: Any, y: Any, relevance: Any) -> Any:
    of_x, of_y = o.residual(x @ a(W).T, -0.5 * (y @ a(W).T + a(B)), relevance)
    return o.linear(x, a(W), None, of_x), o.linear(y, a(W), a(B), of_y)


def _own_branch(o: CarriedRules, x: Any, relevance: Any) -> Any:
    h = x @ a(W[:4]).T
    skipped, branch = o.residual(h, h @ a(W[1:]).T + a(B[1:]), relevance)
    found = skipped + o.linear(h, a(W[1:]), a(B[1:]), branch)
    return o.linear(x, a(W[:4]), None, found)


def _product_and_sum(o: CarriedRules, x: Any, y: Any, z: Any, relevance: Any) -> Any:
    of_product, of_z = o.residual(x @ y.swapaxes(1, 2), z, relevance)
    return *o.factors("bqd,bkd->bqk", x, y, relevance=of_product), of_z


def _slice_of_copy(o: CarriedRules, x: Any, y: Any, relevance: Any) -> Any:
    h = x @ a(W).T + a(B)
    of_x, of_y = relevance.copy(), np.zeros_like(y)
    of_x[:, 0], of_y[:, 0] = o.residual(h[:, 0], y[:, 0], relevance[:, 0])
    return o.linear(x, a(W), a(B), of_x), of_y


IN_PLACE = [
    Case("linear += linear", _overwrite, TWO, _linear_and_sum),
    Case("h += linear(h)", _overwrite_with_own, (draw(*X),), _own_branch),
    Case(
        "matmul += x", _overwrite_product, (*TWO, draw(BATCH, 3, 3)), _product_and_sum
    ),
    Case("sub_ with alpha", _subtract_in_place, TWO, _linear_and_half),
    linear_case("relu_", _relu_in_place),
    linear_case("relu(inplace=True)", lambda x: functional.relu(linear(x), True)),
    linear_case("*= and /=", _scale_in_place),
    Case(
        "slice of a copy += x",
        _write_slice_of_copy,
        (draw(*X), draw(BATCH, 3, 5)),
        _slice_of_copy,
    ),
]


@pytest.mark.parametrize("case", IN_PLACE, ids=str)
def test_in_place_equals_oracle(case: Case) -> None:
    relevance = draw(*case.function(*(x.clone() for x in case.inputs)).shape)
    found = carried(case.function, case.inputs, relevance).relevance
    assert_agree(found, expected_of(case, relevance, CarriedRules()))


def _written_slice(x: Tensor, y: Tensor) -> Tensor:
    h = linear(x)
    h[:, 0] += y[:, 0]
    return h


def _written_input(x: Tensor) -> Tensor:
    h = x.reshape(BATCH, 3, 4)
    z = functional.linear(h, of(W[:4], x))
    h += z
    return h


def _read_through_a_view(x: Tensor) -> Tensor:
    h = linear(x)
    z = h[..., :2]
    h += 1.0
    return z


SAME: dict[str, Any] = {
    "slice": (
        _written_slice,
        lambda x, y: torch.cat([linear(x)[:, :1] + y[:, :1], linear(x)[:, 1:]], 1),
        (draw(*X), draw(BATCH, 3, 5)),
    ),
    "what a product has read": (
        _written_input,
        lambda x: x + functional.linear(x, of(W[:4], x)),
        (draw(*X),),
    ),
    "under a view": (
        _read_through_a_view,
        lambda x: linear(x)[..., :2] + 1.0,
        (draw(*X),),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_writing_in_place_equals_writing_a_copy(name: str) -> None:
    in_place, copied, inputs = SAME[name]
    relevance = draw(*copied(*inputs).shape)
    found = carried(in_place, inputs, relevance)
    expected = carried(copied, inputs, relevance)
    assert torch.allclose(found.output, copied(*inputs), rtol=1e-13, atol=1e-14)
    for ours, theirs in zip(found.relevance, expected.relevance, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "normalize",
    [
        lambda x: x * (1 / x.norm(dim=-1, keepdim=True)),
        lambda x: x * torch.rsqrt((x * x).mean(-1))[..., None],
        lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True)).expand_as(x),
        lambda x: x * (torch.rsqrt((x * x).mean(-1, keepdim=True)) + 1e-6),
        lambda x: x * x.norm(dim=-1, keepdim=True) ** torch.tensor(-1.0),
    ],
)
def test_what_normalises_absorbs_nothing(normalize: Any) -> None:
    x, relevance = draw(*X), draw(*X)
    assert torch.equal(carried(normalize, (x,), relevance).relevance[0], relevance)


def test_a_mask_after_soft_capping_takes_nothing() -> None:
    mask = torch.full((3, 3), -torch.inf, dtype=torch.float64).triu(1)
    finite = mask.nan_to_num(neginf=-1e4)

    def attention(added: Tensor) -> Any:
        return lambda x: (
            (((x @ x.transpose(1, 2)) / 3).tanh() * 3 + added).softmax(-1) @ x
        )

    x, relevance = draw(*X), draw(*X)
    found = carried(attention(mask), (x,), relevance).relevance[0]
    assert found.isfinite().all()
    same = carried(attention(finite), (x,), relevance).relevance[0]
    assert torch.allclose(found, same, rtol=1e-10)


def test_one_dimension_is_one_example_each() -> None:
    x, y, relevance = draw(4), draw(4), draw(4)
    found = carried(torch.add, (x, y), relevance).relevance
    for i in range(4):
        alone = carried(torch.add, (x[i : i + 1], y[i : i + 1]), relevance[i : i + 1])
        for ours, single in zip(found, alone.relevance, strict=True):
            assert torch.allclose(ours[i : i + 1], single, rtol=1e-12)


def test_values_that_were_overwritten_receive_nothing() -> None:
    x, relevance = draw(*X), draw(BATCH, 3, 5)

    def function(x: Tensor) -> Tensor:
        h = linear(x)
        h[:, 0] = 1.0
        return h

    found = carried(function, (x,), relevance)
    assert torch.equal(found.output, function(x))
    assert not found.relevance[0][:, 0].any()
    expected = oracle.linear(a(x), a(W), a(B), a(relevance))
    assert relative_error(found.relevance[0][:, 1:], expected[:, 1:]) < TOLERANCE


@pytest.mark.parametrize("case", [*CASES, *IN_PLACE], ids=str)
def test_output_and_gradient_are_those_of_torch(case: Case) -> None:
    """One graph hands back both; the gradient is exact, and relevance comes second."""
    output = case.function(*(x.clone() for x in case.inputs))
    weights = draw(*output.shape)
    found = carried(case.function, case.inputs, weights, case.composite)
    output, gradients = plain(case.function, case.inputs, weights)
    if case.name == "fused attention":  # it is taken apart
        assert torch.allclose(found.output, output, rtol=1e-12, atol=1e-14)
        for ours, theirs in zip(found.gradients, gradients, strict=True):
            assert relative_error(ours, theirs) < 1e-12
        return
    assert torch.equal(found.output, output)
    for ours, theirs in zip(found.gradients, gradients, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("case", [*CASES, *IN_PLACE], ids=str)
def test_a_batch_equals_its_examples_one_by_one(case: Case) -> None:
    relevance = draw(*case.function(*(x.clone() for x in case.inputs)).shape)
    whole = carried(case.function, case.inputs, relevance, case.composite).relevance
    for n in range(BATCH):
        one = carried(
            case.function,
            tuple(x[n : n + 1] for x in case.inputs),
            relevance[n : n + 1],
            case.composite,
        )
        for ours, theirs in zip(one.relevance, whole, strict=True):
            error = (ours - theirs[n : n + 1]).abs().max()
            assert error <= TOLERANCE * theirs.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [*CASES, *IN_PLACE], ids=str)
def test_other_dtypes(case: Case, dtype: torch.dtype) -> None:
    inputs = tuple(x.to(dtype) for x in case.inputs)
    relevance = draw(*case.function(*(x.clone() for x in case.inputs)).shape)
    exact = carried(case.function, case.inputs, relevance, case.composite)
    found = carried(case.function, inputs, relevance.to(dtype), case.composite)
    for ours, theirs in zip(found.relevance, exact.relevance, strict=True):
        assert ours.dtype == dtype
        assert ours.isfinite().all()
        if dtype == torch.float32 and theirs.any():
            assert relative_error(ours, theirs) < 1e-3


# ----------------------------------------------------------------- zero denominators


@pytest.mark.parametrize("case", [*CASES, *IN_PLACE], ids=str)
def test_all_inputs_zero(case: Case) -> None:
    relevance = draw(*case.function(*(x.clone() for x in case.inputs)).shape)
    zeros = tuple(torch.zeros_like(x) for x in case.inputs)
    found = carried(case.function, zeros, relevance, case.composite).relevance
    expected = case.expected(CarriedRules(), *map(a, zeros), a(relevance))
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert_agree(found, expected)


@pytest.mark.parametrize(
    "composite", [TRANSFORMER_ATTRIBUTION, SEPARATE], ids=["joint", "separate"]
)
@pytest.mark.parametrize("size", [4, 300])
def test_without_positive_contributions_there_is_no_relevance(
    composite: Composite, size: int
) -> None:
    """Also where rounding leaves a little of ``x W + |x| |W|``."""
    x, weight = draw(BATCH, 3, size).abs(), -draw(5, size).abs()
    for function in (
        lambda x: functional.linear(x, of(weight, x), of(B, x)),
        lambda x: x @ of(weight, x).T,
        lambda x: functional.conv1d(x.mT, of(weight[:, :, None], x)),
        lambda x: (-x).mean(1),
        lambda x: (-x).cumsum(-1),
    ):
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            relevance = torch.ones_like(function(x.to(dtype)))
            found = carried(function, (x.to(dtype),), relevance, composite)
            assert not found.relevance[0].any()


def test_one_output_without_positive_contributions() -> None:
    """It gives nothing, and the outputs beside it give what they have."""
    x, weight, relevance = draw(*X), W.clone(), draw(BATCH, 3, 5)
    weight[2] = -W[2].abs()
    found = carried(
        lambda x: functional.linear(x.abs(), weight, B), (x,), relevance
    ).relevance[0]
    expected = oracle.linear(a(x.abs()), a(weight), a(B), a(relevance))
    without = relevance.clone()
    without[..., 2] = 0.0
    assert relative_error(found, expected) < TOLERANCE
    assert (
        relative_error(found, oracle.linear(a(x.abs()), a(weight), a(B), a(without)))
        < TOLERANCE
    )


@pytest.mark.parametrize(
    "composite", [TRANSFORMER_ATTRIBUTION, SEPARATE], ids=["rescaled", "plain"]
)
def test_sums_that_cancel(composite: Composite) -> None:
    """``a + b = 0`` everywhere, in one example, and in one element."""
    x, y, relevance = draw(3, 3, 4), draw(3, 3, 4), draw(3, 3, 4)
    y[0], y[1, 0, 0] = -x[0], -x[1, 0, 0]
    found = carried(lambda x, y: x + y, (x, y), relevance, composite).relevance
    rescale = composite is TRANSFORMER_ATTRIBUTION
    expected = oracle.residual(a(x), a(y), a(relevance), rescale=rescale)
    assert not found[0][0].any()
    assert not found[1][0].any()
    assert not found[0][1, 0, 0]
    assert_agree(found, expected)


def test_a_summand_without_relevance_of_its_own() -> None:
    """``s_a = 0``, because a is 0 in one example, or because its shares cancel."""
    x, y = draw(*X), draw(*X)
    x[0], relevance = 0.0, draw(*X)
    found = carried(lambda x, y: x + y, (x, y), relevance).relevance
    assert torch.allclose(found[1][0].sum(), relevance[0].sum())
    assert_agree(found, oracle.residual(a(x), a(y), a(relevance)))
    x, y = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 1.0]])
    relevance = torch.tensor([[2.0, -2.0]])
    for share in carried(lambda x, y: x + y, (x, y), relevance).relevance:
        assert not share.any()


def test_products_that_vanish() -> None:
    x, y, relevance = draw(*X), draw(*X), draw(*X)
    x[0, 0], y[1, :, 2] = 0.0, 0.0
    found = carried(lambda x, y: x * y, (x, y), relevance).relevance
    for share in found:
        assert torch.equal(share[0, 0], torch.zeros(4).double())
        assert not share[1, :, 2].any()
    expected = oracle.factors("bij,bij->bij", a(x), a(y), relevance=a(relevance))
    assert_agree(found, expected)


# ------------------------------------------------------------------------ properties


@pytest.mark.parametrize(
    "name",
    ["matmul", "matmul, heads share a factor", "einsum of three", "mul, broadcast",
     "x * x", "rms norm, written out", "baddbmm with a relevant addend", "add", "sub",
     "add, broadcast", "add, not rescaled", "three summands", "fused attention",
     "softmax", "layer norm", "divided by another tensor"],
)  # fmt: skip
def test_conserves(name: str) -> None:
    (case,) = [c for c in CASES if c.name == name]
    relevance = draw(*case.function(*case.inputs).shape)
    found = carried(case.function, case.inputs, relevance, case.composite).relevance
    kept = torch.stack([r.flatten(1).sum(1) for r in found]).sum(0)
    assert torch.allclose(kept, relevance.flatten(1).sum(1))


def test_positive_shares_conserve_where_something_is_positive() -> None:
    weight, kernel = W.clone(), K.clone()
    weight[:, 0] = kernel[:, 0] = 1.0
    for function, shape in (
        (lambda x: functional.linear(x, weight, B), X),
        (lambda x: functional.conv2d(x, kernel, K_BIAS), IMAGE),
        (lambda x: x.cumsum(1), X),
        (lambda x: x.mean((1, 2)), X),
    ):
        x = draw(*shape).abs() + 0.1
        relevance = draw(*function(x).shape)
        (found,) = carried(function, (x,), relevance).relevance
        assert torch.allclose(
            found.flatten(1).sum(1), relevance.reshape(BATCH, -1).sum(1)
        )


def test_separate_denominators_hand_on_twice_the_relevance() -> None:
    """As the papers' baseline does, where both signs contribute."""
    x, weight, relevance = draw(*X), draw(5, 4), draw(BATCH, 3, 5)
    x[..., 0], x[..., 1] = 1.0, -1.0
    weight[:, 0], weight[:, 1] = 1.0, -1.0
    (found,) = carried(
        lambda x: functional.linear(x, weight), (x,), relevance, SEPARATE
    ).relevance
    assert torch.allclose(found.sum(-1), 2 * relevance.sum(-1))


def test_nothing_goes_through_what_absorbs() -> None:
    for function in (
        torch.rsqrt,
        torch.reciprocal,
        lambda x: 1 / x,
        lambda x: x**-0.5,
        lambda x: x.var(-1),
        lambda x: x.std(-1, keepdim=True),
        lambda x: x.norm(dim=-1),
        lambda x: torch.linalg.vector_norm(x, dim=-1),
        lambda x: x.logsumexp(-1),
    ):
        x = draw(*X).abs() + 0.1
        relevance = torch.ones_like(function(x))
        found = carried(function, (x,), relevance)
        assert not found.relevance[0].any()
        _, (gradient,) = plain(function, (x,), relevance)
        assert torch.equal(found.gradients[0], gradient)


def test_rules_print_and_compare() -> None:
    assert repr(rules.PositiveProduct()) == "PositiveProduct(joint=True)"
    assert rules.ProportionalSum() != rules.ProportionalSum(rescale=False)
    assert repr(rules.ZBox()) == (
        "ZBox(otherwise=PositiveProduct(joint=True), epsilon=1e-09)"
    )
    assert {rules.PassOn(), rules.PassOn(), rules.Absorb()} == {
        rules.PassOn(),
        rules.Absorb(),
    }


def test_a_sum_of_two_relevant_inputs_without_a_rule_is_refused() -> None:
    def model(x: Tensor, y: Tensor) -> Tensor:
        return x.index_add(1, torch.tensor([0]), y[:, :1]).sum((1, 2))

    with pytest.raises(RuleError) as caught:
        TransformerLRP(model, composite=TRANSFORMER_ATTRIBUTION).attribute(TWO)
    assert str(caught.value) == (
        "PositiveSum() was given to 'index_add' with 2 relevant inputs; it knows real "
        "functions of one. Give the operator a rule of its own."
    )


HANDED_ON: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: functional.dropout(x, 0.5, training=False),
    "contiguous": lambda x: x.contiguous(),
    "to": lambda x: x.to(x.dtype),
    "type_as": lambda x: x.type_as(x),
    "clone": lambda x: x.clone(),
    "view": lambda x: x.view(x.shape),
}


@pytest.mark.parametrize("name", HANDED_ON)
@pytest.mark.parametrize("composite", ["epsilon-gamma-box", "epsilon-plus-flat"])
def test_an_operator_that_hands_on_its_input_changes_nothing(
    name: str, composite: str
) -> None:
    """Relevance passes it once, not the linear operator before it once more."""
    first, last = draw(4, 4), draw(3, 4)

    def model(x: Tensor, hand_on: Callable[[Tensor], Tensor]) -> Tensor:
        y = x + hand_on(functional.linear(functional.gelu(x), first))
        return functional.linear(y, last)

    x = draw(2, 4)
    found, expected = (
        TransformerLRP(lambda x, f=f: model(x, f), composite=composite).attribute(
            x, target=1
        )
        for f in (HANDED_ON[name], lambda x: x)
    )
    assert relative_error(found, expected) < 1e-12
