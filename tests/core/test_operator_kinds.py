"""One function written two ways has one relevance, whatever torch calls its operators.

Each row spells a function by an operator of its own, then by operators that all have a
rule. Both stand between linear layers, and every method must give them the same map.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    TransformerLRP,
    errors,
    registry,
    rules,
)

Function = Callable[[Tensor, Tensor], Tensor]


def _composite(name: str) -> Callable[[Any], TransformerLRP]:
    return lambda model: TransformerLRP(model, composite=name)


METHODS: dict[str, Callable[[Any], Any]] = {
    "attnlrp": AttnLRP,
    "cp-lrp": CPLRP,
    "epsilon": EpsilonLRP,
    "gamma": _composite("gamma"),
    "alpha-beta": _composite("alpha-beta"),
    "chefer": CheferLRP,
}


class Net(nn.Module):
    """``h(f(a x, b x))`` on five rows of eight features."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.h = nn.Linear(8, 3)
        self.function = function
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.function(self.a(x), self.b(x))
        result: Tensor = self.h(y).mean(1)
        return result


def inputs() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 8, 8, dtype=torch.float64, generator=generator)


def relative(found: Tensor, expected: Tensor) -> float:
    assert bool(found.isfinite().all())
    return float((found - expected).abs().max() / expected.abs().max())


def agree(
    spelled: Function, written: Function, method: str, tolerance: float = 1e-10
) -> None:
    """Both ways to write a function have one value and one relevance."""
    first, second, x = Net(spelled), Net(written), inputs()
    with torch.no_grad():
        assert relative(first(x), second(x)) < 1e-12
    explain = METHODS[method]
    try:
        expected = explain(second).attribute(x, target=1)
    except errors.LRPError:  # then this one is refused too, in as many words
        with pytest.raises(errors.LRPError):
            explain(first).attribute(x, target=1)
        return
    assert relative(explain(first).attribute(x, target=1), expected) < tolerance


CONSTANT = torch.linspace(-1.2, 1.5, 8, dtype=torch.float64)
MATRIX = torch.linspace(-2, 2, 64, dtype=torch.float64).reshape(8, 8).sin()
EXPONENTS = torch.tensor([1.0, 2.0, 3.0, 0.5, 1.0, 2.5, 3.0, 1.0], dtype=torch.float64)
SIGNED = torch.tensor([1.0, -1.0, 3.0, 0.0, 1.0, -2.0, 3.0, 1.0], dtype=torch.float64)
INDEX = torch.tensor([0, 2, 2, 1, 5, 0, 7, 5])
aten = torch.ops.aten


def _apart(x: Tensor, exponents: Tensor) -> Tensor:
    """Each feature to its own power."""
    parts = []
    for i, exponent in enumerate(exponents.tolist()):
        column = x[..., i]
        if exponent == 0:
            parts.append(torch.ones_like(column))
        elif exponent == 1:
            parts.append(column)
        else:
            parts.append(
                (column**exponent).detach() if exponent < 0 else column**exponent
            )
    return torch.stack(parts, -1)


def _in_place(name: str, *args: Any, **kwargs: Any) -> Function:
    def function(y: Tensor, z: Tensor) -> Tensor:
        y = y.clone()
        given = [z if a == "z" else a for a in args]
        return getattr(y, name)(*given, **kwargs)  # type: ignore[no-any-return]

    return function


#: a factor of gradient zero is a constant
STEPS: dict[str, tuple[Function, Function]] = {
    name: (lambda y, z, f=f: y * f(z), lambda y, z, f=f: y * f(z).detach())  # type: ignore[misc]
    for name, f in {
        "sign": torch.sign,
        "sgn": torch.sgn,
        "round": lambda z: torch.round(z * 4),
        "round to decimals": lambda z: torch.round(z, decimals=1),
        "floor": lambda z: (z * 3).floor(),
        "ceil": torch.ceil,
        "trunc": lambda z: torch.trunc(z * 5),
        "fix": lambda z: torch.fix(z * 5),
        "in place": lambda z: (z * 5).floor_(),
        "aten": lambda z: aten.round.default(z * 5),
        "divided and rounded": lambda z: torch.div(z, 0.1, rounding_mode="floor"),
        "truncated division": lambda z: torch.div(
            z, torch.tensor(0.1), rounding_mode="trunc"
        ),
        "divided in place": lambda z: (z * 2).div_(0.3, rounding_mode="trunc"),
        "compared": lambda z: (z > 0).to(z.dtype),
    }.items()
}

