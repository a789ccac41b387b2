"""What can be kept in a file and comes back as it was, beside being shown."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from ..report import saving
from ..report.shown import Shown, Theme
from .files import SUFFIXES, write


class Storable(Shown):
    """A result that shows itself and says what it is by :meth:`to_dict`."""

    suffixes: ClassVar[tuple[str, ...]] = (*saving.SUFFIXES, *SUFFIXES)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return what a file keeps of it, as Python objects."""

    def save(self, path: str | Path, *, theme: Theme = "light", dpi: int = 160) -> Path:
        """Write it by the suffix of ``path``.

        .html, .png, .pdf and .svg are for readers; .json, .safetensors and .parquet
        keep all of it for :func:`~captum_transformer_lrp.load`.

        Args:
            path (str or Path): The file.
            theme (str, optional): ``"light"`` or ``"dark"`` of a picture; HTML has both
                and follows its reader. Default: ``"light"``
            dpi (int, optional): Pixels per inch of a PNG. Default: 160

        Returns:
            *Path*: The file that was written.

        Raises:
            UnknownNameError: The suffix or the theme is another one.
            InputError: A score is NaN or infinite.
            MissingPackageError: The package that writes such files is not installed.
        """
        if saving.check_suffix(path, self.suffixes) in SUFFIXES:
            return write(Path(path), [self.to_dict()], several=False)
        return super().save(path, theme=theme, dpi=dpi)
