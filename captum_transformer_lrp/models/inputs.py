"""From a text or a picture to the tensors of a model, and back to what it saw."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from .loading import TextModel
from .pieces import Piece, read_pieces

if TYPE_CHECKING:
    from PIL.Image import Image

#: the largest picture that is read from a file, in pixels
MAX_PIXELS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The token ids of one text, what they read as, and what was left out."""

    ids: dict[str, list[int]]
    pieces: tuple[Piece, ...]
    notes: tuple[str, ...]


def encode(source: TextModel, text: str) -> Encoding:
    """Tokenise one text; one that is too long is cut, with a warning."""
    tokenizer = source.tokenizer
    fast = bool(getattr(tokenizer, "is_fast", False))
    options = {"return_offsets_mapping": True} if fast else {}
    found = tokenizer(text, verbose=False, **options)
    encoded = dict(found)
    length = len(encoded["input_ids"])
    notes: tuple[str, ...] = ()
    if source.max_tokens is not None and length > source.max_tokens:
        note = (
            f"The text has {length} tokens and the model reads at most "
            f"{source.max_tokens}: the end was cut off and is not explained."
        )
        warnings.warn(note, UserWarning, stacklevel=2)
        notes = (note,)
        found = tokenizer(
            text, truncation=True, max_length=source.max_tokens, **options
        )
        encoded = dict(found)
    offsets = encoded.pop("offset_mapping", None)
    word_ids = found.word_ids() if fast and hasattr(found, "word_ids") else None
    if not encoded["input_ids"]:
        raise InputError(f"the tokenizer finds no token in {text!r}")
    pieces = read_pieces(
        tokenizer, encoded["input_ids"], text=text, offsets=offsets, word_ids=word_ids
    )
    return Encoding(ids=encoded, pieces=pieces, notes=notes)


def pad(source: TextModel, rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Stack token ids to ``(batch, tokens)``, padded on the right."""
    device = next(source.module.parameters()).device
    longest = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": int(source.pad_id or 0)}
    keys = dict.fromkeys([*rows[0], "attention_mask"])
    full = [{"attention_mask": [1] * len(row["input_ids"])} | row for row in rows]
    return {
        key: torch.tensor(
            [row[key] + [fill.get(key, 0)] * (longest - len(row[key])) for row in full],
            device=device,
        )
        for key in keys
    }


def open_picture(
    image: str | Path | bytes | Image, *, formats: tuple[str, ...] | None = None
) -> Image:
    """Return a picture upright in RGB.

    A file is refused by its size in pixels, which stands in its header, before it is
    decoded: some kilobytes can decode to gigabytes.

    Args:
        image (str, Path, bytes or PIL.Image.Image): A file, its content, or a picture.
        formats (tuple of str, optional): Those of PIL that may be read.
            Default: None, all

    Raises:
        InputError: There is no such file, it is no picture or a broken one, or has more
            than :data:`MAX_PIXELS`.
    """
    import PIL.Image
    import PIL.ImageOps

    if isinstance(image, PIL.Image.Image):
        return image.convert("RGB")
    if not isinstance(image, (str, Path, bytes)):
        raise InputError(
            f"expected image= to be a file or a PIL image, got {type(image).__name__}"
        )
    name = "the file" if isinstance(image, bytes) else repr(Path(image).name)
    try:
        source = io.BytesIO(image) if isinstance(image, bytes) else image
        with PIL.Image.open(source, formats=formats) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise _too_many_pixels(name, f"{width:,} x {height:,}")
            upright: Image = PIL.ImageOps.exif_transpose(opened).convert("RGB")
            return upright
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise _too_many_pixels(name, "far more") from None
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"there is no picture {str(image)!r}") from error
    # Pillow raises these for files that are broken or no pictures at all.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        known = f": expected {', '.join(formats)}" if formats else f": {error}"
        raise InputError(f"{name} is not a picture, or is broken{known}") from error


def _too_many_pixels(name: str, found: str) -> InputError:
    return InputError(
        f"{name} has {found} pixels; at most {MAX_PIXELS / 10**6:.0f} million are read "
        "from a file. Make it smaller, or pass a picture that PIL has opened"
    )


def seen_picture(
    pixels: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Image, tuple[str, ...]]:
    """Return the picture as the model saw it, with the normalisation undone.

    Args:
        pixels (Tensor): What the model saw, ``(channels, height, width)``.
        mean (sequence of float or None): What was subtracted per channel, for channels
            in [0, 1]; None where that is not known.
        std (sequence of float or None): What was divided by.
    """
    import PIL.Image

    values = pixels.detach().cpu().double()
    notes: tuple[str, ...] = ()
    if mean is not None and std is not None:
        shift, scale = (torch.tensor(v).double()[:, None, None] for v in (mean, std))
        values = values * scale + shift
    else:
        low, high = values.min(), values.max()
        values = (values - low) / (high - low) if high > low else values.clamp(0, 1)
        notes = ("The picture's colours are stretched: its normalisation is unknown.",)
    if len(values) == 1:
        values = values.expand(3, -1, -1)
    array = (255 * values.clamp(0, 1)).round().to(torch.uint8)
    return PIL.Image.fromarray(array.permute(1, 2, 0).numpy()), notes
