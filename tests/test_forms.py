"""The forms in which inputs come are told apart in one place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp._forms import (
    KNOWN_KEYS,
    call_with,
    examples_in,
    explained_in,
    map_inputs,
    mask_in,
)
from captum_transformer_lrp.metrics import ValueReplacement
from captum_transformer_lrp.metrics.replacement import explained

X, Y = torch.rand(3, 4), torch.rand(3, 2)
MASK = torch.ones(3, 4)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (X, [X]),
        ((X, Y), [X, Y]),
        ({"pixel_values": Y, "attention_mask": MASK, "input_ids": X}, [X, Y]),
        ({"attention_mask": MASK}, []),
        ("a text", []),
    ],
)
def test_what_is_explained(inputs: Any, expected: list[Tensor]) -> None:
    found = explained_in(inputs)
    assert len(found) == len(expected)
    assert all(a is b for a, b in zip(found, expected, strict=True))
    assert examples_in(inputs) == (3 if expected else 1)


def test_a_number_is_one_example_and_a_ragged_tensor_one_for_each_part() -> None:
    assert examples_in(torch.tensor(1.0)) == 1
    parts = [torch.rand(2, 3), torch.rand(5, 3)]
    assert examples_in(torch.nested.nested_tensor(parts, layout=torch.jagged)) == 2


def test_a_mask_comes_with_a_mapping_alone() -> None:
    assert mask_in({"input_ids": X, "attention_mask": MASK}) is MASK
    assert mask_in({"attention_mask": [[1]]}) is None
    assert mask_in((X, MASK)) is None


def test_tensors_are_replaced_in_their_form() -> None:
    given = {"input_ids": X, "use_cache": False}
    assert map_inputs(given, torch.neg)["use_cache"] is False
    assert torch.equal(map_inputs(given, torch.neg)["input_ids"], -X)
    first, second = map_inputs((X, Y), torch.neg)
    assert torch.equal(first, -X) and torch.equal(second, -Y)


class Writes(nn.Module):
    """Writes into what it is given beside what is explained."""

    def forward(self, input_values: Tensor, attention_mask: Tensor) -> Tensor:
        attention_mask.zero_()
        return input_values.sum(1)


def test_a_model_writes_into_copies_of_the_rest() -> None:
    mask = torch.ones(3, 4)
    by_name = call_with(Writes(), {"input_values": X, "attention_mask": mask})
    by_place = call_with(Writes(), X, (mask,))
    assert torch.equal(by_name, X.sum(1)) and torch.equal(by_place, X.sum(1))
    assert torch.equal(mask, torch.ones(3, 4))


@pytest.mark.parametrize("key", KNOWN_KEYS)
def test_metrics_know_every_key_that_methods_explain(key: str) -> None:
    inputs = {key: X, "attention_mask": MASK}
    assert explained(inputs) is X
    keep = torch.ones(3, 4, dtype=torch.bool)
    keep[:, 0] = False
    found = ValueReplacement(0.0)(inputs, keep)
    assert torch.equal(found[key][:, 1:], X[:, 1:]) and not found[key][:, 0].any()
