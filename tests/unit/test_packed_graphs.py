"""The packed store, its batches, and the order in which graphs are drawn."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from kit.graphs import packed_graphs
from topotrain.config import DataloaderConfig
from topotrain.data.graph_file import Graph
from topotrain.data.module import GraphDataModule
from topotrain.data.packing import pack, unpack
from topotrain.schema.feature_schema import FeatureSchema

SCHEMA = FeatureSchema(node_dim=5, edge_dim=3)


def graph(number: int, num_nodes: int = 4, num_edges: int = 6, **other: Any) -> Graph:
    generator = torch.Generator().manual_seed(number)
    parts = {
        "x": torch.randn(num_nodes, 5, generator=generator),
        "edge_index": torch.randint(0, num_nodes, (2, num_edges), generator=generator),
        "edge_attr": torch.randn(num_edges, 3, generator=generator),
    }
    return Graph(key=f"T{number}/m", **{**parts, **other})


GRAPHS = [
    graph(0),
    graph(1, 1, 1),
    graph(2, 3, 0, edge_attr=torch.zeros(0, 0)),
    graph(3, 7, 20),
    graph(4, 2, 0),
]


def edges(edge_index: Tensor, edge_attr: Tensor) -> list[tuple[int, int, tuple[float, ...]]]:
    """Source, target and attributes of each edge; their order says nothing."""
    return sorted(
        (*ends, tuple(values)) for ends, values in zip(edge_index.t().tolist(), edge_attr.tolist(), strict=True)
    )


@pytest.mark.parametrize("indices", [[0, 1, 2, 3, 4], [3], [2], [2, 4], [4, 0, 4], [3, 1, 2]])
def test_batches_equal_those_of_pyg(indices: list[int]) -> None:
    store = packed_graphs(GRAPHS, SCHEMA, [0.0, 0.1, 0.2, 0.3, 0.4])
    batch = store.batch(indices)
    expected = Batch.from_data_list(
        [
            Data(x=g.x, edge_index=g.edge_index, edge_attr=g.edge_attr if g.edge_attr.shape[1] else torch.zeros(0, 3))
            for g in (GRAPHS[i] for i in indices)
        ]
    )
    for name in ("x", "batch"):
        assert torch.equal(getattr(batch, name), expected[name]), name
        assert getattr(batch, name).dtype == expected[name].dtype
    assert batch.edge_index.dtype == torch.int64
    assert edges(batch.edge_index, batch.edge_attr[batch.layout.edge_row]) == edges(
        expected.edge_index, expected.edge_attr
    )
    assert batch.index.tolist() == indices
    assert batch.y.tolist() == pytest.approx([i / 10 for i in indices])
    assert batch.num_graphs == len(indices)


def test_a_batch_does_not_change_its_store() -> None:
    store = packed_graphs(GRAPHS, SCHEMA)
    batch = store.batch([0, 3])
    for tensor in (batch.x, batch.edge_index, batch.edge_attr, batch.y):
        tensor.fill_(7)
    again, fresh = store.batch([0, 3]), packed_graphs(GRAPHS, SCHEMA).batch([0, 3])
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(getattr(again, name), getattr(fresh, name)), name


@pytest.mark.parametrize("number", range(5))
def test_packing_loses_nothing(number: int) -> None:
    graph = GRAPHS[number]
    again = unpack(pack(graph), graph.key)
    for name in ("x", "edge_index", "edge_attr"):
        assert torch.equal(getattr(again, name), getattr(graph, name)), name


def test_edges_are_sorted_and_the_layout_says_how_they_lie() -> None:
    batch = packed_graphs(GRAPHS, SCHEMA).batch([0, 1, 2, 3, 4])
    layout = batch.layout
    assert layout.node_start == [0, 4, 5, 8, 15, 17]
    assert layout.edge_start == [0, 6, 7, 7, 27, 27]
    for begin, end in pairwise(layout.edge_start):
        target = batch.edge_index[1, begin:end]
        assert (target[1:] >= target[:-1]).all()
        assert sorted(layout.by_source[begin:end].tolist()) == list(range(begin, end))
    source = batch.edge_index[0, layout.by_source]
    assert all((source[b:e][1:] >= source[b:e][:-1]).all() for b, e in pairwise(layout.edge_start))


def test_equal_attributes_of_both_directions_are_kept_once() -> None:
    index = torch.tensor([[0, 1, 2, 0, 3, 3], [1, 0, 0, 2, 3, 3]])
    attributes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 1.0], [2.0, 7.0], [5.0, 5.0], [5.0, 5.0]])
    one = Graph("g", torch.zeros(4, 5), index, attributes)
    packed = pack(one)
    assert packed.edge_attr.shape == (4, 2)  # the pair, two that differ, two loops
    assert torch.equal(unpack(packed, "g").edge_attr, attributes)
    signs = Graph("g", one.x, index[:, :2], torch.tensor([[0.0], [-0.0]]))
    assert torch.signbit(unpack(pack(signs), "g").edge_attr).tolist() == [[False], [True]]


def test_unknown_labels_are_nan_and_names_are_kept() -> None:
    store = packed_graphs(GRAPHS, SCHEMA, targets=list("abcde"))
    assert len(store) == 5
    assert torch.isnan(store.y).all()
    assert store.keys == [f"T{i}/m" for i in range(5)]
    assert store.targets == list("abcde")


def test_a_batch_moves_whole() -> None:
    batch = packed_graphs(GRAPHS, SCHEMA).batch([0, 1])
    moved = batch.to("meta")
    tensors = [*vars(moved).values(), *vars(moved.layout).values()]
    assert {tensor.device.type for tensor in tensors if isinstance(tensor, Tensor)} == {"meta"}
    assert batch.x.device.type == "cpu"
    assert torch.equal(batch.to(torch.device("cpu")).x, batch.x)


def test_loaders_drop_no_graph_and_validation_keeps_its_order() -> None:
    store = packed_graphs(GRAPHS, SCHEMA, [0.0, 0.1, 0.2, 0.3, 0.4])
    module = GraphDataModule(store, store, DataloaderConfig(batch_size=2, batches="random"))
    train = [batch.index.tolist() for batch in module.train_dataloader()]
    assert [len(part) for part in train] == [2, 2, 1]
    assert sorted(sum(train, [])) == [0, 1, 2, 3, 4]
    assert [batch.index.tolist() for batch in module.val_dataloader()] == [[0, 1], [2, 3], [4]]
