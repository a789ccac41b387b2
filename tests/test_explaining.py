"""From a model and an input to an explanation, with real small models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    LayerIntegratedGradients,
    NoiseTunnel,
    Occlusion,
)
from PIL import Image

from captum_transformer_lrp.attribution import (
    BASELINES,
    METHODS,
    AttentionAttribution,
    AttnLRP,
    CheferLRP,
    GenericAttention,
)
from captum_transformer_lrp.comparison import compare
from captum_transformer_lrp.errors import (
    AttentionError,
    InputError,
    LRPError,
    ModelStateError,
    OutputError,
    TargetError,
    UnknownNameError,
)
from captum_transformer_lrp.explaining import Explainer, Failure, explain
from captum_transformer_lrp.models import load_image_model, load_text_model
from tests.models.tiny import (
    save_hugging_face_image_classifier,
    save_language_model,
    save_text_classifier,
    save_timm_classifier,
)

anything: Any = explain  # for calls that a type checker would refuse
TEXT = "The film was unbelievable, never dull!"


@pytest.fixture(scope="module")
def text_source(tmp_path_factory):
    pytest.importorskip("transformers")
    return load_text_model(save_text_classifier(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def language_source(tmp_path_factory):
    pytest.importorskip("transformers")
    return load_text_model(save_language_model(tmp_path_factory.mktemp("gpt2")))


@pytest.fixture(scope="module")
def image_source(tmp_path_factory):
    pytest.importorskip("timm")
    return load_image_model(save_timm_classifier(tmp_path_factory.mktemp("vit")))


ATTENTION = [n for n, cls in METHODS.items() if issubclass(cls, AttentionAttribution)]


def test_texts_of_files_tables_and_iterators(text_source, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("text,label\na warm film,1\ndull,0\n")
    expected = Explainer(text_source)(["a warm film", "dull"])
    rows = [("a warm film", 1), ("dull", 0)]
    mappings = [{"text": "a warm film"}, {"text": "dull"}]
    sources: list[Any] = [file, iter(["a warm film", "dull"]), rows, mappings]
    for given in sources:
        found = Explainer(text_source)(given)
        assert [one.text for one in found] == ["a warm film", "dull"]
        assert np.array_equal(found[0].scores, expected[0].scores)


def test_names_of_classes_and_what_a_transform_normalises(
    text_source, image_source, language_source
):
    transforms = pytest.importorskip("torchvision.transforms")
    names = ("cat", "dog", "ship")
    normalize = transforms.Normalize([0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    steps = [transforms.Resize((16, 16)), transforms.ToTensor(), normalize]
    plain = torch.nn.Sequential(
        image_source.module
    )  # knows neither names nor a transform
    plain.eval()
    explainer = Explainer(
        plain, transform=transforms.Compose(steps), class_names=list(names)
    )
    found = explainer(image=picture(), target="dog")
    assert found.target.name == "dog" and found.prediction.name in names
    assert explainer.image_model.mean == pytest.approx((0.5, 0.4, 0.3))
    assert explainer.image_model.std == pytest.approx((0.2, 0.3, 0.4))
    other = Explainer(plain, transform=transforms.Compose([*steps, lambda x: 2 * x]))
    assert other.image_model.mean is None
    assert explain("funny", model=text_source, class_names=names).target.name in names
    comparison = compare(
        "funny", model=text_source, class_names=names, methods=["attnlrp"]
    )
    assert comparison.explanations[0].target.name in names
    for given, message in (
        (names[:2], "class_names= has 2 names, and the model 3 classes"),
        ("cat", "to be a list of names, got 'cat'"),
    ):
        with pytest.raises(InputError, match=message):
            explain("funny", model=text_source, class_names=given)
    with pytest.raises(InputError, match="belongs to a classifier"):
        explain("the best", model=language_source, class_names=names)


def test_the_name_of_a_file_is_no_text(text_source, tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("text\na warm film\n")
    for given in (str(file), ["dull", str(file)]):
        with pytest.raises(InputError, match=r"pass pathlib.Path\('.*reviews.csv'\)"):
            Explainer(text_source)(given)
    with pytest.raises(InputError, match="compare explains one text, got list"):
        compare(["a", "b"], model=text_source)
    for text in ("no-such-file.csv", "f" * 300 + " 3.5 stars", "a\0b.csv"):
        assert Explainer(text_source)(text).text == text


def picture(width=40, height=30):
    """Every pixel another colour."""
    rows, columns = np.mgrid[:height, :width]
    channels = [255 * columns / width, 255 * rows / height, 128 + 0 * rows]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@pytest.mark.parametrize("method", METHODS)
def test_text_agrees_with_the_captum_class(text_source, method):
    explanation = explain(TEXT, model=text_source, method=method)
    encoded = text_source.tokenizer(TEXT, return_tensors="pt")
    logits = text_source.module(**encoded).logits[0].detach()
    predicted = int(logits.argmax())
    made: Any = METHODS[method]
    options: dict[str, Any] = {"own_token": "zero"} if method in ATTENTION else {}
    if method in ("owen-lrp", "erasure-lrp"):
        options = {"tokenizer": text_source.tokenizer}
    expected = made(text_source.module, **options).attribute(encoded, target=predicted)
    np.testing.assert_allclose(explanation.scores, expected[0].numpy(), rtol=1e-5)
    assert explanation.prediction.index == explanation.target.index == predicted
    assert explanation.logit == pytest.approx(float(logits[predicted]))
    assert explanation.prediction.probability == pytest.approx(
        float(logits.softmax(-1)[predicted])
    )
    assert explanation.prediction.name == ("bad", "fair", "good")[predicted]
    assert explanation.method == METHODS[method](text_source.module).get_name()
    assert "".join(explanation.tokens[1:-1]) == TEXT.replace(" ", "")


@pytest.mark.parametrize("method", METHODS)
def test_what_the_scores_are(text_source, image_source, method):
    weights = method in ATTENTION
    alone = method in ("attention-rollout", "raw-attention")
    for explanation in (
        explain(TEXT, model=text_source, method=method),
        explain(image=picture(), model=image_source, method=method),
    ):
        assert explanation.measure == ("attention" if weights else "relevance")
        assert explanation.same_for_every_target is alone
        assert bool((explanation.scores >= 0).all()) is weights
        nothing = "gives no weight to anything" in " ".join(explanation.notes)
        assert nothing is not bool(explanation.scores.any())
        assert not nothing or method == "attention-grad-cam"  # cut off below 0


@pytest.mark.parametrize("method", ATTENTION)
def test_methods_that_are_the_same_for_every_target(text_source, method):
    bad, good = (
        explain(TEXT, model=text_source, method=method, target=target)
        for target in ("bad", "good")
    )
    same = np.allclose(bad.scores, good.scores, rtol=1e-3, atol=0)
    assert same is bad.same_for_every_target


@pytest.mark.parametrize("method", ATTENTION)
def test_the_token_that_is_read_does_not_outshine_the_words(language_source, method):
    texts = ["the best movie was", "the best"]
    for one in explain(texts, model=language_source, method=method):
        assert one.scores[-1] == 0 < one.limit
        assert "the last token of a decoder, that token gets 0, by" in one.notes[-1]
    module = language_source.module
    kept = explain(texts[0], model=language_source, method=GenericAttention(module))
    assert kept.scores[-1] > 0
    assert "keeps the weight that it has of itself" in kept.notes[0]
    lowest = explain(texts[0], model=language_source, method=CheferLRP(module))
    assert "gets the lowest weight or 0" in lowest.notes[0]


@pytest.mark.parametrize("method", ATTENTION)
def test_a_batch_of_weights(text_source, method):
    texts = ["funny", TEXT, "the film was warm and funny"]
    together = explain(texts, model=text_source, method=method, target="good")
    for text, one in zip(texts, together, strict=True):
        alone = explain(text, model=text_source, method=method, target="good")
        np.testing.assert_allclose(one.scores, alone.scores, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("target", [0, "bad", "BAD"])
def test_target_by_index_and_name(text_source, target):
    explanation = explain(TEXT, model=text_source, target=target)
    assert (explanation.target.index, explanation.target.name) == (0, "bad")


def test_a_batch_explains_each_text_as_if_alone(text_source):
    texts = ["funny", TEXT, "the film was warm and funny", "dull", "a great film"]
    together = explain(texts, model=text_source, batch_size=2)
    assert [e.text for e in together] == texts
    for text, one in zip(texts, together, strict=True):
        alone = explain(text, model=text_source)
        assert one.tokens == alone.tokens
        np.testing.assert_allclose(one.scores, alone.scores, rtol=1e-3, atol=1e-6)
        assert one.logit == pytest.approx(alone.logit, abs=1e-5)


def test_progress_is_shown_on_stderr_when_there_is_much_to_do(text_source, capsys):
    explain(["funny", "dull"], model=text_source)
    assert capsys.readouterr().err == ""
    explain(["funny"] * 3, model=text_source, batch_size=1)
    assert "explaining" in capsys.readouterr().err


def test_next_token_of_a_language_model(language_source):
    explanation = explain("the best", model=language_source)
    encoded = language_source.tokenizer("the best", return_tensors="pt")
    logits = language_source.module(**encoded).logits[0, -1].detach()
    token = int(logits.argmax())
    assert explanation.next_token
    assert explanation.target.index == token
    assert explanation.logit == pytest.approx(float(logits[token]))
    expected = AttnLRP(language_source.module).attribute(encoded, target=(-1, token))
    np.testing.assert_allclose(explanation.scores, expected[0].numpy(), rtol=1e-5)
    assert "next token" in explanation.question


def test_a_token_as_target(language_source):
    by_text = explain("the best", model=language_source, target=" movie")
    assert by_text.target.name == "movie"
    by_id = explain("the best", model=language_source, target=by_text.target.index)
    np.testing.assert_array_equal(by_id.scores, by_text.scores)
    with pytest.raises(TargetError, match="expected target= to be one token, but 'mov"):
        explain("the best", model=language_source, target="movies of")
    with pytest.raises(TargetError, match="the vocabulary has ids 0 to"):
        explain("the best", model=language_source, target=10**6)


def test_the_likelier_spelling_of_a_target_is_named(language_source):
    encoded = language_source.tokenizer("the best", return_tensors="pt")
    logits = language_source.module(**encoded).logits[0, -1].detach()
    encode = language_source.tokenizer.encode
    words = [w for w in ("the", "was", "mo", "be") if len(encode(w)) == 1]
    pairs = [(w, f" {w}") for w in words if len(encode(f" {w}")) == 1]
    assert pairs
    for pair in pairs:
        less, more = sorted(pair, key=lambda w: logits[encode(w)[0]])
        with pytest.warns(
            UserWarning, match=f"{less!r} is the token .*{more!r} is ano"
        ):
            found = explain("the best", model=language_source, target=less)
        assert found.target.index == encode(less)[0]
        assert f"which target={more!r} explains." in found.notes[-1]
        assert not explain("the best", model=language_source, target=more).notes


def test_a_batch_of_a_language_model_without_padding_token(language_source):
    texts = ["the", "the best movie was"]
    for text, one in zip(texts, explain(texts, model=language_source), strict=True):
        alone = explain(text, model=language_source)
        np.testing.assert_allclose(one.scores, alone.scores, rtol=1e-4, atol=1e-7)


def test_loaded_model_and_tokenizer(text_source):
    by_module = explain(TEXT, model=text_source.module, tokenizer=text_source.tokenizer)
    by_source = explain(TEXT, model=text_source)
    np.testing.assert_array_equal(by_module.scores, by_source.scores)
    assert by_module.model == "BertForSequenceClassification"


def test_a_captum_object_of_another_package(text_source):
    module = text_source.module

    def forward(ids, mask):
        return module(input_ids=ids, attention_mask=mask).logits

    method = LayerIntegratedGradients(forward, module.bert.embeddings)
    explanation = explain(["funny", TEXT], model=text_source, method=method)[1]
    assert explanation.method == method.get_name()
    assert len(explanation.scores) == len(explanation.tokens)
    assert np.abs(explanation.scores).max() > 0


def test_a_long_text_is_cut_with_a_warning(text_source):
    with pytest.warns(
        UserWarning, match="has 102 tokens and the model reads at most 64"
    ):
        explanation = explain("funny " * 100, model=text_source)
    assert len(explanation.tokens) == 64
    assert explanation.tokens[-1] == "[SEP]"
    assert "cut off" in explanation.notes[0]
    assert "cut off" in explanation.to_json()


def test_multi_label_and_regression(tmp_path):
    pytest.importorskip("transformers")
    many = save_text_classifier(
        tmp_path / "many", problem_type="multi_label_classification"
    )
    explanation = explain(TEXT, model=many)
    assert explanation.prediction.probability == pytest.approx(
        1 / (1 + np.exp(-explanation.logit))
    )
    one = save_text_classifier(tmp_path / "one", problem_type="regression")
    assert explain(TEXT, model=one).prediction.probability is None


@pytest.mark.parametrize("size", [(40, 30), (16, 16), (200, 20), (20, 200)])
def test_image_agrees_with_the_captum_class(image_source, size):
    image = picture(*size)
    explanation = explain(image=image, model=image_source)
    pixels = image_source.transform(image)[None]
    predicted = int(image_source.module(pixels).argmax())
    expected = AttnLRP(image_source.module).attribute(pixels, target=predicted)
    np.testing.assert_allclose(
        explanation.scores, expected[0].double().sum(0).numpy(), rtol=1e-5, atol=1e-8
    )
    assert explanation.prediction.name == ("cat", "dog", "ship")[predicted]
    assert explanation.image.size == (16, 16)
    assert explanation.patch_scores is not None
    assert explanation.patch_scores.sum() == pytest.approx(explanation.relevance_sum)


@pytest.mark.parametrize("method", ATTENTION)
def test_weights_of_patches_agree_with_the_captum_class(image_source, method):
    explanation = explain(image=picture(), model=image_source, method=method)
    pixels = image_source.transform(picture())[None]
    predicted = int(image_source.module(pixels).argmax())
    expected = METHODS[method](image_source.module).attribute(pixels, target=predicted)
    np.testing.assert_allclose(explanation.scores, expected[0, 0].numpy(), rtol=1e-5)
    assert explanation.patch_grid == (4, 4)
    assert not explanation.has_pixels and explanation.image.size == (16, 16)
    np.testing.assert_array_equal(explanation.cells, explanation.scores)


def test_weights_interpolated_to_pixels(image_source):
    method = CheferLRP(image_source.module, upsample=True)
    explanation = explain(image=picture(), model=image_source, method=method)
    assert explanation.scores.shape == (16, 16) and explanation.has_pixels
    assert explanation.patch_scores is not None
    assert explanation.patch_scores.shape == (4, 4)
    assert explanation.measure == "attention"


def wide_model():
    """A transformer of 2 x 5 patches, with a convolution and a class token."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    sizes = {"img_size": (16, 40), "patch_size": 8, "embed_dim": 24, "depth": 2}
    model: Any = timm.create_model("vit_tiny_patch16_224", num_heads=3, **sizes)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def to_pixels(image, size=(40, 16)):
    pixels = np.asarray(image.convert("RGB").resize(size)) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).float()


