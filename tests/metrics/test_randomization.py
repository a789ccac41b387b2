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
