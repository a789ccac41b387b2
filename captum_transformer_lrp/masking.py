"""Masks for a model of texts: from a file of sentences to a heat map.

:class:`TextMasks` joins what :class:`~captum_transformer_lrp.DiffMask` needs and its
pictures: the model with its tokenizer, batches of texts, the trained masks and their
folder. It adds no mathematics of its own.

    >>> masks = TextMasks.fit(read_texts("sentences.txt"), steps=600)
    >>> masks.save("masks")
    >>> TextMasks.load("masks").maps(["A warm and funny film."])[0].save("map.html")
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from ._files import write
from ._packages import require
from .diffmask import DiffMask
from .errors import InputError
from .models.inputs import encode, pad
from .models.loading import TextModel, load_text_model
from .models.prediction import select_logits, text_score
from .models.special_tokens import special_ids
from .models.texts import read_texts as texts_of
from .models.texts import unpacked_text
from .visualization.states import KeptMap, state_names

FORMAT = 1
SETTINGS = "texts.json"
# Batches whose texts are sorted by length before they are cut: little padding, and
# still batches of random texts.
_BUCKET = 50


@dataclass(frozen=True, kw_only=True)
class TextMasks:
    """Trained masks with the model and the tokenizer that they belong to.

    Args:
        mask (DiffMask): The masks, trained.
        source (TextModel): The model and its tokenizer.
        model_source (str, optional): The name or folder that the model is loaded from
            again; ``""`` is the built-in one. None for a model that was given loaded.
        name (str): What reports call the masks, such as their folder.
        data (dict): How the masks were trained: what :meth:`save` writes beside them.
    """

    mask: DiffMask = field(repr=False)
    source: TextModel
    model_source: str | None
    name: str
    data: dict[str, Any] = field(repr=False)

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        model: str | Path | TextModel | None = None,
        *,
        validation: Sequence[str] | None = None,
        steps: int | None = None,
        batch_size: int = 24,
        mode: Literal["hidden", "input"] = "hidden",
        recipe: str = "fast",
        margin: float | None = None,
        keep_special_tokens: bool = False,
        seed: int = 0,
        checkpoint: str | Path | None = None,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> TextMasks:
        """Train masks for a model on texts; labels are not needed.

        Args:
            texts (sequence of str): What the model is to be masked on.
            model (str, Path or TextModel, optional): A name or folder (see
                :func:`~captum_transformer_lrp.models.load_text_model`), or what that
                function returns. Default: None, the built-in classifier
            validation (sequence of str, optional): What the final report is made on.
                Default: 512 of the texts
            steps (int, optional): Optimiser steps. Default: the recipe's
            batch_size (int, optional): Texts per step. Default: 24
            mode (str, optional): ``"hidden"`` or ``"input"``. Default: ``"hidden"``
            recipe (str, optional): ``"fast"`` or ``"paper"``. Default: ``"fast"``
            margin (float, optional): What masks may cost on average, in nats.
                Default: that of ``DiffMask``, a few per cent of what masking all costs
            keep_special_tokens (bool, optional): Whether masks must keep what the
                tokenizer adds, such as [CLS]; the paper masks it. Default: False
            seed (int, optional): Of the order of the texts, the first weights and the
                noise. Default: 0
            checkpoint (str or Path, optional): A file that the training is written to
                and goes on from. Default: None
            device (str, optional): Where to put a model that is loaded by name.
                Default: None, the CPU
            progress (bool, optional): Whether to show a bar. Default: True

        Raises:
            InputError: A text is not a text with words in it; the model cannot read
                several texts at once; all that :meth:`DiffMask.fit` refuses.
            LoadingError: No model is found under this name.
        """
        source, model_source = _model(model, device)
        batches = text_batches(source, texts, batch_size=batch_size, seed=seed)
        held_out = (
            None
            if validation is None
            else text_batches(source, validation, batch_size=batch_size, seed=seed)
        )
        tokenizer = source.tokenizer
        divergences = {"sigmoid": "bernoulli", "none": "gaussian"}
        causal = source.task == "causal-language-model"
        mask = DiffMask(
            source.module,
            mode=mode,
            recipe=recipe,
            margin=margin,
            divergence="next-token"
            if causal
            else divergences.get(source.activation, "categorical"),
            mask_token_id=tokenizer.mask_token_id if mode == "input" else None,
            never_mask=special_ids(tokenizer) if keep_special_tokens else (),
        )
        history = mask.fit(
            batches,
            steps=steps,
            validation=held_out,
            seed=seed,
            checkpoint=checkpoint,
            progress=progress,
        )
        assert history.report is not None
        data = {
            "texts": len(texts),
            "validation_texts": None if validation is None else len(validation),
            "batch_size": batch_size,
            "seed": seed,
            "report": history.report.to_records(),
        }
        return cls(
            mask=mask,
            source=source,
            model_source=model_source,
            name="trained in this session",
            data=data,
        )

    def save(self, folder: str | Path) -> Path:
        """Write the masks, and which model they are for, into a folder.

        Beside what ``DiffMask.save`` writes stands ``texts.json``: the name of the
        model, how many texts there were, and the report.

        Returns:
            *Path*: The folder.
        """
        folder = self.mask.save(folder)
        settings = {
            "format": FORMAT,
            "model": {"name": self.source.name, "source": self.model_source},
            **self.data,
        }
        text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
        write(folder / SETTINGS, text)
        return folder

    @classmethod
    def load(
        cls,
        folder: str | Path,
        model: str | Path | TextModel | None = None,
        *,
        device: str | torch.device | None = None,
    ) -> TextMasks:
        """Read masks and load their model.

        Args:
            folder (str or Path): Written by :meth:`save`, or by ``DiffMask.save`` for a
                model of texts.
            model (str, Path or TextModel, optional): The model that they were trained
                for. Default: None, the one that the folder names
            device (str, optional): As for :meth:`fit`. Default: None

        Raises:
            InputError: The folder holds no masks, or masks for another model.
            LoadingError: The model is not found.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(
                f"there is no folder {str(folder)!r} with masks; write them with "
                "captum-transformer-lrp diffmask fit --output, or TextMasks.save"
            )
        settings = _read_settings(folder / SETTINGS)
        known = settings.get("model", {})
        named = known.get("source") if isinstance(known, dict) else None
        if model is None and named is None:
            raise InputError(
                f"the masks in {str(folder)!r} do not say which model they were "
                "trained for: name it (--model, or model=)"
            )
        if model is None:
            model = named or None
        source, model_source = _model(model, device)
        keys = ("texts", "validation_texts", "batch_size", "seed", "report")
        return cls(
            mask=DiffMask.load(folder, source.module),
            source=source,
            model_source=model_source,
            name=str(folder),
            data={key: settings[key] for key in keys if key in settings},
        )

    def maps(
        self, texts: Sequence[str], *, batch_size: int = 8, progress: bool = True
    ) -> list[KeptMap]:
        """Return what is kept of each text at each hidden state.

        Args:
            texts (sequence of str): The texts.
            batch_size (int, optional): How many go through the model at once.
                Default: 8
            progress (bool, optional): Whether many texts show a bar. Default: True

        Raises:
            InputError: A text is not a text with words in it.
        """
        _check_texts(texts)
        if self.source.pad_id is None:
            batch_size = 1
        found = []
        starts = range(0, len(texts), batch_size)
        for start in tqdm(
            starts,
            desc="masking",
            unit="batch",
            disable=not progress or len(starts) < 3,
            leave=False,
        ):
            found += self._maps(texts[start : start + batch_size])
        return found

    def _maps(self, texts: Sequence[str]) -> list[KeptMap]:
        """Return the maps of one batch."""
        source = self.source
        encoded = [encode(source, text) for text in texts]
        batch = pad(source, [e.ids for e in encoded])
        causal = source.task == "causal-language-model"
        with torch.no_grad():
            logits = select_logits(source.module(**batch))
        if causal:
            last = batch["attention_mask"].sum(dim=1) - 1
            logits = logits[torch.arange(len(texts)), last]
        kept = self.mask.attribute(batch).cpu().double().numpy()
        never = set(self.mask.never_mask)
        margin = self.mask.margin
        assert margin is not None  # masks are trained
        maps = []
        for row, (text, encoding) in enumerate(zip(texts, encoded, strict=True)):
            fixed = tuple(i in never for i in encoding.ids["input_ids"])
            maps.append(
                KeptMap(
                    model=source.name,
                    text=text,
                    pieces=encoding.pieces,
                    states=self.mask.states,
                    kept=kept[row, :, : len(encoding.pieces)],
                    prediction=text_score(
                        source, logits[row], int(logits[row].argmax())
                    ),
                    mode=self.mask.mode,
                    margin=margin,
                    masks=self.name,
                    always_kept=fixed if any(fixed) else (),
                    next_token=causal,
                    notes=encoding.notes + self._notes(),
                )
            )
        return maps

    def _notes(self) -> tuple[str, ...]:
        """Return where the training did not come within its margin."""
        beyond = [
            record["state"]
            for record in self.data.get("report", ())
            if not record["converged"]
        ]
        if not beyond:
            return ()
        labels = dict(
            zip(self.mask.states, state_names(self.mask.states).labels, strict=True)
        )
        listed = ", ".join(labels.get(state, state) for state in beyond)
        return (
            f"At {listed} the masks cost more than the margin when they were trained: "
            "what is dropped there may be needed.",
        )


