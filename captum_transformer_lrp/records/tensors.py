"""Rows as safetensors: numbers are tensors, the rest is JSON in the metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._files import written_whole
from .._packages import require
from ..errors import InputError
from .refusal import damaged, foreign
from .rows import (
    DIGEST,
    KEY,
    Record,
    check_digest,
    columns_of,
    digest_of,
    parse_json,
    to_json,
)

#: safetensors reads no longer header
MOST_HEADER = 90_000_000


def write(path: Path, rows: list[Record], several: bool) -> None:
    """Write rows; ``several`` says whether they are those of a list."""
    tensors: dict[str, np.ndarray] = {}
    digest = digest_of(rows, several)
    for number, row in enumerate(rows):
        for column, kind in columns_of(row).items():
            if column in row and kind in ("numbers", "table"):
                tensors[f"{number}.{column}"] = row.pop(column)
            elif column in row and kind == "bytes":
                packed = np.frombuffer(row.pop(column), dtype=np.uint8)
                tensors[f"{number}.{column}"] = packed
    header = to_json({"several": several, "rows": rows})
    if len(header.encode("utf-8")) > MOST_HEADER:
        raise ValueError(
            "its header would hold more texts than safetensors can; save as .parquet, "
            "or into several files"
        )
    metadata = {KEY: header, DIGEST: digest}
    with written_whole(path) as part:
        require("safetensors.numpy").save_file(tensors, part, metadata=metadata)


def read(path: Path) -> tuple[list[Record], bool]:
    """Return rows, and whether they are those of a list."""
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            if KEY not in metadata:
                raise foreign("it holds other tensors")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(
            f"it cannot be read ({error})", "a whole safetensors file"
        ) from error
    header = parse_json(metadata[KEY])
    try:
        rows, several = header["rows"], header["several"]
        for name, tensor in tensors.items():
            number, _, column = name.partition(".")
            image = column.rpartition(".")[2] == "image"
            expected = np.uint8 if image else np.float64
            if tensor.dtype != expected:
                raise TypeError(f"{name!r} is {tensor.dtype}, not {expected.__name__}")
            rows[int(number)][column] = tensor.tobytes() if image else tensor
        rows = [dict(row) for row in rows]
        found = digest_of(rows, several)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise damaged(
            f"a tensor is wrong ({error!r})", "one for each place in its rows"
        ) from error
    check_digest(found, metadata.get(DIGEST))
    return rows, several is True
