"""Sounds: their classes, and labels that were never trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from .._forms import SOUND_KEYS
from ..errors import InputError, OutputError
from ..models.prediction import ClassScore
from ..sound import SoundExplanation
from .asking import Asked, Question, Read, Task, chosen
from .classes import Classification
from .reads import read_text


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadSound(Read):
    """A sound as the model reads it: a waveform or a spectrogram.

    Args:
        sound (np.ndarray): ``(samples,)`` or ``(frames, bands)``.
        sampling_rate (int): Samples in a second.
        hop (int): Samples from one frame to the next; 1 for a waveform.
        seconds (float): How long the sound is.
        behind (str): What the model reads behind it.
        bands_first (bool, optional): Whether the argument has pitch before time.
            Default: False
        spoken (tuple of float, optional): From where to where the target is heard, in
            seconds. Default: None
        notes (tuple of str, optional): What a reader should know. Default: ()
    """

    key: str
    name: str = "sound"
    sound: np.ndarray = field(repr=False)
    sampling_rate: int
    hop: int
    seconds: float
    behind: str
    bands_first: bool = False
    spoken: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()

    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> SoundExplanation:
        """Return the sound with its scores."""
        given = dict(said)
        given["notes"] = (*said.get("notes", ()), *self.notes)
        values = scores.reshape(-1, *scores.shape[-min(2, self.sound.ndim) :]).sum(0)
        if self.bands_first:
            values = values.T
        if values.numel() != self.sound.size:
            raise OutputError(
                f"got scores of shape {tuple(scores.shape)} for a sound; expected one "
                f"for each of {' x '.join(map(str, self.sound.shape))} "
                f"{'samples' if self.sound.ndim == 1 else 'points of its spectrogram'}"
            )
        return SoundExplanation(
            scores=values.reshape(self.sound.shape).numpy(),
            sound=self.sound,
            sampling_rate=self.sampling_rate,
            hop=self.hop,
            seconds=self.seconds,
            behind=self.behind,
            spoken=self.spoken,
            **given,
        )


class _Heard:
    """A stand-in for a feature extractor, which notes the sounds that it is given."""

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor
        self.sounds: list[np.ndarray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_extractor"], name)

    def __call__(self, sound: Any, *args: Any, **kwargs: Any) -> Any:
        """Note a sound, and return what the feature extractor makes of it."""
        one = sound[0] if isinstance(sound, list) else sound
        self.sounds.append(np.asarray(one))
        return self._extractor(sound, *args, **kwargs)


class OfSounds(Task):
    """A task whose input is a sound."""

    takes = "a sound: an array of samples, or a file"
    of_files = True

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the sound as ``sound``, with the options."""
        if image is not None:
            raise InputError(f"the task {self.name!r} takes {self.takes}, got image=")
        if text is None:
            return super().inputs(None, None, further)
        return {"sound": text, **further}

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return the sounds of a list."""
        sounds = given.get("sound")
        if not isinstance(sounds, (list, tuple)):
            return None
        if sounds and isinstance(sounds[0], (int, float)):
            raise InputError(
                "got a list of numbers, and a list is one of sounds: pass an array, "
                "numpy.asarray(samples)"
            )
        return [{**given, "sound": one} for one in sounds]

    def ask(self, pipe: Any, given: Mapping[str, Any]) -> Asked:
        """Run a pipeline on one sound, and note the sound as it was decoded."""
        sound = _checked(given.get("sound"), self)
        if getattr(pipe, "feature_extractor", None) is None:
            raise InputError(
                f"the task {self.name!r} needs a feature extractor: pass "
                "feature_extractor="
            )
        hearing = copy.copy(pipe)
        hearing.feature_extractor = _Heard(pipe.feature_extractor)
        return super().ask(hearing, {**given, "sound": sound})

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return what the pipeline answers."""
        options = dict(given)
        sound = options.pop("sound")
        return pipe(copy.copy(sound), **options)


def _checked(sound: Any, task: Task) -> Any:
    """Return one sound as a pipeline takes it.

    Raises:
        InputError: It is none.
    """
    wrong = f"the task {task.name!r} takes {task.takes}, got "
    if isinstance(sound, Mapping):
        samples = sound.get("raw", sound.get("array"))
        rate = sound.get("sampling_rate")
        if samples is None or rate is None:
            names = ", ".join(map(str, sound)) or "nothing"
            raise InputError(
                f"{wrong}a mapping with {names}; expected 'array' and 'sampling_rate'"
            )
        if isinstance(rate, bool) or not isinstance(rate, (int, np.integer)):
            raise InputError(f"expected a sampling_rate in whole hertz, got {rate!r}")
        if rate < 1:
            raise InputError(f"expected a sampling_rate in whole hertz, got {rate}")
        _check_samples(samples, wrong)
        return dict(sound)
    if isinstance(sound, Path):
        sound = str(sound)
    if isinstance(sound, str):
        there = sound.startswith(("http://", "https://")) or Path(sound).is_file()
        if not there:
            raise InputError(f"{wrong}{sound!r}, and there is no such file")
        return sound
    if isinstance(sound, bytes):
        return sound
    _check_samples(sound, wrong)
    return sound


