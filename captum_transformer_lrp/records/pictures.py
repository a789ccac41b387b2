"""Pictures as PNG in base64, and back."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from typing import TYPE_CHECKING

from .refusal import damaged

if TYPE_CHECKING:
    from PIL.Image import Image

#: the modes of a picture that PNG gives back as they were
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
#: of a picture, so that a small PNG cannot take all memory
MOST_PIXELS = 1 << 26


def png_text(image: Image) -> str:
    """Return a picture as PNG in base64; of a mode that PNG changes, in RGB."""
    kept = image if image.mode in MODES else image.convert("RGB")
    file = io.BytesIO()
    kept.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def read_png(packed: str | bytes, size: tuple[int, int]) -> Image:
    """Return the picture of a PNG, which is decoded only if it has the right size.

    Args:
        packed (str or bytes): The PNG; a str in base64.
        size (tuple[int, int]): Width and height in pixels.

    Raises:
        InputError: It is damaged, of another format, size or mode, or too large.
    """
    import PIL.Image

    width, height = size
    if width * height > MOST_PIXELS:
        raise damaged(
            f"its picture has {width:,} x {height:,} pixels",
            f"at most {MOST_PIXELS:,} in all",
        )
    try:
        if isinstance(packed, str):
            packed = base64.b64decode(packed, validate=True)
        with PIL.Image.open(io.BytesIO(packed), formats=["PNG"]) as opened:
            found, mode = opened.size, opened.mode
            if found == size and mode in MODES:
                return opened.copy()
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise damaged(f"'image' cannot be read ({error})", "a PNG in base64") from error
    except PIL.Image.DecompressionBombError as error:
        raise damaged(
            f"'image' is too large ({error})", f"{width} x {height} pixels"
        ) from error
    raise damaged(
        f"'image' has {found[0]} x {found[1]} pixels in the mode {mode!r}",
        f"{width} x {height} in one of {', '.join(MODES)}",
    )
