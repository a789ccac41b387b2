"""A linear operator and a batch normalisation right behind it are one operator.

The rule of the first leaves a :class:`Mergeable` on the tape, which
:class:`~captum_transformer_lrp.core.rules.norm.ConstantScale` finds there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.call import Call
from ..core.tape import alive


@dataclass(frozen=True, eq=False)
class Mergeable:
    """What a linear operator leaves on the tape.

    Attributes:
        operand (weakref to Tensor): what it is linear in.
        rebuild (Callable): takes the call of the normalisation, its output, and the
            scale and shift; returns the output as if the operator had made it.
        shape (torch.Size): of its output.
    """

    operand: weakref.ref[Tensor]
    rebuild: Callable[[Call, Tensor, Tensor, Tensor], Tensor]
    shape: torch.Size

    def merge(
        self, call: Call, shape: torch.Size, scale: Tensor, shift: Tensor
    ) -> Tensor | None:
        """Return ``scale * x + shift`` as if the operator behind ``x`` had made it.

        None if ``x``, of this shape, is its output reshaped.
        """
        if shape != self.shape:
            return None
        return self.rebuild(call, call.value(), scale, shift)


def operand_behind(call: Call) -> Tensor | None:
    """Return the operand of a linear operator, once its rule has run."""
    return alive(call.note.operand) if isinstance(call.note, Mergeable) else None
