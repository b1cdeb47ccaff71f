"""The packed store: the graphs of a directory as memory-mapped arrays, made once and kept up with the files."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from filelock import FileLock, Timeout

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.store_index import DamagedStoreError, StoreIndex
from topotrain.errors import DataError
from topotrain.files import TEMPORARY_PREFIX, cache_dir, write_whole
from topotrain.progress import Track
from topotrain.schema.feature_schema import GraphFacts
from topotrain.text import one_line

if TYPE_CHECKING:
    from topotrain.data.graph_file import Graph
    from topotrain.data.packing import PackedGraph
    from topotrain.data.parts import MemoryPart, Part

log = logging.getLogger("topotrain")

PREFIX = "packed-"
ABOUT = "about.json"  # for whoever asks what the folder is
DAMAGED_MARK = "damaged"
KEPT = "kept"  # what was computed of graphs and will be asked for again
MOST_KEPT = 200
SLACK = 2**20  # bytes that gone graphs may always take
IN_MEMORY = "in memory"
SHOWN_FAILURES = 10
SAID_FROM = 1_000  # graphs; fewer are packed before anybody wonders
RELEASE_AFTER = 16 * 2**20  # bytes read from mapped files


def store_folder(root: Path, cache: Path | None = None) -> Path:
    """Where the packed graphs of a directory are kept."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in root.name)[:40]
    digest = hashlib.sha256(os.fsencode(os.path.realpath(root))).hexdigest()[:16]
    return (cache or cache_dir()) / f"{PREFIX}{name}-{digest}"


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
        self._repaired: dict[int, PackedGraph] = {}
        self._read = 0

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
            facts_only: whether nobody will ask for the graphs themselves; their arrays are then not mapped.

        Raises:
            DataError: nothing can be written there, and the graphs do not fit into memory.
        """
        folder = store_folder(directory.root, cache)
        index = _read_index(folder, log.debug)
        if index is not None and not _stale(index, directory, keys):
            store = cls(directory, folder, index)
            with suppress(DataError):  # another process has just packed anew: look again
                return store if facts_only else store.mapped()
        try:
            with _locked(folder):
                store = cls(directory, folder, *_brought_up(folder, directory, keys, progress))
                return store if facts_only else store.mapped()
        except OSError as error:
            log.warning("%s: packed graphs can't be kept (%s): they stay in memory", folder, one_line(error))
        return cls(directory, folder, *_in_memory(folder, directory, keys, progress))

    def __len__(self) -> int:
        return len(self.index.keys)

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
        """A graph as the training step wants it, not copied.

        Raises:
            DataError: it is damaged, and its file is no longer what was packed.
        """
        from topotrain.data.parts import Extent, checksum

        if position in self._repaired:
            return self._repaired[position]
        row = self.index.rows[position]
        extent = Extent(*(tuple(row[name].tolist()) for name in ("x", "edge_attr", "edges")))
        packed = self._part(int(row["part"])).graph(extent)
        if checksum(packed) != row["checksum"]:
            packed = self._repaired[position] = self._again(position)
        self._count(packed)
        return packed

    def graph(self, position: int) -> Graph:
        """A graph as its file has it, with the metadata that a schema is resolved from."""
        from topotrain.data.packing import unpack

        facts = self.facts(position)
        return unpack(self.packed(position), facts.key, facts.metadata)

    def read(self, positions: Sequence[int]) -> list[PackedGraph]:
        """Several graphs, not copied."""
        return [self.packed(position) for position in positions]

    def _count(self, packed: PackedGraph) -> None:
        """Give mapped memory back now and then."""
        self._read += packed.x.nbytes + packed.edge_attr.nbytes + packed.edges.nbytes
        if self._read > RELEASE_AFTER:
            self._read = 0
            for part in self._parts.values():
                part.release()

    def mapped(self) -> GraphStore:
        """This store, with every part mapped: it stays whole when another process packs changed files anew.

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
        if not self._repaired:
            log.warning(
                "%s: damaged (checksum of graph %s): read from the files, packed again next time", self.folder, key
            )
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
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
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


def _read_index(folder: Path, say: Callable[..., None]) -> StoreIndex | None:
    """The index of a store that is whole; ``None`` where there is none."""
    try:
        index = StoreIndex.read(folder)
        if (folder / DAMAGED_MARK).exists():
            raise DamagedStoreError("damaged (a checksum was wrong)")
        return index
    except FileNotFoundError:
        return None
    except DamagedStoreError as error:
        say("%s: %s: packing the graphs again", folder, error)
        return None


