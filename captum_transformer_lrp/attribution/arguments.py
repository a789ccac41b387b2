"""Arguments that a method does not take, and what to write instead.

Who comes from another attributor of Captum passes what that one takes: a baseline, the
steps of a path. The answer says in one sentence where it belongs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ..errors import ArgumentError, TargetError, suggestion

_NO_PATH = (
    "Nothing is integrated along a path from a baseline: leave it out. For a method "
    "with a path use captum.attr.IntegratedGradients; OwenLRP and ErasureLRP, which "
    "replace parts, take baseline= when they are made."
)
_NOISE = (
    "Noise is added by a wrapper: captum.attr.NoiseTunnel(method).attribute(inputs, "
    "nt_samples=..., stdevs=...)."
)
_PERTURBED = (
    "No windows are moved over the input: leave it out, or use captum.attr.Occlusion."
)
#: keyword of other attributors -> what to do
INSTEAD = {
    "baselines": _NO_PATH,
    "n_steps": _NO_PATH,
    "internal_batch_size": _NO_PATH,
    "method": _NO_PATH,
    "n_samples": _NOISE,
    "nt_type": _NOISE,
    "nt_samples": _NOISE,
    "nt_samples_batch_size": _NOISE,
    "stdevs": _NOISE,
    "draw_baseline_from_distrib": _NOISE,
    "perturbations_per_eval": _PERTURBED,
    "sliding_window_shapes": _PERTURBED,
    "strides": _PERTURBED,
    "show_progress": "It has no progress to show: leave it out.",
    "abs": "Take .abs() of what it returns.",
    "feature_mask": "Sum what it returns over each feature.",
    "relu_attributions": "Take .relu() of what it returns.",
    "grad_kwargs": "The method decides what goes back: leave it out.",
    "custom_attribution_func": "The method decides what goes back: leave it out.",
    "return_convergence_delta": "It has no delta: attribute of methods of rules has.",
    "create_graph": (
        "What it returns has no graph and cannot be differentiated: parameters are "
        "constants while rules run, and the factors of the rules have no derivative. "
        "To train on an explanation take one that torch differentiates, such as "
        "gradient x input: `x * torch.autograd.grad(model(x)[:, target].sum(), x, "
        "create_graph=True)[0]`, with x.requires_grad_()."
    ),
}


class Taken:
    """The arguments that a method takes.

    Args:
        method (Callable): with ``self`` as its first parameter.
    """

    def __init__(self, method: Callable[..., Any]) -> None:
        parameters = list(inspect.signature(method).parameters.values())[1:]
        self.names = [p.name for p in parameters]
        self.any = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self.target_second = self.names[1:2] == ["target"]

    def check(self, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise for what the method does not take; drop what says no (``False``).

        Raises:
            ArgumentError: for a keyword.
            TargetError: for a baseline in the place of the target.
        """
        for name in list(kwargs):
            if name not in self.names and not self.any:
                instead = INSTEAD.get(name)
                if instead is not None and (
                    kwargs[name] is None or kwargs[name] is False
                ):
                    del kwargs[name]
                    continue
                known = suggestion(name, self.names)
                raise ArgumentError(
                    f"{type(method).__name__} was called with {name}=, which it does "
                    f"not take.{known if instead is None else f' {instead}'}"
                )
        if self.target_second:
            _check_target(args[1] if len(args) > 1 else kwargs.get("target"))


def _check_target(target: Any) -> None:
    """Raise TargetError for numbers in the form of inputs: it is a baseline."""
    if isinstance(target, Mapping):
        target = tuple(target.values())
    first = target[0] if isinstance(target, (tuple, list)) and target else target
    if isinstance(first, Tensor) and first.is_floating_point() and first.dim() > 1:
        raise TargetError(
            f"target is a tensor of {first.dtype} and shape {tuple(first.shape)}; "
            "expected an index of a class, or one for each example. A baseline, which "
            "other attributors take here, is not needed: attribute(inputs, target=...)."
        )


__all__ = ["INSTEAD", "Taken"]
