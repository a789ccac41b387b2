"""What a span of an answer rests on: sources of the prompt, through the reasoning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .. import records
from .._version import __version__
from .._visible import shortened, visible
from ..errors import InputError
from ..records.storable import Storable
from ..report.blocks import (
    Axis,
    Block,
    Cell,
    ColorScale,
    Grid,
    Heading,
    Legend,
    Pages,
    Panel,
    Paragraph,
    Table,
    Word,
    Words,
)
from ..report.colors import scale_limit
from .passages import Passage, overlapping

JSON_SCHEMA = "captum_transformer_lrp.sources/1"

#: what is no source of the user's, in the order of the columns
REST = ("template", "other text", "decoder start", "generated")
Of = Literal["magnitude", "positive", "hop"]

_UNIT = "relevance, in units of what is explained"
_MOST_MARKS = 3  # of sources behind a span
_SMALLEST_SHARE = 0.05  # of a source that is marked
_MOST_ROWS = 12
_MOST_HOPS = 4  # of which each word is shown
_MOST_WORDS = 20_000  # of prompts on a page, over all spans


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SourceRelevance(Storable):
    """The relevance of sources for spans of an answer.

    It shows itself as the answer with the numbers of its sources behind each span, the
    sources in the order of their relevance, and the prompt in their colours.

    Attributes:
        prompt (str): what was read.
        answer (str): what follows.
        input_tokens (list of str): the tokens of the prompt.
        output_tokens (list of str): those of the answer.
        spans (list of Passage): what was explained of the answer.
        span_tokens (Tensor): the tokens of each span, booleans ``(spans, answer
            tokens)``.
        sources (list of Passage): parts of the prompt.
        source_of (Tensor): of each token of the prompt the number of its source, or
            -1 for a token of the template, -2 for other text, ``(prompt tokens,)``.
        hop_attr (Tensor): what came to each token of the prompt in each hop, ``(hops +
            1, spans, prompt tokens)``; the first is without hops.
        hop_generated (Tensor): what came to each token of the answer in each hop,
            ``(hops + 1, spans, answer tokens)``; but for the last hop it was sent on.
        hop_start (Tensor): what came to the tokens that the decoder of an
            encoder-decoder was started with, ``(hops + 1, spans)``.
        sent_on (Tensor): whether a token of the answer could be sent on, booleans
            ``(answer tokens,)``: its logit stands out from the vocabulary's mean by
            more than a tenth of the standard deviation of the logits there.
        scores (Tensor): what was explained of each span, ``(spans,)``.
        log_probs (Tensor): of the tokens of the answer, ``(answer tokens,)``.
        explained (str): what was explained of each token, such as ``"logit"``.
        method (str): the rules.
    """

    prompt: str
    answer: str
    input_tokens: list[str]
    output_tokens: list[str]
    spans: list[Passage]
    span_tokens: Tensor
    sources: list[Passage]
    source_of: Tensor
    hop_attr: Tensor
    hop_generated: Tensor
    hop_start: Tensor
    sent_on: Tensor
    scores: Tensor
    log_probs: Tensor
    explained: str
    method: str

    # ------------------------------------------------------------------------- numbers

    @property
    def hops(self) -> int:
        """How often relevance was sent on."""
        return len(self.hop_attr) - 1

    @property
    def token_attr(self) -> Tensor:
        """Relevance of each token of the prompt, all hops, ``(spans, tokens)``."""
        return self.hop_attr.sum(0)

    @property
    def generated_attr(self) -> Tensor:
        """Relevance that stays on each token of the answer, ``(spans, tokens)``."""
        stopped = torch.where(self.sent_on, 0, self.hop_generated[:-1]).sum(0)
        return self.hop_generated[-1] + stopped

    @property
    def hop_sources(self) -> Tensor:
        """What came to each column in each hop, ``(hops + 1, spans, columns)``.

        The columns are those of :attr:`columns`. What was sent on is not counted, so
        that the sum over the hops is :attr:`all_attr`.
        """
        count = len(self.sources)
        columns = self.hop_attr.new_zeros(*self.hop_attr.shape[:2], count + len(REST))
        place = torch.where(
            self.source_of < 0, count - 1 - self.source_of, self.source_of
        )
        columns.index_add_(2, place, self.hop_attr)
        columns[..., count + 2] = self.hop_start
        stay = self.hop_generated.clone()
        stay[:-1] = torch.where(self.sent_on, 0, stay[:-1])
        columns[..., count + 3] = stay.sum(-1)
        return columns

    @property
    def columns(self) -> list[str]:
        """The sources by number, and what is none: ``template`` and so on."""
        return [*(str(i + 1) for i in range(len(self.sources))), *REST]

    @property
    def all_attr(self) -> Tensor:
        """Relevance of each column, which is all there is, ``(spans, columns)``."""
        return self.hop_sources.sum(0)

    @property
    def source_attr(self) -> Tensor:
        """Relevance of each source: the sum over its tokens, ``(spans, sources)``."""
        return self.all_attr[:, : len(self.sources)]

    @property
    def convergence_delta(self) -> Tensor:
        """What of the score constants of the model have: score less sum, ``(spans,)``.

        Of a logit, and of a sum or a difference of logits. A log-probability or a
        probability is no sum of what starts at the logits.
        """
        return self.scores.to(self.hop_attr.dtype) - self.all_attr.sum(1)

    def shares(self, of: Of = "magnitude") -> Tensor:
        """Return the relevance of each source as a share, ``(spans, sources)``.

        Args:
            of (str, optional): ``"magnitude"``: of the sum of the absolute relevance of
                all sources; signed, and absolute shares sum to 1. ``"positive"``: of
                the sum of the sources that speak for the span; those that speak against
                it have 0, and shares sum to 1. ``"hop"``: the mean over the hops of the
                absolute share of the absolute relevance that came in a hop, which sums
                to 1: what a chain of steps led to counts alike in each hop, however
                little a hop carries. The template and what else is no source do not
                count. Default: ``"magnitude"``

        Raises:
            InputError: no source has such relevance for a span.
        """
        if of not in ("magnitude", "positive", "hop"):
            raise InputError(f"of={of!r}; expected 'magnitude', 'positive' or 'hop'.")
        found = self.source_attr
        if of == "hop":
            found = self._of_hops
        if of == "positive":
            found = found.clamp(min=0)
        total = found.abs().sum(1, keepdim=True)
        if not bool((total > 0).all()):
            span = self.spans[int((total[:, 0] <= 0).nonzero()[0])]
            raise InputError(
                f"no source has {'positive ' * (of == 'positive')}relevance for the "
                f"span {span.text[:40]!r}: there is nothing to take a share of."
            )
        return found / total

    @property
    def _of_hops(self) -> Tensor:
        """The sum over hops of absolute shares, ``(spans, sources)``."""
        each = self.hop_sources[..., : len(self.sources)].abs()
        total = each.sum(2, keepdim=True)  # 0 where nothing was sent on
        return torch.where(total > 0, each / total, 0).sum(0)

    def ranking(self, span: int = 0, of: Of | None = None) -> list[int]:
        """Return the numbers of the sources from 0, what speaks most for a span first.

        Args:
            span (int, optional): which span. Default: 0, the first
            of (str, optional): rank by these :meth:`shares`. Default: None, by the
                signed relevance
        """
        values = self.source_attr if of is None else self.shares(of)
        order = values[span].argsort(descending=True, stable=True)
        return [int(i) for i in order]

    # --------------------------------------------------------------------------- files

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`save` keeps, as Python objects.

        ``schema`` is ``"captum_transformer_lrp.sources/1"``, ``kind`` ``"sources"``.
        Tensors are lists in rows; those of hops have the rows of all spans for the
        first hop, then for the next.
        """
        tensors = {n: getattr(self, n).detach().cpu() for n in records.SOURCE_TENSORS}
        dtypes = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors.items()}
        return {
            "schema": JSON_SCHEMA,
            "version": __version__,
            "kind": "sources",
            "method": self.method,
            "explained": self.explained,
            "prompt": self.prompt,
            "answer": self.answer,
            "input_tokens": list(self.input_tokens),
            "output_tokens": list(self.output_tokens),
            "hops": self.hops,
            **{
                which: {
                    "start": [p.start for p in passages],
                    "end": [p.end for p in passages],
                    "text": [p.text for p in passages],
                    "name": [p.name for p in passages],
                }
                for which, passages in (
                    ("spans", self.spans),
                    ("sources", self.sources),
                )
            },
            "dtypes": dtypes,
            **{
                name: (t.flatten(0, 1) if t.dim() == 3 else t).double().tolist()
                for name, t in tensors.items()
            },
        }

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self.spans)} spans of "
            f"{len(self.output_tokens)} tokens x {len(self.sources)} sources of "
            f"{len(self.input_tokens)} tokens, {self.hops} hops)"
        )

    # ------------------------------------------------------------------ what is shown

    @property
    def alt(self) -> str:
        """The strongest sources of each span."""
        found = []
        for number, span in enumerate(self.spans[:3]):
            best = ", ".join(
                f"[{i + 1}] {self._label(i, 40)} "
                f"{self._scale.write(float(self.source_attr[number, i]))}"
                for i in self.ranking(number)[:3]
            )
            found.append(f"“{_cut(span.text, 60)}” rests on {best}.")
        return " ".join(found)

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: the answer, the sources of each span, and the hops."""
        count = len(self.sources)
        yield Heading(text="Which sources does the answer rest on?")
        sent = f", sent on {_times(self.hops)} through what was written"
        yield Paragraph(
            text=f"{count} source{'s' * (count != 1)} of {len(self.input_tokens)} "
            f"tokens read; {len(self.output_tokens)} tokens written. {self.method}, of "
            f"the {self.explained}{sent * bool(self.hops)}.",
            kind="answer",
        )
        apart = overlapping(self.spans) is None
        if apart:
            yield self._marked_answer()
            yield Legend(scale=self._scale)
        if len(self.spans) == 1:
            yield from self._page(0)
        else:
            yield self._pages()
        yield from self._numbers()
        said = (
            "Each number says how much a source that was read speaks for the span "
            "(orange, above zero) or against it (blue, below zero): the sum over its "
            "tokens. Shares are of the sum of absolute relevance of all sources, with "
            "their sign. "
        )
        if apart:
            said += (
                "Behind each span stand the sources that speak most for it, with at "
                f"least {_SMALLEST_SHARE:.0%}; its colour is that of the first."
            )
        yield Paragraph(text=said.strip(), kind="meaning")
        if self.hops:
            yield Paragraph(
                text="In a hop, what came to each token that was written goes back to "
                "what that token was made from, until it lies on the prompt.",
                kind="meaning",
            )

    def _marks(self, span: int) -> list[int]:
        """Return the sources that are named behind a span."""
        found = self.source_attr[span]
        total = float(found.abs().sum()) or 1.0
        return [
            i
            for i in self.ranking(span)[:_MOST_MARKS]
            if float(found[i]) >= _SMALLEST_SHARE * total
        ]

    def _marked_answer(self) -> Words:
        """Return the answer with the numbers of its sources behind each span."""
        found: list[Word] = []
        at = 0
        for number in sorted(range(len(self.spans)), key=lambda i: self.spans[i].start):
            span, marks = self.spans[number], self._marks(number)
            found += _words(self.answer, at, span.start, 0.0)
            found += _words(
                self.answer,
                span.start,
                span.end,
                float(self.source_attr[number, marks[0]]) if marks else 0.0,
            )
            if marks:
                found.append(_number(*marks))
            at = span.end
        found += _words(self.answer, at, len(self.answer), 0.0)
        return Words(words=tuple(found), scale=self._scale)

    def _pages(self) -> Pages:
        labels: list[Word] = []
        pages: list[tuple[Block, ...]] = []
        for number, span in enumerate(self.spans):
            heading = Heading(text=f"“{_cut(span.text, 80)}”", level=2)
            pages.append((heading, *self._page(number)))
            best = self.ranking(number)[0]
            labels.append(
                Word(
                    text=_cut(span.text, 60) or "·",
                    score=float(self.source_attr[number, best]),
                    space_before=bool(labels),
                )
            )
        return Pages(
            labels=tuple(labels),
            scale=self._scale,
            pages=tuple(pages),
            hint="Pick a span of the answer, by mouse or arrow key.",
            printed=3,
        )

    def _page(self, span: int) -> Iterator[Block]:
        """Yield the sources of one span, its prompt in their colours, and its hops."""
        yield self._sorted(span)
        length = len(self.prompt.split())
        if length * len(self.spans) <= _MOST_WORDS:
            yield Heading(text="The sources where they stand", level=2)
            yield Words(words=tuple(self._prompt(span)), scale=self._scale)
        if self.hops:
            yield from self._flow(span)

    def _sorted(self, span: int) -> Table:
        """Return the sources, what speaks most for a span first, then the rest."""
        values, scale = self.all_attr[span].tolist(), self._scale
        count = len(self.sources)
        total = sum(map(abs, values[:count])) or 1.0
        strongest = sorted(range(count), key=lambda i: -abs(values[i]))[:_MOST_ROWS]
        rows: list[tuple[str | Cell, ...]] = []
        for i in sorted(strongest, key=lambda i: -values[i]):
            found = Cell(text=scale.write(values[i]), share=scale.share(values[i]))
            share = f"{values[i] / total:.0%}".replace("-", "−")
            rows.append((f"[{i + 1}]", self._label(i, 100), found, share))
        for name, value in zip(self._rest_names, values[count:], strict=True):
            if value:
                rows.append(("", name, scale.write(value), ""))
        left = f" (the {_MOST_ROWS} strongest of {count})" * (count > _MOST_ROWS)
        return Table(
            title=f"Sources, what speaks most for it first{left}",
            heads=("", "Source", "Relevance", "Share"),
            rows=tuple(rows),
            texts=2,
        )

    @property
    def _rest_names(self) -> tuple[str, ...]:
        return (
            "tokens of the template",
            "other text of the prompt",
            "start of the decoder",
            "what was written before, where it stays",
        )

    def _prompt(self, span: int) -> Iterator[Word]:
        """Yield the words of the prompt, each in the colour of its source."""
        values = self.source_attr[span].tolist()
        at = 0
        for i in sorted(range(len(self.sources)), key=lambda i: self.sources[i].start):
            source = self.sources[i]
            yield from _words(self.prompt, at, source.start, 0.0, special=True)
            yield from _words(self.prompt, source.start, source.end, values[i])
            yield _number(i)
            at = source.end
        yield from _words(self.prompt, at, len(self.prompt), 0.0, special=True)

    def _flow(self, span: int) -> Iterator[Block]:
        """Yield what came to the answer's tokens, and to the sources, in each hop."""
        order = self._of_hops[span].argsort(descending=True, stable=True)
        best = sorted(order[:_MOST_ROWS].tolist())
        landed = self.hop_sources[:, span]
        going = self.hop_generated[:, span].sum(1, keepdim=True)
        rest = landed[:, len(self.sources) : -1].sum(1, keepdim=True)
        found = torch.cat([landed[:, best], rest, going], 1).detach().cpu().double()
        values = (found / found.abs().sum(1, keepdim=True).clamp(min=1e-300)).numpy()
        scale = ColorScale(limit=1.0, signed=True, unit="share of the hop")
        sent = torch.where(self.sent_on, self.hop_generated[:, span], 0).sum(1)
        write = self._scale.write
        yield Heading(text="The flow, hop by hop", level=2)
        yield Grid(
            panels=(Panel(values=values),),
            rows=Axis(
                name="hops",
                labels=tuple(
                    f"{write(float(self.scores[span]))} from the span"
                    if hop == 0
                    else f"{write(float(sent[hop - 1]))} in hop {hop}"
                    for hop in range(self.hops + 1)
                ),
            ),
            columns=Axis(
                name="where it came",
                labels=(*(f"[{i + 1}]" for i in best), "no source", "written"),
            ),
            scale=scale,
        )
        yield Paragraph(
            text="A row is named by what a hop carries, and has the shares of its "
            "absolute relevance: where it leads, however little it carries. What came "
            "to what was written is sent on by the next hop.",
            kind="meaning",
        )
        for hop in range(min(self.hops + 1, _MOST_HOPS)):
            arrived = self.hop_generated[hop, span].detach().cpu().double()
            if not bool(arrived.any()):
                continue
            words = self._written_words(arrived)
            own = ColorScale(
                limit=scale_limit([w.score for w in words]),
                signed=True,
                palette="words",
                unit=_UNIT,
            )
            where = "from the span" if hop == 0 else f"in hop {hop}"
            yield Heading(text=f"What came to what was written {where}", level=2)
            yield Words(words=words, scale=own)
            yield Legend(scale=own)

    def _written_words(self, scores: Tensor) -> tuple[Word, ...]:
        from ..models.pieces import pieces_of_tokens
        from ..models.words import scored_words

        return scored_words(pieces_of_tokens(self.output_tokens), scores.numpy())

    def _numbers(self) -> Iterator[Block]:
        """Yield all numbers, which a page folds away."""
        scale, values = self._scale, self.all_attr.tolist()
        labels = [self._label(i, 80) for i in range(len(self.sources))]
        names = [f"[{i + 1}] {label}" for i, label in enumerate(labels)]
        rows: list[tuple[str | Cell, ...]] = []
        for span, of_span in zip(self.spans, values, strict=True):
            for name, value in zip([*names, *self._rest_names], of_span, strict=True):
                rows.append((_cut(span.text, 40), name, scale.write(value)))
        yield Table(
            heads=("Span", "Source", "Relevance"),
            rows=tuple(rows),
            texts=2,
            folded=True,
        )

    @property
    def _scale(self) -> ColorScale:
        values = self.source_attr.detach().cpu().double().numpy()
        return ColorScale(
            limit=scale_limit(values), signed=True, palette="words", unit=_UNIT
        )

    def _label(self, source: int, most: int) -> str:
        passage = self.sources[source]
        name = f"{passage.name}: " if passage.name else ""
        return _cut(name + passage.text, most)


def _words(
    text: str,
    start: int,
    end: int,
    score: float,
    *,
    special: bool = False,
) -> list[Word]:
    """Return the words of a part of a text."""
    found = []
    at = start
    for written in text[start:end].split():
        place = text.index(written, at)
        found.append(
            Word(
                text=visible(written),
                score=score,
                special=special,
                space_before=place > 0 and text[place - 1].isspace(),
            )
        )
        at = place + len(written)
    return found


def _number(*sources: int) -> Word:
    """Return the numbers of sources as a word, which stands behind what is theirs."""
    text = " ".join(f"[{i + 1}]" for i in sources)
    return Word(text=text, score=0.0, special=True, space_before=False)


def _times(hops: int) -> str:
    return {1: "once", 2: "twice"}.get(hops, f"{hops} times")


def _cut(text: str, most: int) -> str:
    return visible(shortened(text, most))


__all__ = ["REST", "SourceRelevance"]
