"""A backward pass gone through forwards: what each input gives to all outputs at once.

Under rules whose relevance is linear in what starts at the output, the way back is a
linear function from seeds to the relevance of the inputs, a matrix that is never
written out. One backward pass gives it times one vector of seeds: the relevance of all
inputs for one output. Here its transpose is applied: the relevance of one input for all
outputs, by one pass in the other direction (the trick of Townsend 2017, "A new trick
for calculating Jacobian vector products").

The derivatives of the rules cannot be differentiated once more. So the operators of one
backward pass are recorded where torch runs them, below autograd, and run again under
autograd as a function of the seeds; that function has a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .._nested import map_tensors, tensors_in
from .._torch import DisableTorchFunction, DispatchMode, written_by
from ..errors import ModelStateError

#: operators of torch that hand a tensor on and cut its gradient off
_DETACH = (torch.ops.aten.detach.default, torch.ops.aten.detach_.default)


class _Recording(DispatchMode):
    """Notes every operator that torch runs.

    Args:
        seeds (Tensor): where it starts.
    """

    def __init__(self, seeds: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self._made = {id(seeds): seeds}  # kept, so that no id names another

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in written_by(func, args, kwargs):
            if isinstance(tensor, Tensor) and id(tensor) not in self._made:
                raise ModelStateError(
                    "the way back through this model writes into a tensor that was "
                    f"there before ({func}), so that it cannot be gone forwards. Leave "
                    'over="tokens" out.'
                )
        output = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, output))
        self._made |= {id(tensor): tensor for tensor in tensors_in(output)}
        return output


class Transposed:
    """The transpose of a backward pass.

    Args:
        go_back (Callable): takes seeds and returns the gradient at each input, None
            where it is not connected.
        like (Tensor): what seeds look like.

    Raises:
        ModelStateError: if the pass writes into what was there before, so that it
            cannot be run again, could not be recorded, or reaches no input.
    """

    def __init__(
        self, go_back: Callable[[Tensor], Sequence[Tensor | None]], like: Tensor
    ) -> None:
        seeds = torch.ones_like(like, requires_grad=False)
        recording = _Recording(seeds)
        with recording:
            found = go_back(seeds)
        with DisableTorchFunction(), torch.enable_grad():
            self._seeds = seeds.clone().requires_grad_()
            again = _run(recording, seeds, self._seeds)
        self._outputs = [None if g is None else again.get(id(g)) for g in found]
        if any(
            g is not None and output is None
            for g, output in zip(found, self._outputs, strict=True)
        ):
            raise ModelStateError(
                "the way back through this model ran where its operators cannot be "
                'recorded, and cannot be gone forwards. Leave over="tokens" out.'
            )
        if all(g is None for g in found):
            raise ModelStateError("nothing goes back from the output to the inputs.")

    def apply(self, directions: Iterable[Sequence[Tensor]]) -> Iterator[Tensor]:
        """Yield the transpose times directions at the inputs.

        Args:
            directions (iterable): several at a time: for each input a tensor ``(count,
                *input)``.

        Yields:
            Tensor: ``(count, *seeds)``.

        Raises:
            RuntimeError: torch's, where it has no second derivative of an operator.
        """
        for chunk in directions:
            pairs = [
                (output, direction.to(output.dtype))
                for output, direction in zip(self._outputs, chunk, strict=True)
                if output is not None
            ]
            with DisableTorchFunction():
                (found,) = torch.autograd.grad(
                    [output for output, _ in pairs],
                    self._seeds,
                    [direction for _, direction in pairs],
                    retain_graph=True,
                    is_grads_batched=True,
                )
            yield found


def _run(recording: _Recording, seeds: Tensor, new: Tensor) -> dict[int, Tensor]:
    """Run what was recorded for other seeds; return what stands for each tensor."""
    found = {id(seeds): new}

    def other(tensor: Tensor) -> Tensor:
        stands = found.get(id(tensor))
        return tensor.detach() if stands is None else stands

    for func, args, kwargs, output in recording.calls:
        given, options = map_tensors(other, (args, kwargs))
        if func in _DETACH:
            result: Any = given[0].view_as(given[0])
        else:
            result = func(*given, **options)
        for old, tensor in zip(tensors_in(output), tensors_in(result), strict=True):
            found[id(old)] = tensor
    return found


__all__ = ["Transposed"]
