"""The polymer chains of a structure, as DockQ compares them: atoms by residue, a letter for each residue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from topotrain.features.structure import FloatArray, IntArray, Structure

SingleArray = npt.NDArray[np.float32]

UNKNOWN_LETTER = "X"
# What DockQ superposes: of amino acids, then of nucleotides.
BACKBONE_ATOMS = (
    *("CA", "C", "N", "O"),
    *("P", "OP1", "OP2", "O2'", "O3'", "O4'", "O5'", "C1'", "C2'", "C3'", "C4'", "C5'"),
)


@dataclass(frozen=True, eq=False)
class ChainAtoms:
    """One chain.

    Attributes:
        name: the author's name of the chain.
        sequence: one letter for each residue.
        coords: (num_atoms, 3) float32, Angstrom; DockQ computes in single precision.
        atom_names: (num_atoms,) names.
        elements: (num_atoms,) element symbols.
        starts: (num_residues + 1,) atoms of residue i are ``[starts[i], starts[i + 1])``.
    """

    name: str
    sequence: str
    coords: SingleArray
    atom_names: npt.NDArray[np.str_]
    elements: npt.NDArray[np.str_]
    starts: IntArray

    def __len__(self) -> int:
        """How many residues there are."""
        return len(self.sequence)

    @cached_property
    def sizes(self) -> IntArray:
        """(num_residues,) atoms of each residue."""
        return np.diff(self.starts)

    @cached_property
    def backbone(self) -> FloatArray:
        """(num_residues, len(BACKBONE_ATOMS), 3) positions, NaN where there is no such atom."""
        positions = np.full((len(self), len(BACKBONE_ATOMS), 3), np.nan)
        residues = np.repeat(np.arange(len(self)), self.sizes)
        for column, name in enumerate(BACKBONE_ATOMS):
            found = np.flatnonzero(self.atom_names == name)
            positions[residues[found], column] = self.coords[found]
        return positions


def polymer_chains(structure: Structure) -> tuple[ChainAtoms, ...]:
    """The chains of a structure in the order in which they begin, a chain's pieces together.

    Water, ions and ligands are no residues of them.
    """
    letters = [residue_letter(str(name)) for name in structure.residue_names]
    has_ca = ~np.isnan(structure.ca[:, 0])
    residues: dict[str, list[int]] = {}
    for index, (chain, letter) in enumerate(zip(structure.chain_ids, letters, strict=True)):
        if letter or (letter is None and has_ca[index]):
            residues.setdefault(str(chain), []).append(index)
    return tuple(_chain(structure, name, np.array(found), letters) for name, found in residues.items())


def residue_letter(name: str) -> str | None:
    """The letter of an amino acid or nucleotide, of its parent where it is modified.

    Returns:
        "" for what is known to be neither, None for what is not known.
    """
    import gemmi  # imported on use: listing modules needs none of it

    known = gemmi.find_tabulated_residue(name.upper())
    if not known.found():
        return None
    if not (known.is_amino_acid() or known.is_nucleic_acid()):
        return ""
    return known.one_letter_code.strip().upper() or UNKNOWN_LETTER


def _chain(structure: Structure, name: str, residues: IntArray, letters: Sequence[str | None]) -> ChainAtoms:
    starts, ends = structure.residue_starts[residues], structure.residue_starts[residues + 1]
    atoms = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    return ChainAtoms(
        name=name,
        sequence="".join(letters[index] or UNKNOWN_LETTER for index in residues),
        coords=structure.coords[atoms].astype(np.float32),
        atom_names=structure.atom_names[atoms],
        elements=structure.elements[atoms],
        starts=np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64),
    )
