"""What a page shows, as a value: written into its address and read from it.

The address comes from outside. What cannot be read in it is said on the page, and the
rest is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal
from urllib.parse import parse_qsl, urlencode

from .._visible import shortened
from .data import Data
from .predictions import Prediction, Predictions

Sort = Literal["wrong-first", "correct-first", "least-confident", "data"]
Outcome = Literal["all", "wrong", "correct", "unknown"]

SORTS: dict[Sort, str] = {
    "wrong-first": "Wrong first, most confident first",
    "correct-first": "Correct first, most confident first",
    "least-confident": "Least confident first",
    "data": "As in the data",
}
OUTCOMES: dict[Outcome, str] = {
    "all": "All predictions",
    "wrong": "Wrong predictions",
    "correct": "Correct predictions",
    "unknown": "No verdict",
}
SIZES = (3, 6, 12, 24)
#: the two targets that are no fixed class
PREDICTION, LABEL = "prediction", "label"
_LONGEST = 200  # characters of a value in the address that is looked at


@dataclass(frozen=True, kw_only=True)
class View:
    """What a page shows.

    Args:
        method (str): The name of the method.
        example (int, optional): The number of the only example to show; None is the
            list. Default: None
        target (str): ``"prediction"``, ``"label"`` (the true class), or the index of a
            class or the id of a token. Default: ``"prediction"``
        outcome (str): Which predictions are listed, a key of :data:`OUTCOMES`.
            Default: ``"all"``
        label (int, optional): Only this true class. Default: None
        predicted (int, optional): Only this predicted class. Default: None
        search (str): Only texts or file names with this in them. Default: ``""``
        sort (str): A key of :data:`SORTS`. Default: ``"wrong-first"``
        page (int): From 1. Default: 1
        size (int): How many examples a page has. Default: 6
    """

    method: str
    example: int | None = None
    target: str = PREDICTION
    outcome: Outcome = "all"
    label: int | None = None
    predicted: int | None = None
    search: str = ""
    sort: Sort = "wrong-first"
    page: int = 1
    size: int = 6

    def query(self) -> str:
        """Return the address from its ``?`` on; what is usual is left out."""
        usual = View(method="")
        always = ("method", "target") if self.example is not None else ("method",)
        parts = {
            name: value
            for name in (
                "example",
                *(f.name for f in fields(self) if f.name != "example"),
            )
            if (value := getattr(self, name)) is not None
            and (name in always or value != getattr(usual, name))
        }
        return "?" + urlencode(parts)


@dataclass(frozen=True, kw_only=True)
class ViewReader:
    """Reads views from addresses.

    Args:
        methods (Sequence[str]): The methods on offer; the first one is usual.
        numbers (Sequence[int]): The numbers of the examples.
        class_names (Sequence[str]): In the order of the logits; may be empty.
    """

    methods: Sequence[str]
    numbers: Sequence[int]
    class_names: Sequence[str]

    def read(self, query: str) -> tuple[View, tuple[str, ...]]:
        """Return the view that an address means, and what in it has no meaning.

        Args:
            query (str): The address from its ``?`` on, or without it.
        """
        values: dict[str, object] = {"method": self.methods[0]}
        problems = []
        known = {f.name for f in fields(View)}
        for name, given in parse_qsl(query.removeprefix("?")[:4000]):
            if name not in known:
                continue  # not ours: a reader's tool may have added it
            value = getattr(self, f"_read_{name}")(given[:_LONGEST])
            if value is None:
                shown = shortened(given, 40)
                problems.append(
                    f"The address asks for {name} “{shown}”, which there is not here."
                )
            else:
                values[name] = value
        return View(**values), tuple(problems)  # type: ignore[arg-type]

    def _read_method(self, given: str) -> str | None:
        return given.lower() if given.lower() in self.methods else None

    def _read_example(self, given: str) -> int | None:
        number = _whole(given)
        return number if number in self.numbers else None

    def _read_target(self, given: str) -> str | None:
        if given in (PREDICTION, LABEL):
            return given
        index = self._read_class(given)
        return None if index is None else str(index)

    def _read_class(self, given: str) -> int | None:
        index = _whole(given)
        if index is not None:
            return index if index < (len(self.class_names) or 10**7) else None
        found = [
            i for i, n in enumerate(self.class_names) if n.lower() == given.lower()
        ]
        return found[0] if len(found) == 1 else None

    _read_label = _read_class
    _read_predicted = _read_class

    def _read_outcome(self, given: str) -> str | None:
        return given if given in OUTCOMES else None

    def _read_sort(self, given: str) -> str | None:
        return given if given in SORTS else None

    def _read_search(self, given: str) -> str | None:
        return given

    def _read_page(self, given: str) -> int | None:
        return _whole(given) or None

    def _read_size(self, given: str) -> int | None:
        size = _whole(given)
        return size if size in SIZES else None


def _whole(given: str) -> int | None:
    """Return a whole number of few digits."""
    fits = given.isascii() and given.isdigit() and len(given) < 10
    return int(given) if fits else None


def select(view: View, data: Data, predictions: Predictions) -> list[int]:
    """Return the places of the examples that a view lists, in its order.

    Examples that have no prediction yet are left out.
    """
    wanted = view.search.casefold()
    chosen: list[tuple[int, Prediction]] = []
    for place, example in enumerate(data.examples):
        found = predictions[place]
        if found is None:
            continue
        shown = example.value if isinstance(example.value, str) else example.name
        best = None if found.best is None else found.best.index
        outcome = {True: "correct", False: "wrong", None: "unknown"}[found.right]
        if (
            view.outcome in ("all", outcome)
            and view.label in (None, predictions.labels.indices[place])
            and view.predicted in (None, best)
            and wanted in shown.casefold()
        ):
            chosen.append((place, found))
    first = {"wrong-first": False, "correct-first": True}.get(view.sort)
    if first is not None:
        # The one asked for, then what has no verdict, then the other.
        rank = {first: 0, None: 1, not first: 2}
        chosen.sort(key=lambda one: (rank[one[1].right], -one[1].confidence))
    elif view.sort == "least-confident":
        chosen.sort(key=lambda one: one[1].confidence)
    return [place for place, _ in chosen]
