"""The registry: keys, precedence, overrides, and its messages."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    Composite,
    GradientXInput,
    ModuleName,
    Predicate,
    TransformerLRP,
    registry,
    rules,
)
from captum_transformer_lrp.composites import COMPOSITES
from captum_transformer_lrp.core.composites import ATTN_LRP
from captum_transformer_lrp.core.operators import OPERATORS
from captum_transformer_lrp.core.registry import Registry
from captum_transformer_lrp.errors import (
    DuplicateRuleError,
    RuleError,
    UnknownNameError,
)
from captum_transformer_lrp.known.modules import COMPOSED_ACTIVATIONS

X = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).double()


class SpelledOut(nn.Module):
    """An activation in pieces: as operators, the constant would absorb its share."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) + 0.5


class Child(SpelledOut):
    pass


def net(cls: type[nn.Module] = SpelledOut) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), cls(), nn.Linear(3, 2)).double()


def as_identity(model: nn.Sequential) -> Tensor:
    """The relevance if the activation passes it unchanged."""
    hidden = model[0](X).detach()
    of_output = AttnLRP(model[2]).attribute(model[1](hidden), target=1)
    ratio = (of_output / hidden).detach()
    return (X * (ratio @ model[0].weight)).detach()


@pytest.fixture
def clean() -> Iterator[None]:
    """Restore the registry, which is global."""
    rows, predicates = dict(registry.rows), dict(registry.predicates)
    yield
    registry.rows, registry.predicates = rows, predicates
    registry.version += 1


KEYS = {
    "class": SpelledOut,
    "qualified name": f"{__name__}.SpelledOut",
    "predicate": Predicate(lambda m: isinstance(m, SpelledOut), "spelled out"),
}


@pytest.mark.parametrize("row", ["activation", rules.Identity()], ids=repr)
@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("cls", [SpelledOut, Child])
def test_register_a_module(clean: None, key: Any, row: Any, cls: Any) -> None:
    model = net(cls)
    before = AttnLRP(model).attribute(X, target=1)
    registry.register(key, row)
    assert key in registry
    after = AttnLRP(model).attribute(X, target=1)
    assert not torch.allclose(before, after)
    assert torch.allclose(after, as_identity(model))
    assert torch.allclose(  # the empty table knows no modules
        GradientXInput(model).attribute(X, target=1),
        X * torch.autograd.functional.jacobian(lambda x: model(x)[:, 1].sum(), X),
    )
    registry.unregister(key)
    assert torch.allclose(AttnLRP(model).attribute(X, target=1), before)


def test_register_an_operator(clean: None) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.special.i0e(x).sum(1)

    registry.register("special_i0e", "activation")
    found = AttnLRP(model).attribute(X)
    assert torch.allclose(found, torch.special.i0e(X))
    registry.register("special_i0e", rules.PlainGradient(), replace=True)
    gradient = torch.autograd.functional.jacobian(lambda x: model(x).sum(), X)
    assert torch.allclose(AttnLRP(model).attribute(X), X * gradient)


