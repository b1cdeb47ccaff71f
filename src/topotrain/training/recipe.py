"""The recipe that travels with a model version: what it was made from, and how it does against what costs nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from topotrain.config import TrainConfig
from topotrain.data.prepare import PreparedData
from topotrain.data.raw_features import CONTACTS, raw_features, truth
from topotrain.data.split import Split
from topotrain.metrics.baselines import fitted_line
from topotrain.metrics.ranking import epoch_metrics
from topotrain.model.network import NetworkSpec
from topotrain.scoring.recipe import base_recipe
from topotrain.tracking.recorder import Recorder
from topotrain.training.selection import Kept

TRAINING_MEAN, NUMBER_OF_EDGES = "training mean", "number of edges"


def training_recipe(recorder: Recorder, config: TrainConfig, data: PreparedData) -> dict[str, Any]:
    """What all versions of a training run share."""
    return {
        **base_recipe(recorder, config.mlflow.model_name),
        "config": config.to_dict(),
        "data": {
            "digest": data.digest,
            "graph_dir": str(data.graph_dir),
            "train": _split(data, data.train),
            "val": _split(data, data.val),
            "warnings": data.warnings,
        },
        "baselines": baselines(data.train, data.val),
    }


def version_recipe(shared: dict[str, Any], kept: Kept, spec: NetworkSpec) -> dict[str, Any]:
    """The recipe of one kept checkpoint."""
    checkpoint = {"epoch": kept.epoch, "file": kept.file_name}
    return {**shared, "checkpoint": checkpoint, "network": spec.to_dict(), "metrics": dict(kept.metrics)}


def baselines(train: Split, val: Split) -> dict[str, dict[str, float | None]]:
    """Validation metrics of two predictors that learn next to nothing; an undefined one is ``None``.

    ``training mean`` predicts the mean true DockQ of the training graphs, ``number of edges`` a straight line in that
    number, fitted to the training graphs by least squares (in the number of contacts, half of it, the line is the
    same).
    """
    learned, _ = truth(train)
    true, targets = truth(val)
    predicted = {
        TRAINING_MEAN: np.full(len(val.samples), learned.mean()),
        NUMBER_OF_EDGES: fitted_line(raw_features(train)[CONTACTS], learned, raw_features(val)[CONTACTS]),
    }
    table: dict[str, dict[str, float | None]] = {}
    for name, values in predicted.items():
        metrics, undefined = epoch_metrics(values, true, targets)
        table[name] = {metric: None if metric in undefined else value for metric, value in metrics.items()}
    return table


def _split(data: PreparedData, split: Split) -> dict[str, Any]:
    return {
        "labels": str(data.label_paths[split.name]),
        "label_digest": split.label_digest,
        "digest": split.digest,
        "num_graphs": len(split.samples),
        "targets": split.targets,
    }
