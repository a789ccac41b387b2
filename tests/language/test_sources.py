"""Spans and sources in one backward pass, and relevance sent on, against oracles."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    AttnLRP,
    LLMTransformerLRP,
    SourceRelevance,
    TransformerLRP,
    errors,
    load,
    targets,
)
from captum_transformer_lrp.core.engine import Engine
from tests.helpers import assert_same_state, relative, state_of
from tests.language.models import VOCABULARY, language_model, plain, tokens
from tests.models.tiny import byte_level_tokenizer

PROMPT, TARGET = tokens(9, seed=1), tokens(6, seed=2)
TEXT, ANSWER = "the movie. The best movie! Was the", " the best movie was the best"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    pytest.importorskip("transformers")
    return byte_level_tokenizer()


def spoken(tokenizer: Any, name: str = "gpt2", **options: Any) -> LLMTransformerLRP:
    model = language_model(name, vocab_size=len(tokenizer))
    return LLMTransformerLRP(model, tokenizer, **options)


# ---------------------------------------------------------------- seeds that add up


# the others compute part of themselves in float32, whatever they are given
@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp", "epsilon"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_a_span_is_the_sum_of_its_tokens(name: str, composite: str) -> None:
    llm = LLMTransformerLRP(language_model(name), composite=composite)
    each = llm.attribute(PROMPT, TARGET)
    found = llm.attribute(PROMPT, TARGET, span=slice(1, 4))
    assert isinstance(found, SourceRelevance)
    assert relative(found.token_attr[0], each.token_attr[1:4].sum(0)) <= 1e-12
    assert relative(found.generated_attr[0], each.generated_attr[1:4].sum(0)) <= 1e-12
    start = each.start_attr[1:4].sum()
    assert abs(found.hop_start[0, 0] - start) <= 1e-12 * each.token_attr.abs().max()
    assert relative(found.scores[0], each.scores[1:4].sum()) <= 1e-12
    assert torch.equal(found.log_probs, each.log_probs)
    one_each = llm.attribute(PROMPT, TARGET, span="tokens")
    assert relative(one_each.token_attr, each.token_attr) <= 1e-12
    whole = llm.attribute(PROMPT, TARGET, sources="tokens", hops=0)
    assert relative(whole.token_attr[0], each.seq_attr) <= 1e-12


@pytest.mark.parametrize("name", ["gemma2", "bloom"])
def test_also_where_the_model_rounds_to_float32(name: str) -> None:
    llm = LLMTransformerLRP(language_model(name))
    each = llm.attribute(PROMPT, TARGET).token_attr
    found = llm.attribute(PROMPT, TARGET, span=slice(1, 4)).token_attr
    assert relative(found[0], each[1:4].sum(0)) <= 1e-6


def test_of_what_carries_relevance() -> None:
    llm = LLMTransformerLRP(language_model("gpt2"), composite="alpha-beta")
    each = llm.attribute(PROMPT, TARGET)
    found = llm.attribute(PROMPT, TARGET, span=slice(1, 4), hops=1)
    first = found.hop_attr[0, 0]
    assert relative(first, each.token_attr[1:4].sum(0)) <= 1e-12
    came = each.generated_attr[1:4].sum(0)
    assert relative(found.hop_generated[0, 0], came) <= 1e-12


@pytest.mark.parametrize("attr_target", ["log_prob", "prob"])
def test_of_log_probabilities_and_of_a_product(attr_target: str) -> None:
    model = language_model("gpt2", initializer_range=0.1)
    llm = LLMTransformerLRP(model, attr_target=attr_target)
    each = llm.attribute(PROMPT, TARGET)
    found = llm.attribute(PROMPT, TARGET, span=slice(2, 4))
    if attr_target == "log_prob":
        assert relative(found.token_attr[0], each.token_attr[2:4].sum(0)) <= 1e-12
        assert relative(found.scores[0], each.log_probs[2:4].sum()) <= 1e-12
    else:  # the derivative of a product
        chances = each.output_probs
        expected = chances[3] * each.token_attr[2] + chances[2] * each.token_attr[3]
        assert relative(found.token_attr[0], expected) <= 1e-10
        assert relative(found.scores[0], chances[2] * chances[3]) <= 1e-12


def test_a_contrast() -> None:
    llm = LLMTransformerLRP(language_model("llama"))
    other = tokens(6, seed=9)
    each = llm.attribute(PROMPT, TARGET, contrast=other).token_attr
    found = llm.attribute(PROMPT, TARGET, contrast=other, span=slice(1, 3))
    assert relative(found.token_attr[0], each[1:3].sum(0)) <= 1e-12
    assert found.explained == "logit, less that of another token"


def test_sources_are_sums_and_nothing_is_lost(tokenizer: Any) -> None:
    found = spoken(tokenizer).attribute(
        TEXT, ANSWER, span=["the best movie", "was the"], sources="sentences", hops=1
    )
    assert [s.text for s in found.sources] == [
        "the movie.",
        "The best movie!",
        "Was the",
    ]
    for number in range(3):
        inside = found.source_of == number
        assert inside.any()
        expected = found.token_attr[:, inside].sum(1)
        assert relative(found.source_attr[:, number], expected) <= 1e-12
    total = (
        found.token_attr.sum(1) + found.generated_attr.sum(1) + found.hop_start.sum(0)
    )
    assert relative(found.all_attr.sum(1), total) <= 1e-12
    assert found.columns == [
        *"123",
        "template",
        "other text",
        "decoder start",
        "generated",
    ]


def test_what_is_in_no_source_is_a_column(tokenizer: Any) -> None:
    found = spoken(tokenizer).attribute(TEXT, ANSWER, sources=["The best movie!"])
    assert found.columns[:3] == ["1", "template", "other text"]
    other = found.source_of == -2
    assert 0 < int(other.sum()) < len(other)
    expected = found.token_attr[:, other].sum(1)
    assert relative(found.all_attr[:, 2], expected) <= 1e-12
    each = spoken(tokenizer).attribute(TEXT, ANSWER)
    whole = each.token_attr.sum() + each.generated_attr.sum()
    assert relative(found.all_attr.sum(), whole) <= 1e-12


def test_relevance_and_constants_make_up_the_score() -> None:
    model = language_model("llama")  # which has no biases
    llm = LLMTransformerLRP(model, composite="cp-lrp")
    for hops in (0, 1, 3):
        found = llm.attribute(PROMPT, TARGET, span=slice(2, 6), hops=hops)
        assert relative(found.all_attr.sum(1), found.scores) <= 1e-10
        assert found.convergence_delta.abs().max() <= 1e-10 * found.scores.abs().max()
    biased = LLMTransformerLRP(language_model("gpt2"), composite="cp-lrp")
    assert biased.attribute(PROMPT, TARGET, span=slice(2, 6)).convergence_delta.any()


def test_a_token_that_is_left_out_is_in_no_source(tokenizer: Any) -> None:
    number = tokenizer.encode(TEXT)[0]
    llm = spoken(tokenizer)
    whole = llm.attribute(TEXT, ANSWER, sources="sentences")
    found = llm.attribute(TEXT, ANSWER, sources="sentences", skip_tokens=[number])
    assert int((found.source_of == -2).sum()) >= 1
    assert relative(found.all_attr.sum(), whole.all_attr.sum()) <= 1e-12


# ----------------------------------------------------------------------------- hops


class Copying(nn.Module):
    """Each position copies earlier tokens by weights that are written down.

    The logit of token v at position t is ``sum_s weight[t, s] table[ids[s], v]``.
    """

    def __init__(self, weight: Tensor, table: Tensor) -> None:
        super().__init__()
        self.weight = weight
        self.embedding = nn.Embedding.from_pretrained(torch.eye(len(table)).double())
        self.table = nn.Parameter(table)

    def forward(self, ids: Tensor) -> Tensor:
        size = ids.shape[1]
        return self.weight[:size, :size] @ (self.embedding(ids) @ self.table)


def flow_by_hand(
    model: Copying, ids: list[int], start: int, span: list[int], hops: int
) -> tuple[list[float], list[float]]:
    """What comes to each token of the prompt, and stays on those written, by loops."""
    weight, table = model.weight.tolist(), model.table.tolist()
    size, width = len(ids), len(table)

    def relevance(position: int, token: int, s: int, above_mean: bool) -> float:
        logit = weight[position][s] * table[ids[s]][token]
        mean = weight[position][s] * sum(table[ids[s]]) / width
        return logit - mean if above_mean else logit

    came = [0.0] * size
    for k in span:
        for s in range(start + k):
            came[s] += relevance(start + k - 1, ids[start + k], s, False)
    prompt = came[:start]
    stays = [0.0] * (size - start)
    for _ in range(hops):
        onward = [0.0] * size
        for j in range(start, size):
            parts = [relevance(j - 1, ids[j], s, True) for s in range(j)]
            logits = [
                sum(relevance(j - 1, v, s, True) for s in range(j))
                for v in range(width)
            ]
            spread = math.sqrt(sum(x * x for x in logits) / width)
            if abs(sum(parts)) < 0.1 * spread:
                stays[j - start] += came[j]
                continue
            for s in range(j):
                onward[s] += came[j] / sum(parts) * parts[s]
        came = onward
        prompt = [a + b for a, b in zip(prompt, came[:start], strict=True)]
    return prompt, [a + b for a, b in zip(stays, came[start:], strict=True)]


def copying(seed: int = 0, width: int = 12, size: int = 12) -> Copying:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(size, size, generator=generator).double().tril() + 0.01
    table = torch.randn(width, width, generator=generator).double()
    return Copying(weight.tril(), table)


@pytest.mark.parametrize("hops", [0, 1, 2, 5])
def test_hops_through_a_model_whose_flow_is_known(hops: int) -> None:
    model = copying()
    ids = torch.randint(12, (11,), generator=torch.Generator().manual_seed(3))
    llm = LLMTransformerLRP(model, composite="cp-lrp")
    found = llm.attribute(ids[:5], ids[5:], span=slice(3, 6), hops=hops)
    prompt, stays = flow_by_hand(model, ids.tolist(), 5, [3, 4, 5], hops)
    assert (
        relative(found.token_attr[0], torch.tensor(prompt, dtype=torch.float64))
        <= 1e-12
    )
    kept = torch.tensor(stays, dtype=torch.float64)
    assert (found.generated_attr[0] - kept).abs().max() <= 1e-12
    assert relative(found.all_attr.sum(), found.scores.sum()) <= 1e-12
    if hops == 5:  # all has come to the prompt
        assert not found.generated_attr[:, found.sent_on].any()


def chain(
    rows: Tensor,
    above: Tensor,
    scores: Tensor,
    spread: Tensor,
    start: int,
    hops: int,
) -> Tensor:
    """What comes to the prompt: rows of single tokens, and products of matrices."""
    stands_out = scores.abs() > 0.1 * spread
    step = torch.where(stands_out[:, None], above / scores[:, None], 0)
    came = rows[:, start:]
    prompt = rows[:, :start]
    for _ in range(hops):
        onward = came @ step
        prompt = prompt + onward[:, :start]
        came = onward[:, start:]
    return prompt


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("attr_target", ["logit", "log_prob"])
def test_hops_are_products_of_the_matrices_of_single_tokens(
    name: str, attr_target: str
) -> None:
    model = language_model(name)
    sequence = torch.cat([PROMPT, TARGET])[None]
    lrp, start = AttnLRP(model), len(PROMPT)

    def row(k: int) -> Tensor:
        def above_mean(output: Any) -> Tensor:
            logits = output.logits[:, start + k - 1]
            return logits[:, int(TARGET[k])] - logits.mean(-1)

        found: Tensor = lrp.attribute(sequence, target=above_mean)[0]
        return found

    with torch.no_grad():
        logits = model(sequence).logits[0, start - 1 : -1]
    scores = logits.gather(1, TARGET[:, None])[:, 0] - logits.mean(1)
    llm = LLMTransformerLRP(model, attr_target=attr_target, chunk_size=4)
    each = llm.attribute(PROMPT, TARGET, include_generated=True).token_attr
    found = llm.attribute(PROMPT, TARGET, span="tokens", hops=2)
    above = torch.stack([row(k) for k in range(len(TARGET))])
    spread = logits.std(1, correction=0)
    expected = chain(each, above, scores, spread, start, 2)
    assert relative(found.token_attr, expected) <= 1e-10
    assert relative(expected, each[:, :start]) > 1e-3


def test_hops_of_an_encoder_decoder() -> None:
    llm = LLMTransformerLRP(language_model("t5"), composite="cp-lrp")
    found = llm.attribute(PROMPT, TARGET, span=slice(4, 6), hops=1)
    stays = found.generated_attr[0]
    assert stays[:4].any() and not stays[5:].any()
    assert relative(found.all_attr.sum(), found.scores.sum()) <= 1e-10


def test_a_token_that_does_not_stand_out_keeps_what_came() -> None:
    model = copying()
    with torch.no_grad():  # all tokens are alike after token 3
        model.table[3] = 0.5
        model.weight[6] = 0.0
        model.weight[6, 4] = 1.0  # where the eighth token is predicted
    ids = torch.tensor([1, 4, 2, 7, 3, 5, 9, 2, 8, 6])
    llm = LLMTransformerLRP(model, composite="cp-lrp")
    found = llm.attribute(ids[:5], ids[5:], span=slice(4, 5), hops=3)
    assert found.sent_on.tolist() == [True, True, False, True, True]
    assert found.hop_generated[0, 0, 2] != 0
    assert torch.isfinite(found.hop_attr).all()
    stays = found.generated_attr[0, 2]
    assert relative(stays, found.hop_generated[:, 0, 2].sum()) <= 1e-12
    assert relative(found.all_attr.sum(), found.scores.sum()) <= 1e-12


# ------------------------------------------------------------------- one pass each


def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many go back at once, for each backward pass through the model."""
    seen: list[int] = []
    original = Engine.gradients

    def gradients(self: Engine, scores: Any, tensors: Any, **options: Any) -> Any:
        if options.get("seeds") is not None:
            batched = options.get("batched")
            seen.append(len(options["seeds"]) if batched else 1)
        return original(self, scores, tensors, **options)

    monkeypatch.setattr(Engine, "gradients", gradients)
    return seen


