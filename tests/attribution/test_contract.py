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
    NoiseTunnel,
)
from captum.metrics import infidelity, sensitivity_max
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
    TransformerLRP,
)
from tests.helpers import relative, tiny

PUBLIC = [
    value
    for name, value in vars(captum_transformer_lrp).items()
    if inspect.isclass(value)
    and issubclass(value, Attribution)
    and not issubclass(value, AttentionAttribution)  # see test_attention.py
    and value is not DiffMask  # has no target: see tests/diffmask
]
WHOLE = [c for c in PUBLIC if not issubclass(c, LayerAttribution)]
LAYER = [c for c in PUBLIC if issubclass(c, LayerAttribution)]


def model() -> nn.Module:
    torch.manual_seed(0)
    return (
        nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 3))
        .double()
        .eval()
    )


def make(cls: Any, net: Any) -> Any:
    return cls(net, net[1]) if cls in LAYER else cls(net)


X = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()


def test_all_classes_are_covered() -> None:
    assert len(WHOLE) == 6 and len(LAYER) == 4
    relevance = {c for c in METHODS.values() if issubclass(c, TransformerLRP)}
    assert relevance < set(WHOLE)


@pytest.mark.parametrize("cls", PUBLIC)
def test_class_contract(cls: Any) -> None:
    assert issubclass(cls, GradientAttribution)
    assert hasattr(cls.attribute, "__wrapped__"), "log_usage is missing"
    assert "attribute" in vars(cls) or cls.__bases__[0].__module__.startswith(
        "captum_transformer_lrp"
    )
    attribution = make(cls, model())
    assert attribution.multiplies_by_inputs is True
    assert attribution.has_convergence_delta() is True
    assert "L R P" not in attribution.get_name()
    assert attribution.get_name() == cls.get_name()
    with pytest.raises(NotImplementedError):
        attribution.attribute_future()
    assert cls.__doc__ and len(cls.__doc__.splitlines()[0]) > 20


@pytest.mark.parametrize(
    ("cls", "captums"), [(TransformerLRP, LRP), (LayerTransformerLRP, LayerLRP)]
)
def test_positional_arguments_are_captums(cls: Any, captums: Any) -> None:
    ours = list(inspect.signature(cls.attribute.__wrapped__).parameters)
    theirs = list(inspect.signature(inspect.unwrap(captums.attribute)).parameters)
    assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("cls", PUBLIC)
def test_unwrapped_call_as_insights_makes_it(cls: Any) -> None:
    attribution = make(cls, model())
    found = cls.attribute.__wrapped__(
        attribution, (X,), additional_forward_args=None, target=1
    )
    expected = attribution.attribute((X,), target=1)
    found = found if isinstance(found, tuple) else (found,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert torch.equal(found[0], expected[0])


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


@pytest.mark.parametrize("cls", WHOLE)
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(cls: Any, kind: str) -> None:
    tunnel = NoiseTunnel(cls(model()))
    torch.manual_seed(0)
    found, delta = tunnel.attribute(
        X,
        nt_type=kind,
        nt_samples=4,
        stdevs=0.1,
        target=[0, 2],
        return_convergence_delta=True,
    )
    assert found.shape == X.shape and torch.isfinite(found).all()
    assert delta.shape == (8,)


@pytest.mark.parametrize("cls", WHOLE)
def test_metrics(cls: Any) -> None:
    net = model()
    explainer = cls(net)

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.01 * torch.randn_like(x)
        return noise, x - noise

    value = infidelity(net, perturb, X, explainer.attribute(X, target=1), target=1)
    assert value.shape == (2,) and (value < 0.1).all()
    assert torch.isfinite(sensitivity_max(explainer.attribute, X, target=1)).all()


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


def test_construction_errors() -> None:
    with pytest.raises(
        TypeError, match=r"expected a torch.nn.Module or another callable"
    ):
        AttnLRP("bert-base-uncased")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Did you mean 'attnlrp'"):
        TransformerLRP(model(), composite="atnlrp")
    with pytest.raises(TypeError, match="expected a Composite or one of the names"):
        TransformerLRP(model(), composite=3)  # type: ignore[arg-type]
