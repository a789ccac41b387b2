"""What a model says of its classes, and which of them a target means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import targets
from ..errors import ModelStateError
from ..models.prediction import ClassScore
from .asking import chosen


def class_score(
    names: Sequence[str], logits: Tensor, index: int, activation: str
) -> ClassScore:
    """Return what a model says of one class; ``logits`` have shape ``(classes,)``."""
    chances = _probabilities(logits, activation)
    return ClassScore(
        index=index,
        name=names[index] if index < len(names) else f"class {index}",
        logit=float(logits[index]),
        probability=None if chances is None else float(chances[index]),
    )


def _probabilities(logits: Tensor, activation: str) -> Tensor | None:
    values = logits.double()
    if activation == "none":
        return None
    return values.sigmoid() if activation == "sigmoid" else values.softmax(-1)


def wanted(
    target: Any, names: Sequence[str], best: int
) -> Iterator[tuple[int | None, Any, str]]:
    """Yield the classes that a target means, as functions of the output.

    Args:
        target (Any): None for the best class, its index or name, several of them, or a
            function of the output.
        names (sequence of str): of the classes.
        best (int): the class of the highest logit.

    Yields:
        Index (None for a function), function and name.
    """
    several = target if isinstance(target, (list, tuple)) else [target]
    for one in several:
        if callable(one):
            label = getattr(one, "label", None)
            if type(one) is targets.Label and isinstance(label, (int, str)):
                one = label
            else:
                yield None, one, spelled(one)
                continue
        for index in chosen(one, names, "class") or [best]:
            name = names[index] if index < len(names) else f"class {index}"
            yield index, targets.Label(index), name


def spelled(target: Any) -> str:
    """Return a target in words."""
    name = getattr(target, "__name__", None)
    return str(name) if name and name != "<lambda>" else repr(target).split(" at 0x")[0]


def value_of(function: Any, model: Any, output: Any) -> Tensor:
    """Return the score that a target gives an output."""
    bound = getattr(function, "for_model", None)
    found: Tensor = (function if bound is None else bound(model))(output)
    return found.detach().double().reshape(-1)[0]


def logits_of(output: Any, row: int = 0) -> Tensor:
    """Return the logits of one example, ``(classes,)``."""
    logits: Tensor = output["logits"] if isinstance(output, Mapping) else output.logits
    found = logits[row].detach().cpu().double()
    if not bool(torch.isfinite(found).all()):
        raise ModelStateError("the model's logits are NaN or infinite")
    return found
