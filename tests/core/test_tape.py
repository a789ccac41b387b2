"""Relevance is descent from the inputs; what runs unseen on the way is named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
    registry,
    rules,
)
from captum_transformer_lrp.core.composites import ATTN_LRP
from captum_transformer_lrp.core.engine import Engine
from captum_transformer_lrp.errors import LRPError, ModelStateError
from tests.helpers import relative

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # by jvp
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
]

METHODS = {
    "AttnLRP": AttnLRP,
    "CP-LRP": CPLRP,
    "epsilon": EpsilonLRP,
    "gamma": lambda model: TransformerLRP(model, "gamma"),
    "alpha-beta": lambda model: TransformerLRP(model, "alpha-beta"),
    "epsilon-gamma-box": lambda model: TransformerLRP(model, "epsilon-plus-flat"),
}


class Net(nn.Module):
    """Two linear layers ``a`` and ``h``, and a function of them and the input."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(8, 8, bias=False, dtype=torch.float64)
        self.b = nn.Linear(8, 8, bias=False, dtype=torch.float64)
        self.h = nn.Linear(8, 3, bias=False, dtype=torch.float64)
        self.function = function
        self.outside = self.a.weight * 2  # requires a gradient, and is no parameter
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1)).double()


def assert_equal_maps(
    one: Callable[..., Any], other: Callable[..., Any], method: str, x: Tensor
) -> None:
    with torch.no_grad():
        assert relative(one(x), other(x)) < 1e-12, "the two functions differ"
    expected = METHODS[method](other).attribute(x, target=1)
    found = METHODS[method](one).attribute(x, target=1)
    assert relative(found, expected) < 1e-9


def silu(net: Any, x: Tensor) -> Tensor:
    return net.h(functional.silu(net.a(x)))


# ------------------------------------------------------------ what is no relevance


class Straight(torch.autograd.Function):
    """Rounds; the gradient passes as if it did not."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        return (w * 8).round() / 8

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def twice(function: Callable[..., Tensor], weights: Callable[[Any], Tensor]) -> Any:
    """Return the function with weights that require a gradient, and with constants."""
    return (
        lambda net, x: function(net, x, weights(net)),
        lambda net, x: function(net, x, weights(net).detach()),
    )


CONSTANTS = {
    "computed outside": twice(
        lambda net, x, w: net.h(functional.silu(functional.linear(x, w))),
        lambda net: net.outside,
    ),
    "an autograd function over weights": twice(
        lambda net, x, w: net.h(functional.linear(functional.silu(net.a(x)), w.t())),
        lambda net: Straight.apply(net.a.weight),
    ),
    "a factor": twice(
        lambda net, x, w: net.h(net.a(x) * w[0]), lambda net: net.outside
    ),
    "a sum": twice(
        lambda net, x, w: net.h(functional.silu(net.a(x) + w[0])),
        lambda net: net.outside,
    ),
    "keys and values of a memory": twice(
        lambda net, x, w: net.h(
            functional.scaled_dot_product_attention(
                net.a(x)[:, None],
                w[None].expand(len(x), 8, 8),
                net.b(x)[:, None].expand(len(x), 8, 8),
            )[:, 0]
        ),
        lambda net: net.outside,
    ),
    "in a list": twice(
        lambda net, x, w: net.h(torch.cat([net.a(x), w[:1].expand(len(x), 8)], 0))[
            : len(x)
        ],
        lambda net: net.outside,
    ),
    "a target that is written into": twice(
        lambda net, x, w: net.h(
            w[:1].expand(len(x), 8).clone().index_copy_(1, torch.arange(4), x[:, :4])
        ),
        lambda net: net.outside,
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CONSTANTS)
def test_what_does_not_descend_from_the_input_is_a_constant(
    case: str, method: str
) -> None:
    one, other = CONSTANTS[case]
    assert_equal_maps(Net(one), Net(other), method, draw(2, 8))


@pytest.mark.parametrize("method", METHODS)
def test_parametrisations_that_are_cached_are_constants(method: str) -> None:
    layer = parametrizations.weight_norm(nn.Linear(8, 3).double())
    model = nn.Sequential(nn.Linear(8, 8).double(), nn.GELU(), layer)
    expected = METHODS[method](model).attribute(draw(2, 8), target=1)
    with parametrize.cached():
        model(draw(2, 8))
        found = METHODS[method](model).attribute(draw(2, 8), target=1)
    assert relative(found, expected) < 1e-12


def test_records_hold_no_tensor_and_end_with_the_pass() -> None:
    x = draw(2, 8).requires_grad_()
    passed = x.clone()
    with Engine(ATTN_LRP) as engine:
        engine.tape.start(x, passed)
        output = passed * 2
        made = engine.tape.of(output)
        assert made is not None and made.operator is not None
        assert made.operator.name == "mul"
        assert [parent.operator for parent in made.parents] == [None]
    with Engine(ATTN_LRP) as later:
        assert later.tape.of(output) is None
        assert later.tape.meet(output, str) is None  # foreign: made by another pass


# --------------------------------------------------------------- what runs unseen


@dataclass(frozen=True)
class Unseen:
    """A function that hides operators, the same in the open, and what is said."""

    function: Callable[[Any, Tensor], Any]
    open: Callable[[Any, Tensor], Any]
    says: str


def in_a_thread(function: Callable[[], Tensor]) -> Tensor:
    with ThreadPoolExecutor(1) as pool:

        def work() -> Tensor:
            with torch.enable_grad():
                return function()

        return pool.submit(work).result()


def into_a_buffer(net: Any, x: Tensor, buffer: Callable[[Tensor], Tensor]) -> Tensor:
    z = net.a(x)
    into = buffer(z)

    def work() -> None:
        with torch.enable_grad():
            into.copy_(functional.silu(z))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return net.h(into)


def written_without_gradients(net: Any, x: Tensor) -> Tensor:
    z = net.a(x)
    with torch.no_grad():
        z.mul_(3)
    return net.h(functional.silu(z))


class Square(torch.autograd.Function):
    """x * x, by a function of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * gradients[0]


