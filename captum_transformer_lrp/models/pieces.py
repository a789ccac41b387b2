"""From a tokenizer's pieces to text that a person can read.

A vocabulary entry such as ``"##ing"``, ``"Ġmovie"`` or ``"▁Paris"`` carries marks for
the machine. :func:`read_pieces` takes them off and remembers what they said: whether
white space stood before the piece, and whether the tokenizer added it itself.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_UNSPACED_SCRIPTS = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE")
_APOSTROPHES = "'\u2019"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One token as the model saw it and as a person reads it.

    Args:
        token (str): The vocabulary entry, with its marks.
        text (str): The readable text, without white space around it. Empty where a
            byte-level tokenizer cut one character into several pieces: the first of
            them carries the character.
        special (bool): Whether the tokenizer added the token (``[CLS]``, ``<s>``)
            rather than found it in the text.
        space_before (bool): Whether white space stood between the previous piece and
            this one.
    """

    token: str
    text: str
    special: bool = False
    space_before: bool = False

    @property
    def label(self) -> str:
        """The text to show: never empty, white space made visible."""
        if not self.text:
            return "·"
        if self.text.isspace():
            return self.text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")
        return self.text

    def continues(self, previous: Piece) -> bool:
        """Return whether this piece and ``previous`` belong to one written word.

        Scripts without spaces between words (Chinese, Japanese, Thai, ...) are not
        joined, since nothing here knows where their words end.
        """
        if self.space_before or self.special or previous.special:
            return False
        if not self.text:
            return True
        if not previous.text:
            return False
        return _in_word(previous.text[-1]) and _in_word(self.text[0])


def _in_word(character: str) -> bool:
    """Return whether a character can stand inside a word between spaces."""
    if character in _APOSTROPHES:
        return True
    kind = unicodedata.category(character)[0]
    if kind not in "LMN":
        return False
    name = unicodedata.name(character, "")
    if name.startswith("HANGUL"):
        return True
    wide = unicodedata.east_asian_width(character) in "WF"
    return not (wide or name.startswith(_UNSPACED_SCRIPTS))


def read_pieces(
    tokenizer: Any,
    ids: Sequence[int],
    *,
    text: str | None = None,
    offsets: Sequence[tuple[int, int]] | None = None,
) -> tuple[Piece, ...]:
    """Return one readable :class:`Piece` for each token id.

    With ``offsets`` (``return_offsets_mapping=True`` of a fast tokenizer) the text is
    cut out of the original, so that its case and spacing are kept. Without them the
    marks of the vocabulary are decoded: ``##`` (WordPiece), bytes written as letters
    with ``Ġ`` for a space (GPT-2) and ``▁`` (SentencePiece).

    Args:
        tokenizer (Any): A Hugging Face tokenizer.
        ids (Sequence[int]): The token ids of one text, without padding.
        text (str, optional): The text that was tokenised; needed with ``offsets``.
            Default: None
        offsets (Sequence[tuple[int, int]], optional): Start and end of each token in
            ``text``. Default: None

    Returns:
        *tuple[Piece, ...]* of the length of ``ids``.

    Raises:
        ValueError: ``offsets`` without ``text``, or of another length than ``ids``.
    """
    ids = [int(i) for i in ids]
    tokens = [str(t) for t in tokenizer.convert_ids_to_tokens(ids)]
    if offsets is None:
        return _from_marks(tokenizer, ids, tokens)
    if text is None:
        raise ValueError("offsets point into a text: pass text= as well")
    if len(offsets) != len(ids):
        raise ValueError(f"got {len(offsets)} offsets for {len(ids)} token ids")
    return _from_offsets(tokenizer, ids, tokens, text, offsets)


def _from_offsets(
    tokenizer: Any,
    ids: Sequence[int],
    tokens: Sequence[str],
    text: str,
    offsets: Sequence[tuple[int, int]],
) -> tuple[Piece, ...]:
    special_ids = set(tokenizer.all_special_ids)
    pieces: list[Piece] = []
    end_before = 0
    for token_id, token, (start, end) in zip(ids, tokens, offsets, strict=True):
        if start == end and token_id in special_ids:
            pieces.append(
                Piece(token=token, text=token, special=True, space_before=bool(pieces))
            )
            continue
        if start == end:
            found = tokenizer.convert_tokens_to_string([token])
        elif end <= end_before:
            found = ""  # another byte of the character before
        else:
            found = text[max(start, end_before) : end]
        gap = text[end_before:start]
        if found.strip():
            gap += found[: len(found) - len(found.lstrip())]
        pieces.append(
            Piece(
                token=token,
                text=found.strip() or found,
                space_before=bool(pieces) and (bool(gap) or pieces[-1].special),
            )
        )
        end_before = max(end_before, end)
    return tuple(pieces)


def _from_marks(
    tokenizer: Any, ids: Sequence[int], tokens: Sequence[str]
) -> tuple[Piece, ...]:
    vocabulary = tokenizer.get_vocab()
    special_ids = set(tokenizer.all_special_ids)
    if tokenizer.unk_token != tokenizer.eos_token:
        special_ids.discard(tokenizer.unk_token_id)
    if "Ġ" in vocabulary:
        spelled = _decode_bytes(tokens)
    elif "▁" in vocabulary or any(t.startswith("▁") for t in tokens):
        spelled = [t.replace("▁", " ") for t in tokens]
    else:
        spelled = [t[2:] if t.startswith("##") else " " + t for t in tokens]
    pieces: list[Piece] = []
    for token_id, token, found in zip(ids, tokens, spelled, strict=True):
        special = token_id in special_ids
        after_special = bool(pieces) and pieces[-1].special
        pieces.append(
            Piece(
                token=token,
                text=token if special else found.strip() or found,
                special=special,
                space_before=bool(pieces)
                and (special or after_special or _starts_word(found)),
            )
        )
    return tuple(pieces)


def _starts_word(spelled: str) -> bool:
    """Return whether white space stands before the text of a piece."""
    return spelled[:1].isspace() and not spelled.isspace()


def _decode_bytes(tokens: Sequence[str]) -> list[str]:
    """Decode byte-level pieces; a character cut in pieces goes to its first piece."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    decoded = [""] * len(tokens)
    pending, first = b"", 0
    for i, token in enumerate(tokens):
        if not all(letter in byte_of for letter in token):  # an added token
            decoded[i], pending = token, b""
            continue
        first = first if pending else i
        pending += bytes(byte_of[letter] for letter in token)
        try:
            decoded[first] = pending.decode()
        except UnicodeDecodeError as error:
            # Cut inside a character: wait for the next piece; else show what it is.
            if error.end < len(pending) or i + 1 == len(tokens):
                decoded[first] = pending.decode(errors="replace")
                pending = b""
            continue
        pending = b""
    return decoded
