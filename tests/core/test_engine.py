"""The engine leaves the model alone, sees every spelling, is never silently wrong."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
    registry,
    rules,
)
from captum_transformer_lrp.core.operators import KINDS, OPERATORS, operator_name
from captum_transformer_lrp.errors import (
    DropoutWarning,
    ModelStateError,
    UnknownOperatorError,
    UnknownOperatorWarning,
)
from tests.helpers import assert_same_state, deep_copy, relative, state_of, tiny

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def embeddings(model: Any) -> Tensor:
    return model.embedding(IDS).detach()


def on_embeddings(model: Any) -> Callable[[Tensor], Tensor]:
    return lambda x: model(inputs_embeds=x)


# ------------------------------------------------------------------- the user's model


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
def test_model_is_untouched(method: Any) -> None:
    model = tiny(dropout=0.1)
    model.head.weight.requires_grad_(False)
    before = state_of(model)
    method(model).attribute(IDS, target=1)
    method(model).trace(IDS, target=1)
    assert_same_state(before, state_of(model))


def test_model_is_untouched_after_an_exception() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny()
            self.act = nn.GELU()

        def forward(self, x: Tensor) -> Tensor:
            self.act(self.model(inputs_embeds=x))
            raise KeyError("the model's own error")

    model = Fails().eval()
    before = state_of(model)
    lrp = TransformerLRP(model, rules={nn.GELU: rules.Identity()})
    with pytest.raises(KeyError, match="the model's own error"):
        lrp.attribute(embeddings(model.model), target=1)
    assert_same_state(before, state_of(model))


def test_exception_inside_a_module_with_a_rule() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise KeyError("inside")

    model = nn.Sequential(nn.Linear(3, 3), Fails())
    before = state_of(model)
    with pytest.raises(KeyError, match="inside"):
        TransformerLRP(model, rules={Fails: rules.Identity()}).attribute(
            torch.ones(1, 3)
        )
    assert torch.is_grad_enabled()
    assert_same_state(before, state_of(model))


def test_inputs_are_untouched_even_by_a_model_that_writes_into_them() -> None:
    x = torch.randn(2, 3)
    copy = x.clone()
    found = AttnLRP(lambda x: x.mul_(2.0).sum(1)).attribute(x)
    assert torch.equal(x, copy)
    assert not x.requires_grad
    assert torch.allclose(found, 2 * x)
    assert not found.requires_grad


def test_under_no_grad_and_frozen_parameters() -> None:
    model = tiny()
    expected = AttnLRP(model).attribute(IDS, target=1)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        found = AttnLRP(model).attribute(IDS, target=1)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected)


def test_inference_mode_is_refused_and_can_be_left() -> None:
    model = tiny()
    lrp = AttnLRP(model)
    with torch.inference_mode():
        with pytest.raises(ModelStateError, match="inference_mode"):
            lrp.attribute(IDS, target=1)
        with torch.inference_mode(False):
            assert lrp.attribute(IDS, target=1).shape == IDS.shape
    assert lrp.attribute(IDS, target=1).shape == IDS.shape


def test_nested_explanations_do_not_disturb_each_other() -> None:
    model, inner = tiny(0), tiny(1)
    expected = AttnLRP(model).attribute(IDS, target=1)
    expected_inner = CPLRP(inner).attribute(IDS, target=0)
    found_inner = []

    def forward(ids: Tensor) -> Tensor:
        found_inner.append(CPLRP(inner).attribute(IDS, target=0))
        return model(ids)

    assert torch.equal(AttnLRP(forward).attribute(IDS, target=1), expected)
    assert torch.equal(found_inner[0], expected_inner)


def test_threads_explain_the_same_model_with_different_methods() -> None:
    model = tiny()
    model.blocks[0].act = nn.GELU()  # registers global hooks for the rule below
    explainers = [
        AttnLRP(model),
        CPLRP(model),
        GradientXInput(model),
        TransformerLRP(model, rules={nn.LayerNorm: rules.Detach()}),
    ]
    expected = [e.attribute(IDS, target=1) for e in explainers]
    before = state_of(model)
    wrong: list[str] = []
    start = threading.Barrier(len(explainers))

    def run(i: int) -> None:
        start.wait()
        for _ in range(12):
            if not torch.equal(explainers[i].attribute(IDS, target=1), expected[i]):
                wrong.append(repr(explainers[i]))

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(explainers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert_same_state(before, state_of(model))


# ------------------------------------------------------------------ exactness of ratios


def test_gradient_x_input_equals_captum_exactly() -> None:
    model = tiny()
    x = embeddings(model)
    expected = InputXGradient(on_embeddings(model)).attribute(
        x.clone().requires_grad_(), target=1
    )
    assert torch.equal(
        GradientXInput(on_embeddings(model)).attribute(x, target=1), expected
    )


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
def test_identifiers_equal_the_sum_over_embedding_features(method: Any) -> None:
    model = tiny()
    by_feature = method(on_embeddings(model)).attribute(embeddings(model), target=1)
    found = method(model).attribute(IDS, target=1)
    assert found.shape == IDS.shape
    assert relative(found, by_feature.sum(-1)) < 1e-13


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_the_batch_does_not_matter(method: Any) -> None:
    model = tiny()
    together = method(model).attribute(IDS, target=torch.tensor([1, 2]))
    alone = [
        method(model).attribute(IDS[i : i + 1], target=t) for i, t in ((0, 1), (1, 2))
    ]
    assert relative(together, torch.cat(alone)) < 1e-12


@pytest.mark.parametrize(
    "look_up",
    [
        lambda w, i: functional.embedding(i, w),
        lambda w, i: w[i],
        lambda w, i: w.index_select(0, i.reshape(-1)).view(*i.shape, -1),
        lambda w, i: functional.embedding(i.view(-1), w).view(*i.shape, -1),
        lambda w, i: functional.embedding(i.to(torch.int32).clamp(min=0), w),
        lambda w, i: functional.embedding(i.masked_fill(i == 99, 0), w),
        lambda w, i: functional.embedding(torch.cat([i[:, :2], i[:, 2:]], 1), w),
        lambda w, i: functional.embedding(i[:, torch.tensor([0, 1, 2, 3, 4])], w),
        lambda w, i: functional.embedding(i.gather(1, torch.arange(5).expand(2, 5)), w),
        lambda w, i: torch.stack(
            [functional.embedding(c, w) for c in i.unbind(1)], dim=1
        ),
    ],
)
def test_identifiers_are_followed_to_the_embedding(
    look_up: Callable[[Tensor, Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(20, 4))
    vector = torch.randn(4)

    def model(ids: Tensor) -> Tensor:
        position_ids = torch.cumsum(ids.ne(1).int(), 1)  # made of ids, but no token
        x = look_up(weight, ids) + functional.embedding(position_ids, weight)
        return (x @ vector).sum(1)

    found = AttnLRP(model).attribute(IDS)
    expected = look_up(weight, IDS).detach() @ vector
    assert torch.allclose(found, expected, atol=1e-6)


def test_constants_between_identifiers_count_but_belong_to_no_one() -> None:
    """As encoder-decoders do: a start token and the identifiers, shifted by one."""
    weight = torch.randn(20, 4).double()
    vector = torch.randn(5, 4).double()

    def by_writing(ids: Tensor) -> Tensor:
        shifted = ids.new_zeros(ids.shape)
        shifted[:, 1:] = ids[:, :-1].clone()
        shifted[:, 0] = 2
        return (functional.embedding(shifted, weight) * vector).sum((1, 2))

    def by_concatenation(ids: Tensor) -> Tensor:
        start = torch.full_like(ids[:, :1], 2)
        shifted = torch.cat([start, ids[:, :-1]], 1)
        return (functional.embedding(shifted, weight) * vector).sum((1, 2))

    expected = (weight[IDS[:, :-1]] * vector[1:]).sum(-1)
    for model in (by_writing, by_concatenation):
        found = AttnLRP(model).attribute(IDS)
        assert torch.allclose(found[:, :-1], expected) and not found[:, -1].any()
        trace = AttnLRP(model).trace(IDS)
        assert trace.score == pytest.approx(model(IDS).sum().item())
        assert trace.conservation_error < 1e-12
        start = (weight[2] * vector[0]).sum().item() * len(IDS)
        assert trace.absorbed == pytest.approx(start)


def test_identifiers_that_go_through_a_table_of_integers() -> None:
    weight, table = torch.randn(20, 4).double(), torch.arange(19, -1, -1)

    def model(ids: Tensor) -> Tensor:
        return functional.embedding(table[ids], weight).sum((1, 2))

    assert torch.allclose(AttnLRP(model).attribute(IDS), weight[19 - IDS].sum(-1))


def test_one_embedding_read_twice_adds_up() -> None:
    weight = torch.randn(20, 4)

    def model(ids: Tensor) -> Tensor:
        x = functional.embedding(ids, weight) + 2 * functional.embedding(ids, weight)
        return x.sum((1, 2))

    assert torch.allclose(AttnLRP(model).attribute(IDS), 3 * weight[IDS].sum(-1))


@pytest.mark.parametrize(
    "spellings",
    [
        (lambda a, b: a * b, torch.mul, Tensor.mul, torch.ops.aten.mul,
         torch.ops.aten.mul.Tensor, torch.multiply, lambda a, b: a.clone().mul_(b),
         lambda a, b: a.clone().__imul__(b)),
        (lambda a, b: a / b, torch.div, torch.true_divide, Tensor.div,
         lambda a, b: a.clone().div_(b)),
        (lambda a, b: torch.softmax(a, -1) * b, lambda a, b: a.softmax(-1) * b,
         lambda a, b: functional.softmax(a, dim=-1) * b,
         lambda a, b: nn.Softmax(-1)(a) * b),
        (lambda a, b: functional.silu(a) + b, lambda a, b: nn.SiLU()(a) + b,
         lambda a, b: functional.silu(a.clone(), inplace=True) + b,
         lambda a, b: nn.SiLU(inplace=True)(a.clone()) + b,
         lambda a, b: torch.ops.aten.silu(a) + b),
        (lambda a, b: torch.relu(a) ** 2 + b, lambda a, b: a.relu().square() + b,
         lambda a, b: a.clone().relu_().pow(2) + b,
         lambda a, b: torch.square(functional.relu(a, inplace=False)) + b),
        (lambda a, b: 2 - a + b, lambda a, b: -(a - 2) + b,
         lambda a, b: torch.rsub(a, 2) + b),
        (lambda a, b: torch.rsqrt(a.abs()) * b, lambda a, b: a.abs() ** -0.5 * b,
         lambda a, b: b / a.abs().sqrt(), lambda a, b: (1 / a.abs().sqrt()) * b,
         lambda a, b: a.abs().sqrt().reciprocal() * b),
        (lambda a, b: a @ b.T, lambda a, b: torch.mm(a, b.T),
         lambda a, b: a.matmul(b.mT), lambda a, b: functional.linear(a, b),
         lambda a, b: torch.einsum("ik,jk->ij", a, b),
         lambda a, b: torch.addmm(torch.zeros(()).double(), a, b.t()),
         lambda a, b: torch.bmm(a[None], b.T[None])[0]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_spellings_of_an_operator_agree(method: Any, spellings: Any) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 3).double(), torch.randn(3, 3).double()
    results = []
    for spelling in spellings:

        def model(a: Tensor, b: Tensor, spelling: Any = spelling) -> Tensor:
            return (spelling(a, b) * torch.arange(1.0, 4.0)).sum(1)

        results.append(method(model).attribute((a, b)))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_kinds_and_operators_have_different_names() -> None:
    """A row for a kind must not be mistaken for a row of an operator."""
    operators = {name for names in OPERATORS.values() for name in names}
    assert operators & set(KINDS) == {"softmax"}  # which is of that kind
    assert set(OPERATORS) <= set(KINDS)
    assert operator_name(torch.mm) == "mm"  # torch.overrides calls it torch.spmm


def test_parameters_never_become_relevant() -> None:
    """A product with a parameter, or with something made of one, is not halved."""
    weight = nn.Parameter(torch.randn(3).double())
    x = torch.randn(2, 3).double()

    def model(x: Tensor) -> Tensor:
        return (x * weight * weight.exp() * torch.stack([weight, weight])[0]).sum(1)

    found = AttnLRP(model).attribute(x)
    assert torch.allclose(found, (x * weight**2 * weight.exp()).detach())


def test_in_place_on_what_a_rule_returned() -> None:
    """``x *= y`` and slices written into, after rules that rebuild their output."""

    def model(x: Tensor) -> Tensor:
        y = functional.gelu(x)
        y += 1.0
        z = y * torch.tanh(x)
        z[:, 0] = 0.0
        z *= 2.0
        view = z.view(-1, 3)
        view *= 3.0
        norm = functional.layer_norm(z, (3,))
        norm += z
        return norm.sum(1)

    def out_of_place(x: Tensor) -> Tensor:
        y = functional.gelu(x) + 1.0
        z = y * torch.tanh(x)
        z = torch.cat([torch.zeros_like(z[:, :1]), z[:, 1:]], 1) * 2.0 * 3.0
        return (functional.layer_norm(z, (3,)) + z).sum(1)

    x = torch.randn(4, 3).double()
    assert (
        relative(AttnLRP(model).attribute(x), AttnLRP(out_of_place).attribute(x))
        < 1e-12
    )


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, EpsilonLRP, GradientXInput])
@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm2d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.BatchNorm2d(4),
        nn.GroupNorm(2, 4),
        nn.LayerNorm(3),
        nn.RMSNorm(3),
    ],
    ids=str,
)
def test_in_place_on_what_a_norm_returned(norm: nn.Module, method: Any) -> None:
    """An activation that writes into the output of a normalisation, as in RAFT."""
    norm = copy.deepcopy(norm).double().eval()
    x = torch.randn(2, 4, 3, 3).double()
    weights = torch.randn(2, 4, 3, 3).double()

    def score(y: Tensor) -> Tensor:
        return (y * weights[: len(y)]).flatten(1).sum(1)

    found = method(lambda x: score(functional.relu_(norm(x)))).attribute(x)
    expected = method(lambda x: score(functional.relu(norm(x)))).attribute(x)
    assert torch.equal(found, expected)


def test_multi_head_attention_is_opened() -> None:
    """torch's own attention module hands itself over whole; its inside is seen."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    x = torch.randn(2, 5, 8).double()

    class Written(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            qkv = functional.linear(x, attention.in_proj_weight, attention.in_proj_bias)
            q, k, v = qkv.view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
            pattern = (q @ k.transpose(-2, -1) / 2).softmax(-1)
            return attention.out_proj((pattern @ v).transpose(1, 2).reshape(2, 5, 8))

    for weights in (True, False):
        for method in (AttnLRP, CPLRP):
            found = method(
                lambda x, w=weights: attention(x, x, x, need_weights=w)[0].sum(1)
            ).attribute(x, target=3)
            expected = method(lambda x: Written()(x).sum(1)).attribute(x, target=3)
            assert relative(found, expected) < 1e-12


def test_transformer_encoder_layer_of_torch() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    layer = layer.double().eval()
    x = torch.randn(2, 5, 8).double()
    lrp = CPLRP(lambda x: layer(x).mean(1))
    assert lrp.trace(x, target=0).conservation_error < 1e-10
    assert torch.isfinite(
        AttnLRP(lambda x: layer(x).mean(1)).attribute(x, target=0)
    ).all()


# ------------------------------------------------------------------- unknown operators


class Unknown(nn.Module):
    """Uses two operators for which no rule exists."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.corrcoef(x)
        return torch.special.i0(x).sum(1)


def test_unknown_operators_are_all_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Unknown())
    with pytest.raises(UnknownOperatorError) as error:
        AttnLRP(model).attribute(torch.ones(2, 3))
    message = str(error.value)
    assert "AttnLRP has no rule for 2 differentiable operator(s)" in message
    assert "corrcoef  in 1  with x(2, 3)" in message
    assert "special_i0  in 1  with x(2, 2)" in message
    assert 'registry.register("special_i0", "activation")' in message
    assert 'registry.register("corrcoef", rules.PlainGradient())' in message
    assert "Kinds: structural, additive" in message


def test_unknown_operators_may_keep_their_gradient() -> None:
    model, x = Unknown(), torch.rand(2, 3).double()
    expected = InputXGradient(model).attribute(x.clone().requires_grad_())
    found = AttnLRP(model, unknown="gradient").attribute(x)
    assert torch.equal(found, expected)
    with pytest.warns(UnknownOperatorWarning, match="corrcoef"):
        assert torch.equal(AttnLRP(model, unknown="warn").attribute(x), expected)
    with pytest.raises(ValueError, match="unknown='ignore'; expected one of 'raise'"):
        AttnLRP(model, unknown="ignore")  # type: ignore[arg-type]


class Doubling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class Hidden(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Doubling.apply(x)


def test_autograd_functions_are_found_in_the_graph() -> None:
    """They never reach the mode; without a look at the graph they would pass unseen."""
    model, x = nn.Sequential(nn.Linear(3, 2), Hidden()), torch.ones(1, 3)
    with pytest.raises(UnknownOperatorError, match=r"autograd function .*Doubling"):
        AttnLRP(model).attribute(x, target=0)
    found = AttnLRP(model, rules={Hidden: rules.Identity()}).attribute(x, target=0)
    expected = AttnLRP(lambda x: 2 * model[0](x)).attribute(x, target=0)
    assert torch.allclose(found, expected)


def test_an_autograd_function_may_keep_its_own_gradient() -> None:
    model, x = nn.Sequential(nn.Linear(3, 2), Hidden()), torch.ones(1, 3)
    name = f"{__name__}.Doubling"
    with pytest.raises(UnknownOperatorError, match=rf'register\("{name}", rules.Plain'):
        AttnLRP(model).attribute(x, target=0)
    with registry.override({name: rules.PlainGradient()}):
        found = AttnLRP(model).attribute(x, target=0)
    assert torch.allclose(found, (2 * x * model[0].weight[0]).detach())


def test_constant_unknown_operators_do_not_matter() -> None:
    table = torch.rand(3)
    found = AttnLRP(lambda x: (x * torch.cumprod(table, 0)).sum(1)).attribute(
        torch.ones(1, 3)
    )
    assert torch.allclose(found[0], torch.cumprod(table, 0))


# ------------------------------------------------------------------ modes of the model


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
def test_checkpoint_without_reentry_gives_the_same(method: Any) -> None:
    model = tiny()

    def checkpointed(x: Tensor) -> Tensor:
        x = x + model.position[:, :5]
        for block in model.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return model.head(x.mean(1))

    x = embeddings(model)
    expected = method(on_embeddings(model)).attribute(x, target=1)
    assert relative(method(checkpointed).attribute(x, target=1), expected) < 1e-13


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, EpsilonLRP])
@pytest.mark.parametrize(
    "function",
    [
        functional.gelu,
        functional.elu,
        lambda z: torch.where(z > 0, z, z.exp() - 1),
        lambda z: z.exp() * (1 + z.exp()).reciprocal() + z,
        lambda z: functional.layer_norm(z, z.shape[-1:]),
        lambda z: z.pow(3),
        lambda z: z / z.norm(),
        lambda z: z + z.softmax(-1),
    ],
)
def test_checkpoint_around_one_function_gives_the_same(
    function: Any, method: Any
) -> None:
    """Nothing in it multiplies."""
    layer, x = nn.Linear(4, 4).double(), torch.randn(3, 4).double()
    expected = method(lambda x: function(layer(x))).attribute(x, target=1)
    found = method(
        lambda x: checkpoint(function, layer(x), use_reentrant=False)
    ).attribute(x, target=1)
    assert relative(found, expected) < 1e-13


def test_checkpoint_without_reentry_around_modules_with_rules() -> None:
    model = tiny()
    table = {nn.LayerNorm: rules.Detach()}

    def checkpointed(x: Tensor) -> Tensor:
        x = x + model.position[:, :5]
        for block in model.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return model.head(x.mean(1))

    x = embeddings(model)
    expected = TransformerLRP(on_embeddings(model), rules=table).attribute(x, target=1)
    found = TransformerLRP(checkpointed, rules=table).attribute(x, target=1)
    assert relative(found, expected) < 1e-13


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")
def test_checkpoint_of_a_hugging_face_model_gives_the_same() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=16,
        n_layer=2,
        n_head=2,
        vocab_size=50,
        n_positions=32,
        resid_pdrop=0,
        embd_pdrop=0,
        attn_pdrop=0,
        bos_token_id=1,
        eos_token_id=2,
        use_cache=False,
    )
    torch.manual_seed(0)
    ids = torch.tensor([[3, 4, 5, 6]])
    checkpointed = transformers.GPT2LMHeadModel(config).double()
    plain = deep_copy(checkpointed).eval()
    checkpointed.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs={"use_reentrant": False}
    )
    checkpointed.train()
    # first the checkpointed one: what a rule computes once must not count as saved
    found = AttnLRP(checkpointed).attribute(ids, target=(-1, 3))
    expected = AttnLRP(plain).attribute(ids, target=(-1, 3))
    assert relative(found, expected) < 1e-13


@pytest.mark.parametrize("unknown", ["raise", "gradient"])
@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
def test_reentrant_checkpoint_is_refused(
    method: type[TransformerLRP], unknown: str
) -> None:
    model = tiny()

    def checkpointed(x: Tensor) -> Tensor:
        for block in model.blocks:
            x = checkpoint(block, x, use_reentrant=True)
        return model.head(x.mean(1))

    with pytest.raises(ModelStateError, match="use_reentrant=True"):
        method(checkpointed, unknown=unknown).attribute(embeddings(model), target=1)


def test_active_dropout_is_said_and_draws_as_a_forward_pass_does() -> None:
    model = tiny(dropout=0.5).train()
    torch.manual_seed(3)
    model(IDS)
    drawn = torch.get_rng_state()
    torch.manual_seed(3)
    with pytest.warns(DropoutWarning, match=r"Call model\.eval\(\)") as warned:
        first = AttnLRP(model).attribute(IDS, target=1)
    assert warned[0].filename == __file__
    assert torch.equal(drawn, torch.get_rng_state())  # nothing is rewound
    with pytest.warns(DropoutWarning), torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        assert torch.equal(AttnLRP(model).attribute(IDS, target=1), first)
    assert torch.equal(drawn, torch.get_rng_state())
    model.dropout.p = 0.0
    AttnLRP(model).attribute(IDS, target=1)  # training mode without dropout: no warning


def test_batch_norm_in_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    x = torch.randn(4, 3)
    before = state_of(model)
    with pytest.raises(ModelStateError, match=r"'1' is in training mode.*model\.eval"):
        AttnLRP(model).attribute(x, target=0)
    assert_same_state(before, state_of(model))
    model.eval()
    assert AttnLRP(model).trace(x, target=0).conservation_error < 1e-5


def test_scripted_models_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated in newer torch
        model = torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3))
    with pytest.raises(ModelStateError, match="TorchScript"):
        AttnLRP(model).attribute(torch.ones(1, 3), target=0)


def test_shared_modules_and_tied_weights() -> None:
    """A module that runs twice, and a head that is the embedding's table."""
    model = tiny()
    model.blocks[1] = model.blocks[0]

    def tied(ids: Tensor) -> Tensor:
        x = model.embedding(ids)
        for block in model.blocks:
            x = block(x)
        return functional.linear(x.mean(1), model.embedding.weight)

    trace = CPLRP(tied).trace(IDS, target=[4, 7])
    assert trace.conservation_error < 1e-12


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_half_precision_is_no_worse_than_gradient_x_input(
    method: Any, dtype: torch.dtype
) -> None:
    """Relative error to float64, in the mean over models."""
    errors = {method: 0.0, GradientXInput: 0.0}
    for seed in range(6):
        exact = tiny(seed, width=32)
        half = tiny(seed, width=32).to(dtype)
        exact.load_state_dict({k: v.double() for k, v in half.state_dict().items()})
        x = half.embedding(IDS).detach()
        for m in errors:
            found = m(on_embeddings(half)).attribute(x, target=1)
            expected = m(on_embeddings(exact)).attribute(x.double(), target=1)
            assert torch.isfinite(found).all()
            errors[m] += float((found.double() - expected).norm() / expected.norm())
    assert errors[method] <= errors[GradientXInput] * 1.05


def test_zeros_in_half_precision_give_no_nan() -> None:
    x = torch.zeros(1, 4, dtype=torch.float16)
    for function in (functional.gelu, functional.silu, torch.tanh, torch.sigmoid):
        found = AttnLRP(lambda x, f=function: f(x).sum(1)).attribute(x)
        assert torch.isfinite(found).all()
