"""Which training examples led to a prediction: ``captum.influence`` for transformers.

    >>> from captum_transformer_lrp import influence
    >>> found = influence.empirical_fisher(model, tokenizer, texts, labels)
    >>> print(found.proponents("A warm and funny film.", k=5))
    >>> print(found.self_influence(k=20))  # where to look for wrong labels

``tracin`` follows checkpoints of a training; ``empirical_fisher`` and ``ekfac`` take
the model at its end and compare gradients under an inverse curvature; ``similarity``
knows nothing of the training. ``linear_datamodeling_score`` measures any of them.

The products of gradients and the similarities are Captum's (``TracInCPFast``,
``TracInCP``, ``SimilarityInfluence``), and EK-FAC is kronfluence's. Handed a Hugging
Face classifier, Captum's classes fail on mappings of a tokenizer, on ``ModelOutput``,
on folders of checkpoints, and on decoders that classify by their last token; and they
leave the last checkpoint in the user's model. This package stands between.
"""

from .datamodeling import linear_datamodeling_score, random_halves
from .ekfac import EKFAC, ekfac
from .fisher import EmpiricalFisher, empirical_fisher
from .ranking import (
    GradientInfluence,
    InfluentialExample,
    InfluentialExamples,
    TrainingInfluence,
)
from .similar import SimilarExamples, similarity
from .tracing import TracIn, tracin

__all__ = [
    "EKFAC",
    "EmpiricalFisher",
    "GradientInfluence",
    "InfluentialExample",
    "InfluentialExamples",
    "SimilarExamples",
    "TracIn",
    "TrainingInfluence",
    "ekfac",
    "empirical_fisher",
    "linear_datamodeling_score",
    "random_halves",
    "similarity",
    "tracin",
]