def test_one_pass_for_a_span_and_one_for_each_hop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = passes(monkeypatch)
    model = plain()
    llm = LLMTransformerLRP(model)
    llm.attribute(PROMPT, TARGET, span=slice(0, 6))
    assert (model.calls, seen) == (1, [1])
    llm.attribute(PROMPT, TARGET, hops=2)
    assert (model.calls, seen) == (2, [1, 1, 1, 1])
    llm.attribute(PROMPT, TARGET, span="tokens", hops=1)
    assert (model.calls, seen[4:]) == (3, [6, 6])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
def test_padded_prompts_equal_one_by_one(name: str, side: str) -> None:
    llm = LLMTransformerLRP(language_model(name), chunk_size=2)
    short, its_target = tokens(4, seed=3), tokens(3, seed=4)
    place = slice(5, 9) if side == "left" else slice(0, 4)
    ids, mask = torch.full((2, 9), 39), torch.zeros(2, 9, dtype=torch.int64)
    ids[0], mask[0] = PROMPT, 1
    ids[1, place], mask[1, place] = short, 1
    batch = {"input_ids": ids, "attention_mask": mask}
    found = llm.attribute(
        batch, [TARGET, its_target], span=["tokens", slice(1, 3)], hops=2
    )
    alone = (
        llm.attribute(PROMPT, TARGET, span="tokens", hops=2),
        llm.attribute(short, its_target, span=slice(1, 3), hops=2),
    )
    for one, expected in zip(found, alone, strict=True):
        assert relative(one.hop_attr, expected.hop_attr) <= 1e-10
        assert relative(one.hop_generated, expected.hop_generated) <= 1e-10
        assert relative(one.scores, expected.scores) <= 1e-10
        assert one.input_tokens == expected.input_tokens


