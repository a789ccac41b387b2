"""Inputs as users have them, and clear errors for what cannot be explained."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, GradientXInput, TransformerLRP
from captum_transformer_lrp.errors import (
    DisconnectedError,
    InputError,
    OutputError,
    TargetError,
)
from tests.helpers import Tiny, relative, tiny

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@dataclass
class ModelOutput:
    """As Hugging Face's: fields, some of them None."""

    logits: Tensor | None = None
    start: Tensor | None = None


class Masked(Tiny):
    """A classifier with Hugging Face's signature; pads take no part in it."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
    ) -> ModelOutput:
        if inputs_embeds is None:
            inputs_embeds = self.embedding(input_ids)
        assert attention_mask is not None
        kept = attention_mask[..., None].to(inputs_embeds.dtype)
        x = (inputs_embeds * kept).sum(1) / kept.sum(1)
        logits = self.head(torch.tanh(x))
        return ModelOutput(logits=logits, start=logits[:, :2] * 2)


def masked() -> Masked:
    torch.manual_seed(0)
    return Masked().double().eval()


def batch(**more: Any) -> UserDict[str, Any]:
    """As a tokenizer returns it: a mapping that is no dict."""
    return UserDict({"input_ids": IDS, "attention_mask": MASK, **more})


def test_a_tokenizers_mapping() -> None:
    net = masked()
    found = AttnLRP(net).attribute(batch(), target=1)
    assert found.shape == IDS.shape and found.dtype == torch.float64
    assert (found[1, 3:] == 0).all(), "padding gets exactly zero"
    alone = AttnLRP(net).attribute(
        {"input_ids": IDS[1:, :3], "attention_mask": MASK[1:, :3]}, target=1
    )
    assert relative(found[1:, :3], alone) < 1e-12
    by_feature = AttnLRP(net).attribute(
        {"inputs_embeds": net.embedding(IDS).detach(), "attention_mask": MASK}, target=1
    )
    assert relative(by_feature.sum(-1), found) < 1e-12


def test_a_field_of_the_output_by_name() -> None:
    net = masked()
    found = AttnLRP(net, output_field="start").attribute(batch(), target=1)
    assert relative(found, 2 * AttnLRP(net).attribute(batch(), target=1)) < 1e-12
    with pytest.raises(OutputError, match=r"no tensor 'strat'.*Did you mean 'start'"):
        AttnLRP(net, output_field="strat").attribute(batch(), target=1)
    pair = AttnLRP(lambda x: (x, 2 * x), output_field=1)
    assert torch.equal(
        pair.attribute(torch.ones(1, 3), target=0)[0, :1], torch.tensor([2.0])
    )
    with pytest.raises(OutputError, match="Name the field to explain: output_field=0"):
        AttnLRP(lambda x: (x, 2 * x)).attribute(torch.ones(1, 3), target=0)
    with pytest.raises(OutputError, match="Leave output_field out"):
        AttnLRP(lambda x: x, output_field="logits").attribute(
            torch.ones(1, 3), target=0
        )
    with pytest.raises(OutputError, match="returned str"):
        AttnLRP(lambda x: "no").attribute(torch.ones(1, 3))


def test_several_known_entries_of_a_mapping() -> None:
    net = tiny()

    def forward(input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        return net(input_ids) * pixel_values.sum((1, 2))[:, None]

    mapping = {"input_ids": IDS, "pixel_values": torch.rand(2, 4, 4).double()}
    found = CPLRP(forward).attribute(mapping, target=0)
    assert set(found) == set(mapping)
    assert found["input_ids"].shape == IDS.shape
    assert found["pixel_values"].shape == (2, 4, 4)


def test_identifiers_and_floats_in_one_tuple() -> None:
    net = tiny()
    image = torch.rand(2, 8).double()

    def forward(ids: Tensor, image: Tensor) -> Tensor:
        return net.head(net.embedding(ids).mean(1) + image)

    of_ids, of_image = CPLRP(forward).attribute((IDS, image), target=2)
    total = of_ids.sum(1) + of_image.sum(1) + net.head.bias[2]
    assert torch.allclose(total, forward(IDS, image)[:, 2])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(0, 5, dtype=torch.long), r"inputs has shape \(0, 5\)"),
        (torch.zeros(2, 0), "no element to explain"),
        ((), "empty tuple"),
        (torch.tensor([[1.0, float("nan")]]), r"1 value\(s\) that are NaN or infinite"),
        (torch.tensor([[1.0, float("inf")]]), "NaN or infinite"),
        (
            torch.ones(1, 3, dtype=torch.bool),
            "dtype torch.bool; expected floating point",
        ),
        (torch.ones(1, 3, dtype=torch.complex64), "complex64"),
        (torch.ones(1, 3, dtype=torch.uint8), r"for example with \.float\(\)"),
        ([1, 2, 3], "inputs is a list; expected a tensor"),
        ("a film", "inputs is a str"),
        ({"input_ids": [[1, 2]]}, 'return_tensors="pt"'),
        ({"tokens": IDS}, r"the keys \['tokens'\]; expected one of input_ids"),
        ((IDS, None), r"inputs\[1\] is a NoneType"),
    ],
)
def test_inputs_that_cannot_be_explained(inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AttnLRP(tiny()).attribute(inputs, target=0)


def test_additional_forward_args_beside_a_mapping() -> None:
    with pytest.raises(InputError, match="Put everything into the mapping"):
        AttnLRP(masked()).attribute(batch(), target=0, additional_forward_args=MASK)


def test_integers_that_no_embedding_reads() -> None:
    with pytest.raises(InputError, match="no embedding of the model looked up"):
        AttnLRP(lambda x: x.float().sum(1)).attribute(IDS)


def test_identifiers_made_float_by_a_noise_tunnel() -> None:
    with pytest.raises(InputError, match=r"inputs\.long\(\)"):
        AttnLRP(
            nn.Sequential(nn.Embedding(20, 3), nn.Flatten(), nn.Linear(15, 2))
        ).attribute(IDS.float(), target=0)
    tunnel = NoiseTunnel(AttnLRP(nn.Sequential(nn.Embedding(20, 3), nn.Flatten())))
    with pytest.raises(
        Exception, match=r"expects input tensor|inputs|float|dtype|Long"
    ):
        tunnel.attribute(IDS, target=0)


def test_wrong_dtype_and_device() -> None:
    net = tiny()
    with pytest.raises(InputError, match=r"dtype torch.float32, the model's .*float64"):
        AttnLRP(nn.Linear(3, 2).double()).attribute(torch.ones(1, 3), target=0)
    with pytest.raises(InputError, match=r"on cpu, the model on meta"):
        AttnLRP(nn.Linear(3, 2, device="meta")).attribute(torch.ones(1, 3), target=0)
    with pytest.raises(InputError, match=r"inputs is on meta"):
        AttnLRP(net).attribute(IDS.to("meta"), target=0)


def test_the_models_own_errors_pass_unchanged() -> None:
    def model(x: Tensor) -> Tensor:
        raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="out of cheese"):
        AttnLRP(model).attribute(torch.ones(1, 3))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        AttnLRP(nn.Linear(3, 2)).attribute(torch.ones(1, 4), target=0)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            None,
            r"scores have shape \(2, 3\); expected one per example.*target=0 \.\.\. 2",
        ),
        (3, r"target=3 is out of range: expected -3 \.\.\. 2.*shape \(2, 3\)"),
        (-4, "out of range"),
        (1.5, "not made of integers"),
        (True, "not made of integers"),
        ("positive", "not made of integers"),
        ((0, 1), r"has 2 index\(es\) for 1 dimension"),
        ([0], r"has 1 entries for 2 example\(s\)"),
        ([0, 5], "out of range at entry 1"),
        (torch.tensor([0, 1, 2]), r"has shape \(3,\), expected \(2,\)"),
        (torch.tensor([0, 7]), r"expected 0 \.\.\. 2"),
        (torch.tensor([0.0, 1.0]), "dtype torch.float32, expected integers"),
    ],
)
def test_wrong_targets(target: Any, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        AttnLRP(tiny()).attribute(IDS, target=target)


def test_a_class_index_for_scores_per_token() -> None:
    net = tiny()
    with pytest.raises(
        TargetError, match=r"target=\(position, 1\), such as \(-1, 1\)|tuple"
    ):
        AttnLRP(lambda x: net.head(net.embedding(x))).attribute(IDS, target=1)


def test_scores_that_are_not_finite_or_not_float() -> None:
    with pytest.raises(OutputError, match=r"NaN or infinite before anything"):
        AttnLRP(lambda x: x.sum(1) / 0).attribute(torch.ones(2, 3))
    with pytest.raises(OutputError, match=r"dtype torch.int64"):
        AttnLRP(lambda x: x.argmax(1)).attribute(torch.ones(2, 3))


def test_disconnected_scores() -> None:
    with pytest.raises(DisconnectedError, match="Explain logits rather than prob"):
        CPLRP(lambda x: x.softmax(-1)).attribute(torch.ones(2, 3), target=0)
    with pytest.raises(DisconnectedError, match=r"look for detach\(\).* and steps"):
        AttnLRP(lambda x: x.sign() * 2).attribute(torch.ones(2, 3), target=0)


class Part(nn.Module):
    """A part of a model, in which relevance ends."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(2 * x)


