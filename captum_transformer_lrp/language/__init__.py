"""Language models: every generated token explained, from one forward pass."""

from .llm_transformer_lrp import LLMTransformerLRP
from .result import LLMRelevance

__all__ = ["LLMRelevance", "LLMTransformerLRP"]
