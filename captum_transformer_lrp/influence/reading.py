"""From texts or pictures to batches that a classifier reads, and its logits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import InputError, OutputError, TargetError
from ..models.inputs import open_picture, pad
from ..models.loading import (
    ImageModel,
    TextModel,
    image_model,
    load_image_model,
    load_text_model,
    text_model,
)
from ..models.prediction import class_target, select_logits

#: what a model is called with: a tokenizer's mapping, or pixels
Batch = Mapping[str, Tensor] | Tensor


def run(module: nn.Module, batch: Batch) -> Tensor:
    """Return the logits ``(batch, classes)`` of a batch.

    Raises:
        OutputError: The model returns something else.
    """
    output = module(**batch) if isinstance(batch, Mapping) else module(batch)
    logits = select_logits(output)
    if logits.dim() != 2:
        raise OutputError(
            f"expected logits of shape (batch, classes), got {tuple(logits.shape)}"
        )
    return logits


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Reads examples for one classifier.

    Args:
        source (TextModel or ImageModel): The classifier.
        batch_size (int): How many examples go through the model at once.
    """

    source: TextModel | ImageModel
    batch_size: int

    def check(self, example: Any) -> None:
        """Say where an example is not what the model reads.

        Raises:
            InputError: It is no text for a model of texts, or no picture for one of
                pictures.
        """
        if isinstance(self.source, TextModel):
            if not isinstance(example, str) or not example.strip():
                raise InputError(f"expected a text with words in it, got {example!r}")
        elif isinstance(example, str):
            raise InputError(
                f"{self.source.name} reads pictures, and {example!r} is a text; pass a "
                "PIL image, a pathlib.Path or a (3, height, width) tensor"
            )

    def batches(
        self, examples: Sequence[Any], module: nn.Module
    ) -> Iterator[tuple[list[int], Batch]]:
        """Yield positions in ``examples`` and what the model is called with.

        Texts of a like length stand together, so that little is padded.
        """
        for example in examples:
            self.check(example)
        device = next(module.parameters()).device
        size = self.batch_size
        if isinstance(self.source, ImageModel):
            for start in range(0, len(examples), size):
                chosen = range(start, min(start + size, len(examples)))
                pixels = [self._pixels(examples[i]) for i in chosen]
                yield list(chosen), torch.stack(pixels).to(device)
            return
        if self.source.pad_id is None:
            size = 1
        rows = self._tokenise(examples)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        for start in range(0, len(order), size):
            positions = order[start : start + size]
            padded = pad(self.source, [rows[i] for i in positions])
            yield positions, {key: value.to(device) for key, value in padded.items()}

    def _tokenise(self, texts: Sequence[str]) -> list[dict[str, list[int]]]:
        assert isinstance(self.source, TextModel)
        limit = self.source.max_tokens
        options = {} if limit is None else {"truncation": True, "max_length": limit}
        encoded = dict(self.source.tokenizer(list(texts), **options))
        return [{k: v[i] for k, v in encoded.items()} for i in range(len(texts))]

    def _pixels(self, example: Any) -> Tensor:
        if isinstance(example, Tensor):
            return example
        assert isinstance(self.source, ImageModel)
        return self.source.transform(open_picture(example))

    def indices_of(self, labels: Sequence[int | str], classes: int) -> Tensor:
        """Return labels, given by index or name, as indices ``(examples,)``.

        Raises:
            TargetError: The model has no such class.
        """
        logits = torch.empty(1, classes)
        known: dict[int | str, int] = {}
        for label in labels:
            plain = label.item() if hasattr(label, "item") else label
            if plain not in known:
                index = class_target(self.source.class_names, plain, logits)
                if index is None:
                    raise TargetError("expected a label for every example, got None")
                known[plain] = index
        return torch.tensor(
            [known[x.item() if hasattr(x, "item") else x] for x in labels]
        )


