"""File names and tracking URIs that do not depend on the current directory."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from topotrain.credentials import mask_uri
from topotrain.errors import ConfigError
from topotrain.fields import DEMO

# A host with its port, or one that is none other's name; then perhaps a path.
BARE_HOST = re.compile(
    r"\S+:\S*@\S+|(?://)?(?:\S*@)?(?:(?:\[[0-9a-f:.]+\]|[\w.-]+):\d{1,5}|localhost|\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-f:.]+\])(?:[/?#].*)?",
    re.IGNORECASE,
)
SCHEME_ALONE = re.compile(r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?:(?!//)", re.IGNORECASE)


def resolve_paths(raw: dict[str, Any], base: Path, where: str) -> None:
    """Make the file names of one source absolute, relative to where that source stands."""
    paths = raw.get("paths")
    if isinstance(paths, dict):
        for key, value in paths.items():
            if isinstance(value, str) and value != DEMO:
                if not value.strip() or "\0" in value:
                    raise ConfigError(f"{where}: paths.{key}: got {value!r}", "the path of a file or directory")
                paths[key] = absolute_path(value, base)
    mlflow = raw.get("mlflow")
    if isinstance(mlflow, dict) and isinstance(mlflow.get("tracking_uri"), str):
        mlflow["tracking_uri"] = absolute_uri(mlflow["tracking_uri"], base)


def absolute_path(path: str, base: Path) -> str:
    """A normalised absolute path; ``~`` is the home directory, unless it names a user who does not exist."""
    return os.path.normpath(base / os.path.expanduser(path))


def absolute_uri(uri: str, base: Path) -> str:
    """A tracking URI whose local part does not depend on the current directory.

    Raises:
        ConfigError: a host without ``http://``, which would else be taken for a folder.
    """
    _refuse_bare_host(uri)
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////") and ":memory:" not in uri:
        return f"sqlite:///{os.path.normpath(base / uri.removeprefix('sqlite:///'))}"
    if "://" not in uri and not uri.startswith(("file:", "databricks")):
        return absolute_path(uri, base)
    return uri


def _refuse_bare_host(uri: str) -> None:
    if "://" in uri:
        return
    scheme = SCHEME_ALONE.match(uri)
    if scheme:
        slashes = "///" if scheme[1].lower() == "sqlite" else "//"
        raise ConfigError(
            f"tracking URI {mask_uri(uri)!r} has no // after {scheme[0]}",
            f"{scheme[0]}{slashes}...",
            "write it out in full",
        )
    if BARE_HOST.fullmatch(uri):
        address = mask_uri(uri.removeprefix("//"))
        raise ConfigError(
            f"tracking URI {mask_uri(uri)!r} is a host without http://",
            f"http://{address} (or https://{address})",
            f"for a folder of that name write ./{address}",
        )
