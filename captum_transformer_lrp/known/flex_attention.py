"""FlexAttention written out: attention whose scores a function of the user's changes.

``torch.nn.attention.flex_attention.flex_attention`` is compiled as one kernel, shows a
mode nothing of what it computes, and has no backward pass on a CPU. Here it is
products, the operators of ``score_mod`` and a softmax, each of which has a rule.

``score_mod(score, b, h, q, k)`` is written for one score, of no dimension, and torch
maps it over all of them with ``vmap``, inside which no rule is seen. It is called once
instead, with all scores ``(batch, heads, queries, keys)`` and with indices that vary
along one of these dimensions each; :class:`_EveryScore` lets it index tensors by them.
That what it returns is what ``vmap`` returns is looked up in each call.
"""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._nested import map_tensors, tensors_in
from .._torch import indexing_by_tensors
from ..core.installed import WhileUsed, engine_here
from ..errors import UnknownOperatorError

_NAME = "torch.nn.attention.flex_attention"
Modification = Callable[..., Tensor]


def flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Modification | None = None,
    block_mask: Any = None,
    scale: float | None = None,
    enable_gqa: bool = False,
    return_lse: bool = False,
    kernel_options: Any = None,
    *,
    return_aux: Any = None,
) -> Any:
    """Return ``softmax(mask(score_mod(scale * q k^T))) v``.

    Arguments, shapes and what is returned are those of
    ``torch.nn.attention.flex_attention.flex_attention``; a query all of whose keys are
    masked gets 0. Scores of half precision are computed in float32, as there.

    Raises:
        UnknownOperatorError: if ``score_mod`` cannot be called with all scores at once,
            or if the blocks of ``block_mask`` are not those of its ``mask_mod``.
    """
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key = key.repeat_interleave(groups, 1)
        value = value.repeat_interleave(groups, 1)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    wide = query.dtype if query.dtype == torch.float64 else torch.float32
    scores = (query.to(wide) @ key.to(wide).transpose(-2, -1)) * scale
    if score_mod is not None:
        scores = modified(score_mod, scores)
    if block_mask is not None:
        scores = scores.masked_fill(~_seen(block_mask, scores), -math.inf)
    unseen = (scores == -math.inf).all(-1, keepdim=True)
    several = bool(unseen.any())
    pattern = (scores.masked_fill(unseen, 0) if several else scores).softmax(-1)
    if several:
        pattern = pattern.masked_fill(unseen, 0)
    output = pattern.to(query.dtype) @ value.to(query.dtype)
    if not return_lse and return_aux is None:
        return output
    lse = (scores.masked_fill(unseen, 0) if several else scores).logsumexp(-1)
    if several:
        lse = lse.masked_fill(unseen.squeeze(-1), -math.inf)
    if return_aux is None:
        return output, lse
    aux: Any = sys.modules[_NAME]
    return output, aux.AuxOutput(
        lse=lse if return_aux.lse else None,
        max_scores=scores.amax(-1) if return_aux.max_scores else None,
    )


# --------------------------------------------------------------------------- the scores


def modified(score_mod: Modification, scores: Tensor) -> Tensor:
    """Return what a function of single scores makes of all of them.

    Args:
        score_mod (Callable): takes a score and its four indices.
        scores (Tensor): shape ``(batch, heads, queries, keys)``.

    Raises:
        UnknownOperatorError: if it does something else to all at once than to each.
    """
    expected = _by_vmap(score_mod, scores.detach())
    indices = [
        torch.arange(size, device=scores.device).view([-1 if i == d else 1 for i in _D])
        for d, size in enumerate(scores.shape)
    ]
    given = scores.view_as(scores)
    try:
        with _EveryScore(given, *indices):
            found = score_mod(given, *indices).expand(scores.shape)
    except UnknownOperatorError:
        raise
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise _refused(score_mod, f"{type(error).__name__}: {error}") from error
    error_allowed = 1e3 * torch.finfo(scores.dtype).eps
    with torch.no_grad():
        same = torch.allclose(
            found.to(expected.dtype),
            expected,
            rtol=error_allowed,
            atol=error_allowed,
            equal_nan=True,
        )
    if not same:
        raise _refused(score_mod, "its results differ")
    return found


_D = range(4)


def _by_vmap(score_mod: Modification, scores: Tensor) -> Tensor:
    """Return the values that torch computes, seen by nobody."""
    function = score_mod
    for dimension in reversed(_D):
        varies = [0 if d == dimension else None for d in _D]
        function = torch.vmap(function, in_dims=(0, *varies))
    indices = [torch.arange(size, device=scores.device) for size in scores.shape]
    with torch.no_grad(), indexing_by_tensors():
        return function(scores, *indices).expand(scores.shape)


def _refused(score_mod: Modification, why: str) -> UnknownOperatorError:
    name = getattr(score_mod, "__qualname__", type(score_mod).__name__)
    return UnknownOperatorError(
        f"the score_mod {name} of flex_attention cannot be called with all scores at "
        f"once ({why}), so that no rule is seen in it. Write it with operators that "
        "act element by element on the score, and with tensors that are indexed by "
        "integers and by the indices it is given: bias[b, h, q, k] or bias[b][h]."
    )


