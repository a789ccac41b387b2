"""Explanations with known numbers, made without a model."""

from __future__ import annotations

import numpy as np
from PIL import Image

from captum_transformer_lrp.explanation import ImageExplanation, TextExplanation
from captum_transformer_lrp.models import Piece
from captum_transformer_lrp.models.prediction import ClassScore

GOOD = ClassScore(index=1, name="good", logit=2.5, probability=0.924)
BAD = ClassScore(index=0, name="bad", logit=-0.5, probability=0.076)


def text_explanation(words="A warm film .", scores=None, **changes) -> TextExplanation:
    """One token per word between [CLS] and [SEP]."""
    pieces = [Piece(token=w.lower(), text=w, space_before=True) for w in words.split()]
    ends = [Piece(token=t, text=t, special=True) for t in ("[CLS]", "[SEP]")]
    pieces = [ends[0], *pieces, ends[1]]
    if scores is None:
        scores = np.linspace(-1, 1, len(pieces))
    return TextExplanation(
        **{
            "model": "tiny",
            "method": "AttnLRP",
            "prediction": GOOD,
            "target": GOOD,
            "scores": np.asarray(scores, dtype=float),
            "text": words,
            "pieces": tuple(pieces),
        }
        | changes
    )


def text_weights(**changes) -> TextExplanation:
    """Weights of attention for the tokens [CLS] A warm film . [SEP]."""
    weights = [0, 0.01, 0.25, 0.5, 0, 0.02]
    return text_explanation(
        **{"scores": weights, "measure": "attention", "method": "Attention"} | changes
    )


def image_weights(rows=2, columns=5, **changes) -> ImageExplanation:
    """Weights of patches only, growing from the top left to the bottom right."""
    return image_explanation(
        **{
            "height": 8,
            "width": 20,
            "grid": (rows, columns),
            "scores": np.arange(float(rows * columns)).reshape(rows, columns) / 10,
            "measure": "attention",
        }
        | changes
    )


def image_explanation(height=8, width=8, grid=(2, 2), **changes) -> ImageExplanation:
    """A teal picture whose scores rise from the top left to the bottom right."""
    scores = np.linspace(-1, 2, height * width).reshape(height, width)
    return ImageExplanation(
        **{
            "model": "tiny-vit",
            "method": "AttnLRP",
            "prediction": GOOD,
            "target": GOOD,
            "scores": scores,
            "image": Image.new("RGB", (width, height), "teal"),
            "patch_grid": grid,
        }
        | changes
    )