def test_weights_of_a_grid_that_is_not_square():
    explanation = explain(
        image=picture(), model=wide_model(), transform=to_pixels, method="chefer"
    )
    assert explanation.scores.shape == explanation.patch_grid == (2, 5)
    assert explanation.image.size == (40, 16)
    assert explanation.scores.max() > 0


@pytest.mark.parametrize("method", ATTENTION)
def test_a_model_without_attention(method):
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4 * 14 * 38, 2)
    ).eval()
    with pytest.raises(AttentionError, match=r"has no attention map: .*AttnLRP"):
        explain(image=picture(), model=module, transform=to_pixels, method=method)


def test_the_picture_shown_is_the_one_the_model_saw(image_source):
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    seen = explain(image=image, model=image_source).image
    assert np.abs(np.asarray(seen).astype(int) - [200, 100, 50]).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_pictures_of_all_modes(image_source, tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    picture().convert(mode).save(path)
    assert explain(image=path, model=image_source).scores.shape == (16, 16)


def test_a_rotated_photograph_is_put_upright(image_source, tmp_path):
    turned = picture(16, 16).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn to the right
    turned.save(tmp_path / "a.png", exif=exif)
    seen = explain(image=tmp_path / "a.png", model=image_source).image
    expected = explain(image=picture(16, 16), model=image_source).image
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(expected))


