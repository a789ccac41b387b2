"""One reader of texts: files, tables, data frames, data sets, and what yields texts.

Lines, CSV (with commas, semicolons or tabs), TSV, JSON lines, Parquet, pandas, Hugging
Face ``datasets``, and any iterable. Everything that reads texts reads them here, so
that a file means the same wherever it is given. Which columns were taken is said in
:attr:`Texts.said`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from .._packages import require
from ..errors import InputError, suggestion

#: the column of the texts, if none is named
TEXT_COLUMNS = ("text", "sentence")
#: the column of the labels, if none is named
LABEL_COLUMNS = ("label", "labels")
#: of a file when it is unpacked, so that a small one cannot take all memory
MOST_BYTES = 1 << 28
_TABLES = (".csv", ".tsv", ".jsonl", ".parquet")
_DELIMITERS = ",;\t"
_LOOKED_AT = 50
_BYTE_ORDERS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Label = str | int | None


@dataclass(frozen=True, kw_only=True)
class Text:
    """One text of a source.

    Attributes:
        number (int): Its place among the texts of the source, from 1.
        text (str): Without white space around it.
        label (str, int or None): The true class, by name or index, if it is known.
    """

    number: int
    text: str = field(repr=False)
    label: Label = None


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one source.

    Attributes:
        name (str): What the source is called: a file's name.
        rows (tuple of Text): Those that are not empty, in their order.
        said (str): What was read, such as ``"reviews.csv: 12 texts of the column
            'text', with the labels of 'label'"``.
    """

    name: str
    rows: tuple[Text, ...] = field(repr=False)
    said: str


@dataclass(frozen=True)
class _Read:
    """Rows of texts and labels, and the names of their columns, if they have any."""

    rows: Iterable[tuple[Any, Any]]
    text: str = ""
    label: str = ""


def read_texts(
    source: Any, *, text_column: str | None = None, label_column: str | None = None
) -> Texts:
    """Return the texts of a file, a table, or of anything that yields texts.

    Args:
        source (str, Path or iterable): A file: ``.csv``, ``.tsv``, ``.jsonl`` (also
            with a further ``.gz``), ``.parquet``, or any other with one text per line,
            in UTF-8 or with a byte order mark in UTF-16. A ``pandas.DataFrame`` or
            ``Series``, a ``datasets.Dataset``. Or an iterable of texts, of pairs of a
            text and its label, or of mappings with the columns as keys.
        text_column (str, optional): The column of the texts, by name; in a file without
            a header by number, from 1. Default: ``text`` or ``sentence``
        label_column (str, optional): The column of the labels. Default: ``label`` or
            ``labels``, if there is one

    Raises:
        InputError: There is no such file or column, or no text in it; a row has no
            text, or a label that is neither a name nor an index.
        MissingPackageError: Parquet is read with pandas, which is not installed.
    """
    columns = (text_column, label_column)
    if isinstance(source, (str, Path)):
        path = Path(source).expanduser()
        name, read = path.name, _from_file(path, *columns)
    else:
        name, read = "data from Python", _from_python(source, *columns)
    kept = [(text.strip(), label) for text, label in read.rows if text.strip()]
    rows = tuple(
        Text(number=number, text=text, label=label)
        for number, (text, label) in enumerate(kept, 1)
    )
    if not rows:
        which = f"the file {str(source)!r}" if isinstance(source, (str, Path)) else name
        raise InputError(f"{which} holds no text")
    said = f"{name}: {len(rows):,} text{'s' * (len(rows) > 1)}"
    if read.text:
        said += f" of the column {read.text!r}"
    elif text_column is not None:
        said += f" of column {text_column}"
    if read.label:
        said += f", with the labels of {read.label!r}"
    return Texts(name=name, rows=rows, said=said)


def unpacked_text(path: Path) -> str:
    """Return what stands in a text file, unpacked if its name ends in .gz.

    In UTF-8, or in UTF-16 where a byte order mark says so.

    Raises:
        InputError: There is no such file, it is no text, or unpacked it is larger than
            ``MOST_BYTES``.
    """
    try:
        opened: Any = gzip.open if path.suffix.lower() == ".gz" else open
        with opened(path, "rb") as file:
            raw: bytes = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise InputError(
                f"{str(path)!r} holds more than {MOST_BYTES >> 20} MiB of text. Split "
                "it, or pass the texts from Python"
            )
        return raw.decode("utf-16" if raw.startswith(_BYTE_ORDERS) else "utf-8-sig")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(
            f"there is no file {str(path)!r} to read texts from"
        ) from error
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise InputError(
            f"{str(path)!r} is not a text file in UTF-8; save it as one"
        ) from error


def is_table(source: Any) -> bool:
    """Whether a source is a data frame or a data set, with columns by name."""
    library = type(source).__module__.partition(".")[0]
    named = hasattr(source, "columns") or hasattr(source, "column_names")
    return library in ("pandas", "datasets") and named


# ------------------------------------------------------------------------------- files


