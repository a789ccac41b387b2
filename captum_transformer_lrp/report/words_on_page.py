"""Where the words of a text stand: line breaks and the direction of writing."""

from __future__ import annotations

import itertools
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .blocks import ColorScale, Word
from .page import Page

_SIZE, _SPECIAL_SIZE, _LEADING = 13.5, 9.0, 0.4
_PADDING = 0.04  # inches, of the box around a word


@dataclass(frozen=True)
class _Placed:
    word: Word
    width: float
    right_to_left: bool


def direction(text: str) -> str | None:
    """Return ``"left"`` or ``"right"``: where the first strong letter's line begins.

    None if no letter of the text has a direction.
    """
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return "right"
        if kind in ("L", "EN"):
            return "left"
    return None


def is_right_to_left(text: str) -> bool:
    """Return whether the first strong letter is written from right to left."""
    letters = (c for c in text if unicodedata.bidirectional(c) in ("L", "R", "AL"))
    return direction(next(letters, "")) == "right"


def draw_words(
    page: Page,
    words: Iterable[Word],
    scale: ColorScale,
    *,
    right_to_left: bool = False,
) -> None:
    """Draw a text with each word on the colour of its score, wrapped at words.

    A text from right to left runs from the right margin. Within it, words of the other
    direction keep theirs, by the words' first strong letters: a simplification of the
    Unicode bidirectional algorithm (UAX 9) to whole words, without embedding. Letters
    are joined and turned round by matplotlib from 3.11 on; older ones get a warning.

    Args:
        page (Page): Where; its ``y`` moves below the text.
        words (iterable of Word): The text.
        scale (ColorScale): Its colours.
        right_to_left (bool, optional): The direction of the whole. Default: False
    """
    space = page.measure("n n", size=_SIZE) - page.measure("nn", size=_SIZE)
    items = list(_measured(page, words, right_to_left))
    if any(item.right_to_left for item in items):
        _warn_of_unshaped_letters()
    for line in _lines(items, page.room, space):
        placed = _from_left(line, space, right_to_left)
        x = page.margin
        if right_to_left:
            x += page.room - sum(width for _, width in placed)
        for word, width in placed:
            if word is not None:
                _draw_word(page, x, word, width, scale)
            x += width
        page.y += _LEADING
    page.y += 0.12


def _warn_of_unshaped_letters() -> None:
    """Warn where matplotlib writes letters one by one, from left to right."""
    import matplotlib

    if matplotlib.__version_info__[:2] < (3, 11):
        warnings.warn(
            f"matplotlib {matplotlib.__version__} neither joins nor turns round the "
            "letters of scripts that are written from right to left: install "
            "matplotlib 3.11, or save as .html",
            UserWarning,
            stacklevel=2,
        )


def _measured(
    page: Page, words: Iterable[Word], right_to_left: bool
) -> Iterable[_Placed]:
    """Yield words with their widths; those wider than the page come in parts.

    A word without a direction, such as a comma, has that of the word before it if the
    next one agrees, else that of the text.
    """
    found = list(words)
    sides = [None if word.special else direction(word.text) for word in found]
    base = "right" if right_to_left else "left"
    before: str = base
    for i, side in enumerate(sides):
        if side is None:
            after = next((s for s in sides[i + 1 :] if s is not None), base)
            side = before if before == after else base
        else:
            before = side
        sides[i] = side
    for word, side in zip(found, sides, strict=True):
        size = _SPECIAL_SIZE if word.special else _SIZE
        for n, part in enumerate(
            page.broken(word.text, size=size, room=page.room - _PADDING)
        ):
            gap = word.space_before and n == 0
            piece = replace(word, text=part, space_before=gap)
            width = page.measure(part, size=size) + _PADDING
            yield _Placed(piece, width, side == "right")


def _lines(
    items: Sequence[_Placed], room: float, space: float
) -> Iterable[list[_Placed]]:
    """Yield the items of each line."""
    line: list[_Placed] = []
    x = 0.0
    for i, item in enumerate(items):
        gap = space if line and item.word.space_before else 0.0
        unbroken = item.width  # up to the next place where the line may break
        for later in items[i + 1 :]:
            if later.word.space_before or unbroken > room / 3:
                break
            unbroken += later.width
        may_break = item.word.space_before or x + gap + item.width > room
        if line and may_break and x + gap + min(unbroken, room) > room:
            yield line
            line, x, gap = [], 0.0, 0.0
        line.append(item)
        x += gap + item.width
    if line:
        yield line


def _from_left(
    line: Sequence[_Placed], space: float, right_to_left: bool
) -> list[tuple[Word | None, float]]:
    """Return words from left to right with their widths; None is a gap between."""
    gap = None, space
    runs: list[list[tuple[Word | None, float]]] = []
    for backwards, items in itertools.groupby(line, lambda item: item.right_to_left):
        run: list[tuple[Word | None, float]] = []
        for item in items:
            if item.word.space_before and run:
                run.append(gap)
            elif item.word.space_before and runs:
                runs.append([gap])
            run.append((item.word, item.width))
        runs.append(run[::-1] if backwards else run)
    return list(itertools.chain(*(reversed(runs) if right_to_left else runs)))


def _draw_word(
    page: Page, x: float, word: Word, width: float, scale: ColorScale
) -> None:
    """Draw a word on its colour, from ``x`` at its left."""
    share = scale.share(word.score)
    color = page.theme.ground(share, signed=scale.diverging)
    page.box(x, page.y, width, 0.29, color=color, rounding=0.04)
    if word.mark:  # a line below
        page.box(x, page.y + 0.29, width, 0.025, color=page.theme.ink)
    faint = word.special and abs(share) < 0.1
    ink = page.theme.ink_on(share, signed=scale.diverging)
    page.text(
        x + _PADDING / 2,
        page.y + 0.21,
        word.text,
        size=_SPECIAL_SIZE if word.special else _SIZE,
        color=page.theme.soft if faint else ink,
    )
