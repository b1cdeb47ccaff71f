"""Which way of explaining a score finds what decides it, and only in a network that has learned it?

Made graphs have two kinds of things that alone decide their DockQ, hot residues and good contacts, each marked in one
column. A way is good that ranks these first in trained networks (area under the ROC curve), that says the same of
networks trained with other seeds, and something else of networks that learned nothing (Spearman correlation of the
importances, as in Adebayo et al., Sanity checks for saliency maps, NeurIPS 2018).

python benchmarks/importance.py [--graphs 400] [--epochs 25] [--judged 40] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from topotrain.data.graph_file import Graph
from topotrain.data.packing import KnownGraph, batch_of, pack
from topotrain.model.network import NetworkSpec, TopoQANetwork
from topotrain.schema.feature_schema import FeatureSchema
from topotrain.scoring.importance import importance
from topotrain.scoring.scorer import Scorer

SPEC = NetworkSpec(node_dim=8, edge_dim=5)
SCHEMA = FeatureSchema(node_dim=SPEC.node_dim, edge_dim=SPEC.edge_dim)
HOT, GOOD = 0.12, 0.06  # shares of residues and of contacts that are marked
FloatArray = npt.NDArray[np.float64]
Importances = list[tuple[FloatArray, FloatArray]]  # of nodes and of contacts, graph by graph
Way = Callable[[Scorer, Graph], tuple[FloatArray, FloatArray]]  # importance of nodes and of contacts


@dataclass(frozen=True)
class Planted:
    """A made graph, what decides its DockQ, and that."""

    graph: Graph
    hot: npt.NDArray[np.bool_]
    good: npt.NDArray[np.bool_]
    dockq: float


def planted(rng: np.random.Generator) -> Planted:
    """Two clouds of residues that face each other, contacts within 16 Angstrom, and marks at random."""
    size = int(rng.integers(20, 40))
    first = np.arange(size) < size // 2
    places = rng.normal(size=(size, 3)) * 8 + np.where(first, -7.0, 7.0)[:, None] * np.array([1.0, 0.0, 0.0])
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    one, other = np.nonzero(np.triu((distances < 16) & (first[:, None] != first[None])))
    x, attributes = rng.normal(size=(size, SPEC.node_dim)), rng.normal(size=(len(one), SPEC.edge_dim))
    hot, good = rng.random(size) < HOT, rng.random(len(one)) < GOOD
    x[:, 0], attributes[:, 0], attributes[:, 1] = hot, good, distances[one, other]
    dockq = 0.05 + 0.45 * min(hot.mean() / (2 * HOT), 1.0) + 0.45 * min(good.mean() / (2 * GOOD), 1.0)
    index = np.stack([np.stack([one, other], 1).ravel(), np.stack([other, one], 1).ravel()])
    parts = x.astype(np.float32), index, np.repeat(attributes, 2, axis=0).astype(np.float32)
    return Planted(Graph("made", *map(torch.from_numpy, parts)), hot, good, float(dockq))


def make(number: int, seed: int) -> list[Planted]:
    """As many graphs with contacts as were asked for."""
    rng, found = np.random.default_rng(seed), list[Planted]()
    while len(found) < number:
        one = planted(rng)
        found += [one] if len(one.good) else []
    return found


def network(graphs: list[Planted], seed: int, epochs: int) -> Scorer:
    """A network that learned from these graphs; after no epoch, one of random weights."""
    torch.manual_seed(seed)
    made, rng = TopoQANetwork(SPEC), np.random.default_rng(seed)
    for scaling, name in ((made.node_scaling, "x"), (made.edge_scaling, "edge_attr")):
        rows = torch.cat([getattr(one.graph, name) for one in graphs]).double()
        scaling.fit(rows.mean(dim=0), rows.std(dim=0))
    optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
    packed = [(pack(one.graph), one.dockq) for one in graphs]
    for _ in range(epochs):
        order = rng.permutation(len(packed)).tolist()
        for start in range(0, len(order), 16):
            part = [packed[place] for place in order[start : start + 16]]
            wanted = torch.tensor([dockq for _, dockq in part], dtype=torch.float32)
            batch = batch_of([graph for graph, _ in part], SPEC.edge_dim, wanted, torch.arange(len(part)))
            inputs = batch.x, batch.edge_index, batch.edge_attr, batch.batch, batch.num_graphs
            loss = torch.nn.functional.mse_loss(made(*inputs, layout=batch.layout), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Scorer(made, SCHEMA)


def gradients(scorer: Scorer, graph: Graph) -> tuple[FloatArray, FloatArray]:
    """What ``topotrain explain`` does."""
    found = importance(scorer, KnownGraph.of(graph))
    return found.nodes, found.contacts


def removal(scorer: Scorer, graph: Graph) -> tuple[FloatArray, FloatArray]:
    """By how much the score falls without a node, and without a contact; here contact k is edges 2k and 2k + 1."""
    index, attributes = graph.edge_index, graph.edge_attr
    variants = [graph]
    for node in range(graph.x.shape[0]):
        kept, edges = torch.arange(graph.x.shape[0]) != node, (index != node).all(dim=0)
        new = torch.cumsum(kept, dim=0) - 1
        variants.append(Graph("made", graph.x[kept], new[index[:, edges]], attributes[edges]))
    for contact in range(index.shape[1] // 2):
        edges = torch.arange(index.shape[1]) // 2 != contact
        variants.append(Graph("made", graph.x, index[:, edges], attributes[edges]))
    return _falls(scorer, variants)


def means(scorer: Scorer, graph: Graph) -> tuple[FloatArray, FloatArray]:
    """By how much the score falls where a node's features, or a contact's, are at their means."""
    variants = [graph]
    for node in range(graph.x.shape[0]):
        x = graph.x.clone()
        x[node] = scorer.network.node_scaling.mean
        variants.append(Graph("made", x, graph.edge_index, graph.edge_attr))
    for contact in range(graph.edge_index.shape[1] // 2):
        attributes = graph.edge_attr.clone()
        attributes[2 * contact : 2 * contact + 2] = scorer.network.edge_scaling.mean.float()
        variants.append(Graph("made", graph.x, graph.edge_index, attributes))
    return _falls(scorer, variants)


def _falls(scorer: Scorer, variants: list[Graph]) -> tuple[FloatArray, FloatArray]:
    whole, *others = scorer.score(variants)
    falls, size = whole - np.array(others), variants[0].x.shape[0]
    return falls[:size], falls[size:]


WAYS: dict[str, Way] = {"integrated gradients": gradients, "removal": removal, "means in place": means}


def found_by(networks: list[Importances], graphs: list[Planted]) -> tuple[float, float]:
    """Area under the ROC curve of hot residues among residues, and of good contacts among contacts; means."""
    areas: tuple[list[float], list[float]] = ([], [])
    for both, one in ((both, one) for values in networks for both, one in zip(values, graphs, strict=True)):
        for into, marked, value in zip(areas, (one.hot, one.good), both, strict=True):
            into += [float(roc_auc_score(marked, value))] if 0 < marked.sum() < len(marked) else []
    return float(np.mean(areas[0])), float(np.mean(areas[1]))


def agreement(one: Importances, other: Importances) -> tuple[float, float]:
    """Spearman correlation of two networks' importances of residues, and of contacts; means over graphs."""
    pairs = [[spearmanr(a, b)[0] for a, b in zip(*both, strict=True)] for both in zip(one, other, strict=True)]
    return float(np.mean([nodes for nodes, _ in pairs])), float(np.mean([contacts for _, contacts in pairs]))


