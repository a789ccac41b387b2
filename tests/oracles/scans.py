"""Scans token by token, as the papers write them: nothing is computed by chunks.

Each returns the outputs, of the shape of its values, and the last state.
"""

from __future__ import annotations

import torch
from torch import Tensor


def mamba2(
    x: Tensor,
    steps: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``S_t = exp(a dt_t) S_{t-1} + dt_t x_t b_t``, ``y_t = S_t c_t``.

    arXiv 2405.21060. Shapes: ``x (batch, tokens, heads, features)``, steps ``(batch,
    tokens, heads)``, ``a (heads,)``, b and c ``(batch, tokens, groups, size)``.
    """
    batch, tokens, heads, features = x.shape
    groups, size = b.shape[2:]
    if state is None:
        state = torch.zeros(batch, heads, features, size, dtype=x.dtype)
    outputs = []
    for t in range(tokens):
        of_heads, states = [], []
        for h in range(heads):
            group = h // (heads // groups)
            decay = torch.exp(a[h] * steps[:, t, h])[:, None, None]
            written = x[:, t, h, :, None] * b[:, t, group, None, :]
            written = written * steps[:, t, h, None, None]
            states.append(decay * state[:, h] + written)
            of_heads.append((states[-1] * c[:, t, group, None, :]).sum(-1))
        state = torch.stack(states, 1)
        outputs.append(torch.stack(of_heads, 1))
    assert state is not None
    return torch.stack(outputs, 1), state


def gated_delta(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``S_t = exp(g_t) S_{t-1}``, and what it has at ``k_t`` moved to ``v_t`` by beta.

    arXiv 2412.06464, Eq. 10. Shapes: ``(batch, tokens, heads, features)``; g and beta
    ``(batch, tokens, heads)``, g with features too in Kimi's.
    """
    batch, tokens, heads, features = v.shape
    per_head = heads // k.shape[2]
    q, k = (x.repeat_interleave(per_head, 2) for x in (q, k))
    if state is None:
        state = torch.zeros(batch, heads, k.shape[-1], features, dtype=v.dtype)
    outputs = []
    for t in range(tokens):
        decay = torch.exp(g[:, t])
        decay = decay[..., None, None] if g.dim() == 3 else decay[..., None]
        state = decay * state
        known = torch.einsum("bhkv,bhk->bhv", state, k[:, t])
        change = beta[:, t, :, None] * (v[:, t] - known)
        state = state + k[:, t, :, :, None] * change[:, :, None, :]
        read = torch.einsum("bhkv,bhk->bhv", state, q[:, t])
        outputs.append(read * q.shape[-1] ** -0.5)
    assert state is not None
    return torch.stack(outputs, 1), state


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    log_f: Tensor,
    state: tuple[Tensor, Tensor, Tensor] | None = None,
    epsilon: float = 1e-6,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """``C_t = f_t C_{t-1} + i_t v_t k_t``, read by q and divided by a constant.

    arXiv 2405.04517, Eq. 19 to 27. Shapes: ``(batch, heads, tokens, features)``, the
    gates ``(batch, heads, tokens)``. Stabiliser and denominator are detached.
    """
    batch, heads, tokens, size = k.shape
    if state is None:
        c = torch.zeros(batch, heads, size, v.shape[-1], dtype=v.dtype)
        n = torch.zeros(batch, heads, size, dtype=v.dtype)
        m = torch.zeros(batch, heads, dtype=v.dtype)
    else:
        c, n, m = state[0], state[1], state[2].squeeze(-1)
    outputs = []
    for t in range(tokens):
        largest = torch.maximum(log_f[..., t] + m, i[..., t]).detach()
        keep = torch.exp(log_f[..., t] + m - largest)[..., None]
        take = torch.exp(i[..., t] - largest)[..., None]
        written = k[:, :, t, :, None] * v[:, :, t, None, :]
        c = keep[..., None] * c + take[..., None] * written
        n = (keep * n + take * k[:, :, t]).detach()
        m = largest
        query = q[:, :, t] * size**-0.5
        sums = (query * n).sum(-1).abs()
        denominator = torch.maximum(sums, torch.exp(-m)).detach() + epsilon
        read = (query[..., None] * c).sum(-2)
        outputs.append(read / denominator[..., None])
    return torch.stack(outputs, 1).transpose(1, 2), (c, n, m[..., None])
