"""What the tracking server knows of batches: earlier ones, their children, and what these achieved."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from topotrain.credentials import mask_credentials
from topotrain.errors import TrackingError
from topotrain.fields import (
    BEST_OF,
    BEST_VAL_LOSS,
    CHECKPOINT_DIR,
    LAST_CHECKPOINT,
    TAG_BATCH_JOB,
    TAG_BATCH_JOB_DIGEST,
    TAG_BATCH_MANIFEST,
    TAG_BATCH_NAME,
    TAG_BEST_CHECKPOINT,
    TAG_BEST_EPOCH,
    TAG_COMMAND,
    TAG_RESUMED_FROM,
    TAG_STATUS_NOTE,
    VAL_LOSS,
)
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.runs import (
    artifact_names,
    child_runs,
    experiment_ids,
    metric_history,
    search_runs,
)
from topotrain.tracking.store import Client, Run, asking

COMMAND = "batch"
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Achieved:
    """What a child has achieved so far.

    Attributes:
        epochs: how many it has recorded.
        best_val_loss: of any epoch.
        best_epoch: by its primary metric.
        primary: the primary metric's value there.
        val_loss: that epoch's.
        checkpoint: URI of that epoch's checkpoint.
    """

    epochs: int
    best_val_loss: float | None
    best_epoch: int | None
    primary: float | None
    val_loss: float | None
    checkpoint: str | None


def _asked(call: Callable[Concatenate[Client, P], T]) -> Callable[Concatenate[Client, P], T]:
    """Names what goes wrong while the store is asked; see ``asking``."""

    @functools.wraps(call)
    def ask(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with asking(client.tracking_uri):
            return call(client, *args, **kwargs)

    return ask


@_asked
def find_batch(client: Client, name: str, digest: str, jobs: Mapping[str, str]) -> Run | None:
    """The newest batch of a manifest.

    Args:
        client: of the store.
        name: the manifest's file name without its ending.
        digest: of its jobs; a batch with the same one comes first.
        jobs: digests by job name; a batch of another digest counts where it holds a run of one of these jobs.

    Raises:
        TrackingError: it is still running.
    """
    experiments = experiment_ids(client)
    ours = f"tags.`{TAG_COMMAND}` = '{COMMAND}' and tags.`{{}}` = {{}}"
    found = next(search_runs(client, experiments, ours.format(TAG_BATCH_MANIFEST, f"'{digest}'")), None)
    quote = '"' if "'" in name else "'"
    if found is None and quote not in name:
        for run in search_runs(client, experiments, ours.format(TAG_BATCH_NAME, f"{quote}{name}{quote}")):
            made = {
                (c.data.tags.get(TAG_BATCH_JOB), c.data.tags.get(TAG_BATCH_JOB_DIGEST)) for c in children(client, run)
            }
            if made & set(jobs.items()):
                found = run
                break
    if found is not None and is_alive(found):
        raise TrackingError(
            f"batch {found.info.run_id} ({found.info.run_name}) is still running",
            "one that ended or was cut off",
            "wait for it or stop it",
        )
    return found


@_asked
def children(client: Client, batch: Run) -> list[Run]:
    """Runs of a batch's jobs, the newest first."""
    return [run for run in reversed(child_runs(client, batch)) if TAG_BATCH_JOB in run.data.tags]


@_asked
def earlier_children(client: Client, batch: Run) -> list[Run]:
    """Runs of the jobs of a batch and of those it goes on for, the newest first."""
    found = children(client, batch)
    before = batch.data.tags.get(TAG_RESUMED_FROM)
    return found + (earlier_children(client, client.get_run(before)) if before else [])


@_asked
def get_run(client: Client, run_id: str) -> Run:
    """One run, as the server has it."""
    return client.get_run(run_id)


@_asked
def achieved(client: Client, run: Run, primary_metric: str) -> Achieved:
    """What a run has achieved so far."""
    tags, metrics = run.data.tags, run.data.metrics
    losses = metric_history(client, run.info.run_id, VAL_LOSS)
    best = int(tags[TAG_BEST_EPOCH]) if TAG_BEST_EPOCH in tags else None
    checkpoint = tags.get(TAG_BEST_CHECKPOINT)
    return Achieved(
        epochs=len(losses),
        best_val_loss=metrics.get(BEST_VAL_LOSS),
        best_epoch=best,
        primary=metrics.get(BEST_OF[primary_metric]),
        val_loss=losses.get(best) if best is not None else None,
        checkpoint=f"runs:/{run.info.run_id}/{checkpoint}" if checkpoint else None,
    )


@_asked
def can_be_resumed(client: Client, run: Run) -> bool:
    """Whether a run was cut off and left a checkpoint to go on from."""
    if run.info.status not in ("RUNNING", "KILLED") or is_alive(run):
        return False
    return LAST_CHECKPOINT in artifact_names(client, run.info.run_id, CHECKPOINT_DIR)


@_asked
def close_dead(client: Client, run_id: str, note: str) -> None:
    """End a run whose process died without doing so."""
    if client.get_run(run_id).info.status == "RUNNING":
        client.set_tag(run_id, TAG_STATUS_NOTE, mask_credentials(note))
        client.set_terminated(run_id, status="KILLED")


@_asked
def set_tag(client: Client, run_id: str, key: str, value: str) -> None:
    """Set one tag of a run."""
    client.set_tag(run_id, key, value)
