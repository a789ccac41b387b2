"""Methods in the tables of Captum Insights, or of a stand-in where there is none."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    LayerAttnLRP,
    register_insights,
)
from captum_transformer_lrp.errors import InsightsError

HAS_INSIGHTS = importlib.util.find_spec("captum.insights") is not None
CLASSES = (AttnLRP, CPLRP, EpsilonLRP, GradientXInput)


class ConfigParameters(NamedTuple):
    """As captum 0.8 defines it."""

    params: dict[str, Any]
    help_info: str | None = None
    post_process: dict[str, Any] | None = None


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of captum 0.8 that holds the tables, with the same names in it."""
    path = "captum.insights.attr_vis.config"
    names = path.split(".")
    for depth in range(2, len(names) + 1):
        name = ".".join(names[:depth])
        module: Any = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, name, module)
    module.ConfigParameters = ConfigParameters
    module.ATTRIBUTION_NAMES_TO_METHODS = {"Saliency": object}
    module.ATTRIBUTION_METHOD_CONFIG = {}
    yield module


def call_as_insights_does(config: Any, name: str, net: nn.Module, data: Any) -> Any:
    """``AttributionCalculation.calculate_attribution``, transcribed."""
    method = config.ATTRIBUTION_NAMES_TO_METHODS[name](net)
    arguments = {
        key: option.value
        for key, option in config.ATTRIBUTION_METHOD_CONFIG[name].params.items()
    }
    post_process = config.ATTRIBUTION_METHOD_CONFIG[name].post_process
    if post_process:
        arguments = {k: post_process[k](v) for k, v in arguments.items()}
    assert "baselines" not in inspect.signature(method.attribute).parameters
    return method.attribute.__wrapped__(
        method, data, additional_forward_args=None, target=torch.tensor(1), **arguments
    )


def test_methods_are_registered_and_called(config: Any) -> None:
    names = register_insights()
    assert names == ("AttnLRP", "CP-LRP", "LRP-epsilon", "Gradient x Input")
    assert register_insights() == names  # twice does no harm
    assert list(config.ATTRIBUTION_NAMES_TO_METHODS) == ["Saliency", *names]
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    pixels = torch.rand(1, 3, 2, 2)
    for name, cls in zip(names, CLASSES, strict=True):
        assert config.ATTRIBUTION_METHOD_CONFIG[name].help_info.endswith(".")
        (found,) = call_as_insights_does(config, name, net, (pixels,))
        assert torch.equal(found, cls(net).attribute(pixels, target=1))


def test_chosen_methods_only(config: Any) -> None:
    assert register_insights(CPLRP) == ("CP-LRP",)
    assert list(config.ATTRIBUTION_NAMES_TO_METHODS) == ["Saliency", "CP-LRP"]
    with pytest.raises(TypeError, match=r"register_insights got 'attnlrp'; expected"):
        register_insights("attnlrp")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"LayerAttnLRP needs more than a model"):
        register_insights(LayerAttnLRP)


@pytest.mark.skipif(HAS_INSIGHTS, reason="this captum has Insights")
def test_captum_without_insights() -> None:
    with pytest.raises(InsightsError, match=r"captum 0\.9.* has no captum\.insights"):
        register_insights()
    assert issubclass(InsightsError, ImportError)


def test_what_insights_needs_is_named(
    config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "captum.insights.attr_vis.config")
    with pytest.raises(InsightsError, match=r"Insights needs captum\.insights\.attr_v"):
        register_insights()


@pytest.mark.skipif(not HAS_INSIGHTS, reason="this captum has no Insights")
@pytest.mark.filterwarnings("ignore:It looks like that the attribution")  # Insights'
def test_the_real_insights() -> None:
    pytest.importorskip("flask")
    pytest.importorskip("flask_compress")
    from captum.insights import AttributionVisualizer, Batch
    from captum.insights.attr_vis.app import FilterConfig
    from captum.insights.attr_vis.features import ImageFeature

    names = register_insights()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    def batches() -> Iterator[Any]:
        while True:
            yield Batch(torch.rand(1, 3, 8, 8), torch.tensor([1]))

    visualizer = AttributionVisualizer(
        models=[net],
        score_func=lambda scores: scores.softmax(1),
        classes=["a", "b", "c"],
        features=[ImageFeature("pixels", [], [])],
        dataset=batches(),
    )
    assert set(names) < set(visualizer.get_insights_config()["methods"])
    for name in names:
        visualizer._config = FilterConfig(
            attribution_method=name, attribution_arguments={}, num_examples=1
        )
        (shown,) = visualizer.visualize()
        assert shown[0].feature_outputs[0].modified
