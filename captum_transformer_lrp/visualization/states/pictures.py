"""What masks keep of a picture, one panel for each hidden state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...report.blocks import Heat, Paragraph, Pictures
from ...report.figure import draw
from ...report.image import enlarge
from .names import state_names

if TYPE_CHECKING:
    import PIL.Image
    from matplotlib.figure import Figure


def faded(image: PIL.Image.Image, kept: np.ndarray) -> PIL.Image.Image:
    """Return a picture that fades to white where its patches are dropped.

    Args:
        image (PIL.Image.Image): the picture.
        kept (np.ndarray): probability that a patch is kept, shape ``(rows, columns)``.

    Returns:
        *PIL.Image.Image*, enlarged where it is small.
    """
    import PIL.Image

    pixels = np.asarray(enlarge(image.convert("RGB"), least=256), dtype=float) / 255
    height, width = pixels.shape[:2]
    row = np.arange(height) * kept.shape[0] // height
    column = np.arange(width) * kept.shape[1] // width
    cover = kept[row][:, column, None]
    mixed = cover * pixels + (1 - cover)
    return PIL.Image.fromarray((255 * mixed).round().astype(np.uint8))


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
    shown = tuple(
        Heat(image=faded(image, one), caption=f"{label}  {one.mean():.2f}")
        for one, label in zip(maps, state_names(states).labels, strict=True)
    )
    about = "white: dropped; the number is the mean P(kept) of the patches"
    return draw([[Pictures(pictures=shown), Paragraph(text=about)]])
