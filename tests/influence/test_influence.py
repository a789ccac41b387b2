"""Influence of training examples: against explicit gradients, in float64."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import errors, influence
from captum_transformer_lrp.influence import tracing
from captum_transformer_lrp.models import (
    LoadingError,
    load_image_model,
    load_text_model,
)
from tests.helpers import SHARED, assert_same_state, needs_shared, state_of

transformers = pytest.importorskip("transformers")

TEXTS = [
    "A warm and funny film.",
    "Dull.",
    "The plot is a complete mess and I was bored to tears.",
    "I loved every minute of it",
    "not good, not bad",
]
LABELS = [1, 0, 0, 1, 0]
QUERIES = ["A gripping and beautifully acted film.", "It is boring."]


def classifier(cls: Any = transformers.BertForSequenceClassification, seed: int = 0):
    """A random two-layer classifier in float64; dropout is there, and switched off."""
    torch.manual_seed(seed)
    size = {"vocab_size": 13000, "num_labels": 3, "pad_token_id": 0}
    if cls is transformers.GPT2ForSequenceClassification:
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, **size)
    else:
        config = cls.config_class(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            **size,
        )
    model = cls(config).double().eval()
    for parameter in model.parameters():  # classes far apart, so that losses differ
        if parameter.dim() == 2 and len(parameter) == 3:
            parameter.data.normal_()
    return model


def loss_gradient(model, tokenizer, text: str, label: int, chosen) -> Tensor:
    """The gradient of one example's loss, alone and unpadded, as one vector."""
    logits = model(**tokenizer(text, return_tensors="pt")).logits
    loss = -logits.log_softmax(-1)[0, label]
    gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(chosen, gradients, strict=True)
        ]
    )


def explicit(states, tokenizer, queries, targets, chosen_of, rates) -> np.ndarray:
    """TracInCP written out: one gradient per example and checkpoint."""
    total = torch.zeros(len(queries), len(TEXTS), dtype=torch.float64)
    for model, rate in zip(states, rates, strict=True):
        chosen = chosen_of(model)
        train = [
            loss_gradient(model, tokenizer, t, y, chosen)
            for t, y in zip(TEXTS, LABELS, strict=True)
        ]
        for i, (query, target) in enumerate(zip(queries, targets, strict=True)):
            gradient = loss_gradient(model, tokenizer, query, target, chosen)
            for j, other in enumerate(train):
                total[i, j] += rate * (gradient @ other)
    return total.numpy()


def final_weight(model) -> list[Any]:
    return [model.score.weight if hasattr(model, "score") else final(model).weight]


def final(model) -> nn.Linear:
    return getattr(model.classifier, "out_proj", model.classifier)


@pytest.mark.parametrize(
    "cls",
    [
        transformers.BertForSequenceClassification,
        transformers.RobertaForSequenceClassification,
        transformers.GPT2ForSequenceClassification,
        transformers.LlamaForSequenceClassification,
    ],
)
def test_final_layer_equals_explicit_gradients(cls, tokenizer):
    states = [classifier(cls, seed) for seed in (1, 2, 3)]
    rates = [0.5, 0.25, 2.0]
    found = influence.tracin(
        states[0],
        tokenizer,
        TEXTS,
        LABELS,
        checkpoints=[model.state_dict() for model in states],
        learning_rates=rates,
        batch_size=2,
    )
    expected = explicit(states, tokenizer, QUERIES, [2, 0], final_weight, rates)
    assert (
        np.abs(found.scores(QUERIES, [2, 0]) - expected).max()
        <= 1e-12 * np.abs(expected).max()
    )


@pytest.mark.parametrize("held", [2**28, 1])  # questions: all at once, or in turn
def test_all_parameters_equal_explicit_gradients(held, tokenizer, monkeypatch):
    monkeypatch.setattr(tracing, "_FLOATS", held)
    states = [classifier(seed=seed) for seed in (1, 2)]
    rates = [0.5, 2.0]
    found = influence.tracin(
        states[0],
        tokenizer,
        TEXTS,
        LABELS,
        checkpoints=states,
        learning_rates=rates,
        layers="all",
        batch_size=2,
    )

    def everything(model):
        return list(model.parameters())

    asked, targets = [*QUERIES, TEXTS[0]], [0, 1, 2]
    expected = explicit(states, tokenizer, asked, targets, everything, rates)
    largest = np.abs(expected).max()
    assert np.abs(found.scores(asked, targets) - expected).max() <= 1e-12 * largest
    own = explicit(states, tokenizer, TEXTS, LABELS, everything, rates).diagonal()
    ranked = found.self_influence()
    assert ranked.indices == np.argsort(-own).tolist()
    assert np.allclose(ranked.scores, own[ranked.indices], rtol=1e-12)


