"""Patches of a picture or a sound: their size, and what belongs to which."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError

_STRETCHES = 50  # of a waveform that are left out one by one, at most


def checked_patch_size(patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return height and width of a patch.

    Raises:
        InputError: they are not one or two whole numbers of at least 1.
    """
    sides = (patch_size,) * 2 if isinstance(patch_size, int) else tuple(patch_size)
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in sides)
    if len(sides) != 2 or not whole or min(sides) < 1:
        raise InputError(
            "expected patch_size to be one or two integers of at least 1, got "
            f"{patch_size}"
        )
    return sides


def patch_numbers(pixels: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Return the number of the patch of each pixel, ``(height, width)``, row by row.

    Args:
        pixels (Tensor): ``(..., height, width)``.
        patch_size (tuple of int): height and width of a patch; the last ones of a row
            or column may be smaller.
    """
    row, column = (
        torch.arange(length, device=pixels.device) // side
        for length, side in zip(pixels.shape[-2:], patch_size, strict=True)
    )
    return row[:, None] * (int(column[-1]) + 1) + column


def sound_window(sound: Tensor, patch_size: tuple[int, int]) -> tuple[int, ...]:
    """Return how large the parts of a sound are that are left out one by one.

    Args:
        sound (Tensor): a waveform ``(batch, samples)``, which has up to 50 parts, or a
            spectrogram ``(batch, ...)`` of two further dimensions.
        patch_size (tuple of int): the sides of a part of a spectrogram.
    """
    if sound.dim() == 2:
        return (-(-sound.shape[1] // _STRETCHES),)
    sides = zip(patch_size, sound.shape[-2:], strict=True)
    return tuple(min(side, length) for side, length in sides)


def sound_numbers(sound: Tensor, patch_size: tuple[int, int]) -> Tensor:
    """Return the number of the part of each sample, or point of a spectrogram.

    Args:
        sound (Tensor): as for :func:`sound_window`.
        patch_size (tuple of int): likewise.
    """
    window = sound_window(sound, patch_size)
    if sound.dim() == 2:
        return torch.arange(sound.shape[1], device=sound.device) // window[0]
    return patch_numbers(sound, patch_size)
