"""Tasks that write text after text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import targets
from .._forms import KNOWN_KEYS
from ..attribution import methods
from ..composites import composite_named
from ..core.composites import Composite
from ..errors import InputError
from ..explanation import TextExplanation
from ..language import LLMRelevance, LLMTransformerLRP
from ..language.sequences import GENERATION, is_encoder_decoder
from ..models.prediction import token_score
from ..models.special_tokens import placeholder_ids
from .asking import Asked, Question, Task, chosen, on_device
from .reads import ReadText, read_text
from .recording import ModelCall

#: options of the class, not of its ``attribute``
_MADE_WITH = ("attr_target", "chunk_size", "positional", "rules", "unknown")


class TextGeneration(Task):
    """What a model writes after a prompt or a chat: every token it wrote is explained.

    The result is :class:`~captum_transformer_lrp.LLMRelevance`, one row for each token
    written over the tokens read, from one forward pass. It needs a method of rules
    (``attnlrp``, ``cp-lrp`` and others with a table); other methods explain one token,
    ``target=0`` for the first.
    """

    name = "text-generation"
    about = "the logit of each token that was written"
    takes = "a prompt, or a chat: a list of messages with a role and content"

    def results(self, asked: Asked, target: Any, by: Any) -> list[Any]:
        """Return a matrix for each text that was written, or single tokens."""
        if _of_one_token(target):
            return super().results(asked, target, by)
        composite = composite_of(by.method)
        if composite is None:
            raise InputError(
                f"the method {by.method!r} has no table of rules, by which all tokens "
                "are explained at once: pass method='attnlrp', or explain one token of "
                "what was written, target=0"
            )
        made = {k: v for k, v in by.options.items() if k in _MADE_WITH}
        options = {k: v for k, v in by.options.items() if k not in made}
        pipe = asked.pipe
        llm = LLMTransformerLRP(pipe.model, pipe.tokenizer, composite, **made)
        call = written_by(asked)
        listed = asked.answer if isinstance(asked.answer, list) else [asked.answer]
        found = []
        for number, tokens in enumerate(tokens_written(pipe, call)):
            wanted = tokens if target is None else target
            prompt = prompt_of(pipe, call)
            result: LLMRelevance = llm.attribute(prompt, wanted, **options)
            result.output = listed[number] if number < len(listed) else None
            found.append(result)
            if target is not None:  # the same for all
                break
        return found

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why these tokens of what was written."""
        pipe, call = asked.pipe, written_by(asked)
        tokens = tokens_written(pipe, call)[0]
        names = [pipe.tokenizer.decode([int(t)]) for t in tokens]
        listed = asked.answer if isinstance(asked.answer, list) else [asked.answer]
        for number in chosen(target, names, "written token") or []:
            prompt = prompt_of(pipe, call)
            yield question_of_token(pipe, prompt, tokens, number, (), listed[0])


