"""Kept checkpoints to logged models and registered versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from topotrain.config import TrainConfig
from topotrain.fields import (
    CHECKPOINT_DIR,
    DOCKQ_COLUMN,
    NOT_KEPT,
    SELECTION_METRIC,
    TAG_LABEL_COLUMN,
    TAG_RANKED_BY,
    TAG_VALIDATION_DIGEST,
    VAL_LOSS,
    VAL_SPEARMAN,
)
from topotrain.model.checkpoint import load_network
from topotrain.progress import track
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.export import export_model
from topotrain.tracking.recorder import NewVersion, Recorder
from topotrain.tracking.versions import CANDIDATE
from topotrain.training.judged import Judged
from topotrain.training.recipe import training_recipe, version_recipe
from topotrain.training.selection import Kept, Selection

TakeCandidate = Literal["never", "if_better", "always"]


def register_kept(
    recorder: Recorder,
    config: TrainConfig,
    selection: Selection,
    judged: Judged,
    workdir: Path,
    versions: dict[int, str | NewVersion],
    *,
    candidate: TakeCandidate,
) -> list[str | NewVersion]:
    """Make a logged model and a registered version of each kept checkpoint (or of the best alone).

    Args:
        recorder: of the run.
        config: ``mlflow.register`` and ``mlflow.model_name``.
        selection: which checkpoints were kept.
        judged: the checkpoints on the validation graphs, and what the recipe says of the data.
        workdir: where the checkpoints are.
        versions: version of each epoch that has one; new ones are put in, ranks are brought up to date.
        candidate: whether the best becomes the candidate.

    Returns:
        The versions, best first: of those that were there already, their numbers.
    """
    name = config.mlflow.model_name
    kept = selection.kept if config.mlflow.register_ == "all" else selection.kept[:1]
    example = judged.data.val.smallest()
    for epoch in versions.keys() - {one.epoch for one in kept}:  # kept when an earlier part of the run ended
        if isinstance(number := versions[epoch], str):
            recorder.version_tags(name, number, {"rank": NOT_KEPT})
    scale = {TAG_RANKED_BY: config.selection.scale, TAG_VALIDATION_DIGEST: judged.data.val.label_digest}
    shared: dict[str, Any] = {}
    # Worst first, so that the newest version of the model is the best one.
    ranked = list(enumerate(kept, start=1))[::-1]
    for rank, one in track(ranked, len(ranked), "registering models"):
        if one.epoch in versions:
            if isinstance(number := versions[one.epoch], str):
                recorder.version_tags(name, number, {"rank": str(rank)})
            continue
        network, schema = load_network(workdir / CHECKPOINT_DIR / one.file_name)
        shared = shared or training_recipe(recorder, config, judged)
        recipe = version_recipe(shared, one, network.spec, judged)
        folder = workdir / "models" / one.file_name
        files = export_model(network, schema, example, folder, recipe, judged.baselines.trees)
        tags = {**_tags(one, rank, recorder.run_id, schema), **scale}
        title = f"{name}-epoch-{one.epoch}"
        versions[one.epoch] = recorder.version(files, name, title=title, step=one.epoch, tags=tags)
    if candidate != "never" and kept:
        recorder.alias(name, CANDIDATE, versions[kept[0].epoch], if_better=candidate == "if_better")
    return [versions[one.epoch] for one in kept]


def numbers_of(versions: Sequence[str | NewVersion]) -> list[str]:
    """Numbers of versions, without those that the server has not taken yet."""
    numbers = [one if isinstance(one, str) else one.number for one in versions]
    return [number for number in numbers if number is not None]


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
