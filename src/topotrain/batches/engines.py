"""The engines by their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topotrain.batches.engine import Engine
from topotrain.batches.local_engine import LocalEngine
from topotrain.cluster.workers import EngineName, check_engine


@contextmanager
def open_engine(name: EngineName, address: str | None, uri: str, folder: Path, jobs: int) -> Iterator[Engine]:
    """Have an engine for the length of a block, at whose end no command is under way.

    Args:
        name: ``local`` for processes of this machine, or ``ray``.
        address: of a Ray cluster; by default Ray is started on this machine, and ended afterwards.
        uri: of the tracking store that commands use.
        folder: where configurations and logs are written.
        jobs: commands at once.

    Raises:
        ConfigError: no such engine, or none that can be had.
    """
    check_engine(name, address)
    if name == "local":
        yield LocalEngine(uri, folder, jobs)
        return
    from topotrain.batches.ray_engine import RayEngine, check_store
    from topotrain.cluster.ray_cluster import open_cluster

    check_store(uri, address)
    with open_cluster(address) as cluster:
        yield RayEngine(cluster, uri, folder, jobs)
