"""What the tracking store says, as plain frozen records: nothing else leaves this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from topotrain.fields import INTERRUPTED_NOTE, TAG_BEST_CHECKPOINT, TAG_BEST_EPOCH, TAG_COMMAND, TAG_STATUS_NOTE
from topotrain.reading.numbers import whole


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint among a run's artifacts.

    Attributes:
        run_id: of the run.
        path: below the run's artifacts.
        epoch: counted from 0; ``None`` where the run does not say.
    """

    run_id: str
    path: str
    epoch: int | None = None

    @property
    def uri(self) -> str:
        """``runs:/RUN_ID/PATH``."""
        return f"runs:/{self.run_id}/{self.path}"


@dataclass(frozen=True)
class RunRecord:
    """One run, as the server has it.

    Attributes:
        run_id: its id.
        name: its name.
        experiment_id: of its experiment.
        status: RUNNING, FINISHED, FAILED, KILLED or SCHEDULED.
        started: in UTC.
        ended: in UTC; ``None`` while it runs.
        deleted: whether it was.
        artifact_uri: where its artifacts are.
        params: by dotted name.
        tags: by name.
        metrics: the latest value of each, by name.
    """

    run_id: str
    name: str
    experiment_id: str
    status: str
    started: datetime
    ended: datetime | None
    deleted: bool
    artifact_uri: str
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def command(self) -> str | None:
        """The topotrain command that made it."""
        return self.tags.get(TAG_COMMAND)

    @property
    def note(self) -> str:
        """Why it ended as it did."""
        return self.tags.get(TAG_STATUS_NOTE, "")

    @property
    def interrupted(self) -> bool:
        """Whether it ended, but not by itself.

        Under ``mlflow run`` the exit status has the last word, and makes an interrupted run FAILED.
        """
        return self.status == "KILLED" or self.note.startswith(INTERRUPTED_NOTE)

    @property
    def parent_run_id(self) -> str | None:
        """The run that it is part of."""
        return self.tags.get("mlflow.parentRunId")

    @property
    def best_epoch(self) -> int | None:
        """By its primary metric, counted from 0; ``None`` where it has none yet."""
        return whole(self.tags.get(TAG_BEST_EPOCH))

    @property
    def best_checkpoint(self) -> Checkpoint | None:
        """That of its best epoch."""
        path = self.tags.get(TAG_BEST_CHECKPOINT)
        return Checkpoint(self.run_id, path, self.best_epoch) if path else None


@dataclass(frozen=True)
class VersionRecord:
    """One version of a registered model.

    Attributes:
        name: of the registered model.
        number: of the version.
        run_id: of the run that made it, if it says one.
        model_id: of the logged model that it was made from, if there is one.
        created: in UTC.
        tags: by name.
        aliases: that point at it, sorted.
    """

    name: str
    number: str
    run_id: str | None
    model_id: str | None
    created: datetime
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """``models:/NAME/VERSION``."""
        return f"models:/{self.name}/{self.number}"

    @property
    def epoch(self) -> int | None:
        """Of its checkpoint, counted from 0."""
        return whole(self.tags.get("epoch"))


@dataclass(frozen=True)
class LoggedMetric:
    """One number that was logged to a model.

    Attributes:
        name: of the metric.
        value: its value.
        step: epoch, or number of the evaluation.
        dataset: name of the data it is of, if it says one.
        dataset_digest: of these data.
    """

    name: str
    value: float
    step: int
    dataset: str | None
    dataset_digest: str | None


@dataclass(frozen=True)
class EvaluatedModel:
    """One model that is evaluated.

    Attributes:
        uri: where it is, an alias resolved to its version.
        name: of the registered model, if it is a version of one.
        version: number, as text.
        run_id: the run it came from, if there is one that can be written to.
        model_id: of the logged model.
        epoch: of its checkpoint.
    """

    uri: str
    name: str | None = None
    version: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    epoch: int | None = None

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.name} version {self.version}" if self.version else self.uri


@dataclass(frozen=True)
class Verdict:
    """What an evaluation leaves on the server.

    Attributes:
        metrics: by full name.
        dataset_name: shown beside the metrics.
        dataset_digest: of the evaluation data, cut to what MLflow takes.
        version_tags: for the model version.
        folder: of the files to keep under ``evaluation/``; or ``None``.
    """

    metrics: Mapping[str, float]
    dataset_name: str
    dataset_digest: str
    version_tags: Mapping[str, str]
    folder: Path | None = None
