"""What every metric returns: values per example, their mean, and its standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from .._packages import require
from ..errors import InputError

if TYPE_CHECKING:
    from pandas import DataFrame

Better = Literal["higher", "lower", "zero"]


@dataclass(frozen=True, eq=False)
class Measurement:
    """One metric, measured on a number of examples.

    Args:
        name (str): what was measured.
        values (Tensor): one value for each example, ``(examples,)``, kept in float64 on
            the CPU. Of scores that belong to the whole data set (pixel accuracy, mIoU)
            these are :func:`jackknife` values: their mean is the score, and their
            standard error is the jackknife's.
        better (str): which values are good: ``"higher"``, ``"lower"`` or ``"zero"``.
        settings (Mapping, optional): how it was measured: what replaced a unit, which
            output and class were looked at. Default: empty
        unit (str, optional): the unit of the values. Default: ``""``, none

    Raises:
        InputError: if there are no values, or more than one dimension of them.
    """

    name: str
    values: Tensor
    better: Better
    settings: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""

    def __post_init__(self) -> None:
        """Keep the values in double precision, apart from any graph."""
        if self.values.dim() != 1 or not len(self.values):
            raise InputError(
                f"{self.name}: expected one value per example, shape (examples,), got "
                f"{tuple(self.values.shape)}"
            )
        object.__setattr__(self, "values", self.values.detach().cpu().double())
        object.__setattr__(self, "settings", dict(self.settings))

    @property
    def n(self) -> int:
        """The number of examples."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """The mean over the examples."""
        return float(self.values.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean: the standard deviation over the root of n; NaN for one value."""
        if self.n < 2:
            return math.nan
        return float(self.values.std(correction=1)) / math.sqrt(self.n)

    def minus(self, other: Measurement) -> Difference:
        """Return the paired difference to another method on the same examples.

        Args:
            other (Measurement): the same metric, measured in the same way on the same
                examples in the same order.

        Raises:
            InputError: if the metrics, their settings or the numbers of examples
                differ.
        """
        if self.name != other.name or self.settings != other.settings:
            raise InputError(
                "a paired difference is between two results of one metric measured in "
                f"one way, got {self._described()} and {other._described()}"
            )
        if self.n != other.n:
            raise InputError(
                f"a paired difference needs the same examples, got {self.n} and "
                f"{other.n} values of {self.name}"
            )
        return Difference(
            self.name, self.values - other.values, self.better, self.settings, self.unit
        )

    def subset(self, examples: Tensor) -> Measurement:
        """Return the measurement on some of the examples.

        Args:
            examples (Tensor): indices ``(chosen,)``, or a mask ``(examples,)``.
        """
        return type(self)(
            self.name,
            self.values[examples.cpu()],
            self.better,
            self.settings,
            self.unit,
        )

    def _described(self) -> str:
        settings = ", ".join(f"{key}: {value}" for key, value in self.settings.items())
        return f"{self.name} ({settings})" if settings else self.name

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self._described()}: {self.mean:.3f} ± {self.standard_error:.3f}{unit} "
            f"(mean ± standard error, n = {self.n}; {self.better} is better)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and texts, as JSON takes them."""
        return {
            "name": self.name,
            "mean": self.mean,
            "standard_error": None if self.n < 2 else self.standard_error,
            "n": self.n,
            "better": self.better,
            "unit": self.unit,
            "settings": dict(self.settings),
            "values": self.values.tolist(),
        }

    def to_pandas(self) -> DataFrame:
        """Return a table of one row per example: ``example`` and the metric's name."""
        pandas = require("pandas")
        values = self.values.numpy()
        return pandas.DataFrame({"example": range(self.n), self.name: values})


@dataclass(frozen=True, eq=False)
class Difference(Measurement):
    """A paired difference: one method minus another, example by example."""

    def __str__(self) -> str:
        return (
            f"difference in {self._described()}: {self.mean:+.3f} ± "
            f"{self.standard_error:.3f} (paired, n = {self.n})"
        )


def doubles(values: Sequence[float]) -> Tensor:
    """Return numbers as a tensor in the precision in which they are kept."""
    return torch.tensor(values, dtype=torch.float64)


def jackknife(
    total: float, without: Tensor, *, name: str, better: Better, **fields: Any
) -> Measurement:
    r"""Return a score of the whole data set as one value per example.

    With the score :math:`\theta` and the same score with example i left out,
    :math:`\theta_{-i}`, the values are :math:`\theta + (n - 1)(\bar\theta_{-} -
    \theta_{-i})`: pseudo-values (Tukey 1958) moved so that their mean is the score.

    Args:
        total (float): the score over all examples.
        without (Tensor): the score with each example left out, ``(examples,)``.
        name (str): as for :class:`Measurement`.
        better (str): as for :class:`Measurement`.
        **fields (Any): further fields of :class:`Measurement`.
    """
    without = without.double()
    values = total + (len(without) - 1) * (without.mean() - without)
    return Measurement(name, torch.atleast_1d(values), better, **fields)
