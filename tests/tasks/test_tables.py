"""Answers in a table, by a tiny random TAPAS."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
import torch

pytest.importorskip("pandas")
from transformers import (
    TapasConfig,
    TapasForQuestionAnswering,
    TapasTokenizer,
    pipeline,
)

from captum_transformer_lrp import CPLRP, Explainer, targets
from captum_transformer_lrp.errors import InputError, TargetError
from captum_transformer_lrp.tasks import task_of

from .tiny import word_pieces

TABLE = {"film": ["a boat", "dog", "London"], "music": ["good", "warm", "funny"]}
ASKED: dict[str, Any] = {"table": TABLE, "query": "Where is Sarah?"}
KINDS = {0: "NONE", 1: "SUM", 2: "AVERAGE", 3: "COUNT"}


@cache
def tokenizer() -> Any:
    known = word_pieces().get_vocab()
    words = [*sorted(known, key=lambda word: known[word]), "[EMPTY]"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(words))
        return TapasTokenizer(str(path))


def _batch() -> dict[str, Any]:
    import pandas

    return dict(
        tokenizer()(pandas.DataFrame(TABLE), ASKED["query"], return_tensors="pt")
    )


def reader_of_tables(*, shift: float | None = None, kinds: bool = True) -> Any:
    """A pipeline that chooses some of the cells."""
    torch.manual_seed(1)
    config = cast(Any, TapasConfig)(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.3,
        max_position_embeddings=64,
        **(
            {
                "num_aggregation_labels": 4,
                "aggregation_labels": KINDS,
                "no_aggregation_label_index": 0,
            }
            if kinds
            else {}
        ),
    )
    model: Any = TapasForQuestionAnswering(config).double().eval()
    with torch.no_grad():
        model.output_weights.normal_(std=0.5)
        logits = model(**_batch()).logits[0, -9:]  # of cells
        middle = -float(logits.median())
        model.output_bias.fill_(middle if shift is None else shift)
    make = cast(Any, pipeline)
    return make("table-question-answering", model=model, tokenizer=tokenizer())


@pytest.mark.parametrize("kinds", [True, False])
def test_the_cells_that_were_chosen(kinds):
    pipe = reader_of_tables(kinds=kinds)
    said = pipe(**ASKED)
    assert said["cells"] and len(said["cells"]) < 6
    found = Explainer(pipe, "cp-lrp")(**ASKED)
    assert found.output == said and found.target.name == said["answer"]
    batch = _batch()
    kind = batch["token_type_ids"][0]
    with torch.no_grad():
        logits = pipe.model(**batch).logits[0]
    cells = []
    for row, column in said["coordinates"]:
        inside = (
            (kind[:, 0] == 1) & (kind[:, 2] == row + 1) & (kind[:, 1] == column + 1)
        )
        assert float(logits[inside].sigmoid().mean()) > 0.5
        cells.append(logits[inside].mean())
    assert found.logit == pytest.approx(float(torch.stack(cells).mean()))
    trace = CPLRP(pipe.model).trace(batch, target=_target(pipe, batch, said))
    assert trace.conservation_error < 1e-6
    assert trace.relevance == pytest.approx(found.relevance_sum)
    marked = {mark.name for mark in found.marks}
    assert marked == {"answer"} and len(found.marks) == len(cells)
    assert any("Aggregation" in note for note in found.notes) is kinds


def _target(pipe: Any, batch: Any, said: Any) -> targets.Cells:
    kind = batch["token_type_ids"][0].tolist()
    return targets.Cells(
        tuple(
            tuple(i for i, k in enumerate(kind) if k[:3] == [1, column + 1, row + 1])
            for row, column in said["coordinates"]
        )
    )


def test_another_cell_and_the_aggregation():
    pipe = reader_of_tables()
    explainer = Explainer(pipe, "cp-lrp")
    by_place = explainer(**ASKED, target=(1, 0))
    assert by_place.target.name == "dog"
    assert (by_place.scores == explainer(**ASKED, target="dog").scores).all()
    both = explainer(**ASKED, target=[(1, 0), (0, 1)])
    assert [one.target.name for one in both] == ["dog", "good"]
    kind = explainer(**ASKED, target="aggregation")
    assert kind.target.name == pipe(**ASKED)["aggregator"]
    assert kind.logit == pytest.approx(
        float(pipe.model(**_batch()).logits_aggregation.detach().max())
    )
    lists = explainer(table=TABLE, query=["Where?", "a dog?"])
    assert len(lists) == 2
    with pytest.raises(TargetError, match=r"no cell at \(5, 0\)"):
        explainer(**ASKED, target=(5, 0))
    with pytest.raises(TargetError, match="no cell named 'cat'"):
        explainer(**ASKED, target="cat")
    plain = Explainer(reader_of_tables(kinds=False))
    with pytest.raises(TargetError, match="no aggregation"):
        plain(**ASKED, target="aggregation")


def test_other_methods_and_wrong_tables():
    pipe = reader_of_tables()
    for method in ("integrated-gradients", "kernel-shap"):
        assert Explainer(pipe, method)(**ASKED).scores.any()
    explainer = Explainer(pipe)
    assert task_of("TapasForQuestionAnswering") == "table-question-answering"
    with pytest.raises(InputError, match="chooses no cell"):
        Explainer(reader_of_tables(shift=-50.0))(**ASKED)
    with pytest.raises(InputError, match=r"cell \(0, 0\) of the table is 3, no text"):
        explainer(table={"year": [3]}, query="Where?")
    with pytest.raises(InputError, match=r"takes table=.*query=''"):
        explainer(table=TABLE, query="")
    with pytest.raises(InputError, match="expected table= to be a DataFrame"):
        explainer(table="film", query="Where?")
