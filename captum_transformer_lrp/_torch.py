"""The private names of torch that this package uses, all of them in one place.

``tests/test_torch_names.py`` asks each of them for what is relied on: run it first
where a new version of torch misbehaves.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from torch import _C
from torch._C import DisableTorchFunction
from torch._C import _is_torch_function_enabled as is_torch_function_enabled
from torch._C import _len_torch_function_stack as count_of_modes
from torch._C import _set_grad_enabled as set_grad_enabled
from torch._C._autograd import _get_sequence_nr as next_node_number
from torch._C._autograd import (
    _pop_saved_tensors_default_hooks as pop_saved_tensor_hooks,
)
from torch._C._autograd import _top_saved_tensors_default_hooks as saved_tensor_hooks
from torch._C._functorch import get_unwrapped as unwrapped
from torch._C._functorch import is_functorch_wrapped_tensor as is_wrapped
from torch._C._functorch import peek_interpreter_stack as transform_level
from torch.nn.modules import module as _modules
from torch.overrides import _get_current_function_mode_stack as mode_stack
from torch.overrides import _pop_mode as pop_mode
from torch.overrides import _push_mode as push_mode
from torch.utils._python_dispatch import TorchDispatchMode as DispatchMode

#: hooks that run at every module of the process, by number
before_modules: dict[int, Callable[..., Any]] = _modules._global_forward_pre_hooks
after_modules: dict[int, Callable[..., Any]] = _modules._global_forward_hooks
#: torch forgets these entries when it removes a hook (seen in 2.8 to 2.15)
after_modules_options: tuple[dict[int, bool], ...] = tuple(
    getattr(_modules, f"_global_forward_hooks_{name}", {})
    for name in ("with_kwargs", "always_called")
)
#: autograd functions of torch itself that hand tensors on as they are
MOVING_FUNCTIONS = (
    "torch.nn.parallel.",
    "torch.nn.modules._functions.BackwardHookFunction",
    "torch._library.autograd",
)
#: the functions of torch that are written in C++
built_in: Any = _C._nn
_COMPILER = "torch._dynamo.eval_frame"
#: where torch keeps operators that take functions, such as torch.cond
HIGHER_ORDER = "torch._higher_order_ops"


def node_number(node: Any) -> int:
    """Return the number of a node of autograd's graph, in the order of its thread."""
    number: int = node._sequence_nr()
    return number


def node_outputs(node: Any) -> tuple[Any, ...]:
    """Return shape and dtype of what a node stands for, one for each output."""
    return tuple(getattr(node, "_input_metadata", ()))


def saved(node: Any, name: str) -> Any:
    """Return what an operator saved for its way back."""
    return getattr(node, f"_saved_{name}")


def function_class(node: Any) -> Any:
    """Return the autograd function that made a node, None if an operator did."""
    return getattr(type(node), "_forward_cls", None)


def revive(tensor: Any) -> None:
    """Give a tensor back to python that C++ alone holds, see TensorWeakRef."""
    tensor._fix_weakref()


def written_by(
    operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> list[Any]:
    """Return the arguments that an operator below autograd writes into."""
    schema = operator._schema
    if not schema.is_mutable:
        return []
    return [
        args[place] if place < len(args) else kwargs.get(argument.name)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def stance() -> Any:
    """Return how compiled code runs; None if nobody has loaded the compiler."""
    return getattr(sys.modules.get(_COMPILER), "_stance", None)


def set_stance(new: Any) -> None:
    """Say how compiled code runs, of a compiler that is loaded."""
    compiler: Any = sys.modules[_COMPILER]
    compiler._stance = new


def cached_parametrizations() -> dict[Any, Any]:
    """Return what torch keeps inside ``parametrize.cached()``."""
    found = getattr(sys.modules.get("torch.nn.utils.parametrize"), "_cache", None)
    return {} if found is None else found


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return torch's own decompositions, by operator."""
    from torch._decomp import decomposition_table

    return decomposition_table


def indexing_by_tensors() -> Any:
    """Return a mode in which ``x[i]`` takes a tensor for i, inside vmap too."""
    from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

    return TransformGetItemToIndex()


def opened(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a twin of a torch function written in python that shows what it calls.

    Functions such as :func:`torch.nn.functional.multi_head_attention_forward` hand
    themselves to an active mode as a whole, and re-entering the mode around them would
    only hand them over again. The twin has the same code, with the check for overrides
    answered "no", so that the operators inside reach the mode one by one. ``None``
    where there is nothing to open: builtins, and functions outside torch.
    """
    if not isinstance(function, types.FunctionType):
        return None
    if not str(function.__module__ or "").startswith("torch"):
        return None
    checks = [n for n in function.__code__.co_names if n.startswith("has_torch_func")]
    if not checks:
        return None
    scope = dict(function.__globals__)
    scope.update(dict.fromkeys(checks, _never))
    twin = types.FunctionType(
        function.__code__,
        scope,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _never(*_: object) -> bool:
    return False


__all__ = [
    "HIGHER_ORDER",
    "MOVING_FUNCTIONS",
    "DisableTorchFunction",
    "DispatchMode",
    "after_modules",
    "after_modules_options",
    "before_modules",
    "built_in",
    "cached_parametrizations",
    "count_of_modes",
    "decompositions",
    "function_class",
    "indexing_by_tensors",
    "is_torch_function_enabled",
    "is_wrapped",
    "mode_stack",
    "next_node_number",
    "node_number",
    "node_outputs",
    "opened",
    "pop_mode",
    "pop_saved_tensor_hooks",
    "push_mode",
    "revive",
    "saved",
    "saved_tensor_hooks",
    "set_grad_enabled",
    "set_stance",
    "stance",
    "transform_level",
    "unwrapped",
    "written_by",
]
