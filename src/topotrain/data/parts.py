"""The arrays of a packed store: files of NumPy's format, written in one go and mapped into memory."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy
from torch import Tensor

from topotrain.data.packing import EDGE_COLUMNS, PackedGraph

X, EDGE_ATTR, EDGES = "x", "edge_attr", "edges"  # as in PackedGraph
ARRAYS = (X, EDGE_ATTR, EDGES)


@dataclass(frozen=True)
class Extent:
    """Where a graph lies in its part: the first row and the number of rows of each array.

    Attributes:
        x: of the nodes.
        edge_attr: of the distinct edge attributes.
        edges: of the edges.
    """

    x: tuple[int, int]
    edge_attr: tuple[int, int]
    edges: tuple[int, int]


def checksum(packed: PackedGraph) -> int:
    """CRC-32 over a graph's arrays."""
    value = 0
    for name in ARRAYS:
        value = zlib.crc32(getattr(packed, name).numpy().data.cast("B"), value) if _size(packed, name) else value
    return value


def _size(packed: PackedGraph, name: str) -> int:
    return int(getattr(packed, name).numel())


class PartWriter:
    """Writes graphs of one width after each other.

    Args:
        folder: of the part; made here.
        node_dim: width of the nodes.
        edge_dim: width of the edges; 0 where no graph says.
    """

    def __init__(self, folder: Path, node_dim: int, edge_dim: int) -> None:
        folder.mkdir(parents=True)
        self._arrays = {
            X: _ArrayWriter(folder / f"{X}.npy", np.float32, node_dim),
            EDGE_ATTR: _ArrayWriter(folder / f"{EDGE_ATTR}.npy", np.float32, edge_dim),
            EDGES: _ArrayWriter(folder / f"{EDGES}.npy", np.int32, EDGE_COLUMNS),
        }

    def append(self, packed: PackedGraph) -> Extent:
        """Write one graph.

        Raises:
            OSError: it can't be written.
        """
        return Extent(*(self._arrays[name].append(getattr(packed, name).numpy()) for name in ARRAYS))

    def close(self) -> None:
        """End the files.

        Raises:
            OSError: they can't be written.
        """
        for array in self._arrays.values():
            array.close()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each file, once they are closed."""
        return {name: array.path.stat().st_size for name, array in self._arrays.items()}


class _ArrayWriter:
    """An ``.npy`` file that grows: its header keeps room for the number of rows, which is known at the end."""

    def __init__(self, path: Path, dtype: npt.DTypeLike, width: int) -> None:
        self.path, self._width, self._rows = path, width, 0
        self._descr = npy.dtype_to_descr(np.dtype(dtype))
        self._file: IO[bytes] = path.open("wb")
        self._write_header()
        self._begin = self._file.tell()

    def append(self, values: npt.NDArray[Any]) -> tuple[int, int]:
        count = len(values)
        if values.size:
            self._file.write(np.ascontiguousarray(values).data.cast("B"))
        self._rows += count
        return self._rows - count, count

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._begin:
            raise OSError(f"{self.path}: no room for {self._rows} rows in the header")
        self._file.close()

    def _write_header(self) -> None:
        shape = (self._rows, self._width)
        npy.write_array_header_1_0(self._file, {"descr": self._descr, "fortran_order": False, "shape": shape})


class Part:
    """A part that was written, mapped into memory.

    Args:
        folder: of the part.

    Raises:
        OSError: a file is missing.
        ValueError: a file is no array.
    """

    def __init__(self, folder: Path) -> None:
        self._maps: list[mmap.mmap] = []
        self._tensors: Mapping[str, Tensor] = {name: self._mapped(folder / f"{name}.npy") for name in ARRAYS}

    def _mapped(self, path: Path) -> Tensor:
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # private, so that torch takes it; nobody writes to it
        if isinstance(array, np.memmap) and array.size:
            self._maps.append(array._mmap)  # type: ignore[attr-defined]
        return torch.from_numpy(np.asarray(array))

    def graph(self, extent: Extent) -> PackedGraph:
        """A graph, not copied: to be used before the next ones are asked for and then let go of."""
        return PackedGraph(*(self._tensors[name].narrow(0, *getattr(extent, name)) for name in ARRAYS))

    def release(self) -> None:
        """Give the pages back that were read: they count as the process's own, and the system keeps them anyway."""
        for one in self._maps:
            one.madvise(mmap.MADV_DONTNEED)


class MemoryPart:
    """A part that is kept in memory, where no file can be written."""

    def __init__(self) -> None:
        self._graphs: list[PackedGraph] = []

    def append(self, packed: PackedGraph) -> Extent:
        """Keep one graph."""
        at = len(self._graphs)
        self._graphs.append(packed)
        return Extent((at, packed.x.shape[0]), (at, packed.edge_attr.shape[0]), (at, packed.edges.shape[0]))

    def graph(self, extent: Extent) -> PackedGraph:
        """A graph."""
        return self._graphs[extent.x[0]]

    def release(self) -> None:
        """Nothing is mapped."""
