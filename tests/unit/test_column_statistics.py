"""Statistics of columns, a part of the rows at a time, are those of all rows at once."""

from __future__ import annotations

import pytest
import torch

from topotrain.data import column_statistics as module
from topotrain.data.column_statistics import ColumnStatistics, column_statistics
from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.schema.feature_schema import FeatureSchema


def graph(number: int, num_edges: int) -> Graph:
    generator = torch.Generator().manual_seed(number)
    scale = torch.tensor([1e-6, 1.0, 1e6, 1.0])
    x = torch.randn(3 + number, 4, generator=generator) * scale + torch.tensor([0.0, 5.0, 1e7, 0.0])
    x[:, 3] = 0.1 + 0.2
    half = torch.randn(num_edges, 2, generator=generator)
    ends = torch.randint(0, 3, (2, num_edges), generator=generator)
    index = torch.cat([ends, ends.flip(0)], dim=1)
    return Graph(f"g{number}", x, index, torch.cat([half, half]))


@pytest.mark.parametrize("values_at_a_time", [1, 30, 10**9])
def test_parts_give_what_the_whole_gives(values_at_a_time, monkeypatch):
    monkeypatch.setattr(module, "VALUES_AT_A_TIME", values_at_a_time)
    graphs = [graph(number, number % 4) for number in range(20)]
    nodes, edges = column_statistics(PackedGraphs.of_graphs(graphs, FeatureSchema(node_dim=4, edge_dim=2)))
    for found, rows in ((nodes, [g.x for g in graphs]), (edges, [g.edge_attr for g in graphs])):
        every = torch.cat(rows).double()
        assert found.count == len(every)
        torch.testing.assert_close(found.mean, every.mean(0), rtol=1e-13, atol=0)
        torch.testing.assert_close(found.deviation, every.std(0, unbiased=False), rtol=1e-9, atol=1e-9)


def test_they_are_kept_exactly():
    columns = ColumnStatistics.of(torch.randn(50, 3))
    again = ColumnStatistics.from_dict(columns.to_dict())
    assert again.count == columns.count
    assert torch.equal(again.mean, columns.mean)
    assert torch.equal(again.squares, columns.squares)


def test_no_rows():
    empty = ColumnStatistics.of(torch.zeros(0, 3))
    some = ColumnStatistics.of(torch.ones(2, 3))
    assert empty.deviation.tolist() == [0, 0, 0]
    assert empty.joined(some) is some
    assert some.joined(empty) is some
