"""Perturbation curves and the published protocols, against loops on linear models."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from captum_transformer_lrp.errors import (
    InputError,
    ModelStateError,
    OutputError,
    TargetError,
)
from captum_transformer_lrp.metrics import (
    Drop,
    EmbeddingReplacement,
    TokenReplacement,
    ValueReplacement,
    area_between_curves,
    au_mse,
    chefer_perturbation,
    eraser,
    insertion_auac,
    leave_one_out,
    perturbation_curves,
    pool_patches,
)
from tests.metrics.linear import (
    EXAMPLES,
    MASK,
    UNITS,
    Bag,
    Linear,
    features,
    scores_with_ties,
    sentences,
    validity,
    words_of,
)
from tests.oracles import metrics as oracle

TARGETS = torch.tensor([0, 2, 1, 0, 2])
ZERO = ValueReplacement(0.0)


def floor(fraction: Fraction, number: int) -> int:
    return math.floor(fraction * number)


def slow_curves(descending: bool, output: str = "probability", **wrong: object):
    model, x, scores, valid = (
        Linear().eval(),
        features(),
        scores_with_ties(),
        validity(),
    )
    options = {"descending": descending, "output": output, **wrong}
    if options.pop("everything", False):
        valid = torch.ones_like(valid)
    return [
        oracle.curve(
            model.slowly,
            x[i].tolist(),
            scores[i].tolist(),
            valid[i].tolist(),
            value=0.0,
            target=int(TARGETS[i]),
            fractions=oracle.tenths(),
            **options,
        )
        for i in range(EXAMPLES)
    ]


def fast_curves(output="probability", **options):
    return perturbation_curves(
        Linear().eval(),
        features(),
        scores_with_ties(),
        replacement=ZERO,
        target=TARGETS,
        valid=validity(),
        output=output,
        **options,
    )


def assert_same(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("output", ["probability", "logit", "margin"])
@pytest.mark.parametrize("rows", [1, 3, 256])
def test_curves_are_those_of_the_loops(output, rows):
    found = fast_curves(output, max_examples_per_batch=rows)
    assert_same(found.most_relevant_first, slow_curves(True, output))
    assert_same(found.least_relevant_first, slow_curves(False, output))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rounding": floor},
        {"absolute": True},
        {"everything": True},
        {"output": "logit"},
        {"descending": False},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_wrong_curve_is_told_apart(wrong):
    found = fast_curves().most_relevant_first
    with pytest.raises(AssertionError):
        assert_same(found, slow_curves(**{"descending": True, **wrong}))


def test_areas_are_trapezoids_and_delta_is_their_difference():
    found = fast_curves()
    tenths = [float(f) for f in oracle.tenths()]
    most = [oracle.trapezoid(tenths, row) for row in slow_curves(True)]
    least = [oracle.trapezoid(tenths, row) for row in slow_curves(False)]
    assert_same(found.morf.values, most)
    assert_same(found.lerf.values, least)
    assert_same(found.delta.values, [b - a for a, b in zip(most, least, strict=True)])
    wrong = [oracle.left_sum(tenths, row) for row in slow_curves(True)]
    with pytest.raises(AssertionError):
        assert_same(found.morf.values, wrong)


def test_fractions_of_ten_units_are_exact():
    # 3 * 0.1 is 0.30000000000000004, which must not become four units of ten.
    weight = torch.ones(1, 10, dtype=torch.float64)
    found = perturbation_curves(
        lambda x: (x @ weight.T)[:, 0],
        torch.ones(1, 10, dtype=torch.float64),
        torch.arange(10.0)[None],
        replacement=ZERO,
        target=0,
        output="logit",
    )
    expected = [[10.0 - k for k in range(11)]]
    assert_same(found.most_relevant_first, expected)
    listed = perturbation_curves(
        lambda x: (x @ weight.T)[:, 0],
        torch.ones(1, 10, dtype=torch.float64),
        torch.arange(10.0)[None],
        replacement=ZERO,
        target=0,
        steps=[k * 0.1 for k in range(10)],
        output="logit",
    )
    assert_same(listed.most_relevant_first, [expected[0][:10]])


def test_the_true_attribution_of_a_linear_model_has_the_largest_delta():
    model, x = Linear().eval(), features()[:1]
    true = (model.weight[0] * x).detach()

    def delta(scores: Tensor) -> float:
        return area_between_curves(model, x, scores, replacement=ZERO, target=0).mean

    best = delta(true)
    # 7! orders are many: all swaps of two units, and the reverse.
    for i, j in itertools.combinations(range(UNITS), 2):
        swapped = true.clone()
        swapped[0, [i, j]] = true[0, [j, i]]
        assert delta(swapped) < best
    assert delta(-true) == pytest.approx(-best)
    # In closed form: a unit at place r of MoRF is gone from fraction (r + 1) / 7 on.
    values = true[0].sort(descending=True).values.tolist()
    found = perturbation_curves(
        model, x, true, replacement=ZERO, target=0, output="logit", steps=UNITS
    )
    whole = model.slowly(x[0].tolist())[0]
    curve = [whole - sum(values[:k]) for k in range(UNITS + 1)]
    assert_same(found.most_relevant_first, [curve])


def test_planted_tokens_are_replaced_in_a_padded_batch():
    model, inputs = Bag().eval(), sentences()
    valid = words_of(inputs)
    target = model(**inputs).logits.argmax(1)
    scores = model.true(inputs["input_ids"], target)
    found = perturbation_curves(
        model,
        inputs,
        scores,
        replacement=TokenReplacement(MASK, "[MASK]"),
        valid=valid,
        output="logit",
    )
    for i in range(EXAMPLES):
        length = int(inputs["attention_mask"][i].sum())
        slow = oracle.curve(
            model.slowly,
            inputs["input_ids"][i, :length].tolist(),
            scores[i, :length].tolist(),
            valid[i, :length].tolist(),
            value=MASK,
            target=int(target[i]),
            output="logit",
            descending=True,
            fractions=oracle.tenths(),
        )
        assert_same(found.most_relevant_first[i], slow)
    assert found.settings["class"] == "predicted"
    assert found.settings["replacement"] == "[MASK]"
    assert "replacement: [MASK]" in str(found)
    # The true order takes the most away at once, and the mutant of it does not.
    turned = perturbation_curves(
        model,
        inputs,
        -scores,
        replacement=TokenReplacement(MASK),
        valid=valid,
        output="logit",
    )
    assert bool((found.delta.values > 0).all())
    assert bool((turned.delta.values < 0).all())


def test_all_replacements_that_are_worth_nothing_agree():
    # A masked, zero, or dropped token adds 0 to the bag.
    model, inputs = Bag().eval(), sentences()
    scores = model.true(inputs["input_ids"], TARGETS)
    curves = [
        perturbation_curves(
            model,
            inputs,
            scores,
            replacement=replacement,
            target=TARGETS,
            valid=words_of(inputs),
        ).most_relevant_first
        for replacement in (
            TokenReplacement(MASK),
            EmbeddingReplacement(model.embedding),
            Drop(),
        )
    ]
    torch.testing.assert_close(curves[0], curves[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(curves[0], curves[2], rtol=0, atol=1e-12)


def test_dropped_tokens_are_really_gone():
    inputs = sentences() | {"token_type_ids": sentences()["input_ids"] + 1}
    keep = torch.ones_like(inputs["input_ids"], dtype=torch.bool)
    keep[:, 1:4] = False
    shorter = Drop(pad_id=10)(inputs, keep)
    assert shorter["input_ids"].shape == (EXAMPLES, 6)
    for i in range(EXAMPLES):
        length = int(inputs["attention_mask"][i].sum())
        left = inputs["input_ids"][i, [0, *range(4, length)]]
        assert shorter["input_ids"][i, : length - 3].tolist() == left.tolist()
        assert shorter["input_ids"][i, length - 3 :].eq(10).all()
        assert shorter["attention_mask"][i].sum() == length - 3
        types = shorter["token_type_ids"][i, : length - 3]
        assert types.tolist() == (left + 1).tolist()


def test_patches_are_replaced_by_value_colour_or_mean():
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(2, 3, 4, 6, generator=generator)
    keep = torch.tensor([[[True, False, True], [False, True, True]]]).expand(2, 2, 3)
    colour = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    replacements = (ZERO, ValueReplacement(colour, "red"), ValueReplacement("mean"))
    for replacement in replacements:
        found = replacement(pixels, keep)
        for b, c, y, x in itertools.product(range(2), range(3), range(4), range(6)):
            expected = pixels[b, c, y, x]
            if not keep[b, y // 2, x // 2]:
                expected = {
                    "0": torch.tensor(0.0),
                    "red": torch.tensor(c + 1.0),
                    "mean": pixels[b, c].mean(),
                }[str(replacement)]
            torch.testing.assert_close(found[b, c, y, x], expected)


def test_grids_of_patches_give_the_curves_of_their_flat_units():
    weight = torch.randn(
        2, 3 * 4 * 6, generator=torch.Generator().manual_seed(6), dtype=torch.float64
    )
    pixels = torch.randn(
        2, 3, 4, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    shares = pool_patches(pixels * weight[0].view(3, 4, 6), (2, 3))
    found = perturbation_curves(
        lambda x: x.flatten(1) @ weight.T,
        pixels,
        shares[:, None],
        replacement=ZERO,
        target=0,
        output="logit",
        steps=6,
    )
    ranked = shares.flatten(1).sort(dim=1, descending=True).values
    whole = pixels.flatten(1) @ weight[0]
    steps = torch.cat([torch.zeros(2, 1), ranked.cumsum(1)], 1)
    torch.testing.assert_close(
        found.most_relevant_first, whole[:, None] - steps, rtol=0, atol=1e-10
    )


def test_additional_arguments_follow_their_examples():
    x, scores = features(), scores_with_ties()
    shift = torch.arange(EXAMPLES).double()[:, None]
    model = Linear().eval()
    one = perturbation_curves(
        lambda x, s, factor: model(x) * factor + s,
        x,
        scores,
        replacement=ZERO,
        target=0,
        output="logit",
        additional_forward_args=(shift, 2.0),
        max_examples_per_batch=3,
    )
    two = perturbation_curves(
        model, x, scores, replacement=ZERO, target=0, output="logit"
    )
    expected = two.most_relevant_first * 2 + shift
    torch.testing.assert_close(one.most_relevant_first, expected)


def test_chefer_curves_are_the_accuracy_at_ten_to_ninety_percent():
    model, x, scores = Linear().eval(), features(), scores_with_ties()
    labels = TARGETS
    found = chefer_perturbation(model, x, scores, labels)

    def areas(first: int, last: int, descending: bool) -> list[float]:
        tenths = oracle.tenths(first, last)
        values = []
        for i in range(EXAMPLES):
            row = []
            for fraction in tenths:
                ranked = oracle.order(
                    scores[i].tolist(), [True] * UNITS, descending=descending
                )
                gone = ranked[: oracle.ceil(fraction, UNITS)]
                logits = model.slowly(oracle.removed(x[i].tolist(), gone, 0.0))
                row.append(float(logits.index(max(logits)) == int(labels[i])))
            width = float(tenths[-1] - tenths[0])
            values.append(oracle.trapezoid([float(f) for f in tenths], row) / width)
        return values

    assert_same(found.positive.values, areas(1, 9, True))
    assert_same(found.negative.values, areas(1, 9, False))
    for mutant in (areas(0, 9, True), areas(1, 9, False)):
        with pytest.raises(AssertionError):
            assert_same(found.positive.values, mutant)
    assert found.positive.better == "lower"
    assert found.negative.better == "higher"


def test_auac_is_that_of_the_loops():
    model, x, scores, valid = (
        Linear().eval(),
        features(),
        scores_with_ties(),
        validity(),
    )
    found = insertion_auac(
        model, x, scores, replacement=ZERO, target=TARGETS, valid=valid
    )
    tenths = oracle.tenths()

    def areas(**wrong: bool) -> list[float]:
        return [
            oracle.trapezoid(
                [float(f) for f in tenths],
                oracle.insertion(
                    model.slowly,
                    x[i].tolist(),
                    scores[i].tolist(),
                    valid[i].tolist(),
                    value=0.0,
                    target=int(TARGETS[i]),
                    output="probability",
                    fractions=tenths,
                    **wrong,
                ),
            )
            for i in range(EXAMPLES)
        ]

    assert_same(found.values, areas())
    with pytest.raises(AssertionError):
        assert_same(found.values, areas(descending=False))


def test_au_mse_is_that_of_the_loops():
    model, x, scores, valid = (
        Linear().eval(),
        features(),
        scores_with_ties(),
        validity(),
    )
    found = au_mse(model, x, scores, replacement=ZERO, valid=valid)
    tenths = oracle.tenths()

    def areas(**wrong: bool) -> list[float]:
        return [
            oracle.trapezoid(
                [float(f) for f in tenths],
                oracle.pruning(
                    model.slowly,
                    x[i].tolist(),
                    scores[i].tolist(),
                    valid[i].tolist(),
                    value=0.0,
                    fractions=tenths,
                    **wrong,
                ),
            )
            for i in range(EXAMPLES)
        ]

    assert_same(found.values, areas())
    with pytest.raises(AssertionError):
        assert_same(found.values, areas(absolute=False))


def test_eraser_is_that_of_the_loops():
    model, x, scores, valid = (
        Linear().eval(),
        features(),
        scores_with_ties(),
        validity(),
    )
    found = eraser(model, x, scores, replacement=ZERO, target=TARGETS, valid=valid)
    bins = [Fraction(1, 100), Fraction(1, 20), Fraction(1, 10), Fraction(1, 5)]
    bins.append(Fraction(1, 2))

    def values(bins: list[Fraction], alone: bool) -> list[float]:
        return [
            oracle.comprehensiveness(
                model.slowly,
                x[i].tolist(),
                scores[i].tolist(),
                valid[i].tolist(),
                value=0.0,
                target=int(TARGETS[i]),
                bins=bins,
                alone=alone,
            )
            for i in range(EXAMPLES)
        ]

    assert_same(found.comprehensiveness.values, values(bins, alone=False))
    assert_same(found.sufficiency.values, values(bins, alone=True))
    for mutant in (values(bins, alone=True), values(bins[:-1], alone=False)):
        with pytest.raises(AssertionError):
            assert_same(found.comprehensiveness.values, mutant)


def test_leaving_one_out_is_the_true_attribution_of_a_linear_model():
    model, x, valid = Linear().eval(), features(), validity()
    found = leave_one_out(
        model,
        x,
        replacement=ZERO,
        units=(UNITS,),
        target=TARGETS,
        valid=valid,
        output="logit",
    )
    true = model.weight[TARGETS].detach() * x * valid
    torch.testing.assert_close(found, true, rtol=0, atol=1e-12)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, true * 1.01, rtol=0, atol=1e-12)


def test_results_are_paired_printed_and_saved():
    pandas = pytest.importorskip("pandas")
    one = fast_curves().delta
    two = perturbation_curves(
        Linear().eval(),
        features(),
        features(),
        replacement=ZERO,
        target=TARGETS,
        valid=validity(),
    ).delta
    gap = one.minus(two)
    values = [a - b for a, b in zip(one.values, two.values, strict=True)]
    mean = sum(map(float, values)) / EXAMPLES
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (EXAMPLES - 1))
    assert gap.mean == pytest.approx(mean)
    assert gap.standard_error == pytest.approx(spread / math.sqrt(EXAMPLES))
    assert "paired, n = 5" in str(gap)
    assert json.loads(json.dumps(one.to_dict()))["n"] == EXAMPLES
    frame = fast_curves().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 2 * 11 * EXAMPLES
    json.dumps(fast_curves().to_dict())
    with pytest.raises(InputError, match="measured in one way"):
        one.minus(fast_curves("logit").delta)
    with pytest.raises(InputError, match="same examples"):
        one.minus(one.subset(torch.tensor([0, 1])))


def test_nothing_of_the_model_changes():
    model, inputs = Bag(), sentences()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ids = inputs["input_ids"].clone()
    state = torch.get_rng_state()
    model.eval()
    perturbation_curves(
        model, inputs, torch.rand(ids.shape), replacement=TokenReplacement(MASK)
    )
    torch.set_rng_state(state)
    assert torch.equal(inputs["input_ids"], ids)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not model._forward_hooks


class Nan(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True).expand(len(x), 2) / (x != 0).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"attributions": torch.zeros(5, 7, 2, 2)}, InputError, "one score per unit"),
        ({"attributions": torch.full((5, 7), torch.nan)}, InputError, "NaN"),
        ({"attributions": torch.zeros(4, 7)}, InputError, "4 examples"),
        ({"attributions": torch.zeros(5, 6)}, InputError, "6 units do not fit"),
        ({"valid": torch.zeros(5, 7)}, InputError, "has no unit to rank"),
        ({"valid": torch.ones(5, 3)}, InputError, "of the shape of the scores"),
        ({"steps": 0}, InputError, "at least 1"),
        ({"steps": [0.5, 0.2]}, InputError, "increasing"),
        ({"steps": [0.5, 1.2]}, InputError, "between 0 and 1"),
        ({"output": "odds"}, InputError, "'margin'"),
        ({"rank_by": "size"}, InputError, "'absolute'"),
        ({"target": 3}, TargetError, "classes 0 to 2"),
        ({"target": torch.tensor([0, 1])}, TargetError, "one for each of 5"),
        ({"target": torch.tensor(0.5)}, TargetError, "class indices"),
        ({"replacement": 0.0}, InputError, "a Replacement"),
        ({"replacement": TokenReplacement(1)}, InputError, "token ids"),
        ({"replacement": Drop()}, InputError, "only a mapping"),
        ({"max_examples_per_batch": 0}, InputError, "at least 1"),
        ({"inputs": [1.0]}, InputError, "a tensor or a mapping"),
        ({"forward_func": lambda x: x.sum(1)}, OutputError, "output='logit'"),
        ({"forward_func": lambda x: x[:1]}, OutputError, "scores of shape"),
        ({"forward_func": Nan().eval()}, OutputError, "NaN or infinity"),
        ({"forward_func": Linear().train()}, ModelStateError, "model.eval"),
    ],
)
def test_what_does_not_fit_is_said(change, error, message):
    arguments = {
        "forward_func": Linear().eval(),
        "inputs": features(),
        "attributions": scores_with_ties(),
        "replacement": ZERO,
        "target": 0,
        **change,
    }
    with pytest.raises(error, match=message):
        perturbation_curves(
            arguments.pop("forward_func"),
            arguments.pop("inputs"),
            arguments.pop("attributions"),
            **arguments,
        )


def test_dropping_everything_is_refused():
    inputs = sentences()
    with pytest.raises(InputError, match="leave special tokens out"):
        perturbation_curves(
            Bag().eval(),
            inputs,
            torch.rand(inputs["input_ids"].shape),
            replacement=Drop(),
        )
