"""What to explain of a model's output, as functions with names.

A target takes what a model returns and gives one score per example, ``(examples,)``.
Relevance starts at what it reads, each number times the target's gradient there: of a
sum, a mean or a difference of logits these are their shares, and relevance is that of
the logits, added up; of what is not linear (a probability, an entropy) it is how the
score moves with each logit, and its sum need not be the score. ``attribute(target=
...)`` of every method takes a target, and so does
:class:`~captum_transformer_lrp.Explainer`::

    AttnLRP(model).attribute(inputs, target=Contrast("good", "bad"))
    AttnLRP(model).attribute(inputs, target=lambda output: output.logits[:, 0].sum(-1))

Names of classes are looked up in ``model.config``; where a model has none, pass the
index. Any function of the output will do as well.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .attribution.scores import output_tensor
from .errors import OutputError, TargetError, suggestion
from .models.prediction import places_of

__all__ = [
    "KL",
    "Aggregation",
    "Box",
    "Cells",
    "Contrast",
    "Entity",
    "Entropy",
    "Label",
    "LogProbability",
    "Mask",
    "Pixel",
    "Probability",
    "Prompted",
    "Segment",
    "Similarity",
    "Span",
    "Target",
    "Token",
    "Tokens",
]

#: a class, by its index or its name
Class: TypeAlias = "int | str"


@dataclass(frozen=True)
class Target:
    """A function of a model's output to one score per example."""

    @abstractmethod
    def __call__(self, output: Any) -> Tensor:
        """Return the scores, ``(examples,)``.

        Args:
            output (Any): what the model returned.

        Raises:
            TargetError: the output has no such class, token or place.
            OutputError: it is not of the kind that the target reads.
        """

    def for_model(self, model: Any) -> Target:
        """Return this target with the indices that its names have in a model.

        Args:
            model (Any): the model, which may have a ``config`` with ``label2id``.

        Raises:
            TargetError: the model has no class of that name, or knows no names.
        """
        changed: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.metadata.get("classes") and isinstance(value, (str, tuple)):
                changed[one.name] = _indices(value, model)
            elif isinstance(value, Target):
                changed[one.name] = value.for_model(model)
        return replace(self, **changed) if changed else self


#: of a field that holds the index or the name of a class
_A_CLASS = {"classes": True}


@dataclass(frozen=True)
class Label(Target):
    """The logit of a class, of logits ``(examples, classes)``.

    Args:
        label (int or str): the class.
    """

    label: Class = field(metadata=_A_CLASS)

    def __call__(self, output: Any) -> Tensor:
        """Return the logit of the class."""
        return _of_class(_logits(output, 2), self.label)


@dataclass(frozen=True)
class Token(Target):
    """The logit of a token, of logits ``(examples, tokens, vocabulary)``.

    Args:
        token (int): its identifier.
        position (int, optional): where it is predicted. Default: -1, the last
    """

    token: int
    position: int = -1

    def __call__(self, output: Any) -> Tensor:
        """Return the logit of the token."""
        logits = _logits(output, 3)
        return _at(_at(logits, self.position, "token"), self.token, "entry")


@dataclass(frozen=True)
class Tokens(Target):
    """The sum of the logits of several tokens, each where it is predicted.

    Of logits ``(examples, tokens, vocabulary)``, or ``(examples, frames, vocabulary)``
    of a model of speech: a word of several tokens, or in several frames.

    Args:
        tokens (tuple of int): their identifiers.
        positions (tuple of int): where each is predicted.
    """

    tokens: tuple[int, ...]
    positions: tuple[int, ...]

    def __call__(self, output: Any) -> Tensor:
        """Return the sum of the logits."""
        logits = _logits(output, 3)
        if not self.tokens or len(self.tokens) != len(self.positions):
            raise TargetError(
                f"expected a position for each token, got {len(self.tokens)} tokens "
                f"and {len(self.positions)} positions"
            )
        found = [
            _at(_at(logits, position, "token"), token, "entry")
            for token, position in zip(self.tokens, self.positions, strict=True)
        ]
        return torch.stack(found).sum(0)


