"""The rules: how each kind of operator hands relevance to its inputs."""

from .carried.convert import Converted, Past, relevance_form
from .carried.past import Absorb, PassOn
from .carried.positive import PositiveProduct, PositiveSum
from .carried.residual import ProportionalSum
from .classic.contributions import AlphaBeta, Epsilon, Gamma, ZPlus
from .classic.input_layer import AtInput, Flat, WSquare, ZBox
from .core.rules.attention import (
    ConstantPattern,
    ConstantScan,
    UniformAttention,
    UniformScan,
)
from .core.rules.base import (
    CarriedRule,
    DelegatingRule,
    ElementwiseRule,
    Rule,
    needs_relevance,
)
from .core.rules.elementwise import ConstantFactor, Identity, Power
from .core.rules.linear import (
    ConstantDenominator,
    Detach,
    GatedProduct,
    HalfGradient,
    PlainGradient,
    UniformProduct,
)
from .core.rules.norm import ConstantScale
from .known.attention import DecomposedAttention
from .known.by_argument import ByExponent, ByReduction
from .known.quantized import DequantizedLinear

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
