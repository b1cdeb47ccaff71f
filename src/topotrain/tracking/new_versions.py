"""Versions on their way to the registry, step by step, so that none is there twice and no model without one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel, LoggedModelOutput, Metric
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from topotrain.credentials import mask_credentials
from topotrain.errors import TrackingError
from topotrain.fields import BASELINE_PREFIX, CARD_ARTIFACT, MODEL_FILES
from topotrain.text import one_line
from topotrain.tracking.entries import Version
from topotrain.tracking.file_digests import digest_tags, file_digests
from topotrain.tracking.journal import Journal
from topotrain.tracking.logged_models import identify, model_files
from topotrain.tracking.outages import paged
from topotrain.tracking.records import VersionRecord
from topotrain.tracking.versions import version_record

log = logging.getLogger("topotrain")

LONGEST = 5000  # characters of a description: a database may refuse more
CUT = f"\n\n... (cut; the whole card is {MODEL_FILES}/{CARD_ARTIFACT} among the version's files)"
OF_A_MODEL = (
    "Graph networks that score models (decoys) of protein complexes by their interface graphs, made by topotrain. Each "
    "version's description is its model card. `candidate` is the best version on its validation data, `champion` the "
    "one that was promoted; predictions follow them."
)


class NewVersions:
    """The versions that a run makes.

    The journal notes each step when it is done. A kill between the step and the note leaves a logged model that the
    journal does not know: the run's own models are looked at before another of the same title is made.

    Args:
        client: of the store.
        run_id: of the run, as the server knows it.
        experiment_id: of its experiment.
        journal: holds the files, and notes how far each version is.
        stand_in: the id that stands for the run in the files.
        adopt: whether the run may have left logged models before.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        experiment_id: str,
        journal: Journal,
        *,
        stand_in: str | None,
        adopt: bool,
    ) -> None:
        self._client, self._run_id, self._experiment_id, self._journal = client, run_id, experiment_id, journal
        self._stand_in, self._adopt = stand_in, adopt
        self._points: dict[str, list[Metric]] = {}
        self._uploaded: set[Path] = set()
        self._described: set[str] = set()

    @property
    def numbers(self) -> dict[str, str]:
        """Of the versions made, by their models' titles."""
        facts = [one for one in self._journal.known.values() if "number" in one]
        return {str(one["title"]): str(one["number"]) for one in facts}

    def deliver(self, place: int, version: Version) -> None:
        """Do what is not done yet.

        Args:
            place: of the entry in the journal.
            version: which.

        Raises:
            MlflowException: the store refuses, or does not answer.
            TrackingError: the server refuses the name.
        """
        facts, note = self._journal.known[place], partial(self._journal.note, place)
        if "model_id" not in facts:
            note(model_id=self._model(version))
        model_id = str(facts["model_id"])
        if "files" not in facts:
            note(files=self._upload(version, model_id))
        if "linked" not in facts:
            self._link(version, model_id)
            note(linked=True)
        if "number" not in facts:
            note(number=self._register(version, model_id, digest_tags(facts["files"])), title=version.title)

    def clear_orphans(self) -> None:
        """Remove logged models that a run which was cut off left, and that are no version of anything."""
        if not self._adopt:
            return
        registered = {version.model_id for version in self._registered()}
        for model in self._models():
            if model.model_id not in registered and "rank" in model.tags:
                log.debug("logged model %s (%s) was never registered; it is removed", model.name, model.model_id)
                self._client.delete_logged_model(model.model_id)

    def _model(self, version: Version) -> str:
        """A logged model: one of the run that is no version yet, else a new one."""
        if self._adopt:
            left = [model for model in self._models() if model.name == version.title]
            if left:
                return str(left[0].model_id)
        self._adopt = True  # from now on this process may have left one, too
        params = self._client.get_run(self._run_id).data.params
        model = self._client.create_logged_model(
            self._experiment_id, version.title, source_run_id=self._run_id, tags=version.tags, params=params
        )
        return str(model.model_id)

    def _models(self) -> list[LoggedModel]:
        mine = f"source_run_id = '{self._run_id}'"
        search = partial(self._client.search_logged_models, [self._experiment_id], filter_string=mine)
        return list(paged(lambda token: search(page_token=token)))

    def _upload(self, version: Version, model_id: str) -> dict[str, str]:
        """Returns the digests of the model's files."""
        model = self._client.get_logged_model(model_id)
        folder = self._journal.path(version.kept)
        identify(folder, model.artifact_location, model_id, self._run_id, self._stand_in)
        target = get_artifact_repository(model.artifact_location, tracking_uri=str(self._client.tracking_uri))
        for path in model_files(folder):
            if path not in self._uploaded:  # where the connection breaks now and then, each attempt gets further
                directory = path.parent.relative_to(folder).as_posix()
                target.log_artifact(str(path), None if directory == "." else directory)
                self._uploaded.add(path)
                self._journal.progress += 1
        self._client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        return file_digests(folder)

    def _link(self, version: Version, model_id: str) -> None:
        """Link the run and its metrics of that epoch: the same points, so that the run's history has none twice."""
        run = self._client.get_run(self._run_id)
        if model_id not in {one.model_id for one in run.outputs.model_outputs}:  # MLflow refuses a second time
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model_id, version.step)])
        for name in run.data.metrics.keys() - self._points.keys():
            self._points[name] = self._client.get_metric_history(self._run_id, name)
        points = [
            Metric(m.key, m.value, m.timestamp, m.step, model_id, m.dataset_name, m.dataset_digest, self._run_id)
            for history in self._points.values()
            for m in history
            # Neither those that are a model's own, nor those that are of no epoch.
            if m.step == version.step and m.model_id is None and not m.key.startswith(BASELINE_PREFIX)
        ]
        self._client.log_batch(self._run_id, metrics=points)

    def _register(self, version: Version, model_id: str, digests: Mapping[str, str]) -> str:
        if self._adopt:
            earlier = next((one for one in self._registered() if one.model_id == model_id), None)
            if earlier is not None:
                return earlier.number
        try:
            self._client.create_registered_model(version.name, description=OF_A_MODEL)
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                what = f"model name {version.name!r} is refused ({one_line(error)})"
                raise TrackingError(what, "another name") from None
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            self._describe(version.name)
        with _global_uri(str(self._client.tracking_uri)):
            made = self._client.create_model_version(
                version.name,
                f"models:/{model_id}",
                run_id=self._run_id,
                tags={**version.tags, **digests},
                model_id=model_id,
                description=self._card(version),
                await_creation_for=None,
            )
        return str(made.version)

    def _describe(self, name: str) -> None:
        """Describe a registered model that was made without a description; not worth failing for."""
        if name in self._described:
            return
        self._described.add(name)
        with suppress(MlflowException):
            if not self._client.get_registered_model(name).description:
                self._client.update_registered_model(name, OF_A_MODEL)

    def _card(self, version: Version) -> str | None:
        """A version's card, which names the run as it is known by now; ``None`` where it has none."""
        path = self._journal.path(version.kept) / MODEL_FILES / CARD_ARTIFACT
        if not path.is_file():
            return None
        text = mask_credentials(path.read_text(encoding="utf-8", errors="replace"))
        return text if len(text) <= LONGEST else text[: LONGEST - len(CUT)] + CUT

    def _registered(self) -> list[VersionRecord]:
        search = partial(self._client.search_model_versions, f"run_id = '{self._run_id}'")
        return [version_record(one) for one in paged(lambda token: search(page_token=token))]


@contextmanager
def _global_uri(uri: str) -> Iterator[None]:
    """Set MLflow's global URI for a moment.

    A store on a database asks the globally set store, not the client's, for the logged model of a new version
    (a TODO in MLflow's sqlalchemy_store.py says so).
    """
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri() if mlflow.tracking.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
        if variable is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = variable
