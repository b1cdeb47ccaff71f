"""Two predictors that cost nothing, so that a network's figures mean something."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import Sample
from topotrain.metrics.ranking import Values
from topotrain.metrics.report import RankingReport, judge

CONSTANT = "constant"
FEATURE = "best raw feature"

# Raw features of a whole graph; more is taken to be better.
FEATURES: dict[str, Callable[[Graph], float]] = {
    "number of contacts": lambda graph: graph.edge_index.shape[1],
    "number of residues": lambda graph: graph.x.shape[0],
    "contacts per residue": lambda graph: graph.edge_index.shape[1] / graph.x.shape[0],
}


def constant_baseline(samples: Sequence[Sample]) -> RankingReport:
    """The mean true DockQ of these very samples: no constant has a smaller squared error."""
    true, targets = truth(samples)
    return judge(np.full(len(true), true.mean()), true, targets)


def feature_baseline(samples: Sequence[Sample]) -> tuple[str, RankingReport]:
    """The raw feature that ranks these very samples best: by mean Spearman over targets, then by mean ranking loss.

    Its errors are those of the straight line through these samples that has the least. Feature and line are chosen
    with the truth in sight, which no model may do: a bar that is somewhat too high, never too low.

    Returns:
        The feature's name, and how it does.
    """
    true, targets = truth(samples)
    judged: list[tuple[tuple[float, float], str, RankingReport]] = []
    for name, feature in FEATURES.items():
        values = np.array([float(feature(sample.graph)) for sample in samples])
        slope, intercept = fitted_line(values, true)
        judgement = judge(values, true, targets, slope * values + intercept)
        means = judgement.means
        rank = means["mean_spearman"]
        judged.append(((-1.0 if rank is None else rank, -(means["mean_ranking_loss"] or 0.0)), name, judgement))
    _, name, judgement = max(judged, key=lambda one: one[0])
    return name, judgement


def truth(samples: Sequence[Sample]) -> tuple[Values, list[str]]:
    """True DockQ and target of each sample."""
    return np.array([sample.dockq for sample in samples]), [sample.target for sample in samples]


def fitted_line(values: Values, true: Values) -> tuple[float, float]:
    """Slope and intercept of the straight line of least squares; the mean where all values are equal."""
    if np.ptp(values) == 0:
        return 0.0, float(true.mean())
    slope, intercept = np.polyfit(values, true, 1)
    return float(slope), float(intercept)
