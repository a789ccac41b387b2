"""Attention maps: all heads of a layer side by side, or lines between tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..models.pieces import Piece
from ..report.blocks import (
    Axis,
    Block,
    ColorScale,
    Pairs,
    Panel,
    largest,
    strongest_places,
)
from ..report.colors import scale_limit
from .arrays import to_array
from .grid import GridPicture, make_grid, token_axis
from .picture import Picture

View = Literal["heads", "lines"]

_LINES_PER_TOKEN = 8
_FAINTEST = 0.06  # share of the largest weight below which no line is drawn


@runtime_checkable
class HasAttention(Protocol):
    """A layer that holds its attention map, shape ``(examples, heads, n, m)``.

    :class:`captum_transformer_lrp.attribution.attention_maps.AttentionLayer` is one.
    """

    @property
    def attention(self) -> Tensor:
        """The map."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class LinePicture(Picture):
    """Attention of one head as lines from each token to those that it attends to.

    Made by :func:`draw_attention` with ``view="lines"``.

    Args:
        weights (np.ndarray): From each token on the left to each on the right, shape
            ``(left, right)``.
        left (Axis): The tokens that attend (queries).
        right (Axis): The tokens that are attended to (keys).
        scale (ColorScale): The weight of the strongest line.
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    weights: np.ndarray = field(repr=False)
    left: Axis
    right: Axis
    scale: ColorScale

    @property
    def lines(self) -> tuple[tuple[int, int, float], ...]:
        """Left token, right token and share of the limit of each line, faint first.

        At most eight lines for each token, and none below 6 % of the largest weight.
        """
        most = _LINES_PER_TOKEN * max(self.weights.shape)
        found = [
            (row, column, self.scale.share(self.weights[row, column]))
            for row, column in strongest_places(self.weights, most)
        ]
        return tuple(line for line in reversed(found) if abs(line[2]) >= _FAINTEST)

    def _strongest(self, count: int) -> list[tuple[str, float]]:
        left, right = self.left.labels, self.right.labels
        return [
            (f"“{left[row]}” to “{right[column]}”", float(self.weights[row, column]))
            for row, column in strongest_places(self.weights, count)
        ]

    @property
    def alt(self) -> str:
        """The picture in full words."""
        write = self.scale.write
        top = "; ".join(f"{name} {write(w)}" for name, w in self._strongest(3))
        return (
            f"{self._heading}{len(self.lines)} lines from {len(self.left)} tokens on "
            f"the left to {len(self.right)} on the right that they attend to; the "
            f"stronger a line, the larger its {self.scale.unit}. Largest: {top}."
        )

    def _scores(self) -> Iterator[Block]:
        yield Pairs(
            lines=self.lines, left=self.left, right=self.right, scale=self.scale
        )

    def _numbers(self) -> Iterator[Block]:
        yield largest(self._strongest(10), self.scale, "Tokens")


@overload
def draw_attention(
    maps: Any,
    tokens: Sequence[str] | Sequence[Piece],
    keys: Sequence[str] | Sequence[Piece] | None = None,
    *,
    layer: int = -1,
    heads: int | Sequence[int] | None = None,
    view: Literal["heads"] = "heads",
    title: str | None = None,
    unit: str = "attention weight",
    signed: bool | None = None,
    limit: float | None = None,
    special: Collection[str] | None = None,
) -> GridPicture: ...


@overload
def draw_attention(
    maps: Any,
    tokens: Sequence[str] | Sequence[Piece],
    keys: Sequence[str] | Sequence[Piece] | None = None,
    *,
    layer: int = -1,
    heads: int | Sequence[int] | None = None,
    view: Literal["lines"],
    title: str | None = None,
    unit: str = "attention weight",
    signed: bool | None = None,
    limit: float | None = None,
    special: Collection[str] | None = None,
) -> LinePicture: ...


def draw_attention(
    maps: Any,
    tokens: Sequence[str] | Sequence[Piece],
    keys: Sequence[str] | Sequence[Piece] | None = None,
    *,
    layer: int = -1,
    heads: int | Sequence[int] | None = None,
    view: View = "heads",
    title: str | None = None,
    unit: str = "attention weight",
    signed: bool | None = None,
    limit: float | None = None,
    special: Collection[str] | None = None,
) -> GridPicture | LinePicture:
    """Draw the attention of one layer: each head as a grid, or one as lines.

    A large weight says that a token was looked at, not that it counts for the
    prediction: values may be small, and later layers may drop what was read (Jain and
    Wallace 2019, arXiv 1902.10186). Relevance says that.

    Args:
        maps (Tensor, np.ndarray or sequence): The maps of all layers, such as
            ``outputs.attentions`` of a Hugging Face model run with
            ``output_attentions=True`` and ``attn_implementation="eager"``, or
            ``CheferLRP.layers`` of this package: one entry for each layer, each
            ``(heads, queries, keys)`` with a batch dimension of 1 in front or not. A
            single tensor of three or four dimensions is one layer; with five, layers
            come first.
        tokens (sequence of str): The queries, which attend, as
            ``tokenizer.convert_ids_to_tokens(ids)`` returns them.
        keys (sequence of str, optional): The tokens that are attended to, where they
            are others, as in cross-attention. Default: ``tokens``
        layer (int, optional): Number of the layer, from 0; negative ones count from the
            last. Default: -1
        heads (int or sequence of int, optional): Numbers of the heads, from 0.
            Default: None, all
        view (str, optional): ``"heads"``: a grid for each head; ``"lines"``: lines
            between tokens, of one head, or of the mean over several.
            Default: ``"heads"``
        title (str, optional): What stands above. Default: the layer and the heads
        unit (str, optional): What the weights are. Default: ``"attention weight"``
        signed (bool, optional): Whether weights have two sides, as gradients have.
            Default: None, whether one lies below zero
        limit (float, optional): The magnitude of the strongest colour.
            Default: the largest
        special (collection of str, optional): The tokens that the tokenizer added.
            Default: None, those of the known tokenizers

    Returns:
        *GridPicture*, or *LinePicture* for ``view="lines"``.

    Raises:
        InputError: There is no such layer or head, the shape does not belong to the
            tokens, or an option is unknown.

    Examples::

        >>> output = model(**batch, output_attentions=True)
        >>> draw_attention(output.attentions, tokens, layer=0).save("heads.png")
        >>> draw_attention(output.attentions, tokens, heads=3, view="lines")
    """
    if view not in ("heads", "lines"):
        raise InputError(f"view={view!r}; expected heads or lines.")
    layers = _layers(maps)
    if not -len(layers) <= layer < len(layers):
        raise InputError(
            f"layer={layer} of {len(layers)}; expected {-len(layers)} to "
            f"{len(layers) - 1}."
        )
    number = layer % len(layers)
    values = _map(layers[number], number)
    rows = token_axis(tokens, special, name="attending token")
    columns = token_axis(
        tokens if keys is None else keys, special, name="attended token"
    )
    if values.shape[1:] != (len(rows), len(columns)):
        raise InputError(
            f"the map of layer {number} has shape {values.shape} for {len(rows)} "
            f"tokens and {len(columns)} keys; expected (heads, {len(rows)}, "
            f"{len(columns)}). Pass keys= where they are other tokens, and take one "
            "example of a batch, without its padding."
        )
    chosen = _heads(heads, len(values))
    whole = f"Layer {number}" if len(layers) > 1 else "One layer"
    if view == "heads":
        panels = [Panel(values=values[h], name=f"head {h}") for h in chosen]
        named = f"head {chosen[0]}" if len(chosen) == 1 else "heads"
    else:
        panels = [Panel(values=values[chosen].mean(axis=0))]
        named = f"mean of {len(chosen)} heads"
        named = f"head {chosen[0]}" if len(chosen) == 1 else named
    largest = scale_limit(np.stack([panel.values for panel in panels]))
    grid = make_grid(
        panels,
        rows,
        columns,
        title=f"{whole}, {named}" if title is None else title,
        unit=unit,
        signed=signed,
        limit=largest if limit is None else limit,
    )
    if view == "heads":
        return grid
    picture = LinePicture(
        weights=panels[0].values,
        left=rows,
        right=columns,
        scale=grid.scale,
        title=grid.title,
        notes=grid.notes,
    )
    drawn, there = len(picture.lines), int(np.count_nonzero(picture.weights))
    if drawn == there:
        return picture
    note = f"The {drawn:,} largest of {there:,} weights are drawn as lines."
    return replace(picture, notes=(*picture.notes, note))


def _layers(maps: Any) -> list[Any]:
    """Return one map for each layer."""
    if isinstance(maps, HasAttention):
        return [maps]
    if isinstance(maps, (Tensor, np.ndarray)):
        if maps.ndim not in (3, 4, 5):
            raise InputError(
                f"maps have shape {tuple(maps.shape)}; expected (heads, queries, keys) "
                "of one layer, with a batch dimension of 1 in front or not, and layers "
                "before that."
            )
        return list(maps) if maps.ndim == 5 else [maps]
    layers = [layer for layer in maps if layer is not None]
    if not layers:
        raise InputError(
            "there is no attention map. Hugging Face models return them with "
            "output_attentions=True, if loaded with attn_implementation='eager'."
        )
    return layers


def _map(layer: Any, number: int) -> np.ndarray:
    """Return the map of one layer, shape ``(heads, queries, keys)``."""
    given = layer.attention if isinstance(layer, HasAttention) else layer
    array = to_array(given, f"weights of layer {number}")
    shape = array.shape
    if array.ndim == 4 and shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise InputError(
            f"the map of layer {number} has shape {shape}; expected (heads, queries, "
            "keys), with a batch dimension of 1 in front or not. Take one example of "
            "a batch: [layer[i] for layer in maps]."
        )
    return array


def _heads(heads: int | Sequence[int] | None, count: int) -> list[int]:
    if heads is None:
        return list(range(count))
    chosen = [heads] if isinstance(heads, int) else [int(head) for head in heads]
    if not chosen or not all(-count <= head < count for head in chosen):
        raise InputError(
            f"heads={heads!r} of {count}; expected numbers from 0 to {count - 1}."
        )
    return [head % count for head in chosen]
