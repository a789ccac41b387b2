"""One side of a pair: its units (tokens, patches), their relevance, and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from ..models.pieces import Piece, pieces_of_tokens, read_pieces
from .inputs import Leaf
from .pair_relevance import PairSide
from .patches import checked_patch_size, patch_numbers

if TYPE_CHECKING:
    from PIL.Image import Image

Labels = Sequence[str] | Sequence[Piece]


@dataclass(frozen=True, eq=False)
class Units:
    """The units of one input: what gets one row or column of the matrix.

    Attributes:
        leaf (Leaf): the input.
        place (Tensor): the number of the unit of each element of an example, of the
            shape of an example.
        kept (Tensor): False for padding, ``(examples, units)``.
        grid (tuple of int or None): rows and columns of patches.
    """

    leaf: Leaf
    place: Tensor
    kept: Tensor
    grid: tuple[int, int] | None = None

    @property
    def count(self) -> int:
        """How many there are, padding included."""
        return int(self.kept.shape[1])

    def sums(self, gradients: Tensor | None, *, times_input: bool) -> Tensor | None:
        """Return the relevance of each unit in float64, ``(count, examples, units)``.

        Args:
            gradients (Tensor or None): at the leaf, ``(count, *leaf)``.
            times_input (bool): relevance is input times gradient.
        """
        if gradients is None:
            return None
        values = gradients.detach().double()
        if times_input and not self.leaf.is_identifier:
            values = values * self.leaf.leaf.detach()
        flat = values.flatten(2)
        found = flat.new_zeros(*flat.shape[:2], self.count)
        found = found.index_add(2, self.place.flatten(), flat)
        return torch.where(self.kept, found, 0)

    def directions(self, units: range, *, times_input: bool) -> Tensor:
        """Return the input with all but one unit set to 0, ``(units, *leaf)``.

        Of identifiers, whose leaf holds a scale of 1 for each, the scale.
        """
        leaf = self.leaf.leaf.detach()
        scale = leaf if times_input else torch.ones_like(leaf)
        numbers = torch.arange(units.start, units.stop, device=leaf.device)
        of_unit = self.place == numbers.reshape(-1, *[1] * self.place.dim())
        return torch.where(of_unit[:, None], scale, 0)


def units_of(leaf: Leaf, patch_size: int | tuple[int, int] | None) -> Units:
    """Return the units of an input.

    Identifiers and embeddings ``(examples, tokens, ...)`` have one for each token,
    pixels ``(examples, channels, height, width)`` one for each patch, and other numbers
    one for each place of the second dimension.

    Raises:
        InputError: if the input has no units, all are padding, or the size of patches
            is not known.
    """
    given = leaf.given
    if given.is_nested or given.dim() < 2:
        got = "nested" if given.is_nested else f"of shape {tuple(given.shape)}"
        raise InputError(
            f"{leaf.name} is {got}; expected a tensor (examples, tokens, ...) or "
            "(examples, channels, height, width)."
        )
    grid = None
    if given.dim() == 4 and not leaf.is_identifier:
        if patch_size is None:
            raise InputError(
                f"{leaf.name} has shape {tuple(given.shape)}, pixels, and the model "
                "does not say how large its patches are. Say so: "
                "PairLRP(..., patch_size=16)."
            )
        numbers = patch_numbers(given, checked_patch_size(patch_size))
        place = numbers.expand(given.shape[1:])
        rows, columns = checked_patch_size(patch_size)
        grid = -(-given.shape[2] // rows), -(-given.shape[3] // columns)
        count = grid[0] * grid[1]
    else:
        count = given.shape[1]
        place = torch.arange(count, device=given.device)
        place = place.reshape(-1, *[1] * (given.dim() - 2)).expand(given.shape[1:])
    kept = torch.ones(given.shape[0], count, dtype=torch.bool, device=given.device)
    if leaf.keep is not None and grid is None:
        kept = leaf.keep.reshape(*leaf.keep.shape[:2], -1)[..., 0].bool()
    if not bool(kept.any(1).all()):
        raise InputError(
            f"{leaf.name} has an example of which attention_mask keeps no token; "
            "expected at least one."
        )
    return Units(leaf, place, kept, grid)


def patch_size_of(model: Any) -> int | tuple[int, int] | None:
    """Return the size of patches that a model of transformers or timm states."""
    config = getattr(model, "config", None)
    for holder in (
        getattr(config, "vision_config", None),
        config,
        getattr(model, "patch_embed", None),
    ):
        found = getattr(holder, "patch_size", None)
        if isinstance(found, (list, tuple)) and len(found) == 2:
            return int(found[0]), int(found[1])
        if isinstance(found, int):
            return found
    return None


def describe_side(
    name: str,
    example: int,
    units: Sequence[Units],
    *,
    labels: Labels | None,
    tokenizer: Any,
    image: Image | None,
) -> PairSide:
    """Return what the units of an example are called.

    Args:
        name (str): which side, such as ``"first"``, for messages.
        example (int): the number of the example.
        units (sequence of Units): of each input of this side.
        labels (sequence of str or Piece, optional): the names of all units that are no
            padding.
        tokenizer (Any, optional): reads identifiers.
        image (PIL.Image.Image, optional): the picture, if this side is one.

    Raises:
        InputError: if there are more or fewer labels than units.
    """
    grid = units[0].grid if len(units) == 1 else None
    pieces: list[Piece] = []
    for one in units:
        kept = one.kept[example].nonzero().flatten().tolist()
        if one.leaf.is_identifier and tokenizer is not None and labels is None:
            ids = one.leaf.given[example]
            if ids.dim() == 1:
                pieces += read_pieces(tokenizer, ids[kept].tolist())
                continue
        if one.grid is not None:
            across = one.grid[1]
            names = [f"row {i // across + 1}, column {i % across + 1}" for i in kept]
        else:
            names = [str(i) for i in kept]
        pieces += [Piece(token=n, text=n, space_before=True) for n in names]
    if labels is not None:
        if isinstance(labels, str) or len(labels) != len(pieces):
            got = "a text" if isinstance(labels, str) else f"{len(labels)}"
            raise InputError(
                f"labels of the {name} side: got {got} for {len(pieces)} tokens or "
                "patches without padding; expected one for each."
            )
        given = list(labels)
        pieces = [one for one in given if isinstance(one, Piece)]
        if len(pieces) != len(given):
            pieces = list(pieces_of_tokens([str(one) for one in given]))
    if image is None and grid is not None:
        image = _picture_of(units[0].leaf.given[example])
    if grid is None:
        return PairSide(pieces=tuple(pieces))
    return PairSide(pieces=tuple(pieces), grid=grid, image=image, part="patch")


def _picture_of(pixels: Tensor) -> Image | None:
    """Return pixels as a picture, from the darkest to the brightest of them."""
    if pixels.shape[0] not in (1, 3):
        return None
    import PIL.Image

    values = pixels.detach().cpu().double()
    low, high = values.min(), values.max()
    values = (values - low) / (high - low) if high > low else torch.zeros_like(values)
    array = (255 * values.expand(3, -1, -1)).round().to(torch.uint8)
    return PIL.Image.fromarray(array.permute(1, 2, 0).contiguous().numpy())


def is_text(inputs: Any) -> bool:
    """Whether inputs are a text, or several."""
    several = isinstance(inputs, (list, tuple)) and len(inputs) > 0
    return isinstance(inputs, str) or (
        several and all(isinstance(one, str) for one in inputs)
    )


def encoded(
    texts: Any, tokenizer: Any, device: torch.device | None
) -> Mapping[str, Any]:
    """Return what a tokenizer makes of texts.

    Raises:
        InputError: if there is no tokenizer, or a text has no token.
    """
    if tokenizer is None:
        raise InputError(
            "texts were given and no tokenizer. Pass PairLRP(..., tokenizer=...), or "
            'what it returns: tokenizer(text, return_tensors="pt").'
        )
    listed = [texts] if isinstance(texts, str) else list(texts)
    found = tokenizer(listed, padding=len(listed) > 1, return_tensors="pt")
    return {
        key: value.to(device) if device is not None else value
        for key, value in dict(found).items()
        if isinstance(value, Tensor)
    }


__all__ = [
    "Labels",
    "Units",
    "describe_side",
    "encoded",
    "is_text",
    "patch_size_of",
    "units_of",
]
