"""Relevance of heads, neurons and experts, and relevance that passes them only."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    GradientXInput,
    LayerAttnLRP,
    LayerCPLRP,
    LayerTransformerLRP,
    NeuronAttnLRP,
    NeuronCPLRP,
    NeuronTransformerLRP,
    TransformerLRP,
    units,
)
from captum_transformer_lrp.errors import (
    DisconnectedError,
    InputError,
    ModelStateError,
    TargetError,
    UnitError,
)
from tests.helpers import assert_same_state, relative, state_of, tiny

METHODS = [
    ("attnlrp", AttnLRP, LayerAttnLRP),
    ("cp-lrp", CPLRP, LayerCPLRP),
]
EXACT = 1e-12  # float64


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = draw(2, 5, 8)


class Body(nn.Module):
    """Two blocks of ``Tiny`` on embeddings, pooled."""

    blocks: Any

    def __init__(self) -> None:
        super().__init__()
        self.tiny = tiny()
        self.blocks = self.tiny.blocks

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.tiny.head(x.mean(1))


def heads_of(body: Body, block: int = 1) -> units.Heads:
    return units.Heads(body.blocks[block].out, heads=2)


# ----------------------------------------------------------------- what heads receive


@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_heads_are_slices_of_the_projections_input(
    name: str, whole: Any, layer: Any
) -> None:
    body = Body()
    found = layer(body, heads_of(body)).attribute(X, target=1)
    features = layer(body, body.blocks[1].out).attribute(
        X, target=1, attribute_to_layer_input=True
    )
    assert found.shape == (2, 5, 2)
    assert relative(found[..., 0], features[..., :4].sum(-1)) < EXACT
    assert relative(found[..., 1], features[..., 4:].sum(-1)) < EXACT


@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_heads_sum_to_what_a_projection_without_bias_received(
    name: str, whole: Any, layer: Any
) -> None:
    body = Body()
    with torch.no_grad():
        body.tiny.get_parameter("blocks.1.out.bias").zero_()
    heads, out = layer(body, [heads_of(body), body.blocks[1].out]).attribute(
        X, target=1
    )
    assert relative(heads.sum((1, 2)), out.sum((1, 2))) < EXACT


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("weights", [True, False])
def test_heads_of_multi_head_attention(batch_first: bool, weights: bool) -> None:
    """Its output projection is a weight that no module runs."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, bias=False, batch_first=batch_first)
    attention.double().eval()

    def forward(x: Tensor) -> Tensor:
        x = x if batch_first else x.transpose(0, 1)
        out = attention(query=x, key=x, value=x, need_weights=weights)[0]
        return out[:, 2] if batch_first else out[2]

    found = LayerAttnLRP(forward, units.Heads(attention)).attribute(X, target=1)
    assert found.shape == (2, 5, 2)
    assert relative(found.sum((1, 2)), forward(X)[:, 1].detach()) < EXACT
    assert (found[:, [0, 1, 3, 4]] == 0).all()  # the score is read from one token
    # values of a head, times the part of the projection that reads it
    value = X @ attention.in_proj_weight[16:].T
    query, key = (X @ attention.in_proj_weight[i : i + 8].T for i in (0, 8))
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 2
        spoken = scores.softmax(-1) @ value[..., part]
        expected = spoken @ attention.out_proj.weight[1, part]
        assert relative(found[:, 2, head], expected[:, 2].detach()) < EXACT


def test_neurons_are_the_input_of_the_second_map() -> None:
    body = Body()
    block = body.blocks[0]
    found = LayerAttnLRP(body, units.Neurons(block.down)).attribute(X, target=1)
    expected = LayerAttnLRP(body, block.down).attribute(
        X, target=1, attribute_to_layer_input=True
    )
    assert found.shape == (2, 5, 16) and torch.equal(found, expected)


# -------------------------------------------------------------------- passing a unit


def head_outputs(block: Any, x: Tensor) -> Tensor:
    """What the heads of a ``Block`` say, side by side."""
    batch, tokens, width = x.shape
    parts = block.qkv(block.norm(x)).view(batch, tokens, 3, 2, 4)
    q, k, v = parts.permute(2, 0, 3, 1, 4)
    pattern = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
    return (pattern @ v).transpose(1, 2).reshape(batch, tokens, width)


def after_heads(block: Any, heads: Tensor, x: Tensor) -> Tensor:
    """The rest of a ``Block``, with the residual branch of its input."""
    x = x + block.out(heads)
    gated = nn.functional.silu(block.gate(x)) * block.up(x)
    return x + block.down(gated)


