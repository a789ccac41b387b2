"""Which training examples led to a prediction: ``captum.influence`` for transformers.

    >>> from captum_transformer_lrp import influence
    >>> tracin = influence.tracin(model, tokenizer, texts, labels, checkpoints=folders)
    >>> print(tracin.proponents("A warm and funny film.", k=5))
    >>> print(tracin.self_influence(k=20))  # where to look for wrong labels

The mathematics is Captum's (``TracInCPFast``, ``TracInCP``, ``SimilarityInfluence``).
Handed a Hugging Face classifier, Captum's classes fail on mappings of a tokenizer, on
``ModelOutput``, on folders of checkpoints, and on decoders that classify by their last
token; and they leave the last checkpoint in the user's model. This package stands
between.
"""

from .ranking import InfluentialExample, InfluentialExamples, TrainingInfluence
from .similar import SimilarExamples, similarity
from .tracing import TracIn, tracin

__all__ = [
    "InfluentialExample",
    "InfluentialExamples",
    "SimilarExamples",
    "TracIn",
    "TrainingInfluence",
    "similarity",
    "tracin",
]
