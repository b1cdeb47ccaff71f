"""Entries of a journal to the server, such that none is there twice however often it is delivered."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.tracking import MlflowClient

from topotrain.errors import TrackingError
from topotrain.fields import DATASET_DIGEST_LENGTH, NOT_KEPT
from topotrain.files import write_whole
from topotrain.reading.json_file import parse_json
from topotrain.tracking.backlog import Waiting
from topotrain.tracking.entries import (
    Alias,
    End,
    Entry,
    File,
    Inputs,
    Params,
    Points,
    Removal,
    Tags,
    Version,
    VersionTags,
    entry_of,
)
from topotrain.tracking.journal import Journal
from topotrain.tracking.new_versions import NewVersions
from topotrain.tracking.records import RunRecord
from topotrain.tracking.standing import why_it_stays
from topotrain.tracking.versions import version_record

log = logging.getLogger("topotrain")


class Delivery:
    """Makes the calls to the server.

    Points carry the time at which they were recorded: MLflow keeps two that are equal in everything only once.

    Args:
        client: of the store.
        run: as the server knows it.
        journal: where the entries are, and how far each one's delivery is.
        stand_in: the id that stands for the run in the journal of a run that no server knew.
        again: whether another process may have delivered, or recorded, some of it.
        adopt: whether the run was recorded before, and may have left logged models that are no version.
    """

    def __init__(
        self,
        client: MlflowClient,
        run: RunRecord,
        journal: Journal,
        *,
        stand_in: str | None = None,
        again: bool = False,
        adopt: bool = False,
    ) -> None:
        self._client, self._run_id, self._journal = client, run.run_id, journal
        self._stand_in = stand_in
        self._artifacts = get_artifact_repository(run.artifact_uri, tracking_uri=str(client.tracking_uri))
        self._versions = NewVersions(
            *(client, run.run_id, run.experiment_id, journal), stand_in=stand_in, adopt=adopt or again
        )
        self._again = again
        self._known: dict[str, set[int]] = {}  # steps that the server has of a metric

    def deliver(self, group: Sequence[Waiting]) -> None:
        """Deliver one entry, or several of parameters, metrics and tags.

        Raises:
            MlflowException: the store refuses, or does not answer.
            TrackingError: the server refuses a name.
        """
        entries = [self._real(one.entry) for one in group]
        match entries[0]:
            case Params() | Points() | Tags():
                self._log(entries)
            case File(kept=kept, artifact=artifact):
                self._write(kept, artifact)
            case Removal(artifact=artifact):
                self._remove(artifact)
            case Inputs():
                self._inputs(entries[0])
            case Version():
                self._versions.deliver(group[0].numbers[-1], entries[0])
            case VersionTags():
                self._version_tags(entries[0])
            case Alias():
                try:
                    self._point(entries[0])
                except MlflowException:
                    # MLflow looks for an alias, then inserts it: another run may have done so in between.
                    self._point(entries[0])
            case End(status=status, time=time):
                self._versions.clear_orphans()
                self._client.set_terminated(self._run_id, status=status, end_time=time)

    @property
    def numbers(self) -> dict[str, str]:
        """Of the versions made, by title."""
        return self._versions.numbers

    def _point(self, entry: Alias) -> None:
        name, alias, number = entry.name, entry.alias, entry.number or self._number(entry.title)
        holder = self._client.get_registered_model(name).aliases.get(alias) if entry.if_better else None
        if holder is not None and str(holder) != number:
            versions = [version_record(self._client.get_model_version(name, str(one))) for one in (holder, number)]
            reason = why_it_stays(alias, *versions)
            if reason is not None:
                log.info(reason)
                return
        self._client.set_registered_model_alias(name, alias, number)
        log.info("%s of %s is version %s", alias, name, number)

    def _number(self, title: str | None) -> str:
        number = self.numbers.get(str(title))
        if number is None:
            raise TrackingError(f"there is no version of {title}", "one that the server took")
        return number

    def _real(self, entry: Entry) -> Entry:
        """The entry with the run's id in the place of the one that stood for it."""
        if self._stand_in is None:
            return entry
        text = json.dumps(entry.model_dump()).replace(self._stand_in, self._run_id)
        return entry_of(parse_json(text))

    def _log(self, entries: Sequence[Entry]) -> None:
        params: dict[str, str] = {}
        tags: dict[str, str] = {}
        metrics: list[Metric] = []
        for entry in entries:
            if isinstance(entry, Params):
                params |= entry.values
            elif isinstance(entry, Tags):
                tags |= entry.values
            elif isinstance(entry, Points):
                metrics += [
                    Metric(point.key, float(point.value), point.time, point.step)
                    for point in entry.points
                    if not (self._again and point.step in self._steps(point.key))
                ]
        self._client.log_batch(
            self._run_id,
            metrics=metrics,
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def _steps(self, key: str) -> set[int]:
        """Steps of a metric that the server had before this delivery began."""
        if key not in self._known:
            self._known[key] = {point.step for point in self._client.get_metric_history(self._run_id, key)}
        return self._known[key]

    def _write(self, kept: str, artifact: str) -> None:
        directory, _, name = artifact.rpartition("/")
        source = self._journal.path(kept)
        if not source.exists():
            raise TrackingError(f"journal {self._journal.folder} lacks the content of {artifact}", "all of its files")
        if isinstance(self._artifacts, LocalArtifactRepository):
            content = source.read_bytes()
            write_whole(Path(self._artifacts.artifact_dir) / directory / name, content)
            return
        # MLflow names an artifact as its file is named.
        with self._journal.named(kept, name) as file:
            self._artifacts.log_artifact(str(file), directory or None)

    def _remove(self, artifact: str) -> None:
        try:
            self._artifacts.delete_artifacts(artifact)
        except Exception:  # noqa: BLE001 (each backend raises its own kinds)
            # A store that answers will not do it later either (it may forbid removal), and must hold nothing up.
            self._artifacts.list_artifacts(artifact.rpartition("/")[0])

    def _inputs(self, inputs: Inputs) -> None:
        datasets = [
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
            for one in inputs.datasets
        ]
        try:
            self._client.log_inputs(self._run_id, datasets=datasets)
        except MlflowException:
            # MLflow looks for a data set, then inserts it: another run may have done so in between.
            self._client.log_inputs(self._run_id, datasets=datasets)

    def _version_tags(self, entry: VersionTags) -> None:
        for key, value in entry.tags.items():
            self._client.set_model_version_tag(entry.name, entry.number, key, NOT_KEPT if value is None else value)
