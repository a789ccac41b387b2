"""Models that were quantised, adapted, compiled, tied or spread out."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, GradientXInput, check, errors
from tests.helpers import Tiny, assert_same_state, relative, state_of, tiny

IDS = torch.tensor([[5, 9, 17, 3, 8, 2], [7, 6, 4, 11, 2, 1]])
METHODS = (AttnLRP, CPLRP)


# ------------------------------------------------------------------------- quantised


def quantized(model: nn.Module, **options: Any) -> nn.Module:
    if "fbgemm" not in torch.backends.quantized.supported_engines and (
        "qnnpack" not in torch.backends.quantized.supported_engines
    ):
        pytest.skip("torch has no int8 operators here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what people use
        found: nn.Module = torch.ao.quantization.quantize_dynamic(
            model, options.get("kinds", {nn.Linear}), dtype=torch.qint8
        )
    return found


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
@pytest.mark.parametrize("method", METHODS)
def test_dynamic_int8(method: Any) -> None:
    model = tiny().float()
    int8 = quantized(model)
    with torch.no_grad():
        scores = int8(IDS)[:, 1]
    found, delta = method(int8).attribute(IDS, target=1, return_convergence_delta=True)
    assert found.any()
    torch.testing.assert_close(delta + found.sum(1), scores, atol=1e-5, rtol=1e-5)
    # the oracle: the same weights as floats, whose inputs are not rounded
    floats = copy.deepcopy(model)
    for name, module in int8.named_modules():
        if hasattr(module, "weight") and callable(module.weight):
            with torch.no_grad():
                floats.get_submodule(name).weight.copy_(module.weight().dequantize())
    expected = method(floats).attribute(IDS, target=1)
    assert relative(found, expected) < 0.05
    assert relative(method(model).attribute(IDS, target=1), expected) > 1e-4


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_check_reports_what_rounding_costs() -> None:
    report = check(quantized(tiny().float()), IDS[:1], tolerance=0.1)
    assert report.measured_in == "float32"
    assert report["operators"].outcome == "pass"
    assert report["forward"].outcome == "pass"
    assert "No copy in float64 was made" in report["precision"].sentence


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
def test_quantised_modules_without_a_gradient_are_refused_by_name() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(x + self.lstm(x)[0]).mean(1)
            return result

    model = quantized(Recurrent().eval(), kinds={nn.LSTM})
    with pytest.raises(errors.ModelStateError, match=r"the module 'lstm' \(torch\.ao"):
        AttnLRP(model).attribute(torch.randn(1, 3, 4), target=1)
    with pytest.raises(errors.ModelStateError, match="can be explained by every"):
        GradientXInput(quantized(tiny().float())).attribute(IDS, target=1)


class PackedProduct(torch.autograd.Function):
    """What 4-bit libraries do: unpack, multiply, and a backward pass of their own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(codes, scale)
        return x @ (codes.to(x.dtype) * scale).T

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        codes, scale = ctx.saved_tensors
        return gradient @ (codes.to(gradient.dtype) * scale), None, None


