"""Every rule against the relevance-form oracle, and wrong oracles rejected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from captum_transformer_lrp import Composite, TransformerLRP, rules
from captum_transformer_lrp.core.composites import ATTN_LRP, CP_LRP
from tests.helpers import Weighted
from tests.oracles import rules as oracle
from tests.oracles.compare import relative_error
from tests.oracles.mutants import mutants_of

GENERATOR = torch.Generator().manual_seed(7)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """An operator, its inputs and what the oracle says of the relevance it gets.

    ``expected`` takes numpy inputs and the relevance of the output.
    """

    name: str
    composite: Composite
    function: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    expected: Callable[..., Any]
    rule: str = ""  # the field of the oracles' RuleSet, for the mutants

    def __str__(self) -> str:
        return self.name


W, B = draw(5, 4), draw(5)
W4, B4 = draw(4), draw(4)
MEAN, VARIANCE = draw(4), draw(4).exp()
MASK = torch.tensor([0.0, 0.0, -torch.inf, 0.0], dtype=torch.float64)


def gelu(x: Any) -> Any:
    return functional.gelu(torch.as_tensor(x)).numpy()


CASES = [
    Case(
        "linear",
        ATTN_LRP,
        lambda x: functional.linear(x, W, B),
        (draw(2, 3, 4),),
        lambda x, r: oracle.linear(x, W.numpy(), B.numpy(), r),
        "linear",
    ),
    Case(
        "add",
        ATTN_LRP,
        lambda a, b: a + b,
        (draw(2, 3), draw(2, 3)),
        oracle.add,
        "add",
    ),
    *(
        Case(
            f"activation {name}",
            ATTN_LRP,
            function,
            (draw(2, 5),),
            oracle.activation_identity,
            "activation",
        )
        for name, function in (
            ("gelu", functional.gelu),
            ("gelu tanh", lambda x: functional.gelu(x, approximate="tanh")),
            ("silu", functional.silu),
            ("tanh", torch.tanh),
            ("sigmoid", torch.sigmoid),
            ("softplus", functional.softplus),
            ("hardswish", functional.hardswish),
            ("relu6", functional.relu6),
            ("elu", functional.elu),
            ("clamp", lambda x: x.clamp(-0.5, 0.7)),
            ("square", lambda x: x**2),
            ("cube", lambda x: x.pow(3)),
        )
    ),
    Case(
        "product",
        ATTN_LRP,
        lambda a, b: a * b,
        (draw(2, 3), draw(2, 3)),
        oracle.product_uniform,
        "gated_product",
    ),
    Case(
        "product, broadcast",
        ATTN_LRP,
        lambda a, b: a * b,
        (draw(2, 3, 4), draw(2, 1, 4)),
        oracle.product_uniform,
    ),
    Case(
        "gated product",
        CP_LRP,
        lambda a, b: functional.silu(a) * b,
        (draw(2, 3), draw(2, 3)),
        lambda a, b, r: oracle.product_gate_constant(a, b, r),
    ),
    Case(
        "gated product, gate second and reshaped",
        CP_LRP,
        lambda a, b: b * (2 * torch.sigmoid(a)[..., None]).squeeze(-1),
        (draw(2, 3), draw(2, 3)),
        lambda a, b, r: oracle.product_gate_constant(a, b, r),
    ),
    Case(
        "softmax",
        ATTN_LRP,
        lambda x: x.softmax(-1),
        (draw(2, 3, 4),),
        oracle.softmax_attnlrp,
        "softmax",
    ),
    Case(
        "softmax, not the last dimension",
        ATTN_LRP,
        lambda x: functional.softmax(x, dim=1),
        (draw(2, 3, 4),),
        lambda x, r: oracle.softmax_attnlrp(x, r, axis=1),
    ),
    Case(
        "softmax, masked",
        ATTN_LRP,
        lambda x: (x + MASK).softmax(-1),
        (draw(2, 3, 4),),
        lambda x, r: _through_the_mask(x, r),
    ),
    Case(
        "softmax, written out",
        ATTN_LRP,
        lambda x: (e := x.exp()) / e.sum(-1, keepdim=True),
        (draw(2, 3, 4),),
        oracle.softmax_attnlrp,
    ),
    Case(
        "matrix product",
        ATTN_LRP,
        lambda a, b: a @ b,
        (draw(2, 3, 4), draw(2, 4, 5)),
        oracle.matmul_uniform,
        "score_matmul",
    ),
    Case(
        "batched matrix product",
        ATTN_LRP,
        torch.bmm,
        (draw(2, 3, 4), draw(2, 4, 5)),
        oracle.matmul_uniform,
    ),
    Case(
        "einsum",
        ATTN_LRP,
        lambda a, b: torch.einsum("bij,bjk->bik", a, b),
        (draw(2, 3, 4), draw(2, 4, 5)),
        oracle.matmul_uniform,
    ),
    Case(
        "matrix product with addend",
        ATTN_LRP,
        lambda c, a, b: torch.baddbmm(c, a, b),
        (draw(2, 3, 5), draw(2, 3, 4), draw(2, 4, 5)),
        lambda c, a, b, r: _product_and_addend(c, a, b, r),
    ),
    Case(
        "layer norm",
        ATTN_LRP,
        lambda x: functional.layer_norm(x, (4,), W4, B4, 1e-5),
        (draw(2, 3, 4),),
        lambda x, r: oracle.layer_norm(x, W4.numpy(), B4.numpy(), r, eps=1e-5),
        "layer_norm",
    ),
    Case(
        "layer norm, written out",
        ATTN_LRP,
        lambda x: (
            (x - x.mean(-1, keepdim=True))
            * torch.rsqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-5)
            * W4
            + B4
        ),
        (draw(2, 3, 4),),
        lambda x, r: oracle.layer_norm(x, W4.numpy(), B4.numpy(), r, eps=1e-5),
    ),
    Case(
        "layer norm, divided by its deviation",
        ATTN_LRP,
        lambda x: (
            (x - x.mean(-1, keepdim=True))
            / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        ),
        (draw(2, 3, 4),),
        lambda x, r: oracle.layer_norm(x, None, None, r, eps=1e-5),
    ),
    Case(
        "group norm of one group",
        ATTN_LRP,
        lambda x: functional.group_norm(x, 1, W4[:3], B4[:3], 1e-5),
        (draw(2, 3, 4),),
        lambda x, r: oracle.layer_norm(
            x.reshape(2, 12),
            np.repeat(W4[:3].numpy(), 4),
            np.repeat(B4[:3].numpy(), 4),
            r.reshape(2, 12),
            eps=1e-5,
        ).reshape(2, 3, 4),
    ),
    Case(
        "instance norm",
        ATTN_LRP,
        lambda x: functional.instance_norm(x, eps=1e-5),
        (draw(2, 3, 4),),
        lambda x, r: oracle.layer_norm(x, None, None, r, eps=1e-5),
    ),
    Case(
        "batch norm of one example with a transposed gradient",
        ATTN_LRP,
        lambda x: (
            functional.batch_norm(x, MEAN, VARIANCE, W4, B4).flatten(2).transpose(1, 2)
        ),
        (draw(1, 4, 3, 3),),
        lambda x, r: _affine(x, r),
    ),
    Case(
        "rms norm",
        ATTN_LRP,
        lambda x: functional.rms_norm(x, (4,), W4, 1e-6),
        (draw(2, 3, 4),),
        oracle.rms_norm,
        "rms_norm",
    ),
    Case(
        "rms norm, written out",
        ATTN_LRP,
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * W4,
        (draw(2, 3, 4),),
        oracle.rms_norm,
    ),
    Case(
        "normalised by its length",
        ATTN_LRP,
        lambda x: functional.normalize(x, dim=-1),
        (draw(2, 3, 4),),
        oracle.rms_norm,
    ),
    Case(
        "linear, epsilon 0.1",
        ATTN_LRP.with_rules({"linear": rules.Epsilon(epsilon=0.1)}),
        lambda x: functional.linear(x, W, B),
        (draw(2, 3, 4),),
        lambda x, r: oracle.linear(x, W.numpy(), B.numpy(), r, epsilon=0.1),
    ),
    Case(
        "add, epsilon 0.1",
        ATTN_LRP.with_rules({"add": rules.Epsilon(epsilon=0.1)}),
        lambda a, b: a + b,
        (draw(2, 3), draw(2, 3)),
        lambda a, b, r: oracle.add(a, b, r, epsilon=0.1),
    ),
]


def _affine(x: Any, relevance: Any) -> Any:
    scale = (W4 / (VARIANCE + 1e-5).sqrt()).numpy()
    shift = (B4 - MEAN * W4 / (VARIANCE + 1e-5).sqrt()).numpy()
    tokens = x.reshape(1, 4, 9).transpose(0, 2, 1)
    found = oracle.linear(tokens, np.diag(scale), shift, relevance)
    return found.transpose(0, 2, 1).reshape(x.shape)


def _through_the_mask(x: Any, relevance: Any) -> Any:
    """The mask is a constant that is added: at -inf nothing is left to pass on."""
    kept = np.isfinite(MASK.numpy())
    found = np.zeros_like(x)
    found[..., kept] = oracle.softmax_attnlrp(x[..., kept], relevance[..., kept])
    return found


def _product_and_addend(c: Any, a: Any, b: Any, relevance: Any) -> Any:
    product = a @ b
    of_addend, of_product = oracle.add(c, product, relevance)
    return (of_addend, *oracle.matmul_uniform(a, b, of_product))


def explained(case: Case) -> tuple[tuple[Tensor, ...], Any, Any]:
    """Return our relevance, the oracle's arguments, and the relevance handed out."""
    output = case.function(*case.inputs)
    weights = draw(*output.shape)
    model = Weighted(case.function, weights)
    lrp = TransformerLRP(model, composite=case.composite)
    found = lrp.attribute(case.inputs)
    arrays = tuple(x.numpy() for x in case.inputs)
    return found, arrays, (output * weights).numpy()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_oracle(case: Case) -> None:
    found, arrays, relevance = explained(case)
    expected = case.expected(*arrays, relevance)
    expected = expected if isinstance(expected, tuple) else (expected,)
    for ours, theirs in zip(found, expected, strict=True):
        if np.abs(theirs).max() == 0:
            assert not ours.any()
        else:
            assert relative_error(ours, theirs) < 1e-10


