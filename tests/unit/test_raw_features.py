"""Raw features of graphs, counted by hand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch_geometric.data import Data

from topotrain.data.graph_dir import GraphDirectory
from topotrain.data.raw_features import CONTACTS, CONTACTS_PER_RESIDUE, RESIDUES, raw_features, truth
from topotrain.data.split import read_split


def save(path: Path, residues: int, contacts: list[tuple[int, int]]) -> None:
    """A graph with an edge in each direction for each contact."""
    edges = [pair for one, other in contacts for pair in ((one, other), (other, one))]
    index = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T
    path.parent.mkdir(parents=True)
    torch.save(Data(x=torch.zeros(residues, 3), edge_index=index, edge_attr=torch.zeros(index.shape[1], 2)), path)


def test_a_contact_is_two_directed_edges(tmp_path):
    save(tmp_path / "A" / "m.pt", 4, [(0, 2), (0, 3), (1, 3)])
    save(tmp_path / "B" / "m.pt", 2, [])
    labels = tmp_path / "labels.csv"
    labels.write_text("MODEL,dockq\nA/m,0.5\nB/m,0.1\n")
    split = read_split("train", GraphDirectory(tmp_path), labels)
    features = {name: values.tolist() for name, values in raw_features(split).items()}
    assert features == {CONTACTS: [3.0, 0.0], RESIDUES: [4.0, 2.0], CONTACTS_PER_RESIDUE: [0.75, 0.0]}
    true, targets = truth(split)
    assert (true.tolist(), targets) == ([0.5, 0.1], ["A", "B"])
