"""Labelled graphs as arrays of numbers: their truth, and raw features that a network has to beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from topotrain.data.split import Split

Values = npt.NDArray[np.float64]

CONTACTS, RESIDUES, CONTACTS_PER_RESIDUE = "number of contacts", "number of residues", "contacts per residue"
EDGES_OF_A_CONTACT = 2  # one in each direction


def truth(split: Split) -> tuple[Values, list[str]]:
    """True DockQ, (num_graphs,), and target of each graph."""
    return np.array([sample.dockq for sample in split.samples]), [sample.target for sample in split.samples]


def raw_features(split: Split) -> dict[str, Values]:
    """Raw features of whole graphs by name, each (num_graphs,); more is taken to be better."""
    residues, edges = split.sizes
    contacts = edges / EDGES_OF_A_CONTACT
    return {CONTACTS: contacts, RESIDUES: residues, CONTACTS_PER_RESIDUE: contacts / residues}
