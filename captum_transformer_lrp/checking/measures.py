"""What is measured outside the engine: gradients, states, differences."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._forms import explained_in, map_inputs, mask_in


def input_times_gradient(
    model: nn.Module, scores: Callable[[Any], Tensor], inputs: Any
) -> list[Tensor] | None:
    """Return input times torch's gradient, outside the engine; None without a leaf.

    Token ids are followed through the embeddings that were called with them.
    """
    explained = explained_in(inputs)
    found: dict[int, list[Tensor]] = {i: [] for i in range(len(explained))}
    leaves: dict[int, Tensor] = {}

    def watch(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not args or not isinstance(output, Tensor):
            return None
        for i, ids in enumerate(explained):
            if not ids.is_floating_point() and _same(args[0], ids):
                leaf = output.detach().requires_grad_()
                found[i].append(leaf)
                return leaf.clone()
        return None

    def with_leaf(tensor: Tensor) -> Tensor:
        for i, x in enumerate(explained):
            if tensor is x and x.is_floating_point():
                leaves[i] = x.detach().requires_grad_()
                found[i].append(leaves[i])
                return leaves[i].clone()
        return tensor

    with torch.enable_grad():
        handles = [
            module.register_forward_hook(watch)
            for module in model.modules()
            if isinstance(module, nn.Embedding)
        ]
        try:
            total = scores(map_inputs(inputs, with_leaf)).sum()
        finally:
            for handle in handles:
                handle.remove()
    if not all(found.values()):
        return None
    wanted = [leaf for group in found.values() for leaf in group]
    gradients = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    result = []
    mask = mask_in(inputs)
    for i, x in enumerate(explained):
        sums = torch.zeros(x.shape, dtype=torch.float64, device=x.device)
        for leaf in found[i]:
            gradient = next(gradients)
            if gradient is not None:
                product = (leaf.detach() * gradient).double()
                sums += product if i in leaves else product.sum(-1)
        if mask is not None and i not in leaves and mask.shape == x.shape:
            sums = sums * (mask != 0)
        result.append(sums)
    return result


def _same(given: Any, ids: Tensor) -> bool:
    return isinstance(given, Tensor) and torch.equal(given, ids)


@contextmanager
def attention_switch(
    model: nn.Module,
) -> Iterator[Callable[[bool], None] | None]:
    """Yield what turns fused attention on and off, None where there is no switch.

    Hugging Face models choose by their configuration, timm's by an attribute of each
    attention module. All is put back in the end.
    """
    modules = [
        m for m in model.modules() if isinstance(vars(m).get("fused_attn"), bool)
    ]
    configs: dict[int, Any] = {
        id(c): c
        for c in (vars(m).get("config") for m in model.modules())
        if hasattr(c, "_attn_implementation_internal")
    }
    setter = getattr(model, "set_attn_implementation", None)
    if not modules and not (configs and callable(setter)):
        yield None
        return
    saved = [(m, m.fused_attn) for m in modules]
    chosen = [(c, c._attn_implementation_internal) for c in configs.values()]

    def switch(fused: bool) -> None:
        for module in modules:
            module.fused_attn = fused  # type: ignore[assignment]
        if callable(setter):
            setter("sdpa" if fused else "eager")

    try:
        yield switch
    finally:
        for module, value in saved:
            module.fused_attn = value
        for config, implementation in chosen:
            config._attn_implementation_internal = implementation


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return what an explanation must leave alone, to compare; no copies of weights."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    modules = list(model.modules())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "parameters or buffers": {
            name: (id(t), t.data_ptr(), t._version, t.dtype, t.device)
            for name, t in tensors.items()
            if not t.is_meta
        },
        "gradients": {n: id(t.grad) for n, t in tensors.items() if t.is_leaf},
        "requires_grad": {n: t.requires_grad for n, t in tensors.items()},
        "training mode": [m.training for m in modules],
        "attributes of modules": [sorted(vars(m)) for m in modules],
        "hooks": [[list(getattr(m, name)) for name in hooks] for m in modules],
    }


def relative_error(found: Any, expected: Any) -> float:
    """Return ``max |found - expected| / max |expected|``; NaN where one of them is.

    Of attributions of several inputs over all of these: an input whose relevance is
    rounding beside that of another is not judged by its own.
    """
    pairs = list(zip(tensors_of(found), tensors_of(expected), strict=True))
    if any(f.shape != e.shape for f, e in pairs):
        return float("inf")
    doubles = [(f.detach().double(), e.detach().double()) for f, e in pairs]
    difference = torch.stack([(f - e).abs().max() for f, e in doubles]).max()
    scale = torch.stack([e.abs().max() for _, e in doubles]).max()
    return float(difference / scale) if scale > 0 else float(difference)


def tensors_of(relevance: Any) -> list[Tensor]:
    """Return the tensors of an attribution, whatever its form."""
    if isinstance(relevance, Mapping):
        return list(relevance.values())
    return [relevance] if isinstance(relevance, Tensor) else list(relevance)


def dtype_of(model: nn.Module, inputs: Any) -> torch.dtype:
    """Return the precision of a model, or of its inputs if it has no weights."""
    tensors = (*model.parameters(), *model.buffers())
    for tensor in tensors:
        if tensor.is_floating_point():
            return tensor.dtype
    found = (x.dtype for x in explained_in(inputs)[:1] if x.is_floating_point())
    return next(found, torch.float32)


def free_memory(device: torch.device | None) -> int | None:
    """Return the free memory in bytes, None where the system does not say."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a precision without its package."""
    return str(dtype).removeprefix("torch.")


def message_of(error: BaseException) -> str:
    """Return the message of an error in one line."""
    return " ".join(str(error).split())


def named(error: BaseException) -> str:
    """Return class, message and innermost place of an error in one line."""
    place, trace = "", error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {message_of(error)[:300]} ({place})"
