"""Relevance rules, transcribed from their papers one formula at a time.

Everything here speaks *relevance form*: a rule receives the relevance of an
operator's output and returns the relevance of its inputs. No gradient is
taken, no gradient is modified and nothing of the package under test is
imported, so an error in the package cannot hide here as well. Arrays are
numpy's, in float64.

The ratio R / z. Most rules divide a relevance by the value it belongs to.
With ``epsilon = 0`` (LRP-0, the limit in which Gradient x Input states the
rule) an output that is exactly zero can carry no relevance, and ``0 / 0`` is
taken as 0; relevance on a zero output is refused. This is the one place where
the relevance form knows less than the gradient form: the latter carries the
finite quotient c = R / z through z = 0. The two agree unless non-zero inputs
cancel to exactly zero, which does not happen with inputs drawn at random; a
test that wants such a case has to use ``epsilon > 0``.

Sources:
    Bach et al. 2015, "On pixel-wise explanations ...", PLoS ONE 10(7):
        LRP-epsilon, equation (58).
    Ali et al. 2022, "XAI for Transformers: Better Explanations through
        Conservative Propagation", arXiv:2202.07304: CP-LRP.
    Achtibat et al. 2024, "AttnLRP: Attention-Aware Layer-Wise Relevance
        Propagation for Transformers", arXiv:2402.05602: AttnLRP,
        propositions 3.1 to 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Pair = tuple[Array, Array]


def as_array(values: Any) -> Array:
    """A float64 copy of anything array-like, torch tensors included.

    Args:
        values (array-like or torch.Tensor): Any shape. A tensor is detached and
            moved to the CPU.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64)


def stabilize(values: Array, epsilon: float) -> Array:
    """``z + epsilon`` for z >= 0 and ``z - epsilon`` for z < 0.

    The sign function of Bach et al. 2015, equation (58), in which zero counts
    as positive.
    """
    return np.where(values >= 0.0, values + epsilon, values - epsilon)


def ratio(relevance: Array, values: Array, epsilon: float = 0.0) -> Array:
    """``R / s(z)`` entry by entry, with ``0 / 0 = 0``.

    Args:
        relevance (ndarray): R, any shape.
        values (ndarray): z, of the same shape. Infinite values (masked scores)
            must carry no relevance.
        epsilon (float, optional): The stabiliser. Default: 0.0

    Raises:
        ZeroDivisionError: If an entry has R != 0 and s(z) = 0.
        ValueError: If the shapes differ or R != 0 at an infinite z.
    """
    if relevance.shape != values.shape:
        raise ValueError(
            f"relevance has shape {relevance.shape}, but the output it belongs to "
            f"has shape {values.shape}"
        )
    quotient = np.zeros_like(relevance)
    for index in np.ndindex(relevance.shape):
        if relevance[index] == 0.0:
            continue
        z = float(values[index])
        if not math.isfinite(z):
            raise ValueError(f"relevance {relevance[index]} on the value {z}")
        denominator = z + epsilon if z >= 0.0 else z - epsilon
        if denominator == 0.0:
            raise ZeroDivisionError(
                f"relevance {relevance[index]} at index {index} sits on an output "
                "that is exactly 0; LRP-0 is undefined there, use epsilon > 0"
            )
        quotient[index] = relevance[index] / denominator
    return quotient


def sum_to_shape(values: Array, shape: tuple[int, ...]) -> Array:
    """Sum a broadcast result back to the shape of the operand it came from.

    An operand that was repeated by broadcasting receives the relevance of all
    its copies.
    """
    while values.ndim > len(shape):
        values = values.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1 and values.shape[axis] != 1:
            values = values.sum(axis=axis, keepdims=True)
    return values


# --- linear operators -------------------------------------------------------


def linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    relevance: Array,
    *,
    epsilon: float = 0.0,
) -> Array:
    r"""LRP-epsilon for ``z = x W^T + b``.

    .. math:: R_i = \sum_j \frac{x_i w_{ji}}{s(z_j)} R_j

    Bach et al. 2015, equation (58), which Achtibat et al. 2024 take for every
    linear layer. The bias is part of z_j and receives no share: it absorbs
    relevance, and the sum is conserved for ``b = 0`` and ``epsilon = 0`` only.

    Args:
        x (ndarray): ``(..., in)``.
        weight (ndarray): ``(out, in)``.
        bias (ndarray or None): ``(out,)``.
        relevance (ndarray): ``(..., out)``.
        epsilon (float, optional): The stabiliser. Default: 0.0

    Returns:
        ndarray: ``(..., in)``.
    """
    z = np.einsum("...i,ji->...j", x, weight)
    if bias is not None:
        z = z + bias
    c = ratio(relevance, z, epsilon)
    result: Array = np.einsum("...i,ji,...j->...i", x, weight, c)
    return result


def add(a: Array, b: Array, relevance: Array, *, epsilon: float = 0.0) -> Pair:
    r"""Epsilon split for ``z = a + b``.

    .. math:: R_a = \frac{a}{s(z)} R, \quad R_b = \frac{b}{s(z)} R

    The linear rule with unit weights, for residual connections. Conserves for
    ``epsilon = 0``. Operands may be broadcast.
    """
    c = ratio(relevance, a + b, epsilon)
    return sum_to_shape(a * c, a.shape), sum_to_shape(b * c, b.shape)


def embedding(indices: npt.NDArray[np.int64], relevance: Array, rows: int) -> Pair:
    r"""Relevance of tokens and of table rows for ``z_t = E[index_t]``.

    .. math:: R_t = \sum_d R_{td}, \quad R_{E[r], d} = \sum_{t: index_t = r} R_{td}

    A look-up copies; the copies' relevance is summed. Conserves.

    Args:
        indices (ndarray): ``(batch, tokens)``, integers.
        relevance (ndarray): ``(batch, tokens, features)``.
        rows (int): The number of rows of the table.

    Returns:
        tuple: Token relevance ``(batch, tokens)`` and table relevance
        ``(rows, features)``.
    """
    table = np.zeros((rows, relevance.shape[-1]))
    tokens = np.zeros(indices.shape)
    for index in np.ndindex(indices.shape):
        table[indices[index]] += relevance[index]
        tokens[index] = relevance[index].sum()
    return tokens, table


# --- elementwise operators --------------------------------------------------


def activation_identity(x: Array, relevance: Array) -> Array:
    r"""Identity rule for an elementwise function ``y_i = f(x_i)``.

    .. math:: R^{in}_i = R^{out}_i

    Achtibat et al. 2024 (each output depends on one input, so conservation leaves
    nothing to divide). Conserves.

    Args:
        x (ndarray): Any shape; only its shape is used.
        relevance (ndarray): The same shape.
    """
    if x.shape != relevance.shape:
        raise ValueError(f"shapes differ: {x.shape} and {relevance.shape}")
    return relevance.copy()


def product_uniform(a: Array, b: Array, relevance: Array) -> Pair:
    r"""Uniform rule for ``z = a * b`` with both factors relevant.

    .. math:: R_a = R_b = R / 2

    Achtibat et al. 2024, proposition 3.2 with N = 2. Conserves. Operands may be
    broadcast.
    """
    half = np.broadcast_to(relevance / 2.0, np.broadcast_shapes(a.shape, b.shape))
    return sum_to_shape(half, a.shape), sum_to_shape(half, b.shape)


def product_gate_constant(a: Array, b: Array, relevance: Array) -> Pair:
    r"""Product ``z = a * b`` in which the gate `a` is a constant.

    .. math:: R_a = 0, \quad R_b = R

    The idea of Ali et al. 2022 for attention weights (a gate is a weight of a
    locally linear map), applied to gated units as LXT does. Conserves.
    """
    full = np.broadcast_to(relevance, np.broadcast_shapes(a.shape, b.shape))
    return np.zeros(a.shape), sum_to_shape(full, b.shape)


# --- softmax ----------------------------------------------------------------


def softmax(x: Array, *, axis: int = -1) -> Array:
    """The softmax itself, entry by entry; ``-inf`` gives 0.

    A slice in which every entry is ``-inf`` gives zeros (as a padded query does
    in torch's scaled dot product attention), not NaN.
    """
    moved = np.moveaxis(x, axis, -1)
    result = np.zeros(moved.shape)
    for index in np.ndindex(moved.shape[:-1]):
        row = moved[index]
        top = row.max()
        if top == -math.inf:
            continue
        powers = [math.exp(value - top) for value in row]
        for position, power in enumerate(powers):
            result[(*index, position)] = power / math.fsum(powers)
    return np.moveaxis(result, -1, axis)


