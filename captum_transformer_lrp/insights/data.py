"""The examples that the app shows: texts of a file, pictures of a folder, or given.

Pictures are opened one by one, when they are needed. Nothing outside the folder of the
data is ever opened: links that lead out of it are left out when the folder is listed,
and the check is made again when a picture is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InputError
from ..models.inputs import open_picture
from ..models.pictures import is_picture, no_picture_in
from ..models.texts import Texts, is_table, read_texts
from .uploads import FORMATS

if TYPE_CHECKING:
    from PIL.Image import Image

#: how many examples are looked at, if nothing else is said
LIMIT = 2000

Kind = Literal["text", "image"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One example of a data set.

    Args:
        number (int): Its place in the whole data set, from 1: the same in every view
            and under every limit, so that links to it stay good.
        value (str, Path or PIL.Image.Image): A text, or a picture or its file.
        label (str or int, optional): The true class, by name or index. Default: None
        name (str): What a file is called within its folder. Default: ``""``
    """

    number: int
    value: str | Path | Image = field(repr=False)
    label: str | int | None = None
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set, or a part of it that is spread evenly.

    Args:
        kind (str): ``"text"`` or ``"image"``.
        name (str): What the page calls it.
        examples (tuple[Example, ...]): In their order.
        total (int): How many there are without the limit.
        folder (Path, optional): The folder that no picture may lie outside of.
            Default: None
        notes (tuple[str, ...]): What a reader should know. Default: ()
    """

    kind: Kind
    name: str
    examples: tuple[Example, ...] = field(repr=False)
    total: int
    folder: Path | None = None
    notes: tuple[str, ...] = ()

    def open(self, example: Example) -> str | Image:
        """Return the text, or the picture in RGB.

        Raises:
            InputError: The picture cannot be read, has too many pixels or lies outside
                the folder of the data.
        """
        if self.kind == "text" or not isinstance(example.value, Path):
            value: Any = example.value
            return value if self.kind == "text" else open_picture(value)
        if self.folder is not None and not _is_inside(example.value, self.folder):
            raise InputError(f"{example.name!r} leads out of the folder of the data")
        return open_picture(example.value, formats=FORMATS)


def read_data(
    data: str | Path | Iterable[Any],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int = LIMIT,
) -> Data:
    """Return the examples of a file, of a folder or of a sequence.

    Args:
        data (str, Path or iterable): A file or table of texts, as
            :func:`~captum_transformer_lrp.models.texts.read_texts` takes it. A folder
            of pictures, in which the sub-folders are the classes, as for torchvision's
            ``ImageFolder``. Or texts or PIL pictures, each by itself or as a pair with
            its label; the label is the index or the name of a class, or None.
        text_column (str, optional): In a table, the column of the texts by name; by
            number, from 1, in a table without a header. Default: None, ``text`` or
            ``sentence``
        label_column (str, optional): The column of the labels. Default: None, ``label``
            or ``labels`` if there is one
        limit (int, optional): How many examples are taken at most, spread evenly over
            the data. Default: 2000

    Raises:
        InputError: There is no such file, folder or column, or no example in it; a
            sequence mixes texts and pictures; ``limit`` is below 1.
    """
    if limit < 1:
        raise InputError(f"expected limit of at least 1, got {limit}")
    if isinstance(data, (str, Path)):
        path = Path(data).expanduser()
        if path.is_dir():
            if text_column is not None or label_column is not None:
                raise InputError(
                    f"{str(data)!r} is a folder of pictures, which has no columns; its "
                    "sub-folders are the classes"
                )
            return _read_folder(path, limit)
        return _read_file(path, text_column, label_column, limit)
    if not isinstance(data, Iterable):
        raise InputError(
            "expected data= to be a file, a folder, a table, or texts or pictures with "
            f"or without labels, got {type(data).__name__}"
        )
    items: Any = data if is_table(data) else list(data)
    named = text_column is not None or label_column is not None
    if named or is_table(items) or (items and isinstance(items[0], Mapping)):
        return _of_texts(
            read_texts(items, text_column=text_column, label_column=label_column), limit
        )
    return _read_pairs(items, limit)


def _read_pairs(items: Sequence[Any], limit: int) -> Data:
    import PIL.Image

    examples = []
    for number, item in enumerate(items, 1):
        pair = item if isinstance(item, (tuple, list)) else (item, None)
        if len(pair) != 2 or not isinstance(pair[0], (str, PIL.Image.Image)):
            raise InputError(
                f"item {number} of data= is {_describe(item)}; expected a text or a "
                "PIL picture, or a pair of one and its label"
            )
        value, label = pair
        if isinstance(label, bool) or not isinstance(label, (str, int, type(None))):
            raise InputError(
                f"the label of item {number} of data= is {label!r}; expected the index "
                "or the name of a class, or None"
            )
        if isinstance(value, str) and not value.strip():
            raise InputError(f"item {number} of data= is an empty text")
        examples.append(Example(number=number, value=value, label=label))
    if not examples:
        raise InputError("expected at least one example in data=, got none")
    kinds = {"text" if isinstance(e.value, str) else "image" for e in examples}
    if len(kinds) > 1:
        raise InputError("data= mixes texts and pictures; expected one kind")
    kind: Kind = "text" if kinds == {"text"} else "image"
    return _limited(kind, "data from Python", examples, limit)


def _describe(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        inner = ", ".join(type(part).__name__ for part in item[:4])
        return f"a {type(item).__name__} of {len(item)} ({inner})"
    return f"of type {type(item).__name__}"


def _read_folder(folder: Path, limit: int) -> Data:
    root = folder.resolve()
    found: list[Path] = []
    outside = 0
    for place, inner, files in os.walk(root):
        for name in list(inner):
            if name.startswith("."):
                inner.remove(name)
            elif (Path(place) / name).is_symlink():
                outside += 1  # os.walk does not follow it
        for name in files:
            path = Path(place) / name
            if name.startswith(".") or not is_picture(path):
                continue
            if _is_inside(path, root):
                found.append(path)
            else:
                outside += 1
    if not found:
        raise no_picture_in(folder)
    examples = [
        Example(
            number=number,
            value=path,
            name=path.relative_to(root).as_posix(),
            label=path.relative_to(root).parts[0] if path.parent != root else None,
        )
        for number, path in enumerate(sorted(found), 1)
    ]
    notes = []
    if outside:
        are = "1 link was" if outside == 1 else f"{outside} links were"
        notes.append(f"{are} left out: only what lies in the folder itself is shown.")
    return _limited("image", root.name, examples, limit, folder=root, notes=notes)


def _is_inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _read_file(
    path: Path, text_column: str | None, label_column: str | None, limit: int
) -> Data:
    if is_picture(path):
        raise InputError(
            f"{path.name!r} is one picture; expected a folder of pictures, or a file "
            "of texts"
        )
    return _of_texts(
        read_texts(path, text_column=text_column, label_column=label_column), limit
    )


def _of_texts(texts: Texts, limit: int) -> Data:
    examples = [
        Example(number=row.number, value=row.text, label=row.label)
        for row in texts.rows
    ]
    return _limited("text", texts.name, examples, limit)


def _limited(
    kind: Kind,
    name: str,
    examples: list[Example],
    limit: int,
    *,
    folder: Path | None = None,
    notes: Sequence[str] = (),
) -> Data:
    """Return the data with at most ``limit`` examples, spread evenly."""
    total = len(examples)
    if total > limit:
        examples = [examples[i * total // limit] for i in range(limit)]
        notes = [
            *notes,
            f"{limit:,} of {total:,} examples are shown, spread evenly over the data; "
            "--limit (limit=) shows more.",
        ]
    return Data(
        kind=kind,
        name=name,
        examples=tuple(examples),
        total=total,
        folder=folder,
        notes=tuple(notes),
    )
