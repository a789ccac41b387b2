"""Captum's propagation rules as rules of this package."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .._captum import PropagationRule
from ..core.call import Call
from ..core.rules.base import CarriedRule
from ..errors import RuleError


def from_captum(rule: PropagationRule) -> CaptumRule:
    """Return a rule that does to a module what Captum's LRP does under ``rule``.

    For rows of a composite whose keys are modules, by class, :class:`ModuleName` or
    ``Layers``::

        >>> from captum.attr._utils.lrp_rules import GammaRule
        >>> TransformerLRP(model, rules={nn.Conv2d: from_captum(GammaRule())})

    Args:
        rule (PropagationRule): any of Captum's, or a subclass of yours.

    Raises:
        TypeError: if ``rule`` is no instance of ``PropagationRule``.
    """
    if not isinstance(rule, PropagationRule):
        hint = (
            f" Write {rule.__name__}() with parentheses."
            if isinstance(rule, type)
            else ""
        )
        raise TypeError(
            f"got the rule {rule!r}; expected an instance of captum's PropagationRule, "
            f"such as EpsilonRule() or GammaRule().{hint}"
        )
    return CaptumRule(rule=rule)


@dataclass(frozen=True, kw_only=True)
class CaptumRule(CarriedRule):
    """One of Captum's rules: ``R_in = x * gradient of f' at x, from R / s(f'(x))``.

    f' is the module with the weights that the rule makes of its own
    (``_manipulate_weights``), and the two hooks of the rule say what is done with
    relevance at its output and input; all of them may be overridden. The module and the
    rule are left as they are: both are copied.

    Unlike the rules of this package that have the same names, Captum's GammaRule and
    Alpha1_Beta0_Rule change the weights whatever the signs of input and output.

    Args:
        rule (PropagationRule): Captum's rule.
    """

    rule: PropagationRule
    inside: ClassVar[Literal["gradient", "constant"]] = "constant"

    def __repr__(self) -> str:
        known = {
            name: value
            for name, value in vars(self.rule).items()
            if isinstance(value, (bool, int, float)) and not name.startswith("_")
        }
        options = ", ".join(f"{name}={value!r}" for name, value in known.items())
        return f"CaptumRule(rule={type(self.rule).__name__}({options}))"

    def __call__(self, call: Call) -> Any:
        """Lead relevance past the module.

        Raises:
            RuleError: if the rule was given to an operator, or the module returns
                something else than one tensor.
        """
        module = call.module
        output = call.value()
        if module is None or not isinstance(output, Tensor):
            returned = "" if module is None else f" returning {type(output).__name__}"
            raise RuleError(
                f"{self!r} was given to {call.operator!r}{returned}; expected a module "
                "that returns one tensor. Give it to a module class, a ModuleName or "
                "Layers, or set it as the module's attribute 'rule' for CaptumLRP."
            )
        changed = _copy_of(module)
        self.rule._manipulate_weights(changed, call.args, output)
        call, operands = call.aliased()
        made = changed.forward(*call.args, **call.kwargs)
        kept = [call.keep(t) for t in operands]
        value = made.detach().clone()

        def share(relevance: Tensor) -> list[Tensor | None]:
            rule: Any = copy.copy(self.rule)
            rule.relevance_input, rule.relevance_output = defaultdict(list), {}
            rule._has_single_input = len(operands) == 1
            at_output = rule._create_backward_hook_output(value)
            seed = _hooked(at_output, relevance)
            gradients = torch.autograd.grad(
                made, operands, seed, retain_graph=True, allow_unused=True
            )
            return [
                None
                if g is None
                else _hooked(rule._create_backward_hook_input(x.tensor), g)
                for x, g in zip(kept, gradients, strict=True)
            ]

        return call.switch(output, share, *operands)


def _hooked(hook: Any, gradient: Tensor) -> Tensor:
    """Return what a hook makes of a gradient; nothing is what it was."""
    found = hook(gradient)
    return gradient if found is None else found


def _copy_of(module: nn.Module) -> nn.Module:
    """Return a module with the same everything and parameters of its own."""
    twin = copy.copy(module)
    parameters: dict[str, Any] = {
        name: None if p is None else nn.Parameter(p.detach().clone(), False)
        for name, p in module._parameters.items()
    }
    twin.__dict__["_parameters"] = parameters
    return twin
