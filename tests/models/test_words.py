"""Words are those of the tokenizer, and keep the relevance of their tokens."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace

import pytest
import torch

from captum_transformer_lrp import explain
from captum_transformer_lrp._visible import visible
from captum_transformer_lrp.models import Piece, read_pieces
from captum_transformer_lrp.models.inputs import encode
from captum_transformer_lrp.models.pieces import token_labels, word_groups, word_text
from tests.models.tiny import byte_level_tokenizer, word_piece_tokenizer

pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

LETTERS = "abcdefghijklmnopqrstuvwxyzï日本語电影😀.,"


def fast(tokenizer):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    )


def bytes_alone(*, trim=False, prefix=False, whole=False):
    """Byte-level BPE without merges: each byte is a token."""
    from tokenizers import decoders, models, pre_tokenizers, processors

    entries = ["<pad>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=prefix, use_regex=not whole
    )
    tokenizer.decoder = decoders.ByteLevel()
    if trim:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    return fast(tokenizer)


def sentence_piece(*, split=True, at_white_space=False):
    """Unigram behind Metaspace, as T5's, XLM-R's or (without ``split``) Llama's."""
    from tokenizers import decoders, models, pre_tokenizers

    entries = [("<pad>", 0.0), ("<unk>", 0.0), ("▁", -3.0), ("▁a", -2.0), ("na", -2.0)]
    entries += [(letter, -5.0) for letter in LETTERS]
    tokenizer = tokenizers.Tokenizer(models.Unigram(entries, unk_id=1))
    before = [pre_tokenizers.WhitespaceSplit()] if at_white_space else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*before, pre_tokenizers.Metaspace(split=split)]
    )
    tokenizer.decoder = decoders.Metaspace()
    return fast(tokenizer)


def byte_fallback():
    """BPE without a pre-tokenizer, with bytes for rare letters, as Llama 2's."""
    from tokenizers import decoders, models, normalizers

    entries = ["<pad>", "<unk>", "▁", *(f"<0x{n:02X}>" for n in range(256))]
    entries += "abcdefghijklmnopqrstuvwxyz,."
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return fast(tokenizer)


def letters_of_words():
    """WordPiece of single letters, whose normalizer leaves accents out."""
    from tokenizers import models, normalizers, pre_tokenizers

    entries = ["<pad>", "<unk>", *"naive", *(f"##{letter}" for letter in "naive")]
    vocabulary = {entry: i for i, entry in enumerate(entries)}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.StripAccents()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return fast(tokenizer)


def spaces_behind():
    """Words with the white space behind them, each one token."""
    from tokenizers import models, pre_tokenizers

    vocabulary = {"<pad>": 0, "<unk>": 1, "a ": 2, "film ": 3, "film": 4}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return fast(tokenizer)


def slow_bytes():
    """A slow tokenizer of bytes, written as GPT-2 writes them."""
    from tokenizers import pre_tokenizers
    from transformers import PreTrainedTokenizer

    alphabet = ["<pad>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False)

    class Slow(PreTrainedTokenizer):
        vocab_size = len(alphabet)

        def get_vocab(self):
            return {entry: i for i, entry in enumerate(alphabet)}

        def _tokenize(self, text, **kwargs):
            return [c for word, _ in spell.pre_tokenize_str(text) for c in word]

        def _convert_token_to_id(self, token):
            return self.get_vocab()[token]

        def _convert_id_to_token(self, index):
            return alphabet[index]

    return Slow(pad_token="<pad>", unk_token="<unk>")


def pieces_of(tokenizer, text):
    source = SimpleNamespace(tokenizer=tokenizer, max_tokens=None)
    return encode(source, text).pieces


def words_of(tokenizer, text):
    pieces = pieces_of(tokenizer, text)
    groups = word_groups(pieces)
    assert [i for group in groups for i in group] == list(range(len(pieces)))
    return [word_text([pieces[i] for i in group]) for group in groups]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a naïve idea", ["a", "naïve", "idea"]),
        ("ïï ï", ["ïï", "ï"]),
        ("nai\u0308ve", ["nai", "\u0308", "ve"]),  # GPT-2 cuts at a mark of its own
        ("a 日本語 film", ["a", "日本語", "film"]),
        ("한국어 фильм", ["한국어", "фильм"]),
        ("so 😀👍🏽 good", ["so", "😀👍🏽", "good"]),
        ("isn't, it!", ["isn", "'t", ",", "it", "!"]),
        ("  two  spaces \n and lines\n", ["two", "spaces", "and", "lines"]),
        ("\u3000wide\u3000spaces", ["wide", "spaces"]),
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"trim": True}, {"trim": True, "prefix": True}]
)
def test_bytes_make_up_the_words_of_the_tokenizer(text, words, options):
    assert words_of(bytes_alone(**options), text) == words