class TextToText(TextGeneration):
    """What an encoder-decoder writes about a text.

    Called with a text; ``src_lang=`` and ``tgt_lang=`` where the tokenizer knows
    languages, and the arguments of ``generate``.
    """

    name = "text2text-generation"
    about = "the logit of each token that was written, over those that were read"
    takes = "a text"
    loads = "AutoModelForSeq2SeqLM"
    key: ClassVar[str] = "generated_text"

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return what the model writes."""
        options = dict(given)
        text = options.pop("text", None)
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"expected a text with words in it, got {text!r}")
        languages = {
            k: options.pop(k) for k in ("src_lang", "tgt_lang") if k in options
        }
        config = pipe.model.config
        specific = (getattr(config, "task_specific_params", None) or {}).get(pipe.task)
        text = f"{(specific or {}).get('prefix') or ''}{text}"
        build = getattr(pipe.tokenizer, "_build_translation_inputs", None)
        if languages and build is not None:
            batch = build(text, return_tensors="pt", truncation=True, **languages)
        elif languages:
            raise InputError(
                f"{next(iter(languages))}= belongs to a tokenizer that knows languages"
            )
        else:
            batch = pipe.tokenizer(text, return_tensors="pt", truncation=True)
        inputs = on_device(pipe, batch)
        inputs.pop("token_type_ids", None)
        if "forced_bos_token_id" in batch:  # of the language that is written
            inputs["forced_bos_token_id"] = batch["forced_bos_token_id"]
        with torch.no_grad():
            written = pipe.model.generate(**inputs, **with_limit(pipe, options))
        texts = pipe.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [{self.key: one} for one in texts]


class Translation(TextToText):
    """A translation, token by token."""

    name = "translation"
    key = "translation_text"


class Summarization(TextToText):
    """A summary, token by token."""

    name = "summarization"
    key = "summary_text"


def composite_of(method: Any) -> Composite | None:
    """Return the table of rules of a method; None for one that has none."""
    if isinstance(method, str):
        row = methods[method]
        # what asks several times, or for attention, is more than its table
        about = row.description
        plain = about.takes == "mapping" and about.measure == "relevance"
        if not plain or "tokenizer" in about.needs:
            return None
        return row.composite
    found = getattr(method, "composite", None)
    return composite_named(found) if isinstance(found, (str, Composite)) else None


def _of_one_token(target: Any) -> bool:
    several = target if isinstance(target, (list, tuple)) else [target]
    return all(isinstance(one, int) and not isinstance(one, bool) for one in several)


def written_by(asked: Asked) -> ModelCall:
    """Return the call that wrote.

    Raises:
        InputError: there is none, or it had no prompt.
    """
    for call in asked.calls:
        if call.generated:
            return call
    raise InputError("the pipeline did not let its model write: generate() ran nowhere")


def with_limit(pipe: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of ``generate``: at most 25 tokens, where nothing is said."""
    said = pipe.model.generation_config
    known = said.max_new_tokens is not None or said.max_length not in (None, 20)
    if known or not {"max_new_tokens", "max_length"}.isdisjoint(options):
        return dict(options)
    return {"max_new_tokens": GENERATION["max_new_tokens"], **options}


def tokens_written(pipe: Any, call: ModelCall) -> list[Tensor]:
    """Return what was written after the prompt, ``(tokens,)`` each, up to its end."""
    sequences = getattr(call.output, "sequences", call.output)
    before = 1  # a first token of the model's own
    if not is_encoder_decoder(pipe.model):
        ids = call.inputs.get("input_ids")
        if ids is not None:
            before = ids.shape[1]
            if not torch.equal(sequences[:1, :before].to(ids), ids[:1]):
                raise InputError(
                    f"{type(pipe.model).__name__} did not write after what it read: it "
                    "has a decoder of its own, whose scores its forward does not return"
                )
    elif call.inputs.get("decoder_input_ids") is not None:
        before = call.inputs["decoder_input_ids"].shape[1]
    ends = getattr(pipe.model.generation_config, "eos_token_id", None)
    ends = [] if ends is None else torch.as_tensor(ends).reshape(-1).tolist()
    found = []
    for row in sequences:
        tokens = row[before:]
        stop = next((i for i, t in enumerate(tokens.tolist()) if t in ends), None)
        if stop is not None:
            tokens = tokens[: stop + 1]
        if not len(tokens):
            raise InputError("the model wrote nothing: there is no token to explain")
        found.append(tokens)
    return found


def prompt_of(pipe: Any, call: ModelCall) -> dict[str, Tensor]:
    """Return what the model read before it wrote, without options of ``generate``."""
    found = {k: v for k, v in call.inputs.items() if isinstance(v, Tensor)}
    if not is_encoder_decoder(pipe.model) and "input_ids" not in found:
        sequences = getattr(call.output, "sequences", call.output)
        found["input_ids"] = sequences[:1, :1]
    if not any(key in found for key in KNOWN_KEYS):
        raise InputError("the model read nothing: there is nothing to explain")
    return found


