"""From a tokenizer's pieces to text that a person can read.

A vocabulary entry such as ``"##ing"``, ``"Ġmovie"`` or ``"▁Paris"`` carries marks for
the machine. :func:`read_pieces` takes them off and remembers what they said: whether
white space stood before the piece, which word of the tokenizer it belongs to, and
whether the tokenizer added it itself. :func:`word_groups` is the one place where pieces
become words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._visible import visible
from .special_tokens import special_ids

_UNSPACED_SCRIPTS = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "JAVANESE")
_APOSTROPHES = "'\u2019"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One token as the model saw it and as a person reads it.

    Args:
        token (str): The vocabulary entry, with its marks.
        text (str): The readable text, without white space around it, and with pictures
            of control characters. Empty where a byte-level tokenizer cut one character
            into several pieces: the first of them carries the character.
        special (bool): Whether the tokenizer added the token (``[CLS]``, ``<s>``)
            rather than found it in the text.
        space_before (bool): Whether white space stood between the previous piece and
            this one.
        word (int, optional): The number of the tokenizer's own word, one of its
            ``word_ids()``. Default: None, where the tokenizer does not tell words
            apart: pieces that have a text are joined by their letters then
    """

    token: str
    text: str
    special: bool = False
    space_before: bool = False
    word: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", visible(self.text))

    @property
    def label(self) -> str:
        """The text to show: never empty, white space made visible."""
        if not self.text:
            return "·"
        if self.text.isspace():
            return self.text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣")
        return self.text

    def continues(self, previous: Piece) -> bool:
        """Return whether this piece and ``previous`` belong to one word.

        Of two pieces whose ``word`` is known, the tokenizer says so. Of others letters,
        digits and apostrophes are joined; scripts without spaces between words
        (Chinese, Japanese, Thai, ...) are not, since nothing here knows where their
        words end. White space always ends a word, and nothing cuts a character.
        """
        if self.space_before or self.special or previous.special:
            return False
        if not self.text:
            return True
        if not previous.text or self.text.isspace() or previous.text.isspace():
            return False
        if self.word is not None and previous.word is not None:
            return self.word == previous.word
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


def word_groups(pieces: Sequence[Piece]) -> list[list[int]]:
    """Return the numbers of the pieces of each word, in order; each piece is in one.

    See :meth:`Piece.continues`, which is asked about a piece and the last one before it
    that has a text. White space that the tokenizer counts to a word (its ``word`` is
    known) belongs to the word behind it, or to the one before it where none follows.
    Tokens that the tokenizer added are words of their own.
    """
    groups: list[list[int]] = []
    white = False  # whether the last group has no visible piece yet
    last = 0  # the last piece that has a text
    for i, piece in enumerate(pieces):
        if piece.special:
            white = _close(groups, pieces, white)
            groups.append([i])
        elif white or (i and piece.continues(pieces[last])):
            groups[-1].append(i)
            white = white and not piece.text.strip()
        else:
            groups.append([i])
            white = piece.word is not None and piece.text.isspace()
        last = i if piece.text else last
    _close(groups, pieces, white)
    return groups


def _close(groups: list[list[int]], pieces: Sequence[Piece], white: bool) -> bool:
    """Give white space that no word follows to the word before it; return False."""
    if white and len(groups) > 1 and not pieces[groups[-2][0]].special:
        groups[-2:] = [groups[-2] + groups[-1]]
    return False


def word_text(pieces: Sequence[Piece]) -> str:
    """Return the text of a word of these pieces; where it has none, what to show."""
    text = "".join(piece.text for piece in pieces).strip()
    return text or pieces[0].label


def token_labels(pieces: Sequence[Piece]) -> tuple[str, ...]:
    """Return the readable tokens; a piece within a word starts with a hyphen."""
    labels = [piece.label for piece in pieces]
    for group in word_groups(pieces):
        visible = [i for i in group if pieces[i].text.strip()]
        for i in visible[1:]:
            labels[i] = f"-{labels[i]}"
    return tuple(labels)


