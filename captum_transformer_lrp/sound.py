"""An explanation of a sound: when, and at which pitch, it speaks for an answer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .explanation import Explanation
from .report.blocks import Bars, Block, ColorScale, Heat, Pictures, Table
from .report.colors import scale_limit

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SoundExplanation"]

_STRETCHES = 24  # that a sound is cut into, at most
_BANDS = 16  # of pitch that are shown, at most
_PICTURE = (480, 150)  # width and height in pixels
_QUIETEST = 80.0  # decibels below the loudest, where a picture is white


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class SoundExplanation(Explanation):
    """The relevance or weight of each sample of a sound, or of its spectrogram.

    Scores are shown by stretches of time, each with the sum of its scores. A model that
    reads a spectrogram has scores of time and pitch: its first axis is time, its second
    one pitch, the lowest band first.

    Args:
        scores (np.ndarray): ``(samples,)``, or of a spectrogram ``(frames, bands)``.
        sound (np.ndarray): What the model read, of the shape of the scores: the
            waveform, or its own spectrogram.
        sampling_rate (int): Samples in a second.
        hop (int, optional): Samples from one frame to the next; 1 for a waveform.
            Default: 1
        seconds (float, optional): How long the sound is; the model may have read more.
            Default: None, as long as the scores are
        behind (str, optional): What it read behind the sound. Default: ``"padding"``
        spoken (tuple of float, optional): From where to where the target is heard, in
            seconds. Default: None, the model does not say

    Raises:
        ValueError: The scores are neither of a waveform nor of a spectrogram, or those
            of another sound.
    """

    kind: ClassVar[str] = "sound"
    _palette = "picture"

    sound: np.ndarray
    sampling_rate: int
    hop: int = 1
    seconds: float | None = None
    behind: str = "padding"
    spoken: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check that the scores are those of the sound."""
        shape = self.scores.shape
        if shape != self.sound.shape or len(shape) not in (1, 2) or not all(shape):
            raise ValueError(
                f"scores of shape {shape} do not fit a sound of shape "
                f"{self.sound.shape}; expected (samples,) or (frames, bands)"
            )

    @property
    def is_spectrogram(self) -> bool:
        """Whether the model reads time and pitch, not the waveform."""
        return self.scores.ndim == 2

    @property
    def duration(self) -> float:
        """How long the sound is, in seconds, without what the model read behind it."""
        read = len(self.scores) * self.hop / self.sampling_rate
        return read if self.seconds is None else min(self.seconds, read)

    @property
    def stretch(self) -> float:
        """How long a stretch is, in seconds: 1, 2 or 5 times a power of ten."""
        least = max(self.duration / _STRETCHES, self.hop / self.sampling_rate)
        power = math.floor(math.log10(least))
        steps = (f * 10.0**p for p in (power, power + 1) for f in (1, 2, 5))
        return next(step for step in steps if step >= least * (1 - 1e-9))

    @property
    def stretches(self) -> tuple[tuple[float, float], ...]:
        """Where each stretch begins and ends, in seconds."""
        count = max(1, math.ceil(self.duration / self.stretch - 1e-9))
        ends = [round(i * self.stretch, 9) for i in range(count)] + [self.duration]
        return tuple(itertools.pairwise(ends))

    @property
    def stretch_scores(self) -> np.ndarray:
        """The sum of the scores of each stretch, ``(stretches,)``."""
        return np.asarray(self._by_stretch[:-1].sum(1))

    @property
    def rest(self) -> float:
        """The sum of the scores behind the sound."""
        return float(self._by_stretch[-1].sum())

    @property
    def _by_stretch(self) -> np.ndarray:
        """Scores summed over stretches, and of what lies behind, ``(n + 1, bands)``."""
        table = self.scores.reshape(len(self.scores), -1)
        count = len(self.stretches)
        step = self.hop / self.sampling_rate
        place = np.arange(len(table)) * step
        number = np.floor(place / self.stretch + 1e-9).astype(int)
        number = np.where(place >= self.duration - 1e-9, count, number)
        found = np.zeros((count + 1, table.shape[1]))
        np.add.at(found, np.minimum(number, count), table)
        return found

    @property
    def cells(self) -> np.ndarray:
        """Scores of the parts to show, ``(bands, stretches)``, high pitch above.

        One band for a waveform; neighbouring bands of a spectrogram are summed to at
        most 16.
        """
        table = self._by_stretch[:-1]
        bands = table.shape[1]
        starts = np.unique(np.arange(min(bands, _BANDS)) * bands // min(bands, _BANDS))
        return np.asarray(np.add.reduceat(table, starts, axis=1).T[::-1])

    @property
    def limit(self) -> float:
        """The score at the end of the colour scale of the stretches."""
        return scale_limit(self.stretch_scores)

    @property
    def unit(self) -> str:
        """What one number belongs to."""
        return "point of the spectrogram" if self.is_spectrogram else "sample"

    @property
    def part(self) -> str:
        """What :meth:`top_parts` lists."""
        return "stretch"

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Names and values of what a reader should know beside the scores."""
        found = [("Sound", f"{self.duration:.2f} s, {self.sampling_rate:,} Hz")]
        if self.spoken is not None:
            found.append(("Heard at", self._name(*self.spoken)))
        return *super().facts, *found

    def _name(self, start: float, end: float) -> str:
        """Return a stretch in words, such as ``"0.30–0.40 s"``."""
        digits = max(2, -math.floor(math.log10(self.stretch) + 1e-9))
        return f"{start:.{digits}f}–{end:.{digits}f} s"

    @property
    def named_stretches(self) -> list[tuple[str, float]]:
        """Name and score of each stretch in time, then of what lies behind, if any."""
        names = [self._name(*ends) for ends in self.stretches]
        found = list(zip(names, self.stretch_scores.tolist(), strict=True))
        read = len(self.scores) * self.hop / self.sampling_rate
        if read - self.duration >= self.hop / self.sampling_rate:
            found.append(
                (f"{self.behind}, {self._name(self.duration, read)}", self.rest)
            )
        return found

    def top_parts(self, count: int) -> list[tuple[str, float]]:
        """Return the stretches of time of largest magnitude, largest first."""
        return sorted(self.named_stretches, key=lambda row: -abs(row[1]))[:count]

    def map(self) -> Iterator[Block]:
        """Yield the spectrogram, scores over it, and those of each stretch in time."""
        image = self.picture()
        name = self.quantity.capitalize()
        ((strongest, _),) = self._strongest(1)
        told = f"{name} of each {self.stretch:g} s, strongest at {strongest}"
        if self.spoken is not None:
            told += f"; heard at {self._name(*self.spoken)}"
        span = f"{self.duration:.2f} s from left to right, low pitch below"
        found = [
            Heat(
                image=image,
                caption=f"The sound: {span}",
                alt=f"The spectrogram of the sound, dark where it is loud: {span}",
            ),
            Heat(
                image=image,
                scores=self.stretch_scores[None],
                scale=self.scale,
                caption=told,
                alt=f"The same in grey with the {self.quantity} of each stretch: "
                + self._told(),
            ),
        ]
        if self.is_spectrogram:
            found.append(
                Heat(
                    image=image,
                    scores=self.cells,
                    scale=self._scale(scale_limit(self.cells)),
                    caption=f"{name} by time and pitch, own scale",
                    alt=f"The same in grey with the {self.quantity} of time and pitch",
                )
            )
        yield Pictures(pictures=tuple(found), size="large")
        rows = self.named_stretches
        yield Bars(
            title=f"{name} over time",
            head="Time",
            rows=tuple(rows),
            scale=ColorScale(
                limit=scale_limit([score for _, score in rows]),
                signed=self.signed,
                unit=name,
            ),
            marks=self._marks(len(rows)),
            repeats=True,
        )

    def _marks(self, count: int) -> tuple[str, ...]:
        """Return what stands behind each stretch: whether the target is heard there."""
        if self.spoken is None:
            return ()
        start, end = self.spoken
        inside = [a < end - 1e-9 and b > start + 1e-9 for a, b in self.stretches]
        marks = ["heard here" if one else "" for one in inside]
        return tuple((marks + [""] * count)[:count])

    def _strongest(self, count: int) -> list[tuple[str, float]]:
        """Return the stretches of the sound itself of largest magnitude."""
        within = self.named_stretches[: len(self.stretches)]
        return sorted(within, key=lambda row: -abs(row[1]))[:count]

    def _told(self) -> str:
        write = self.scale.write
        return ", ".join(f"{name} {write(s)}" for name, s in self._strongest(3))

    def picture(self) -> Image:
        """Return the spectrogram in grey: time to the right, pitch upwards, loud dark.

        The model's own where it reads one, else of decibels, from windows of 25 ms. It
        is as wide as the stretches; white where the last one goes beyond the sound.
        """
        from PIL.Image import Resampling, fromarray, new

        step = self.hop / self.sampling_rate
        count = min(len(self.sound), max(1, math.ceil(self.duration / step - 1e-9)))
        heard = self.sound[:count]
        loud = heard if heard.ndim == 2 else _spectrogram(heard, self.sampling_rate)
        low, high = float(loud.min()), float(loud.max())
        share = (loud - low) / (high - low) if high > low else np.zeros_like(loud)
        grey = (255 * (1 - share.T[::-1] ** 2)).round().astype(np.uint8)
        width, height = _PICTURE
        whole = len(self.stretches) * self.stretch
        width = max(1, round(width * self.duration / whole))
        image = new("L", _PICTURE, 255)
        picture = fromarray(np.ascontiguousarray(grey))
        image.paste(picture.resize((width, height), Resampling.BILINEAR))
        return image

    def _numbers(self) -> Table:
        write = self.scale.write
        return Table(
            heads=("Time", self.quantity.capitalize()),
            rows=tuple((name, write(score)) for name, score in self.named_stretches),
            folded=True,
        )

    def _columns(self) -> dict[str, Any]:
        scores = [score for _, score in self.named_stretches]
        read = len(self.scores) * self.hop / self.sampling_rate
        ends = [*self.stretches, (self.duration, read)][: len(scores)]
        return {
            "start": [start for start, _ in ends],
            "end": [end for _, end in ends],
            "score": scores,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        start, end = self.spoken or (None, None)
        return super().to_dict() | {
            "sampling_rate": self.sampling_rate,
            "hop": self.hop,
            "seconds": self.seconds,
            "behind": self.behind,
            "spoken_from": start,
            "spoken_to": end,
            "spectrogram": self.is_spectrogram,
            "scores": np.atleast_2d(self.scores).tolist(),
            "sound": np.atleast_2d(self.sound).tolist(),
        }


def _spectrogram(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Return decibels of a sound, ``(frames, bands)``, the lowest pitch first."""
    window = max(16, min(round(0.025 * rate), len(waveform) // 4))
    step = max(1, len(waveform) // _PICTURE[0])
    padded = np.pad(np.asarray(waveform, dtype=float), (window // 2, window))
    starts = np.arange(0, len(waveform), step)
    frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    loudest = float(power.max())
    if not loudest > 0:
        return np.zeros_like(power)
    floor = loudest * 10 ** (-_QUIETEST / 10)
    return np.asarray(10 * np.log10(np.maximum(power, floor)))