class Linear4bit(nn.Module):
    """A linear layer of packed weights, as bitsandbytes has one under this name."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        self.register_buffer("scale", weight.abs().amax(1, keepdim=True) / 7)
        self.register_buffer("codes", (weight / self.scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = PackedProduct.apply(x, self.codes, self.scale) + self.bias
        return result

    def unpacked(self) -> nn.Linear:
        rows, columns = self.codes.shape
        linear = nn.Linear(columns, rows, dtype=self.scale.dtype)
        with torch.no_grad():
            linear.weight.copy_(self.codes.to(self.scale.dtype) * self.scale)
            linear.bias.copy_(self.bias)
        return linear


#: a layer is known by library and class: as if bitsandbytes had made it
Linear4bit.__module__ = "bitsandbytes.nn.modules"


def with_every_linear(model: nn.Module, make: Any) -> nn.Module:
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear):
                setattr(module, name, make(child))
    return model


@pytest.mark.parametrize("method", METHODS)
def test_packed_weights_by_class_name(method: Any) -> None:
    packed = with_every_linear(tiny(), Linear4bit)
    plain = with_every_linear(tiny(), lambda m: Linear4bit(m).unpacked())
    found = method(packed).attribute(IDS, target=1)
    expected = method(plain).attribute(IDS, target=1)
    assert relative(found, expected) < 1e-12
    trace = CPLRP(packed).trace(IDS, target=1)
    assert trace.loss < 1e-10  # biases inside the modules are told apart
    assert {r.operator for r in trace if r.module.endswith("qkv")} == {"Linear4bit"}


@pytest.mark.parametrize(
    ("name", "module"),
    [("Fancy", "bitsandbytes.nn.modules"), ("Linear4bit", "my_models.layers")],
)
def test_another_name_or_library_is_unknown(name: str, module: str) -> None:
    other = type(name, (nn.Module,), dict(vars(Linear4bit)))
    other.__module__ = module

    def like(self: nn.Module, linear: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(vars(Linear4bit(linear)))

    other.__init__ = like
    model = with_every_linear(tiny(), other)
    with pytest.raises(errors.UnknownOperatorError, match="PackedProduct"):
        AttnLRP(model).attribute(IDS, target=1)


# --------------------------------------------------------------------------- adapted


@pytest.mark.parametrize("method", METHODS)
def test_lora_equals_the_merged_model(method: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        target_modules=["qkv", "out", "up", "down"], r=3, init_lora_weights=False
    )
    adapted = peft.get_peft_model(tiny(), config).double().eval()
    before = state_of(adapted)
    found = method(adapted).attribute(IDS, target=1)
    assert_same_state(before, state_of(adapted))
    plain = method(tiny()).attribute(IDS, target=1)
    assert CPLRP(adapted).trace(IDS, target=1).loss < 1e-10
    merged = adapted.merge_and_unload()
    assert relative(found, method(merged).attribute(IDS, target=1)) < 1e-9
    assert relative(found, plain) > 1e-2  # the adapters do something


def test_check_passes_a_lora_model() -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(target_modules=["qkv"], r=2, init_lora_weights=False)
    adapted = peft.get_peft_model(tiny().float(), config).eval()
    report = check(adapted, IDS[:1])
    assert report.passed, str(report)
    assert report.measured_in == "float64"


@pytest.mark.parametrize("method", METHODS)
def test_tied_weights(method: Any) -> None:
    class Tied(Tiny):
        """Its head reads the table of the embedding."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 20, bias=False)
            self.head.weight = self.embedding.weight

    torch.manual_seed(0)
    tied = Tied().double().eval()
    untied = copy.deepcopy(tied)
    untied.head.weight = nn.Parameter(untied.head.weight.detach().clone())
    assert tied.head.weight is tied.embedding.weight
    found = method(tied).attribute(IDS, target=1)
    assert relative(found, method(untied).attribute(IDS, target=1)) < 1e-12
    assert tied.head.weight is tied.embedding.weight
    assert check(tied, IDS).passed


# ----------------------------------------------------------------- spread, compiled


@pytest.mark.filterwarnings("ignore:The following device_map keys:UserWarning")
@pytest.mark.parametrize("how", ["cpu", "disk", "all on disk"])
@pytest.mark.parametrize("method", METHODS)
def test_dispatched_models(how: str, method: Any, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    expected = method(tiny()).attribute(IDS, target=1)
    model = tiny()
    if how == "all on disk":
        model = accelerate.disk_offload(
            model, tmp_path, execution_device=torch.device("cpu")
        )
    else:
        places = {
            "embedding": "cpu",
            "position": "cpu",
            "dropout": "cpu",
            "blocks.0": "cpu",
            "blocks.1": how,
            "head": "cpu",
        }
        model = accelerate.dispatch_model(
            model, places, main_device="cpu", offload_dir=tmp_path, force_hooks=True
        )
    names = {n: p.device for n, p in model.named_parameters()}
    if how != "cpu":
        assert torch.device("meta") in names.values()
    assert relative(method(model).attribute(IDS, target=1), expected) < 1e-12
    assert names == {n: p.device for n, p in model.named_parameters()}
    if method is CPLRP:
        assert CPLRP(model).trace(IDS, target=1).loss < 1e-10
        assert check(model, IDS).passed


@pytest.mark.parametrize("part", ["the model", "a block", "in place"])
def test_compiled_models_run_as_they_were_written(part: str) -> None:
    expected = AttnLRP(tiny()).attribute(IDS, target=1)
    model: Any = tiny()
    if part == "the model":
        model = torch.compile(model, backend="eager")
    elif part == "a block":
        model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    else:
        model.blocks[1].compile(backend="eager")
    assert relative(AttnLRP(model).attribute(IDS, target=1), expected) < 1e-12
    assert CPLRP(model).trace(IDS, target=1).loss < 1e-10
    assert check(model, IDS).passed