@pytest.mark.parametrize("layers", ["final", "all"])
def test_cosine_equals_explicit_gradients(layers, tokenizer):
    states, rates = [classifier(seed=seed) for seed in (1, 2)], [0.5, 2.0]
    found = influence.tracin(
        states[0],
        tokenizer,
        TEXTS,
        LABELS,
        checkpoints=states,
        learning_rates=rates,
        layers=layers,
        metric="cosine",
        batch_size=2,
    )
    expected = np.zeros((2, len(TEXTS)))
    for model, rate in zip(states, rates, strict=True):
        chosen = final_weight(model) if layers == "final" else list(model.parameters())
        asked, own = (
            [loss_gradient(model, tokenizer, *one, chosen) for one in pairs]
            for pairs in (
                list(zip(QUERIES, [2, 0], strict=True)),
                list(zip(TEXTS, LABELS, strict=True)),
            )
        )
        for i, a in enumerate(asked):
            for j, b in enumerate(own):
                expected[i, j] += rate * float(a @ b / (a.norm() * b.norm()))
    assert np.abs(found.scores(QUERIES, [2, 0]) - expected).max() <= 1e-12
    assert "cosine of the loss gradients" in found.measure
    with pytest.raises(errors.InputError, match="is 1 for every example"):
        found.self_influence()


def test_a_gradient_of_zero_has_no_direction():
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)).eval()
    model[1].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    pixels = [torch.tensor([x, 1.0])[:, None, None] for x in (1.0, 1e4)]
    found = influence.tracin(
        model, lambda image: image, pixels, [0, 0], metric="cosine"
    )
    assert found.scores(pixels, [0, 0]).round(6).tolist() == [[1, 0], [0, 0]]
    with pytest.raises(errors.InputError, match="certain of every label"):
        influence.empirical_fisher(model, lambda image: image, pixels[1:], [0])
    with pytest.raises(errors.InputError, match="damping=1e-300 is too small"):
        influence.empirical_fisher(
            model, lambda image: image, pixels[:1] * 3, [1, 1, 1], damping=1e-300
        )
    model[1].weight.data[0, 0] = torch.nan
    with pytest.raises(errors.InputError, match="is not finite"):
        influence.empirical_fisher(model, lambda image: image, pixels, [0, 0])


@pytest.mark.parametrize("damping", [0.3, None])
def test_the_empirical_fisher_equals_the_inverse_over_parameters(damping, tokenizer):
    model = classifier()
    names = ["bert.encoder.layer.1.output.LayerNorm", "classifier"]
    found = influence.empirical_fisher(
        model, tokenizer, TEXTS, LABELS, layers=names, damping=damping, batch_size=2
    )
    chosen = [p for name in names for p in model.get_submodule(name).parameters()]
    own = torch.stack(
        [
            loss_gradient(model, tokenizer, text, label, chosen)
            for text, label in zip(TEXTS, LABELS, strict=True)
        ]
    ).numpy()
    asked = np.stack(
        [loss_gradient(model, tokenizer, t, 1, chosen).numpy() for t in QUERIES]
    )
    fisher = own.T @ own / len(own)
    if damping is None:
        damping = 1e-3 * np.trace(fisher) / len(own)
    inverse = np.linalg.inv(fisher + damping * np.eye(len(fisher)))
    expected = asked @ inverse @ own.T
    largest = np.abs(expected).max()
    assert np.abs(found.scores(QUERIES, [1, 1]) - expected).max() <= 1e-9 * largest
    ranked = found.self_influence()
    diagonal = np.einsum("if,fg,ig->i", own, inverse, own)
    assert ranked.indices == np.argsort(-diagonal).tolist()
    assert np.allclose(ranked.scores, diagonal[ranked.indices], rtol=1e-9)
    assert "Fisher" in str(found.proponents(QUERIES[0]))
    with pytest.raises(errors.InputError, match="damping= above 0, got 0"):
        influence.empirical_fisher(model, tokenizer, TEXTS, LABELS, damping=0)


