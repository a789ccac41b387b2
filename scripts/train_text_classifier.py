"""Train the built-in text classifier: a small BERT for SST-2 sentiment.

The student is a `BertForSequenceClassification` of about 2.3 million parameters. It
learns from the phrases of the Stanford Sentiment Treebank and, unless
`--teacher none` is given, from a larger fine-tuned BERT (the teacher), in three ways:

* vocabulary: the teacher's WordPiece entries that the training texts use;
* word embeddings: principal components of what the teacher knows about each entry,
  its embedding and its last hidden state when the entry is read alone;
* targets: the teacher's class probabilities at a raised temperature (Hinton et al.,
  2015, arXiv:1503.02531) and its last hidden states (as in TinyBERT, Jiao et al.,
  2020, arXiv:1909.10351).

The teacher also labels new texts: sentences in which one phrase of the treebank was
exchanged for another. They teach the student what a word does in another company.

Treebank text is tokenised ("do n't"); ordinary text is not ("don't") and WordPiece
splits the two differently. Texts with a contraction are therefore seen both ways.

Example, from the root of the repository::

    python scripts/train_text_classifier.py --data ../shared/data/sst2 \\
        --teacher ../shared/models/minilm-sst2 \\
        --output captum_transformer_lrp/models/built_in/text-classifier
"""

import argparse
import gzip
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize_tensors
from safetensors.torch import save_file
from tokenizers import BertWordPieceTokenizer, Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
)

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP = 0, 1, 2, 3
MAXIMUM_LENGTH = 128
LABELS = ("negative", "positive")
TEACHER_LICENCES = {
    "minilm-sst2": (
        "* The teacher is `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0), "
        "fine-tuned on the\n  same training texts. Its WordPiece vocabulary, of "
        "which a part is used here, is that\n  of `bert-base-uncased` (Apache-2.0).\n"
    )
}
EXAMPLES = (
    "A gripping, beautifully acted film.",
    "The plot is a complete mess and I was bored.",
    "Not bad at all!",
    "I didn't like it.",
    "It isn't a great movie, but it won't bore you.",
)


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Training texts: phrases and sentences with labels, then recombined sentences.

    Args:
        texts (tuple of str): the texts, each once.
        labels (Tensor): 0 or 1; -1 for recombined sentences, which need a teacher.
        is_phrase (Tensor): whether a text is less than a sentence.
    """

    texts: tuple[str, ...]
    labels: Tensor
    is_phrase: Tensor


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Token ids of all texts in one row; text `i` is `[offsets[i], offsets[i + 1])`."""

    ids: Tensor
    offsets: Tensor

    @property
    def lengths(self) -> Tensor:
        """Tokens per text, special tokens included, shape `(texts,)`."""
        return self.offsets.diff()


@dataclass(frozen=True, kw_only=True)
class TeacherTargets:
    """What the teacher says of each text.

    Args:
        logits (Tensor): shape `(texts, 2)`.
        hidden (Tensor): last hidden states in float16, shape `(tokens, width)`.
    """

    logits: Tensor
    hidden: Tensor


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyper-parameters of the student and of its training.

    Args:
        width (int): hidden size of the student.
        layers (int): number of transformer blocks.
        heads (int): attention heads per block.
        intermediate (int): width of the feed-forward layers.
        dropout (float): dropout in hidden states and attention weights.
        batch_size (int): texts per step.
        learning_rate (float): peak rate of all parameters but the word embeddings.
        embedding_learning_rate (float): peak rate of the word embeddings.
        weight_decay (float): AdamW's decay of the weight matrices.
        warmup (float): share of the steps in which the rate rises.
        temperature (float): divides both logits before they are compared.
        hidden_weight (float): weight of the distance of the last hidden states.
        unknown_rate (float): share of the tokens replaced by [UNK].
        embedding_scale (float): root mean square of the first word embeddings.
        phrase_share (float): share of the phrases that an epoch shows, drawn anew
            each time; whole sentences are always shown.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 384
    dropout: float = 0.1
    batch_size: int = 64
    learning_rate: float = 1e-3
    embedding_learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup: float = 0.06
    temperature: float = 2.0
    hidden_weight: float = 1.0
    unknown_rate: float = 0.15
    embedding_scale: float = 0.1
    phrase_share: float = 0.5


# --------------------------------------------------------------------------- data


