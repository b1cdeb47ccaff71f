"""An ensemble judged on the validation data of its members, where they are the same and still there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.config import SelectionConfig
from topotrain.data.demo import demo_paths
from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import Graph
from topotrain.data.pooled_columns import pooled_columns
from topotrain.data.raw_features import truth
from topotrain.data.split import Split, SplitRules, read_split
from topotrain.errors import DataError
from topotrain.fields import DEMO, SELECTION_METRIC, TREES, VAL_LOSS, VAL_SPEARMAN
from topotrain.metrics.paired import against
from topotrain.metrics.ranking import epoch_metrics
from topotrain.metrics.report import RankingReport, ranking_report
from topotrain.metrics.spread import SpreadReport, spread_report
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.load import trees_of_files
from topotrain.scoring.members import Member, common_split
from topotrain.scoring.scorer import Scorer

SHOWN_DIGEST = 8  # characters


@dataclass(frozen=True)
class Judged:
    """How an ensemble does on the validation data of its members.

    Attributes:
        metrics: as those of an epoch.
        scale: of the primary metric.
        label_digest: of the validation decoys and their labels.
        example: a small graph of them.
        report: how it ranks them, target by target.
        spread: how far its members lie apart on them, beside its errors.
        against: how it differs from the trees that learned from the same graphs as its members, where there are some.
    """

    metrics: dict[str, float]
    scale: str
    label_digest: str
    example: Graph
    report: RankingReport
    spread: SpreadReport
    against: dict[str, Any]


def judge_together(members: Sequence[Member], scorer: Scorer) -> Judged:
    """Score the validation graphs that all members were validated on.

    Args:
        members: of the ensemble.
        scorer: the ensemble.

    Raises:
        DataError: they were not validated on the same data, or by the same measure, or the data are not there as they
            were.
    """
    if common_split(members, "val") is None:
        raise DataError("its members do not say that they were validated on the same data", "one validation split")
    selections = [SelectionConfig.model_validate(member.config["selection"]) for member in members]
    if len({one.scale for one in selections}) > 1:
        raise DataError("its members were ranked by different measures", "one primary metric")
    split = _read(members[0], scorer.schema.label_column)
    predictions = list(scorer.predictions(split.known()))
    predicted, spread = np.array([(one.score, one.spread) for one in predictions], dtype=np.float64).T
    true, targets = truth(split)
    metrics, _ = epoch_metrics(predicted, true, targets)
    metrics[SELECTION_METRIC] = selections[0].metric(metrics[VAL_LOSS], metrics[VAL_SPEARMAN])
    report = ranking_report(predicted, true, targets, quality=split.column)
    return Judged(
        metrics,
        selections[0].scale,
        split.label_digest,
        split.smallest(),
        report,
        spread_report(predicted, spread, true),
        against(report, _trees(members, scorer.schema, split)),
    )


def _trees(members: Sequence[Member], schema: FeatureSchema, split: Split) -> dict[str, RankingReport]:
    """How the trees do that all members bring."""
    trees = trees_of_files(members[0].weights.parent) if common_split(members, "train") else None
    if trees is None:
        return {}
    predicted = trees.predict(pooled_columns(split.packed(schema), schema.node_dim, schema.edge_dim))
    return {TREES: ranking_report(predicted, *truth(split), quality=split.column)}


def _read(member: Member, column: str) -> Split:
    """The validation split of a member, exactly as it was."""
    recorded, paths = member.recipe["data"], member.config["paths"]
    graphs, labels = Path(recorded["graph_dir"]), Path(recorded["val"]["labels"])
    if paths["graph"] == DEMO:
        graphs, labels = demo_paths().graphs, demo_paths().val_labels
    rules = SplitRules(fail_on_missing=False, column=column)
    cache = Path(paths["cache"]) if paths.get("cache") else None
    split = read_split("val", GraphDirectory(graphs), labels, rules, cache=cache)
    known = str(recorded["val"]["digest"])  # over graphs, labels and targets
    if split.digest != known:
        raise DataError(
            f"the validation data in {graphs} are not those of its members any more",
            f"digest {known[:SHOWN_DIGEST]}.., found {split.digest[:SHOWN_DIGEST]}..",
        )
    return split
