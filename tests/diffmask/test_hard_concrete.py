"""The hard concrete distribution against sampling, integration and Captum's gates."""

from __future__ import annotations

import math

import pytest
import torch
from captum.module import BinaryConcreteStochasticGates

from captum_transformer_lrp.diffmask import HardConcrete

LOGITS = torch.tensor([-6.0, -1.5, 0.0, 0.7, 3.0, 9.0], dtype=torch.float64)
SHAPES = [(0.2, -0.2, 1.0), (2 / 3, -0.1, 1.1), (0.5, -0.5, 2.0)]


def grid(count: int = 200_001) -> torch.Tensor:
    """Return midpoints of (0, 1): integrals over the noise are means over them."""
    return ((torch.arange(count, dtype=torch.float64) + 0.5) / count)[:, None]


@pytest.mark.parametrize(("temperature", "low", "high"), SHAPES)
def test_probabilities_are_those_of_samples(
    temperature: float, low: float, high: float
) -> None:
    gate = HardConcrete(LOGITS, temperature, low, high)
    z = gate.sample(grid().expand(-1, len(LOGITS)))
    found = {
        "zero": (z == 0).double().mean(0),
        "one": (z == 1).double().mean(0),
        "nonzero": (z > 0).double().mean(0),
    }
    close = {"atol": 2e-5, "rtol": 0.0}
    torch.testing.assert_close(gate.probability_zero(), found["zero"], **close)
    torch.testing.assert_close(gate.probability_nonzero(), found["nonzero"], **close)
    if high > 1:
        torch.testing.assert_close(gate.probability_one(), found["one"], **close)
    torch.testing.assert_close(
        gate.log_probability_nonzero().exp(), gate.probability_nonzero()
    )
    for value in (0.1, 0.5, 0.9):
        torch.testing.assert_close(
            gate.cdf(value), (z <= value).double().mean(0), **close
        )


def test_samples_of_the_generator_follow_the_distribution() -> None:
    torch.manual_seed(0)
    count = 100_000
    gate = HardConcrete(LOGITS[:, None].expand(-1, count))
    share = (gate.sample() > 0).double().mean(1)
    p = gate.probability_nonzero()[:, 0]
    error = (p * (1 - p) / count).sqrt()
    assert ((share - p).abs() <= 5 * error).all()


def test_the_papers_constants() -> None:
    gate = HardConcrete(LOGITS)
    expected = torch.sigmoid(LOGITS - 0.2 * math.log(0.2 / 1.0))
    torch.testing.assert_close(gate.probability_nonzero(), expected)
    assert abs(-0.2 * math.log(0.2) - 0.3219) < 1e-4
    assert (gate.probability_one() == 0).all(), "at high = 1 a gate is never all open"


def test_captums_gates_are_the_same_where_they_exist() -> None:
    temperature, low, high = SHAPES[1]
    theirs = BinaryConcreteStochasticGates(
        len(LOGITS), temperature=temperature, lower_bound=low, upper_bound=high
    )
    with torch.no_grad():
        theirs.log_alpha_param.copy_(LOGITS)
    ours = HardConcrete(theirs.log_alpha_param.detach(), temperature, low, high)
    torch.testing.assert_close(
        ours.probability_nonzero(), theirs.get_gate_active_probs()
    )
    torch.manual_seed(3)
    inputs = torch.ones(7, len(LOGITS))
    gated, _ = theirs(inputs)
    torch.manual_seed(3)
    uniform = torch.empty(7, len(LOGITS)).uniform_(1e-8, 1 - 1e-8)
    torch.testing.assert_close(ours.sample(uniform), gated.detach())


def test_gradients_reach_logits_between_the_ends_only() -> None:
    logits = LOGITS.clone().requires_grad_()
    z = HardConcrete(logits).sample(torch.full_like(logits, 0.5))
    (slope,) = torch.autograd.grad(z.sum(), logits)
    inside = (z > 0) & (z < 1)
    assert (slope[z == 0] == 0).all()
    assert (slope[inside & (LOGITS.abs() < 2)] > 0).all()
    assert torch.autograd.gradcheck(
        lambda x: HardConcrete(x).log_probability_nonzero(), logits
    )


def test_far_logits_stay_finite() -> None:
    gate = HardConcrete(torch.tensor([-200.0, 200.0], requires_grad=True))
    noise = torch.tensor([0.0, 1.0])
    total = gate.sample(noise) + gate.log_probability_nonzero()
    total.sum().backward()
    assert total.isfinite().all()
    assert gate.logits.grad is not None and gate.logits.grad.isfinite().all()
    assert HardConcrete(torch.zeros(2, dtype=torch.float16)).sample().dtype == (
        torch.float32
    )


def test_errors() -> None:
    with pytest.raises(ValueError, match="temperature=0"):
        HardConcrete(LOGITS, temperature=0)
    with pytest.raises(ValueError, match="expected low < 0"):
        HardConcrete(LOGITS, low=0.0)
    with pytest.raises(ValueError, match="high >= 1"):
        HardConcrete(LOGITS, high=0.9)
