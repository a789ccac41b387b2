"""What single architectures need beyond :mod:`.shrinking`, in one table.

Key: the model type. Fields are those of the configuration; ``a.b`` is field b of the
sub-configuration a. A function takes the :class:`~.shrinking.Sizes`. Names that begin
with ``!`` speak to the catalogue: ``!tokens`` is the length of the text.
"""

from __future__ import annotations

from typing import Any

OVERRIDES: dict[str, dict[str, Any]] = {
    "xlnet": {"d_inner": 48},
}
