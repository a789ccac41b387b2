"""Relevance at the inputs or outputs of layers inside the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._captum import LayerGradientXActivation, log_usage
from ..errors import InputError
from ..propagation import Composite, Engine
from ..propagation.call import map_tensors, tensors_in
from .single_pass import Explained
from .transformer_lrp import TransformerLRP


class LayerTransformerLRP(TransformerLRP, LayerGradientXActivation):
    r"""Relevance of a layer, or of several layers in one pass.

    Relevance is propagated from the score as for :class:`TransformerLRP`, and read off
    where it passes the layers.

    Args:
        forward_func (Callable): the model, or any function of it.
        layer (Module or list of Module): where relevance is read off.
        composite (str or Composite, optional): the method. Default: ``"attnlrp"``
        device_ids (list of int, optional): accepted for Captum's sake; must be None, as
            the engine runs models on one process thread. Default: None
        options (Any): as for :class:`TransformerLRP`.

    Raises:
        TypeError: if ``layer`` is neither a module nor a list of modules.

    Examples::

        >>> blocks = list(model.bert.encoder.layer)
        >>> lrp = LayerTransformerLRP(model, blocks, composite="attnlrp")
        >>> per_block = lrp.attribute(batch, target=1)  # a list, one entry per block
    """

    name: ClassVar[str] = "LayerTransformerLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        composite: str | Composite = "attnlrp",
        *,
        device_ids: list[int] | None = None,
        **options: Any,
    ) -> None:
        layers = [layer] if isinstance(layer, nn.Module) else layer
        if (
            not isinstance(layers, (list, tuple))
            or not layers
            or not all(isinstance(m, nn.Module) for m in layers)
        ):
            raise TypeError(
                f"layer={layer!r}; expected a torch.nn.Module or a list of them."
            )
        if device_ids is not None:
            raise TypeError(
                f"device_ids={device_ids}: DataParallel replicas are not supported. "
                "Explain model.module on one device."
            )
        LayerGradientXActivation.__init__(self, forward_func, layer)
        TransformerLRP.__init__(self, forward_func, composite, **options)

    @log_usage(part_of_slo=True)
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
            arguments; a tuple if there are several. With ``return_convergence_delta`` a
            pair with score minus sum of relevance, shape ``(examples,)`` (a list for a
            list of layers).

        Raises:
            InputError: if a layer does not run, runs more than once, or has no float
                tensor; and what :meth:`TransformerLRP.attribute` raises.
        """
        if grad_kwargs:
            raise TypeError(
                f"grad_kwargs={grad_kwargs}: the backward pass takes no options."
            )
        if verbose:
            print(self.trace(inputs, target, additional_forward_args))
        layers = [self.layer] if isinstance(self.layer, nn.Module) else self.layer
        explained = self._explain(
            inputs,
            target,
            additional_forward_args,
            capture=tuple(layers),
            capture_inputs=attribute_to_layer_input,
            wanted=lambda engine: _captured(engine, layers),
        )
        relevance = _relevance_of(explained)
        results = [
            _arranged(
                explained.engine.captured[id(m)], relevance, attribute_to_layer_input
            )
            for m in layers
        ]
        deltas = [
            self.compute_convergence_delta(tuple(tensors_in(result)), explained.scores)
            for result in results
        ]
        if isinstance(self.layer, nn.Module):
            return (results[0], deltas[0]) if return_convergence_delta else results[0]
        return (results, deltas) if return_convergence_delta else results


def _captured(engine: Engine, layers: Any) -> list[Tensor]:
    tensors = []
    for layer in layers:
        if id(layer) not in engine.captured:
            raise InputError(
                f"the layer {type(layer).__name__} did not run in the forward pass. "
                "Choose a module of the explained model that is used for these inputs."
            )
        value = engine.captured[id(layer)]
        found = [t for t in tensors_in(value) if t.requires_grad]
        if not found:
            raise InputError(
                f"the layer {type(layer).__name__} has no float tensor that depends on "
                "the inputs, so that no relevance passes it."
            )
        tensors += found
    return tensors


def _relevance_of(explained: Explained) -> dict[int, Tensor]:
    times_input = explained.engine.composite.carries != "relevance"
    tensors = [
        t
        for value in explained.engine.captured.values()
        for t in tensors_in(value)
        if t.requires_grad
    ]
    gradients = explained.gradients[len(explained.inputs.leaves) :]
    assert len(tensors) == len(gradients)
    result = {}
    with torch.no_grad():
        for tensor, gradient in zip(tensors, gradients, strict=True):
            if gradient is None:
                result[id(tensor)] = torch.zeros_like(tensor)
            else:
                value = tensor * gradient if times_input else gradient
                result[id(tensor)] = value.detach()
    return result


def _arranged(captured: Any, relevance: dict[int, Tensor], inputs: bool) -> Any:
    """Return relevance in the structure in which a layer's tensors were captured."""
    if inputs:
        found = tuple(relevance[id(t)] for t in tensors_in(captured) if t.requires_grad)
        return found[0] if len(found) == 1 else found
    arranged = map_tensors(
        lambda t: relevance.get(id(t)) if t.is_floating_point() else None, captured
    )
    if isinstance(arranged, tuple) and len(arranged) == 1:
        return arranged[0]
    return arranged


class LayerAttnLRP(LayerTransformerLRP):
    """AttnLRP (arXiv 2402.05602) at layers; see :class:`LayerTransformerLRP`."""

    name: ClassVar[str] = "LayerAttnLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        **options: Any,
    ) -> None:
        super().__init__(forward_func, layer, "attnlrp", **options)


class LayerCPLRP(LayerTransformerLRP):
    """CP-LRP (arXiv 2202.07304) at layers; see :class:`LayerTransformerLRP`."""

    name: ClassVar[str] = "LayerCPLRP"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        **options: Any,
    ) -> None:
        super().__init__(forward_func, layer, "cp-lrp", **options)