@torch.no_grad()
def without_gradient(x: Tensor) -> Tensor:
    return x * 3


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda x: x.detach() * 3, "0: detach, detached"),
        (without_gradient, "0: mul, under torch.no_grad"),
        (lambda x: x.argmax(-1, True) * torch.ones(3), "0: argmax, turned into"),
        (lambda x: torch.ones(2, 3) * x.sum().item(), "0: item, read as a number"),
    ],
)
@pytest.mark.parametrize("method", [AttnLRP, CPLRP, GradientXInput])
def test_where_the_model_itself_ends_relevance_is_named(
    method: type[TransformerLRP], function: Callable[[Tensor], Tensor], place: str
) -> None:
    lrp = method(nn.Sequential(Part(function)))
    for explained in (lrp.attribute, lrp.trace):
        with pytest.raises(DisconnectedError) as caught:
            explained(torch.ones(2, 3), target=0)
        message = str(caught.value)
        assert f"cuts relevance off here:\n  {place}" in message
        assert ("AttnLRP does not)" in message) == (method is CPLRP)


def test_of_many_places_the_first_are_named() -> None:
    parts = [Part(lambda x: x + x.detach()) for _ in range(8)]
    model = nn.Sequential(*parts, Part(torch.detach))
    with pytest.raises(DisconnectedError, match=r"\n  5: .*\n  and 3 more\nExplain"):
        AttnLRP(model).attribute(torch.ones(2, 3), target=0)


