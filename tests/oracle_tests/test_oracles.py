"""The oracles against analytic properties, autograd and published references."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers import REFERENCES
from tests.oracle_tests import twins
from tests.oracles import models as m
from tests.oracles import mutants as mu
from tests.oracles import rules as r
from tests.oracles.compare import assert_relevance, relative_error

Array = r.Array
METHODS = ("attnlrp", "cplrp")


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def tensor(values: Array) -> torch.Tensor:
    return torch.from_numpy(values.copy()).requires_grad_()


def gradient_times_input(
    output: torch.Tensor, gradient: Array, *inputs: torch.Tensor
) -> list[Array]:
    """``x * J^T g`` for each input x."""
    found = torch.autograd.grad(output, inputs, torch.from_numpy(gradient))
    return [r.as_array(x) * r.as_array(g) for x, g in zip(inputs, found, strict=True)]


# --- the ratio and its stabiliser -------------------------------------------


def test_stabiliser_takes_zero_as_positive() -> None:
    found = r.stabilize(np.array([-2.0, -0.0, 0.0, 2.0]), 0.5)
    np.testing.assert_array_equal(found, [-2.5, 0.5, 0.5, 2.5])


def test_ratio_agrees_with_its_stabiliser() -> None:
    relevance, z = draw(3, 4), draw(3, 4, seed=1)
    z[0, 0] = 0.0
    np.testing.assert_array_equal(
        r.ratio(relevance, z, 0.1), relevance / r.stabilize(z, 0.1)
    )


def test_ratio_of_two_zeros_is_zero() -> None:
    assert r.ratio(np.zeros(1), np.zeros(1))[0] == 0.0


def test_ratio_refuses_relevance_on_a_zero() -> None:
    with pytest.raises(ZeroDivisionError, match=r"use epsilon > 0"):
        r.ratio(np.ones(1), np.zeros(1))


def test_ratio_refuses_relevance_on_a_masked_score() -> None:
    with pytest.raises(ValueError, match=r"on the value -inf"):
        r.ratio(np.ones(1), np.array([-np.inf]))


def test_ratio_refuses_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\).*shape \(3,\)"):
        r.ratio(np.ones(2), np.ones(3))


# --- linear operators -------------------------------------------------------


def test_linear_by_hand() -> None:
    x, weight = np.array([[1.0, -2.0]]), np.array([[3.0, 1.0], [1.0, 2.0]])
    bias = np.array([1.0, -1.0])  # z = (2, -4)
    found = r.linear(x, weight, bias, np.array([[6.0, 8.0]]))
    np.testing.assert_allclose(found, [[3 * 3 + 1 * -2, -2 * 3 + -4 * -2]])
    found = r.linear(x, weight, bias, np.array([[6.0, 8.0]]), epsilon=1.0)
    np.testing.assert_allclose(found, [[3 * 2 + 1 * -1.6, -2 * 2 + -4 * -1.6]])


@pytest.mark.parametrize("with_bias", [False, True])
def test_linear_is_gradient_times_input(with_bias: bool) -> None:
    x, weight, gradient = draw(2, 3, 5), draw(4, 5), draw(2, 3, 4)
    x[0, 0, 0] = 0.0
    bias = draw(4) if with_bias else None
    z = x @ weight.T + (0.0 if bias is None else bias)
    xt = tensor(x)
    output = torch.nn.functional.linear(
        xt,
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
    )
    (expected,) = gradient_times_input(output, gradient, xt)
    found = r.linear(x, weight, bias, gradient * z)
    assert_relevance(found, expected, tolerance=1e-13)
    assert found[0, 0, 0] == 0.0


def test_linear_conserves_without_bias_and_epsilon_only() -> None:
    x, weight, bias, relevance = draw(2, 5), draw(4, 5), draw(4), draw(2, 4)
    np.testing.assert_allclose(
        r.linear(x, weight, None, relevance).sum(-1), relevance.sum(-1)
    )
    absorbed = (bias * relevance / (x @ weight.T + bias)).sum(-1)
    np.testing.assert_allclose(
        r.linear(x, weight, bias, relevance).sum(-1), relevance.sum(-1) - absorbed
    )
    lost = r.linear(x, weight, None, np.abs(x @ weight.T), epsilon=0.1).sum()
    assert lost != pytest.approx(np.abs(x @ weight.T).sum(), rel=1e-3)


def test_add_splits_and_sums_broadcast_copies() -> None:
    a, b, relevance = draw(2, 3, 4), draw(1, 4), draw(2, 3, 4)
    to_a, to_b = r.add(a, b, relevance)
    assert (to_a.shape, to_b.shape) == (a.shape, b.shape)
    np.testing.assert_allclose(to_a.sum() + to_b.sum(), relevance.sum())
    at, bt = tensor(a), tensor(b)
    expected = gradient_times_input(at + bt, relevance / (a + b), at, bt)
    assert_relevance(to_a, expected[0], tolerance=1e-13)
    assert_relevance(to_b, expected[1], tolerance=1e-13)


def test_add_by_hand_with_epsilon() -> None:
    to_a, to_b = r.add(
        np.array([3.0, 1.0]), np.array([1.0, -1.0]), np.array([8.0, 2.0]), epsilon=1.0
    )
    np.testing.assert_allclose(to_a, [4.8, 2.0])
    np.testing.assert_allclose(to_b, [1.6, -2.0])


def test_embedding_sums_repeated_rows() -> None:
    indices, relevance = np.array([[1, 1, 3]]), draw(1, 3, 2)
    tokens, table = r.embedding(indices, relevance, rows=5)
    np.testing.assert_allclose(tokens, relevance.sum(-1))
    np.testing.assert_allclose(table[1], relevance[0, 0] + relevance[0, 1])
    np.testing.assert_allclose(table[3], relevance[0, 2])
    assert not table[[0, 2, 4]].any()


# --- elementwise operators --------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (m.silu, torch.nn.functional.silu),
        (m.gelu, torch.nn.functional.gelu),
        (
            m.gelu_new,
            lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        ),
    ],
)
def test_activation_functions(ours: Any, theirs: Any) -> None:
    x = np.concatenate([draw(50) * 3.0, [0.0, -30.0, 30.0]])
    expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose([ours(v) for v in x], expected, rtol=1e-13, atol=1e-15)


def test_activation_is_its_secant_times_input() -> None:
    x, gradient = draw(20), draw(20, seed=1)
    xt = tensor(x)
    output = torch.nn.functional.silu(xt)
    (expected,) = gradient_times_input(twins.activation(xt, output), gradient, xt)
    found = r.activation_identity(x, gradient * r.as_array(output))
    assert_relevance(found, expected, tolerance=1e-13)


def test_products_conserve_and_broadcast() -> None:
    a, b, relevance = draw(2, 3, 4), draw(3, 1), draw(2, 3, 4)
    to_a, to_b = r.product_uniform(a, b, relevance)
    np.testing.assert_allclose(to_a, relevance / 2)
    np.testing.assert_allclose(to_b, relevance.sum((0, 2))[:, None] / 2)
    to_a, to_b = r.product_gate_constant(a, b, relevance)
    assert not to_a.any()
    np.testing.assert_allclose(to_b, relevance.sum((0, 2))[:, None])


# --- softmax ----------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_softmax_attnlrp_is_gradient_times_input(axis: int) -> None:
    x, gradient = draw(3, 4, 5), draw(3, 4, 5, seed=1)
    x[0, 0, 0] = 0.0
    xt = tensor(x)
    output = xt.softmax(axis)
    np.testing.assert_allclose(r.softmax(x, axis=axis), r.as_array(output))
    (expected,) = gradient_times_input(output, gradient, xt)
    found = r.softmax_attnlrp(x, gradient * r.as_array(output), axis=axis)
    assert_relevance(found, expected, tolerance=1e-13)


def test_softmax_gives_masked_entries_nothing() -> None:
    x, gradient = draw(2, 5), draw(2, 5, seed=1)
    x[:, 3:] = -np.inf
    shares = r.softmax(x)
    found = r.softmax_attnlrp(x, gradient * shares)
    kept = r.softmax_attnlrp(x[:, :3], (gradient * shares)[:, :3])
    assert not found[:, 3:].any()
    np.testing.assert_array_equal(found[:, :3], kept)
    with pytest.raises(ValueError, match="carries relevance"):
        r.softmax_attnlrp(x, gradient)


def test_softmax_of_a_fully_masked_row_is_zero() -> None:
    assert not r.softmax(np.full((1, 3), -np.inf)).any()


def test_softmax_cplrp_is_zero() -> None:
    assert not r.softmax_cplrp(draw(2, 3), draw(2, 3, seed=1)).any()


# --- matrix products --------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_matmul_is_half_the_gradient_times_input(lead: tuple[int, ...]) -> None:
    a, b = draw(*lead, 4, 5), draw(*lead, 5, 3)
    gradient = draw(*lead, 4, 3)
    at, bt = tensor(a), tensor(b)
    expected = gradient_times_input(at @ bt, gradient, at, bt)
    to_a, to_b = r.matmul_uniform(a, b, gradient * (a @ b))
    assert_relevance(to_a, expected[0] / 2, tolerance=1e-13)
    assert_relevance(to_b, expected[1] / 2, tolerance=1e-13)
    to_a, to_b = r.matmul_first_constant(a, b, gradient * (a @ b))
    assert not to_a.any()
    assert_relevance(to_b, expected[1], tolerance=1e-13)


def test_matmul_conserves_half_in_each_factor() -> None:
    relevance = draw(4, 3)
    for part in r.matmul_uniform(draw(4, 5), draw(5, 3), relevance):
        np.testing.assert_allclose(part.sum(), relevance.sum() / 2)


# --- normalisation ----------------------------------------------------------


@pytest.mark.parametrize("with_bias", [False, True])
def test_layer_norm_is_gradient_times_input_with_constant_sigma(
    with_bias: bool,
) -> None:
    x, weight, gradient = draw(2, 3, 6), draw(6), draw(2, 3, 6, seed=1)
    bias = draw(6, seed=2) if with_bias else None
    output = torch.nn.functional.layer_norm(
        torch.from_numpy(x),
        (6,),
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        1e-5,
    )
    value = r.layer_norm_output(x, weight, bias, eps=1e-5)
    np.testing.assert_allclose(value, r.as_array(output))
    xt = tensor(x)
    twin = twins.layer_norm(
        xt,
        torch.from_numpy(weight),
        None if bias is None else torch.from_numpy(bias),
        1e-5,
    )
    (expected,) = gradient_times_input(twin, gradient, xt)
    found = r.layer_norm(x, weight, bias, gradient * value, eps=1e-5)
    assert_relevance(found, expected, tolerance=1e-12)
    if not with_bias:
        np.testing.assert_allclose(found.sum(-1), (gradient * value).sum(-1))


def test_rms_norm_is_gradient_times_input_with_constant_root() -> None:
    x, weight, gradient = draw(2, 3, 6), draw(6), draw(2, 3, 6, seed=1)
    xt = tensor(x)
    root = (xt.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt().detach()
    output = xt / root * torch.from_numpy(weight)
    (expected,) = gradient_times_input(output, gradient, xt)
    found = r.rms_norm(x, gradient * r.as_array(output))
    assert_relevance(found, expected, tolerance=1e-13)


# --- attention --------------------------------------------------------------

HEADS = {"own": (4, 4), "grouped": (4, 2), "shared": (4, 1)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("masking", ["none", "causal", "removed", "bias", "boolean"])
def test_attention_is_gradient_times_input(
    method: str, heads: str, masking: str
) -> None:
    query_heads, key_heads = HEADS[heads]
    query = draw(2, query_heads, 5, 3)
    key, value = draw(2, key_heads, 5, 3, seed=1), draw(2, key_heads, 5, 3, seed=2)
    gradient = draw(2, query_heads, 5, 3, seed=3)
    mask: np.ndarray[Any, Any] | None = None
    if masking == "removed":
        mask = np.where(draw(2, 1, 5, 5) > 0.5, -np.inf, 0.0)
        mask[..., 0] = 0.0
    elif masking == "bias":
        mask = draw(1, query_heads, 5, 5)
    elif masking == "boolean":
        mask = draw(2, 1, 1, 5) > -0.5
        mask[..., 0] = True
    causal = masking == "causal"
    tensors = [tensor(x) for x in (query, key, value)]
    output = twins.attention(
        *tensors,
        method=method,
        mask=None if mask is None else torch.from_numpy(mask),
        causal=causal,
        scale=0.7,
    )
    ours = r.attention_output(query, key, value, mask=mask, causal=causal, scale=0.7)
    np.testing.assert_allclose(ours, r.as_array(output), rtol=1e-12, atol=1e-14)
    found = r.attention(
        query,
        key,
        value,
        gradient * ours,
        method=method,
        mask=mask,
        causal=causal,
        scale=0.7,
    )
    if method == "cplrp":
        assert not found[0].any()
        assert not found[1].any()
        expected = gradient_times_input(output, gradient, tensors[2])
        assert_relevance(found[2], expected[0], tolerance=1e-12)
        np.testing.assert_allclose(found[2].sum(), (gradient * ours).sum())
        return
    for part, wanted in zip(
        found, gradient_times_input(output, gradient, *tensors), strict=True
    ):
        assert_relevance(part, wanted, tolerance=1e-12)


def test_attention_lets_a_single_key_decide_nothing() -> None:
    """One key: the weight is 1 whatever the score, so the query is irrelevant."""
    query, key, value = draw(1, 2, 3, 4), draw(1, 2, 1, 4), draw(1, 2, 1, 4, seed=1)
    to_query, to_key, to_value = r.attention(
        query, key, value, draw(1, 2, 3, 4, seed=2), method="attnlrp"
    )
    np.testing.assert_allclose(to_query, 0.0, atol=1e-14)
    np.testing.assert_allclose(to_key, 0.0, atol=1e-14)
    np.testing.assert_allclose(to_value.sum(), draw(1, 2, 3, 4, seed=2).sum() / 2)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'gxi'"):
        r.method_rules("gxi")


# --- whole models against transformers and timm -----------------------------


def random_weights(model: Any) -> Any:
    """Every parameter, biases and norms too, drawn so that none is trivial."""
    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        norm = "norm" in name.lower() or ".ln_" in name
        with torch.no_grad():
            if norm and name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * noise)
            else:
                parameter.copy_(0.25 * noise)
    return model.double().eval()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A tiny model and what its oracle needs."""

    state: dict[str, Any]
    config: dict[str, Any]
    inputs: Array
    target: Array
    logits: Array
    options: dict[str, Any]

    def explain(self, method: str | r.RuleSet, **changes: Any) -> m.Explanation:
        oracle = self.config["oracle"]
        return oracle(  # type: ignore[no-any-return]
            self.state,
            self.config,
            self.inputs,
            target=self.target,
            method=method,
            **{**self.options, **changes},
        )


