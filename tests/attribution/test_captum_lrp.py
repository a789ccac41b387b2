"""CaptumLRP and LayerCaptumLRP beside Captum's own LRP and LayerLRP."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum.attr import LRP, LayerLRP, NoiseTunnel
from captum.attr._utils.custom_modules import Addition_Module
from captum.attr._utils.lrp_rules import (
    Alpha1_Beta0_Rule,
    EpsilonRule,
    GammaRule,
    IdentityRule,
    PropagationRule,
)
from torch import Tensor, nn

from captum_transformer_lrp import (
    CaptumLRP,
    LayerCaptumLRP,
    TransformerLRP,
    from_captum,
)
from captum_transformer_lrp.errors import DropoutWarning, RuleError, TargetError
from tests.helpers import assert_same_state, relative, state_of

TOLERANCE = 1e-6


class SimpleLRPModel(nn.Module):
    """The models of this file are those of Captum's tests, in numbers."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.linear = filled(3, 3, 2.0)
        self.relu = nn.ReLU(inplace=inplace)
        self.linear2 = filled(3, 1, 3.0)
        self.dropout = nn.Dropout(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.linear2(self.relu(self.linear(x))))


def filled(width: int, height: int, value: Any, bias: Any = None) -> nn.Linear:
    layer: Any = nn.Linear(width, height, bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(value).expand(height, width))
        if layer.bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


class OneConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(1, 2, 3), nn.ReLU()
        self.conv1.weight = nn.Parameter(torch.ones(2, 1, 3, 3))
        self.conv1.bias = nn.Parameter(torch.tensor([-50.0, -75.0]))
        signs = [1.0] * 5 + [-1.0] * 3
        self.fc1, self.relu2 = filled(8, 4, [signs] * 4, [0.0] * 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(self.fc1(self.relu1(self.conv1(x)).view(-1, 8)))


class MultiLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear0 = filled(3, 3, torch.eye(3), [0.0] * 3)
        self.linear1 = filled(3, 4, 1.0, [-10.0, 1.0, 1.0, 1.0])
        self.relu = nn.ReLU()
        self.linear2 = filled(4, 2, 1.0, [-1.0, 1.0])

    def forward(self, x: Tensor, more: Any = None, wide: bool = False) -> Tensor:
        x = x if more is None else x + more
        y = self.linear2(self.relu(self.linear1(self.linear0(x))))
        if not wide:
            return y
        y = torch.stack((y, 2 * y), dim=2)
        return torch.stack((y, 4 * y), dim=3)


class SumOfInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = MultiLayer()

    def forward(self, x: Tensor, y: Tensor, z: Tensor, scale: int) -> Tensor:
        return self.model(scale * (x + y + z))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu = nn.Linear(3, 3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.linear(self.relu(self.linear(x))))


class ClampedRule(PropagationRule):
    """A rule that a user might write: weights clamped in place."""

    def _manipulate_weights(self, module: Any, inputs: Any, outputs: Any) -> None:
        if hasattr(module, "weight"):
            module.weight.data.clamp_(-0.3, 0.3)


class DoubledRule(EpsilonRule):
    """A rule that overrides a hook: twice the relevance goes on."""

    def _create_backward_hook_input(self, inputs: Tensor) -> Any:
        def hook(gradient: Any) -> Tensor:
            relevance = gradient.replace_out = 2 * gradient * inputs
            self.relevance_input[gradient.device] = relevance.data
            return relevance

        return hook


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.add = Addition_Module()
        self.relu = nn.ReLU()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.relu(self.add(self.linear(x), x)))


class Inputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(3, 5)
        self.add = Addition_Module()
        self.tanh = nn.Tanh()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor, y: Tensor, scale: Any = None) -> Tensor:
        hidden = self.add(self.first(x), self.second(y))
        return self.head(self.tanh(hidden))


def mlp(inplace: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(inplace=inplace), nn.Linear(8, 7, bias=False),
        nn.Tanh(), nn.Linear(7, 3),
    )  # fmt: skip


def convolutional() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1), Flat(), nn.Linear(5, 3),
    )  # fmt: skip
    with torch.no_grad():
        for name, tensor in model[1].state_dict().items():
            if name != "num_batches_tracked":
                tensor.uniform_(0.5, 2)
    return model


