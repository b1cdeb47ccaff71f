"""The graphs of a batch as the network takes them, and their scaled columns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topotrain.data.edge_layout import EdgeLayout, Share
from topotrain.model.pooled_inputs import pooled_columns


@dataclass(frozen=True)
class Graphs:
    """Several graphs.

    Attributes:
        edge_index: (2, num_edges) source row, target row.
        batch: (num_nodes,) graph of each node, ascending.
        num_graphs: how many.
        layout: how the edges lie, where that is known.
    """

    edge_index: Tensor
    batch: Tensor
    num_graphs: int
    layout: EdgeLayout | None

    @property
    def share(self) -> Share | None:
        """What they are of a batch that several processes compute."""
        return self.layout.share if self.layout else None

    def row_ends(self, num_rows: int) -> Tensor:
        """(2, num_rows) the two nodes of the edges of each row of attributes, in an order of no meaning."""
        if self.layout is None:
            return self.edge_index
        ends = self.edge_index.new_zeros(2, num_rows)
        return ends.index_copy(1, self.layout.edge_row, self.edge_index)

    def of_edges(self, rows: Tensor) -> Tensor:
        """(num_edges, width) of (num_rows, width), rows that edges may share."""
        return rows if self.layout is None else rows.index_select(0, self.layout.edge_row)


@dataclass(frozen=True)
class GraphInputs:
    """Scaled columns.

    Attributes:
        nodes: (num_nodes, node_inputs), what is derived from the graphs last.
        edges: (num_rows, edge_inputs), the contact potential last.
        sizes: (num_graphs, 2) of the graphs; ``None`` where nothing is derived.
    """

    nodes: Tensor
    edges: Tensor
    sizes: Tensor | None

    def pooled(self, graphs: Graphs) -> Tensor:
        """(num_graphs, 4 x (node_inputs + edge_inputs)) columns pooled over nodes, and over edges, each one counted."""
        nodes, edges = (_in_single(values) for values in (self.nodes, graphs.of_edges(self.edges)))
        of_edges = graphs.batch[graphs.edge_index[1]]
        pools = (pooled_columns(nodes, graphs.batch, graphs.num_graphs),)
        return torch.cat([*pools, pooled_columns(edges, of_edges, graphs.num_graphs)], dim=1)


def _in_single(values: Tensor) -> Tensor:
    """Half precision has eight bits for sums and counts of hundreds of rows."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
