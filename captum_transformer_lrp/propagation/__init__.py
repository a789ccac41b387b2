"""The engine, its rules and its registry; knows torch, not Captum."""

from . import rules
from .call import Call
from .composites import (
    ATTN_LRP,
    COMPOSITES,
    CP_LRP,
    GRADIENT_X_INPUT,
    Composite,
    composite_named,
    epsilon_lrp,
)
from .engine import Engine
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
    "composite_named",
    "epsilon_lrp",
    "registry",
    "rules",
]
