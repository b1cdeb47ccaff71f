"""One run, one recorder: everything a run leaves on the tracking server goes through here."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking.context.registry import resolve_tags
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE
from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH, MAX_TAG_VAL_LENGTH

from topotrain.credentials import mask_credentials, mask_uri, mask_values
from topotrain.errors import TrackingError
from topotrain.fields import CHECKPOINT_DIR, DATASET_DIGEST_LENGTH, TAG_COMMAND, TAG_STATUS_NOTE
from topotrain.files import write_whole
from topotrain.invocation import release_adopted_run, take_adopted_run
from topotrain.text import as_json, one_line
from topotrain.tracking.address import web_address
from topotrain.tracking.delivery import Delivery
from topotrain.tracking.epochs import EpochRecords, points_of, tags_of
from topotrain.tracking.heartbeat import Heartbeat
from topotrain.tracking.logged_models import ModelFiles, NewVersion, RunPoints
from topotrain.tracking.outages import Asker, asking
from topotrain.tracking.store import Store

log = logging.getLogger("topotrain")

Status = Literal["FINISHED", "FAILED", "KILLED"]
MAX_PARAMS_PER_CALL = 100
MAX_TAG_LENGTH: int = MAX_TAG_VAL_LENGTH
# What MLflow calls a run that has no name of its own: two words and a number, such as "serious-fox-123".
MLFLOWS_OWN_NAME = re.compile(r"[a-z]+-[a-z]+-\d{1,4}")


@dataclass(frozen=True)
class DatasetFacts:
    """One input data set, as shown on the run's page."""

    name: str
    context: Literal["training", "validation"]
    digest: str
    source: str
    profile: Mapping[str, Any]


