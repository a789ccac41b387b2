"""Captum's methods on token identifiers, against loops over the embeddings."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn

from captum_transformer_lrp.attribution import (
    BASELINES,
    GradientXInput,
    InputDeepLift,
    InputGradientShap,
    InputIntegratedGradients,
    InputOcclusion,
    InputSaliency,
    InputSmoothGrad,
)
from captum_transformer_lrp.attribution.embedded import prepare
from captum_transformer_lrp.errors import InputError, TargetError, UnknownOperatorError
from captum_transformer_lrp.models.special_tokens import baseline_id, special_ids
from tests.helpers import assert_same_state, relative, state_of, tiny
from tests.models.tiny import byte_level_tokenizer, word_piece_tokenizer

IDS = torch.tensor([[2, 7, 8, 9, 7, 3], [2, 5, 3, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
KEEP, PAD, TARGET = (2, 3), 0, torch.tensor([1, 2])
OPTIONS: dict[str, Any] = {"baseline": PAD, "keep": KEEP}
BY_NAME = pytest.mark.parametrize("name", BASELINES)


def bert(**config):
    """A float64 BERT with padding, whose scores depend on the attention mask."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 12,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": 16,
        "num_labels": 3,
        "initializer_range": 0.6,
        "pad_token_id": 0,
    }
    made = transformers.BertForSequenceClassification(
        transformers.BertConfig(**sizes | config)
    )
    with torch.no_grad():  # else that of padding is zero
        made.get_input_embeddings().weight.normal_(std=0.2)
    return made.double().eval()


def batch(rows=slice(None)):
    return {"input_ids": IDS[rows], "attention_mask": MASK[rows]}


def table(model):
    return model.get_input_embeddings().weight.detach()


def score(model, embeddings, row):
    """The explained logit of one example, from embeddings."""
    output = model(inputs_embeds=embeddings[None], attention_mask=MASK[row : row + 1])
    return output.logits[0, int(TARGET[row])]


def baseline_of(model, row):
    """Embeddings of the padding token, but for special tokens and padding itself."""
    ids = IDS[row].clone()
    for i in range(len(ids)):
        if int(ids[i]) not in KEEP and MASK[row, i]:
            ids[i] = PAD
    return table(model)[ids]


def gradient(model, embeddings, row):
    leaf = embeddings.clone().requires_grad_()
    (found,) = torch.autograd.grad(score(model, leaf, row), leaf)
    return found


def integrated(model, row, points=60):
    """Integrated Gradients by a quadrature of our own."""
    x, b = table(model)[IDS[row]], baseline_of(model, row)
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(x)
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        total += weight * gradient(model, b + node * (x - b), row)
    return ((x - b) * total).sum(-1)


def test_integrated_gradients_equal_a_quadrature_of_our_own():
    model = bert()
    found, delta = InputIntegratedGradients(model, **OPTIONS, n_steps=80).attribute(
        batch(), TARGET, return_convergence_delta=True
    )
    assert found.shape == IDS.shape and found.dtype == torch.float64
    for row in range(2):
        assert relative(found[row], integrated(model, row)) < 1e-5
        x, b = table(model)[IDS[row]], baseline_of(model, row)
        should = float(score(model, x, row).detach() - score(model, b, row).detach())
        assert float(found[row].sum()) - should == pytest.approx(float(delta[row]))
        assert abs(float(delta[row])) < 1e-5
    assert not found[MASK == 0].any()
    assert not found[torch.isin(IDS, torch.tensor(KEEP))].any()


def test_another_baseline_gives_other_numbers():
    model = bert()
    right = torch.stack([integrated(model, row) for row in range(2)])
    for wrong in ({"baseline": 0.0}, {"baseline": 1}, {"keep": ()}):
        method = InputIntegratedGradients(model, **OPTIONS | wrong)
        assert relative(method.attribute(batch(), TARGET), right) > 0.01


def test_occlusion_equals_a_loop_over_tokens():
    model = bert()
    found = InputOcclusion(model, **OPTIONS).attribute(batch(), TARGET)
    for row in range(2):
        x, b = table(model)[IDS[row]], baseline_of(model, row)
        for i in range(IDS.shape[1]):
            without = x.clone()
            without[i] = b[i]
            fall = float((score(model, x, row) - score(model, without, row)).detach())
            assert float(found[row, i]) == pytest.approx(fall, abs=1e-12)
            kept = int(IDS[row, i]) in KEEP or not MASK[row, i]
            assert (float(found[row, i]) == 0) is kept


def test_saliency_is_the_norm_of_the_gradient():
    model = bert()
    found = InputSaliency(model).attribute(batch(), TARGET)
    for row in range(2):
        expected = gradient(model, table(model)[IDS[row]], row).norm(dim=-1)
        expected[MASK[row] == 0] = 0
        assert relative(found[row], expected) < 1e-12


