"""Heat maps over texts, for tokens and scores of any attributor."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import InputError
from ..models.pieces import Piece, pieces_of_tokens, word_groups, word_text
from ..report.colors import DARK, LIGHT, scale_limit
from ..report.words_on_page import ScoredWord, draw_words, is_right_to_left
from .arrays import Features, to_array, token_scores
from .picture import ColorScale, Picture

if TYPE_CHECKING:
    from ..report.page import Page

Merge = Literal["sum", "mean", "largest", "none"]
Scale = Literal["shared", "each"]

_RULES = {
    "sum": "the sum of the scores of its pieces",
    "mean": "the mean of the scores of its pieces",
    "largest": "that of its pieces which has the largest magnitude",
}
_LISTED = 40  # words in plain text


@dataclass(frozen=True, kw_only=True)
class Word:
    """A written word, or a token where words are not merged, with its score."""

    label: str
    tokens: tuple[str, ...]
    score: float
    special: bool
    space_before: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredText:
    """One text with a score for each word.

    Args:
        words (tuple of Word): In the order of the text.
        scale (ColorScale): Its colours.
        name (str): What stands above it, such as the name of a method.
    """

    words: tuple[Word, ...]
    scale: ColorScale
    name: str = ""

    @property
    def text(self) -> str:
        """The text as a person reads it, without what the tokenizer added."""
        return "".join(
            (" " if w.space_before else "") + w.label
            for w in self.words
            if not w.special
        ).strip()

    @property
    def clipped(self) -> bool:
        """Whether a word lies beyond the colour scale."""
        largest = max(abs(word.score) for word in self.words)
        return largest > self.scale.limit * (1 + 1e-9)

    def strongest(self, count: int) -> list[Word]:
        """Return the words of largest magnitude that the tokenizer did not add."""
        own = [word for word in self.words if not word.special] or list(self.words)
        return sorted(own, key=lambda word: -abs(word.score))[:count]


@dataclass(frozen=True, kw_only=True, eq=False)
class TextPicture(Picture):
    """Texts below each other, each word on the colour of its score.

    Made by :func:`draw_text`.

    Args:
        texts (tuple of ScoredText): What is drawn, in this order.
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    texts: tuple[ScoredText, ...] = field(default=())

    @property
    def shared(self) -> bool:
        """Whether all texts have one colour scale."""
        return all(text.scale == self.texts[0].scale for text in self.texts)

    @property
    def alt(self) -> str:
        """The picture in full words."""
        parts = []
        for text in self.texts:
            write = text.scale.write
            top = ", ".join(f"“{w.label}” {write(w.score)}" for w in text.strongest(3))
            found = (
                f"Text of {_count(len(text.words), 'word')}, each on the colour of "
                f"its score. Largest magnitudes: {top}."
            )
            parts.append(f"{text.name}: {found}" if text.name else found)
        scales = [self.texts[0].scale] if self.shared else [t.scale for t in self.texts]
        parts += [f"{scale.words}." for scale in scales]
        return self._heading + " ".join(parts)

    def _page(self, theme: str) -> Page:
        from ..report.page import Page

        page = Page(theme=theme)
        if self.title:
            page.line(self.title, size=16, weight="bold")
            page.y += 0.1
        for text in self.texts:
            if text.name:
                page.line(text.name, size=10, color=page.theme.soft)
                page.y += 0.03
            self._draw_text(page, text)
            if not self.shared:
                _draw_bar(page, text.scale)
                page.y += 0.12
        if self.shared:
            _draw_bar(page, self.texts[0].scale)
        return page

    def _draw_text(self, page: Page, text: ScoredText) -> None:
        scale = text.scale
        words = [
            ScoredWord(
                label=word.label,
                share=word.score / scale.limit,
                special=word.special,
                space_before=word.space_before,
            )
            for word in text.words
        ]
        draw_words(
            page,
            words,
            right_to_left=is_right_to_left(text.text),
        )

    def _card(self) -> dict[str, Any]:
        return {
            "template": "text.html",
            "shared": self.shared,
            "texts": [
                {
                    "name": text.name,
                    "words": [_shown(word, text.scale) for word in text.words],
                    "scale": text.scale,
                    "direction": "rtl" if is_right_to_left(text.text) else "ltr",
                }
                for text in self.texts
            ],
        }

    def to_text(self, *, color: bool = False, width: int = 88) -> str:
        """Return text for a terminal, which needs the package rich.

        Args:
            color (bool, optional): Whether to colour it with ANSI codes.
                Default: False
            width (int, optional): Columns of the terminal. Default: 88

        Raises:
            MissingPackageError: rich is not installed.
        """
        from .terminal import print_texts, rendered

        return rendered(
            lambda console: print_texts(self, console), color=color, width=width
        )

    def __str__(self) -> str:
        lines = [self.title] if self.title else []
        for text in self.texts:
            lines += [text.name] if text.name else []
            lines.append(text.text)
            listed = list(text.words)
            if len(listed) > _LISTED:
                listed = text.strongest(_LISTED)
                lines.append(f"the {_LISTED} largest of {len(text.words)} words:")
            lines += [f"{text.scale.write(w.score):>10}  {w.label}" for w in listed]
        return "\n".join([*lines, *self.notes])


