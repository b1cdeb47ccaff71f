"""What a score is made of: the laws of integrated gradients, and the checks that a random network must fail."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from topotrain.data.graph_file import Graph
from topotrain.data.packing import KnownGraph
from topotrain.errors import SchemaError
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.explain import explained, residues_of
from topotrain.scoring.importance import Importance, importance
from topotrain.scoring.scorer import Scorer

SPEC = NetworkSpec(node_dim=5, edge_dim=3, attention_head=2, hidden_dim=8)
SCHEMA = FeatureSchema(node_dim=SPEC.node_dim, edge_dim=SPEC.edge_dim)


def make_scorer(seed: int = 4, **changes: Any) -> Scorer:
    torch.manual_seed(seed)
    network = TopoQANetwork(replace(SPEC, **changes))
    for scaling in (network.node_scaling, network.edge_scaling):
        scaling.fit(torch.randn(scaling.mean.shape).double(), torch.rand(scaling.mean.shape).double() + 0.5)
    with torch.no_grad():
        network.node_embedding.weight *= 3  # random networks hardly tell graphs apart
        network.head[0].weight *= 3
    return Scorer(network, replace(SCHEMA, node_dim=network.spec.node_dim))


def make_graph(num_nodes: int = 9, num_edges: int = 40, seed: int = 3, node_dim: int = SPEC.node_dim) -> Graph:
    """Edges of any two nodes, one either way or both, some twice, with attributes of their own."""
    generator = torch.Generator().manual_seed(seed)
    return Graph(
        "one",
        torch.randn(num_nodes, node_dim, generator=generator),
        torch.randint(0, num_nodes, (2, num_edges), generator=generator),
        torch.randn(num_edges, SPEC.edge_dim, generator=generator),
    )


def of(scorer: Scorer, graph: Graph) -> Importance:
    return importance(scorer, KnownGraph.of(graph))


ALL_INPUTS = {
    "pooling_type": "scaled_add",
    "node_dim": 22,
    "residue_columns": 1,
    "contact_term": True,
    "derived_inputs": True,
    "pooled_inputs": 4,
    "input_clamp": 1.0,
    "decorrelated_inputs": True,
}


@pytest.mark.parametrize("shape", [{"pooling_type": how} for how in ("mean", "add", "max")] + [ALL_INPUTS])
def test_contributions_sum_to_the_difference_from_the_reference(shape: dict[str, Any]) -> None:
    scorer = make_scorer(**shape)
    graph = make_graph(node_dim=scorer.network.spec.node_dim)
    found = of(scorer, graph)
    assert found.score == pytest.approx(scorer.score([graph])[0], abs=1e-12)
    network = scorer.network
    means = graph.x * 0 + network.node_scaling.mean.float(), graph.edge_attr * 0 + network.edge_scaling.mean.float()
    assert found.reference == pytest.approx(scorer.score([Graph("m", means[0], graph.edge_index, means[1])])[0], 1e-6)
    difference = found.score - found.reference
    assert abs(difference) > 0.01
    assert found.nodes.sum() + found.contacts.sum() == pytest.approx(difference, abs=1e-12)
    assert found.residues.sum() == pytest.approx(found.nodes.sum() + found.contacts.sum(), abs=1e-12)


def test_without_contacts_nothing_reaches_the_score() -> None:
    found = of(make_scorer(), make_graph(num_edges=0))
    assert found.score == found.reference
    assert not found.nodes.any()
    assert found.contacts.shape == (0,)
    assert found.ends.shape == (0, 2)
    assert len(found.residues) == len(found.nodes)


def test_a_contact_is_both_directions_and_gives_each_residue_half() -> None:
    graph = make_graph()
    found = of(make_scorer(), graph)
    pairs = {tuple(sorted(pair)) for pair in graph.edge_index.t().tolist()}
    assert sorted(pairs) == [tuple(pair) for pair in found.ends.tolist()]
    node = 4
    halves = sum(v / 2 * pair.count(node) for pair, v in zip(found.ends.tolist(), found.contacts, strict=True))
    assert found.residues[node] == pytest.approx(found.nodes[node] + halves)


def test_what_is_at_its_mean_and_what_the_network_does_not_look_at_adds_nothing() -> None:
    scorer, graph = make_scorer(), make_graph()
    graph.x[2] = scorer.network.node_scaling.mean.float()
    assert abs(of(scorer, graph).nodes[2]) < 1e-6
    before = of(scorer, graph)
    with torch.no_grad():
        scorer.network.node_embedding.weight[:, 1] = 0.0
    unseen = of(scorer, graph)
    assert not np.allclose(unseen.nodes, before.nodes)
    graph.x[:, 1] += 7.0
    np.testing.assert_allclose(of(scorer, graph).nodes, unseen.nodes, atol=1e-12)


def test_the_order_of_nodes_and_edges_changes_nothing() -> None:
    scorer, graph = make_scorer(), make_graph()
    found = of(scorer, graph)
    nodes, edges = torch.randperm(graph.x.shape[0]), torch.randperm(graph.edge_index.shape[1])
    place = torch.argsort(nodes)  # where each node went
    other = of(scorer, Graph("two", graph.x[nodes], place[graph.edge_index[:, edges]], graph.edge_attr[edges]))
    np.testing.assert_allclose(other.nodes, found.nodes[nodes.numpy()], atol=1e-10)
    back = {tuple(sorted(nodes[pair].tolist())): v for pair, v in zip(other.ends, other.contacts, strict=True)}
    for pair, value in zip(found.ends.tolist(), found.contacts.tolist(), strict=True):
        assert back[tuple(pair)] == pytest.approx(value, abs=1e-10)


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    graph, scorers = make_graph(), [make_scorer(seed) for seed in (4, 5)]
    both = of(Scorer(scorers[0].network, SCHEMA, scorers[1].network), graph)
    each = [of(scorer, graph) for scorer in scorers]
    for name in ("score", "reference", "nodes", "contacts"):
        one, other = (getattr(member, name) for member in each)
        np.testing.assert_allclose(getattr(both, name), (one + other) / 2, atol=1e-12)
    assert both.nodes.sum() + both.contacts.sum() == pytest.approx(both.score - both.reference, abs=1e-12)


def test_a_graph_of_other_features_is_refused() -> None:
    graph = make_graph()
    with pytest.raises(SchemaError, match="node dim"):
        of(make_scorer(), replace(graph, x=graph.x[:, :4].contiguous()))


def test_residues_are_those_that_the_graph_names_else_its_nodes() -> None:
    graph = make_graph(3)
    assert [(one.chain, one.number) for one in residues_of(graph)] == [("", "0"), ("", "1"), ("", "2")]
    named = replace(graph, metadata={"node_ids": ["A:-1", "A:12B", "x:y:7"]})
    assert [(one.chain, one.number) for one in residues_of(named)] == [("A", "-1"), ("A", "12B"), ("x:y", "7")]
    for wrong in (["A:1"], "A:1", None, 3):
        assert residues_of(replace(graph, metadata={"node_ids": wrong}))[2].number == "2"


def test_the_greatest_comes_first() -> None:
    found = explained(make_scorer(), make_graph())
    values = [value for _, value in found.residues]
    assert values == sorted(values, reverse=True)
    assert sum(values) == found.total
    assert [value for *_, value in found.contacts] == sorted((value for *_, value in found.contacts), reverse=True)


@pytest.fixture(scope="module")
def benchmark(request: pytest.FixtureRequest) -> ModuleType:
    path = request.config.rootpath / "benchmarks" / "importance.py"
    spec = importlib.util.spec_from_file_location("importance_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_what_decides_is_found_and_only_by_a_network_that_learned_it(benchmark: ModuleType) -> None:
    """A smaller run of the sanity check of docs/decisions."""
    results = benchmark.judge(120, 14, 8, {"ours": benchmark.gradients})["ours"]
    assert min(results["found by trained"]) > 0.9, results
    assert results["found by random"][0] < 0.8
    trained, random = results["trained with trained"], results["trained with random"]
    assert trained[0] > 0.6, results
    assert abs(random[0]) < 0.4, results
    assert trained[0] > random[0] + 0.4
