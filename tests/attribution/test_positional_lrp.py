"""Positional LRP, against its authors' outputs, oracles, and layers made to explain."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    AttnLRP,
    LayerAttnLRP,
    LLMTransformerLRP,
    PositionalLRP,
    errors,
)
from tests.helpers import REFERENCES, assert_same_state, relative, state_of, tiny
from tests.language.models import language_model, plain, tokens
from tests.oracles.positions import (
    attention_relevance,
    rotary_relevance,
    rotated,
    rotation,
)

TOKENS, WIDTH = 5, 4


# ----------------------------------------------------------------- the authors' outputs


@pytest.fixture(scope="module")
def authors() -> Any:
    from safetensors.torch import load_file

    folder = REFERENCES / "llama"
    inputs = load_file(folder / "inputs.safetensors")
    return folder, inputs, load_file(folder / "refs.safetensors")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_equals_the_authors_code_on_llama(authors: Any, attention: str) -> None:
    from transformers import AutoModelForCausalLM

    folder, inputs, references = authors
    key = "palrp.f64.eps0"
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention)
    model = model.double().eval()
    ids, target = inputs["input_ids"], [(-1, int(t)) for t in inputs["target"]]
    lrp = PositionalLRP(model)
    parts = lrp.parts(ids, target)
    assert {e.encoding for e in parts.encodings} == {"rotary"}
    by_table = torch.stack([e.relevance for e in parts.encodings], 1)
    expected = references[f"{key}.pe_layer_cossin_token"]
    by_layer = by_table.reshape(expected.shape)
    assert relative(by_layer, expected) <= 1e-6
    assert relative(parts.tokens, references[f"{key}.relevance_token"]) <= 1e-6
    for sign, name in (("absolute", "pe_token_abs"), ("signed", "pe_token_signed")):
        assert relative(parts.positions(sign), references[f"{key}.{name}"]) <= 1e-6
    whole = lrp.attribute(ids, target)
    assert relative(whole, references[f"{key}.total_token_abs"]) <= 1e-6

    embeddings = model.get_input_embeddings()(ids).detach()
    by_feature = lrp.parts({"inputs_embeds": embeddings}, target)
    assert relative(by_feature.tokens, references[f"{key}.relevance"]) <= 1e-6
    assert relative(by_feature.positions(), references[f"{key}.pe_token_abs"]) <= 1e-6


# -------------------------------------------------------------------------- the oracles


class Attend(nn.Module):
    """One head over the tokens, its queries, keys and values apart."""

    def __init__(self, encoding: str, weights: Tensor) -> None:
        super().__init__()
        self.encoding = encoding
        self.weights = weights

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        count, width = q.shape[-2:]
        steps = torch.arange(count)
        bias = None
        if self.encoding == "rotary":
            with torch.no_grad():  # as Hugging Face's models compute it
                inverse = 100.0 ** (-torch.arange(0, width, 2).double() / width)
                angles = (steps[:, None] * inverse).repeat(1, 2)
                cos, sin = angles.cos(), angles.sin()
            q = (
                q * cos
                + torch.cat([-q[..., width // 2 :], q[..., : width // 2]], -1) * sin
            )
            k = (
                cos * k
                + torch.cat([-k[..., width // 2 :], k[..., : width // 2]], -1) * sin
            )
        else:
            bias = -0.3 * (steps[:, None] - steps).abs().double()
            bias = bias.masked_fill(steps[:, None] < steps, -math.inf)
        if self.encoding == "fused":
            seen = nn.functional.scaled_dot_product_attention(
                q[:, None], k[:, None], v[:, None], attn_mask=bias, scale=1.0
            )[:, 0]
        elif self.encoding == "baddbmm":
            assert bias is not None
            seen = torch.baddbmm(bias[None], q, k.transpose(1, 2)).softmax(-1) @ v
        else:
            scores = q @ k.transpose(1, 2)
            seen = (scores if bias is None else scores + bias).softmax(-1) @ v
        return (seen * self.weights).sum((1, 2))


def vectors(examples: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    q, k, v = torch.randn(3, examples, TOKENS, WIDTH).double()
    return q, k, v, torch.randn(TOKENS, WIDTH).double()


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("encoding", ["alibi", "fused", "baddbmm"])
def test_biases_of_scores_equal_the_oracle(encoding: str, examples: int) -> None:
    q, k, v, weights = vectors(examples)
    parts = PositionalLRP(Attend(encoding, weights)).parts((q, k, v))
    (found,) = parts.encodings
    assert found.encoding == "bias"
    assert found.input == 1  # that of the keys
    steps = torch.arange(TOKENS)
    bias = -0.3 * (steps[:, None] - steps).abs().double()
    bias = bias.masked_fill(steps[:, None] < steps, -math.inf)
    for example in range(examples):
        r_q, r_k, r_bias = attention_relevance(
            q[example], k[example], v[example], bias, weights
        )
        assert relative(found.relevance[example], r_bias.sum(0)) <= 1e-10
        assert relative(parts.tokens[0][example], r_q) <= 1e-10
        assert relative(parts.tokens[1][example], r_k) <= 1e-10


@pytest.mark.parametrize("examples", [1, 2])
def test_rotary_positions_equal_the_oracle(examples: int) -> None:
    q, k, v, weights = vectors(examples)
    parts = PositionalLRP(Attend("rotary", weights)).parts((q, k, v))
    cos, sin = rotation(TOKENS, WIDTH)
    found = {(e.input, e.table): e.relevance for e in parts.encodings}
    assert len(found) == 4
    nothing = torch.zeros(TOKENS, TOKENS).double()
    for example in range(examples):
        given = q[example], k[example]
        turned = [rotated(x, cos, sin) for x in given]
        *relevances, _ = attention_relevance(
            turned[0], turned[1], v[example], nothing, weights
        )
        for i, (x, relevance) in enumerate(zip(given, relevances, strict=True)):
            r_x, r_cos, r_sin = rotary_relevance(x, cos, sin, relevance)
            assert relative(parts.tokens[i][example], r_x) <= 1e-10
            assert relative(found[i, 0][example], r_cos) <= 1e-10
            assert relative(found[i, 1][example], r_sin) <= 1e-10


# ------------------------------------------------ positions that another class explains


def test_rows_of_a_parameter_equal_positions_given_as_inputs() -> None:
    model = tiny()
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])

    def forward(embeddings: Tensor, position: Tensor) -> Tensor:
        x = embeddings + position
        for block in model.blocks:
            x = block(x)
        return model.head(x.mean(1))

    embeddings = model.embedding(ids).detach()
    position = model.position[:, :5].detach().expand(2, -1, -1)
    semantic, expected = AttnLRP(forward).attribute((embeddings, position), target=1)
    parts = PositionalLRP(model).parts(ids, target=1)
    assert [(e.encoding, e.module, e.input) for e in parts.encodings] == [
        ("absolute", "Tiny", 0)
    ]
    assert relative(parts.positions("signed"), expected.sum(-1)) <= 1e-10
    assert relative(parts.tokens, semantic.sum(-1)) <= 1e-10


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_position_embeddings_equal_the_relevance_at_their_layer(name: str) -> None:
    model = language_model(name)
    ids = torch.stack([tokens(6, seed=1), tokens(6, seed=2)])
    if name == "gpt2":
        table = model.transformer.wpe
    else:
        model, table = model.model.encoder, model.model.encoder.embed_positions
    field: Any = {} if name == "gpt2" else {"output_field": "last_hidden_state"}
    expected = LayerAttnLRP(model, table, **field)
    parts = PositionalLRP(model, **field)
    for example in ids:
        at_layer = expected.attribute(example[None], target=(-1, 7))
        found = parts.parts(example[None], target=(-1, 7))
        assert relative(found.positions("signed"), at_layer.sum(-1)) <= 1e-10
    several = parts.parts(ids, target=(-1, 7))
    assert relative(several.positions("signed")[1:], found.positions("signed")) <= 1e-10


def test_relative_biases_of_t5_equal_the_relevance_at_their_layer() -> None:
    model = language_model("t5").encoder
    ids = tokens(6, seed=1)[None]
    field: Any = {"output_field": "last_hidden_state"}
    table = model.block[0].layer[0].SelfAttention.relative_attention_bias
    at_layer = LayerAttnLRP(model, table, **field).attribute(ids, target=(-1, 7))
    parts = PositionalLRP(model, **field).parts(ids, target=(-1, 7))
    assert [e.encoding for e in parts.encodings] == ["bias", "bias"]  # one for a block
    at_keys = at_layer.sum((0, 2))  # (queries, keys, heads)
    assert relative(parts.positions("signed")[0], at_keys) <= 1e-10


@pytest.mark.parametrize(
    ("name", "encoding", "tables"),
    [("gpt2", "absolute", 1), ("llama", "rotary", 4), ("bloom", "bias", 2)],
)
def test_recognised_in_hugging_face_models(
    name: str, encoding: str, tables: int
) -> None:
    parts = PositionalLRP(language_model(name)).parts(tokens(6)[None], (-1, 3))
    assert [e.encoding for e in parts.encodings] == [encoding] * tables
    assert all(e.relevance.shape == (1, 6) and e.input == 0 for e in parts.encodings)
    assert torch.as_tensor(parts.positions()).any()


def test_masks_are_no_positions() -> None:
    model = language_model("llama")
    ids = tokens(6)[None]
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    parts = PositionalLRP(model).parts(
        {"input_ids": ids, "attention_mask": mask}, target=(3, 7)
    )
    assert {e.encoding for e in parts.encodings} == {"rotary"}
    assert not parts.positions()[0, 4:].any()
    alone = PositionalLRP(model).parts(ids[:, :4], target=(3, 7))
    assert relative(parts.positions()[:, :4], alone.positions()) <= 1e-10


def test_positions_that_the_user_gives() -> None:
    model = language_model("gpt2")
    ids, given = tokens(4)[None], torch.tensor([[0, 0, 1, 2]])
    lrp = PositionalLRP(model)
    parts = lrp.parts({"input_ids": ids, "position_ids": given}, target=(-1, 3))
    layer = LayerAttnLRP(model, model.transformer.wpe)
    expected = layer.attribute(
        {"input_ids": ids, "position_ids": given}, target=(-1, 3)
    )
    assert relative(parts.positions("signed"), expected.sum(-1)) <= 1e-10


# ------------------------------------------------------------------ as Captum's classes


def test_attribute_adds_positions_to_tokens() -> None:
    model, ids = language_model("llama"), tokens(6)[None]
    parts = PositionalLRP(model).parts(ids, (-1, 3))
    whole = PositionalLRP(model).attribute(ids, (-1, 3))
    assert torch.equal(whole, parts.tokens + parts.positions())
    signed = PositionalLRP(model, sign="signed")
    found, delta = signed.attribute(ids, (-1, 3), return_convergence_delta=True)
    assert torch.equal(found, parts.tokens + parts.positions("signed"))
    score = model(ids).logits[0, -1, 3].detach()
    assert relative(delta, score - found.sum(1)) <= 1e-10


def test_conserves_together_with_positions() -> None:
    torch.manual_seed(0)
    model = plain()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    ids = tokens(6)[None]
    lrp = PositionalLRP(model, "cp-lrp", sign="signed")
    _, delta = lrp.attribute(ids, (-1, 3), return_convergence_delta=True)
    score = model(ids)[0, -1, 3].detach()
    assert abs(float(delta)) <= 1e-10 * abs(float(score))
    _, without = AttnLRP(model).attribute(ids, (-1, 3), return_convergence_delta=True)
    assert abs(float(without)) > 1e-3 * abs(float(score))


def test_leaves_the_model_as_it_was() -> None:
    model = language_model("llama")
    before = state_of(model)
    PositionalLRP(model).attribute(tokens(6)[None], (-1, 3))
    assert_same_state(before, state_of(model))


def test_errors() -> None:
    with pytest.raises(
        ValueError, match="sign='both'; expected 'absolute' or 'signed'"
    ):
        PositionalLRP(plain(), sign="both")
    model = tiny()
    embeddings = model.embedding(torch.tensor([[3, 1, 4]])).detach()
    with pytest.raises(errors.InputError) as caught:
        PositionalLRP(model).attribute({"inputs_embeds": embeddings}, target=1)
    assert "one score each, shape (1, 3), the explained input is of shape" in str(
        caught.value
    )

    class TokensFirst(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x.transpose(0, 1)
            return (x + torch.arange(3.0)[:, None, None]).sum((0, 2))

    with pytest.raises(errors.InputError) as caught:
        PositionalLRP(TokensFirst()).parts(torch.randn(2, 3, 4))
    assert "which tokens are which is only known where the first" in str(caught.value)


# ----------------------------------------------------------------- for generated tokens


@pytest.mark.parametrize("sign", ["absolute", "signed"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom"])
def test_generated_tokens_equal_one_by_one(name: str, sign: Any) -> None:
    model = language_model(name)
    prompt, target = tokens(5, seed=1), tokens(4, seed=2)
    llm = LLMTransformerLRP(model, positional=sign, chunk_size=3)
    found = llm.attribute(prompt, target, include_generated=True).token_attr
    sequence = torch.cat([prompt, target[:-1]])[None]
    lrp = PositionalLRP(model, sign=sign)
    for k, token in enumerate(target):
        expected = lrp.attribute(sequence, (4 + k, int(token)))
        assert relative(found[k : k + 1, :-1], expected) <= 1e-10


def test_generated_tokens_of_an_encoder_decoder_and_of_a_padded_batch() -> None:
    model = language_model("t5")
    llm = LLMTransformerLRP(model, positional="signed")
    prompts, targets = [tokens(6), tokens(4)], [tokens(3), tokens(2)]
    ids, mask = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6)
    for i, prompt in enumerate(prompts):
        ids[i, -len(prompt) :], mask[i, -len(prompt) :] = prompt, 1
    found = llm.attribute({"input_ids": ids, "attention_mask": mask}, targets)
    for result, prompt, target in zip(found, prompts, targets, strict=True):
        alone = llm.attribute(prompt, target)
        assert relative(result.token_attr, alone.token_attr) <= 1e-10
        assert relative(result.start_attr, alone.start_attr) <= 1e-10
    plain_result = LLMTransformerLRP(model).attribute(prompts[0], targets[0])
    assert relative(found[0].token_attr, plain_result.token_attr) > 1e-4
    assert relative(found[0].start_attr, plain_result.start_attr) > 1e-4
