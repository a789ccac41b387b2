"""TracIn: whose gradients, at the checkpoints of a training, point the same way."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from captum.influence import TracInCP, TracInCPFast
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ..errors import InputError, UnitError, suggestion
from ..models.loading import ImageModel, TextModel
from .checkpoints import Checkpoint, load_checkpoint, rates_of
from .final_layer import find_final_layer
from .ranking import GradientInfluence
from .reading import (
    Batch,
    OpenedExamples,
    Reader,
    collect,
    in_batches,
    inverse,
    open_examples,
    run,
)

_ROWS = 4096  # feature vectors that Captum multiplies at once
_FLOATS = 2**28  # of the gradients of questions that are held at once, 1 GiB in float32


def tracin(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    processor: Any,
    examples: Sequence[Any],
    labels: Sequence[int | str],
    *,
    checkpoints: Sequence[Checkpoint] | None = None,
    learning_rates: float | Sequence[float] | None = None,
    layers: Literal["final", "all"] | Sequence[str] = "final",
    metric: Literal["dot", "cosine"] = "dot",
    batch_size: int = 32,
) -> TracIn:
    r"""Trace predictions back to training examples, by Captum's TracIn.

    The influence of the training example :math:`z` on the example :math:`z'` is
    (TracInCP of Pruthi et al. 2020, arXiv:2002.08484, section 3.3)

    .. math:: \sum_c \eta_c \; \nabla L_c(z) \cdot \nabla L_c(z')

    over the checkpoints :math:`c` with their learning rates :math:`\eta_c`, and
    :math:`L` the cross entropy. Positive is what lowered the loss of :math:`z'` (a
    proponent), negative what raised it. Everything runs on a copy of the model in
    evaluation mode; the model itself is not touched.

    Args:
        model (nn.Module, str, Path, TextModel or ImageModel): A Hugging Face sequence
            classifier, a classifier of images (timm, Hugging Face, your own), or the
            name or folder of one. None is the built-in model.
        processor (Any): The tokenizer; for images what
            :func:`~captum_transformer_lrp.explain` takes as ``transform`` (timm models
            bring their own: None). None for a model by name.
        examples (Sequence of str, PIL.Image.Image, Path or Tensor): The training texts
            or pictures; tensors are pixels as the model reads them.
        labels (Sequence of int or str): Their classes, by index or name.
        checkpoints (Sequence, optional): States of the model during training: folders
            that ``save_pretrained`` or the ``Trainer`` wrote, files, state dicts or
            modules. Default: None, the model as it is
        learning_rates (float or Sequence of float, optional): The learning rate at each
            checkpoint. Default: None, 1 for each
        layers (str or Sequence of str, optional): Whose parameters the gradients are
            of. ``"final"``: the weight of the last linear layer, without its bias
            (``TracInCPFast``); training examples go through the model once for each
            checkpoint, now, and questions are then cheap. ``"all"``, or names of
            modules: all their parameters (``TracInCP``); every call takes a backward
            pass for each training example and checkpoint, and memory for the gradients
            of its questions: up to 1 GiB, or ``batch_size`` of them. Default:
            ``"final"``
        metric (str, optional): ``"dot"``, the product of the paper, or ``"cosine"``,
            the product of gradients divided by their lengths at each checkpoint
            (Hammoudeh and Lowd 2022, arXiv:2201.10055): an example with a large loss
            does not lead every list. A gradient of zero has no direction, and score 0.
            Default: ``"dot"``
        batch_size (int, optional): How many examples go through the model at once.
            Default: 32

    Returns:
        *TracIn*, with ``proponents``, ``opponents``, ``self_influence``, ``scores``.

    Raises:
        InputError: Numbers of examples, labels, checkpoints or rates do not agree; the
            model is no classifier with classes that exclude each other.
        TargetError: The model has no class of a label.
        LoadingError: A checkpoint is not there or does not fit the model.
        OutputError: The final layer is not what makes the logits.
        UnitError: There is no final layer, or no module of a given name.

    Examples::

        >>> tracin = influence.tracin(model, tokenizer, texts, labels,
        ...                           checkpoints=["out/checkpoint-100",
        ...                                        "out/checkpoint-200"],
        ...                           learning_rates=[2e-5, 1e-5])
        >>> tracin.proponents("A warm and funny film.", k=3)
    """
    if metric not in ("dot", "cosine"):
        raise InputError(f"expected metric= 'dot' or 'cosine', got {metric!r}")
    if checkpoints is not None and (
        isinstance(checkpoints, (str, Path)) or not len(checkpoints)
    ):
        raise InputError(
            f"expected checkpoints= to be a list of at least one, got {checkpoints!r}"
        )
    rates = rates_of(learning_rates, 1 if checkpoints is None else len(checkpoints))
    opened = open_examples(model, processor, examples, labels, batch_size)
    gradients = gradients_of(opened, examples, layers, checkpoints)
    return TracIn(opened, examples, gradients, rates, metric)


class TracIn(GradientInfluence):
    """Influence by the products of loss gradients; made by :func:`tracin`."""

    def __init__(
        self,
        opened: OpenedExamples,
        examples: Sequence[Any],
        gradients: Gradients,
        rates: tuple[float, ...],
        metric: Literal["dot", "cosine"],
    ) -> None:
        super().__init__(opened, examples)
        self._gradients = gradients
        self._rates = rates
        self._metric = metric
        product = "product" if metric == "dot" else "cosine"
        self.measure = (
            f"TracIn: learning rate x {product} of the loss gradients, summed over the "
            "checkpoints; positive lowered the loss of this prediction"
        )

    def _scores(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        products = self._gradients.products(examples, targets)
        if self._metric == "cosine":
            asked = self._gradients.squares(examples, targets).sqrt()
            sizes = asked[:, :, None] * self._squares.sqrt()[:, None, :]
            products = torch.where(sizes > 0, products / sizes, 0)
        return self._summed(products)

    def _self_influence(self) -> Tensor:
        if self._metric == "cosine":
            raise InputError(
                "the cosine of a gradient with itself is 1 for every example: take "
                "self_influence() of tracin(..., metric='dot')"
            )
        return self._summed(self._squares)

    @functools.cached_property
    def _squares(self) -> Tensor:
        return self._gradients.squares()

    def _summed(self, scores: Tensor) -> Tensor:
        """Return the sum over the checkpoints, weighted by the learning rates."""
        rates = torch.tensor(self._rates, dtype=scores.dtype)
        return torch.einsum("c,c...->...", rates, scores)


def gradients_of(
    opened: OpenedExamples,
    examples: Sequence[Any],
    layers: Literal["final", "all"] | Sequence[str],
    checkpoints: Sequence[Checkpoint] | None = None,
) -> Gradients:
    """Return what asks Captum for products of the training examples' loss gradients.

    Args:
        opened (OpenedExamples): The model and what it reads.
        examples (Sequence): The training examples.
        layers (str or Sequence of str): As for :func:`tracin`.
        checkpoints (Sequence, optional): States of the model. Default: None, as it is

    Raises:
        LoadingError: A checkpoint is not there or does not fit the model.
        OutputError: The final layer is not what makes the logits.
        UnitError: There is no final layer, or no module of a given name.
    """
    module = opened.module
    states = _States(
        module=module if checkpoints is None else copy.deepcopy(module),
        checkpoints=checkpoints,
    )
    gradients: Gradients = (
        _OfFinalLayer(opened.reader, states, opened.batch)
        if layers == "final"
        else _OfParameters(opened.reader, states, opened.batch, layers)
    )
    with torch.random.fork_rng(devices=[]):  # a data loader draws a seed
        gradients.learn(examples, opened.labels)
    return gradients


@dataclass(kw_only=True)
class _States:
    """A private copy of the model that goes through the states of its training.

    Args:
        module (nn.Module): The copy.
        checkpoints (Sequence, optional): The states; None is the copy as it is.
    """

    module: nn.Module
    checkpoints: Sequence[Checkpoint] | None
    _loaded: int | None = None

    def __len__(self) -> int:
        return 1 if self.checkpoints is None else len(self.checkpoints)

    def load(self, number: int) -> float:
        """Bring the copy into one state.

        Captum takes what this returns for the learning rate.
        """
        if self.checkpoints is not None and self._loaded != number:
            self._loaded = None
            load_checkpoint(self.module, self.checkpoints[number])
            self._loaded = number
        return 1.0


class Gradients(ABC):
    """Asks Captum for the products of loss gradients, one checkpoint after another."""

    @abstractmethod
    def learn(self, examples: Sequence[Any], labels: Tensor) -> None:
        """Read the training examples."""

    @abstractmethod
    def products(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        """Return ``(checkpoints, examples, training examples)``."""

    @abstractmethod
    def squares(
        self, examples: Sequence[Any] | None = None, targets: Tensor | None = None
    ) -> Tensor:
        """Return each gradient's product with itself, ``(checkpoints, examples)``.

        Of the training examples, where none are given.
        """


class _OfFinalLayer(Gradients):
    """``TracInCPFast`` on what the final layer reads, kept for the training examples.

    The model that Captum sees is the layer alone, and its inputs are vectors of
    features; so nothing else of the model has to run twice.
    """

    def __init__(self, reader: Reader, states: _States, batch: Batch) -> None:
        self._reader, self._states = reader, states
        states.load(0)
        self._final = find_final_layer(states.module, batch)
        self._captum: list[TracInCPFast] = []

    def learn(self, examples: Sequence[Any], labels: Tensor) -> None:
        for number in range(len(self._states)):
            self._states.load(number)
            features = self._features(examples)
            layer = copy.deepcopy(self._final.layer).cpu().to(features.dtype)
            loader = DataLoader(TensorDataset(features, labels), batch_size=_ROWS)
            self._captum.append(
                TracInCPFast(
                    layer,
                    layer,
                    loader,
                    [number],
                    checkpoints_load_func=lambda *_: 1.0,  # for a learning rate
                    loss_fn=nn.CrossEntropyLoss(reduction="sum"),
                )
            )

    def products(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        return self._asked(TracInCPFast.influence, examples, targets)

    def squares(
        self, examples: Sequence[Any] | None = None, targets: Tensor | None = None
    ) -> Tensor:
        return self._asked(TracInCPFast.self_influence, examples, targets)

    def _asked(
        self,
        ask: Callable[..., Tensor],
        examples: Sequence[Any] | None,
        targets: Tensor | None,
    ) -> Tensor:
        found = []
        with torch.random.fork_rng(devices=[]):
            for number, captum in enumerate(self._captum):
                self._states.load(number)
                given = None
                if examples is not None:
                    given = (self._features(examples), targets)
                found.append(ask(captum, given))
        return torch.stack(found)

    def _features(self, examples: Sequence[Any]) -> Tensor:
        """Return what the final layer reads, ``(examples, features)``, on the CPU."""
        return collect(
            lambda batch: self._final.read(self._states.module, batch)[0],
            self._reader,
            self._states.module,
            examples,
        )


class _OfParameters(Gradients):
    """``TracInCP`` on the parameters themselves, one backward pass per example.

    Captum's way to do a whole batch at once knows linear and convolutional layers and
    leaves out embeddings and norms without a word; it is not used.
    """

    def __init__(
        self,
        reader: Reader,
        states: _States,
        batch: Batch,
        layers: Literal["all"] | Sequence[str],
    ) -> None:
        self._reader, self._states = reader, states
        states.load(0)
        chosen = _parameters_of(states.module, layers)
        for parameter in chosen:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            total = run(states.module, batch).sum()
        reached = torch.autograd.grad(total, chosen, allow_unused=True)
        used = [p for p, g in zip(chosen, reached, strict=True) if g is not None]
        if not used:
            raise UnitError(f"the logits depend on no parameter of layers={layers!r}")
        self._scored = _Scored(states.module, used)

    def learn(self, examples: Sequence[Any], labels: Tensor) -> None:
        self._examples, self._labels = examples, labels
        loader, self._order = self._loader(examples, labels)
        self._captum = [
            TracInCP(
                self._scored,
                loader,
                [number],
                checkpoints_load_func=lambda _, number: self._states.load(number),
                loss_fn=nn.CrossEntropyLoss(reduction="none"),
                sample_wise_grads_per_batch=False,
            )
            for number in range(len(self._states))
        ]

    def products(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        # Captum keeps the gradients of all questions at once.
        each = sum(parameter.numel() for parameter in self._scored.parameters())
        size = max(self._reader.batch_size, _FLOATS // each)
        found = []
        for start in range(0, len(examples), size):
            stretch = slice(start, start + size)
            queries, order = self._loader(examples[stretch], targets[stretch])
            with torch.random.fork_rng(devices=[]):
                parts = [c.influence(queries).cpu() for c in self._captum]
            found.append(torch.stack(parts)[:, inverse(order)])
        return torch.cat(found, 1)[:, :, inverse(self._order)]

    def squares(
        self, examples: Sequence[Any] | None = None, targets: Tensor | None = None
    ) -> Tensor:
        loader, order = None, self._order
        if examples is not None and targets is not None:
            loader, order = self._loader(examples, targets)
        with torch.random.fork_rng(devices=[]):
            found = [
                c.self_influence(loader, outer_loop_by_checkpoints=True).cpu()
                for c in self._captum
            ]
        return torch.stack(found)[:, inverse(order)]

    def _loader(
        self, examples: Sequence[Any], labels: Tensor
    ) -> tuple[DataLoader[Any], list[int]]:
        """Return Captum's batches, and which example stands where in them."""
        batches, order = in_batches(self._reader, self._states.module, examples, labels)
        return DataLoader(cast(Any, batches), batch_size=None), order


class _Scored(nn.Module):
    """A classifier as ``TracInCP`` wants it: one argument, logits, chosen parameters.

    Args:
        module (nn.Module): The classifier.
        chosen (Sequence of nn.Parameter): Whose gradients count.
    """

    def __init__(self, module: nn.Module, chosen: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.module = module
        self._chosen = tuple(chosen)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits of one batch."""
        return run(self.module, batch)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield the chosen parameters: Captum takes the gradients of these."""
        return iter(self._chosen)


def _parameters_of(
    module: nn.Module, layers: Literal["all"] | Sequence[str]
) -> list[nn.Parameter]:
    """Return the parameters of the named modules, each once."""
    if layers == "all":
        return list(module.parameters())
    if isinstance(layers, str):
        raise UnitError(
            f"expected layers= to be 'final', 'all' or a list of names of modules, got "
            f"{layers!r}: write layers=[{layers!r}]"
        )
    known = dict(module.named_modules())
    found: dict[int, nn.Parameter] = {}
    for name in layers:
        if name not in known:
            raise UnitError(
                f"{type(module).__name__} has no module {name!r}."
                + suggestion(name, known)
            )
        found.update({id(p): p for p in known[name].parameters()})
    if not found:
        raise UnitError(f"the modules of layers={list(layers)!r} have no parameters")
    return list(found.values())
