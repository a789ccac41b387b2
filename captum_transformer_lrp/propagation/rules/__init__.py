"""The rules: how each kind of operator hands relevance to its inputs."""

from .attention import ConstantPattern, DecomposedAttention, UniformAttention
from .base import CarriedRule, DelegatingRule, ElementwiseRule, Rule
from .carried import Absorb, PassOn
from .contributions import AlphaBeta, Epsilon, Gamma, ZPlus
from .convert import Converted, Past, needs_relevance, relevance_form
from .elementwise import ByExponent, ConstantFactor, Identity, Power
from .input_layer import AtInput, Flat, WSquare, ZBox
from .linear import (
    ConstantDenominator,
    Detach,
    GatedProduct,
    HalfGradient,
    PlainGradient,
    UniformProduct,
)
from .norm import ConstantScale
from .positive import PositiveProduct, PositiveSum
from .quantized import DequantizedLinear
from .reductions import ByReduction
from .residual import ProportionalSum
from .scan import ConstantScan, UniformScan

__all__ = [
    "Absorb",
    "AlphaBeta",
    "AtInput",
    "ByExponent",
    "ByReduction",
    "CarriedRule",
    "ConstantDenominator",
    "ConstantFactor",
    "ConstantPattern",
    "ConstantScale",
    "ConstantScan",
    "Converted",
    "DecomposedAttention",
    "DelegatingRule",
    "DequantizedLinear",
    "Detach",
    "ElementwiseRule",
    "Epsilon",
    "Flat",
    "Gamma",
    "GatedProduct",
    "HalfGradient",
    "Identity",
    "PassOn",
    "Past",
    "PlainGradient",
    "PositiveProduct",
    "PositiveSum",
    "Power",
    "ProportionalSum",
    "Rule",
    "UniformAttention",
    "UniformProduct",
    "UniformScan",
    "WSquare",
    "ZBox",
    "ZPlus",
    "needs_relevance",
    "relevance_form",
]
