"""How alike the rankings of two methods are, and how far sums are from the score."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..errors import InputError
from ..rank_agreement import kendall, spearman
from .measurement import Measurement, doubles
from .ranking import checked_valid, units_of


def rank_agreement(
    first: Tensor,
    second: Tensor,
    *,
    kind: Literal["spearman", "kendall"] = "spearman",
    valid: Tensor | None = None,
) -> Measurement:
    r"""Return the rank correlation of two methods' scores (1 for the same order).

    Spearman's :math:`\rho` is Pearson's correlation of the ranks, ties at their mean
    rank; Kendall's :math:`\tau_b` is corrected for ties likewise. Where all scores of
    one method are equal there is no order, and the agreement counts as 0.

    Args:
        first (Tensor): ``(examples, tokens)`` or ``(examples, rows, columns)``.
        second (Tensor): of the same shape.
        kind (str, optional): ``"spearman"`` or ``"kendall"``. Default: ``"spearman"``
        valid (Tensor, optional): bool, of the same shape: the units that count.
            Default: None, all

    Raises:
        InputError: if the shapes or ``kind`` do not fit.
    """
    one, two = units_of(first), units_of(second)
    if one.shape != two.shape:
        raise InputError(
            f"expected scores of one shape, got {tuple(one.shape)} and "
            f"{tuple(two.shape)}"
        )
    if kind not in ("spearman", "kendall"):
        raise InputError(f"expected kind= 'spearman' or 'kendall', got {kind!r}")
    correlate = spearman if kind == "spearman" else kendall
    counted = checked_valid(valid, one).flatten(1).cpu()
    scores = (x.detach().flatten(1).cpu().double() for x in (one, two))
    pairs = zip(*scores, counted, strict=True)
    values = [correlate(a[v].numpy(), b[v].numpy()) or 0.0 for a, b, v in pairs]
    return Measurement(
        f"{kind.capitalize()} rank correlation", doubles(values), "higher"
    )


def conservation_error(
    attributions: Tensor | tuple[Tensor, ...],
    outputs: Tensor,
    *,
    baseline_outputs: Tensor | None = None,
) -> Measurement:
    r"""Return how far the sums of scores are from the output, relative to it.

    :math:`|\sum_i R_i - f| / |f|`, or, for methods with a baseline (Integrated
    Gradients, DeepLift), :math:`f - f_0` in the place of f; 0 is conservation. Biases
    absorb relevance: :meth:`TransformerLRP.trace` says how much.

    Args:
        attributions (Tensor or tuple of Tensor): examples first, any shape.
        outputs (Tensor): the scores that were explained, ``(examples,)``.
        baseline_outputs (Tensor, optional): those of the baselines. Default: None

    Raises:
        InputError: if the numbers of examples differ, or an output (or its difference
            to that of the baseline) is 0, of which no part can be taken.
    """
    parts = attributions if isinstance(attributions, tuple) else (attributions,)
    wanted = outputs.detach().cpu().double().flatten()
    if any(len(part) != len(wanted) for part in parts):
        raise InputError(
            f"expected one output per example, got {len(wanted)} outputs and scores "
            f"of {', '.join(str(len(part)) for part in parts)} examples"
        )
    if baseline_outputs is not None:
        wanted = wanted - baseline_outputs.detach().cpu().double().flatten()
    if bool((wanted == 0).any()):
        raise InputError("an output is 0: the error relative to it is not defined")
    total = sum(p.detach().cpu().double().flatten(1).sum(1) for p in parts)
    return Measurement(
        "conservation error", (total - wanted).abs() / wanted.abs(), "lower"
    )
