"""What made a tensor, read from the graph: a gate, or the sum of another tensor."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .gradients import RatioGradient
from .passes import Switch

#: graph nodes that reshape, cast, mask or scale one tensor and nothing else
_TRANSPARENT = tuple(
    f"{name}Backward"
    for name in (
        *("View", "UnsafeView", "ReshapeAlias", "Unsqueeze", "Squeeze", "Transpose"),
        *("Permute", "Expand", "Clone", "ToCopy", "Slice", "Select", "Split", "Chunk"),
        *("Unbind", "Alias", "AsStrided", "T", "Mul", "Add", "Sub", "RSub", "Neg"),
        *("Div", "NativeDropout", "MaskedFill", "Where", "Repeat", "Index"),
        *("SplitWithSizes", "Contiguous", "Reshape", "Flatten", "Unflatten"),
    )
)
_PIECEWISE_LINEAR = ("ReluBackward", "LeakyReluBackward", "PreluKernelBackward")
_COPIES = ("CloneBackward", "ViewBackward", "AliasB")
_MAXIMUM_STEPS = 64


def gate_strength(tensor: Any) -> int:
    """Return 0 for no gate, 1 for an activation, 2 for one that is not 0 at 0.

    The graph is followed back from the tensor through nodes that have one relevant
    parent and only reshape, cast, mask, scale or shift it, to the activation that made
    it: ``2 * sigmoid(g)[:, None]`` is as much a gate as ``sigmoid(g)``.
    """
    node: Any = tensor.grad_fn if isinstance(tensor, Tensor) else None
    for _ in range(_MAXIMUM_STEPS):
        if node is None:
            return 0
        if getattr(type(node), "_forward_cls", None) is RatioGradient:
            return int(node.gate_strength)
        name = type(node).__name__.rstrip("0123456789")
        if name in _PIECEWISE_LINEAR:
            return 1
        parents = _parents(node)
        known = name in _TRANSPARENT or Switch.made(node)
        if not known or len(parents) != 1:
            return 0
        node = parents[0]
    return 0


def is_sum_of(total: Tensor, parts: Any) -> bool:
    """Whether ``total`` is a sum over ``parts``, up to reshaping and a constant."""
    if not isinstance(parts, Tensor) or parts.grad_fn is None:
        return False
    made = _maker(parts.grad_fn)
    node: Any = total.grad_fn
    for _ in range(_MAXIMUM_STEPS):
        if node is None:
            return False
        name = type(node).__name__.rstrip("0123456789")
        parents = _parents(node)
        if name == "SumBackward":
            return len(parents) == 1 and _maker(parents[0]) is made
        if len(parents) != 1 or not (name in _TRANSPARENT or Switch.made(node)):
            return False
        node = parents[0]
    return False


def _maker(node: Any) -> Any:
    """Return the node that made the values, behind copies and aliases of them."""
    while Switch.made(node) or type(node).__name__.startswith(_COPIES):
        node = node.next_functions[0][0]
    return node


def attention_behind(tensor: Tensor) -> bool:
    """Whether a tensor is an attention pattern: a softmax, at most mixed over heads.

    Followed back like a gate, and through one linear layer (talking heads).
    """
    node: Any = tensor.grad_fn
    mixed = False
    for _ in range(_MAXIMUM_STEPS):
        if node is None:
            return False
        name = type(node).__name__.rstrip("0123456789")
        if name == "SoftmaxBackward":
            return True
        parents = _parents(node)
        if name in _LINEAR and not mixed:
            mixed = True
        elif name not in _TRANSPARENT and not Switch.made(node):
            return False
        if len(parents) != 1:
            return False
        node = parents[0]
    return False


def is_product(tensor: Tensor) -> bool:
    """Whether a tensor is a product of two relevant factors, at most squashed."""
    node: Any = tensor.grad_fn
    for _ in range(_MAXIMUM_STEPS):
        if node is None:
            return False
        name = _operator_of(node)
        if Switch.made(node) and node.operands > 1:
            return not name.startswith(("Add", "Sub", "Rsub"))
        parents = _parents(node)
        known = name in _TRANSPARENT or name in _SQUASHES or Switch.made(node)
        if len(parents) != 1 or not known or name in _LINEAR:
            return False
        node = parents[0]
    return False


def is_absorbed(tensor: Tensor) -> bool:
    """Whether a tensor is a constant for relevance, though not for the gradient.

    No way leads back from it to a leaf but through a rule that absorbs.
    """
    pending: list[Any] = [tensor.grad_fn]
    for _ in range(_MAXIMUM_STEPS):
        if not pending:
            return True
        node = pending.pop()
        if Switch.made(node):
            pending += [parent for parent, _ in node.next_functions[1:]]
        else:
            parents = [parent for parent, _ in node.next_functions if parent]
            if not parents:
                return False
            pending += parents
    return False


def _operator_of(node: Any) -> str:
    """Return the name of a node; of a switch, that of the operator before it."""
    if Switch.made(node):
        node = node.next_functions[0][0]
    return type(node).__name__.rstrip("0123456789")


#: bound attention scores, as soft-capping does
_SQUASHES = tuple(
    f"{n}Backward" for n in ("Tanh", "Sigmoid", "Clamp", "ClampMin", "ClampMax")
)


def _parents(node: Any) -> list[Any]:
    """Return the relevant parents of a node; of a switch, the operator alone."""
    parents = [parent for parent, _ in node.next_functions if parent is not None]
    return parents[:1] if Switch.made(node) else parents


#: with one relevant parent: a linear layer
_LINEAR = tuple(f"{n}Backward" for n in ("Addmm", "Mm", "Bmm", "Linear", "Convolution"))