def test_named_layers_equal_explicit_gradients(tokenizer):
    model = classifier()
    names = ["bert.encoder.layer.1.output", "classifier"]
    found = influence.tracin(model, tokenizer, TEXTS, LABELS, layers=names)

    def chosen(model):
        return [p for name in names for p in model.get_submodule(name).parameters()]

    expected = explicit([model], tokenizer, QUERIES, [0, 1], chosen, [1.0])
    largest = np.abs(expected).max()
    assert np.abs(found.scores(QUERIES, [0, 1]) - expected).max() <= 1e-12 * largest


def test_self_influence_of_the_final_layer(tokenizer):
    model = classifier()
    found = influence.tracin(model, tokenizer, TEXTS, LABELS, learning_rates=0.1)
    own = explicit([model], tokenizer, TEXTS, LABELS, final_weight, [0.1]).diagonal()
    ranked = found.self_influence(k=3)
    assert ranked.indices == np.argsort(-own)[:3].tolist()
    assert np.allclose(ranked.scores, np.sort(own)[::-1][:3], rtol=1e-12)


def test_proponents_and_opponents_are_the_ends_of_the_scores(tokenizer):
    model = classifier()
    found = influence.tracin(model, tokenizer, TEXTS, LABELS)
    (scores,) = found.scores([QUERIES[0]])
    predicted = int(model(**tokenizer(QUERIES[0], return_tensors="pt")).logits.argmax())
    assert np.array_equal(scores, found.scores([QUERIES[0]], [predicted])[0])
    order = np.argsort(-scores)
    assert found.proponents(QUERIES[0], 2).indices == order[:2].tolist()
    assert found.opponents(QUERIES[0], 2).indices == order[::-1][:2].tolist()
    other = found.proponents(QUERIES[0], 9, target=(predicted + 1) % 3)
    assert len(other) == len(TEXTS)
    assert not np.allclose(np.sort(other.scores), np.sort(scores))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_similarity_equals_explicit_vectors(metric, tokenizer):
    model = classifier()

    def vector(text: str) -> Tensor:
        with torch.no_grad():
            return model.bert(**tokenizer(text, return_tensors="pt")).pooler_output[0]

    found = influence.similarity(
        model, tokenizer, TEXTS, LABELS, metric=metric, batch_size=2
    )
    for i, query in enumerate(QUERIES):
        for j, text in enumerate(TEXTS):
            a, b = vector(query), vector(text)
            if metric == "cosine":
                expected = float(a @ b / (a.norm() * b.norm()))
            else:
                expected = -float((a - b).norm())
            assert found.scores(QUERIES)[i, j] == pytest.approx(expected, rel=1e-6)
    assert found.proponents(TEXTS[3], 1).indices == [3]


def test_similarity_at_a_layer_averages_over_real_tokens(tokenizer):
    model = classifier()
    name = "bert.encoder.layer.0"

    def vector(text: str) -> Tensor:
        encoded = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            states = model(**encoded, output_hidden_states=True).hidden_states
        return states[1][0].mean(0)

    found = influence.similarity(model, tokenizer, TEXTS, LABELS, layer=name)
    for j, text in enumerate(TEXTS):
        a, b = vector(QUERIES[0]), vector(text)
        expected = float(a @ b / (a.norm() * b.norm()))
        assert found.scores(QUERIES)[0, j] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("layers", ["final", "all"])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_and_the_random_state_are_untouched(layers, training, tokenizer):
    model = classifier().train(training)
    state = classifier(seed=5).state_dict()
    before = state_of(model)
    found = influence.tracin(
        model, tokenizer, TEXTS, LABELS, checkpoints=[state], layers=layers
    )
    found.proponents(QUERIES[0])
    found.self_influence()
    influence.similarity(model, tokenizer, TEXTS, LABELS).proponents(QUERIES[0])
    influence.tracin(
        model, tokenizer, TEXTS, LABELS, layers=layers, metric="cosine"
    ).proponents(QUERIES[0])
    fisher = influence.empirical_fisher(model, tokenizer, TEXTS, LABELS, layers=layers)
    fisher.proponents(QUERIES[0])
    fisher.self_influence()
    assert_same_state(before, state_of(model))
    with pytest.raises(LoadingError):
        influence.tracin(
            model, tokenizer, TEXTS, LABELS, checkpoints=[{"a": torch.ones(1)}]
        )
    assert_same_state(before, state_of(model))


