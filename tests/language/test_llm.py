"""All generated tokens from one forward pass, against one attribution for each."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    AttnLRP,
    LLMRelevance,
    LLMTransformerLRP,
    TransformerLRP,
    errors,
    load,
)
from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from captum_transformer_lrp.core.engine import Engine
from tests.helpers import assert_same_state, relative, state_of
from tests.language.models import VOCABULARY, Plain, language_model, plain, tokens
from tests.models.tiny import byte_level_tokenizer

PROMPT, TARGET = tokens(7, seed=1), tokens(5, seed=2)


def rows_one_by_one(model: nn.Module, composite: Any, forward: Any = None) -> Tensor:
    """A row per generated token, from an attribution of its own."""
    sequence = torch.cat([PROMPT, TARGET[:-1]])[None]
    explainer = TransformerLRP(forward or model, composite)
    rows = [
        explainer.attribute(sequence, target=(len(PROMPT) - 1 + k, int(token)))
        for k, token in enumerate(TARGET)
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 64])
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "bloom"])
def test_equals_one_by_one(name: str, chunk_size: int) -> None:
    model = language_model(name)
    llm = LLMTransformerLRP(model, chunk_size=chunk_size)
    result = llm.attribute(PROMPT, TARGET, include_generated=True)
    expected = rows_one_by_one(model, "attnlrp")
    assert relative(result.token_attr[:, :-1], expected) <= 1e-10
    assert not result.token_attr[:, -1].any()
    assert torch.equal(result.generated_attr, result.token_attr[:, len(PROMPT) :])
    assert not result.generated_attr.triu().any()
    assert result.start_attr.shape == (5, 0)


@pytest.mark.parametrize(
    "composite",
    ["cp-lrp", "epsilon", "gradient-x-input", TRANSFORMER_ATTRIBUTION],
    ids=lambda composite: getattr(composite, "name", composite),
)
def test_every_composite_equals_one_by_one(composite: Any) -> None:
    model = language_model("llama")
    llm = LLMTransformerLRP(model, composite=composite, chunk_size=3)
    found = llm.attribute(PROMPT, TARGET, include_generated=True).token_attr
    assert relative(found[:, :-1], rows_one_by_one(model, composite)) <= 1e-10


@pytest.mark.parametrize("attr_target", ["log_prob", "prob"])
def test_targets_that_are_functions_of_all_logits(attr_target: str) -> None:
    model = language_model("gpt2")

    def forward(ids: Tensor) -> Tensor:
        logits = model(ids).logits
        return (
            logits.log_softmax(-1) if attr_target == "log_prob" else logits.softmax(-1)
        )

    llm = LLMTransformerLRP(model, attr_target=attr_target, chunk_size=2)
    result = llm.attribute(PROMPT, TARGET, include_generated=True)
    expected = rows_one_by_one(model, "attnlrp", forward)
    assert relative(result.token_attr[:, :-1], expected) <= 1e-10


def test_scores_and_log_probabilities_are_those_of_a_plain_forward_pass() -> None:
    model = language_model("gpt2")
    sequence = torch.cat([PROMPT, TARGET])[None]
    with torch.no_grad():
        logits = model(sequence).logits[0, len(PROMPT) - 1 : -1]
    at = torch.arange(5), TARGET
    log_probs = logits.log_softmax(-1)[at]
    for attr_target, expected in (
        ("logit", logits[at]),
        ("log_prob", log_probs),
        ("prob", log_probs.exp()),
    ):
        llm = LLMTransformerLRP(model, attr_target=attr_target)
        result = llm.attribute(PROMPT, TARGET)
        assert relative(result.scores, expected) <= 1e-12
        assert relative(result.log_probs, log_probs) <= 1e-12
        assert relative(result.output_probs, log_probs.exp()) <= 1e-12


def test_sequence_of_logits_and_log_probabilities_is_the_sum() -> None:
    for attr_target in ("logit", "log_prob"):
        llm = LLMTransformerLRP(language_model("gpt2"), attr_target=attr_target)
        result = llm.attribute(PROMPT, TARGET)
        assert relative(result.seq_attr, result.token_attr.sum(0)) <= 1e-12


def test_sequence_of_probabilities_is_their_product() -> None:
    model = language_model("gpt2", initializer_range=0.1)

    def log_probability(ids: Tensor) -> Tensor:
        chances = model(ids).logits[:, len(PROMPT) - 1 :].softmax(-1)
        return chances[:, torch.arange(5), TARGET].log().sum(-1)

    sequence = torch.cat([PROMPT, TARGET[:-1]])[None]
    # d P = P d log P
    result = LLMTransformerLRP(
        model, composite="gradient-x-input", attr_target="prob"
    ).attribute(PROMPT, TARGET)
    lrp = TransformerLRP(log_probability, "gradient-x-input")
    expected = lrp.attribute(sequence)[0, : len(PROMPT)] * result.output_probs.prod()
    assert relative(result.seq_attr, expected) <= 1e-10


@pytest.mark.parametrize("attr_target", ["logit", "prob"])
def test_contrast_is_the_difference_of_two_explanations(attr_target: str) -> None:
    llm = LLMTransformerLRP(language_model("llama"), attr_target=attr_target)
    other = tokens(5, seed=9)
    this = torch.stack(
        [llm.attribute(PROMPT, TARGET[: k + 1]).token_attr[k] for k in range(5)]
    )
    rather = []
    for k in range(5):  # the other token, after the same beginning
        changed = torch.cat([TARGET[:k], other[k : k + 1]])
        rather.append(llm.attribute(PROMPT, changed).token_attr[k])
    found = llm.attribute(PROMPT, TARGET, contrast=other)
    assert relative(found.token_attr, this - torch.stack(rather)) <= 1e-10
    assert relative(found.seq_attr, found.token_attr.sum(0)) <= 1e-12
    for_all = llm.attribute(PROMPT, TARGET, contrast=int(other[0]))
    assert relative(for_all.token_attr[0], found.token_attr[0]) <= 1e-12
    assert relative(for_all.token_attr[1], found.token_attr[1]) > 1e-3


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_padded_batch_equals_one_by_one(name: str, side: str) -> None:
    model = language_model(name)
    llm = LLMTransformerLRP(model, chunk_size=2)
    short, its_target = tokens(4, seed=3), tokens(3, seed=4)
    place = slice(3, 7) if side == "left" else slice(0, 4)
    ids, mask = torch.full((2, 7), 39), torch.zeros(2, 7, dtype=torch.int64)
    ids[0], mask[0] = PROMPT, 1
    ids[1, place], mask[1, place] = short, 1
    batch = {"input_ids": ids, "attention_mask": mask}
    found = llm.attribute(batch, [TARGET, its_target], include_generated=True)
    for result, prompt, target in zip(
        found, (PROMPT, short), (TARGET, its_target), strict=True
    ):
        alone = llm.attribute(prompt, target, include_generated=True)
        assert relative(result.token_attr, alone.token_attr) <= 1e-10
        assert relative(result.seq_attr, alone.seq_attr) <= 1e-10
        assert relative(result.log_probs, alone.log_probs) <= 1e-10
        assert result.input_tokens == alone.input_tokens


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_encoder_decoder_explains_source_and_what_was_generated(name: str) -> None:
    model = language_model(name)
    start = model.config.decoder_start_token_id
    decoder = torch.cat([torch.tensor([start]), TARGET[:-1]])[None]

    def forward(source: Tensor, decoder_ids: Tensor) -> Tensor:
        return model(input_ids=source, decoder_input_ids=decoder_ids).logits

    llm = LLMTransformerLRP(model, chunk_size=2)
    result = llm.attribute(PROMPT, TARGET)
    lrp = AttnLRP(forward)
    for k, token in enumerate(TARGET):
        source, before = lrp.attribute((PROMPT[None], decoder), target=(k, int(token)))
        assert relative(result.token_attr[k], source[0]) <= 1e-10
        found = torch.cat([result.start_attr[k], result.generated_attr[k]])
        assert relative(found[:-1], before[0]) <= 1e-10
        assert found[-1] == 0


def test_relevance_of_a_model_without_biases_sums_to_the_logits() -> None:
    for name in ("llama", "t5"):
        llm = LLMTransformerLRP(language_model(name), composite="cp-lrp")
        result = llm.attribute(PROMPT, TARGET, skip_tokens=[int(PROMPT[2])])
        total = sum(
            part.reshape(5, -1).sum(1)
            for part in (
                result.token_attr,
                result.generated_attr,
                result.start_attr,
                result.skipped_attr,
            )
        )
        assert relative(total, result.scores) <= 1e-10


def test_one_forward_pass_and_no_more_at_once_than_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stacked = []
    original = Engine.gradients

    def gradients(self: Engine, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("batched"):
            stacked.append(len(kwargs["seeds"]))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Engine, "gradients", gradients)
    model = plain()
    LLMTransformerLRP(model, chunk_size=2).attribute(PROMPT, TARGET)
    assert model.calls == 1
    assert stacked == [2, 2]  # and the fifth by itself


def test_any_callable_of_token_ids() -> None:
    model = plain()
    expected = rows_one_by_one(model, "attnlrp")
    for forward in (model, lambda ids: model(ids)):
        llm = LLMTransformerLRP(forward, chunk_size=3)
        result = llm.attribute(PROMPT[None], TARGET[None], include_generated=True)
        assert relative(result.token_attr[:, :-1], expected) <= 1e-10
    assert result.input_tokens == [str(int(i)) for i in [*PROMPT, *TARGET]]


def test_checkpointed_model() -> None:
    expected = LLMTransformerLRP(plain()).attribute(PROMPT, TARGET)
    found = LLMTransformerLRP(plain(checkpoints=True)).attribute(PROMPT, TARGET)
    assert relative(found.token_attr, expected.token_attr) <= 1e-10


class Mixing(Plain):
    """Adds to every position's logits those of the position before."""

    def forward(self, ids: Tensor) -> Tensor:
        logits = super().forward(ids)
        return logits + nn.functional.pad(logits[:, :-1], (0, 0, 1, 0))


