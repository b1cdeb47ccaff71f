"""Questions about model versions: which one is meant, what is known of it, where its files are; and its aliases."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from topotrain.credentials import mask_credentials
from topotrain.errors import TrackingError
from topotrain.fields import EVAL_PREFIX, TAG_EVAL_DIGEST, TAG_EVAL_RUN, evaluation_name
from topotrain.text import nearest, one_line
from topotrain.tracking.known_numbers import of_run, of_tags
from topotrain.tracking.moved import check_there
from topotrain.tracking.outages import Asker, asks, full_here, is_absent, paged
from topotrain.tracking.records import EvaluatedModel, LoggedMetric, RunRecord, VersionRecord
from topotrain.tracking.runs import Runs

CHAMPION, CANDIDATE = "champion", "candidate"
DEFAULT_NAME = "topoqa"  # of the registered model, where none is given
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>.+)|/(?P<version>\d+))?")
LOGGED_MODEL = re.compile(r"models:/(?P<id>m-[0-9a-f]+)")
RUNS_A_QUESTION = 100  # ids that one filter names
PAGE = 1000


class Versions(Asker):
    """The versions of a store's registered models.

    Every method raises ``OutageError`` where the store does not answer, ``TrackingError`` where it refuses.

    Args:
        client: of the store.
        runs: of the store.
    """

    def __init__(self, client: MlflowClient, runs: Runs) -> None:
        super().__init__(client)
        self._runs = runs

    @asks
    def get(self, name: str, number: str) -> VersionRecord:
        """A version by its number.

        Raises:
            TrackingError: there is none of that number.
        """
        try:
            return version_record(self._client.get_model_version(name, number))
        except MlflowException as error:
            if not is_absent(error):
                raise
            raise TrackingError(
                f"version {number} of {name!r} can't be found ({one_line(error)})",
                "the number of a version",
                self._near(f"models:/{name}/{number}"),
            ) from None

    @asks
    def with_alias(self, name: str, alias: str) -> VersionRecord | None:
        """The version that has an alias, or ``None`` where none has.

        Raises:
            TrackingError: there is no such model.
        """
        try:
            number = self._client.get_registered_model(name).aliases.get(alias)
        except MlflowException as error:
            if not is_absent(error):
                raise
            raise TrackingError(
                f"registered model {name!r} can't be found ({one_line(error)})",
                "a registered model's name",
                self._near(f"models:/{name}@{alias}"),
            ) from None
        return None if number is None else self.get(name, str(number))

    def default(self) -> VersionRecord | None:
        """What is used where no model is given: the champion, else the candidate; ``None`` where there is neither."""
        return self.of_uri(f"models:/{DEFAULT_NAME}@{CHAMPION}") or self.of_uri(f"models:/{DEFAULT_NAME}@{CANDIDATE}")

    @asks
    def names(self) -> list[str]:
        """Of the registered models, the first thousand."""
        return [one.name for one in self._client.search_registered_models(max_results=PAGE)]

    @asks
    def of_uri(self, uri: str) -> VersionRecord | None:
        """The version that ``models:/NAME@alias`` or ``models:/NAME/VERSION`` means, where there is one."""
        parts = MODEL_URI.fullmatch(uri)
        try:
            if parts and parts["alias"]:
                return version_record(self._client.get_model_version_by_alias(parts["name"], parts["alias"]))
            if parts and parts["version"]:
                return version_record(self._client.get_model_version(parts["name"], parts["version"]))
        except MlflowException as error:
            if not is_absent(error):
                raise
        return None

    @asks
    def loaded(self, uri: str) -> VersionRecord | None:
        """As ``of_uri``, and for ``models:/ID`` the version that was registered from that logged model."""
        parts = LOGGED_MODEL.fullmatch(uri)
        if parts is None:
            return self.of_uri(uri)
        try:
            run_id = self._client.get_logged_model(parts["id"]).source_run_id
        except MlflowException as error:
            if not is_absent(error):
                raise
            return None
        found = self.of_runs([run_id]) if run_id else []
        return next((one for one in found if one.model_id == parts["id"]), None)

    @asks
    def of_runs(self, run_ids: Sequence[str]) -> list[VersionRecord]:
        """Versions that runs registered, the oldest of a model first."""
        found: list[ModelVersion] = []
        for start in range(0, len(run_ids), RUNS_A_QUESTION):
            ids = ", ".join(f"'{run_id}'" for run_id in run_ids[start : start + RUNS_A_QUESTION])
            search = partial(self._client.search_model_versions, f"run_id IN ({ids})", max_results=PAGE)
            found += paged(lambda token, search=search: search(page_token=token))  # type: ignore[misc]
        aliases: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name in {version.name for version in found}:  # a search for versions leaves the aliases out
            for alias, number in self._client.get_registered_model(name).aliases.items():
                aliases[name, str(number)].append(alias)
        records = [version_record(one, aliases[one.name, str(one.version)]) for one in found]
        return sorted(records, key=lambda version: int(version.number))

    def best_of_run(self, run_id: str, name: str | None = None) -> VersionRecord | None:
        """The version of a run's best checkpoint (the newest one where none has a rank), if it has one.

        Args:
            run_id: the run.
            name: of a registered model; by default any.
        """
        versions = [one for one in self.of_runs([run_id]) if name in (None, one.name)]
        ranked = [one for one in versions if one.tags.get("rank") == "1"]
        found = ranked or versions
        return found[-1] if found else None

    @asks
    def logged_metrics(self, version: VersionRecord) -> list[LoggedMetric]:
        """The latest of each metric and data set that was logged to a version's model, by name."""
        try:
            model = self._client.get_logged_model(version.model_id) if version.model_id else None
        except MlflowException as error:  # registered from elsewhere, or the logged model was deleted
            if not is_absent(error):
                raise
            model = None
        logged = sorted((model.metrics or []) if model else [], key=lambda one: (one.step, one.timestamp))
        latest = {(evaluation_name(one.key), one.dataset_digest or ""): one for one in logged}
        return [
            LoggedMetric(evaluation_name(one.key), one.value, one.step, one.dataset_name, one.dataset_digest)
            for _, one in sorted(latest.items())
        ]

    def known_metrics(self, version: VersionRecord) -> dict[str, float]:
        """Every number that is known of a model version, by name.

        The logged model's come first (they are of its own epoch), then tags that are numbers, then the run's latest.
        Metrics of evaluations are those on the data of the version's last evaluation, and of this version alone.
        """
        numbers: dict[str, float] = {}
        if run := self._runs.known(version.run_id):
            numbers |= {key: value for key, value in of_run(run).items() if not key.startswith(EVAL_PREFIX)}
        if not version.model_id and (judged_by := self._runs.known(version.tags.get(TAG_EVAL_RUN))):
            numbers |= {key: value for key, value in of_run(judged_by).items() if key.startswith(EVAL_PREFIX)}
        numbers |= of_tags(version)
        digest = version.tags.get(TAG_EVAL_DIGEST)
        for one in sorted(self.logged_metrics(version), key=lambda one: one.step):
            if not one.name.startswith(EVAL_PREFIX) or one.dataset_digest == digest:
                numbers[one.name] = one.value
        return numbers

    @asks
    def evaluated(self, model: str) -> EvaluatedModel:
        """The model meant by ``models:/NAME@alias``, ``models:/NAME/VERSION``, ``models:/ID`` or a local folder.

        Raises:
            TrackingError: there is no such model.
        """
        parts = MODEL_URI.fullmatch(model)
        if not parts:
            return EvaluatedModel(model)  # a folder, or nothing: loading it tells
        try:
            if parts["alias"]:
                found = self._client.get_model_version_by_alias(parts["name"], parts["alias"])
                return self.evaluated_version(version_record(found))
            if parts["version"]:
                found = self._client.get_model_version(parts["name"], parts["version"])
                return self.evaluated_version(version_record(found))
            logged = self._client.get_logged_model(parts["name"])
        except MlflowException as error:
            raise TrackingError(
                f"model {model!r} can't be found ({one_line(error)})",
                "models:/NAME@alias or models:/NAME/VERSION",
                self._near(model) or "train one, or give --tracking-uri",
            ) from None
        run_id = self._writable(logged.source_run_id)
        for one in self.of_runs([run_id]) if run_id else []:
            if one.model_id == logged.model_id:
                return self.evaluated_version(one)
        return EvaluatedModel(model, run_id=run_id, model_id=str(logged.model_id))

    def evaluated_version(self, version: VersionRecord) -> EvaluatedModel:
        """A model version as one that is evaluated."""
        return EvaluatedModel(
            uri=version.uri,
            name=version.name,
            version=version.number,
            run_id=self._writable(version.run_id),
            model_id=version.model_id,
            epoch=version.epoch,
        )

    def evaluated_run(self, run: RunRecord) -> EvaluatedModel:
        """A run's best version, or its best checkpoint where it registered none.

        Raises:
            TrackingError: the run has neither.
        """
        version = self.best_of_run(run.run_id)
        if version is not None:
            return self.evaluated_version(version)
        checkpoint = run.best_checkpoint
        if checkpoint is None:
            raise TrackingError(
                f"run {run.run_id} has no model version and no checkpoint", "a run that trained an epoch or more"
            )
        return EvaluatedModel(checkpoint.uri, run_id=run.run_id, epoch=checkpoint.epoch)

    def download(self, uri: str, folder: Path) -> Path:
        """Fetch the files of a model version, without running any of them.

        Args:
            uri: ``models:/NAME@alias``, ``models:/NAME/VERSION`` or ``models:/ID``.
            folder: where to put them.

        Raises:
            TrackingError: there is no such model on the store, or its files are not where the store says.
        """
        try:
            location = self._location(uri)
            check_there(location, self.uri)
            repository = get_artifact_repository(location, tracking_uri=self.uri, registry_uri=self.uri)
            files = Path(repository.download_artifacts("", dst_path=str(folder)))
            if not any(files.iterdir()):
                raise FileNotFoundError(f"there are no files at {location}")
            return files
        except TrackingError:
            raise
        except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
            if told := full_here(self.uri, error):
                raise told from None
            raise TrackingError(
                f"model {uri!r} can't be fetched ({one_line(error)})",
                "models:/NAME@alias or models:/NAME/VERSION",
                self._near(uri) or "train one, set the alias, or give --tracking-uri",
            ) from None

    def move_alias(
        self,
        name: str,
        alias: str,
        number: str,
        *,
        expected: str | None,
        tags: Mapping[str, str],
        tagged: str | None = None,
    ) -> None:
        """Point an alias at a version if it is still where it was when that was decided, then say so in tags.

        The server can't compare and set in one step: the alias is read again right before it is set.

        Args:
            name: of the registered model.
            alias: to move.
            number: of the version to point it at.
            expected: version that has it now, or ``None`` for none.
            tags: to set once it has moved.
            tagged: version that is tagged; by default the one the alias now points at.

        Raises:
            TrackingError: the alias was moved meanwhile, or the server refuses.
        """
        now = self.with_alias(name, alias)
        if (None if now is None else now.number) != expected:
            raise TrackingError(
                f"{alias} of {name} was moved from version {expected or 'none'} to "
                f"{'none' if now is None else now.number} meanwhile",
                "an alias that no other process moves",
                "decide again",
            )
        try:
            self._client.set_registered_model_alias(name, alias, number)
        except MlflowException as error:
            raise TrackingError(f"alias {alias!r} of {name!r} can't be set ({one_line(error)})") from None
        try:
            for key, value in tags.items():
                self._client.set_model_version_tag(name, tagged or number, key, mask_credentials(value))
        except MlflowException as error:
            raise TrackingError(
                f"{alias} of {name} is version {number} now, but its tags can't be set ({one_line(error)})"
            ) from None

    def _near(self, uri: str) -> str:
        """A question that names the nearest model, alias or version there is, or "" where none is near."""
        parts = MODEL_URI.fullmatch(uri)
        if parts is None:
            return ""
        try:
            models = {one.name: one for one in self._client.search_registered_models(max_results=PAGE)}
            if parts["name"] not in models:
                name = nearest(parts["name"], models)
                return f"did you mean models:/{name}{uri.removeprefix('models:/' + parts['name'])}?" if name else ""
            name, aliases = parts["name"], self._client.get_registered_model(parts["name"]).aliases
            if parts["alias"]:
                known = ", ".join(sorted(aliases)) or "none"
                near = nearest(parts["alias"], aliases)
                return f"did you mean models:/{name}@{near}?" if near else f"aliases of {name}: {known}"
            found = self._client.search_model_versions(f"name = '{name}'", max_results=1)
            return f"the newest version of {name} is {found[0].version}" if found else f"{name} has no version"
        except MlflowException:
            return ""

    def _location(self, uri: str) -> str:
        """Where the files of a model are."""
        parts = MODEL_URI.fullmatch(uri)
        if not parts:
            raise ValueError("neither a registered model nor a folder")
        number = parts["version"]
        if parts["alias"]:
            number = str(self._client.get_model_version_by_alias(parts["name"], parts["alias"]).version)
        if number:
            return str(self._client.get_model_version_download_uri(parts["name"], number))
        return str(self._client.get_logged_model(parts["name"]).artifact_location)

    def _writable(self, run_id: str | None) -> str | None:
        """A run that metrics can be logged to: one that is there and was not deleted."""
        run = self._runs.known(run_id)
        return run_id if run and not run.deleted else None


def version_record(version: ModelVersion, aliases: Sequence[str] | None = None) -> VersionRecord:
    """A version as MLflow describes it, as our record.

    Args:
        version: as MLflow describes it.
        aliases: where its own are not filled in.
    """
    # A local store keeps the logged model in the source alone.
    source = LOGGED_MODEL.fullmatch(version.source or "")
    return VersionRecord(
        name=str(version.name),
        number=str(version.version),
        run_id=version.run_id or None,
        model_id=version.model_id or (source["id"] if source else None),
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        tags=dict(version.tags),
        aliases=tuple(sorted(version.aliases if aliases is None else aliases)),
    )
