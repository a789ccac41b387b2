"""FlexAttention equals attention that is written out, whatever changes its scores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import flex_attention as torchs

from captum_transformer_lrp import (
    CPLRP,
    AttentionRollout,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
)
from captum_transformer_lrp.classic.contributions import Gamma
from captum_transformer_lrp.core.composites import ATTN_LRP
from captum_transformer_lrp.errors import UnknownOperatorError
from tests.helpers import relative

BATCH, TOKENS, HEADS, KEYS, WIDTH = 2, 5, 4, 2, 8
METHODS: dict[str, Callable[[Any], Any]] = {
    **{m.__name__: m for m in (AttnLRP, CPLRP, EpsilonLRP, GradientXInput)},
    "gamma": lambda f: TransformerLRP(f, ATTN_LRP.with_rules({"linear": Gamma()})),
    "CheferLRP": CheferLRP,
    "rollout": AttentionRollout,
}

torch.manual_seed(0)
SLOPES, TABLE = torch.rand(HEADS), torch.randn(HEADS, 2 * TOKENS)
MASK = torch.randn(BATCH, 1, TOKENS, TOKENS).double()
LEFT, RIGHT = torch.randn(HEADS, 3).double(), torch.randn(TOKENS, 3).double()
DOCUMENTS = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
WEIGHT = nn.Parameter(torch.randn(HEADS, TOKENS).double())
FROM, TO = torch.arange(TOKENS)[:, None], torch.arange(TOKENS)

#: of a score, and of all of them in a model that is written out
Pair = tuple[Callable[..., Tensor] | None, Callable[..., Tensor]]
SCORES: dict[str, Pair] = {
    "none": (None, lambda s: s),
    "as it is": (lambda s, b, h, q, k: s, lambda s: s),
    "slopes": (
        lambda s, b, h, q, k: s + SLOPES[h] * (k - q),
        lambda s: s + SLOPES[:, None, None] * (TO - FROM),
    ),
    "relative": (
        lambda s, b, h, q, k: s + TABLE[h, q - k + TOKENS],
        lambda s: s + TABLE[:, FROM - TO + TOKENS],
    ),
    "one by one": (lambda s, b, h, q, k: s + MASK[b][0][q][k], lambda s: s + MASK),
    "soft cap": (
        lambda s, b, h, q, k: 2 * torch.tanh(s / 2),
        lambda s: 2 * torch.tanh(s / 2),
    ),
    "features": (
        lambda s, b, h, q, k: s + (LEFT[h] * RIGHT[k]).sum(-1),
        lambda s: s + (LEFT @ RIGHT.T)[:, None],
    ),
    "a parameter": (
        lambda s, b, h, q, k: s * WEIGHT[h, k],
        lambda s: s * WEIGHT.detach()[:, None],
    ),
    "where": (
        lambda s, b, h, q, k: torch.where((q >= k) & (h < 3), s, -math.inf),
        lambda s: s.masked_fill(
            ~((FROM >= TO) & (torch.arange(HEADS)[:, None, None] < 3)), -math.inf
        ),
    ),
}
MASKS: dict[str, tuple[Callable[..., Tensor] | None, Tensor | None]] = {
    "none": (None, None),
    "causal": (lambda b, h, q, k: q >= k, FROM >= TO),
    "documents": (
        lambda b, h, q, k: DOCUMENTS[b, q] == DOCUMENTS[b, k],
        (DOCUMENTS[:, :, None] == DOCUMENTS[:, None])[:, None],
    ),
    "a query that sees nothing": (lambda b, h, q, k: q > k, FROM > TO),
}


class Attending(nn.Module):
    """One layer of attention with fewer key heads than query heads, and a head."""

    def __init__(self, attend: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        size = WIDTH // HEADS
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, KEYS * size)
        self.value = nn.Linear(WIDTH, KEYS * size)
        self.bias = nn.Linear(WIDTH, 1)
        self.head = nn.Linear(WIDTH, 3)
        self.attend = attend
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        split = (len(x), TOKENS, -1, WIDTH // HEADS)
        q, k, v = (
            layer(x).view(split).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = self.attend(q, k, v, self.bias(x)[..., 0])
        return self.head(x + y.transpose(1, 2).flatten(2)).mean(1)


def written(
    q: Tensor, k: Tensor, v: Tensor, change: Any, seen: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    k, v = (x.repeat_interleave(HEADS // KEYS, 1) for x in (k, v))
    scores = change((q @ k.transpose(-2, -1)) * scale)
    if seen is not None:
        scores = scores.masked_fill(~seen, -math.inf)
    nothing = (scores == -math.inf).all(-1, keepdim=True)
    if nothing.any():
        scores = scores.masked_fill(nothing, 0)
        return scores.softmax(-1).masked_fill(nothing, 0) @ v, scores.logsumexp(-1)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def block_mask(function: Any) -> Any:
    if function is None:
        return None
    return torchs.create_block_mask(
        function, BATCH, HEADS, TOKENS, TOKENS, device="cpu"
    )


def assert_same(flexible: Any, other: Any) -> None:
    torch.manual_seed(2)
    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64)
    code = torchs.flex_attention.__code__
    for name, method in METHODS.items():
        found = method(Attending(flexible)).attribute(x, target=1)
        expected = method(Attending(other)).attribute(x, target=1)
        assert relative(found, expected) < 1e-11, name
    assert torchs.flex_attention.__code__ is code


@pytest.mark.parametrize(
    ("score", "mask"),
    [
        *((score, "none") for score in SCORES),
        *(("none", mask) for mask in MASKS if mask != "none"),
        ("where", "a query that sees nothing"),
        ("one by one", "documents"),
    ],
)
def test_scores_and_masks(score: str, mask: str) -> None:
    mod, change = SCORES[score]
    function, seen = MASKS[mask]
    blocks = block_mask(function)

    def flexible(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Any:
        return torchs.flex_attention(
            q, k, v, mod, block_mask=blocks, scale=0.9, enable_gqa=True
        )

    def other(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
        return written(q, k, v, change, seen, 0.9)[0]

    assert_same(flexible, other)


def test_scores_that_depend_on_the_input() -> None:
    def flexible(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Any:
        return torchs.flex_attention(
            q, k, v, lambda s, b, h, i, j: s + bias[b, j], None, 0.5, True
        )

    def other(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return written(q, k, v, lambda s: s + bias[:, None, None], None, 0.5)[0]

    assert_same(flexible, other)


def test_the_normalizer_is_returned() -> None:
    def flexible(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Any:
        output, lse = torchs.flex_attention(
            q, k, v, scale=0.5, enable_gqa=True, return_lse=True
        )
        return output * torch.sigmoid(lse)[..., None]

    def other(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Tensor:
        output, lse = written(q, k, v, lambda s: s, None, 0.5)
        return output * torch.sigmoid(lse)[..., None]

    assert_same(flexible, other)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_the_values_are_those_of_torch() -> None:
    q, k, v = (torch.randn(BATCH, n, TOKENS, 2).double() for n in (HEADS, KEYS, KEYS))
    blocks = block_mask(MASKS["a query that sees nothing"][0])
    mod = SCORES["one by one"][0]

    def call(q: Tensor) -> Any:
        return torchs.flex_attention(q, k, v, mod, blocks, enable_gqa=True)

    expected = call(q)
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(call(x))
        return seen[0].mean((1, 2, 3))

    AttnLRP(model).attribute(q)
    assert relative(seen[0].detach(), expected) < 1e-12


REFUSED: dict[str, Callable[..., Tensor]] = {
    "sums over scores": lambda s, b, h, q, k: s * s.sum(),
    "slices": lambda s, b, h, q, k: s + MASK[b, 0, :, k].sum(),
    "shapes": lambda s, b, h, q, k: (
        s + torch.stack([s, s]).amax(0)[None].sum(0) * 0 + s.reshape(1).sum()
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_function_of_single_scores_that_cannot_be_seen_is_refused(name: str) -> None:
    def flexible(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Any:
        return torchs.flex_attention(q, k, v, REFUSED[name], enable_gqa=True)

    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64)
    code = torchs.flex_attention.__code__
    with pytest.raises(UnknownOperatorError, match=r"all scores at once .* bias\[b"):
        AttnLRP(Attending(flexible)).attribute(x, target=1)
    assert torchs.flex_attention.__code__ is code


@pytest.mark.parametrize("shown", [False, True])
def test_blocks_that_are_not_those_of_the_mask_are_refused(shown: bool) -> None:
    number = torch.zeros(1, 1, 1, dtype=torch.int32)
    place = torch.zeros(1, 1, 1, 1, dtype=torch.int32)
    blocks = torchs.BlockMask.from_kv_blocks(
        number,
        place,
        number + 1 if shown else None,
        place if shown else None,
        BLOCK_SIZE=128,
        mask_mod=(lambda b, h, q, k: q >= k) if shown else None,
        seq_lengths=(TOKENS, TOKENS),
    )

    def flexible(q: Tensor, k: Tensor, v: Tensor, _: Tensor) -> Any:
        return torchs.flex_attention(q, k, v, block_mask=blocks, enable_gqa=True)

    x = torch.randn(BATCH, TOKENS, WIDTH, dtype=torch.float64)
    with pytest.raises(UnknownOperatorError, match=r"the block mask .* mask_mod"):
        AttnLRP(Attending(flexible)).attribute(x, target=1)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_other_threads_see_torchs_own() -> None:
    """Also a compiler, which looks into the function while an engine runs."""
    found: dict[str, Any] = {}
    q = torch.randn(1, 1, 4, 2)

    def plain() -> None:
        found["plain"] = torchs.flex_attention(q, q, q)
        compiled = torch.compile(torchs.flex_attention, backend="eager", fullgraph=True)
        found["compiled"] = compiled(q, q, q)

    def model(x: Tensor) -> Tensor:
        thread = threading.Thread(target=plain)
        thread.start()
        thread.join()
        return x.sum(1)

    AttnLRP(model).attribute(torch.ones(1, 2))
    expected = torchs.flex_attention(q, q, q)
    assert torch.allclose(found["plain"], expected)
    assert torch.allclose(found["compiled"], expected)
