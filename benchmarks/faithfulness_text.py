"""Faithfulness of attributions of a text classifier, against what people use.

300 sentences of the SST-5 dev set that have a sentiment (drawn with seed 0). The class
that the model predicts is explained; word pieces are replaced by [MASK] in the order of
their scores, [CLS] and [SEP] never; the score is the probability of that class at 11
fractions with ceil. Delta is the area LeRF - MoRF. Average precision is against the
treebank's labels of single words that agree with the class, pieces summed to words, on
those correctly classified sentences that have such a word.

The first half of the sentences may be tuned on, the second is held out; both are shown.

    python benchmarks/faithfulness_text.py --methods Random IG-20 AttnLRP
    python benchmarks/faithfulness_text.py --model FOLDER --data sst5_dev.jsonl.gz

Results are kept, a file for each method, and read again by the next run.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _faithfulness import (
    Result,
    add_options,
    cached,
    chosen_methods,
    draw,
    in_words,
    one_thread,
    save_summary,
    summary,
    table,
)
from _methods import TEXT, TextMethod, Texts
from torch import Tensor, nn

from captum_transformer_lrp.metrics import (
    TokenReplacement,
    au_mse,
    average_precision,
    perturbation_curves,
    rankable,
)
from captum_transformer_lrp.models.loading import TextModel, load_text_model

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
COLUMNS = ("MoRF", "LeRF", "Delta+", "leaf AP+")

#: sentences and the labels -1, 0, 1 of their words, for use without the treebank
BUILT_IN = (
    ("a gripping , beautifully acted film .", "0 1 0 1 0 0 0"),
    ("the plot is a complete mess and i was bored .", "0 0 0 0 0 -1 0 0 0 -1 0"),
    (
        "the camera is stunning , yet the dialogue is lifeless .",
        "0 0 0 1 0 0 0 0 0 -1 0",
    ),
    ("a warm and funny comedy with a great cast .", "0 1 0 1 0 0 0 1 0 0"),
    ("dull , pointless and far too long .", "-1 0 -1 0 0 0 0 0"),
    ("one of the best and most moving films of the year .", "0 0 0 1 0 0 1 0 0 0 0 0"),
    ("the jokes are stale and the acting is terrible .", "0 0 0 -1 0 0 0 0 -1 0"),
    ("a charming , clever and delightful surprise .", "0 1 0 1 0 1 0 0"),
)


@dataclass(frozen=True)
class Sentence:
    """Words, the label of the sentence (0 or 1), and of each word (-1, 0 or 1)."""

    words: tuple[str, ...]
    label: int
    word_labels: tuple[int, ...]


def treebank(path: Path, number: int) -> list[Sentence]:
    """Return sentences with a sentiment, drawn with seed 0."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["label2"] is not None]
    order = np.random.RandomState(0).permutation(len(rows))[:number]
    sentences = []
    for row in (rows[i] for i in order):
        labels = [0] * len(row["tokens"])
        for start, end, label in row["spans"]:
            if end - start == 1:
                labels[start] = (label > 2) - (label < 2)
        sentences.append(Sentence(tuple(row["tokens"]), row["label2"], tuple(labels)))
    return sentences


def built_in_sentences() -> list[Sentence]:
    """Return a few sentences written for this benchmark."""
    found = []
    for text, labels in BUILT_IN:
        words = tuple(text.split())
        marks = tuple(int(mark) for mark in labels.split())
        found.append(Sentence(words, int(sum(marks) >= 0), marks))
    return found


@dataclass(frozen=True)
class Batch:
    """Encoded sentences of about one length.

    Args:
        rows (list of int): which sentences they are.
        inputs (dict): what the model takes.
        words (list): of each piece of each sentence its word, or None.
        target (Tensor): the predicted class, `(batch,)`.
    """

    rows: list[int]
    inputs: dict[str, Tensor]
    words: list[list[int | None]]
    target: Tensor


def batches_of(
    model: TextModel, sentences: Sequence[Sentence], size: int
) -> list[Batch]:
    """Return batches of sentences of similar length, with the model's predictions."""
    texts = [list(sentence.words) for sentence in sentences]
    lengths = [
        len(model.tokenizer(t, is_split_into_words=True).input_ids) for t in texts
    ]
    order = sorted(range(len(texts)), key=lengths.__getitem__)
    found = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        encoded = model.tokenizer(
            [texts[i] for i in rows],
            is_split_into_words=True,
            padding=True,
            return_tensors="pt",
        )
        inputs = {key: encoded[key] for key in ("input_ids", "attention_mask")}
        with torch.no_grad():
            target = model.module(**inputs).logits.argmax(1)
        words = [encoded.word_ids(i) for i in range(len(rows))]
        found.append(Batch(rows, inputs, words, target))
    return found


