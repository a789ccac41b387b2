"""Records as files: JSON to read, safetensors for bulk, Parquet for tables.

A record is what ``to_dict()`` of a result returns. JSON holds it as it is. The others
hold rows, one per explanation, whose keys are columns: ``target.index`` is the key
``index`` of ``target``, ``tokens.score`` the list of the ``score`` of all tokens. In
safetensors the columns of numbers are tensors, and the rest is JSON in the metadata.
Nothing that is read is ever run. :mod:`~captum_transformer_lrp.keeping` knows what
records mean.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ._files import write as write_file
from ._files import written_whole
from .errors import InputError, UnknownNameError
from .models.packages import require

if TYPE_CHECKING:
    from PIL.Image import Image

Record = dict[str, Any]

#: what records can be saved as, and read from
SUFFIXES = (".json", ".safetensors", ".parquet")
#: of a file, and of what it unpacks to, so that a small one cannot take all memory
MOST_BYTES = 1 << 31
#: safetensors reads no longer header
_MOST_HEADER = 90_000_000
#: rows that Parquet packs together
_GROUP = 256
_KEY = "captum_transformer_lrp"
_DIGEST = "sha256"
_PACKAGES = {".safetensors": "safetensors", ".parquet": "pyarrow"}
#: the modes of a picture that PNG gives back as they were
PICTURE_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")

_SCORE = {
    "index": "whole",
    "name": "text",
    "logit": "number",
    "probability": "number",
}
_TOKEN = {
    "token": "texts",
    "text": "texts",
    "special": "flags",
    "space_before": "flags",
    "word": "wholes",
    "score": "numbers",
}
#: column -> what stands in it
_OF_EXPLANATIONS = {
    "schema": "text",
    "version": "text",
    "comparison": "whole",
    "kind": "text",
    "model": "text",
    "method": "text",
    **{f"prediction.{key}": kind for key, kind in _SCORE.items()},
    **{f"target.{key}": kind for key, kind in _SCORE.items()},
    "measure": "text",
    "same_for_every_target": "flag",
    "relevance_sum": "number",
    "convergence_delta": "number",
    "about_sum": "text",
    "notes": "texts",
    "text": "text",
    "next_token": "flag",
    **{f"tokens.{key}": kind for key, kind in _TOKEN.items()},
    "height": "whole",
    "width": "whole",
    "scores": "table",
    "patch_scores": "table",
    "image": "bytes",
    "conservation.score": "number",
    "conservation.relevance": "number",
    "conservation.absorbed": "number",
    "conservation.error": "number",
}
#: the tensors of a language model's result -> what stands in their column
GENERATION_TENSORS = {
    "token_attr": "table",
    "seq_attr": "numbers",
    "scores": "numbers",
    "log_probs": "numbers",
    "output_probs": "numbers",
    "generated_attr": "table",
    "start_attr": "table",
    "skipped_attr": "numbers",
}
_OF_GENERATIONS = {
    "schema": "text",
    "version": "text",
    "kind": "text",
    "input_tokens": "texts",
    "output_tokens": "texts",
    **{f"dtypes.{key}": "text" for key in GENERATION_TENSORS},
    **GENERATION_TENSORS,
}


def damaged(found: str, expected: str) -> InputError:
    """Return the error for a file that says something impossible, on one line."""
    found = " ".join(found.split())
    return InputError(
        f"{found[:300]}, expected {expected}; the file is damaged or was changed: save "
        "the result again, or restore a copy of the file"
    )


def foreign(found: str) -> InputError:
    """Return the error for a file that this package did not write."""
    return InputError(
        f"{found}, expected results of captum_transformer_lrp; name a file that save() "
        "of an explanation, a comparison or a language model's result has written"
    )


def png_text(image: Image) -> str:
    """Return a picture as PNG in base64; of a mode that PNG changes, in RGB."""
    kept = image if image.mode in PICTURE_MODES else image.convert("RGB")
    file = io.BytesIO()
    kept.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def check_package(suffix: str) -> None:
    """Import the package that writes files of a suffix, if it needs one.

    Raises:
        MissingPackageError: It is not installed.
    """
    if suffix in _PACKAGES:
        require(_PACKAGES[suffix])


def write(path: Path, records: Iterable[Record], *, several: bool) -> Path:
    """Write records into one file, by its suffix.

    Args:
        path (Path): The file, with one of :data:`SUFFIXES`.
        records (iterable of dict): What ``to_dict()`` of results returned.
        several (bool): Whether the file holds a list, even of one.

    Raises:
        InputError: A number is NaN or infinite, a text holds half a character, or the
            file cannot hold these records.
        MissingPackageError: The package that writes such files is not installed.
    """
    suffix = path.suffix.lower()
    check_package(suffix)
    try:
        if suffix == ".json":
            listed = list(records)
            write_file(path, _json(listed if several else listed[0], indent=2) + "\n")
        elif suffix == ".safetensors":
            _write_safetensors(path, list(_rows(records)), several)
        else:
            _write_parquet(path, list(_rows(records)), several)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path.name!r} cannot be written: a text holds "
            f"{error.object[error.start]!r}, half of a character, expected text that "
            "UTF-8 can hold; take it out of the text"
        ) from error
    except ValueError as error:
        raise InputError(f"{path.name!r} cannot be written: {error}") from error
    return path


def read(path: Path) -> Record | list[Record]:
    """Return the record that a file holds, or a list of them if it holds a list.

    Only the form of the file is checked here.

    Raises:
        InputError: There is no such file, it is damaged, too large, or not of this
            package.
        UnknownNameError: The suffix is none of :data:`SUFFIXES`.
        MissingPackageError: The package that reads such files is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UnknownNameError(
            f"cannot load {path.name!r}: the suffix says the format, one of "
            f"{', '.join(SUFFIXES)}"
        )
    if not path.is_file():
        raise InputError(
            "there is no such file, expected one that save() has written; check the "
            "name and the folder"
        )
    _check_size(path.stat().st_size)
    check_package(suffix)
    if suffix == ".json":
        return _read_json(path)
    rows, several = (_read_safetensors if suffix == ".safetensors" else _read_parquet)(
        path
    )
    records = _records(rows)
    if several:
        return records
    if len(records) != 1:
        raise damaged(f"it holds {len(records)} results", "one")
    return records[0]


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(
            f"it holds {size:,} bytes or more, expected at most {MOST_BYTES:,}; save "
            "the results into several files, and load them together"
        )