def _model(
    model: str | Path | TextModel | None, device: str | torch.device | None
) -> tuple[TextModel, str | None]:
    """Return the model, and what to load it from again."""
    if isinstance(model, TextModel):
        if device is not None:
            raise InputError("device= belongs to a model loaded by name: move this one")
        return model, None
    if model is None:
        return load_text_model(device=device), ""
    folder = Path(model).expanduser()
    where = str(folder.resolve()) if folder.is_dir() else str(model)
    return load_text_model(model, device=device), where


def _read_settings(path: Path) -> dict[str, Any]:
    """Return what :meth:`TextMasks.save` wrote; nothing where it did not."""
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{str(path)!r} is not valid JSON: {error}") from error
    number = settings.get("format") if isinstance(settings, dict) else None
    if number != FORMAT:
        raise InputError(
            f"{str(path)!r} has format {number}, and this version reads format {FORMAT}"
        )
    found: dict[str, Any] = settings
    return found


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):  # its letters would be texts, too
        raise InputError("expected a list of texts, got one text: write [text]")
    if not len(texts):
        raise InputError("expected at least one text, got none")
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"expected texts with words in them, got {text!r}")


# ------------------------------------------------------------------------------- data


def text_batches(
    source: TextModel, texts: Sequence[str], *, batch_size: int = 32, seed: int = 0
) -> list[dict[str, Tensor]]:
    """Return texts as batches for a model, in an order that the seed decides.

    Texts of similar length come into one batch, padded on the right.

    Args:
        source (TextModel): The model and its tokenizer.
        texts (sequence of str): The texts; those that are too long are cut, with one
            warning.
        batch_size (int, optional): Texts in a batch. Default: 32
        seed (int, optional): Of the order. Default: 0

    Returns:
        *list of dict* of tensors, each of shape ``(batch, tokens)``.

    Raises:
        InputError: There is no text; one is empty; the batch size is below 1, or above
            1 for a model that has no padding token.
    """
    _check_texts(texts)
    if batch_size < 1:
        raise InputError(f"expected a batch size of at least 1, got {batch_size}")
    classifies = source.task == "sequence-classification"
    if batch_size > 1 and classifies and source.pad_id is None:
        raise InputError(
            f"{source.name} has no padding token, so that it classifies one text at a "
            f"time: write --batch-size 1 (batch_size=1) instead of {batch_size}"
        )
    rows = _tokenized(source, list(texts))
    order = random.Random(seed)
    order.shuffle(rows)
    batches = []
    for start in range(0, len(rows), _BUCKET * batch_size):
        bucket = rows[start : start + _BUCKET * batch_size]
        bucket.sort(key=lambda row: len(row["input_ids"]))
        batches += [
            bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)
        ]
    order.shuffle(batches)
    return [pad(source, batch) for batch in batches]


