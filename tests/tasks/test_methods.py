"""Methods with a baseline, by name, class and object, for tasks of several inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients

from captum_transformer_lrp import AttnLRP, Explainer, explain
from captum_transformer_lrp.errors import OutputError, UnknownNameError
from captum_transformer_lrp.models import load_text_model

from .test_pictures import pipe_of
from .test_writing import PICTURE, captioner, chooser, llava, pipe_of_writer
from .tiny_pictures import clip
from .tiny_sounds import clap, noise, whisper

ASKED = {"image": PICTURE, "question": "Where is Sarah?"}
LABELS = ["a dog", "a boat"]
SAMPLED = ["kernel-shap", "lime", "shapley-sampling"]


def test_integrated_gradients_of_question_and_picture_are_captums():
    """ViLT takes embeddings, so that Captum's class can be called by hand."""
    explainer = chooser()
    model: Any = explainer.model
    tokenizer = explainer._preparing["processor"].tokenizer
    by_name = explainer.with_method("integrated-gradients", {"n_steps": 100})
    found = by_name(**ASKED)
    prepare = explainer._preparing["processor"]
    batch = prepare(images=PICTURE, text=ASKED["question"], return_tensors="pt")
    ids, pixels = batch["input_ids"], batch["pixel_values"].double()
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    table = model.get_input_embeddings()
    words = table(ids).detach()
    pads = table(torch.where(special, ids, tokenizer.pad_token_id)).detach()
    mean, std = (
        torch.tensor(n).view(1, -1, 1, 1).double() for n in statistics(prepare)
    )
    black = (-mean / std).expand_as(pixels)
    rest = {k: v for k, v in batch.items() if k not in ("input_ids", "pixel_values")}

    def answer(words: Any, pixels: Any) -> Any:
        times = len(words)
        more = {k: v.repeat(times, *[1] * (v.dim() - 1)) for k, v in rest.items()}
        return model(inputs_embeds=words, pixel_values=pixels, **more).logits

    expected = IntegratedGradients(answer).attribute(
        (words, pixels), (pads, black), target=found.target.index, n_steps=100
    )
    text, picture = (x.detach()[0] for x in expected)
    assert found["question"].scores == pytest.approx(text.sum(-1).numpy(), rel=1e-5)
    assert found["picture"].scores == pytest.approx(picture.sum(0).numpy(), rel=1e-4)
    with torch.no_grad():
        fall = answer(words, pixels) - answer(pads, black)
    total = found["question"].scores.sum() + found["picture"].scores.sum()
    fall_of_target = float(fall[0, found.target.index])
    assert total == pytest.approx(fall_of_target, rel=1e-3)
    assert total - fall_of_target == pytest.approx(found.convergence_delta, abs=1e-9)
    by_class = explainer.with_method(IntegratedGradients, {"n_steps": 100})(**ASKED)
    by_object = explainer.with_method(IntegratedGradients(model), {"n_steps": 100})
    for other in (by_class, by_object(**ASKED)):
        assert other.scores == pytest.approx(found.scores, rel=1e-9)


def statistics(prepare: Any) -> tuple[Any, Any]:
    return prepare.image_processor.image_mean, prepare.image_processor.image_std


