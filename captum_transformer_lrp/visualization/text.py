"""Heat maps over texts, for tokens and scores of any attributor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import InputError
from ..models.pieces import Piece, pieces_of_tokens
from ..models.words import MERGES, Merge, own_scores, scored_words
from ..report.blocks import Block, ColorScale, Heading, Legend, Table, Word, Words
from ..report.colors import scale_limit
from ..report.words_on_page import is_right_to_left
from .arrays import Features, to_array, token_scores
from .picture import Picture

Scale = Literal["shared", "each"]


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
            (" " if w.space_before else "") + w.text
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


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
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
            top = ", ".join(f"“{w.text}” {write(w.score)}" for w in text.strongest(3))
            found = (
                f"Text of {_count(len(text.words), 'word')}, each on the colour of "
                f"its score. Largest magnitudes: {top}."
            )
            parts.append(f"{text.name}: {found}" if text.name else found)
        scales = [self.texts[0].scale] if self.shared else [t.scale for t in self.texts]
        parts += [f"{scale.words}." for scale in scales]
        return self._heading + " ".join(parts)

    def _scores(self) -> Iterator[Block]:
        for text in self.texts:
            if text.name:
                yield Heading(text=text.name, level=2)
            yield Words(
                words=text.words,
                scale=text.scale,
                right_to_left=is_right_to_left(text.text),
            )
            if text is self.texts[-1] or not self.shared:
                yield Legend(scale=text.scale)

    def _numbers(self) -> Iterator[Block]:
        for text in self.texts:
            yield Table(
                title=f"All scores of {text.name}" if text.name else "",
                heads=("#", "Text", "Tokens", "Score"),
                rows=tuple(
                    (str(i), w.text, " ".join(w.tokens), text.scale.write(w.score))
                    for i, w in enumerate(text.words, 1)
                ),
                texts=3,
                folded=True,
            )


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
    if merge not in ("none", *MERGES):
        raise InputError(
            f"merge={merge!r}; expected one of {', '.join(MERGES)} or none."
        )
    if scale not in ("shared", "each"):
        raise InputError(f"scale={scale!r}; expected shared or each.")
    if names is not None and len(names) != len(texts):
        raise InputError(f"{len(names)} names for {len(texts)} texts.")
    worded = []
    joined = False
    for text, own in zip(texts, given, strict=True):
        pieces = pieces_of(text, special)
        numbers = token_scores(own, len(pieces), features)
        words = scored_words(pieces, numbers, merge)
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
    _check_tokens(tokens)
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


def _check_tokens(tokens: Any) -> None:
    if isinstance(tokens, str) or len(tokens) == 0:
        raise InputError(
            f"tokens are {tokens!r}; expected a list of at least one token, as "
            "tokenizer.convert_ids_to_tokens(ids) returns it."
        )


def pieces_of(
    tokens: Sequence[str] | Sequence[Piece], special: Collection[str] | None
) -> tuple[Piece, ...]:
    """Return the pieces of a text, read from its tokens unless they are pieces.

    Raises:
        InputError: There is no token.
    """
    _check_tokens(tokens)
    ready = tuple(piece for piece in tokens if isinstance(piece, Piece))
    if len(ready) == len(tokens):
        return ready
    return pieces_of_tokens([str(token) for token in tokens], special=special)


def _scale(
    words: Sequence[Word], limit: float | None, signed: bool | None, unit: str
) -> ColorScale:
    return ColorScale(
        limit=check_limit(limit) or scale_limit(own_scores(words)),
        signed=check_signed([word.score for word in words], signed),
        unit=unit,
        palette="words",
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


def beyond(name: str, score: float, scale: ColorScale) -> str:
    """Return the note on scores beyond a colour scale, with one of them."""
    return (
        "Scores beyond the colour scale have its strongest colour, such as "
        f"{name} with {scale.write(score)}."
    )


def _notes(texts: Sequence[ScoredText], merge: Merge, joined: bool) -> tuple[str, ...]:
    notes = []
    if joined:
        notes.append(f"The score of a word is {MERGES[merge]}.")
    clipped = [text for text in texts if text.clipped]
    if clipped:
        word = max(clipped[0].words, key=lambda w: abs(w.score))
        notes.append(beyond(word.text, word.score, clipped[0].scale))
    zeros = sum(not any(word.score for word in text.words) for text in texts)
    if zeros:
        which = "All scores" if len(texts) == 1 else f"In {zeros} texts all scores"
        notes.append(f"{which} are zero.")
    return tuple(notes)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)
