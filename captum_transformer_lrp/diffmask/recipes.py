"""How masks are trained, as tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import UnknownNameError, suggestion


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is chosen about the training of masks.

    Attributes:
        name (str): how it is called.
        steps (int): optimiser steps, where neither steps nor epochs are asked for.
        optimizer (str): ``"adam"``, or ``"lookahead-rmsprop"`` (needs timm).
        gate_rate (float): learning rate of the gate networks.
        baseline_rate (float): of the baselines.
        multiplier_rate (float): of the Lagrange multipliers.
        multiplier_update (str): ``"ascent"``: by the optimiser, along divergence minus
            margin; ``"violation"``: their logarithms move by the rate times the
            violation in units of what is aimed at, between -1 and 2, averaged over the
            last examples.
        multiplier_start (float): their first value.
        multiplier_range (tuple of float): lowest and highest value.
        warmup (int): steps over which learning rates rise from 0.
        clip (float or None): largest norm of the gradient.
        proportional (bool): scale the multiplier down where the divergence is below
            what is aimed at, in proportion, so that it does not overshoot. It is the
            running mean or that of the step, whichever is larger.
        normalize (bool): divide the loss by 1 + multiplier, so that gradients keep
            their size when multipliers are large.
        restoration (float): weight of mean -log P(kept), which opens gates, of states
            whose divergence is three times the margin; 0 at twice the margin.
        restoration_from (float): part of the training after which this happens.
        fall_back (float or None): a state of hidden mode whose divergence exceeds this
            many margins goes back to its last masks within what is aimed at, with twice
            the multiplier, once the sparsity is mean P(kept).
        sparsity (str): ``"log-probability"``: mean log P(kept), as in the authors'
            code; ``"probability"``: mean P(kept), which starts as mean -log P(dropped).
        sparsity_anneal (tuple of float): parts of the training between which the second
            becomes the first.
        states_per_step (str): ``"one"`` random state, as in the paper, or ``"all"``:
            every example of a batch trains another state.
        least_hidden (int): least width of the hidden layer, which else is a quarter of
            the input's.
        gain (float): of the first weights of the hidden layer, over the square root of
            the width, where this is more than 1: states of a few features need units
            that begin as steps, so that what lies between others can be told apart.
        rate_width (float or None): width that ``gate_rate`` is for; wider states learn
            slower, with the square root. None is the same rate for all.
        betas (tuple of float): of Adam.
        bias (float): of the logits, before training.
        bound (tuple of float): the gate network moves logits by at most the first value
            at the start, by the second at the end.
        anneal (tuple of float): parts of the training between which the bound grows.
        standardize (bool): gates see states with mean 0 and variance 1 per feature, and
            baselines move in these units.
        decay (float): part of the training after which learning rates fall to 0.
        aim (float): the part of the margin that training aims at.
        learn_input_baseline (bool): whether the baseline of input mode is learned, if
            nothing else is asked for.
        settle (float or None): after training, the logits of a state whose divergence
            is more than this part of the margin are raised until it is not.
        temperature (float): of the hard concrete distribution.
        stretch (tuple of float): its lower and upper end.
    """

    name: str
    steps: int
    optimizer: Literal["adam", "lookahead-rmsprop"]
    gate_rate: float
    baseline_rate: float
    multiplier_rate: float
    multiplier_update: Literal["ascent", "violation"]
    multiplier_start: float
    multiplier_range: tuple[float, float]
    warmup: int
    clip: float | None
    sparsity: Literal["probability", "log-probability"]
    states_per_step: Literal["one", "all"]
    bias: float
    bound: tuple[float, float]
    anneal: tuple[float, float]
    standardize: bool
    proportional: bool = False
    normalize: bool = False
    restoration: float = 0.0
    restoration_from: float = 0.0
    fall_back: float | None = None
    sparsity_anneal: tuple[float, float] = (0.0, 0.0)
    least_hidden: int = 16
    gain: float = 1.0
    rate_width: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)
    aim: float = 1.0
    settle: float | None = None
    learn_input_baseline: bool = True
    decay: float = 1.0
    temperature: float = 0.2
    stretch: tuple[float, float] = (-0.2, 1.0)

    def bound_at(self, progress: float) -> float:
        """Return the bound of the logits after a part of the training."""
        share = _share(progress, self.anneal)
        return self.bound[0] + share * (self.bound[1] - self.bound[0])

    def rate_at(self, step: int, steps: int) -> float:
        """Return the part of the learning rates that a step, from 0, is made with."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        fall = 1 - _share(step / steps, (self.decay, 1.0)) if self.decay < 1 else 1.0
        return rise * fall

    def gate_rate_for(self, width: int) -> float:
        """Return the learning rate of a gate network for inputs of a width."""
        if self.rate_width is None:
            return self.gate_rate
        return self.gate_rate * math.sqrt(min(1.0, self.rate_width / width))

    def sparsity_at(self, progress: float) -> float:
        """Return how much of the sparsity is P(kept), after a part of the training."""
        return _share(progress, self.sparsity_anneal)


def _share(progress: float, between: tuple[float, float]) -> float:
    """Return 0 before, 1 after, and what is between on a straight line."""
    start, end = between
    if end <= start:
        return 1.0
    return min(max((progress - start) / (end - start), 0.0), 1.0)


#: the paper's, from its text and the authors' code (arXiv 2004.14992, Appendix)
PAPER = Recipe(
    name="paper",
    steps=30_000,
    optimizer="lookahead-rmsprop",
    gate_rate=3e-4,
    baseline_rate=1e-3,
    multiplier_rate=0.3,
    multiplier_update="ascent",
    multiplier_start=1.0,
    multiplier_range=(0.0, 200.0),
    warmup=200,
    clip=None,
    sparsity="log-probability",
    states_per_step="one",
    bias=5.0,
    bound=(10.0, 10.0),
    anneal=(0.0, 0.0),
    standardize=False,
)

#: Faster and stable. What goes wrong otherwise, and what helps:
#: a gate that is open nearly always has no gradient of P(kept) left, so all gates stay
#: open: sparsity starts as -log P(dropped), whose pull does not fade there; a gate that
#: is closed nearly always has no gradient of the divergence: logits are bounded at
#: first, and gates of a state far beyond the margin are opened again; large multipliers
#: drown sparsity in the noise of the divergence: they stay below 30; multipliers that
#: rose while gates were closed push them too far open: they are scaled down below the
#: margin; gradients differ by orders of magnitude between these phases: Adam forgets
#: faster; a state that still loses what it needs goes back to its last masks within
#: the margin; and at the end all comes to rest: learning rates fall.
FAST = Recipe(
    name="fast",
    steps=1200,
    optimizer="adam",
    gate_rate=5e-3,
    baseline_rate=3e-3,
    multiplier_rate=0.01,
    multiplier_update="violation",
    multiplier_start=2.0,
    multiplier_range=(2.0, 30.0),
    warmup=50,
    clip=5.0,
    sparsity="probability",
    states_per_step="all",
    bias=1.0,
    bound=(5.0, 9.0),
    anneal=(0.5, 0.8),
    standardize=True,
    proportional=True,
    normalize=True,
    restoration=1.0,
    restoration_from=0.2,
    fall_back=4.0,
    decay=0.5,
    aim=0.6,
    settle=0.5,
    learn_input_baseline=False,
    sparsity_anneal=(0.2, 0.5),
    least_hidden=64,
    gain=4.0,
    rate_width=40.0,
    betas=(0.9, 0.95),
)

RECIPES = {recipe.name: recipe for recipe in (PAPER, FAST)}


def recipe_for(given: str | Recipe) -> Recipe:
    """Return a recipe by name.

    Raises:
        UnknownNameError: for an unknown name.
    """
    if isinstance(given, Recipe):
        return given
    if given not in RECIPES:
        raise UnknownNameError(
            f"there is no recipe {given!r}.{suggestion(str(given), RECIPES)}"
        )
    return RECIPES[given]
