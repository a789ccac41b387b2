"""What holds for all methods: nothing stays in memory, what is not finite is said."""

from __future__ import annotations

import gc
import re
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import saved_tensors_hooks

import captum_transformer_lrp as package
from captum_transformer_lrp import attribution, errors
from captum_transformer_lrp.attribution import BASELINES, METHODS
from captum_transformer_lrp.composites import COMPOSITES
from tests.helpers import Tiny, tiny
from tests.language.models import Plain, plain

IDS = torch.tensor([[3, 7, 1, 9, 4]])
Explain = Callable[[Tiny], Any]


def usual(cls: Any, *args: Any, **options: Any) -> Explain:
    return lambda model: cls(model, *args, **options).attribute(IDS, target=1)


def of_layer(cls: Any) -> Explain:
    def run(model: Tiny) -> Any:
        layers = [model.blocks[0], model.head]
        into = cls(model, layers).attribute(
            IDS, target=1, attribute_to_layer_input=True
        )
        return into, cls(model, layers).attribute(IDS, target=1)

    return run


def of_neuron(cls: Any) -> Explain:
    return lambda model: cls(model, model.head).attribute(IDS, 2)


def by_modules(model: Tiny) -> nn.Module:
    """A model of the modules that Captum's LRP knows."""
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()


X = torch.linspace(-1, 1, 5).double()[None]

WAYS: dict[str, Explain] = {
    **{cls.__name__: usual(cls) for cls in METHODS.values()},
    **{cls.__name__: usual(cls, baseline=0) for cls in BASELINES.values()},
    **{
        f"TransformerLRP({name})": usual(attribution.TransformerLRP, name)
        for name in COMPOSITES
    },
    "OwenLRP": usual(package.OwenLRP, baseline=0),
    "ErasureLRP": usual(package.ErasureLRP, baseline=0),
    "PositionalLRP": usual(package.PositionalLRP),
    **{
        cls.__name__: of_layer(cls)
        for cls in (package.LayerAttnLRP, package.LayerCPLRP)
    },
    "LayerTransformerLRP": of_layer(package.LayerTransformerLRP),
    **{
        cls.__name__: of_neuron(cls)
        for cls in (package.NeuronAttnLRP, package.NeuronCPLRP)
    },
    "NeuronTransformerLRP": of_neuron(package.NeuronTransformerLRP),
    "CaptumLRP": lambda m: package.CaptumLRP(by_modules(m)).attribute(X, target=1),
    "LayerCaptumLRP": lambda m: package.LayerCaptumLRP(
        (mlp := by_modules(m)), mlp[0]
    ).attribute(X, target=1),
    "TransformerLRP": lambda m: package.TransformerLRP(m).trace(IDS, target=1),
    "PairLRP": lambda m: package.PairLRP(m).attribute(IDS, IDS),
    "AttentionAttribution": lambda m: package.CheferLRP(m).layers(IDS, target=1),
    "LLMTransformerLRP": lambda m: package.LLMTransformerLRP(
        plain(), composite="cp-lrp", positional="absolute"
    ).attribute(IDS[0], IDS[0, :2]),
}


def test_the_table_knows_every_method() -> None:
    public = {
        name for name in package.__all__ if hasattr(getattr(package, name), "attribute")
    }
    assert public - {"DiffMask", "Explainer"} <= WAYS.keys()


def live() -> int:
    """Count tensors, and what our autograd functions keep for the way back."""
    gc.collect()
    kinds = (Tensor, BackwardCFunction)
    return sum(issubclass(type(each), kinds) for each in gc.get_objects())


class Packed:
    """Stands for a tensor that autograd saves, where the collector does not look."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()


@pytest.mark.filterwarnings("ignore")  # of Captum's, and of methods for other models
@pytest.mark.parametrize("calls", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", WAYS)
def test_nothing_is_kept(name: str, calls: int) -> None:
    model, explain = tiny(blocks=1), WAYS[name]
    explain(model)
    saved: list[weakref.ref[Packed]] = []

    def pack(tensor: Tensor) -> Packed:
        packed = Packed(tensor)
        saved.append(weakref.ref(packed))
        return packed

    before = live()
    for _ in range(calls):
        explain(model)
    assert live() <= before
    with saved_tensors_hooks(pack, lambda packed: packed.tensor):
        explain(model)
    assert saved, "nothing was saved: the test sees nothing"
    gc.collect()
    assert not [each for each in saved if each() is not None]


@pytest.mark.parametrize("cls", [package.AttnLRP, package.CheferLRP])
def test_nothing_is_kept_after_an_error(cls: Any) -> None:
    model = tiny()

    def failing(ids: Tensor) -> Tensor:
        model(ids)
        raise KeyError("no scores today")

    def explain() -> None:
        with pytest.raises(KeyError, match="no scores"):
            cls(failing).attribute(IDS, target=1)

    explain()
    before = live()
    for _ in range(5):
        explain()
    assert live() <= before


# ------------------------------------------------------------------------------ finite


class Root(nn.Module):
    """A square root where x is positive: the other half of torch.where is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 3)
        nn.init.ones_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.where(x > 0, x.sqrt(), x))


class RootOfIds(Tiny):
    def forward(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]
        x = self.embedding(input_ids) + self.position[:, : input_ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(torch.where(x > 0, x.sqrt(), x).mean(1))


class RootOfTokens(Plain):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids) + self.position[:, : ids.shape[1]]
        x = torch.where(x > 0, x.sqrt(), x)
        return self.head(self.attend(x))


