"""Records taken apart into rows, one per explanation, and put together again.

The keys of a row are columns: ``target.index`` is the key ``index`` of ``target``, and
``tokens.score`` is the list of the ``score`` of all tokens. Null is left out.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from ..errors import InputError
from .refusal import damaged

Record = dict[str, Any]

#: the names in the metadata of a file: what it holds, and the digest of its rows
KEY, DIGEST = "captum_transformer_lrp", "sha256"

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
_MARK = {"start": "wholes", "end": "wholes", "name": "texts"}
_OUTLINE = {"name": "texts", "path": "texts"}
#: lists of objects -> what stands in the columns of their keys
_LISTS = {"tokens": _TOKEN, "marks": _MARK, "outlines": _OUTLINE}
#: objects of a record, but those of a class
_OBJECTS = ("dtypes", "a", "b", "spans", "sources")
#: lists that may be empty -> the key of all records that have them
_EMPTY = {"marks": "tokens", "outlines": "image"}
#: column -> what stands in it
OF_EXPLANATIONS = {
    "schema": "text",
    "version": "text",
    "comparison": "whole",
    "joint": "whole",
    "part": "text",
    "kind": "text",
    "model": "text",
    "method": "text",
    **{f"prediction.{key}": kind for key, kind in _SCORE.items()},
    **{f"target.{key}": kind for key, kind in _SCORE.items()},
    **{f"label.{key}": kind for key, kind in _SCORE.items()},
    "measure": "text",
    "same_for_every_target": "flag",
    "relevance_sum": "number",
    "convergence_delta": "number",
    "about_sum": "text",
    "notes": "texts",
    "text": "text",
    "next_token": "flag",
    "joined": "flag",
    **{
        f"{name}.{key}": kind
        for name, keys in _LISTS.items()
        for key, kind in keys.items()
    },
    "score_name": "text",
    "task": "text",
    "height": "whole",
    "width": "whole",
    "scores": "table",
    "patch_scores": "table",
    "image": "bytes",
    "sampling_rate": "whole",
    "hop": "whole",
    "seconds": "number",
    "behind": "text",
    "spoken_from": "number",
    "spoken_to": "number",
    "spectrogram": "flag",
    "sound": "table",
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
OF_GENERATIONS = {
    "schema": "text",
    "version": "text",
    "kind": "text",
    "input_tokens": "texts",
    "output_tokens": "texts",
    **{f"dtypes.{key}": "text" for key in GENERATION_TENSORS},
    **GENERATION_TENSORS,
}
#: the tensors of spans and sources -> what stands in their column
SOURCE_TENSORS = {
    "span_tokens": "table",
    "source_of": "numbers",
    "hop_attr": "table",
    "hop_generated": "table",
    "hop_start": "table",
    "sent_on": "numbers",
    "scores": "numbers",
    "log_probs": "numbers",
}
_PASSAGES = {"start": "wholes", "end": "wholes", "text": "texts", "name": "texts"}
OF_SOURCES = {
    "schema": "text",
    "version": "text",
    "kind": "text",
    "method": "text",
    "explained": "text",
    "prompt": "text",
    "answer": "text",
    "input_tokens": "texts",
    "output_tokens": "texts",
    "hops": "whole",
    **{f"spans.{key}": kind for key, kind in _PASSAGES.items()},
    **{f"sources.{key}": kind for key, kind in _PASSAGES.items()},
    **{f"dtypes.{key}": "text" for key in SOURCE_TENSORS},
    **SOURCE_TENSORS,
}
_SIDE = {
    "token": "texts",
    "text": "texts",
    "special": "flags",
    "space_before": "flags",
    "word": "wholes",
    "part": "text",
    "rows": "whole",
    "columns": "whole",
    "height": "whole",
    "width": "whole",
    "image": "bytes",
}
OF_PAIRS = {
    "schema": "text",
    "version": "text",
    "kind": "text",
    "model": "text",
    "method": "text",
    "measure": "text",
    "similarity": "number",
    "projections": "whole",
    "over": "text",
    "matrix": "table",
    "standard_error": "table",
    **{f"a.{key}": kind for key, kind in _SIDE.items()},
    **{f"b.{key}": kind for key, kind in _SIDE.items()},
}
_OF_KINDS = {
    "generation": OF_GENERATIONS,
    "pairs": OF_PAIRS,
    "sources": OF_SOURCES,
}


def columns_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return what the columns of a row are."""
    return _OF_KINDS.get(str(row.get("kind")), OF_EXPLANATIONS)


