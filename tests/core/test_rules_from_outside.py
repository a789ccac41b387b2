"""Rules as a stranger writes them: four lines, and nothing but ``__call__``.

The model has one function, between linear layers without a bias. AttnLRP's relevance of
its inputs is then input times torch's gradient, and half of it where a rule halves what
the function hands on: torch alone is the oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import (
    AttnLRP,
    Composite,
    ModuleName,
    TransformerLRP,
    check,
    registry,
    rules,
)
from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from captum_transformer_lrp.core.call import Call
from captum_transformer_lrp.core.gradients import scale_output_gradient
from captum_transformer_lrp.core.rules.base import Rule
from captum_transformer_lrp.errors import (
    DisconnectedError,
    LRPError,
    ModelStateError,
    RuleError,
    UnknownOperatorError,
)
from tests.helpers import relative

TARGET = 1


class Halved(Rule):
    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(call.run(), 0.5)


class HalvedRelevance(rules.CarriedRule):
    def __call__(self, call: Call) -> Any:
        (x,) = call.args
        return call.switch(call.run(), lambda relevance: [relevance / 2], x)


class Even(Rule):
    """``R_in = R_out``, from the value alone."""

    def __call__(self, call: Call) -> Any:
        x = call.args[0]
        return x * (call.value() / x).detach()


class Own(nn.Module):
    """A module of the stranger's, of two operators."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.linear(x)
        return hidden.tanh()


class Net(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 4, bias=False)
        self.function = function
        self.last = nn.Linear(4, 2, bias=False)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.function(self.first(x)))
        return scores


X = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).double()


