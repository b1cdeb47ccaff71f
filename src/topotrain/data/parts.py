"""The files of a packed store: graphs one after the other in an array of NumPy's format, read one at a time."""

from __future__ import annotations

import os
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib import format as npy

from topotrain.data.packing import EDGE_COLUMNS, PackedGraph
from topotrain.data.store_index import FILE

WORD = np.dtype(np.int32)  # everything is kept in words of 32 bits: integers, and the bits of floating point numbers
Words = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Extent:
    """Where a graph lies in its part, and what it is made of.

    Attributes:
        start: its first word.
        num_nodes: rows of ``x``.
        node_dim: columns of ``x``.
        num_rows: rows of ``edge_attr``.
        edge_dim: columns of ``edge_attr``.
        num_edges: rows of ``edges``.
    """

    start: int
    num_nodes: int
    node_dim: int
    num_rows: int
    edge_dim: int
    num_edges: int

    @classmethod
    def of(cls, packed: PackedGraph, start: int) -> Extent:
        """Of a graph that begins there."""
        (num_nodes, node_dim), (num_rows, edge_dim) = packed.x.shape, packed.edge_attr.shape
        return cls(start, num_nodes, node_dim, num_rows, edge_dim, packed.edges.shape[0])

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Words of nodes, edge attributes, edges."""
        return self.num_nodes * self.node_dim, self.num_rows * self.edge_dim, self.num_edges * EDGE_COLUMNS

    @property
    def length(self) -> int:
        """Words of the graph."""
        return sum(self.lengths)


def words_of(packed: PackedGraph) -> Words:
    """A graph as it is kept."""
    parts = (packed.x, packed.edge_attr, packed.edges)
    return np.concatenate([part.contiguous().view(torch.int32).numpy().ravel() for part in parts])


def graph_of(words: Words, extent: Extent) -> PackedGraph:
    """The other way, without a copy."""
    nodes, rows, edges = torch.split(torch.from_numpy(words), list(extent.lengths))
    return PackedGraph(
        nodes.view(torch.float32).view(extent.num_nodes, extent.node_dim),
        rows.view(torch.float32).view(extent.num_rows, extent.edge_dim),
        edges.view(extent.num_edges, EDGE_COLUMNS),
    )


def checksum(words: Words) -> int:
    """CRC-32."""
    return zlib.crc32(words.data.cast("B")) if len(words) else 0


class PartWriter:
    """Writes graphs one after the other; the header keeps room for their length, which is known at the end.

    Args:
        folder: of the part; made here.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.path, self._length = folder / FILE, 0
        self._file: IO[bytes] = self.path.open("wb")
        self._write_header()
        self._begin = self._file.tell()

    def append(self, packed: PackedGraph) -> tuple[Extent, int]:
        """Write one graph; where it lies, and its checksum.

        Raises:
            OSError: it can't be written.
        """
        words = words_of(packed)
        self._file.write(words.data.cast("B"))
        self._length += len(words)
        return Extent.of(packed, self._length - len(words)), checksum(words)

    def close(self) -> int:
        """End the file; its length in bytes.

        Raises:
            OSError: it can't be written.
        """
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._begin:
            raise OSError(f"{self.path}: no room for its length in the header")
        self._file.close()
        return self.path.stat().st_size

    def _write_header(self) -> None:
        header = {"descr": npy.dtype_to_descr(WORD), "fortran_order": False, "shape": (self._length,)}
        npy.write_array_header_1_0(self._file, header)


class Part:
    """A part that was written. It stays readable when its file is removed.

    Args:
        folder: of the part.

    Raises:
        OSError: the file can't be read.
        ValueError: it is no array.
    """

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / FILE, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._file)
        with open(self._file, "rb", closefd=False) as file:
            npy.read_magic(file)
            _, _, dtype = npy.read_array_header_1_0(file)
            self._begin = file.tell()
        if dtype != WORD:
            raise ValueError(f"{folder / FILE} holds {dtype}")

    def words(self, extent: Extent) -> Words:
        """A graph as it was written.

        Raises:
            OSError: the file ends before it.
        """
        words = np.empty(extent.length, WORD)
        begin, length = self._begin + extent.start * WORD.itemsize, words.nbytes
        if os.preadv(self._file, [words.data.cast("B")] if length else [], begin) != length:
            raise OSError(f"the packed graphs end before {begin + length}")
        return words


class MemoryPart:
    """A part that is kept in memory, where no file can be written."""

    def __init__(self) -> None:
        self._graphs: list[Words] = []

    def append(self, packed: PackedGraph) -> tuple[Extent, int]:
        """Keep one graph."""
        self._graphs.append(words_of(packed))
        return Extent.of(packed, len(self._graphs) - 1), checksum(self._graphs[-1])

    def words(self, extent: Extent) -> Words:
        """A graph as it was kept."""
        return self._graphs[extent.start]
