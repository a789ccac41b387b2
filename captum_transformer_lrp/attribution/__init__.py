"""The Captum classes; the only place that knows both Captum and the engine."""

from .layer_transformer_lrp import LayerAttnLRP, LayerCPLRP, LayerTransformerLRP
from .transformer_lrp import (
    CPLRP,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
)

#: method names, as the command line takes them
METHODS: dict[str, type[TransformerLRP]] = {
    "attnlrp": AttnLRP,
    "cp-lrp": CPLRP,
    "epsilon": EpsilonLRP,
    "gradient-x-input": GradientXInput,
}

__all__ = [
    "CPLRP",
    "METHODS",
    "AttnLRP",
    "EpsilonLRP",
    "GradientXInput",
    "LayerAttnLRP",
    "LayerCPLRP",
    "LayerTransformerLRP",
    "TransformerLRP",
]
