"""Agreement with rationales, masks and other methods, against loops."""

from __future__ import annotations

import json

import pytest
import torch

from captum_transformer_lrp.errors import InputError
from captum_transformer_lrp.metrics import (
    average_precision,
    conservation_error,
    pointing_game,
    pool_patches,
    rank_agreement,
    rankable,
    relevance_mass,
    segmentation,
    token_f1,
)
from tests.metrics.linear import EXAMPLES, UNITS, Linear, features, scores_with_ties
from tests.oracles import metrics as oracle


def marks():
    generator = torch.Generator().manual_seed(8)
    marked = torch.rand(EXAMPLES, UNITS, generator=generator) < 0.4
    marked[:, 2] = True
    return marked


def assert_same(found, expected):
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12
    )


def test_average_precision_is_that_of_the_loops():
    scores, marked = scores_with_ties(), marks()
    found = average_precision(scores, marked).values
    slow = [
        oracle.average_precision(s.tolist(), m.tolist())
        for s, m in zip(scores, marked, strict=True)
    ]
    assert_same(found, slow)
    # The mutant counts equal scores one after the other.
    apart = scores - torch.arange(UNITS) * 1e-6
    mutant = [
        oracle.average_precision(s.tolist(), m.tolist())
        for s, m in zip(apart, marked, strict=True)
    ]
    with pytest.raises(AssertionError):
        assert_same(found, mutant)


def test_average_precision_counts_valid_units_alone():
    scores, marked = scores_with_ties(), marks()
    valid = torch.ones_like(marked)
    valid[:, 0] = False
    found = average_precision(scores, marked, valid=valid).values
    assert_same(found, average_precision(scores[:, 1:], marked[:, 1:]).values.tolist())


def test_average_precision_is_that_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    scores, marked = scores_with_ties(), marks()
    expected = [
        sklearn.average_precision_score(m.numpy(), s.numpy())
        for s, m in zip(scores, marked, strict=True)
    ]
    assert_same(average_precision(scores, marked).values, expected)


