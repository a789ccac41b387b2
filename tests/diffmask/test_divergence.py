"""Divergences between predictions, against torch's distributions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch import distributions as D

from captum_transformer_lrp.diffmask.divergence import (
    Bernoulli,
    Categorical,
    Custom,
    Gaussian,
    NextToken,
    divergence_for,
    outputs_of,
)
from captum_transformer_lrp.errors import InputError, OutputError, UnknownNameError

TOKENS = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_categorical_is_kl_of_the_original_to_the_masked() -> None:
    p, q = draw(2, 3), draw(2, 3, seed=1)
    expected = D.kl_divergence(D.Categorical(logits=p), D.Categorical(logits=q))
    found = Categorical()({"logits": p}, {"logits": q}, TOKENS)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(expected, Categorical()({"x": q}, {"x": p}, TOKENS))


def test_categorical_of_tokens_leaves_padding_out() -> None:
    p, q = draw(2, 4, 3), draw(2, 4, 3, seed=1)
    each = D.kl_divergence(D.Categorical(logits=p), D.Categorical(logits=q))
    expected = torch.stack([each[0].mean(), each[1, :2].mean()])
    found = Categorical()({"logits": p}, {"logits": q}, TOKENS)
    torch.testing.assert_close(found, expected)


def test_an_answer_adds_start_and_end_and_agrees_when_both_do() -> None:
    p = {"start_logits": draw(2, 4), "end_logits": draw(2, 4, seed=1)}
    q = {"start_logits": p["start_logits"], "end_logits": draw(2, 4, seed=2)}
    one = Categorical()({"x": p["end_logits"]}, {"x": q["end_logits"]}, TOKENS)
    torch.testing.assert_close(Categorical()(p, q, TOKENS), one)
    same = (p["end_logits"].argmax(1) == q["end_logits"].argmax(1)).float()
    assert Categorical().agreement(p, q, TOKENS).tolist() == same.tolist()


def test_a_class_that_is_impossible_for_both_adds_nothing() -> None:
    p, q = draw(2, 3), draw(2, 3, seed=1).requires_grad_()
    shut = torch.tensor([0.0, 0.0, -torch.inf])
    found = Categorical()({"x": p + shut}, {"x": q + shut}, TOKENS)
    torch.testing.assert_close(
        found, Categorical()({"x": p[:, :2]}, {"x": q[:, :2]}, TOKENS)
    )
    (slope,) = torch.autograd.grad(found.sum(), q)
    assert slope.isfinite().all()


def test_bernoulli_sums_over_labels() -> None:
    p, q = draw(2, 3), draw(2, 3, seed=1)
    expected = D.kl_divergence(D.Bernoulli(logits=p), D.Bernoulli(logits=q)).sum(1)
    torch.testing.assert_close(Bernoulli()({"x": p}, {"x": q}, TOKENS), expected)
    assert Bernoulli().agreement({"x": p}, {"x": p}, TOKENS).tolist() == [1, 1]
    assert Bernoulli().agreement({"x": p}, {"x": -p}, TOKENS).tolist() == [0, 0]


def test_gaussian_is_kl_of_normals_with_the_variance_of_the_data() -> None:
    p, q = draw(2, 1), draw(2, 1, seed=1)
    divergence = Gaussian().calibrate([{"x": draw(50, 1, seed=2)}])
    scale = draw(50, 1, seed=2).var(unbiased=False).sqrt()
    expected = D.kl_divergence(D.Normal(p, scale), D.Normal(q, scale))[:, 0]
    found = divergence({"x": p}, {"x": q}, TOKENS)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    with pytest.raises(InputError, match="variance"):
        Gaussian().calibrate([{"x": torch.ones(4, 1)}])


@pytest.mark.parametrize(
    ("position", "rows", "counted"),
    [
        (-1, [[3], [1]], [4, 2]),
        (0, [[0], [0]], [1, 1]),
        (-2, [[2], [0]], [3, 1]),
        (lambda _: torch.tensor([[0, 2], [0, 1]]), [[0, 2], [0, 1]], [3, 2]),
    ],
)
def test_next_token_counts_up_to_the_position(
    position: Any, rows: list[list[int]], counted: list[int]
) -> None:
    divergence = NextToken(position)
    logits = draw(2, 4, 5)
    chosen = divergence.chosen({"logits": logits}, TOKENS, None)["logits"]
    expected = torch.stack([logits[i, row] for i, row in enumerate(rows)])
    assert torch.equal(chosen, expected)
    assert divergence.counted(TOKENS, None).sum(1).tolist() == counted
    left = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]).bool()
    if position == -1:
        other = divergence.chosen({"logits": logits}, left, None)["logits"]
        assert torch.equal(other[1, 0], logits[1, 3])


def test_next_token_outside_of_the_text() -> None:
    with pytest.raises(InputError, match="2 token"):
        NextToken(2).counted(TOKENS, None)


def test_what_suits_an_output() -> None:
    assert divergence_for(None, draw(2, 3)) == Categorical()
    assert divergence_for("gaussian", draw(2, 1)) == Gaussian()
    with pytest.raises(OutputError, match='"gaussian"'):
        divergence_for(None, draw(2, 1))
    with pytest.raises(UnknownNameError, match="bernoulli"):
        divergence_for("bernouli", draw(2, 1))
    with pytest.raises(OutputError, match="expected one number per example"):
        Custom(lambda x, y: (x - y).sum())({"x": draw(2, 3)}, {"x": draw(2, 3)}, TOKENS)
    with pytest.raises(OutputError, match="returned str"):
        outputs_of("text")
