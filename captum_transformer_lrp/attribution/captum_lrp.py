"""Captum's LRP and LayerLRP, without what they refuse, delete or forget."""

from __future__ import annotations

import glob
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from .._captum import (
    SUPPORTED_LAYERS_WITH_RULES,
    SUPPORTED_NON_LINEAR_LAYERS,
    PropagationRule,
    log_usage,
)
from ..core.composites import Composite
from ..core.registry import ModuleName
from .captum_rules import from_captum
from .explains import explains
from .layer_transformer_lrp import LayerTransformerLRP
from .single_pass import Explained
from .transformer_lrp import TransformerLRP
from .units import Unit


class _RulesOfModules(TransformerLRP):
    """Reads the rules that a user has set on modules, at every call."""

    model: Any

    def _check_rules(self) -> None:
        """Raise TypeError where a module's ``rule`` is none of Captum's."""
        self.model = self.forward_func
        for name, module in self._modules():
            rule = getattr(module, "rule", None)
            if rule is not None and not isinstance(rule, PropagationRule):
                raise TypeError(
                    f"the attribute rule of module {name!r} is {rule!r}; expected an "
                    "instance of captum's PropagationRule, or None for the default."
                )

    def _modules(self) -> list[tuple[str, nn.Module]]:
        """Return the modules of the model with their names; a function has none."""
        model = self.forward_func
        return list(model.named_modules()) if isinstance(model, nn.Module) else []

    def _layers(self) -> list[tuple[str, nn.Module, PropagationRule | None]]:
        """Return the modules without children, with the rules set on them.

        As in Captum, activations and dropout always pass relevance on.
        """
        return [
            (name, module, getattr(module, "rule", None))
            for name, module in self._modules()
            if not module._modules and type(module) not in SUPPORTED_NON_LINEAR_LAYERS
        ]

    def _composite_now(self) -> Composite:
        self._check_rules()
        rows = {
            ModuleName(glob.escape(name)): from_captum(rule)
            for name, _, rule in self._layers()
            if rule is not None
        }
        return self.composite.with_rules(rows) if rows else self.composite

    def _explain(self, *args: Any, **options: Any) -> Explained:
        return super()._explain(*args, composite=self._composite_now(), **options)

    def _print_rules(self) -> None:
        for _, module, rule in self._layers():
            default = SUPPORTED_LAYERS_WITH_RULES.get(type(module))
            if rule is not None or default is not None:
                print(f"Applied {rule or default()} on layer {module}")


class CaptumLRP(_RulesOfModules):
    r"""Captum's ``LRP``: the same arguments, attributes and numbers, and no limits.

    A module's attribute ``rule`` (a ``PropagationRule``, or None) is honoured, and is
    still there afterwards; without one, LRP-epsilon is the rule of everything linear
    and activations pass relevance on. Beyond ``captum.attr.LRP``: sums, products,
    pooling and activations may be written as functions, modules may be used several
    times or be of any class, several inputs may be added up, attention and
    normalisation are treated as in AttnLRP, and nothing of the model changes, even
    after an error. Attributions are detached, as for all methods here.

    Like ``captum.attr.LRP`` it takes a model in training mode, but not batch
    normalisation in training mode, which would mix the examples.

    Args:
        model (Module or Callable): the model; a function of it has no modules to set
            rules on.
        options (Any): as for :class:`TransformerLRP`.

    Raises:
        TypeError: if a module's ``rule`` is something else.

    Examples::

        >>> model.conv1.rule = GammaRule(gamma=0.25)
        >>> relevance, delta = CaptumLRP(model).attribute(
        ...     pixels, target=7, return_convergence_delta=True
        ... )
    """

    name: ClassVar[str] = "Captum's LRP"

    def __init__(self, model: Callable[..., Any], **options: Any) -> None:
        super().__init__(model, "captum", **options)
        self._check_rules()

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        verbose: bool = False,
    ) -> Any:
        r"""Return the relevance of each input for the target's score.

        Args:
            inputs (Tensor or tuple of Tensor): what is explained.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on after the inputs.
                Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance, per example. Default: False
            verbose (bool, optional): print the rule of each layer. Default: False

        Returns:
            *Tensor* or *tuple[Tensor, ...]* of **attributions**, in units of the score,
            and **delta**, if asked for.

        Raises:
            TypeError: if a module's ``rule`` is none of Captum's; and what
                :meth:`TransformerLRP.attribute` raises.
        """
        if verbose:
            self._print_rules()
        return TransformerLRP.attribute.__wrapped__(
            self, inputs, target, additional_forward_args, return_convergence_delta
        )


class LayerCaptumLRP(_RulesOfModules, LayerTransformerLRP):
    r"""Captum's ``LayerLRP``: the same arguments and numbers, see :class:`CaptumLRP`.

    Args:
        model (Module or Callable): the model.
        layer (Module or list of Module): where relevance is read off.
        options (Any): as for :class:`LayerTransformerLRP`.

    Raises:
        TypeError: as for :class:`CaptumLRP`, and if ``layer`` is something else.
    """

    name: ClassVar[str] = "Captum's LayerLRP"

    def __init__(
        self,
        model: Callable[..., Any],
        layer: nn.Module | Unit | list[nn.Module | Unit],
        **options: Any,
    ) -> None:
        LayerTransformerLRP.__init__(self, model, layer, "captum", **options)
        self._check_rules()

    @log_usage(part_of_slo=True)
    @explains
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        target: Any = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        verbose: bool = False,
    ) -> Any:
        r"""Return the relevance at each layer.

        Args:
            inputs (Tensor or tuple of Tensor): what is explained.
            target (int, tuple, Tensor or list, optional): which score. Default: None
            additional_forward_args (Any, optional): passed on. Default: None
            return_convergence_delta (bool, optional): also return score minus sum of
                relevance. Default: False
            attribute_to_layer_input (bool, optional): read relevance off at what goes
                into the layer. Default: False
            verbose (bool, optional): print the rule of each layer. Default: False

        Returns:
            *Tensor*, *tuple* or *list* of **attributions**, and **delta**, if asked
            for, as for :meth:`LayerTransformerLRP.attribute`.

        Raises:
            TypeError, InputError: as for :meth:`CaptumLRP.attribute` and
                :meth:`LayerTransformerLRP.attribute`.
        """
        if verbose:
            self._print_rules()
        return LayerTransformerLRP.attribute.__wrapped__(
            self,
            inputs,
            target,
            additional_forward_args,
            return_convergence_delta,
            attribute_to_layer_input,
        )