@pytest.mark.parametrize("selected", [[0], [1], [0, 1]])
def test_relevance_through_heads_against_the_chain_rule(selected: list[int]) -> None:
    """Gradient x Input through a head is a vector-Jacobian product in two parts."""
    body = Body()
    below, block = body.blocks
    start = X.clone().requires_grad_()
    hidden = below(start)
    heads = head_outputs(block, hidden)
    cut = heads.detach().requires_grad_()
    score = body.tiny.head(after_heads(block, cut, hidden.detach()).mean(1))[:, 1]
    (arriving,) = torch.autograd.grad(score.sum(), cut)
    mask = torch.zeros(8).double()
    for head in selected:
        mask[4 * head : 4 * head + 4] = 1
    (gradient,) = torch.autograd.grad(heads, start, arriving * mask)

    found = GradientXInput(body, through={heads_of(body): selected})
    assert relative(found.attribute(X, target=1), (X * gradient).detach()) < EXACT


@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_disjoint_parts_add_up(name: str, whole: Any, layer: Any) -> None:
    body = Body()
    for unit, count in [
        (heads_of(body), 2),
        (units.Neurons(body.blocks[0].down), 16),
        (units.Layer(body.blocks[1]), 8),
    ]:
        parts = [
            whole(body, through={unit: (..., i)}).attribute(X, target=1)
            for i in range(count)
        ]
        all_of_it = whole(body, through={unit: (...,)}).attribute(X, target=1)
        assert relative(torch.stack(parts).sum(0), all_of_it) < EXACT
        assert not torch.allclose(parts[0], all_of_it)


@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_all_paths_through_a_cut_are_everything(
    name: str, whole: Any, layer: Any
) -> None:
    """A block has no path around it; its attention has the residual branch."""
    body = Body()
    unconditional = whole(body).attribute(X, target=1)
    through_block = whole(body, through={body.blocks[0]: (...,)})
    assert relative(through_block.attribute(X, target=1), unconditional) < EXACT
    through_heads = whole(body, through={heads_of(body): (...,)})
    around = unconditional - through_heads.attribute(X, target=1)
    assert around.abs().max() > 0.1 * unconditional.abs().max()


def test_units_one_after_the_other_in_any_order_of_writing() -> None:
    body = Body()
    first, second = heads_of(body, 0), heads_of(body, 1)
    forth = AttnLRP(body, through={first: 0, second: 1}).attribute(X, target=1)
    back = AttnLRP(body, through={second: 1, first: 0}).attribute(X, target=1)
    assert torch.equal(forth, back)
    # paths through both are the sum over what comes to the first through the second
    total = torch.zeros_like(X)
    for i in range(2):
        for j in range(2):
            total += AttnLRP(body, through={first: i, second: j}).attribute(X, target=1)
    everything = AttnLRP(body, through={first: (...,), second: (...,)})
    assert relative(total, everything.attribute(X, target=1)) < EXACT


def test_a_layer_below_receives_what_passed() -> None:
    body = Body()
    unit = heads_of(body)
    found = LayerAttnLRP(body, body.blocks[0], through={unit: 1})
    hidden = body.blocks[0](X).detach()

    def rest(x: Tensor) -> Tensor:
        return body.tiny.head(body.blocks[1](x).mean(1))

    expected = AttnLRP(rest, through={unit: 1}).attribute(hidden, target=1)
    assert relative(found.attribute(X, target=1), expected) < EXACT
    same = LayerAttnLRP(body, unit, through={unit: 1}).attribute(X, target=1)
    alone = LayerAttnLRP(body, unit).attribute(X, target=1)
    assert (same[..., 0] == 0).all() and torch.equal(same[..., 1], alone[..., 1])


def test_masks_and_functions_select() -> None:
    body = Body()
    unit = heads_of(body)
    listed = AttnLRP(body, through={unit: (slice(1, 3), 0)}).attribute(X, target=1)
    mask = torch.zeros(5, 2, dtype=torch.bool)
    mask[1:3, 0] = True
    masked = AttnLRP(body, through={unit: mask}).attribute(X, target=1)
    of_each = AttnLRP(body, through={unit: mask.expand(2, 5, 2)})
    assert torch.equal(of_each.attribute(X, target=1), masked)
    first = mask.expand(2, 5, 2).clone()
    first[1] = False
    of_first = AttnLRP(body, through={unit: first}).attribute(X, target=1)
    assert torch.equal(of_first[0], masked[0]) and (of_first[1] == 0).all()
    hidden = torch.zeros(5, 8, dtype=torch.bool)
    hidden[2, 3] = True
    neuron = NeuronAttnLRP(body, body.blocks[0])
    assert torch.equal(neuron.attribute(X, hidden), neuron.attribute(X, (2, 3)))
    unequal = hidden.repeat(2, 1, 1)
    unequal[0, 2, 3], unequal[1, 4, 4] = False, True
    found, delta = neuron.attribute(X, unequal, return_convergence_delta=True)
    value = body.blocks[0](X)[1, [2, 4], [3, 4]].sum().detach()
    assert (found[0] == 0).all() and delta[0] == 0
    assert torch.allclose(delta[1], value - found[1].sum())
    seen = []

    def choose(parts: Tensor) -> Tensor:
        seen.append(parts)
        return mask

    called = AttnLRP(body, through={unit: choose}).attribute(X, target=1)
    assert torch.equal(listed, masked) and torch.equal(listed, called)
    assert seen[0].shape == (2, 5, 2) and not seen[0].requires_grad


