"""Where the tracking store is, and a client for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
from filelock import FileLock
from mlflow import entities
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from topotrain.config import absolute_uri
from topotrain.credentials import mask_credentials
from topotrain.errors import OutageError, TrackingError
from topotrain.text import one_line

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"
ATTEMPTS = 5
# What asking again does not mend.
REFUSALS = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
)
PAGE_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # the page opens on runs, not on chat traces

Say = Callable[[str], None]
# For rooms that hand them on.
Client: TypeAlias = MlflowClient
Run: TypeAlias = entities.Run


def resolve_tracking_uri(option: str | None, configured: str | None, say: Say) -> str:
    """Pick the tracking URI: option, then configuration, then MLFLOW_TRACKING_URI, then a database here.

    Under ``mlflow run`` (MLFLOW_RUN_ID is set) the variable wins: the run already lives on that store.

    Args:
        option: from the command line.
        configured: ``mlflow.tracking_uri`` of the configuration.
        say: takes one line where the choice may surprise.

    Returns:
        A URI that does not depend on the current directory.
    """
    variable = os.environ.get("MLFLOW_TRACKING_URI")
    asked = option or configured
    here = Path.cwd()
    if os.environ.get("MLFLOW_RUN_ID") and variable:
        if asked and absolute_uri(asked, here) != absolute_uri(variable, here):
            say(f"tracking to {mask_credentials(variable)}, which mlflow run chose, not to {mask_credentials(asked)}")
        asked = variable
    uri = asked or variable or str(here / DATABASE_NAME)
    return _database_uri(absolute_uri(uri, here), say, said=bool(asked or variable))


def open_store(uri: str, *, create: bool = True) -> MlflowClient:
    """A client for the store.

    Args:
        uri: of the store, absolute.
        create: whether a local database that does not exist yet is made.

    Raises:
        TrackingError: the store is not there, or can't be reached or used.
    """
    database = database_path(uri)
    if database is not None and not create and not database.exists():
        raise TrackingError(
            f"{database}: no such tracking store", "a store with runs", "train first, or give --tracking-uri"
        )
    # MLflow cuts long values in silence unless told not to; its usage reporting changes the environment offline;
    # and its default of 246 s for a dead server is longer than anybody waits for a first answer.
    os.environ.setdefault("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # standard output is for documents
    try:
        if database is not None:
            _create_once(database)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(view_type=ViewType.ACTIVE_ONLY, max_results=1)
    except Exception as error:  # noqa: BLE001 (each backend raises its own kinds)
        raise TrackingError(
            f"tracking store {mask_credentials(uri)} can't be used ({one_line(error)})",
            "a running MLflow server, or sqlite:///FILE",
            "start it, or give another --tracking-uri",
        ) from None
    return client


@contextmanager
def asking(uri: str) -> Iterator[None]:
    """Name what goes wrong while the store is asked.

    Args:
        uri: of the store.

    Raises:
        OutageError: it does not answer, but may later.
        TrackingError: it refuses.
    """
    try:
        yield
    except (MlflowException, OSError) as error:  # OSError: what requests raises, too
        if isinstance(error, MlflowException) and error.error_code in REFUSALS:
            raise TrackingError(f"{mask_credentials(uri)} refuses ({one_line(error)})") from None
        raise OutageError(
            f"{mask_credentials(uri)} does not answer ({one_line(error)})", "a store that can be asked", "try again"
        ) from None


def database_path(uri: str) -> Path | None:
    """The file of a local database, or ``None`` for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?", 1)[0])


def experiment_id(client: MlflowClient, uri: str, name: str) -> str:
    """Get or create an experiment; never falls back to another one.

    Raises:
        TrackingError: it was deleted, or can't be created.
    """
    database = database_path(uri)
    location = (database.parent / ARTIFACTS_NAME).as_uri() if database else None
    reason = ""
    for _ in range(ATTEMPTS):
        found = client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage != "active":
                raise TrackingError(
                    f"experiment {name!r} was deleted", "an active experiment", "restore it, or choose another name"
                )
            return str(found.experiment_id)
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=PAGE_TAGS))
        except MlflowException as error:  # perhaps another process created it in between
            reason = one_line(error)
    raise TrackingError(f"experiment {name!r} can't be created ({reason})", "a store that can be written")


def experiment_name(client: MlflowClient, experiment: str) -> str:
    """The name of an experiment, by its id."""
    return str(client.get_experiment(experiment).name)


def prepare_store(uri: str, experiment: str) -> None:
    """Create a store and an experiment before ``mlflow run`` does, which would choose another artifact folder."""
    experiment_id(open_store(uri), uri, experiment)


def web_address(uri: str, experiment: str, run_id: str) -> str | None:
    """The run's page, where the store is a server."""
    if urlsplit(uri).scheme not in ("http", "https"):
        return None
    return f"{mask_credentials(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def _database_uri(uri: str, say: Say, *, said: bool) -> str:
    """A bare directory (the file store of old) or a database file to the database's URI."""
    if uri.startswith("file:"):
        uri = os.path.abspath(url2pathname(urlsplit(uri).path))
    if "://" in uri or uri.startswith("databricks"):
        return uri
    path = Path(uri)
    if path.suffix == ".db":
        return f"sqlite:///{path}"
    database = f"sqlite:///{path / DATABASE_NAME}"
    if said:
        say(f"tracking to {database}: the file store of old ({path}) is no longer supported by MLflow")
    return database


def _create_once(database: Path) -> None:
    """Create a local database under a lock: MLflow leaves it unusable when two processes do so at once."""
    if database.exists() and database.stat().st_size:
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{database}.lock"):
        if database.exists() and database.stat().st_size:
            return
        # Made aside and renamed: whoever sees the database sees all of it, and a kill leaves none that is half made.
        aside = database.with_name(f".{database.name}.new")
        aside.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        with sqlite3.connect(aside) as connection:  # readers and writers then do not wait for each other
            connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
        os.replace(aside, database)
