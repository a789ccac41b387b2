"""Tables of Chefer et al. that are compared with their code and have no class here."""

from __future__ import annotations

from captum_transformer_lrp import Composite
from captum_transformer_lrp.carried.composites import TRANSFORMER_ATTRIBUTION
from captum_transformer_lrp.carried.positive import PositiveProduct
from captum_transformer_lrp.carried.residual import ProportionalSum
from captum_transformer_lrp.classic.input_layer import ZBox

FULL_LRP = Composite(
    "Full LRP",
    {**TRANSFORMER_ATTRIBUTION.rows, "conv2d": ZBox()},
    source="Chefer, Gur, Wolf, CVPR 2021: z-box at the pixels",
    carries="relevance",
)

LRP_BASELINE = Composite(
    "LRP baseline",
    {
        **TRANSFORMER_ATTRIBUTION.rows,
        "product": PositiveProduct(joint=False),
        **dict.fromkeys(
            ("add", "sub", "subtract", "rsub"), ProportionalSum(rescale=False)
        ),
        "conv2d": ZBox(otherwise=PositiveProduct(joint=False)),
    },
    source='the "LRP" baselines of Chefer, Gur, Wolf, CVPR 2021',
    carries="relevance",
)
