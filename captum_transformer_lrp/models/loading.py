"""Load a text or image model with all that an explanation needs beside the weights."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._packages import require
from ..errors import LRPError

#: the name of the models that come with the package
BUILT_IN = "built-in"
_BUILT_IN = Path(__file__).parent / "built_in"

#: patches along a side of a picture that are told apart
_MOST_PATCHES = 64

Task = Literal["sequence-classification", "causal-language-model"]


class LoadingError(LRPError, ValueError):
    """No model that can be explained was found under a name or in a folder."""


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """A model of texts, ready to be explained.

    Args:
        name (str): What a report calls the model.
        module (nn.Module): The model, in eval mode.
        tokenizer (Any): Its Hugging Face tokenizer.
        task (str): ``"sequence-classification"``, or ``"causal-language-model"`` where
            the next token is predicted.
        class_names (tuple[str, ...]): Names in the order of the logits; empty for a
            language model, whose classes are the tokens.
        activation (str): What turns logits into probabilities: ``"softmax"``,
            ``"sigmoid"`` (labels that do not exclude each other) or ``"none"``
            (regression). Default: ``"softmax"``
        max_tokens (int, optional): The longest input that the model can read.
            Default: None
    """

    name: str
    module: nn.Module = field(repr=False)
    tokenizer: Any = field(repr=False)
    task: Task
    class_names: tuple[str, ...]
    activation: str = "softmax"
    max_tokens: int | None = None

    @property
    def pad_id(self) -> int | None:
        """The padding token that the model knows, if any.

        A decoder that classifies finds its last token by it: without one, texts of
        several lengths cannot go through the model at once.
        """
        config = getattr(self.module, "config", None)
        found: int | None = getattr(config, "pad_token_id", None)
        return found


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """A classifier of images, ready to be explained.

    Args:
        name (str): What a report calls the model.
        module (nn.Module): The model, in eval mode.
        transform (Callable): From a PIL image to pixels ``(3, height, width)``.
        class_names (tuple[str, ...]): Names in the order of the logits.
        mean (tuple[float, ...], optional): What the transform subtracts per channel,
            for channels in [0, 1]; with ``std`` it shows the picture that the model
            saw. Default: None
        std (tuple[float, ...], optional): What the transform divides by.
            Default: None
        patch_grid (tuple[int, int], optional): Rows and columns of the patches into
            which the model cuts its input. Default: None
        activation (str): As for :class:`TextModel`. Default: ``"softmax"``
    """

    name: str
    module: nn.Module = field(repr=False)
    transform: Callable[[Any], Tensor] = field(repr=False)
    class_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    patch_grid: tuple[int, int] | None = None
    activation: str = "softmax"


def load_text_model(
    name: str | Path | None = None, *, device: str | torch.device | None = None
) -> TextModel:
    """Load a classifier of texts or a causal language model with its tokenizer.

    Weights are loaded in float32, whatever the precision of the file: relevance in
    half precision loses its small terms.

    Args:
        name (str, optional): A name on the Hugging Face hub
            (``"distilbert-base-uncased-finetuned-sst-2-english"``), or a folder written
            by ``save_pretrained``. ``"built-in"`` or None is the built-in classifier
            of sentiment. Default: None
        device (str, optional): Where to put the model. Default: None, the CPU

    Returns:
        *TextModel*.

    Raises:
        MissingPackageError: transformers is not installed.
        LoadingError: Nothing is found under ``name``, or it is neither a sequence
            classifier nor a causal language model.
    """
    transformers = require("transformers")
    shown, source = _resolve(name, built_in="text-classifier")
    if Path(source).is_dir():
        _folder_config(Path(source))
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    task = _text_task(shown, config)
    auto = (
        transformers.AutoModelForSequenceClassification
        if task == "sequence-classification"
        else transformers.AutoModelForCausalLM
    )
    try:
        with quiet(source):
            module = auto.from_pretrained(source, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    return text_model(shown, _placed(module, device), tokenizer)


def load_image_model(
    name: str | Path | None = None, *, device: str | torch.device | None = None
) -> ImageModel:
    """Load a classifier of images with its transform and the names of its classes.

    Args:
        name (str, optional): A timm name (``"vit_small_patch16_224"``), a name on the
            Hugging Face hub (``"google/vit-base-patch16-224"``; ``"timm/..."`` and
            ``"hf-hub:..."`` go through timm), a folder written by ``save_pretrained``,
            or a timm folder (``config.json`` with ``"architecture"``, also as
            ``"local-dir:..."``). ``"built-in"`` or None is the built-in classifier.
            Default: None
        device (str, optional): Where to put the model. Default: None, the CPU

    Returns:
        *ImageModel*.

    Raises:
        MissingPackageError: timm, or transformers for a Hugging Face model, is not
            installed.
        LoadingError: Nothing is found under ``name``, or it is no image classifier.
    """
    shown, source = _resolve(name, built_in="image-classifier")
    folder = Path(source)
    if folder.is_dir():
        config = _folder_config(folder)
        if "architecture" in config:
            return _load_timm(shown, f"local-dir:{folder}", device)
        if "model_type" in config:
            return _load_hugging_face_image(shown, source, device)
        raise LoadingError(
            f"{str(folder / 'config.json')!r} names no model: expected the key "
            "'model_type' (written by save_pretrained) or 'architecture' (a timm "
            f"folder), got the keys {sorted(config)}"
        )
    if source.startswith("timm/"):
        return _load_timm(shown, f"hf-hub:{source}", device)
    if source.startswith("hf-hub:"):
        return _load_timm(shown, source, device)
    if "/" in source:
        return _load_hugging_face_image(shown, source, device)
    timm = require("timm")
    if not timm.is_model(source):
        near = difflib.get_close_matches(source, timm.list_models(), n=3, cutoff=0.7)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise LoadingError(
            f"{source!r} is neither a folder here nor a model that timm "
            f"{timm.__version__} knows.{hint} Names on the Hugging Face hub have the "
            "form 'owner/model'."
        )
    return _load_timm(shown, source, device)


def text_model(name: str, module: nn.Module, tokenizer: Any) -> TextModel:
    """Describe a loaded Hugging Face model of texts.

    Raises:
        LoadingError: There is no tokenizer, or ``module`` is neither a sequence
            classifier nor a causal language model of transformers.
    """
    config = getattr(module, "config", None)
    if tokenizer is None:
        raise LoadingError(
            f"{type(module).__name__} is a loaded model: pass its tokenizer= as well"
        )
    if config is None:
        raise LoadingError(
            f"expected a Hugging Face model with a config, got {type(module).__name__}"
            "; explain other models with a Captum attribution class directly"
        )
    task = _text_task(name, config, architectures=[type(module).__name__])
    classifies = task == "sequence-classification"
    limits = [
        getattr(tokenizer, "model_max_length", None),
        getattr(config, "max_position_embeddings", None),
    ]
    known = [int(n) for n in limits if n is not None and 0 < n < 10**9]
    return TextModel(
        name=name,
        module=module,
        tokenizer=tokenizer,
        task=task,
        class_names=config_names(config) if classifies else (),
        activation=activation_of(config) if classifies else "softmax",
        max_tokens=min(known, default=None),
    )


def image_model(
    name: str,
    module: nn.Module,
    transform: Callable[[Any], Tensor] | None = None,
) -> ImageModel:
    """Describe a loaded model of images.

    Args:
        name (str): What a report calls the model.
        module (nn.Module): A timm model, a Hugging Face image classifier, or any module
            from ``(batch, 3, height, width)`` to ``(batch, classes)``.
        transform (Callable, optional): From a PIL image to ``(3, height, width)``, or a
            Hugging Face image processor. A timm model brings its own. Default: None

    Raises:
        LoadingError: There is no transform and the model does not know its own.
    """
    config = getattr(module, "config", None)
    cfg = getattr(module, "pretrained_cfg", None)
    mean = std = None
    if transform is None and isinstance(cfg, Mapping):
        timm = require("timm")
        data = timm.data.resolve_model_data_config(module)
        transform = timm.data.create_transform(**data, is_training=False)
        mean, std = data["mean"], data["std"]
    elif transform is None:
        raise LoadingError(
            f"{type(module).__name__} does not say how a picture becomes its input: "
            "pass transform=, a function from a PIL image to a (3, height, width) "
            "tensor, or a Hugging Face image processor"
        )
    elif hasattr(transform, "image_mean"):
        processor: Any = transform
        if processor.image_mean is not None and processor.do_normalize:
            mean, std = processor.image_mean, processor.image_std
        transform = _processor_transform(processor)
    else:
        mean, std = _normalisation(transform)
    class_names = () if config is None else config_names(config)
    if not class_names and isinstance(cfg, Mapping):
        class_names = _timm_names(module, cfg)
    return ImageModel(
        name=name,
        module=module,
        transform=transform,
        class_names=class_names,
        mean=None if mean is None else tuple(float(m) for m in mean),
        std=None if std is None else tuple(float(s) for s in std),
        patch_grid=_patch_grid(module),
        activation="softmax" if config is None else activation_of(config),
    )


def _normalisation(transform: Any) -> tuple[Any, Any]:
    """Return mean and standard deviation of a transform of torchvision, if it has one.

    Only where nothing follows on it: then it is what the model sees.
    """
    steps = list(getattr(transform, "transforms", ()))
    last = steps[-1] if steps else transform
    if type(last).__name__ != "Normalize":
        return None, None
    mean, std = (getattr(last, name, None) for name in ("mean", "std"))
    return (None, None) if mean is None or std is None else (mean, std)


def _resolve(name: str | Path | None, *, built_in: str) -> tuple[str, str]:
    """Return the name to show and the name or folder to load from."""
    if name is None or str(name) == BUILT_IN:
        if not (_BUILT_IN / built_in / "config.json").is_file():
            raise LoadingError(
                f"this installation lacks the built-in {built_in}: reinstall "
                "captum_transformer_lrp, or name a model"
            )
        return f"built-in {built_in}", str(_BUILT_IN / built_in)
    source = str(name)
    if not source.strip():
        raise LoadingError("expected the name or folder of a model, got an empty text")
    is_timm_folder = source.startswith("local-dir:")
    folder = Path(source.removeprefix("local-dir:")).expanduser()
    if folder.is_dir():
        return folder.resolve().name, str(folder)
    if is_timm_folder or source.startswith((".", "/", "~")):
        raise LoadingError(f"cannot load the model {source!r}: there is no such folder")
    return source, source


@contextmanager
def quiet(source: str) -> Iterator[None]:
    """Hide the progress bar of reading weights from a folder; downloads keep theirs."""
    logging = require("transformers").utils.logging
    if not (Path(source).is_dir() and logging.is_progress_bar_enabled()):
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _not_found(source: str, error: Exception) -> LoadingError:
    """Return an error in one line for what transformers or timm say in many."""
    if Path(source.removeprefix("local-dir:")).is_dir():
        where = "the folder is there, but it does not hold a complete model"
    else:
        where = "no such folder here, and the Hugging Face hub did not deliver it"
    reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
    return LoadingError(f"cannot load the model {source!r}: {where} ({reason})")


def _placed(module: nn.Module, device: str | torch.device | None) -> nn.Module:
    """Return the model in eval mode on its device."""
    try:
        return module.to(device or "cpu").eval()
    except (RuntimeError, AssertionError) as error:  # torch raises either
        reason = str(error).split("\n")[0]
        raise LoadingError(
            f"cannot put the model on device {str(device)!r}: {reason}"
        ) from error


def _folder_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json`` of a model folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LoadingError(
            f"the folder {str(folder)!r} holds no config.json, so it is no model that "
            "transformers' save_pretrained or timm wrote"
        ) from error
    except json.JSONDecodeError as error:
        raise LoadingError(
            f"{str(folder / 'config.json')!r} is not valid JSON: {error}"
        ) from error
    if not isinstance(config, dict):
        raise LoadingError(f"{str(folder / 'config.json')!r} holds no JSON object")
    return config


def named_architectures(name: str | Path) -> tuple[str, ...]:
    """Return the classes of models that a Hugging Face config names.

    Args:
        name (str or Path): A folder, or ``"owner/model"`` on the hub; of other names,
            which timm knows, there are none.
    """
    folder = Path(str(name)).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            return ()
        found = _folder_config(folder).get("architectures")
        return tuple(map(str, found)) if isinstance(found, list) else ()
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)) or str(name).startswith("timm/"):
        return ()
    transformers = require("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(str(name))
    except (OSError, ValueError):
        return ()  # said when it is loaded
    return tuple(getattr(config, "architectures", None) or ())


def _text_task(name: str, config: Any, architectures: list[str] | None = None) -> Task:
    """Return what a Hugging Face model does, from the names of its architectures."""
    named = architectures or list(getattr(config, "architectures", None) or [])
    if any(a.endswith("ForSequenceClassification") for a in named):
        return "sequence-classification"
    if any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in named):
        return "causal-language-model"
    raise LoadingError(
        f"{name!r} is {' or '.join(named) if named else 'of no named architecture'} "
        f"({getattr(config, 'model_type', 'unknown type')}): expected a model for "
        "sequence classification (...ForSequenceClassification) or a causal language "
        "model (...ForCausalLM); explain others directly with a Captum class"
    )


def config_names(config: Any) -> tuple[str, ...]:
    """Return the class names of a Hugging Face config, in the order of the logits."""
    names = {
        int(i): str(n) for i, n in (getattr(config, "id2label", None) or {}).items()
    }
    return tuple(names[i] for i in sorted(names))


def activation_of(config: Any) -> str:
    """Return what turns this model's logits into probabilities."""
    kind = getattr(config, "problem_type", None)
    if kind == "multi_label_classification":
        return "sigmoid"
    if kind == "regression" or getattr(config, "num_labels", 2) == 1:
        return "none"
    return "softmax"


