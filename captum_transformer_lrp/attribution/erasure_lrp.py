"""Relevance of each part where nothing stronger hides it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..classic.composites import gamma_lrp
from ..core.composites import Composite
from ..errors import InputError
from .contexts import ContextLRP, Parts

#: AttnLRP, in whose linear layers what speaks for the score counts a little more
SLIGHT_GAMMA = gamma_lrp(0.02, convolution=0.02)


class ErasureLRP(ContextLRP):
    r"""LRP in three contexts: everything, without the strongest parts, and these alone.

    Rationales are tested by erasing them and by keeping nothing else (comprehensiveness
    and sufficiency, DeYoung et al. 2020, arXiv 1911.03429). Here relevance itself is
    taken in those two contexts, as adversarial erasing does with class activation maps
    (Wei et al. 2017, arXiv 1703.08448): what stands beside strong evidence is
    overshadowed by it and shows once that is gone, and strong evidence shows what it is
    worth alone. With S the strongest parts by the relevance :math:`R(x)` of the whole
    input, and :math:`x_{-S}` the input without them,

    .. math::
        A_i &= R_i(x) \text{ for } i \in S, \text{ else } R_i(x_{-S}) \\
        B_i &= R_i(x_T) \text{ for } i \in T, \text{ else } A_i \\
        E_i &= (A_i + B_i) / 2,

    where T are the strongest parts by :math:`R(x) + A` and :math:`x_T` is the input
    with nothing else. Costs three passes of the composite's LRP. A method of this
    package; ``benchmarks/faithfulness_text.py`` and ``faithfulness_image.py`` measure
    it, and chose the defaults on the first halves of their data.

    A part is a token, or a square patch of a picture; special tokens are never erased.
    Neither batch nor padding changes the result. Not conserved: the sum is no score of
    the model.

    Args:
        forward_func (Callable): the model, or any function of it.
        composite (str or Composite, optional): the method in each context. Default:
            AttnLRP with gamma .02 in what is linear; ``"attnlrp"`` takes less than half
            the time, and agrees less with people on texts
        erased (float, optional): how much of the input S is, counted in parts and
            rounded up, in (0, 1). Default: 0.1
        kept (float, optional): how much T is, likewise. Default: 0.5
        options (Any): as for :class:`ContextLRP`: ``tokenizer``, ``baseline``,
            ``keep``, ``patch_size`` and those of :class:`TransformerLRP`.

    Raises:
        InputError: if ``erased`` or ``kept`` is not between 0 and 1, or ``patch_size``
            is below 1.

    Examples::

        >>> erasure = ErasureLRP(model, tokenizer=tokenizer)
        >>> erasure.attribute(tokenizer("a film", return_tensors="pt"), target=1)
    """

    name: ClassVar[str] = "ErasureLRP"
    description = replace(ContextLRP.description, cost=8)

    def __init__(
        self,
        forward_func: Callable[..., Any],
        composite: str | Composite = SLIGHT_GAMMA,
        *,
        erased: float = 0.1,
        kept: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(forward_func, composite, **options)
        if not (0 < erased < 1 and 0 < kept < 1):
            raise InputError(
                "expected erased and kept between 0 and 1, as parts of the input, got "
                f"erased={erased} and kept={kept}"
            )
        self.erased = erased
        self.kept = kept

    def average(
        self,
        parts: list[Parts],
        whole: list[Tensor],
        relevance: Callable[[list[Tensor]], list[Tensor]],
    ) -> list[Tensor]:
        """Return the mean of what parts are worth beside others, and of the best alone.

        Fixed parts stand in every context, and count as kept.
        """
        gone = [p.strongest(r, self.erased) for p, r in zip(parts, whole, strict=True)]
        first = [
            torch.where(p.fit(g), r, left)
            for p, g, r, left in zip(parts, gone, whole, relevance(gone), strict=True)
        ]
        weak = [
            ~(p.strongest(r + f, self.kept) | p.fixed)
            for p, r, f in zip(parts, whole, first, strict=True)
        ]
        return [
            (f + torch.where(p.fit(w), f, alone)) / 2
            for p, w, f, alone in zip(parts, weak, first, relevance(weak), strict=True)
        ]

    def about_contexts(self) -> str:
        """Say in a sentence what the relevance is the mean of."""
        return (
            "Relevance beside all other parts but the strongest "
            f"{self.erased:.0%}, and of the strongest {self.kept:.0%} alone."
        )
