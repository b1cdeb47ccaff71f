"""Ranking metrics against scipy, at the edges where they are undefined, and against the published ones."""

from __future__ import annotations

import csv
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from topotrain.fields import VAL_LOSS, VAL_PEARSON, VAL_RANKING_LOSS, VAL_SPEARMAN
from topotrain.metrics.ranking import (
    by_target,
    epoch_metrics,
    mean_ranking_loss,
    mean_squared_error,
    pearson,
    ranking_loss,
    spearman,
)


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=np.float64)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("decimals", [12, 1])  # one decimal makes many ties
def test_correlations_are_scipy_s(seed, decimals):
    rng = np.random.default_rng(seed)
    true = np.round(rng.random(40), decimals)
    predicted = np.round(0.4 * true + 0.6 * rng.random(40), decimals)
    assert pearson(predicted, true) == pytest.approx(stats.pearsonr(predicted, true).statistic, abs=1e-12)
    assert spearman(predicted, true) == pytest.approx(stats.spearmanr(predicted, true).statistic, abs=1e-12)
    assert mean_squared_error(predicted, true) == pytest.approx(sum((predicted - true) ** 2) / 40, abs=1e-15)


def test_ties_share_their_mean_rank():
    # ranks 1.5 1.5 3 4 against 1 2 3.5 3.5, by hand
    predicted, true = values(1, 1, 2, 3), values(5, 6, 7, 7)
    a, b = values(1.5, 1.5, 3, 4), values(1, 2, 3.5, 3.5)
    expected = np.corrcoef(a, b)[0, 1]
    assert spearman(predicted, true) == pytest.approx(expected, abs=1e-14)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        (values(0.5, 0.5, 0.5), values(0.1, 0.2, 0.3)),
        (values(0.1, 0.2, 0.3), values(0.5, 0.5, 0.5)),
        (values(0.3), values(0.3)),
        (values(), values()),
    ],
)
def test_undefined_correlations_are_none(predicted, true):
    assert pearson(predicted, true) is None
    assert spearman(predicted, true) is None


@pytest.mark.parametrize("spread", [1e-3, 1e-9, 1e-200, 1e200])
def test_correlation_does_not_depend_on_the_size_of_the_spread(spread):
    shape = values(1, 2, 4, 3)
    assert pearson(shape * spread, values(1, 2, 3, 4)) == pytest.approx(0.8, abs=1e-9)
    assert spearman(shape * spread, values(1, 2, 3, 4)) == pytest.approx(0.8, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spread", [1e-9, 1e-13, 1e-15])
def test_predictions_that_are_nearly_constant_give_no_warning(spread):
    """As a collapsed network's: scipy warns of rounding there, which would be printed in every epoch."""
    predicted, true = 0.5 + values(1, 2, 4, 3) * spread, values(1, 2, 3, 4)
    assert pearson(predicted, true) == pytest.approx(0.8, abs=0.01)
    assert spearman(predicted, true) == pytest.approx(0.8, abs=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sign", [1, -1])
def test_two_values_are_in_order_or_not(sign):
    for predicted in (values(0.2, 0.7), values(0.5, np.nextafter(0.5, 1))):
        assert pearson(predicted, sign * values(0.1, 0.2)) == sign
        assert spearman(predicted, sign * values(0.1, 0.2)) == pytest.approx(sign, abs=1e-12)


def test_correlation_of_a_small_spread_on_an_offset():
    shape = values(1, 2, 4, 3)
    assert pearson(0.5 + shape * 1e-9, values(1, 2, 3, 4)) == pytest.approx(0.8, abs=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_correlation_stays_within_one(sign):
    numbers = np.random.default_rng(0).random(1000)
    assert pearson(numbers, sign * numbers) == pytest.approx(sign, abs=1e-12)
    assert abs(pearson(numbers, sign * numbers)) <= 1.0


def test_ranking_loss_by_hand():
    true = values(0.9, 0.2, 0.5)
    assert ranking_loss(values(0.8, 0.1, 0.3), true) == 0.0
    assert ranking_loss(values(0.1, 0.8, 0.3), true) == pytest.approx(0.7)
    assert ranking_loss(values(0.1, 0.3, 0.8), true) == pytest.approx(0.4)
    assert ranking_loss(values(0.4), values(0.0)) == 0.0  # one decoy: nothing to lose


def test_ranking_loss_with_ties_does_not_depend_on_the_order():
    predicted, true = values(0.7, 0.7, 0.7, 0.2), values(0.1, 0.4, 0.7, 0.9)
    losses = {
        round(ranking_loss(predicted[list(order)], true[list(order)]), 12) for order in itertools.permutations(range(4))
    }
    assert losses == {round(0.9 - 0.4, 12)}


def test_mean_over_targets_not_over_decoys():
    targets = ["A", "B", "A", "A", "B"]
    predicted, true = values(0.9, 0.1, 0.2, 0.3, 0.9), values(0.0, 0.6, 1.0, 0.5, 0.2)
    assert mean_ranking_loss(predicted, true, targets) == pytest.approx((1.0 + 0.4) / 2)
    assert {target: rows.tolist() for target, rows in by_target(targets).items()} == {"A": [0, 2, 3], "B": [1, 4]}


def test_epoch_metrics_pool_all_decoys():
    rng = np.random.default_rng(1)
    predicted, true = rng.random(30), rng.random(30)
    targets = [f"T{i % 4}" for i in range(30)]
    metrics, undefined = epoch_metrics(predicted, true, targets)
    assert undefined == []
    assert metrics[VAL_LOSS] == pytest.approx(np.mean((predicted - true) ** 2))
    assert metrics[VAL_PEARSON] == pytest.approx(stats.pearsonr(predicted, true).statistic)
    assert metrics[VAL_SPEARMAN] == pytest.approx(stats.spearmanr(predicted, true).statistic)
    assert metrics[VAL_RANKING_LOSS] == pytest.approx(mean_ranking_loss(predicted, true, targets))
    order = rng.permutation(30)
    again, _ = epoch_metrics(predicted[order], true[order], [targets[i] for i in order])
    assert again == pytest.approx(metrics, abs=1e-12)


def test_undefined_figures_are_zero_and_named():
    metrics, undefined = epoch_metrics(values(0.5, 0.5), values(0.1, 0.2), ["A", "A"])
    assert (metrics[VAL_PEARSON], metrics[VAL_SPEARMAN]) == (0.0, 0.0)
    assert sorted(undefined) == [VAL_PEARSON, VAL_SPEARMAN]
    assert all(math.isfinite(value) for value in metrics.values())


def test_a_single_decoy():
    metrics, undefined = epoch_metrics(values(0.5), values(0.1), ["A"])
    assert metrics[VAL_LOSS] == pytest.approx(0.16)
    assert metrics[VAL_RANKING_LOSS] == 0.0
    assert len(undefined) == 2


@pytest.mark.parametrize(("dataset", "expected"), [("ABAG-AF3", 0.0977), ("BM55-AF2", 0.0694), ("HAF2", 0.1195)])
def test_published_ranking_losses(shared_data, dataset, expected):
    with (shared_data / "published_predictions.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == dataset]
    predicted = np.array([float(row["pred_dockq"]) for row in rows])
    true = np.array([float(row["true_dockq"]) for row in rows])
    targets = [row["target"] for row in rows]
    assert mean_ranking_loss(predicted, true, targets) == pytest.approx(expected, abs=5e-5)
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = mean_ranking_loss(predicted[order], true[order], [targets[i] for i in order])
    assert shuffled == pytest.approx(expected, abs=5e-5)
