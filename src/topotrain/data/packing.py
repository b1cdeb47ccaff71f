"""One graph as the training step wants it: edges by target, equal attributes once; and batches of such graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topotrain.data.edge_layout import EdgeLayout
from topotrain.data.graph_file import Graph
from topotrain.schema.feature_schema import GraphFacts

SOURCE, TARGET, BY_SOURCE, ROW, ORDER = range(5)
EDGE_COLUMNS = 5


@dataclass(frozen=True)
class PackedGraph:
    """One graph.

    Attributes:
        x: (num_nodes, node_dim) float32.
        edge_attr: (num_rows, edge_dim) float32; a row for each pair of nodes whose edges have equal attributes.
        edges: (num_edges, 5) int32, sorted by target; of each edge the source, the target, its row of ``edge_attr``,
            and its place in the file, and (``BY_SOURCE``) the edges in the order of their sources.
    """

    x: Tensor
    edge_attr: Tensor
    edges: Tensor


@dataclass(frozen=True)
class KnownGraph:
    """A packed graph, and what it says of itself."""

    facts: GraphFacts
    packed: PackedGraph

    @classmethod
    def of(cls, graph: Graph) -> KnownGraph:
        """A graph as it was read."""
        return cls(graph.facts, pack(graph))


@dataclass
class GraphBatch:
    """Several graphs as one disconnected graph.

    Attributes:
        x: (num_nodes, node_dim) float32.
        edge_index: (2, num_edges) int64, numbered within the batch; each graph's edges sorted by target.
        edge_attr: (num_rows, edge_dim) float32; ``layout.edge_row`` says which row an edge has.
        batch: (num_nodes,) int64, the graph of each node.
        y: (num_graphs,) float32, true DockQ; NaN where unknown.
        index: (num_graphs,) int64, the position of each graph among those packed.
        layout: how the edges lie.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    y: Tensor
    index: Tensor
    layout: EdgeLayout

    @property
    def num_graphs(self) -> int:
        """Graphs in the batch, those without edges included."""
        return int(self.y.shape[0])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> GraphBatch:
        """A copy on a device (Lightning calls this)."""
        return GraphBatch(*(getattr(self, one.name).to(device, non_blocking=non_blocking) for one in fields(self)))


def pack(graph: Graph) -> PackedGraph:
    """Sort a graph's edges, and keep attributes that both edges of a pair of nodes share once."""
    source, target = graph.edge_index.numpy()
    order = np.argsort(target, kind="stable")
    source, target = source[order], target[order]
    attributes = graph.edge_attr.numpy()[order]
    row, kept = _shared_rows(source, target, attributes, graph.x.shape[0])
    edges = np.empty((len(order), EDGE_COLUMNS), dtype=np.int32)
    columns = {SOURCE: source, TARGET: target, BY_SOURCE: np.argsort(source, kind="stable"), ROW: row, ORDER: order}
    for column, values in columns.items():
        edges[:, column] = values
    return PackedGraph(graph.x, torch.from_numpy(attributes[kept]), torch.from_numpy(edges))


def _shared_rows(
    source: npt.NDArray[np.int64], target: npt.NDArray[np.int64], attributes: npt.NDArray[np.float32], num_nodes: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The row of each edge, and which edges' attributes are the rows.

    An edge takes the row of the first edge between its two nodes where the attributes are the same bits (of two zeros
    with different signs only one could be given back).
    """
    pair = np.minimum(source, target) * num_nodes + np.maximum(source, target)
    _, first, group = np.unique(pair, return_index=True, return_inverse=True)
    first = first[group]
    bits = attributes.view(np.int32)
    first = np.where((bits == bits[first]).all(axis=1), first, np.arange(len(pair)))
    kept, row = np.unique(first, return_inverse=True)
    return row, kept


def unpack(packed: PackedGraph, key: str, metadata: Mapping[str, Any] | None = None) -> Graph:
    """The graph as its file has it, but for the metadata, of which what was kept is given."""
    edges = packed.edges.to(torch.int64)
    in_file = torch.empty_like(edges[:, ORDER])
    in_file[edges[:, ORDER]] = torch.arange(edges.shape[0])
    return Graph(
        key=key,
        x=packed.x,
        edge_index=edges[in_file][:, [SOURCE, TARGET]].t().contiguous(),
        edge_attr=packed.edge_attr[edges[in_file, ROW]],
        metadata=metadata or {},
    )


def batch_of(graphs: Sequence[PackedGraph], edge_dim: int, y: Tensor, index: Tensor) -> GraphBatch:
    """Graphs as one batch, in this order.

    Args:
        graphs: one or more.
        edge_dim: width of the edges, which a graph without edges need not have.
        y: (num_graphs,) true DockQ.
        index: (num_graphs,) their positions.
    """
    nodes, edges, rows = ([getattr(graph, name).shape[0] for graph in graphs] for name in ("x", "edges", "edge_attr"))
    starts = {name: [0, *np.cumsum(counts).tolist()] for name, counts in (("n", nodes), ("e", edges), ("r", rows))}
    offset = torch.tensor(
        [[n, n, e, r, 0] for n, e, r in zip(starts["n"][:-1], starts["e"][:-1], starts["r"][:-1], strict=True)]
    )
    every = torch.cat([graph.edges for graph in graphs]).to(torch.int64)  # (num_edges, 5)
    every = (every + offset.repeat_interleave(torch.tensor(edges), dim=0)).t().contiguous()
    with_rows = [graph.edge_attr for graph in graphs if graph.edge_attr.shape[0]]
    return GraphBatch(
        x=torch.cat([graph.x for graph in graphs]),
        edge_index=every[[SOURCE, TARGET]],
        edge_attr=torch.cat(with_rows) if with_rows else torch.zeros((0, edge_dim)),
        batch=torch.repeat_interleave(torch.arange(len(graphs)), torch.tensor(nodes)),
        y=y,
        index=index,
        layout=EdgeLayout(
            edge_row=every[ROW],
            by_source=every[BY_SOURCE],
            node_start=starts["n"],
            edge_start=starts["e"],
            row_start=starts["r"],
        ),
    )
