"""The packed store: the graphs of a directory as arrays on the disk, made once and kept up with the files."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.store_index import StoreIndex
from topotrain.data.store_upkeep import (
    DAMAGED_MARK,
    IN_MEMORY,
    brought_up,
    in_memory,
    locked,
    read_index,
    stale_keys,
    store_folder,
)
from topotrain.errors import DataError
from topotrain.files import write_whole
from topotrain.progress import Track
from topotrain.reading.json_file import read_json
from topotrain.schema.feature_schema import GraphFacts
from topotrain.text import one_line

if TYPE_CHECKING:
    from topotrain.data.graph_file import Graph
    from topotrain.data.packing import KnownGraph, PackedGraph
    from topotrain.data.parts import Extent, MemoryPart, Part

log = logging.getLogger("topotrain")

KEPT = "kept"  # what was computed of graphs and will be asked for again
MOST_KEPT = 200
SHOWN_FAILURES = 10
PLACE = ("part", "start", "num_nodes", "node_dim", "num_rows", "edge_dim", "num_edges")  # as in Extent


class GraphStore:
    """Graphs of a directory.

    Args:
        directory: the graphs' files.
        folder: of the store; ``None`` where all is in memory.
        index: of the graphs.
        failures: why others that were asked for are not there.
        memory: the graphs that could not be written.
    """

    def __init__(
        self,
        directory: GraphDirectory,
        folder: Path | None,
        index: StoreIndex,
        failures: Mapping[str, DataError] | None = None,
        memory: MemoryPart | None = None,
    ) -> None:
        self.directory, self.folder, self.index = directory, folder, index
        self.failures = dict(failures or {})
        self._memory = memory
        self._parts: dict[int, Part | MemoryPart] = {}
        self._damaged = False

    @classmethod
    def open(
        cls,
        directory: GraphDirectory,
        keys: Sequence[str],
        *,
        cache: Path | None = None,
        progress: Track | None = None,
        facts_only: bool = False,
    ) -> GraphStore:
        """The store of a directory, with at least these graphs, packed anew where their files changed.

        Args:
            directory: the graphs' files.
            keys: which of them; those that can't be read are among the ``failures``.
            cache: where stores are kept; by default the user's cache directory.
            progress: wraps the packing to show how far it is.
            facts_only: whether nobody will ask for the graphs themselves; their files are then not opened.

        Raises:
            DataError: nothing can be written there, and the graphs do not fit into memory.
        """
        folder = store_folder(directory.root, cache)
        index = read_index(folder, log.debug)
        if index is not None and not stale_keys(index, directory, keys):
            store = cls(directory, folder, index)
            with suppress(DataError):  # another process has just packed anew: look again
                return store if facts_only else store.opened()
        try:
            with locked(folder):
                store = cls(directory, folder, *brought_up(folder, directory, keys, progress))
                return store if facts_only else store.opened()
        except OSError as error:
            why = error.strerror or one_line(error)
            log.warning(
                "%s: packed graphs can't be kept (%s): they stay in memory; to keep them make room, or set paths.cache",
                *(folder, why),
            )
        return cls(directory, folder, *in_memory(folder, directory, keys, progress))

    @classmethod
    def as_it_is(cls, directory: GraphDirectory, cache: Path | None = None) -> GraphStore:
        """What is packed of a directory's graphs and still what their files hold; nothing is read or packed.

        Args:
            directory: the graphs' files.
            cache: where stores are kept; by default the user's cache directory.
        """
        folder = store_folder(directory.root, cache)
        index = read_index(folder, log.debug) or StoreIndex()
        stale = set(stale_keys(index, directory, index.keys))
        store = cls(directory, folder, index.only(np.array([key not in stale for key in index.keys], dtype=bool)))
        with suppress(DataError):
            return store.opened()
        return cls(directory, None, StoreIndex())

    def __contains__(self, key: str) -> bool:
        return key in self.index.position

    def refuse_failures(self) -> None:
        """Name the graphs that can't be read, the first ten of them.

        Raises:
            DataError: there are some.
        """
        errors = [str(self.failures[key]) for key in sorted(self.failures)]
        if len(errors) == 1:
            raise next(iter(self.failures.values()))
        if errors:
            more = f" and {len(errors) - SHOWN_FAILURES} more" if len(errors) > SHOWN_FAILURES else ""
            raise DataError(
                f"{len(errors)} graphs can't be read: {' | '.join(errors[:SHOWN_FAILURES])}{more}",
                "graphs that can be read",
                "build them again, or remove them",
            )

    def facts(self, position: int) -> GraphFacts:
        """What the schema needs to know of a graph."""
        return self.index.facts(position)

    def packed(self, position: int) -> PackedGraph:
        """A graph as the training step wants it.

        Raises:
            DataError: it is damaged, and its file is no longer what was packed.
        """
        from topotrain.data.parts import checksum, graph_of

        part, extent = self._place(position)
        with suppress(OSError):  # the disk fails, or the file was cut off since it was opened
            words = part.words(extent)
            if checksum(words) == self.index.rows[position]["checksum"]:
                return graph_of(words, extent)
        return self._again(position)

    def _place(self, position: int) -> tuple[Part | MemoryPart, Extent]:
        from topotrain.data.parts import Extent

        part, *place = self._places[position].tolist()
        return self._part(part), Extent(*place)

    @cached_property
    def _places(self) -> npt.NDArray[np.int64]:
        """(num_graphs, 7) the part of each graph, and where it lies there, as in ``Extent``."""
        places = np.stack([self.index.rows[name].astype(np.int64) for name in PLACE], axis=1)
        return np.maximum(places, 0)  # edges of no width

    def known(self, position: int) -> KnownGraph:
        """A graph packed, with what it says of itself."""
        from topotrain.data.packing import KnownGraph

        return KnownGraph(self.facts(position), self.packed(position))

    def graph(self, position: int) -> Graph:
        """A graph as its file has it, with the metadata that a schema is resolved from."""
        from topotrain.data.packing import unpack

        facts = self.facts(position)
        return unpack(self.packed(position), facts.key, facts.metadata)

    def read(self, positions: Sequence[int]) -> list[PackedGraph]:
        """Several graphs."""
        return [self.packed(position) for position in positions]

    def opened(self) -> GraphStore:
        """This store, with every part open: it stays whole when another process packs changed files anew.

        Raises:
            DataError: a part is gone.
        """
        for number in range(len(self.index.parts)):
            self._part(number)
        return self

    def _part(self, number: int) -> Part | MemoryPart:
        from topotrain.data.parts import Part

        if number not in self._parts:
            name, _ = self.index.parts[number]
            if name == IN_MEMORY and self._memory is not None:
                self._parts[number] = self._memory
            else:
                assert self.folder is not None  # noqa: S101 (for the type checker)
                try:
                    self._parts[number] = Part(self.folder / name)
                except (OSError, ValueError) as error:
                    raise DataError(
                        f"{self.folder}: a part of the packed graphs is gone ({one_line(error)})",
                        "packed graphs that stay while they are used",
                        "begin again: they are packed anew",
                    ) from None
        return self._parts[number]

    def _again(self, position: int) -> PackedGraph:
        """A graph whose packed copy is damaged, from its file; the whole store is made again the next time."""
        from topotrain.data.graph_file import read_graph
        from topotrain.data.packing import pack
        from topotrain.data.store_build import tensor_digest

        key = self.index.keys[position]
        path = self.directory.path(key)
        if not self._damaged:
            self._damaged = True
            log.warning("%s: damaged (graph %s): read from the files, packed again next time", self.folder, key)
            if self.folder is not None:
                with suppress(OSError):
                    (self.folder / DAMAGED_MARK).touch()
        graph = read_graph(path, key)
        if tensor_digest(graph) != bytes(self.index.rows[position]["digest"]):
            raise DataError(
                f"{path}: changed since it was packed, and the packed copy is damaged",
                "the graphs that the run began with",
                "begin again: they are packed anew",
            )
        return pack(graph)

    def remembered(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """What was computed of these graphs before, else what is computed now.

        Args:
            kind: what it is.
            key: hexadecimal digest of all that it depends on.
            make: computes it; plain values.
        """
        if self.folder is None or self._memory is not None:
            return make()
        path = self.folder / KEPT / f"{kind}-{key}.json"
        with suppress(DataError, KeyError, TypeError):
            content = read_json(path, kind)
            if content["sha256"] == _sha256(content["value"]):
                return content["value"]
        value = make()
        with suppress(OSError):  # else it is computed again the next time
            write_whole(path, json.dumps({"sha256": _sha256(value), "value": value}).encode())
            for old in sorted(path.parent.iterdir(), key=lambda one: one.stat().st_mtime)[:-MOST_KEPT]:
                old.unlink(missing_ok=True)
        return value


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
