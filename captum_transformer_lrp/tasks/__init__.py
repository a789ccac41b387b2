"""Tasks: how models are asked, what they answered, and what that is read from.

:data:`TASKS` has one row for each; a task of yours is a class of :class:`Task` and a
row, ``TASKS["my-task"] = MyTask()``.
"""

from __future__ import annotations

from typing import Any

from ..errors import UnknownNameError, suggestion
from .answers import DocumentQuestionAnswering, QuestionAnswering
from .asking import Asked, Assembled, Question, Read, Task
from .boxes import ObjectDetection, ZeroShotObjectDetection
from .classes import MultipleChoice, TextClassification, ZeroShotClassification
from .entities import TokenClassification
from .generation import Summarization, TextGeneration, TextToText, Translation
from .masks import FillMask
from .pairs import ZeroShotImageClassification
from .pictures import DepthEstimation, ImageClassification
from .prompts import MaskGeneration
from .reads import ReadPicture, ReadText
from .seeing import ImageTextToText, ImageToText, VisualQuestionAnswering
from .segments import ImageSegmentation
from .similarity import FeatureExtraction, SentenceSimilarity
from .sounds import AudioClassification, ReadSound, ZeroShotAudioClassification
from .speech import SpeechRecognition
from .tables import TableQuestionAnswering
from .videos import VideoClassification

__all__ = [
    "TASKS",
    "Asked",
    "Assembled",
    "Question",
    "Read",
    "ReadPicture",
    "ReadSound",
    "ReadText",
    "Task",
    "task_named",
    "task_of",
]

#: the tasks by name
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TextClassification(),
        TokenClassification(),
        FillMask(),
        ZeroShotClassification(),
        QuestionAnswering(),
        DocumentQuestionAnswering(),
        TableQuestionAnswering(),
        MultipleChoice(),
        ImageClassification(),
        ZeroShotImageClassification(),
        ImageSegmentation(),
        DepthEstimation(),
        ObjectDetection(),
        ZeroShotObjectDetection(),
        MaskGeneration(),
        VideoClassification(),
        TextGeneration(),
        TextToText(),
        Translation(),
        Summarization(),
        ImageTextToText(),
        ImageToText(),
        VisualQuestionAnswering(),
        SentenceSimilarity(),
        FeatureExtraction(),
        AudioClassification(),
        ZeroShotAudioClassification(),
        SpeechRecognition(),
    )
}

#: other names of tasks
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}

_HEAR = (
    "Data2VecAudio",
    "Hubert",
    "SEW",
    "SEWD",
    "UniSpeech",
    "UniSpeechSat",
    "Wav2Vec2",
    "Wav2Vec2Bert",
    "Wav2Vec2Conformer",
    "WavLM",
)
_WRITE = ("Moonshine", "Speech2Text", "Whisper")

#: how the class of a model ends -> its task
OF_CLASSES = {
    **{f"{name}ForSequenceClassification": "audio-classification" for name in _HEAR},
    **{
        f"{name}ForConditionalGeneration": "automatic-speech-recognition"
        for name in _WRITE
    },
    "TapasForQuestionAnswering": "table-question-answering",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForMultipleChoice": "multiple-choice",
    "ForImageClassification": "image-classification",
    "CLIPModel": "zero-shot-image-classification",
    "SiglipModel": "zero-shot-image-classification",
    "Siglip2Model": "zero-shot-image-classification",
    "ForSemanticSegmentation": "image-segmentation",
    "ForInstanceSegmentation": "image-segmentation",
    "ForUniversalSegmentation": "image-segmentation",
    "DetrForSegmentation": "image-segmentation",
    "ForDepthEstimation": "depth-estimation",
    "OwlViTForObjectDetection": "zero-shot-object-detection",
    "Owlv2ForObjectDetection": "zero-shot-object-detection",
    "GroundingDinoForObjectDetection": "zero-shot-object-detection",
    "ForObjectDetection": "object-detection",
    "SamModel": "mask-generation",
    "ForVideoClassification": "video-classification",
    "ForConditionalGeneration": "text2text-generation",
    "ForAudioClassification": "audio-classification",
    "ForCTC": "automatic-speech-recognition",
    "ClapModel": "zero-shot-audio-classification",
}


def task_named(name: str) -> Task:
    """Return a task by its name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    known = ALIASES.get(name, name) if isinstance(name, str) else ""
    if known.startswith("translation_"):  # from one language to another
        known = "translation"
    found = TASKS.get(known)
    if found is None:
        raise UnknownNameError(
            f"there is no task {name!r}.{suggestion(str(name), TASKS)}"
        )
    return found


def task_of(architecture: str) -> str | None:
    """Return the name of the task of a class of models; None if it is not known.

    Args:
        architecture (str): Such as ``"BertForTokenClassification"``.
    """
    for ending, name in OF_CLASSES.items():
        if architecture.endswith(ending):
            return name
    return None


def is_pipeline(model: Any) -> bool:
    """Whether it is a pipeline of transformers: a model with what comes before it."""
    return all(
        hasattr(model, n) for n in ("model", "preprocess", "postprocess", "task")
    )
