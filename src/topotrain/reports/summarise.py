"""One run as one JSON document, asked of the tracking server."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from topotrain.fields import (
    BEST_SELECTION_METRIC,
    BEST_VAL_LOSS,
    CHECKPOINT_DIR,
    COVERAGE_ARTIFACT,
    EPOCH_SECONDS,
    KEPT_INDEX,
    SCHEMA_ARTIFACT,
    SELECTION_METRIC,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    VAL_LOSS,
    VAL_SPEARMAN,
)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger("topotrain")


def summarise(run: str, *, experiment: str | None = None, tracking_uri: str | None = None) -> dict[str, Any]:
    """Summarise one run. Under ``mlflow run``, the run made for the report keeps the document.

    Args:
        run: id, unique prefix, name, or ``latest``.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: the store can't be used, or the run is not there.
    """
    from topotrain.tracking.search import find_run
    from topotrain.tracking.store import open_store, resolve_tracking_uri

    client = open_store(resolve_tracking_uri(tracking_uri, None, log.info), create=False)
    content = document(client, find_run(client, run, experiment))
    return content


def document(client: MlflowClient, run: Run) -> dict[str, Any]:
    """The summary of a run that was found."""
    from topotrain.tracking.search import artifact_json, local_artifact, metric_history

    tags, params, metrics = run.data.tags, run.data.params, run.data.metrics
    checkpoint = tags.get(TAG_BEST_CHECKPOINT)
    epochs = len(metric_history(client, run.info.run_id, VAL_LOSS))
    seconds = metric_history(client, run.info.run_id, EPOCH_SECONDS)
    warnings = [] if checkpoint else ["no checkpoint yet"]
    if run.info.status == "RUNNING":
        warnings.append("run in progress")
    return {
        "run_id": run.info.run_id,
        "run_name": run.info.run_name,
        "status": run.info.status,
        "best_val_loss": metrics.get(BEST_VAL_LOSS),
        "best_epoch": int(tags[TAG_BEST_EPOCH]) if TAG_BEST_EPOCH in tags else None,
        "best_checkpoint": {
            "uri": f"runs:/{run.info.run_id}/{checkpoint}",
            "local_path": local_artifact(run, checkpoint),
        }
        if checkpoint
        else None,
        "selection_primary_metric": params.get("selection.primary_metric"),
        "best_selection_metric": metrics.get(BEST_SELECTION_METRIC),
        "top_checkpoints": _top_checkpoints(client, run),
        "schema": artifact_json(client, run.info.run_id, SCHEMA_ARTIFACT),
        "config": _nested(params),
        "progress": {
            "epochs_completed": epochs,
            "epochs_total": int(params["trainer.num_epochs"]) if "trainer.num_epochs" in params else None,
            "average_epoch_seconds": sum(seconds.values()) / len(seconds) if seconds else None,
        },
        "latest_metrics": metrics,
        "dataset_coverage": artifact_json(client, run.info.run_id, COVERAGE_ARTIFACT),
        "warnings": warnings,
    }


def _top_checkpoints(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    from topotrain.tracking.search import artifact_json, model_versions

    kept = artifact_json(client, run.info.run_id, f"{CHECKPOINT_DIR}/{KEPT_INDEX}") or []
    versions = {version.tags.get("epoch"): version for version in model_versions(client, run.info.run_id)}
    rows = []
    for one in kept:
        version = versions.get(str(one["epoch"]))
        rows.append(
            {
                "rank": one["rank"],
                "epoch": one["epoch"],
                **{name: one[name] for name in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC)},
                "checkpoint": f"runs:/{run.info.run_id}/{CHECKPOINT_DIR}/{one['file']}",
                "model_version": f"models:/{version.name}/{version.version}" if version else None,
            }
        )
    return rows


def _nested(params: dict[str, str]) -> dict[str, Any]:
    """Dotted parameters as sections; the schema's and the data's are beside the configuration's."""
    sections: dict[str, Any] = {}
    for key, value in sorted(params.items()):
        section, separator, rest = key.partition(".")
        if separator:
            sections.setdefault(section, {})[rest] = value
    return sections
