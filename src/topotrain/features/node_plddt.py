"""node/plddt/v1: the columns of node/dssp_topo_merge/v1, and what a predicted model says of each residue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from topotrain.features.modules import GraphContext
from topotrain.features.node_dssp_topo_merge import DsspTopoMerge
from topotrain.features.structure import FloatArray


class Plddt(DsspTopoMerge):
    """32 columns of structure, pLDDT and whether there is one, then the topology module's.

    pLDDT in 0 to 100, from B-factors; both columns are 0 for all nodes of a structure whose B-factors are something
    else.

    Source: Jumper et al., Nature 596, 583 (2021).
    """

    name = "plddt"
    version = "v1"
    alias = "DSSP + pLDDT + topology"
    summary = "As dssp_topo_merge, and pLDDT where B-factors are that."

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """Those of dssp_topo_merge without topology, ``plddt, has_plddt``, then the topology columns."""
        return (*super().columns(()), "plddt", "has_plddt", *topology_columns)

    def compute(self, context: GraphContext) -> FloatArray:
        """See :meth:`NodeModule.compute`."""
        x, plddt = super().compute(context), context.plddt()
        own = np.zeros((len(context.residues), 2))
        if plddt is not None:
            own[:, 0], own[:, 1] = plddt[context.residues], 1.0
        return np.insert(x, [len(super().columns(()))] * 2, own, axis=1)


MODULE = Plddt
