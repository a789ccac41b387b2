"""Rules in the form R / x where relevance itself travels: the two forms meet.

A composite with a rule whose relevance is no multiple of the input carries relevance
itself, and so do then all of its rules. What a rule of the form R / x does is the same
in both: its gradient, between a division by the output and a multiplication with the
input.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors
from ..core.call import Call, carries_relevance
from ..core.rules.base import (
    CarriedRule,
    DelegatingRule,
    ElementwiseRule,
    Rule,
    parts_of,
    relevant_tensors,
)
from ..core.rules.linear import PlainGradient
from ..errors import RuleError
from ..known.merging import operand_behind
from ..known.quantized import DequantizedLinear
from .passes import Switch, divide
from .past import PASSING, fit_to


def relevance_form(
    rule: Rule, kind: str | None, operator: str | None, *, beside_gradient: bool = False
) -> Rule:
    """Return a rule for the same relevance where relevance itself travels.

    Args:
        rule (Rule): in either form.
        kind (str or None): the kind of the operator that it is for.
        operator (str or None): its name; None for a module.
        beside_gradient (bool, optional): torch's own gradient goes back through the
            same graph, and must stay as it is. Default: False

    Raises:
        RuleError: if the rule would change that gradient.
    """
    if type(rule) is PlainGradient:
        if kind in ("structural", "lookup"):
            return rule
        return Past(rule=rule) if operator in PASSING else Converted(rule=rule)
    if isinstance(rule, (CarriedRule, DelegatingRule)):
        parts = parts_of(rule)
        changed = {
            name: relevance_form(part, kind, operator, beside_gradient=beside_gradient)
            for name, part in parts.items()
        }
        return rule if changed == parts else dataclasses.replace(rule, **changed)
    if beside_gradient and not isinstance(rule, DequantizedLinear):
        raise RuleError(
            f"{rule!r}, for {operator or 'a module'}, makes a gradient that is R / x, "
            'and stands in a table with carries="relevance", in which R itself goes '
            "back beside torch's own gradient. Give a rule that derives from "
            "CarriedRule there, such as PassOn() or PositiveProduct(), or leave "
            "`carries` out of the Composite: it then converts R / x to R by itself."
        )
    return (Past if isinstance(rule, ElementwiseRule) else Converted)(rule=rule)


@dataclass(frozen=True, kw_only=True)
class Converted(CarriedRule):
    """A rule of the form R / x: ``R_in = x * gradient(R / output)``, 0 at an output 0.

    Args:
        rule (Rule): the rule, with a gradient of its own.
    """

    rule: Rule

    def __call__(self, call: Call) -> Any:
        """Apply the rule; on the way back, between a division and a product."""
        if call.module is None:
            aliased, operands = call.aliased()
        else:  # the engine has handed it aliases
            aliased, operands = call, _relevant(call)
        output = self.rule(aliased)
        call.note = aliased.note
        return map_tensors(lambda t: _through(aliased, operands, t), output)


def _through(call: Call, operands: list[Tensor], output: Tensor) -> Tensor:
    if not output.requires_grad or Switch.made(output.grad_fn):
        return output
    operand = operand_behind(call)
    found = operands if operand is None else [operand]
    made, inputs = call.keep(output), [call.keep(x) for x in found]

    def share(relevance: Tensor) -> list[Tensor | None]:
        gradients = torch.autograd.grad(
            output,
            found,
            divide(relevance, made.tensor),
            retain_graph=True,
            allow_unused=True,
        )
        return [
            None if g is None else torch.where(g == 0, 0, x.tensor * g)
            for x, g in zip(inputs, gradients, strict=True)
        ]

    return call.switch(output, share, *found)


def _relevant(call: Call) -> list[Tensor]:
    """Return the arguments that carry relevance, each once."""
    return list({id(t): t for t in relevant_tensors(call)}.values())


@dataclass(frozen=True, kw_only=True)
class Past(CarriedRule):
    """A rule of the form R / x that passes relevance on, element by element.

    Where the output is 0 and R / x knows nothing of it, relevance passes all the same.

    Args:
        rule (Rule): the rule, with a gradient of its own.
    """

    rule: Rule

    def __call__(self, call: Call) -> Any:
        """Apply the rule, and lead relevance past it."""
        relevant = _relevant(call)

        def past(output: Tensor) -> Tensor:
            if not carries_relevance(output) or Switch.made(output.grad_fn):
                return output
            return call.switch(output, fit_to(relevant[0].shape), relevant[0])

        return map_tensors(past, self.rule(call))
