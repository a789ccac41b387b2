"""Tiny random models, saved as folders in the formats that users have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

WORDS = "the film was warm funny dull and never a great un ##believ ##able ' s , . !"


def word_piece_tokenizer():
    """A WordPiece tokenizer with [CLS] and [SEP], as BERT's."""
    import tokenizers
    from tokenizers import normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS.split(), *"中文字"]
    model = tokenizers.models.WordPiece(
        {entry: i for i, entry in enumerate(entries)}, unk_token="[UNK]"
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def byte_level_tokenizer():
    """A byte-level BPE tokenizer without padding token, as GPT-2's."""
    import tokenizers
    from tokenizers import decoders, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the movie was the best movie"] * 5, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end
    )


def save_text_classifier(folder: Path, **config) -> Path:
    """A BertForSequenceClassification with classes bad, fair and good."""
    import transformers

    torch.manual_seed(0)
    tokenizer = word_piece_tokenizer()
    names = {0: "bad", 1: "fair", 2: "good"}
    arguments: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "id2label": names,
        "label2id": {name: i for i, name in names.items()},
        "initializer_range": 0.5,
    }
    model = transformers.BertForSequenceClassification(
        transformers.BertConfig(**arguments | config)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_language_model(folder: Path) -> Path:
    """A GPT2LMHeadModel with byte-level tokens."""
    import transformers

    torch.manual_seed(0)
    tokenizer = byte_level_tokenizer()
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.5,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_timm_classifier(folder: Path, **pretrained_cfg) -> Path:
    """A timm vision transformer of 16 x 16 pixels in 4 x 4 patches, three classes."""
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 24,
        "depth": 2,
        "num_heads": 3,
    }
    name = "vit_tiny_patch16_224"
    model: Any = timm.create_model(name, num_classes=3, **arguments)
    with torch.no_grad():  # timm starts with a head of nearly zero
        model.head.weight.normal_()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": name,
        "num_classes": 3,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, 16, 16],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
            "crop_pct": 1.0,
            "num_classes": 3,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
            "label_names": ["cat", "dog", "ship"],
        }
        | pretrained_cfg,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


def save_hugging_face_image_classifier(folder: Path) -> Path:
    """A ViTForImageClassification of 16 x 16 pixels in 8 x 8 patches."""
    import transformers

    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=24,
            image_size=16,
            patch_size=8,
            id2label={0: "cat", 1: "dog"},
            label2id={"cat": 0, "dog": 1},
            initializer_range=0.5,
        )
    )
    model.save_pretrained(folder)
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(folder)
    return folder