def read_pieces(
    tokenizer: Any,
    ids: Sequence[int],
    *,
    text: str | None = None,
    offsets: Sequence[tuple[int, int]] | None = None,
    word_ids: Sequence[int | None] | None = None,
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
        word_ids (Sequence[int or None], optional): The number of the word of each
            token, ``word_ids()`` of what a fast tokenizer returns; read with
            ``offsets``. They are left aside where the tokenizer takes a whole text for
            one word (Llama 2, Gemma). Default: None, words are told by their letters

    Returns:
        *tuple[Piece, ...]* of the length of ``ids``.

    Raises:
        ValueError: ``offsets`` without ``text``; ``offsets`` or ``word_ids`` of
            another length than ``ids``.
    """
    ids = [int(i) for i in ids]
    tokens = [str(t) for t in tokenizer.convert_ids_to_tokens(ids)]
    if offsets is None:
        return _from_marks(tokenizer, ids, tokens)
    if text is None:
        raise ValueError("offsets point into a text: pass text= as well")
    if len(offsets) != len(ids):
        raise ValueError(f"got {len(offsets)} offsets for {len(ids)} token ids")
    if word_ids is None:
        return _from_offsets(tokenizer, ids, tokens, text, offsets, [None] * len(ids))
    if len(word_ids) != len(ids):
        raise ValueError(f"got {len(word_ids)} word ids for {len(ids)} token ids")
    pieces = _from_offsets(tokenizer, ids, tokens, text, offsets, word_ids)
    if _tells_words_apart(tokenizer):
        return pieces
    return tuple(
        replace(piece, word=None) if piece.text.strip() else piece for piece in pieces
    )


def _tells_words_apart(tokenizer: Any) -> bool:
    """Return whether a fast tokenizer cuts a text into words before it looks them up.

    One that does not gives all tokens of a text the same number of a word.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    cut = getattr(backend, "pre_tokenizer", None)
    if cut is None:
        return False
    normalizer = getattr(backend, "normalizer", None)
    sample = "a b" if normalizer is None else normalizer.normalize_str("a b")
    return len(cut.pre_tokenize_str(sample)) > 1


def _from_offsets(
    tokenizer: Any,
    ids: Sequence[int],
    tokens: Sequence[str],
    text: str,
    offsets: Sequence[tuple[int, int]],
    word_ids: Sequence[int | None],
) -> tuple[Piece, ...]:
    special_ids = set(tokenizer.all_special_ids)
    pieces: list[Piece] = []
    end_before = 0
    trailing = ""  # white space at the end of the piece before
    for token_id, token, (start, end), word in zip(
        ids, tokens, offsets, word_ids, strict=True
    ):
        if start == end and token_id in special_ids:
            pieces.append(
                Piece(token=token, text=token, special=True, space_before=bool(pieces))
            )
            continue
        gap = text[end_before:start]
        if gap and pieces and word is not None and word == pieces[-1].word:
            if not any(letter.isspace() for letter in gap):
                # The tokenizer left letters out, such as an accent of its own.
                pieces[-1] = replace(pieces[-1], text=pieces[-1].text + gap)
                gap = ""
        if set(token) == {"▁"} and text[start:end].strip().strip("▁"):
            found, end = " ", start  # a mark that the tokenizer put before the word
        elif start == end:
            found = tokenizer.convert_tokens_to_string([token])
        elif end <= end_before:
            found = ""  # another byte of the character before
        else:
            found = text[max(start, end_before) : end]
        gap = trailing + gap
        trailing = ""
        if found.strip():
            gap += found[: len(found) - len(found.lstrip())]
            trailing = found[len(found.rstrip()) :]
        pieces.append(
            Piece(
                token=token,
                text=found.strip() or found,
                space_before=bool(pieces) and (bool(gap) or pieces[-1].special),
                word=word,
            )
        )
        end_before = max(end_before, end)
    return tuple(pieces)


def pieces_of_tokens(
    tokens: Sequence[str], *, special: Collection[str] | None = None
) -> tuple[Piece, ...]:
    """Return one readable :class:`Piece` for each token, without its tokenizer.

    Which marks the tokens carry is told from all of them together:

    - ``▁`` before a word (SentencePiece: T5, Llama, XLM-R), bytes as ``<0xE4>``;
    - ``Ġ`` for a space and bytes written as letters (GPT-2, RoBERTa, Llama 3), also
      without any ``Ġ`` if the letters make up UTF-8 beyond ASCII, as of Chinese;
    - ``</w>`` behind a word (CLIP, GPT), ``@@`` behind a piece within one (BERTweet);
    - ``##`` before a piece within a word (WordPiece: BERT). Tokens without any mark are
      words, with a space before each but between Chinese characters.

    Args:
        tokens (sequence of str): as ``tokenizer.convert_ids_to_tokens`` returns them.
        special (collection of str, optional): The tokens that the tokenizer added,
            such as ``tokenizer.all_special_tokens``. Default: those of the known
            tokenizers, such as ``[CLS]``, ``</s>`` and ``<|endoftext|>``

    Examples::

        >>> [p.text for p in pieces_of_tokens(["[CLS]", "un", "##told", "[SEP]"])]
        ['[CLS]', 'un', 'told', '[SEP]']
    """
    tokens = [str(token) for token in tokens]
    if special is None:
        added = [bool(_SPECIAL.fullmatch(token)) for token in tokens]
    else:
        added = [token in special for token in tokens]
    own = [token for token, is_added in zip(tokens, added, strict=True) if not is_added]
    spelled = _spell(tokens, marks=_marks(own), added=added)
    return _joined(tokens, spelled, added)


_SPECIAL = re.compile(
    r"\[(CLS|SEP|PAD|MASK|BOS|EOS)\]|</?s>|<(pad|mask|cls|sep|bos|eos|eod|eop)>"
    r"|<\|[^|]*\|>|<(start|end)_of_turn>|<\uff5c[^\uff5c]*\uff5c>"
)
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# GPT-2 writes printable bytes as themselves and the others as letters from 256 on.
_PRINTABLE = {*range(33, 127), *range(161, 173), *range(174, 256)}
_BYTE_OF = {chr(byte): byte for byte in sorted(_PRINTABLE)} | {
    chr(256 + number): byte
    for number, byte in enumerate(sorted({*range(256)} - _PRINTABLE))
}


def _marks(tokens: Sequence[str]) -> str:
    """Return the mark by which tokens say where words begin or end."""
    if any("▁" in token for token in tokens):
        return "▁"
    if any(token.startswith(("Ġ", "Ċ")) for token in tokens):
        return "Ġ"
    for mark in ("</w>", "@@"):
        if any(token.endswith(mark) and token != mark for token in tokens):
            return mark
    if any(token.startswith("##") for token in tokens):
        return "##"
    letters = "".join(tokens)
    if not letters.isascii() and all(letter in _BYTE_OF for letter in letters):
        try:
            bytes(_BYTE_OF[letter] for letter in letters).decode()
        except UnicodeDecodeError:
            return "##"
        return "Ġ"
    return "##"


def _spell(tokens: Sequence[str], *, marks: str, added: Sequence[bool]) -> list[str]:
    """Return the text of each token, with the white space that belongs to it."""
    if marks == "Ġ":
        return _decode_bytes(tokens, added)
    if marks == "▁":
        return _decode_fallback([token.replace("▁", " ") for token in tokens])
    spelled: list[str] = []
    space = True
    for token in tokens:
        if marks == "##":
            inside = token.startswith("##") and len(token) > 2
            found = token[2:] if inside else token
            space = not (inside or (spelled and _unspaced(spelled[-1], found)))
            spelled.append(" " * space + found)
        elif marks == "</w>":
            spelled.append(" " * space + token.removesuffix(marks))
            space = token.endswith(marks)
        else:
            spelled.append(" " * space + token.removesuffix(marks))
            space = not token.endswith(marks)
    return spelled


def _unspaced(before: str, after: str) -> bool:
    """Return whether two words are of a script that is written without spaces."""
    return bool(before.strip()) and _is_wide(before[-1]) and _is_wide(after[:1])


def _is_wide(character: str) -> bool:
    wide = bool(character) and unicodedata.east_asian_width(character) in "WF"
    return wide and not unicodedata.name(character, "").startswith("HANGUL")


def _from_marks(
    tokenizer: Any, ids: Sequence[int], tokens: Sequence[str]
) -> tuple[Piece, ...]:
    vocabulary = tokenizer.get_vocab()
    special = {*special_ids(tokenizer), getattr(tokenizer, "mask_token_id", None)}
    added = [token_id in special for token_id in ids]
    if "Ġ" in vocabulary:
        marks = "Ġ"
    elif "▁" in vocabulary:
        marks = "▁"
    else:
        own = [t for t, is_added in zip(tokens, added, strict=True) if not is_added]
        marks = _marks(own).replace("Ġ", "##")  # of which the vocabulary has none
    return _joined(tokens, _spell(tokens, marks=marks, added=added), added)


def _joined(
    tokens: Sequence[str], spelled: Sequence[str], added: Sequence[bool]
) -> tuple[Piece, ...]:
    """Return the pieces of tokens whose text, with its white space, is known."""
    pieces: list[Piece] = []
    for token, found, special in zip(tokens, spelled, added, strict=True):
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


def _decode_bytes(tokens: Sequence[str], added: Sequence[bool]) -> list[str]:
    """Decode byte-level pieces; a character cut in pieces goes to its first piece."""
    known: list[bytes | None] = [
        None
        if is_added or not all(letter in _BYTE_OF for letter in token)
        else bytes(_BYTE_OF[letter] for letter in token)
        for token, is_added in zip(tokens, added, strict=True)
    ]
    return _decoded(tokens, known)


def _decode_fallback(tokens: Sequence[str]) -> list[str]:
    """Decode the bytes ``<0xE4>`` that SentencePiece writes for rare characters."""
    found = [_BYTE.fullmatch(token) for token in tokens]
    return _decoded(tokens, [bytes([int(m[1], 16)]) if m else None for m in found])


def _decoded(tokens: Sequence[str], known: Sequence[bytes | None]) -> list[str]:
    """Return the text of tokens, of which some are bytes of UTF-8.

    A character that is cut into several tokens goes to the first of them, and the
    others get none; bytes that make up no character become ``�``.
    """
    decoded = [""] * len(tokens)
    pending, first = b"", 0
    for i, (token, found) in enumerate(zip(tokens, known, strict=True)):
        if found is None:
            decoded[i], pending = token, b""
            continue
        first = first if pending else i
        pending += found
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
