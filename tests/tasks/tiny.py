"""Tiny random models of each task, and a tokenizer for them."""

import copy
import re
from functools import cache

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import BertConfig, PreTrainedTokenizerFast

CORPUS = [
    "Sarah lives in London with a dog, and the capital of France is Paris.",
    "A warm and funny film about sports, politics and music: this example is good.",
]


def word_pieces() -> PreTrainedTokenizerFast:
    """A tokenizer as BERT has it, which knows the words of a few sentences.

    One of its own for each caller: pipelines that write set its side of padding.
    """
    return copy.deepcopy(_of_corpus())


@cache
def _of_corpus() -> PreTrainedTokenizerFast:
    # not trained: of pieces that are as frequent the trainer takes any
    text = " ".join(CORPUS).lower()
    letters = sorted(set(re.findall(r"\w", text)))
    words = sorted(set(re.findall(r"\w+", text)) - {"politics", "capital", "example"})
    pieces = ["##ics", "##tal", "##ple", *(f"##{letter}" for letter in letters)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = dict.fromkeys([*special, *letters, *".,:?", *words, *pieces])
    vocabulary = {piece: number for number, piece in enumerate(known)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def labelled(*names: str) -> dict:
    """Arguments of a config whose classes have these names."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }


def bert(kind: type, *names: str, seed: int = 0) -> torch.nn.Module:
    """A BERT for a task, in float64, whose predictions differ from input to input."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(word_pieces()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        **(labelled(*names) if names else {}),
    )
    return kind(config).double().eval()
