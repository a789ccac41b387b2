"""Load the states that a model had while it was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._packages import require
from ..errors import InputError
from ..models.loading import LoadingError

Checkpoint = str | Path | Mapping[str, Tensor] | nn.Module


def load_checkpoint(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Give ``module`` the parameters of a checkpoint, all of them.

    Args:
        module (nn.Module): A private copy of the model; it is changed.
        checkpoint (str, Path, Mapping or nn.Module): A folder that ``save_pretrained``
            or the Hugging Face ``Trainer`` wrote, a file (``.safetensors``, or what
            ``torch.save`` wrote of a state dict, also as the entry ``"state_dict"`` or
            ``"model"`` of a mapping), a state dict, or a module.

    Raises:
        LoadingError: There is nothing there, or it does not fit the model.
    """
    name = f"the {type(checkpoint).__name__}"
    if isinstance(checkpoint, (str, Path)):
        name = repr(str(checkpoint))
    state = _unwrapped(_state(module, checkpoint))
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise LoadingError(
            f"{name} is no checkpoint of this {type(module).__name__}: "
            + " ".join(str(error).split())[:400]
        ) from error


def _state(module: nn.Module, checkpoint: Checkpoint) -> Mapping[str, Any]:
    if isinstance(checkpoint, nn.Module):
        return checkpoint.state_dict()
    if isinstance(checkpoint, Mapping):
        return checkpoint
    path = Path(checkpoint)
    if path.is_dir():
        cls: Any = type(module)
        if not hasattr(cls, "from_pretrained"):
            raise LoadingError(
                f"{str(path)!r} is a folder, and {type(module).__name__} is no Hugging "
                "Face model that could read one: name the file of the state dict"
            )
        try:
            dtype = next(module.parameters()).dtype
            loaded = cls.from_pretrained(str(path), dtype=dtype)
        except (OSError, ValueError) as error:
            reason = str(error).split("\n")[0]
            raise LoadingError(f"cannot load {str(path)!r}: {reason}") from error
        state: Mapping[str, Any] = loaded.state_dict()
        return state
    if not path.is_file():
        raise LoadingError(f"there is no checkpoint {str(path)!r}")
    if path.suffix == ".safetensors":
        tensors: Mapping[str, Any] = require("safetensors.torch").load_file(path)
        return tensors
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, Mapping):
        raise LoadingError(
            f"expected a state dict in {str(path)!r}, got {type(found).__name__}"
        )
    return found


def _unwrapped(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters themselves, without what training scripts put around."""
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): v for name, v in state.items()}
    return dict(state)


def rates_of(
    learning_rates: float | Sequence[float] | None, checkpoints: int
) -> tuple[float, ...]:
    """Return one learning rate for each checkpoint.

    Raises:
        InputError: There are not as many as checkpoints.
    """
    if learning_rates is None:
        return (1.0,) * checkpoints
    if isinstance(learning_rates, (int, float)):
        return (float(learning_rates),) * checkpoints
    rates = tuple(float(rate) for rate in learning_rates)
    if len(rates) != checkpoints:
        raise InputError(
            f"expected one learning rate or one for each of the {checkpoints} "
            f"checkpoints, got {len(rates)}"
        )
    return rates
