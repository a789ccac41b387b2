"""The trace balances, names modules, and changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    Composite,
    TransformerLRP,
    check,
    rules,
)
from captum_transformer_lrp.attribution.single_pass import run_once
from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from captum_transformer_lrp.core.call import Call
from captum_transformer_lrp.core.composites import GRADIENT_X_INPUT
from captum_transformer_lrp.core.gradients import scale_output_gradient
from captum_transformer_lrp.core.rules.base import Rule
from captum_transformer_lrp.observers.maps import AttentionMaps
from tests.helpers import Weighted, relative, tiny

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
WEIGHT = torch.tensor([[2.0, -1.5]], dtype=torch.float64)


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_score_is_relevance_plus_what_was_absorbed(method: Any) -> None:
    model = tiny()
    lrp = method(model)
    trace = lrp.trace(IDS, target=1)
    assert trace.unseen < 1e-12
    assert trace.score == pytest.approx(model(IDS)[:, 1].sum().item())
    assert trace.relevance == pytest.approx(lrp.attribute(IDS, target=1).sum().item())
    assert trace.absorbed == pytest.approx(trace.score - trace.relevance)
    absorbing = {r.operator for r in trace if abs(r.absorbed) > 1e-9}
    biases = {"linear", "layer_norm", "add"}
    assert absorbing <= biases | ({"softmax"} if method is AttnLRP else set())


def test_a_biased_layer_absorbs_its_bias() -> None:
    model = nn.Linear(3, 2).double()
    x = torch.rand(1, 3).double()
    trace = AttnLRP(model).trace(x, target=1)
    (record,) = [r for r in trace if r.operator == "linear"]
    assert record.absorbed == pytest.approx(model.bias[1].item())
    assert record.received == pytest.approx(model(x)[0, 1].item())
    assert record.output_shape == (1, 2) and record.shapes == ((1, 3),)


def test_records_name_modules_and_print_and_export() -> None:
    trace = AttnLRP(tiny()).trace(IDS, target=1)
    by_name = {(r.module, r.operator): r for r in trace}
    assert by_name["blocks.0.norm", "layer_norm"].rule == "ConstantScale()"
    assert by_name["blocks.1.down", "linear"].kind == "product"
    assert by_name["embedding", "embedding"].rule == "to the identifiers"
    assert ("blocks.1", "silu") in by_name
    text = str(trace)
    assert len(text.splitlines()) == len(trace) + 2
    assert "conservation error" in text and "blocks.0.norm" in text
    records = trace.to_records()
    assert set(records[0]) >= {"module", "operator", "rule", "received", "absorbed"}
    modules = trace.absorbed_by_module()
    assert sum(modules.values()) == pytest.approx(trace.absorbed)


def test_trace_of_in_place_and_masked_models() -> None:
    def model(x: Tensor) -> Tensor:
        y = functional.silu(x.clone(), inplace=True)
        y = y + functional.relu(x + 1, inplace=True)
        y = functional.hardswish(y, inplace=True)
        y += x
        y *= 2.0
        y.mul_(torch.tanh(x))
        scores = y[:, :, None] * y[:, None, :]
        hidden = torch.ones(3, 3).triu(1).bool()
        pattern = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        out = (pattern @ y[..., None])[..., 0]
        out[:, 0] = 0.0
        first, second = out.split([1, 2], dim=1)
        return first.sum(1) + second.sum(1)

    x = torch.randn(2, 3).double()
    for method in (AttnLRP, CPLRP):
        trace = method(model).trace(x)
        assert trace.score == pytest.approx(float(model(x).sum()))
        assert trace.relevance == pytest.approx(float(method(model).attribute(x).sum()))
        assert trace.unseen < 1e-10


def test_modules_treated_as_one_operator_are_one_record() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.GELU(), nn.Linear(3, 1)).double()
    x = torch.rand(2, 3).double()
    trace = TransformerLRP(model, rules={nn.GELU: rules.Identity()}).trace(x)
    assert [r.operator for r in trace if r.module == "1"] == ["GELU"]
    assert trace.conservation_error < 1e-12


# --------------------------------------- room for methods that carry relevance itself


class Positive(torch.autograd.Function):
    """The z+ rule on relevance itself, as Chefer's method carries it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        x, weight = ctx.saved_tensors
        z = (
            x.clamp(min=0) @ weight.clamp(min=0).T
            + x.clamp(max=0) @ weight.clamp(max=0).T
        )
        share = relevance / z
        of_positive = x.clamp(min=0) * (share @ weight.clamp(min=0))
        return of_positive + x.clamp(max=0) * (share @ weight.clamp(max=0)), None