def test_captum_methods_and_loaded_image_models(image_source):
    module = image_source.module
    explanation = explain(
        image=picture(), model=module, method=InputXGradient(module), target="ship"
    )
    same = explain(
        image=picture(), model=module, method="gradient-x-input", target="ship"
    )
    np.testing.assert_allclose(explanation.scores, same.scores, rtol=1e-4, atol=1e-7)
    assert explanation.patch_grid == (4, 4)


def test_a_module_with_a_transform_of_its_own():
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2)).eval()

    def transform(image):
        return (
            torch.from_numpy(np.asarray(image.resize((4, 4))) / 255)
            .permute(2, 0, 1)
            .float()
        )

    explanation = explain(
        image=picture(),
        model=module,
        transform=transform,
        method=InputXGradient(module),
    )
    assert explanation.prediction.name in ("class 0", "class 1")
    assert explanation.patch_grid is None
    assert "normalisation is unknown" in explanation.notes[0]


def test_hugging_face_image_classifier(tmp_path):
    pytest.importorskip("transformers")
    folder = save_hugging_face_image_classifier(tmp_path)
    explanation = explain(image=picture(), model=folder)
    assert explanation.patch_grid == (2, 2)
    assert explanation.scores.shape == (16, 16)
    assert np.abs(explanation.scores).max() > 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, InputError, "exactly one of text= and image=, got neither"),
        ({"text": "a", "image": "b"}, InputError, "got both"),
        ({"text": " "}, InputError, "a text with words in it, got ' '"),
        ({"text": ["a", ""]}, InputError, "got ''"),
        ({"text": "a", "method": "atnlrp"}, UnknownNameError, "Did you mean 'attnlrp'"),
        ({"text": "a", "method": 3}, UnknownNameError, "got 3"),
        ({"text": "a", "batch_size": 0}, InputError, "at least 1, got 0"),
        ({"text": "a", "model": 3}, InputError, "nn.Module or a TextModel, got int"),
        ({"text": "a", "tokenizer": object()}, InputError, "loaded by name brings"),
        ({"text": "a", "transform": print}, InputError, "belongs to image="),
        ({"image": "a", "tokenizer": print}, InputError, "belongs to text="),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        anything(**arguments)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("god", "no class named 'god'. Did you mean 'good'"),
        (3, "the model has classes 0 to 2, got target=3"),
        (-1, "got target=-1"),
        (True, "an index or a name, got True"),
        (1.5, "an index or a name, got 1.5"),
    ],
)
def test_wrong_targets(text_source, target, message):
    with pytest.raises(TargetError, match=message):
        explain(TEXT, model=text_source, target=target)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_a_text_that_fails_does_not_end_the_list(text_source, batch_size):
    texts = ["a warm film", "", "dull", "funny", " "]
    failures: list[Failure] = []
    found = explain(
        texts, model=text_source, batch_size=batch_size, on_error=failures.append
    )
    assert [one.text for one in found] == ["a warm film", "dull", "funny"]
    alone = explain("dull", model=text_source)
    np.testing.assert_allclose(found[1].scores, alone.scores, rtol=1e-4, atol=1e-6)
    assert [(f.number, f.given) for f in failures] == [(2, ""), (5, " ")]
    assert str(failures[0]) == "2 (empty): expected a text with words in it, got ''"
    assert all(isinstance(f.error, InputError) for f in failures)
    with pytest.raises(InputError, match="a text with words in it"):
        explain(texts, model=text_source)
    with pytest.raises(InputError, match="a text with words in it"):
        anything("", model=text_source, on_error=failures.append)
    assert len(failures) == 2