@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp", "epsilon"])
def test_the_trace_says_what_did_not_pass(composite: str) -> None:
    body = Body()
    lrp = TransformerLRP(body, composite, through={heads_of(body): 1})
    trace = lrp.trace(X, target=1)
    assert trace.unseen < 1e-10
    (gate,) = [r for r in trace if r.operator == "through"]
    assert gate.module == "tiny.blocks.1.out"
    heads = LayerTransformerLRP(body, heads_of(body), composite).attribute(X, target=1)
    assert gate.received == pytest.approx(float(heads.sum()), rel=1e-10)
    assert gate.passed == pytest.approx(float(heads[..., 1].sum()), rel=1e-10)


def test_relevance_itself_passes_units_too() -> None:
    """Where the gradient is relevance, not relevance over input."""
    from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION

    body = Body()
    everything = TransformerLRP(body, TRANSFORMER_ATTRIBUTION).attribute(X, target=1)
    block = TransformerLRP(
        body, TRANSFORMER_ATTRIBUTION, through={body.blocks[1]: (...,)}
    )
    assert relative(block.attribute(X, target=1), everything) < EXACT
    # for these rules relevance is read off as it is, not times the value
    heads = LayerTransformerLRP(body, heads_of(body), TRANSFORMER_ATTRIBUTION)
    trace = TransformerLRP(
        body, TRANSFORMER_ATTRIBUTION, through={heads_of(body): 1}
    ).trace(X, target=1)
    (gate,) = [r for r in trace if r.operator == "through"]
    received = heads.attribute(X, target=1)
    assert gate.received == pytest.approx(float(received.sum()), rel=1e-10)
    assert gate.passed == pytest.approx(float(received[..., 1].sum()), rel=1e-10)


# --------------------------------------------------------------------------- neurons


def test_neuron_is_gradient_times_input_of_the_neuron() -> None:
    body = Body()
    start = X.clone().requires_grad_()
    hidden = body.blocks[0](start)
    (gradient,) = torch.autograd.grad(hidden[:, 2, 5].sum(), start)
    neuron = NeuronTransformerLRP(body, body.blocks[0], "gradient-x-input")
    found, delta = neuron.attribute(X, (2, 5), return_convergence_delta=True)
    assert relative(found, (X * gradient).detach()) < EXACT
    assert torch.allclose(delta, hidden[:, 2, 5].detach() - found.sum((1, 2)))


@pytest.mark.parametrize("cls", [NeuronAttnLRP, NeuronCPLRP])
def test_neuron_equals_the_model_that_ends_there(cls: Any) -> None:
    body = Body()
    whole = {NeuronAttnLRP: AttnLRP, NeuronCPLRP: CPLRP}[cls]
    ends = whole(lambda x: body.blocks[0](x)[:, 2]).attribute(X, target=5)
    assert relative(cls(body, body.blocks[0]).attribute(X, (2, 5)), ends) < EXACT
    several = cls(body, body.blocks[0]).attribute(X, (2, slice(3, 6)))
    alone = sum(
        cls(body, body.blocks[0]).attribute(X, (2, feature)) for feature in (3, 4, 5)
    )
    assert relative(several, alone) < EXACT
    function = cls(body, body.blocks[0]).attribute(X, lambda h: h[:, 2, 3:6].sum(1))
    assert relative(function, alone) < EXACT
    at_input = cls(body, body.blocks[1]).attribute(
        X, (2, 5), attribute_to_neuron_input=True
    )
    assert relative(at_input, ends) < EXACT


def test_neuron_of_a_model_without_biases_keeps_its_value() -> None:
    body = Body()
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    for unit, selector in [
        (units.Layer(body.blocks[1]), (3, 1)),
        (heads_of(body), (3, 1)),
        (units.Neurons(body.blocks[1].down), (slice(None), 7)),
    ]:
        explainer = NeuronCPLRP(body, unit)
        found, delta = explainer.attribute(X, selector, return_convergence_delta=True)
        assert delta.shape == (2,) and found.abs().sum() > 0
        assert (delta.abs() / found.abs().sum((1, 2))).max() < EXACT
        assert explainer.trace(X, selector).conservation_error < EXACT


