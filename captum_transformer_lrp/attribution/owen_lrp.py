"""Relevance averaged over the whole input and complementary halves of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.composites import Composite
from ..errors import InputError
from .contexts import ContextLRP, Parts


class OwenLRP(ContextLRP):
    r"""LRP in several contexts: the input, and complementary halves of it.

    A word that another word repeats has little relevance beside it, and much alone. The
    Shapley value asks what a part :math:`i` adds to random subsets of the others; by
    Owen's multilinear extension it is

    .. math:: \phi_i = \int_0^1 E_{S_q} [f(S_q \cup i) - f(S_q)] \, dq,

    where :math:`S_q` has each other part with probability q (Okhrati and Lipani 2020,
    arXiv 2010.12082). Here two points stand for the integral, q = 1 (the input itself)
    and q = 1/2, at which each half is taken together with its complement (their
    "halved" sampling), and the relevance of :math:`i` in :math:`S_q \cup i` stands for
    what it adds, so that one pass serves all parts of a half:

    .. math:: R_i = \tfrac12 R_i(x) + \tfrac1{2n} \sum_{k=1}^n R_i(x_{H_k(i)}),

    with :math:`H_k(i)` the half of the k-th split that holds i and the other half
    replaced by the baseline. Costs 1 + 2n passes of the composite's LRP: 3 by default.
    A method of this package; measured in ``benchmarks/faithfulness_text.py``.

    A part is a token, or a square patch of a picture. A split puts one of every two
    neighbours into either half, by a coin that depends on ``seed`` and the place alone,
    so that results repeat, and neither batch nor padding changes them. What is kept in
    both halves (special tokens) gets the mean of its relevance in them. Not conserved:
    the sum is no score of the model.

    Args:
        forward_func (Callable): the model, or any function of it.
        composite (str or Composite, optional): the method to average.
            Default: ``"attnlrp"``
        n_splits (int, optional): n, the number of splits. Default: 1
        seed (int, optional): of the splits; torch's own random state is not touched.
            Default: 0
        options (Any): as for :class:`ContextLRP`: ``tokenizer``, ``baseline``,
            ``keep``, ``patch_size`` and those of :class:`TransformerLRP`.

    Raises:
        InputError: if ``n_splits`` or ``patch_size`` is below 1.

    Examples::

        >>> owen = OwenLRP(model, tokenizer=tokenizer)
        >>> owen.attribute(tokenizer("a film", return_tensors="pt"), target=1)
    """

    name: ClassVar[str] = "OwenLRP"
    description = replace(ContextLRP.description, cost=3)

    def __init__(
        self,
        forward_func: Callable[..., Any],
        composite: str | Composite = "attnlrp",
        *,
        n_splits: int = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, composite, **options)
        if n_splits < 1:
            raise InputError(f"expected n_splits of at least 1, got {n_splits}")
        self.n_splits = n_splits
        self.seed = seed

    def average(
        self,
        parts: list[Parts],
        whole: list[Tensor],
        relevance: Callable[[list[Tensor]], list[Tensor]],
    ) -> list[Tensor]:
        """Return half of the relevance in the whole, and half of that in halves."""
        means = [r / 2 for r in whole]
        for split in range(self.n_splits):
            generator = torch.Generator().manual_seed(self.seed + split)
            halves = [_half(p, generator) for p in parts]
            for side in (True, False):
                replaced = [half != side for half in halves]
                found = relevance(replaced)
                for part, mean, gone, r in zip(
                    parts, means, replaced, found, strict=True
                ):
                    held = part.fit(~gone & ~part.fixed).to(r.dtype) / 2
                    both = part.fit(part.fixed).to(r.dtype) / 4
                    mean += r * (held + both) / self.n_splits
        return means

    def about_contexts(self) -> str:
        """Say in a sentence what the relevance is the mean of."""
        pairs = "" if self.n_splits == 1 else f"{self.n_splits} pairs of "
        return (
            f"Mean relevance in the whole input and {pairs}complementary halves of it."
        )


def _half(parts: Parts, generator: torch.Generator) -> Tensor:
    """Return the half of each part, of the shape of its place: neighbours by one coin.

    Coins are drawn one by one, so that the first do not depend on their number.
    """
    place = parts.place.cpu()
    coins = torch.cat(
        [
            torch.randint(2, (1,), generator=generator)
            for _ in range((parts.number - 1) // 2 + 1)
        ]
    )
    return ((place + coins[place // 2]) % 2 == 0).to(parts.given.device)
