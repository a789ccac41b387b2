"""The private names of Captum that this package uses, all of them in one place."""

from captum._utils.common import (
    _format_additional_forward_args as format_additional_forward_args,
)
from captum._utils.common import _select_targets as select_targets
from captum.attr import LayerGradientXActivation
from captum.attr._core.lrp import (
    SUPPORTED_LAYERS_WITH_RULES,
    SUPPORTED_NON_LINEAR_LAYERS,
)
from captum.attr._utils.attribution import (
    GradientAttribution,
    LayerAttribution,
    NeuronAttribution,
    PerturbationAttribution,
)
from captum.attr._utils.lrp_rules import PropagationRule
from captum.influence._core.similarity_influence import (
    cosine_similarity,
    euclidean_distance,
)
from captum.log import log_usage

__all__ = [
    "SUPPORTED_LAYERS_WITH_RULES",
    "SUPPORTED_NON_LINEAR_LAYERS",
    "GradientAttribution",
    "LayerAttribution",
    "LayerGradientXActivation",
    "NeuronAttribution",
    "PerturbationAttribution",
    "PropagationRule",
    "cosine_similarity",
    "euclidean_distance",
    "format_additional_forward_args",
    "log_usage",
    "select_targets",
]
