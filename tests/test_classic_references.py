"""Against the outputs of Zennit's and Captum's own code on small networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import CaptumLRP, Composite, TransformerLRP, rules
from captum_transformer_lrp.classic.composites import (
    alpha_beta_lrp,
    epsilon_gamma_box,
    epsilon_lrp,
)
from captum_transformer_lrp.composites import COMPOSITES
from captum_transformer_lrp.core.composites import ATTN_LRP
from tests.helpers import REFERENCES, relative

TOLERANCE = {"f32": 1e-5, "f64": 1e-10}
DTYPE = {"f32": torch.float32, "f64": torch.float64}


def read(folder: str, name: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(REFERENCES / folder / f"{name}.safetensors")


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5)
    )


def conv() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 4),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Sequential]] = {
    "zennit_mlp": mlp,
    "zennit_conv": conv,
}


def everywhere(rule: rules.Rule) -> Composite:
    """One rule for linear layers; pooling by epsilon, as Zennit has it."""
    return epsilon_lrp().with_rules({"product": rule})


METHODS: dict[str, Composite] = {
    "EpsilonPlus": COMPOSITES["epsilon-plus"],
    "EpsilonPlusFlat": COMPOSITES["epsilon-plus-flat"],
    "EpsilonAlpha2Beta1": COMPOSITES["epsilon-alpha2-beta1"],
    "EpsilonAlpha2Beta1Flat": COMPOSITES["epsilon-alpha2-beta1-flat"],
    "EpsilonGammaBox": epsilon_gamma_box(low=-3.0, high=3.0),
    "epsilon_1e-6": epsilon_lrp(),
    "epsilon_0.25": everywhere(rules.Epsilon(epsilon=0.25)),
    "gamma_0.25": everywhere(rules.Gamma(gamma=0.25)),
    "alpha1beta0": everywhere(rules.AlphaBeta(alpha=1.0, beta=0.0)),
    "alpha2beta1": everywhere(rules.AlphaBeta()),
    "zplus": everywhere(rules.ZPlus()),
}
CAPTUM: dict[str, Callable[[], Any]] = {
    "captum_epsilon_1e-9": EpsilonRule,
    "captum_gamma_0.25": lambda: GammaRule(0.25),
    "captum_alpha1beta0": lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True),
}


def explained(folder: str, tag: str) -> tuple[nn.Module, Tensor, Tensor]:
    model, inputs = NETWORKS[folder](), read(folder, "inputs")
    model.load_state_dict(read(folder, "model"))
    model = model.to(DTYPE[tag]).eval()
    return model, inputs["x"].to(DTYPE[tag]), inputs["target"]


@pytest.mark.parametrize("tag", TOLERANCE)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("folder", NETWORKS)
def test_equals_zennit(folder: str, method: str, tag: str) -> None:
    model, x, target = explained(folder, tag)
    found = TransformerLRP(model, composite=METHODS[method]).attribute(x, target=target)
    assert relative(found, read(folder, "refs")[f"{method}.{tag}"]) <= TOLERANCE[tag]


@pytest.mark.parametrize("folder", NETWORKS)
def test_the_model_is_the_reference_s(folder: str) -> None:
    for tag in TOLERANCE:
        model, x, _ = explained(folder, tag)
        expected = read(folder, "refs")[f"logits.{tag}"]
        assert relative(model(x).detach(), expected) <= TOLERANCE[tag]


@pytest.mark.parametrize("method", CAPTUM)
@pytest.mark.parametrize("folder", NETWORKS)
def test_equals_captum(folder: str, method: str) -> None:
    model, x, target = explained(folder, "f64")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.rule = CAPTUM[method]()
    if folder == "zennit_conv":
        model[5].rule = EpsilonRule()  # Captum has no rule for Flatten
    found = CaptumLRP(model).attribute(x, target=target)
    assert relative(found, read(folder, "refs")[f"{method}.f64"]) <= TOLERANCE["f64"]


@pytest.mark.parametrize("folder", NETWORKS)
def test_every_key_of_the_networks_is_compared(folder: str) -> None:
    keys = {f"{name}.{tag}" for name in (*METHODS, "logits") for tag in TOLERANCE}
    keys |= {f"{name}.f64" for name in CAPTUM}
    assert keys == set(read(folder, "refs"))


UNIT: dict[str, rules.Rule] = {
    "epsilon_1e-6": rules.Epsilon(),
    "epsilon_1e-6.zerobias": rules.Epsilon(bias="ignored"),
    "epsilon_0.25": rules.Epsilon(epsilon=0.25),
    "gamma_0.25": rules.Gamma(),
    "gamma_0.25.zerobias": rules.Gamma(bias="ignored"),
    "gamma_1": rules.Gamma(gamma=1.0),
    "gamma_100": rules.Gamma(gamma=100.0),
    "alpha1beta0": rules.AlphaBeta(alpha=1.0, beta=0.0),
    "alpha1beta0.zerobias": rules.AlphaBeta(alpha=1.0, beta=0.0, bias="ignored"),
    "alpha2beta1": rules.AlphaBeta(),
    "zplus": rules.ZPlus(),
    "flat": rules.Flat(),
    "wsquare": rules.WSquare(),
    "wsquare.zerobias": rules.WSquare(bias="ignored"),
    "zbox_-3_3": rules.ZBox(low=-3.0, high=3.0, epsilon=1e-6, otherwise=None),
}
OPERATORS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "linear": ("linear", functional.linear),
    "conv": ("conv2d", lambda x, w, b: functional.conv2d(x, w, b, padding=1)),
}


@pytest.mark.parametrize("tag", TOLERANCE)
@pytest.mark.parametrize("name", UNIT)
@pytest.mark.parametrize("operator", OPERATORS)
def test_one_operator_equals_zennit(operator: str, name: str, tag: str) -> None:
    given = {
        key.removeprefix(f"{operator}."): value.to(DTYPE[tag])
        for key, value in read("rules_unit", "refs").items()
        if key.startswith(f"{operator}.")
    }
    key, function = OPERATORS[operator]
    handed = given["R_out"] / given["z"]

    def model(x: Tensor) -> Tensor:
        z = function(x, given["weight"], given["bias"])
        assert relative(z.detach(), given["z"]) <= TOLERANCE[tag]
        return (z * handed).flatten(1).sum(1)

    composite = ATTN_LRP.with_rules({key: UNIT[name]})
    found = TransformerLRP(model, composite=composite).attribute(given["x"])
    # without the bias a denominator may be far smaller than what float32 rounds
    loose = tag == "f32" and name == "epsilon_1e-6.zerobias"
    tolerance = 1e-4 if loose else TOLERANCE[tag]
    assert relative(found, given[f"R_in.{name}"]) <= tolerance


def test_every_key_of_the_operators_is_compared() -> None:
    given = {
        f"{operator}.{key}"
        for operator in OPERATORS
        for key in ("x", "weight", "bias", "z", "R_out", *(f"R_in.{n}" for n in UNIT))
    }
    assert given == set(read("rules_unit", "refs"))


def test_alpha_beta_by_name_equals_zennit() -> None:
    model, x, target = explained("zennit_mlp", "f64")
    expected = read("zennit_mlp", "refs")["alpha2beta1.f64"]
    found = TransformerLRP(model, composite="alpha-beta").attribute(x, target=target)
    assert relative(found, expected) <= 1e-10
    found = TransformerLRP(model, composite=alpha_beta_lrp(1.0, 0.0)).attribute(
        x, target=target
    )
    expected = read("zennit_mlp", "refs")["alpha1beta0.f64"]
    assert relative(found, expected) <= 1e-10
