"""Boosted trees on pooled columns: kept as numbers, they predict what scikit-learn does."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import PackedGraphs
from topotrain.data.packing import pack
from topotrain.data.pooled_columns import pooled_columns
from topotrain.errors import DataError
from topotrain.metrics.trees import LEAVES, NUM_TREES, SEED, Trees, fitted_trees
from topotrain.schema.feature_schema import FeatureSchema

RNG = np.random.default_rng(3)
COLUMNS = RNG.normal(size=(300, 7)).round(1)  # rounded: values that lie on thresholds, and ties
TRUE = 1 / (1 + np.exp(-COLUMNS[:, 0] + COLUMNS[:, 1] * COLUMNS[:, 2]))
TREES = fitted_trees(COLUMNS, TRUE)


@pytest.mark.parametrize("rows", [COLUMNS, RNG.normal(size=(500, 7)) * 9, COLUMNS[:0], np.full((2, 7), 1e300)])
def test_predictions_are_scikit_learn_s(rows: np.ndarray) -> None:
    model = HistGradientBoostingRegressor(
        max_iter=NUM_TREES, max_leaf_nodes=LEAVES, early_stopping=False, random_state=SEED
    ).fit(COLUMNS, TRUE)
    expected = model.predict(rows) if len(rows) else np.zeros(0)
    assert TREES.predict(rows).tolist() == expected.tolist()
    assert len(set(TREES.predict(COLUMNS))) > 100, "they learned something"


def test_kept_as_json_they_are_the_same_and_small() -> None:
    text = json.dumps(TREES.to_dict())
    assert len(text) < 300_000
    again = Trees.from_dict(json.loads(text))
    assert again.predict(COLUMNS).tolist() == TREES.predict(COLUMNS).tolist()


def test_the_same_on_any_number_of_cores() -> None:
    for cores in (1, 2):
        with threadpool_limits(cores):
            assert fitted_trees(COLUMNS, TRUE).to_dict() == TREES.to_dict()


@pytest.mark.parametrize("num_graphs", [1, 2, 14])
def test_a_few_graphs_give_their_mean(num_graphs: int) -> None:
    trees = fitted_trees(COLUMNS[:num_graphs], TRUE[:num_graphs])
    assert trees.predict(COLUMNS) == pytest.approx(np.full(len(COLUMNS), TRUE[:num_graphs].mean()))


def changed(**lists: Any) -> dict[str, Any]:
    return {**TREES.to_dict(), **lists}


def put(name: str, place: int, value: Any) -> dict[str, Any]:
    content = TREES.to_dict()
    content[name][place] = value
    return content


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        changed(first=[10**6]),
        changed(first=[-1]),
        changed(first=3),
        changed(value=TREES.to_dict()["value"][:-1]),
        changed(left=[TREES.to_dict()["left"]]),
        changed(num_columns=1),
        changed(start=float("nan")),
        put("left", 5, 0),  # back: a row would go round and round
        put("left", 0, 10**9),
        put("right", 0, -1),
        put("column", 0, 7),
        put("column", 0, -1),
        put("threshold", 0, "x"),
        put("value", 0, float("inf")),
        put("left", 0, 10**30),
    ],
)
def test_malformed_ones_are_refused(content: Any) -> None:
    with pytest.raises(DataError, match="malformed; expected boosted trees"):
        Trees.from_dict(content, "trees.json")


def test_columns_are_pooled_as_they_say() -> None:
    schema = FeatureSchema(node_dim=2, edge_dim=1)
    x = torch.tensor([[1.0, 4.0], [3.0, -4.0], [2.0, 0.0]])
    edge_index = torch.tensor([[0, 1, 1], [1, 0, 2]])
    edge_attr = torch.tensor([[0.5], [0.5], [2.0]])  # the first two lie there once
    graphs = [
        Graph("a", x, edge_index, edge_attr, None),
        Graph("b", x[:1], edge_index[:, :0], edge_attr[:0], None),
    ]
    packed = [pack(graph) for graph in graphs]
    table = pooled_columns(PackedGraphs(lambda at: [packed[i] for i in at], ["a", "b"], schema), 2, 1)
    nodes, edges = x.double().numpy(), edge_attr.double().numpy()
    expected = [3, 3]
    for values in (nodes, edges):
        expected += [*values.mean(axis=0), *values.std(axis=0), *values.max(axis=0)]
    assert table[0] == pytest.approx(expected)
    assert table[1].tolist() == [1, 0, 1, 4, 0, 0, 1, 4, 0, 0, 0]