def test_checkpointed_model() -> None:
    options: dict[str, Any] = {"span": slice(2, 5), "hops": 1}
    expected = LLMTransformerLRP(plain()).attribute(PROMPT, TARGET, **options)
    found = LLMTransformerLRP(plain(checkpoints=True)).attribute(
        PROMPT, TARGET, **options
    )
    assert relative(found.token_attr, expected.token_attr) <= 1e-10


def test_positions_with_their_sign() -> None:
    llm = LLMTransformerLRP(language_model("gpt2"), positional="signed")
    each = llm.attribute(PROMPT, TARGET).token_attr
    found = llm.attribute(PROMPT, TARGET, span=slice(1, 4)).token_attr
    assert relative(found[0], each[1:4].sum(0)) <= 1e-12


def test_leaves_the_model_as_it_was() -> None:
    model = language_model("gpt2")
    before = state_of(model)
    LLMTransformerLRP(model).attribute(PROMPT, TARGET, span=slice(1, 3), hops=2)
    assert_same_state(before, state_of(model))
    with pytest.raises(errors.TargetError):
        LLMTransformerLRP(model).attribute(PROMPT, TARGET, span=slice(9, 12))
    assert_same_state(before, state_of(model))


def test_half_precision() -> None:
    model = language_model("llama")
    expected = LLMTransformerLRP(model).attribute(PROMPT, TARGET, hops=1)
    found = LLMTransformerLRP(model.bfloat16()).attribute(PROMPT, TARGET, hops=1)
    assert found.scores.dtype == torch.float32
    assert torch.isfinite(found.hop_attr).all()
    assert relative(found.scores.double(), expected.scores) <= 0.1


