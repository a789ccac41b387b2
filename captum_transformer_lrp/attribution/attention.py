"""Attributions from attention: Chefer et al. 2021, and what is compared with it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .._captum import GradientAttribution, LayerAttribution, log_usage
from .._forms import SOUND_KEYS
from .._named import Named
from .._nested import tensors_in
from .._torch import DisableTorchFunction
from ..carried.composites import TRANSFORMER_ATTRIBUTION
from ..core.composites import ATTN_LRP, GRADIENT_X_INPUT, Composite
from ..description import Description
from ..errors import AttentionError
from ..observers.observed import Observer
from ..observers.positions import merge
from ..observers.trace import Trace, Tracing
from .aggregation import Merge, Relations, compose
from .attention_maps import AttentionLayer, Seen, seen
from .attention_readout import (
    MOST_PREFIX_TOKENS,
    Steps,
    chosen_rows,
    contributions,
    read_out,
)
from .explains import explains
from .inputs import Leaf
from .single_pass import check_callable

OwnToken = Literal["minimum", "zero", "keep"]


#: relations, the last tokens of each stream, and what the residual alone relates
Related = tuple[Relations[Hashable], dict[int, Hashable], Relations[Hashable]]


class AttentionAttribution(Named, GradientAttribution):
    r"""Base of the methods that compose attention maps to one map of the input.

    Attention maps are taken where the operators make them, fused or not, in any model;
    the model is neither changed nor asked for its attentions. Which token the score is
    read from (a class token, the last token, the mean of all) is seen in the gradient.

    Args:
        forward_func (Callable): the model, or any function of it.
        start_layer (int, optional): the first layer that counts, of each sequence of
            tokens; negative from the end. Default: 0
        normalize_rows (bool, optional): divide the rows of ``I + A`` by their sums.
            Default: what the method's authors do where one token of one sequence is
            read out, see the class; else False
        rows (int, sequence of int or Tensor, optional): the token whose row is read, or
            one for each example, if the one found is not wanted. Default: None
        own_token (str, optional): what becomes of the token whose row is read, in a
            text: ``"zero"``, ``"keep"``, or ``"minimum"``, which gives a class token in
            front the minimum of the row (0 where there is padding) and any other token
            0. Default: what the method's authors do, see the class; with
            several sequences of tokens ``"zero"``
        between (str, optional): how two sequences of tokens relate: by the ``"rules"``
            of :class:`GenericAttention`, or by the ``"last"`` map between them alone,
            as in the baselines of its paper. Default: ``"rules"``
        prefix_tokens (int, optional): how many tokens stand before the patches of an
            image. Default: as many as are left over
        upsample (bool, optional): for images, interpolate the map to the pixels.
            Default: False
        dtype (torch.dtype, optional): compute in this dtype at least, such as
            ``torch.float64``; the model is left as it is. Default: the model's
        output_field (str or int, optional): which field of a ``ModelOutput`` or tuple
            holds the scores. Default: a tensor itself, else ``"logits"``
        unknown (str, optional): for operators without a rule: ``"raise"``, ``"warn"``
            or ``"gradient"``. Default: ``"raise"``
        observers (sequence of Observer, optional): objects of yours that watch every
            pass, see :mod:`~captum_transformer_lrp.observers`.
            Default: none
    """

    name: ClassVar[str] = "AttentionAttribution"
    description = Description(
        measure="attention",
        grain="part",
        takes="mapping",
        cost=1,
        needs=("attention",),
        options={"own_token": "zero"},
    )
    composite: ClassVar[Composite] = GRADIENT_X_INPUT
    needs_relevance: ClassVar[bool] = False
    #: defaults for texts and for all else
    normalizes_rows: ClassVar[tuple[bool, bool]] = (False, False)
    own: ClassVar[OwnToken] = "keep"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        start_layer: int = 0,
        normalize_rows: bool | None = None,
        rows: int | Sequence[int] | Tensor | None = None,
        own_token: OwnToken | None = None,
        between: Literal["rules", "last"] = "rules",
        prefix_tokens: int | None = None,
        upsample: bool = False,
        dtype: torch.dtype | None = None,
        output_field: str | int | None = None,
        unknown: Literal["raise", "warn", "gradient"] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        check_callable(self, forward_func)
        if own_token not in (None, "minimum", "zero", "keep"):
            raise ValueError(
                f"own_token={own_token!r}; expected 'minimum', 'zero' or 'keep'."
            )
        if between not in ("rules", "last"):
            raise ValueError(f"between={between!r}; expected 'rules' or 'last'.")
        GradientAttribution.__init__(self, forward_func)
        self.start_layer = start_layer
        self.normalize_rows = normalize_rows
        self.rows = rows
        self.own_token = own_token
        self.between = between
        self.prefix_tokens = prefix_tokens
        self.upsample = upsample
        self.dtype = dtype
        self.output_field = output_field
        self.unknown = unknown
        self.observers = tuple(observers)

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Any:
        r"""Return one score per token or patch.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for
                :meth:`TransformerLRP.attribute`.
            target (int, tuple, Tensor or list, optional): which score, as in Captum.
                Default: None
            additional_forward_args (Any, optional): passed on. Default: None

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, detached: for token
            identifiers and embeddings ``(examples, tokens)``; for images ``(examples,
            1, rows, columns)`` of patches, or of pixels with ``upsample``, as
            :meth:`captum.attr.LayerAttribution.interpolate` takes and returns them. A
            mapping with several known entries gives a dictionary.

        Raises:
            AttentionError: if the model has no attention, or its attention cannot be
                mapped to an input; the message says why.
            InputError, TargetError, OutputError, UnknownOperatorError, ModelStateError:
                as :meth:`TransformerLRP.attribute`.
        """
        return self.attribute_targets(inputs, [target], additional_forward_args)[0]

    @explains
    def attribute_targets(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        targets: Sequence[Any],
        additional_forward_args: Any = None,
    ) -> list[Any]:
        """Return the attributions for several targets, from one forward pass.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            targets (sequence): each as for :meth:`attribute`.
            additional_forward_args (Any, optional): passed on. Default: None

        Returns:
            list: for each target what :meth:`attribute` returns.
        """
        found = []
        seeing = self._seen(inputs, additional_forward_args)
        with seeing as model:
            for number, target in enumerate(targets, start=1):
                layers = model.go_back(target, last=number == len(targets))
                with DisableTorchFunction():
                    found.append(self._attributions(model, layers))
        return found

    @explains
    def trace(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Trace:
        """Return what every operator received and passed on, on the way to the maps.

        The records are those of the pass under :attr:`composite` that goes back to the
        maps (of relevance, where the method needs it, else of gradient x input), and on
        to the inputs. What is read out of the maps has another unit. So the balance
        only says where relevance went in the model; the last record, "attention read
        out", received what arrived at the inputs, passed on the sum of what
        :meth:`attribute` returns, and lost the difference.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None

        Raises:
            AttentionError: as :meth:`attribute`.
        """
        tracing = Tracing()
        seeing = self._seen(inputs, additional_forward_args, (tracing,))
        with seeing as model:
            layers, scores, arrived = model.go_on(target)
            with DisableTorchFunction():
                found = self._attributions(model, layers)
        trace = tracing.trace(
            self.get_name(), scores, arrived.total, arrived.at_identifiers
        )
        return trace.closed(
            "attention read out",
            self.get_name(),
            received=arrived.total,
            passed=sum(float(t.double().sum()) for t in tensors_in(found)),
            constant=arrived.at_maps,
        )

    @explains
    def layers(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> tuple[AttentionLayer, ...]:
        """Return the attention map of every layer and head, with what went back.

        For those who want to look: plain tensors, in order of execution.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None
        """
        seeing = self._seen(inputs, additional_forward_args)
        with seeing as model:
            return model.go_back(target)

    def notes_on(self, scores: Any, delta: float | None) -> tuple[str, ...]:
        """Say where nothing has weight, and what the token that is read gets."""
        notes: tuple[str, ...] = ()
        if not scores.any():
            notes = (f"{self.get_name()} gives no weight to anything here.",)
        if scores.ndim > 1:
            return notes
        own = {
            "keep": "keeps the weight that it has of itself",
            "minimum": "gets the lowest weight or 0, by convention",
            "zero": "gets 0, by convention",
        }[self.own_token or self.own]
        return (
            *notes,
            "Where the score is read from one token, such as [CLS] or the last token "
            f"of a decoder, that token {own}.",
        )

    def _seen(
        self,
        inputs: Any,
        additional_forward_args: Any,
        observers: Sequence[Observer] = (),
    ) -> AbstractContextManager[Seen]:
        return seen(
            self.forward_func,
            inputs,
            additional_forward_args,
            composite=self.composite,
            unknown=self.unknown,
            output_field=self.output_field,
            relevance=self.needs_relevance,
            dtype=self.dtype,
            observers=(*self.observers, *observers),
        )

    @abstractmethod
    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return what one layer contributes, shape ``(examples, queries, keys)``."""

    def _attributions(self, model: Seen, layers: tuple[AttentionLayer, ...]) -> Any:
        weights = read_out(layers)
        if self.rows is not None:
            weights = chosen_rows(weights, self.rows)
        several = {s: bool(((w > 0).sum(-1) > 1).any()) for s, w in weights.items()}
        values = []
        for leaf in model.inputs.leaves:
            text, stream = _is_text(leaf), id(leaf.leaf)
            alone = {layer.queries for layer in layers} == {stream}
            normalize = self.normalize_rows
            if normalize is None:  # as the authors of BERT's and ViT's conventions
                normalize = self.normalizes_rows[0 if text else 1] and (
                    alone and not (text and several[stream])
                )
            relations, last, residual = self._relations(model, layers, normalize)
            rows = _rows(relations, last, weights, stream)
            if rows is None:
                raise AttentionError(
                    f"the attention from which the score is read does not reach "
                    f"{leaf.name} as tokens of its own. Pass it on in "
                    "additional_forward_args, or use AttnLRP."
                )
            if several.get(stream) and not normalize:
                # less what each token has of itself, by the residual
                itself = _rows(residual, last, {stream: weights[stream]}, stream)
                rows = rows if itself is None else rows - itself
            own = weights.get(stream) if last.get(stream) == stream else None
            if text:
                token = self.own_token or (self.own if alone else "zero")
                values.append(self._text(leaf, rows, own, token))
            else:
                values.append(self._image(leaf, rows, model.grids.get(stream)))
        return model.inputs.restore(tuple(values))

    def _relations(
        self, model: Seen, layers: tuple[AttentionLayer, ...], normalize: bool
    ) -> Related:
        """Return the relations, the last tokens of each stream, and the residual's."""
        counted = _from_layer(layers, self.start_layer)
        within = [x for x in layers if self.between == "rules" or x.queries == x.keys]
        steps, last = contributions(
            within,
            lambda layer: (
                self.contribution(layer)
                if layer in counted
                else torch.zeros_like(layer.attention[:, 0])
            ),
            model.merges,
        )
        relations = compose(steps, normalize_rows=normalize)
        residual = _residual(steps, relations, last)
        if self.between == "last":
            for x in layers:
                if x.queries != x.keys and x.used:
                    pair = last.get(x.queries, x.queries), last.get(x.keys, x.keys)
                    relations[pair] = self.contribution(x)
                    last.setdefault(x.queries, x.queries)
        return relations, last, residual

    def _text(
        self, leaf: Leaf, rows: Tensor, weights: Tensor | None, own: OwnToken
    ) -> Tensor:
        shape = leaf.given.shape
        if rows.shape != shape[:2]:
            raise AttentionError(
                f"{leaf.name} has {shape[1] if len(shape) > 1 else 0} tokens, but the "
                f"layers attend to {rows.shape[1]}; which are which is not known. Use "
                "AttnLRP for this model."
            )
        original = rows
        if weights is not None and own != "keep":
            own_token = (weights > 0) & ((weights > 0).sum(-1, keepdim=True) == 1)
            rows = torch.where(own_token, 0, rows)
            if own == "minimum":
                lowest = original.amin(-1)
                rows[:, 0] = torch.where(own_token[:, 0], lowest, rows[:, 0])
        if leaf.keep is not None:
            keep = leaf.keep.reshape(leaf.keep.shape[:2]).bool()
            rows = torch.where(keep, rows, 0)
        return rows.detach()

    def _image(self, leaf: Leaf, rows: Tensor, grid: tuple[int, ...] | None) -> Tensor:
        tokens = rows.shape[1]
        spatial = tuple(leaf.given.shape[2:])
        grid = grid or _grid_of(tokens, spatial, self.prefix_tokens)
        prefix = None if grid is None else tokens - math.prod(grid)
        if (
            grid is None
            or prefix is None
            or (self.prefix_tokens is None and not 0 <= prefix <= MOST_PREFIX_TOKENS)
            or (self.prefix_tokens is not None and prefix < self.prefix_tokens)
        ):
            if leaf.name in SOUND_KEYS:
                raise AttentionError(
                    f"the layers attend to {tokens} frames, and which part of "
                    f"{leaf.name} of shape {tuple(leaf.given.shape)} each is made of "
                    "is not known. Use AttnLRP for this model."
                )
            raise AttentionError(
                f"the layers attend to {tokens} tokens, which do not make up a grid "
                f"over {leaf.name} of shape {tuple(leaf.given.shape)}"
                f"{'' if grid is None else f' with {grid} patches'}. Say how many "
                "tokens stand before the patches: prefix_tokens=1."
            )
        start = prefix if self.prefix_tokens is None else self.prefix_tokens
        patches = rows[:, start : start + math.prod(grid)].detach()
        found = patches.reshape(patches.shape[0], 1, *grid)
        if self.upsample:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
            size = _size_of(grid, tuple(leaf.given.shape[1:]), leaf.name)
            found = LayerAttribution.interpolate(found, size, mode)
        return found


