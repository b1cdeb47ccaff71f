"""Packing graph files: read, check, sort, write, by several processes where it pays."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.graph_file import Graph, read_graph
from topotrain.data.packing import pack
from topotrain.data.parts import MemoryPart, PartWriter
from topotrain.data.store_index import GRAPH, NO_WIDTH, StoreIndex, metadata_text
from topotrain.errors import DataError
from topotrain.processes import cores, run_tasks

# Starting a process takes as long as packing some thousands of graphs.
GRAPHS_A_PROCESS = 2_000
GRAPHS_A_PART = (500, 20_000)  # at least, at most
PARTS = 50  # aimed at
# The clock of a file system ticks more slowly than ours: a file changed this shortly before it was read may change
# again without another time.
UNSURE_NS = 50_000_000


@dataclass(frozen=True)
class PackTask:
    """Graphs to pack into new parts.

    Attributes:
        root: the graph directory.
        folder: the store.
        keys: which graphs.
    """

    root: Path
    folder: Path
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Packed:
    """What came of it.

    Attributes:
        index: of the graphs that could be read.
        failures: why the others could not.
    """

    index: StoreIndex
    failures: Mapping[str, DataError] = field(default_factory=dict)

    @property
    def keys(self) -> list[str]:
        """All that were looked at."""
        return [*self.index.keys, *self.failures]


def pack_files(directory: GraphDirectory, folder: Path, keys: Sequence[str]) -> Iterator[Packed]:
    """Pack graphs into new parts of a store.

    Args:
        directory: the graphs.
        folder: the store.
        keys: which of them.

    Raises:
        OSError: a part can't be written.
        DataError: a process that packs died.
    """
    least, most = GRAPHS_A_PART
    size = min(max(len(keys) // PARTS, least), most)
    tasks = [PackTask(directory.root, folder, tuple(keys[at : at + size])) for at in range(0, len(keys), size)]
    jobs = min(cores(), len(keys) // GRAPHS_A_PROCESS) or 1
    yield from run_tasks(pack_part, tasks, jobs, _died)


def _died(task: PackTask) -> Packed:
    raise DataError(
        f"{task.root}: the process that packed the graphs {task.keys[0]} to {task.keys[-1]} died",
        "memory for it, and graphs that can be read",
        "look at these graphs, or try again",
    )


def pack_part(task: PackTask) -> Packed:
    """Pack graphs into a part of their own."""
    name = f"part-{uuid.uuid4().hex[:16]}"
    part = PartWriter(task.folder / name)
    try:
        rows, failures = _packed_rows(GraphDirectory(task.root), task.keys, part)
    finally:
        size = part.close()
    return _result(rows, failures, (name, size))


def pack_in_memory(directory: GraphDirectory, keys: Iterable[str], part: MemoryPart, name: str) -> Packed:
    """Pack graphs into a part in memory."""
    rows, failures = _packed_rows(directory, keys, part)
    return _result(rows, failures, (name, 0))


def _result(rows: list[_Row], failures: Mapping[str, DataError], part: tuple[str, int]) -> Packed:
    texts: dict[str, int] = {}
    values = np.zeros(len(rows), GRAPH)
    for value, row in zip(values, rows, strict=True):
        for name, item in row.values.items():
            value[name] = item
        value["metadata"] = texts.setdefault(row.metadata, len(texts))
    return Packed(StoreIndex([row.key for row in rows], values, list(texts), [part]), failures)


@dataclass(frozen=True)
class _Row:
    key: str
    values: Mapping[str, Any]
    metadata: str


def _packed_rows(
    directory: GraphDirectory, keys: Iterable[str], part: PartWriter | MemoryPart
) -> tuple[list[_Row], dict[str, DataError]]:
    rows: list[_Row] = []
    failures: dict[str, DataError] = {}
    for key in keys:
        path = directory.path(key)
        try:
            before, now = path.stat(), time.time_ns()
            graph = read_graph(path, key)
        except DataError as error:
            failures[key] = error
            continue
        except OSError as error:
            failures[key] = DataError(f"{path}: can't be read ({error.strerror})", "an interface graph (.pt)")
            continue
        extent, checksum = part.append(pack(graph))
        metadata, edge_count = metadata_text(graph.metadata)
        values = {
            **vars(extent),
            "edge_dim": extent.edge_dim or NO_WIDTH,
            "size": before.st_size,
            "modified": before.st_mtime_ns if before.st_mtime_ns < now - UNSURE_NS else 0,
            "checksum": checksum,
            "digest": np.frombuffer(tensor_digest(graph), np.uint8),
            "edge_count": edge_count,
        }
        rows.append(_Row(key, values, metadata))
    return rows, failures


def tensor_digest(graph: Graph) -> bytes:
    """SHA-256 over shapes and bytes of a graph's tensors, as its file has them."""
    digest = hashlib.sha256()
    update_digest(digest, graph)
    return digest.digest()


def update_digest(digest: Any, graph: Graph) -> None:
    """Add shapes and bytes of a graph's tensors."""
    for tensor in (graph.x, graph.edge_index, graph.edge_attr):
        digest.update(f"{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
