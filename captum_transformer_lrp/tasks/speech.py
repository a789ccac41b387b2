"""What is said in a sound, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .. import targets
from .._forms import SOUND_KEYS
from ..errors import InputError, TargetError
from ..models.pieces import word_groups, word_text
from ..models.prediction import ClassScore
from .asking import Asked, Question, chosen
from .generation import Teacher
from .reads import ReadText, pieces_of
from .recording import ModelCall
from .scoring import of_function, spelled, value_of
from .sounds import OfSounds, read_sound

_TIME = re.compile(r"<\|\d+\.\d+\|>")  # a token of Whisper that is no word


@dataclass(frozen=True)
class _Word:
    """A word of the answer, or a character.

    Args:
        text (str): what is written.
        tokens (tuple of int): its tokens, of CTC one for each frame.
        positions (tuple of int): where the model's output predicts each.
        end (int): how many earlier tokens the last one is predicted from.
        spoken (tuple of float, optional): where it is heard, in seconds.
    """

    text: str
    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    end: int = 0
    spoken: tuple[float, float] | None = None

    @property
    def target(self) -> targets.Tokens:
        """What is explained of the model's output."""
        return targets.Tokens(self.tokens, self.positions)


class SpeechRecognition(OfSounds):
    """The words of a text that is heard in a sound: of each its logits are explained.

    A model with CTC says a token for each frame of time. A word is what is left where
    repeated tokens and blanks are dropped, and its score is the sum of its tokens'
    logits over its frames; with ``return_timestamps="char"`` characters are explained
    instead of words.

    A model that writes token by token (Whisper) reads the sound and the tokens before.
    The score of a word is the sum of its tokens' logits, each behind those before it,
    and sound and earlier tokens are explained on one scale.
    """

    name = "automatic-speech-recognition"
    about = "the summed logits of each word of what is said"
    several = True

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield one for each word, or for those that are asked for."""
        kind = getattr(asked.pipe, "type", "ctc")
        if len(asked.calls) > 1:
            raise InputError(
                f"the pipeline reads the sound in {len(asked.calls)} pieces: explain "
                "each by itself, without chunk_length_s="
            )
        sound = asked.given["sound"]
        if isinstance(sound, Mapping) and "stride" in sound:
            raise InputError("a sound with a stride is not explained: cut the sound")
        (call,) = asked.calls
        question: _Frames | _Written
        if kind == "ctc":
            question = _Frames(asked, call)
        elif kind in ("seq2seq", "seq2seq_whisper"):
            question = _Written(asked, call)
        else:
            model = type(asked.pipe.model).__name__
            why = "its beam search with a language model" if "lm" in kind else kind
            raise InputError(
                f"the words of {model} are not explained: the pipeline decodes by "
                f"{why}; expected CTC, or a model that writes token by token"
            )
        several = target if isinstance(target, (list, tuple)) else [target]
        for one in several:
            if callable(one):
                yield question.of_function(one)
                continue
            names = [word.text for word in question.words]
            if one is not None and not names:
                raise TargetError(f"the answer has no words, got target={one!r}")
            numbers = chosen(one, names, "word")
            for number in range(len(names)) if numbers is None else numbers:
                yield question.of_word(number)


class _Frames:
    """What a model with CTC heard.

    Args:
        asked (Asked): what was asked.
        call (ModelCall): how the model was called.
    """

    def __init__(self, asked: Asked, call: ModelCall) -> None:
        self.asked, self.call = asked, call
        tokenizer = asked.pipe.tokenizer
        unit = asked.option("return_timestamps", "word")
        logits = call.output["logits"][0]
        ids = logits.argmax(-1).tolist()
        try:
            found = tokenizer.decode(
                ids, output_char_offsets=True, output_word_offsets=True
            )
            listed = found[f"{unit}_offsets"]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise InputError(
                f"{type(tokenizer).__name__} does not tell from which frames of the "
                "sound a word comes: expected one as Wav2Vec2CTCTokenizer"
            ) from error
        blank = tokenizer.pad_token_id
        pace = asked.pipe._align_to / asked.pipe.feature_extractor.sampling_rate
        self.words = []
        for one in listed:
            start, end = int(one["start_offset"]), int(one["end_offset"])
            frames = tuple(i for i in range(start, end) if ids[i] != blank)
            self.words.append(
                _Word(
                    text=one[unit].replace(" ", "␣"),
                    tokens=tuple(ids[i] for i in frames),
                    positions=frames,
                    spoken=(start * pace, end * pace),
                )
            )

    def of_word(self, number: int) -> Question:
        """Return why this word is heard."""
        word = self.words[number]
        score = float(value_of(word.target, self.asked.pipe.model, self.call.output))
        said = ClassScore(index=number, name=word.text, logit=score)
        inputs = self._inputs
        return Question(
            inputs=inputs,
            target=word.target,
            answer=said,
            reads=(read_sound(self.asked.pipe, inputs, spoken=word.spoken),),
            output=self.asked.answer,
            score="summed logit",
        )

    def of_function(self, target: Any) -> Question:
        """Return what speaks for a function of the model's output."""
        inputs = self._inputs
        reads = (read_sound(self.asked.pipe, inputs),)
        return of_function(self.asked, self.call, inputs, target, reads)

    @property
    def _inputs(self) -> dict[str, Any]:
        return {k: v for k, v in self.call.row(0).items() if v is not None}