@pytest.mark.parametrize(
    ("build", "text", "words"),
    [
        (
            sentence_piece,
            "  a naïve, 日本 😀 film.",
            ["a", "naïve,", "日本", "😀", "film."],
        ),
        (
            lambda: sentence_piece(at_white_space=True),
            "a  naïve film",
            ["a", "naïve", "film"],
        ),
        # These take the whole text for one word, and so the letters tell words apart.
        (
            lambda: sentence_piece(split=False),
            "a naïve, 日本 film.",
            ["a", "naïve", ",", "日", "本", "film", "."],
        ),
        (lambda: bytes_alone(whole=True), "a naïve, film", ["a", "naïve", ",", "film"]),
        (byte_fallback, "a naïve, 😀 film", ["a", "naïve", ",", "😀", "film"]),
        (letters_of_words, "naïve nai\u0308ve", ["naïve", "nai\u0308ve"]),
        (spaces_behind, "a film film", ["a", "film", "film"]),
        (
            word_piece_tokenizer,
            "An unbelievable 中文 film's!",
            ["[CLS]", "An", "unbelievable", "中", "文", "film", "'", "s", "!", "[SEP]"],
        ),
    ],
)
def test_words_of_other_tokenizers(build, text, words):
    assert words_of(build(), text) == words


def test_words_of_a_slow_tokenizer_are_told_by_letters():
    assert words_of(slow_bytes(), "naïve, isn't 日本") == [
        *("naïve", ",", "␣", "isn't", "␣", "日", "本"),
    ]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (bytes_alone, " a naïve,  日本 😀 idea\n"),
        (lambda: bytes_alone(trim=True, prefix=True), "a naïve idea"),
        (sentence_piece, "a naïve, 日本 idea"),
        (byte_fallback, "a naïve 😀 idea"),
        (word_piece_tokenizer, "A warm, unbelievable film"),
        (slow_bytes, "a naïve idea"),
    ],
)
def test_words_keep_the_relevance_of_their_tokens(build, text):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    tokenizer = build()
    calls = []

    class Counted(type(tokenizer)):
        def __call__(self, *args, **kwargs):
            calls.append(args)
            return super().__call__(*args, **kwargs)

    tokenizer.__class__ = Counted
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.5,
        pad_token_id=0,
    )
    model = BertForSequenceClassification(config).double().eval()
    explanation = explain(text, model=model, tokenizer=tokenizer)
    assert len(calls) == 1

    tokens = list(zip(explanation.pieces, explanation.scores, strict=True))
    own = [float(score) for piece, score in tokens if not piece.special]
    words = [word for word in explanation.words if not word.special]
    assert len(words) < len(own)
    assert sum(word.score for word in words) == pytest.approx(sum(own), abs=1e-12)
    assert not any(word.text.isspace() for word in words)
    for word in words:
        assert word.text in text or word.text == "␣"

    rows = explanation._columns()
    for number, word in enumerate(explanation.words):
        at = [i for i, n in enumerate(rows["word"]) if n == number]
        assert word.score == pytest.approx(explanation.scores[at].sum(), abs=1e-12)


def test_tokens_within_a_word_have_a_hyphen():
    pieces = pieces_of(bytes_alone(), "a ïv")
    assert token_labels(pieces) == ("a", "␣", "ï", "·", "-v")


def test_a_mark_before_a_word_takes_none_of_its_letters():
    pieces = pieces_of(sentence_piece(at_white_space=True), "a  film")
    assert [piece.text for piece in pieces[-5:]] == [" ", "f", "i", "l", "m"]


def test_white_space_behind_a_piece_stands_before_the_next():
    pieces = pieces_of(spaces_behind(), "a film film")
    assert [piece.text for piece in pieces] == ["a", "film", "film"]
    assert [piece.space_before for piece in pieces] == [False, True, True]


def test_white_space_between_added_tokens_stays():
    pieces = (
        Piece(token="<s>", text="<s>", special=True),
        Piece(token="Ġ", text=" ", word=0),
        Piece(token="</s>", text="</s>", special=True),
    )
    assert word_groups(pieces) == [[0], [1], [2]]


def test_word_ids_are_one_for_each_token():
    with pytest.raises(ValueError, match="got 1 word ids for 2 token ids"):
        read_pieces(
            word_piece_tokenizer(),
            [4, 5],
            text="the film",
            offsets=[(0, 3), (4, 8)],
            word_ids=[0],
        )


def test_no_token_commands_a_terminal() -> None:
    tokenizer = byte_level_tokenizer()
    text = "a \x1b[31mred\x07 \x9b0m \tb\n"
    encoded = tokenizer(text, return_offsets_mapping=True)
    for offsets in (None, encoded["offset_mapping"]):
        pieces = read_pieces(
            tokenizer, encoded["input_ids"], text=text, offsets=offsets
        )
        shown = "".join(p.text + p.label for p in pieces)
        assert not {c for c in shown if unicodedata.category(c) == "Cc"} - {"\t", "\n"}
        assert "␛" in shown and "␇" in shown
    assert visible("a\tb\r\nc") == "a\tb\r\nc" and visible("\x7f\x9b\x00") == "␡␦␀"
