"""Heat maps: neutral where there is nothing, orange for, blue against."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from captum_transformer_lrp.report.blocks import Outline
from captum_transformer_lrp.report.image import (
    data_uri,
    enlarge,
    heat,
    loops_around,
    outlined,
    overlay,
    png_bytes,
)


def test_zero_leaves_the_grey_picture():
    image = Image.new("RGB", (8, 8), "red")
    pixels = np.asarray(overlay(image, np.zeros((8, 8))))
    assert (pixels == pixels[..., :1]).all()


def test_signs_have_their_colours():
    image = Image.new("RGB", (4, 4), "white")
    scores = np.array([[1.0, -1.0], [0.0, 0.5]])
    pixels = np.asarray(overlay(image, scores)).astype(int)
    orange, blue = pixels[0, 0], pixels[0, 3]
    assert orange[0] > orange[2] + 100
    assert blue[2] > blue[0] + 100
    faint = pixels[3, 3]
    assert 0 < faint[0] - faint[2] < orange[0] - orange[2]
    assert (pixels[3, 0] == pixels[2, 1]).all()


def test_opposite_scores_cover_alike():
    under = np.array([0.5, 0.5, 0.5])
    strong = heat(np.array([1.0, -1.0, 0.0, 3.0]), under)
    np.testing.assert_allclose(strong[2], under)
    np.testing.assert_allclose(strong[3], strong[0])
    assert not np.allclose(strong[0], strong[1])


@pytest.mark.parametrize("size", [(32, 32), (100, 20), (20, 100), (500, 300), (1, 1)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sizes_and_modes(size, mode):
    image = Image.new(mode, size, 128)
    large = enlarge(image)
    assert max(large.size) >= 384
    assert large.width * size[1] == large.height * size[0]
    drawn = overlay(large, np.ones((size[1], size[0])))
    assert drawn.size == large.size and drawn.mode == "RGB"


def test_scores_finer_than_the_picture():
    assert overlay(Image.new("RGB", (2, 2)), np.ones((6, 4))).size == (4, 6)


def test_png_and_data_uri():
    image = Image.new("RGB", (3, 2), "teal")
    again = Image.open(io.BytesIO(png_bytes(image)))
    assert again.size == (3, 2) and again.getpixel((0, 0)) == (0, 128, 128)
    assert data_uri(image).startswith("data:image/png;base64,iVBOR")


def test_smooth_overlays_are_exact_at_the_middles_and_monotone_between():
    """Odd enlargement, so that each cell has a pixel in its middle."""
    scores = np.array([[0.0, 1.0], [0.5, -1.0]])
    image = Image.new("RGB", (30, 18), "grey")
    flat = np.asarray(overlay(image, scores)).astype(int)
    smooth = np.asarray(overlay(image, scores, smooth=True)).astype(int)
    for row, column in ((4, 7), (4, 22), (13, 7), (13, 22)):
        assert np.abs(smooth[row, column] - flat[row, column]).max() <= 1
    orange = smooth[4, 7:23, 0] - smooth[4, 7:23, 2]
    assert (np.diff(orange) >= 0).all() and orange[-1] > orange[0] + 100
    assert len({tuple(pixel) for pixel in smooth[4, 7:23]}) > 10
    one = np.asarray(overlay(image, np.array([[1.0]]), smooth=True))
    assert (one == np.asarray(overlay(image, np.array([[1.0]])))).all()


def test_lines_around_a_region():
    inside = np.zeros((4, 5), dtype=bool)
    inside[1:3, 1:4] = True
    assert loops_around(inside) == [[(1, 1), (4, 1), (4, 3), (1, 3)]]
    inside[1, 2] = False  # a notch
    (loop,) = loops_around(inside)
    assert len(loop) == 8
    inside[0] = inside[3] = True
    inside[:, 0] = inside[:, 4] = True
    loops = loops_around(inside)  # around the whole, and around the hole
    assert sorted(map(len, loops)) == [4, 4]
    assert loops_around(np.zeros((2, 2), dtype=bool)) == []
    (loop,) = loops_around(np.ones((2, 3), dtype=bool))
    assert loop == [(0, 0), (3, 0), (3, 2), (0, 2)]


@pytest.mark.parametrize("seed", range(5))
def test_lines_enclose_the_region_that_they_are_around(seed):
    inside = np.random.default_rng(seed).random((7, 9)) < 0.5
    loops = loops_around(inside)
    area = sum(
        (x0 * y1 - x1 * y0) / 2
        for loop in loops
        for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True)
    )
    assert area == inside.sum()
    outline = Outline.of_region("cat", inside)
    assert outline.loops == [[(float(x), float(y)) for x, y in loop] for loop in loops]


def test_outline_is_drawn_and_the_picture_left_as_it_is():
    image = Image.new("RGB", (320, 320), "red")
    drawn = outlined(image, (32, 32), Outline.of_box("cat", 8, 8, 24, 24).loops)
    assert image.getcolors() == [(320 * 320, (255, 0, 0))]
    colors = {color for _, color in drawn.getcolors()}
    assert colors == {(255, 0, 0), (255, 255, 255), (27, 27, 27)}
    assert drawn.getpixel((79, 160)) == drawn.getpixel((160, 239)) == (27, 27, 27)
    assert drawn.getpixel((160, 160)) == drawn.getpixel((60, 160)) == (255, 0, 0)
    assert outlined(image, (32, 32), []) is image


def test_path_of_another_form():
    with pytest.raises(ValueError, match="expected M0 0L8 0Z, got '5 5'"):
        Outline(name="", path="5 5")
