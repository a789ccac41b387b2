"""Trained masks as files: tensors as safetensors, everything else as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import captum
import torch
from torch import Tensor, nn

from .._files import write, written_whole
from .._packages import require
from ..errors import InputError
from ..models.discovery import StatePlace
from .divergence import DIVERGENCES, Divergence, Gaussian, NextToken, divergence_for
from .gates import Gates
from .history import History
from .recipes import Recipe

if TYPE_CHECKING:
    from .diffmask import DiffMask

    Mask = TypeVar("Mask", bound=DiffMask)

FORMAT = 1
WEIGHTS, SETTINGS = "masks.safetensors", "diffmask.json"
#: what stands in the settings, and in those of each state
_SETTINGS = tuple(
    "mode margin divergence recipe never_mask everything_masked states steps".split()
)
_STATE = ("name", "side", "call", "layout", "width", "module")


def save(mask: DiffMask, folder: Path) -> Path:
    """Write the masks into a folder."""
    gates, divergence = mask.trained()
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in gates.state_dict().items()}
    with written_whole(folder / WEIGHTS) as part:
        require("safetensors.torch").save_file(tensors, part)
    settings = {
        "format": FORMAT,
        "weights": _digest(folder / WEIGHTS),
        "versions": {"torch": torch.__version__, "captum": captum.__version__},
        "model": type(mask.forward_func).__name__,
        "mode": mask.mode,
        "margin": mask.margin,
        "divergence": _described(divergence),
        "recipe": asdict(mask.recipe),
        "never_mask": list(mask.never_mask),
        "everything_masked": mask.everything_masked,
        "states": [
            {**_names(place), "width": width, "module": _fingerprint(place.module)}
            for place, width in zip(mask.places or (), gates.widths, strict=True)
        ],
        "steps": 0 if mask.history is None else mask.history.steps,
    }
    text = json.dumps(settings, indent=2) + "\n"
    write(folder / SETTINGS, text)
    return folder


def load(
    cls: type[Mask],
    folder: Path,
    forward_func: Callable[..., Any],
    layers: Sequence[nn.Module | str] | None,
    options: dict[str, Any],
) -> Mask:
    """Read masks for a model, and refuse another model."""
    settings = _read(folder)
    states = settings["states"]
    recipe = settings["recipe"]
    if layers is None and not isinstance(forward_func, nn.Module):
        raise TypeError(
            "forward_func is a function, in which modules cannot be found by name. "
            "Pass the modules that the masks were trained for: layers=[...]."
        )
    divergence = _divergence(settings["divergence"], options.pop("divergence", None))
    mask = cls(
        forward_func,
        layers,
        settings["mode"],
        margin=settings["margin"],
        recipe=recipe,
        never_mask=settings["never_mask"],
        divergence=divergence,
        **options,
    )
    if layers is None:
        mask.places = tuple(_place(forward_func, s, folder) for s in states)
    _check_same(mask.places or (), states, folder)
    mask.places = tuple(
        replace(place, layout=state["layout"])
        for place, state in zip(mask.places or (), states, strict=True)
    )
    gates = Gates([s["width"] for s in states], mask.mode, recipe, train_baseline=False)
    tensors = _weights(folder, settings.get("weights"))
    wanted = gates.state_dict()
    wrong = [
        k
        for k in {*tensors, *wanted}
        if k not in tensors or k not in wanted or tensors[k].shape != wanted[k].shape
    ]
    if wrong:
        raise InputError(
            f"{WEIGHTS} in {str(folder)!r} does not fit {SETTINGS} beside it "
            f"({', '.join(sorted(wrong)[:4])}). Save the masks again."
        )
    gates.load_state_dict(tensors)
    parameter = next((p for m in mask.modules for p in m.parameters()), None)
    if parameter is not None:
        gates.to(parameter.device)
    mask.set_trained(
        gates.requires_grad_(False),
        divergence,
        settings["everything_masked"],
        History(steps=settings["steps"], stopped="loaded"),
    )
    return mask


def _read(folder: Path) -> dict[str, Any]:
    missing = [n for n in (SETTINGS, WEIGHTS) if not (folder / n).is_file()]
    if missing:
        raise InputError(
            f"{str(folder)!r} holds no masks: {' and '.join(missing)} is not there. "
            "Name a folder that DiffMask.save wrote."
        )
    try:
        settings: dict[str, Any] = json.loads((folder / SETTINGS).read_text("utf-8"))
        number = settings["format"]
        if number == FORMAT:
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in settings["recipe"].items()
            }
            settings["recipe"] = Recipe(**values)
            missing = [key for key in _SETTINGS if key not in settings]
            for state in settings["states"]:
                missing += [key for key in _STATE if key not in state]
            if missing:
                raise ValueError(f"{', '.join(missing)} is not there")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{SETTINGS} in {str(folder)!r} cannot be read: {error}. Save the masks "
            "again."
        ) from error
    if number != FORMAT:
        raise InputError(
            f"the masks in {str(folder)!r} have format {number}, and this version "
            f"reads format {FORMAT}."
        )
    return settings


def _weights(folder: Path, digest: str | None) -> dict[str, Tensor]:
    """Return the tensors of masks.

    Args:
        folder (Path): what was saved.
        digest (str or None): of the file that was written; None where none was kept.

    Raises:
        InputError: if the file is damaged, or another one than was written.
    """
    path = folder / WEIGHTS
    if digest is not None and _digest(path) != digest:
        raise InputError(
            f"{WEIGHTS} in {str(folder)!r} is not the file that was saved with "
            f"{SETTINGS} beside it. Save the masks again."
        )
    safetensors = require("safetensors")
    try:
        found: dict[str, Tensor] = require("safetensors.torch").load_file(path)
    except (safetensors.SafetensorError, ValueError) as error:
        raise InputError(
            f"{WEIGHTS} in {str(folder)!r} is damaged: {error}. Save the masks again."
        ) from error
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------ what is kept


def _names(place: StatePlace) -> dict[str, Any]:
    return {
        "name": place.name,
        "side": place.side,
        "call": place.call,
        "layout": place.layout,
    }


def _place(forward_func: Any, state: dict[str, Any], folder: Path) -> StatePlace:
    modules = dict(forward_func.named_modules())
    if state["name"] not in modules:
        raise InputError(
            f"the masks in {str(folder)!r} are for another model: "
            f"{type(forward_func).__name__} has no module {state['name']!r}."
        )
    module = modules[state["name"]]
    return StatePlace(
        state["name"], state["side"], module, state["call"], state["layout"]
    )


def _fingerprint(module: nn.Module) -> dict[str, Any]:
    """Return what tells a module from that of another model, whatever its dtype."""
    parameters = dict(module.named_parameters())
    return {
        "class": type(module).__name__,
        "shapes": {k: list(p.shape) for k, p in parameters.items()},
        "norms": {k: float(_norm(p)) for k, p in parameters.items()},
    }


def _norm(parameter: Tensor) -> Tensor:
    if not parameter.is_floating_point():
        return torch.zeros(())
    norm: Tensor = parameter.detach().double().norm()
    return norm


def _check_same(
    places: Sequence[StatePlace], states: list[dict[str, Any]], folder: Path
) -> None:
    """Raise if modules have other classes, shapes or weights than in training."""
    start = f"the masks in {str(folder)!r} are for another model: "
    if len(places) != len(states):
        raise InputError(
            f"{start}they have {len(states)} hidden states, and {len(places)} layers "
            "were given."
        )
    for place, state in zip(places, states, strict=True):
        here, there = _fingerprint(place.module), state["module"]
        if here["class"] != there["class"]:
            raise InputError(
                f"{start}{place.name!r} is a {here['class']}, they were trained for a "
                f"{there['class']}."
            )
        for name in {**there["shapes"], **here["shapes"]}:
            a, b = there["shapes"].get(name), here["shapes"].get(name)
            if a != b:
                raise InputError(
                    f"{start}{place.name}.{name} has shape {b}, they were trained for "
                    f"{a}."
                )
            c, d = there["norms"][name], here["norms"][name]
            if abs(c - d) > 0.01 * max(c, d, 1e-6):
                raise InputError(
                    f"{start}the weights of {place.name}.{name} differ (norm {d:.4g}, "
                    f"they were trained for {c:.4g}). Fit masks for this model."
                )


def _described(divergence: Divergence) -> dict[str, Any]:
    names = {cls: name for name, cls in DIVERGENCES.items()}
    name = names.get(type(divergence), "function")
    if isinstance(divergence, Gaussian):
        return {"name": name, "variance": divergence.variance}
    if isinstance(divergence, NextToken):
        if callable(divergence.position):
            return {"name": "function"}
        return {"name": name, "position": divergence.position}
    return {"name": name}


def _divergence(described: dict[str, Any], given: Any) -> Divergence:
    """Return the divergence of the training, or what the user passes again."""
    if given is not None:
        return divergence_for(given, None)
    described = dict(described)
    name = described.pop("name")
    if name not in DIVERGENCES:
        raise InputError(
            "these masks were trained with a function as divergence, which is not "
            "stored. Pass it again: DiffMask.load(..., divergence=function)."
        )
    return DIVERGENCES[name](**described)
