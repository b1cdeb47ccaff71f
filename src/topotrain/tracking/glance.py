"""A quick look at the names in a local store, for the shell: past MLflow, which takes seconds to import."""

from __future__ import annotations

import sqlite3
from typing import Any

from topotrain.tracking.address import database_path, resolve_tracking_uri

NEWEST = 200  # runs that are offered
WAIT_SECONDS = 0.2


def run_names(tracking_uri: str | None) -> list[tuple[str, str]]:
    """Names and ids of the newest runs; nothing of a store that is not local.

    Args:
        tracking_uri: of the command line.

    Raises:
        sqlite3.Error: the database can't be read.
    """
    query = "SELECT name, run_uuid FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time DESC LIMIT ?"
    return [(str(name), str(run_id)) for name, run_id in _ask(tracking_uri, query, NEWEST)]


def model_names(tracking_uri: str | None) -> list[str]:
    """Names of registered models; see ``run_names``."""
    return [str(name) for (name,) in _ask(tracking_uri, "SELECT name FROM registered_models ORDER BY name")]


def model_uris(tracking_uri: str | None) -> list[str]:
    """URIs by alias, then by version, the newest first; see ``run_names``."""
    aliases = _ask(tracking_uri, "SELECT name, alias FROM registered_model_aliases ORDER BY name, alias")
    query = "SELECT name, version FROM model_versions WHERE current_stage != ? ORDER BY name, version DESC"
    versions = _ask(tracking_uri, query, "Deleted_Internal")
    return [*(f"models:/{name}@{alias}" for name, alias in aliases), *(f"models:/{n}/{v}" for n, v in versions)]


def _ask(tracking_uri: str | None, query: str, *values: Any) -> list[tuple[Any, ...]]:
    database = database_path(resolve_tracking_uri(tracking_uri, None, lambda line: None))
    if database is None or not database.is_file():
        return []
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=WAIT_SECONDS)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()
