"""Which kinds of file pictures can be saved as."""

from __future__ import annotations

from pathlib import Path

from ..errors import UnknownNameError

SUFFIXES = (".html", ".png", ".pdf", ".svg")


def check_suffix(path: str | Path, suffixes: tuple[str, ...] = SUFFIXES) -> str:
    """Return the suffix of a file in lower case.

    Args:
        path (str or Path): The file.
        suffixes (tuple of str, optional): Those that can be written.
            Default: .html, .png, .pdf, .svg

    Raises:
        UnknownNameError: The suffix is another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise UnknownNameError(
            f"cannot save as {Path(path).name!r}: the suffix chooses the format, "
            f"one of {', '.join(suffixes)}"
        )
    return suffix
