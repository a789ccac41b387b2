"""EK-FAC: gradients compared under the inverse of a layer-wise curvature."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._packages import require
from ..errors import InputError, UnitError, suggestion
from ..models.loading import ImageModel, TextModel
from .final_layer import find_final_layer
from .ranking import GradientInfluence
from .reading import Batch, OpenedExamples, in_batches, inverse, open_examples, run

_ALL = "all_modules"  # kronfluence's name for the sum over layers


def ekfac(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    processor: Any,
    examples: Sequence[Any],
    labels: Sequence[int | str],
    *,
    layers: Literal["final", "all"] | Sequence[str] = "all",
    damping: float | None = None,
    draws: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
) -> EKFAC:
    r"""Estimate what a model without a training example would say, by kronfluence.

    The influence of the training example :math:`z` on the example :math:`z'` is
    (Grosse et al. 2023, arXiv:2308.03296, sections 2 and 3)

    .. math:: \nabla L(z') \cdot (F + \lambda)^{-1} \nabla L(z)

    with :math:`L` the cross entropy and :math:`F` the Fisher information of the model
    on the training examples, which for a classifier is the Gauss-Newton Hessian.
    :math:`F` is taken layer by layer, and in each layer as diagonal in the basis of a
    Kronecker product (EK-FAC, George et al. 2018, arXiv:1806.03884). Positive is what
    lowered the loss of :math:`z'`. It needs the model at the end of its training, and
    no checkpoints.

    The parameters are the weights and biases of ``nn.Linear``, ``nn.Conv2d`` and the
    ``Conv1D`` of GPT-2; embeddings and norms are left out. ``measure`` of the result
    says how many parameters that are. Everything runs on a copy of the model, in
    memory; kronfluence empties the caches of ``torch.compile``, so that compiled models
    compile again. Needs ``pip install "captum_transformer_lrp[influence]"``.

    Args:
        model (nn.Module, str, Path, TextModel or ImageModel): As for
            :func:`~captum_transformer_lrp.influence.tracin`.
        processor (Any): The tokenizer or transform, as there.
        examples (Sequence of str, PIL.Image.Image, Path or Tensor): The training texts
            or pictures.
        labels (Sequence of int or str): Their classes, by index or name.
        layers (str or Sequence of str, optional): Which layers count: ``"all"``,
            ``"final"`` for the last linear one, or names of modules, with all layers in
            them. Default: ``"all"``
        damping (float, optional): :math:`\lambda`, for every layer. Default: None, a
            tenth of the mean eigenvalue of each layer, as in the paper
        draws (int, optional): How many labels are drawn from the model's probabilities
            for each training example, to estimate :math:`F`. Every draw takes two
            passes over the training examples. Default: None, no draws: all classes,
            weighted by their probabilities, in two passes for each class
        seed (int, optional): Of the draws. Default: 0
        batch_size (int, optional): How many examples go through the model at once;
            memory holds their gradients, and each batch of questions takes a pass over
            the training examples. Default: 32

    Returns:
        *EKFAC*, with ``proponents``, ``opponents``, ``self_influence``, ``scores``.

    Raises:
        MissingPackageError: kronfluence is not installed.
        InputError: Numbers of examples and labels do not agree; the damping or the
            number of draws is not positive; the model is no classifier with classes
            that exclude each other.
        TargetError: The model has no class of a label.
        UnitError: There is no module of a given name, or none with such a layer.

    Examples::

        >>> found = influence.ekfac(model, tokenizer, texts, labels)
        >>> found.proponents("A warm and funny film.", k=3)
    """
    require("kronfluence")
    if damping is not None and damping <= 0:
        raise InputError(f"expected damping= above 0, got {damping}")
    if draws is not None and draws < 1:
        raise InputError(f"expected draws= of at least 1, got {draws}")
    opened = open_examples(model, processor, examples, labels, batch_size)
    curvature = _Curvature(opened, layers, damping)
    curvature.learn(examples, draws, seed)
    return EKFAC(opened, examples, curvature)


class EKFAC(GradientInfluence):
    """Influence under the inverse curvature; made by :func:`ekfac`."""

    def __init__(
        self, opened: OpenedExamples, examples: Sequence[Any], curvature: _Curvature
    ) -> None:
        super().__init__(opened, examples)
        self._curvature = curvature
        self.measure = (
            "EK-FAC: product of the loss gradients under the inverse curvature, of "
            f"{curvature.said}; positive lowered the loss of this prediction"
        )

    def _scores(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        return self._curvature.products(examples, targets)

    def _self_influence(self) -> Tensor:
        return self._curvature.squares()


class _Curvature:
    """Asks kronfluence for factors and scores, on a copy whose layers it wraps.

    What writes files, starts processes and chooses a device there (``Analyzer``) is
    left aside for the functions that it calls.
    """

    def __init__(
        self,
        opened: OpenedExamples,
        layers: Literal["final", "all"] | Sequence[str],
        damping: float | None,
    ) -> None:
        self._reader = opened.reader
        self._labels = opened.labels
        module = _without_conv1d(copy.deepcopy(opened.module))
        runs = _runs_of(module, opened.batch)
        names = _chosen(module, opened.batch, runs, layers)
        counted = sum(
            p.numel() for name in names for p in module.get_submodule(name).parameters()
        )
        share = counted / sum(p.numel() for p in module.parameters())
        self.said = f"{len(names)} layers with {share:.0%} of the parameters"
        shared = any(runs[name] > 1 for name in names)
        # A layer that runs twice keeps one of its scores, in kronfluence 1.0, unless
        # gradients are processed: then it adds them up.
        self._task = _Task(opened.classes, names, shared)
        self._alone = _Alone(device=next(module.parameters()).device)
        analyzer = require("kronfluence.analyzer")
        prepared = analyzer.prepare_model(module, self._task)
        self._module: nn.Module = prepared.to(self._alone.device)
        parameter = next(opened.module.parameters())
        double = parameter.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        arguments = require("kronfluence.arguments")
        self._factor_args = arguments.FactorArguments(
            strategy="ekfac",
            has_shared_parameters=shared,
            activation_covariance_dtype=dtype,
            gradient_covariance_dtype=dtype,
            per_sample_gradient_dtype=dtype,
            lambda_dtype=dtype,
        )
        self._score_args = arguments.ScoreArguments(
            damping_factor=damping,
            query_gradient_svd_dtype=dtype,
            per_sample_gradient_dtype=dtype,
            precondition_dtype=dtype,
            score_dtype=dtype,
        )

    def learn(self, examples: Sequence[Any], draws: int | None, seed: int) -> None:
        """Read the training examples, and estimate the curvature on them."""
        batches, self._order = self._batches(examples, self._labels)
        self._training = batches
        device = self._alone.device
        if draws is None:
            turns = [
                (batch, torch.full_like(labels, number))
                for number in range(self._task.classes)
                for batch, labels in batches
            ]
        else:
            turns = list(batches) * draws
            self._task.generator = torch.Generator(device).manual_seed(seed)
        shared = {
            "model": self._module,
            "state": self._alone,
            "factor_args": self._factor_args,
            "disable_tqdm": True,
        }
        covariance = require("kronfluence.factor.covariance")
        eigen = require("kronfluence.factor.eigen")
        with _quiet():
            _, covariances = covariance.fit_covariance_matrices_with_loader(
                task=self._task, loader=_Batches(turns), **shared
            )
            bases = eigen.perform_eigendecomposition(covariances, **shared)
            _, values = eigen.fit_lambda_matrices_with_loader(
                task=self._task, loader=_Batches(turns), eigen_factors=bases, **shared
            )
        self._factors = {**bases, **values}

    def products(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        """Return ``(examples, training examples)``."""
        queries, order = self._batches(examples, targets)
        pairwise = require("kronfluence.score.pairwise")
        with _quiet():
            found: Tensor = pairwise.compute_pairwise_scores_with_loaders(
                query_loader=queries, per_device_query_batch_size=1, **self._asked()
            )[_ALL]
        return found.cpu()[inverse(order)][:, inverse(self._order)]

    def squares(self) -> Tensor:
        """Return ``(training examples,)``."""
        own = require("kronfluence.score.self")
        with _quiet():
            found: Tensor = own.compute_self_scores_with_loaders(**self._asked())[_ALL]
        return found.cpu()[inverse(self._order)]

    def _asked(self) -> dict[str, Any]:
        return {
            "loaded_factors": self._factors,
            "model": self._module,
            "state": self._alone,
            "task": self._task,
            "train_loader": self._training,
            "score_args": self._score_args,
            "factor_args": self._factor_args,
            "tracked_module_names": list(self._task.names),
            "disable_tqdm": True,
        }

    def _batches(
        self, examples: Sequence[Any], labels: Tensor
    ) -> tuple[_Batches, list[int]]:
        batches, order = in_batches(self._reader, self._module, examples, labels)
        return _Batches(batches), order


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Take gradients, and hide a warning: kronfluence calls torch by an old name."""
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*GradScaler", FutureWarning)
        yield


class _Batches(list[tuple[Batch, Tensor]]):
    """Batches with their labels, in the form of a data loader."""

    @property
    def dataset(self) -> _Batches:
        """What is loaded."""
        return self


@dataclass(frozen=True)
class _Alone:
    """What kronfluence asks of its ``State``: one process, and the model's device."""

    device: torch.device
    is_main_process: bool = True
    use_distributed: bool = False
    num_processes: int = 1

    def wait_for_everyone(self) -> None:
        """Wait for nobody."""


@dataclass
class _Task:
    """The loss and the layers, in the form of kronfluence's ``Task``.

    Args:
        classes (int): How many classes there are.
        names (tuple of str): Names of the layers that count.
        enable_post_process_per_sample_gradient (bool): Whether gradients pass by here.
        generator (torch.Generator, optional): Draws labels. Default: None, the labels
            of a batch are classes in turn
    """

    classes: int
    names: tuple[str, ...]
    enable_post_process_per_sample_gradient: bool
    generator: torch.Generator | None = None

    def get_influence_tracked_modules(self) -> list[str]:
        """Return the names of the layers."""
        return list(self.names)

    def get_attention_mask(self, batch: tuple[Batch, Tensor]) -> Tensor | None:
        """Return which tokens are no padding, if there is any."""
        inputs = batch[0]
        return None if isinstance(inputs, Tensor) else inputs.get("attention_mask")

    def post_process_per_sample_gradient(
        self, module_name: str, gradient: Tensor
    ) -> Tensor:
        """Return a gradient as it is."""
        return gradient

    def compute_measurement(
        self, batch: tuple[Batch, Tensor], model: nn.Module
    ) -> Tensor:
        """Return the loss of a question."""
        return self.compute_train_loss(batch, model)

    def compute_train_loss(
        self, batch: tuple[Batch, Tensor], model: nn.Module, sample: bool = False
    ) -> Tensor:
        """Return the sum of losses, or one whose gradients make the Fisher.

        With every class in turn, a loss times the root of classes x probability: the
        mean of its squared gradients is the expectation over the model's labels.
        """
        inputs, labels = batch
        logits = run(model, inputs)
        if not sample:
            return nn.functional.cross_entropy(logits, labels, reduction="sum")
        shares = logits.detach().softmax(-1)
        if self.generator is not None:
            drawn = torch.multinomial(shares, 1, generator=self.generator).flatten()
            return nn.functional.cross_entropy(logits, drawn, reduction="sum")
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        weights = (self.classes * shares.gather(1, labels[:, None]).flatten()).sqrt()
        return (weights * losses).sum()


def _chosen(
    module: nn.Module,
    batch: Batch,
    runs: dict[str, int],
    layers: Literal["final", "all"] | Sequence[str],
) -> tuple[str, ...]:
    """Return the names of the layers that count, and that the logits depend on."""
    if layers == "final":
        return (find_final_layer(module, batch).name,)
    inside: Sequence[str] = [""] if layers == "all" else layers
    if isinstance(inside, str):
        raise UnitError(
            f"expected layers= to be 'final', 'all' or a list of names of modules, got "
            f"{layers!r}: write layers=[{layers!r}]"
        )
    known = dict(module.named_modules())
    for name in inside:
        if name not in known:
            raise UnitError(
                f"{type(module).__name__} has no module {name!r}."
                + suggestion(name, known)
            )
    names = [
        name
        for name in runs
        if any(name == one or not one or name.startswith(f"{one}.") for one in inside)
    ]
    weights: list[Any] = [module.get_submodule(name).weight for name in names]
    if weights:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            total = run(module, batch).sum()
        reached = torch.autograd.grad(total, weights, allow_unused=True)
        module.requires_grad_(False)
        names = [n for n, g in zip(names, reached, strict=True) if g is not None]
    if not names:
        raise UnitError(
            f"the logits depend on no nn.Linear, nn.Conv2d or Conv1D of "
            f"layers={layers!r}, and EK-FAC knows no other layer"
        )
    return tuple(names)


def _runs_of(module: nn.Module, batch: Batch) -> dict[str, int]:
    """Return how often each layer that EK-FAC knows runs in a pass, without others."""
    ran: dict[str, int] = {}

    def count(name: str) -> None:
        ran[name] = ran.get(name, 0) + 1

    handles = [
        layer.register_forward_hook(lambda *_, name=name: count(name))
        for name, layer in module.named_modules()
        # Subclasses may do something else with their weight.
        if type(layer) in (nn.Linear, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            run(module, batch)
    finally:
        for handle in handles:
            handle.remove()
    return ran


def _without_conv1d(module: nn.Module) -> nn.Module:
    """Write the ``Conv1D`` of GPT-2, a linear layer with its weight turned, as one."""
    turned = ("transformers.pytorch_utils", "Conv1D")
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if (type(child).__module__, type(child).__name__) == turned:
                old: Any = child
                inputs, outputs = old.weight.shape
                linear: Any = nn.Linear(inputs, outputs, device="meta")
                linear.weight = nn.Parameter(old.weight.T.contiguous(), False)
                linear.bias = old.bias
                setattr(parent, name, linear)
    return module
