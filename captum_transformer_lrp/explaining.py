"""Explain any transformer in one call: from a text or a picture to an explanation.

:class:`Explainer` loads a model (or takes a loaded one) and a method once; called with
texts or pictures it asks the model for its predictions and attributes them with one of
the methods of :mod:`captum_transformer_lrp.attribution`, or with any Captum class.
:func:`explain` is the same in one call. Neither adds mathematics of its own.
"""

from __future__ import annotations

import copy
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

import torch
from captum.attr import Attribution
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from ._visible import shortened
from .attribution import methods
from .attribution.calling import attribute_pixels, attribute_tokens, make_method
from .attribution.meaning import finite, meaning_of, notes_on
from .description import describe
from .errors import InputError, ModelStateError
from .explanation import ImageExplanation, TextExplanation
from .explanations import Explanations
from .models.inputs import encode, open_picture, pad, seen_picture
from .models.labels import match_labels
from .models.loading import (
    ImageModel,
    TextModel,
    image_model,
    load_image_model,
    load_text_model,
    named_architectures,
    text_model,
)
from .models.prediction import (
    class_target,
    image_score,
    note_on_spelling,
    select_logits,
    text_score,
    token_target,
)
from .models.texts import Label, Text, Texts, read_texts
from .tasks import is_pipeline, task_named, task_of
from .tasks.explaining import OF_ONE, PipelineExplainer, is_of_one, pipeline_for

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | Path | Image"
Method: TypeAlias = "str | Attribution | type[Attribution]"

_GENERATES = "causal-language-model"

Source = TypeVar("Source", TextModel, ImageModel)
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, eq=False)
class Failure:
    """A text or picture of a list that could not be explained.

    Args:
        number (int): Its place in the list, from 1.
        given (str, Path or PIL.Image.Image): The text or picture.
        error (Exception): Why.
    """

    number: int
    given: Any = field(repr=False)
    error: Exception

    def __str__(self) -> str:
        shown = shortened(str(self.given), 60)
        what = " ".join(str(self.error).split()) or type(self.error).__name__
        return f"{self.number} ({shown or 'empty'}): {what}"


OnError: TypeAlias = Callable[[Failure], object]


