"""Whether influence predicts what models say that were trained on less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..metrics.measurement import Measurement, doubles, jackknife
from ..rank_agreement import spearman


def random_halves(examples: int, count: int = 40, *, seed: int = 0) -> np.ndarray:
    """Draw halves of the training examples.

    Args:
        examples (int): How many training examples there are.
        count (int, optional): How many halves. Default: 40
        seed (int, optional): Of the draw. Default: 0

    Returns:
        *np.ndarray* of bool, ``(count, examples)``: which examples are in each half.

    Raises:
        InputError: There are fewer than two examples or halves.
    """
    if examples < 2 or count < 2:
        raise InputError(
            f"expected at least two examples and halves, got {examples} and {count}"
        )
    drawn = np.random.default_rng(seed).random((count, examples)).argsort(1)
    return drawn < examples // 2


def linear_datamodeling_score(
    scores: np.ndarray,
    subsets: np.ndarray,
    outputs: np.ndarray | Callable[[np.ndarray], Sequence[float]],
) -> Measurement:
    r"""Return how well influence ranks what models trained on parts of the data say.

    The linear datamodeling score, LDS (Park et al. 2023, TRAK, arXiv:2303.14186,
    section 2): for a question, Spearman's rank correlation over the subsets
    :math:`S_j` of what a model trained on :math:`S_j` says, and the sum
    :math:`\sum_{i \in S_j} \tau_i` of the scores of the examples in it. 1 is the order
    of the models, 0 is chance.

    Args:
        scores (np.ndarray): Influence, ``(questions, training examples)``, as
            ``scores(questions, targets)`` of every influence returns it.
        subsets (np.ndarray): bool, ``(subsets, training examples)``, such as
            :func:`random_halves`.
        outputs (np.ndarray or Callable): What the model trained on each subset says of
            each question, ``(subsets, questions)``: higher where the target of the
            scores is likelier, such as its logit less the largest other one. Or a
            function that is given the positions of a subset's examples, trains a model
            on them, and returns ``(questions,)``; to compare influences call it once
            for each subset yourself, and pass the array.

    Returns:
        *Measurement* whose ``mean`` is the LDS, the mean over the questions, and whose
        ``standard_error`` is the jackknife's over the subsets: another draw of them
        changes the correlations of all questions together.

    Raises:
        InputError: Shapes do not agree; fewer than three subsets; a number is not
            finite; subsets are no bool.

    Examples::

        >>> halves = influence.random_halves(len(texts), 40)
        >>> lds = influence.linear_datamodeling_score(
        ...     tracin.scores(questions, targets), halves, train_and_ask)
        >>> print(lds)
    """
    scores, subsets = np.asarray(scores), np.asarray(subsets)
    if scores.ndim != 2 or subsets.ndim != 2 or scores.shape[1] != subsets.shape[1]:
        raise InputError(
            "expected scores (questions, training examples) and subsets (subsets, "
            f"training examples), got {scores.shape} and {subsets.shape}"
        )
    if subsets.dtype != bool:
        raise InputError(f"expected subsets of bool, got {subsets.dtype}")
    if len(subsets) < 3:
        raise InputError(f"expected at least three subsets, got {len(subsets)}")
    if not np.isfinite(scores).all():
        raise InputError("scores hold NaN or infinity, which have no rank")
    said = _said(outputs, subsets)
    if said.shape != (len(subsets), len(scores)):
        raise InputError(
            f"expected outputs of shape (subsets, questions), {len(subsets)} x "
            f"{len(scores)}, got {said.shape}"
        )
    if not np.isfinite(said).all():
        raise InputError("outputs hold NaN or infinity, which have no rank")
    predicted = subsets.astype(float) @ scores.T.astype(float)
    without = [
        _agreement(np.delete(predicted, j, 0), np.delete(said, j, 0))
        for j in range(len(subsets))
    ]
    return jackknife(
        _agreement(predicted, said),
        doubles(without),
        name="linear datamodeling score",
        better="higher",
    )


def _agreement(predicted: np.ndarray, said: np.ndarray) -> float:
    """Return the mean over the questions of the rank correlation over subsets."""
    pairs = zip(predicted.T, said.T, strict=True)
    # Where all are the same there is no order, and no agreement.
    return float(np.mean([spearman(guess, truth) or 0.0 for guess, truth in pairs]))


def _said(outputs: Any, subsets: np.ndarray) -> np.ndarray:
    """Return what models say, by the function that trains them if it is one."""
    if not callable(outputs):
        return np.asarray(outputs, dtype=float)
    return np.asarray([outputs(np.flatnonzero(s)) for s in subsets], dtype=float)
