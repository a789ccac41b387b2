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

from captum_transformer_lrp import CPLRP, Explainer
from captum_transformer_lrp.tasks import TASKS
from captum_transformer_lrp.tasks.explaining import PipelineExplainer
from tests.tasks.test_pictures import pipe_of as pipe_of_picture
from tests.tasks.test_tables import TABLE, reader_of_tables
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
from tests.tasks.tiny_pictures import (
    classifier,
    clip,
    detr,
    dpt,
    owl,
    sam,
    segformer,
    video_classifier,
)
from tests.tasks.tiny_sounds import clap, ctc, noise, waves

PAGE = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text()
ROW = re.compile(r"^\| ([a-z0-9-]+) (?:° )?\| `(explainer\(.*?\))` \|", re.MULTILINE)
CALLS = dict(ROW.findall(PAGE))
PICTURE = Image.fromarray(np.full((40, 50, 3), 120, dtype=np.uint8))


def of_parts(kind: Any, task: str) -> Explainer:
    return Explainer(bert(kind), task=task, tokenizer=word_pieces())


def of_picture(task: str, parts: Any) -> Explainer:
    return Explainer(pipe_of_picture(task, parts))


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
    "table-question-answering": lambda task: Explainer(reader_of_tables()),
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
    "image-classification": lambda task: of_picture(
        task, classifier("cat", "dog", seed=1)
    ),
    "zero-shot-image-classification": lambda task: of_picture(task, clip()),
    "image-segmentation": lambda task: of_picture(task, segformer()),
    "depth-estimation": lambda task: of_picture(task, dpt()),
    "object-detection": lambda task: of_picture(task, detr()),
    "zero-shot-object-detection": lambda task: of_picture(task, owl()),
    "mask-generation": lambda task: Explainer(sam()[0], task=task, processor=sam()[1]),
    "video-classification": lambda task: Explainer(
        video_classifier()[0], task=task, image_processor=video_classifier()[1]
    ),
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
    given |= {"frames": [PICTURE] * 4, "table": TABLE}
    found = eval(CALLS[task], {"explainer": explainer, **given})
    for one in found if isinstance(found, list) else [found]:
        assert str(one)


#: explained by pairs, or all tokens at once
_NOT_BY_QUESTIONS = {
    "feature-extraction",
    "sentence-similarity",
    "summarization",
    "text-generation",
    "text2text-generation",
    "translation",
}


@pytest.mark.parametrize("task", sorted(set(CALLS) - _NOT_BY_QUESTIONS))
def test_relevance_and_constants_make_up_the_score_of_every_answer(task, monkeypatch):
    """Asked of the trace: the convergence delta is the rest by definition."""
    explained, asked = PipelineExplainer.explain, []

    def noting(self: Any, question: Any) -> Any:
        found = explained(self, question)
        asked.append((question, found, question.function or self.pipe.model))
        return found

    monkeypatch.setattr(PipelineExplainer, "explain", noting)
    explainer = MADE[task](task).with_method("cp-lrp")
    given = {"picture": PICTURE, "boxes": BOXES, "sound": noise(0.05)}
    given |= {"frames": [PICTURE] * 4, "table": TABLE}
    eval(CALLS[task], {"explainer": explainer, **given})
    assert asked
    for question, found, function in asked[:3]:
        trace = CPLRP(function).trace(dict(question.inputs), target=question.target)
        assert trace.score == pytest.approx(found.logit, rel=1e-6, abs=1e-9)
        assert trace.relevance == pytest.approx(found.relevance_sum, rel=1e-6, abs=1e-9)
        assert trace.conservation_error < 1e-6


def test_the_readme_counts_the_tasks():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert f"[{len(TASKS)} tasks](docs/tasks.md)" in readme
