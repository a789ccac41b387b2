"""EK-FAC by kronfluence: against its formulas written out, in float64."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import errors, influence
from captum_transformer_lrp._packages import MissingPackageError
from tests.helpers import assert_same_state, state_of
from tests.influence.test_influence import (
    LABELS,
    QUERIES,
    TEXTS,
    Pictures,
    classifier,
    loss_gradient,
)

transformers = pytest.importorskip("transformers")

CLASSES, FEATURES, DAMPING = 3, 5, 0.02


needs_kronfluence = pytest.mark.skipif(
    importlib.util.find_spec("kronfluence") is None, reason="needs kronfluence"
)


def linear_model(scale: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, CLASSES)).double().eval()
    for parameter in model.parameters():
        parameter.data.mul_(scale)
    return model


def data(seed: int, count: int) -> tuple[list[Tensor], list[int]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(
        count, FEATURES, 1, 1, dtype=torch.float64, generator=generator
    )
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return list(inputs), labels.tolist()


def gradients(model: nn.Module, picture: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and for each class the gradient (classes, features + 1)."""
    linear: Any = model[1]
    x = np.append(picture.flatten().numpy(), 1.0)
    weight = np.column_stack([linear.weight.detach(), linear.bias.detach()])
    logits = weight @ x
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    outputs = [shares - np.eye(CLASSES)[c] for c in range(CLASSES)]
    return shares, np.array([np.outer(g, x) for g in outputs])


def fisher_inverse(model, training, first, second) -> np.ndarray:
    """First under the inverse of the whole Fisher information, times second."""
    size = CLASSES * (FEATURES + 1)
    fisher = np.zeros((size, size))
    for picture in training:
        shares, found = gradients(model, picture)
        for share, gradient in zip(shares, found, strict=True):
            fisher += share * np.outer(gradient, gradient) / len(training)
    inverse = np.linalg.inv(fisher + DAMPING * np.eye(size))
    return np.array([[a.ravel() @ inverse @ b.ravel() for b in second] for a in first])


def ekfac_inverse(model, training, first, second) -> np.ndarray:
    """The same with what EK-FAC takes for the Fisher information."""
    size = FEATURES + 1
    inputs, outputs = np.zeros((size, size)), np.zeros((CLASSES, CLASSES))
    for picture in training:
        shares, found = gradients(model, picture)
        x = np.append(picture.flatten().numpy(), 1.0)
        inputs += np.outer(x, x) / len(training)
        for share, gradient in zip(shares, found, strict=True):
            outputs += share * np.outer(gradient[:, -1], gradient[:, -1])
    left, right = np.linalg.eigh(outputs)[1], np.linalg.eigh(inputs)[1]
    values = np.zeros((CLASSES, size))
    for picture in training:
        shares, found = gradients(model, picture)
        for share, gradient in zip(shares, found, strict=True):
            values += share * (left.T @ gradient @ right) ** 2 / len(training)
    turned = [[left.T @ g @ right for g in some] for some in (first, second)]
    return np.array(
        [[(a * b / (values + DAMPING)).sum() for b in turned[1]] for a in turned[0]]
    )


def of_labels(model, pictures, labels) -> list[np.ndarray]:
    return [
        gradients(model, picture)[1][label]
        for picture, label in zip(pictures, labels, strict=True)
    ]


@needs_kronfluence
@pytest.mark.parametrize("oracle", [ekfac_inverse, fisher_inverse])
def test_equals_the_formula_on_a_linear_model(oracle):
    # With weights of 0 the probabilities are the same everywhere, and the Fisher
    # information is a Kronecker product: then EK-FAC is its exact inverse.
    model = linear_model(scale=0.0 if oracle is fisher_inverse else 1.0)
    (training, labels), (asked, targets) = data(1, 11), data(2, 4)
    found = influence.ekfac(
        model, lambda x: x, training, labels, damping=DAMPING, batch_size=4
    )
    own = of_labels(model, training, labels)
    expected = oracle(model, training, of_labels(model, asked, targets), own)
    scores = found.scores(asked, targets)
    assert np.abs(scores - expected).max() <= 1e-10 * np.abs(expected).max()
    ranked = found.self_influence()
    diagonal = oracle(model, training, own, own).diagonal()
    assert ranked.indices == np.argsort(-diagonal).tolist()
    assert np.allclose(ranked.scores, diagonal[ranked.indices], rtol=1e-10)
    assert "1 layers with 100% of the parameters" in found.measure
    if oracle is ekfac_inverse:  # which is not exact elsewhere
        exact = fisher_inverse(model, training, of_labels(model, asked, targets), own)
        assert np.abs(scores - exact).max() > 0.01 * np.abs(exact).max()


