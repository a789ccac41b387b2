"""Tasks that hear sounds: what is explained is what the pipeline answers."""

import re
import wave
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, Occlusion

from captum_transformer_lrp import CPLRP, Explainer, Explanations, load, targets
from captum_transformer_lrp.errors import InputError, TargetError
from captum_transformer_lrp.joint import JointExplanation
from captum_transformer_lrp.keeping import from_dict
from captum_transformer_lrp.sound import SoundExplanation
from captum_transformer_lrp.tasks import task_named, task_of
from captum_transformer_lrp.tasks.sounds import ReadSound, read_sound

from .test_texts import accounted
from .tiny import word_pieces
from .tiny_sounds import (
    RATE,
    clap,
    ctc,
    letters,
    noise,
    spectrograms,
    speech_to_text,
    tone,
    waves,
    whisper,
    whisper_classes,
)

LABELS = ["dog", "a film"]


# --------------------------------------------------------------------------- one class


@pytest.mark.parametrize(
    ("pipe", "seconds"),
    [
        (lambda: waves("wav2vec2"), 0.1),
        (lambda: waves("hubert"), 0.1),
        (spectrograms, 0.3),
        (whisper_classes, 0.4),
    ],
    ids=["wav2vec2", "hubert", "ast", "whisper"],
)
def test_class_of_a_sound_is_the_pipelines(pipe, seconds):
    pipe = pipe()
    sound = noise(seconds)
    explanation = Explainer(pipe, "cp-lrp")(sound)
    answer = pipe(sound)[0]
    assert isinstance(explanation, SoundExplanation)
    assert explanation.output == answer
    assert explanation.prediction.name == answer["label"]
    assert explanation.prediction.probability == pytest.approx(answer["score"])
    assert explanation.duration == pytest.approx(seconds)
    inputs = pipe.feature_extractor(sound, sampling_rate=RATE, return_tensors="pt")
    inputs = {key: value.double() for key, value in inputs.items()}
    with torch.no_grad():
        logits = pipe.model(**inputs).logits[0]
    index = explanation.target.index
    accounted(explanation, float(logits[index]), rtol=1e-6)
    direct = CPLRP(pipe.model).attribute(inputs, target=index)
    (direct,) = direct.values() if isinstance(direct, dict) else (direct,)
    table = direct[0].numpy()
    if table.shape != explanation.scores.shape:  # pitch before time
        table = table.T
    assert explanation.scores == pytest.approx(table, rel=1e-5, abs=1e-9)


def test_classes_that_do_not_exclude_each_other():
    pipe = waves(problem_type="multi_label_classification")
    explainer = Explainer(pipe)
    chances = {one["label"]: one["score"] for one in pipe(noise(0.05))}
    for name, chance in chances.items():
        found = explainer(noise(0.05), target=name)
        assert found.target.probability == pytest.approx(chance)
        logit = torch.tensor(found.logit, dtype=torch.float64)
        assert float(logit.sigmoid()) == pytest.approx(chance)
    softmax = explainer(noise(0.05), function_to_apply="softmax")
    expected = pipe(noise(0.05), function_to_apply="softmax")[0]
    assert softmax.target.probability == pytest.approx(expected["score"])


def test_the_forms_of_a_sound_are_explained_alike():
    pipe = waves()
    explainer = Explainer(pipe)
    sound, other = noise(0.05), noise(0.06, seed=1)
    expected = explainer(sound)
    mapping = {"array": sound, "sampling_rate": RATE}
    forms = [
        torch.from_numpy(sound),
        mapping,
        {"raw": sound, "sampling_rate": RATE, "path": None},
    ]
    for form in forms:
        assert explainer(form).scores == pytest.approx(expected.scores)
    assert set(mapping) == {"array", "sampling_rate"}  # as it was
    both = explainer([sound, other])
    assert isinstance(both, Explanations)
    assert both[0].scores == pytest.approx(expected.scores)
    assert both[1].scores == pytest.approx(explainer(other).scores)
    assert both.to_pandas()["input"].tolist() == ["sound of 0.05 s", "sound of 0.06 s"]


