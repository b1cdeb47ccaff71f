"""Raw features of graphs, counted by hand."""

from __future__ import annotations

import torch

from topotrain.data.graph_file import Graph
from topotrain.data.packed_graphs import Sample
from topotrain.data.raw_features import CONTACTS, CONTACTS_PER_RESIDUE, RESIDUES, raw_features, truth


def sample(residues: int, contacts: list[tuple[int, int]], dockq: float, target: str) -> Sample:
    """A graph with an edge in each direction for each contact."""
    edges = [pair for one, other in contacts for pair in ((one, other), (other, one))]
    index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T
    return Sample(Graph(target, torch.zeros(residues, 3), index, torch.zeros(index.shape[1], 2)), dockq, target)


def test_a_contact_is_two_directed_edges():
    samples = [sample(4, [(0, 2), (0, 3), (1, 3)], 0.5, "A"), sample(2, [], 0.1, "B")]
    features = {name: values.tolist() for name, values in raw_features(samples).items()}
    assert features == {CONTACTS: [3.0, 0.0], RESIDUES: [4.0, 2.0], CONTACTS_PER_RESIDUE: [0.75, 0.0]}
    true, targets = truth(samples)
    assert (true.tolist(), targets) == ([0.5, 0.1], ["A", "B"])
