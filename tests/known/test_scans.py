"""Relevance through a scan is that of its recurrence, wherever chunk borders fall."""

from __future__ import annotations

import importlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    Composite,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
)
from captum_transformer_lrp.attribution.precision import Raised
from captum_transformer_lrp.classic.input_layer import Flat
from captum_transformer_lrp.core.composites import ATTN_LRP
from captum_transformer_lrp.known.scans import SCANS, linear_scan
from tests.helpers import relative
from tests.oracles import scans as oracle

BATCH, TOKENS, HEADS, SIZE, WIDTH = 2, 10, 4, 3, 5
#: of the package's functions, as they are called here
Function = Callable[..., Any]


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def models_own(model: str, function: str) -> Function:
    """Return a function of a model, its chunks as it has them."""
    pytest.importorskip("transformers")
    name = f"transformers.models.{model}.modeling_{model}"
    try:
        module = importlib.import_module(name)
    except ImportError:
        pytest.skip(f"this transformers has no {model}")
    if not hasattr(module, function):
        pytest.skip(f"{name} computes its scan within a method")
    found: Function = getattr(module, function)
    return found


class Scores(nn.Module):
    """Scores ``sum(weights * function(*inputs))``."""

    def __init__(self, function: Function, weights: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = weights

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return one score for each example."""
        return (self.function(*inputs) * self.weights).flatten(1).sum(1)


def explained(method: Any, function: Function, weights: Tensor, inputs: Any) -> Any:
    """Return the relevance of each input, without float32 on the way."""
    with Raised(torch.float64):
        return method(Scores(function, weights)).attribute(inputs)


# ------------------------------------------------------------- each scan by its formula
#
# A case is the inputs, the model's function of them and of the size of chunks, and the
# relevance that each input has by the formulas: `shares` is 1/n for each factor.


def cases_of_mamba2() -> tuple[Any, Function, Function]:
    inputs = (
        draw(1, BATCH, TOKENS, HEADS, WIDTH),
        draw(2, BATCH, TOKENS, HEADS),
        draw(3, BATCH, TOKENS, 2, SIZE),
        draw(4, BATCH, TOKENS, 2, SIZE),
    )
    a, d, bias = -draw(5, HEADS).abs(), draw(6, HEADS), draw(7, HEADS)
    scan = models_own("mamba2", "mamba2_chunk_scan")

    def function(chunk: int, *given: Tensor) -> Tensor:
        x, dt, b, c = given
        found: Tensor = scan(x, dt, a, b, c, chunk, D=d, dt_bias=bias, dt_softplus=True)
        return found

    def expected(weights: Tensor, share: float | None) -> list[Tensor]:
        x, dt, b, c = inputs
        steps = nn.functional.softplus(dt + bias)
        x, steps, b, c = (t.detach().requires_grad_() for t in (x, steps, b, c))
        output, _ = oracle.mamba2(x, steps, a, b, c)
        g = torch.autograd.grad((output * weights).sum(), [x, steps, b, c])
        skip = x * d[:, None] * weights
        if share is None:  # all to the values
            return [x * g[0] + skip, *map(torch.zeros_like, (dt, b, c))]
        of_dt = steps * g[1] * share * dt / (dt + bias)  # the bias absorbs its part
        return [share * x * g[0] + skip, of_dt, share * b * g[2], share * c * g[3]]

    return inputs, function, expected


def cases_of_delta(kimi: bool) -> tuple[Any, Function, Function]:
    shape = (BATCH, TOKENS, HEADS)
    inputs = (
        draw(1, BATCH, TOKENS, HEADS if kimi else 2, SIZE),
        draw(2, BATCH, TOKENS, HEADS if kimi else 2, SIZE),
        draw(3, *shape, WIDTH),
        -draw(4, *shape, SIZE).abs() if kimi else -draw(4, *shape).abs(),
        draw(5, *shape).sigmoid(),
    )
    if kimi:
        scan = models_own("kimi_linear", "chunk_kimi_delta_attention")
    else:
        scan = models_own("qwen3_next", "torch_chunk_gated_delta_rule")

    def function(chunk: int, *given: Tensor) -> Tensor:
        q, k, v, g, beta = given
        found: Tensor = scan(
            q, k, v, g=g, beta=beta, chunk_size=chunk, use_qk_l2norm_in_kernel=True
        )[0]
        return found

    def expected(weights: Tensor, share: float | None) -> list[Tensor]:
        q, k = (x / (x.pow(2).sum(-1, keepdim=True) + 1e-6).sqrt() for x in inputs[:2])
        given = [t.detach().requires_grad_() for t in (q, k, *inputs[2:])]
        output, _ = oracle.gated_delta(*given)
        gradients = torch.autograd.grad((output * weights).sum(), given)
        found = [x * g for x, g in zip(given, gradients, strict=True)]
        if share is None:
            return [f if i == 2 else torch.zeros_like(f) for i, f in enumerate(found)]
        return [share * f for f in found]

    return inputs, function, expected


def cases_of_mlstm() -> tuple[Any, Function, Function]:
    shape = (BATCH, HEADS, TOKENS)
    inputs = (
        draw(1, *shape, SIZE),
        draw(2, *shape, SIZE),
        draw(3, *shape, WIDTH),
        3 * draw(4, *shape),
        draw(5, *shape),
    )

    def function(chunk: int, *given: Tensor) -> Tensor:
        found: Tensor = backend(chunk)(*given, return_last_states=False)
        return found

    def expected(weights: Tensor, share: float | None) -> list[Tensor]:
        q, k, v, i, f = inputs
        log_f = nn.functional.logsigmoid(f)
        given = [t.detach().requires_grad_() for t in (q, k, v, i, log_f)]
        output, _ = oracle.mlstm(*given)
        gradients = torch.autograd.grad((output * weights).sum(), given)
        found = [x * g for x, g in zip(given, gradients, strict=True)]
        if share is None:
            return [f if i == 2 else torch.zeros_like(f) for i, f in enumerate(found)]
        return [share * f for f in found]

    backend(2)  # is skipped where there is none
    return inputs, function, expected


def backend(chunk: int, mode: str = "train_with_padding") -> nn.Module:
    """Return what computes the scan of an xLSTM."""
    build = models_own("xlstm", "xLSTMBackend")
    if not build.__module__.startswith("transformers"):
        pytest.skip("the xlstm package computes this scan")
    from transformers import xLSTMConfig

    config = xLSTMConfig(chunk_size=chunk, mode=mode, inference_state_dtype="float32")
    made: nn.Module = build(config)
    return made


CASES: dict[str, tuple[Callable[[], tuple[Any, Function, Function]], float]] = {
    "mamba2": (cases_of_mamba2, 1 / 4),
    "gated delta": (lambda: cases_of_delta(False), 1 / 4),
    "Kimi's delta": (lambda: cases_of_delta(True), 1 / 4),
    "mlstm": (cases_of_mlstm, 1 / 3),
}


@pytest.mark.parametrize("chunk", [2, 4, 16])
@pytest.mark.parametrize("name", CASES)
def test_relevance_is_that_of_the_recurrence(name: str, chunk: int) -> None:
    build, share = CASES[name]
    inputs, function, expected = build()
    values = function(chunk, *inputs)
    weights = draw(8, *values.shape)
    for method, part in ((AttnLRP, share), (CPLRP, None)):
        found = explained(method, lambda *x: function(chunk, *x), weights, inputs)
        for one, other in zip(found, expected(weights, part), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def without_a_row(model: nn.Module) -> TransformerLRP:
    """Return AttnLRP that sees the operators of a scan one by one."""
    rows = {key: row for key, row in ATTN_LRP.rows.items() if key != "scan"}
    return TransformerLRP(model, Composite("operator by operator", rows))


@pytest.mark.parametrize("name", CASES)
def test_other_methods_and_nobody_meet_the_models_own_function(name: str) -> None:
    inputs, function, _ = CASES[name][0]()
    given = [x.clone().requires_grad_() for x in inputs]
    with Raised(torch.float64):
        values = function(4, *given)
    weights = draw(8, *values.shape)
    gradients = torch.autograd.grad((values * weights).sum(), given)
    scored: list[Tensor] = []

    def noted(*x: Tensor) -> Tensor:
        scored.append(function(4, *x))
        return scored[-1]

    plain = explained(GradientXInput, noted, weights, inputs)
    for x, gradient, found in zip(inputs, gradients, plain, strict=True):
        torch.testing.assert_close(found, x * gradient, rtol=1e-10, atol=1e-12)
    explained(AttnLRP, noted, weights, inputs)
    explained(without_a_row, noted, weights, inputs)
    for found in scored:  # what the model computes is what it was
        torch.testing.assert_close(found.detach(), values.detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize(
    "method",
    [
        EpsilonLRP,
        lambda model: TransformerLRP(model, composite="gamma"),
        lambda model: TransformerLRP(model, ATTN_LRP.with_rules({"linear": Flat()})),
    ],
    ids=["epsilon", "gamma", "carries relevance"],
)
def test_methods_that_share_the_row_agree(method: Any) -> None:
    inputs, function, expected = cases_of_mamba2()
    weights = draw(8, *inputs[0].shape)
    found = explained(method, lambda *x: function(4, *x), weights, inputs)
    again = explained(method, lambda *x: function(16, *x), weights, inputs)
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
    for one, other in zip(found, expected(weights, 1 / 4), strict=True):
        assert (
            relative(one, other.detach()) < 1e-3
        )  # sums around the scan are stabilised


# ------------------------------------------------------------------------------- states


def in_calls(name: str, *sizes: int) -> Function:
    """Return a function whose calls start at the states of the calls before them."""
    if name == "mamba2":
        a, scan = -draw(5, HEADS).abs(), models_own("mamba2", "mamba2_chunk_scan")

        def call(x: Any, state: Any) -> Any:
            values, dt, b, c = x
            dt = dt.abs()
            options = {"initial_states": state, "return_final_states": True}
            return scan(values, dt, a, b, c, 4, **options)

    elif name == "mlstm":
        scan = backend(2, "train")

        def call(x: Any, state: Any) -> Any:
            names = ("c_initial", "n_initial", "m_initial")
            states = {} if state is None else dict(zip(names, state, strict=True))
            return scan(*x, **states, return_last_states=True)

    else:
        scan = models_own("qwen3_next", "torch_chunk_gated_delta_rule")

        def call(x: Any, state: Any) -> Any:
            q, k, v, g, beta = x
            options = {"initial_state": state, "output_final_state": True}
            return scan(q, k, v, g=g, beta=beta, chunk_size=4, **options)

    dim = 2 if name == "mlstm" else 1

    def function(*inputs: Tensor) -> Tensor:
        state, outputs = None, []
        for part in zip(*(x.split(sizes, dim) for x in inputs), strict=True):
            output, state = call(part, state)
            outputs.append(output)
        return torch.cat(outputs, dim)

    return function


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
@pytest.mark.parametrize("name", ["mamba2", "gated delta", "mlstm"])
def test_a_sequence_in_several_calls_is_one(name: str, method: Any) -> None:
    inputs = CASES[name][0]()[0]
    whole, parts = in_calls(name, TOKENS), in_calls(name, 4, 4, 2)
    weights = draw(8, *whole(*inputs).shape)
    one = explained(method, whole, weights, inputs)
    several = explained(method, parts, weights, inputs)
    for found, expected in zip(several, one, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_a_scan_of_ones_own(method: Any) -> None:
    """``linear_scan`` around any recurrence is a product of its factors."""
    x, keys, decay = draw(1, 2, 6, 3), draw(2, 2, 6, 3), -draw(3, 2, 6, 3).abs()

    def run(factors: Any, decays: Any, state: Any) -> Any:
        values, keys = factors
        state, outputs = torch.zeros_like(values[:, 0]), []
        for t in range(values.shape[1]):
            state = decays[0][:, t].exp() * state + values[:, t]
            outputs.append(state * keys[:, t])
        return torch.stack(outputs, 1), None

    def function(x: Tensor, keys: Tensor, decay: Tensor) -> Tensor:
        return linear_scan(run, (x, keys), (decay,))[0]

    weights = draw(4, 2, 6, 3)
    given = [t.clone().requires_grad_() for t in (x, keys, decay)]
    output = function(*given)
    gradients = torch.autograd.grad((output * weights).sum(), given)
    shares = (1 / 2, 1 / 2, 1 / 2) if method is AttnLRP else (1.0, 0.0, 0.0)
    found = method(Scores(function, weights)).attribute((x, keys, decay))
    for one, t, g, share in zip(found, given, gradients, shares, strict=True):
        torch.testing.assert_close(one, (share * t * g).detach())


# ------------------------------------------------------------------------- whole models

VOCABULARY = 30
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "mamba2": {
        "num_heads": 8,
        "head_dim": 4,
        "state_size": 4,
        "n_groups": 2,
    },
    "granitemoehybrid": {
        "intermediate_size": 16,
        "shared_intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 4,
        "mamba_d_state": 4,
        "num_local_experts": 0,
        "num_experts_per_tok": 0,
    },
    "qwen3_next": {
        "intermediate_size": 16,
        "layer_types": ["linear_attention", "full_attention"],
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 4,
        "mlp_only_layers": [0, 1],
    },
}


def recurrence_of_mamba2(
    hidden_states: Any,
    dt: Any,
    A: Any,
    B: Any,
    C: Any,
    chunk_size: int = 0,
    initial_states: Any = None,
    **kwargs: Any,
) -> Any:
    """The oracle in the place of a model's function, as the package calls it."""
    return oracle.mamba2(hidden_states, dt, A.double(), B, C, initial_states)[0]


def recurrence_of_delta(
    query: Any, key: Any, value: Any, g: Any, beta: Any, **kwargs: Any
) -> Any:
    """Likewise, with the states that are asked for."""
    output, state = oracle.gated_delta(query, key, value, g, beta)
    return output, state if kwargs["output_final_state"] else None


def l2norm(x: Tensor, dim: int, eps: float) -> Tensor:
    """Normalise as the module of a model with the delta rule does."""
    return x * torch.rsqrt((x * x).sum(dim, keepdim=True) + eps)


IN_PLACE_OF: dict[str, tuple[str, Function]] = {
    "mamba2": ("mamba2_chunk_scan", recurrence_of_mamba2),
    "granitemoehybrid": ("mamba2_chunk_scan", recurrence_of_mamba2),
    "qwen3_next": ("torch_chunk_gated_delta_rule", recurrence_of_delta),
}


class OfEmbeddings(nn.Module):
    """Logits of the last token, of embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return shape ``(batch, vocabulary)``."""
        found = self.model(inputs_embeds=embeddings, use_cache=False)
        logits: Tensor = found.logits[:, -1]
        return logits


def model_of(name: str) -> nn.Module:
    """Return a small model with random weights whose states last for many tokens."""
    models_own(name, IN_PLACE_OF[name][0])
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        name,
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        **CONFIGURATIONS[name],
    )
    model: nn.Module = AutoModelForCausalLM.from_config(config).double().eval()
    for seed, (parameter_name, parameter) in enumerate(model.named_parameters()):
        values = draw(seed, *parameter.shape)
        if parameter_name.endswith("A_log"):
            parameter.data = values - 2
        elif parameter_name.endswith("conv1d.bias"):
            parameter.data = torch.zeros_like(values)  # would absorb its share
        else:
            parameter.data = values / parameter.shape[-1] ** 0.5
    return model


