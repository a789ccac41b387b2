"""Tensors and plain values in one safetensors file, written at once; no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._files import written_whole
from .._packages import require
from ..errors import InputError


def write_checkpoint(
    path: Path, tensors: dict[str, Tensor], optimizer: dict[str, Any], values: Any
) -> None:
    """Write a checkpoint; a file of that name is replaced only when all is written.

    Args:
        path (Path): the file.
        tensors (dict): what is trained.
        optimizer (dict): the optimiser's ``state_dict()``.
        values (Any): what JSON can hold.
    """
    save_file = require("safetensors.torch").save_file
    found = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, state in optimizer["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                found[f"optimizer.{index}.{key}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[key] = value
    rest = {k: v for k, v in optimizer.items() if k != "state"}
    text = json.dumps({"values": values, "state": plain, "optimizer": rest})
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as part:
        save_file(
            {k: v.clone() for k, v in found.items()},
            part,
            metadata={"checkpoint": text},
        )


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Any]:
    """Return the tensors, the optimiser's state and the values of a checkpoint.

    Raises:
        InputError: if the file is no checkpoint of a training.
    """
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            found = {key: file.get_tensor(key) for key in file.keys()}
        content = json.loads(metadata["checkpoint"])
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{str(path)!r} is no checkpoint of a training of masks ({error})."
        ) from error
    state: dict[int, dict[str, Any]] = {
        int(index): dict(values) for index, values in content["state"].items()
    }
    tensors = {}
    for key, value in found.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state.setdefault(int(index), {})[name] = torch.as_tensor(value)
        else:
            tensors[key] = value
    return tensors, {**content["optimizer"], "state": state}, content["values"]
