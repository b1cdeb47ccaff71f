"""What the layers need to know of a batch's edges, worked out once for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from topotrain.data.edge_layout import EdgeLayout

CHUNK_EDGES = 512  # what a chunk of edges needs then stays in the cache, and costs of calls still do not show
WORTH_SHARING = 0.75  # rows to edges; above, a third row to gather for each edge costs more than the rows save


def bag(rows: Tensor, index: Tensor, start: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sums of rows, gathered and added in one kernel.

    Args:
        rows: (num_rows, width).
        index: (num_entries,) rows to add, those of one sum together.
        start: (num_sums + 1) where each sum's entries begin, and their number.
        weights: (num_entries,) factors, or all 1.

    Returns:
        (num_sums, width); a sum without entries is 0.
    """
    sums: Tensor = torch.embedding_bag(rows, index, start, False, 0, False, weights, True)[0]
    return sums


def starts(group: Tensor, num_groups: int) -> Tensor:
    """(num_groups + 1) where the entries of each group begin among ascending groups (num_entries,)."""
    return torch.searchsorted(group, torch.arange(num_groups + 1))


@dataclass(frozen=True)
class Chunk:
    """Some whole graphs of a batch.

    A table has two rows for each node, 2 i for node i as a source and 2 i + 1 for it as a target; where edges share
    rows of attributes, those come below. Numbers are the chunk's own.

    Attributes:
        nodes: of the batch.
        edges: of the batch.
        rows: of the edge attributes of the batch.
        ends: (num_edges, 2 or 3) rows of the table that belong to an edge, flattened.
        end_start: (num_edges + 1) where those of each edge begin.
        edge_bags: edges that belong to each row of the table, together.
        edge_bag_start: (table's rows + 1) where those of each row begin.
    """

    nodes: slice
    edges: slice
    rows: slice
    ends: Tensor
    end_start: Tensor
    edge_bags: Tensor
    edge_bag_start: Tensor


