"""`check` passes what holds, and names what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CheckReport, check, errors, registry
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.propagation import Call, Rule
from captum_transformer_lrp.propagation.gradients import scale_output_gradient
from tests.helpers import assert_same_state, needs_shared, state_of, tiny

IDS = torch.tensor([[3, 1, 4, 1, 5]])
BUILT_IN = Path(__file__).parents[1] / "captum_transformer_lrp/models/built_in"


class Net(nn.Module):
    """Two linear layers and a function between them."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(4, 6)
        self.last = nn.Linear(6, 3)
        self.function = function
        for parameter in self.parameters():
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.function(self.first(x)))
        return scores


X = torch.tensor([[0.3, -1.2, 0.8, 0.5]])


def outcomes(report: CheckReport) -> dict[str, str]:
    return {one.name: one.outcome for one in report.checks}


def test_a_transformer_of_token_ids_passes() -> None:
    model = tiny()
    before = state_of(model)
    report = check(model, IDS)
    assert report.passed
    assert outcomes(report) == {
        "operators": "pass",
        "conservation": "pass",
        "forward": "pass",
        "gradient": "pass",
        "attnlrp": "pass",
        "attention": "not applicable",
        "batch": "pass",
        "padding": "not applicable",
        "precision": "pass",
        "untouched": "pass",
    }
    assert report["conservation"].measured < 1e-12
    assert report.verdict in str(report)
    assert len(report.to_records()) == len(report.checks)
    assert_same_state(before, state_of(model))


def test_a_float32_model_is_measured_in_float64_if_it_fits() -> None:
    model = Net(torch.relu)
    report = check(model, X)
    assert report.passed
    assert (report.dtype, report.measured_in) == ("float32", "float64")
    assert report["conservation"].tolerance == 1e-6
    assert 0 < report["precision"].measured < 1e-5
    own = check(model, X, in_float64=False)
    assert own.passed
    assert own.measured_in == "float32"
    assert own["conservation"].tolerance == 1e-3
    assert own["precision"].outcome == "not applicable"
    assert all(p.dtype == torch.float32 for p in model.parameters())


class Generous(Rule):
    """Hands on one hundredth more than it received."""

    def __call__(self, call: Call) -> Any:
        return scale_output_gradient(call.run(), 1.01)


def test_a_broken_rule_fails_and_its_module_is_named() -> None:
    report = check(tiny(), IDS, rules={"linear": Generous()})
    assert not report.passed
    failed = report["conservation"]
    assert failed.outcome == "fail"
    assert failed.measured > 1e-4
    assert any(line.startswith("blocks.0.qkv: linear lost") for line in failed.details)
    assert "Generous" in failed.details[0]
    assert "Failed: conservation." in str(report)
    assert outcomes(report)["gradient"] == "pass"  # the table without rules has none


class Changed(Rule):
    """Returns another value."""

    def __call__(self, call: Call) -> Any:
        return call.run() * 1.001


def test_a_rule_that_changes_the_value_fails() -> None:
    report = check(Net(torch.relu), X, rules={"relu": Changed()})
    assert report["forward"].outcome == "fail"
    assert "another value" in report["forward"].sentence


def test_an_unknown_operator_is_named_with_the_line_to_write() -> None:
    report = check(Net(torch.special.i0), X)
    unknown = report["operators"]
    assert unknown.outcome == "fail"
    text = str(report)
    assert 'registry.register("special_i0", "activation")' in text
    assert "special_i0" in report["conservation"].details[0]
    registry.register("special_i0", "activation")
    try:
        assert check(Net(torch.special.i0), X).passed
    finally:
        registry.unregister("special_i0")


def hidden(x: Tensor) -> Tensor:
    return torch.exp(x) * torch.sigmoid(x) - 0.3 * x


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_operators_that_torch_hides_are_found() -> None:
    scripted = torch.jit.script(hidden)
    report = check(Net(scripted), X)
    assert report["conservation"].outcome == "fail"
    assert "went where no operator was seen" in report["conservation"].sentence
    assert report["gradient"].outcome == "pass"


class Thirds(torch.autograd.Function):
    """A backward pass of its own, which the engine cannot see into."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        result: Tensor = gradient * 3 * x**2
        return result


def test_a_custom_autograd_function_is_named() -> None:
    report = check(Net(Thirds.apply), X)
    assert report["operators"].outcome == "fail"
    assert any("Thirds" in line for line in report["operators"].details)


def test_a_model_that_mixes_examples_fails() -> None:
    report = check(Net(lambda x: x - 0.5 * x.mean(0, keepdim=True)), X)
    assert [one.name for one in report.failed] == ["batch"]
    assert "The model itself mixes examples" in report["batch"].sentence


def test_dropout_is_found() -> None:
    model = Net(nn.Dropout(0.5).train())
    report = check(model, X)
    assert report["forward"].outcome == "fail"
    assert "model.eval()" in report["forward"].sentence
    assert model.function.training


def test_a_score_without_relevance_says_why() -> None:
    report = check(Net(lambda x: torch.zeros(1, 6) * x.detach()), X)
    assert report["operators"].outcome == "fail"
    assert "does not depend on inputs" in report["operators"].sentence


def test_batch_norm_in_training_mode_is_refused_before_it_runs() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).train()
    before = model[1].running_mean.clone()
    with pytest.raises(errors.ModelStateError, match="in training mode"):
        check(model, torch.randn(5, 4))
    assert torch.equal(model[1].running_mean, before)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
        check(torch.relu, X)
    with pytest.raises(errors.UnknownNameError, match="neither a kind"):
        check(tiny(), IDS, rules={"nothing": Generous()})
    with pytest.raises(errors.UnknownNameError, match="there is no check 'nothing'"):
        check(tiny(), IDS)["nothing"]


@pytest.mark.parametrize("built_in", ["text-classifier", "image-classifier"])
def test_the_command_on_a_folder(built_in: str, capsys: Any) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    assert main(["check", str(BUILT_IN / built_in)]) == 0
    printed = capsys.readouterr().out
    assert "Passed: the rules hold for this model." in printed
    assert "AttnLRP is the same with fused and with written-out attention" in printed
    if built_in == "text-classifier":
        assert "Padding gets exactly 0" in printed


def test_the_command_fails_with_1(monkeypatch: Any, capsys: Any) -> None:
    pytest.importorskip("transformers")
    import captum_transformer_lrp.checking as checking

    original = checking.check
    monkeypatch.setattr(
        checking,
        "check",
        lambda *a, **k: original(*a, rules={"linear": Generous()}, **k),
    )
    assert main(["check", str(BUILT_IN / "text-classifier"), "--text", "A film."]) == 1
    assert "linear lost" in capsys.readouterr().out


def test_the_command_says_what_it_cannot_load(tmp_path: Path, capsys: Any) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("timm")
    assert main(["check", str(tmp_path / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    folder = str(BUILT_IN / "text-classifier")
    picture = str(tmp_path / "no.png")
    assert main(["check", folder, "--image", picture]) == 2
    assert "is a model of texts" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [pytest.param("minilm-sst2", marks=needs_shared("models/minilm-sst2"))],
)
def test_trained_models_pass(name: str, capsys: Any) -> None:
    pytest.importorskip("transformers")
    folder = Path(__file__).resolve().parents[2] / "shared/models" / name
    assert main(["check", str(folder)]) == 0
