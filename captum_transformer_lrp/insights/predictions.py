"""What the model predicts for each example: found once, in batches, in the background.

The thread begins with the first visitor, holds the lock of the model for one batch at a
time, so that an explanation never waits for the whole data set, and ends with the data.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, LRPError
from ..models.inputs import pad
from ..models.labels import Labels, match_labels
from ..models.loading import ImageModel, TextModel
from ..models.prediction import ClassScore, image_score, select_logits, text_score
from .data import Data, Example

_LOG = logging.getLogger(__name__)

#: how many of the likeliest classes are kept of each example
TOP = 10


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says about one example.

    Args:
        top (tuple[ClassScore, ...]): The likeliest classes, likeliest first.
        label (ClassScore, optional): The true class, where it is known. Default: None
        right (bool, optional): Whether the likeliest class is the true one; None where
            that cannot be said. Default: None
        failure (str): Why there is no prediction; ``top`` is empty then.
            Default: ``""``
    """

    top: tuple[ClassScore, ...]
    label: ClassScore | None = None
    right: bool | None = None
    failure: str = ""

    @property
    def best(self) -> ClassScore | None:
        """The predicted class."""
        return self.top[0] if self.top else None

    @property
    def confidence(self) -> float:
        """The probability of the predicted class; its logit for a regression."""
        if self.best is None:
            return 0.0
        p = self.best.probability
        return self.best.logit if p is None else p


class Predictions:
    """The predictions for a data set, in their order; None where not yet known.

    Args:
        source (TextModel or ImageModel): The model.
        data (Data): The examples.
        lock (threading.RLock): Held while the model runs.
        batch_size (int, optional): How many examples go through the model at once.
            Default: 16
    """

    def __init__(
        self,
        source: TextModel | ImageModel,
        data: Data,
        lock: Any,
        *,
        batch_size: int = 16,
    ) -> None:
        self.source = source
        self.data = data
        self.labels: Labels = match_labels(
            [example.label for example in data.examples],
            source.class_names,
            folders=data.folder is not None,
        )
        self._lock = lock
        unpadded = isinstance(source, TextModel) and source.pad_id is None
        self._batch_size = 1 if unpadded else batch_size
        self._found: list[Prediction | None] = [None] * len(data.examples)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopped = threading.Event()
        #: what ended the thread before its time, if anything did
        self.failure = ""

    def __len__(self) -> int:
        return len(self._found)

    def __getitem__(self, place: int) -> Prediction | None:
        return self._found[place]

    @property
    def done(self) -> int:
        """How many examples have a prediction."""
        return sum(one is not None for one in self._found)

    @property
    def finished(self) -> bool:
        """Whether nothing more will come by itself."""
        return self.done == len(self) or bool(self.failure) or self._stopped.is_set()

    def start(self) -> None:
        """Begin to predict in the background; a second call does nothing."""
        with self._starting:
            if self._thread is None and not self.finished:
                self._thread = threading.Thread(
                    target=self._run, name="insights predictions", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """End the thread after its present batch."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def wait(self, timeout: float | None = None) -> None:
        """Start, and return when all is predicted.

        Raises:
            TimeoutError: It took longer than ``timeout`` seconds.
        """
        self.start()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"{self.done} of {len(self)} examples predicted")

    def ensure(self, place: int) -> Prediction:
        """Return the prediction for one example, found now if it is not yet known."""
        if self._found[place] is None:
            self._predict([place])
        found = self._found[place]
        assert found is not None
        return found

    def _run(self) -> None:
        places = range(len(self))
        try:
            for start in range(0, len(self), self._batch_size):
                if self._stopped.is_set():
                    return
                chosen = places[start : start + self._batch_size]
                todo = [p for p in chosen if self._found[p] is None]
                if todo:
                    self._predict(todo)
        except Exception as error:  # the page says it: nobody else sees this thread
            _LOG.exception("the predictions ended before their time")
            self.failure = f"{type(error).__name__}: {error}"

    def _predict(self, places: Sequence[int]) -> None:
        ready: list[int] = []
        inputs: list[Any] = []
        for place in places:
            try:
                inputs.append(self._input(self.data.examples[place]))
                ready.append(place)
            except LRPError as error:
                self._found[place] = Prediction(top=(), failure=str(error))
        if not ready:
            return
        with self._lock:
            logits = self._logits(inputs).detach().cpu()
        for place, row in zip(ready, logits, strict=True):
            self._found[place] = self._read(row, self.labels.indices[place])

    def _input(self, example: Example) -> Any:
        """Return token ids, or pixels ``(3, height, width)``."""
        value: Any = self.data.open(example)
        if isinstance(self.source, ImageModel):
            return self.source.transform(value)
        limit = self.source.max_tokens
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        ids = dict(self.source.tokenizer(value, verbose=False, **cut))
        if not ids["input_ids"]:
            raise InputError(f"the tokenizer finds no token in {value!r}")
        return ids

    def _logits(self, inputs: list[Any]) -> Tensor:
        """Return ``(batch, classes)``; for a language model those of the next token."""
        source = self.source
        with torch.no_grad():
            if isinstance(source, ImageModel):
                device = next(source.module.parameters()).device
                return select_logits(source.module(torch.stack(inputs).to(device)))
            batch = pad(source, inputs)
            logits = select_logits(source.module(**batch))
            if source.task == "causal-language-model":
                last = batch["attention_mask"].sum(dim=1) - 1
                logits = logits[torch.arange(len(logits)), last]
            return logits

    def _read(self, logits: Tensor, label: int | None) -> Prediction:
        """Describe one example; ``logits`` have shape ``(classes,)``."""
        source = self.source

        def score(index: int) -> ClassScore:
            if isinstance(source, ImageModel):
                return image_score(source, logits, index)
            return text_score(source, logits, index)

        best = logits.topk(min(TOP, len(logits))).indices.tolist()
        is_class = label is not None and label < len(logits)
        judged = is_class and source.activation != "none"
        return Prediction(
            top=tuple(score(index) for index in best),
            label=score(label) if label is not None and is_class else None,
            right=best[0] == label if judged else None,
        )
