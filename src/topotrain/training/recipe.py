"""The recipe that travels with a model version: what it was made from, and how it does against what costs nothing."""

from __future__ import annotations

from typing import Any

from topotrain.config import TrainConfig
from topotrain.data.column_ranges import column_ranges
from topotrain.data.prepare import PreparedData
from topotrain.data.split import Split
from topotrain.model.network import NetworkSpec
from topotrain.scoring.recipe import base_recipe
from topotrain.tracking.recorder import Recorder
from topotrain.training.baselines import MOST_GRAPHS
from topotrain.training.judged import Judged
from topotrain.training.selection import Kept


def training_recipe(recorder: Recorder, config: TrainConfig, judged: Judged) -> dict[str, Any]:
    """What all versions of a training run share."""
    data = judged.data
    return {
        **base_recipe(recorder, config.mlflow.model_name),
        "config": config.to_dict(),
        "data": {
            "digest": data.digest,
            "graph_dir": str(data.graph_dir),
            "train": {**_split(data, data.train), "column_ranges": _column_ranges(data)},
            "val": _split(data, data.val),
            "warnings": data.warnings,
        },
        "baselines": judged.baselines.table,
    }


def version_recipe(shared: dict[str, Any], kept: Kept, spec: NetworkSpec, judged: Judged) -> dict[str, Any]:
    """The recipe of one kept checkpoint."""
    return {
        **shared,
        "checkpoint": {"epoch": kept.epoch, "file": kept.file_name},
        "network": spec.to_dict(),
        "metrics": dict(kept.metrics),
        "first_choice": judged.report(kept).first_choice,
        "within_target_error": judged.report(kept).within_target_error,
        "against_baselines": judged.against_baselines(kept),
    }


def _column_ranges(data: PreparedData) -> dict[str, Any]:
    """What each column holds in the training graphs, so that graphs beyond it can be told; computed once."""
    train, schema = data.train, data.schema
    chosen = train.thinned(MOST_GRAPHS)

    def compute() -> dict[str, Any]:
        return column_ranges(chosen.packed(schema))

    found: dict[str, Any] = train.store.remembered("ranges", train.content_digest, compute)
    return {**found, "num_graphs": len(chosen.samples)}


def _split(data: PreparedData, split: Split) -> dict[str, Any]:
    return {
        "labels": str(data.label_paths[split.name]),
        "label_digest": split.label_digest,
        "digest": split.digest,
        "num_graphs": len(split.samples),
        "targets": split.targets,
    }
