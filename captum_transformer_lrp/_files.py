"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield the name of a file that takes the place of another in the end.

    If the block raises, or the process dies, what stood at ``path`` is still there. A
    link is followed, and keeps its place; what is no file (a pipe) is written directly.

    Args:
        path (str or Path): what is to be written.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
    except BaseException:
        with suppress(FileNotFoundError):
            part.unlink()
        raise


def write(path: str | Path, content: str | bytes) -> None:
    """Write text, in UTF-8, or bytes: all of it or nothing."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    with written_whole(path) as part:
        part.write_bytes(data)
