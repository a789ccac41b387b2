"""The rules: how each kind of operator hands relevance to its inputs."""

from .attention import ConstantPattern, DecomposedAttention, UniformAttention
from .base import Rule
from .carried import Absorb, PassOn
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
from .positive import PositiveProduct, PositiveSum, ZBox
from .residual import ProportionalSum

__all__ = [
    "Absorb",
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
    "PassOn",
    "PlainGradient",
    "PositiveProduct",
    "PositiveSum",
    "Power",
    "ProportionalSum",
    "Rule",
    "UniformAttention",
    "UniformProduct",
    "ZBox",
]
