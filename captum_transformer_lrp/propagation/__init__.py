"""The engine, its rules and its registry; knows torch, not Captum."""

from . import rules
from .call import Call
from .classic import (
    alpha_beta_lrp,
    captum_lrp,
    epsilon_alpha2_beta1,
    epsilon_alpha2_beta1_flat,
    epsilon_gamma_box,
    epsilon_plus,
    epsilon_plus_flat,
    gamma_lrp,
)
from .composites import ATTN_LRP, CP_LRP, GRADIENT_X_INPUT, Composite, epsilon_lrp
from .engine import Engine
from .named import COMPOSITES, composite_named
from .operators import KINDS
from .registry import Layers, ModuleName, Predicate, Registry, registry
from .rules import Rule

__all__ = [
    "ATTN_LRP",
    "COMPOSITES",
    "CP_LRP",
    "GRADIENT_X_INPUT",
    "KINDS",
    "Call",
    "Composite",
    "Engine",
    "Layers",
    "ModuleName",
    "Predicate",
    "Registry",
    "Rule",
    "alpha_beta_lrp",
    "captum_lrp",
    "composite_named",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "epsilon_lrp",
    "epsilon_plus",
    "epsilon_plus_flat",
    "gamma_lrp",
    "registry",
    "rules",
]
