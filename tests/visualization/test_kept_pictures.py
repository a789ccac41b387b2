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
    shown, whole = (
        np.asarray(faded(picture(), one)).astype(int) for one in (kept, np.ones((1, 1)))
    )
    height, width = shown.shape[:2]
    assert np.array_equal(
        shown[: height // 2, : width // 2], whole[: height // 2, : width // 2]
    )
    assert (shown[: height // 2, width // 2 :] == 255).all()
    half = shown[height // 2 :, : width // 2]
    expected = (whole[height // 2 :, : width // 2] + 255) / 2
    np.testing.assert_allclose(half, expected, atol=1)


def test_a_panel_for_each_state_without_the_class_token() -> None:
    kept = np.zeros((3, 9))  # a class token and 2 x 4 patches
    kept[:, 0] = 1
    kept[1, 1:] = 0.5
    figure = draw_kept_image(picture(), kept, STATES, (2, 4))
    written = {text.get_text(): text for text in figure.texts}
    captions = ["embedding  0.00", "layer 1 input  0.50", "layer 1 output  0.00"]
    for axes, caption in zip(figure.axes, captions, strict=True):
        x, y = written[caption].get_position()
        assert axes.get_position().x0 <= x <= axes.get_position().x1
        assert y < axes.get_position().y0
    assert "white: dropped; the number is the mean P(kept) of the patches" in written
    dropped = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert (dropped == 255).all()
    figure.canvas.draw()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for one, other in pairwise(boxes):
        assert one.x1 <= other.x0
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


@pytest.mark.parametrize("shape", [(3, 7), (2, 9), (1, 3, 9)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected \(3 states, at least 2 x 4 = 8"):
        draw_kept_image(picture(), np.zeros(shape), STATES, (2, 4))
