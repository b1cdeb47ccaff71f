"""Metrics that say how well predictions rank and reproduce DockQ."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from topotrain.fields import VAL_LOSS, VAL_PEARSON, VAL_RANKING_LOSS, VAL_SPEARMAN

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

# DockQ from which a decoy has a CAPRI class (Basu and Wallner, PLoS ONE 11(8), e0161879, 2016).
ACCEPTABLE, MEDIUM, HIGH = 0.23, 0.49, 0.80
CLASSES = {"acceptable": ACCEPTABLE, "medium": MEDIUM, "high": HIGH}


def mean_squared_error(predicted: Values, true: Values) -> float:
    """Mean over decoys of the squared difference, in DockQ units squared."""
    return float(np.mean((predicted - true) ** 2))


def mean_absolute_error(predicted: Values, true: Values) -> float:
    """Mean over decoys of the absolute difference, in DockQ units."""
    return float(np.mean(np.abs(predicted - true)))


def pearson(predicted: Values, true: Values) -> float | None:
    """Pearson correlation; ``None`` where it is undefined (fewer than two values, or all of one side equal)."""
    if not _vary(predicted, true):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)  # predictions of a collapsed network
        return float(stats.pearsonr(predicted, true).statistic)


def spearman(predicted: Values, true: Values) -> float | None:
    """Spearman correlation (ties share their mean rank); ``None`` where it is undefined (as for ``pearson``)."""
    return float(stats.spearmanr(predicted, true).statistic) if _vary(predicted, true) else None


def kendall(predicted: Values, true: Values) -> float | None:
    """Kendall's tau-b, which corrects for ties; ``None`` where it is undefined (as for ``pearson``)."""
    return float(stats.kendalltau(predicted, true).statistic) if _vary(predicted, true) else None


def _vary(predicted: Values, true: Values) -> bool:
    return len(predicted) >= 2 and bool(np.ptp(predicted) > 0 and np.ptp(true) > 0)


def roc_auc(predicted: Values, good: Flags) -> float | None:
    """Area under the ROC curve: the chance that a good decoy is ranked above another one, a tie counting half.

    Returns:
        ``None`` where all decoys are good or none is. A constant prediction has 0.5.
    """
    num_pairs = int(good.sum()) * int((~good).sum())
    if num_pairs == 0:
        return None
    # The statistic of Mann and Whitney counts the pairs in the right order; the method is that of the p-value alone.
    return float(stats.mannwhitneyu(predicted[good], predicted[~good], method="asymptotic").statistic) / num_pairs


def hits_in_top(predicted: Values, good: Flags, size: int) -> float:
    """Good decoys among the ``size`` top-ranked; where a tie runs over the edge, the number expected at random."""
    above, tied, places = _top(predicted, size)
    return float(good[above].sum() + good[tied].sum() * places / tied.sum())


def chance_of_hit(predicted: Values, good: Flags, size: int) -> float:
    """1 where a good decoy is among the ``size`` top-ranked, else 0.

    Where a tie runs over the edge, it is the chance that picking among the tied at random finds one.
    """
    above, tied, places = _top(predicted, size)
    if good[above].any():
        return 1.0
    num_tied, num_bad = int(tied.sum()), int((tied & ~good).sum())
    return 1.0 - math.comb(num_bad, places) / math.comb(num_tied, places)


def enrichment(predicted: Values, good: Flags) -> float | None:
    """How many times more good decoys the top tenth (at least one decoy) holds than a random tenth.

    Returns:
        ``None`` where no decoy is good. A constant prediction has 1.
    """
    if not good.any():
        return None
    size = -(-len(good) // 10)  # rounded up
    return float(hits_in_top(predicted, good, size) / size / good.mean())


def _top(predicted: Values, size: int) -> tuple[Flags, Flags, int]:
    """Decoys surely among the ``size`` top-ranked, those that share the last prediction, and places left for them."""
    last = np.sort(predicted)[::-1][min(size, len(predicted)) - 1]
    above = predicted > last
    return above, predicted == last, min(size, len(predicted)) - int(above.sum())


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


def epoch_metrics(predicted: Values, true: Values, targets: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """The validation metrics of one epoch, every decoy counted once.

    Args:
        predicted: (num_decoys,) predicted DockQ.
        true: (num_decoys,) true DockQ.
        targets: target of each decoy.

    Returns:
        The metrics by name, and the names of correlations that were undefined and are given as 0.
    """
    undefined: list[str] = []

    def defined(name: str, value: float | None) -> float:
        if value is None:
            undefined.append(name)
            return 0.0
        return value

    metrics = {
        VAL_LOSS: mean_squared_error(predicted, true),
        VAL_PEARSON: defined(VAL_PEARSON, pearson(predicted, true)),
        VAL_SPEARMAN: defined(VAL_SPEARMAN, spearman(predicted, true)),
        VAL_RANKING_LOSS: mean_ranking_loss(predicted, true, targets),
    }
    return metrics, undefined
