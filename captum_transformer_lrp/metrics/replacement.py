"""What stands where a token or a patch is taken away.

A replacement takes the inputs of a model, one row for each input to run, and which
units of each row stay. It returns inputs of its own and leaves those it got as they
are. Its text says what it does; every result quotes it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._forms import KNOWN_KEYS, explained_in
from ..errors import InputError

#: keys of a mapping that hold the units, the first that is there


class Replacement(ABC):
    """How units are taken away; subclass it for another way."""

    @abstractmethod
    def __call__(self, inputs: Any, keep: Tensor) -> Any:
        """Return the inputs without some units.

        Args:
            inputs (Tensor or Mapping): a row per input to run.
            keep (Tensor): bool, ``(rows, tokens)`` or ``(rows, rows of patches,
                columns of patches)``: the units that stay.
        """

    @abstractmethod
    def __str__(self) -> str:
        """What it does, in a few words."""


@dataclass(frozen=True)
class TokenReplacement(Replacement):
    """Another token identifier stands in the place of a token.

    Args:
        token_id (int): the identifier.
        name (str, optional): how results call it. Default: the identifier
    """

    token_id: int
    name: str = ""

    @classmethod
    def mask(cls, tokenizer: Any) -> TokenReplacement:
        """Replace by the tokenizer's mask token."""
        return cls._special(tokenizer, "mask")

    @classmethod
    def pad(cls, tokenizer: Any) -> TokenReplacement:
        """Replace by the padding token, which stays visible to the attention."""
        return cls._special(tokenizer, "pad")

    @classmethod
    def unknown(cls, tokenizer: Any) -> TokenReplacement:
        """Replace by the token of unknown words."""
        return cls._special(tokenizer, "unk")

    @classmethod
    def _special(cls, tokenizer: Any, kind: str) -> TokenReplacement:
        identifier = getattr(tokenizer, f"{kind}_token_id")
        if identifier is None:
            raise InputError(
                f"{type(tokenizer).__name__} has no {kind} token: use "
                "EmbeddingReplacement or Drop instead"
            )
        return cls(int(identifier), str(getattr(tokenizer, f"{kind}_token")))

    def __call__(self, inputs: Any, keep: Tensor) -> Any:
        """Put the identifier wherever ``keep`` is False."""
        ids = explained(inputs)
        if ids.is_floating_point() or ids.shape != keep.shape:
            raise InputError(
                f"{self} replaces token ids of shape {tuple(keep.shape)}, got "
                f"{ids.dtype} of shape {tuple(ids.shape)}"
            )
        return with_explained(inputs, ids.masked_fill(~keep, self.token_id))

    def __str__(self) -> str:
        return self.name or f"token {self.token_id}"


@dataclass(frozen=True, eq=False)
class EmbeddingReplacement(Replacement):
    """A vector stands in the place of a token's embedding.

    The model must take ``inputs_embeds`` in the place of ``input_ids``.

    Args:
        embedding (nn.Module): the module that embeds token ids, usually
            ``model.get_input_embeddings()``.
        value (str, optional): the ``"zero"`` vector, or the ``"mean"`` over the
            vocabulary. Default: ``"zero"``
    """

    embedding: nn.Module
    value: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        """Refuse an unknown value."""
        if self.value not in ("zero", "mean"):
            raise InputError(f"expected value= 'zero' or 'mean', got {self.value!r}")

    def __call__(self, inputs: Any, keep: Tensor) -> Any:
        """Embed the tokens and replace the vectors wherever ``keep`` is False."""
        if not isinstance(inputs, Mapping) or "input_ids" not in inputs:
            raise InputError(
                f"{self} turns a mapping's input_ids into inputs_embeds, got "
                f"{type(inputs).__name__}: pass a mapping, or embeddings with "
                "ValueReplacement"
            )
        with torch.no_grad():
            vectors = self.embedding(inputs["input_ids"])
            vector = torch.zeros_like(vectors[0, 0])
            if self.value == "mean":
                weight = self.embedding.weight
                assert isinstance(weight, Tensor)
                every = torch.arange(len(weight), device=weight.device)
                vector = self.embedding(every).mean(0)
        rest = {key: value for key, value in inputs.items() if key != "input_ids"}
        kept = torch.where(keep[..., None], vectors, vector)
        return {"inputs_embeds": kept, **rest}

    def __str__(self) -> str:
        return f"{self.value} embedding"


@dataclass(frozen=True, eq=False)
class ValueReplacement(Replacement):
    """A value stands in the place of pixels, embeddings or plain features.

    Args:
        value (float, Tensor or str, optional): a number; a tensor that broadcasts over
            ``(channels, height, width)`` of a picture or the ``(features,)`` of a token
            (a colour has shape ``(channels, 1, 1)``); or ``"mean"``, the mean of each
            input over its units, for each channel or feature. Pixels are those that the
            model gets: 0 is grey where a mean was subtracted. Default: 0.0
        name (str, optional): how results call it. Default: the value
    """

    value: float | Tensor | Literal["mean"] = 0.0
    name: str = ""

    def __call__(self, inputs: Any, keep: Tensor) -> Any:
        """Put the value wherever ``keep`` is False."""
        values = explained(inputs)
        if not values.is_floating_point():
            raise InputError(
                f"{self} replaces floating-point inputs, got {values.dtype}: use "
                "TokenReplacement, EmbeddingReplacement or Drop for token ids"
            )
        stays = _over_values(keep, values)
        other: Tensor
        if isinstance(self.value, str):
            if self.value != "mean" or values.dim() < 3:
                raise InputError(
                    f"expected value= a number, a tensor, or 'mean' for pictures and "
                    f"embeddings, got {self.value!r} for {tuple(values.shape)}"
                )
            other = values.mean((2, 3) if keep.dim() == 3 else 1, keepdim=True)
        else:
            other = torch.as_tensor(self.value).to(values)
        return with_explained(inputs, torch.where(stays, values, other))

    def __str__(self) -> str:
        if self.name:
            return self.name
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, Tensor) and self.value.numel() > 1:
            return f"a value of shape {tuple(self.value.shape)}"
        return f"{float(self.value):g}"


