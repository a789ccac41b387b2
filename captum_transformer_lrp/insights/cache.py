"""Explanations on request, one at a time, the latest of them kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ..explaining import explain
from ..explanation import Explanation
from ..models.loading import ImageModel, TextModel

if TYPE_CHECKING:
    from PIL.Image import Image

Key = tuple[int, str, int | None]


class ExplanationCache:
    """Explains with one model, and keeps the latest explanations.

    Requests come from several threads at once, and the model is explained by one.

    Args:
        source (TextModel or ImageModel): The model.
        lock (threading.RLock): Held while the model runs.
        capacity (int, optional): How many explanations are kept. Default: 128
    """

    def __init__(
        self, source: TextModel | ImageModel, lock: Any, *, capacity: int = 128
    ) -> None:
        self.source = source
        self.capacity = capacity
        self._lock = lock
        self._kept: OrderedDict[Key, Explanation] = OrderedDict()
        self._keeping = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(
        self,
        value: str | Image,
        method: str,
        target: int | str | None,
        *,
        number: int | None = None,
    ) -> Explanation:
        """Return the explanation of a text or a picture.

        Args:
            value (str or PIL.Image.Image): What to explain.
            method (str): The name of a method.
            target (int or str, optional): The class, or the next token; None is the
                prediction.
            number (int, optional): The number of the example, under which the
                explanation is kept; one's own input is not kept. Default: None

        Raises:
            LRPError: What :func:`captum_transformer_lrp.explain` raises.
        """
        if number is None or isinstance(target, str):
            with self._lock:
                return self._explain(value, method, target)
        key = (number, method, target)
        found = self._look_up(key)
        if found is not None:
            return found
        with self._lock:
            found = self._look_up(key)  # another thread may have been faster
            if found is None:
                found = self._explain(value, method, target)
                with self._keeping:
                    self._kept[key] = found
                    while len(self._kept) > self.capacity:
                        self._kept.popitem(last=False)
            return found

    def _look_up(self, key: Key) -> Explanation | None:
        with self._keeping:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def _explain(
        self, value: str | Image, method: str, target: int | str | None
    ) -> Explanation:
        if isinstance(self.source, TextModel):
            assert isinstance(value, str)
            return explain(value, model=self.source, method=method, target=target)
        assert not isinstance(value, str)
        return explain(image=value, model=self.source, method=method, target=target)
