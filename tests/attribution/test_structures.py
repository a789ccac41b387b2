"""Layers whose inputs and outputs are packed sequences, dataclasses and nested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    LayerAttnLRP,
    LayerCPLRP,
    NeuronAttnLRP,
)
from captum_transformer_lrp.errors import InputError, UnitError
from tests.helpers import relative

LENGTHS = torch.tensor([3, 5])


class Packed(nn.Module):
    """A recurrent layer over packed texts, read at its states and at its end."""

    def __init__(self, kind: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent: Any = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)
        self.double().eval()

    def read(self, states: Tensor, last: Tensor) -> Tensor:
        return self.head(torch.tanh(states).sum(1) + last)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, LENGTHS, True, enforce_sorted=False)
        output, state = self.recurrent(packed)
        last = state[0] if isinstance(state, tuple) else state
        return self.read(pad_packed_sequence(output, True)[0], last[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("method", [LayerAttnLRP, LayerCPLRP])
def test_a_recurrent_layer_with_packed_input(kind: Any, method: Any) -> None:
    model = Packed(kind)
    torch.manual_seed(1)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    found, state = method(model, model.recurrent).attribute(x, target=1)
    assert isinstance(found, PackedSequence)
    hidden = state[0] if kind is nn.LSTM else state
    packed = pack_padded_sequence(x, LENGTHS, True, enforce_sorted=False)
    output, states = model.recurrent(packed)
    last = states[0] if kind is nn.LSTM else states
    given = (pad_packed_sequence(output, True)[0].detach(), last[0].detach())
    alone = AttnLRP if method is LayerAttnLRP else CPLRP
    expected = alone(model.read).attribute(given, target=1)
    assert relative(pad_packed_sequence(found, True)[0], expected[0]) < 1e-12
    assert relative(hidden[0], expected[1]) < 1e-12


def test_what_goes_into_a_recurrent_layer() -> None:
    model = Packed(nn.LSTM)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    found = LayerAttnLRP(model, model.recurrent).attribute(
        x, target=1, attribute_to_layer_input=True
    )
    expected = AttnLRP(model).attribute(x, target=1)
    assert relative(pad_packed_sequence(found, True)[0], expected) < 1e-12


def test_a_neuron_of_a_packed_layer_is_chosen_by_a_function() -> None:
    model = Packed(nn.GRU)
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    neuron = NeuronAttnLRP(model, model.recurrent)

    def chosen(output: Any) -> Tensor:
        return pad_packed_sequence(output[0], True)[0][:, 1, 2]

    def alone(x: Tensor) -> Tensor:
        return model.recurrent(x)[0][:, 1, 2]

    expected = AttnLRP(alone).attribute(x)
    assert relative(neuron.attribute(x, chosen), expected) < 1e-12
    for selector in (1, (0, 1)):
        with pytest.raises(UnitError, match="a packed sequence, whose rows are"):
            neuron.attribute(x, selector)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.MultiheadAttention])
def test_no_delta_where_the_examples_do_not_come_first(kind: Any) -> None:
    """As many tokens, or states, as examples: a sum over them would be no delta."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = kind(4, 4) if kind is nn.LSTM else kind(4, 2)
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(0, 1)
            if kind is nn.LSTM:
                return self.head(self.layer(x)[0].sum(0))
            return self.head(self.layer(x, x, x)[0].sum(0))

    model = Model().double().eval()
    x = torch.randn(2, 2, 4, dtype=torch.float64)
    layer = LayerAttnLRP(model, model.layer)
    with pytest.raises(InputError, match="not ordered by the 2 examples"):
        layer.attribute(x, target=1, return_convergence_delta=True)
    one = layer.attribute(x[:1], target=1, return_convergence_delta=True)
    assert one[1].shape == (1,)


@dataclass(frozen=True)
class Found:
    """What a layer may return."""

    states: Any
    parts: dict[str, Any]
    nothing: None = None


class Nested(nn.Module):
    """Returns a dataclass that holds a tuple, a dictionary and None."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, given: Found) -> Found:
        first, second = given.states
        changed = torch.tanh(self.linear(first)), second
        return Found(changed, {"a": [given.parts["a"] * 2, None], "n": 3})


class Around(nn.Module):
    """A model whose layer takes and returns dataclasses."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = Nested()
        self.head = nn.Linear(4, 3)
        self.double().eval()

    def read(self, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        return self.head(first * second + third)

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(Found((x * 2, x + 1), {"a": x * 3}))
        first, second = found.states
        return self.read(first, second, found.parts["a"][0])


def test_dataclasses_and_nested_structures() -> None:
    model = Around()
    x = torch.randn(2, 4, dtype=torch.float64)
    found = LayerAttnLRP(model, model.layer).attribute(x, target=1)
    assert isinstance(found, Found)
    assert found.nothing is None
    with torch.no_grad():
        output = model.layer(Found((x * 2, x + 1), {"a": x * 3}))
    given = (*output.states, output.parts["a"][0])
    expected = AttnLRP(model.read).attribute(given, target=1)
    for one, other in zip((*found.states, found.parts["a"][0]), expected, strict=True):
        assert relative(one, other) < 1e-12
    into = LayerAttnLRP(model, model.layer).attribute(
        x, target=1, attribute_to_layer_input=True
    )
    assert [tuple(part.shape) for part in into] == [(2, 4)] * 3
    neuron = NeuronAttnLRP(model, model.layer)
    chosen = neuron.attribute(x, lambda f: f.states[0][:, 1])
    alone = AttnLRP(lambda x: torch.tanh(model.layer.linear(x * 2))[:, 1])
    assert relative(chosen, alone.attribute(x)) < 1e-12