def _load_hugging_face_image(
    name: str, source: str, device: str | torch.device | None
) -> ImageModel:
    transformers = require("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    named = list(getattr(config, "architectures", None) or [])
    if not any(a.endswith("ForImageClassification") for a in named):
        raise LoadingError(
            f"{name!r} is {' or '.join(named) if named else 'of no named architecture'}"
            f" ({config.model_type}): expected an image classifier "
            "(...ForImageClassification)"
        )
    auto = transformers.AutoModelForImageClassification
    try:
        with quiet(source):
            module = auto.from_pretrained(source, dtype=torch.float32)
            processor = transformers.AutoImageProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_found(source, error) from error
    return image_model(name, _placed(module, device), processor)


def _load_timm(name: str, source: str, device: str | torch.device | None) -> ImageModel:
    timm = require("timm")
    try:
        module = timm.create_model(source, pretrained=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_found(source, error) from error
    return image_model(name, _placed(module, device))


def _timm_names(module: nn.Module, cfg: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the class names of a timm model: its own, or those of ImageNet.

    timm's released ImageNet models carry no names, only a release tag and the size of
    their label set. Models without a tag (a folder, a fresh model) get no borrowed
    names.
    """
    if cfg.get("label_names"):
        return tuple(str(n) for n in cfg["label_names"])
    timm = require("timm")
    subset = timm.data.infer_imagenet_subset(module) if cfg.get("tag") else None
    if subset is None:
        return ()
    names = timm.data.ImageNetInfo(subset)
    return tuple(
        names.index_to_description(i).split(",")[0] for i in range(names.num_classes())
    )


def _processor_transform(processor: Any) -> Callable[[Any], Tensor]:
    """Return the image processor as a function from a PIL image to one tensor."""

    def transform(image: Any) -> Tensor:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
        return pixels[0]

    return transform


def patch_grid_of(config: Any, height: int, width: int) -> tuple[int, int] | None:
    """Return rows and columns of the patches of a picture, where a config tells them.

    Args:
        config (Any): Of a model of transformers, or of several in one.
        height (int): Of the picture as the model sees it, in pixels.
        width (int): Of the same.

    Returns:
        None where patches are unknown, do not divide the picture, or are too many to be
        told apart.
    """
    parts = ("vision_config", "backbone_config", "encoder")
    for one in (config, *(getattr(config, name, None) for name in parts)):
        patch = getattr(one, "patch_size", None) or getattr(one, "tubelet_size", None)
        if isinstance(patch, int):
            patch = patch, patch
        if not isinstance(patch, (list, tuple)):
            continue
        down, right = tuple(patch)[-2:]
        if height % down == width % right == 0:
            rows, columns = height // down, width // right
            return (rows, columns) if max(rows, columns) <= _MOST_PATCHES else None
    return None


def _patch_grid(module: nn.Module) -> tuple[int, int] | None:
    """Return rows and columns of the model's patches, where the model tells them."""
    embed = getattr(module, "patch_embed", None)
    grid = getattr(embed, "grid_size", None)
    if grid is not None:
        return int(grid[0]), int(grid[1])
    config = getattr(module, "config", None)
    image, patch = (getattr(config, k, None) for k in ("image_size", "patch_size"))
    if isinstance(image, int) and isinstance(patch, int) and image % patch == 0:
        return image // patch, image // patch
    return None
