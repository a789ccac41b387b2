"""What is measured of the model and the data before masks are trained."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .batches import Batches, seeded
from .divergence import Divergence, Outputs, divergence_for, outputs_of
from .masked import MaskedModel
from .masking import Masking

#: examples that are looked at
EXAMPLES = 512
#: examples that each state is sampled on, for every shift that is tried
SAMPLED = 256
#: the margin as a part of what masking everything costs
MARGIN = 0.03


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and standard deviation of the features of each state, over real tokens."""

    mean: list[Tensor]
    scale: list[Tensor]
    divergence: Divergence


def measure(
    model: MaskedModel, loader: Iterable[Any], seed: int, divergence: Any
) -> Moments:
    """Run the model on some examples, and measure its states and outputs.

    Args:
        model (MaskedModel): frozen by the caller.
        loader (iterable): of batches.
        seed (int): of their order.
        divergence (Any): as users write it.

    Raises:
        InputError: if a state has another width or number of tokens than it may have.
    """
    sums: list[list[Tensor]] = []
    outputs: list[Outputs] = []
    chosen = None
    seen = 0
    for given in one_epoch(loader, seed):
        original = model.original(model.prepare(given), None)
        if chosen is None:
            chosen = divergence_for(divergence, original.output)
        outputs.append({k: v.cpu() for k, v in outputs_of(original.output).items()})
        for i, state in enumerate(original.states):
            if state.shape[1] != original.tokens.shape[1]:
                raise InputError(
                    f"{model.places[i]} has {state.shape[1]} tokens, and "
                    f"{model.places[0]} has {original.tokens.shape[1]}. Masks need "
                    "states with the same tokens: name them, layers=[...]."
                )
            rows = state[original.tokens].double()
            new = [rows.sum(0), rows.pow(2).sum(0), torch.tensor(float(len(rows)))]
            if i == len(sums):
                sums.append(new)
            else:
                for old, more in zip(sums[i], new, strict=True):
                    old += more
        seen += original.batch.examples
        if seen >= EXAMPLES:
            break
    assert chosen is not None
    mean = [total / count for total, _, count in sums]
    scale = []
    for m, (_, squares, count) in zip(mean, sums, strict=True):
        variance = (squares / count - m.pow(2)).clamp(min=0)
        floor = 1e-3 * variance.mean().sqrt() + 1e-6
        scale.append(variance.sqrt().clamp(min=float(floor)))
    return Moments(mean, scale, chosen.calibrate(outputs))


def everything_masked(
    masking: Masking, loader: Iterable[Any], seed: int
) -> list[float]:
    """Return the divergence of each state with all its tokens replaced, in nats."""
    model = masking.model
    states = len(masking.gates.widths)
    found: list[list[float]] = [[] for _ in range(states)]
    seen = 0
    for given in one_epoch(loader, seed):
        with torch.no_grad():
            original = model.original(model.prepare(given), masking.divergence)
            examples = original.batch.examples
            layers = (torch.arange(examples) + seen) % states
            layers = layers.to(original.tokens.device)
            z = torch.zeros(original.tokens.shape, device=original.tokens.device)
            values = masking.effect(original, layers, z).divergence
        for layer, value in zip(layers.tolist(), values.tolist(), strict=True):
            found[layer].append(value)
        seen += examples
        if seen >= EXAMPLES and all(found):
            break
    overall = statistics.fmean(v for values in found for v in values)
    return [statistics.fmean(values) if values else overall for values in found]


def open_until_within(
    masking: Masking, loader: Iterable[Any], seed: int, limit: float
) -> None:
    """Raise the logits of each state until its divergence is within a limit, or by 8.

    Training ends in one sample of a noisy balance; this moves every state that is
    beyond the limit, by one constant, to the other side.

    Args:
        masking (Masking): the biases of its gates are raised, by the least of 0.25,
            0.5, 1, 2, 4, 8 that suffices.
        loader (iterable): of batches, of which some are looked at.
        seed (int): of their order, and of one gate sample for each example.
        limit (float): of the mean divergence, in nats.
    """
    biases = masking.gates.biases
    begun = [float(bias.detach()) for bias in biases]
    beyond = list(range(len(begun)))
    for shift in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0):
        with torch.no_grad():
            for i in beyond:
                biases[i].fill_(begun[i] + shift)
        means = _sampled(masking, loader, seed, beyond)
        beyond = [i for i in beyond if not means[i] <= limit]
        if not beyond:
            return


def _sampled(
    masking: Masking, loader: Iterable[Any], seed: int, states: list[int]
) -> dict[int, float]:
    """Return the mean divergence of some states under sampled gates."""
    model, gates = masking.model, masking.gates
    found: dict[int, list[float]] = {i: [] for i in states}
    seen = 0
    for given in one_epoch(loader, seed):
        with torch.no_grad():
            original = model.original(model.prepare(given), masking.divergence)
            examples, tokens = original.tokens.shape
            noise = torch.stack(
                [
                    torch.rand(tokens, generator=seeded(seed, 3, seen + k))
                    for k in range(examples)
                ]
            ).to(original.tokens.device)
            for i in states:
                first = 0 if gates.mode == "input" else i
                z = torch.ones_like(noise)
                for j in range(first, i + 1):
                    logits = gates.logits(j, original.states[j], original.states[0])
                    # the same noise for all states of an example, but not the same draw
                    z = z * gates.gate(logits).sample((noise + j * 0.618034) % 1)
                found[i] += masking.effect(original, i, z).divergence.tolist()
        seen += examples
        if seen >= SAMPLED:
            break
    return {i: statistics.fmean(values) for i, values in found.items()}


def default_margin(everything: list[float]) -> float:
    """Return a part of what masking everything costs, the median over the states."""
    return MARGIN * statistics.median(everything)


def check_margin(margin: float, everything: list[float], states: list[str]) -> None:
    """Refuse a margin that the empty mask keeps, or warn where some states keep it.

    Raises:
        InputError: if masking everything is within the margin at every state.
    """
    empty = [s for s, value in zip(states, everything, strict=True) if value <= margin]
    if len(empty) == len(states):
        raise InputError(
            f"with all tokens replaced, predictions diverge by "
            f"{max(everything):.3g} nats at most, which is within margin={margin:.3g}: "
            "the empty mask would do, and attributions would say nothing. Choose a "
            "smaller margin, another baseline, or a model that depends on its inputs."
        )
    if empty:
        warnings.warn(
            f"with all tokens replaced, predictions stay within margin={margin:.3g} "
            f"nats at {', '.join(empty)}: masks will be empty there.",
            UserWarning,
            stacklevel=3,
        )


def one_epoch(loader: Iterable[Any], seed: int) -> Iterator[Any]:
    """Yield the batches of one epoch, and leave random generators as they were."""
    batches = Batches(loader, seed)
    for batch in batches:
        if batches.epoch:
            return
        yield batch
