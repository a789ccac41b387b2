"""Targets that are functions of a model's output."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification, BertForTokenClassification

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    GradientXInput,
    LayerAttnLRP,
    TransformerLRP,
    methods,
    targets,
)
from captum_transformer_lrp.errors import OutputError, TargetError
from tests.tasks.tiny import bert, word_pieces

NAMES = ("bad", "fine", "good")
OUTPUT = SimpleNamespace  # what a function reads is enough


@pytest.fixture(scope="module")
def model():
    return bert(BertForSequenceClassification, *NAMES)


@pytest.fixture(scope="module")
def batch():
    texts = ["a warm film", "Sarah lives in London with a dog"]
    return dict(word_pieces()(texts, padding=True, return_tensors="pt"))


def alpha_beta(model):
    return TransformerLRP(model, "alpha-beta")


METHODS: list[Any] = [AttnLRP, CPLRP, GradientXInput, CheferLRP, alpha_beta]


@pytest.mark.parametrize("method", METHODS)
def test_a_label_is_its_index(method, model, batch):
    lrp = method(model)
    expected = lrp.attribute(batch, target=2)
    for target in (
        targets.Label("good"),
        targets.Label("GOOD"),
        targets.Label(2),
        lambda output: output.logits[:, 2],
    ):
        found = lrp.attribute(batch, target=target)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput, alpha_beta])
def test_a_contrast_is_a_difference(method, model, batch):
    lrp = method(model)
    found = lrp.attribute(batch, target=targets.Contrast("good", "bad"))
    good, bad = (lrp.attribute(batch, target=i) for i in (2, 0))
    assert torch.allclose(found, good - bad, rtol=1e-9, atol=1e-12)
    nested = targets.Contrast(targets.Label("good"), targets.Label(0))
    assert torch.allclose(lrp.attribute(batch, target=nested), found)


@pytest.mark.parametrize("name", [*methods])
def test_every_method_takes_targets(name, model, batch):
    method = methods[name].make(model, tokenizer=word_pieces(), baseline=0)
    found = method.attribute(batch, target=targets.Label("good"))
    expected = method.attribute(batch, target=2)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert expected.abs().max() > 0


def test_conservation_and_the_trace_are_of_the_target(model, batch):
    target = targets.Contrast("good", "bad")
    found, delta = CPLRP(model).attribute(
        batch, target=target, return_convergence_delta=True
    )
    with torch.no_grad():
        logits = model(**batch).logits
    score = logits[:, 2] - logits[:, 0]
    assert torch.allclose(found.sum(1) + delta, score)
    trace = CPLRP(model).trace(batch, target=target)
    assert trace.score == pytest.approx(float(score.sum()))
    assert trace.conservation_error < 1e-9
    layer = LayerAttnLRP(model, model.bert.embeddings.word_embeddings)
    read = layer.attribute(batch, target=target).sum(-1)
    assert torch.allclose(read, AttnLRP(model).attribute(batch, target=target))


def test_of_what_is_not_linear_the_gradient_starts(model, batch):
    """Gradient x Input is autograd's own, whatever the target."""
    with torch.no_grad():
        embedded = model.bert.embeddings.word_embeddings(batch["input_ids"])
    other = torch.tensor([0.1, 0.5, -0.3], dtype=torch.float64)
    for target in (
        targets.Probability("good"),
        targets.Probability(2, "sigmoid"),
        targets.Probability(("good", 0)),
        targets.LogProbability("good"),
        targets.LogProbability((0, "good")),
        targets.Entropy(),
        targets.KL(other),
    ):
        given = {"inputs_embeds": embedded, "attention_mask": batch["attention_mask"]}
        found = GradientXInput(model).attribute(given, target=target)
        leaf = embedded.clone().requires_grad_()
        output = model(**{**given, "inputs_embeds": leaf})
        score = target.for_model(model)(output).sum()
        (gradient,) = torch.autograd.grad(score, leaf)
        mask = batch["attention_mask"][..., None]
        assert torch.allclose(found, leaf.detach() * gradient * mask)
        assert CPLRP(model).attribute(batch, target=target).abs().max() > 0


