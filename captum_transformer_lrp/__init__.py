"""Relevance propagation for transformers, as a plugin for Captum.

    >>> from captum_transformer_lrp import AttnLRP
    >>> AttnLRP(model).attribute(tokenizer(text, return_tensors="pt"), target=1)

Importing this package loads torch and captum, and neither transformers nor timm.
"""

from . import errors
from .attribution import (
    CPLRP,
    METHODS,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    LayerAttnLRP,
    LayerCPLRP,
    LayerTransformerLRP,
    TransformerLRP,
)
from .explaining import explain
from .explanation import Explanation, ImageExplanation, TextExplanation
from .propagation import Composite, ModuleName, Predicate, registry, rules

__version__ = "0.1.0"

__all__ = [
    "CPLRP",
    "METHODS",
    "AttnLRP",
    "Composite",
    "EpsilonLRP",
    "Explanation",
    "GradientXInput",
    "ImageExplanation",
    "LayerAttnLRP",
    "LayerCPLRP",
    "LayerTransformerLRP",
    "ModuleName",
    "Predicate",
    "TextExplanation",
    "TransformerLRP",
    "errors",
    "explain",
    "registry",
    "rules",
]
