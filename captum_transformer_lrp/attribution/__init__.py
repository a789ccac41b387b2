"""The Captum classes; the only place that knows both Captum and the engine."""

from ..composites import COMPOSITES
from ..description import Description, describe
from . import units
from .attention import (
    AttentionAttribution,
    AttentionGradCAM,
    AttentionRelevance,
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
from .captum_rules import CaptumRule, from_captum
from .contexts import ContextLRP
from .erasure_lrp import ErasureLRP
from .gradient_methods import (
    InputAttribution,
    InputDeepLift,
    InputGradientShap,
    InputIntegratedGradients,
    InputSaliency,
    InputSmoothGrad,
)
from .insights import register_insights
from .layer_transformer_lrp import LayerAttnLRP, LayerCPLRP, LayerTransformerLRP
from .named import NamedMethod, NamedMethods
from .neuron_transformer_lrp import NeuronAttnLRP, NeuronCPLRP, NeuronTransformerLRP
from .owen_lrp import OwenLRP
from .pair_lrp import PairLRP
from .pair_relevance import Pair, PairRelevance, PairSide
from .parts_left_out import (
    InputKernelShap,
    InputLime,
    InputOcclusion,
    InputShapleySampling,
)
from .positional_lrp import PositionalLRP, PositionalRelevance, PositionRelevance
from .transformer_lrp import CPLRP, AttnLRP, EpsilonLRP, GradientXInput, TransformerLRP

#: the methods of this package
METHODS: dict[str, type[TransformerLRP] | type[AttentionAttribution]] = {
    "attnlrp": AttnLRP,
    "cp-lrp": CPLRP,
    "epsilon": EpsilonLRP,
    "erasure-lrp": ErasureLRP,
    "owen-lrp": OwenLRP,
    "gradient-x-input": GradientXInput,
    "chefer": CheferLRP,
    "generic-attention": GenericAttention,
    "lrp-rollout": LRPRollout,
    "partial-lrp": PartialLRP,
    "attention-rollout": AttentionRollout,
    "raw-attention": RawAttention,
    "attention-x-gradient": AttentionXGradient,
    "attention-relevance": AttentionRelevance,
    "attention-grad-cam": AttentionGradCAM,
}

#: the methods that these are compared with, on embeddings or pixels
BASELINES: dict[str, type[InputAttribution]] = {
    "saliency": InputSaliency,
    "integrated-gradients": InputIntegratedGradients,
    "deeplift": InputDeepLift,
    "gradient-shap": InputGradientShap,
    "occlusion": InputOcclusion,
    "kernel-shap": InputKernelShap,
    "lime": InputLime,
    "shapley-sampling": InputShapleySampling,
    "smoothgrad": InputSmoothGrad,
}

#: every method by its name, as ``explain(method=...)`` and the commands take it
methods = NamedMethods()
for _name, _maker in (METHODS | BASELINES).items():
    methods.register(_name, _maker)
for _name, _table in COMPOSITES.items():
    if _name not in methods:  # a class has more to say than its table
        methods.register(_name, _table)

__all__ = [
    "BASELINES",
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
    "CaptumRule",
    "CheferLRP",
    "ContextLRP",
    "Description",
    "EpsilonLRP",
    "ErasureLRP",
    "GenericAttention",
    "GradientXInput",
    "InputAttribution",
    "InputDeepLift",
    "InputGradientShap",
    "InputIntegratedGradients",
    "InputKernelShap",
    "InputLime",
    "InputOcclusion",
    "InputSaliency",
    "InputShapleySampling",
    "InputSmoothGrad",
    "LRPRollout",
    "LayerAttnLRP",
    "LayerCPLRP",
    "LayerCaptumLRP",
    "LayerTransformerLRP",
    "NamedMethod",
    "NamedMethods",
    "NeuronAttnLRP",
    "NeuronCPLRP",
    "NeuronTransformerLRP",
    "OwenLRP",
    "Pair",
    "PairLRP",
    "PairRelevance",
    "PairSide",
    "PartialLRP",
    "PositionRelevance",
    "PositionalLRP",
    "PositionalRelevance",
    "RawAttention",
    "TransformerLRP",
    "describe",
    "from_captum",
    "methods",
    "register_insights",
    "units",
]
