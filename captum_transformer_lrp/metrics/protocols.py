"""Published protocols of faithfulness, all on the same perturbed inputs.

Where a paper leaves a choice open or its code departs from its text, the docstring says
what is done here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError, TargetError
from .measurement import Measurement
from .perturbation import (
    Output,
    PerturbationCurves,
    Perturbed,
    area,
    chosen_classes,
    keep_beyond,
    perturbation_curves,
    read_output,
)
from .ranking import checked_fractions, checked_valid, counts, ranks, units_of
from .replacement import Replacement, ValueReplacement, explained

if TYPE_CHECKING:
    from pandas import DataFrame

#: fractions of Chefer et al.: 10 % to 90 %
_TENTHS = tuple(k / 10 for k in range(1, 10))
#: bins of ERASER
_ERASER_BINS = (0.01, 0.05, 0.1, 0.2, 0.5)


def area_between_curves(
    forward_func: Callable[..., Any], inputs: Any, attributions: Tensor, **options: Any
) -> Measurement:
    """Return AttnLRP's faithfulness: the area LeRF - MoRF on the logit.

    Achtibat et al., ICML 2024, arXiv 2402.05602, Sec. 4.1; higher is better. The area
    is in units of the logit and follows the trapezoidal rule.

    Args:
        forward_func (Callable): as for
            :func:`~captum_transformer_lrp.metrics.perturbation_curves`.
        inputs (Tensor or Mapping): likewise.
        attributions (Tensor): likewise.
        **options (Any): its further arguments, but ``output``.
    """
    options = {**options, "output": "logit"}
    return perturbation_curves(forward_func, inputs, attributions, **options).delta


@dataclass(frozen=True, eq=False)
class CheferPerturbation:
    """Accuracy as pixels are taken away, by Chefer, Gur and Wolf.

    Attributes:
        positive (Measurement): area of the accuracy, most relevant first (lower is
            better).
        negative (Measurement): area, least relevant first (higher is better).
        curves (PerturbationCurves): the correctness, 0 or 1, of each example.
    """

    positive: Measurement
    negative: Measurement
    curves: PerturbationCurves

    def __str__(self) -> str:
        return f"{self.positive}\n{self.negative}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts, as JSON takes them."""
        return {
            "positive": self.positive.to_dict(),
            "negative": self.negative.to_dict(),
            "curves": self.curves.to_dict(),
        }

    def to_pandas(self) -> DataFrame:
        """Return the curves, a row per example, order and fraction."""
        return self.curves.to_pandas()


