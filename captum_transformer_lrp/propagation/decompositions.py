"""Fused operators written as the operators that they stand for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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
    return pattern @ value


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Return ``a sigmoid(b)`` of the halves ``a, b`` along ``dim``.

    Arguments and shapes are those of :func:`torch.nn.functional.glu`.
    """
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


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
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {"glu": glu, **RECURRENT}