class Flat(nn.Module):
    """Without children, so that Captum wants a rule; a view, so that none matters."""

    def __init__(self) -> None:
        super().__init__()
        self.rule = EpsilonRule()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def pool(dimensions: int) -> Callable[[], nn.Module]:
    cls = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[dimensions - 1]
    return lambda: nn.Sequential(nn.Linear(4, 6), cls(2), Flat(), nn.LazyLinear(3))


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    layers: tuple[str, ...]  # that LayerLRP is asked for

    def __str__(self) -> str:
        return self.name

    def model(self) -> nn.Module:
        torch.manual_seed(3)
        model = self.make().double().eval()
        with torch.no_grad():
            model(*self.inputs())
        return model

    def inputs(self) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(5)
        return tuple(
            torch.randn(*s, generator=generator, dtype=torch.float64)
            for s in self.shapes
        )


CASES = [
    Case("mlp", mlp, ((4, 6),), ("0", "2", "4")),
    Case("mlp in place", lambda: mlp(True), ((4, 6),), ("0", "4")),
    Case("convolutional", convolutional, ((3, 2, 10, 10),), ("0", "1", "4", "9")),
    Case("skip connection", Skip, ((4, 6),), ("linear", "head")),
    Case("two inputs", Inputs, ((4, 4), (4, 3)), ("first", "add", "head")),
    Case("max pool 1d", pool(1), ((3, 4, 4),), ("0", "1")),
    Case("max pool 2d", pool(2), ((3, 2, 4, 4),), ("0", "1")),
    Case("max pool 3d", pool(3), ((3, 1, 4, 4, 4),), ("0", "1")),
]
RULES: dict[str, Callable[[], PropagationRule] | None] = {
    "default": None,
    "epsilon": EpsilonRule,
    "epsilon 0.25": lambda: EpsilonRule(0.25),
    "gamma": GammaRule,
    "gamma, no bias": lambda: GammaRule(1.0, set_bias_to_zero=True),
    "alpha1 beta0": Alpha1_Beta0_Rule,
    "alpha1 beta0, no bias": lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True),
    "of a user": ClampedRule,
    "of a user with a hook": DoubledRule,
}


def with_rules(model: nn.Module, rule: Callable[[], PropagationRule] | None) -> Any:
    """Set a rule on every module that Captum has a rule for."""
    if rule is not None:
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
                module.rule = rule()
    return model