def test_a_failure_shows_the_text_also_without_spaces():
    long = Failure(number=3, given="电影" * 60, error=InputError("no"))
    assert str(long) == f"3 ({'电影' * 29}电…): no"


def test_errors_of_the_model_on_one_text_are_its_own(text_source, monkeypatch):
    def forward(*args, **kwargs):
        if kwargs["input_ids"].shape[1] > 6:
            raise RuntimeError("out of memory:\n  too long")
        return original(*args, **kwargs)

    original = text_source.module.forward
    monkeypatch.setattr(text_source.module, "forward", forward)
    texts = ["a warm film", "a " + "very " * 9 + "long film", "dull"]
    failures: list[Failure] = []
    found = Explainer(text_source)(texts, on_error=failures.append)
    assert [one.text for one in found] == ["a warm film", "dull"]
    (failure,) = failures
    assert failure.number == 2 and str(failure).startswith("2 (a very very ")
    assert str(failure).endswith("): out of memory: too long")
    frame = failure.error.__traceback__
    while frame is not None and frame.tb_frame.f_code is not forward.__code__:
        frame = frame.tb_next
    assert frame is not None and not frame.tb_frame.f_locals  # no tensor is kept


def test_what_is_wrong_for_all_ends_the_list(text_source):
    failures: list[Failure] = []
    for options, error in (
        ({"target": "no such class"}, TargetError),
        ({"model": "./no-such-folder"}, LRPError),
        ({"method": "attention-rollouts"}, UnknownNameError),
    ):
        given = {"model": text_source, **options}
        with pytest.raises(error):
            anything(["a", "dull"], on_error=failures.append, **given)
    text_source.module.train()
    try:
        with pytest.raises(ModelStateError, match="training mode"):
            explain(["a", "b"], model=text_source, on_error=failures.append)
    finally:
        text_source.module.eval()
    assert failures == []


