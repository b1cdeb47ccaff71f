"""What the store knows of batches: earlier ones, their children, and what these achieved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.tracking import MlflowClient

from topotrain.credentials import mask_credentials
from topotrain.errors import TrackingError
from topotrain.fields import (
    BEST_OF,
    BEST_VAL_LOSS,
    CHECKPOINT_DIR,
    LAST_CHECKPOINT,
    MID_EPOCH_CHECKPOINT,
    TAG_BATCH_JOB,
    TAG_BATCH_JOB_DIGEST,
    TAG_BATCH_MANIFEST,
    TAG_BATCH_NAME,
    TAG_PRUNED,
    TAG_RESUMED_FROM,
    TAG_STATUS_NOTE,
    TAG_TUNE_STUDY,
    VAL_LOSS,
)
from topotrain.tracking.artifacts import Artifacts
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.outages import Asker, asks
from topotrain.tracking.records import RunRecord
from topotrain.tracking.runs import Runs

COMMAND = "batch"
TUNE_COMMAND = "tune"


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


class Batches(Asker):
    """The batches of a store.

    Every method raises ``OutageError`` where the store does not answer, ``TrackingError`` where it refuses.

    Args:
        client: of the store.
        runs: of the store.
        artifacts: of the store.
    """

    def __init__(self, client: MlflowClient, runs: Runs, artifacts: Artifacts) -> None:
        super().__init__(client)
        self._runs, self._artifacts = runs, artifacts

    def find(self, name: str, digest: str, jobs: Mapping[str, str]) -> RunRecord | None:
        """The newest batch of a manifest.

        Args:
            name: the manifest's file name without its ending.
            digest: of its jobs; a batch with the same one comes first.
            jobs: digests by job name; a batch of another digest counts where it holds a run of one of these jobs.

        Raises:
            TrackingError: it is still running.
        """
        found = next(self._runs.tagged(TAG_BATCH_MANIFEST, digest, COMMAND), None)
        if found is None:
            named = self._runs.tagged(TAG_BATCH_NAME, name, COMMAND)
            found = next((batch for batch in named if self._made(batch) & set(jobs.items())), None)
        _refuse_alive(found)
        return found

    def find_tuning(self, study: str) -> RunRecord | None:
        """The newest tuning of a study.

        Args:
            study: digest of what decides what is tried.

        Raises:
            TrackingError: it is still running.
        """
        found = next(self._runs.tagged(TAG_TUNE_STUDY, study, TUNE_COMMAND), None)
        _refuse_alive(found)
        return found

    def children(self, batch_id: str) -> list[RunRecord]:
        """Runs of a batch's jobs, the newest first."""
        return [run for run in reversed(self._runs.children(batch_id)) if TAG_BATCH_JOB in run.tags]

    def winners(self, tuning_id: str, digest: str) -> list[RunRecord]:
        """Runs that a tuning, or those that it goes on for, made of a winner, the newest first."""
        runs = self.earlier_children(self._runs.get(tuning_id))
        return [run for run in runs if run.tags.get(TAG_BATCH_JOB_DIGEST) == digest]

    def earlier_children(self, batch: RunRecord) -> list[RunRecord]:
        """Runs of the jobs of a batch and of those it goes on for, the newest first."""
        before = batch.tags.get(TAG_RESUMED_FROM)
        earlier = self.earlier_children(self._runs.get(before)) if before else []
        return self.children(batch.run_id) + earlier

    def achieved(self, run: RunRecord, primary_metric: str) -> Achieved:
        """What a run has achieved so far."""
        losses = self._runs.values(run.run_id, VAL_LOSS)
        best, checkpoint = run.best_epoch, run.best_checkpoint
        return Achieved(
            epochs=len(losses),
            best_val_loss=run.metrics.get(BEST_VAL_LOSS),
            best_epoch=best,
            primary=run.metrics.get(BEST_OF[primary_metric]),
            val_loss=losses.get(best) if best is not None else None,
            checkpoint=checkpoint.uri if checkpoint else None,
        )

    def can_be_resumed(self, run: RunRecord) -> bool:
        """Whether a run was cut off and left a checkpoint to go on from."""
        if run.status not in ("RUNNING", "KILLED") or is_alive(run):
            return False
        return bool({LAST_CHECKPOINT, MID_EPOCH_CHECKPOINT} & self._artifacts.names(run, CHECKPOINT_DIR))

    @asks
    def close_dead(self, run_id: str, note: str) -> None:
        """End a run whose process died without doing so."""
        if self._client.get_run(run_id).info.status == "RUNNING":
            self._client.set_tag(run_id, TAG_STATUS_NOTE, mask_credentials(note))
            self._client.set_terminated(run_id, status="KILLED")

    @asks
    def close_pruned(self, run_id: str, why: str) -> None:
        """End a run that was stopped because its trial is not worth going on with: nothing went wrong with it."""
        run = self._client.get_run(run_id)
        self._client.set_tag(run_id, TAG_PRUNED, why)
        if run.info.status != "FINISHED":
            if TAG_STATUS_NOTE in run.data.tags:
                self._client.delete_tag(run_id, TAG_STATUS_NOTE)
            self._client.set_terminated(run_id, status="FINISHED")

    def _made(self, batch: RunRecord) -> set[tuple[str | None, str | None]]:
        """Jobs, with their digests, of which a batch has runs."""
        return {
            (run.tags.get(TAG_BATCH_JOB), run.tags.get(TAG_BATCH_JOB_DIGEST)) for run in self.children(batch.run_id)
        }


def _refuse_alive(found: RunRecord | None) -> None:
    if found is not None and is_alive(found):
        raise TrackingError(
            f"{found.command} {found.run_id} ({found.name}) is still running",
            "one that ended or was cut off",
            "wait for it or stop it",
        )
