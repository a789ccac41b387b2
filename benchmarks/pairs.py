"""What a matrix of pairs costs, in passes forward and backward through the model.

A BERT of the shape of all-MiniLM-L6 (6 layers of 384 features, 12 heads) with random
weights and two texts of 32 tokens, unless options say otherwise. A pass is one of
torch's own, forward over one text and backward from one dimension of its embedding to
those of its tokens. Everything runs in one process, interleaved; ratios of times are
printed, with how far each matrix is from the exact one.

    python benchmarks/pairs.py
    python benchmarks/pairs.py --tokens 128 --repeats 3
    python benchmarks/pairs.py --dimensions   # one backward pass for each, too
    python benchmarks/pairs.py --planted      # whether a shared token is found
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_transformer_lrp import PairLRP


def pass_of(model: Any, ids: Tensor) -> Callable[[], Any]:
    """Return one pass forward and backward by torch alone."""
    embeddings = model.get_input_embeddings()(ids).detach().requires_grad_()

    def once() -> Any:
        embedded = model(inputs_embeds=embeddings).last_hidden_state.mean(1)
        return torch.autograd.grad(embedded[:, 0].sum(), embeddings)

    return once


def seconds(function: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def planted(count: int) -> int:
    """Return in how many pairs of texts the one shared token is the largest pair.

    Token identity is what this model reads: embeddings without layers, averaged.
    """
    torch.manual_seed(0)
    table = nn.Embedding(2000, 64)
    pairs = PairLRP(lambda ids: table(ids).mean(1))
    found = 0
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randperm(2000, generator=generator)
        first, second = drawn[:24].clone(), drawn[24:48].clone()
        i, j = torch.randint(24, (2,), generator=generator).tolist()
        second[j] = first[i]
        (top,) = pairs.attribute(first[None], second[None]).top_pairs(1)
        found += (top.row, top.column) == (i, j)
    return found


def main() -> None:
    """Print one line for each way."""
    from transformers import BertConfig, BertModel

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32, help="of each text")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--projections", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--dimensions", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--planted", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.planted:
        print(f"a shared token is the largest pair in {planted(100)} of 100")
        return
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=384,
        num_hidden_layers=options.layers,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    model = BertModel(config, add_pooling_layer=False).eval().requires_grad_(False)
    first, second = torch.randint(1000, 20000, (2, 1, options.tokens)).unbind()

    def ways(**chosen: Any) -> Callable[[], Any]:
        pairs = PairLRP(model, pooling="mean", **chosen)
        return lambda: pairs.attribute(first, second)

    calls = {"exact": ways()}
    if options.dimensions:
        calls["exact, over dimensions"] = ways(over="dimensions")
    for count in options.projections:
        calls[f"{count} projections"] = ways(projections=count)
    once = pass_of(model, first)
    found = {name: call() for name, call in calls.items()}
    once()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            unit = statistics.median(seconds(once) for _ in range(5))
            times[name].append(seconds(call) / unit)
    exact = found["exact"].pairs
    size = float(exact.square().mean().sqrt())
    print(
        f"BERT, {options.layers} layers of 384, {options.tokens} + {options.tokens} "
        f"tokens, float32, {options.threads} thread(s); errors over the root mean "
        "square of the pairs"
    )
    print(f"  {'':24} {'passes':>7} {'off by':>8} {'stated':>8}")
    for name in calls:
        off = float((found[name].pairs - exact).square().mean().sqrt()) / size
        stated = found[name].error
        said = "-" if stated is None else f"{stated / size:.2g}"
        print(f"  {name:24} {statistics.median(times[name]):7.1f} {off:8.1e} {said:>8}")


if __name__ == "__main__":
    main()
