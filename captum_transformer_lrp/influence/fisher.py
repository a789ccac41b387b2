"""The inverse empirical Fisher: gradients apart from what all have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.loading import ImageModel, TextModel
from .ranking import GradientInfluence
from .reading import OpenedExamples, open_examples
from .tracing import Gradients, gradients_of


def empirical_fisher(
    model: str | Path | nn.Module | TextModel | ImageModel | None,
    processor: Any,
    examples: Sequence[Any],
    labels: Sequence[int | str],
    *,
    layers: Literal["final", "all"] | Sequence[str] = "all",
    damping: float | None = None,
    batch_size: int = 32,
) -> EmpiricalFisher:
    r"""Estimate what a model without a training example would say, from its gradients.

    The influence of the training example :math:`z` on the example :math:`z'` is

    .. math:: \nabla L(z') \cdot (F + \lambda)^{-1} \nabla L(z) \qquad
        F = \frac{1}{n} \sum_i \nabla L(z_i) \nabla L(z_i)^\top

    with :math:`L` the cross entropy, over the n training examples: an influence
    function (Koh and Liang 2017, arXiv:1703.04730, equation 2) with the empirical
    Fisher information in the place of the Hessian. Nothing is assumed of the layers,
    and no matrix over parameters is made: with :math:`K_{ij} = \nabla L(z_i) \cdot
    \nabla L(z_j)` it is row :math:`z'` of :math:`n K (K + n \lambda)^{-1}`. Positive is
    what lowered the loss of :math:`z'`. It needs the model at the end of its training,
    and no checkpoints.

    K is made by Captum's ``TracInCP``, now: a backward pass for each training example,
    repeated for every GiB that all their gradients take together (or for every
    ``batch_size`` of them, where those take more). Where that is too long, take
    :func:`ekfac`.

    Args:
        model (nn.Module, str, Path, TextModel or ImageModel): As for
            :func:`~captum_transformer_lrp.influence.tracin`; it is copied.
        processor (Any): The tokenizer or transform, as there.
        examples (Sequence of str, PIL.Image.Image, Path or Tensor): The training texts
            or pictures.
        labels (Sequence of int or str): Their classes, by index or name.
        layers (str or Sequence of str, optional): Whose parameters the gradients are
            of, as for :func:`~captum_transformer_lrp.influence.tracin`. Default:
            ``"all"``
        damping (float, optional): :math:`\lambda`. Default: None, a thousandth of the
            mean eigenvalue of :math:`F` among the n that may differ from zero
        batch_size (int, optional): How many examples go through the model at once.
            Default: 32

    Returns:
        *EmpiricalFisher*, with ``proponents``, ``opponents``, ``self_influence``,
        ``scores``.

    Raises:
        InputError: Numbers of examples and labels do not agree; the damping is not
            positive, or too small for the precision; all gradients are zero, or one is
            not finite; the model is no classifier with classes that exclude each other.
        TargetError: The model has no class of a label.
        OutputError: The final layer is not what makes the logits.
        UnitError: There is no final layer, or no module of a given name.
    """
    if damping is not None and damping <= 0:
        raise InputError(f"expected damping= above 0, got {damping}")
    opened = open_examples(model, processor, examples, labels, batch_size)
    gradients = gradients_of(opened, examples, layers)
    return EmpiricalFisher(opened, examples, gradients, damping)


class EmpiricalFisher(GradientInfluence):
    """Influence under the inverse empirical Fisher; see :func:`empirical_fisher`."""

    measure = (
        "inverse empirical Fisher: product of the loss gradients under the inverse of "
        "their second moment; positive lowered the loss of this prediction"
    )

    def __init__(
        self,
        opened: OpenedExamples,
        examples: Sequence[Any],
        gradients: Gradients,
        damping: float | None,
    ) -> None:
        super().__init__(opened, examples)
        self._gradients = gradients
        (products,) = gradients.products(examples, opened.labels).double()
        self._products = (products + products.T) / 2
        count = len(products)
        mean = float(self._products.diagonal().mean())
        if not math.isfinite(mean):
            raise InputError("a loss gradient of the training examples is not finite")
        if mean == 0:
            raise InputError(
                "all loss gradients of the training examples are zero: the model is "
                "certain of every label, and nothing tells the examples apart"
            )
        added = 1e-3 * mean if damping is None else count * damping
        eye = torch.eye(count, dtype=torch.float64)
        self._factor, failed = torch.linalg.cholesky_ex(self._products + added * eye)
        if int(failed):
            raise InputError(
                f"damping={damping} is too small for gradients of this precision: "
                f"expected about {1e-3 * mean / count:.2g} (the default) or more"
            )

    def _scores(self, examples: Sequence[Any], targets: Tensor) -> Tensor:
        (asked,) = self._gradients.products(examples, targets)
        return self._solved(asked.double()).to(asked.dtype)

    def _self_influence(self) -> Tensor:
        return self._solved(self._products).diagonal()

    def _solved(self, products: Tensor) -> Tensor:
        """Return products with the training examples under the inverse."""
        solved = torch.cholesky_solve(products.T, self._factor).T
        return len(self._factor) * solved
