"""Every method has a trace, and it tells of that method: it sums to what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import captum_transformer_lrp as package
from captum_transformer_lrp import METHODS, AttnLRP, LLMTransformerLRP, PositionalLRP
from captum_transformer_lrp.attribution import BASELINES, ContextLRP
from captum_transformer_lrp.attribution.positional_lrp import Sign
from captum_transformer_lrp.classic.composites import gamma_lrp
from captum_transformer_lrp.errors import LRPError, TraceError
from captum_transformer_lrp.observers.trace import Trace
from tests.helpers import Tiny, tiny
from tests.language.models import language_model, plain, tokens

#: of the sum of the magnitudes that are added up
EXACT = 1e-9
IDS = torch.tensor([[3, 7, 1, 9, 4], [5, 2, 8, 8, 6]])


def flat(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, Mapping):
        found = found.values()
    return [t for part in found if part is not None for t in flat(part)]


def assert_tells_of(trace: Trace, found: list[Tensor], balance: float = EXACT) -> None:
    """The trace sums to what was found, and its records balance."""
    total = sum(float(t.double().sum()) for t in found)
    size = max(sum(float(t.double().abs().sum()) for t in found), 1e-30)
    assert abs(trace.relevance - total) <= EXACT * size, (trace.relevance, total)
    # what the records say, added up one by one, is what becomes of the score
    flow = abs(trace.score) + sum(
        abs(r.received) + abs(r.passed) for r in trace.records if r.kind is None
    )
    flow += trace.scale or 0.0
    rest = trace.score - trace.relevance - sum(r.absorbed for r in trace.records)
    assert abs(rest) <= balance * flow, (rest, flow)
    assert [record.index for record in trace] == list(range(len(trace)))


def methods() -> dict[str, Callable[[nn.Module, dict[str, Any]], Any]]:
    found: dict[str, Any] = {}
    for name, cls in {**METHODS, "positional": PositionalLRP}.items():
        more = {"baseline": 5} if issubclass(cls, ContextLRP) else {}
        found[name] = lambda model, options, cls=cls, more=more: cls(
            model, **more, **options
        )
    found["positional, signed"] = lambda model, options: PositionalLRP(
        model, sign="signed", **options
    )
    found["gamma"] = lambda model, options: package.TransformerLRP(
        model, gamma_lrp(), **options
    )
    found["captum"] = lambda model, options: package.CaptumLRP(model, **options)
    found["owen, two splits"] = lambda model, options: package.OwenLRP(
        model, "cp-lrp", baseline=5, n_splits=2, **options
    )
    return found


MAKERS = methods()


def compare(
    method: Any, *arguments: Any, balance: float = EXACT, **options: Any
) -> bool:
    """The trace is that of attribute, or both refuse; returns whether there is one."""
    try:
        found = method.attribute(*arguments, **options)
    except LRPError as error:
        with pytest.raises(type(error)):
            method.trace(*arguments, **options)
        return False
    assert_tells_of(method.trace(*arguments, **options), flat(found), balance)
    return True


# ------------------------------------------------------------------ on one small model


@pytest.mark.parametrize("name", MAKERS)
def test_a_trace_sums_to_what_the_method_returns(name: str) -> None:
    assert compare(MAKERS[name](tiny(), {}), IDS, target=1)


@pytest.mark.parametrize("inputs", [False, True])
@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp", "alpha-beta"])
def test_a_trace_at_layers(composite: str, inputs: bool) -> None:
    model = tiny()
    for layers in (model.blocks[1], [model.blocks[0].down, model.blocks[1].norm]):
        lrp = package.LayerTransformerLRP(model, layers, composite)
        assert compare(lrp, IDS, 1, attribute_to_layer_input=inputs)
    neuron = package.NeuronTransformerLRP(model, model.blocks[0], composite)
    assert compare(neuron, IDS, (2, 3), attribute_to_neuron_input=inputs)


def test_what_passes_the_layer_is_conserved_above_it() -> None:
    model = tiny()
    trace = package.LayerCPLRP(model, model.blocks[1]).trace(IDS, target=1)
    assert trace.conservation_error < 1e-12  # nothing goes around the last block
    inner = package.LayerCPLRP(model, model.blocks[1].down).trace(IDS, target=1)
    assert inner.unseen < 1e-12 < inner.conservation_error


def test_the_records_of_contexts_carry_their_weights() -> None:
    trace = package.OwenLRP(tiny(), baseline=5, n_splits=2).trace(IDS, target=1)
    assert sorted({(r.run, r.weight) for r in trace}) == [
        (0, 0.5), (1, 0.25), (2, 0.25), (3, 0.25), (4, 0.25),
    ]  # fmt: skip
    alone = AttnLRP(tiny()).trace(IDS, target=1)
    first = [r for r in trace if r.run == 0]
    for record, other in zip(first, alone.records, strict=False):
        assert record.received == pytest.approx(other.received / 2, abs=1e-12)
    assert first[-1].operator == "left out"
    assert first[-1].lost == pytest.approx(0, abs=1e-12)  # all of the whole counts
    assert all(abs(r.lost) > 1e-6 for r in trace if r.run and r.operator == "left out")


def test_a_mean_without_weights_has_no_trace() -> None:
    class Squares(ContextLRP):
        def average(self, parts: Any, whole: Any, relevance: Any) -> list[Tensor]:
            return [r.square() for r in whole]

        def about_contexts(self) -> str:
            return "Squares."

    with pytest.raises(TraceError, match=r"Squares\.average is not linear"):
        Squares(tiny(), baseline=5).trace(IDS, target=1)


def test_the_sign_of_positions_closes_the_balance() -> None:
    model = language_model("llama")
    ids = tokens(6)[None]
    signs: tuple[Sign, ...] = ("absolute", "signed")
    for sign in signs:
        lrp = PositionalLRP(model, sign=sign)
        assert compare(lrp, ids, target=(-1, 4))
        last = lrp.trace(ids, target=(-1, 4)).records[-1]
        parts = lrp.parts(ids, target=(-1, 4))
        assert last.operator == "positions" and sign in last.rule
        assert last.received == pytest.approx(float(parts.positions("signed").sum()))
        assert last.passed == pytest.approx(float(parts.positions(sign).sum()))
        assert last.received < last.passed or sign == "signed"


def test_the_last_record_of_attention_is_what_is_read_out() -> None:
    for cls in (package.CheferLRP, package.AttentionRollout):
        trace = cls(tiny()).trace(IDS, target=1)
        last = trace.records[-1]
        table = package.TransformerLRP(tiny(), cls.composite).trace(IDS, target=1)
        assert last.operator == "attention read out"
        assert last.received == pytest.approx(table.relevance, rel=1e-9)
        assert trace.score == pytest.approx(table.score)
        products = [r for r in trace if r.operator in ("matmul", "linear")]
        for record, other in zip(
            products,
            [r for r in table if r.operator in ("matmul", "linear")],
            strict=True,
        ):
            assert record.received == pytest.approx(other.received, abs=1e-9)
            assert record.passed == pytest.approx(other.passed, abs=1e-9)


def test_maps_of_constants_close_the_balance() -> None:
    """Queries that the model learned attend to the input by a pattern of their own."""

    class Pooled(Tiny):
        def __init__(self) -> None:
            super().__init__(blocks=1)
            self.pattern = nn.Parameter(torch.randn(1, 1, 4, 5))

        def forward(self, input_ids: Tensor) -> Tensor:  # type: ignore[override]
            x = self.blocks[0](self.embedding(input_ids))
            pattern = self.pattern.expand(len(x), -1, -1, -1).softmax(-1)
            return self.head((pattern @ x[:, None]).mean((1, 2)))

    torch.manual_seed(0)
    model = Pooled().double().eval()
    trace = package.AttentionXGradient(model).trace(IDS, target=1)
    assert trace.records[-1].constant != 0
    assert compare(package.AttentionXGradient(model), IDS, target=1)


@pytest.mark.parametrize("positional", [None, "absolute", "signed"])
@pytest.mark.parametrize("attr_target", ["logit", "log_prob", "prob"])
@pytest.mark.parametrize("name", ["llama", "t5", "gpt2"])
def test_a_trace_of_a_language_model(
    name: str, attr_target: Any, positional: Any
) -> None:
    llm = LLMTransformerLRP(
        language_model(name), attr_target=attr_target, positional=positional
    )
    prompts, targets = tokens(10).view(2, 5), tokens(6, 1).view(2, 3)
    for options in ({}, {"include_generated": True}, {"skip_tokens": [4, 9]}):
        results = llm.attribute(prompts, targets, **options)
        trace = llm.trace(prompts, targets, **options)
        assert_tells_of(trace, [result.seq_attr for result in results])
    assert compare_one(llm, tokens(5), tokens(3, 1), contrast=tokens(3, 2))


def compare_one(llm: LLMTransformerLRP, *given: Tensor, **options: Any) -> bool:
    result = llm.attribute(*given, **options)
    assert_tells_of(llm.trace(*given, **options), [result.seq_attr])
    return True


def test_a_language_model_that_conserves() -> None:
    llm = LLMTransformerLRP(plain(), composite="cp-lrp", chunk_size=1)
    trace = llm.trace(tokens(5), tokens(3, 1))
    assert trace.conservation_error < 1e-12
    assert trace.records[-1].operator == "other tokens"
    carried = LLMTransformerLRP(plain(), composite="alpha-beta")
    assert compare_one(carried, tokens(5), tokens(3, 1))


@pytest.mark.parametrize("name", BASELINES)
def test_methods_without_rules_say_that_they_have_no_trace(name: str) -> None:
    with pytest.raises(TraceError, match=r"has no trace: .* hands nothing on"):
        BASELINES[name](tiny()).trace(IDS, target=1)


# ------------------------------------------------------------- on many architectures

#: of the zoo: texts, pictures, both, sounds; encoders, decoders, experts, windows
ARCHITECTURES = [
    "sequence classification/bert",
    "causal LM/gpt2",
    "sequence classification/llama",
    "sequence classification/gemma",
    "sequence classification/mistral",
    "causal LM/qwen2_moe",
    "sequence classification/distilbert",
    "causal LM/bloom",
    "image classification/vit",
    "image classification/swin",
    "seq2seq LM/t5",
    "zero-shot image classification/clip",
    "speech seq2seq/whisper",
    "timm/deit_tiny_distilled_patch16_224",
]


def built(key: str) -> tuple[nn.Module, Any, Any, dict[str, Any]]:
    """Return a model of the zoo, its inputs, a target, and options of its methods."""
    if key.startswith("timm/"):
        timm = pytest.importorskip("timm")
        from tests.zoo.test_families import rebuilt

        name = key.removeprefix("timm/")
        model = timm.create_model(
            name, num_classes=3, img_size=32, patch_size=8, depth=2
        )
        return rebuilt(model, 0), torch.randn(2, 3, 32, 32).double(), 1, {}
    pytest.importorskip("transformers")
    from tests.zoo.transformers_models import entries

    entry = next(e for e in entries() if e.key == key)
    model, inputs, _ = entry.build()
    with torch.no_grad():
        output = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    output = getattr(output, entry.output_field or "logits")
    target = 1 if output.dim() == 2 else (output.shape[1] - 1, 1)
    return model, inputs, target, {"output_field": entry.output_field}


@pytest.mark.slow
@pytest.mark.timeout(1800)
# of a batch of pairs one text is explained for all pictures
@pytest.mark.filterwarnings("ignore::captum_transformer_lrp.errors.PairsWarning")
@pytest.mark.parametrize("key", ARCHITECTURES)
def test_every_method_on_every_architecture(key: str) -> None:
    torch.manual_seed(0)
    model, inputs, target, options = built(key)
    told = []
    for name, make in MAKERS.items():
        method = make(model, options)
        # Llama's norms and others compute in float32 within a float64 model; Bloom's
        # GELU, an autograd function, is no operator that gradient x input would show
        unseen = key.endswith("bloom") and not method.composite.rows
        try:
            if compare(method, inputs, target=target, balance=0.1 if unseen else 1e-6):
                told.append(name)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    assert {"attnlrp", "cp-lrp", "epsilon", "gradient-x-input"} < set(told), told
