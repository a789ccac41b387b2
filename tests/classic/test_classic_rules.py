"""The classic rules against loops, per operator, module, name and depth."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from captum_transformer_lrp import (
    AttnLRP,
    Composite,
    Layers,
    LayerTransformerLRP,
    ModuleName,
    TransformerLRP,
    registry,
    rules,
)
from captum_transformer_lrp.classic.composites import epsilon_gamma_box, epsilon_lrp
from captum_transformer_lrp.composites import COMPOSITES
from captum_transformer_lrp.core.composites import ATTN_LRP, CP_LRP
from tests.helpers import assert_same_state, relative, state_of, tiny
from tests.oracles import classic as oracle

TOLERANCE = 1e-10
GENERATOR = torch.Generator().manual_seed(3)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


@dataclass(frozen=True)
class Rule:
    """A rule, its oracle, and whether the oracle wants the box."""

    rule: rules.Rule
    expected: oracle.Rule
    box: tuple[float, float] | None = None


RULES = {
    "epsilon": Rule(
        rules.Epsilon(epsilon=0.1), partial(oracle.epsilon_rule, epsilon=0.1)
    ),
    "epsilon, no bias": Rule(
        rules.Epsilon(bias="ignored"), partial(oracle.epsilon_rule, ignore_bias=True)
    ),
    "gamma": Rule(rules.Gamma(), oracle.gamma_rule),
    "gamma 10": Rule(rules.Gamma(gamma=10.0), partial(oracle.gamma_rule, gamma=10.0)),
    "gamma, no bias": Rule(
        rules.Gamma(bias="ignored"), partial(oracle.gamma_rule, ignore_bias=True)
    ),
    "alpha2 beta1": Rule(rules.AlphaBeta(), oracle.alpha_beta_rule),
    "alpha1.5 beta0.5, no bias": Rule(
        rules.AlphaBeta(alpha=1.5, beta=0.5, bias="ignored", epsilon=1e-3),
        partial(
            oracle.alpha_beta_rule, alpha=1.5, beta=0.5, ignore_bias=True, epsilon=1e-3
        ),
    ),
    "z+": Rule(rules.ZPlus(), oracle.z_plus_rule),
    "flat": Rule(rules.Flat(), oracle.flat_rule),
    "w^2": Rule(rules.WSquare(), oracle.w_square_rule),
    "w^2, no bias": Rule(
        rules.WSquare(bias="ignored"), partial(oracle.w_square_rule, ignore_bias=True)
    ),
    "z-box": Rule(
        rules.ZBox(low=-2.0, high=1.5, epsilon=1e-6, otherwise=None),
        oracle.z_box_rule,
        (-2.0, 1.5),
    ),
}  # fmt: skip
W, B = draw(5, 4), draw(5)
K1, K2, K3 = draw(4, 2, 3), draw(4, 2, 3, 2), draw(2, 2, 2, 2, 2)
T1, T2, T3 = draw(2, 3, 3), draw(2, 3, 2, 2), draw(2, 2, 2, 2, 2)
KB = draw(4)
OPERATORS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "linear": (lambda x: functional.linear(x, W, B), (3, 4)),
    "linear without bias": (lambda x: functional.linear(x, W), (2, 3, 4)),
    "addmm": (lambda x: torch.addmm(B, x, W.T), (3, 4)),
    "addmm, alpha and beta": (
        lambda x: torch.addmm(B, x, W.T, alpha=-0.5, beta=2.0),
        (3, 4),
    ),
    "matmul by a constant": (lambda x: W @ x, (2, 4, 3)),
    "einsum": (lambda x: torch.einsum("bi,oi->bo", x, W), (3, 4)),
    "conv1d": (lambda x: functional.conv1d(x, K1, KB, padding=1), (2, 2, 6)),
    "conv2d": (
        lambda x: functional.conv2d(x, K2, KB, padding=1, stride=(2, 1)),
        (2, 2, 5, 4),
    ),
    "conv2d, groups and dilation": (
        lambda x: functional.conv2d(x, K2, KB, dilation=2, groups=2),
        (2, 4, 5, 4),
    ),
    "conv3d": (lambda x: functional.conv3d(x, K3, B[:2]), (2, 2, 3, 3, 3)),
    "conv_transpose1d": (
        lambda x: functional.conv_transpose1d(x, T1, B[:3], stride=2),
        (2, 2, 4),
    ),
    "conv_transpose2d": (
        lambda x: functional.conv_transpose2d(x, T2, B[:3], padding=1, stride=2),
        (2, 2, 3, 3),
    ),
    "conv_transpose3d": (
        lambda x: functional.conv_transpose3d(x, T3, B[:2]),
        (2, 2, 2, 2, 2),
    ),
}


LINEAR = """linear addmm matmul einsum conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d""".split()


def as_matrix(
    function: Callable[[Tensor], Tensor], shape: torch.Size
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of an affine function, from what it makes of unit vectors."""
    zero = function(torch.zeros(1, *shape, dtype=torch.float64))
    units = torch.eye(shape.numel(), dtype=torch.float64)
    columns = [function(u.reshape(1, *shape)) - zero for u in units]
    matrix = torch.stack([c.flatten() for c in columns], 1)
    matrix[matrix.abs() < 1e-12] = 0
    return matrix.numpy(), zero.flatten().numpy()


