"""The least and the greatest value of each column over many graphs, and how far a graph lies beyond them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topotrain.data.column_statistics import ColumnStatistics, rows_by_graph
from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import PackedGraphs

EMPTY = torch.zeros(0, dtype=torch.float64)
DIGITS = 7  # of single precision, in which features are


@dataclass(frozen=True)
class Beyond:
    """A column in which a graph lies beyond what other graphs hold.

    Attributes:
        column: its name.
        value: of the graph, the one furthest away.
        low: the least that the others hold.
        high: the greatest.
        deviations: how far beyond, in standard deviations of the column; infinite where it holds one value alone.
    """

    column: str
    value: float
    low: float
    high: float
    deviations: float


@dataclass(frozen=True)
class ColumnRanges:
    """Of the rows of some graphs.

    Attributes:
        low: (width,) least value of each column, float64.
        high: (width,) greatest.
        deviation: (width,) standard deviation.
    """

    low: Tensor
    high: Tensor
    deviation: Tensor

    def beyond(self, rows: Tensor, names: Sequence[str]) -> list[Beyond]:
        """Columns in which some rows lie beyond, the furthest first.

        Args:
            rows: (num_rows, width).
            names: of the columns.
        """
        if not rows.shape[0]:
            return []
        wide = rows.to(torch.float64)
        least, most = wide.amin(dim=0), wide.amax(dim=0)
        under, over = self.low - least, most - self.high
        # Rounding to the digits that are recorded is no distance.
        slack = 10.0 ** (1 - DIGITS) * torch.maximum(self.low.abs(), self.high.abs())
        distance = torch.maximum(under, over)
        far = (distance - slack).clamp(min=0.0) / self.deviation
        found = [
            Beyond(
                names[place],
                float(least[place] if under[place] > over[place] else most[place]),
                *(float(self.low[place]), float(self.high[place]), float(far[place])),
            )
            for place in torch.nonzero(distance > slack).flatten().tolist()
        ]
        return sorted(found, key=lambda one: (-one.deviations, one.column))

    def to_dict(self) -> dict[str, list[float]]:
        """Plain values, to the digits of single precision."""
        return {name: [float(f"{value:.{DIGITS}g}") for value in getattr(self, name).tolist()] for name in PARTS}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ColumnRanges:
        """The other way.

        Raises:
            ValueError: malformed; or KeyError, TypeError.
        """
        parts = [torch.tensor(content[name], dtype=torch.float64) for name in PARTS]
        if len({part.shape for part in parts}) != 1 or parts[0].dim() != 1:
            raise ValueError("columns of different numbers")
        return cls(*parts)


PARTS = ("low", "high", "deviation")
SIDES = ("node", "edge")


def column_ranges(graphs: PackedGraphs) -> dict[str, Any]:
    """Of the node and of the edge columns of these graphs, as a recipe holds them; one graph in memory at a time."""
    nodes, edges = _Running(), _Running()
    for of_nodes, of_edges in rows_by_graph(graphs):
        nodes.add(of_nodes)
        edges.add(of_edges)
    return {side: rows.ranges().to_dict() for side, rows in zip(SIDES, (nodes, edges), strict=True) if rows.total.count}


def read_ranges(recorded: Any) -> dict[str, ColumnRanges]:
    """Of node and edge columns, out of a recipe; empty where it holds none, or something else."""
    try:
        return {side: ColumnRanges.from_dict(recorded[side]) for side in SIDES if side in recorded}
    except (KeyError, TypeError, ValueError):
        return {}


def joined_ranges(several: Sequence[Mapping[str, ColumnRanges]]) -> dict[str, Any]:
    """Of all graphs of several, as a recipe holds them; a side of which one of them does not say is left out.

    Of the deviations the largest is taken, so that nothing is far from all that is near to one of them.

    Args:
        several: {node, edge: ranges}, of one or more.
    """
    found = {}
    for side in SIDES:
        known = [ranges[side] for ranges in several if side in ranges]
        if len(known) == len(several) and len({one.low.shape for one in known}) == 1:
            low, high, deviation = (torch.stack([getattr(one, part) for one in known]) for part in PARTS)
            found[side] = ColumnRanges(low.amin(dim=0), high.amax(dim=0), deviation.amax(dim=0)).to_dict()
    return found


class _Running:
    """Ranges of rows that come a graph at a time."""

    def __init__(self) -> None:
        self.total, self.low, self.high = ColumnStatistics(0, torch.zeros(0), torch.zeros(0)), EMPTY, EMPTY

    def add(self, rows: Tensor) -> None:
        if rows.shape[0]:
            wide = rows.to(torch.float64)
            low, high, first = wide.amin(dim=0), wide.amax(dim=0), not self.total.count
            self.low, self.high = (
                (low, high) if first else (torch.minimum(self.low, low), torch.maximum(self.high, high))
            )
            self.total = self.total.joined(ColumnStatistics.of(wide))

    def ranges(self) -> ColumnRanges:
        return ColumnRanges(self.low, self.high, self.total.deviation)


def graph_beyond(ranges: Mapping[str, ColumnRanges], graph: Graph, names: Mapping[str, Sequence[str]]) -> list[Beyond]:
    """Columns in which a graph lies beyond others, the furthest first.

    Args:
        ranges: {node, edge: of the others}.
        graph: the graph.
        names: {node, edge: names of the columns}.
    """
    parts = {"node": graph.x, "edge": graph.edge_attr}
    found = [one for side, known in ranges.items() for one in known.beyond(parts[side], names[side])]
    return sorted(found, key=lambda one: (-one.deviations, one.column))
