"""Deliberately wrong rules, for proving that a comparison rejects them.

A comparison that passes for the right rule and for one of these shows nothing.
Each mutant replaces one rule of a `RuleSet`; put it into a model oracle with
``method=mutant.applied_to(METHODS["attnlrp"])``, or call ``mutant.function`` with
the arguments of the rule that it stands in for (``getattr(rules, mutant.rule)``
of a `RuleSet`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import rules as r
from .rules import Array, Pair, RuleSet

BOTH = ("attnlrp", "cplrp")
ATTNLRP_ONLY = ("attnlrp",)
CPLRP_ONLY = ("cplrp",)


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One wrong rule.

    Args:
        name (str): What is wrong, in a word or two.
        rule (str): The field of `RuleSet` that it replaces.
        function (callable): Takes what the rule takes.
        methods (tuple): The methods for which it is wrong.
    """

    name: str
    rule: str
    function: Callable[..., Any]
    methods: tuple[str, ...] = BOTH

    def applied_to(self, rules: RuleSet) -> RuleSet:
        """`rules` with this one rule spoilt."""
        return dataclasses.replace(rules, **{self.rule: self.function})

    def __str__(self) -> str:
        return f"{self.rule}: {self.name}"


def _one_percent(rule: Callable[..., Any]) -> Callable[..., Any]:
    """The rule with 1.01 times the relevance in its first output."""

    def wrong(*args: Any, **options: Any) -> Any:
        found = rule(*args, **options)
        if isinstance(found, tuple):
            return (1.01 * found[0], *found[1:])
        return 1.01 * found

    return wrong


def _one_percent_of_second(rule: Callable[..., Pair]) -> Callable[..., Pair]:
    def wrong(*args: Any, **options: Any) -> Pair:
        first, second = rule(*args, **options)
        return first, 1.01 * second

    return wrong


def _one_row_percent(rule: Callable[..., Array]) -> Callable[..., Array]:
    """The rule with 1.01 times the relevance in a single feature."""

    def wrong(*args: Any, **options: Any) -> Array:
        found = rule(*args, **options).copy()
        found[..., 0] *= 1.01
        return found

    return wrong


def _linear_bias_shared(
    x: Array, weight: Array, bias: Array | None, relevance: Array, **options: Any
) -> Array:
    """The bias's share is handed to the inputs: R / (z - b) instead of R / z."""
    del bias
    return r.linear(x, weight, None, relevance, **options)


def _linear_large_epsilon(
    x: Array, weight: Array, bias: Array | None, relevance: Array, **options: Any
) -> Array:
    """A stabiliser of 0.01 where almost none was asked for."""
    del options
    return r.linear(x, weight, bias, relevance, epsilon=1e-2)


def _linear_uniform(
    x: Array, weight: Array, bias: Array | None, relevance: Array, **options: Any
) -> Array:
    """Every input gets the mean: the flat rule."""
    found = r.linear(x, weight, bias, relevance, **options)
    return np.broadcast_to(found.mean(axis=-1, keepdims=True), found.shape)


def _add_halves(a: Array, b: Array, relevance: Array, **options: Any) -> Pair:
    """Half each, whatever the summands."""
    del options
    return r.product_uniform(a, b, relevance)


def _add_all_to_first(a: Array, b: Array, relevance: Array, **options: Any) -> Pair:
    """The skip connection takes all."""
    del options
    second, first = r.product_gate_constant(b, a, relevance)
    return first, second


def _half(x: Array, relevance: Array) -> Array:
    del x
    return relevance / 2.0


def _product_twice(a: Array, b: Array, relevance: Array) -> Pair:
    """The half is missing: what Gradient x Input does with a product."""
    first, second = r.product_uniform(a, b, relevance)
    return 2.0 * first, 2.0 * second


def _product_second_not_halved(a: Array, b: Array, relevance: Array) -> Pair:
    first, second = r.product_uniform(a, b, relevance)
    return first, 2.0 * second


def _product_all_to_gate(a: Array, b: Array, relevance: Array) -> Pair:
    to_b, to_a = r.product_gate_constant(b, a, relevance)
    return to_a, to_b