def test_model_whose_logits_mix_positions_behind_the_head() -> None:
    torch.manual_seed(0)
    model = Mixing().double().eval()
    llm = LLMTransformerLRP(model, chunk_size=2)
    found = llm.attribute(PROMPT, TARGET, include_generated=True).token_attr
    assert relative(found[:, :-1], rows_one_by_one(model, "attnlrp")) <= 1e-10


def test_half_precision_reads_scores_in_float32() -> None:
    model = language_model("llama").bfloat16()
    result = LLMTransformerLRP(model, attr_target="log_prob").attribute(PROMPT, TARGET)
    assert result.scores.dtype == result.log_probs.dtype == torch.float32
    exact = LLMTransformerLRP(model.double(), attr_target="log_prob")
    expected = exact.attribute(PROMPT, TARGET)
    assert relative(result.log_probs.double(), expected.log_probs) <= 0.05


@pytest.mark.parametrize("positional", [None, "absolute"])
def test_leaves_the_model_as_it_was(positional: Any) -> None:
    model = language_model("gpt2")
    before = state_of(model)
    llm = LLMTransformerLRP(model, positional=positional)
    llm.attribute(PROMPT, TARGET)
    assert_same_state(before, state_of(model))
    with pytest.raises(errors.TargetError):
        llm.attribute(PROMPT, TARGET, contrast=VOCABULARY)
    assert_same_state(before, state_of(model))


