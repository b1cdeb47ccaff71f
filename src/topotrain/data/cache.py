"""What is kept in the cache directory: packed, built and scored graphs, the demo data, MLflow's tables."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from topotrain.data.graph_cache import FOLDER as SCORED_FOLDER
from topotrain.data.store_upkeep import ABOUT, PREFIX
from topotrain.errors import DataError
from topotrain.files import cache_dir, walk_paths
from topotrain.reading.json_file import read_json

PACKED, BUILT, SCORED = "packed graphs", "built graphs", "scored graphs"
DEMO, TABLES = "demo data", "MLflow's tables"
BUILT_FOLDER = "graphs"  # as batches name it


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache.

    Attributes:
        path: the folder.
        kind: what it is.
        graphs: the graph directory that it was packed from; "" for other kinds.
        num_graphs: how many graphs it holds; ``None`` where nothing says.
        num_bytes: on the disk.
        changed: when it was last written, UTC.
    """

    path: Path
    kind: str
    graphs: str
    num_graphs: int | None
    num_bytes: int
    changed: str

    @property
    def gone(self) -> bool:
        """Whether the graphs that it was packed from are there no more."""
        return bool(self.graphs) and not Path(self.graphs).is_dir()

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.path.name,
            "kind": self.kind,
            "graphs": self.graphs,
            "gone": self.gone,
            "num_graphs": self.num_graphs,
            "num_bytes": self.num_bytes,
            "changed": self.changed,
            "path": str(self.path),
        }


def list_cache(cache: Path | None = None) -> list[CacheEntry]:
    """What is kept, the largest first.

    Args:
        cache: the cache directory; by default the user's.
    """
    root = cache or cache_dir()
    folders = [path for path in _folders(root) if path.name != BUILT_FOLDER] + _folders(root / BUILT_FOLDER)
    found = [entry for entry in map(_entry, folders) if entry is not None]
    return sorted(found, key=lambda entry: (-entry.num_bytes, entry.path.name))


def clear_cache(
    names: Collection[str] = (), *, only_gone: bool = False, cache: Path | None = None
) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Remove what can be made again.

    Args:
        names: which entries; by default all.
        only_gone: only packed graphs whose graph directory is there no more.
        cache: the cache directory; by default the user's.

    Returns:
        What was removed, and what is being written by another process and stays.

    Raises:
        DataError: no entry of such a name.
    """
    entries = list_cache(cache)
    unknown = sorted(set(names) - {entry.path.name for entry in entries})
    if unknown:
        raise DataError(f"nothing of the name {unknown[0]!r} is kept", "a name that topotrain cache list shows")
    removed: list[CacheEntry] = []
    busy: list[CacheEntry] = []
    for entry in entries:
        if (names and entry.path.name not in names) or (only_gone and not entry.gone):
            continue
        (removed if _remove(entry.path) else busy).append(entry)
    return removed, busy


def _remove(path: Path) -> bool:
    lock = path.with_name(f"{path.name}.lock")
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(path, ignore_errors=True)
    except Timeout:
        return False
    lock.unlink(missing_ok=True)
    return True


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []


def _entry(path: Path) -> CacheEntry | None:
    about: dict[str, Any] = {}
    if path.name.startswith(PREFIX):
        kind = PACKED
        try:
            about = read_json(path / ABOUT, "what was packed")
        except DataError:  # a store whose first build was cut off
            about = {}
    elif path.parent.name == BUILT_FOLDER:
        kind = BUILT
    elif path.name == SCORED_FOLDER:
        kind, about = SCORED, {"num_graphs": sum(1 for _ in walk_paths(str(path)))}
    elif path.name.startswith("demo-"):
        kind = DEMO
    elif path.name.startswith("mlflow-"):
        kind = TABLES
    else:
        return None
    sizes = [os.path.getsize(name) for name in walk_paths(str(path))]
    changed = datetime.fromtimestamp(path.stat().st_mtime, tz=UTC).isoformat(timespec="seconds")
    return CacheEntry(path, kind, str(about.get("graphs", "")), about.get("num_graphs"), sum(sizes), changed)
