"""The recipe that travels with a model version: what it was made from, and how it does against what costs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from topotrain import __version__
from topotrain.config import TrainConfig
from topotrain.data.prepare import PreparedData
from topotrain.data.split import Sample, Split
from topotrain.model.network import NetworkSpec
from topotrain.scoring.baselines import fitted_line, truth
from topotrain.scoring.metrics import epoch_figures
from topotrain.tracking.provenance import installed_packages, provenance_tags, system_facts
from topotrain.tracking.recorder import Recorder
from topotrain.training.selection import Kept

TRAINING_MEAN, NUMBER_OF_EDGES = "training mean", "number of edges"


def base_recipe(recorder: Recorder, model_name: str) -> dict[str, Any]:
    """What every model version says of its making.

    Args:
        recorder: of the run that makes it.
        model_name: of the registered model.
    """
    return {
        "model_name": model_name,
        "topotrain": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": {"id": recorder.run_id, "name": recorder.run_name},
        "code": provenance_tags(),
        "system": system_facts(),
        "packages": installed_packages().split(),
    }


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
        "baselines": baselines(data.train.samples, data.val.samples),
    }


def version_recipe(shared: dict[str, Any], kept: Kept, spec: NetworkSpec) -> dict[str, Any]:
    """The recipe of one kept checkpoint."""
    checkpoint = {"epoch": kept.epoch, "file": kept.file_name}
    return {**shared, "checkpoint": checkpoint, "network": spec.to_dict(), "metrics": dict(kept.figures)}


def baselines(train: Sequence[Sample], val: Sequence[Sample]) -> dict[str, dict[str, float | None]]:
    """Validation figures of two predictors that learn next to nothing; an undefined one is ``None``.

    ``training mean`` predicts the mean true DockQ of the training graphs, ``number of edges`` a straight line in that
    number, fitted to the training graphs by least squares.
    """
    learned, _ = truth(train)
    slope, intercept = fitted_line(_edges(train), learned)
    predicted = {
        TRAINING_MEAN: np.full(len(val), learned.mean()),
        NUMBER_OF_EDGES: slope * _edges(val) + intercept,
    }
    true, targets = truth(val)
    table: dict[str, dict[str, float | None]] = {}
    for name, values in predicted.items():
        figures, undefined = epoch_figures(values, true, targets)
        table[name] = {figure: None if figure in undefined else value for figure, value in figures.items()}
    return table


def _edges(samples: Sequence[Sample]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([float(sample.graph.facts.num_edges) for sample in samples])


def _split(data: PreparedData, split: Split) -> dict[str, Any]:
    return {
        "labels": str(data.label_paths[split.name]),
        "label_digest": split.label_digest,
        "digest": split.digest,
        "num_graphs": len(split.samples),
        "targets": split.targets,
    }
