"""States that lose what they need go back to the masks that kept the margin."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Adam

from captum_transformer_lrp import DiffMask
from captum_transformer_lrp.diffmask import FAST
from captum_transformer_lrp.diffmask.fallback import Fallback
from captum_transformer_lrp.diffmask.gates import Gates
from captum_transformer_lrp.diffmask.training import Training
from tests.diffmask.test_training import Detector, loader, texts

RECIPE = replace(FAST, steps=400, settle=None)


def gates() -> Gates:
    return Gates([4, 4], "hidden", FAST, train_baseline=True)


def parameters(found: Gates, state: int) -> list[Tensor]:
    network, shift = found.networks[state], found.shifts[state]
    return [p.detach().clone() for p in (*network.parameters(), shift)]


def moved(found: Gates) -> Adam:
    """Take a step of all parameters."""
    optimizer = Adam(found.parameters(), lr=0.1)
    torch.cat([(p + 1).flatten() for p in found.parameters()]).pow(2).sum().backward()
    optimizer.step()
    return optimizer


def test_one_state_goes_back_and_the_others_stay() -> None:
    found = gates()
    fallback = Fallback(found)
    before = parameters(found, 1)
    fallback.remember(1)
    optimizer = moved(found)
    other = parameters(found, 0)
    assert fallback.go_back(1, optimizer)
    for now, then in zip(parameters(found, 1), before, strict=True):
        assert torch.equal(now, then)
    for now, then in zip(parameters(found, 0), other, strict=True):
        assert torch.equal(now, then)
    forgotten = {*found.networks[1].parameters(), found.shifts[1]}
    assert not forgotten & set(optimizer.state)
    assert set(optimizer.state) == set(found.parameters()) - forgotten


def test_without_a_copy_nothing_happens() -> None:
    found = gates()
    fallback = Fallback(found)
    fallback.remember(0)
    optimizer = moved(found)
    before = parameters(found, 1)
    assert not fallback.go_back(1, optimizer)
    for now, then in zip(parameters(found, 1), before, strict=True):
        assert torch.equal(now, then)


def test_copies_go_through_a_checkpoint() -> None:
    found = gates()
    fallback = Fallback(found)
    before = parameters(found, 1)
    fallback.remember(1)
    optimizer = moved(found)
    other = Fallback(found)
    other.load(fallback.tensors())
    assert not other.go_back(0, optimizer)
    assert other.go_back(1, optimizer)
    for now, then in zip(parameters(found, 1), before, strict=True):
        assert torch.equal(now, then)


class Killed(BaseException):
    """What no training catches."""


def close_for_sure(
    monkeypatch: pytest.MonkeyPatch, at: int, kill_at: int | None = None
) -> None:
    """Close all gates of state 1 at some step, so that no gradient opens them."""
    step = Training.step

    def closing(self: Training, inputs: Any, *, remember: bool = False) -> None:
        if self.history.steps == at:
            with torch.no_grad():
                self.gates.biases[1].fill_(-40.0)
        if self.history.steps == kill_at:
            raise Killed
        step(self, inputs, remember=remember)

    monkeypatch.setattr(Training, "step", closing)


@pytest.mark.parametrize("fall_back", [4.0, None])
def test_gates_that_close_for_sure(
    monkeypatch: pytest.MonkeyPatch, fall_back: float | None
) -> None:
    close_for_sure(monkeypatch, at=300)
    recipe = replace(RECIPE, fall_back=fall_back, restoration=0.0)
    mask = DiffMask(Detector(), margin=0.05, recipe=recipe)
    mask.fit(loader(), progress=False)
    batch = texts(64, seed=1)
    kept = mask.attribute(batch, layer=1)[batch["input_ids"] == 1].mean()
    assert kept > 0.95 if fall_back else kept < 0.05


def test_a_training_killed_before_it_goes_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fit(**options: Any) -> DiffMask:
        mask = DiffMask(Detector(), margin=0.05, recipe=RECIPE)
        mask.fit(loader(), progress=False, **options)
        return mask

    with monkeypatch.context() as patch:
        close_for_sure(patch, at=300)
        whole = fit()
    options = {"checkpoint": tmp_path / "training.safetensors", "checkpoint_every": 300}
    with monkeypatch.context() as patch:
        close_for_sure(patch, at=300, kill_at=305)
        with pytest.raises(Killed):
            fit(**options)
    close_for_sure(monkeypatch, at=300)
    resumed = fit(**options)
    batch = texts(64, seed=1)
    difference = whole.attribute(batch) - resumed.attribute(batch)
    assert difference.abs().max() < 1e-6
