"""Everything in Captum that calls an attribution, with every class of ours."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    IntegratedGradients,
    LayerIntegratedGradients,
    NoiseTunnel,
    configure_interpretable_embedding_layer,
    remove_interpretable_embedding_layer,
)
from captum.concept import TCAV, Classifier, Concept
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn
from torch.utils.data import DataLoader

from captum_transformer_lrp import (
    AttnLRP,
    DiffMask,
    ErasureLRP,
    LayerAttnLRP,
    NeuronAttnLRP,
    units,
)
from captum_transformer_lrp.errors import ModelStateError
from tests.attribution.test_contract import (
    ATTENTION,
    LAYER,
    NEURON,
    RELEVANCE,
    WHOLE,
    X,
    explained,
    make,
    model,
)
from tests.helpers import assert_same_state, relative, state_of, tiny

IDS = torch.tensor([[3, 7, 1, 9, 4], [5, 2, 8, 8, 6]])
KINDS = ["smoothgrad", "smoothgrad_sq", "vargrad"]


class Pooled(nn.Module):
    """Token embeddings in, class scores out: attention over (2, 5, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.tiny = tiny()

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.tiny(inputs_embeds=embeddings)


EMBEDDED = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2)).double()


# ----------------------------------------------------------------------- NoiseTunnel


@pytest.mark.parametrize("cls", RELEVANCE)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_tunnel(cls: Any, kind: str) -> None:
    """All types, with deltas; with little noise smoothgrad is the method itself."""
    tunnel = NoiseTunnel(make(cls, model()))
    torch.manual_seed(0)
    which = explained(cls) if cls in NEURON else {"target": [0, 2]}
    found, delta = tunnel.attribute(
        X,
        nt_type=kind,
        nt_samples=4,
        stdevs=1e-7,
        return_convergence_delta=True,
        **which,
    )
    alone = make(cls, model()).attribute(X, **which)
    assert found.shape == alone.shape and delta.shape == (8,)
    expected = {"smoothgrad": alone, "smoothgrad_sq": alone**2}.get(kind)
    if expected is None:  # the variance over almost equal samples
        assert (found.abs() < 1e-10).all()
    else:
        assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("cls", ATTENTION)
@pytest.mark.parametrize("kind", KINDS)
def test_noise_tunnel_of_attention(cls: Any, kind: str) -> None:
    torch.manual_seed(0)
    found = NoiseTunnel(cls(Pooled())).attribute(
        EMBEDDED, target=[0, 2], nt_type=kind, nt_samples=3, stdevs=0.1
    )
    assert found.shape == (2, 5) and torch.isfinite(found).all()


def test_noise_tunnel_in_small_batches_with_arguments() -> None:
    net = model()

    def forward(x: Tensor, factor: Tensor) -> Tensor:
        return net(x) * factor

    torch.manual_seed(0)
    found = NoiseTunnel(AttnLRP(forward)).attribute(
        X,
        target=1,
        nt_samples=4,
        nt_samples_batch_size=2,
        stdevs=1e-7,
        additional_forward_args=(torch.tensor([[2.0], [3.0]]).double(),),
    )
    alone = AttnLRP(net).attribute(X, target=1)
    assert relative(found, alone * torch.tensor([[2.0], [3.0]])) < 1e-5


# --------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("cls", WHOLE)
def test_infidelity(cls: Any) -> None:
    """Of a linear model all relevance is exact, so that it is 0."""
    linear = nn.Linear(4, 3).double()

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn_like(x)
        return noise, x - noise

    torch.manual_seed(0)
    # its default, gamma, is not exact on a linear map: it shifts relevance on purpose
    options = {"composite": "attnlrp"} if cls is ErasureLRP else {}
    gradient = cls(linear, **options).attribute(X, target=1) / X
    value = infidelity(linear, perturb, X, gradient, target=1)
    assert value.shape == (2,) and (value < 1e-12).all()
    wrong = infidelity(linear, perturb, X, gradient * 2, target=1)
    assert (wrong > 1e-6).all()


def in_a_tuple(explain: Any) -> Any:
    """What ``sensitivity_max`` needs of methods whose result is not of the inputs.

    It passes the inputs in a tuple, and takes the result apart as if it were one too;
    Captum's own layer attributions fail there in the same way.
    """
    return lambda inputs, **options: (explain(inputs, **options),)


@pytest.mark.parametrize("cls", [*RELEVANCE, *ATTENTION])
def test_sensitivity(cls: Any) -> None:
    if cls in ATTENTION:
        explainer, x, which = cls(Pooled()), EMBEDDED, {"target": 1}
    else:
        explainer, x, which = make(cls, model()), X, explained(cls)
    explain = explainer.attribute
    if cls in LAYER:
        explain = in_a_tuple(explain)
    torch.manual_seed(0)
    none = sensitivity_max(explain, x, perturb_radius=0.0, **which)
    some = sensitivity_max(explain, x, perturb_radius=0.02, **which)
    assert none.shape == (2,) and (none < 1e-12).all()
    assert torch.isfinite(some).all() and (some < 10).all()