class Wave(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x.sin()


@pytest.mark.parametrize("key", [Wave, Predicate(lambda m: isinstance(m, Wave), "")])
def test_a_registered_rule_that_only_knows_relevance_is_not_left_out(
    clean: None, key: Any
) -> None:
    """Every method then carries relevance, as under an override."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), Wave(), nn.Linear(4, 3)).double()
    x = torch.randn(2, 4).double()
    with registry.override({key: rules.PassOn()}):
        expected = AttnLRP(model).attribute(x, target=1)
    registry.register(key, rules.PassOn())
    found = AttnLRP(model).attribute(x, target=1)
    assert torch.equal(found, expected)
    registry.unregister(key)
    registry.register(key, rules.PlainGradient())
    assert not torch.allclose(AttnLRP(model).attribute(x, target=1), expected)


def test_no_operator_is_of_two_kinds() -> None:
    listed = [name for names in OPERATORS.values() for name in names]
    assert len(listed) == len(set(listed))


def test_duplicates_raise(clean: None) -> None:
    with pytest.raises(
        DuplicateRuleError, match="'gelu' is registered already, as 'act"
    ):
        registry.register("gelu", rules.Identity())
    registry.register(SpelledOut, "activation")
    with pytest.raises(DuplicateRuleError, match="replace=True"):
        registry.register(f"{__name__}.SpelledOut", "activation")
    registry.register(SpelledOut, rules.Detach(), replace=True)


def test_messages_say_what_to_write(clean: None) -> None:
    with pytest.raises(UnknownNameError, match=r"'activaton' is no kind.*'activation'"):
        registry.register("my_op", "activaton")
    with pytest.raises(TypeError, match=r"Write Identity\(\) with parentheses"):
        registry.register("my_op", rules.Identity)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected the name of an operator or kind"):
        registry.register(nn.GELU(), "activation")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="names modules of one model"):
        registry.register(ModuleName("head"), "activation")
    with pytest.raises(UnknownNameError, match="Did you mean 'gelu'"):
        ATTN_LRP.with_rules({"gelo": rules.Detach()})
    with pytest.raises(UnknownNameError, match=r"registry.register\('erfinvert'"):
        with registry.override({"erfinvert": rules.Detach()}):
            pass
    with pytest.raises(UnknownNameError, match="not registered"):
        registry.unregister("nothing_like_it")


def test_precedence_from_names_to_kinds() -> None:
    model = nn.Sequential(nn.GELU(), nn.GELU(), nn.SiLU(), nn.Linear(3, 2)).double()

    def rule_of(**rows: Any) -> list[str]:
        trace = TransformerLRP(model, **rows).trace(X, target=0)
        return [r.rule for r in trace if r.operator.lower() in ("gelu", "silu")]

    identity, plain = "Identity()", "PlainGradient()"
    assert rule_of() == [identity] * 3
    assert rule_of(rules={"activation": rules.PlainGradient()}) == [plain] * 3
    assert rule_of(rules={"gelu": rules.PlainGradient()}) == [plain, plain, identity]
    assert rule_of(
        rules={"gelu": rules.PlainGradient(), nn.GELU: rules.Identity()}
    ) == [identity, identity, identity]
    assert rule_of(
        rules={nn.GELU: rules.Identity(), ModuleName("1"): rules.PlainGradient()}
    ) == [identity, plain, identity]


def test_module_names_are_patterns_within_one_model() -> None:
    model = nn.Sequential(net(), nn.GELU(), nn.Linear(2, 2).double())
    found = TransformerLRP(model, rules={ModuleName("?.1"): rules.Identity()}).trace(
        X, target=0
    )
    assert [r.operator for r in found if r.module == "0.1"] == ["SpelledOut"]
    # the same by a function of the model, which has no names of its own
    by_function = TransformerLRP(
        lambda x: model(x), rules={ModuleName("0.1"): rules.Identity()}
    ).trace(X, target=0)
    assert [r.operator for r in by_function] == [r.operator for r in found]


def test_override_is_for_a_while_for_this_thread_and_for_all_composites() -> None:
    def model(x: Tensor) -> Tensor:
        return (x.softmax(-1) * x).sum(1)

    plain, detached = AttnLRP(model).attribute(X), CPLRP(model).attribute(X)
    elsewhere: list[Tensor] = []
    with registry.override({"softmax": rules.Detach()}):
        assert torch.allclose(AttnLRP(model).attribute(X), detached)
        with registry.override({"softmax": rules.PlainGradient()}):
            assert torch.allclose(AttnLRP(model).attribute(X), plain)
        assert torch.allclose(AttnLRP(model).attribute(X), detached)
        thread = threading.Thread(
            target=lambda: elsewhere.append(AttnLRP(model).attribute(X))
        )
        thread.start()
        thread.join()
    assert torch.equal(elsewhere[0], plain)
    assert torch.equal(AttnLRP(model).attribute(X), plain)
    with pytest.raises(KeyError):
        with registry.override({"softmax": rules.Detach()}):
            raise KeyError
    assert torch.equal(AttnLRP(model).attribute(X), plain)


def test_everything_prints() -> None:
    assert "gelu" in repr(registry) and "activation: elementwise" in repr(registry)
    for composite in COMPOSITES.values():
        assert composite.name in str(composite)
        assert all(repr(row) in str(composite) for row in composite.rows.values())
    assert repr(ModuleName("a.*")) == "ModuleName('a.*')"
    assert "Linear" in repr(AttnLRP(nn.Linear(2, 2)))
    assert len(str(ATTN_LRP).splitlines()) < 25, "a method fits on one screen"


def test_a_composite_of_ones_own() -> None:
    composite = Composite(
        "Everything plain but gelu",
        {"gelu": rules.Detach(), "additive": rules.PlainGradient(),
         "product": rules.PlainGradient(), "structural": rules.PlainGradient()},
    )  # fmt: skip

    def model(x: Tensor) -> Tensor:
        return (functional.gelu(x) * x).sum(1)

    found = TransformerLRP(model, composite=composite).attribute(X)
    assert torch.allclose(found, functional.gelu(X) * X)


def test_a_module_rule_that_does_not_fit_says_so() -> None:
    with pytest.raises(RuleError, match=r"Identity\(\) was given to Linear.*\(2, 3\)"):
        TransformerLRP(net(), rules={nn.Linear: rules.Identity()}).attribute(
            X, target=0
        )


def test_registries_are_independent() -> None:
    mine = Registry()
    mine.register("gelu", "activation")
    assert "gelu" in mine and "silu" not in mine


# -------------------------------------------- activations that are named by their class

#: as their operators are seen: the others are functions with a backward of their own,
#: or (LaplaceActivation) no function of one tensor that two operators meet in
SEEN_IN_PIECES = [
    name
    for name in COMPOSED_ACTIVATIONS
    if not name.endswith(("Me", "BloomGelu", "LaplaceActivation"))
]
ARGUMENTS: dict[str, dict[str, Any]] = {
    "ClippedGELUActivation": {"min": -10, "max": 10},
    "XIELUActivation": {"dtype": torch.float64},
}


class Gated(nn.Module):
    """Two branches of a feed-forward layer, and an activation as a gate of one."""

    def __init__(self, activation: nn.Module, *, called: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(3, 8), nn.Linear(3, 8)
        self.last = nn.Linear(8, 4)
        self.activation = activation
        self.called = called

    def forward(self, x: Tensor) -> Tensor:
        act = self.activation if self.called else self.activation.forward
        one, two = self.one(x), self.two(x)
        scores: Tensor = self.last(act(one) * two + act(two))
        return scores


@pytest.mark.parametrize("name", SEEN_IN_PIECES)
@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp", "epsilon", "gamma"])
@pytest.mark.filterwarnings("ignore")
def test_an_activation_is_the_same_in_one_piece_and_in_many(
    name: str, composite: str
) -> None:
    module, _, cls = name.rpartition(".")
    pytest.importorskip(module.partition(".")[0])
    make = getattr(importlib.import_module(module), cls)
    activation = make(**ARGUMENTS.get(cls, {}))
    whole, pieces = (
        TransformerLRP(
            Gated(activation, called=called).double().eval(), composite=composite
        ).attribute(X, target=1)
        for called in (True, False)
    )
    assert (whole - pieces).abs().max() <= 1e-12 * whole.abs().max()