# -------------------------------------------------------------------------------- JSON


def _json(value: Any, *, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def _read_json(path: Path) -> Record | list[Record]:
    found = _parsed(path.read_bytes())
    if isinstance(found, dict):
        return found
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return found
    raise foreign("it holds JSON of another form than an object or a list of objects")


def _parsed(written: str | bytes) -> Any:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"the number {name} is not finite")

    try:
        return json.loads(written, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(f"it cannot be read ({error})", "complete JSON") from error


# -------------------------------------------------------------------------------- rows


def _columns(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what the columns of a row are."""
    return _OF_GENERATIONS if row.get("kind") == "generation" else _OF_EXPLANATIONS


def _rows(records: Iterable[Record]) -> Iterator[Record]:
    """Yield one row per explanation; those of a comparison share a number."""
    for number, record in enumerate(records):
        if "explanations" not in record:
            yield _row(record)
            continue
        traces = record["conservation"]
        for one, trace in zip(record["explanations"], traces, strict=True):
            yield _row({"comparison": number, **one, "conservation": trace})


def _row(record: Record) -> Record:
    flat: Record = {}
    for key, value in record.items():
        if key == "tokens":
            flat |= {f"tokens.{k}": [token[k] for token in value] for k in _TOKEN}
        elif isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        elif value is not None:
            flat[key] = value
    columns = _columns(flat)
    unknown = [key for key in flat if key not in columns]
    if unknown:
        raise InputError(
            f"it has no place for {unknown[0]!r} of a result of the kind "
            f"{flat.get('kind')!r}; save it as .json"
        )
    return {k: _packed(k, columns[k], v) for k, v in flat.items() if v is not None}


def _packed(column: str, kind: str, value: Any) -> Any:
    if kind == "bytes":
        return base64.b64decode(value)
    if kind not in ("numbers", "table", "number"):
        return value
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{column!r} has NaN or infinity, expected finite numbers")
    return float(value) if kind == "number" else np.ascontiguousarray(numbers)


def _records(rows: Sequence[Record]) -> list[Record]:
    """Return the records that were taken apart into rows."""
    records: list[Record] = []
    last = None  # the number of the comparison before
    for row in rows:
        record = _record(row)
        number = record.pop("comparison", None)
        if number is None:
            records.append(record)
        else:
            trace = record.pop("conservation", None)
            if number != last:
                schema = f"{_KEY}.comparison/1"
                version = record.get("version")
                empty: Record = {"conservation": [], "explanations": []}
                records.append({"schema": schema, "version": version} | empty)
            records[-1]["conservation"].append(trace)
            records[-1]["explanations"].append(record)
        last = number
    return records


def _record(row: Record) -> Record:
    record: Record = {}
    tokens: dict[str, Sequence[Any]] = {}
    for column, value in row.items():
        outer, _, inner = column.partition(".")
        if outer == "tokens":
            tokens[inner] = value
        elif inner:
            record.setdefault(outer, {})[inner] = value
        else:
            record[outer] = value
    if tokens:
        try:
            listed = zip(*tokens.values(), strict=True)
            record["tokens"] = [dict(zip(tokens, t, strict=True)) for t in listed]
        except (TypeError, ValueError) as error:
            raise damaged(
                f"its columns of tokens do not fit together ({error})",
                "lists of the same length",
            ) from error
    for column in _columns(row):  # null is left out of rows
        outer, _, inner = column.partition(".")
        if outer in ("prediction", "target", "dtypes"):
            record.setdefault(outer, {}).setdefault(inner, None)
        elif not inner and column != "comparison":
            record.setdefault(column, None)
    return record


# ------------------------------------------------------------------------- safetensors


def _write_safetensors(path: Path, rows: list[Record], several: bool) -> None:
    tensors: dict[str, np.ndarray] = {}
    digest = _digest(rows, several)
    for number, row in enumerate(rows):
        for column, kind in _columns(row).items():
            if column in row and kind in ("numbers", "table"):
                tensors[f"{number}.{column}"] = row.pop(column)
            elif column in row and kind == "bytes":
                packed = np.frombuffer(row.pop(column), dtype=np.uint8)
                tensors[f"{number}.{column}"] = packed
    header = _json({"several": several, "rows": rows})
    if len(header.encode("utf-8")) > _MOST_HEADER:
        raise ValueError(
            "its header would hold more texts than safetensors can; save as .parquet, "
            "or into several files"
        )
    metadata = {_KEY: header, _DIGEST: digest}
    with written_whole(path) as part:
        require("safetensors.numpy").save_file(tensors, part, metadata=metadata)


def _read_safetensors(path: Path) -> tuple[list[Record], bool]:
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
            if _KEY not in metadata:
                raise foreign("it holds other tensors")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
    except (safetensors.SafetensorError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(
            f"it cannot be read ({error})", "a whole safetensors file"
        ) from error
    header = _parsed(metadata[_KEY])
    try:
        rows, several = header["rows"], header["several"]
        for name, tensor in tensors.items():
            number, _, column = name.partition(".")
            image = column == "image"
            expected = np.uint8 if image else np.float64
            if tensor.dtype != expected:
                raise TypeError(f"{name!r} is {tensor.dtype}, not {expected.__name__}")
            rows[int(number)][column] = tensor.tobytes() if image else tensor
        rows = [dict(row) for row in rows]
        found = _digest(rows, several)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise damaged(
            f"a tensor is wrong ({error!r})", "one for each place in its rows"
        ) from error
    _check_digest(found, metadata.get(_DIGEST))
    return rows, several is True


def _digest(rows: Sequence[Record], several: bool) -> str:
    """Return what tells rows from others: the formats notice too little."""
    digest = hashlib.sha256(_json(several).encode())
    for row in rows:
        for column, value in sorted(row.items()):
            if isinstance(value, np.ndarray):
                digest.update(f"{column} {value.shape}".encode())
                digest.update(value.tobytes())
            elif isinstance(value, bytes):
                digest.update(f"{column} {len(value)}".encode())
                digest.update(value)
            else:
                digest.update(_json([column, value]).encode("utf-8"))
    return digest.hexdigest()


def _check_digest(found: str, expected: Any) -> None:
    if found != expected:
        raise damaged(f"its content has the sha256 {found}", f"{_DIGEST}={expected!r}")


# ----------------------------------------------------------------------------- Parquet


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


def _write_parquet(path: Path, rows: list[Record], several: bool) -> None:
    arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    columns = _columns(rows[0])
    if any(_columns(row) is not columns for row in rows):
        raise ValueError(
            "its rows are explanations or results of a language model, and got both; "
            "save them into two files, or as .json or .safetensors"
        )
    used = {c: _type(kind) for c, kind in columns.items() if any(c in r for r in rows)}
    metadata = {_KEY: _json(several), _DIGEST: _digest(rows, several)}
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


def _read_parquet(path: Path) -> tuple[list[Record], bool]:
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
            _check_size(sum(file.metadata.row_group(i).total_byte_size for i in groups))
            for batch in file.iter_batches(batch_size=_GROUP):
                size += batch.nbytes
                _check_size(size)
                rows += _rows_of(batch)
    except (arrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise damaged(f"it cannot be read ({error})", "a whole Parquet file") from error
    if _KEY.encode() not in metadata:  # another program wrote the table again
        return rows, True
    several = metadata[_KEY.encode()] != b"false"
    expected = metadata.get(_DIGEST.encode(), b"").decode("ascii", "replace")
    _check_digest(_digest(rows, several), expected)
    return rows, several


def _rows_of(batch: Any) -> list[Record]:
    """Return the rows of a part of a table; its other columns are not read."""
    rows: list[Record] = [{} for _ in range(batch.num_rows)]
    generation = "input_tokens" in batch.schema.names
    columns = _OF_GENERATIONS if generation else _OF_EXPLANATIONS
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
