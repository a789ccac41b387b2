"""Calls any Captum object on a model of texts or pictures, each as it wants it.

The methods of this package take a tokenizer's mapping. Those of Captum take tensors
with a gradient: one that was built on the model itself is moved, as a copy, to the
embeddings of the tokens or to the pixels (:mod:`.embedded`); one that was built on a
layer gets the identifiers; and one on a function of the user's is called as that
function is.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr import Attribution, DeepLift
from torch import Tensor, nn

from .._forms import KNOWN_KEYS
from ..description import Description, describe
from ..errors import InputError, OutputError, UnknownNameError
from ..models.special_tokens import baseline_id, special_ids
from .embedded import Features, Prepared, prepare
from .patches import patch_numbers, sound_numbers, sound_window
from .scores import check_delta, output_tensor

#: what a method may need that an object of it has and its class has not
_BESIDE_THE_MODEL = {
    "layer": "is built on a layer as well",
    "method": "is built on another method",
    "training": "has to be trained",
}


@dataclass(frozen=True, eq=False)
class Attributed:
    """What a method says about a batch.

    Attributes:
        scores (Tensor): in float64 on the CPU; of tokens ``(batch, tokens)``, of pixels
            or patches ``(batch, channels, height, width)``.
        delta (Tensor or None): the convergence delta as the method gives it,
            ``(batch,)``; None where it has none.
    """

    scores: Tensor
    delta: Tensor | None


def make_method(method: Any, module: nn.Module | None) -> Any:
    """Return an object of a method for a model.

    Args:
        method (Attribution or type): an object, which is returned, or a class.
        module (Module or None): the model; None only checks.

    Raises:
        UnknownNameError: the class needs more than a model, or is none of Captum's; or
            an object explains no target.
    """
    if isinstance(method, Attribution):
        if _parameters(method).isdisjoint({"target", "kwargs"}):
            raise UnknownNameError(
                f"{type(method).__name__}.attribute takes no target=, and cannot be "
                "asked for the explanation of a class: call it yourself"
            )
        return method
    if not (isinstance(method, type) and issubclass(method, Attribution)):
        raise UnknownNameError(
            "expected method= to be a name, a Captum Attribution class or an object "
            f"of one, got {method!r}"
        )
    for need in describe(method).needs:
        if need in _BESIDE_THE_MODEL:
            raise UnknownNameError(
                f"{method.__name__} {_BESIDE_THE_MODEL[need]}: pass an object, such as "
                f"method={method.__name__}(...), or register a function that makes one"
            )
    return method if module is None else method(module)


def innermost(method: Attribution) -> Attribution:
    """Return the method itself, out of the noise tunnels around it."""
    inner = getattr(method, "attribution_method", None)
    return method if inner is None else innermost(inner)


def attribute_inputs(
    method: Attribution,
    module: Any,
    inputs: Mapping[str, Any],
    target: Any,
    *,
    baseline: Tensor | None,
    of_tokens: int | float,
    keep: Sequence[int],
    patch_size: tuple[int, int],
    options: Mapping[str, Any],
) -> tuple[dict[str, Tensor], float | None]:
    """Return scores of everything that one example holds.

    Args:
        method (Attribution): the method, built on ``module``.
        module (Callable): the model.
        inputs (Mapping): what it takes, a batch of one.
        target (Any): what to explain: a function of the output to one score, or as
            Captum takes it.
        baseline (Tensor or None): what a method compares pixels with; None for 0.
        of_tokens (int or float): what it compares tokens with: an identifier, or what
            every feature of their embeddings is set to.
        keep (sequence of int): identifiers that are not replaced by it.
        patch_size (tuple of int): height and width of what is left out at a time.
        options (Mapping): further keyword arguments of ``attribute``.

    Returns:
        For each explained key its scores, in float64 on the CPU, and the convergence
        delta, None where the method has none.

    Raises:
        InputError: an input does not tell its examples.
        UnknownNameError: the method was built on something else than the model.
    """
    if describe(method).takes == "mapping":
        found, delta = _call(method, inputs, target, options)
    elif "layer" in describe(method).needs or not is_built_on(method, module):
        raise UnknownNameError(
            f"{method.get_name()} was built on a layer or on a function of its own, "
            "which knows nothing of this task: pass the class, or an object that was "
            "built on the model itself"
        )
    else:
        prepared = prepare(
            module,
            inputs,
            target,
            None,
            baseline=baseline,
            of_tokens=of_tokens,
            keep=keep,
            output_field=None,
        )
        found, delta = _on_features(
            method, module, prepared, prepared.target, options, patch_size=patch_size
        )
    if not isinstance(found, Mapping):
        keys = [k for k in KNOWN_KEYS if isinstance(inputs.get(k), Tensor)]
        if len(keys) > 1:
            raise UnknownNameError(
                f"{method.get_name()} returned one result for {', '.join(keys)}: pass "
                "a method that explains the inputs themselves"
            )
        found = {keys[0]: found}
    scores = {key: _float64(value) for key, value in found.items()}
    delta = _mean_delta(delta, 1)
    check_delta(method.get_name(), delta)
    return scores, None if delta is None else float(delta)


def attribute_tokens(
    method: Attribution,
    module: nn.Module,
    batch: Mapping[str, Tensor],
    target: Any,
    *,
    tokenizer: Any,
    options: Mapping[str, Any],
) -> Attributed:
    """Return one score per token of a batch of texts.

    Args:
        method (Attribution): the method.
        module (Module): the model.
        batch (Mapping): what the model takes, with ``input_ids`` and
            ``attention_mask``.
        target (Tensor or list): what to explain of each text.
        tokenizer (Any): the tokenizer, for baselines.
        options (Mapping): further keyword arguments of ``attribute``.

    Raises:
        OutputError: the method returned something of another shape.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    about = describe(method)
    if about.takes == "mapping":
        return _of_tokens(method, ids, _call(method, batch, target, options))
    if "layer" in about.needs:
        placed = _moved(method, module, _by_keyword(module, batch))
        given = dict(options)
        if "baselines" in _parameters(method) and "baselines" not in given:
            other = baseline_id(tokenizer)
            if other is not None:
                replaced = mask.bool() & ~torch.isin(
                    ids, ids.new_tensor(special_ids(tokenizer))
                )
                given["baselines"] = torch.where(replaced, other, ids)
        extra = {"additional_forward_args": (mask,)}
        return _of_tokens(method, ids, _call(placed, ids, target, {**extra, **given}))
    if not is_built_on(method, module):
        extra = {"additional_forward_args": (mask,)}
        return _of_tokens(method, ids, _call(method, ids, target, {**extra, **options}))
    rows = []
    for row in range(len(ids)):
        kept = mask[row].bool()
        alone = {key: value[row : row + 1][:, kept] for key, value in batch.items()}
        one = prepare(
            module,
            alone,
            target[row : row + 1],
            None,
            baseline=None,
            of_tokens=_baseline(tokenizer),
            keep=special_ids(tokenizer),
            output_field=None,
        )
        found, delta = _on_features(method, module, one, target[row : row + 1], options)
        scores = torch.zeros(ids.shape[1], dtype=torch.float64)
        scores[kept.cpu()] = _float64(found)[0]
        rows.append(Attributed(scores[None], _mean_delta(delta, 1)))
    return _stacked(rows)


