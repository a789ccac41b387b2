"""Tasks that write, or choose, an answer about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import InputError
from ..explanation import ImageExplanation
from ..models.inputs import open_picture
from ..models.loading import config_names
from ..models.prediction import class_score
from .asking import Asked, Question, Read, Task, chosen, on_device
from .generation import (
    prompt_of,
    question_of_token,
    tokens_written,
    with_limit,
    written_by,
)
from .reads import read_picture, read_text
from .scoring import logits_of, wanted

if TYPE_CHECKING:
    from PIL.Image import Image


class ImageTextToText(Task):
    """What a model writes about pictures and a text, token by token.

    Of each token that was written, the relevance of the words that were read, of those
    written before, and of the patches of each picture.
    """

    name = "image-text-to-text"
    about = "the logit of each token that was written, over words and patches"
    takes = "images=..., text=... with the model's marks for pictures, or a chat"
    several = True

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return pictures and text; ``image=`` is another name for ``images=``."""
        found = dict(further)
        if image is not None:
            found["images"] = image
        if text is not None:
            found["text"] = text
        return super().inputs(None, None, found)

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return texts with their pictures, one by one."""
        texts, images = given.get("text"), given.get("images")
        if not isinstance(texts, (list, tuple)) or not texts:
            return None
        if not isinstance(texts[0], str):
            return super().one_by_one({**given, "text": texts})
        if not isinstance(images, (list, tuple)) or len(images) != len(texts):
            raise InputError(
                f"got {len(texts)} texts; expected as many images=, each a picture or "
                "a list of pictures"
            )
        return [
            {**given, "text": t, "images": i}
            for t, i in zip(texts, images, strict=True)
        ]

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return what the pipeline writes."""
        return pipe(**given)

    def pictures(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the pictures that were given, also those within a chat."""
        images = given.get("images")
        if images is not None:
            return list(images) if isinstance(images, (list, tuple)) else [images]
        found = []
        chat = given.get("text")
        for message in chat if isinstance(chat, (list, tuple)) else ():
            content = message.get("content")
            for part in content if isinstance(content, (list, tuple)) else ():
                image = next(
                    (part[k] for k in ("image", "path", "url") if k in part), None
                )
                if part.get("type") == "image" and image is not None:
                    found.append(image)
        return found

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield one for each token that was written, or for those that are asked for.

        Args:
            asked (Asked): what was asked and answered.
            target (int, str or list of them): the number of a written token, from 0, or
                how it reads.
        """
        call = written_by(asked)
        prompt = prompt_of(asked.pipe, call)
        tokens = tokens_written(asked.pipe, call)[0]
        names = [asked.pipe.tokenizer.decode([int(t)]).strip() for t in tokens]
        pictures = read_pictures(asked.pipe, prompt, self.pictures(asked.given))
        answer = asked.answer
        output = answer[0] if isinstance(answer, list) else answer
        for number in chosen(target, names, "written token") or range(len(tokens)):
            yield question_of_token(
                asked.pipe, prompt, tokens, number, pictures, output
            )


class VisualQuestionAnswering(ImageTextToText):
    """The answer to a question about a picture, chosen or written.

    A model with a list of answers (ViLT) is explained by the logit of the best one, one
    that writes after its prompt token by token. One that writes with a decoder of its
    own (BLIP) is refused. Called with ``image=`` and ``question=``.
    """

    name = "visual-question-answering"
    about = "the logit of an answer, or of each of its tokens"
    takes = "image=..., a picture, and question=..., a text"
    several = False
    loads = "AutoModelForVisualQuestionAnswering"
    prepares = ("processor", "AutoProcessor")

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return picture and question."""
        found = dict(further)
        if isinstance(text, Mapping):
            found |= text
        elif text is not None:
            found.setdefault("question", text)
        if image is not None:
            found["image"] = image
        return found

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return None: one call is one question."""
        return None

    def pictures(self, given: Mapping[str, Any]) -> list[Any]:
        """Return the picture."""
        return [given["image"]]

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the answers, best first, or what the model writes."""
        options = dict(given)
        question, image = options.pop("question", None), options.pop("image", None)
        if not isinstance(question, str) or not question.strip() or image is None:
            raise InputError(
                "expected a picture and a question: explainer(image=..., "
                f"question=...), got image={image!r} and question={question!r}"
            )
        top = int(options.pop("top_k", 5))
        picture = open_picture(image)
        if pipe.processor is not None:
            batch = pipe.processor(images=picture, text=question, return_tensors="pt")
        else:
            batch = pipe.tokenizer(question, return_tensors="pt")
            batch.update(pipe.image_processor(picture, return_tensors="pt"))
        inputs = on_device(pipe, batch)
        with torch.no_grad():
            if pipe.model.can_generate():
                written = pipe.model.generate(**inputs, **with_limit(pipe, options))
                texts = pipe.tokenizer.batch_decode(written, skip_special_tokens=True)
                return [{"answer": one} for one in texts]
            logits = logits_of(pipe.model(**inputs))
        names = config_names(pipe.model.config)
        chances = logits.sigmoid()
        order = chances.argsort(descending=True).tolist()[:top]
        return [{"score": float(chances[i]), "answer": names[i]} for i in order]

    def questions(self, asked: Asked, target: Any) -> Iterator[Question]:
        """Yield why this answer, or why those that are asked for."""
        if asked.calls[0].generated:
            yield from super().questions(asked, target)
            return
        pipe, call = asked.pipe, asked.calls[0]
        logits, names = logits_of(call.output), config_names(pipe.model.config)
        best = int(logits.argmax())
        inputs = call.row(0)
        reads = (
            *read_pictures(pipe, inputs, self.pictures(asked.given)),
            read_text(pipe, inputs, asked.given["question"], name="question"),
        )
        said = {one["answer"]: one for one in asked.answer}
        for index, function, name in wanted(target, names, best):
            if index is None:
                raise InputError(
                    f"expected target= to be an answer or its index, got {name}"
                )
            yield Question(
                inputs=inputs,
                target=function,
                answer=class_score(names, logits, index, "sigmoid"),
                prediction=class_score(names, logits, best, "sigmoid"),
                reads=reads,
                output=said.get(names[index]),
            )


class ImageToText(ImageTextToText):
    """What a model writes about a picture alone: a caption, or the text in it."""

    name = "image-to-text"
    about = "the logit of each token that was written, over patches"
    takes = "a picture"
    loads = "AutoModelForImageTextToText"
    prepares = ("processor", "AutoProcessor")

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return what the model writes."""
        options = dict(given)
        images = options.pop("images", None)
        picture = open_picture(images)
        prepare = pipe.image_processor or pipe.processor
        batch = prepare(images=picture, return_tensors="pt")
        inputs = on_device(pipe, batch)
        with torch.no_grad():
            written = pipe.model.generate(**inputs, **with_limit(pipe, options))
        texts = pipe.tokenizer.batch_decode(written, skip_special_tokens=True)
        return [{"generated_text": one} for one in texts]

    def inputs(
        self, text: Any, image: Any, further: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the picture, also where it was given first."""
        first = text if image is None else image
        return super().inputs(None, first, further)

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return pictures one by one."""
        images = given.get("images")
        if isinstance(images, (list, tuple)):
            return [{**given, "images": one} for one in images]
        return None


# ------------------------------------------------------------------------ pictures read


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadPatches(Read):
    """One picture of several that lie in one row of packed patches, as in Qwen2-VL.

    Args:
        image (PIL.Image.Image): The picture, as large as the patches together.
        start (int): Its first patch.
        grid (tuple of int): Rows and columns of its patches.
        merge (int): Patches stand in squares of so many by so many.
        key (str, optional): Default: ``"pixel_values"``
        name (str, optional): Default: ``"picture"``
    """

    image: Image = field(repr=False)
    start: int
    grid: tuple[int, int]
    merge: int
    key: str = "pixel_values"
    name: str = "picture"

    def explanation(self, scores: Tensor, said: Mapping[str, Any]) -> ImageExplanation:
        """Return the picture with the scores of its patches."""
        rows, columns = self.grid
        side = self.merge
        values = scores.flatten(1).sum(1)[self.start : self.start + rows * columns]
        squares = values.view(rows // side, columns // side, side, side)
        return ImageExplanation(
            scores=squares.transpose(1, 2).reshape(rows, columns).numpy(),
            image=self.image,
            patch_grid=self.grid,
            **said,
        )


def read_pictures(
    pipe: Any, inputs: Mapping[str, Any], images: Sequence[Any]
) -> tuple[Read, ...]:
    """Return the pictures of a model's inputs as a person sees them.

    Args:
        pipe (Any): the pipeline, for how pixels were made.
        inputs (Mapping): what the model was called with.
        images (sequence): what was given.

    Raises:
        InputError: the pixels are of a form that is not known.
    """
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return ()
    grids = inputs.get("image_grid_thw")
    if grids is not None and pixels.dim() == 2:
        return _packed(pipe, grids, images)
    if pixels.dim() < 4:
        raise InputError(
            f"pixel_values of shape {tuple(pixels.shape)} are of a form that is not "
            "known here; explain the model with AttnLRP(model).attribute(inputs, "
            "target=...) and fold the patches yourself"
        )
    count = pixels.shape[:-3].numel()
    if count == 1:
        return (read_picture(pipe, inputs, frame=0),)
    return tuple(
        read_picture(pipe, inputs, frame=number, name=f"picture {number + 1}")
        for number in range(count)
    )


def _packed(pipe: Any, grids: Tensor, images: Sequence[Any]) -> tuple[Read, ...]:
    if len(images) != len(grids):
        raise InputError(
            f"the model reads {len(grids)} pictures, and {len(images)} were given"
        )
    prepare = pipe.image_processor
    size, merge = int(prepare.patch_size), int(prepare.merge_size)
    found, start = [], 0
    for number, (grid, image) in enumerate(zip(grids.tolist(), images, strict=True)):
        frames, rows, columns = grid
        picture = open_picture(image).resize((columns * size, rows * size))
        name = "picture" if len(images) == 1 else f"picture {number + 1}"
        found.append(
            ReadPatches(
                image=picture,
                start=start,
                grid=(rows, columns),
                merge=merge,
                name=name,
            )
        )
        start += frames * rows * columns
    return tuple(found)