class Recorder(Asker):
    """Records one run: parameters, metrics, tags, artifacts, data sets, model versions, status.

    What can't be delivered is kept in order and tried again with the next call, so that an outage of the server
    costs no point. Open one with ``Recorder.open``; end it with ``close``.

    Credentials in texts (parameters, tags, text and JSON artifacts) are masked.

    Args:
        store: where it is recorded.
        run_id: the run, which is running.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        super().__init__(store._client)
        self.store, self.run_id = store, run_id
        run = self._client.get_run(run_id)
        self.experiment_id = str(run.info.experiment_id)
        self.run_name = str(run.info.run_name)
        self.artifact_uri = str(run.info.artifact_uri)
        self._artifacts = get_artifact_repository(self.artifact_uri, tracking_uri=self.uri)
        self._delivery = Delivery(run_id, self.artifact_uri)
        self._epochs = EpochRecords(self._deliver_epochs)
        self._run_points = RunPoints(run_id)
        self._spool = Path(tempfile.mkdtemp(prefix="topotrain-spool-"))
        self._spooled = 0
        self._heartbeat = Heartbeat(self._client, run_id)

    @classmethod
    def open(
        cls,
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
            TrackingError: the store can't be used, or the run to adopt is not there.
        """
        client = store._client
        everything = {**(tags or {}), TAG_COMMAND: command}
        if notes:
            everything[MLFLOW_RUN_NOTE] = notes
        if parent_run_id:
            everything[MLFLOW_PARENT_RUN_ID] = parent_run_id
        default = default_name or default_run_name()
        run_name = mask_credentials(run_name) if run_name else None
        given = take_adopted_run()
        if given:
            name = run_name or (default if MLFLOWS_OWN_NAME.fullmatch(_adoptable(store, given)) else None)
            if name:
                everything[MLFLOW_RUN_NAME] = name
        else:
            name = run_name or default
            home = store.runs.experiment_id(experiment)
            ours = {**mask_values(resolve_tags(), names=True), MLFLOW_RUN_NAME: name}
            with asking(store.uri):
                given = client.create_run(home, run_name=name, tags=ours).info.run_id
        try:
            recorder = cls(store, given)
            recorder.run_name = everything.get(MLFLOW_RUN_NAME, recorder.run_name)
            recorder.tags(everything)
            recorder._heartbeat.start()
        except BaseException as error:
            client.set_terminated(given, status="FAILED")
            if isinstance(error, TrackingError) or not isinstance(error, Exception):
                raise
            raise _not_recordable(given, error) from None
        return recorder

    @classmethod
    def reopen(cls, store: Store, run_id: str, tags: Mapping[str, str] | None = None) -> Recorder:
        """Go on recording a run that ended or was cut off.

        Args:
            store: where it is recorded.
            run_id: the run.
            tags: to set.

        Raises:
            TrackingError: the store refuses.
        """
        release_adopted_run(run_id)
        client = store._client
        try:
            if TAG_STATUS_NOTE in client.get_run(run_id).data.tags:
                client.delete_tag(run_id, TAG_STATUS_NOTE)
            client.update_run(run_id, status="RUNNING")
            recorder = cls(store, run_id)
            recorder.tags(tags or {})
        except MlflowException as error:
            raise _not_recordable(run_id, error) from None
        recorder._heartbeat.start()
        return recorder

    @property
    def page(self) -> str | None:
        """Address of the run's page, where the store is a server."""
        return web_address(self.uri, self.experiment_id, self.run_id)

    def params(self, values: Mapping[str, str], see: str) -> None:
        """Log parameters; one too long for the server says which artifact holds it.

        Args:
            values: by dotted name.
            see: artifact that holds the values in full.
        """
        values = mask_values(values, names=True)
        short = {k: v if len(v) <= MAX_PARAM_VAL_LENGTH else f"(too long: see {see})" for k, v in values.items()}
        entries = [Param(key, value) for key, value in short.items()]
        for start in range(0, len(entries), MAX_PARAMS_PER_CALL):
            part = entries[start : start + MAX_PARAMS_PER_CALL]
            self._add("parameters", lambda part=part: self._client.log_batch(self.run_id, params=part))  # type: ignore[misc]

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log one point for each metric, in one call."""
        entries, self._run_points = points_of(values, step), RunPoints(self.run_id)
        self._add("metrics", lambda: self._client.log_batch(self.run_id, metrics=entries))

    def epoch(
        self, values: Mapping[str, float], step: int, tags: Mapping[str, str] | None = None, removed: Sequence[str] = ()
    ) -> None:
        """Log what an epoch leaves beside its checkpoints; of epochs that follow within a second, in one call.

        Args:
            values: its metrics.
            step: its number.
            tags: to set.
            removed: artifacts to remove.
        """
        self._run_points = RunPoints(self.run_id)
        self._epochs.add(points_of(values, step), mask_values(tags or {}, names=True), removed)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags; one too long for the server is cut, and ends by saying so."""
        entries = tags_of(mask_values(values, names=True))
        self._add("tags", lambda: self._client.log_batch(self.run_id, tags=entries))

    def text(self, content: str, artifact: str) -> None:
        """Write a small text artifact."""
        self._spooled += 1
        local = self._spool / str(self._spooled) / Path(artifact).name
        local.parent.mkdir()
        local.write_text(mask_credentials(content), encoding="utf-8")
        self.file(local, str(Path(artifact).parent))

    def json(self, content: Any, artifact: str) -> None:
        """Write a JSON artifact."""
        self.text(as_json(content), artifact)

    def file(self, local: Path, directory: str = "") -> None:
        """Write a file as an artifact, under its own name, replacing one that is there.

        The file must stay until the recorder is closed.
        """
        self._add(f"artifact {local.name}", lambda: self._replace(local, directory))

    def checkpoint(self, local: Path) -> None:
        """Write a file of an epoch among the checkpoints, now, before the points of its epoch and those that wait."""
        self._delivery.add(f"artifact {local.name}", lambda: self._replace(local, CHECKPOINT_DIR))

    def remove(self, artifact: str) -> None:
        """Remove an artifact that this run wrote, where the store can."""
        self._add(f"removal of {artifact}", lambda: self._remove(artifact))

    def version(self, files: ModelFiles, name: str, *, title: str, step: int, tags: Mapping[str, str]) -> NewVersion:
        """Make a logged model of this run and register it as the next version.

        Args:
            files: what it is made of; they must stay until the recorder is closed.
            name: of the registered model.
            title: of the logged model, for the page.
            step: epoch; MLflow links the run's metrics of that step to the model.
            tags: of the logged model and of the version.

        Returns:
            The version, which has a number once it is delivered.

        Raises:
            TrackingError: the server refuses.
        """
        new = NewVersion(files, name, title=title, points=self._run_points, step=step, tags=mask_values(tags))
        self._add(f"a version of {name}", lambda: new.deliver(self._client))
        return new

    def version_tags(self, name: str, number: str, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version that is registered already; ``None`` removes one."""

        def tag() -> None:
            present = self._client.get_model_version(name, number).tags
            for key, value in tags.items():
                if value is not None:
                    self._client.set_model_version_tag(name, number, key, value)
                elif key in present:
                    self._client.delete_model_version_tag(name, number, key)

        self._add(f"tags of {name} version {number}", tag)

    def alias(self, name: str, alias: str, version: NewVersion | str) -> None:
        """Point an alias at a version, given by its number where it is registered already.

        Raises:
            TrackingError: the server refuses.
        """

        def point() -> None:
            number = version if isinstance(version, str) else version.number
            self._client.set_registered_model_alias(name, alias, number)

        self._add(f"alias {alias} of {name}", point)

    def datasets(self, facts: list[DatasetFacts]) -> None:
        """Log the run's inputs."""
        inputs = [
            DatasetInput(
                dataset=Dataset(
                    name=one.name,
                    digest=one.digest[:DATASET_DIGEST_LENGTH],
                    source_type="local",
                    source=json.dumps({"uri": one.source}),
                    profile=json.dumps(one.profile),
                ),
                tags=[InputTag("mlflow.data.context", one.context)],
            )
            for one in facts
        ]

        def log_inputs() -> None:
            try:
                self._client.log_inputs(self.run_id, datasets=inputs)
            except MlflowException:
                # MLflow looks for a data set, then inserts it: another run may have done so in between.
                self._client.log_inputs(self.run_id, datasets=inputs)

        self._add("data sets", log_inputs)

    @property
    def complete(self) -> bool:
        """Whether everything was delivered."""
        return not self._delivery.waiting

    def close(self, status: Status, note: str = "") -> None:
        """End the run.

        Args:
            status: how it ended; under ``mlflow run`` the exit status of the process has the last word.
            note: why, for ``topotrain.status_note``.
        """
        self._heartbeat.stop()
        if self._epochs.waiting:
            self._delivery.now("metrics", self._epochs.flush)
        if note:
            self._delivery.now("note", lambda: self.tags({TAG_STATUS_NOTE: note}))
        self._delivery.now("status", lambda: self._client.set_terminated(self.run_id, status=status))
        if self.complete:
            shutil.rmtree(self._spool, ignore_errors=True)
        else:
            names = ", ".join(self._delivery.waiting)
            log.error("not delivered of run %s: %s; texts are kept in %s", self.run_id, names, self._spool)

    def _add(self, what: str, call: Callable[[], None]) -> None:
        """Deliver something after everything before it."""
        self._epochs.flush()
        self._delivery.add(what, call)

    def _deliver_epochs(self, points: list[Metric], tags: dict[str, str], removed: list[str]) -> None:
        entries = tags_of(tags)
        self._delivery.add("metrics", lambda: self._client.log_batch(self.run_id, metrics=points, tags=entries))
        for artifact in removed:
            self._delivery.add(f"removal of {artifact}", lambda artifact=artifact: self._remove(artifact))  # type: ignore[misc]

    def _remove(self, artifact: str) -> None:
        try:
            self._artifacts.delete_artifacts(artifact)
        except Exception:  # noqa: BLE001 (each backend raises its own kinds)
            # A store that answers will not do it later either (it may forbid removal), and must hold nothing up.
            self._artifacts.list_artifacts(str(Path(artifact).parent))
            log.debug("the artifact store keeps %s", artifact)

    def _replace(self, local: Path, directory: str) -> None:
        directory = "" if directory == "." else directory
        if isinstance(self._artifacts, LocalArtifactRepository):
            write_whole(Path(self._artifacts.artifact_dir) / directory / local.name, local.read_bytes())
        else:
            self._artifacts.log_artifact(str(local), directory or None)


def default_run_name() -> str:
    """``training_run_YYYY-MM-DD_HH-MM-SS``, local time."""
    return datetime.now().strftime("training_run_%Y-%m-%d_%H-%M-%S")


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


def _not_recordable(run_id: str, error: Exception) -> TrackingError:
    return TrackingError(f"run {run_id} can't be recorded ({one_line(error)})", "a store that can be used")
