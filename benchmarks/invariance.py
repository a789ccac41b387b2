"""How far the relevance of one function depends on how the function is written.

Prints, for pairs of equal functions, the largest difference between the relevance of
the two spellings, relative to its largest value, in float64: ``python
benchmarks/invariance.py``. Both models have the same weights, and their scores agree to
1e-12. A row is the worst of ``--seeds`` draws of weights and inputs.

A second table has models that scan a text by chunks, where transformers has them: the
largest difference between their relevance with chunks of 4, 8 and 16 tokens, and with
the recurrence written out, token by token.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    Composite,
    EpsilonLRP,
    GradientXInput,
    TransformerLRP,
)
from captum_transformer_lrp.attribution.precision import Raised
from captum_transformer_lrp.core.composites import ATTN_LRP, CP_LRP

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


# --------------------------------------------------------------------------- the scans

VOCABULARY, LENGTH, HIDDEN = 30, 18, 16
#: sizes of chunks; 0 for the recurrence
CHUNKS = (4, 8, 16, 0)


def without_scans(composite: Composite) -> Callable[[nn.Module], TransformerLRP]:
    """Return a method that sees the operators of a scan one by one."""
    rows = {key: row for key, row in composite.rows.items() if key != "scan"}
    return lambda model: TransformerLRP(model, Composite("operators", rows))


METHODS_OF_SCANS = {
    **METHODS,
    "AttnLRP by operators": without_scans(ATTN_LRP),
    "CP-LRP by operators": without_scans(CP_LRP),
}

_OF_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 4,
    "mamba_d_state": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 16,
}
_OF_DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
#: what is shown -> model, its configuration, and the function that scans
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "Mamba 2": (
        "mamba2",
        {"num_heads": 8, "head_dim": 4, "state_size": 4, "n_groups": 2},
        "mamba2_chunk_scan",
    ),
    "Granite hybrid": (
        "granitemoehybrid",
        {
            **_OF_MAMBA,
            "layer_types": ["mamba", "attention"],
            "shared_intermediate_size": 16,
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
        },
        "mamba2_chunk_scan",
    ),
    "Bamba": ("bamba", {**_OF_MAMBA, "attn_layer_indices": [1]}, "mamba2_chunk_scan"),
    "Qwen3-Next": (
        "qwen3_next",
        {**_OF_DELTA, "mlp_only_layers": [0, 1]},
        "torch_chunk_gated_delta_rule",
    ),
    "Qwen3.5": ("qwen3_5_text", _OF_DELTA, "torch_chunk_gated_delta_rule"),
    "xLSTM": ("xlstm", {"num_heads": 4, "qk_dim_factor": 0.5}, "xLSTMBackend"),
}


def mamba2_recurrence(
    hidden_states: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int = 0,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    **kwargs: Any,
) -> Tensor:
    steps = dt if dt_bias is None else dt + dt_bias
    steps = F.softplus(steps) if dt_softplus else steps
    per_group = hidden_states.shape[2] // B.shape[2]
    keys, queries = (x.repeat_interleave(per_group, 2) for x in (B, C))
    state = torch.zeros_like(hidden_states[:, 0, :, :, None] * keys[:, 0, :, None])
    outputs = []
    for t in range(hidden_states.shape[1]):
        written = hidden_states[:, t] * steps[:, t, :, None]
        state = (A * steps[:, t]).exp()[..., None, None] * state
        state = state + written[..., None] * keys[:, t, :, None]
        outputs.append((state * queries[:, t, :, None]).sum(-1))
    output = torch.stack(outputs, 1)
    return output if D is None else output + D[:, None] * hidden_states


def l2norm(x: Tensor, dim: int = -1, eps: float = 1e-6) -> Tensor:
    return x * torch.rsqrt((x * x).sum(dim, keepdim=True) + eps)


def delta_recurrence(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    g: Tensor,
    beta: Tensor,
    use_qk_l2norm_in_kernel: bool = False,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if use_qk_l2norm_in_kernel:
        query, key = l2norm(query), l2norm(key)
    per_key = value.shape[2] // key.shape[2]
    query, key = (x.repeat_interleave(per_key, 2) for x in (query, key))
    query = query * query.shape[-1] ** -0.5
    state = torch.zeros_like(key[:, 0, :, :, None] * value[:, 0, :, None])
    outputs = []
    for t in range(value.shape[1]):
        state = state * g[:, t].exp()[..., None, None]
        known = (state * key[:, t, :, :, None]).sum(-2)
        change = (value[:, t] - known) * beta[:, t, :, None]
        state = state + key[:, t, :, :, None] * change[:, :, None]
        outputs.append((state * query[:, t, :, :, None]).sum(-2))
    return torch.stack(outputs, 1), None


class OfEmbeddings(nn.Module):
    """Logits of the last token of a language model, of embeddings."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return shape ``(batch, vocabulary)``."""
        found = self.model(inputs_embeds=embeddings, use_cache=False)
        logits: Tensor = found.logits[:, -1]
        return logits