@dataclass(frozen=True)
class Entity(Target):
    """The mean logit of a tag over the tokens of an entity.

    Of logits ``(examples, tokens, tags)``. A name such as ``"PER"`` stands for the tags
    ``B-PER`` and ``I-PER`` (and ``PER``), of which each token takes its higher one.

    Args:
        label (int or str): the tag, or the kind of entity.
        tokens (tuple of int, optional): which tokens. Default: None, of each example
            those whose highest tag is of this kind
    """

    label: Class | tuple[int, ...]
    tokens: tuple[int, ...] | None = None

    def for_model(self, model: Any) -> Entity:
        """Return this target with the indices of its tags."""
        if not isinstance(self.label, str):
            return self
        names = _names(model)
        tags = tuple(
            index
            for name, index in names.items()
            if name == self.label
            or (name[:2] in ("B-", "I-") and name[2:] == self.label)
        )
        if not tags:
            kinds = {n[2:] if n[:2] in ("B-", "I-") else n for n in names}
            raise TargetError(
                f"the model has no tag {self.label!r}."
                + suggestion(self.label, {*names, *kinds})
            )
        return replace(self, label=tags)

    def __call__(self, output: Any) -> Tensor:
        """Return the mean over the entity's tokens."""
        logits = _logits(output, 3)
        if isinstance(self.label, str):
            raise _unnamed(self.label)
        tags = self.label if isinstance(self.label, tuple) else (self.label,)
        with torch.no_grad():
            of_kind = [_at(logits, tag, "tag", dim=2) for tag in tags]
            chosen = torch.stack(of_kind, dim=-1).argmax(-1)  # (examples, tokens)
            if self.tokens is None:
                kinds = torch.tensor(tags, device=logits.device)
                inside = torch.isin(logits.argmax(-1), kinds)
            else:
                inside = torch.zeros_like(chosen, dtype=torch.bool)
                for token in self.tokens:
                    _at(logits, token, "token")
                    inside[:, token] = True
            if not bool(inside.any(dim=1).all()):
                raise TargetError(
                    "an example has no token of this kind; name the tokens: "
                    "Entity(label, tokens=(1, 2))"
                )
            weight = torch.zeros_like(logits)
            for number, tag in enumerate(tags):
                weight[:, :, tag] = (inside & (chosen == number)).to(logits.dtype)
            weight = weight / inside.sum(dim=1)[:, None, None]
        return (logits * weight).sum(dim=(1, 2))


#: the first token of an answer, its last one, or both
Which: TypeAlias = Literal["both", "start", "end"]


@dataclass(frozen=True)
class Span(Target):
    """An answer in a text: the logit of its first token and that of its last.

    Of an output with ``start_logits`` and ``end_logits``, each ``(examples, tokens)``.

    Args:
        start (int): the first token.
        end (int): the last token.
        which (str, optional): ``"both"``, the sum; ``"start"`` or ``"end"``.
            Default: ``"both"``
    """

    start: int
    end: int
    which: Which = "both"

    def __call__(self, output: Any) -> Tensor:
        """Return the sum of the two logits."""
        if self.which not in ("both", "start", "end"):
            raise TargetError(
                f"expected which= to be 'both', 'start' or 'end', got {self.which!r}"
            )
        ends = []
        if self.which != "end":
            logits = output_tensor(output, "start_logits")
            ends.append(_at(logits, self.start, "token"))
        if self.which != "start":
            logits = output_tensor(output, "end_logits")
            ends.append(_at(logits, self.end, "token"))
        return ends[0] if len(ends) == 1 else ends[0] + ends[1]


