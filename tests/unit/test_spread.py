"""How well a spread tells an error: laws and cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from topotrain.evaluation.table import spread_lines
from topotrain.metrics.spread import spread_report


def test_four_decoys_by_hand():
    report = spread_report(
        np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.1, 0.2, 0.1, 0.4]), np.array([0.6, 0.1, 0.5, 0.2])
    )
    # errors 0.1, 0.4, 0, 0.3
    assert report.within == (0.75, 1.0, 1.0)
    assert report.normal == pytest.approx((0.6827, 0.9545, 0.9973), abs=1e-4)
    assert report.mean == pytest.approx(0.2)
    assert report.ratio == pytest.approx(np.sqrt((0.01 + 0.16 + 0.09) / (0.01 + 0.04 + 0.01 + 0.16)))
    assert report.spearman == pytest.approx(0.7379, abs=1e-4)  # ranks 1.5, 3, 1.5, 4 and 2, 4, 1, 3
    (group,) = report.groups
    assert group.count == 4
    assert set(report.metrics()) == {
        *("spread_mean", "spread_spearman", "spread_error_ratio"),
        *(f"spread_within_{width}_std" for width in (1, 2, 3)),
    }


def test_a_spread_that_is_right_is_found_right_and_one_that_is_half_is_found_half():
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.01, 0.2, 20_000)
    true = np.full(20_000, 0.5)
    predicted = true + rng.normal(0, spread)
    report = spread_report(predicted, spread, true)
    assert report.within == pytest.approx(report.normal, abs=0.01)
    assert report.ratio == pytest.approx(1.0, abs=0.02)
    assert report.spearman > 0.3
    assert len(report.groups) == 10
    for group in report.groups:
        assert group.error == pytest.approx(group.spread, rel=0.05)
    half = spread_report(predicted, spread / 2, true)
    assert half.ratio == pytest.approx(2 * report.ratio)
    assert half.spearman == report.spearman, "its order alone counts"
    assert half.within[1] == report.within[0]


def test_a_spread_that_says_nothing_is_found_out():
    rng = np.random.default_rng(1)
    errors = rng.normal(0, 0.1, 5_000)
    report = spread_report(errors, rng.permutation(np.abs(errors)) + 0.01, np.zeros(5_000))
    assert abs(report.spearman) < 0.05


def test_the_order_of_the_decoys_changes_nothing():
    rng = np.random.default_rng(2)
    predicted, spread, true = rng.random(53), rng.random(53), rng.random(53)
    order = rng.permutation(53)
    one, other = spread_report(predicted, spread, true), spread_report(predicted[order], spread[order], true[order])
    assert one.metrics() == pytest.approx(other.metrics())
    assert (
        [group.count for group in one.groups]
        == [group.count for group in other.groups]
        == [6, 6, 6, 5, 5, 5, 5, 5, 5, 5]
    )
    assert [group.error for group in one.groups] == pytest.approx([group.error for group in other.groups])


def test_members_that_agree_throughout_leave_undefined_what_divides_by_the_spread():
    report = spread_report(np.array([0.2, 0.4]), np.zeros(2), np.array([0.2, 0.5]))
    assert (report.within, report.ratio, report.spearman) == ((0.5, 0.5, 0.5), None, None)
    assert "spread_error_ratio" not in report.metrics()
    assert "the error is undefined times" in spread_lines(report, "DockQ")[0]


def test_a_single_model_says_that_it_gives_none():
    (line,) = spread_lines(None, "DockQ")
    assert line.startswith("spread: none, a single model gives none")
