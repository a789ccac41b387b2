"""Explain any transformer in one call: from a text or a picture to an explanation.

:func:`explain` loads the model (or takes a loaded one), asks it for its prediction and
attributes that prediction with one of the methods of
:mod:`captum_transformer_lrp.attribution`, or with any Captum class. It adds no
mathematics of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import torch
from captum.attr import Attribution
from torch import Tensor, nn
from tqdm import tqdm

from .attribution import (
    METHODS,
    AttentionAttribution,
    AttentionRollout,
    RawAttention,
    TransformerLRP,
)
from .errors import (
    InputError,
    ModelStateError,
    OutputError,
    UnknownNameError,
    suggestion,
)
from .explanation import ImageExplanation, TextExplanation
from .models.inputs import encode, open_picture, pad, seen_picture
from .models.loading import (
    ImageModel,
    TextModel,
    image_model,
    load_image_model,
    load_text_model,
    text_model,
)
from .models.prediction import (
    class_target,
    image_score,
    select_logits,
    text_score,
    token_target,
)

if TYPE_CHECKING:
    from PIL.Image import Image

Source = TypeVar("Source", TextModel, ImageModel)


@overload
def explain(
    text: str,
    image: None = None,
    *,
    model: str | Path | nn.Module | TextModel | None = None,
    tokenizer: Any = None,
    method: str | Attribution = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
) -> TextExplanation: ...


@overload
def explain(
    text: list[str] | tuple[str, ...],
    image: None = None,
    *,
    model: str | Path | nn.Module | TextModel | None = None,
    tokenizer: Any = None,
    method: str | Attribution = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
) -> list[TextExplanation]: ...


@overload
def explain(
    text: None = None,
    image: str | Path | Image = ...,
    *,
    model: str | Path | nn.Module | ImageModel | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    method: str | Attribution = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
) -> ImageExplanation: ...


def explain(
    text: str | list[str] | tuple[str, ...] | None = None,
    image: str | Path | Image | None = None,
    *,
    model: str | Path | nn.Module | TextModel | ImageModel | None = None,
    tokenizer: Any = None,
    transform: Callable[[Any], Tensor] | None = None,
    method: str | Attribution = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
) -> TextExplanation | list[TextExplanation] | ImageExplanation:
    """Explain what a transformer predicts for a text or a picture.

    Args:
        text (str, list or tuple of str, optional): A text, or several, explained in
            batches. Default: None
        image (str, Path or PIL.Image.Image, optional): A picture or its file. Exactly
            one of ``text`` and ``image`` is needed. Default: None
        model (str, Path, nn.Module, TextModel or ImageModel, optional): A name or
            folder (see :func:`~captum_transformer_lrp.models.load_text_model` and
            :func:`~captum_transformer_lrp.models.load_image_model`), a loaded model in
            eval mode, or what those functions return. Default: None, the built-in model
        tokenizer (Any, optional): The tokenizer, where ``model`` is a loaded model of
            texts. Default: None
        transform (Callable, optional): From a PIL image to ``(3, height, width)``, or a
            Hugging Face image processor, where ``model`` is a loaded model of images
            that does not bring its own, as timm models do. Default: None
        method (str or Attribution, optional): A name in
            :data:`captum_transformer_lrp.attribution.METHODS`, or an object of a Captum
            class. An object of another package is called with token ids
            ``(batch, tokens)`` and ``additional_forward_args=(attention_mask,)``, and
            may return ``(batch, tokens)`` or ``(batch, tokens, features)``, which is
            summed over the features. The methods that compose attention maps give
            weights, not relevance (see ``Explanation.measure``), and to images one for
            each patch; by name they are made with ``own_token="zero"``, since what the
            token that the score is read from has of itself would outshine all others.
            Default: ``"attnlrp"``
        target (int or str, optional): The class to explain by index or name; for a
            language model the next token, by id or as text. Default: None, the
            prediction
        device (str, optional): Where to put a model that is loaded by name.
            Default: None, the CPU
        batch_size (int, optional): How many texts of a list go through the model at
            once. Default: 8

    Returns:
        *TextExplanation*, a list of them for a list of texts, or *ImageExplanation*.

    Raises:
        InputError: Not exactly one of ``text`` and ``image``; an empty text; arguments
            that do not belong together.
        TargetError: The model has no such class, or the text is not one token.
        UnknownNameError: No method has this name.
        LoadingError: No model is found under this name.
        ModelStateError: A loaded model is in training mode, or a score is NaN.
        AttentionError: The method needs attention maps, and the model has none or such
            that cannot be mapped to its input.

    Examples::

        >>> explanation = explain("A warm and funny film.")
        >>> print(explanation)
        >>> explanation.save("report.html")
    """
    if (text is None) == (image is None):
        given = "neither" if text is None else "both"
        raise InputError(f"expected exactly one of text= and image=, got {given}")
    make = _maker(method)
    if image is not None:
        if tokenizer is not None:
            raise InputError("tokenizer= belongs to text=; pass transform= for image=")
        image_source = _source(
            model,
            transform,
            device,
            keyword="transform",
            record=ImageModel,
            load=load_image_model,
            describe=image_model,
        )
        return _explain_image(image_source, image, make, target)
    assert text is not None
    if transform is not None:
        raise InputError("transform= belongs to image=; pass tokenizer= for text=")
    if batch_size < 1:
        raise InputError(f"expected batch_size of at least 1, got {batch_size}")
    texts = [text] if isinstance(text, str) else list(text)
    for one in texts:
        if not isinstance(one, str) or not one.strip():
            raise InputError(f"expected a text with words in it, got {one!r}")
    source = _source(
        model,
        tokenizer,
        device,
        keyword="tokenizer",
        record=TextModel,
        load=load_text_model,
        describe=text_model,
    )
    found = list(_explain_texts(source, texts, make, target, batch_size))
    return found[0] if isinstance(text, str) else found


def _source(
    model: Any,
    companion: Any,
    device: Any,
    *,
    keyword: str,
    record: type[Source],
    load: Callable[..., Source],
    describe: Callable[..., Source],
) -> Source:
    """Return the model that the arguments of :func:`explain` describe.

    Args:
        model (Any): What was given as ``model=``.
        companion (Any): What was given as ``tokenizer=`` or ``transform=``.
        device (Any): What was given as ``device=``.
        keyword (str): Which of the two the companion is.
        record (type): :class:`TextModel` or :class:`ImageModel`.
        load (Callable): Loads such a record by name.
        describe (Callable): Describes a loaded module by such a record.
    """
    by_name = model is None or isinstance(model, (str, Path))
    if companion is not None and (by_name or isinstance(model, record)):
        what = "a model loaded by name" if by_name else f"a {record.__name__}"
        raise InputError(f"{keyword}= belongs to a module: {what} brings its own")
    if by_name:
        return load(model, device=device)
    if device is not None:
        raise InputError("device= belongs to a model loaded by name: move this one")
    if isinstance(model, record):
        return model
    if not isinstance(model, nn.Module):
        raise InputError(
            f"expected model= to be a name, a folder, an nn.Module or a "
            f"{record.__name__}, got {type(model).__name__}"
        )
    if model.training:
        raise ModelStateError(
            f"{type(model).__name__} is in training mode, where dropout makes every "
            "explanation another one: call model.eval() first"
        )
    return describe(type(model).__name__, model, companion)


def _maker(method: str | Attribution) -> Callable[[nn.Module], Attribution]:
    """Return what makes the attribution object of a method for a model."""
    if isinstance(method, Attribution):
        return lambda module: method
    if not isinstance(method, str):
        raise UnknownNameError(
            "expected method= to be a name or an object of a Captum Attribution "
            f"class, got {method!r}"
        )
    if method.lower() not in METHODS:
        raise UnknownNameError(
            f"there is no method {method!r}.{suggestion(method, METHODS)}"
        )
    cls = METHODS[method.lower()]
    if issubclass(cls, AttentionAttribution):
        return lambda module: cls(module, own_token="zero")
    return cls


def _explain_texts(
    source: TextModel,
    texts: Sequence[str],
    make: Callable[[nn.Module], Attribution],
    target: int | str | None,
    batch_size: int,
) -> Iterator[TextExplanation]:
    """Yield one explanation per text; padding is neither seen nor attributed."""
    attributor = make(source.module)
    if getattr(getattr(source.module, "config", None), "pad_token_id", None) is None:
        batch_size = 1  # a decoder that classifies finds its last token by this id
    starts = range(0, len(texts), batch_size)
    for start in tqdm(
        starts, desc="explaining", unit="batch", disable=len(starts) < 3, leave=False
    ):
        chosen = texts[start : start + batch_size]
        encoded = [encode(source, text) for text in chosen]
        batch = pad(source, [e.ids for e in encoded])
        with torch.no_grad():
            logits = select_logits(source.module(**batch))
        if source.task == "causal-language-model":
            last = batch["attention_mask"].sum(dim=1) - 1
            logits = logits[torch.arange(len(chosen)), last]
            index = token_target(source, target, logits.shape[-1])
        else:
            index = class_target(source.class_names, target, logits)
        best = logits.argmax(-1).tolist()
        indices = best if index is None else [index] * len(chosen)
        selected: Any = torch.tensor(indices, device=logits.device)
        if source.task == "causal-language-model":
            selected = list(zip(last.tolist(), indices, strict=True))
        scores = _attribute_tokens(attributor, batch, selected)
        for row, (text, encoding) in enumerate(zip(chosen, encoded, strict=True)):
            values = scores[row, : len(encoding.pieces)].numpy()
            yield TextExplanation(
                model=source.name,
                method=_method_name(attributor),
                prediction=text_score(source, logits[row], best[row]),
                target=text_score(source, logits[row], indices[row]),
                scores=_finite(values, attributor),
                notes=encoding.notes + _notes(attributor, values),
                **_meaning(attributor),
                text=text,
                pieces=encoding.pieces,
                next_token=source.task == "causal-language-model",
            )


def _attribute_tokens(
    attributor: Attribution, batch: dict[str, Tensor], target: Any
) -> Tensor:
    """Return scores per token in float64 on the CPU, ``(batch, tokens)``."""
    if isinstance(attributor, (TransformerLRP, AttentionAttribution)):
        scores = attributor.attribute(batch, target=target)
    else:
        scores = attributor.attribute(
            batch["input_ids"],
            target=target,
            additional_forward_args=(batch["attention_mask"],),
        )
    if isinstance(scores, tuple) and len(scores) == 1:
        (scores,) = scores
    shape = tuple(batch["input_ids"].shape)
    if not isinstance(scores, Tensor) or tuple(scores.shape[:2]) != shape:
        raise OutputError(
            f"{_method_name(attributor)} returned {_describe(scores)} for tokens of "
            f"shape {shape}: expected one tensor (batch, tokens) or (batch, tokens, "
            "features)"
        )
    scores = scores.detach().cpu().double()
    return scores if scores.dim() == 2 else scores.flatten(2).sum(-1)


def _explain_image(
    source: ImageModel,
    image: str | Path | Image,
    make: Callable[[nn.Module], Attribution],
    target: int | str | None,
) -> ImageExplanation:
    picture = open_picture(image)
    device = next(source.module.parameters()).device
    pixels = source.transform(picture)
    if not isinstance(pixels, Tensor) or pixels.dim() != 3 or len(pixels) not in (1, 3):
        raise InputError(
            f"expected the transform to return (3, height, width) or (1, height, "
            f"width), got {_describe(pixels)}"
        )
    batch = pixels[None].to(device)
    with torch.no_grad():
        logits = select_logits(source.module(batch))
    index = class_target(source.class_names, target, logits)
    predicted = int(logits[0].argmax())
    attributor = make(source.module)
    if not isinstance(attributor, (TransformerLRP, AttentionAttribution)):
        batch.requires_grad_()  # Captum's gradient methods warn where it is missing
    scores = attributor.attribute(batch, target=predicted if index is None else index)
    patch_grid = source.patch_grid
    if isinstance(attributor, AttentionAttribution):
        if scores.shape[2:] != batch.shape[2:]:  # not interpolated to the pixels
            patch_grid = scores.shape[2], scores.shape[3]
    elif not isinstance(scores, Tensor) or scores.shape != batch.shape:
        raise OutputError(
            f"{_method_name(attributor)} returned {_describe(scores)} for pixels of "
            f"shape {tuple(batch.shape)}: expected one tensor of the same shape"
        )
    summed = scores[0].detach().cpu().double().sum(0).numpy()
    seen, notes = seen_picture(pixels, source)
    return ImageExplanation(
        model=source.name,
        method=_method_name(attributor),
        prediction=image_score(source, logits[0], predicted),
        target=image_score(source, logits[0], predicted if index is None else index),
        scores=_finite(summed, attributor),
        notes=notes + _notes(attributor, summed),
        image=seen,
        **_meaning(attributor),
        patch_grid=patch_grid,
    )


def _describe(value: Any) -> str:
    """Return the shape of a tensor, or the type of anything else, for a message."""
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    return type(value).__name__


def _method_name(attributor: Attribution) -> str:
    return str(attributor.get_name())


def _meaning(attributor: Attribution) -> dict[str, Any]:
    """Return what the scores of a method are, as an explanation takes it."""
    return {
        "measure": "attention"
        if isinstance(attributor, AttentionAttribution)
        else "relevance",
        "same_for_every_target": isinstance(
            attributor, (AttentionRollout, RawAttention)
        ),
    }


def _notes(attributor: Attribution, scores: np.ndarray) -> tuple[str, ...]:
    """Return what a reader of the weights of tokens or patches should know."""
    if not isinstance(attributor, AttentionAttribution):
        return ()
    notes: tuple[str, ...] = ()
    if not scores.any():
        notes = (f"{_method_name(attributor)} gives no weight to anything here.",)
    if scores.ndim == 1:
        own = {
            "keep": "keeps the weight that it has of itself",
            "minimum": "gets the lowest weight or 0, by convention",
            "zero": "gets 0, by convention",
        }[attributor.own_token or attributor.own]
        notes += (
            "Where the score is read from one token, such as [CLS] or the last token "
            f"of a decoder, that token {own}.",
        )
    return notes


def _finite(scores: np.ndarray, attributor: Attribution) -> np.ndarray:
    if not np.isfinite(scores).all():
        raise ModelStateError(
            f"{_method_name(attributor)} returned NaN or infinite scores for "
            f"{int((~np.isfinite(scores)).sum())} of {scores.size} inputs"
        )
    return scores
