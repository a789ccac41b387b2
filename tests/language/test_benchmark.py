"""The benchmark of sources: what it measures, and that it runs from end to end."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    yield importlib.import_module("sources")
    sys.modules.pop("sources", None)


def test_the_sparse_model_finds_the_weights_that_made_the_numbers(
    sources: ModuleType,
) -> None:
    rng = np.random.default_rng(0)
    x = (rng.random((64, 10)) < 0.5).astype(float)
    true = np.zeros(10)
    true[[2, 7]] = 3.0, -2.0
    found = sources.lasso(x, x @ true + 1.0, penalty=0.01)
    assert np.abs(found - true).max() < 0.05
    assert np.count_nonzero(np.abs(found) > 1e-6) <= 4
    assert not sources.lasso(x, x @ true, penalty=10.0).any()


def test_recall_and_rank_correlation(sources: ModuleType) -> None:
    scores = np.array([0.1, 5.0, -3.0, 2.0, *[0.0] * 16])
    assert sources.recall(scores, {1, 3}, 0.01) == 0.5
    assert sources.recall(scores, {1, 3}, 0.1) == 1.0
    assert sources.recall(scores, {2}, 0.1) == 0.0
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert sources.rank_correlation(a, a**3) == pytest.approx(1.0)
    assert sources.rank_correlation(a, -a) == pytest.approx(-1.0)
    assert sources.rank_correlation(a, np.ones(4)) == 0.0
    assert sources.ranks(np.array([2.0, 1.0, 2.0])).tolist() == [1.5, 0.0, 1.5]


def test_a_chain_has_its_evidence(sources: ModuleType) -> None:
    question = sources.ask(np.random.default_rng(3), 12, 4)
    leads = {source[0]: source[2] for source in question.sources}
    at, used = question.after[1], []
    for token in question.answer:
        used.append([s[0] for s in question.sources].index(at))
        at = leads[at]
        assert at == token
    assert set(used) == question.evidence and len(used) == 4
    kept = [i not in question.evidence for i in range(12)]
    assert len(question.prompt()) - len(question.prompt(kept)) == 16


def test_it_runs(
    sources: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = (
        "--questions 2 --facts 6 --steps 2 --batch 2 --width 16 --ablations 4 "
        "--subsets 4 --hops 1"
    )
    monkeypatch.setattr(sys, "argv", ["sources", *options.split()])
    # a model of two steps knows nothing, and is asked all the same
    monkeypatch.setattr(sources, "KNOWN", 0.0)
    sources.main()
    printed = capsys.readouterr().out
    assert printed.count("AttnLRP, log-probability") == 2
    assert printed.count("ContextCite, 4") == 2 and "± " in printed