class ZPlus(rules.CarriedRule):
    def __call__(self, call: Call) -> Any:
        return Positive.apply(call.args[0], call.args[1])


class Through(rules.CarriedRule):
    """Relevance passes unchanged: the gradient is 1."""

    def __call__(self, call: Call) -> Any:
        x = call.args[0]
        return x + (call.value() - x).detach()


def test_a_table_may_carry_relevance_itself() -> None:
    composite = Composite(
        "z+",
        {"linear": ZPlus(), "activation": Through(),
         "structural": rules.PlainGradient(), "lookup": rules.PlainGradient()},
        carries="relevance",
        unknown="gradient",
    )  # fmt: skip
    torch.manual_seed(0)
    embedding = nn.Embedding(20, 4).double()
    net = nn.Sequential(
        nn.Linear(4, 5, bias=False), nn.GELU(), nn.Linear(5, 3, bias=False)
    ).double()
    x = embedding(IDS[:, 0]).detach()

    def z_plus(x: Tensor, w: Tensor, relevance: Tensor) -> Tensor:
        found = torch.zeros_like(x)
        for n in range(x.shape[0]):
            for j in range(w.shape[0]):
                parts = (w[j] * x[n]).clamp(min=0)
                found[n] += parts / parts.sum() * relevance[n, j]
        return found

    hidden = net[1](net[0](x)).detach()
    seed = torch.zeros(2, 3).double()
    seed[:, 1] = 1.0  # one, not the logit
    with torch.no_grad():
        expected = z_plus(x, net[0].weight, z_plus(hidden, net[2].weight, seed))
    lrp = TransformerLRP(net, composite=composite)
    found = lrp.attribute(x, target=1)
    assert relative(found, expected) < 1e-12
    assert torch.allclose(found.sum(1), torch.ones(2).double())
    by_identifier = TransformerLRP(
        lambda ids: net(embedding(ids)), composite=composite
    ).attribute(IDS[:, 0], target=1)
    assert relative(by_identifier, expected.sum(1)) < 1e-12