def by_oracle(
    rule: Rule, function: Callable[[Tensor], Tensor], x: Tensor, seeds: Tensor
) -> Tensor:
    """Relevance of an input, given what every output hands back over its value."""
    weights, bias = as_matrix(function, x.shape[1:])
    options = {}
    if rule.box is not None:
        low, high = (np.full(x[0].numel(), b) for b in rule.box)
        options = {"low": low, "high": high}
    found = []
    for example, output, seed in zip(x, function(x), seeds, strict=True):
        relevance = (output * seed).flatten().numpy()
        value = example.flatten().numpy()
        found.append(rule.expected(weights, bias, value, relevance, **options))
    return torch.tensor(np.array(found)).reshape(x.shape)


def on_everything_linear(rule: rules.Rule) -> Composite:
    return ATTN_LRP.with_rules(dict.fromkeys(LINEAR, rule))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_equals_the_oracle(operator: str, name: str) -> None:
    function, shape = OPERATORS[operator]
    GENERATOR.manual_seed(9)
    x = draw(*shape)
    x.flatten()[::5] = 0.0  # a pixel that is black
    seeds = draw(*function(x).shape)
    rule = RULES[name]

    def model(x: Tensor) -> Tensor:
        output = function(x)
        assert torch.equal(output, function(x.detach()))  # the value is unchanged
        return (output * seeds).flatten(1).sum(1)

    found = TransformerLRP(model, composite=on_everything_linear(rule.rule)).attribute(
        x
    )
    expected = by_oracle(rule, function, x, seeds)
    assert relative(found, expected) < TOLERANCE
    spoilt = Rule(rule.rule, oracle.scaled(rule.expected, 1.01), rule.box)
    assert relative(found, by_oracle(spoilt, function, x, seeds)) > 1e-3


def test_relevance_of_inputs_that_are_zero() -> None:
    """Rules for the input layer see what no multiple of the input can say."""
    x = torch.zeros(1, 4, dtype=torch.float64)
    for name in ("flat", "w^2", "z-box"):
        found = TransformerLRP(
            lambda x: functional.linear(x, W, B).sum(1),
            composite=on_everything_linear(RULES[name].rule),
        ).attribute(x)
        assert found.abs().min() > 0, name


def dense(*widths: int, seed: int = 4) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Linear(a, b)] if number == 0 else [nn.ReLU(), nn.Linear(a, b)]
    return nn.Sequential(*layers).double().eval()


def oracles(model: nn.Sequential, names: list[str]) -> list[Any]:
    linear = [m for m in model if isinstance(m, nn.Linear)]
    return [
        (m.weight.detach().numpy(), m.bias.detach().numpy(), RULES[name].expected)
        for m, name in zip(linear, names, strict=True)
    ]


MIXED = [
    ["flat", "z+", "epsilon"],
    ["w^2", "gamma", "alpha2 beta1"],
    ["z+", "flat", "epsilon"],  # behind relus that are exactly 0
    ["gamma", "w^2", "flat"],
    ["flat", "flat", "flat"],
    ["epsilon", "epsilon, no bias", "gamma"],
]


def keys_by_name(model: nn.Module) -> list[Any]:
    return [ModuleName("0"), ModuleName("[2]"), ModuleName("4")]


def keys_by_depth(model: nn.Module) -> list[Any]:
    return [Layers(0, 1), Layers(1, -1), Layers(-1)]


