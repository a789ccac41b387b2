"""Models by name: Hugging Face, timm, local folders, and two built-in ones.

Importing this package loads neither transformers nor timm; loading a model does.
"""

from __future__ import annotations

from .._packages import MissingPackageError
from .loading import (
    ImageModel,
    LoadingError,
    TextModel,
    load_image_model,
    load_text_model,
)
from .pieces import Piece, pieces_of_tokens, read_pieces

__all__ = [
    "ImageModel",
    "LoadingError",
    "MissingPackageError",
    "Piece",
    "TextModel",
    "load_image_model",
    "load_text_model",
    "pieces_of_tokens",
    "read_pieces",
]
