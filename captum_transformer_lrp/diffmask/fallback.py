"""The last masks of each hidden state that kept the margin, to go back to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .gates import Gates


class Fallback:
    """Copies of what is trained for a state, from when it was within its margin.

    Gates that are closed for sure get no gradient of the divergence, so a training that
    closes one that is needed does not find back by itself. In hidden mode each state
    has a network and a baseline of its own, and can go back alone.

    Args:
        gates (Gates): what is trained, in hidden mode.
    """

    def __init__(self, gates: Gates) -> None:
        self._trained: list[list[nn.Parameter]] = [
            [*network.parameters(), shift]
            for network, shift in zip(gates.networks, gates.shifts, strict=True)
        ]
        self._copies: dict[int, list[Tensor]] = {}

    def remember(self, state: int) -> None:
        """Copy what is trained for a state."""
        with torch.no_grad():
            self._copies[state] = [p.clone() for p in self._trained[state]]

    def go_back(self, state: int, optimizer: Any) -> bool:
        """Put the copy back, and let the optimiser forget how it went on from there.

        Returns:
            bool: whether there was a copy.
        """
        copies = self._copies.get(state)
        if copies is None:
            return False
        with torch.no_grad():
            for parameter, copy in zip(self._trained[state], copies, strict=True):
                parameter.copy_(copy)
                optimizer.state.pop(parameter, None)
        return True

    def tensors(self) -> dict[str, Tensor]:
        """Return the copies by name, as a checkpoint holds them."""
        return {
            f"{state}.{number}": copy
            for state, copies in self._copies.items()
            for number, copy in enumerate(copies)
        }

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the copies of a checkpoint."""
        self._copies.clear()
        for state, trained in enumerate(self._trained):
            if f"{state}.0" in tensors:
                self._copies[state] = [
                    tensors[f"{state}.{number}"].to(p.device)
                    for number, p in enumerate(trained)
                ]