def test_a_picture_that_fails_does_not_end_the_list(image_source, tmp_path):
    picture().save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    broken = {
        "short.png": whole[: len(whole) // 2],
        "text.png": b"no picture",
        "empty.png": b"",
        "part.png": whole.replace(b"IDAT", b"IDA\0"),
    }
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    files: list[Any] = [tmp_path / "good.png"]
    files += [tmp_path / name for name in (*broken, "none.png")] + [picture()]
    failures: list[Failure] = []
    found = explain(image=files, model=image_source, on_error=failures.append)
    assert len(found) == 2
    assert found[0].scores.shape == found[1].scores.shape
    assert [f.number for f in failures] == [2, 3, 4, 5, 6]
    for failure, name in zip(failures, (*broken, "none.png"), strict=True):
        assert isinstance(failure.error, InputError)
        assert name in str(failure.error) and "\n" not in str(failure)


def test_wrong_pictures(image_source, tmp_path):
    with pytest.raises(InputError, match="there is no picture"):
        explain(image=tmp_path / "none.png", model=image_source)
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(InputError, match="is not a picture"):
        explain(image=tmp_path / "a.png", model=image_source)
    Image.new("1", (10_000, 5_001)).save(tmp_path / "large.png")
    with pytest.raises(InputError, match=r"has 10,000 x 5,001 pixels; at most 50 mil"):
        explain(image=tmp_path / "large.png", model=image_source)
    with pytest.raises(InputError, match="a file or a PIL image, got ndarray"):
        anything(image=np.zeros((4, 4)), model=image_source)


def test_training_mode_is_refused_and_left_alone():
    module = torch.nn.Linear(2, 2)
    with pytest.raises(ModelStateError, match=r"call model\.eval\(\) first"):
        anything(image=picture(), model=module, transform=print)
    assert module.training


def strange(result):
    """An attribution object that returns ``result`` whatever it is asked."""
    method: Any = InputXGradient(torch.nn.Identity())
    method.attribute = lambda *_, **__: result
    return method


def test_wrong_attributions(text_source, image_source):
    with pytest.raises(
        OutputError, match=r"returned shape \(1, 99\) for tokens of shape \(1, 3\)"
    ):
        explain("funny", model=text_source, method=strange(torch.zeros(1, 99)))
    with pytest.raises(OutputError, match=r"expected one tensor of the same shape"):
        explain(image=picture(), model=image_source, method=strange(None))
    nan = strange(torch.full((1, 3, 16, 16), float("nan")))
    with pytest.raises(ModelStateError, match="NaN or infinite scores for 256 of 256"):
        explain(image=picture(), model=image_source, method=nan)


def test_the_model_is_left_as_it_was(text_source):
    module = text_source.module
    before = {name: p.clone() for name, p in module.named_parameters()}
    explain(TEXT, model=text_source)
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in module.modules())


