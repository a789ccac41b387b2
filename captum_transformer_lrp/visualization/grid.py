"""Scores in rows and columns: layers, heads, and tokens against tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..models.pieces import Piece, token_labels, word_groups
from ..report.blocks import Axis, Block, ColorScale, Grid, Legend, Panel, largest
from ..report.colors import scale_limit
from .arrays import Features, layer_scores, to_array
from .picture import Picture
from .text import beyond, check_limit, check_signed, pieces_of

_MANY = 200  # cells along a side of a small panel, of which the largest are shown


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class GridPicture(Picture):
    """Scores in rows and columns, one grid or several beside each other.

    Made by :func:`draw_layers`, :func:`draw_heads`, :func:`draw_matrix` and
    :func:`~captum_transformer_lrp.visualization.draw_attention`.

    Args:
        panels (tuple of Panel): The grids, all with the same rows and columns.
        rows (Axis): From top to bottom.
        columns (Axis): From left to right.
        scale (ColorScale): The colours of all panels.
        title (str): What stands above it; ``""`` for none.
        notes (tuple of str): What a reader should know, below it.
    """

    panels: tuple[Panel, ...]
    rows: Axis
    columns: Axis
    scale: ColorScale

    @property
    def alt(self) -> str:
        """The picture in full words."""
        size = f"{self.rows.count} and {self.columns.count}"
        what = f"Heat map of {size}"
        if len(self.panels) > 1:
            names = f"{self.panels[0].name} to {self.panels[-1].name}"
            what = f"{len(self.panels)} heat maps, {names}, each of {size}"
        write = self.scale.write
        top = "; ".join(
            f"{name} {write(score)}" for name, score in self.strongest(3) if score
        )
        largest = f"Largest magnitudes: {top}." if top else "All scores are zero."
        return f"{self._heading}{what}. {largest} {self.scale.words}."

    @property
    def grid(self) -> Grid:
        """The scores as a block."""
        return Grid(
            panels=self.panels, rows=self.rows, columns=self.columns, scale=self.scale
        )

    def strongest(self, count: int) -> list[tuple[str, float]]:
        """Return names and scores of the cells of largest magnitude."""
        return self.grid.strongest(count)

    def _scores(self) -> Iterator[Block]:
        yield self.grid
        yield Legend(scale=self.scale)

    def _numbers(self) -> Iterator[Block]:
        yield largest(self.strongest(10), self.scale, "Place")


# -------------------------------------------------------------------------- functions


def draw_layers(
    scores: Any,
    tokens: Sequence[str] | Sequence[Piece] | None = None,
    *,
    layers: Sequence[str] | None = None,
    title: str = "",
    unit: str = "attribution",
    features: Features = "sum",
    signed: bool | None = None,
    limit: float | None = None,
    special: Collection[str] | None = None,
) -> GridPicture:
    """Draw scores of tokens at each layer: a row for each layer, the first on top.

    Args:
        scores (Tensor, np.ndarray or sequence): One entry for each layer, such as
            ``LayerAttnLRP(model, blocks).attribute(...)`` or a tensor ``(layers,
            tokens)``; each entry ``(tokens,)`` or ``(tokens, features)``, with a batch
            dimension of 1 in front or not.
        tokens (sequence of str, optional): As ``tokenizer.convert_ids_to_tokens(ids)``
            returns them. Default: numbers from 0
        layers (sequence of str, optional): Names of the layers.
            Default: numbers from 0
        title (str, optional): What stands above. Default: none
        unit (str, optional): What the scores count. Default: ``"attribution"``
        features (str, optional): How features become one number: ``"sum"``, ``"norm"``
            or ``"mean"``. Default: ``"sum"``
        signed (bool, optional): Whether the colour scale has two sides.
            Default: None, whether a score lies below zero
        limit (float, optional): The magnitude of the strongest colour. Default: the
            largest among the tokens of the text itself; those that the tokenizer added
            may lie beyond the scale
        special (collection of str, optional): The tokens that the tokenizer added.
            Default: None, those of the known tokenizers

    Raises:
        InputError: Shapes do not belong together, a score is NaN or infinite, or an
            option is unknown.

    Examples::

        >>> blocks = list(model.bert.encoder.layer)
        >>> scores = LayerAttnLRP(model, blocks).attribute(batch, target=1)
        >>> draw_layers(scores, tokens, unit="relevance, in logits").save("layers.pdf")
    """
    if isinstance(scores, (Tensor, np.ndarray)) and scores.ndim < 2:
        raise InputError(
            f"scores have shape {tuple(scores.shape)}; expected one row for each layer "
            "and one column for each token."
        )
    if tokens is None:
        first = to_array(scores[0])
        first = first[0] if first.ndim > 1 and first.shape[0] == 1 else first
        columns = _numbered("token", first.shape[0])
    else:
        columns = token_axis(tokens, special, name="token")
    values = layer_scores(scores, len(columns), features)
    rows = _named_axis(layers, len(values), "layer")
    return make_grid([Panel(values=values)], rows, columns, title, unit, signed, limit)


def draw_heads(
    scores: Any,
    tokens: Sequence[str] | Sequence[Piece] | None = None,
    *,
    layers: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    title: str = "",
    unit: str = "attribution",
    signed: bool | None = None,
    limit: float | None = None,
    special: Collection[str] | None = None,
) -> GridPicture:
    """Draw scores of attention heads: layers by heads, or heads by tokens.

    Args:
        scores (Tensor, np.ndarray or sequence): Without ``tokens`` one score for each
            head, shape ``(layers, heads)`` or, for each layer, a tensor ``(heads,)``.
            With ``tokens`` shape ``(heads, tokens)``. A batch dimension of 1 in front
            of the whole or of each entry is dropped.
        tokens (sequence of str, optional): The columns, as
            ``tokenizer.convert_ids_to_tokens(ids)`` returns them. Default: None
        layers (sequence of str, optional): Names of the rows without ``tokens``.
            Default: numbers from 0
        heads (sequence of str, optional): Names of the heads. Default: numbers from 0
        title (str, optional): What stands above. Default: none
        unit (str, optional): What the scores count. Default: ``"attribution"``
        signed (bool, optional): Whether the colour scale has two sides.
            Default: None, whether a score lies below zero
        limit (float, optional): The magnitude of the strongest colour.
            Default: the largest among the scores
        special (collection of str, optional): The tokens that the tokenizer added.
            Default: None, those of the known tokenizers

    Raises:
        InputError: Shapes do not belong together, or a score is NaN or infinite.
    """
    values = _matrix(scores, "scores of heads")
    if tokens is None:
        rows = _named_axis(layers, values.shape[0], "layer")
        columns = _named_axis(heads, values.shape[1], "head")
    else:
        rows = _named_axis(heads, values.shape[0], "head")
        columns = token_axis(tokens, special, name="token")
    _check_shape(values, rows, columns)
    return make_grid([Panel(values=values)], rows, columns, title, unit, signed, limit)


def draw_matrix(
    scores: Any,
    rows: Sequence[str] | Sequence[Piece] | None = None,
    columns: Sequence[str] | Sequence[Piece] | None = None,
    *,
    title: str = "",
    unit: str = "attribution",
    row_name: str = "token",
    column_name: str = "token",
    signed: bool | None = None,
    limit: float | None = None,
    special: Collection[str] | None = None,
) -> GridPicture:
    """Draw scores of tokens against tokens.

    Args:
        scores (Tensor, np.ndarray or LLMAttributionResult): Shape ``(rows, columns)``,
            with a batch dimension of 1 in front or not. Captum's result of a language
            model, and ``LLMRelevance`` of this package, bring their tokens along: rows
            are the generated tokens and columns those of the prompt.
        rows (sequence of str, optional): As ``tokenizer.convert_ids_to_tokens(ids)``
            returns them. Default: those of the result, else numbers from 0
        columns (sequence of str, optional): Likewise. Default: likewise
        title (str, optional): What stands above. Default: none
        unit (str, optional): What the scores count. Default: ``"attribution"``
        row_name (str, optional): What the rows are.
            Default: ``"token"``, ``"generated token"`` for a result
        column_name (str, optional): What the columns are.
            Default: ``"token"``, ``"token of the prompt"`` for a result
        signed (bool, optional): Whether the colour scale has two sides.
            Default: None, whether a score lies below zero
        limit (float, optional): The magnitude of the strongest colour. Default: the
            largest among the tokens of the text itself; those that the tokenizer added
            may lie beyond the scale
        special (collection of str, optional): The tokens that the tokenizer added.
            Default: None, those of the known tokenizers

    Raises:
        InputError: Shapes do not belong together, or a score is NaN or infinite.

    Examples::

        >>> result = LLMTransformerLRP(model, tokenizer).attribute(prompt)
        >>> draw_matrix(result, unit="relevance, in logits").save("answer.html")
    """
    from captum.attr import LLMAttributionResult

    if isinstance(scores, LLMAttributionResult):
        rows = rows or list(scores.output_tokens)
        columns = columns or list(scores.input_tokens)
        row_name = "generated token" if row_name == "token" else row_name
        if column_name == "token":
            column_name = "token of the prompt"
        if scores.token_attr is None:
            rows, row_name = ["".join(map(str, rows))], "generated text"
            scores = to_array(scores.seq_attr)[None]
        else:
            scores = scores.token_attr
    values = _matrix(scores, "scores")
    top = _tokens_or_numbers(rows, values.shape[0], row_name, special)
    left = _tokens_or_numbers(columns, values.shape[1], column_name, special)
    _check_shape(values, top, left)
    return make_grid([Panel(values=values)], top, left, title, unit, signed, limit)


# ----------------------------------------------------------------------------- pieces


def token_axis(
    tokens: Sequence[str] | Sequence[Piece],
    special: Collection[str] | None = None,
    *,
    name: str,
) -> Axis:
    """Return the labels of tokens; a piece within a word starts with a hyphen.

    Raises:
        InputError: There is no token.
    """
    pieces = pieces_of(tokens, special)
    first = {group[0] for group in word_groups(pieces)}
    return Axis(
        name=name,
        labels=token_labels(pieces),
        special=tuple(piece.special for piece in pieces),
        breaks=tuple(i in first for i in range(len(pieces))),
    )


def make_grid(
    panels: Sequence[Panel],
    rows: Axis,
    columns: Axis,
    title: str,
    unit: str,
    signed: bool | None,
    limit: float | None,
) -> GridPicture:
    """Return a picture whose scale is that of the tokens of the text itself."""
    values = np.stack([panel.values for panel in panels])
    own_rows = [i for i in range(len(rows)) if not rows.is_special(i)]
    own_columns = [i for i in range(len(columns)) if not columns.is_special(i)]
    own = values[:, own_rows][:, :, own_columns]
    found = check_limit(limit) or scale_limit(own if own.size else values)
    if limit is None and own.size and not own.any():
        found = scale_limit(values)
    scale = ColorScale(limit=found, signed=check_signed(values, signed), unit=unit)
    notes = []
    largest = float(np.abs(values).max())
    if largest > found * (1 + 1e-9):
        (name, score), *_ = GridPicture(
            panels=tuple(panels), rows=rows, columns=columns, scale=scale
        ).strongest(1)
        notes.append(beyond(name, score, scale))
    if not values.any():
        notes.append("All scores are zero.")
    if len(panels) > 1 and max(values.shape[1:]) > _MANY:
        notes.append(
            "Where there are more cells than room, the largest of neighbours is shown."
        )
    return GridPicture(
        panels=tuple(panels),
        rows=rows,
        columns=columns,
        scale=scale,
        title=title,
        notes=tuple(notes),
    )


def _matrix(scores: Any, name: str) -> np.ndarray:
    array = to_array(scores, name)
    shape = array.shape
    if array.ndim == 3 and shape[0] == 1:
        array = array[0]
    elif array.ndim == 3 and shape[1] == 1:  # a list of layers, each of one example
        array = array[:, 0]
    if array.ndim != 2:
        raise InputError(
            f"{name} have shape {shape}; expected rows and columns, with a batch "
            "dimension of 1 or not. Take one example of a batch: scores[i]."
        )
    return array


def _check_shape(values: np.ndarray, rows: Axis, columns: Axis) -> None:
    if values.shape != (len(rows), len(columns)):
        raise InputError(
            f"scores have shape {values.shape} for {rows.count} and "
            f"{columns.count}; expected one number for each pair."
        )


def _named_axis(names: Sequence[str] | None, count: int, kind: str) -> Axis:
    if names is None:
        return _numbered(kind, count)
    if len(names) != count:
        raise InputError(f"{len(names)} names for {count} {kind}s.")
    return Axis(name=kind, labels=tuple(str(name) for name in names))


def _tokens_or_numbers(
    tokens: Sequence[str] | Sequence[Piece] | None,
    count: int,
    name: str,
    special: Collection[str] | None,
) -> Axis:
    if tokens is None:
        return _numbered(name, count)
    return token_axis(tokens, special, name=name)


def _numbered(kind: str, count: int) -> Axis:
    return Axis(name=f"{kind}, from 0", labels=tuple(map(str, range(count))))