def chefer_perturbation(
    forward_func: Callable[..., Any],
    inputs: Any,
    attributions: Tensor,
    labels: Tensor,
    *,
    replacement: Replacement | None = None,
    valid: Tensor | None = None,
    steps: int | Sequence[float] = _TENTHS,
    additional_forward_args: Any = None,
    max_examples_per_batch: int = 256,
) -> CheferPerturbation:
    """Return the positive and negative area of Chefer, Gur and Wolf.

    CVPR 2021, arXiv 2012.09838, Sec. 4: the highest (positive) or lowest (negative) 10
    to 90 % of the pixels are taken away, and the curve is the top-1 accuracy against
    the true label. The area follows the trapezoidal rule over these fractions and is
    divided by their range, so that it is a mean accuracy between 0 and 1.

    Args:
        forward_func (Callable): as for
            :func:`~captum_transformer_lrp.metrics.perturbation_curves`.
        inputs (Tensor or Mapping): likewise.
        attributions (Tensor): one score per unit; the paper ranks pixels of an
            interpolated map, patches are much the same.
        labels (Tensor): the true classes, ``(examples,)``.
        replacement (Replacement, optional): the authors set pixels to 0 before the
            normalisation, black: ``ValueReplacement(-mean / std, "black")`` with
            ``mean`` and ``std`` of shape ``(channels, 1, 1)``. Default: None, 0 in what
            the model gets
        valid (Tensor, optional): as for ``perturbation_curves``. Default: None
        steps (int or sequence of float, optional): the fractions.
            Default: 0.1, 0.2, ..., 0.9
        additional_forward_args (Any, optional): passed on. Default: None
        max_examples_per_batch (int, optional): how many rows run at once.
            Default: 256
    """
    scores = units_of(attributions)
    valid = checked_valid(valid, scores, inputs)
    fractions = checked_fractions(steps)
    if len(fractions) < 2:
        raise InputError("an area needs at least two fractions")
    replacement = ValueReplacement() if replacement is None else replacement
    model = Perturbed(
        forward_func,
        inputs,
        replacement,
        additional_forward_args,
        max_examples_per_batch,
    )
    number = counts(fractions, valid).to(scores.device)
    correct = []
    for descending in (True, False):
        order = ranks(scores, valid, descending=descending)
        logits = model.logits(keep_beyond(order, number))
        classes, _ = chosen_classes(labels, logits[:, 0], model.whole)
        correct.append((logits.argmax(2) == classes[:, None]).double())
    settings = {
        "replacement": str(replacement),
        "output": "top-1 accuracy",
        "class": "true label",
    }
    curves = PerturbationCurves(fractions, correct[0], correct[1], settings)
    width = float(fractions[-1] - fractions[0])
    most, least = (area(fractions, c) / width for c in correct)
    return CheferPerturbation(
        Measurement("positive AUC", most, "lower", settings),
        Measurement("negative AUC", least, "higher", settings),
        curves,
    )


def insertion_auac(
    forward_func: Callable[..., Any],
    inputs: Any,
    attributions: Tensor,
    *,
    replacement: Replacement,
    target: int | Tensor,
    valid: Tensor | None = None,
    steps: int | Sequence[float] = 10,
    output: Output = "probability",
    additional_forward_args: Any = None,
    max_examples_per_batch: int = 256,
) -> Measurement:
    """Return the area under the activation curve of Ali et al. (higher is better).

    ICML 2022, arXiv 2202.07304, Sec. 5: all units start replaced, and the highest
    signed scores come back first. Their code replaces by [UNK], [CLS] and [SEP] too,
    and reads the probability of the true class: ``valid=attention_mask``,
    ``replacement=TokenReplacement.unknown(tokenizer)``, ``target=labels``.

    Args:
        forward_func (Callable): as for
            :func:`~captum_transformer_lrp.metrics.perturbation_curves`.
        inputs (Tensor or Mapping): likewise.
        attributions (Tensor): likewise.
        replacement (Replacement): what stands in the place of absent units.
        target (int or Tensor): the true class, or one for each example.
        valid (Tensor, optional): the units that start replaced; others always stay.
            Default: None, all that the ``attention_mask`` does not hide
        steps (int or sequence of float, optional): fractions of the units that are
            there. Default: 10
        output (str, optional): as for ``perturbation_curves``.
            Default: ``"probability"``
        additional_forward_args (Any, optional): passed on. Default: None
        max_examples_per_batch (int, optional): how many rows run at once.
            Default: 256
    """
    scores = units_of(attributions)
    valid = checked_valid(valid, scores, inputs)
    fractions = checked_fractions(steps)
    model = Perturbed(
        forward_func,
        inputs,
        replacement,
        additional_forward_args,
        max_examples_per_batch,
    )
    number = counts(fractions, valid).to(scores.device)
    order = ranks(scores, valid, descending=True)
    keep = ~keep_beyond(order, number) | ~valid[:, None]
    logits = model.logits(keep)
    classes, which = chosen_classes(target, logits[:, 0], model.whole)
    settings = {"replacement": str(replacement), "output": output, "class": which}
    values = area(fractions, read_output(logits, classes, output))
    return Measurement("AUAC", values, "higher", settings)


