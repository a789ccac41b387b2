"""Parts of a text: sentences, paragraphs, documents, or any ranges of characters.

The same ways of naming them serve the sources of a prompt and the spans of an answer.
A splitter is a function of a text that returns ranges ``(start, end)`` of it; those
here leave nothing out: white space belongs to the part that it follows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

from ..errors import InputError, LRPError, TargetError, suggestion

Range: TypeAlias = tuple[int, int]
Splitter: TypeAlias = Callable[[str], Any]

#: behind what a full stop ends no sentence
_ABBREVIATION = re.compile(
    r"(?:^|[^\w.])(?:[A-Z]|\d+|Mr|Mrs|Ms|Dr|Prof|St|vs|cf|[Ff]igs?|[Ee]q|e\.g|i\.e)\.$"
)
_WIDE = "\u3002\uff01\uff1f"  # full stop and marks of Chinese and Japanese
_QUOTES = "\u201d\u2019"
_END = re.compile(
    rf"[.!?…]+[\"')\]»{_QUOTES}]*(?=[^\S\n])|[{_WIDE}]+[」』{_QUOTES}\uff09]*|\n"
)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A part of a text.

    Args:
        start (int): Its first character.
        end (int): The character behind its last one.
        text (str): What is written there, without white space around it.
        name (str): What it is called, such as the role of a turn. Default: ``""``
    """

    start: int
    end: int
    text: str
    name: str = ""


def whole(text: str) -> list[Range]:
    """Return the text as one part."""
    return [(0, len(text))]


def words(text: str) -> list[Range]:
    """Return what stands between white space."""
    return _cut(text, [found.end() for found in re.finditer(r"\S+\s*", text)])


def lines(text: str) -> list[Range]:
    """Return the lines that have something in them."""
    return _cut(
        text, [found.end() for found in re.finditer(r"[^\n]*\S[^\n]*\s*", text)]
    )


def paragraphs(text: str) -> list[Range]:
    """Return what stands between empty lines."""
    return _cut(text, [found.end() for found in re.finditer(r"\n[^\S\n]*\n\s*", text)])


def sentences(text: str) -> list[Range]:
    """Return sentences, by a simple rule.

    A sentence ends at the end of a line; at ``.``, ``!``, ``?`` or ``…``, with quotes
    and brackets that close behind it, before white space; and at the full stop and
    marks of Chinese and Japanese. What a small letter follows ends a sentence only at
    ``!`` or ``?``. A full stop behind a single capital letter, a number at
    the beginning of a sentence, or one of a few abbreviations (Mr., Dr., e.g., ...)
    ends none.
    """
    ends: list[int] = []
    start = 0
    for found in _END.finditer(text):
        until = re.compile(r"\s*").match(text, found.end())
        assert until is not None
        before = text[start : found.end()]
        following = text[until.end() : until.end() + 1]
        if found[0] != "\n" and found[0][0] not in _WIDE:
            if following.islower() and found[0][-1] not in "!?":
                continue
            short = _ABBREVIATION.search(before)
            digits = short is not None and short[0].strip()[:-1].isdigit()
            if short is not None and (not digits or short[0].strip() == before.strip()):
                continue
        if before.strip():
            ends.append(until.end())
            start = until.end()
    return _cut(text, ends)


#: the splitters that have a name
SPLITTERS: dict[str, Splitter] = {
    "whole": whole,
    "words": words,
    "lines": lines,
    "sentences": sentences,
    "paragraphs": paragraphs,
}


