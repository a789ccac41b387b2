"""The Captum classes; the only place that knows both Captum and the engine."""

from .attention import (
    AttentionAttribution,
    AttentionGradCAM,
    AttentionRollout,
    AttentionXGradient,
    CheferLRP,
    GenericAttention,
    LRPRollout,
    PartialLRP,
    RawAttention,
)
from .attention_maps import AttentionLayer
from .captum_lrp import CaptumLRP, LayerCaptumLRP
from .layer_transformer_lrp import LayerAttnLRP, LayerCPLRP, LayerTransformerLRP
from .transformer_lrp import (
    CPLRP,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
)

#: method names, as the command line takes them
METHODS: dict[str, type[TransformerLRP] | type[AttentionAttribution]] = {
    "attnlrp": AttnLRP,
    "cp-lrp": CPLRP,
    "epsilon": EpsilonLRP,
    "gradient-x-input": GradientXInput,
    "chefer": CheferLRP,
    "generic-attention": GenericAttention,
    "lrp-rollout": LRPRollout,
    "partial-lrp": PartialLRP,
    "attention-rollout": AttentionRollout,
    "raw-attention": RawAttention,
    "attention-x-gradient": AttentionXGradient,
    "attention-grad-cam": AttentionGradCAM,
}

__all__ = [
    "CPLRP",
    "METHODS",
    "AttentionAttribution",
    "AttentionGradCAM",
    "AttentionLayer",
    "AttentionRollout",
    "AttentionXGradient",
    "AttnLRP",
    "CaptumLRP",
    "CheferLRP",
    "EpsilonLRP",
    "GenericAttention",
    "GradientXInput",
    "LRPRollout",
    "LayerAttnLRP",
    "LayerCPLRP",
    "LayerCaptumLRP",
    "LayerTransformerLRP",
    "PartialLRP",
    "RawAttention",
    "TransformerLRP",
]