@pytest.mark.parametrize("keys", [keys_by_name, keys_by_depth])
@pytest.mark.parametrize("names", MIXED, ids=str)
def test_rules_side_by_side(names: list[str], keys: Any) -> None:
    """Relevance at every layer, with a rule for each, in one pass."""
    model = dense(6, 7, 5, 3)
    x = torch.rand(3, 6, generator=torch.Generator().manual_seed(1)).double() - 0.4
    x[:, 1] = 0
    rows = dict(zip(keys(model), (RULES[n].rule for n in names), strict=True))
    composite = ATTN_LRP.with_rules(rows)
    before = state_of(model)
    linear = [model[0], model[2], model[4]]
    found = LayerTransformerLRP(model, linear, composite=composite).attribute(
        x, target=2, attribute_to_layer_input=True
    )
    at_input = TransformerLRP(model, composite=composite).attribute(x, target=2)
    for n, example in enumerate(x.numpy()):
        _, expected = oracle.dense(oracles(model, names), example, 2)
        for layer, theirs in zip(found, expected, strict=True):
            assert relative(layer[n], torch.tensor(theirs)) < TOLERANCE
        assert relative(at_input[n], torch.tensor(expected[0])) < TOLERANCE
    assert_same_state(before, state_of(model))


def test_converted_rules_give_what_they_give_alone() -> None:
    """A rule that knows only relevance, of an operator that the model does not have,
    makes the table carry relevance, and changes nothing.
    """
    model = tiny()
    ids = torch.tensor([[1, 5, 7, 2], [3, 3, 0, 9]])
    embeddings = model.embedding(ids).detach()
    for composite in (ATTN_LRP, CP_LRP, epsilon_lrp(0.01), COMPOSITES["gamma"]):
        converted = composite.with_rules({"conv3d": rules.Flat()})
        assert converted.converts and not composite.converts
        for inputs in (ids, (ids,)):
            expected = TransformerLRP(model, composite=composite).attribute(inputs, 1)
            found = TransformerLRP(model, composite=converted).attribute(inputs, 1)
            found, expected = (
                t[0] if isinstance(t, tuple) else t for t in (found, expected)
            )
            assert relative(found, expected) < TOLERANCE, composite.name
        by_feature = [
            TransformerLRP(lambda e: model(inputs_embeds=e), composite=c).attribute(
                embeddings, target=1
            )
            for c in (composite, converted)
        ]
        assert relative(*by_feature) < TOLERANCE
        blocks = [
            LayerTransformerLRP(model, list(model.blocks), composite=c).attribute(
                ids, 1
            )
            for c in (composite, converted)
        ]
        for one, other in zip(*blocks, strict=True):
            assert relative(one, other) < TOLERANCE
        trace = TransformerLRP(model, composite=converted).trace(ids, 1)
        assert trace.unseen < 1e-9


def test_a_sum_of_related_summands_is_converted() -> None:
    """One summand was computed from the other: a residual connection."""
    model = dense(4, 4)

    def residual(x: Tensor) -> Tensor:
        return (x + model(x))[:, :1] * 3

    x = draw(2, 4)
    plain = AttnLRP(residual).attribute(x, target=0)
    converted = AttnLRP(residual, rules={"conv3d": rules.Flat()}).attribute(x, target=0)
    assert relative(converted, plain) < TOLERANCE


def test_overrides_may_need_relevance_too() -> None:
    model, x = dense(4, 5, 3), draw(2, 4)
    expected = TransformerLRP(model, rules={"linear": rules.Flat()}).attribute(x, 1)
    with registry.override({"linear": rules.Flat()}):
        assert torch.equal(AttnLRP(model).attribute(x, 1), expected)
    assert relative(AttnLRP(model).attribute(x, 1), expected) > 1e-3


