"""An explanation of a sound by itself."""

import numpy as np
import pytest

from captum_transformer_lrp import SoundExplanation
from captum_transformer_lrp.models.prediction import ClassScore

DOG = ClassScore(index=0, name="dog", logit=1.0, probability=0.7)


def sound_explanation(scores, **changes):
    given = {
        "model": "tiny",
        "method": "AttnLRP",
        "prediction": DOG,
        "target": DOG,
        "sampling_rate": 1000,
        "sound": np.zeros_like(scores),
    }
    return SoundExplanation(scores=scores, **{**given, **changes})


def test_stretches_cover_the_sound_and_keep_the_sum():
    rng = np.random.default_rng(0)
    for samples in (1, 7, 100, 990, 1000, 1234, 30_000):
        scores = rng.normal(size=samples)
        found = sound_explanation(scores)
        ends = [end for _, end in found.stretches]
        assert found.stretches[0][0] == 0
        assert ends[-1] == pytest.approx(samples / 1000)
        assert len(ends) <= 24
        assert found.stretch_scores.sum() == pytest.approx(scores.sum())
        for (start, end), score in zip(
            found.stretches, found.stretch_scores, strict=True
        ):
            inside = scores[round(start * 1000) : round(end * 1000)]
            assert score == pytest.approx(inside.sum())


@pytest.mark.parametrize(
    ("seconds", "stretch"),
    [(0.1, 0.005), (1.0, 0.05), (1.2, 0.05), (2.4, 0.1), (2.5, 0.2), (30.0, 2.0)],
)
def test_stretches_have_round_lengths(seconds, stretch):
    found = sound_explanation(np.zeros(round(seconds * 1000)))
    assert found.stretch == pytest.approx(stretch)


def test_the_strongest_stretches_are_named_by_their_time():
    scores = np.zeros(2400)
    scores[310], scores[1250] = 2.0, -3.0
    found = sound_explanation(scores)
    assert found.top_parts(2) == [("1.20–1.30 s", -3.0), ("0.30–0.40 s", 2.0)]
    assert found.limit == 3.0
    assert found.parts == "stretches"
    table = found.to_pandas()
    assert table["score"].sum() == pytest.approx(-1.0)
    assert table["start"].tolist()[3] == pytest.approx(0.3)


def test_pitch_is_summed_to_bands_high_above():
    scores = np.zeros((50, 40))  # frames of 10 ms
    scores[10, 0], scores[10, 39] = 1.0, 2.0
    found = sound_explanation(scores, hop=10)
    assert found.is_spectrogram
    assert found.cells.shape[0] == 16
    assert found.cells[0].sum() == 2.0
    assert found.cells[-1].sum() == 1.0
    assert found.top_parts(1) == [("0.10–0.15 s", 3.0)]


def test_the_picture_has_time_to_the_right_and_pitch_upwards():
    time = np.arange(1000) / 1000
    wave = np.where(time < 0.5, np.sin(2 * np.pi * 50 * time), 0.0)
    dark = np.argwhere(np.asarray(sound_explanation(wave, sound=wave).picture()) < 60)
    assert dark[:, 0].min() > 100  # of 150 rows, 500 Hz at the top
    assert dark[:, 1].max() < 260  # of 480 columns


def test_a_silent_sound_has_a_picture():
    assert np.asarray(sound_explanation(np.zeros(10)).picture()).min() == 255


def test_scores_of_another_sound_are_refused():
    with pytest.raises(ValueError, match=r"scores of shape \(3,\) do not fit"):
        sound_explanation(np.zeros(3), sound=np.zeros(4))
    with pytest.raises(ValueError, match=r"expected \(samples,\) or \(frames, bands\)"):
        sound_explanation(np.zeros((1, 2, 3)))