PAIRS: dict[str, tuple[Function, Function]] = {
    "frac": (
        lambda y, z: torch.frac(y * 3),
        lambda y, z: y * 3 - (y * 3).detach().trunc(),
    ),
    "floor division": (
        lambda y, z: y + (z * 5).detach() // 1 * y,
        lambda y, z: y + (z * 5).detach().floor() * y,
    ),
    "remainder": (
        lambda y, z: y % 0.3,
        lambda y, z: y - torch.floor(y.detach() / 0.3) * 0.3,
    ),
    "fmod": (
        lambda y, z: torch.fmod(y, 0.3),
        lambda y, z: y - torch.trunc(y.detach() / 0.3) * 0.3,
    ),
    "copysign": (
        lambda y, z: torch.copysign(y, z),
        lambda y, z: y.abs() * z.detach().sign(),
    ),
    # ------------------------------------------------------------ addends
    "addcmul": (lambda y, z: torch.addcmul(y, y, z), lambda y, z: y + y * z),
    "addcmul of one": (lambda y, z: torch.addcmul(y, y, y), lambda y, z: y + y * y),
    "addcmul scaled": (
        lambda y, z: torch.addcmul(z, y, z, value=-0.5),
        lambda y, z: z + -0.5 * (y * z),
    ),
    "addcmul in place": (_in_place("addcmul_", "z", "z"), lambda y, z: y + z * z),
    "addcmul by name": (
        lambda y, z: torch.addcmul(input=y, tensor1=CONSTANT, tensor2=z),
        lambda y, z: y + z * CONSTANT,
    ),
    "addcdiv": (lambda y, z: torch.addcdiv(z, y, z), lambda y, z: z + y / z),
    "addcdiv by itself": (
        lambda y, z: torch.addcdiv(CONSTANT, y, y, value=2.0),
        lambda y, z: CONSTANT + 2.0 * (y / y),
    ),
    "addmm": (
        lambda y, z: torch.stack([torch.addmm(a, a, a) for a in y]),
        lambda y, z: torch.stack([a + a @ a for a in y]),
    ),
    "addmm scaled": (
        lambda y, z: torch.stack(
            [torch.addmm(a, a, b, beta=0.5, alpha=2) for a, b in zip(y, z, strict=True)]
        ),
        lambda y, z: torch.stack(
            [0.5 * a + 2 * (a @ b) for a, b in zip(y, z, strict=True)]
        ),
    ),
    "addmm of a constant": (
        lambda y, z: torch.stack([torch.addmm(MATRIX, MATRIX, a) for a in y]),
        lambda y, z: torch.stack([torch.addmm(MATRIX.clone(), MATRIX, a) for a in y]),
    ),
    "addmm, aten": (
        lambda y, z: torch.stack([aten.addmm(a, a, MATRIX) for a in y]),
        lambda y, z: torch.stack([a + a @ MATRIX for a in y]),
    ),
    "baddbmm": (
        lambda y, z: torch.baddbmm(y, y, z),
        lambda y, z: y + y @ z,
    ),
    "baddbmm in place": (_in_place("baddbmm_", "z", "z"), lambda y, z: y + z @ z),
    "addbmm": (
        lambda y, z: torch.addbmm(y[0], y, z, beta=2)[None],
        lambda y, z: (2 * y[0] + (y @ z).sum(0))[None],
    ),
    "addmv": (
        lambda y, z: torch.addmv(y[:, 0].mean(0), MATRIX, y[0, 0])[None, None],
        lambda y, z: (y[:, 0].mean(0) + MATRIX @ y[0, 0])[None, None],
    ),
    "addr": (
        lambda y, z: torch.addr(y[0], y[0, 0], z[0, 1], alpha=0.5)[None],
        lambda y, z: (y[0] + 0.5 * torch.outer(y[0, 0], z[0, 1]))[None],
    ),
    "a bias that is made": (
        lambda y, z: functional.linear(y, MATRIX, z[0, 0]),
        lambda y, z: y @ MATRIX.T + z[0, 0],
    ),
    "a bias of a convolution": (
        lambda y, z: functional.conv1d(y, MATRIX[..., None], z[0, :, 0]),
        lambda y, z: functional.conv1d(y, MATRIX[..., None]) + z[0, :, :1],
    ),
    "a bias by name": (
        lambda y, z: functional.linear(y, weight=MATRIX, bias=y[0, 0]),
        lambda y, z: y @ MATRIX.T + y[0, 0],
    ),
    # ------------------------------------------------------------ powers
    "a tensor of exponents": (
        lambda y, z: (y.abs() + 0.1) ** EXPONENTS,
        lambda y, z: _apart(y.abs() + 0.1, EXPONENTS),
    ),
    "exponents of any sign": (
        lambda y, z: torch.pow(y.abs() + 0.1, SIGNED),
        lambda y, z: _apart(y.abs() + 0.1, SIGNED),
    ),
    "exponents, broadcast": (
        lambda y, z: torch.pow(y.abs()[..., :1] + 0.1, EXPONENTS),
        lambda y, z: _apart((y.abs()[..., :1] + 0.1).expand_as(y), EXPONENTS),
    ),
    "exponents in place": (
        lambda y, z: (y.abs() + 0.1).pow_(EXPONENTS),
        lambda y, z: _apart(y.abs() + 0.1, EXPONENTS),
    ),
    "one exponent": (
        lambda y, z: (y.abs() + 0.1) ** torch.tensor([1.5]),
        lambda y, z: (y.abs() + 0.1) ** 1.5,
    ),
    "power of nought": (lambda y, z: z + y**0, lambda y, z: z + torch.ones_like(y)),
    "float_power": (lambda y, z: torch.float_power(y, 3), lambda y, z: y**3),
    "float_power squared": (lambda y, z: y.float_power(2), lambda y, z: y**2),
    "base of two": (lambda y, z: 2**y, lambda y, z: torch.exp2(y)),
    "torch.pow(2.0, x)": (lambda y, z: torch.pow(2.0, y), lambda y, z: torch.exp2(y)),
    "base of three": (
        lambda y, z: 3**y,
        lambda y, z: torch.exp(y * math.log(3)),
    ),
    "float_power of a number": (
        lambda y, z: torch.float_power(3.0, y),
        lambda y, z: torch.exp(y * math.log(3)),
    ),
    "constant bases": (
        lambda y, z: CONSTANT.abs() ** y,
        lambda y, z: torch.exp(y * CONSTANT.abs().log()),
    ),
    "aten.pow.Scalar": (
        lambda y, z: aten.pow.Scalar(2.0, y),
        lambda y, z: torch.exp2(y),
    ),
    "ldexp": (
        lambda y, z: torch.ldexp(y, torch.tensor(3)),
        lambda y, z: y * 8,
    ),
    # ------------------------------------------------------------ written out
    "cosine_similarity": (
        lambda y, z: functional.cosine_similarity(y[:, :, None], z[:, None], dim=-1),
        lambda y, z: (
            functional.normalize(y, dim=-1)[:, :, None]
            * functional.normalize(z, dim=-1)[:, None]
        ).sum(-1),
    ),
    "cdist": (
        lambda y, z: torch.cdist(y, z),
        lambda y, z: (y[:, :, None] - z[:, None]).norm(dim=-1),
    ),
    "cdist by one": (
        lambda y, z: torch.cdist(y, MATRIX, p=1),
        lambda y, z: (y[:, :, None] - MATRIX).abs().sum(-1),
    ),
    "pairwise_distance": (
        lambda y, z: y * functional.pairwise_distance(y, z)[..., None],
        lambda y, z: y * (y - z + 1e-6).norm(dim=-1, keepdim=True),
    ),
    "dist": (lambda y, z: y * torch.dist(y, z), lambda y, z: y * (y - z).norm()),
    "normalize": (
        lambda y, z: functional.normalize(y, dim=-1),
        lambda y, z: y / y.norm(dim=-1, keepdim=True).detach(),
    ),
    "renorm": (
        lambda y, z: torch.renorm(y, 2, 0, 1.0),
        lambda y, z: y * (1 / (y.detach().norm(dim=(1, 2), keepdim=True) + 1e-7)),
    ),
    "lerp": (lambda y, z: torch.lerp(y, z, 0.3), lambda y, z: 0.7 * y + 0.3 * z),
    "lerp by a tensor": (
        lambda y, z: y.lerp(z, CONSTANT),
        lambda y, z: (1 - CONSTANT) * y + CONSTANT * z,
    ),
    "lerp by what is explained": (
        lambda y, z: torch.lerp(y, z, weight=torch.sigmoid(y)),
        lambda y, z: (1 - torch.sigmoid(y)) * y + torch.sigmoid(y) * z,
    ),
    "lerp in place": (_in_place("lerp_", "z", 0.3), lambda y, z: 0.7 * y + 0.3 * z),
    "logaddexp": (
        lambda y, z: torch.logaddexp(y, z),
        lambda y, z: torch.stack([y, z]).logsumexp(0),
    ),
    "logaddexp2": (
        lambda y, z: torch.logaddexp2(y, z),
        lambda y, z: (
            torch.stack([y * math.log(2), z * math.log(2)]).logsumexp(0) / math.log(2)
        ),
    ),
    "complex": (
        lambda y, z: torch.view_as_real(torch.complex(y, z)).flatten(2)[..., ::2],
        lambda y, z: torch.stack([y, z], -1).flatten(2)[..., ::2],
    ),
    "aminmax": (
        lambda y, z: z + torch.aminmax(y, dim=-1, keepdim=True).max,
        lambda y, z: z + y.amax(-1, keepdim=True),
    ),
    "hypot": (
        lambda y, z: torch.hypot(y, z),
        lambda y, z: torch.stack([y, z]).norm(dim=0),
    ),
    "xlogy": (
        lambda y, z: torch.xlogy(y, z.abs() + 0.5),
        lambda y, z: y * (z.abs() + 0.5).log(),
    ),
    "clamp between tensors": (
        lambda y, z: torch.clamp(y, min=z),
        lambda y, z: torch.maximum(y, z),
    ),
    # ------------------------------------------------------------ products of elements
    "prod of two": (
        lambda y, z: torch.stack([y, z]).prod(0),
        lambda y, z: y * z,
    ),
    "prod of four": (
        lambda y, z: torch.stack([y, z, y, z], 2).prod(2),
        lambda y, z: torch.einsum("bij,bij,bij,bij->bij", y, z, y, z),
    ),
    "cumprod": (
        lambda y, z: torch.stack([y, z]).cumprod(0)[1],
        lambda y, z: y * z,
    ),
    "scatter by product": (
        lambda y, z: y.scatter_reduce(
            2, torch.arange(8).expand_as(z), z, reduce="prod"
        ),
        lambda y, z: y * z,
    ),
    "scatter by sum": (
        lambda y, z: y.scatter_reduce(2, INDEX.expand_as(z), z, "sum"),
        lambda y, z: y.scatter_add(2, INDEX.expand_as(z), z),
    ),
    "index by product": (
        lambda y, z: CONSTANT.expand_as(y).index_reduce(2, torch.arange(8), y, "prod"),
        lambda y, z: CONSTANT * y,
    ),
    "segments by product": (
        lambda y, z: torch.segment_reduce(
            torch.stack([y, z], 0).reshape(2, -1),
            "prod",
            lengths=torch.tensor([2]),
        ).reshape(y.shape),
        lambda y, z: y * z,
    ),
    # ------------------------------------------------------------ normalisations
    "native_layer_norm": (
        lambda y, z: torch.native_layer_norm(y, (8,), CONSTANT, None, 1e-5)[0],
        lambda y, z: functional.layer_norm(y, (8,), CONSTANT, None, 1e-5),
    ),
    "native_group_norm": (
        lambda y, z: torch.native_group_norm(y, CONSTANT, None, 2, 8, 8, 4, 1e-5)[0],
        lambda y, z: functional.group_norm(y, 4, CONSTANT, None, 1e-5),
    ),
    "native_batch_norm": (
        lambda y, z: torch.native_batch_norm(
            y, None, CONSTANT, CONSTANT, CONSTANT.abs(), False, 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(
            y, CONSTANT, CONSTANT.abs(), None, CONSTANT, False, 0.1, 1e-5
        ),
    ),
    "batch norm, aten": (
        lambda y, z: aten._native_batch_norm_legit_no_training(
            y, None, None, CONSTANT, CONSTANT.abs(), 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(y, CONSTANT, CONSTANT.abs(), eps=1e-5),
    ),
    "batch norm without an update, aten": (
        lambda y, z: aten._batch_norm_no_update(
            y, None, None, CONSTANT, CONSTANT.abs(), 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(y, CONSTANT, CONSTANT.abs(), eps=1e-5),
    ),
    "statistics of the batch, aten": (
        lambda y, z: aten._native_batch_norm_legit.no_stats(
            y, None, None, True, 0.1, 1e-5
        )[0],
        lambda y, z: functional.batch_norm(y, None, None, training=True, eps=1e-5),
    ),
    "softmax, aten": (
        lambda y, z: aten._softmax(y, -1, False) @ z,
        lambda y, z: y.softmax(-1) @ z,
    ),
    "attention, aten": (
        lambda y, z: aten._scaled_dot_product_flash_attention_for_cpu(
            y[:, None], z[:, None], z[:, None], 0.0, True
        )[0][:, 0],
        lambda y, z: functional.scaled_dot_product_attention(
            y[:, None], z[:, None], z[:, None], is_causal=True
        )[:, 0],
    ),
}


#: written with one more product, behind which LRP-epsilon adds its stabiliser
WITH_A_STABILISER_MORE = ("base of three", "float_power of a number", "constant bases")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_a_constant(name: str, method: str) -> None:
    agree(*STEPS[name], method)


@pytest.mark.filterwarnings("ignore:index_reduce")  # torch calls it beta
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", PAIRS)
def test_two_spellings_agree(name: str, method: str) -> None:
    stabilized = method == "epsilon" and name in WITH_A_STABILISER_MORE
    agree(*PAIRS[name], method, 1e-4 if stabilized else 1e-10)


# --------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y, z: (y.abs() + 1) ** z, "base and exponent both depend"),
        (lambda y, z: (-2) ** z.detach() + torch.pow(-2.0, y), "the base is negative"),
        (lambda y, z: torch.pow(CONSTANT, y), "the base is negative"),
        (lambda y, z: ((y + 0j) ** (1 + 2j)).real, "exponent is a complex number"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_a_power_without_a_rule_is_refused(
    function: Function, message: str, method: str
) -> None:
    with pytest.raises(errors.UnknownOperatorError, match=message):
        METHODS[method](Net(function)).attribute(inputs(), target=1)


@pytest.mark.parametrize("method", ["gamma", "alpha-beta"])
def test_signed_rules_refuse_complex_numbers(method: str) -> None:
    weight = MATRIX + 0.5j * MATRIX.T

    def function(y: Tensor, z: Tensor) -> Tensor:
        return (torch.complex(y, z) @ weight).real

    with pytest.raises(
        errors.UnknownOperatorError, match="neither positive nor negative"
    ):
        METHODS[method](Net(function)).attribute(inputs(), target=1)


@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp", "epsilon"])
def test_complex_numbers_are_two_real_ones(method: str) -> None:
    weight = MATRIX + 0.5j * MATRIX.T

    def spelled(y: Tensor, z: Tensor) -> Tensor:
        return (torch.complex(y, z) @ weight).real

    def written(y: Tensor, z: Tensor) -> Tensor:
        return y @ MATRIX - z @ (0.5 * MATRIX.T)

    tolerance = 1e-4 if method == "epsilon" else 1e-10  # its stabiliser is of |z|
    agree(spelled, written, method, tolerance)


@pytest.mark.parametrize(
    "function", [torch.tanh, lambda x: x**3, lambda x: x**2, torch.sigmoid]
)
def test_a_function_of_complex_numbers_conserves(function: Any) -> None:
    def model(x: Tensor) -> Tensor:
        z = function(torch.complex(x, 0.5 * x.flip(-1)))
        return torch.view_as_real(z).flatten(1).sum(1)

    x = inputs()[:, 0]
    found = AttnLRP(model).attribute(x).sum(1)
    assert torch.allclose(found, model(x), rtol=1e-10)


# --------------------------------------------------------------- masks of infinity


def _attention(low: float, spell: Callable[[Tensor, Tensor], Tensor]) -> Function:
    mask = torch.full((8, 8), low, dtype=torch.float64).triu(1)

    def function(y: Tensor, z: Tensor) -> Tensor:
        return spell(y @ z.mT / 3, mask).softmax(-1) @ z

    return function


MASKED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "added": lambda scores, mask: scores + mask,
    "subtracted": lambda scores, mask: scores - -mask,
    "added in place": lambda scores, mask: scores.add_(mask),
    "baddbmm": lambda scores, mask: torch.baddbmm(
        mask, scores, torch.eye(8, dtype=torch.float64).expand(2, 8, 8)
    ),
    "linear": lambda scores, mask: functional.linear(
        scores, torch.eye(8, dtype=torch.float64), mask[3]
    ),
}


@pytest.mark.parametrize("method", [*METHODS, "captum"])
@pytest.mark.parametrize("spelling", MASKED)
def test_a_mask_may_be_infinite(spelling: str, method: str) -> None:
    explain = METHODS.get(method) or _composite(method)
    finite = explain(Net(_attention(-1e5, MASKED[spelling])))
    infinite = explain(Net(_attention(-math.inf, MASKED[spelling])))
    x = inputs()
    expected = finite.attribute(x, target=1)
    assert relative(infinite.attribute(x, target=1), expected) < 1e-9


# --------------------------------------------------------------- the balance


@pytest.mark.parametrize("name", [*STEPS, *PAIRS])
@pytest.mark.parametrize("method", ["cp-lrp", "alpha-beta"])
@pytest.mark.filterwarnings("ignore:index_reduce")
def test_a_trace_agrees_with_the_map(name: str, method: str) -> None:
    spelled, _ = {**STEPS, **PAIRS}[name]
    explainer, x = METHODS[method](Net(spelled)), inputs()
    try:
        found = explainer.attribute(x, target=1)
    except errors.DisconnectedError:
        return
    trace = explainer.trace(x, target=1)
    assert abs(trace.relevance - float(found.sum())) < 1e-9 * abs(trace.score)
    assert trace.unseen < 1e-9


# --------------------------------------------------------------- who is asked


class RMSNorm(nn.Module):
    """Called like one, and something else."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x) @ torch.outer(self.weight, self.weight)


def _like(name: str) -> type[nn.Module]:
    """A linear layer of that name with an activation inside."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return functional.linear(functional.gelu(x), self.weight, self.bias)

    return type(name, (nn.Linear,), {"forward": forward, "__module__": __name__})


@pytest.mark.parametrize(
    "name", ["BitLinear", "QuantLinear", "Linear4bit", "HQQLinear", "FP8Linear"]
)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "chefer"])
def test_a_layer_is_no_name(name: str, method: str) -> None:
    models = []
    for cls in (_like(name), _like("Mine")):
        torch.manual_seed(0)
        models.append(nn.Sequential(cls(8, 8), cls(8, 3)).double().eval())
    x = inputs()[:, 0]
    first, second = (METHODS[method](m).attribute(x, target=1) for m in models)
    assert torch.equal(first, second)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "chefer"])
