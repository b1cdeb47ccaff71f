"""The kept checkpoints of a run on its validation graphs, beside what costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from topotrain.data.prepare import PreparedData
from topotrain.data.raw_features import truth
from topotrain.metrics.paired import against
from topotrain.metrics.ranking import Values
from topotrain.metrics.report import RankingReport, ranking_report
from topotrain.model.checkpoint import load_network
from topotrain.scoring.scorer import SCORING_BATCH
from topotrain.training.baselines import Baselines
from topotrain.training.selection import Kept


class Judged:
    """What kept checkpoints predict for the validation graphs, each computed once.

    Args:
        data: of the run.
        checkpoints: folder of the checkpoints.

    Attributes:
        baselines: on the same graphs.
    """

    def __init__(self, data: PreparedData, checkpoints: Path) -> None:
        self.data, self._checkpoints = data, checkpoints
        self.baselines = Baselines(data)
        self._predicted: dict[str, Values] = {}

    def predicted(self, kept: Kept) -> Values:
        """(num_graphs,) predicted quality, as in training."""
        if kept.file_name not in self._predicted:
            self._predicted[kept.file_name] = self._predict(self._checkpoints / kept.file_name)
        return self._predicted[kept.file_name]

    def report(self, kept: Kept) -> RankingReport:
        """How a checkpoint ranks the validation graphs."""
        true, targets = truth(self.data.val)
        return ranking_report(self.predicted(kept), true, targets, quality=self.data.schema.label_column)

    def against_baselines(self, kept: Kept) -> dict[str, Any]:
        """How it differs from each baseline, over the validation targets."""
        return against(self.report(kept), self.baselines.reports)

    @torch.inference_mode()
    def _predict(self, checkpoint: Path) -> Values:
        network, _ = load_network(checkpoint)
        graphs = self.data.module.val
        scores: list[float] = []
        for start in range(0, len(graphs), SCORING_BATCH):
            batch = graphs.batch(range(start, min(start + SCORING_BATCH, len(graphs))))
            scores += network(
                batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs, layout=batch.layout
            ).tolist()
        return np.array(scores)