def test_smooth_grad_without_noise_is_gradient_times_input():
    model = bert()
    expected = GradientXInput(model).attribute(batch(), TARGET)
    still = InputSmoothGrad(model, noise_level=0.0, n_samples=2)
    assert relative(still.attribute(batch(), TARGET), expected) < 1e-12
    noisy = InputSmoothGrad(model, n_samples=3)
    assert relative(noisy.attribute(batch(), TARGET), expected) > 1e-3


def test_smooth_grad_averages_gradients_around_the_input():
    """Of a quadratic form the mean gradient is exact up to the mean of the noise."""
    torch.manual_seed(0)
    weights = torch.randn(5, 5, dtype=torch.float64)

    def quadratic(x: Tensor) -> Tensor:
        return torch.einsum("bti,ij,btj->b", x, weights, x)

    x = torch.randn(1, 400, 5, dtype=torch.float64)
    found = InputSmoothGrad(quadratic, n_samples=200).attribute(x)
    expected = x * (x @ (weights + weights.T))
    assert relative(found, expected) < 0.2
    few = InputSmoothGrad(quadratic, n_samples=2).attribute(x)
    assert (few - expected).std() > 5 * (found - expected).std()


def test_gradient_shap_without_noise_tends_to_integrated_gradients():
    model = bert()
    expected = InputIntegratedGradients(model, **OPTIONS).attribute(batch(), TARGET)
    errors = []
    for n_samples in (4, 160):
        method = InputGradientShap(
            model, **OPTIONS, noise_level=0.0, n_samples=n_samples
        )
        found, delta = method.attribute(batch(), TARGET, return_convergence_delta=True)
        errors.append(relative(found, expected))
        x = GradientXInput(model).attribute(
            batch(), TARGET, return_convergence_delta=True
        )
        scores = x[1] + x[0].sum(1)  # what its delta says of the score
        for row in range(2):
            b = baseline_of(model, row)
            should = float(scores[row]) - float(score(model, b, row).detach())
            assert float(found[row].sum()) - should == pytest.approx(float(delta[row]))
    assert errors[1] < 0.15 < errors[0]


class Perceptron(nn.Module):
    """Embeddings, a rectifier and a sum over tokens: DeepLift's own ground."""

    def __init__(self, activation: Any = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding = nn.Embedding(12, 6)
        self.first = nn.Linear(6, 10)
        self.activation = nn.ReLU() if activation is None else activation
        self.last = nn.Linear(10, 3)
        self.double().eval()

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(self.activation(self.first(self.embedding(ids)))).sum(1)


def test_deep_lift_equals_the_rescale_rule():
    model = Perceptron()
    ids = torch.tensor([[1, 4, 5]])
    found, delta = InputDeepLift(model, baseline=PAD).attribute(
        ids, 2, return_convergence_delta=True
    )
    x, b = table_of(model, ids), table_of(model, torch.zeros_like(ids))
    before, base = model.first(x), model.first(b)
    slope = (before.relu() - base.relu()) / (before - base)
    multiplier = (slope * model.last.weight[2]) @ model.first.weight
    assert relative(found, ((x - b) * multiplier).sum(-1).detach()) < 1e-12
    assert abs(float(delta)) < 1e-12


def table_of(model: Perceptron, ids: Tensor) -> Tensor:
    return model.embedding(ids).detach()


def test_deep_lift_shows_what_captum_has_no_rule_for():
    """A rectifier that is called as a function is taken by its gradient."""
    model = Perceptron(activation=torch.relu)
    ids = torch.tensor([[1, 4, 5]])
    _, delta = InputDeepLift(model, baseline=PAD).attribute(
        ids, 2, return_convergence_delta=True
    )
    assert abs(float(delta)) > 0.01


def test_deep_lift_refuses_a_module_that_is_used_twice():
    class Twice(Perceptron):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.activation(self.first(self.embedding(ids)))
            return self.last(self.activation(x - 0.1)).sum(1)

    model = Twice()
    before = state_of(model)
    with pytest.raises(
        UnknownOperatorError, match=r"DeepLift cannot explain Twice: .* used more than"
    ):
        InputDeepLift(model).attribute(torch.tensor([[1, 4]]), 0)
    assert_same_state(before, state_of(model))
    with pytest.raises(TypeError, match=r"pass the torch\.nn\.Module itself"):
        InputDeepLift(lambda ids: ids)


@BY_NAME
def test_a_batch_is_explained_as_if_alone(name):
    model = bert()
    method = BASELINES[name](model, **OPTIONS)
    together = method.attribute(batch(), TARGET)
    alone = method.attribute(
        {"input_ids": IDS[1:, :3], "attention_mask": MASK[1:, :3]}, TARGET[1:]
    )
    assert relative(together[1:, :3], alone) < 1e-12
    assert not together[1, 3:].any() and alone.any()


@BY_NAME
def test_padding_on_the_left(name):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=12, n_embd=8, n_layer=2, n_head=2, n_positions=16
    )
    model = transformers.GPT2LMHeadModel(config).double().eval()
    method = BASELINES[name](model, **OPTIONS)
    places = (MASK.flip(1).cumsum(1) - 1).clamp(min=0)
    left = {
        "input_ids": torch.tensor([[2, 7, 8, 9, 7, 3], [0, 0, 0, 2, 5, 3]]),
        "attention_mask": MASK.flip(1),
        "position_ids": places,
    }
    together = method.attribute(left, (-1, 4))
    alone = method.attribute({"input_ids": IDS[1:, :3]}, (-1, 4))
    assert relative(together[1:, 3:], alone) < 1e-10


