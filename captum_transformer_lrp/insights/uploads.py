"""What comes from outside is checked before it reaches the model or fills the memory.

A picture is refused by its bytes before it is opened and by its size in pixels, which
stands in its header, before it is decoded: a file of some kilobytes can decode to
gigabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from ..models.inputs import open_picture

if TYPE_CHECKING:
    from PIL.Image import Image

#: the largest upload, in bytes
MAX_BYTES = 10 * 2**20
#: the longest text of one's own, in characters
MAX_CHARACTERS = 10_000

#: of pictures that come from outside
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


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
            than :data:`~captum_transformer_lrp.models.inputs.MAX_PIXELS`.
    """
    if not content:
        raise InputError("choose a picture to explain first")
    if len(content) > MAX_BYTES:
        raise InputError(
            f"the file has {len(content) / 2**20:.1f} MiB; at most "
            f"{MAX_BYTES / 2**20:.0f} MiB are taken"
        )
    return open_picture(content, formats=FORMATS)
