"""Tiny random models of sounds, with what prepares their inputs, and sounds."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapAudioConfig,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapTextConfig,
    GenerationConfig,
    HubertConfig,
    HubertForCTC,
    HubertForSequenceClassification,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
    pipeline,
)

from .tiny import labelled, word_pieces

RATE = 16000
CLASSES = labelled("dog", "rain", "bell")
_LAYERS = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "initializer_range": 0.3,
}
_DECODER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "init_std": 0.3,
    "max_target_positions": 24,
}
_CONVOLUTIONS = {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "classifier_proj_size": 8,
}
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"abcdeh"]


def tone(seconds=0.2, start=0.0, end=None, hertz=440.0, rate=RATE) -> np.ndarray:
    """A sound that is silent but from ``start`` to ``end``."""
    time = np.arange(round(seconds * rate)) / rate
    inside = (time >= start) & (time < (seconds if end is None else end))
    return np.where(inside, 0.5 * np.sin(2 * np.pi * hertz * time), 0.0)


def noise(seconds=0.2, seed=0, rate=RATE) -> np.ndarray:
    """A sound of random samples."""
    found = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    return np.asarray(found)


def _made(kind: Any, config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    return kind(config).double().eval()


def _pipe(task: str, model: Any, extractor: Any, tokenizer: Any = None, **options: Any):
    make = cast(Any, pipeline)  # whose overloads name one kind of model for each task
    return make(
        task,
        model=model,
        feature_extractor=extractor,
        tokenizer=tokenizer,
        device="cpu",
        **options,
    )


# ----------------------------------------------------------------------------- classes


def _of_waves(architecture: str, **options: Any) -> Any:
    config = Wav2Vec2Config if architecture == "wav2vec2" else HubertConfig
    return config(**_LAYERS, **_CONVOLUTIONS, **options)


def waves(architecture: str = "wav2vec2", *, seed: int = 0, **options: Any) -> Any:
    """A classifier of waveforms."""
    kinds = {
        "wav2vec2": Wav2Vec2ForSequenceClassification,
        "hubert": HubertForSequenceClassification,
    }
    config = _of_waves(architecture, vocab_size=12, **CLASSES, **options)
    model = _made(kinds[architecture], config, seed)
    return _pipe("audio-classification", model, Wav2Vec2FeatureExtractor())


def spectrograms(*, seed: int = 0) -> Any:
    """A classifier of spectrograms, 0.4 s long, as AST."""
    config = ASTConfig(
        **_LAYERS,
        patch_size=4,
        frequency_stride=4,
        time_stride=4,
        max_length=40,
        num_mel_bins=16,
        **CLASSES,
    )
    model = _made(ASTForAudioClassification, config, seed)
    extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=40)
    return _pipe("audio-classification", model, extractor)


def _of_whisper(**options: Any) -> WhisperConfig:
    return WhisperConfig(
        **_DECODER,
        num_mel_bins=16,
        max_source_positions=50,
        pad_token_id=9,
        bos_token_id=9,
        eos_token_id=9,
        decoder_start_token_id=10,
        **options,
    )


def _whisper_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=16, chunk_length=1)


def whisper_classes(*, seed: int = 0) -> Any:
    """A classifier on Whisper's encoder, which reads a second."""
    model = _made(WhisperForAudioClassification, _of_whisper(**CLASSES), seed)
    return _pipe("audio-classification", model, _whisper_extractor())


# ------------------------------------------------------------------------------ speech


@cache
def letters() -> Wav2Vec2CTCTokenizer:
    """A tokenizer of letters, for CTC."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
        return Wav2Vec2CTCTokenizer(str(path))


def ctc(architecture: str = "wav2vec2", *, seed: int = 0, **options: Any) -> Any:
    """A recogniser with CTC."""
    kinds = {"wav2vec2": Wav2Vec2ForCTC, "hubert": HubertForCTC}
    config = _of_waves(architecture, vocab_size=len(LETTERS), pad_token_id=0)
    model = _made(kinds[architecture], config, seed)
    extractor = Wav2Vec2FeatureExtractor()
    return _pipe("automatic-speech-recognition", model, extractor, letters(), **options)


def whisper_tokenizer() -> WhisperTokenizer:
    """A tokenizer as Whisper has it, of letters, with a space before or not."""
    vocabulary = ["Ġ", *"abcd", *("Ġ" + letter for letter in "abcd")]
    found = WhisperTokenizer(
        vocab={letter: i for i, letter in enumerate(vocabulary)},
        merges=[("Ġ", letter) for letter in "abcd"],
    )
    special = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>"]
    special += ["<|startofprev|>", "<|notimestamps|>"]
    found.add_special_tokens({"additional_special_tokens": special})
    return found


def whisper(*, seed: int = 0, multilingual: bool = False) -> Any:
    """A recogniser that writes token by token, and reads a second."""
    tokenizer = whisper_tokenizer()
    model = _made(
        WhisperForConditionalGeneration, _of_whisper(vocab_size=len(tokenizer)), seed
    )
    told: dict[str, Any] = {"no_timestamps_token_id": 15, "prev_sot_token_id": 14}
    if multilingual:
        told |= {
            "is_multilingual": True,
            "lang_to_id": {"<|en|>": 11, "<|de|>": 12},
            "task_to_id": {"transcribe": 13},
        }
    model.generation_config = GenerationConfig(
        max_new_tokens=8,
        num_beams=1,
        pad_token_id=9,
        bos_token_id=9,
        eos_token_id=9,
        decoder_start_token_id=10,
        suppress_tokens=[10, 11, 12, 13, 14, 15],
        **told,
    )
    return _pipe("automatic-speech-recognition", model, _whisper_extractor(), tokenizer)


def speech_to_text(*, seed: int = 0) -> Any:
    """A recogniser that writes token by token, of a sound of any length."""
    tokenizer = word_pieces()
    config = Speech2TextConfig(
        **_DECODER,
        vocab_size=len(tokenizer),
        conv_channels=16,
        input_feat_per_channel=16,
        max_source_positions=100,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
    )
    model = _made(Speech2TextForConditionalGeneration, config, seed)
    model.generation_config.update(max_new_tokens=6, num_beams=2)
    extractor = Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16)
    return _pipe("automatic-speech-recognition", model, extractor, tokenizer)


# ----------------------------------------------------------------------- sound and text


def clap(*, seed: int = 0, fusion: bool = False) -> Any:
    """A model of sounds and labels, which reads a second."""
    audio = {"initializer_range": 0.3, "depths": [1, 1], "num_attention_heads": [2, 2]}
    config = ClapConfig(
        text_config=ClapTextConfig(
            vocab_size=len(word_pieces()),
            **_LAYERS,
            max_position_embeddings=40,
            pad_token_id=0,
            projection_dim=8,
        ).to_dict(),
        audio_config=ClapAudioConfig(
            window_size=2,
            num_mel_bins=16,
            spec_size=32,
            patch_size=4,
            patch_stride=[4, 4],
            patch_embeds_hidden_size=8,
            hidden_size=16,
            projection_dim=8,
            enable_fusion=fusion,
            **cast(Any, audio),
        ).to_dict(),
        projection_dim=8,
    )
    model = _made(ClapModel, config, seed)
    extractor = ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=RATE,
        hop_length=320,
        max_length_s=1,
        fft_window_size=400,
        frequency_max=8000,
        truncation="fusion" if fusion else "rand_trunc",
    )
    return _pipe("zero-shot-audio-classification", model, extractor, word_pieces())
