"""Where the tracking store is."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from topotrain.config import absolute_uri
from topotrain.credentials import mask_uri
from topotrain.errors import ConfigError
from topotrain.invocation import adopted_run, environment_uri
from topotrain.limits import ADDRESS
from topotrain.text import did_you_mean, is_utf8, one_line

DATABASE_NAME = "mlflow.db"
ARTIFACTS_NAME = "mlartifacts"
SERVERS = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
STORE_PLUGINS = "mlflow.tracking_store"  # a group of entry points
QUOTED = "in a user name or password write @ as %40, / as %2F, : as %3A"
OTHER_SCHEMES = ("databricks", "databricks-uc", "uc")

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

    Raises:
        ConfigError: it is none that MLflow could use.
    """
    variable = environment_uri()
    asked = option or configured
    here = Path.cwd()
    if adopted_run() and variable:
        if asked and absolute_uri(asked, here) != absolute_uri(variable, here):
            say(f"tracking to {mask_uri(variable)}, which mlflow run chose, not to {mask_uri(asked)}")
        asked = variable
    uri = asked or variable or str(here / DATABASE_NAME)
    if len(uri) > ADDRESS.value:
        raise ConfigError(f"the tracking URI has {len(uri)} characters", "an address", ADDRESS.raise_it)
    if "\0" in uri or not is_utf8(uri):
        raise ConfigError(f"tracking URI {mask_uri(uri)!r} is no text in UTF-8", "an address")
    uri = _database_uri(absolute_uri(uri, here), say, said=bool(asked or variable))
    _check(uri)
    return uri


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
    return uri.partition("://")[0].lower() in SERVERS


def web_address(uri: str, experiment: str, run_id: str) -> str | None:
    """The run's page, where the store is a server."""
    if not is_server(uri):
        return None
    return f"{mask_uri(uri).rstrip('/')}/{page(experiment, run_id)}"


def page(experiment: str = "", run_id: str = "") -> str:
    """Where MLflow's page shows a run, an experiment's runs, or all experiments, below its address.

    Without the workflow, MLflow 3 shows a first visitor pages for language models.
    """
    parts = ["#/experiments", *([experiment, "runs"] if experiment else []), *([run_id] if run_id else [])]
    return f"{'/'.join(parts)}?workflowType=machine_learning"


def local_folder(uri: str) -> Path | None:
    """The folder of this machine that an artifact URI names, or ``None`` for any other."""
    if uri.startswith("file:"):
        return Path(url2pathname(urlsplit(uri).path))
    return None if re.match(r"[A-Za-z][\w+.-]+:", uri) else Path(uri)


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


def _check(uri: str) -> None:
    """Refuse what MLflow could not use, before any library says so in words of its own, with half a password in them.

    Raises:
        ConfigError: a scheme that MLflow does not know, or an address that can't be parsed.
    """
    scheme, separator, _ = uri.partition("://")
    kind = scheme.lower().partition("+")[0]
    known = [*SERVERS, *DATABASES, *OTHER_SCHEMES, *(one.name for one in entry_points(group=STORE_PLUGINS))]
    if separator and kind not in known:
        near = did_you_mean(kind, known)
        raise ConfigError(f"tracking URI {mask_uri(uri)!r} has an unknown scheme", f"one of {', '.join(known)}", near)
    if kind in SERVERS:
        _check_server(uri)
    elif kind == "sqlite":
        _check_file(uri)
    elif kind in DATABASES:
        _check_database(uri)


def _check_file(uri: str) -> None:
    """MLflow would try a folder again for minutes, and keep what it is told without a file in memory alone."""
    name = uri.partition("://")[2].partition("?")[0].removeprefix("/")
    if name == "" or ":memory:" in name or name.startswith("file:"):
        raise ConfigError(f"tracking URI {mask_uri(uri)!r} names no file", "sqlite:///FILE, as in sqlite:///mlflow.db")
    if not uri.startswith("sqlite:///"):
        raise ConfigError(f"tracking URI {mask_uri(uri)!r} names a driver or a host", "sqlite:///FILE")
    try:
        mode = os.stat(name).st_mode
    except FileNotFoundError:
        return  # it is made
    except (OSError, ValueError) as error:  # too long a name, a loop of links, a file on the way, a null character
        raise ConfigError(
            f"tracking URI {mask_uri(uri)!r}: {one_line(error)}", "the file of a database that can be opened"
        ) from None
    if not stat.S_ISREG(mode):
        folder = stat.S_ISDIR(mode)
        raise ConfigError(
            f"tracking URI {mask_uri(uri)!r}: {name} is {'a folder' if folder else 'no regular file'}",
            "the file of a database",
            f"{DATABASE_NAME} in it?" if folder else "",
        )


def _check_server(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        usable = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # of the port, or of brackets
        usable = False
    if not usable or any(character.isspace() for character in parts.netloc):
        raise ConfigError(f"tracking URI {mask_uri(uri)!r} can't be parsed", "http://HOST:PORT", QUOTED)


def _check_database(uri: str) -> None:
    from sqlalchemy.engine import make_url  # here, since most stores are files and servers
    from sqlalchemy.exc import ArgumentError

    try:
        host = make_url(uri).host or ""
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"tracking URI {mask_uri(uri)!r} can't be parsed", "DIALECT://HOST/DATABASE", QUOTED
        ) from None
    if "@" in host:
        raise ConfigError(f"tracking URI {mask_uri(uri)!r} has an @ too many", "a password without @", QUOTED)
