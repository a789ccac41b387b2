"""The page that all figures are laid out on."""

from __future__ import annotations

import io

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from captum_transformer_lrp.report.page import Page


@pytest.mark.parametrize("bbox", [None, "tight"])
@pytest.mark.parametrize("kind", ["box", "cells"])
def test_nothing_moves_where_margins_are_cut_off(kind, bbox):
    """Notebooks show figures with bbox_inches="tight"."""
    from PIL import Image

    page = Page(width=6.0)
    page.y = 4.0
    if kind == "box":
        page.box(4.0, 2.0, 1.0, 1.0, color="#0000ff")
    else:
        page.cells(4.0, 2.0, (0.5, 0.5), np.broadcast_to([0.0, 0.0, 1.0], (2, 2, 3)))
    page.picture(2.0, 2.0, 1.0, 1.0, np.broadcast_to([1.0, 0.0, 0.0], (2, 2, 3)))
    figure = page.figure()
    figure.patch.set_alpha(0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50, bbox_inches=bbox, transparent=True)
    pixels = np.asarray(Image.open(buffer).convert("RGBA")).astype(int)
    blue, red = (
        np.argwhere((pixels[..., channel] > 200) & (pixels[..., 3] > 200))
        for channel in (2, 0)
    )
    assert abs(blue.min(0) - red.min(0) - [0, 100]).max() <= 2
    assert abs(blue.max(0) - red.max(0) - [0, 100]).max() <= 2
