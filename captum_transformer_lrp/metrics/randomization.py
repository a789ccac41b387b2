"""The sanity check of Adebayo et al.: do maps change where a model forgets its weights?

Adebayo et al., NeurIPS 2018, arXiv 1810.03292, Sec. 3: weights are re-initialised layer
by layer, from the output down (cascade). A method whose maps stay as they were does not
explain the model.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from .._packages import require
from ..errors import InputError
from .agreement import rank_agreement
from .measurement import Measurement

if TYPE_CHECKING:
    from pandas import DataFrame


#: says of a module or tensor of Hugging Face that an initialiser shall leave it alone
_LOADED = "_is_hf_initialized"


def randomize_cascade(
    model: nn.Module, *, seed: int = 0, layers: Sequence[str] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    r"""Yield a copy of the model that forgets one layer more each time.

    The layers are all modules with parameters of their own, the last registered first.
    Each takes the weights that the model had before its training, drawn anew: by the
    model's own initialiser (``init_weights()``, which models of Hugging Face and timm
    have, or ``_init_weights(module)``), and by a module's ``reset_parameters`` where
    that draws nothing. Parameters that none of them draws (class tokens or position
    embeddings of some models) come from a normal distribution of their own mean and
    standard deviation. Parameters that several layers share are forgotten once, with
    the first of them.

    Args:
        model (nn.Module): never changed; neither is torch's random state, which is put
            back after each step: what other threads draw meanwhile is drawn again.
        seed (int, optional): of the new weights. Default: 0
        layers (sequence of str, optional): names of modules in the order in which they
            are forgotten, each with its parameters of its own. Default: all, from the
            last registered to the first

    Yields:
        tuple[str, nn.Module]: the layer forgotten last, ``"(model)"`` for parameters of
        the model itself, and the copy: the same object each time, changed in place.

    Raises:
        InputError: if a name is unknown or a module has no parameters of its own.
    """
    forgetful = copy.deepcopy(model)
    modules = dict(forgetful.named_modules())
    own = {
        name: list(module.parameters(recurse=False)) for name, module in modules.items()
    }
    if layers is None:
        layers = [name for name in reversed(modules) if own[name]]
    for name in layers:
        if not own.get(name):
            what = "no parameters of its own" if name in own else "no such module"
            raise InputError(
                f"cannot forget {name!r}: {what} in {type(model).__name__}"
            )
    return _forget(forgetful, modules, layers, seed)


def _forget(
    forgetful: nn.Module,
    modules: dict[str, nn.Module],
    layers: Sequence[str],
    seed: int,
) -> Iterator[tuple[str, nn.Module]]:
    fresh = _untrained(forgetful, seed)
    done: set[int] = set()
    for name in layers:
        module = modules[name]
        new = [p for p in module.parameters(recurse=False) if id(p) not in done]
        done |= {id(p) for p in new}
        with torch.no_grad():
            for parameter in new:
                parameter.copy_(fresh[id(parameter)])
        yield name or "(model)", forgetful


def _untrained(model: nn.Module, seed: int) -> dict[int, Tensor]:
    """Return what each parameter, by its ``id``, might have been before training."""
    untrained = copy.deepcopy(model)
    trained = dict(model.named_parameters())
    devices = sorted({p.device.index or 0 for p in trained.values() if p.is_cuda})
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        # What is still not a number in the end was drawn by nobody.
        for parameter in untrained.parameters():
            if parameter.is_floating_point():
                parameter.fill_(torch.nan)
        for module in untrained.modules():
            module.__dict__.pop(_LOADED, None)
            for tensor in (*module.parameters(False), *module.buffers(False)):
                tensor.__dict__.pop(_LOADED, None)
            if any(True for _ in module.parameters(recurse=False)):
                _call(module, "reset_parameters")
        _initialize(untrained)
        drawn = dict(untrained.named_parameters(remove_duplicate=False))
        return {
            id(parameter): drawn[name].detach()
            if drawn[name].is_floating_point() and bool(drawn[name].isfinite().all())
            else _drawn_again(parameter)
            for name, parameter in trained.items()
        }


def _initialize(module: nn.Module) -> None:
    """Let the outermost modules with an initialiser of their own use it."""
    if _call(module, "init_weights") or _call(module, "_init_weights"):
        return
    if _takes(module, "_init_weights") == 1:
        initialize: Any = module._init_weights
        module.apply(initialize)
        return
    for child in module.children():
        _initialize(child)


def _call(module: nn.Module, name: str) -> bool:
    """Call a method, if there is one that needs no arguments; return whether."""
    if _takes(module, name) != 0:
        return False
    getattr(module, name)()
    return True


def _takes(module: nn.Module, name: str) -> int | None:
    """Return how many arguments a method needs; None where there is no such method."""
    method = getattr(module, name, None)
    if not inspect.ismethod(method):
        return None
    empty = inspect.Parameter.empty
    return sum(
        one.default is empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        for one in inspect.signature(method).parameters.values()
    )


def _drawn_again(parameter: Tensor) -> Tensor:
    """Return normal values of a parameter's own mean and standard deviation."""
    values = parameter.detach().float()
    spread = values.std(correction=0)
    drawn = torch.randn_like(values) * spread + values.mean()
    return drawn.to(parameter.dtype)