def test_a_model_with_what_prepares_its_sounds():
    pipe = waves()
    explainer = Explainer(pipe.model, feature_extractor=pipe.feature_extractor)
    found = explainer(noise(0.05))
    assert found.task == "audio-classification"
    assert found.scores == pytest.approx(Explainer(pipe)(noise(0.05)).scores)
    assert task_of("WhisperForConditionalGeneration") == "automatic-speech-recognition"
    assert task_of("T5ForConditionalGeneration") == "text2text-generation"
    assert task_of("BertForSequenceClassification") == "text-classification"


@pytest.mark.parametrize("method", ["cp-lrp", "gradient-x-input"])
def test_relevance_lies_where_the_sound_is(method):
    pipe = waves()
    found = Explainer(pipe, method)(tone(0.2, 0.1, 0.15))
    inside = [0.1 <= start < 0.15 for start, _ in found.stretches]
    magnitudes = np.abs(found.stretch_scores)
    assert magnitudes[inside].sum() > 0.9 * magnitudes.sum()
    ((name, _),) = found.top_parts(1)
    assert 0.1 <= float(name.partition("–")[0]) < 0.15


# ------------------------------------------------------------------- time and frequency


@pytest.mark.parametrize("pipe", [spectrograms, whisper_classes, clap, speech_to_text])
def test_time_and_pitch_are_told_apart(pipe):
    """A low tone in the first half of a sound is there, whatever the order of axes."""
    pipe = pipe()
    task = task_named(pipe.task)
    options = {"candidate_labels": LABELS} if "zero" in task.name else {}
    asked = task.ask(pipe, {"sound": tone(0.4, 0, 0.2, hertz=300), **options})
    inputs = asked.calls[0].row(0)
    read = read_sound(asked.pipe, inputs)
    assert isinstance(read, ReadSound)
    frames = round(0.4 * RATE / read.hop)
    heard = read.sound[: frames // 2 - 2]
    silent = read.sound[frames // 2 + 2 : frames - 2]
    assert heard.shape[1] == 16
    assert heard.mean(0).argmax() < 8
    assert heard.max() > silent.max()
    # one score at a frame and a band
    scores = torch.zeros_like(inputs[read.key])
    place = (3, 5) if not read.bands_first else (5, 3)
    scores[..., place[0], place[1]] = 1.0
    found = read.explanation(scores, said(pipe))
    assert [tuple(i) for i in np.argwhere(found.scores)] == [(3, 5)]
    assert found.scores.sum() == scores.sum()
    assert found.cells.shape == (16, len(found.stretches))
    assert found.cells[16 - 1 - 5].sum() == scores.sum()
    grey = np.asarray(found.picture()).mean(0)
    assert grey[:216].mean() < grey[264:440].mean() - 20  # dark to the left


def said(pipe):
    from captum_transformer_lrp.models.prediction import ClassScore

    score = ClassScore(index=0, name="dog", logit=1.0, probability=0.5)
    return {"model": "m", "method": "AttnLRP", "prediction": score, "target": score}


def test_what_the_model_reads_behind_a_sound_has_a_name_of_its_own():
    found = Explainer(whisper_classes(), "cp-lrp")(noise(0.4))
    *_, (name, score) = found.named_stretches
    assert name == "padding, 0.40–1.00 s"
    total = found.stretch_scores.sum() + score
    assert total == pytest.approx(found.relevance_sum)
    assert score == pytest.approx(found.scores[40:].sum())
    assert found.to_pandas()["end"].tolist()[-2:] == pytest.approx([0.4, 1.0])


def test_a_sound_that_is_cut_is_noted():
    found = Explainer(spectrograms())(noise(0.6))
    assert found.notes == ("The model reads the first 0.40 s of 0.60 s.",)
    assert found.duration == pytest.approx(0.4)


# ------------------------------------------------------------------------------ speech


@pytest.mark.parametrize("architecture", ["wav2vec2", "hubert"])
def test_words_of_frames_are_the_pipelines(architecture):
    pipe = ctc(architecture)
    sound = noise(0.1)
    found = Explainer(pipe, "cp-lrp")(sound)
    chunks = pipe(sound, return_timestamps="word")["chunks"]
    assert [one.target.name for one in found] == [c["text"] for c in chunks]
    assert " ".join(one.target.name for one in found) == pipe(sound)["text"]
    inputs = pipe.feature_extractor(sound, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        logits = pipe.model(inputs["input_values"].double()).logits[0]
    pace = pipe.model.config.inputs_to_logits_ratio / RATE
    for one, chunk in zip(found, chunks, strict=True):
        assert one.output == pipe(sound)
        assert one.spoken == pytest.approx(chunk["timestamp"])
        start, end = (round(float(t) / pace) for t in chunk["timestamp"])
        best = logits[start:end].max(1)
        score = best.values[best.indices != letters().pad_token_id].sum()
        accounted(one, float(score), rtol=1e-6)
    assert "Heard at" in dict(found[0].facts)
    assert "heard here" in found[0].to_text()


def test_targets_of_frames():
    pipe = ctc()
    explainer = Explainer(pipe, "cp-lrp")
    sound = noise(0.06)
    words = explainer(sound)
    (first,) = explainer(sound, target=0)
    assert first.scores == pytest.approx(words[0].scores)
    (named,) = explainer(sound, target=[words[-1].target.name])
    assert named.target == words[-1].target
    (token,) = explainer(sound, target=targets.Tokens((7, 8), (1, 2)))
    parts = [
        explainer(sound, target=targets.Token(t, p))[0] for t, p in ((7, 1), (8, 2))
    ]
    assert token.scores == pytest.approx(parts[0].scores + parts[1].scores)
    assert token.logit == pytest.approx(parts[0].logit + parts[1].logit)
    with pytest.raises(TargetError, match="there is no word named 'zebra'"):
        explainer(sound, target="zebra")
    characters = explainer(sound, return_timestamps="char")
    chunks = pipe(sound, return_timestamps="char")["chunks"]
    names = [one.target.name.replace("␣", " ") for one in characters]
    assert names == [chunk["text"] for chunk in chunks]
    assert characters[0].output["chunks"] == chunks


@pytest.mark.parametrize("pipe", [whisper, speech_to_text], ids=["whisper", "s2t"])
def test_words_that_are_written_are_the_pipelines(pipe):
    pipe = pipe()
    sound = noise(0.4)
    found = Explainer(pipe, "cp-lrp")(sound, target=[1, 2])
    answer = pipe(sound)
    every = task_words(pipe, sound)
    assert "".join(every) == answer["text"].replace(" ", "").replace("##", "")
    for number, one in enumerate(found, 1):
        assert isinstance(one, JointExplanation)
        assert list(one) == ["sound", "earlier tokens"]
        assert one.output == answer
        assert one.target.name == every[number]
        earlier: Any = one["earlier tokens"]
        accounted(one, taught(pipe, sound, earlier.pieces, one.target.name), rtol=1e-6)
        assert one["sound"].relevance_sum != 0
        assert earlier.relevance_sum != 0


def task_words(pipe, sound):
    """The words of the answer, as they are explained."""
    task = task_named(pipe.task)
    asked = task.ask(pipe, {"sound": sound})
    return [question.answer.name for question in task.questions(asked, None)]


def taught(pipe, sound, pieces, word):
    """The logit of a word of one token behind others."""
    made = pipe.feature_extractor(sound, sampling_rate=RATE, return_tensors="pt")
    inputs = {"input_features": made["input_features"].double()}
    ids = pipe.tokenizer.convert_tokens_to_ids([piece.token for piece in pieces])
    with torch.no_grad():
        output = pipe.model(**inputs, decoder_input_ids=torch.tensor([ids]))
    vocabulary = pipe.tokenizer.get_vocab()
    names = {word, f"Ġ{word}", f"##{word}"} & set(vocabulary)
    logits = output.logits[0, -1]
    return max(float(logits[vocabulary[name]]) for name in names)


def test_a_word_of_several_tokens_is_the_sum_of_them():
    pipe = whisper(seed=1)
    (word,) = Explainer(pipe, "cp-lrp")(noise(0.4), target=0)
    assert len(word.target.name) == 8  # "ccdccccc"
    accounted(word, word.logit)
    assert len(word["earlier tokens"].tokens) == 2 + 7
    tokens = pipe.tokenizer.convert_tokens_to_ids(list(word.target.name))
    function = targets.Tokens(tuple(tokens), tuple(range(1, 9)))
    (same,) = Explainer(pipe, "cp-lrp")(noise(0.4), target=function)
    assert same.logit == pytest.approx(word.logit)
    assert same["sound"].scores == pytest.approx(word["sound"].scores)


def test_what_decoding_begins_with_is_found_beside_the_language():
    pipe = whisper(multilingual=True)
    task = task_named(pipe.task)
    asked = task.ask(pipe, {"sound": noise(0.3)})
    earlier: Any = next(iter(task.questions(asked, None))).reads[1]
    names = [piece.token for piece in earlier.pieces]
    assert names[0] == "<|startoftranscript|>"
    assert names[1] in ("<|en|>", "<|de|>")
    assert names[2] == "<|notimestamps|>"


# ----------------------------------------------------------------------- sound and text


@pytest.mark.parametrize("fusion", [False, True])
def test_labels_of_a_sound_that_were_never_trained(fusion):
    pipe = clap(fusion=fusion)
    sound = noise(0.5)
    found = Explainer(pipe, "cp-lrp")(sound, candidate_labels=LABELS, target=LABELS)
    answer = pipe(sound, candidate_labels=LABELS)
    chances = {one["label"]: one["score"] for one in answer}
    logits = torch.tensor([one.logit for one in found], dtype=torch.float64)
    assert logits.softmax(0).tolist() == pytest.approx([chances[n] for n in LABELS])
    for one in found:
        assert isinstance(one, JointExplanation)
        assert list(one) == ["sound", "label"]
        assert one.target.probability == pytest.approx(chances[one.target.name])
        accounted(one, one.logit)
        parts: Any = one.parts_of
        assert "this is a sound of" in parts["label"].text.lower()
        assert parts["sound"].behind == "repeats of the sound"
    best = Explainer(pipe)(sound, candidate_labels=LABELS)
    assert best.output == answer[0]


# ------------------------------------------------------------------------------- errors


def test_wrong_sounds_are_answered_in_one_sentence(tmp_path):
    explainer = Explainer(waves())
    sound = noise(0.05)
    file = tmp_path / "a.wav"
    with wave.open(str(file), "wb") as written:
        written.setnchannels(1)
        written.setsampwidth(2)
        written.setframerate(RATE)
        written.writeframes(b"\0\0" * 800)
    cases = [
        (np.stack([sound, sound]), "of one channel, (samples,), got shape (2, 800)"),
        ("a text", "got 'a text', and there is no such file"),
        (np.zeros(0), "the sound is empty"),
        (np.zeros(800, dtype=np.int16), "as floats, got int16"),
        (np.full(800, np.nan), "NaN or infinite"),
        ([0.1, 0.2], "a list is one of sounds"),
        (5, "takes a sound: an array of samples, or a file, got int"),
        ({"array": sound}, "a mapping with array; expected 'array' and"),
        ({"array": sound, "sampling_rate": "16k"}, "in whole hertz, got '16k'"),
        ({"array": sound, "sampling_rate": 0}, "in whole hertz, got 0"),
    ]
    for given, message in cases:
        with pytest.raises(InputError, match=re.escape(message)):
            explainer(given)
    with pytest.raises(InputError, match="got none"):
        explainer()
    with pytest.raises(InputError, match="got image="):
        explainer(image=sound)


def test_a_file_is_read_as_the_pipeline_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "a.wav"
    file.write_bytes(b"RIFF")
    with pytest.raises(InputError, match="ffmpeg was not found"):
        Explainer(waves())(file)


def test_what_is_not_explained_is_refused_in_one_sentence():
    frames = ctc()
    with pytest.raises(InputError, match="in 3 pieces: explain each by itself"):
        Explainer(frames)(noise(0.1), chunk_length_s=0.05)
    stride = {"raw": noise(0.1), "sampling_rate": RATE, "stride": (160, 160)}
    with pytest.raises(InputError, match="a sound with a stride"):
        Explainer(frames)(stride)
    with pytest.raises(InputError, match="reads 1 s at a time"):
        Explainer(whisper())(noise(1.3), return_timestamps=True)
    frames.type = "tdt"
    with pytest.raises(InputError, match="Wav2Vec2ForCTC are not explained"):
        next(task_named(frames.task).questions(asked_once(frames), None))
    other = ctc()
    other.tokenizer = word_pieces()
    with pytest.raises(InputError, match="does not tell from which frames"):
        Explainer(other)(noise(0.05))
    with pytest.raises(InputError, match="from places that are drawn at random"):
        Explainer(clap())(noise(1.2), candidate_labels=LABELS)
    with pytest.raises(InputError, match="needs a feature extractor"):
        pipe = waves()
        pipe.feature_extractor = None
        Explainer(pipe)(noise(0.05))


def asked_once(pipe):
    """A pipeline that was asked while it was of another type."""
    kind, pipe.type = pipe.type, "ctc"
    asked = task_named(pipe.task).ask(pipe, {"sound": noise(0.05)})
    pipe.type = asked.pipe.type = kind
    return asked


def test_pipeline_and_model_stay_as_they_were():
    for pipe in (spectrograms(), whisper()):
        before = dict(vars(pipe)), dict(vars(pipe.model)), torch.get_rng_state()
        target = 0 if pipe.task.startswith("auto") else None
        Explainer(pipe)(noise(0.1), target=target)
        with pytest.raises(InputError):
            Explainer(pipe)("no file")
        assert vars(pipe) == before[0]
        assert vars(pipe.model) == before[1]
        if not hasattr(pipe.model.config, "decoder_layerdrop"):  # which draws itself
            assert torch.equal(torch.get_rng_state(), before[2])


# ---------------------------------------------------------------------- kept and shown


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".safetensors"])
def test_an_explained_sound_is_kept(tmp_path, suffix):
    pytest.importorskip("safetensors")
    pytest.importorskip("pyarrow")
    word = Explainer(ctc())(noise(0.05), target=0)[0]
    for one in (word, Explainer(spectrograms())(noise(0.3))):
        kept = load(one.save(tmp_path / f"one{suffix}"))
        assert isinstance(kept, SoundExplanation)
        assert kept.to_dict() == one.to_dict()
        assert kept.scores.tobytes() == one.scores.tobytes()
        assert kept.spoken == one.spoken
        assert kept.stretches == one.stretches
    damaged = one.to_dict() | {"hop": 0}
    with pytest.raises(InputError, match="'hop' is 0"):
        from_dict(damaged)


def test_a_sound_and_its_label_are_kept_together(tmp_path):
    found = Explainer(clap())(noise(0.3), candidate_labels=LABELS)
    kept = load(found.save(tmp_path / "one.json"))
    assert isinstance(kept, JointExplanation)
    assert kept.to_dict() == found.to_dict()
    assert [type(part) for part in kept.parts_of.values()] == [
        type(part) for part in found.parts_of.values()
    ]
    for damaged in ([], [1], [{"name": "sound"}]):
        with pytest.raises(InputError, match="parts"):
            from_dict(found.to_dict() | {"parts": damaged})


def test_a_sound_shows_itself(tmp_path):
    pytest.importorskip("matplotlib")
    found = Explainer(spectrograms())(noise(0.3))
    assert "0.28–0.30 s" in found.to_html()
    assert "Relevance over time" in found.to_text()
    assert found.save(tmp_path / "a.png").stat().st_size > 1000
    assert "strongest at" in found.alt or "s +" in found.alt or "s −" in found.alt


@pytest.mark.parametrize("method", ["occlusion", Occlusion, FeatureAblation])
def test_what_is_left_out_of_a_sound_is_a_stretch_or_a_patch(method):
    found = Explainer(waves(), method)(tone(0.1, 0.04, 0.06))
    inside = [0.04 <= start < 0.06 for start, _ in found.stretches]
    magnitudes = np.abs(found.stretch_scores)
    assert magnitudes[inside].sum() > 0.9 * magnitudes.sum()
    assert len(np.unique(found.scores)) <= 51
    for pipe in (spectrograms(), whisper_classes()):
        found = Explainer(pipe, method)(noise(0.3))
        tile = found.scores[:16, :16]
        assert tile == pytest.approx(np.full((16, 16), tile[0, 0]))
        assert found.scores[16, 0] != pytest.approx(tile[0, 0])
