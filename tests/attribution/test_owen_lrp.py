"""OwenLRP: relevance in several contexts, against the contexts written out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp import CPLRP, AttnLRP, OwenLRP, explain
from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.models.loading import load_image_model
from captum_transformer_lrp.models.pictures import draw_ship
from captum_transformer_lrp.models.special_tokens import baseline_id
from tests.helpers import assert_same_state, reader, relative, state_of

CLS, SEP, MASK, PAD = 1, 2, 3, 0
IDS = torch.tensor([[CLS, 7, 8, 9, 10, 11, 12, SEP], [CLS, 20, 21, 22, SEP, 0, 0, 0]])
PRESENT = (IDS != PAD).long()


@pytest.mark.parametrize("composite", ["attnlrp", "cp-lrp"])
def test_equals_the_contexts_written_out(composite: str) -> None:
    model = reader()
    owen = OwenLRP(model, composite, baseline=MASK, keep=(CLS, SEP), n_splits=2)
    batch = {"input_ids": IDS, "attention_mask": PRESENT}
    found, delta = owen.attribute(batch, target=1, return_convergence_delta=True)
    contexts = model.seen[1:]
    assert len(model.seen) == 5
    plain = (AttnLRP if composite == "attnlrp" else CPLRP)(model)
    expected = plain.attribute(batch, target=1) / 2
    special = (IDS == CLS) | (IDS == SEP)
    for ids in contexts:
        relevance = plain.attribute({**batch, "input_ids": ids}, target=1)
        held = (ids == IDS) & ~special
        expected += torch.where(held, relevance, 0) / 4
        expected += torch.where(special, relevance, 0) / 8
    assert relative(found, expected) < 1e-12
    score = model(IDS, PRESENT)[:, 1]
    assert torch.allclose(delta, score - found.sum(1))


def test_the_halves_are_complementary_and_even() -> None:
    model = reader()
    owen = OwenLRP(model, baseline=MASK, keep=(CLS, SEP), n_splits=3)
    owen.attribute(IDS[:1], target=0)
    own = (IDS[:1] != CLS) & (IDS[:1] != SEP)
    pairs = list(zip(model.seen[1::2], model.seen[2::2], strict=True))
    assert len(pairs) == 3
    for first, second in pairs:
        replaced = first == MASK, second == MASK
        assert torch.equal(replaced[0] ^ replaced[1], own)
        # the special tokens hold a place each, so that the halves differ by 1 at most
        assert abs(int(replaced[0].sum()) - int(replaced[1].sum())) <= 2
    assert len({tuple(first.flatten().tolist()) for first, _ in pairs}) > 1


def test_where_nothing_interacts_it_is_the_relevance_itself() -> None:
    torch.manual_seed(0)
    embed = nn.Embedding(40, 4).double()
    weight = torch.randn(4, dtype=torch.float64)

    def bag(ids: Tensor) -> Tensor:
        return (embed(ids) @ weight).sum(1)

    expected = AttnLRP(bag).attribute(IDS)
    assert relative(OwenLRP(bag, baseline=MASK).attribute(IDS), expected) < 1e-12


def test_a_repeated_word_gets_more_than_beside_its_repetition() -> None:
    """Where one of two words is enough, Shapley gives each half of what it adds."""
    embed = nn.Embedding.from_pretrained(torch.tensor([[0.0], [1.0]]).double())

    def either(ids: Tensor) -> Tensor:
        return 1 - (1.5 - embed(ids)[..., 0].sum(1)).relu()

    ids = torch.tensor([[1, 1]])
    beside = AttnLRP(either).attribute(ids)
    owen = OwenLRP(either, baseline=0).attribute(ids)
    assert beside.abs().max() < 1e-12
    assert torch.allclose(owen, torch.full((1, 2), 0.5).double())


def test_batch_and_padding_change_nothing() -> None:
    model = reader()
    owen = OwenLRP(model, baseline=MASK, keep=(CLS, SEP))
    together = owen.attribute({"input_ids": IDS, "attention_mask": PRESENT}, target=2)
    alone = owen.attribute(
        {"input_ids": IDS[1:, :5], "attention_mask": PRESENT[1:, :5]}, target=2
    )
    assert relative(together[1:, :5], alone) < 1e-12
    assert not together[1, 5:].any()


def test_patches_of_pictures() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []
    conv = nn.Conv2d(3, 4, 4, stride=4).double()
    head = nn.Linear(4, 2).double()

    def model(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return head(conv(x).relu().amax((2, 3)))

    x = torch.randn(2, 3, 8, 12, dtype=torch.float64)
    found = OwenLRP(model, patch_size=4).attribute(x, target=1)
    assert found.shape == x.shape
    first, second = seen[1], seen[2]
    assert torch.equal(first + second, x)
    held = (first == x).all(1).view(2, 2, 4, 3, 4).all(4).all(2)
    assert int(held.sum()) == 2 * 3
    plain = AttnLRP(model)
    expected = plain.attribute(x, target=1) / 2
    for one in (first, second):
        expected += torch.where(one == x, plain.attribute(one, target=1), 0) / 2
    assert relative(found, expected) < 1e-12


def test_repeats_itself_and_leaves_model_and_random_state() -> None:
    model = reader()
    before, random = state_of(model), torch.get_rng_state()
    owen = OwenLRP(model, baseline=MASK)
    first, second = owen.attribute(IDS, target=0), owen.attribute(IDS, target=0)
    model.seen.clear()
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), random)
    assert_same_state(before, state_of(model))
    other = OwenLRP(model, baseline=MASK, seed=1).attribute(IDS, target=0)
    assert not torch.equal(first, other)


def test_what_replaces_a_word() -> None:
    def ids(**known: int | None) -> int | None:
        every = dict.fromkeys(
            ("mask_token_id", "pad_token_id", "unk_token_id", "eos_token_id")
        )
        tokenizer = SimpleNamespace(**{**every, **known})
        return baseline_id(tokenizer, mask_first=True)

    assert ids(mask_token_id=4, pad_token_id=0) == 4
    both = SimpleNamespace(
        mask_token_id=4, pad_token_id=0, unk_token_id=1, eos_token_id=2
    )
    assert baseline_id(both) == 0
    assert ids(pad_token_id=0, unk_token_id=1) == 0
    assert ids(unk_token_id=1) == 1
    assert ids(unk_token_id=7, eos_token_id=7) is None
    with pytest.raises(InputError, match="was not told by what: pass tokenizer="):
        OwenLRP(reader()).attribute(IDS, target=0)


@pytest.mark.parametrize(
    "options",
    [
        {"n_splits": 0},
        {"patch_size": 0},
        {"patch_size": (4, 4, 4)},
        {"patch_size": (1.5, 2)},
    ],
)
def test_options_are_checked(options: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        OwenLRP(reader(), **options)


def test_a_vector_has_no_parts() -> None:
    with pytest.raises(InputError, match="which have parts"):
        OwenLRP(lambda x: x.sum()[None]).attribute(torch.ones(3))


def test_by_name_it_knows_mask_token_and_patches() -> None:
    pytest.importorskip("transformers")
    text = explain("A warm and very funny film.", method="owen-lrp")
    plain = explain("A warm and very funny film.")
    assert text.method == "OwenLRP"
    assert any("complementary halves" in note for note in text.notes)
    assert not (text.scores == plain.scores).any()
    picture = draw_ship()
    image = explain(image=picture, method="owen-lrp")
    source = load_image_model()
    assert image.patch_grid is not None
    rows, columns = image.patch_grid
    size = image.image.height // rows, image.image.width // columns
    pixels = source.transform(picture)[None]
    owen = OwenLRP(source.module, patch_size=size)
    expected = owen.attribute(pixels, target=image.target.index)
    assert relative(torch.tensor(image.scores), expected[0].sum(0).double()) < 1e-6
