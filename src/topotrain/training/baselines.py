"""What a run's network is held against: predictors that cost nothing, and trees that cost a second."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from topotrain.data.pooled_columns import pooled_columns
from topotrain.data.prepare import PreparedData
from topotrain.data.raw_features import CONTACTS, raw_features, truth
from topotrain.fields import BASELINE_PREFIX, BASELINE_SLUGS, TREES, VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN
from topotrain.metrics.baselines import fitted_line
from topotrain.metrics.ranking import Values, epoch_metrics
from topotrain.metrics.report import RankingReport, ranking_report
from topotrain.metrics.trees import Trees, fitted_trees
from topotrain.version import __version__

RECORDED = (VAL_LOSS, VAL_RANKING_LOSS, VAL_SPEARMAN)
TRAINING_MEAN, NUMBER_OF_EDGES = "training mean", "number of edges"
MOST_GRAPHS = 20_000  # that trees learn from, spread evenly over more: some ten seconds, and 100 MB


@dataclass(frozen=True)
class Baselines:
    """Baselines on the validation graphs of a run.

    ``training mean`` predicts the mean true DockQ of the training graphs, ``number of edges`` a straight line in that
    number, fitted to the training graphs by least squares (in the number of contacts, half of it, the line is the
    same), ``trees`` what boosted trees learned from the pooled columns of the training graphs.

    Attributes:
        data: of the run.
    """

    data: PreparedData

    @cached_property
    def trees(self) -> Trees:
        """Grown once for the same training graphs and labels: packed graphs remember them."""
        train = self.data.train
        key = hashlib.sha256(f"{train.content_digest} {__version__}".encode()).hexdigest()
        return Trees.from_dict(train.store.remembered(TREES, key, lambda: self._fitted().to_dict()))

    def _fitted(self) -> Trees:
        train, schema = self.data.train, self.data.schema
        chosen = train.thinned(MOST_GRAPHS)
        return fitted_trees(pooled_columns(chosen.packed(schema), schema.node_dim, schema.edge_dim), truth(chosen)[0])

    @cached_property
    def predicted(self) -> Mapping[str, Values]:
        """(num_graphs,) predictions for the validation graphs, by name."""
        train, val, schema = self.data.train, self.data.val, self.data.schema
        learned, _ = truth(train)
        return {
            TRAINING_MEAN: np.full(len(val.samples), learned.mean()),
            NUMBER_OF_EDGES: fitted_line(raw_features(train)[CONTACTS], learned, raw_features(val)[CONTACTS]),
            TREES: self.trees.predict(pooled_columns(self.data.module.val, schema.node_dim, schema.edge_dim)),
        }

    @cached_property
    def reports(self) -> Mapping[str, RankingReport]:
        """How each ranks the validation graphs, by name."""
        true, targets = truth(self.data.val)
        quality = self.data.schema.label_column
        return {name: ranking_report(values, true, targets, quality=quality) for name, values in self.predicted.items()}

    @cached_property
    def table(self) -> dict[str, dict[str, float | None]]:
        """Validation metrics as those of an epoch, by name; an undefined one is ``None``."""
        true, targets = truth(self.data.val)
        table: dict[str, dict[str, float | None]] = {}
        for name, values in self.predicted.items():
            metrics, undefined = epoch_metrics(values, true, targets)
            table[name] = {metric: None if metric in undefined else value for metric, value in metrics.items()}
        return table

    @property
    def metrics(self) -> dict[str, float]:
        """What the run records, where it is defined: ``baseline_trees_val_loss``; each is a chart on its page."""
        return {
            f"{BASELINE_PREFIX}{BASELINE_SLUGS[name]}_{metric}": value
            for name, row in self.table.items()
            for metric in RECORDED
            if (value := row[metric]) is not None
        }
