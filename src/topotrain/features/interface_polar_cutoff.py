"""interface/polar_cutoff/v1: residues near another partner."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from topotrain.features.geometry import cross_chain_contacts
from topotrain.features.modules import InterfaceModule
from topotrain.features.parameters import Parameters
from topotrain.features.structure import IntArray, Structure


class PolarCutoffParameters(Parameters):
    """Parameters of interface/polar_cutoff/v1."""

    cutoff: float = Field(10.0, ge=0, description="C-alpha distance, Angstrom, excluded (14.0 with edge/multi_scale)")


class PolarCutoff(InterfaceModule):
    """Residues whose C-alpha lies strictly within ``cutoff`` of a C-alpha of another partner.

    A partner is a chain, where nobody says which chains belong together.

    Source: Han et al., Briefings in Bioinformatics 26(2), bbaf083 (2025), interface of TopoQA.
    """

    name = "polar_cutoff"
    version = "v1"
    alias = "TopoQA interface"
    summary = "Residues of different chains by C-alpha distance."
    parameters = PolarCutoffParameters

    def find(self, structure: Structure) -> IntArray:
        """See :meth:`InterfaceModule.find`."""
        everything = np.arange(structure.num_residues)
        pairs, _ = cross_chain_contacts(structure, everything, 0.0, self.params["cutoff"])
        return np.unique(pairs)


MODULE = PolarCutoff
