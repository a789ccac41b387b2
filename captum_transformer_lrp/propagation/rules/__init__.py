"""The rules: how each kind of operator hands relevance to its inputs."""

from .attention import ConstantPattern, DecomposedAttention, UniformAttention
from .base import Rule
from .elementwise import ConstantFactor, Identity, Power
from .linear import (
    ConstantDenominator,
    Detach,
    Epsilon,
    GatedProduct,
    HalfGradient,
    PlainGradient,
    UniformProduct,
)
from .norm import ConstantScale

__all__ = [
    "ConstantDenominator",
    "ConstantFactor",
    "ConstantPattern",
    "ConstantScale",
    "DecomposedAttention",
    "Detach",
    "Epsilon",
    "GatedProduct",
    "HalfGradient",
    "Identity",
    "PlainGradient",
    "Power",
    "Rule",
    "UniformAttention",
    "UniformProduct",
]
