"""Results that were saved come back as they were: :func:`save` and :func:`load`.

Every key that is read is checked, and what does not fit is refused with the name of the
file. Numbers come back bit for bit.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from torch import Tensor

from . import records
from ._version import __version__
from .attribution.pair_relevance import PairRelevance, PairSide
from .comparison import Comparison, Conservation
from .errors import InputError
from .explanation import (
    Explanation,
    ImageExplanation,
    Mark,
    TextExplanation,
    pool,
)
from .explanations import Explanations
from .joint import JointExplanation
from .language import LLMRelevance, Passage, SourceRelevance
from .models.pieces import Piece
from .models.prediction import ClassScore
from .records import GENERATION_TENSORS, SOURCE_TENSORS
from .records.keys import Keys
from .records.pictures import read_png
from .records.refusal import damaged, foreign, short
from .report.blocks import Outline
from .report.saving import SUFFIXES, check_suffix
from .report.shown import Together
from .sound import SoundExplanation

__all__ = ["from_dict", "load", "save"]

Result: TypeAlias = (
    Explanation | Comparison | LLMRelevance | SourceRelevance | PairRelevance
)
_ALONE = (Explanation, Comparison, LLMRelevance, SourceRelevance, PairRelevance)
File: TypeAlias = str | os.PathLike[str]

_SCHEMA = re.compile(r"captum_transformer_lrp\.(\w+)/([0-9]{1,9})")
_DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "bool": torch.bool,
}
_MEASURES = ("relevance", "attention", "magnitude")


def save(results: Result | Iterable[Result], path: File) -> Path:
    """Write one result, or a list of them, into one file by its suffix.

    Args:
        results (Result, or an iterable of them): Explanations, comparisons, results of
            language models or of pairs. One is written as its own ``save`` does. A list
            is written to ``.json``, ``.safetensors`` or ``.parquet``, and comes back as
            a list, also of one; or below each other for readers, to ``.html``,
            ``.png``, ``.pdf`` or ``.svg``.
        path (str or Path): The file. JSON is for reading and for other languages,
            safetensors for bulk, Parquet for tables: one row per explanation.

    Returns:
        *Path*: The file that was written.

    Raises:
        InputError: There is no result, or one has scores that are not finite.
        UnknownNameError: The suffix is another one.
        MissingPackageError: safetensors, or pyarrow for Parquet, is not installed.

    Examples::

        >>> save(explain(["A warm film.", "A dull film."]), "all.parquet")
        >>> load("all.parquet")[1].save("dull.html")
    """
    path = Path(path)
    if isinstance(results, _ALONE):
        return results.save(path)
    listed = list(results)
    said = results.said if isinstance(results, Explanations) else ""
    if not listed:
        raise InputError("expected at least one result to save, got none")
    if path.suffix.lower() in records.SUFFIXES:
        written = (one.to_dict() for one in listed)
        return records.write(path, written, several=True)
    together = _listed(listed)
    if isinstance(together, Explanations):
        together.said = said
        return together.save(path)
    check_suffix(path, (*SUFFIXES, *records.SUFFIXES))
    return Together(together).save(path)


@overload
def load(path: File) -> Any: ...


@overload
def load(path: File | Iterable[File], *more: File) -> list[Result]: ...


def load(path: File | Iterable[File], *more: File) -> Any:
    """Return what was saved in a file, or in several files as one list.

    Explanations, comparisons, results of language models and of pairs, from what their
    ``save`` or :func:`save` wrote as ``.json``, ``.safetensors`` or ``.parquet``.
    Nothing in a file is run. Tensors come back on the CPU.

    JSON of a version that did not keep pictures is refused for pictures; texts are
    loaded with what is there: without the tokenizer's own words their tokens are joined
    by their letters, and a next token is not told from a class.

    Args:
        path (str or Path, or an iterable of them): A file. Of an iterable the results
            come as one list, however many files and results there are.
        *more (str or Path): Further files, whose results are appended.

    Returns:
        What the file holds: *Explanation*, *Comparison*, *LLMRelevance*,
        *SourceRelevance*, *PairRelevance* or a list, of explanations alone
        *Explanations*.

    Raises:
        InputError: A file is not there, is damaged, of another program or of a newer
            version. The message starts with its name.
        UnknownNameError: The suffix is another one.
        MissingPackageError: safetensors, or pyarrow for Parquet, is not installed.

    Examples::

        >>> load("explanation.json").save("page.html")
        >>> everything = load("monday.parquet", "tuesday.safetensors")
    """
    single = isinstance(path, (str, os.PathLike))
    first: Any = [path] if single else path
    found = [_load(Path(one)) for one in [*first, *more]]
    if single and not more:
        return found[0]
    return _listed(
        one for each in found for one in (each if isinstance(each, list) else [each])
    )


def _listed(results: Iterable[Result]) -> list[Result]:
    """Return a list, of explanations alone one that shows itself."""
    found = list(results)
    explanations = Explanations(one for one in found if isinstance(one, Explanation))
    if len(explanations) < len(found):
        return found
    alone: Any = explanations
    return cast("list[Result]", alone)


def _load(path: Path) -> Result | list[Result]:
    try:
        found = records.read(path)
        if isinstance(found, dict):
            return from_dict(found)
        return _listed(_one_of(f"result {i}", one) for i, one in enumerate(found, 1))
    except InputError as error:
        raise InputError(f"{str(path)!r} cannot be loaded: {error}") from error


def _one_of(which: str, record: Mapping[str, Any]) -> Result:
    try:
        return from_dict(record)
    except InputError as error:
        raise InputError(f"{which}: {error}") from error


def from_dict(record: Mapping[str, Any]) -> Result:
    """Return the result that ``to_dict()`` of it described.

    Args:
        record (Mapping): What ``to_dict()`` returned, or its JSON when it was read.

    Raises:
        InputError: It describes no result, something of it is missing or impossible, or
            a newer version wrote it.
    """
    schema = record.get("schema")
    found = _SCHEMA.fullmatch(schema) if isinstance(schema, str) else None
    read = None if found is None else _READERS.get(found[1])
    if found is None or read is None:
        what = "no schema" if schema is None else f"the schema {short(schema)}"
        raise foreign(f"it has {what}")
    if int(found[2]) > 1:
        version = record.get("version")
        raise InputError(
            f"it has the schema {schema!r} of a newer version of "
            f"captum_transformer_lrp ({short(version)}), expected the number 1, which "
            f"version {__version__} reads; install the newer version"
        )
    if int(found[2]) < 1:
        raise foreign(f"it has the schema {schema!r}")
    return read(Keys(record, "", "version" not in record))


# ------------------------------------------------------------------------ explanations


def _explanation(keys: Keys) -> Explanation:
    kind = keys.one_of("kind", *_KINDS)
    found = _KINDS[kind](keys)
    total = found.relevance_sum
    if total is not None:
        written = keys.number("relevance_sum")
        rounding = 1e-9 * float(np.abs(found.scores).sum())
        if not math.isclose(total, written, rel_tol=1e-9, abs_tol=rounding):
            raise damaged(
                f"its scores sum to {total!r}", f"its relevance_sum, {written!r}"
            )
    return found


def _shared(keys: Keys) -> dict[str, Any]:
    """Return the fields that all explanations have, without the scores."""
    label = keys.within("label", null=True)
    return {
        "model": keys.text("model"),
        "method": keys.text("method"),
        "prediction": _class_score(keys.within("prediction")),
        "target": _class_score(keys.within("target")),
        "notes": tuple(keys.texts("notes")),
        "measure": keys.one_of("measure", *_MEASURES),
        "same_for_every_target": keys.flag("same_for_every_target"),
        "convergence_delta": keys.number("convergence_delta", null=True),
        "about_sum": keys.text("about_sum", null=True),
        "label": None if label is None else _class_score(label),
        # which files of before do not have
        "score_name": keys.text("score_name") if "task" in keys.record else "logit",
        "task": keys.text("task") if "task" in keys.record else "",
    }


def _class_score(keys: Keys) -> ClassScore:
    return ClassScore(
        index=keys.whole("index"),
        name=keys.text("name"),
        logit=keys.number("logit"),
        probability=keys.number("probability", null=True),
    )


def _text(keys: Keys) -> TextExplanation:
    tokens = []
    for number, token in enumerate(keys.objects("tokens")):
        place = f"tokens[{number}]"
        if not isinstance(token, Mapping):
            raise damaged(f"{place!r} is {short(token)}", "an object")
        tokens.append(Keys(token, f"{place}.", keys.old))
    pieces = tuple(
        Piece(
            token=token.text("token"),
            text=token.text("text"),
            special=token.flag("special"),
            space_before=token.flag("space_before"),
            word=token.whole("word", null=True),
        )
        for token in tokens
    )
    marks = []
    for number, one in enumerate(
        keys.objects("marks") if "marks" in keys.record else ()
    ):
        if not isinstance(one, Mapping):
            raise damaged(f"'marks[{number}]' is {short(one)}", "an object")
        mark = Keys(one, f"marks[{number}].", keys.old)
        found = Mark(
            start=mark.whole("start"), end=mark.whole("end"), name=mark.text("name")
        )
        if not found.start <= found.end <= len(pieces):
            raise damaged(
                f"'marks[{number}]' is from {found.start} to {found.end}",
                f"numbers of its {len(pieces)} tokens",
            )
        marks.append(found)
    return TextExplanation(
        marks=tuple(marks),
        scores=np.array([token.number("score") for token in tokens], dtype=np.float64),
        text=keys.text("text"),
        pieces=pieces,
        next_token=keys.flag("next_token", null=keys.old) or False,
        joined=keys.flag("joined", null=keys.old) is not False,
        **_shared(keys),
    )


def _image(keys: Keys) -> ImageExplanation:
    if keys.old and "image" not in keys.record:
        raise InputError(
            "it holds an explanation of a picture without the picture, as an older "
            "version wrote it, expected the key 'image'; explain the picture again and "
            "save that, or read the numbers with the module json"
        )
    size = keys.whole("width"), keys.whole("height")
    packed = keys.take(
        "image", "a PNG in base64", lambda v: isinstance(v, (str, bytes))
    )
    image = read_png(packed, size)
    scores = keys.numbers("scores", 2, null=True)
    patches = keys.numbers("patch_scores", 2, null=scores is not None)
    if scores is None:
        scores = patches
    try:
        found = ImageExplanation(
            scores=scores,
            image=image,
            patch_grid=None if patches is None else patches.shape,
            outlines=_outlines(keys),
            **_shared(keys),
        )
        sums = None if patches is None else pool(scores, patches.shape)
    except InputError:
        raise
    except ValueError as error:
        raise damaged(
            f"its scores are of another shape ({error})", "one for each"
        ) from error
    rounding = 1e-9 * float(np.abs(scores).sum())
    if sums is not None and not np.allclose(sums, patches, rtol=1e-9, atol=rounding):
        raise damaged("'patch_scores' are other numbers", "the sums of its scores")
    return found


def _outlines(keys: Keys) -> tuple[Outline, ...]:
    """Return the outlines of a picture, which files of before do not have."""
    found = []
    listed = keys.objects("outlines") if "outlines" in keys.record else ()
    for number, one in enumerate(listed):
        place = f"outlines[{number}]"
        if not isinstance(one, Mapping):
            raise damaged(f"{place!r} is {short(one)}", "an object")
        inner = Keys(one, f"{place}.", keys.old)
        name, path = inner.text("name"), inner.text("path")
        try:
            found.append(Outline(name=name, path=path))
        except ValueError as error:
            what = "closed loops such as 'M0 0L8 0L8 5Z'"
            raise damaged(f"'{place}.path' is {short(path)}", what) from error
    return tuple(found)


def _sound(keys: Keys) -> SoundExplanation:
    scores, sound = keys.numbers("scores", 2), keys.numbers("sound", 2)
    if not keys.flag("spectrogram"):
        scores, sound = scores[0], sound[0]
    start = keys.number("spoken_from", null=True)
    end = keys.number("spoken_to", null=True)
    rate, hop = (
        keys.take(name, "a whole number from 1", lambda v: type(v) is int and v > 0)
        for name in ("sampling_rate", "hop")
    )
    try:
        return SoundExplanation(
            scores=scores,
            sound=sound,
            sampling_rate=rate,
            hop=hop,
            seconds=keys.number("seconds", null=True),
            behind=keys.text("behind"),
            spoken=None if start is None or end is None else (start, end),
            **_shared(keys),
        )
    except ValueError as error:
        raise damaged(
            f"its scores are of another shape ({error})", "one for each"
        ) from error


def _joint(keys: Keys) -> JointExplanation:
    parts = {}
    for number, one in enumerate(keys.objects("parts")):
        place = f"parts[{number}]"
        if not isinstance(one, Mapping):
            raise damaged(f"{place!r} is {short(one)}", "an object")
        part = Keys(one, f"{place}.", keys.old)
        inner = part.within("explanation")
        parts[part.text("name")] = _explanation(inner)
    if not parts:
        raise damaged("'parts' is empty", "an explanation of each input")
    return JointExplanation(parts_of=parts, **_shared(keys))


_KINDS: dict[str, Callable[[Keys], Explanation]] = {
    "text": _text,
    "image": _image,
    "sound": _sound,
    "joint": _joint,
}

# --------------------------------------------------------------------------- the others


def _comparison(keys: Keys) -> Comparison:
    explanations = []
    for number, one in enumerate(keys.objects("explanations"), 1):
        if not isinstance(one, Mapping):
            raise damaged(f"its explanation {number} is {short(one)}", "an object")
        found = _one_of(f"explanation {number}", one)
        if not isinstance(found, Explanation):
            raise damaged(
                f"its explanation {number} is a {type(found).__name__}",
                "one of a text or a picture",
            )
        explanations.append(found)
    traces: list[Conservation | None] = []
    for number, one in enumerate(keys.objects("conservation")):
        place = f"conservation[{number}]"
        if one is None:
            traces.append(None)
        elif isinstance(one, Mapping):
            trace = Keys(one, f"{place}.", keys.old)
            fields = ("score", "relevance", "absorbed", "error")
            traces.append(Conservation(**{name: trace.number(name) for name in fields}))
        else:
            raise damaged(f"{place!r} is {short(one)}", "an object or null")
    try:
        return Comparison(explanations=tuple(explanations), conservation=tuple(traces))
    except InputError as error:
        raise damaged(
            f"it is no comparison ({error})", "explanations of one input"
        ) from error


def _generation(keys: Keys) -> LLMRelevance:
    keys.one_of("kind", "generation")
    dtypes = keys.within("dtypes")
    tensors = {
        name: _tensor(keys, dtypes, name, kind)
        for name, kind in GENERATION_TENSORS.items()
    }
    columns, rows = keys.texts("input_tokens"), keys.texts("output_tokens")
    count = len(rows)
    starts = tensors["start_attr"].shape[1]
    shapes = {
        "token_attr": (count, len(columns)),
        "seq_attr": (len(columns),),
        "generated_attr": (count, count),
        "start_attr": (count, starts),
    }
    for name, tensor in tensors.items():
        expected = shapes.get(name, (count,))
        if tuple(tensor.shape) != expected:
            raise damaged(
                f"{name!r} has shape {tuple(tensor.shape)}",
                f"{expected} for {count} generated tokens and {len(columns)} columns",
            )
    chances = tensors.pop("output_probs")
    found = LLMRelevance(input_tokens=columns, output_tokens=rows, **tensors)
    found.output_probs = chances  # as it was, not computed again
    return found


def _tensor(keys: Keys, dtypes: Keys, name: str, kind: str) -> Tensor:
    """Return a tensor in the type that it had."""
    dtype = dtypes.one_of(name, *_DTYPES)
    values = torch.from_numpy(keys.numbers(name, 2 if kind == "table" else 1))
    found = values.to(_DTYPES[dtype])
    if not torch.equal(found.double(), values):
        raise damaged(f"{name!r} has other numbers", f"such as {dtype} can hold")
    return found


def _sources(keys: Keys) -> SourceRelevance:
    keys.one_of("kind", "sources")
    dtypes, hops = keys.within("dtypes"), keys.whole("hops")
    prompt, answer = keys.text("prompt"), keys.text("answer")
    spans = _passages(keys.within("spans"), answer)
    sources = _passages(keys.within("sources"), prompt)
    read, written = keys.texts("input_tokens"), keys.texts("output_tokens")
    tensors = {
        name: _tensor(keys, dtypes, name, kind) for name, kind in SOURCE_TENSORS.items()
    }
    rows, count = (hops + 1) * len(spans), len(written)
    shapes = {
        "span_tokens": (len(spans), count),
        "source_of": (len(read),),
        "hop_attr": (rows, len(read)),
        "hop_generated": (rows, count),
        "hop_start": (hops + 1, len(spans)),
        "sent_on": (count,),
        "scores": (len(spans),),
        "log_probs": (count,),
    }
    for name, expected in shapes.items():
        if tuple(tensors[name].shape) != expected:
            raise damaged(
                f"{name!r} has shape {tuple(tensors[name].shape)}",
                f"{expected} for {len(spans)} spans of {count} tokens, {len(read)} "
                f"tokens read and {hops} hops",
            )
    places = tensors["source_of"]
    if len(read) and not -2 <= int(places.min()) <= int(places.max()) < len(sources):
        raise damaged("'source_of' names other sources", f"-2 to {len(sources) - 1}")
    for name in ("hop_attr", "hop_generated"):
        tensors[name] = tensors[name].reshape(hops + 1, len(spans), -1)
    return SourceRelevance(
        prompt=prompt,
        answer=answer,
        input_tokens=read,
        output_tokens=written,
        spans=spans,
        sources=sources,
        explained=keys.text("explained"),
        method=keys.text("method"),
        **tensors,
    )


def _passages(keys: Keys, text: str) -> list[Passage]:
    columns: list[list[Any]] = [keys.objects("start"), keys.objects("end")]
    columns += [keys.texts("text"), keys.texts("name")]
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        raise damaged(
            f"the lists of {keys.place[:-1]!r} have several lengths, or none",
            "one value for each passage",
        )
    found = []
    for start, end, said, name in zip(*columns, strict=True):
        whole = type(start) is int and type(end) is int
        if not whole or not 0 <= start < end <= len(text):
            raise damaged(
                f"{keys.place[:-1]!r} has {start!r} to {end!r}",
                f"characters of a text of {len(text)}",
            )
        found.append(Passage(start=start, end=end, text=said, name=name))
    return found


def _pairs(keys: Keys) -> PairRelevance:
    keys.one_of("kind", "pairs")
    a, b = _side(keys.within("a")), _side(keys.within("b"))

    def tensor(name: str, *, null: bool = False) -> Tensor:
        values = keys.numbers(name, 2, null=null)
        expected = len(a) + 1, len(b) + 1
        if values is not None and values.shape != expected:
            raise damaged(
                f"{name!r} has shape {values.shape}",
                f"{expected} for its parts and constants",
            )
        found: Any = None if values is None else torch.from_numpy(values)
        return cast("Tensor", found)

    matrix, similarity = tensor("matrix"), keys.number("similarity")
    total, rounding = float(matrix.sum()), 1e-9 * float(matrix.abs().sum())
    if not math.isclose(total, similarity, rel_tol=1e-9, abs_tol=rounding):
        raise damaged(f"its matrix sums to {total!r}", f"the similarity {similarity!r}")
    measure: Any = keys.one_of("measure", "cosine similarity", "dot product")
    return PairRelevance(
        matrix=matrix,
        a=a,
        b=b,
        similarity=similarity,
        measure=measure,
        model=keys.text("model"),
        method=keys.text("method"),
        standard_error=tensor("standard_error", null=True),
        projections=keys.whole("projections", null=True),
        over=keys.one_of("over", "tokens", "dimensions", "projections"),
    )


def _side(keys: Keys) -> PairSide:
    texts = keys.texts("token"), keys.texts("text")
    flags = keys.objects("special"), keys.objects("space_before")
    words = keys.objects("word")
    if len({len(column) for column in (*texts, *flags, words)}) != 1:
        raise damaged(
            f"the lists of {keys.place[:-1]!r} have several lengths", "one value a part"
        )
    for column in flags:
        if not all(isinstance(value, bool) for value in column):
            raise damaged(f"{keys.place}special is no list of flags", "true or false")
    if not all(word is None or type(word) is int for word in words):
        raise damaged(
            f"{keys.place}word is no list of numbers", "whole numbers or null"
        )
    pieces = tuple(
        Piece(token=t, text=x, special=s, space_before=b, word=w)
        for t, x, s, b, w in zip(*texts, *flags, words, strict=True)
    )
    rows, columns = keys.whole("rows", null=True), keys.whole("columns", null=True)
    grid = None if rows is None or columns is None else (rows, columns)
    if grid is not None and grid[0] * grid[1] != len(pieces):
        raise damaged(f"{keys.place[:-1]!r} has {len(pieces)} patches", f"{grid}")
    packed = keys.take(
        "image", "a PNG in base64", lambda v: isinstance(v, (str, bytes)), null=True
    )
    image = None
    if packed is not None:
        image = read_png(packed, (keys.whole("width"), keys.whole("height")))
    part: Any = keys.one_of("part", "token", "word", "patch")
    return PairSide(pieces=pieces, grid=grid, image=image, part=part)


_READERS: dict[str, Callable[[Keys], Result]] = {
    "explanation": _explanation,
    "comparison": _comparison,
    "generation": _generation,
    "sources": _sources,
    "pairs": _pairs,
}
