"""All tokens of a generation explained together, over one attribution for each.

GPT-2 small with random weights, 32 prompt tokens and 32 generated ones, unless options
say otherwise. Both ways run in one process, interleaved, over the same sequence; the
ratio of their times is printed for several chunk sizes, with the peak memory of each,
and how far the results are apart.

With ``--span`` all generated tokens are one span, and the ratio is over a forward pass
that returns the same logits; a span of one token and a hop stand beside it.

    python benchmarks/generation.py
    python benchmarks/generation.py --span --prompt 1024 --generated 64 --layers 4
    python benchmarks/generation.py --chunks 1 8 32 --repeats 3 --dtype float64
    python benchmarks/generation.py --device cuda --layers 4 --prompt 512
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_transformer_lrp import LLMTransformerLRP, TransformerLRP


def one_by_one(
    model: nn.Module, composite: str, sequence: Tensor, prompt: int, target: Tensor
) -> Tensor:
    """Return a row per generated token, each from a forward and a backward pass."""
    explainer = TransformerLRP(model, composite)
    return torch.cat(
        [
            explainer.attribute(sequence, target=(prompt - 1 + k, int(token)))
            for k, token in enumerate(target)
        ]
    )


def span_over_forward(
    model: nn.Module,
    composite: str,
    ids: Tensor,
    prompt: int,
    repeats: int,
    clock: str,
) -> None:
    """Print what a span costs in forward passes, and its memory."""
    explainer = LLMTransformerLRP(model, composite=composite)
    read, target = ids[0, :prompt], ids[0, prompt:]
    count = len(target)

    def forward() -> Tensor:
        with torch.no_grad():
            kept = {"use_cache": False, "logits_to_keep": count}
            logits: Tensor = model(ids[:, :-1], **kept).logits
        return logits

    def explain(span: Any, hops: int = 0) -> Tensor:
        found: Tensor = explainer.attribute(
            read, target, span=span, sources="tokens", hops=hops
        ).token_attr
        return found

    ways: dict[str, Callable[[], Tensor]] = {
        "forward": forward,
        "span, its last token": lambda: explain(count - 1),
        f"span, all {count} tokens": lambda: explain(slice(0, count)),
        f"span, all {count}, 1 hop": lambda: explain(slice(0, count), 1),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(way, ids.device, clock))
    print(f"  {'':26} {'seconds':>8} {'forward passes':>14} {'MiB':>7}")
    for name, way in ways.items():
        ratio = statistics.median(
            t / b for t, b in zip(times[name], times["forward"], strict=True)
        )
        print(
            f"  {name:26} {statistics.median(times[name]):8.2f} {ratio:14.2f} "
            f"{peak_mebibytes(way, ids.device):7.0f}"
        )


def seconds(explain: Callable[[], Any], device: torch.device, clock: str) -> float:
    """Return the seconds of a call."""
    now = time.process_time if clock == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = now()
    explain()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - start


def peak_mebibytes(explain: Callable[[], Any], device: torch.device) -> float:
    """Return the peak memory of a call above what was held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        explain()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        explain()
    current = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak / 2**20


def main() -> None:
    """Print one line for each way."""
    from transformers import GPT2Config, GPT2LMHeadModel

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", type=int, default=32, help="tokens of the prompt")
    parser.add_argument("--generated", type=int, default=32, help="tokens explained")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--composite", default="attnlrp")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--span", action="store_true", help="one span of all tokens")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    length = options.prompt + options.generated
    config = GPT2Config(n_layer=options.layers, n_positions=max(1024, length))
    model = GPT2LMHeadModel(config).eval().to(device, dtype)
    ids = torch.randint(config.vocab_size, (1, length), device=device)
    prompt, target = ids[0, : options.prompt], ids[0, options.prompt :]

    def together(chunk_size: int) -> Tensor:
        explainer = LLMTransformerLRP(
            model, composite=options.composite, chunk_size=chunk_size
        )
        result: Tensor = explainer.attribute(
            prompt, target, include_generated=True
        ).token_attr
        return result

    def apart() -> Tensor:
        return one_by_one(model, options.composite, ids, options.prompt, target)

    print(
        f"GPT-2, {options.layers} layers, {options.prompt} + {options.generated} "
        f"tokens, {device}, {options.dtype}, {options.threads} thread(s)"
    )
    if options.span:
        rest = options.prompt, options.repeats, options.clock
        span_over_forward(model, options.composite, ids, *rest)
        return
    ways: dict[str, Callable[[], Tensor]] = {"one by one": apart}
    for size in options.chunks:
        ways[f"together, chunk_size={size}"] = lambda size=size: together(size)
    expected = apart()
    found = {name: way() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            times[name].append(seconds(way, device, options.clock))
    print(f"  {'':26} {'seconds':>8} {'ratio':>6} {'MiB':>7} {'apart by':>9}")
    for name, way in ways.items():
        ratio = statistics.median(
            t / b for t, b in zip(times[name], times["one by one"], strict=True)
        )
        difference = (found[name] - expected).abs().max() / expected.abs().max()
        print(
            f"  {name:26} {statistics.median(times[name]):8.2f} {ratio:6.3f} "
            f"{peak_mebibytes(way, device):7.0f} {float(difference):9.1e}"
        )


if __name__ == "__main__":
    main()