def test_values_of_targets():
    logits = torch.tensor([[1.0, 2.0, 3.0]])
    output = OUTPUT(logits=logits)
    output.__dataclass_fields__ = {"logits": None}
    chances = logits.softmax(-1)[0]
    assert targets.Label(1)(output).tolist() == [2.0]
    assert targets.Probability(1)(output)[0] == pytest.approx(float(chances[1]))
    either = float(chances[0] + chances[2])
    assert targets.Probability((0, 2))(output)[0] == pytest.approx(either)
    found = targets.LogProbability((0, 2))(output)[0]
    assert found == pytest.approx(float(chances[[0, 2]].sum().log()))
    assert targets.LogProbability(1)(output)[0] == pytest.approx(
        float(chances[1].log())
    )
    several = torch.stack([torch.zeros(3), logits[0], torch.ones(3)])[None]
    for one, expected in (
        (targets.Probability((0, 2), position=1), either),
        (targets.LogProbability(1, position=-2), float(chances[1].log())),
    ):
        assert one(several)[0] == pytest.approx(expected)
    entropy = -(chances * chances.log()).sum()
    assert targets.Entropy()(output)[0] == pytest.approx(float(entropy))
    assert targets.KL(logits[0])(output)[0] == pytest.approx(0, abs=1e-6)
    even = (chances * (chances * 3).log()).sum()
    assert targets.KL(torch.zeros(3))(output)[0] == pytest.approx(float(even))


def test_places_of_maps():
    maps = torch.arange(24.0).view(1, 2, 3, 4)
    assert targets.Pixel(1, 2, 1)(maps).tolist() == [float(maps[0, 1, 1, 2])]
    region = torch.zeros(3, 4, dtype=torch.bool)
    region[0, :2] = True
    assert targets.Mask(region, 0)(maps).tolist() == [0.5]
    large = region.repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert targets.Mask(large, 0)(maps).tolist() == [0.5]
    depth = maps[:, 0]
    assert targets.Mask(region)(depth).tolist() == [0.5]
    with pytest.raises(TargetError, match="the mask is empty"):
        targets.Mask(region & False, 0)(maps)
    with pytest.raises(OutputError, match="a label= for maps of classes"):
        targets.Mask(region)(maps)


def test_boxes():
    logits = torch.tensor([[[1.0, 2.0, 9.0], [4.0, 3.0, 0.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.2, 0.1, 0.2]]])
    output = {"logits": logits, "pred_boxes": boxes}
    assert targets.Box(0, no_object=-1)(output).tolist() == [2.0]
    assert targets.Box(0)(output).tolist() == [9.0]
    assert targets.Box(1, 1)(output).tolist() == [3.0]
    sides = [
        float(targets.Box(0, side=side)(output))
        for side in ("left", "top", "right", "bottom")
    ]
    assert sides == pytest.approx([0.4, 0.3, 0.6, 0.7])
    with pytest.raises(TargetError, match="there is no query 2"):
        targets.Box(2)(output)


def test_entities_are_of_their_tokens():
    tags = ("O", "B-PER", "I-PER")
    model = bert(BertForTokenClassification, *tags, seed=7)
    inputs = dict(word_pieces()("Sarah lives in London", return_tensors="pt"))
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    target = targets.Entity("PER", (1, 3)).for_model(model)
    expected = (logits[1, 1:].max() + logits[3, 1:].max()) / 2
    with torch.no_grad():
        assert float(target(model(**inputs))) == pytest.approx(float(expected))
    lrp = CPLRP(model)
    found = lrp.attribute(inputs, target=targets.Entity("PER", (1, 3)))
    parts = [
        lrp.attribute(inputs, target=(i, 1 + int(logits[i, 1:].argmax())))
        for i in (1, 3)
    ]
    assert torch.allclose(found, (parts[0] + parts[1]) / 2)


def test_wrong_targets_say_what_to_write(model, batch):
    lrp = AttnLRP(model)
    cases = [
        (targets.Entropy, "expected an object of it, such as Entropy(...)"),
        (targets.Label("god"), "no class named 'god'. Did you mean 'good'?"),
        (targets.Label(3), "there is no class 3"),
        (lambda output: output.logits, "expected one for each, (2,)"),
        (lambda output: 1.0, "returned float; expected a function"),
        (targets.Probability(1, "relu"), "activation= to be one of softmax, sigmoid"),
        (targets.Probability((1, 2), "sigmoid"), "expected one label with activation="),
        (targets.LogProbability((1, 1)), "expected classes, each once, got (1, 1)"),
    ]
    for target, message in cases:
        with pytest.raises(TargetError, match=re.escape(message)):
            lrp.attribute(batch, target=target)
    with pytest.raises(TargetError, match="pass the index"):
        AttnLRP(lambda **inputs: model(**inputs)).attribute(
            batch, target=targets.Label("good")
        )
    with pytest.raises(OutputError, match="no tensor 'start_logits'"):
        lrp.attribute(batch, target=targets.Span(1, 2))