@dataclass(frozen=True)
class Cells(Target):
    """Cells of a table: the mean over them of the mean logit of their tokens.

    Of logits ``(examples, tokens)``, as TAPAS has them.

    Args:
        cells (tuple of tuple of int): the tokens of each cell.
    """

    cells: tuple[tuple[int, ...], ...]

    def __call__(self, output: Any) -> Tensor:
        """Return the mean."""
        logits = _logits(output, 2)
        if not self.cells or not all(self.cells):
            raise TargetError(f"expected tokens of each cell, got {self.cells!r}")
        found = [
            torch.stack([_at(logits, token, "token") for token in cell]).mean(0)
            for cell in self.cells
        ]
        return torch.stack(found).mean(0)


@dataclass(frozen=True)
class Aggregation(Target):
    """How cells of a table are put together: the logit of a kind, as TAPAS has them.

    Of ``logits_aggregation`` ``(examples, kinds)``.

    Args:
        kind (int): its index.
    """

    kind: int

    def __call__(self, output: Any) -> Tensor:
        """Return the logit."""
        return _at(output_tensor(output, "logits_aggregation"), self.kind, "kind")


@dataclass(frozen=True)
class Box(Target):
    """A detected object: the logit of its class, or where a side of its box is.

    Of an output with ``logits`` ``(examples, queries, classes)`` and ``pred_boxes``
    ``(examples, queries, 4)``, centre, width and height as shares of the picture.

    Args:
        query (int): which of the model's queries found it.
        label (int or str, optional): the class. Default: None, its highest class but
            ``no_object``
        side (str, optional): ``"left"``, ``"top"``, ``"right"`` or ``"bottom"``: that
            side of the box instead of the logit, as a share of the picture's width or
            height. Default: None
        no_object (int, optional): the class that says that a query found nothing, as
            DETR's last one, -1. Default: None
    """

    query: int
    label: Class | None = field(default=None, metadata=_A_CLASS)
    side: Literal["left", "top", "right", "bottom"] | None = None
    no_object: int | None = None

    def __call__(self, output: Any) -> Tensor:
        """Return the logit, or the place of the side."""
        if self.side is not None:
            signs = {
                "left": (0, 2, -0.5),
                "top": (1, 3, -0.5),
                "right": (0, 2, 0.5),
                "bottom": (1, 3, 0.5),
            }
            if self.side not in signs:
                raise TargetError(
                    f"expected side= to be one of {', '.join(signs)}, got {self.side!r}"
                )
            boxes = _at(output_tensor(output, "pred_boxes"), self.query, "query")
            centre, size, half = signs[self.side]
            return boxes[:, centre] + half * boxes[:, size]
        logits = _at(_logits(output, 3), self.query, "query")
        if self.label is not None:
            return _of_class(logits, self.label)
        classes = logits.detach().clone()
        if self.no_object is not None:
            classes[:, self.no_object] = float("-inf")
        return logits.gather(1, classes.argmax(1, keepdim=True)).squeeze(1)


@dataclass(frozen=True)
class Segment(Target):
    """What a segmenter of instances says of one: the class's logit, or the mask.

    Of ``class_queries_logits`` and ``masks_queries_logits`` as MaskFormer has them, or
    ``logits`` and ``pred_masks`` as DETR has them: ``(examples, queries, classes)``,
    the last of which says that there is nothing, and ``(examples, queries, height,
    width)``.

    Args:
        query (int): which of the model's queries found it.
        label (int or str, optional): the class. Default: None, its highest class but
            the last
        of (str, optional): ``"class"``, or ``"mask"``: the mean of its mask's logits
            where they are above 0 (everywhere, where none is). Default: ``"class"``
    """

    query: int
    label: Class | None = field(default=None, metadata=_A_CLASS)
    of: Literal["class", "mask"] = "class"

    def __call__(self, output: Any) -> Tensor:
        """Return the logit, or the mean."""
        _check_one_of("of", self.of, ("class", "mask"))
        if self.of == "mask":
            masks = _either(output, "masks_queries_logits", "pred_masks")
            return _mean_inside(_at(masks, self.query, "query"))
        logits = _either(output, "class_queries_logits", "logits")
        logits = _at(logits, self.query, "query")
        if self.label is not None:
            return _of_class(logits, self.label)
        return logits[:, :-1].amax(1)