def _stale(index: StoreIndex, directory: GraphDirectory, keys: Sequence[str]) -> list[str]:
    """Keys that are not packed, or whose files changed since."""
    states = directory.states(keys)
    position = np.array([index.position.get(key, -1) for key in keys], dtype=np.int64)
    same = position >= 0
    rows = index.rows[position[same]]
    same[same] = (rows["size"] == states[same, 0]) & (rows["modified"] == states[same, 1])
    return [key for key, one in zip(keys, same, strict=True) if not one]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time brings a store up to date; the next one waits, and says so.

    Raises:
        OSError: nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("waiting for another process that packs the same graphs (%s)", lock.lock_file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _brought_up(
    folder: Path, directory: GraphDirectory, keys: Sequence[str], progress: Track | None
) -> tuple[StoreIndex, Mapping[str, DataError]]:
    """Pack what is missing or changed, drop what is gone, write the index."""
    from topotrain.data.store_build import Packed, pack_files

    index = _read_index(folder, log.warning)
    if index is None:
        index = StoreIndex()
        _clear(folder)
    stale = _stale(index, directory, keys)
    if not stale:  # another process was first
        return index, {}
    gone = set(stale) | (set(index.keys) - set(directory.keys))
    kept = index.only(np.array([key not in gone for key in index.keys], dtype=bool))
    if _mostly_dead(folder, index, kept):
        stale, kept = sorted({*stale, *kept.keys}), StoreIndex()
    began = time.monotonic()
    if len(stale) >= SAID_FROM:
        log.info("packing %d graphs (once: they are kept in %s)", len(stale), folder)
    results: list[Packed] = []

    def graphs() -> Iterator[str]:
        """One after the other, for a bar that counts them."""
        for packed in pack_files(directory, folder, stale):
            results.append(packed)
            yield from packed.keys

    try:
        for _ in progress(graphs(), len(stale), "packing graphs") if progress else graphs():
            pass
        joined = StoreIndex.joined([kept, *(packed.index for packed in results)])
        about = {"graphs": str(directory.root), "num_graphs": len(joined.keys)}
        write_whole(folder / ABOUT, json.dumps(about).encode())
        joined.write(folder)
    finally:
        _sweep(folder)
    if len(stale) >= SAID_FROM:
        log.info("packed %d graphs in %.1f s", len(stale), time.monotonic() - began)
    return joined, {key: error for packed in results for key, error in packed.failures.items()}


def _mostly_dead(folder: Path, before: StoreIndex, kept: StoreIndex) -> bool:
    """Whether more than half of what the parts hold is of graphs that changed or are gone."""
    held = sum(sum(sizes.values()) for _, sizes in kept.parts)
    rows = kept.rows
    live = sum(
        int((rows[name][:, 1] * width).sum()) * 4
        for name, width in (("x", rows["node_dim"]), ("edge_attr", np.maximum(rows["edge_dim"], 0)), ("edges", 5))
    )
    return held > 2 * live + SLACK


def _sweep(folder: Path) -> None:
    """Remove parts that the index does not name: of a build that was cut off, or of graphs that are gone."""
    try:
        named = {name for name, _ in StoreIndex.read(folder).parts}
    except (OSError, DamagedStoreError):
        named = set()
    for path in folder.iterdir():
        if path.name.startswith("part-") and path.name not in named:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(TEMPORARY_PREFIX):
            path.unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _in_memory(
    folder: Path, directory: GraphDirectory, keys: Sequence[str], progress: Track | None
) -> tuple[StoreIndex, Mapping[str, DataError], MemoryPart]:
    """What is not in the store already is read into memory.

    Raises:
        DataError: it does not fit.
    """
    from topotrain.data.parts import MemoryPart
    from topotrain.data.store_build import pack_in_memory

    try:
        index = _read_index(folder, log.debug) or StoreIndex()
    except OSError:
        index = StoreIndex()
    stale = _stale(index, directory, keys)
    needed, free = int(directory.states(stale)[:, 0].sum()), psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"{folder}: packed graphs can't be kept there, and {len(stale)} graphs ({needed / 2**30:.1f} GB) do not "
            f"fit into memory ({free / 2**30:.1f} GB free)",
            "room for packed graphs",
            "free some, or say where else with paths.cache",
        )
    part = MemoryPart()
    shown = progress(stale, len(stale), "reading graphs") if progress else stale
    packed = pack_in_memory(directory, shown, part, IN_MEMORY)
    unchanged = index.only(np.array([key not in set(stale) for key in index.keys], dtype=bool))
    return StoreIndex.joined([unchanged, packed.index]), packed.failures, part
