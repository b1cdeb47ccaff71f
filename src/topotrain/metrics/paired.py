"""Two predictors on the same targets: the difference target by target, which their means alone do not show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from topotrain.metrics.ranking import mean_squared_error
from topotrain.metrics.report import RankingReport, TargetReport, interval

MSE = "mse"
COMPARED = {"ranking_loss": False, "spearman": True, MSE: False}  # metric of a target: whether more is better
METRIC_WORDS = {"ranking_loss": "ranking loss", "spearman": "Spearman", MSE: "MSE"}
FIRST, SECOND = "first", "second"


@dataclass(frozen=True)
class Side:
    """One metric of one side.

    Attributes:
        mean: over the targets, and over the seeds of a recipe.
        spread: standard deviation between the seeds of their means; ``None`` of a single one.
    """

    mean: float
    spread: float | None


@dataclass(frozen=True)
class Difference:
    """One metric of two sides.

    Attributes:
        metric: its name.
        first: of the first side.
        second: of the second side.
        mean: first less second, over the targets for which both are defined.
        interval: of ``mean``: 95 %, bootstrap over targets, or their clusters; ``None`` for fewer than two.
        num_targets: how many they are.
    """

    metric: str
    first: Side
    second: Side
    mean: float
    interval: tuple[float, float] | None
    num_targets: int

    @property
    def better(self) -> str | None:
        """The side that is better beyond the interval; ``None`` where they can't be told apart."""
        if self.interval is None or self.interval[0] <= 0 <= self.interval[1]:
            return None
        return FIRST if (self.mean > 0) == COMPARED[self.metric] else SECOND

    @property
    def verdict(self) -> str:
        """What is said of the first side: ``better``, ``worse`` or ``undecided``."""
        return {FIRST: "better", SECOND: "worse", None: "undecided"}[self.better]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "first": {"mean": self.first.mean, "spread": self.first.spread},
            "second": {"mean": self.second.mean, "spread": self.second.spread},
            "difference": self.mean,
            "interval": list(self.interval) if self.interval else None,
            "num_targets": self.num_targets,
            "better": self.better,
        }


def paired(
    first: Sequence[RankingReport], second: Sequence[RankingReport], clusters: Mapping[str, str] | None = None
) -> list[Difference]:
    """Hold two sides against each other, target by target.

    Targets are drawn again and again, with replacement, each with what both sides make of it: a target that is hard for
    both does not widen the interval.

    Args:
        first: reports of one model, or of several seeds of a recipe, whose values are averaged target by target.
        second: likewise, on the same decoys.
        clusters: of each target; drawn in place of targets, each with all of its own.

    Returns:
        Differences of the metrics that are defined for both on some target.
    """
    found = []
    for metric in COMPARED:
        sides = [[_values(report, metric) for report in side] for side in (first, second)]
        known = [target for target in sides[0][0] if all(target in one for side in sides for one in side)]
        if not known:
            continue
        arrays = [np.array([[one[target] for target in known] for one in side]) for side in sides]
        difference = arrays[0].mean(axis=0) - arrays[1].mean(axis=0)
        ends = interval(difference, [clusters[target] for target in known] if clusters else None)
        between = (ends[0], ends[1]) if ends else None
        each = [Side(float(one.mean()), _spread(one.mean(axis=1))) for one in arrays]
        found.append(Difference(metric, each[0], each[1], float(difference.mean()), between, len(known)))
    return found


def against(
    model: RankingReport, baselines: Mapping[str, RankingReport]
) -> dict[str, dict[str, dict[str, float | str | None]]]:
    """A model beside baselines on the same decoys: by baseline and metric, how they differ.

    Returns:
        ``difference`` (the model's mean over targets less the baseline's), ``low`` and ``high`` (its interval;
        ``None`` for fewer than two targets) and ``verdict``.
    """
    found: dict[str, dict[str, dict[str, float | str | None]]] = {}
    for name, baseline in baselines.items():
        found[name] = {}
        for one in paired([model], [baseline]):
            low, high = one.interval or (None, None)
            found[name][one.metric] = {"difference": one.mean, "low": low, "high": high, "verdict": one.verdict}
    return found


def difference_in_words(found: Mapping[str, Any] | None) -> str:
    """One metric of one baseline in what ``against`` says: ``-0.0310 [-0.052, -0.011] better``."""
    if found is None:
        return "undefined"
    between = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found['difference']:+.4f}{between} {found['verdict']}"


def differences_in_words(found: Mapping[str, Any]) -> str:
    """All metrics of one baseline in what ``against`` says."""
    return ", ".join(f"{METRIC_WORDS[metric]} {difference_in_words(one)}" for metric, one in found.items())


def _values(report: RankingReport, metric: str) -> Mapping[str, float]:
    values = {one.target: _value(one, metric) for one in report.targets}
    return {target: value for target, value in values.items() if value is not None}


def _value(target: TargetReport, metric: str) -> float | None:
    return mean_squared_error(target.scaled, target.true) if metric == MSE else target.metrics[metric]


def _spread(means: np.ndarray) -> float | None:
    return float(means.std(ddof=1)) if len(means) > 1 else None