def test_attention_maps_of_fused_attention() -> None:
    """Gradient of the score at the attention map, from a fused kernel."""
    q, k, v = torch.randn(3, 2, 4, 5, 3).double()

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.sum((1, 2, 3))

    attention = AttentionMaps()
    with run_once(
        fused, (q, k, v), None, composite=GRADIENT_X_INPUT, unknown=None,
        observers=[attention],
    ) as (engine, _, output):  # fmt: skip
        (found,) = attention.maps
        (gradient,) = engine.gradients(output, [found.tensor])
    assert not found.transposed and found.tensor.shape == (2, 4, 5, 5)
    scores = (q @ k.mT / 3**0.5).masked_fill(
        ~torch.ones(5, 5).tril().bool(), -torch.inf
    )
    assert relative(found.tensor.detach(), scores.softmax(-1)) < 1e-12
    assert gradient is not None
    assert relative(gradient, v.sum(-1)[:, :, None, :].expand(2, 4, 5, 5)) < 1e-12


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"enable_gqa": True}])
def test_decomposed_attention_equals_the_fused_rule(options: dict[str, Any]) -> None:
    q = torch.randn(2, 4, 5, 3).double()
    k, v = torch.randn(2, 2, 2 if options.get("enable_gqa") else 4, 5, 3).double()

    def model(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = functional.scaled_dot_product_attention(q, k, v, **options)
        return (out * torch.arange(3.0)).sum((1, 2, 3))

    fused = AttnLRP(model).attribute((q, k, v))
    table = {"attention": rules.DecomposedAttention()}
    eager = TransformerLRP(model, rules=table).attribute((q, k, v))
    for a, b in zip(fused, eager, strict=True):
        assert relative(a, b) < 1e-12


def test_what_is_lost_is_told_apart_from_what_constants_take() -> None:
    model = tiny()
    trace = CPLRP(model).trace(IDS, target=1)
    assert trace.loss < 1e-12
    assert abs(trace.constant) > 1e-3  # biases and positions did take their share
    assert all(abs(r.lost) < 1e-9 for r in trace)

    broken = CPLRP(model, rules={"linear": Generous()}).trace(IDS, target=1)
    assert broken.unseen < 1e-12  # it all went somewhere
    assert (
        broken.conservation_error == pytest.approx(broken.loss) and broken.loss > 1e-4
    )
    lost = {key for key, v in broken.lost_by_module().items() if v > 1e-9}
    assert {operator for _, operator in lost} == {"linear"}
    assert ("blocks.0.qkv", "linear") in lost


def test_attnlrp_loses_relevance_in_the_softmax_only() -> None:
    trace = AttnLRP(tiny()).trace(IDS, target=1)
    lost = {key for key, v in trace.lost_by_module().items() if v > 1e-9}
    assert {operator for _, operator in lost} == {"softmax"}


@pytest.mark.parametrize(
    ("function", "constant"),
    [
        (lambda x: x + 2.0, 2.0),
        (lambda x: 3.0 - x, 3.0),
        (lambda x: torch.add(x, torch.full_like(x, 0.5), alpha=4), 2.0),
        (lambda x: torch.where(torch.tensor([True, False]), x, 4.0), 2.0),
        (lambda x: x.masked_fill(torch.tensor([False, True]), -1.0), -0.5),
        (lambda x: torch.maximum(x, torch.tensor([0.0, 9.0]).double()), 4.5),
        (lambda x: torch.cat([x, torch.full((1, 2), 3.0).double()], 1), 3.0),
        (lambda x: torch.nn.functional.pad(x, (0, 2), value=6.0), 6.0),
        (lambda x: torch.nn.functional.gelu(x) * 5.0, 0.0),
        (lambda x: torch.softmax(torch.ones(1, 2).double(), 1) * x, 0.0),
        (lambda x: functional.linear(x, WEIGHT, torch.tensor([3.0]).double()), 1.5),
        (lambda x: functional.linear(x, bias=None, weight=WEIGHT), 0.0),
        (lambda x: x + (1.4 * x).round(), 2.0),
        (lambda x: 2 * x + torch.sign(-x), -1.0),
    ],
)
def test_the_share_of_constants(function: Any, constant: float) -> None:
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    scored = Weighted(function, torch.full((1, 1), 0.5).double())
    trace = CPLRP(scored).trace(x)
    assert trace.constant == pytest.approx(constant)
    assert trace.loss < 1e-12


def _beside(x: Tensor) -> Tensor:
    """The input in one row of a constant."""
    rows = torch.full((2, 2), 3.0, dtype=x.dtype)
    rows[torch.tensor([1])] = x
    return rows


def _in_a_view(x: Tensor) -> Tensor:
    """The input in the middle of a constant, written through a view of a view."""
    rows = torch.full((3, 4), 3.0, dtype=x.dtype)
    rows[1:2][:, 1:3].copy_(x)
    return rows


def _over_the_input(x: Tensor) -> Tensor:
    """A constant over half of what came from the input, used before as well."""
    y = x * 1.0
    before = y + 0.0
    y[:, :1] = 4.0
    return before + y


def _twice(x: Tensor) -> Tensor:
    rows = torch.full((1, 4), 3.0, dtype=x.dtype)
    rows[:, :2] = x
    rows[:, 1:3] = 2 * x
    rows[:, 3].add_(x[:, 0])
    return rows


@pytest.mark.parametrize(
    ("function", "constant"),
    [(_beside, 3.0), (_in_a_view, 15.0), (_over_the_input, 2.0), (_twice, 1.5)],
)
def test_the_share_of_constants_written_beside(function: Any, constant: float) -> None:
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    scored = Weighted(function, torch.full((1, 1), 0.5).double())
    trace = CPLRP(scored).trace(x)
    assert trace.constant == pytest.approx(constant)
    assert trace.loss < 1e-12 and trace.conservation_error < 1e-12
    assert all(abs(record.lost) < 1e-12 for record in trace)
    assert torch.equal(trace_free(scored, x), CPLRP(scored).attribute(x))


def trace_free(model: Any, x: Tensor) -> Tensor:
    """x * gradient, by autograd alone."""
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf + 0).sum(), leaf)
    return x * gradient


# ------------------------------------------------------------------- the one number


class Generous(Rule):
    """Hands on one hundredth more than it received."""

    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(call.run(), 1.01)


