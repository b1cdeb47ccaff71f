"""Going on with a run: from its last checkpoint in place, from an earlier one as a new run."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.config import LoadedConfig, load_config
from topotrain.data.prepare import prepare_data
from topotrain.errors import DataError, TrackingError
from topotrain.fields import (
    CHECKPOINT_DIR,
    CONFIG_ARTIFACT,
    KEPT_INDEX,
    LAST_CHECKPOINT,
    TAG_COMMAND,
    TAG_CONTINUED_BY,
    TAG_RESUMED_CHECKPOINT,
    TAG_RESUMED_FROM,
    VAL_LOSS,
)
from topotrain.invocation import serving_parent
from topotrain.model.checkpoint import read_checkpoint
from topotrain.progress import track
from topotrain.signals import interruptible
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.runs import LATEST, artifact_json, artifact_names, fetch_artifact, find_run, recorded_steps
from topotrain.tracking.store import Client, Run, experiment_name, open_store, resolve_tracking_uri
from topotrain.training.continuation import Continuation, check_same, drift_of
from topotrain.training.network_shape import check_network
from topotrain.training.selection import Kept, Selection
from topotrain.training.training_run import Limits, TrainingRun, TrainResult

log = logging.getLogger("topotrain")
RANKED = ("best", "second_best", "third_best")
LAST = "last"


@dataclass(frozen=True)
class AlreadyComplete:
    """A run that is complete.

    Attributes:
        run_id: the run.
        run_name: its name.
        epochs: how many it trained.
    """

    run_id: str
    run_name: str
    epochs: int


def resume(
    run: str | None = None,
    *,
    checkpoint: str = LAST,
    overrides: Sequence[str] = (),
    run_name: str | None = None,
    force: bool = False,
    experiment: str | None = None,
    tracking_uri: str | None = None,
) -> TrainResult | AlreadyComplete:
    """Go on with a run, with the settings it was made with unless overridden.

    From its last checkpoint the run itself goes on; from an earlier one, and under ``mlflow run`` (which has made a
    run already), a new run does, which holds the history up to there too.

    Args:
        run: id, unique prefix, name or ``latest``; by default the run that ``mlflow run --run-id`` goes on with,
            else the latest.
        checkpoint: ``last``, ``best``, ``second_best``, ``third_best``, the name of a checkpoint of the run, or the
            path of a file.
        overrides: ``dotted.key=value``; these win over what the checkpoint stored.
        run_name: of a new run.
        force: go on even if somebody seems to work on the run still.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.

    Raises:
        TrackingError: no such run or checkpoint, or the run is alive.
        SchemaError: the graphs have other features than the checkpoint's.
        DataError: the graphs or labels are others.
        ConfigError: an override is wrong, or changes the network's shape.
        InterruptedRunError: SIGINT or SIGTERM; the run is closed as KILLED.
    """
    uri = resolve_tracking_uri(tracking_uri, None, log.info)
    client = open_store(uri, create=False)
    adopted = os.environ.get("MLFLOW_RUN_ID")
    original = find_run(client, run or _begun(client, adopted) or LATEST, experiment)
    _check_can_go_on(original, force=force)
    with interruptible(), tempfile.TemporaryDirectory(prefix="topotrain-resume-") as folder:
        content = _fetch(client, original, checkpoint, Path(folder))
        loaded = _recipe(client, original, overrides)
        state = Selection(loaded.config)
        state.load_state_dict(content["selection"])
        check_network(content, loaded.config)
        reached = max(state.history, default=-1)
        recorded = max(recorded_steps(client, original.info.run_id, [VAL_LOSS])[VAL_LOSS], default=-1)
        if original.info.status == "FINISHED" and reached >= recorded and not state.has_epochs_left:
            return AlreadyComplete(original.info.run_id, original.info.run_name, len(state.history))
        data = prepare_data(loaded.config, track)
        check_same(content, data, loaded.config)
        _fetch_kept(client, original, state.kept, Path(folder))
        same_run = adopted in (None, original.info.run_id) and reached >= recorded
        continuation = Continuation(content, Path(folder), drift_of(loaded.config, content, overrides), same_run)
        if same_run:  # reading the data took a while: somebody else may have gone on with the run since
            _check_can_go_on(find_run(client, original.info.run_id), force=force)
            recorder = Recorder.reopen(client, uri, original.info.run_id)
        else:
            recorder = _open_new(client, uri, original, loaded, run_name, _artifact_name(client, original, checkpoint))
        return _training(loaded, recorder, continuation).execute(data)


def _training(loaded: LoadedConfig, recorder: Recorder, continuation: Continuation) -> TrainingRun:
    limits = Limits(**continuation.content.get("limits", {}))
    alone = serving_parent() is None  # a batch gives the alias to its best child
    return TrainingRun(loaded, recorder, limits, continuation=continuation, take_alias=alone)


def _begun(client: Client, adopted: str | None) -> str | None:
    """The run of MLFLOW_RUN_ID, if it is one that was recorded before: ``mlflow run --run-id`` goes on with it."""
    if adopted and TAG_COMMAND in find_run(client, adopted).data.tags:
        return adopted
    return None


def _check_can_go_on(run: Run, *, force: bool) -> None:
    command = run.data.tags.get(TAG_COMMAND)
    if command not in ("run", "resume"):
        raise TrackingError(
            f"run {run.info.run_id} ({run.info.run_name}) is of the command {command!r}",
            "a training run",
            "see: topotrain leaderboard",
        )
    if is_alive(run) and not force:
        raise TrackingError(
            f"run {run.info.run_id} ({run.info.run_name}) is still being trained",
            "a run that ended or was cut off",
            "wait for it or stop it, or give --force if nobody works on it",
        )


def _artifact_name(client: Client, run: Run, checkpoint: str) -> str:
    """``best`` and the like to a file name below ``checkpoints/``; another name stays."""
    if checkpoint == LAST:
        return LAST_CHECKPOINT
    if checkpoint in RANKED:
        kept = artifact_json(client, run.info.run_id, f"{CHECKPOINT_DIR}/{KEPT_INDEX}") or []
        rank = RANKED.index(checkpoint)
        if rank >= len(kept):
            raise TrackingError(
                f"run {run.info.run_id} has kept {len(kept)} checkpoints, so there is no {checkpoint}",
                "last, best, or the name of a checkpoint",
            )
        return str(kept[rank]["file"])
    return checkpoint.removeprefix(f"runs:/{run.info.run_id}/").removeprefix(f"{CHECKPOINT_DIR}/")


def _fetch(client: Client, run: Run, checkpoint: str, folder: Path) -> dict[str, Any]:
    """Put the checkpoint into a folder as ``last.ckpt``, and read it."""
    name = _artifact_name(client, run, checkpoint)
    present = artifact_names(client, run.info.run_id, CHECKPOINT_DIR)
    target = folder / LAST_CHECKPOINT
    if name in present:
        _fetch_to(client, run, name, target)
    elif Path(checkpoint).is_file():
        shutil.copyfile(checkpoint, target)
    elif not any(entry.endswith(".ckpt") for entry in present):
        raise TrackingError(
            f"run {run.info.run_id} ({run.info.run_name}) has no checkpoint yet",
            "a run that completed an epoch",
            "train it anew with: topotrain run",
        )
    else:
        raise TrackingError(
            f"run {run.info.run_id} has no checkpoint {checkpoint!r}",
            f"last, best, second_best, third_best, a file, or one of {', '.join(sorted(present - {KEPT_INDEX}))}",
        )
    try:
        content = read_checkpoint(target)
    except DataError as error:
        raise DataError(
            f"checkpoint {checkpoint} of run {run.info.run_id}: {error.what.partition(': ')[2]}",
            "a checkpoint that can be read",
            "go on from another with: --checkpoint best",
        ) from None
    owner = content.get("run_id")
    if name not in present and owner not in (None, run.info.run_id, run.data.tags.get(TAG_RESUMED_FROM)):
        raise TrackingError(
            f"{checkpoint} is a checkpoint of run {owner}, not of {run.info.run_id}",
            "one of the run's own",
            f"go on with that run, or begin a new one with: topotrain run --resume-from {checkpoint}",
        )
    needed = {"selection", "config", "data_digest"}
    if not needed <= set(content):
        raise DataError(
            f"checkpoint {checkpoint} holds no {', '.join(sorted(needed - set(content)))}",
            "a checkpoint of a topotrain run",
            "begin a new run from its weights with: topotrain run --resume-from",
        )
    return content


def _fetch_kept(client: Client, run: Run, kept: Sequence[Kept], folder: Path) -> None:
    present = artifact_names(client, run.info.run_id, CHECKPOINT_DIR)
    for one in kept:
        if one.file_name in present:
            _fetch_to(client, run, one.file_name, folder / one.file_name)


def _fetch_to(client: Client, run: Run, name: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        fetch_artifact(client, run.info.run_id, f"{CHECKPOINT_DIR}/{name}", Path(aside)).replace(target)


def _recipe(client: Client, run: Run, overrides: Sequence[str]) -> LoadedConfig:
    """The run's own configuration, overridden."""
    with tempfile.TemporaryDirectory() as folder:
        path = fetch_artifact(client, run.info.run_id, CONFIG_ARTIFACT, Path(folder))
        return load_config(path, overrides)


def _open_new(
    client: Client, uri: str, original: Run, loaded: LoadedConfig, run_name: str | None, checkpoint: str
) -> Recorder:
    """The run that goes on for another: that of ``mlflow run``, else one beside the original."""
    if os.environ.get("MLFLOW_RUN_ID") == original.info.run_id:
        del os.environ["MLFLOW_RUN_ID"]  # mlflow run --run-id: the original is no run to adopt
    lineage = {TAG_RESUMED_FROM: original.info.run_id, TAG_RESUMED_CHECKPOINT: checkpoint}
    recorder = Recorder.open(
        uri,
        experiment_name(client, original.info.experiment_id),
        command="resume",
        run_name=run_name or f"{original.info.run_name}_continued",
        tags={**loaded.config.mlflow.tags, **provenance_tags(), **lineage},
        parent_run_id=original.info.run_id,
    )
    client.set_tag(original.info.run_id, TAG_CONTINUED_BY, recorder.run_id)
    log.info("run %s goes on for run %s", recorder.run_id, original.info.run_id)
    return recorder