def draw_text(
    scores: Any,
    tokens: Sequence[str] | Sequence[Piece] | Sequence[Sequence[str]],
    *,
    title: str = "",
    names: Sequence[str] | None = None,
    unit: str = "attribution",
    merge: Merge = "sum",
    features: Features = "sum",
    signed: bool | None = None,
    limit: float | None = None,
    scale: Scale = "shared",
    special: Collection[str] | None = None,
) -> TextPicture:
    """Draw a text with each word on the colour of its score.

    Orange is above zero and blue below, on a scale with zero in its middle. Pieces of
    words are joined to written words, whose score is the sum of theirs, so that the sum
    over the text stays what it was; ``merge`` chooses another rule.

    The tokens may also come first, as they had to in earlier versions: strings are no
    scores.

    Args:
        scores (Tensor, np.ndarray or list): Shape ``(tokens,)`` or ``(tokens,
            features)``, with a batch dimension of 1 in front or not; for several texts
            one such entry for each.
        tokens (sequence of str): As ``tokenizer.convert_ids_to_tokens(ids)`` returns
            them: WordPiece, SentencePiece and byte-level pieces are read (see
            :func:`~captum_transformer_lrp.models.pieces_of_tokens`). Pieces of
            :func:`~captum_transformer_lrp.models.read_pieces` are taken as they are.
            A list of such lists draws several texts below each other.
        title (str, optional): What stands above. Default: none
        names (sequence of str, optional): What stands above each text, such as names of
            methods. Default: none
        unit (str, optional): What the scores count, written beside the colour bar,
            such as ``"relevance, in logits"``. Default: ``"attribution"``
        merge (str, optional): The score of a word: ``"sum"``, ``"mean"`` or
            ``"largest"`` (in magnitude) of its pieces, or ``"none"`` to draw tokens.
            Default: ``"sum"``
        features (str, optional): How the features of a token become one number:
            ``"sum"``, ``"norm"`` (Euclidean, never negative) or ``"mean"``.
            Default: ``"sum"``
        signed (bool, optional): Whether the colour scale has two sides.
            Default: None, whether a score lies below zero
        limit (float, optional): The magnitude of the strongest colour. Default: the
            largest among the words, without the tokens that the tokenizer added, which
            may lie beyond the scale
        scale (str, optional): ``"shared"`` by all texts, or one for ``"each"``, as
            methods of different units need. Default: ``"shared"``
        special (collection of str, optional): The tokens that the tokenizer added.
            Default: None, those of the known tokenizers

    Returns:
        *TextPicture*.

    Raises:
        InputError: Shapes do not belong together, a score is NaN or infinite, or an
            option is unknown.

    Examples::

        >>> ig = LayerIntegratedGradients(forward, model.get_input_embeddings())
        >>> scores = ig.attribute(ids, baselines=baseline, target=1)
        >>> tokens = tokenizer.convert_ids_to_tokens(ids[0])
        >>> draw_text(scores, tokens, unit="attribution, in logits").save("ig.png")

    The other way, scores of this package in Captum's own view::

        >>> from captum.attr import visualization as viz
        >>> scores = AttnLRP(model).attribute(ids, target=1)  # (1, tokens)
        >>> record = viz.VisualizationDataRecord(
        ...     scores[0], 0.9, "positive", "positive", "positive", 1.0, tokens, 0.0
        ... )
        >>> viz.visualize_text([record])
    """
    if _are_tokens(scores) and not _are_tokens(tokens):
        scores, tokens = tokens, scores
    texts, given = _texts(tokens, scores)
    if merge not in ("none", *_RULES):
        raise InputError(
            f"merge={merge!r}; expected one of {', '.join(_RULES)} or none."
        )
    if scale not in ("shared", "each"):
        raise InputError(f"scale={scale!r}; expected shared or each.")
    if names is not None and len(names) != len(texts):
        raise InputError(f"{len(names)} names for {len(texts)} texts.")
    worded = []
    joined = False
    for text, own in zip(texts, given, strict=True):
        pieces = _pieces(text, special)
        numbers = token_scores(own, len(pieces), features)
        words = _words(pieces, numbers, merge)
        joined = joined or len(words) < len(pieces)
        worded.append(words)
    groups = worded if scale == "each" else [[w for words in worded for w in words]]
    scales = [_scale(words, limit, signed, unit) for words in groups]
    if scale == "shared":
        scales *= len(worded)
    found = tuple(
        ScoredText(words=words, scale=own, name=name)
        for words, own, name in zip(
            worded, scales, names or [""] * len(worded), strict=True
        )
    )
    return TextPicture(texts=found, title=title, notes=_notes(found, merge, joined))


