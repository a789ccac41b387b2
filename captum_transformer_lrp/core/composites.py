"""A method is its table: what it does with each kind of operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..report.rows import ShownRows
from .registry import Key, Row, check_key, check_row, key_name, registry
from .rules.attention import (
    ConstantPattern,
    ConstantScan,
    UniformAttention,
    UniformScan,
)
from .rules.base import needs_relevance
from .rules.elementwise import ConstantFactor, Identity, Power
from .rules.linear import (
    ConstantDenominator,
    Detach,
    GatedProduct,
    HalfGradient,
    PlainGradient,
    UniformProduct,
)
from .rules.norm import ConstantScale


@dataclass(frozen=True)
class Composite(ShownRows):
    """A named table from kinds, operators and modules to rules.

    Args:
        name (str): how the method is called.
        rows (Mapping): key -> rule (or kind). Keys are kinds (``"softmax"``), operators
            (``"gelu"``), module classes or their qualified names, predicates, and
            :class:`~.registry.ModuleName` patterns; the more specific key wins.
        source (str, optional): paper and equation. Default: ``""``
        unknown (str, optional): what happens to a differentiable operator without a
            row: ``"raise"``, ``"warn"`` or ``"gradient"``. Default: ``"raise"``
        carries (str, optional): what autograd's gradient stands for in this table:
            ``"relevance over input"`` (R / x; relevance is input times gradient) or
            ``"relevance"`` (R itself, for rules whose relevance is no multiple of the
            input; relevance is the gradient, and the seed is 1).
            Default: ``"relevance over input"``

    Attributes:
        converts (bool): a row of a table of the form R / x is a rule that only knows
            relevance (``rules.Flat``, ``rules.ZBox``, ...). The table
            then carries relevance, from the score as seed, and all other rules are
            converted (:mod:`..carried.convert`): any rules may stand side by side.
    """

    name: str
    rows: Mapping[Any, Row]
    source: str = ""
    unknown: Literal["raise", "warn", "gradient"] = "raise"
    carries: Literal["relevance over input", "relevance"] = "relevance over input"
    converts: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        """Check every row.

        Raises:
            UnknownNameError: if a plain name is neither a kind nor an operator.
            TypeError: if a row is neither a rule nor a kind.
        """
        for key, row in self.rows.items():
            check_row(key, row)
            check_key(key, registry)
        object.__setattr__(self, "rows", dict(self.rows))
        if self.carries != "relevance" and any(
            map(needs_relevance, self.rows.values())
        ):
            object.__setattr__(self, "carries", "relevance")
            object.__setattr__(self, "converts", True)

    def with_rules(self, rows: Mapping[Any, Row]) -> Composite:
        """Return a copy in which ``rows`` are added or replaced.

        Raises:
            UnknownNameError, TypeError: as for the constructor.
        """
        carries = "relevance over input" if self.converts else self.carries
        return replace(self, rows={**self.rows, **rows}, carries=carries)

    def __hash__(self) -> int:
        return hash((self.name, *self.rows.items(), self.unknown, self.carries))

    def printed_rows(self) -> list[tuple[str, str]]:
        """Return the rows as they are printed."""
        return [(key_name(key), repr(row)) for key, row in self.rows.items()]


#: rows that every method for transformers shares
_SHARED: dict[Key, Row] = {
    "lookup": PlainGradient(),
    "structural": PlainGradient(),
    "additive": PlainGradient(),
    "activation": Identity(),
    "power": Power(),
    "normalization": ConstantScale(),
    "rescaling": ConstantFactor(),
    "normalizer": Detach(),
    "variance": HalfGradient(),
    "step": Detach(),
}

#: of the softmax family those that make scores to explain, not patterns
_SCORES = ("log_softmax", "_log_softmax", "special_log_softmax")

ATTN_LRP = Composite(
    "AttnLRP",
    {
        **_SHARED,
        "product": UniformProduct(),
        "softmax": PlainGradient(),
        "exponential": PlainGradient(),
        "attention": UniformAttention(),
        "scan": UniformScan(),
        "quotient": ConstantDenominator(own_sum="gradient"),
    },
    source="Achtibat et al., ICML 2024, arXiv 2402.05602",
)

CP_LRP = Composite(
    "CP-LRP",
    {
        **_SHARED,
        "product": GatedProduct(),
        "softmax": Detach(),
        **dict.fromkeys(_SCORES, PlainGradient()),
        "exponential": Detach(),
        "attention": ConstantPattern(),
        "scan": ConstantScan(),
        "quotient": ConstantDenominator(),
    },
    source="Ali et al., ICML 2022, arXiv 2202.07304",
)


GRADIENT_X_INPUT = Composite(
    "Gradient x Input",
    {},
    source="Shrikumar et al. 2016, arXiv 1605.01713",
    unknown="gradient",
)
