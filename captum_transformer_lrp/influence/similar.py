"""Training examples that a model represents like the one it predicts."""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from captum.influence import SimilarityInfluence
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from .._captum import cosine_similarity, euclidean_distance
from ..errors import InputError, OutputError, UnitError, suggestion
from ..models.loading import ImageModel, TextModel
from .final_layer import find_final_layer
from .ranking import TrainingInfluence
from .reading import Batch, OpenedExamples, collect, open_examples, run

Metric = Literal["cosine", "euclidean"]

_METRICS = {"cosine": cosine_similarity, "euclidean": euclidean_distance}


def similarity(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    processor: Any,
    examples: Sequence[Any],
    labels: Sequence[int | str],
    *,
    layer: str | None = None,
    metric: Metric = "cosine",
    batch_size: int = 32,
) -> SimilarExamples:
    """Find training examples that the model represents alike, by Captum's class.

    Needs no checkpoints and knows nothing of the training: it says what the model
    takes for similar, not what taught it.

    Args:
        model (nn.Module, str, Path, TextModel or ImageModel): As for
            :func:`~captum_transformer_lrp.influence.tracin`; it is copied.
        processor (Any): The tokenizer or transform, as there.
        examples (Sequence of str, PIL.Image.Image, Path or Tensor): The training texts
            or pictures.
        labels (Sequence of int or str): Their classes, by index or name.
        layer (str, optional): The module whose output represents an example. An output
            with tokens, ``(batch, tokens, width)``, is averaged over those that are no
            padding. Default: None, what the last linear layer reads
        metric (str, optional): ``"cosine"``, or ``"euclidean"``, for which the scores
            are distances with a minus. Default: ``"cosine"``
        batch_size (int, optional): How many examples go through the model at once.
            Default: 32

    Returns:
        *SimilarExamples*, with ``proponents`` (the most similar), ``opponents`` (the
        least similar) and ``scores``.

    Raises:
        InputError: Numbers of examples and labels do not agree; there is no such
            metric; the model is no classifier.
        UnitError: The model has no such layer, or no final one.
        OutputError: The layer's output is not one vector for each example or token.
    """
    if metric not in _METRICS:
        raise InputError(f"expected metric= 'cosine' or 'euclidean', got {metric!r}")
    opened = open_examples(model, processor, examples, labels, batch_size)
    return SimilarExamples(opened, examples, layer, metric)


class SimilarExamples(TrainingInfluence):
    """Similarity of what a layer says; made by :func:`similarity`."""

    def __init__(
        self,
        opened: OpenedExamples,
        examples: Sequence[Any],
        layer: str | None,
        metric: Metric,
    ) -> None:
        super().__init__(opened, examples)
        module, batch = opened.module, opened.batch
        self._final = find_final_layer(module, batch) if layer is None else None
        if layer is not None and layer not in dict(module.named_modules()):
            raise UnitError(
                f"{type(module).__name__} has no module {layer!r}."
                + suggestion(layer, dict(module.named_modules()))
            )
        self._layer = layer
        self._metric = metric
        self._features = self._read(self.examples)
        where = f"output of {layer}" if layer else f"input of {self._final_name}"
        self.measure = (
            f"{metric} {'similarity' if metric == 'cosine' else 'distance, negative,'} "
            f"of the {where}; knows nothing of the training"
        )

    @property
    def _final_name(self) -> str:
        assert self._final is not None
        return self._final.name

    def _scores(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        cosine = self._metric == "cosine"
        count = len(self._features)
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            # Captum sees vectors of features and keeps them in files.
            captum = SimilarityInfluence(
                nn.Sequential(OrderedDict(features=nn.Identity())),
                "features",
                TensorDataset(self._features),
                folder,
                similarity_metric=_unwrapped(_METRICS[self._metric]),
                similarity_direction="max" if cosine else "min",
                batch_size=count,
            )
            found = captum.influence(self._read(examples), top_k=count)
        order, values = found["features"]
        scores = torch.zeros_like(values).scatter_(1, order, values)
        return scores if cosine else -scores

    def _read(self, examples: Sequence[Any]) -> Tensor:
        return collect(self._vectors, self._reader, self._module, examples)

    def _vectors(self, batch: Batch) -> Tensor:
        """Return what represents each example, ``(batch, features)``."""
        if self._final is not None:
            return self._final.read(self._module, batch)[0]
        assert self._layer is not None
        seen: list[Any] = []
        handle = self._module.get_submodule(self._layer).register_forward_hook(
            lambda module, args, output: seen.append(output)
        )
        try:
            with torch.no_grad():
                rows = len(run(self._module, batch))
        finally:
            handle.remove()
        output: Any = seen[-1] if seen else None
        if isinstance(output, (tuple, list)) and output:
            output = output[0]
        is_tensor = isinstance(output, Tensor)
        if not is_tensor or output.dim() not in (2, 3) or len(output) != rows:
            got = tuple(output.shape) if is_tensor else type(output).__name__
            raise OutputError(
                f"expected {self._layer!r} to return one vector for each of {rows} "
                f"examples or their tokens, got {got}"
            )
        states: Tensor = output
        if states.dim() == 2:
            return states
        mask = None if isinstance(batch, Tensor) else batch["attention_mask"]
        if mask is None or mask.shape != states.shape[:2]:
            return states.mean(1)
        weights = mask.to(states.dtype).unsqueeze(-1)
        return (states * weights).sum(1) / weights.sum(1)


def _unwrapped(metric: Callable[[Tensor, Tensor], Tensor]) -> Any:
    """Return the metric for what Captum calls it with.

    For one layer Captum 0.9 passes a list with the states of the examples, which none
    of its own metrics takes.
    """

    def measured(examples: Tensor | list[Tensor], training: Tensor) -> Tensor:
        one = examples[0] if isinstance(examples, list) else examples
        return metric(one, training)

    return measured