@pytest.mark.parametrize("case", [c for c in CASES if c.rule], ids=str)
def test_rejects_mutants(case: Case) -> None:
    """A wrong oracle must not agree with us, or agreement would mean nothing."""
    found, arrays, relevance = explained(case)
    wrong = mutants_of(case.rule, "attnlrp")
    assert wrong
    for mutant in wrong:
        try:
            theirs = _call_mutant(case, mutant.function, arrays, relevance)
        except TypeError:
            raise AssertionError(f"{mutant} does not take these arguments") from None
        theirs = theirs if isinstance(theirs, tuple) else (theirs,)
        errors = [
            relative_error(ours, expected)
            for ours, expected in zip(found, theirs, strict=True)
            if np.abs(expected).max() > 0
        ]
        assert not errors or max(errors) > 1e-3, str(mutant)


def _call_mutant(case: Case, mutant: Any, arrays: Any, relevance: Any) -> Any:
    if case.rule == "linear":
        return mutant(*arrays, W.numpy(), B.numpy(), relevance)
    if case.rule == "layer_norm":
        return mutant(*arrays, W4.numpy(), B4.numpy(), relevance, eps=1e-5)
    return mutant(*arrays, relevance)


@pytest.mark.parametrize("composite", [ATTN_LRP, CP_LRP], ids=lambda c: c.name)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_fused_attention_equals_oracle(
    composite: Composite, causal: bool, groups: int
) -> None:
    q, k, v = draw(2, 4, 5, 3), draw(2, 4 // groups, 5, 3), draw(2, 4 // groups, 5, 3)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=groups > 1
        )

    weights = draw(2, 4, 5, 3)
    output = attend(q, k, v)
    model = Weighted(attend, weights)
    found = TransformerLRP(model, composite=composite).attribute((q, k, v))
    method = {"AttnLRP": "attnlrp", "CP-LRP": "cplrp"}[composite.name]
    arrays = [q.numpy(), *(oracle.repeat_heads(t.numpy(), groups) for t in (k, v))]
    of_q, of_k, of_v = oracle.attention(
        *arrays, (output * weights).numpy(), method=method, causal=causal
    )
    expected = (
        of_q,
        oracle.sum_head_groups(of_k, groups),
        oracle.sum_head_groups(of_v, groups),
    )
    for ours, theirs in zip(found, expected, strict=True):
        if np.abs(theirs).max() == 0:
            assert not ours.any()
        else:
            assert relative_error(ours, theirs) < 1e-10


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (functional.gelu, 0.5),
        (functional.silu, 0.5),
        (torch.tanh, 1.0),
        (functional.relu, 0.0),
        (lambda x: functional.prelu(x, torch.tensor([0.25]).double()), 0.25),
        (functional.hardswish, 0.5),
    ],
)
def test_limit_at_zero(function: Callable[[Tensor], Tensor], slope: float) -> None:
    """At x = 0 the gradient is f'(0), so that relevance further back is right."""
    weight = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)  # pre-activation exactly 0

    def model(x: Tensor) -> Tensor:
        return function(functional.linear(x, weight))

    found = TransformerLRP(model).attribute(x)
    assert torch.allclose(found, slope * x * weight)