def open_model(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    processor: Any,
    examples: Sequence[Any],
) -> TextModel | ImageModel:
    """Return the classifier that the arguments of ``tracin`` describe.

    Raises:
        InputError: There are no examples, a processor comes with a model that brings
            its own, or the model is no softmax classifier.
        LoadingError: No model is found, or it is neither a Hugging Face sequence
            classifier nor a model of images.
    """
    if not len(examples):
        raise InputError("expected at least one training example, got none")
    is_text = isinstance(examples[0], str)
    load: Callable[..., TextModel | ImageModel]
    source: TextModel | ImageModel
    if isinstance(model, nn.Module):
        name = type(model).__name__
        if is_text:
            source = text_model(name, model, processor)
        else:
            source = image_model(name, model, processor)
    else:
        if processor is not None:
            raise InputError(
                "a tokenizer or transform belongs to a loaded module: a model by name "
                "brings its own, so pass None"
            )
        if isinstance(model, (TextModel, ImageModel)):
            source = model
        else:
            load = load_text_model if is_text else load_image_model
            source = load(model)
    if isinstance(source, TextModel) and source.task != "sequence-classification":
        raise InputError(
            f"{source.name} is a language model: influence needs a classifier, with "
            "one label for each example"
        )
    if source.activation != "softmax":
        raise InputError(
            f"{source.name} has {source.activation} outputs (several labels at once, "
            "or regression): only classes that exclude each other are supported, for "
            "others build captum.influence.TracInCP with a loss of your own"
        )
    return source


@dataclass(frozen=True, kw_only=True)
class OpenedExamples:
    """What the arguments of every function of this package come to.

    Args:
        reader (Reader): Reads examples.
        module (nn.Module): A private copy of the model in evaluation mode, none of
            whose parameters asks for gradients.
        batch (Mapping or Tensor): The first training example, as the model reads it.
        labels (Tensor): The classes of the training examples, ``(examples,)``.
        classes (int): How many classes there are.
    """

    reader: Reader
    module: nn.Module
    batch: Batch
    labels: Tensor
    classes: int


def open_examples(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    processor: Any,
    examples: Sequence[Any],
    labels: Sequence[int | str],
    batch_size: int,
) -> OpenedExamples:
    """Check and open what is given of a model and its training examples.

    Raises:
        InputError: Numbers of examples and labels do not agree, ``batch_size`` is
            below 1, or what :func:`open_model` says.
        TargetError: The model has no class of a label.
        LoadingError: As for :func:`open_model`.
    """
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    if len(examples) != len(labels):
        raise InputError(
            f"expected a label for each of the {len(examples)} examples, got "
            f"{len(labels)}"
        )
    source = open_model(model, processor, examples)
    reader = Reader(source=source, batch_size=batch_size)
    module = copy.deepcopy(source.module).eval().requires_grad_(False)
    _, batch = next(reader.batches(examples[:1], module))
    with torch.no_grad():
        classes = run(module, batch).shape[-1]
    indices = reader.indices_of(labels, classes)
    return OpenedExamples(
        reader=reader, module=module, batch=batch, labels=indices, classes=classes
    )


def in_batches(
    reader: Reader, module: nn.Module, examples: Sequence[Any], labels: Tensor
) -> tuple[list[tuple[Batch, Tensor]], list[int]]:
    """Return batches with their labels, and which example stands where in them."""
    device = next(module.parameters()).device
    batches, order = [], []
    for positions, batch in reader.batches(examples, module):
        batches.append((batch, labels[positions].to(device)))
        order += positions
    return batches, order


def inverse(order: Sequence[int]) -> Tensor:
    """Return where each example stands."""
    return torch.tensor(order).argsort()


def collect(
    read: Callable[[Batch], Tensor],
    reader: Reader,
    module: nn.Module,
    examples: Sequence[Any],
) -> Tensor:
    """Return one row for each example, on the CPU, in float32 or float64.

    Args:
        read (Callable): From a batch to one row for each of its examples.
        reader (Reader): Makes the batches.
        module (nn.Module): The model that they are for.
        examples (Sequence): Texts or pictures.
    """
    rows: list[Tensor | None] = [None] * len(examples)
    progress = tqdm(
        total=len(examples),
        desc="reading",
        unit="example",
        disable=len(examples) < 20 * reader.batch_size,
        leave=False,
    )
    with progress:
        for positions, batch in reader.batches(examples, module):
            values = read(batch).detach().cpu()
            if values.dtype != torch.float64:
                values = values.float()
            for position, row in zip(positions, values, strict=True):
                rows[position] = row
            progress.update(len(positions))
    return torch.stack([row for row in rows if row is not None])
