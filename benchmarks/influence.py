"""Which influence predicts what a model trained on half of the data says.

Texts of 4 to 8 invented words, of which every second word has a sentiment; a text is
positive where they sum to more than zero, with noise. A BERT of one layer and 32
features learns 400 of them, in 5 epochs or, by heart, in 20. LDS is the rank
correlation, over 40 random halves of the training texts, of the margin that a model
trained on the half gives a question, and the sum of the influences of the texts in it
(mean over 100 questions that no model was trained on).

Then 5 % of the labels of 400 texts are flipped, in a language of 40 words that all have
a sentiment, and without noise: a flipped label is a wrong one. Self-influence ranks the
texts: which share of the flipped ones is among as many first?

Everything is done for several draws of language, texts, model and halves. Errors are
standard errors over the draws.

    python benchmarks/influence.py                       # 4 draws, 12 minutes
    python benchmarks/influence.py --draws 1 --halves 8  # a look
    python benchmarks/influence.py --output FILE.json    # keep the figures

EK-FAC needs kronfluence: pip install "captum_transformer_lrp[influence]".
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

from captum_transformer_lrp import influence

WORDS = 200  # that the tokenizer knows
TRAINING, QUESTIONS, FLIPPED = 400, 100, 20
EPOCHS, RATE, BATCH = (5, 20), 3e-3, 32


@dataclass(frozen=True)
class Task:
    """Texts with labels: the first are learned, the others are asked about."""

    texts: list[str]
    labels: np.ndarray

    @property
    def training(self) -> list[str]:
        return self.texts[:TRAINING]

    @property
    def questions(self) -> list[str]:
        return self.texts[TRAINING:]

    @property
    def targets(self) -> list[int]:
        return self.labels[TRAINING:].tolist()


def task_of(seed: int, *, words: int, loaded: float, noise: float) -> Task:
    """Draw a language, in which a share of the words is loaded, and texts in it."""
    generator = np.random.default_rng(seed)
    sentiment = generator.normal(size=words) * (generator.random(words) < loaded)
    often = 1 / (np.arange(words) + 10)
    texts, labels = [], []
    for _ in range(TRAINING + QUESTIONS):
        drawn = generator.choice(words, generator.integers(4, 9), p=often / often.sum())
        texts.append(" ".join(f"w{i}" for i in drawn))
        labels.append(sentiment[drawn].sum() + noise * generator.normal() > 0)
    return Task(texts, np.array(labels, dtype=int))


def tokenizer_of() -> PreTrainedTokenizerFast:
    """Return a tokenizer of whole words."""
    names = ["[PAD]", "[UNK]", *(f"w{i}" for i in range(WORDS))]
    words = Tokenizer(
        models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]"
    )


def untrained(seed: int) -> nn.Module:
    """Return the model before its training; without dropout."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=WORDS + 2,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        type_vocab_size=1,
        hidden_dropout_prob=0,
        attention_probs_dropout_prob=0,
    )
    return BertForSequenceClassification(config).eval()


def logits_of(model: nn.Module, batch: dict[str, Any], rows: Any) -> torch.Tensor:
    """Return the logits of some rows of tokenised texts."""
    return model(**{key: value[rows] for key, value in batch.items()}).logits


