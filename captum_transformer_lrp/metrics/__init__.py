"""Is an attribution faithful? Metrics for the scores of any method.

Everything takes tensors: the scores of tokens or patches, whoever made them, the model
as any callable, and its inputs. Every result is a frozen record of the values per
example with mean, standard error and paired differences, and says how units were
replaced.

- :mod:`~captum_transformer_lrp.metrics.perturbation`: MoRF and LeRF curves;
- :mod:`~captum_transformer_lrp.metrics.protocols`: what the papers report on them;
- :mod:`~captum_transformer_lrp.metrics.rationales`: agreement with marked tokens.
"""

from .measurement import Difference, Measurement
from .perturbation import PerturbationCurves, perturbation_curves
from .protocols import (
    CheferPerturbation,
    Eraser,
    area_between_curves,
    au_mse,
    chefer_perturbation,
    eraser,
    insertion_auac,
    leave_one_out,
)
from .ranking import pool_patches, rankable
from .rationales import average_precision, token_f1
from .replacement import (
    Drop,
    EmbeddingReplacement,
    Replacement,
    TokenReplacement,
    ValueReplacement,
)

__all__ = [
    "CheferPerturbation",
    "Difference",
    "Drop",
    "EmbeddingReplacement",
    "Eraser",
    "Measurement",
    "PerturbationCurves",
    "Replacement",
    "TokenReplacement",
    "ValueReplacement",
    "area_between_curves",
    "au_mse",
    "average_precision",
    "chefer_perturbation",
    "eraser",
    "insertion_auac",
    "leave_one_out",
    "perturbation_curves",
    "pool_patches",
    "rankable",
    "token_f1",
]
