"""Graphs with their labels in an order, and batches cut from them: what training and scoring see of graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from topotrain.data.packing import GraphBatch, PackedGraph, batch_of
from topotrain.data.sharing import Seat, share_of
from topotrain.schema.feature_schema import FeatureSchema


class PackedGraphs:
    """Graphs in an order; they may lie in memory or in a file.

    Args:
        read: gives the graphs at some positions.
        keys: of the graphs.
        schema: theirs.
        dockq: true DockQ of each; unknown ones are NaN.
        targets: target of each.
        num_nodes: of each; only who shares batches among processes needs them.
        num_edges: likewise.
    """

    def __init__(
        self,
        read: Callable[[Sequence[int]], Sequence[PackedGraph]],
        keys: Sequence[str],
        schema: FeatureSchema,
        dockq: Sequence[float] | None = None,
        targets: Sequence[str] | None = None,
        num_nodes: Sequence[int] = (),
        num_edges: Sequence[int] = (),
    ) -> None:
        self._read, self._edge_dim = read, schema.edge_dim
        self.keys, self._num_nodes, self._num_edges = list(keys), num_nodes, num_edges
        self.targets = list(targets) if targets is not None else [""] * len(self.keys)
        values = list(dockq) if dockq is not None else [float("nan")] * len(self.keys)
        self.y = torch.tensor(values, dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, positions: Sequence[int]) -> Sequence[PackedGraph]:
        """The graphs at these positions, one by one."""
        return self._read(positions)

    def batch(self, positions: Sequence[int]) -> GraphBatch:
        """The graphs at these positions, in this order."""
        index = torch.tensor(list(positions), dtype=torch.int64)
        return batch_of(self.read(positions), self._edge_dim, self.y[index], index)

    def part(self, positions: Sequence[int], seat: Seat) -> GraphBatch:
        """What one process computes of the batch of the graphs at these positions."""
        taken, share = share_of(positions, self._num_nodes, self._num_edges, seat)
        part = self.batch([positions[place] for place in taken])
        return replace(part, layout=replace(part.layout, share=share))