def _from_file(path: Path, text: str | None, label: str | None) -> _Read:
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    if kind == ".parquet":
        return _from_parquet(path, text, label)
    written = unpacked_text(path)
    if kind == ".json":
        raise InputError(
            f"{path.name!r} is one JSON document; expected .jsonl, with one object per "
            'line such as {"text": "A warm film.", "label": "positive"}'
        )
    if kind == ".jsonl":
        return _from_mappings(_objects(path, written), str(path), text, label)
    if kind in (".csv", ".tsv"):
        return _from_table(path, written, text, label, tabs=kind == ".tsv")
    if text is not None or label is not None:
        raise InputError(
            f"{path.name!r} is read as one text per line, so that it has no column "
            f"{text or label!r}; expected one of {', '.join(_TABLES)}"
        )
    return _Read([(line, None) for line in written.splitlines()])


def _from_parquet(path: Path, text: str | None, label: str | None) -> _Read:
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r} to read texts from")
    pandas = require("pandas")
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise InputError(
            f"{path.name!r} cannot be read, because pandas reads Parquet with pyarrow, "
            'which is not installed:  pip install "captum_transformer_lrp[data]"'
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} is not a Parquet file: {error}") from error
    return _from_columns(frame, list(frame.columns), str(path), text, label)


def _objects(path: Path, written: str) -> Iterator[tuple[str, Any]]:
    """Yield where each JSON object of a file stands, and the object."""
    # Not splitlines, which also cuts at characters that JSON leaves within a line.
    for number, line in enumerate(written.split("\n"), 1):
        if line.strip():
            where = f"line {number} of {str(path)!r}"
            try:
                yield where, json.loads(line)
            except ValueError as error:
                raise InputError(f"{where} is not JSON: {error}") from error