def test_the_error_counts_what_rules_lose_and_is_one_number_everywhere() -> None:
    """Of one biased layer: R = 1.01 w x, and the bias is the constant."""
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2).double(), torch.randn(1, 3).double()
    weight, bias = layer.weight.detach()[1], float(layer.bias.detach()[1])
    expected = abs(0.01 * float(weight @ x[0])) / abs(float(weight @ x[0]) + bias)
    rows: dict[Any, Any] = {"linear": Generous()}
    lrp = CPLRP(layer, rules=rows)
    trace = lrp.trace(x, target=1)
    found, error = lrp.attribute(x, target=1, return_conservation_error=True)
    assert relative(found, 1.01 * weight * x) < 1e-12
    for number in (
        trace.conservation_error,
        trace.loss,
        error,
        check(layer, x, 1, rules=rows)["conservation"].measured,
    ):
        assert number == pytest.approx(expected, rel=1e-9)
    assert trace.unseen < 1e-12  # it all went somewhere
    assert trace.constant == pytest.approx(bias)
    assert trace.lost == pytest.approx(-0.01 * float(weight @ x[0]))
    exact = CPLRP(layer).attribute(x, target=1, return_conservation_error=True)
    assert exact[1] < 1e-12


@pytest.mark.parametrize(
    "composite",
    "attnlrp cp-lrp gamma alpha-beta epsilon-plus-flat gradient-x-input".split(),
)
@pytest.mark.parametrize("inputs", ["identifiers", "mixed identifiers", "embeddings"])
def test_attribute_gives_the_error_of_the_trace(composite: str, inputs: str) -> None:
    model: Any = tiny()
    given = IDS
    if inputs == "mixed identifiers":
        inner = model

        def model(ids: Tensor) -> Any:
            front = torch.zeros(len(ids), 1, dtype=ids.dtype)
            return inner(torch.cat([front, ids], 1))

    elif inputs == "embeddings":
        given = model.embedding(IDS).detach()

        def model(x: Tensor) -> Any:
            for block in inner.blocks:
                x = block(x)
            return inner.head(x.mean(1))

        inner = tiny()
    lrp = TransformerLRP(model, composite)
    plain, deltas = lrp.attribute(given, target=1, return_convergence_delta=True)
    found, delta, error = lrp.attribute(
        given, target=1, return_convergence_delta=True, return_conservation_error=True
    )
    assert torch.equal(found, plain) and torch.equal(delta, deltas)
    trace = lrp.trace(given, target=1)
    assert error == pytest.approx(trace.conservation_error, rel=1e-9, abs=1e-13)
    assert (error < 1e-12) == (composite in ("cp-lrp", "epsilon-plus-flat"))


def test_scores_of_a_batch_that_cancel_do_not_blow_up_the_error() -> None:
    x = torch.tensor([[0.1, 0.2], [-0.1, -0.2]], dtype=torch.float64)
    trace = CPLRP(lambda x: (x @ WEIGHT.T + 1e-3 * x[:, :1])[:, 0] * 0.3).trace(x)
    assert abs(trace.score) < 1e-15 < trace.scale
    assert trace.conservation_error < 1e-12


def test_tables_of_relevance_start_from_one_for_each_example() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2))
    x = torch.rand(2, 3).double()
    lrp = TransformerLRP(model.double(), TRANSFORMER_ATTRIBUTION)
    trace = lrp.trace(x, target=0)
    assert trace.score == 2.0
    assert trace.relevance == pytest.approx(float(lrp.attribute(x, target=0).sum()))
    assert trace.conservation_error == pytest.approx(trace.unseen) and trace.loss == 0


# --------------------------------------------------------------------------- cuts


def _frozen(x: Tensor) -> Tensor:
    with torch.no_grad():
        frozen = torch.tanh(x)
    return x + frozen


def _in_place(x: Tensor) -> Tensor:
    y = x * 2.0
    y.detach_()
    return x + y


def _of_data(x: Tensor) -> Tensor:
    y = x * 2.0
    return x + y.data


