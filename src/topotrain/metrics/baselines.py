"""Two predictors that cost nothing, so that a network's metrics mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from topotrain.fields import DOCKQ_COLUMN
from topotrain.metrics.ranking import Values
from topotrain.metrics.report import RankingReport, ranking_report

CONSTANT = "constant"
FEATURE = "best raw feature"


def constant_baseline(true: Values, targets: Sequence[str], *, quality: str = DOCKQ_COLUMN) -> RankingReport:
    """The mean true DockQ of these very decoys: no constant has a smaller squared error.

    Args:
        true: (num_decoys,) true DockQ.
        targets: target of each decoy.
        quality: the column of what is predicted, where that is not DockQ.
    """
    return ranking_report(np.full(len(true), true.mean()), true, targets, quality=quality)


def feature_baseline(
    features: Mapping[str, Values], true: Values, targets: Sequence[str], *, quality: str = DOCKQ_COLUMN
) -> tuple[str, RankingReport]:
    """The raw feature that ranks these very decoys best: by mean Spearman over targets, then by mean ranking loss.

    Its errors are those of the straight line through these decoys that has the least. Feature and line are chosen
    with the truth in sight, which no model may do: a bar that is somewhat too high, never too low.

    Args:
        features: (num_decoys,) values of each raw feature, by its name; more is taken to be better.
        true: (num_decoys,) true DockQ.
        targets: target of each decoy.
        quality: the column of what is predicted, where that is not DockQ.

    Returns:
        The feature's name, and how it does.
    """
    reports = {
        name: ranking_report(values, true, targets, fitted_line(values, true, values), quality=quality)
        for name, values in features.items()
    }
    best = max(reports, key=lambda name: _rank(reports[name]))
    return best, reports[best]


def _rank(report: RankingReport) -> tuple[float, float]:
    spearman, loss = report.means["mean_spearman"], report.means["mean_ranking_loss"]
    return -1.0 if spearman is None else spearman, -(loss or 0.0)


def fitted_line(values: Values, true: Values, at: Values) -> Values:
    """The straight line of least squares through ``(values, true)``, taken at other values.

    It is flat, at the mean, where all values are equal.
    """
    if np.ptp(values) == 0:
        return np.full(len(at), true.mean())
    slope, intercept = np.polyfit(values, true, 1)
    return np.asarray(slope * at + intercept)