def test_an_input_without_influence_gets_zero() -> None:
    x = torch.ones(2, 3)
    of_used, of_unused = AttnLRP(lambda a, b: a.sum(1)).attribute((x, x))
    assert of_used.all() and not of_unused.any()


def test_one_score_for_the_whole_batch() -> None:
    x = torch.rand(2, 3)
    found, delta = GradientXInput(lambda x: x.sum()).attribute(
        x, return_convergence_delta=True
    )
    assert torch.equal(found, x) and delta.abs().max() < 1e-6


class Patched(nn.Module):
    """Tokens, and the patches of all pictures in one list, as Qwen2-VL takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.patch = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, pixel_values: Tensor, sizes: Tensor) -> Tensor:
        pictures = self.patch(pixel_values).split(sizes.tolist())
        means = torch.stack([picture.mean(0) for picture in pictures])
        hidden: Tensor = self.head(self.embedding(input_ids).mean(1) + means)
        return hidden


def test_the_delta_of_packed_patches_is_that_of_the_batch() -> None:
    torch.manual_seed(0)
    net = Patched().double().eval()
    sizes = torch.tensor([3, 5])  # patches of either picture
    inputs = {
        "input_ids": torch.tensor([[1, 2], [3, 4]]),
        "pixel_values": torch.randn(8, 6, dtype=torch.float64),
        "sizes": sizes,
    }
    found, delta = AttnLRP(net).attribute(
        inputs, target=1, return_convergence_delta=True
    )
    assert found["pixel_values"].shape == (8, 6)
    with torch.no_grad():  # what the two biases put into two scores
        bias = 2 * (net.head.bias[1] + net.head.weight[1] @ net.patch.bias)
    assert delta.shape == (1,)
    torch.testing.assert_close(delta, bias[None], rtol=1e-12, atol=0)
