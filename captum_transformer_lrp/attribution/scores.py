"""From what a model returns to one score per example."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._captum import select_targets
from ..errors import OutputError, PairsWarning, TargetError, suggestion


def output_tensor(output: Any, field: str | int | None) -> Tensor:
    """Return the tensor of a model's output that holds the scores.

    Args:
        output (Any): a tensor, a Hugging Face ``ModelOutput`` or another mapping, a
            dataclass, or a tuple.
        field (str, int or None): the field to take; None takes a tensor as it is and
            ``logits`` of anything else.

    Raises:
        OutputError: if there is no such tensor.
    """
    if isinstance(output, Tensor):
        if field is not None:
            raise OutputError(
                f"output_field={field!r}, but the model returned a tensor of shape "
                f"{tuple(output.shape)}. Leave output_field out."
            )
        return output
    fields = _fields(output)
    if fields is None:
        raise OutputError(
            f"the forward function returned {type(output).__name__}; expected a "
            "tensor, or a ModelOutput, mapping or tuple of tensors from which "
            "output_field chooses one."
        )
    key = "logits" if field is None else field
    chosen = fields.get(key)
    if not isinstance(chosen, Tensor):
        names = [k for k, v in fields.items() if isinstance(v, Tensor)]
        near = (
            suggestion(str(key), [str(n) for n in names]) if field is not None else ""
        )
        raise OutputError(
            f"the model's {type(output).__name__} has no tensor {key!r}; it has "
            f"{names}.{near} Name the field to explain: "
            f"output_field={names[0] if names else ''!r}."
        )
    return chosen


def _fields(output: Any) -> dict[Any, Any] | None:
    if isinstance(output, Mapping):
        return dict(output.items())
    if isinstance(output, (tuple, list)):
        named = getattr(output, "_fields", None)
        if named is not None:
            return dict(zip(named, output, strict=True))
        return dict(enumerate(output))
    if hasattr(output, "__dataclass_fields__"):
        return {k: getattr(output, k) for k in output.__dataclass_fields__}
    return None


def is_function(target: Any) -> bool:
    """Whether a target is a function of the model's output rather than an index.

    Raises:
        TargetError: if it is a class, which has to be made first.
    """
    if isinstance(target, type):
        raise TargetError(
            f"target is the class {target.__name__}; expected an object of it, such as "
            f"{target.__name__}(...), or an index."
        )
    return callable(target)


def for_model(target: Any, model: Any) -> Any:
    """Return a target whose names are indices of this model, see ``targets``."""
    named = getattr(target, "for_model", None)
    return target if named is None or isinstance(target, type) else named(model)


def scores_of(output: Any, target: Any, field: str | int | None) -> Tensor:
    """Return the tensor of scores of a model's output, before an index selects of it.

    Args:
        output (Any): what the model returned.
        target (Any): a function of it to one score per example, which is called; or an
            index, which is left to :func:`select_scores`.
        field (str, int or None): see :func:`output_tensor`.

    Raises:
        OutputError: if there is no such tensor.
        TargetError: if the function returns no tensor.
    """
    if not is_function(target):
        return output_tensor(output, field)
    scores = target(output)
    if not isinstance(scores, Tensor):
        raise TargetError(
            f"the target {target!r} returned {type(scores).__name__}; expected a "
            "function of the model's output to one tensor of scores, (examples,)."
        )
    return scores


def select_scores(output: Tensor, target: Any, *, examples: int) -> Tensor:
    """Return one score per example.

    Args:
        output (Tensor): what the model returned, shape ``(examples, ...)``.
        target (int, tuple, Tensor, list or None): as in Captum: an index into the last
            dimension, one per example, or tuples for outputs of more dimensions, such
            as ``(-1, token_id)`` for a language model of shape (examples, tokens,
            vocabulary). None for outputs of one score per example. A function has been
            called before, by :func:`scores_of`.
        examples (int): the number of examples.

    Returns:
        Tensor: shape ``(examples,)``; or of no dimension, if the model returned one
        score for the whole batch.

    Raises:
        TargetError: if the target is missing, out of range, or of a wrong type.
        OutputError: if a score is NaN or infinite.
    """
    check_scores(output)
    if is_function(target):
        if output.dim() > 1 or output.numel() != (examples if output.dim() else 1):
            raise TargetError(
                f"the target {target!r} returned scores of shape "
                f"{tuple(output.shape)} for {examples} example(s); expected one for "
                f"each, ({examples},)."
            )
    elif target is not None:
        _check_target(output, target)
        if isinstance(target, Tensor):
            target = target.to(output.device)
        elif not isinstance(target, (int, tuple, list)):
            target = int(target)  # numpy integers
        output = select_targets(output, target)
    if output.dim() and output.numel() != output.shape[0]:
        raise TargetError(
            f"the model's scores have shape {tuple(output.shape)}"
            f"{'' if target is None else f' after target={target!r}'}; expected one "
            f"per example. Pass {_wanted(output, target)}."
        )
    scores = output.reshape(-1) if output.dim() else output
    if not all(map(math.isfinite, scores.detach().reshape(-1).tolist())):
        raise OutputError(
            f"the model's score is {scores.detach().tolist()}: NaN or infinite before "
            "anything is explained. Check the weights and inputs; in float16 try "
            "bfloat16 or float32."
        )
    return scores


def check_delta(name: str, delta: Tensor | None) -> None:
    """Check how far scores are from the difference that they should sum to.

    Args:
        name (str): of the method.
        delta (Tensor or None): ``(examples,)``; None for none.

    Raises:
        OutputError: it is NaN or infinite.
    """
    if delta is None or bool(torch.isfinite(delta).all()):
        return
    raise OutputError(
        f"{name} compares the model's score with that of a baseline, where it is NaN "
        "or infinite. Say another, baseline=, or by the name of an input, "
        'baseline={"input_features": -1.0}'
    )


def check_pairs(output: Any, scores: Tensor, target: Any) -> None:
    """Warn where several pictures are compared with one of several texts.

    What the text has for each of them is summed, and is that of no pair.

    Args:
        output (Any): what the model returned.
        scores (Tensor): its tensor that is explained, ``(examples, classes)``.
        target (Any): as Captum takes it.
    """
    names = [
        name
        for name, value in (_fields(output) or {}).items()
        if value is scores and str(name).startswith("logits_per_")
    ]
    if not names or scores.dim() != 2 or min(scores.shape) < 2 or target is None:
        return
    if isinstance(target, Tensor):
        target = target.tolist()
    several = target if isinstance(target, list) else [target] * len(scores)
    columns = [one[0] if isinstance(one, tuple) else one for one in several]
    if len({str(column) for column in columns}) < len(columns):
        warnings.warn(
            f"target={target!r} compares {len(scores)} examples of {names[0]} with the "
            f"same of {scores.shape[1]} others, whose relevance is the sum over all of "
            "them. Explain pairs, another target for each example, target="
            f"[0, ..., {len(scores) - 1}], or one example at a time.",
            PairsWarning,
            stacklevel=6,
        )


def check_scores(output: Tensor) -> None:
    """Raise OutputError for tensors of which no score can be selected."""
    if output.is_nested:
        raise OutputError(
            "the model returned a nested tensor, whose examples have scores of "
            "different shapes; expected one tensor of scores. Wrap the model in a "
            "function that returns output.to_padded_tensor(0.0), or one score for "
            "each example."
        )
    if not output.is_floating_point():
        raise OutputError(
            f"the model returned a tensor of dtype {output.dtype}, through which no "
            "relevance can flow; expected floating point scores (logits)."
        )


def _wanted(output: Tensor, target: Any) -> str:
    if target is None and output.dim() == 2:
        return f"target=0 ... {output.shape[1] - 1}, or one such index per example"
    if output.dim() == 2 and isinstance(target, (int, Tensor)):
        return f"target=(position, {target}), such as (-1, {target})"
    dims = ", ".join(f"index below {size}" for size in output.shape[1:])
    return f"a tuple target=({dims}); position -1 is the last"


def _check_target(output: Tensor, target: Any) -> None:
    """Raise with the shape of the output in the message."""
    shape, examples = tuple(output.shape), output.shape[0] if output.dim() else 1

    def fail(problem: str) -> None:
        raise TargetError(
            f"target={target!r} {problem}; the model returned scores of shape {shape}."
        )

    def check(index: Any, where: str = "") -> None:
        indices = index if isinstance(index, tuple) else (index,)
        if len(indices) > len(shape) - 1:
            fail(
                f"has {len(indices)} index(es){where} for {len(shape) - 1} dimension(s)"
            )
        sizes = shape[1:] if isinstance(index, tuple) else shape[-1:]
        if not isinstance(index, tuple) and len(shape) > 1:
            sizes = shape[1:2]
        for i, size in zip(indices, sizes, strict=False):
            if isinstance(i, slice):
                continue
            if isinstance(i, bool) or not _is_integer(i):
                fail(f"is not made of integers{where}")
            if not -size <= int(i) < size:
                fail(f"is out of range{where}: expected {-size} ... {size - 1}")

    if isinstance(target, Tensor):
        if target.is_floating_point() or target.dtype == torch.bool:
            fail(f"is of dtype {target.dtype}, expected integers")
        if target.numel() == 1:
            check(int(target.item()))
        elif target.dim() != 1 or target.numel() != examples:
            fail(f"has shape {tuple(target.shape)}, expected ({examples},)")
        elif len(shape) != 2:
            fail("gives one index per example, which needs scores of shape (N, C)")
        elif int(target.min()) < 0 or int(target.max()) >= shape[1]:
            fail(f"is out of range: expected 0 ... {shape[1] - 1}")
    elif isinstance(target, list):
        if len(target) != examples:
            fail(f"has {len(target)} entries for {examples} example(s)")
        for position, index in enumerate(target):
            check(index, f" at entry {position}")
    else:
        check(target)


def _is_integer(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)
