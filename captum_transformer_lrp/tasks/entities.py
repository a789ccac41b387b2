"""Entities of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from .. import targets
from ..errors import InputError, TargetError
from ..explanation import Mark
from ..models.loading import config_names
from ..models.pieces import word_groups
from ..models.prediction import ClassScore
from .asking import Asked, Question, Task, chosen
from .reads import pieces_of, read_text, without_padding, words_of
from .recording import ModelCall
from .scoring import logits_of, of_function, value_of


class TokenClassification(Task):
    """The entities of a text: of each the mean logit of its tags is explained."""

    name = "token-classification"
    about = "the mean tag logit over the tokens of an entity"
    several = True

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return texts one by one; with ``is_split_into_words`` a list is one text."""
        text = given.get("text")
        cut = given.get("is_split_into_words", False)
        if cut and isinstance(text, list) and all(isinstance(t, str) for t in text):
            return None
        return super().one_by_one(given)

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the entities, also of a text that was cut into words before."""
        if not isinstance(given.get("text"), list):
            return super().run(pipe, given)
        options = {**given, "is_split_into_words": True}
        (found,) = pipe([options.pop("text")], **options)
        return found

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield one for each entity, or for those of the kind that is asked for."""
        pipe, given, calls = asked.pipe, asked.given, asked.calls
        names = config_names(pipe.model.config)
        if callable(target) and not isinstance(target, targets.Entity):
            reads = (read_text(pipe, calls[0].inputs, given["text"]),)
            inputs = calls[0].row(0)
            yield of_function(asked, calls[0], inputs, target, reads)
            return
        kind, only = target, None
        if isinstance(target, targets.Entity):
            kind, only = target.label, target.tokens
            if isinstance(kind, int):
                kind = names[kind]
        kinds = {n[2:] if n[:2] in ("B-", "I-") else n for n in names}
        if kind is not None and not isinstance(kind, str):
            raise TargetError(
                f"expected target= to be a kind of entity, got {kind!r}. "
                f"Kinds: {', '.join(sorted(kinds))}"
            )
        if only is not None:
            yield self._question(pipe, given, calls[0], list(only), kind, None)
            return
        found = [
            one
            for one in asked.answer
            if kind is None
            or kind in (one.get("entity_group"), one.get("entity"))
            or str(one.get("entity", ""))[2:] == kind
        ]
        if kind is not None and kind not in {*names, *kinds}:
            chosen(kind, sorted({*names, *kinds}), "kind of entity")
        for one in found:
            how = asked.option("aggregation_strategy", "none")
            how = str(getattr(how, "value", how))
            call, tokens = self._tokens(pipe, given, calls, one, how)
            scored = _scored(pipe, given, call, tokens, how)
            yield self._question(pipe, given, call, tokens, None, one, scored)

    def _tokens(
        self,
        pipe: Any,
        given: Mapping[str, Any],
        calls: Sequence[ModelCall],
        one: Any,
        how: str,
    ) -> tuple[ModelCall, list[int]]:
        """Return the tokens of an entity, and the call that they are in."""
        if "index" in one:  # of a text in one piece: windows are aggregated
            return calls[0], [int(one["index"])]
        found: list[tuple[float, int, ModelCall, list[int]]] = []
        for call, spans in zip(calls, self._spans(pipe, given, calls), strict=True):
            tokens = [
                i
                for i, span in enumerate(spans)
                if span is not None
                and one.get("start") is not None
                and _meet(span, (one["start"], one["end"]))
            ]
            if tokens:
                missed = abs(_score_of(pipe, given, call, tokens, how) - one["score"])
                found.append((missed, len(found), call, tokens))
        if found:  # of windows that overlap, the one that the score is from
            _, _, call, tokens = min(found)
            return call, tokens
        call = calls[0]
        ids, at = without_padding(call.inputs)
        return call, self._by_words(pipe, ids, at, one)

    def _spans(
        self, pipe: Any, given: Mapping[str, Any], calls: Sequence[ModelCall]
    ) -> list[list[tuple[int, int] | None]]:
        """Return where each token of each call stands in the text.

        None for tokens that were added; empty where the tokenizer does not tell.
        """
        text = given["text"]
        if not (getattr(pipe.tokenizer, "is_fast", False) and isinstance(text, str)):
            return [[] for _ in calls]
        options = {k: v for k, v in given.items() if k != "text"}
        made = pipe._preprocess_params | pipe._sanitize_parameters(**options)[0]
        found: list[list[tuple[int, int] | None]] = []
        for window in pipe.preprocess(text, **made):
            places = torch.as_tensor(window["offset_mapping"]).reshape(-1, 2).tolist()
            added = window["special_tokens_mask"][0].tolist()
            found.append(
                [
                    None if special else (int(start), int(end))
                    for (start, end), special in zip(places, added, strict=True)
                ]
            )
        return found

    def _by_words(
        self, pipe: Any, ids: Sequence[int], at: Sequence[int], one: Any
    ) -> list[int]:
        """Return the first run of tokens that reads as the entity does."""
        for start in range(len(ids)):
            for end in range(start + 1, len(ids) + 1):
                tokens = pipe.tokenizer.convert_ids_to_tokens(list(ids[start:end]))
                if pipe.tokenizer.convert_tokens_to_string(tokens) == one["word"]:
                    return [at[i] for i in range(start, end)]
        raise InputError(
            f"the tokens of the entity {one['word']!r} cannot be found: use a fast "
            "tokenizer"
        )

    def _question(
        self,
        pipe: Any,
        given: Mapping[str, Any],
        call: ModelCall,
        tokens: list[int],
        kind: str | None,
        one: Any,
        scored: Sequence[int] = (),
    ) -> Question:
        names = config_names(pipe.model.config)
        logits = logits_of(call.output)
        if kind is None:
            kind = one.get("entity_group") or one["entity"]
        scored = tuple(scored or tokens)
        target = targets.Entity(kind, scored).for_model(pipe.model)
        label: Any = target.label
        score = float(value_of(target, pipe.model, call.output))
        best = int(logits[list(scored)].mean(0).argmax())
        text = given["text"]
        words = words_of(pipe, call.inputs, tokens)
        if one and "index" not in one:
            words = one["word"].strip() or words
        runs = _runs(tokens)
        marks = [Mark(start=a, end=b, name=str(kind)) for a, b in runs]
        chance = float(one["score"]) if one else None
        said = ClassScore(
            index=int(label[0]),
            name=f"{kind}: {words}",
            logit=score,
            probability=chance,
        )
        tags = {int(i) for i in label}
        return Question(
            inputs=call.row(0),
            target=target,
            answer=said,
            prediction=said
            if best in tags
            else ClassScore(
                index=best,
                name=f"{names[best]}: {words}",
                logit=float(logits[list(scored), best].mean()),
            ),
            reads=(read_text(pipe, call.inputs, text, marked=marks),),
            output=one,
            score="mean logit" if len(scored) > 1 else "logit",
        )


