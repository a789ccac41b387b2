"""How far transformer attribution in float32 is from float64, on trained models.

The relevance pass divides by sums that may be close to 0. For each model: the error of
float32 maps, largest over the largest value of the float64 map, and the rank
correlation between the two, over real inputs.

    python benchmarks/precision.py                                # the built-in models
    python benchmarks/precision.py --text-model FOLDER --texts FILE
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_transformer_lrp import CheferLRP, GenericAttention
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


def compare(method: Any, model: nn.Module, inputs: Any) -> Iterator[tuple[float, ...]]:
    """Yield error and rank correlation for the first two classes."""
    for target in (0, 1):
        single = method(model).attribute(inputs, target=target).flatten().double()
        double = method(model, dtype=torch.float64).attribute(inputs, target=target)
        double = double.flatten()
        error = (single - double).abs().max() / double.abs().max()
        pair = torch.stack([ranks(single), ranks(double)])
        yield float(error), float(torch.corrcoef(pair)[0, 1])


def report(name: str, model: nn.Module, cases: list[Callable[[], Any]]) -> None:
    """Print one row per method."""
    for method in (CheferLRP, GenericAttention):
        found = [pair for case in cases for pair in compare(method, model, case())]
        errors, correlations = zip(*found, strict=True)
        print(
            f"{name:28} {method.name:24} {len(found):4} maps   error median "
            f"{statistics.median(errors):.1e}, worst {max(errors):.1e}   rank "
            f"correlation median {statistics.median(correlations):.4f}, worst "
            f"{min(correlations):.4f}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text-model", help="default: the built-in model")
    parser.add_argument("--texts", type=Path, help="one text a line; label and tab cut")
    parser.add_argument("--number", type=int, default=50, help="texts of that file")
    options = parser.parse_args()
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
    )
    image = load_image_model(None)
    generator = torch.Generator().manual_seed(0)
    pictures = [torch.rand(1, 3, 32, 32, generator=generator) for _ in range(8)]
    report(image.name, image.module, [lambda p=p: p * 2 - 1 for p in pictures])


if __name__ == "__main__":
    main()