@dataclass(frozen=True)
class Prompted(Target):
    """What a model such as SAM says of a prompt: a mask, or how good it is.

    Of ``pred_masks`` ``(examples, prompts, masks, height, width)`` and ``iou_scores``
    ``(examples, prompts, masks)``.

    Args:
        mask (int): which of the masks, of which there are several for each prompt.
        prompt (int, optional): which prompt. Default: 0
        of (str, optional): ``"mask"``, the mean of its logits where they are above 0
            (everywhere, where none is); or ``"iou"``, the overlap with the object that
            the model expects. Default: ``"mask"``
    """

    mask: int
    prompt: int = 0
    of: Literal["mask", "iou"] = "mask"

    def __call__(self, output: Any) -> Tensor:
        """Return the mean, or the overlap."""
        _check_one_of("of", self.of, ("mask", "iou"))
        name = "pred_masks" if self.of == "mask" else "iou_scores"
        found = _at(output_tensor(output, name), self.prompt, "prompt")
        found = _at(found, self.mask, "mask")
        return found if self.of == "iou" else _mean_inside(found)


@dataclass(frozen=True)
class Similarity(Target):
    """The logit of a text for a picture, as CLIP has it.

    Of ``logits_per_image`` ``(pictures, texts)``.

    Args:
        text (int, optional): which of the texts. Default: 0
    """

    text: int = 0

    def __call__(self, output: Any) -> Tensor:
        """Return the logit."""
        return _at(output_tensor(output, "logits_per_image"), self.text, "text")


@dataclass(frozen=True, eq=False)
class Mask(Target):
    """The mean over a region of a picture, of a class or of what has no classes.

    Of maps ``(examples, classes, height, width)``, as a semantic segmenter returns, or
    ``(examples, height, width)``, as of depth. The region is given at the size of the
    picture or of the map, and is reduced to the map's size by its mean over each cell.

    Args:
        mask (Tensor or array): the region, ``(height, width)``, booleans or weights.
        label (int or str, optional): the class, for maps with classes. Default: None
    """

    mask: Any
    label: Class | None = field(default=None, metadata=_A_CLASS)

    def __call__(self, output: Any) -> Tensor:
        """Return the weighted mean."""
        maps = _maps(output, self.label)
        region = torch.as_tensor(self.mask).to(maps)
        if region.dim() != 2 or not bool((region >= 0).all()):
            raise TargetError(
                f"expected a mask (height, width) of booleans or weights from 0, got "
                f"shape {tuple(region.shape)}"
            )
        if region.shape != maps.shape[1:]:
            size = tuple(maps.shape[1:])
            region = torch.nn.functional.interpolate(
                region[None, None], size=size, mode="area"
            )[0, 0]
        total = region.sum()
        if not float(total) > 0:
            raise TargetError("the mask is empty: no pixel of it is inside")
        return (maps * (region / total)).sum(dim=(1, 2))


@dataclass(frozen=True)
class Pixel(Target):
    """The value at one place of a map: a class's logit there, or the depth.

    Args:
        y (int): the row of the model's map, from 0 at the top.
        x (int): the column.
        label (int or str, optional): the class, for maps with classes. Default: None
    """

    y: int
    x: int
    label: Class | None = field(default=None, metadata=_A_CLASS)

    def __call__(self, output: Any) -> Tensor:
        """Return the value."""
        return _at(_at(_maps(output, self.label), self.y, "row"), self.x, "column")


#: a class, or several of which any will do
Classes: TypeAlias = "int | str | tuple[int | str, ...]"


