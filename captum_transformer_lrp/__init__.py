"""Relevance propagation for transformers, as a plugin for Captum.

    >>> from captum_transformer_lrp import AttnLRP
    >>> AttnLRP(model).attribute(tokenizer(text, return_tensors="pt"), target=1)

Importing this package loads torch and captum, and neither transformers nor timm.
"""

from . import errors
from .attribution import (
    CPLRP,
    METHODS,
    AttentionAttribution,
    AttentionGradCAM,
    AttentionLayer,
    AttentionRelevance,
    AttentionRollout,
    AttentionXGradient,
    AttnLRP,
    CaptumLRP,
    CheferLRP,
    EpsilonLRP,
    ErasureLRP,
    GenericAttention,
    GradientXInput,
    LayerAttnLRP,
    LayerCaptumLRP,
    LayerCPLRP,
    LayerTransformerLRP,
    LRPRollout,
    NeuronAttnLRP,
    NeuronCPLRP,
    NeuronTransformerLRP,
    OwenLRP,
    PartialLRP,
    PositionalLRP,
    RawAttention,
    TransformerLRP,
    from_captum,
    methods,
    register_insights,
    units,
)
from .checking import CheckReport, check
from .comparison import Comparison, compare
from .description import Description
from .diffmask import DiffMask
from .explaining import Explainer, explain
from .explanation import Explanation, ImageExplanation, TextExplanation
from .language import LLMRelevance, LLMTransformerLRP
from .propagation import (
    Composite,
    Layers,
    ModuleName,
    Predicate,
    registry,
    rules,
)

__version__ = "0.1.0"

__all__ = [
    "CPLRP",
    "METHODS",
    "AttentionAttribution",
    "AttentionGradCAM",
    "AttentionLayer",
    "AttentionRelevance",
    "AttentionRollout",
    "AttentionXGradient",
    "AttnLRP",
    "CaptumLRP",
    "CheckReport",
    "CheferLRP",
    "Comparison",
    "Composite",
    "Description",
    "DiffMask",
    "EpsilonLRP",
    "ErasureLRP",
    "Explainer",
    "Explanation",
    "GenericAttention",
    "GradientXInput",
    "ImageExplanation",
    "LLMRelevance",
    "LLMTransformerLRP",
    "LRPRollout",
    "LayerAttnLRP",
    "LayerCPLRP",
    "LayerCaptumLRP",
    "LayerTransformerLRP",
    "Layers",
    "ModuleName",
    "NeuronAttnLRP",
    "NeuronCPLRP",
    "NeuronTransformerLRP",
    "OwenLRP",
    "PartialLRP",
    "PositionalLRP",
    "Predicate",
    "RawAttention",
    "TextExplanation",
    "TransformerLRP",
    "check",
    "compare",
    "errors",
    "explain",
    "from_captum",
    "methods",
    "register_insights",
    "registry",
    "rules",
    "units",
]
