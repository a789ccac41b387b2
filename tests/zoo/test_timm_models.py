"""timm's families: the catalogue is whole, and a sample of it is examined.

All of them: ``python -m tests.zoo --only '^timm/'``.
"""

from __future__ import annotations

import pytest
import torch

from captum_transformer_lrp import CPLRP, rules
from tests.zoo import timm_models
from tests.zoo.sweep import examine

timm = pytest.importorskip("timm")

ENTRIES = {entry.name.split()[0]: entry for entry in timm_models.entries()}
#: one of each hard thing, a second or two each: std-conv, talking heads, lambda layers,
#: cross-covariance, LayerScale, gates, registers, attention pooling, LSTM, blur pooling
SAMPLE = (
    "byoanet",
    "cait",
    "coat",
    "convnext",
    "eva",
    "hieradet_sam2",
    "mlp_mixer",
    "nest",
    "resnetv2",
    "swin_transformer_v2",
    "vision_transformer_sam",
    "xcit",
)


def test_every_family_has_one_entry() -> None:
    families = {
        timm.models._registry._model_to_module[name] for name in timm.list_models()
    }
    assert set(ENTRIES) == families
    assert len(list(timm_models.entries())) == len(families)


@pytest.mark.parametrize("family", SAMPLE)
def test_sample(family: str) -> None:
    record = examine(ENTRIES[family])
    assert record.status == "passed", f"{record.cause}\n{record.where}"
    assert record.conservation is not None
    assert record.conservation <= 1e-6


def test_a_rule_that_does_not_conserve_is_noticed() -> None:
    model, pixels, _ = ENTRIES["xcit"].build()
    trace = CPLRP(model).trace(pixels, target=1)
    assert trace.loss < 1e-10
    with torch.no_grad():
        score = float(model(pixels)[:, 1].sum())
    assert trace.score == pytest.approx(score, rel=1e-9)
    taylor = {"softmax": rules.PlainGradient()}  # as in AttnLRP
    assert CPLRP(model, rules=taylor).trace(pixels, target=1).loss > 1e-4