def question_of_token(
    pipe: Any,
    prompt: Mapping[str, Tensor],
    tokens: Tensor,
    number: int,
    reads: tuple[Any, ...],
    output: Any,
) -> Question:
    """Return why a token was written.

    The model reads the prompt and what was written before this token, as when it wrote
    it.

    Args:
        pipe (Any): the pipeline.
        prompt (Mapping): what was read, a batch of one.
        tokens (Tensor): what was written, ``(tokens,)``.
        number (int): which of the tokens.
        reads (tuple of Read): further inputs, such as a picture.
        output (Any): what the pipeline answered.
    """
    token = int(tokens[number])
    place = -1  # from the end: prompts may be longer for the model
    inputs, key, before = continued(pipe, prompt, tokens[: number + 1], number)
    target = targets.Token(token, place)
    with torch.no_grad():
        logits = pipe.model(**inputs).logits[0, place].detach().cpu().double()
    said = token_score(pipe.tokenizer, logits, token)
    function, texts = None, list[ReadText]()
    read: int | None = before
    if key == "decoder_input_ids":
        function = Teacher(pipe.model)
        inputs["written_ids"] = written = inputs.pop(key)
        earlier = _ReadPrompt.of(pipe, {"input_ids": written[:, :before]})
        texts.append(replace(earlier, name="written before", key="written_ids"))
        read = None  # the encoder reads all at once
    if "input_ids" in inputs:
        names = ("input_ids", "attention_mask")
        cut = {k: inputs[k][:, :read] for k in names if k in inputs}
        texts.insert(0, _ReadPrompt.of(pipe, cut))
    return Question(
        inputs=inputs,
        function=function,
        target=target,
        answer=said,
        prediction=token_score(pipe.tokenizer, logits, int(logits.argmax())),
        reads=(*reads, *texts),
        output=output,
    )


def continued(
    pipe: Any, prompt: Mapping[str, Tensor], tokens: Tensor, number: int
) -> tuple[dict[str, Any], str, int]:
    """Return inputs with what was written, where it stands, and how much is before."""
    inputs: dict[str, Any] = dict(prompt)
    if is_encoder_decoder(pipe.model):
        begin = inputs.get("decoder_input_ids")
        if begin is None:
            start = pipe.model.generation_config.decoder_start_token_id
            if start is None:
                start = pipe.model.config.decoder_start_token_id
            begin = tokens.new_full((1, 1), int(start))
        inputs["decoder_input_ids"] = torch.cat([begin, tokens[None, :-1]], dim=1)
        return inputs, "decoder_input_ids", begin.shape[1] + number
    ids = inputs["input_ids"]
    more = len(tokens) - 1
    inputs["input_ids"] = torch.cat([ids, tokens[None, :-1].to(ids)], dim=1)
    for key, value in prompt.items():
        if key == "input_ids" or value.shape != ids.shape:
            continue
        if key == "position_ids":
            tail = value[:, -1:] + 1 + torch.arange(more, device=value.device)
        elif key == "mm_token_type_ids":
            tail = value.new_zeros(1, more)
        else:
            tail = value[:, -1:].expand(1, more)
        inputs[key] = torch.cat([value, tail], dim=1)
    return inputs, "input_ids", ids.shape[1] + number


class Teacher(nn.Module):
    """An encoder-decoder that is told what it wrote before, as tokens like any other.

    So what its encoder reads, a text, a sound or a picture, is explained with what its
    decoder reads.

    Args:
        model (Module): the model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.training = False
        self.model = model

    def forward(self, *, written_ids: Tensor, **inputs: Any) -> Any:
        """Return what the model says behind each of the tokens.

        Args:
            written_ids (Tensor): what was written before, ``(1, tokens)``.
            **inputs (Any): what the encoder reads.
        """
        return self.model(**inputs, decoder_input_ids=written_ids, use_cache=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class _ReadPrompt(ReadText):
    """A prompt, without the places that a picture takes in it.

    Args:
        places (frozenset of int): Numbers of the pieces that stand for pictures, which
            are left out where they have no relevance of their own.
    """

    places: frozenset[int]

    @classmethod
    def of(cls, pipe: Any, inputs: Mapping[str, Any]) -> _ReadPrompt:
        """Return the tokens of a batch of one."""
        read = read_text(pipe, inputs)
        tokens = placeholder_ids(pipe.model)
        ids = inputs["input_ids"][0].tolist()
        at = list(read.at or range(len(read.pieces)))
        places = frozenset(i for i, place in enumerate(at) if ids[place] in tokens)
        return cls(text=read.text, pieces=read.pieces, at=at, places=places)

    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> TextExplanation:
        """Return the text with the scores of its tokens."""
        found = super().explanation(scores, said)
        kept = [
            i
            for i, score in enumerate(found.scores)
            if i not in self.places or score != 0
        ]
        pieces = tuple(found.pieces[i] for i in kept)
        return replace(found, pieces=pieces, scores=found.scores[kept])


__all__ = [
    "Summarization",
    "Teacher",
    "TextGeneration",
    "TextToText",
    "Translation",
    "composite_of",
    "continued",
    "prompt_of",
    "question_of_token",
    "tokens_written",
    "with_limit",
    "written_by",
]
