"""Graphs with their labels in an order, and batches cut from them: what training and scoring see of graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from topotrain.data.graph_file import Graph
from topotrain.data.packing import GraphBatch, PackedGraph, batch_of, pack
from topotrain.schema.check import check_fits
from topotrain.schema.feature_schema import FeatureSchema


class PackedGraphs:
    """Graphs in an order; they may lie in memory or in a file.

    Args:
        read: gives the graphs at some positions.
        keys: of the graphs.
        schema: theirs.
        dockq: true DockQ of each; unknown ones are NaN.
        targets: target of each.
    """

    def __init__(
        self,
        read: Callable[[Sequence[int]], Sequence[PackedGraph]],
        keys: Sequence[str],
        schema: FeatureSchema,
        dockq: Sequence[float] | None = None,
        targets: Sequence[str] | None = None,
    ) -> None:
        self._read, self._edge_dim = read, schema.edge_dim
        self.keys = list(keys)
        self.targets = list(targets) if targets is not None else [""] * len(self.keys)
        values = list(dockq) if dockq is not None else [float("nan")] * len(self.keys)
        self.y = torch.tensor(values, dtype=torch.float32)

    @classmethod
    def of_graphs(
        cls,
        graphs: Sequence[Graph],
        schema: FeatureSchema,
        dockq: Sequence[float] | None = None,
        targets: Sequence[str] | None = None,
    ) -> PackedGraphs:
        """Graphs that lie in memory.

        Raises:
            SchemaError: a graph has other widths than the schema.
        """
        for graph in graphs:
            _check_width(graph, schema)
        packed = [pack(graph) for graph in graphs]
        return cls(
            lambda positions: [packed[i] for i in positions], [graph.key for graph in graphs], schema, dockq, targets
        )

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, positions: Sequence[int]) -> Sequence[PackedGraph]:
        """The graphs at these positions, one by one."""
        return self._read(positions)

    def batch(self, positions: Sequence[int]) -> GraphBatch:
        """The graphs at these positions, in this order."""
        index = torch.tensor(list(positions), dtype=torch.int64)
        return batch_of(self.read(positions), self._edge_dim, self.y[index], index)


def _check_width(graph: Graph, schema: FeatureSchema) -> None:
    """Hold a graph's widths against the schema's; a graph without edges need not state one."""
    edge_dim = graph.edge_attr.shape[1]
    if graph.edge_attr.shape[0] == 0 and edge_dim == 0:
        edge_dim = schema.edge_dim
    found = FeatureSchema(node_dim=graph.x.shape[1], edge_dim=edge_dim)
    check_fits(schema, found, f"graph {graph.key}", of="schema", beside="graph", wanted="graphs of one width")
