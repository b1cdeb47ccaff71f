"""How the edges of a batch lie: what the training step needs to know beside the edges themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass  # not frozen, as below
class Share:
    """What one process computes of a batch that several compute together.

    Attributes:
        num_graphs: in the whole batch.
        num_own: of the whole batch's graphs; a process for which none is left has another's, which counts for nothing.
        graphs: (num_graphs of this process,) int64, which of the whole batch's graphs they are, another's included.
        index: (num_graphs,) int64, the position of each graph of the whole batch among those packed.
        num_nodes: in the whole batch.
        nodes: (num_nodes of this process,) int64, which of the whole batch's nodes they are.
        num_edges: in the whole batch.
        edges: (num_edges of this process,) int64, which of the whole batch's edges they are.
    """

    num_graphs: int
    num_own: int
    graphs: Tensor
    index: Tensor
    num_nodes: int
    nodes: Tensor
    num_edges: int
    edges: Tensor


@dataclass  # not frozen: Lightning makes a copy and sets its fields where it computes in another precision
class EdgeLayout:
    """Edges of several graphs, those of each graph together and sorted by target.

    Attributes:
        edge_row: (num_edges,) int64, the row of the edge attributes that each edge has; edges may share one, as the
            two directions of a contact do.
        by_source: (num_edges,) int64, the positions of the edges in the order of their source nodes.
        node_start: (num_graphs + 1) where each graph's nodes begin, and their number.
        edge_start: (num_graphs + 1) where each graph's edges begin.
        row_start: (num_graphs + 1) where each graph's rows of edge attributes begin.
        share: of a batch of which this is one process's part; ``None`` for a whole one.
    """

    edge_row: Tensor
    by_source: Tensor
    node_start: Sequence[int]
    edge_start: Sequence[int]
    row_start: Sequence[int]
    share: Share | None = None

    @property
    def shared(self) -> bool:
        """Whether any edges share a row of attributes."""
        return self.row_start[-1] < self.edge_start[-1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> EdgeLayout:
        """A copy on a device."""
        row, by_source = (one.to(device, non_blocking=non_blocking) for one in (self.edge_row, self.by_source))
        return replace(self, edge_row=row, by_source=by_source)

    @classmethod
    def of(cls, edge_index: Tensor, batch: Tensor, num_graphs: int) -> tuple[Tensor, EdgeLayout]:
        """The layout of edges in any order, one row of attributes each.

        Args:
            edge_index: (2, num_edges) source row, target row.
            batch: (num_nodes,) graph of each node, ascending.
            num_graphs: graphs in the batch.

        Returns:
            (num_edges,) the order that sorts the edges by target, equal ones as they were, and the layout of the
            edges, and of their attributes, in that order.
        """
        order = torch.argsort(edge_index[1], stable=True)
        source = edge_index[0, order]
        graph = batch[edge_index[1]] if edge_index.shape[1] else batch.new_zeros(0)
        edge_start = _starts(torch.bincount(graph, minlength=num_graphs))
        layout = cls(
            edge_row=torch.arange(edge_index.shape[1]),
            by_source=torch.argsort(source, stable=True),
            node_start=_starts(torch.bincount(batch, minlength=num_graphs)),
            edge_start=edge_start,
            row_start=edge_start,
        )
        return order, layout


def _starts(counts: Tensor) -> list[int]:
    return [0, *torch.cumsum(counts, 0).tolist()]
