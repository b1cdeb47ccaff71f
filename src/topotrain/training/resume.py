"""Going on with a run: from its last checkpoint in place, from an earlier one as a new run."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topotrain.config import LoadedConfig, TrainConfig, load_config
from topotrain.data.prepare import PreparedData, prepare_data
from topotrain.errors import ConfigError, DataError, TrackingError
from topotrain.fields import (
    CHECKPOINT_DIR,
    CONFIG_ARTIFACT,
    KEPT_INDEX,
    LAST_CHECKPOINT,
    MID_EPOCH_CHECKPOINT,
    TAG_CONTINUED_BY,
    TAG_OFFLINE_ID,
    TAG_RECIPE_DIGEST,
    TAG_RESUMED_CHECKPOINT,
    TAG_RESUMED_FROM,
    VAL_LOSS,
)
from topotrain.invocation import adopted_run, release_adopted_run
from topotrain.messages import lines_shown
from topotrain.model.checkpoint import check_resumable, read_checkpoint
from topotrain.progress import track
from topotrain.scratch import check_scratch, scratch
from topotrain.signals import interruptible
from topotrain.tracking.heartbeat import is_alive
from topotrain.tracking.kept import kept_checkpoints
from topotrain.tracking.opening import hold_run, open_run, reopen_run
from topotrain.tracking.provenance import provenance_tags
from topotrain.tracking.recorder import Recorder
from topotrain.tracking.records import Checkpoint, RunRecord
from topotrain.tracking.runs import LATEST
from topotrain.tracking.store import CONNECT_SECONDS, Store, find_store
from topotrain.tracking.sync import deliver_first
from topotrain.training.continuation import (
    Continuation,
    Recorded,
    check_same,
    drift_of,
    restored_selection,
    why_from_its_beginning,
)
from topotrain.training.crew import dismiss, place_of
from topotrain.training.hardware import check_hardware
from topotrain.training.loop import Limits, limits_of
from topotrain.training.network_shape import check_network
from topotrain.training.ranks import Place, outer_place
from topotrain.training.register import TakeCandidate
from topotrain.training.step_end import checkpoint_name
from topotrain.training.training_run import TrainingRun, TrainResult

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
    take_candidate: TakeCandidate = "if_better",
    experiment: str | None = None,
    tracking_uri: str | None = None,
    progress: bool = True,
) -> TrainResult | AlreadyComplete:
    """Go on with a run, with the settings it was made with unless overridden.

    From its last checkpoint the run itself goes on; from an earlier one, and under ``mlflow run`` (which has made a
    run already), a new run does, which holds the history up to there too.

    Args:
        run: id, unique prefix, name or ``latest``; by default that of ``mlflow run --run-id``, else the latest.
        checkpoint: ``last`` (of the step at which it was stopped, else of its last epoch), ``best``, ``second_best``,
            ``third_best``, a checkpoint's name, or the path of a file.
        overrides: ``dotted.key=value``; these win over what the checkpoint stored.
        run_name: of a new run.
        force: go on even if the run seems alive.
        take_candidate: whether the best version becomes the candidate, as in ``fit``.
        experiment: look in this experiment only.
        tracking_uri: of the store; by default MLFLOW_TRACKING_URI, else ``mlflow.db`` here.
        progress: whether to show lines and bars, as in ``fit``.

    Raises:
        TrackingError: no such run or checkpoint, or the run is alive.
        SchemaError: the graphs have other features than the checkpoint's.
        DataError: the graphs or labels are others.
        ConfigError: an override is wrong, or changes the network's shape.
        InterruptedRunError: SIGINT or SIGTERM; the run is closed as KILLED.
    """
    with lines_shown(progress), interruptible(), scratch("resume") as folder:
        check_scratch()
        store, adopted = find_store(tracking_uri, patience=CONNECT_SECONDS), adopted_run()
        wanted = run or _begun(store, adopted) or LATEST
        deliver_first(store, wanted, force=force)
        original = store.runs.find(wanted, experiment)
        _check_can_go_on(original, force=force)
        # From here on nobody else goes on with it, so that it stays as it is read.
        lease, recorder = hold_run(store, original.run_id, force=force), None
        try:
            prepared = _prepare(
                store, store.runs.get(original.run_id), checkpoint, overrides, adopted, folder, progress
            )
            if isinstance(prepared, AlreadyComplete):
                dismiss(outer_place())
                return prepared
            if prepared.continuation.same_run:
                recorder = reopen_run(store, lease)
            else:
                recorder = _open_new(store, original, prepared, run_name)
        finally:
            if recorder is None or recorder.run_id != original.run_id:
                lease.release()
        return prepared.training(recorder, take_candidate, progress).execute(prepared.data)


@dataclass(frozen=True)
class _Prepared:
    """What a run goes on with."""

    loaded: LoadedConfig
    data: PreparedData
    continuation: Continuation
    checkpoint: str
    limits: Limits
    place: Place | None

    def training(self, recorder: Recorder, take_candidate: TakeCandidate, progress: bool) -> TrainingRun:
        """What goes on."""
        return TrainingRun(
            *(self.loaded, recorder, self.limits),
            continuation=self.continuation,
            take_candidate=take_candidate,
            progress=progress,
            place=self.place,
        )


def _prepare(
    store: Store,
    original: RunRecord,
    checkpoint: str,
    overrides: Sequence[str],
    adopted: str | None,
    folder: Path,
    progress: bool,
) -> _Prepared | AlreadyComplete:
    """Fetch the checkpoints, and hold recipe and data of today against them."""
    present = store.artifacts.names(original, CHECKPOINT_DIR)
    name = _artifact_name(store, original, checkpoint, present)
    content = _fetch(store, original, checkpoint, name, present, folder)
    loaded, place = _recipe(store, original, overrides, folder)
    newest = max(store.runs.values(original.run_id, VAL_LOSS), default=-1)
    if why := why_from_its_beginning(content, loaded.config, place, newest if checkpoint == LAST else -1):
        if checkpoint != LAST:
            raise ConfigError(f"checkpoint {checkpoint} was made within an epoch, and {why}", f"--checkpoint {LAST}")
        log.info("the epoch in which the run was stopped is trained from its beginning: %s", why)
        present_whole = present - {MID_EPOCH_CHECKPOINT}
        name = _artifact_name(store, original, LAST, present_whole)
        content = _fetch(store, original, LAST, name, present_whole, folder)
    state = restored_selection(content, loaded.config)
    check_network(content, loaded.config)
    limits = limits_of(content)
    reached = max(state.history, default=-1)
    complete = original.status == "FINISHED" and reached >= newest and not state.has_epochs_left
    if complete and not _is_to_register(store, original, content, loaded.config):
        return AlreadyComplete(original.run_id, original.name, len(state.history))
    data = _same_data(content, loaded.config, progress)
    others = {kept.file_name for kept in state.kept}
    if checkpoint_name(content) == MID_EPOCH_CHECKPOINT:
        (folder / LAST_CHECKPOINT).rename(folder / MID_EPOCH_CHECKPOINT)
        others.add(LAST_CHECKPOINT)
    for other in others & present:
        _fetch_to(store, original, other, folder / other)
    same_run = adopted in (None, original.run_id) and reached >= newest
    drift = drift_of(loaded.config, content, overrides)
    newest_names = {LAST_CHECKPOINT, checkpoint_name(content)}
    unchanged = present if name in newest_names else present - newest_names
    recorded = Recorded.of(store, original, state, unchanged) if same_run else Recorded()
    continuation = Continuation(content, folder, state, drift, same_run, recorded)
    return _Prepared(loaded, data, continuation, name, limits, place)


def _is_to_register(store: Store, run: RunRecord, content: Mapping[str, Any], config: TrainConfig) -> bool:
    """Whether a complete run registered no versions, as it was asked to, and is asked for them now."""
    before = content["config"].get("mlflow") if isinstance(content["config"], Mapping) else None
    if not isinstance(before, Mapping) or before.get("register") != "none" or config.mlflow.register_ == "none":
        return False
    return not limits_of(content).any and not store.versions.of_runs([run.run_id])


def _same_data(content: Mapping[str, Any], config: TrainConfig, progress: bool) -> PreparedData:
    data = prepare_data(config, track if progress else None)
    check_same(content, data, config)
    return data


def _begun(store: Store, adopted: str | None) -> str | None:
    """The run of MLFLOW_RUN_ID, if it is one that was recorded before: ``mlflow run --run-id`` goes on with it."""
    if adopted and store.runs.find(adopted).command is not None:
        return adopted
    return None


def _check_can_go_on(run: RunRecord, *, force: bool) -> None:
    command = run.command
    if command not in ("run", "resume"):
        raise TrackingError(
            f"run {run.run_id} ({run.name}) is of the command {command!r}",
            "a training run",
            "see: topotrain leaderboard",
        )
    if is_alive(run) and not force:
        raise TrackingError(
            f"run {run.run_id} ({run.name}) is still being trained",
            "a run that ended or was cut off",
            "wait for it or stop it, or give --force if no process works on it",
        )


def _artifact_name(store: Store, run: RunRecord, checkpoint: str, present: set[str]) -> str:
    """``best`` and the like to a file name below ``checkpoints/``; another name stays."""
    if checkpoint == LAST and MID_EPOCH_CHECKPOINT in present:
        return MID_EPOCH_CHECKPOINT
    if checkpoint == LAST:
        epochs = [name for name in present if name.endswith(".ckpt")]
        # A delivery that was cut off may have brought an epoch's checkpoint, and not yet the last one, which equals it.
        return LAST_CHECKPOINT if LAST_CHECKPOINT in present or not epochs else max(epochs)
    if checkpoint in RANKED:
        kept = kept_checkpoints(store.artifacts, run.run_id, listed=present)
        rank = RANKED.index(checkpoint)
        if rank >= len(kept):
            raise TrackingError(
                f"run {run.run_id} has kept {len(kept)} checkpoints, so there is no {checkpoint}",
                "last, best, or the name of a checkpoint",
            )
        return kept[rank].file
    return checkpoint.removeprefix(f"runs:/{run.run_id}/").removeprefix(f"{CHECKPOINT_DIR}/")


def _fetch(store: Store, run: RunRecord, checkpoint: str, name: str, present: set[str], folder: Path) -> dict[str, Any]:
    """Put the checkpoint into a folder as ``last.ckpt``, and read it."""
    target = folder / LAST_CHECKPOINT
    if name in present:
        _fetch_to(store, run, name, target)
    elif Path(checkpoint).is_file():
        try:
            shutil.copyfile(checkpoint, target)
        except OSError as error:
            raise DataError(f"{checkpoint}: can't be read ({error.strerror})", "a checkpoint of the run") from None
    elif not any(entry.endswith(".ckpt") for entry in present):
        if run.best_checkpoint is not None:
            raise TrackingError(
                f"run {run.run_id} ({run.name}) recorded {run.best_checkpoint.path}, but {run.artifact_uri} holds none",
                "the run's artifacts where the store says that they are",
                "bring them there, or give a checkpoint file with --checkpoint",
            )
        raise TrackingError(
            f"run {run.run_id} ({run.name}) has no checkpoint yet",
            "a run that completed an epoch",
            "train it anew with: topotrain run",
        )
    else:
        raise TrackingError(
            f"run {run.run_id} has no checkpoint {checkpoint!r}",
            f"last, best, second_best, third_best, a file, or one of {', '.join(sorted(present - {KEPT_INDEX}))}",
        )
    try:
        content = read_checkpoint(target)
    except DataError as error:
        raise DataError(
            f"checkpoint {checkpoint} of run {run.run_id}: {error.what.partition(': ')[2]}",
            "a checkpoint that can be read",
            "go on from another with: --checkpoint best",
        ) from None
    owner = content.get("run_id")
    known = (None, run.run_id, run.tags.get(TAG_RESUMED_FROM), run.tags.get(TAG_OFFLINE_ID))
    if name not in present and owner not in known:
        raise TrackingError(
            f"{checkpoint} is a checkpoint of run {owner}, not of {run.run_id}",
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
    check_resumable(content, f"checkpoint {checkpoint} of run {run.run_id}")
    return content


def _fetch_to(store: Store, run: RunRecord, name: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        store.artifacts.fetch(Checkpoint(run.run_id, f"{CHECKPOINT_DIR}/{name}"), Path(aside)).replace(target)


def _recipe(store: Store, run: RunRecord, overrides: Sequence[str], work: Path) -> tuple[LoadedConfig, Place | None]:
    """The run's own configuration, overridden, and this process among those that it asks for."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        path = store.artifacts.fetch(Checkpoint(run.run_id, CONFIG_ARTIFACT), Path(folder))
        try:
            loaded = load_config(path, overrides)
        except ConfigError as error:
            what = error.what.replace(str(path), f"runs:/{run.run_id}/{CONFIG_ARTIFACT}")
            raise ConfigError(what, error.expected, error.do) from None
    num_ranks = check_hardware(loaded.config)  # it may be that of another machine
    return loaded, place_of(num_ranks, loaded.config.trainer.num_nodes)


def _open_new(store: Store, original: RunRecord, prepared: _Prepared, run_name: str | None) -> Recorder:
    """The run that goes on for another: that of ``mlflow run``, else one beside the original."""
    release_adopted_run(original.run_id)  # mlflow run --run-id: the original is no run to adopt
    lineage = {TAG_RESUMED_FROM: original.run_id, TAG_RESUMED_CHECKPOINT: prepared.checkpoint}
    if TAG_RECIPE_DIGEST in original.tags and not prepared.continuation.drift:
        lineage[TAG_RECIPE_DIGEST] = original.tags[TAG_RECIPE_DIGEST]
    recorder = open_run(
        store,
        store.runs.experiment_name(original.experiment_id),
        command="resume",
        run_name=run_name or f"{original.name}_continued",
        tags={**prepared.loaded.config.mlflow.tags, **provenance_tags(), **lineage},
        parent_run_id=original.run_id,
    )
    store.runs.set_tag(original.run_id, TAG_CONTINUED_BY, recorder.run_id)
    log.info("run %s goes on for run %s", recorder.run_id, original.run_id)
    return recorder