def attribute_pixels(
    method: Attribution,
    module: nn.Module,
    pixels: Tensor,
    target: Tensor,
    *,
    baseline: Tensor | float = 0.0,
    patch_size: tuple[int, int],
    options: Mapping[str, Any],
) -> Attributed:
    """Return scores of a batch of pictures.

    Args:
        method (Attribution): the method.
        module (Module): the model.
        pixels (Tensor): ``(batch, channels, height, width)``.
        target (Tensor): the class of each picture, ``(batch,)``.
        baseline (Tensor or float, optional): what pixels are compared with.
            Default: 0.0
        patch_size (tuple of int): height and width of what is left out at a time.
        options (Mapping): further keyword arguments of ``attribute``.

    Raises:
        OutputError: the method returned something of another shape.
    """
    about = describe(method)
    if about.takes == "mapping":
        return _of_pixels(method, pixels, _call(method, pixels, target, options))
    if "layer" in about.needs or not is_built_on(method, module):
        leaf = pixels.detach().clone().requires_grad_()
        return _of_pixels(method, pixels, _call(method, leaf, target, options))
    rows = []
    for row in range(len(pixels)):
        one = prepare(
            module,
            pixels[row : row + 1],
            target[row : row + 1],
            None,
            baseline=baseline,
            keep=(),
            output_field=None,
        )
        found, delta = _on_features(
            method,
            module,
            one,
            target[row : row + 1],
            options,
            patch_size=patch_size,
        )
        rows.append(Attributed(_float64(found), _mean_delta(delta, 1)))
    return _stacked(rows)