def test_the_prediction_is_that_of_the_model_not_of_a_checkpoint(tokenizer):
    model = classifier(seed=1)
    found = influence.tracin(
        model, tokenizer, TEXTS, LABELS, checkpoints=[classifier(seed=9)]
    )
    logits = model(**tokenizer(QUERIES[0], return_tensors="pt")).logits
    assert f"“LABEL_{int(logits.argmax())}”" in found.proponents(QUERIES[0]).question


def test_checkpoints_of_every_kind_give_the_same(tokenizer, tmp_path: Path):
    model, state = classifier(seed=1), classifier(seed=2)
    state.save_pretrained(tmp_path / "folder")
    torch.save(state.state_dict(), tmp_path / "plain.pt")
    parallel = {f"module.{k}": v for k, v in state.state_dict().items()}
    torch.save({"state_dict": parallel, "epoch": 3}, tmp_path / "script.pt")
    kinds = [
        tmp_path / "folder",
        str(tmp_path / "folder" / "model.safetensors"),
        tmp_path / "plain.pt",
        tmp_path / "script.pt",
        state.state_dict(),
        state,
    ]
    reference = None
    for kind in kinds:
        found = influence.tracin(model, tokenizer, TEXTS, LABELS, checkpoints=[kind])
        scores = found.scores(QUERIES, [0, 1])
        reference = scores if reference is None else reference
        assert np.array_equal(scores, reference), kind


class Pictures(nn.Module):
    """A classifier of pictures whose last layer reads the mean over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 4, 4)
        self.head = nn.Linear(6, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        return self.head(patches.tanh()).mean(1)


def test_pictures_and_a_layer_that_runs_on_every_patch():
    torch.manual_seed(0)
    model = Pictures().double().eval()
    pixels = list(torch.randn(6, 3, 8, 8, dtype=torch.float64))
    labels = [0, 1, 2, 3, 0, 1]

    def gradient(picture: Tensor, label: int) -> Tensor:
        loss = -model(picture[None]).log_softmax(-1)[0, label]
        return torch.autograd.grad(loss, model.head.weight)[0].flatten()

    found = influence.tracin(model, lambda image: image, pixels, labels, batch_size=4)
    query = torch.randn(3, 8, 8, dtype=torch.float64)
    expected = [
        float(gradient(query, 2) @ gradient(p, y))
        for p, y in zip(pixels, labels, strict=True)
    ]
    assert np.allclose(found.scores([query], [2])[0], expected, rtol=1e-12)
    assert "the picture" in str(found.proponents(query))


@pytest.mark.parametrize("layers", ["final", "all"])
@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_pictures_in_one_tensor_are_those_of_a_list(layers, metric):
    torch.manual_seed(0)
    model = Pictures().double().eval()
    pixels = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    labels = [0, 1, 2, 3, 0, 1]
    found, expected = (
        influence.tracin(
            model, lambda image: image, x, labels, layers=layers, metric=metric
        ).scores(x[:2], [1, 3])
        for x in (pixels, list(pixels))
    )
    assert np.array_equal(found, expected) and np.abs(expected).max() > 0


def test_a_timm_model_reads_pictures_by_itself():
    pytest.importorskip("timm")
    from PIL import Image

    source = load_image_model()
    images = [Image.fromarray(np.full((40, 40, 3), c, np.uint8)) for c in (0, 90, 180)]
    found = influence.tracin(source, None, images, ["airplane", "ship", 2])
    assert found.scores(images).shape == (3, 3)
    page = found.proponents(images[0], 2)._repr_html_()
    assert page.count("data:image/png;base64") == 2


class Capped(nn.Module):
    """Something comes after the last linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        return 5 * (self.head(pixels.flatten(1)) / 5).tanh()


def test_a_final_layer_that_does_not_make_the_logits_is_refused():
    pixels = list(torch.randn(3, 3, 2, 2))
    with pytest.raises(errors.OutputError, match="something follows it"):
        influence.tracin(Capped().eval(), lambda x: x, pixels, [0, 1, 0])
    found = influence.tracin(
        Capped().eval(), lambda x: x, pixels, [0, 1, 0], layers="all"
    )
    assert found.scores(pixels).shape == (3, 3)


