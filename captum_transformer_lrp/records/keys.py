"""The keys of a record, each checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from .refusal import damaged, short


@dataclass(frozen=True)
class Keys:
    """The keys of one object, each checked when it is read.

    Args:
        record (Mapping): The object.
        place (str): Where it stands, such as ``"target."``.
        old (bool): Whether a version wrote it that did not name itself; it may lack
            keys then.
    """

    record: Mapping[str, Any]
    place: str
    old: bool

    def take(
        self,
        key: str,
        expected: str,
        fits: Callable[[Any], bool],
        *,
        null: bool = False,
    ) -> Any:
        """Return the value of a key, which may be None only with ``null``."""
        value = self.record.get(key)
        if value is None:
            if null and (self.old or key in self.record):
                return None
            state = "null" if key in self.record else "missing"
            raise damaged(f"{self.place + key!r} is {state}", expected)
        if not fits(value):
            raise damaged(f"{self.place + key!r} is {short(value)}", expected)
        return value

    def text(self, key: str, *, null: bool = False) -> Any:
        """Return a text."""
        return self.take(key, "a text", lambda v: isinstance(v, str), null=null)

    def one_of(self, key: str, *names: str) -> str:
        """Return one of some names."""
        found: str = self.take(key, " or ".join(map(repr, names)), names.__contains__)
        return found

    def flag(self, key: str, *, null: bool = False) -> Any:
        """Return True or False."""
        return self.take(key, "true or false", lambda v: isinstance(v, bool), null=null)

    def whole(self, key: str, *, null: bool = False) -> Any:
        """Return a whole number from 0."""
        return self.take(key, "a whole number from 0", _is_whole, null=null)

    def number(self, key: str, *, null: bool = False) -> Any:
        """Return a finite number."""
        found = self.take(key, "a finite number", _is_number, null=null)
        return None if found is None else float(found)

    def texts(self, key: str) -> list[str]:
        """Return a list of texts."""
        return list(self.take(key, "a list of texts", _are_texts))

    def objects(self, key: str) -> list[Any]:
        """Return a list of anything."""
        found: list[Any] = self.take(key, "a list", lambda v: isinstance(v, list))
        return found

    @overload
    def within(self, key: str) -> Keys: ...

    @overload
    def within(self, key: str, *, null: bool) -> Keys | None: ...

    def within(self, key: str, *, null: bool = False) -> Keys | None:
        """Return the keys of an object within."""
        inner = self.take(key, "an object", _is_object, null=null)
        return None if inner is None else Keys(inner, f"{self.place}{key}.", self.old)

    def numbers(self, key: str, dimensions: int, *, null: bool = False) -> Any:
        """Return a new array in float64 of so many dimensions."""
        what = "a list" if dimensions == 1 else "rows of equal length"
        expected = f"{what} of finite numbers"
        value = self.take(
            key, expected, lambda v: isinstance(v, (list, np.ndarray)), null=null
        )
        if value is None:
            return None
        try:
            found = np.array(value)
        except ValueError:  # rows of several lengths
            found = np.array(None)
        if found.dtype.kind in "fiu" and found.ndim == dimensions:
            found = found.astype(np.float64)
            if np.isfinite(found).all():
                return found
        raise damaged(f"{self.place + key!r} is {short(value)}", expected)


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_number(value: Any) -> bool:
    try:
        return (
            type(value) is not bool
            and isinstance(value, (int, float))
            and (math.isfinite(value))
        )
    except OverflowError:
        return False


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