def _size_of(
    grid: tuple[int, ...], shape: tuple[int, ...], name: str
) -> tuple[int, ...]:
    """Return the size of an input along the axes of its patches.

    Args:
        grid (tuple of int): the patches along each axis.
        shape (tuple of int): of the input, without the examples: channels in front, or
            behind the frames of a video.
        name (str): of the input, for messages.

    Raises:
        AttentionError: the axes of the patches are not those of the input.
    """
    sizes = {shape[1:]} if len(shape) > len(grid) else {shape}
    if len(grid) == 3 and len(shape) == 4:
        sizes = {shape[1:], (shape[0], *shape[2:])}
    fits = [size for size in sizes if _squareness(grid, size) < math.inf]
    turned = [size for size in fits if len(grid) == 2 and _is_turned(grid, size)]
    if len(fits) != 1 or turned:
        raise AttentionError(
            f"cannot put {' x '.join(map(str, grid))} patches on {name} of shape "
            f"{shape}: which axis of the patches is which of the input is not known "
            "(frames, channels, time, frequency). Leave upsample=True out, and turn "
            "the map yourself."
        )
    return fits[0]


def _squareness(grid: tuple[int, ...], size: tuple[int, ...]) -> float:
    """Return how unlike the sides of a patch are; infinite where patches do not fit."""
    sides = [pixels / patches for pixels, patches in zip(size, grid, strict=True)]
    if min(sides) < 1 or (len(grid) == 3 and size[0] % grid[0]):
        return math.inf
    return abs(math.log(sides[-1] / sides[-2])) if len(grid) > 1 else 0.0


