"""Models that forget: what is re-initialised, and what the maps of methods then do."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from captum_transformer_lrp import AttnLRP
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.metrics import model_randomization, randomize_cascade
from tests.oracles import metrics as oracle


class RMSNorm(nn.Module):
    """As Hugging Face writes it: a bare parameter and no reset_parameters."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x):
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weight


class Small(nn.Module):
    """A bare class token, an RMSNorm, linear layers, of which two share weights."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(6))
        self.first = nn.Linear(6, 6)
        self.norm = RMSNorm(6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.second(self.norm(self.first(x + self.shift).relu())))


def small():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Small().eval()


def test_every_parameter_is_forgotten_from_the_output_down():
    model = small()
    before = copy.deepcopy(model.state_dict())
    names, changed = [], []
    for name, forgetful in randomize_cascade(model):
        names.append(name)
        state = forgetful.state_dict()
        changed.append({k for k, v in state.items() if not torch.equal(v, before[k])})
        assert forgetful is not model
    assert names == ["head", "second", "norm", "first", "(model)"]
    assert changed[0] == {"head.weight", "head.bias"}
    # The shared weight is forgotten with the first of its two layers.
    assert changed[1] - changed[0] == {"second.weight", "first.weight", "second.bias"}
    assert changed[2] - changed[1] == {"norm.weight"}
    assert changed[3] - changed[2] == {"first.bias"}
    assert changed[4] == set(before)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_the_random_state_and_hooks_are_left_alone():
    model = small()
    state = torch.get_rng_state()
    cascade = randomize_cascade(model)
    for _ in cascade:
        assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks for m in model.modules())


def test_the_seed_decides():
    def last(seed: int) -> torch.Tensor:
        *_, (_, forgetful) = randomize_cascade(small(), seed=seed)
        return forgetful.state_dict()["head.weight"].clone()

    assert torch.equal(last(0), last(0))
    assert not torch.equal(last(0), last(1))


def test_bare_parameters_keep_their_mean_and_spread():
    model = nn.Module()
    model.table = nn.Parameter(3 + 2 * torch.randn(4000))
    ((_, forgetful),) = randomize_cascade(model)
    table = forgetful.get_parameter("table")
    assert not torch.equal(table, model.table)
    values = table.detach()
    assert float(values.mean()) == pytest.approx(3, abs=0.2)
    assert float(values.std()) == pytest.approx(2, abs=0.2)


def forgotten(model: nn.Module) -> nn.Module:
    """The model once all its layers are forgotten."""
    *_, (_, forgetful) = randomize_cascade(model)
    return forgetful


def moved(model):
    """The model with weights as no initialiser draws them."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(3)
    return model.eval()


def test_a_model_of_hugging_face_is_drawn_by_its_own_initialiser(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=500,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.07,
        pad_token_id=0,
    )
    cls = transformers.BertForSequenceClassification
    moved(cls(config)).save_pretrained(tmp_path)
    # What was loaded is marked so that the initialiser passes it over; and the model
    # may be a part of another.
    wrapped = nn.ModuleDict({"inner": cls.from_pretrained(tmp_path), "own": RMSNorm(9)})
    own = wrapped["own"].weight.detach().clone()
    before = {k: v.clone() for k, v in wrapped.state_dict().items()}
    state = forgotten(wrapped).state_dict()
    words = state["inner.bert.embeddings.word_embeddings.weight"]
    assert float(words[1:].std()) == pytest.approx(0.07, rel=0.05)  # torch's is 1
    assert float(words[0].abs().max()) == 0  # padding
    query = state["inner.bert.encoder.layer.0.attention.self.query.weight"]
    assert float(query.std()) == pytest.approx(0.07, rel=0.05)  # torch's is .072 too
    assert float(query.abs().max()) > 0.2  # and uniform, below .125
    assert float(state["inner.classifier.bias"].abs().max()) == 0
    norm = state["inner.bert.embeddings.LayerNorm.weight"]
    assert torch.equal(norm, torch.ones(64))
    drawn = state["own.weight"]
    assert not torch.equal(drawn, own) and 0 < float(drawn.std()) < 1
    assert all(torch.equal(v, before[k]) for k, v in wrapped.state_dict().items())


def test_a_model_of_timm_is_drawn_by_its_own_initialiser():
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 1}
    model = timm.models.vision_transformer.VisionTransformer(
        **sizes, num_heads=2, num_classes=5
    )
    state = forgotten(moved(model)).state_dict()
    assert float(state["blocks.0.mlp.fc1.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(state["pos_embed"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(state["cls_token"].abs().max()) < 1e-4
    assert float(state["head.bias"].abs().max()) == 0


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(400, 8)
        self.head = nn.Linear(8, 3)


class OwnForEachModule(Own):
    def _init_weights(self, module) -> None:
        if isinstance(module, nn.Embedding):
            module.weight.data.normal_(std=0.5)


class OwnForAll(Own):
    def _init_weights(self) -> None:
        self.table.weight.data.normal_(std=0.5)


@pytest.mark.parametrize("cls", [OwnForEachModule, OwnForAll])
def test_an_initialiser_of_ones_own_is_used(cls):
    state = forgotten(moved(cls())).state_dict()
    assert float(state["table.weight"].std()) == pytest.approx(0.5, rel=0.05)
    # The rest is drawn as torch does: uniform below the inverse root of 8.
    assert float(state["head.weight"].abs().max()) <= 8**-0.5


def explain_with(model: nn.Module):
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    return AttnLRP(model).attribute(x, target=1)


def test_a_method_that_reads_the_weights_changes_and_an_edge_detector_does_not():
    model = small()
    faithful = model_randomization(model, explain_with)
    assert faithful.layers == ("head", "second", "norm", "first", "(model)")
    assert abs(faithful.last.mean) < 0.7
    # The mutant of an explanation looks at the input alone: it must fail the check.
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    blind = model_randomization(model, lambda _: x)
    assert blind.last.mean == pytest.approx(1)
    assert blind.average.mean == pytest.approx(1)
    assert faithful.average.mean < 0.9
    json.dumps(faithful.to_dict())
    assert "after forgetting (n = 8)" in str(faithful)


def test_agreement_is_between_trained_and_forgetful_maps():
    model = small()
    found = model_randomization(model, explain_with, layers=["first"], absolute=True)
    ((_, forgetful),) = randomize_cascade(model, layers=["first"])
    pairs = zip(explain_with(model).abs(), explain_with(forgetful).abs(), strict=True)
    expected = [oracle.spearman(a.tolist(), b.tolist()) for a, b in pairs]
    assert found.last.values.tolist() == pytest.approx(expected)
    signed = model_randomization(model, explain_with, layers=["first"])
    assert signed.last.values.tolist() != pytest.approx(expected)


def test_layers_that_cannot_be_forgotten_are_named():
    with pytest.raises(InputError, match="'tail': no such module in Small"):
        randomize_cascade(small(), layers=["tail"])
    with pytest.raises(InputError, match="no parameters of its own"):
        randomize_cascade(nn.Sequential(nn.Linear(2, 2)), layers=[""])
    with pytest.raises(InputError, match="no parameters to forget"):
        model_randomization(nn.ReLU(), lambda _: torch.rand(1, 3))
