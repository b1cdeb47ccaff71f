"""Mean and standard deviation of each column over many graphs, a part of them in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import ROW

VALUES_AT_A_TIME = 2**20


@dataclass(frozen=True)
class ColumnStatistics:
    """Of some rows.

    Attributes:
        count: number of rows.
        mean: (width,) float64.
        squares: (width,) float64, the sum of squared deviations from the mean.
    """

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, values: Tensor) -> ColumnStatistics:
        """Of (num_rows, width) values."""
        wide = values.to(torch.float64)
        count = wide.shape[0]
        mean = wide.mean(dim=0) if count else wide.new_zeros(wide.shape[1])
        return cls(count, mean, (wide - mean).square_().sum(dim=0))

    def joined(self, other: ColumnStatistics) -> ColumnStatistics:
        """Of the rows of both (Chan, Golub and LeVeque, 1983)."""
        count = self.count + other.count
        if other.count == 0 or self.count == 0:
            return self if other.count == 0 else other
        apart = other.mean - self.mean
        return ColumnStatistics(
            count,
            self.mean + apart * (other.count / count),
            self.squares + other.squares + apart.square() * (self.count * other.count / count),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, exact."""
        return {"count": self.count, "mean": self.mean.tolist(), "squares": self.squares.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ColumnStatistics:
        """The other way."""
        mean, squares = (torch.tensor(content[name], dtype=torch.float64) for name in ("mean", "squares"))
        return cls(content["count"], mean, squares)

    @property
    def deviation(self) -> Tensor:
        """(width,) standard deviation."""
        return (self.squares / max(self.count, 1)).sqrt()


def column_statistics(graphs: PackedGraphs) -> tuple[ColumnStatistics, ColumnStatistics]:
    """Of the nodes and of the edges of these graphs, every edge counted."""
    nodes, edges = _Running(), _Running()
    for of_nodes, of_edges in rows_by_graph(graphs):
        nodes.add(of_nodes)
        edges.add(of_edges)
    return nodes.total(), edges.total()


def rows_by_graph(graphs: PackedGraphs) -> Iterator[tuple[Tensor, Tensor]]:
    """Node rows (num_nodes, node_dim) and edge rows (num_edges, edge_dim), every edge counted, a graph at a time."""
    for position in range(len(graphs)):
        (graph,) = graphs.read([position])
        yield graph.x, graph.edge_attr[graph.edges[:, ROW].long()]


class _Running:
    """Statistics of rows that come a few at a time."""

    def __init__(self) -> None:
        self._total = ColumnStatistics(0, torch.zeros(0), torch.zeros(0))
        self._waiting: list[Tensor] = []
        self._size = 0

    def add(self, rows: Tensor) -> None:
        if rows.shape[0]:
            self._waiting.append(rows)
            self._size += rows.numel()
        if self._size > VALUES_AT_A_TIME:
            self.total()

    def total(self) -> ColumnStatistics:
        if self._waiting:
            self._total = self._total.joined(ColumnStatistics.of(torch.cat(self._waiting)))
            self._waiting, self._size = [], 0
        return self._total
