"""Other libraries: what is installed is examined, and the table's own parts are right.

``pytest -m slow tests/zoo/test_third_party.py`` examines every entry of the libraries
that are installed; ``python -m tests.zoo --third-party`` does the same with records.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from captum_transformer_lrp import CPLRP, AttnLRP
from tests.helpers import relative

from .command import examine_apart
from .page import page_of_libraries
from .sweep import Entry, Record, Refusal, examine
from .third_party import MODULES, REFUSED, absent, entries, log_odds, written_out

ALL = {entry.key: entry for entry in entries()}
ABSENT = absent()
#: one of each hard thing that comes with timm's own dependency, a second each
SAMPLE = (
    "torchvision/vision_transformer.VisionTransformer",
    "torchvision/swin_transformer.SwinTransformer",
    "torchvision/squeezenet.squeezenet1_1",
)


@pytest.mark.parametrize("key", SAMPLE)
def test_sample(key: str) -> None:
    pytest.importorskip("torchvision")
    record = examine(ALL[key])
    assert record.status == "passed", f"{record.cause}\n{record.where}"


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a hundred models
@pytest.mark.parametrize("module", MODULES)
def test_every_entry_of_a_library(module: str) -> None:
    if module in ABSENT:
        pytest.skip(f"{module} is not installed: see requirements-third-party.txt")
    wrong = []
    for entry in (e for e in ALL.values() if e.group == module):
        found = examine_apart(entry, seconds=120, memory=12)
        if found["status"] != ("refused" if entry.refused else "passed"):
            wrong.append(f"{entry.key}: {found['status']}, {found['cause']}")
    assert not wrong, "\n".join(wrong)


def test_the_table_is_whole() -> None:
    listed = [entry.key for entry in entries()]
    assert len(set(listed)) == len(listed)
    assert {entry.group for entry in ALL.values()} == set(MODULES) - set(ABSENT)
    if not ABSENT:  # a refusal of no entry is left over
        refused = [entry for entry in ALL.values() if entry.refused]
        assert len(refused) == len(REFUSED)


#: convolutions, ReLU, maxima, sums, batch normalisation in evaluation
PIECEWISE_LINEAR = (
    "densenet.DenseNet",
    "shufflenetv2.shufflenet_v2_x0_5",
    "squeezenet.squeezenet1_1",
)


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_where_a_network_is_linear_all_methods_are_gradient_times_input(
    name: str,
) -> None:
    pytest.importorskip("torchvision")
    model, pixels, _ = ALL[f"torchvision/{name}"].build()
    leaf = pixels.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 2].sum(), leaf)
    for method in (CPLRP, AttnLRP):
        found = method(model).attribute(pixels, target=2)
        assert relative(found, pixels * gradient) < 1e-9


class Detaching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * 2.0


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise RuntimeError("the score does not depend on its inputs")
        return x


class Chances(nn.Module):
    """AttnLRP explains them, and CP-LRP takes a softmax for a constant."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1)


class OfTheBatch(nn.Module):
    """Its relevance depends on the batch where no other value does."""

    def forward(self, x: Tensor) -> Tensor:
        weights = x.softmax(-1)
        return weights if len(x) == 1 else (weights + weights.detach()) / 2


@pytest.mark.parametrize(
    ("model", "owed", "status", "cause"),
    [
        (Detaching(), "DisconnectedError: the score does not", "refused", "Disconn"),
        (Detaching(), "UnknownOperatorError", "failed", "DisconnectedError"),
        (Detaching(), "", "failed", "DisconnectedError"),
        (Failing(), "RuntimeError: the score", "failed", "RuntimeError: the score"),
        (nn.Linear(3, 2), "DisconnectedError", "failed", "a number instead of Disc"),
        (Chances(), "DisconnectedError", "refused", "DisconnectedError"),
        (OfTheBatch(), "DisconnectedError", "failed", "AttnLRP, batch against alone"),
    ],
)
def test_a_refusal_is_owed_by_name(
    model: nn.Module, owed: str, status: str, cause: str
) -> None:
    """Only an error of the engine's own counts, and only the one that is named."""
    inputs = torch.ones(2, 3, dtype=torch.float64)
    record = examine(
        Entry(
            name="a model",
            group="test",
            build=lambda: (model.double(), inputs, 1),
            refused=Refusal(owed, "it does so") if owed else None,
        )
    )
    assert record.status == status, record.cause
    assert record.why == ("it does so" if status == "refused" else "")
    assert (record.explained_by == ["AttnLRP"]) == (type(model) is Chances)
    assert record.cause.startswith(cause)


def test_the_page_counts_and_says_why() -> None:
    records = [
        Record(name="a", group="one", status="passed", loss=2e-15, conservation=0.0),
        Record(name="b", group="one", status="passed", loss=0.0, conservation=3e-9),
        Record(
            name="c",
            group="other",
            status="refused",
            cause="DisconnectedError: the score | does not",
            why="it rounds",
            explained_by=["AttnLRP"],
        ),
        Record(name="d", group="other", status="not built", cause="OSError: no"),
    ]
    text = page_of_libraries(map(vars, records), {"one": "1.2"})
    assert "Of 3 models of 2 libraries 2 pass (66.7%), 1 are refused by name" in text
    assert "and none failed." in text
    assert "| one | 1.2 | 2 | 2 | 0 | 0 | 0 | 3e-09 |" in text
    assert "| other |  | 2 | 0 | 1 | 0 | 1 |  |" in text
    assert "| all |  | 4 | 2 | 1 | 0 | 1 | 3e-09 |" in text
    assert "| other: c | it rounds | DisconnectedError | AttnLRP |" in text
    assert (
        "| c | refused |  |  |  |  | DisconnectedError: the score \\| does not |"
        in text
    )
    assert "What is refused" not in page_of_libraries(map(vars, records[:2]), {})


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("mask", "causal"),
    [("none", False), ("none", True), ("bool", False), ("float", False)],
)
def test_attention_written_out_is_the_fused_one(
    mask: str, causal: bool, grouped: bool
) -> None:
    query = torch.randn(2, 4, 5, 3).double()
    key, value = torch.randn(2, 2, 2 if grouped else 4, 5, 3).double()
    given = torch.randn(5, 5).double()
    bias = {"none": None, "bool": given > -1.0, "float": given}[mask]

    def score(x: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(
            x, key, value, bias, 0.0, causal, scale=0.7, enable_gqa=grouped
        )
        return attended.flatten(1).sum(1)

    expected, relevance = score(query), AttnLRP(score).attribute(query)
    fused = functional.scaled_dot_product_attention
    with written_out(nn.Identity()):
        assert functional.scaled_dot_product_attention is not fused
        assert torch.allclose(score(query), expected, rtol=1e-12)
        found = AttnLRP(score).attribute(query)
    assert functional.scaled_dot_product_attention is fused
    assert torch.allclose(found, relevance, rtol=1e-9)


def test_log_odds_are_differences_of_logits() -> None:
    logits = torch.randn(2, 5).double()
    expected = logits[:, 1:] - logits[:, :1]
    assert torch.allclose(log_odds(logits.log_softmax(-1)), expected)
