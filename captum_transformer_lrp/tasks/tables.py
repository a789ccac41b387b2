"""Answers in a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import targets
from ..errors import InputError, TargetError
from ..explanation import Mark
from ..models.prediction import ClassScore
from .asking import Asked, Question, Task, chosen
from .reads import read_text
from .recording import ModelCall
from .scoring import of_function, value_of

#: what explains how the cells are put together
AGGREGATION = "aggregation"


@dataclass(frozen=True)
class _Cell:
    """A cell that the model read.

    Args:
        row (int): its row, from 0, without the header.
        column (int): its column, from 0.
        text (str): what stands in it.
        tokens (tuple of int): where its tokens are.
    """

    row: int
    column: int
    text: str
    tokens: tuple[int, ...]


class TableQuestionAnswering(Task):
    """The cells of a table that answer a question: the mean of their logits.

    The model (TAPAS) chooses every cell of which the mean probability of its tokens is
    above 1/2, and an aggregation: none, their sum, mean or number. Each cell counts
    once, with the mean logit of its tokens. ``target=(row, column)``, from 0 without
    the header, or the text of a cell explains that cell, and ``target="aggregation"``
    the logit of the aggregation. Models that write their answer (TAPEX) are refused.
    """

    name = "table-question-answering"
    about = "the mean logit of the cells that were chosen"
    takes = "table=..., columns of texts, and query=..., a text"

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return table and query, also of a mapping or a list of them."""
        found = dict(further)
        if isinstance(text, Mapping) and "table" in text:
            found |= text
        elif isinstance(text, (list, tuple)):
            found["query"] = [one.get("query") for one in text]
            found["table"] = [one.get("table") for one in text]
        elif text is not None:
            found.setdefault("table", text)
        return found

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return queries with their tables, one by one."""
        queries, tables = given.get("query"), given.get("table")
        if not isinstance(queries, (list, tuple)):
            return None
        if not isinstance(tables, (list, tuple)):
            tables = [tables] * len(queries)
        return [
            {**given, "query": query, "table": table}
            for query, table in zip(queries, tables, strict=True)
        ]

    def are_several(self, target: Any) -> bool:
        """Whether it is a list: a tuple is row and column of one cell."""
        return isinstance(target, list)

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the answer with its cells."""
        options = dict(given)
        query, table = options.pop("query", None), options.pop("table", None)
        if table is None or not isinstance(query, str) or not query.strip():
            raise InputError(
                f"the task {self.name!r} takes {self.takes}, got "
                f"table={type(table).__name__} and query={query!r}"
            )
        _cells_of(table)
        return pipe(table=table, query=query, **options)

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why these cells, or why those that were asked for."""
        call = asked.calls[-1]
        if call.generated:
            raise InputError(
                f"{type(asked.pipe.model).__name__} writes its answer; expected a "
                "model that chooses cells of the table, such as TAPAS"
            )
        cells = _read_cells(asked, call)
        places = {(cell.row, cell.column): cell for cell in cells}
        answer = [places[one] for one in asked.answer["coordinates"] if one in places]
        several = target if isinstance(target, list) else [target]
        for one in several:
            if callable(one):
                reads = (read_text(asked.pipe, call.inputs),)
                yield of_function(asked, call, call.row(0), one, reads)
            elif one == AGGREGATION:
                yield _of_aggregation(asked, call, answer)
            elif one is None:
                if not answer:
                    raise InputError(
                        "the model chooses no cell: none has a probability above 1/2. "
                        "Ask for one: target=(row, column), or the text of a cell"
                    )
                yield _of_cells(asked, call, answer, asked.answer["answer"])
            elif isinstance(one, tuple):
                if one not in places:
                    raise TargetError(
                        f"the model reads no cell at {one!r}; expected (row, column) "
                        f"from (0, 0) to {max(places)!r}"
                    )
                yield _of_cells(asked, call, [places[one]], places[one].text)
            else:
                for i in chosen(one, [cell.text for cell in cells], "cell") or []:
                    yield _of_cells(asked, call, [cells[i]], cells[i].text)


def _cells_of(table: Any) -> dict[tuple[int, int], str]:
    """Return the text of each cell by row and column.

    Raises:
        InputError: it is no table, or has cells that are no texts.
    """
    columns = getattr(table, "columns", None)
    names = list(table) if isinstance(table, Mapping) else columns
    if names is None or not len(names):
        raise InputError(
            "expected table= to be a DataFrame, or a mapping of the names of columns "
            f"to their cells, got {type(table).__name__}"
        )
    found = {}
    for column, name in enumerate(names):
        for row, value in enumerate(table[name]):
            if not isinstance(value, str):
                raise InputError(
                    f"cell ({row}, {column}) of the table is {value!r}, no text: write "
                    "table.astype(str)"
                )
            found[row, column] = value
    return found


def _read_cells(asked: Asked, call: ModelCall) -> list[_Cell]:
    """Return the cells that the model read, in the order of its tokens."""
    texts = _cells_of(asked.given["table"])
    tokens: dict[tuple[int, int], list[int]] = {}
    kinds = call.inputs["token_type_ids"][0].tolist()
    mask = call.inputs["attention_mask"][0].tolist()
    for place, ((segment, column, row, *_), real) in enumerate(
        zip(kinds, mask, strict=True)
    ):
        if real and segment == 1 and row > 0 and column > 0:
            tokens.setdefault((row - 1, column - 1), []).append(place)
    return [
        _Cell(row, column, texts[row, column], tuple(places))
        for (row, column), places in tokens.items()
    ]


def _of_cells(
    asked: Asked, call: ModelCall, cells: Sequence[_Cell], name: str
) -> Question:
    """Return why cells are chosen."""
    function = targets.Cells(tuple(cell.tokens for cell in cells))
    chance = None
    if len(cells) == 1:
        logits = call.output["logits"][0].detach().cpu().double()
        chance = float(logits[list(cells[0].tokens)].sigmoid().mean())
    said = ClassScore(
        index=cells[0].tokens[0],
        name=name,
        logit=float(value_of(function, asked.pipe.model, call.output)),
        probability=chance,
    )
    notes: tuple[str, ...] = ()
    if "aggregator" in asked.answer:
        notes = (
            f"Aggregation: {asked.answer['aggregator']}, which target='aggregation' "
            "explains.",
        )
    return _question(asked, call, function, said, cells, "mean logit", notes)


def _of_aggregation(asked: Asked, call: ModelCall, cells: Sequence[_Cell]) -> Question:
    """Return why the cells are put together in this way."""
    names = getattr(asked.pipe.model.config, "aggregation_labels", None)
    if not names or "aggregator" not in asked.answer:
        raise TargetError("the model has no aggregation to explain")
    logits = call.output["logits_aggregation"][0].detach().cpu().double()
    best = int(logits.argmax())
    said = ClassScore(
        index=best,
        name=str(asked.answer["aggregator"]),
        logit=float(logits[best]),
        probability=float(logits.softmax(-1)[best]),
    )
    return _question(asked, call, targets.Aggregation(best), said, cells, "logit", ())


def _question(
    asked: Asked,
    call: ModelCall,
    function: targets.Target,
    said: ClassScore,
    cells: Sequence[_Cell],
    score: str,
    notes: tuple[str, ...],
) -> Question:
    marks = [
        Mark(start=cell.tokens[0], end=cell.tokens[-1] + 1, name="answer")
        for cell in cells
    ]
    return Question(
        inputs=call.row(0),
        target=function,
        answer=said,
        reads=(read_text(asked.pipe, call.inputs, marked=marks),),
        output=asked.answer,
        score=score,
        notes=notes,
    )
