"""Scores in rows and columns: layers, heads, and tokens against tokens."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import InputError
from ..models.pieces import Piece, pieces_of_tokens, token_labels, word_groups
from ..report.colors import (
    DARK,
    KEPT_DARK,
    KEPT_LIGHT,
    LIGHT,
    scale_limit,
)
from ..report.image import data_uri, transparent
from .arrays import Features, layer_scores, to_array
from .picture import ColorScale, Picture
from .text import check_limit, check_signed

if TYPE_CHECKING:
    from ..report.page import Page

# In inches.
_ROW, _LEAST_CELL, _WIDEST_CELL = 0.25, 0.16, 0.62
_SPACING, _TURNED_SPACING = 0.125, 0.16  # of labels, at least
_LONGEST = 1.4  # of a label
_TALLEST = 7.5  # of a grid whose columns are not cut into panels
_GAP = 0.16
# In points.
_LABEL, _SMALL, _NUMBER = 9.0, 7.0, 7.0
_ANGLE = 60  # of column labels, in degrees
_FEW_ROWS = 40  # up to which columns are cut into panels
_COLUMNS = 40  # of a table in HTML, side by side
_TABLE_CELLS = 8000  # beyond which HTML shows pixels
_PER_ROW = 4  # panels side by side
_THINNED = 12  # labels on a small panel in HTML
_PER_INCH = 100  # cells of a figure, at most; of more the largest is shown
_SMALL_PIXELS = 200  # cells along a side of a small panel in HTML, likewise


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What stands along one side of a grid.

    Args:
        name (str): What the labels are, such as ``"token"``.
        labels (tuple of str): One for each row or column.
        special (tuple of bool): Which of them the tokenizer added; ``()`` for none.
        breaks (tuple of bool): Before which of them a line may break; ``()`` for all.
    """

    name: str
    labels: tuple[str, ...]
    special: tuple[bool, ...] = ()
    breaks: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def is_special(self, number: int) -> bool:
        """Return whether the tokenizer added this one."""
        return bool(self.special) and self.special[number]

    def runs(self, most: int) -> Iterator[slice]:
        """Cut into runs of at most ``most``, before a word where possible."""
        start, count = 0, len(self)
        while start < count:
            left = count - start
            # Runs of about equal length, so that none is left with two.
            stop = start + -(-left // -(-left // most))
            if stop < count and self.breaks:
                inside = range(stop, start + most // 2, -1)
                stop = next((i for i in inside if self.breaks[i]), stop)
            yield slice(start, stop)
            start = stop


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """One grid of scores, shape ``(rows, columns)``, with its name."""

    values: np.ndarray = field(repr=False)
    name: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
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
        size = f"{_count(self.rows)} and {_count(self.columns)}"
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

    def strongest(self, count: int) -> list[tuple[str, float]]:
        """Return names and scores of the cells of largest magnitude."""
        values = np.stack([panel.values for panel in self.panels])
        order = np.argsort(-np.abs(values), axis=None, kind="stable")[:count]
        found = []
        for p, r, c in zip(*np.unravel_index(order, values.shape), strict=True):
            place = f"{_place(self.rows, int(r))}, {_place(self.columns, int(c))}"
            if len(self.panels) > 1:
                place = f"{self.panels[int(p)].name}, {place}"
            found.append((place, float(values[p, r, c])))
        return found

    # ------------------------------------------------------------------------ figure

    def _page(self, theme: str) -> Page:
        from ..report.page import Page

        page = Page(theme=theme)
        if self.title:
            page.line(self.title, size=16, weight="bold")
            page.y += 0.1
        if len(self.panels) > 1:
            self._draw_several(page)
        elif len(self.rows) <= _FEW_ROWS:
            self._draw_runs(page)
        else:
            self._draw_fitted(page)
        page.y += 0.12
        low, high = self.scale.ends
        page.legend(low, high, self.scale.colors(page.theme), unit=self.scale.unit)
        axes = f"rows: {self.rows.name}; columns: {self.columns.name}"
        page.line(axes, size=8.5, color=page.theme.soft)
        return page

    def _draw_runs(self, page: Page) -> None:
        """Draw the grid in panels of as many columns as the page is wide."""
        (panel,) = self.panels
        left = _label_width(page, self.rows, _LABEL)
        runs = list(self.columns.runs(int((page.room - left) / _LEAST_CELL)))
        most = max(run.stop - run.start for run in runs)
        labels = _shortened(page, self.columns, _LABEL)
        widest = max(page.measure(label, size=_LABEL) for label in labels) + 0.1
        cell = min(_WIDEST_CELL, (page.room - left) / most)
        turned = widest > cell
        if turned:
            cell = min(cell, 0.42)
        for number, run in enumerate(runs):
            page.y += 0.2 * bool(number)
            x = page.margin + left
            _draw_columns(page, x, cell, self.columns, labels, run, _LABEL, turned)
            _draw_rows(page, x, _ROW, self.rows, _LABEL)
            self._draw_cells(page, x, panel.values[:, run], (cell, _ROW))
            page.y += len(self.rows) * _ROW

    def _draw_fitted(self, page: Page) -> None:
        """Draw the grid as large as the page, with as many labels as have room."""
        (panel,) = self.panels
        left = _label_width(page, self.rows, _SMALL)
        # Turned labels lean out to the right.
        room = page.room - left - _LONGEST * math.cos(math.radians(_ANGLE))
        cell = min(0.3, room / len(self.columns)), min(0.3, _TALLEST / len(self.rows))
        side = min(cell) if max(cell) < 3 * min(cell) else 0
        width, height = (side, side) if side else cell
        x = page.margin + left
        labels = _shortened(page, self.columns, _SMALL)
        every = slice(0, len(self.columns))
        _draw_columns(page, x, width, self.columns, labels, every, _SMALL, True)
        _draw_rows(page, x, height, self.rows, _SMALL)
        self._draw_cells(page, x, panel.values, (width, height))
        page.y += height * len(self.rows)

    def _draw_several(self, page: Page) -> None:
        """Draw small grids beside each other, labelled on the left and on top."""
        left = _label_width(page, self.rows, _SMALL, longest=0.8)
        across = 2 if len(self.panels) <= _PER_ROW else _PER_ROW
        room = (page.room - left - (across - 1) * _GAP) / across
        width = min(0.3, room / len(self.columns))
        height = min(width, 2 * room / len(self.rows))
        labels = _shortened(page, self.columns, _SMALL, 0.8)
        every = slice(0, len(self.columns))
        for start in range(0, len(self.panels), across):
            row = self.panels[start : start + across]
            top = page.y
            for number, panel in enumerate(row):
                page.y = top
                x = page.margin + left + number * (width * len(self.columns) + _GAP)
                if not start:
                    _draw_columns(
                        page, x, width, self.columns, labels, every, _SMALL, True
                    )
                if not number:
                    _draw_rows(page, x, height, self.rows, _SMALL, longest=0.8)
                self._draw_cells(page, x, panel.values, (width, height))
                page.y += height * len(self.rows) + 0.17
                page.text(x, page.y, panel.name, size=8.5, color=page.theme.soft)
            page.y += 0.16

    def _draw_cells(
        self, page: Page, x: float, values: np.ndarray, cell: tuple[float, float]
    ) -> None:
        """Fill cells from the page's ``y`` down; those with room have their number."""
        theme, signed = page.theme, self.scale.signed
        shares = values / self.scale.limit
        width, height = cell
        if values.size > 4000:
            size = width * values.shape[1], height * values.shape[0]
            most = (
                max(1, round(_PER_INCH * size[1])),
                max(1, round(_PER_INCH * size[0])),
            )
            pixels = self._pixels(pool_largest(shares, most), page)
            page.box(
                x - 0.01,
                page.y - 0.01,
                size[0] + 0.02,
                size[1] + 0.02,
                color=theme.line,
            )
            page.picture(x, page.y, *size, pixels)
            return
        page.cells(x, page.y, cell, theme.rgb(shares, signed=signed))
        if height < 0.15 or len(self.panels) > 1:
            return
        written = [[brief(float(v), self.scale) for v in row] for row in values]
        longest = max((text for row in written for text in row), key=len)
        if page.measure(longest, size=_NUMBER) + 0.06 > width:
            return
        for (row, column), share in np.ndenumerate(shares):
            page.text(
                x + (column + 0.5) * width,
                page.y + (row + 0.5) * height + 0.36 * _NUMBER / 72,
                written[row][column],
                size=_NUMBER,
                color=theme.ink_on(float(share), signed=signed),
                align="center",
            )

    def _pixels(self, shares: np.ndarray, page: Page) -> np.ndarray:
        """Return the colours of many cells, shape ``shares.shape + (3,)``."""
        colors = self.scale.colors(page.theme)
        start = self.scale.start
        place = (np.clip(shares, start, 1) - start) / (1 - start) * (len(colors) - 1)
        return np.asarray(colors[place.round().astype(int)])

    # -------------------------------------------------------------------------- HTML

    def _card(self) -> dict[str, Any]:
        cells = sum(panel.values.size for panel in self.panels)
        several = len(self.panels) > 1
        card = {
            "template": "grid.html",
            "scale": self.scale,
            "rows": self.rows.name,
            "columns": self.columns.name,
            "tables": [],
            "matrices": [],
            "small": several,
            "top": [
                {"name": name, "score": self.scale.write(score)}
                for name, score in self.strongest(10)
            ],
        }
        if cells <= _TABLE_CELLS and not several:
            return card | {"tables": list(self._tables())}
        matrices = [self._matrix(panel, thin=several) for panel in self.panels]
        return card | {"matrices": matrices}

    def _tables(self) -> Iterator[dict[str, Any]]:
        (panel,) = self.panels
        runs = list(self.columns.runs(_COLUMNS))
        for run in runs:
            caption = f"Rows: {self.rows.name}; columns: {self.columns.name}"
            if len(runs) > 1:
                caption += f", {run.start + 1} to {run.stop} of {len(self.columns)}"
            yield {
                "caption": caption,
                "heads": [
                    {
                        "label": self.columns.labels[i],
                        "special": self.columns.is_special(i),
                    }
                    for i in range(run.start, run.stop)
                ],
                "rows": [
                    {
                        "label": label,
                        "special": self.rows.is_special(number),
                        "cells": [_cell(float(v), self.scale) for v in values[run]],
                    }
                    for number, (label, values) in enumerate(
                        zip(self.rows.labels, panel.values, strict=True)
                    )
                ],
            }

    def _matrix(self, panel: Panel, *, thin: bool) -> dict[str, Any]:
        shares = panel.values / self.scale.limit
        if thin:
            shares = pool_largest(shares, (_SMALL_PIXELS, _SMALL_PIXELS))
        return {
            "name": panel.name,
            "picture": data_uri(transparent(shares)),
            "row_labels": list(_spread(self.rows, _THINNED if thin else None)),
            "column_labels": list(_spread(self.columns, _THINNED if thin else None)),
            "width": len(self.columns),
            "height": len(self.rows),
        }

    def __str__(self) -> str:
        head = [self.title] if self.title else []
        shown = "; ".join(_count(axis) for axis in (self.rows, self.columns))
        if len(self.panels) > 1:
            shown = f"{len(self.panels)} grids of {shown}"
        rows = [
            f"{self.scale.write(score):>10}  {name}"
            for name, score in self.strongest(10)
        ]
        return "\n".join([*head, f"{shown}; {self.scale.unit}", *rows, *self.notes])


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
        columns = Axis(name="token, from 0", labels=_numbers(first.shape[0]))
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

        >>> result = LLMTransformerLRP(AttnLRP(model), tokenizer).attribute(prompt)
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
    if isinstance(tokens, str) or len(tokens) == 0:
        raise InputError(
            f"tokens are {tokens!r}; expected a list of at least one token, as "
            "tokenizer.convert_ids_to_tokens(ids) returns it."
        )
    ready = tuple(token for token in tokens if isinstance(token, Piece))
    if len(ready) == len(tokens):
        pieces = ready
    else:
        pieces = pieces_of_tokens([str(token) for token in tokens], special=special)
    first = {group[0] for group in word_groups(pieces)}
    return Axis(
        name=name,
        labels=token_labels(pieces),
        special=tuple(piece.special for piece in pieces),
        breaks=tuple(i in first for i in range(len(pieces))),
    )


def brief(value: float, scale: ColorScale) -> str:
    """Return a score in few characters: two digits for the largest of the scale."""
    magnitude = math.floor(math.log10(scale.limit))
    if not -3 <= magnitude <= 3:
        return scale.write(value)
    decimals = max(0, 1 - magnitude)
    written = f"{value:.{decimals}f}"
    if float(written) == 0:
        return "0"
    sign = "+" if scale.signed and value > 0 else ""
    return sign + written.replace("-", "−").replace("0.", ".", 1)


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
        notes.append(
            "Scores beyond the colour scale have its strongest colour, such as "
            f"{name} with {scale.write(score)}."
        )
    if not values.any():
        notes.append("All scores are zero.")
    if len(panels) > 1 and max(values.shape[1:]) > _SMALL_PIXELS:
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
            f"scores have shape {values.shape} for {_count(rows)} and "
            f"{_count(columns)}; expected one number for each pair."
        )


def _named_axis(names: Sequence[str] | None, count: int, kind: str) -> Axis:
    if names is None:
        return Axis(name=f"{kind}, from 0", labels=_numbers(count))
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
        return Axis(name=f"{name}, from 0", labels=_numbers(count))
    return token_axis(tokens, special, name=name)


def _numbers(count: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(count))


def _count(axis: Axis) -> str:
    kind = axis.name.partition(",")[0]
    head, of, rest = kind.partition(" of ")
    return f"{len(axis)} {head}{'s' * (len(axis) != 1)}{of}{rest}"


def _place(axis: Axis, number: int) -> str:
    label = axis.labels[number]
    if axis.special:
        return f"“{label}”"
    return f"{axis.name.partition(',')[0]} {label}" if label.isdigit() else label


def _shortened(
    page: Page, axis: Axis, size: float, longest: float = _LONGEST
) -> list[str]:
    return [page.shortened(x, size=size, longest=longest) for x in axis.labels]


def _label_width(
    page: Page, axis: Axis, size: float, longest: float = _LONGEST
) -> float:
    labels = _shortened(page, axis, size, longest)
    return max(page.measure(label, size=size) for label in labels) + 0.1


def pool_largest(values: np.ndarray, most: tuple[int, int]) -> np.ndarray:
    """Return a grid of at most ``most`` rows and columns.

    Of the cells that share one, it has the value of largest magnitude: a single strong
    cell among many stays visible, which it would not in a picture that is shrunk.
    """
    for axis in (0, 1):
        count = values.shape[axis]
        if count <= most[axis]:
            continue
        starts = np.arange(most[axis]) * count // most[axis]
        high = np.maximum.reduceat(values, starts, axis=axis)
        low = np.minimum.reduceat(values, starts, axis=axis)
        values = np.where(high >= -low, high, low)
    return values


def _step(spacing: float, least: float = _SPACING) -> int:
    """Return at which distance labels have room, in rows or columns."""
    return max(1, math.ceil(least / spacing))


def _draw_columns(
    page: Page,
    x0: float,
    cell: float,
    axis: Axis,
    labels: Sequence[str],
    run: slice,
    size: float,
    turned: bool,
) -> None:
    """Write the labels of columns above a grid; ``page.y`` moves to its top."""
    least = _TURNED_SPACING if turned and cell < _LEAST_CELL else _SPACING
    chosen = range(run.start, run.stop, _step(cell, least))
    longest = max(page.measure(labels[i], size=size) for i in chosen)
    if turned:
        angle = math.radians(_ANGLE)
        page.y += longest * math.sin(angle) + size / 72 * math.cos(angle) + 0.04
    else:
        page.y += 1.4 * size / 72
    for i in chosen:
        x = x0 + (i - run.start + 0.5) * cell
        color = page.theme.soft if axis.is_special(i) else page.theme.ink
        page.text(
            x + 0.35 * size / 72 * turned,
            page.y - 0.06,
            labels[i],
            size=size,
            color=color,
            align="left" if turned else "center",
            rotation=_ANGLE * turned,
        )


def _draw_rows(
    page: Page,
    x0: float,
    cell: float,
    axis: Axis,
    size: float,
    *,
    longest: float = _LONGEST,
) -> None:
    """Write the labels of rows to the left of a grid, from the page's ``y`` down."""
    labels = _shortened(page, axis, size, longest)
    for i in range(0, len(axis), _step(cell)):
        y = page.y + (i + 0.5) * cell + 0.36 * size / 72
        color = page.theme.soft if axis.is_special(i) else page.theme.ink
        page.text(x0 - 0.08, y, labels[i], size=size, color=color, align="right")


def _cell(value: float, scale: ColorScale) -> dict[str, str]:
    """Return what the template shows of a cell: its number and its colours."""
    share = value / scale.limit
    light, dark = (LIGHT, DARK) if scale.signed else (KEPT_LIGHT, KEPT_DARK)
    cell = {
        "short": brief(value, scale),
        "exact": scale.write(value),
        "light": light.hex(share),
        "dark": dark.hex(share),
        "light_ink": LIGHT.ink,
        "dark_ink": DARK.ink,
    }
    if not scale.signed:
        cell |= {"light_ink": KEPT_LIGHT.ink(share), "dark_ink": KEPT_DARK.ink(share)}
    return cell


def _spread(axis: Axis, most: int | None) -> Iterator[dict[str, Any]]:
    """Yield labels and where they stand, in per cent; at most ``most`` of them."""
    step = 1 if most is None else -(-len(axis) // most)
    for i in range(0, len(axis), step):
        yield {
            "label": axis.labels[i],
            "special": axis.is_special(i),
            "place": round(100 * (i + 0.5) / len(axis), 3),
        }