def _from_table(
    path: Path, written: str, text: str | None, label: str | None, *, tabs: bool
) -> _Read:
    # In tab-separated files quotes are letters, as in those of GLUE.
    options: dict[str, Any] = (
        {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
        if tabs
        else {"delimiter": _delimiter(written)}
    )
    try:
        rows = [row for row in _table(written, **options) if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError(f"{str(path)!r} cannot be read as a table: {error}") from error
    if not rows:
        return _Read(())
    header = [name.strip() for name in rows[0]]
    at, named = _column(str(path), header, text, TEXT_COLUMNS, "text")
    label_at: int | None = None
    if label is not None or (named and _place(header, LABEL_COLUMNS) is not None):
        label_at, label_named = _column(
            str(path), header, label, LABEL_COLUMNS, "label"
        )
        if named != label_named:
            raise InputError(
                f"the columns of {str(path)!r} are named once by a header and once by "
                "a number, which stands for a table without a header; name both alike"
            )
    last = max(at, -1 if label_at is None else label_at)
    body = rows[1:] if named else rows
    short = next((row for row in body if len(row) <= last), None)
    if short is not None:
        raise InputError(
            f"a row of {str(path)!r} has {len(short)} columns, and column {last + 1} "
            f"is read: {' | '.join(short)[:60]!r}"
        )
    width = len(header)
    long = next((row for row in body if any(map(str.strip, row[width:]))), None)
    if long is not None:
        raise InputError(
            f"a row of {str(path)!r} has {len(long)} columns, and the first row "
            f"{width}: {' | '.join(long)[:60]!r}. A text that holds what stands "
            "between columns needs quotes around it; or name a file of one text per "
            "line .txt"
        )
    return _Read(
        [
            (row[at], None if label_at is None else row[label_at].strip() or None)
            for row in body
        ],
        header[at] if named else "",
        header[label_at] if named and label_at is not None else "",
    )


def _table(written: str, **options: Any) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(written, newline=""), **options)


def _delimiter(written: str) -> str:
    """Return what stands between the columns: what cuts all rows alike, into most."""
    best, most = ",", (False, 1)
    for delimiter in _DELIMITERS:
        try:
            rows = islice(_table(written, delimiter=delimiter), _LOOKED_AT)
            sizes = {len(row) for row in rows if row}
        except csv.Error:
            continue
        found = (len(sizes) == 1, min(sizes, default=1))
        if found[1] > 1 and found > most:
            best, most = delimiter, found
    return best


def _column(
    source: str,
    header: Sequence[str],
    column: str | None,
    usual: Sequence[str],
    what: str,
) -> tuple[int, bool]:
    """Return the place of a column, and whether the first row is a header."""
    # The name as it is, then digits: without a header, a row may hold the label "1".
    if column in header and not (column or "").isdigit():
        return list(header).index(column or ""), True
    if column is not None and column.isascii() and column.isdigit() and int(column):
        return int(column) - 1, False
    place = _place(header, usual if column is None else (column,))
    if place is not None:
        return place, True
    raise InputError(
        f"the first row of {source!r} names no column {_asked(column, usual)}; its "
        f"{len(header)} columns are: {_shown(header)}. Name one with --{what}-column "
        f"({what}_column=), or give its number from 1 if the file has no header"
    )


def _place(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Return the place of the first wanted name, in any case."""
    lowered = [str(name).strip().lower() for name in names]
    found = (lowered.index(w.strip().lower()) for w in wanted if w.lower() in lowered)
    return next(found, None)


def _asked(column: str | None, usual: Sequence[str]) -> str:
    return repr(column) if column else " or ".join(map(repr, usual))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(name if len(name) < 20 else f"{name[:19]}…" for name in names)


# ------------------------------------------------------------------------------ python


def _from_python(source: Any, text: str | None, label: str | None) -> _Read:
    if is_table(source) and isinstance(source, Mapping):
        raise InputError(
            f"a {type(source).__name__} holds several data sets; expected one of its "
            f"splits: {', '.join(map(repr, source))}"
        )
    if is_table(source):
        names = getattr(source, "column_names", None)
        names = list(source.columns if names is None else names)
        return _from_columns(source, names, "the table", text, label)
    if isinstance(source, (Mapping, bytes)) or not isinstance(source, Iterable):
        raise InputError(
            "expected a file, a table, or an iterable of texts, of pairs of a text and "
            f"its label, or of mappings, got {type(source).__name__}"
        )
    items = [(f"item {number}", item) for number, item in enumerate(source, 1)]
    if items and all(isinstance(item, Mapping) for _, item in items):
        return _from_mappings(items, "the mappings", text, label)
    if text is not None or label is not None:
        raise InputError(
            f"a column {text or label!r} was named, and the items are no mappings with "
            "columns as keys; leave the name out"
        )
    return _Read([_pair(where, item) for where, item in items])


def _from_columns(
    table: Any, names: list[Any], source: str, text: str | None, label: str | None
) -> _Read:
    """Read two columns of what gives a column for its name."""
    found: list[Any] = []
    for column, usual, what in (
        (text, TEXT_COLUMNS, "text"),
        (label, LABEL_COLUMNS, "label"),
    ):
        place = _place(names, usual if column is None else (column,))
        if place is None and (what == "text" or column is not None):
            raise InputError(
                f"{source} has no column {_asked(column, usual)}; its {len(names)} "
                f"columns are: {_shown([str(n) for n in names])}. Name one with "
                f"--{what}-column ({what}_column=)"
            )
        found.append(None if place is None else names[place])
    at, label_at = found
    texts = list(table[at])
    labels = [None] * len(texts) if label_at is None else list(table[label_at])
    rows = [
        _pair(f"row {number} of {source}", pair)
        for number, pair in enumerate(zip(texts, labels, strict=True), 1)
    ]
    return _Read(rows, str(at), "" if label_at is None else str(label_at))


def _from_mappings(
    items: Iterable[tuple[str, Any]], source: str, text: str | None, label: str | None
) -> _Read:
    texts = TEXT_COLUMNS if text is None else (text,)
    labels = LABEL_COLUMNS if label is None else (label,)
    rows, keys = [], dict.fromkeys(("text", "label"), "")
    for where, row in items:
        if not isinstance(row, Mapping):
            raise InputError(f"{where} is {_described(row)}; expected an object")
        key = next((k for k in texts if k in row), None)
        if key is None or not isinstance(row[key], str):
            raise InputError(
                f"{where} has no text under {_asked(text, texts)}. Name its key with "
                f"--text-column (text_column=).{suggestion(text or 'text', row)}"
            )
        of_label = next((k for k in labels if k in row), None)
        if label is not None and of_label is None:
            raise InputError(
                f"{where} has no label under {label!r}.{suggestion(label, row)}"
            )
        keys.update(text=key, label=of_label or keys["label"])
        rows.append(_pair(where, (row[key], row[of_label] if of_label else None)))
    return _Read(rows, keys["text"], keys["label"])


def _pair(where: str, item: Any) -> tuple[str, Label]:
    """Return a text and its label, None if it has none."""
    pair = isinstance(item, (tuple, list)) and len(item) == 2
    text, label = item if pair else (item, None)
    if label is not None and hasattr(label, "item"):  # a number of numpy's
        label = label.item()
    if isinstance(label, float) and math.isnan(label):  # where a table has none
        label = None
    if isinstance(label, float) and label.is_integer():  # beside such
        label = int(label)
    if not isinstance(text, str):
        raise InputError(
            f"{where} is {_described(item)}; expected a text, or a pair of a text and "
            "its label"
        )
    if isinstance(label, bool) or not isinstance(label, (str, int, type(None))):
        raise InputError(
            f"{where} has the label {label!r}; expected the index or the name of a "
            "class, or None"
        )
    return text, label


def _described(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        inner = ", ".join(type(part).__name__ for part in item[:4])
        return f"a {type(item).__name__} of {len(item)} ({inner})"
    return f"of type {type(item).__name__}"


__all__ = ["LABEL_COLUMNS", "TEXT_COLUMNS", "Text", "Texts", "read_texts"]
