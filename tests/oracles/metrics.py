"""Metrics of attributions, slowly: lists and loops, nothing of the package or torch.

A model is any function from a list of numbers (or ids) to a list of logits. Choices
that a metric could get wrong are arguments, so that a test can also compare with a
deliberately wrong metric and see that it differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

Model = Callable[[Sequence[Any]], Sequence[float]]
Numbers = Sequence[float]


def order(
    scores: Numbers,
    valid: Sequence[bool],
    *,
    descending: bool,
    absolute: bool = False,
) -> list[int]:
    """Indices of valid units, best first; the earlier of two equal ones first."""
    left = [i for i in range(len(scores)) if valid[i]]
    found = []
    while left:
        best = left[0]
        for i in left[1:]:
            a = abs(scores[i]) if absolute else scores[i]
            b = abs(scores[best]) if absolute else scores[best]
            if (a > b) if descending else (a < b):
                best = i
        found.append(best)
        left.remove(best)
    return found


def softmax(logits: Numbers) -> list[float]:
    top = max(logits)
    powers = [math.exp(z - top) for z in logits]
    return [p / sum(powers) for p in powers]


def read(logits: Numbers, target: int, output: str) -> float:
    if output == "logit":
        return logits[target]
    if output == "probability":
        return softmax(logits)[target]
    assert output == "margin"
    return logits[target] - max(z for k, z in enumerate(logits) if k != target)


def removed(units: Sequence[Any], chosen: Sequence[int], value: Any) -> list[Any]:
    return [value if i in chosen else unit for i, unit in enumerate(units)]


def ceil(fraction: Fraction, number: int) -> int:
    return math.ceil(fraction * number)


def trapezoid(x: Numbers, y: Numbers) -> float:
    return sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))


def left_sum(x: Numbers, y: Numbers) -> float:
    """A wrong area: each step has the height of its left end."""
    return sum((x[i + 1] - x[i]) * y[i] for i in range(len(x) - 1))


def tenths(first: int = 0, last: int = 10) -> list[Fraction]:
    return [Fraction(k, 10) for k in range(first, last + 1)]


def curve(
    model: Model,
    units: Sequence[Any],
    scores: Numbers,
    valid: Sequence[bool],
    *,
    value: Any,
    target: int,
    output: str,
    descending: bool,
    fractions: Sequence[Fraction],
    absolute: bool = False,
    rounding: Callable[[Fraction, int], int] = ceil,
) -> list[float]:
    """The score after each fraction of the valid units is replaced."""
    ranked = order(scores, valid, descending=descending, absolute=absolute)
    found = []
    for fraction in fractions:
        gone = ranked[: rounding(fraction, len(ranked))]
        found.append(read(model(removed(units, gone, value)), target, output))
    return found


def insertion(
    model: Model,
    units: Sequence[Any],
    scores: Numbers,
    valid: Sequence[bool],
    *,
    value: Any,
    target: int,
    output: str,
    fractions: Sequence[Fraction],
    descending: bool = True,
) -> list[float]:
    """The score after each fraction of the units has come back."""
    ranked = order(scores, valid, descending=descending)
    found = []
    for fraction in fractions:
        gone = ranked[ceil(fraction, len(ranked)) :]
        found.append(read(model(removed(units, gone, value)), target, output))
    return found


def pruning(
    model: Model,
    units: Sequence[Any],
    scores: Numbers,
    valid: Sequence[bool],
    *,
    value: Any,
    fractions: Sequence[Fraction],
    absolute: bool = True,
) -> list[float]:
    """Squared change of all logits, smallest absolute scores gone first."""
    ranked = order(scores, valid, descending=False, absolute=absolute)
    whole = model(units)
    found = []
    for fraction in fractions:
        gone = ranked[: ceil(fraction, len(ranked))]
        now = model(removed(units, gone, value))
        found.append(sum((a - b) ** 2 for a, b in zip(now, whole, strict=True)))
    return found


def comprehensiveness(
    model: Model,
    units: Sequence[Any],
    scores: Numbers,
    valid: Sequence[bool],
    *,
    value: Any,
    target: int,
    bins: Sequence[Fraction],
    alone: bool = False,
) -> float:
    """Mean fall of the probability without the top units, or with them `alone`."""
    ranked = order(scores, valid, descending=True)
    whole = read(model(units), target, "probability")
    falls = []
    for fraction in bins:
        k = ceil(fraction, len(ranked))
        gone = ranked[k:] if alone else ranked[:k]
        now = read(model(removed(units, gone, value)), target, "probability")
        falls.append(whole - now)
    return sum(falls) / len(falls)


def average_precision(scores: Numbers, marked: Sequence[bool]) -> float:
    """Over every threshold: the gain in recall times the precision."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        picked = [m for s, m in zip(scores, marked, strict=True) if s >= threshold]
        recall = sum(picked) / sum(marked)
        total += (recall - before) * sum(picked) / len(picked)
        before = recall
    return total


