"""Labelled graphs as arrays of numbers: their truth, and raw features that a network has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from topotrain.data.packed_graphs import Sample

Values = npt.NDArray[np.float64]

CONTACTS, RESIDUES, CONTACTS_PER_RESIDUE = "number of contacts", "number of residues", "contacts per residue"
EDGES_OF_A_CONTACT = 2  # one in each direction


def truth(samples: Sequence[Sample]) -> tuple[Values, list[str]]:
    """True DockQ, (num_graphs,), and target of each graph."""
    return np.array([sample.dockq for sample in samples]), [sample.target for sample in samples]


def raw_features(samples: Sequence[Sample]) -> dict[str, Values]:
    """Raw features of whole graphs by name, each (num_graphs,); more is taken to be better."""
    facts = [sample.graph.facts for sample in samples]
    contacts = np.array([one.num_edges / EDGES_OF_A_CONTACT for one in facts])
    residues = np.array([float(one.num_nodes) for one in facts])
    return {CONTACTS: contacts, RESIDUES: residues, CONTACTS_PER_RESIDUE: contacts / residues}