def torchs_own(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Input times gradient, by torch alone."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x)[:, TARGET].sum(), x)
    return gradient * x.detach()


#: what the rule is given to, and the function of the model that is meant
PLACES: dict[str, tuple[Any, Callable[[], Callable[[Tensor], Tensor]]]] = {
    "operator": ("tanh", lambda: torch.tanh),
    "operator in place": ("relu", lambda: lambda x: functional.relu(x, inplace=True)),
    "kind": ("activation", lambda: functional.silu),
    "module of torch": (nn.GELU, nn.GELU),
    "module by name": (ModuleName("function"), nn.Softplus),
    "module of two operators": (Own, Own),
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> tuple[Any, Net]:
    key, function = PLACES[request.param]
    return key, Net(function())


@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp"])
def test_nothing_but_call_in_a_plain_table(
    place: tuple[Any, Net], composite: str
) -> None:
    key, net = place
    found = TransformerLRP(net, composite, rules={key: Halved()}).attribute(X, TARGET)
    assert relative(found, torchs_own(net, X) / 2) < 1e-13


def test_elements_of_one_tensor_share_by_a_row_of_the_operator_too():
    index = torch.tensor([[0, 0, 1, 1, 1]]).expand(2, -1)

    def model(x):
        ones = torch.ones(2, 2, dtype=x.dtype)
        return ones.scatter_reduce(1, index, x, "prod", include_self=False)

    x = torch.rand(2, 5, dtype=torch.float64) + 0.5
    for row in ({}, {"scatter_reduce": rules.UniformProduct()}):
        for target, share in ((0, 1 / 2), (1, 1 / 3)):
            relevance = AttnLRP(model, rules=row).attribute(x, target=target)
            expected = share * model(x)[:, target, None] * (index == target)
            assert torch.allclose(relevance, expected)


def test_nothing_but_call_in_a_table_that_is_converted(place: tuple[Any, Net]) -> None:
    """With the flat rule at the input, every input has a third of what arrives."""
    key, net = place
    table = {key: Halved(), ModuleName("first"): rules.Flat(epsilon=1e-15)}
    found = TransformerLRP(net, "attnlrp", rules=table).attribute(X, TARGET)
    hidden = net.first(X).detach()
    arrived = torchs_own(lambda h: net.last(net.function(h.clone())), hidden) / 2
    assert relative(found, arrived.sum(1, keepdim=True).expand(2, 3) / 3) < 1e-12


def test_nothing_but_call_beside_torchs_gradient_is_refused(
    place: tuple[Any, Net],
) -> None:
    key, net = place
    table = TRANSFORMER_ATTRIBUTION.with_rules({key: Halved()})
    with pytest.raises(RuleError, match=r"Halved\(\), for .* makes a gradient that is"):
        TransformerLRP(net, table).attribute(X, TARGET)
    with registry.override({key: Halved()}), pytest.raises(RuleError, match="R / x"):
        TransformerLRP(net, TRANSFORMER_ATTRIBUTION).attribute(X, TARGET)


@pytest.mark.parametrize("composite", ["attnlrp", TRANSFORMER_ATTRIBUTION])
def test_a_rule_that_says_relevance_itself_stands_in_every_table(
    place: tuple[Any, Net], composite: Any
) -> None:
    key, net = place
    if key is Own:  # there the function is two operators, and the rule is for one
        key = "tanh"
    found, whole = (
        TransformerLRP(net, composite, rules={key: rule}).attribute(X, TARGET)
        for rule in (HalvedRelevance(), rules.PassOn())
    )
    assert relative(found, whole / 2) < 1e-12
    assert float(whole.abs().max()) > 1e-2


def test_plain_gradient_on_a_module_beside_torchs_gradient() -> None:
    """It is linear: relevance goes by contribution, ``x_i sum_j w_ji R_j / z_j``."""
    net = Net(nn.Identity())
    table = {ModuleName("first"): rules.PlainGradient()}
    found = TransformerLRP(net, TRANSFORMER_ATTRIBUTION, rules=table)
    relevance = found.attribute(X, TARGET)
    with torch.no_grad():
        hidden, weights = net.first(X), net.last.weight[TARGET]
        parts = (weights * hidden).clamp(min=0)  # z+, of the layer behind
        arrived = parts / parts.sum(1, keepdim=True)
        expected = torch.zeros_like(X)
        for n in range(2):
            for i in range(3):
                for j in range(4):
                    share = X[n, i] * net.first.weight[j, i] / hidden[n, j]
                    expected[n, i] += share * arrived[n, j]
    assert relative(relevance, expected) < 1e-12


class Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b.roll(1, -1)


def test_a_module_is_given_a_tensor_and_what_was_made_of_it() -> None:
    """Beside torch's gradient too, what it hands on is no more than it received."""
    both = Sum()
    net = Net()
    net.function = nn.Sequential()  # so that Sum is part of the model
    net.function.add_module("both", both)
    net.function.forward = lambda h: both(h, h.tanh())  # type: ignore[method-assign]
    explainer = TransformerLRP(
        net, TRANSFORMER_ATTRIBUTION, rules={Sum: rules.PlainGradient()}
    )
    total = explainer.attribute(X, TARGET).sum(1)
    assert relative(total, torch.ones(2).double()) < 1e-12


@dataclass(frozen=True, kw_only=True)
class Less(rules.PlainGradient):
    share: float = 0.5

    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(super().__call__(call), self.share)


class LessOfProducts(rules.UniformProduct):
    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(super().__call__(call), 0.5)


class LessOfGates(rules.GatedProduct):
    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(super().__call__(call), 0.5)


class LessOfFunctions(rules.Identity):
    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(super().__call__(call), 0.5)


@pytest.mark.parametrize(
    ("key", "rule", "times"),
    [
        ("linear", Less(), 2),
        ("product", LessOfProducts(), 2),
        ("product", LessOfGates(), 2),
        ("tanh", Less(share=0.25), 2),
    ],
    ids=str,
)
def test_a_subclass_of_a_rule_of_ours_is_asked(
    key: str, rule: Rule, times: int
) -> None:
    """Rules that are torch's own gradient need not be asked, rules like them do."""
    net = Net()
    table = {"tanh": rules.PlainGradient(), key: rule}
    found = TransformerLRP(net, "attnlrp", rules=table).attribute(X, TARGET)
    assert relative(found, torchs_own(net, X) / 2**times) < 1e-13


def test_a_subclass_of_the_identity_is_asked_where_a_function_is_written_out() -> None:
    """``x * (1 + tanh(x))`` is one function if relevance passes it, else three.

    Half goes to x, and half to the sum, of which the 1 takes its share and the tanh
    hands on half of its own.
    """
    net = Net(lambda x: x * (1 + torch.tanh(x)))
    table = {"activation": LessOfFunctions()}
    found = TransformerLRP(net, "attnlrp", rules=table).attribute(X, TARGET)
    with torch.no_grad():
        hidden = net.first(X)
        each = 0.5 * (1 + hidden.tanh()) + 0.5 * 0.5 * hidden.tanh()
        expected = X * ((each * net.last.weight[TARGET]) @ net.first.weight)
    assert relative(found, expected) < 1e-13


class OfActivations(Halved):
    kinds = frozenset({"activation"})


def test_a_rule_names_the_kinds_that_it_takes_inside_a_module() -> None:
    net = Net(Own())
    assert isinstance(net.function, Own)
    table = {Own: OfActivations(), "linear": Less(share=1.0)}
    found = TransformerLRP(net, "attnlrp", rules=table).attribute(X, TARGET)
    assert relative(found, torchs_own(net, X) / 2) < 1e-13
    trace = TransformerLRP(net, "attnlrp", rules=table).trace(X, TARGET)
    ruled = {r.operator: r.rule for r in trace.records if r.module == "function"}
    assert ruled == {"tanh": "OfActivations()"}


class Cutting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() + x.detach()


class OfFunctions(LessOfFunctions):
    kinds = frozenset({"activation"})


def test_what_a_module_cuts_is_told_where_a_rule_takes_its_operators() -> None:
    explainer = AttnLRP(Net(Cutting()), rules={Cutting: OfFunctions()})
    (cut,) = explainer.trace(X, TARGET).cuts
    assert (cut.module, cut.operator) == ("function", "detach")


class Constant(Halved):
    inside = "constant"


class Nothing(Rule):
    def __call__(self, call: Call) -> Any:
        call.run()


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.tanh(), x


class First(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        first: Tensor = self.pair(x)[0]
        return first


def test_what_goes_wrong_in_a_rule_is_said() -> None:
    with pytest.raises(RuleError, match=r"inside = \"constant\" asked GELU for an out"):
        AttnLRP(Net(nn.GELU()), rules={nn.GELU: Constant()}).attribute(X, TARGET)
    for key in ("tanh", nn.Tanh):
        with pytest.raises(RuleError, match=r"Nothing\(\) returned None for '[tT]anh'"):
            AttnLRP(Net(nn.Tanh()), rules={key: Nothing()}).attribute(X, TARGET)
    with pytest.raises(RuleError, match="was given a tuple; expected a tensor"):
        AttnLRP(Net(First()), rules={Pair: Halved()}).attribute(X, TARGET)


@pytest.mark.parametrize(
    "rule",
    [rules.UniformAttention(), rules.ConstantPattern(), rules.DecomposedAttention()],
    ids=str,
)
@pytest.mark.parametrize("key", ["tanh", "activation", nn.Tanh], ids=str)
def test_rules_for_attention_refuse_what_is_none(rule: Rule, key: Any) -> None:
    with pytest.raises(RuleError, match="expected an operator of the kind 'attention'"):
        AttnLRP(Net(nn.Tanh()), rules={key: rule}).attribute(X, TARGET)


@pytest.mark.parametrize("key", ["tanh", "activation", nn.Tanh], ids=str)
def test_the_rule_for_powers_refuses_what_is_none(key: Any) -> None:
    with pytest.raises(RuleError, match="which has no exponent; expected 'pow' or"):
        AttnLRP(Net(nn.Tanh()), rules={key: rules.Power()}).attribute(X, TARGET)


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("inside", "operators", r'kinds = frozenset\(\{"product"\}\)'),
        ("form", "relevance", "Derive from CarriedRule"),
        ("form", "elementwise", "Derive from ElementwiseRule"),
        ("form", "either", "Derive from DelegatingRule"),
    ],
)
def test_class_variables_that_rules_once_had(
    name: str, value: str, instead: str
) -> None:
    with pytest.raises(TypeError, match=f"the rule Old says {name} = '{value}'.*"):
        type("Old", (Halved,), {name: value})
    with pytest.raises(TypeError, match=instead):
        type("Old", (Halved,), {name: value})


def test_class_variables_that_say_what_holds_anyway() -> None:
    """Rules for earlier versions say ``inside = "gradient"``, which still holds."""
    said = {"inside": "gradient", "form": "gradient", "plain_for_one": False}
    old: Rule = type("Old", (Halved,), said)()
    net = Net(Own())
    found = AttnLRP(net, rules={Own: old}).attribute(X, TARGET)
    assert relative(found, torchs_own(net, X) / 2) < 1e-13


class Cut(Rule):
    def __call__(self, call: Call) -> Any:
        return call.value()


class Beside(nn.Module):
    """Reads what it was not given."""

    side: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() * self.side


class Reads(Net):
    def __init__(self, *, upstream: bool) -> None:
        super().__init__()
        self.beside, self.upstream = Beside(), upstream

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        self.beside.side = hidden if self.upstream else hidden.relu()
        scores: Tensor = self.last(self.beside(hidden.exp()))
        return scores


@pytest.mark.parametrize("upstream", [True, False])
def test_a_module_that_reads_more_than_its_arguments(upstream: bool) -> None:
    """Torch's gradient reaches all that is read; a rule of the value does not."""
    net = Reads(upstream=upstream)
    table = {Beside: rules.PlainGradient(), "exp": rules.PlainGradient()}
    table["relu"] = rules.PlainGradient()
    found = AttnLRP(net, rules=table).attribute(X, TARGET)
    assert relative(found, torchs_own(net, X)) < 1e-13
    message = "the module 'beside' is treated as one operator, and inside it mul reads"
    for rule in (Even(), HalvedRelevance()):
        with pytest.raises(ModelStateError, match=message):
            AttnLRP(net, rules={**table, Beside: rule}).attribute(X, TARGET)
    with pytest.raises(DisconnectedError):  # a constant, by its rule
        AttnLRP(net, rules={**table, Beside: Cut()}).attribute(X, TARGET)


def test_a_trace_tells_of_a_strangers_rule() -> None:
    for key in ("tanh", nn.Tanh):
        net = Net(nn.Tanh())
        table = {key: Halved(), "activation": rules.PlainGradient()}
        trace = AttnLRP(net, rules=table).trace(X, TARGET)
        (record,) = (r for r in trace.records if r.rule == "Halved()")
        assert record.operator == ("tanh" if key == "tanh" else "Tanh")
    assert check(Net(), X, TARGET, rules={"tanh": Even()}).passed


@dataclass(frozen=True, kw_only=True)
class OfShares(Halved):
    shares: Any = (0.5, 0.5)


def test_a_rule_that_cannot_be_looked_up_is_refused() -> None:
    AttnLRP(Net(), rules={"tanh": OfShares()}).attribute(X, TARGET)
    message = r"the rule for 'tanh' is OfShares\(.*unhashable type: 'list'; expected a"
    with pytest.raises(TypeError, match=message):
        AttnLRP(Net(), rules={"tanh": OfShares(shares=[0.5, 0.5])})
    with pytest.raises(TypeError, match=message):
        registry.register("tanh", OfShares(shares=[0.5, 0.5]), replace=True)


def test_a_composite_of_strangers_rules_alone() -> None:
    table = Composite(
        "halves", dict.fromkeys(("product", "activation", "structural"), Halved())
    )
    found = TransformerLRP(Net(), table).attribute(X, TARGET)
    assert relative(found, torchs_own(Net(), X) / 8) < 1e-13


# -------------------------------------------------------------- rules that do not fit


class Inner(nn.Module):
    """A part of a model that a row may name."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Around(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(4, 4), Inner(function)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(self.first(x))
        y = y["a"] if isinstance(y, dict) else y[0] if isinstance(y, tuple) else y
        return y.reshape(len(x), -1)[:, :2].cos()


FACTOR = torch.randn(4, 4, generator=torch.Generator().manual_seed(3)).double()
OPERATORS: dict[str, Callable[[Tensor], Any]] = {
    "mul": lambda h: h * h.flip(1),
    "matmul": lambda h: h @ FACTOR,
    "add": lambda h: h + h.flip(1),
    "sum": lambda h: h.sum(1, keepdim=True),
    "div": lambda h: h / (h.abs().sum(1, keepdim=True) + 1),
    "pow": lambda h: h**2,
    "exp": lambda h: h.exp(),
    "tanh": lambda h: h.tanh(),
    "softmax": lambda h: h.softmax(-1),
    "layer_norm": lambda h: functional.layer_norm(h, (4,)),
    "reshape": lambda h: h.reshape(-1, 2, 2),
    "cat": lambda h: torch.cat([h, h], 1),
    "split": lambda h: h.split(2, 1),
    "getitem": lambda h: h[:, 1:3],
    "max": lambda h: h.max(1),
    "rsqrt": lambda h: (h * h + 1).rsqrt(),
    "std_mean": lambda h: torch.std_mean(h, 1),
    "prod": lambda h: h.prod(1),
    "scaled_dot_product_attention": lambda h: functional.scaled_dot_product_attention(
        h[:, None], h[:, None], h[:, None]
    ),
    "of a dictionary": lambda h: {"a": h * 2, "b": h},
    "of two": lambda h: (h * 2, h @ FACTOR),
}
ALL_RULES = [
    *(
        getattr(rules, name)()
        for name in (
            "Absorb AlphaBeta ConstantDenominator ConstantFactor ConstantPattern "
            "ConstantScale ConstantScan DecomposedAttention Detach Epsilon Flat Gamma "
            "GatedProduct HalfGradient Identity PassOn PlainGradient PositiveProduct "
            "PositiveSum Power ProportionalSum UniformAttention UniformProduct "
            "UniformScan WSquare ZBox ZPlus"
        ).split()
    ),
    rules.ByExponent(powers=rules.Identity(), exponentials=rules.Detach()),
    rules.AtInput(rule=rules.Flat(), otherwise=rules.UniformProduct()),
]


@pytest.mark.parametrize(
    "composite", ["attnlrp", TRANSFORMER_ATTRIBUTION], ids=["R over x", "R"]
)
@pytest.mark.parametrize("rule", ALL_RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.filterwarnings("ignore::captum_transformer_lrp.errors.NotFiniteWarning")
def test_a_rule_that_does_not_fit_says_so_and_nothing_else_is_raised(
    rule: Any, composite: Any
) -> None:
    """Given to any operator or module, a rule gives a map, or an error by name."""
    torch.manual_seed(0)
    for name, function in OPERATORS.items():
        net, x = Around(function).double(), torch.randn(2, 4).double()
        for key in [Inner, *([] if " " in name else [name])]:
            method = TransformerLRP(net, composite, rules={key: rule})
            try:
                found = method.attribute(x, target=0)
            except LRPError:
                continue  # it does not fit, or no relevance arrives anywhere
            else:
                assert found.shape == x.shape


class Fails(rules.Rule):
    """A rule with a mistake in it."""

    def __call__(self, call: Any) -> Any:
        return call.run().reshape(7)


@pytest.mark.parametrize("write", [lambda h: h * FACTOR[0], lambda h: h.mul(FACTOR[0])])
def test_a_rule_that_fails_is_named_however_its_operator_is_written(write: Any) -> None:
    """Python takes a TypeError out of ``a * b`` for an operator that is not there."""
    net, x = Around(write).double(), torch.randn(2, 4).double()
    message = (
        r"\(\) was given to the operator 'mul', which it does not fit: RuntimeError"
    )
    with pytest.raises(RuleError, match=message) as caught:
        AttnLRP(net, rules={"mul": Fails()}).attribute(x, target=1)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert not isinstance(caught.value, TypeError)
    with pytest.raises(RuleError, match="expected a sum of two: add, rsub, sub"):
        AttnLRP(net, rules={"mul": rules.ProportionalSum()}).attribute(x, target=1)


def test_an_error_of_the_models_own_stays_as_it_is() -> None:
    net, x = Around(lambda h: h * FACTOR[:3, 0]).double(), torch.randn(2, 4).double()
    with pytest.raises(RuntimeError, match="must match the size of tensor b"):
        AttnLRP(net, rules={"mul": Fails()}).attribute(x, target=1)


class FailsBackward(rules.CarriedRule):
    """A rule whose mistake shows on the way back."""

    def __call__(self, call: Any) -> Any:
        (x,) = call.args
        return call.switch(call.run(), lambda relevance: [relevance.reshape(7)], x)


class OnAliases(rules.CarriedRule):
    """Works on aliases of its arguments, as a converted rule does."""

    def __call__(self, call: Any) -> Any:
        twin, operands = call.aliased()
        return twin.switch(
            twin.run(), lambda relevance: [relevance.reshape(7)], *operands
        )


def test_a_rule_that_works_on_aliases_is_named_too() -> None:
    net, x = Around(torch.tanh).double(), torch.randn(2, 4).double()
    with pytest.raises(RuleError, match=r"^OnAliases\(\) was given to"):
        AttnLRP(net, rules={"tanh": OnAliases()}).attribute(x, target=1)


class Declines(rules.Rule):
    """A rule that has nothing to say."""

    def __call__(self, call: Any) -> Any:
        return NotImplemented


def test_a_rule_may_have_nothing_to_say_of_an_operator_but_not_of_a_module() -> None:
    net, x = Around(torch.tanh).double(), torch.randn(2, 4).double()
    with pytest.raises(UnknownOperatorError, match="tanh  in inner"):
        AttnLRP(net, rules={"tanh": Declines()}).attribute(x, target=1)
    with pytest.raises(RuleError, match="returned NotImplemented for 'Inner'"):
        AttnLRP(net, rules={Inner: Declines()}).attribute(x, target=1)


def test_a_rule_that_fails_on_the_way_back_is_named() -> None:
    net, x = Around(torch.tanh).double(), torch.randn(2, 4).double()
    message = "was given to the operator 'tanh', which it does not fit"
    with pytest.raises(RuleError, match=message):
        AttnLRP(net, rules={"tanh": FailsBackward()}).attribute(x, target=1)
