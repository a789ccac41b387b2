"""How far a prediction moved when states were masked, for each example.

A divergence takes what the model returned with and without masks, as a mapping from
names to tensors, and returns one number per example, differentiable in the masked
output. Logarithms are natural and computed in at least float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, OutputError, UnknownNameError, suggestion

Outputs = Mapping[str, Tensor]


def outputs_of(output: Any) -> dict[str, Tensor]:
    """Return the tensors of a model's output that a divergence compares.

    Args:
        output (Any): a tensor; a Hugging Face ``ModelOutput``, of which the start and
            end logits (question answering) or the logits are taken; or a tuple of
            tensors.

    Raises:
        OutputError: if there is none.
    """
    if isinstance(output, Tensor):
        return {"output": output}
    if isinstance(output, Mapping) or hasattr(output, "logits"):
        get = output.get if isinstance(output, Mapping) else vars(output).get
        for names in (("start_logits", "end_logits"), ("logits",)):
            found = {name: get(name) for name in names}
            if all(isinstance(x, Tensor) for x in found.values()):
                return {k: v for k, v in found.items() if isinstance(v, Tensor)}
    if isinstance(output, (tuple, list)) and all(isinstance(x, Tensor) for x in output):
        return {f"output[{i}]": x for i, x in enumerate(output)}
    raise OutputError(
        f"the model returned {type(output).__name__}; expected a tensor, a tuple of "
        "tensors, or an output with logits, or start_logits and end_logits. Wrap the "
        "model in a function that returns one of these."
    )


class Divergence(ABC):
    """How far the masked output is from the original one."""

    def calibrate(self, outputs: list[Outputs]) -> Divergence:
        """Return this divergence with what it needs to know of the model's outputs."""
        return self

    def counted(self, tokens: Tensor, inputs: Any) -> Tensor:
        """Return which tokens the output can depend on, of the shape of ``tokens``."""
        return tokens

    @abstractmethod
    def __call__(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return one divergence per example, shape ``(batch,)``.

        Args:
            original (mapping): the model's output.
            masked (mapping): the same with masked states.
            tokens (Tensor): True for tokens that count, shape ``(batch, tokens)``.
        """

    def agreement(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return 1 where both make the same prediction, shape ``(batch,)``."""
        rows = []
        for name, x in original.items():
            same = (x.argmax(-1) == masked[name].argmax(-1)).float()
            rows.append(_mean(same, tokens))
        return torch.stack(rows).amin(0)


@dataclass(frozen=True)
class Categorical(Divergence):
    r"""``KL(softmax(original) || softmax(masked))``, in nats.

    Over the last dimension; outputs with one row per token, ``(batch, tokens,
    classes)``, give the mean over the tokens that count, several outputs (start and end
    of an answer) their sum (De Cao et al. 2020, arXiv 2004.14992, Section 3).
    """

    def __call__(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return the divergence of each example, shape ``(batch,)``."""
        found = []
        for name, x in original.items():
            _at_least_two(name, x)
            found.append(_mean(_categorical(x, masked[name]), tokens))
        return torch.stack(found).sum(0)


@dataclass(frozen=True)
class Bernoulli(Divergence):
    """The sum over labels of ``KL(sigmoid(original) || sigmoid(masked))``, in nats.

    For labels that do not exclude each other, and for one logit.
    """

    def __call__(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return the divergence of each example, shape ``(batch,)``."""
        found = []
        for name, x in original.items():
            p, q = (
                torch.stack([t, torch.zeros_like(t)], -1) for t in (x, masked[name])
            )
            found.append(_categorical(p, q).flatten(1).sum(1))
        return torch.stack(found).sum(0)

    def agreement(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return 1 where all labels are the same, shape ``(batch,)``."""
        same = [((x > 0) == (masked[n] > 0)).flatten(1) for n, x in original.items()]
        return torch.cat(same, 1).all(1).float()


@dataclass(frozen=True)
class Gaussian(Divergence):
    """``(original - masked)^2 / (2 variance)``, summed, in nats: for regression.

    The divergence of two normal distributions of the same variance.

    Args:
        variance (float, optional): of the outputs. Default: that of the model's outputs
            on the data that it is fitted to
    """

    variance: float | None = None

    def calibrate(self, outputs: list[Outputs]) -> Divergence:
        """Take the variance from the model's outputs."""
        if self.variance is not None:
            return self
        values = torch.cat(
            [x.float().flatten(1) for output in outputs for x in output.values()]
        )
        variance = float(values.var(0, unbiased=False).mean())
        if not variance > 0:
            raise InputError(
                "the model's outputs are the same for all examples seen, so their "
                "variance is 0. Pass divergence=Gaussian(variance=...)."
            )
        return Gaussian(variance)

    def __call__(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return the divergence of each example, shape ``(batch,)``."""
        variance = 1.0 if self.variance is None else self.variance
        found = [
            (_wide(x) - _wide(masked[name])).pow(2).flatten(1).sum(1) / (2 * variance)
            for name, x in original.items()
        ]
        return torch.stack(found).sum(0)

    def agreement(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return 1 within half a standard deviation, shape ``(batch,)``."""
        return (self(original, masked, tokens) <= 0.125).float()


@dataclass(frozen=True)
class NextToken(Divergence):
    """``KL`` of the next-token distributions at chosen positions, in nats.

    For causal language models; tokens after the last chosen position cannot matter,
    and count neither for sparsity nor in the attribution.

    Args:
        position (int or Callable): of the token that predicts; negative ones count from
            the last token that is no padding. A function takes the inputs and returns
            positions of shape ``(batch,)`` or ``(batch, several)``. Default: -1
    """

    position: int | Callable[[Any], Tensor] = -1

    def counted(self, tokens: Tensor, inputs: Any) -> Tensor:
        """Leave out the tokens after the last chosen position."""
        index = torch.arange(tokens.shape[1], device=tokens.device)
        return tokens & (index <= self._positions(tokens, inputs).amax(1, keepdim=True))

    def chosen(self, outputs: Outputs, tokens: Tensor, inputs: Any) -> Outputs:
        """Return the logits at the chosen positions only."""
        rows = self._positions(tokens, inputs)
        return {
            name: x.gather(1, rows[:, :, None].expand(-1, -1, x.shape[-1]))
            for name, x in outputs.items()
        }

    def _positions(self, tokens: Tensor, inputs: Any) -> Tensor:
        if callable(self.position):
            rows = self.position(inputs).to(tokens.device)
            return rows[:, None] if rows.dim() == 1 else rows
        numbers = tokens.cumsum(1) * tokens  # 1 ... n at tokens, 0 at padding
        count = numbers.amax(1, keepdim=True)
        wanted = self.position + (1 if self.position >= 0 else count + 1)
        if not torch.as_tensor((wanted >= 1) & (wanted <= count)).all():
            raise InputError(
                f"position={self.position} lies outside of a text of "
                f"{int(count.min())} token(s)."
            )
        return (numbers == wanted).int().argmax(1, keepdim=True)

    def __call__(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return the sum over the chosen positions, shape ``(batch,)``."""
        found = [_categorical(x, masked[name]).sum(1) for name, x in original.items()]
        return torch.stack(found).sum(0)


@dataclass(frozen=True)
class Custom(Divergence):
    """A function of the two outputs, as the model returns them.

    Args:
        function (Callable): takes the original and the masked output and returns one
            number per example.
    """

    function: Callable[[Any, Any], Tensor]

    def __call__(self, original: Outputs, masked: Outputs, tokens: Tensor) -> Tensor:
        """Return the divergence of each example, shape ``(batch,)``."""
        single = len(original) == 1
        x, y = (next(iter(o.values())) if single else o for o in (original, masked))
        found = self.function(x, y)
        batch = next(iter(original.values())).shape[0]
        if not isinstance(found, Tensor) or found.shape != (batch,):
            shape = tuple(found.shape) if isinstance(found, Tensor) else found
            raise OutputError(
                f"divergence= returned {shape!r}; expected one number per example, "
                f"shape ({batch},)."
            )
        return found


DIVERGENCES: dict[str, type[Divergence]] = {
    "categorical": Categorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "next-token": NextToken,
}


def divergence_for(given: Any, output: Any) -> Divergence:
    """Return the divergence that is meant, or that suits a model's output.

    Args:
        given (str, Divergence, Callable or None): None takes next-token KL for the
            output of a Hugging Face causal language model, and else categorical KL.
        output (Any): what the model returned.

    Raises:
        UnknownNameError: for an unknown name.
        OutputError: if None and the output has a single column.
    """
    if isinstance(given, Divergence):
        return given
    if isinstance(given, str):
        if given not in DIVERGENCES:
            raise UnknownNameError(
                f"there is no divergence {given!r}.{suggestion(given, DIVERGENCES)}"
            )
        return DIVERGENCES[given]()
    if callable(given):
        return Custom(given)
    if given is not None:
        raise TypeError(f"divergence={given!r}; expected a name or a function.")
    if "CausalLM" in type(output).__name__:
        return NextToken()
    for name, x in outputs_of(output).items():
        _at_least_two(name, x)
    return Categorical()


def _at_least_two(name: str, x: Tensor) -> None:
    if x.dim() < 2 or x.shape[-1] < 2:
        raise OutputError(
            f"the model's {name} has shape {tuple(x.shape)}, which is no distribution "
            'over classes. Write divergence="gaussian" for regression, or "bernoulli" '
            "for one logit."
        )


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _categorical(original: Tensor, masked: Tensor) -> Tensor:
    p, q = (F.log_softmax(_wide(x), -1) for x in (original, masked))
    # a class that is impossible (-inf) for both adds nothing
    return torch.where(p == -torch.inf, 0, p.exp() * (p - q)).sum(-1)


def _mean(values: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean of each example, over the tokens that count if there are some."""
    if values.dim() == 1:
        return values
    if values.shape == tokens.shape:
        return (values * tokens).sum(1) / tokens.sum(1).clamp(min=1)
    return values.flatten(1).mean(1)