def captums(cls: Any, model: nn.Module, *rest: Any, **options: Any) -> Any:
    """What Captum's class says of a copy of the model, whose rules it deletes."""
    memo: dict[int, Any] = {}
    twin = copy.deepcopy(model, memo)
    rest = tuple(
        [memo[id(m)] for m in layer] if isinstance(layer, list) else memo[id(layer)]
        for layer in rest
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cls(twin, *rest).attribute(**options)


def assert_equal(found: Any, expected: Any) -> None:
    if isinstance(expected, (tuple, list)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        expected = expected.detach()
        assert found.shape == expected.shape and not found.requires_grad
        scale = max(float(expected.abs().max()), 1e-6)
        assert float((found - expected).abs().max()) <= TOLERANCE * scale


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_captum(case: Case, rule: Any) -> None:
    if rule is DoubledRule and case.name == "skip connection":
        pytest.skip("Captum runs the hook of one of two modules that read a tensor")
    model, inputs = with_rules(case.model(), rule), case.inputs()
    rules_before = {n: getattr(m, "rule", None) for n, m in model.named_modules()}
    before = state_of(model)
    given = inputs[0] if len(inputs) == 1 else inputs
    options = {
        "inputs": given, "target": [0, 2, 1, 1][: len(inputs[0])],
        "return_convergence_delta": True,
    }  # fmt: skip
    expected = captums(LRP, model, **options)
    for _ in range(2):  # the rules are still there
        assert_equal(CaptumLRP(model).attribute(**options), expected)
    layers = [model.get_submodule(name) for name in case.layers]
    for at_input in (False, True):
        if at_input and case.name == "two inputs":
            layers.pop(1)  # LayerLRP returns a list of both, in the order of the hooks
        if at_input and case.name == "skip connection":
            layers.pop(0)  # LayerLRP returns the relevance of both branches
        options["attribute_to_layer_input"] = at_input
        found = LayerCaptumLRP(model, layers).attribute(**options)
        assert_equal(found, captums(LayerLRP, model, layers, **options))
        one = LayerCaptumLRP(model, layers[0]).attribute(**options)
        assert_equal(one, captums(LayerLRP, model, layers[0], **options))
    assert_same_state(before, state_of(model))
    assert rules_before == {
        n: getattr(m, "rule", None) for n, m in model.named_modules()
    }


def of_dimension(dimensions: int) -> nn.Module:
    """A network of layers for which Captum has defaults in two dimensions only."""

    def layer(name: str, *args: Any, **options: Any) -> Any:
        return getattr(nn, f"{name}{dimensions}d")(*args, **options)

    norm = layer("BatchNorm", 4)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 2)
    return nn.Sequential(
        layer("Conv", 2, 4, 3, padding=1), norm, nn.ReLU(), layer("AvgPool", 2),
        layer("Conv", 4, 5, 2), nn.ReLU(), layer("AdaptiveAvgPool", 1),
        Flat(), nn.Linear(5, 3),
    )  # fmt: skip


@pytest.mark.parametrize("dimensions", [1, 3])
def test_layers_without_a_default_in_captum_get_epsilon(dimensions: int) -> None:
    case = Case(
        "layers of one or three dimensions",
        lambda: of_dimension(dimensions),
        ((3, 2, *[6] * dimensions),),
        ("0", "1", "3", "6"),
    )
    model, (x,) = case.model(), case.inputs()
    ruled = copy.deepcopy(model)  # Captum must be told what the default is
    for module in ruled.children():
        if not isinstance(module, nn.ReLU):
            module.rule = EpsilonRule()
    options = {
        "inputs": x, "target": [0, 2, 1], "return_convergence_delta": True,
    }  # fmt: skip
    expected = captums(LRP, ruled, **options)
    assert_equal(CaptumLRP(model).attribute(**options), expected)
    assert_equal(CaptumLRP(ruled).attribute(**options), expected)
    expected = captums(
        LayerLRP, ruled, [ruled.get_submodule(name) for name in case.layers], **options
    )
    layers = [model.get_submodule(name) for name in case.layers]
    assert_equal(LayerCaptumLRP(model, layers).attribute(**options), expected)


class Product(nn.Module):
    """A linear layer that is none of torch's."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(height, width))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.t()


@pytest.mark.parametrize("rule", [EpsilonRule, GammaRule, Alpha1_Beta0_Rule])
def test_rules_on_modules_of_any_class_stay_and_work_again(rule: Any) -> None:
    case = Case(
        "own class",
        lambda: nn.Sequential(Product(6, 5), nn.ReLU(), Product(5, 3)),
        ((4, 6),),
        (),
    )
    model, (x,) = case.model(), case.inputs()
    model[0].rule, model[2].rule = first, second = rule(), rule()
    explainer = CaptumLRP(model)
    expected = captums(LRP, model, inputs=x, target=1)
    for _ in range(2):
        assert_equal(explainer.attribute(x, target=1), expected)
        assert model[0].rule is first and model[2].rule is second


def test_dropout_drops_what_the_model_drops() -> None:
    """In training mode the relevance is that of the draw the user would have seen."""
    model = SimpleLRPModel(inplace=False)
    model.dropout.p = 0.5
    x = torch.tensor([[1.0, 2.0, 3.0]])
    dropped = set()
    for seed in range(8):
        torch.manual_seed(seed)
        with pytest.warns(DropoutWarning, match=r"Call model\.eval\(\)"):
            found = CaptumLRP(model).attribute(x)
        torch.manual_seed(seed)  # the same draw again
        score = model(x)
        assert torch.allclose(found.sum(), score.sum())
        dropped.add(not bool(score.any()))
    assert dropped == {True, False}


def test_identity_rule_passes_relevance_to_inputs_that_are_zero() -> None:
    model: Any = SimpleLRPModel(inplace=False).double().eval()
    with torch.no_grad():
        model.linear.weight[0, 0] = -2
    model.linear.rule = IdentityRule()
    model.linear2.rule = EpsilonRule()
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 2.0, 0.0]], dtype=torch.float64)
    found = CaptumLRP(model).attribute(x)
    assert_equal(found, captums(LRP, model, inputs=x))
    assert torch.allclose(found[0], torch.tensor([24.0, 36.0, 36.0]).double())
    assert found[1].all()


@pytest.mark.parametrize("inplace", [False, True])
def test_known_values(inplace: bool) -> None:
    model: Any = SimpleLRPModel(inplace).eval()
    x = torch.tensor([[1.0, 2.0, 3.0]])
    model.linear.rule = model.linear2.rule = EpsilonRule()
    batch = torch.cat([x, 3 * x])
    found, delta = CaptumLRP(model).attribute(
        batch, target=0, return_convergence_delta=True
    )
    expected = torch.tensor([[18.0, 36.0, 54.0], [54.0, 108.0, 162.0]])
    assert torch.allclose(found, expected) and delta.shape == (2,)
    with torch.no_grad():
        model.linear.weight[0, 0] = -2
    model.linear.rule, model.linear2.rule = GammaRule(gamma=1), GammaRule()
    found = CaptumLRP(model).attribute(x)
    assert torch.allclose(found, torch.tensor([[28 / 3, 104 / 3, 52]]))
    model.linear.rule = model.linear2.rule = Alpha1_Beta0_Rule()
    found = CaptumLRP(model).attribute(x)
    assert torch.allclose(found, torch.tensor([[12, 33.6, 50.4]]))


def test_delta_is_zero_where_biases_cancel() -> None:
    model: Any = OneConvolution()
    x = torch.arange(16.0).view(1, 1, 4, 4)
    found, delta = CaptumLRP(model).attribute(
        x, int(model(x).argmax()), return_convergence_delta=True
    )
    assert delta.item() == 0
    expected = torch.tensor([[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11], [0] * 4])
    assert torch.allclose(found[0, 0], expected.float())
    at_layer, delta = LayerCaptumLRP(model, model.conv1).attribute(
        x, int(model(x).argmax()), return_convergence_delta=True
    )
    expected = torch.tensor([[[0, 4], [31, 40]], [[0, 0], [-6, -15]]])
    assert torch.allclose(at_layer[0], expected.float())
    assert delta.item() == 0


class Reshaped(nn.Module):
    """Returns one score for a batch of two."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.linear(x))[0].unsqueeze(0)


def test_outputs_of_other_shapes() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    assert CaptumLRP(Reshaped()).attribute(x, 0).shape == x.shape
    pixels = torch.tensor([[[[1.0, 2.0], [5.0, 6.0]]]])
    found = CaptumLRP(nn.Sequential(nn.MaxPool2d(2))).attribute(pixels)
    assert torch.allclose(found, torch.tensor([[[[0.0, 0.0], [0.0, 6.0]]]]))


def test_limits_of_captum_that_are_lifted() -> None:
    """Modules used twice, sums written with +, and modules of any class."""
    twice = Twice()
    x = torch.ones(2, 3)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(twice(leaf)[:, 0].sum(), leaf)
    assert torch.allclose(CaptumLRP(twice).attribute(x, target=0), x * gradient)

    model = MultiLayer()  # x + add_input
    x = torch.tensor([[1.0, 2.0, 3.0]])
    found = CaptumLRP(model).attribute((x, 3 * x), target=0)
    alone = CaptumLRP(model).attribute(4 * x, target=0)
    assert torch.allclose(found[0] + found[1], alone)
    assert torch.allclose(found[1], 3 * found[0])

    model.add_module("sigmoid", nn.Sigmoid())
    assert CaptumLRP(model).attribute(x, target=0).shape == x.shape


def test_additional_arguments_change_nothing_that_they_do_not_enter() -> None:
    model, x = MultiLayer(), torch.tensor([[1.0, 2.0, 3.0]])
    found = CaptumLRP(model).attribute(x, target=0)
    again = CaptumLRP(model).attribute(x, target=0, additional_forward_args=(0,))
    assert torch.equal(found, again)


TARGETS: list[Any] = [
    (1, None), ([0, 1, 1, 0], None), (torch.tensor([0]), None),
    (torch.tensor([1, 1, 0, 0]), None),
    ([(1, 0, 0), (0, 1, 1), (1, 1, 1), (0, 0, 0)], (None, True)),
]  # fmt: skip


@pytest.mark.parametrize("wrapped", [False, True], ids=["", "NoiseTunnel"])
@pytest.mark.parametrize(("target", "further"), TARGETS)
def test_targets_of_a_batch_are_those_of_its_examples(
    target: Any, further: Any, wrapped: bool
) -> None:
    model = MultiLayer()
    torch.manual_seed(0)
    x = torch.randn(4, 3)
    method = CaptumLRP(model)
    tunnel = {"nt_samples": 4, "stdevs": 0.0, "nt_samples_batch_size": 2}
    tunnel = tunnel if wrapped else {}
    explain = NoiseTunnel(method).attribute if wrapped else method.attribute
    batch = explain(x, target=target, additional_forward_args=further, **tunnel)
    for i in range(4):
        own = target
        if not isinstance(target, int) and len(target) == 4:
            own = target[i : i + 1]
        single = explain(
            x[i : i + 1], target=own, additional_forward_args=further, **tunnel
        )
        assert torch.allclose(batch[i : i + 1], single, atol=1e-4)
    if further is None:  # Captum's factors of 2 and 4 are not shared out
        expected = captums(LRP, model, inputs=x, target=target)
        assert torch.allclose(batch, expected, atol=1e-5)


def test_several_inputs_with_targets() -> None:
    model = SumOfInputs()
    torch.manual_seed(0)
    inputs = (10 * torch.randn(6, 3), 5 * torch.randn(6, 3))
    further = (2 * torch.randn(6, 3), 5)
    options = {"additional_forward_args": further, "target": [0, 1, 1, 0, 0, 1]}
    found = CaptumLRP(model).attribute(inputs, **options)
    tunnel = NoiseTunnel(CaptumLRP(model)).attribute(
        inputs, **options, nt_samples=3, stdevs=0.0
    )
    at_layer = LayerCaptumLRP(model, model.model.linear1).attribute(inputs, **options)
    assert at_layer.shape == (6, 4)
    for one, other in zip(found, tunnel, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, *_: Any) -> Tensor:
        raise AssertionError("raised on purpose")


@pytest.mark.parametrize("make", [CaptumLRP, lambda m: LayerCaptumLRP(m, m.linear1)])
def test_nothing_is_left_behind(make: Any) -> None:
    model: Any = MultiLayer()
    x = torch.randn(4, 3)
    model.linear1.rule = rule = GammaRule()
    before = state_of(model)
    make(model).attribute(x, target=1)
    with pytest.raises(AssertionError):
        make(model).attribute(x, target=(9999,) * 20)
    with pytest.raises(TargetError):
        make(model).attribute(x)
    model.linear2 = Raises()
    with pytest.raises(AssertionError, match="on purpose"):
        make(model).attribute(x, target=1)
    model.linear2 = MultiLayer().linear2
    assert model.linear1.rule is rule
    assert not hasattr(rule, "relevance_input_") and vars(rule) == vars(GammaRule())
    assert state_of(model)["hooks"] == before["hooks"]


def test_rules_that_are_none_are_refused() -> None:
    model: Any = OneConvolution()
    model.conv1.rule = 1
    with pytest.raises(TypeError, match="'conv1' is 1; expected an instance"):
        CaptumLRP(model)
    with pytest.raises(TypeError, match="expected an instance"):
        LayerCaptumLRP(model, model.conv1)
    model.conv1.rule = None
    lrp = CaptumLRP(model)
    model.conv1.rule = "gamma"
    with pytest.raises(TypeError, match="is 'gamma'"):
        lrp.attribute(torch.ones(1, 1, 4, 4), target=0)
    with pytest.raises(TypeError, match="got a int; expected"):
        CaptumLRP(3)
    with pytest.raises(TypeError, match=r"Write GammaRule\(\) with parentheses"):
        from_captum(GammaRule)
    with pytest.raises(NotImplementedError):
        lrp.attribute_future()


def test_rules_of_captum_in_a_table() -> None:
    case = CASES[0]
    model, (x,) = case.model(), case.inputs()
    rule = from_captum(GammaRule(gamma=0.5))
    assert repr(rule) == (
        "CaptumRule(rule=GammaRule(gamma=0.5, set_bias_to_zero=False))"
    )
    found = TransformerLRP(
        model, composite="captum", rules={nn.Linear: rule}
    ).attribute(x, target=1)
    with_rules(model, lambda: GammaRule(gamma=0.5))
    assert_equal(found, captums(LRP, model, inputs=x, target=1))
    with pytest.raises(RuleError, match="was given to 'linear'; expected a module"):
        TransformerLRP(model, rules={"linear": rule}).attribute(x, target=1)


def test_verbose_prints_the_rules(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = SimpleLRPModel(False).eval()
    model.linear.rule = GammaRule()
    CaptumLRP(model).attribute(torch.ones(1, 3), verbose=True)
    out = capsys.readouterr().out
    assert out.count("Applied") == 2
    assert "GammaRule" in out and "EpsilonRule" in out and "on layer Linear" in out


def test_in_float32() -> None:
    case = CASES[2]
    model, (x,) = with_rules(case.model(), GammaRule).float(), case.inputs()
    expected = captums(LRP, copy.deepcopy(model).double(), inputs=x, target=1).detach()
    found = CaptumLRP(model).attribute(x.float(), target=1)
    assert relative(found.double(), expected) < 1e-4
