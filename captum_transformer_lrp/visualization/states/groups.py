"""What masks keep of many texts: means by hidden state and group of tokens."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

from ..._visible import no_formula, shortened
from ...errors import InputError
from ...models.pieces import Piece
from ...report.blocks import Axis, Block, Cell, Chart, Heading, Paragraph, Table
from ...report.plain import plain
from ...report.shown import Shown
from .maps import KEPT, KeptMap
from .names import StateNames, state_names

Groups = (
    Callable[[Piece], "str | None"]
    | Mapping[str, str]
    | Sequence[Sequence["str | None"]]
)
ALL = "all tokens"
JSON_SCHEMA = "captum_transformer_lrp.kept_table/1"
SUFFIXES = (".html", ".json", ".csv", ".png", ".pdf", ".svg")


def token_kind(piece: Piece) -> str:
    """Return ``"special tokens"``, ``"punctuation"`` or ``"words"``.

    Special is what the tokenizer added; punctuation has neither letters nor digits.
    """
    if piece.special:
        return "special tokens"
    if piece.text and not any(unicodedata.category(c)[0] in "LMN" for c in piece.text):
        return "punctuation"
    return "words"


def kept_by_layer(maps: Sequence[KeptMap]) -> KeptTable:
    """Return the kept fraction of all tokens at each hidden state.

    Args:
        maps (sequence of KeptMap): of one model and its masks, one for each text.

    Raises:
        InputError: There is no map, or maps have other hidden states.
    """
    return kept_by_group(maps, lambda piece: ALL)


def kept_by_group(
    maps: Sequence[KeptMap], groups: Groups = token_kind, *, name: str = "kind of token"
) -> KeptTable:
    """Return the mean of P(kept) for groups of tokens at each hidden state.

    A mean is taken over all tokens of a group in all texts. Tokens that masks were not
    allowed to drop count nowhere, and padding is in no map.

    Args:
        maps (sequence of KeptMap): of one model and its masks, one for each text.
        groups (Callable, Mapping or sequence, optional): The group of each token; None
            leaves a token out.

            - A function takes a :class:`~captum_transformer_lrp.models.Piece`, whose
              ``text`` is that of the token, and returns the name of its group.
            - A mapping from words to names is asked for the written word that the token
              belongs to, then for the token itself, as written and in lower case;
              what it does not hold is left out.
            - A list holds a list of names for each map, one for each of its tokens:
              what a tagger says that looks at the whole sentence.

            Default: :func:`token_kind`
        name (str, optional): What the groups are, such as ``"part of speech"``.
            Default: ``"kind of token"``

    Returns:
        *KeptTable*, groups in the order in which they first occur.

    Raises:
        InputError: There is no map, maps have other hidden states, a list of groups has
            another length than its text, or no token is in a group.

    Examples::

        >>> tags = {"not": "negation", "never": "negation", "good": "sentiment"}
        >>> print(kept_by_group(maps, tags))
        >>> kept_by_group(maps, tags).save("kept.png")
    """
    if not maps:
        raise InputError("expected at least one map, got none")
    first = maps[0]
    for one in maps:
        if (one.states, one.mode) != (first.states, first.mode):
            raise InputError(
                f"the map of {shortened(one.text, 40)!r} has {len(one.states)} states "
                f"in {one.mode} mode, that of {shortened(first.text, 40)!r} "
                f"{len(first.states)} in {first.mode} mode, or states of other names; "
                "expected maps of one model and its masks."
            )
    found: dict[str, list[np.ndarray]] = {}
    left_out = 0
    for one, names in zip(maps, _group_names(maps, groups), strict=True):
        for column, group in enumerate(names):
            if not one.free[column]:
                continue
            if group is None:
                left_out += 1
            else:
                found.setdefault(group, []).append(one.kept[:, column])
    if not found:
        raise InputError(
            f"none of the {left_out} tokens is in a group; expected the name of a "
            "group for at least one of them, such as "
            f"{{{first.words[len(first.words) // 2]!r}: 'word'}}."
        )
    return KeptTable(
        model=first.model,
        masks=first.masks,
        mode=first.mode,
        name=name,
        groups=tuple(found),
        states=first.states,
        kept=np.stack([np.mean(rows, axis=0) for rows in found.values()]),
        counts=tuple(len(rows) for rows in found.values()),
        texts=len(maps),
        left_out=left_out,
        notes=tuple(n for n in first.notes if all(n in one.notes for one in maps)),
    )


def _group_names(
    maps: Sequence[KeptMap], groups: Groups
) -> Iterator[Sequence[str | None]]:
    """Yield the groups of the tokens of each map."""
    if isinstance(groups, Mapping):
        for one in maps:
            yield [
                _looked_up(groups, word, piece.text)
                for word, piece in zip(one.words, one.pieces, strict=True)
            ]
    elif callable(groups):
        for one in maps:
            yield [groups(piece) for piece in one.pieces]
    else:
        if len(groups) != len(maps):
            raise InputError(
                f"groups holds {len(groups)} lists for {len(maps)} maps; expected one "
                "for each."
            )
        for one, names in zip(maps, groups, strict=True):
            if isinstance(names, str) or len(names) != len(one.pieces):
                raise InputError(
                    f"groups holds {len(names)} names for the {len(one.pieces)} tokens "
                    f"of {shortened(one.text, 40)!r}; expected one for each, None to "
                    f"leave a token out. The tokens are {', '.join(one.tokens)}."
                )
            yield names


def _looked_up(groups: Mapping[str, str], word: str, token: str) -> str | None:
    for key in (word, word.lower(), token, token.lower()):
        if key in groups:
            return groups[key]
    return None


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KeptTable(Shown):
    """Mean P(kept) of groups of tokens at each hidden state; prints as a table.

    Args:
        model (str): Name of the model.
        masks (str): Where the masks come from.
        mode (str): ``"hidden"`` or ``"input"``, as of ``DiffMask``.
        name (str): What the groups are, such as ``"part of speech"``.
        groups (tuple of str): Their names.
        states (tuple of str): The hidden states, as ``DiffMask.states`` lists them.
        kept (np.ndarray): Means of probabilities, 0 to 1, shape ``(groups, states)``.
        counts (tuple of int): How many tokens each group has.
        texts (int): How many texts there are.
        left_out (int, optional): How many tokens are in no group. Default: 0
        notes (tuple of str, optional): What a reader should know: the notes that all
            the maps have. Default: ()
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    _writers: ClassVar[Mapping[str, str]] = {".json": "to_json", ".csv": "to_csv"}

    model: str
    masks: str
    mode: Literal["hidden", "input"]
    name: str
    groups: tuple[str, ...]
    states: tuple[str, ...]
    kept: np.ndarray = field(repr=False)
    counts: tuple[int, ...]
    texts: int
    left_out: int = 0
    notes: tuple[str, ...] = ()

    @cached_property
    def names(self) -> StateNames:
        """Short names of the hidden states."""
        return state_names(self.states)

    @property
    def title(self) -> str:
        """What the table shows, in a few words."""
        if self.groups == (ALL,):
            return "What is kept, layer by layer"
        return f"What is kept, by {self.name}"

    @property
    def scope(self) -> str:
        """Over how many texts and tokens the means are, in one sentence."""
        texts = f"{self.texts:,} text{'' if self.texts == 1 else 's'}"
        found = f"Mean probability that a token is kept, over {texts}"
        if self.left_out:
            found += f"; {self.left_out:,} tokens are in no group"
        return f"{found}."

    def to_records(self) -> list[dict[str, Any]]:
        """Return one dictionary for each group and state, as pandas takes them.

        Keys: ``group``, ``state`` (from 0), ``label``, ``place``, ``kept`` (mean of
        P(kept), 0 to 1), ``tokens`` (how many the group has).
        """
        return [
            {
                "group": group,
                "state": i,
                "label": label,
                "place": place,
                "kept": float(self.kept[row, i]),
                "tokens": count,
            }
            for row, (group, count) in enumerate(
                zip(self.groups, self.counts, strict=True)
            )
            for i, (label, place) in enumerate(
                zip(self.names.labels, self.states, strict=True)
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        return {
            "schema": JSON_SCHEMA,
            "model": self.model,
            "method": "DiffMask",
            "masks": self.masks,
            "mode": self.mode,
            "name": self.name,
            "texts": self.texts,
            "tokens_left_out": self.left_out,
            "notes": list(self.notes),
            "records": self.to_records(),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the table as JSON; ``records`` are those of :meth:`to_records`."""
        return json.dumps(
            self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False
        )

    def to_csv(self) -> str:
        """Return :meth:`to_records` as comma-separated values with a header.

        A group whose name a spreadsheet would take for a formula begins with ``'``.
        """
        buffer = io.StringIO()
        records = self.to_records()
        writer = csv.DictWriter(buffer, list(records[0]), lineterminator="\n")
        writer.writeheader()
        for record in records:
            writer.writerow(record | {"group": no_formula(record["group"])})
        return buffer.getvalue()

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: a line for each group, and the numbers."""
        names = self.names
        yield Heading(text=self.title)
        yield Paragraph(text=self.scope, kind="answer")
        yield Chart(
            names=tuple(
                f"{group} ({count:,})"
                for group, count in zip(self.groups, self.counts, strict=True)
            ),
            values=self.kept,
            steps=Axis(
                name="hidden state",
                labels=names.labels,
                ticks=names.ticks if names.meaning else (),
            ),
            label="mean P(kept)",
            alt=self.alt,
        )
        if names.meaning:
            yield Paragraph(text=f"{names.meaning}.", kind="caption")
        yield Table(
            title=f"Mean {KEPT.unit}",
            heads=(
                "",
                *(
                    f"{group} ({count:,} tokens)"
                    for group, count in zip(self.groups, self.counts, strict=True)
                ),
            ),
            rows=tuple(
                (label, *(Cell(text=f"{p:.3f}", share=float(p)) for p in column))
                for label, column in zip(names.labels, self.kept.T, strict=True)
            ),
            scale=KEPT,
            repeats=True,
        )
        for note in self.notes:
            yield Paragraph(text=note)

    @property
    def alt(self) -> str:
        """The chart in words."""
        return (
            "Line chart of the mean probability that a token is kept, for "
            f"{len(self.states)} hidden states and {len(self.groups)} "
            f"group{'' if len(self.groups) == 1 else 's'}; all numbers stand in the "
            "table below."
        )

    def __str__(self) -> str:
        table = Table(
            heads=("state", *self.groups),
            rows=(
                ("tokens", *(f"{count:,}" for count in self.counts)),
                *(
                    (label, *(f"{p:.3f}" for p in column))
                    for label, column in zip(
                        self.names.labels, self.kept.T, strict=True
                    )
                ),
            ),
        )
        said = (Paragraph(text=text) for text in (self.scope, *self.notes))
        return plain([table, *said], most=1000)