# ------------------------------------------------------------- functions of a step


def test_a_function_of_the_logits_of_a_step() -> None:
    model = language_model("gpt2")
    sequence = torch.cat([PROMPT, TARGET[:-1]])[None]
    for function in (
        targets.Entropy(),
        targets.Probability((3, 5, 9)),
        targets.LogProbability(7),
        targets.KL(torch.linspace(-1, 1, VOCABULARY).double()),
    ):
        llm = LLMTransformerLRP(model, composite="cp-lrp", attr_target=function)
        found = llm.attribute(PROMPT, TARGET, include_generated=True)
        for k in range(len(TARGET)):

            def at_step(output: Any, k: int = k, f: Any = function) -> Tensor:
                score: Tensor = f(output.logits[:, len(PROMPT) - 1 + k])
                return score

            expected = TransformerLRP(model, "cp-lrp").attribute(
                sequence, target=at_step
            )
            assert relative(found.token_attr[k, :-1], expected[0]) <= 1e-10
        span = llm.attribute(PROMPT, TARGET, span=slice(1, 3))
        summed = found.token_attr[1:3, : len(PROMPT)].sum(0)
        assert relative(span.token_attr[0], summed) <= 1e-10


def test_a_function_that_returns_something_else() -> None:
    llm = LLMTransformerLRP(plain(), attr_target=lambda logits: logits.sum())
    with pytest.raises(errors.TargetError, match=r"expected a tensor of shape \(steps"):
        llm.attribute(PROMPT, TARGET)