def _softmax_wrong_axis(x: Array, relevance: Array, *, axis: int = -1) -> Array:
    """The sum of relevance runs over the next axis instead."""
    shares = r.softmax(x, axis=axis)
    other = -2 if axis in (-1, x.ndim - 1) else -1
    finite = np.where(np.isfinite(x), x, 0.0)
    total: Array = relevance.sum(axis=other, keepdims=True)
    return finite * (relevance - shares * total)


def _softmax_without_sum(x: Array, relevance: Array, *, axis: int = -1) -> Array:
    """x R: the coupling of the entries is forgotten."""
    del axis
    return np.where(np.isfinite(x), x, 0.0) * relevance


def _softmax_without_input(x: Array, relevance: Array, *, axis: int = -1) -> Array:
    """R - s sum R: the factor x is forgotten."""
    shares = r.softmax(x, axis=axis)
    total: Array = relevance.sum(axis=axis, keepdims=True)
    return relevance - shares * total


def _softmax_identity(x: Array, relevance: Array, *, axis: int = -1) -> Array:
    """Relevance passes unchanged."""
    del x, axis
    return relevance


def _matmul_twice(a: Array, b: Array, relevance: Array, **options: Any) -> Pair:
    """The half is missing on both sides."""
    first, second = r.matmul_uniform(a, b, relevance, **options)
    return 2.0 * first, 2.0 * second


def _matmul_second_not_halved(
    a: Array, b: Array, relevance: Array, **options: Any
) -> Pair:
    first, second = r.matmul_uniform(a, b, relevance, **options)
    return first, 2.0 * second


def _matmul_all_to_first(a: Array, b: Array, relevance: Array, **options: Any) -> Pair:
    first, second = r.matmul_uniform(a, b, relevance, **options)
    return 2.0 * first, 0.0 * second


def _rms_norm_gradient(x: Array, relevance: Array) -> Array:
    """Gradient x Input through the root mean square (its eps neglected)."""
    shares: Array = x**2 / (x**2).sum(axis=-1, keepdims=True)
    total: Array = relevance.sum(axis=-1, keepdims=True)
    return relevance - shares * total


def _layer_norm_bias_shared(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    relevance: Array,
    **options: Any,
) -> Array:
    del bias
    return r.layer_norm(x, weight, None, relevance, **options)


def _layer_norm_identity(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    relevance: Array,
    **options: Any,
) -> Array:
    """R unchanged, as for RMSNorm: neither mean nor bias."""
    del x, weight, bias, options
    return relevance


def _layer_norm_mean_constant(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    relevance: Array,
    *,
    eps: float,
    epsilon: float = 0.0,
) -> Array:
    """The mean is held constant and absorbs relevance."""
    sigma = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    scale = 1.0 if weight is None else weight
    output = r.layer_norm_output(x, weight, bias, eps=eps)
    found: Array = x * scale / sigma * r.ratio(relevance, output, epsilon)
    return found


def _layer_norm_gradient(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    relevance: Array,
    *,
    eps: float,
    epsilon: float = 0.0,
) -> Array:
    """Gradient x Input through the standard deviation as well."""
    found = r.layer_norm(x, weight, bias, relevance, eps=eps, epsilon=epsilon)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    scale = 1.0 if weight is None else weight
    output = r.layer_norm_output(x, weight, bias, eps=eps)
    c = r.ratio(relevance, output, epsilon) * scale
    inner = (c * centred).sum(axis=-1, keepdims=True)
    through_sigma: Array = centred * inner / (x.shape[-1] * (variance + eps) ** 1.5)
    return found - x * through_sigma


