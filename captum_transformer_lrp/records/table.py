"""Rows as a table in Parquet."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from .._files import written_whole
from .._packages import require
from ..errors import InputError
from .refusal import check_size, damaged, foreign
from .rows import (
    DIGEST,
    KEY,
    OF_EXPLANATIONS,
    OF_GENERATIONS,
    OF_PAIRS,
    OF_SOURCES,
    Record,
    check_digest,
    columns_of,
    digest_of,
    to_json,
)

#: rows that are packed together
_GROUP = 256


def _type(kind: str) -> Any:
    """Return the type of a Parquet column."""
    arrow = require("pyarrow")
    scalars = {
        "text": arrow.string(),
        "whole": arrow.int64(),
        "flag": arrow.bool_(),
        "number": arrow.float64(),
        "bytes": arrow.binary(),
    }
    if kind in scalars:
        return scalars[kind]
    if kind == "table":
        return arrow.list_(arrow.list_(arrow.float64()))
    return arrow.list_(scalars[kind.removesuffix("s")])


def write(path: Path, rows: list[Record], several: bool) -> None:
    """Write rows; ``several`` says whether they are those of a list."""
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    columns = columns_of(rows[0])
    if any(columns_of(row) is not columns for row in rows):
        raise ValueError(
            "its rows are explanations or results of a language model, and got both; "
            "save them into two files, or as .json or .safetensors"
        )
    used = {c: _type(kind) for c, kind in columns.items() if any(c in r for r in rows)}
    metadata = {KEY: to_json(several), DIGEST: digest_of(rows, several)}
    schema = arrow.schema(list(used.items()), metadata=metadata)
    remaining = iter(rows)
    with (
        written_whole(path) as part,
        parquet.ParquetWriter(part, schema, write_page_checksum=True) as writer,
    ):
        while group := list(islice(remaining, _GROUP)):
            arrays = [
                arrow.array([_listed(row.get(c)) for row in group], type=kind)
                for c, kind in used.items()
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _listed(value: Any) -> Any:
    """Return a table as a list of its rows, which pyarrow takes."""
    return list(value) if isinstance(value, np.ndarray) and value.ndim == 2 else value


def read(path: Path) -> tuple[list[Record], bool]:
    """Return rows, and whether they are those of a list.

    They are where another program, such as pandas, wrote the table again.
    """
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    rows: list[Record] = []
    size = 0
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            if not {"schema", "kind"} <= set(names):
                raise foreign(f"it holds a table with the columns {', '.join(names)}")
            metadata = file.schema_arrow.metadata or {}
            groups = range(file.num_row_groups)
            check_size(sum(file.metadata.row_group(i).total_byte_size for i in groups))
            for batch in file.iter_batches(batch_size=_GROUP):
                size += batch.nbytes
                check_size(size)
                rows += _rows_of(batch)
    except (arrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(f"it cannot be read ({error})", "a whole Parquet file") from error
    if KEY.encode() not in metadata:
        return rows, True
    several = metadata[KEY.encode()] != b"false"
    expected = metadata.get(DIGEST.encode(), b"").decode("ascii", "replace")
    check_digest(digest_of(rows, several), expected)
    return rows, several


def _rows_of(batch: Any) -> list[Record]:
    """Return the rows of a part of a table; its other columns are not read."""
    rows: list[Record] = [{} for _ in range(batch.num_rows)]
    names = batch.schema.names
    columns = OF_PAIRS if "matrix" in names else OF_EXPLANATIONS
    columns = OF_GENERATIONS if "input_tokens" in names else columns
    columns = OF_SOURCES if "source_of" in names else columns
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if name not in columns:
            continue
        kind = columns[name]
        values = array.cast(_type(kind))  # a file may have passed through pandas
        for row, value in zip(rows, values, strict=True):
            if not value.is_valid:
                continue
            if kind == "numbers":
                row[name] = value.values.to_numpy(zero_copy_only=False)
            elif kind == "table":
                lines = [line.values for line in value]
                if None in lines:
                    raise ValueError(f"{name!r} has null for a row")
                numbers = [line.to_numpy(zero_copy_only=False) for line in lines]
                row[name] = np.array(numbers, dtype=np.float64)
            else:
                row[name] = value.as_py()
    return rows
