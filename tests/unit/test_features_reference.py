"""Against tables of an independent implementation, on four real complexes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from topotrain.features.graph import GraphArrays, compute_graph
from topotrain.features.module_set import select_modules
from topotrain.features.residue_types import RESIDUE_TYPES
from topotrain.features.structure import read_structure

COMPLEXES = ("1AY7_bound", "1EFN_unbound_superposed", "2OOB_bound", "7CEI_bound")
# The reference's own order: residue types by three-letter name, then structure, accessibility, angles,
# topology.
REFERENCE_TYPES = sorted(RESIDUE_TYPES)
SETS, H0_WIDTH, H1_WIDTH = 7, 5, 15


@pytest.fixture(scope="module", params=COMPLEXES)
def pair(request: pytest.FixtureRequest, shared_data: Path) -> tuple[GraphArrays, dict[str, np.ndarray]]:
    folder = shared_data / "features"
    with np.load(folder / f"{request.param}.npz") as table:
        reference = {name: table[name] for name in table.files}
    return compute_graph(read_structure(folder / f"{request.param}.pdb"), select_modules()), reference


def test_nodes_and_contacts(pair: tuple[GraphArrays, dict[str, np.ndarray]]) -> None:
    graph, reference = pair
    assert graph.node_ids == reference["node_id"].tolist()
    assert np.array_equal(graph.edge_index[:, ::2].T, reference["edge_index"])
    assert np.array_equal(graph.edge_index[::-1, 1::2].T, reference["edge_index"])


def test_edges(pair: tuple[GraphArrays, dict[str, np.ndarray]]) -> None:
    graph, reference = pair
    assert graph.edge_attr[::2] == pytest.approx(reference["edge_features"], abs=1e-4)
    assert np.array_equal(graph.edge_attr[::2], graph.edge_attr[1::2])


def test_topology(pair: tuple[GraphArrays, dict[str, np.ndarray]]) -> None:
    graph, reference = pair
    theirs = reference["node_features"][:, 32:].reshape(-1, SETS, H0_WIDTH + H1_WIDTH)
    flat = (theirs[:, :, :H0_WIDTH], theirs[:, :, H0_WIDTH:])
    expected = np.concatenate([part.reshape(len(theirs), -1) for part in flat], axis=1)
    error = np.abs(graph.x[:, 32:] - expected) / np.maximum(1.0, np.abs(expected))
    assert error.max() < 1e-5


def test_residues_structure_and_angles(pair: tuple[GraphArrays, dict[str, np.ndarray]]) -> None:
    graph, reference = pair
    theirs = reference["node_features"]
    order = [REFERENCE_TYPES.index(name) for name in RESIDUE_TYPES] + [20]
    assert np.array_equal(graph.x[:, 11:32], theirs[:, :21][:, order])
    # Secondary structure by mkdssp 4.2.2: the builtin one agrees on every residue of these four.
    assert np.array_equal(graph.x[:, 3:11], theirs[:, 21:29])
    # mkdssp samples spheres more coarsely and rounds areas to whole square Angstrom.
    assert np.abs(graph.x[:, 0] - theirs[:, 29]).max() < 0.025
    assert np.abs(graph.x[:, 0] - theirs[:, 29]).mean() < 0.006
    assert graph.x[:, 1:3] == pytest.approx(theirs[:, 30:32], abs=1e-5)