def test_two_threads() -> None:
    models = [language_model(name) for name in ("gpt2", "llama")]
    expected = [LLMTransformerLRP(m).attribute(PROMPT, TARGET) for m in models]
    found: list[Any] = [None, None]

    def work(i: int) -> None:
        for _ in range(3):
            found[i] = LLMTransformerLRP(models[i]).attribute(PROMPT, TARGET)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result, reference in zip(found, expected, strict=True):
        assert torch.equal(result.token_attr, reference.token_attr)


# ----------------------------------------------------------------- texts and generation


@pytest.fixture(scope="module")
def spoken() -> tuple[Any, Any]:
    pytest.importorskip("transformers")
    tokenizer = byte_level_tokenizer()
    return language_model("gpt2", vocab_size=len(tokenizer)), tokenizer


def test_texts(spoken: Any) -> None:
    model, tokenizer = spoken
    llm = LLMTransformerLRP(model, tokenizer)
    result = llm.attribute("the movie was", " the best", include_generated=True)
    assert result.input_tokens == ["the", "Ġmovie", "Ġwas", "the", "best"]
    assert result.output_tokens == ["the", "best"]
    ids = tokenizer("the movie was", return_tensors="pt")
    target = torch.tensor(tokenizer.encode(" the best"))
    same = llm.attribute(ids, target, include_generated=True)
    assert torch.equal(result.token_attr, same.token_attr)
    several = llm.attribute(["the movie was", " best"], [" the best", " was"])
    assert relative(several[0].token_attr, result.token_attr[:, :3]) <= 1e-10
    assert several[1].input_tokens == ["Ġbest"]
    assert repr(several[1]) == "LLMRelevance(1 generated tokens x 1 columns)"