@dataclass(frozen=True, eq=False)
class ModelRandomization:
    """How alike maps stay as a model forgets its layers.

    Attributes:
        layers (tuple of str): in the order in which they were forgotten.
        agreements (tuple of Measurement): with the maps of the trained model after each
            of them, one value per example (lower is better).
    """

    layers: tuple[str, ...]
    agreements: tuple[Measurement, ...]

    @property
    def last(self) -> Measurement:
        """The agreement once all layers are forgotten."""
        return self.agreements[-1]

    @property
    def average(self) -> Measurement:
        """The mean agreement over all layers, for each example."""
        values = torch.stack([m.values for m in self.agreements]).mean(0)
        one = self.last
        return Measurement(f"{one.name}, mean of layers", values, "lower", one.settings)

    def __str__(self) -> str:
        width = max(map(len, self.layers))
        rows = zip(self.layers, self.agreements, strict=True)
        lines = [
            f"{name:{width}}  {m.mean:+.3f} ± {m.standard_error:.3f}"
            for name, m in rows
        ]
        return "\n".join(
            [f"{self.last.name} after forgetting (n = {self.last.n})", *lines]
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts, as JSON takes them."""
        rows = zip(self.layers, self.agreements, strict=True)
        return {"layers": [{"layer": name, **m.to_dict()} for name, m in rows]}

    def to_pandas(self) -> DataFrame:
        """Return a row per layer and example, with the ``agreement``."""
        pandas = require("pandas")
        tables = [
            pandas.DataFrame(
                {
                    "step": step,
                    "layer": name,
                    "example": range(m.n),
                    "agreement": m.values.numpy(),
                }
            )
            for step, (name, m) in enumerate(
                zip(self.layers, self.agreements, strict=True)
            )
        ]
        return pandas.concat(tables, ignore_index=True)


def model_randomization(
    model: nn.Module,
    explain: Callable[[nn.Module], Tensor],
    *,
    valid: Tensor | None = None,
    kind: Literal["spearman", "kendall"] = "spearman",
    absolute: bool = False,
    layers: Sequence[str] | None = None,
    seed: int = 0,
) -> ModelRandomization:
    """Compare maps of the model with those of copies that forget layer by layer.

    Args:
        model (nn.Module): never changed.
        explain (Callable): takes a model, and returns its scores ``(examples, tokens)``
            or ``(examples, rows, columns)`` for the same inputs and targets each time,
            such as ``lambda m: AttnLRP(m).attribute(inputs, target=1)``.
        valid (Tensor, optional): bool, of the shape of the scores: the units that
            count. Default: None, all
        kind (str, optional): ``"spearman"`` or ``"kendall"`` rank correlation.
            Default: ``"spearman"``
        absolute (bool, optional): compare absolute scores, as Adebayo et al. also do:
            a change of sign is then no change. Default: False
        layers (sequence of str, optional): as for :func:`randomize_cascade`.
            Default: None
        seed (int, optional): of the new weights. Default: 0

    Raises:
        InputError: as for :func:`randomize_cascade`; if scores have another shape.
    """

    def scores_of(one: nn.Module) -> Tensor:
        scores = explain(one).detach()
        return scores.abs() if absolute else scores

    before = scores_of(model)
    names, agreements = [], []
    settings = {"scores": "absolute" if absolute else "signed", "seed": str(seed)}
    for name, forgetful in randomize_cascade(model, seed=seed, layers=layers):
        found = rank_agreement(before, scores_of(forgetful), kind=kind, valid=valid)
        names.append(name)
        agreements.append(Measurement(found.name, found.values, "lower", settings))
    if not names:
        raise InputError(f"{type(model).__name__} has no parameters to forget")
    return ModelRandomization(tuple(names), tuple(agreements))