# ----------------------------------------------------- methods that LRP is compared to


@pytest.mark.parametrize("method", BASELINES)
def test_a_baseline_method_agrees_with_its_class(text_source, method):
    texts = ["funny", TEXT]
    together = explain(texts, model=text_source, method=method, target="good")
    made = BASELINES[method](text_source.module, tokenizer=text_source.tokenizer)
    for text, one in zip(texts, together, strict=True):
        encoded = text_source.tokenizer(text, return_tensors="pt")
        expected = made.attribute(encoded, target=2)[0].double().numpy()
        np.testing.assert_allclose(one.scores, expected, rtol=1e-3, atol=1e-5)
        assert one.measure == ("magnitude" if method == "saliency" else "relevance")
        assert (one.convergence_delta is not None) is made.has_convergence_delta()
        baseline = any("embedding of [PAD]" in note for note in one.notes)
        assert baseline is made.has_baseline
        assert one.to_dict()["convergence_delta"] == one.convergence_delta
    if method == "saliency":
        assert one.relevance_sum is None and "size of the gradient" in one.summary
    else:
        assert "biases" not in one.summary


def test_the_delta_of_relevance_is_what_constants_absorbed(text_source):
    one = explain(TEXT, model=text_source, method="cp-lrp")
    assert one.relevance_sum is not None
    assert one.convergence_delta == pytest.approx(one.logit - one.relevance_sum)
    assert explain(TEXT, model=text_source, method="chefer").convergence_delta is None


