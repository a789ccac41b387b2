"""What Captum and its callers expect of an attribution, for every public class."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from captum.attr import (
    LRP,
    Attribution,
    GradientAttribution,
    InputXGradient,
    LayerAttribution,
    LayerGradientXActivation,
    LayerLRP,
    NeuronAttribution,
    NeuronGradient,
    PerturbationAttribution,
)
from torch import Tensor, nn

import captum_transformer_lrp
from captum_transformer_lrp import (
    CPLRP,
    METHODS,
    AttentionAttribution,
    AttnLRP,
    CaptumLRP,
    DiffMask,
    EpsilonLRP,
    GradientXInput,
    LayerAttnLRP,
    LayerCaptumLRP,
    LayerCPLRP,
    LayerTransformerLRP,
    LLMTransformerLRP,
    NeuronTransformerLRP,
    PairLRP,
    TransformerLRP,
)
from tests.helpers import assert_same_state, relative, state_of, tiny

#: every public class that is made of a model (and, for some, a layer)
PUBLIC: list[Any] = [
    value
    for name in captum_transformer_lrp.__all__
    if inspect.isclass(value := getattr(captum_transformer_lrp, name))
    and issubclass(value, Attribution)
    and value is not AttentionAttribution  # a base
    and value is not LLMTransformerLRP  # explains prompts: see tests/language
    and value is not PairLRP  # explains two inputs, no target: see test_pair_lrp.py
]
ATTENTION = [c for c in PUBLIC if issubclass(c, AttentionAttribution)]
LAYER = [c for c in PUBLIC if issubclass(c, LayerAttribution)]
NEURON = [c for c in PUBLIC if issubclass(c, NeuronAttribution)]
#: relevance of the inputs, of their shape
WHOLE = [
    c
    for c in PUBLIC
    if issubclass(c, TransformerLRP) and c not in LAYER and c not in NEURON
]
RELEVANCE = [*WHOLE, *LAYER, *NEURON]


def model() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 3))
        .double()
        .eval()
    )


def make(cls: Any, net: Any) -> Any:
    """An explainer as its simplest call makes it."""
    return cls(net, net[1]) if cls in LAYER or cls in NEURON else cls(net)


def explained(cls: Any) -> dict[str, Any]:
    """What says which score is explained."""
    return {"neuron_selector": 2} if cls in NEURON else {"target": 1}


X = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()


def test_all_classes_are_covered() -> None:
    """A new public class has to be of a kind whose contract is checked here."""
    assert len(LAYER) >= 3 and len(NEURON) >= 3 and len(ATTENTION) == 9
    assert set(PUBLIC) == {*RELEVANCE, *ATTENTION, DiffMask}
    assert {c for c in METHODS.values() if issubclass(c, TransformerLRP)} < set(WHOLE)


@pytest.mark.parametrize("cls", PUBLIC)
def test_class_contract(cls: Any) -> None:
    """What Captum's callers ask a class, before and after it is made."""
    base = PerturbationAttribution if cls is DiffMask else GradientAttribution
    assert issubclass(cls, base)
    assert hasattr(cls.attribute, "__wrapped__"), "log_usage is missing"
    assert "L R P" not in cls.get_name() and cls.get_name() == cls.get_name().strip()
    attribution = make(cls, model())
    assert attribution.get_name() == cls.get_name()
    times_inputs = cls in RELEVANCE
    assert attribution.multiplies_by_inputs is times_inputs
    assert attribution.has_convergence_delta() is times_inputs
    parameters = inspect.signature(cls.attribute.__wrapped__).parameters
    assert ("return_convergence_delta" in parameters) is times_inputs
    assert list(parameters)[:2] == ["self", "inputs"]
    assert "additional_forward_args" in parameters
    required = [
        name
        for name, p in parameters.items()
        if p.default is p.empty and name not in ("self", "inputs")
    ]
    assert required == (["neuron_selector"] if cls in NEURON else [])
    with pytest.raises(NotImplementedError, match="call attribute"):
        attribution.attribute_future()
    assert cls.__doc__ and len(cls.__doc__.splitlines()[0]) > 20


