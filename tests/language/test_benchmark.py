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
pytest.importorskip("sklearn")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    yield importlib.import_module("sources")
    sys.modules.pop("sources", None)


def test_the_sparse_model_finds_the_weights_that_made_the_numbers(
    sources: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = sources.ask(np.random.default_rng(3), 10, 1)
    true = np.zeros(len(question.sources))
    true[[2, 7]] = 3.0, -2.0

    def log_probability(_: object, __: object, kept: np.ndarray) -> float:
        return float(-np.log1p(np.exp(-(kept @ true + 1.0))))

    monkeypatch.setattr(sources, "log_probability", log_probability)
    found = sources.context_cite(64)(None, question)
    assert np.abs(found - true).max() < 0.05
    assert np.count_nonzero(np.abs(found) > 1e-6) <= 4


def test_recall(sources: ModuleType) -> None:
    scores = np.array([0.1, 5.0, -3.0, 2.0, *[0.0] * 16])
    assert sources.recall(scores, {1, 3}, 0.01) == 0.5
    assert sources.recall(scores, {1, 3}, 0.1) == 1.0
    assert sources.recall(scores, {2}, 0.1) == 0.0


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
