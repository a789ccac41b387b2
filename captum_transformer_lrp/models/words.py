"""From a tokenizer's pieces with scores to written words with scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ..report.blocks import Word
from .pieces import Piece, word_groups, word_text

Merge = Literal["sum", "mean", "largest", "none"]

#: what the score of a word is, by rule, to end a sentence
MERGES = {
    "sum": "the sum of the scores of its pieces",
    "mean": "the mean of the scores of its pieces",
    "largest": "that of its pieces which has the largest magnitude",
}


def scored_words(
    pieces: Sequence[Piece],
    scores: np.ndarray,
    merge: Merge = "sum",
    marks: Mapping[int, str] | None = None,
) -> tuple[Word, ...]:
    """Return written words with their scores.

    Args:
        pieces (sequence of Piece): The tokens.
        scores (np.ndarray): One for each of them, shape ``(tokens,)``.
        merge (str, optional): The score of a word: ``"sum"``, ``"mean"`` or
            ``"largest"`` (in magnitude) of its pieces; ``"none"`` leaves each piece for
            itself. Default: ``"sum"``
        marks (Mapping, optional): Number of a token -> what it is pointed out as.
            Default: None
    """
    marks = marks or {}
    groups = word_groups(pieces)
    if merge == "none":
        groups = [[i] for i in range(len(pieces))]
    return tuple(
        Word(
            text=word_text([pieces[i] for i in group]),
            score=_merged(scores[group], merge),
            special=pieces[group[0]].special,
            space_before=pieces[group[0]].space_before
            or (len(group) > 1 and pieces[group[0]].text.isspace()),
            tokens=tuple(pieces[i].token for i in group),
            mark=next((marks[i] for i in group if i in marks), ""),
        )
        for group in groups
    )


def own_scores(words: Sequence[Word]) -> list[float]:
    """Return the scores of the words that the tokenizer did not add, if there are.

    Where a colour scale ends is theirs: added tokens often collect much relevance, and
    would leave the words without colour.
    """
    own = [word.score for word in words if not word.special]
    return own or [word.score for word in words]


def _merged(scores: np.ndarray, merge: Merge) -> float:
    if merge == "mean":
        return float(scores.mean())
    if merge == "largest":
        return float(scores[np.abs(scores).argmax()])
    return float(scores.sum())
