"""Graphs that an earlier call built, found again by what decides them: input, modules, reader, libraries."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from topotrain.data.graph_cache import GraphCache
from topotrain.disk import EXPECTED
from topotrain.errors import DataError
from topotrain.features.graph import GraphOutcome, GraphTask, kept_outcome
from topotrain.features.module_set import ModuleSet, describe_set
from topotrain.features.records import package_versions
from topotrain.features.structure import READER_VERSION


class KeptGraphs:
    """Graphs in a cache, for builds with one set of modules.

    Args:
        cache: where they are.
        modules: of the builds.
    """

    def __init__(self, cache: GraphCache, modules: ModuleSet) -> None:
        self._cache = cache
        brought = {kind: (one["package"], one["package_version"]) for kind, one in describe_set(modules).items()}
        self._made_by = json.dumps([READER_VERSION, brought, package_versions()], sort_keys=True)

    def fetch(self, task: GraphTask, target: Path) -> GraphOutcome | None:
        """Write a graph that is kept where a build wants it.

        Args:
            task: what would be computed.
            target: the graph file.

        Returns:
            Its outcome; None where there is none, or the structure can't be read.

        Raises:
            DataError: the file can't be written.
        """
        try:
            key = self._key(task.digest(task.content()))
        except DataError:  # the build says what is wrong
            return None
        graph = self._cache.get(key)
        if graph is None:
            return None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(graph)
        except OSError as error:
            raise DataError(f"{target}: cannot be written ({error.strerror})", EXPECTED, "make room") from error
        outcome = kept_outcome(task, target)
        if outcome is None:
            self._cache.drop(key)
            target.unlink(missing_ok=True)
        return outcome

    def keep(self, digest: str, target: Path) -> None:
        """Keep a graph that was just built.

        Args:
            digest: of its input and modules.
            target: the graph file.
        """
        self._cache.put(self._key(digest), target.read_bytes())

    def _key(self, digest: str) -> str:
        return hashlib.sha256(f"{digest}\n{self._made_by}".encode()).hexdigest()
