"""Attributors as Quantus calls them, with and without Quantus itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_transformer_lrp import AttnLRP, RawAttention
from captum_transformer_lrp.errors import InputError, OutputError
from captum_transformer_lrp.metrics import QuantusTokenWrapper, to_quantus_explain_func
from captum_transformer_lrp.models.loading import load_image_model, load_text_model

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = np.array([0, 3, 5])


@pytest.fixture(scope="module")
def vision() -> nn.Module:
    pytest.importorskip("timm", reason="timm is not installed")
    return load_image_model(None).module


@pytest.fixture(scope="module")
def text():
    pytest.importorskip("transformers", reason="transformers is not installed")
    return load_text_model(None)


def ids_of(text):
    texts = ["a warm and funny film .", "dull ."]
    batch = text.tokenizer(texts, padding=True, return_tensors="pt")
    return batch["input_ids"], batch["attention_mask"]


@pytest.mark.parametrize("method", [AttnLRP, Saliency])
def test_pixels_are_those_of_the_attributor(vision, method):
    found = to_quantus_explain_func(method)(
        vision, PIXELS.numpy(), LABELS, device="cpu"
    )
    pixels = PIXELS.clone().requires_grad_()
    expected = method(vision).attribute(pixels, target=torch.from_numpy(LABELS))
    np.testing.assert_allclose(found, expected.sum(1, keepdim=True).numpy(), rtol=1e-5)


def test_maps_of_patches_are_repeated(vision):
    found = to_quantus_explain_func(RawAttention)(vision, PIXELS.numpy(), LABELS)
    small = RawAttention(vision).attribute(PIXELS, target=torch.from_numpy(LABELS))
    assert found.shape == (3, 1, 32, 32)
    np.testing.assert_allclose(found[:, :, ::4, ::4], small.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found[:, :, 3::4, 3::4], small.numpy(), rtol=1e-5)


def test_ids_are_those_of_the_text_model(text):
    ids, mask = ids_of(text)
    wrapped = QuantusTokenWrapper(text.module, pad_id=text.tokenizer.pad_token_id)
    x = ids[:, None].float()
    batch = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        torch.testing.assert_close(wrapped(x), text.module(**batch).logits)
    found = to_quantus_explain_func(AttnLRP, kind="ids")(wrapped, x.numpy(), [1, 0])
    expected = AttnLRP(text.module).attribute(batch, target=torch.tensor([1, 0]))
    np.testing.assert_allclose(found[:, 0], expected.numpy(), rtol=1e-5)
    assert (found[1, 0, 5:] == 0).all()


def test_embeddings_are_those_of_the_text_model(text):
    ids, _ = ids_of(text)
    vectors = text.module.get_input_embeddings()(ids[:1]).detach()
    wrapped = QuantusTokenWrapper(text.module, kind="embeds")
    found = to_quantus_explain_func(AttnLRP, kind="embeds")(
        wrapped, vectors.numpy(), np.array([1])
    )
    expected = AttnLRP(wrapped).attribute(vectors, target=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-7)


def test_a_copy_with_other_weights_is_explained_with_its_weights():
    one, two = nn.Linear(4, 2), nn.Linear(4, 2)
    explain = to_quantus_explain_func(lambda m: AttnLRP(nn.Sequential(nn.Flatten(), m)))
    x = np.ones((1, 1, 2, 2), dtype=np.float32)
    assert not np.allclose(explain(one, x, [0]), explain(two, x, [0]))


def test_what_does_not_fit_is_refused(vision):
    with pytest.raises(InputError, match="to which an object is not bound"):
        to_quantus_explain_func(AttnLRP(vision))
    with pytest.raises(InputError, match="'embeds', got 'words'"):
        to_quantus_explain_func(AttnLRP, kind="words")
    with pytest.raises(InputError, match="wrap the text model"):
        to_quantus_explain_func(AttnLRP, kind="ids")(vision, PIXELS.numpy(), LABELS)
    with pytest.raises(InputError, match="'ids' or 'embeds'"):
        QuantusTokenWrapper(vision, kind="pixels")
    with pytest.raises(InputError, match="add a channel"):
        QuantusTokenWrapper(vision)(torch.ones(2, 5))
    with pytest.raises(InputError, match="width"):
        QuantusTokenWrapper(vision, kind="embeds")(torch.ones(2, 5))

    class Flat(Saliency):
        def attribute(self, *args, **kwargs):
            return super().attribute(*args, **kwargs).flatten(1)

    with pytest.raises(OutputError, match="expected maps"):
        to_quantus_explain_func(Flat)(vision, PIXELS.numpy(), LABELS)


@pytest.fixture(scope="module")
def quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus", reason="quantus is not installed")


@pytest.mark.filterwarnings("ignore")
def test_quantus_points_with_our_maps(quantus, vision):
    masks = np.zeros((3, 1, 32, 32), dtype=bool)
    masks[:, :, :, 16:] = True
    metric = quantus.PointingGame(
        abs=False, normalise=False, disable_warnings=True, display_progressbar=False
    )
    found = metric(
        model=vision,
        x_batch=PIXELS.numpy(),
        y_batch=LABELS,
        s_batch=masks,
        explain_func=to_quantus_explain_func(AttnLRP),
        channel_first=True,
    )
    maps = to_quantus_explain_func(AttnLRP)(vision, PIXELS.numpy(), LABELS)
    expected = [m.reshape(-1).argmax() % 32 >= 16 for m in maps]
    assert [bool(hit) for hit in found] == expected


@pytest.mark.filterwarnings("ignore")
def test_quantus_flips_our_tokens(quantus, text):
    ids, mask = ids_of(text)
    ids, mask = ids[:1], mask[:1]
    wrapped = QuantusTokenWrapper(text.module, pad_id=text.tokenizer.pad_token_id)
    mask_id = text.tokenizer.mask_token_id
    metric = quantus.PixelFlipping(
        features_in_step=1,
        perturb_baseline=float(mask_id),
        abs=False,
        normalise=False,
        disable_warnings=True,
        display_progressbar=False,
    )
    (found,) = metric(
        model=wrapped,
        x_batch=ids[:, None].float().numpy(),
        y_batch=np.array([1]),
        explain_func=to_quantus_explain_func(AttnLRP, kind="ids"),
        channel_first=True,
    )
    batch = {"input_ids": ids, "attention_mask": mask}
    scores = AttnLRP(text.module).attribute(batch, target=1)
    gone, expected = ids.clone(), []
    for token in scores[0].argsort(descending=True).tolist():
        gone[0, token] = mask_id
        with torch.no_grad():
            logits = text.module(gone, mask).logits
        expected.append(float(logits.softmax(-1)[0, 1]))
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-4)
