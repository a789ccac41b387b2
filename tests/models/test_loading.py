"""Models by name, folder and object, and what is said when there is none."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from PIL import Image

from captum_transformer_lrp.models import (
    LoadingError,
    MissingPackageError,
    load_image_model,
    load_text_model,
)
from captum_transformer_lrp.models.loading import image_model, text_model
from tests.models.tiny import (
    save_hugging_face_image_classifier,
    save_language_model,
    save_text_classifier,
    save_timm_classifier,
    word_piece_tokenizer,
)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test may reach for the network."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def test_text_classifier_from_a_folder(tmp_path):
    pytest.importorskip("transformers")
    source = load_text_model(save_text_classifier(tmp_path / "my-model"))
    assert source.name == "my-model"
    assert source.task == "sequence-classification"
    assert source.class_names == ("bad", "fair", "good")
    assert source.activation == "softmax"
    assert source.max_tokens == 64
    assert not source.module.training
    assert next(source.module.parameters()).dtype == torch.float32


@pytest.mark.parametrize(
    ("config", "activation"),
    [
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"id2label": {0: "score"}, "label2id": {"score": 0}}, "none"),
        ({"problem_type": "regression"}, "none"),
    ],
)
def test_activation_is_read_from_the_config(tmp_path, config, activation):
    pytest.importorskip("transformers")
    assert load_text_model(save_text_classifier(tmp_path, **config)).activation == (
        activation
    )


def test_half_precision_is_loaded_as_single(tmp_path):
    transformers = pytest.importorskip("transformers")
    folder = save_text_classifier(tmp_path)
    auto = transformers.AutoModelForSequenceClassification
    auto.from_pretrained(folder).half().save_pretrained(folder)
    module = load_text_model(folder).module
    assert next(module.parameters()).dtype == torch.float32


def test_language_model_from_a_folder(tmp_path):
    pytest.importorskip("transformers")
    source = load_text_model(str(save_language_model(tmp_path)))
    assert source.task == "causal-language-model"
    assert source.class_names == ()


def test_other_architectures_are_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(hidden_size=8, num_hidden_layers=1)
    config.architectures = ["BertForMaskedLM"]
    config.save_pretrained(tmp_path)
    with pytest.raises(LoadingError, match=r"is BertForMaskedLM \(bert\): expected a"):
        load_text_model(tmp_path)


def test_timm_folder(tmp_path):
    timm = pytest.importorskip("timm")
    folder = save_timm_classifier(tmp_path / "my-vit")
    for name in (folder, f"local-dir:{folder}"):
        source = load_image_model(name)
        assert source.name == "my-vit"
        assert source.class_names == ("cat", "dog", "ship")
        assert source.mean == (0.5, 0.4, 0.3)
        assert source.std == (0.2, 0.25, 0.3)
        assert source.patch_grid == (4, 4)
        assert not source.module.training
    direct = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = source.transform(Image.new("RGB", (40, 30), "teal"))
    assert pixels.shape == (3, 16, 16)
    torch.testing.assert_close(source.module(pixels[None]), direct(pixels[None]))


def test_hugging_face_image_folder(tmp_path):
    pytest.importorskip("transformers")
    source = load_image_model(save_hugging_face_image_classifier(tmp_path))
    assert source.class_names == ("cat", "dog")
    assert source.patch_grid == (2, 2)
    assert source.mean == (0.5, 0.5, 0.5)
    assert source.transform(Image.new("RGB", (40, 30))).shape == (3, 16, 16)


def test_a_text_model_is_no_image_classifier(tmp_path):
    pytest.importorskip("transformers")
    folder = save_text_classifier(tmp_path)
    with pytest.raises(LoadingError, match="expected an image classifier"):
        load_image_model(folder)


def test_timm_objects_bring_their_transform():
    timm = pytest.importorskip("timm")
    module = timm.create_model("vit_tiny_patch16_224", depth=1).eval()
    source = image_model("vit", module)
    assert source.class_names[:2] == ("tench", "goldfish")  # the classes of ImageNet
    other = timm.create_model("vit_tiny_patch16_224", depth=1, num_classes=7)
    assert image_model("vit", other).class_names == ()


def test_other_objects_need_one():
    with pytest.raises(LoadingError, match="Linear does not say how a picture becomes"):
        image_model("linear", torch.nn.Linear(2, 2))


def test_objects_need_a_tokenizer_and_a_config():
    with pytest.raises(LoadingError, match="pass its tokenizer= as well"):
        text_model("linear", torch.nn.Linear(2, 2), None)
    pytest.importorskip("transformers")
    with pytest.raises(LoadingError, match="a Hugging Face model with a config"):
        text_model("linear", torch.nn.Linear(2, 2), word_piece_tokenizer())


@pytest.mark.parametrize("load", [load_text_model, load_image_model])
@pytest.mark.parametrize("name", ["./nothing", "/no/such/folder", "~/no-such-model"])
def test_missing_folder(load, name):
    pytest.importorskip("transformers")
    with pytest.raises(LoadingError, match="there is no such folder"):
        load(name)


@pytest.mark.parametrize("load", [load_text_model, load_image_model])
def test_unknown_name_offline(load):
    pytest.importorskip("transformers")
    with pytest.raises(LoadingError, match="the Hugging Face hub did not deliver it"):
        load("nobody/no-such-model")


def test_unknown_timm_name_offline():
    pytest.importorskip("timm")
    with pytest.raises(LoadingError, match="Did you mean 'vit_tiny_patch16_224'"):
        load_image_model("vit_tiny_patch16_22")
    with pytest.raises(LoadingError, match="cannot load the model 'hf-hub:timm/no'"):
        load_image_model("timm/no")


@pytest.mark.parametrize("load", [load_text_model, load_image_model])
def test_folder_without_a_model(load, tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(LoadingError, match=r"holds no config\.json"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LoadingError, match="is not valid JSON"):
        load(tmp_path)


def test_folder_of_something_else(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"colour": "red"}))
    with pytest.raises(LoadingError, match=r"got the keys \['colour'\]"):
        load_image_model(tmp_path)


def test_incomplete_folder(tmp_path):
    pytest.importorskip("transformers")
    folder = save_text_classifier(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(LoadingError, match="does not hold a complete model"):
        load_text_model(folder)


def test_empty_name():
    with pytest.raises(LoadingError, match="got an empty text"):
        load_image_model(" ")


def test_unknown_device(tmp_path):
    pytest.importorskip("transformers")
    folder = save_text_classifier(tmp_path)
    with pytest.raises(LoadingError, match="cannot put the model on device 'toaster'"):
        load_text_model(folder, device="toaster")


@pytest.mark.parametrize(
    ("load", "package"), [(load_text_model, "transformers"), (load_image_model, "timm")]
)
def test_missing_package(monkeypatch, load, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as caught:
        load("vit_tiny_patch16_224")
    assert f'pip install "captum_transformer_lrp[{package}]"' in str(caught.value)
    assert isinstance(caught.value, ImportError)


def test_built_in_text_classifier():
    pytest.importorskip("transformers")
    source = load_text_model()
    assert source.name == "built-in text-classifier"
    assert source.class_names == ("negative", "positive")


def test_built_in_image_classifier():
    pytest.importorskip("timm")
    source = load_image_model()
    assert source.name == "built-in image-classifier"
    assert "ship" in source.class_names
    assert source.patch_grid is not None
