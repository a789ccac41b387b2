"""Fused operators written as the operators that they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .._torch import decompositions
from .recurrent import RECURRENT


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return ``softmax(scale * q k^T + mask) v``.

    Arguments and shapes are those of
    :func:`torch.nn.functional.scaled_dot_product_attention`.
    """
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key = key.repeat_interleave(groups, -3)
        value = value.repeat_interleave(groups, -3)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query @ key.transpose(-2, -1)) * scale
    if is_causal:
        shape = scores.shape[-2:]
        seen = torch.ones(shape, dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    pattern = scores.softmax(-1)
    if dropout_p:
        pattern = functional.dropout(pattern, dropout_p)
    output = pattern @ value
    if output.dim() != 4:
        return output
    # kernels lay heads beside features, and a view behind them may rely on it
    return output.transpose(1, 2).contiguous().transpose(1, 2)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Return ``a sigmoid(b)`` of the halves ``a, b`` along ``dim``.

    Arguments and shapes are those of :func:`torch.nn.functional.glu`.
    """
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


def attention_kernel(
    names: tuple[str, ...],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    **kwargs: Any,
) -> tuple[Any, ...]:
    """Return fused attention as one of its kernels does, which exported graphs call.

    The kernels that :func:`torch.nn.functional.scaled_dot_product_attention` chooses
    from also return what their backward passes need. That is no part of the model, and
    None stands for it.

    Args:
        names (tuple of str): those of the kernel's further positional arguments.
        query (Tensor): as for attention.
        key (Tensor): likewise.
        value (Tensor): likewise.
        *args (Any): the kernel's further arguments.
        **kwargs (Any): likewise, by name.
    """
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    output = functional.scaled_dot_product_attention(
        query,
        key,
        value,
        given.get("attn_bias", given.get("attn_mask")),
        given.get("dropout_p", 0.0),
        given.get("is_causal", False),
        scale=given.get("scale"),
        enable_gqa=given.get("enable_gqa", False),
    )
    return (output, *[None] * 8)


# ----------------------------------------------------- element by element, of several


def addcmul(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1
) -> Tensor:
    """Return ``input + value * tensor1 * tensor2``."""
    product = tensor1 * tensor2
    return input + (product if value == 1 else value * product)


def addcdiv(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1
) -> Tensor:
    """Return ``input + value * tensor1 / tensor2``."""
    quotient = tensor1 / tensor2
    return input + (quotient if value == 1 else value * quotient)


def addr(
    input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Return ``beta * input + alpha * outer(vec1, vec2)``."""
    product = torch.outer(vec1, vec2)
    product = product if alpha == 1 else alpha * product
    return (input if beta == 1 else beta * input) + product


def lerp(input: Tensor, end: Tensor, weight: float | Tensor) -> Tensor:
    """Return ``(1 - weight) * input + weight * end``."""
    return (1 - weight) * input + weight * end


def frac(input: Tensor) -> Tensor:
    """Return ``input - trunc(input)``."""
    return input - input.detach().trunc()


def remainder(input: Any, other: Any) -> Any:
    """Return ``input - floor(input / other) * other``."""
    return _left_over(input, other, "floor")


def fmod(input: Any, other: Any) -> Any:
    """Return ``input - trunc(input / other) * other``."""
    return _left_over(input, other, "trunc")


def _left_over(input: Any, other: Any, rounding: str) -> Any:
    value, by = (t.detach() if isinstance(t, Tensor) else t for t in (input, other))
    like = by if isinstance(by, Tensor) else value
    times = torch.div(torch.as_tensor(value).to(like), by, rounding_mode=rounding)
    return input - times * other


def copysign(input: Any, other: Any) -> Any:
    """Return ``abs(input)`` with the sign of ``other``, which is a constant."""
    sign = other.detach() if isinstance(other, Tensor) else other
    return input.abs() * torch.copysign(torch.ones_like(input), sign)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """Return ``input * 2 ** other``."""
    return input * torch.pow(2.0, other)


def xlogy(input: Any, other: Any) -> Any:
    """Return ``input * log(other)``, 0 where ``input`` is."""
    return _times_log(input, other, torch.log)


def xlog1py(input: Any, other: Any) -> Any:
    """Return ``input * log(1 + other)``, 0 where ``input`` is."""
    return _times_log(input, other, torch.log1p)


def _times_log(input: Any, other: Any, log: Callable[[Tensor], Tensor]) -> Any:
    like = input if isinstance(input, Tensor) else other
    other = other if isinstance(other, Tensor) else torch.full_like(like, other)
    zero = torch.as_tensor(input) == 0
    return input * log(torch.where(zero, torch.ones_like(other), other))


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """Return ``log(exp(input) + exp(other))``, as logsumexp does."""
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other)), 0)


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """Return ``log2(2 ** input + 2 ** other)``."""
    scale = math.log(2.0)
    return logaddexp(input * scale, other * scale) / scale


