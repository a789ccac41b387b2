"""The inputs of a model as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import OutputError
from ..explanation import ImageExplanation, Mark, TextExplanation
from ..models.inputs import seen_picture
from ..models.loading import patch_grid_of
from ..models.pieces import Piece, read_pieces
from ..report.blocks import Outline
from .asking import Read

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadText(Read):
    """A text, or what of a sequence of tokens belongs to it.

    Args:
        text (str): The text.
        pieces (tuple of Piece): Its tokens.
        at (sequence of int, optional): Where they are in the sequence.
            Default: None, from its beginning
        marks (tuple of Mark, optional): What to point out, such as an answer.
            Default: ()
        key (str, optional): Default: ``"input_ids"``
        name (str, optional): Default: ``"text"``
    """

    text: str
    pieces: tuple[Piece, ...]
    at: Sequence[int] | None = None
    marks: tuple[Mark, ...] = ()
    key: str = "input_ids"
    name: str = "text"

    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> TextExplanation:
        """Return the text with the scores of its tokens."""
        values = scores[0].reshape(scores.shape[1], -1).sum(-1)
        at = range(len(self.pieces)) if self.at is None else self.at
        return TextExplanation(
            scores=values[torch.tensor(list(at), dtype=torch.long)].numpy(),
            text=self.text,
            pieces=self.pieces,
            marks=self.marks,
            **said,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadPicture(Read):
    """A picture as the model sees it.

    Args:
        image (PIL.Image.Image): The picture, of the size of the pixels.
        patch_grid (tuple of int, optional): Rows and columns of the model's patches.
            Default: None
        outlines (tuple of Outline, optional): What to point out. Default: ()
        frame (int, optional): Which of several pictures in the argument it is, such as
            the frames of a video or the tiles of a large one. Default: None, the only
            one
        black (Tensor, optional): A black picture as the model takes it, ``(1, channels,
            1, 1)``. Default: None, that is not known
        notes (tuple of str, optional): What a reader should know. Default: ()
        key (str, optional): Default: ``"pixel_values"``
        name (str, optional): Default: ``"picture"``
    """

    image: Image = field(repr=False)
    patch_grid: tuple[int, int] | None = None
    outlines: tuple[Outline, ...] = ()
    frame: int | None = None
    black: Tensor | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()
    key: str = "pixel_values"
    name: str = "picture"

    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> ImageExplanation:
        """Return the picture with the scores of its pixels, or patches."""
        if self.frame is not None:
            scores = scores.reshape(-1, *scores.shape[-3:])[self.frame][None]
        if scores.dim() != 4:
            raise OutputError(
                f"got scores of shape {tuple(scores.shape)} for a picture; expected "
                "(1, channels, height, width)"
            )
        values = scores[0].sum(0).numpy()
        grid = self.patch_grid
        if values.shape != (self.image.height, self.image.width):  # those of patches
            grid = (values.shape[0], values.shape[1])
        given = dict(said)
        given["notes"] = (*said.get("notes", ()), *self.notes)
        return ImageExplanation(
            scores=values,
            image=self.image,
            patch_grid=grid,
            outlines=self.outlines,
            **given,
        )

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch, or a 14th of the longer side, in pixels."""
        height, width = self.image.height, self.image.width
        if self.patch_grid is None:
            side = -(-max(height, width) // 14)
            return side, side
        rows, columns = self.patch_grid
        return max(1, height // rows), max(1, width // columns)


def read_picture(
    pipe: Any,
    inputs: Mapping[str, Any],
    *,
    outlines: Sequence[Outline] = (),
    frame: int | None = None,
    key: str = "pixel_values",
    name: str = "picture",
) -> ReadPicture:
    """Return the picture of a batch of one as the model sees it.

    Args:
        pipe (Any): the pipeline.
        inputs (Mapping): what the model was called with.
        outlines (sequence of Outline, optional): what to point out. Default: ()
        frame (int, optional): which of several pictures in the argument, such as the
            frames of a video. Default: None, the only one
        key (str, optional): the argument that holds it. Default: ``"pixel_values"``
        name (str, optional): what it is called. Default: ``"picture"``
    """
    pixels = inputs[key]
    pixels = pixels.reshape(-1, *pixels.shape[-3:])[frame or 0]
    mean, std = _normalisation(pipe)
    image, notes = seen_picture(pixels, mean, std)
    black = None
    if mean is not None and std is not None:
        black = (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1)
    return ReadPicture(
        image=image,
        patch_grid=patch_grid_of(pipe.model.config, image.height, image.width),
        outlines=tuple(outlines),
        frame=frame,
        black=None if black is None else black.to(pixels),
        notes=notes,
        key=key,
        name=name,
    )


def _normalisation(pipe: Any) -> tuple[Any, Any]:
    """Return mean and standard deviation of the image processor; None if unknown."""
    for name in ("image_processor", "video_processor", "processor"):
        found = getattr(pipe, name, None)
        mean, std = (getattr(found, f"image_{n}", None) for n in ("mean", "std"))
        if getattr(found, "do_normalize", False) and mean and std:
            return list(mean), list(std)
        if getattr(found, "do_rescale", False):
            return [0.0] * 3, [1.0] * 3
    return None, None


def pieces_of(
    tokenizer: Any, ids: Sequence[int], text: Any = None, pair: Any = None
) -> tuple[Piece, ...]:
    """Return the readable tokens of a text, or of two in one sequence.

    Where the tokenizer makes the same tokens of the texts once more, they are cut out
    of the texts, with their case and the tokenizer's own words; else they are read from
    the vocabulary.

    Args:
        tokenizer (Any): A Hugging Face tokenizer.
        ids (sequence of int): What the model was given, without padding.
        text (str, optional): The text. Default: None
        pair (str, optional): The second one. Default: None
    """
    ids = [int(i) for i in ids]
    fast = bool(getattr(tokenizer, "is_fast", False))
    if fast and isinstance(text, str) and isinstance(pair, (str, type(None))):
        for limit in ({}, {"truncation": True, "max_length": len(ids)}):
            found = tokenizer(
                text, pair, verbose=False, return_offsets_mapping=True, **limit
            )
            if list(found["input_ids"]) == ids:
                return _from_texts(tokenizer, ids, found, (text, pair))
    return read_pieces(tokenizer, ids)


def _from_texts(
    tokenizer: Any, ids: Sequence[int], found: Any, texts: tuple[str, str | None]
) -> tuple[Piece, ...]:
    """Return the tokens of one or two texts, each read from its own."""
    which, words = found.sequence_ids(), found.word_ids()
    offsets = found["offset_mapping"]
    pieces: list[Piece] = []
    start = 0
    while start < len(ids):
        end = start + 1
        while end < len(ids) and which[end] == which[start]:
            end += 1
        text = None if which[start] is None else texts[which[start]]
        if text is None:
            part: tuple[Piece, ...] = tuple(
                replace(piece, special=True)
                for piece in read_pieces(tokenizer, ids[start:end])
            )
        else:
            part = read_pieces(
                tokenizer,
                ids[start:end],
                text=text,
                offsets=offsets[start:end],
                word_ids=words[start:end],
            )
        if pieces:
            part = (replace(part[0], space_before=True), *part[1:])
        pieces += part
        start = end
    return tuple(pieces)


def without_padding(inputs: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the token ids of a batch of one without padding, and where they are."""
    ids = inputs["input_ids"][0]
    mask = inputs.get("attention_mask")
    real = torch.ones_like(ids) if mask is None else mask[0]
    if real.shape != ids.shape:
        real = torch.ones_like(ids)
    at = real.nonzero().flatten().tolist()
    return ids[at].tolist(), at


def read_text(
    pipe: Any,
    inputs: Mapping[str, Any],
    text: Any = None,
    pair: Any = None,
    *,
    marked: Sequence[Mark] = (),
    name: str = "text",
) -> ReadText:
    """Return the tokens of a batch of one as a person reads them.

    Args:
        pipe (Any): the pipeline.
        inputs (Mapping): what the model was called with.
        text (Any, optional): what was tokenised. Default: None
        pair (Any, optional): the second text of the sequence. Default: None
        marked (sequence of Mark, optional): what to point out, by places in the
            sequence. Default: ()
        name (str, optional): what the text is called. Default: ``"text"``
    """
    ids, at = without_padding(inputs)
    pieces = pieces_of(pipe.tokenizer, ids, text, pair)
    places = {place: number for number, place in enumerate(at)}
    marks = tuple(
        Mark(start=places[m.start], end=places[m.end - 1] + 1, name=m.name)
        for m in marked
        if m.start in places and m.end - 1 in places
    )
    written = text if isinstance(text, str) else _written(pieces)
    if isinstance(pair, str):
        written = f"{written} {pair}"
    return ReadText(text=written, pieces=pieces, at=at, marks=marks, name=name)


def _written(pieces: Sequence[Piece]) -> str:
    return "".join(
        (" " if piece.space_before else "") + piece.text
        for piece in pieces
        if not piece.special
    ).strip()


def words_of(pipe: Any, inputs: Mapping[str, Any], tokens: Sequence[int]) -> str:
    """Return tokens of a batch of one as text."""
    ids = [int(inputs["input_ids"][0, i]) for i in tokens]
    found: str = pipe.tokenizer.decode(ids)
    return found.strip()
