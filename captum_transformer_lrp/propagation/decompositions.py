"""Fused operators written as the operators that they stand for."""

from __future__ import annotations

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


#: operators that every method sees written out
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {"glu": glu, **RECURRENT}