def read_passages(
    given: Any, text: str, own: Sequence[Passage], tokens: Sequence[Range], what: str
) -> list[Passage]:
    """Return the parts of a text that a user asked for.

    Args:
        given (Any): the name of a splitter, ``"tokens"`` or ``"turns"``; a function,
            called with each of ``own``; a text; a regular expression; a range of
            characters; an int, range or slice of tokens; a list of these, or a mapping
            from names to these.
        text (str): the whole text.
        own (sequence of Passage): where it is written by a user: of a chat its turns.
        tokens (sequence of Range): the characters of each token.
        what (str): ``"sources"`` or ``"span"``, for messages.

    Raises:
        InputError: for sources; TargetError: for spans that are not there, or empty.
    """
    found = list(_read(given, _Where(text, own, tokens, what)))
    if not found:
        raise _error(what)(
            f"{what}={_short(given)} names no part of the text {_short(text)}; "
            "expected at least one."
        )
    for passage in found:
        if not 0 <= passage.start < passage.end <= len(text):
            raise _error(what)(
                f"{what} has the range {(passage.start, passage.end)}; expected "
                f"(start, end), characters of a text of {len(text)}, not empty."
            )
    return found


@dataclass(frozen=True)
class _Where:
    text: str
    own: Sequence[Passage]
    tokens: Sequence[Range]
    what: str

    def passage(self, start: int, end: int, name: str = "") -> Passage:
        return Passage(
            start=start, end=end, text=self.text[start:end].strip(), name=name
        )


def _read(given: Any, where: _Where) -> list[Passage]:
    if isinstance(given, str):
        return _named_or_written(given, where)
    if isinstance(given, re.Pattern):
        group = 1 if given.groups else 0
        ranges = [m.span(group) for m in given.finditer(where.text)]
        return [where.passage(*span) for span in ranges if span[0] < span[1]]
    if isinstance(given, tuple) and _is_range(given):
        return [where.passage(int(given[0]), int(given[1]))]
    if isinstance(given, (int, range, slice)) and not isinstance(given, bool):
        return [_of_tokens(given, where)]
    if isinstance(given, Mapping):
        listed = _one_each(list(given.values()), where)
        names = map(str, given)
        return [replace(p, name=n) for n, p in zip(names, listed, strict=True)]
    if callable(given):
        return _split(given, where)
    if isinstance(given, (list, tuple)):
        return _one_each(list(given), where)
    raise _error(where.what)(
        f"{where.what} is a {type(given).__name__}; expected the name of a unit "
        f"({', '.join(map(repr, SPLITTERS))}, 'tokens'), a text, a regular expression, "
        "a range of characters (start, end), a slice of tokens, a function of the text "
        "that returns ranges, or a list of texts or ranges."
    )


def _named_or_written(given: str, where: _Where) -> list[Passage]:
    if given == "tokens":
        return [where.passage(*span) for span in where.tokens if span[0] < span[1]]
    if given == "turns" and where.what == "sources":
        if not any(one.name for one in where.own):
            raise InputError(
                "sources='turns' belongs to a chat, a list of messages with a role; "
                "for a text write 'sentences', 'paragraphs' or a list of documents."
            )
        return list(where.own)
    if given in SPLITTERS:
        return _split(SPLITTERS[given], where)
    if where.what == "sources":
        known = suggestion(given, [*SPLITTERS, "tokens", "turns"])
        raise InputError(
            f"there is no unit of sources {given!r}.{known} A text of the prompt "
            "stands in a list: sources=[document]."
        )
    count = where.text.count(given) if given else 0
    if count != 1:
        raise TargetError(
            f"span={given!r} stands {count} times in the answer {_short(where.text)}; "
            "expected once. "
            + (
                "Pass (start, end) of its characters, or re.compile(...) for each."
                if count
                else "Units: " + ", ".join(map(repr, [*SPLITTERS, "tokens"])) + "."
            )
        )
    start = where.text.index(given)
    return [where.passage(start, start + len(given))]


def _split(splitter: Splitter, where: _Where) -> list[Passage]:
    found = []
    for part in where.own:
        written = where.text[part.start : part.end]
        for span in splitter(written):
            if not _is_range(span):
                raise _error(where.what)(
                    f"the function for {where.what} returned {_short(span)}; expected "
                    "ranges of characters (start, end)."
                )
            start, end = int(span[0]), int(span[1])
            if not 0 <= start < end <= len(written):
                raise _error(where.what)(
                    f"the function for {where.what} returned {(start, end)} for a text "
                    f"of {len(written)} characters; expected a range in it, not empty."
                )
            if written[start:end].strip():
                found.append(where.passage(part.start + start, part.start + end))
    return found


