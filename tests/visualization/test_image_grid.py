"""Several images by several methods: one scale, every number, nothing distorted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.influence.ranking import (
    InfluentialExample,
    InfluentialExamples,
)
from captum_transformer_lrp.visualization import draw_image_grid

IMAGES = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
SCORES = {
    "small": [[[0.0, 1e-3], [0.0, 0.0]], [[0.0, 0.0], [-2e-3, 0.0]]],
    "large": torch.tensor([[[5.0, 0], [0, 0]], [[0, 0], [0, 20.0]]]),
}


def panels(figure):
    """The pixels of the pictures, row by row, without the colour bar."""
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:-1]]


def colour(pixels, row, column):
    """How orange a cell of a grid of 2 by 2 is."""
    half = pixels.shape[0] // 2
    cell = pixels[row * half : (row + 1) * half, column * half : (column + 1) * half]
    return float((cell[..., 0].astype(int) - cell[..., 2].astype(int)).mean())


def test_each_method_is_divided_by_its_largest_over_all_images():
    grid = draw_image_grid(IMAGES, SCORES, captions=["a", "b"])
    assert dict(grid.limits) == {"small": 2e-3, "large": 20.0}
    assert grid.scores["small"][0][0, 1] == 0.5
    assert grid.scores["small"][1][1, 0] == -1.0
    assert grid.scores["large"][0][0, 0] == 0.25
    assert grid.scale.signed and grid.scale.limit == 1.0


def test_colours_stand_where_the_scores_are():
    figure = draw_image_grid(IMAGES, SCORES).plot()
    first, second = panels(figure)[:3], panels(figure)[3:]
    assert len(first) == len(second) == 3
    small, large = first[1], first[2]
    assert colour(small, 0, 1) > 60 and abs(colour(small, 0, 0)) < 2
    assert 20 < colour(large, 0, 0) < colour(small, 0, 1)
    assert colour(second[1], 1, 0) < -100  # against, at the end of the scale
    assert colour(second[2], 1, 1) > 150


def test_numbers_are_in_the_methods_own_units():
    pytest.importorskip("jinja2")
    page = draw_image_grid(IMAGES, SCORES, captions=["a", "b"]).to_html()
    for place, score in (
        ("row 1, column 2", "+0.00100"),
        ("row 2, column 1", "−0.00200"),
        ("row 1, column 1", "+5.0"),
        ("row 2, column 2", "+20.0"),
    ):
        assert f"<bdi>{place}</bdi>" in page and f"<bdi>{score}</bdi>" in page
    assert page.count("<img") == 6
    assert "grid-template-columns:repeat(3,minmax(0,1fr))" in page


def test_captions_are_text(tmp_path):
    pytest.importorskip("jinja2")
    evil = "<script>alert(1)</script>"
    grid = draw_image_grid(IMAGES[:1], {evil: SCORES["large"][:1]}, captions=[evil])
    assert evil not in grid.to_html() and evil not in grid._repr_html_()
    assert grid.save(tmp_path / "grid.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES, {}), "got 2 images and 0 methods"),
        ((IMAGES[:0], SCORES), "got 0 images"),
        ((IMAGES[:1], SCORES), "2 scores of 'small' for 1 images"),
        ((IMAGES, {"a": [torch.zeros(2, 2), torch.zeros(4)]}), "scores have shape"),
    ],
)
def test_what_does_not_belong_together(arguments, message):
    wrong: Any = "heat"
    with pytest.raises(InputError, match=message):
        draw_image_grid(*arguments)
    with pytest.raises(InputError, match="3 captions for 2 images"):
        draw_image_grid(IMAGES, SCORES, captions=["a", "b", "c"])
    with pytest.raises(InputError, match="expected overlay or smooth"):
        draw_image_grid(IMAGES, SCORES, style=wrong)


def test_pictures_of_several_sizes_keep_their_shapes():
    wide, tall = Image.new("RGB", (80, 20), "teal"), Image.new("RGB", (20, 80), "teal")
    rows = tuple(
        InfluentialExample(index=i, example=one, label="x", score=1.0)
        for i, one in enumerate((wide, tall))
    )
    found = InfluentialExamples(title="t", question="q", measure="m", rows=rows)
    figure = found.plot()
    width, height = figure.get_size_inches()
    ratios = []
    for axes in figure.axes:
        box = axes.get_position()
        ratios.append(box.width * width / (box.height * height))
    assert ratios == pytest.approx([4.0, 0.25])
