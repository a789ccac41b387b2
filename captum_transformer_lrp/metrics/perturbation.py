"""Perturbation curves: how the score changes as units are taken away by their rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from .._forms import call_with
from .._packages import require
from ..errors import InputError, ModelStateError, OutputError, TargetError
from ..models.prediction import select_logits
from .measurement import Measurement
from .ranking import RankBy, checked_fractions, checked_valid, counts, ranks, units_of
from .replacement import Replacement, explained

if TYPE_CHECKING:
    from pandas import DataFrame

Output = Literal["probability", "logit", "margin"]


@dataclass(frozen=True, eq=False)
class PerturbationCurves:
    """The score as units are taken away, most and least relevant first.

    Attributes:
        fractions (Tensor): of the units that were taken away, ``(steps,)``.
        most_relevant_first (Tensor): the score, ``(examples, steps)``, in float64.
        least_relevant_first (Tensor): likewise, in the opposite order.
        settings (Mapping): what replaced a unit, which output and class were read.
    """

    fractions: Tensor
    most_relevant_first: Tensor
    least_relevant_first: Tensor
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def morf(self) -> Measurement:
        """The area under the curve, most relevant first (lower is better)."""
        return self._area("MoRF", self.most_relevant_first, "lower")

    @property
    def lerf(self) -> Measurement:
        """The area under the curve, least relevant first (higher is better)."""
        return self._area("LeRF", self.least_relevant_first, "higher")

    @property
    def delta(self) -> Measurement:
        """The area between the curves, LeRF - MoRF (higher is better)."""
        between = self.least_relevant_first - self.most_relevant_first
        return self._area("Delta", between, "higher")

    def _area(
        self, name: str, curves: Tensor, better: Literal["higher", "lower"]
    ) -> Measurement:
        return Measurement(name, area(self.fractions, curves), better, self.settings)

    def __str__(self) -> str:
        return "\n".join(map(str, (self.morf, self.lerf, self.delta)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts, as JSON takes them."""
        return {
            "settings": dict(self.settings),
            "fractions": self.fractions.tolist(),
            "most_relevant_first": self.most_relevant_first.tolist(),
            "least_relevant_first": self.least_relevant_first.tolist(),
            "measurements": [m.to_dict() for m in (self.morf, self.lerf, self.delta)],
        }

    def to_pandas(self) -> DataFrame:
        """Return a row per example, order and fraction, with its ``score``."""
        pandas = require("pandas")
        examples, steps = self.most_relevant_first.shape
        tables = [
            pandas.DataFrame(
                {
                    "example": torch.arange(examples).repeat_interleave(steps).numpy(),
                    "order": order,
                    "fraction": self.fractions.repeat(examples).numpy(),
                    "score": curves.flatten().numpy(),
                }
            )
            for order, curves in (
                ("MoRF", self.most_relevant_first),
                ("LeRF", self.least_relevant_first),
            )
        ]
        return pandas.concat(tables, ignore_index=True)