def float_power(input: Any, exponent: Any) -> Any:
    """Return ``input ** exponent`` in double precision."""
    return torch.pow(_doubled(input), _doubled(exponent))


def _doubled(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value if isinstance(value, complex) else float(value)
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def polar(abs: Tensor, angle: Tensor) -> Tensor:
    """Return the complex number ``abs * (cos(angle) + i sin(angle))``."""
    return torch.complex(abs * angle.cos(), abs * angle.sin())


# ----------------------------------------------------------------- distances and norms


def cosine_similarity(
    x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8
) -> Tensor:
    """Return the sum of products of both vectors, each divided by its norm."""
    x1, x2 = torch.broadcast_tensors(x1, x2)
    first = functional.normalize(x1, dim=dim, eps=eps)
    return (first * functional.normalize(x2, dim=dim, eps=eps)).sum(dim)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """Return the norm of ``x1 - x2 + eps`` over the last dimension."""
    distance: Tensor = torch.linalg.vector_norm(
        x1 - x2 + eps, p, dim=-1, keepdim=keepdim
    )
    return distance


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """Return the norm of ``input - other``."""
    distance: Tensor = torch.linalg.vector_norm(input - other, p)
    return distance


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, *_: Any, **__: Any) -> Tensor:
    """Return the distances of all rows of ``x1`` to all of ``x2``."""
    between = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    distances: Tensor = torch.linalg.vector_norm(between, p, dim=-1)
    return distances


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """Return the distances of all pairs of rows, each pair once."""
    count = input.shape[0]
    first, second = torch.triu_indices(count, count, 1, device=input.device)
    between = input[first] - input[second]
    distances: Tensor = torch.linalg.vector_norm(between, p, dim=-1)
    return distances


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Return slices along ``dim``, those of a larger norm scaled to ``maxnorm``."""
    others = [d for d in range(input.dim()) if d != dim % input.dim()]
    norm = torch.linalg.vector_norm(input, p, dim=others, keepdim=True)
    return input * torch.where(norm > maxnorm, maxnorm / (norm + 1e-7), 1.0)


# ----------------------------------------------- normalisations that return statistics


def native_layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a layer norm, the mean and the reciprocal standard deviation."""
    output = functional.layer_norm(input, tuple(normalized_shape), weight, bias, eps)
    dims = tuple(range(-len(normalized_shape), 0))
    variance, mean = torch.var_mean(input, dims, correction=0, keepdim=True)
    return output, mean, torch.rsqrt(variance + eps)


def fused_rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
) -> tuple[Tensor, Tensor]:
    """Return a root-mean-square norm and the reciprocal root mean square."""
    output = functional.rms_norm(input, tuple(normalized_shape), weight, eps)
    dims = tuple(range(-len(normalized_shape), 0))
    tiny = torch.finfo(input.dtype).eps if eps is None else eps
    return output, torch.rsqrt(input.square().mean(dims, keepdim=True) + tiny)


def native_group_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    N: int,
    C: int,
    HxW: int,  # noqa: N803
    group: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a group norm, the mean and the reciprocal standard deviation."""
    output = functional.group_norm(input, group, weight, bias, eps)
    grouped = input.reshape(N, group, -1)
    variance, mean = torch.var_mean(grouped, -1, correction=0)
    return output, mean, torch.rsqrt(variance + eps)


def native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch norm, and statistics where it takes those of the batch."""
    output = functional.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )
    if not training:
        return output, input.new_zeros(0), input.new_zeros(0)
    dims = (0, *range(2, input.dim()))
    variance, mean = torch.var_mean(input, dims, correction=0)
    return output, mean, torch.rsqrt(variance + eps)


