"""Masks without training: free logits for each example."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Adam

from .masked import Original
from .masking import Masking

_RATE = 0.1  # of Adam
_MULTIPLIER_RATE = 0.05
_MULTIPLIERS = (0.05, 200.0)
_MEMORY = 0.9  # of the running mean of the divergence
_SAMPLES = 8  # of gates, by which masks are judged
_BOUND = 8.0  # logits stay within, where a gate still has a gradient


@dataclass(frozen=True, eq=False)
class ExampleMasks:
    """Masks of one state, found for each example by itself.

    Attributes:
        kept (Tensor): P(kept), shape ``(batch, tokens)``.
        divergence (Tensor): mean over several samples of these masks, in nats, shape
            ``(batch,)``.
    """

    kept: Tensor
    divergence: Tensor


def search(
    masking: Masking,
    original: Original,
    layer: int,
    margin: Tensor,
    *,
    steps: int,
    seed: int,
) -> ExampleMasks:
    """Find the fewest tokens of a state that keep each prediction within the margin.

    Args:
        masking (Masking): with the gates whose baselines replace tokens.
        original (Original): the pass without masks.
        layer (int): number of the state; in input mode the first is masked.
        margin (Tensor): for each example, in nats, shape ``(batch,)``.
        steps (int): of the search.
        seed (int): of the noise.
    """
    examples, tokens = original.tokens.shape
    device = original.tokens.device
    free = original.free
    logits = torch.full((examples, tokens), 2.0, device=device, requires_grad=True)
    optimizer = Adam([logits], _RATE, betas=(0.9, 0.95))
    multipliers = torch.ones(examples, device=device)
    running = torch.full((examples,), torch.nan, device=device)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        noise = torch.rand(tokens, examples, generator=generator).T.to(device)
        gate = masking.gates.gate(logits)
        z = gate.sample(noise)
        found = masking.effect(original, layer, z).divergence
        log_kept = gate.log_probability_nonzero()
        share = min(step / (0.5 * steps), 1.0)
        dropped = -torch.expm1(log_kept.clamp(max=-1e-6))
        each = share * log_kept.exp() - (1 - share) * dropped.log()
        sparsity = (each * free).sum(1) / free.sum(1).clamp(min=1)
        weights = multipliers * (running / margin).clamp(0, 1).nan_to_num(1.0)
        optimizer.zero_grad()
        (weights * found + sparsity).sum().backward()
        if logits.grad is not None and logits.grad.isfinite().all():
            optimizer.step()
        with torch.no_grad():
            logits.clamp_(-_BOUND, _BOUND)
            value = found.detach().float()
            running = torch.where(
                running.isnan(), value, _MEMORY * running + (1 - _MEMORY) * value
            )
            change = ((running - margin) / margin).clamp(-1, 2) * _MULTIPLIER_RATE
            multipliers = (multipliers * change.exp()).clamp(*_MULTIPLIERS)
    return _within(masking, original, layer, margin, logits.detach(), generator)


def _within(
    masking: Masking,
    original: Original,
    layer: int,
    margin: Tensor,
    found: Tensor,
    generator: torch.Generator,
) -> ExampleMasks:
    """Raise the logits of each example that is beyond its margin until it is not."""
    logits = found.clone()
    examples, tokens = logits.shape
    noise = torch.rand(_SAMPLES, tokens, examples, generator=generator).mT
    noise = noise.to(logits.device)
    mean = torch.full_like(margin, torch.inf)
    for shift in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0):
        beyond = mean > margin
        logits = torch.where(beyond[:, None], found + shift, logits)
        with torch.no_grad():
            rows = []
            for uniform in noise:
                z = masking.gates.gate(logits).sample(uniform)
                effect = masking.effect(original, layer, z)
                rows.append(effect.divergence.float())
        mean = torch.stack(rows).mean(0)
        if not (mean > margin).any():
            break
    kept = masking.gates.gate(logits).probability_nonzero()
    return ExampleMasks(torch.where(original.free, kept, 1), mean)