def _by_number(x: Tensor) -> Tensor:
    return x * x.sum().item() + x * x.tolist()[0][0]


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x + x.detach().sin(), {"detach": "detached"}),
        (lambda x: x + torch.detach(2 * x), {"detach": "detached"}),
        (_in_place, {"detach": "detached"}),
        (_of_data, {"data": "detached"}),
        (lambda x: x + x.new_tensor(x), {"new_tensor": "detached"}),
        (_frozen, {"tanh": "under torch.no_grad"}),
        (lambda x: x + x.long(), {"long": "turned into integers"}),
        (lambda x: x + x.to(torch.int32), {"to": "turned into integers"}),
        (lambda x: torch.where(x > 1.5, x, 0.0), {"gt": "turned into integers"}),
        (lambda x: x * x.argmax(-1), {"argmax": "turned into integers"}),
        (
            _by_number,
            {"item": "read as a number", "tolist": "read as a number"},
        ),
        (lambda x: x.relu() if x.sum() > 0 else x, {"gt": "turned into integers"}),
        # no cut: nothing of the values goes on, or a rule decides
        (lambda x: x + torch.zeros_like(x) + x.new_ones(x.shape) + x.size(0), {}),
        (lambda x: x.softmax(-1) * x, {}),
        (lambda x: x.topk(1).values + x.max(), {}),
        (lambda x: x + torch.arange(2.0).detach(), {}),
        (lambda x: x + torch.arange(2).to(x) + torch.arange(2).type_as(x), {}),
        (lambda x: x + torch.arange(2).expand_as(x).reshape_as(x).view_as(x), {}),
        (lambda x: x + torch.arange(2).to(**{"tensor": x}), {}),
        (lambda x: x + x.to(torch.arange(2)), {"to": "turned into integers"}),
    ],
)
def test_where_the_model_cuts_relevance_off(function: Any, expected: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = function(x).sum(1) + self.inner(x).sum(1)
            return found

    torch.manual_seed(0)
    model = Model().double()
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    for method in (CPLRP, AttnLRP):
        trace = method(model).trace(x)
        assert {cut.operator: cut.how for cut in trace.cuts} == expected
        assert all(cut.calls == 1 for cut in trace.cuts)
        assert ("cut off by the model" in str(trace)) == bool(expected)
        assert all(str(cut) in str(trace) for cut in trace.cuts)
    assert CPLRP(model).trace(x).conservation_error < 1e-12  # cuts are constants


def test_a_cut_names_its_module_and_a_module_rule_is_none() -> None:
    class Frozen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach() + x.detach().cos()

    model = nn.Sequential(nn.Linear(2, 2), Frozen(), nn.Linear(2, 1)).double()
    x = torch.rand(1, 2).double()

    def scored(x: Tensor) -> Tensor:
        hidden = model[0](x)
        return model[2](hidden + model[1](hidden))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: Tensor) -> Tensor:
            return scored(x)

    (cut,) = CPLRP(Whole()).trace(x).cuts
    assert (cut.module, cut.operator, cut.calls) == ("parts.1", "detach", 2)
    assert str(cut) == "parts.1: detach, detached, 2 times"
    whole = CPLRP(Whole(), rules={Frozen: rules.Identity()}).trace(x)
    assert whole.cuts == ()  # the rule took what was inside


def _written(net: Any, x: Tensor) -> Tensor:
    """A product that is a view, and is written into."""
    pattern = torch.einsum("bth,bsh->bst", net(x), x)
    pattern += 2 * x @ x.mT
    return pattern.sum(1)


def _alias(net: Any, x: Tensor) -> Tensor:
    """What a dropout in evaluation returns is its argument; writes reach both."""
    y = net(x)
    nn.functional.dropout(y, 0.5, training=False).mul_(3)
    return nn.functional.gelu(y).sum(1)


@pytest.mark.parametrize("method", [CPLRP, AttnLRP])
@pytest.mark.parametrize("function", [_written, _alias])
def test_a_trace_and_the_map_agree_where_the_model_writes(
    function: Any, method: Any
) -> None:
    torch.manual_seed(0)
    net = nn.Linear(6, 6, bias=False).double()
    x = torch.randn(2, 4, 6, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        scores: Tensor = function(net, x)
        return scores

    trace = method(model).trace(x, target=0)
    found = method(model).attribute(x, target=0)
    assert trace.score == pytest.approx(float(model(x)[:, 0].sum().detach()))
    assert trace.relevance == pytest.approx(float(found.sum()), rel=1e-12)
    assert trace.conservation_error < 1e-12


def test_what_a_prompt_shows_of_a_trace_fits_on_a_screen() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(50)))
    trace = CPLRP(model).trace(torch.ones(1, 4), target=1)
    shown = repr(trace)
    assert len(shown) < 400 and "<Trace of 50 calls. CP-LRP: score " in shown
    assert str(trace).count("\n") > 50 and str(trace).splitlines()[-1] in shown
