"""Packed graphs: those of a split in a few long tensors, and batches cut from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from topotrain.data.graph_file import Graph
from topotrain.schema.check import check_fits
from topotrain.schema.feature_schema import FeatureSchema


@dataclass(frozen=True)
class Sample:
    """One labelled graph."""

    graph: Graph
    dockq: float
    target: str


@dataclass
class GraphBatch:
    """Several graphs as one disconnected graph.

    Attributes:
        x: (num_nodes, node_dim) float32.
        edge_index: (2, num_edges) int64, numbered within the batch.
        edge_attr: (num_edges, edge_dim) float32.
        batch: (num_nodes,) int64, the graph of each node.
        y: (num_graphs,) float32, true DockQ; NaN where unknown.
        index: (num_graphs,) int64, the position of each graph among those packed.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    y: Tensor
    index: Tensor

    @property
    def num_graphs(self) -> int:
        """Graphs in the batch, those without edges included."""
        return int(self.y.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """A copy on a device (Lightning calls this)."""
        return GraphBatch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))


class PackedGraphs:
    """Graphs packed one after another; the one interface through which training and scoring see graphs.

    Args:
        graphs: the graphs, all of the schema's widths.
        schema: their schema.
        dockq: true DockQ of each; unknown ones are NaN.
        targets: target of each.

    Raises:
        SchemaError: a graph has other widths.
    """

    def __init__(
        self,
        graphs: Sequence[Graph],
        schema: FeatureSchema,
        dockq: Sequence[float] | None = None,
        targets: Sequence[str] | None = None,
    ) -> None:
        self.keys = [graph.key for graph in graphs]
        self.targets = list(targets) if targets is not None else [""] * len(graphs)
        values = list(dockq) if dockq is not None else [float("nan")] * len(graphs)
        self.y = torch.tensor(values, dtype=torch.float32)
        edge_attrs = [_with_width(graph, schema) for graph in graphs]
        self.x = torch.cat([graph.x for graph in graphs])  # (all nodes, node_dim)
        self.edge_index = torch.cat([graph.edge_index for graph in graphs], dim=1)  # (2, all edges), per graph
        self.edge_attr = torch.cat(edge_attrs)  # (all edges, edge_dim)
        self.node_start = _starts([graph.x.shape[0] for graph in graphs])
        self.edge_start = _starts([graph.edge_index.shape[1] for graph in graphs])

    @classmethod
    def of_samples(cls, samples: Sequence[Sample], schema: FeatureSchema) -> PackedGraphs:
        """The graphs of a split, packed."""
        return cls(
            [sample.graph for sample in samples],
            schema,
            [sample.dockq for sample in samples],
            [sample.target for sample in samples],
        )

    def __len__(self) -> int:
        return len(self.keys)

    def batch(self, indices: Sequence[int]) -> GraphBatch:
        """The graphs at these positions, in this order."""
        nodes = [slice(self.node_start[i], self.node_start[i + 1]) for i in indices]
        edges = [slice(self.edge_start[i], self.edge_start[i + 1]) for i in indices]
        counts = torch.tensor([part.stop - part.start for part in nodes])
        offsets = (torch.cumsum(counts, 0) - counts).tolist()
        index = torch.tensor(list(indices), dtype=torch.int64)
        return GraphBatch(
            x=torch.cat([self.x[part] for part in nodes]),
            edge_index=torch.cat(
                [self.edge_index[:, part] + offset for part, offset in zip(edges, offsets, strict=True)], dim=1
            ),
            edge_attr=torch.cat([self.edge_attr[part] for part in edges]),
            batch=torch.repeat_interleave(torch.arange(len(counts)), counts),
            y=self.y[index],
            index=index,
        )


def _starts(counts: Sequence[int]) -> list[int]:
    return [0, *torch.cumsum(torch.tensor(counts, dtype=torch.int64), 0).tolist()]


def _with_width(graph: Graph, schema: FeatureSchema) -> Tensor:
    """The graph's edge attributes, given the schema's width where a graph without edges states none."""
    edge_attr = graph.edge_attr
    if edge_attr.shape[0] == 0 and edge_attr.shape[1] == 0:
        edge_attr = edge_attr.new_zeros((0, schema.edge_dim))
    found = FeatureSchema(node_dim=graph.x.shape[1], edge_dim=edge_attr.shape[1])
    check_fits(schema, found, f"graph {graph.key}", of="schema", beside="graph", wanted="graphs of one width")
    return edge_attr
