"""Graphs of structures that were scored, kept so that they need not be built again: each whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from topotrain.files import TEMPORARY_PREFIX, cache_dir, write_whole
from topotrain.limits import GRAPH_CACHE_BYTES

log = logging.getLogger("topotrain")

FOLDER = "scored-graphs"  # in the cache directory
SUFFIX = ".graph"
CHECKSUM_BYTES = 32  # of the SHA-256 before each graph
FULL_AFTER_TRIM = 0.9  # of the limit, so that not every further graph makes room again
TRIMS_A_FILL = 16  # room is made after so many parts of the limit were written
LEFT_SECONDS = 3600.0  # after which what a killed process wrote aside is nobody's


class GraphCache:
    """Files by key, at most so many bytes of them; those that were not used for longest go first.

    Any number of processes may use one folder at once. A file that is not what was written counts as none.

    Args:
        folder: where they are; by default in the user's cache directory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_dir() / FOLDER
        self._writable, self._written = True, 0

    def get(self, key: str) -> bytes | None:
        """What is kept under a key, if anything; it then counts as used now.

        Args:
            key: hexadecimal.
        """
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        checksum, graph = content[:CHECKSUM_BYTES], content[CHECKSUM_BYTES:]
        with suppress(OSError):
            if hashlib.sha256(graph).digest() != checksum:
                path.unlink(missing_ok=True)
                return None
            os.utime(path)
        return graph

    def put(self, key: str, graph: bytes) -> None:
        """Keep something; where nothing can be written, one line says so and nothing is kept.

        Args:
            key: hexadecimal.
            graph: what to keep.
        """
        if not self._writable:
            return
        try:
            write_whole(self._path(key), hashlib.sha256(graph).digest() + graph)
        except OSError as error:
            self._writable = False
            log.info("graphs are not kept for another call: %s can't be written (%s)", self.folder, error.strerror)
            return
        self._written += len(graph)
        if self._written > GRAPH_CACHE_BYTES.value // TRIMS_A_FILL:
            self.trim()

    def drop(self, key: str) -> None:
        """Keep it no longer."""
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def trim(self) -> None:
        """Make room: remove what was not used for longest, and what killed processes left."""
        self._written = 0
        found: list[tuple[float, int, str]] = []
        try:
            for entry in os.scandir(self.folder):
                with suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    if entry.name.endswith(SUFFIX) and not entry.name.startswith("."):
                        found.append((about.st_mtime, about.st_size, entry.path))
                    elif entry.name.startswith(TEMPORARY_PREFIX) and time.time() - about.st_mtime > LEFT_SECONDS:
                        os.unlink(entry.path)
        except OSError:
            return
        total = sum(size for _, size, _ in found)
        if total <= GRAPH_CACHE_BYTES.value:
            return
        for _, size, path in sorted(found):
            if total <= FULL_AFTER_TRIM * GRAPH_CACHE_BYTES.value:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"
