"""Train the built-in image classifier, a small timm vision transformer, on CIFAR-10.

The result is a folder that timm reads without a network::

    timm.create_model("local-dir:<output>", pretrained=True)

The model is timm's ``vit_tiny_r_s16_p8_224`` made small: one convolution with a max
pool turns a 32x32 picture into a grid of 8x8 tokens, and transformer blocks with a
class token do the rest. Its blocks may start from those of a patch-4 vision
transformer (``--start-from``), its matrices are trained by Muon and everything else
by AdamW, and half of the tokens are dropped (Li et al. 2022, arXiv:2212.00794) until
the last part of the training. 2,000 training pictures are held out to make choices;
the 10,000 test pictures are looked at once, after the weights were stored in float16
and read back.

A GPU trains it in minutes (``--device cuda``), one CPU core in about an hour.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.layers.config import set_fused_attn
from timm.layers.patch_dropout import PatchDropout
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

ARCHITECTURE = "vit_tiny_r_s16_p8_224"
IMAGE_SIZE = 32
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.247, 0.2435, 0.2616)
HELD_OUT = 2000
DEPTH = 4
EPOCHS = 16.0


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how the training goes, besides data and seed."""

    epochs: float
    batch_size: int = 128
    muon_learning_rate: float = 0.01
    adamw_learning_rate: float = 0.002
    weight_decay: float = 0.05
    warmup: float = 0.04
    label_smoothing: float = 0.05
    patch_drop_rate: float = 0.5
    patch_drop_until: float = 0.7
    crop_padding: int = 4

    def learning_rate_factor(self, progress: float) -> float:
        """A linear warm-up, then a linear decay to zero (`progress` in [0, 1])."""
        if progress < self.warmup:
            return progress / self.warmup
        return (1.0 - progress) / (1.0 - self.warmup)