def test_result_prints_shows_and_tabulates(tokenizer):
    texts = ["<b>bold</b> & warm", "Dull."]
    found = influence.tracin(None, None, texts, ["positive", "negative"])
    best = found.proponents("A warm film.", 2)
    assert "negative" in str(best) and "“A warm film.”" in str(best)
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; warm" in best._repr_html_()
    assert "<b>bold" not in best._repr_html_()
    assert [row.index for row in best] == best.indices
    assert best[0].example in texts and sorted(best.labels) == ["negative", "positive"]
    pandas = pytest.importorskip("pandas")
    frame = best.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["example"].tolist() == best.examples


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": [1]}, errors.InputError, "a label for each of the 5 examples"),
        ({"labels": [1, 0, 0, 1, 7]}, errors.TargetError, "classes 0 to 2"),
        ({"labels": ["x"] * 5}, errors.TargetError, "no class named 'x'"),
        ({"checkpoints": []}, errors.InputError, "a list of at least one"),
        ({"checkpoints": "folder"}, errors.InputError, "a list of at least one"),
        ({"checkpoints": ["nowhere.pt"]}, LoadingError, "no checkpoint 'nowhere.pt'"),
        ({"learning_rates": [1.0, 2.0]}, errors.InputError, "got 2"),
        ({"layers": "head"}, errors.UnitError, "write layers=['head']"),
        ({"layers": ["clasifier"]}, errors.UnitError, "Did you mean 'classifier'"),
        ({"layers": ["dropout"]}, errors.UnitError, "have no parameters"),
        ({"metric": "euclidean"}, errors.InputError, "'dot' or 'cosine', got 'eucl"),
        ({"batch_size": 0}, errors.InputError, "batch_size of at least 1"),
        ({"examples": []}, errors.InputError, "got none"),
        ({"examples": ["a", "b", "c", "d", ""]}, errors.InputError, "with words"),
    ],
)
def test_errors_say_what_to_write(options, error, message, tokenizer):
    given = {"examples": TEXTS, "labels": LABELS} | options
    if not given["examples"]:
        given["labels"] = []
    with pytest.raises(error) as caught:
        influence.tracin(classifier(), tokenizer, **given)
    assert message in str(caught.value)


def test_questions_that_cannot_be_answered(tokenizer):
    found = influence.tracin(classifier(), tokenizer, TEXTS, LABELS)
    with pytest.raises(errors.InputError, match="k of at least 1"):
        found.proponents(TEXTS[0], 0)
    with pytest.raises(errors.InputError, match=r"put it in \[\.\.\.\]"):
        found.scores(TEXTS[0])
    with pytest.raises(errors.InputError, match="a target for each"):
        found.scores(TEXTS, [0])
    with pytest.raises(errors.InputError, match="metric="):
        influence.similarity(classifier(), tokenizer, TEXTS, LABELS, metric="dot")
    with pytest.raises(errors.UnitError, match="no module 'x'"):
        influence.similarity(classifier(), tokenizer, TEXTS, LABELS, layer="x")
    regression = copy.deepcopy(classifier())
    regression.config.problem_type = "multi_label_classification"
    with pytest.raises(errors.InputError, match="exclude each other"):
        influence.tracin(regression, tokenizer, TEXTS, LABELS)


@pytest.mark.slow
@needs_shared("data/sst2")[0]
@needs_shared("data/sst2")[1]
def test_self_influence_finds_wrong_labels_of_real_sentences():
    # Sentences that the built-in model was not trained on.
    lines = (SHARED / "data/sst2/sst2_dev.tsv").read_text().splitlines()[:400]
    texts = [line.split("\t")[1] for line in lines]
    labels = np.array([int(line.split("\t")[0]) for line in lines])
    wrong = np.random.default_rng(0).choice(400, 40, replace=False)
    labels[wrong] = 1 - labels[wrong]
    source = load_text_model()
    states = fine_tune(source.module, source.tokenizer, texts, labels.tolist())
    found = influence.tracin(source, None, texts, labels, checkpoints=states)
    ranked = found.self_influence().indices
    share = {n: np.isin(ranked[:n], wrong).sum() / 40 for n in (40, 80)}
    # By chance .10 and .20.
    assert share[40] >= 0.4 and share[80] >= 0.7, share


def fine_tune(module, tokenizer, texts, labels, epochs: int = 3, rate: float = 1e-4):
    """The state after each epoch of a short training; dropout is off."""
    model = copy.deepcopy(module).eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
    generator = torch.Generator().manual_seed(0)
    states = []
    for _ in range(epochs):
        for batch in torch.randperm(len(texts), generator=generator).split(16):
            encoded = tokenizer(
                [texts[i] for i in batch], padding=True, return_tensors="pt"
            )
            loss = nn.functional.cross_entropy(
                model(**encoded).logits, torch.tensor([labels[i] for i in batch])
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        states.append(copy.deepcopy(model.state_dict()))
    return states
