"""Where the tracking store is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from topotrain.config import absolute_uri
from topotrain.credentials import mask_credentials
from topotrain.invocation import adopted_run, environment_uri

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"

Say = Callable[[str], None]


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
    variable = environment_uri()
    asked = option or configured
    here = Path.cwd()
    if adopted_run() and variable:
        if asked and absolute_uri(asked, here) != absolute_uri(variable, here):
            say(f"tracking to {mask_credentials(variable)}, which mlflow run chose, not to {mask_credentials(asked)}")
        asked = variable
    uri = asked or variable or str(here / DATABASE_NAME)
    return _database_uri(absolute_uri(uri, here), say, said=bool(asked or variable))


def database_path(uri: str) -> Path | None:
    """The file of a local database, or ``None`` for any other store."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").split("?", 1)[0])


def artifact_root(uri: str) -> str | None:
    """Where artifacts of a local database's experiments go; ``None`` where the store decides."""
    database = database_path(uri)
    return (database.parent / ARTIFACTS_NAME).as_uri() if database else None


def is_server(uri: str) -> bool:
    """Whether the store is a server, which has a web page of its own."""
    return urlsplit(uri).scheme in ("http", "https")


def web_address(uri: str, experiment: str, run_id: str) -> str | None:
    """The run's page, where the store is a server."""
    if not is_server(uri):
        return None
    return f"{mask_credentials(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def local_folder(uri: str) -> Path | None:
    """The folder of this machine that an artifact URI names, or ``None`` for any other."""
    root = url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri
    return None if "://" in root else Path(root)


def _database_uri(uri: str, say: Say, *, said: bool) -> str:
    """A bare directory (the legacy file store) or a database file to the database's URI."""
    if uri.startswith("file:"):
        uri = os.path.abspath(url2pathname(urlsplit(uri).path))
    if "://" in uri or uri.startswith("databricks"):
        return uri
    path = Path(uri)
    if path.suffix == ".db":
        return f"sqlite:///{path}"
    database = f"sqlite:///{path / DATABASE_NAME}"
    if said:
        say(f"tracking to {database}: the legacy file store ({path}) is no longer supported by MLflow")
    return database
