"""What masks keep of a picture, one panel for each hidden state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...report.colors import find_theme
from ...report.image import enlarge
from .names import state_names

if TYPE_CHECKING:
    import PIL.Image
    from matplotlib.figure import Figure

_PANEL = 1.7  # inches
_PER_ROW = 5
_HEAD, _FOOT = 0.32, 0.5  # inches


def faded(image: PIL.Image.Image, kept: np.ndarray) -> np.ndarray:
    """Return a picture that fades to white where its patches are dropped.

    Args:
        image (PIL.Image.Image): the picture.
        kept (np.ndarray): probability that a patch is kept, shape ``(rows, columns)``.

    Returns:
        *np.ndarray*: sRGB in [0, 1], shape ``(height, width, 3)``.
    """
    pixels = np.asarray(enlarge(image.convert("RGB"), least=256), dtype=float) / 255
    height, width = pixels.shape[:2]
    row = np.arange(height) * kept.shape[0] // height
    column = np.arange(width) * kept.shape[1] // width
    cover = kept[row][:, column, None]
    return np.asarray(cover * pixels + (1 - cover))


def draw_kept_image(
    image: PIL.Image.Image,
    kept: Any,
    states: Sequence[str],
    patch_grid: tuple[int, int],
) -> Figure:
    """Return a figure of a picture at each hidden state: what is dropped turns white.

    Each panel says in its title which state it is, and the mean over its patches.

    Args:
        image (PIL.Image.Image): the picture as the model saw it.
        kept (Tensor or np.ndarray): P(kept) of one picture, as
            ``DiffMask.attribute`` returns it, shape ``(states, tokens)``. Tokens before
            the patches (class token, registers) are not drawn.
        states (sequence of str): ``DiffMask.states``.
        patch_grid (tuple of int): rows and columns of the patches, such as
            ``ImageModel.patch_grid``.

    Raises:
        InputError: if there are fewer tokens than patches, or not one row per state.

    Examples::

        >>> mask = DiffMask(model)
        >>> mask.fit(loader)
        >>> kept = mask.attribute(pixels[:1])[0]
        >>> draw_kept_image(image, kept, mask.states, (8, 8)).savefig("kept.png")
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    light = find_theme("light")
    values = np.asarray(kept.tolist() if hasattr(kept, "tolist") else kept, float)
    rows, columns = patch_grid
    patches = rows * columns
    if values.ndim != 2 or len(values) != len(states) or values.shape[1] < patches:
        raise InputError(
            f"kept has shape {values.shape}; expected ({len(states)} states, at least "
            f"{rows} x {columns} = {patches} tokens). Take one picture of the batch: "
            "mask.attribute(pixels)[0]."
        )
    maps = values[:, -patches:].reshape(len(values), rows, columns)
    names = state_names(states)
    across = min(_PER_ROW, len(maps))
    down = math.ceil(len(maps) / across)
    tall = _PANEL * image.height / image.width
    height = down * (tall + _HEAD) + _FOOT
    figure = Figure(figsize=(across * (_PANEL + 0.1), height), facecolor=light.paper)
    FigureCanvasAgg(figure)
    for number, (one, label) in enumerate(zip(maps, names.labels, strict=True)):
        row, column = divmod(number, across)
        top = height - row * (tall + _HEAD) - _HEAD
        axes = figure.add_axes(
            (
                (column + 0.03) / across,
                (top - tall) / height,
                0.94 / across,
                tall / height,
            )
        )
        axes.imshow(faded(image, one), interpolation="nearest")
        axes.set_title(f"{label}  {one.mean():.2f}", fontsize=9, color=light.ink)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(light.soft)
    figure.text(
        0.01,
        0.12 / height,
        "white: dropped; the number is the mean P(kept) of the patches",
        fontsize=8.5,
        color=light.soft,
    )
    return figure
