"""Kept checkpoints to logged models and registered versions."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from topotrain.config import TrainConfig
from topotrain.data.prepare import PreparedData
from topotrain.fields import (
    CHECKPOINT_DIR,
    DOCKQ_COLUMN,
    SELECTION_METRIC,
    TAG_LABEL_COLUMN,
    VAL_LOSS,
    VAL_SPEARMAN,
)
from topotrain.model.checkpoint import load_network
from topotrain.progress import track
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.export import export_model
from topotrain.tracking.logged_models import NewVersion
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.versions import CANDIDATE
from topotrain.training.recipe import training_recipe, version_recipe
from topotrain.training.selection import Kept, Selection

log = logging.getLogger("topotrain")


def register_kept(
    recorder: Recorder,
    config: TrainConfig,
    selection: Selection,
    data: PreparedData,
    workdir: Path,
    versions: dict[int, str],
    *,
    candidate: bool,
) -> list[str]:
    """Make a logged model and a registered version of each kept checkpoint (or of the best alone).

    Args:
        recorder: of the run.
        config: ``mlflow.register`` and ``mlflow.model_name``.
        selection: which checkpoints were kept.
        data: an example graph, and what the recipe says of the data.
        workdir: where the checkpoints are.
        versions: version of each epoch that is registered already; new ones are put in, ranks are brought up to date.
        candidate: whether the best becomes the candidate.

    Returns:
        Version numbers, best first; without those that the server has not taken yet.
    """
    name = config.mlflow.model_name
    kept = selection.kept if config.mlflow.register_ == "all" else selection.kept[:1]
    example = data.val.smallest()
    for epoch in versions.keys() - {one.epoch for one in kept}:  # kept when an earlier part of the run ended
        recorder.version_tags(name, versions[epoch], {"rank": None})
    shared: dict[str, Any] = {}
    new: dict[int, NewVersion] = {}
    # Worst first, so that the newest version of the model is the best one.
    ranked = list(enumerate(kept, start=1))[::-1]
    for rank, one in track(ranked, len(ranked), "registering models"):
        if one.epoch in versions:
            recorder.version_tags(name, versions[one.epoch], {"rank": str(rank)})
            continue
        network, schema = load_network(workdir / CHECKPOINT_DIR / one.file_name)
        shared = shared or training_recipe(recorder, config, data)
        recipe = version_recipe(shared, one, network.spec)
        files = export_model(network, schema, example, workdir / "models" / one.file_name, recipe)
        tags = _tags(one, rank, recorder.run_id, schema)
        title = f"{name}-epoch-{one.epoch}"
        new[one.epoch] = recorder.version(files, name, title=title, step=one.epoch, tags=tags)
    if candidate and kept:
        best = kept[0].epoch
        recorder.alias(name, CANDIDATE, new[best] if best in new else versions[best])
    versions |= {epoch: version.number for epoch, version in new.items() if version.number is not None}
    best_first = [versions[one.epoch] for one in kept if one.epoch in versions]
    if candidate and best_first:
        numbers = ", ".join(reversed(best_first))
        log.info("registered %s versions %s; %s is version %s", name, numbers, CANDIDATE, best_first[0])
    return best_first


def _tags(kept: Kept, rank: int, run_id: str, schema: FeatureSchema) -> dict[str, str]:
    return {
        "epoch": str(kept.epoch),
        VAL_LOSS: repr(kept.metrics[VAL_LOSS]),
        VAL_SPEARMAN: repr(kept.metrics[VAL_SPEARMAN]),
        SELECTION_METRIC: repr(kept.metrics[SELECTION_METRIC]),
        "rank": str(rank),
        "run_id": run_id,
        "schema_digest": schema.digest,
        **({} if schema.label_column == DOCKQ_COLUMN else {TAG_LABEL_COLUMN: schema.label_column}),
    }