def perturbation_curves(
    forward_func: Callable[..., Any],
    inputs: Any,
    attributions: Tensor,
    *,
    replacement: Replacement,
    target: int | Tensor | None = None,
    additional_forward_args: Any = None,
    valid: Tensor | None = None,
    steps: int | Sequence[float] = 10,
    output: Output = "probability",
    rank_by: RankBy = "signed",
    max_examples_per_batch: int = 256,
) -> PerturbationCurves:
    r"""Take units away by rank, in both orders, and read the score at each fraction.

    At a fraction f of T units, the :math:`\lceil fT \rceil` of the highest (MoRF) or
    lowest (LeRF) scores are replaced. The areas follow the trapezoidal rule; Delta =
    LeRF - MoRF is what AttnLRP reports on the logit (Achtibat et al., ICML 2024, arXiv
    2402.05602, Sec. 4.1) and the symmetric relevance gain of Blücher et al. (TMLR 2024,
    arXiv 2401.06654).

    Args:
        forward_func (Callable): the model in eval mode, or a function of it, that
            returns scores ``(rows, classes)`` or ``(rows,)``, or an output with
            ``.logits``.
        inputs (Tensor or Mapping): token ids, embeddings, features or pixels, examples
            first, or a tokenizer's mapping.
        attributions (Tensor): one score per unit, of any method: ``(examples,
            tokens)``, or ``(examples, rows, columns)`` of patches.
        replacement (Replacement): what stands where a unit is taken away.
        target (int or Tensor, optional): the class, or one for each example.
            Default: None, the class that the model predicts for the whole input
        additional_forward_args (Any, optional): passed on after the inputs; tensors of
            as many rows as examples are repeated with them. Default: None
        valid (Tensor, optional): bool, of the shape of the scores: the units that are
            ranked. The others stay where they are: see
            :func:`~captum_transformer_lrp.metrics.rankable` for special tokens.
            Default: None, all that the ``attention_mask`` does not hide
        steps (int or sequence of float, optional): how many equal steps lead from 0 to
            1, or the fractions. Default: 10
        output (str, optional): the ``"probability"`` of the class, its ``"logit"``, or
            the ``"margin"`` of the logit over the best other class.
            Default: ``"probability"``
        rank_by (str, optional): rank ``"signed"`` or ``"absolute"`` scores.
            Default: ``"signed"``
        max_examples_per_batch (int, optional): how many rows run at once.
            Default: 256

    Raises:
        InputError: if shapes, units or options do not fit.
        TargetError: if there is no such class.
        OutputError: if the model returns no score per row and class.
        ModelStateError: if the model is in training mode.
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
    kept = [
        keep_beyond(ranks(scores, valid, descending=descending, by=rank_by), number)
        for descending in (True, False)
    ]
    logits = model.logits(torch.cat(kept, 1))
    classes, which = chosen_classes(target, logits[:, 0], model.whole)
    read = read_output(logits, classes, output)
    most, least = read.split(len(fractions), 1)
    settings = {
        "replacement": str(replacement),
        "output": output,
        "class": which,
        "ranked by": f"{rank_by} scores",
        "fractions": _listed(fractions),
    }
    return PerturbationCurves(fractions, most, least, settings)


def area(fractions: Tensor, curves: Tensor) -> Tensor:
    """Return the area under curves ``(..., steps)``, by the trapezoidal rule."""
    return torch.trapezoid(curves, fractions.to(curves), dim=-1)


def keep_beyond(positions: Tensor, number: Tensor) -> Tensor:
    """Return the units that stay where the first ``number`` are taken away.

    Args:
        positions (Tensor): of each unit in the order, ``(examples, *units)``.
        number (Tensor): ``(examples, steps)``.

    Returns:
        *Tensor*: bool, ``(examples, steps, *units)``.
    """
    shape = *number.shape, *[1] * (positions.dim() - 1)
    return positions[:, None] >= number.view(shape)


class Perturbed:
    """A model and its inputs, run with some of the units taken away.

    Args:
        forward_func (Callable): as for :func:`perturbation_curves`.
        inputs (Tensor or Mapping): as for :func:`perturbation_curves`.
        replacement (Replacement): as for :func:`perturbation_curves`.
        additional_forward_args (Any): as for :func:`perturbation_curves`.
        max_examples_per_batch (int): as for :func:`perturbation_curves`.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Any,
        replacement: Replacement,
        additional_forward_args: Any = None,
        max_examples_per_batch: int = 256,
    ) -> None:
        if isinstance(forward_func, nn.Module) and forward_func.training:
            raise ModelStateError(
                f"{type(forward_func).__name__} is in training mode, where dropout "
                "changes every score: call model.eval() first"
            )
        if not isinstance(replacement, Replacement):
            raise InputError(
                "expected replacement= to be a Replacement, such as "
                f"TokenReplacement.mask(tokenizer), got {type(replacement).__name__}"
            )
        if max_examples_per_batch < 1:
            raise InputError(
                "expected max_examples_per_batch= of at least 1, got "
                f"{max_examples_per_batch}"
            )
        self.forward_func = forward_func
        self.inputs = inputs
        self.replacement = replacement
        arguments = additional_forward_args
        if arguments is None:
            arguments = ()
        self.arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        if self.arguments and isinstance(inputs, Mapping):
            raise InputError(
                "inputs= is a mapping, which is passed by keyword: put what else the "
                "model needs into it instead of additional_forward_args="
            )
        self.rows = max_examples_per_batch
        self.examples = len(explained(inputs))

    def whole(self) -> Tensor:
        """Return the scores of the inputs as they are, ``(examples, classes)``."""
        every = torch.arange(self.examples)
        parts = [self._run(rows, None) for rows in every.split(self.rows)]
        return torch.cat(parts)

    def logits(self, keep: Tensor) -> Tensor:
        """Return the scores in float64, ``(examples, steps, classes)``.

        Args:
            keep (Tensor): bool, ``(examples, steps, *units)``: the units that stay.
        """
        examples, steps = keep.shape[:2]
        if examples != self.examples:
            raise InputError(
                f"there are scores for {examples} examples and inputs for "
                f"{self.examples}"
            )
        example = torch.arange(examples, device=keep.device).repeat_interleave(steps)
        wanted = torch.cat([example[:, None], keep.flatten(0, 1).flatten(1)], 1)
        # Orders share their ends and short inputs many steps: each is run once.
        unique, place = wanted.unique(dim=0, return_inverse=True)
        parts = [
            self._run(part[:, 0].cpu(), part[:, 1:].bool().unflatten(1, keep.shape[2:]))
            for part in unique.split(self.rows)
        ]
        logits: Tensor = torch.cat(parts)[place.cpu()]
        return logits.view(examples, steps, -1)

    def _run(self, rows: Tensor, keep: Tensor | None) -> Tensor:
        def repeated(value: Any) -> Any:
            along = isinstance(value, Tensor) and value.dim() > 0
            if along and len(value) == self.examples:
                return value[rows.to(value.device)]
            return value

        inputs: Any
        if isinstance(self.inputs, Mapping):
            inputs = {key: repeated(value) for key, value in self.inputs.items()}
        else:
            inputs = repeated(self.inputs)
        if keep is not None:
            inputs = self.replacement(inputs, keep.to(explained(inputs).device))
        arguments = tuple(repeated(value) for value in self.arguments)
        with torch.no_grad():
            output = call_with(self.forward_func, inputs, arguments)
        scores = select_logits(output)
        if scores.dim() == 1:
            scores = scores[:, None]
        if scores.dim() != 2 or len(scores) != len(rows):
            raise OutputError(
                f"expected scores of shape ({len(rows)}, classes) for {len(rows)} "
                f"rows, got {tuple(scores.shape)}"
            )
        scores = scores.detach().cpu().double()
        if not bool(scores.isfinite().all()):
            raise OutputError(
                f"the model returned NaN or infinity for inputs whose units are "
                f"replaced ({self.replacement})"
            )
        return scores