def test_neuron_of_two_dimensions_takes_an_index_as_captum_does() -> None:
    from captum.attr import NeuronGradient

    net = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 3)).double()
    x = draw(2, 4)
    theirs = NeuronGradient(net, net[1]).attribute(x.clone().requires_grad_(), 3)
    ours = NeuronTransformerLRP(net, net[1], "gradient-x-input").attribute(x, 3)
    assert relative(ours, x * theirs) < EXACT
    theirs = NeuronGradient(net, net[1]).attribute(
        x.clone().requires_grad_(), (slice(1, 4),)
    )
    sliced = NeuronTransformerLRP(net, net[1], "gradient-x-input")
    assert relative(sliced.attribute(x, (slice(1, 4),)), x * theirs) < EXACT


def test_neuron_needs_no_rule_for_what_comes_after() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below = nn.Linear(8, 8).double()

        def forward(self, x: Tensor) -> Tensor:
            return torch.special.i0(self.below(x)).sum(1)

    net = Product()
    with pytest.raises(RuntimeError, match="no rule"):
        AttnLRP(net).attribute(X, target=1)
    found = NeuronAttnLRP(net, net.below).attribute(X, (2, 5))
    assert relative(found[:, 2], X[:, 2] * net.below.weight[5].detach()) < EXACT
    assert (found[:, [0, 1, 3, 4]] == 0).all()


def test_neuron_through_a_head() -> None:
    body = Body()
    unit = heads_of(body, 0)
    parts = [
        NeuronAttnLRP(body, body.blocks[1], through={unit: i}).attribute(X, (0, 1))
        for i in range(2)
    ]
    both = NeuronAttnLRP(body, body.blocks[1], through={unit: (...,)})
    assert relative(parts[0] + parts[1], both.attribute(X, (0, 1))) < EXACT


def test_neurons_from_identifiers() -> None:
    net = tiny()
    ids = torch.tensor([[3, 1, 4], [2, 7, 7]])
    found = NeuronCPLRP(net, net.blocks[1]).attribute(ids, (0, 3))
    embedded = net.embedding(ids).detach()
    expected = NeuronCPLRP(lambda e: net(inputs_embeds=e), net.blocks[1]).attribute(
        embedded, (0, 3)
    )
    assert relative(found, expected.sum(-1)) < EXACT


# --------------------------------------------------- layers that run more than once