@pytest.fixture
def sized(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return what sets the size of a model's chunks; 0 for the recurrence."""

    def size(name: str, model: nn.Module, chunk: int) -> None:
        function, written = IN_PLACE_OF[name]
        module = importlib.import_module(f"transformers.models.{name}.modeling_{name}")
        if not chunk:
            monkeypatch.setattr(module, function, written)
            return
        for part in model.modules():
            if hasattr(part, "chunk_size"):
                monkeypatch.setattr(part, "chunk_size", chunk)
        if name == "qwen3_next":
            raw: Any = inspect.unwrap(getattr(module, function))
            _, *others = raw.__defaults__
            monkeypatch.setattr(raw, "__defaults__", (chunk, *others))

    yield size


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_models_have_one_relevance(
    name: str, method: Any, sized: Callable[..., None]
) -> None:
    model = model_of(name)
    embeddings = draw(0, 1, 18, 16)
    wrapped = OfEmbeddings(model)
    found = []
    with Raised(torch.float64):
        score = float(wrapped(embeddings)[0, 3].detach())
        for chunk in (4, 8, 16, 0):
            sized(name, model, chunk)
            relevance = method(wrapped).attribute(embeddings, target=3).detach()
            found.append(relevance)
    for other in found[1:]:
        assert relative(other, found[0]) < 1e-9
    assert float(found[0][0, :8].abs().max()) > 1e-3 * float(found[0].abs().max())
    if method is CPLRP:
        assert abs(float(found[0].sum()) - score) < 1e-9 * abs(score)


def test_functions_have_their_code_back() -> None:
    scan = models_own("mamba2", "mamba2_chunk_scan")
    raw: Any = inspect.unwrap(scan)
    before, seen = raw.__code__, []
    assert "transformers.models.mamba2.modeling_mamba2.mamba2_chunk_scan" in SCANS
    inputs, function, _ = cases_of_mamba2()
    expected = function(4, *inputs)

    def during(*x: Tensor) -> Tensor:
        seen.append(raw.__code__)
        thread = threading.Thread(
            target=lambda: seen.append(function(4, *inputs))  # no engine runs there
        )
        thread.start()
        thread.join()
        return function(4, *x)

    AttnLRP(Scores(during, torch.ones(()))).attribute(inputs)
    assert seen[0] is not before
    torch.testing.assert_close(seen[1], expected, rtol=0, atol=0)
    assert raw.__code__ is before

    def fails(*x: Tensor) -> Tensor:
        raise KeyError("of the model")

    with pytest.raises(KeyError, match="of the model"):
        AttnLRP(Scores(fails, torch.ones(()))).attribute(inputs)
    assert raw.__code__ is before


def test_a_trace_tells_of_the_scan() -> None:
    inputs, function, _ = cases_of_mamba2()
    model = Scores(lambda *x: function(4, *x), torch.ones((), dtype=torch.float64))
    with Raised(torch.float64):
        trace = CPLRP(model).trace(inputs)
    assert "linear_scan" in str(trace)
    assert trace.conservation_error < 1e-9