MUTANTS: tuple[Mutant, ...] = (
    Mutant(name="1% too much", rule="linear", function=_one_percent(r.linear)),
    Mutant(
        name="1% too much in one feature",
        rule="linear",
        function=_one_row_percent(r.linear),
    ),
    Mutant(name="bias not absorbed", rule="linear", function=_linear_bias_shared),
    Mutant(name="epsilon 0.01", rule="linear", function=_linear_large_epsilon),
    Mutant(name="flat", rule="linear", function=_linear_uniform),
    Mutant(name="1% too much", rule="add", function=_one_percent(r.add)),
    Mutant(name="1% too much", rule="add", function=_one_percent_of_second(r.add)),
    Mutant(name="half each", rule="add", function=_add_halves),
    Mutant(name="all to the skip", rule="add", function=_add_all_to_first),
    Mutant(
        name="1% too much",
        rule="activation",
        function=_one_percent(r.activation_identity),
    ),
    Mutant(name="half missing", rule="activation", function=_half),
    Mutant(
        name="1% too much to the gate",
        rule="gated_product",
        function=_one_percent(r.product_uniform),
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="not halved",
        rule="gated_product",
        function=_product_twice,
    ),
    Mutant(
        name="one factor not halved",
        rule="gated_product",
        function=_product_second_not_halved,
    ),
    Mutant(name="all to the gate", rule="gated_product", function=_product_all_to_gate),
    Mutant(
        name="gate constant",
        rule="gated_product",
        function=r.product_gate_constant,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="gate relevant",
        rule="gated_product",
        function=r.product_uniform,
        methods=CPLRP_ONLY,
    ),
    Mutant(
        name="1% too much",
        rule="softmax",
        function=_one_percent(r.softmax_attnlrp),
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="wrong axis",
        rule="softmax",
        function=_softmax_wrong_axis,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="sum forgotten",
        rule="softmax",
        function=_softmax_without_sum,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="input forgotten",
        rule="softmax",
        function=_softmax_without_input,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="identity",
        rule="softmax",
        function=_softmax_identity,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="CP-LRP's", rule="softmax", function=r.softmax_cplrp, methods=ATTNLRP_ONLY
    ),
    Mutant(
        name="1% too much to the query",
        rule="score_matmul",
        function=_one_percent(r.matmul_uniform),
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="1% too much to the key",
        rule="score_matmul",
        function=_one_percent_of_second(r.matmul_uniform),
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="not halved",
        rule="score_matmul",
        function=_matmul_twice,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="all to the query",
        rule="score_matmul",
        function=_matmul_all_to_first,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="all to the key",
        rule="score_matmul",
        function=r.matmul_first_constant,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="1% too much to the weights",
        rule="value_matmul",
        function=_one_percent(r.matmul_uniform),
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="1% too much to the values",
        rule="value_matmul",
        function=_one_percent_of_second(r.matmul_uniform),
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="1% too much to the values",
        rule="value_matmul",
        function=_one_percent_of_second(r.matmul_first_constant),
        methods=CPLRP_ONLY,
    ),
    Mutant(
        name="not halved",
        rule="value_matmul",
        function=_matmul_twice,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="values not halved",
        rule="value_matmul",
        function=_matmul_second_not_halved,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="weights constant",
        rule="value_matmul",
        function=r.matmul_first_constant,
        methods=ATTNLRP_ONLY,
    ),
    Mutant(
        name="weights relevant",
        rule="value_matmul",
        function=r.matmul_uniform,
        methods=CPLRP_ONLY,
    ),
    Mutant(name="1% too much", rule="rms_norm", function=_one_percent(r.rms_norm)),
    Mutant(name="half missing", rule="rms_norm", function=_half),
    Mutant(name="gradient", rule="rms_norm", function=_rms_norm_gradient),
    Mutant(name="1% too much", rule="layer_norm", function=_one_percent(r.layer_norm)),
    Mutant(
        name="bias not absorbed", rule="layer_norm", function=_layer_norm_bias_shared
    ),
    Mutant(name="identity", rule="layer_norm", function=_layer_norm_identity),
    Mutant(name="mean constant", rule="layer_norm", function=_layer_norm_mean_constant),
    Mutant(name="gradient", rule="layer_norm", function=_layer_norm_gradient),
)


def mutants_of(rule: str, method: str) -> tuple[Mutant, ...]:
    """The mutants of one rule that are wrong under `method`.

    Args:
        rule (str): A field of `RuleSet`.
        method (str): "attnlrp" or "cplrp".

    Raises:
        ValueError: If there is none, as a test over none could not fail.
    """
    found = tuple(m for m in MUTANTS if m.rule == rule and method in m.methods)
    if not found:
        raise ValueError(f"no mutant of {rule!r} is wrong under {method!r}")
    return found
