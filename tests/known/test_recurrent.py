"""Recurrent layers, GLU and autograd functions: equal to their operators."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional

from captum_transformer_lrp import CPLRP, AttnLRP, TransformerLRP, registry
from captum_transformer_lrp.errors import RuleError, UnknownOperatorError
from captum_transformer_lrp.known.functions import Opened
from captum_transformer_lrp.known.recurrent import RECURRENT
from tests.helpers import relative


def draw(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


LAYERS: dict[str, nn.RNNBase] = {
    "lstm": nn.LSTM(4, 6, 2),
    "lstm, both ways, projected": nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3),
    "gru, both ways, batch first": nn.GRU(
        4, 6, 2, bidirectional=True, batch_first=True
    ),
    "gru without bias": nn.GRU(4, 6, bias=False),
    "rnn": nn.RNN(4, 6, 2),
    "rnn with relu": nn.RNN(4, 6, nonlinearity="relu", batch_first=True),
}


class Last(nn.Module):
    """Reads the outputs and the last states of a recurrent layer."""

    def __init__(self, layer: nn.Module, packed: bool) -> None:
        super().__init__()
        self.layer = layer
        self.packed = packed

    def forward(self, x: Tensor) -> Tensor:
        if self.packed:
            first = self.layer.batch_first
            packed = nn.utils.rnn.pack_padded_sequence(
                x, [5, 3, 3], batch_first=first, enforce_sorted=True
            )
            output, states = self.layer(packed)
            output, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=first)
        else:
            output, states = self.layer(x)
        output = output if self.layer.batch_first else output.transpose(0, 1)
        states = states if isinstance(states, tuple) else (states,)
        parts = [output.sum(1), *(s.transpose(0, 1).flatten(1) for s in states)]
        return torch.cat(parts, 1)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_written_out_equals_torch(name: str, packed: bool) -> None:
    layer = LAYERS[name].double()
    model = Last(layer, packed).eval()
    x = draw(3, 5, 4) if layer.batch_first else draw(5, 3, 4)
    leaf = x.clone().requires_grad_()
    expected = model(leaf)
    (gradient,) = torch.autograd.grad(expected.square().sum(), leaf)

    class Written(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            function = RECURRENT.get(func.__name__, func)
            return function(*args, **(kwargs or {}))

    with Written():
        found = model(leaf)
    assert relative(found.detach(), expected.detach()) < 1e-14
    (other,) = torch.autograd.grad(found.square().sum(), leaf)
    assert relative(other, gradient) < 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_conserve(name: str) -> None:
    layer = LAYERS[name].double()
    model = Last(layer, packed=False).eval()

    def score(x: Tensor) -> Tensor:
        return model(x if layer.batch_first else x.transpose(0, 1))

    for method in (CPLRP, AttnLRP):
        trace = method(score).trace(draw(3, 5, 4), target=1)
        assert trace.unseen < 1e-10
        gates = [r for r in trace if r.operator in ("mul", "sigmoid", "tanh", "relu")]
        assert gates
        assert all(abs(r.absorbed) < 1e-12 for r in gates)


class OneLSTM(nn.Module):
    """An LSTM's step with its gates as the textbook writes them."""

    def __init__(self, cell: nn.LSTMCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 4, dtype=x.dtype)
        for step in x.unbind(1):
            gates = functional.linear(step, self.cell.weight_ih, self.cell.bias_ih)
            gates = gates + functional.linear(h, self.cell.weight_hh, self.cell.bias_hh)
            c = gates[:, 4:8].sigmoid() * c + gates[:, :4].sigmoid() * torch.tanh(
                gates[:, 8:12]
            )
            h = gates[:, 12:].sigmoid() * torch.tanh(c)
        return h


@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp", "epsilon-plus", "epsilon"])
def test_cell_equals_textbook(composite: str) -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(3, 4).double()

    def fused(x: Tensor) -> Tensor:
        state = None
        for step in x.unbind(1):
            state = cell(step, state)
        return state[0]

    x = draw(2, 4, 3)
    found = TransformerLRP(fused, composite).attribute(x, target=1)
    expected = TransformerLRP(OneLSTM(cell), composite).attribute(x, target=1)
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp", "epsilon-plus"])
@pytest.mark.parametrize("dim", [1, -1])
def test_glu_is_a_gate(composite: str, dim: int) -> None:
    weight = draw(12, 12)

    def fused(x: Tensor) -> Tensor:
        return functional.glu(functional.linear(x, weight), dim).flatten(1)

    def written(x: Tensor) -> Tensor:
        a, b = functional.linear(x, weight).chunk(2, dim)
        return (a * b.sigmoid()).flatten(1)

    x = draw(2, 4, 12)
    found = TransformerLRP(fused, composite).attribute(x, target=2)
    expected = TransformerLRP(written, composite).attribute(x, target=2)
    assert relative(found, expected) < 1e-12


class Squared(Function):
    """``gelu(x) ** 2``, with a backward pass that nobody should call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.mark_non_differentiable()
        return functional.gelu(x).square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


class Apart(Function):
    """The same with a context set up apart."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return functional.gelu(x).square()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float("nan")


@pytest.mark.parametrize("function", [Squared, Apart])
def test_opened_functions_equal_their_operators(function: Any) -> None:
    weight = draw(4, 6)
    before = Function.__dict__.get("apply")

    def model(x: Tensor) -> Tensor:
        return function.apply(functional.linear(x, weight))

    def plain(x: Tensor) -> Tensor:
        return functional.gelu(functional.linear(x, weight)).square()

    x = draw(2, 6)
    name = f"{function.__module__}.{function.__qualname__}"
    with pytest.raises(UnknownOperatorError, match=name):
        AttnLRP(model).attribute(x, target=1)
    with registry.override({name: Opened()}):
        seen: list[Tensor] = []

        def elsewhere(t: Tensor) -> Tensor:
            thread = threading.Thread(target=lambda: seen.append(model(draw(2, 6))))
            thread.start()
            thread.join()
            return model(t)

        found = AttnLRP(elsewhere).attribute(x, target=1)
    assert relative(found, AttnLRP(plain).attribute(x, target=1)) < 1e-14
    assert relative(seen[0].detach(), plain(draw(2, 6))) == 0
    assert Function.__dict__.get("apply") is before
    with registry.override({nn.Linear: Opened()}):
        with pytest.raises(RuleError, match=r"expected the qualified name of"):
            AttnLRP(nn.Linear(6, 3).double()).attribute(x, target=1)
