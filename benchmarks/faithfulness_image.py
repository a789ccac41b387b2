"""Faithfulness of attributions of vision transformers, against what people use.

Three parts, each with scores per patch of the predicted class, or of the class asked
for:

* `cifar` and `shapes`: patches are set to 0 after normalisation in the order of their
  scores; the probability of the predicted class at 11 fractions with ceil, on the first
  500 pictures of the test sets. Delta is the area LeRF - MoRF.
* `shapes` also has exact masks: mIoU, mAP and pixel accuracy by the thresholds of
  Chefer et al., and the pointing game, for the true class.
* `mosaics`: four CIFAR-10 pictures of four classes, halved in size, make one picture;
  how much of the positive relevance for a class lies on its tile (one quarter by
  chance)? The classes are those whose picture the model knows in full size.

The first half of the pictures may be tuned on, the second is held out; both are shown.

    python benchmarks/faithfulness_image.py --methods Random IG-20 AttnLRP
    python benchmarks/faithfulness_image.py --parts shapes --output FOLDER

Results are kept, a file for each method and part, and read again by the next run.
Without ../shared the built-in model is measured on pictures of coloured shapes.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _faithfulness import (
    Result,
    add_options,
    cached,
    chosen_methods,
    draw,
    one_thread,
    save_summary,
    summary,
    table,
)
from _methods import IMAGE, ImageMethod, Images
from torch import Tensor, nn

from captum_transformer_lrp.metrics import (
    Measurement,
    ValueReplacement,
    perturbation_curves,
    pointing_game,
    relevance_mass,
    segmentation,
)
from captum_transformer_lrp.models.loading import load_image_model

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
PARTS = ("cifar", "shapes", "mosaics", "built-in")
COLUMNS = {
    "cifar": ("MoRF", "LeRF", "Delta+"),
    "shapes": ("Delta+", "mIoU+", "mAP", "pixel accuracy", "pointing game"),
    "mosaics": ("relevance mass+", "pointing game"),
    "built-in": ("MoRF", "LeRF", "Delta+"),
}


@dataclass(frozen=True)
class Pictures:
    """One part: a model and what it sees.

    Args:
        model (nn.Module): in eval mode, 32 x 32 pixels to classes.
        pixels (Tensor): `(pictures, 3, 32, 32)`, normalised.
        target (Tensor): the class that is explained, `(pictures,)`.
        grid (tuple): rows and columns of patches.
        perturb (bool): measure perturbation curves.
        masks (Tensor or None): bool, `(pictures, 32, 32)`: the object.
        segment (bool): measure the masks as segmentations too.
    """

    model: nn.Module
    pixels: Tensor
    target: Tensor
    grid: tuple[int, int] = (8, 8)
    perturb: bool = True
    masks: Tensor | None = None
    segment: bool = False


def load_vit(folder: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the timm model of a folder of ../shared, and its config."""
    import timm
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = timm.models.vision_transformer.VisionTransformer(**config["kwargs"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), config


def normalised(pictures: Any, config: dict[str, Any]) -> Tensor:
    """Return uint8 pictures `(n, 32, 32, 3)` as the model takes them."""
    x = torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
    return (x - mean) / std


def cifar_pictures(number: int) -> tuple[Any, Tensor]:
    """Return the first pictures of the test set and their classes."""
    from PIL import Image

    packed = np.load(SHARED / "data" / "cifar10" / "cifar10_test_jpeg.npz")
    jpeg, offsets = packed["jpeg"], packed["offsets"]
    pictures = [
        np.asarray(
            Image.open(io.BytesIO(jpeg[offsets[i] : offsets[i + 1]].tobytes())).convert(
                "RGB"
            )
        )
        for i in range(number)
    ]
    return np.stack(pictures), torch.from_numpy(packed["labels"][:number]).long()


def predicted(model: nn.Module, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in pixels.split(100)])


def cifar(number: int) -> Pictures:
    model, config = load_vit(SHARED / "models" / "vit-cifar10")
    pictures, _ = cifar_pictures(number)
    pixels = normalised(pictures, config)
    return Pictures(model, pixels, predicted(model, pixels))


def shapes(number: int) -> Pictures:
    model, config = load_vit(SHARED / "models" / "vit-shapes")
    packed = np.load(SHARED / "data" / "shapes" / "shapes_test1000.npz")
    pixels = normalised(packed["x"][:number], config)
    masks = torch.from_numpy(packed["mask"][:number]).bool()
    return Pictures(model, pixels, predicted(model, pixels), masks=masks, segment=True)