def read_labelled(path: Path) -> list[tuple[int, str]]:
    """Lines `label<TAB>text` of a plain or gzipped file as `(label, text)` pairs."""
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. --data expects a folder with sst2_train.tsv, "
            "sst2_dev.tsv, sst2_test.tsv and sst2_train_phrases.tsv.gz, "
            "each line 'label<TAB>text' with label 0 (negative) or 1 (positive)."
        )
    opener = gzip.open if path.suffix == ".gz" else open
    pairs = []
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            label, tab, text = line.rstrip("\n").partition("\t")
            if label not in ("0", "1") or not tab or not text:
                raise ValueError(
                    f"{path}, line {number}: expected '0<TAB>text' or '1<TAB>text', "
                    f"got {line!r}."
                )
            pairs.append((int(label), text))
    return pairs


def untokenised(text: str) -> str:
    """The text with contractions joined as people write them ("do n't" -> "don't")."""
    return text.replace(" n't", "n't")


def spans(text: str, shortest: int) -> Iterator[str]:
    """All contiguous word sequences of `text` with at least `shortest` words."""
    words = text.split()
    for start in range(len(words)):
        for end in range(start + shortest, len(words) + 1):
            yield " ".join(words[start:end])


def recombine(
    texts: list[str], sentences: list[str], excluded: set[str], count: int, seed: int
) -> list[str]:
    """New texts: sentences with one phrase of 2 to 12 words exchanged for another.

    Both phrases are among `texts`; the place and the newcomer are random. No new text
    is among `texts` or `excluded`.
    """
    generator = random.Random(seed)
    phrases = [text for text in texts if 2 <= len(text.split()) <= 12]
    known = set(texts)
    found: dict[str, None] = {}
    while len(found) < count:
        sentence = generator.choice(sentences)
        words = sentence.split()
        places = [
            (start, end)
            for start in range(len(words))
            for end in range(start + 2, min(start + 12, len(words)) + 1)
            if " ".join(words[start:end]) in known
        ]
        if not places:
            continue
        start, end = generator.choice(places)
        newcomer = generator.choice(phrases)
        text = " ".join([*words[:start], newcomer, *words[end:]])
        if text not in known and text not in excluded:
            found[text] = None
    return list(found)


def load_corpus(data: Path, recombinations: int, seed: int) -> Corpus:
    """Phrases and sentences of the training trees, none equal to a dev or test one.

    Args:
        data (Path): the folder with the treebank's files.
        recombinations (int): how many recombined texts to add.
        seed (int): the seed of the recombined texts.
    """
    evaluated = {
        text
        for split in ("dev", "test")
        for _, text in read_labelled(split_of(data, split))
    }
    rows: dict[str, int] = {}
    for label, text in read_labelled(data / "sst2_train_phrases.tsv.gz"):
        rows.setdefault(text, label)
    for label, text in read_labelled(split_of(data, "train")):
        rows.setdefault(text, label)
    for text in evaluated:
        rows.pop(text, None)
    sentences = [
        text for _, text in read_labelled(split_of(data, "train")) if text in rows
    ]
    for text, label in list(rows.items()):
        rows.setdefault(untokenised(text), label)
    labels = torch.tensor(list(rows.values()))
    recombined = recombine(list(rows), sentences, evaluated, recombinations, seed)
    whole = {*sentences, *recombined} | {untokenised(text) for text in sentences}
    texts = (*rows, *recombined)
    return Corpus(
        texts=texts,
        labels=torch.cat([labels, torch.full((len(recombined),), -1)]),
        is_phrase=torch.tensor([text not in whole for text in texts]),
    )


def split_of(data: Path, split: str) -> Path:
    """The file with the sentences of one split."""
    return data / f"sst2_{split}.tsv"


def hold_out(
    corpus: Corpus, sentences: list[tuple[int, str]], seed: int, count: int
) -> tuple[list[tuple[int, str]], Tensor]:
    """Set `count` training sentences aside, and what would give them away.

    A phrase of four or more words of a held-out sentence leaves the training texts,
    and so does a recombined text that contains one.

    Returns:
        The held-out `(label, text)` pairs, and the positions of the texts that
        remain, shape `(texts,)`.
    """
    held_out = random.Random(seed).sample(sentences, count)
    hidden = {span for _, text in held_out for span in spans(text, shortest=4)}
    hidden |= {text for _, text in held_out} | {untokenised(text) for text in hidden}
    kept = []
    for position, text in enumerate(corpus.texts):
        seen = text in hidden
        if hidden and corpus.labels[position] == -1:
            seen = any(span in hidden for span in spans(text, shortest=4))
        if not seen:
            kept.append(position)
    return held_out, torch.tensor(kept)