def test_a_sum_that_is_wrong_is_said(text_source):
    lift = explain(TEXT, model=text_source, method="deeplift")
    assert "do not trust its numbers here" in lift.notes[-1]
    gradients = explain(TEXT, model=text_source, method="integrated-gradients")
    assert len(gradients.notes) == 1


def test_captum_classes_and_objects_on_the_model(text_source):
    module = text_source.module

    def scores(method, **options):
        return explain(TEXT, model=text_source, method=method, **options).scores

    expected = scores("integrated-gradients")
    for method in (IntegratedGradients, IntegratedGradients(module)):
        np.testing.assert_allclose(scores(method), expected, rtol=1e-4, atol=1e-5)
    coarse = scores(IntegratedGradients, options={"n_steps": 1})
    assert np.abs(coarse - expected).max() > 1e-3
    for method in (FeatureAblation, Occlusion(module)):
        np.testing.assert_allclose(
            scores(method), scores("occlusion"), rtol=1e-3, atol=1e-5
        )
    np.testing.assert_allclose(
        scores(InputXGradient), scores("gradient-x-input"), rtol=1e-3, atol=1e-6
    )


def test_an_object_on_a_layer_gets_padding_tokens_as_baseline(text_source):
    module = text_source.module
    method = LayerIntegratedGradients(module, module.bert.embeddings)
    one = explain(["funny", TEXT], model=text_source, method=method)[1]
    special = [piece.special for piece in one.pieces]
    np.testing.assert_allclose(one.scores[special], 0, atol=1e-6)
    assert np.abs(one.scores).max() > 0.01
    assert abs(one.convergence_delta) < 0.05


