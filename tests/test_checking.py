"""`check` passes what holds, and names what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CheckReport, check, errors, registry
from captum_transformer_lrp.cli import main
from captum_transformer_lrp.core.call import Call
from captum_transformer_lrp.core.gradients import scale_output_gradient
from captum_transformer_lrp.core.rules.base import Rule
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
        "cuts": "pass",
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


# ------------------------------------------------- nothing ends in a traceback


class Rows(nn.Module):
    """Bound to a number of examples."""

    def __init__(self, examples: int) -> None:
        super().__init__()
        self.examples = examples
        self.map = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.map(x.view(self.examples, 4))
        return scores


class Refusing(nn.Module):
    """Wants one example, by an assertion."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        assert len(x) == 1, "one at a time"
        scores: Tensor = self.map(x)
        return scores


def exported(x: Tensor) -> nn.Module:
    module: nn.Module = torch.export.export(Net(torch.relu), (x,)).module()
    return module


@pytest.mark.parametrize(
    ("make", "examples", "what", "reason"),
    [
        (lambda x: Rows(1), 1, "two examples", "RuntimeError: shape"),
        (lambda x: Rows(2), 2, "one example alone", "RuntimeError: shape"),
        (lambda x: Refusing(), 1, "two examples", "AssertionError: one at a time"),
        (exported, 1, "two examples", "Guard failed"),
        (exported, 3, "one example alone", "Guard failed"),
    ],
)
def test_a_model_bound_to_a_batch_size_is_measured_without_other_sizes(
    make: Any, examples: int, what: str, reason: str
) -> None:
    x = torch.linspace(-1, 1, 4 * examples).view(examples, 4)
    report = check(make(x), x)
    assert report.passed
    assert report["batch"].outcome == "not applicable"
    start = "Could not be measured because the model does not run with " + what
    assert report["batch"].sentence.startswith(start)
    assert reason in report["batch"].sentence
    assert report["conservation"].measured < 1e-12


class Failing(nn.Module):
    """Raises at a call of its number."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)
        self.at = at
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.at:
            raise KeyError("nothing here")
        scores: Tensor = self.map(x)
        return scores


@pytest.mark.parametrize(
    ("at", "name"), [(1, "model"), (2, "model"), (4, "operators"), (5, "forward")]
)
def test_an_error_of_the_model_is_a_line_wherever_it_comes(at: int, name: str) -> None:
    report = check(Failing(at), X)
    failed = report[name]
    assert failed.outcome == "fail" and not report.passed
    assert "KeyError: 'nothing here' (test_checking.py:" in failed.sentence
    assert "in forward)" in failed.sentence
    assert ("before anything is explained" in failed.sentence) == (name == "model")
    assert report["untouched"].outcome == "pass"


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)

    def forward(self, *, input_values: Tensor, scale: float) -> Tensor:
        scores: Tensor = self.map(input_values) * scale
        return scores


def test_keywords_come_from_a_mapping() -> None:
    assert check(ByKeyword(), {"input_values": X, "scale": 2.0}).passed
    for inputs, called in ((X, "model(*inputs, ...)"), ({"input_values": X}, "**")):
        report = check(ByKeyword(), inputs)
        assert "TypeError: " in report["model"].sentence
        assert called in report["model"].sentence


def ending(function: Any) -> nn.Module:
    model = Net(torch.relu)
    model.register_forward_hook(lambda *given: function(given[-1]))
    return model


@pytest.mark.parametrize(
    ("function", "name", "sentence"),
    [
        (
            lambda z: z.log_softmax(-1),
            "conservation",
            "Explain the logits z, without the log-softmax at the end.",
        ),
        (
            lambda z: torch.special.log_softmax(z, -1),
            "conservation",
            "relevance of log-probabilities does not sum to them",
        ),
        (lambda z: z.softmax(-1), "operators", "Explain logits rather than prob"),
    ],
)
def test_what_does_not_sum_at_the_end_is_named(
    function: Any, name: str, sentence: str
) -> None:
    failed = check(ending(function), X)[name]
    assert failed.outcome == "fail" and sentence in failed.sentence
    assert "Give these modules" not in failed.sentence


def test_a_score_of_zero_and_a_float64_copy_that_fails_are_said() -> None:
    dead = nn.Sequential(nn.Linear(4, 3), nn.Threshold(100.0, 0.0))
    report = check(dead, X)
    assert report.passed
    assert (
        report["attnlrp"].sentence == "The score is exactly 0, and so is all relevance."
    )

    class Casts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.map(x.float())
            return scores

    assert check(Casts(), X)["precision"].outcome == "not applicable"
    wanted = check(Casts(), X, in_float64=True)["precision"]
    assert (
        wanted.outcome == "fail" and "the copy fails with RuntimeErr" in wanted.sentence
    )


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = self.map(x)
        scores: Tensor = found.to_padded_tensor(0.0).sum(1) if x.is_nested else found
        return scores


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors() -> None:
    parts = [torch.randn(2, 4), torch.randn(3, 4)]
    jagged = torch.nested.nested_tensor(parts, layout=torch.jagged)
    report = check(Padded(), jagged)
    assert report.passed and report["conservation"].measured < 1e-12
    for name in ("gradient", "batch"):
        assert report[name].outcome == "not applicable"
    strided = torch.nested.nested_tensor(parts)
    refused = check(Padded(), strided)["operators"].sentence
    assert "expected layout=torch.jagged" in refused
    with pytest.raises(errors.OutputError, match="returned a nested tensor"):
        check(nn.Linear(4, 3), jagged)


def test_a_frozen_branch_is_named() -> None:
    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                hidden = self.branch(x)
            scores: Tensor = self.last(x + hidden)
            return scores

    report = check(Frozen(), X)
    assert report.passed
    assert report["cuts"].details == ("branch: linear, under torch.no_grad",)
    assert report["cuts"].sentence.startswith(
        "The model itself cuts relevance off here"
    )
    nowhere = check(Net(torch.relu), X)["cuts"]
    assert nowhere.details == () and "nowhere detaches" in nowhere.sentence


class Default(nn.Module):
    """A neighbour without observations takes the mean of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        usual = (x[:, :1] > 0).to(x.dtype)
        scores: Tensor = self.map(usual * x + (1 - usual) * x.mean(0))
        return scores


def test_a_neighbour_that_depends_on_the_first_is_the_models_own_mixing() -> None:
    x = torch.tensor([[0.5, 0.3, -0.7, 0.4]])  # flipped, it starts below 0
    report = check(Default(), x)
    assert report["batch"].outcome == "fail"
    assert "The model itself mixes examples" in report["batch"].sentence


def test_segment_anything_and_inputs_whose_relevance_is_rounding() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8, "mlp_ratio": 2.0, "window_size": 2,
            "output_channels": 16, "global_attn_indexes": [1], "num_pos_feats": 8,
        },
        prompt_encoder_config={
            "hidden_size": 16, "image_size": 32, "patch_size": 8,
            "mask_input_channels": 4,
        },
        mask_decoder_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
            "mlp_dim": 16, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    model = transformers.SamModel(config).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with pytest.raises(errors.OutputError, match="output_field='iou_scores'"):
        check(model, {"pixel_values": pixels})
    for field in ("iou_scores", "pred_masks"):
        report = check(model, {"pixel_values": pixels}, output_field=field)
        assert report.passed, report
