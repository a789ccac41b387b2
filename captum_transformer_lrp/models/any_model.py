"""Any model by name or folder, with an input that it can read: for `check`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._packages import require
from ..errors import InputError
from .inputs import open_picture
from .loading import (
    LoadingError,
    _folder_config,
    _not_found,
    _placed,
    _resolve,
    load_image_model,
    quiet,
)
from .pictures import draw_ship

#: read by models of texts for which no text is given
SENTENCE = "The camera is stunning, yet the dialogue is lifeless."


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model and one input.

    Attributes:
        name (str): what a report calls the model.
        module (nn.Module): the model, in eval mode.
        inputs (Any): what it is called with: a tensor, or a mapping by keyword.
        shown (str): what the input is, for people.
    """

    name: str
    module: nn.Module = field(repr=False)
    inputs: Any = field(repr=False)
    shown: str


def load_any_model(
    name: str | Path,
    *,
    text: str | None = None,
    image: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Loaded:
    """Load a model of texts or pictures, whatever its task, with an input for it.

    The class is the one that the model's configuration names, so that masked language
    models, taggers, question answering and models of texts and pictures are loaded as
    they were trained. Weights are loaded in float32.

    Args:
        name (str or Path): a folder written by ``save_pretrained`` or timm, a timm
            name, a name on the Hugging Face hub, or ``"built-in"``.
        text (str, optional): what a model of texts reads. Default: a sentence
        image (str or Path, optional): what a model of pictures sees. Default: a ship,
            drawn
        device (str, optional): where to put the model. Default: None, the CPU

    Returns:
        *Loaded*.

    Raises:
        MissingPackageError: transformers or timm is not installed.
        LoadingError: nothing is found, or the model takes neither texts nor pictures.
        InputError: a picture is given to a model of texts, or the other way round.
    """
    kind = "text" if image is None else "image"
    shown, source = _resolve(name, built_in=f"{kind}-classifier")
    if _is_timm(source):
        if text is not None:
            raise InputError(
                f"{shown!r} is a model of pictures, and a text was given: use --image."
            )
        loaded = load_image_model(name, device=device)
        picture = draw_ship() if image is None else open_picture(image)
        pixels = loaded.transform(picture)[None].to(device or "cpu")
        where = "a drawn ship" if image is None else str(image)
        return Loaded(name=shown, module=loaded.module, inputs=pixels, shown=where)
    return _load_hugging_face(shown, source, text, image, device)


def _is_timm(source: str) -> bool:
    if Path(source.removeprefix("local-dir:")).is_dir():
        folder = Path(source.removeprefix("local-dir:"))
        return "architecture" in _folder_config(folder)
    if source.startswith(("timm/", "hf-hub:")):
        return True
    return "/" not in source and bool(require("timm").is_model(source))


def _load_hugging_face(
    shown: str,
    source: str,
    text: str | None,
    image: str | Path | None,
    device: str | torch.device | None,
) -> Loaded:
    transformers = require("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    named = list(getattr(config, "architectures", None) or [])
    cls = next((getattr(transformers, a, None) for a in named), None)
    if cls is None:
        raise LoadingError(
            f"the configuration of {shown!r} names {named or 'no architecture'}, and "
            f"transformers {transformers.__version__} has no such class. Load it in "
            "Python and call captum_transformer_lrp.check(model, inputs)."
        )
    try:
        with quiet(source):
            module = cls.from_pretrained(source, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    module = _placed(module, device)
    main = str(getattr(module, "main_input_name", "input_ids"))
    names = _parameters(module)
    pictures = main == "pixel_values" or "pixel_values" in names
    texts = "input_ids" in names
    if not (pictures or texts):
        raise LoadingError(
            f"{shown!r} takes {main!r}, neither a text nor a picture. Make its inputs "
            "in Python and call captum_transformer_lrp.check(model, inputs)."
        )
    if text is not None and not texts:
        raise InputError(f"{shown!r} is a model of pictures, and a text was given.")
    if image is not None and not pictures:
        raise InputError(f"{shown!r} is a model of texts, and a picture was given.")
    inputs: dict[str, Any] = {}
    parts = []
    try:
        if texts:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source)
            inputs |= dict(tokenizer(text or SENTENCE, return_tensors="pt"))
            parts.append(repr(text or SENTENCE))
        if pictures and (main == "pixel_values" or image is not None or not texts):
            processor = transformers.AutoImageProcessor.from_pretrained(source)
            picture = draw_ship() if image is None else open_picture(image)
            inputs |= dict(processor(images=picture, return_tensors="pt"))
            parts.append("a drawn ship" if image is None else str(image))
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    if getattr(config, "is_encoder_decoder", False) and "decoder_input_ids" in names:
        start = getattr(config, "decoder_start_token_id", None)
        inputs["decoder_input_ids"] = torch.full((1, 1), 0 if start is None else start)
    if names:
        inputs = {k: v for k, v in inputs.items() if k in names}
    return Loaded(
        name=shown,
        module=module,
        inputs={k: v.to(device or "cpu") for k, v in inputs.items()},
        shown=" and ".join(parts),
    )


def _parameters(module: nn.Module) -> frozenset[str]:
    """Return the names of the arguments of a model's forward function."""
    forward: Callable[..., Any] = getattr(module.forward, "__wrapped__", module.forward)
    return frozenset(inspect.signature(forward).parameters)


__all__ = ["SENTENCE", "Loaded", "load_any_model"]