def test_a_result_is_kept(spoken: Any, tmp_path: Path) -> None:
    model, tokenizer = spoken
    result = LLMTransformerLRP(model, tokenizer).attribute("the movie", " the best")
    assert isinstance(result, LLMRelevance)
    found = load(result.save(tmp_path / "a.json"))
    assert found.input_tokens == result.input_tokens
    for name, kept in vars(found).items():
        if isinstance(kept, torch.Tensor):
            assert torch.equal(kept, getattr(result, name)), name
            assert kept.dtype == getattr(result, name).dtype


def test_skipped_tokens(spoken: Any) -> None:
    from captum.attr import TextTokenInput

    model, tokenizer = spoken
    llm = LLMTransformerLRP(model, tokenizer)
    whole = llm.attribute("the movie was", " best")
    by_name = llm.attribute("the movie was", " best", skip_tokens=["Ġmovie"])
    number = tokenizer.convert_tokens_to_ids("Ġmovie")
    by_id = llm.attribute("the movie was", " best", skip_tokens=[number])
    text = TextTokenInput("the movie was", tokenizer, skip_tokens=["Ġmovie"])
    for result in (by_name, by_id, llm.attribute(text, " best")):
        assert result.input_tokens == ["the", "Ġwas"]
        assert torch.equal(result.token_attr, whole.token_attr[:, [0, 2]])
        assert torch.equal(result.skipped_attr, whole.token_attr[:, 1])
        assert torch.equal(result.seq_attr, whole.seq_attr[[0, 2]])


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_explains_what_the_model_generates(name: str) -> None:
    model = language_model(name, eos_token_id=None)
    options = {"max_new_tokens": 4, "do_sample": False}
    llm = LLMTransformerLRP(model)
    result = llm.attribute(PROMPT, gen_args=options)
    written = model.generate(
        PROMPT[None], attention_mask=torch.ones(1, 7, dtype=torch.int64), **options
    )[0, -4:]
    assert result.output_tokens == [str(int(i)) for i in written]
    same = llm.attribute(PROMPT, written)
    assert torch.equal(result.token_attr, same.token_attr)


def test_generation_stops_at_the_end_token_of_each_prompt() -> None:
    model = language_model("gpt2", eos_token_id=None)
    options = {"max_new_tokens": 4, "do_sample": False}
    prompts = {"input_ids": torch.stack([PROMPT, tokens(7, seed=7)])}
    free = LLMTransformerLRP(model).attribute(prompts, gen_args=options)
    end = int(free[1].output_tokens[0])  # the second prompt is to end at once
    assert str(end) not in free[0].output_tokens[:-1]
    found = LLMTransformerLRP(model).attribute(
        prompts, gen_args=options | {"eos_token_id": end, "pad_token_id": 0}
    )
    assert found[0].output_tokens == free[0].output_tokens
    assert found[1].output_tokens == [str(end)]