def read_pictures(path: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Decode an archive of JPEG files.

    Args:
        path (Path): An ``.npz`` file with `jpeg` (uint8, all files joined), `offsets`
                (one more than there are files), `labels` and `classes`.

    Returns:
        Pictures of shape (pictures, 3, 32, 32) as uint8, labels of shape (pictures,)
        and the class names.
    """
    with np.load(path) as archive:
        jpeg, offsets = archive["jpeg"].tobytes(), archive["offsets"].tolist()
        labels = torch.from_numpy(archive["labels"].astype(np.int64))
        classes = [str(name) for name in archive["classes"]]
    pictures = np.empty((len(labels), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    bounds = pairwise(offsets)
    for index, (start, end) in enumerate(tqdm(bounds, path.name, len(labels))):
        with Image.open(io.BytesIO(jpeg[start:end])) as picture:
            pictures[index] = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), labels, classes


def normalise(pictures: Tensor) -> Tensor:
    """Map uint8 pictures of shape (batch, 3, 32, 32) to the model's float inputs."""
    mean = torch.tensor(MEAN, device=pictures.device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=pictures.device).view(1, 3, 1, 1)
    inputs = (pictures.float() / 255 - mean) / std
    return inputs.contiguous(memory_format=torch.channels_last)


def shifted_and_flipped(
    pictures: Tensor, padding: int, generator: torch.Generator
) -> Tensor:
    """Crop each picture at its own place from a reflected border, and flip half.

    Args:
        pictures (Tensor): uint8, of shape (batch, 3, size, size).
        padding (int): The largest shift, in pixels.
        generator (torch.Generator): Source of the random numbers, on the CPU.

    Returns:
        uint8 pictures of the same shape.
    """
    batch, _, _, size = pictures.shape
    device = pictures.device
    padded = F.pad(pictures.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    shifts = torch.randint(2 * padding + 1, (2, batch, 1), generator=generator)
    rows, columns = (shifts + torch.arange(size)).to(device)
    flipped = (torch.rand(batch, 1, generator=generator) < 0.5).to(device)
    columns = torch.where(flipped, columns.flip(1), columns)
    index = torch.arange(batch, device=device).view(-1, 1, 1)
    chosen = padded.permute(0, 2, 3, 1)[index, rows.unsqueeze(2), columns.unsqueeze(1)]
    return chosen.permute(0, 3, 1, 2)


def orthogonalised(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of each matrix towards 1 by Newton-Schulz iteration.

    The quintic and its coefficients are those of Muon (Jordan et al. 2024).

    Args:
        matrices (Tensor): Shape (matrices, rows, columns), rows <= columns.
        steps (int, optional): Number of iterations. Default: 5
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    norms: Tensor = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = matrices / norms.clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Momentum whose step is orthogonalised, for the matrices inside the blocks.

    A fused query-key-value weight counts as three matrices. Matrices of equal shape
    are orthogonalised in one batch.

    Args:
        params (iterable): Parameters with two dimensions.
        lr (float): Step size; a step has about `lr` as its spectral norm.
        momentum (float, optional): Decay of the Nesterov momentum. Default: 0.95
        weight_decay (float, optional): Decoupled, multiplied by `lr`. Default: 0.0
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]]
            by_shape = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["velocity"] = torch.zeros_like(parameter)
                velocity = state["velocity"]
                velocity.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(velocity, group["momentum"])
                rows, columns = update.shape
                parts = rows // columns if rows == 3 * columns else 1
                update = update.view(parts, rows // parts, columns)
                update = update.mT if update.shape[1] > columns else update
                shape = (update.shape[1], update.shape[2])
                by_shape[shape].append((parameter, update))
            for members in by_shape.values():
                steps = orthogonalised(torch.cat([update for _, update in members]))
                counts = [len(update) for _, update in members]
                for (parameter, _), part in zip(
                    members, steps.split(counts), strict=True
                ):
                    rows, columns = parameter.shape
                    if rows > columns and rows != 3 * columns:
                        part = part.mT
                    gain = math.sqrt(max(1.0, part.shape[1] / part.shape[2]))
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(
                        part.reshape(rows, columns), alpha=-group["lr"] * gain
                    )


def build_model(
    model_args: dict[str, Any], patch_drop_rate: float
) -> VisionTransformer:
    """An untrained classifier; unfused attention, which is faster on short inputs."""
    set_fused_attn(False)
    model = timm.create_model(
        ARCHITECTURE, patch_drop_rate=patch_drop_rate, **model_args
    )
    assert isinstance(model, VisionTransformer)
    return model.to(memory_format=torch.channels_last)


def start_from(model: nn.Module, path: Path) -> list[str]:
    """Copy every parameter that has the same name and shape in another model.

    Returns:
        The names of the parameters that were copied.

    Raises:
        ValueError: If no parameter of the blocks could be copied.
    """
    own, other = model.state_dict(), load_file(path)
    common = {
        name: value
        for name, value in other.items()
        if name in own and own[name].shape == value.shape
    }
    if not any(name.startswith("blocks.") for name in common):
        raise ValueError(
            f"no block of {path} has the shapes of this model; give the weights of a "
            f"vision transformer with the same embed_dim, or leave --start-from out"
        )
    model.load_state_dict(common, strict=False)
    return sorted(common)


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for all other parameters."""
    matrices, decayed, others = [], [], []
    for name, parameter in model.named_parameters():
        if name.startswith("blocks.") and parameter.ndim == 2:
            matrices.append(parameter)
        elif name.startswith(("patch_embed.", "head.")) and parameter.ndim > 1:
            decayed.append(parameter)
        else:
            others.append(parameter)
    adamw = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=recipe.adamw_learning_rate,
        betas=(0.9, 0.98),
    )
    muon = Muon(
        matrices, lr=recipe.muon_learning_rate, weight_decay=recipe.weight_decay
    )
    return [muon, adamw]


def endless_batches(
    count: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Indices of batches; every picture once before any comes again."""
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < batch_size:
            rest = torch.cat([rest, torch.randperm(count, generator=generator)])
        batch, rest = rest[:batch_size], rest[batch_size:]
        yield batch


def accuracy(model: nn.Module, pictures: Tensor, labels: Tensor) -> float:
    """The share of pictures whose class the model finds, without augmentation."""
    model.eval()
    device = next(model.parameters()).device
    correct = 0
    with torch.inference_mode():
        for start in range(0, len(pictures), 250):
            logits = model(normalise(pictures[start : start + 250].to(device)))
            found = logits.argmax(1).cpu()
            correct += int((found == labels[start : start + 250]).sum())
    return correct / len(pictures)


def train(
    model: VisionTransformer,
    pictures: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe,
    seed: int,
    minutes: float = math.inf,
    checkpoint: Path | None = None,
) -> float:
    """Train in place and return the number of epochs.

    Args:
        model (VisionTransformer): From :func:`build_model`, on the device to train on.
        pictures (Tensor): uint8, of shape (pictures, 3, 32, 32).
        labels (Tensor): Of shape (pictures,).
        recipe (Recipe): Step sizes, regularisation and length.
        seed (int): For the order of the pictures and their augmentation.
        minutes (float, optional): If the epochs would take longer by the clock, the
                schedule runs by the clock and ends in time; a run that does so cannot
                be repeated exactly. Default: no limit
        checkpoint (Path, optional): Written every 500 steps. Default: None
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    optimizers = optimisers(model, recipe)
    peaks = [[group["lr"] for group in opt.param_groups] for opt in optimizers]
    total = max(1, round(recipe.epochs * len(pictures) / recipe.batch_size))
    batches = endless_batches(len(pictures), recipe.batch_size, generator)
    average, bar = math.nan, tqdm(range(total), "training", mininterval=5)
    patch_drop = model.patch_drop
    if not isinstance(patch_drop, PatchDropout):
        raise TypeError(
            f"the model drops no patches (its patch_drop is a "
            f"{type(patch_drop).__name__}); use build_model with patch_drop_rate > 0"
        )
    model.train()
    started = time.perf_counter()
    for step in bar:
        elapsed = (time.perf_counter() - started) / 60
        progress = max(step / total, elapsed / minutes)
        if progress >= 1:
            total = step
            break
        if progress >= recipe.patch_drop_until:
            patch_drop.prob = 0.0
        factor = recipe.learning_rate_factor(progress)
        for optimizer, rates in zip(optimizers, peaks, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        index = next(batches)
        batch = shifted_and_flipped(
            pictures[index].to(device), recipe.crop_padding, generator
        )
        loss = F.cross_entropy(
            model(normalise(batch)),
            labels[index].to(device),
            label_smoothing=recipe.label_smoothing,
        )
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 20 == 0:
            value = loss.item()
            average = value if math.isnan(average) else 0.9 * average + 0.1 * value
            bar.set_postfix(loss=f"{average:.3f}")
        if checkpoint is not None and (step + 1) % 500 == 0:
            save_file(stored_weights(model), checkpoint)
    bar.close()
    return total * recipe.batch_size / len(pictures)


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """The model's state in float16, contiguous, on the CPU."""
    return {
        name: value.detach().half().cpu().contiguous()
        for name, value in model.state_dict().items()
    }


def save_folder(
    model: VisionTransformer,
    folder: Path,
    model_args: dict[str, Any],
    classes: list[str],
) -> None:
    """Write `config.json` and `model.safetensors` as timm's ``local-dir:`` reads them.

    `pretrained_cfg` holds the preprocessing, which
    ``timm.data.resolve_model_data_config`` finds, and the names of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": ARCHITECTURE,
        "num_classes": len(classes),
        "num_features": model.num_features,
        "global_pool": model.global_pool,
        "model_args": model_args,
        "pretrained_cfg": {
            "tag": "cifar10",
            "custom_load": False,
            "input_size": [3, IMAGE_SIZE, IMAGE_SIZE],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": MEAN,
            "std": STD,
            "num_classes": len(classes),
            "label_names": classes,
            "first_conv": "patch_embed.backbone.conv",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = folder / "model.safetensors"
    save_file(stored_weights(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured, for the model card."""

    held_out_accuracy: float
    test_accuracy: float
    parameters: int
    bytes_stored: int
    epochs: float
    seconds: float
    threads: int
    device: str
    copied: int


def model_card(
    figures: Figures,
    recipe: Recipe,
    model_args: dict[str, Any],
    classes: list[str],
    seed: int,
    minutes: float,
) -> str:
    """The text of the folder's ``README.md``; all figures come from this run."""
    start = (
        f"{figures.copied} tensors came from another vision transformer "
        "(`--start-from`). If that one had\nlearned from all 50,000 training "
        "pictures, it had seen the held-out ones, whose\n"
        "accuracy may then be flattering."
        if figures.copied
        else "It was trained from random weights."
    )
    clock = (
        f"\nThe schedule ran by the clock (`--minutes {minutes:g}`), so the run cannot "
        "be repeated exactly."
        if figures.epochs < 0.99 * recipe.epochs
        else ""
    )
    size = f"{model_args['img_size']}x{model_args['img_size']}"
    settings = "\n".join(
        f"| {key} | {value} |"
        for key, value in asdict(recipe).items()
        if key != "epochs"
    )
    arguments = "\n".join(f"| {key} | {value} |" for key, value in model_args.items())
    return f"""# image-classifier

A small vision transformer that tells the ten classes of CIFAR-10 apart:
{", ".join(classes)}.
It ships with the library so that demo and tests have a real, trained model without a
network. Read it from the root of the repository with

```python
import timm

model = timm.create_model(
    "local-dir:captum_transformer_lrp/models/built_in/image-classifier",
    pretrained=True,
).eval()
preprocessing = timm.data.resolve_model_data_config(model)
names = model.pretrained_cfg["label_names"]
```

## Figures

| | |
|---|---|
| accuracy on the 10,000 test pictures, from the stored float16 weights | \
{figures.test_accuracy:.4f} |
| accuracy on 2,000 held-out training pictures | {figures.held_out_accuracy:.4f} |
| parameters | {figures.parameters:,} |
| `model.safetensors`, float16 (loads as float32) | {figures.bytes_stored:,} bytes |

The test pictures were evaluated once, after all choices were made on the held-out
pictures.

## Architecture

timm's `{ARCHITECTURE}` with the arguments

| argument | value |
|---|---|
{arguments}

A weight-standardised 7x7 convolution of stride 2, group normalisation, ReLU and a max
pool of stride 2 turn the {size} picture into 8x8 tokens of 64 channels; a 1x1
convolution brings them to the width of the transformer. A class token is put before the
64 tokens, learned positions are added, and the head reads the class token. Each token
sees more than its own 4x4 pixels: the receptive field of the stem is 11x11.

## Data

The 50,000 training pictures of CIFAR-10 (A. Krizhevsky, *Learning Multiple Layers of
Features from Tiny Images*, 2009), less {HELD_OUT:,} held out, from a copy compressed
again as JPEG: its pixels differ a little from the original, and so may accuracies.
CIFAR-10 has no formal licence; it is free for research, with citation. No picture of it
is packaged here.

## Licence

The weights were trained by this project and come under the licence of this repository.
They were learned from CIFAR-10: who uses them for more than research should look at its
terms first, and cite Krizhevsky (2009).

## Training

{figures.epochs:.2f} epochs in {figures.seconds:.0f} s on {figures.device} \
({figures.threads} thread(s) of the host), seed {seed}.{clock}
{start}
Muon trains the matrices of the blocks, AdamW the rest; pictures are shifted and
flipped.

| setting | value |
|---|---|
{settings}

To train it again, from the root of the repository:

```
python scripts/train_image_classifier.py --data <folder with cifar10_train_jpeg.npz \
and cifar10_test_jpeg.npz> --output <folder>
```

`--start-from` takes the `model.safetensors` of this folder too, to train on.

## Intended use

Demonstrations and tests of attribution methods. It is no good photo classifier.

## Limitations

- Inputs have {size} pixels; other pictures are resized to that, which loses most of
  what a photo shows.
- It answers with one of ten classes whatever the picture shows, and its confidence is
  not calibrated.
- About {round(100 * (1 - figures.test_accuracy))} of 100 test pictures are classified \
wrongly; look at the prediction before
  the explanation.
"""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with cifar10_train_jpeg.npz and cifar10_test_jpeg.npz",
    )
    parser.add_argument(
        "--start-from",
        type=Path,
        help="safetensors of a vision transformer of the same width",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("captum_transformer_lrp/models/built_in/image-classifier"),
        help="folder to write (default: %(default)s)",
    )
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="end in this time, with fewer epochs where the machine is slow",
    )
    parser.add_argument("--depth", type=int, default=DEPTH, help="number of blocks")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ...")
    parser.add_argument(
        "--checkpoint", type=Path, help="safetensors file to write every 500 steps"
    )
    return parser.parse_args()


