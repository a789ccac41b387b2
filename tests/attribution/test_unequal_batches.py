"""One picture and several texts, one text and several pictures, as CLIP takes them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import (
    CPLRP,
    AttentionRollout,
    AttnLRP,
    CheferLRP,
    LayerAttnLRP,
    RawAttention,
)
from captum_transformer_lrp.errors import (
    AttentionError,
    PairsWarning,
    TargetError,
)
from tests.helpers import Block, relative

WIDTH = 8


class Folded(nn.Module):
    """Attention whose maps are (examples * heads, queries, keys)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], 2, WIDTH // 2)
        q, k, v = (
            part.view(shape).transpose(1, 2).flatten(0, 1)
            for part in self.qkv(x).chunk(3, -1)
        )
        y = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)
        return x + y.unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)


class TwoTowers(nn.Module):
    """Compares every text with every picture."""

    def __init__(self, attention: type[nn.Module]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(20, WIDTH)
        self.text = attention()
        self.patches = nn.Conv2d(3, WIDTH, 4, 4)
        self.vision = attention()
        self.double().eval()

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> dict[str, Tensor]:
        texts = self.text(self.embedding(input_ids)).mean(1)
        patches = self.patches(pixel_values).flatten(2).transpose(1, 2)
        pictures = self.vision(patches).mean(1)
        logits = pictures @ texts.T
        return {"logits_per_image": logits, "logits_per_text": logits.T}


def batch(texts: int, pictures: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "input_ids": torch.randint(0, 20, (texts, 4)),
        "pixel_values": torch.randn(pictures, 3, 8, 8, dtype=torch.float64),
    }


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
@pytest.mark.parametrize(("texts", "pictures"), [(3, 1), (1, 3)])
def test_relevance_is_that_of_the_pairs(method: Any, texts: int, pictures: int) -> None:
    model, inputs = TwoTowers(Block), batch(texts, pictures)
    many = "logits_per_image" if pictures == 1 else "logits_per_text"
    each = "logits_per_text" if pictures == 1 else "logits_per_image"
    several = "input_ids" if pictures == 1 else "pixel_values"
    single = "pixel_values" if pictures == 1 else "input_ids"

    def of_pair(i: int) -> dict[str, Tensor]:
        pair = {**inputs, several: inputs[several][i : i + 1]}
        return method(model, output_field=many).attribute(pair, target=0)

    one = method(model, output_field=many)
    found, delta = one.attribute(inputs, target=2, return_convergence_delta=True)
    assert relative(found[several][2:], of_pair(2)[several]) < 1e-12
    assert (found[several][:2] == 0).all()
    assert relative(found[single], of_pair(2)[single]) < 1e-12
    assert delta.shape == (1,)
    # each example's only score: what there is one of gets the sum
    found = method(model, output_field=each).attribute(inputs, target=0)
    pairs = [of_pair(i) for i in range(3)]
    assert relative(found[several], torch.cat([p[several] for p in pairs])) < 1e-12
    assert relative(found[single], sum(p[single] for p in pairs)) < 1e-12
    with pytest.raises(TargetError, match="3 entries for 1 example"):
        one.attribute(inputs, target=[0, 1, 2])
    layer = model.text if several == "input_ids" else model.vision
    read = LayerAttnLRP(model, layer, output_field=many).attribute(inputs, target=2)
    assert (read[:2] == 0).all()
    assert (read[2] != 0).any()


@pytest.mark.parametrize("method", [AttnLRP, CPLRP])
def test_several_texts_and_pictures_are_explained_in_pairs(method: Any) -> None:
    model, inputs = TwoTowers(Block), batch(3, 3)
    lrp = method(model, output_field="logits_per_image")
    for target in (1, [0, 0, 2], torch.tensor([1, 1, 1])):
        with pytest.warns(PairsWarning, match="Explain pairs, another target for each"):
            lrp.attribute(inputs, target=target)
    found = lrp.attribute(inputs, target=[2, 0, 1])
    for picture, text in enumerate([2, 0, 1]):
        pair = {
            "input_ids": inputs["input_ids"][text : text + 1],
            "pixel_values": inputs["pixel_values"][picture : picture + 1],
        }
        alone = lrp.attribute(pair, target=0)
        assert relative(found["input_ids"][text], alone["input_ids"][0]) < 1e-12
        pixels = found["pixel_values"][picture]
        assert relative(pixels, alone["pixel_values"][0]) < 1e-12


@pytest.mark.parametrize("attention", [Block, Folded])
@pytest.mark.parametrize("method", [CheferLRP, AttentionRollout, RawAttention])
@pytest.mark.parametrize(("texts", "pictures"), [(3, 1), (1, 3), (2, 1), (1, 2)])
def test_attention_methods_want_as_many_texts_as_pictures(
    attention: Any, method: Any, texts: int, pictures: int
) -> None:
    maps = method(TwoTowers(attention), output_field="logits_per_image")
    with pytest.raises(AttentionError, match=f"input_ids {texts}, pixel_values"):
        maps.attribute(batch(texts, pictures), target=0)
    inputs = batch(texts, 1)
    inputs["pixel_values"] = inputs["pixel_values"].expand(texts, -1, -1, -1)
    found = maps.attribute(inputs, target=list(range(texts)))
    assert found["input_ids"].shape == (texts, 4)
    assert found["pixel_values"].shape == (texts, 1, 2, 2)