def test_plots_like_captums_result(spoken: Any) -> None:
    from matplotlib import pyplot

    model, tokenizer = spoken
    llm = LLMTransformerLRP(model, tokenizer)
    result = llm.attribute("the movie was", " the best", include_generated=True)
    figure, axes = result.plot_token_attr()
    shown = axes.get_images()[0].get_array()
    assert torch.equal(torch.as_tensor(shown.data), result.token_attr)
    bars, _ = result.plot_seq_attr()
    pyplot.close(figure)
    pyplot.close(bars)


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"attr_target": "logits"},
            ValueError,
            "attr_target='logits'; expected 'logit'",
        ),
        ({"chunk_size": 0}, ValueError, "chunk_size=0; expected how many tokens"),
        (
            {"positional": True},
            ValueError,
            "sign=True; expected 'absolute' or 'signed'.",
        ),
        ({"composite": "lrp"}, errors.UnknownNameError, "no composite is called 'lrp'"),
    ],
)
def test_wrong_options(arguments: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        LLMTransformerLRP(plain(), **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda llm: llm.attribute("a film", TARGET),
            errors.InputError,
            "the text 'a film' needs a tokenizer: pass it, or pass token ids.",
        ),
        (
            lambda llm: llm.attribute(3.0, TARGET),
            errors.InputError,
            "inp is a float; expected a text, a list of texts, a tensor of token ids",
        ),
        (
            lambda llm: llm.attribute(torch.rand(1, 3), TARGET),
            errors.InputError,
            "inp has input_ids a tensor of shape (1, 3) and dtype torch.float32",
        ),
        (
            lambda llm: llm.attribute(
                {"input_ids": PROMPT[None], "attention_mask": torch.ones(1, 3)}, TARGET
            ),
            errors.InputError,
            "expected a tensor of shape (1, 7), as input_ids has.",
        ),
        (
            lambda llm: llm.attribute(
                {"input_ids": PROMPT[None], "attention_mask": torch.zeros(1, 7)}, TARGET
            ),
            errors.InputError,
            "a prompt has no token: give it at least a start token.",
        ),
        (
            lambda llm: llm.attribute(
                {"input_ids": PROMPT[None], "colours": PROMPT[None]}, TARGET
            ),
            errors.InputError,
            "inp has 'colours' of shape (examples, tokens)",
        ),
        (
            lambda llm: llm.attribute(PROMPT, TARGET, {"max_new_tokens": 3}),
            errors.TargetError,
            "gen_args is for what the model generates, and target was given too.",
        ),
        (
            lambda llm: llm.attribute(PROMPT, TARGET[:0]),
            errors.TargetError,
            "target is empty; expected at least one token to explain.",
        ),
        (
            lambda llm: llm.attribute(PROMPT, TARGET[None].expand(2, -1)),
            errors.TargetError,
            "target is a tensor of shape (2, 5) and dtype torch.int64",
        ),
        (
            lambda llm: llm.attribute(torch.stack([PROMPT, PROMPT]), TARGET),
            errors.TargetError,
            "expected one for each of the 2 prompts",
        ),
        (
            lambda llm: llm.attribute(PROMPT, TARGET, contrast=[1, 2]),
            errors.TargetError,
            "contrast has 2 tokens for 5 generated ones",
        ),
        (
            lambda llm: llm.attribute(PROMPT, [VOCABULARY]),
            errors.TargetError,
            f"target or contrast has token {VOCABULARY} (lowest {VOCABULARY})",
        ),
        (
            lambda llm: llm.attribute(PROMPT),
            errors.ModelStateError,
            "Plain has no method generate(); pass target=",
        ),
    ],
)
def test_wrong_arguments(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        call(LLMTransformerLRP(plain()))
    assert message in str(caught.value)


def test_wrong_outputs() -> None:
    model = plain()
    with pytest.raises(errors.OutputError, match="expected floating point of shape"):
        LLMTransformerLRP(lambda ids: model(ids)[0]).attribute(PROMPT, TARGET)
    with pytest.raises(errors.OutputError, match="NaN or infinite before anything"):
        LLMTransformerLRP(lambda ids: model(ids) * torch.inf).attribute(PROMPT, TARGET)
    with pytest.raises(errors.InputError, match="returned logits for 1 of 11 tokens"):
        LLMTransformerLRP(lambda ids: model(ids)[:, -1:]).attribute(PROMPT, TARGET)
    with pytest.raises(errors.DisconnectedError, match="do not depend on the prompt"):
        LLMTransformerLRP(lambda ids: model(ids).detach()).attribute(PROMPT, TARGET)
    one_hot = nn.Linear(VOCABULARY, VOCABULARY).double()
    with pytest.raises(errors.InputError, match=r"become floating point|as numbers"):
        LLMTransformerLRP(
            lambda ids: one_hot(ids.double()[..., None].expand(-1, -1, VOCABULARY))
        ).attribute(PROMPT, TARGET)


class Unbatched(torch.autograd.Function):
    """Goes back through numbers in python, which no batch of gradients can."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * float(bool(gradient.sum().item() < torch.inf))


def test_operator_that_cannot_go_back_in_a_batch() -> None:
    model = plain()
    model.embedding.register_forward_hook(lambda m, a, out: Unbatched.apply(out))

    def explain(chunk_size: int) -> Tensor:
        llm = LLMTransformerLRP(model, chunk_size=chunk_size, unknown="gradient")
        found: Tensor = llm.attribute(PROMPT, TARGET).token_attr
        return found

    with pytest.raises(errors.ModelStateError) as caught:
        explain(8)
    assert "going back for 5 tokens at once failed" in str(caught.value)
    assert "Pass chunk_size=1, which goes back for one at a time." in str(caught.value)
    expected = LLMTransformerLRP(plain()).attribute(PROMPT, TARGET).token_attr
    assert relative(explain(1), expected) <= 1e-12


def test_a_token_outside_the_vocabulary_is_named_by_its_number():
    """Pictures are put in place of such tokens."""
    from captum_transformer_lrp.language.prompts import column_names
    from tests.tasks.tiny import word_pieces

    names = column_names(torch.tensor([8, 10**6]), word_pieces())
    assert names == [word_pieces().convert_ids_to_tokens(8), "<1000000>"]
