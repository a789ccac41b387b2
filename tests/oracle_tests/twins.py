"""Modified gradients by autograd: a second derivation of the rules.

The oracles state relevance; these functions state the gradient whose product
with the input is that relevance. They share no line with the oracles, so the two
check each other. The factors are those of Achtibat et al. 2024, arXiv:2402.05602,
and Ali et al. 2022, arXiv:2202.07304.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """`x` itself, with `factor` times its gradient."""
    return x * factor + (x * (1.0 - factor)).detach()


def activation(x: Tensor, output: Tensor) -> Tensor:
    """`output`, with the gradient ``output / x`` of the identity rule."""
    return x * (output / x).detach()


def layer_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """Layer normalisation with a constant standard deviation."""
    centred = x - x.mean(-1, keepdim=True)
    output = centred / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt().detach()
    if weight is not None:
        output = output * weight
    return output if bias is None else output + bias


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    method: str,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Torch's own attention with the gradients of its inputs scaled.

    AttnLRP: query and key pass two products, 1/2 each, hence 1/4; the value one.
    CP-LRP: query and key are constants.
    """
    if method == "attnlrp":
        query, key = scaled_gradient(query, 0.25), scaled_gradient(key, 0.25)
        value = scaled_gradient(value, 0.5)
    else:
        query, key = query.detach(), key.detach()
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=causal,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def timm_vit(model: Any, pixels: Tensor, method: str) -> Tensor:
    """The logits of a timm ``VisionTransformer``, differentiable the LRP way."""
    norm = model.norm
    x = model.patch_embed(pixels)
    x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
    x = x + model.pos_embed
    batch, tokens, features = x.shape
    for block in model.blocks:
        heads = block.attn.num_heads
        inner = layer_norm(x, block.norm1.weight, block.norm1.bias, block.norm1.eps)
        fused = block.attn.qkv(inner).view(batch, tokens, 3, heads, features // heads)
        mixed = attention(*fused.permute(2, 0, 3, 1, 4), method=method)
        x = x + block.attn.proj(mixed.transpose(1, 2).reshape(x.shape))
        inner = layer_norm(x, block.norm2.weight, block.norm2.bias, block.norm2.eps)
        hidden = block.mlp.fc1(inner)
        cdf = 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))
        x = x + block.mlp.fc2(activation(hidden, hidden * cdf))
    x = layer_norm(x, norm.weight, norm.bias, norm.eps)
    logits: Tensor = model.head(x[:, 0])
    return logits