def _are_tokens(value: Any) -> bool:
    """Whether a value is made of strings or pieces, as scores never are."""
    if isinstance(value, (list, tuple)):
        return bool(value) and _are_tokens(value[0])
    return isinstance(value, (str, Piece))


def _texts(tokens: Any, scores: Any) -> tuple[list[Sequence[Any]], list[Any]]:
    """Return texts and the scores of each."""
    if isinstance(tokens, str) or len(tokens) == 0:
        raise InputError(
            f"tokens are {tokens!r}; expected a list of at least one token, as "
            "tokenizer.convert_ids_to_tokens(ids) returns it."
        )
    if isinstance(tokens[0], (str, Piece)):
        return [tokens], [scores]
    texts: list[Sequence[Any]] = [list(text) for text in tokens]
    if not all(texts):
        raise InputError(f"text {[bool(t) for t in texts].index(False)} has no token.")
    if len(scores) != len(texts):
        raise InputError(
            f"scores have {len(scores)} entries for {len(texts)} texts; expected one "
            "for each."
        )
    return texts, [scores[i] for i in range(len(texts))]


def _pieces(
    text: Sequence[str] | Sequence[Piece], special: Collection[str] | None
) -> tuple[Piece, ...]:
    ready = tuple(piece for piece in text if isinstance(piece, Piece))
    if len(ready) == len(text):
        return ready
    return pieces_of_tokens([str(token) for token in text], special=special)


def _words(
    pieces: Sequence[Piece], scores: np.ndarray, merge: Merge
) -> tuple[Word, ...]:
    groups = word_groups(pieces)
    if merge == "none":
        groups = [[i] for i in range(len(pieces))]
    return tuple(
        Word(
            label=word_text([pieces[i] for i in group]),
            tokens=tuple(pieces[i].token for i in group),
            score=_merged(scores[group], merge),
            special=pieces[group[0]].special,
            space_before=pieces[group[0]].space_before
            or (len(group) > 1 and pieces[group[0]].text.isspace()),
        )
        for group in groups
    )


def _merged(scores: np.ndarray, merge: Merge) -> float:
    if merge == "mean":
        return float(scores.mean())
    if merge == "largest":
        return float(scores[np.abs(scores).argmax()])
    return float(scores.sum())


def _scale(
    words: Sequence[Word], limit: float | None, signed: bool | None, unit: str
) -> ColorScale:
    own = [word.score for word in words if not word.special]
    every = [word.score for word in words]
    return ColorScale(
        limit=check_limit(limit) or scale_limit(own or every),
        signed=check_signed(every, signed),
        unit=unit,
        pale=True,
    )


def check_limit(limit: float | None) -> float | None:
    """Return the limit of a colour scale.

    Raises:
        InputError: It is not above zero, or not finite.
    """
    if limit is not None and not 0 < limit < float("inf"):
        raise InputError(f"limit={limit}; expected a number above zero.")
    return limit


def check_signed(scores: Any, signed: bool | None) -> bool:
    """Return whether a scale has two sides; by default if a score is below zero.

    Raises:
        InputError: A score is below zero on a scale that starts there.
    """
    least = float(to_array(scores).min())
    if signed is False and least < 0:
        raise InputError(
            f"a score is {least:.3g} and signed=False, a scale from zero up; leave "
            "signed out, or pass scores.abs() if magnitudes are meant."
        )
    return least < 0 if signed is None else signed


def _notes(texts: Sequence[ScoredText], merge: Merge, joined: bool) -> tuple[str, ...]:
    notes = []
    if joined:
        notes.append(f"The score of a word is {_RULES[merge]}.")
    clipped = [text for text in texts if text.clipped]
    if clipped:
        word = max(clipped[0].words, key=lambda w: abs(w.score))
        notes.append(
            f"Scores beyond the colour scale have its strongest colour, such as "
            f"{word.label} with {clipped[0].scale.write(word.score)}."
        )
    zeros = sum(not any(word.score for word in text.words) for text in texts)
    if zeros:
        which = "All scores" if len(texts) == 1 else f"In {zeros} texts all scores"
        notes.append(f"{which} are zero.")
    return tuple(notes)


def _shown(word: Word, scale: ColorScale) -> dict[str, Any]:
    """Return what the template shows of a word."""
    share = word.score / scale.limit
    return {
        "label": word.label,
        "piece": " ".join(word.tokens),
        "special": word.special,
        "space": word.space_before,
        "score": scale.write(word.score),
        "light": LIGHT.hex(share),
        "dark": DARK.hex(share),
    }


def _draw_bar(page: Page, scale: ColorScale) -> None:
    low, high = scale.ends
    page.legend(low, high, scale.colors(page.theme), unit=scale.unit)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
