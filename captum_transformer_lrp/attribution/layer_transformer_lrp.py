"""Relevance at the inputs or outputs of layers inside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from .._captum import LayerGradientXActivation, log_usage
from .._nested import tensors_in
from ..core.composites import Composite
from ..errors import InputError
from ..observers.trace import Trace, Tracing, together
from .explains import explains
from .single_pass import Explained
from .transformer_lrp import TransformerLRP
from .units import Unit, as_unit


class LayerTransformerLRP(TransformerLRP, LayerGradientXActivation):
    r"""Relevance of a layer, or of several layers in one pass.

    Relevance is propagated from the score as for :class:`TransformerLRP`, and read off
    where it passes the layers.

    Args:
        forward_func (Callable): the model, or any function of it.
        layer (Module, Unit, or list of these): where relevance is read off: the output
            of a module, or heads, neurons or experts, see
            :mod:`~captum_transformer_lrp.attribution.units`.
        composite (str or Composite, optional): the method. Default: ``"attnlrp"``
        device_ids (list of int, optional): accepted for Captum's sake, with at most one
            device: the engine runs models on one process thread. Default: None
        options (Any): as for :class:`TransformerLRP`.

    Raises:
        TypeError: if ``layer`` is neither a module or unit nor a list of them.
        UnitError: if a unit cannot be found in its module.

    Examples::

        >>> blocks = list(model.bert.encoder.layer)
        >>> lrp = LayerTransformerLRP(model, blocks, composite="attnlrp")
        >>> per_block = lrp.attribute(batch, target=1)  # a list, one entry per block
    """

    name: ClassVar[str] = "LayerTransformerLRP"
    description = replace(TransformerLRP.description, needs=("layer",))

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Unit | list[nn.Module | Unit],
        composite: str | Composite = "attnlrp",
        *,
        device_ids: list[int] | None = None,
        **options: Any,
    ) -> None:
        check_layers(layer)
        check_devices(device_ids)
        LayerGradientXActivation.__init__(self, forward_func, layer)
        TransformerLRP.__init__(self, forward_func, composite, **options)

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        verbose: bool = False,
        *,
        grad_kwargs: None = None,
    ) -> Any:
        r"""Return the relevance at each layer.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for
                :meth:`TransformerLRP.attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance. Default: False
            verbose (bool, optional): print the trace. Default: False
            attribute_to_layer_input (bool, optional): read relevance off at what goes
                into the layer instead of what comes out. Default: False
            grad_kwargs (None, optional): accepted where Captum's wrappers pass it on.

        Returns:
            *Tensor*, *tuple* or mapping of **attributions** as the layer returns them
            (what is no float tensor is None), and a list of these for a list of layers.
            For layer inputs: the float tensors among positional, then keyword
            arguments; a tuple if there are several. For units one score per head,
            neuron or expert. With ``return_convergence_delta`` a pair with score minus
            sum of relevance, shape ``(examples,)`` (a list for a list of layers).

        Raises:
            InputError: if a layer does not run, runs more than once, or has no float
                tensor, or with ``through`` runs after it; and what
                :meth:`TransformerLRP.attribute` raises.
        """
        if grad_kwargs:
            raise TypeError(
                f"grad_kwargs={grad_kwargs}: the backward pass takes no options."
            )
        if verbose:
            print(
                self.trace(
                    inputs, target, additional_forward_args, attribute_to_layer_input
                )
            )
        units = self._units(attribute_to_layer_input)
        explained = self._explain(inputs, target, additional_forward_args, read=units)
        results = [
            place.arranged(explained.inputs.examples) for place in explained.places
        ]
        several = isinstance(self.layer, (list, tuple))
        if not return_convergence_delta:
            return results if several else results[0]
        deltas = [
            self._delta(result, explained, unit.module)
            for result, unit in zip(results, units, strict=True)
        ]
        return (results, deltas) if several else (results[0], deltas[0])

    @explains
    def trace(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Any = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
    ) -> Trace:
        """Return what every operator above the layer received and passed on.

        What goes around the layer, on its way to the inputs, counts as lost. Of several
        layers each has a pass of its own.

        Args:
            inputs (Tensor, tuple of Tensor, or Mapping): as for :meth:`attribute`.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None
            attribute_to_layer_input (bool, optional): what goes into the layer instead
                of what comes out. Default: False
        """
        traces = []
        for unit in self._units(attribute_to_layer_input):
            tracing = Tracing()
            explained = self._explain(
                inputs,
                target,
                additional_forward_args,
                read=[unit],
                observers=(tracing,),
            )
            (place,) = explained.places
            found = tensors_in(place.arranged(explained.inputs.examples))
            total = sum(float(tensor.double().sum()) for tensor in found)
            traces.append(replace(self._traced(explained, tracing), relevance=total))
        return traces[0] if len(traces) == 1 else together(traces[0].method, traces)

    def _units(self, attribute_to_layer_input: bool) -> list[Unit]:
        return [
            as_unit(layer, inputs=attribute_to_layer_input)
            for layer in check_layers(self.layer)
        ]

    def _delta(self, result: Any, explained: Explained, module: nn.Module) -> Tensor:
        tensors = tuple(tensors_in(result))
        examples = explained.scores.numel()
        # states and packed steps, even where there are as many as examples
        other = isinstance(module, nn.RNNBase) or not getattr(
            module, "batch_first", True
        )
        for tensor in tensors:
            if examples > 1 and (
                other or not tensor.dim() or tensor.shape[0] != examples
            ):
                raise InputError(
                    f"relevance of shape {tuple(tensor.shape)} is not ordered by the "
                    f"{examples} examples, so that there is no delta for each. Leave "
                    "return_convergence_delta out."
                )
        return self.compute_convergence_delta(tensors, explained.scores)


def check_layers(layer: Any) -> list[nn.Module | Unit]:
    """Return the layers of an explainer as a list.

    Raises:
        TypeError: if they are neither a module or unit nor a list of them.
    """
    layers = list(layer) if isinstance(layer, (list, tuple)) else [layer]
    if not layers or not all(isinstance(m, (nn.Module, Unit)) for m in layers):
        raise TypeError(
            f"layer={layer!r}; expected a torch.nn.Module or a list of them, or a unit "
            "such as units.Heads(module)."
        )
    return layers


def check_devices(device_ids: list[int] | None) -> None:
    """Raise TypeError where Captum is asked to work on several devices."""
    if device_ids is not None and len(device_ids) > 1:
        raise TypeError(
            f"device_ids={device_ids}: DataParallel replicas are not supported. "
            "Explain model.module on one device."
        )


class LayerAttnLRP(LayerTransformerLRP):
    """AttnLRP (arXiv 2402.05602) at layers; see :class:`LayerTransformerLRP`."""

    name: ClassVar[str] = "LayerAttnLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Unit | list[nn.Module | Unit],
        **options: Any,
    ) -> None:
        super().__init__(forward_func, layer, "attnlrp", **options)


class LayerCPLRP(LayerTransformerLRP):
    """CP-LRP (arXiv 2202.07304) at layers; see :class:`LayerTransformerLRP`."""

    name: ClassVar[str] = "LayerCPLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | Unit | list[nn.Module | Unit],
        **options: Any,
    ) -> None:
        super().__init__(forward_func, layer, "cp-lrp", **options)