# --------------------------------------------------------------- texts and results


def test_spans_by_text_by_characters_and_by_expression(tokenizer: Any) -> None:
    llm = spoken(tokenizer)
    by_text = llm.attribute(TEXT, ANSWER, span="movie was")
    place = ANSWER.index("movie was")
    for span in (
        (place, place + len("movie was")),
        re.compile("m[a-z]+ was"),
        lambda text: [(place, place + len("movie was"))],
        {"what": "movie was"},
    ):
        found = llm.attribute(TEXT, ANSWER, span=span)
        assert torch.equal(found.token_attr, by_text.token_attr)
    part = llm.attribute(TEXT, ANSWER, span=(place + 1, place + 3))  # inside a token
    assert int(part.span_tokens.sum()) == 1
    each = llm.attribute(TEXT, ANSWER, span=re.compile("the (best)"))
    assert [s.text for s in each.spans] == ["best", "best"]
    words = llm.attribute(TEXT, ANSWER, span="words")
    assert [s.text for s in words.spans] == ANSWER.split()
    assert (
        relative(words.token_attr.sum(0), llm.attribute(TEXT, ANSWER).seq_attr) < 1e-12
    )


def test_token_ids_and_what_a_tokenizer_returns(tokenizer: Any) -> None:
    llm = spoken(tokenizer)
    expected = llm.attribute(TEXT, ANSWER, sources="sentences", span="movie was")
    target = torch.tensor(tokenizer.encode(ANSWER))
    for prompt in (tokenizer(TEXT, return_tensors="pt"), tokenizer.encode(TEXT)):
        ids = torch.tensor(prompt) if isinstance(prompt, list) else prompt
        found = llm.attribute(ids, target, sources="sentences", span="movie was")
        assert torch.equal(found.source_attr, expected.source_attr)
    several = llm.attribute([TEXT, "the movie"], [ANSWER, " was best"], hops=1)
    assert [len(one.sources) for one in several] == [3, 1]