def chosen_classes(
    target: int | Tensor | None, scores: Tensor, whole: Callable[[], Tensor]
) -> tuple[Tensor, str]:
    """Return the class of each example, and how it was chosen.

    Args:
        target (int, Tensor or None): as for :func:`perturbation_curves`.
        scores (Tensor): ``(examples, classes)``, any.
        whole (Callable): returns the scores of the unperturbed inputs.
    """
    examples, number = scores.shape
    if target is None:
        return whole().argmax(1), "predicted"
    classes = torch.as_tensor(target).cpu()
    if classes.is_floating_point() or classes.dtype == torch.bool:
        raise TargetError(f"expected class indices, got {classes.dtype}")
    if classes.dim() > 1 or (classes.dim() == 1 and len(classes) != examples):
        raise TargetError(
            f"expected one class, or one for each of {examples} examples, got "
            f"target= of shape {tuple(classes.shape)}"
        )
    classes = classes.expand(examples).long()
    if bool((classes < 0).any() or (classes >= number).any()):
        raise TargetError(
            f"the model has classes 0 to {number - 1}, got target={classes.tolist()}"
        )
    return classes, "given"


def read_output(logits: Tensor, classes: Tensor, output: Output) -> Tensor:
    """Return what is read of scores.

    Args:
        logits (Tensor): ``(examples, steps, classes)``.
        classes (Tensor): ``(examples,)``.
        output (str): as for :func:`perturbation_curves`.

    Returns:
        *Tensor*: ``(examples, steps)``.
    """
    index = classes[:, None, None].expand(*logits.shape[:2], 1)
    if output == "logit":
        return logits.gather(2, index)[..., 0]
    if output not in ("probability", "margin"):
        raise InputError(
            f"expected output= 'probability', 'logit' or 'margin', got {output!r}"
        )
    if logits.shape[2] < 2:
        raise OutputError(f"one score per example has no {output}: pass output='logit'")
    if output == "probability":
        return logits.softmax(2).gather(2, index)[..., 0]
    others = logits.scatter(2, index, -torch.inf).amax(2)
    return logits.gather(2, index)[..., 0] - others


def _listed(fractions: Tensor) -> str:
    if len(fractions) > 1 and torch.allclose(
        fractions.diff(), fractions.diff()[0].expand(len(fractions) - 1)
    ):
        first, last = float(fractions[0]), float(fractions[-1])
        return f"{len(fractions)} from {first:g} to {last:g}"
    return ", ".join(f"{float(f):g}" for f in fractions)
