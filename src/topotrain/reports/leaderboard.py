"""Runs side by side, ranked by each run's primary metric."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from topotrain.fields import (
    BEST_OF,
    TAG_BEST_EPOCH,
    TAG_SCHEMA_DIGEST,
    VAL_LOSS,
    VAL_RANKING_LOSS,
    VAL_SPEARMAN,
)
from topotrain.progress import track
from topotrain.reports.run_state import plain, whole

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

    from topotrain.tracking.runs import Version

log = logging.getLogger("topotrain")

LIMIT = 20
DIGEST_CHARACTERS = 12
PRIMARY_PARAM = "selection.primary_metric"
SHOWN_METRICS = (VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS)
COLUMNS = (
    *("rank", "run_id", "run_name", "status", "alive", "primary_metric", "primary_value"),
    *(VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS, "best_epoch", "epochs", "edge_module", "edge_dim", "node_dim"),
    *("schema_digest", "model_version", "aliases", "started", "age_seconds"),
)
Row = dict[str, Any]


def leaderboard(
    *, limit: int | None = LIMIT, experiment: str | None = None, tracking_uri: str | None = None
) -> list[Row]:
    """Training runs, best first; runs of different primary metrics are ranked apart, one group after the other.

    Figures are those of a run's best epoch. Runs without one yet come last in their group, without a rank.

    Args:
        limit: how many of each group; ``None`` for all.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: the store can't be used, or the experiment is not there.
    """
    from topotrain.tracking.runs import model_versions
    from topotrain.tracking.store import asking, open_store, resolve_tracking_uri

    uri = resolve_tracking_uri(tracking_uri, None, log.info)
    client = open_store(uri, create=False)
    rows: list[Row] = []
    with asking(uri):
        for primary in (*BEST_OF, None):
            runs = _group(client, experiment, primary, limit)
            found = model_versions(client, [run.info.run_id for run in runs])
            versions = {(version.run_id, version.epoch): version for version in found}
            numbered = track(list(enumerate(runs, start=1)), len(runs), "reading runs")
            rows += [_row(client, run, primary, number, versions) for number, run in numbered]
    return rows


def _group(client: MlflowClient, experiment: str | None, primary: str | None, limit: int | None) -> list[Run]:
    """The best runs of one primary metric, ordered by the server; ``None`` stands for runs that recorded none."""
    from topotrain.tracking.runs import PAGE, training_runs

    condition = f"params.`{PRIMARY_PARAM}` = '{primary}'" if primary else f"params.`{PRIMARY_PARAM}` IS NULL"
    order = [f"metrics.{BEST_OF[primary]} ASC"] if primary else []
    order.append("attributes.start_time ASC")  # as among epochs, ties go to the earlier
    # One more than is shown tells whether there are more.
    page = PAGE if limit is None else limit + 1
    runs = list(islice(training_runs(client, experiment, condition, order, page), None if limit is None else limit + 1))
    if limit is not None and len(runs) > limit:
        log.info("there are more runs%s: --limit shows more", f" ranked by {primary}" if primary else "")
    return runs[:limit]


def _row(
    client: MlflowClient,
    run: Run,
    primary: str | None,
    number: int,
    versions: dict[tuple[str, int | None], Version],
) -> Row:
    from topotrain.tracking.heartbeat import is_alive
    from topotrain.tracking.runs import epoch_history

    params, tags = run.data.params, run.data.tags
    history = epoch_history(client, run, SHOWN_METRICS)
    best_epoch = whole(tags.get(TAG_BEST_EPOCH))
    best = history.get(best_epoch, {}) if best_epoch is not None else {}
    value = run.data.metrics.get(BEST_OF[primary]) if primary else None
    version = versions.get((run.info.run_id, best_epoch))
    digest = tags.get(TAG_SCHEMA_DIGEST) or params.get("schema.digest")
    started = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
    row = plain(
        {
            "rank": number,
            "run_id": run.info.run_id,
            "run_name": run.info.run_name,
            "status": run.info.status,
            "alive": is_alive(run),
            "primary_metric": primary,
            "primary_value": value,
            **{name: best.get(name) for name in (VAL_LOSS, VAL_SPEARMAN, VAL_RANKING_LOSS)},
            "best_epoch": best_epoch,
            "epochs": len(history),
            "edge_module": params.get("schema.edge.module"),
            "edge_dim": whole(params.get("schema.edge.dim")),
            "node_dim": whole(params.get("schema.node.dim")),
            "schema_digest": digest[:DIGEST_CHARACTERS] if digest else None,
            "model_version": version.uri if version else None,
            "aliases": list(version.aliases) if version else [],
            "started": started.isoformat(timespec="seconds"),
            "age_seconds": round((datetime.now(UTC) - started).total_seconds()),
        }
    )
    if row["primary_value"] is None:
        row["rank"] = None
    return row  # type: ignore[no-any-return]
