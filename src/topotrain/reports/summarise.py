"""One run as one JSON document, asked of the tracking server. ``docs/summary.schema.json`` describes it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from topotrain.fields import (
    CHECKPOINT_DIR,
    COVERAGE_ARTIFACT,
    KEPT_INDEX,
    SCHEMA_ARTIFACT,
    SELECTION_METRIC,
    TAG_CONTINUED_BY,
    TAG_RESUMED_CHECKPOINT,
    TAG_RESUMED_FROM,
    VAL_LOSS,
    VAL_SPEARMAN,
)
from topotrain.reports.run_state import config_of, drift_of, plain, run_state, whole

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

log = logging.getLogger("topotrain")

RECENT_EPOCHS = 10
PARENT_TAG = "mlflow.parentRunId"


def summarise(run: str, *, experiment: str | None = None, tracking_uri: str | None = None) -> dict[str, Any]:
    """Summarise one run.

    Args:
        run: id, unique prefix, name, or ``latest``.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: the store can't be used, or the run is not there.
    """
    from topotrain.tracking.runs import find_run
    from topotrain.tracking.store import asking, open_store, resolve_tracking_uri

    uri = resolve_tracking_uri(tracking_uri, None, log.info)
    client = open_store(uri, create=False)
    with asking(uri):
        return document(client, find_run(client, run, experiment))


def document(client: MlflowClient, run: Run) -> dict[str, Any]:
    """The summary of a run that was found."""
    from topotrain.tracking.heartbeat import is_alive
    from topotrain.tracking.runs import artifact_json, epoch_history

    run_id, params = run.info.run_id, run.data.params
    history = epoch_history(client, run)
    config = config_of(client, run)
    coverage = artifact_json(client, run_id, COVERAGE_ARTIFACT)
    state = run_state(run, history, config, alive=is_alive(run))
    more = {
        "top_checkpoints": _top_checkpoints(client, run),
        "recent_metrics": [{"epoch": epoch, **history[epoch]} for epoch in list(history)[-RECENT_EPOCHS:]],
        "schema": artifact_json(client, run_id, SCHEMA_ARTIFACT),
        "config": config,
        "data": {
            "num_train": whole(params.get("data.num_train")),
            "num_val": whole(params.get("data.num_val")),
            "digest": params.get("data.digest"),
        },
        "num_parameters": whole(params.get("model.num_parameters")),
        "dataset_coverage": coverage,
        "lineage": _lineage(client, run),
    }
    warnings = [*state.pop("warnings"), *_coverage_warnings(coverage)]
    return plain({**state, **more, "warnings": warnings})  # type: ignore[no-any-return]


def _top_checkpoints(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    from topotrain.tracking.runs import artifact_json, model_versions

    kept = artifact_json(client, run.info.run_id, f"{CHECKPOINT_DIR}/{KEPT_INDEX}") or []
    versions = {version.epoch: version for version in model_versions(client, [run.info.run_id])}
    rows = []
    for one in kept:
        version = versions.get(one["epoch"])
        rows.append(
            {
                "rank": one["rank"],
                "epoch": one["epoch"],
                **{name: one.get(name) for name in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC)},
                "checkpoint": f"runs:/{run.info.run_id}/{CHECKPOINT_DIR}/{one['file']}",
                "model_version": version.uri if version else None,
                "aliases": list(version.aliases) if version else [],
            }
        )
    return rows


def _lineage(client: MlflowClient, run: Run) -> dict[str, Any]:
    """Which run this one goes on from or is part of, and which go on from it or are part of it."""
    from topotrain.tracking.runs import child_runs

    tags = run.data.tags
    return {
        "resumed_from": tags.get(TAG_RESUMED_FROM),
        "resumed_checkpoint": tags.get(TAG_RESUMED_CHECKPOINT),
        "continued_by": tags.get(TAG_CONTINUED_BY),
        "param_drift": drift_of(run),
        "parent_run_id": tags.get(PARENT_TAG),
        "children": [
            {"run_id": child.info.run_id, "run_name": child.info.run_name, "status": child.info.status}
            for child in child_runs(client, run)
        ],
    }


def _coverage_warnings(coverage: Any) -> list[str]:
    """One for each data set with labels that no graph could be read for."""
    if not isinstance(coverage, Mapping):
        return []
    return [
        f"{part['total'] - part['usable']} of {part['total']} {name} labels have no usable graph"
        for name, part in coverage.items()
        if part["usable"] < part["total"]
    ]
