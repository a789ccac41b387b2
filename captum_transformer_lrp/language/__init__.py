"""Language models: every token, span and source explained, from one forward pass."""

from .llm_transformer_lrp import LLMTransformerLRP
from .passages import Passage
from .result import LLMRelevance
from .sources import SourceRelevance

__all__ = ["LLMRelevance", "LLMTransformerLRP", "Passage", "SourceRelevance"]
