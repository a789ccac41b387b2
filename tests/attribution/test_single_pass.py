"""What one pass warns of."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    GenericAttention,
    LRPRollout,
    PartialLRP,
    TransformerLRP,
    rules,
)
from captum_transformer_lrp.errors import HalfPrecisionWarning
from tests.helpers import relative, tiny

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
ALPHA_BETA = rules.AlphaBeta(alpha=2.0, beta=1.0)


def of_table(composite: Any, **rows: Any) -> Any:
    return lambda model: TransformerLRP(model, composite, **rows)


COARSE = {
    "CheferLRP": CheferLRP,
    "LRPRollout": LRPRollout,
    "PartialLRP": PartialLRP,
    "alpha-beta": of_table("alpha-beta"),
    "a row for an operator": of_table("attnlrp", rules={"linear": ALPHA_BETA}),
    "a row for a class": of_table("cp-lrp", rules={nn.Linear: rules.ZPlus()}),
    "behind the input": of_table(
        "attnlrp",
        rules={"linear": rules.AtInput(rule=rules.Flat(), otherwise=ALPHA_BETA)},
    ),
}
FINE = {
    "AttnLRP": AttnLRP,
    "CPLRP": CPLRP,
    "GenericAttention": GenericAttention,
    "gamma": of_table("gamma"),
    "epsilon-alpha2-beta1": of_table("epsilon-alpha2-beta1"),
}


def in_half(kind: str, dtype: torch.dtype) -> Any:
    """Return something half precision is computed in, and what it explains."""
    model = tiny().to(dtype)
    if kind == "a model":
        return model, IDS
    if kind == "a function of identifiers":
        return (lambda ids: model(ids).float()), IDS
    if kind == "a function":
        return (lambda ids: model(ids)), IDS

    def automatic(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            scores: Tensor = full(ids)
        return scores

    full = tiny().float()
    return automatic, IDS


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", COARSE)
def test_methods_that_half_precision_is_not_enough_for_warn(
    name: str, dtype: torch.dtype
) -> None:
    model = tiny().to(dtype)
    with pytest.warns(HalfPrecisionWarning, match=r"dtype=torch\.float64"):
        COARSE[name](model).attribute(IDS, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for enough in (torch.float32, torch.float64):
            COARSE[name](copy.deepcopy(model).to(enough)).attribute(IDS, target=1)


@pytest.mark.parametrize("name", FINE)
def test_others_do_not(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FINE[name](tiny().to(torch.bfloat16)).attribute(IDS, target=1)


@pytest.mark.parametrize(
    "kind", ["a model", "a function of identifiers", "a function", "autocast"]
)
def test_half_precision_is_seen_wherever_it_is(kind: str) -> None:
    model, inputs = in_half(kind, torch.bfloat16)
    with pytest.warns(HalfPrecisionWarning):
        TransformerLRP(model, "alpha-beta").attribute(inputs, target=1)


def test_what_the_warning_says_to_write_is_right() -> None:
    """In a higher dtype, or of a copy, as the same weights in float64 say."""
    half = tiny().half()
    exact = CheferLRP(copy.deepcopy(half).double()).attribute(IDS, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = CheferLRP(half, dtype=torch.float64).attribute(IDS, target=1)
    assert relative(found, exact) < 1e-9
    assert all(p.dtype == torch.float16 for p in half.parameters())


def test_logits_of_minus_infinity_that_a_target_does_not_read() -> None:
    torch.manual_seed(0)
    x, weights = torch.randn(2, 3).double(), torch.randn(3, 4).double()
    mask = torch.tensor([False, False, True, False])

    def model(x: Tensor) -> Tensor:
        return (x @ weights).masked_fill(mask, float("-inf"))

    found, delta = CPLRP(model).attribute(
        x, target=lambda output: output[:, 1], return_convergence_delta=True
    )
    assert torch.allclose(found, x * weights[:, 1])
    assert torch.allclose(delta, torch.zeros(2).double())