class Shared(nn.Module):
    """One layer, three times, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.layer(x).tanh()
        return self.head(x)


def test_runs_of_a_shared_layer_are_told_apart() -> None:
    net, x = Shared(), draw(2, 4)
    found = LayerAttnLRP(
        net, [units.Layer(net.layer, call=i) for i in (0, 1, 2, -1)]
    ).attribute(x, target=1)
    hidden = x
    for i in range(3):
        hidden = net.layer(hidden).detach()

        def rest(h: Tensor, left: int = 2 - i) -> Tensor:
            h = h.tanh()
            for _ in range(left):
                h = net.layer(h).tanh()
            return net.head(h)

        assert relative(found[i], AttnLRP(rest).attribute(hidden, target=1)) < EXACT
        hidden = hidden.tanh()
    assert torch.equal(found[2], found[3])
    first = units.Layer(net.layer, call=0)
    parts = [AttnLRP(net, through={first: i}).attribute(x, target=1) for i in range(4)]
    assert relative(sum(parts), AttnLRP(net).attribute(x, target=1)) < EXACT
    neuron = NeuronAttnLRP(net, units.Layer(net.layer, call=1)).attribute(x, 2)
    expected = AttnLRP(lambda x: net.layer(net.layer(x).tanh())).attribute(x, target=2)
    assert relative(neuron, expected) < EXACT


def test_which_run_must_be_said() -> None:
    net, x = Shared(), draw(2, 4)
    message = (
        r"'layer' runs more than once in one forward pass \(3 times\).*"
        r"units\.Layer\(module, call=0\)"
    )
    for explain in (
        lambda: LayerAttnLRP(net, net.layer).attribute(x, target=1),
        lambda: AttnLRP(net, through={net.layer: 0}).attribute(x, target=1),
        lambda: NeuronAttnLRP(net, net.layer).attribute(x, 0),
    ):
        with pytest.raises(InputError, match=message):
            explain()
    with pytest.raises(InputError, match=r"call=3 of the layer 'layer' is out of"):
        LayerAttnLRP(net, units.Layer(net.layer, call=3)).attribute(x, target=1)


# --------------------------------------------------------------------------- experts


class Mixture(nn.Module):
    """Two of four experts for each token; modules, called with their tokens only."""

    def __init__(self, dispatch: str) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.dispatch = dispatch
        self.router = nn.Linear(8, 5, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
            for _ in range(5)
        )
        self.head = nn.Linear(8, 3)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 8)
        scores = self.router(tokens)
        scores[:, 4] = -100.0  # an expert that is never asked
        weights, index = scores.softmax(-1).topk(2, -1)
        total = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            rows, slots = torch.where(index == number)
            if self.dispatch == "only the chosen" and not len(rows):
                continue
            spoken = expert(tokens[rows]) * weights[rows, slots, None]
            total = total.index_add(0, rows, spoken)
        return self.head((x + total.reshape(x.shape)).mean(1))


@pytest.mark.parametrize("dispatch", ["only the chosen", "all"])
@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_experts_that_are_modules(
    dispatch: str, name: str, whole: Any, layer: Any
) -> None:
    net = Mixture(dispatch)
    found = layer(net, units.Experts(net)).attribute(X, target=1)
    assert len(found) == 5
    assert sum(len(r) for r in found[:4]) == 2 * 10  # two experts for each token
    if dispatch == "all":
        assert found[4].shape == (0, 8)
    else:
        assert found[4] is None
    again = layer(net, net.experts[1]).attribute(X, target=1)
    assert torch.equal(found[1], again)
    parts = [
        whole(net, through={units.Experts(net): i}).attribute(X, target=1)
        for i in range(5)
    ]
    assert (parts[4] == 0).all() and parts[0].abs().sum() > 0
    together = whole(net, through={net.experts: slice(None)})
    with pytest.raises(InputError, match="did not run"):
        together.attribute(X, target=1)  # a ModuleList is no layer
    together = whole(net, through={units.Experts(net.experts): slice(None)})
    assert relative(sum(parts), together.attribute(X, target=1)) < EXACT


class Fused(nn.Module):
    """The same in one module, as Hugging Face has it: parameters of all experts."""

    num_experts = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.up = nn.Parameter(torch.randn(4, 12, 8) * 0.4)
        self.down = nn.Parameter(torch.randn(4, 8, 12) * 0.4)

    def forward(self, hidden: Tensor, index: Tensor, *, weights: Tensor) -> Tensor:
        total = torch.zeros_like(hidden)
        for expert in index.unique().tolist():
            rows, slots = torch.where(index == expert)
            spoken = nn.functional.gelu(hidden[rows] @ self.up[expert].T)
            spoken = (spoken @ self.down[expert].T) * weights[rows, slots, None]
            total.index_add_(0, rows, spoken)
        return total


class FusedMixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = Fused()
        self.router = nn.Linear(8, 4, bias=False)
        self.head = nn.Linear(8, 3)
        self.double()

    def routed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights, index = self.router(x.reshape(-1, 8)).softmax(-1).topk(2, -1)
        return weights, index

    def forward(self, x: Tensor) -> Tensor:
        weights, index = self.routed(x)
        mixed = self.experts(x.reshape(-1, 8), index, weights=weights)
        return self.head((x + mixed.reshape(x.shape)).mean(1))


@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_experts_in_one_module(name: str, whole: Any, layer: Any) -> None:
    net = FusedMixture()
    unit = units.Experts(net)
    found, mixed = layer(net, [unit, net.experts]).attribute(X, target=1)
    assert found.shape == (2, 5, 4)
    assert relative(found.sum(-1), mixed.reshape(2, 5, 8).sum(-1)) < EXACT
    # the head is linear: what an expert adds, times the head's row, over all tokens
    weights, index = net.routed(X)
    for token in range(10):
        hidden = X.reshape(-1, 8)[token]
        for expert in range(4):
            expected = torch.zeros(()).double()
            for slot in range(2):
                if index[token, slot] == expert:
                    spoken = nn.functional.gelu(net.experts.up[expert] @ hidden)
                    spoken = net.experts.down[expert] @ spoken * weights[token, slot]
                    expected = spoken @ net.head.weight[1] / 5
            assert torch.allclose(found[token // 5, token % 5, expert], expected)


@pytest.mark.parametrize(("name", "whole", "layer"), METHODS)
def test_relevance_through_experts_in_one_module(
    name: str, whole: Any, layer: Any
) -> None:
    net = FusedMixture()
    unit = units.Experts(net.experts)
    parts = [whole(net, through={unit: i}).attribute(X, target=1) for i in range(4)]
    mixture = whole(net, through={net.experts: (...,)}).attribute(X, target=1)
    assert relative(sum(parts), mixture) < EXACT
    unchosen = (net.routed(X)[1] != 2).all(-1).reshape(2, 5)
    assert unchosen.any() and (parts[2][unchosen] == 0).all()
    assert (parts[2][~unchosen] != 0).any()
    neuron = NeuronCPLRP(net, unit)
    chosen = int(net.routed(X)[1][0, 0])
    found, delta = neuron.attribute(X, (0, chosen), return_convergence_delta=True)
    assert found[0].abs().sum() > 0 and delta.abs().max() < EXACT


def test_the_models_output_is_the_same_with_experts_taken_apart() -> None:
    net = FusedMixture()
    outputs = []
    net.head.register_forward_hook(lambda _, args, out: outputs.append(out.detach()))
    net(X)
    LayerAttnLRP(net, units.Experts(net)).attribute(X, target=1)
    assert torch.equal(outputs[0], outputs[1])


def test_experts_that_cannot_be_told_apart() -> None:
    class Opaque(Fused):
        def forward(self, hidden: Tensor, index: Tensor, *, weights: Tensor) -> Tensor:
            return super().forward(hidden, index, weights=weights) + hidden

    net = FusedMixture()
    net.experts = Opaque().double()
    with pytest.raises(UnitError, match=r"Opaque is no sum over its experts"):
        LayerAttnLRP(net, units.Experts(net)).attribute(X, target=1)
    body = Body()
    with pytest.raises(UnitError, match=r"Linear is called with \(2, 5, 8\) float64"):
        LayerAttnLRP(body, units.Experts(body.blocks[0].out)).attribute(X, target=1)


# ------------------------------------------------------------------------- discovery


def test_what_cannot_be_told_is_asked() -> None:
    body = Body()
    block = body.blocks[0]
    with pytest.raises(UnitError, match=r"Linear does not say how many heads it has"):
        units.Heads(block.out)
    assert units.Heads(block).heads == 2 and units.Heads(block).module is block.out
    assert units.Neurons(block).module is block.down
    with pytest.raises(UnitError, match=r"Sequential has 0 children .* second linear"):
        units.Neurons(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(UnitError, match=r"has 8 features, which are not 3 heads"):
        LayerAttnLRP(body, units.Heads(block.out, heads=3)).attribute(X, target=1)
    with pytest.raises(TypeError, match=r"Heads got a str; expected a torch.nn.Mod"):
        units.Heads("attention")


def test_errors() -> None:
    body = Body()
    unit = heads_of(body)
    with pytest.raises(InputError, match=r"2 does not select from Heads of Linear, of"):
        AttnLRP(body, through={unit: 2}).attribute(X, target=1)
    with pytest.raises(InputError, match=r"such as \(\.\.\., 3\) for a feature of all"):
        NeuronAttnLRP(body, body.blocks[0]).attribute(X, 3)
    with pytest.raises(TypeError, match=r"a selector is a str; expected an index"):
        AttnLRP(body, through={unit: "all"}).attribute(X, target=1)
    with pytest.raises(InputError, match=r"Layer of Block runs after Heads of Linear"):
        LayerAttnLRP(body, body.blocks[1], through={unit: 0}).attribute(X, target=1)
    with pytest.raises(InputError, match=r"Heads of Linear runs after Layer of Block"):
        NeuronAttnLRP(body, body.blocks[0], through={unit: 0}).attribute(X, (0, 1))
    with pytest.raises(InputError, match=r"the layer Linear did not run"):
        AttnLRP(body, through={nn.Linear(8, 8): 0}).attribute(X, target=1)
    with pytest.raises(TypeError, match=r"leave attribute_to_layer_input out"):
        LayerAttnLRP(body, unit).attribute(X, target=1, attribute_to_layer_input=True)
    with pytest.raises(TypeError, match=r"layer='x'; expected a torch\.nn\.Module"):
        AttnLRP(body, through={"x": 0})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"the selector returned a int"):
        NeuronAttnLRP(body, body.blocks[0]).attribute(X, lambda h: 3)
    side = nn.Linear(8, 8).double()

    def beside(x: Tensor) -> Tensor:
        side(x)
        return body(x)

    with pytest.raises(DisconnectedError, match=r"no relevance comes to Layer of Lin"):
        AttnLRP(beside, through={side: (...,)}).attribute(X, target=1)
    assert (LayerAttnLRP(beside, side).attribute(X, target=1) == 0).all()

    def detached(x: Tensor) -> Tensor:
        with torch.no_grad():
            x = body.blocks[0](x)
        return body.tiny.head(body.blocks[1](x + 0 * side(x)).mean(1))

    first = body.blocks[0].out
    with pytest.raises(DisconnectedError, match=r"the score does not depend on inputs"):
        LayerAttnLRP(detached, first).attribute(X, target=1)


def test_layers_with_several_tensors_are_selected_from_by_a_function() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, None, Tensor]:
            return x * 2, None, x * 3

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = Two()

        def forward(self, x: Tensor) -> Tensor:
            left, _, right = self.two(x)
            return left + right

    net, x = Net(), draw(2, 4)
    with pytest.raises(UnitError, match=r"Two has 2 tensors that carry relevance"):
        NeuronAttnLRP(net, net.two).attribute(x, 1)
    seen: list[Any] = []

    def right(value: Any) -> Tensor:
        seen.append(value)
        return value[2][:, 1]

    found = NeuronAttnLRP(net, net.two).attribute(x, right)
    assert torch.equal(found[:, 1], 3 * x[:, 1]) and seen[0][1] is None
    with pytest.raises(UnitError, match=r"Two has 2 tensors that carry relevance"):
        AttnLRP(net, through={net.two: 1}).attribute(x, target=1)

    def only_left(x: Tensor) -> Tensor:
        return net.two(x)[0]  # what is not used is not meant

    passed = AttnLRP(only_left, through={net.two: 1}).attribute(x, target=1)
    assert torch.equal(passed[:, 1], 2 * x[:, 1])


# ------------------------------------------------------- what stays as it was before


def test_the_model_is_left_alone() -> None:
    body = Body()
    unit, experts = heads_of(body), FusedMixture()
    before, of_experts = state_of(body), state_of(experts)
    LayerAttnLRP(body, [unit, body.blocks[0]], through={unit: 0}).attribute(X, target=1)
    NeuronAttnLRP(body, unit, through={heads_of(body, 0): 1}).attribute(X, 0)
    LayerAttnLRP(experts, units.Experts(experts)).attribute(X, target=1)
    with pytest.raises(TargetError):
        AttnLRP(body, through={unit: 0}).attribute(X, target=9)
    with pytest.raises(InputError):
        AttnLRP(body, through={unit: 9}).attribute(X, target=1)
    with torch.inference_mode(), pytest.raises(ModelStateError):
        NeuronAttnLRP(body, unit).attribute(X, 0)
    assert_same_state(before, state_of(body))
    assert_same_state(of_experts, state_of(experts))


def test_threads_read_their_own_runs() -> None:
    body = Body()
    inputs = [draw(2, 5, 8, seed=seed) for seed in range(4)]
    explain = [
        lambda x: LayerAttnLRP(body, heads_of(body)).attribute(x, target=1),
        lambda x: AttnLRP(body, through={heads_of(body): 1}).attribute(x, target=1),
        lambda x: NeuronAttnLRP(body, heads_of(body)).attribute(x, 1),
        lambda x: body(x).detach(),
    ]
    alone = [f(x) for f, x in zip(explain, inputs, strict=True)]
    together: list[Any] = [None] * 4

    def work(i: int) -> None:
        for _ in range(5):
            together[i] = explain[i](inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, found in zip(alone, together, strict=True):
        assert torch.equal(expected, found)


def test_through_a_checkpointed_model() -> None:
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Body):
        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.tiny.head(x.mean(1))

    plain, saving = Body(), Checkpointed()
    for unit in (heads_of, lambda b: units.Layer(b.blocks[0])):
        expected = AttnLRP(plain, through={unit(plain): (..., 1)})
        found = AttnLRP(saving, through={unit(saving): (..., 1)})
        of_plain = expected.attribute(X, target=1)
        assert relative(found.attribute(X, target=1), of_plain) < EXACT
    found = LayerAttnLRP(saving, heads_of(saving)).attribute(X, target=1)
    expected = LayerAttnLRP(plain, heads_of(plain)).attribute(X, target=1)
    assert relative(found, expected) < EXACT


def test_neurons_of_a_checkpointed_model() -> None:
    """What is computed again meets the rules that it met before."""
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Body):
        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.tiny.head(x.mean(1))

    plain, saving = Body(), Checkpointed()
    places: list[Any] = [
        (lambda b: b.blocks[0], (2, 5)),
        (lambda b: b.blocks[1], (2, 5)),
        (lambda b: b.blocks[0].norm, (2, 5)),
        (heads_of, (2, 1)),
    ]
    for place, selector in places:
        expected = NeuronAttnLRP(plain, place(plain)).attribute(X, selector)
        found = NeuronAttnLRP(saving, place(saving)).attribute(X, selector)
        assert relative(found, expected) < EXACT


def tensors_alive() -> int:
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())


def test_nothing_is_kept_after_a_call() -> None:
    """No cycle holds the graph until the garbage collector comes."""
    body, mixture = Body(), FusedMixture()
    explain = [
        lambda: AttnLRP(body, through={heads_of(body): 1}).attribute(X, target=1),
        lambda: LayerAttnLRP(body, [*body.blocks, heads_of(body)]).attribute(X, 1),
        lambda: NeuronAttnLRP(body, body.blocks[0]).attribute(X, (0, 1)),
        lambda: LayerAttnLRP(mixture, units.Experts(mixture)).attribute(X, target=1),
    ]
    for function in explain:
        function()  # what is made once and kept: tables, names
    gc.collect()
    gc.disable()
    try:
        for function in explain:
            before = tensors_alive()
            function()
            assert tensors_alive() == before
    finally:
        gc.enable()


def test_half_precision_and_no_grad() -> None:
    body = Body().to(torch.bfloat16)
    with torch.no_grad():
        found = AttnLRP(body, through={heads_of(body): 1}).attribute(
            X.bfloat16(), target=1
        )
    assert found.dtype == torch.bfloat16 and torch.isfinite(found).all()


# ------------------------------------------------------------- models as users have


def hugging_face(name: str, implementation: str) -> tuple[Any, Any, int]:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    common = {"vocab_size": 40, "pad_token_id": 0, "initializer_range": 0.4}
    if name == "bert":
        config = transformers.BertConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=24,
            attn_implementation=implementation,
            **common,
        )
        model = transformers.BertForSequenceClassification(config)
        return model, model.bert.encoder.layer[1].attention, 1
    if name == "gpt2":
        config = transformers.GPT2Config(
            n_embd=16,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation=implementation,
            **common,
        )
        model = transformers.GPT2LMHeadModel(config)
        return model, model.transformer.h[1].attn, 4
    config = transformers.LlamaConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        attn_implementation=implementation,
        **common,
    )
    model = transformers.LlamaForCausalLM(config)
    return model, model.model.layers[1].self_attn, 4


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_heads_of_hugging_face_models(name: str) -> None:
    """Under SDPA the layer returns (output, None); eager and SDPA agree."""
    found = []
    for implementation in ("eager", "sdpa"):
        model, attention, _ = hugging_face(name, implementation)
        model.double().eval()
        ids = torch.tensor([[3, 7, 1, 9, 4], [5, 2, 8, 8, 6]])
        target = 1 if name == "bert" else (-1, 3)
        heads, whole = LayerAttnLRP(
            model, [units.Heads(attention), attention]
        ).attribute(ids, target=target)
        assert heads.shape == (2, 5, 4) and whole[0].shape == (2, 5, 16)
        if implementation == "sdpa":
            assert whole[1] is None
        passed = AttnLRP(model, through={attention: (..., slice(None))})
        assert passed.attribute(ids, target=target).shape == (2, 5)
        found.append(heads)
        at_input = LayerAttnLRP(model, attention).attribute(
            ids, target=target, attribute_to_layer_input=True
        )
        assert (at_input if isinstance(at_input, Tensor) else at_input[0]).shape == (
            2,
            5,
            16,
        )
    assert relative(found[0], found[1]) < 1e-5  # Llama's eager softmax is in float32


def test_experts_of_hugging_face_models() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=24,
        num_local_experts=4,
        initializer_range=0.4,
    )
    if hasattr(config, "_experts_implementation"):
        config._experts_implementation = "eager"  # the others know no float64
    model = transformers.MixtralForCausalLM(config).double().eval()
    layer = model.model.layers[1]
    block = getattr(layer, "mlp", None) or layer.block_sparse_moe
    unit = units.Experts(block)
    ids = torch.tensor([[3, 7, 1, 9, 4], [5, 2, 8, 8, 6]])
    parts = [
        CPLRP(model, through={unit: i}).attribute(ids, target=(-1, 3)) for i in range(4)
    ]
    mixture = CPLRP(model, through={units.Layer(block): lambda h: torch.ones_like(h)})
    assert relative(sum(parts), mixture.attribute(ids, target=(-1, 3))) < 1e-10
    found = LayerCPLRP(model, unit).attribute(ids, target=(-1, 3))
    if unit.separate:  # transformers 4
        pytest.skip("each expert is a module here: see test_experts_that_are_modules")
    assert found.shape == (2, 5, 4) and ((found != 0).sum(-1) <= 2).all()
    whole = LayerCPLRP(model, block).attribute(ids, target=(-1, 3))
    assert relative(found.sum(-1), whole.sum(-1)) < 1e-10


def test_the_input_of_a_module_that_is_one_operator() -> None:
    """Llama's norm runs without gradients, and is rebuilt as a whole."""
    model, _, _ = hugging_face("llama", "sdpa")
    model.double().eval()
    ids = torch.tensor([[3, 7, 1, 9, 4]])
    norm, head = model.model.norm, model.lm_head
    found = LayerCPLRP(model, norm).attribute(
        ids, target=(-1, 3), attribute_to_layer_input=True
    )
    after = LayerCPLRP(model, norm).attribute(ids, target=(-1, 3))
    at_head = LayerCPLRP(model, head).attribute(
        ids, target=(-1, 3), attribute_to_layer_input=True
    )
    assert torch.equal(after[:, -1:], at_head[:, -1:])
    assert relative(found, after) < EXACT  # x * w / rms, with the rms a constant
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    neuron = NeuronCPLRP(model, units.Neurons(model.model.layers[1].mlp))
    by_mapping = neuron.attribute(batch, (-1, 2))
    assert relative(by_mapping, neuron.attribute(ids, (-1, 2))) < EXACT
    assert by_mapping.shape == ids.shape
