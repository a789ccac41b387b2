"""Answers in a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import targets
from ..errors import InputError, TargetError
from ..explanation import Mark
from ..models.prediction import ClassScore
from .asking import Asked, Question, Task
from .reads import read_text, words_of
from .recording import ModelCall
from .scoring import value_of


@dataclass(frozen=True)
class _Answer:
    """A span of one window, with its probability."""

    call: int
    start: int
    end: int
    chance: float


class QuestionAnswering(Task):
    """An answer in a text: the logits of its first and last token are explained.

    The model reads question and context in one sequence, a long context in windows that
    overlap. An answer has at most ``max_answer_len`` tokens (15); its probability is
    that of its start times that of its end, among the tokens of the context.
    """

    name = "question-answering"
    about = "the start and end logit of an answer"
    takes = "question=... and context=..., two texts"
    loads = "AutoModelForQuestionAnswering"

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return questions and contexts, also of a mapping or a list of them."""
        found = dict(further)
        if isinstance(text, Mapping):
            found |= text
        elif isinstance(text, (list, tuple)) and all(
            isinstance(one, Mapping) for one in text
        ):
            found["question"] = [one.get("question") for one in text]
            found["context"] = [one.get("context") for one in text]
        elif text is not None:
            found.setdefault("question", text)
        return found

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return questions with their contexts, one by one."""
        asked, contexts = given.get("question"), given.get("context")
        if not isinstance(asked, (list, tuple)):
            return None
        if not isinstance(contexts, (list, tuple)):
            contexts = [contexts] * len(asked)
        if len(contexts) != len(asked):
            raise InputError(
                f"got {len(asked)} questions and {len(contexts)} contexts; expected "
                "one context, or one for each question"
            )
        return [
            {**given, "question": q, "context": c}
            for q, c in zip(asked, contexts, strict=True)
        ]

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the answers, best first."""
        question, context = _texts(given)
        tokenizer = pipe.tokenizer
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                "question-answering needs a fast tokenizer, which tells where a token "
                "stands in the text"
            )
        most = int(given.get("max_answer_len", 15))
        top = int(given.get("top_k", 1))
        limit = min(tokenizer.model_max_length, int(given.get("max_seq_len", 384)))
        positions = getattr(pipe.model.config, "max_position_embeddings", None)
        if positions is not None and int(positions) > 0:
            limit = min(limit, int(positions))
        asked = len(tokenizer(question, verbose=False)["input_ids"])
        if asked >= limit - 1:
            raise InputError(
                f"the question has {asked} tokens, of which the model reads {limit}"
            )
        first = getattr(tokenizer, "padding_side", "right") == "right"
        windows = tokenizer(
            question if first else context,
            context if first else question,
            truncation="only_second" if first else "only_first",
            max_length=limit,
            stride=min(int(given.get("doc_stride", 128)), (limit - asked) // 2),
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        found: list[_Answer] = []
        spans: list[Any] = []
        for number in range(len(windows["input_ids"])):
            names = [n for n in tokenizer.model_input_names if n in windows]
            batch = {
                n: torch.tensor([windows[n][number]], device=pipe.device) for n in names
            }
            with torch.no_grad():
                output = pipe.model(**batch)
            inside = np.array(
                [s == (1 if first else 0) for s in windows.sequence_ids(number)]
            )
            spans.append(windows["offset_mapping"][number])
            found += _spans_of(output, inside, number, most, top)
        found.sort(key=lambda one: -one.chance)
        answers: list[dict[str, Any]] = []
        for one in found:
            start, end = spans[one.call][one.start][0], spans[one.call][one.end][1]
            if any(a["start"] == start and a["end"] == end for a in answers):
                continue  # of another window
            answers.append(
                {
                    "score": one.chance,
                    "start": start,
                    "end": end,
                    "answer": context[start:end],
                    "_place": one,
                }
            )
        return answers[:top]

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why this answer, or why the text that was asked for."""
        pipe, given, calls = asked.pipe, asked.given, asked.calls
        question, context = _texts(given)
        first = getattr(pipe.tokenizer, "padding_side", "right") == "right"
        texts = (question, context) if first else (context, question)
        listed = [dict(one) for one in asked.answer]
        places = [one.pop("_place") for one in listed]
        best = places[0]
        which: targets.Which = "both"
        picked: list[tuple[_Answer, Any, targets.Which]] = []
        if isinstance(target, targets.Span):
            which = target.which
            one = _Answer(best.call, target.start, target.end, float("nan"))
            picked.append((one, None, which))
        elif target == "start" or target == "end":
            picked.append((best, listed[0], target))
        elif isinstance(target, str):
            picked.append((*self._of_text(pipe, texts, calls, target, first), which))
        elif target is None:
            picked += [
                (place, said, which) for place, said in zip(places, listed, strict=True)
            ]
        else:
            raise TargetError(
                "expected target= to be an answer, 'start', 'end' or "
                f"targets.Span(start, end), got {target!r}"
            )
        predicted = self._score(pipe, calls, best, "both", listed[0]["answer"])
        for place, said, which in picked:
            call = calls[place.call]
            text = said["answer"] if said else _read_span(pipe, call, place)
            function = targets.Span(place.start, place.end, which)
            mark = Mark(start=place.start, end=place.end + 1, name="answer")
            yield Question(
                inputs=call.row(0),
                target=function,
                answer=self._score(pipe, calls, place, which, text),
                prediction=predicted,
                reads=(read_text(pipe, call.inputs, *texts, marked=[mark]),),
                output=said,
                score={"both": "start and end logit"}.get(which, f"{which} logit"),
            )

    def _score(
        self,
        pipe: Any,
        calls: Sequence[ModelCall],
        place: _Answer,
        which: targets.Which,
        text: str,
    ) -> ClassScore:
        function = targets.Span(place.start, place.end, which)
        output = calls[place.call].output
        chance = None if np.isnan(place.chance) else place.chance
        return ClassScore(
            index=place.start,
            name=text,
            logit=float(value_of(function, pipe.model, output)),
            probability=chance if which == "both" else None,
        )

    def _of_text(
        self,
        pipe: Any,
        texts: tuple[str, str],
        calls: Sequence[ModelCall],
        wanted: str,
        first: bool,
    ) -> tuple[_Answer, Any]:
        """Return where a text stands in the context."""
        context = texts[1] if first else texts[0]
        at = context.find(wanted)
        if at < 0:
            raise TargetError(
                f"the context does not contain {wanted!r}, which target= asks for"
            )
        end = at + len(wanted)
        found = pipe.tokenizer(*texts, return_offsets_mapping=True, verbose=False)
        side = 1 if first else 0
        tokens = [
            i
            for i, (span, which) in enumerate(
                zip(found["offset_mapping"], found.sequence_ids(), strict=True)
            )
            if which == side and span[0] < end and span[1] > at
        ]
        ids = [found["input_ids"][i] for i in tokens]
        before = [
            found["input_ids"][i] for i in range(max(0, tokens[0] - 3), tokens[0])
        ]
        for number, call in enumerate(calls):
            listed = call.inputs["input_ids"][0].tolist()
            for start in range(len(listed) - len(ids) + 1):
                if listed[start : start + len(ids)] != ids:
                    continue
                if len(calls) == 1 and start != tokens[0]:
                    continue
                if len(calls) > 1 and listed[max(0, start - 3) : start] != before:
                    continue
                place = _Answer(number, start, start + len(ids) - 1, float("nan"))
                said = {"start": at, "end": end, "answer": wanted}
                return place, said
        raise TargetError(f"no window of the context holds {wanted!r} as a whole")


def _texts(given: Mapping[str, Any]) -> tuple[str, str]:
    """Return question and context."""
    values = []
    for name in ("question", "context"):
        value = given.get(name)
        if not isinstance(value, str) or not value.strip():
            raise InputError(
                f"expected {name}= to be a text with words in it, got {value!r}. Write "
                "explainer(question=..., context=...)."
            )
        values.append(value)
    return values[0], values[1]


def _spans_of(
    output: Any, inside: np.ndarray, number: int, most: int, top: int
) -> list[_Answer]:
    """Return the likeliest answers in one window."""
    chances = []
    for name in ("start_logits", "end_logits"):
        logits = output[name][0].detach().cpu().double().numpy()
        logits = np.where(inside, logits, -np.inf)
        if not inside.any():
            return []
        weights = np.exp(logits - logits[inside].max())
        chances.append(weights / weights.sum())
    table = np.triu(np.outer(chances[0], chances[1]))
    table = np.tril(table, most - 1)
    best = np.argsort(-table, axis=None, kind="stable")[: max(top, 1)]
    rows, columns = np.unravel_index(best, table.shape)
    return [
        _Answer(number, int(r), int(c), float(table[r, c]))
        for r, c in zip(rows, columns, strict=True)
    ]


def _read_span(pipe: Any, call: ModelCall, place: _Answer) -> str:
    return words_of(pipe, call.inputs, range(place.start, place.end + 1))


class DocumentQuestionAnswering(QuestionAnswering):
    """An answer in a document: the words with their boxes, read with a question.

    Called with ``image=``, ``question=`` and, where no text recognition is installed,
    ``word_boxes=``. Boxes are constants; words and question are explained. A model that
    writes its answer (Donut) is refused.
    """

    name = "document-question-answering"
    about = "the start and end logit of an answer in a document"
    takes = "image=..., question=... and word_boxes=[(word, box), ...]"
    loads = ""

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return picture, question and words."""
        found = dict(further)
        found |= text if isinstance(text, Mapping) else {}
        if isinstance(image, Mapping):
            found |= image
        elif image is not None:
            found["image"] = image
        return found

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return None: one call is one question."""
        return None

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the pipeline's answers, best first."""
        if not isinstance(given.get("question"), str):
            raise InputError(
                f"expected question= to be a text, got {given.get('question')!r}"
            )
        options = dict(given)
        return pipe(options.pop("image", None), **options)

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why these words, or why their start or end."""
        which: targets.Which = "both"
        if target == "start" or target == "end":
            which = target
        elif target is not None:
            raise TargetError(
                f"expected target= to be 'start' or 'end', got {target!r}"
            )
        pipe, calls = asked.pipe, asked.calls
        if calls[0].generated:
            raise InputError(
                f"{type(pipe.model).__name__} writes its answer; expected a model that "
                "points at its words in the document"
            )
        parts = ("image", "question", "word_boxes")
        given = {key: asked.given[key] for key in parts if key in asked.given}
        windows = list(pipe.preprocess(given, **pipe._preprocess_params))
        listed = asked.answer if isinstance(asked.answer, list) else [asked.answer]
        predicted = None
        for said in listed:
            place = self._place(said, windows, calls)
            call = calls[place.call]
            answer = self._score(pipe, calls, place, which, said["answer"])
            predicted = predicted or answer
            mark = Mark(start=place.start, end=place.end + 1, name="answer")
            yield Question(
                inputs=call.row(0),
                target=targets.Span(place.start, place.end, which),
                answer=answer,
                prediction=predicted,
                reads=(read_text(pipe, call.inputs, marked=[mark]),),
                output=said,
                score={"both": "start and end logit"}.get(which, f"{which} logit"),
            )

    def _place(
        self,
        said: Mapping[str, Any],
        windows: Sequence[Any],
        calls: Sequence[ModelCall],
    ) -> _Answer:
        """Return the tokens of an answer of which the pipeline tells the words."""
        found = []
        for number, (window, call) in enumerate(zip(windows, calls, strict=True)):
            words = window["word_ids"]
            inside = ~np.array(window["p_mask"], dtype=bool)
            inside &= np.array([word is not None for word in words])
            found += [
                one
                for one in _spans_of(call.output, inside, number, 15, inside.sum() ** 2)
                if (words[one.start], words[one.end]) == (said["start"], said["end"])
            ]
        if not found:
            raise InputError(f"the tokens of {said['answer']!r} cannot be found")
        return max(found, key=lambda one: one.chance)
