"""All numbers of an explanation have one precision."""

from __future__ import annotations

import pytest

from captum_transformer_lrp.report.numbers import ScoreFormat


@pytest.mark.parametrize(
    ("limit", "score", "written"),
    [
        (3.2, 1.234, "+1.23"),
        (3.2, -1.2, "−1.20"),
        (3.2, 0.0, "0.00"),
        (3.2, -0.001, "0.00"),
        (0.032, 0.0321, "+0.0321"),
        (150.0, -3.4, "−3"),
        (1e-9, 5e-10, "+5.00e−10"),
        (0.0, 0.0, "0.00"),
    ],
)
def test_three_digits_for_the_largest(limit, score, written):
    assert ScoreFormat(limit=limit)(score) == written


def test_without_sign():
    write = ScoreFormat(limit=0.032, signed=False)
    assert [write(s) for s in (0.0321, 0.0, -0.01)] == ["0.0321", "0.0000", "−0.0100"]
    assert ScoreFormat(limit=1e-9, signed=False)(5e-10) == "5.00e−10"
