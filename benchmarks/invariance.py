"""How far the relevance of one function depends on how the function is written.

Prints, for pairs of equal functions, the largest difference between the relevance of
the two spellings, relative to its largest value, in float64: ``python
benchmarks/invariance.py``. Both models have the same weights, and their scores agree to
1e-12. A row is the worst of ``--seeds`` draws of weights and inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
)

EXAMPLES, TOKENS, WIDTH, CLASSES = 2, 5, 6, 3

METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "AttnLRP": AttnLRP,
    "CP-LRP": CPLRP,
    "gamma": lambda model: TransformerLRP(model, composite="gamma"),
    "epsilon": EpsilonLRP,
    "input x gradient": GradientXInput,
}

#: takes three tensors computed from the input, of shape (examples, tokens, width)
Function = Callable[[Tensor, Tensor, Tensor], Tensor]


def softmax_written_out(z: Tensor) -> Tensor:
    exponentials = (z - z.amax(-1, keepdim=True).detach()).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def layer_norm_written_out(z: Tensor) -> Tensor:
    centred = z - z.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


def attention_written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.mT / WIDTH**0.5).softmax(-1) @ v


def gelu_in_pieces(z: Tensor) -> Tensor:
    return 0.5 * z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (z + 0.044715 * z**3)))


#: what is computed -> two spellings of it
PAIRS: dict[str, tuple[Function, Function]] = {
    "GELU in one operator, in eight": (
        lambda a, b, c: F.gelu(a, approximate="tanh"),
        lambda a, b, c: gelu_in_pieces(a),
    ),
    "SiLU, z / (1 + exp(-z))": (
        lambda a, b, c: F.silu(a),
        lambda a, b, c: a / (1 + torch.exp(-a)),
    ),
    "gated by SiLU, by z sigmoid(z)": (
        lambda a, b, c: F.silu(a) * b,
        lambda a, b, c: b * (a * torch.sigmoid(a)),
    ),
    "ReLU, where(z > 0, z, 0)": (
        lambda a, b, c: F.relu(a) * b,
        lambda a, b, c: torch.where(a > 0, a, 0.0) * b,
    ),
    "layer norm, written out": (
        lambda a, b, c: F.layer_norm(a, (WIDTH,)),
        lambda a, b, c: layer_norm_written_out(a),
    ),
    "RMS norm, written out": (
        lambda a, b, c: F.rms_norm(a, (WIDTH,), eps=1e-6),
        lambda a, b, c: a * torch.rsqrt(a.pow(2).mean(-1, keepdim=True) + 1e-6),
    ),
    "softmax, exponentials over their sum": (
        lambda a, b, c: a.softmax(-1) * b,
        lambda a, b, c: softmax_written_out(a) * b,
    ),
    "attention fused, written out": (
        F.scaled_dot_product_attention,
        attention_written_out,
    ),
    "scores scaled, queries scaled": (
        attention_written_out,
        lambda q, k, v: ((q / WIDTH**0.5) @ k.mT).softmax(-1) @ v,
    ),
    "q k as matmul, as einsum": (
        attention_written_out,
        lambda q, k, v: torch.einsum(
            "nqk,nkd->nqd",
            (torch.einsum("nqd,nkd->nqk", q, k) / WIDTH**0.5).softmax(-1),
            v,
        ),
    ),
    "z ** 2, z z": (lambda a, b, c: a**2, lambda a, b, c: a * a),
    "a (b + c), a b + a c": (
        lambda a, b, c: a * (b + c),
        lambda a, b, c: a * b + a * c,
    ),
    "(a + b) + c, a + (b + c)": (
        lambda a, b, c: (a + b) + c,
        lambda a, b, c: a + (b + c),
    ),
    "(a b) c, a (b c)": (
        lambda a, b, c: (a * b) * c,
        lambda a, b, c: a * (b * c),
    ),
    "(A B) C, A (B C), matrices": (
        lambda a, b, c: (a @ b.mT) @ c,
        lambda a, b, c: a @ (b.mT @ c),
    ),
}


class Model(nn.Module):
    """Three linear functions of the input, a function of them, and scores."""

    def __init__(self, function: Function, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.three = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.scores = nn.Linear(WIDTH, CLASSES)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Return scores, shape ``(examples, classes)``."""
        scores: Tensor = self.scores(self.function(*(each(x) for each in self.three)))
        return scores.mean(1)


def difference(pair: tuple[Function, Function], method: Any, seed: int) -> float:
    """Return how far the relevance of two spellings is apart, relative."""
    models = [Model(function, seed).double().eval() for function in pair]
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, TOKENS, WIDTH, generator=generator).double()
    first, second = (model(x) for model in models)
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    one, two = (method(model).attribute(x, target=1) for model in models)
    return float((one - two).abs().max() / one.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="draws of each pair")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| spellings | {' | '.join(METHODS)} |")
    print("|---|" + "---|" * len(METHODS))
    for name, pair in PAIRS.items():
        worst = [
            max(difference(pair, method, seed) for seed in range(options.seeds))
            for method in METHODS.values()
        ]
        shown = ["0" if w < 1e-12 else f"{w:.1g}" for w in worst]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