def softmax_attnlrp(x: Array, relevance: Array, *, axis: int = -1) -> Array:
    r"""AttnLRP's rule for ``s = softmax(x)``.

    .. math:: R^{in}_i = x_i \Bigl(R_i - s_i \sum_j R_j\Bigr)

    Achtibat et al. 2024, proposition 3.1 (a Taylor expansion whose bias term
    absorbs the rest). Not conserving. An entry with ``x_i = -inf`` has s_i = 0,
    carries no relevance and gets 0.

    Args:
        x (ndarray): Any shape.
        relevance (ndarray): The same shape.
        axis (int, optional): The axis that the softmax normalises. Default: -1

    Raises:
        ValueError: If a masked entry carries relevance.
    """
    values = np.moveaxis(x, axis, -1)
    shares = np.moveaxis(softmax(x, axis=axis), axis, -1)
    incoming = np.moveaxis(relevance, axis, -1)
    result = np.zeros(values.shape)
    for index in np.ndindex(values.shape[:-1]):
        total = math.fsum(incoming[index])
        for i in range(values.shape[-1]):
            here = (*index, i)
            if values[here] == -math.inf:
                if incoming[here] != 0.0:
                    raise ValueError(f"masked entry {here} carries relevance")
                continue
            result[here] = values[here] * (incoming[here] - shares[here] * total)
    return np.moveaxis(result, -1, axis)


def softmax_cplrp(x: Array, relevance: Array, *, axis: int = -1) -> Array:
    r"""CP-LRP's rule for a softmax: the attention weights are constants.

    .. math:: R^{in}_i = 0

    Ali et al. 2022, the rule for attention heads. What arrives here is lost;
    CP-LRP conserves because its value product sends nothing here.
    """
    del relevance, axis
    return np.zeros(x.shape)


# --- matrix products --------------------------------------------------------


def matmul_uniform(
    a: Array, b: Array, relevance: Array, *, epsilon: float = 0.0
) -> Pair:
    r"""AttnLRP's rule for ``O = A B`` with both factors relevant.

    .. math::
        R_{A,ji} = \sum_p \frac{A_{ji} B_{ip}}{2\,s(O_{jp})} R_{jp}, \quad
        R_{B,ip} = \sum_j \frac{A_{ji} B_{ip}}{2\,s(O_{jp})} R_{jp}

    Achtibat et al. 2024, proposition 3.3: epsilon over the summands, then the
    uniform rule over the two factors of each. Conserves for ``epsilon = 0``,
    half in each factor. The stabiliser is added to O; the paper adds it to 2 O,
    which is the same rule with twice the epsilon.

    Args:
        a (ndarray): ``(..., j, i)``.
        b (ndarray): ``(..., i, p)``; leading shapes equal those of `a`.
        relevance (ndarray): ``(..., j, p)``.
        epsilon (float, optional): The stabiliser. Default: 0.0
    """
    c = ratio(relevance, np.einsum("...ji,...ip->...jp", a, b), epsilon)
    to_a = np.einsum("...ji,...ip,...jp->...ji", a, b, c) / 2.0
    to_b = np.einsum("...ji,...ip,...jp->...ip", a, b, c) / 2.0
    return to_a, to_b


def matmul_first_constant(
    a: Array, b: Array, relevance: Array, *, epsilon: float = 0.0
) -> Pair:
    r"""CP-LRP's rule for ``O = A B``: the attention weights `A` are constants.

    .. math:: R_A = 0, \quad
        R_{B,ip} = \sum_j \frac{A_{ji} B_{ip}}{s(O_{jp})} R_{jp}

    Ali et al. 2022, the rule for attention heads ("AH"). Conserves for
    ``epsilon = 0``. Shapes as for `matmul_uniform`.
    """
    c = ratio(relevance, np.einsum("...ji,...ip->...jp", a, b), epsilon)
    return np.zeros(a.shape), np.einsum("...ji,...ip,...jp->...ip", a, b, c)


# --- normalisation ----------------------------------------------------------


