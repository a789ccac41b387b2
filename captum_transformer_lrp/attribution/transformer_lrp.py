"""Layer-wise relevance propagation for transformers, as Captum attributions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .._captum import GradientAttribution, log_usage
from .._named import Named
from .._nested import tensors_in
from ..classic.composites import epsilon_lrp
from ..composites import composite_named
from ..core.composites import Composite
from ..core.registry import Row
from ..description import Description
from ..errors import DisconnectedError
from ..observers.observed import Observer
from ..observers.trace import Trace, Tracing, balancing
from .explains import explains
from .single_pass import Explained, check_callable, explain_once
from .units import Selector, Unit, as_unit


class TransformerLRP(Named, GradientAttribution):
    r"""Layer-wise relevance propagation through any PyTorch model, transformers first.

    The model runs once forward and once backward under the rules of a composite; no
    module, hook or parameter of it is changed. With a rule per operator the same class
    explains Hugging Face, timm and plain torch models.

    Args:
        forward_func (Callable): the model, or any function of it.
        composite (str or Composite, optional): the method: ``"attnlrp"``, ``"cp-lrp"``,
            ``"epsilon"``, ``"gradient-x-input"``, ``"gamma"``, ``"epsilon-plus"`` or
            another name of ``COMPOSITES``, or a table of your own.
            Default: ``"attnlrp"``
        rules (Mapping, optional): rows laid over the composite, key -> rule, for this
            explainer only. Default: None
        output_field (str or int, optional): which field of a ``ModelOutput`` or tuple
            holds the scores. Default: a tensor itself, else ``"logits"``
        unknown (str, optional): what happens to a differentiable operator without a
            rule: ``"raise"``, ``"warn"`` or ``"gradient"`` (torch's own).
            Default: the composite's, ``"raise"``
        through (Mapping, optional): relevance conditional on a concept (Achtibat et
            al. 2023, arXiv 2206.03208): unit or module -> which of its parts, see
            :mod:`~captum_transformer_lrp.attribution.units`. Only relevance that passes
            these parts arrives at the inputs, that of paths around them (a residual
            branch) does not; of several units it passes one after the other.
            Conditions on disjoint parts add up to the condition on all of them, where
            rules are linear in relevance (those named above are). Default: None
        observers (sequence of Observer, optional): objects of yours that watch every
            pass, see :mod:`~captum_transformer_lrp.observers`.
            Default: none

    Raises:
        UnknownNameError: if there is no such composite, kind or operator.
        TypeError: if ``forward_func`` cannot be called, a row is no rule, or a key of
            ``through`` is neither a module nor a unit.

    Examples::

        >>> model = AutoModelForSequenceClassification.from_pretrained(name).eval()
        >>> tokenizer = AutoTokenizer.from_pretrained(name)
        >>> lrp = TransformerLRP(model, composite="attnlrp")
        >>> # one score per token, shape (1, tokens)
        >>> scores = lrp.attribute(tokenizer("a film", return_tensors="pt"), target=1)
    """

    name: ClassVar[str] = "TransformerLRP"
    description = Description(conserves="partly", takes="mapping")

    def __init__(
        self,
        forward_func: Callable[..., Any],
        composite: str | Composite = "attnlrp",
        *,
        rules: Mapping[Any, Row] | None = None,
        output_field: str | int | None = None,
        unknown: Literal["raise", "warn", "gradient"] | None = None,
        through: Mapping[Unit | nn.Module, Selector] | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        check_callable(self, forward_func)
        GradientAttribution.__init__(self, forward_func)
        self.composite = composite_named(composite)
        if rules:
            self.composite = self.composite.with_rules(rules)
        if self.name == TransformerLRP.name:  # nobody's own: the table's
            self.description = replace(self.description, name=self.composite.name)
        self.output_field = output_field
        self.unknown = _checked_unknown(unknown)
        self.through = {as_unit(u): s for u, s in (through or {}).items()}
        self.observers = tuple(observers)

    def has_convergence_delta(self) -> bool:
        """True: relevance can be compared with the score."""
        return True

    def compute_convergence_delta(
        self, attributions: Tensor | tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        """Return the score minus the sum of relevance, per example.

        It is what constants (biases, position embeddings) absorbed and, for rules that
        do not conserve (the softmax of AttnLRP), what they changed.

        Args:
            attributions (Tensor or tuple of Tensor): as returned by ``attribute``.
            output (Tensor): the explained scores, shape ``(examples,)``.

        Returns:
            Tensor: shape ``(examples,)``; of a batch whose attributions do not have the
            examples in dimension 0, as the patches of several pictures in one list, the
            sum over the batch, shape ``(1,)``.
        """
        if isinstance(attributions, Mapping):
            attributions = tuple(attributions.values())
        if isinstance(attributions, Tensor):
            attributions = (attributions,)
        examples = output.numel()
        if any(attribution.shape[:1] != (examples,) for attribution in attributions):
            examples, output = 1, output.sum()
        total: Tensor | float = 0.0
        for attribution in attributions:
            total = total + attribution.reshape(examples, -1).sum(1)
        return output.detach().flatten() - total

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
        *,
        return_conservation_error: bool = False,
    ) -> Any:
        r"""Return the relevance of each input for the target's score.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): what is explained. Float
                tensors (pixels, embeddings) get a score per element; int64 and int32
                tensors are taken as token identifiers and get a score per identifier;
                of a tokenizer's or image processor's mapping the known entry
                (``input_ids``, ``inputs_embeds``, ``pixel_values``, ...) is explained
                and the rest passed on by keyword, and padding gets exactly 0.
                Dimension 0 is the examples.
            target (int, tuple, Tensor or list, optional): which score to explain, as in
                Captum: a class index, one per example, or a tuple such as
                ``(-1, token_id)`` for outputs of more dimensions. Default: None
            additional_forward_args (Any, optional): passed on after the inputs, not
                explained. Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance, per example. Not an error: biases and other constants take
                their share of the score, and a method that conserves has a delta of
                that size. Costs nothing. Default: False
            verbose (bool, optional): print the rule and relevance of every operator
                (see :meth:`trace`), from a pass of its own: with dropout active, of
                another draw. Default: False
            return_conservation_error (bool, optional): also return that delta with what
                constants took accounted for: ``trace.conservation_error`` of this call,
                one number for the batch, at the level of rounding for methods that
                conserve. Takes about twice the time, since operators with constants run
                once more for what these give alone; a trace, which says where, takes
                about four times. With ``through``, what went around the units counts
                as lost. Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, of the shapes of the
            inputs, detached; a mapping with several known entries gives a dictionary.
            With ``return_convergence_delta`` a pair with **delta**, shape
            ``(examples,)`` (see :meth:`compute_convergence_delta`). With
            ``return_conservation_error`` that **error**, a float, comes last.

        Raises:
            InputError: if an input is empty, not finite, or of a dtype or device that
                does not fit.
            ArgumentError: for an argument of other attributors (``baselines=``), and
                for ``create_graph=True``, since relevance cannot be differentiated.
            TargetError: if the target does not select one score per example.
            OutputError: if the model returned no finite scores.
            UnknownOperatorError: if a differentiable operator has no rule.
            UnitError: if heads, neurons or experts of ``through`` cannot be told apart.
            ModelStateError: under ``torch.inference_mode``, with batch normalisation in
                training mode, for TorchScript, and for re-entrant checkpoints.
            DisconnectedError: if no relevance can reach the inputs.
        """
        if verbose:
            print(self.trace(inputs, target, additional_forward_args))
        watching = [balancing(self.composite)] if return_conservation_error else []
        explained = self._explain(
            inputs, target, additional_forward_args, observers=watching
        )
        found: tuple[Any, ...] = (relevance_of(explained),)
        if return_convergence_delta:
            found += (self.compute_convergence_delta(found[0], explained.scores),)
        if return_conservation_error:
            found += (self._traced(explained, *watching).conservation_error,)
        return found if len(found) > 1 else found[0]

    @explains
    def trace(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
    ) -> Trace:
        """Return what every operator received, passed on and absorbed.

        The way to check an architecture: print the result, or look at
        ``trace.conservation_error``, ``trace.lost_by_module()``, ``trace.cuts`` and
        ``trace.absorbed_by_module()``. Slower than ``attribute``, whose
        ``return_conservation_error`` gives the first of these alone.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): what is explained.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None

        Returns:
            Trace: a table, one record per operator call, in order of execution.
        """
        tracing = Tracing()
        explained = self._explain(
            inputs, target, additional_forward_args, observers=(tracing,)
        )
        return self._traced(explained, tracing)

    def _traced(self, explained: Explained, tracing: Tracing) -> Trace:
        """Return the trace of a pass that went back to the inputs."""
        return trace_of(self.composite.name, explained, tracing)

    def _explain(
        self,
        inputs: Any,
        target: Any,
        additional_forward_args: Any,
        observers: Sequence[Observer] = (),
        **options: Any,
    ) -> Explained:
        run = functools.partial(
            explain_once,
            self.forward_func,
            inputs,
            target,
            additional_forward_args,
            output_field=self.output_field,
            unknown=self.unknown,
            through=self.through,
            **{"composite": self.composite, **options},
        )
        observers = (*self.observers, *observers)
        if any(isinstance(o, Tracing) for o in observers):
            return run(observers=observers)
        with suppress(DisconnectedError):
            return run(observers=observers)
        # fails again, and names the places
        return run(observers=(*observers, Tracing()))

    def __repr__(self) -> str:
        model = type(self.forward_func).__name__
        through = ", ".join(
            f"{type(unit).__name__} of {type(unit.module).__name__}: {selector!r}"
            for unit, selector in self.through.items()
        )
        return (
            f"{type(self).__name__}({model}, composite={self.composite.name!r}"
            f"{f', through={{{through}}}' if through else ''})"
        )


def relevance_of(explained: Explained) -> Any:
    """Return the relevance of the inputs, in the form in which they were given."""
    times_input = explained.engine.composite.carries != "relevance"
    with torch.no_grad():
        values = tuple(
            leaf.relevance(
                gradient,
                times_input=times_input,
                dtype=explained.engine.identifiers.dtype,
            ).detach()
            for leaf, gradient in zip(
                explained.inputs.leaves, explained.gradients, strict=False
            )
        )
    return explained.inputs.restore(values)


def trace_of(method: str, explained: Explained, tracing: Tracing) -> Trace:
    """Return the trace of a pass that went back to the inputs."""
    values = tensors_in(relevance_of(explained))
    sums = [float(t.double().sum()) for t in values]
    to_identifiers = sum(
        total
        for total, leaf in zip(sums, explained.inputs.leaves, strict=True)
        if leaf.is_identifier
    )
    engine, scores = explained.engine, explained.scores
    if engine.composite.carries == "relevance":
        scores = engine.seed(scores)
    return tracing.trace(method, scores, sum(sums), to_identifiers)


def _checked_unknown(unknown: Any) -> Any:
    from ..known.unknown import UnknownOperators

    if unknown is not None:
        UnknownOperators(unknown, composite_named("attnlrp"))
    return unknown


class AttnLRP(TransformerLRP):
    """AttnLRP: softmax by Taylor expansion, products shared evenly (Achtibat 2024).

    arXiv 2402.05602. For transformers the method to start with. Does not
    conserve in the softmax. Arguments as for :class:`TransformerLRP`.
    """

    name: ClassVar[str] = "AttnLRP"
    description = replace(TransformerLRP.description, cost=1)

    def __init__(self, forward_func: Callable[..., Any], **options: Any) -> None:
        super().__init__(forward_func, "attnlrp", **options)


class CPLRP(TransformerLRP):
    """CP-LRP: attention patterns, gates and norms are constants (Ali 2022).

    arXiv 2202.07304. Conserves relevance up to what biases absorb: on a model without
    biases it sums to the score. Arguments as for :class:`TransformerLRP`.
    """

    name: ClassVar[str] = "CP-LRP"
    description = replace(TransformerLRP.description, conserves="score", cost=1)

    def __init__(self, forward_func: Callable[..., Any], **options: Any) -> None:
        super().__init__(forward_func, "cp-lrp", **options)


class EpsilonLRP(TransformerLRP):
    """LRP-epsilon: AttnLRP's table with a stabiliser in everything linear (Bach 2015).

    Args:
        forward_func (Callable): the model, or any function of it.
        epsilon (float, optional): the stabiliser. Default: 1e-6
        options (Any): as for :class:`TransformerLRP`.
    """

    name: ClassVar[str] = "LRP-epsilon"
    description = replace(TransformerLRP.description, cost=1.3)

    def __init__(
        self, forward_func: Callable[..., Any], *, epsilon: float = 1e-6, **options: Any
    ) -> None:
        super().__init__(forward_func, epsilon_lrp(epsilon), **options)


class GradientXInput(TransformerLRP):
    """Gradient x Input: the empty table, equal to Captum's InputXGradient.

    Works on integer token identifiers too, which Captum's does not. Arguments as for
    :class:`TransformerLRP`.
    """

    name: ClassVar[str] = "Gradient x Input"
    description = replace(TransformerLRP.description, conserves="no", cost=1)

    def __init__(self, forward_func: Callable[..., Any], **options: Any) -> None:
        super().__init__(forward_func, "gradient-x-input", **options)
