"""Parts of a text, and the tokens that belong to each."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
import torch

from captum_transformer_lrp import errors
from captum_transformer_lrp.language import passages
from captum_transformer_lrp.language.passages import Passage, read_passages
from captum_transformer_lrp.language.written import Written, write_down
from tests.models.tiny import byte_level_tokenizer, word_piece_tokenizer


def parts(splitter: Any, text: str) -> list[str]:
    ranges = splitter(text)
    assert not ranges or (ranges[0][0], ranges[-1][1]) == (0, len(text))
    assert all(a[1] == b[0] for a, b in pairwise(ranges))
    return [text[start:end].strip() for start, end in ranges]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. No met J. Bond. He left.", ["Dr. No met J. Bond.", "He left."]),
        ("It costs 3.50 euros, e.g. here.", ["It costs 3.50 euros, e.g. here."]),
        ("It fell by 5. Then it rose.", ["It fell by 5.", "Then it rose."]),
        ("1. Wash.\n2. Dry.", ["1. Wash.", "2. Dry."]),
        ("He said “no.” She left.", ["He said “no.”", "She left."]),
        ("“Why?” he asked. Then left.", ["“Why?” he asked.", "Then left."]),
        ("hello there! how are you? fine", ["hello there!", "how are you?", "fine"]),
        ("Title\n\nA text\nin lines", ["Title", "A text", "in lines"]),
        ("今日は。元気です!はい", ["今日は。", "元気です!はい"]),
        ("  \n One.\n\n  Two.  \n", ["One.", "Two."]),
        (" \n ", []),
        ("", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert parts(passages.sentences, text) == expected


def test_other_units_leave_nothing_out() -> None:
    text = " A b,\nc \n\n \nd.  e\n"
    assert parts(passages.words, text) == ["A", "b,", "c", "d.", "e"]
    assert parts(passages.lines, text) == ["A b,", "c", "d.  e"]
    assert parts(passages.paragraphs, text) == ["A b,\nc", "d.  e"]
    assert parts(passages.whole, text) == [text.strip()]


def read(given: Any, text: str, what: str = "sources") -> list[str]:
    own = [Passage(start=0, end=len(text), text=text)]
    ranges = [m.span() for m in re.finditer(r"\S+", text)]
    return [p.text for p in read_passages(given, text, own, ranges, what)]


def test_documents_are_found_whatever_their_order_and_overlap() -> None:
    text = "I love Paris. Paris. Rome is old."
    assert read(["Rome is old.", "Paris.", "I love Paris. "], text) == [
        "Rome is old.",
        "Paris.",
        "I love Paris.",
    ]
    assert read(["Paris", "Paris"], text) == ["Paris", "Paris"]
    assert read({"a": "Rome", "b": slice(0, 2)}, text) == ["Rome", "I love"]
    assert read(2, text, "span") == ["Paris."]
    assert read(range(2, 4), text, "span") == ["Paris. Paris."]
    assert read([[0, 1], [2, 6]], text) == ["I", "love"]
    assert read([0, 1], text) == ["I", "love"]
    with pytest.raises(errors.InputError, match="does not stand in the prompt once mo"):
        read(["Paris"] * 3, text)


def places(text: str, tokens: list[tuple[int, int]], sources: Any) -> list[int]:
    written = Written(text=text, ranges=tokens, own=[])
    return written.places([Passage(start=s, end=e, text="") for s, e in sources])


def test_a_token_that_is_cut_belongs_to_the_source_with_most_of_it() -> None:
    #       0123456789
    text = "ab cdef gh"
    assert places(text, [(0, 2), (2, 7), (7, 10)], [(0, 4), (4, 10)]) == [0, 1, 1]
    # two characters each: the earlier one
    assert places(text, [(3, 7)], [(0, 5), (5, 10)]) == [0]
    # white space does not count, but where there is nothing else
    assert places(text, [(2, 4), (7, 8)], [(0, 3), (3, 10)]) == [1, 1]
    # most of it lies in none
    assert places(text, [(3, 7)], [(0, 4)]) == [-1]
    # of no text
    assert places(text, [(0, 0), (0, 2)], [(0, 10)]) == [-1, 0]


def test_a_span_has_all_tokens_that_have_a_character_in_it() -> None:
    written = Written(text="ab cd", ranges=[(0, 2), (2, 5)], own=[])
    inside = written.tokens_of(Passage(start=1, end=3, text="b"))
    assert inside.tolist() == [True, False]
    inside = written.tokens_of(Passage(start=0, end=4, text="ab c"))
    assert inside.tolist() == [True, True]


@pytest.mark.parametrize("fast", [True, False])
def test_characters_of_tokens(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    tokenizer = byte_level_tokenizer()
    if not fast:
        monkeypatch.setattr(type(tokenizer), "is_fast", False)
    text = "the movie é 日本 was"
    ids = torch.tensor(tokenizer.encode(text))
    for found in (write_down(ids, tokenizer, text), write_down(ids, tokenizer)):
        assert found.text == text
        covered = [set(range(start, end)) for start, end in found.ranges]
        assert set().union(*covered) >= {
            i for i, character in enumerate(text) if character != " "
        }
        for token, (start, end) in zip(ids.tolist(), found.ranges, strict=True):
            written = tokenizer.decode([token])
            if "\ufffd" not in written:
                assert written.strip() == text[start:end].strip()


def test_special_tokens_around_a_text_are_not_its_own() -> None:
    pytest.importorskip("transformers")
    tokenizer = word_piece_tokenizer()
    text = "the film was unbelievable"
    ids = torch.tensor(tokenizer.encode(text))
    found = write_down(ids, tokenizer, text, added=True)
    assert [text[start:end] for start, end in found.ranges] == [
        *["", "the", "film", "was", "un", "believ", "able", ""]
    ]
    decoded = write_down(ids, tokenizer)
    (own,) = decoded.own
    assert own.text.startswith("the film was un") and "[SEP]" not in own.text


def test_a_tokenizer_is_needed() -> None:
    with pytest.raises(errors.InputError, match="which needs the tokenizer: pass it"):
        write_down(torch.tensor([1]), None)