def _scored(
    pipe: Any,
    given: Mapping[str, Any],
    call: ModelCall,
    tokens: Sequence[int],
    how: str,
) -> list[int]:
    """Return the tokens of an entity whose tags the pipeline looks at.

    ``first`` takes the first token of each word and ``max`` the surest one; the other
    ways take all.
    """
    if how not in ("first", "max"):
        return list(tokens)
    ids, at = without_padding(call.inputs)
    groups = word_groups(pieces_of(pipe.tokenizer, ids, given["text"]))
    chances = logits_of(call.output).softmax(-1).amax(-1)
    found = []
    for group in groups:
        inside = [at[i] for i in group if at[i] in tokens]
        if inside:
            surest = max(inside, key=lambda i: float(chances[i]))
            found.append(inside[0] if how == "first" else surest)
    return found


def _score_of(
    pipe: Any,
    given: Mapping[str, Any],
    call: ModelCall,
    tokens: Sequence[int],
    how: str,
) -> float:
    """Return the probability that a pipeline gives an entity in one window."""
    chances = logits_of(call.output).softmax(-1)
    if how == "average":
        ids, at = without_padding(call.inputs)
        groups = word_groups(pieces_of(pipe.tokenizer, ids, given["text"]))
        words = [[at[i] for i in group if at[i] in tokens] for group in groups]
        return float(
            torch.stack([chances[w].mean(0).amax() for w in words if w]).mean()
        )
    scored = _scored(pipe, given, call, tokens, how)
    return float(chances[scored].amax(-1).mean())


def _meet(span: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two stretches of a text overlap, or are the same (both may be empty)."""
    return span == other or (span[0] < other[1] and span[1] > other[0])


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return runs of numbers in a row, as start and end behind."""
    runs: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number:
            runs[-1] = (runs[-1][0], number + 1)
        else:
            runs.append((number, number + 1))
    return runs
