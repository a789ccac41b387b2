"""ErasureLRP: relevance in three contexts, against the contexts written out."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, ErasureLRP, explain, rules
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.models.loading import load_image_model
from captum_transformer_lrp.models.pictures import draw_ship
from tests.helpers import assert_same_state, reader, relative, state_of

CLS, SEP, MASK, PAD = 1, 2, 3, 0
IDS = torch.tensor([[CLS, 7, 8, 9, 10, 11, 12, SEP], [CLS, 20, 21, 22, SEP, 0, 0, 0]])
PRESENT = (IDS != PAD).long()


def best(scores: list[float], places: list[int], fraction: float) -> set[int]:
    """The places of the highest scores, earlier ones first, rounded up."""
    ordered = sorted(places, key=lambda i: (-scores[i], i))
    return set(ordered[: math.ceil(fraction * len(places))])


def by_hand(method: Any, ids: Tensor, target: int, erased: float, kept: float) -> Any:
    """One text without padding: the definition, token by token."""
    words = [i for i, t in enumerate(ids.tolist()) if t not in (CLS, SEP)]

    def relevance(gone: set[int]) -> list[float]:
        context = ids.clone()
        context[sorted(gone)] = MASK
        values: list[float] = method.attribute(context[None], target=target)[0].tolist()
        return values

    whole = relevance(set())
    strong = best(whole, words, erased)
    without = relevance(strong)
    first = [whole[i] if i in strong else without[i] for i in range(len(ids))]
    both = [a + b for a, b in zip(whole, first, strict=True)]
    top = best(both, words, kept)
    alone = relevance(set(words) - top)
    second = [
        first[i] if i in words and i not in top else alone[i] for i in range(len(ids))
    ]
    means = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    return torch.tensor(means, dtype=torch.float64)


@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp"])
@pytest.mark.parametrize(("erased", "kept"), [(0.1, 0.5), (0.3, 0.25)])
def test_equals_the_definition(composite: str, erased: float, kept: float) -> None:
    model = reader()
    options: Any = {"baseline": MASK, "keep": (CLS, SEP), "erased": erased}
    erasure = ErasureLRP(model, composite, kept=kept, **options)
    batch = {"input_ids": IDS, "attention_mask": PRESENT}
    found, delta = erasure.attribute(batch, target=1, return_convergence_delta=True)
    assert len(model.seen) == 3
    plain = (AttnLRP if composite == "attnlrp" else CPLRP)(model)
    for row, length in ((0, 8), (1, 5)):
        expected = by_hand(plain, IDS[row, :length], 1, erased, kept)
        assert relative(found[row, :length], expected) < 1e-12
    assert not found[1, 5:].any()
    score = model(IDS, PRESENT)[:, 1]
    assert torch.allclose(delta, score - found.sum(1))


def test_what_is_overshadowed_gets_relevance() -> None:
    """Of two words of which the stronger counts, LRP sees one; each counts alone."""
    embed = nn.Embedding.from_pretrained(torch.tensor([[0.0], [2.0], [1.0]]).double())

    def strongest(ids: Tensor) -> Tensor:
        return embed(ids)[..., 0].amax(1)

    ids = torch.tensor([[1, 2, 0, 0]])
    beside = AttnLRP(strongest).attribute(ids)
    assert beside.tolist() == [[2.0, 0.0, 0.0, 0.0]]
    found = ErasureLRP(strongest, "attnlrp", baseline=0).attribute(ids)
    assert found[0, 0] > found[0, 1] > 0
    assert not found[0, 2:].any()


def test_by_default_a_little_gamma() -> None:
    model = reader()
    rows: Any = dict.fromkeys(("linear", "conv2d"), rules.Gamma(gamma=0.02))
    options: Any = {"baseline": MASK, "keep": (CLS, SEP)}
    found = ErasureLRP(model, **options).attribute(IDS, target=1)
    written = ErasureLRP(model, "attnlrp", rules=rows, **options)
    assert relative(found, written.attribute(IDS, target=1)) < 1e-12
    plain = ErasureLRP(model, "attnlrp", **options).attribute(IDS, target=1)
    assert relative(found, plain) > 1e-3


def test_where_nothing_interacts_it_is_the_relevance_itself() -> None:
    torch.manual_seed(0)
    embed = nn.Embedding(40, 4).double()
    weight = torch.randn(4, dtype=torch.float64)

    def bag(ids: Tensor) -> Tensor:
        return (embed(ids) @ weight).sum(1)

    expected = AttnLRP(bag).attribute(IDS)
    assert (
        relative(ErasureLRP(bag, "attnlrp", baseline=MASK).attribute(IDS), expected)
        < 1e-12
    )


def test_patches_of_pictures_are_erased_whole() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []
    conv = nn.Conv2d(3, 4, 4, stride=4).double()
    head = nn.Linear(4, 2).double()

    def model(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return head(conv(x).relu().amax((2, 3)))

    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    found = ErasureLRP(model, "attnlrp", patch_size=4, erased=0.2, kept=0.5).attribute(
        x, target=1
    )
    _, without, alone = (
        (t != 0).all(1).view(2, 2, 4, 3, 4).all(4).all(2) for t in seen
    )
    assert (~without).flatten(1).sum(1).tolist() == [2, 2]  # of 6, rounded up
    assert alone.flatten(1).sum(1).tolist() == [3, 3]

    def patches(r: Tensor) -> Tensor:
        return r.sum(1).view(2, 2, 4, 3, 4).sum((2, 4))

    plain = AttnLRP(model)
    whole, rest, few = (patches(plain.attribute(t, target=1)) for t in seen[:3])
    assert (whole[~without].view(2, 2).amin(1) >= whole.flatten(1).median(1)[0]).all()
    first = torch.where(without, rest, whole)
    expected = (first + torch.where(alone, few, first)) / 2
    assert relative(patches(found), expected) < 1e-12


def test_two_inputs_are_ranked_each_for_itself() -> None:
    torch.manual_seed(0)
    mix = nn.Bilinear(4, 4, 2).double()

    def model(a: Tensor, b: Tensor) -> Tensor:
        return mix(a.relu().sum(1), b.relu().sum(1))

    a, b = torch.randn(2, 6, 4).double(), torch.randn(2, 3, 4).double()
    first, second = ErasureLRP(model).attribute((a, b), target=1)
    assert first.shape == a.shape and second.shape == b.shape
    assert bool(first.any()) and bool(second.any())


def test_repeats_itself_and_leaves_model_and_random_state() -> None:
    model = reader()
    before, random = state_of(model), torch.get_rng_state()
    erasure = ErasureLRP(model, baseline=MASK)
    first, second = erasure.attribute(IDS, target=0), erasure.attribute(IDS, target=0)
    model.seen.clear()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same_state(before, state_of(model))


@pytest.mark.parametrize("options", [{"erased": 0.0}, {"kept": 1.0}, {"patch_size": 0}])
def test_options_are_checked(options: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        ErasureLRP(reader(), **options)
    with pytest.raises(InputError, match="ErasureLRP replaces tokens"):
        ErasureLRP(reader()).attribute(IDS, target=0)


def test_by_name_it_knows_mask_token_and_patches() -> None:
    pytest.importorskip("transformers")
    text = explain("A warm and very funny film.", method="erasure-lrp")
    assert text.method == "ErasureLRP"
    assert any("strongest 10%" in note for note in text.notes)
    picture = draw_ship()
    image = explain(image=picture, method="erasure-lrp")
    source = load_image_model()
    assert image.patch_grid is not None
    rows, columns = image.patch_grid
    size = image.image.height // rows, image.image.width // columns
    pixels = source.transform(picture)[None]
    erasure = ErasureLRP(source.module, patch_size=size)
    expected = erasure.attribute(pixels, target=image.target.index)
    assert relative(torch.tensor(image.scores), expected[0].sum(0).double()) < 1e-6