def test_average_precision_is_not_the_area_under_straight_lines():
    # The marked unit comes second: precision 0, then 1/2 at recall 1.
    scores, marked = torch.tensor([[2.0, 1.0]]), torch.tensor([[False, True]])
    assert average_precision(scores, marked).mean == 0.5
    assert oracle.trapezoid_auprc([2.0, 1.0], [False, True]) == 0.25
    scores, marked = scores_with_ties(), marks()
    lines = [
        oracle.trapezoid_auprc(s.tolist(), m.tolist())
        for s, m in zip(scores, marked, strict=True)
    ]
    with pytest.raises(AssertionError):
        assert_same(average_precision(scores, marked).values, lines)
    sklearn = pytest.importorskip("sklearn.metrics")
    curves = [
        sklearn.precision_recall_curve(m.numpy(), s.numpy())
        for s, m in zip(scores, marked, strict=True)
    ]
    areas = [sklearn.auc(recall, precision) for precision, recall, _ in curves]
    assert lines == pytest.approx(areas, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_token_f1_is_that_of_the_loops(k):
    scores, marked = scores_with_ties(), marks()
    found = token_f1(scores, marked, k=k).values
    pairs = [(s.tolist(), m.tolist()) for s, m in zip(scores, marked, strict=True)]
    assert_same(found, [oracle.token_f1(s, m, k) for s, m in pairs])
    with pytest.raises(AssertionError):
        assert_same(found, [oracle.token_f1(s, m, k + 1) for s, m in pairs])


def test_token_f1_picks_as_many_as_people_mark():
    marked = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    found = token_f1(torch.tensor([[4.0, 3, 2, 1], [4, 3, 2, 1]]), marked)
    assert found.settings == {"k": "3"}
    assert_same(found.values, [2 * 2 / 5, 2 * 3 / 7])


def test_planted_tokens_are_found_with_certainty():
    marked = marks()
    true = marked.double() * torch.rand(EXAMPLES, UNITS).add(0.1)
    assert average_precision(true, marked).mean == 1
    assert average_precision(-true, marked).mean < 0.9


@pytest.mark.parametrize("metric", [average_precision, token_f1])
def test_rationales_that_do_not_fit_are_refused(metric):
    with pytest.raises(InputError, match="of the shape of the scores"):
        metric(torch.rand(2, 3), torch.ones(2, 4))
    with pytest.raises(InputError, match="nothing is marked in example 1"):
        metric(torch.rand(2, 3), torch.tensor([[1, 0, 0], [0, 0, 0]]))


def maps_and_masks():
    generator = torch.Generator().manual_seed(9)
    maps = torch.randn(6, 2, 3, generator=generator, dtype=torch.float64)
    masks = torch.rand(6, 8, 6, generator=generator) < 0.3
    masks[:, 1, 1] = True
    return maps, masks


def scores_of(found):
    pooled = [m.mean for m in (found.pixel_accuracy, found.mean_iou)]
    return [*pooled, found.mean_average_precision.mean]


def test_segmentation_is_that_of_the_loops():
    maps, masks = maps_and_masks()
    found = segmentation(maps[:, None], masks, upsample="nearest")
    lists = maps.tolist(), masks.tolist()
    slow = oracle.segmentation(*lists, upsample=oracle.nearest)
    assert scores_of(found) == pytest.approx(slow, abs=1e-12)
    halves = oracle.segmentation(
        *lists, upsample=oracle.nearest, threshold=lambda values: 0.5
    )
    single = oracle.segmentation(*lists, upsample=oracle.nearest, pooled=False)
    bilinear = oracle.segmentation(*lists)
    for mutant in (halves, single, bilinear):
        assert scores_of(found) != pytest.approx(mutant, abs=1e-6)
    json.dumps(found.to_dict())
    assert "mIoU" in str(found)


def test_segmentation_interpolates_between_the_centres_of_cells():
    maps, masks = maps_and_masks()
    *pooled, precision = scores_of(segmentation(maps, masks))
    slow = oracle.segmentation(maps.tolist(), masks.tolist())
    assert pooled == pytest.approx(slow[:2], abs=1e-12)
    # Pixels beyond the last centres are equal but for rounding, which splits ties.
    assert precision == pytest.approx(slow[2], abs=0.02)


def test_scores_of_the_data_set_have_the_standard_error_of_the_jackknife():
    maps, masks = maps_and_masks()
    found = segmentation(maps, masks).mean_iou
    rest = []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        rest.append(
            oracle.segmentation(maps[others].tolist(), masks[others].tolist())[1]
        )
    mean = sum(rest) / 6
    jackknife = (5 / 6 * sum((r - mean) ** 2 for r in rest)) ** 0.5
    assert found.standard_error == pytest.approx(jackknife, rel=1e-9)


def test_a_map_that_is_the_mask_is_perfect():
    _, masks = maps_and_masks()
    found = segmentation(masks.double(), masks)
    assert found.pixel_accuracy.mean == found.mean_iou.mean == 1
    assert found.mean_average_precision.mean == 1
    assert pointing_game(masks.double(), masks).mean == 1
    assert relevance_mass(masks.double(), masks).mean == 1
    turned = segmentation(-masks.double(), masks)
    assert turned.pixel_accuracy.mean == turned.mean_iou.mean == 0
    assert pointing_game(-masks.double(), masks).mean == 0
    assert relevance_mass(-masks.double(), masks).mean == 0


def test_pointing_and_mass_are_those_of_loops():
    maps, masks = maps_and_masks()
    hits, shares, wrong = [], [], []
    for grid, mask in zip(maps.tolist(), masks.tolist(), strict=True):
        cells = [(v, r, c) for r, row in enumerate(grid) for c, v in enumerate(row)]
        _, r, c = max(cells)
        inside = [
            mask[y][x] for y in range(4 * r, 4 * r + 4) for x in (2 * c, 2 * c + 1)
        ]
        hits.append(float(any(inside)))
        on = total = signed = both = 0.0
        for y in range(8):
            for x in range(6):
                value = grid[y // 4][x // 2]
                total += max(value, 0)
                on += max(value, 0) * mask[y][x]
                signed += value
                both += value * mask[y][x]
        shares.append(on / total)
        wrong.append(both / signed)
    assert_same(pointing_game(maps, masks).values, hits)
    assert_same(relevance_mass(maps, masks).values, shares)
    with pytest.raises(AssertionError):
        assert_same(relevance_mass(maps, masks).values, wrong)


@pytest.mark.parametrize("metric", [pointing_game, relevance_mass, segmentation])
def test_masks_that_do_not_fit_are_refused(metric):
    maps, masks = maps_and_masks()
    with pytest.raises(InputError, match="mask of example 2 is empty"):
        metric(maps, masks & (torch.arange(6) != 2)[:, None, None])
    with pytest.raises(InputError, match="do not divide"):
        metric(maps, torch.ones(6, 7, 6))
    with pytest.raises(InputError, match="expected maps"):
        metric(torch.rand(6, 3), masks)


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
def test_rank_agreement_is_that_of_the_loops(kind):
    one, two = scores_with_ties(), features()
    slow = getattr(oracle, kind)
    other = {"spearman": oracle.kendall, "kendall": oracle.spearman}[kind]
    pairs = [(a.tolist(), b.tolist()) for a, b in zip(one, two, strict=True)]
    found = rank_agreement(one, two, kind=kind).values
    assert_same(found, [slow(a, b) for a, b in pairs])
    for mutant in (other, oracle.pearson):
        with pytest.raises(AssertionError):
            assert_same(found, [mutant(a, b) for a, b in pairs])
    assert rank_agreement(one, one, kind=kind).mean == pytest.approx(1)
    assert rank_agreement(one, -one, kind=kind).mean == pytest.approx(-1)


@pytest.mark.parametrize(
    ("kind", "name"), [("spearman", "spearmanr"), ("kendall", "kendalltau")]
)
def test_rank_agreement_is_that_of_scipy(kind, name):
    stats = pytest.importorskip("scipy.stats")
    one, two = scores_with_ties(), features()
    expected = [
        float(getattr(stats, name)(a.numpy(), b.numpy()).statistic)
        for a, b in zip(one, two, strict=True)
    ]
    assert_same(rank_agreement(one, two, kind=kind).values, expected)


def test_no_order_agrees_with_nothing():
    assert rank_agreement(torch.zeros(1, 4), torch.rand(1, 4)).mean == 0
    with pytest.raises(InputError, match="scores of one shape"):
        rank_agreement(torch.rand(1, 4), torch.rand(1, 5))
    with pytest.raises(InputError, match="'kendall'"):
        rank_agreement(torch.rand(1, 4), torch.rand(1, 4), kind="pearson")


def test_conservation_error_is_the_share_of_the_bias():
    model, x = Linear(), features()
    output = model(x)[:, 1].detach()
    relevance = (model.weight[1] * x).detach()
    found = conservation_error(relevance, output)
    bias = float(model.bias[1].detach())
    assert_same(found.values, [abs(bias / float(f)) for f in output])
    at_zero = model(torch.zeros_like(x))[:, 1]
    exact = conservation_error((relevance,), output, baseline_outputs=at_zero)
    assert exact.values.abs().max() < 1e-12
    scaled = conservation_error(1.01 * relevance, output, baseline_outputs=at_zero)
    assert scaled.values.min() > 0.009
    with pytest.raises(InputError, match="an output is 0"):
        conservation_error(relevance, torch.zeros(EXAMPLES))
    with pytest.raises(InputError, match="one output per example"):
        conservation_error(relevance, torch.ones(EXAMPLES + 1))


def test_pooling_sums_channels_and_pixels():
    scores = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).double()
    found = pool_patches(scores, (2, 3))
    for b in range(2):
        for r in range(2):
            for c in range(3):
                block = scores[b, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
                assert found[b, r, c] == block.sum()
    with pytest.raises(InputError, match="do not divide into 3 x 3"):
        pool_patches(scores, (3, 3))
    with pytest.raises(InputError, match="scores of pixels"):
        pool_patches(scores[0], (2, 3))


def test_special_tokens_and_padding_are_not_ranked():
    class Tokenizer:
        cls_token_id, sep_token_id, pad_token_id, unk_token_id = 1, 2, 0, 3

    ids = torch.tensor([[1, 5, 3, 2, 0], [1, 6, 7, 8, 2]])
    expected = [[False, True, True, False, False], [False, True, True, True, False]]
    assert rankable(ids, Tokenizer()).tolist() == expected
    mask = torch.ones_like(ids)
    mask[1, 1] = 0
    found = rankable({"input_ids": ids, "attention_mask": mask}, Tokenizer())
    assert found[1].tolist() == [False, False, True, True, False]
