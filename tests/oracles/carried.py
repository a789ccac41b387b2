"""Rules of transformer attribution that carry relevance itself, in loops.

Transcribed from Chefer, Gur, Wolf, CVPR 2021 (arXiv 2012.09838) and its code. A rule
receives the relevance of an operator's output and returns that of its inputs, of their
shapes. A linear operator is a list of terms ``(output index, input index, weight)``,
one for each path from an input to an output. Whatever is divided by 0 is 0.
Nothing of the package under test is imported.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .mutants import Mutant, _one_percent, _one_percent_of_second
from .rules import Array, Pair, sum_to_shape

Index = tuple[int, ...]
Terms = list[tuple[Index, Index, float]]


def divide(a: float, b: float) -> float:
    """``a / b``, and 0 where b is 0."""
    return 0.0 if b == 0.0 else a / b


# --- linear operators as terms ------------------------------------------------


def paths(equation: str, *operands: Array) -> Iterator[tuple[Index, list[Index]]]:
    """Every combination of elements that an einsum multiplies, and where it adds it."""
    inputs, _, output = equation.partition("->")
    letters = inputs.split(",")
    sizes = {
        letter: size
        for names, operand in zip(letters, operands, strict=True)
        for letter, size in zip(names, operand.shape, strict=True)
    }
    for values in itertools.product(*(range(n) for n in sizes.values())):
        at = dict(zip(sizes, values, strict=True))
        yield (
            tuple(at[letter] for letter in output),
            [tuple(at[letter] for letter in names) for names in letters],
        )


def einsum_terms(equation: str, *operands: Array, of: int = 0) -> Terms:
    """Terms of an einsum in which all operands but one are constants."""
    terms = []
    for out, places in paths(equation, *operands):
        weight = 1.0
        for i, (operand, place) in enumerate(zip(operands, places, strict=True)):
            if i != of:
                weight *= float(operand[place])
        terms.append((out, places[of], weight))
    return terms


def conv2d_terms(
    x: Array, weight: Array, *, stride: int = 1, padding: int = 0, groups: int = 1
) -> Terms:
    """Terms of a convolution; x ``(batch, in, height, width)``."""
    batch, channels, height, width = x.shape
    outputs, per_group, rows, columns = weight.shape
    assert per_group == channels // groups
    terms: Terms = []
    for n, o, u, v in itertools.product(
        range(batch),
        range(outputs),
        range((height + 2 * padding - rows) // stride + 1),
        range((width + 2 * padding - columns) // stride + 1),
    ):
        first = o // (outputs // groups) * per_group
        for c, i, j in itertools.product(range(per_group), range(rows), range(columns)):
            y, z = u * stride + i - padding, v * stride + j - padding
            if 0 <= y < height and 0 <= z < width:
                w = float(weight[o, c, i, j])
                terms.append(((n, o, u, v), (n, first + c, y, z), w))
    return terms


def sum_terms(x: Array, axis: int, *, mean: bool = False) -> Terms:
    """Terms of a sum or mean over one axis, which disappears."""
    axis = axis % x.ndim
    weight = 1 / x.shape[axis] if mean else 1.0
    return [(i[:axis] + i[axis + 1 :], i, weight) for i in np.ndindex(x.shape)]


def cumsum_terms(x: Array, axis: int) -> Terms:
    """Terms of a cumulative sum."""
    axis = axis % x.ndim
    return [
        ((*i[:axis], later, *i[axis + 1 :]), i, 1.0)
        for i in np.ndindex(x.shape)
        for later in range(i[axis], x.shape[axis])
    ]


def average_pool_terms(x: Array, size: int) -> Terms:
    """Terms of the means of squares of ``size`` by ``size`` pixels that fill x."""
    return [
        ((n, c, y // size, z // size), (n, c, y, z), 1 / size**2)
        for n, c, y, z in np.ndindex(x.shape)
    ]


# --- rules ----------------------------------------------------------------------


def z_plus(terms: Terms, x: Array, relevance: Array, *, joint: bool = True) -> Array:
    r"""Shares by positive contributions.

    .. math:: R_i = \sum_j \frac{(x_i w_{ji})^+}{\sum_k (x_k w_{jk})^+} R_j

    Args:
        terms (list): of the operator, without its bias.
        x (ndarray): the input.
        relevance (ndarray): of the output.
        joint (bool, optional): If False, positive inputs with positive weights and
            negative inputs with negative weights have a denominator each.
            Default: True
    """
    result = np.zeros_like(x)
    for signs in [(1, -1)] if joint else [(1,), (-1,)]:
        positive = [
            (out, place, x[place] * weight)
            for out, place, weight in terms
            if x[place] * weight > 0 and np.sign(x[place]) in signs
        ]
        z = np.zeros_like(relevance)
        for out, _, contribution in positive:
            z[out] += contribution
        for out, place, contribution in positive:
            result[place] += contribution / z[out] * relevance[out]
    return result


def linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    relevance: Array,
    *,
    joint: bool = True,
) -> Array:
    """z+ of ``x W^T + b``, which ignores b; x ``(batch, tokens, in)``."""
    del bias
    terms = einsum_terms("bti,oi->bto", x, weight)
    return z_plus(terms, x, relevance, joint=joint)


def factors(equation: str, *operands: Array, relevance: Array) -> tuple[Array, ...]:
    r"""Even shares of a product of n relevant factors, within each by contribution.

    .. math:: R^A_{ik} = \frac{1}{n} \sum_j \frac{A_{ik} B_{kj}}{(AB)_{ij}} R_{ij}
    """
    values = []
    z = np.zeros_like(relevance)
    for out, places in paths(equation, *operands):
        value = 1.0
        for operand, place in zip(operands, places, strict=True):
            value *= float(operand[place])
        z[out] += value
        values.append((out, places, value))
    results = tuple(np.zeros_like(operand) for operand in operands)
    for out, places, value in values:
        for result, place in zip(results, places, strict=True):
            result[place] += value * divide(relevance[out], z[out]) / len(operands)
    return results


def residual(a: Array, b: Array, relevance: Array, *, rescale: bool = True) -> Pair:
    r"""Shares of ``a + b``, rescaled within each example.

    .. math:: r_a = \frac{a}{a + b} R, \quad
        R_a = r_a \frac{|s_a|}{|s_a| + |s_b|} \frac{\sum R}{s_a}, \quad s_a = \sum r_a

    Operands may be broadcast; the first axis counts the examples.
    """
    parts = [np.broadcast_to(p, relevance.shape) for p in (a, b)]
    shares = [np.zeros_like(relevance) for _ in parts]
    for i in np.ndindex(relevance.shape):
        for share, part in zip(shares, parts, strict=True):
            share[i] = part[i] * divide(relevance[i], parts[0][i] + parts[1][i])
    for n in range(relevance.shape[0]):
        if rescale:
            sums = [float(share[n].sum()) for share in shares]
            whole = float(relevance[n].sum())
            for share, own in zip(shares, sums, strict=True):
                wanted = divide(abs(own), abs(sums[0]) + abs(sums[1])) * whole
                share[n] *= divide(wanted, own)
    return sum_to_shape(shares[0], a.shape), sum_to_shape(shares[1], b.shape)


def pass_on(x: Array, relevance: Array) -> Array:
    """Relevance as it is; copies of x that broadcasting made are added up."""
    return sum_to_shape(relevance.copy(), x.shape)


def z_box(terms: Terms, x: Array, relevance: Array, *, epsilon: float = 1e-9) -> Array:
    r"""z-box, with the lowest and highest pixel L and H of each example.

    .. math:: R_i = \sum_j \frac{w_{ji} x_i - w_{ji}^+ L - w_{ji}^- H}
        {\sum_k (w_{jk} x_k - w_{jk}^+ L - w_{jk}^- H) + \epsilon} R_j
    """
    z = np.full_like(relevance, epsilon)
    above = []
    for out, place, weight in terms:
        low, high = float(x[place[0]].min()), float(x[place[0]].max())
        distance = weight * (x[place] - (low if weight > 0 else high))
        z[out] += distance
        above.append((out, place, distance))
    result = np.zeros_like(x)
    for out, place, distance in above:
        result[place] += divide(distance * relevance[out], z[out])
    return result


@dataclass(frozen=True)
class CarriedRules:
    """The rules, any of which a test may replace by a wrong one."""

    z_plus: Callable[..., Array] = z_plus
    linear: Callable[..., Array] = linear
    factors: Callable[..., tuple[Array, ...]] = factors
    residual: Callable[..., Pair] = residual
    pass_on: Callable[..., Array] = pass_on
    z_box: Callable[..., Array] = z_box

    def spoilt(self, mutant: Mutant) -> CarriedRules:
        """The rules with one of them replaced."""
        return dataclasses.replace(self, **{mutant.rule: mutant.function})


# --- wrong rules ----------------------------------------------------------------


def _linear_with_bias(
    x: Array, weight: Array, bias: Array | None, relevance: Array, **options: Any
) -> Array:
    """A positive bias takes its share: it is one more input that is 1."""
    if bias is None:
        return linear(x, weight, None, relevance, **options)
    ones = np.ones((*x.shape[:-1], 1))
    wider = np.concatenate([weight, bias[:, None]], axis=1)
    return linear(np.concatenate([x, ones], -1), wider, None, relevance)[..., :-1]


def _linear_of_positive_weights(
    x: Array, weight: Array, bias: Array | None, relevance: Array, **options: Any
) -> Array:
    """Captum's Alpha1-Beta0: negative weights are dropped, whatever the sign of x."""
    del bias, options
    clamped = np.maximum(weight, 0)
    z = np.einsum("bti,oi->bto", x, clamped)
    found: Array = np.einsum("bti,oi,bto->bti", x, clamped, relevance / z)
    return found


