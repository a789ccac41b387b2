"""Differentiable masking: which tokens a prediction needs, layer by layer."""

from .diffmask import DiffMask
from .divergence import Bernoulli, Categorical, Divergence, Gaussian, NextToken
from .hard_concrete import HardConcrete
from .history import History, Report, StateReport
from .recipes import FAST, PAPER, RECIPES, Recipe

__all__ = [
    "FAST",
    "PAPER",
    "RECIPES",
    "Bernoulli",
    "Categorical",
    "DiffMask",
    "Divergence",
    "Gaussian",
    "HardConcrete",
    "History",
    "NextToken",
    "Recipe",
    "Report",
    "StateReport",
]
