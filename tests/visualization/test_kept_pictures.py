"""Pictures of what masks keep of a picture."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.visualization.states import draw_kept_image
from captum_transformer_lrp.visualization.states.pictures import faded

STATES = ["patch_embed (output)", "blocks.0 (input)", "blocks.0 (output)"]


def picture() -> Image.Image:
    pixels = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3) // 2
    return Image.fromarray(pixels)


def test_what_is_kept_shows_and_what_is_dropped_is_white() -> None:
    kept = np.array([[1.0, 0.0], [0.5, 1.0]])
    shown = faded(picture(), kept)
    height, width = shown.shape[:2]
    whole = faded(picture(), np.ones((1, 1)))
    assert np.array_equal(
        shown[: height // 2, : width // 2], whole[: height // 2, : width // 2]
    )
    assert (shown[: height // 2, width // 2 :] == 1).all()
    half = shown[height // 2 :, : width // 2]
    np.testing.assert_allclose(half, (whole[height // 2 :, : width // 2] + 1) / 2)


def test_a_panel_for_each_state_without_the_class_token() -> None:
    kept = np.zeros((3, 9))  # a class token and 2 x 4 patches
    kept[:, 0] = 1
    kept[1, 1:] = 0.5
    figure = draw_kept_image(picture(), kept, STATES, (2, 4))
    titles = [axes.get_title() for axes in figure.axes]
    assert [title[-4:] for title in titles] == ["0.00", "0.50", "0.00"]
    dropped = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert (dropped == 1).all()
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for one, other in pairwise(boxes):
        assert one.x1 <= other.x0
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


@pytest.mark.parametrize("shape", [(3, 7), (2, 9), (1, 3, 9)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(3 states, at least 2 x 4 = 8"):
        draw_kept_image(picture(), np.zeros(shape), STATES, (2, 4))
