"""Scores of any attributor as plain numbers of a known shape.

Captum's methods return tensors of the shape of their inputs, with a batch dimension and
often with features (``(1, tokens, features)`` on an embedding); others return arrays or
lists. Everything here is in float64, on the CPU, and detached from any graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from ..errors import InputError

Features = Literal["sum", "norm", "mean"]
FEATURE_RULES = ("sum", "norm", "mean")


def to_array(values: Any, name: str = "scores") -> np.ndarray:
    """Return numbers as an array of float64.

    Args:
        values (Tensor, np.ndarray, or nested sequence of numbers): On any device, of
            any real dtype; a tuple of one tensor, as Captum returns it for a tuple of
            inputs, is that tensor.
        name (str, optional): What messages call them. Default: ``"scores"``

    Raises:
        InputError: They are no numbers, of no common shape, complex, NaN or infinite,
            or there are none.
    """
    if isinstance(values, tuple) and any(isinstance(v, torch.Tensor) for v in values):
        if len(values) != 1:
            raise InputError(
                f"{name} are a tuple of {len(values)} tensors, one for each input of "
                f"the model; expected those of one input. Pass {name}[0]."
            )
        (values,) = values
    if isinstance(values, torch.Tensor):
        if values.is_complex():
            raise InputError(f"{name} are complex numbers; expected real ones.")
        values = values.detach().to("cpu", torch.float64).numpy()
    elif isinstance(values, Sequence) and any(
        isinstance(v, torch.Tensor) for v in values
    ):
        values = [to_array(v, name) for v in values]
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} of type {type(values).__name__} are no array of numbers: {error}. "
            "Expected a tensor, an array, or lists of equal length."
        ) from error
    if array.size == 0:
        raise InputError(f"{name} of shape {array.shape} hold no number.")
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise InputError(
            f"{bad} of {array.size} {name} are NaN or infinite; expected finite "
            "numbers. Half precision overflows easily: compute in float32."
        )
    return array


def check_features(features: str) -> None:
    """Check the name of a rule for features.

    Raises:
        InputError: There is no such rule.
    """
    if features not in FEATURE_RULES:
        raise InputError(
            f"features={features!r}; expected one of {', '.join(FEATURE_RULES)}."
        )


def reduce_features(array: np.ndarray, features: Features, axis: int) -> np.ndarray:
    """Reduce features to one number: their sum, Euclidean norm or mean.

    Raises:
        InputError: There is no such rule.
    """
    check_features(features)
    if features == "sum":
        return np.asarray(array.sum(axis=axis))
    if features == "norm":
        return np.asarray(np.sqrt((array**2).sum(axis=axis)))
    return np.asarray(array.mean(axis=axis))


def token_scores(scores: Any, count: int, features: Features = "sum") -> np.ndarray:
    """Return one number for each of ``count`` tokens.

    Args:
        scores (Tensor, np.ndarray or list): Shape ``(tokens,)`` or ``(tokens,
            features)``, with a batch dimension of 1 in front or not.
        count (int): The number of tokens.
        features (str, optional): How features become one number. Default: ``"sum"``

    Returns:
        *np.ndarray* of shape ``(tokens,)``.

    Raises:
        InputError: The shape is another one.
    """
    check_features(features)
    array = to_array(scores)
    shape = array.shape
    if array.ndim > 1 and shape[0] == 1 and shape[1] == count:
        array = array[0]
    if array.ndim == 2 and array.shape[0] == count:
        return reduce_features(array, features, axis=1)
    if array.shape == (count,):
        return array
    raise InputError(
        f"scores have shape {shape} for {count} tokens; expected ({count},) or "
        f"({count}, features), with a batch dimension of 1 in front or not. Take one "
        "example of a batch, without its padding: scores[i, :len(tokens)]."
    )


def layer_scores(scores: Any, count: int, features: Features = "sum") -> np.ndarray:
    """Return one number for each layer and each of ``count`` tokens.

    Args:
        scores (Tensor, np.ndarray or sequence): One entry for each layer, each as
            :func:`token_scores` takes it.
        count (int): The number of tokens.
        features (str, optional): How features become one number. Default: ``"sum"``

    Returns:
        *np.ndarray* of shape ``(layers, tokens)``.

    Raises:
        InputError: The shape of a layer is another one.
    """
    return np.stack([token_scores(layer, count, features) for layer in scores])
