"""What is explained of a generated token: its logit, log-probability or probability."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..core.gradients import HALF_PRECISION
from ..errors import OutputError, TargetError

#: a name, or a function of the logits of steps, ``(steps, vocabulary)``
AttrTarget: TypeAlias = (
    Literal["logit", "log_prob", "prob"] | Callable[[Tensor], Tensor]
)

#: a token no more than so many standard deviations of the logits from their mean has
#: no score that relevance could be divided by
SMALLEST_SCORE = 0.1


def checked_attr_target(attr_target: AttrTarget) -> AttrTarget:
    """Return the name of a target, or a function.

    Raises:
        ValueError: if there is none of that name.
    """
    if not callable(attr_target) and attr_target not in ("logit", "log_prob", "prob"):
        raise ValueError(
            f"attr_target={attr_target!r}; expected 'logit', 'log_prob' or 'prob', or "
            "a function of logits (steps, vocabulary) to scores (steps,), such as "
            "targets.Entropy()."
        )
    return attr_target


def target_name(attr_target: Any, *, short: bool = False) -> str:
    """Return what is explained, in words, or as it is passed."""
    names = {"log_prob": "log-probability", "prob": "probability"}
    names = {} if short else names
    if not callable(attr_target):
        return names.get(attr_target, str(attr_target))
    return str(getattr(attr_target, "__name__", repr(attr_target)))


def scores_of_tokens(logits: Tensor, tokens: Tensor, attr_target: AttrTarget) -> Tensor:
    """Return the score of one token at each position.

    Args:
        logits (Tensor): shape ``(..., vocabulary)``.
        tokens (Tensor): which token at each position, shape ``(...)``.
        attr_target (str or Callable): ``"logit"``, ``"log_prob"`` or ``"prob"``; or a
            function of logits ``(steps, vocabulary)``.

    Returns:
        Tensor: shape ``(...)``, in the graph of the logits by torch's own gradient: the
        rules of a method end at the logits.

    Raises:
        TargetError: if a function returns anything but a score for each step.
    """
    if logits.dtype in HALF_PRECISION:
        logits = logits.float()
    if callable(attr_target):
        found = attr_target(logits.reshape(-1, logits.shape[-1]))
        if not isinstance(found, Tensor) or found.shape != (tokens.numel(),):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found)
            raise TargetError(
                f"attr_target={target_name(attr_target)} returned {shape} for logits "
                f"of {tokens.numel()} steps; expected a tensor of shape (steps,)."
            )
        return found.reshape(tokens.shape)
    if attr_target != "logit":
        logits = logits.log_softmax(-1)
    scores = logits.gather(-1, tokens[..., None])[..., 0]
    return scores.exp() if attr_target == "prob" else scores


def scores_above_mean(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far tokens stand out: their logits less the mean of the vocabulary.

    Args:
        logits (Tensor): shape ``(..., vocabulary)``.
        tokens (Tensor): which token at each position, shape ``(...)``.

    Returns:
        tuple of Tensor: the scores, and whether each is more than ``SMALLEST_SCORE``
        standard deviations of the logits there; both of shape ``(...)``.
    """
    if logits.dtype in HALF_PRECISION:
        logits = logits.float()
    scores = scores_of_tokens(logits, tokens, "logit") - logits.mean(-1)
    spread = logits.detach().std(-1, correction=0)
    return scores, scores.detach().abs() > SMALLEST_SCORE * spread


def sequence_weights(log_probs: Tensor, attr_target: AttrTarget) -> Tensor:
    """Return by how much each token's score changes that of the whole sequence.

    The logits and log-probabilities of a sequence are sums. Its probability is a
    product, the derivative of which at one token's is the product of the others'.

    Args:
        log_probs (Tensor): of the tokens, shape ``(tokens,)``.
        attr_target (str): what is explained.
    """
    if attr_target != "prob":
        return torch.ones_like(log_probs)
    return (log_probs.sum() - log_probs).exp()


def check_logits(logits: Tensor) -> None:
    """Raise if logits cannot be explained.

    Raises:
        OutputError: if they are of another shape than ``(examples, tokens,
            vocabulary)``, or not finite.
    """
    if logits.dim() != 3 or not logits.is_floating_point():
        raise OutputError(
            f"the model returned logits of shape {tuple(logits.shape)} and dtype "
            f"{logits.dtype}; expected floating point of shape (examples, tokens, "
            "vocabulary), as a causal language model or an encoder-decoder returns."
        )


def check_finite(scores: Tensor) -> None:
    """Raise if a score is NaN or infinite.

    Raises:
        OutputError: with the scores.
    """
    values = scores.detach().flatten().tolist()
    if not all(map(math.isfinite, values)):
        raise OutputError(
            f"the scores of the generated tokens are {values}: NaN or infinite before "
            "anything is explained. Check the weights and inputs; in float16 try "
            "bfloat16 or float32."
        )
