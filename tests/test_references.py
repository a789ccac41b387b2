"""Against the outputs of LXT's own code, from unmodified Hugging Face classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, GradientXInput, LayerTransformerLRP
from captum_transformer_lrp.composites import COMPOSITES
from tests.helpers import REFERENCES, relative

METHODS = {
    "gxi": (GradientXInput, "gradient-x-input"),
    "attnlrp": (AttnLRP, "attnlrp"),
    "cplrp": (CPLRP, "cp-lrp"),
}
BLOCKS = {
    "llama": lambda m: m.model.layers,
    "qwen2": lambda m: m.model.layers,
    "gpt2": lambda m: m.transformer.h,
    "bert": lambda m: m.bert.encoder.layer,
}
#: the reference has no CP-LRP for BERT
PAIRS = [(f, m) for f in BLOCKS for m in METHODS if (f, m) != ("bert", "cplrp")]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}


def load(family: str, attention: str, dtype: torch.dtype) -> tuple[Any, ...]:
    import transformers
    from safetensors.torch import load_file

    folder = REFERENCES / family
    auto = (
        transformers.AutoModelForSequenceClassification
        if family == "bert"
        else transformers.AutoModelForCausalLM
    )
    model = auto.from_pretrained(folder, attn_implementation=attention)
    inputs = load_file(folder / "inputs.safetensors")
    target: Any = inputs["target"]
    if family != "bert":
        target = [(-1, int(t)) for t in target]
    references = load_file(folder / "refs.safetensors")
    return model.to(dtype).eval(), inputs["input_ids"], target, references


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["f32", "f64"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("family", "method"), PAIRS)
def test_equals_lxt(
    family: str, method: str, attention: str, dtype: torch.dtype
) -> None:
    model, ids, target, references = load(family, attention, dtype)
    tag = {torch.float32: "f32", torch.float64: "f64"}[dtype]
    key = f"{method}.{tag}"
    tolerance = TOLERANCE[dtype]
    if method == "gxi" and dtype is torch.float64:
        tolerance = 2e-6  # the reference lifted float32 islands that the model keeps

    class OnEmbeddings(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, embeddings: Tensor) -> Tensor:
            return self.model(inputs_embeds=embeddings).logits

    explainer, composite = METHODS[method]
    embeddings = model.get_input_embeddings()(ids).detach()
    by_feature = explainer(OnEmbeddings().eval()).attribute(embeddings, target=target)
    assert relative(by_feature, references[f"{key}.relevance"]) <= tolerance

    by_token = explainer(model).attribute(ids, target=target)
    assert relative(by_token, references[f"{key}.relevance_token"]) <= tolerance

    blocks = list(BLOCKS[family](model))
    at_blocks = LayerTransformerLRP(
        model, blocks, composite=COMPOSITES[composite]
    ).attribute(ids, target=target)
    # relative to the largest score or relevance: in front of a normalisation that does
    # not see its input's length, Gradient x Input sums to zero in theory
    scale = float(references[f"{key}.logits"].abs().max())
    for i, found in enumerate(at_blocks):
        found = found[0] if isinstance(found, tuple) else found
        expected = references[f"{key}.latent_token.{i}"]
        largest = max(scale, float(expected.abs().max()))
        assert float((found.sum(-1) - expected).abs().max()) <= tolerance * largest