def _check_samples(samples: Any, wrong: str) -> None:
    if not isinstance(samples, (np.ndarray, Tensor)):
        raise InputError(f"{wrong}{type(samples).__name__}")
    given = samples.detach().cpu() if isinstance(samples, Tensor) else samples
    values = np.asarray(given)
    if values.ndim != 1:
        raise InputError(
            f"expected a sound of one channel, (samples,), got shape {values.shape}: "
            "take one channel, or the mean of all"
        )
    if not values.size:
        raise InputError("the sound is empty")
    if values.dtype.kind != "f":
        raise InputError(
            f"expected samples from -1 to 1 as floats, got {values.dtype}: divide by "
            "the largest value of the type, as in samples / 32768 for int16"
        )
    if not np.isfinite(values).all():
        raise InputError("the sound has samples that are NaN or infinite")


def read_sound(
    pipe: Any,
    inputs: Mapping[str, Any],
    *,
    spoken: tuple[float, float] | None = None,
) -> ReadSound:
    """Return the sound of a batch of one as a person hears it.

    Args:
        pipe (Any): the pipeline that heard the sound (:meth:`OfSounds.ask`).
        inputs (Mapping): what the model was called with.
        spoken (tuple of float, optional): where the target is heard, in seconds.
            Default: None

    Raises:
        InputError: it is neither a waveform nor a spectrogram.
    """
    extractor = pipe.feature_extractor
    key = next((k for k in SOUND_KEYS if k in inputs), None)
    if key is None:
        raise InputError(
            f"the model reads {', '.join(inputs)}; expected one of "
            f"{', '.join(SOUND_KEYS)}"
        )
    values = inputs[key].detach().cpu().double()
    rate = int(extractor.sampling_rate)
    bands_first, hop = False, 1
    if values.dim() == 2:
        sound = values[0].numpy()
    else:
        bands = int(getattr(extractor, "num_mel_bins", None) or extractor.feature_size)
        high, wide = values.shape[-2:]
        named = type(extractor._extractor).__name__.startswith("Whisper")
        bands_first = high == bands and (named or wide % bands != 0)
        table = values.reshape(-1, high, wide)[0].numpy()
        if bands_first:
            sound = table.T
        elif wide % bands == 0:  # several frames side by side in one
            sound = table.reshape(-1, bands)
        else:
            raise InputError(
                f"the model reads {key} of shape {tuple(values.shape)}; expected a "
                f"waveform, or a spectrogram of {bands} bands"
            )
        hop = int(getattr(extractor, "hop_length", None) or rate // 100)
    seconds = len(extractor.sounds[0]) / rate
    read = len(sound) * hop / rate
    notes: tuple[str, ...] = ()
    if seconds - read > 0.05:
        notes = (f"The model reads the first {read:.2f} s of {seconds:.2f} s.",)
    repeats = str(getattr(extractor, "padding", "")).startswith("repeat")
    return ReadSound(
        key=key,
        sound=np.ascontiguousarray(sound),
        sampling_rate=rate,
        hop=hop,
        seconds=seconds,
        behind="repeats of the sound" if repeats else "padding",
        bands_first=bands_first,
        spoken=spoken,
        notes=notes,
    )


class AudioClassification(OfSounds, Classification):
    """The class of a sound."""

    alone = "softmax"
    name = "audio-classification"
    about = "the logit of a class of a sound"

    def read(
        self, pipe: Any, given: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[ReadSound, ...]:
        """Return the sound."""
        return (read_sound(pipe, inputs),)


class ZeroShotAudioClassification(OfSounds):
    """A label that was never trained, for a sound: how near the two are is explained.

    The model compares the sound with a sentence about each label. Sound and sentence
    are explained on one scale.
    """

    name = "zero-shot-audio-classification"
    about = "the logit of a label's sentence for a sound"
    takes = "a sound, and candidate_labels=[...], a list of texts"

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why the best label, or why those that were asked for."""
        labels = list(asked.option("candidate_labels") or ())
        template = asked.option("hypothesis_template", "This is a sound of {}.")
        chances = {one["label"]: one for one in asked.answer}
        (call,) = asked.calls
        _check_whole(asked)
        logits = call.output["logits_per_audio"][0].double()
        said = [
            ClassScore(
                index=number,
                name=label,
                logit=float(logits[number]),
                probability=float(chances[label]["score"]),
            )
            for number, label in enumerate(labels)
        ]
        best = int(logits.argmax())
        for number in chosen(target, labels, "label") or [best]:
            rows = {
                key: value[number : number + 1]
                if key in ("input_ids", "attention_mask")
                else value
                for key, value in call.inputs.items()
            }
            text = template.format(labels[number])
            yield Question(
                inputs=rows,
                target=_nearness,
                answer=said[number],
                prediction=said[best],
                reads=(
                    read_sound(asked.pipe, rows),
                    read_text(asked.pipe, rows, text, name="label"),
                ),
                output=chances[labels[number]],
            )


def _nearness(output: Any) -> Tensor:
    """Return the logit of the only text for the only sound."""
    found: Tensor = output["logits_per_audio"][:, 0]
    return found


def _check_whole(asked: Asked) -> None:
    extractor = asked.pipe.feature_extractor
    most = getattr(extractor, "nb_max_samples", None)
    given = len(extractor.sounds[0])
    if most is not None and given > most:
        rate = extractor.sampling_rate
        raise InputError(
            f"the model reads {most / rate:g} s of a sound, from places that are drawn "
            f"at random, and this one has {given / rate:g} s: cut it"
        )