def rows_of(records: Iterable[Record]) -> Iterator[Record]:
    """Yield one row per explanation; those of a comparison share a number.

    One of several inputs has a row, and behind it one for each input, with its number.
    """
    joints = itertools.count()
    for number, record in enumerate(records):
        if "explanations" not in record:
            yield from _rows(record, joints)
            continue
        traces = record["conservation"]
        for one, trace in zip(record["explanations"], traces, strict=True):
            whole = {"comparison": number, **one, "conservation": trace}
            yield from _rows(whole, joints)


def _rows(record: Record, joints: Iterator[int]) -> Iterator[Record]:
    if "parts" not in record:
        yield _row(record)
        return
    number = next(joints)
    rest = {key: value for key, value in record.items() if key != "parts"}
    yield _row({"joint": number, **rest})
    for part in record["parts"]:
        yield _row({"joint": number, "part": part["name"], **part["explanation"]})


def _row(record: Record) -> Record:
    flat: Record = {}
    for key, value in record.items():
        if key in _LISTS:
            flat |= {f"{key}.{k}": [one[k] for one in value] for k in _LISTS[key]}
        elif isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        elif value is not None:
            flat[key] = value
    columns = columns_of(flat)
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


def records_of(rows: Sequence[Record]) -> list[Record]:
    """Return the records that were taken apart into rows."""
    records: list[Record] = []
    joints: dict[Any, Record] = {}
    last = None  # the number of the comparison before
    for row in rows:
        record = _record(row)
        number = record.pop("comparison", None)
        joint, part = record.pop("joint", None), record.pop("part", None)
        if part is not None:
            if joint not in joints:
                raise damaged(f"{part!r} is of no explanation", "the row of all inputs")
            joints[joint]["parts"].append({"name": part, "explanation": record})
            continue
        if joint is not None:
            joints[joint] = record
            record["parts"] = []
        if number is None:
            records.append(record)
        else:
            trace = record.pop("conservation", None)
            if number != last:
                schema = "captum_transformer_lrp.comparison/1"
                version = record.get("version")
                empty: Record = {"conservation": [], "explanations": []}
                records.append({"schema": schema, "version": version} | empty)
            records[-1]["conservation"].append(trace)
            records[-1]["explanations"].append(record)
        last = number
    return records


def _record(row: Record) -> Record:
    record: Record = {}
    lists: dict[str, dict[str, Sequence[Any]]] = {}
    for column, value in row.items():
        outer, _, inner = column.partition(".")
        if outer in _LISTS:
            lists.setdefault(outer, {})[inner] = value
        elif inner:
            record.setdefault(outer, {})[inner] = value
        else:
            record[outer] = value
    for name, columns in lists.items():
        try:
            listed = zip(*columns.values(), strict=True)
            record[name] = [dict(zip(columns, t, strict=True)) for t in listed]
        except (TypeError, ValueError) as error:
            raise damaged(
                f"its columns of {name} do not fit together ({error})",
                "lists of the same length",
            ) from error
    for column in columns_of(row):  # null is left out of rows
        outer, _, inner = column.partition(".")
        if outer in ("prediction", "target", *_OBJECTS):
            record.setdefault(outer, {}).setdefault(inner, None)
        elif outer == "label":  # which may be null as a whole
            if record.setdefault(outer, None) is not None:
                record[outer].setdefault(inner, None)
        elif outer in _EMPTY:
            if record.get(_EMPTY[outer]) is not None:
                record.setdefault(outer, [])
        elif not inner and column not in ("comparison", "score_name", "task"):
            record.setdefault(column, None)
    return record


def digest_of(rows: Sequence[Record], several: bool) -> str:
    """Return what tells rows from others: the formats notice too little."""
    digest = hashlib.sha256(to_json(several).encode())
    for row in rows:
        for column, value in sorted(row.items()):
            if isinstance(value, np.ndarray):
                digest.update(f"{column} {value.shape}".encode())
                digest.update(value.tobytes())
            elif isinstance(value, bytes):
                digest.update(f"{column} {len(value)}".encode())
                digest.update(value)
            else:
                digest.update(to_json([column, value]).encode("utf-8"))
    return digest.hexdigest()


def check_digest(found: str, expected: Any) -> None:
    """Raise unless the rows of a file are those that it was written with."""
    if found != expected:
        raise damaged(f"its content has the sha256 {found}", f"{DIGEST}={expected!r}")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Return JSON of finite numbers."""
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)


def parse_json(written: str | bytes) -> Any:
    """Return what JSON of finite numbers holds.

    Raises:
        InputError: It is damaged.
    """

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"the number {name} is not finite")

    try:
        return json.loads(written, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise damaged(f"it cannot be read ({error})", "complete JSON") from error
