"""The engines by their names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from topotrain.batches.engine import Engine
from topotrain.batches.local_engine import LocalEngine
from topotrain.cluster.workers import EngineName
from topotrain.errors import ConfigError
from topotrain.tracking.address import database_path


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
        ConfigError: Ray can't be had.
    """
    if name == "local":
        yield LocalEngine(uri, folder, jobs)
        return
    from topotrain.batches.ray_engine import RayEngine
    from topotrain.cluster.ray_cluster import open_cluster

    with open_cluster(address) as cluster:
        yield RayEngine(cluster, uri, folder, jobs)


def check_store(uri: str, address: str | None) -> None:
    """See that every node can use the tracking store; a Ray that is started on this machine has no other nodes.

    Raises:
        ConfigError: it is a file of this machine.
    """
    database = database_path(uri)
    if database is not None and address is not None:
        raise ConfigError(
            f"the tracking store is the file {database}",
            "a server, which every node of a cluster reaches",
            "start one (docs/server.md) and give its address as --tracking-uri",
        )