@dataclass(frozen=True)
class Probability(Target):
    """The probability of a class, or that of any of several.

    Of logits ``(examples, classes)``; of a language model's ``(examples, tokens,
    vocabulary)`` that of the token at ``position``, classes being identifiers of
    tokens. What speaks for the class against the others, and next to nothing where the
    model is certain: a :class:`Contrast`, :class:`LogProbability` or :class:`Label`
    says more there.

    Args:
        label (int, str or tuple of these): the class, or several, whose probabilities
            are summed.
        activation (str, optional): ``"softmax"``, or ``"sigmoid"`` for labels that do
            not exclude each other. Default: ``"softmax"``
        position (int, optional): for logits of tokens. Default: -1, the last
    """

    label: Classes = field(metadata=_A_CLASS)
    activation: Literal["softmax", "sigmoid"] = "softmax"
    position: int = -1

    def __call__(self, output: Any) -> Tensor:
        """Return the probability."""
        logits = _last(output, self.position)
        _check_one_of("activation", self.activation, ("softmax", "sigmoid"))
        if self.activation == "sigmoid":
            if isinstance(self.label, tuple):
                raise TargetError(
                    "probabilities of labels that do not exclude each other are not "
                    "summed; expected one label with activation='sigmoid'"
                )
            return _of_class(logits, self.label).sigmoid()
        return _of_classes(logits.softmax(-1), self.label).sum(-1)


@dataclass(frozen=True)
class LogProbability(Target):
    """The logarithm of the probability of a class, or of any of several, in nats.

    Of logits as :class:`Probability` reads them.

    Args:
        label (int, str or tuple of these): the class, or several.
        position (int, optional): for logits of tokens. Default: -1, the last
    """

    label: Classes = field(metadata=_A_CLASS)
    position: int = -1

    def __call__(self, output: Any) -> Tensor:
        """Return the log-probability."""
        logs = _last(output, self.position).log_softmax(-1)
        return _of_classes(logs, self.label).logsumexp(-1)


@dataclass(frozen=True)
class Contrast(Target):
    """One score less another: why this rather than that.

    Args:
        this (Target, int or str): a target, or a class.
        that (Target, int or str): another.
    """

    this: Target | Class = field(metadata=_A_CLASS)
    that: Target | Class = field(metadata=_A_CLASS)

    def __call__(self, output: Any) -> Tensor:
        """Return the difference."""
        this, that = (
            part if callable(part) else Label(part) for part in (self.this, self.that)
        )
        return this(output) - that(output)


@dataclass(frozen=True)
class Entropy(Target):
    """How undecided the model is: the entropy of its classes, in nats.

    Of logits ``(examples, classes)``; of a language model's ``(examples, tokens,
    vocabulary)`` that of the token at ``position``.

    Args:
        position (int, optional): for logits of tokens. Default: -1, the last
    """

    position: int = -1

    def __call__(self, output: Any) -> Tensor:
        """Return the entropy."""
        logs = _last(output, self.position).log_softmax(-1)
        return -(logs.exp() * logs).sum(-1)


@dataclass(frozen=True, eq=False)
class KL(Target):
    """How far the model's distribution is from another: KL(model || other), in nats.

    Args:
        other (Tensor): logits of the other, ``(classes,)`` or ``(examples, classes)``.
        position (int, optional): for logits of tokens. Default: -1, the last
    """

    other: Tensor
    position: int = -1

    def __call__(self, output: Any) -> Tensor:
        """Return the divergence."""
        logs = _last(output, self.position).log_softmax(-1)
        other = self.other.detach().to(logs).log_softmax(-1)
        if other.shape[-1] != logs.shape[-1] or other.dim() > 2:
            raise TargetError(
                f"expected other= to be logits of {logs.shape[-1]} classes, got shape "
                f"{tuple(self.other.shape)}"
            )
        return (logs.exp() * (logs - other)).sum(-1)


# ------------------------------------------------------------------------------ reading


def _logits(output: Any, dims: int) -> Tensor:
    """Return the logits of an output, which have so many dimensions."""
    logits = output_tensor(output, None)
    if logits.dim() != dims:
        axes = {2: "(examples, classes)", 3: "(examples, tokens or queries, classes)"}
        raise OutputError(
            f"expected logits {axes[dims]}, got shape {tuple(logits.shape)}"
        )
    return logits


def _last(output: Any, position: int) -> Tensor:
    """Return the logits of the classes, or of the token at a position."""
    logits = output_tensor(output, None)
    return _at(logits, position, "token") if logits.dim() == 3 else _logits(output, 2)