@needs_kronfluence
def test_drawn_labels_estimate_the_same():
    model = linear_model()
    (training, labels), (asked, targets) = data(1, 11), data(2, 4)
    given = (model, lambda x: x, training, labels)
    exact = influence.ekfac(*given, damping=0.1).scores(asked, targets)
    drawn = influence.ekfac(*given, damping=0.1, draws=300).scores(asked, targets)
    assert np.corrcoef(exact.ravel(), drawn.ravel())[0, 1] > 0.99
    one, same, other = (
        influence.ekfac(*given, draws=1, seed=seed).scores(asked, targets)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same) and not np.allclose(one, other)


def layers_of(model: nn.Module) -> list[Any]:
    """The parameters of linear and convolutional layers, without BERT's pooler."""
    conv1d = transformers.pytorch_utils.Conv1D
    return [
        parameter
        for module in model.modules()
        if isinstance(module, (nn.Linear, nn.Conv2d, conv1d))
        for parameter in module.parameters()
    ]


@needs_kronfluence
@pytest.mark.parametrize(
    "cls",
    [
        transformers.BertForSequenceClassification,
        transformers.GPT2ForSequenceClassification,
        transformers.LlamaForSequenceClassification,
        transformers.AlbertForSequenceClassification,  # one layer runs twice
    ],
)
def test_much_damping_leaves_the_product_of_gradients(cls, tokenizer):
    model = classifier(cls)
    found = influence.ekfac(
        model, tokenizer, TEXTS, LABELS, damping=1e13, batch_size=2
    ).scores(QUERIES, [2, 0])
    chosen = layers_of(model)
    asked = [
        loss_gradient(model, tokenizer, text, label, chosen)
        for text, label in zip(QUERIES, [2, 0], strict=True)
    ]
    own = [
        loss_gradient(model, tokenizer, text, label, chosen)
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    expected = np.array([[float(a @ b) for b in own] for a in asked])
    assert np.abs(1e13 * found - expected).max() <= 1e-6 * np.abs(expected).max()


@needs_kronfluence
def test_pictures_and_convolutions():
    torch.manual_seed(0)
    model = Pictures().double().eval()
    pixels = list(torch.randn(6, 3, 8, 8, dtype=torch.float64))
    labels = [0, 1, 2, 3, 0, 1]

    def gradient(picture: Tensor, label: int, names: tuple[str, ...]) -> Tensor:
        loss = -model(picture[None]).log_softmax(-1)[0, label]
        chosen = [p for n, p in model.named_parameters() if n.startswith(names)]
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, chosen)])

    for layers, names in (
        ("all", ("patches", "head")),
        ("final", ("head",)),
        (["patches"], ("patches",)),
    ):
        found = influence.ekfac(
            model, lambda image: image, pixels, labels, layers=layers, damping=1e9
        )
        expected = [
            float(gradient(pixels[0], 2, names) @ gradient(p, y, names))
            for p, y in zip(pixels, labels, strict=True)
        ]
        assert np.allclose(1e9 * found.scores(pixels[:1], [2])[0], expected, rtol=1e-6)


@needs_kronfluence
@pytest.mark.parametrize("training", [False, True])
def test_the_model_and_the_random_state_are_untouched(training, tokenizer):
    model = classifier().train(training)
    before = state_of(model)
    found = influence.ekfac(model, tokenizer, TEXTS, LABELS, draws=1)
    with torch.no_grad():
        found.proponents(QUERIES[0])
    found.self_influence()
    assert_same_state(before, state_of(model))
    assert "EK-FAC" in str(found.proponents(QUERIES[0]))


@needs_kronfluence
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": "head"}, errors.UnitError, "write layers=['head']"),
        ({"layers": ["clasifier"]}, errors.UnitError, "Did you mean 'classifier'"),
        ({"layers": ["bert.embeddings"]}, errors.UnitError, "knows no other layer"),
        ({"damping": 0}, errors.InputError, "damping= above 0, got 0"),
        ({"draws": 0}, errors.InputError, "draws= of at least 1"),
        ({"labels": [1]}, errors.InputError, "a label for each of the 5 examples"),
    ],
)
def test_errors_say_what_to_write(options, error, message, tokenizer):
    given = {"examples": TEXTS, "labels": LABELS} | options
    with pytest.raises(error) as caught:
        influence.ekfac(classifier(), tokenizer, **given)
    assert message in str(caught.value)


def test_without_kronfluence_it_says_what_to_install(monkeypatch, tokenizer):
    monkeypatch.setitem(sys.modules, "kronfluence", None)
    with pytest.raises(MissingPackageError, match=r"captum_transformer_lrp\[influence"):
        influence.ekfac(classifier(), tokenizer, TEXTS, LABELS)
