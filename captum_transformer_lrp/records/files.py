"""Records written into a file by its suffix, and read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .._files import write as write_file
from .._packages import require
from ..errors import InputError, UnknownNameError
from . import table, tensors
from .refusal import check_size, damaged, foreign
from .rows import Record, parse_json, records_of, rows_of, to_json

#: what records can be saved as, and read from
SUFFIXES = (".json", ".safetensors", ".parquet")
_PACKAGES = {".safetensors": "safetensors", ".parquet": "pyarrow"}


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
            write_file(path, to_json(listed if several else listed[0], indent=2) + "\n")
        elif suffix == ".safetensors":
            tensors.write(path, list(rows_of(records)), several)
        else:
            table.write(path, list(rows_of(records)), several)
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
    check_size(path.stat().st_size)
    check_package(suffix)
    if suffix == ".json":
        return _read_json(path)
    reader = tensors if suffix == ".safetensors" else table
    rows, several = reader.read(path)
    records = records_of(rows)
    if several:
        return records
    if len(records) != 1:
        raise damaged(f"it holds {len(records)} results", "one")
    return records[0]


def _read_json(path: Path) -> Record | list[Record]:
    found = parse_json(path.read_bytes())
    if isinstance(found, dict):
        return found
    if isinstance(found, list) and all(isinstance(one, dict) for one in found):
        return found
    raise foreign("it holds JSON of another form than an object or a list of objects")