class Explainer:
    """A model and a method, loaded once: call it with texts or pictures.

    Args:
        model (str, Path, nn.Module, TextModel, ImageModel or Pipeline, optional): A
            name or folder (see :func:`~captum_transformer_lrp.models.load_text_model`
            and :func:`~captum_transformer_lrp.models.load_image_model`), a loaded model
            in eval mode, or what those functions return; or a pipeline of
            ``transformers``. A name is loaded with the first call. Default: None, the
            built-in models
        method (str, Attribution or type, optional): A name in
            :data:`captum_transformer_lrp.methods`, a Captum class that is built on a
            model alone (``captum.attr.IntegratedGradients``), or an object of any
            Captum class. Default: ``"attnlrp"``
        tokenizer (Any, optional): The tokenizer, where ``model`` is a loaded model of
            texts. Default: None
        transform (Callable, optional): From a PIL image to ``(3, height, width)``, or a
            Hugging Face image processor, where ``model`` is a loaded model of images
            that does not bring its own, as timm models do. Default: None
        class_names (sequence of str, optional): Names of the classes, in the order of
            the logits. Default: None, those that the model knows
        task (str, optional): What the model does, by the name of a pipeline of
            ``transformers`` (``"token-classification"``, ``"question-answering"``; all
            of them are in :data:`captum_transformer_lrp.tasks.TASKS`). It is called
            with the pipeline's own inputs then, and explains what the pipeline answers.
            Default: None, the pipeline's, or that of the model's class
        image_processor, feature_extractor, processor (Any, optional): What prepares the
            inputs of a loaded model for its task. Default: None
        device (str, optional): Where to put a model that is loaded by name.
            Default: None, the CPU
        options (Mapping, optional): Further keyword arguments for ``attribute`` of the
            method, such as ``{"n_steps": 200}`` for a Captum class, or for a method by
            name also what makes it, such as ``{"n_samples": 500, "seed": 1}``.
            Default: None

    A Captum object is used as it was built. On the model itself
    (``NoiseTunnel(AttnLRP(model))``, ``IntegratedGradients(model)``) a copy of it is
    put on the embeddings of the tokens or on the pixels, with baselines (padding tokens
    with special tokens kept; a black picture, 0 where its values are not known) and
    feature masks (tokens; patches) where the method takes them; noise has half the
    standard deviation of the embeddings or pixels. On a layer
    (``LayerIntegratedGradients(model, model.bert.embeddings)``), or
    on a function of yours, it is called with token ids ``(batch, tokens)`` and
    ``additional_forward_args=(attention_mask,)``, and may return ``(batch, tokens)``
    or ``(batch, tokens, features)``, which is summed over the features.

    The methods that compose attention maps give weights, not relevance (see
    ``Explanation.measure``), and to images one for each patch; by name they are made
    with ``own_token="zero"``, since what the token that the score is read from has of
    itself would outshine all others.

    Raises:
        InputError: Arguments that do not belong together.
        UnknownNameError: No method has this name, or a class needs more than a model.
        ModelStateError: A loaded model is in training mode.

    Examples::

        >>> explainer = Explainer("distilbert-base-uncased-finetuned-sst-2-english")
        >>> explainer("A warm and funny film.").save("report.html")
        >>> table = explainer(["Funny.", "Dull."], target="POSITIVE")[0].to_pandas()
    """

    def __init__(
        self,
        model: str | Path | nn.Module | TextModel | ImageModel | None = None,
        method: Method = "attnlrp",
        *,
        tokenizer: Any = None,
        transform: Callable[[Any], Tensor] | None = None,
        class_names: Sequence[str] | None = None,
        task: str | None = None,
        image_processor: Any = None,
        feature_extractor: Any = None,
        processor: Any = None,
        device: str | torch.device | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        check_method(method)
        if isinstance(class_names, str):  # its letters would be names
            raise InputError(
                f"expected class_names= to be a list of names, got {class_names!r}"
            )
        if tokenizer is not None and transform is not None:
            raise InputError(
                "tokenizer= belongs to a model of texts and transform= to one of "
                "pictures: pass one of them"
            )
        if task is not None:
            task_named(task)
        self.model = model
        self.task = task
        self._preparing = {
            "image_processor": image_processor,
            "feature_extractor": feature_extractor,
            "processor": processor,
        }
        self.method = method
        self.tokenizer = tokenizer
        self.transform = transform
        self.class_names = None if class_names is None else tuple(class_names)
        self.device = device
        self.options = dict(options or {})
        self._sources: dict[type, Any] = {}
        self._lock = threading.Lock()
        if isinstance(model, nn.Module):
            _check_mode(model)

    def __call__(
        self,
        text: Any = None,
        image: Any = None,
        *,
        target: Any = None,
        batch_size: int = 8,
        progress: bool | None = None,
        on_error: OnError | None = None,
        **further: Any,
    ) -> Any:
        """Explain what the model predicts.

        A pipeline is called with its own inputs: ``explainer(question=..., context=
        ...)``, ``explainer(text, candidate_labels=[...])``.

        Args:
            text (str, or Path, table or iterable of str, optional): A text, or several,
                explained in batches: a list, or the texts of a file or table (see
                :func:`~captum_transformer_lrp.models.texts.read_texts`). Default: None
            image (str, Path or PIL.Image.Image, or a list of them, optional): A picture
                or its file, or several. Exactly one of ``text`` and ``image`` is
                needed. Default: None
            target (Any, optional): The class to explain by index or name; for a
                language model the next token, by id or as text. Of a pipeline also one
                of :mod:`captum_transformer_lrp.targets`, any function of the model's
                output, or a list of them. Default: None, the prediction of each
            batch_size (int, optional): How many of a list go through the model at once;
                inputs of a pipeline go one by one. Default: 8
            progress (bool, optional): Whether to show a progress bar on stderr.
                Default: None, where there are three batches or more
            **further (Any): Further inputs and options of a pipeline, such as
                ``candidate_labels=``.
            on_error (Callable, optional): Called with a :class:`Failure` for each text
                or picture of a list that cannot be explained; the list goes on without
                it. What cannot be right for any of them, such as an unknown target or
                operator, is raised all the same. Of a batch that fails each is tried
                again alone, so that random methods draw other numbers.
                Default: None, the first error ends the list

        Returns:
            *TextExplanation* or *ImageExplanation*; for several
            :class:`~captum_transformer_lrp.Explanations` of them, a list with a
            report. Labels of a table are kept (``explanation.label``). Of a pipeline
            what its task has: :class:`~captum_transformer_lrp.JointExplanation` for
            several inputs at once, a list where one input has several answers
            (entities, boxes), and for a list of inputs a list of such lists.

        Raises:
            InputError: Not exactly one of ``text`` and ``image``; an empty text, or
                the name of a file as a text; arguments that do not belong together.
            TargetError: The model has no such class, or the text is not one token.
            LoadingError: No model is found under this name.
            ModelStateError: A score is NaN.
            AttentionError: The method needs attention maps, and the model has none or
                such that cannot be mapped to its input.
            UnknownOperatorError: The method cannot explain this model.
        """
        pipeline = self.pipeline
        if pipeline is not None:
            of_texts = isinstance(text, Path) and not pipeline.task.of_files
            read = Texts(name="", rows=(), said="")
            if of_texts or isinstance(text, Texts):
                read = _listed(text)
                text = [row.text for row in read.rows]
            elif isinstance(text, (Iterator, Dataset)):
                given_one_by_one: Any = text
                text = [one for one in given_one_by_one]
            failed = None
            if on_error is not None:

                def failed(number: int, given: Any, error: Exception) -> None:
                    traceback.clear_frames(error.__traceback__)  # they hold tensors
                    on_error(Failure(number=number, given=given, error=error))

            classes, notes = _labels_of(pipeline, read)
            answers = pipeline(text, image, target, further, failed, progress, classes)
            if isinstance(answers, Explanations):
                answers.said = read.said
                answers.notes += notes
            return answers
        if further:
            raise InputError(
                f"{next(iter(further))}= belongs to a task: pass a pipeline of "
                "transformers as model=, or task= with its name"
            )
        if (text is None) == (image is None):
            given = "neither" if text is None else "both"
            raise InputError(f"expected exactly one of text= and image=, got {given}")
        if batch_size < 1:
            raise InputError(f"expected batch_size of at least 1, got {batch_size}")
        rows: list[Any]
        said, notes = "", ()
        if text is None:
            one = not isinstance(image, (list, tuple))
            rows = [image] if one else list(image)
            explain_all: Any = self._explain_images
        else:
            one = isinstance(text, str)
            read = _one(text) if one else _listed(text)
            rows = [(row.text, row.label) for row in read.rows]
            explain_all, said = self._explain_texts, read.said
            if on_error is None:
                for given, _ in rows:
                    _check_text(given)
            labels = [label for _, label in rows]
            if any(label is not None for label in labels):
                rows, notes = self._labelled(rows)

        def explain_some(some: Sequence[Any], progress: bool | None) -> list[Any]:
            if text is not None:
                for given, _ in some:
                    _check_text(given)
            return list(explain_all(some, target, batch_size, progress))

        found: Explanations[Any] = Explanations(said=said, notes=notes)
        if on_error is None or one:
            found += explain_some(rows, progress)
            return found[0] if one else found
        self._check(self.image_model if text is None else self.text_model)
        for numbered in _batches([*enumerate(rows, 1)], batch_size, progress):
            found += _alone_if_need_be(numbered, explain_some, on_error)
        return found

    @property
    def pipeline(self) -> PipelineExplainer | None:
        """What asks a pipeline, where the model is one or ``task`` says what it does.

        Made when it is asked for first. None for the models of texts and of pictures
        that this class asks itself.
        """
        with self._lock:
            if PipelineExplainer not in self._sources:
                self._sources[PipelineExplainer] = self._opened()
            found: PipelineExplainer | None = self._sources[PipelineExplainer]
        return found if found is None else found.by(self.method, self.options)

    def _opened(self) -> PipelineExplainer | None:
        task = self.task
        if task is None and not is_pipeline(self.model):
            task = _task_of(self.model)
            if task is None:
                for name, part in self._preparing.items():
                    if part is not None:
                        raise InputError(f"{name}= belongs to a task: pass task= too")
                return None
        if self.class_names is not None or self.transform is not None:
            name = "transform" if self.class_names is None else "class_names"
            raise InputError(f"{name}= belongs to no pipeline: leave it out")
        pipe = pipeline_for(
            self.model,
            task,
            tokenizer=self.tokenizer,
            device=self.device,
            **self._preparing,
        )
        return PipelineExplainer(pipe, self.method, self.options)

    @property
    def text_model(self) -> TextModel:
        """The model of texts, loaded when it is asked for first."""
        if self.transform is not None:
            raise InputError("transform= belongs to image=; pass tokenizer= for text=")
        return self._source("tokenizer", TextModel, load_text_model, text_model)

    @property
    def image_model(self) -> ImageModel:
        """The model of images, loaded when it is asked for first."""
        if self.tokenizer is not None:
            raise InputError("tokenizer= belongs to text=; pass transform= for image=")
        return self._source("transform", ImageModel, load_image_model, image_model)

    def _source(self, keyword: str, record: type[Source], *how: Any) -> Source:
        """Return the model as a record, opened when it is asked for first."""
        with self._lock:
            if record not in self._sources:
                companion = getattr(self, keyword)
                source = _source(
                    self.model, companion, self.device, keyword, record, *how
                )
                if self.class_names is not None:
                    source = replace(source, class_names=self.class_names)
                self._sources[record] = source
        found: Source = self._sources[record]
        return found

    def attributor(self, source: TextModel | ImageModel) -> Attribution:
        """Return the Captum object that explains a model.

        Args:
            source (TextModel or ImageModel): :attr:`text_model` or
                :attr:`image_model`.
        """
        if not isinstance(self.method, str):
            return make_method(self.method, source.module)
        known: dict[str, Any] = (
            {"tokenizer": source.tokenizer}
            if isinstance(source, TextModel)
            else {"baseline": _black(source)}
        )
        row = methods[self.method]
        return row.make(source.module, row.parted(self.options)[0], **known)

    @property
    def _of_attribute(self) -> Mapping[str, Any]:
        """The options of ``attribute``; the others make the method."""
        if not isinstance(self.method, str):
            return self.options
        return methods[self.method].parted(self.options)[1]

    def _class_names(
        self, source: TextModel | ImageModel, logits: Tensor
    ) -> tuple[str, ...]:
        """Return the names of the classes, for logits ``(batch, classes)``."""
        given = self.class_names
        if given is not None and len(given) != logits.shape[-1]:
            raise InputError(
                f"class_names= has {len(given)} names, and the model "
                f"{logits.shape[-1]} classes"
            )
        return source.class_names

    def with_method(
        self, method: Method, options: Mapping[str, Any] | None = None
    ) -> Explainer:
        """Return an explainer by another method, with the same loaded model.

        Args:
            method (str, Attribution or type): As for the class.
            options (Mapping, optional): As for the class. Default: None
        """
        check_method(method)
        other = copy.copy(self)
        other.method, other.options = method, dict(options or {})
        return other

    def inputs_of(
        self, explanation: TextExplanation | ImageExplanation, image: Any = None
    ) -> tuple[Any, Any]:
        """Return the tensors and the target that an explanation was made of.

        Args:
            explanation (TextExplanation or ImageExplanation): of this model.
            image (str, Path or PIL.Image.Image, optional): The picture that was given,
                for an explanation of one. Default: None

        Returns:
            What ``attribute`` of :meth:`attributor` takes as ``inputs`` and
            ``target``.
        """
        index = explanation.target.index
        if isinstance(explanation, TextExplanation):
            source = self.text_model
            batch = pad(source, [encode(source, explanation.text).ids])
            last = int(batch["attention_mask"].sum()) - 1
            return batch, [(last, index)] if explanation.next_token else index
        device = next(self.image_model.module.parameters()).device
        return _pixels(self.image_model, image)[None].to(device), index

    def _labelled(
        self, rows: Sequence[tuple[str, Label]]
    ) -> tuple[list[Any], tuple[str, ...]]:
        """Return texts with the indices of their classes, and what could not be read.

        A language model's next token has no class, and a regression has none at all:
        its label 0 is a number, not the first class.
        """
        source = self.text_model
        if source.task == _GENERATES or source.activation == "none":
            what = "next token" if source.task == _GENERATES else "number"
            note = f"The labels are left aside: the model predicts a {what}, no class."
            return [(text, None) for text, _ in rows], (note,)
        names = source.class_names
        labels = match_labels([label for _, label in rows], names)
        texts = (text for text, _ in rows)
        return [*zip(texts, labels.indices, strict=True)], labels.notes

    def _check(self, source: TextModel | ImageModel) -> None:
        """Raise what would be wrong for every text or picture."""
        _check_mode(source.module)
        self.attributor(source)

    def _explain_texts(
        self,
        texts: Sequence[tuple[str, int | None]],
        target: int | str | None,
        batch_size: int,
        progress: bool | None,
    ) -> Iterator[TextExplanation]:
        """Yield one explanation per text, given with the index of its true class.

        Padding is neither seen nor attributed.
        """
        source = self.text_model
        _check_mode(source.module)
        attributor = self.attributor(source)
        if source.pad_id is None:
            batch_size = 1
        generates = source.task == _GENERATES
        if generates and self.class_names is not None:
            raise InputError("class_names= belongs to a classifier")
        for chosen in _batches(texts, batch_size, progress):
            encoded = [encode(source, text) for text, _ in chosen]
            batch = pad(source, [e.ids for e in encoded])
            with torch.no_grad():
                logits = select_logits(source.module(**batch))
            if generates:
                last = batch["attention_mask"].sum(dim=1) - 1
                logits = logits[torch.arange(len(chosen)), last]
                index = token_target(source, target, logits.shape[-1])
            else:
                index = class_target(self._class_names(source, logits), target, logits)
            best = logits.argmax(-1).tolist()
            indices = best if index is None else [index] * len(chosen)
            selected: Any = torch.tensor(indices, device=logits.device)
            if generates:
                selected = list(zip(last.tolist(), indices, strict=True))
            found = attribute_tokens(
                attributor,
                source.module,
                batch,
                selected,
                tokenizer=source.tokenizer,
                options=self._of_attribute,
            )
            for row, ((text, label), encoding) in enumerate(
                zip(chosen, encoded, strict=True)
            ):
                values = found.scores[row, : len(encoding.pieces)].numpy()
                delta = None if found.delta is None else float(found.delta[row])
                notes = encoding.notes
                if generates:
                    notes += note_on_spelling(source, target, indices[row], logits[row])
                yield TextExplanation(
                    model=source.name,
                    prediction=text_score(source, logits[row], best[row]),
                    target=text_score(source, logits[row], indices[row]),
                    scores=finite(values, attributor),
                    notes=notes + notes_on(attributor, values, delta),
                    **meaning_of(attributor, source.module),
                    convergence_delta=delta,
                    label=None
                    if label is None or label >= logits.shape[-1]
                    else text_score(source, logits[row], label),
                    text=text,
                    pieces=encoding.pieces,
                    next_token=generates,
                )

    def _explain_images(
        self,
        images: Sequence[Picture],
        target: int | str | None,
        batch_size: int,
        progress: bool | None,
    ) -> Iterator[ImageExplanation]:
        """Yield one explanation per picture; those of one size go in batches."""
        source = self.image_model
        _check_mode(source.module)
        attributor = self.attributor(source)
        device = next(source.module.parameters()).device
        for chosen in _batches(images, batch_size, progress):
            seen = [_pixels(source, image) for image in chosen]
            if len({pixels.shape for pixels in seen}) > 1:
                groups = [[pixels] for pixels in seen]
            else:
                groups = [seen]
            for group in groups:
                batch = torch.stack(group).to(device)
                yield from self._explain_pixels(source, attributor, batch, target)

    def _explain_pixels(
        self,
        source: ImageModel,
        attributor: Attribution,
        batch: Tensor,
        target: int | str | None,
    ) -> Iterator[ImageExplanation]:
        """Yield one explanation for each picture ``(channels, height, width)``."""
        with torch.no_grad():
            logits = select_logits(source.module(batch))
        index = class_target(self._class_names(source, logits), target, logits)
        best = logits.argmax(-1).tolist()
        indices = best if index is None else [index] * len(batch)
        patch_grid, patch_size = source.patch_grid, _patch_size(source, batch)
        by_name = isinstance(self.method, str) and "patch_size" not in self.options
        if by_name and "patch_size" in describe(attributor).needs:
            attributor.patch_size = patch_size
        found = attribute_pixels(
            attributor,
            source.module,
            batch,
            torch.tensor(indices, device=logits.device),
            baseline=_black(source),
            patch_size=patch_size,
            options=self._of_attribute,
        )
        rows, columns = found.scores.shape[2:]
        if (rows, columns) != tuple(batch.shape[2:]):  # not interpolated to the pixels
            patch_grid = rows, columns
        for row, pixels in enumerate(batch):
            summed = found.scores[row].sum(0).numpy()
            image, notes = seen_picture(pixels, source.mean, source.std)
            delta = None if found.delta is None else float(found.delta[row])
            yield ImageExplanation(
                model=source.name,
                prediction=image_score(source, logits[row], best[row]),
                target=image_score(source, logits[row], indices[row]),
                scores=finite(summed, attributor),
                notes=notes + notes_on(attributor, summed, delta),
                image=image,
                **meaning_of(attributor, source.module),
                convergence_delta=delta,
                patch_grid=patch_grid,
            )

    def __repr__(self) -> str:
        name = "built-in models" if self.model is None else str(self.model)
        pipe: Any = self.model
        if is_pipeline(pipe):
            name = f"{pipe.task} by {type(pipe.model).__name__}"
        elif isinstance(self.model, (TextModel, ImageModel)):
            name = self.model.name
        elif isinstance(self.model, nn.Module):
            name = type(self.model).__name__
        return f"Explainer({name}, method={self.method!r})"


@overload  # a str is iterable too, but one text
def explain(
    text: str,
    image: None = None,
    *,
    model: str | Path | nn.Module | TextModel | None = None,
    tokenizer: Any = None,
    class_names: Sequence[str] | None = None,
    method: Method = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
) -> TextExplanation: ...


@overload
def explain(
    text: Path | Iterable[Any],
    image: None = None,
    *,
    model: str | Path | nn.Module | TextModel | None = None,
    tokenizer: Any = None,
    class_names: Sequence[str] | None = None,
    method: Method = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    on_error: OnError | None = None,
) -> Explanations[TextExplanation]: ...


@overload
def explain(
    text: None = None,
    image: Picture = ...,
    *,
    model: str | Path | nn.Module | ImageModel | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    method: Method = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
) -> ImageExplanation: ...


@overload
def explain(
    text: None = None,
    image: list[Picture] | tuple[Picture, ...] = ...,
    *,
    model: str | Path | nn.Module | ImageModel | None = None,
    transform: Callable[[Any], Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    method: Method = "attnlrp",
    target: int | str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    on_error: OnError | None = None,
) -> Explanations[ImageExplanation]: ...


@overload
def explain(
    text: Any = None,
    image: Any = None,
    *,
    model: Any,
    task: str | None,
    **options: Any,
) -> Any: ...


def explain(
    text: Any = None,
    image: Any = None,
    *,
    model: Any = None,
    tokenizer: Any = None,
    transform: Callable[[Any], Tensor] | None = None,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
    image_processor: Any = None,
    feature_extractor: Any = None,
    processor: Any = None,
    method: Method = "attnlrp",
    target: Any = None,
    device: str | torch.device | None = None,
    batch_size: int = 8,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    on_error: OnError | None = None,
    **further: Any,
) -> Any:
    """Explain what a transformer predicts for a text or a picture, in one call.

    The same as ``Explainer(model, method, ...)(text, image, ...)``; to explain more
    than once with one model, keep an :class:`Explainer`.

    Args:
        text (str, or Path, table or iterable of str, optional): A text, or several, as
            for :class:`Explainer`. Default: None
        image (str, Path or PIL.Image.Image, or a list of them, optional): A picture or
            its file, or several. Exactly one of ``text`` and ``image`` is needed.
            Default: None
        model (str, Path, nn.Module, TextModel or ImageModel, optional): As for
            :class:`Explainer`. Default: None, the built-in model
        tokenizer (Any, optional): As for :class:`Explainer`. Default: None
        transform (Callable, optional): As for :class:`Explainer`. Default: None
        class_names (sequence of str, optional): As for :class:`Explainer`.
            Default: None
        task (str, optional): As for :class:`Explainer`, with its inputs as further
            keywords: ``explain(model=..., task="question-answering", question=...,
            context=...)``. Default: None, what the class of the model says
        image_processor (Any, optional): As for :class:`Explainer`. Default: None
        feature_extractor (Any, optional): As for :class:`Explainer`. Default: None
        processor (Any, optional): As for :class:`Explainer`. Default: None
        method (str, Attribution or type, optional): As for :class:`Explainer`.
            Default: ``"attnlrp"``
        target (int or str, optional): The class to explain by index or name; for a
            language model the next token, by id or as text. Default: None, the
            prediction
        device (str, optional): Where to put a model that is loaded by name.
            Default: None, the CPU
        batch_size (int, optional): How many of a list go through the model at once.
            Default: 8
        options (Mapping, optional): As for :class:`Explainer`. Default: None
        progress (bool, optional): Whether to show a progress bar on stderr.
            Default: None, where there are three batches or more
        on_error (Callable, optional): As for :class:`Explainer`: what is called with
            the failures of a list, such as ``failures.append``. Default: None
        **further (Any): Further inputs and options of a pipeline.

    Returns:
        *TextExplanation* or *ImageExplanation*; for several
        :class:`~captum_transformer_lrp.Explanations` of them, a list with a report.

    Raises:
        InputError, TargetError, UnknownNameError, LoadingError, ModelStateError,
            AttentionError, UnknownOperatorError: As :class:`Explainer` says.

    Examples::

        >>> explanation = explain("A warm and funny film.")
        >>> print(explanation)
        >>> explanation.save("report.html")
    """
    check_method(method)
    if text is not None and transform is not None:
        raise InputError("transform= belongs to image=; pass tokenizer= for text=")
    if task is None and image is not None and tokenizer is not None:
        raise InputError("tokenizer= belongs to text=; pass transform= for image=")
    explainer = Explainer(
        model,
        method,
        tokenizer=tokenizer,
        transform=transform,
        class_names=class_names,
        task=task,
        image_processor=image_processor,
        feature_extractor=feature_extractor,
        processor=processor,
        device=device,
        options=options,
    )
    return explainer(
        text,
        image,
        target=target,
        batch_size=batch_size,
        progress=progress,
        on_error=on_error,
        **further,
    )


def _source(
    model: Any,
    companion: Any,
    device: Any,
    keyword: str,
    record: type[Source],
    load: Callable[..., Source],
    describe: Callable[..., Source],
) -> Source:
    """Return the model that the arguments of :func:`explain` describe.

    Args:
        model (Any): What was given as ``model=``.
        companion (Any): What was given as ``tokenizer=`` or ``transform=``.
        device (Any): What was given as ``device=``.
        keyword (str): Which of the two the companion is.
        record (type): :class:`TextModel` or :class:`ImageModel`.
        load (Callable): Loads such a record by name.
        describe (Callable): Describes a loaded module by such a record.
    """
    by_name = model is None or isinstance(model, (str, Path))
    if companion is not None and (by_name or isinstance(model, record)):
        what = "a model loaded by name" if by_name else f"a {record.__name__}"
        raise InputError(f"{keyword}= belongs to a module: {what} brings its own")
    if by_name:
        return load(model, device=device)
    if device is not None:
        raise InputError("device= belongs to a model loaded by name: move this one")
    if isinstance(model, record):
        return model
    if not isinstance(model, nn.Module):
        raise InputError(
            f"expected model= to be a name, a folder, an nn.Module or a "
            f"{record.__name__}, got {type(model).__name__}"
        )
    _check_mode(model)
    return describe(type(model).__name__, model, companion)


#: tasks of models that are asked here, without a pipeline
_OWN_TASKS = ("text-classification", "text-generation", "image-classification")


def _task_of(model: Any) -> str | None:
    """Return the task of a model that only a pipeline understands; None for others."""
    if isinstance(model, nn.Module):
        if getattr(model, "config", None) is None:
            return None
        found = task_of(type(model).__name__)
    elif isinstance(model, (str, Path)):
        named = (task_of(name) for name in named_architectures(model))
        found = next((name for name in named if name is not None), None)
    else:
        return None
    return None if found in _OWN_TASKS else found


def check_method(method: Any) -> None:
    """Check what was given as ``method=`` before a model is loaded for it.

    Raises:
        UnknownNameError: It is no name of a method, no Captum class and no object.
    """
    if isinstance(method, str):
        methods[method]
    else:
        make_method(method, None)


def _one(text: str) -> Texts:
    return Texts(name="text", rows=(Text(number=1, text=text),), said="")


def _listed(texts: Any) -> Texts:
    """Return several texts: of a file or a table those that are not empty."""
    if isinstance(texts, Texts):
        return texts
    if isinstance(texts, (list, tuple)) and all(isinstance(t, str) for t in texts):
        rows = tuple(Text(number=i, text=text) for i, text in enumerate(texts, 1))
        return Texts(name="texts", rows=rows, said="")
    return read_texts(texts)


def _labels_of(
    pipeline: PipelineExplainer, read: Texts
) -> tuple[tuple[int | None, ...], tuple[str, ...]]:
    """Return the true classes of texts of a table, and what a reader should know."""
    labels = [row.label for row in read.rows]
    if all(label is None for label in labels):
        return (), ()
    names = pipeline.task.label_names(pipeline.pipe)
    if names is None:
        return (), (
            "The labels are left aside: what a pipeline answers is not compared with "
            "them.",
        )
    found = match_labels(labels, names)
    return found.indices, found.notes


def _check_text(text: Any) -> None:
    """Raise InputError for what is no text, and for the name of a file."""
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"expected a text with words in it, got {text!r}")
    if Path(text).suffix and os.path.isfile(text):  # False for what is too long
        raise InputError(
            f"expected a text, got the name of the file {text!r}. For the texts in a "
            f"file pass pathlib.Path({text!r}), for a picture image={text!r}."
        )


def _check_mode(model: nn.Module) -> None:
    if model.training:
        raise ModelStateError(
            f"{type(model).__name__} is in training mode, where dropout makes every "
            "explanation another one: call model.eval() first"
        )


def _alone_if_need_be(
    rows: Sequence[tuple[int, Any]],
    explain_some: Callable[[Sequence[Any], bool], list[Any]],
    on_error: OnError,
) -> list[Any]:
    """Explain numbered rows together, or each alone if that fails.

    Args:
        rows (sequence of tuple): The number and what is explained.
        explain_some (Callable): Explains them, without a progress bar, or raises.
        on_error (Callable): Told of each row that cannot be explained alone.
    """
    try:
        return explain_some([given for _, given in rows], False)
    except OF_ONE as error:
        if not is_of_one(error):
            raise
        if len(rows) == 1:
            traceback.clear_frames(error.__traceback__)  # they hold tensors
            ((number, given),) = rows
            if isinstance(given, tuple):  # a text with its label
                given = given[0]
            on_error(Failure(number=number, given=given, error=error))
            return []
    return [
        found
        for row in rows
        for found in _alone_if_need_be([row], explain_some, on_error)
    ]


def _batches(
    items: Sequence[Item], batch_size: int, progress: bool | None
) -> Iterator[Sequence[Item]]:
    """Yield parts of a list, with a progress bar where there are many."""
    starts = range(0, len(items), batch_size)
    hidden = len(starts) < 3 if progress is None else not progress
    for start in tqdm(
        starts, desc="explaining", unit="batch", disable=hidden, leave=False
    ):
        yield items[start : start + batch_size]


def _pixels(source: ImageModel, image: Picture) -> Tensor:
    """Return what the model takes of a picture, ``(channels, height, width)``."""
    pixels = source.transform(open_picture(image))
    if not isinstance(pixels, Tensor) or pixels.dim() != 3 or len(pixels) not in (1, 3):
        got = (
            f"shape {tuple(pixels.shape)}"
            if isinstance(pixels, Tensor)
            else type(pixels).__name__
        )
        raise InputError(
            f"expected the transform to return (3, height, width) or (1, height, "
            f"width), got {got}"
        )
    return pixels


def _black(source: ImageModel) -> Tensor | float:
    """Return a black picture as the model takes it; 0 where that is not known."""
    if source.mean is None or source.std is None:
        return 0.0
    device = next(source.module.parameters()).device
    mean, std = torch.tensor(source.mean), torch.tensor(source.std)
    return (-mean / std).view(1, -1, 1, 1).to(device)


def _patch_size(source: ImageModel, batch: Tensor) -> tuple[int, int]:
    """Return height and width of the model's patches, or a 14th of the longer side."""
    height, width = batch.shape[2:]
    if source.patch_grid is None:
        side = -(-max(height, width) // 14)
        return side, side
    rows, columns = source.patch_grid
    return -(-height // rows), -(-width // columns)
