"""What comes from outside is checked before it reaches the model or fills the memory.

A picture is refused by its bytes before it is opened and by its size in pixels, which
stands in its header, before it is decoded: a file of some kilobytes can decode to
gigabytes.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

#: the largest upload, in bytes
MAX_BYTES = 10 * 2**20
#: the largest picture, in pixels
MAX_PIXELS = 50_000_000
#: the longest text of one's own, in characters
MAX_CHARACTERS = 10_000

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def check_text(text: str) -> str:
    """Return a text of one's own without blanks around it.

    Raises:
        InputError: It is empty, or longer than :data:`MAX_CHARACTERS`.
    """
    if not text.strip():
        raise InputError("write a text to explain first")
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"the text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are "
            "explained"
        )
    return text.strip()


def open_upload(content: bytes) -> Image:
    """Return an uploaded picture, upright in RGB.

    Raises:
        InputError: It is empty, larger than :data:`MAX_BYTES`, no picture, or has more
            than :data:`MAX_PIXELS`.
    """
    if not content:
        raise InputError("choose a picture to explain first")
    if len(content) > MAX_BYTES:
        raise InputError(
            f"the file has {len(content) / 2**20:.1f} MiB; at most "
            f"{MAX_BYTES / 2**20:.0f} MiB are taken"
        )
    return open_bounded(content)


def open_bounded(picture: bytes | Path | Image) -> Image:
    """Return a picture upright in RGB, unless it has too many pixels.

    Args:
        picture (bytes, Path or PIL.Image.Image): Its content, its file, or itself.

    Raises:
        InputError: It is no picture, is broken, or has more than :data:`MAX_PIXELS`.
    """
    import PIL.Image
    import PIL.ImageOps

    if isinstance(picture, PIL.Image.Image):
        return picture.convert("RGB")
    name = repr(picture.name) if isinstance(picture, Path) else "the file"
    source = picture if isinstance(picture, Path) else io.BytesIO(picture)
    try:
        with PIL.Image.open(source, formats=_FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise _too_many_pixels(name, f"{width:,} x {height:,} pixels")
            upright: Image = PIL.ImageOps.exif_transpose(opened).convert("RGB")
            return upright
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise _too_many_pixels(name, "far more") from None
    except InputError:
        raise
    # Pillow raises these for files that are broken or no pictures at all.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        reason = (
            "no such file" if isinstance(error, FileNotFoundError) else "no picture"
        )
        known = ", ".join(_FORMATS)
        raise InputError(
            f"{name} cannot be read ({reason}, or broken): expected {known}"
        ) from error


def _too_many_pixels(name: str, found: str) -> InputError:
    return InputError(
        f"{name} has {found}; at most {MAX_PIXELS / 10**6:.0f} million pixels are taken"
    )
