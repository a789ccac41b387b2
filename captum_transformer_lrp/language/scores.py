"""What is explained of a generated token: its logit, log-probability or probability."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..core.gradients import HALF_PRECISION
from ..errors import OutputError

AttrTarget = Literal["logit", "log_prob", "prob"]


def checked_attr_target(attr_target: AttrTarget) -> AttrTarget:
    """Return the name of a target.

    Raises:
        ValueError: if there is none of that name.
    """
    if attr_target not in ("logit", "log_prob", "prob"):
        raise ValueError(
            f"attr_target={attr_target!r}; expected 'logit', 'log_prob' or 'prob'."
        )
    return attr_target


def scores_of_tokens(logits: Tensor, tokens: Tensor, attr_target: AttrTarget) -> Tensor:
    """Return the score of one token at each position.

    Args:
        logits (Tensor): shape ``(..., vocabulary)``.
        tokens (Tensor): which token at each position, shape ``(...)``.
        attr_target (str): ``"logit"``, ``"log_prob"`` or ``"prob"``.

    Returns:
        Tensor: shape ``(...)``, in the graph of the logits by torch's own gradient: the
        rules of a method end at the logits.
    """
    if logits.dtype in HALF_PRECISION:
        logits = logits.float()
    if attr_target != "logit":
        logits = logits.log_softmax(-1)
    scores = logits.gather(-1, tokens[..., None])[..., 0]
    return scores.exp() if attr_target == "prob" else scores


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
