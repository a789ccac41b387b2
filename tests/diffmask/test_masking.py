"""What masks do to predictions: nothing when all stays, and state by state."""

from __future__ import annotations

import torch

from captum_transformer_lrp import DiffMask
from captum_transformer_lrp.diffmask.divergence import divergence_for, outputs_of
from captum_transformer_lrp.diffmask.masked import Original
from captum_transformer_lrp.diffmask.masking import Masking
from tests.diffmask.test_training import Detector, texts


def masking() -> tuple[Masking, Original]:
    inputs, model = texts(rows=6), Detector().eval()
    model.blocks[0].append(torch.nn.Tanh())  # so that states are not alike
    mask = DiffMask(model, margin=0.05)
    mask._find_states(inputs)
    masked = mask._model()
    original = masked.original(masked.prepare(inputs), None)
    divergence = divergence_for(mask.divergence, original.output)
    divergence = divergence.calibrate([outputs_of(original.output)])
    gates = mask._untrained(original, 0, masked)
    return Masking(masked, gates, divergence), original


def test_masks_that_keep_all_change_nothing() -> None:
    under, original = masking()
    with torch.no_grad():
        kept = under.effect(original, 0, torch.ones(original.tokens.shape))
        dropped = under.effect(original, 0, torch.zeros(original.tokens.shape))
    assert float(kept.divergence.abs().max()) < 1e-6
    assert kept.agreement.tolist() == [1.0] * 6
    assert bool((dropped.divergence > 1e-4).all())


def test_each_example_may_be_masked_at_a_state_of_its_own() -> None:
    under, original = masking()
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(original.tokens.shape, generator=generator)
    states = len(under.gates.widths)
    layers = torch.arange(6) % states
    with torch.no_grad():
        mixed = under.effect(original, layers, z).divergence
        alone = [under.effect(original, i, z).divergence for i in range(states)]
    expected = torch.stack([alone[int(i)][n] for n, i in enumerate(layers)])
    assert torch.allclose(mixed, expected, atol=1e-6)
    assert not torch.allclose(alone[0], alone[1], atol=1e-4)