def trapezoid_auprc(scores: Numbers, marked: Sequence[bool]) -> float:
    """Straight lines between the points of the curve, from precision 1 at recall 0."""
    total, recall, precision = 0.0, 0.0, 1.0
    for threshold in sorted(set(scores), reverse=True):
        picked = [m for s, m in zip(scores, marked, strict=True) if s >= threshold]
        now = sum(picked) / len(picked)
        reached = sum(picked) / sum(marked)
        total += (reached - recall) * (precision + now) / 2
        recall, precision = reached, now
    return total


def token_f1(scores: Numbers, marked: Sequence[bool], k: int) -> float:
    picked = order(scores, [True] * len(scores), descending=True)[:k]
    both = sum(marked[i] for i in picked)
    precision, recall = both / len(picked), both / sum(marked)
    return 2 * precision * recall / (precision + recall) if both else 0.0


def ranks(values: Numbers) -> list[float]:
    """Number of smaller values plus half of the equal ones."""
    return [
        sum(1.0 for b in values if b < a) + (sum(1.0 for b in values if b == a) + 1) / 2
        for a in values
    ]


def pearson(a: Numbers, b: Numbers) -> float:
    x, y = sum(a) / len(a), sum(b) / len(b)
    top = sum((p - x) * (q - y) for p, q in zip(a, b, strict=True))
    left = math.sqrt(sum((p - x) ** 2 for p in a))
    right = math.sqrt(sum((q - y) ** 2 for q in b))
    return top / (left * right)


def spearman(a: Numbers, b: Numbers) -> float:
    return pearson(ranks(a), ranks(b))


def kendall(a: Numbers, b: Numbers) -> float:
    """tau-b: concordant minus discordant pairs, corrected for ties."""
    agreeing = opposed = only_a = only_b = 0
    for i in range(len(a)):
        for j in range(i):
            p = (a[i] > a[j]) - (a[i] < a[j])
            q = (b[i] > b[j]) - (b[i] < b[j])
            agreeing += p * q > 0
            opposed += p * q < 0
            only_a += p != 0 and q == 0
            only_b += p == 0 and q != 0
    moved = agreeing + opposed
    return (agreeing - opposed) / math.sqrt((moved + only_a) * (moved + only_b))


Map = Sequence[Sequence[float]]


def bilinear(grid: Map, height: int, width: int) -> list[list[float]]:
    """Interpolate between the centres of cells; beyond the outermost, their value."""

    def place(i: int, size: int, cells: int) -> tuple[int, int, float]:
        x = min(max((i + 0.5) * cells / size - 0.5, 0.0), cells - 1.0)
        low = int(x)
        return low, min(low + 1, cells - 1), x - low

    found = []
    for r in range(height):
        top, bottom, u = place(r, height, len(grid))
        row = []
        for c in range(width):
            left, right, v = place(c, width, len(grid[0]))
            upper = grid[top][left] * (1 - v) + grid[top][right] * v
            lower = grid[bottom][left] * (1 - v) + grid[bottom][right] * v
            row.append(upper * (1 - u) + lower * u)
        found.append(row)
    return found


def nearest(grid: Map, height: int, width: int) -> list[list[float]]:
    """Repeat each cell."""
    return [
        [grid[r * len(grid) // height][c * len(grid[0]) // width] for c in range(width)]
        for r in range(height)
    ]


def segmentation(
    maps: Sequence[Map],
    masks: Sequence[Sequence[Sequence[bool]]],
    *,
    upsample: Callable[[Map, int, int], list[list[float]]] = bilinear,
    threshold: Callable[[Numbers], float] = lambda values: sum(values) / len(values),
    pooled: bool = True,
) -> tuple[float, float, float]:
    """Pixel accuracy, mIoU, mAP; `pooled=False` averages IoU over maps: wrong."""
    correct = pixels = 0
    inter, union = [0, 0], [0, 0]
    precisions, single = [], []
    for grid, mask in zip(maps, masks, strict=True):
        wide = upsample(grid, len(mask), len(mask[0]))
        values = [v for row in wide for v in row]
        truth = [bool(v) for row in mask for v in row]
        low, high = min(values), max(values)
        values = [(v - low) / (high - low) for v in values]
        cut = threshold(values)
        guess = [v > cut for v in values]
        ious = []
        for side in (0, 1):
            a = [g == bool(side) for g in guess]
            b = [t == bool(side) for t in truth]
            both = sum(p and q for p, q in zip(a, b, strict=True))
            any_of = sum(p or q for p, q in zip(a, b, strict=True))
            inter[side] += both
            union[side] += any_of
            ious.append(both / any_of)
        single.append(sum(ious) / 2)
        correct += sum(g == t for g, t in zip(guess, truth, strict=True))
        pixels += len(values)
        precisions.append(
            average_precision(
                [1 - v for v in values] + values, [not t for t in truth] + truth
            )
        )
    miou = sum(i / u for i, u in zip(inter, union, strict=True)) / 2
    if not pooled:
        miou = sum(single) / len(single)
    return correct / pixels, miou, sum(precisions) / len(precisions)