def _linear_by_contribution(
    x: Array, weight: Array, bias: Array | None, relevance: Array, **options: Any
) -> Array:
    """LRP-0: negative contributions count too."""
    del bias, options
    z = np.einsum("bti,oi->bto", x, weight)
    found: Array = np.einsum("bti,oi,bto->bti", x, weight, relevance / z)
    return found


def _linear_other_denominator(
    x: Array,
    weight: Array,
    bias: Array | None,
    relevance: Array,
    *,
    joint: bool = True,
) -> Array:
    return linear(x, weight, bias, relevance, joint=not joint)


def _factors_not_halved(equation: str, *operands: Array, relevance: Array) -> Any:
    found = factors(equation, *operands, relevance=relevance)
    return tuple(len(operands) * r for r in found)


def _factors_all_to_first(equation: str, *operands: Array, relevance: Array) -> Any:
    first, *others = factors(equation, *operands, relevance=relevance)
    return (len(operands) * first, *(0 * r for r in others))


def _factors_evenly(equation: str, *operands: Array, relevance: Array) -> Any:
    """AttnLRP's rule for the same product, with every path alike."""
    alike = [np.ones_like(operand) for operand in operands]
    return factors(equation, *alike, relevance=relevance)


def _residual_other_rescale(
    a: Array, b: Array, relevance: Array, *, rescale: bool = True
) -> Pair:
    return residual(a, b, relevance, rescale=not rescale)


