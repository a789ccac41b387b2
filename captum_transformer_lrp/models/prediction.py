"""What a model says about its classes, and which of them a target means."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .._visible import visible
from ..errors import OutputError, TargetError, suggestion
from .loading import ImageModel, TextModel
from .pieces import read_pieces


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """What a model says about one class, or about one next token.

    Args:
        index (int): Position of the class among the logits, or the token id.
        name (str): Its readable name.
        logit (float): The model's score, in logits.
        probability (float, optional): The probability that the model gives it; None
            for regression, which has none. Default: None
    """

    index: int
    name: str
    logit: float
    probability: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", visible(self.name))

    def __str__(self) -> str:
        if self.probability is None:
            return f"{self.name} ({self.logit:+.3f})"
        return f"{self.name} ({percent(self.probability)})"


def percent(probability: float) -> str:
    """Return a probability as a person writes it; never a false "100 %"."""
    if 0.9995 <= probability < 1:
        return "> 99.9 %"
    if 0 < probability < 0.0005:
        return "< 0.1 %"
    return f"{100 * probability:.1f} %"


def select_logits(output: Any) -> Tensor:
    """Return the logits of a model's output."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise OutputError(
            "expected the model to return a tensor or an output with .logits, got "
            f"{type(output).__name__}"
        )
    return logits


def class_target(
    names: Sequence[str], target: int | str | None, logits: Tensor
) -> int | None:
    """Return the index of the class that ``target`` means; None is the prediction."""
    if logits.dim() != 2:
        raise OutputError(
            f"expected logits of shape (batch, classes), got {tuple(logits.shape)}"
        )
    count = logits.shape[-1]
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, (int, str)):
        raise TargetError(f"expected target= to be an index or a name, got {target!r}")
    if isinstance(target, int):
        if not 0 <= target < count:
            raise TargetError(
                f"the model has classes 0 to {count - 1}, got target={target}"
            )
        return target
    matches = places_of(target, names)
    if len(matches) != 1:
        several = f"{len(matches)} classes" if matches else "no class"
        raise TargetError(
            f"the model has {several} named {target!r}."
            + (
                f" Use one of the indices {matches}."
                if matches
                else suggestion(target, names)
            )
        )
    return matches[0]


def places_of(name: str, names: Sequence[str]) -> list[int]:
    """Return where a name stands in a list: as it is, or else in another case."""
    return [i for i, n in enumerate(names) if n == name] or [
        i for i, n in enumerate(names) if n.lower() == name.lower()
    ]


def token_target(
    source: TextModel, target: int | str | None, vocabulary: int
) -> int | None:
    """Return the token id that ``target`` means; None is the prediction."""
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, (int, str)):
        raise TargetError(f"expected target= to be a token or its id, got {target!r}")
    if isinstance(target, int):
        if not 0 <= target < vocabulary:
            raise TargetError(
                f"the vocabulary has ids 0 to {vocabulary - 1}, got target={target}"
            )
        return target
    ids = source.tokenizer.encode(target, add_special_tokens=False)
    if len(ids) != 1:
        tokens = source.tokenizer.convert_ids_to_tokens(ids)
        raise TargetError(
            f"expected target= to be one token, but {target!r} is {len(ids)} "
            f"({tokens}); pass one of them, or a token id. A word within a sentence "
            "often starts with a space."
        )
    return int(ids[0])


def note_on_spelling(
    source: TextModel, target: int | str | None, index: int, logits: Tensor
) -> tuple[str, ...]:
    """Say so where the same word with, or without, a space in front is likelier.

    Args:
        source (TextModel): a language model.
        target (int, str or None): as a user wrote it.
        index (int): the token that it means.
        logits (Tensor): of the next token, shape ``(vocabulary,)``.
    """
    if not isinstance(target, str):
        return ()
    other = target[1:] if target.startswith(" ") else f" {target}"
    ids = source.tokenizer.encode(other, add_special_tokens=False)
    if len(ids) != 1 or not other.strip() or logits[ids[0]] <= logits[index]:
        return ()
    chosen, likelier = (text_score(source, logits, i) for i in (index, int(ids[0])))
    note = (
        f"{target!r} is the token {chosen}; {other!r} is another one, {likelier}, "
        f"which target={other!r} explains."
    )
    warnings.warn(note, UserWarning, stacklevel=2)
    return (note,)


def text_score(source: TextModel, logits: Tensor, index: int) -> ClassScore:
    """Describe one class or next token; ``logits`` have shape ``(classes,)``."""
    if source.task == "causal-language-model":
        return token_score(source.tokenizer, logits, index)
    return class_score(source.class_names, logits, index, source.activation)


def image_score(source: ImageModel, logits: Tensor, index: int) -> ClassScore:
    """Describe one class of a picture; ``logits`` have shape ``(classes,)``."""
    return class_score(source.class_names, logits, index, source.activation)


def token_score(tokenizer: Any, logits: Tensor, token: int) -> ClassScore:
    """Describe one token; ``logits`` have shape ``(vocabulary,)``."""
    (piece,) = read_pieces(tokenizer, [token])
    return _described(piece.label, logits, token, "softmax")


def class_score(
    names: Sequence[str], logits: Tensor, index: int, activation: str
) -> ClassScore:
    """Describe one class of one example.

    Args:
        names (sequence of str): of the classes; those behind them have a number.
        logits (Tensor): shape ``(classes,)``.
        index (int): the class.
        activation (str): ``"softmax"``, ``"sigmoid"`` or ``"none"``, as for
            :class:`~.loading.TextModel`.
    """
    return _described(class_name(names, index), logits, index, activation)


def class_name(names: Sequence[str], index: int) -> str:
    """Return the name of a class; one without has its number."""
    return names[index] if index < len(names) else f"class {index}"


def _described(name: str, logits: Tensor, index: int, activation: str) -> ClassScore:
    values = logits.detach().cpu().double()
    probability = None
    if activation == "softmax":
        probability = float(values.softmax(-1)[index])
    elif activation == "sigmoid":
        probability = float(values[index].sigmoid())
    return ClassScore(
        index=index, name=name, logit=float(values[index]), probability=probability
    )
