"""Figures that say how well predictions rank and reproduce DockQ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from topotrain.fields import VAL_LOSS, VAL_PEARSON, VAL_RANKING_LOSS, VAL_SPEARMAN

Values = npt.NDArray[np.float64]


def mean_squared_error(predicted: Values, true: Values) -> float:
    """Mean over decoys of the squared difference, in DockQ units squared."""
    return float(np.mean((predicted - true) ** 2))


def pearson(predicted: Values, true: Values) -> float | None:
    """Pearson correlation; ``None`` where it is undefined (fewer than two values, or all of one side equal)."""
    if len(predicted) < 2 or np.ptp(predicted) == 0 or np.ptp(true) == 0:
        return None
    a, b = predicted - predicted.mean(), true - true.mean()
    # Each side is scaled before it is squared, so that tiny spreads do not vanish.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip((a @ b) / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def spearman(predicted: Values, true: Values) -> float | None:
    """Spearman correlation (ties share their mean rank); ``None`` where it is undefined."""
    if len(predicted) < 2:
        return None
    return pearson(stats.rankdata(predicted), stats.rankdata(true))


def ranking_loss(predicted: Values, true: Values) -> float:
    """Best true DockQ of one target's decoys minus that of the top-ranked decoy.

    Decoys that share the top prediction count with the mean of their true DockQ, which is what picking one of
    them at random is expected to give; the order of the rows then does not matter.
    """
    top = true[predicted == predicted.max()]
    return float(true.max() - top.mean())


def by_target(targets: Sequence[str]) -> dict[str, npt.NDArray[np.intp]]:
    """Positions of each target's decoys, targets in order of first appearance."""
    positions: dict[str, list[int]] = {}
    for position, target in enumerate(targets):
        positions.setdefault(target, []).append(position)
    return {target: np.array(rows, dtype=np.intp) for target, rows in positions.items()}


def mean_ranking_loss(predicted: Values, true: Values, targets: Sequence[str]) -> float:
    """Mean over targets of ``ranking_loss``."""
    return float(np.mean([ranking_loss(predicted[rows], true[rows]) for rows in by_target(targets).values()]))


def epoch_figures(predicted: Values, true: Values, targets: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The validation figures of one epoch, every decoy counted once.

    Args:
        predicted: (num_decoys,) predicted DockQ.
        true: (num_decoys,) true DockQ.
        targets: target of each decoy.

    Returns:
        The figures by name, and the names of correlations that were undefined and are given as 0.
    """
    undefined: list[str] = []

    def defined(name: str, value: float | None) -> float:
        if value is None:
            undefined.append(name)
            return 0.0
        return value

    figures = {
        VAL_LOSS: mean_squared_error(predicted, true),
        VAL_PEARSON: defined(VAL_PEARSON, pearson(predicted, true)),
        VAL_SPEARMAN: defined(VAL_SPEARMAN, spearman(predicted, true)),
        VAL_RANKING_LOSS: mean_ranking_loss(predicted, true, targets),
    }
    return figures, undefined