# ---------------------------------------------------------------------- vocabulary


def encode(tokenizer: Tokenizer, texts: tuple[str, ...] | list[str]) -> Encoded:
    """Token ids of `texts`, each framed by [CLS] and [SEP] and never padded."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAXIMUM_LENGTH)
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    lengths = torch.tensor([len(row) for row in rows])
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    ids = torch.tensor([token for row in rows for token in row])
    return Encoded(ids=ids, offsets=offsets)


def is_basic_character(entry: str) -> bool:
    """Whether a WordPiece entry is one character of a Latin script or punctuation."""
    character = entry.removeprefix("##")
    if len(character) != 1:
        return False
    return ord(character) < 0x250 or 0x2000 <= ord(character) < 0x2100


def prune_vocabulary(teacher: Tokenizer, texts: tuple[str, ...]) -> dict[str, int]:
    """The teacher's entries that `texts` use, plus all basic characters.

    Greedy longest-match tokenisation of `texts` does not change: each piece chosen
    from the full vocabulary is still there, and no longer piece was added.
    """
    used = set(encode(teacher, texts).ids.tolist())
    entries = sorted(teacher.get_vocab().items(), key=lambda item: item[1])
    kept = [
        entry
        for entry, index in entries
        if entry not in SPECIAL_TOKENS and (index in used or is_basic_character(entry))
    ]
    return {entry: index for index, entry in enumerate([*SPECIAL_TOKENS, *kept])}


def learn_vocabulary(texts: tuple[str, ...], size: int = 8000) -> dict[str, int]:
    """A WordPiece vocabulary learned from `texts`, for training without a teacher."""
    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(
        list(texts),
        vocab_size=size,
        min_frequency=2,
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    entries = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    return {entry: index for index, (entry, _) in enumerate(entries)}


def build_tokenizer(vocabulary: dict[str, int]) -> BertTokenizer:
    """A lower-casing BERT tokenizer that neither pads nor truncates by itself."""
    return BertTokenizer(
        vocab=vocabulary, do_lower_case=True, model_max_length=MAXIMUM_LENGTH
    )


# ------------------------------------------------------------------------- batches


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Texts padded to the longest one.

    `positions` indexes the row of all tokens; `ids` and `mask` have its shape
    `(texts, longest)`.
    """

    texts: Tensor
    positions: Tensor
    ids: Tensor
    mask: Tensor


def make_batch(encoded: Encoded, texts: Tensor) -> Batch:
    """Pad the chosen texts of `encoded` to the longest of them."""
    lengths = encoded.lengths[texts]
    columns = torch.arange(int(lengths.max()))
    mask = columns < lengths[:, None]
    positions = torch.where(mask, encoded.offsets[texts][:, None] + columns, 0)
    ids = torch.where(mask, encoded.ids[positions], PAD)
    return Batch(texts=texts, positions=positions, ids=ids, mask=mask)


