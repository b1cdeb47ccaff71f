"""Calibration: how predictions and truth compare in ranges of the prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


def calibration_bins(predicted: Sequence[float], true: Sequence[float]) -> list[Bin]:
    """Mean prediction and truth in equal ranges of predicted DockQ; empty ranges are left out."""
    bins = []
    for number in range(NUM_BINS):
        rows = [row for row, value in enumerate(predicted) if min(int(value * NUM_BINS), NUM_BINS - 1) == number]
        if not rows:
            continue
        values = [true[row] for row in rows]
        mean = sum(values) / len(rows)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / max(len(rows) - 1, 1))
        error = spread / math.sqrt(len(rows))
        bins.append(Bin(number / NUM_BINS, len(rows), sum(predicted[r] for r in rows) / len(rows), mean, error))
    return bins
