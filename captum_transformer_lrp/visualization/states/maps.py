"""What masks keep of one text, hidden state by hidden state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ..._files import write
from ...errors import InputError
from ...models.pieces import Piece, token_labels, word_groups, word_text
from ...models.prediction import ClassScore
from ...report.blocks import (
    Axis,
    Block,
    ColorScale,
    Facts,
    Grid,
    Heading,
    Legend,
    Panel,
    Paragraph,
)
from ...report.saving import check_suffix
from ...report.shown import Shown, Theme, Together
from .names import StateNames, state_names

if TYPE_CHECKING:
    from .groups import KeptTable

JSON_SCHEMA = "captum_transformer_lrp.kept_map/1"
SUFFIXES = (".html", ".json", ".png", ".pdf", ".svg")

#: from a probability to a colour
KEPT = ColorScale(
    limit=1.0,
    signed=False,
    unit="probability that the token is kept",
    names=("0 dropped", "1 kept"),
    meaning="Colour scale: from 0, dropped, the colour of the page, to 1, kept, "
    "orange; probability that the token is kept",
)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class KeptMap(Shown):
    """P(kept) of each token of a text at each hidden state: the picture of DiffMask.

    Rows are hidden states in the order in which the model computes them, the embedding
    on top; columns are tokens (De Cao et al. 2020, arXiv 2004.14992, Figure 1).

    Args:
        model (str): Name of the model.
        text (str): The text as it was given.
        pieces (tuple of Piece): The tokens that the model saw, in their order.
        states (tuple of str): The hidden states, as ``DiffMask.states`` lists them.
        kept (np.ndarray): Probability that the token is kept, 0 to 1, in float64, shape
            ``(states, tokens)``.
        prediction (ClassScore): What the model predicts with nothing masked.
        mode (str): ``"hidden"`` or ``"input"``, as of ``DiffMask``.
        margin (float): What masks may cost on average, in nats.
        masks (str): Where the masks come from, such as their folder.
        always_kept (tuple of bool, optional): The tokens that the masks were not
            allowed to drop; they count in no average. Default: none
        next_token (bool, optional): Whether the prediction is the next token of a
            language model. Default: False
        notes (tuple of str, optional): What a reader should know. Default: ()

    Raises:
        InputError: The shapes do not belong together, or a number is no probability.
    """

    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    _writers: ClassVar[Mapping[str, str]] = {".json": "to_json"}

    model: str
    text: str
    pieces: tuple[Piece, ...] = field(repr=False)
    states: tuple[str, ...]
    kept: np.ndarray = field(repr=False)
    prediction: ClassScore
    mode: Literal["hidden", "input"]
    margin: float
    masks: str
    always_kept: tuple[bool, ...] = field(default=(), repr=False)
    next_token: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that the numbers are probabilities of these states and tokens."""
        expected = (len(self.states), len(self.pieces))
        if self.kept.shape != expected or 0 in expected:
            raise InputError(
                f"kept has shape {self.kept.shape}; expected one number for each of "
                f"{expected[0]} states and {expected[1]} tokens. The map of one text "
                "is a row of DiffMask.attribute, without the padding."
            )
        if not ((self.kept >= 0) & (self.kept <= 1)).all():  # NaN is neither
            raise InputError(
                f"kept lies between {self.kept.min():.3g} and {self.kept.max():.3g}; "
                "expected probabilities, 0 to 1."
            )
        if len(self.always_kept) not in (0, expected[1]):
            raise InputError(
                f"always_kept has {len(self.always_kept)} entries for {expected[1]} "
                "tokens."
            )

    # --------------------------------------------------------------------- what it is

    @cached_property
    def names(self) -> StateNames:
        """Short names of the hidden states."""
        return state_names(self.states)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The readable tokens; a piece within a word starts with a hyphen."""
        return token_labels(self.pieces)

    @property
    def words(self) -> tuple[str, ...]:
        """For each token the word that it belongs to."""
        written = []
        for group in word_groups(self.pieces):
            written += [word_text([self.pieces[i] for i in group])] * len(group)
        return tuple(written)

    @property
    def free(self) -> np.ndarray:
        """Which tokens the masks may drop, True or False, shape ``(tokens,)``."""
        if not self.always_kept:
            return np.ones(len(self.pieces), dtype=bool)
        return ~np.asarray(self.always_kept)

    @property
    def kept_fraction(self) -> np.ndarray:
        """Mean of P(kept) over the tokens that masks may drop, shape ``(states,)``.

        1 where there is no such token.
        """
        if not self.free.any():
            return np.ones(len(self.states))
        return np.asarray(self.kept[:, self.free].mean(axis=1))

    # ------------------------------------------------------------------- what it says

    @property
    def target_name(self) -> str:
        """The prediction in words, such as ``“positive”``."""
        name = f"“{self.prediction.name}”"
        return f"the next token {name}" if self.next_token else name

    @property
    def question(self) -> str:
        """The question that the map answers."""
        if self.mode == "hidden":
            return f"Up to which layer does {self.target_name} need each token?"
        return f"Which tokens does {self.target_name} need?"

    @property
    def answer(self) -> str:
        """What the model predicts, in one sentence."""
        return f"The model predicts {self.prediction}."

    @property
    def summary(self) -> str:
        """What the numbers mean, in plain words."""
        if self.mode == "hidden":
            meaning = (
                "Where it is near 0, the prediction no longer needs the token's hidden "
                "state: one vector, the same in all texts, can take its place. What "
                "the token said may have moved to other tokens before."
            )
        else:
            meaning = (
                "Where it is near 0, the token can be left out of the input, and the "
                "states up to this one suffice to tell. Probabilities can only fall "
                "from state to state; the last shows the tokens that the prediction "
                "needs."
            )
        fixed = ""
        if not self.free.all():
            fixed = (
                " Hatched or dashed tokens were always kept; they do not count in the "
                "mean."
            )
        return (
            f"Each number is the probability that a token is kept, 0 to 1. {meaning} "
            "The masks were trained to change predictions by at most "
            f"{self.margin:.3g} nats on average.{fixed}"
        )

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """Names and values of what a reader should know beside the numbers."""
        what = "each state" if self.mode == "hidden" else "the input"
        return (
            ("Prediction", str(self.prediction)),
            ("Masked", f"{what} ({self.mode} mode)"),
            ("Margin", f"{self.margin:.3g} nats"),
            ("Method", "DiffMask"),
            ("Masks", self.masks),
            ("Model", self.model),
        )

    # ---------------------------------------------------------------------- as others

    def to_dict(self) -> dict[str, Any]:
        """Return what :meth:`to_json` writes, as Python objects."""
        free = self.free
        tokens = [
            {
                "token": piece.token,
                "text": piece.text,
                "special": piece.special,
                "space_before": piece.space_before,
                "always_kept": not may_drop,
            }
            for piece, may_drop in zip(self.pieces, free.tolist(), strict=True)
        ]
        rows = zip(
            self.states,
            self.names.labels,
            self.kept_fraction.tolist(),
            self.kept.tolist(),
            strict=True,
        )
        keys = ("place", "label", "kept_fraction", "kept")
        return {
            "schema": JSON_SCHEMA,
            "model": self.model,
            "method": "DiffMask",
            "masks": self.masks,
            "mode": self.mode,
            "margin": self.margin,
            "prediction": asdict(self.prediction),
            "next_token": self.next_token,
            "text": self.text,
            "tokens": tokens,
            "states": [dict(zip(keys, row, strict=True)) for row in rows],
            "notes": list(self.notes),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """Return the map as JSON, the same keys in every release of a schema.

        ``schema`` (``"captum_transformer_lrp.kept_map/1"``), ``model``, ``method``,
        ``masks``, ``mode``, ``margin`` (nats), ``prediction`` (``index``, ``name``,
        ``logit``, ``probability`` or null), ``next_token``, ``text``, ``tokens`` (each
        ``token``, ``text``, ``special``, ``space_before``, ``always_kept``), ``states``
        from the first to the last (each ``place``, ``label``, ``kept_fraction`` and
        ``kept``, one probability per token) and ``notes``.
        """
        return json.dumps(
            self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False
        )

    def blocks(self) -> Iterator[Block]:
        """Yield what is shown: the heat map between its words."""
        yield Heading(text=self.question)
        yield Paragraph(text=self.answer, kind="answer")
        yield Paragraph(text=self.text, kind="input")
        names = self.names
        yield Grid(
            panels=(Panel(values=self.kept),),
            rows=Axis(
                name="hidden state, from the first to the last",
                labels=names.labels,
                ticks=names.ticks,
                hints=self.states,
            ),
            columns=Axis(
                name="token",
                labels=self.tokens,
                special=tuple(piece.special for piece in self.pieces),
                breaks=tuple(piece.space_before for piece in self.pieces),
            ),
            scale=KEPT,
            fixed=() if self.free.all() else tuple((~self.free).tolist()),
            means=self.kept_fraction,
        )
        yield Legend(scale=KEPT)
        short = names.meaning or "; ".join(
            f"{tick}: {label}"
            for tick, label in zip(names.ticks, names.labels, strict=True)
        )
        prediction, *facts = self.facts
        yield Facts(
            pairs=(prediction, ("Columns", short), *facts),
            brief=tuple(name for name, _ in facts),
        )
        yield Paragraph(text=self.summary, kind="meaning")
        for note in self.notes:
            yield Paragraph(text=note)

    @property
    def alt(self) -> str:
        """The map in words: how much is kept, and what longest."""
        first, last = (f"{float(self.kept_fraction[i]):.0%}" for i in (0, -1))
        own = np.where(self.free & [not p.special for p in self.pieces])[0]
        found = (
            f"Heat map of {len(self.states)} hidden states, from the first to the "
            f"last, and {len(self.pieces)} tokens. {first} of the tokens are kept at "
            f"the first state and {last} at the last."
        )
        if len(own):
            sums = self.kept[:, own].sum(axis=0)
            order = own[np.argsort(-sums, kind="stable")[:3]]
            found += f" Kept longest: {', '.join(self.tokens[i] for i in order)}."
        return found


def save_maps(
    maps: Sequence[KeptMap],
    path: str | Path,
    *,
    table: KeptTable | None = None,
    title: str | None = None,
    lead: str | None = None,
    theme: Theme = "light",
    dpi: int = 160,
) -> Path:
    """Write maps into one file by its suffix: .html, .json, .png, .pdf or .svg.

    JSON is one object for one map (:meth:`KeptMap.to_json`) and an array of such
    objects for several.

    Args:
        maps (sequence of KeptMap): What to write, in this order.
        path (str or Path): The file.
        table (KeptTable, optional): Means over groups of tokens, written below the maps
            of a page or figure; JSON leaves it out. Default: None
        title (str, optional): Heading of an HTML page. Default: None
        lead (str, optional): A paragraph below that heading. Default: None
        theme (str, optional): ``"light"`` or ``"dark"`` of a picture.
            Default: ``"light"``
        dpi (int, optional): Pixels per inch of a PNG. Default: 160

    Returns:
        *Path*: The file that was written.

    Raises:
        InputError: There is no map, or more than a picture can hold.
        UnknownNameError: The suffix is another one.
    """
    path = Path(path)
    if not maps:
        raise InputError("expected at least one map to save, got none")
    if check_suffix(path, SUFFIXES) != ".json":
        results: list[Shown] = [*maps, *([] if table is None else [table])]
        if title is None and len(results) > 1:
            title = "What the predictions need, layer by layer"
        every = Together(results, title=title, lead=lead)
        return every.save(path, theme=theme, dpi=dpi)
    found = [m.to_dict() for m in maps]
    written = found[0] if len(found) == 1 else found
    text = json.dumps(written, indent=2, ensure_ascii=False, allow_nan=False)
    write(path, text + "\n")
    return path