@BY_NAME
def test_the_model_and_the_generators_are_left_alone(name):
    model = bert()
    before, other = state_of(model), np.random.get_state()[1].copy()
    method = BASELINES[name](model, **OPTIONS)
    first = method.attribute(batch(), TARGET)
    assert_same_state(before, state_of(model))
    assert (np.random.get_state()[1] == other).all()
    with torch.no_grad():
        assert torch.equal(method.attribute(batch(), TARGET), first)
    with pytest.raises(TargetError):
        method.attribute(batch(), 3)
    assert_same_state(before, state_of(model))


def test_two_threads():
    model = bert()
    method = InputIntegratedGradients(model, **OPTIONS)
    expected = [method.attribute(batch([row]), TARGET[row : row + 1]) for row in (0, 1)]
    found: dict[int, Tensor] = {}

    def work(row: int) -> None:
        for _ in range(3):
            found[row] = method.attribute(batch([row]), TARGET[row : row + 1])

    threads = [threading.Thread(target=work, args=(row,)) for row in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for row in (0, 1):
        assert relative(found[row], expected[row]) < 1e-12


@BY_NAME
def test_forms_of_inputs(name):
    model = bert()
    method = BASELINES[name](model, **OPTIONS)
    expected = method.attribute(batch(), TARGET)
    bare = method.attribute(IDS, TARGET, additional_forward_args=(MASK,))
    kept = MASK.bool()
    assert relative(bare[kept], expected[kept]) < (
        1
        if issubclass(BASELINES[name], (InputSmoothGrad, InputGradientShap))
        else 1e-12
    )  # without the name of the mask padding gets noise as well
    (of_tuple,) = method.attribute((IDS[:1].int(),), TARGET[:1])
    assert relative(of_tuple, expected[:1]) < 1e-12
    embeds = {"inputs_embeds": table(model)[IDS[:1]], "attention_mask": MASK[:1]}
    options = {"baseline": table(model)[[PAD]]}
    of_embeds = BASELINES[name](model, **options).attribute(embeds, TARGET[:1])
    assert of_embeds.shape == (1, 6, 8)


@BY_NAME
def test_pixels(name):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 4, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    )
    model.double().eval()
    pixels = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    method = BASELINES[name](model)
    found = method.attribute(pixels, 1)
    assert found.shape == pixels.shape
    assert relative(method.attribute(pixels[1:], 1), found[1:]) < 1e-12


def test_patches_left_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 8, 2)).double()
    pixels = torch.randn(1, 3, 6, 8, dtype=torch.float64)
    found = InputOcclusion(model, patch_size=(4, 3)).attribute(pixels, 1)
    for top, left in ((0, 0), (4, 6), (0, 6)):
        without = pixels.clone()
        without[:, :, top : top + 4, left : left + 3] = 0
        fall = float((model(pixels) - model(without))[0, 1].detach())
        patch = found[:, :, top : top + 4, left : left + 3]
        assert float(patch.sum()) == pytest.approx(fall)
    with pytest.raises(InputError, match=r"or pixels .*, got \(1, 144\)"):
        InputOcclusion(model).attribute(pixels.flatten(1), 1)


# --------------------------------------------------------------------- what is read


