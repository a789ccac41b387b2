"""Relevance of the inputs for neurons inside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from .._captum import NeuronAttribution, log_usage
from ..core.composites import Composite
from ..observers.trace import Trace, Tracing
from .explains import explains
from .layer_transformer_lrp import check_devices
from .single_pass import Explained, Start
from .transformer_lrp import TransformerLRP, relevance_of
from .units import Selector, Unit, as_unit


class NeuronTransformerLRP(TransformerLRP, NeuronAttribution):
    r"""Relevance of the inputs for neurons of a layer, heads or experts.

    Relevance starts with the value of the selected neurons instead of the score, so
    that it sums to that value, up to what constants absorb and what the rules do not
    conserve. What the model does after the layer is of no influence.

    Args:
        forward_func (Callable): the model, or any function of it.
        layer (Module or Unit): whose neurons are explained, see
            :mod:`~captum_transformer_lrp.attribution.units`. A head's value is the sum
            over its features, an expert's the sum over what it adds to the output.
        composite (str or Composite, optional): the method. Default: ``"attnlrp"``
        device_ids (list of int, optional): accepted for Captum's sake, with at most one
            device. Default: None
        options (Any): as for :class:`TransformerLRP`.

    Raises:
        TypeError: if ``layer`` is neither a module nor a unit.
        UnitError: if a unit cannot be found in its module.

    Examples::

        >>> neuron = NeuronTransformerLRP(model, model.bert.encoder.layer[3])
        >>> # relevance of each token for feature 7 of the first token
        >>> neuron.attribute(batch, neuron_selector=(0, 7))
    """

    name: ClassVar[str] = "NeuronTransformerLRP"
    description = replace(TransformerLRP.description, needs=("layer",))

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Unit,
        composite: str | Composite = "attnlrp",
        *,
        device_ids: list[int] | None = None,
        **options: Any,
    ) -> None:
        as_unit(layer)
        check_devices(device_ids)
        NeuronAttribution.__init__(self, forward_func, layer, device_ids)
        TransformerLRP.__init__(self, forward_func, composite, **options)

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        neuron_selector: Selector,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        r"""Return the relevance of each input for the selected neurons.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for
                :meth:`TransformerLRP.attribute`.
            neuron_selector (int, tuple, list, Tensor or Callable): as in Captum: an
                index into the second of two dimensions, a tuple of indices and slices,
                one for each dimension after the examples, or a function of what the
                layer has that returns one value per example. A bare index of a unit is
                a head, neuron or expert, at all tokens. Several neurons are explained
                as their sum.
            additional_forward_args (Any, optional): passed on. Default: None
            attribute_to_neuron_input (bool, optional): select from what goes into the
                layer instead of what comes out. Default: False
            return_convergence_delta (bool, optional): also return the neurons' value
                minus the sum of relevance, per example. Default: False
            verbose (bool, optional): print the trace. Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, of the shapes of the
            inputs, detached; a mapping with several known entries gives a dictionary.
            With ``return_convergence_delta`` a pair with **delta**, shape
            ``(examples,)``.

        Raises:
            InputError: if the layer does not run, runs more than once, or the selector
                does not fit its shape; and what :meth:`TransformerLRP.attribute`
                raises.
        """
        arguments = (
            inputs,
            neuron_selector,
            additional_forward_args,
            attribute_to_neuron_input,
        )
        if verbose:
            print(self.trace(*arguments))
        explained = self._explain_neuron(*arguments)
        attributions = relevance_of(explained)
        if not return_convergence_delta:
            return attributions
        delta = self.compute_convergence_delta(attributions, explained.scores)
        return attributions, delta

    @explains
    def trace(  # type: ignore[override]
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        neuron_selector: Selector,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
    ) -> Trace:
        """Return what every operator before the neurons received and passed on.

        Arguments as for :meth:`attribute`.
        """
        tracing = Tracing()
        explained = self._explain_neuron(
            inputs,
            neuron_selector,
            additional_forward_args,
            attribute_to_neuron_input,
            observers=(tracing,),
        )
        return self._traced(explained, tracing)

    def _explain_neuron(
        self,
        inputs: Any,
        neuron_selector: Selector,
        additional_forward_args: Any,
        attribute_to_neuron_input: bool,
        **options: Any,
    ) -> Explained:
        unit = as_unit(self.layer, inputs=attribute_to_neuron_input)
        return self._explain(
            inputs,
            None,
            additional_forward_args,
            start=Start(unit, neuron_selector),
            **options,
        )


class NeuronAttnLRP(NeuronTransformerLRP):
    """AttnLRP (arXiv 2402.05602) for neurons; see :class:`NeuronTransformerLRP`."""

    name: ClassVar[str] = "NeuronAttnLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Unit,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, layer, "attnlrp", **options)


class NeuronCPLRP(NeuronTransformerLRP):
    """CP-LRP (arXiv 2202.07304) for neurons; see :class:`NeuronTransformerLRP`."""

    name: ClassVar[str] = "NeuronCPLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Unit,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, layer, "cp-lrp", **options)
