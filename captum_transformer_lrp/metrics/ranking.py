"""Which units are ranked, in which order, and how many of them at each fraction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .._forms import mask_in
from ..errors import InputError

RankBy = Literal["signed", "absolute"]


def units_of(attributions: Tensor) -> Tensor:
    """Return scores with one dimension for examples and one or two for units.

    Args:
        attributions (Tensor): ``(examples, tokens)``, ``(examples, rows, columns)`` or
            ``(examples, 1, rows, columns)``.

    Raises:
        InputError: if the shape is another, or a score is not finite.
    """
    if not isinstance(attributions, Tensor):
        raise InputError(
            f"expected attributions to be one tensor, got {type(attributions).__name__}"
        )
    if attributions.dim() == 4 and attributions.shape[1] == 1:
        attributions = attributions[:, 0]
    if attributions.dim() not in (2, 3) or not attributions.numel():
        raise InputError(
            "expected one score per unit, (examples, tokens), (examples, rows, columns)"
            f" or (examples, 1, rows, columns), got {tuple(attributions.shape)}: sum "
            "over features, e.g. scores.sum(-1) for tokens, or pool pixels with "
            "captum_transformer_lrp.metrics.pool_patches(scores, (rows, columns))"
        )
    if not bool(attributions.isfinite().all()):
        raise InputError("attributions hold NaN or infinity, which have no rank")
    attributions = attributions.detach()
    return attributions if attributions.is_floating_point() else attributions.double()


def pool_patches(attributions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Sum scores of pixels over channels and over the pixels of each patch.

    Args:
        attributions (Tensor): ``(examples, channels, height, width)``.
        grid (tuple): rows and columns of patches.

    Returns:
        *Tensor*: ``(examples, rows, columns)``.

    Raises:
        InputError: if the pixels do not divide into so many patches.
    """
    if attributions.dim() != 4:
        raise InputError(
            "expected scores of pixels, (examples, channels, height, width), got "
            f"{tuple(attributions.shape)}"
        )
    examples, _, height, width = attributions.shape
    rows, columns = grid
    if height % rows or width % columns:
        raise InputError(
            f"{height} x {width} pixels do not divide into {rows} x {columns} patches"
        )
    summed = attributions.detach().sum(1)
    tiles = summed.reshape(examples, rows, height // rows, columns, width // columns)
    return tiles.sum((2, 4))


def rankable(inputs: Any, tokenizer: Any) -> Tensor:
    """Return which tokens may be ranked: no padding, and no frame around the text.

    The frame is what a tokenizer adds: [CLS], [SEP], ``<s>``, ``</s>``. An [UNK] or a
    [MASK] in a text is part of it and is ranked.

    Args:
        inputs (Mapping or Tensor): what a tokenizer returned, or its token ids
            ``(examples, tokens)``.
        tokenizer (Any): the Hugging Face tokenizer.

    Returns:
        *Tensor*: bool, ``(examples, tokens)``.
    """
    mapping = inputs if isinstance(inputs, Mapping) else {"input_ids": inputs}
    ids = mapping["input_ids"]
    names = ("bos", "eos", "cls", "sep", "pad")
    frame = [getattr(tokenizer, f"{name}_token_id", None) for name in names]
    known = torch.tensor([i for i in frame if i is not None], device=ids.device)
    valid = ~torch.isin(ids, known)
    if "attention_mask" in mapping:
        valid = valid & mapping["attention_mask"].bool()
    return valid


def checked_valid(
    valid: Tensor | None, attributions: Tensor, inputs: Any = None
) -> Tensor:
    """Return which units are ranked, of the shape of the scores.

    Args:
        valid (Tensor or None): bool, of the shape of the scores or broadcastable to it;
            None means all units, or those of the inputs' ``attention_mask``.
        attributions (Tensor): as returned by :func:`units_of`.
        inputs (Any, optional): the model's inputs. Default: None

    Raises:
        InputError: if the mask has another shape, or an example has no valid unit.
    """
    if valid is None:
        mask = mask_in(inputs)
        valid = torch.ones_like(attributions) if mask is None else mask
    try:
        valid = valid.to(attributions.device).bool().expand(attributions.shape)
    except RuntimeError as error:
        raise InputError(
            f"expected valid= of the shape of the scores, {tuple(attributions.shape)}, "
            f"got {tuple(valid.shape)}"
        ) from error
    empty = ~valid.flatten(1).any(1)
    if bool(empty.any()):
        raise InputError(
            f"example {int(empty.nonzero()[0])} has no unit to rank: valid= is False "
            "for all of them"
        )
    return valid


def ranks(
    attributions: Tensor,
    valid: Tensor,
    *,
    descending: bool,
    by: RankBy = "signed",
) -> Tensor:
    """Return the position of each unit in the order of removal, from 0.

    Units of equal score stand in the order of the text or picture, in both directions.

    Args:
        attributions (Tensor): ``(examples, *units)``.
        valid (Tensor): bool, of the same shape; other units come last.
        descending (bool): the largest score first.
        by (str, optional): ``"signed"`` or ``"absolute"`` scores.
            Default: ``"signed"``

    Returns:
        *Tensor*: int64, of the same shape.
    """
    if by not in ("signed", "absolute"):
        raise InputError(f"expected rank_by= 'signed' or 'absolute', got {by!r}")
    scores = attributions.flatten(1)
    scores = scores.abs() if by == "absolute" else scores
    keys = -scores if descending else scores
    keys = keys.masked_fill(~valid.flatten(1), torch.inf)
    order = keys.argsort(dim=1, stable=True)
    positions = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, positions).view_as(attributions)


def checked_fractions(steps: int | Sequence[float]) -> Tensor:
    """Return the fractions of units, ``(steps,)`` in float64.

    Args:
        steps (int or sequence of float): how many equal steps lead from 0 to 1, or the
            fractions themselves, increasing.
    """
    if isinstance(steps, int):
        if steps < 1:
            raise InputError(f"expected steps= of at least 1, got {steps}")
        return torch.arange(steps + 1, dtype=torch.float64) / steps
    fractions = torch.tensor(list(steps), dtype=torch.float64)
    if not len(fractions) or bool((fractions < 0).any() or (fractions > 1).any()):
        raise InputError(f"expected fractions between 0 and 1, got {list(steps)}")
    if bool((fractions.diff() <= 0).any()):
        raise InputError(f"expected increasing fractions, got {list(steps)}")
    return fractions


def counts(fractions: Tensor, valid: Tensor) -> Tensor:
    """Return how many units each fraction is, rounded up.

    Args:
        fractions (Tensor): ``(steps,)``.
        valid (Tensor): bool, ``(examples, *units)``.

    Returns:
        *Tensor*: int64, ``(examples, steps)``.
    """
    units = valid.flatten(1).sum(1).double().cpu()
    # 0.3 * 10 is 3.0000000000000004 in floating point, and still three units.
    return (fractions * units[:, None] - 1e-9).ceil().clamp_min(0).long()