def test_names_are_unique() -> None:
    """Captum Insights keeps methods by name."""
    names = [cls.get_name() for cls in PUBLIC]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("cls", "captums"),
    [
        (TransformerLRP, LRP),
        (LayerTransformerLRP, LayerLRP),
        (NeuronTransformerLRP, NeuronGradient),
    ],
)
def test_positional_arguments_are_captums(cls: Any, captums: Any) -> None:
    ours = list(inspect.signature(cls.attribute.__wrapped__).parameters)
    theirs = list(inspect.signature(inspect.unwrap(captums.attribute)).parameters)
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("cls", [*WHOLE, *LAYER])
def test_unwrapped_call_as_insights_makes_it(cls: Any) -> None:
    attribution = make(cls, model())
    found = cls.attribute.__wrapped__(
        attribution, (X,), additional_forward_args=None, target=1
    )
    expected = attribution.attribute((X,), target=1)
    found = found if isinstance(found, tuple) else (found,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("cls", RELEVANCE)
def test_attributions_are_detached_and_inputs_untouched(cls: Any) -> None:
    net, x = model(), X.clone()
    explainer, before = make(cls, net), state_of(net)
    with torch.no_grad():
        found = explainer.attribute(x, **explained(cls))
    assert found.grad_fn is None and not found.requires_grad
    assert torch.equal(x, X) and not x.requires_grad and x.grad is None
    again = explainer.attribute(x.requires_grad_(), **explained(cls))
    assert torch.equal(again, found) and x.requires_grad and x.grad is None
    attribution, delta = explainer.attribute(
        X, **explained(cls), return_convergence_delta=True
    )
    score = net[:2](X)[:, 2] if cls in NEURON else net(X)[:, 1]
    assert delta.shape == (2,)
    assert torch.allclose(delta, (score - attribution.flatten(1).sum(1)).detach())
    assert_same_state(before, state_of(net))


@pytest.mark.parametrize("cls", WHOLE)
def test_forms_of_inputs_and_outputs(cls: Any) -> None:
    explainer = cls(model())
    single = explainer.attribute(X, target=1)
    assert isinstance(single, Tensor) and single.shape == X.shape
    assert not single.requires_grad and single.grad_fn is None
    (of_tuple,) = explainer.attribute((X,), target=1)
    assert torch.equal(of_tuple, single)
    two = cls(lambda a, b: a * 2 + b).attribute((X, X), target=2)
    assert isinstance(two, tuple) and len(two) == 2
    with_delta = explainer.attribute(X, target=1, return_convergence_delta=True)
    attribution, delta = with_delta
    output = model()(X)[:, 1]
    assert torch.allclose(delta, output - attribution.sum(1))
    assert delta.shape == (2,)
    assert torch.allclose(
        explainer.compute_convergence_delta((attribution,), output), delta
    )


@pytest.mark.parametrize("cls", WHOLE)
def test_additional_forward_args(cls: Any) -> None:
    net = model()

    def forward(x: Tensor, factor: Any, flag: bool) -> Tensor:
        assert flag
        return net(x) * factor

    factor = torch.full((1,), 3.0, dtype=torch.float64, requires_grad=True)
    found = cls(forward).attribute(X, target=1, additional_forward_args=(factor, True))
    tolerance = 1e-4 if cls is EpsilonLRP else 1e-12  # its stabiliser has a scale
    assert relative(found, 3 * cls(net).attribute(X, target=1)) < tolerance


TARGETS = [
    1,
    torch.tensor(1),
    torch.tensor([1, 1]),
    [1, 1],
    (1,),
    [(1,), (1,)],
    -2,
]


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_targets_as_captum_takes_them(target: Any) -> None:
    net = model()
    expected = GradientXInput(net).attribute(X, target=1)
    assert torch.equal(GradientXInput(net).attribute(X, target=target), expected)
    captums = InputXGradient(net).attribute(X.clone().requires_grad_(), target=target)
    assert torch.equal(captums, expected)


def test_targets_of_language_models() -> None:
    net = tiny()

    def per_token(x: Tensor) -> Tensor:
        return net.head(net.blocks[0](x))

    x = torch.randn(2, 5, 8).double()
    one = AttnLRP(per_token).attribute(x, target=(-1, 2))
    listed = AttnLRP(per_token).attribute(x, target=[(-1, 2), (4, 2)])
    assert torch.equal(one, listed)


def test_verbose_prints_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    AttnLRP(model()).attribute(X, target=1, verbose=True)
    printed = capsys.readouterr().out
    assert "Identity()" in printed and "conservation error" in printed


# ------------------------------------------------------------------------------ layers


@pytest.mark.parametrize("cls", LAYER)
def test_layer_equals_the_model_that_starts_there(cls: Any) -> None:
    net = model()
    wholes: dict[Any, Any] = {
        LayerAttnLRP: AttnLRP,
        LayerCPLRP: CPLRP,
        LayerCaptumLRP: CaptumLRP,
    }
    whole = wholes.get(cls, TransformerLRP)
    hidden = net[1](net[0](X)).detach()
    expected = whole(net[2:]).attribute(hidden, target=1)
    assert relative(cls(net, net[1]).attribute(X, target=1), expected) < 1e-12
    at_input = cls(net, net[2]).attribute(X, target=1, attribute_to_layer_input=True)
    assert relative(at_input, expected) < 1e-12
    several, deltas = cls(net, [net[0], net[1]]).attribute(
        X, target=1, return_convergence_delta=True
    )
    assert isinstance(several, list) and relative(several[1], expected) < 1e-12
    assert torch.allclose(deltas[1], net(X)[:, 1] - expected.sum(1))


def test_layer_gradient_equals_captums() -> None:
    net = model()
    ours = LayerTransformerLRP(net, net[1], composite="gradient-x-input")
    theirs = LayerGradientXActivation(net, net[1])
    assert torch.equal(
        ours.attribute(X, target=1),
        theirs.attribute(X.clone().requires_grad_(), target=1),
    )


class Pair(nn.Module):
    """Returns a tuple with None in it, called by keyword only."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4).double()

    def forward(self, *, hidden: Tensor, mask: None = None) -> tuple[Tensor, None]:
        return self.linear(hidden), None


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, x: Tensor) -> Tensor:
        out, _ = self.pair(hidden=x)
        return out + x


def test_layers_that_return_none_and_take_keywords() -> None:
    net = Around()
    relevance, nothing = LayerAttnLRP(net, net.pair).attribute(X, target=1)
    assert nothing is None and relevance.shape == X.shape
    at_input = LayerAttnLRP(net, net.pair).attribute(
        X, target=1, attribute_to_layer_input=True
    )
    # only what goes through the layer, not the residual branch around it
    assert torch.allclose(at_input.sum(1), X @ net.pair.linear.weight[1])
    assert not net.pair._forward_pre_hooks and not net.pair._forward_hooks


def test_layers_from_identifiers() -> None:
    net = tiny()
    ids = torch.tensor([[3, 1, 4]])
    first, last = LayerCPLRP(net, [net.embedding, net.head]).attribute(ids, target=1)
    assert torch.allclose(first.sum(-1), CPLRP(net).attribute(ids, target=1))
    assert first.shape == (1, 3, 8) and last.shape == (1, 3)


def test_layer_that_returns_its_input() -> None:
    """What else reads the same tensor is not the layer's."""
    net = Around()
    net.pair = nn.Identity()  # type: ignore[assignment]

    def forward(x: Tensor) -> Tensor:
        return 2 * net.pair(x) + x

    found = LayerAttnLRP(forward, net.pair).attribute(X, target=1)
    assert torch.allclose(found.sum(1), 2 * X[:, 1])


def test_layers_need_no_way_back_to_the_inputs() -> None:
    class Barred(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            out.register_hook(lambda _: pytest.fail("went below the layer"))
            return out

    net = nn.Sequential(Barred(4, 6), nn.GELU(), nn.Linear(6, 3)).double()
    found, delta = LayerAttnLRP(net, net[1]).attribute(
        X, target=1, return_convergence_delta=True
    )
    assert found.shape == (2, 6) and delta.shape == (2,)


def test_no_delta_where_relevance_is_not_of_examples() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Linear(4, 4).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.tokens(x.reshape(-1, 4)).reshape(x.shape).sum(1)

    net, x = Flat(), torch.stack([X, X, X], 1)
    layer = LayerAttnLRP(net, net.tokens)
    assert layer.attribute(x, target=1).shape == (6, 4)
    with pytest.raises(ValueError, match=r"\(6, 4\) is not ordered by the 2 examples"):
        layer.attribute(x, target=1, return_convergence_delta=True)


def test_one_delta_of_a_batch_whose_rows_are_not_its_examples() -> None:
    """Patches of both pictures one after another, as Qwen2-VL takes them."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch = nn.Linear(4, 3).double()

        def forward(self, pixel_values: Tensor) -> Tensor:
            patches = self.patch(pixel_values)
            return torch.stack([patches[:5].sum(0), patches[5:].sum(0)])

    net, x = Packed(), torch.cat([X, X, X, X])
    found, delta = AttnLRP(net).attribute(x, target=1, return_convergence_delta=True)
    assert found.shape == (8, 4) and delta.shape == (1,)
    assert torch.allclose(delta, 8 * net.patch.bias[1].detach())


def test_patches_of_pix2struct_are_explained_by_their_name() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3, bias=False).double()

        def forward(self, flattened_patches: Tensor) -> Tensor:
            return self.linear(flattened_patches)

    net = Patches()
    found = AttnLRP(net).attribute({"flattened_patches": X}, target=1)
    assert torch.allclose(found, (X * net.linear.weight[1]).detach())


def test_layer_written_over_in_place() -> None:
    net = nn.Sequential(
        nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)
    ).double()
    found = LayerAttnLRP(net, net[0]).attribute(X, target=1)
    before = net[0](X)
    assert torch.allclose(found, (before.relu() * net[2].weight[1]).detach())


def test_layer_errors() -> None:
    net = model()
    unused = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="layer Linear did not run"):
        LayerAttnLRP(net, unused).attribute(X, target=1)
    shared = nn.Linear(4, 4).double()
    with pytest.raises(ValueError, match=r"'0' runs more than once"):
        LayerAttnLRP(nn.Sequential(shared, shared), shared).attribute(X, target=1)
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module or a list"):
        LayerAttnLRP(net, "encoder")  # type: ignore[arg-type]


def test_epsilon_tends_to_the_plain_rule() -> None:
    net = model()
    expected = AttnLRP(net).attribute(X, target=1)
    assert (
        relative(EpsilonLRP(net, epsilon=1e-9).attribute(X, target=1), expected) < 1e-6
    )
    assert (
        relative(EpsilonLRP(net, epsilon=0.3).attribute(X, target=1), expected) > 1e-3
    )


def test_explainers_print_themselves() -> None:
    net = model()
    plain, passing = AttnLRP(net), AttnLRP(net, through={net[1]: 2})
    assert repr(plain) == "AttnLRP(Sequential, composite='AttnLRP')"
    assert repr(passing) == (
        "AttnLRP(Sequential, composite='AttnLRP', through={Layer of GELU: 2})"
    )


def test_construction_errors() -> None:
    with pytest.raises(
        TypeError, match=r"expected a torch.nn.Module or another callable"
    ):
        AttnLRP("bert-base-uncased")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean 'attnlrp'"):
        TransformerLRP(model(), composite="atnlrp")
    with pytest.raises(TypeError, match="expected a Composite or one of the names"):
        TransformerLRP(model(), composite=3)  # type: ignore[arg-type]
