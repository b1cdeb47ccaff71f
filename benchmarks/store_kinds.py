"""The formats that ``store_formats.py`` compares: each writes graphs, and reads batches of them as fresh tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_graphs import Shape
from torch import Tensor
from torch_geometric.data import Data

PARTS = ("x", "edge_index", "edge_attr")
Parts = tuple[Tensor, Tensor, Tensor]  # (nodes, node_dim) float32, (edges, 2) int64, (edges, edge_dim) float32


def parts_of(graph: Data) -> Parts:
    """Rows of nodes and of edges."""
    return graph.x, graph.edge_index.t().contiguous(), graph.edge_attr


def raw(part: Tensor) -> memoryview:
    """The bytes of a tensor, without a copy."""
    return memoryview(part.numpy()).cast("B")  # type: ignore[arg-type]


def sizes_of(graph: Data) -> tuple[int, int]:
    """Rows of nodes and of edges, counted."""
    return graph.x.shape[0], graph.edge_index.shape[1]


class Store:
    """One format.

    Args:
        folder: of its files.
        shape: of the graphs.
    """

    def __init__(self, folder: Path, shape: Shape) -> None:
        self.folder, self.shape = folder, shape
        self.widths = {"x": shape.node_dim, "edge_index": 2, "edge_attr": shape.edge_dim}

    def write(self, graphs: Iterator[Data]) -> None:
        """Graph after graph, and where each begins."""
        raise NotImplementedError

    def open(self) -> None:
        """Make ready to read."""
        raise NotImplementedError

    def batch(self, chosen: Sequence[int]) -> Parts:
        """Fresh tensors of some graphs, one after another."""
        raise NotImplementedError

    def _write_starts(self, sizes: Sequence[tuple[int, int]]) -> None:
        np.save(self.folder / "starts.npy", np.concatenate([[[0, 0]], np.cumsum(sizes, axis=0)]))

    def _read_starts(self) -> None:
        starts = np.load(self.folder / "starts.npy")
        self.node_start, self.edge_start = starts[:, 0], starts[:, 1]

    def _start(self, part: str) -> Any:
        return self.node_start if part == "x" else self.edge_start

    def _counts(self, chosen: Sequence[int]) -> tuple[list[int], list[int]]:
        rows = np.asarray(chosen)
        nodes = self.node_start[rows + 1] - self.node_start[rows]
        return nodes.tolist(), (self.edge_start[rows + 1] - self.edge_start[rows]).tolist()


class Records(Store):
    """One file, a record a graph; ``preadv`` puts its three parts where the batch wants them."""

    def write(self, graphs: Iterator[Data]) -> None:
        sizes = []
        with (self.folder / "graphs.bin").open("wb") as file:
            for graph in graphs:
                sizes.append(sizes_of(graph))
                file.writelines(raw(part) for part in parts_of(graph))
        self._write_starts(sizes)

    def open(self) -> None:
        self._read_starts()
        self.file = os.open(self.folder / "graphs.bin", os.O_RDONLY)
        node, edge = 4 * self.shape.node_dim, 16 + 4 * self.shape.edge_dim
        self.offset = node * self.node_start + edge * self.edge_start
        os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_RANDOM)

    def batch(self, chosen: Sequence[int]) -> Parts:
        nodes, edges = self._counts(chosen)
        x = torch.empty(sum(nodes), self.shape.node_dim)
        ends = torch.empty(sum(edges), 2, dtype=torch.int64)
        edge_attr = torch.empty(sum(edges), self.shape.edge_dim)
        views = [raw(part) for part in (x, ends, edge_attr)]
        steps = [len(view) // max(len(part), 1) for view, part in zip(views, (x, ends, edge_attr), strict=True)]
        node = edge = 0
        for place, num_nodes, num_edges in zip(chosen, nodes, edges, strict=True):
            spans = ((node, num_nodes), (edge, num_edges), (edge, num_edges))
            into = [v[a * s : (a + n) * s] for v, s, (a, n) in zip(views, steps, spans, strict=True)]
            if os.preadv(self.file, into, int(self.offset[place])) != sum(map(len, into)):
                raise EOFError(f"graph {place} is cut off")
            node, edge = node + num_nodes, edge + num_edges
        return x, ends, edge_attr


class Memmap(Store):
    """Three long arrays, mapped by NumPy; the batch is a concatenation of slices."""

    def write(self, graphs: Iterator[Data]) -> None:
        sizes = []
        files = [(self.folder / f"{part}.bin").open("wb") for part in PARTS]
        for graph in graphs:
            sizes.append(sizes_of(graph))
            for file, part in zip(files, parts_of(graph), strict=True):
                file.write(raw(part))
        for file in files:
            file.close()
        self._write_starts(sizes)

    def open(self) -> None:
        self._read_starts()
        self.arrays = {
            part: np.memmap(self.folder / f"{part}.bin", np.int64 if part == "edge_index" else np.float32, "r").reshape(
                -1, self.widths[part]
            )
            for part in PARTS
        }

    def batch(self, chosen: Sequence[int]) -> Parts:
        found = []
        for part, array in self.arrays.items():
            start = self._start(part)
            found.append(torch.from_numpy(np.concatenate([array[start[i] : start[i + 1]] for i in chosen])))
        return found[0], found[1], found[2]


class Safetensors(Store):
    """One file of three long tensors, written whole; the batch is a concatenation of ``get_slice``."""

    def write(self, graphs: Iterator[Data]) -> None:
        from safetensors.torch import save_file

        every = [(sizes_of(graph), parts_of(graph)) for graph in graphs]
        tensors = {part: torch.cat([parts[place] for _, parts in every]) for place, part in enumerate(PARTS)}
        save_file(tensors, self.folder / "graphs.safetensors")
        self._write_starts([sizes for sizes, _ in every])

    def open(self) -> None:
        from safetensors import safe_open

        self._read_starts()
        self.file = safe_open(str(self.folder / "graphs.safetensors"), "pt")
        self.slices = {part: self.file.get_slice(part) for part in PARTS}  # type: ignore[no-untyped-call]

    def batch(self, chosen: Sequence[int]) -> Parts:
        found = []
        for part, values in self.slices.items():
            start = self._start(part).tolist()
            found.append(torch.cat([values[start[i] : start[i + 1]] for i in chosen]))
        return found[0], found[1], found[2]


class Feather(Store):
    """An Arrow file (uncompressed), a row a graph with a list for each part; mapped, cut without copies."""

    ROWS = 256  # of a record batch, and written at once

    def write(self, graphs: Iterator[Data]) -> None:
        import pyarrow as pa

        kinds = {"x": pa.float32(), "edge_index": pa.int64(), "edge_attr": pa.float32()}
        schema = pa.schema([(part, pa.large_list(kind)) for part, kind in kinds.items()])
        with pa.OSFile(str(self.folder / "graphs.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            waiting: list[Parts] = []

            def flush() -> None:
                columns = []
                for place in range(len(PARTS)):
                    values = [parts[place].numpy().reshape(-1) for parts in waiting]
                    offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])])
                    columns.append(pa.LargeListArray.from_arrays(offsets, pa.array(np.concatenate(values))))
                writer.write_batch(pa.record_batch(columns, schema=schema))
                waiting.clear()

            for graph in graphs:
                waiting.append(parts_of(graph))
                if len(waiting) == self.ROWS:
                    flush()
            if waiting:
                flush()

    def open(self) -> None:
        import pyarrow as pa

        self.map = pa.memory_map(str(self.folder / "graphs.arrow"))
        reader = pa.ipc.open_file(self.map)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self.columns = [
            [(batch.column(part).offsets.to_numpy(), batch.column(part).values.to_numpy()) for batch in batches]
            for part in PARTS
        ]

    def batch(self, chosen: Sequence[int]) -> Parts:
        found = []
        for part, column in zip(PARTS, self.columns, strict=True):
            cut = []
            for place in chosen:
                offsets, values = column[place // self.ROWS]
                row = place % self.ROWS
                cut.append(values[offsets[row] : offsets[row + 1]])
            found.append(torch.from_numpy(np.concatenate(cut)).view(-1, self.widths[part]))
        return found[0], found[1], found[2]


class Lmdb(Store):
    """A key a graph, its parts in one value; mapped, cut without copies."""

    def write(self, graphs: Iterator[Data]) -> None:
        import lmdb  # type: ignore[import-not-found]

        sizes = []
        with lmdb.open(str(self.folder / "lmdb"), map_size=1 << 40, sync=False) as env:
            for place, graph in enumerate(graphs):
                sizes.append(sizes_of(graph))
                with env.begin(write=True) as change:
                    value = b"".join(part.numpy().tobytes() for part in parts_of(graph))
                    change.put(place.to_bytes(8, "big"), value, append=True)
            env.sync(True)
        self._write_starts(sizes)

    def open(self) -> None:
        import lmdb  # type: ignore[import-not-found]

        self._read_starts()
        self.env = lmdb.open(str(self.folder / "lmdb"), readonly=True, lock=False, readahead=False)

    def batch(self, chosen: Sequence[int]) -> Parts:
        nodes, edges = self._counts(chosen)
        cut: list[list[Any]] = [[], [], []]
        with self.env.begin(buffers=True) as look:
            for place, num_nodes, num_edges in zip(chosen, nodes, edges, strict=True):
                value = look.get(int(place).to_bytes(8, "big"))
                first, second = 4 * num_nodes * self.shape.node_dim, 16 * num_edges
                cut[0].append(np.frombuffer(value[:first], np.float32))
                cut[1].append(np.frombuffer(value[first : first + second], np.int64))
                cut[2].append(np.frombuffer(value[first + second :], np.float32))
            found = [torch.from_numpy(np.concatenate(part)) for part in cut]
        return tuple(f.view(-1, self.widths[part]) for f, part in zip(found, PARTS, strict=True))  # type: ignore[return-value]


class OnDisk(Store):
    """PyG's ``OnDiskDataset`` on SQLite, with a schema of tensors, read by ``multi_get``."""

    def _dataset(self) -> Any:
        from torch_geometric.data import OnDiskDataset

        kinds = {"x": torch.float, "edge_index": torch.int64, "edge_attr": torch.float}
        schema = {part: {"dtype": kinds[part], "size": (-1, self.widths[part])} for part in PARTS}

        class Graphs(OnDiskDataset):  # type: ignore[misc]
            def serialize(self, data: Parts) -> dict[str, Tensor]:
                return dict(zip(PARTS, data, strict=True))

            def deserialize(self, data: dict[str, Tensor]) -> Parts:
                return data["x"], data["edge_index"], data["edge_attr"]

        return Graphs(str(self.folder), backend="sqlite", schema=schema)

    def write(self, graphs: Iterator[Data]) -> None:
        dataset, waiting = self._dataset(), []
        for graph in graphs:
            waiting.append(parts_of(graph))
            if len(waiting) == Feather.ROWS:
                dataset.extend(waiting)
                waiting.clear()
        if waiting:
            dataset.extend(waiting)
        dataset.close()

    def open(self) -> None:
        self.dataset = self._dataset()

    def batch(self, chosen: Sequence[int]) -> Parts:
        found = self.dataset.multi_get(list(chosen))
        return tuple(torch.cat([parts[place] for parts in found]) for place in range(3))  # type: ignore[return-value]


class Files(Store):
    """No store: one ``torch.load`` a graph, as the graphs come."""

    def write(self, graphs: Iterator[Data]) -> None:
        for place, graph in enumerate(graphs):
            torch.save(graph, self.folder / f"{place}.pt")

    def open(self) -> None:
        pass

    def batch(self, chosen: Sequence[int]) -> Parts:
        found = [parts_of(torch.load(self.folder / f"{place}.pt", weights_only=False)) for place in chosen]
        return tuple(torch.cat([parts[place] for parts in found]) for place in range(3))  # type: ignore[return-value]


STORES: dict[str, type[Store]] = {
    "records, preadv": Records,
    "NumPy memmap": Memmap,
    "safetensors slices": Safetensors,
    "Arrow (Feather)": Feather,
    "LMDB": Lmdb,
    "OnDiskDataset (SQLite)": OnDisk,
    "one torch.load a graph": Files,
}
NEEDS = {"LMDB": "lmdb", "Arrow (Feather)": "pyarrow"}
