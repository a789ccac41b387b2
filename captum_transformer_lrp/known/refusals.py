"""Modules and functions that cannot be explained, and operators that change a module.

Left alone, what they return would count as a constant, mix the examples of a batch, or
be one random draw of many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from .._nested import tensors_in
from ..core.call import Call
from ..core.engine import Engine
from ..core.rules.base import Rule
from ..core.table import Operator
from ..errors import ModelStateError

#: packages of modules that compute with quantised numbers, of which torch records
#: nothing to go back through
_QUANTIZED = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "transformers.integrations.bitnet",  # rounds its inputs to int8
)
_ASKED = (nn.modules.batchnorm._BatchNorm, nn.DataParallel, torch.jit.ScriptModule)


def names_of(root: nn.Module) -> dict[int, str]:
    """Return the names of modules within a model, by their ids."""
    return {id(module): name for name, module in root.named_modules()}


def refuse_module(module: nn.Module, root: nn.Module, rule: Rule | None) -> bool:
    """Raise ModelStateError for a module that cannot be explained.

    Args:
        module (Module): part of the model.
        root (Module): the model.
        rule (Rule or None): what a row gives the module.

    Returns:
        Whether each module of its class has to be asked, in each run.
    """
    if rule is None and type(module).__module__.startswith(_QUANTIZED):
        refuse_quantized(module, root)
    if not isinstance(module, _ASKED):
        return False
    name = names_of(root).get(id(module)) or type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise ModelStateError(
            f"the module {name!r} is a TorchScript module, whose operators cannot "
            "be seen. Explain the python model that was scripted or traced."
        )
    if isinstance(module, nn.DataParallel):
        refuse_replicas(module)
    elif module.training and module.running_mean is not None:
        raise ModelStateError(batch_norm_message(name))
    return True


def refuse_quantized(module: nn.Module, root: nn.Module) -> None:
    """Raise ModelStateError for a quantised module without a rule.

    Left alone, what it returns would count as a constant.
    """
    if type(module).__name__.endswith("PackedParams"):  # holds weights, runs nothing
        return
    name = names_of(root).get(id(module)) or "(the model itself)"
    cls = type(module)
    raise ModelStateError(
        f"the module {name!r} ({cls.__module__}.{cls.__qualname__}) computes with "
        "quantised numbers, through which torch records no gradient. Explain the model "
        "as it was before quantisation. Linear layers by quantize_dynamic(model, "
        "{torch.nn.Linear}) can be explained by every method but Gradient x Input."
    )


def refuse_replicas(module: nn.DataParallel[Any]) -> None:
    """Raise ModelStateError for a model that would run on several devices.

    Its replicas run in threads of their own, which the engine does not see.
    """
    if len(module.device_ids) > 1:
        raise ModelStateError(
            f"the model is a DataParallel on {len(module.device_ids)} devices, whose "
            "replicas run where no rule can see them. Explain model.module on one "
            "device, a part of the batch at a time."
        )


def batch_norm_message(name: str) -> str:
    """Return the message for batch normalisation in training mode."""
    return (
        f"the batch normalisation {name!r} is in training mode: it would change its "
        "running statistics and mix the examples of the batch. Call model.eval() first."
    )


def refuse_function(function: str) -> None:
    """Raise ModelStateError for a checkpoint that re-enters autograd."""
    if function == "torch.utils.checkpoint.CheckpointFunction":
        raise ModelStateError(
            "part of the model is checkpointed with use_reentrant=True, which "
            "recomputes it where no rule can see it. Call model.eval() or "
            "model.gradient_checkpointing_disable(), or enable checkpointing with "
            'gradient_checkpointing_kwargs={"use_reentrant": False}.'
        )


def refuse_differentiation(engine: Engine, operator: Operator, args: Any) -> None:
    """Raise ModelStateError where the model differentiates itself."""
    if engine.paused or engine.backward:
        return
    if not engine.composite.rows and all(map(engine.tape.of, tensors_in(args[:1]))):
        return  # torch's own gradients
    raise ModelStateError(
        f"torch.autograd.{operator.name} was called inside the forward pass, in "
        f"{engine.module_path() or '(no module)'}: its result would be computed from "
        "the gradients of the rules instead of the model's own. Explain the part "
        "of the model that is differentiated (an energy instead of its forces), or "
        "use an attribution method that only calls the model, such as Occlusion."
    )


def _normalizes(engine: Engine, call: Call) -> None:
    training = call.argument(5, "training", False)
    if training and call.argument(1, "running_mean") is not None:
        raise ModelStateError(batch_norm_message(engine.module_path()))


def _attends(engine: Engine, call: Call) -> None:
    engine.dropout_seen |= call.argument(4, "dropout_p", 0.0) > 0


def _drops(engine: Engine, call: Call) -> None:
    if call.argument(2, "training", True) and call.argument(1, "p", 0.5) > 0:
        engine.dropout_seen = True


_DROPOUT = """dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout
    feature_alpha_dropout native_dropout"""

#: operator -> what is asked before it runs: it may draw random numbers, or change a
#: module in training mode
STATEFUL: dict[str, Callable[[Engine, Call], None]] = {
    "batch_norm": _normalizes,
    "scaled_dot_product_attention": _attends,
    **dict.fromkeys(_DROPOUT.split(), _drops),
}