def root(cls: type[nn.Module]) -> Any:
    torch.manual_seed(0)
    return cls().double().eval()


MIXED = torch.tensor([[1.0, -1, 2, -2, 3, -3, 4, -4]]).double()
NOT_FINITE: dict[str, Callable[[], Any]] = {
    "AttnLRP": lambda: package.AttnLRP(root(Root)).attribute(MIXED, target=0),
    "with delta": lambda: package.CPLRP(root(Root)).attribute(
        MIXED, target=0, return_convergence_delta=True
    ),
    "of a tuple": lambda: package.AttnLRP(lambda a, b: root(Root)(a) + b).attribute(
        (MIXED, MIXED[:, :3]), target=0
    ),
    "contexts": lambda: package.OwenLRP(root(RootOfIds), baseline=0).attribute(
        IDS, target=1
    ),
    "neuron": lambda: package.NeuronAttnLRP(
        (model := root(RootOfIds)), model.head
    ).attribute(IDS, 1),
    "layer": lambda: package.LayerAttnLRP(
        (model := root(RootOfIds)), [model.blocks[0], model.blocks[1]]
    ).attribute(IDS, target=1),
    "positions": lambda: package.PositionalLRP(root(RootOfIds)).attribute(
        IDS, target=1
    ),
    "attention": lambda: package.GenericAttention(root(RootOfIds)).attribute(
        IDS, target=1
    ),
    "attention, relevance": lambda: package.CheferLRP(root(RootOfIds)).attribute(
        IDS, target=1
    ),
    "saliency": lambda: attribution.InputSaliency(root(RootOfIds)).attribute(
        IDS, target=1
    ),
    "language model": lambda: package.LLMTransformerLRP(root(RootOfTokens)).attribute(
        IDS[0], IDS[0, :2]
    ),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_is_said_once(name: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = NOT_FINITE[name]()
    assert found is not None
    (one,) = [w for w in seen if issubclass(w.category, errors.NotFiniteWarning)]
    assert one.filename == __file__
    assert "values are not finite" in str(one.message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(errors.NotFiniteWarning, match=r"torch\.float64"):
            NOT_FINITE[name]()


def test_how_many_are_not_finite() -> None:
    with pytest.warns(errors.NotFiniteWarning, match="AttnLRP: 4 of 8 values are"):
        found = package.AttnLRP(root(Root)).attribute(MIXED, target=0)
    assert torch.isnan(found).sum() == 4


@pytest.mark.parametrize("way", [*METHODS, *BASELINES])
def test_relevance_that_is_differentiated_is_refused_by_name(way: str) -> None:
    cls: Any = {**METHODS, **BASELINES}[way]
    replaces = way in BASELINES or "tokenizer" in cls.description.needs
    explainer = cls(tiny(), **({"baseline": 0} if replaces else {}))
    asked = f"{cls.__name__} was called with create_graph="
    with pytest.raises(errors.ArgumentError, match=asked):
        explainer.attribute(IDS, target=1, create_graph=True)
    scores = explainer.attribute(IDS, target=1, create_graph=False)
    assert not scores.requires_grad


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"baselines": 0},
            "along a path from a baseline.* captum.attr.IntegratedGradie",
        ),
        ({"n_steps": 50, "target": 1}, "AttnLRP was called with n_steps="),
        ({"nt_samples": 4}, "NoiseTunnel"),
        ({"strides": (2, 2)}, "captum.attr.Occlusion"),
        ({"abs": True}, r"Take \.abs\(\) of what it returns"),
        ({"tarjet": 1}, "does not take. Did you mean 'target'"),
    ],
)
def test_arguments_of_other_attributors(given: dict[str, Any], message: str) -> None:
    explainer = package.AttnLRP(tiny())
    with pytest.raises(errors.ArgumentError, match=message):
        explainer.attribute(IDS, **given)
    with pytest.raises(TypeError):
        explainer.attribute(IDS, **given)


def test_arguments_that_ask_for_nothing() -> None:
    explainer = package.AttnLRP(tiny())
    expected = explainer.attribute(IDS, target=1)
    found = explainer.attribute(IDS, target=1, baselines=None, abs=False)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("baseline", [X * 0, (X * 0,), [X * 0]])
def test_a_baseline_in_the_place_of_the_target(baseline: Any) -> None:
    for cls in (package.AttnLRP, package.GradientXInput):
        with pytest.raises(errors.TargetError, match=r"shape \(.*A baseline, which"):
            cls(root(Root)).attribute(X, baseline, 1)


def test_what_to_differentiate_instead() -> None:
    """The message's line, against the package's scores and finite differences."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 3)).double()
    weight, target = model[0].weight, 1
    with pytest.raises(errors.ArgumentError) as caught:
        attribution.AttnLRP(model).attribute(X, target=1, create_graph=True)
    line = re.search("`(x .*?)`", str(caught.value))
    assert line is not None
    x = X.clone().requires_grad_()
    given = {"x": x, "torch": torch, "model": model, "target": target}
    found = eval(line[1], given)
    expected = attribution.GradientXInput(model).attribute(X, target=1)
    assert torch.allclose(found, expected, atol=1e-14)
    (slope,) = torch.autograd.grad(found[0, 0], weight)
    for i, j in ((0, 0), (3, 2)):
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight[i, j] += step
            again = attribution.GradientXInput(model).attribute(X, target=1)
            ends.append(float(again[0, 0]))
            with torch.no_grad():
                weight[i, j] -= step
        assert abs(float(slope[i, j]) - (ends[0] - ends[1]) / 2e-6) < 1e-8