def main() -> None:
    """Train, store, read back, evaluate, and write the model card."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(arguments.seed)
    pictures, labels, classes = read_pictures(arguments.data / "cifar10_train_jpeg.npz")
    test_pictures, test_labels, _ = read_pictures(
        arguments.data / "cifar10_test_jpeg.npz"
    )
    recipe = Recipe(epochs=arguments.epochs)
    model_args: dict[str, Any] = {
        "img_size": IMAGE_SIZE,
        "patch_size": 1,
        "embed_dim": 128,
        "depth": arguments.depth,
        "num_heads": 4,
        "num_classes": len(classes),
    }
    model = build_model(model_args, recipe.patch_drop_rate)
    copied = start_from(model, arguments.start_from) if arguments.start_from else []
    model.to(arguments.device)
    started = time.perf_counter()
    epochs = train(
        model,
        pictures[HELD_OUT:],
        labels[HELD_OUT:],
        recipe=recipe,
        seed=arguments.seed,
        minutes=arguments.minutes,
        checkpoint=arguments.checkpoint,
    )
    seconds = time.perf_counter() - started
    save_folder(model, arguments.output, model_args, classes)
    stored = timm.create_model(f"local-dir:{arguments.output}", pretrained=True)
    stored.to(arguments.device)
    figures = Figures(
        held_out_accuracy=accuracy(stored, pictures[:HELD_OUT], labels[:HELD_OUT]),
        test_accuracy=accuracy(stored, test_pictures, test_labels),
        parameters=sum(parameter.numel() for parameter in stored.parameters()),
        bytes_stored=(arguments.output / "model.safetensors").stat().st_size,
        epochs=epochs,
        seconds=seconds,
        threads=arguments.threads,
        device=arguments.device,
        copied=len(copied),
    )
    card = model_card(
        figures, recipe, model_args, classes, arguments.seed, arguments.minutes
    )
    (arguments.output / "README.md").write_text(card)
    for key, value in asdict(figures).items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
