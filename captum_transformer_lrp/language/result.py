"""What a language model's explanation is: a row per generated token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from captum.attr import LLMAttributionResult
from torch import Tensor

from .. import records
from .._version import __version__
from ..models.pieces import Piece, pieces_of_tokens
from ..models.words import own_scores, scored_words
from ..records.storable import Storable
from ..report.blocks import (
    Axis,
    Bars,
    Block,
    ColorScale,
    Grid,
    Heading,
    Legend,
    Pages,
    Panel,
    Paragraph,
    Word,
    Words,
)
from ..report.colors import scale_limit

JSON_SCHEMA = "captum_transformer_lrp.generation/1"

_UNIT = "relevance, in units of what is explained"
_MOST_WORDS = 20_000  # on a page of HTML, over all tokens that can be picked
_LARGEST = 8  # words that are listed
_MOST_CELLS = 2_000  # of a matrix that stands below


class LLMRelevance(LLMAttributionResult, Storable):
    """Captum's result, which plots, with what else one forward pass has told.

    It shows itself as the generated text over the prompt: in HTML one picks a generated
    token, by mouse or arrow key, and sees the prompt in its colours.

    Attributes:
        seq_attr (Tensor): relevance of each column for the whole sequence.
        token_attr (Tensor): relevance of each column for each generated token, shape
            ``(generated tokens, columns)``.
        input_tokens (list of str): the columns: tokens of the prompt (of the source,
            for an encoder-decoder), and with ``include_generated`` those generated.
        output_tokens (list of str): the rows.
        scores (Tensor): what was explained of each generated token.
        log_probs (Tensor): their log-probabilities, of that shape.
        output_probs (Tensor): their probabilities.
        generated_attr (Tensor): relevance of each generated token for each later one,
            shape ``(generated tokens, generated tokens)``, 0 on and above the diagonal.
        start_attr (Tensor): of an encoder-decoder, relevance of the tokens that its
            decoder was started with, shape ``(generated tokens, start tokens)``; no
            columns for other models.
        skipped_attr (Tensor): relevance of the columns that ``skip_tokens`` left out,
            summed, shape ``(generated tokens,)``.
    """

    def __init__(
        self,
        *,
        token_attr: Tensor,
        seq_attr: Tensor,
        input_tokens: list[str],
        output_tokens: list[str],
        scores: Tensor,
        log_probs: Tensor,
        generated_attr: Tensor,
        start_attr: Tensor,
        skipped_attr: Tensor,
    ) -> None:
        super().__init__(
            seq_attr=seq_attr,
            token_attr=token_attr,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        self.output_probs = log_probs.exp()
        self.scores = scores
        self.log_probs = log_probs
        self.generated_attr = generated_attr
        self.start_attr = start_attr
        self.skipped_attr = skipped_attr
        #: what a pipeline answered, where one was explained; it is not saved
        self.output: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`save` keeps, as Python objects.

        ``schema`` is ``"captum_transformer_lrp.generation/1"``, ``kind``
        ``"generation"``; ``version`` is that of this package, ``dtypes`` has the type
        of each tensor. The other keys are the attributes of the class, tensors as
        lists.
        """
        names = records.GENERATION_TENSORS
        tensors = {name: getattr(self, name).detach().cpu() for name in names}
        dtypes = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()}
        return {
            "schema": JSON_SCHEMA,
            "version": __version__,
            "kind": "generation",
            "input_tokens": list(self.input_tokens),
            "output_tokens": list(self.output_tokens),
            "dtypes": dtypes,
            **{name: tensor.double().tolist() for name, tensor in tensors.items()},
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.output_tokens)} generated tokens x "
            f"{len(self.input_tokens)} columns)"
        )

    # ------------------------------------------------------------------ what is shown

    @property
    def generated(self) -> str:
        """The generated text, as a person reads it."""
        pieces = pieces_of_tokens(self.output_tokens)
        return "".join(" " * p.space_before + p.text for p in pieces).strip()

    @property
    def alt(self) -> str:
        """The largest words for the whole answer."""
        words = self._words(_numbers(self.seq_attr))
        write = _scale(words).write
        top = ", ".join(f"{w.text} {write(w.score)}" for w in _largest(words, 3))
        return (
            f"What “{self.generated}” rests on, of {len(self.input_tokens)} tokens "
            f"read. Largest relevance: {top}."
        )

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: a page for each generated token, and the matrix."""
        yield Heading(text="What does each token of the answer rest on?")
        count, columns = len(self.output_tokens), len(self.input_tokens)
        yield Paragraph(
            text=f"{count} tokens generated, after {columns} tokens read.",
            kind="answer",
        )
        yield self._pages()
        if 1 < count and count * columns <= _MOST_CELLS:
            yield from self._matrix()
        yield Paragraph(
            text="Each number says how much a word that was read speaks for a token "
            "that was generated (orange, above zero) or against it (blue, below zero). "
            "Colours have a scale of their own for each token. Tokens of a template "
            "that stand beside each other are one word.",
            kind="meaning",
        )

    def _pages(self) -> Pages:
        """Return what the whole answer rests on, then each of its tokens."""
        whole = self._words(_numbers(self.seq_attr))
        rows = _numbers(self.token_attr)
        labels = pieces_of_tokens(self.output_tokens)
        chances = self.log_probs.exp().tolist()
        shown = max(1, min(len(rows), _MOST_WORDS // max(1, len(whole)) - 1))
        pages = [self._page("The whole answer", whole)]
        words = [
            Word(
                text="whole answer",
                score=float(sum(word.score for word in whole)),
                special=True,
            ),
        ]
        for label, row, chance in zip(labels[:shown], rows, chances, strict=False):
            name = f"“{label.label}”, probability {chance:.1%}"
            pages.append(self._page(name, self._words(row)))
            words.append(
                Word(
                    text=label.label,
                    score=float(row.sum()),
                    special=label.special,
                    space_before=label.space_before or len(words) == 1,
                    tokens=(label.token,),
                )
            )
        hint = "Pick a token of the answer, by mouse or arrow key."
        if shown < len(rows):
            hint += f" The first {shown} of {len(rows)} can be picked."
        return Pages(
            labels=tuple(words),
            scale=ColorScale(
                limit=scale_limit(own_scores(words)),
                signed=True,
                palette="words",
                unit=_UNIT,
            ),
            pages=tuple(pages),
            hint=hint,
            printed=3,
        )

    def _page(self, title: str, words: Sequence[Word]) -> tuple[Block, ...]:
        scale = _scale(words)
        largest = _largest(words, _LARGEST)
        return (
            Heading(text=title, level=2),
            Words(words=tuple(words), scale=scale),
            Legend(scale=scale),
            Bars(
                title="Words that count most",
                head="Word",
                rows=tuple((word.text, word.score) for word in largest),
                scale=ColorScale(limit=scale.limit, signed=True, unit="Relevance"),
                repeats=True,
            ),
        )

    def _matrix(self) -> Iterator[Block]:
        values = _numbers(self.token_attr)
        rows = _axis("generated token", pieces_of_tokens(self.output_tokens))
        columns = _axis("token of the prompt", pieces_of_tokens(self.input_tokens))
        own = [i for i in range(len(columns)) if not columns.special[i]]
        limit = scale_limit(values[:, own] if own else values)
        scale = ColorScale(limit=limit, signed=True, unit=_UNIT)
        yield Heading(text="All tokens at once, on one scale", level=2)
        yield Grid(
            panels=(Panel(values=values),), rows=rows, columns=columns, scale=scale
        )
        yield Legend(scale=scale)

    def _words(self, scores: np.ndarray) -> tuple[Word, ...]:
        """Return the words read with their scores; a run of added tokens as one."""
        found: list[Word] = []
        for word in scored_words(pieces_of_tokens(self.input_tokens), scores):
            if found and word.special and found[-1].special:
                before = found.pop()
                tokens = before.tokens + word.tokens
                word = Word(
                    text=f"{len(tokens)} tokens of the template",
                    score=before.score + word.score,
                    special=True,
                    space_before=before.space_before,
                    tokens=tokens,
                )
            found.append(word)
        return tuple(found)


def _numbers(scores: Tensor | None) -> np.ndarray:
    assert scores is not None
    return scores.detach().to("cpu").double().numpy()


def _scale(words: Sequence[Word]) -> ColorScale:
    return ColorScale(
        limit=scale_limit(own_scores(words)), signed=True, palette="words", unit=_UNIT
    )


def _largest(words: Sequence[Word], count: int) -> list[Word]:
    own = [word for word in words if not word.special] or list(words)
    return sorted(own, key=lambda word: -abs(word.score))[:count]


def _axis(name: str, pieces: Sequence[Piece]) -> Axis:
    return Axis(
        name=name,
        labels=tuple(piece.label for piece in pieces),
        special=tuple(piece.special for piece in pieces),
        breaks=tuple(piece.space_before for piece in pieces),
    )
