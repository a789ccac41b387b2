"""Methods that leave parts out, and methods with baselines for several inputs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, Lime, Occlusion
from torch import Tensor, nn

from captum_transformer_lrp import methods, targets
from captum_transformer_lrp.attribution import (
    BASELINES,
    InputDeepLift,
    InputIntegratedGradients,
    InputKernelShap,
    InputLime,
    InputOcclusion,
    InputShapleySampling,
)
from captum_transformer_lrp.attribution.calling import attribute_inputs
from captum_transformer_lrp.errors import ArgumentError, InputError, OutputError
from tests.helpers import relative

SHAPLEY: Any = pytest.mark.parametrize(
    "method", [InputKernelShap, InputShapleySampling]
)
DRAWN: Any = pytest.mark.parametrize(
    "method", [InputKernelShap, InputLime, InputShapleySampling]
)


def products(x: Tensor) -> Tensor:
    """A game with interactions: features ``(batch, parts, width)`` to a score each."""
    y = x.sum(-1)
    return y[:, 0] * y[:, 1] - y[:, 1:].prod(1) + 2 * y[:, -1]


def game(x: Tensor, chosen: set[int]) -> float:
    kept = torch.zeros_like(x)
    for i in chosen:
        kept[:, i] = x[:, i]
    return float(products(kept))


def shapley(x: Tensor) -> Tensor:
    """The definition: a sum over all sets, for each part."""
    count = x.shape[1]
    found = torch.zeros(count, dtype=torch.float64)
    for i in range(count):
        others = [j for j in range(count) if j != i]
        for size in range(count):
            weight = 1 / (count * math.comb(count - 1, size))
            for some in itertools.combinations(others, size):
                chosen = set(some)
                found[i] += weight * (game(x, chosen | {i}) - game(x, chosen))
    return found


def parts(count: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(1, count, 3, dtype=torch.float64)


@SHAPLEY
def test_few_parts_have_their_shapley_values(method):
    x = parts(4)
    found, delta = method(products).attribute(x, return_convergence_delta=True)
    assert relative(found.sum(-1)[0], shapley(x)) < 1e-12
    assert abs(float(delta)) < 1e-12
    each = found[0, 0]
    assert float(each.max()) == pytest.approx(float(each.min()))  # equal shares


@SHAPLEY
def test_drawn_sets_tend_to_the_shapley_values(method):
    errors = []
    x = parts(10)  # of 1022 sets and 3628800 orders
    for n_samples in (40, 1000):
        made = method(products, n_samples=n_samples)
        found, delta = made.attribute(x, return_convergence_delta=True)
        assert abs(float(delta)) < 1e-12
        errors.append(relative(found.sum(-1)[0], shapley(x)))
    assert errors[1] < errors[0] and errors[1] < 0.15


@DRAWN
def test_samples_come_from_the_seed_alone(method):
    x = parts(10)
    made = method(products, n_samples=60, seed=5)
    first = made.attribute(x)
    torch.rand(3)
    assert torch.equal(made.attribute(x), first)
    assert not torch.equal(method(products, n_samples=60, seed=6).attribute(x), first)
    both = made.attribute(torch.cat([parts(10, 1), x]))
    assert relative(both[1:], first) < 1e-12


def test_too_few_samples_are_refused():
    for method in (InputKernelShap, InputLime):
        made = method(products, n_samples=10)
        with pytest.raises(InputError, match=r"too few to tell .* raise n_samples"):
            made.attribute(parts(20))


@pytest.mark.parametrize("count", [5, 11])
def test_lime_is_captums_with_the_same_sets(count):
    pytest.importorskip("sklearn")
    from captum._utils.models.linear_model import SkLearnLinearRegression

    x = parts(count)
    ours = InputLime(products, n_samples=300, seed=2)
    found = ours.attribute(x).sum(-1)[0]
    sets = ours._sets(count)
    assert len(sets) == (32 if count == 5 else 300)

    def drawn(*_: Any, **__: Any):
        yield from sets[:, None].long()

    def score(present: Tensor) -> Tensor:
        return products(x * present[..., None])

    theirs = Lime(
        score, interpretable_model=SkLearnLinearRegression(), perturb_func=drawn
    )
    expected = theirs.attribute(
        torch.ones(1, count, dtype=torch.float64), n_samples=len(sets)
    )
    assert relative(found, expected[0].double()) < 1e-5
    narrow = InputLime(products, n_samples=300, kernel_width=0.2).attribute(x)
    assert relative(narrow.sum(-1)[0], found) > 0.01


# ---------------------------------------------------------------------------- the parts


def bag(count: int = 40) -> nn.Module:
    torch.manual_seed(0)

    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(count, 4)
            self.head = nn.Linear(4, 2)
            self.double().eval()

        def forward(self, input_ids: Tensor, attention_mask: Any = None) -> Tensor:
            return self.head(self.embedding(input_ids).sum(1).tanh())

    return Bag()


@DRAWN
def test_a_part_of_a_text_is_a_word(method):
    pytest.importorskip("transformers")
    from tests.tasks.tiny import word_pieces

    tokenizer = word_pieces()
    batch = tokenizer("a photo film", return_tensors="pt")
    tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0])
    pieces = [i for i, token in enumerate(tokens) if token.startswith("##")]
    assert pieces
    word = [pieces[0] - 1, *pieces]
    model = bag(len(tokenizer))
    ids = batch["input_ids"]
    found = method(model, tokenizer=tokenizer).attribute({"input_ids": ids}, 1)[0]
    assert torch.allclose(found[word], found[word[0]].expand(len(word)))
    assert found[0] == 0 and found[-1] == 0  # special tokens stay
    by_token = method(model, tokenizer=tokenizer, unit="tokens")
    apart = by_token.attribute({"input_ids": ids}, 1)[0]
    assert float(apart[word].std()) > 1e-3
    with pytest.raises(InputError, match="'words' or 'tokens', got 'letters'"):
        method(model, unit="letters")


def test_patches_are_put_together():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2), nn.Tanh()).double()
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)

    def cells(**options: Any) -> int:
        made = InputKernelShap(model, patch_size=2, n_samples=400, **options)
        found = made.attribute(pixels, 1)[0].sum(0)
        return len(found.unique())

    assert cells() == 16  # 8 x 8 patches are more than 49: two by two
    assert cells(most_parts=64) == 64
    assert cells(most_parts=1) == 1


def test_frames_have_parts_of_their_own():
    torch.manual_seed(0)
    weights = torch.randn(3, 3, 4, 4, dtype=torch.float64)

    def model(pixel_values: Tensor) -> Tensor:
        return (pixel_values * weights).flatten(1).sum(1)

    frames = torch.randn(1, 3, 3, 4, 4, dtype=torch.float64)
    for method in (InputOcclusion, InputKernelShap):
        found = method(model, patch_size=2).attribute({"pixel_values": frames})
        products = (frames * weights)[0].sum(1)
        for frame, row, column in itertools.product(range(3), (0, 2), (0, 2)):
            at = (..., slice(row, row + 2), slice(column, column + 2))
            expected = products[frame][at].sum()
            assert relative(found[0, frame].sum(0)[at].sum(), expected) < 1e-9


# --------------------------------------------------------------- several inputs at once


class TwoInputs(nn.Module):
    """Words and a picture, with an interaction between them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding = nn.Embedding(12, 4)
        self.look = nn.Linear(2 * 2 * 2, 4)
        self.head = nn.Linear(4, 3)
        self.double().eval()

    def both(self, words: Tensor, pixel_values: Tensor) -> Tensor:
        seen = self.look(pixel_values.flatten(1)).tanh()
        return self.head((words.sum(1) * seen).tanh() + seen)

    def forward(
        self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Any = None
    ) -> Tensor:
        return self.both(self.embedding(input_ids), pixel_values)


