"""Data as users have it: order, generators, what the model is called with."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from captum_transformer_lrp.diffmask.batches import Batches, batch_of, tokens_of
from captum_transformer_lrp.errors import InputError

DATA = torch.arange(20)


def shuffled(generator: torch.Generator | None = None) -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=4, shuffle=True, generator=generator)  # type: ignore[arg-type]


def first(batches: Batches, count: int) -> list[list[int]]:
    return [batch.tolist() for batch in islice(batches, count)]


@pytest.mark.parametrize("own", [None, 5])
def test_the_order_depends_on_the_seed_alone(own: int | None) -> None:
    def loader() -> DataLoader[Any]:
        return shuffled(None if own is None else torch.Generator().manual_seed(own))

    torch.manual_seed(1)
    one = first(Batches(loader(), 7), 12)
    torch.manual_seed(2)
    assert first(Batches(loader(), 7), 12) == one
    assert first(Batches(loader(), 8), 12) != one
    assert one[:5] != one[5:10], "another order in the next epoch"
    assert sorted(x for batch in one[:5] for x in batch) == DATA.tolist()


def test_a_run_can_be_taken_up_anywhere() -> None:
    whole = first(Batches(shuffled(), 7), 12)
    batches = Batches(shuffled(), 7)
    first(batches, 8)
    rest = Batches(shuffled(), 7, epoch=batches.epoch, skip=batches.position)
    assert first(rest, 4) == whole[8:]


def test_the_users_generators_are_left_alone() -> None:
    own = torch.Generator().manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), own.get_state()
    first(Batches(shuffled(own), 7), 12)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert torch.equal(own.get_state(), states[2])


def test_processes_share_each_group_of_batches() -> None:
    whole = first(Batches(shuffled(), 7), 5)
    shares = [first(Batches(shuffled(), 7, share=(i, 2)), 2) for i in range(2)]
    assert [x for pair in zip(*shares, strict=True) for x in pair] == whole[:4]


def test_data_that_cannot_be_iterated_again_or_is_empty() -> None:
    with pytest.raises(InputError, match="only once"):
        Batches(iter([DATA]), 0)
    with pytest.raises(InputError, match="holds no batch"):
        first(Batches([], 0), 1)
    with pytest.raises(InputError, match="for 3 processes"):
        first(Batches([DATA, DATA], 0, share=(0, 3)), 1)


def test_labels_do_not_reach_the_model() -> None:
    batch = batch_of({"input_ids": DATA[None], "labels": DATA[:1]}, None)
    assert list(batch.keywords) == ["input_ids"] and batch.examples == 1
    batch = batch_of((DATA[None], DATA[None].float()), None, 3)
    assert batch.arguments[2] == 3
    assert batch.identifiers is not None
    assert batch_of(torch.rand(2, 3, 4, 4), None).identifiers is None


def test_which_tokens_are_real() -> None:
    ids, mask = torch.ones(2, 3).long(), torch.tensor([[1, 1, 0], [1, 1, 1]])
    batch = batch_of({"input_ids": ids, "attention_mask": mask}, None)
    assert torch.equal(tokens_of(batch, (2, 3), None), mask.bool())
    assert tokens_of(batch_of(ids, None), (2, 3), None).all()
    with pytest.raises(InputError, match="token_mask="):
        tokens_of(batch, (2, 4), None)


def test_batches_that_are_none() -> None:
    with pytest.raises(InputError, match="without a tensor"):
        batch_of({"text": "a"}, None)
    with pytest.raises(InputError, match="at least one example"):
        batch_of(torch.ones(0, 3), None)
