"""The sweep over transformers' architectures: a sample by default, all if asked.

``pytest -m slow tests/zoo/test_sweep.py`` examines every architecture, each in a
process of its own; ``python -m tests.zoo --shard 1/2`` does the same with records. With
``ZOO_RECORDS=FILE`` the tests keep records too, of which ``python -m tests.zoo
--records FILE --page`` makes the page.
"""

from __future__ import annotations

import os
import re
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import registry, rules
from captum_transformer_lrp.known import scans

from .command import examine_apart, keep
from .page import page
from .shrinking import Sizes
from .sweep import Entry, Record, examine

pytest.importorskip("transformers")
from .transformers_models import entries

#: group/name -> why it fails, one line each
KNOWN: dict[str, str] = {}

ALL = {entry.key: entry for entry in entries()}
#: of each group some, and others in a year's time when there are more of them
SAMPLE = sorted(ALL, key=lambda key: (len(key), key))[::40]


def built_in_float64() -> tuple[nn.Module, torch.Tensor, None]:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3))
    model = nn.Sequential(*layers).double().eval()
    return model, torch.randn(2, 6, dtype=torch.float64), None


ENTRY = Entry(name="perceptron", group="test", build=built_in_float64)


@pytest.mark.parametrize("key", SAMPLE)
def test_sample(key: str) -> None:
    record = examine(ALL[key])
    assert record.status != "failed" or key in KNOWN, record.cause


@pytest.mark.slow
@pytest.mark.parametrize("key", ALL)
def test_every_architecture(key: str) -> None:
    found = examine_apart(ALL[key], seconds=120, memory=8)
    if records := os.environ.get("ZOO_RECORDS"):
        keep(found, Path(records))
    assert found["status"] != "failed" or key in KNOWN, found["cause"]


def test_the_check_passes_what_conserves() -> None:
    record = examine(ENTRY)
    assert record.status == "passed", record.cause
    assert record.conservation is not None and record.conservation < 1e-12


def test_the_check_finds_a_rule_that_loses_relevance() -> None:
    with registry.override({"gelu": rules.PlainGradient()}):
        record = examine(ENTRY)
    assert record.status == "failed"
    assert re.match(r"loss \S+: gelu in 1", record.cause)


def test_the_check_finds_an_operator_without_a_rule() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.lgamma(x.abs() + 1)

    entry = Entry(
        name="strange",
        group="test",
        build=lambda: (Strange(), torch.randn(2, 3).double(), None),
    )
    record = examine(entry)
    assert (record.status, record.unknown) == ("failed", ["lgamma"])


def test_what_cannot_be_built_is_named() -> None:
    def build() -> tuple[nn.Module, torch.Tensor, None]:
        raise ImportError("requires a library")

    record = examine(Entry(name="absent", group="test", build=build))
    assert record.status == "not built"
    assert record.cause == "ImportError: requires a library"


def test_a_process_that_ends_or_hangs_is_a_record() -> None:
    def build() -> tuple[nn.Module, torch.Tensor, None]:
        while True:
            pass

    entry = Entry(name="hangs", group="test", build=build)
    found = examine_apart(entry, seconds=1, memory=64)
    assert (found["status"], found["cause"]) == ("failed", "took longer than 1 s")


def test_relevance_that_depends_on_chunk_borders_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert examine(ALL["causal LM/mamba2"]).status == "passed"
    monkeypatch.setattr(scans, "SCANS", {})  # its operators are seen one by one
    record = examine(ALL["causal LM/mamba2"])
    assert record.status == "failed"
    assert "CP-LRP, left padding: differs" in record.cause


class Padded(nn.Module):
    """Scores a text of one token or more; what padding does to it, ``change`` says."""

    def __init__(self, change: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = types.SimpleNamespace(pad_token_id=0)
        self.embedding = nn.Embedding(9, 6)
        self.head = nn.Linear(6, 3, bias=False)
        self.change = change

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        x = self.embedding(input_ids)
        if attention_mask is not None:
            x = x * attention_mask[..., None]
        return self.head(self.change(x, input_ids.shape[1]))


def of_padded(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Record:
    ids = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 5, 3, 8]])
    model = Padded(change).double().eval()
    entry = Entry(
        name="padded", group="test", build=lambda: (model, {"input_ids": ids}, 1)
    )
    return examine(entry)


def test_a_large_offset_does_not_hide_that_padding_changes_the_score() -> None:
    record = of_padded(lambda x, length: x.sum(1) * length - 1e8)
    assert record.status == "passed", record.cause
    assert "right padding changes the model's own score" in record.notes


def test_relevance_that_padding_changes_alone_is_an_error() -> None:
    def scaled(x: torch.Tensor, length: int) -> torch.Tensor:
        alias = x.view_as(x)
        if x.requires_grad:
            alias.register_hook(lambda gradient: gradient * length / 5)
        return alias.sum(1)

    record = of_padded(scaled)
    assert record.status == "failed"
    assert "right padding: differs by 4.0e-01" in record.cause


@pytest.mark.parametrize(
    ("key", "note"),
    [
        ("question answering/big_bird", "right padding changes the model's own score"),
        ("causal LM/hy_v4", "float32 inside: without its casts left padding changes"),
    ],
)
def test_another_seed(key: str, note: str) -> None:
    entry = next(e for e in entries(Sizes(seed=77)) if e.key == key)
    record = examine(entry)
    assert record.status == "passed", record.cause
    assert any(found.startswith(note) for found in record.notes), record.notes


class RoundingInABatch(nn.Module):
    """Rounds a factor otherwise in a batch, where the score does not show it."""

    def __init__(self, offset: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.offset, self.dtype = offset, dtype

    def forward(self, x: Tensor) -> Tensor:
        scale = 1.0 if len(x) == 1 else 1.1
        rounded = (x.detach() * scale + self.offset).to(self.dtype).double()
        return x * (rounded - self.offset) / scale + 1e5


@pytest.mark.parametrize(
    ("offset", "dtype", "status"),
    [
        (1e2, torch.float32, "passed"),
        (1e4, torch.float32, "failed"),  # too much
        (1e1, torch.float16, "failed"),
    ],
)
def test_a_batch_may_round_otherwise_within_float32(
    offset: float, dtype: torch.dtype, status: str
) -> None:
    x = torch.linspace(0.3, 2.0, 6).double().view(2, 3)
    model = RoundingInABatch(offset, dtype)
    record = examine(Entry(name="a", group="test", build=lambda: (model, x, 1)))
    assert record.status == status, record.cause
    said = [*record.notes, record.cause]
    assert any("CP-LRP, batch against alone: differs by" in one for one in said)


def test_other_sizes_and_seeds() -> None:
    sizes = Sizes(width=48, heads=6, layers=3, vocabulary=90, tokens=7, seed=3)
    wanted = "sequence classification/roberta"
    entry = next(e for e in entries(sizes) if e.key == wanted)
    record = examine(entry)
    assert record.status == "passed", record.cause


def test_the_page_counts() -> None:
    records = [
        Record(name="a", group="text", status="passed", conservation=1e-9, loss=0.0),
        Record(name="b", group="text", status="failed", cause="a | b"),
        Record(name="c", group="text", status="not built"),
    ]
    text = page([vars(record) for record in records])
    assert "| text | 2 | 1 (50.0%) | 1 | 1 |" in text
    assert "| b | failed |  |  |  |  | a \\| b |" in text
