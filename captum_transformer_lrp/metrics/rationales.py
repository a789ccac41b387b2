"""Plausibility: how scores of tokens agree with what people marked."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .measurement import Measurement, doubles
from .ranking import checked_valid, ranks, units_of


def average_precision(
    attributions: Tensor, rationales: Tensor, *, valid: Tensor | None = None
) -> Measurement:
    r"""Return the average precision of the scores (higher is better).

    :math:`\sum_t (R_t - R_{t-1}) P_t` over the thresholds t, with precision P and
    recall R: no interpolation, and units of equal score enter together, as in
    scikit-learn's ``average_precision_score``. A random order has about the share of
    units that are marked.

    It is not the AUPRC of ERASER (DeYoung et al. 2020), which joins the points of the
    same curve by straight lines (scikit-learn's ``auc`` of ``precision_recall_curve``)
    and is lower where few units are marked: do not compare one with the other.

    Args:
        attributions (Tensor): one score per unit, ``(examples, tokens)`` or
            ``(examples, rows, columns)``.
        rationales (Tensor): bool, of the same shape: what people marked.
        valid (Tensor, optional): bool, of the same shape: the units that count.
            Default: None, all

    Raises:
        InputError: if shapes differ, or nothing is marked in an example.
    """
    scores, marked, valid = _checked(attributions, rationales, valid)
    values = [
        ranked_precision(s[v], m[v])
        for s, m, v in zip(scores, marked, valid, strict=True)
    ]
    return Measurement("average precision", doubles(values), "higher")


def ranked_precision(scores: Tensor, marked: Tensor) -> float:
    """Return the average precision of one row of scores."""
    values, order = scores.double().sort(descending=True, stable=True)
    found = marked[order].double().cumsum(0)
    last = torch.cat([values[1:] != values[:-1], torch.ones(1, dtype=torch.bool)])
    total = torch.arange(1, len(values) + 1, dtype=torch.float64)
    hits, seen = found[last], total[last]
    gained = hits.diff(prepend=torch.zeros(1, dtype=torch.float64))
    return float((gained * hits / seen).sum() / found[-1])


def token_f1(
    attributions: Tensor,
    rationales: Tensor,
    *,
    k: int | None = None,
    valid: Tensor | None = None,
) -> Measurement:
    """Return the F1 of the k highest scores against the rationale (higher is better).

    Args:
        attributions (Tensor): as for :func:`average_precision`.
        rationales (Tensor): as for :func:`average_precision`.
        k (int, optional): how many units are picked, at most all valid ones. ERASER
            takes the mean length of the rationales. Default: None, that mean over the
            examples given, rounded, at least 1
        valid (Tensor, optional): as for :func:`average_precision`. Default: None

    Raises:
        InputError: as for :func:`average_precision`, or if k is below 1.
    """
    scores, marked, valid = _checked(attributions, rationales, valid)
    lengths = (marked & valid).sum(1)
    if k is None:
        k = max(1, round(float(lengths.double().mean())))
    if k < 1:
        raise InputError(f"expected k of at least 1, got {k}")
    picked = (ranks(scores, valid, descending=True) < k) & valid
    both = (picked & marked).sum(1).double()
    f1 = 2 * both / (picked.sum(1) + lengths)
    return Measurement("token-F1", f1, "higher", {"k": str(k)})


def _checked(
    attributions: Tensor, rationales: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    scores = units_of(attributions)
    if rationales.shape != scores.shape:
        raise InputError(
            f"expected rationales= of the shape of the scores, {tuple(scores.shape)}, "
            f"got {tuple(rationales.shape)}"
        )
    valid = checked_valid(valid, scores)
    flat = [t.flatten(1).cpu() for t in (scores, rationales.bool(), valid)]
    scores, marked, valid = flat
    empty = ~(marked & valid).any(1)
    if bool(empty.any()):
        raise InputError(
            f"nothing is marked in example {int(empty.nonzero()[0])}: leave such "
            "examples out, precision has no meaning there"
        )
    return scores, marked & valid, valid
