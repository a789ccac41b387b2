"""Why a file is refused: what it holds, what was expected, and what to do."""

from __future__ import annotations

from ..errors import InputError

#: of a file, and of what it unpacks to, so that a small one cannot take all memory
MOST_BYTES = 1 << 31


def damaged(found: str, expected: str) -> InputError:
    """Return the error for a file that says something impossible, on one line."""
    found = " ".join(found.split())
    return InputError(
        f"{found[:300]}, expected {expected}; the file is damaged or was changed: save "
        "the result again, or restore a copy of the file"
    )


def foreign(found: str) -> InputError:
    """Return the error for a file that this package did not write."""
    return InputError(
        f"{found}, expected results of captum_transformer_lrp; name a file that save() "
        "of an explanation, a comparison or a language model's result has written"
    )


def check_size(size: int) -> None:
    """Raise for so many bytes that they may not fit into memory."""
    if size > MOST_BYTES:
        raise InputError(
            f"it holds {size:,} bytes or more, expected at most {MOST_BYTES:,}; save "
            "the results into several files, and load them together"
        )


def short(value: object) -> str:
    """Return what a value looks like, shortened."""
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."
