"""Which kinds of file the pictures of hidden states can be saved as."""

from __future__ import annotations

from pathlib import Path

from ...errors import UnknownNameError


def check_suffix(path: str | Path, suffixes: tuple[str, ...]) -> str:
    """Return the suffix of a file in lower case.

    Args:
        path (str or Path): The file.
        suffixes (tuple of str): Those that can be written.

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
