"""topology/none/v1: no topology columns."""

from __future__ import annotations

import numpy as np

from topotrain.features.modules import TopologyModule
from topotrain.features.structure import FloatArray, IntArray, Structure


class NoTopology(TopologyModule):
    """Width 0, for graphs without persistent homology."""

    name = "none"
    version = "v1"
    alias = "no topology"
    summary = "No topology columns."

    def columns(self) -> tuple[str, ...]:
        """No columns."""
        return ()

    def compute(self, structure: Structure, residues: IntArray) -> FloatArray:
        """An array of width 0."""
        return np.empty((len(residues), 0))


MODULE = NoTopology
