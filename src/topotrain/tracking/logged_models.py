"""A kept checkpoint as a logged model and a registered version, step by step, so that none is done twice."""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import LoggedModelOutput, Metric
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import ColSpec, Schema

from topotrain.errors import TrackingError
from topotrain.text import one_line


@dataclass(frozen=True)
class ModelFiles:
    """What a logged model is made of, on disk.

    Attributes:
        loader: the Python file that MLflow runs to load it.
        code: folder with the package it imports.
        artifacts: its files by name.
        requirements: pinned, one a line.
        input_example: a table as the served model takes it.
        output: the column in which it gives its scores.
    """

    loader: Path
    code: Path
    artifacts: Mapping[str, Path]
    requirements: list[str]
    input_example: Any
    output: str

    @property
    def signature(self) -> ModelSignature:
        """What the served model takes and gives."""
        return ModelSignature(
            inputs=Schema([ColSpec("string", "graph", required=False), ColSpec("string", "path", required=False)]),
            outputs=Schema([ColSpec("double", self.output), ColSpec("string", "error", required=False)]),
        )


class RunPoints:
    """The points of a run that has no more epochs to record, asked for once for all versions that it makes.

    Args:
        run_id: the run.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._points: dict[int, list[Metric]] | None = None

    def at(self, client: MlflowClient, step: int) -> list[Metric]:
        """Those of one step; not those that are a model's own."""
        if self._points is None:
            points: dict[int, list[Metric]] = {}
            for name in client.get_run(self.run_id).data.metrics:
                for one in client.get_metric_history(self.run_id, name):
                    if one.model_id is None:
                        points.setdefault(one.step, []).append(one)
            self._points = points
        return self._points.get(step, [])


class NewVersion:
    """A version on its way to the server; nothing of the model is pickled.

    Args:
        files: what the logged model is made of; they must stay until it is delivered.
        name: of the registered model.
        title: of the logged model, for the page.
        points: of the run that made it.
        step: epoch of its checkpoint.
        tags: of the logged model and of the version.

    Attributes:
        number: of the version, as text, once the server has given it one.
    """

    def __init__(
        self, files: ModelFiles, name: str, *, title: str, points: RunPoints, step: int, tags: Mapping[str, str]
    ) -> None:
        self.files, self.name, self.step, self.tags = files, name, step, dict(tags)
        self.run_id, self._points = points.run_id, points
        self.title = re.sub(r"""[/:.%"']""", "-", title)  # characters that a logged model's name may not have
        self.number: str | None = None
        self._model_id: str | None = None
        self._uploaded = self._linked = False

    def deliver(self, client: MlflowClient) -> None:
        """Do what is not done yet: after an outage no step is done twice.

        Raises:
            MlflowException: the store refuses, or does not answer.
            TrackingError: the server refuses the name.
        """
        if self._model_id is None:
            self._model_id = self._create(client)
        if not self._uploaded:
            self._upload(client, self._model_id)
            self._uploaded = True
        if not self._linked:
            self._link(client, self._model_id)
            self._linked = True
        if self.number is None:
            self.number = self._register(client, self._model_id)

    def _create(self, client: MlflowClient) -> str:
        run = client.get_run(self.run_id)
        model = client.create_logged_model(
            run.info.experiment_id, self.title, source_run_id=self.run_id, tags=self.tags, params=run.data.params
        )
        return str(model.model_id)

    def _upload(self, client: MlflowClient, model_id: str) -> None:
        model = client.get_logged_model(model_id)
        identity = Model(
            artifact_path=model.artifact_location, model_uuid=model_id, run_id=self.run_id, model_id=model_id
        )
        files = self.files
        with tempfile.TemporaryDirectory(prefix="topotrain-model-") as folder, _without_advice():
            local = Path(folder) / "model"
            mlflow.pyfunc.save_model(
                str(local),
                mlflow_model=identity,
                python_model=str(files.loader),
                code_paths=[str(files.code)],
                artifacts={key: str(path) for key, path in files.artifacts.items()},
                signature=files.signature,
                input_example=files.input_example,
                pip_requirements=files.requirements,
            )
            for cache in list(local.rglob("__pycache__")):
                shutil.rmtree(cache, ignore_errors=True)
            client.log_model_artifacts(model_id, str(local))
        client.finalize_logged_model(model_id, LoggedModelStatus.READY)

    def _link(self, client: MlflowClient, model_id: str) -> None:
        """Link the run and its metrics of that epoch: the same points, so that the run's history has none twice."""
        client.log_outputs(self.run_id, [LoggedModelOutput(model_id, self.step)])
        points = [
            Metric(m.key, m.value, m.timestamp, m.step, model_id, m.dataset_name, m.dataset_digest, self.run_id)
            for m in self._points.at(client, self.step)
        ]
        client.log_batch(self.run_id, metrics=points)

    def _register(self, client: MlflowClient, model_id: str) -> str:
        try:
            client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                what = f"model name {self.name!r} is refused ({one_line(error)})"
                raise TrackingError(what, "another name") from None
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        with _global_uri(str(client.tracking_uri)):
            version = client.create_model_version(
                self.name,
                f"models:/{model_id}",
                run_id=self.run_id,
                tags=self.tags,
                model_id=model_id,
                await_creation_for=0,  # it is there at once; MLflow would say on standard error that it waits
            )
        return str(version.version)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep MLflow from advising on type hints that a table model has no use for."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
