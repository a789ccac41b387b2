"""Draw the gallery of the documentation from the two built-in models.

    python scripts/gallery.py [--folder docs/images/gallery] [--theme light]

Needs no network: the models are packaged, and the picture is the drawn ship of the
command ``demo``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import torch
from captum.attr import LayerIntegratedGradients

from captum_transformer_lrp import AttnLRP, CheferLRP, LayerAttnLRP, units
from captum_transformer_lrp.models import load_image_model, load_text_model, read_pieces
from captum_transformer_lrp.models.pictures import draw_ship
from captum_transformer_lrp.visualization import (
    Picture,
    draw_attention,
    draw_heads,
    draw_image,
    draw_layers,
    draw_matrix,
    draw_text,
)

TEXT = "The plot is thin, but the acting is unforgettable."
LOGITS = "relevance, in logits"


def text_pictures() -> Iterator[tuple[str, Picture]]:
    """Yield the pictures of the classifier of sentiment."""
    source = load_text_model()
    model, tokenizer = source.module, source.tokenizer
    batch = tokenizer(TEXT, return_tensors="pt", return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")[0].tolist()
    ids = batch["input_ids"]
    pieces = read_pieces(tokenizer, ids[0].tolist(), text=TEXT, offsets=offsets)
    target = int(model(**batch).logits.argmax())
    name = source.class_names[target]

    def score(input_ids: torch.Tensor) -> torch.Tensor:
        return model(input_ids=input_ids).logits

    baseline = torch.full_like(ids, tokenizer.pad_token_id)
    special = torch.tensor([[piece.special for piece in pieces]])
    gradients = LayerIntegratedGradients(score, model.get_input_embeddings())
    integrated = gradients.attribute(
        ids, baselines=torch.where(special, ids, baseline), target=target, n_steps=50
    )
    relevance = AttnLRP(model).attribute(ids, target=target)
    yield (
        "text",
        draw_text(
            [relevance, integrated],
            [pieces, pieces],
            names=["AttnLRP", "Captum's Integrated Gradients"],
            title=f"Why “{name}”?",
            unit="in logits",
        ),
    )
    blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))
    layers = LayerAttnLRP(model, list(blocks)).attribute(batch, target=target)
    layers = [layer[0] if isinstance(layer, tuple) else layer for layer in layers]
    names = [f"after block {i}" for i in range(len(layers))]
    yield (
        "layers",
        draw_layers(
            layers, pieces, layers=names, title="Layers by tokens", unit=LOGITS
        ),
    )
    heads = [units.Heads(block.attention) for block in blocks]
    by_head = LayerAttnLRP(model, heads).attribute(batch, target=target)
    yield (
        "heads",
        draw_heads(
            [head.sum(1) for head in by_head],
            title="Relevance of attention heads",
            unit=LOGITS,
        ),
    )
    maps = CheferLRP(model).layers(batch, target=target)
    weighted = sum((each.attention * each.gradient).sum(1) for each in maps)
    yield (
        "matrix",
        draw_matrix(
            weighted,
            pieces,
            pieces,
            title="Attention x gradient, summed over layers and heads",
            unit="in logits",
            row_name="attending token",
            column_name="attended token",
        ),
    )
    yield "attention-heads", draw_attention(maps, pieces, layer=-1)
    yield "attention-lines", draw_attention(maps, pieces, heads=0, view="lines")


def image_pictures() -> Iterator[tuple[str, Picture]]:
    """Yield the pictures of the classifier of images."""
    source = load_image_model()
    model = source.module
    pixels = source.transform(draw_ship())[None]
    target = int(model(pixels).argmax())
    relevance = AttnLRP(model).attribute(pixels, target=target)
    patches = CheferLRP(model).attribute(pixels, target=target)
    options = {"mean": source.mean, "std": source.std}
    yield (
        "image",
        draw_image(
            pixels,
            relevance,
            style="side-by-side",
            title=f"Why “{source.class_names[target]}”? AttnLRP",
            unit=LOGITS,
            **options,
        ),
    )
    yield (
        "image-contours",
        draw_image(
            pixels,
            patches,
            style="contours",
            title="Chefer et al., by patches",
            unit="weight",
            **options,
        ),
    )


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("docs/images/gallery"))
    parser.add_argument("--theme", choices=["light", "dark"], default="light")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for pictures in (text_pictures(), image_pictures()):
        for name, picture in pictures:
            path = picture.save(
                options.folder / f"{name}.png", theme=options.theme, dpi=110
            )
            print(f"{path} ({path.stat().st_size / 1000:.0f} kB): {picture.alt}")


if __name__ == "__main__":
    main()