TEXT = ("llama", "qwen2", "qwen3", "gpt2", "bert")


def text_case(name: str, *, masked: bool = False) -> Case:
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 31, "max_position_embeddings": 16}
    decoder = {
        **small,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
    makers: Mapping[str, Any] = {
        "llama": lambda: transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**decoder)
        ),
        "qwen2": lambda: transformers.Qwen2ForCausalLM(
            transformers.Qwen2Config(**decoder)
        ),
        "qwen3": lambda: transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**decoder, head_dim=8)
        ),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=4
            )
        ),
        "bert": lambda: transformers.BertForSequenceClassification(
            transformers.BertConfig(
                **small,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_labels=3,
            )
        ),
    }
    model = random_weights(makers[name]())
    ids = torch.tensor([[3, 17, 5, 3, 29, 11], [8, 1, 30, 2, 14, 9]])
    embeds = model.get_input_embeddings()(ids).detach()
    mask = torch.ones_like(ids)
    if masked and name == "bert":
        mask[1, 4:] = 0
    elif masked:
        mask[1, :2] = 0
    with torch.no_grad():
        logits = model(inputs_embeds=embeds, attention_mask=mask).logits
    logits = logits if name == "bert" else logits[:, -1]
    config = model.config.to_dict()
    config["oracle"] = {"gpt2": m.gpt2, "bert": m.bert}.get(name, m.llama)
    state = dict(model.state_dict())
    return Case(
        state=state,
        config=config,
        inputs=r.as_array(embeds),
        target=np.array([1, 2]),
        logits=r.as_array(logits),
        options={"attention_mask": mask if masked else None},
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", TEXT)
def test_text_logits_equal_transformers(name: str, masked: bool) -> None:
    """RMSNorm of transformers works in float32, hence 1e-5 for its models."""
    case = text_case(name, masked=masked)
    tolerance = 1e-12 if name in ("gpt2", "bert") else 1e-5
    found = case.explain("attnlrp")
    assert_relevance(found.logits, case.logits, tolerance=tolerance, what="logits")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", TEXT)
def test_removed_tokens_get_no_relevance(name: str, method: str) -> None:
    case = text_case(name, masked=True)
    removed = r.as_array(case.options["attention_mask"]) == 0.0
    found = case.explain(method)
    assert not found.inputs[removed].any()
    assert found.inputs[~removed].all()


@pytest.mark.parametrize("name", TEXT)
def test_samples_do_not_mix(name: str) -> None:
    case = text_case(name)
    both = case.explain("attnlrp")
    alone = dataclasses.replace(
        case, inputs=case.inputs[1:], target=case.target[1:]
    ).explain("attnlrp")
    assert_relevance(alone.inputs, both.inputs[1:], tolerance=1e-13)


def test_cplrp_conserves_in_every_block_of_a_bias_free_model() -> None:
    case = text_case("llama")
    found = case.explain("cplrp")
    wanted = found.logits[[0, 1], case.target]
    for layer in (found.inputs, *found.blocks):
        np.testing.assert_allclose(layer.sum((1, 2)), wanted, rtol=1e-10)


def test_attnlrp_does_not_conserve() -> None:
    case = text_case("llama")
    found = case.explain("attnlrp")
    wanted = found.logits[[0, 1], case.target]
    assert (np.abs(found.inputs.sum((1, 2)) / wanted - 1.0) > 1e-3).all()


def test_zero_embeddings_get_no_relevance_and_do_no_harm() -> None:
    case = text_case("llama")
    embeds = case.inputs.copy()
    embeds[0, 2] = 0.0
    found = dataclasses.replace(case, inputs=embeds).explain("cplrp")
    assert not found.inputs[0, 2].any()
    np.testing.assert_allclose(
        found.inputs.sum((1, 2)), found.logits[[0, 1], case.target], rtol=1e-10
    )


def test_position_chooses_the_token() -> None:
    """A decoder explained in its middle equals a shorter text explained at its end."""
    case = text_case("gpt2")
    middle = case.explain("attnlrp", position=3)
    short = dataclasses.replace(case, inputs=case.inputs[:, :4]).explain("attnlrp")
    assert_relevance(middle.inputs[:, :4], short.inputs, tolerance=1e-12)
    assert not middle.inputs[:, 4:].any()


def test_unknown_weights_are_refused() -> None:
    case = text_case("gpt2")
    state = {**case.state, "transformer.h.0.adapter.weight": np.ones(3)}
    with pytest.raises(ValueError, match=r"adapter\.weight"):
        dataclasses.replace(case, state=state).explain("attnlrp")


def test_other_activations_are_refused() -> None:
    case = text_case("gpt2")
    config = {**case.config, "activation_function": "relu"}
    with pytest.raises(ValueError, match=r"'gelu_new', not 'relu'"):
        dataclasses.replace(case, config=config).explain("attnlrp")


def vit_model() -> Any:
    timm = pytest.importorskip("timm")
    model = timm.models.VisionTransformer(
        img_size=(8, 12),
        patch_size=4,
        in_chans=3,
        num_classes=5,
        embed_dim=16,
        depth=2,
        num_heads=4,
    )
    return random_weights(model)


@pytest.mark.parametrize("method", METHODS)
def test_vit_is_gradient_times_input(method: str) -> None:
    model, pixels = vit_model(), draw(2, 3, 8, 12)
    xt = tensor(pixels)
    logits = twins.timm_vit(model, xt, method)
    chosen = np.zeros((2, 5))
    chosen[[0, 1], [4, 1]] = 1.0
    (expected,) = gradient_times_input(logits, chosen, xt)
    found = m.vit(
        model.state_dict(), {"num_heads": 4}, pixels, target=[4, 1], method=method
    )
    with torch.no_grad():
        assert_relevance(
            found.logits, model(xt), tolerance=1e-12, what="logits of timm"
        )
    assert_relevance(found.inputs, expected, tolerance=1e-11)


# --- whole models against the references ------------------------------------


def read(path: Path) -> dict[str, Array]:
    from safetensors.numpy import load_file

    return load_file(path)


def reference(name: str) -> tuple[Case, dict[str, Array]]:
    folder = REFERENCES / name
    state = {
        k: v.astype(np.float64) for k, v in read(folder / "model.safetensors").items()
    }
    inputs = read(folder / "inputs.safetensors")
    table, oracle = {
        "gpt2": ("transformer.wte.weight", m.gpt2),
        "bert": ("bert.embeddings.word_embeddings.weight", m.bert),
    }.get(name, ("model.embed_tokens.weight", m.llama))
    config = json.loads((folder / "config.json").read_text())
    case = Case(
        state=state,
        config={**config, "oracle": oracle},
        inputs=state[table][inputs["input_ids"]],
        target=inputs["target"],
        logits=np.zeros(0),
        options={},
    )
    return case, read(folder / "refs.safetensors")


REFERENCE_CASES = [
    (name, method)
    for name in ("llama", "qwen2", "gpt2", "bert")
    for method in METHODS
    if (name, method) != ("bert", "cplrp")  # the references have no CP-LRP for BERT
]


def check_against_reference(
    found: m.Explanation, wanted: Mapping[str, Array], method: str, tolerance: float
) -> None:
    key = f"{method}.f64"
    assert_relevance(found.logits, wanted[f"{key}.logits"], tolerance=tolerance)
    assert_relevance(found.inputs, wanted[f"{key}.relevance"], tolerance=tolerance)
    for i, block in enumerate(found.blocks):
        assert_relevance(
            block.sum(-1),
            wanted[f"{key}.latent_token.{i}"],
            tolerance=tolerance,
            what=f"block {i}",
        )


@pytest.mark.parametrize(("name", "method"), REFERENCE_CASES)
def test_models_equal_references(name: str, method: str) -> None:
    case, wanted = reference(name)
    check_against_reference(case.explain(method), wanted, method, 1e-6)


@pytest.mark.parametrize(("name", "method"), REFERENCE_CASES)
def test_the_rest_is_the_quotient_of_lxt(name: str, method: str) -> None:
    """LXT divides by x + 1e-10 in the identity rule; doing so leaves 1e-13."""

    def quotient(x: Array, relevance: Array) -> Array:
        return relevance * x / (x + 1e-10)

    case, wanted = reference(name)
    rules = dataclasses.replace(r.METHODS[method], activation=quotient)
    check_against_reference(case.explain(rules), wanted, method, 1e-13)


def test_bert_pooler_takes_the_identity_rule() -> None:
    """LXT gives the pooler's tanh the identity rule; its gradient is far off."""

    def gradient(x: Array, relevance: Array) -> Array:
        return relevance * x * (1.0 - np.tanh(x) ** 2) / np.tanh(x)

    case, wanted = reference("bert")
    found = case.explain("attnlrp", pooler_activation=gradient)
    assert relative_error(found.inputs, wanted["attnlrp.f64.relevance"]) > 0.1


# --- mutants ----------------------------------------------------------------

MUTATIONS = [(mutant, method) for mutant in mu.MUTANTS for method in mutant.methods]


def rule_arguments(rule: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments on which a right and a wrong rule differ: signs mixed, biases."""
    x = draw(2, 3, 6)
    if rule == "linear":
        return (x, draw(4, 6), draw(4), draw(2, 3, 4)), {}
    if rule in ("add", "gated_product"):
        return (x, draw(2, 3, 6, seed=1), draw(2, 3, 6, seed=2)), {}
    if rule in ("score_matmul", "value_matmul"):
        return (x, draw(2, 6, 4), draw(2, 3, 4)), {}
    if rule == "layer_norm":
        return (x, draw(6), draw(6, seed=1), draw(2, 3, 6, seed=2)), {"eps": 1e-5}
    return (x, draw(2, 3, 6, seed=1)), {}


@pytest.mark.parametrize(("mutant", "method"), MUTATIONS, ids=str)
def test_mutants_differ_from_their_rule(mutant: mu.Mutant, method: str) -> None:
    arguments, options = rule_arguments(mutant.rule)
    right = getattr(r.METHODS[method], mutant.rule)(*arguments, **options)
    wrong = mutant.function(*arguments, **options)
    pairs = zip(
        right if isinstance(right, tuple) else (right,),
        wrong if isinstance(wrong, tuple) else (wrong,),
        strict=True,
    )
    assert any(
        a.any() != b.any() or (a.any() and relative_error(b, a) > 1e-3)
        for a, b in pairs
    )


@pytest.mark.parametrize(("mutant", "method"), MUTATIONS, ids=str)
def test_whole_models_reject_mutants(mutant: mu.Mutant, method: str) -> None:
    name = "llama" if mutant.rule in ("rms_norm", "gated_product") else "gpt2"
    case = text_case(name)
    right = case.explain(method)
    wrong = case.explain(mutant.applied_to(r.METHODS[method]))
    with pytest.raises(AssertionError, match="relative error"):
        assert_relevance(wrong.inputs, right.inputs, tolerance=1e-4)


def test_every_rule_has_mutants() -> None:
    passing = {"softmax", "score_matmul"}  # CP-LRP sends nothing there
    for field in dataclasses.fields(r.RuleSet):
        assert mu.mutants_of(field.name, "attnlrp")
        if field.name not in passing:
            assert mu.mutants_of(field.name, "cplrp")


def test_no_mutant_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"no mutant of 'softmax' is wrong"):
        mu.mutants_of("softmax", "cplrp")


def test_comparison_fails_on_nan_and_on_nothing_to_compare() -> None:
    assert math.isnan(relative_error([np.nan, 1.0], [1.0, 1.0]))
    with pytest.raises(AssertionError):
        assert_relevance([np.nan, 1.0], [1.0, 1.0], tolerance=1.0)
    with pytest.raises(ValueError, match="zero everywhere"):
        relative_error([0.0], [0.0])
    with pytest.raises(ValueError, match="shape"):
        relative_error([[1.0]], [1.0])
