"""Videos: frames, one behind the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..models.loading import config_names
from ..models.prediction import class_score
from .asking import on_device
from .classes import Classification
from .pictures import PictureTask, as_picture
from .reads import ReadPicture, read_picture
from .scoring import logits_of


class VideoClassification(PictureTask, Classification):
    """The class of a video: its logit is explained, frame by frame.

    Called with frames: a list of pictures, or an array ``(frames, height, width, 3)``
    of bytes, as many as the model reads. A pipeline of ``transformers`` takes files,
    too, which it reads with the package av.
    """

    alone = "softmax"
    name = "video-classification"
    about = "the logit of a class of a video"
    takes = "the frames of a video: a list of pictures, or an array of bytes"
    loads = "AutoModelForVideoClassification"
    prepares = ("image_processor", "AutoImageProcessor")

    def one_by_one(self, given: Mapping[str, Any]) -> list[dict[str, Any]] | None:
        """Return the videos of a list of them; None for a single one."""
        videos = given.get("image")
        if not isinstance(videos, (list, tuple)) or not all(
            isinstance(one, (str, list, tuple))
            or (isinstance(one, (np.ndarray, Tensor)) and one.ndim == 4)
            for one in videos
        ):
            return None
        return [{**given, "image": one} for one in videos]

    def run(self, pipe: Any, given: Mapping[str, Any]) -> Any:
        """Return the likeliest classes with their probabilities."""
        video = given.get("image")
        if isinstance(video, str) and callable(pipe):
            return super().run(pipe, given)
        frames = _frames(video, self.takes)
        config = pipe.model.config
        reads = next(
            (
                int(getattr(config, name))
                for name in ("num_frames", "frames_per_clip")
                if getattr(config, name, None)
            ),
            len(frames),
        )
        if len(frames) != reads:
            raise InputError(
                f"the model reads {reads} frames, got {len(frames)}: choose {reads}"
            )
        prepare = next(
            found
            for name in ("video_processor", "image_processor", "processor")
            if (found := getattr(pipe, name, None)) is not None
        )
        made = prepare(frames, return_tensors="pt")
        with torch.no_grad():
            logits = logits_of(pipe.model(**on_device(pipe, made)))
        names = config_names(config)
        activation = self.activation(given.get("function_to_apply"), config)
        top = min(int(given.get("top_k", 5)), len(logits))
        listed = [
            class_score(names, logits, i, activation)
            for i in logits.argsort(descending=True).tolist()[:top]
        ]
        return [
            {
                "label": one.name,
                "score": one.logit if one.probability is None else one.probability,
            }
            for one in listed
        ]

    def read(
        self, pipe: Any, given: Mapping[str, Any], inputs: Mapping[str, Any]
    ) -> tuple[ReadPicture, ...]:
        """Return the frames."""
        key = "pixel_values" if "pixel_values" in inputs else "pixel_values_videos"
        return tuple(
            read_picture(pipe, inputs, frame=i, key=key, name=f"frame {i + 1}")
            for i in range(inputs[key].shape[1])
        )


def _frames(video: Any, takes: str) -> list[Any]:
    """Return the frames of a video as arrays ``(height, width, 3)`` of bytes."""
    if isinstance(video, Tensor):
        video = video.cpu().numpy()
    if isinstance(video, np.ndarray) and video.ndim == 4:
        video = list(video)
    if isinstance(video, str):
        raise InputError(
            f"expected {takes}, got the name of a file, {video!r}: pass a pipeline of "
            "transformers, which reads it with the package av"
        )
    if not isinstance(video, (list, tuple)) or not video:
        raise InputError(f"expected {takes}, got {type(video).__name__}")
    frames = [np.array(as_picture(one)) for one in video]  # which may be written into
    if any(one.dtype != np.uint8 or one.ndim != 3 for one in frames):
        raise InputError(f"expected {takes}, got frames of another kind")
    return frames