def mosaics(number: int) -> Pictures:
    """Return mosaics of four pictures that the model knows, of four classes."""
    model, config = load_vit(SHARED / "models" / "vit-cifar10")
    pictures, labels = cifar_pictures(min(10_000, 10 * number))
    pixels = normalised(pictures, config)
    known = (predicted(model, pixels) == labels).nonzero()[:, 0]
    small = torch.nn.functional.avg_pool2d(pixels, 2)
    generator = torch.Generator().manual_seed(0)
    made, target, masks = [], [], []
    for place in range(number):
        chosen: list[int] = []
        for i in known[torch.randperm(len(known), generator=generator)].tolist():
            if all(labels[i] != labels[j] for j in chosen):
                chosen.append(i)
            if len(chosen) == 4:
                break
        rows = [torch.cat([small[i] for i in chosen[r : r + 2]], 2) for r in (0, 2)]
        made.append(torch.cat(rows, 1))
        tile = place % 4
        mask = torch.zeros(32, 32, dtype=torch.bool)
        top, left = 16 * (tile // 2), 16 * (tile % 2)
        mask[top : top + 16, left : left + 16] = True
        target.append(int(labels[chosen[tile]]))
        masks.append(mask)
    return Pictures(
        model,
        torch.stack(made),
        torch.tensor(target),
        perturb=False,
        masks=torch.stack(masks),
    )


def built_in(number: int) -> Pictures:
    """Return pictures of discs and squares on noise, for the model that ships."""
    generator = torch.Generator().manual_seed(0)
    model = load_image_model(None).module
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    made = []
    for _ in range(number):
        y, x = torch.randint(8, 24, (2,), generator=generator).tolist()
        away = torch.stack([rows - y, columns - x]).abs()
        disc = bool(torch.rand(1, generator=generator) < 0.5)
        inside = away.square().sum(0) < 49 if disc else away.amax(0) < 7
        colour, ground = torch.randn(2, 3, 1, 1, generator=generator)
        noise = 0.2 * torch.randn(3, 32, 32, generator=generator)
        made.append(torch.where(inside, colour, ground) + noise)
    pixels = torch.stack(made)
    return Pictures(model, pixels, predicted(model, pixels))


def measure(name: str, method: ImageMethod, part: Pictures, batch_size: int) -> Result:
    """Attribute all pictures with one method and measure the scores."""
    images = Images(part.model, part.grid, torch.Generator().manual_seed(0))
    scores, seconds = [], 0.0
    for pixels, target in zip(
        part.pixels.split(batch_size), part.target.split(batch_size), strict=True
    ):
        started = time.process_time()
        scores.append(method(images, pixels, target).detach())
        seconds += time.process_time() - started
    maps = torch.cat(scores)
    found: list[Measurement] = []
    curves = {}
    if part.perturb:
        curve = perturbation_curves(
            part.model, part.pixels, maps, replacement=ValueReplacement()
        )
        found += [curve.morf, curve.lerf, curve.delta]
        curves = {
            "MoRF": curve.most_relevant_first.mean(0).tolist(),
            "LeRF": curve.least_relevant_first.mean(0).tolist(),
        }
    if part.masks is not None:
        found += [pointing_game(maps, part.masks), relevance_mass(maps, part.masks)]
    if part.segment and part.masks is not None:
        scores_of_masks = segmentation(maps, part.masks)
        found += [
            scores_of_masks.pixel_accuracy,
            scores_of_masks.mean_iou,
            scores_of_masks.mean_average_precision,
        ]
    return Result(name, seconds / len(maps), {m.name: m for m in found}, {}, curves)


def main() -> None:
    """Measure, print the tables, save the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    there = (SHARED / "models" / "vit-cifar10").is_dir()
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS[:3]) if there else ["built-in"],
    )
    parser.add_argument("--number", type=int, default=500, help="pictures of a part")
    parser.add_argument("--batch-size", type=int, default=50)
    add_options(parser, "results/faithfulness-image")
    options = parser.parse_args()
    names = chosen_methods(options.methods, IMAGE)
    makers = {"cifar": cifar, "shapes": shapes, "mosaics": mosaics}
    with one_thread():
        for part_name in options.parts:
            part = makers.get(part_name, built_in)(options.number)
            protocol = {"part": part_name, "number": len(part.pixels)}
            results = []
            for name in names:
                compute = functools.partial(
                    measure, name, IMAGE[name], part, options.batch_size
                )
                folder = options.output / part_name
                again = name in options.again
                results.append(cached(folder, name, protocol, compute, again=again))
                print(part_name, name, f"{results[-1].seconds:.4f} s", flush=True)
            number = len(part.pixels)
            show(part_name, results, number, options.figure, options.against)
            if options.json is not None:
                path = options.json.with_stem(f"{options.json.stem}_{part_name}")
                save_summary(path, protocol, summary(results, number))


def show(
    part: str,
    results: Sequence[Result],
    number: int,
    figure: Path | None,
    against: str,
) -> None:
    """Print the tables of one part and save its figure."""
    columns = COLUMNS[part]
    half = number // 2
    print(
        f"\n{part}: all {number} pictures\n\n{table(results, columns, None, against)}"
    )
    compared = [column for column in columns if column.endswith("+")]
    for title, chosen in (
        ("first half", range(half)),
        ("second half, held out", range(half, number)),
    ):
        halved = table(results, compared, chosen, against)
        print(f"\n{part}: {title}\n\n{halved}", flush=True)
    if figure is not None:
        panels = {c.removesuffix("+"): c.removesuffix("+") for c in compared}
        path = figure.with_name(f"{figure.stem}_{part}{figure.suffix}")
        draw(results, panels, path, f"{part}, {number} pictures")


if __name__ == "__main__":
    main()