def test_product_of_a_tensor_with_itself_conserves() -> None:
    x = draw(2, 3)
    found = TransformerLRP(lambda x: (x * x).sum(1)).attribute(x)
    assert torch.allclose(found, x * x)


def test_equal_gates_share_evenly() -> None:
    a, b = draw(2, 3), draw(2, 3)

    def model(a: Tensor, b: Tensor) -> Tensor:
        return (functional.silu(a) * functional.silu(b)).sum(1)

    found = TransformerLRP(model, composite="cp-lrp").attribute((a, b))
    assert torch.allclose(found[0], found[1])


def test_a_sigmoid_is_the_gate_of_a_tanh() -> None:
    a, b = draw(2, 3), draw(2, 3)

    def model(a: Tensor, b: Tensor) -> Tensor:
        return (torch.tanh(a) * torch.sigmoid(b)).sum(1)

    of_value, of_gate = TransformerLRP(model, composite="cp-lrp").attribute((a, b))
    assert not of_gate.any()
    assert torch.allclose(of_value, torch.tanh(a) * torch.sigmoid(b))


def test_router_weights_renormalised_by_their_sum_follow_the_gradient() -> None:
    x = draw(2, 5)

    def model(x: Tensor) -> Tensor:
        weights = x.softmax(-1).topk(3).values
        weights /= weights.sum(-1, keepdim=True)
        return (weights * torch.arange(3.0).double()).sum(1)

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert torch.allclose(TransformerLRP(model).attribute(x), x * gradient)


