"""Attention maps: all heads of a layer side by side, or lines between tokens."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload, runtime_checkable

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..models.pieces import Piece
from ..report.colors import scale_limit
from .arrays import to_array
from .grid import Axis, GridPicture, Panel, make_grid, token_axis
from .picture import ColorScale, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..report.page import Page

View = Literal["heads", "lines"]

_WIDTH, _LINES_WIDTH = 6.6, 2.6  # inches, of the page and of what lies between tokens
_ROW, _TALLEST = 0.22, 18.0  # inches
_LABEL = 9.0  # points
_SPACING = 0.135  # inches between labels, at least
_LINES_PER_TOKEN = 8
_HTML_ROW, _HTML_ACROSS = 20, 320  # CSS pixels
_FAINTEST = 0.06  # share of the largest weight below which no line is drawn


@runtime_checkable
class HasAttention(Protocol):
    """A layer that holds its attention map, shape ``(examples, heads, n, m)``.

    :class:`captum_transformer_lrp.attribution.attention_maps.AttentionLayer` is one.
    """

    @property
    def attention(self) -> Tensor:
        """The map."""


@dataclass(frozen=True, kw_only=True, eq=False)
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
        shares = self.weights / self.scale.limit
        most = _LINES_PER_TOKEN * max(shares.shape)
        order = np.argsort(-np.abs(shares), axis=None, kind="stable")[:most]
        found = []
        for place in reversed(order.tolist()):
            row, column = divmod(place, shares.shape[1])
            share = float(np.clip(shares[row, column], -1, 1))
            if abs(share) >= _FAINTEST:
                found.append((row, column, share))
        return tuple(found)

    def _strongest(self, count: int) -> list[tuple[str, float]]:
        order = np.argsort(-np.abs(self.weights), axis=None, kind="stable")[:count]
        found = []
        for place in order.tolist():
            row, column = divmod(place, self.weights.shape[1])
            name = f"“{self.left.labels[row]}” to “{self.right.labels[column]}”"
            found.append((name, float(self.weights[row, column])))
        return found

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

    def _page(self, theme: str) -> Page:
        from ..report.page import Page

        page = Page(width=_WIDTH, theme=theme)
        if self.title:
            page.line(self.title, size=14, weight="bold")
            page.y += 0.1
        most = max(len(self.left), len(self.right))
        row = min(_ROW, _TALLEST / most)
        side = (page.room - _LINES_WIDTH) / 2
        x0 = page.margin + side
        x1 = x0 + _LINES_WIDTH
        page.y += 0.12
        for x, text, align in (
            (x0, self.left.name, "right"),
            (x1, self.right.name, "left"),
        ):
            page.text(x, page.y, text, size=8.5, color=page.theme.soft, align=align)
        page.y += 0.1
        step = max(1, math.ceil(_SPACING / row))
        size = min(_LABEL, 60 * row * step)
        for axis, x, align in (
            (self.left, x0 - 0.08, "right"),
            (self.right, x1 + 0.08, "left"),
        ):
            for i in range(0, len(axis), step):
                label = page.shortened(axis.labels[i], size=size, longest=side - 0.1)
                y = page.y + (i + 0.5) * row + 0.36 * size / 72
                color = page.theme.soft if axis.is_special(i) else page.theme.ink
                page.text(x, y, label, size=size, color=color, align=align)
        self._draw_lines(page, x0, x1, page.y, row)
        page.y += most * row + 0.12
        unit = f"strongest line: {self.scale.write(self.scale.limit)} {self.scale.unit}"
        page.line(unit, size=8.5, color=page.theme.soft)
        return page

    def _draw_lines(
        self, page: Page, x0: float, x1: float, top: float, row: float
    ) -> None:
        colors = page.theme.positive_line, page.theme.negative_line
        if not self.lines:
            return

        def artist(figure: Figure, page_height: float) -> None:
            from matplotlib.collections import LineCollection

            from ..report.page import in_inches

            inches = in_inches(figure)
            segments = [
                [(x0, top + (a + 0.5) * row), (x1, top + (b + 0.5) * row)]
                for a, b, _ in self.lines
            ]
            figure.add_artist(
                LineCollection(
                    segments,
                    colors=[colors[share < 0] for *_, share in self.lines],
                    alpha=[abs(share) for *_, share in self.lines],
                    linewidths=[0.6 + 1.9 * abs(share) for *_, share in self.lines],
                    transform=inches,
                    zorder=-1,
                )
            )

        page.artists.append(artist)

    def _card(self) -> dict[str, Any]:
        most = max(len(self.left), len(self.right))
        return {
            "template": "lines.html",
            "left": _column(self.left),
            "right": _column(self.right),
            "left_name": self.left.name,
            "right_name": self.right.name,
            "lines": [
                {
                    "from": (a + 0.5) * _HTML_ROW,
                    "to": (b + 0.5) * _HTML_ROW,
                    "share": round(abs(share), 3),
                    "width": round(0.8 + 2.6 * abs(share), 2),
                    "against": share < 0,
                    "name": f"{self.left.labels[a]} → {self.right.labels[b]}: "
                    f"{self.scale.write(float(self.weights[a, b]))}",
                }
                for a, b, share in self.lines
            ],
            "height": most * _HTML_ROW,
            "row": _HTML_ROW,
            "across": _HTML_ACROSS,
            "unit": f"{self.scale.write(self.scale.limit)} {self.scale.unit}",
            "top": [
                {"name": name, "score": self.scale.write(weight)}
                for name, weight in self._strongest(10)
            ],
        }

    def __str__(self) -> str:
        head = [self.title] if self.title else []
        rows = [
            f"{self.scale.write(weight):>10}  {name}"
            for name, weight in self._strongest(10)
        ]
        return "\n".join([*head, *rows, *self.notes])


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


def _column(axis: Axis) -> list[dict[str, Any]]:
    return [
        {"label": label, "special": axis.is_special(i), "y": (i + 0.5) * _HTML_ROW + 4}
        for i, label in enumerate(axis.labels)
    ]
