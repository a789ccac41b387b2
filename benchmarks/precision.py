"""How far explanations in float32 or half precision are from float64.

The relevance pass of transformer attribution, and alpha-beta, divide by sums that may
be close to 0. For each model and method: the error of maps, largest over the largest
value of the map in float64, of the same weights and inputs, and the rank correlation
between the two; over sentences, pictures of uniform noise in the range of pixels, and
of Gaussian noise.

    python benchmarks/precision.py                                # the built-in models
    python benchmarks/precision.py --dtype float16                # or bfloat16
    python benchmarks/precision.py --text-model FOLDER --texts FILE
"""

from __future__ import annotations

import argparse
import copy
import statistics
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttnLRP,
    CheferLRP,
    GenericAttention,
    LRPRollout,
    PartialLRP,
    TransformerLRP,
)
from captum_transformer_lrp.errors import HalfPrecisionWarning
from captum_transformer_lrp.models.loading import load_image_model, load_text_model

TEXTS = (
    "A gripping, beautifully acted film.",
    "The plot is a complete mess and I was bored.",
    "The camera is stunning, yet the dialogue is lifeless.",
    "Not bad at all!",
    "It isn't a great movie, but it won't bore you.",
    "One of the year's best, and funniest, surprises.",
    "Too long by an hour and too clever by half.",
    "I laughed, I cried, I checked my watch.",
)


def ranks(values: Tensor) -> Tensor:
    """Return the rank of each value."""
    return values.argsort().argsort().double()


def cast(inputs: Any, dtype: torch.dtype) -> Any:
    """Return inputs whose floating point tensors have another precision."""
    if isinstance(inputs, Tensor):
        return inputs.to(dtype) if inputs.is_floating_point() else inputs
    return {key: cast(value, dtype) for key, value in inputs.items()}


def compare(
    method: Any, model: nn.Module, exact: nn.Module, inputs: Any
) -> Iterator[tuple[float, ...]]:
    """Yield error and rank correlation for the first two classes."""
    dtype = next(model.parameters()).dtype
    given = cast(inputs, dtype)
    for target in (0, 1):
        found = method(model).attribute(given, target=target).flatten().double()
        wanted = method(exact).attribute(cast(given, torch.float64), target=target)
        wanted = wanted.flatten()
        error = (found - wanted).abs().max() / wanted.abs().max()
        pair = torch.stack([ranks(found), ranks(wanted)])
        yield float(error), float(torch.corrcoef(pair)[0, 1])


def alpha_beta(model: nn.Module) -> TransformerLRP:
    """Return the method of that name."""
    return TransformerLRP(model, "alpha-beta")


METHODS = {
    "CheferLRP": CheferLRP,
    "LRPRollout": LRPRollout,
    "PartialLRP": PartialLRP,
    "GenericAttention": GenericAttention,
    "alpha-beta": alpha_beta,
    "AttnLRP": AttnLRP,
    "CPLRP": CPLRP,
}


def report(
    name: str,
    model: nn.Module,
    cases: list[Callable[[], Any]],
    dtype: torch.dtype,
    methods: list[str],
) -> None:
    """Print one row per method."""
    model = copy.deepcopy(model).to(dtype)
    exact = copy.deepcopy(model).double()
    for method in methods:
        make = METHODS[method]
        found = [pair for case in cases for pair in compare(make, model, exact, case())]
        errors, correlations = zip(*found, strict=True)
        print(
            f"{name:34} {method:16} {len(found):4} maps   error median "
            f"{statistics.median(errors):.1e}, worst {max(errors):.1e}   rank "
            f"correlation median {statistics.median(correlations):.4f}, worst "
            f"{min(correlations):.4f}",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text-model", help="default: the built-in model")
    parser.add_argument("--texts", type=Path, help="one text a line; label and tab cut")
    parser.add_argument("--number", type=int, default=50, help="texts of that file")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32"
    )
    parser.add_argument(
        "--pictures", type=int, default=32, help="of each kind of noise"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), default=list(METHODS)
    )
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    warnings.simplefilter("ignore", HalfPrecisionWarning)
    texts = list(TEXTS)
    if options.texts:
        lines = options.texts.read_text(encoding="utf-8").splitlines()
        texts = [line.split("\t")[-1] for line in lines[: options.number]]
    source = load_text_model(options.text_model)
    encode = source.tokenizer
    report(
        source.name,
        source.module,
        [lambda t=t: dict(encode(t, return_tensors="pt")) for t in texts],
        dtype,
        options.methods,
    )
    image = load_image_model(None)
    size = (options.pictures, 1, 3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    kinds = {
        "uniform": torch.rand(size, generator=generator) * 2 - 1,
        "Gaussian": torch.randn(size, generator=generator),
    }
    for kind, pictures in kinds.items():
        cases = [lambda p=p: p for p in pictures]
        report(
            f"{image.name}, {kind} noise", image.module, cases, dtype, options.methods
        )


if __name__ == "__main__":
    main()