class Shifted(nn.Module):
    """Reads identifiers twice: by a shift with a start token, and from two tables."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Embedding(12, 4)
        self.second = nn.Embedding(5, 3)
        self.head = nn.Linear(11, 2)
        self.double().eval()

    def forward(self, input_ids: Tensor) -> Tensor:
        shifted = input_ids.new_zeros(input_ids.shape)
        shifted[:, 1:] = input_ids[:, :-1].clone()
        shifted[:, 0] = 7
        x = torch.cat(
            [
                self.first(input_ids),
                self.first(shifted),
                self.second(input_ids.t() % 5).transpose(0, 1),
            ],
            -1,
        )
        return self.head(x).tanh().sum(1)


def test_identifiers_that_are_moved_before_they_are_read():
    model = Shifted()
    ids = torch.tensor([[1, 4, 5, 7], [11, 2, 2, 9]])
    prepared = prepare(model, ids, 1, None, baseline=0, keep=(), output_field=None)
    assert [tuple(x.shape) for x in prepared.features] == [(2, 4, 4), (2, 4, 3)]
    assert torch.equal(prepared.function(*prepared.features, ids), model(ids))
    found = InputXGradient(prepared.function).attribute(
        prepared.leaves(), target=1, additional_forward_args=prepared.arguments
    )
    expected = GradientXInput(model).attribute(ids, target=1)
    assert relative(prepared.in_form(found), expected) < 1e-12
    falls = InputOcclusion(model, baseline=0).attribute(ids, 1)
    for i in range(4):
        other = ids.clone()
        other[:, i] = 0
        fall = (model(ids) - model(other))[:, 1].detach()
        assert relative(falls[:, i], fall) < 1e-12
    found, delta = InputIntegratedGradients(model, baseline=0).attribute(
        ids, 1, return_convergence_delta=True
    )
    fall = (model(ids) - model(torch.zeros_like(ids)))[:, 1].detach()
    assert relative(found.sum(1), fall) < 1e-6 and delta.abs().max() < 1e-6


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda e, i: e((i[:, :-1] * 5 + i[:, 1:]) % 12), "several identifiers up"),
        (
            lambda e, i: nn.functional.one_hot(i, 12).double() @ e.weight,
            "one-hot vectors",
        ),
        (lambda e, i: e.weight.t()[:, i].movedim(0, -1), "in another order"),
        (lambda e, i: e(i) * i.double()[..., None], "used as numbers"),
        (lambda e, i: e(i) + e(i.unique())[:1], "looked up after 'unique'"),
    ],
)
def test_identifiers_that_embeddings_do_not_tell(read, message):
    table = nn.Embedding(12, 4).double()
    with pytest.raises(InputError, match=message):
        InputSaliency(lambda ids: read(table, ids).sum((1, 2))).attribute(IDS[:1], None)


def test_identifiers_that_stand_beside_numbers_which_are_not_used():
    table = nn.Embedding(12, 4).double()
    found = InputIntegratedGradients(
        lambda ids: (ids.double().mean(), table(ids).sum((1, 2)))[1]
    ).attribute(IDS[:1], None)
    assert relative(found, table(IDS[:1]).sum(-1).detach()) < 1e-6


def test_a_function_of_the_model():
    model = tiny()
    ids = IDS[:1]
    options = {"baseline": 0, "n_steps": 20}
    expected = InputIntegratedGradients(model, **options).attribute(ids, 1)
    found = InputIntegratedGradients(lambda x: model(x), **options).attribute(ids, 1)
    assert torch.equal(found, expected)


def test_a_compiled_block_is_run_as_it_is_written():
    model = tiny()
    expected = InputSaliency(model).attribute(IDS[:1], 1)
    model.blocks[0].compile(backend="eager")
    assert relative(InputSaliency(model).attribute(IDS[:1], 1), expected) < 1e-12


def test_what_tokenizers_know():
    pytest.importorskip("tokenizers")
    words, bytes_ = word_piece_tokenizer(), byte_level_tokenizer()
    assert baseline_id(words) == 0 and special_ids(words) == (0, 2, 3)
    assert baseline_id(bytes_) is None and special_ids(bytes_) == (0,)
    assert baseline_id(None) is None and special_ids(None) == ()
    model = bert()
    about = InputOcclusion(model, tokenizer=words).about_baseline()
    assert about == (
        "Baseline: the embedding of [PAD] for each token, special tokens kept."
    )
    assert (
        "an embedding of zeros for each token, special"
        in InputOcclusion(model, tokenizer=bytes_).about_baseline()
    )
    assert (
        "embedding of 4 for each token."
        in InputOcclusion(model, baseline=4).about_baseline()
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: InputIntegratedGradients(m, n_steps=0), "n_steps to be an integer"),
        (lambda m: InputSmoothGrad(m, n_samples=True), "n_samples to be an integer"),
        (lambda m: InputSmoothGrad(m, noise_level=-1), "noise_level of at least 0"),
        (lambda m: InputOcclusion(m, patch_size=0), "patch_size to be one or two int"),
        (
            lambda m: InputSaliency(m).attribute(IDS, 1, None, True),
            "Saliency has no convergence delta",
        ),
        (
            lambda m: InputSaliency(m).attribute(
                {"input_ids": IDS, "pixel_values": torch.zeros(3, 3, 4, 4)}, 1
            ),
            "explain one example at a time",
        ),
        (
            lambda m: InputSaliency(nn.Flatten(0)).attribute(IDS, 1),
            "no embedding of the model looked up",
        ),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(InputError, match=message):
        make(tiny())
