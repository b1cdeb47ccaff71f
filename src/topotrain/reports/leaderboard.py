"""Runs side by side, ranked by each run's primary metric."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, overload

from topotrain.credentials import mask_credentials
from topotrain.fields import (
    BEST_OF,
    DOCKQ_COLUMN,
    LABEL_PARAMETER,
    MODULE_KINDS,
    TAG_SCHEMA_DIGEST,
    TAG_TRIAL,
    VAL_LOSS,
    VAL_RANKING_LOSS,
    VAL_SPEARMAN,
    VALIDATION_PARAMETER,
)
from topotrain.progress import track
from topotrain.reading.numbers import whole
from topotrain.reports.run_state import plain

if TYPE_CHECKING:
    import pandas as pd

    from topotrain.tracking.records import RunRecord, VersionRecord
    from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")

LIMIT = 20
DIGEST_CHARACTERS = 12
SHOWN_METRICS = (VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS)
MODULES = tuple(f"{kind}_module" for kind in MODULE_KINDS)
COLUMNS = (
    *("rank", "run_id", "run_name", "status", "alive", "primary_metric", "primary_value"),
    *("validation_data", "validation_graphs", "validation_digest", "trial"),
    *(VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS, "best_epoch", "epochs", *MODULES, "edge_dim", "node_dim"),
    *("schema_digest", "model_version", "aliases", "started", "age_seconds"),
)
Row = dict[str, Any]


@overload
def leaderboard(
    *,
    limit: int | None = ...,
    experiment: str | None = ...,
    trials: bool = ...,
    tracking_uri: str | None = ...,
    as_frame: Literal[False] = ...,
) -> list[Row]: ...


@overload
def leaderboard(
    *,
    limit: int | None = ...,
    experiment: str | None = ...,
    trials: bool = ...,
    tracking_uri: str | None = ...,
    as_frame: Literal[True],
) -> pd.DataFrame: ...


def leaderboard(
    *,
    limit: int | None = LIMIT,
    experiment: str | None = None,
    trials: bool = False,
    tracking_uri: str | None = None,
    as_frame: bool = False,
) -> list[Row] | pd.DataFrame:
    """Training runs, best first; those of other primary metrics or validation data are ranked apart, group by group.

    Validation data are the same where decoys and labels are, whatever the features. Metrics are those of a run's best
    epoch. Runs without one yet come last in their group, without a rank. An ensemble stands among them where it was
    judged on their validation data.

    Args:
        limit: how many of each group; ``None`` for all.
        experiment: look in this experiment only.
        trials: whether runs that were cut short (``fast_dev_run``, limits) are among them.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        as_frame: whether to return a pandas table, one row for each run, instead of a list.

    Raises:
        TrackingError: the store can't be used, or the experiment is not there.
    """
    from topotrain.tracking.store import find_store

    store = find_store(tracking_uri)
    rows: list[Row] = []
    for primary, validation in _groups(store, experiment, trials):
        runs = _group(store, experiment, primary, validation, limit, trials)
        qualities = sorted({run.params.get(LABEL_PARAMETER, DOCKQ_COLUMN) for run in runs})
        if len(qualities) > 1:
            log.warning("runs that learned %s are ranked together, whose errors differ in kind", ", ".join(qualities))
        found = store.versions.of_runs([run.run_id for run in runs])
        versions = {(version.run_id, version.epoch): version for version in found}
        numbered = track(list(enumerate(runs, start=1)), len(runs), "reading runs")
        rows += [_row(store, run, primary, number, versions) for number, run in numbered]
    if as_frame:
        import pandas as pd

        return pd.DataFrame(rows, columns=list(COLUMNS))
    return rows


def _groups(store: Store, experiment: str | None, trials: bool) -> Iterator[tuple[str | None, str | None]]:
    """Primary metrics, with the data that each was measured on."""
    for primary in BEST_OF:
        for validation in store.runs.validated_on(primary, experiment, trials=trials):
            yield primary, validation
    yield None, None


def _group(
    store: Store, experiment: str | None, primary: str | None, validation: str | None, limit: int | None, trials: bool
) -> list[RunRecord]:
    """The best runs of one primary metric on the same data; ``None`` stands for runs that recorded none."""
    # One more than is shown tells whether there are more.
    most = None if limit is None else limit + 1
    runs = store.runs.best_first(primary, validation, experiment, most, trials=trials)
    if limit is not None and len(runs) > limit:
        log.info("there are more runs%s: --limit shows more", f" ranked by {primary}" if primary else "")
    return runs[:limit]


def _row(
    store: Store,
    run: RunRecord,
    primary: str | None,
    number: int,
    versions: dict[tuple[str | None, int | None], VersionRecord],
) -> Row:
    from topotrain.tracking.heartbeat import is_alive
    from topotrain.tracking.runs import ENSEMBLE

    params = run.params
    history = store.runs.history(run, SHOWN_METRICS)
    best = history.get(run.best_epoch, {}) if run.best_epoch is not None else {}
    if run.command == ENSEMBLE:  # which has no epochs
        best, history = dict(run.metrics), {}
    value = run.metrics.get(BEST_OF[primary]) if primary else None
    version = versions.get((run.run_id, run.best_epoch))
    digest = run.tags.get(TAG_SCHEMA_DIGEST) or params.get("schema.digest")
    row = plain(
        {
            "rank": number,
            "run_id": run.run_id,
            "run_name": mask_credentials(run.name),
            "status": run.status,
            "alive": is_alive(run),
            "primary_metric": primary,
            "primary_value": value,
            "validation_data": _data_name(params.get("paths.val_labels")),
            "validation_graphs": whole(params.get("data.num_val")),
            "validation_digest": (params.get(VALIDATION_PARAMETER) or "")[:DIGEST_CHARACTERS] or None,
            "trial": TAG_TRIAL in run.tags,
            **{name: best.get(name) for name in (VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS)},
            "best_epoch": run.best_epoch,
            "epochs": len(history),
            **{f"{kind}_module": params.get(f"schema.{kind}.module") for kind in MODULE_KINDS},
            "edge_dim": whole(params.get("schema.edge.dim")),
            "node_dim": whole(params.get("schema.node.dim")),
            "schema_digest": digest[:DIGEST_CHARACTERS] if digest else None,
            "model_version": version.uri if version else None,
            "aliases": list(version.aliases) if version else [],
            "started": run.started.isoformat(timespec="seconds"),
            "age_seconds": round((datetime.now(UTC) - run.started).total_seconds()),
        }
    )
    if row["primary_value"] is None:
        row["rank"] = None
    return row  # type: ignore[no-any-return]


def _data_name(labels: str | None) -> str | None:
    """Label files are often called alike: the last folder belongs to the name."""
    return None if labels is None else mask_credentials("/".join(PurePath(labels).parts[-2:]))
