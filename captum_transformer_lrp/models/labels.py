"""Which class of the model a label of the data means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The true classes of the examples, as the model numbers them.

    Args:
        indices (tuple[int or None, ...]): One per example; None where the data has no
            label, or one that is no class of the model.
        notes (tuple[str, ...]): What a reader should know. Default: ()
    """

    indices: tuple[int | None, ...]
    notes: tuple[str, ...] = ()


def match_labels(
    labels: Sequence[str | int | None],
    class_names: Sequence[str],
    *,
    folders: bool = False,
) -> Labels:
    """Return the class of the model that each label means.

    A label is the name of a class, else its index. Names are compared without regard
    to case, and ``_`` and ``-`` count as blanks. Where no name of a folder of pictures
    is a class of the model, and the folders are as many as the classes or the model has
    no names, they are the classes in alphabetical order, as torchvision's
    ``ImageFolder`` numbers them; a note says so.

    Args:
        labels (sequence of str, int or None): One for each example; None where it is
            not known.
        class_names (Sequence[str]): In the order of the logits; may be empty.
        folders (bool, optional): Whether the labels are names of folders.
            Default: False
    """
    exact = _once(class_names)
    plain = _once([_plain(name) for name in class_names])

    def find(label: str | int) -> int | None:
        if isinstance(label, int):
            return label if 0 <= label < (len(class_names) or label + 1) else None
        index = exact.get(label, plain.get(_plain(label)))
        if index is None and label.isascii() and label.isdigit():
            return find(int(label))
        return index

    given = dict.fromkeys(label for label in labels if label is not None)
    known = {label: find(label) for label in given}
    names = sorted(str(label) for label in given)
    is_new = bool(given) and all(index is None for index in known.values())
    if folders and is_new and len(class_names) in (0, len(names)):
        known = {label: names.index(str(label)) for label in given}
        note = (
            "The folders are taken for the model's classes in alphabetical order: "
            f"{names[0]!r} is class 0."
        )
        return Labels(
            indices=tuple(_look_up(known, label) for label in labels),
            notes=(note,),
        )
    unknown = [str(label) for label, index in known.items() if index is None]
    notes: tuple[str, ...] = ()
    if unknown:
        some = ", ".join(map(repr, unknown[:3])) + (" …" if len(unknown) > 3 else "")
        called = ", ".join(map(repr, class_names[:5]))
        more = " …" if len(class_names) > 5 else ""
        notes = (
            f"No class of the model is called {some}: whether the model is right about "
            f"such examples stays open. Its classes: {called or 'none named'}{more}.",
        )
    return Labels(
        indices=tuple(_look_up(known, label) for label in labels), notes=notes
    )


def _look_up(known: dict[str | int, int | None], label: str | int | None) -> int | None:
    return None if label is None else known[label]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").lower().split())


def _once(names: Sequence[str]) -> dict[str, int]:
    """Return the places of the names that occur once."""
    counts = Counter(names)
    return {name: i for i, name in enumerate(names) if counts[name] == 1}