def _residual_over_the_batch(
    a: Array, b: Array, relevance: Array, *, rescale: bool = True
) -> Pair:
    """The official code with several examples, which it takes to be one."""
    del rescale
    shape = relevance.shape
    whole = [np.broadcast_to(p, shape)[None] for p in (a, b)]
    of_a, of_b = residual(*whole, relevance[None])
    return sum_to_shape(of_a[0], a.shape), sum_to_shape(of_b[0], b.shape)


def _residual_halves(a: Array, b: Array, relevance: Array, **options: Any) -> Pair:
    del options
    return sum_to_shape(relevance / 2, a.shape), sum_to_shape(relevance / 2, b.shape)


def _z_box_without_box(
    terms: Terms, x: Array, relevance: Array, **options: Any
) -> Array:
    del options
    return z_plus(terms, x, relevance)


def _z_box_of_the_batch(
    terms: Terms, x: Array, relevance: Array, **options: Any
) -> Array:
    """One lowest and one highest pixel for all examples."""
    del options
    low, high = float(x.min()), float(x.max())
    z = np.full_like(relevance, 1e-9)
    for out, place, w in terms:
        z[out] += w * (x[place] - (low if w > 0 else high))
    found = np.zeros_like(x)
    for out, place, w in terms:
        distance = w * (x[place] - (low if w > 0 else high))
        found[place] += distance / z[out] * relevance[out]
    return found


#: 1% too much, in the first output or in the second
ONE_PERCENT: tuple[Mutant, ...] = (
    *(
        Mutant(
            name="1% too much", rule=field.name, function=_one_percent(field.default)
        )
        for field in dataclasses.fields(CarriedRules)
    ),
    Mutant(
        name="1% too much to the second",
        rule="residual",
        function=_one_percent_of_second(residual),
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    Mutant(name="bias takes part", rule="linear", function=_linear_with_bias),
    Mutant(
        name="positive weights only",
        rule="linear",
        function=_linear_of_positive_weights,
    ),
    Mutant(name="LRP-0", rule="linear", function=_linear_by_contribution),
    Mutant(name="other joint", rule="linear", function=_linear_other_denominator),
    Mutant(name="not halved", rule="factors", function=_factors_not_halved),
    Mutant(name="all to the first", rule="factors", function=_factors_all_to_first),
    Mutant(name="paths alike", rule="factors", function=_factors_evenly),
    Mutant(name="other rescale", rule="residual", function=_residual_other_rescale),
    Mutant(name="over the batch", rule="residual", function=_residual_over_the_batch),
    Mutant(name="half each", rule="residual", function=_residual_halves),
    Mutant(name="no box", rule="z_box", function=_z_box_without_box),
    Mutant(name="the batch's box", rule="z_box", function=_z_box_of_the_batch),
)


def mutants_of(rule: str) -> tuple[Mutant, ...]:
    """The wrong versions of one rule that are no matter of 1%.

    Raises:
        ValueError: If there is none, as a test over none could not fail.
    """
    found = tuple(m for m in MUTANTS if m.rule == rule)
    if not found:
        raise ValueError(f"there is no mutant of {rule!r}")
    return found