def test_a_noise_tunnel_around_ours(text_source):
    module = text_source.module
    exact = explain(TEXT, model=text_source)
    options = {"nt_samples": 2, "stdevs": 1e-6}
    still = explain(
        TEXT, model=text_source, method=NoiseTunnel(AttnLRP(module)), options=options
    )
    np.testing.assert_allclose(still.scores, exact.scores, rtol=1e-2, atol=1e-4)
    assert still.method == "Noise Tunnel of AttnLRP"
    noisy = explain(TEXT, model=text_source, method=NoiseTunnel(AttnLRP(module)))
    assert np.abs(noisy.scores - exact.scores).max() > 1e-3


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (LayerIntegratedGradients, "is built on a layer as well: pass an object"),
        (NoiseTunnel, "is built on another method: pass an object"),
        (dict, "a Captum Attribution class or an object"),
        ("integrated-gradient", "Did you mean 'integrated-gradients'"),
    ],
)
def test_methods_that_cannot_be_made(method, message):
    with pytest.raises(UnknownNameError, match=message):
        anything("a", method=method)


@pytest.mark.parametrize("method", BASELINES)
def test_baseline_methods_on_several_pictures(image_source, method):
    pictures = [picture(), picture(20, 60)]
    together = explain(image=pictures, model=image_source, method=method)
    for image, one in zip(pictures, together, strict=True):
        alone = explain(image=image, model=image_source, method=method)
        np.testing.assert_allclose(one.scores, alone.scores, rtol=1e-2, atol=1e-5)
        assert one.scores.shape == (16, 16) and one.scores.any()
    black = any("a black picture" in note for note in one.notes)
    assert black is BASELINES[method].has_baseline


def test_a_patch_of_the_model_is_left_out(image_source):
    one = explain(image=picture(), model=image_source, method="occlusion")
    pixels = image_source.transform(picture())[None]
    black = torch.tensor([-0.5 / 0.2, -0.4 / 0.25, -0.3 / 0.3]).view(3, 1, 1)
    without = pixels.clone()
    without[0, :, 4:8, 8:12] = black
    module, index = image_source.module, one.target.index
    fall = float((module(pixels) - module(without))[0, index].detach())
    assert one.patch_scores[1, 2] == pytest.approx(fall, abs=1e-5)


def test_an_explainer_loads_once(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    folder = save_text_classifier(tmp_path)
    calls = []

    def load(name, *, device):
        calls.append(name)
        return load_text_model(name, device=device)

    monkeypatch.setattr("captum_transformer_lrp.explaining.load_text_model", load)
    explainer = Explainer(folder, "cp-lrp")
    assert calls == []
    first, second = explainer(["funny", TEXT], target="good", progress=False)
    assert first.target.name == second.target.name == "good"
    again = explainer.with_method("attnlrp")("funny", target="good")
    assert calls == [folder]
    assert (first.method, again.method) == ("CP-LRP", "AttnLRP")
    assert repr(explainer) == f"Explainer({folder}, method='cp-lrp')"
    with pytest.raises(InputError, match="exactly one of text= and image="):
        Explainer()()
    with pytest.raises(InputError, match="pass one of them"):
        Explainer(tokenizer=print, transform=print)


def test_a_progress_bar_on_demand(text_source, capsys):
    explain(["funny", "dull"], model=text_source, progress=True)
    assert "explaining" in capsys.readouterr().err