def train(
    start: nn.Module,
    batch: dict[str, Any],
    labels: np.ndarray,
    rows: np.ndarray,
    epochs: int,
    seed: int,
) -> list[nn.Module]:
    """Train a copy on some rows; return it after each fifth of the training."""
    model = copy.deepcopy(start)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    total = epochs * math.ceil(len(rows) / BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 1 / total, total)
    generator = torch.Generator().manual_seed(seed)
    wanted, kept = torch.tensor(labels), []
    for epoch in range(epochs):
        order = torch.tensor(rows)[torch.randperm(len(rows), generator=generator)]
        for part in order.split(BATCH):
            loss = nn.functional.cross_entropy(
                logits_of(model, batch, part), wanted[part]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % (epochs // 5) == 0:
            kept.append(copy.deepcopy(model))
    return kept


def margins(model: nn.Module, batch: dict[str, Any], task: Task) -> np.ndarray:
    """Return the logit of each question's label less the other one."""
    with torch.no_grad():
        logits = logits_of(model, batch, slice(TRAINING, None)).numpy()
    rows = np.arange(QUESTIONS)
    return logits[rows, task.targets] - logits[rows, 1 - np.array(task.targets)]


def right(model: nn.Module, batch: dict[str, Any], labels: np.ndarray) -> np.ndarray:
    """Return of which texts the model says the label."""
    with torch.no_grad():
        return logits_of(model, batch, slice(None)).argmax(1).numpy() == labels


def influences(
    kept: Sequence[nn.Module], tokenizer: Any, texts: list[str], labels: list[int]
) -> dict[tuple[str, str, int], Any]:
    """Return each influence by its name, its layers and its number of checkpoints."""
    given = (kept[-1], tokenizer, texts, labels)
    found: dict[tuple[str, str, int], Any] = {}
    for metric, name in (("dot", "TracIn"), ("cosine", "TracIn, cosine")):
        for layers in ("final", "all"):
            for number in (1, 5):
                found[name, layers, number] = influence.tracin(
                    *given, checkpoints=kept[-number:], layers=layers, metric=metric
                )
    for layers in ("final", "all"):
        found["empirical Fisher", layers, 1] = influence.empirical_fisher(
            *given, layers=layers
        )
        if importlib.util.find_spec("kronfluence") is not None:
            found["EK-FAC", layers, 1] = influence.ekfac(*given, layers=layers)
    return found


Figures = dict[str, dict[str, float]]


def predicted(seed: int, epochs: int, halves: int) -> Figures:
    """Return the LDS of each influence."""
    task = task_of(seed, words=WORDS, loaded=0.5, noise=0.5)
    tokenizer, start = tokenizer_of(), untrained(seed)
    batch = dict(tokenizer(task.texts, padding=True, return_tensors="pt"))
    drawn = influence.random_halves(TRAINING, halves, seed=seed)
    outputs = []
    for turn, half in enumerate(drawn, 1):
        rows = np.flatnonzero(half)
        kept = train(start, batch, task.labels, rows, epochs, turn)
        outputs.append(margins(kept[-1], batch, task))
    kept = train(start, batch, task.labels, np.arange(TRAINING), epochs, 0)
    known = right(kept[-1], batch, task.labels)

    def lds(scores: np.ndarray) -> dict[str, float]:
        found = influence.linear_datamodeling_score(scores, drawn, np.array(outputs))
        return {"lds": found.mean}

    same = task.labels[TRAINING:, None] == task.labels[None, :TRAINING]
    chance = np.random.default_rng(seed).normal(size=same.shape)
    found: Figures = {
        "accuracy": {
            "training": float(known[:TRAINING].mean()),
            "questions": float(known[TRAINING:].mean()),
        },
        "random | |": lds(chance),
        "same label | |": lds(same.astype(float)),
    }
    training = task.labels[:TRAINING].tolist()
    for name, one in influences(kept, tokenizer, task.training, training).items():
        scores = one.scores(task.questions, task.targets)
        found[" | ".join(map(str, name))] = lds(scores)
    return found


def wrong_labels(seed: int, epochs: int) -> Figures:
    """Return which share of flipped labels the self-influence of each finds."""
    task = task_of(seed, words=40, loaded=1, noise=0)
    tokenizer, start = tokenizer_of(), untrained(seed)
    batch = dict(tokenizer(task.texts, padding=True, return_tensors="pt"))
    generator = np.random.default_rng(seed)
    wrong = generator.choice(TRAINING, FLIPPED, replace=False)
    labels = task.labels.copy()
    labels[wrong] = 1 - labels[wrong]
    kept = train(start, batch, labels, np.arange(TRAINING), epochs, 0)
    known = right(kept[-1], batch, labels)

    def share(order: Sequence[int]) -> dict[str, float]:
        return {"flipped": float(np.isin(order[:FLIPPED], wrong).mean())}

    found: Figures = {
        "accuracy with flipped": {
            "training": float(known[:TRAINING].mean()),
            "questions": float(known[TRAINING:].mean()),
        },
        "random | |": share(generator.permutation(TRAINING).tolist()),
    }
    training = labels[:TRAINING].tolist()
    wanted = torch.tensor(training)
    for number in (1, 5):
        losses = torch.zeros(TRAINING)
        for model in kept[-number:]:
            with torch.no_grad():
                logits = logits_of(model, batch, slice(0, TRAINING))
            losses += nn.functional.cross_entropy(logits, wanted, reduction="none")
        order = losses.argsort(descending=True).tolist()
        found[f"the loss alone | | {number}"] = share(order)
    for name, one in influences(kept, tokenizer, task.training, training).items():
        if name[0] != "TracIn, cosine":  # the same for every text
            found[" | ".join(map(str, name))] = share(one.self_influence().indices)
    return found


def measured(seed: int, epochs: int, halves: int) -> Figures:
    """Return both, by the names of the influences."""
    found = predicted(seed, epochs, halves)
    for name, figures in wrong_labels(seed, epochs).items():
        found[name] = found.get(name, {}) | figures
    return found


def shown(values: list[float]) -> str:
    """Return a mean and its standard error over the draws."""
    if not values:
        return ""
    mean = f"{np.mean(values):.2f}".replace("-0.00", "0.00")
    if len(values) == 1:
        return mean
    return f"{mean} ± {np.std(values, ddof=1) / len(values) ** 0.5:.2f}"


def table(found: dict[int, list[Figures]]) -> str:
    """Return a table of markdown: a row for each influence."""
    heads = ["influence", "layers", "checkpoints"]
    heads += [f"{what}, {e} epochs" for what in ("LDS", "flipped") for e in found]
    lines = [heads, ["---"] * len(heads)]
    names = [name for name in next(iter(found.values()))[0] if "accuracy" not in name]
    for name in names:
        cells = [
            shown([draw[name][what] for draw in draws if what in draw[name]])
            for what in ("lds", "flipped")
            for draws in found.values()
        ]
        lines.append([*(part.strip() for part in name.split("|")), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--halves", type=int, default=40)
    parser.add_argument("--output", type=Path, help="a file of JSON for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    found: dict[int, list[Figures]] = {}
    for epochs in EPOCHS:
        found[epochs] = []
        for seed in range(options.draws):
            found[epochs].append(measured(seed, epochs, options.halves))
            seconds = time.perf_counter() - started
            print(f"{epochs} epochs, draw {seed + 1}: {seconds:.0f} s", flush=True)
    print(table(found))
    for epochs, draws in found.items():
        for what in ("accuracy", "accuracy with flipped"):
            texts, questions = (
                shown([draw[what][which] for draw in draws])
                for which in ("training", "questions")
            )
            print(f"{epochs} epochs, {what}: training {texts}, questions {questions}")
    if options.output is not None:
        kept = {
            "training_texts": TRAINING,
            "questions": QUESTIONS,
            "halves": options.halves,
            "flipped": FLIPPED,
            "draws_by_epochs": found,
        }
        options.output.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
