"""What a model says of its classes, and which of them a target means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import targets
from ..errors import ModelStateError
from ..models.prediction import ClassScore, class_name, select_logits
from .asking import Asked, Question, chosen
from .recording import ModelCall


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
            if not isinstance(one, targets.Label):
                yield None, one, spelled(one)
                continue
            one = one.label
        for index in chosen(one, names, "class") or [best]:
            yield index, targets.Label(index), class_name(names, index)


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
    found = select_logits(output)[row].detach().cpu().double()
    if not bool(torch.isfinite(found).all()):
        raise ModelStateError("the model's logits are NaN or infinite")
    return found


def of_function(
    asked: Asked, call: ModelCall, inputs: Mapping[str, Any], function: Any, reads: Any
) -> Question:
    """Return the question for a function of the output that a user gave.

    Args:
        asked (Asked): what was asked and answered.
        call (ModelCall): whose output the function reads.
        inputs (Mapping): of the call, a batch of one.
        function (Callable): the target.
        reads (tuple of Read): the inputs as a person reads them.
    """
    score = float(value_of(function, asked.pipe.model, call.output))
    return Question(
        inputs=inputs,
        target=function,
        answer=ClassScore(index=0, name=spelled(function), logit=score),
        reads=reads,
        score="score",
    )