def au_mse(
    forward_func: Callable[..., Any],
    inputs: Any,
    attributions: Tensor,
    *,
    replacement: Replacement,
    valid: Tensor | None = None,
    steps: int | Sequence[float] = 10,
    additional_forward_args: Any = None,
    max_examples_per_batch: int = 256,
) -> Measurement:
    r"""Return the area under the pruning curve of Ali et al. (lower is better).

    ICML 2022, arXiv 2202.07304, Sec. 5: units of the smallest absolute scores are
    taken away first; the curve is :math:`\sum_k (z_k - z^0_k)^2` over all logits, with
    :math:`z^0` those of the whole input.

    Args:
        forward_func (Callable): as for
            :func:`~captum_transformer_lrp.metrics.perturbation_curves`.
        inputs (Tensor or Mapping): likewise.
        attributions (Tensor): likewise.
        replacement (Replacement): what stands where a unit is taken away.
        valid (Tensor, optional): as for ``perturbation_curves``. Default: None
        steps (int or sequence of float, optional): as there. Default: 10
        additional_forward_args (Any, optional): passed on. Default: None
        max_examples_per_batch (int, optional): how many rows run at once.
            Default: 256
    """
    scores = units_of(attributions)
    valid = checked_valid(valid, scores, inputs)
    fractions = checked_fractions(steps)
    model = Perturbed(
        forward_func,
        inputs,
        replacement,
        additional_forward_args,
        max_examples_per_batch,
    )
    number = counts(fractions, valid).to(scores.device)
    order = ranks(scores, valid, descending=False, by="absolute")
    logits = model.logits(keep_beyond(order, number))
    curves = (logits - model.whole()[:, None]).square().sum(2)
    settings = {"replacement": str(replacement), "output": "all logits"}
    return Measurement("AU-MSE", area(fractions, curves), "lower", settings)


