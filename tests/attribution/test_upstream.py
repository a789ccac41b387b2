"""Limits that Captum's own tests of LRP hold on to, and what happens here.

`docs/upstream.md` says why. The models are those of Captum's tests in shape and
weights.
"""

from __future__ import annotations

import pytest
import torch
from captum.attr import LRP
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, EpsilonLRP, LayerAttnLRP, units
from tests.helpers import relative

pytestmark = pytest.mark.filterwarnings(  # of Captum's LRP
    "ignore:Input Tensor . did not already require gradients:UserWarning"
)
CLASSES = [AttnLRP, CPLRP, EpsilonLRP]


class Reused(nn.Module):
    """`BasicModelWithReusedLinear`: one linear layer, twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3)
        self.relu = nn.ReLU()
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.linear(self.relu(self.linear(x))))


@pytest.mark.parametrize("cls", CLASSES)
def test_lrp_repeated_module(cls: type[AttnLRP]) -> None:
    """There: RuntimeError, "more than once". Here: as if there were two layers."""
    net, x = Reused(), torch.rand(2, 3).double()
    with pytest.raises(RuntimeError, match="more than once"):
        LRP(net).attribute(x, target=0)
    clean = Reused()
    first, second = clean.linear, nn.Linear(3, 3).double()
    second.load_state_dict(first.state_dict())
    unrolled = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    for target in range(3):
        found = cls(clean).attribute(x, target=target)
        assert torch.equal(found, cls(unrolled).attribute(x, target=target))
    # Captum's own, on two layers, says the same
    theirs = LRP(unrolled).attribute(x, target=0).detach()
    assert relative(cls(clean).attribute(x, target=0), theirs) < 1e-4
    runs = [units.Layer(clean.linear, call=i) for i in range(2)]
    by_run = LayerAttnLRP(clean, runs).attribute(x, target=0)
    by_layer = LayerAttnLRP(unrolled, [first, second]).attribute(x, target=0)
    assert torch.equal(by_run[0], by_layer[0])
    assert torch.equal(by_run[1], by_layer[1])


class Convolution(nn.Module):
    """`BasicModel_ConvNet_One_Conv`, in outline."""

    sigmoid: nn.Module

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 2, 3)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(8, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.relu(self.conv(x)).flatten(1))


@pytest.mark.parametrize("cls", CLASSES)
def test_lrp_creator_activation(cls: type[AttnLRP]) -> None:
    """There: TypeError for a sigmoid that the model has. Here: what runs counts."""
    x = torch.rand(2, 1, 4, 4).double()
    idle = Convolution()
    idle.sigmoid = nn.Sigmoid()
    with pytest.raises(TypeError, match=r"Sigmoid.* has no rule defined"):
        LRP(idle).attribute(x, target=1)
    expected = cls(Convolution()).attribute(x, target=1)
    assert torch.equal(cls(idle).attribute(x, target=1), expected)
    # one that runs passes relevance on; at the score's end R = sigmoid(z) - sigmoid(0)
    scored = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Sigmoid()).double()
    y = torch.rand(2, 4).double()
    found, delta = cls(scored).attribute(y, target=1, return_convergence_delta=True)
    assert relative(found.sum(1), scored(y)[:, 1].detach() - 0.5) < 1e-4
    assert (delta - 0.5).abs().max() < 1e-4


class Added(nn.Module):
    """`BasicModel_MultiLayer`: adds its second input to its first."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.Linear(3, 3)
        self.linear1 = nn.Linear(3, 4)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(4, 2)
        with torch.no_grad():
            self.identity.weight.copy_(torch.eye(3))
            self.identity.bias.zero_()
            self.linear1.weight.fill_(1)
            self.linear1.bias.copy_(torch.tensor([-10.0, 1.0, 1.0, 1.0]))
            self.linear2.weight.fill_(1)
            self.linear2.bias.copy_(torch.tensor([-1.0, 1.0]))

    def forward(self, x: Tensor, added: Tensor) -> Tensor:
        return self.linear2(self.relu(self.linear1(self.identity(x + added))))


@pytest.mark.parametrize("cls", CLASSES)
def test_lrp_multi_inputs(cls: type[AttnLRP]) -> None:
    """There: both summands receive the whole sum's relevance. Here: their parts."""
    net = Added()
    inputs = (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 6.0, 9.0]]))
    theirs, their_delta = LRP(Added()).attribute(
        inputs, target=0, return_convergence_delta=True
    )
    assert torch.allclose(theirs[0], torch.tensor([[16.0, 32.0, 48.0]]))
    assert torch.equal(theirs[0], theirs[1])
    assert torch.allclose(their_delta, torch.tensor([-104.0]))

    found, delta = cls(net).attribute(inputs, target=0, return_convergence_delta=True)
    assert torch.allclose(found[0], torch.tensor([[4.0, 8.0, 12.0]]))
    assert torch.allclose(found[1], torch.tensor([[12.0, 24.0, 36.0]]))
    assert torch.allclose(found[0] + found[1], theirs[0])
    # what is left is what biases absorbed: the score is 88, W x without them 96
    biases = net.linear1.bias.sum() + net.linear2.bias[0]
    assert torch.allclose(delta, torch.tensor([-8.0]))
    assert torch.allclose(delta, biases.detach())
