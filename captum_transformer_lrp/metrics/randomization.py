"""The sanity check of Adebayo et al.: do maps change where a model forgets its weights?

Adebayo et al., NeurIPS 2018, arXiv 1810.03292, Sec. 3: weights are re-initialised layer
by layer, from the output down (cascade). A method whose maps stay as they were does not
explain the model.
"""

from __future__ import annotations

import copy
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


def randomize_cascade(
    model: nn.Module, *, seed: int = 0, layers: Sequence[str] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    r"""Yield a copy of the model that forgets one layer more each time.

    The layers are all modules with parameters of their own, the last registered first.
    A module's ``reset_parameters`` is called where it has one; parameters of other
    modules (class tokens, position embeddings, the RMSNorm of Hugging Face, the
    projections of ``nn.MultiheadAttention``) are drawn from a normal distribution of
    their own mean and standard deviation. Parameters that several layers share are
    forgotten once, with the first of them.

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
    done: set[int] = set()
    for number, name in enumerate(layers):
        module = modules[name]
        new = [p for p in module.parameters(recurse=False) if id(p) not in done]
        done |= {id(p) for p in new}
        devices = sorted({p.device.index or 0 for p in new if p.is_cuda})
        with torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(seed + number)
            reset = getattr(module, "reset_parameters", None)
            if new and callable(reset):
                reset()
            else:
                for parameter in new:
                    _draw_again(parameter)
        yield name or "(model)", forgetful


def _draw_again(parameter: Tensor) -> None:
    """Fill a parameter with normal values of its own mean and standard deviation."""
    values = parameter.float()
    spread = values.std(correction=0)
    fresh = torch.randn_like(values) * spread + values.mean()
    parameter.copy_(fresh.to(parameter.dtype))


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
