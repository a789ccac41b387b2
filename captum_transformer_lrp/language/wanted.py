"""What is asked of one prompt, spans and sources, and what of the answer is its."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError, TargetError
from .chats import Chat
from .passages import Passage, overlapping, read_passages
from .prompts import Prompts, column_names
from .sequences import Sequences
from .sources import SourceRelevance
from .written import Written, write_down


class Flow(NamedTuple):
    """What came where, hop by hop.

    Attributes:
        inputs (tuple of Tensor): for each explained input ``(hops + 1, sums, examples,
            tokens)``.
        generated (Tensor): of that what came to generated tokens, ``(hops + 1, sums,
            examples, generated)``.
        sent_on (Tensor): which of them hand it on, ``(examples, generated)``.
    """

    inputs: tuple[Tensor, ...]
    generated: Tensor
    sent_on: Tensor


class Wanted(NamedTuple):
    """What was asked of one prompt.

    Attributes:
        prompt (Written): what is read.
        answer (Written): what follows.
        spans (list of Passage): of the answer.
        inside (Tensor): the tokens of each span, ``(spans, generated)``.
        sources (list of Passage): of the prompt.
        places (list of int): of each token of the prompt, see ``source_of``.
        names (tuple): the tokens of the prompt and of the answer.
        masks (Tensor): 0 for padding inside the prompt.
    """

    prompt: Written
    answer: Written
    spans: list[Passage]
    inside: Tensor
    sources: list[Passage]
    places: list[int]
    names: tuple[list[str], list[str]]
    masks: Tensor

    @classmethod
    def read(
        cls,
        prompts: Prompts,
        example: int,
        target: Tensor,
        tokenizer: Any,
        given: Any,
        span: Any,
        sources: Any,
    ) -> Wanted:
        """Read the spans and the sources of a prompt.

        Raises:
            TargetError: if a span is not there.
            InputError: if a source is not there, has no token, or shares text with
                another one.
        """
        origin = prompts.origins[example]
        if tokenizer is None:
            prompt = _numbered(prompts.ids[example], sources)
            answer = _numbered(target, span)
        else:
            prompt = prompts.written(example, tokenizer)
            said = (
                given if prompts.single else None if given is None else given[example]
            )
            if isinstance(origin, Chat) and given is None:
                said = origin.answer
            answer = write_down(
                target, tokenizer, said if isinstance(said, str) else None
            )
        if sources is None:
            chat = "turns" if isinstance(origin, Chat) else "sentences"
            sources = "tokens" if tokenizer is None else chat
        parts = read_passages(
            sources, prompt.text, prompt.own, prompt.ranges, "sources"
        )
        if (both := overlapping(parts)) is not None:
            raise InputError(
                f"the sources {both[0].text[:40]!r} and {both[1].text[:40]!r} share "
                "characters; expected sources apart from each other, which add up."
            )
        places = _places(prompt, parts, prompts.columns[example])
        for number, part in enumerate(parts):
            if number not in places:
                raise InputError(
                    f"source {number + 1}, {part.text[:40]!r}, has no token of its "
                    "own: another source has most of the characters of each. Expected "
                    "larger sources, or sources='tokens'."
                )
        spans = read_passages(
            "whole" if span is None else span,
            answer.text,
            [Passage(start=0, end=len(answer.text), text=answer.text.strip())],
            answer.ranges,
            "span",
        )
        inside = torch.stack([answer.tokens_of(one) for one in spans])
        if span is None:  # with tokens that have no text, such as the end
            inside[:] = True
        for one, row in zip(spans, inside, strict=True):
            if not bool(row.any()):
                raise TargetError(
                    f"the span {one.text!r} has no token; expected a part of the "
                    "answer with something in it."
                )
        ids = prompts.ids[example]
        names = column_names(ids, tokenizer), column_names(target, tokenizer)
        masks = prompts.masks[example]
        return cls(prompt, answer, spans, inside, parts, places, names, masks)

    def result(
        self,
        example: int,
        flow: Flow,
        start: int,
        *,
        scores: Tensor | None,
        log_probs: Tensor,
        explained: str,
        method: str,
    ) -> SourceRelevance:
        """Return what of the flow belongs to this prompt."""
        rows, count = self.inside.shape
        of_prompt = flow.inputs[0][:, :rows, example, : len(self.places)]
        of_prompt = torch.where(self.masks == 0, 0, of_prompt)
        begun = flow.inputs[-1][
            :, :rows, example, : start if len(flow.inputs) > 1 else 0
        ]
        device = of_prompt.device
        inside = self.inside.to(device)
        if scores is None:  # the probability of a span is a product
            known = log_probs[:count].expand(rows, -1)
            scores = torch.where(inside, known, 0).sum(1).exp()
        return SourceRelevance(
            prompt=self.prompt.text,
            answer=self.answer.text,
            input_tokens=self.names[0],
            output_tokens=self.names[1],
            spans=self.spans,
            span_tokens=inside,
            sources=self.sources,
            source_of=torch.tensor(self.places, device=device),
            hop_attr=of_prompt,
            hop_generated=flow.generated[:, :rows, example, :count],
            hop_start=begun.sum(-1),
            sent_on=flow.sent_on[example, :count],
            scores=scores[:rows],
            log_probs=log_probs[:count],
            explained=explained,
            method=method,
        )


def for_each(given: Any, count: int, single: bool, name: str) -> list[Any]:
    """Return a span or sources for each prompt."""
    if single or not isinstance(given, (list, tuple)):
        return [given] * count
    if len(given) != count:
        raise InputError(
            f"{name} has {len(given)} entries; expected one for all of the {count} "
            "prompts, that is no list, or a list with one for each."
        )
    return list(given)


def _numbered(ids: Tensor, given: Any) -> Written:
    """Return tokens without a tokenizer, as a text of their numbers."""
    named = isinstance(given, str) and given not in ("tokens", "whole")
    if named or callable(given):
        write_down(ids, None)  # raises
    names = [str(int(i)) for i in ids]
    ranges, at = [], 0
    for name in names:
        ranges.append((at, at + len(name)))
        at += len(name) + 1
    text = " ".join(names)
    own = [Passage(start=0, end=len(text), text=text)]
    return Written(text=text, ranges=ranges, own=own)


def _places(prompt: Written, sources: list[Passage], shown: Tensor) -> list[int]:
    """Return the number of each token's source; -1 for the template, -2 for others."""
    by_user = prompt.places(prompt.own)
    found = []
    for place, own, wanted in zip(
        prompt.places(sources), by_user, shown.tolist(), strict=True
    ):
        rest = -1 if own < 0 else -2
        found.append(place if wanted and place >= 0 else rest)
    return found


def came_to_generated(relevance: Tensor, sequences: Sequences) -> Tensor:
    """Return what came to generated tokens, ``(sums, examples, generated)``.

    The last one of an example is predicted and not read: nothing comes to it.
    """
    starts = torch.tensor(sequences.starts, device=relevance.device)[:, None]
    steps = torch.arange(sequences.targets.shape[1], device=relevance.device)
    last = sequences.valid.to(relevance.device).sum(1, keepdim=True) - 1
    there = steps < last
    at = torch.where(there, starts + steps, 0)
    found = relevance.gather(2, at.expand(len(relevance), -1, -1))
    return torch.where(there, found, 0)
