"""Vocabulary entries become text that a person can read."""

from __future__ import annotations

import pytest

from captum_transformer_lrp.models import Piece, read_pieces
from tests.models.tiny import byte_level_tokenizer, word_piece_tokenizer

pytest.importorskip("transformers")


def read(tokenizer, text, *, offsets):
    encoded = tokenizer(text, return_offsets_mapping=True)
    return read_pieces(
        tokenizer,
        encoded["input_ids"],
        text=text,
        offsets=encoded["offset_mapping"] if offsets else None,
    )


def shown(pieces):
    """The pieces as a page shows them: one space where there was white space."""
    return "".join((" " if p.space_before else "") + p.label for p in pieces)


def test_offsets_keep_case_spacing_and_unknown_words():
    pieces = read(word_piece_tokenizer(), "The  snowman's Unbelievable.", offsets=True)
    assert shown(pieces) == "[CLS] The snowman's Unbelievable. [SEP]"
    assert [p.token for p in pieces][:3] == ["[CLS]", "the", "[UNK]"]
    assert [p.special for p in pieces] == [True] + [False] * 8 + [True]


def test_marks_of_word_piece_are_taken_off():
    pieces = read(word_piece_tokenizer(), "The unbelievable film", offsets=False)
    assert [p.text for p in pieces[2:5]] == ["un", "believ", "able"]
    assert shown(pieces) == "[CLS] the unbelievable film [SEP]"


@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize(
    "text", ["the movie was best", "a 中文 movie", "naïve, isn't it"]
)
def test_byte_level_pieces_spell_the_text(text, offsets):
    pieces = read(byte_level_tokenizer(), text, offsets=offsets)
    spelled = "".join(" " * p.space_before + p.text for p in pieces)
    assert spelled == text
    assert not any("Ġ" in p.text or "\ufffd" in p.text for p in pieces)


@pytest.mark.parametrize("offsets", [True, False])
def test_a_character_cut_into_bytes_goes_to_its_first_piece(offsets):
    pieces = read(byte_level_tokenizer(), "中", offsets=offsets)
    assert [p.text for p in pieces] == ["中", "", ""]
    assert [p.label for p in pieces] == ["中", "·", "·"]
    assert pieces[1].continues(pieces[0]) and pieces[2].continues(pieces[1])


def test_half_a_character_is_shown_as_such():
    tokenizer = byte_level_tokenizer()
    first_byte = tokenizer("中")["input_ids"][:1]
    (piece,) = read_pieces(tokenizer, first_byte)
    assert piece.label == "\ufffd"


class SentencePiece:
    """The part of a slow SentencePiece tokenizer that is read."""

    all_special_ids = (0,)
    unk_token, unk_token_id, eos_token = "<unk>", 2, "</s>"
    entries = ("<s>", "▁Par", "<unk>", "is", "▁now", "▁")

    def get_vocab(self):
        return {entry: i for i, entry in enumerate(self.entries)}

    def convert_ids_to_tokens(self, ids):
        return [self.entries[i] for i in ids]


def test_underscores_of_sentence_piece_become_spaces():
    pieces = read_pieces(SentencePiece(), [0, 1, 3, 4, 5])
    assert shown(pieces) == "<s> Paris now␣"
    assert pieces[2].continues(pieces[1])
    assert not pieces[3].continues(pieces[2])


@pytest.mark.parametrize(
    ("text", "label"), [("\n", "↵"), ("  ", "␣␣"), ("\t", "⇥"), ("", "·"), ("a", "a")]
)
def test_a_label_is_never_invisible(text, label):
    assert Piece(token="x", text=text).label == label


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        ("un", "able", True),
        ("it", "'", True),
        ("film", ",", False),
        ("中", "文", False),
        ("한", "국", True),
        ("สวัส", "ดี", False),
        ("كتا", "ب", True),
    ],
)
def test_pieces_of_one_written_word_are_joined(first, second, joined):
    before, after = Piece(token=first, text=first), Piece(token=second, text=second)
    assert after.continues(before) is joined


def test_offsets_need_their_text():
    with pytest.raises(ValueError, match="pass text= as well"):
        read_pieces(word_piece_tokenizer(), [4], offsets=[(0, 3)])
    with pytest.raises(ValueError, match="got 1 offsets for 2 token ids"):
        read_pieces(word_piece_tokenizer(), [4, 5], text="the", offsets=[(0, 3)])
