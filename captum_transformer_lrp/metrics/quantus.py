"""Attributors as Quantus calls them: numpy arrays in, numpy arrays out.

Quantus (Hedström et al., JMLR 2023, arXiv 2202.06861) hands its explain_func a model,
often a copy with other weights, and inputs with a channel. It knows pictures and
tables, no texts: :class:`QuantusTokenWrapper` makes a text model look like one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import Attribution
from torch import Tensor, nn

from ..errors import InputError, OutputError
from ..models.prediction import select_logits

Kind = Literal["pixels", "ids", "embeds"]
ExplainFunc = Callable[..., npt.NDArray[Any]]


class QuantusTokenWrapper(nn.Module):
    """A text model that takes token ids as a picture of one row, or embeddings.

    Args:
        model (nn.Module): takes ``input_ids`` or ``inputs_embeds`` and
            ``attention_mask``, as Hugging Face models do.
        pad_id (int, optional): the id of padding, which is masked; None where there is
            none. Default: None
        kind (str, optional): ``"ids"``, float ``(batch, 1, tokens)``, rounded to ids;
            or ``"embeds"``, ``(batch, tokens, width)``, all of them tokens.
            Default: ``"ids"``

    Examples::

        >>> wrapped = QuantusTokenWrapper(model, pad_id=tokenizer.pad_token_id)
        >>> metric = quantus.PixelFlipping(
        ...     perturb_baseline=float(tokenizer.mask_token_id), normalise=False,
        ...     abs=False, disable_warnings=True)
        >>> x = ids[:, None].float().numpy()
        >>> metric(model=wrapped, x_batch=x, y_batch=labels, channel_first=True,
        ...        explain_func=to_quantus_explain_func(AttnLRP, kind="ids"))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pad_id: int | None = None,
        kind: Literal["ids", "embeds"] = "ids",
    ) -> None:
        super().__init__()
        if kind not in ("ids", "embeds"):
            raise InputError(f"expected kind= 'ids' or 'embeds', got {kind!r}")
        self.model = model
        self.pad_id = pad_id
        self.kind = kind
        self.train(model.training)

    def inputs(self, x: Tensor) -> dict[str, Tensor]:
        """Return what the text model takes for a batch of Quantus.

        Raises:
            InputError: if the batch has another shape.
        """
        if self.kind == "embeds":
            if x.dim() != 3:
                raise InputError(
                    f"expected (batch, tokens, width), got {tuple(x.shape)}"
                )
            mask = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
            return {"inputs_embeds": x, "attention_mask": mask}
        if x.dim() != 3 or x.shape[1] != 1:
            raise InputError(
                f"expected ids (batch, 1, tokens), got {tuple(x.shape)}: add a channel "
                "with ids[:, None]"
            )
        ids = x[:, 0].round().long()
        pads = torch.zeros_like(ids) if self.pad_id is None else ids == self.pad_id
        return {"input_ids": ids, "attention_mask": (~pads.bool()).long()}

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits, ``(batch, classes)``."""
        return select_logits(self.model(**self.inputs(x)))


def to_quantus_explain_func(
    attribution: Callable[[nn.Module], Attribution], *, kind: Kind = "pixels"
) -> ExplainFunc:
    """Return an ``explain_func`` for any metric of Quantus.

    Args:
        attribution (Callable): makes an attributor for a model: a class such as
            ``AttnLRP`` or ``captum.attr.Saliency``, or a function like ``lambda model:
            AttnLRP(model, rules=...)``. An object does not do: Quantus explains copies
            of the model with other weights.
        kind (str, optional): ``"pixels"``: ``(batch, channels, height, width)`` in,
            ``(batch, 1, height, width)`` out, summed over channels, maps of patches
            repeated to the pixels. ``"ids"``: of a :class:`QuantusTokenWrapper`,
            ``(batch, 1, tokens)`` in and out; the attributor must take a mapping of
            ``input_ids`` and ``attention_mask``, as those of this package do. Padding
            gets 0; special tokens keep their scores, for Quantus ranks all features.
            ``"embeds"``: of such a wrapper, ``(batch, tokens, width)`` in and out.
            Default: ``"pixels"``

    Returns:
        *Callable*: ``explain_func(model, inputs, targets, **ignored)``.

    Raises:
        InputError: if ``attribution`` is an object, or ``kind`` is unknown; from the
            function also if the model is no :class:`QuantusTokenWrapper` of this kind.
    """
    if isinstance(attribution, Attribution) or not callable(attribution):
        raise InputError(
            f"expected a class or a function that makes an attributor for a model, got "
            f"an object of {type(attribution).__name__}: Quantus explains copies of "
            "the model, to which an object is not bound"
        )
    if kind not in ("pixels", "ids", "embeds"):
        raise InputError(f"expected kind= 'pixels', 'ids' or 'embeds', got {kind!r}")

    def explain_func(
        model: nn.Module,
        inputs: npt.NDArray[Any] | Tensor,
        targets: npt.NDArray[Any] | Tensor,
        **_: Any,
    ) -> npt.NDArray[Any]:
        parameter = next(model.parameters(), None)
        device = None if parameter is None else parameter.device
        dtype = torch.float32 if parameter is None else parameter.dtype
        x = torch.as_tensor(inputs).to(device, dtype)
        target = torch.as_tensor(targets).to(device).long()
        if kind == "pixels":
            maps = attribution(model).attribute(x.requires_grad_(), target=target)
            return _numpy(_of_pixels(maps, x))
        if not isinstance(model, QuantusTokenWrapper) or model.kind != kind:
            raise InputError(
                f"kind={kind!r} explains a QuantusTokenWrapper of this kind, got "
                f"{type(model).__name__}: wrap the text model"
            )
        if kind == "embeds":
            return _numpy(
                attribution(model).attribute(x.requires_grad_(), target=target)
            )
        batch = model.inputs(x)
        scores = attribution(model.model).attribute(batch, target=target)
        return _numpy(scores * batch["attention_mask"])[:, None]

    return explain_func


def _of_pixels(maps: Tensor, x: Tensor) -> Tensor:
    """Return maps as ``(batch, 1, height, width)``."""
    if maps.dim() != 4 or len(maps) != len(x):
        raise OutputError(
            f"expected maps (batch, channels, height, width), got {tuple(maps.shape)}"
        )
    maps = maps.sum(1, keepdim=True)
    if maps.shape[2:] == x.shape[2:]:
        return maps
    down, rest = divmod(x.shape[2], maps.shape[2])
    right, other = divmod(x.shape[3], maps.shape[3])
    if rest or other:
        raise OutputError(
            f"a map of {tuple(maps.shape[2:])} patches does not divide pictures of "
            f"{tuple(x.shape[2:])}"
        )
    return maps.repeat_interleave(down, 2).repeat_interleave(right, 3)


def _numpy(tensor: Tensor) -> npt.NDArray[Any]:
    return np.asarray(tensor.detach().cpu().float().numpy())
