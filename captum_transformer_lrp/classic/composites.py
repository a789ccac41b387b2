"""Composites of the classic rules: one rule for convolutions, one for dense layers.

Everything that is neither (attention, normalisation, activations, products of two
relevant factors) is treated as in AttnLRP, batch normalisation behind a linear layer is
merged with it, and average pooling and sums are LRP-epsilon. On plain convolutional and
dense networks the tables equal Zennit's composites of the same names.
"""

from __future__ import annotations

from ..core.composites import ATTN_LRP, Composite
from ..core.rules.base import Rule
from ..core.rules.linear import UniformProduct
from .contributions import AlphaBeta, Epsilon, Gamma, ZPlus
from .input_layer import AtInput, Flat, ZBox

Bound = float | tuple[float, ...] | None

CONVOLUTIONS = (
    *("conv1d", "conv2d", "conv3d", "convolution", "conv_tbc"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
)
MAX_POOLS = (
    *("max_pool1d", "max_pool2d", "max_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
)


def epsilon_lrp(epsilon: float = 1e-6) -> Composite:
    """Return AttnLRP's table with LRP-epsilon for everything linear.

    Args:
        epsilon (float, optional): the stabiliser of linear operators, products and
            residual sums, in units of their outputs. Default: 1e-6
    """
    return Composite(
        "LRP-epsilon",
        {
            **ATTN_LRP.rows,
            "additive": Epsilon(epsilon=epsilon),
            "product": Epsilon(epsilon=epsilon),
        },
        source="Bach et al., PLOS ONE 2015, Eq. 58; products as in AttnLRP",
    )


def _composite(
    name: str, epsilon: float, *, dense: Rule, convolution: Rule, source: str
) -> Composite:
    return Composite(
        name,
        {
            **ATTN_LRP.rows,
            "additive": Epsilon(epsilon=epsilon),
            "product": dense,
            **dict.fromkeys(CONVOLUTIONS, convolution),
        },
        source=source,
    )


def epsilon_plus(epsilon: float = 1e-6) -> Composite:
    """Return z+ for convolutions and LRP-epsilon for dense layers.

    Args:
        epsilon (float, optional): the stabiliser, in units of the output.
            Default: 1e-6
    """
    return _composite(
        "EpsilonPlus",
        epsilon,
        dense=Epsilon(epsilon=epsilon),
        convolution=ZPlus(epsilon=epsilon),
        source="Kohlbrenner et al. 2020, arXiv 1910.09840, Sec. 3",
    )


def epsilon_plus_flat(epsilon: float = 1e-6) -> Composite:
    """Return :func:`epsilon_plus` with the flat rule at the input.

    Args:
        epsilon (float, optional): the stabiliser. Default: 1e-6
    """
    flat = Flat(epsilon=epsilon)
    return _composite(
        "EpsilonPlusFlat",
        epsilon,
        dense=AtInput(rule=flat, otherwise=Epsilon(epsilon=epsilon)),
        convolution=AtInput(rule=flat, otherwise=ZPlus(epsilon=epsilon)),
        source="Kohlbrenner et al. 2020, arXiv 1910.09840; Lapuschkin et al. 2019",
    )


def epsilon_alpha2_beta1(epsilon: float = 1e-6) -> Composite:
    """Return alpha 2, beta 1 for convolutions and LRP-epsilon for dense layers.

    Args:
        epsilon (float, optional): the stabiliser. Default: 1e-6
    """
    return _composite(
        "EpsilonAlpha2Beta1",
        epsilon,
        dense=Epsilon(epsilon=epsilon),
        convolution=AlphaBeta(alpha=2.0, beta=1.0, epsilon=epsilon),
        source="Kohlbrenner et al. 2020, arXiv 1910.09840",
    )


def epsilon_alpha2_beta1_flat(epsilon: float = 1e-6) -> Composite:
    """Return :func:`epsilon_alpha2_beta1` with the flat rule at the input.

    Args:
        epsilon (float, optional): the stabiliser. Default: 1e-6
    """
    flat = Flat(epsilon=epsilon)
    behind = AlphaBeta(alpha=2.0, beta=1.0, epsilon=epsilon)
    return _composite(
        "EpsilonAlpha2Beta1Flat",
        epsilon,
        dense=AtInput(rule=flat, otherwise=Epsilon(epsilon=epsilon)),
        convolution=AtInput(rule=flat, otherwise=behind),
        source="Kohlbrenner et al. 2020, arXiv 1910.09840; Lapuschkin et al. 2019",
    )


def epsilon_gamma_box(
    low: Bound = None, high: Bound = None, *, gamma: float = 0.25, epsilon: float = 1e-6
) -> Composite:
    """Return z-box at the pixels, gamma for convolutions, epsilon for dense layers.

    Args:
        low (float or tuple of float, optional): the lowest value that a pixel may have,
            or one for each channel, as the model receives it (after normalisation).
            None for the lowest value of each explained example, which is a poorer box:
            give the bounds of your data if you know them. Default: None
        high (float or tuple of float, optional): the highest. Default: None
        gamma (float, optional): of convolutions behind the first. Default: 0.25
        epsilon (float, optional): the stabiliser. Default: 1e-6
    """
    box = ZBox(low=low, high=high, epsilon=epsilon, otherwise=None)
    behind = Gamma(gamma=gamma, epsilon=epsilon)
    return _composite(
        "EpsilonGammaBox",
        epsilon,
        dense=Epsilon(epsilon=epsilon),
        convolution=AtInput(rule=box, otherwise=behind),
        source="Montavon et al. 2019, Sec. 10.3; Anders et al. 2021, arXiv 2106.13200",
    )


def gamma_lrp(
    gamma: float = 0.05, *, convolution: float = 0.25, epsilon: float = 1e-6
) -> Composite:
    """Return AttnLRP with gamma in what is linear: for vision transformers.

    Vision transformers explained by AttnLRP alone are noisy; gamma in linear layers and
    in the convolution that embeds the patches makes them less so (AttnLRP, arXiv
    2402.05602, Sec. 4.1 and App. B). On the two small ones that
    ``benchmarks/faithfulness_image.py`` measures, maps cover more of the object, and
    rank patches worse.

    Args:
        gamma (float, optional): of dense layers. Default: 0.05
        convolution (float, optional): that of convolutions. Default: 0.25
        epsilon (float, optional): the stabiliser. Default: 1e-6
    """
    conv = Gamma(gamma=convolution, epsilon=epsilon)
    return Composite(
        "AttnLRP, gamma",
        {
            **ATTN_LRP.rows,
            "product": Gamma(gamma=gamma, epsilon=epsilon),
            **dict.fromkeys(CONVOLUTIONS, conv),
        },
        source="Achtibat et al., ICML 2024, arXiv 2402.05602, Sec. 4.1",
    )


def alpha_beta_lrp(
    alpha: float = 2.0, beta: float = 1.0, *, epsilon: float = 1e-6
) -> Composite:
    """Return AttnLRP with alpha-beta in everything linear.

    Args:
        alpha (float, optional): the weight of positive contributions. Default: 2.0
        beta (float, optional): that of negative ones. Default: 1.0
        epsilon (float, optional): the stabiliser. Default: 1e-6
    """
    rule = AlphaBeta(alpha=alpha, beta=beta, epsilon=epsilon)
    return Composite(
        "LRP-alpha-beta",
        {**ATTN_LRP.rows, "product": rule},
        source="Bach et al., PLOS ONE 2015, Eq. 60; attention as in AttnLRP",
    )


def captum_lrp(epsilon: float = 1e-9) -> Composite:
    """Return what Captum's LRP does where no module has a rule of its own.

    LRP-epsilon in linear layers, pooling, batch normalisation and sums; activations and
    dropout pass relevance on. What Captum refuses or gets wrong (sums written with
    ``+``, functions, attention, ...) is treated as in AttnLRP.

    Args:
        epsilon (float, optional): the stabiliser. Default: 1e-9
    """
    rule = Epsilon(epsilon=epsilon)
    return Composite(
        "Captum's LRP",
        {
            **ATTN_LRP.rows,
            "additive": rule,
            "product": rule,
            **dict.fromkeys(("mul", "multiply"), UniformProduct()),
            "batch_norm": rule,  # a layer of its own, not merged with another
            **dict.fromkeys(MAX_POOLS, rule),
        },
        source="captum.attr.LRP",
    )