class EdgePlan:
    """Indices derived from a batch's edges.

    Args:
        edge_index: (2, num_edges) source row, target row, in the layout's order.
        layout: how the edges lie.
        heads: of the attention.
    """

    def __init__(self, edge_index: Tensor, layout: EdgeLayout, heads: int) -> None:
        self.layout, self.heads = layout, heads
        self.source, self.target = edge_index[0], edge_index[1]
        self.by_source = layout.by_source
        self.num_nodes, self.num_edges = layout.node_start[-1], edge_index.shape[1]
        self.target_start = starts(self.target, self.num_nodes)  # (num_nodes + 1)
        sources = self.source.index_select(0, self.by_source)
        self.source_start = starts(sources, self.num_nodes)  # (num_nodes + 1)
        self.ends = torch.stack([2 * self.source, 2 * self.target + 1], dim=1).view(-1)  # (2 num_edges,)
        self.end_start = torch.arange(0, 2 * self.num_edges + 1, 2)  # (num_edges + 1)
        self.places = places = torch.arange(self.num_edges)
        # Bag 2 i: edges from node i; bag 2 i + 1: edges to it.
        self.edge_bags = torch.empty(2 * self.num_edges, dtype=torch.int64)
        self.edge_bags[places + self.target_start.index_select(0, sources)] = self.by_source
        self.edge_bags[places + self.source_start.index_select(0, self.target + 1)] = places
        between = self.source_start[1:] + self.target_start[:-1]
        first = self.source_start + self.target_start  # (num_nodes + 1)
        self.edge_bag_start = torch.cat([torch.stack([first[:-1], between], dim=1).view(-1), first[-1:]])

    @cached_property
    def uses_rows(self) -> bool:
        """Whether to compute with rows of attributes: so many edges share one, or each has its own in their order."""
        few = self.layout.row_start[-1] <= WORTH_SHARING * self.num_edges
        return few or torch.equal(self.layout.edge_row, self.places)

    @cached_property
    def by_row(self) -> Tensor:
        """(num_edges,) edges in the order of their rows of attributes."""
        return torch.argsort(self.layout.edge_row, stable=True)

    @cached_property
    def row_start(self) -> Tensor:
        """(num_rows + 1) where the edges of each row begin in ``by_row``."""
        return starts(self.layout.edge_row.index_select(0, self.by_row), self.layout.row_start[-1])

    @cached_property
    def row_ends(self) -> tuple[Tensor, Tensor] | None:
        """(num_rows,) and (num_rows,) the two nodes of the edges of each row; ``None`` where a row's edges differ."""
        first = self.by_row.index_select(0, self.row_start[:-1])
        low, high = torch.minimum(self.source, self.target), torch.maximum(self.source, self.target)
        ends = low.index_select(0, first), high.index_select(0, first)
        alike = all(
            torch.equal(of_rows.index_select(0, self.layout.edge_row), of_edges)
            for of_rows, of_edges in zip(ends, (low, high), strict=True)
        )
        return ends if alike else None

    @cached_property
    def messages(self) -> tuple[Tensor, Tensor]:
        """What every node receives: rows of nodes seen as (2 num_nodes heads, channels), and where they begin."""
        index = (2 * self.heads * self.source).unsqueeze(1) + torch.arange(self.heads)  # (num_edges, heads)
        return index.view(-1), self.heads * self.target_start

    @cached_property
    def received(self) -> tuple[Tensor, Tensor]:
        """Targets that every head of every source sends to, those of a head together, and where they begin."""
        index = self.target.index_select(0, self.by_source).repeat(self.heads)
        of_heads = self.num_edges * torch.arange(self.heads).unsqueeze(1)
        first = self.source_start[:-1] + of_heads  # (heads, num_nodes)
        return index, functional.pad(first.view(-1), (0, 1), value=index.shape[0])

    def products(self, grad: Tensor, ends: Tensor) -> Tensor:
        """(num_edges, heads) of the target's row of grad (num_nodes, channels) and what its source sent."""
        index, start = self.messages
        rows = ends.view(-1, grad.shape[1])
        if self.num_edges > 2 * self.num_nodes**2:  # more doubled edges than a matrix takes
            return torch.einsum("ehc,ec->eh", rows[index].view(-1, self.heads, grad.shape[1]), grad[self.target])
        zeros = grad.new_zeros(index.shape[0])
        pattern = torch.sparse_csr_tensor(start, index, zeros, (grad.shape[0], rows.shape[0]), check_invariants=False)
        products: Tensor = torch.sparse.sampled_addmm(pattern, grad, rows.t(), beta=0.0).values()
        return products.view(-1, self.heads)

    def of_targets(self, values: Tensor) -> Tensor:
        """(num_nodes, heads) sums over the edges to each node."""
        return bag(values, self.places, self.target_start)

    def to_edges(self, values: Tensor) -> Tensor:
        """(num_edges, heads) what each edge's target has."""
        return values.index_select(0, self.target)

    def of_sources(self, values: Tensor) -> Tensor:
        """(heads x num_edges,) of (num_edges, heads), as ``received`` wants them."""
        return values.index_select(0, self.by_source).t().reshape(-1)

    @cached_property
    def bounds(self) -> list[int]:
        """Graphs at which a chunk begins, and their number; chunks hold some hundred edges or more."""
        edge_start = self.layout.edge_start
        chosen = [0]
        for graph in range(1, len(edge_start)):
            if edge_start[graph] - edge_start[chosen[-1]] >= CHUNK_EDGES or graph == len(edge_start) - 1:
                chosen.append(graph)
        return chosen

    @cached_property
    def chunks(self) -> list[Chunk]:
        """For edges with a row of attributes each."""
        return [self._chunk(*places) for places in self._places()]

    @cached_property
    def sharing_chunks(self) -> list[Chunk]:
        """For edges that share rows of attributes."""
        return [self._sharing_chunk(*places) for places in self._places()]

    def _places(self) -> Iterator[tuple[slice, slice, slice]]:
        """Nodes, edges and rows of each chunk."""
        layout = self.layout
        for first, end in zip(self.bounds, self.bounds[1:], strict=False):
            yield (
                slice(layout.node_start[first], layout.node_start[end]),
                slice(layout.edge_start[first], layout.edge_start[end]),
                slice(layout.row_start[first], layout.row_start[end]),
            )

    def _chunk(self, nodes: slice, edges: slice, rows: slice) -> Chunk:
        return Chunk(
            nodes,
            edges,
            edges,
            ends=self.ends[2 * edges.start : 2 * edges.stop] - 2 * nodes.start,
            end_start=self.end_start[: edges.stop - edges.start + 1],
            edge_bags=self.edge_bags[2 * edges.start : 2 * edges.stop] - edges.start,
            edge_bag_start=self.edge_bag_start[2 * nodes.start : 2 * nodes.stop + 1] - 2 * edges.start,
        )

    def _sharing_chunk(self, nodes: slice, edges: slice, rows: slice) -> Chunk:
        plain, num_edges = self._chunk(nodes, edges, rows), edges.stop - edges.start
        row = self.layout.edge_row[edges] + (2 * (nodes.stop - nodes.start) - rows.start)
        row_start = self.row_start[rows.start + 1 : rows.stop + 1] + (2 * num_edges - edges.start)
        return Chunk(
            nodes,
            edges,
            rows,
            ends=torch.cat([plain.ends.view(-1, 2), row.unsqueeze(1)], dim=1).view(-1),
            end_start=torch.arange(0, 3 * num_edges + 1, 3),
            edge_bags=torch.cat([plain.edge_bags, self.by_row[edges] - edges.start]),
            edge_bag_start=torch.cat([plain.edge_bag_start, row_start]),
        )
