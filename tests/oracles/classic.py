"""The classic rules of layer-wise relevance propagation, in loops over contributions.

A linear operator is a matrix with a row for each output, and what it adds. A rule
receives the input of one example, flattened, and the relevance of the output, and
returns that of the input. Nothing of the package under test is imported.

Sources: Bach et al. 2015 (epsilon, Eq. 58; alpha-beta, Eq. 60); Montavon et al. 2017
(arXiv 1512.02479: z+, w^2, z-box); Montavon et al. 2019, Sec. 10.2 (gamma); the sign
cases of gamma as in Zennit's documentation; Lapuschkin et al. 2019 (flat).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .rules import Array

Rule = Callable[..., Array]


def sign_aware(z: float, epsilon: float) -> float:
    """``z`` moved away from 0, which counts as positive."""
    return z - epsilon if z < 0 else z + epsilon


def epsilon_rule(
    weights: Array, bias: Array, x: Array, relevance: Array,
    *, epsilon: float = 1e-6, ignore_bias: bool = False,
) -> Array:  # fmt: skip
    found = np.zeros_like(x)
    for j, row in enumerate(weights):
        z = sum(w * value for w, value in zip(row, x, strict=True))
        z += 0.0 if ignore_bias else bias[j]
        for i, w in enumerate(row):
            found[i] += w * x[i] / sign_aware(z, epsilon) * relevance[j]
    return found


def gamma_rule(
    weights: Array, bias: Array, x: Array, relevance: Array,
    *, gamma: float = 0.25, epsilon: float = 1e-6, ignore_bias: bool = False,
) -> Array:  # fmt: skip
    """Each contribution of the output's sign counts ``1 + gamma`` times."""
    found = np.zeros_like(x)
    for j, row in enumerate(weights):
        z = sum(w * value for w, value in zip(row, x, strict=True)) + bias[j]
        if z == 0:
            continue

        def favoured(c: float, positive: bool = z > 0) -> float:
            return c * (1 + gamma) if (c > 0) == positive else c

        parts = [favoured(w * value) for w, value in zip(row, x, strict=True)]
        total = sum(parts) + (0.0 if ignore_bias else favoured(bias[j]))
        for i, part in enumerate(parts):
            found[i] += part / sign_aware(total, epsilon) * relevance[j]
    return found


def alpha_beta_rule(
    weights: Array, bias: Array, x: Array, relevance: Array,
    *, alpha: float = 2.0, beta: float = 1.0, epsilon: float = 1e-6,
    ignore_bias: bool = False,
) -> Array:  # fmt: skip
    found = np.zeros_like(x)
    for j, row in enumerate(weights):
        parts = [w * value for w, value in zip(row, x, strict=True)]
        added = 0.0 if ignore_bias else bias[j]
        positive = sum(max(c, 0) for c in parts) + max(added, 0)
        negative = sum(min(c, 0) for c in parts) + min(added, 0)
        for i, c in enumerate(parts):
            share = alpha * max(c, 0) / (positive + epsilon)
            share -= beta * min(c, 0) / (negative - epsilon)
            found[i] += share * relevance[j]
    return found


def z_plus_rule(*args: Array, **options: float) -> Array:
    return alpha_beta_rule(*args, alpha=1.0, beta=0.0, **options)  # type: ignore[arg-type]


def flat_rule(
    weights: Array, bias: Array, x: Array, relevance: Array, *, epsilon: float = 1e-6
) -> Array:
    """Whatever the weights; only that there is one matters."""
    found = np.zeros_like(x)
    for j, row in enumerate(weights):
        readers = [i for i, w in enumerate(row) if w != 0]
        for i in readers:
            found[i] += relevance[j] / (len(readers) + epsilon)
    return found


def w_square_rule(
    weights: Array, bias: Array, x: Array, relevance: Array,
    *, epsilon: float = 1e-6, ignore_bias: bool = False,
) -> Array:  # fmt: skip
    found = np.zeros_like(x)
    for j, row in enumerate(weights):
        total = sum(w * w for w in row) + (0.0 if ignore_bias else bias[j] ** 2)
        for i, w in enumerate(row):
            found[i] += w * w / (total + epsilon) * relevance[j]
    return found


def z_box_rule(
    weights: Array, bias: Array, x: Array, relevance: Array,
    *, low: Array, high: Array, epsilon: float = 1e-6,
) -> Array:  # fmt: skip
    found = np.zeros_like(x)
    for j, row in enumerate(weights):
        parts = [w * (x[i] - (low[i] if w > 0 else high[i])) for i, w in enumerate(row)]
        for i, part in enumerate(parts):
            found[i] += part / sign_aware(sum(parts), epsilon) * relevance[j]
    return found


def scaled(rule: Rule, factor: float) -> Rule:
    """A rule that hands on a factor too much, which every comparison must reject."""
    return lambda *args, **options: factor * rule(*args, **options)


def dense(
    layers: list[tuple[Array, Array, Rule]], x: Array, target: int
) -> tuple[float, list[Array]]:
    """A network of dense layers with relus between, explained from its logit.

    Returns:
        The logit, and the relevance at the input of each layer, the first first.
    """
    inputs = [x]
    for number, (weights, bias, _) in enumerate(layers):
        z = weights @ inputs[-1] + bias
        inputs.append(z if number == len(layers) - 1 else np.maximum(z, 0))
    relevance = np.zeros_like(inputs[-1])
    relevance[target] = inputs[-1][target]
    found = []
    for (weights, bias, rule), value in zip(layers[::-1], inputs[-2::-1], strict=True):
        relevance = rule(weights, bias, value, relevance)  # a relu passes it on
        found.append(relevance)
    return float(inputs[-1][target]), found[::-1]