@dataclass(frozen=True)
class Drop(Replacement):
    """Tokens are dropped: the rest moves together, and positions are counted anew.

    Rows of different lengths are padded on the right and masked.

    Args:
        pad_id (int, optional): the identifier of the padding. Default: 0
    """

    pad_id: int = 0
    _along_tokens: tuple[str, ...] = field(
        default=(
            *KNOWN_KEYS,
            "attention_mask",
            "token_type_ids",
            "special_tokens_mask",
        ),
        init=False,
        repr=False,
    )

    def __call__(self, inputs: Any, keep: Tensor) -> Any:
        """Return shorter rows."""
        if not isinstance(inputs, Mapping) or keep.dim() != 2:
            raise InputError(
                "dropped tokens leave rows of different lengths, which only a mapping "
                f"with an attention_mask can hold, got {type(inputs).__name__} with "
                f"{keep.dim() - 1}-dimensional units"
            )
        strange = [
            key
            for key, value in inputs.items()
            if isinstance(value, Tensor)
            and value.shape[:2] == keep.shape
            and key not in self._along_tokens
        ]
        if strange:
            raise InputError(
                f"it is not known how {', '.join(strange)} change where tokens are "
                "dropped: leave them out, or subclass Replacement"
            )
        if "attention_mask" in inputs:
            keep = keep & inputs["attention_mask"].bool()
        lengths = keep.sum(1)
        if not bool(lengths.all()):
            raise InputError(
                "dropping all units of a row leaves nothing to run: leave special "
                "tokens out of valid=, or end with a fraction below 1"
            )
        longest = int(lengths.max())
        order = (~keep).to(torch.int8).argsort(dim=1, stable=True)[:, :longest]
        mask = torch.arange(longest, device=keep.device) < lengths[:, None]
        shorter: dict[str, Any] = {}
        for key, value in inputs.items():
            along = isinstance(value, Tensor) and value.shape[:2] == keep.shape
            if not along:
                shorter[key] = value
                continue
            index = order.view(*order.shape, *[1] * (value.dim() - 2))
            taken = value.gather(1, index.expand(*order.shape, *value.shape[2:]))
            fill = self.pad_id if key == "input_ids" else 0
            hidden = ~mask.view(*mask.shape, *[1] * (value.dim() - 2))
            shorter[key] = taken.masked_fill(hidden, fill)
        given = inputs.get("attention_mask", mask)
        dtype = torch.long if given is mask else given.dtype
        shorter["attention_mask"] = mask.to(dtype)
        return shorter

    def __str__(self) -> str:
        return "dropped"


def explained(inputs: Any) -> Tensor:
    """Return the tensor of the inputs whose units are taken away.

    Raises:
        InputError: if the inputs are neither a tensor nor a mapping with a known key.
    """
    if isinstance(inputs, (Tensor, Mapping)):
        for tensor in explained_in(inputs):
            return tensor
        raise InputError(
            f"expected one of the keys {', '.join(KNOWN_KEYS)}, got "
            f"{', '.join(map(str, inputs))}"
        )
    raise InputError(
        f"expected inputs to be a tensor or a mapping, got {type(inputs).__name__}: "
        "pass what is not perturbed as additional_forward_args="
    )


def with_explained(inputs: Any, tensor: Tensor) -> Any:
    """Return the inputs with another tensor in the place of the explained one."""
    if isinstance(inputs, Tensor):
        return tensor
    key = next(k for k in KNOWN_KEYS if isinstance(inputs.get(k), Tensor))
    return {**inputs, key: tensor}


def _over_values(keep: Tensor, values: Tensor) -> Tensor:
    """Return which values stay, broadcastable to ``values``.

    Raises:
        InputError: if the units do not divide the values.
    """
    if keep.dim() == 2:
        if values.shape[:2] != keep.shape:
            raise InputError(
                f"{keep.shape[1]} units do not fit inputs of shape "
                f"{tuple(values.shape)}: expected (examples, units, ...)"
            )
        return keep.view(*keep.shape, *[1] * (values.dim() - 2))
    height, width = values.shape[-2:]
    rows, columns = keep.shape[1:]
    if values.dim() != 4 or height % rows or width % columns:
        raise InputError(
            f"a grid of {rows} x {columns} units does not divide pictures of shape "
            f"{tuple(values.shape)}"
        )
    wide = keep.repeat_interleave(height // rows, 1)
    return wide.repeat_interleave(width // columns, 2)[:, None]
