"""File names and tracking URIs that do not depend on the current directory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from topotrain.errors import ConfigError
from topotrain.fields import DEMO


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
    """A tracking URI whose local part does not depend on the current directory."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////") and ":memory:" not in uri:
        return f"sqlite:///{os.path.normpath(base / uri.removeprefix('sqlite:///'))}"
    if "://" not in uri and not uri.startswith(("file:", "databricks")):
        return absolute_path(uri, base)
    return uri