def test_a_norm_is_no_name(method: str) -> None:
    models = []
    for cls in (RMSNorm, type("Mine", (RMSNorm,), {})):
        torch.manual_seed(0)
        layers = (nn.Linear(8, 8), cls(8), nn.Linear(8, 3))
        models.append(nn.Sequential(*layers).double().eval())
    x = inputs()[:, 0]
    first, second = (METHODS[method](m).attribute(x, target=1) for m in models)
    assert torch.equal(first, second)


def test_a_subclass_that_computes_anew_is_another_activation() -> None:
    activations = pytest.importorskip("transformers.activations")

    class Mixing(activations.NewGELUActivation):  # type: ignore[misc, name-defined]
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(-1) * 2 + x

    class Plain(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(-1) * 2 + x

    x = inputs()[:, 0]
    first, second = (
        AttnLRP(nn.Sequential(m(), nn.Flatten(1))).attribute(x, target=1)
        for m in (Mixing, Plain)
    )
    assert torch.equal(first, second)


# --------------------------------------------------------------- models and graphs


class Tiny(nn.Module):
    """A vision transformer of one block, with every operator that exports differ in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch, self.norm = nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16)
        self.first, self.second = nn.LayerNorm(16), nn.RMSNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.groups, self.head = nn.GroupNorm(4, 4), nn.Linear(16, 3)
        self.double().eval()
        with torch.no_grad():
            self.norm.running_mean += torch.linspace(-1, 1, 16)  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.patch(x))).flatten(2).mT
        q, k, v = self.qkv(self.first(x)).unflatten(-1, (3, 2, 8)).unbind(2)
        heads = [t.transpose(1, 2) for t in (q, k, v)]
        mixed = ((heads[0] @ heads[1].mT) / 8**0.5).softmax(-1) @ heads[2]
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(functional.gelu(self.up(self.second(x))))
        x = self.groups(x)
        result: Tensor = self.head(torch.tanh(x[:, 0]) + x[:, 1:].mean(1))
        return result


@pytest.mark.parametrize("decomposed", [None, "core", "nothing else"])
def test_an_exported_graph_is_the_model(decomposed: str | None) -> None:
    model, x = Tiny(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    program = torch.export.export(model, (x,))
    if decomposed:
        program = program.run_decompositions(None if decomposed == "core" else {})
    graph = program.module()
    for name, explain in METHODS.items():
        found = explain(graph).attribute(x, target=1)
        # a stabiliser is added behind each operator that is written out
        tolerance = 1e-3 if name == "epsilon" else 1e-9
        assert relative(found, explain(model).attribute(x, target=1)) < tolerance, name


class Deformable(nn.Module):
    """Attention that samples where its queries say, as deformable DETR does."""

    def __init__(self, *, constant: bool = False, spelling: str = "sample") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.values = nn.Conv2d(3, 8, 1, bias=False)
        self.places = nn.Linear(192, 2 * 2 * 2, bias=False)
        self.weights = nn.Linear(192, 4, bias=False)
        self.head = nn.Linear(8, 3, bias=False)
        self.constant, self.spelling = constant, spelling
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        grid = self.places(flat).view(-1, 2, 2, 2).tanh()
        grid = grid.detach() if self.constant else grid
        values = self.values(x)
        if self.spelling == "sample":
            read = functional.grid_sample(values, grid, align_corners=False)
        elif self.spelling == "by name":
            read = functional.grid_sample(input=values, grid=grid, align_corners=False)
        elif self.spelling == "sampler":
            read = torch.grid_sampler(values, grid, 0, 0, False)
        elif self.spelling == "aten":
            read = aten.grid_sampler_2d.default(values, grid, 0, 0, False)
        else:  # of five dimensions
            zeros = torch.zeros_like(grid[..., :1])
            places = torch.cat([grid, zeros], -1)[:, None]
            read = functional.grid_sample(
                values[:, :, None], places, align_corners=False
            )
        weights = self.weights(flat).softmax(-1)[:, None]
        result: Tensor = self.head((read.flatten(2) * weights).sum(-1))
        return result


@pytest.mark.parametrize("method", [m for m in METHODS if m != "chefer"])
@pytest.mark.parametrize("spelling", ["sample", "by name", "sampler", "aten", "volume"])
def test_a_grid_says_where(spelling: str, method: str) -> None:
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = METHODS[method](Deformable(spelling=spelling)).attribute(x, target=1)
    written = Deformable(spelling=spelling, constant=True)
    assert relative(found, METHODS[method](written).attribute(x, target=1)) < 1e-12


@pytest.mark.parametrize("spelling", ["sample", "sampler", "aten", "volume"])
def test_deformable_attention_accounts_for_its_score(spelling: str) -> None:
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    model = Deformable(spelling=spelling)
    trace = CPLRP(model).trace(x, target=1)
    assert abs(trace.relevance - float(model(x)[0, 1].detach())) < 1e-12
    assert trace.loss < 1e-10


# --------------------------------------------------------------- what torch writes out


@pytest.mark.parametrize(
    ("spelled", "written"),
    [
        (
            lambda y, z: torch.ops.aten.mse_loss(y, CONSTANT.expand_as(y), 0),
            lambda y, z: (y - CONSTANT) ** 2,
        ),
        (
            lambda y, z: functional.mse_loss(
                y, CONSTANT.expand_as(y), reduction="none"
            ),
            lambda y, z: (y - CONSTANT) ** 2,
        ),
    ],
)
@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp", "gamma"])
def test_an_unknown_operator_is_what_torch_writes(
    spelled: Function, written: Function, method: str
) -> None:
    agree(spelled, written, method)


@pytest.mark.parametrize(
    "loss",
    [
        lambda y: functional.mse_loss(y, CONSTANT.expand_as(y)),
        lambda y: functional.smooth_l1_loss(y, CONSTANT.expand_as(y)),
        lambda y: functional.huber_loss(y, CONSTANT.expand_as(y), reduction="sum"),
        lambda y: functional.binary_cross_entropy(y.sigmoid(), torch.ones_like(y) / 3),
        lambda y: functional.binary_cross_entropy_with_logits(
            y, torch.ones_like(y) / 3
        ),
        lambda y: functional.multi_margin_loss(y[0], torch.arange(8)),
        lambda y: torch._addmm_activation(CONSTANT, y[0], MATRIX).mean(),
    ],
)
@pytest.mark.parametrize("method", ["attnlrp", "cp-lrp"])
def test_what_torch_writes_out_accounts_for_its_score(loss: Any, method: str) -> None:
    net = Net(lambda y, z: z)

    def model(x: Tensor) -> Tensor:
        result: Tensor = loss(net.a(x))[None]
        return result

    assert METHODS[method](model).trace(inputs()).loss < 1e-9


@torch.library.custom_op("operator_kinds::blend", mutates_args=())
def blend(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[1])


blend.register_autograd(
    lambda ctx, g: (g @ ctx.saved_tensors[0].mT, None), setup_context=_setup
)


def test_the_line_of_an_unknown_operator_works() -> None:
    model = Net(lambda y, z: blend(y, MATRIX))
    with pytest.raises(errors.UnknownOperatorError) as error:
        AttnLRP(model).attribute(inputs(), target=1)
    (line,) = (s for s in str(error.value).splitlines() if "register(" in s)
    assert '"operator_kinds::blend", rules.PlainGradient())' in line
    assert '"product" if it multiplies' in line
    exec(line.strip(), {"registry": registry, "rules": rules})
    try:
        agree(model.function, lambda y, z: y @ MATRIX, "attnlrp")
    finally:
        registry.unregister("operator_kinds::blend")


def test_an_activation_is_a_function_of_one_tensor() -> None:
    def model(x: Tensor) -> Tensor:
        return blend(x, torch.ones(8, 3, dtype=torch.float64)).mean(1)

    rows = {"operator_kinds::blend": "activation"}
    with registry.override(rows):
        with pytest.raises(errors.UnknownOperatorError, match="keeps its shape"):
            AttnLRP(model).attribute(inputs(), target=1)
    with registry.override({"hypot": "activation"}):
        with pytest.raises(errors.UnknownOperatorError, match="of one tensor"):
            AttnLRP(Net(torch.hypot)).attribute(inputs(), target=1)
