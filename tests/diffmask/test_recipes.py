"""What a recipe says about each part of a training, and that training follows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from captum_transformer_lrp import DiffMask
from captum_transformer_lrp.diffmask import FAST, PAPER
from tests.diffmask.test_training import Detector, loader


def test_rates_rise_and_then_fall() -> None:
    recipe = replace(FAST, warmup=10, decay=0.5)
    assert recipe.rate_at(0, 100) == pytest.approx(0.1)
    assert recipe.rate_at(9, 100) == recipe.rate_at(50, 100) == 1
    assert recipe.rate_at(75, 100) == pytest.approx(0.5)
    assert PAPER.rate_at(29_999, 30_000) == 1


def test_wider_states_learn_slower() -> None:
    recipe = replace(FAST, gate_rate=0.8, rate_width=4.0)
    assert recipe.gate_rate_for(2) == recipe.gate_rate_for(4) == pytest.approx(0.8)
    assert recipe.gate_rate_for(64) == pytest.approx(0.2)
    assert PAPER.gate_rate_for(64) == PAPER.gate_rate


def test_the_bound_and_the_sparsity_change_between_two_parts() -> None:
    recipe = replace(FAST, bound=(5.0, 9.0), anneal=(0.5, 0.8))
    found = [recipe.bound_at(x) for x in (0.2, 0.65, 0.9)]
    assert found == pytest.approx([5, 7, 9])
    recipe = replace(FAST, sparsity_anneal=(0.2, 0.6))
    found = [recipe.sparsity_at(x) for x in (0.1, 0.4, 0.7)]
    assert found == pytest.approx([0, 0.5, 1])


def test_closed_gates_far_beyond_the_margin_are_opened_again() -> None:
    closed = replace(
        FAST,
        bias=-3.0,
        settle=None,
        multiplier_start=1e-6,
        multiplier_range=(1e-6, 1e-6),
        restoration_from=0.5,
    )
    found = []
    for restoration in (0.0, 5.0):
        recipe = replace(closed, restoration=restoration, decay=1.0)
        mask = DiffMask(Detector(), recipe=recipe, margin=0.05)
        history = mask.fit(
            loader(), steps=60, progress=False, patience=None, record_every=30
        )
        found.append([r["kept"] for r in history.of(mask.states[0])])
    without, with_it = found
    assert without[0] == with_it[0], "not before its part of the training"
    assert with_it[1] > without[1]