def _on_features(
    method: Attribution,
    module: nn.Module,
    prepared: Prepared,
    target: Any,
    options: Mapping[str, Any],
    *,
    patch_size: tuple[int, int] = (16, 16),
) -> tuple[Any, Any]:
    """Call a method of Captum on the embeddings and pixels of one example.

    Returns:
        Scores in the form of the inputs, and the delta; None where there is none.
    """
    function = prepared.function
    if isinstance(innermost(method), DeepLift):  # which reads two rows as one call
        function = prepared.in_one_call()
    placed = _moved(method, module, function)
    names = _parameters(method)
    leaves: Any = prepared.leaves()
    baselines = prepared.baselines
    about = describe(method)
    if "baselines" in about.needs:  # a distribution
        baselines = tuple(torch.cat([b, b]) for b in baselines)
    parts = _parts(prepared, patch_size)
    given: dict[str, Any] = {"additional_forward_args": prepared.arguments}
    if "baselines" in names:
        given["baselines"] = baselines
    if "feature_mask" in names:
        given["feature_mask"] = parts
    if "sliding_window_shapes" in names:
        windows = tuple(
            _window(x, one, patch_size) for one, x, _ in prepared.of_each_value
        )
        given["sliding_window_shapes"] = windows
        given["strides"] = windows
    if innermost(method) is not method:
        given["stdevs"] = tuple(0.5 * float(x.detach().std()) for x in leaves)
    if len(leaves) == 1:
        leaves = leaves[0]
        given = {
            key: value[0] if key != "additional_forward_args" else value
            for key, value in given.items()
        }
    scores, delta = _call(placed, leaves, target, {**given, **options})
    if not isinstance(scores, tuple):
        scores = (scores,)
    scores = tuple(
        _of_features(method, about, score, part)
        for score, part in zip(scores, parts, strict=True)
    )
    return prepared.in_form(scores), delta


def _of_features(
    method: Attribution, about: Description, scores: Any, parts: Tensor
) -> Tensor:
    """Return scores of one example that sum over their features to those of parts."""
    if isinstance(scores, Tensor):
        if scores.shape == parts.shape:
            size = torch.bincount(parts.flatten())[parts]
            return scores / size if about.grain == "repeated" else scores
        if parts.dim() == 3 and scores.shape == parts.shape[:2]:
            return scores[..., None]
        if about.grain == "part" and parts.dim() == scores.dim() == 4:
            return scores
    raise OutputError(
        f"{method.get_name()} returned {_describe(scores)}: expected one tensor of the "
        f"shape of its input, {tuple(parts.shape)}"
    )