# ---------------------------------------------------------------------- DataParallel


@pytest.mark.parametrize("cls", [*RELEVANCE, *ATTENTION])
def test_data_parallel_on_the_cpu(cls: Any) -> None:
    if cls in ATTENTION:
        net: Any = Pooled()
        x, which = EMBEDDED, {"target": 1}
        plain, parallel = cls(net), cls(nn.DataParallel(net))
    else:
        net, x, which = model(), X, explained(cls)
        plain = make(cls, net)
        arguments = (net[1],) if cls in LAYER or cls in NEURON else ()
        parallel = cls(nn.DataParallel(net), *arguments)
    assert torch.equal(parallel.attribute(x, **which), plain.attribute(x, **which))


def test_replicas_on_several_devices_are_refused() -> None:
    """They run in threads that no engine sees; their gradient would be torch's own."""
    net = model()
    parallel = nn.DataParallel(net)
    parallel.device_ids = [0, 1]
    message = r"DataParallel on 2 devices.*Explain model\.module on one device"
    for forward in (parallel, parallel.forward, lambda x: parallel(x)):
        with pytest.raises(ModelStateError, match=message):
            AttnLRP(forward).attribute(X, target=1)
    with pytest.raises(TypeError, match=r"device_ids=\[0, 1\]: DataParallel replicas"):
        LayerAttnLRP(net, net[1], device_ids=[0, 1])
    with pytest.raises(TypeError, match=r"device_ids=\[0, 1\]: DataParallel replicas"):
        NeuronAttnLRP(net, net[1], device_ids=[0, 1])
    assert LayerAttnLRP(net, net[1], device_ids=[0]).attribute(X, target=1).shape == (
        2,
        6,
    )


# --------------------------------------------------- other methods on the same forward


@pytest.mark.parametrize("cls", RELEVANCE)
def test_captums_methods_on_the_same_forward(cls: Any) -> None:
    """Before, after and inside each other; neither leaves anything behind."""
    net = model()
    before = state_of(net)
    ablated = FeatureAblation(net).attribute(X, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's, on requires_grad
        integrated = IntegratedGradients(net).attribute(X, target=1)
        explainer = make(cls, net)
        first = explainer.attribute(X, **explained(cls))
        assert torch.equal(FeatureAblation(net).attribute(X, target=1), ablated)
        assert torch.equal(IntegratedGradients(net).attribute(X, target=1), integrated)
    assert torch.equal(explainer.attribute(X, **explained(cls)), first)
    assert_same_state(before, state_of(net))


# ------------------------------------------------------------------------------- BERT


def bert() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
        initializer_range=0.4,
    )
    return transformers.BertForSequenceClassification(config).double().eval()


@pytest.mark.parametrize(
    "wrapped", ["bert.embeddings.word_embeddings", "bert.embeddings"]
)
def test_interpretable_embedding(wrapped: str) -> None:
    net = bert()
    expected = AttnLRP(net).attribute(IDS, target=1)
    before = state_of(net)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Captum's, on embeddings taken out
        embedding = configure_interpretable_embedding_layer(net, wrapped)
    try:
        embedded = embedding.indices_to_embeddings(IDS).detach()
        key = "inputs_embeds" if wrapped.endswith("word_embeddings") else "input_ids"
        found = AttnLRP(lambda e: net(**{key: e}).logits).attribute(embedded, target=1)
        head = NeuronAttnLRP(
            lambda e: net(**{key: e}).logits,
            units.Heads(net.bert.encoder.layer[1].attention),
        ).attribute(embedded, 1)
    finally:
        remove_interpretable_embedding_layer(net, embedding)
    assert found.shape == head.shape == embedded.shape
    if key == "inputs_embeds":
        assert relative(found.sum(-1), expected) < 1e-12
    else:  # positions, types and their norm are in the embeddings
        layer = LayerAttnLRP(net, net.bert.embeddings).attribute(IDS, target=1)
        assert relative(found, layer) < 1e-12
    assert_same_state(before, state_of(net))


def test_layer_methods_of_captum_beside_ours_on_bert() -> None:
    net = bert()

    def forward(ids: Tensor) -> Tensor:
        return net(input_ids=ids).logits

    words = net.bert.embeddings.word_embeddings
    zeros = torch.zeros_like(IDS)
    integrate = LayerIntegratedGradients(forward, words)
    theirs = integrate.attribute(IDS, baselines=zeros, target=1, n_steps=3)
    ours = LayerAttnLRP(forward, words).attribute(IDS, target=1)
    assert ours.shape == theirs.shape
    tokens = AttnLRP(forward).attribute(IDS, target=1)
    assert relative(ours.sum(-1), tokens) < 1e-12
    ablated = FeatureAblation(forward).attribute(IDS, baselines=zeros, target=1)
    assert ablated.shape == tokens.shape
    again = integrate.attribute(IDS, baselines=zeros, target=1, n_steps=3)
    assert torch.equal(again, theirs)


