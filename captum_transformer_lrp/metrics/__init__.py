"""Is an attribution faithful? Metrics for the scores of any method.

Everything takes tensors: the scores of tokens or patches, whoever made them, the model
as any callable, and its inputs. Every result is a frozen record of the values per
example with mean, standard error and paired differences, and says how units were
replaced.

- :mod:`~captum_transformer_lrp.metrics.perturbation`: MoRF and LeRF curves;
- :mod:`~captum_transformer_lrp.metrics.protocols`: what the papers report on them;
- :mod:`~captum_transformer_lrp.metrics.rationales`: agreement with marked tokens;
- :mod:`~captum_transformer_lrp.metrics.localization`: agreement with masks of pixels;
- :mod:`~captum_transformer_lrp.metrics.randomization`: maps of models that forget;
- :mod:`~captum_transformer_lrp.metrics.agreement`: of methods, and of sums with scores;
- :mod:`~captum_transformer_lrp.metrics.quantus`: attributors as Quantus calls them.

Infidelity and sensitivity are Captum's own, ``captum.metrics.infidelity`` and
``captum.metrics.sensitivity_max``: they take the attributors of this package as they
are, on pixels and on embeddings.
"""

from .agreement import conservation_error, rank_agreement
from .localization import Segmentation, pointing_game, relevance_mass, segmentation
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
from .quantus import QuantusTokenWrapper, to_quantus_explain_func
from .randomization import ModelRandomization, model_randomization, randomize_cascade
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
    "ModelRandomization",
    "PerturbationCurves",
    "QuantusTokenWrapper",
    "Replacement",
    "Segmentation",
    "TokenReplacement",
    "ValueReplacement",
    "area_between_curves",
    "au_mse",
    "average_precision",
    "chefer_perturbation",
    "conservation_error",
    "eraser",
    "insertion_auac",
    "leave_one_out",
    "model_randomization",
    "perturbation_curves",
    "pointing_game",
    "pool_patches",
    "randomize_cascade",
    "rank_agreement",
    "rankable",
    "relevance_mass",
    "segmentation",
    "to_quantus_explain_func",
    "token_f1",
]
