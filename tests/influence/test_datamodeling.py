"""The linear datamodeling score: on models whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from captum_transformer_lrp import errors, influence


def ranks(values) -> list[float]:
    """Number of smaller values plus half of the equal ones."""
    return [
        sum(b < a for b in values) + sum(b == a for b in values) / 2 for a in values
    ]


def spearman(a, b) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_halves_are_halves():
    halves = influence.random_halves(11, 50, seed=3)
    assert halves.shape == (50, 11) and halves.dtype == bool
    assert (halves.sum(1) == 5).all()
    assert np.array_equal(halves, influence.random_halves(11, 50, seed=3))
    assert not np.array_equal(halves, influence.random_halves(11, 50, seed=4))
    assert np.abs(halves.mean(0) - 5 / 11).max() < 0.3


def test_what_is_a_sum_over_the_subset_is_predicted_wholly():
    generator = np.random.default_rng(0)
    true = generator.normal(size=(6, 20))
    halves = influence.random_halves(20, 12)
    found = influence.linear_datamodeling_score(true, halves, halves @ true.T)
    assert found.mean == pytest.approx(1) and found.standard_error == pytest.approx(0)
    turned = influence.linear_datamodeling_score(-true, halves, halves @ true.T)
    assert turned.mean == pytest.approx(-1)
    assert influence.linear_datamodeling_score(
        true, halves, np.exp(halves @ true.T)
    ).mean == pytest.approx(1)  # ranks alone count


def test_it_is_the_mean_of_rank_correlations_with_the_error_of_the_jackknife():
    generator = np.random.default_rng(1)
    scores, halves = generator.normal(size=(5, 14)), influence.random_halves(14, 9)
    said = halves @ scores.T + generator.normal(size=(9, 5))

    def slow(kept) -> float:
        found = []
        for question in range(5):
            sums = [
                sum(scores[question, i] for i in range(14) if halves[j, i])
                for j in kept
            ]
            found.append(spearman(sums, [said[j, question] for j in kept]))
        return sum(found) / 5

    found = influence.linear_datamodeling_score(scores, halves, said)
    assert found.mean == pytest.approx(slow(range(9)))
    without = np.array([slow([j for j in range(9) if j != out]) for out in range(9)])
    error = np.sqrt(8 / 9 * ((without - without.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(error)
    assert "higher is better" in str(found)


def test_scores_without_an_order_agree_with_nothing():
    halves = influence.random_halves(10, 8)
    said = np.random.default_rng(0).normal(size=(8, 3))
    found = influence.linear_datamodeling_score(np.ones((3, 10)), halves, said)
    assert found.mean == 0
    chance = np.random.default_rng(1).normal(size=(200, 400))
    many = influence.random_halves(400, 40)
    noise = np.random.default_rng(2).normal(size=(40, 200))
    found = influence.linear_datamodeling_score(chance, many, noise)
    assert abs(found.mean) < 0.05


class Linear(nn.Module):
    """A classifier whose training has one end, which two Newton steps show."""

    def __init__(self, weight) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.head = nn.Linear(weight.shape[1], len(weight), bias=False)
        self.head.weight.data = weight.clone()

    def forward(self, pixels):
        return self.head(self.flat(pixels))


def trained(inputs, labels, penalty: float = 0.02) -> Linear:
    """The end of training with a penalty on the square of the weights."""
    weight = torch.zeros(2, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(inputs @ weight.T, labels)
        value = value + penalty / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Linear(weight.detach()).eval()


def test_influence_by_curvature_predicts_a_linear_model():
    """Where the loss is convex: curvature tells more than gradients, those than none.

    Features differ in size by a factor of 30, so that a gradient is no Newton step.
    """
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-1, 0.5, 8, dtype=torch.float64)
    inputs = torch.randn(110, 8, dtype=torch.float64, generator=generator) * size
    truth = torch.randn(8, dtype=torch.float64, generator=generator)
    noise = torch.randn(110, dtype=torch.float64, generator=generator)
    labels = (inputs @ (truth / size) + 1.5 * noise > 0).long()
    (known, asked), (classes, targets) = inputs.split((80, 30)), labels.split((80, 30))

    def say(rows):
        model = trained(known[rows], classes[rows])
        with torch.no_grad():
            logits = model(asked)
        own = logits.gather(1, targets[:, None])[:, 0]
        return (own - logits.gather(1, 1 - targets[:, None])[:, 0]).tolist()

    halves = influence.random_halves(80, 40)
    said = np.array([say(np.flatnonzero(half)) for half in halves])
    pictures = [row[:, None, None] for row in known]
    given = (trained(known, classes), lambda x: x, pictures, classes.tolist())
    questions = [row[:, None, None] for row in asked]
    found = {
        "curvature": influence.empirical_fisher(*given, damping=0.02),
        "gradients": influence.tracin(*given, layers="all"),
    }
    lds = {
        name: influence.linear_datamodeling_score(
            one.scores(questions, targets.tolist()), halves, said
        ).mean
        for name, one in found.items()
    }
    assert lds["curvature"] > lds["gradients"] + 0.1 and lds["curvature"] > 0.7, lds
    scores = found["gradients"].scores(questions, targets.tolist())
    asked_again = influence.linear_datamodeling_score(scores, halves, say)
    assert asked_again.mean == lds["gradients"]


@pytest.mark.parametrize(
    ("scores", "subsets", "outputs", "message"),
    [
        (np.ones((2, 5)), np.ones((4, 6), bool), np.ones((4, 2)), r"got \(2, 5\) and"),
        (np.ones((2, 5)), np.ones((4, 5)), np.ones((4, 2)), "subsets of bool"),
        (np.ones((2, 5)), np.ones((2, 5), bool), np.ones((2, 2)), "at least three"),
        (np.ones((2, 5)), np.ones((4, 5), bool), np.ones((4, 3)), "4 x 2, got"),
        (np.full((2, 5), np.nan), np.ones((4, 5), bool), None, "scores hold NaN"),
        (np.ones((2, 5)), np.ones((4, 5), bool), np.full((4, 2), np.inf), "outputs ho"),
    ],
)
def test_errors_say_what_was_expected(scores, subsets, outputs, message):
    with pytest.raises(errors.InputError, match=message):
        influence.linear_datamodeling_score(scores, subsets, outputs)
    with pytest.raises(errors.InputError, match="at least two examples and halves"):
        influence.random_halves(1, 5)
