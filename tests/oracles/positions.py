"""Attention with positions whose way back is written out by hand, in relevance form.

One head, no projections: queries, keys and values are given. The score is a weighted
sum of what attention returns. Loops over indices; nothing of the package.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention_relevance(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Relevance of each q, k and bias under AttnLRP, all of shapes (tokens, ...).

    The score is ``sum(weights * (softmax(q k^T + bias) v))``. Each factor of the outer
    product has half of it; the softmax is linearised, ``R_x = x (R - s sum R)``; the
    scores share by contribution; each factor of ``q k`` has half of its product's.
    """
    n, width = q.shape
    scores = q @ k.T + bias
    pattern = torch.softmax(scores, -1)
    r_q, r_k, r_bias = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(bias)
    for i in range(n):
        r_pattern = [
            0.5 * float(pattern[i, j] * (weights[i] * v[j]).sum()) for j in range(n)
        ]
        for j in range(n):
            if math.isinf(float(bias[i, j])):
                continue
            r_score = float(scores[i, j]) * (
                r_pattern[j] - float(pattern[i, j]) * sum(r_pattern)
            )
            share = r_score / float(scores[i, j])
            r_bias[i, j] = float(bias[i, j]) * share
            for d in range(width):
                part = 0.5 * float(q[i, d] * k[j, d]) * share
                r_q[i, d] += part
                r_k[j, d] += part
    return r_q, r_k, r_bias


def rotation(count: int, width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions, (tokens, width)."""
    cos, sin = torch.zeros(count, width).double(), torch.zeros(count, width).double()
    for t in range(count):
        for d in range(width):
            angle = t * 100.0 ** (-2 * (d % (width // 2)) / width)
            cos[t, d], sin[t, d] = math.cos(angle), math.sin(angle)
    return cos, sin


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, element by element."""
    half = x.shape[1] // 2
    result = torch.zeros_like(x)
    for t in range(len(x)):
        for d in range(2 * half):
            other = -x[t, d + half] if d < half else x[t, d - half]
            result[t, d] = x[t, d] * cos[t, d] + other * sin[t, d]
    return result


def rotary_relevance(
    x: Tensor, cos: Tensor, sin: Tensor, relevance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Relevance of x, and of cosines and sines summed over features, (tokens,) each.

    ``relevance`` is that of the rotated vectors. The sum shares by contribution, each
    product evenly.
    """
    half = x.shape[1] // 2
    whole = rotated(x, cos, sin)
    r_x = torch.zeros_like(x)
    r_cos, r_sin = torch.zeros(len(x)).double(), torch.zeros(len(x)).double()
    for t in range(len(x)):
        for d in range(2 * half):
            source = d + half if d < half else d - half
            other = -x[t, source] if d < half else x[t, source]
            share = relevance[t, d] / whole[t, d]
            by_cos, by_sin = x[t, d] * cos[t, d] * share, other * sin[t, d] * share
            r_cos[t] += by_cos / 2
            r_sin[t] += by_sin / 2
            r_x[t, d] += by_cos / 2
            r_x[t, source] += by_sin / 2
    return r_x, r_cos, r_sin