def _one_each(given: list[Any], where: _Where) -> list[Passage]:
    """Return one passage for each: texts where they stand, the longest first."""
    found: dict[int, Passage] = {}
    taken: list[Range] = []
    given = [tuple(one) if _is_range(one) else one for one in given]
    texts = [i for i, one in enumerate(given) if isinstance(one, str)]
    for i, one in enumerate(given):
        if i not in texts:
            listed = _read(one, where)
            if len(listed) != 1:
                raise _error(where.what)(
                    f"{where.what}[{i}] names {len(listed)} parts; expected one each."
                )
            found[i] = listed[0]
            taken.append((listed[0].start, listed[0].end))
    # a document may be a part of another one
    for i in sorted(texts, key=lambda i: -len(given[i].strip())):
        wanted = given[i].strip()
        places = [m.start() for m in re.finditer(re.escape(wanted), where.text)]
        spans = [(start, start + len(wanted)) for start in places if wanted]
        free = [s for s in spans if not any(_overlap(s, other) for other in taken)]
        if where.what == "span":
            free = spans
        if not free:
            raise _error(where.what)(
                f"{where.what}[{i}], {_short(given[i])}, does not stand in the "
                + ("prompt" if where.what == "sources" else "answer")
                + (" once more" if spans else "")
                + ". Expected its text as it is written there, or a range (start, end)."
            )
        found[i] = where.passage(*free[0])
        taken.append(free[0])
    return [found[i] for i in range(len(given))]


def _of_tokens(given: int | range | slice, where: _Where) -> Passage:
    numbers = range(len(where.tokens))
    try:
        chosen = [numbers[given]] if isinstance(given, int) else None
        if isinstance(given, slice):
            chosen = list(numbers[given])
        elif isinstance(given, range):
            chosen = [numbers[i] for i in given]
    except IndexError:
        chosen = []
    if not chosen:
        raise _error(where.what)(
            f"{where.what}={given!r} names no token of {len(numbers)}."
        )
    if chosen != list(range(chosen[0], chosen[-1] + 1)):
        raise _error(where.what)(
            f"{where.what}={given!r} leaves tokens out; expected tokens that follow "
            "each other."
        )
    spans = [where.tokens[i] for i in chosen]
    return where.passage(min(s for s, _ in spans), max(e for _, e in spans))


def overlapping(passages: Sequence[Passage]) -> tuple[Passage, Passage] | None:
    """Return two passages that share characters; None where all are apart."""
    ordered = sorted(passages, key=lambda p: (p.start, p.end))
    for one, other in pairwise(ordered):
        if other.start < one.end:
            return one, other
    return None


def _cut(text: str, ends: list[int]) -> list[Range]:
    """Return the parts of a text that end there, without a rest of white space."""
    ends = sorted({*ends, len(text)} - {0})
    parts = list(zip([0, *ends], ends, strict=False))
    found: list[Range] = []
    for start, end in parts:
        if found and not text[start:end].strip():
            found[-1] = (found[-1][0], end)
        elif found and not text[found[-1][0] : found[-1][1]].strip():
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found if text.strip() else []


def _is_range(given: Any) -> bool:
    pair = isinstance(given, (tuple, list)) and len(given) == 2
    return pair and all(isinstance(i, int) and not isinstance(i, bool) for i in given)


def _overlap(one: Range, other: Range) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _error(what: str) -> type[LRPError]:
    return InputError if what == "sources" else TargetError


def _short(given: Any) -> str:
    written = repr(given)
    return written if len(written) <= 60 else f"{written[:59]}…"


__all__ = [
    "SPLITTERS",
    "Passage",
    "lines",
    "overlapping",
    "paragraphs",
    "read_passages",
    "sentences",
    "whole",
    "words",
]