def measure(
    name: str,
    method: TextMethod,
    model: TextModel,
    sentences: Sequence[Sentence],
    batches: Sequence[Batch],
    *,
    pruning: bool,
) -> Result:
    """Attribute all batches with one method and measure the scores."""
    module = model.module
    replacement = TokenReplacement.mask(model.tokenizer)
    generator = torch.Generator().manual_seed(0)
    texts = Texts(module, model.tokenizer, replacement, generator)
    seconds = 0.0
    values: dict[str, dict[int, float]] = {}
    units: dict[str, Any] = {}
    curves: dict[str, list[Tensor]] = {"MoRF": [], "LeRF": []}
    for batch in batches:
        started = time.process_time()
        scores = method(texts, batch.inputs, batch.target).detach()
        seconds += time.process_time() - started
        options: dict[str, Any] = {
            "replacement": replacement,
            "valid": rankable(batch.inputs, model.tokenizer),
        }
        found = perturbation_curves(module, batch.inputs, scores, **options)
        curves["MoRF"].append(found.most_relevant_first)
        curves["LeRF"].append(found.least_relevant_first)
        measured = [found.morf, found.lerf, found.delta]
        if pruning:
            measured.append(au_mse(module, batch.inputs, scores, **options))
        for measurement in measured:
            units[measurement.name] = measurement
            pairs = zip(batch.rows, measurement.values.tolist(), strict=True)
            values.setdefault(measurement.name, {}).update(pairs)
        for place, row in enumerate(batch.rows):
            sentence, predicted = sentences[row], int(batch.target[place])
            agreeing = [mark == 2 * predicted - 1 for mark in sentence.word_labels]
            if predicted != sentence.label or not any(agreeing):
                continue
            summed = in_words(scores[place], batch.words[place], len(agreeing))
            precision = average_precision(summed[None], torch.tensor([agreeing]))
            units["leaf AP"] = precision
            values.setdefault("leaf AP", {})[row] = float(precision.values[0])
    measurements, indices = {}, {}
    for metric, by_row in values.items():
        indices[metric] = sorted(by_row)
        measurements[metric] = type(units[metric])(
            metric,
            torch.tensor([by_row[i] for i in indices[metric]], dtype=torch.float64),
            units[metric].better,
            units[metric].settings,
        )
    return Result(
        name,
        seconds / len(sentences),
        measurements,
        indices,
        {order: torch.cat(parts).mean(0).tolist() for order, parts in curves.items()},
    )


def main() -> None:
    """Measure, print both tables, save the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    shared = SHARED / "models" / "minilm-sst2"
    parser.add_argument(
        "--model",
        default=str(shared) if shared.is_dir() else None,
        help="folder of a classifier of two classes, negative first; default: "
        "../shared/models/minilm-sst2 if it is there, else the built-in model",
    )
    treebank_file = SHARED / "data" / "sst2" / "sst5_dev.jsonl.gz"
    parser.add_argument(
        "--data",
        type=Path,
        default=treebank_file if treebank_file.is_file() else None,
        help="sst5_dev.jsonl.gz; default: that of ../shared, else a few sentences",
    )
    parser.add_argument("--number", type=int, default=300, help="sentences")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument(
        "--au-mse", action="store_true", help="also Ali et al.'s pruning curve"
    )
    parser.add_argument("--diffmask", type=Path, help="folder of trained masks")
    add_options(parser, "results/faithfulness-text")
    options = parser.parse_args()

    model = load_text_model(options.model)
    sentences = (
        built_in_sentences()
        if options.data is None
        else treebank(options.data, options.number)
    )
    methods = dict(TEXT)
    if options.diffmask is not None:
        methods["DiffMask"] = diffmask_method(options.diffmask, model.module)
    names = chosen_methods(options.methods, methods)
    protocol = {
        "model": model.name,
        "data": "built-in" if options.data is None else options.data.name,
        "number": len(sentences),
        "au-mse": options.au_mse,
    }
    with one_thread():
        batches = batches_of(model, sentences, options.batch_size)
        results = []
        for name in names:
            compute = functools.partial(
                measure,
                name,
                methods[name],
                model,
                sentences,
                batches,
                pruning=options.au_mse,
            )
            again = name in options.again
            result = cached(options.output, name, protocol, compute, again=again)
            print(result.measurements["Delta"], f"  {name}", flush=True)
            results.append(result)
    half = len(sentences) // 2
    columns = (*COLUMNS, "AU-MSE") if options.au_mse else COLUMNS
    whole = table(results, columns, None, options.against)
    print(f"\nAll {len(sentences)} sentences\n\n{whole}")
    for title, part in (
        ("First half", range(half)),
        ("Second half, held out", range(half, len(sentences))),
    ):
        compared = table(results, ("Delta+", "leaf AP+"), part, options.against)
        print(f"\n{title}\n\n{compared}")
    if options.json is not None:
        save_summary(options.json, protocol, summary(results, len(sentences)))
    if options.figure is not None:
        panels = {
            "Delta": "Delta (LeRF − MoRF area)",
            "leaf AP": "average precision, word labels",
        }
        title = f"{model.name}, {len(sentences)} sentences, [MASK]"
        draw(results, panels, options.figure, title)


def diffmask_method(folder: Path, module: nn.Module) -> TextMethod:
    """Return DiffMask with the masks that were trained into a folder.

    A token's score is the probability that it is kept, averaged over the hidden states:
    it looks at no class, and tokens that are needed for longer score higher.
    """
    from captum_transformer_lrp import DiffMask

    masks = DiffMask.load(folder, module)
    return lambda texts, batch, target: masks.attribute(batch).mean(1)


if __name__ == "__main__":
    main()
