"""How well the spread of an ensemble tells its error; rules are in docs/metrics.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from topotrain.metrics.ranking import Values, spearman

WIDTHS = (1, 2, 3)  # standard deviations on either side of the mean
MOST_GROUPS = 10
FEWEST_IN_GROUP = 5  # decoys: the error of fewer is chance


@dataclass(frozen=True)
class Group:
    """Decoys of like spread.

    Attributes:
        count: how many.
        spread: root of their mean squared spread.
        error: root of their mean squared error.
    """

    count: int
    spread: float
    error: float


@dataclass(frozen=True)
class SpreadReport:
    """An ensemble's spread beside its errors.

    Attributes:
        within: fraction of true values no further from the prediction than 1, 2 and 3 times the spread.
        normal: the same fractions of errors that are normal with the spread as standard deviation.
        spearman: of spread and absolute error; ``None`` where it is undefined.
        mean: of the spread, in DockQ units.
        ratio: root mean squared error to root mean squared spread: 1 where the spread is as large as the errors are,
            more where it is too small; ``None`` where the spread is 0 throughout.
        groups: decoys in groups of equal number by spread, the smallest first.
    """

    within: tuple[float, ...]
    normal: tuple[float, ...]
    spearman: float | None
    mean: float
    ratio: float | None
    groups: tuple[Group, ...]

    def metrics(self) -> dict[str, float]:
        """Those that are defined, as one flat mapping."""
        return {f"spread_{name}": value for name, value in self._numbers().items() if value is not None}

    def to_dict(self) -> dict[str, Any]:
        """For a report; ``null`` is undefined."""
        groups = [{"num_models": one.count, "spread": one.spread, "error": one.error} for one in self.groups]
        return {**self._numbers(), "groups": groups}

    def _numbers(self) -> dict[str, float | None]:
        within = {f"within_{width}_std": value for width, value in zip(WIDTHS, self.within, strict=True)}
        return {"mean": self.mean, "spearman": self.spearman, "error_ratio": self.ratio, **within}


def spread_report(predicted: Values, spread: Values, true: Values) -> SpreadReport:
    """Hold an ensemble's spread against its errors.

    Args:
        predicted: (num_decoys,) mean predictions of the members.
        spread: (num_decoys,) standard deviation over the members.
        true: (num_decoys,) true DockQ.
    """
    errors = np.abs(predicted - true)
    largest = _root_mean_square(spread)
    return SpreadReport(
        within=tuple(float(np.mean(errors <= width * spread)) for width in WIDTHS),
        normal=tuple(float(2 * stats.norm.cdf(width) - 1) for width in WIDTHS),
        spearman=spearman(spread, errors),
        mean=float(spread.mean()),
        ratio=_root_mean_square(errors) / largest if largest > 0 else None,
        groups=tuple(_groups(spread, errors)),
    )


def _groups(spread: Values, errors: Values) -> list[Group]:
    number = max(1, min(MOST_GROUPS, len(spread) // FEWEST_IN_GROUP))
    parts = np.array_split(np.argsort(spread, kind="stable"), number)
    return [Group(len(rows), _root_mean_square(spread[rows]), _root_mean_square(errors[rows])) for rows in parts]


def _root_mean_square(values: Values) -> float:
    return float(np.sqrt(np.mean(values**2)))