def test_rules_print_compare_and_refuse_nonsense() -> None:
    assert repr(rules.Epsilon(epsilon=0.5)) == "Epsilon(epsilon=0.5)"
    assert rules.Epsilon(epsilon=0.5) == rules.Epsilon(epsilon=0.5)
    with pytest.raises(ValueError, match="expected a positive stabiliser"):
        rules.Epsilon(epsilon=0.0)
    with pytest.raises(AttributeError):
        rules.Identity().inside = "gradient"  # type: ignore[misc]


@pytest.mark.parametrize("composite", [ATTN_LRP, CP_LRP], ids=lambda c: c.name)
def test_three_factors_share_by_the_order_of_their_products(
    composite: Composite,
) -> None:
    """Within a chunk a scan takes (c b) x, across chunks c (b x): a known limit."""
    c, b, x = draw(1, 3, 4), draw(1, 4, 5), draw(1, 5, 2)
    weights = draw(1, 3, 2)
    within = Weighted(lambda c, b, x: (c @ b) @ x, weights)
    across = Weighted(lambda c, b, x: c @ (b @ x), weights)
    shares = []
    for scan in (within, across):
        parts = TransformerLRP(scan, composite).attribute((c, b, x))
        total = sum(float(part.sum()) for part in parts)
        shares.append([float(part.sum()) / total for part in parts])
    assert shares[0] == pytest.approx([0.25, 0.25, 0.5], abs=1e-12)
    assert shares[1] == pytest.approx([0.5, 0.25, 0.25], abs=1e-12)
