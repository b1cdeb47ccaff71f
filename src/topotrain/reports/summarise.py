"""One run as one JSON document, asked of the tracking server. ``docs/summary.schema.json`` describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from topotrain.fields import (
    CHECKPOINT_DIR,
    COVERAGE_ARTIFACT,
    SCHEMA_ARTIFACT,
    SELECTION_METRIC,
    TAG_CONTINUED_BY,
    TAG_RESUMED_CHECKPOINT,
    TAG_RESUMED_FROM,
    VAL_LOSS,
    VAL_SPEARMAN,
)
from topotrain.reading.numbers import whole
from topotrain.reports.run_state import config_of, drift_of, plain, run_state

if TYPE_CHECKING:
    from topotrain.tracking.records import RunRecord
    from topotrain.tracking.store import Store

RECENT_EPOCHS = 10


class Coverage(BaseModel):
    """Of one data set; what else a run recorded of it is shown as it is."""

    model_config = ConfigDict(extra="allow", strict=True)

    total: int
    usable: int


COVERAGE = TypeAdapter(dict[str, Coverage])


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
    coverage = coverage_of(store.artifacts.json(run.run_id, COVERAGE_ARTIFACT))
    schema = store.artifacts.json(run.run_id, SCHEMA_ARTIFACT)
    state = run_state(store, run, history, config, alive=is_alive(run))
    more = {
        "top_checkpoints": _top_checkpoints(store, run),
        "recent_metrics": [{"epoch": epoch, **history[epoch]} for epoch in list(history)[-RECENT_EPOCHS:]],
        "schema": schema if isinstance(schema, dict) else None,
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
    from topotrain.tracking.kept import kept_checkpoints

    kept = kept_checkpoints(store.artifacts, run.run_id)
    versions = {version.epoch: version for version in store.versions.of_runs([run.run_id])}
    rows = []
    for one in kept:
        version = versions.get(one.epoch)
        rows.append(
            {
                "rank": one.rank,
                "epoch": one.epoch,
                **{name: one.metrics.get(name) for name in (VAL_LOSS, VAL_SPEARMAN, SELECTION_METRIC)},
                "checkpoint": f"runs:/{run.run_id}/{CHECKPOINT_DIR}/{one.file}",
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


def coverage_of(content: Any) -> dict[str, Any] | None:
    """How many labels have a graph, by data set; ``None`` where the artifact says something else."""
    try:
        parts = COVERAGE.validate_python(content)
    except ValidationError:
        return None
    return {name: part.model_dump() for name, part in parts.items()}


def _coverage_warnings(coverage: Mapping[str, Any] | None) -> list[str]:
    """One for each data set with labels that no graph could be read for."""
    return [
        f"{part['total'] - part['usable']} of {part['total']} {name} labels have no usable graph"
        for name, part in (coverage or {}).items()
        if part["usable"] < part["total"]
    ]