# ------------------------------------------------------------------------------- TCAV


class Means(Classifier):
    """The difference of the means of two concepts' activations."""

    def __init__(self) -> None:
        self.direction = torch.zeros(0)

    def train_and_eval(self, dataloader: Any, **kwargs: Any) -> dict[str, Any]:
        inputs, labels = (torch.cat(each) for each in zip(*dataloader, strict=True))
        self.labels = labels.unique().tolist()
        first, second = (inputs[labels == label].mean(0) for label in self.labels)
        self.direction = torch.stack([first - second, second - first])
        return {"accs": torch.tensor(1.0)}

    def weights(self) -> Tensor:
        return self.direction

    def classes(self) -> list[int]:
        return self.labels


@pytest.mark.parametrize("cls", LAYER)
@pytest.mark.parametrize("at_input", [False, True])
def test_tcav(cls: Any, at_input: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    concepts = [
        Concept(
            number,
            name,
            DataLoader(torch.rand(6, 1, 6, 6) + number, batch_size=3),  # type: ignore[arg-type]
        )
        for number, name in enumerate(("dark", "light"))
    ]
    tcav = TCAV(
        net,
        ["0", "2"],
        classifier=Means(),
        layer_attr_method=cls(net, net[0]),
        attribute_to_layer_input=at_input,
        save_path=str(tmp_path),
    )
    pixels = torch.rand(2, 1, 6, 6)
    scores = tcav.interpret(pixels, [concepts], target=1)
    for layer in ("0", "2"):
        relevance = cls(net, net[int(layer)]).attribute(
            pixels, target=1, attribute_to_layer_input=at_input
        )
        cav = tcav.cavs["0-1"][layer].stats["weights"]
        expected = relevance.flatten(1) @ cav.T
        assert torch.allclose(
            scores["0-1"][layer]["sign_count"], (expected > 0).float().mean(0)
        )
        found = scores["0-1"][layer]["magnitude"]
        assert torch.allclose(found, expected.mean(0), atol=1e-5)


# ---------------------------------------------------------------------- visualization


def test_images_are_drawn() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    from captum.attr import visualization
    from matplotlib import pyplot

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    pixels = torch.rand(1, 3, 8, 8)
    found = AttnLRP(net).attribute(pixels, target=1)
    channels_last = found[0].permute(1, 2, 0).numpy()
    for method in ("heat_map", "blended_heat_map", "masked_image"):
        figure, _ = visualization.visualize_image_attr(
            channels_last,
            pixels[0].permute(1, 2, 0).numpy(),
            method=method,
            sign="positive",
            use_pyplot=False,
        )
        assert figure.axes
        pyplot.close(figure)
    figure, axes = visualization.visualize_image_attr_multiple(
        channels_last,
        pixels[0].permute(1, 2, 0).numpy(),
        ["original_image", "heat_map"],
        ["all", "all"],
        use_pyplot=False,
    )
    assert len(axes) == 2
    pyplot.close(figure)


def test_texts_are_shown() -> None:
    from captum.attr import visualization

    net = tiny()
    found, delta = AttnLRP(net).attribute(IDS, target=1, return_convergence_delta=True)
    scores = net(IDS).softmax(-1)
    record = visualization.VisualizationDataRecord(
        word_attributions=found[0] / found[0].abs().max(),
        pred_prob=scores[0, 1].item(),
        pred_class="1",
        true_class="1",
        attr_class="1",
        attr_score=found[0].sum().item(),
        raw_input_ids=[f"word{i}" for i in IDS[0].tolist()],
        convergence_score=delta[0].item(),
    )
    words = visualization.format_word_importances(
        record.raw_input_ids, record.word_attributions
    )
    assert all(f"word{i}" in words for i in IDS[0].tolist())
    pytest.importorskip("IPython")
    assert "word3" in visualization.visualize_text([record]).data


# --------------------------------------------------------------------------- DiffMask


def test_diffmask_under_the_callers_that_need_no_target() -> None:
    net = Pooled()
    mask = DiffMask(net, [net.tiny.blocks[0], net.tiny.blocks[1]], margin=1e-3)
    mask.fit([EMBEDDED] * 2, steps=2, progress=False)
    alone = mask.attribute(EMBEDDED)
    unwrapped = DiffMask.attribute.__wrapped__(
        mask, EMBEDDED, additional_forward_args=None
    )
    assert alone.shape == (2, 2, 5) and torch.equal(alone, unwrapped)
    torch.manual_seed(0)
    tunnel = NoiseTunnel(mask)
    found = tunnel.attribute(EMBEDDED, nt_samples=3, stdevs=1e-9)
    assert torch.allclose(found, alone, atol=1e-5)
    explain = in_a_tuple(mask.attribute)
    some = sensitivity_max(explain, EMBEDDED, perturb_radius=0.02)
    assert some.shape == (2,) and torch.isfinite(some).all()