def _tokenized(source: TextModel, texts: list[str]) -> list[dict[str, list[int]]]:
    """Return the token ids of each text that has any."""
    encoded = dict(source.tokenizer(texts, verbose=False))
    keys = list(encoded)
    rows = [
        dict(zip(keys, row, strict=True)) for row in zip(*encoded.values(), strict=True)
    ]
    most = source.max_tokens
    long = [
        i for i, r in enumerate(rows) if most is not None and len(r["input_ids"]) > most
    ]
    if long:
        warnings.warn(
            f"{len(long)} of {len(texts)} texts have more than the {most} tokens that "
            "the model reads: their ends are cut off",
            UserWarning,
            stacklevel=4,
        )
        cut = dict(
            source.tokenizer([texts[i] for i in long], truncation=True, max_length=most)
        )
        for number, i in enumerate(long):
            rows[i] = {key: cut[key][number] for key in keys}
    found = [row for row in rows if row["input_ids"]]
    if not found:
        raise InputError("the tokenizer finds no token in any of the texts")
    return found


def read_texts(source: Any, text_column: str | None = None) -> list[str]:
    """Return the texts of a file, or of anything that yields texts.

    Args:
        source (str, Path or iterable): As
            :func:`captum_transformer_lrp.models.texts.read_texts` takes it.
        text_column (str, optional): Name of the column of texts; in a file without a
            header its number, from 1. Default: None, ``text`` or ``sentence``

    Raises:
        InputError: There is no such file or column, or no text in it.
    """
    return [row.text for row in texts_of(source, text_column=text_column).rows]


def read_groups(path: str | Path) -> dict[str, str]:
    """Return the group of each word from a file with ``word<TAB>group`` in each line.

    Raises:
        InputError: There is no such file, or a line has no tab.
    """
    path = Path(path)
    groups = {}
    for number, line in enumerate(unpacked_text(path).splitlines(), 1):
        if not line.strip():
            continue
        word, _, group = (part.strip() for part in line.partition("\t"))
        if not (word and group):
            raise InputError(
                f"line {number} of {str(path)!r} is {line[:40]!r}; expected a word, a "
                "tab and the name of its group"
            )
        groups[word] = group
    if not groups:
        raise InputError(f"the file {str(path)!r} holds no groups")
    return groups


def check_can_save() -> None:
    """Raise now, not after a long training, if masks cannot be written.

    Raises:
        MissingPackageError: safetensors is not installed.
    """
    require("safetensors.torch")