def native_batch_norm_legit(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch norm, with running statistics or without any."""
    if isinstance(rest[0], bool):
        rest = (None, None, *rest)
    return native_batch_norm(input, weight, bias, *rest)


def native_batch_norm_no_training(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a batch norm with running statistics, and what has no content."""
    return native_batch_norm(
        input, weight, bias, running_mean, running_var, False, momentum, eps
    )


def batch_norm_no_update(*args: Any) -> tuple[Tensor, ...]:
    """Return a batch norm with running statistics, and a fourth thing of no content."""
    return (*native_batch_norm_no_training(*args), args[0].new_zeros(0))


_DROPOUT = ("dropout_p", "is_causal")
#: kernels of fused attention -> what follows query, key and value
_KERNELS: dict[str, tuple[str, ...]] = {
    "flash_attention_for_cpu": _DROPOUT,
    "flash_attention": _DROPOUT,
    "efficient_attention": ("attn_bias", "compute_log_sumexp", *_DROPOUT),
    "cudnn_attention": ("attn_bias", "compute_log_sumexp", *_DROPOUT),
    "fused_attention_overrideable": ("attn_bias", *_DROPOUT),
    "attention_math": ("attn_mask", *_DROPOUT),
}


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Return the sum, mean or largest of the embeddings of each bag of identifiers.

    Arguments and shapes are those of :func:`torch.nn.functional.embedding_bag`: bags
    are the rows of ``input``, or start at ``offsets``; an empty one is 0.
    """
    rows = functional.embedding(input, weight, max_norm=max_norm, norm_type=norm_type)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if input.dim() == 2 and padding_idx is None and input.shape[1]:
        return _of_bag(rows, mode, 1)
    bags: list[Tensor]
    if input.dim() == 2:
        bags, ids = list(rows), list(input)
    else:
        assert offsets is not None
        ends = [*offsets.tolist(), *([] if include_last_offset else [len(rows)])]
        parts = [slice(a, b) for a, b in itertools.pairwise(ends)]
        bags, ids = [rows[part] for part in parts], [input[part] for part in parts]
    if padding_idx is not None:
        padding = padding_idx % len(weight)
        bags = [bag[i != padding] for bag, i in zip(bags, ids, strict=True)]
    empty = weight.new_zeros(weight.shape[1])
    return torch.stack([_of_bag(b, mode, 0) if len(b) else empty for b in bags])


def _of_bag(rows: Tensor, mode: str, dim: int) -> Tensor:
    if mode == "max":
        largest: Tensor = rows.max(dim).values
        return largest
    return rows.sum(dim) if mode == "sum" else rows.mean(dim)


def embedding_bag_of_aten(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, ...]:
    """Return :func:`embedding_bag` with the arguments of ``torch.embedding_bag``.

    Of the four tensors that it returns, three only serve its backward pass.
    """
    bags = embedding_bag(
        indices,
        weight,
        offsets,
        mode=("sum", "mean", "max")[mode],
        per_sample_weights=per_sample_weights,
        include_last_offset=include_last_offset,
        padding_idx=None if padding_idx is None or padding_idx < 0 else padding_idx,
    )
    nothing = offsets.new_zeros(0)
    return bags, nothing, nothing, nothing


#: operators that every method sees written out
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "glu": glu,
    **RECURRENT,
    **{
        f"_scaled_dot_product_{name}": partial(attention_kernel, names)
        for name, names in _KERNELS.items()
    },
    "addcmul": addcmul,
    "addcdiv": addcdiv,
    "addr": addr,
    "lerp": lerp,
    "frac": frac,
    "remainder": remainder,
    "fmod": fmod,
    "copysign": copysign,
    "ldexp": ldexp,
    "xlogy": xlogy,
    "special_xlogy": xlogy,
    "special_xlog1py": xlog1py,
    "logaddexp": logaddexp,
    "logaddexp2": logaddexp2,
    "float_power": float_power,
    "polar": polar,
    "cosine_similarity": cosine_similarity,
    "pairwise_distance": pairwise_distance,
    "dist": dist,
    "cdist": cdist,
    "_cdist_forward": cdist,
    "_euclidean_dist": cdist,
    "pdist": pdist,
    "_pdist_forward": pdist,
    "renorm": renorm,
    "native_layer_norm": native_layer_norm,
    "_fused_rms_norm": fused_rms_norm,
    "native_group_norm": native_group_norm,
    "native_batch_norm": native_batch_norm,
    "_native_batch_norm_legit": native_batch_norm_legit,
    "_native_batch_norm_legit_no_training": native_batch_norm_no_training,
    "_batch_norm_no_update": batch_norm_no_update,
}


#: operators that torch writes out, and whose relevance is accounted for as written
WRITTEN_BY_TORCH = frozenset(
    """mse_loss smooth_l1_loss huber_loss binary_cross_entropy multi_margin_loss
    binary_cross_entropy_with_logits _addmm_activation""".split()
)


def torch_decomposition(name: str) -> Callable[..., Any] | None:
    """Return how torch itself writes an operator by others, for those in the list.

    Torch writes out hundreds. Not listed are those that have a rule or stand above,
    that work element by element (they are one activation, and no sum of pieces), and
    whose pieces do not account for what the whole hands on.
    """
    if name not in WRITTEN_BY_TORCH:
        return None
    return decompositions().get(getattr(torch.ops.aten, name).default)
