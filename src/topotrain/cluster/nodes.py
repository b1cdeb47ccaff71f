"""What a node of a cluster says of itself: its software, what it sees and reaches."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from urllib.parse import urlsplit

from topotrain.errors import ConfigError
from topotrain.version import __version__

REACH_SECONDS = 5.0
PORTS = {"https": 443, "postgresql": 5432, "mysql": 3306}
SHARED_DISK = "put it on a disk that all nodes see under the same path"
SAME = "install the same environment there"


@dataclass(frozen=True)
class Seen:
    """What a node says of itself.

    Attributes:
        versions: of what decides results, by name.
        missing: paths that can't be read there.
        unreachable: why the tracking server can't be reached from there; "" where it can.
    """

    versions: Mapping[str, str]
    missing: tuple[str, ...]
    unreachable: str

    def check(self, node: str) -> None:
        """See that jobs can run there as they would here.

        Args:
            node: its name.

        Raises:
            ConfigError: they can't.
        """
        for name, version in versions().items():
            if self.versions.get(name) != version:
                has = self.versions.get(name) or "none"
                raise ConfigError(
                    f"node {node} has {name} {has}, this machine {version}", "the same versions on every node", SAME
                )
        if self.missing:
            raise ConfigError(f"{self.missing[0]} is not visible from node {node}", "what every node sees", SHARED_DISK)
        if self.unreachable:
            raise ConfigError(
                f"node {node} does not reach the tracking server ({self.unreachable})",
                "a server that every node reaches",
                "give its address in the network of the nodes",
            )


def unusable(node: str, reason: str) -> ConfigError:
    """What to say of a node that can't even be asked."""
    return ConfigError(f"node {node} does not run topotrain ({reason})", f"topotrain {__version__} on every node", SAME)


def server_of(uri: str | None) -> tuple[str, int] | None:
    """Host and port of a server's address, without what else it holds; ``None`` for a file."""
    parts = urlsplit(uri or "")
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or PORTS.get(parts.scheme, 80)


def look_around(paths: Sequence[str], server: tuple[str, int] | None) -> Seen:
    """Called on the node.

    Args:
        paths: absolute, to be read there.
        server: to be reached from there.
    """
    unreachable = ""
    if server is not None:
        try:
            socket.create_connection(server, timeout=REACH_SECONDS).close()
        except OSError as error:
            unreachable = f"{server[0]}:{server[1]}: {error}"
    return Seen(versions(), tuple(path for path in paths if not os.access(path, os.R_OK)), unreachable)


def versions() -> dict[str, str]:
    """Of what decides a result's bits."""
    found = {"topotrain": __version__, "Python": platform.python_version()}
    for name in ("torch", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found
