"""Which files are pictures; and one for the demo, drawn so that it is nobody's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

#: what a folder of pictures is searched for, as torchvision's ImageFolder does
PICTURE_SUFFIXES = frozenset(
    ".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp".split()
)


def is_picture(path: Path) -> bool:
    """Whether a file is a picture, by its name."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder, by name; not those in folders within it.

    Raises:
        InputError: There is none.
    """
    found = sorted(path for path in folder.iterdir() if is_picture(path))
    if not found:
        raise no_picture_in(folder)
    return found


def no_picture_in(folder: Path) -> InputError:
    """Return the error for a folder without pictures."""
    return InputError(
        f"the folder {str(folder)!r} holds no picture "
        f"({', '.join(sorted(PICTURE_SUFFIXES))})"
    )


def draw_ship(size: int = 256) -> Image:
    """Draw a ship on the sea under a pale sky.

    Args:
        size (int, optional): Width and height in pixels. Default: 256
    """
    import PIL.Image
    import PIL.ImageDraw

    image = PIL.Image.new("RGB", (256, 256))
    draw = PIL.ImageDraw.Draw(image)
    horizon = 168
    for y in range(256):  # sky and sea, each with a gradient
        share = y / horizon if y < horizon else (y - horizon) / (256 - horizon)
        high, low = (
            ((126, 170, 214), (214, 226, 234))
            if y < horizon
            else ((58, 98, 132), (24, 52, 84))
        )
        color = tuple(
            round(a + share * (b - a)) for a, b in zip(high, low, strict=True)
        )
        draw.line([(0, y), (255, y)], fill=color)
    draw.polygon(  # hull
        [(18, 150), (238, 142), (214, 188), (46, 190)], fill=(44, 46, 56)
    )
    draw.polygon([(38, 180), (219, 178), (214, 188), (46, 190)], fill=(150, 52, 44))
    draw.rectangle((62, 116, 196, 150), fill=(236, 236, 232))  # superstructure
    draw.rectangle((84, 88, 160, 116), fill=(222, 224, 222))
    draw.rectangle((104, 52, 128, 88), fill=(222, 224, 222))  # funnel
    draw.rectangle((104, 52, 128, 62), fill=(40, 40, 46))
    draw.line([(184, 116), (184, 40)], fill=(70, 74, 82), width=4)  # mast
    draw.line([(184, 46), (236, 142)], fill=(110, 114, 120), width=2)
    for x in range(72, 190, 18):  # windows
        draw.rectangle((x, 126, x + 9, 135), fill=(66, 88, 110))
    for y, left in ((200, 20), (214, 120), (228, 44), (240, 160)):  # waves
        draw.line([(left, y), (left + 62, y)], fill=(112, 148, 176), width=3)
    return image.resize((size, size), resample=PIL.Image.Resampling.LANCZOS)
