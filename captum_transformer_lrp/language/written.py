"""Which characters of a text each token stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..models.special_tokens import special_ids
from .passages import Passage, Range


@dataclass(frozen=True, kw_only=True, eq=False)
class Written:
    """A text and its tokens.

    Attributes:
        text (str): what is written.
        ranges (list of Range): the characters of each token, empty for those that a
            tokenizer put around the text.
        own (list of Passage): where a user, not a template, wrote it.
    """

    text: str
    ranges: list[Range]
    own: list[Passage]

    def characters(self, token: int) -> list[int]:
        """Return the characters of a token; white space only where there is no other.

        So a token such as ``" The"`` belongs to the sentence that it begins.
        """
        start, end = self.ranges[token]
        inside = [i for i in range(start, end) if not self.text[i].isspace()]
        return inside or list(range(start, end))

    def tokens_of(self, passage: Passage) -> Tensor:
        """Return which tokens have a character of a passage, ``(tokens,)`` booleans."""
        inside = range(passage.start, passage.end)
        return torch.tensor(
            [
                any(character in inside for character in self.characters(token))
                for token in range(len(self.ranges))
            ],
            dtype=torch.bool,
        )

    def places(self, passages: Sequence[Passage]) -> list[int]:
        """Return the passage of each token, -1 for none.

        A token that is cut belongs to the passage that has most of its characters, and
        to none where most lie outside; the earlier one has it where two have as many.
        """
        owner = [-1] * len(self.text)
        for number, passage in enumerate(passages):
            owner[passage.start : passage.end] = [number] * (
                passage.end - passage.start
            )
        found = []
        for token in range(len(self.ranges)):
            owners = [owner[i] for i in self.characters(token)]
            most = max(map(owners.count, owners), default=0)
            # the first of them in the text
            found.append(next((o for o in owners if owners.count(o) == most), -1))
        return found


def write_down(
    ids: Tensor, tokenizer: Any, text: str | None = None, *, added: bool = False
) -> Written:
    """Return what tokens say, and where.

    Args:
        ids (Tensor): ``(tokens,)``.
        tokenizer (Any): a Hugging Face tokenizer.
        text (str, optional): what was tokenized. Default: None, decoded
        added (bool, optional): whether the tokenizer put special tokens around it.
            Default: False

    Raises:
        InputError: the tokens do not decode to a text, piece by piece.
    """
    if tokenizer is None:
        raise InputError(
            "spans and sources are parts of a text, which needs the tokenizer: pass "
            "it, LLMTransformerLRP(model, tokenizer)."
        )
    numbers = [int(i) for i in ids]
    ranges = None if text is None else _offsets(text, numbers, tokenizer, added=added)
    if ranges is None:
        text = _decoded(numbers, tokenizer)
        ranges = _offsets(text, numbers, tokenizer, added=False)
    assert text is not None
    if ranges is None:
        ranges = _by_decoding(text, numbers, tokenizer)
    return Written(text=text, ranges=ranges, own=_own(text, ranges, numbers, tokenizer))


def _offsets(
    text: str, ids: list[int], tokenizer: Any, *, added: bool
) -> list[Range] | None:
    """Return a fast tokenizer's ranges; None where it has none or cuts otherwise."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    found = tokenizer(text, add_special_tokens=added, return_offsets_mapping=True)
    if list(found["input_ids"]) != ids:
        return None
    return [(int(start), int(end)) for start, end in found["offset_mapping"]]


def _decoded(ids: list[int], tokenizer: Any) -> str:
    return str(
        tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
    )


def _by_decoding(text: str, ids: list[int], tokenizer: Any) -> list[Range]:
    """Return ranges from the text of one token, two tokens, three and so on."""
    ends = [0]
    for count in range(1, len(ids)):
        before = _decoded(ids[:count], tokenizer).rstrip("\ufffd")
        if not text.startswith(before):
            raise InputError(
                f"the first {count} tokens decode to {before[-40:]!r}, which is no "
                "beginning of what all of them decode to: this tokenizer does not say "
                "which characters a token stands for. Pass token ids without span and "
                "sources."
            )
        ends.append(max(ends[-1], len(before)))
    ends.append(len(text))
    return list(pairwise(ends))


def _own(
    text: str, ranges: list[Range], ids: list[int], tokenizer: Any
) -> list[Passage]:
    """Return the text between special tokens."""
    special = set(special_ids(tokenizer))
    found: list[Range] = []
    open_at: int | None = 0
    for token, (start, end) in zip(ids, ranges, strict=True):
        if token in special and start < end:
            if open_at is not None and text[open_at:start].strip():
                found.append((open_at, start))
            open_at = end
    if open_at is not None and text[open_at:].strip():
        found.append((open_at, len(text)))
    return [Passage(start=s, end=e, text=text[s:e].strip()) for s, e in found]
