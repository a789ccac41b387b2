"""Rank correlation of two rankings, with ties."""

from __future__ import annotations

import numpy as np


def ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1 for the smallest; equal values share the mean of theirs.

    Args:
        values (np.ndarray): shape ``(n,)``.
    """
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[group.reshape(-1)])


def spearman(a: np.ndarray, b: np.ndarray) -> float | None:
    r"""Return Spearman's :math:`\rho`, the correlation of ranks.

    Args:
        a (np.ndarray): shape ``(n,)``.
        b (np.ndarray): shape ``(n,)``.

    Returns:
        *float* in [-1, 1]; None where one of the two ranks nothing (fewer than two
        values, or all the same).
    """
    x, y = (ranks(np.asarray(v, dtype=float)) for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    size = float(np.sqrt((x**2).sum() * (y**2).sum()))
    if len(x) < 2 or size == 0:
        return None
    return float(np.clip((x * y).sum() / size, -1, 1))


def kendall(a: np.ndarray, b: np.ndarray) -> float | None:
    r"""Return Kendall's :math:`\tau_b`: concordant less discordant pairs.

    Ties are taken out of the count of pairs (Kendall 1945). Memory grows with the
    square of the length.

    Args:
        a (np.ndarray): shape ``(n,)``.
        b (np.ndarray): shape ``(n,)``.

    Returns:
        *float* in [-1, 1]; None where one of the two ranks nothing (fewer than two
        values, or all the same).
    """
    x, y = (np.asarray(v, dtype=float) for v in (a, b))
    above = np.triu_indices(len(x), k=1)
    dx, dy = (np.sign(v[:, None] - v)[above] for v in (x, y))
    size = float(np.sqrt((dx**2).sum() * (dy**2).sum()))
    return None if size == 0 else float((dx * dy).sum() / size)
