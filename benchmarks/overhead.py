"""Time and peak memory of each method over Captum's InputXGradient.

All methods run on the same model in the same process, interleaved, so that whatever
else the machine does hits them alike; the ratio of medians is printed. Random weights.

    python benchmarks/overhead.py                    # all models on the CPU
    python benchmarks/overhead.py --models bert-base gpt2 --threads 1 --repeats 9
    python benchmarks/overhead.py --device cuda --dtype bfloat16
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from captum.attr import InputXGradient
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    EpsilonLRP,
    GenericAttention,
    GradientXInput,
    TransformerLRP,
)


@dataclass(frozen=True)
class Case:
    """A model as a function of float inputs, the inputs and the target."""

    forward: nn.Module
    inputs: Tensor
    target: Any


class OnEmbeddings(nn.Module):
    """A Hugging Face model as a function of its input embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits."""
        return self.model(inputs_embeds=embeddings, use_cache=False).logits


def _text(model: nn.Module, tokens: int, width: int, target: Any) -> Case:
    return Case(OnEmbeddings(model), torch.randn(1, tokens, width), target)


def bert_base() -> Case:
    """BERT-base classifier, 128 tokens."""
    from transformers import BertConfig, BertForSequenceClassification

    return _text(BertForSequenceClassification(BertConfig()), 128, 768, 1)


def gpt2() -> Case:
    """GPT-2 small, 128 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return _text(GPT2LMHeadModel(GPT2Config()), 128, 768, (-1, 42))


def vit_b16() -> Case:
    """timm ViT-B/16, one 224 x 224 image."""
    import timm

    model = timm.create_model("vit_base_patch16_224", pretrained=False)
    return Case(model, torch.randn(1, 3, 224, 224), 7)


def llama_1b_two_layers() -> Case:
    """The shape of a 1B Llama, cut to two layers, 128 tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=2,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    return _text(LlamaForCausalLM(config), 128, 2048, (-1, 42))


def tiny_llama() -> Case:
    """A Llama of two layers and 64 features, 16 tokens: all overhead, no work."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return _text(LlamaForCausalLM(config), 16, 64, (-1, 42))


MODELS: dict[str, Callable[[], Case]] = {
    "bert-base": bert_base,
    "gpt2": gpt2,
    "vit-b16": vit_b16,
    "llama-1b-2layers": llama_1b_two_layers,
    "tiny-llama": tiny_llama,
}


class Training:
    """A plain forward and backward pass with the gradients of all weights."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def attribute(self, inputs: Tensor, target: Any) -> None:
        """Compute the gradients and drop them."""
        index = target if isinstance(target, tuple) else (target,)
        self.model(inputs)[(slice(None), *index)].sum().backward()
        self.model.zero_grad(set_to_none=True)


METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "InputXGradient": InputXGradient,
    "training step": Training,
    "Gradient x Input": GradientXInput,
    "AttnLRP": AttnLRP,
    "CP-LRP": CPLRP,
    "LRP-epsilon": EpsilonLRP,
    "AttnLRP, gamma": partial(TransformerLRP, composite="gamma"),
    "LRP-alpha-beta": partial(TransformerLRP, composite="alpha-beta"),
    "EpsilonPlusFlat": partial(TransformerLRP, composite="epsilon-plus-flat"),
    "Transformer attribution": CheferLRP,
    "Transformer attribution, float64": partial(CheferLRP, dtype=torch.float64),
    "Generic attention": GenericAttention,
}


#: wall clock, or CPU time where --clock cpu says so (for a machine that others use too)
clock: Callable[[], float] = time.perf_counter


def seconds(explain: Callable[[], Any], device: torch.device, inner: int) -> float:
    """Return the mean seconds of a call over ``inner`` calls."""
    _synchronize(device)
    start = clock()
    for _ in range(inner):
        explain()
    _synchronize(device)
    return (clock() - start) / inner


def peak_bytes(explain: Callable[[], Any], device: torch.device) -> int:
    """Return the peak memory of a call above what was held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        explain()
        return int(torch.cuda.max_memory_allocated(device) - before)
    return _peak_of_cpu_allocations(explain)


def _peak_of_cpu_allocations(explain: Callable[[], Any]) -> int:
    """Sum allocations and releases as torch's profiler reports them."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        explain()
    current = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            current += event.nbytes()
            peak = max(peak, current)
    return peak


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(
    case: Case, device: torch.device, repeats: int, methods: list[str]
) -> dict[str, Any]:
    """Return ratios to InputXGradient for each method."""
    names = dict.fromkeys(["InputXGradient", *methods])
    explainers = {name: METHODS[name](case.forward) for name in names}

    def explain(name: str) -> Callable[[], Any]:
        return lambda: explainers[name].attribute(case.inputs, target=case.target)

    once = {name: seconds(explain(name), device, 2) for name in explainers}
    inner = max(1, int(0.2 / once["InputXGradient"]))
    times: dict[str, list[float]] = {name: [] for name in explainers}
    for _ in range(repeats):
        for name in explainers:
            times[name].append(seconds(explain(name), device, inner))
    memory = {name: peak_bytes(explain(name), device) for name in explainers}
    base_time = statistics.median(times["InputXGradient"])
    return {
        name: {
            "milliseconds": statistics.median(times[name]) * 1e3,
            "time ratio": statistics.median(times[name]) / base_time,
            # paired, robust against drift of the machine
            "paired ratio": statistics.median(
                t / b for t, b in zip(times[name], times["InputXGradient"], strict=True)
            ),
            "memory ratio": memory[name] / memory["InputXGradient"],
        }
        for name in explainers
    }


def main() -> None:
    """Print one table per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    global clock
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    torch.set_num_threads(options.threads)
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    results = {}
    for name in options.models:
        torch.manual_seed(0)
        case = MODELS[name]()
        case = Case(
            case.forward.eval().to(device, dtype),
            case.inputs.to(device, dtype),
            case.target,
        )
        results[name] = measure(case, device, options.repeats, options.methods)
        print(f"\n{name} ({device}, {options.dtype}, {options.threads} thread(s))")
        print(f"  {'method':24} {'ms':>9} {'time':>7} {'paired':>7} {'memory':>7}")
        for method, row in results[name].items():
            print(
                f"  {method:24} {row['milliseconds']:9.2f} {row['time ratio']:7.3f} "
                f"{row['paired ratio']:7.3f} {row['memory ratio']:7.3f}"
            )
        del case
        gc.collect()
    if options.json:
        import json

        options.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