def language_model(name: str, options: dict[str, Any], seed: int) -> nn.Module:
    """Return a small model whose states last for many tokens."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "vocab_size": VOCABULARY}
    config = AutoConfig.for_model(name, **sizes, **options)
    model: nn.Module = AutoModelForCausalLM.from_config(config).double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter_name, parameter in model.named_parameters():
        values = torch.randn(parameter.shape, generator=generator).double()
        decay = parameter_name.endswith("A_log")
        parameter.data = values - 2 if decay else values / parameter.shape[-1] ** 0.5
    return model


@contextlib.contextmanager
def by_chunks(model: nn.Module, scan: str, size: int) -> Iterator[None]:
    """Let a model scan by chunks of a size; for 0 token by token."""
    for part in model.modules():
        if hasattr(part, "chunk_size"):
            part.chunk_size = size
        if type(part).__name__ == "xLSTMBackend":  # scans token by token what is left
            part._inference_fn.keywords["chunk_size"] = size or 2 * LENGTH
    if scan == "xLSTMBackend":
        yield
        return
    module = importlib.import_module(type(model).__module__)
    usual: Any = getattr(module, scan)
    recurrence: Any = mamba2_recurrence if "mamba2" in scan else delta_recurrence
    raw = inspect.unwrap(usual)
    defaults = raw.__defaults__
    if not size:
        setattr(module, scan, recurrence)
    elif recurrence is delta_recurrence:
        raw.__defaults__ = (size, *defaults[1:])
    try:
        yield
    finally:
        setattr(module, scan, usual)
        raw.__defaults__ = defaults


def difference_of_chunks(name: str, method: Any, seed: int) -> float:
    """Return how far relevance of a model is apart, over sizes of chunks."""
    kind, options, scan = MODELS[name]
    model = language_model(kind, options, seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, LENGTH, HIDDEN, generator=generator).double()
    scores, found = [], []
    for size in CHUNKS:
        with by_chunks(model, scan, size), Raised(torch.float64):
            wrapped = OfEmbeddings(model)
            scores.append(wrapped(x).detach())
            found.append(method(wrapped).attribute(x, target=1).detach())
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], rtol=1e-10, atol=1e-10)
    apart = max(float((other - found[0]).abs().max()) for other in found[1:])
    return apart / float(found[0].abs().max())


def has(name: str) -> bool:
    """Whether the transformers that is installed scans in a function of its own."""
    kind, _, scan = MODELS[name]
    folder = kind.removesuffix("_text")
    try:
        module = importlib.import_module(
            f"transformers.models.{folder}.modeling_{folder}"
        )
    except ImportError:
        return False
    return hasattr(module, scan)


def scans(seeds: int) -> None:
    """Print the table of models that scan."""
    print(f"| scans | {' | '.join(METHODS_OF_SCANS)} |")
    print("|---|" + "---|" * len(METHODS_OF_SCANS))
    for name in MODELS:
        if not has(name):
            print(f"| {name} | is not in the transformers that is installed |")
            continue
        worst = [
            max(difference_of_chunks(name, method, seed) for seed in range(seeds))
            for method in METHODS_OF_SCANS.values()
        ]
        shown = ["0" if w < 1e-10 else f"{w:.1g}" for w in worst]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def spellings(seeds: int) -> None:
    """Print the table of functions that are written in two ways."""
    print(f"| spellings | {' | '.join(METHODS)} |")
    print("|---|" + "---|" * len(METHODS))
    for name, pair in PAIRS.items():
        worst = [
            max(difference(pair, method, seed) for seed in range(seeds))
            for method in METHODS.values()
        ]
        shown = ["0" if w < 1e-12 else f"{w:.1g}" for w in worst]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="draws of each pair")
    parser.add_argument("--only", choices=("spellings", "scans"), help="one table")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only != "scans":
        spellings(options.seeds)
    if options.only is None:
        print()
    if options.only != "spellings":
        scans(options.seeds)


if __name__ == "__main__":
    main()
