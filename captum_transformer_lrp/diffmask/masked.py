"""The analysed model with masks on its hidden states."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, ModelStateError
from ..models.discovery import StatePlace, visiting
from .batches import Batch, batch_of, tokens_of
from .divergence import Divergence, NextToken, Outputs, outputs_of
from .gates import Gates

#: what is switched off now, by how many blocks in all threads, and what it was before
_off: dict[tuple[int, str], list[Any]] = {}
_lock = threading.Lock()


def _switch_off(objects: Sequence[Any], attribute: str) -> None:
    """Set an attribute of objects to False, until the last block switches back."""
    with _lock:
        for x in objects:
            key = id(x), attribute
            entry = _off.setdefault(key, [x, 0, getattr(x, attribute)])
            entry[1] += 1
            if getattr(x, attribute):
                setattr(x, attribute, False)


def _switch_back(objects: Sequence[Any], attribute: str) -> None:
    """Undo :func:`_switch_off`."""
    with _lock:
        for x in objects:
            entry = _off[id(x), attribute]
            entry[1] -= 1
            if entry[1] == 0:
                del _off[id(x), attribute]
                if entry[2]:
                    setattr(x, attribute, True)


@dataclass(frozen=True, eq=False)
class Original:
    """What the model does with a batch when nothing is masked.

    Attributes:
        batch (Batch): the inputs.
        output (Any): what the model returned.
        states (list of Tensor): each ``(batch, tokens, width)``.
        tokens (Tensor): True for tokens that are no padding, ``(batch, tokens)``.
        free (Tensor): True for tokens that may be dropped, ``(batch, tokens)``.
    """

    batch: Batch
    output: Any
    states: list[Tensor]
    tokens: Tensor
    free: Tensor


@dataclass(frozen=True, eq=False)
class MaskedModel:
    """A model, its hidden states, and how its predictions are compared.

    Attributes:
        forward_func (Callable): the model.
        places (tuple of StatePlace): where its hidden states are.
        token_mask (Callable or None): see :func:`.batches.tokens_of`.
        never_mask (tuple of int): identifiers of tokens that are always kept.
    """

    forward_func: Callable[..., Any]
    places: tuple[StatePlace, ...]
    token_mask: Callable[[Any], Tensor] | None = None
    never_mask: tuple[int, ...] = ()

    @property
    def modules(self) -> list[nn.Module]:
        """The modules that have to be in evaluation mode."""
        if isinstance(self.forward_func, nn.Module):
            return [self.forward_func]
        return [place.module for place in self.places]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Evaluation mode, without gradients of parameters; then all as before.

        Raises:
            ModelStateError: inside ``torch.inference_mode``.
        """
        if torch.is_inference_mode_enabled():
            raise ModelStateError(
                "masks cannot be computed inside torch.inference_mode(). Leave the "
                "block; torch.no_grad() is fine."
            )
        modules = list({m: None for root in self.modules for m in root.modules()})
        parameters = list({p: None for m in self.modules for p in m.parameters()})
        _switch_off(modules, "training")
        try:
            _switch_off(parameters, "requires_grad")
            try:
                yield
            finally:
                _switch_back(parameters, "requires_grad")
        finally:
            _switch_back(modules, "training")

    def prepare(self, inputs: Any, additional_forward_args: Any = None) -> Batch:
        """Return the inputs, on the device of the model."""
        parameter = next((p for m in self.modules for p in m.parameters()), None)
        device = None if parameter is None else parameter.device
        return batch_of(inputs, device, additional_forward_args)

    def original(self, batch: Batch, divergence: Divergence | None) -> Original:
        """Run the model as it is, and read its hidden states.

        Raises:
            InputError: if a state was not met, or is no ``(batch, tokens, width)``.
        """
        states: dict[int, Tensor] = {}

        def keep(position: int, state: Tensor) -> None:
            states[position] = self._flat(position, state, batch.examples)

        with torch.no_grad(), visiting(self.places, keep):
            output = batch.run(self.forward_func)
        missing = [str(p) for i, p in enumerate(self.places) if i not in states]
        if missing:
            raise InputError(
                f"{', '.join(missing)} did not run, or gave no tensor, so it is no "
                "hidden state of this forward pass. Name other modules: layers=[...]."
            )
        found = [states[i] for i in range(len(self.places))]
        tokens = tokens_of(batch, found[0].shape[:2], self.token_mask)
        free = tokens if divergence is None else divergence.counted(tokens, batch.given)
        if self.never_mask:
            if batch.identifiers is None or batch.identifiers.shape != free.shape:
                raise InputError(
                    f"never_mask={self.never_mask} names token identifiers, and the "
                    "inputs have none. Pass input_ids."
                )
            special = torch.tensor(self.never_mask, device=free.device)
            free = free & ~torch.isin(batch.identifiers, special)
        return Original(batch, output, found, tokens, free)

    def outputs(
        self, output: Any, original: Original, divergence: Divergence
    ) -> Outputs:
        """Return the tensors of an output that are compared."""
        outputs = outputs_of(output)
        if isinstance(divergence, NextToken):
            return divergence.chosen(outputs, original.tokens, original.batch.given)
        return outputs

    def masked(
        self,
        original: Original,
        gates: Gates,
        layers: Tensor,
        mask: Callable[[int, Tensor, Tensor], Tensor],
    ) -> Any:
        """Run the model with one state of each example masked.

        Args:
            original (Original): the pass without masks.
            gates (Gates): of which the baselines are used.
            layers (Tensor): number of the state for each example, shape ``(batch,)``.
            mask (Callable): takes the number of a state, the examples that are masked
                there, shape ``(n,)``, and their states, ``(n, tokens, width)``; returns
                how much is kept of each token, 1 for all, shape ``(n, tokens)``. In
                input mode the first state of all examples is masked.

        Returns:
            The model's output.
        """
        everyone = torch.arange(len(layers), device=layers.device)
        rows = {0: everyone}
        if gates.mode == "hidden":
            present = layers.unique().tolist()
            rows = {i: everyone[layers == i] for i in present}

        def replace(position: int, state: Tensor) -> Tensor | None:
            mine = rows.get(position)
            if mine is None:
                return None
            flat = self._flat(position, state, original.batch.examples)
            chosen = flat if len(mine) == len(flat) else flat[mine]
            kept = torch.where(original.free[mine], mask(position, mine, chosen), 1)
            new = gates.mix(position, chosen, kept)
            if chosen is not flat:
                new = flat.index_copy(0, mine, new)
            return new.reshape(state.shape)

        with visiting(self.places, replace):
            return original.batch.run(self.forward_func)

    def _flat(self, position: int, state: Tensor, examples: int) -> Tensor:
        """Return a state as (batch, tokens, width)."""
        if state.dim() < 3 or state.shape[0] != examples or state.is_nested:
            shape = "nested" if state.is_nested else tuple(state.shape)
            raise InputError(
                f"the hidden state {self.places[position]} has shape {shape}; expected "
                f"(batch, tokens, width) with {examples} example(s). Name the modules "
                "whose outputs are hidden states: layers=[...]."
            )
        return state.reshape(examples, -1, state.shape[-1])