def two_inputs(examples: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {
        "input_ids": torch.tensor([[2, 7, 8, 3], [2, 5, 9, 3]])[:examples],
        "pixel_values": torch.randn(examples, 2, 2, 2, dtype=torch.float64),
    }


BLACK = torch.full((1, 2, 1, 1), -0.5, dtype=torch.float64)
OPTIONS: dict[str, Any] = {"baseline": {"input_ids": 0, "pixel_values": BLACK}}


@pytest.mark.parametrize("examples", [1, 2])
def test_integrated_gradients_of_two_inputs_are_captums(examples):
    model, given = TwoInputs(), two_inputs(examples)
    made = InputIntegratedGradients(model, keep=(2, 3), n_steps=80, **OPTIONS)
    found, delta = made.attribute(given, 1, return_convergence_delta=True)
    ids, pixels = given["input_ids"], given["pixel_values"]
    other = torch.where(torch.isin(ids, torch.tensor([2, 3])), ids, 0)
    words, without = model.embedding(ids).detach(), model.embedding(other).detach()
    black = BLACK.expand_as(pixels)
    expected = IntegratedGradients(model.both).attribute(
        (words, pixels), (without, black), target=1, n_steps=80
    )
    assert [*found] == ["input_ids", "pixel_values"]
    assert relative(found["input_ids"], expected[0].sum(-1)) < 1e-12
    assert relative(found["pixel_values"], expected[1]) < 1e-12
    with torch.no_grad():
        fall = (model(ids, pixels) - model(other, black))[:, 1]
    total = found["input_ids"].sum(1) + found["pixel_values"].sum((1, 2, 3))
    assert relative(total, fall) < 1e-4
    assert relative(total - fall, delta) < 1e-6
    as_tuple = InputIntegratedGradients(
        model, keep=(2, 3), n_steps=80, baseline=(0, BLACK)
    ).attribute((ids, pixels), 1)
    assert isinstance(as_tuple, tuple)
    assert torch.equal(as_tuple[0], found["input_ids"])


def test_occlusion_of_two_inputs_is_a_loop():
    model, given = TwoInputs(), two_inputs()
    found = InputOcclusion(model, patch_size=1, **OPTIONS).attribute(given, 2)
    with torch.no_grad():
        score = model(**given)[0, 2]
        for i in range(4):
            ids = given["input_ids"].clone()
            ids[0, i] = 0
            fall = score - model(ids, given["pixel_values"])[0, 2]
            assert float(found["input_ids"][0, i]) == pytest.approx(float(fall))
        pixels = given["pixel_values"].clone()
        pixels[:, :, 1, 0] = -0.5
        fall = score - model(given["input_ids"], pixels)[0, 2]
    patch = found["pixel_values"][0, :, 1, 0]
    assert float(patch.sum()) == pytest.approx(float(fall))


@pytest.mark.parametrize("name", BASELINES)
def test_every_method_with_a_baseline_explains_both(name):
    model, given = TwoInputs(), two_inputs(2)
    made = BASELINES[name](model, **OPTIONS)
    together = made.attribute(given, 1)
    alone = made.attribute({k: v[1:] for k, v in given.items()}, 1)
    for key, scores in together.items():
        assert scores.shape == given[key].shape and bool(scores.any())
        assert relative(scores[1:], alone[key]) < 1e-10
    if made.has_convergence_delta():
        found, delta = made.attribute(given, 1, return_convergence_delta=True)
        total = found["input_ids"].sum(1) + found["pixel_values"].sum((1, 2, 3))
        with torch.no_grad():
            other = torch.zeros_like(given["input_ids"])
            black = BLACK.expand(2, 2, 2, 2)
            fall = (model(**given) - model(other, black))[:, 1]
        assert torch.allclose(total - fall, delta, atol=1e-10)


def test_baselines_of_several_inputs():
    model, given = TwoInputs(), two_inputs()

    def found(baseline: Any, **options: Any) -> Any:
        made = InputIntegratedGradients(model, baseline=baseline, **options)
        return made.attribute(given, 1)["input_ids"]

    named = found({"pixel_values": BLACK, "input_ids": 0.0})
    assert torch.equal(found(BLACK), named)  # a tensor is for the pixels alone
    assert torch.equal(found(0), found({"input_ids": 0}))  # an identifier for words
    assert torch.equal(found(0.0), found(None))
    assert not torch.equal(found(0), found(None))
    with pytest.raises(InputError, match=r"names 'image', and the .* input_ids,"):
        found({"image": 0})
    with pytest.raises(InputError, match="has 1 values for 2 input"):
        found((0,))
    with pytest.raises(InputError, match=r"baseline of pixel_values has shape \(3,\)"):
        found({"pixel_values": torch.zeros(3)})


@pytest.mark.parametrize("method", [InputIntegratedGradients, InputOcclusion])
def test_rows_that_a_model_relates_go_one_by_one(method):
    """Every text is compared with every picture, as CLIP does."""
    inner = TwoInputs()

    def clip(input_ids: Tensor, pixel_values: Tensor) -> dict[str, Tensor]:
        words = inner.embedding(input_ids).sum(1)
        seen = inner.look(pixel_values.flatten(1))
        return {"logits_per_image": seen @ words.T}

    def pairs(input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        return clip(input_ids, pixel_values)["logits_per_image"].diagonal()

    given = two_inputs()
    expected = method(pairs, **OPTIONS).attribute(given)
    for target in (targets.Similarity(), lambda out: out["logits_per_image"][0, 0]):
        found = method(clip, **OPTIONS).attribute(given, target)
        for key in given:
            assert relative(found[key], expected[key]) < 1e-9


@pytest.mark.parametrize("method", [InputIntegratedGradients, InputKernelShap])
def test_pictures_without_a_dimension_of_examples(method):
    """Several pictures of one text, or their patches in a row."""
    inner = TwoInputs()

    def packed(input_ids: Tensor, pixel_values: Tensor, sizes: Tensor) -> Tensor:
        assert sizes.tolist() == [[2], [1]] and len(pixel_values) == 3
        return inner(input_ids, pixel_values[:2].sum(0)[None] - pixel_values[2])

    def apart(input_ids: Tensor, pixel_values: Tensor) -> Tensor:
        return inner(input_ids, pixel_values[:, :2].sum(1) - pixel_values[:, 2])

    given = two_inputs()
    pixels = torch.randn(3, 2, 2, 2, dtype=torch.float64)
    given |= {"pixel_values": pixels, "sizes": torch.tensor([[2], [1]])}
    found = method(packed, **OPTIONS).attribute(given, 1)
    del given["sizes"]
    given["pixel_values"] = pixels[None]
    expected = method(apart, **OPTIONS).attribute(given, 1)
    assert found["pixel_values"].shape == pixels.shape
    assert relative(found["pixel_values"], expected["pixel_values"][0]) < 1e-9
    assert relative(found["input_ids"], expected["input_ids"]) < 1e-9
    given = two_inputs(2) | {"pixel_values": pixels}
    with pytest.raises(InputError, match=r"\(3, 2, 2, 2\) where input_ids has 2 exam"):
        method(packed).attribute(given, 1)


@pytest.mark.parametrize("kind", [IntegratedGradients, FeatureAblation, Occlusion])
def test_captums_own_classes_on_two_inputs(kind):
    model, given = TwoInputs(), two_inputs()
    found, _ = attribute_inputs(
        kind(model),
        model,
        given,
        targets.Label(1),
        baseline=BLACK,
        of_tokens=0,
        keep=(2, 3),
        patch_size=(1, 1),
        options={},
    )
    name = "integrated-gradients" if kind is IntegratedGradients else "occlusion"
    of_patches = {"patch_size": 1} if name == "occlusion" else {}
    ours = methods[name].make(model, {"keep": (2, 3), **of_patches, **OPTIONS})
    expected = ours.attribute(given, 1)
    for key in given:
        assert relative(found[key], expected[key]) < 1e-6


def test_deep_lift_refuses_rows_that_a_model_relates():
    inner = TwoInputs()

    class Clip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, input_ids: Tensor, pixel_values: Tensor) -> Any:
            words = inner.embedding(input_ids).sum(1)
            return {"logits_per_image": inner.look(pixel_values.flatten(1)) @ words.T}

    for made in (InputDeepLift(Clip(), **OPTIONS), InputDeepLift(Clip())):
        with pytest.raises(InputError, match="relates the examples of a batch"):
            made.attribute(two_inputs(), targets.Similarity())


def test_deep_lift_reads_both_rows_at_once():
    model, given = TwoInputs(), two_inputs()
    found, delta = InputDeepLift(model, **OPTIONS).attribute(
        given, lambda output: output[:, 1], return_convergence_delta=True
    )
    assert bool(found["input_ids"].any()) and bool(torch.isfinite(delta).all())


def test_a_baseline_without_a_score_is_refused():
    def logarithm(x: Tensor) -> Tensor:
        return x.sum((1, 2)).log()

    x = parts(3).abs()
    for method in (InputOcclusion, InputKernelShap):
        made = method(logarithm)
        with pytest.raises(
            OutputError, match=r"NaN or infinite where parts .* baseline="
        ):
            made.attribute(x[:, :1])
    assert InputOcclusion(logarithm, baseline=1.0).attribute(x).isfinite().all()


def test_options_are_understood_where_they_belong():
    row = methods["kernel-shap"]
    options = {"n_samples": 40, "seed": 3, "unit": "tokens", "baseline": 0.0}
    assert row.parted({**options, "other": 1}) == (options, {"other": 1})
    made: Any = row.make(products, options)
    assert (made.n_samples, made.seed, made.unit) == (40, 3, "tokens")
    assert methods["integrated-gradients"].parted({"n_steps": 4})[0] == {"n_steps": 4}
    assert methods["gamma"].parted({"rules": {}})[0] == {"rules": {}}
    with pytest.raises(ArgumentError, match="sample_count"):
        made.attribute(parts(3), sample_count=3)
