"""How well predictions rank each target's decoys, and over targets, with intervals; rules are in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import stats

from topotrain.fields import DOCKQ_COLUMN
from topotrain.metrics.ranking import (
    ACCEPTABLE,
    CLASSES,
    Flags,
    Values,
    by_target,
    chance_of_hit,
    enrichment,
    hits_in_top,
    kendall,
    mean_absolute_error,
    mean_squared_error,
    pearson,
    ranking_loss,
    roc_auc,
    spearman,
)

TOPS = (1, 5, 10)
RESAMPLES = 9999
SEED = 20251
LEVEL = 0.95
BOOTSTRAP = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "method": "percentile, over targets"}

# Metrics of one target whose means over targets are given.
PER_TARGET: dict[str, Callable[[Values, Values], float | None]] = {
    "ranking_loss": ranking_loss,
    "spearman": spearman,
    "pearson": pearson,
    "kendall": kendall,
    "roc_auc": lambda predicted, true: roc_auc(predicted, true >= ACCEPTABLE),
    "enrichment": lambda predicted, true: enrichment(predicted, true >= ACCEPTABLE),
}
OF_CLASSES = ("roc_auc", "enrichment")  # by thresholds of DockQ, so for DockQ alone


@dataclass(frozen=True)
class TargetReport:
    """One target's decoys.

    Args:
        target: its name.
        predicted: (num_decoys,) predictions; only their order matters here.
        true: (num_decoys,) true DockQ, or another quality.
        scaled: predictions on the scale of DockQ, for the errors.
        quality: the column of which it is.
    """

    target: str
    predicted: Values
    true: Values
    scaled: Values
    quality: str = DOCKQ_COLUMN

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """What is averaged over targets, by name; ``None`` where undefined."""
        names = per_target_names(self.quality)
        values = {name: PER_TARGET[name](self.predicted, self.true) for name in names}
        for size in TOPS:
            for name, flags in self._classes.items():
                values[f"hit_rate_top{size}_{name}"] = chance_of_hit(self.predicted, flags, size)
        return values

    def to_dict(self) -> dict[str, Any]:
        """For a report: ``hits_topK`` are numbers of decoys of at least acceptable/medium/high quality."""
        best = float(self.true.max())
        document: dict[str, Any] = {"num_models": len(self.true)}
        if self._classes:
            document["num_good"] = "/".join(str(int(flags.sum())) for flags in self._classes.values())
        document |= {
            f"best_{self.quality}": best,
            f"top1_{self.quality}": best - ranking_loss(self.predicted, self.true),
            **{name: self.metrics[name] for name in per_target_names(self.quality)},
        }
        for size in TOPS if self._classes else ():
            hits = [hits_in_top(self.predicted, flags, size) for flags in self._classes.values()]
            document[f"hits_top{size}"] = slashed(hits)
        return document

    @property
    def _classes(self) -> dict[str, Flags]:
        return {name: self.true >= threshold for name, threshold in _classes_of(self.quality).items()}


@dataclass(frozen=True)
class RankingReport:
    """Predictions held against the truth, target by target and over all.

    Args:
        targets: by name, in alphabetical order, so that the order of rows does not matter.
        predicted: (num_decoys,) predicted DockQ.
        true: (num_decoys,) true DockQ.
        scaled: predictions on the scale of DockQ, for the errors, where ``predicted`` are on another.
        quality: the column of what is predicted; classes and their thresholds are of DockQ alone.
    """

    targets: tuple[TargetReport, ...]
    predicted: Values
    true: Values
    scaled: Values
    quality: str = DOCKQ_COLUMN

    @cached_property
    def overall(self) -> dict[str, float | None]:
        """Metrics over all decoys together."""
        return {
            "mse": mean_squared_error(self.scaled, self.true),
            "mae": mean_absolute_error(self.scaled, self.true),
            "pearson": pearson(self.predicted, self.true),
            "spearman": spearman(self.predicted, self.true),
        }

    @cached_property
    def defined(self) -> dict[str, Values]:
        """Values of each metric, of the targets for which it is defined."""
        return {
            name: np.array([value for one in self.targets if (value := one.metrics[name]) is not None])
            for name in self.targets[0].metrics
        }

    @cached_property
    def means(self) -> dict[str, float | None]:
        """Means over the targets for which a metric is defined; ``None`` where it is for none."""
        return {mean_name(name): float(values.mean()) if len(values) else None for name, values in self.defined.items()}

    @property
    def first_choice(self) -> dict[str, int] | None:
        """How often a target's top-ranked decoy was acceptable, of the targets that have such a decoy.

        Where decoys share the first place, picking one of them at random counts; ``None`` for another quality.
        """
        if self.quality != DOCKQ_COLUMN:
            return None
        able = [one for one in self.targets if (one.true >= ACCEPTABLE).any()]
        found = sum(one.metrics["hit_rate_top1_acceptable"] or 0.0 for one in able)
        return {"acceptable": round(found), "targets": len(able)}

    @property
    def within_target_error(self) -> float | None:
        """Standard deviation of what predictions are off by among the decoys of one target, pooled over targets.

        What all decoys of a target share is taken out: a ranking does not see it. ``None`` where no target has two
        decoys.
        """
        off = [one.scaled - one.true for one in self.targets]
        freedom = sum(len(one) - 1 for one in off)
        return float(np.sqrt(sum(((one - one.mean()) ** 2).sum() for one in off) / freedom)) if freedom else None

    def metrics(self) -> dict[str, float]:
        """Every metric that is defined, as one flat mapping."""
        return {name: value for name, value in {**self.means, **self.overall}.items() if value is not None}

    def to_dict(self, *, per_target: bool = True) -> dict[str, Any]:
        """For a report; ``null`` is undefined, and ``num_defined`` says how many targets a mean is over."""
        document: dict[str, Any] = {
            **({} if self.quality == DOCKQ_COLUMN else {"quality": self.quality}),
            "num_targets": len(self.targets),
            "num_models": len(self.true),
            "num_single_model_targets": sum(len(one.true) == 1 for one in self.targets),
            **{mean_name(name): self.means[mean_name(name)] for name in per_target_names(self.quality)},
        }
        classes = _classes_of(self.quality)
        for size in TOPS if classes else ():
            rates = [self.defined[f"hit_rate_top{size}_{name}"] for name in classes]
            document[f"hits_top{size}"] = slashed([float(rate.sum()) for rate in rates])
        document |= self.overall
        document |= {name: value for name, value in self.means.items() if name not in document}
        document["num_defined"] = {mean_name(name): len(values) for name, values in self.defined.items()}
        document["intervals"] = {mean_name(name): interval(values) for name, values in self.defined.items()}
        document["bootstrap"] = BOOTSTRAP
        if per_target:
            document["targets"] = {one.target: one.to_dict() for one in self.targets}
        return document


def ranking_report(
    predicted: Values,
    true: Values,
    targets: Sequence[str],
    scaled: Values | None = None,
    *,
    quality: str = DOCKQ_COLUMN,
) -> RankingReport:
    """Hold predictions against the truth.

    Args:
        predicted: (num_decoys,) predicted DockQ, or anything that grows with it.
        true: (num_decoys,) true DockQ.
        targets: target of each decoy.
        scaled: predictions on the scale of DockQ, where ``predicted`` are on another.
        quality: the column of what is predicted, where that is not DockQ.
    """
    rows, scaled = by_target(targets), predicted if scaled is None else scaled
    each = tuple(
        TargetReport(name, predicted[rows[name]], true[rows[name]], scaled[rows[name]], quality)
        for name in sorted(rows)
    )
    return RankingReport(each, predicted, true, scaled, quality)


def per_target_names(quality: str) -> list[str]:
    """The metrics of one target that mean something for a quality."""
    return [name for name in PER_TARGET if quality == DOCKQ_COLUMN or name not in OF_CLASSES]


def _classes_of(quality: str) -> dict[str, float]:
    return CLASSES if quality == DOCKQ_COLUMN else {}


def interval(values: Values, clusters: Sequence[str] | None = None) -> list[float] | None:
    """Bootstrap interval of the mean: targets drawn again and again, with replacement, from a fixed seed.

    Args:
        values: (num_targets,) one of each target.
        clusters: of each target; clusters are then drawn in place of targets, each with all of its own: targets that
            are alike say less than as many that are not.

    Returns:
        Its two ends, or ``None`` for fewer than two targets or clusters.
    """
    sums, sizes = values, np.ones(len(values))
    if clusters is not None:
        rows = list(by_target(clusters).values())
        sums, sizes = np.array([values[row].sum() for row in rows]), np.array([float(len(row)) for row in rows])
    if len(sums) < 2:
        return None
    found = stats.bootstrap(
        (sums, sizes),
        lambda total, size, axis: total.sum(axis=axis) / size.sum(axis=axis),
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return [float(found.low), float(found.high)]


def mean_name(metric: str) -> str:
    """What the mean over targets of a metric is called."""
    return metric if metric.startswith("hit_rate") else f"mean_{metric}"


def slashed(numbers: Sequence[float]) -> str:
    """``a/b/c`` for acceptable, medium and high; whole numbers, but where ties over the edge leave a fraction."""
    return "/".join(f"{number:.1f}".removesuffix(".0") for number in numbers)