class Block(nn.Module):
    """A module with several operators and an activation inside."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(functional.gelu(self.first(x)))


@pytest.mark.parametrize("name", ["gamma", "z+", "epsilon", "flat"])
def test_a_rule_for_a_module_takes_the_operators_inside(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block(), nn.Tanh(), nn.Linear(3, 2)).double().eval()
    x = draw(2, 4)
    rule = RULES[name].rule
    both = {ModuleName("0.first"): rule, ModuleName("0.second"): rule}
    expected = AttnLRP(model, rules=both).attribute(x, 1)
    for key in (ModuleName("0"), Block, ModuleName("0*"), Layers(0, 2)):
        found = AttnLRP(model, rules={key: rule}).attribute(x, 1)
        assert relative(found, expected) < TOLERANCE, key
    trace = AttnLRP(model, rules={Block: rule}).trace(x, 1)
    assert trace.unseen < 1e-9
    used = [r.rule for r in trace.records if r.operator == "linear"]
    assert [type(rule).__name__ in r for r in used] == [True, True, False]


def test_a_rule_for_a_module_ends_with_it_even_after_an_exception() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ArithmeticError

    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fails, self.linear = Fails(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.fails(x)
            except ArithmeticError:
                pass
            return self.linear(x)

    model, x = Catches().double(), draw(2, 4)
    found = AttnLRP(model, rules={Fails: rules.Gamma(gamma=3.0)}).attribute(x, 1)
    assert torch.equal(found, AttnLRP(model).attribute(x, 1))


def test_layers_are_counted_in_the_order_of_registration() -> None:
    model = nn.Sequential(
        nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4),
        nn.Sequential(nn.Conv1d(2, 2, 1), nn.Linear(4, 3)), nn.Linear(3, 2),
    )  # fmt: skip
    assert Layers(0, 1).within(model) == {model[1]}
    assert Layers(-1).within(model) == {model[4]}
    assert Layers(1, 3).within(model) == {model[3][0], model[3][1]}
    assert Layers(0, 1, of=nn.Conv1d).within(model) == {model[3][0]}
    assert Layers(None, 2, of=(nn.Linear,)).within(model) == {model[1], model[3][1]}
    with pytest.raises(TypeError, match="cannot be registered for all"):
        registry.register(Layers(0), rules.Flat())


def test_the_layer_that_reads_the_input() -> None:
    conv = nn.Conv2d(2, 3, 3, padding=1).double()
    head = nn.Linear(3, 2).double()
    table = {"conv2d": rules.AtInput(rule=rules.Flat(), otherwise=rules.ZPlus())}
    flat = {"conv2d": rules.Flat()}

    def model(x: Tensor) -> Tensor:
        return head(conv(x).relu().mean((2, 3)))

    def shifted(x: Tensor) -> Tensor:
        return model((x - 0.3) / torch.tensor([0.5, 2.0]).double().reshape(1, 2, 1, 1))

    def behind(x: Tensor) -> Tensor:
        return model(x.sigmoid())

    x = draw(2, 2, 4, 4)
    for function, same in ((model, True), (shifted, True), (behind, False)):
        found = AttnLRP(function, rules=table).attribute(x, 1)
        as_flat = AttnLRP(function, rules=flat).attribute(x, 1)
        assert (relative(found, as_flat) < TOLERANCE) == same


def test_box_of_each_channel_and_of_the_data() -> None:
    kernel = draw(3, 2, 2, 2)

    def model(x: Tensor) -> Tensor:
        return functional.conv2d(x, kernel).flatten(1).sum(1)

    x = draw(2, 2, 4, 4).clamp(-1, 1)
    x[:, 0, 0, 0], x[:, 1, 0, 0] = -1, 1
    of_data = rules.ZBox(otherwise=None, epsilon=1e-6)
    given = rules.ZBox(otherwise=None, epsilon=1e-6, low=-1, high=(1.0, 1.0))
    found = [AttnLRP(model, rules={"conv2d": r}).attribute(x) for r in (of_data, given)]
    assert relative(*found) < TOLERANCE
    narrow = rules.ZBox(otherwise=None, low=(-1.0, -5.0), high=[1, 5])
    assert narrow.high == (1.0, 5.0) and hash(narrow)
    assert (
        relative(AttnLRP(model, rules={"conv2d": narrow}).attribute(x), found[0]) > 0.1
    )
    by_name = epsilon_gamma_box(low=-1.0, high=1.0)
    found_by_name = TransformerLRP(model, composite=by_name).attribute(x)
    assert relative(found_by_name, found[0]) < 1e-5  # epsilon in the sum


def with_statistics(norm: Any) -> Any:
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.weight.normal_()  # of both signs
        norm.bias.normal_()
    return norm


def batch_norm_models() -> dict[str, tuple[nn.Module, nn.Module, Tensor]]:
    """Models with batch normalisation, and the same with it merged into weights."""
    torch.manual_seed(2)
    conv = [
        nn.Conv2d(2, 4, 3, padding=1).double(),
        nn.Conv2d(4, 3, 3, bias=False).double(),
    ]
    norm = [with_statistics(nn.BatchNorm2d(n)).double().eval() for n in (4, 3)]
    end = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3).double()]
    fused = [fuse_conv_bn_eval(c.eval(), n) for c, n in zip(conv, norm, strict=True)]
    relu = nn.ReLU(inplace=True)
    linear, flat_norm = (
        nn.Linear(4, 5).double().eval(),
        with_statistics(nn.BatchNorm1d(5)),
    )
    flat_norm = flat_norm.double().eval()
    up = nn.ConvTranspose2d(2, 4, 2, stride=2).double().eval()
    return {
        "conv2d": (
            nn.Sequential(conv[0], norm[0], relu, conv[1], norm[1], relu, *end),
            nn.Sequential(fused[0], relu, fused[1], relu, *end),
            draw(2, 2, 6, 6),
        ),
        "linear": (
            nn.Sequential(linear, flat_norm, nn.ReLU(), nn.Linear(5, 3).double()),
            nn.Sequential(fuse_linear_bn_eval(linear, flat_norm)),
            draw(3, 4),
        ),
        "transposed": (
            nn.Sequential(up, norm[0], nn.Flatten(), nn.Linear(64, 3).double()),
            nn.Sequential(fuse_conv_bn_eval(up, norm[0], transpose=True)),
            draw(2, 2, 2, 2),
        ),
    }


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["conv2d", "linear", "transposed"])
def test_batch_normalisation_is_merged(kind: str, name: str) -> None:
    model, fused, x = batch_norm_models()[kind]
    if kind != "conv2d":
        fused = nn.Sequential(*fused.children(), *list(model.children())[2:])
    model, fused = model.eval(), fused.eval()
    composite = Composite(
        "test", {**epsilon_lrp(0.1).rows, "product": RULES[name].rule}
    )
    before = state_of(model)
    found = TransformerLRP(model, composite=composite).attribute(x, target=1)
    expected = TransformerLRP(fused, composite=composite).attribute(x, target=1)
    assert relative(found, expected) < TOLERANCE
    assert_same_state(before, state_of(model))
    # the relevance of the layer in front is that of the two together
    layers = [model[0], model[1]]
    read = LayerTransformerLRP(model, layers, composite=composite).attribute(x, 1)
    theirs = LayerTransformerLRP(fused, fused[0], composite=composite).attribute(x, 1)
    for ours in read:
        assert relative(ours, theirs) < TOLERANCE
    trace = TransformerLRP(model, composite=composite).trace(x, 1)
    assert trace.unseen < 1e-9
    assert abs(trace.relevance - float(expected.sum())) < 1e-8


def test_batch_normalisation_apart_is_a_layer_of_its_own() -> None:
    model = nn.Sequential(
        with_statistics(nn.BatchNorm2d(2)), nn.ReLU(), nn.Conv2d(2, 2, 2), nn.Flatten()
    ).double().eval()  # fmt: skip
    x = draw(2, 2, 3, 3)
    for name in ("gamma", "flat"):
        composite = on_everything_linear(RULES[name].rule)
        trace = TransformerLRP(model, composite=composite).trace(x, 1)
        assert trace.unseen < 1e-9


@pytest.mark.parametrize(
    "name", ["conv2d", "max_pool2d", "adaptive_avg_pool2d", "mean"]
)
@pytest.mark.parametrize("composite", sorted(set(COMPOSITES) - {"gradient-x-input"}))
def test_batches_are_made_of_examples(composite: str, name: str) -> None:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "conv2d": lambda x: functional.conv2d(x, K2, KB),
        "max_pool2d": lambda x: functional.max_pool2d(functional.conv2d(x, K2), 2),
        "adaptive_avg_pool2d": lambda x: functional.adaptive_avg_pool2d(
            functional.conv2d(x, K2, KB).relu(), 2
        ),
        "mean": lambda x: functional.conv2d(x, K2, KB).mean((2, 3)),
    }

    def model(x: Tensor) -> Tensor:
        return functions[name](x).flatten(1)

    x = draw(3, 2, 6, 6)
    lrp = TransformerLRP(model, composite=composite)
    found, delta = lrp.attribute(x, target=2, return_convergence_delta=True)
    alone = torch.cat([lrp.attribute(x[i : i + 1], target=2) for i in range(3)])
    assert relative(found, alone) < TOLERANCE
    assert delta.shape == (3,)
    trace = lrp.trace(x, target=2)
    assert trace.unseen < 1e-9
    assert lrp.composite == COMPOSITES[composite] and str(lrp.composite)


def test_models_that_write_into_their_tensors() -> None:
    """Rules keep what they need, whatever a model does to its activations."""

    def model(x: Tensor) -> Tensor:
        y = functional.linear(x, W, B)
        z = functional.relu_(y)
        z *= 2
        z += 0.5
        x.mul_(0)
        return z

    def careful(x: Tensor) -> Tensor:
        return functional.linear(x, W, B).relu() * 2 + 0.5

    x = draw(2, 4)
    for name, rule in RULES.items():
        composite = on_everything_linear(rule.rule)
        if not isinstance(rule.rule, rules.CarriedRule):
            continue  # torch's own gradient of abs needs what the model overwrites
        found, expected = (
            TransformerLRP(f, composite=composite).attribute(x, 1)
            for f in (model, careful)
        )
        assert relative(found, expected) < TOLERANCE, name


@pytest.mark.filterwarnings(
    "ignore::captum_transformer_lrp.errors.HalfPrecisionWarning"
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["epsilon", "gamma", "z+", "alpha2 beta1"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model, x = dense(16, 24, 16, 3), draw(4, 16)
    composite = on_everything_linear(RULES[name].rule)
    expected = TransformerLRP(model, composite=composite).attribute(x, 1)
    found = TransformerLRP(model.to(dtype), composite=composite).attribute(
        x.to(dtype), 1
    )
    assert found.isfinite().all()
    assert relative(found.double(), expected) < (
        0.02 if dtype == torch.float16 else 0.1
    )


def test_options_that_make_no_sense_are_refused() -> None:
    for rule in (
        rules.Epsilon,
        rules.Gamma,
        rules.AlphaBeta,
        rules.ZPlus,
        rules.WSquare,
    ):
        with pytest.raises(ValueError, match="expected a positive stabiliser"):
            rule(epsilon=0.0)
        with pytest.raises(ValueError, match="expected 'absorbs'"):
            rule(bias="zero")
    with pytest.raises(ValueError, match="expected 0 or more"):
        rules.Gamma(gamma=-1.0)
    with pytest.raises(ValueError, match="alpha - beta = 1"):
        rules.AlphaBeta(alpha=2.0, beta=0.5)
    with pytest.raises(ValueError, match="expected low <= high"):
        rules.ZBox(low=1.0, high=-1.0)
    assert (
        repr(rules.Epsilon(bias="ignored")) == "Epsilon(epsilon=1e-06, bias='ignored')"
    )
    assert repr(rules.ZBox(low=0.0, high=1.0, otherwise=None)) == (
        "ZBox(otherwise=None, epsilon=1e-09, low=0.0, high=1.0)"
    )


class GlobalResponseNorm(nn.Module):
    """As in ConvNeXt V2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))
        self.bias = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(1, 2), keepdim=True)
        share = size / (size.mean(-1, keepdim=True) + 1e-6)
        return x + torch.addcmul(self.bias, self.weight, x * share)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, channels last, layer norm, inverted bottleneck."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.reduce = nn.Linear(width, 8), nn.Linear(8, width)
        self.response = GlobalResponseNorm(8)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(self.response(functional.gelu(self.expand(y))))
        return x + (y * self.scale).permute(0, 3, 1, 2)


@pytest.mark.parametrize("composite", sorted(set(COMPOSITES) - {"gradient-x-input"}))
def test_norms_of_convnext(composite: str) -> None:
    torch.manual_seed(1)
    stem, norm = nn.Conv2d(2, 4, 2, stride=2), nn.LayerNorm(4)
    block, head = ConvNeXtBlock(4), nn.Linear(4, 3)
    parts = nn.ModuleList([stem, norm, block, head]).double()

    def model(x: Tensor) -> Tensor:
        y = norm(stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return head(block(y).mean((2, 3)))

    before = state_of(parts)
    trace = TransformerLRP(model, composite=composite).trace(draw(2, 2, 6, 6), 1)
    assert trace.unseen < 1e-9
    assert_same_state(before, state_of(parts))