class _EveryScore(TorchFunctionMode):
    """Lets a function of one score and its indices work on all at once.

    A tensor of its kind has four dimensions for the scores, of size 1 where it is the
    same for all, and behind them those that the function sees.

    Args:
        given (Tensor): what the function is called with, of four dimensions each.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self._ours = {id(t): t for t in given}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by torch instead of ``func(*args, **kwargs)``."""
        kwargs = kwargs or {}
        ours = [t for t in tensors_in((args, kwargs)) if id(t) in self._ours]
        if not ours:
            return func(*args, **kwargs)
        if func is Tensor.__getitem__:
            args = args[0], self._index(args[0], args[1])
        else:
            inner = max(t.dim() for t in ours) - 4

            def aligned(tensor: Tensor) -> Tensor:
                missing = inner + 4 - tensor.dim()
                if id(tensor) not in self._ours or not missing:
                    return tensor
                shape = tensor.shape
                return tensor.reshape(*shape[:4], *[1] * missing, *shape[4:])

            args, kwargs = map_tensors(aligned, args), map_tensors(aligned, kwargs)
        output = func(*args, **kwargs)
        for tensor in tensors_in(output):
            self._ours[id(tensor)] = tensor
        return output

    def _index(self, base: Tensor, index: Any) -> tuple[Any, ...]:
        """Return the index of the chosen element for every score."""
        chosen = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(i, (int, Tensor)) for i in chosen):
            names = ", ".join(type(i).__name__ for i in chosen)
            raise TypeError(f"a tensor is indexed by {names}")
        if id(base) not in self._ours:
            return chosen
        own = [
            torch.arange(size, device=base.device).view(
                [-1 if i == d else 1 for i in _D]
            )
            for d, size in enumerate(base.shape[:4])
        ]
        return *own, *chosen


# ----------------------------------------------------------------------------- the mask


def _seen(block_mask: Any, scores: Tensor) -> Tensor:
    """Return True where a query sees a key, ``(batch, heads, queries, keys)``.

    Raises:
        UnknownOperatorError: if the blocks hide what the function of the mask shows, or
            show what it hides; then the model's own output depends on the kernel.
    """
    module: Any = sys.modules[_NAME]
    rows, columns = (
        torch.arange(size, device=scores.device) // block
        for size, block in zip(scores.shape[2:], block_mask.BLOCK_SIZE, strict=True)
    )
    with torch.no_grad():
        seen: Tensor = module.create_mask(
            block_mask.mask_mod, *scores.shape, device=scores.device
        )
        partly, wholly = (
            None if number is None else _dense(number, place)[:, :, rows][..., columns]
            for number, place in (
                (block_mask.kv_num_blocks, block_mask.kv_indices),
                (block_mask.full_kv_num_blocks, block_mask.full_kv_indices),
            )
        )
        assert partly is not None
        hidden = seen & ~(partly if wholly is None else partly | wholly)
        shown = torch.zeros_like(seen) if wholly is None else wholly & ~seen
        if bool(hidden.any()) or bool(shown.any()):
            raise UnknownOperatorError(
                "the block mask of flex_attention has blocks that its mask_mod does "
                "not: what is masked then depends on the kernel that runs. Give it a "
                "mask_mod that says so itself: create_block_mask(mask_mod, ...)."
            )
    return seen


def _dense(number: Tensor, place: Tensor) -> Tensor:
    """Return True at the first ``number`` of the columns listed in each row."""
    columns = place.shape[-1]
    listed = torch.arange(columns, device=place.device) < number[..., None]
    where = torch.where(listed, place.long(), columns)
    found = torch.zeros(
        *where.shape[:-1], columns + 1, dtype=torch.bool, device=place.device
    )
    return found.scatter(-1, where, True)[..., :columns]


# -------------------------------------------------------------------- in torch's place


def _asking(*args: Any, **kwargs: Any) -> Any:
    """The code of torch's function while an engine runs: it asks who calls."""
    import sys

    import torch

    # it runs among the globals of torch's module
    here = sys.modules["captum_transformer_lrp.known.flex_attention"]
    if torch.compiler.is_dynamo_compiling():
        return here.IN_PLACE.usual(*args, **kwargs)
    return here.IN_PLACE.ask(*args, **kwargs)


class _InPlace(WhileUsed):
    """Lets torch's function ask first whether it is to be written out.

    Models hold the function itself, so that its code is what changes while an engine
    runs. On a thread without one, and for a compiler, it is what it was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.usual: Callable[..., Any] = _asking

    def install(self, user: Any) -> None:
        """Change the code of the function, if it is loaded."""
        function = getattr(sys.modules.get(_NAME), "flex_attention", None)
        if function is None or function.__code__ is _asking.__code__:
            return
        self.usual = usual = types.FunctionType(
            function.__code__,
            function.__globals__,
            function.__name__,
            function.__defaults__,
            function.__closure__,
        )
        usual.__kwdefaults__ = function.__kwdefaults__
        function.__code__ = _asking.__code__

    def remove(self) -> None:
        """Give the function its code back."""
        function = getattr(sys.modules.get(_NAME), "flex_attention", None)
        if function is not None and function.__code__ is _asking.__code__:
            function.__code__ = self.usual.__code__

    def ask(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns, written out where an engine sees it."""
        seen = engine_here() is not None and torch.is_grad_enabled()
        return (flex_attention if seen else self.usual)(*args, **kwargs)


IN_PLACE = _InPlace()
