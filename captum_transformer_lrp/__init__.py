"""Relevance propagation for transformers, as a plugin for Captum.

    >>> from captum_transformer_lrp import AttnLRP
    >>> AttnLRP(model).attribute(tokenizer(text, return_tensors="pt"), target=1)

Importing this package loads nothing else: a public name is loaded when it is first
asked for (PEP 562), with torch and captum, and neither transformers nor timm.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._version import __version__ as __version__

if TYPE_CHECKING:
    from . import errors, rules, targets
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
        PairLRP,
        PairRelevance,
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
    from .classic.layers import Layers
    from .comparison import Comparison, compare
    from .core import Composite, ModuleName, Predicate
    from .description import Description
    from .diffmask import DiffMask
    from .explaining import Explainer, explain
    from .explanation import Explanation, ImageExplanation, TextExplanation
    from .explanations import Explanations
    from .joint import JointExplanation
    from .keeping import load, save
    from .known import registry
    from .language import LLMRelevance, LLMTransformerLRP, SourceRelevance
    from .sound import SoundExplanation

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
    "Explanations",
    "GenericAttention",
    "GradientXInput",
    "ImageExplanation",
    "JointExplanation",
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
    "PairLRP",
    "PairRelevance",
    "PartialLRP",
    "PositionalLRP",
    "Predicate",
    "RawAttention",
    "SoundExplanation",
    "SourceRelevance",
    "TextExplanation",
    "TransformerLRP",
    "check",
    "compare",
    "errors",
    "explain",
    "from_captum",
    "load",
    "methods",
    "register_insights",
    "registry",
    "rules",
    "save",
    "targets",
    "units",
]

#: module -> the public names that it defines
_HOMES = {
    "attribution": (
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
        "CheferLRP",
        "EpsilonLRP",
        "ErasureLRP",
        "GenericAttention",
        "GradientXInput",
        "LayerAttnLRP",
        "LayerCaptumLRP",
        "LayerCPLRP",
        "LayerTransformerLRP",
        "LRPRollout",
        "NeuronAttnLRP",
        "NeuronCPLRP",
        "NeuronTransformerLRP",
        "OwenLRP",
        "PairLRP",
        "PairRelevance",
        "PartialLRP",
        "PositionalLRP",
        "RawAttention",
        "TransformerLRP",
        "from_captum",
        "methods",
        "register_insights",
        "units",
    ),
    "checking": ("CheckReport", "check"),
    "comparison": ("Comparison", "compare"),
    "classic.layers": ("Layers",),
    "core": ("Composite", "ModuleName", "Predicate"),
    "description": ("Description",),
    "diffmask": ("DiffMask",),
    "explaining": ("Explainer", "explain"),
    "explanation": ("Explanation", "ImageExplanation", "TextExplanation"),
    "explanations": ("Explanations",),
    "joint": ("JointExplanation",),
    "keeping": ("load", "save"),
    "known": ("registry",),
    "language": ("LLMRelevance", "LLMTransformerLRP", "SourceRelevance"),
    "sound": ("SoundExplanation",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name, or a module of the package, when it is first asked for."""
    home = _HOME_OF.get(name)
    if home is not None:
        found = getattr(importlib.import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *__all__})