def judge(num_graphs: int, epochs: int, num_judged: int, ways: dict[str, Way] = WAYS) -> dict[str, dict[str, object]]:
    """What each way finds in networks of two seeds, trained and not; each value for residues and for contacts."""
    graphs, judged = make(num_graphs, 0), make(num_judged, 1)
    trained, random = ([network(graphs, seed, number) for seed in (1, 2)] for number in (epochs, 0))
    results: dict[str, dict[str, object]] = {}
    for name, way in ways.items():
        started = time.perf_counter()
        values = [[way(scorer, one.graph) for one in judged] for scorer in (*trained, *random)]
        seconds = (time.perf_counter() - started) / len(judged) / 4
        results[name] = {
            "found by trained": found_by(values[:2], judged),
            "found by random": found_by(values[2:], judged),
            "trained with trained": agreement(values[0], values[1]),
            "trained with random": agreement(values[0], values[2]),
            "random with random": agreement(values[2], values[3]),
            "seconds a graph": seconds,
        }
    return results


def main() -> None:
    """Judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=400, help="to train on")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--judged", type=int, default=40, help="graphs to explain")
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here too")
    arguments = parser.parse_args()
    results = judge(arguments.graphs, arguments.epochs, arguments.judged)
    for name, values in results.items():
        print(name)
        for what, value in values.items():
            shown = ", ".join(f"{part:.2f}" for part in value) if isinstance(value, tuple) else f"{value:.3f}"
            print(f"  {what:22} {shown}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
