"""The token behind a mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .. import targets
from ..errors import TargetError
from ..explanation import Mark
from ..models.prediction import token_score
from .asking import Asked, Question, Task
from .reads import read_text
from .scoring import logits_of


class FillMask(Task):
    """The token in the place of a mask: its logit there is explained."""

    name = "fill-mask"
    about = "the logit of a token at the mask"
    takes = "a text with a mask token in it"

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why this token at each mask, or why those that were asked for."""
        pipe, given, calls = asked.pipe, asked.given, asked.calls
        call = calls[0]
        ids = call.inputs["input_ids"][0]
        masks = (ids == pipe.tokenizer.mask_token_id).nonzero().flatten().tolist()
        answer = asked.answer
        of_masks = answer if isinstance(answer[0], list) else [answer]
        for place, listed in zip(masks, of_masks, strict=True):
            logits = logits_of(call.output)[place]
            best = int(logits.argmax())
            marks = [Mark(start=place, end=place + 1, name="mask")]
            read = read_text(pipe, call.inputs, given["text"], marked=marks)
            predicted = token_score(pipe.tokenizer, logits, best)
            for token in _tokens_wanted(pipe, target) or [int(listed[0]["token"])]:
                yield Question(
                    inputs=call.row(0),
                    target=targets.Token(token, place),
                    answer=token_score(pipe.tokenizer, logits, token),
                    prediction=predicted,
                    reads=(read,),
                    output=next((o for o in listed if o["token"] == token), None),
                )


def _tokens_wanted(pipe: Any, target: Any) -> list[int]:
    """Return the tokens that a target means."""
    several = target if isinstance(target, (list, tuple)) else [target]
    found = []
    for one in several:
        if one is None:
            continue
        if isinstance(one, targets.Token):
            one = one.token
        if isinstance(one, int) and not isinstance(one, bool):
            found.append(one)
            continue
        if not isinstance(one, str):
            raise TargetError(f"expected target= to be a token or its id, got {one!r}")
        known = pipe.tokenizer.get_vocab().get(one)
        ids = (
            [known]
            if known is not None
            else pipe.tokenizer.encode(one, add_special_tokens=False)
        )
        if len(ids) != 1:
            raise TargetError(
                f"expected target= to be one token, but {one!r} is {len(ids)}; pass "
                "one of them, or a token id"
            )
        found.append(int(ids[0]))
    return found