@dataclass(frozen=True, eq=False)
class Eraser:
    """Comprehensiveness and sufficiency of ERASER, averaged over bins (AOPC).

    Attributes:
        comprehensiveness (Measurement): how much the score falls without the top units
            (higher is better).
        sufficiency (Measurement): how much it falls with the top units alone (lower is
            better).
        bins (Tensor): fractions of the units, ``(bins,)``.
        settings (Mapping): how it was measured.
    """

    comprehensiveness: Measurement
    sufficiency: Measurement
    bins: Tensor
    settings: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.comprehensiveness}\n{self.sufficiency}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts, as JSON takes them."""
        return {
            "comprehensiveness": self.comprehensiveness.to_dict(),
            "sufficiency": self.sufficiency.to_dict(),
            "bins": self.bins.tolist(),
        }

    def to_pandas(self) -> DataFrame:
        """Return a row per example with both values."""
        left = self.comprehensiveness.to_pandas()
        return left.merge(self.sufficiency.to_pandas(), on="example")


def eraser(
    forward_func: Callable[..., Any],
    inputs: Any,
    attributions: Tensor,
    *,
    replacement: Replacement,
    target: int | Tensor | None = None,
    valid: Tensor | None = None,
    bins: Sequence[float] = _ERASER_BINS,
    output: Output = "probability",
    additional_forward_args: Any = None,
    max_examples_per_batch: int = 256,
) -> Eraser:
    r"""Return comprehensiveness and sufficiency of ERASER.

    DeYoung et al., ACL 2020, arXiv 1911.03429, Eq. 1 and 2, with the top
    :math:`\lceil fT \rceil` units at each bin f: :math:`p(x) - p(x \setminus r)` and
    :math:`p(x) - p(r)`, each averaged over the bins. The authors drop the tokens:
    ``replacement=Drop()``.

    Args:
        forward_func (Callable): as for
            :func:`~captum_transformer_lrp.metrics.perturbation_curves`.
        inputs (Tensor or Mapping): likewise.
        attributions (Tensor): likewise.
        replacement (Replacement): what stands where a unit is taken away.
        target (int or Tensor, optional): the class. Default: None, the predicted one
        valid (Tensor, optional): as for ``perturbation_curves``. Default: None
        bins (sequence of float, optional): fractions of the units, increasing.
            Default: 0.01, 0.05, 0.1, 0.2, 0.5
        output (str, optional): as for ``perturbation_curves``.
            Default: ``"probability"``
        additional_forward_args (Any, optional): passed on. Default: None
        max_examples_per_batch (int, optional): how many rows run at once.
            Default: 256
    """
    scores = units_of(attributions)
    valid = checked_valid(valid, scores, inputs)
    fractions = checked_fractions(list(bins))
    model = Perturbed(
        forward_func,
        inputs,
        replacement,
        additional_forward_args,
        max_examples_per_batch,
    )
    number = counts(fractions, valid).to(scores.device)
    order = ranks(scores, valid, descending=True)
    without = keep_beyond(order, number)
    alone = ~without | ~valid[:, None]
    whole = model.whole()[:, None]
    classes, which = chosen_classes(target, whole[:, 0], model.whole)
    base, absent, present = (
        read_output(logits, classes, output)
        for logits in (whole, model.logits(without), model.logits(alone))
    )
    settings = {
        "replacement": str(replacement),
        "output": output,
        "class": which,
        "bins": ", ".join(f"{float(f):g}" for f in fractions),
    }
    return Eraser(
        Measurement("comprehensiveness", (base - absent).mean(1), "higher", settings),
        Measurement("sufficiency", (base - present).mean(1), "lower", settings),
        fractions,
        settings,
    )


def leave_one_out(
    forward_func: Callable[..., Any],
    inputs: Any,
    *,
    replacement: Replacement,
    units: tuple[int, ...],
    target: int | Tensor | None = None,
    valid: Tensor | None = None,
    output: Output = "probability",
    additional_forward_args: Any = None,
    max_examples_per_batch: int = 256,
) -> Tensor:
    """Return how much the score falls where each unit alone is taken away.

    An attribution by itself (occlusion), and what the rank correlation tau-LOO compares
    an attribution with: ``rank_agreement(scores, leave_one_out(...), kind="kendall")``.

    Args:
        forward_func (Callable): as for
            :func:`~captum_transformer_lrp.metrics.perturbation_curves`.
        inputs (Tensor or Mapping): likewise.
        replacement (Replacement): what stands where a unit is taken away.
        units (tuple of int): shape of the units of one example: ``(tokens,)``, or
            ``(rows, columns)`` of patches.
        target (int or Tensor, optional): the class. Default: None, the predicted one
        valid (Tensor, optional): as for ``perturbation_curves``; other units get 0.
            Default: None
        output (str, optional): as for ``perturbation_curves``.
            Default: ``"probability"``
        additional_forward_args (Any, optional): passed on. Default: None
        max_examples_per_batch (int, optional): how many rows run at once.
            Default: 256

    Returns:
        *Tensor*: ``(examples, *units)``, float64.
    """
    model = Perturbed(
        forward_func,
        inputs,
        replacement,
        additional_forward_args,
        max_examples_per_batch,
    )
    if len(units) not in (1, 2) or min(units) < 1:
        raise InputError(f"expected units= (tokens,) or (rows, columns), got {units}")
    blank = torch.zeros(model.examples, *units, device=explained(inputs).device)
    valid = checked_valid(valid, blank, inputs)
    number = blank[0].numel()
    one_out = ~torch.eye(number, dtype=torch.bool, device=blank.device)
    keep = one_out.view(number, *units).expand(model.examples, number, *units)
    whole = model.whole()[:, None]
    if target is None and whole.shape[2] < 2:
        raise TargetError("one score per example has no predicted class: pass target=0")
    classes, _ = chosen_classes(target, whole[:, 0], model.whole)
    logits = model.logits(keep | ~valid[:, None])
    falls = read_output(whole, classes, output) - read_output(logits, classes, output)
    return falls.view(model.examples, *units)