UNSEEN = {
    "vmap": Unseen(
        lambda net, x: net.h(torch.vmap(lambda e: functional.silu(net.a(e)))(x)),
        silu,
        "torch.vmap",
    ),
    "vmap at the end": Unseen(
        lambda net, x: torch.vmap(lambda e: silu(net, e))(x), silu, "torch.vmap"
    ),
    "vmap that closes over relevance": Unseen(
        lambda net, x: net.h(
            torch.vmap(lambda e: functional.silu(e) * net.a(x)[0])(net.a(x))
        ),
        lambda net, x: net.h(functional.silu(net.a(x)) * net.a(x)[0]),
        "torch.vmap",
    ),
    "jvp": Unseen(
        lambda net, x: torch.func.jvp(
            lambda e: silu(net, e), (x,), (torch.ones_like(x),)
        )[0],
        silu,
        "torch.func.jvp",
    ),
    "vjp": Unseen(
        lambda net, x: torch.func.vjp(lambda e: silu(net, e), x)[0],
        silu,
        "torch.func.grad",
    ),
    "a thread": Unseen(
        lambda net, x: net.h(in_a_thread(lambda: functional.silu(net.a(x)))),
        silu,
        "in another thread",
    ),
    "a thread for the whole": Unseen(
        lambda net, x: in_a_thread(lambda: silu(net, x)), silu, "in another thread"
    ),
    "a thread that fills a buffer": Unseen(
        lambda net, x: into_a_buffer(net, x, torch.empty_like),
        silu,
        "in another thread",
    ),
    "a thread that overwrites": Unseen(
        lambda net, x: into_a_buffer(net, x, torch.clone), silu, "a write in place"
    ),
    "a write under no_grad": Unseen(
        written_without_gradients,
        lambda net, x: net.h(functional.silu(net.a(x) * 3)),
        "a write in place",
    ),
    "an autograd function": Unseen(
        lambda net, x: net.h(Square.apply(net.a(x))),
        lambda net, x: net.h(net.a(x) ** 2),
        f"{__name__}.Square",
    ),
    "a checkpoint that re-enters": Unseen(
        lambda net, x: checkpoint(lambda e: silu(net, e), x, use_reentrant=True),
        silu,
        "use_reentrant=True",
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", UNSEEN)
def test_what_runs_unseen_is_refused_by_name(case: str, method: str) -> None:
    unseen = UNSEEN[case]
    x = draw(2, 8)
    with torch.no_grad():
        assert relative(Net(unseen.function)(x), Net(unseen.open)(x)) < 1e-12
    with pytest.raises(LRPError) as error:
        METHODS[method](Net(unseen.function)).attribute(x, target=1)
    assert unseen.says in str(error.value)


@pytest.mark.parametrize(
    "case", [c for c in UNSEEN if "no_grad" not in c and "re-enters" not in c]
)
def test_the_gradient_needs_no_rules(case: str) -> None:
    unseen, x = UNSEEN[case], draw(2, 8)
    expected = GradientXInput(Net(unseen.open)).attribute(x, target=1)
    found = GradientXInput(Net(unseen.function)).attribute(x, target=1)
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", UNSEEN)
def test_what_is_not_on_the_way_is_nobodys_business(case: str, method: str) -> None:
    """A branch that is thrown away, or gives an index only."""
    hidden = UNSEEN[case].function

    def beside(net: Any, x: Tensor) -> Tensor:
        chosen = hidden(net, x * 1).argmax(-1)
        return net.h(functional.silu(net.a(x)) * (1.0 + chosen[:, None]))

    def apart(net: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            chosen = hidden(net, x * 1).argmax(-1)
        return net.h(functional.silu(net.a(x)) * (1.0 + chosen[:, None]))

    assert_equal_maps(Net(beside), Net(apart), method, draw(2, 8))


def test_an_autograd_function_is_explained_by_its_row() -> None:
    name = f"{__name__}.Square"
    with registry.override({name: rules.PlainGradient()}):
        found = AttnLRP(Net(UNSEEN["an autograd function"].function)).attribute(
            draw(2, 8), target=1
        )
    assert bool(found.isfinite().all()) and bool(found.any())


# ------------------------------------------------ the model differentiates itself


def forces(net: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x if x.requires_grad else x.clone().requires_grad_()
        energy = silu(net, x).sum()
        (gradient,) = torch.autograd.grad(energy, x, create_graph=True)
    return gradient


def of_a_constant(net: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(silu(net, at).sum(), at)
    return silu(net, x) * gradient[:, :3]


def by_backward(net: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x if x.requires_grad else x.clone().requires_grad_()
        x.retain_grad()
        silu(net, x).sum().backward(create_graph=True)
    assert x.grad is not None
    return x.grad


DIFFERENTIATE = {
    "forces": forces,
    "of a constant": of_a_constant,
    "backward": by_backward,
    "func.grad": lambda net, x: torch.vmap(
        torch.func.grad(lambda e: silu(net, e).sum())
    )(x),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", DIFFERENTIATE)
def test_a_model_that_differentiates_itself_is_refused(case: str, method: str) -> None:
    with pytest.raises(ModelStateError, match=r"torch\.autograd\.(grad|backward)"):
        METHODS[method](Net(DIFFERENTIATE[case])).attribute(draw(2, 8), target=1)


def test_gradient_x_input_of_forces_is_torchs_second_derivative() -> None:
    net, x = Net(forces), draw(2, 8).requires_grad_()
    (expected,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    found = GradientXInput(net).attribute(x.detach(), target=1)
    assert relative(found, expected * x.detach()) < 1e-12


# ------------------------------------------------------------------ one function


def gelu(z: Tensor) -> Tensor:
    return 0.5 * z * (1 + torch.tanh(0.7978845608028654 * (z + 0.044715 * z**3)))


def gelu_in_place(z: Tensor) -> Tensor:
    out = 0.5 * z
    out *= 1 + torch.tanh(0.7978845608028654 * (z + 0.044715 * z.pow(3)))
    return out


FUNCTIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gelu": (gelu, lambda z: functional.gelu(z, approximate="tanh")),
    "gelu in place": (gelu_in_place, lambda z: functional.gelu(z, approximate="tanh")),
    "exact gelu": (
        lambda z: z * (1 + torch.erf(z / 2**0.5)) / 2,
        functional.gelu,
    ),
    "silu": (lambda z: z * torch.sigmoid(z), functional.silu),
    "silu by a quotient": (lambda z: z / (1 + torch.exp(-z)), functional.silu),
    "silu, the gate first": (lambda z: torch.sigmoid(z).mul(z), functional.silu),
    "hardswish": (
        lambda z: z * torch.clamp(z + 3, 0, 6) / 6,
        functional.hardswish,
    ),
    "mish": (lambda z: z * torch.tanh(functional.softplus(z)), functional.mish),
    "softsign": (lambda z: z / (1 + z.abs()), functional.softsign),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", FUNCTIONS)
def test_one_function_of_one_tensor_is_one_activation(case: str, method: str) -> None:
    written, fused = FUNCTIONS[case]
    assert_equal_maps(
        Net(lambda net, x: net.h(written(net.a(x)))),
        Net(lambda net, x: net.h(fused(net.a(x)))),
        method,
        draw(3, 8),
    )


def test_functions_of_two_tensors_keep_the_rules_of_their_operators() -> None:
    """A gated unit: half of the relevance to either factor."""
    net = Net(lambda net, x: net.h(functional.silu(net.a(x)) * net.b(x)))
    x = draw(2, 8)
    with torch.no_grad():
        gate, value = net.a(x), net.b(x)
        out = net.h.weight[1] * functional.silu(gate) * value  # relevance, (2, 8)
        expected = x * (
            (out / (2 * gate)) @ net.a.weight + (out / (2 * value)) @ net.b.weight
        )
    assert relative(AttnLRP(net).attribute(x, target=1), expected) < 1e-9


# ----------------------------------------------------------------- the score's end


ENDS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "sigmoid": (torch.sigmoid, 0.5),
    "softplus": (functional.softplus, 0.6931471805599453),
    "logsigmoid": (functional.logsigmoid, -0.6931471805599453),
    "hardsigmoid": (functional.hardsigmoid, 0.5),
    "sigmoid of another shape": (
        lambda z: torch.sigmoid(z)[:, :, None].squeeze(2),
        0.5,
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_the_value_at_zero_of_the_last_activation_is_a_constant(case: str) -> None:
    end, at_zero = ENDS[case]
    logits = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3)).double()
    x = draw(4, 8)
    z = logits(x)[:, 1].detach()
    expected = AttnLRP(logits).attribute(x, target=1)  # sums to z, up to biases
    expected = expected * ((end(z[:, None])[:, 0] - at_zero) / z)[:, None]
    model = nn.Sequential(logits, Ends(end))
    assert relative(AttnLRP(model).attribute(x, target=1), expected) < 1e-9
    trace = AttnLRP(model).trace(x, target=1)
    assert trace.conservation_error < 1e-9


class Ends(nn.Module):
    """A function at the end of a model."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


# ---------------------------------------------------------------------- around


@pytest.mark.parametrize("method", METHODS)
def test_backward_hooks_of_the_user_change_nothing(method: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3)).double()
    expected = METHODS[method](model).attribute(draw(2, 8), target=1)
    model[0].register_full_backward_hook(lambda *_: None)
    model[1].register_full_backward_pre_hook(lambda *_: None)
    model.register_full_backward_hook(lambda *_: None)
    found = METHODS[method](model).attribute(draw(2, 8), target=1)
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "written, plain",
    [
        (
            lambda z: functional.relu(input=z, inplace=True),
            functional.relu,
        ),
        (lambda z: functional.silu(input=z, inplace=True), functional.silu),
        (lambda z: torch.sigmoid_(input=z), torch.sigmoid),
        (lambda z: z.mul_(other=z.sigmoid()), functional.silu),
        (lambda z: torch.add(z, z, out=torch.empty_like(z)), lambda z: 2 * z),
        (lambda z: torch.mul(input=z, other=3, out=z.clone()), lambda z: 3 * z),
    ],
)
def test_in_place_by_keyword(written: Any, plain: Any, method: str) -> None:
    assert_equal_maps(
        Net(lambda net, x: net.h(written(net.a(x)))),
        Net(lambda net, x: net.h(plain(net.a(x)))),
        method,
        draw(2, 8),
    )


class Reads(nn.Module):
    """A function of its argument and of a tensor that stands in an attribute."""

    def forward(self, z: Tensor) -> Tensor:
        return functional.silu(z) * self.beside


def test_a_module_with_a_rule_may_not_read_beside_its_arguments() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.reads = nn.Linear(8, 8), Reads()

        def forward(self, x: Tensor) -> Tensor:
            self.reads.beside = self.first(x)
            return self.reads(x)

    model = Model().eval()
    with registry.override({Reads: rules.Identity()}):
        with pytest.raises(ModelStateError, match="'reads' is treated as one operator"):
            AttnLRP(model).attribute(draw(2, 8).float(), target=1)


def test_labels_in_a_batch_change_nothing() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
    )
    model = transformers.BertForSequenceClassification(config).eval().double()
    ids = torch.randint(5, 60, (2, 7), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = {**batch, "labels": torch.tensor([0, 1])}
    for method in (*METHODS.values(), CheferLRP):
        expected = method(model).attribute(batch, target=1)
        assert relative(method(model).attribute(labels, target=1), expected) < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_an_operator_that_takes_functions_is_refused(method: str) -> None:
    """``torch.cond`` is traced by torch."""

    def either(net: Any, x: Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda v: silu(net, v), lambda v: net.h(v), (x,))

    with pytest.raises(LRPError) as error:
        METHODS[method](Net(either)).attribute(draw(2, 8), target=1)
    assert "torch.cond" in str(error.value)


class Remembers(nn.Module):
    """Writes into a state, which may be a parameter."""

    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.make, self.last = make, nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = self.make(torch.zeros_like(x))
        state.copy_(x.tanh())
        return self.last(state * 2)


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
def test_a_parameter_that_was_written_into_carries_relevance(method: Any) -> None:
    """It is no constant because of its class."""
    torch.manual_seed(0)
    x = torch.randn(3, 4).double()
    plain = Remembers(lambda state: state).double()
    frozen = Remembers(lambda state: nn.Parameter(state, requires_grad=False))
    frozen.last = plain.last
    expected = method(plain).attribute(x, target=1)
    assert relative(method(frozen).attribute(x, target=1), expected) < 1e-12
    assert float(expected.abs().max()) > 0.01
