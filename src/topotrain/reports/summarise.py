"""One run as one JSON document, asked of the tracking server. ``docs/summary.schema.json`` describes it."""

from __future__ import annotations

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
from topotrain.reports.run_state import config_of, drift_of, plain, run_state
from topotrain.text import whole

if TYPE_CHECKING:
    from topotrain.tracking.records import RunRecord
    from topotrain.tracking.store import Store

RECENT_EPOCHS = 10


def summarise(run: str, *, experiment: str | None = None, tracking_uri: str | None = None) -> dict[str, Any]:
    """Summarise one run.

    Args:
        run: id, unique prefix, name, or ``latest``.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: the store can't be used, or the run is not there.
    """
    from topotrain.tracking.store import find_store

    store = find_store(tracking_uri)
    return document(store, store.runs.find(run, experiment))


def document(store: Store, run: RunRecord) -> dict[str, Any]:
    """The summary of a run that was found."""
    from topotrain.tracking.heartbeat import is_alive

    params = run.params
    history = store.runs.history(run)
    config = config_of(store, run)
    coverage = store.artifacts.json(run.run_id, COVERAGE_ARTIFACT)
    state = run_state(store, run, history, config, alive=is_alive(run))
    more = {
        "top_checkpoints": _top_checkpoints(store, run),
        "recent_metrics": [{"epoch": epoch, **history[epoch]} for epoch in list(history)[-RECENT_EPOCHS:]],
        "schema": store.artifacts.json(run.run_id, SCHEMA_ARTIFACT),
        "config": config,
        "data": {
            "num_train": whole(params.get("data.num_train")),
            "num_val": whole(params.get("data.num_val")),
            "digest": params.get("data.digest"),
        },
        "num_parameters": whole(params.get("model.num_parameters")),
        "dataset_coverage": coverage,
        "lineage": _lineage(store, run),
    }
    warnings = [*state.pop("warnings"), *_coverage_warnings(coverage)]
    return plain({**state, **more, "warnings": warnings})  # type: ignore[no-any-return]


def _top_checkpoints(store: Store, run: RunRecord) -> list[dict[str, Any]]:
    kept = store.artifacts.json(run.run_id, f"{CHECKPOINT_DIR}/{KEPT_INDEX}") or []
    versions = {version.epoch: version for version in store.versions.of_runs([run.run_id])}
    rows = []
    for one in kept:
        version = versions.get(one["epoch"])
        rows.append(
            {
                "rank": one["rank"],
                "epoch": one["epoch"],
                **{name: one.get(name) for name in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC)},
                "checkpoint": f"runs:/{run.run_id}/{CHECKPOINT_DIR}/{one['file']}",
                "model_version": version.uri if version else None,
                "aliases": list(version.aliases) if version else [],
            }
        )
    return rows


def _lineage(store: Store, run: RunRecord) -> dict[str, Any]:
    """Which run this one goes on from or is part of, and which go on from it or are part of it."""
    tags = run.tags
    return {
        "resumed_from": tags.get(TAG_RESUMED_FROM),
        "resumed_checkpoint": tags.get(TAG_RESUMED_CHECKPOINT),
        "continued_by": tags.get(TAG_CONTINUED_BY),
        "param_drift": drift_of(run),
        "parent_run_id": run.parent_run_id,
        "children": [
            {"run_id": child.run_id, "run_name": child.name, "status": child.status}
            for child in store.runs.children(run.run_id)
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