def _is_turned(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether patches would be squares if rows were columns, and are not as it is."""
    turned = _squareness((grid[1], grid[0]), size)
    return turned < 0.5 and turned + 0.7 < _squareness(grid, size)


def _residual(
    steps: Steps, relations: Relations[Hashable], last: dict[int, Hashable]
) -> Relations[Hashable]:
    """Return what is left of the relations without attention: identities and merges."""
    merges = [[c for c in step if isinstance(c, Merge)] for step in steps]
    like = next(iter(relations.values()))
    merged = compose([step for step in merges if step], like=like)
    return {
        **{
            (s, s): _identity_like(relations[s, s]) for s in last if (s, s) in relations
        },
        **merged,
    }


def _identity_like(relation: Tensor) -> Tensor:
    tokens = torch.eye(relation.shape[-1], dtype=relation.dtype, device=relation.device)
    return tokens.expand(relation.shape[0], -1, -1)


def _is_text(leaf: Leaf) -> bool:
    """Whether an input is tokens: identifiers, or embeddings of three dimensions."""
    return leaf.is_identifier or leaf.given.dim() == 3


def _rows(
    relations: Relations[Hashable],
    last: dict[int, Hashable],
    weights: dict[int, Tensor],
    stream: int,
) -> Tensor | None:
    """Return the rows that are read out, over the tokens of one input."""
    total: Tensor | None = None
    for queries, weight in weights.items():
        relation = relations.get((last[queries], stream))
        if relation is not None:
            row = torch.einsum("bq,bqk->bk", weight, relation)
            total = row if total is None else total + row
    return total


def _from_layer(
    layers: tuple[AttentionLayer, ...], start: int
) -> tuple[AttentionLayer, ...]:
    """Return the layers from number ``start`` on, counted within each stream."""
    if start == 0:
        return layers
    kept: list[AttentionLayer] = []
    counts: dict[int, int] = {}
    for layer in layers:
        counts[layer.queries] = counts.get(layer.queries, 0) + 1
    seen_of: dict[int, int] = {}
    for layer in layers:
        number = seen_of.get(layer.queries, 0)
        seen_of[layer.queries] = number + 1
        total = counts[layer.queries]
        first = start if start >= 0 else total + start
        if not 0 <= first < total:
            raise ValueError(
                f"start_layer={start} is out of range: expected {-total} ... "
                f"{total - 1}."
            )
        if number >= first:
            kept.append(layer)
    return tuple(kept)


def _grid_of(
    tokens: int, spatial: tuple[int, ...], prefix: int | None
) -> tuple[int, ...] | None:
    """Return the grid that fits an image's shape, if no convolution has told it."""
    if len(spatial) != 2:
        return None
    tried = range(MOST_PREFIX_TOKENS + 1) if prefix is None else (prefix,)
    for number in tried:
        patches = tokens - number
        rows = round(math.sqrt(max(patches, 0) * spatial[0] / spatial[1]))
        if rows and patches % rows == 0:
            columns = patches // rows
            if rows * spatial[1] == columns * spatial[0]:
                return rows, columns
    return None


def _positive_mean(maps: Tensor) -> Tensor:
    """Average the positive part over heads: ``(e, heads, q, k)`` to ``(e, q, k)``."""
    return maps.clamp(min=0).mean(1)


def _relevance(layer: AttentionLayer) -> Tensor:
    assert layer.relevance is not None
    return layer.relevance


class CheferLRP(AttentionAttribution):
    r"""Transformer attribution: gradient times relevance of every attention map.

    Chefer, Gur, Wolf, CVPR 2021, arXiv 2012.09838, Eq. 13 and 14: each layer
    contributes ``mean_h (grad A * R^A)+``, where ``R^A`` is the LRP relevance of the
    attention map for the target's one-hot; the layers are composed as ``C = (I + A_L)
    ... (I + A_1)``, and the row of the token that is read out is the map. Texts follow
    the authors' BERT (rows normalised, the class token set to the row's minimum),
    images their ViT (no normalisation, patches only). Between several sequences of
    tokens the rules of :class:`GenericAttention` hold. One forward pass, then one
    backward pass for the gradient and one for relevance.

    In float32 the relevance pass divides by sums that may be close to 0; on models
    without training the maps change by 1e-2 and more. ``dtype=torch.float64`` computes
    everything in float64 and leaves the model as it is.

    Arguments as for :class:`AttentionAttribution`.
    """

    name: ClassVar[str] = "Transformer attribution"
    description = replace(AttentionAttribution.description, cost=2.5)
    composite: ClassVar[Composite] = TRANSFORMER_ATTRIBUTION
    needs_relevance: ClassVar[bool] = True
    normalizes_rows: ClassVar[tuple[bool, bool]] = (True, False)
    own: ClassVar[OwnToken] = "minimum"

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``mean_h (grad A * R^A)+`` (Eq. 13)."""
        return _positive_mean(layer.gradient * _relevance(layer))


class LRPRollout(AttentionAttribution):
    """Rollout of relevance without the gradient: an ablation of Chefer et al. 2021.

    Each layer contributes ``mean_h (R^A)+``; composed as in :class:`CheferLRP`, rows
    not normalised. Arguments as for :class:`AttentionAttribution`.
    """

    name: ClassVar[str] = "LRP rollout"
    description = replace(AttentionAttribution.description, cost=2.5)
    composite: ClassVar[Composite] = TRANSFORMER_ATTRIBUTION
    needs_relevance: ClassVar[bool] = True

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``mean_h (R^A)+``."""
        return _positive_mean(_relevance(layer))


class GenericAttention(AttentionAttribution):
    """Generic attention explainability: gradient times attention.

    Chefer, Gur, Wolf, ICCV 2021, arXiv 2103.15679: each layer contributes ``mean_h
    (grad A * A)+`` (Eq. 5), composed within a sequence by rules 6 and 7, between
    sequences (co-attention, encoder and decoder) by rules 8 to 11. One forward and one
    backward pass. Arguments as for :class:`AttentionAttribution`.
    """

    name: ClassVar[str] = "Generic attention"

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``mean_h (grad A * A)+`` (Eq. 5)."""
        return _positive_mean(layer.gradient * layer.attention)


class AttentionRollout(AttentionAttribution):
    """Attention rollout: the same for every target.

    Abnar and Zuidema, ACL 2020, arXiv 2005.00928: ``C = norm(I + A_L) ... norm(I +
    A_1)`` with ``A`` the mean over heads. The target is used only to see which token is
    read out. Arguments as for :class:`AttentionAttribution`.
    """

    name: ClassVar[str] = "Attention rollout"
    description = replace(AttentionAttribution.description, same_for_every_target=True)
    own: ClassVar[OwnToken] = "zero"
    normalizes_rows: ClassVar[tuple[bool, bool]] = (True, True)

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return the mean over heads, of its positive part where heads were mixed."""
        return _positive_mean(layer.attention)


class SingleLayer(AttentionAttribution):
    """Base of the methods that look at one layer: no composition.

    Args:
        forward_func (Callable): the model, or any function of it.
        layer (int, optional): its number among the layers of the tokens that are read
            out; negative from the end. Default: -1
        options (Any): as for :class:`AttentionAttribution`.
    """

    def __init__(
        self, forward_func: Callable[..., Any], *, layer: int = -1, **options: Any
    ) -> None:
        super().__init__(forward_func, **options)
        self.layer = layer

    def _relations(
        self, model: Seen, layers: tuple[AttentionLayer, ...], normalize: bool
    ) -> Related:
        relations: Relations[Hashable] = {}
        last: dict[int, Hashable] = {}
        for stream in dict.fromkeys(layer.queries for layer in layers):
            for keys in dict.fromkeys(
                x.keys for x in layers if x.queries == stream and x.used
            ):
                own = [x for x in layers if (x.queries, x.keys) == (stream, keys)]
                own = [x for x in own if x.used] or own
                if not -len(own) <= self.layer < len(own):
                    raise ValueError(
                        f"layer={self.layer} is out of range: expected {-len(own)} ... "
                        f"{len(own) - 1}."
                    )
                relations[stream, keys] = self._matrix(model, own[self.layer])
            last[stream] = stream
        return relations, last, {}

    def _matrix(self, model: Seen, layer: AttentionLayer) -> Tensor:
        """Return one layer's contribution over the tokens of the input."""
        matrix, layout = self.contribution(layer), layer.layout
        if layout is None:
            return matrix
        matrix = layout.scatter(matrix)
        for target in reversed(model.merges[: layout.stage]):
            identity = torch.eye(target.shape[1], dtype=matrix.dtype).to(matrix.device)
            matrix = matrix @ merge(identity.expand(len(target), -1, -1), target)
        return matrix


class RawAttention(SingleLayer):
    """The attention of one layer, averaged over heads.

    Arguments as for :class:`SingleLayer`.
    """

    name: ClassVar[str] = "Raw attention"
    description = replace(AttentionAttribution.description, same_for_every_target=True)
    own: ClassVar[OwnToken] = "zero"

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return the mean over heads."""
        return layer.attention.mean(1)


class AttentionXGradient(SingleLayer):
    """Attention times gradient of one layer: ``mean_h (grad A * A)+``.

    Arguments as for :class:`SingleLayer`.
    """

    name: ClassVar[str] = "Attention x gradient"
    own: ClassVar[OwnToken] = "zero"

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``mean_h (grad A * A)+``."""
        return _positive_mean(layer.gradient * layer.attention)


class AttentionRelevance(SingleLayer):
    """How much relevance of either sign one layer's attention carries.

    ``sum_h |R^A|``, with ``R^A = A * grad A`` the relevance of the attention map under
    AttnLRP (Achtibat et al. 2024, arXiv 2402.05602): what a token contributes through
    the attention that it gets, for or against the target. Without a sign it says where
    the model looks for its answer, which makes it a map of objects, not of the target
    among several of them; it has no unit.
    One forward and one backward pass. A method of this package, measured in
    ``benchmarks/faithfulness_image.py``. Arguments as for :class:`SingleLayer`.
    """

    name: ClassVar[str] = "Attention relevance"
    composite: ClassVar[Composite] = ATTN_LRP
    own: ClassVar[OwnToken] = "zero"

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``sum_h |A * grad A|``."""
        return (layer.gradient * layer.attention).abs().sum(1)


class AttentionGradCAM(SingleLayer):
    """Grad-CAM on the attention of one layer, as Chefer et al. 2021 compare with.

    Each head's row is weighted with the mean of its gradient over the keys that are not
    masked, other than the token that is read out, averaged over heads, and cut off
    below 0 (Selvaraju et al. 2017, arXiv 1610.02391, Eq. 2). Not scaled to [0, 1].
    Arguments as for :class:`SingleLayer`.
    """

    name: ClassVar[str] = "Attention Grad-CAM"
    own: ClassVar[OwnToken] = "zero"

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``(mean_h w_h A_h)+``, with ``w_h`` the mean gradient of each row."""
        gradient = layer.gradient
        # masked keys get no attention from any head
        others = (layer.attention.amax(1, keepdim=True) > 0).to(gradient.dtype)
        read = gradient.abs().sum((1, 3)) > 0
        if gradient.shape[-2] == gradient.shape[-1]:
            single = read.sum(-1, keepdim=True) == 1
            others = others * ~(read & single)[:, None, None]
        count = others.sum(-1, keepdim=True).clamp(min=1)
        weight = (gradient * others).sum(-1, keepdim=True) / count
        return (layer.attention * weight).mean(1).clamp(min=0)


class PartialLRP(SingleLayer):
    """LRP relevance of one layer's attention map: ``mean_h (R^A)+``.

    The "partial LRP" baseline (Voita et al. 2019, arXiv 1905.09418, as in Chefer et al.
    2021), and with ``times_gradient`` an ablation of transformer attribution.

    Args:
        forward_func (Callable): the model, or any function of it.
        times_gradient (bool, optional): multiply with the gradient. Default: False
        options (Any): as for :class:`SingleLayer`.
    """

    name: ClassVar[str] = "Partial LRP"
    description = replace(AttentionAttribution.description, cost=2.5)
    own: ClassVar[OwnToken] = "zero"
    composite: ClassVar[Composite] = TRANSFORMER_ATTRIBUTION
    needs_relevance: ClassVar[bool] = True

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        times_gradient: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, **options)
        self.times_gradient = times_gradient

    def contribution(self, layer: AttentionLayer) -> Tensor:
        """Return ``mean_h (R^A)+``, or ``mean_h (grad A * R^A)+``."""
        relevance = _relevance(layer)
        if self.times_gradient:
            relevance = relevance * layer.gradient
        return _positive_mean(relevance)
