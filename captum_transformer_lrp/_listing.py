"""The methods as they are listed: what can be said of them without torch.

The command ``methods`` and the answer to a mistyped name come from here, so that nobody
waits for torch to read a table. Each line repeats what a method says of itself, and
``tests/test_listing.py`` holds it to that: name by name, in this order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import UnknownNameError, suggestion


@dataclass(frozen=True)
class Listed:
    """A line of the list.

    Args:
        summary (str): what the method is.
        scores (str, optional): the ``measure`` of its description, and so on.
            Default: ``"relevance"``
        of_each (str, optional): its ``grain``. Default: ``"element"``
        sums_to (str, optional): its ``conserves``. Default: ``"no"``
        cost (float, optional): its ``cost``. Default: None
        needs (tuple of str, optional): its ``needs``. Default: ()
    """

    summary: str
    scores: str = "relevance"
    of_each: str = "element"
    sums_to: str = "no"
    cost: float | None = None
    needs: tuple[str, ...] = ()


#: the methods of the package, in the order in which it registers them
LISTED: dict[str, Listed] = {
    "attnlrp": Listed(
        "AttnLRP: softmax by Taylor expansion, products shared evenly (Achtibat 2024).",
        sums_to="partly",
        cost=1,
    ),
    "cp-lrp": Listed(
        "CP-LRP: attention patterns, gates and norms are constants (Ali 2022).",
        sums_to="score",
        cost=1,
    ),
    "epsilon": Listed(
        "LRP-epsilon: AttnLRP's table with a stabiliser in everything linear "
        "(Bach 2015).",
        sums_to="partly",
        cost=1.3,
    ),
    "erasure-lrp": Listed(
        "LRP in three contexts: everything, without the strongest parts, and "
        "these alone.",
        cost=8,
        needs=("tokenizer", "patch_size"),
    ),
    "owen-lrp": Listed(
        "LRP in several contexts: the input, and complementary halves of it.",
        cost=3,
        needs=("tokenizer", "patch_size"),
    ),
    "gradient-x-input": Listed(
        "Gradient x Input: the empty table, equal to Captum's InputXGradient.", cost=1
    ),
    "chefer": Listed(
        "Transformer attribution: gradient times relevance of every attention map.",
        scores="attention",
        of_each="part",
        cost=2.5,
        needs=("attention",),
    ),
    "generic-attention": Listed(
        "Generic attention explainability: gradient times attention.",
        scores="attention",
        of_each="part",
        cost=1,
        needs=("attention",),
    ),
    "lrp-rollout": Listed(
        "Rollout of relevance without the gradient: an ablation of Chefer et al. 2021.",
        scores="attention",
        of_each="part",
        cost=2.5,
        needs=("attention",),
    ),
    "partial-lrp": Listed(
        "LRP relevance of one layer's attention map: mean_h (R^A)+.",
        scores="attention",
        of_each="part",
        cost=2.5,
        needs=("attention",),
    ),
    "attention-rollout": Listed(
        "Attention rollout: the same for every target.",
        scores="attention",
        of_each="part",
        cost=1,
        needs=("attention",),
    ),
    "raw-attention": Listed(
        "The attention of one layer, averaged over heads.",
        scores="attention",
        of_each="part",
        cost=1,
        needs=("attention",),
    ),
    "attention-x-gradient": Listed(
        "Attention times gradient of one layer: mean_h (grad A * A)+.",
        scores="attention",
        of_each="part",
        cost=1,
        needs=("attention",),
    ),
    "attention-relevance": Listed(
        "How much relevance of either sign one layer's attention carries.",
        scores="attention",
        of_each="part",
        cost=1,
        needs=("attention",),
    ),
    "attention-grad-cam": Listed(
        "Grad-CAM on the attention of one layer, as Chefer et al. 2021 compare with.",
        scores="attention",
        of_each="part",
        cost=1,
        needs=("attention",),
    ),
    "saliency": Listed(
        "Saliency: the size of the gradient (Simonyan et al. 2013).",
        scores="magnitude",
        cost=1,
    ),
    "integrated-gradients": Listed(
        "Integrated Gradients (Sundararajan et al. 2017) on the embeddings.",
        sums_to="difference",
        cost=50,
        needs=("tokenizer", "baseline"),
    ),
    "deeplift": Listed(
        "DeepLift, rescale rule (Shrikumar et al. 2017), as far as Captum's goes.",
        sums_to="difference",
        cost=2,
        needs=("tokenizer", "baseline"),
    ),
    "gradient-shap": Listed(
        "GradientSHAP: expected gradients between baseline and noisy input.",
        sums_to="difference",
        cost=20,
        needs=("tokenizer", "baseline"),
    ),
    "occlusion": Listed(
        "Leave one out: how much the score falls when the baseline replaces one part.",
        of_each="part",
        needs=("tokenizer", "baseline", "patch_size"),
    ),
    "kernel-shap": Listed(
        "KernelSHAP: Shapley values by a regression over sets of parts.",
        of_each="part",
        sums_to="difference",
        cost=85,
        needs=("tokenizer", "baseline", "patch_size"),
    ),
    "lime": Listed(
        "LIME: the slopes of a linear fit around the input, over sets of parts.",
        of_each="part",
        cost=85,
        needs=("tokenizer", "baseline", "patch_size"),
    ),
    "shapley-sampling": Listed(
        "Shapley values by random orders: what a part adds to those before it.",
        of_each="part",
        sums_to="difference",
        needs=("tokenizer", "baseline", "patch_size"),
    ),
    "smoothgrad": Listed(
        "SmoothGrad times input: the input times the mean gradient around it.", cost=20
    ),
    "gamma": Listed(
        "AttnLRP, gamma  (Achtibat et al., ICML 2024, arXiv 2402.05602, Sec. 4.1)",
        sums_to="partly",
    ),
    "alpha-beta": Listed(
        "LRP-alpha-beta  (Bach et al., PLOS ONE 2015, Eq. 60; attention as in AttnLRP)",
        sums_to="partly",
    ),
    "epsilon-plus": Listed(
        "EpsilonPlus  (Kohlbrenner et al. 2020, arXiv 1910.09840, Sec. 3)",
        sums_to="partly",
    ),
    "epsilon-plus-flat": Listed(
        "EpsilonPlusFlat  (Kohlbrenner et al. 2020, arXiv 1910.09840; "
        "Lapuschkin et al. 2019)",
        sums_to="partly",
    ),
    "epsilon-alpha2-beta1": Listed(
        "EpsilonAlpha2Beta1  (Kohlbrenner et al. 2020, arXiv 1910.09840)",
        sums_to="partly",
    ),
    "epsilon-alpha2-beta1-flat": Listed(
        "EpsilonAlpha2Beta1Flat  (Kohlbrenner et al. 2020, arXiv 1910.09840; "
        "Lapuschkin et al. 2019)",
        sums_to="partly",
    ),
    "epsilon-gamma-box": Listed(
        "EpsilonGammaBox  (Montavon et al. 2019, Sec. 10.3; Anders et al. "
        "2021, arXiv 2106.13200)",
        sums_to="partly",
    ),
    "captum": Listed("Captum's LRP  (captum.attr.LRP)", sums_to="partly"),
}


def listed() -> Mapping[str, Listed]:
    """Return the list, with what this process has registered where it could do so."""
    attribution = sys.modules.get(f"{__package__}.attribution")
    return LISTED if attribution is None else attribution.methods.listed()


def rows_of(lines: Mapping[str, Listed]) -> list[tuple[str, ...]]:
    """Return the list as rows of text, the names of the columns first."""
    head = ("name", "scores", "of each", "sum", "cost", "needs", "what it is")
    rows: list[tuple[str, ...]] = [head]
    for name, line in lines.items():
        cost = "-" if line.cost is None else f"{line.cost:g}"
        needs = ", ".join(line.needs) or "-"
        of = (line.scores, line.of_each, line.sums_to, cost, needs, line.summary)
        rows.append((name, *of))
    return rows


def table(lines: Mapping[str, Listed]) -> str:
    """Return the list as text."""
    rows = rows_of(lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def no_method(name: object, names: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that no method has."""
    return UnknownNameError(
        f"there is no method {name!r}.{suggestion(str(name), names)} All of them: "
        "print(captum_transformer_lrp.methods), or the command 'methods'."
    )


def check_method_names(names: Iterable[str]) -> None:
    """Raise for a name that no method has; their case does not matter.

    Raises:
        UnknownNameError: There is none of that name.
    """
    known = listed()
    for name in names:
        if name.lower() not in known:
            raise no_method(name, known)
