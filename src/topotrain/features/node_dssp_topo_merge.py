"""node/dssp_topo_merge/v1: accessibility, backbone, secondary structure, residue type, topology."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from topotrain.features.dssp import (
    SS8_CODES,
    backbone_angles,
    import_packages,
    relative_accessibility,
    secondary_structure,
)
from topotrain.features.mkdssp import require_mkdssp, run_mkdssp
from topotrain.features.modules import GraphContext, NodeModule
from topotrain.features.parameters import Parameters
from topotrain.features.residue_types import NUM_TYPES, one_hot, residue_type_indices
from topotrain.features.structure import FloatArray

HALF_TURN = 180.0  # degrees


class DsspParameters(Parameters):
    """Parameters of node/dssp_topo_merge/v1."""

    dssp: Literal["builtin", "mkdssp"] = Field(
        "builtin", description="builtin (MDTraj and Biotite) or mkdssp (the program, if installed)"
    )


class DsspTopoMerge(NodeModule):
    """32 columns of structure, then the topology module's.

    rasa in [0, 1]; phi and psi over 180 degrees, in (-1, 1], 0 where undefined; secondary structure one-hot
    in the order H B E G I T S -; residue type one-hot by one-letter code A C D E F G H I K L M N P Q R S T
    V W Y, unknown. Accessibility and secondary structure are those of the whole complex.

    Source: Han et al., Briefings in Bioinformatics 26(2), bbaf083 (2025); Kabsch and Sander, Biopolymers
    22:2577 (1983).
    """

    name = "dssp_topo_merge"
    version = "v1"
    alias = "DSSP + topology"
    summary = "32 columns of DSSP features and residue type, then topology."
    parameters = DsspParameters

    def prepare(self) -> None:
        """Find mkdssp, or import what stands for it."""
        if self.params["dssp"] == "mkdssp":
            require_mkdssp()
        else:
            import_packages()

    @property
    def scaling(self) -> str:
        """Angles and accessibility have fixed scales."""
        return "rasa: over the residue type's maximum; phi, psi: over 180 degrees; the rest: none"

    def columns(self, topology_columns: Sequence[str]) -> tuple[str, ...]:
        """``rasa, phi, psi, SS8_0..7, AA_0..20``, then the topology columns."""
        return (
            "rasa",
            "phi",
            "psi",
            *(f"SS8_{index}" for index in range(len(SS8_CODES))),
            *(f"AA_{index}" for index in range(NUM_TYPES)),
            *topology_columns,
        )

    def compute(self, context: GraphContext) -> FloatArray:
        """See :meth:`NodeModule.compute`."""
        structure, residues = context.structure, context.residues
        if self.params["dssp"] == "mkdssp":
            table = run_mkdssp(structure)
            codes, rasa = table.codes[residues], table.accessibility[residues]
            phi, psi = table.phi[residues], table.psi[residues]
        else:
            codes, rasa = (
                secondary_structure(structure)[residues],
                relative_accessibility(structure, residues),
            )
            phi, psi = (angle[residues] for angle in backbone_angles(structure))
        states = np.array([SS8_CODES.index(code) for code in codes], dtype=np.int64)
        types = residue_type_indices(structure.residue_names[residues])
        return np.concatenate(
            [
                np.stack([rasa, phi / HALF_TURN, psi / HALF_TURN], axis=1),
                one_hot(states, len(SS8_CODES)),
                one_hot(types, NUM_TYPES),
                context.topology,
            ],
            axis=1,
        )


MODULE = DsspTopoMerge