class _Written:
    """What a model wrote token by token.

    Args:
        asked (Asked): what was asked.
        call (ModelCall): how ``generate`` was called.
    """

    def __init__(self, asked: Asked, call: ModelCall) -> None:
        self.asked, self.call = asked, call
        model = asked.pipe.model
        key = next((k for k in SOUND_KEYS if k in call.inputs), None)
        if key is None or not call.begun:
            raise InputError(
                f"{type(model).__name__} is not explained: expected a model that reads "
                f"{' or '.join(SOUND_KEYS)} and decoder_input_ids"
            )
        frames = getattr(asked.pipe.feature_extractor, "nb_max_frames", None)
        whisper = asked.pipe.type == "seq2seq_whisper"
        if whisper and frames and call.inputs[key].shape[-1] > frames:
            seconds = asked.pipe.feature_extractor.chunk_length
            raise InputError(
                f"the model reads {seconds} s at a time, and the sound is longer: "
                "explain pieces of it"
            )
        output = call.output
        wrote = output["sequences"] if isinstance(output, Mapping) else output
        began, ids = self._began(call), wrote[0].tolist()
        self.ids = ids if ids[: len(began)] == began else began + ids
        self.key = key
        self.pieces = pieces_of(asked.pipe.tokenizer, self.ids)
        self.inputs = {key: call.inputs[key][:1]}
        mask = call.inputs.get("attention_mask")
        if mask is not None:
            self.inputs["attention_mask"] = mask[:1]
        self.function = Teacher(model)
        with torch.no_grad():
            ids = self._tokens(len(self.ids))
            self.output = self.function(written_ids=ids, **self.inputs)
        self.words = [
            _Word(
                text=word_text([self.pieces[i] for i in group]),
                tokens=tuple(self.ids[i] for i in group),
                positions=tuple(i - 1 for i in group),
                end=group[-1],
            )
            for group in word_groups(self.pieces)
            if group[0] >= len(began)
            and not self.pieces[group[0]].special
            and not _TIME.fullmatch(self.pieces[group[0]].token)
        ]

    @staticmethod
    def _began(call: ModelCall) -> list[int]:
        """Return what decoding began with; a first call may find out the language."""
        first, *more = call.begun
        if first.shape[1] == 1 and more and more[0].shape[1] > 2:
            first = more[0]
        found: list[int] = first[0].tolist()
        return found

    def _tokens(self, end: int) -> Tensor:
        return torch.tensor([self.ids[:end]], device=self.call.inputs[self.key].device)

    def of_word(self, number: int) -> Question:
        """Return why this word is written."""
        word = self.words[number]
        model = self.asked.pipe.model
        logs = self.output["logits"][0].detach().double().log_softmax(-1)
        chance = sum(
            float(logs[i, token])
            for i, token in zip(word.positions, word.tokens, strict=True)
        )
        said = ClassScore(
            index=number,
            name=word.text,
            logit=float(value_of(word.target, model, self.output)),
            probability=float(torch.tensor(chance).exp()),
        )
        several = len(word.tokens) > 1
        score = "summed logit" if several else "logit"
        return self._question(word.target, said, word.end, score)

    def of_function(self, target: Any) -> Question:
        """Return what speaks for a function of the model's output."""
        score = float(value_of(target, self.asked.pipe.model, self.output))
        said = ClassScore(index=0, name=spelled(target), logit=score)
        return self._question(target, said, len(self.ids), "score")

    def _question(
        self, target: Any, said: ClassScore, end: int, score: str
    ) -> Question:
        earlier = ReadText(
            text=self.asked.pipe.tokenizer.decode(self.ids[:end]),
            pieces=self.pieces[:end],
            name="earlier tokens",
            key="written_ids",
        )
        return Question(
            inputs={**self.inputs, "written_ids": self._tokens(end)},
            target=target,
            answer=said,
            reads=(read_sound(self.asked.pipe, self.inputs), earlier),
            output=self.asked.answer,
            score=score,
            function=self.function,
        )
