"""The page of tasks: every task has a row, and every call of a row runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("transformers")
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from captum_transformer_lrp import Explainer
from captum_transformer_lrp.tasks import TASKS
from tests.tasks.test_texts import BOXES, NLI, TAGS, pipe_of, reader_of_documents
from tests.tasks.test_writing import (
    captioner,
    chooser,
    llava,
    pipe_of_writer,
    source_to_target,
    writer,
)
from tests.tasks.tiny import bert, word_pieces
from tests.tasks.tiny_sounds import clap, ctc, noise, waves

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
ROW = re.compile(r"^\| ([a-z0-9-]+) (?:° )?\| `(explainer\(.*?\))` \|", re.MULTILINE)
CALLS = dict(ROW.findall(PAGE))
PICTURE = Image.fromarray(np.full((40, 50, 3), 120, dtype=np.uint8))


def of_parts(kind: Any, task: str) -> Explainer:
    return Explainer(bert(kind), task=task, tokenizer=word_pieces())


def of_pipe(task: str, kind: Any, *names: str) -> Explainer:
    return Explainer(pipe_of(task, kind, *names, seed=7))


MADE: dict[str, Any] = {
    "text-classification": lambda task: of_pipe(
        task, BertForSequenceClassification, "bad", "good"
    ),
    "token-classification": lambda task: of_pipe(
        task, BertForTokenClassification, *TAGS
    ),
    "fill-mask": lambda task: of_pipe(task, BertForMaskedLM),
    "zero-shot-classification": lambda task: of_pipe(
        task, BertForSequenceClassification, *NLI
    ),
    "question-answering": lambda task: of_parts(BertForQuestionAnswering, task),
    "document-question-answering": lambda task: Explainer(reader_of_documents()),
    "multiple-choice": lambda task: of_parts(BertForMultipleChoice, task),
    "text-generation": lambda task: Explainer(
        pipe_of_writer(task, writer(), tokenizer=word_pieces(), max_new_tokens=2)
    ),
    "text2text-generation": lambda task: source_to_target(task),
    "translation": lambda task: source_to_target(task),
    "summarization": lambda task: source_to_target(task),
    "image-text-to-text": lambda task: Explainer(
        pipe_of_writer(task, llava()[0], processor=llava()[1], max_new_tokens=1)
    ),
    "image-to-text": lambda task: captioner(),
    "visual-question-answering": lambda task: chooser(),
    "sentence-similarity": lambda task: of_parts(BertModel, task),
    "feature-extraction": lambda task: of_pipe(task, BertModel),
    "audio-classification": lambda task: Explainer(waves()),
    "zero-shot-audio-classification": lambda task: Explainer(clap()),
    "automatic-speech-recognition": lambda task: Explainer(ctc()),
}


def test_every_task_has_a_row():
    assert set(CALLS) == set(TASKS)


@pytest.mark.parametrize("task", [*CALLS])
def test_the_call_of_a_row_runs(task):
    explainer = MADE[task](task)
    given = {"picture": PICTURE, "boxes": BOXES, "sound": noise(0.05)}
    found = eval(CALLS[task], {"explainer": explainer, **given})
    for one in found if isinstance(found, list) else [found]:
        assert str(one)