def _parts(prepared: Prepared, patch_size: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the number of the token or patch of each feature, ``(1, ...)`` each.

    No two inputs have a part in common; all tables of the same identifiers have.
    """
    found, before = [], 0
    for one in prepared.inputs:
        for x in one.values:
            numbers = before + _numbers(x, one, patch_size)
            found.append(numbers.expand(1, *x.shape[1:]).contiguous())
        before = int(found[-1].max()) + 1
    return tuple(found)


def _numbers(x: Tensor, one: Features, patch_size: tuple[int, int]) -> Tensor:
    """Return the number of the token or patch of each feature, to be broadcast."""
    if one.of_sound:
        return sound_numbers(x, patch_size)
    if one.ids is not None:
        shape = one.ids.shape[1:]
        return torch.arange(shape.numel(), device=x.device).view(*shape, 1)
    if x.dim() < 4:
        numbers = torch.arange(x.shape[1], device=x.device)
        return numbers.view(-1, *[1] * (x.dim() - 2))
    patches = patch_numbers(x, patch_size)
    pictures = torch.arange(x.shape[1:-3].numel(), device=x.device)
    shape = x.shape[1:-3]
    return pictures.view(*shape, 1, 1, 1) * (int(patches.max()) + 1) + patches


def _window(x: Tensor, one: Features, patch_size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of one token or patch, as Captum's Occlusion takes it."""
    if one.of_sound:
        return sound_window(x, patch_size)
    if one.ids is not None:
        return (*[1] * (one.ids.dim() - 1), x.shape[-1])
    if x.dim() < 4:
        return (1, *x.shape[2:])
    return (*[1] * (x.dim() - 4), x.shape[-3], *patch_size)


def _call(
    method: Attribution, inputs: Any, target: Any, options: Mapping[str, Any]
) -> tuple[Any, Any]:
    """Return what a method says, and its delta where it has one."""
    given = dict(options)
    if method.has_convergence_delta():
        given.setdefault("return_convergence_delta", True)
    found = method.attribute(inputs, target=target, **given)
    if not given.get("return_convergence_delta"):
        return found, None
    scores, delta = found
    return scores, delta


def is_built_on(method: Attribution, module: nn.Module) -> bool:
    """Whether a method was built on the model itself."""
    return getattr(innermost(method), "forward_func", None) is module


def moved_to(method: Attribution, model: Any, function: Any) -> Attribution:
    """Return a method that was built on a model for a function of that model.

    Args:
        method (Attribution): the method.
        model (Module): the model.
        function (Callable): what calls it.

    Raises:
        UnknownNameError: the method was built on neither.
    """
    if function is model or is_built_on(method, function):
        return method
    if not is_built_on(method, model):
        raise UnknownNameError(
            f"{method.get_name()} was built on something else than the model, and what "
            "is explained here is a function of the model, which is told what was "
            f"written before: pass the class, method={type(method).__name__}, or an "
            "object that was built on the model itself"
        )
    return _moved(method, model, function)


def _moved(method: Attribution, old: Any, new: Any) -> Attribution:
    """Return a copy of a method, and of what it wraps, on another function."""
    moved = copy.copy(method)
    for name, value in vars(method).items():
        if value is old:
            moved.__dict__[name] = new
        elif isinstance(value, Attribution):
            moved.__dict__[name] = _moved(value, old, new)
    return moved


def _by_keyword(module: nn.Module, batch: Mapping[str, Tensor]) -> Callable[..., Any]:
    """Return the model as a function of identifiers and attention mask."""
    first = batch["input_ids"]
    rest = {k: v for k, v in batch.items() if k not in ("input_ids", "attention_mask")}

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        times = len(ids) // len(first)
        further = {k: v.repeat(times, *[1] * (v.dim() - 1)) for k, v in rest.items()}
        output = module(input_ids=ids, attention_mask=mask, **further)
        return output_tensor(output, None)

    return forward


def _baseline(tokenizer: Any) -> int | float:
    found = baseline_id(tokenizer)
    return 0.0 if found is None else found


def _parameters(method: Attribution) -> frozenset[str]:
    """Return the names that ``attribute`` takes, through noise tunnels."""
    function = inspect.unwrap(innermost(method).attribute)
    found = inspect.signature(function).parameters.values()
    return frozenset("kwargs" if p.kind is p.VAR_KEYWORD else p.name for p in found)


def _of_tokens(method: Attribution, ids: Tensor, found: tuple[Any, Any]) -> Attributed:
    scores, delta = found
    if isinstance(scores, tuple) and len(scores) == 1:
        (scores,) = scores
    shape = tuple(ids.shape)
    if not isinstance(scores, Tensor) or tuple(scores.shape[:2]) != shape:
        raise OutputError(
            f"{method.get_name()} returned {_describe(scores)} for tokens of shape "
            f"{shape}: expected one tensor (batch, tokens) or (batch, tokens, features)"
        )
    scores = _float64(scores)
    if scores.dim() > 2:
        scores = scores.flatten(2).sum(-1)
    return Attributed(scores, _mean_delta(delta, len(ids)))


def _of_pixels(
    method: Attribution, pixels: Tensor, found: tuple[Any, Any]
) -> Attributed:
    scores, delta = found
    if isinstance(scores, Tensor):
        of_patches = scores.dim() == 4 and describe(method).grain == "part"
        if of_patches or scores.shape == pixels.shape:
            return Attributed(_float64(scores), _mean_delta(delta, len(pixels)))
    raise OutputError(
        f"{method.get_name()} returned {_describe(scores)} for pixels of shape "
        f"{tuple(pixels.shape)}: expected one tensor of the same shape"
    )


def _mean_delta(delta: Any, examples: int) -> Tensor | None:
    """Return one delta per example; of several samples of it, the mean."""
    if not isinstance(delta, Tensor):
        return None
    values = _float64(delta).flatten()
    if values.numel() % examples:
        raise InputError(
            f"got a convergence delta of {values.numel()} values for {examples} inputs"
        )
    return values.view(examples, -1).mean(1)


def _stacked(rows: list[Attributed]) -> Attributed:
    deltas = [row.delta for row in rows if row.delta is not None]
    return Attributed(
        torch.cat([row.scores for row in rows]),
        torch.cat(deltas) if len(deltas) == len(rows) else None,
    )


def _float64(x: Tensor) -> Tensor:
    return x.detach().cpu().double()


def _describe(value: Any) -> str:
    """Return the shape of a tensor, or the type of anything else, for a message."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return type(value).__name__