def rms_norm(x: Array, relevance: Array) -> Array:
    r"""Identity rule for ``y_i = w_i x_i / rms(x)``.

    .. math:: R^{in}_i = R^{out}_i

    Achtibat et al. 2024, proposition 3.4: with ``1 / rms(x)`` constant the map
    is diagonal. It does not matter whether the weight is w or 1 + w. Conserves.
    """
    if x.shape != relevance.shape:
        raise ValueError(f"shapes differ: {x.shape} and {relevance.shape}")
    return relevance.copy()


def layer_norm_output(
    x: Array, weight: Array | None, bias: Array | None, *, eps: float
) -> Array:
    """``(x - mean) / sqrt(var + eps) * w + b`` over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    result: Array = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps)
    if weight is not None:
        result = result * weight
    return result if bias is None else result + bias


def layer_norm(
    x: Array,
    weight: Array | None,
    bias: Array | None,
    relevance: Array,
    *,
    eps: float,
    epsilon: float = 0.0,
) -> Array:
    r"""Layer normalisation with its standard deviation held constant.

    .. math::
        y_j = \sum_i M_{ji} x_i + b_j, \quad
        M_{ji} = \frac{w_j}{\sigma}\Bigl(\delta_{ji} - \frac 1N\Bigr), \quad
        R_i = \sum_j \frac{M_{ji} x_i}{s(y_j)} R_j

    Achtibat et al. 2024, proposition 3.4 (identity on the division by sigma;
    the mean stays a linear map under epsilon); Ali et al. 2022 (the rule
    "LN"). The bias absorbs: conserves for ``b = 0`` and
    ``epsilon = 0``.

    Args:
        x (ndarray): ``(..., N)``.
        weight (ndarray or None): ``(N,)``.
        bias (ndarray or None): ``(N,)``.
        relevance (ndarray): ``(..., N)``.
        eps (float): The constant inside the root of the layer itself.
        epsilon (float, optional): The stabiliser of the rule. Default: 0.0
    """
    size = x.shape[-1]
    scale = np.ones(size) if weight is None else weight
    result = np.zeros(x.shape)
    c = ratio(relevance, layer_norm_output(x, weight, bias, eps=eps), epsilon)
    for index in np.ndindex(x.shape[:-1]):
        row = x[index]
        sigma = math.sqrt(math.fsum((row - row.mean()) ** 2) / size + eps)
        for i in range(size):
            for j in range(size):
                m = scale[j] / sigma * ((1.0 if i == j else 0.0) - 1.0 / size)
                result[(*index, i)] += m * row[i] * c[(*index, j)]
    return result


# --- methods ----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RuleSet:
    """One rule for every kind of operator: a method.

    `dataclasses.replace` swaps a rule, which is how mutants are made.

    Args:
        linear (callable): As `linear`.
        add (callable): As `add`.
        activation (callable): As `activation_identity`.
        gated_product (callable): ``(gate, up, relevance)``, as
            `product_uniform`.
        softmax (callable): As `softmax_attnlrp`.
        score_matmul (callable): ``(query, key transposed, relevance)``, as
            `matmul_uniform`.
        value_matmul (callable): ``(attention weights, value, relevance)``.
        rms_norm (callable): As `rms_norm`.
        layer_norm (callable): As `layer_norm`.
    """

    linear: Callable[..., Array] = linear
    add: Callable[..., Pair] = add
    activation: Callable[..., Array] = activation_identity
    gated_product: Callable[..., Pair] = product_uniform
    softmax: Callable[..., Array] = softmax_attnlrp
    score_matmul: Callable[..., Pair] = matmul_uniform
    value_matmul: Callable[..., Pair] = matmul_uniform
    rms_norm: Callable[..., Array] = rms_norm
    layer_norm: Callable[..., Array] = layer_norm


ATTNLRP = RuleSet()
CPLRP = RuleSet(
    gated_product=product_gate_constant,
    softmax=softmax_cplrp,
    value_matmul=matmul_first_constant,
)
METHODS = {"attnlrp": ATTNLRP, "cplrp": CPLRP}


def method_rules(method: str | RuleSet) -> RuleSet:
    """The rules of a method given by name, or a `RuleSet` as it is.

    Raises:
        ValueError: If the name is unknown.
    """
    if isinstance(method, RuleSet):
        return method
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; write one of {sorted(METHODS)}")
    return METHODS[method]


# --- attention, composed of the above ---------------------------------------


def repeat_heads(x: Array, groups: int) -> Array:
    """Every head of ``(batch, heads, tokens, features)`` `groups` times in a row."""
    return np.repeat(x, groups, axis=1)


def sum_head_groups(relevance: Array, groups: int) -> Array:
    """The reverse of `repeat_heads`: the copies' relevance is summed."""
    batch, heads, tokens, features = relevance.shape
    grouped = relevance.reshape(batch, heads // groups, groups, tokens, features)
    summed: Array = grouped.sum(axis=2)
    return summed


def attention_scores(
    query: Array,
    key: Array,
    *,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Pair:
    """Scaled products ``(batch, heads, queries, keys)`` without and with the mask.

    Args:
        query (ndarray): ``(batch, heads, queries, features)``.
        key (ndarray): ``(batch, heads, keys, features)``.
        mask (ndarray, optional): Added to the scores, broadcastable; ``-inf``
            removes an entry. Boolean masks (True: keep) are taken too.
            Default: None
        causal (bool, optional): Removes keys after the query. Default: False
        scale (float, optional): Default: ``1 / sqrt(features)``
    """
    if scale is None:
        scale = 1.0 / math.sqrt(query.shape[-1])
    products = np.einsum("bhjd,bhid->bhji", query, key) * scale
    scores = products
    if mask is not None:
        if mask.dtype == np.bool_:
            mask = np.where(mask, 0.0, -np.inf)
        scores = scores + mask
    if causal:
        keep = np.tril(np.ones(scores.shape[-2:], dtype=bool))
        scores = np.where(keep, scores, -np.inf)
    return products, scores


def attention_output(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """Scaled dot product attention itself; arguments as for `attention`."""
    groups = query.shape[1] // key.shape[1]
    _, scores = attention_scores(
        query, repeat_heads(key, groups), mask=mask, causal=causal, scale=scale
    )
    values = repeat_heads(value, groups)
    output: Array = np.einsum("bhji,bhid->bhjd", softmax(scores), values)
    return output


def attention(
    query: Array,
    key: Array,
    value: Array,
    relevance: Array,
    *,
    method: str | RuleSet,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> tuple[Array, Array, Array]:
    r"""Scaled dot product attention: product, mask, softmax and product in turn.

    .. math:: O = \mathrm{softmax}(\mathrm{scale}\,Q K^T + M) V

    The value product, the softmax, the sum with the mask (epsilon split; the
    share of a finite additive bias M is absorbed, a removed entry carries
    nothing), the constant scale (identity) and the score product, each by its
    rule in `method`. AttnLRP: a half of R reaches the values exactly, the rest
    is changed by the softmax's rule. CP-LRP: all of R reaches the values.

    Args:
        query (ndarray): ``(batch, heads, queries, features)``.
        key (ndarray): ``(batch, key heads, keys, features)``; the number of
            heads is a multiple of the number of key heads.
        value (ndarray): ``(batch, key heads, keys, features)``.
        relevance (ndarray): ``(batch, heads, queries, features)``.
        method (str or RuleSet): "attnlrp", "cplrp" or a set of rules.
        mask (ndarray, optional): As for `attention_scores`. Default: None
        causal (bool, optional): As for `attention_scores`. Default: False
        scale (float, optional): As for `attention_scores`. Default: None

    Returns:
        tuple: Relevance of query, key and value.
    """
    rules = method_rules(method)
    groups = query.shape[1] // key.shape[1]
    keys, values = repeat_heads(key, groups), repeat_heads(value, groups)
    products, scores = attention_scores(
        query, keys, mask=mask, causal=causal, scale=scale
    )
    weights = softmax(scores)
    to_weights, to_values = rules.value_matmul(weights, values, relevance)
    to_scores = rules.softmax(scores, to_weights)
    to_products = products * ratio(to_scores, scores)
    to_query, to_keys = rules.score_matmul(query, keys.swapaxes(-1, -2), to_products)
    return (
        to_query,
        sum_head_groups(to_keys.swapaxes(-1, -2), groups),
        sum_head_groups(to_values, groups),
    )
