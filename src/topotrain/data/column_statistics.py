"""Mean and standard deviation of each column over many graphs, a part of them in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import ROW

GRAPHS_AT_A_TIME = 128


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
    nodes = edges = ColumnStatistics(0, torch.zeros(0), torch.zeros(0))
    for at in range(0, len(graphs), GRAPHS_AT_A_TIME):
        part = graphs.read(range(at, min(at + GRAPHS_AT_A_TIME, len(graphs))))
        nodes = nodes.joined(ColumnStatistics.of(torch.cat([one.x for one in part])))
        rows = [one.edge_attr[one.edges[:, ROW].long()] for one in part if one.edges.shape[0]]
        if rows:
            edges = edges.joined(ColumnStatistics.of(torch.cat(rows)))
    return nodes, edges
