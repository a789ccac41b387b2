"""What methods share that explain an input together with parts of it alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._captum import log_usage
from ..core.composites import Composite
from ..description import Description
from ..errors import InputError, TraceError
from ..models.special_tokens import baseline_id, special_ids
from ..observers.trace import Trace, Tracing, together
from .explains import explains
from .inputs import Inputs, Leaf, prepare_inputs
from .patches import checked_patch_size, patch_numbers
from .transformer_lrp import TransformerLRP, relevance_of


class Parts:
    """The parts that one input is made of: tokens, or square patches of a picture.

    Args:
        leaf (Leaf): the input: identifiers or embeddings ``(batch, tokens, ...)``, or
            pixels ``(batch, channels, height, width)``.
        patch_size (tuple of int): height and width of a patch.
        keep (sequence of int): identifiers that are never replaced.
        replacement (Tensor): what replaces a part, of no dimension.

    Attributes:
        given (Tensor): the input.
        place (Tensor): the part of each token ``(batch or 1, tokens)``, counted without
            padding, or of each pixel ``(1, height, width)``.
        of_pixels (bool): whether the parts are patches.
        fixed (Tensor): True for tokens that are never replaced, ``(batch, tokens)``, or
            a single False.

    Raises:
        InputError: if the input has no parts.
    """

    def __init__(
        self,
        leaf: Leaf,
        patch_size: tuple[int, int],
        keep: Sequence[int],
        replacement: Tensor,
    ) -> None:
        self.given = given = leaf.given
        self.replacement = replacement
        self.of_pixels = given.dim() == 4
        self.present: Tensor | None = None
        device = given.device
        if self.of_pixels:
            self.place = patch_numbers(given, patch_size)[None]
        elif given.dim() < 2:
            raise InputError(
                "expected tokens (batch, tokens, ...) or pixels (batch, channels, "
                f"height, width), which have parts, got {tuple(given.shape)}"
            )
        elif leaf.keep is None:
            self.place = torch.arange(given.shape[1], device=device)[None]
        else:
            self.present = leaf.keep.reshape(*leaf.keep.shape[:2], -1)[..., 0].bool()
            self.place = (self.present.long().cumsum(1) - 1).clamp_min(0)
        self.number = int(self.place.max()) + 1
        self.fixed = torch.zeros((), dtype=torch.bool, device=device)
        if keep and not given.is_floating_point():
            self.fixed = torch.isin(given, given.new_tensor(keep))

    def without(self, replaced: Tensor) -> Tensor:
        """Return the input with parts replaced, the fixed ones never.

        Args:
            replaced (Tensor): bool, of the shape of ``place`` or broadcast to it.
        """
        return torch.where(
            self.fit(replaced & ~self.fixed), self.replacement, self.given
        )

    def fit(self, mask: Tensor) -> Tensor:
        """Return a mask of parts with the other dimensions of the input."""
        if not mask.dim():
            return mask
        if self.of_pixels:
            return mask[:, None]
        return mask.reshape(*mask.shape, *([1] * (self.given.dim() - 2)))

    def strongest(self, relevance: Tensor, fraction: float) -> Tensor:
        """Return where the parts of most relevance lie.

        Args:
            relevance (Tensor): of the input's shape.
            fraction (float): of the parts of each example that may be replaced; counted
                up to the next whole part.

        Returns:
            Tensor: bool, ``(batch, tokens)`` or ``(batch, height, width)``.
        """
        if self.of_pixels:
            place = self.place.flatten().expand(len(relevance), -1)
            pixels = relevance.sum(1).flatten(1)
            sums = pixels.new_zeros(len(pixels), self.number)
            sums = sums.scatter_add(1, place, pixels)
            counted = torch.ones_like(sums, dtype=torch.bool)
        else:
            sums = relevance.flatten(2).sum(2) if relevance.dim() > 2 else relevance
            counted = ~self.fixed.expand(sums.shape)
            if self.present is not None:
                counted = counted & self.present
        sums = sums.masked_fill(~counted, -torch.inf)
        order = sums.argsort(dim=1, descending=True, stable=True)
        number = (counted.sum(1, keepdim=True).double() * fraction - 1e-9).ceil()
        chosen = (order.argsort(dim=1) < number) & counted
        return chosen[:, self.place[0]] if self.of_pixels else chosen


class ContextLRP(TransformerLRP):
    """The mean of LRP's relevance over several contexts of each part of an input.

    A context is the input with some of its parts replaced by a baseline. Subclasses say
    which, in :meth:`average`. Not conserved: the sum is no score of the model.

    Args:
        forward_func (Callable): the model, or any function of it.
        composite (str or Composite, optional): the method to average.
            Default: ``"attnlrp"``
        tokenizer (Any, optional): a Hugging Face tokenizer, which knows the mask token
            and the special ones. Default: None
        baseline (int or float, optional): what replaces a part: for token identifiers
            an identifier, for pixels and embeddings a value. Default: for identifiers
            the mask token of ``tokenizer``, else its padding token, else its unknown
            token; for others 0.0, the mean colour where pixels are normalised
        keep (sequence of int, optional): identifiers that are never replaced.
            Default: the special tokens of ``tokenizer``
        patch_size (int or tuple of int, optional): height and width of the patches of a
            picture. Default: 16
        options (Any): as for :class:`TransformerLRP`.

    Raises:
        InputError: if ``patch_size`` is below 1.
    """

    name: ClassVar[str] = "ContextLRP"
    description = Description(takes="mapping", needs=("tokenizer", "patch_size"))

    def __init__(
        self,
        forward_func: Callable[..., Any],
        composite: str | Composite = "attnlrp",
        *,
        tokenizer: Any = None,
        baseline: int | float | None = None,
        keep: Sequence[int] | None = None,
        patch_size: int | tuple[int, int] = 16,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, composite, **options)
        self.tokenizer = tokenizer
        self.baseline = baseline
        self.keep = tuple(special_ids(tokenizer) if keep is None else keep)
        self.patch_size = checked_patch_size(patch_size)

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        r"""Return the mean relevance of each input over its contexts.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for
                :meth:`TransformerLRP.attribute`; token identifiers and embeddings
                ``(batch, tokens, ...)``, pixels ``(batch, channels, height, width)``.
            target (int, tuple, Tensor or list, optional): which score to explain, as in
                Captum. Default: None
            additional_forward_args (Any, optional): passed on after the inputs.
                Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance, per example. Default: False
            verbose (bool, optional): print the trace. Default: False

        Returns:
            As :meth:`TransformerLRP.attribute`.

        Raises:
            InputError: if identifiers are explained and nothing says what replaces
                them, or an input has no parts; and all that
                :meth:`TransformerLRP.attribute` raises.
        """
        if verbose:
            print(self.trace(inputs, target, additional_forward_args))
        given = prepare_inputs(inputs, additional_forward_args)
        names = [leaf.name for leaf in given.leaves]
        parts = self._parts(given)
        attribute = super().attribute

        def relevance(replaced: list[Tensor]) -> list[Tensor]:
            """Return the relevance of the inputs without some parts of each."""
            other = [p.without(r) for p, r in zip(parts, replaced, strict=True)]
            found = attribute(
                _like(inputs, given, other), target, additional_forward_args
            )
            return _leaves_of(found, names)

        whole, delta = attribute(inputs, target, additional_forward_args, True)
        flat = _leaves_of(whole, names)
        means = self.average(parts, flat, relevance)
        found = given.restore(tuple(means))
        if not return_convergence_delta:
            return found
        scores = delta + _totals(flat, len(delta))
        return found, scores - _totals(means, len(scores))

    @explains
    def trace(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Trace:
        """Return what every operator received and passed on, in every context.

        The contexts follow one another (``record.run``), each with the largest weight
        that a part has in it (``record.weight``). Their scores, so weighted, sum to
        that of the trace. The last record of each, "left out", says what arrived at
        parts that the mean takes with a smaller weight, or from another context.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None

        Raises:
            InputError: as :meth:`attribute`.
            TraceError: if :meth:`average`, of a class of yours, is not linear in
                relevance once the contexts are chosen, so that they have no weights.
        """
        given = prepare_inputs(inputs, additional_forward_args)
        names = [leaf.name for leaf in given.leaves]
        parts = self._parts(given)
        traces: list[Trace] = []
        found: list[list[Tensor]] = []

        def traced(inputs: Any) -> list[Tensor]:
            tracing = Tracing()
            explained = self._explain(
                inputs, target, additional_forward_args, observers=(tracing,)
            )
            traces.append(self._traced(explained, tracing))
            leaves = _leaves_of(relevance_of(explained), names)
            found.append([leaf.detach().requires_grad_() for leaf in leaves])
            return found[-1]

        def relevance(replaced: list[Tensor]) -> list[Tensor]:
            other = [p.without(r) for p, r in zip(parts, replaced, strict=True)]
            return traced(_like(inputs, given, other))

        with torch.enable_grad():
            means = self.average(parts, traced(inputs), relevance)
            total = torch.stack([mean.double().sum() for mean in means]).sum()
        weights = _weights(self, total, found)
        closed, largest = [], []
        for trace, shares, tensors in zip(traces, weights, found, strict=True):
            weight = max(float(share.max()) for share in shares) or 1.0
            counted = _dot(shares, tensors) / weight
            largest.append(weight)
            closed.append(
                trace.closed(
                    "left out",
                    "other weights in the mean",
                    received=trace.relevance,
                    passed=counted,
                    constant=0.0,
                )
            )
        return together(self.get_name(), closed, largest)

    def _parts(self, given: Inputs) -> list[Parts]:
        return [
            Parts(leaf, self.patch_size, self.keep, self._replacement(leaf.given))
            for leaf in given.leaves
        ]

    @abstractmethod
    def average(
        self,
        parts: list[Parts],
        whole: list[Tensor],
        relevance: Callable[[list[Tensor]], list[Tensor]],
    ) -> list[Tensor]:
        """Return the mean relevance of each input over its contexts.

        Args:
            parts (list of Parts): the parts of each input.
            whole (list of Tensor): relevance in the whole input, of their shapes.
            relevance (Callable): takes for each input which parts to replace, as
                :meth:`Parts.without`, and returns the relevance of what is left, of the
                shapes of the inputs; one pass.
        """

    def notes_on(self, scores: Any, delta: float | None) -> tuple[str, ...]:
        """Return what the relevance is the mean of."""
        return (self.about_contexts(),)

    @abstractmethod
    def about_contexts(self) -> str:
        """Say in a sentence what the relevance is the mean of."""

    def _replacement(self, tensor: Tensor) -> Tensor:
        value = self.baseline
        if value is None and tensor.is_floating_point():
            value = 0.0
        if value is None:
            value = baseline_id(self.tokenizer, mask_first=True)
        if value is None:
            raise InputError(
                f"{self.name} replaces tokens and was not told by what: pass "
                "tokenizer=, or baseline= with the identifier of a mask or padding "
                "token"
            )
        return tensor.new_tensor(value)


def _like(inputs: Any, given: Inputs, tensors: list[Tensor]) -> Any:
    """Return other values of the explained inputs in the form that these came in."""
    if given.form == "mapping":
        names = [leaf.name for leaf in given.leaves]
        return {**inputs, **dict(zip(names, tensors, strict=True))}
    return tensors[0] if given.form == "tensor" else tuple(tensors)


def _weights(
    method: ContextLRP, total: Tensor, found: list[list[Tensor]]
) -> list[list[Tensor]]:
    """Return the weight in a sum of means of all that was found in the contexts.

    Raises:
        TraceError: if the sum is not that of what was found times its weight.
    """
    flat = [tensor for tensors in found for tensor in tensors]
    gradients = torch.autograd.grad(total, flat, allow_unused=True)
    weights = [
        torch.zeros_like(t) if g is None else g
        for g, t in zip(gradients, flat, strict=True)
    ]
    tolerance = 64 * max(torch.finfo(t.dtype).eps for t in flat)
    scale = _dot([w.abs() for w in weights], [t.abs() for t in flat])
    if abs(_dot(weights, flat) - float(total.detach())) > tolerance * scale:
        raise TraceError(
            f"{type(method).__name__}.average is not linear in the relevance of the "
            "contexts: their weights in its mean cannot be told. Weigh relevance by "
            "numbers and masks, in torch, or trace the table alone: "
            f"TransformerLRP(model, composite) with {method.composite.name}."
        )
    numbers = iter(weights)
    return [[next(numbers) for _ in tensors] for tensors in found]


def _dot(weights: list[Tensor], tensors: list[Tensor]) -> float:
    return sum(
        float((w.double() * t.detach().double()).sum())
        for w, t in zip(weights, tensors, strict=True)
    )


def _leaves_of(found: Any, names: Sequence[str]) -> list[Tensor]:
    if isinstance(found, Mapping):
        return [found[name] for name in names]
    return list(found) if isinstance(found, tuple) else [found]


def _totals(tensors: Sequence[Tensor], examples: int) -> Tensor:
    """Return the sum of all elements of each example."""
    sums = [t.reshape(examples, -1).sum(1) for t in tensors]
    return torch.stack(sums).sum(0)
