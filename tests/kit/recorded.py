"""What a run left on its store, asked of MLflow itself: checks go past the code that is checked."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

DATABASE_PREFIX = "sqlite:///"


def mlflow_client(uri: str) -> MlflowClient:
    """MLflow's own client for a store."""
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def point_mlflow_at(uri: str) -> None:
    """Make MLflow's own functions (``mlflow.pyfunc.load_model`` and the like) use a store, until the test ends."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


def make_database(path: Path) -> None:
    """A database with MLflow's tables and nothing else, all of it in one file that can be copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mlflow_client(f"{DATABASE_PREFIX}{path}").search_experiments(max_results=1)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")  # as the program makes them: readers and writers do not wait
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """Get or create an experiment whose artifacts lie where the program puts them: beside a local database."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if uri.startswith(DATABASE_PREFIX):
        location = (Path(uri.removeprefix(DATABASE_PREFIX)).absolute().parent / "mlartifacts").as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def metric_history(client: MlflowClient, run_id: str, name: str) -> dict[int, float]:
    """A metric's value at each step, in order."""
    points = sorted(client.get_metric_history(run_id, name), key=lambda point: (point.step, point.timestamp))
    return {point.step: point.value for point in points}


def artifact_names(client: MlflowClient, run_id: str, folder: str) -> set[str]:
    """Names of the artifacts in one folder of a run."""
    return {Path(item.path).name for item in client.list_artifacts(run_id, folder)}


def fetch_artifact(client: MlflowClient, run_id: str, artifact: str, folder: Path) -> Path:
    """Download one artifact of a run into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(client.download_artifacts(run_id, artifact, str(folder)))


def artifact_json(client: MlflowClient, run_id: str, artifact: str) -> Any:
    """A JSON artifact of a run."""
    with tempfile.TemporaryDirectory() as scratch:
        return json.loads(fetch_artifact(client, run_id, artifact, Path(scratch)).read_text(encoding="utf-8"))


def local_artifact(run: Run, artifact: str) -> Path:
    """Where an artifact of a run lies on this machine, whether it is there or not."""
    uri = run.info.artifact_uri
    assert uri.startswith(("file:", "/")), uri
    return Path(url2pathname(urlsplit(uri).path)) / artifact