def _maps(output: Any, label: Class | None) -> Tensor:
    """Return maps ``(examples, height, width)``: of a class, or of the only one."""
    if isinstance(output, Tensor):
        maps = output
    else:
        kept = output if isinstance(output, Mapping) else vars(output)
        names = [n for n in ("logits", "predicted_depth", "pred_masks") if n in kept]
        maps = output_tensor(output, names[0] if names else None)
    if maps.dim() == 4 and label is not None:
        return _of_class(maps, label)
    if maps.dim() == 4 and maps.shape[1] == 1:
        return maps[:, 0]
    if maps.dim() != 3 or label is not None:
        what = "maps of classes (examples, classes, height, width)"
        if label is None:
            what = "a label= for maps of classes, or maps (examples, height, width)"
        raise OutputError(f"expected {what}, got shape {tuple(maps.shape)}")
    return maps


def _either(output: Any, *names: str) -> Tensor:
    """Return the first of some fields that an output has."""
    kept = output if isinstance(output, Mapping) else vars(output)
    found = next((n for n in names if kept.get(n) is not None), names[0])
    return output_tensor(output, found)


def _mean_inside(maps: Tensor) -> Tensor:
    """Return the mean of maps ``(examples, height, width)`` where they are positive."""
    inside = (maps.detach() > 0).to(maps.dtype)
    nowhere = inside.sum(dim=(1, 2), keepdim=True) == 0
    inside = torch.where(nowhere, torch.ones_like(inside), inside)
    return (maps * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2))


def _check_one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise TargetError(
            f"expected {name}= to be one of {', '.join(known)}, got {value!r}"
        )


def _of_class(scores: Tensor, label: Class) -> Tensor:
    if isinstance(label, str):
        raise _unnamed(label)
    return _at(scores, label, "class")


def _of_classes(scores: Tensor, labels: Classes) -> Tensor:
    """Return the scores of one class or several, ``(examples, classes)``."""
    several = labels if isinstance(labels, tuple) else (labels,)
    if not several or len(set(several)) < len(several):
        raise TargetError(f"expected classes, each once, got {labels!r}")
    return torch.stack([_of_class(scores, label) for label in several], -1)


def _at(scores: Tensor, index: Any, what: str, *, dim: int = 1) -> Tensor:
    """Return the scores at an index of a dimension."""
    size = scores.shape[dim] if scores.dim() > dim else 0
    if isinstance(index, bool) or not isinstance(index, int):
        raise TargetError(f"expected the {what} to be an integer, got {index!r}")
    if not -size <= index < size:
        raise TargetError(
            f"there is no {what} {index}: scores of shape {tuple(scores.shape)} have "
            f"{what} 0 to {size - 1}"
        )
    return scores.select(dim, index)


def _names(model: Any) -> dict[str, int]:
    """Return the names of a model's classes with their indices."""
    config = getattr(model, "config", None)
    found = getattr(config, "id2label", None) or {}
    return {str(name): int(index) for index, name in found.items()}


def _indices(label: str | tuple[Class, ...], model: Any) -> Any:
    """Return classes with the indices that their names have in a model."""
    if isinstance(label, str):
        return _index(label, model)
    return tuple(_index(x, model) if isinstance(x, str) else x for x in label)


def _index(name: str, model: Any) -> int:
    names = _names(model)
    matches = [list(names.values())[i] for i in places_of(name, list(names))]
    if not names:
        raise _unnamed(name)
    if len(matches) != 1:
        several = f"{len(matches)} classes" if matches else "no class"
        raise TargetError(
            f"the model has {several} named {name!r}."
            + (f" Use one of the indices {matches}." if matches else "")
            + ("" if matches else suggestion(name, names))
        )
    return matches[0]


def _unnamed(name: str) -> TargetError:
    return TargetError(
        f"{name!r} is a name, and the model does not say which index it has (it has no "
        "config.id2label): pass the index"
    )
