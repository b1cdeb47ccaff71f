"""Calibration: how predictions and truth compare in ranges of the prediction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from topotrain.metrics.ranking import Values

NUM_BINS = 10


@dataclass(frozen=True)
class Bin:
    """One range of predicted DockQ.

    Attributes:
        low: where it begins; it is 1 / ``NUM_BINS`` wide.
        count: decoys in it.
        predicted: their mean prediction.
        true: their mean true DockQ.
        error: standard error of ``true``; 0 for one decoy.
    """

    low: float
    count: int
    predicted: float
    true: float
    error: float


def calibration_bins(predicted: Values, true: Values) -> list[Bin]:
    """Mean prediction and truth in equal ranges of predicted DockQ; empty ranges are left out.

    Args:
        predicted: (num_decoys,) predicted DockQ in [0, 1].
        true: (num_decoys,) true DockQ.
    """
    range_of = np.minimum((predicted * NUM_BINS).astype(np.intp), NUM_BINS - 1)
    bins = []
    for number in range(NUM_BINS):
        chosen = range_of == number
        count = int(chosen.sum())
        if count:
            error = float(stats.sem(true[chosen])) if count > 1 else 0.0
            means = float(predicted[chosen].mean()), float(true[chosen].mean())
            bins.append(Bin(number / NUM_BINS, count, *means, error))
    return bins
