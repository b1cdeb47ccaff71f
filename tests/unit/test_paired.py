"""Two predictors on the same targets: laws of the paired difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topotrain.metrics.paired import COMPARED, Difference, paired
from topotrain.metrics.report import RankingReport, ranking_report

RNG = np.random.default_rng(7)
NUM_TARGETS, NUM_DECOYS = 30, 12
TARGETS = [f"T{number}" for number in range(NUM_TARGETS) for _ in range(NUM_DECOYS)]
TRUE = RNG.uniform(0, 1, NUM_TARGETS * NUM_DECOYS)
# Targets differ more from each other than the two predictors do, in the same way for both.
HARDNESS = np.repeat(RNG.uniform(0, 1.5, NUM_TARGETS), NUM_DECOYS)
COMMON = RNG.normal(0, 1, len(TRUE)) * HARDNESS


def report(noise: float, seed: int = 0, **more: Any) -> RankingReport:
    own = np.random.default_rng(seed).normal(0, noise, len(TRUE))
    return ranking_report(TRUE + COMMON + own, TRUE, TARGETS, **more)


def by_metric(found: list[Difference]) -> dict[str, Difference]:
    return {one.metric: one for one in found}


def test_sides_change_places() -> None:
    first, second = [report(0.0)], [report(0.6)]
    there, back = by_metric(paired(first, second)), by_metric(paired(second, first))
    assert set(there) == set(COMPARED)
    for name, one in there.items():
        assert one.mean == -back[name].mean
        assert one.interval == pytest.approx([-end for end in reversed(back[name].interval or ())], abs=0.02)
        assert (one.first, one.second) == (back[name].second, back[name].first)
        assert one.better == {"first": "second", "second": "first", None: None}[back[name].better]


def test_what_is_better_is_seen_though_targets_differ_more() -> None:
    found = by_metric(paired([report(0.0)], [report(0.6)]))
    assert found["mse"].better == found["spearman"].better == "first"
    assert found["spearman"].mean > 0 > found["mse"].mean
    one = report(0.0)
    alone = [target.metrics["spearman"] for target in one.targets]
    assert np.std([value for value in alone if value is not None]) > 3 * found["spearman"].mean / 2


def test_a_predictor_and_itself_can_not_be_told_apart() -> None:
    for one in paired([report(0.2)], [report(0.2)]):
        assert (one.mean, one.interval, one.better) == (0.0, (0.0, 0.0), None)


def test_seeds_are_averaged_target_by_target() -> None:
    seeds = [report(0.5, seed) for seed in (1, 2, 3)]
    (together,) = (one for one in paired(seeds, [report(0.0)]) if one.metric == "spearman")
    each = [by_metric(paired([one], [report(0.0)]))["spearman"] for one in seeds]
    assert together.mean == pytest.approx(np.mean([one.mean for one in each]))
    assert together.first.mean == pytest.approx(np.mean([one.first.mean for one in each]))
    assert together.first.spread == pytest.approx(np.std([one.first.mean for one in each], ddof=1))
    assert together.second.spread is None
    assert together.interval is not None
    widths = [one.interval[1] - one.interval[0] for one in each if one.interval]
    assert together.interval[1] - together.interval[0] < max(widths)


def test_targets_for_which_one_is_undefined_count_for_neither() -> None:
    scores = TRUE + COMMON
    flat = scores.copy()
    flat[:NUM_DECOYS] = 0.5  # no order within the first target
    found = by_metric(paired([ranking_report(flat, TRUE, TARGETS)], [ranking_report(scores, TRUE, TARGETS)]))
    assert found["spearman"].num_targets == NUM_TARGETS - 1
    assert found["spearman"].mean == 0
    assert found["mse"].num_targets == NUM_TARGETS
    (one, *_) = paired(
        *([ranking_report(part, TRUE[:NUM_DECOYS], TARGETS[:NUM_DECOYS])] for part in (scores[:12], flat[:12]))
    )
    assert (one.interval, one.better, one.num_targets) == (None, None, 1)


def test_complexes_that_are_alike_say_less_than_as_many_that_are_not() -> None:
    first, second = [report(0.0)], [report(0.6)]
    alone = by_metric(paired(first, second))
    own = by_metric(paired(first, second, {target: target for target in TARGETS}))
    assert own == alone

    def tripled(one: RankingReport) -> RankingReport:
        return ranking_report(
            np.tile(one.predicted, 3), np.tile(TRUE, 3), [f"{x}-{k}" for k in range(3) for x in TARGETS]
        )

    copies = [[tripled(one) for one in side] for side in (first, second)]
    together = by_metric(paired(*copies, {f"{x}-{k}": x for x in TARGETS for k in range(3)}))
    apart = by_metric(paired(*copies))
    for name, one in alone.items():
        assert one.interval and together[name].interval and apart[name].interval
        assert together[name].mean == pytest.approx(one.mean)
        width = one.interval[1] - one.interval[0]
        assert together[name].interval == pytest.approx(one.interval, abs=0.1 * width)
        assert apart[name].interval[1] - apart[name].interval[0] < 0.7 * width
    assert all(one.interval is None for one in paired(first, second, dict.fromkeys(TARGETS, "one")))