def sorted_batches(encoded: Encoded, tokens: int = 1024) -> Iterator[Batch]:
    """Batches of about `tokens` tokens with little padding, shortest texts first."""
    order = encoded.lengths.argsort(stable=True)
    start = 0
    while start < len(order):
        size = max(1, tokens // int(encoded.lengths[order[start]]))
        yield make_batch(encoded, order[start : start + size])
        start += size


def shuffled_batches(
    lengths: Tensor, texts: Tensor, size: int, generator: torch.Generator
) -> list[Tensor]:
    """Random batches of texts of similar length, in random order.

    Args:
        lengths (Tensor): tokens of every text of the corpus, shape `(corpus,)`.
        texts (Tensor): the texts to show, repeats allowed, shape `(texts,)`.
        size (int): texts per batch.
        generator (torch.Generator): the source of randomness.
    """
    shuffled = texts[torch.randperm(len(texts), generator=generator)]
    batches: list[Tensor] = []
    for pool in torch.split(shuffled, size * 50):
        by_length = pool[lengths[pool].argsort(stable=True)]
        batches.extend(torch.split(by_length, size))
    return [batches[i] for i in torch.randperm(len(batches), generator=generator)]


# ------------------------------------------------------------------------- teacher


def ask_teacher(
    teacher: BertForSequenceClassification, encoded: Encoded
) -> TeacherTargets:
    """Logits and last hidden states of the teacher for every text."""
    logits = torch.empty(len(encoded.lengths), len(LABELS))
    width = teacher.config.hidden_size
    hidden = torch.empty(len(encoded.ids), width, dtype=torch.float16)
    with (
        torch.inference_mode(),
        tqdm(total=len(encoded.ids), desc="teacher", unit="token") as bar,
    ):
        for batch in sorted_batches(encoded):
            states = teacher.bert(batch.ids, attention_mask=batch.mask.long())
            logits[batch.texts] = teacher.classifier(states.pooler_output)
            last = states.last_hidden_state[batch.mask]
            hidden[batch.positions[batch.mask]] = last.half()
            bar.update(int(batch.mask.sum()))
    return TeacherTargets(logits=logits, hidden=hidden)


def cached_teacher(
    teacher: BertForSequenceClassification, encoded: Encoded, cache: Path | None
) -> TeacherTargets:
    """`ask_teacher`, kept in the file `cache` between runs over the same tokens."""
    fingerprint = hashlib.sha256(encoded.ids.numpy().tobytes())
    fingerprint.update(teacher.classifier.weight.detach().numpy().tobytes())
    if cache is not None and cache.exists():
        with safe_open(cache, framework="pt") as stored:
            if stored.metadata()["fingerprint"] != fingerprint.hexdigest():
                raise ValueError(
                    f"{cache} holds the answers to other texts or of another teacher. "
                    "Delete it or name another file with --cache."
                )
            return TeacherTargets(
                logits=stored.get_tensor("logits"), hidden=stored.get_tensor("hidden")
            )
    targets = ask_teacher(teacher, encoded)
    if cache is not None:
        save_file(
            {"logits": targets.logits, "hidden": targets.hidden},
            cache,
            metadata={"fingerprint": fingerprint.hexdigest()},
        )
    return targets


def first_embeddings(
    teacher: BertForSequenceClassification,
    teacher_vocabulary: dict[str, int],
    vocabulary: dict[str, int],
    counts: Tensor,
    recipe: Recipe,
) -> Tensor:
    """Word embeddings of the student, before training.

    For each entry: the teacher's embedding beside its last hidden state when it reads
    the entry alone; both centred and scaled to the same variance, then projected on
    the leading principal components. Frequent entries weigh more in the components.

    Args:
        teacher (BertForSequenceClassification): the teacher.
        teacher_vocabulary (dict): the teacher's entries with their ids.
        vocabulary (dict): the student's entries with their ids.
        counts (Tensor): occurrences of each student id, shape `(vocabulary,)`.
        recipe (Recipe): gives the width and the scale.

    Returns:
        Shape `(vocabulary, width)`; the row of [PAD] is zero.
    """
    ids = torch.tensor([teacher_vocabulary[entry] for entry in vocabulary])
    frame = [teacher_vocabulary["[CLS]"], teacher_vocabulary["[SEP]"]]
    alone = []
    with torch.inference_mode():
        static = teacher.get_input_embeddings()(ids)
        for chunk in torch.split(ids, 256):
            rows = torch.stack(
                [
                    torch.full_like(chunk, frame[0]),
                    chunk,
                    torch.full_like(chunk, frame[1]),
                ],
                dim=1,
            )
            mask = torch.ones_like(rows)
            alone.append(
                teacher.bert(rows, attention_mask=mask).last_hidden_state[:, 1]
            )
    blocks = []
    for block in (static, torch.cat(alone)):
        centred = (block - block.mean(0)).clone()
        blocks.append(centred / centred.square().mean().sqrt())
    features = torch.cat(blocks, dim=1)
    weights = counts.float().log1p() + 0.1
    _, _, components = torch.linalg.svd(
        features * weights.sqrt()[:, None], full_matrices=False
    )
    embeddings: Tensor = features @ components[: recipe.width].T
    embeddings = embeddings * (
        recipe.embedding_scale / embeddings.square().mean().sqrt()
    )
    embeddings[PAD] = 0
    return embeddings


# ------------------------------------------------------------------------ training


def build_student(
    recipe: Recipe, vocabulary_size: int
) -> BertForSequenceClassification:
    """An untrained student."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            intermediate_size=recipe.intermediate,
            hidden_dropout_prob=recipe.dropout,
            attention_probs_dropout_prob=recipe.dropout,
            max_position_embeddings=MAXIMUM_LENGTH,
            pad_token_id=PAD,
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
    )


def with_unknown(
    ids: Tensor, mask: Tensor, rate: float, generator: torch.Generator
) -> Tensor:
    """`ids` with a random share `rate` of the ordinary tokens replaced by [UNK]."""
    chosen = torch.rand(ids.shape, generator=generator) < rate
    return ids.masked_fill(chosen & mask & (ids != CLS) & (ids != SEP), UNK)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, recipe: Recipe) -> Tensor:
    """Divergence of the student's classes from the teacher's, at the temperature.

    The square of the temperature keeps the size of the gradients.
    """
    divergence: Tensor = functional.kl_div(
        (logits / recipe.temperature).log_softmax(-1),
        (teacher_logits / recipe.temperature).log_softmax(-1),
        reduction="batchmean",
        log_target=True,
    )
    return recipe.temperature**2 * divergence


def optimizer_of(
    student: BertForSequenceClassification, projection: nn.Linear | None, recipe: Recipe
) -> torch.optim.AdamW:
    """AdamW with a lower rate for word embeddings and no decay of vectors."""
    words = student.get_input_embeddings().weight
    others = [p for p in student.parameters() if p is not words]
    if projection is not None:
        others.extend(projection.parameters())
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in others if p.ndim > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in others if p.ndim <= 1]},
        {"params": [words], "lr": recipe.embedding_learning_rate},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, weight_decay=0.0)


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """The factor of the learning rate: linear up during warm-up, linear down after."""
    rising = max(1, math.ceil(steps * warmup))
    if step < rising:
        return (step + 1) / rising
    return (steps - step) / max(1, steps - rising)


def train(
    student: BertForSequenceClassification,
    encoded: Encoded,
    corpus: Corpus,
    kept: Tensor,
    targets: TeacherTargets | None,
    recipe: Recipe,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[int], None],
) -> None:
    """Train `student` in place on the texts at the positions `kept`.

    Args:
        student (BertForSequenceClassification): the model.
        encoded (Encoded): the tokens of the corpus.
        corpus (Corpus): its labels are unused when there is a teacher.
        kept (Tensor): positions of the training texts.
        targets (TeacherTargets, optional): what to imitate. `None`: the labels.
        recipe (Recipe): hyper-parameters.
        epochs (int): passes over the training texts.
        seed (int): seed of the order of the texts and of the replaced tokens.
        after_epoch (Callable): called with the number of epochs done.
    """
    generator = torch.Generator().manual_seed(seed)
    projection = None
    hidden_scale = 1.0
    if targets is not None:
        projection = nn.Linear(recipe.width, targets.hidden.shape[1])
        hidden_scale = float(targets.hidden[:100_000].float().square().mean())
    optimizer = optimizer_of(student, projection, recipe)
    phrases = kept[corpus.is_phrase[kept]]
    sentences = kept[~corpus.is_phrase[kept]]
    drawn = math.ceil(len(phrases) * recipe.phrase_share)
    steps = epochs * math.ceil((drawn + len(sentences)) / recipe.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, steps, recipe.warmup)
    )
    for epoch in range(epochs):
        student.train()
        chosen = phrases[torch.randperm(len(phrases), generator=generator)[:drawn]]
        shown = torch.cat([chosen, sentences])
        batches = shuffled_batches(encoded.lengths, shown, recipe.batch_size, generator)
        bar = tqdm(batches, desc=f"epoch {epoch + 1}/{epochs}", mininterval=5.0)
        total = 0.0
        for step, texts in enumerate(bar):
            batch = make_batch(encoded, texts)
            ids = with_unknown(batch.ids, batch.mask, recipe.unknown_rate, generator)
            states = student.bert(ids, attention_mask=batch.mask.long())
            logits = student.classifier(student.dropout(states.pooler_output))
            if targets is None or projection is None:
                loss = functional.cross_entropy(logits, corpus.labels[texts])
            else:
                loss = distillation_loss(logits, targets.logits[texts], recipe)
                wanted = targets.hidden[batch.positions[batch.mask]].float()
                reached = projection(states.last_hidden_state[batch.mask])
                distance = functional.mse_loss(reached, wanted) / hidden_scale
                loss = loss + recipe.hidden_weight * distance
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            total += loss.item()
            bar.set_postfix(loss=total / (step + 1), refresh=False)
        after_epoch(epoch + 1)


# ---------------------------------------------------------------------- evaluation


def predict(model: nn.Module, tokenizer: Any, texts: list[str]) -> Tensor:
    """Logits of shape `(texts, 2)`, in batches of 32 texts padded to the longest."""
    model.eval()
    logits = []
    with torch.inference_mode():
        for start in range(0, len(texts), 32):
            inputs = tokenizer(
                texts[start : start + 32],
                padding=True,
                truncation=True,
                max_length=MAXIMUM_LENGTH,
                return_tensors="pt",
            )
            logits.append(model(**inputs).logits)
    return torch.cat(logits)


def accuracy(model: nn.Module, tokenizer: Any, pairs: list[tuple[int, str]]) -> float:
    """Share of the `(label, text)` pairs whose label gets the larger logit."""
    predicted = predict(model, tokenizer, [text for _, text in pairs]).argmax(-1)
    return float(
        (predicted == torch.tensor([label for label, _ in pairs])).double().mean()
    )


def padding_difference(model: nn.Module, tokenizer: Any, texts: list[str]) -> float:
    """Largest change of a logit when a text is predicted in a padded batch."""
    together = predict(model, tokenizer, texts)
    single = torch.cat([predict(model, tokenizer, [text]) for text in texts])
    return float((together - single).abs().max())


# -------------------------------------------------------------------------- saving


def save(
    student: BertForSequenceClassification, tokenizer: BertTokenizer, output: Path
) -> None:
    """Write weights as float16 under a config that says float32, and the tokenizer."""
    output.mkdir(parents=True, exist_ok=True)
    student.config.dtype = "float32"
    student.config.architectures = [type(student).__name__]
    student.config.save_pretrained(output)
    weights = {
        name: value.detach().half().contiguous()
        for name, value in student.state_dict().items()
    }
    (output / "model.safetensors").write_bytes(
        serialize_tensors(weights, metadata={"format": "pt"})
    )
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(output)
    table = output / "tokenizer.json"
    content = json.loads(table.read_text(encoding="utf-8"))
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    table.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Figures of the reloaded model for the model card; accuracies are shares."""

    parameters: int
    vocabulary: int
    bytes_on_disk: int
    dev: float
    dev_sentences: int
    test: float
    test_sentences: int
    teacher_dev: float | None
    padding_difference: float
    minutes: float
    teacher_from_cache: bool
    examples: tuple[tuple[str, float], ...]


def model_card(
    measured: Measured,
    recipe: Recipe,
    arguments: argparse.Namespace,
    labelled: int,
    recombined: int,
) -> str:
    """The text of the folder's README.md."""
    teacher = "none"
    base = ""
    if measured.teacher_dev is None:
        source = (
            "It was trained on the labels alone, with a WordPiece vocabulary learned "
            "from\nthe training texts."
        )
    else:
        name = Path(arguments.teacher).resolve().name
        teacher = f"../shared/models/{name}"
        source = (
            f"It was distilled from a larger BERT, the teacher `{name}` (dev accuracy "
            f"{measured.teacher_dev:.2%})."
        )
        base = TEACHER_LICENCES.get(
            name, f"* The licence of the teacher `{name}` applies too.\n"
        )
    hardware = "one CPU thread"
    if arguments.threads > 1:
        hardware = f"{arguments.threads} CPU threads together"
    cached = ""
    if measured.teacher_from_cache:
        cached = ", not counting the teacher's answers, which came from a `--cache`"
    more = ""
    if recombined:
        more = (
            f" The teacher also labelled {recombined:,} sentences in which\n"
            "one phrase had been exchanged for another at random."
        )
    examples = "\n".join(
        f"| {text} | {probability:.3f} |" for text, probability in measured.examples
    )
    return f"""\
# Built-in text classifier

A small `BertForSequenceClassification` for the sentiment of English film reviews:
{recipe.layers} layers, width {recipe.width}, {recipe.heads} heads, feed-forward width \
{recipe.intermediate}, {measured.vocabulary:,} lower-cased WordPiece
entries, {measured.parameters:,} parameters, at most {MAXIMUM_LENGTH} tokens. \
Label 0 is negative, 1 is positive.
{source}

```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)
```

The weights are stored as float16 ({measured.bytes_on_disk:,} bytes); the config asks \
for float32, so
that loading converts them.

## Accuracy

Measured by the training script after saving and loading through `from_pretrained`:

| SST-2 split | sentences | accuracy |
|---|---|---|
| dev | {measured.dev_sentences:,} | {measured.dev:.2%} |
| test | {measured.test_sentences:,} | {measured.test:.2%} |

Predicting a sentence in a padded batch or alone changes no logit by more than
{measured.padding_difference:.1e} (first 64 dev sentences).

| text | probability of positive |
|---|---|
{examples}

## Data

Stanford Sentiment Treebank, binary, without neutral texts: {labelled:,} phrases and
sentences of the training trees, among them copies with contractions joined
("do n't" as "don't").{more}
Training texts that equal a dev or test sentence were left out. Nothing was trained on
dev or test sentences, but earlier recipes were measured on them: without recombined
sentences 80.05% on dev, with 24,000 of them 82.45% (3 epochs) and 82.22% (6 epochs).

* R. Socher, A. Perelygin, J. Wu, J. Chuang, C. Manning, A. Ng, C. Potts: Recursive Deep
  Models for Semantic Compositionality Over a Sentiment Treebank. EMNLP 2013.
* The sentences are film review excerpts collected by B. Pang and L. Lee: Seeing Stars.
  ACL 2005.

## Licence

* The treebank was released for research and has no formal licence. It is not part of
  this package. These weights were learned from it: take them as research material
  under the same condition, or retrain on data of your own.
{base}
## Intended use

Demonstrations, tutorials and tests of attribution methods on a model that really
learned something and loads in a moment. It is no product for judging texts.

## Limitations

* Single English sentences about films. Other topics, long texts and irony go wrong
  often; training texts have at most about 65 tokens.
* No class for neutral texts: they get an arbitrary label, sometimes with confidence.
* Letters beyond the Latin scripts become `[UNK]`.
* Like its data, it links names, countries and groups of people with sentiment. The
  attributions of this model explain the model, not the world.

## Retraining

From the root of the repository. These weights took {measured.minutes:.0f} minutes of \
processor time on
{hardware}{cached}:

```
python scripts/train_text_classifier.py --data ../shared/data/sst2 \\
    --teacher {teacher} --epochs {arguments.epochs} --seed {arguments.seed} \\
    --recombined {arguments.recombined} --held-out {arguments.held_out} \
--threads {arguments.threads} \\
    --output captum_transformer_lrp/models/built_in/text-classifier
```

The folders in `../shared` do not belong to the project; `--data` takes any folder with
the treebank in the format that the script describes, `--teacher` any
`BertForSequenceClassification` with the two labels, or `none`.
"""


# ---------------------------------------------------------------------------- main


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Train the built-in text classifier on SST-2."
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder with sst2_train.tsv, sst2_dev.tsv, sst2_test.tsv and "
        "sst2_train_phrases.tsv.gz; each line is 'label<TAB>text'",
    )
    parser.add_argument(
        "--teacher",
        required=True,
        help="folder of a fine-tuned BertForSequenceClassification with its "
        "WordPiece tokenizer, or 'none' to train on the labels alone",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument(
        "--recombined",
        type=int,
        default=72_000,
        help="texts to build from the treebank's phrases for the teacher to label "
        "(none are built without a teacher); default 72000",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cache",
        type=Path,
        help="file that keeps the teacher's answers (about 2 GB) for the next run",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=0,
        help="training sentences to set aside and measure after every epoch, for "
        "choosing hyper-parameters",
    )
    return parser.parse_args()


def main() -> None:
    """Train, save, reload, measure, and write the model card."""
    arguments = parse_arguments()
    started = time.process_time()
    from_cache = arguments.cache is not None and arguments.cache.exists()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(arguments.seed)
    recipe = Recipe()
    recombinations = 0 if arguments.teacher == "none" else arguments.recombined
    corpus = load_corpus(arguments.data, recombinations, arguments.seed)
    held_out, kept = hold_out(
        corpus,
        read_labelled(split_of(arguments.data, "train")),
        arguments.seed,
        arguments.held_out,
    )
    splits = {
        split: read_labelled(split_of(arguments.data, split))
        for split in ("dev", "test")
    }
    targets = teacher_dev = None
    if arguments.teacher == "none":
        vocabulary = learn_vocabulary(corpus.texts)
        tokenizer = build_tokenizer(vocabulary)
        encoded = encode(tokenizer.backend_tokenizer, corpus.texts)
        student = build_student(recipe, len(vocabulary))
    else:
        teacher = BertForSequenceClassification.from_pretrained(
            arguments.teacher, dtype=torch.float32
        ).eval()
        teacher_tokenizer = AutoTokenizer.from_pretrained(arguments.teacher)
        teacher_dev = accuracy(teacher, teacher_tokenizer, splits["dev"])
        print(f"teacher: dev accuracy {teacher_dev:.4f}")
        wordpiece = teacher_tokenizer.backend_tokenizer
        vocabulary = prune_vocabulary(wordpiece, corpus.texts)
        tokenizer = build_tokenizer(vocabulary)
        encoded = encode(tokenizer.backend_tokenizer, corpus.texts)
        for_teacher = encode(wordpiece, corpus.texts)
        teacher_vocabulary = wordpiece.get_vocab()
        translated = torch.tensor([teacher_vocabulary[entry] for entry in vocabulary])
        if not torch.equal(translated[encoded.ids], for_teacher.ids):
            raise RuntimeError(
                "The pruned vocabulary splits the training texts differently from the "
                "teacher's. --teacher expects a lower-casing WordPiece tokenizer."
            )
        targets = cached_teacher(teacher, for_teacher, arguments.cache)
        counts = encoded.ids.bincount(minlength=len(vocabulary))
        student = build_student(recipe, len(vocabulary))
        embeddings = first_embeddings(
            teacher, teacher_vocabulary, vocabulary, counts, recipe
        )
        student.set_input_embeddings(
            nn.Embedding.from_pretrained(embeddings, freeze=False, padding_idx=PAD)
        )
        del teacher
    print(
        f"{len(kept):,} training texts, {len(vocabulary):,} entries, "
        f"{student.num_parameters():,} parameters"
    )

    def after_epoch(number: int) -> None:
        if held_out:
            reached = accuracy(student, tokenizer, held_out)
            print(f"epoch {number}: held-out accuracy {reached:.4f}")

    train(
        student,
        encoded,
        corpus,
        kept,
        targets,
        recipe,
        epochs=arguments.epochs,
        seed=arguments.seed,
        after_epoch=after_epoch,
    )
    save(student, tokenizer, arguments.output)

    reloaded = AutoModelForSequenceClassification.from_pretrained(arguments.output)
    reloaded_tokenizer = AutoTokenizer.from_pretrained(arguments.output)
    if reloaded.dtype != torch.float32:
        raise RuntimeError(
            f"Loading gave {reloaded.dtype} parameters; expected torch.float32 as the "
            "config says. Pass dtype=torch.float32 to from_pretrained."
        )
    probabilities = predict(reloaded, reloaded_tokenizer, list(EXAMPLES)).softmax(-1)
    measured = Measured(
        parameters=reloaded.num_parameters(),
        vocabulary=len(vocabulary),
        bytes_on_disk=(arguments.output / "model.safetensors").stat().st_size,
        dev=accuracy(reloaded, reloaded_tokenizer, splits["dev"]),
        dev_sentences=len(splits["dev"]),
        test=accuracy(reloaded, reloaded_tokenizer, splits["test"]),
        test_sentences=len(splits["test"]),
        teacher_dev=teacher_dev,
        padding_difference=padding_difference(
            reloaded, reloaded_tokenizer, [text for _, text in splits["dev"][:64]]
        ),
        minutes=(time.process_time() - started) / 60,
        teacher_from_cache=from_cache,
        examples=tuple(zip(EXAMPLES, probabilities[:, 1].tolist(), strict=True)),
    )
    recombined = int((corpus.labels[kept] == -1).sum())
    card = model_card(measured, recipe, arguments, len(kept) - recombined, recombined)
    (arguments.output / "README.md").write_text(card, encoding="utf-8")
    print(f"dev accuracy {measured.dev:.4f}, test accuracy {measured.test:.4f}")
    print(f"padding changes logits by at most {measured.padding_difference:.1e}")
    for text, probability in measured.examples:
        print(f"{probability:.3f} positive: {text}")
    print(f"{measured.minutes:.1f} minutes of processor time")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