@pytest.mark.parametrize("suffix", [".json", ".safetensors", ".parquet"])
def test_a_result_is_kept(tokenizer: Any, tmp_path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    result = spoken(tokenizer).attribute(
        TEXT, ANSWER, span="words", sources={"a": "the movie.", "b": (11, 20)}, hops=2
    )
    found = load(result.save(tmp_path / f"a{suffix}"))
    assert found.to_dict() == result.to_dict()
    assert found.spans == result.spans and found.sources == result.sources
    for name, kept in vars(found).items():
        if isinstance(kept, Tensor):
            assert torch.equal(kept, getattr(result, name)), name
            assert kept.dtype == getattr(result, name).dtype
    assert torch.equal(found.all_attr, result.all_attr)
    assert repr(found) == repr(result)


def test_a_damaged_file_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    from captum_transformer_lrp.keeping import from_dict

    record = spoken(tokenizer).attribute(TEXT, ANSWER, hops=1).to_dict()
    for key, value in (
        ("source_of", [7.0] * len(record["source_of"])),
        ("hops", 2),
        ("hop_attr", record["hop_attr"][:1]),
        ("sources", record["sources"] | {"end": [999, 999, 999]}),
    ):
        with pytest.raises(errors.InputError):
            from_dict({**record, key: value})
    assert from_dict(record).to_dict() == record


def test_shares(tokenizer: Any) -> None:
    found = spoken(tokenizer).attribute(TEXT, ANSWER, sources="sentences", span="words")
    shares = found.shares()
    assert torch.allclose(shares.abs().sum(1), torch.ones(6).double())
    assert torch.equal(shares.sign(), found.source_attr.sign())
    positive = found.shares("positive")
    assert bool((positive >= 0).all())
    assert torch.allclose(positive.sum(1), torch.ones(6).double())
    each = spoken(tokenizer).attribute(
        TEXT, ANSWER, sources="sentences", span="words", hops=2
    )
    of_hops = each.hop_sources[..., :3].abs()
    used = of_hops.sum(2) > 0  # nothing is sent on for the first word
    assert not used[1, 0] and used[1, 1]
    by_hand = torch.stack(
        [
            torch.stack([h / h.sum() for h in of_hops[:, s] if h.sum() > 0]).mean(0)
            for s in range(6)
        ]
    )
    assert relative(each.shares("hop"), by_hand) <= 1e-12
    assert relative(found.shares("hop"), shares.abs()) <= 1e-12
    best = int(each.shares("hop")[2].argmax())
    assert each.ranking(2, "hop")[0] == best
    order = found.ranking(1)
    values = found.source_attr[1][order]
    assert torch.equal(values, values.sort(descending=True)[0])
    with pytest.raises(
        errors.InputError, match="expected 'magnitude', 'positive' or 'hop'"
    ):
        found.shares("score")  # type: ignore[arg-type]


def test_it_shows_the_answer_its_sources_and_the_flow(tokenizer: Any) -> None:
    for package in ("jinja2", "rich", "matplotlib"):
        pytest.importorskip(package)
    found = spoken(tokenizer).attribute(
        TEXT, ANSWER, span="movie was", sources="sentences", hops=1
    )
    order = [f"[{i + 1}]" for i in found.ranking()]
    said = str(found)
    places = [said.index(f"{number}  ") for number in order]
    assert places == sorted(places)
    for text in (found.to_html(), found.to_text()):
        assert "The best movie!" in text and "The flow, hop by hop" in text
        assert all(number in text for number in order)
    write = found.blocks()
    table = next(b for b in write if type(b).__name__ == "Table")
    shares = found.shares()[0][found.ranking()]
    percent = [f"{x:.0%}".replace("-", "−") for x in shares]
    assert [row[3] for row in table.rows[:3]] == percent
    assert any(one.startswith("−") for one in percent)  # what speaks against it
    assert found.alt.startswith("“movie was” rests on " + order[0])
    large = replace(found, hop_attr=1e4 * found.hop_attr, scores=1e4 * found.scores)
    from matplotlib.text import Text

    drawn = {text.get_text() for text in large.plot().findobj(Text)}
    grid = next(b for b in large.blocks() if type(b).__name__ == "Grid")
    for label in grid.rows.labels:  # words may be cut in a figure, numbers not
        number = label.split()[0]
        assert any(text.startswith(f"{number} ") for text in drawn), number
    long = spoken(tokenizer).attribute(TEXT, ANSWER, span=["best movie was", "movie"])
    assert "Pick a span" in long.to_html()  # spans that overlap have no one answer


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hops": -1}, errors.InputError, "hops=-1; expected how often"),
        ({"hops": True}, errors.InputError, "hops=True; expected how often"),
        (
            {"span": "film"},
            errors.TargetError,
            "span='film' stands 0 times in the answer",
        ),
        ({"span": "best"}, errors.TargetError, "span='best' stands 2 times"),
        ({"span": (3, 99)}, errors.TargetError, "span has the range (3, 99)"),
        ({"span": slice(8, 9)}, errors.TargetError, "names no token of 6"),
        ({"span": slice(0, 6, 2)}, errors.TargetError, "leaves tokens out"),
        ({"span": re.compile("film")}, errors.TargetError, "names no part"),
        ({"span": 3.5}, errors.TargetError, "span is a float; expected the name"),
        (
            {"sources": "pages"},
            errors.InputError,
            "there is no unit of sources 'pages'",
        ),
        ({"sources": "turns"}, errors.InputError, "'turns' belongs to a chat"),
        (
            {"sources": ["a film"]},
            errors.InputError,
            "sources[0], 'a film', does not stand in the prompt.",
        ),
        (
            {"sources": ["the movie.", "the movie."]},
            errors.InputError,
            "does not stand in the prompt once more",
        ),
        (
            {"sources": [(0, 9), (5, 12)]},
            errors.InputError,
            "share characters; expected sources apart from each other",
        ),
        (
            {"sources": [(0, 1), (1, 3)]},
            errors.InputError,
            "has no token of its own",
        ),
        (
            {"sources": lambda text: [(0, 999)]},
            errors.InputError,
            "returned (0, 999) for a text of 34 characters",
        ),
        (
            {"sources": lambda text: text.split()},
            errors.InputError,
            "expected ranges of characters (start, end)",
        ),
        (
            {"span": "words", "include_generated": True},
            errors.InputError,
            "include_generated=True belongs to a result with a column",
        ),
    ],
)
def test_wrong_arguments(
    tokenizer: Any, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error) as caught:
        spoken(tokenizer).attribute(TEXT, ANSWER, **options)
    assert message in str(caught.value)


def test_wrong_arguments_of_several_prompts_and_without_a_tokenizer() -> None:
    llm = LLMTransformerLRP(plain())
    both = torch.stack([PROMPT, PROMPT])
    with pytest.raises(errors.InputError, match="span has 3 entries; expected one for"):
        llm.attribute(both, torch.stack([TARGET, TARGET]), span=[1, 2, 3])
    with pytest.raises(errors.InputError, match="which needs the tokenizer"):
        llm.attribute(PROMPT, TARGET, sources="sentences")
    absolute = LLMTransformerLRP(language_model("gpt2"), positional="absolute")
    with pytest.raises(errors.InputError, match="magnitudes, which do not add up"):
        absolute.attribute(PROMPT, TARGET, span=slice(0, 2))
