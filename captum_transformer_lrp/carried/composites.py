"""Methods whose tables carry relevance itself, beside torch's gradient."""

from __future__ import annotations

from ..core.composites import Composite
from ..core.rules.linear import Detach, PlainGradient
from ..known.attention import DecomposedAttention
from ..known.modules import RMS_NORM
from .past import PASSING, Absorb, PassOn
from .positive import PositiveProduct, PositiveSum
from .residual import ProportionalSum

_STOPS = "norm linalg_norm linalg_vector_norm vector_norm std std_mean hypot"

TRANSFORMER_ATTRIBUTION = Composite(
    "Transformer attribution",
    {
        "lookup": PlainGradient(),
        "structural": PlainGradient(),
        "product": PositiveProduct(),
        "additive": PositiveSum(),
        **dict.fromkeys(("add", "sub", "subtract", "rsub"), ProportionalSum()),
        **dict.fromkeys(sorted(PASSING), PassOn()),
        **dict.fromkeys(_STOPS.split(), Absorb()),
        "activation": PassOn(),
        "power": PassOn(),
        "exponential": PassOn(),
        "softmax": PassOn(),
        "attention": DecomposedAttention(),
        "normalization": PassOn(),
        "rescaling": PassOn(),
        "quotient": PassOn(),
        "normalizer": Absorb(),
        "variance": Absorb(),
        "step": Detach(),
        RMS_NORM: PassOn(),
    },
    source="Chefer, Gur, Wolf, CVPR 2021, arXiv 2012.09838",
    carries="relevance",
)
