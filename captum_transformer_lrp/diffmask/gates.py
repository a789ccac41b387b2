"""The networks that predict, from a hidden state, which of its tokens are kept."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .hard_concrete import HardConcrete
from .recipes import Recipe

Mode = Literal["hidden", "input"]


class GateNetwork(nn.Module):
    r"""One logit per token: ``bound * tanh(w tanh(W x + c)) + b``.

    Both matrices are weight-normalised (De Cao et al. 2020, arXiv 2004.14992, Section
    3.2 and the authors' code).

    Args:
        width (int): of the tokens.
        hidden (int): of the hidden layer.
        bias (float): first value of ``b``.
        gain (float): of the first ``W`` and ``c``, over what torch begins with. Where
            it is large, hidden units begin as different steps, so that one network can
            keep what lies between others.
    """

    def __init__(self, width: int, hidden: int, bias: float, gain: float = 1.0) -> None:
        super().__init__()
        first = nn.Linear(width, hidden)
        with torch.no_grad():
            first.weight.mul_(gain)
            assert first.bias is not None
            first.bias.mul_(gain)
        self.first = weight_norm(first)
        self.second = weight_norm(nn.Linear(hidden, 1, bias=False))
        self.bias = nn.Parameter(torch.tensor(float(bias)))

    def forward(self, x: Tensor, bound: float) -> Tensor:
        """Return logits, shape ``(batch, tokens)``, of ``(batch, tokens, width)``."""
        score: Tensor = self.second(self.first(x).tanh())[..., 0]
        return bound * score.tanh() + self.bias


class Gates(nn.Module):
    """All that is trained: one gate network per state, and the baselines.

    Parameters are float32 whatever the model's dtype.

    Args:
        widths (list of int): of each state.
        mode (str): ``"hidden"`` or ``"input"``.
        recipe (Recipe): its temperature, stretch, bias, and whether states are
            standardised.
        train_baseline (bool): whether baselines are learned.
    """

    bound: Tensor

    def __init__(
        self, widths: list[int], mode: Mode, recipe: Recipe, *, train_baseline: bool
    ) -> None:
        super().__init__()
        self.widths, self.mode, self.recipe = list(widths), mode, recipe
        first = widths[0] if mode == "input" else 0
        self.networks = nn.ModuleList(
            GateNetwork(
                first + w,
                max((first + w) // 4, recipe.least_hidden),
                recipe.bias,
                max(1.0, recipe.gain / (first + w) ** 0.5),
            )
            for w in widths
        )
        count = 1 if mode == "input" else len(widths)
        self.shifts = nn.ParameterList(
            nn.Parameter(torch.zeros(w), requires_grad=train_baseline)
            for w in widths[:count]
        )
        for i, w in enumerate(widths):
            self.register_buffer(f"mean_{i}", torch.zeros(w))
            self.register_buffer(f"scale_{i}", torch.ones(w))
        for i, w in enumerate(widths[:count]):
            self.register_buffer(f"start_{i}", torch.zeros(w))
        self.register_buffer("bound", torch.tensor(float(recipe.bound[0])))

    @property
    def biases(self) -> list[nn.Parameter]:
        """What is added to all logits of each state, each of shape ``()``."""
        return [n.bias for n in self.networks if isinstance(n, GateNetwork)]

    def moments(self, index: int) -> tuple[Tensor, Tensor]:
        """Return mean and scale of a state's features."""
        return getattr(self, f"mean_{index}"), getattr(self, f"scale_{index}")

    def baseline(self, index: int) -> Tensor:
        """Return what replaces the dropped tokens of a state, shape ``(width,)``."""
        index = 0 if self.mode == "input" else index
        shift = self.shifts[index]
        if self.recipe.standardize:
            shift = shift * self.moments(index)[1]
        start: Tensor = getattr(self, f"start_{index}")
        baseline: Tensor = start + shift
        return baseline

    def logits(self, index: int, state: Tensor, first: Tensor | None = None) -> Tensor:
        """Return one logit per token, shape ``(batch, tokens)``.

        Args:
            index (int): of the state.
            state (Tensor): shape ``(batch, tokens, width)``.
            first (Tensor, optional): the first state, in input mode.
        """
        x = self._standard(index, state)
        if self.mode == "input":
            assert first is not None
            x = torch.cat([self._standard(0, first), x], -1)
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.networks[index](x, float(self.bound))
        return logits

    def gate(self, logits: Tensor) -> HardConcrete:
        """Return the distribution of gates."""
        low, high = self.recipe.stretch
        return HardConcrete(logits, self.recipe.temperature, low, high)

    def mix(self, index: int, state: Tensor, kept: Tensor) -> Tensor:
        """Return ``state * kept + baseline * (1 - kept)`` in the state's dtype."""
        baseline = self.baseline(index).to(state.dtype)
        kept = kept.to(state.dtype)[..., None]
        return state * kept + baseline * (1 - kept)

    def _standard(self, index: int, state: Tensor) -> Tensor:
        mean, scale = self.moments(index)
        return (state.float() - mean) / scale
