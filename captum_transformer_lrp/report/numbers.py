"""How scores are written: one precision for all numbers of an explanation."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ScoreFormat:
    """Write scores with the precision that their largest magnitude deserves.

    Args:
        limit (float): The largest magnitude among the scores.
        signed (bool): Whether a positive score gets a plus sign. Default: True
    """

    limit: float
    signed: bool = True

    def __call__(self, score: float) -> str:
        """Return the score as text; three digits for the largest."""
        sign = "+" if self.signed else ""
        magnitude = math.floor(math.log10(self.limit)) if self.limit > 0 else 0
        if not -4 <= magnitude <= 5:
            written = f"{score:{sign}.2e}"
        else:
            decimals = max(0, 2 - magnitude)
            written = f"{score:{sign}.{decimals}f}"
            if float(written) == 0:
                written = f"{0:.{decimals}f}"
        return written.replace("-", "−")
