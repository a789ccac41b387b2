"""Positional LRP: relevance of tokens, and of the positions that they stand at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .._captum import log_usage
from .._forms import examples_in
from ..core.composites import Composite
from ..errors import InputError
from ..observers.encodings import Encoding, PositionEncodings, PositionUse
from ..observers.observed import Observer
from ..observers.trace import Trace, Tracing
from .explains import explains
from .inputs import Inputs
from .single_pass import Explained
from .transformer_lrp import TransformerLRP, trace_of

Sign = Literal["absolute", "signed"]


@dataclass(frozen=True, eq=False)
class PositionRelevance:
    """The relevance of one table of positions in one module.

    Attributes:
        module (str): name of the module in which positions met tokens.
        encoding (str): ``"rotary"``, ``"absolute"`` or ``"bias"``.
        table (int): number of the table, in order of first use: of rotary positions
            mostly 0 for cosines and 1 for sines.
        relevance (Tensor): in units of the score, shape ``(examples, tokens)``, summed
            over features and heads, and over queries and keys; of several targets
            ``(targets, examples, tokens)``.
        input (int or None): which of the explained inputs has these tokens.
    """

    module: str
    encoding: Encoding
    table: int
    relevance: Tensor
    input: int | None


@dataclass(frozen=True, eq=False)
class PositionalRelevance:
    """Relevance of the inputs themselves and of their positions.

    Attributes:
        tokens (Tensor, tuple or dict): as :meth:`TransformerLRP.attribute` returns it.
        encodings (tuple of PositionRelevance): one for each table in each module, in
            order of execution.
    """

    tokens: Any
    encodings: tuple[PositionRelevance, ...]

    def positions(self, sign: Sign = "absolute", *, input: int = 0) -> Tensor | float:
        """Return the relevance of the positions of one input.

        Args:
            sign (str, optional): ``"absolute"`` adds up magnitudes over tables and
                modules, as the paper does, ``"signed"`` adds up the values.
                Default: ``"absolute"``
            input (int, optional): of which explained input. Default: 0

        Returns:
            Tensor: shape ``(examples, tokens)``, or 0.0 without any positions.
        """
        return total(self.encodings, sign, input)


def total(
    encodings: Sequence[PositionRelevance], sign: Sign, input: int
) -> Tensor | float:
    """Return the sum over tables and modules, see :class:`PositionalRelevance`.

    Raises:
        InputError: if positions of different numbers of tokens met one input.
    """
    found = [e.relevance for e in encodings if e.input == input]
    if len({tuple(relevance.shape) for relevance in found}) > 1:
        shapes = sorted({tuple(relevance.shape) for relevance in found})
        raise InputError(
            f"positions of shapes {', '.join(map(str, shapes))} belong to input number "
            f"{input}: they cannot be added, because which tokens they are is not "
            "known. Call PositionalLRP.parts(...).encodings, which keeps them apart."
        )
    return sum((r.abs() if sign == "absolute" else r for r in found), 0.0)


def with_positions(
    tokens: Tensor, encodings: Sequence[PositionRelevance], sign: Sign, input: int
) -> Tensor:
    """Return the relevance of tokens together with that of their positions.

    Raises:
        InputError: if the tokens have not one score each.
    """
    positions = total(encodings, sign, input)
    if isinstance(positions, Tensor) and positions.shape != tokens.shape:
        raise InputError(
            f"positions have one score each, shape {tuple(positions.shape)}, the "
            f"explained input is of shape {tuple(tokens.shape)}: they cannot be added. "
            "Pass token identifiers, or call PositionalLRP.parts, which returns both."
        )
    return tokens + positions


def summed_by_table(
    uses: Sequence[PositionUse],
    gradients: Sequence[Tensor | None],
    inputs: Inputs,
    *,
    times_input: bool,
) -> tuple[PositionRelevance, ...]:
    """Return the relevance of positions, queries and keys of a module together.

    Args:
        uses (sequence of PositionUse): where positions met tokens.
        gradients (sequence): one for each use; targets may stand in front.
        inputs (Inputs): what is explained.
        times_input (bool): relevance is input times gradient.
    """
    streams = {id(leaf.leaf): i for i, leaf in enumerate(inputs.leaves)}
    found: dict[tuple[Any, ...], PositionRelevance] = {}
    for use, gradient in zip(uses, gradients, strict=True):
        relevance = use.relevance(gradient, times_input=times_input)
        number = streams.get(use.stream)
        keep = None if number is None else inputs.leaves[number].keep
        if keep is not None and keep.shape[:2] == relevance.shape[-2:]:
            keep = keep.reshape(*keep.shape[:2], -1)[..., 0].bool()
            relevance = torch.where(keep, relevance, 0)
        key = (use.module, use.table, number, relevance.shape)
        before = found.get(key)
        if before is not None:
            relevance = relevance + before.relevance
        found[key] = PositionRelevance(
            use.module, use.encoding, use.table, relevance, number
        )
    return tuple(found.values())


class PositionalLRP(TransformerLRP):
    r"""LRP that gives positions their share: PA-LRP (Bakish et al. 2025).

    arXiv 2506.02138. Rotary tables (each product ``q * cos`` shares its relevance under
    AttnLRP), position embeddings and biases of attention scores (ALiBi, T5) receive
    relevance where they meet tokens; it is summed per token. Positions are recognised
    in any model by what they are computed from, see
    :mod:`captum_transformer_lrp.observers.encodings`. For biases of scores no
    reference implementation exists.

    Args:
        forward_func (Callable): the model, or any function of it.
        composite (str or Composite, optional): the method. Default: ``"attnlrp"``
        sign (str, optional): how :meth:`attribute` adds positions to tokens:
            ``"absolute"``, as in the paper, or ``"signed"``. Default: ``"absolute"``
        options (Any): as for :class:`TransformerLRP`.

    Examples::

        >>> lrp = PositionalLRP(model)
        >>> scores = lrp.attribute(ids, target=(-1, 42))  # tokens and positions
        >>> parts = lrp.parts(ids, target=(-1, 42))
        >>> parts.tokens, parts.positions("signed")  # two tensors, (examples, tokens)
        >>> [(e.module, e.encoding, e.relevance) for e in parts.encodings]
    """

    name: ClassVar[str] = "PositionalLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        composite: str | Composite = "attnlrp",
        *,
        sign: Sign = "absolute",
        **options: Any,
    ) -> None:
        super().__init__(forward_func, composite, **options)
        self.sign = checked_sign(sign)

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
        r"""Return the relevance of each token together with that of its position.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): token identifiers, alone or in
                a tokenizer's mapping; see :meth:`TransformerLRP.attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance, tokens and signed positions together. Default: False
            verbose (bool, optional): print the trace. Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, shape ``(examples,
            tokens)``; with ``return_convergence_delta`` a pair with **delta**.

        Raises:
            InputError: if an input has no score per token to which its positions' could
                be added; :meth:`parts` takes it.
            LRPError: what :meth:`TransformerLRP.attribute` raises.
        """
        if verbose:
            print(self.trace(inputs, target, additional_forward_args))
        explained, _, tokens, encodings = self._parts(
            inputs, target, additional_forward_args
        )
        values = tuple(
            with_positions(value, encodings, self.sign, i)
            for i, value in enumerate(tokens)
        )
        attributions = explained.inputs.restore(values)
        if not return_convergence_delta:
            return attributions
        signed = tuple(
            with_positions(value, encodings, "signed", i)
            for i, value in enumerate(tokens)
        )
        return attributions, self.compute_convergence_delta(signed, explained.scores)

    @explains
    def parts(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> PositionalRelevance:
        """Return the relevance of tokens and of positions apart.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for
                :meth:`TransformerLRP.attribute`, embeddings and pixels included.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None

        Returns:
            PositionalRelevance: both, and what each table in each module received.
        """
        explained, _, tokens, encodings = self._parts(
            inputs, target, additional_forward_args
        )
        return PositionalRelevance(explained.inputs.restore(tokens), encodings)

    @explains
    def trace(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Trace:
        """Return what every operator received and passed on, to tokens and positions.

        The last record, "positions", received what arrived at positions, and passed on
        what :meth:`attribute` adds to the tokens: with magnitudes added up it lost a
        negative amount. Positions of what is not explained count as constants.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None

        Raises:
            InputError: as :meth:`attribute`.
        """
        tracing = Tracing()
        explained, encoded, tokens, encodings = self._parts(
            inputs, target, additional_forward_args, (tracing,)
        )
        gradients = explained.gradients[len(explained.inputs.leaves) :]
        times_input = explained.engine.composite.carries != "relevance"
        arrived = sum(
            float(use.relevance(gradient, times_input=times_input).double().sum())
            for use, gradient in zip(encoded.uses, gradients, strict=True)
        )
        counted, signed = (
            sum(
                float((with_positions(t, encodings, sign, i) - t).double().sum())
                for i, t in enumerate(tokens)
            )
            for sign in (self.sign, "signed")
        )
        trace = trace_of(self.get_name(), explained, tracing)
        return replace(trace, relevance=trace.relevance + arrived).closed(
            "positions",
            f"added with sign={self.sign!r}",
            received=arrived,
            passed=counted,
            constant=arrived - signed,
        )

    def _parts(
        self,
        inputs: Any,
        target: Any,
        additional_forward_args: Any,
        observers: tuple[Observer, ...] = (),
    ) -> tuple[
        Explained,
        PositionEncodings,
        tuple[Tensor, ...],
        tuple[PositionRelevance, ...],
    ]:
        positions = inputs.get("position_ids") if isinstance(inputs, Mapping) else None
        encoded = PositionEncodings(
            examples=examples_in(inputs),
            positions=(positions,) if isinstance(positions, Tensor) else (),
        )
        explained = self._explain(
            inputs,
            target,
            additional_forward_args,
            observers=(*observers, encoded),
            wanted=lambda engine: [use.leaf for use in encoded.uses],
        )
        engine = explained.engine
        times_input = engine.composite.carries != "relevance"
        leaves = explained.inputs.leaves
        with torch.no_grad():
            tokens = tuple(
                leaf.relevance(
                    gradient, times_input=times_input, dtype=engine.identifiers.dtype
                )
                for leaf, gradient in zip(leaves, explained.gradients, strict=False)
            )
            encodings = summed_by_table(
                encoded.uses,
                explained.gradients[len(leaves) :],
                explained.inputs,
                times_input=times_input,
            )
        return explained, encoded, tokens, encodings


def checked_sign(sign: Sign) -> Sign:
    """Return a way to add positions.

    Raises:
        ValueError: if there is none of that name.
    """
    if sign not in ("absolute", "signed"):
        raise ValueError(f"sign={sign!r}; expected 'absolute' or 'signed'.")
    return sign
