"""The colour scale: zero is neutral, sides are alike, text stays readable."""

from __future__ import annotations

import numpy as np
import pytest

from captum_transformer_lrp.report import colors

SCALES = {"light": colors.LIGHT, "dark": colors.DARK}
scales = pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
SHARES = np.linspace(-1, 1, 801)


@scales
def test_zero_is_neutral_and_the_ends_are_the_ends(scale):
    assert scale.hex(0.0) == scale.hex(-0.0) == scale.neutral
    assert scale.hex(1) == scale.hex(7) == scale.positive
    assert scale.hex(-1) == scale.hex(-7) == scale.negative


@scales
def test_text_is_readable_on_every_colour(scale):
    worst = min(colors.contrast_ratio(scale.hex(s), scale.ink) for s in SHARES)
    assert worst >= 4.5


@scales
def test_equal_magnitudes_are_about_equally_strong(scale):
    """Neither side may look stronger: the same distance from neutral in OKLab."""

    def strength(share):
        color, neutral = scale.rgb(share), colors.from_hex(scale.neutral)
        return np.linalg.norm(colors._oklab(color) - colors._oklab(neutral))

    for share in (0.25, 0.5, 1.0):
        assert strength(share) == pytest.approx(strength(-share), rel=0.25)
        assert strength(share) == pytest.approx(share * strength(1), rel=0.05)


@scales
def test_more_relevance_never_looks_weaker(scale):
    neutral = colors._oklab(colors.from_hex(scale.neutral))
    lab = np.array([colors._oklab(scale.rgb(s)) for s in np.linspace(0, 1, 101)])
    assert (np.diff(np.linalg.norm(lab - neutral, axis=1)) > 0).all()


@scales
def test_the_sides_differ_for_the_colour_blind(scale):
    """They differ along OKLab's blue-yellow axis, which red-green loss keeps."""
    blue, orange = colors._oklab(scale.rgb(-1)), colors._oklab(scale.rgb(1))
    assert orange[2] - blue[2] > 0.15


def test_rgb_takes_arrays():
    rgb = colors.LIGHT.rgb(np.zeros((2, 3)))
    assert rgb.shape == (2, 3, 3)
    np.testing.assert_allclose(rgb, 1, atol=1e-6)


def test_contrast_of_black_and_white_is_21():
    assert colors.contrast_ratio("#000000", "#ffffff") == pytest.approx(21)
    assert colors.contrast_ratio("#777777", "#777777") == pytest.approx(1)
    assert colors.contrast_ratio("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_hexadecimal_round_trip():
    assert colors.to_hex(colors.from_hex("#1f5fa8")) == "#1f5fa8"
    with pytest.raises(ValueError, match="a colour such as '#1f5fa8', got '#fff'"):
        colors.from_hex("#fff")


def test_scale_limit():
    assert colors.scale_limit([0.5, -3, 1]) == 3
    assert colors.scale_limit([0.0, 0.0]) == 1
    assert colors.scale_limit([]) == 1
    with pytest.raises(ValueError, match="must be finite"):
        colors.scale_limit([1.0, float("nan")])
