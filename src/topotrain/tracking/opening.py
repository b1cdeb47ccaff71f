"""Beginning to record a run: a new one, that of ``mlflow run``, one that no server knows yet, one that goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from uuid import uuid4

from mlflow.exceptions import MlflowException
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from topotrain.credentials import mask_credentials, mask_uri, mask_values, remember_uri
from topotrain.disk import EXPECTED, unwritable
from topotrain.errors import TrackingError
from topotrain.fields import TAG_COMMAND, TAG_STATUS_NOTE
from topotrain.invocation import release_adopted_run, take_adopted_run
from topotrain.text import one_line
from topotrain.tracking.address import local_folder
from topotrain.tracking.entries import Origin
from topotrain.tracking.journal import Journal
from topotrain.tracking.lease import Lease, lock_here
from topotrain.tracking.notes import notes_in
from topotrain.tracking.outages import asking
from topotrain.tracking.recorder import Online, Recorder
from topotrain.tracking.store import Store, settle_mlflow

# What MLflow calls a run that has no name of its own: two words and a number, such as "serious-fox-123".
MLFLOWS_OWN_NAME = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")


def open_run(
    store: Store,
    experiment: str,
    *,
    command: str,
    run_name: str | None = None,
    default_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    notes: str | None = None,
    parent_run_id: str | None = None,
) -> Recorder:
    """Adopt the run that ``mlflow run`` made, or open one.

    Args:
        store: where it is recorded.
        experiment: name; an adopted run stays in the experiment it was made in.
        command: the topotrain command, as the tag that marks our runs.
        run_name: by default ``default_name``; an adopted run that the user named keeps its name.
        default_name: by default ``training_run_`` and the time.
        tags: of the user.
        notes: shown on the run's page.
        parent_run_id: of a run that this one is part of.

    Raises:
        TrackingError: the store can't be used, the run to adopt is not there or another's, or no journal can be kept.
    """
    wanted = _wanted(command, tags, notes, parent_run_id)
    default = default_name or default_run_name()
    run_name = mask_credentials(run_name) if run_name else None
    client, given = store._client, take_adopted_run()
    name: str | None = run_name or default
    if given and not run_name and not MLFLOWS_OWN_NAME.fullmatch(_adoptable(store, given)):
        name = None
    journal = Journal.create()
    held: Lease | None = None
    try:
        if given:
            held = Lease.take(client, given)
            _check_writable(store.runs.get(given).artifact_uri)
            held.take_over()
        else:
            with asking(store.uri):
                held = _made(store, experiment, command, str(name))
        recorder = _recorder(store, journal, held, experiment, name)
        recorder.notes = notes or ""
        recorder.tags({**wanted, **({MLFLOW_RUN_NAME: name} if name else {})})
    except BaseException as error:
        journal.discard()
        if held is not None:
            with suppress(MlflowException):
                client.set_terminated(held.run_id, status="FAILED")
            held.release()
        if isinstance(error, TrackingError) or not isinstance(error, Exception):
            raise
        raise _not_recordable(given, error) from None
    return recorder


def open_offline(
    uri: str,
    experiment: str,
    *,
    command: str,
    run_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    notes: str | None = None,
    parent_run_id: str | None = None,
) -> Recorder:
    """Begin a run that no server knows: its journal holds everything until it is delivered.

    Args:
        uri: of the store that it is to go to.
        experiment: name.
        command: the topotrain command, as the tag that marks our runs.
        run_name: by default ``training_run_`` and the time.
        tags: of the user.
        notes: shown on the run's page.
        parent_run_id: of a run that this one is part of.

    Raises:
        JournalError: no journal can be kept.
    """
    settle_mlflow()
    remember_uri(uri)
    name = mask_credentials(run_name) if run_name else default_run_name()
    wanted = {**resolve_tags(), **_wanted(command, tags, notes, parent_run_id), MLFLOW_RUN_NAME: name}
    journal = Journal.create()
    origin = Origin(
        run_id=uuid4().hex,
        offline=True,
        writer=Lease.new_writer(),
        uri=mask_uri(uri),
        experiment=experiment,
        run_name=name,
        tags=mask_values(wanted, names=True),
        started=int(time.time() * 1000),
    )
    journal.begin(origin)
    journal.lock = lock_here(origin.run_id)
    recorder = Recorder(journal, origin, None)
    recorder.notes = notes or ""
    return recorder


def hold_run(store: Store, run_id: str, *, force: bool = False) -> Lease:
    """Become the only process that may record a run, before what it holds is looked at.

    Args:
        store: that it is on.
        run_id: the run.
        force: even if another process seems to record it.

    Raises:
        TrackingError: another process records it.
        OutageError: the store does not answer.
    """
    with asking(store.uri):
        return Lease.take(store._client, run_id, force=force)


def reopen_run(store: Store, lease: Lease, tags: Mapping[str, str] | None = None) -> Recorder:
    """Go on recording a run that ended or was cut off.

    Args:
        store: where it is recorded.
        lease: of the run; it is the recorder's from now on.
        tags: to set.

    Raises:
        TrackingError: the store refuses, or no journal can be kept.
    """
    run_id = lease.run_id
    release_adopted_run(run_id)
    client, journal = store._client, Journal.create()
    try:
        run = store.runs.get(run_id)
        _check_writable(run.artifact_uri)
        lease.take_over()
        if TAG_STATUS_NOTE in run.tags:
            client.delete_tag(run_id, TAG_STATUS_NOTE)
        client.update_run(run_id, status="RUNNING")
        recorder = _recorder(store, journal, lease, store.runs.experiment_name(run.experiment_id), run.name)
        recorder.notes = notes_in(run.tags.get(MLFLOW_RUN_NOTE, ""))
        recorder.tags(tags or {})
    except MlflowException as error:
        journal.discard()
        raise _not_recordable(run_id, error) from None
    except BaseException:
        journal.discard()
        raise
    return recorder


def default_run_name() -> str:
    """``training_run_YYYY-MM-DD_HH-MM-SS``, local time."""
    return datetime.now().strftime("training_run_%Y-%m-%d_%H-%M-%S")


def _wanted(
    command: str, tags: Mapping[str, str] | None, notes: str | None, parent_run_id: str | None
) -> dict[str, str]:
    wanted = {**(tags or {}), TAG_COMMAND: command}
    if notes:
        wanted[MLFLOW_RUN_NOTE] = notes
    if parent_run_id:
        wanted[MLFLOW_PARENT_RUN_ID] = parent_run_id
    return wanted


def _made(store: Store, experiment: str, command: str, name: str) -> Lease:
    """The lease of a run that is made for it."""
    writer, home = Lease.new_writer(), store.runs.experiment_id(experiment)
    _check_writable(str(store._client.get_experiment(home).artifact_location))
    own = {**mask_values(resolve_tags(), names=True), MLFLOW_RUN_NAME: name, TAG_COMMAND: command}
    run = store._client.create_run(home, run_name=name, tags={**own, **Lease.tags(writer)})
    return Lease.of_new_run(store._client, run.info.run_id, writer)


def _check_writable(artifacts: str) -> None:
    """See, before a run is begun, that its artifacts can be written, where they go to a folder of this machine.

    Raises:
        TrackingError: they can't.
    """
    folder = local_folder(artifacts)
    fault = unwritable(folder) if folder is not None else None
    if fault:
        raise TrackingError(f"artifacts can't be written to {folder} ({fault})", EXPECTED, "make room there")


def _recorder(store: Store, journal: Journal, lease: Lease, experiment: str, name: str | None) -> Recorder:
    run = store.runs.get(lease.run_id)
    origin = Origin(
        run_id=lease.run_id,
        offline=False,
        writer=lease.writer,
        uri=mask_uri(store.uri),
        experiment=experiment,
        run_name=name or run.name,
        tags={},
        started=int(run.started.timestamp() * 1000),
    )
    journal.begin(origin)
    return Recorder(journal, origin, Online(store, lease, run))


def _adoptable(store: Store, run_id: str) -> str:
    """The name of a run that is there and that no command has recorded yet."""
    run = store.runs.known(run_id)
    if run is None:
        raise TrackingError(
            f"run {run_id} (MLFLOW_RUN_ID) is not on {mask_uri(store.uri)}",
            "the store that mlflow run used",
            "set MLFLOW_TRACKING_URI to an absolute URI, or unset MLFLOW_RUN_ID",
        )
    if run.command is not None:
        raise TrackingError(
            f"run {run_id} (MLFLOW_RUN_ID) was recorded by topotrain already", "a new run", "unset MLFLOW_RUN_ID"
        )
    return run.name


def _not_recordable(run_id: str | None, error: Exception) -> TrackingError:
    run = f"run {run_id}" if run_id else "the run"
    return TrackingError(f"{run} can't be recorded ({one_line(error)})", "a store that can be used")