def test_a_label_and_a_picture_are_left_out_as_one_pair():
    """CLIP compares every text with every picture of a batch."""
    pipe = pipe_of("zero-shot-image-classification", clip())
    model, tokenizer = pipe.model, pipe.tokenizer
    found = Explainer(pipe, "occlusion")(PICTURE, candidate_labels=LABELS)
    label = found["label"]
    text = f"This is a photo of {found.target.name}."
    batch = tokenizer(text, return_tensors="pt")
    pixels = pipe.image_processor(PICTURE, return_tensors="pt")["pixel_values"].double()

    def score(ids: Any) -> float:
        with torch.no_grad():
            return float(model(input_ids=ids, pixel_values=pixels).logits_per_image)

    whole = score(batch["input_ids"])
    assert whole == pytest.approx(found.logit)
    for place in (1, 4, 7):
        ids = batch["input_ids"].clone()
        ids[0, place] = tokenizer.pad_token_id
        assert label.scores[place] == pytest.approx(whole - score(ids), abs=1e-9)
    by_class = Explainer(pipe, FeatureAblation)(PICTURE, candidate_labels=LABELS)
    assert by_class["label"].scores == pytest.approx(label.scores, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_over_question_and_picture(name):
    options = {"n_samples": 24} if name.startswith("shapley") else {"n_samples": 96}
    explainer = chooser().with_method(name, {**options, "most_parts": 9, "seed": 4})
    found, again = explainer(**ASKED), explainer(**ASKED)
    assert again.scores == pytest.approx(found.scores, rel=1e-9)  # ViLT is random
    other = explainer.with_method(name, {**options, "most_parts": 9, "seed": 5})
    assert not np.allclose(other(**ASKED).scores, found.scores)
    said = " ".join(found["picture"].notes)
    assert f"{options['n_samples']} " in said and "seed 4" in said
    if name != "lime":
        assert found.convergence_delta == pytest.approx(0, abs=1e-9)
    values = found["picture"].scores
    assert len(np.unique(values.round(12))) <= 9


def test_pictures_between_words():
    """LLaVA's picture takes the place of tokens, which have nothing of their own."""
    model, processor = llava()
    pipe = pipe_of_writer(
        "image-text-to-text", model, processor=processor, max_new_tokens=2
    )
    given = {"image": PICTURE, "text": "<image> a dog"}
    shap = Explainer(pipe, "kernel-shap", options={"n_samples": 400})
    found = shap(**given, target=1)[0]
    assert found.convergence_delta == pytest.approx(0, abs=1e-9)
    text = found["text"]
    assert all(piece.token != "<image>" for piece in text.pieces)
    (falls,) = Explainer(pipe, "occlusion")(**given, target=1)
    assert bool(falls["text"].scores.any()) and bool(falls["picture"].scores.any())


def test_objects_explain_what_is_written_about_a_picture():
    """What a decoder wrote before is told to a function of the model."""
    explainer = captioner()
    model: Any = explainer.model
    options = {"max_new_tokens": 3, "do_sample": False, "target": 2}
    for name, made in (
        ("attnlrp", AttnLRP(model)),
        ("integrated-gradients", IntegratedGradients(model)),
    ):
        (expected,) = explainer.with_method(name)(PICTURE, **options)
        (found,) = explainer.with_method(made)(PICTURE, **options)
        assert [*found] == ["picture", "written before"]
        assert found.scores == pytest.approx(expected.scores, rel=1e-9, abs=1e-12)
    wrong = explainer.with_method(AttnLRP(lambda **inputs: model(**inputs)))
    with pytest.raises(UnknownNameError, match="pass the class, method=AttnLRP, or an"):
        wrong(PICTURE, **options)


def test_objects_explain_what_is_said():
    pipe = whisper()
    sound = noise(0.1)
    (expected,) = Explainer(pipe)(sound, target=0)
    (found,) = Explainer(pipe, AttnLRP(pipe.model))(sound, target=0)
    assert found.scores == pytest.approx(expected.scores, rel=1e-9, abs=1e-12)
    (by_object,) = Explainer(pipe, IntegratedGradients(pipe.model))(sound, target=0)
    (by_name,) = Explainer(pipe, "integrated-gradients")(sound, target=0)
    assert by_object.scores == pytest.approx(by_name.scores, rel=1e-9, abs=1e-12)
    assert [*by_name] == ["sound", "earlier tokens"]


def test_a_baseline_at_which_there_is_no_score():
    """A spectrogram of zeros has no embedding that CLAP could normalise."""
    given = {"candidate_labels": ["dog", "rain"]}
    sound = noise(0.05)
    for name in ("integrated-gradients", "kernel-shap"):
        with pytest.raises(OutputError, match="NaN or infinite"):
            Explainer(clap(), name)(sound, **given)
    other = {"baseline": {"input_features": -1.0}}
    found = Explainer(clap(), "kernel-shap", options=other)(sound, **given)
    assert found.convergence_delta == pytest.approx(0, abs=1e-9)


def test_baselines_of_texts_are_padding():
    source = load_text_model()
    text = "A warm and funny film."
    plain = explain(text, method="integrated-gradients")
    task = Explainer(
        source.module,
        "integrated-gradients",
        task="text-classification",
        tokenizer=source.tokenizer,
    )
    found = task(text)
    assert found.scores == pytest.approx(plain.scores, rel=1e-5, abs=1e-7)
    assert "Baseline: the embedding of [PAD]" in " ".join(found.notes)


@pytest.mark.parametrize("name", SAMPLED)
def test_samples_of_a_text_by_name(name):
    text = "A warm and funny film."
    found = explain(text, method=name, options={"n_samples": 300, "seed": 1})
    assert found.scores[0] == 0 == found.scores[-1]
    falls = explain(text, method="occlusion")
    assert np.sign(found.scores[np.abs(falls.scores).argmax()]) == np.sign(
        falls.scores[np.abs(falls.scores).argmax()]
    )
    if name != "lime":
        assert found.convergence_delta == pytest.approx(0, abs=1e-4)
